//! What a run says in the end: one table of named numbers, the same for people, JSON, objectives
//! and comparisons.
//!
//! Names say what, then unit, then which: `latency_ms_p99`. A number that was not measured is not
//! in the table. Percentages of CPU are of one core.

use crate::num::ratio;
use crate::run::{Outcome, Sample, ServerUse};
use crate::slope::Slope;
use crate::tally::{Measure, Tally};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Version of the shape of results, for `compare`.
const SHAPE: u32 = 1;
/// A busier thread of ours makes the result doubtful, percent.
const OWN_CPU_PERCENT_MAX: f64 = 85.0;
/// So does a CPU of ours that has less than the rest of this to spare: several threads and the
/// receiving side of the kernel share it.
const OWN_CORE_BUSY_PERCENT_MAX: f64 = 95.0;
/// So does being later than this with what was due, milliseconds.
const LATE_MS_MAX: f64 = 10.0;
/// And so is more than this of other work on the machine, percent of a core.
const OTHERS_PERCENT_MAX: f64 = 20.0;
/// Points of a histogram in a result.
const HISTOGRAM_POINTS_MAX: usize = 200;

/// Numbers by name.
pub(crate) type Metrics = BTreeMap<String, f64>;

/// A finished run, ready to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) command: String,
    pub(crate) metrics: Metrics,
    pub(crate) samples: Vec<Sample>,
    pub(crate) notes: Vec<String>,
    closes: Value,
    statuses: Value,
    hostile: Value,
    histograms: Value,
    backend: String,
}

impl Report {
    /// Sums a run up.
    pub(crate) fn new(command: &str, outcome: Outcome) -> Report {
        let mut metrics = Metrics::new();
        times(&outcome.tally, &mut metrics);
        counts(&outcome, &mut metrics);
        players(&outcome, &mut metrics);
        server(&outcome, &mut metrics);
        server_counters(&outcome.metrics, &mut metrics);
        requests(&outcome, &mut metrics);
        if command == "soak" {
            slopes(&outcome.samples, &mut metrics);
        }
        let own = outcome.samples.iter().map(|sample| sample.own_cpu_percent_max());
        metrics.insert("own_cpu_percent_max".into(), own.fold(0.0, f64::max));
        own_cores(&outcome.samples, &mut metrics);
        let others = outcome.samples.iter().map(|sample| sample.others_percent);
        let count = outcome.samples.len().max(1) as f64;
        metrics.insert("others_cpu_percent".into(), others.sum::<f64>() / count);
        let mut notes: Vec<String> = outcome.notes.into_iter().collect();
        notes.extend(doubts(&metrics));
        if !outcome.server_alive {
            notes.push("the server's process is gone".into());
            metrics.insert("server_gone".into(), 1.0);
        }
        Report {
            command: command.into(),
            metrics,
            samples: outcome.samples,
            notes,
            closes: json!(outcome.tally.closes),
            statuses: json!(outcome.tally.statuses),
            hostile: json!(outcome.tally.hostile),
            histograms: histograms(&outcome.tally),
            backend: outcome.backend,
        }
    }

    /// A number of the table.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    /// The final JSON object.
    pub(crate) fn json(&self) -> Value {
        json!({
            "type": "final",
            "shape": SHAPE,
            "command": self.command,
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine(),
            "io": self.backend,
            "metrics": self.metrics,
            "notes": self.notes,
            "closes": self.closes,
            "statuses": self.statuses,
            "hostile": self.hostile,
            "histograms": self.histograms,
            "samples": self.samples.iter().map(sample_json).collect::<Vec<_>>(),
        })
    }

    /// The same for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (title, _) in SECTIONS {
            let mut lines = String::new();
            for (name, value) in &self.metrics {
                if section_of(name) == title {
                    let _ = writeln!(lines, "  {name:<28} {}", number(*value));
                }
            }
            if !lines.is_empty() {
                let _ = writeln!(text, "{title}\n{lines}");
            }
        }
        for (title, labels) in
            [("closed", &self.closes), ("status", &self.statuses), ("hostile", &self.hostile)]
        {
            for (label, count) in labels.as_object().into_iter().flatten() {
                let _ = writeln!(text, "{title}: {count} x {label}");
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }
}

/// Sections of the text, and what the names in them begin with.
const SECTIONS: [(&str, &[&str]); 5] = [
    ("joining", &["connect", "tls", "handshake", "play_", "publish_", "first_", "storm_"]),
    (
        "watching",
        &[
            "latency", "glass", "stall", "lag", "skew", "bitrate", "received", "players",
            "messages", "hls_", "requests",
        ],
    ),
    (
        "media",
        &["lost", "loss", "duplicated", "reordered", "corrupt", "checked", "unmarked", "off_"],
    ),
    (
        "server",
        &["server", "cpu", "rss", "fds", "context", "io_", "sends_", "softirq", "ksoftirqd"],
    ),
    ("run", &[]),
];

fn section_of(name: &str) -> &'static str {
    let is_in = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    SECTIONS.iter().find(|(_, prefixes)| is_in(prefixes)).map_or("run", |(title, _)| title)
}

/// A number with as many digits as it deserves.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if value.fract() == 0.0 && size < 1e15 => format!("{value}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn times(tally: &Tally, metrics: &mut Metrics) {
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
    for measure in Measure::ALL {
        for (name, quantile) in quantiles {
            if let Some(value) = tally.quantile_ms(measure, quantile) {
                metrics.insert(format!("{}_ms_{name}", measure.name()), value);
            }
        }
    }
}

fn counts(outcome: &Outcome, metrics: &mut Metrics) {
    let (counts, gauge) = (&outcome.tally.counts, &outcome.gauge);
    let numbered = gauge.received.saturating_sub(gauge.duplicated);
    let entries = [
        ("started", counts.started),
        ("joined", counts.joined),
        ("published", counts.published),
        ("left", counts.left),
        ("failed", counts.failed),
        ("published_bytes", counts.published_bytes),
        ("published_messages", counts.published_messages),
        ("publisher_skipped", counts.publisher_skipped),
        ("received_bytes", counts.received_bytes),
        ("messages", counts.messages),
        ("unmarked", counts.unmarked),
        ("checked", counts.checked),
        ("corrupt", counts.corrupt),
        ("off_keyframe", counts.off_keyframe),
        ("stalls", counts.stalls),
        ("lost", gauge.lost),
        ("duplicated", gauge.duplicated),
        ("reordered", gauge.reordered),
        ("players_max", outcome.players_max),
    ];
    for (name, value) in entries {
        metrics.insert(name.into(), value as f64);
    }
    if counts.publishing_ns > 0 {
        let blocked = ratio(counts.publisher_blocked_ns as f64, counts.publishing_ns as f64);
        metrics.insert("publisher_blocked_percent".into(), 100.0 * blocked);
    }
    if counts.tls_full + counts.tls_resumed > 0 {
        metrics.insert("tls_full".into(), counts.tls_full as f64);
        metrics.insert("tls_resumed".into(), counts.tls_resumed as f64);
    }
    let loss = ratio(gauge.lost as f64, (gauge.lost + numbered) as f64);
    metrics.insert("loss_percent".into(), 100.0 * loss);
    let last = outcome.samples.last().map_or(0.0, |sample| sample.at_s);
    metrics.insert("seconds".into(), last);
}

/// What may grow during a soak: its name, and where it is read.
pub(crate) const GROWING: [(&str, Reading); 3] = [
    ("rss_mb", |sample| server_of(sample, |server| server.rss_bytes as f64 / 1e6)),
    ("fds", |sample| server_of(sample, |server| server.fds as f64)),
    ("latency_ms", |sample| sample.latency_ms_p50),
];
type Reading = fn(&Sample) -> Option<f64>;

/// 0 is what could not be read.
fn server_of(sample: &Sample, read: fn(&ServerUse) -> f64) -> Option<f64> {
    sample.server.as_ref().map(read).filter(|value| *value > 0.0)
}

impl Report {
    /// The line through what [`GROWING`] reads, behind the warm-up.
    pub(crate) fn slope(&self, read: Reading) -> Option<Slope> {
        slope(&self.samples, read)
    }
}

fn slope(samples: &[Sample], read: Reading) -> Option<Slope> {
    let points: Vec<_> =
        samples.iter().filter_map(|sample| Some((sample.at_s, read(sample)?))).collect();
    Slope::of(&points)
}

fn slopes(samples: &[Sample], metrics: &mut Metrics) {
    for (name, read) in GROWING {
        let Some(slope) = slope(samples, read) else { continue };
        metrics.insert(format!("{name}_slope_per_h"), slope.per_hour);
        metrics.insert(format!("{name}_slope_error_per_h"), slope.error_per_hour);
        metrics.insert(format!("{name}_gained"), slope.gained);
    }
}

/// How busy our busiest CPU was while all players were there, or at all if there was no such time.
fn own_cores(samples: &[Sample], metrics: &mut Metrics) {
    let has_steady = samples.iter().any(|sample| sample.is_steady);
    let counted = samples.iter().filter(|sample| sample.is_steady || !has_steady);
    let busy: Vec<f64> = counted.filter_map(|sample| sample.own_core_busy_percent).collect();
    if !busy.is_empty() {
        let mean = busy.iter().sum::<f64>() / busy.len() as f64;
        metrics.insert("own_core_busy_percent".into(), mean);
    }
}

fn players(outcome: &Outcome, metrics: &mut Metrics) {
    let joined: Vec<_> = outcome.summaries.iter().filter(|summary| summary.joined).collect();
    if joined.is_empty() {
        return;
    }
    let sum = |of: &dyn Fn(&crate::player::Summary) -> u64| -> f64 {
        joined.iter().map(|summary| of(summary)).sum::<u64>() as f64
    };
    let stalled = ratio(sum(&|one| one.stalled_ns), sum(&|one| one.played_ns));
    metrics.insert("stall_percent".into(), 100.0 * stalled);
    let stalled_players = joined.iter().filter(|summary| summary.stalls > 0).count();
    metrics.insert("stalled_players".into(), stalled_players as f64);
    let rates = joined.iter().filter(|summary| summary.steady_ns > 1_000_000_000);
    let mut rates: Vec<f64> =
        rates.map(|one| ratio(one.steady_bytes as f64 * 8e6, one.steady_ns as f64)).collect();
    put_ranks("bitrate_kbps", &mut rates, metrics);
    let mut slopes: Vec<f64> = joined.iter().filter_map(|summary| summary.slope).collect();
    put_ranks("lag_slope_ms_per_s", &mut slopes, metrics);
}

/// Smallest, first percentile, median and largest of some numbers.
fn put_ranks(name: &str, values: &mut [f64], metrics: &mut Metrics) {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return };
    for (rank, index) in [("min", 0), ("p1", last / 100), ("p50", last / 2), ("max", last)] {
        metrics.insert(format!("{name}_{rank}"), values[index]);
    }
}

/// The server's use while all players were there; where there was no such time, at all.
fn server(outcome: &Outcome, metrics: &mut Metrics) {
    let has_steady = outcome.samples.iter().any(|sample| sample.is_steady);
    let of_use = |sample: &&Sample| sample.is_steady || !has_steady && sample.gauge.playing > 0;
    let samples: Vec<_> = outcome.samples.iter().filter(of_use).collect();
    let uses: Vec<_> = samples.iter().filter_map(|s| Some((*s, s.server?))).collect();
    let seconds: f64 = uses.iter().map(|(sample, _)| sample.seconds).sum();
    if uses.is_empty() || seconds <= 0.0 {
        return;
    }
    let mean = |of: &dyn Fn(&Sample, &crate::run::ServerUse) -> f64| -> f64 {
        uses.iter().map(|(sample, server)| of(sample, server) * sample.seconds).sum::<f64>()
            / seconds
    };
    let total = mean(&|_, server| server.total_percent());
    let players = mean(&|sample, _| sample.gauge.playing as f64);
    let bytes: f64 = uses.iter().map(|(sample, _)| sample.received_bytes as f64).sum();
    let switches: f64 = uses.iter().map(|(_, server)| server.context_switches as f64).sum();
    let mut put = |name: &str, value: f64| metrics.insert(name.into(), value);
    put("server_cpu_percent", mean(&|_, server| server.cpu_percent));
    put("ksoftirqd_percent", mean(&|_, server| server.ksoftirqd_percent));
    put("softirq_percent", mean(&|_, server| server.softirq_percent));
    put("cpu_percent_total", total);
    put("context_switches_per_s", switches / seconds);
    if players > 0.0 {
        put("cpu_percent_per_1000", total * 1000.0 / players);
    }
    if bytes > 0.0 {
        put("cpu_s_per_gb", total / 100.0 * seconds / (bytes / 1e9));
    }
    let rss = uses.iter().map(|(_, server)| server.rss_bytes).max().unwrap_or(0) as f64;
    put("rss_mb", rss / 1e6);
    if let (Some(base), true) = (outcome.rss_base_bytes, outcome.players_max > 0) {
        put("rss_kb_per_player", (rss - base as f64) / 1024.0 / outcome.players_max as f64);
    }
}

/// Requests over HTTP a second, and what the server can do of them with one core.
fn requests(outcome: &Outcome, metrics: &mut Metrics) {
    let counts = &outcome.tally.counts;
    if counts.requests == 0 {
        return;
    }
    metrics.insert("requests".into(), counts.requests as f64);
    metrics.insert("reconnects".into(), counts.reconnects as f64);
    let has_steady = outcome.samples.iter().any(|sample| sample.is_steady);
    let of_rate = |sample: &&Sample| sample.is_steady || !has_steady && sample.gauge.playing > 0;
    let samples: Vec<_> = outcome.samples.iter().filter(of_rate).collect();
    let total = |of: &dyn Fn(&Sample) -> f64| -> f64 { samples.iter().map(|one| of(one)).sum() };
    let (count, seconds) = (total(&|one| one.requests as f64), total(&|one| one.seconds));
    if seconds > 0.0 {
        metrics.insert("requests_per_s".into(), count / seconds);
    }
    let cpu_s =
        total(&|one| one.server.map_or(0.0, |server| server.total_percent() / 100.0 * one.seconds));
    if cpu_s > 0.0 {
        metrics.insert("requests_per_core_s".into(), count / cpu_s);
    }
}

/// What Ringcast's own counters tell about system calls.
fn server_counters(growth: &BTreeMap<String, f64>, metrics: &mut Metrics) {
    let of = |name: &str| growth.get(&format!("ringcast_{name}_total")).copied();
    let Some(bytes) = of("egress_bytes").filter(|&bytes| bytes > 0.0) else { return };
    for (name, counter) in [("io_waits_per_mb", "io_waits"), ("sends_per_mb", "sends")] {
        if let Some(count) = of(counter) {
            metrics.insert(name.into(), count / (bytes / 1e6));
        }
    }
}

/// Reasons not to trust the numbers.
fn doubts(metrics: &Metrics) -> Vec<String> {
    let of = |name: &str| metrics.get(name).copied().unwrap_or(0.0);
    let mut doubts = Vec::new();
    let cpu = of("own_cpu_percent_max");
    if cpu > OWN_CPU_PERCENT_MAX {
        doubts.push(format!(
            "the generator is the bottleneck: a thread used {cpu:.0} % of its core; add --cpus"
        ));
    }
    let busy = of("own_core_busy_percent");
    if busy > OWN_CORE_BUSY_PERCENT_MAX {
        doubts.push(format!(
            "the generator is the bottleneck: a CPU it runs on was busy for {busy:.0} % of the time, \
             by whomever; add --cpus"
        ));
    }
    let late = of("late_ms_p99");
    if late > LATE_MS_MAX {
        doubts.push(format!(
            "the generator is the bottleneck: it was {late:.1} ms late with 1 % of what was due"
        ));
    }
    let others = of("others_cpu_percent");
    if others > OTHERS_PERCENT_MAX && metrics.contains_key("server_cpu_percent") {
        doubts.push(format!(
            "the machine was busy with other work: {others:.0} % of a core on average"
        ));
    }
    if of("publisher_skipped") > 0.0 {
        doubts.push("the server did not take all that publishers sent".into());
    }
    doubts
}

fn histograms(tally: &Tally) -> Value {
    let mut all = Map::new();
    for measure in Measure::ALL {
        let times = tally.times_us(measure);
        if times.is_empty() {
            continue;
        }
        let steps = times.iter_recorded().count().div_ceil(HISTOGRAM_POINTS_MAX).max(1);
        let points: Vec<Value> = times
            .iter_recorded()
            .collect::<Vec<_>>()
            .chunks(steps)
            .filter_map(|chunk| {
                let count: u64 = chunk.iter().map(|step| step.count_at_value()).sum();
                let last = chunk.last()?.value_iterated_to();
                Some(json!([last as f64 / 1000.0, count]))
            })
            .collect();
        all.insert(format!("{}_ms", measure.name()), Value::Array(points));
    }
    Value::Object(all)
}

fn machine() -> Value {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    json!({
        "kernel": kernel.trim(),
        "cpus": cpus,
        "cpu": model.map(|(_, name)| name.trim()),
    })
}

/// One interval as a JSON line.
pub(crate) fn sample_json(sample: &Sample) -> Value {
    let gauge = &sample.gauge;
    json!({
        "type": "sample",
        "at_s": sample.at_s,
        "seconds": sample.seconds,
        "steady": sample.is_steady,
        "playing": gauge.playing,
        "players": gauge.players,
        "publishing": gauge.publishing,
        "hostile": gauge.hostile,
        "joined": sample.joined,
        "requests": sample.requests,
        "failed": sample.failed,
        "latency_ms_p50": sample.latency_ms_p50,
        "latency_ms_p99": sample.latency_ms_p99,
        "received_mbps": sample.received_bytes as f64 * 8e-6 / sample.seconds,
        "stalls": sample.stalls,
        "lost": gauge.lost,
        "tls_full": sample.tls_full,
        "tls_resumed": sample.tls_resumed,
        "own_cpu_percent": sample.own_cpu_percent,
        "own_core_busy_percent": sample.own_core_busy_percent,
        "others_cpu_percent": sample.others_percent,
        "late_ms_p99": sample.late_ms_p99,
        "flush_widened_ms": sample.flush_widened_ms,
        "server_cpu_percent": sample.server.map(|server| server.cpu_percent),
        "ksoftirqd_percent": sample.server.map(|server| server.ksoftirqd_percent),
        "softirq_percent": sample.server.map(|server| server.softirq_percent),
        "rss_mb": sample.server.map(|server| server.rss_bytes as f64 / 1e6),
        "fds": sample.server.map(|server| server.fds),
    })
}

/// One interval as one line for a terminal.
pub(crate) fn sample_line(sample: &Sample) -> String {
    let gauge = &sample.gauge;
    let ms = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let mut line = format!(
        "{:6.1} s  {} publishing  {} playing  {:.0} Mb/s  latency p50 {} p99 {} ms  \
         {} stalls  {} lost  {} failed  own {:.0} %",
        sample.at_s,
        gauge.publishing,
        gauge.playing,
        sample.received_bytes as f64 * 8e-6 / sample.seconds,
        ms(sample.latency_ms_p50),
        ms(sample.latency_ms_p99),
        sample.stalls,
        gauge.lost,
        sample.failed,
        sample.own_cpu_percent_max(),
    );
    if let Some(server) = &sample.server {
        let _ = write!(
            line,
            "  server {:.0}+{:.0} % {:.1} MB",
            server.cpu_percent,
            server.ksoftirqd_percent,
            server.rss_bytes as f64 / 1e6
        );
    }
    line
}
