//! Publishers that leave, return and change; streams that end.

use super::*;
use crate::hls::{HeldRendition, HlsStart};

fn count(text: &str, what: &str) -> usize {
    text.lines().filter(|line| line.starts_with(what)).count()
}

#[test]
fn a_stream_that_ends_has_all_its_media_and_an_end() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 4880);
    let version = rendition.version();
    stream.leave(true);
    bench.turn();
    assert!(rendition.version() > version && rendition.is_ended());
    let text = playlist(&rendition);
    assert!(text.ends_with("#EXT-X-ENDLIST\n") && !text.contains("HINT"), "{text}");
    let seconds: f64 = text
        .lines()
        .filter_map(|line| line.strip_prefix("#EXTINF:"))
        .map(|rest| rest.trim_end_matches(',').parse::<f64>().unwrap())
        .sum();
    assert!((seconds - 4.88).abs() < 0.02, "{seconds}: {text}");
    // Who blocks on the next part is told of the end.
    let reload = Reload::parse("_HLS_msn=900").unwrap();
    assert!(matches!(rendition.playlist(&reload, None), Reply::Ready { .. }));
}

#[test]
fn a_lost_publisher_leaves_a_playlist_without_end_and_returns_behind_a_discontinuity() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 5000);
    stream.leave(false);
    bench.wait(3000);
    let text = playlist(&rendition);
    assert!(!text.contains("ENDLIST") && count(&text, "#EXT-X-DISCONTINUITY") == 0, "{text}");
    let before = *listed(&text).last().unwrap();
    stream.begin(&bench);
    stream.headers(&bench);
    stream.play(&mut bench, 5000);
    let text = playlist(&rendition);
    assert_eq!(count(&text, "#EXT-X-DISCONTINUITY"), 1, "{text}");
    assert_eq!(count(&text, "#EXT-X-MAP"), 1, "the same tracks: {text}");
    assert!(*listed(&text).last().unwrap() > before && !text.contains("ENDLIST"));
}

#[test]
fn a_takeover_is_a_discontinuity_and_loses_nothing() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 5000);
    // Both within one turn of the packager.
    stream.leave(false);
    stream.begin(&bench);
    stream.headers(&bench);
    stream.play(&mut bench, 3000);
    let text = playlist(&rendition);
    assert_eq!(count(&text, "#EXT-X-DISCONTINUITY"), 1, "{text}");
    assert_eq!(listed(&text), [0, 1, 2, 3, 4], "{text}");
}

#[test]
fn a_stream_published_again_after_its_end_goes_on_in_another_rendition() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let first = bench.open(&stream, &settings());
    stream.play(&mut bench, 5000);
    stream.leave(true);
    bench.turn();
    assert!(Arc::ptr_eq(&first, &bench.open(&stream, &settings())), "its end can be read");
    let last = *listed(&playlist(&first)).last().unwrap();
    stream.begin(&bench);
    stream.headers(&bench);
    let second = bench.open(&stream, &settings());
    assert!(!Arc::ptr_eq(&first, &second) && first.number() != second.number());
    stream.play(&mut bench, 3000);
    let text = playlist(&second);
    assert_eq!(listed(&text)[0], last + 1, "numbers go on: {text}");
    // Who has read the first one does not see a number twice, nor a discontinuity less.
    assert!(text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n"), "{text}");
    assert!(playlist(&first).contains("ENDLIST"));
}

#[test]
fn another_codec_configuration_is_another_init_segment() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 5000);
    let mut other = AVC_CONFIG;
    other[7] = 0xE0;
    stream.send(&bench, MediaKind::Video, &other);
    stream.restart();
    stream.play(&mut bench, 3000);
    let text = playlist(&rendition);
    assert_eq!(count(&text, "#EXT-X-MAP"), 2, "{text}");
    assert_eq!(count(&text, "#EXT-X-DISCONTINUITY"), 1, "{text}");
    let first = body(rendition.file(Name::Init { generation: 1 }));
    let second = body(rendition.file(Name::Init { generation: 2 }));
    assert_ne!(first, second);
    assert_eq!(rendition.file(Name::Init { generation: 3 }), Reply::NotFound);
    // The init segment goes with the last segment that needs it.
    stream.play(&mut bench, 24_000);
    assert_eq!(rendition.file(Name::Init { generation: 1 }), Reply::NotFound);
    let text = playlist(&rendition);
    assert!(text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n"), "{text}");
}

#[test]
fn time_goes_on_over_4_7_hours_and_over_the_wrap() {
    for timestamp in [0x00FF_FFFF - 1000, u32::MAX - 1000] {
        for container in [Container::Fmp4, Container::Ts] {
            let mut bench = Bench::new();
            let mut stream = Stream::start(&bench, "cam", timestamp);
            stream.headers(&bench);
            let rendition = bench.open_as(&stream, Some(container), &settings());
            stream.play(&mut bench, 9000);
            let text = playlist(&rendition);
            assert!(listed(&text).len() >= 4, "{text}");
            assert_eq!(count(&text, "#EXT-X-DISCONTINUITY"), 0, "{text}");
            let lengths = text.lines().filter_map(|line| line.strip_prefix("#EXTINF:"));
            assert!(lengths.skip(2).all(|length| length == "2.000,"), "{text}");
        }
    }
}

#[test]
fn dates_follow_the_wall_clock() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 5000);
    // UNIX_MS is 2026-11-18T11:06:40Z.
    let text = playlist(&rendition);
    assert!(text.contains("#EXT-X-PROGRAM-DATE-TIME:2026-11-18T11:06:40."), "{text}");
    assert_eq!(count(&text, "#EXT-X-PROGRAM-DATE-TIME"), listed(&text).len() + 1, "{text}");
}

#[test]
fn what_the_ring_had_is_dated_when_it_came() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    stream.fill(&mut bench, 4_500);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 3_000);
    let text = playlist(&rendition);
    // Pictures come when their timestamps say so, each 40 ms behind the one before.
    for (segment, second) in ["40.", "42.", "44."].into_iter().enumerate() {
        let line =
            text.lines().filter(|line| line.starts_with("#EXT-X-PROGRAM-DATE-TIME")).nth(segment);
        assert!(line.is_some_and(|line| line.contains(&format!("T11:06:{second}"))), "{text}");
    }
}

#[test]
fn sound_alone_is_packaged() {
    for container in [Container::Fmp4, Container::Ts] {
        let mut bench = Bench::new();
        let mut stream = Stream::start(&bench, "radio", 0);
        stream.has_video = false;
        stream.headers(&bench);
        let rendition = bench.open_as(&stream, Some(container), &settings());
        stream.play(&mut bench, 8000);
        let text = playlist(&rendition);
        assert!(listed(&text).len() >= 3 && text.contains("INDEPENDENT-SEGMENTS"), "{text}");
        let multivariant = body(rendition.multivariant(&address("radio", "")));
        let multivariant = std::str::from_utf8(&multivariant).unwrap();
        assert!(multivariant.contains("CODECS=\"mp4a.40.2\"\n"), "{multivariant}");
    }
}

#[test]
fn a_stream_without_keyframes_is_packaged_after_a_wait() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "intra-refresh", 0);
    stream.gop = 0;
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 5600);
    let text = playlist(&rendition);
    assert!(!text.contains("INDEPENDENT"), "{text}");
    stream.play(&mut bench, 13_000);
    assert_eq!(listed(&playlist(&rendition)).len(), 2);
    assert!(bench.metrics.forced_cuts.value() >= 2);
}

#[test]
fn bodies_of_many_chunks_are_put_together() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "large", 0);
    stream.picture_bytes = 150_000;
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 3000);
    let first = listed(&playlist(&rendition))[0];
    let bytes = segment(&rendition, first + 1);
    // The filler of a picture is its number again and again: nothing stands between.
    let at = bytes.windows(4).position(|four| four == b"mdat").unwrap() + 4;
    let nal = &bytes[at..at + 4 + 150_000];
    let pattern = &nal[5..9];
    assert!(nal[5..].chunks_exact(4).all(|four| four == pattern));
}

#[test]
fn a_clock_set_back_or_forward_leaves_playlists_valid_and_segments_there() {
    const HOUR_MS: u64 = 3_600_000;
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 10_000);
    let before = listed(&playlist(&rendition));
    bench.unix_ms -= HOUR_MS;
    stream.play(&mut bench, 10_000);
    let set_back = listed(&playlist(&rendition));
    bench.unix_ms += 2 * HOUR_MS;
    stream.play(&mut bench, 10_000);
    let set_forward = listed(&playlist(&rendition));
    for (earlier, later) in [(&before, &set_back), (&set_back, &set_forward)] {
        assert!(later.last() > earlier.last(), "packaging goes on: {earlier:?}, {later:?}");
    }
    for sequence in set_forward {
        assert!(!segment(&rendition, sequence).is_empty());
    }
}

#[test]
fn a_clock_that_is_set_makes_no_viewer_leave_and_none_stay() {
    const HOUR_MS: u64 = 3_600_000;
    for forward in [true, false] {
        let mut bench = Bench::new();
        let mut stream = Stream::start(&bench, "cam", 0);
        stream.headers(&bench);
        let rendition = bench.open(&stream, &settings());
        stream.play(&mut bench, 3_000);
        assert!(rendition.note_viewer(1, bench.now_ms, None));
        if forward {
            bench.unix_ms += HOUR_MS;
        } else {
            bench.unix_ms -= HOUR_MS;
        }
        stream.play(&mut bench, 2_000);
        assert!(rendition.knows_viewer(1), "forward {forward}");
        stream.play(&mut bench, 30_000);
        assert!(!rendition.knows_viewer(1), "forward {forward}: who has gone is forgotten");
    }
}

#[test]
fn another_configuration_of_the_sound_costs_no_picture() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 4_480);
    let mut other = AAC_CONFIG;
    other[2] = 0x12;
    stream.send(&bench, MediaKind::Audio, &other);
    stream.play(&mut bench, 3_000);
    let text = playlist(&rendition);
    assert_eq!(
        (count(&text, "#EXT-X-MAP"), count(&text, "#EXT-X-DISCONTINUITY")),
        (2, 1),
        "{text}"
    );
    // What is listed leaves no hole: each segment begins when the one before ends.
    let seconds: f64 = text
        .lines()
        .filter_map(|line| line.strip_prefix("#EXTINF:"))
        .map(|rest| rest.trim_end_matches(',').parse::<f64>().unwrap())
        .sum();
    let parts = text.lines().rev().take_while(|line| !line.starts_with("cam/"));
    let open = parts.filter(|line| line.starts_with("#EXT-X-PART:")).count();
    let open_ms = 200.0 * f64::from(u32::try_from(open).unwrap());
    let listed_ms = seconds * 1_000.0 + open_ms;
    assert!((7_480.0 - listed_ms).abs() <= 240.0, "{listed_ms} of 7480: {text}");
}

#[test]
fn a_publisher_that_returns_without_sound_is_described_without() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 5_000);
    stream.leave(false);
    bench.wait(1_000);
    stream.has_audio = false;
    stream.begin(&bench);
    stream.headers(&bench);
    stream.play(&mut bench, 5_000);
    let codecs = body(rendition.multivariant(&address("cam", "")));
    let codecs = std::str::from_utf8(&codecs).unwrap();
    assert!(codecs.contains("CODECS=\"avc1.42c01e\""), "{codecs}");
    let init = body(rendition.file(Name::Init { generation: 2 }));
    assert!(!init.windows(4).any(|four| four == b"mp4a"), "no track of sound");
}

#[test]
fn a_stream_that_returns_before_its_end_was_seen_is_packaged_without_a_viewer() {
    let mut bench = Bench::new();
    let always = HlsSettings { start: HlsStart::Always, ..settings() };
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    bench.shared.hls.on_publish(&stream.entry, &always);
    stream.play(&mut bench, 5_000);
    // All within one turn of the packager.
    stream.leave(true);
    stream.begin(&bench);
    bench.shared.hls.on_publish(&stream.entry, &always);
    stream.headers(&bench);
    stream.play(&mut bench, 5_000);
    let found = bench.shared.hls.find(stream.entry.path(), None, &always).expect("packaged");
    assert!(!found.is_ended() && found.has_begun());
    assert_eq!(bench.shared.hls.renditions().len(), 2, "and the ended one is kept");
}

#[test]
fn packaging_does_not_end_under_a_request_that_waits() {
    let mut bench = Bench::new();
    let brief = HlsSettings { idle_ms: 1_000, ..settings() };
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &brief);
    let held = HeldRendition::new(Arc::clone(&rendition));
    stream.play(&mut bench, 3_000);
    stream.leave(false);
    bench.wait(9_000);
    assert!(!rendition.is_ended() && bench.shared.hls.by_key(rendition.number()).is_some());
    drop(held);
    bench.wait(900);
    assert!(bench.shared.hls.by_key(rendition.number()).is_some(), "it was asked just now");
    bench.wait(2_000);
    assert!(bench.shared.hls.by_key(rendition.number()).is_none());
}
