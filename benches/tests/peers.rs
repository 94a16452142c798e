//! The comparison itself, with a server and a load generator of a few lines: which rows it makes, what
//! it asks of the generator, and what it says when something is missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with two programs: one says that it is ready and waits, the other notes its flags and
/// writes a result.
struct Made(tempfile::TempDir);

/// What the made generator measures of everything.
const RESULT: &str = r#"{"metrics": {
 "cpu_s_per_gb": 0.5, "cpu_percent_per_1000": 16, "cpu_percent_total": 16,
 "server_cpu_percent": 15, "ksoftirqd_percent": 1, "own_cpu_percent_max": OWN,
 "joined": JOINED, "bitrate_kbps_p1": 2600, "latency_before_ms_p99": 1.5,
 "latency_during_ms_p99": 2.5, "storm_first_keyframe_ms_p99": 9, "tls_ms_p99": 3,
 "requests": 10, "received_bytes": 65000, "requests_per_core_s": 900, "published": 3,
 "glass_to_glass_ms_p99": 800},
 "samples": [
 {"playing": 5, "steady": true, "publishing": 20, "seconds": 1, "latency_ms_p99": 2,
  "flush_widened_ms": 8, "server_cpu_percent": 10, "own_cpu_percent": [10, 20]},
 {"playing": 9, "steady": true, "publishing": 20, "seconds": 1, "latency_ms_p99": 3,
  "server_cpu_percent": 10, "own_cpu_percent": [10, 20]}],
 "notes": []}"#;

impl Made {
    fn new(ready: &str, own_cpu: u32) -> Made {
        let made = Made(tempfile::tempdir().unwrap());
        made.program("ringcast", &format!("echo '{ready}'\nexec sleep 60\n"));
        let result = RESULT.replace("OWN", &own_cpu.to_string());
        fs::write(made.path("result"), result).unwrap();
        let body = "here=$(dirname \"$0\")\necho \"$*\" >>\"$here/asked\"\njoined=0\nfor flag; do\n\
                    case $flag in\n--players=*|--storm=*) joined=$((joined + ${flag#*=})) ;;\n\
                    --out) out=next ;;\n*) [ \"$out\" != next ] || out=$flag ;;\nesac\ndone\n\
                    sed \"s/JOINED/$joined/\" \"$here/result\" >\"$out\"\n";
        made.program("swarm", body);
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, body: &str) {
        let file = self.path(name);
        fs::write(&file, format!("#!/bin/sh\n{body}")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn compare(&self, flags: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peers"));
        let programs = [("--ringcast", "ringcast"), ("--swarm", "swarm"), ("--out", "out.toml")];
        for (flag, name) in programs {
            command.arg(flag).arg(self.path(name));
        }
        command.args(["--no-nginx", "--cpus", "0,0", "--worker-cpus", "0,0"]);
        command.args(flags.split_whitespace()).output().unwrap()
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.path("asked")).unwrap()
    }

    fn results(&self) -> toml::Table {
        read_table(&self.path("out.toml"))
    }
}

fn read_table(file: &Path) -> toml::Table {
    fs::read_to_string(file).unwrap().parse().unwrap()
}

const READY: &str =
    "ready rtmp=127.0.0.1:7 rtmps=127.0.0.1:8 http=127.0.0.1:10 admin=127.0.0.1:9 workers=1";

#[test]
fn the_short_form_has_a_row_of_every_mode() {
    let made = Made::new(READY, 20);
    let output = made.compare("--smoke --flush frame");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let results = made.results();
    let first = ["players", "fan_in", "storm", "stalled", "capacity", "ramp", "scaling", "rtmps"];
    let viewers = ["http", "hls", "ll-hls", "packaging"];
    for mode in first.into_iter().chain(viewers) {
        let rows = results[mode].as_array().unwrap();
        assert!(!rows.is_empty() && rows.iter().all(|row| row.get("error").is_none()), "{mode}");
    }
    for fact in ["cpu", "kernel", "commit", "command"] {
        assert!(!results["machine"][fact].as_str().unwrap().is_empty(), "{fact}");
    }
    assert_eq!(results["storm"][0]["during_ms_p99"].as_float(), Some(2.5));
    assert_eq!(results["storm"][0]["storm_joined"].as_float(), Some(20.0));
    assert_eq!(results["scaling"].as_array().unwrap().len(), 2);
    assert_eq!(results["scaling"][0]["generator_cpu_percent"].as_float(), Some(30.0));
    assert_eq!(results["ramp"][1]["load"].as_integer(), Some(9));
    assert_eq!(results["rtmps"][0]["tls_ms_p99"].as_float(), Some(3.0));
    assert_eq!(results["capacity"][0]["load"].as_integer(), Some(20));
    let number = |mode: &str, line: usize, name: &str| results[mode][line][name].as_float();
    assert_eq!(number("http", 1, "cpu_x_rtmp"), Some(1.0));
    assert_eq!(number("hls", 0, "kb_per_request"), Some(6.5));
    assert_eq!(number("ll-hls", 1, "glass_to_glass_ms_p99"), Some(800.0));
    assert_eq!(number("packaging", 2, "packaging_percent_per_stream"), Some(0.0));
}

#[test]
fn each_mode_asks_the_generator_for_its_load() {
    let made = Made::new(READY, 20);
    made.compare("--only storm,stalled,ramp,rtmps --players 30 --rounds 1 --watchers 400");
    let asked = made.asked();
    let line = |word: &str| asked.lines().find(|line| line.contains(word)).unwrap_or_default();
    let storm = line("--storm=2000");
    for flag in ["--players=40 ", "--bitrate=8000000", "--gop=4", "--lead=5", "--disturb-for=3"] {
        assert!(storm.contains(flag), "{flag}: {storm}");
    }
    assert!(line("--stalled=1").contains("--players=400 "), "{asked}");
    assert!(asked.contains("--metrics=http://127.0.0.1:9/metrics"), "{asked}");
    let secure = line("rtmps://127.0.0.1:8/live");
    assert!(secure.contains("--insecure") && secure.contains("--players=30 "), "{asked}");
}

#[test]
fn viewers_over_http_publish_by_rtmp() {
    let made = Made::new(READY, 20);
    made.compare("--only http,hls,ll-hls,packaging --players 30 --rounds 1 --watchers 400");
    let asked = made.asked();
    let line = |word: &str| asked.lines().find(|line| line.contains(word)).unwrap_or_default();
    for (word, flags) in [
        ("--url http://127.0.0.1:10/live/x.flv", "--players=30 "),
        ("--url ws://127.0.0.1:10/live/x.flv", "--publish-url=rtmp://127.0.0.1:7/live/x"),
        ("--hls=hint", "--url http://127.0.0.1:10/live/x.m3u8"),
        ("fetch", "--parallel=16 --publish"),
        ("--streams=50", "publish"),
    ] {
        assert!(line(word).contains(flags), "{word}: {asked}");
    }
}

#[test]
fn a_row_whose_players_are_the_limit_says_so() {
    let made = Made::new(READY, 99);
    let output =
        made.compare("--only players,storm,capacity --players 10 --rounds 1 --flush frame");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("| 99 (limit) |"), "{text}");
    assert_eq!(text.matches("the player side is the bottleneck").count(), 2, "{text}");
    let results = made.results();
    assert_eq!(results["storm"][0]["player_side_is_bottleneck"].as_bool(), Some(true));
}

#[test]
fn what_a_server_does_not_serve_is_a_failure_with_its_name() {
    let made = Made::new("ready rtmp=127.0.0.1:7 rtmps=off http=off admin=off workers=1", 20);
    let output = made.compare("--only rtmps --players 10 --rounds 1");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("ringcast rtmps user space: does not serve rtmps"), "{errors}");
    // The plain row beside it is there all the same.
    let results = made.results();
    let rows = results["rtmps"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["server"].as_str() == Some("ringcast frame")), "{rows:?}");
}
