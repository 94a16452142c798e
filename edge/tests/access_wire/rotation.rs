//! A change of keys while publishers and players come all the time: nobody with a good address is refused.

use rtmp::session::ClientRole::{Play, Publish};
use serde_json::json;

use crate::peer::Wire;
use crate::rig::{PLAY_KEY, PUSH_KEY, Rig, plain};
use crate::support::media::Source;
use crate::support::server::matrix;

const STEPS: [&str; 3] = ["add", "switch", "retire"];

/// Lets `count` players and publishers in with these addresses.
fn come(
    wire: &mut Wire,
    publisher: usize,
    source: &mut Source,
    addresses: &[String],
    count: usize,
) {
    for n in 0..count {
        let player = wire.started(Play, &addresses[n % addresses.len()]);
        wire.expect_flow(publisher, player, source);
        wire.leave(player);
    }
}

#[test]
fn keys_change_without_a_moment_in_which_a_good_address_is_refused() {
    for how in matrix(&[2]) {
        for scheme in ["txsecret", "aliyun_a"] {
            rotate(how, scheme);
        }
    }
}

fn rotate(how: crate::support::server::How, scheme: &str) {
    let rig = Rig::start(how, "");
    let push = json!({"name": "push.k.test", "type": "push", "style": "aliyun",
        "provider": [{"scheme": scheme, "key": PUSH_KEY}]});
    let play = json!({"name": "play.k.test", "type": "play", "push_domain": "push.k.test",
        "provider": [{"scheme": scheme, "key": PLAY_KEY}]});
    rig.done("POST", "/api/v1/domains", &push);
    rig.done("POST", "/api/v1/domains", &play);
    let mut wire = Wire::new(rig.rtmp);
    let publisher = wire.started(Publish, &rig.address("publish", "push.k.test", "cam", ""));
    let mut source = Source::new(1);
    wire.send_headers(publisher, &source);
    let old = rig.address("play", "play.k.test", "cam", "");
    let first = wire.started(Play, &old);
    let mut good = vec![old.clone()];
    for step in STEPS {
        come(&mut wire, publisher, &mut source, &good, 6);
        if step == "retire" {
            // By now everybody has an address of the new key: what was handed out after the switch.
            good.drain(..good.len() - 1);
        }
        let mut body = json!({"scheme": scheme, "step": step});
        if step == "add" {
            body["key"] = json!("sesame-of-play-two");
        }
        // Players ask before, while and after the change takes place.
        let asking: Vec<usize> = (0..16).map(|n| wire.play(&good[n % good.len()])).collect();
        wire.turn();
        rig.done("POST", "/api/v1/domains/play.k.test/keys", &body);
        let after: Vec<usize> = (0..16).map(|n| wire.play(&good[n % good.len()])).collect();
        for &player in asking.iter().chain(&after) {
            assert_eq!(wire.answer(player), crate::peer::Answer::Started, "{scheme} {step}");
            wire.leave(player);
        }
        let handed_out = rig.address("play", "play.k.test", "cam", "");
        come(&mut wire, publisher, &mut source, std::slice::from_ref(&handed_out), 1);
        good.push(handed_out);
    }
    come(&mut wire, publisher, &mut source, &good[1..], 4);
    let (_, text) = wire.refused(Play, &old);
    assert!(text.starts_with("denied by req auth: invalid "), "{text}");
    wire.expect_flow(publisher, first, &mut source);
    assert!(rig.events("access_denied").iter().all(|line| line["code"] == 503));
    assert_eq!(rig.denied("bad_hash"), 1, "{scheme}: only the retired key was refused");
}

#[test]
fn keys_in_files_change_with_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, key: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("{key}\n")).unwrap();
        path.display().to_string()
    };
    let (one, two) = (file("one", "sesame-one"), file("two", "sesame-two"));
    let domains = |keys: &str| {
        format!(
            "[domain.\"push.k.test\"]\ntype = \"push\"\n\
             [[domain.\"push.k.test\".provider]]\nscheme = \"txsecret\"\n{keys}\n\
             [domain.\"play.k.test\"]\ntype = \"play\"\npush_domain = \"push.k.test\"\n"
        )
    };
    let rig = Rig::start(plain(), &domains(&format!("key_file = {one:?}")));
    let text = std::fs::read_to_string(rig.config_file()).unwrap();
    let head = text.split("[domain").next().unwrap().to_owned();
    let mut wire = Wire::new(rig.rtmp);
    let old = rig.address("publish", "push.k.test", "cam", "");
    wire.started(Publish, &old);
    let mut new = String::new();
    for (keys, is_old_good) in [
        (format!("key_file = {one:?}\nbackup_key_file = {two:?}"), true),
        (format!("key_file = {two:?}\nbackup_key_file = {one:?}"), true),
        (format!("key_file = {two:?}"), false),
    ] {
        std::fs::write(rig.config_file(), head.clone() + &domains(&keys)).unwrap();
        rig.done("POST", "/api/v1/reload", &serde_json::Value::Null);
        if is_old_good {
            wire.started(Publish, &old);
        } else {
            let text = "denied by req auth: invalid txSecret";
            assert_eq!(wire.refused(Publish, &old).1, text, "{keys}");
        }
        if !new.is_empty() {
            wire.started(Publish, &new);
        }
        new = rig.address("publish", "push.k.test", "cam", "");
        wire.started(Publish, &new);
    }
}
