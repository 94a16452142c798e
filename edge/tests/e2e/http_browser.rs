//! Viewers over HTTP in a browser: the players that pages use, headless Chromium's own, and Media Source
//! by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mux::playlist::validate;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::browser;
use crate::child::{Scratch, ffmpeg_new, have};
use crate::http::{FROM_THE_START, server_with};
use crate::media;
use crate::publishers;
use crate::server::Server;

/// Chromium's own player gives up on a playlist that runs out before it has a few segments, so that streams
/// are of some age when it comes, and segments short.
const SHORT_SEGMENTS: &str = "hls_segment_ms = 1000\n";
const AGE_MS: u64 = 4_000;
/// A dozen players in a browser that shares its processors.
const SCENARIO_MAX: Duration = Duration::from_secs(120);

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/pages/drive.mjs")
}

/// Every way a page plays a stream.
fn players(server: &Server, stream: &str) -> Vec<Value> {
    let http = |rest: &str| server.http_url(&format!("{stream}.{rest}"));
    let ws = |rest: &str| http(rest).replacen("http", "ws", 1);
    let player = |name: &str, player: &str, url: String| {
        let name = format!("{stream} {name}");
        // A browser opens six connections to a host and no more, so that each player has a host for itself.
        let host: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let url = url.replacen("127.0.0.1", &format!("{host}.example.com"), 1);
        json!({"name": name, "player": player, "url": url})
    };
    vec![
        player("mpegts.js flv", "mpegts", http("flv")),
        player("mpegts.js flv by WebSocket", "mpegts", ws("flv")),
        player("hls.js ts", "hls", http("m3u8?container=ts")),
        player("hls.js fmp4", "hls-whole", http("m3u8")),
        player("hls.js low latency", "hls", http("m3u8")),
        player("Media Source", "mse", ws("mp4")),
        player("Chromium", "native", http("m3u8")),
    ]
}

/// Every playlist the players read is judged.
fn judge_playlists(folder: &Path) {
    let files = fs::read_dir(folder).expect("the driver made it").flatten();
    let texts: Vec<String> =
        files.map(|file| fs::read_to_string(file.path()).expect("text")).collect();
    for text in &texts {
        let is_media = text.contains("#EXT-X-TARGETDURATION");
        let findings = if is_media { validate::media(text) } else { validate::multivariant(text) };
        assert_eq!(findings, [], "{text}");
    }
    assert!(texts.len() > 10, "{} playlists were read", texts.len());
}

#[test]
fn pages_play_in_every_way() {
    if !browser::is_ready() {
        return;
    }
    let scratch = Scratch::new();
    let server = server_with(&scratch, &format!("{FROM_THE_START}{SHORT_SEGMENTS}"));
    let clip = media::h264_aac();
    let _cam = publishers::ffmpeg_looping(&scratch, "cam", clip, &[], &server.url("cam"));
    // Milliseconds pass 24 bits after twelve seconds, when the players are there.
    let late = ["-output_ts_offset", "16765"];
    let _late = publishers::ffmpeg_looping(&scratch, "late", clip, &late, &server.url("late"));
    let _sound =
        publishers::ffmpeg_looping(&scratch, "sound", clip, &["-vn"], &server.url("sound"));
    for stream in ["cam", "late", "sound"] {
        server.wait_uptime(stream, AGE_MS);
    }
    let mut wanted = players(&server, "cam");
    for player in &mut wanted {
        player["seconds"] = 3.into();
    }
    for mut player in players(&server, "late").into_iter().skip(1).step_by(3) {
        player["seconds"] = 3.into();
        wanted.push(player);
    }
    for mut player in players(&server, "sound").into_iter().step_by(4) {
        player["seconds"] = 2.into();
        player["sound"] = true.into();
        wanted.push(player);
    }
    let folder = scratch.file("playlists");
    let wanted = json!({"players": wanted, "playlists": folder});
    let output = browser::drive(&scratch, &script(), "play", &wanted, SCENARIO_MAX);
    eprintln!("{output}");
    judge_playlists(&folder);
}

/// Media Source and hls.js take other codecs behind a change. mpegts.js and Chromium's own HLS say that they
/// cannot, so that a page can load the stream anew.
#[test]
fn pages_play_on_or_say_so_when_the_codecs_change() {
    if !browser::is_ready() || !have(&[&ffmpeg_new()]) {
        return;
    }
    let (clip, other) = (media::h264_aac(), media::av1_opus_other_size());
    let scratch = Scratch::new();
    let server =
        server_with(&scratch, &format!("{FROM_THE_START}{SHORT_SEGMENTS}grace_ms = 60000\n"));
    let url = server.url("cam");
    let mut lost = publishers::ffmpeg_looping(&scratch, "first", clip, &[], &url);
    server.wait_uptime("cam", AGE_MS);
    let mut wanted = players(&server, "cam");
    // MPEG-TS carries neither AV1 nor Opus.
    wanted.retain(|player| !player["url"].as_str().is_some_and(|url| url.contains("container=ts")));
    for player in &mut wanted {
        player["seconds"] = 1.into();
        player["height"] = 360.into();
        player["gives_up"] = matches!(player["player"].as_str(), Some("mpegts" | "native")).into();
    }
    let folder = scratch.file("playlists");
    let wanted = json!({"players": wanted, "playlists": folder});
    let mut playing = browser::start(&scratch, &script(), "codecs", &wanted, SCENARIO_MAX);
    playing.wait_step("all play");
    server.wait_amid_group("cam");
    lost.signal(Signal::KILL);
    lost.expect_end(SCENARIO_MAX);
    server.wait_no_publisher("cam");
    playing.wait_step("all wait");
    let _again = publishers::ffmpeg_looping_enhanced(&scratch, "second", other, &url);
    eprintln!("{}", playing.finish());
    judge_playlists(&folder);
}

/// With the sound alone offered beside it the picture is what plays: hls.js leaves a variant without pictures
/// aside where there are others, and plays it where it is all it is given.
#[test]
fn pages_show_the_picture_where_the_sound_alone_is_offered() {
    if !browser::is_ready() {
        return;
    }
    let scratch = Scratch::new();
    let settings = format!("{FROM_THE_START}{SHORT_SEGMENTS}hls_audio_only = true\n");
    let server = server_with(&scratch, &settings);
    let clip = media::h264_aac();
    let _cam = publishers::ffmpeg_looping(&scratch, "cam", clip, &[], &server.url("cam"));
    server.wait_uptime("cam", AGE_MS);
    let mut wanted = players(&server, "cam");
    wanted.retain(|player| player["url"].as_str().is_some_and(|url| url.contains("m3u8")));
    let alone: Vec<Value> = wanted
        .iter()
        .filter(|player| player["player"] != "native")
        .map(|player| {
            let mut alone = player.clone();
            let url = player["url"].as_str().expect("it has one");
            let mark = if url.contains('?') { '&' } else { '?' };
            // Each player has a host for itself.
            let url = url.replacen(".example.com", "sound.example.com", 1);
            alone["url"] = format!("{url}{mark}rendition=audio").into();
            alone["name"] = format!("{}, sound", player["name"].as_str().expect("named")).into();
            alone["sound"] = true.into();
            alone
        })
        .collect();
    for player in &mut wanted {
        // No picture, no success.
        player["height"] = 180.into();
    }
    wanted.extend(alone);
    for player in &mut wanted {
        player["seconds"] = 2.into();
    }
    let folder = scratch.file("playlists");
    let wanted = json!({"players": wanted, "playlists": folder});
    let output = browser::drive(&scratch, &script(), "sound", &wanted, SCENARIO_MAX);
    eprintln!("{output}");
    judge_playlists(&folder);
    let texts = fs::read_dir(&folder).expect("the driver made it").flatten();
    let texts: Vec<String> =
        texts.map(|file| fs::read_to_string(file.path()).expect("text")).collect();
    assert!(texts.iter().any(|text| text.contains("#EXT-X-RENDITION-REPORT")));
}

#[test]
fn pages_play_on_when_the_publisher_returns_with_another_size() {
    if !browser::is_ready() {
        return;
    }
    let (clip, other) = (media::h264_aac(), media::h264_other_size());
    let scratch = Scratch::new();
    // A busy browser takes its time to notice.
    let server =
        server_with(&scratch, &format!("{FROM_THE_START}{SHORT_SEGMENTS}grace_ms = 60000\n"));
    let url = server.url("cam");
    let mut lost = publishers::ffmpeg_looping(&scratch, "first", clip, &[], &url);
    server.wait_uptime("cam", AGE_MS);
    let mut wanted = players(&server, "cam");
    for player in &mut wanted {
        player["seconds"] = 1.into();
        player["height"] = 360.into();
    }
    let folder = scratch.file("playlists");
    let wanted = json!({"players": wanted, "playlists": folder});
    let mut playing = browser::start(&scratch, &script(), "change", &wanted, SCENARIO_MAX);
    playing.wait_step("all play");
    // mpegts.js keeps one picture back, and those it reads together with the metadata of the next stream. A
    // keyframe among them comes out of it behind the next headers, and cannot be decoded.
    server.wait_amid_group("cam");
    lost.signal(Signal::KILL);
    lost.expect_end(SCENARIO_MAX);
    server.wait_no_publisher("cam");
    playing.wait_step("all wait");
    let _again = publishers::ffmpeg_looping(&scratch, "second", other, &[], &url);
    eprintln!("{}", playing.finish());
    judge_playlists(&folder);
}
