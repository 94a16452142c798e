//! Publishers that vanish and return, and the server's own end.

use std::time::Duration;

use rustix::process::Signal;

use crate::child::{Scratch, have};
use crate::media::{self, Packets, Tail, assert_all_frames};
use crate::playing::{PUBLISH_MAX, two_waiting};
use crate::server::Server;
use crate::{players, publishers};

#[test]
fn player_goes_on_when_a_killed_publisher_returns_within_grace() {
    if !have(&["ffmpeg", "rtmpdump"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &[]);
    let clip = media::h264_aac();
    let url = server.url("show");
    let players = two_waiting(&scratch, &server, "show");

    let mut lost = publishers::ffmpeg(&scratch, clip, &url);
    server.wait_uptime("show", 2_000);
    server.wait_pictures(50);
    lost.signal(Signal::KILL);
    lost.expect_end(PUBLISH_MAX);
    server.wait_no_publisher("show");
    server.wait_players("show", 2);

    publishers::ffmpeg_again(&scratch, clip, &url).expect_success(PUBLISH_MAX);
    for player in players {
        assert_two_lives(&clip.packets, &player.finish(&scratch));
    }
    server.expect_running();
}

/// A beginning of the source, then all of the source, on one timeline that never steps back.
pub(crate) fn assert_two_lives(source: &Packets, received: &Packets) {
    let keyframe = &source.video[0].hash;
    let seam = received.video.iter().skip(1).position(|packet| packet.hash == *keyframe);
    let seam = 1 + seam.expect("the source began a second time");
    assert!(seam > media::GOP_FRAMES, "more than a second of the first life was received");
    let seam_ms = received.video[seam].dts_ms;
    for (index, packet) in received.video[..seam].iter().enumerate() {
        assert_eq!(packet.hash, source.video[index].hash, "frame {index} of the first life");
    }
    let is_second_life = |packet: &&media::Packet| packet.dts_ms >= seam_ms;
    let second = Packets {
        video: received.video[seam..].to_vec(),
        audio: received.audio.iter().filter(is_second_life).cloned().collect(),
    };
    assert_all_frames(source, &second, Tail::COMPLETE);
    for (name, track) in [("video", &received.video), ("audio", &received.audio)] {
        let steps_back = track.windows(2).filter(|pair| pair[1].dts_ms < pair[0].dts_ms).count();
        assert_eq!(steps_back, 0, "{name} never steps back");
    }
}

#[test]
fn termination_ends_players_cleanly() {
    if !have(&["ffmpeg", "rtmpdump"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &[]);
    let clip = media::h264_aac();
    let url = server.url("show");
    let player = players::rtmpdump(&scratch, "player", &url);
    server.wait_players("show", 1);
    let mut publisher = publishers::ffmpeg(&scratch, clip, &url);
    server.wait_uptime("show", 1_500);
    server.terminate(Duration::from_secs(30));
    publisher.expect_end(PUBLISH_MAX);
    let received = player.finish(&scratch);
    let source = &clip.packets;
    assert!(received.video.len() > media::GOP_FRAMES, "frames arrived before the end");
    let cut = Tail { missing_max: source.audio.len() };
    assert_all_frames(source, &received, cut);
}
