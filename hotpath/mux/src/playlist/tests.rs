//! The writer against the validator, and whole texts.

use std::string::String;
use std::vec::Vec;

use super::query::{Answer, Reload};
use super::window::{Window, WindowSettings};
use super::*;
use crate::segment::Event;

const DATE_MS: u64 = 1_795_219_200_000;

fn begin(window: &mut Window, sequence: u64, generation: u32, discontinuity: bool) {
    let date_ms = DATE_MS + sequence * 2000;
    let begin = Event::Begin { sequence, generation, discontinuity, independent: true, date_ms };
    assert_eq!(window.apply(&begin), None);
}

fn part(window: &mut Window, sequence: u64, part: u32, duration_ms: u32) {
    let independent = part == 0;
    let (bytes, sound) = (0..0, 0..0);
    window.apply(&Event::Part { sequence, part, duration_ms, independent, bytes, sound });
}

fn whole(window: &mut Window, sequence: u64, generation: u32, discontinuity: bool) -> Option<u64> {
    begin(window, sequence, generation, discontinuity);
    for at in 0..4 {
        part(window, sequence, at, 500);
    }
    window.apply(&Event::End { sequence, duration_ms: 2000 })
}

fn text(window: &Window, part_target_ms: Option<u32>, skip: bool) -> String {
    let names = Names { container: Container::Fmp4, prefix: "", query: "s=1" };
    let playlist = MediaPlaylist { target_ms: 2000, part_target_ms, ended: false, skip, names };
    let mut out = String::new();
    playlist.write(window, &mut out);
    if part_target_ms.is_some() {
        Report { uri: "../b/x.m3u8", last_msn: 3, last_part: Some(0) }.write(&mut out);
    }
    assert_eq!(validate::media(&out), [], "{out}");
    out
}

#[test]
fn a_low_latency_playlist_is_written_line_by_line() {
    let mut window = Window::new(WindowSettings::default());
    whole(&mut window, 0, 1, false);
    begin(&mut window, 1, 2, true);
    part(&mut window, 1, 0, 500);
    let wanted = "#EXTM3U
#EXT-X-VERSION:9
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.500,CAN-SKIP-UNTIL=12.000
#EXT-X-PART-INF:PART-TARGET=0.500
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-MAP:URI=\"init-1.mp4?s=1\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:00.000Z
#EXT-X-PART:DURATION=0.500,URI=\"part-0.0.m4s?s=1\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.500,URI=\"part-0.1.m4s?s=1\"
#EXT-X-PART:DURATION=0.500,URI=\"part-0.2.m4s?s=1\"
#EXT-X-PART:DURATION=0.500,URI=\"part-0.3.m4s?s=1\"
#EXTINF:2.000,
seg-0.m4s?s=1
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI=\"init-2.mp4?s=1\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:02.000Z
#EXT-X-PART:DURATION=0.500,URI=\"part-1.0.m4s?s=1\",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-1.1.m4s?s=1\"
#EXT-X-RENDITION-REPORT:URI=\"../b/x.m3u8\",LAST-MSN=3,LAST-PART=0
";
    assert_eq!(text(&window, Some(500), false), wanted);
}

#[test]
fn a_plain_playlist_ends_with_its_last_complete_segment() {
    let mut window = Window::new(WindowSettings::default());
    whole(&mut window, 0, 1, false);
    begin(&mut window, 1, 1, false);
    part(&mut window, 1, 0, 500);
    let out = text(&window, None, false);
    assert!(!out.contains("PART") && !out.contains("HINT"), "{out}");
    assert!(out.contains("seg-0.m4s") && !out.contains("seg-1"), "{out}");
    assert!(!out.contains("2026-11-21T00:00:02"), "no date without its segment\n{out}");
}

#[test]
fn the_target_duration_stays_when_a_longer_segment_rounds_to_it() {
    for (duration_ms, target_s) in [(2084, 2), (2499, 2), (2500, 3)] {
        let mut window = Window::new(WindowSettings::default());
        begin(&mut window, 0, 1, false);
        part(&mut window, 0, 0, duration_ms);
        window.apply(&Event::End { sequence: 0, duration_ms });
        let out = text(&window, None, false);
        assert!(out.contains(&std::format!("#EXT-X-TARGETDURATION:{target_s}\n")), "{out}");
    }
}

#[test]
fn a_delta_update_leaves_out_what_is_older_than_six_targets() {
    let mut window = Window::new(WindowSettings { listed: 20, behind: 2 });
    for sequence in 0..10 {
        assert_eq!(whole(&mut window, sequence, 1, sequence == 2), None);
    }
    let out = text(&window, Some(500), true);
    assert!(out.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n"), "{out}");
    assert!(!out.contains("EXT-X-MAP") && !out.contains("seg-2") && out.contains("seg-3"), "{out}");
    assert!(out.contains("#EXT-X-MEDIA-SEQUENCE:0\n"));
    assert!(!out.contains("part-6.") && out.contains("part-7."), "parts of three targets: {out}");
    assert!(!text(&window, None, true).contains("SKIP"));
}

#[test]
fn the_window_slides_and_counts_discontinuities_that_leave() {
    let mut window = Window::new(WindowSettings { listed: 2, behind: 1 });
    assert_eq!(whole(&mut window, 0, 1, false), None);
    assert_eq!(whole(&mut window, 1, 2, true), None);
    assert_eq!(whole(&mut window, 2, 2, false), None);
    // What stood in front of segment 1 is no longer written, so it counts.
    assert!(!text(&window, None, false).contains("DISCONTINUITY\n"));
    assert_eq!((window.first_sequence(), window.discontinuity_sequence()), (1, 1));
    assert_eq!(whole(&mut window, 3, 2, false), Some(0));
    assert_eq!((window.first_sequence(), window.discontinuity_sequence()), (2, 1));
    assert!(text(&window, None, false).contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n"));
    for sequence in 4..100 {
        assert_eq!(whole(&mut window, sequence, 2, false), Some(sequence - 3));
    }
}

#[test]
fn a_blocking_reload_waits_for_exactly_what_it_names() {
    let mut window = Window::new(WindowSettings::default());
    whole(&mut window, 0, 1, false);
    begin(&mut window, 1, 1, false);
    part(&mut window, 1, 0, 500);
    for (query, wanted) in [
        ("", Answer::Now),
        ("_HLS_msn=0", Answer::Now),
        ("_HLS_msn=1", Answer::Wait),
        ("_HLS_msn=1&_HLS_part=0", Answer::Now),
        ("x=y&_HLS_part=1&_HLS_msn=1&_HLS_skip=YES", Answer::Wait),
        ("_HLS_msn=0&_HLS_part=3", Answer::Now),
        // Behind the last part is the first of the next segment.
        ("_HLS_msn=0&_HLS_part=4", Answer::Now),
        ("_HLS_msn=3", Answer::Wait),
        ("_HLS_msn=4", Answer::TooFar),
        ("_HLS_msn=18446744073709551615", Answer::TooFar),
    ] {
        assert_eq!(Reload::parse(query).unwrap().answer(&window), wanted, "{query}");
    }
    window.apply(&Event::End { sequence: 1, duration_ms: 500 });
    assert_eq!(Reload::parse("_HLS_msn=1").unwrap().answer(&window), Answer::Now);
    let behind = Reload::parse("_HLS_msn=1&_HLS_part=1").unwrap();
    assert_eq!(behind.answer(&window), Answer::Wait);
    for query in
        ["_HLS_part=1", "_HLS_msn=-1", "_HLS_msn=", "_HLS_msn=1&_HLS_part=x", "_HLS_msn=+1"]
    {
        assert!(Reload::parse(query).is_err(), "{query}");
    }
}

#[test]
fn a_multivariant_playlist_passes_the_validator() {
    let variants = [
        multivariant::Variant {
            uri: "x.m3u8?s=1",
            bandwidth: 2_000_000,
            codecs: "avc1.64001f,mp4a.40.2",
            resolution: (1280, 720),
        },
        multivariant::Variant { uri: "a.m3u8", bandwidth: 0, codecs: "", resolution: (0, 0) },
    ];
    let mut out = String::new();
    multivariant::write(&variants, true, &mut out);
    assert_eq!(validate::multivariant(&out), [], "{out}");
    assert!(
        out.contains("BANDWIDTH=2000000,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720\n")
    );
}

#[test]
fn a_window_behind_another_one_goes_on_with_its_numbers() {
    let mut window = Window::new(WindowSettings { listed: 2, behind: 1 });
    for sequence in 0..4 {
        whole(&mut window, sequence, 1, sequence == 1 || sequence == 3);
    }
    assert_eq!(window.discontinuities(), 2);
    let next = Window::following(WindowSettings::default(), 4, window.discontinuities());
    assert_eq!(
        (next.first_sequence(), next.next_part(), next.discontinuity_sequence()),
        (4, (4, 0), 2)
    );
    let mut next = next;
    whole(&mut next, 4, 1, true);
    let out = text(&next, None, false);
    assert!(
        out.contains("MEDIA-SEQUENCE:4\n") && out.contains("DISCONTINUITY-SEQUENCE:3\n"),
        "{out}"
    );
}

#[test]
fn a_window_gives_up_old_segments_for_want_of_memory_but_never_its_last() {
    let mut window = Window::new(WindowSettings { listed: 3, behind: 2 });
    for sequence in 0..4 {
        whole(&mut window, sequence, 1, sequence == 1);
    }
    begin(&mut window, 4, 1, false);
    assert_eq!(window.first_sequence(), 1);
    assert_eq!([window.forget_oldest(), window.forget_oldest()], [Some(0), Some(1)]);
    assert_eq!((window.first_sequence(), window.discontinuity_sequence()), (2, 1));
    assert_eq!([window.forget_oldest(), window.forget_oldest()], [Some(2), None]);
    text(&window, Some(500), false);
}

#[test]
fn a_report_names_the_last_part_that_is_there() {
    let mut window = Window::new(WindowSettings::default());
    assert_eq!(Report::at("x", window.edge()), None);
    begin(&mut window, 0, 1, false);
    part(&mut window, 0, 0, 500);
    let at = |window: &Window| {
        Report::at("x", window.edge()).map(|report| (report.last_msn, report.last_part))
    };
    assert_eq!(at(&window), Some((0, Some(0))));
    part(&mut window, 0, 1, 500);
    window.apply(&Event::End { sequence: 0, duration_ms: 1000 });
    assert_eq!(at(&window), Some((0, Some(1))));
    begin(&mut window, 1, 1, false);
    part(&mut window, 1, 0, 500);
    assert_eq!(at(&window), Some((1, Some(0))));
    let beside = window.beside();
    assert_eq!((beside.next_part(), beside.segment_ms_longest()), ((1, 0), 1000));
}

#[test]
fn a_window_that_goes_on_elsewhere_keeps_what_the_settings_there_allow() {
    let mut window = Window::new(WindowSettings { listed: 6, behind: 3 });
    for sequence in 0..12 {
        whole(&mut window, sequence, 1, sequence == 5);
    }
    begin(&mut window, 12, 1, false);
    part(&mut window, 12, 0, 500);
    let before = text(&window, Some(500), false);
    let same = window.clone().resume(WindowSettings { listed: 6, behind: 3 }).unwrap();
    assert_eq!(text(&same, Some(500), false), before);
    let mut fewer = window.clone().resume(WindowSettings { listed: 3, behind: 1 }).unwrap();
    assert_eq!(fewer.first_sequence(), 9);
    assert_eq!(fewer.kept().next().map(|segment| segment.sequence), Some(8));
    assert_eq!((fewer.discontinuities(), fewer.next_part()), (1, (12, 1)));
    fewer.join_parts(10);
    let parts: Vec<usize> = fewer.kept().map(|segment| segment.parts.len()).collect();
    assert_eq!(parts, [0, 0, 0, 4, 1]);
    text(&fewer, Some(500), false);
    let more = window.clone().resume(WindowSettings { listed: 20, behind: 9 }).unwrap();
    assert_eq!(more, window.resume(WindowSettings { listed: 20, behind: 9 }).unwrap());
}
