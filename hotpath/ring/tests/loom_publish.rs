//! Model: what a reader sees below the head is complete, whatever the interleaving.
#![cfg(loom)]

mod common;

use common::{publish, tiny};
use loom::thread;
use ring::{Arena, Head, MessageView, RingConfig, Tap, stream_ring};

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(body);
}

/// Everything the tap shows is whole: message `n` has stamp `n` and bytes `n`.
fn check_view(tap: &Tap, view: Head) {
    assert_eq!(view.head.0 % 4, 0, "the head stands between messages");
    assert!(view.flush_mark <= view.head);
    let messages: Vec<_> = tap.messages_from(view.tail).collect();
    assert_eq!(messages.iter().map(MessageView::wire_bytes).sum::<u64>(), view.head.0);
    for (message, number) in messages.iter().zip(1..) {
        assert_eq!(message.meta.timestamp, number);
        let lease = tap.lease(message.start, 8).expect("below the head");
        let bytes = &lease[..usize::try_from(message.wire_bytes()).expect("short")];
        assert!(bytes.iter().all(|&byte| u32::from(byte) == number));
    }
}

/// Orderings of head, committed count and flush mark. The tap knows the segment already, so this
/// is the path without a look at the control words.
#[test]
fn a_reader_sees_whole_messages_inside_a_segment() {
    model(|| {
        let config = RingConfig { segment_bytes: 12, index_entries_per_segment: 3, ..tiny(2) };
        let (mut writer, ring) = stream_ring(config);
        let mut arena = Arena::new(&config, 1);
        publish(&mut writer, &mut arena, 1, 4).expect("an empty ring has room");
        let mut tap = ring.tap();
        tap.refresh();
        let writing = thread::spawn(move || {
            publish(&mut writer, &mut arena, 2, 4).expect("the segment has room");
            writer.mark_video_end();
            publish(&mut writer, &mut arena, 3, 4).expect("the segment has room");
        });
        let view = tap.refresh();
        check_view(&tap, view);
        let later = tap.refresh();
        assert!(view.head <= later.head && view.flush_mark <= later.flush_mark);
        check_view(&tap, later);
        writing.join().expect("the writer's assertions hold");
    });
}

/// Orderings of slot, directory, control words and head when the head enters another segment.
#[test]
fn a_reader_sees_whole_messages_across_segments() {
    model(|| {
        let config = tiny(2);
        let (mut writer, ring) = stream_ring(config);
        let mut arena = Arena::new(&config, 1);
        publish(&mut writer, &mut arena, 1, 8).expect("an empty ring has room");
        let mut tap = ring.tap();
        tap.refresh();
        let writing = thread::spawn(move || {
            publish(&mut writer, &mut arena, 2, 4).expect("a free slot");
        });
        let view = tap.refresh();
        check_view(&tap, view);
        writing.join().expect("the writer's assertions hold");
        assert_eq!(tap.refresh().head.0, 12, "nothing is missed in the end");
    });
}

/// Nothing of a cancelled or open reservation is ever visible.
#[test]
fn an_uncommitted_message_is_never_visible() {
    model(|| {
        let config = tiny(2);
        let (mut writer, ring) = stream_ring(config);
        let reader = thread::spawn(move || {
            let mut tap = ring.tap();
            let view = tap.refresh();
            if let Some(lease) = tap.lease(view.tail, usize::MAX) {
                assert_eq!(&lease[..], &[2; 4]);
            }
        });
        let mut arena = Arena::new(&config, 2);
        writer.reserve(&mut arena, 8).expect("an empty ring has room");
        writer.reserved_mut().fill(1);
        writer.cancel();
        publish(&mut writer, &mut arena, 2, 4).expect("an empty ring has room");
        writer.reserve(&mut arena, 4).expect("the segment has room");
        writer.reserved_mut().fill(3);
        reader.join().expect("the reader's assertions hold");
    });
}
