//! Viewers over HTTP with the programs people use: FLV, fragmented MP4 and HLS, every frame compared with
//! the source.

use std::fs;

use crate::access::{CAM, EXAMPLE, Newcomer};
use crate::child::{Scratch, ffmpeg_new, have};
use crate::hls;
use crate::media::{self, Clip, assert_all_frames, assert_all_frames_by_samples};
use crate::players::{self, BARE_HEVC, Player};
use crate::playing::{PUBLISH_MAX, expect_pictures};
use crate::publishers;
use crate::rtmps::Secured;
use crate::server::Server;

/// Viewers may come long before the publisher, and who comes after it still finds its first picture in the
/// playlist.
pub(crate) const FROM_THE_START: &str =
    "[defaults]\nhttp_wait_ms = 60000\nhls_start = \"always\"\nhls_idle_ms = 60000\n";

/// A server with settings of its own.
pub(crate) fn server_with(scratch: &Scratch, settings: &str) -> Server {
    let file = scratch.file("ringcast.toml");
    fs::write(&file, settings).expect("it is ours");
    Server::start(scratch, &["--config", &file.display().to_string()])
}

/// Checks what a player got that counts milliseconds as the publisher does.
fn expect_exactly(scratch: &Scratch, clip: &Clip, player: Player) {
    let tail = player.tail;
    assert_all_frames(&clip.packets, &player.finish(scratch), tail);
}

/// Checks what a player got by way of a container that counts samples.
pub(crate) fn expect_by_samples(scratch: &Scratch, clip: &Clip, player: Player) {
    let tail = player.tail;
    assert_all_frames_by_samples(&clip.packets, &player.finish(scratch), tail);
}

#[test]
fn ffmpeg_gets_every_frame_in_every_form() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut server = server_with(&scratch, FROM_THE_START);
    let clip = media::h264_aac();
    let flv = players::ffmpeg(&scratch, "flv", &server.http_url("show.flv"));
    let mp4 = players::ffmpeg(&scratch, "mp4", &server.http_url("show.mp4"));
    server.wait_players("show", 2);
    let mut publisher = publishers::ffmpeg(&scratch, clip, &server.url("show"));
    server.wait_publisher("show");
    let ts = players::ffmpeg_hls_ts(&scratch, "ts", &server.http_url("show.m3u8?container=ts"));
    let fmp4 = players::ffmpeg_hls(&scratch, "fmp4", &server.http_url("show.m3u8"));
    let judges =
        ["show.m3u8?container=ts", "show.m3u8"].map(|file| hls::Viewer::start(server.http(), file));
    publisher.expect_success(PUBLISH_MAX);
    expect_exactly(&scratch, clip, flv);
    for player in [mp4, ts, fmp4] {
        expect_by_samples(&scratch, clip, player);
    }
    let [ts, fmp4] = judges.map(hls::Viewer::finish);
    assert!(ts.playlists > 3 && ts.parts == 0 && ts.lives.len() == 1, "{ts:?}");
    assert!(fmp4.parts > 10 && fmp4.lives.len() == 1, "{fmp4:?}");
    assert!(fmp4.multivariant.contains("RESOLUTION=320x180"), "{}", fmp4.multivariant);
    server.expect_running();
}

/// VLC as it plays, and the bytes of FLV as its access module has them.
#[test]
fn vlc_plays_flv_and_hls() {
    if !have(&["ffmpeg", "vlc"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut server = server_with(&scratch, FROM_THE_START);
    let clip = media::h264_aac();
    let dump = players::vlc_dump(&scratch, "dump", &server.http_url("show.flv"));
    let flv = players::vlc_remux(&scratch, "flv", &server.http_url("show.flv"));
    server.wait_players("show", 2);
    let mut publisher = publishers::ffmpeg(&scratch, clip, &server.url("show"));
    server.wait_publisher("show");
    let ts = players::vlc_remux(&scratch, "ts", &server.http_url("show.m3u8?container=ts"));
    let fmp4 = players::vlc_remux(&scratch, "fmp4", &server.http_url("show.m3u8"));
    publisher.expect_success(PUBLISH_MAX);
    expect_exactly(&scratch, clip, dump);
    for player in [flv, ts, fmp4] {
        expect_pictures(&scratch, clip, player);
    }
    server.expect_running();
}

#[test]
fn gstreamer_plays_flv_and_hls() {
    if !have(&["ffmpeg", "gst-launch-1.0"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut server = server_with(&scratch, FROM_THE_START);
    let clip = media::h264_aac();
    let play = |label: &str, file: &str, demux: &str| {
        players::gstreamer_http(&scratch, label, &server.http_url(file), demux)
    };
    let flv = play("flv", "show.flv", "flvdemux");
    server.wait_players("show", 1);
    let mut publisher = publishers::ffmpeg(&scratch, clip, &server.url("show"));
    server.wait_publisher("show");
    let ts = play("ts", "show.m3u8?container=ts", "hlsdemux ! tsdemux");
    let fmp4 = play("fmp4", "show.m3u8", "hlsdemux ! qtdemux");
    publisher.expect_success(PUBLISH_MAX);
    for player in [flv, ts, fmp4] {
        expect_pictures(&scratch, clip, player);
    }
    server.expect_running();
}

/// Publishes by Enhanced RTMP, and plays with the ffmpeg that knows the codecs.
fn expect_every_enhanced_frame(clip: fn() -> &'static Clip, bare: Option<&str>) {
    let ffmpeg = ffmpeg_new();
    if !have(&[&ffmpeg]) {
        return;
    }
    let clip = clip();
    let scratch = Scratch::new();
    let server = server_with(&scratch, FROM_THE_START);
    let play = |label: &str, args: &[&str]| players::ffmpeg_with(&ffmpeg, &scratch, label, args);
    let flv = play("flv", &["-i", &server.http_url("show.flv")]);
    server.wait_players("show", 1);
    let mut publisher = publishers::ffmpeg_enhanced(&scratch, clip, &server.url("show"));
    server.wait_publisher("show");
    let url = server.http_url("show.m3u8");
    let mut hls = vec![play("fmp4", &["-live_start_index", "0", "-i", &url])];
    if let Some(bare) = bare {
        let url = server.http_url("show.m3u8?container=ts");
        hls.push(play("ts", &["-live_start_index", "0", "-i", &url, "-bsf:v", bare]));
    }
    let judge = hls::Viewer::start(server.http(), "show.m3u8");
    publisher.expect_success(PUBLISH_MAX);
    assert_all_frames(&clip.packets, &flv.finish_new(&scratch), media::Tail::COMPLETE);
    for player in hls {
        let tail = player.tail;
        assert_all_frames_by_samples(&clip.packets, &player.finish_new(&scratch), tail);
    }
    judge.finish();
}

#[test]
fn hevc_and_aac_reach_viewers_of_flv_and_both_kinds_of_hls() {
    expect_every_enhanced_frame(media::hevc_aac, Some(BARE_HEVC));
}

/// MPEG-TS carries neither of them here.
#[test]
fn av1_and_opus_reach_viewers_of_flv_and_hls() {
    expect_every_enhanced_frame(media::av1_opus, None);
}

#[test]
fn ffmpeg_that_verifies_us_plays_flv_and_hls_by_https() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let secured = Secured::start_with(&scratch, FROM_THE_START);
    let clip = media::h264_aac();
    let port = secured.server.ready("rtmps").rsplit_once(':').expect("an address").1;
    let verify = secured.certs.verify();
    let play = |label: &str, file: &str| {
        let url = format!("https://localhost:{port}/live/{file}");
        let mut args: Vec<&str> = verify.iter().map(String::as_str).collect();
        args.extend(["-live_start_index", "0"].iter().filter(|_| file.ends_with("m3u8")));
        args.extend(["-i", &url]);
        players::ffmpeg_with("ffmpeg", &scratch, label, &args)
    };
    let flv = play("flv", "show.flv");
    secured.server.wait_players("show", 1);
    let mut publisher = publishers::ffmpeg(&scratch, clip, &secured.server.url("show"));
    secured.server.wait_publisher("show");
    let hls = play("hls", "show.m3u8");
    publisher.expect_success(PUBLISH_MAX);
    expect_exactly(&scratch, clip, flv);
    expect_by_samples(&scratch, clip, hls);
}

#[test]
fn signed_addresses_play_flv_and_hls_and_others_are_told_why_not() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let newcomer = Newcomer::start(&format!("{EXAMPLE}\n{FROM_THE_START}"));
    let Newcomer { scratch, server } = &newcomer;
    let clip = media::h264_aac();
    let to_push = [&["publish", "--domain", "push.example.com"], &CAM[..]].concat();
    let to_play = [&["play", "--domain", "play.example.com"], &CAM[..]].concat();
    // No name server knows the domain here: the address goes to the server, the domain into the request.
    let play = |label: &str, url: &str| {
        let (_, path) = url.split_once("/live/").expect("an app");
        let here = server.http_url(path);
        let mut args = vec!["-headers", "Host: play.example.com\r\n"];
        args.extend(["-live_start_index", "0"].iter().filter(|_| path.contains(".m3u8")));
        args.extend(["-i", &here]);
        players::ffmpeg_with("ffmpeg", scratch, label, &args)
    };
    let signed = newcomer.url_of("FLV", &to_play);
    let flv = play("flv", &signed);
    server.wait_players("cam", 1);
    let mut publisher = newcomer.publish("publisher", &newcomer.url(&to_push));
    server.wait_publisher("cam");
    let hls = play("hls", &newcomer.url_of("HLS", &to_play));
    let mut refused = play("refused", signed.split('?').next().expect("a path"));
    assert!(!refused.running.expect_end(PUBLISH_MAX).success(), "it has no signature");
    let log = fs::read_to_string(scratch.file("refused.log")).expect("it logged");
    assert!(log.contains("403"), "{log}");
    publisher.expect_success(PUBLISH_MAX);
    expect_exactly(scratch, clip, flv);
    expect_by_samples(scratch, clip, hls);
}
