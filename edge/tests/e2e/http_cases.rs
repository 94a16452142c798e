//! Viewers over HTTP where the stream is not the everyday one: joined late, published again, changed, of
//! long ago, without pictures, without keyframes.

use rustix::process::Signal;

use crate::child::{Scratch, ffmpeg_new, have};
use crate::hls;
use crate::http::{FROM_THE_START, expect_by_samples, server_with};
use crate::lifecycle::assert_two_lives;
use crate::media::{
    self, GOP_FRAMES, Packets, assert_all_frames, assert_run_from_keyframe,
    assert_run_from_keyframe_by_samples,
};
use crate::players::{self, Player};
use crate::playing::PUBLISH_MAX;
use crate::publishers;
use crate::server::Server;

/// Seconds that bring a clip's timestamps to 24 bits, 4.7 hours, in its middle.
const BEFORE_24_BITS_S: &str = "16774";

/// HLS in both containers, by ffmpeg.
fn both_hls(scratch: &Scratch, server: &Server) -> [Player; 2] {
    [
        players::ffmpeg_hls_ts(scratch, "ts", &server.http_url("show.m3u8?container=ts")),
        players::ffmpeg_hls(scratch, "fmp4", &server.http_url("show.m3u8")),
    ]
}

/// HLS in both containers, judged.
fn both_judges(server: &Server) -> [hls::Viewer; 2] {
    ["show.m3u8?container=ts", "show.m3u8"].map(|file| hls::Viewer::start(server.http(), file))
}

/// The packets of a life of HLS.
fn packets(scratch: &Scratch, life: &hls::Life, name: &str) -> Packets {
    let file = life.save(scratch, name).display().to_string();
    let bare = ["-i", &file, "-bsf:v", players::BARE_H264];
    players::ffmpeg_with("ffmpeg", scratch, &format!("{name}-read"), &bare).finish(scratch)
}

/// Publishes the everyday clip until it has run for a while, and is lost.
fn publish_and_lose(scratch: &Scratch, server: &Server, meanwhile: impl FnOnce()) {
    let mut lost = publishers::ffmpeg(scratch, media::h264_aac(), &server.url("show"));
    server.wait_publisher("show");
    meanwhile();
    server.wait_uptime("show", 2_500);
    server.wait_pictures(60);
    lost.signal(Signal::KILL);
    lost.expect_end(PUBLISH_MAX);
    server.wait_no_publisher("show");
}

/// A beginning of the first clip, longer than a group of pictures, and all of the second.
fn assert_begun_and_whole(first: &Packets, second: &Packets, received: &[&str]) {
    let second = second.video_hashes();
    let seam = received.len().checked_sub(second.len()).expect("all of the second was received");
    assert!(seam > GOP_FRAMES, "{seam} pictures of the first");
    assert_eq!(received[..seam], first.video_hashes()[..seam]);
    assert_eq!(received[seam..], second);
}

#[test]
fn viewers_over_http_that_join_in_mid_stream_start_at_a_keyframe() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let source = &media::h264_aac().packets;
    let mut publisher = publishers::ffmpeg(&scratch, media::h264_aac(), &server.url("show"));
    server.wait_uptime("show", 2_300);
    server.wait_pictures(60);
    let flv = players::ffmpeg(&scratch, "flv", &server.http_url("show.flv"));
    let mp4 = players::ffmpeg(&scratch, "mp4", &server.http_url("show.mp4"));
    let [ts, fmp4] = both_hls(&scratch, &server);
    publisher.expect_success(PUBLISH_MAX);
    let tail = flv.tail;
    let start = assert_run_from_keyframe(source, &flv.finish(&scratch), tail);
    assert!(start >= GOP_FRAMES, "it did not get what was over before the newest keyframe");
    for player in [mp4, ts, fmp4] {
        assert_run_from_keyframe_by_samples(source, &player.finish(&scratch), tail);
    }
}

#[test]
fn viewers_over_http_go_on_when_a_lost_publisher_returns() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = server_with(&scratch, FROM_THE_START);
    let clip = media::h264_aac();
    let flv = players::ffmpeg(&scratch, "flv", &server.http_url("show.flv"));
    server.wait_players("show", 1);
    let mut watching = None;
    publish_and_lose(&scratch, &server, || {
        watching = Some((both_hls(&scratch, &server), both_judges(&server)));
    });
    publishers::ffmpeg_again(&scratch, clip, &server.url("show")).expect_success(PUBLISH_MAX);
    assert_two_lives(&clip.packets, &flv.finish(&scratch));
    let (players, judges) = watching.expect("they were started");
    for player in players {
        let received = player.finish(&scratch);
        assert_begun_and_whole(&clip.packets, &clip.packets, &received.video_hashes());
    }
    for judge in judges {
        assert_eq!(judge.finish().lives.len(), 2, "one discontinuity");
    }
}

#[test]
fn viewers_over_http_follow_when_the_size_changes() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = server_with(&scratch, FROM_THE_START);
    let (first, second) = (media::h264_aac(), media::h264_other_size());
    let flv = players::ffmpeg(&scratch, "flv", &server.http_url("show.flv"));
    server.wait_players("show", 1);
    let mut judges = None;
    publish_and_lose(&scratch, &server, || judges = Some(both_judges(&server)));
    publishers::ffmpeg_again(&scratch, second, &server.url("show")).expect_success(PUBLISH_MAX);
    let flv = flv.finish(&scratch);
    assert_begun_and_whole(&first.packets, &second.packets, &flv.video_hashes());
    for (judge, suffix) in judges.expect("they were started").into_iter().zip(["ts", "mp4"]) {
        let recorded = judge.finish();
        let [before, after] = &recorded.lives[..] else { panic!("two lives: {suffix}") };
        let before = packets(&scratch, before, &format!("before.{suffix}"));
        let after = packets(&scratch, after, &format!("after.{suffix}"));
        let both = [before.video_hashes(), after.video_hashes()].concat();
        assert_begun_and_whole(&first.packets, &second.packets, &both);
    }
}

/// H.264, then HEVC behind a discontinuity. What is sent is right: our own reader finds two lives, each
/// whole for a decoder that begins with it. ffmpeg (5.1 and newer alike) plays the pictures of the first and,
/// since it did not change, the sound of both: of FLV it announces a second stream of pictures that nobody
/// asked it for, of HLS it keeps the decoder it began with.
#[test]
fn viewers_over_http_hear_on_when_the_codec_of_the_pictures_changes() {
    let ffmpeg = ffmpeg_new();
    if !have(&["ffmpeg", &ffmpeg]) {
        return;
    }
    let scratch = Scratch::new();
    let mut server = server_with(&scratch, FROM_THE_START);
    let (first, second) = (media::h264_aac(), media::hevc_aac());
    let flv = ["flv-old", "flv-new"].into_iter().zip(["ffmpeg", &ffmpeg]);
    let flv: Vec<Player> = flv
        .map(|(label, program)| {
            let args = ["-i", &server.http_url("show.flv")];
            players::ffmpeg_with(program, &scratch, label, &args)
        })
        .collect();
    server.wait_players("show", 2);
    let mut watching = None;
    publish_and_lose(&scratch, &server, || {
        let hls = ["show.m3u8?container=ts", "show.m3u8"].map(|file| {
            let label = if file.contains("ts") { "ts" } else { "fmp4" };
            let url = server.http_url(file);
            let args = ["-live_start_index", "0", "-i", &url, "-map", "0:a"];
            players::ffmpeg_with(&ffmpeg, &scratch, label, &args)
        });
        watching = Some((hls, both_judges(&server)));
    });
    publishers::ffmpeg_enhanced(&scratch, second, &server.url("show")).expect_success(PUBLISH_MAX);
    let sound_of_second = second.packets.audio_hashes();
    for player in flv {
        let received = player.finish(&scratch);
        let pictures = received.video_hashes();
        assert!(pictures.len() > GOP_FRAMES, "{} pictures", pictures.len());
        assert_eq!(pictures, first.packets.video_hashes()[..pictures.len()]);
        assert!(received.audio_hashes().ends_with(&sound_of_second), "the sound goes on");
    }
    let (hls, judges) = watching.expect("they were started");
    for player in hls {
        let received = player.finish(&scratch);
        assert!(received.audio_hashes().ends_with(&sound_of_second), "the sound goes on");
    }
    for (judge, suffix) in judges.into_iter().zip(["ts", "mp4"]) {
        let recorded = judge.finish();
        let [before, after] = &recorded.lives[..] else { panic!("two lives: {suffix}") };
        let before = packets(&scratch, before, &format!("before.{suffix}"));
        let pictures = before.video_hashes();
        assert_eq!(pictures, first.packets.video_hashes()[..pictures.len()]);
        let file = after.save(&scratch, &format!("after.{suffix}")).display().to_string();
        let args = ["-i", &file, "-bsf:v", players::BARE_HEVC];
        let after = players::ffmpeg_with(&ffmpeg, &scratch, &format!("after-{suffix}"), &args);
        assert_eq!(after.finish_new(&scratch).video_hashes(), second.packets.video_hashes());
    }
    server.expect_running();
}

/// The sound alone is the second rendition: ffmpeg chooses the whole of two, and plays the sound where it is
/// asked for.
#[test]
fn sound_beside_the_whole_is_played_by_itself() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let settings = format!("{FROM_THE_START}hls_audio_only = true\n");
    let server = server_with(&scratch, &settings);
    let clip = media::h264_aac();
    let mut publisher = publishers::ffmpeg(&scratch, clip, &server.url("show"));
    server.wait_publisher("show");
    let whole = both_hls(&scratch, &server);
    let sound = ["show.m3u8?container=ts&rendition=audio", "show.m3u8?rendition=audio"];
    let judges = sound.map(|file| hls::Viewer::start(server.http(), file));
    let sound = sound.map(|file| {
        let label = if file.contains("ts") { "sound-ts" } else { "sound-fmp4" };
        players::ffmpeg_hls(&scratch, label, &server.http_url(file))
    });
    publisher.expect_success(PUBLISH_MAX);
    for player in whole {
        expect_by_samples(&scratch, clip, player);
    }
    let published = clip.packets.audio_hashes();
    for player in sound {
        let received = player.finish(&scratch);
        assert!(received.video.is_empty() && published.ends_with(&received.audio_hashes()));
        // Only what lies before the first picture may be missing.
        assert!(published.len() - received.audio.len() < 5, "{} frames", received.audio.len());
    }
    for judge in judges {
        let recorded = judge.finish();
        assert_eq!(recorded.lives.len(), 1);
        assert!(recorded.multivariant.contains("CODECS=\"mp4a.40.2\"\n"), "{recorded:?}");
    }
}

#[test]
fn timestamps_pass_24_bits_unnoticed() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = server_with(&scratch, FROM_THE_START);
    let clip = media::h264_aac();
    let flv = players::ffmpeg(&scratch, "flv", &server.http_url("show.flv"));
    let mp4 = players::ffmpeg(&scratch, "mp4", &server.http_url("show.mp4"));
    server.wait_players("show", 2);
    let late = ["-output_ts_offset", BEFORE_24_BITS_S];
    let mut publisher = publishers::ffmpeg_with(&scratch, clip, &late, &server.url("show"));
    server.wait_publisher("show");
    let hls = both_hls(&scratch, &server);
    publisher.expect_success(PUBLISH_MAX);
    let tail = flv.tail;
    assert_all_frames(&clip.packets, &flv.finish(&scratch), tail);
    for player in hls.into_iter().chain([mp4]) {
        expect_by_samples(&scratch, clip, player);
    }
}

#[test]
fn sound_alone_is_heard_in_every_form() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = server_with(&scratch, FROM_THE_START);
    let clip = media::h264_aac();
    let flv = players::ffmpeg(&scratch, "flv", &server.http_url("show.flv"));
    let mp4 = players::ffmpeg(&scratch, "mp4", &server.http_url("show.mp4"));
    server.wait_players("show", 2);
    let mut publisher = publishers::ffmpeg_with(&scratch, clip, &["-vn"], &server.url("show"));
    server.wait_publisher("show");
    let hls = ["show.m3u8?container=ts", "show.m3u8"].map(|file| {
        let label = if file.contains("ts") { "ts" } else { "fmp4" };
        players::ffmpeg_hls(&scratch, label, &server.http_url(file))
    });
    let judges = both_judges(&server);
    publisher.expect_success(PUBLISH_MAX);
    let published = clip.packets.audio_hashes();
    let flv = flv.finish(&scratch);
    assert_eq!(flv.audio_hashes(), published);
    for player in hls.into_iter().chain([mp4]) {
        let received = player.finish(&scratch);
        // Half a second is waited for pictures before the stream is taken for one without.
        assert!(published.ends_with(&received.audio_hashes()) && received.video.is_empty());
        assert!(received.audio.len() * 6 >= published.len() * 5, "{} frames", received.audio.len());
    }
    for judge in judges {
        judge.finish();
    }
}

/// Pictures that all need others are shown after a wait: some encoders never send a keyframe.
#[test]
fn a_stream_without_keyframes_is_shown_all_the_same() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let server = server_with(&scratch, FROM_THE_START);
    let source = media::h264_aac();
    let url = server.http_url("show.flv");
    let args = ["-i", &url, "-copyinkf"];
    let flv = players::ffmpeg_with("ffmpeg", &scratch, "flv", &args);
    server.wait_players("show", 1);
    let without = ["-bsf:v", "noise=amount=0:drop=key"];
    let mut publisher = publishers::ffmpeg_with(&scratch, source, &without, &server.url("show"));
    server.wait_publisher("show");
    let judges = both_judges(&server);
    publisher.expect_success(PUBLISH_MAX);
    let mut published = source.packets.video_hashes();
    let mut index = 0..published.len();
    published.retain(|_| index.next().is_some_and(|at| !at.is_multiple_of(GOP_FRAMES)));
    let received = flv.finish(&scratch);
    assert_eq!(received.video_hashes(), published);
    for (judge, suffix) in judges.into_iter().zip(["ts", "mp4"]) {
        let recorded = judge.finish();
        let [life] = &recorded.lives[..] else { panic!("one life: {suffix}") };
        let file = life.save(&scratch, &format!("life.{suffix}")).display().to_string();
        let args = ["-i", &file, "-copyinkf", "-bsf:v", players::BARE_H264];
        let read = players::ffmpeg_with("ffmpeg", &scratch, &format!("read-{suffix}"), &args);
        let received = read.finish(&scratch);
        // Five seconds are waited for a keyframe.
        let hashes = received.video_hashes();
        assert!(hashes.len() > 15 && published.ends_with(&hashes), "{} pictures", hashes.len());
    }
}
