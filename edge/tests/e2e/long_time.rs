//! Streams that have run for hours, days and weeks: their timestamps pass 24, 31 and 32 bits while real
//! players watch, and nobody notices.
//!
//! `first_timestamp_ms` lets a stream begin two seconds before the edge, so that it lies in the middle of
//! the clip: 4.7 hours, 24.9 days and 49.7 days after the stream's beginning.

use crate::child::{Scratch, have};
use crate::hls;
use crate::http::{FROM_THE_START, expect_by_samples, server_with};
use crate::media::{self, assert_all_frames};
use crate::players::{self, Player};
use crate::playing::{PUBLISH_MAX, expect_pictures};
use crate::publishers;

/// From the stream's first message to the edge, in milliseconds; the clip lasts 6 s.
const BEFORE_MS: u32 = 2_000;

/// Every player watches a stream pass `edge_ms`, a number of milliseconds that wraps at 32 bits.
fn expect_unnoticed(edge_ms: u32) {
    if !have(&["ffmpeg", "rtmpdump", "vlc", "gst-launch-1.0"]) {
        return;
    }
    let scratch = Scratch::new();
    let first_ms = edge_ms.wrapping_sub(BEFORE_MS);
    let settings = format!("{FROM_THE_START}first_timestamp_ms = {first_ms}\n");
    let mut server = server_with(&scratch, &settings);
    let clip = media::h264_aac();
    let (rtmp, flv) = (server.url("show"), server.http_url("show.flv"));
    let exact: [Player; 6] = [
        players::ffmpeg(&scratch, "ffmpeg", &rtmp),
        players::rtmpdump(&scratch, "rtmpdump", &rtmp),
        players::vlc_dump(&scratch, "vlc", &rtmp),
        players::gstreamer(&scratch, "gstreamer", &rtmp),
        players::ffmpeg(&scratch, "flv-ffmpeg", &flv),
        players::vlc_dump(&scratch, "flv-vlc", &flv),
    ];
    let shown = players::vlc_remux(&scratch, "shown", &rtmp);
    server.wait_players("show", 7);
    let mut publisher = publishers::ffmpeg(&scratch, clip, &rtmp);
    server.wait_publisher("show");
    let ts = players::ffmpeg_hls_ts(&scratch, "ts", &server.http_url("show.m3u8?container=ts"));
    let fmp4 = players::ffmpeg_hls(&scratch, "fmp4", &server.http_url("show.m3u8"));
    let judges =
        ["show.m3u8?container=ts", "show.m3u8"].map(|file| hls::Viewer::start(server.http(), file));
    publisher.expect_success(PUBLISH_MAX);
    // It writes what it hears.
    let heard = exact[1].file.clone();
    for player in exact {
        let tail = player.tail;
        assert_all_frames(&clip.packets, &player.finish(&scratch), tail);
    }
    let times = tag_times(&std::fs::read(heard).expect("it was read before"));
    let steps = times.windows(2).filter(|pair| {
        let before_ms = edge_ms.wrapping_sub(pair[0]);
        (1..100).contains(&before_ms) && pair[1].wrapping_sub(edge_ms) < 100
    });
    assert!(steps.count() > 0, "the edge was passed: {times:?}");
    for player in [ts, fmp4] {
        expect_by_samples(&scratch, clip, player);
    }
    for judge in judges {
        assert_eq!(judge.finish().lives.len(), 1, "no discontinuity");
    }
    expect_pictures(&scratch, clip, shown);
    server.expect_running();
}

/// Timestamps of the tags of an FLV file.
fn tag_times(file: &[u8]) -> Vec<u32> {
    let (mut times, mut rest) = (Vec::new(), file.get(13..).unwrap_or_default());
    while let [_, l2, l1, l0, t2, t1, t0, t3, ..] = rest {
        times.push(u32::from_be_bytes([*t3, *t2, *t1, *t0]));
        let bytes = 11 + u32::from_be_bytes([0, *l2, *l1, *l0]) as usize + 4;
        rest = rest.get(bytes..).unwrap_or_default();
    }
    times
}

#[test]
fn no_player_notices_that_timestamps_pass_24_bits() {
    expect_unnoticed(1 << 24);
}

#[test]
fn no_player_notices_that_timestamps_pass_31_bits() {
    expect_unnoticed(1 << 31);
}

#[test]
fn no_player_notices_that_timestamps_pass_32_bits() {
    expect_unnoticed(0);
}
