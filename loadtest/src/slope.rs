//! Does a number grow? The line of least squares through samples, with how far chance may have tilted it.
//!
//! ```text
//!  value │      warm-up ┊        · ·  ·   line: slope b, standard error of b
//!        │    · ·  ·    ┊  ·  ·_·_-·-·-     growing = b − 3 errors above the limit,
//!        │  ·           ┊·-·-  ·                  and more gained on the way than noise of its kind
//!        │·             ┊                 ► time
//! ```
//!
//! The beginning is cut off: caches, pools and the allocator fill up then, and rightly so.

/// Share of a run that is warm-up, and its longest, in seconds.
const WARM_UP_SHARE: f64 = 0.25;
const WARM_UP_S_MAX: f64 = 600.0;
/// Fewer points than this say nothing.
const POINTS_MIN: usize = 8;
/// Standard errors a slope must be away from the limit to be believed.
const ERRORS: f64 = 3.0;
const SECONDS_PER_HOUR: f64 = 3_600.0;

/// A line through samples.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct Slope {
    /// Units gained per hour.
    pub(crate) per_hour: f64,
    /// Standard error of it.
    pub(crate) error_per_hour: f64,
    /// Units gained from the first point to the last, along the line.
    pub(crate) gained: f64,
}

/// When the warm-up of a run of so many seconds is over.
pub(crate) fn warm_up_s(run_s: f64) -> f64 {
    (run_s * WARM_UP_SHARE).min(WARM_UP_S_MAX)
}

impl Slope {
    /// The line through `points` (seconds, value) behind the warm-up of their run. `None`: too few, or all
    /// at one time.
    pub(crate) fn of(points: &[(f64, f64)]) -> Option<Slope> {
        let begin_s = warm_up_s(points.last()?.0);
        let points: Vec<_> = points.iter().filter(|(at_s, _)| *at_s >= begin_s).collect();
        if points.len() < POINTS_MIN {
            return None;
        }
        let count = points.len() as f64;
        let mean_s = points.iter().map(|(at_s, _)| at_s).sum::<f64>() / count;
        let mean = points.iter().map(|(_, value)| value).sum::<f64>() / count;
        let spread: f64 = points.iter().map(|(at_s, _)| (at_s - mean_s).powi(2)).sum();
        if spread <= 0.0 {
            return None;
        }
        let common: f64 = points.iter().map(|(at_s, value)| (at_s - mean_s) * (value - mean)).sum();
        let slope = common / spread;
        let rest: f64 = points
            .iter()
            .map(|(at_s, value)| (value - mean - slope * (at_s - mean_s)).powi(2))
            .sum();
        let error = (rest / (count - 2.0) / spread).sqrt();
        let span_s = points[points.len() - 1].0 - points[0].0;
        Some(Slope {
            per_hour: slope * SECONDS_PER_HOUR,
            error_per_hour: error * SECONDS_PER_HOUR,
            gained: slope * span_s,
        })
    }

    /// It grows by more than `per_hour_max`, beyond doubt, and has gained more than `noise`.
    pub(crate) fn exceeds(&self, per_hour_max: f64, noise: f64) -> bool {
        self.per_hour - ERRORS * self.error_per_hour > per_hour_max && self.gained > noise
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::Prng;

    /// A minute of samples, five a second.
    fn samples(value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        (0..300).map(|at| (f64::from(at) / 5.0, value(f64::from(at) / 5.0))).collect()
    }

    fn noisy(slope_per_s: f64, noise: f64) -> Vec<(f64, f64)> {
        let mut prng = Prng::new(7);
        let mut points = samples(|at_s| 100.0 + slope_per_s * at_s);
        for (_, value) in &mut points {
            *value += noise * ((prng.next() % 1_000) as f64 / 500.0 - 1.0);
        }
        points
    }

    #[test]
    fn a_line_is_found_exactly() {
        let slope = Slope::of(&samples(|at_s| 5.0 + 2.0 * at_s)).unwrap();
        assert!((slope.per_hour - 7_200.0).abs() < 1e-6, "{slope:?}");
        assert!(slope.error_per_hour < 1e-6 && (slope.gained - 90.0).abs() < 1.0, "{slope:?}");
        assert!(slope.exceeds(7_000.0, 50.0) && !slope.exceeds(7_300.0, 50.0));
        assert!(!slope.exceeds(7_000.0, 100.0), "no more than noise of its kind");
    }

    #[test]
    fn noise_alone_is_no_growth_and_growth_under_noise_is_found() {
        let flat = Slope::of(&noisy(0.0, 10.0)).unwrap();
        assert!(!flat.exceeds(0.0, 0.0), "{flat:?}");
        let growing = Slope::of(&noisy(0.5, 10.0)).unwrap();
        assert!(growing.exceeds(600.0, 5.0), "{growing:?}");
        assert!((growing.per_hour - 1_800.0).abs() < 3.0 * growing.error_per_hour, "{growing:?}");
    }

    #[test]
    fn what_happens_during_warm_up_does_not_count() {
        let slope = Slope::of(&samples(|at_s| at_s.min(10.0))).unwrap();
        assert!(slope.per_hour.abs() < 1e-6, "{slope:?}");
        assert_eq!((warm_up_s(40.0), warm_up_s(36_000.0)), (10.0, 600.0));
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(Slope::of(&[]), None);
        assert_eq!(Slope::of(&samples(|_| 1.0)[..9]), None);
        assert_eq!(Slope::of(&[(1.0, 2.0); 20]), None, "all at one time");
    }
}
