//! Single-threaded behaviour that the model does not name: refusals, oversize, move, end.
#![cfg(not(loom))]

mod common;

use common::{publish, publish_flagged, tiny, video};
use ring::{Arena, MessageFlags, Position, RingConfig, RingFull, stream_ring};

#[test]
fn a_full_ring_says_why_and_recovers_when_the_reader_lets_go() {
    let config = tiny(2);
    let (mut writer, ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 2);
    publish(&mut writer, &mut arena, 1, 8).unwrap();
    publish(&mut writer, &mut arena, 2, 8).unwrap();
    assert_eq!(publish(&mut writer, &mut arena, 3, 8), Err(RingFull::NoSlot { held: 0 }));
    let mut tap = ring.tap();
    tap.refresh();
    let lease = tap.lease(Position(0), 8).unwrap();
    let head = writer.head();
    writer.trim(&mut arena, head);
    assert_eq!(publish(&mut writer, &mut arena, 3, 8), Err(RingFull::NoSlot { held: 2 }));
    assert_eq!(writer.held_bytes(), 16);
    tap.refresh();
    assert_eq!(publish(&mut writer, &mut arena, 3, 8), Ok(Position(16)));
    assert_eq!(&lease[..], &[1; 8]);
    assert_eq!(writer.held_slots(), 1);
}

#[test]
fn a_message_that_does_not_fit_gets_a_segment_for_itself() {
    let config = tiny(4);
    let (mut writer, ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 2);
    publish(&mut writer, &mut arena, 1, 4).unwrap();
    publish(&mut writer, &mut arena, 2, 30).unwrap();
    publish(&mut writer, &mut arena, 3, 4).unwrap();
    let mut tap = ring.tap();
    tap.refresh();
    assert_eq!(&tap.lease(Position(4), 100).unwrap()[..], &[2; 30], "contiguous and alone");
    assert_eq!(tap.lease(Position(0), 100).unwrap().len(), 4, "a lease ends with its segment");
    let refused = publish(&mut writer, &mut arena, 4, 60);
    assert_eq!(refused, Err(RingFull::ByteBudget { held_bytes: 0 }));
    assert!(matches!(writer.reserve(&mut arena, usize::MAX), Err(RingFull::ByteBudget { .. })));
    publish(&mut writer, &mut arena, 4, 4).expect("a refusal changes nothing");
}

#[test]
fn an_index_that_is_full_seals_its_segment() {
    let config = tiny(4);
    let (mut writer, _ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 2);
    for fill in 1..=3 {
        publish(&mut writer, &mut arena, fill, 1).unwrap();
    }
    let ends: Vec<_> = writer.segments().map(|s| (s.start.0, s.end.0, s.messages)).collect();
    assert_eq!(ends, [(0, 2, 2), (2, 3, 1)]);
}

#[test]
fn a_preamble_finds_a_slot_when_media_has_used_up_its_share() {
    let config = RingConfig { slots: 64, bytes_max: 4096, ..tiny(64) };
    let (mut writer, _ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 2);
    while publish(&mut writer, &mut arena, 7, 8).is_ok() {}
    let head = writer.head();
    writer.set_preamble(&mut arena, b"header", head).expect("slots are kept for preambles");
    let too_long = writer.set_preamble(&mut arena, &[0; 9], head);
    assert_eq!(too_long, Err(RingFull::PreambleTooLong));
}

#[test]
fn a_writer_moves_to_another_thread_and_goes_on() {
    let config = tiny(4);
    let (mut writer, ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 2);
    publish(&mut writer, &mut arena, 1, 4).unwrap();
    let mut tap = ring.tap();
    tap.refresh();
    let moved = std::thread::spawn(move || {
        let mut arena = Arena::new(&config, 2);
        publish(&mut writer, &mut arena, 2, 4).unwrap();
        publish(&mut writer, &mut arena, 3, 8).unwrap();
        let head = writer.head();
        writer.trim(&mut arena, head);
    });
    assert_eq!(&tap.lease(Position(0), 4).unwrap()[..], &[1; 4]);
    moved.join().unwrap();
    assert_eq!(tap.refresh().tail, Position(16));
}

#[test]
fn leases_outlive_tap_writer_and_ring() {
    let config = tiny(4);
    let (mut writer, ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 2);
    publish(&mut writer, &mut arena, 5, 8).unwrap();
    writer.set_preamble(&mut arena, b"codec", Position(8)).unwrap();
    let mut tap = ring.tap();
    tap.refresh();
    let media = tap.lease(Position(0), 8).unwrap();
    let preamble = tap.preamble().unwrap();
    writer.finish(&mut arena);
    let view = tap.refresh();
    assert_eq!((view.tail, view.head, view.join), (Position(8), Position(8), None));
    drop((tap, ring, arena));
    assert_eq!(&media[..], &[5; 8]);
    assert_eq!(&preamble.bytes[..], b"codec");
}

#[test]
fn finish_gives_every_unheld_buffer_back_to_the_arena() {
    let config = tiny(4);
    let (mut writer, _ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 8);
    publish(&mut writer, &mut arena, 1, 8).unwrap();
    publish(&mut writer, &mut arena, 2, 8).unwrap();
    writer.reserve(&mut arena, 8).unwrap();
    writer.finish(&mut arena);
    assert_eq!(arena.cached_segments(), 3);
}

#[test]
fn trimming_the_join_position_clears_it() {
    let config = tiny(4);
    let (mut writer, ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 2);
    let at = publish_flagged(&mut writer, &mut arena, 1, 8, MessageFlags::KEYFRAME).unwrap();
    writer.set_join(Some(at));
    publish(&mut writer, &mut arena, 2, 8).unwrap();
    writer.trim(&mut arena, Position(8));
    let mut tap = ring.tap();
    assert_eq!((writer.join(), ring.join(), tap.refresh().join), (None, None, None));
    assert!(tap.join_point().is_none());
}

#[test]
#[should_panic(expected = "one reservation at a time")]
fn a_second_reservation_is_refused_loudly() {
    let config = tiny(4);
    let (mut writer, _ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 2);
    writer.reserve(&mut arena, 4).unwrap();
    let _ = writer.reserve(&mut arena, 4);
}

#[test]
#[should_panic(expected = "header and body lie inside the message")]
fn a_meta_longer_than_the_reservation_is_refused_loudly() {
    let config = tiny(4);
    let (mut writer, _ring) = stream_ring(config);
    let mut arena = Arena::new(&config, 2);
    writer.reserve(&mut arena, 4).unwrap();
    writer.commit(video(0, 5, MessageFlags::NONE));
}

#[test]
#[should_panic(expected = "a join position is retained and published")]
fn a_join_position_at_the_head_is_refused_loudly() {
    let (mut writer, _ring) = stream_ring(tiny(4));
    writer.set_join(Some(Position(0)));
}
