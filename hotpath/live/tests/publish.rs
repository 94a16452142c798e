//! From parts to the wire image: one copy, no torn message, one timeline, bounded memory.

mod common;

use common::{Rig, Viewer, aac_header, audio, avc_header, decode, is_keyframe, video};
use live::publisher::{Keep, Progress, PublishError, PublisherConfig};
use live::subscriber::SubscriberConfig;
use proptest::prelude::*;
use ring::{MessageKind, RingConfig};
use rtmp::Millis;
use rtmp::session::MediaKind;

fn whole_ring(rig: &Rig, chunk_bytes: u32) -> Vec<common::Seen> {
    let mut tap = rig.ring.tap();
    let head = tap.refresh();
    let mut bytes = Vec::new();
    let mut at = head.tail;
    while at < head.head {
        let lease = tap.lease(at, usize::MAX).expect("readable up to the head");
        bytes.extend_from_slice(&lease);
        at = ring::Position(at.0 + lease.len() as u64);
    }
    decode(&bytes, chunk_bytes)
}

#[test]
fn every_payload_byte_is_copied_once_whatever_the_number_of_subscribers() {
    let mut rig = Rig::new(PublisherConfig::default());
    rig.headers(0);
    rig.gop(0, 25, 80_000);
    let counters = *rig.publisher.counters();
    assert_eq!(counters.copied_bytes, counters.payload_bytes);
    assert_eq!(counters.copied_aside_bytes, 0);
    for _ in 0..200 {
        let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
        assert!(viewer.try_join(rig.now, true));
        viewer.drain(rig.now, usize::MAX);
        assert_eq!(viewer.seen().len(), 50);
    }
    assert_eq!(*rig.publisher.counters(), counters, "subscribers cost the publisher nothing");
}

#[test]
fn interleaved_messages_come_out_whole_and_after_each_other() {
    let mut rig = Rig::new(PublisherConfig::default());
    rig.headers(0);
    let picture = video(true, 1_000);
    let sound = audio(100);
    rig.part(MediaKind::Video, 6, 10, &picture, 0..400).unwrap();
    rig.part(MediaKind::Audio, 4, 11, &sound, 0..60).unwrap();
    rig.part(MediaKind::Video, 6, 10, &picture, 400..900).unwrap();
    rig.part(MediaKind::Audio, 4, 11, &sound, 60..102).unwrap();
    assert_eq!(rig.part(MediaKind::Video, 6, 10, &picture, 900..1_005), Ok(Progress::Committed));
    let seen = whole_ring(&rig, 65_536);
    let bodies: Vec<_> = seen.into_iter().skip(2).map(|message| message.body).collect();
    assert_eq!(bodies, [picture, sound]);
}

#[test]
fn a_torn_message_is_never_published() {
    let mut rig = Rig::new(PublisherConfig::default());
    rig.headers(0);
    let torn = video(true, 1_000);
    rig.part(MediaKind::Video, 6, 10, &torn, 0..400).unwrap();
    rig.publisher.handle_abort(&mut rig.arena, 6, Millis(10));
    rig.part(MediaKind::Video, 6, 20, &torn, 0..400).unwrap();
    let whole = video(false, 50);
    rig.part(MediaKind::Video, 6, 30, &whole, 0..55).unwrap();
    rig.part(MediaKind::Video, 6, 40, &torn, 0..700).unwrap();
    rig.publisher.end_session(&mut rig.arena, false);
    let bodies: Vec<_> = whole_ring(&rig, 65_536).into_iter().map(|m| m.body).collect();
    assert_eq!(bodies, [avc_header(1), aac_header(), whole]);
    assert_eq!(rig.publisher.counters().torn, 3);
}

/// Reader and publisher go by two records after a hand-over, of which one may have been changed on its way.
#[test]
fn a_message_that_ends_elsewhere_than_it_said_is_given_up() {
    let (said, longer, shorter) = (video(true, 1_000), video(true, 3_000), video(true, 500));
    let sound = audio(100);
    for other in [&longer, &shorter] {
        let mut rig = Rig::new(PublisherConfig::default());
        rig.headers(0);
        let end = other.len().min(2_000);
        // The message at the tail; then one that waits aside.
        rig.part(MediaKind::Video, 6, 10, &said, 0..400).unwrap();
        assert_eq!(rig.part(MediaKind::Video, 6, 10, other, 400..end), Ok(Progress::Dropped));
        rig.part(MediaKind::Video, 7, 20, &sound, 0..50).unwrap();
        rig.part(MediaKind::Video, 6, 20, &said, 0..400).unwrap();
        assert_eq!(rig.part(MediaKind::Video, 6, 20, other, 400..end), Ok(Progress::Dropped));
        rig.part(MediaKind::Video, 7, 20, &sound, 50..102).unwrap();
        assert_eq!(rig.part(MediaKind::Video, 6, 30, &said, 0..1_005), Ok(Progress::Committed));
        let bodies: Vec<_> = whole_ring(&rig, 65_536).into_iter().map(|m| m.body).collect();
        assert_eq!(bodies[2..], [sound.clone(), said.clone()]);
        assert_eq!(rig.publisher.counters().torn, 2);
    }
}

#[test]
fn memory_for_interleaving_is_bounded() {
    let config = PublisherConfig { aside_bytes_max: 10_000, ..PublisherConfig::default() };
    let mut rig = Rig::new(config);
    let body = video(true, 6_000);
    rig.part(MediaKind::Video, 6, 0, &body, 0..100).unwrap();
    rig.part(MediaKind::Video, 7, 0, &body, 0..100).unwrap();
    assert_eq!(rig.part(MediaKind::Video, 8, 0, &body, 0..100), Err(PublishError::AsideFull));
    rig.publisher.end_session(&mut rig.arena, false);
    let counters = rig.publisher.counters();
    assert_eq!(counters.payload_bytes, 300);
    assert_eq!(counters.copied_bytes + counters.dropped_bytes, 300, "nothing is lost uncounted");
}

#[test]
fn retention_keeps_at_least_the_current_gop_and_never_more_than_the_caps() {
    let config = PublisherConfig {
        retention_ms: 2_000,
        retention_bytes: 3 * 1024 * 1024,
        ..PublisherConfig::default()
    };
    let mut rig = Rig::new(config);
    rig.headers(0);
    rig.gop(0, 250, 2_000);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true), "a GOP of 10 s stays joinable beyond 2 s");
    assert_eq!(viewer.join.as_ref().unwrap().timestamp, 0);
    rig.gop(10_000, 2_000, 4_000);
    assert!(rig.publisher.writer().retained_bytes() <= 3 * 1024 * 1024 + 256 * 1024);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(!viewer.try_join(rig.now, true), "its keyframe is gone");
    rig.gop(90_000, 10, 100);
    assert!(viewer.try_join(rig.now, true));
}

#[test]
fn what_comes_at_once_is_kept_for_those_who_keep_up_whatever_its_timestamps() {
    let config = PublisherConfig { retention_ms: 2_000, ..PublisherConfig::default() };
    let mut rig = Rig::new(config);
    rig.headers(0);
    rig.gop(0, 25, 20_000);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
    for gop in 1..10 {
        rig.gop(gop * 1_000, 25, 20_000);
        viewer.drain(rig.now, usize::MAX);
    }
    assert!(rig.publisher.writer().retained_bytes() < 10 * 25 * 20_000 * 2 / 3, "old ones go");
    let before = viewer.seen().len();
    rig.burst(10_000, 6, 20_000);
    viewer.drain(rig.now, usize::MAX);
    assert_eq!(viewer.seen().len() - before, 6 * 25);
}

/// Retention asks for more than the ring has slots or bytes for: by a reload, in segments that are small, or
/// half empty.
#[test]
fn a_ring_with_less_room_than_its_retention_goes_on_without_a_loss() {
    let long = PublisherConfig {
        retention_ms: 600_000,
        retention_bytes: 1 << 30,
        retention_messages: 1 << 20,
        ..PublisherConfig::default()
    };
    let ring = RingConfig::default();
    let few_messages = RingConfig { index_entries_per_segment: 16, ..ring };
    for (gops, frame_bytes, ring) in
        [(400, 4_000, ring), (30, 130_000, ring), (200, 10, few_messages), (40, 150_000, ring)]
    {
        let mut rig = Rig::with_ring(PublisherConfig::default(), ring);
        rig.headers(0);
        rig.publisher.set_config(long);
        rig.gop(0, 25, frame_bytes);
        let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
        assert!(viewer.try_join(rig.now, true));
        for gop in 1..gops {
            rig.gop(gop * 1_000, 25, frame_bytes);
            viewer.drain(rig.now, usize::MAX);
            viewer.bytes.clear();
        }
        assert_eq!(rig.publisher.counters().dropped(), 0, "{frame_bytes} bytes");
        assert_eq!(viewer.subscriber.cursor(), rig.publisher.writer().head());
        assert!(rig.publisher.writer().join().is_some(), "and whoever comes has a keyframe");
    }
}

#[test]
fn a_stream_nobody_watches_keeps_its_current_gop_only() {
    let mut rig = Rig::new(PublisherConfig::default());
    rig.keep = Keep::Gop;
    rig.headers(0);
    for gop in 0..8 {
        rig.gop(gop * 1_000, 25, 20_000);
    }
    let gop_bytes = 25 * 20_200;
    assert!(rig.publisher.writer().retained_bytes() <= gop_bytes + 2 * 256 * 1024);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
    viewer.drain(rig.now, usize::MAX);
    assert_eq!(viewer.seen().len(), 50, "and whoever comes starts at its keyframe");
}

#[test]
fn a_stream_whose_timestamps_stand_still_keeps_no_more_than_others() {
    let mut rig = Rig::new(PublisherConfig::default());
    rig.keep = Keep::Gop;
    rig.headers(0);
    for _ in 0..40 {
        let body = video(true, 100_000);
        rig.part(MediaKind::Video, 6, 0, &body, 0..body.len()).expect("room aside");
    }
    assert!(rig.publisher.writer().retained_bytes() <= 100_100 + 2 * 256 * 1024);
}

#[test]
fn the_timeline_goes_on_across_a_reconnect_and_video_resumes_at_a_keyframe() {
    let mut rig = Rig::new(PublisherConfig::default());
    rig.headers(0);
    rig.gop(0, 25, 100);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
    viewer.drain(rig.now, usize::MAX);
    let before = viewer.seen().len();
    rig.publisher.end_session(&mut rig.arena, false);
    rig.now = Millis(3_000);
    rig.publisher.begin_session(&mut rig.arena, rig.now);
    for (kind, timestamp, body) in [
        (MediaKind::Video, 5_000_000, avc_header(1)),
        (MediaKind::Video, 5_000_000, video(false, 10)),
        (MediaKind::Audio, 5_000_010, audio(10)),
        (MediaKind::Video, 5_000_040, video(true, 10)),
    ] {
        rig.part(kind, 6, timestamp, &body, 0..body.len()).unwrap();
    }
    viewer.drain(rig.now, usize::MAX);
    let seen = viewer.seen();
    let after = &seen[before..];
    assert_eq!(after.len(), 3, "the frame before the keyframe is held back: {after:?}");
    assert!(after.iter().any(is_keyframe));
    let newest_before = seen[before - 1].timestamp;
    for message in after {
        assert!(message.timestamp > newest_before, "time goes on");
        assert!(message.timestamp < newest_before + 10_000, "by a plausible step");
    }
}

#[test]
fn a_clean_end_leaves_nothing_to_join() {
    let mut rig = Rig::new(PublisherConfig::default());
    rig.headers(0);
    rig.gop(0, 5, 100);
    rig.publisher.end_session(&mut rig.arena, true);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(!viewer.try_join(rig.now, true));
}

#[test]
fn a_full_ring_drops_whole_messages_and_resumes_with_a_keyframe() {
    let ring =
        RingConfig { segment_bytes: 32 * 1024, bytes_max: 80 * 1024, ..RingConfig::default() };
    let config = PublisherConfig { retention_bytes: 16 * 1024, ..PublisherConfig::default() };
    let mut rig = Rig::with_ring(config, ring);
    rig.headers(0);
    let slow = rig.ring.tap();
    let mut slow = slow;
    let head = slow.refresh();
    let held = slow.lease(head.tail, usize::MAX).unwrap();
    rig.gop(0, 40, 8_000);
    assert!(rig.publisher.counters().dropped_ring_full > 0);
    drop(held);
    slow.refresh();
    drop(slow);
    rig.publish(MediaKind::Video, 2_000, &video(false, 100));
    let before = rig.publisher.counters().video;
    rig.gop(2_040, 2, 100);
    assert_eq!(rig.publisher.counters().video, before + 2);
    let dropped = rig.publisher.counters();
    assert!(dropped.dropped_before_keyframe > 0, "undecodable video is held back");
}

#[test]
fn metadata_carries_no_time_on_the_wire_but_has_its_place_on_the_timeline() {
    let mut rig = Rig::new(PublisherConfig::default());
    rig.headers(0);
    rig.gop(0, 25, 100);
    let metadata = b"\x02\x00\x0aonMetaData\x05";
    rig.publisher.handle_data(&mut rig.arena, 960, metadata, rig.now);
    let seen = whole_ring(&rig, 65_536);
    let last = seen.last().unwrap();
    assert_eq!((last.kind, last.timestamp), (18, 0), "players take anything else for a text track");
    let mut tap = rig.ring.tap();
    let head = tap.refresh();
    let message = tap.messages_from(head.tail).last().unwrap();
    assert_eq!(message.meta.timestamp, 960);
}

#[test]
fn a_large_header_is_kept_whole_for_joiners() {
    let config = PublisherConfig { chunk_bytes: 128, ..PublisherConfig::default() };
    let mut rig = Rig::new(config);
    let mut header = avc_header(1);
    header.extend((0..900).map(|i| u8::try_from(i % 200).unwrap()));
    rig.publish(MediaKind::Video, 0x0100_0000, &header);
    rig.publish(MediaKind::Video, 0x0100_0000, &video(true, 10));
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
    let join = viewer.join.as_ref().unwrap();
    let preamble = join.preamble.as_ref().unwrap();
    let bodies: Vec<_> =
        live::preamble::entries(&preamble.bytes).map(|(_, body)| body.to_vec()).collect();
    assert_eq!(bodies, [header]);
}

proptest! {
    /// However the parts are cut and interleaved, each message comes out whole, once, and the order
    /// within a chunk stream is kept.
    #[test]
    fn parts_in_any_cut_and_interleaving_make_the_same_messages(
        sizes in prop::collection::vec((any::<bool>(), 1usize..3_000), 1..20),
        cuts in prop::collection::vec(1usize..900, 1..200),
        picks in prop::collection::vec(any::<bool>(), 1..400),
    ) {
        let mut rig = Rig::new(PublisherConfig::default());
        rig.headers(0);
        let mut queues: [Vec<Vec<u8>>; 2] = [Vec::new(), Vec::new()];
        for (at, &(is_video, size)) in sizes.iter().enumerate() {
            let mut body = if is_video { video(at == 0, size) } else { audio(size) };
            body.push(u8::try_from(at).unwrap());
            queues[usize::from(is_video)].push(body);
        }
        let expected = queues.clone();
        let mut offsets = [0usize; 2];
        let mut cut = cuts.iter().cycle();
        let mut pick = picks.iter().cycle();
        while queues.iter().any(|queue| !queue.is_empty()) {
            let mut lane = usize::from(*pick.next().unwrap());
            if queues[lane].is_empty() { lane = 1 - lane; }
            let body = queues[lane][0].clone();
            let end = (offsets[lane] + cut.next().unwrap()).min(body.len());
            let kind = if lane == 1 { MediaKind::Video } else { MediaKind::Audio };
            let csid = 4 + u32::try_from(lane).unwrap();
            rig.part(kind, csid, 100, &body, offsets[lane]..end).unwrap();
            offsets[lane] = end;
            if end == body.len() {
                queues[lane].remove(0);
                offsets[lane] = 0;
            }
        }
        let seen = whole_ring(&rig, 65_536);
        for (lane, kind) in [(0, 8), (1, 9)] {
            let of_kind = seen.iter().skip(2).filter(|m| m.kind == kind);
            let bodies: Vec<_> = of_kind.map(|m| m.body.clone()).collect();
            prop_assert_eq!(&bodies, &expected[lane]);
        }
        let counters = rig.publisher.counters();
        prop_assert_eq!(counters.copied_bytes, counters.payload_bytes);
        let mut tap = rig.ring.tap();
        let head = tap.refresh();
        let kinds: Vec<_> = tap.messages_from(head.tail).map(|m| m.meta.kind).collect();
        prop_assert!(kinds.iter().all(|kind| *kind != MessageKind::Data));
    }
}
