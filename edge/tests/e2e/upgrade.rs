//! The change of process under real programs: they notice nothing, and every frame arrives.

use crate::child::{Scratch, have};
use crate::media::{self, Tail, assert_all_frames};
use crate::playing::{PUBLISH_MAX, two_waiting};
use crate::publishers;
use crate::server::Server;

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
