//! The operator's console in a browser: real server, real streams, headless Chromium driven by
//! `console/drive.mjs`; and its types and rules, which need no browser.
//!
//! `tools/console-tools` installs the driver and the type checker.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge::access::Role;
use edge::access::secret::SecretText;
use edge::address::{Order, Ports, Signer, generate};
use serde_json::{Value, json};

use crate::browser;
use crate::child::{Program, Running, Scratch, have};
use crate::media;
use crate::players;
use crate::publishers;
use crate::server::Server;

/// A scenario is a dozen steps in a browser that shares its processors.
const SCENARIO_MAX: Duration = Duration::from_secs(150);
const CHECK_MAX: Duration = Duration::from_secs(60);
const CUT_MAX: Duration = Duration::from_secs(20);
const TOKEN: &str = "a-token-of-the-console-test";
const PLAY_KEY: &str = "sesame-of-the-console";

const DOMAINS: &str = r#"
[domain."push.example.com"]
type = "push"
[[domain."push.example.com".provider]]
scheme = "open"

[domain."play.example.com"]
type = "play"
push_domain = "push.example.com"
[[domain."play.example.com".provider]]
scheme = "aliyun_a"
key_file = "KEY"
"#;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("console")
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/console")
}

/// Plays a scenario to its end.
fn drive(scratch: &Scratch, server: &Server, scenario: &str, wanted: Value) {
    let mut wanted = wanted;
    wanted["console"] = format!("http://{}/", server.ready("admin")).into();
    browser::drive(scratch, &scripts().join("drive.mjs"), scenario, &wanted, SCENARIO_MAX);
}

/// The everyday clip again and again, as a live stream.
fn publish(scratch: &Scratch, options: &[&str], url: &str) -> Running {
    publishers::ffmpeg_looping(scratch, "publisher", media::h264_aac(), options, url)
}

#[test]
fn the_types_of_the_console_are_right() {
    let Some(tools) = browser::tools() else { return };
    let scratch = Scratch::new();
    let (status, output) = Program::new("node", &scratch, "tsc")
        .arg(tools.join("node_modules/typescript/bin/tsc"))
        .arg("--project")
        .arg(sources())
        .ended_output(CHECK_MAX);
    assert!(status.success(), "{output}");
}

#[test]
fn the_rules_of_the_console_are_as_they_should_be() {
    if !have(&["node"]) {
        return;
    }
    let scratch = Scratch::new();
    Program::new("node", &scratch, "rules")
        .arg("--test")
        .arg(scripts().join("rules.test.mjs"))
        .start()
        .expect_success(CHECK_MAX);
}

#[test]
fn a_published_stream_is_listed_and_played_and_every_view_fits_a_phone_and_a_keyboard() {
    if !browser::is_ready() {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let _publisher = publish(&scratch, &[], &server.url("cam"));
    server.wait_uptime("cam", 1_500);
    drive(&scratch, &server, "watch", json!({"stream": "cam", "hls": true}));
    drive(&scratch, &server, "shapes", json!({"stream": "cam"}));
}

#[test]
fn an_operator_kicks_a_viewer_and_forbids_and_resumes_a_stream() {
    if !browser::is_ready() {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let mut publisher = publish(&scratch, &[], &server.url("cam"));
    server.wait_publisher("cam");
    let mut player = players::ffmpeg(&scratch, "player", &server.url("cam"));
    server.wait_players("cam", 1);
    drive(&scratch, &server, "kick", json!({"stream": "cam"}));
    player.running.expect_end(CUT_MAX);
    drive(&scratch, &server, "forbid", json!({"stream": "cam"}));
    publisher.expect_end(CUT_MAX);
    drop(publisher);
    let _again = publish(&scratch, &[], &server.url("cam"));
    server.wait_publisher("cam");
}

#[test]
fn a_signed_address_plays_and_an_expired_one_shows_its_reason() {
    if !browser::is_ready() {
        return;
    }
    let scratch = Scratch::new();
    let (file, key) = (scratch.file("ringcast.toml"), scratch.file("play.key"));
    fs::write(&key, PLAY_KEY).expect("it is ours");
    fs::write(&file, DOMAINS.replace("KEY", &key.display().to_string())).expect("it is ours");
    let server = Server::start(&scratch, &["--config", &file.display().to_string()]);
    let tc_url = ["-rtmp_tcurl", "rtmp://push.example.com/live"];
    let _publisher = publish(&scratch, &tc_url, &server.url("cam"));
    server.wait_publisher("cam");

    let http = server.ready("http").rsplit_once(':').expect("a port").1.parse().expect("a port");
    let signer = Signer::Aliyun { key: SecretText::new(PLAY_KEY).expect("a key"), validity_s: 0 };
    let order = Order {
        role: Role::Play,
        domain: "play.example.com",
        app: "live",
        stream: "cam",
        ports: Ports { http: Some(http), ..Ports::default() },
        unix_s: 1_700_000_000,
        valid_s: Some(60),
    };
    let expired =
        generate(&signer, &order).expect("it can be signed").mp4.expect("it is for playing");
    let wanted = json!({"stream": "cam", "expired": expired, "reason": "expired"});
    drive(&scratch, &server, "signed", wanted);
}

#[test]
fn a_server_with_a_token_asks_for_it() {
    if !browser::is_ready() {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.file("ringcast.toml");
    fs::write(&file, format!("[admin]\ntoken = \"{TOKEN}\"\n")).expect("it is ours");
    let server = Server::start(&scratch, &["--config", &file.display().to_string()]);
    drive(&scratch, &server, "token", json!({"token": TOKEN}));
}

#[test]
fn the_level_of_the_memory_budget_is_shown_with_what_is_shed() {
    if !browser::is_ready() {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.file("ringcast.toml");
    // No process is as small as that: every step is in force from the first look on.
    fs::write(&file, "[limits]\nmemory_bytes_max = 1048576\n").expect("it is ours");
    let file = file.display().to_string();
    let server = Server::start(&scratch, &["--config", &file]);
    drive(&scratch, &server, "memory", json!({"level": 5, "file": file}));
}
