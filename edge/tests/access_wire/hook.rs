//! Domains whose hook decides: yes, no, other names, limits, and every way to give no answer.

use rtmp::session::ClientRole::{Play, Publish};
use serde_json::{Value, json};

use crate::hook_server::{Does, HookServer};
use crate::peer::{Answer, Wire};
use crate::rig::{Rig, plain};
use crate::support::media::{Kind, Source};
use crate::support::raw::{RawPeer, message};
use crate::support::server::{matrix, wait_for};

const CAM: &str = "rtmp://push.hook.test/live/cam";
const DENIED: &str = "NetStream.Publish.Denied";
const NO_ANSWER: &str = "the authorization service gives no answer";
const HOOK_KEY: &str = "sesame-of-hook";

/// A push domain with the hook, its play domain, and a pair of domains that are open. `more` goes to the
/// hook, `domain` to its push domain.
fn settings(hook: &HookServer, more: &str, domain: &str) -> String {
    settings_at(&hook.address.to_string(), more, domain)
}

fn settings_at(address: &str, more: &str, domain: &str) -> String {
    format!(
        "[domain.\"push.hook.test\"]\ntype = \"push\"\n{domain}\n\
         [[domain.\"push.hook.test\".provider]]\nscheme = \"hook\"\nkey = {HOOK_KEY:?}\n\
         url = \"http://{address}/ask?from=edge\"\n{more}\n\
         [domain.\"play.hook.test\"]\ntype = \"play\"\npush_domain = \"push.hook.test\"\n\
         [domain.\"asks.hook.test\"]\ntype = \"play\"\npush_domain = \"push.hook.test\"\n\
         [[domain.\"asks.hook.test\".provider]]\nscheme = \"hook\"\nurl = \"http://{address}/\"\n\
         [domain.\"push.open.test\"]\ntype = \"push\"\n\
         [[domain.\"push.open.test\".provider]]\nscheme = \"open\"\n\
         [domain.\"play.open.test\"]\ntype = \"play\"\npush_domain = \"push.open.test\"\n"
    )
}

fn refusal(text: &str) -> (String, String) {
    (DENIED.to_owned(), text.to_owned())
}

fn results(rig: &Rig, result: &str) -> u64 {
    rig.metric("ringcast_hook_questions_total", &format!("result=\"{result}\""))
}

#[test]
fn a_hook_is_told_who_asks_for_what_and_its_yes_and_no_count() {
    let hook = HookServer::answering(200, "");
    let rig = Rig::start(plain(), &settings(&hook, "timeout_ms = 30000", ""));
    let mut wire = Wire::new(rig.rtmp);
    let address = format!("{CAM}?token=a-good-token-of-a-user&x=%2F");
    rig.remember(&address);
    let publisher = wire.started(Publish, &address);
    let player = wire.started(Play, "rtmp://play.hook.test/live/cam");
    let mut source = Source::new(1);
    wire.send_headers(publisher, &source);
    wire.expect_flow(publisher, player, &mut source);
    let asked = &hook.asked()[0];
    let id = wire.peers[publisher].id.clone();
    for (field, value) in [
        ("action", json!("publish")),
        ("domain", json!("push.hook.test")),
        ("app", json!("live")),
        ("stream", json!("cam")),
        ("path", json!("push.hook.test/live/cam")),
        ("query", json!("token=a-good-token-of-a-user&x=%2F")),
        ("peer", json!("127.0.0.1")),
        ("connection", json!(id)),
        ("tc_url", json!("rtmp://push.hook.test/live")),
    ] {
        assert_eq!(asked.body[field], value, "{field}: {}", asked.body);
    }
    let time = asked.time.clone().unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, HOOK_KEY.as_bytes());
    let signed = [time.as_bytes(), b".", &asked.raw].concat();
    let tag = aws_lc_rs::hmac::sign(&key, &signed);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(asked.signature.as_deref(), Some(hex.as_str()));

    hook.answers(200, "{\"allow\":false,\"reason\":\"not you\"}");
    let other = "rtmp://push.hook.test/live/cam2";
    assert_eq!(wire.refused(Publish, other), refusal("not you"));
    hook.answers(403, "");
    let text = "refused by the authorization service";
    assert_eq!(wire.refused(Publish, other), refusal(text));
    let line = rig.wait_event("access_denied", |line| line["reason"] == "not you");
    assert_eq!((&line["class"], &line["code"]), (&json!("hook"), &json!(19)));
    assert_eq!(rig.denied("hook"), 2);
    assert_eq!((results(&rig, "allowed"), results(&rig, "refused")), (1, 2));
}

#[test]
fn who_waits_for_a_hook_holds_up_nobody_else() {
    for how in matrix(&[1]) {
        let hook = HookServer::start(Does::Waits);
        let rig = Rig::start(how, &settings(&hook, "timeout_ms = 30000", ""));
        let mut wire = Wire::new(rig.rtmp);
        let publisher = wire.started(Publish, "rtmp://push.open.test/live/cam");
        let player = wire.started(Play, "rtmp://play.open.test/live/cam");
        let mut source = Source::new(1);
        wire.send_headers(publisher, &source);
        let waiting: Vec<usize> =
            (0..20).map(|n| wire.publish(&format!("rtmp://push.hook.test/live/w{n}"))).collect();
        wire.until("all to have asked", |_| hook.asked().len() == waiting.len());
        wire.expect_flow(publisher, player, &mut source);
        // New ones come and go, and the API answers.
        let another = wire.started(Play, "rtmp://play.open.test/live/cam");
        wire.expect_flow(publisher, another, &mut source);
        wire.leave(another);
        assert_eq!(rig.counts("push.hook.test"), (0, 0));
        assert!(waiting.iter().all(|&peer| wire.peers[peer].answer.is_none()));
        // Some leave while the hook thinks, in every way there is.
        for (n, &peer) in waiting.iter().enumerate().take(9) {
            match n % 3 {
                0 => wire.leave(peer),
                1 => wire.reset(peer),
                _ => wire.vanish(peer),
            }
        }
        hook.answers(200, "");
        for &peer in &waiting[9..] {
            assert_eq!(wire.answer(peer), Answer::Started);
        }
        wire.expect_flow(publisher, player, &mut source);
        // Those who left took no place with them.
        wait_for("the places of those who left", || rig.counts("push.hook.test") == (11, 0));
        for &peer in &waiting[9..] {
            wire.leave(peer);
        }
        wait_for("all places", || rig.counts("push.hook.test") == (0, 0));
    }
}

/// What was decided while the hook thought counts: its yes is to a question of before.
#[test]
fn who_is_forbidden_while_the_hook_thinks_is_refused_when_it_has_said_yes() {
    let hook = HookServer::start(Does::Waits);
    let rig = Rig::start(plain(), &settings(&hook, "timeout_ms = 30000", "publishers_max = 1"));
    let mut wire = Wire::new(rig.rtmp);
    let [cam, first, second] = ["cam", "one", "two"]
        .map(|name| wire.publish(&format!("rtmp://push.hook.test/live/{name}")));
    wire.until("all to have asked", |_| hook.asked().len() == 3);
    rig.done("POST", "/api/v1/forbids", &json!({"domain": "push.hook.test", "stream": "cam"}));
    hook.answers(200, "");
    let answers = [cam, first, second].map(|peer| wire.answer(peer));
    let forbidden = Answer::Refused(DENIED.to_owned(), "this stream is forbidden".to_owned());
    assert_eq!(answers[0], forbidden);
    // Both were asked about when there was room for one.
    let code = "NetStream.Publish.BadName".to_owned();
    let full = Answer::Refused(code, "too many publishers".to_owned());
    let mut others = answers[1..].to_vec();
    others.sort_by_key(|answer| *answer != Answer::Started);
    assert_eq!(others, [Answer::Started, full]);
    wait_for("one place", || rig.counts("push.hook.test") == (1, 0));
}

/// The peer does not close, so that its connection is there, on its way out, when the answer comes.
#[test]
fn who_is_kicked_while_the_hook_thinks_takes_no_place_when_it_says_yes() {
    let hook = HookServer::start(Does::Waits);
    let rig = Rig::start(plain(), &settings(&hook, "timeout_ms = 30000", ""));
    let mut peers = Vec::new();
    for n in 0..5 {
        let mut raw = RawPeer::shaken(rig.rtmp);
        raw.command(0, "connect", 1.0, |amf| {
            amf.object_begin();
            amf.key("app");
            amf.string("live");
            amf.key("tcUrl");
            amf.string("rtmp://push.hook.test/live");
            amf.object_end();
        });
        raw.read_until(b"NetConnection.Connect.Success");
        raw.create_stream(2.0);
        raw.command(1, "publish", 3.0, |amf| {
            amf.null();
            amf.string(&format!("cam{n}"));
        });
        peers.push(raw);
    }
    hook.wait_asked(peers.len());
    for asked in hook.asked() {
        let id = asked.body["connection"].as_str().unwrap().to_owned();
        rig.done("DELETE", &format!("/api/v1/clients/{id}"), &Value::Null);
    }
    hook.answers(200, "");
    wait_for("the answers", || results(&rig, "allowed") == peers.len() as u64);
    for raw in &mut peers {
        raw.read_to_end();
    }
    drop(peers);
    wait_for("no place taken", || rig.counts("push.hook.test") == (0, 0));
    wait_for("the ends", || rig.events("close").len() == 5);
    assert_eq!(rig.counts("push.hook.test"), (0, 0));
    assert!(rig.events("publish").is_empty());
}

/// The domain itself may be gone when its hook answers.
#[test]
fn who_waits_for_the_hook_of_a_domain_that_is_removed_is_refused() {
    let hook = HookServer::start(Does::Waits);
    let rig = Rig::start(plain(), "");
    let provider = json!({"scheme": "hook", "timeout_ms": 30000,
        "url": format!("http://{}/", hook.address)});
    let domain = json!({"name": "push.hook.test", "type": "push", "provider": [provider]});
    rig.done("POST", "/api/v1/domains", &domain);
    let mut other = domain.clone();
    other["name"] = json!("stays.test");
    rig.done("POST", "/api/v1/domains", &other);
    let mut wire = Wire::new(rig.rtmp);
    let peer = wire.publish(CAM);
    wire.until("it to have asked", |_| hook.asked().len() == 1);
    rig.done("DELETE", "/api/v1/domains/push.hook.test", &Value::Null);
    hook.answers(200, "");
    let text = "unknown domain push.hook.test".to_owned();
    assert_eq!(wire.answer(peer), Answer::Refused(DENIED.to_owned(), text));
}

#[test]
fn more_questions_than_may_wait_are_decided_at_once_as_the_domain_says() {
    const WAITING_MAX: usize = 1_024;
    const BEYOND: usize = 60;
    let hook = HookServer::start(Does::Waits);
    let settings = settings(&hook, "timeout_ms = 30000", "");
    let rig = Rig::start(plain(), &format!("hooks_in_flight_max = 1\n{settings}"));
    let mut wire = Wire::new(rig.rtmp);
    let beside = wire.started(Publish, "rtmp://push.open.test/live/cam");
    let player = wire.started(Play, "rtmp://play.open.test/live/cam");
    let mut source = Source::new(1);
    wire.send_headers(beside, &source);
    // One is with the hook, one is taken from the queue and waits for its turn, the others fill the queue.
    let asking: Vec<usize> = (0..WAITING_MAX + 2 + BEYOND)
        .map(|n| {
            if n % 64 == 0 {
                wire.turn();
            }
            wire.publish(&format!("rtmp://push.hook.test/live/w{n}"))
        })
        .collect();
    wire.until("those beyond to be refused", |wire| {
        asking.iter().filter(|&&peer| wire.peers[peer].answer.is_some()).count() == BEYOND
    });
    wire.expect_flow(beside, player, &mut source);
    let refused = Answer::Refused(DENIED.to_owned(), NO_ANSWER.to_owned());
    let answers = asking.iter().filter_map(|&peer| wire.peers[peer].answer.clone());
    assert!(answers.into_iter().all(|answer| answer == refused));
    assert_eq!(rig.metric("ringcast_hook_questions_refused_total", ""), BEYOND as u64);
    assert_eq!(rig.denied("hook_failed"), BEYOND as u64);
    hook.answers(200, "");
    wire.until("all to be answered", |wire| {
        asking.iter().all(|&peer| wire.peers[peer].answer.is_some())
    });
    assert_eq!(rig.counts("push.hook.test"), (WAITING_MAX as u64 + 2, 0));
}

#[test]
fn what_a_peer_sends_before_the_hook_answers_is_kept() {
    let hook = HookServer::start(Does::Waits);
    let rig = Rig::start(plain(), &settings(&hook, "timeout_ms = 30000", ""));
    let mut wire = Wire::new(rig.rtmp);
    let player = wire.play("rtmp://play.hook.test/live/cam");
    assert_eq!(wire.answer(player), Answer::Started);
    let mut raw = RawPeer::shaken(rig.rtmp);
    raw.command(0, "connect", 1.0, |amf| {
        amf.object_begin();
        amf.key("app");
        amf.string("live");
        amf.key("tcUrl");
        amf.string("rtmp://push.hook.test/live");
        amf.object_end();
    });
    raw.read_until(b"NetConnection.Connect.Success");
    raw.create_stream(2.0);
    raw.command(1, "publish", 3.0, |amf| {
        amf.null();
        amf.string("cam");
        amf.string("live");
    });
    let mut source = Source::new(5);
    let (video, audio) = (source.video_header(), source.audio_header());
    raw.send(&message(6, 9, 1, &video));
    raw.send(&message(4, 8, 1, &audio));
    for (media, _, body) in source.next_pair() {
        let csid = 4 + u32::from(media.type_id() == 9) * 2;
        raw.send(&message(csid, media.type_id(), 1, &body));
    }
    hook.wait_asked(1);
    hook.answers(204, "");
    raw.read_until(b"NetStream.Publish.Start");
    wire.until("what was sent early", |wire| wire.peers[player].count(Kind::Audio) == 1);
    assert_eq!(wire.peers[player].count(Kind::Keyframe), 1);
}

#[test]
fn a_hook_may_give_a_stream_another_name_and_limits() {
    let hook = HookServer::answering(200, "{\"allow\":true,\"stream\":\"secret-7\"}");
    let rig = Rig::start(plain(), &settings(&hook, "timeout_ms = 30000", "bitrate_cut_ms = 0"));
    let mut wire = Wire::new(rig.rtmp);
    let publisher = wire.started(Publish, CAM);
    let player = wire.started(Play, "rtmp://play.hook.test/live/secret-7");
    let mut source = Source::new(1);
    wire.send_headers(publisher, &source);
    wire.expect_flow(publisher, player, &mut source);
    rig.wait_event("publish", |line| line["stream"] == "push.hook.test/live/secret-7");
    // A rename may not lead around a forbid.
    let forbid = json!({"domain": "push.hook.test", "stream": "secret-7", "for_s": 600});
    assert_eq!(rig.done("POST", "/api/v1/forbids", &forbid)["cut"], 1);
    wire.until_ended(publisher);
    assert!(wire.refused(Publish, CAM).1.starts_with("this stream is forbidden until 20"));

    hook.answers(200, "{\"allow\":true,\"stream\":\"a/b\"}");
    let no_name = "the authorization service gives no usable name";
    assert_eq!(wire.refused(Publish, CAM), refusal(no_name));

    hook.answers(200, "{\"allow\":true,\"lifetime_s_max\":1}");
    let short = wire.started(Publish, CAM);
    wire.until_ended(short);
    let end = rig.wait_event("close", |line| line["conn"] == json!(wire.peers[short].id));
    assert_eq!(end["reason"], "lifetime_over");
    let told = &wire.peers[short].statuses;
    assert!(told.iter().any(|(_, text)| text == "the permission has ended"), "{told:?}");

    let short = wire.started(Play, "rtmp://asks.hook.test/live/cam");
    wire.until_ended(short);
    let end = rig.wait_event("close", |line| line["conn"] == json!(wire.peers[short].id));
    assert_eq!((&end["reason"], &end["role"]), (&json!("lifetime_over"), &json!("subscriber")));

    hook.answers(200, "{\"allow\":true,\"bitrate_bps_max\":1000}");
    let fat = wire.started(Publish, CAM);
    let mut source = Source::new(2);
    wire.send_headers(fat, &source);
    wire.until("the cut", |wire| {
        if !wire.peers[fat].has_ended() {
            wire.send_frames(fat, &mut source, 1);
        }
        wire.peers[fat].has_ended()
    });
    let end = rig.wait_event("close", |line| line["conn"] == json!(wire.peers[fat].id));
    assert_eq!(end["reason"], "bitrate_limit");
    wait_for("the places", || rig.counts("push.hook.test") == (0, 0));
}

#[test]
fn lies_are_no_answer_and_are_asked_again() {
    let hook = HookServer::answering(200, "");
    let rig = Rig::start(
        plain(),
        &settings(&hook, "timeout_ms = 30000\nretries = 2\nbreaker_failures = 1000", ""),
    );
    let mut wire = Wire::new(rig.rtmp);
    let huge = "x".repeat(100_000);
    let mut asked = 0;
    for (status, body) in [
        (200, "<html>welcome</html>"),
        (200, "{}"),
        (200, "{\"allow\":\"yes\"}"),
        (200, "[true]"),
        (302, ""),
        (500, "{\"allow\":true}"),
        (404, ""),
        (200, huge.as_str()),
    ] {
        hook.answers(status, body);
        assert_eq!(wire.refused(Publish, CAM), refusal(NO_ANSWER), "{status} {body:.40}");
        assert_eq!(
            hook.asked().len(),
            asked + 3,
            "{status} {body:.40}: asked once and twice again"
        );
        asked += 3;
    }
    let line = rig.wait_event("access_denied", |line| line["class"] == "hook_failed");
    assert_eq!(line["code"], 19);
    hook.now(Does::HangsUp);
    assert_eq!(wire.refused(Publish, CAM), refusal(NO_ANSWER));
    assert_eq!((results(&rig, "failed"), rig.denied("hook_failed")), (9, 9));
    hook.answers(200, "");
    wire.started(Publish, CAM);
}

#[test]
fn a_silent_or_absent_hook_means_what_the_domain_says() {
    let hook = HookServer::start(Does::Waits);
    let gone = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    for address in [hook.address.to_string(), gone] {
        for fail in ["closed", "open"] {
            let more = format!("timeout_ms = 100\nretries = 1\nfail = \"{fail}\"");
            let rig = Rig::start(plain(), &settings_at(&address, &more, ""));
            let mut wire = Wire::new(rig.rtmp);
            if fail == "closed" {
                assert_eq!(wire.refused(Publish, CAM), refusal(NO_ANSWER), "{address}");
                assert_eq!(rig.denied("hook_failed"), 1);
                assert_eq!(rig.counts("push.hook.test"), (0, 0));
            } else {
                wire.started(Publish, CAM);
                assert_eq!(rig.counts("push.hook.test"), (1, 0));
            }
            let line = rig.wait_event("hook_failed", |_| true);
            assert_eq!(line["domain"], "push.hook.test");
            assert!(!line.to_string().contains("sesame"));
        }
    }
}

#[test]
fn a_failing_hook_is_left_alone_and_tried_again() {
    let hook = HookServer::start(Does::HangsUp);
    let more = "retries = 0\nbreaker_failures = 3\nbreaker_open_ms = 5000\nfail = \"open\"";
    let rig = Rig::start(plain(), &settings(&hook, more, ""));
    let mut wire = Wire::new(rig.rtmp);
    let stream = |n: u32| format!("rtmp://push.hook.test/live/b{n}");
    for n in 0..3 {
        wire.started(Publish, &stream(n));
    }
    rig.wait_event("hook_breaker", |_| true);
    let asked = hook.asked().len();
    wire.started(Publish, &stream(3));
    assert_eq!((hook.asked().len(), results(&rig, "left_alone")), (asked, 1));
    hook.answers(403, "");
    let mut n = 10;
    wire.until("the hook to be asked again", |wire| {
        n += 1;
        let peer = wire.publish(&stream(n));
        wire.answer(peer) != Answer::Started
    });
    wait_for("the breaker to close", || rig.events("hook_breaker").len() >= 2);
    assert_eq!(wire.refused(Publish, &stream(4)).0, DENIED);
}

#[test]
fn a_kept_answer_is_for_the_same_question_only() {
    let hook = HookServer::answering(200, "{\"allow\":true,\"ttl_s\":600}");
    let rig = Rig::start(plain(), &settings(&hook, "timeout_ms = 30000", "style = \"tencent\""));
    let mut wire = Wire::new(rig.rtmp);
    for _ in 0..3 {
        wire.started(Publish, &format!("{CAM}?token=one"));
    }
    assert_eq!((hook.asked().len(), results(&rig, "cached")), (1, 2));
    hook.answers(200, "{\"allow\":false,\"reason\":\"no\",\"ttl_s\":600}");
    wire.started(Publish, &format!("{CAM}?token=one"));
    for address in [
        format!("{CAM}?token=two"),
        CAM.to_owned(),
        "rtmp://push.hook.test/show/cam?token=one".to_owned(),
        "rtmp://push.hook.test/live/cam2?token=one".to_owned(),
    ] {
        for _ in 0..2 {
            assert_eq!(wire.refused(Publish, &address), refusal("no"), "{address}");
        }
    }
    assert_eq!(hook.asked().len(), 5);
    let (_, status) = rig.ask("GET", "/api/v1/status", &Value::Null);
    assert!(status.is_object());
}
