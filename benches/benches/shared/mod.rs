//! Runs cases of the catalogue under criterion and reports what they allocate and copy.
//!
//! One iteration of criterion is one unit of the case (a message, a flush), so its figure is the
//! time per unit.

use std::time::Duration;

use benches::{Case, Outcome, Size, Work, catalogue, observe};
use criterion::{BenchmarkId, Criterion};

/// Iterations before, and while, allocations are counted.
const OBSERVED_ITERATIONS: (u64, u64) = (3, 5);

/// Every case in memory, or every case over sockets.
pub(crate) fn run(criterion: &mut Criterion, is_in_memory: bool) {
    for case in catalogue().iter().filter(|case| case.is_in_memory() == is_in_memory) {
        run_case(criterion, case);
    }
    criterion.final_summary();
}

fn run_case(criterion: &mut Criterion, case: &Case) {
    let mut group = criterion.benchmark_group(case.group());
    let variant = case.name.split_once('/').map_or("all", |(_, variant)| variant);
    // Built on first use: the function is called only for cases that criterion's filter lets through.
    let mut built: Option<Option<Running>> = None;
    group.bench_function(BenchmarkId::from_parameter(variant), |bencher| {
        match built.get_or_insert_with(|| Running::start(case)) {
            Some(running) => bencher.iter_custom(|units| running.time(units)),
            // Criterion insists on a figure; one nanosecond is recognised as none.
            None => bencher.iter_custom(Duration::from_nanos),
        }
    });
    group.finish();
    if let Some(Some(running)) = built {
        running.report();
    }
}

/// A case that is being timed.
struct Running {
    case: Case,
    work: Box<dyn Work>,
    sum: Outcome,
    elapsed: Duration,
}

impl Running {
    /// Builds the case, lets it warm up and shows what it allocates and copies.
    fn start(case: &Case) -> Option<Running> {
        let mut work = match (case.build)(Size::Full) {
            Ok(work) => work,
            Err(reason) => {
                println!("skipped: {}: {reason}", case.name);
                return None;
            }
        };
        let (warm_up, counted) = OBSERVED_ITERATIONS;
        let observed = observe(&mut *work, warm_up, counted);
        println!("{}: {}", case.name, observed.line(case.unit));
        let allocations_max = case.allocations_per_unit_max * observed.outcome.units;
        assert!(observed.allocations <= allocations_max, "more allocations than promised");
        let copied_max = case.copies_max * observed.outcome.bytes as f64;
        assert!(observed.outcome.copied_bytes as f64 <= copied_max, "more copies than promised");
        Some(Running { case: *case, work, sum: Outcome::default(), elapsed: Duration::ZERO })
    }

    /// Time that `units` units take.
    fn time(&mut self, units: u64) -> Duration {
        let (mut done, mut elapsed) = (0, Duration::ZERO);
        while done < units {
            let begun = self.case.clock.now();
            let outcome = self.work.run();
            elapsed += self.case.clock.now() - begun;
            self.work.settle();
            done += outcome.units;
            self.sum.units += outcome.units;
            self.sum.bytes += outcome.bytes;
        }
        self.elapsed += elapsed;
        elapsed.mul_f64(units as f64 / done as f64)
    }

    /// The mean over everything that was timed, warm-up included.
    fn report(&self) {
        let seconds = self.elapsed.as_secs_f64();
        if self.sum.bytes == 0 || seconds == 0.0 {
            return;
        }
        println!(
            "{}: mean {:.1} ns per {}, {:.2} GB/s, {:.4} s/GB\n",
            self.case.name,
            seconds * 1e9 / self.sum.units as f64,
            self.case.unit,
            self.sum.bytes as f64 / seconds / 1e9,
            seconds * 1e9 / self.sum.bytes as f64,
        );
    }
}
