//! The OpenMetrics text of all tables, and the document `METRICS.md`.
//!
//! Runs on the control thread only. Format: OpenMetrics 1.0 (`# HELP`, `# TYPE`, `# UNIT`, `# EOF`).

use std::fmt::Write as _;

use super::labels::Label;
use super::table::{PackagingMetrics, ProcessMetrics, StorageMetrics, WorkerMetrics};
use super::{
    Buckets, Counter, CounterBy, CounterByPair, ErrorCounter, Gauge, GaugeBy, GaugeByPair,
    Histogram, NamedTimes, RealGauge, TimeCounter,
};

/// Content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Kind of a metric family, as in `# TYPE`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Whether the exposition sums a worker metric or keeps a `worker` label.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// One series for the process.
    Sum,
    /// One series per worker.
    PerWorker,
}

/// One value of a metric.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// Appended to the family's name: `_total`, `_bucket`, `_sum`, `_count` or nothing.
    pub suffix: &'static str,
    /// `name="value"` pairs, comma separated, without braces.
    pub labels: String,
    /// The value in exported units.
    pub value: f64,
}

/// Something that can be exposed.
pub trait Metric {
    /// What it is.
    const KIND: Kind;
    /// Names of its labels.
    const LABELS: &'static [&'static str];
    /// Hands out its samples in a stable order.
    fn visit(&self, emit: &mut dyn FnMut(Sample));
}

/// A row of a table: how one field of `T` is called and read.
pub struct Family<T> {
    /// Name without suffix.
    pub name: &'static str,
    /// Lines of help.
    pub help: &'static [&'static str],
    /// Its kind.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Summed or per worker.
    pub scope: Scope,
    /// Reads it.
    pub visit: fn(&T, &mut dyn FnMut(Sample)),
}

impl<T> std::fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family").field("name", &self.name).field("kind", &self.kind).finish()
    }
}

impl<T> Family<T> {
    fn help_text(&self) -> String {
        self.help.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }

    fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes", "ratio"]
            .into_iter()
            .find(|unit| self.name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
    }
}

#[expect(clippy::cast_precision_loss, reason = "exposition numbers are floats; exact to 2^53")]
fn real(value: u64) -> f64 {
    value as f64
}

fn plain(suffix: &'static str, value: f64) -> Sample {
    Sample { suffix, labels: String::new(), value }
}

impl Metric for Counter {
    const KIND: Kind = Kind::Counter;
    const LABELS: &'static [&'static str] = &[];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        emit(plain("_total", real(self.value())));
    }
}

impl Metric for Gauge {
    const KIND: Kind = Kind::Gauge;
    const LABELS: &'static [&'static str] = &[];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        emit(plain("", real(self.value())));
    }
}

impl Metric for TimeCounter {
    const KIND: Kind = Kind::Counter;
    const LABELS: &'static [&'static str] = &[];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        emit(plain("_total", real(self.nanos()) / 1e9));
    }
}

impl Metric for RealGauge {
    const KIND: Kind = Kind::Gauge;
    const LABELS: &'static [&'static str] = &[];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        emit(plain("", self.value()));
    }
}

fn visit_one<L: Label>(
    suffix: &'static str,
    value: impl Fn(usize) -> u64,
    emit: &mut dyn FnMut(Sample),
) {
    for (index, text) in L::VALUES.iter().enumerate() {
        let labels = format!("{}=\"{text}\"", L::NAME);
        emit(Sample { suffix, labels, value: real(value(index)) });
    }
}

fn visit_pair<A: Label, B: Label>(
    suffix: &'static str,
    value: impl Fn(usize) -> u64,
    emit: &mut dyn FnMut(Sample),
) {
    for (a, a_text) in A::VALUES.iter().enumerate() {
        for (b, b_text) in B::VALUES.iter().enumerate() {
            let labels = format!("{}=\"{a_text}\",{}=\"{b_text}\"", A::NAME, B::NAME);
            let value = real(value(a * B::VALUES.len() + b));
            emit(Sample { suffix, labels, value });
        }
    }
}

impl<L: Label> Metric for CounterBy<L> {
    const KIND: Kind = Kind::Counter;
    const LABELS: &'static [&'static str] = &[L::NAME];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        visit_one::<L>("_total", |index| self.cells[index].value(), emit);
    }
}

impl<L: Label> Metric for GaugeBy<L> {
    const KIND: Kind = Kind::Gauge;
    const LABELS: &'static [&'static str] = &[L::NAME];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        visit_one::<L>("", |index| self.cells[index].value(), emit);
    }
}

impl<A: Label, B: Label> Metric for CounterByPair<A, B> {
    const KIND: Kind = Kind::Counter;
    const LABELS: &'static [&'static str] = &[A::NAME, B::NAME];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        visit_pair::<A, B>("_total", |index| self.cells[index].value(), emit);
    }
}

impl<A: Label, B: Label> Metric for GaugeByPair<A, B> {
    const KIND: Kind = Kind::Gauge;
    const LABELS: &'static [&'static str] = &[A::NAME, B::NAME];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        visit_pair::<A, B>("", |index| self.cells[index].value(), emit);
    }
}

impl<B: Buckets> Metric for Histogram<B> {
    const KIND: Kind = Kind::Histogram;
    const LABELS: &'static [&'static str] = &[];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        let mut below = 0;
        for (index, bound) in B::BOUNDS.iter().enumerate() {
            below += self.cells[index].value();
            let labels = format!("le=\"{:?}\"", real(*bound) / B::SCALE);
            emit(Sample { suffix: "_bucket", labels, value: real(below) });
        }
        below += self.cells[B::BOUNDS.len()].value();
        emit(Sample { suffix: "_bucket", labels: "le=\"+Inf\"".into(), value: real(below) });
        emit(plain("_sum", real(self.sum.value()) / B::SCALE));
        emit(plain("_count", real(below)));
    }
}

impl Metric for ErrorCounter {
    const KIND: Kind = Kind::Counter;
    const LABELS: &'static [&'static str] = &["label"];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        for (name, counter) in &self.slots {
            let Some(name) = name.get() else { break };
            let labels = format!("label=\"{name}\"");
            emit(Sample { suffix: "_total", labels, value: real(counter.value()) });
        }
        let other = real(self.other.value());
        emit(Sample { suffix: "_total", labels: "label=\"other\"".into(), value: other });
    }
}

impl Metric for NamedTimes {
    const KIND: Kind = Kind::Gauge;
    const LABELS: &'static [&'static str] = &["name"];
    fn visit(&self, emit: &mut dyn FnMut(Sample)) {
        self.each(|name, value| {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            emit(Sample { suffix: "", labels: format!("name=\"{name}\""), value });
        });
    }
}

/// The whole exposition: process figures, those of packaging and storage, then the workers', summed or with
/// a `worker` label.
pub fn render(
    process: &ProcessMetrics,
    packaging: &PackagingMetrics,
    storage: &StorageMetrics,
    workers: &[&WorkerMetrics],
) -> String {
    let mut out = String::with_capacity(32 * 1024);
    head(&mut out, "ringcast_build", "info", None, "Version of the running program.");
    let _ = writeln!(out, "ringcast_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    for family in ProcessMetrics::FAMILIES {
        family_head(&mut out, family);
        (family.visit)(process, &mut |sample| line(&mut out, family.name, &sample, None));
    }
    for family in PackagingMetrics::FAMILIES {
        family_head(&mut out, family);
        (family.visit)(packaging, &mut |sample| line(&mut out, family.name, &sample, None));
    }
    for family in StorageMetrics::FAMILIES {
        family_head(&mut out, family);
        (family.visit)(storage, &mut |sample| line(&mut out, family.name, &sample, None));
    }
    for family in WorkerMetrics::FAMILIES {
        family_head(&mut out, family);
        match family.scope {
            Scope::PerWorker => {
                for (index, worker) in workers.iter().enumerate() {
                    (family.visit)(worker, &mut |sample| {
                        line(&mut out, family.name, &sample, Some(index));
                    });
                }
            }
            Scope::Sum => {
                for sample in sum(family, workers) {
                    line(&mut out, family.name, &sample, None);
                }
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

fn sum(family: &Family<WorkerMetrics>, workers: &[&WorkerMetrics]) -> Vec<Sample> {
    let mut sums: Vec<Sample> = Vec::new();
    for worker in workers {
        let mut position = 0;
        (family.visit)(worker, &mut |sample| {
            let same = |s: &Sample| s.suffix == sample.suffix && s.labels == sample.labels;
            // Almost always the same order in every worker; only learned labels can differ.
            let found = match sums.get(position) {
                Some(candidate) if same(candidate) => Some(position),
                _ => sums.iter().position(same),
            };
            match found {
                Some(index) => sums[index].value += sample.value,
                None => sums.push(sample),
            }
            position += 1;
        });
    }
    sums
}

fn head(out: &mut String, name: &str, kind: &str, unit: Option<&str>, help: &str) {
    let _ = writeln!(out, "# TYPE {name} {kind}");
    if let Some(unit) = unit {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
    let help = help.replace('\\', "\\\\").replace('"', "\\\"");
    let _ = writeln!(out, "# HELP {name} {help}");
}

fn family_head<T>(out: &mut String, family: &Family<T>) {
    head(out, family.name, family.kind.text(), family.unit(), &family.help_text());
}

fn line(out: &mut String, name: &str, sample: &Sample, worker: Option<usize>) {
    out.push_str(name);
    out.push_str(sample.suffix);
    match (worker, sample.labels.is_empty()) {
        (None, true) => {}
        (None, false) => drop(write!(out, "{{{}}}", sample.labels)),
        (Some(worker), true) => drop(write!(out, "{{worker=\"{worker}\"}}")),
        (Some(worker), false) => drop(write!(out, "{{worker=\"{worker}\",{}}}", sample.labels)),
    }
    let _ = writeln!(out, " {}", sample.value);
}

/// The text of `METRICS.md`.
pub fn document() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         Served as OpenMetrics text at `/metrics` of the admin address. Generated from\n\
         `edge/src/metrics/table.rs`; a test compares. Counters appear with the suffix `_total`,\n\
         histograms with `_bucket`, `_sum` and `_count`. No label takes a value a peer can choose:\n\
         every set of values is closed or bounded, and there is none per stream or connection.\n",
    );
    out.push_str("\n## Process\n\n| name | type | labels | meaning |\n|---|---|---|---|\n");
    out.push_str("| `ringcast_build_info` | info | version | Version of the running program. |\n");
    for family in ProcessMetrics::FAMILIES {
        document_row(&mut out, family);
    }
    out.push_str("\n## HLS packaging\n\n| name | type | labels | meaning |\n|---|---|---|---|\n");
    for family in PackagingMetrics::FAMILIES {
        document_row(&mut out, family);
    }
    out.push_str("\n## Storage\n\n| name | type | labels | meaning |\n|---|---|---|---|\n");
    for family in StorageMetrics::FAMILIES {
        document_row(&mut out, family);
    }
    out.push_str("\n## Workers\n\n| name | type | labels | meaning |\n|---|---|---|---|\n");
    for family in WorkerMetrics::FAMILIES {
        document_row(&mut out, family);
    }
    out
}

fn document_row<T>(out: &mut String, family: &Family<T>) {
    let mut labels = family.labels.to_vec();
    if family.scope == Scope::PerWorker {
        labels.insert(0, "worker");
    }
    let name = match family.kind {
        Kind::Counter => format!("{}_total", family.name),
        Kind::Gauge | Kind::Histogram => family.name.to_owned(),
    };
    let kind = family.kind.text();
    let _ = writeln!(out, "| `{name}` | {kind} | {} | {} |", labels.join(", "), family.help_text());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{CloseReason, Role};

    fn rendered(workers: &[&WorkerMetrics]) -> String {
        let (packaging, storage) = (PackagingMetrics::default(), StorageMetrics::default());
        render(&ProcessMetrics::default(), &packaging, &storage, workers)
    }

    #[test]
    fn workers_are_summed_unless_the_table_says_per_worker() {
        let (one, two) = (WorkerMetrics::default(), WorkerMetrics::default());
        one.ingress_bytes.add(3);
        two.ingress_bytes.add(4);
        two.turns.add(9);
        one.protocol_errors.increment("b");
        two.protocol_errors.increment("a");
        two.protocol_errors.increment("b");
        one.disconnects.of(Role::Publisher, CloseReason::Takeover).increment();
        let text = rendered(&[&one, &two]);
        for expected in [
            "ringcast_ingress_bytes_total 7\n",
            "ringcast_worker_turns_total{worker=\"0\"} 0\n",
            "ringcast_worker_turns_total{worker=\"1\"} 9\n",
            "ringcast_protocol_errors_total{label=\"b\"} 2\n",
            "ringcast_protocol_errors_total{label=\"a\"} 1\n",
            "ringcast_disconnects_total{role=\"publisher\",reason=\"takeover\"} 1\n",
            "# UNIT ringcast_ingress_bytes bytes\n",
        ] {
            assert!(text.contains(expected), "missing {expected:?}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_exported_in_seconds() {
        let worker = WorkerMetrics::default();
        worker.lag.observe(1);
        worker.lag.observe(150);
        let text = rendered(&[&worker]);
        for expected in [
            "ringcast_subscriber_lag_seconds_bucket{le=\"0.001\"} 1\n",
            "ringcast_subscriber_lag_seconds_bucket{le=\"0.2\"} 2\n",
            "ringcast_subscriber_lag_seconds_bucket{le=\"1.0\"} 2\n",
            "ringcast_subscriber_lag_seconds_bucket{le=\"+Inf\"} 2\n",
            "ringcast_subscriber_lag_seconds_sum 0.151\n",
            "ringcast_subscriber_lag_seconds_count 2\n",
        ] {
            assert!(text.contains(expected), "missing {expected:?}");
        }
    }
}
