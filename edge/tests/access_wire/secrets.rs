//! Keys and what is signed with them, at the most talkative level, through `ringctl` too. What each test of
//! this program makes the server write is searched by [`crate::rig::Rig`] at its end.

use std::process::Command;

use rtmp::session::ClientConfig;
use rtmp::session::ClientRole::{Play, Publish};
use serde_json::json;

use crate::peer::{Answer, Wire};
use crate::rig::{KEY_MARK, PLAY_KEY, PUSH_KEY, Rig, plain};
use crate::support::media::Source;

#[test]
fn at_the_most_talkative_level_no_key_and_no_good_parameter_is_written() {
    let rig = Rig::start(plain(), "[log]\nlevel = \"trace\"\n");
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("key");
    std::fs::write(&key_file, PUSH_KEY).unwrap();
    let key_file = key_file.to_str().unwrap();
    let mut said = String::new();
    let mut ringctl = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringctl"))
            .args(["--admin", &rig.admin.to_string()])
            .args(arguments)
            .output()
            .unwrap();
        said += &String::from_utf8_lossy(&output.stdout);
        said += &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    let (push, play) = ("push.s.test", "play.s.test");
    let keyed = ["--scheme", "txsecret", "--send-key-file", key_file];
    ringctl(&[&["domain", "make", push, "--type", "push"], &keyed[..]].concat());
    let play_spec = json!({"name": play, "type": "play", "push_domain": push, "provider": [
        {"scheme": "aliyun_a", "key": PLAY_KEY},
        {"scheme": "usersig", "sdk_app_id": 1_400_000_001, "key": PUSH_KEY}]});
    rig.done("POST", "/api/v1/domains", &play_spec);
    let (publish, watch) =
        (rig.address("publish", push, "cam", ""), rig.address("play", play, "cam", ""));
    ringctl(&["domain", "list"]);
    ringctl(&["domain", "show", push]);
    ringctl(&["domain", "keys", push, "--scheme", "txsecret", "add", "--key-file", key_file]);
    ringctl(&["url", "publish", "--domain", push, "--app", "live", "--stream", "cam"]);
    let mut wire = Wire::new(rig.rtmp);
    let publisher = wire.started(Publish, &publish);
    let player = wire.started(Play, &watch);
    let mut source = Source::new(1);
    wire.send_headers(publisher, &source);
    wire.expect_flow(publisher, player, &mut source);
    // The same parameters in every place clients put them.
    let query = publish.split_once('?').unwrap().1;
    for (host, app, stream, is_good) in [
        ("push.s.test", format!("live?{query}"), "cam".to_owned(), true),
        ("push.s.test", format!("live/cam?{query}"), String::new(), true),
        ("push.s.test", "live".to_owned(), format!("cam#{query}"), true),
        ("push.s.test", "live".to_owned(), format!("cam?x=1&{query}&y=%00"), true),
        ("push.s.test", "live".to_owned(), format!("other?{query}"), false),
        ("other.s.test", "live".to_owned(), format!("cam?{query}"), false),
        ("push.s.test", "live".to_owned(), format!("c\u{7f}?{query}"), false),
    ] {
        let tc_url = format!("rtmp://{host}/{app}");
        let role = Publish;
        let peer = wire.open_as(ClientConfig { tc_url, app, stream, role, ..<_>::default() });
        assert_eq!(wire.answer(peer) == Answer::Started, is_good, "{host}");
    }
    // Whoever publishes now is the last that was let in.
    let publisher = (0..wire.peers.len()).rev().find(|&at| {
        wire.peers[at].role == Publish && wire.peers[at].answer == Some(Answer::Started)
    });
    let publisher = publisher.expect("some were let in");
    ringctl(&["forbid", "push.s.test/cam", "--for", "10m", "--reason", "because"]);
    wire.until_ended(publisher);
    ringctl(&["bans"]);
    ringctl(&["resume", "push.s.test/cam"]);
    ringctl(&["domain", "remove", play]);
    assert!(!said.contains(KEY_MARK), "{said}");
}
