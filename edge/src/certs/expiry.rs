//! When to warn that a certificate ends: once at each of 30, 7 and 1 days before, and when it has ended.

use super::pair::Pair;

const DAY_S: i64 = 86_400;
/// Days before the end, furthest first.
const WARN_DAYS: [i64; 3] = [30, 7, 1];

/// How far warning about one certificate has come. A renewed certificate starts anew.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Warned {
    /// Steps behind us: 0 none, 1 to 3 the days of [`WARN_DAYS`], 4 it has ended.
    steps: usize,
}

impl Warned {
    /// Whether a warning is due at `now_s`, and for what: days left, rounded down; negative if it has ended.
    /// True once per step. Steps a certificate's whole life does not reach thrice over are left out: one
    /// that lives six days is not late on its first.
    pub(super) fn is_due(&mut self, pair: &Pair, now_s: i64) -> Option<i64> {
        let left_s = pair.not_after_s - now_s;
        let life_s = pair.not_after_s - pair.not_before_s;
        let reached = |days: &&i64| left_s <= **days * DAY_S && **days * DAY_S <= life_s / 3;
        let steps = if left_s < 0 {
            WARN_DAYS.len() + 1
        } else {
            let last = WARN_DAYS.iter().rposition(|days| reached(&days));
            last.map_or(0, |index| index + 1)
        };
        let is_due = steps > self.steps;
        self.steps = steps;
        is_due.then(|| left_s.div_euclid(DAY_S))
    }
}
