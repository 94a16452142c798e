//! After warm-up, publishing, refreshing, leasing and trimming do not allocate.
#![cfg(not(loom))]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::video;
use ring::{Arena, MessageFlags, Position, RingConfig, Tap, Writer, stream_ring};

struct Counting;

thread_local! {
    /// Of this thread: the one that runs the tests may still allocate for its own books.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged; counting touches a thread-local cell
// that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const RETAINED_BYTES_MAX: u64 = 16 * 1024;

/// One flush turn: a few messages in, both taps read up to the head, the past is trimmed.
fn turn(writer: &mut Writer, arena: &mut Arena, taps: &mut [Tap; 2], cursor: &mut Position) {
    for number in 0..5_u32 {
        writer.reserve(arena, 300).expect("within the budget");
        writer.reserved_mut().fill(1);
        let is_keyframe = number == 0;
        let flags = if is_keyframe { MessageFlags::KEYFRAME } else { MessageFlags::NONE };
        let start = writer.commit(video(number, 300, flags));
        if is_keyframe {
            writer.set_join(Some(start));
        }
        writer.mark_video_end();
    }
    for tap in taps.iter_mut() {
        let view = tap.refresh();
        let mut at = *cursor;
        while let Some(lease) = tap.lease(at, usize::MAX) {
            let copy = lease.clone();
            at = at.after(copy.len() as u64);
        }
        assert_eq!(at, view.head);
        let keyframe = tap.keyframe_at_or_after(*cursor).expect("one per turn");
        assert_eq!(tap.join_point().expect("one per turn").position, keyframe.start);
    }
    *cursor = writer.head();
    writer.trim(arena, Position(cursor.0.saturating_sub(RETAINED_BYTES_MAX)));
}

#[test]
fn nothing_is_allocated_after_warm_up() {
    let config = RingConfig { segment_bytes: 4096, slots: 32, ..RingConfig::default() };
    let (mut writer, ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 8);
    let mut taps = [ring.tap(), ring.tap()];
    let mut cursor = Position(0);
    writer.set_preamble(&mut arena, b"header", cursor).expect("an empty ring has room");
    for _ in 0..100 {
        turn(&mut writer, &mut arena, &mut taps, &mut cursor);
    }
    let before = ALLOCATIONS.get();
    assert!(before > 0, "the counter counts");
    for _ in 0..10_000 {
        turn(&mut writer, &mut arena, &mut taps, &mut cursor);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
