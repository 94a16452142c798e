//! `ringctl url`, `usersig` and `privatemapkey` as a user runs them, without a server.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

const KEY: &str = "sesame-open-the-door";

fn ringctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringctl"))
        // A port that nothing listens on: whoever asks a server here fails.
        .args(["--admin", "127.0.0.1:1"])
        .args(arguments)
        .env_remove("RINGCAST_URL_KEY")
        .env_remove("RINGCAST_ADMIN_TOKEN")
        .output()
        .unwrap()
}

#[track_caller]
fn stdout(arguments: &[&str]) -> String {
    let output = ringctl(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn stderr(arguments: &[&str], code: i32) -> String {
    let output = ringctl(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{error}");
    error
}

const PLACE: [&str; 4] = ["--domain", "h.example.com", "--stream", "room1"];

#[test]
fn addresses_are_printed_for_people_and_as_json_without_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, format!("{KEY}\n")).unwrap();
    let file = file.to_str().unwrap();
    let signed = ["--scheme", "txsecret", "--key-file", file, "--valid", "90m"];
    let text = stdout(&[&["url", "play"], &PLACE[..], &signed[..]].concat());
    for expected in [
        "RTMP   rtmp://h.example.com/live/room1?txSecret=",
        "RTMPS  rtmps://h.example.com/live/room1?txSecret=",
        "FLV    http://h.example.com/live/room1.flv?txSecret=",
        "HLS    http://h.example.com/live/room1.m3u8?txSecret=",
        "valid until 20",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(!text.contains(KEY), "{text}");
    let text = stdout(&[&["--json", "url", "publish"], &PLACE[..], &signed[..]].concat());
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["scheme"], &answer["role"]), (&"txsecret".into(), &"publish".into()));
    assert!(answer["addresses"]["rtmp"].is_string() && answer["addresses"]["flv"].is_null());
    for (scheme, parameter) in [("aliyun", "auth_key="), ("jwt", "token="), ("open", "room1\n")] {
        let signed = ["--scheme", scheme, "--key", KEY];
        let text = stdout(&[&["url", "publish"], &PLACE[..], &signed[..]].concat());
        assert!(text.contains(parameter) && !text.contains(KEY), "{text}");
    }
    let oss = ["--scheme", "oss", "--key", KEY, "--access-key-id", "id"];
    assert!(stdout(&[&["url", "publish"], &PLACE[..], &oss[..]].concat()).contains("Signature="));
}

#[test]
fn what_is_missing_or_wrong_is_said_with_the_remedy() {
    fn url<'a>(rest: &[&'a str]) -> Vec<&'a str> {
        [&["url", "publish"], &PLACE[..], rest].concat()
    }
    for (rest, code, expected) in [
        (&["--scheme", "txsecret"][..], 1, "a key is needed: --key-file FILE, --key TEXT or RING"),
        (&["--key", KEY], 1, "a key needs --scheme"),
        (&["--scheme", "oss", "--key", KEY], 1, "needs --access-key-id"),
        (&["--scheme", "txsecret", "--key-file", "/nonexistent"], 1, "/nonexistent: No such file"),
        (&["--scheme", "open", "--valid", "12"], 0, ""),
        (&["--scheme", "open", "--valid", "soon"], 2, "write for example 30m, 12h or 1d12h"),
        (&["--scheme", "open", "--app", ""], 1, "the address has no app"),
        (&["--scheme", "md5"], 2, "possible values: open, txsecret, aliyun, oss, jwt, usersig"),
        (&[], 1, "cannot ask http://127.0.0.1:1"),
    ] {
        if code == 0 {
            stdout(&url(rest));
        } else {
            let error = stderr(&url(rest), code);
            assert!(error.contains(expected) && !error.contains(KEY), "{error}");
        }
    }
}

#[test]
fn tickets_are_made_and_checked() {
    let subject = ["--sdk-app-id", "7", "--user", "ann", "--key", KEY];
    let ticket = stdout(&[&["usersig", "gen"], &subject[..]].concat());
    let ticket = ticket.trim();
    let facts = stdout(&[&["usersig", "verify", ticket], &subject[..]].concat());
    assert!(facts.contains("ann") && facts.contains("valid"), "{facts}");
    for (changed, expected) in [
        (["--sdk-app-id", "8", "--user", "ann", "--key", KEY], "it is for the application 7"),
        (["--sdk-app-id", "7", "--user", "bob", "--key", KEY], "it is for the user ann"),
        (["--sdk-app-id", "7", "--user", "ann", "--key", "x"], "the key did not sign this ticket"),
    ] {
        let error = stderr(&[&["usersig", "verify", ticket], &changed[..]].concat(), 1);
        assert!(error.contains(expected), "{error}");
    }
    let error = stderr(&[&["privatemapkey", "verify", ticket], &subject[..]].concat(), 1);
    assert!(error.contains("no privateMapKey"), "{error}");

    let room = ["--room", "1234", "--rights", "0xab"];
    let key = stdout(&[&["privatemapkey", "gen"], &subject[..], &room[..]].concat());
    let key = key.trim();
    let facts = stdout(&[&["privatemapkey", "verify", key], &subject[..]].concat());
    assert!(facts.contains("1234") && facts.contains("0xab"), "{facts}");
    let other = [&["privatemapkey", "verify", key], &subject[..], &["--room", "1235"]].concat();
    assert!(stderr(&other, 1).contains("it is for the room 1234"));
    assert!(
        stderr(&[&["usersig", "verify", key], &subject[..]].concat(), 1).contains("no UserSig")
    );
    let over = ["--room", "1", "--rights", "256"];
    let error = stderr(&[&["privatemapkey", "gen"], &subject[..], &over[..]].concat(), 2);
    assert!(error.contains("rights are 0..=255"), "{error}");
}
