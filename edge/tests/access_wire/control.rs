//! Forbids, bans, cuts and kicks while streams run: at once, with the text, for as long as was said, and
//! over a restart.

use rtmp::session::ClientRole::{Play, Publish};
use serde_json::{Value, json};

use crate::peer::{Answer, Wire};
use crate::rig::{Rig, now, plain};
use crate::support::media::Source;
use crate::support::raw::RawPeer;
use crate::support::server::{How, matrix, wait_for};

const DENIED: &str = "NetStream.Publish.Denied";
const PLAY_FAILED: &str = "NetStream.Play.Failed";
const PUSH: &str = "rtmp://push.f.test/live/cam";
const PLAY: &str = "rtmp://play.f.test/live/cam";
const SETTINGS: &str = "[domain.\"push.f.test\"]\ntype = \"push\"\n\
    [[domain.\"push.f.test\".provider]]\nscheme = \"open\"\n\
    [domain.\"play.f.test\"]\ntype = \"play\"\npush_domain = \"push.f.test\"\n";
const TARGET: &str = "/api/v1/forbids/stream:push.f.test/live/cam";

/// A stream with a publisher and two players, and one beside it.
struct Scene {
    rig: Rig,
    wire: Wire,
    source: Source,
    publisher: usize,
    players: [usize; 2],
    beside: usize,
}

impl Scene {
    fn start(how: How) -> Self {
        let rig = Rig::start(how, SETTINGS);
        let mut wire = Wire::new(rig.rtmp);
        let publisher = wire.started(Publish, PUSH);
        let players = [0, 1].map(|_| wire.started(Play, PLAY));
        let beside = wire.started(Publish, "rtmp://push.f.test/live/cam2");
        let mut source = Source::new(1);
        wire.send_headers(publisher, &source);
        wire.expect_flow(publisher, players[0], &mut source);
        Self { rig, wire, source, publisher, players, beside }
    }

    fn forbid(&self, more: &Value) -> Value {
        let mut body = json!({"domain": "push.f.test", "stream": "cam"});
        let fields = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(fields);
        self.rig.done("POST", "/api/v1/forbids", &body)
    }

    /// Asks to publish until it is let in; the Unix second in which that was.
    fn until_let_in(&mut self, address: &str) -> u64 {
        let mut at = 0;
        self.wire.until("to be let in again", |wire| {
            let peer = wire.publish(address);
            let answer = wire.answer(peer);
            at = now();
            answer == Answer::Started
        });
        at
    }
}

#[test]
fn a_forbidden_stream_is_cut_now_and_refused_until_its_time_has_come() {
    for how in matrix(&[1, 2]) {
        let mut scene = Scene::start(how);
        let done = scene.forbid(&json!({"for_s": 5, "reason": "a complaint"}));
        assert_eq!((&done["cut"], &done["missing_workers"]), (&json!(1), &json!([])));
        scene.wire.until_ended(scene.publisher);
        let until = done["forbid"]["until"].as_str().unwrap();
        let text = format!("this stream is forbidden until {until}");
        assert_eq!(scene.wire.refused(Publish, PUSH), (DENIED.to_owned(), text.clone()));
        let line = scene.rig.wait_event("access_denied", |line| line["reason"] == json!(text));
        assert_eq!((&line["class"], &line["code"]), (&json!("forbidden"), &json!(305)));
        assert!(!line.to_string().contains("complaint"), "the reason is for operators");
        assert!(!scene.wire.peers[scene.beside].has_ended(), "the stream beside runs on");
        // Other ways to write the same stream are the same stream.
        for alias in ["rtmp://push.f.test/show/cam", "rtmp://PUSH.f.test/live/c%61m"] {
            assert_eq!(scene.wire.refused(Publish, alias), (DENIED.to_owned(), text.clone()));
        }
        let until_s = done["forbid"]["until_s"].as_u64().unwrap();
        let at = scene.until_let_in(PUSH);
        assert!(at >= until_s, "{at} {until_s}");
        scene.rig.wait_event("resume", |line| line["target"] == "stream:push.f.test/live/cam");
    }
}

#[test]
fn players_are_cut_and_refused_where_the_forbid_is_for_them() {
    let mut scene = Scene::start(plain());
    let done = scene.forbid(&json!({"scope": "play"}));
    assert_eq!(done["cut"], 2);
    for player in scene.players {
        scene.wire.until_ended(player);
    }
    let refused = (PLAY_FAILED.to_owned(), "this stream is forbidden".to_owned());
    assert_eq!(scene.wire.refused(Play, PLAY), refused);
    assert!(!scene.wire.peers[scene.publisher].has_ended());
    scene.rig.done("DELETE", TARGET, &Value::Null);
    let player = scene.wire.started(Play, PLAY);
    scene.wire.expect_flow(scene.publisher, player, &mut scene.source);
    // Named by the domain of its players, it is the same stream.
    let all = json!({"domain": "play.f.test", "stream": "cam", "scope": "all"});
    assert_eq!(scene.rig.done("POST", "/api/v1/forbids", &all)["cut"], 2);
    scene.wire.until_ended(player);
    scene.wire.until_ended(scene.publisher);
    assert_eq!(scene.wire.refused(Publish, PUSH).1, "this stream is forbidden");
}

#[test]
fn a_forbid_and_a_ban_survive_a_crash_and_can_be_given_an_end() {
    let mut scene = Scene::start(plain());
    scene.forbid(&json!({"reason": "a complaint"}));
    scene.rig.restart();
    scene.wire.move_to(scene.rig.rtmp);
    assert_eq!(scene.wire.refused(Publish, PUSH).1, "this stream is forbidden");
    let later = scene.rig.done("PUT", TARGET, &json!({"for_s": 5}));
    let text = format!("this stream is forbidden until {}", later["until"].as_str().unwrap());
    assert_eq!(scene.wire.refused(Publish, PUSH).1, text);
    let at = scene.until_let_in(PUSH);
    assert!(at >= later["until_s"].as_u64().unwrap());

    let ban = json!({"address": "127.0.0.0/8", "scope": "all"});
    let done = scene.rig.done("POST", "/api/v1/forbids", &ban);
    assert!(done["cut"].as_u64() >= Some(1), "{done}");
    let banned = |code: &str| (code.to_owned(), "this address is forbidden".to_owned());
    assert_eq!(scene.wire.refused(Publish, PUSH), banned(DENIED));
    assert_eq!(scene.wire.refused(Play, PLAY), banned(PLAY_FAILED));
    scene.rig.restart();
    scene.wire.move_to(scene.rig.rtmp);
    assert_eq!(scene.wire.refused(Publish, PUSH), banned(DENIED));
    scene.rig.done("DELETE", "/api/v1/forbids/address:127.0.0.0/8", &Value::Null);
    scene.wire.started(Publish, PUSH);
    scene.rig.restart();
    scene.wire.move_to(scene.rig.rtmp);
    scene.wire.started(Publish, PUSH);
}

#[test]
fn who_is_cut_or_kicked_only_may_come_again() {
    let mut scene = Scene::start(plain());
    let done = scene.forbid(&json!({"oneshot": true, "scope": "all"}));
    assert_eq!((&done["forbid"], &done["cut"]), (&Value::Null, &json!(3)));
    for peer in [scene.publisher, scene.players[0], scene.players[1]] {
        scene.wire.until_ended(peer);
    }
    let publisher = scene.wire.started(Publish, PUSH);
    let player = scene.wire.started(Play, PLAY);
    for peer in [player, publisher] {
        let id = scene.wire.peers[peer].id.clone().unwrap();
        scene.rig.done("DELETE", &format!("/api/v1/clients/{id}"), &Value::Null);
        scene.wire.until_ended(peer);
        let line = scene.rig.wait_event("close", |line| line["conn"] == json!(id));
        assert_eq!(line["reason"], "kicked");
    }
    scene.wire.started(Publish, PUSH);
    wait_for("the counts", || scene.rig.counts("play.f.test") == (0, 0));
    assert_eq!(scene.rig.counts("push.f.test"), (2, 0));
}

/// A peer that publishes `cam` and then, on the same connection, something else.
#[test]
fn a_second_stream_on_the_connection_hides_nobody_from_a_cut() {
    for second in ["publish", "play"] {
        let rig = Rig::start(plain(), SETTINGS);
        let mut raw = RawPeer::shaken(rig.rtmp);
        raw.command(0, "connect", 1.0, |amf| {
            amf.object_begin();
            amf.key("app");
            amf.string("live");
            amf.object_end();
        });
        raw.read_until(b"NetConnection.Connect.Success");
        for (msid, command, name, started) in [
            (1, "publish", "cam?vhost=push.f.test", "NetStream.Publish.Start"),
            (
                2,
                second,
                "other",
                if second == "play" { "NetStream.Play.Start" } else { "NetStream.Publish.Start" },
            ),
        ] {
            raw.create_stream(f64::from(msid) + 1.0);
            let host = if command == "play" { "?vhost=play.f.test" } else { "?vhost=push.f.test" };
            let name = if msid == 1 { name.to_owned() } else { format!("{name}{host}") };
            raw.command(msid, command, f64::from(msid) + 10.0, |amf| {
                amf.null();
                amf.string(&name);
                if command == "publish" {
                    amf.string("live");
                }
            });
            raw.read_until(started.as_bytes());
        }
        let forbid = json!({"domain": "push.f.test", "stream": "cam"});
        let done = rig.done("POST", "/api/v1/forbids", &forbid);
        assert_eq!(done["cut"], 1, "with a {second} beside: {done}");
        raw.read_to_end();
    }
}
