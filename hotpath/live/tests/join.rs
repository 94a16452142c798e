//! Where a subscriber starts, and what it is told first.

mod common;

use common::{Rig, Viewer, aac_header, audio, avc_header, is_keyframe, video};
use live::preamble;
use live::publisher::PublisherConfig;
use live::subscriber::{Selection, SubscriberConfig};
use rtmp::Millis;
use rtmp::session::MediaKind;

fn rig() -> Rig {
    Rig::new(PublisherConfig::default())
}

fn preamble_bodies(viewer: &Viewer) -> Vec<(u8, Vec<u8>)> {
    let join = viewer.join.as_ref().expect("joined");
    let preamble = join.preamble.as_ref().expect("a preamble");
    preamble::entries(&preamble.bytes).map(|(kind, body)| (kind, body.to_vec())).collect()
}

#[test]
fn late_joiner_starts_at_the_newest_keyframe_with_headers_and_its_timestamp() {
    let mut rig = rig();
    rig.headers(0);
    rig.gop(0, 25, 500);
    rig.gop(1_000, 10, 500);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
    viewer.drain(rig.now, usize::MAX);
    let seen = viewer.seen();
    assert!(is_keyframe(&seen[0]));
    assert_eq!(seen[0].timestamp, 1_000);
    assert_eq!(seen.len(), 20);
    assert_eq!(viewer.join.as_ref().unwrap().timestamp, 1_000);
    assert_eq!(preamble_bodies(&viewer), [(9, avc_header(1)), (8, aac_header())]);
}

#[test]
fn metadata_is_part_of_the_preamble_and_its_newest_version_counts() {
    let mut rig = rig();
    let meta = |text: &[u8]| [b"\x02\x00\x0aonMetaData".as_slice(), text].concat();
    rig.publisher.handle_data(&mut rig.arena, 0, &meta(b"old"), Millis(0));
    rig.headers(0);
    rig.gop(0, 5, 100);
    rig.publisher.handle_data(&mut rig.arena, 200, &meta(b"new"), Millis(200));
    rig.gop(240, 5, 100);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
    assert_eq!(preamble_bodies(&viewer)[0], (18, meta(b"new")));
}

#[test]
fn without_gop_cache_a_joiner_waits_for_the_next_keyframe() {
    let mut rig = rig();
    rig.headers(0);
    rig.gop(0, 5, 100);
    let config = SubscriberConfig { gop_cache: false, ..SubscriberConfig::default() };
    let mut viewer = Viewer::new(&rig, config);
    assert!(!viewer.try_join(rig.now, true));
    rig.publish(MediaKind::Video, 200, &video(false, 100));
    assert!(!viewer.try_join(rig.now, true));
    rig.gop(240, 3, 100);
    assert!(viewer.try_join(rig.now, true));
    viewer.drain(rig.now, usize::MAX);
    assert_eq!(viewer.seen()[0].timestamp, 240);
}

#[test]
fn an_audio_only_stream_is_joined_at_its_head() {
    let mut rig = rig();
    rig.publish(MediaKind::Audio, 0, &aac_header());
    for timestamp in (0..400).step_by(20) {
        rig.publish(MediaKind::Audio, timestamp, &audio(50));
    }
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, false));
    rig.publish(MediaKind::Audio, 400, &audio(50));
    viewer.drain(rig.now, usize::MAX);
    let seen = viewer.seen();
    assert_eq!((seen.len(), seen[0].timestamp), (1, 400));
    assert_eq!(preamble_bodies(&viewer), [(8, aac_header())]);
}

#[test]
fn a_stream_without_keyframes_is_joined_at_its_head_after_the_wait() {
    let mut rig = rig();
    rig.headers(0);
    rig.publish(MediaKind::Video, 0, &video(false, 100));
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(!viewer.try_join(Millis(60_000), true), "a wait for a publisher does not count");
    rig.publish(MediaKind::Video, 40, &video(false, 100));
    assert!(!viewer.try_join(Millis(120_000), true), "nor does time in which nobody looked");
    for (now_ms, timestamp) in (120_050..124_000).step_by(50).zip((90..).step_by(50)) {
        rig.publish(MediaKind::Video, timestamp, &video(false, 100));
        assert!(!viewer.try_join(Millis(now_ms), true), "at {now_ms} ms");
    }
    for now_ms in (124_000..180_000).step_by(1_000) {
        assert!(!viewer.try_join(Millis(now_ms), true), "nor does time in which nothing came");
    }
    rig.publish(MediaKind::Video, 4_100, &video(false, 100));
    assert!(viewer.try_join(Millis(179_050), true));
}

#[test]
fn what_is_switched_off_still_hears_new_sequence_headers() {
    let mut rig = rig();
    rig.headers(0);
    let selection = Selection { video: false, ..Selection::all(1) };
    let mut viewer = Viewer::selecting(&rig, SubscriberConfig::default(), selection);
    rig.gop(0, 2, 10);
    assert!(viewer.try_join(rig.now, true));
    rig.publish(MediaKind::Video, 80, &avc_header(2));
    let head = viewer.tap.refresh();
    viewer.subscriber.set_target(head.head, rig.now);
    let mut out = Vec::new();
    viewer.subscriber.copy_next(&viewer.config, &viewer.tap, &mut out, usize::MAX, rig.now);
    let seen = common::decode(&out, 65_536);
    assert_eq!(seen.last().unwrap().body, avc_header(2));
    assert_eq!(seen.iter().filter(|message| message.kind == 9).count(), 1);
}

#[test]
fn video_switched_on_in_a_stream_without_keyframes_comes_after_the_wait() {
    let mut rig = rig();
    rig.headers(0);
    rig.gop(0, 1, 10);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
    viewer.drain(rig.now, usize::MAX);
    let all = viewer.subscriber.selection();
    viewer.subscriber.select(Selection { video: false, ..all }, Millis(0));
    viewer.subscriber.select(all, Millis(0));
    let mut out = Vec::new();
    for second in 1..=5 {
        assert!(common::decode(&out, 65_536).iter().all(|message| message.kind != 9));
        rig.publish(MediaKind::Video, 40 * second, &video(false, 10));
        let head = viewer.tap.refresh();
        let now = Millis(u64::from(second) * 1_000);
        viewer.subscriber.set_target(head.head, now);
        viewer.subscriber.copy_next(&viewer.config, &viewer.tap, &mut out, usize::MAX, now);
    }
    assert_eq!(common::decode(&out, 65_536).last().unwrap().body, video(false, 10));
}

#[test]
fn a_new_sequence_header_makes_older_keyframes_unjoinable() {
    let mut rig = rig();
    rig.headers(0);
    rig.gop(0, 5, 100);
    rig.publish(MediaKind::Video, 200, &avc_header(2));
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(!viewer.try_join(rig.now, true), "the keyframe in the ring needs the old header");
    rig.gop(240, 2, 100);
    assert!(viewer.try_join(rig.now, true));
    viewer.drain(rig.now, usize::MAX);
    assert_eq!(viewer.seen()[0].timestamp, 240);
    assert_eq!(preamble_bodies(&viewer)[0], (9, avc_header(2)));
}

#[test]
fn a_header_changed_in_mid_stream_reaches_those_who_watch() {
    let mut rig = rig();
    rig.headers(0);
    rig.gop(0, 2, 100);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
    rig.publish(MediaKind::Video, 80, &avc_header(2));
    rig.gop(80, 2, 100);
    viewer.drain(rig.now, usize::MAX);
    let bodies: Vec<Vec<u8>> = viewer.seen().into_iter().map(|seen| seen.body).collect();
    let header = bodies.iter().position(|body| *body == avc_header(2)).expect("the new header");
    assert_eq!(bodies[header + 1], video(true, 100));
}

#[test]
fn a_repeated_header_leaves_keyframes_joinable() {
    let mut rig = rig();
    rig.headers(0);
    rig.gop(0, 5, 100);
    rig.headers(200);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
}

#[test]
fn a_subscriber_on_another_message_stream_gets_its_own_headers_and_selection() {
    let mut rig = rig();
    rig.headers(0);
    let selection = Selection { audio: false, ..Selection::all(7) };
    let mut viewer = Viewer::selecting(&rig, SubscriberConfig::default(), selection);
    rig.gop(0, 3, 70_000);
    assert!(viewer.try_join(rig.now, true));
    let head = viewer.tap.refresh();
    viewer.subscriber.set_target(head.head, rig.now);
    let mut out = Vec::new();
    while viewer.subscriber.has_pending() {
        let one_more = out.len() + 1;
        viewer.subscriber.copy_next(&viewer.config, &viewer.tap, &mut out, one_more, rig.now);
    }
    let seen = common::decode(&out, 65_536);
    assert_eq!(seen.len(), 3, "audio is left out");
    for message in &seen {
        assert_eq!((message.kind, message.msid), (9, 7));
        assert_eq!(message.body.len(), 70_005, "continuation headers are not payload");
    }
}

#[test]
fn video_switched_on_again_begins_with_a_keyframe() {
    let mut rig = rig();
    rig.headers(0);
    rig.gop(0, 2, 10);
    let mut viewer = Viewer::new(&rig, SubscriberConfig::default());
    assert!(viewer.try_join(rig.now, true));
    viewer.drain(rig.now, usize::MAX);
    let all = viewer.subscriber.selection();
    viewer.subscriber.select(Selection { video: false, ..all }, rig.now);
    viewer.subscriber.select(all, rig.now);
    rig.publish(MediaKind::Video, 80, &video(false, 10));
    rig.gop(120, 1, 10);
    let head = viewer.tap.refresh();
    viewer.subscriber.set_target(head.head, rig.now);
    assert!(!viewer.subscriber.is_shared());
    let mut out = Vec::new();
    viewer.subscriber.copy_next(&viewer.config, &viewer.tap, &mut out, usize::MAX, rig.now);
    let seen = common::decode(&out, 65_536);
    assert!(is_keyframe(&seen[0]));
    assert!(viewer.subscriber.is_shared(), "the shared image does again");
}
