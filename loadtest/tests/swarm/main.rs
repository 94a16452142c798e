//! The program against a small server over real sockets: what it reports of a good one, and whether
//! it finds what a bad one does.

mod http;
mod ringcast;
mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use support::secure::front;
use support::{Fault, serve};

/// A run that lasts about a second and a half, and how it ended.
fn swarm(command: &str, addr: SocketAddr, flags: &str) -> (Value, Output) {
    run(command, &format!("rtmp://{addr}/live"), flags)
}

fn run(command: &str, url: &str, flags: &str) -> (Value, Output) {
    let output = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args([command, "--url", url, "--json", "--cpus", "none", "--seconds", "1"])
        .args(flags.split_whitespace())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let result: Value = serde_json::from_str(last)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(result["type"], "final");
    (result, output)
}

const WATCH: &str = "--publish --lead 0.3 --players 5 --ramp 0 --check 1 --bitrate 500k";

fn watch(fault: Fault, flags: &str) -> (Value, Output) {
    swarm("play", serve(fault), &format!("{WATCH} {flags}"))
}

fn metric(result: &Value, name: &str) -> f64 {
    let value = &result["metrics"][name];
    value.as_f64().unwrap_or_else(|| panic!("no {name} in {}", result["metrics"]))
}

#[test]
fn a_good_server_gets_a_clean_report() {
    for io in ["auto", "epoll"] {
        let (result, output) = watch(Fault::None, &format!("--io {io}"));
        assert!(output.status.success());
        for name in ["lost", "duplicated", "reordered", "corrupt", "failed", "unmarked"] {
            assert_eq!(metric(&result, name), 0.0, "{name} with {io}");
        }
        for name in ["skew_ms_max", "off_keyframe", "publisher_skipped"] {
            assert_eq!(metric(&result, name), 0.0, "{name} with {io}");
        }
        assert_eq!((metric(&result, "joined"), metric(&result, "published")), (5.0, 1.0));
        assert!(metric(&result, "checked") > 100.0);
        for name in ["connect", "handshake", "play_start", "first_byte", "first_keyframe"] {
            assert!(metric(&result, &format!("{name}_ms_p99")) > 0.0, "{name}");
        }
        assert!(metric(&result, "latency_ms_p50") > 0.0);
        assert!(metric(&result, "latency_audio_ms_p50") > 0.0);
        assert_eq!(result["statuses"]["NetStream.Play.Start"], 5);
    }
}

#[test]
fn the_latency_of_keyframes_is_told_apart() {
    let (result, _) = watch(Fault::None, "--gop 0.25");
    let times = |name: &str| -> f64 {
        let points = result["histograms"][name].as_array().unwrap();
        points.iter().map(|point| point[1].as_f64().unwrap()).sum()
    };
    let (all, keyframes) = (times("latency_ms"), times("latency_keyframe_ms"));
    // Four a second for each of five players, who see most of a second.
    assert!((5.0..=25.0).contains(&keyframes) && keyframes < all / 3.0, "{keyframes} of {all}");
    assert!(metric(&result, "latency_keyframe_ms_max") <= metric(&result, "latency_ms_max"));
}

#[test]
fn media_made_before_the_join_is_not_taken_for_delay() {
    // Players get up to 300 ms of old media at once; only what is made later counts.
    let (result, _) = watch(Fault::None, "--gop 10");
    let messages = metric(&result, "messages");
    let judged: f64 = ["latency_ms", "latency_audio_ms"]
        .into_iter()
        .flat_map(|name| result["histograms"][name].as_array().unwrap())
        .map(|point| point[1].as_f64().unwrap())
        .sum();
    assert!(judged < messages - 5.0 * 20.0, "{judged} of {messages}");
}

#[test]
fn lost_messages_are_counted() {
    let (result, _) = watch(Fault::Drops, "");
    let lost = metric(&result, "lost");
    assert!((10.0..=25.0).contains(&lost), "{lost}");
    assert_eq!(metric(&result, "duplicated") + metric(&result, "reordered"), 0.0);
}

#[test]
fn repeated_messages_are_counted() {
    let (result, _) = watch(Fault::Repeats, "");
    assert!(metric(&result, "duplicated") >= 10.0);
    assert_eq!(metric(&result, "lost"), 0.0);
}

#[test]
fn messages_out_of_order_are_counted_and_not_lost() {
    let (result, _) = watch(Fault::Swaps, "");
    assert!(metric(&result, "reordered") >= 10.0);
    // One may be under way at the end for each player.
    assert!(metric(&result, "lost") <= 5.0);
}

#[test]
fn damaged_messages_are_found_when_looked_for() {
    let (result, _) = watch(Fault::Damages, "");
    assert!(metric(&result, "corrupt") >= 100.0);
    let (result, _) = watch(Fault::Damages, "--check 0");
    assert_eq!(metric(&result, "checked"), 0.0);
}

#[test]
fn audio_moved_against_video_is_skew() {
    let (result, _) = watch(Fault::Skews, "");
    let skew_ms = metric(&result, "skew_ms_p50");
    assert!((skew_ms - 120.0).abs() < 1.0, "{skew_ms}");
}

#[test]
fn a_stream_that_stops_is_a_stall_of_every_player() {
    let (result, _) = watch(Fault::Stops, "--buffer-ms 100");
    assert_eq!(metric(&result, "stalled_players"), 5.0);
    assert!(metric(&result, "stall_percent") > 5.0);
    let (result, _) = watch(Fault::None, "--buffer-ms 900");
    assert_eq!(metric(&result, "stalled_players"), 0.0);
}

#[test]
fn a_missed_objective_is_exit_code_1_and_named() {
    let (_, output) = watch(Fault::Drops, "--slo lost<=0,p99_latency<60s");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("missed: lost<=0") && !errors.contains("p99_latency"), "{errors}");
}

#[test]
fn a_refused_player_says_why() {
    let (result, _) = swarm("play", serve(Fault::None), "--players 3");
    assert_eq!(result["closes"]["player: refused: NetStream.Play.StreamNotFound"], 3);
    assert_eq!((metric(&result, "failed"), metric(&result, "joined")), (3.0, 0.0));
}

#[test]
fn viewers_come_and_go_during_churn() {
    let flags = "--publish --lead 0.3 --rate 40 --stay 0.2 --bitrate 500k";
    let (result, output) = swarm("churn", serve(Fault::None), flags);
    assert!(output.status.success());
    // The last is due 25 ms before the end, which this may miss; none comes beside the plan.
    assert!((35.0..=41.0).contains(&metric(&result, "started")), "{}", metric(&result, "started"));
    assert!(metric(&result, "left") >= 20.0);
    assert!(metric(&result, "players_max") < 30.0);
}

/// The server of these tests lives in their process, so that is what leaks.
#[test]
fn a_soak_finds_a_leak_of_descriptors() {
    let flags = format!("{WATCH} --seconds 14 --pid {}", std::process::id());
    let leaking = Arc::new(Mutex::new(Vec::new()));
    let (leak, is_over) = (Arc::clone(&leaking), Arc::new(AtomicBool::new(false)));
    let until = Arc::clone(&is_over);
    let thread = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            leak.lock().unwrap().push(std::fs::File::open("/dev/null").unwrap());
            std::thread::sleep(std::time::Duration::from_millis(40));
        }
    });
    let (result, output) = swarm("soak", serve(Fault::None), &flags);
    is_over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told} {}", result["metrics"]);
    assert!(told.contains("fds grows by"), "{told}");
}

#[test]
fn witnesses_of_abuse_are_looked_after() {
    let flags = "--each 3 --only garbage,silent,slow-handshake,tiny-chunks --bitrate 500k";
    let (result, output) = swarm("abuse", serve(Fault::None), flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(result["hostile"]["garbage: closed by the server"], 3);
    assert_eq!(result["hostile"]["silent: open at the end"], 3);
    let (_, output) = swarm("abuse", serve(Fault::Drops), flags);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn several_streams_have_an_audience_each() {
    let (result, _) = watch(Fault::None, "--streams 3 --popularity zipf:1 --codec hvc1");
    assert_eq!((metric(&result, "published"), metric(&result, "joined")), (3.0, 5.0));
    assert_eq!(metric(&result, "lost") + metric(&result, "unmarked"), 0.0);
}

#[test]
fn a_join_storm_is_told_apart_from_those_who_watch() {
    let flags = "--storm 20 --disturb-at 0.5 --disturb-for 0.2 --seconds 2";
    let (result, output) = watch(Fault::None, flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((metric(&result, "joined"), metric(&result, "failed")), (25.0, 0.0));
    assert!(metric(&result, "storm_first_keyframe_ms_p99") > 0.0);
    let count = |name: &str| -> f64 {
        let points = result["histograms"][name].as_array().into_iter().flatten();
        points.map(|point| point[1].as_f64().unwrap()).sum()
    };
    assert_eq!((count("storm_first_keyframe_ms"), count("first_keyframe_ms")), (20.0, 5.0));
    // Five watch 30 pictures a second for 1.3 s, 25 would see 900: who came in the storm is no witness.
    let after = count("latency_after_ms");
    assert!((1.0..=225.0).contains(&after), "{after}");
    assert!(count("latency_during_ms") > 0.0);
}

#[test]
fn viewers_that_stall_are_no_failure_of_those_who_watch() {
    let (result, output) = watch(Fault::None, "--stalled 3 --disturb-at 0.2");
    assert!(output.status.success());
    assert_eq!(result["hostile"]["never-reads: opened"], 3);
    assert_eq!((metric(&result, "joined"), metric(&result, "failed")), (5.0, 0.0));
}

#[test]
fn ramps_bring_everybody_whatever_their_shape() {
    for shape in ["linear", "step:2", "poisson"] {
        let (result, _) = watch(Fault::None, &format!("--ramp 100 --ramp-shape {shape}"));
        assert_eq!(metric(&result, "joined"), 5.0, "{shape}");
    }
}

#[test]
fn connections_come_from_the_addresses_they_are_told_to() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let noted = Arc::clone(&seen);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            noted.lock().unwrap().insert(client.peer_addr().unwrap().ip().to_string());
        }
    });
    swarm("play", addr, "--players 6 --ramp 0 --sources 127.0.7.1-127.0.7.3");
    let seen: Vec<String> = seen.lock().unwrap().iter().cloned().collect();
    assert_eq!(seen, ["127.0.7.1", "127.0.7.2", "127.0.7.3"]);
}

#[test]
fn a_server_that_takes_nothing_blocks_its_publisher() {
    let flags = "--bitrate 400M --audio-bitrate 0 --fps 60";
    let (result, _) = swarm("publish", serve(Fault::Deaf), flags);
    assert!(metric(&result, "publisher_blocked_percent") > 50.0);
    assert!(metric(&result, "publisher_blocked_ms_max") > 100.0);
    let (result, _) = swarm("publish", serve(Fault::None), "--bitrate 500k");
    assert!(metric(&result, "publisher_blocked_percent") < 50.0);
}

#[test]
fn rtmps_is_published_and_played_like_rtmp() {
    let front = front(serve(Fault::None), 2);
    let url = format!("rtmps://{}/live", front.addr);
    for trust in ["--insecure".to_owned(), format!("--ca {} --tls-resume", front.ca().display())] {
        let (result, output) = run("play", &url, &format!("{WATCH} --lead 1.5 {trust}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((metric(&result, "joined"), metric(&result, "published")), (5.0, 1.0));
        for name in ["lost", "corrupt", "failed", "unmarked"] {
            assert_eq!(metric(&result, name), 0.0, "{name}");
        }
        assert_eq!(metric(&result, "tls_full") + metric(&result, "tls_resumed"), 6.0);
        assert!(metric(&result, "tls_ms_p50") > 0.0);
    }
}

#[test]
fn a_certificate_nobody_vouches_for_is_a_named_failure() {
    let front = front(serve(Fault::None), 2);
    let url = format!("rtmps://{}/live", front.addr);
    let ca = front.ca();
    for flags in [String::new(), format!("--ca {} --tls-name other.test", ca.display())] {
        let (result, _) = run("play", &url, &format!("--players 2 {flags}"));
        let closes = result["closes"].as_object().unwrap();
        assert!(closes.keys().all(|reason| reason.starts_with("player: tls: ")), "{closes:?}");
        assert_eq!((metric(&result, "failed"), metric(&result, "joined")), (2.0, 0.0));
    }
}

#[test]
fn handshakes_are_counted_full_and_resumed() {
    let front = self::front(serve(Fault::None), 2);
    let url = format!("rtmps://{}/live", front.addr);
    let flags = "--insecure --parallel 4";
    let (result, output) = run("tls", &url, flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for kind in ["tls_full", "tls_resumed"] {
        assert!(metric(&result, &format!("{kind}_per_s")) > 1.0, "{kind}");
    }
    assert!(metric(&result, "tls_resumed_ms_p50") > 0.0);
    let (result, _) = run("tls", &url, &format!("{flags} --handshake full"));
    assert_eq!(metric(&result, "tls_resumed"), 0.0);
    let without = self::front(serve(Fault::None), 0);
    let (result, _) = run("tls", &format!("rtmps://{}/live", without.addr), flags);
    assert_eq!(metric(&result, "tls_resumed"), 0.0);
    let notes = result["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note == "the server let no session be resumed"), "{notes:?}");
}

#[test]
fn results_can_be_written_drawn_and_compared() {
    let folder = std::env::temp_dir().join(format!("swarm-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (file, plot) = (folder.join("a.json"), folder.join("a.svg"));
    watch(Fault::None, &format!("--out {} --plot {}", file.display(), plot.display()));
    assert!(std::fs::read_to_string(&plot).unwrap().starts_with("<svg"));
    let output = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args([std::ffi::OsStr::new("compare"), file.as_os_str(), file.as_os_str()])
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    let line = table.lines().find(|line| line.starts_with("latency_ms_p99")).unwrap();
    assert!(line.ends_with("1.000"), "{line}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_done_is_a_clear_usage_error() {
    for (flags, word) in [
        ("tls", "no address of TLS"),
        ("play --url ftp://127.0.0.1/live", "unknown scheme"),
        ("play --url http://127.0.0.1/live/x", "no stream"),
        ("play --url ws://127.0.0.1/live/x.m3u8", "not sent by WebSocket"),
        ("play --publish-url http://127.0.0.1/live/x.flv", "use rtmp"),
        ("play --publish-url rtmp://192.0.2.1/live", "--i-own-this-network"),
        ("abuse --url http://127.0.0.1/live/x.flv", "speak RTMP"),
        ("fetch --url rtmp://127.0.0.1/live", "no http:// address"),
        ("play --insecure", "need an rtmps://"),
        ("play --url rtmps://127.0.0.1/live --ca /nowhere", "/nowhere"),
        ("play --url rtmps://127.0.0.1/live --tls-name a/b", "no host name"),
        ("play --sources here", "expected addresses"),
        ("play --disturb-at 3", "need --storm or --stalled"),
        ("play --storm 3 --disturb-at 30", "over by then"),
        ("play --url rtmp://192.0.2.1/live", "--i-own-this-network"),
        ("abuse --url rtmp://192.0.2.1/live", "--i-own-this-network"),
        ("play --slo latency", "expected NAME<VALUE"),
        ("play --pid 4294967295", "no such process"),
        ("play --players 0", "--players"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarm"));
        let output = command.args(flags.split_whitespace()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags}: {errors}");
        assert!(errors.contains(word), "{flags}: {errors}");
    }
}
