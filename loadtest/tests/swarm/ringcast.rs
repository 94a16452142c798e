//! The program against Ringcast itself: hundreds of viewers of each protocol, every message accounted for.
//!
//! The server runs in a process of its own: this test program again, which then is nothing but the server.
//! Tests of hundreds of viewers take turns, since the machine is one. Nothing here judges times.

use super::{metric, run};
use clap::Parser as _;
use edge::cli::Cli;
use edge::control::notify::Notifier;
use edge::inherit::Inherited;
use edge::log;
use edge::server::{self, Setup};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Tells this program that it is the server.
const ROLE: &str = "SWARM_TEST_IS_RINGCAST";
const ITSELF: &str = "ringcast::the_server_of_these_tests";
const FLAGS: [&str; 9] = [
    "ringcast",
    "--rtmp",
    "127.0.0.1:0",
    "--http",
    "127.0.0.1:0",
    "--admin",
    "off",
    "--workers",
    "1",
];

static TURN: Mutex<()> = Mutex::new(());

/// No test: what the tests start. Without their word it does nothing.
#[test]
fn the_server_of_these_tests() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let source = Cli::parse_from(FLAGS).serve.source();
    let loaded = source.load().unwrap();
    let (log, _last_lines) = log::start(&loaded.config.log);
    let notifier = Notifier::new("", None);
    let (inherited, predecessor, program) = (Inherited::default(), None, None);
    let setup = Setup { source, loaded, log, inherited, notifier, predecessor, program };
    server::run(setup, &mut std::io::stdout(), |config, certs, events| {
        let prepared = edge::runtime::prepare_workers(config, certs, events)?;
        Ok(|rules, inherited| prepared.start(rules, inherited))
    })
    .unwrap();
}

struct Ringcast {
    child: Child,
    rtmp: SocketAddr,
    http: SocketAddr,
}

impl Ringcast {
    fn start() -> Ringcast {
        Ringcast::start_with(&[])
    }

    /// With these variables besides.
    fn start_with(variables: &[(&str, &str)]) -> Ringcast {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ITSELF, "--nocapture"])
            .env(ROLE, "1")
            .env("RINGCAST_DEFAULTS_HLS_SEGMENT_MS", "1000")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.contains("ready rtmp="));
        let ready = ready.expect("the server is ready");
        let address = |name: &str| {
            let field = ready.split_whitespace().find_map(|field| field.strip_prefix(name));
            field.unwrap().parse().unwrap()
        };
        let (rtmp, http) = (address("rtmp="), address("http="));
        // Reads to the end, so that the server never meets a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ringcast { child, rtmp, http }
    }

    fn watch(&self, scheme: &str, file: &str, flags: &str) -> Value {
        let name = file.split('.').next().unwrap();
        let flags = format!(
            "--publish --lead 1.5 --bitrate 150k --fps 15 --audio-bitrate 16k --gop 1 --check 4 \
             --publish-url rtmp://{}/live/{name} {flags}",
            self.rtmp
        );
        let (result, output) =
            run("play", &format!("{scheme}://{}/live/{file}", self.http), &flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        result
    }
}

impl Drop for Ringcast {
    fn drop(&mut self) {
        // It may have ended by itself, which a test has noticed then.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn expect_clean(result: &Value, viewers: u32, what: &str) {
    let parts = ["closes", "statuses", "notes", "metrics"].map(|part| result[part].to_string());
    let told = parts.join("\n");
    for name in ["lost", "duplicated", "reordered", "corrupt", "failed", "unmarked", "off_keyframe"]
    {
        assert_eq!(metric(result, name), 0.0, "{name} of {what}: {told}");
    }
    assert_eq!(metric(result, "joined"), f64::from(viewers), "{what}: {told}");
    assert!(metric(result, "checked") >= f64::from(viewers), "{what}: {told}");
    assert!(metric(result, "skew_ms_max") <= 2.0, "{what}: {told}");
}

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many viewers, who come within two seconds.
fn crowd(scheme: &str, file: &str, viewers: u32, flags: &str) -> Value {
    let _turn = turn();
    let ringcast = Ringcast::start();
    let rate = viewers / 2;
    let result =
        ringcast.watch(scheme, file, &format!("--players {viewers} --ramp {rate} {flags}"));
    expect_clean(&result, viewers, &format!("{viewers} of {scheme} {file}"));
    result
}

#[test]
fn every_case_of_the_corpus_is_ended_as_it_should_be() {
    let _turn = turn();
    let ringcast = Ringcast::start_with(&[
        ("RINGCAST_LIMITS_FIRST_BYTE_MS_MAX", "3000"),
        ("RINGCAST_LIMITS_HANDSHAKE_MS_MAX", "3000"),
        ("RINGCAST_LIMITS_HTTP_REQUEST_MS_MAX", "3000"),
        ("RINGCAST_DEFAULTS_IDLE_PUBLISHER_MS_MAX", "6000"),
    ]);
    let (pid, http) = (ringcast.child.id(), ringcast.http);
    let flags =
        format!("--each 1 --seconds 8 --bitrate 300k --pid {pid} --http {http} --case-seconds 25");
    let (result, output) = run("abuse", &format!("rtmp://{}/live", ringcast.rtmp), &flags);
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = lines.find(|line| line["type"] == "cases").expect("the cases are told");
    let cases = told["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 27);
    for case in cases {
        assert_eq!(case["passed"], true, "{case}");
        assert!(case["rss_bytes_after"].as_u64().unwrap() > 0, "{case}");
    }
    for name in ["lost", "corrupt", "failed"] {
        assert_eq!(metric(&result, name), 0.0, "{name}: {result}");
    }
}

#[test]
fn five_hundred_viewers_of_http_flv_get_everything() {
    crowd("http", "x.flv", 500, "--seconds 5");
}

#[test]
fn five_hundred_viewers_of_websocket_flv_get_everything() {
    crowd("ws", "x.flv", 500, "--seconds 5");
}

#[test]
fn five_hundred_viewers_of_hls_get_everything() {
    let result = crowd("http", "x.m3u8", 500, "--hls segments --seconds 8");
    assert!(metric(&result, "requests") > 500.0 * 6.0);
}

#[test]
fn a_hundred_viewers_of_low_latency_hls_get_everything() {
    let result = crowd("http", "x.m3u8", 100, "--hls parts --seconds 6");
    assert!(metric(&result, "requests") > 100.0 * 20.0);
    crowd("http", "x.m3u8", 50, "--hls hint --seconds 5");
}

#[test]
fn a_few_viewers_of_each_other_form_get_everything() {
    let _turn = turn();
    let ringcast = Ringcast::start();
    for (number, (scheme, file, flags)) in [
        ("http", "mp4", ""),
        ("ws", "mp4", ""),
        ("http", "m3u8?container=ts", "--seconds 6"),
        ("http", "flv", "--codec hvc1"),
        ("ws", "mp4", "--codec hvc1"),
        ("ws", "mp4", "--codec av01"),
        ("http", "m3u8", "--codec av01 --seconds 6"),
        ("http", "m3u8?container=ts", "--codec hvc1 --seconds 6"),
    ]
    .into_iter()
    .enumerate()
    {
        let result =
            ringcast.watch(scheme, &format!("s{number}.{file}"), &format!("--players 3 {flags}"));
        expect_clean(&result, 3, &format!("{scheme} {file} {flags}"));
    }
}

/// The short form of what README.md gives the command for hours of.
#[test]
fn a_soak_with_churn_leaves_memory_descriptors_and_latency_flat() {
    let _turn = turn();
    let ringcast = Ringcast::start();
    let flags = format!(
        "--publish --players 60 --stay 1 --bitrate 300k --fps 25 --seconds 20 --pid {}",
        ringcast.child.id()
    );
    let (result, output) = run("soak", &format!("rtmp://{}/live/soak", ringcast.rtmp), &flags);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told} {}", result["metrics"]);
    assert!(metric(&result, "left") > 600.0, "there was churn: {}", result["metrics"]);
    for name in ["rss_mb", "fds", "latency_ms"] {
        metric(&result, &format!("{name}_slope_per_h"));
    }
}

#[test]
fn segments_are_fetched_as_fast_as_they_come() {
    let _turn = turn();
    let ringcast = Ringcast::start();
    let flags = format!(
        "--publish --lead 4 --parallel 4 --bitrate 500k --gop 1 --publish-url rtmp://{}/live/x",
        ringcast.rtmp
    );
    let url = format!("http://{}/live/x.m3u8?container=ts", ringcast.http);
    let (result, output) = run("fetch", &url, &flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(metric(&result, "requests") > 100.0, "{}", result["metrics"]);
}
