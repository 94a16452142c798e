//! What the meter shows for streams of known make.

use live::meter::{Gop, LONG_WINDOW_MS, Rates, SHORT_WINDOW_MS, StreamMeter};
use proptest::prelude::*;

/// 25 frames a second of 5,000 bytes with a keyframe every 50; 50 audio frames of 320 bytes.
fn steady(meter: &mut StreamMeter, from_ms: u64, seconds: u64) {
    for turn in 0..seconds * 50 {
        let now_ms = from_ms + turn * 20;
        let timestamp = u32::try_from(now_ms % (1 << 32)).unwrap();
        meter.audio(now_ms, timestamp, 320);
        if turn % 2 == 0 {
            meter.video(now_ms, timestamp, 5_000, turn % 100 == 0);
        }
    }
}

#[test]
fn a_meter_that_saw_nothing_shows_nothing() {
    let meter = StreamMeter::new();
    assert_eq!(meter.rates(1_000_000, SHORT_WINDOW_MS), Rates::default());
    assert_eq!(meter.last_gop(), None);
    assert_eq!(meter.keyframe_interval_ms(), None);
    assert_eq!(meter.encoded_milli_fps(), None);
    assert_eq!(meter.since_keyframe_ms(5), None);
    assert_eq!(meter.activity().any_ms, None);
}

#[test]
fn a_steady_stream_shows_its_rates_in_both_windows() {
    let mut meter = StreamMeter::new();
    steady(&mut meter, 1_000_000, 60);
    for window_ms in [SHORT_WINDOW_MS, LONG_WINDOW_MS] {
        let rates = meter.rates(1_060_000, window_ms);
        assert_eq!(rates.video_bps, 1_000_000);
        assert_eq!(rates.audio_bps, 128_000);
        assert_eq!(rates.video_milli_fps, 25_000);
        assert_eq!(rates.audio_milli_fps, 50_000);
    }
}

#[test]
fn a_young_stream_is_measured_over_its_age() {
    let mut meter = StreamMeter::new();
    steady(&mut meter, 777, 2);
    assert_eq!(meter.rates(2_777, LONG_WINDOW_MS).video_milli_fps, 25_000);
}

#[test]
fn the_first_keyframe_does_not_show_as_gigabits() {
    let mut meter = StreamMeter::new();
    meter.video(10, 0, 100_000, true);
    assert_eq!(meter.rates(10, SHORT_WINDOW_MS).video_bps, 1_600_000);
}

#[test]
fn rates_fall_to_zero_once_the_window_has_passed_over_silence() {
    let mut meter = StreamMeter::new();
    steady(&mut meter, 0, 40);
    // 62 of the 125 frames: those from 37,520 on.
    let halfway = meter.rates(42_500, SHORT_WINDOW_MS);
    assert_eq!(halfway.video_bps, 496_000);
    assert_eq!(meter.rates(45_500, SHORT_WINDOW_MS), Rates::default());
    assert_ne!(meter.rates(45_500, LONG_WINDOW_MS), Rates::default());
    assert_eq!(meter.rates(75_000, LONG_WINDOW_MS), Rates::default());
    assert_eq!(meter.rates(u64::MAX, LONG_WINDOW_MS), Rates::default());
}

#[test]
fn what_was_there_a_round_ago_is_not_counted_again() {
    let mut meter = StreamMeter::new();
    steady(&mut meter, 0, 31);
    // Just under, exactly, and well over one round of buckets later.
    for silence_ms in [29_000, 30_500, 61_000, 610_000] {
        let mut meter = meter.clone();
        let now_ms = 31_000 + silence_ms;
        meter.audio(now_ms, 0, 1_000);
        let rates = meter.rates(now_ms + 100, SHORT_WINDOW_MS);
        assert_eq!((rates.video_bps, rates.audio_milli_fps > 0), (0, true), "{silence_ms}");
        assert_eq!(rates.audio_bps, 8_000_000 / (5_000 + (now_ms + 100) % 500));
    }
}

#[test]
fn the_last_complete_gop_is_shown_and_the_open_one_is_not() {
    let mut meter = StreamMeter::new();
    for turn in 0..130u32 {
        meter.video(u64::from(turn) * 40, turn * 40, 100, turn % 50 == 0);
    }
    assert_eq!(meter.last_gop(), Some(Gop { ms: 2_000, frames: 50 }));
    assert_eq!(meter.encoded_milli_fps(), Some(25_000));
    assert_eq!(meter.since_keyframe_ms(5_000), Some(1_000));
}

#[test]
fn the_frame_rate_as_encoded_is_not_disturbed_by_bursts() {
    let mut meter = StreamMeter::new();
    // 30,000 / 1,001 frames a second, all of it arriving at once.
    for frame in 0..=60u32 {
        meter.video(5, frame * 1_001 / 30, 100, frame % 60 == 0);
    }
    assert_eq!(meter.last_gop(), Some(Gop { ms: 2_002, frames: 60 }));
    assert_eq!(meter.encoded_milli_fps(), Some(29_970));
}

#[test]
fn the_keyframe_interval_is_the_mean_of_the_last_eight_gops() {
    let mut meter = StreamMeter::new();
    let mut timestamp = 0u32;
    for gop in 0..20u32 {
        meter.video(0, timestamp, 1, true);
        timestamp += if gop % 2 == 0 { 1_000 } else { 3_000 };
    }
    assert_eq!(meter.keyframe_interval_ms(), Some(2_000));
    let mut two = StreamMeter::new();
    for timestamp in [0, 500, 2_000] {
        two.video(0, timestamp, 1, true);
    }
    assert_eq!(two.keyframe_interval_ms(), Some(1_000));
}

#[test]
fn gop_lengths_are_right_over_the_wrap_and_skip_jumps() {
    let mut meter = StreamMeter::new();
    meter.video(0, 0xFFFF_FC18, 1, true);
    meter.video(0, 1_000, 1, true);
    assert_eq!(meter.last_gop(), Some(Gop { ms: 2_000, frames: 1 }));
    meter.video(0, 500, 1, true); // back
    meter.video(0, 500, 1, true); // no time
    meter.video(0, 90_000_000, 1, true); // far ahead
    assert_eq!(meter.last_gop(), Some(Gop { ms: 2_000, frames: 1 }));
}

#[test]
fn a_gop_that_is_open_when_the_publisher_changes_is_forgotten() {
    let mut meter = StreamMeter::new();
    steady(&mut meter, 0, 4);
    meter.begin_session(10_000);
    assert_eq!(meter.last_gop(), None);
    assert_eq!(meter.since_keyframe_ms(10_000), None);
    meter.video(10_000, 10_000, 1, false);
    meter.video(10_040, 10_040, 1, true);
    assert_eq!(meter.last_gop(), None, "frames before the first keyframe are no GOP");
    assert_eq!(meter.totals().video_frames, 102);
    assert_eq!(meter.rates(10_040, SHORT_WINDOW_MS).video_milli_fps, 4_000);
}

#[test]
fn totals_and_last_activity_go_by_kind() {
    let mut meter = StreamMeter::new();
    meter.other(1, 50);
    meter.video(2, 0, 1_000, true);
    meter.video(3, 40, 100, false);
    meter.audio(4, 0, 10);
    meter.other(5, 7);
    let totals = meter.totals();
    assert_eq!((totals.video_bytes, totals.audio_bytes, totals.other_bytes), (1_100, 10, 57));
    assert_eq!((totals.video_frames, totals.keyframes, totals.audio_frames), (2, 1, 1));
    let activity = meter.activity();
    assert_eq!(activity.any_ms, Some(5));
    assert_eq!((activity.video_ms, activity.audio_ms), (Some(3), Some(4)));
}

proptest! {
    #[test]
    fn the_sum_of_a_window_agrees_with_a_list_of_all_messages(
        messages in prop::collection::vec((0u64..4_000, 0u32..100_000, any::<bool>()), 1..200),
        ask_after_ms in 0u64..40_000,
        window_buckets in 1u32..=60,
    ) {
        let mut meter = StreamMeter::new();
        let mut list = Vec::new();
        let mut now_ms = 12_345u64;
        for (gone_ms, bytes, is_video) in messages {
            now_ms += gone_ms;
            if is_video { meter.video(now_ms, 0, bytes, false) } else { meter.audio(now_ms, 0, bytes) }
            list.push((now_ms, u64::from(bytes), is_video));
        }
        let ask_ms = now_ms + ask_after_ms;
        let from_ms = (ask_ms / 500).saturating_sub(u64::from(window_buckets)) * 500;
        let ms = (ask_ms - from_ms.max(list[0].0)).max(500);
        let sum = |video: bool| -> u64 {
            list.iter().filter(|m| m.2 == video && m.0 >= from_ms).map(|m| m.1).sum()
        };
        let rates = meter.rates(ask_ms, window_buckets * 500);
        prop_assert_eq!(rates.video_bps, sum(true) * 8_000 / ms);
        prop_assert_eq!(rates.audio_bps, sum(false) * 8_000 / ms);
    }

    #[test]
    fn no_input_makes_it_panic(
        messages in prop::collection::vec(
            (any::<u64>(), any::<u32>(), any::<u32>(), any::<bool>(), any::<u32>()), 1..50),
    ) {
        let mut meter = StreamMeter::new();
        for (now_ms, timestamp, bytes, keyframe, window_ms) in messages {
            meter.video(now_ms, timestamp, bytes, keyframe);
            meter.rates(now_ms.wrapping_mul(3), window_ms);
            meter.since_keyframe_ms(window_ms.into());
            meter.encoded_milli_fps();
        }
    }
}
