//! What a viewer would have seen: a playback clock that stalls when media comes late, and whether
//! latency creeps.
//!
//! Playback starts `buffer` after the first media and then follows the wall clock. Media whose
//! moment has passed when it comes is a stall; playback then goes on from there, as a player that
//! fills its buffer again does. No allocation, a few additions per message.
//!
//! ```text
//!   moment of a message = start + (timestamp - first timestamp)      start moves by each stall
//! ```

use crate::num::{MS_NS, as_seconds};

/// Jumps of the stream's clock beyond this start the playback clock anew, milliseconds.
const JUMP_MS: u32 = 10_000;

/// The playback clock of one player.
#[derive(Clone, Debug, Default)]
pub(crate) struct Playout {
    line: Option<Line>,
    /// Playback has not started, and does so by [`Playout::start`]: first and newest media so far.
    waiting: Option<Option<(u32, u32)>>,
    /// Times playback stood still.
    pub(crate) stalls: u32,
    /// For how long, altogether.
    pub(crate) stalled_ns: u64,
    /// Since the first media.
    pub(crate) played_ns: u64,
}

#[derive(Clone, Debug)]
struct Line {
    begun_ns: u64,
    /// When the message with `first_ms` plays.
    start_ns: u64,
    /// The player said when to start.
    is_told: bool,
    first_ms: u32,
    newest_ms: u32,
}

impl Playout {
    /// One that starts when it is told to.
    pub(crate) fn waiting() -> Playout {
        Playout { waiting: Some(None), ..Playout::default() }
    }

    /// Playback starts now, `back_ms` before the newest media or, if `None`, with the first. Does
    /// nothing before there is so much, or a second time.
    pub(crate) fn start(&mut self, now_ns: u64, back_ms: Option<u32>) {
        let Some(Some((first_ms, newest_ms))) = self.waiting else { return };
        let ahead_ms = newest_ms.wrapping_sub(first_ms);
        let Some(skipped_ms) = ahead_ms.checked_sub(back_ms.unwrap_or(ahead_ms)) else { return };
        let first_ms = first_ms.wrapping_add(skipped_ms);
        let (begun_ns, start_ns) = (now_ns, now_ns);
        self.line = Some(Line { begun_ns, start_ns, is_told: true, first_ms, newest_ms });
        self.waiting = None;
    }

    /// When media with this timestamp plays, where the player itself says when playback starts.
    pub(crate) fn moment_ns(&self, timestamp: u32) -> Option<u64> {
        let line = self.line.as_ref().filter(|line| line.is_told)?;
        let ahead_ms = timestamp.wrapping_sub(line.first_ms);
        let is_ahead = ahead_ms < 1 << 31;
        is_ahead.then(|| line.start_ns.saturating_add(u64::from(ahead_ms) * MS_NS))
    }

    /// Media with this timestamp is complete. Returns how long playback stood still for it.
    pub(crate) fn on_media(&mut self, now_ns: u64, timestamp: u32, buffer_ns: u64) -> u64 {
        if let Some(seen) = &mut self.waiting {
            let (first_ms, newest_ms) = seen.unwrap_or((timestamp, timestamp));
            let is_newer = timestamp.wrapping_sub(newest_ms) < 1 << 31;
            *seen = Some((first_ms, if is_newer { timestamp } else { newest_ms }));
            return 0;
        }
        let Some(line) = self.line.as_mut() else {
            self.line = Some(Line {
                begun_ns: now_ns,
                start_ns: now_ns + buffer_ns,
                is_told: false,
                first_ms: timestamp,
                newest_ms: timestamp,
            });
            return 0;
        };
        self.played_ns = now_ns.saturating_sub(line.begun_ns);
        let ahead_ms = timestamp.wrapping_sub(line.newest_ms);
        if ahead_ms >= 1 << 31 {
            // Older than what plays already: nobody waits for it.
            return 0;
        }
        if ahead_ms > JUMP_MS {
            let wait_ns = if line.is_told { 0 } else { buffer_ns };
            (line.start_ns, line.first_ms) = (now_ns + wait_ns, timestamp);
        }
        line.newest_ms = timestamp;
        let moment = line.moment_ns();
        let late = now_ns.saturating_sub(moment);
        line.start_ns += late;
        self.note(late);
        late
    }

    /// The run is over while the stream goes on: a player that waits now has stalled as well.
    /// Returns how long playback has stood still.
    pub(crate) fn finish(&mut self, now_ns: u64) -> u64 {
        let Some(line) = self.line.as_ref() else { return 0 };
        self.played_ns = now_ns.saturating_sub(line.begun_ns);
        let late = now_ns.saturating_sub(line.moment_ns());
        self.note(late);
        late
    }

    fn note(&mut self, late_ns: u64) {
        if late_ns > 0 {
            self.stalls += 1;
            self.stalled_ns += late_ns;
        }
    }
}

impl Line {
    /// When the newest message plays.
    fn moment_ns(&self) -> u64 {
        let ahead_ms = self.newest_ms.wrapping_sub(self.first_ms);
        self.start_ns.saturating_add(u64::from(ahead_ms) * MS_NS)
    }
}

/// Least-squares line through points of time and latency: its slope is the creep.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Slope {
    begun_ns: u64,
    count: f64,
    sum_t: f64,
    sum_l: f64,
    sum_tt: f64,
    sum_tl: f64,
}

/// Seconds of points without which a slope says nothing.
const SLOPE_SECONDS_MIN: f64 = 2.0;

impl Slope {
    /// A latency was measured.
    pub(crate) fn on_latency(&mut self, now_ns: u64, latency_ms: f64) {
        if self.count == 0.0 {
            self.begun_ns = now_ns;
        }
        let t = as_seconds(now_ns.saturating_sub(self.begun_ns));
        self.count += 1.0;
        self.sum_t += t;
        self.sum_l += latency_ms;
        self.sum_tt += t * t;
        self.sum_tl += t * latency_ms;
    }

    /// Milliseconds of latency gained per second; `None` before there is enough to tell.
    pub(crate) fn ms_per_s(&self, now_ns: u64) -> Option<f64> {
        let seconds = as_seconds(now_ns.saturating_sub(self.begun_ns));
        let spread = self.count * self.sum_tt - self.sum_t * self.sum_t;
        let told = self.count >= 8.0 && seconds >= SLOPE_SECONDS_MIN && spread > 0.0;
        told.then(|| (self.count * self.sum_tl - self.sum_t * self.sum_l) / spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::SECOND_NS;

    const BUFFER_NS: u64 = 100 * MS_NS;

    /// Plays messages of (arrival ms, timestamp ms) and returns (stalls, stalled ms).
    fn play(messages: &[(u64, u32)]) -> (u32, u64) {
        let mut playout = Playout::default();
        for &(at_ms, timestamp) in messages {
            playout.on_media(SECOND_NS + at_ms * MS_NS, timestamp, BUFFER_NS);
        }
        (playout.stalls, playout.stalled_ns / MS_NS)
    }

    #[test]
    fn media_in_time_never_stalls() {
        assert_eq!(play(&[(0, 0), (33, 33), (66, 66), (1000, 1000)]), (0, 0));
    }

    #[test]
    fn the_buffer_absorbs_what_it_can() {
        assert_eq!(play(&[(0, 0), (133, 33)]), (0, 0));
        assert_eq!(play(&[(0, 0), (143, 33)]), (1, 10));
    }

    #[test]
    fn after_a_stall_the_clock_goes_on_from_there() {
        assert_eq!(play(&[(0, 0), (533, 33), (566, 66), (600, 100)]), (1, 400));
        assert_eq!(play(&[(0, 0), (533, 33), (566, 66), (601, 100)]), (2, 401));
        assert_eq!(play(&[(0, 0), (533, 33), (540, 66), (600, 133)]), (1, 400));
    }

    #[test]
    fn a_cached_gop_is_a_reserve() {
        assert_eq!(play(&[(0, 0), (0, 500), (590, 533)]), (0, 0));
    }

    #[test]
    fn timestamps_may_wrap_and_jump() {
        assert_eq!(play(&[(0, u32::MAX - 10), (33, 22)]), (0, 0));
        assert_eq!(play(&[(0, 0), (33, 60_000), (66, 60_033)]), (0, 0));
        assert_eq!(play(&[(0, 5000), (33, 40), (66, 5066)]), (0, 0));
    }

    #[test]
    fn a_player_left_waiting_has_stalled() {
        let mut playout = Playout::default();
        playout.on_media(0, 0, BUFFER_NS);
        assert_eq!(playout.clone().finish(BUFFER_NS), 0);
        assert_eq!(playout.finish(BUFFER_NS + SECOND_NS), SECOND_NS);
        assert_eq!(playout.stalls, 1);
    }

    #[test]
    fn a_player_that_starts_by_itself_says_when_each_picture_shows() {
        let mut playout = Playout::waiting();
        playout.start(0, None);
        for timestamp in [1000, 1040, 1080, 2000] {
            assert_eq!(playout.on_media(SECOND_NS, timestamp, BUFFER_NS), 0);
            assert_eq!(playout.moment_ns(timestamp), None);
        }
        let mut behind = playout.clone();
        playout.start(2 * SECOND_NS, None);
        assert_eq!(playout.moment_ns(1040), Some(2 * SECOND_NS + 40 * MS_NS));
        behind.start(2 * SECOND_NS, Some(1001));
        assert_eq!(behind.moment_ns(2000), None, "there is not so much");
        behind.start(2 * SECOND_NS, Some(600));
        assert_eq!(behind.moment_ns(2000), Some(2 * SECOND_NS + 600 * MS_NS));
        assert_eq!(behind.moment_ns(1040), None, "it is decoded and not shown");
        assert_eq!(behind.on_media(2 * SECOND_NS + 700 * MS_NS, 2040, BUFFER_NS), 60 * MS_NS);
        assert_eq!(behind.moment_ns(2040), Some(2 * SECOND_NS + 700 * MS_NS));
    }

    #[test]
    fn the_slope_of_a_creeping_latency_is_its_creep() {
        let mut slope = Slope::default();
        for ms in (0..5000u64).step_by(40) {
            slope.on_latency(ms * MS_NS, 5.0 + 0.003 * ms as f64);
        }
        let found = slope.ms_per_s(5 * SECOND_NS).unwrap();
        assert!((found - 3.0).abs() < 1e-6, "{found}");
        assert_eq!(slope.ms_per_s(SECOND_NS), None);
    }
}
