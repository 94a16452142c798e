//! Codecs beyond H.264 and AAC, as Enhanced RTMP carries them.

use crate::child::{Scratch, ffmpeg_new, have};
use crate::media::{self, Clip, assert_all_frames};
use crate::playing::PUBLISH_MAX;
use crate::server::Server;
use crate::{players, publishers};

/// Publishes a clip with the newer ffmpeg to itself and to rtmpdump, which knows none of the codecs.
fn expect_all_frames(clip: fn() -> &'static Clip) {
    if !have(&[&ffmpeg_new(), "rtmpdump"]) {
        return;
    }
    let clip = clip();
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let url = server.url("show");
    let knowing = players::ffmpeg_enhanced(&scratch, "player-ffmpeg", &url);
    let unknowing = players::rtmpdump(&scratch, "player-rtmpdump", &url);
    server.wait_players("show", 2);
    publishers::ffmpeg_enhanced(&scratch, clip, &url).expect_success(PUBLISH_MAX);
    for player in [knowing, unknowing] {
        let tail = player.tail;
        assert_all_frames(&clip.packets, &player.finish_new(&scratch), tail);
    }
}

#[test]
fn hevc_and_aac_pass_unchanged() {
    expect_all_frames(media::hevc_aac);
}

#[test]
fn av1_and_opus_pass_unchanged() {
    expect_all_frames(media::av1_opus);
}

#[test]
fn late_player_of_hevc_starts_at_a_keyframe() {
    if !have(&[&ffmpeg_new()]) {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let clip = media::hevc_aac();
    let url = server.url("show");
    let mut publisher = publishers::ffmpeg_enhanced(&scratch, clip, &url);
    server.wait_uptime("show", 1_300);
    server.wait_pictures(40);
    let player = players::ffmpeg_enhanced(&scratch, "late", &url);
    publisher.expect_success(PUBLISH_MAX);
    let tail = player.tail;
    let received = player.finish_new(&scratch);
    let start = media::assert_run_from_keyframe(&clip.packets, &received, tail);
    assert!(start >= media::GOP_FRAMES, "it did not get what was over before the newest keyframe");
}
