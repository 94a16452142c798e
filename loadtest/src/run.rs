//! Carries a plan out: starts the threads, collects what they measured, looks at the server.
//!
//! ```text
//!   publisher thread ─┐
//!   player thread 0 ──┼─ parts of samples ─► this thread ─► samples ─► watcher (live line, JSON)
//!   player thread 1 ──┘                        └─ looks at /proc and the metrics page
//! ```
//!
//! Ends by itself: every thread has the same end, and one that does not report is given up.

use crate::link::NoLease;
use crate::num::{MS_NS, SECOND_NS, as_seconds, now_ns, ratio};
use crate::plan::{LINGER_NS, Plan};
use crate::player::Summary;
use crate::probe::{Look, Page, Probe};
use crate::shard::{Duty, Gauge, News, Part, Shard};
use crate::tally::{Measure, Tally};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;
use uring::{IoConfig, Opened, SocketOptions, affinity};

/// The metric of Ringcast that tells how far load has widened the flush window, seconds.
const FLUSH_WIDENED: &str = "ringcast_flush_window_widened_seconds";
/// After the end, until silent threads are given up.
const GIVE_UP_NS: u64 = 5 * SECOND_NS;
/// Samples kept; longer runs have longer intervals.
pub(crate) const SAMPLES_MAX: u64 = 3_600;

/// What happened in one interval.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// End of the interval since the first player, seconds.
    pub(crate) at_s: f64,
    pub(crate) seconds: f64,
    /// All players are there during the whole interval.
    pub(crate) is_steady: bool,
    pub(crate) gauge: Gauge,
    /// Video latency of the interval, milliseconds.
    pub(crate) latency_ms_p50: Option<f64>,
    pub(crate) latency_ms_p99: Option<f64>,
    pub(crate) received_bytes: u64,
    /// Complete audio and video messages received.
    pub(crate) messages: u64,
    pub(crate) stalls: u64,
    pub(crate) failed: u64,
    pub(crate) joined: u64,
    /// Requests over HTTP that were answered.
    pub(crate) requests: u64,
    /// TLS handshakes, full and resumed.
    pub(crate) tls_full: u64,
    pub(crate) tls_resumed: u64,
    /// CPU of our threads, those of players first, then of publishers; percent of a core.
    pub(crate) own_cpu_percent: Vec<f64>,
    /// The busiest of the CPUs our threads are pinned to, with all that ran there and its interrupts;
    /// `None` when they are not pinned.
    pub(crate) own_core_busy_percent: Option<f64>,
    /// What the machine did beside the server and us, percent of a core. Without a process to look
    /// at the server is among it.
    pub(crate) others_percent: f64,
    pub(crate) late_ms_p99: Option<f64>,
    /// By how much the server says it has widened its flush window; `None` if it does not.
    pub(crate) flush_widened_ms: Option<f64>,
    /// Percent of a core; `None` without a process to look at.
    pub(crate) server: Option<ServerUse>,
}

/// What the server used in one interval.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct ServerUse {
    pub(crate) cpu_percent: f64,
    pub(crate) ksoftirqd_percent: f64,
    pub(crate) softirq_percent: f64,
    pub(crate) context_switches: u64,
    pub(crate) rss_bytes: u64,
    /// Open descriptors; 0 where this user may not see them.
    pub(crate) fds: u64,
    /// All the machine did.
    pub(crate) machine_percent: f64,
}

impl Sample {
    /// CPU of our busiest thread, percent of a core.
    pub(crate) fn own_cpu_percent_max(&self) -> f64 {
        self.own_cpu_percent.iter().copied().fold(0.0, f64::max)
    }
}

impl ServerUse {
    fn between(before: &Look, after: &Look) -> ServerUse {
        let wall = after.at_ns.saturating_sub(before.at_ns) as f64;
        let percent =
            |before: u64, after: u64| 100.0 * ratio(after.saturating_sub(before) as f64, wall);
        ServerUse {
            cpu_percent: percent(before.server_cpu_ns, after.server_cpu_ns),
            ksoftirqd_percent: percent(before.ksoftirqd_cpu_ns, after.ksoftirqd_cpu_ns),
            softirq_percent: percent(before.softirq_ns, after.softirq_ns),
            context_switches: after.context_switches.saturating_sub(before.context_switches),
            rss_bytes: after.rss_bytes,
            fds: after.fds,
            machine_percent: percent(before.busy_ns, after.busy_ns),
        }
    }

    /// The server and what the kernel did for it, percent of a core.
    pub(crate) fn total_percent(&self) -> f64 {
        self.cpu_percent + self.ksoftirqd_percent
    }
}

/// Everything a run brought to light.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) samples: Vec<Sample>,
    pub(crate) summaries: Vec<Summary>,
    pub(crate) gauge: Gauge,
    pub(crate) players_max: u64,
    /// Of the server before the first player, if there was something to look at.
    pub(crate) rss_base_bytes: Option<u64>,
    /// Growth of the server's counters while all players were there.
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) server_alive: bool,
    /// `io_uring` or `epoll`.
    pub(crate) backend: String,
    /// What makes the result doubtful, or the generator did not get.
    pub(crate) notes: BTreeSet<String>,
}

impl Outcome {
    /// Adds a later run against the same server.
    pub(crate) fn then(mut self, later: Outcome) -> Outcome {
        let offset_s = self.samples.last().map_or(0.0, |sample| sample.at_s);
        self.tally.add(&later.tally);
        self.samples.extend(
            later.samples.into_iter().map(|one| Sample { at_s: one.at_s + offset_s, ..one }),
        );
        self.summaries.extend(later.summaries);
        self.gauge.add(&later.gauge);
        self.players_max = self.players_max.max(later.players_max);
        self.metrics = later.metrics;
        self.server_alive &= later.server_alive;
        self.notes.extend(later.notes);
        self
    }
}

/// Runs the plan; `watch` sees each sample and says whether to go on.
///
/// # Errors
/// A thread could not begin, or failed.
pub(crate) fn run(
    plan: Plan,
    probe: &Probe,
    watch: &mut dyn FnMut(&Sample) -> bool,
) -> Result<Outcome, String> {
    let plan = Arc::new(plan);
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = channel();
    let threads = start(&plan, &stop, &sender)?;
    drop(sender);
    let mut reporter = Reporter::new(&plan, probe, threads.len());
    let result = reporter.collect(&receiver, watch, &stop);
    stop.store(true, Ordering::Relaxed);
    let mut backends = BTreeSet::new();
    for thread in threads {
        match thread.join() {
            Ok(Started { backend, notes }) => {
                backends.insert(backend);
                reporter.outcome.notes.extend(notes);
            }
            Err(_) => return Err("a thread of the generator failed".into()),
        }
    }
    result?;
    reporter.outcome.backend = backends.into_iter().collect::<Vec<_>>().join(", ");
    Ok(reporter.finish())
}

struct Started {
    backend: &'static str,
    notes: Vec<String>,
}

/// One thread for all publishers, if any, and one per CPU for players; a join storm has its own.
fn start(
    plan: &Arc<Plan>,
    stop: &Arc<AtomicBool>,
    sender: &Sender<(usize, News)>,
) -> Result<Vec<thread::JoinHandle<Started>>, String> {
    let of = plan.cpus.len() as u64;
    let numbered = || (0..of).zip(&plan.cpus);
    let mut duties: Vec<(Duty, Option<usize>, String)> = Vec::new();
    if plan.arrivals.count > 0 || !plan.hostile.is_empty() || plan.shakers > 0 {
        let play = |(first, &cpu)| (Duty::Play { first, of }, cpu, format!("play-{first}"));
        duties.extend(numbered().map(play));
    }
    if plan.disturbance.is_some_and(|disturbance| disturbance.storm > 0) {
        let storm = |(first, &cpu)| (Duty::Storm { first, of }, cpu, format!("storm-{first}"));
        duties.extend(numbered().map(storm));
    }
    if plan.publish.is_some() {
        duties.push((Duty::Publish, plan.publisher_cpu, "publish".into()));
    }
    let mut threads = Vec::new();
    for (number, (duty, cpu, name)) in duties.into_iter().enumerate() {
        let (plan, stop, sender) = (Arc::clone(plan), Arc::clone(stop), sender.clone());
        let body = move || run_thread(plan, duty, number, cpu, (sender, stop));
        let thread = thread::Builder::new().name(name).spawn(body);
        threads.push(thread.map_err(|error| format!("cannot start a thread: {error}"))?);
    }
    Ok(threads)
}

fn run_thread(
    plan: Arc<Plan>,
    duty: Duty,
    number: usize,
    cpu: Option<usize>,
    (sender, stop): (Sender<(usize, News)>, Arc<AtomicBool>),
) -> Started {
    let mut notes = Vec::new();
    if let Some(cpu) = cpu
        && let Err(refused) = affinity::pin_to(cpu)
    {
        notes.push(refused.to_string());
    }
    let config = IoConfig {
        entries: 4096,
        recv_buffers: plan.recv_buffers,
        completions_per_turn_max: 4096,
        connect_socket: SocketOptions {
            notsent_lowat_bytes: None,
            keepalive_idle_s: None,
            user_timeout_ms: None,
            ..SocketOptions::default()
        },
        ..IoConfig::default()
    };
    match uring::open::<NoLease>(plan.io, &config) {
        Ok(Opened::Uring(io)) => {
            Shard::new(*io, plan, duty, number, sender, stop).run();
            Started { backend: "io_uring", notes }
        }
        Ok(Opened::Epoll { io, instead_of_uring }) => {
            notes.extend(instead_of_uring.map(|why| format!("epoll instead of io_uring: {why}")));
            Shard::new(*io, plan, duty, number, sender, stop).run();
            Started { backend: "epoll", notes }
        }
        Err(error) => {
            let _ = sender.send((number, News::Failed(error.to_string())));
            Started { backend: "none", notes }
        }
    }
}

/// Parts of one interval, as far as they are here.
#[derive(Debug)]
struct Pending {
    tally: Tally,
    /// By thread.
    cpu_percent: Vec<f64>,
}

struct Reporter<'a> {
    plan: &'a Plan,
    probe: &'a Probe,
    outcome: Outcome,
    pending: BTreeMap<u64, Pending>,
    /// Of each thread: the last tick reported, and what was open then. `None`: done.
    last_ticks: Vec<Option<u64>>,
    gauges: Vec<Gauge>,
    look: Look,
    /// The CPUs our threads are pinned to, and for how long each has been busy.
    cpus: Vec<usize>,
    cpus_busy_ns: Vec<u64>,
    base_taken: bool,
    metrics_before: Option<BTreeMap<String, f64>>,
    gone: Vec<bool>,
}

impl<'a> Reporter<'a> {
    fn new(plan: &'a Plan, probe: &'a Probe, threads: usize) -> Reporter<'a> {
        let mut cpus: Vec<usize> = plan.cpus.iter().copied().flatten().collect();
        cpus.extend(plan.publisher_cpu.filter(|_| plan.publish.is_some()));
        cpus.sort_unstable();
        cpus.dedup();
        Reporter {
            cpus_busy_ns: probe.cpus_busy_ns(&cpus),
            cpus,
            plan,
            probe,
            outcome: Outcome {
                tally: Tally::new(),
                samples: Vec::new(),
                summaries: Vec::new(),
                gauge: Gauge::default(),
                players_max: 0,
                rss_base_bytes: None,
                metrics: BTreeMap::new(),
                server_alive: true,
                backend: String::new(),
                notes: BTreeSet::new(),
            },
            pending: BTreeMap::new(),
            last_ticks: vec![None; threads],
            gauges: vec![Gauge::default(); threads],
            look: probe.look(),
            base_taken: false,
            metrics_before: None,
            gone: vec![false; threads],
        }
    }

    fn collect(
        &mut self,
        receiver: &Receiver<(usize, News)>,
        watch: &mut dyn FnMut(&Sample) -> bool,
        stop: &AtomicBool,
    ) -> Result<(), String> {
        let give_up_ns = self.plan.end_ns + LINGER_NS + GIVE_UP_NS;
        while !self.gone.iter().all(|&gone| gone) {
            self.take_base();
            let now = now_ns();
            if now > give_up_ns {
                return Err("a thread of the generator does not end".into());
            }
            let wait = Duration::from_nanos(self.next_wait_ns(now));
            match receiver.recv_timeout(wait) {
                Ok((thread, News::Part(part))) => self.take_part(thread, *part),
                Ok((thread, News::Done { part, summaries })) => {
                    self.gone[thread] = true;
                    self.outcome.summaries.extend(summaries);
                    self.take_part(thread, *part);
                }
                Ok((_, News::Failed(reason))) => return Err(reason),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Some(sample) = self.next_sample() {
                if stop.load(Ordering::Relaxed) {
                    // Cut short, so it tells of no load.
                    continue;
                }
                if !watch(&sample) {
                    stop.store(true, Ordering::Relaxed);
                }
                self.outcome.samples.push(sample);
            }
        }
        Ok(())
    }

    fn next_wait_ns(&self, now: u64) -> u64 {
        let until = if self.base_taken { u64::MAX } else { self.base_at_ns() };
        until.saturating_sub(now).clamp(MS_NS, SECOND_NS)
    }

    /// Shortly before the first player: publishers are there, players are not.
    fn base_at_ns(&self) -> u64 {
        self.plan.play_ns.saturating_sub(20 * MS_NS)
    }

    fn take_base(&mut self) {
        if !self.base_taken && now_ns() >= self.base_at_ns() {
            self.base_taken = true;
            self.look = self.probe.look();
            self.cpus_busy_ns = self.probe.cpus_busy_ns(&self.cpus);
            self.outcome.rss_base_bytes = self.probe.sees_process().then_some(self.look.rss_bytes);
        }
    }

    fn take_part(&mut self, thread: usize, part: Part) {
        let cpu_percent = 100.0 * ratio(part.cpu_ns as f64, part.wall_ns as f64);
        self.outcome.tally.add(&part.tally);
        // What is left at the end of a run is too short to tell a load by.
        let is_whole = part.wall_ns * 2 >= self.plan.interval_ns;
        let threads = self.gone.len();
        let pending = self
            .pending
            .entry(part.tick)
            .or_insert_with(|| Pending { tally: Tally::new(), cpu_percent: vec![0.0; threads] });
        pending.tally.add(&part.tally);
        if is_whole {
            pending.cpu_percent[thread] = cpu_percent;
        }
        self.last_ticks[thread] = Some(part.tick);
        self.gauges[thread] = part.gauge;
    }

    /// The next interval all threads have told about, or can tell no more.
    fn next_sample(&mut self) -> Option<Sample> {
        let &tick = self.pending.keys().next()?;
        let mut reports = self.last_ticks.iter().zip(&self.gone);
        if !reports.all(|(last, &gone)| gone || last.is_some_and(|last| last >= tick)) {
            return None;
        }
        let pending = self.pending.remove(&tick)?;
        let end_ns = self.plan.start_ns + (tick + 1) * self.plan.interval_ns;
        if end_ns > self.plan.end_ns + self.plan.interval_ns / 2 {
            // Publishers outlive players a little: nothing is to be seen then.
            return None;
        }
        let before = self.look;
        self.look = self.probe.look();
        let wall_ns = self.look.at_ns.saturating_sub(before.at_ns);
        let core_busy = self.take_cores(wall_ns);
        let server = ServerUse::between(&before, &self.look);
        let begin_ns = end_ns - self.plan.interval_ns;
        let is_steady = begin_ns >= self.plan.judging.steady_ns;
        let page = self.probe.page();
        self.take_metrics(is_steady, &page);
        let mut gauge = Gauge::default();
        self.gauges.iter().for_each(|one| gauge.add(one));
        self.outcome.gauge = gauge;
        self.outcome.players_max = self.outcome.players_max.max(gauge.playing);
        let mut sample =
            sample_of(self.plan, &pending, gauge, (end_ns, is_steady), server, self.probe);
        sample.own_core_busy_percent = core_busy;
        sample.flush_widened_ms = page.largest(FLUSH_WIDENED).map(|seconds| seconds * 1e3);
        Some(sample)
    }

    /// How busy the busiest of our CPUs has been since the last time, percent.
    fn take_cores(&mut self, wall_ns: u64) -> Option<f64> {
        let now = self.probe.cpus_busy_ns(&self.cpus);
        let before = std::mem::replace(&mut self.cpus_busy_ns, now);
        let grown = before.iter().zip(&self.cpus_busy_ns).map(|(b, a)| a.saturating_sub(*b));
        grown.max().map(|busy_ns| (100.0 * ratio(busy_ns as f64, wall_ns as f64)).min(100.0))
    }

    fn take_metrics(&mut self, is_steady: bool, page: &Page) {
        if !is_steady {
            return;
        }
        let now = page.sums();
        match &self.metrics_before {
            None => self.metrics_before = Some(now),
            Some(before) => {
                let growth = now.into_iter().map(|(name, value)| {
                    let base = before.get(&name).copied().unwrap_or(0.0);
                    (name, value - base)
                });
                self.outcome.metrics = growth.collect();
            }
        }
    }

    /// The rest of an outcome.
    fn finish(mut self) -> Outcome {
        self.outcome.server_alive = self.probe.is_alive();
        self.outcome
    }
}

fn sample_of(
    plan: &Plan,
    pending: &Pending,
    gauge: Gauge,
    (end_ns, is_steady): (u64, bool),
    server: ServerUse,
    probe: &Probe,
) -> Sample {
    let known = server.total_percent() + pending.cpu_percent.iter().sum::<f64>();
    let (tally, counts) = (&pending.tally, &pending.tally.counts);
    let since_first = end_ns as f64 - plan.play_ns as f64;
    Sample {
        at_s: since_first / 1e9,
        seconds: as_seconds(plan.interval_ns),
        is_steady,
        gauge,
        latency_ms_p50: tally.quantile_ms(Measure::Latency, 0.5),
        latency_ms_p99: tally.quantile_ms(Measure::Latency, 0.99),
        received_bytes: counts.received_bytes,
        messages: counts.messages,
        stalls: counts.stalls,
        failed: counts.failed,
        joined: counts.joined,
        requests: counts.requests,
        tls_full: counts.tls_full,
        tls_resumed: counts.tls_resumed,
        own_cpu_percent: pending.cpu_percent.clone(),
        own_core_busy_percent: None,
        flush_widened_ms: None,
        late_ms_p99: tally.quantile_ms(Measure::Late, 0.99),
        others_percent: (server.machine_percent - known).max(0.0),
        server: probe.sees_process().then_some(server),
    }
}
