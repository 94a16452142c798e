//! Push and play domains: who serves whose streams, what makes two streams one, who is refused.

use rtmp::session::ClientRole::{Play, Publish};
use serde_json::{Value, json};

use crate::peer::Wire;
use crate::rig::{Rig, plain};
use crate::support::media::Source;
use crate::support::server::matrix;

const DENIED: &str = "NetStream.Publish.Denied";
const BAD_NAME: &str = "NetStream.Publish.BadName";
const PLAY_FAILED: &str = "NetStream.Play.Failed";

/// Two push domains and what they serve, all open. `more` is put into the first push domain.
fn settings(more: &str) -> String {
    format!(
        "[domain.\"push.one.test\"]\ntype = \"push\"\n{more}\n\
         [[domain.\"push.one.test\".provider]]\nscheme = \"open\"\n\
         [domain.\"push.two.test\"]\ntype = \"push\"\nstyle = \"oss\"\n\
         [[domain.\"push.two.test\".provider]]\nscheme = \"open\"\n\
         [domain.\"play.one.test\"]\ntype = \"play\"\npush_domain = \"push.one.test\"\n\
         [domain.\"also.one.test\"]\ntype = \"play\"\npush_domain = \"push.one.test\"\n\
         [domain.\"play.two.test\"]\ntype = \"play\"\npush_domain = \"push.two.test\"\n\
         [domain.\"play.none.test\"]\ntype = \"play\"\n"
    )
}

fn refusal(code: &str, text: &str) -> (String, String) {
    (code.to_owned(), text.to_owned())
}

#[test]
fn play_domains_serve_the_streams_of_their_push_domain_and_no_others() {
    for how in matrix(&[1, 2]) {
        let rig = Rig::start(how, &settings(""));
        let mut wire = Wire::new(rig.rtmp);
        let mut sources = [Source::new(1), Source::new(2)];
        let publishers = ["one", "two"]
            .map(|half| wire.started(Publish, &format!("rtmp://push.{half}.test/live/cam")));
        for (publisher, source) in publishers.iter().zip(&mut sources) {
            wire.send_headers(*publisher, source);
            wire.send_frames(*publisher, source, 5);
        }
        for (host, at) in [
            ("play.one.test", 0),
            ("also.one.test", 0),
            ("PLAY.One.test:1935", 0),
            ("play.two.test", 1),
        ] {
            let player = wire.started(Play, &format!("rtmp://{host}/live/cam"));
            wire.expect_flow(publishers[at], player, &mut sources[at]);
            let tags: Vec<u32> =
                wire.peers[player].items.iter().filter(|i| i.is_frame()).map(|i| i.tag).collect();
            assert!(tags.iter().all(|tag| *tag == sources[at].tag), "{host}: {tags:?}");
        }
        let (_, streams) = rig.ask("GET", "/api/v1/streams", &Value::Null);
        let mut names: Vec<&str> = streams["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|s| s["vhost"].as_str())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["push.one.test", "push.two.test"]);
    }
}

#[test]
fn who_asks_the_wrong_domain_is_told_which_is_wrong() {
    let rig = Rig::start(plain(), &settings(""));
    let mut wire = Wire::new(rig.rtmp);
    let long = "n".repeat(257);
    let too_long = format!("rtmp://push.one.test/live/{}", "n".repeat(256));
    wire.started(Publish, &too_long);
    for (role, address, code, text, class, event_code) in [
        (
            Publish,
            "rtmp://nowhere.test/live/cam",
            DENIED,
            "unknown domain nowhere.test",
            "unknown_domain",
            301,
        ),
        (
            Play,
            "rtmp://nowhere.test/live/cam",
            PLAY_FAILED,
            "unknown domain nowhere.test",
            "unknown_domain",
            301,
        ),
        (
            Play,
            "rtmp://192.0.2.1/live/cam",
            PLAY_FAILED,
            "unknown domain 192.0.2.1",
            "unknown_domain",
            301,
        ),
        (
            Publish,
            "rtmp://play.one.test/live/cam",
            DENIED,
            "play.one.test is a play domain: publishing is not served here",
            "wrong_domain",
            301,
        ),
        (
            Play,
            "rtmp://push.one.test/live/cam",
            PLAY_FAILED,
            "push.one.test is a push domain: playing is not served here",
            "wrong_domain",
            301,
        ),
        (
            Play,
            "rtmp://play.none.test/live/cam",
            PLAY_FAILED,
            "play domain play.none.test has no push domain",
            "wrong_domain",
            301,
        ),
        (
            Publish,
            "rtmp://push.one.test/live/c.am",
            BAD_NAME,
            "illegal characters in the stream name",
            "illegal_name",
            308,
        ),
        (
            Publish,
            "rtmp://push.one.test/li.ve/cam",
            BAD_NAME,
            "illegal characters in the app name",
            "illegal_name",
            309,
        ),
        (
            Publish,
            "rtmp://push.one.test/live/cam?vhost=nowhere.test",
            DENIED,
            "unknown domain nowhere.test",
            "unknown_domain",
            301,
        ),
    ] {
        let denied = rig.denied(class);
        assert_eq!(wire.refused(role, address), refusal(code, text), "{address}");
        assert_eq!(rig.denied(class), denied + 1, "{address}");
        let fits = |line: &Value| line["class"] == class && line["reason"] == text;
        assert_eq!(rig.wait_event("access_denied", fits)["code"], event_code, "{address}");
    }
    let (code, _) = wire.refused(Publish, &format!("rtmp://push.one.test/live/{long}"));
    assert_eq!(code, BAD_NAME);
    wire.started(Publish, "rtmp://push.two.test/bkt/live/c.am");
}

#[test]
fn lists_of_addresses_come_first_and_must_pass() {
    let list = |list: &str| {
        format!(
            "[domain.\"push.one.test\"]\ntype = \"push\"\n\
             [[domain.\"push.one.test\".provider]]\nscheme = \"open\"\n\
             [[domain.\"push.one.test\".provider]]\nscheme = \"ip\"\n{list}\n"
        )
    };
    for (lists, is_in) in [
        ("allow = [\"127.0.0.1\"]", true),
        ("allow = [\"10.0.0.0/8\"]", false),
        ("deny = [\"127.0.0.0/8\"]", false),
        ("deny = [\"::/0\"]", true),
    ] {
        let rig = Rig::start(plain(), &list(lists));
        let mut wire = Wire::new(rig.rtmp);
        if is_in {
            wire.started(Publish, "rtmp://push.one.test/live/cam");
        } else {
            assert_eq!(wire.refused(Publish, "rtmp://push.one.test/live/cam").0, DENIED);
            assert_eq!(rig.denied("ip"), 1, "{lists}");
        }
    }
}

#[test]
fn a_parameter_that_names_a_domain_is_judged_by_that_domain() {
    let rig = Rig::start(plain(), &settings("publishers_max = 1"));
    let mut wire = Wire::new(rig.rtmp);
    let publisher = wire.started(Publish, "rtmp://127.0.0.1/live/cam?vhost=push.one.test");
    assert_eq!(rig.counts("push.one.test"), (1, 0));
    let player = wire.started(Play, "rtmp://push.two.test/live/cam?domain=play.one.test");
    let mut source = Source::new(3);
    wire.send_headers(publisher, &source);
    wire.expect_flow(publisher, player, &mut source);
}

/// Two domains with keys of their own, and every way to name one in the address of the other.
#[test]
fn the_key_of_one_domain_opens_no_other_whichever_way_that_is_named() {
    let domain = |name: &str, key: &str| {
        format!(
            "[domain.\"push.{name}.test\"]\ntype = \"push\"\n\
             [[domain.\"push.{name}.test\".provider]]\nscheme = \"txsecret\"\nkey = {key:?}\n\
             [domain.\"play.{name}.test\"]\ntype = \"play\"\npush_domain = \"push.{name}.test\"\n"
        )
    };
    let settings = domain("one", "sesame-one") + &domain("two", "sesame-two");
    let rig = Rig::start(plain(), &settings);
    let mut wire = Wire::new(rig.rtmp);
    let query = |domain: &str| {
        let address = rig.address("publish", domain, "cam", "");
        address.split_once('?').unwrap().1.to_owned()
    };
    let (one, two) = (query("push.one.test"), query("push.two.test"));
    let ways = [
        "rtmp://push.one.test/live/cam?vhost=push.two.test&QUERY",
        "rtmp://push.one.test/live/cam?QUERY&domain=push.two.test",
        "rtmp://push.one.test/live/cam?domain=push.two.test&QUERY&domain=push.one.test",
        "rtmp://push.one.test/live...vhost...push.two.test/cam?QUERY",
        "rtmp://unknown.test/live/cam?vhost=PUSH.two.test&QUERY",
    ];
    let bad = refusal(DENIED, "denied by req auth: invalid txSecret");
    for way in ways {
        assert_eq!(wire.refused(Publish, &way.replace("QUERY", &one)), bad, "{way}");
        let publisher = wire.started(Publish, &way.replace("QUERY", &two));
        let id = json!(wire.peers[publisher].id);
        let line = rig.wait_event("publish", |line| line["conn"] == id);
        assert_eq!(line["stream"], "push.two.test/live/cam", "{way}");
        assert_eq!(rig.counts("push.one.test"), (0, 0), "{way}");
    }
}

#[test]
fn a_name_is_one_stream_in_all_apps_unless_apps_are_isolated() {
    let style = "style = \"aliyun\"";
    let shared = Rig::start(plain(), &settings(style));
    let mut wire = Wire::new(shared.rtmp);
    let publisher = wire.started(Publish, "rtmp://push.one.test/a/cam");
    let busy = refusal(BAD_NAME, "somebody publishes already");
    assert_eq!(wire.refused(Publish, "rtmp://push.one.test/b/cam"), busy);
    let player = wire.started(Play, "rtmp://play.one.test/b/cam");
    let mut source = Source::new(1);
    wire.send_headers(publisher, &source);
    wire.expect_flow(publisher, player, &mut source);
    assert_eq!(shared.counts("push.one.test"), (1, 0), "the refused one took no place");

    let isolated = Rig::start(plain(), &settings(&format!("{style}\napp_isolation = true")));
    wire.move_to(isolated.rtmp);
    let mut sources = [Source::new(1), Source::new(2)];
    let publishers =
        ["a", "b"].map(|app| wire.started(Publish, &format!("rtmp://push.one.test/{app}/cam")));
    let players =
        ["a", "b"].map(|app| wire.started(Play, &format!("rtmp://play.one.test/{app}/cam")));
    for (at, source) in sources.iter_mut().enumerate() {
        wire.send_headers(publishers[at], source);
        wire.expect_flow(publishers[at], players[at], source);
        let tag = wire.peers[players[at]].items.iter().rev().find(|i| i.is_frame()).unwrap().tag;
        assert_eq!(tag, source.tag);
    }
    assert_eq!(wire.refused(Publish, "rtmp://push.one.test/a/cam"), busy);
}

#[test]
fn the_newest_publisher_wins_in_one_style_and_is_refused_in_the_others() {
    for how in matrix(&[1, 2]) {
        for (style, vhost, takes_over) in [
            ("tencent", "reject", true),
            ("aliyun", "takeover", false),
            ("oss", "takeover", false),
            ("plain", "takeover", true),
            ("plain", "reject", false),
        ] {
            let vhost = format!("[defaults]\nduplicate_publish = \"{vhost}\"\n");
            let rig = Rig::start(how, &(settings(&format!("style = \"{style}\"")) + &vhost));
            let mut wire = Wire::new(rig.rtmp);
            let first = wire.started(Publish, "rtmp://push.one.test/live/cam");
            let player = wire.started(Play, "rtmp://play.one.test/live/cam");
            let mut source = Source::new(1);
            wire.send_headers(first, &source);
            wire.expect_flow(first, player, &mut source);
            if takes_over {
                let second = wire.started(Publish, "rtmp://push.one.test/live/cam");
                wire.until_ended(first);
                let told = &wire.peers[first].statuses;
                assert!(told.iter().any(|(code, _)| code == BAD_NAME), "{style}: {told:?}");
                let mut source = Source::new(2).starting_at(source.timestamp);
                wire.send_headers(second, &source);
                wire.expect_flow(second, player, &mut source);
            } else {
                let busy = refusal(BAD_NAME, "somebody publishes already");
                assert_eq!(wire.refused(Publish, "rtmp://push.one.test/live/cam"), busy, "{style}");
                wire.expect_flow(first, player, &mut source);
            }
            assert_eq!(rig.counts("push.one.test"), (1, 0), "{style}");
        }
    }
}

#[test]
fn domains_of_different_regions_cannot_be_linked() {
    let rig = Rig::start(plain(), "");
    let mut push = json!({"name": "push.a.test", "type": "push", "region": "shanghai",
        "provider": [{"scheme": "open"}]});
    rig.done("POST", "/api/v1/domains", &push);
    let mut play = json!({"name": "play.a.test", "type": "play", "region": "beijing",
        "push_domain": "push.a.test"});
    let (status, error) = rig.ask("POST", "/api/v1/domains", &play);
    let text = error["error"]["message"].as_str().unwrap();
    assert_eq!(status, 422, "{error}");
    assert_eq!(text, "its region \"beijing\" is not that of its push domain, \"shanghai\"");
    play["region"] = json!("shanghai");
    rig.done("POST", "/api/v1/domains", &play);
    push["region"] = json!("beijing");
    push.as_object_mut().unwrap().remove("name");
    assert_eq!(rig.ask("PUT", "/api/v1/domains/push.a.test", &push).0, 409);
    let mut wire = Wire::new(rig.rtmp);
    wire.started(Publish, "rtmp://push.a.test/live/cam");
    wire.started(Play, "rtmp://play.a.test/live/cam");
    let text = "[domain.\"a.test\"]\ntype = \"push\"\nregion = \"x\"\n\
                [[domain.\"a.test\".provider]]\nscheme = \"open\"\n\
                [domain.\"b.test\"]\ntype = \"play\"\npush_domain = \"a.test\"\n";
    let old = std::fs::read_to_string(rig.config_file()).unwrap();
    std::fs::write(rig.config_file(), old + text).unwrap();
    let (status, error) = rig.ask("POST", "/api/v1/reload", &Value::Null);
    assert_eq!(status, 422, "{error}");
    assert!(error.to_string().contains("region"), "{error}");
}

#[test]
fn domains_made_while_the_server_runs_serve_at_once_and_after_a_restart() {
    let mut rig = Rig::start(plain(), "");
    let mut wire = Wire::new(rig.rtmp);
    // Without any domain everything is open.
    let open = wire.started(Publish, "rtmp://anywhere.test/live/cam");
    let push = json!({"name": "push.a.test", "type": "push", "provider": [
        {"scheme": "txsecret", "key": crate::rig::PUSH_KEY}]});
    rig.done("POST", "/api/v1/domains", &push);
    let unknown = refusal(DENIED, "unknown domain anywhere.test");
    assert_eq!(wire.refused(Publish, "rtmp://anywhere.test/live/cam2"), unknown);
    assert!(!wire.peers[open].has_ended(), "what runs is let run");
    rig.done(
        "POST",
        "/api/v1/domains",
        &json!({"name": "play.a.test", "type": "play", "push_domain": "push.a.test"}),
    );
    let address = rig.address("publish", "push.a.test", "cam", "");
    wire.started(Publish, &address);
    rig.restart();
    wire.move_to(rig.rtmp);
    let publisher = wire.started(Publish, &address);
    let player = wire.started(Play, "rtmp://play.a.test/live/cam");
    let mut source = Source::new(1);
    wire.send_headers(publisher, &source);
    wire.expect_flow(publisher, player, &mut source);
    assert_eq!(wire.refused(Publish, "rtmp://push.a.test/live/cam").0, DENIED);
}
