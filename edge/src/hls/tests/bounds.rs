//! Memory, windows, idle streams, rings that ran away.

use super::*;
use crate::hls::HlsStart;

#[test]
fn the_window_slides_and_what_left_it_is_gone() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 25_000);
    playlist(&rendition);
    stream.play(&mut bench, 15_000);
    let text = playlist(&rendition);
    let listed = listed(&text);
    assert_eq!(listed.len(), 6, "{text}");
    for behind in 1..=3 {
        assert!(!segment(&rendition, listed[0] - behind).is_empty());
    }
    assert_eq!(rendition.file(Name::Segment { sequence: listed[0] - 4 }), Reply::Gone);
    assert_eq!(rendition.file(Name::Part { sequence: 0, part: 0 }), Reply::Gone);
    let held = bench.shared.hls.bytes();
    stream.play(&mut bench, 20_000);
    assert!(bench.shared.hls.bytes() < held * 5 / 4, "{held}");
    assert_eq!(bench.metrics.segments_forgotten.value(), 0);
}

#[test]
fn a_stream_of_large_pictures_keeps_to_its_memory() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "large", 0);
    stream.picture_bytes = 50_000;
    stream.headers(&bench);
    let bound = HlsSettings { memory_bytes_max: 8 << 20, ..settings() };
    let rendition = bench.open(&stream, &bound);
    for _ in 0..30 {
        stream.play(&mut bench, 1000);
        assert!(bench.shared.hls.bytes() <= 8 << 20, "{}", bench.shared.hls.bytes());
    }
    assert!(bench.metrics.segments_forgotten.value() > 0);
    let text = playlist(&rendition);
    assert!(!listed(&text).is_empty());
}

#[test]
fn over_the_limit_of_the_process_streams_are_refused_and_those_there_shrink() {
    let mut bench = Bench::new();
    bench.shared.hls.set_bytes_max(6 << 20);
    let mut stream = Stream::start(&bench, "one", 0);
    stream.picture_bytes = 20_000;
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 20_000);
    assert!(bench.shared.hls.bytes() <= 6 << 20, "{}", bench.shared.hls.bytes());
    assert!(bench.metrics.segments_forgotten.value() > 0);
    assert!(!listed(&playlist(&rendition)).is_empty());
    bench.shared.hls.set_bytes_max(bench.shared.hls.bytes());
    let other = Stream::start(&bench, "two", 0);
    assert!(bench.shared.hls.open(&other.entry, None, &settings()).is_none());
    assert_eq!(bench.shared.hls.refused(), 1);
    bench.wait(1000);
    assert_eq!(bench.metrics.refused.value(), 1);
}

#[test]
fn what_all_streams_hold_is_bounded_even_by_ending_some() {
    let mut bench = Bench::new();
    let mut streams: Vec<Stream> = ["one", "two", "three", "four"]
        .iter()
        .map(|name| {
            let mut stream = Stream::start(&bench, name, 0);
            stream.picture_bytes = 20_000;
            stream.headers(&bench);
            stream
        })
        .collect();
    let renditions: Vec<_> = streams.iter().map(|stream| bench.open(stream, &settings())).collect();
    // The second is watched; of the others the last is the first to go.
    renditions[1].note_viewer(1, bench.now_ms, None);
    bench.turn();
    // One segment of each is more than this.
    bench.shared.hls.set_bytes_max(3 << 20);
    for _ in 0..150 {
        for stream in &mut streams {
            stream.frame(&bench);
        }
        bench.wait(40);
        renditions[1].note_viewer(1, bench.now_ms, None);
        assert!(bench.shared.hls.bytes() <= 3 << 20, "{}", bench.shared.hls.bytes());
    }
    assert!(bench.metrics.shed.value() > 0);
    assert!(matches!(renditions[1].playlist(&Reload::default(), None), Reply::Ready { .. }));
    assert_eq!(renditions[3].playlist(&Reload::default(), None), Reply::Gone);
    assert!(!streams[3].entry.is_tapped() && streams[1].entry.is_tapped());
}

#[test]
fn packaging_ends_when_nobody_asks_and_gives_everything_back() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let settings = HlsSettings { idle_ms: 5000, ..settings() };
    let rendition = bench.open(&stream, &settings);
    stream.play(&mut bench, 4000);
    playlist(&rendition);
    stream.play(&mut bench, 4000);
    assert!(stream.entry.is_tapped());
    assert!(matches!(rendition.playlist(&Reload::default(), None), Reply::Ready { .. }));
    stream.play(&mut bench, 8000);
    assert_eq!(rendition.playlist(&Reload::default(), None), Reply::Gone);
    assert_eq!(rendition.file(Name::Segment { sequence: 3 }), Reply::Gone);
    assert_eq!((bench.shared.hls.bytes(), bench.shared.hls.renditions().len()), (0, 0));
    assert_eq!(bench.metrics.renditions.value(), 0);
    assert!(!stream.entry.is_tapped());
    // The test holds the entry; the packager does not.
    assert!(bench.shared.registry.release(&stream.entry).is_none());
    assert!(bench.shared.registry.is_empty());
}

#[test]
fn a_parked_ring_that_only_the_packager_holds_is_given_back() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &HlsSettings { idle_ms: 6000, ..settings() });
    stream.play(&mut bench, 4000);
    stream.leave(true);
    assert!(bench.shared.registry.release(&stream.entry).is_none(), "the packager holds it");
    bench.turn();
    assert!(playlist(&rendition).contains("ENDLIST"));
    bench.wait(8000);
    assert!(bench.shared.registry.is_empty());
}

#[test]
fn with_always_packaging_begins_with_the_publisher_and_lasts_as_long() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    let viewer = settings();
    bench.shared.hls.on_publish(&stream.entry, &viewer);
    assert_eq!(bench.shared.hls.renditions().len(), 0);
    let always = HlsSettings { start: HlsStart::Always, idle_ms: 1000, ..settings() };
    bench.shared.hls.on_publish(&stream.entry, &always);
    stream.headers(&bench);
    stream.play(&mut bench, 20_000);
    let rendition = bench.open(&stream, &always);
    assert_eq!(listed(&playlist(&rendition)).len(), 6);
    stream.leave(true);
    bench.wait(3000);
    assert_eq!(bench.shared.hls.renditions().len(), 0);
}

/// The packager took such a stream up when its entry was gone, made another, and kept it for ever.
#[test]
fn a_publisher_that_goes_before_the_first_look_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    let always = HlsSettings { start: HlsStart::Always, idle_ms: 1000, ..settings() };
    bench.shared.hls.on_publish(&stream.entry, &always);
    stream.leave(true);
    drop(bench.shared.registry.release(&stream.entry));
    bench.wait(500);
    assert_eq!(bench.shared.hls.renditions().len(), 1);
    bench.wait(2500);
    assert_eq!(bench.shared.hls.renditions().len(), 0);
    assert!(bench.shared.registry.is_empty());
    // And whoever publishes there next is packaged.
    let stream = Stream::start(&bench, "cam", 0);
    bench.shared.hls.on_publish(&stream.entry, &always);
    bench.wait(3000);
    assert_eq!(bench.shared.hls.renditions().len(), 1);
}

#[test]
fn a_packager_that_falls_out_of_the_ring_goes_on_at_a_keyframe_and_says_so() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.picture_bytes = 20_000;
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 5000);
    let before = *listed(&playlist(&rendition)).last().unwrap();
    stream.fill(&mut bench, 30_000);
    stream.play(&mut bench, 3000);
    assert_eq!(bench.metrics.overruns.value(), 1);
    let text = playlist(&rendition);
    assert!(text.contains("#EXT-X-DISCONTINUITY\n"), "{text}");
    assert!(*listed(&text).last().unwrap() > before + 1);
}

#[test]
fn viewers_are_counted_and_forgotten_after_three_targets() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 4000);
    assert!(rendition.note_viewer(1, bench.now_ms, None));
    assert!(rendition.note_viewer(2, bench.now_ms, None));
    stream.play(&mut bench, 4000);
    assert!(!rendition.note_viewer(2, bench.now_ms, None));
    assert_eq!((rendition.viewers(), bench.metrics.viewers.value()), (2, 2));
    stream.play(&mut bench, 4000);
    assert_eq!((rendition.viewers(), bench.metrics.viewers.value()), (1, 1));
}

#[test]
fn a_viewer_may_be_there_before_the_publisher() {
    let mut bench = Bench::new();
    let mut stream = Stream::silent(&bench, "cam", 0);
    let rendition = bench.open(&stream, &settings());
    bench.wait(500);
    assert_eq!(rendition.playlist(&Reload::default(), None), Reply::Wait);
    stream.begin(&bench);
    stream.headers(&bench);
    stream.play(&mut bench, 1000);
    assert!(!listed(&playlist(&rendition)).is_empty());
}

#[test]
fn where_hls_is_off_nothing_is_opened() {
    let bench = Bench::new();
    let stream = Stream::start(&bench, "cam", 0);
    let off = HlsSettings { is_on: false, ..settings() };
    assert!(bench.shared.hls.open(&stream.entry, None, &off).is_none());
    assert_eq!(bench.shared.hls.refused(), 0);
}
