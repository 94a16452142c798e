//! Model: the writer laps the ring while a reader is slow, and while a tap is being made.
#![cfg(loom)]

mod common;

use common::{publish, tiny};
use loom::thread;
use ring::{Arena, Position, stream_ring};

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(body);
}

/// Two slots, three segments: the third reuses the first one's slot and its directory place, while
/// the reader still goes by control words that name the first.
#[test]
fn a_slow_reader_never_sees_a_reused_slot_as_its_old_segment() {
    model(|| {
        let config = tiny(2);
        let (mut writer, ring) = stream_ring(config);
        let mut arena = Arena::new(&config, 1);
        publish(&mut writer, &mut arena, 1, 8).expect("an empty ring has room");
        publish(&mut writer, &mut arena, 2, 8).expect("a free slot");
        let reader = thread::spawn(move || {
            let mut tap = ring.tap();
            let view = tap.refresh();
            for message in tap.messages_from(view.tail) {
                let lease = tap.lease(message.start, 8).expect("inside the view");
                let number = message.start.0 / 8 + 1;
                assert_eq!(u64::from(message.meta.timestamp), number);
                assert!(lease.iter().all(|&byte| u64::from(byte) == number));
            }
        });
        writer.trim(&mut arena, Position(8));
        // Refused only while the reader holds the slot; nothing has changed then.
        if publish(&mut writer, &mut arena, 3, 8).is_err() {
            assert_eq!(writer.held_slots(), 1);
        }
        reader.join().expect("the reader's assertions hold");
    });
}

/// A tap made while the writer trims holds either the segment or nothing, and keeps what it holds.
#[test]
fn a_tap_made_during_a_trim_holds_a_segment_whole_or_not_at_all() {
    model(|| {
        let config = tiny(2);
        let (mut writer, ring) = stream_ring(config);
        let mut arena = Arena::new(&config, 1);
        publish(&mut writer, &mut arena, 1, 4).expect("an empty ring has room");
        publish(&mut writer, &mut arena, 2, 8).expect("a free slot");
        let reader = thread::spawn(move || {
            let mut tap = ring.tap();
            let first = tap.refresh();
            let second = tap.refresh();
            assert!(first.tail <= second.tail && first.head <= second.head);
            if second.tail == Position(4) && second.head == Position(12) {
                assert_eq!(&tap.lease(Position(4), 8).expect("inside the view")[..], &[2; 8]);
            }
            assert!(tap.lease(Position(second.head.0), 1).is_none());
        });
        writer.trim(&mut arena, Position(4));
        reader.join().expect("the reader's assertions hold");
    });
}
