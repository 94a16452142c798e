//! The same stream through one, two and four workers, and through epoll.

use crate::child::{Scratch, have};
use crate::media::{self, assert_all_frames};
use crate::playing::PUBLISH_MAX;
use crate::server::Server;
use crate::{players, publishers};

/// More players than workers, so that the kernel spreads them over the listeners.
const PLAYERS: usize = 8;

fn expect_all_frames_everywhere(flags: &[&str], ready: &[(&str, &str)]) {
    if !have(&["ffmpeg", "rtmpdump"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, flags);
    for (key, value) in ready {
        assert_eq!(server.ready(key), *value, "{key} of the ready line");
    }
    let clip = media::h264_aac();
    let url = server.url("show");
    let start = |index: usize| players::rtmpdump(&scratch, &format!("player-{index}"), &url);
    let attached: Vec<_> = (0..PLAYERS).map(start).collect();
    server.wait_players("show", PLAYERS);
    publishers::ffmpeg(&scratch, clip, &url).expect_success(PUBLISH_MAX);
    for player in attached {
        let tail = player.tail;
        assert_all_frames(&clip.packets, &player.finish(&scratch), tail);
    }
    server.expect_running();
}

#[test]
fn one_worker_serves_every_player_every_frame() {
    expect_all_frames_everywhere(&["--workers", "1"], &[("workers", "1")]);
}

#[test]
fn two_workers_serve_every_player_every_frame() {
    expect_all_frames_everywhere(&["--workers", "2"], &[("workers", "2")]);
}

#[test]
fn four_workers_serve_every_player_every_frame() {
    expect_all_frames_everywhere(&["--workers", "4"], &[("workers", "4")]);
}

#[test]
fn epoll_serves_every_player_every_frame() {
    let flags = ["--workers", "2", "--io", "epoll"];
    expect_all_frames_everywhere(&flags, &[("workers", "2"), ("io", "epoll")]);
}

#[test]
fn each_flush_policy_delivers_every_frame() {
    for policy in ["immediate", "100"] {
        expect_all_frames_everywhere(&["--workers", "2", "--flush", policy], &[]);
    }
}
