//! Bodies of the fuzz targets, here so that a change of the crate that breaks one fails to
//! compile instead of failing at night. Each compares the crate with a reference that is slow and
//! obvious: the numbers a publisher gave, the messages it sent, and a plain copy of the ring.

#![allow(clippy::arithmetic_side_effects, reason = "numbers are made here, and are small")]

mod stream;

use crate::timeline::{
    BACKWARD_MS_MAX, FIRST_BACKWARD_MS_MAX, FORWARD_MS_MAX, GAP_MS_MAX, GAP_MS_MIN, SLACK_MS_MAX,
    START_MS, Timeline, Track,
};

pub use stream::stream;

/// A steady publisher is no further off the clock than this, in milliseconds.
const OFF_CLOCK_MS_MAX: u64 = 450;
/// Clock time that counts at most, in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// Sessions, messages and time from `data`: what happens, and by how much.
///
/// # Panics
/// When the timeline breaks a promise.
pub fn timeline(data: &[u8]) {
    let Some((&start, ops)) = data.split_first() else { return };
    let start_ms = u32::from(start & 0x3F) << 26;
    let mut model = Model::new(start_ms);
    for op in ops.chunks_exact(3) {
        let value = u16::from_be_bytes([op[1], op[2]]);
        match op[0] % 16 {
            0 => model.begin_session(),
            1 => model.now_ms += u64::from(value),
            2 => model.now_ms += u64::from(value) * 60_000,
            3 => model.jump(u32::from(value) << 16 | 1, op[0] & 0x10 != 0),
            4 => model.config(if op[0] & 0x10 != 0 { Track::Audio } else { Track::Video }),
            5 => model.config(Track::Data),
            what => {
                let track = usize::from(what & 1);
                // As fast as the clock, or a little off it.
                let step_ms = match what {
                    6..=11 => u32::from(value % 120),
                    12 | 13 => u32::from(value),
                    _ => u32::from(value % 2_000).wrapping_neg(),
                };
                model.media(track, step_ms, op[0] & 0x10 != 0);
            }
        }
    }
}

/// What a publisher gave and got.
struct Model {
    timeline: Timeline,
    now_ms: u64,
    start_ms: u32,
    /// Own timestamps of audio and video.
    own: [u32; 2],
    /// Of this session: what was given and got last, and when.
    last: [Option<(u32, u32, u64)>; 2],
    /// Furthest of what was got by media, and when anything was.
    newest: u32,
    newest_at_ms: u64,
    /// Distance of got and given, for as long as all steps of this session have kept to the clock.
    offset: Option<u32>,
    /// What was given first in this session, and when.
    first: Option<(u32, u64)>,
    is_steady: bool,
    sessions: u64,
    /// Some session has had media.
    has_media: bool,
}

impl Model {
    fn new(start_ms: u32) -> Self {
        let mut model = Self {
            timeline: Timeline::starting_at(start_ms),
            now_ms: 0,
            start_ms,
            own: [0; 2],
            last: [None; 2],
            newest: 0,
            newest_at_ms: 0,
            offset: None,
            first: None,
            is_steady: true,
            sessions: 0,
            has_media: false,
        };
        model.begin_session();
        model
    }

    fn begin_session(&mut self) {
        self.timeline.begin_session(self.now_ms);
        self.sessions += 1;
        self.has_media |= self.last.iter().any(Option::is_some);
        (self.last, self.offset, self.first) = ([None; 2], None, None);
        self.is_steady = true;
        assert_eq!(self.timeline.counters().sessions, self.sessions);
    }

    fn jump(&mut self, by: u32, is_one: bool) {
        self.own[0] = self.own[0].wrapping_add(by);
        if !is_one {
            self.own[1] = self.own[1].wrapping_add(by);
        }
        self.is_steady = false;
    }

    fn media(&mut self, track: usize, step_ms: u32, keeps_step: bool) {
        let gone_ms = self.last[track].map_or(0, |(_, _, at_ms)| self.now_ms - at_ms);
        // In step with the clock: what a publisher without any trouble sends.
        let step_ms = match keeps_step {
            true => u32::try_from(gone_ms.min(DAY_MS)).unwrap_or(0),
            false => step_ms,
        };
        let given = self.own[track].wrapping_add(step_ms);
        self.own[track] = given;
        self.note_steadiness(given, step_ms, gone_ms);
        let kind = if track == 0 { Track::Audio } else { Track::Video };
        let got = self.timeline.map(self.now_ms, kind, given, false);
        self.judge(track, given, got);
        let is_first = self.last.iter().all(Option::is_none);
        if is_first || distance(self.newest, got) > 0 {
            self.newest = got;
        }
        self.last[track] = Some((given, got, self.now_ms));
        self.newest_at_ms = self.now_ms;
        assert_eq!(self.timeline.newest(), self.newest, "the newest timestamp");
    }

    /// Whether this message could be one of a publisher without any trouble: in order, and in step with the
    /// clock since the first of its session.
    fn note_steadiness(&mut self, given: u32, step_ms: u32, gone_ms: u64) {
        let (first, at_ms) = *self.first.get_or_insert((given, self.now_ms));
        let by_clock = first.wrapping_add(low(self.now_ms - at_ms));
        let is_close = distance(by_clock, given).unsigned_abs() <= OFF_CLOCK_MS_MAX;
        // What belongs before a session's beginning may find no room there.
        let is_in_order = step_ms <= u32::MAX / 2 && distance(first, given) >= 0;
        self.is_steady &= is_close && is_in_order && gone_ms < DAY_MS;
        self.is_steady &= self.now_ms - self.newest_at_ms < DAY_MS || self.last == [None; 2];
    }

    fn judge(&mut self, track: usize, given: u32, got: u32) {
        let is_first = self.last.iter().all(Option::is_none);
        if is_first {
            self.judge_first(given, got);
            self.offset = Some(got.wrapping_sub(given));
            return;
        }
        if self.is_steady {
            assert_eq!(Some(got.wrapping_sub(given)), self.offset, "a steady publisher is kept");
        }
        let gone_ms = (self.now_ms - self.newest_at_ms).min(DAY_MS);
        let ahead_ms_max = i64::try_from(gone_ms).unwrap_or(0)
            + i64::from(SLACK_MS_MAX)
            + i64::from(FORWARD_MS_MAX);
        let ahead_ms = distance(self.newest, got);
        assert!(ahead_ms <= ahead_ms_max, "{ahead_ms} ms ahead of the stream");
        let back_ms_max = match self.last[track] {
            Some((_, before, _)) => {
                assert!(distance(before, got) >= -i64::from(BACKWARD_MS_MAX), "a kind goes back");
                return;
            }
            None => i64::from(FIRST_BACKWARD_MS_MAX),
        };
        assert!(ahead_ms >= -back_ms_max, "a kind begins {ahead_ms} ms from the stream");
    }

    fn judge_first(&self, given: u32, got: u32) {
        if self.has_media {
            let gap_ms = distance(self.newest, got);
            let gap = i64::from(GAP_MS_MIN)..=i64::from(GAP_MS_MAX);
            assert!(gap.contains(&gap_ms), "a session begins {gap_ms} ms behind the last");
        } else if self.start_ms == 0 {
            assert_eq!(got, given.min(START_MS), "a fresh stream begins near 0");
        } else {
            assert_eq!(got, self.start_ms, "a stream begins where it was told to");
        }
    }

    /// A message without a time of its own.
    fn config(&mut self, track: Track) {
        let lane = match track {
            Track::Audio => self.last[0],
            Track::Video => self.last[1],
            Track::Data => None,
        };
        let given = self.own[usize::from(track == Track::Video)];
        let got = self.timeline.map(self.now_ms, track, given, true);
        let newest = if self.has_begun() { self.newest } else { self.at_begin() };
        assert_eq!(self.timeline.newest(), newest, "it does not move the stream");
        if let Some((_, before, _)) = lane {
            assert!(distance(before, got) >= 0, "a configuration stands before its media");
        }
    }

    fn has_begun(&self) -> bool {
        self.has_media || self.last.iter().any(Option::is_some)
    }

    fn at_begin(&self) -> u32 {
        if self.start_ms == 0 { 0 } else { self.start_ms.wrapping_sub(START_MS) }
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}

/// From one wrapping timestamp to another, in milliseconds.
fn distance(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from).cast_signed())
}
