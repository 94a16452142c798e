//! Real threads: one writer at full speed, readers that hold leases for a while, late joiners.
//! Short by default; the same file is what the sanitizers run. Each published byte is a function of
//! its position, so a torn, lost or reused byte shows at once.
#![cfg(not(loom))]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::video;
use ring::{Arena, Lease, MessageFlags, Position, RingConfig, StreamRing, Writer, stream_ring};

const MESSAGES: u32 = 20_000;
const READERS: usize = 3;
const LEASES_HELD_MAX: usize = 5;
const RETAINED_BYTES_MAX: u64 = 4096;
/// A new codec configuration every so many keyframes.
const KEYFRAMES_PER_PREAMBLE: u32 = 3;

fn config() -> RingConfig {
    RingConfig {
        segment_bytes: 512,
        slots: 64,
        index_entries_per_segment: 8,
        bytes_max: 64 * 1024,
        preamble_bytes_max: 64,
    }
}

fn byte_at(position: u64) -> u8 {
    u8::try_from(position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).expect("eight bits")
}

fn assert_untouched(lease: &Lease, start: Position) {
    for (&byte, at) in lease.iter().zip(start.0..) {
        assert_eq!(byte, byte_at(at), "byte at {at}");
    }
}

/// A keyframe every 20 messages; its timestamp says which preamble it needs.
fn write(mut writer: Writer) -> u64 {
    let mut arena = Arena::new(&config(), 16);
    let (mut refused, mut preamble) = (0, 0_u64);
    for number in 0..MESSAGES {
        let is_keyframe = number % 20 == 0;
        let head = writer.head();
        if is_keyframe && number / 20 % KEYFRAMES_PER_PREAMBLE == 0 {
            let blob = (preamble + 1).to_le_bytes();
            // A refusal keeps the old one, which is then what the keyframe needs.
            preamble = writer.set_preamble(&mut arena, &blob, head).unwrap_or(preamble);
        }
        let bytes = 1 + number as usize * 7919 % 300 + usize::from(number % 97 == 0) * 600;
        while let Err(reason) = writer.reserve(&mut arena, bytes) {
            refused += 1;
            assert!(["no_slot", "byte_budget"].contains(&reason.label()));
            writer.trim(&mut arena, head);
            thread::yield_now();
        }
        for (byte, at) in writer.reserved_mut().iter_mut().zip(head.0..) {
            *byte = byte_at(at);
        }
        let flags = if is_keyframe { MessageFlags::KEYFRAME } else { MessageFlags::NONE };
        let stamp = u32::try_from(preamble).expect("few preambles");
        writer.commit(video(stamp, bytes, flags));
        if is_keyframe {
            writer.set_join(Some(head));
        }
        writer.mark_video_end();
        let before = writer.head().0.saturating_sub(RETAINED_BYTES_MAX);
        writer.trim(&mut arena, Position(before));
    }
    refused
}

fn read(ring: &StreamRing, is_done: &AtomicBool, is_joiner: bool) -> u64 {
    let mut tap = ring.tap();
    let mut cursor = Position(0);
    let mut held: Vec<(Lease, Position)> = Vec::new();
    let (mut bytes_read, mut turn) = (0_u64, 0_usize);
    loop {
        // Read before the refresh: what was published by then is in this last view.
        let is_last = is_done.load(Ordering::Acquire);
        turn += 1;
        if is_joiner && turn % 16 == 0 {
            tap = ring.tap();
        }
        let view = tap.refresh();
        assert!(view.tail <= view.flush_mark && view.flush_mark <= view.head);
        if cursor < view.tail {
            cursor = view.join.unwrap_or(view.tail);
        }
        if let Some(join) = tap.join_point() {
            let keyframe = tap.message_at(join.position).expect("the join position is a message");
            assert!(keyframe.is_keyframe());
            let preamble = join.preamble.expect("set before the first keyframe");
            assert_eq!(preamble.version, u64::from(keyframe.meta.timestamp));
            assert_eq!(preamble.bytes[..], preamble.version.to_le_bytes());
        }
        while let Some(lease) = tap.lease(cursor, 200) {
            assert_untouched(&lease, cursor);
            bytes_read += lease.len() as u64;
            let start = cursor;
            cursor = cursor.after(lease.len() as u64);
            held.push((lease, start));
            if held.len() > LEASES_HELD_MAX {
                let (oldest, start) = held.swap_remove(turn % LEASES_HELD_MAX);
                assert_untouched(&oldest, start);
            }
        }
        if is_last {
            return bytes_read;
        }
        thread::yield_now();
    }
}

#[test]
fn readers_on_other_threads_only_ever_see_what_was_published() {
    let (writer, ring) = stream_ring(config());
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (ring, is_done) = (&ring, &is_done);
                scope.spawn(move || read(ring, is_done, reader == 0))
            })
            .collect();
        let writing = scope.spawn(move || write(writer));
        let refused = writing.join();
        is_done.store(true, Ordering::Release);
        assert!(refused.is_ok(), "the writer's assertions hold");
        for reader in readers {
            assert!(reader.join().expect("the reader's assertions hold") > 0);
        }
    });
}
