//! Runs a case and counts what time does not show: allocations, copies, results.
//!
//! The counting allocator comes with this package and serves all its programs. It counts the calling
//! thread only, so helper threads (the receivers of the socket cases) do not disturb.

use crate::case::{Outcome, Work};
use crate::digest::Digest;

/// What some iterations of a case did.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Observed {
    /// Iterations observed.
    pub iterations: u64,
    /// Sums over the iterations; the digest covers all of them in order.
    pub outcome: Outcome,
    /// Allocations of the calling thread, reallocations included.
    pub allocations: u64,
    /// Bytes of these allocations.
    pub allocated_bytes: u64,
}

impl Observed {
    /// One line for a report, without the name of the case.
    pub fn line(&self, unit: &str) -> String {
        let each = |sum: u64| sum as f64 / self.iterations as f64;
        format!(
            "per iteration: {:.0} × {unit}, {:.0} bytes, copied {:.0} bytes, {:.2} allocations \
             ({:.0} bytes); digest {:#018x}",
            each(self.outcome.units),
            each(self.outcome.bytes),
            each(self.outcome.copied_bytes),
            each(self.allocations),
            each(self.allocated_bytes),
            self.outcome.digest,
        )
    }
}

/// Runs `work` for `warm_up` iterations, then counts over `iterations` more.
pub fn observe(work: &mut dyn Work, warm_up: u64, iterations: u64) -> Observed {
    let mut sum = Outcome::default();
    let mut digest = Digest::default();
    for _ in 0..warm_up {
        digest.mix(work.run().digest);
        work.settle();
    }
    let (mut allocations, mut allocated_bytes) = (0, 0);
    for _ in 0..iterations {
        let mut outcome = Outcome::default();
        let counted = allocation_counter::measure(|| outcome = work.run());
        work.settle();
        allocations += counted.count_total;
        allocated_bytes += counted.bytes_total;
        sum.units += outcome.units;
        sum.bytes += outcome.bytes;
        sum.copied_bytes += outcome.copied_bytes;
        digest.mix(outcome.digest);
    }
    sum.digest = digest.value();
    Observed { iterations, outcome: sum, allocations, allocated_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Allocating;

    impl Work for Allocating {
        fn run(&mut self) -> Outcome {
            let mut grown = std::hint::black_box(Vec::<u8>::with_capacity(16));
            grown.resize(100, 7);
            Outcome {
                units: 2,
                bytes: 3,
                copied_bytes: 4,
                digest: std::hint::black_box(grown).len() as u64,
            }
        }
    }

    #[test]
    fn allocations_and_reallocations_are_counted_after_the_warm_up_only() {
        let observed = observe(&mut Allocating, 5, 10);
        assert_eq!((observed.allocations, observed.outcome.units), (20, 20));
        assert_eq!((observed.outcome.bytes, observed.outcome.copied_bytes), (30, 40));
    }
}
