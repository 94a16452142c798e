//! Model: a joiner gets a keyframe and the preamble that belongs to it, while both change.
#![cfg(loom)]

mod common;

use common::{publish_flagged, tiny};
use loom::thread;
use ring::{Arena, MessageFlags, Position, Writer, stream_ring};

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(body);
}

/// New codec configuration `version`, then a keyframe decodable only with it.
fn change_codec(writer: &mut Writer, arena: &mut Arena, version: u8) {
    let start = writer.head();
    writer.set_preamble(arena, &[version; 4], start).expect("slots for preambles");
    let at = publish_flagged(writer, arena, version, 4, MessageFlags::KEYFRAME).expect("room");
    writer.set_join(Some(at));
}

/// Joiner's media byte and preamble byte must be of the same version, and the preamble is there
/// whenever media is.
#[test]
fn join_position_and_preamble_belong_together() {
    model(|| {
        let config = tiny(4);
        let (mut writer, ring) = stream_ring(config);
        let mut arena = Arena::new(&config, 1);
        change_codec(&mut writer, &mut arena, 1);
        let joiner = thread::spawn(move || {
            let mut tap = ring.tap();
            tap.refresh();
            let Some(join) = tap.join_point() else { return };
            let preamble = join.preamble.expect("late joiner: preamble before media");
            assert!(preamble.valid_from <= join.position);
            let media = tap.lease(join.position, 4).expect("the keyframe is in the view");
            assert_eq!(media[0], preamble.bytes[0], "the keyframe's own configuration");
        });
        change_codec(&mut writer, &mut arena, 2);
        joiner.join().expect("the joiner's assertions hold");
    });
}

/// A new configuration without keyframe yet: joiners at the old keyframe keep the old preamble,
/// joiners at the head get the new one.
#[test]
fn an_old_join_position_keeps_its_preamble_until_the_next_keyframe() {
    model(|| {
        let config = tiny(4);
        let (mut writer, ring) = stream_ring(config);
        let mut arena = Arena::new(&config, 1);
        change_codec(&mut writer, &mut arena, 1);
        let joiner = thread::spawn(move || {
            let mut tap = ring.tap();
            let view = tap.refresh();
            if let Some(join) = tap.join_point() {
                assert_eq!(join.position, Position(0));
                assert_eq!(join.preamble.expect("set before the keyframe").bytes[0], 1);
            }
            if let Some(newest) = tap.preamble() {
                assert!(newest.valid_from <= view.head);
                assert!(view.head == Position(4) || newest.version == 2);
            }
        });
        let head = writer.head();
        writer.set_preamble(&mut arena, &[2; 4], head).expect("slots for preambles");
        publish_flagged(&mut writer, &mut arena, 2, 4, MessageFlags::SEQUENCE_HEADER)
            .expect("room");
        joiner.join().expect("the joiner's assertions hold");
    });
}
