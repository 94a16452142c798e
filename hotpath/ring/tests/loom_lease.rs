//! Model: the last lease on a slot goes while the writer wants to reuse it.
#![cfg(loom)]

mod common;

use common::{publish, tiny};
use loom::thread;
use ring::{Arena, Position, stream_ring};

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(body);
}

/// Reads through a lease come before the writer's next use of the memory. The shadow cells of the
/// buffer fail the model if they do not.
#[test]
fn a_leased_slot_is_reused_only_after_its_last_lease() {
    model(|| {
        let config = tiny(2);
        let (mut writer, ring) = stream_ring(config);
        let mut arena = Arena::new(&config, 1);
        publish(&mut writer, &mut arena, 1, 8).expect("an empty ring has room");
        let reader = thread::spawn(move || {
            let mut tap = ring.tap();
            tap.refresh();
            let lease = tap.lease(Position(0), 8);
            drop(tap);
            if let Some(lease) = lease {
                let copy = lease.clone();
                drop(lease);
                assert_eq!(&copy[..], &[1; 8], "untouched until the last lease goes");
            }
        });
        writer.trim(&mut arena, Position(8));
        // The arena hands the same buffer out again as soon as it was taken back.
        let second = publish(&mut writer, &mut arena, 2, 8);
        assert_eq!(second, Ok(Position(8)), "the other slot is free");
        reader.join().expect("the reader's assertions hold");
        assert_eq!(writer.reclaim(&mut arena), 0, "all is let go in the end");
    });
}

/// Two taps on one slot: the writer waits for the second one too.
#[test]
fn a_slot_held_by_two_taps_waits_for_both() {
    model(|| {
        let config = tiny(2);
        let (mut writer, ring) = stream_ring(config);
        let mut arena = Arena::new(&config, 1);
        publish(&mut writer, &mut arena, 1, 8).expect("an empty ring has room");
        let mut mine = ring.tap();
        mine.refresh();
        let other = thread::spawn(move || {
            let mut tap = ring.tap();
            tap.refresh();
            if let Some(lease) = tap.lease(Position(0), 8) {
                assert_eq!(&lease[..], &[1; 8]);
            }
        });
        writer.trim(&mut arena, Position(8));
        assert_eq!(writer.held_slots(), 1, "this thread's tap still holds it");
        assert_eq!(&mine.lease(Position(0), 8).expect("held by the old view")[..], &[1; 8]);
        drop(mine);
        let _ = publish(&mut writer, &mut arena, 2, 8);
        other.join().expect("the other reader's assertions hold");
        assert_eq!(writer.reclaim(&mut arena), 0);
    });
}
