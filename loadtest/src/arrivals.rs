//! Who comes when: the players of a run one after another, and what disturbs them in the middle.
//!
//! ```text
//!  players │            ┌───────── linear: evenly at the rate
//!          │        ┌───┘          step:N: N at once, then a pause that keeps the rate
//!          │    ┌───┘              poisson: at random, as if each decided for itself
//!          └────┴──────────┬─────────► time
//!                          └ disturbance: a join storm, viewers that stall
//! ```
//!
//! Decided before the run: the same seed brings the same players at the same moments, whatever the
//! number of threads.

use crate::num::{Prng, seconds_ns, whole};
use std::sync::Arc;

/// Players of which each has a time of its own in memory: eight bytes each.
const POISSON_MAX: u64 = 10_000_000;

/// How players come.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ramp {
    /// Evenly.
    Linear,
    /// This many at once, then a pause.
    Step(u64),
    /// At random.
    Poisson,
}

/// Players that come one after another.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Arrivals {
    /// How many; those of all threads.
    pub(crate) count: u64,
    /// Per second, on average; 0: all at once.
    rate: f64,
    ramp: Ramp,
    /// Of a random ramp: when each comes.
    times: Arc<[u64]>,
    /// How long each stays on average, spread over half to one and a half of it; `None`: to the end.
    stay_ns: Option<u64>,
}

impl Arrivals {
    /// Players at `rate` a second; 0 is all at once, whatever the ramp.
    ///
    /// # Errors
    /// More players than a random ramp has room for.
    pub(crate) fn new(count: u64, rate: f64, ramp: Ramp, seed: u64) -> Result<Arrivals, String> {
        let is_random = ramp == Ramp::Poisson && rate > 0.0;
        if is_random && count > POISSON_MAX {
            return Err(format!("a poisson ramp has at most {POISSON_MAX} players"));
        }
        let times = if is_random { poisson(count, rate, seed) } else { Arc::default() };
        Ok(Arrivals { count, rate, ramp, times, stay_ns: None })
    }

    /// This many, all at once, who stay to the end.
    pub(crate) fn at_once(count: u64) -> Arrivals {
        Arrivals { count, rate: 0.0, ramp: Ramp::Linear, times: Arc::default(), stay_ns: None }
    }

    /// They leave again after this time on average.
    pub(crate) fn staying(mut self, stay_ns: u64) -> Arrivals {
        self.stay_ns = Some(stay_ns);
        self
    }

    /// When player `index` comes, since the first may.
    pub(crate) fn at_ns(&self, index: u64) -> u64 {
        if self.rate <= 0.0 {
            return 0;
        }
        match self.ramp {
            Ramp::Linear => seconds_ns(index as f64 / self.rate),
            Ramp::Step(size) => seconds_ns((index - index % size) as f64 / self.rate),
            Ramp::Poisson => {
                let time = usize::try_from(index).ok().and_then(|index| self.times.get(index));
                time.copied().unwrap_or(u64::MAX)
            }
        }
    }

    /// Whether players are expected one by one: those of a crowd are late by design.
    pub(crate) fn is_paced(&self) -> bool {
        self.rate > 0.0 && !matches!(self.ramp, Ramp::Step(_))
    }

    /// How long player `index` stays; `u64::MAX`: to the end.
    pub(crate) fn stay_ns(&self, index: u64) -> u64 {
        let factor = 0.5 + crate::num::spread(index.wrapping_mul(7));
        self.stay_ns.map_or(u64::MAX, |stay_ns| whole(stay_ns as f64 * factor))
    }

    /// From the first player until the load is what it is to be: the last has come, or as many leave
    /// as come.
    pub(crate) fn ramp_ns(&self) -> u64 {
        self.stay_ns.unwrap_or_else(|| self.at_ns(self.count.saturating_sub(1)))
    }
}

/// Times of `count` players with random gaps whose mean is that of the rate.
fn poisson(count: u64, rate: f64, seed: u64) -> Arc<[u64]> {
    let mut prng = Prng::new(seed ^ 0x706f_6973_736f_6e00);
    let mut at_s = 0.0;
    let mut next = |_| {
        let time_ns = seconds_ns(at_s);
        // 53 random bits make a number in (0, 1], so its logarithm is finite.
        let uniform = ((prng.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        at_s -= uniform.ln() / rate;
        time_ns
    };
    (0..count).map(&mut next).collect()
}

/// What happens to players that watch already.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Disturbance {
    /// Players that come all at once, on threads of their own.
    pub(crate) storm: u64,
    /// When, since the first player comes.
    pub(crate) at_ns: u64,
    /// For how long the others' latency is counted as disturbed.
    pub(crate) lasts_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::SECOND_NS;

    fn arrivals(count: u64, rate: f64, ramp: Ramp) -> Arrivals {
        Arrivals::new(count, rate, ramp, 1).unwrap()
    }

    #[test]
    fn a_linear_ramp_follows_the_rate() {
        let arrivals = arrivals(11, 10.0, Ramp::Linear);
        assert_eq!((arrivals.at_ns(5), arrivals.ramp_ns()), (SECOND_NS / 2, SECOND_NS));
        let stays = arrivals.clone().staying(SECOND_NS);
        let stays: Vec<_> = (0..100).map(|index| stays.stay_ns(index)).collect();
        assert!(stays.iter().all(|stay| (SECOND_NS / 2..SECOND_NS * 3 / 2).contains(stay)));
        let at_once = Arrivals::at_once(9);
        assert_eq!((at_once.ramp_ns(), at_once.stay_ns(3)), (0, u64::MAX));
    }

    #[test]
    fn a_step_ramp_keeps_the_rate_in_crowds() {
        let steps = arrivals(10, 10.0, Ramp::Step(5));
        let times: Vec<_> = (0..10).map(|index| steps.at_ns(index)).collect();
        assert_eq!(times[..5], [0; 5]);
        assert_eq!(times[5..], [SECOND_NS / 2; 5]);
        assert!(!steps.is_paced());
    }

    #[test]
    fn a_poisson_ramp_is_ascending_irregular_and_keeps_the_rate() {
        let random = arrivals(10_000, 1_000.0, Ramp::Poisson);
        let times: Vec<_> = (0..10_000).map(|index| random.at_ns(index)).collect();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
        // The sum of 10,000 gaps deviates by one percent with the probability of one in three.
        assert!(times[9_999].abs_diff(10 * SECOND_NS) < SECOND_NS / 2, "{}", times[9_999]);
        // Of exponential gaps 63 percent are shorter than the mean; of even ones none or all.
        let short = times.windows(2).filter(|pair| pair[1] - pair[0] < SECOND_NS / 1000).count();
        assert!((6_000..6_600).contains(&short), "{short}");
        assert_eq!(random, arrivals(10_000, 1_000.0, Ramp::Poisson));
        assert!(Arrivals::new(POISSON_MAX + 1, 1.0, Ramp::Poisson, 1).is_err());
    }
}
