//! A wait that only counts time in which somebody was looking and there was something to see.
//!
//! A stream that shows no keyframe for some seconds is shown without one. But a worker that had no
//! processor for those seconds, or a machine that slept, has seen nothing of the stream: the keyframe may
//! lie in the socket. So each look adds the time since the last one, within bounds.

use rtmp::Millis;

/// Most that one look adds, in milliseconds: a worker turns far more often.
pub(crate) const STEP_MS_MAX: u64 = 1_000;

/// Time spent looking out for something.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    looked_at: Millis,
    waited_ms: u64,
}

impl Wait {
    pub(crate) fn begin(now: Millis) -> Self {
        Self { looked_at: now, waited_ms: 0 }
    }

    /// As numbers, for a record: when it last looked, and the milliseconds it has waited.
    #[cfg(feature = "serde")]
    pub(crate) fn numbers(self) -> (Millis, u64) {
        (self.looked_at, self.waited_ms)
    }

    /// Goes on with those.
    #[cfg(feature = "serde")]
    pub(crate) fn of_numbers((looked_at, waited_ms): (Millis, u64)) -> Self {
        Self { looked_at, waited_ms }
    }

    /// Looks where there is nothing new: the time since the last look does not count. False.
    pub(crate) fn pass(&mut self, now: Millis) -> bool {
        self.looked_at = now;
        false
    }

    /// Looks once more; true once `ms_max` milliseconds have been waited.
    pub(crate) fn is_over(&mut self, now: Millis, ms_max: u32) -> bool {
        self.waited_ms += now.0.saturating_sub(self.looked_at.0).min(STEP_MS_MAX);
        self.looked_at = now;
        self.waited_ms >= u64::from(ms_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nobody_looked_does_not_count() {
        let mut wait = Wait::begin(Millis(10_000));
        assert!(!wait.is_over(Millis(70_000), 5_000), "a minute without the processor");
        assert!(!wait.is_over(Millis(70_000), 5_000));
        for now_ms in (70_050..74_000).step_by(50) {
            assert!(!wait.is_over(Millis(now_ms), 5_000), "at {now_ms} ms");
        }
        assert!(wait.is_over(Millis(74_000), 5_000));
        assert!(wait.is_over(Millis(0), 5_000), "a clock that runs back changes nothing");
    }
}
