//! Where parts and segments are cut.

use std::vec::Vec;

use super::*;
use crate::playlist::window::WindowSettings;

const AVC_CONFIG: [u8; 19] =
    [0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1F, 0xFF, 0xE1, 0, 1, 0x67, 1, 0, 1, 0x68, 0];
const AAC_CONFIG: [u8; 4] = [0xAF, 0, 0x12, 0x10];
const KEY: [u8; 10] = [0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65];
const INTER: [u8; 10] = [0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41];
const SOUND: [u8; 4] = [0xAF, 1, 0x21, 0x10];

struct Bench {
    segmenter: Segmenter,
    out: Output,
}

impl Bench {
    fn new(container: Container) -> Self {
        Self { segmenter: Segmenter::new(Settings::new(container)), out: Output::default() }
    }

    fn push(&mut self, kind: u8, timestamp: u32, body: &[u8]) {
        let wall_ms = 1_000_000 + u64::from(timestamp);
        self.segmenter.push(kind, timestamp, body, wall_ms, &mut self.out);
    }

    /// Pictures every 40 ms from `from_ms`, a keyframe every `gop`th.
    fn pictures(&mut self, from_ms: u32, count: u32, gop: u32) {
        for at in 0..count {
            let body = if at % gop == 0 { &KEY } else { &INTER };
            self.push(9, from_ms.wrapping_add(at * 40), body);
        }
    }

    fn finish(&mut self) -> Vec<Event> {
        self.segmenter.finish(&mut self.out);
        core::mem::take(&mut self.out.events)
    }
}

fn ends(events: &[Event]) -> Vec<u32> {
    let end = |event: &Event| match event {
        Event::End { duration_ms, .. } => Some(*duration_ms),
        _ => None,
    };
    events.iter().filter_map(end).collect()
}

fn parts(events: &[Event]) -> Vec<u32> {
    let part = |event: &Event| match event {
        Event::Part { duration_ms, .. } => Some(*duration_ms),
        _ => None,
    };
    events.iter().filter_map(part).collect()
}

#[test]
fn segments_end_at_keyframes_and_parts_at_their_target() {
    for container in [Container::Ts, Container::Fmp4] {
        let mut bench = Bench::new(container);
        bench.push(9, 0, &AVC_CONFIG);
        bench.pictures(0, 150, 50);
        let events = bench.finish();
        assert_eq!(ends(&events), [2000, 2000, 2000]);
        assert!(parts(&events).iter().all(|&part_ms| part_ms == 200), "{:?}", parts(&events));
        assert_eq!(bench.segmenter.counters(), Counters::default());
    }
}

#[test]
fn events_come_in_order_and_cover_all_bytes() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(9, 0, &AVC_CONFIG);
    bench.push(8, 0, &AAC_CONFIG);
    for at in 0..100 {
        bench.push(9, at * 40, if at % 50 == 0 { &KEY } else { &INTER });
        bench.push(8, at * 40, &SOUND);
    }
    let events = bench.finish();
    let mut covered = 0;
    for event in &events {
        if let Event::Init { bytes, .. } | Event::Part { bytes, .. } = event {
            assert_eq!(bytes.start, covered);
            covered = bytes.end;
        }
    }
    assert_eq!(covered, bench.out.bytes.len());
    let Event::Init { generation: 1, codecs, .. } = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!(codecs, "avc1.64001f,mp4a.40.2");
    let Event::Begin { sequence: 0, discontinuity: false, date_ms, .. } = events[1] else {
        panic!("{:?}", events[1])
    };
    assert_eq!(date_ms, 1_000_000);
}

#[test]
fn a_stream_without_keyframes_starts_late_and_is_cut_by_force() {
    let mut bench = Bench::new(Container::Ts);
    bench.push(9, 0, &AVC_CONFIG);
    for at in 0..500 {
        bench.push(9, at * 40, &INTER);
    }
    let events = bench.finish();
    assert_eq!(ends(&events), [6000, 6000, 2000]);
    assert_eq!(bench.segmenter.counters().forced_cuts, 2);
    assert_eq!(bench.segmenter.counters().dropped, 150);
    let independent = |event: &Event| matches!(event, Event::Begin { independent: true, .. });
    assert!(!events.iter().any(independent));
    // Each segment of MPEG-TS brings what a decoder must know, keyframe or not.
    let sets = [0, 0, 0, 1, 0x67, 0, 0, 0, 1, 0x68];
    let brought = bench.out.bytes.windows(sets.len()).filter(|window| *window == sets).count();
    assert_eq!(brought, 3);
}

#[test]
fn sound_alone_starts_after_a_short_wait_and_is_cut_at_the_target() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(8, 0, &AAC_CONFIG);
    for at in 0..220 {
        bench.push(8, at * 23, &SOUND);
    }
    let events = bench.finish();
    let lengths = ends(&events);
    assert_eq!(lengths.len(), 3);
    assert!((1900..=2000).contains(&lengths[0]), "{lengths:?}");
}

#[test]
fn a_repeated_configuration_changes_nothing_and_another_is_a_discontinuity() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(9, 0, &AVC_CONFIG);
    bench.pictures(0, 25, 50);
    bench.push(9, 1000, &AVC_CONFIG);
    bench.pictures(1000, 25, 50);
    let mut other = AVC_CONFIG;
    other[8] = 0x28;
    bench.push(9, 2000, &other);
    bench.push(9, 2000, &INTER);
    bench.pictures(2040, 25, 50);
    let events = bench.finish();
    let begins: Vec<_> = events
        .iter()
        .filter_map(|event| match *event {
            Event::Begin { generation, discontinuity, .. } => Some((generation, discontinuity)),
            _ => None,
        })
        .collect();
    assert_eq!(begins, [(1, false), (2, true)]);
    assert_eq!(bench.segmenter.counters().dropped, 1, "the picture before the keyframe");
}

#[test]
fn a_republish_is_a_discontinuity_with_the_same_init() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(9, 0, &AVC_CONFIG);
    bench.pictures(0, 25, 50);
    bench.segmenter.discontinuity(&mut bench.out);
    bench.push(9, 9000, &AVC_CONFIG);
    bench.pictures(9000, 25, 50);
    let events = bench.finish();
    let inits = events.iter().filter(|event| matches!(event, Event::Init { .. })).count();
    assert_eq!(inits, 1);
    assert_eq!(ends(&events), [1000, 1000]);
    let second = Event::Begin {
        sequence: 1,
        generation: 1,
        discontinuity: true,
        independent: true,
        date_ms: 1_009_000,
    };
    assert!(events.contains(&second));
}

#[test]
fn time_goes_on_over_every_wrap() {
    for start_ms in [0x00FF_FFFF - 1999, u32::MAX - 1999, 95_443_717 - 3000] {
        for container in [Container::Ts, Container::Fmp4] {
            let mut bench = Bench::new(container);
            bench.push(9, start_ms, &AVC_CONFIG);
            bench.pictures(start_ms, 150, 50);
            assert_eq!(ends(&bench.finish()), [2000, 2000, 2000], "{start_ms}");
        }
    }
}

#[test]
fn sound_sets_the_pace_when_the_picture_stands_still() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(9, 0, &AVC_CONFIG);
    bench.push(8, 0, &AAC_CONFIG);
    bench.push(9, 0, &KEY);
    for at in 0..400 {
        bench.push(8, at * 23, &SOUND);
    }
    let events = bench.finish();
    assert!(ends(&events)[0] <= 6100, "{:?}", ends(&events));
    assert!(parts(&events).len() > 20);
}

#[test]
fn sound_ahead_of_the_last_picture_does_not_make_the_last_part_longer() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(9, 0, &AVC_CONFIG);
    bench.push(8, 0, &AAC_CONFIG);
    bench.pictures(0, 5, 50);
    for at in 0..12 {
        bench.push(8, at * 23, &SOUND);
    }
    let events = bench.finish();
    assert_eq!(parts(&events), [200]);
    assert_eq!(ends(&events), [200]);
}

#[test]
fn a_part_ends_at_its_byte_limit() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(9, 0, &AVC_CONFIG);
    bench.push(9, 0, &KEY);
    let mut large = std::vec![0; 3 << 20];
    large[..10].copy_from_slice(&INTER);
    for at in 0..10 {
        bench.push(9, 1 + at, &large);
        assert!(bench.segmenter.packer.payload_bytes() <= PART_BYTES_MAX + large.len());
    }
    assert!(parts(&bench.finish()).len() >= 3);
}

#[test]
fn a_stream_whose_clock_stands_still_is_cut_by_its_bytes() {
    for container in [Container::Ts, Container::Fmp4] {
        let mut bench = Bench::new(container);
        bench.push(9, 7, &AVC_CONFIG);
        bench.push(9, 7, &KEY);
        let mut large = std::vec![0; 6 << 20];
        large[..10].copy_from_slice(&[0x27, 1, 0, 0, 0, 0, 0x5F, 0xFF, 0xF7, 0x41]);
        let mut segments = 0;
        for _ in 0..40 {
            bench.push(9, 7, &large);
            segments += ends(&bench.out.events).len();
            bench.out.clear();
        }
        assert!(segments >= 2, "{segments}");
    }
}

#[test]
fn a_segment_cut_early_is_followed_by_one_that_ends_at_the_next_keyframe() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(9, 0, &AVC_CONFIG);
    bench.segmenter.cut_soon();
    bench.pictures(0, 150, 50);
    let events = bench.finish();
    assert_eq!(ends(&events), [200, 1800, 2000, 2000]);
    assert_eq!(bench.segmenter.counters().forced_cuts, 1);
    assert!(!events.iter().any(|e| matches!(e, Event::Begin { discontinuity: true, .. })));
}

#[test]
fn sound_alone_is_cut_where_the_whole_is() {
    for container in [Container::Ts, Container::Fmp4] {
        let mut bench = Bench::new(container);
        let settings = Settings { sound_alone: true, ..Settings::new(container) };
        bench.segmenter = Segmenter::new(settings);
        bench.push(9, 0, &AVC_CONFIG);
        bench.push(8, 0, &AAC_CONFIG);
        // Sound from 0 to 3 s only: two seconds of pictures follow in silence.
        for at in 0..125 {
            bench.push(9, at * 40, if at % 50 == 0 { &KEY } else { &INTER });
            if at < 75 {
                bench.push(8, at * 40, &SOUND);
            }
        }
        let events = bench.finish();
        assert_eq!(ends(&events), [2000, 2000, 1000]);
        let Event::Init { sound: Some(init), .. } = &events[0] else { panic!("{:?}", events[0]) };
        assert_eq!(init.codecs, "mp4a.40.2");
        let mut covered = init.bytes.end;
        for event in &events {
            let Event::Part { bytes, sound, .. } = event else { continue };
            assert_eq!(sound.start, covered);
            assert!(!sound.is_empty() && sound.len() <= bytes.len(), "{event:?}");
            covered = sound.end;
        }
        assert_eq!(covered, bench.out.sound.len());
        let heard = bench.out.sound.windows(SOUND.len() - 2).filter(|w| *w == &SOUND[2..]).count();
        assert_eq!(heard, 75);
        let has_picture = |bytes: &[u8]| bytes.windows(5).any(|window| window == &KEY[5..]);
        assert!(has_picture(&bench.out.bytes) && !has_picture(&bench.out.sound));
    }
}

#[test]
fn sound_is_not_written_twice_where_it_is_all_there_is() {
    let mut bench = Bench::new(Container::Fmp4);
    let settings = Settings { sound_alone: true, ..Settings::new(Container::Fmp4) };
    bench.segmenter = Segmenter::new(settings);
    bench.push(8, 0, &AAC_CONFIG);
    for at in 0..220 {
        bench.push(8, at * 23, &SOUND);
    }
    let events = bench.finish();
    assert!(matches!(&events[0], Event::Init { sound: None, .. }));
    assert!(bench.out.sound.is_empty());
}

#[test]
fn a_segmenter_behind_another_one_begins_with_a_discontinuity() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.segmenter = Segmenter::following(Settings::new(Container::Fmp4), 7);
    bench.push(9, 0, &AVC_CONFIG);
    bench.pictures(0, 50, 50);
    let events = bench.finish();
    assert!(matches!(events[1], Event::Begin { sequence: 7, discontinuity: true, .. }));
}

const OTHER_AAC_CONFIG: [u8; 4] = [0xAF, 0, 0x11, 0x90];
const MONO_AAC_CONFIG: [u8; 4] = [0xAF, 0, 0x12, 0x08];

/// Generation and codecs of each init segment.
fn inits(events: &[Event]) -> Vec<(u32, &str)> {
    let inits = events.iter().filter_map(|event| match event {
        Event::Init { generation, codecs, .. } => Some((*generation, codecs.as_str())),
        _ => None,
    });
    inits.collect()
}

/// Whether each segment is a discontinuity.
fn begins(events: &[Event]) -> Vec<bool> {
    let begin = |event: &Event| match event {
        Event::Begin { discontinuity, .. } => Some(*discontinuity),
        _ => None,
    };
    events.iter().filter_map(begin).collect()
}

/// Pictures and sound every 40 ms, a keyframe every second.
fn both(bench: &mut Bench, from: u32, to: u32) {
    for at in from..to {
        bench.push(9, at * 40, if at % 25 == 0 { &KEY } else { &INTER });
        bench.push(8, at * 40, &SOUND);
    }
}

#[test]
fn sound_configured_anew_waits_for_the_next_keyframe_and_no_picture_does() {
    for container in [Container::Ts, Container::Fmp4] {
        let mut bench = Bench::new(container);
        bench.push(9, 0, &AVC_CONFIG);
        bench.push(8, 0, &AAC_CONFIG);
        both(&mut bench, 0, 60);
        bench.push(8, 60 * 40, &OTHER_AAC_CONFIG);
        both(&mut bench, 60, 160);
        let events = bench.finish();
        // The keyframe at 3 s ends the segment that began at 2 s, though its target is 4 s.
        assert_eq!(ends(&events), [2000, 1000, 2000, 1400]);
        assert_eq!(begins(&events), [false, false, true, false]);
        assert_eq!(inits(&events).len(), 2);
        // The sound from 2.4 s to 3 s, and nothing else.
        assert_eq!(bench.segmenter.counters().dropped, 15);
        assert_eq!(parts(&events).iter().sum::<u32>(), 160 * 40);
    }
}

#[test]
fn a_configuration_taken_back_before_the_keyframe_was_none() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(9, 0, &AVC_CONFIG);
    bench.push(8, 0, &AAC_CONFIG);
    both(&mut bench, 0, 30);
    bench.push(8, 1200, &OTHER_AAC_CONFIG);
    bench.push(8, 1200, &AAC_CONFIG);
    both(&mut bench, 30, 75);
    let events = bench.finish();
    assert_eq!((begins(&events), inits(&events).len()), ([false, false].to_vec(), 1));
    assert_eq!(bench.segmenter.counters().dropped, 0);
}

/// Found by the simulation: the sound of a publisher that was lost came into force with its successor's.
#[test]
fn a_configuration_that_waited_is_gone_with_its_publisher() {
    for container in [Container::Ts, Container::Fmp4] {
        let run = |waiting: Option<&[u8]>| {
            let mut bench = Bench::new(container);
            bench.push(9, 0, &AVC_CONFIG);
            bench.push(8, 0, &AAC_CONFIG);
            both(&mut bench, 0, 30);
            if let Some(config) = waiting {
                bench.push(8, 1200, config);
            }
            bench.segmenter.discontinuity(&mut bench.out);
            bench.push(9, 1200, &AVC_CONFIG);
            bench.push(8, 1200, &MONO_AAC_CONFIG);
            both(&mut bench, 50, 75);
            bench.finish();
            bench.segmenter.tracks().audio.clone()
        };
        assert!(run(None).is_some());
        assert_eq!(run(Some(&OTHER_AAC_CONFIG)), run(None));
    }
}

#[test]
fn sound_that_joins_pictures_on_their_way_waits_for_the_next_keyframe() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(9, 0, &AVC_CONFIG);
    bench.pictures(0, 10, 25);
    bench.push(8, 400, &AAC_CONFIG);
    both(&mut bench, 10, 50);
    let events = bench.finish();
    let expected = [(1, "avc1.64001f"), (2, "avc1.64001f,mp4a.40.2")];
    assert_eq!(inits(&events), expected);
    assert_eq!(ends(&events), [1000, 1000]);
    assert_eq!(bench.segmenter.counters().dropped, 15);
}

#[test]
fn sound_alone_that_is_configured_anew_goes_on_at_once() {
    let mut bench = Bench::new(Container::Fmp4);
    bench.push(8, 0, &AAC_CONFIG);
    for at in 0..100 {
        bench.push(8, at * 23, &SOUND);
    }
    let before = bench.segmenter.counters().dropped;
    bench.push(8, 2300, &OTHER_AAC_CONFIG);
    for at in 100..150 {
        bench.push(8, at * 23, &SOUND);
    }
    let events = bench.finish();
    assert_eq!(bench.segmenter.counters().dropped, before, "no sound is lost");
    assert_eq!((inits(&events).len(), begins(&events).last()), (2, Some(&true)));
}

#[test]
fn a_publisher_that_returns_without_a_track_has_none() {
    let run = |again: &[(u8, &[u8])], frames: fn(&mut Bench)| {
        let mut bench = Bench::new(Container::Fmp4);
        bench.push(9, 0, &AVC_CONFIG);
        bench.push(8, 0, &AAC_CONFIG);
        both(&mut bench, 0, 25);
        bench.segmenter.discontinuity(&mut bench.out);
        for (kind, body) in again {
            bench.push(*kind, 1000, body);
        }
        frames(&mut bench);
        let events = bench.finish();
        assert!(begins(&events)[1]);
        let last = inits(&events).last().expect("an init segment").1;
        (inits(&events).len(), std::string::String::from(last))
    };
    let pictures = |bench: &mut Bench| bench.pictures(1000, 50, 25);
    let sound = |bench: &mut Bench| (25..150).for_each(|at| bench.push(8, at * 40, &SOUND));
    let all = |bench: &mut Bench| both(bench, 25, 75);
    let (avc, aac) = ((9, &AVC_CONFIG[..]), (8, &AAC_CONFIG[..]));
    assert_eq!(run(&[avc], pictures), (2, "avc1.64001f".into()));
    assert_eq!(run(&[aac], sound), (2, "mp4a.40.2".into()));
    // One that repeats nothing, or sends what it did not announce, is as it was.
    assert_eq!(run(&[], all), (1, "avc1.64001f,mp4a.40.2".into()));
    assert_eq!(run(&[avc], all), (1, "avc1.64001f,mp4a.40.2".into()));
    assert_eq!(run(&[avc, aac], pictures), (1, "avc1.64001f,mp4a.40.2".into()));
}

#[test]
fn the_sound_that_is_offered_alone_goes_on_where_there_is_none() {
    let settings = Settings { sound_alone: true, ..Settings::new(Container::Fmp4) };
    let mut bench = Bench { segmenter: Segmenter::new(settings), out: Output::default() };
    bench.push(9, 0, &AVC_CONFIG);
    bench.push(8, 0, &AAC_CONFIG);
    both(&mut bench, 0, 25);
    bench.segmenter.discontinuity(&mut bench.out);
    bench.push(9, 1000, &AVC_CONFIG);
    bench.pictures(1000, 50, 25);
    let events = bench.finish();
    let has_sound = |event: &Event| match event {
        Event::Part { sound, .. } => !sound.is_empty(),
        Event::Init { sound, .. } => sound.is_some(),
        _ => true,
    };
    assert!(events.iter().all(has_sound), "{events:?}");
}

#[test]
fn a_segmenter_and_its_window_know_each_other_at_every_moment() {
    let settings = WindowSettings { listed: 3, behind: 1 };
    let mut bench = Bench::new(Container::Fmp4);
    let mut window = Window::new(settings);
    bench.push(9, 0, &AVC_CONFIG);
    for at in 0..300 {
        let stale = window.clone();
        bench.push(9, at * 40, if at % 50 == 0 { &KEY } else { &INTER });
        let is_changed = bench.out.events.iter().any(|event| !matches!(event, Event::Init { .. }));
        for event in bench.out.events.drain(..) {
            window.apply(&event);
        }
        assert!(bench.segmenter.is_at(&window), "{at}");
        assert!(!is_changed || !bench.segmenter.is_at(&stale), "{at}");
        let resumed = window.clone().resume(settings).expect("a sound window");
        assert_eq!(resumed, window);
    }
}
