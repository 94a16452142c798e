//! Counters of the server: what they are, who writes them, how they are read.
//!
//! Each worker owns one [`WorkerMetrics`] and is its only writer: an increment is a relaxed load and a
//! relaxed store, no locked instruction, no shared cache line. The control thread reads the same
//! atomics whenever somebody scrapes. Sums over workers are made by the reader.
//!
//! - [`table`]: every name, once, with its help text; `METRICS.md` is generated from it.
//! - [`labels`]: the closed sets of label values, so that cardinality is bounded by construction.
//! - [`openmetrics`]: the text format, and the generated document.

pub mod labels;
pub mod openmetrics;
pub mod table;

use std::array;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

pub use labels::{
    CertificateState, CloseReason, ConnectionState, DenyReason, Direction, FlushCause, GraceResult,
    HookResult, HttpResult, KernelTlsPath, Label, LimitReached, MediaKind, MemoryStep, MemoryUse,
    Outcome, PlayResult, PublishResult, Role, SkipReason, StreamLife, TlsHandshake, TlsMode,
};
pub use table::{PackagingMetrics, ProcessMetrics, StorageMetrics, WorkerMetrics};

/// Cells of a metric with one label; each label set must fit.
const CELLS_MAX: usize = 48;
/// Cells of a metric with two labels.
const PAIR_CELLS_MAX: usize = 128;
/// Buckets of a histogram, the one to infinity included.
const BUCKETS_MAX: usize = 24;
/// Different protocol error labels; further ones are counted as `other`.
const ERROR_LABELS_MAX: usize = 64;

/// A number that only grows. One writer.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only the owning worker may call this.
    pub fn add(&self, amount: u64) {
        // Single writer: a plain load and store is enough and costs no bus lock.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Replaces the value by a total kept elsewhere, for example inside the worker's `Io`.
    pub fn set_total(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }

    /// The value; any thread.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value())
    }
}

/// A number that goes up and down and is never negative. One writer.
#[derive(Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.set(self.value() + 1);
    }

    /// Takes one away.
    ///
    /// # Panics
    /// In debug builds when the gauge is 0: more ends than beginnings is our bug.
    pub fn decrement(&self) {
        debug_assert!(self.value() > 0, "gauge below zero");
        self.set(self.value().saturating_sub(1));
    }

    /// The value; any thread.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value())
    }
}

/// A time that only grows. One writer.
#[derive(Default)]
pub struct TimeCounter(AtomicU64);

impl TimeCounter {
    /// Replaces the value by a total kept elsewhere, in nanoseconds.
    pub fn set_nanos(&self, nanos: u64) {
        self.0.store(nanos, Ordering::Relaxed);
    }

    /// The value in nanoseconds; any thread.
    pub fn nanos(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for TimeCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ns", self.nanos())
    }
}

/// A fraction or a time stamp. One writer.
#[derive(Default)]
pub struct RealGauge(AtomicU64);

impl RealGauge {
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// The value; any thread.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for RealGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value())
    }
}

/// One [`Counter`] per value of a label.
pub struct CounterBy<L> {
    cells: [Counter; CELLS_MAX],
    label: PhantomData<fn(L)>,
}

impl<L: Label> CounterBy<L> {
    /// The counter of one label value.
    pub fn of(&self, value: L) -> &Counter {
        const { assert!(L::VALUES.len() <= CELLS_MAX, "label set larger than its cells") };
        &self.cells[value.index()]
    }
}

/// One [`Gauge`] per value of a label.
pub struct GaugeBy<L> {
    cells: [Gauge; CELLS_MAX],
    label: PhantomData<fn(L)>,
}

impl<L: Label> GaugeBy<L> {
    /// The gauge of one label value.
    pub fn of(&self, value: L) -> &Gauge {
        const { assert!(L::VALUES.len() <= CELLS_MAX, "label set larger than its cells") };
        &self.cells[value.index()]
    }

    /// Sets all to 0.
    pub fn clear(&self) {
        self.cells.iter().for_each(|gauge| gauge.set(0));
    }
}

/// One [`Counter`] per pair of label values.
pub struct CounterByPair<A, B> {
    cells: [Counter; PAIR_CELLS_MAX],
    labels: PhantomData<fn(A, B)>,
}

impl<A: Label, B: Label> CounterByPair<A, B> {
    /// The counter of one pair.
    pub fn of(&self, a: A, b: B) -> &Counter {
        const { assert!(A::VALUES.len() * B::VALUES.len() <= PAIR_CELLS_MAX, "label sets too large") };
        &self.cells[a.index() * B::VALUES.len() + b.index()]
    }
}

/// One [`Gauge`] per pair of label values.
pub struct GaugeByPair<A, B> {
    cells: [Gauge; PAIR_CELLS_MAX],
    labels: PhantomData<fn(A, B)>,
}

impl<A: Label, B: Label> GaugeByPair<A, B> {
    /// Sets all to 0.
    pub fn clear(&self) {
        self.cells.iter().for_each(|gauge| gauge.set(0));
    }

    /// The gauge of one pair.
    pub fn of(&self, a: A, b: B) -> &Gauge {
        const { assert!(A::VALUES.len() * B::VALUES.len() <= PAIR_CELLS_MAX, "label sets too large") };
        &self.cells[a.index() * B::VALUES.len() + b.index()]
    }
}

/// The bucket bounds of a histogram and the unit values are observed in.
pub trait Buckets {
    /// Upper bounds, ascending, in observed units; the bucket to infinity is implied.
    const BOUNDS: &'static [u64];
    /// Observed units per exported unit (1000 when milliseconds are exported as seconds).
    const SCALE: f64;
}

/// Counts observations by size. One writer.
pub struct Histogram<B> {
    cells: [Counter; BUCKETS_MAX],
    sum: Counter,
    buckets: PhantomData<fn(B)>,
}

impl<B: Buckets> Histogram<B> {
    /// Counts one observation, given in the units of [`Buckets::BOUNDS`].
    pub fn observe(&self, value: u64) {
        const { assert!(B::BOUNDS.len() < BUCKETS_MAX, "more buckets than cells") };
        let bucket = B::BOUNDS.partition_point(|&bound| bound < value);
        self.cells[bucket].increment();
        self.sum.add(value);
    }

    /// Observations so far.
    pub fn count(&self) -> u64 {
        self.cells.iter().map(Counter::value).sum()
    }
}

/// A counter by protocol error label. The labels belong to the protocol crate, so the set is learned
/// while running; it is bounded, and what does not fit is counted as `other`.
pub struct ErrorCounter {
    slots: [(OnceLock<&'static str>, Counter); ERROR_LABELS_MAX],
    other: Counter,
}

impl ErrorCounter {
    /// Counts one error.
    pub fn increment(&self, label: &'static str) {
        for (name, counter) in &self.slots {
            if *name.get_or_init(|| label) == label {
                counter.increment();
                return;
            }
        }
        self.other.increment();
    }

    /// Errors of all labels.
    pub fn total(&self) -> u64 {
        self.slots.iter().map(|(_, counter)| counter.value()).sum::<u64>() + self.other.value()
    }
}

/// A time per name. The names are the operator's, never a peer's, and whoever sets them bounds their
/// number. Read and written by the control thread.
#[derive(Default)]
pub struct NamedTimes(Mutex<Vec<(String, f64)>>);

impl NamedTimes {
    /// Replaces all: names and Unix times in seconds.
    pub fn set(&self, times: Vec<(String, f64)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }

    /// Reads all, in the order they were set.
    pub fn each(&self, mut read: impl FnMut(&str, f64)) {
        for (name, time) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            read(name, *time);
        }
    }
}

impl fmt::Debug for NamedTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        self.each(|name, time| {
            map.entry(&name, &time);
        });
        map.finish()
    }
}

macro_rules! impl_default_and_debug {
    ($($name:ident [$($generic:ident: $bound:ident),*] { $($field:ident: $value:expr),* })*) => {$(
        impl<$($generic),*> Default for $name<$($generic),*> {
            fn default() -> Self { Self { $($field: $value),* } }
        }
        impl<$($generic: $bound),*> fmt::Debug for $name<$($generic),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut list = f.debug_list();
                openmetrics::Metric::visit(self, &mut |sample| { list.entry(&sample.value); });
                list.finish()
            }
        }
    )*};
}

impl_default_and_debug! {
    CounterBy[L: Label] { cells: array::from_fn(|_| Counter::default()), label: PhantomData }
    GaugeBy[L: Label] { cells: array::from_fn(|_| Gauge::default()), label: PhantomData }
    CounterByPair[A: Label, B: Label] { cells: array::from_fn(|_| Counter::default()), labels: PhantomData }
    GaugeByPair[A: Label, B: Label] { cells: array::from_fn(|_| Gauge::default()), labels: PhantomData }
    Histogram[B: Buckets] {
        cells: array::from_fn(|_| Counter::default()),
        sum: Counter::default(),
        buckets: PhantomData
    }
    ErrorCounter[] {
        slots: array::from_fn(|_| (OnceLock::new(), Counter::default())),
        other: Counter::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_labels_beyond_the_limit_are_counted_as_other() {
        let errors = ErrorCounter::default();
        let labels: Vec<&'static str> = (0..ERROR_LABELS_MAX + 3)
            .map(|i| &*Box::leak(format!("label_{i}").into_boxed_str()))
            .collect();
        for label in &labels {
            errors.increment(label);
        }
        errors.increment(labels[0]);
        assert_eq!(errors.other.value(), 3);
        assert_eq!(errors.slots[0].1.value(), 2);
        assert_eq!(errors.total(), labels.len() as u64 + 1);
    }

    #[test]
    fn an_observation_on_a_bound_belongs_to_that_bucket() {
        let lag = Histogram::<table::LagMs>::default();
        lag.observe(table::LagMs::BOUNDS[0]);
        lag.observe(table::LagMs::BOUNDS[0] + 1);
        lag.observe(u64::MAX / 4);
        assert_eq!(lag.cells[0].value(), 1);
        assert_eq!(lag.cells[1].value(), 1);
        assert_eq!(lag.cells[table::LagMs::BOUNDS.len()].value(), 1);
        assert_eq!(lag.count(), 3);
    }

    #[test]
    fn pairs_of_labels_do_not_share_cells() {
        let pairs = CounterByPair::<Role, CloseReason>::default();
        pairs.of(Role::Publisher, CloseReason::Kicked).add(5);
        pairs.of(Role::Subscriber, CloseReason::Kicked).add(7);
        assert_eq!(pairs.of(Role::Publisher, CloseReason::Kicked).value(), 5);
        assert_eq!(pairs.cells.iter().map(Counter::value).sum::<u64>(), 12);
    }
}
