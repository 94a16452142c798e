//! The change of process under real programs: they notice nothing, and every frame arrives.

use crate::child::{Scratch, have};
use crate::hls;
use crate::http::{FROM_THE_START, expect_by_samples, server_with};
use crate::media::{self, Tail, assert_all_frames};
use crate::playing::{PUBLISH_MAX, two_waiting};
use crate::rtmps::Secured;
use crate::server::Server;
use crate::{players, publishers};

#[test]
fn two_upgrades_in_mid_stream_are_not_seen_by_encoder_and_players() {
    if !have(&["ffmpeg", "rtmpdump"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &[]);
    let clip = media::h264_aac();
    let url = server.url("show");
    let players = two_waiting(&scratch, &server, "show");
    let mut publisher = publishers::ffmpeg(&scratch, clip, &url);
    for uptime_ms in [1_000, 2_500] {
        server.wait_uptime("show", uptime_ms);
        server.upgrade();
        server.wait_players("show", 2);
        server.wait_publisher("show");
    }
    publisher.expect_success(PUBLISH_MAX);
    for player in players {
        assert_all_frames(&clip.packets, &player.finish(&scratch), Tail::COMPLETE);
    }
}

#[test]
fn two_upgrades_are_not_seen_over_tls_and_by_viewers_over_http() {
    if !have(&["ffmpeg", "rtmpdump"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut secured = Secured::start_with(&scratch, "[defaults]\nhttp_wait_ms = 60000\n");
    let clip = media::h264_aac();
    let https = secured.url.replace("rtmps://", "https://");
    let verify = secured.certs.verify();
    let mut by_https: Vec<&str> = verify.iter().map(String::as_str).collect();
    let flv_by_https = format!("{https}.flv");
    by_https.extend(["-i", &flv_by_https]);
    let players = [
        secured.play(&scratch, "player-tls"),
        players::rtmpdump_tls_1_2(&scratch, "player-tls-1-2", &secured.url),
        players::ffmpeg(&scratch, "player-flv", &secured.server.http_url("show.flv")),
        players::ffmpeg_with("ffmpeg", &scratch, "player-https", &by_https),
    ];
    let mp4 = players::ffmpeg(&scratch, "player-mp4", &secured.server.http_url("show.mp4"));
    secured.server.wait_players("show", 5);
    let mut publisher = secured.publish(&scratch, clip);
    for uptime_ms in [1_000, 2_500] {
        secured.server.wait_uptime("show", uptime_ms);
        secured.server.upgrade();
        secured.server.wait_players("show", 5);
        secured.server.wait_publisher("show");
    }
    publisher.expect_success(PUBLISH_MAX);
    for player in players {
        let tail = player.tail;
        assert_all_frames(&clip.packets, &player.finish(&scratch), tail);
    }
    expect_by_samples(&scratch, clip, mp4);
}

#[test]
fn two_upgrades_are_not_seen_by_viewers_of_hls() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut server = server_with(&scratch, FROM_THE_START);
    let clip = media::h264_aac();
    let mut publisher = publishers::ffmpeg(&scratch, clip, &server.url("show"));
    server.wait_publisher("show");
    let ts = players::ffmpeg_hls_ts(&scratch, "ts", &server.http_url("show.m3u8?container=ts"));
    let fmp4 = players::ffmpeg_hls(&scratch, "fmp4", &server.http_url("show.m3u8"));
    let judges =
        ["show.m3u8?container=ts", "show.m3u8"].map(|file| hls::Viewer::start(server.http(), file));
    for uptime_ms in [1_000, 2_500] {
        server.wait_uptime("show", uptime_ms);
        server.upgrade();
        server.wait_publisher("show");
    }
    publisher.expect_success(PUBLISH_MAX);
    for player in [ts, fmp4] {
        expect_by_samples(&scratch, clip, player);
    }
    // Every segment was there, no playlist had a seam, and parts were given on both sides of the change.
    let [ts, fmp4] = judges.map(hls::Viewer::finish);
    assert_eq!((ts.lives.len(), fmp4.lives.len()), (1, 1), "{ts:?} {fmp4:?}");
    assert!(fmp4.parts > 10, "{fmp4:?}");
}
