//! Joining and watching: what is answered when, in which forms, with which bytes.

use super::*;

#[test]
fn a_first_viewer_of_an_unwatched_stream_has_a_playlist_after_one_part() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.keep = Keep::Gop;
    stream.gop = 250;
    stream.headers(&bench);
    stream.fill(&mut bench, 3000);
    let rendition = bench.open(&stream, &settings());
    assert_eq!(rendition.playlist(&Reload::default(), None), Reply::Wait);
    assert_eq!(rendition.multivariant(&address("cam", "")), Reply::Wait);
    let version = rendition.version();
    stream.play(&mut bench, 280);
    assert!(rendition.version() > version);
    let text = playlist(&rendition);
    assert_eq!(listed(&text), [0], "{text}");
    // What the ring had of the GOP is in it.
    assert!(text.contains("#EXTINF:3.") || text.contains("#EXTINF:2.9"), "{text}");
}

#[test]
fn a_watched_stream_begins_with_what_the_ring_has() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    stream.fill(&mut bench, 9500);
    let rendition = bench.open(&stream, &settings());
    bench.turn();
    let text = playlist(&rendition);
    assert_eq!(listed(&text), [0, 1], "6 s of history: {text}");
    assert!(text.contains("#EXT-X-INDEPENDENT-SEGMENTS"));
    assert!(
        text.contains("cam/") && text.contains(&format!("{:016x}/seg-0.m4s", rendition.number()))
    );
}

#[test]
fn the_multivariant_playlist_carries_query_and_session() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 3000);
    let reply = rendition.multivariant(&address("cam", "txSecret=1&container=fmp4"));
    let Reply::Ready { body, content_type, cache_control, .. } = reply else { panic!("{reply:?}") };
    let text = std::str::from_utf8(&body).unwrap();
    assert_eq!(validate::multivariant(text), [], "{text}");
    assert!(
        text.ends_with("\ncam.m3u8?txSecret=1&container=fmp4&session=00000000000000ff\n"),
        "{text}"
    );
    assert!(text.contains("CODECS=\"avc1.42c01e,mp4a.40.2\""), "{text}");
    assert_eq!((content_type, cache_control), ("application/vnd.apple.mpegurl", "no-store"));
    for bad in ["a\nb", "a:b", "a\"", "é"] {
        let text = super::body(rendition.multivariant(&address(bad, bad)));
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.ends_with("\ncam.m3u8?session=00000000000000ff\n") || bad == "a:b", "{text}");
    }
}

#[test]
fn parts_are_slices_of_their_segment_and_the_next_one_is_waited_for() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 7000);
    let text = playlist(&rendition);
    let last = *listed(&text).last().unwrap();
    let whole = segment(&rendition, last);
    let mut joined = Vec::new();
    for part in 0.. {
        match rendition.file(Name::Part { sequence: last, part }) {
            Reply::Ready { body, .. } => {
                assert!(whole.as_ptr_range().contains(&body.as_ptr()), "no second copy");
                joined.extend_from_slice(&body);
            }
            other => {
                assert_eq!(other, Reply::NotFound);
                break;
            }
        }
    }
    assert_eq!(joined, whole);
    let hint = text.lines().find(|line| line.starts_with("#EXT-X-PRELOAD-HINT")).unwrap();
    let number = hint.rsplit_once("part-").unwrap().1.split('.').nth(1).unwrap();
    let part: u32 = number.parse().unwrap();
    let next = Name::Part { sequence: last + 1, part };
    assert_eq!(rendition.file(next), Reply::Wait);
    assert_eq!(rendition.file(Name::Part { sequence: last + 1, part: part + 1 }), Reply::NotFound);
    assert_eq!(rendition.file(Name::Segment { sequence: last + 1 }), Reply::NotFound);
    let version = rendition.version();
    stream.play(&mut bench, 240);
    assert!(rendition.version() > version);
    assert!(!body(rendition.file(next)).is_empty());
}

#[test]
fn a_blocking_reload_is_answered_by_the_part_it_names() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 5000);
    let edge = rendition.snapshot().edge;
    let query = format!("_HLS_msn={}&_HLS_part={}", edge.next_msn, edge.next_part);
    let reload = Reload::parse(&query).unwrap();
    let mut versions = Vec::new();
    while rendition.playlist(&reload, None) == Reply::Wait {
        versions.push(rendition.version());
        stream.play(&mut bench, 40);
    }
    assert!((1..=6).contains(&versions.len()), "{versions:?}");
    assert!(versions.iter().all(|version| *version == versions[0]), "one change, one answer");
    let text = playlist_for(&rendition, &query);
    assert!(text.contains(&format!("part-{}.{}.m4s", edge.next_msn, edge.next_part)));
    let far = Reload::parse("_HLS_msn=4000").unwrap();
    assert!(matches!(rendition.playlist(&far, None), Reply::BadRequest(_)));
}

#[test]
fn the_target_duration_is_that_of_the_keyframes_from_the_first_playlist_on() {
    let target = |text: &str| {
        let tag = "#EXT-X-TARGETDURATION:";
        text.lines().find_map(|line| line.strip_prefix(tag)).unwrap().to_owned()
    };
    // Distance of keyframes in pictures of 40 ms, what is known of it, the target in seconds.
    for (gop, known_ms, wanted) in
        [(25, 1000, "2"), (125, 5000, "5"), (75, 3000, "3"), (25, 0, "2")]
    {
        let mut bench = Bench::new();
        let mut stream = Stream::start(&bench, "cam", 0);
        stream.gop = gop;
        stream.headers(&bench);
        stream.entry.note_gop(known_ms);
        let rendition = bench.open(&stream, &settings());
        for _ in 0..40 {
            stream.play(&mut bench, 480);
            let Reply::Ready { body, .. } = rendition.playlist(&Reload::default(), None) else {
                continue;
            };
            assert_eq!(target(std::str::from_utf8(&body).unwrap()), wanted, "{gop}");
        }
        stream.leave(true);
        bench.turn();
        stream.begin(&bench);
        stream.headers(&bench);
        let next = bench.open(&stream, &settings());
        stream.play(&mut bench, 1000);
        assert_eq!(target(&playlist(&next)), wanted, "another run is the same playlist");
    }
}

#[test]
fn a_delta_update_leaves_out_old_segments() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let settings = HlsSettings { window: 20, ..settings() };
    let rendition = bench.open(&stream, &settings);
    stream.play(&mut bench, 30_000);
    let delta = playlist_for(&rendition, "_HLS_msn=3&_HLS_skip=YES");
    assert!(delta.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS="), "{delta}");
    assert!(delta.len() < playlist(&rendition).len());
}

#[test]
fn transport_streams_have_plain_playlists_beside_the_other_container() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let ts = bench.open_as(&stream, Some(Container::Ts), &settings());
    let fmp4 = bench.open(&stream, &settings());
    assert!(Arc::ptr_eq(&ts, &bench.open_as(&stream, Some(Container::Ts), &settings())));
    stream.play(&mut bench, 9000);
    let text = playlist(&ts);
    assert!(!text.contains("PART") && text.contains(".ts") && !text.contains("MAP"), "{text}");
    assert!(playlist(&fmp4).contains("#EXT-X-PART:"));
    for sequence in listed(&text) {
        let bytes = segment(&ts, sequence);
        assert!(bytes.len().is_multiple_of(188) && bytes.chunks(188).all(|p| p[0] == 0x47));
    }
    assert_eq!(ts.file(Name::Part { sequence: 1, part: 0 }), Reply::NotFound);
    // Without parts nobody waits.
    assert!(matches!(
        ts.playlist(&Reload::parse("_HLS_msn=900").unwrap(), None),
        Reply::Ready { .. }
    ));
    assert_eq!(bench.shared.hls.renditions().len(), 2);
    let found = bench.shared.hls.by_key(ts.number()).unwrap();
    assert!(Arc::ptr_eq(&found, &ts) && bench.shared.hls.by_key(1).is_none());
}
