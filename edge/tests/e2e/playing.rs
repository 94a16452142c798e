//! Every player gets every frame, from the start and in mid-stream.

use std::time::Duration;

use crate::child::{Program, Scratch, have};
use crate::media::{self, Clip, Packets, assert_all_frames, assert_run_from_keyframe};
use crate::players::{self, Player};
use crate::publishers;
use crate::server::Server;

/// A clip of a few seconds is published in its own duration.
pub(crate) const PUBLISH_MAX: Duration = Duration::from_secs(30);

/// Starts ffmpeg and rtmpdump, which wait for the publisher of `stream`.
pub(crate) fn two_waiting(scratch: &Scratch, server: &Server, stream: &str) -> [Player; 2] {
    let url = server.url(stream);
    let players = [
        players::ffmpeg(scratch, "player-ffmpeg", &url),
        players::rtmpdump(scratch, "player-rtmpdump", &url),
    ];
    server.wait_players(stream, 2);
    players
}

/// Publishes the everyday clip to one player that waits for it, and checks what it got.
fn expect_all_frames(start: impl Fn(&Scratch, &str, &str) -> Player) {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &[]);
    let clip = media::h264_aac();
    let url = server.url("show");
    let player = start(&scratch, "player", &url);
    server.wait_players("show", 1);
    publishers::ffmpeg(&scratch, clip, &url).expect_success(PUBLISH_MAX);
    let tail = player.tail;
    assert_all_frames(&clip.packets, &player.finish(&scratch), tail);
    server.expect_running();
}

/// Lets one player join the everyday clip after its second keyframe, and checks what it got.
fn expect_run_from_keyframe(start: impl Fn(&Scratch, &str, &str) -> Player) {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let clip = media::h264_aac();
    let url = server.url("show");
    let mut publisher = publishers::ffmpeg(&scratch, clip, &url);
    server.wait_uptime("show", 1_500);
    server.wait_pictures(40);
    let player = start(&scratch, "late", &url);
    publisher.expect_success(PUBLISH_MAX);
    let tail = player.tail;
    let received = player.finish(&scratch);
    let start = assert_run_from_keyframe(&clip.packets, &received, tail);
    assert!(start >= media::GOP_FRAMES, "it did not get what was over before the newest keyframe");
}

#[test]
fn ffmpeg_that_waits_for_the_publisher_gets_every_frame() {
    if have(&["ffmpeg"]) {
        expect_all_frames(players::ffmpeg);
    }
}

#[test]
fn rtmpdump_that_waits_for_the_publisher_gets_every_frame() {
    if have(&["ffmpeg", "rtmpdump"]) {
        expect_all_frames(players::rtmpdump);
    }
}

#[test]
fn gstreamer_that_waits_for_the_publisher_gets_every_frame() {
    if have(&["ffmpeg", "gst-launch-1.0"]) {
        expect_all_frames(players::gstreamer);
    }
}

#[test]
fn vlc_that_waits_for_the_publisher_gets_every_frame() {
    if have(&["ffmpeg", "vlc"]) {
        expect_all_frames(players::vlc_dump);
    }
}

#[test]
fn vlc_demuxes_and_decodes_the_pictures_that_were_published() {
    if !have(&["ffmpeg", "vlc"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let clip = media::h264_aac();
    let url = server.url("show");
    let player = players::vlc_remux(&scratch, "player", &url);
    server.wait_players("show", 1);
    publishers::ffmpeg(&scratch, clip, &url).expect_success(PUBLISH_MAX);
    expect_pictures(&scratch, clip, player);
}

/// Waits for a player's end, and checks the pictures it shows.
pub(crate) fn expect_pictures(scratch: &Scratch, clip: &Clip, player: Player) {
    let Player { mut running, file, tail } = player;
    running.expect_end(players::PLAYER_END_MAX);
    let name = file.file_name().expect("a file").display().to_string();
    let shown = picture_hashes(scratch, &format!("{name}-shown"), &file);
    let published = picture_hashes(scratch, &format!("{name}-published"), &clip.path);
    // Its muxer may throw the first group of pictures away while it waits for audio, and the last ones
    // when the input ends. What is between is whole and in order.
    let start = published.iter().position(|picture| shown.first() == Some(picture));
    let start = start.unwrap_or_else(|| panic!("{name}: the first picture shown was published"));
    assert!(start.is_multiple_of(media::GOP_FRAMES) && start <= media::GOP_FRAMES, "{start}");
    let sure = published.len() - start - tail.missing_max;
    assert!(shown.len() >= sure, "{name}: {} pictures shown", shown.len());
    assert_eq!(shown[..sure], published[start..start + sure], "{name}");
}

/// MD5 of every decoded picture. Decoding H.264 is exact, so the container does not matter.
fn picture_hashes(scratch: &Scratch, label: &str, file: &std::path::Path) -> Vec<String> {
    let text = Program::new("ffmpeg", scratch, label)
        .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-i"])
        .arg(file)
        .args(["-map", "0:v", "-vsync", "passthrough", "-f", "framemd5", "-"])
        .output(PUBLISH_MAX);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(',')?.1.trim().to_owned())).collect()
}

#[test]
fn ffplay_shows_the_stream_and_ends_with_it() {
    if !have(&["ffmpeg", "ffplay"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let url = server.url("show");
    let mut player = players::ffplay(&scratch, "ffplay", &url);
    server.wait_players("show", 1);
    publishers::ffmpeg(&scratch, media::h264_aac(), &url).expect_success(PUBLISH_MAX);
    player.expect_success(players::PLAYER_END_MAX);
    let log = std::fs::read_to_string(scratch.file("ffplay.log")).expect("it logged");
    assert!(log.contains("Video: h264"), "ffplay recognised the video: {log}");
    assert!(log.contains("Audio: aac"), "ffplay recognised the audio: {log}");
}

#[test]
fn ffmpeg_that_joins_in_mid_stream_starts_at_a_keyframe() {
    if have(&["ffmpeg"]) {
        expect_run_from_keyframe(players::ffmpeg);
    }
}

#[test]
fn rtmpdump_that_joins_in_mid_stream_starts_at_a_keyframe() {
    if have(&["ffmpeg", "rtmpdump"]) {
        expect_run_from_keyframe(players::rtmpdump);
    }
}

#[test]
fn gstreamer_that_joins_in_mid_stream_starts_at_a_keyframe() {
    if have(&["ffmpeg", "gst-launch-1.0"]) {
        expect_run_from_keyframe(players::gstreamer);
    }
}

#[test]
fn vlc_that_joins_in_mid_stream_starts_at_a_keyframe() {
    if have(&["ffmpeg", "vlc"]) {
        expect_run_from_keyframe(players::vlc_dump);
    }
}

#[test]
fn keyframes_larger_than_a_chunk_arrive_whole() {
    if !have(&["ffmpeg", "rtmpdump"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let clip = media::h264_large();
    let largest = clip.packets.video.iter().map(|packet| packet.bytes).max();
    assert!(largest > Some(128 * 1024), "the clip has large frames: {largest:?}");
    let url = server.url("large");
    let first = players::ffmpeg(&scratch, "player-ffmpeg", &url);
    let second = players::rtmpdump(&scratch, "player-rtmpdump", &url);
    server.wait_players("large", 2);
    publishers::ffmpeg(&scratch, clip, &url).expect_success(PUBLISH_MAX);
    for player in [first, second] {
        let tail = player.tail;
        assert_all_frames(&clip.packets, &player.finish(&scratch), tail);
    }
}

#[test]
fn gstreamer_publishes_and_no_frame_is_lost() {
    if !have(&["ffmpeg", "gst-launch-1.0", "rtmpdump"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let clip = media::h264_aac();
    let url = server.url("gst");
    let first = players::ffmpeg(&scratch, "player-ffmpeg", &url);
    let second = players::rtmpdump(&scratch, "player-rtmpdump", &url);
    server.wait_players("gst", 2);
    publishers::gstreamer(&scratch, clip, &url).expect_success(PUBLISH_MAX);
    // flvmux makes its own timestamps, so the payloads are compared with the source and the
    // timestamps between two players.
    let (first, second) = (first.finish(&scratch), second.finish(&scratch));
    for received in [&first, &second] {
        assert_eq!(received.video_hashes(), clip.packets.video_hashes());
        // Audio that flvmux put before the first keyframe is not part of the stream.
        let (published, audio) = (clip.packets.audio_hashes(), received.audio_hashes());
        assert!(published.ends_with(&audio) && audio.len() + 2 >= published.len(), "{audio:?}");
    }
    assert_same_steps(&first, &second);
}

fn assert_same_steps(first: &Packets, second: &Packets) {
    let steps = |packets: &Packets| -> Vec<i64> {
        packets.video.windows(2).map(|pair| pair[1].pts_ms - pair[0].pts_ms).collect()
    };
    assert_eq!(steps(first), steps(second));
}
