//! Falling behind: skips to a keyframe, never inside a message, and the end of hope.

mod common;

use common::{Rig, Viewer, decode, is_keyframe};
use live::publisher::PublisherConfig;
use live::subscriber::{Hopeless, LagVerdict, SubscriberConfig};
use rtmp::Millis;

fn config() -> SubscriberConfig {
    SubscriberConfig { lag_ms_max: 2_000, stall_ms_max: 15_000, ..SubscriberConfig::default() }
}

fn watching(rig: &mut Rig) -> Viewer {
    rig.headers(0);
    rig.gop(0, 25, 1_000);
    let mut viewer = Viewer::new(rig, config());
    assert!(viewer.try_join(rig.now, true));
    viewer
}

fn verdict(viewer: &mut Viewer, now: Millis) -> LagVerdict {
    let head = viewer.tap.refresh();
    viewer.subscriber.check_lag(&viewer.config, &viewer.tap, &head, now)
}

#[test]
fn lag_is_measured_in_stream_time() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = watching(&mut rig);
    viewer.drain(rig.now, usize::MAX);
    rig.gop(1_000, 25, 1_000);
    let head = viewer.tap.refresh();
    assert_eq!(viewer.subscriber.lag_ms(&viewer.tap, &head), 960);
}

#[test]
fn a_lagging_subscriber_finishes_its_message_and_goes_on_at_the_newest_keyframe() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = watching(&mut rig);
    viewer.take(rig.now, 1_500);
    assert!(viewer.subscriber.is_mid_message());
    for gop in 1..5 {
        rig.gop(gop * 1_000, 25, 1_000);
    }
    let now = rig.now;
    let LagVerdict::SkipStarted { lag_ms, overrun } = verdict(&mut viewer, now) else {
        panic!("it is 4.9 s behind");
    };
    assert!((4_800..5_000).contains(&lag_ms) && !overrun);
    viewer.drain(now, usize::MAX);
    assert!(!viewer.subscriber.is_mid_message() && viewer.subscriber.is_waiting());
    assert!(viewer.try_join(now, true));
    viewer.drain(now, usize::MAX);
    let seen = viewer.seen();
    let resumed = seen.iter().position(|m| m.timestamp >= 1_000).expect("it went on");
    assert!(is_keyframe(&seen[resumed]));
    assert_eq!(seen[resumed].timestamp, 4_000);
    assert_eq!(viewer.subscriber.skips(), 1);
}

#[test]
fn a_burst_of_the_publisher_is_no_lag_until_a_second_has_passed() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = watching(&mut rig);
    let began = rig.now;
    viewer.drain(began, usize::MAX);
    for gop in 1..5 {
        rig.gop(gop * 1_000, 25, 1_000);
    }
    let head = viewer.tap.refresh();
    viewer.subscriber.set_target(head.head, began);
    assert_eq!(verdict(&mut viewer, Millis(began.0 + 999)), LagVerdict::Fine);
    let late = verdict(&mut viewer, Millis(began.0 + 1_000));
    assert!(matches!(late, LagVerdict::SkipStarted { .. }), "{late:?}");
}

#[test]
fn who_has_taken_all_it_was_offered_is_not_behind() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = watching(&mut rig);
    viewer.drain(rig.now, usize::MAX);
    // Its flush is still to come.
    for gop in 1..5 {
        rig.gop(gop * 1_000, 25, 1_000);
    }
    assert_eq!(verdict(&mut viewer, Millis(rig.now.0 + 5_000)), LagVerdict::Fine);
}

#[test]
fn a_message_begun_is_finished_although_the_ring_has_moved_on() {
    let publisher = PublisherConfig { retention_bytes: 600_000, ..PublisherConfig::default() };
    let mut rig = Rig::new(publisher);
    let mut viewer = watching(&mut rig);
    viewer.take(rig.now, 500);
    for gop in 1..60 {
        rig.gop(gop * 1_000, 25, 2_000);
    }
    let now = Millis(10_000);
    assert!(viewer.tap.refresh().tail > viewer.subscriber.cursor(), "its place is gone");
    assert!(matches!(verdict(&mut viewer, now), LagVerdict::SkipStarted { .. }));
    viewer.drain(now, 100);
    assert!(viewer.try_join(now, true));
    viewer.drain(now, usize::MAX);
    let seen = viewer.seen();
    assert_eq!(seen[0].body, common::video(true, 1_000), "finished whole");
    assert!(is_keyframe(&seen[1]));
}

#[test]
fn falling_out_of_the_ring_twice_in_a_row_is_hopeless() {
    let publisher = PublisherConfig { retention_bytes: 600_000, ..PublisherConfig::default() };
    let mut rig = Rig::new(publisher);
    let mut viewer = watching(&mut rig);
    viewer.config.lag_ms_max = u32::MAX;
    for round in 0..2 {
        for gop in 0..40 {
            rig.gop((round * 40 + gop + 1) * 1_000, 25, 2_000);
        }
        match verdict(&mut viewer, Millis(1_000)) {
            LagVerdict::SkipStarted { overrun, .. } => assert!(overrun && round == 0),
            LagVerdict::Close(reason) => {
                assert_eq!((reason, round), (Hopeless::Overrun, 1));
                return;
            }
            LagVerdict::Fine => panic!("out of the ring is not fine"),
        }
        assert!(viewer.try_join(rig.now, true));
    }
    panic!("it was not closed");
}

#[test]
fn no_progress_for_the_stall_time_is_hopeless() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = watching(&mut rig);
    viewer.take(rig.now, 10);
    let stalled_at = rig.now.0 + 15_000;
    assert_eq!(verdict(&mut viewer, Millis(stalled_at - 1)), LagVerdict::Fine);
    assert_eq!(verdict(&mut viewer, Millis(stalled_at)), LagVerdict::Close(Hopeless::Stalled));
}

#[test]
fn an_idle_subscriber_with_nothing_to_take_never_stalls() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = watching(&mut rig);
    viewer.drain(rig.now, usize::MAX);
    assert_eq!(verdict(&mut viewer, Millis(rig.now.0 + 3_600_000)), LagVerdict::Fine);
}

#[test]
fn a_pause_ends_at_a_newer_keyframe_or_where_it_began() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = watching(&mut rig);
    viewer.drain(rig.now, usize::MAX);
    let before = viewer.bytes.len();
    let head = viewer.tap.refresh();
    viewer.subscriber.set_paused(true, &head, rig.now);
    rig.publish(rtmp::session::MediaKind::Audio, 1_000, &common::audio(10));
    viewer.drain(rig.now, usize::MAX);
    assert_eq!(viewer.bytes.len(), before, "paused");
    let head = viewer.tap.refresh();
    viewer.subscriber.set_paused(false, &head, rig.now);
    viewer.drain(rig.now, usize::MAX);
    let seen = decode(&viewer.bytes[before..], 65_536);
    assert_eq!(seen[0].timestamp, 1_000, "nothing was missed in a short pause");

    let before = viewer.bytes.len();
    let head = viewer.tap.refresh();
    viewer.subscriber.set_paused(true, &head, rig.now);
    rig.gop(1_040, 30, 100);
    rig.gop(2_240, 5, 100);
    let head = viewer.tap.refresh();
    viewer.subscriber.set_paused(false, &head, rig.now);
    assert!(viewer.try_join(rig.now, true));
    viewer.drain(rig.now, usize::MAX);
    let seen = decode(&viewer.bytes[before..], 65_536);
    assert!(is_keyframe(&seen[0]));
    assert_eq!(seen[0].timestamp, 2_240);
}

#[test]
fn a_pause_asked_for_before_the_stream_begins_holds() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = Viewer::new(&rig, config());
    let head = viewer.tap.refresh();
    viewer.subscriber.set_paused(true, &head, rig.now);
    rig.headers(0);
    rig.gop(0, 5, 100);
    assert!(!viewer.try_join(rig.now, true));
    viewer.subscriber.set_paused(false, &head, rig.now);
    assert!(viewer.try_join(rig.now, true));
}

#[test]
fn nothing_behind_the_end_of_a_stream_is_sent_before_the_end_is_told() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = watching(&mut rig);
    viewer.take(rig.now, 1_500);
    let end = rig.publisher.writer().head();
    rig.publisher.end_session(&mut rig.arena, true);
    rig.publisher.begin_session(&mut rig.arena, rig.now);
    rig.headers(5_000);
    rig.gop(5_000, 5, 100);
    let now = rig.now;
    viewer.drain(now, 100);
    viewer.subscriber.set_limit(end, now);
    let past = viewer.subscriber.cursor();
    assert!(past > end, "this one had gone on already and is told late");

    let mut slow = Viewer::new(&rig, config());
    assert!(slow.try_join(now, true));
    let end = rig.publisher.writer().head();
    slow.take(now, 50);
    rig.gop(6_000, 5, 100);
    slow.subscriber.set_target(rig.publisher.writer().head(), now);
    slow.subscriber.set_limit(end, now);
    slow.drain(now, usize::MAX);
    assert_eq!(slow.subscriber.cursor(), end);
    assert!(!slow.subscriber.is_mid_message());
    slow.subscriber.on_stream_end();
    assert!(slow.try_join(now, true), "the next session is joined anew");
}

#[test]
fn no_jump_is_made_while_a_lease_is_out() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = watching(&mut rig);
    let head = viewer.tap.refresh();
    viewer.subscriber.set_target(head.head, rig.now);
    let lease = viewer.subscriber.next_lease(&viewer.tap).expect("a GOP to send");
    for gop in 1..5 {
        rig.gop(gop * 1_000, 25, 1_000);
    }
    let now = rig.now;
    assert_eq!(verdict(&mut viewer, now), LagVerdict::Fine, "judged when the send is over");
    viewer.bytes.extend_from_slice(&lease[..10]);
    viewer.subscriber.on_sent(&viewer.tap, &lease, 10, now);
    drop(lease);
    assert!(matches!(verdict(&mut viewer, now), LagVerdict::SkipStarted { .. }));
    assert!(!viewer.subscriber.is_waiting(), "the message is finished first");
    viewer.drain(now, usize::MAX);
    assert!(viewer.try_join(now, true));
    viewer.drain(now, usize::MAX);
    assert_eq!(viewer.seen()[0].body, common::video(true, 1_000));
}

#[test]
fn a_new_place_in_the_stream_has_no_old_end() {
    let mut rig = Rig::new(PublisherConfig::default());
    let mut viewer = Viewer::new(&rig, config());
    viewer.subscriber.set_limit(rig.publisher.writer().head(), rig.now);
    rig.headers(0);
    rig.gop(0, 5, 100);
    assert!(viewer.try_join(rig.now, true));
    rig.gop(200, 5, 100);
    viewer.drain(rig.now, usize::MAX);
    assert_eq!(viewer.subscriber.cursor(), rig.publisher.writer().head());
}

#[test]
fn a_short_send_of_what_the_ring_has_dropped_meanwhile_is_finished_from_its_lease() {
    let publisher = PublisherConfig { retention_bytes: 600_000, ..PublisherConfig::default() };
    let mut rig = Rig::new(publisher);
    let mut viewer = watching(&mut rig);
    let head = viewer.tap.refresh();
    viewer.subscriber.set_target(head.head, rig.now);
    let lease = viewer.subscriber.next_lease(&viewer.tap).expect("a GOP to send");
    for gop in 1..60 {
        rig.gop(gop * 1_000, 25, 2_000);
    }
    let now = rig.now;
    let head = viewer.tap.refresh();
    assert!(head.tail > viewer.subscriber.cursor(), "its place is gone while the send is out");
    viewer.bytes.extend_from_slice(&lease[..700]);
    viewer.subscriber.on_sent(&viewer.tap, &lease, 700, now);
    drop(lease);
    assert!(viewer.subscriber.is_mid_message());
    assert!(matches!(verdict(&mut viewer, now), LagVerdict::SkipStarted { .. }));
    viewer.drain(now, 999);
    assert!(viewer.try_join(now, true));
    viewer.drain(now, usize::MAX);
    let seen = viewer.seen();
    assert_eq!(seen[0].body, common::video(true, 1_000));
    assert!(seen.iter().any(|message| is_keyframe(message) && message.timestamp > 50_000));
}
