//! What a domain may hold at one time, and what it means to send too much.

use rtmp::session::ClientRole::{Play, Publish};
use serde_json::{Value, json};

use crate::peer::Wire;
use crate::rig::{Rig, plain};
use crate::support::media::Source;
use crate::support::raw::RawPeer;
use crate::support::server::{matrix, wait_for};

const BAD_NAME: &str = "NetStream.Publish.BadName";

fn settings(push: &str, play: &str) -> String {
    format!(
        "[domain.\"push.q.test\"]\ntype = \"push\"\n{push}\n\
         [[domain.\"push.q.test\".provider]]\nscheme = \"open\"\n\
         [domain.\"play.q.test\"]\ntype = \"play\"\npush_domain = \"push.q.test\"\n{play}\n"
    )
}

fn push(stream: &str) -> String {
    format!("rtmp://push.q.test/live/{stream}")
}

fn play(stream: &str) -> String {
    format!("rtmp://play.q.test/live/{stream}")
}

fn refusal(code: &str, text: &str) -> (String, String) {
    (code.to_owned(), text.to_owned())
}

#[test]
fn no_more_publishers_and_players_are_let_in_than_a_domain_may_have() {
    for how in matrix(&[1, 2]) {
        for style in ["tencent", "aliyun"] {
            let push_settings = format!("publishers_max = 2\nstyle = \"{style}\"");
            let rig = Rig::start(how, &settings(&push_settings, "subscribers_max = 3"));
            let mut wire = Wire::new(rig.rtmp);
            let [a, b] = ["a", "b"].map(|name| wire.started(Publish, &push(name)));
            let full = refusal(BAD_NAME, "too many publishers");
            assert_eq!(wire.refused(Publish, &push("c")), full, "{style}");
            let line = rig.wait_event("access_denied", |line| line["class"] == "quota");
            assert_eq!((&line["code"], &line["role"]), (&json!(601), &json!("publish")));
            // Who only replaces another is let in where the domain lets replace at all.
            let a = if style == "tencent" {
                let newer = wire.started(Publish, &push("a"));
                wire.until_ended(a);
                newer
            } else {
                // The quota is looked at before the stream.
                assert_eq!(wire.refused(Publish, &push("a")), full);
                a
            };
            wait_for("two publishers", || rig.counts("push.q.test") == (2, 0));
            let players: Vec<usize> = (0..3).map(|_| wire.started(Play, &play("a"))).collect();
            let (_, text) = wire.refused(Play, &play("b"));
            assert_eq!(text, "too many players");
            assert_eq!(rig.counts("play.q.test"), (0, 3));
            wire.leave(players[0]);
            wire.leave(b);
            wait_for("places", || {
                (rig.counts("push.q.test").0, rig.counts("play.q.test").1) == (1, 2)
            });
            wire.started(Play, &play("b"));
            wire.started(Publish, &push("c"));
            assert!(!wire.peers[a].has_ended());
        }
    }
}

#[test]
fn publishes_and_plays_of_one_address_are_counted_together_in_each_domain() {
    let limit = "connections_per_address_max = 2";
    let rig = Rig::start(plain(), &settings(limit, limit));
    let mut wire = Wire::new(rig.rtmp);
    let text = "too many connections from this address";
    let publishers = ["a", "b"].map(|name| wire.started(Publish, &push(name)));
    let (code, told) = wire.refused(Publish, &push("c"));
    assert_eq!((code.as_str(), told.as_str()), (BAD_NAME, text));
    let players = ["a", "b"].map(|name| wire.started(Play, &play(name)));
    assert_eq!(wire.refused(Play, &play("a")).1, text);
    for peer in publishers.into_iter().chain(players) {
        wire.leave(peer);
    }
    wait_for("all places", || rig.counts("push.q.test") == (0, 0));
    wait_for("all places", || rig.counts("play.q.test") == (0, 0));
    for name in ["c", "d"] {
        wire.started(Publish, &push(name));
        wire.started(Play, &play(name));
    }
    assert_eq!(wire.refused(Publish, &push("e")).1, text);
}

#[test]
fn places_belong_to_streams_so_that_one_connection_may_have_several() {
    let style = "publishers_max = 2\nstyle = \"aliyun\"";
    let rig = Rig::start(plain(), &settings(style, "subscribers_max = 1"));
    let mut raw = RawPeer::shaken(rig.rtmp);
    raw.command(0, "connect", 1.0, |amf| {
        amf.object_begin();
        amf.key("app");
        amf.string("live");
        amf.object_end();
    });
    raw.read_until(b"NetConnection.Connect.Success");
    for _ in 0..4 {
        raw.create_stream(2.0);
        raw.read_until(b"_result");
    }
    let ask = |raw: &mut RawPeer, msid: u32, command: &str, name: &str, told: &str| {
        let half = if command == "play" { "play" } else { "push" };
        raw.command(msid, command, 0.0, |amf| {
            amf.null();
            amf.string(&format!("{name}?vhost={half}.q.test"));
        });
        raw.read_until(told.as_bytes());
    };
    let places = |publishers: u64, players: u64| {
        wait_for(&format!("{publishers} publishers and {players} players"), || {
            (rig.counts("push.q.test").0, rig.counts("play.q.test").1) == (publishers, players)
        });
    };
    let delete = |raw: &mut RawPeer, msid: u32| {
        raw.command(0, "deleteStream", 0.0, |amf| {
            amf.null();
            amf.number(f64::from(msid));
        });
    };
    ask(&mut raw, 1, "publish", "a", "NetStream.Publish.Start");
    ask(&mut raw, 2, "publish", "b", "NetStream.Publish.Start");
    places(2, 0);
    // A refusal leaves the streams there are alone.
    ask(&mut raw, 3, "publish", "c", "too many publishers");
    places(2, 0);
    ask(&mut raw, 3, "play", "a", "NetStream.Play.Start");
    places(2, 1);
    // Playing something else on the same message stream needs no second place.
    ask(&mut raw, 3, "play", "b", "NetStream.Play.Start");
    places(2, 1);
    ask(&mut raw, 4, "play", "a", "too many players");
    delete(&mut raw, 3);
    places(2, 0);
    delete(&mut raw, 1);
    places(1, 0);
    ask(&mut raw, 4, "publish", "b", "somebody publishes already");
    places(1, 0);
    ask(&mut raw, 4, "publish", "c", "NetStream.Publish.Start");
    ask(&mut raw, 4, "publish", "d", "NetStream.Publish.BadName");
    drop(raw);
    places(0, 0);
}

#[test]
fn a_quota_may_be_changed_while_the_domain_is_full() {
    let rig = Rig::start(plain(), "");
    rig.done(
        "POST",
        "/api/v1/domains",
        &json!({"name": "push.q.test", "type": "push", "publishers_max": 1, "style": "aliyun",
            "provider": [{"scheme": "open"}]}),
    );
    let mut wire = Wire::new(rig.rtmp);
    let first = wire.started(Publish, &push("a"));
    assert_eq!(wire.refused(Publish, &push("b")).1, "too many publishers");
    let path = "/api/v1/domains/push.q.test/quotas";
    rig.done("PUT", path, &json!({"publishers_max": 2}));
    let second = wire.started(Publish, &push("b"));
    rig.done("PUT", path, &json!({"publishers_max": 1}));
    assert!(!wire.peers[first].has_ended() && !wire.peers[second].has_ended());
    assert_eq!(rig.counts("push.q.test"), (2, 0));
    wire.leave(first);
    wait_for("one place", || rig.counts("push.q.test") == (1, 0));
    assert_eq!(wire.refused(Publish, &push("a")).1, "too many publishers");
    // Removed and made anew, the domain remembers who is still there.
    rig.done("DELETE", "/api/v1/domains/push.q.test", &Value::Null);
    assert!(!wire.peers[second].has_ended());
    rig.done(
        "POST",
        "/api/v1/domains",
        &json!({"name": "push.q.test", "type": "push", "publishers_max": 1,
            "provider": [{"scheme": "open"}]}),
    );
    assert_eq!(rig.counts("push.q.test"), (1, 0));
}

/// Sends pictures in real time until the connection is no more or `enough`.
fn send_until(
    wire: &mut Wire,
    peer: usize,
    source: &mut Source,
    mut enough: impl FnMut(&Wire) -> bool,
) {
    let begun = std::time::Instant::now();
    wire.until("enough", |wire| {
        let due = begun.elapsed().as_millis() / 10;
        while u128::from(source.pictures) < due && !wire.peers[peer].has_ended() {
            wire.send_frames(peer, source, 1);
        }
        enough(wire)
    });
}

#[test]
fn a_publisher_over_its_bit_rate_is_warned_then_cut_and_one_below_is_not() {
    // A picture of 7 or 9 kB and audio every 10 ms: 6 Mbit/s, so that a window in which this had no processor
    // for most of the time is over the limit, too.
    let limits = "bitrate_bps_max = 500000\nbitrate_cut_ms = 3000";
    let rig = Rig::start(plain(), &settings(limits, ""));
    let mut wire = Wire::new(rig.rtmp);
    let fat = wire.started(Publish, &push("fat"));
    let thin = wire.started(Publish, &push("thin"));
    let (mut source, mut small) = (Source::new(1), Source::new(2));
    source.frame_bytes = 7_000;
    (small.keyframe_bytes, small.frame_bytes, small.audio_bytes) = (60, 60, 60);
    for (peer, source) in [(fat, &source), (thin, &small)] {
        wire.send_headers(peer, source);
    }
    send_until(&mut wire, fat, &mut source, |wire| wire.peers[fat].has_ended());
    let id = json!(wire.peers[fat].id);
    let end = rig.wait_event("close", |line| line["conn"] == id);
    assert_eq!((&end["reason"], &end["role"]), (&json!("bitrate_limit"), &json!("publisher")));
    let told = rig.events("bitrate");
    assert!(told.iter().all(|line| line["conn"] == id), "the thin one is fine: {told:?}");
    let cuts: Vec<&Value> = told.iter().map(|line| &line["cut"]).collect();
    assert_eq!(cuts, [&json!(false), &json!(true)], "warned once, then cut");
    assert!(told.iter().all(|line| line["bps"].as_u64() > Some(500_000)));
    assert_eq!(told[0]["bps_max"], 500_000);
    let (_, text) = wire.peers[fat].statuses.last().cloned().unwrap();
    assert!(text.starts_with("bit rate of ") && text.ends_with(" exceeds 500000 bits per second"));
    let metric = rig.metric("ringcast_disconnects_total", "reason=\"bitrate_limit\"");
    assert_eq!(metric, 1);
    send_until(&mut wire, thin, &mut small, |_| small_is_done(&rig));
    assert!(!wire.peers[thin].has_ended());
    wait_for("its place", || rig.counts("push.q.test") == (1, 0));
    // It may come again: nothing is forbidden.
    wire.started(Publish, &push("fat"));
}

fn small_is_done(rig: &Rig) -> bool {
    rig.metric("ringcast_disconnects_total", "reason=\"bitrate_limit\"") == 1
}
