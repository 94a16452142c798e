//! The timeline of a stream: what passes through, what is repaired, what goes on over sessions.

use live::timeline::{
    BACKWARD_MS_MAX, FORWARD_MS_MAX, GAP_MS_MAX, GAP_MS_MIN, START_MS, Timeline, Track,
};
use proptest::prelude::*;

const AUDIO: Track = Track::Audio;
const VIDEO: Track = Track::Video;

/// A publisher in real time: video every 40 ms, audio every 20 ms, timestamps from `base`.
struct Feed {
    timeline: Timeline,
    now_ms: u64,
    base: u32,
}

impl Feed {
    fn new(base: u32) -> Self {
        let mut timeline = Timeline::new();
        timeline.begin_session(0);
        Self { timeline, now_ms: 0, base }
    }

    fn media(&mut self, track: Track, at_ms: u32) -> u32 {
        self.timeline.map(self.now_ms, track, self.base.wrapping_add(at_ms), false)
    }

    /// Plays from `from_ms` up to `to_ms` and returns what audio and video got there last.
    fn play(&mut self, from_ms: u32, to_ms: u32) -> (u32, u32) {
        let (mut audio, mut video) = (0, 0);
        for at_ms in (from_ms..=to_ms).step_by(20) {
            audio = self.media(AUDIO, at_ms);
            if at_ms % 40 == 0 {
                video = self.media(VIDEO, at_ms);
            }
            self.now_ms += 20;
        }
        (audio, video)
    }

    fn repairs(&self) -> u64 {
        let counters = self.timeline.counters();
        counters.forward_jumps + counters.backward_jumps
    }
}

#[test]
fn a_publisher_that_starts_at_zero_keeps_its_timestamps() {
    let mut feed = Feed::new(0);
    assert_eq!(feed.play(0, 10_000), (10_000, 10_000));
    assert_eq!(feed.repairs(), 0);
}

#[test]
fn a_publisher_that_starts_elsewhere_is_moved_near_zero() {
    let mut feed = Feed::new(123_456_789);
    assert_eq!(feed.media(VIDEO, 0), START_MS);
    // Audio that belongs before the first video keeps its distance.
    assert_eq!(feed.media(AUDIO, 0u32.wrapping_sub(80)), START_MS - 80);
    assert_eq!(feed.media(VIDEO, 40), START_MS + 40);
}

#[test]
fn a_publisher_that_starts_just_before_the_wrap_goes_over_it() {
    let mut feed = Feed::new(0xFFFF_FFF0);
    assert_eq!(feed.media(VIDEO, 0), START_MS);
    assert_eq!(feed.media(AUDIO, 10), START_MS + 10);
    assert_eq!(feed.media(VIDEO, 40), START_MS + 40);
    assert_eq!(feed.play(60, 60_000), (START_MS + 60_000, START_MS + 60_000));
    assert_eq!(feed.repairs(), 0);
}

#[test]
fn a_stream_may_begin_as_if_it_had_run_for_long() {
    for edge in [1u32 << 24, 1 << 31, 0] {
        let start = edge.wrapping_sub(2_000);
        let mut feed = Feed::new(0);
        feed.timeline = Timeline::starting_at(start);
        feed.timeline.begin_session(0);
        assert_eq!(feed.timeline.map(0, VIDEO, 0, true), start, "a sequence header");
        assert_eq!(feed.media(VIDEO, 80), start, "edge {edge:#x}");
        // Audio that belongs before the first video keeps its distance.
        assert_eq!(feed.media(AUDIO, 0), start.wrapping_sub(80));
        let end = start.wrapping_add(9_920);
        assert_eq!(feed.play(100, 10_000), (end, end));
        assert_eq!(feed.repairs(), 0);
        feed.timeline.begin_session(feed.now_ms);
        assert_eq!(feed.media(VIDEO, 0), end.wrapping_add(GAP_MS_MIN), "a publisher that returns");
    }
    let mut feed = Feed::new(0);
    feed.timeline = Timeline::starting_at(0);
    assert_eq!(feed.media(VIDEO, 7), 7, "0 is the usual beginning");
}

#[test]
fn the_streams_own_timeline_passes_24_bits_and_wraps_at_32_bits() {
    let mut timeline = Timeline::new();
    let step_ms = 1_000_000;
    let mut expected = 0u32;
    for turn in 0..10_000u64 {
        let now_ms = turn * step_ms;
        let input = u32::try_from((turn * step_ms) % (1 << 32)).unwrap();
        assert_eq!(timeline.map(now_ms, VIDEO, input, false), expected, "turn {turn}");
        expected = expected.wrapping_add(1_000_000);
    }
    assert_eq!(timeline.counters().forward_jumps, 0);
}

#[test]
fn crossing_0xffffff_and_2_to_32_is_exact_for_both_kinds() {
    for edge in [0x00FF_FFFFu32, 0xFFFF_FFFF, 0x7FFF_FFFF] {
        let mut feed = Feed::new(edge.wrapping_sub(1_000));
        let start = feed.media(VIDEO, 0);
        let (audio, video) = feed.play(20, 2_000);
        assert_eq!((audio - start, video - start), (2_000, 2_000), "edge {edge:#x}");
        assert_eq!(feed.repairs(), 0);
    }
}

#[test]
fn a_publisher_whose_timestamps_are_always_zero_is_left_alone() {
    let mut timeline = Timeline::new();
    for turn in 0..5_000u64 {
        assert_eq!(timeline.map(turn * 40, VIDEO, 0, false), 0);
        assert_eq!(timeline.map(turn * 40, AUDIO, 0, false), 0);
    }
    assert_eq!(timeline.counters().forward_jumps + timeline.counters().backward_jumps, 0);
    timeline.begin_session(5_000 * 40 + 3_000);
    assert_eq!(timeline.map(203_000, VIDEO, 0, false), 3_040);
}

#[test]
fn small_disorder_passes_through() {
    let mut feed = Feed::new(0);
    feed.play(0, 2_000);
    assert_eq!(feed.media(VIDEO, 1_100), 1_100);
    assert_eq!(feed.media(AUDIO, 1_020), 1_020);
    assert_eq!(feed.media(VIDEO, 2_040), 2_040);
    assert_eq!(feed.media(AUDIO, 6_900), 6_900);
    assert_eq!(feed.repairs(), 0);
}

#[test]
fn a_constant_distance_of_the_kinds_is_no_jump() {
    let mut timeline = Timeline::new();
    for turn in 0..1_000u32 {
        let now_ms = u64::from(turn) * 40;
        assert_eq!(timeline.map(now_ms, VIDEO, 8_000 + turn * 40, false), START_MS + turn * 40);
        let audio = timeline.map(now_ms, AUDIO, 5_000 + turn * 40, false);
        // Three seconds behind, but never before the stream's beginning.
        assert_eq!(audio, (START_MS + turn * 40).saturating_sub(3_000));
    }
    assert_eq!(timeline.counters().backward_jumps, 0);
}

#[test]
fn a_forward_jump_is_taken_out_once_for_both_kinds() {
    for first in [AUDIO, VIDEO] {
        let second = if first == AUDIO { VIDEO } else { AUDIO };
        let mut feed = Feed::new(0);
        feed.play(0, 10_000);
        let one = feed.media(first, 3_610_020);
        let two = feed.media(second, 3_610_043);
        assert_eq!(two - one, 23, "{first:?} first: the relation of the kinds is kept");
        assert!((10_000..10_100).contains(&one), "{one}");
        assert_eq!(feed.repairs(), 1);
        assert_eq!(feed.timeline.counters().rejoined, 1);
        assert_eq!(feed.media(first, 3_610_060) - one, 40);
    }
}

#[test]
fn a_backward_jump_is_taken_out_once_for_both_kinds() {
    let mut feed = Feed::new(0);
    feed.play(0, 10_000);
    let video = feed.media(VIDEO, 0);
    let audio = feed.media(AUDIO, 10);
    assert_eq!(audio - video, 10);
    assert!((10_000..10_100).contains(&video));
    assert_eq!(feed.repairs(), 1);
}

#[test]
fn messages_sent_before_the_jump_and_arriving_after_it_keep_their_place() {
    let mut feed = Feed::new(0);
    feed.play(0, 10_000);
    let video = feed.media(VIDEO, 500_040);
    assert_eq!(feed.media(AUDIO, 10_020), 10_020, "audio has not jumped yet");
    assert_eq!(feed.media(AUDIO, 10_040), 10_040);
    let audio = feed.media(AUDIO, 500_060);
    assert_eq!(audio - video, 20, "now it has");
    assert_eq!(feed.repairs(), 1);
}

#[test]
fn a_jump_seen_as_gross_by_one_kind_only_moves_the_other_along() {
    // Just over the limit for video, just under it for audio.
    for jump_ms in [5_030u32, 1_010u32.wrapping_neg()] {
        let mut feed = Feed::new(0);
        feed.play(0, 10_000);
        let video = feed.media(VIDEO, 10_000u32.wrapping_add(jump_ms));
        let audio = feed.media(AUDIO, 10_020u32.wrapping_add(jump_ms));
        assert_eq!(audio.wrapping_sub(video), 20);
        assert_eq!(feed.repairs(), 1);
    }
}

#[test]
fn one_wild_timestamp_leaves_no_trace() {
    for kinds in [&[VIDEO][..], &[VIDEO, AUDIO][..]] {
        let mut feed = Feed::new(0);
        for at_ms in (0..=100_000).step_by(40) {
            for &kind in kinds {
                feed.media(kind, at_ms);
            }
            feed.now_ms += 40;
        }
        let wild = feed.media(VIDEO, 7_777_777);
        assert!((100_000..100_100).contains(&wild));
        assert_eq!(feed.media(VIDEO, 100_080), 100_080);
        if kinds.len() == 2 {
            assert_eq!(feed.media(AUDIO, 100_080), 100_080);
        }
        assert_eq!(feed.repairs(), 1);
    }
}

#[test]
fn a_looped_file_goes_on() {
    let mut feed = Feed::new(0);
    let (_, mut last) = feed.play(0, 60_000);
    for turn in 1..5 {
        let (audio, video) = feed.play(0, 60_000);
        assert_eq!(audio, video);
        assert!((last + 60_000..last + 60_100).contains(&video), "turn {turn}: {last} {video}");
        last = video;
        assert_eq!(feed.repairs(), turn);
    }
}

#[test]
fn a_pause_by_the_clock_is_no_jump() {
    let mut feed = Feed::new(0);
    feed.play(0, 1_000);
    feed.now_ms += 120_000;
    assert_eq!(feed.media(VIDEO, 121_000), 121_000);
    assert_eq!(feed.media(AUDIO, 121_000), 121_000);
    assert_eq!(feed.repairs(), 0);
}

#[test]
fn a_publisher_that_fell_behind_and_drops_frames_may_catch_up() {
    let mut timeline = Timeline::new();
    // Half speed for 16 s: 8 s behind. Then the encoder drops its queue.
    for turn in 0..400u32 {
        timeline.map(u64::from(turn) * 40, VIDEO, turn * 20, false);
    }
    assert_eq!(timeline.map(16_000, VIDEO, 16_000, false), 16_000);
    assert_eq!(timeline.counters().forward_jumps, 0);
}

#[test]
fn a_file_sent_faster_than_real_time_passes_through() {
    let mut timeline = Timeline::new();
    for turn in 0..50_000u32 {
        assert_eq!(timeline.map(u64::from(turn / 100), AUDIO, turn * 20, false), turn * 20);
        if turn % 500 == 0 {
            // A slide every ten seconds of the file.
            assert_eq!(timeline.map(u64::from(turn / 100), VIDEO, turn * 20, false), turn * 20);
        }
    }
    assert_eq!(timeline.counters().forward_jumps, 0);
}

#[test]
fn configuration_with_timestamp_zero_in_mid_stream_moves_nothing() {
    let mut feed = Feed::new(0);
    feed.play(0, 90_000);
    let now_ms = feed.now_ms;
    assert_eq!(feed.timeline.map(now_ms, VIDEO, 0, true), 90_000);
    assert_eq!(feed.timeline.map(now_ms, AUDIO, 0, true), 90_000);
    assert_eq!(feed.timeline.map(now_ms, Track::Data, 0, false), 90_000);
    assert_eq!(feed.timeline.map(now_ms, VIDEO, 90_040, true), 90_040, "a sound one keeps its own");
    assert_eq!(feed.media(VIDEO, 90_040), 90_040);
    assert_eq!(feed.media(AUDIO, 90_020), 90_020);
    assert_eq!(feed.repairs(), 0);
    assert_eq!(feed.timeline.counters().replaced, 3);
}

#[test]
fn configuration_before_the_first_media_does_not_anchor_the_session() {
    let mut timeline = Timeline::new();
    timeline.begin_session(0);
    assert_eq!(timeline.map(0, Track::Data, 0, true), 0);
    assert_eq!(timeline.map(0, VIDEO, 0, true), 0);
    assert_eq!(timeline.map(0, VIDEO, 3_600_000, false), START_MS);
    timeline.begin_session(2_000);
    assert_eq!(timeline.map(2_000, VIDEO, 0, true), START_MS + 2_000);
    assert_eq!(timeline.map(2_000, VIDEO, 7_000_000, false), START_MS + 2_000);
    assert_eq!(timeline.counters().replaced, 0);
}

#[test]
fn a_returning_publisher_continues_after_the_time_that_went_by() {
    let mut feed = Feed::new(0);
    feed.play(0, 10_000);
    feed.now_ms += 6_980; // 7 s after the last message
    feed.timeline.begin_session(feed.now_ms);
    assert_eq!(feed.media(VIDEO, 0), 17_000);
    assert_eq!(feed.media(AUDIO, 20), 17_020);
    assert_eq!(feed.repairs(), 0);
    assert_eq!(feed.timeline.counters().sessions, 2);
}

#[test]
fn a_publisher_that_goes_on_with_its_old_timestamps_is_continued_the_same_way() {
    let mut feed = Feed::new(0);
    feed.play(0, 10_000);
    feed.timeline.begin_session(feed.now_ms + 980);
    assert_eq!(feed.media(VIDEO, 11_000), 11_000);
}

#[test]
fn the_gap_of_a_takeover_is_bounded_at_both_ends() {
    let mut timeline = Timeline::new();
    timeline.map(500, VIDEO, 700, false);
    timeline.begin_session(500);
    assert_eq!(timeline.map(500, VIDEO, 9, false), 700 + GAP_MS_MIN);
    timeline.begin_session(u64::MAX);
    assert_eq!(timeline.map(u64::MAX, VIDEO, 5, false), 700 + GAP_MS_MIN + GAP_MS_MAX);
}

#[test]
fn nothing_of_a_new_session_goes_before_the_end_of_the_old_one() {
    let mut feed = Feed::new(0);
    feed.play(0, 10_000);
    feed.timeline.begin_session(feed.now_ms);
    assert_eq!(feed.media(VIDEO, 5_000), 10_000 + GAP_MS_MIN);
    assert_eq!(feed.media(AUDIO, 4_900), 10_000, "60 ms before the end");
    assert_eq!(feed.media(AUDIO, 4_990), 10_030);
    assert_eq!(feed.timeline.counters().floored, 1);
}

#[test]
fn a_session_without_media_changes_nothing() {
    let mut timeline = Timeline::new();
    timeline.map(0, VIDEO, 1_000, false);
    timeline.begin_session(1_000);
    timeline.begin_session(4_000);
    assert_eq!(timeline.map(4_000, VIDEO, 0, false), 2_000);
}

#[test]
fn kinds_that_do_not_share_a_clock_are_put_side_by_side() {
    let mut timeline = Timeline::new();
    timeline.map(0, VIDEO, 3_000_000_000, false);
    assert_eq!(timeline.map(10, AUDIO, 0, false), START_MS);
    assert_eq!(timeline.map(40, VIDEO, 3_000_000_040, false), START_MS + 40);
    assert_eq!(timeline.map(50, AUDIO, 40, false), START_MS + 40);
}

#[test]
fn a_kind_that_has_not_jumped_stays_even_where_the_new_offset_would_fit_too() {
    let mut timeline = Timeline::new();
    // Half speed: the stream is 8 s behind the clock, so 8 s forward would be no surprise.
    for turn in 0..400u32 {
        timeline.map(u64::from(turn) * 40, VIDEO, turn * 20, false);
        timeline.map(u64::from(turn) * 40, AUDIO, turn * 20, false);
    }
    assert_eq!(timeline.map(16_000, VIDEO, 6_000, false), 8_020);
    assert_eq!(timeline.map(16_000, AUDIO, 8_000, false), 8_000);
    assert_eq!(timeline.map(16_000, AUDIO, 6_020, false), 8_040);
}

#[test]
fn a_jump_while_the_clock_stands_still_costs_one_frame() {
    let mut timeline = Timeline::new();
    for turn in 0..100u32 {
        timeline.map(0, VIDEO, turn * 40, false);
    }
    assert_eq!(timeline.map(0, VIDEO, 0, false), 4_000);
    assert_eq!(timeline.map(0, VIDEO, 40, false), 4_040);
}

#[test]
fn a_kind_that_was_silent_does_not_overtake_the_stream() {
    let mut timeline = Timeline::new();
    timeline.map(0, AUDIO, 0, false);
    for turn in 0..2_500u64 {
        timeline.map(turn * 40, VIDEO, 0, false);
    }
    // 100 s by the clock, but the stream stands; 30 s is what it may catch up.
    assert_eq!(timeline.map(100_000, AUDIO, 3_600_000, false), 30_040);
}

#[derive(Clone, Debug)]
struct Step {
    track: Track,
    clock_ms: u32,
    advance_ms: i32,
}

fn steps(advance_ms: core::ops::Range<i32>) -> impl Strategy<Value = Vec<Step>> {
    let step =
        (any::<bool>(), 0u32..200, advance_ms).prop_map(|(is_video, clock_ms, advance_ms)| Step {
            track: if is_video { VIDEO } else { AUDIO },
            clock_ms,
            advance_ms,
        });
    prop::collection::vec(step, 1..300)
}

fn signed(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

proptest! {
    #[test]
    fn distances_are_preserved_exactly_without_gross_jumps(
        base in any::<u32>(),
        steps in steps(-30..500),
    ) {
        let mut timeline = Timeline::new();
        let mut now_ms = 0u64;
        let mut at = base;
        let mut offset = None;
        for step in steps {
            now_ms += u64::from(step.clock_ms);
            // Keep clear of the floor: the first message is the furthest back.
            at = if offset.is_none() { base } else { at.wrapping_add_signed(step.advance_ms) };
            if signed(base, at) < 0 {
                at = base;
            }
            let out = timeline.map(now_ms, step.track, at, false);
            prop_assert_eq!(*offset.get_or_insert(out.wrapping_sub(at)), out.wrapping_sub(at));
        }
        prop_assert!(timeline.counters().forward_jumps + timeline.counters().backward_jumps == 0);
    }

    #[test]
    fn each_kind_is_in_order_if_its_input_is(steps in steps(0..20_000)) {
        let mut timeline = Timeline::new();
        let mut now_ms = 0u64;
        let (mut input, mut last) = ([0u32; 2], [None::<u32>; 2]);
        for step in steps {
            now_ms += u64::from(step.clock_ms);
            let kind = usize::from(step.track == VIDEO);
            input[kind] += step.advance_ms.unsigned_abs();
            let out = timeline.map(now_ms, step.track, input[kind], false);
            if let Some(last) = last[kind].replace(out) {
                prop_assert!(signed(last, out) >= 0, "{last} {out}");
            }
        }
    }

    #[test]
    fn the_output_never_jumps_whatever_the_input(
        messages in prop::collection::vec(
            (0u8..8, prop_oneof![any::<u32>(), 0u32..20_000, 4_294_900_000u32..], 0u64..3_000),
            1..400,
        ),
    ) {
        let mut timeline = Timeline::new();
        let (mut now_ms, mut newest_at_ms) = (0u64, 0u64);
        let mut newest = None::<u32>;
        let mut last = [None::<u32>; 2];
        for (what, timestamp, clock_ms) in messages {
            now_ms += clock_ms;
            let kind = usize::from(what & 1);
            let track = if kind == 1 { VIDEO } else { AUDIO };
            match what {
                6 => { timeline.map(now_ms, track, timestamp, true); continue; }
                7 if clock_ms < 300 => { timeline.begin_session(now_ms); continue; }
                _ => {}
            }
            let out = timeline.map(now_ms, track, timestamp, false);
            if let Some(last) = last[kind].replace(out) {
                prop_assert!(signed(last, out) >= -BACKWARD_MS_MAX.cast_signed(), "{last} {out}");
            }
            if let Some(newest) = newest {
                let gone_ms = i64::try_from(now_ms - newest_at_ms).unwrap().max(i64::from(GAP_MS_MIN));
                let ahead_ms = i64::from(signed(newest, out));
                // 30 s: what a stream behind the clock may catch up.
                prop_assert!(ahead_ms <= gone_ms + i64::from(FORWARD_MS_MAX) + 30_000);
            }
            if newest.is_none_or(|newest| signed(newest, out) > 0) {
                newest = Some(out);
            }
            newest_at_ms = now_ms;
            prop_assert_eq!(timeline.newest(), newest.unwrap());
        }
    }

    #[test]
    fn a_jump_of_both_kinds_keeps_their_relation(
        jump_ms in prop_oneof![6_000i32..i32::MAX / 2, -(i32::MAX / 2)..-2_000],
        video_first in any::<bool>(),
        late in 0u32..5,
        pause_ms in 0u64..2_000,
    ) {
        let mut feed = Feed::new(50_000_000);
        feed.play(0, 20_000);
        let (first, second) = if video_first { (VIDEO, AUDIO) } else { (AUDIO, VIDEO) };
        feed.now_ms += pause_ms;
        let pause = u32::try_from(pause_ms).unwrap();
        let jumped = |at_ms: u32| at_ms.wrapping_add_signed(jump_ms);
        let one = feed.media(first, jumped(20_040 + pause));
        let base = signed(20_040, feed.timeline.newest());
        for turn in 1..=late {
            feed.media(second, 20_000 + turn * 20);
        }
        feed.now_ms += 40;
        let two = feed.media(second, jumped(20_140 + pause));
        prop_assert_eq!(signed(one, two), 100, "base {}", base);
        prop_assert_eq!(feed.repairs(), 1);
    }
}
