//! Sample-exact decoding times of sound.
//!
//! Publishers round each frame's time to milliseconds, and some of them jitter. Frames of sound
//! have a known length, so their times are counted in samples and only compared with the
//! timestamps: within [`SMOOTHING_MS`] the count goes on without a gap, beyond it the timestamp is
//! right (a pause, or lost frames). Without this a player hears a click wherever rounding leaves
//! a hole.

/// How far counted and stated time may be apart before the stated one wins, in milliseconds.
pub const SMOOTHING_MS: u64 = 40;

/// Counts the samples of one audio track.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AudioClock {
    rate_hz: u32,
    next: Option<u64>,
}

impl AudioClock {
    /// A clock for a track of `rate_hz` samples a second; 0 counts as 1.
    pub fn new(rate_hz: u32) -> Self {
        Self { rate_hz: rate_hz.max(1), next: None }
    }

    /// Decoding time in samples of a frame that is stated to be at `time_ms` and lasts
    /// `duration` samples. Never goes back.
    pub fn place(&mut self, time_ms: u64, duration: u32) -> u64 {
        let stated = scale(time_ms, self.rate_hz);
        let tolerance = scale(SMOOTHING_MS, self.rate_hz);
        let time = match self.next {
            Some(next) if stated.abs_diff(next) <= tolerance => next,
            // Behind what was already given out: there is no room for it there.
            Some(next) => stated.max(next),
            None => stated,
        };
        self.next = Some(time + u64::from(duration));
        time
    }
}

/// Milliseconds in units of a timescale, rounded to the nearest.
pub(crate) fn scale(time_ms: u64, timescale: u32) -> u64 {
    let scaled = (u128::from(time_ms) * u128::from(timescale) + 500) / 1000;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_times_leave_no_hole_over_hours() {
        let mut clock = AudioClock::new(44_100);
        let mut wanted = 0;
        for frame in 0..1_000_000_u64 {
            let time_ms = frame * 1024 * 1000 / 44_100;
            assert_eq!(clock.place(time_ms, 1024), wanted);
            wanted += 1024;
        }
    }

    #[test]
    fn a_pause_is_kept_and_a_step_back_is_not() {
        let mut clock = AudioClock::new(48_000);
        assert_eq!(clock.place(1000, 1024), 48_000);
        assert_eq!(clock.place(2000, 1024), 96_000);
        assert_eq!(clock.place(1500, 1024), 97_024);
    }
}
