//! The control thread: admin HTTP, signals, reload, health, metrics, the way out.
//!
//! Single-threaded tokio on the main thread. It may block on files at reload; nobody on the data path
//! notices, because workers never wait for it. It reaches workers through [`crate::command`] only.
//!
//! - [`life`]: the loop of signals, ticks and worker events; drain and stop.
//! - [`http`]: the listener, limits, authentication. [`api`]: routes and answers.
//! - `domains`, `forbids`, `address`, `facts`, `qr`: further routes. `console`: the operator's page.
//!   `access`: hooks, key sets and the end of forbids.
//! - [`inspect`]: asks all workers and puts the pages together.
//! - [`notify`]: what systemd wants to know. `upgrade`: the hand-over to a new process.

mod access;
mod address;
pub mod api;
mod console;
mod domains;
mod facts;
mod forbids;
pub mod http;
pub mod inspect;
pub mod life;
mod memory;
pub mod notify;
mod qr;
mod upgrade;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::access::manager::Manager;
use crate::certs::{CertSources, CertStore, LoadReport};
use crate::command::{Command, WorkerHandle};
use crate::config::diff::{Changes, merge};
use crate::config::{Config, ConfigError, Source};
use crate::hand_over::Program;
use crate::hls::packager::Packaging;
use crate::host;
use crate::log::{LogHandle, event};
use crate::metrics::{
    CertificateState, KernelTlsPath, Label as _, Outcome, PackagingMetrics, ProcessMetrics,
    StorageMetrics, WorkerMetrics, openmetrics,
};

use crate::shared::Shared;

pub use facts::Listening;
pub use life::{RunError, Threads, Waiting, run};

/// A worker whose turn counter stands still for this long is not healthy.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(2);
/// All workers together have this long to answer one request.
pub const REPLY_DEADLINE: Duration = Duration::from_secs(2);

/// Where the process is in its life.
#[derive(Copy, Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// Takes nothing new, lets connections end.
    Draining,
    /// Ends.
    Stopping,
}

impl Phase {
    fn from_index(index: u8) -> Self {
        match index {
            0 => Self::Starting,
            1 => Self::Ready,
            2 => Self::Draining,
            _ => Self::Stopping,
        }
    }
}

/// A command that must reach a worker, however full its queue is at the moment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Order {
    ApplyConfig,
    Rules,
    Drain,
    GoOn,
    LetGo,
    Stop,
}

#[derive(Debug)]
struct Pulse {
    turns: u64,
    changed_at: Instant,
    /// Workers that have taken this place after one had failed.
    restarts: u64,
}

/// What a reload did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ReloadReport {
    /// Keys that differ.
    #[serde(flatten)]
    pub changes: Changes,
    /// Things that are probably not meant.
    pub warnings: Vec<String>,
    /// What looking at the certificate files did.
    pub certificates: LoadReport,
}

/// The state of the control thread, shared by its tasks. Its locks are never held across an await.
#[derive(Debug)]
pub struct Control {
    source: Source,
    access: Manager,
    config: Mutex<Arc<Config>>,
    certs: Arc<CertStore>,
    log: LogHandle,
    workers: Vec<WorkerHandle>,
    process: ProcessMetrics,
    packaging: Arc<PackagingMetrics>,
    storage: Arc<StorageMetrics>,
    started_at: Instant,
    phase: AtomicU8,
    pulses: Mutex<Vec<Pulse>>,
    /// Orders not yet taken by each worker's queue; at most one of each kind.
    orders: Mutex<Vec<VecDeque<Order>>>,
    drain_until: Mutex<Option<Instant>>,
    /// Rung by the admin API to start draining.
    drain_requested: Notify,
    /// Rung by the admin API to hand over.
    upgrade_requested: Notify,
    upgrade: Mutex<upgrade::UpgradeStatus>,
    /// How long the workers stood still for the hand-over, in milliseconds.
    still_ms: AtomicU64,
    admin_socket: Option<OwnedFd>,
    program: Option<Program>,
    listening: Listening,
    host_findings: Mutex<facts::HostFindings>,
    memory: Mutex<memory::Watch>,
    /// What the workers share; `None` without real ones.
    shared: Option<Arc<Shared>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // All holders are short and leave complete values, so a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    /// The state before serving begins.
    pub fn new(
        source: Source,
        config: Arc<Config>,
        certs: Arc<CertStore>,
        access: Manager,
        log: LogHandle,
        workers: Vec<WorkerHandle>,
        fds_max: u64,
    ) -> Self {
        let now = Instant::now();
        let process = ProcessMetrics::default();
        process.workers.set(workers.len() as u64);
        process.fds_max.set(fds_max);
        process.config_loaded_at.set(unix_seconds());
        let pulses =
            workers.iter().map(|_| Pulse { turns: 0, changed_at: now, restarts: 0 }).collect();
        let orders = workers.iter().map(|_| VecDeque::new()).collect();
        Self {
            source,
            access,
            config: Mutex::new(config),
            certs,
            log,
            workers,
            process,
            packaging: Arc::default(),
            storage: Arc::default(),
            started_at: now,
            phase: AtomicU8::new(Phase::Starting as u8),
            pulses: Mutex::new(pulses),
            orders: Mutex::new(orders),
            drain_until: Mutex::new(None),
            drain_requested: Notify::new(),
            upgrade_requested: Notify::new(),
            upgrade: Mutex::default(),
            still_ms: AtomicU64::new(0),
            admin_socket: None,
            program: None,
            listening: Listening::default(),
            host_findings: Mutex::default(),
            memory: Mutex::default(),
            shared: None,
        }
    }

    /// The threads whose figures are among the metrics.
    pub fn set_packaging(&mut self, packaging: &Packaging) {
        self.packaging = Arc::clone(&packaging.metrics);
        self.storage = Arc::clone(&packaging.storage_metrics);
        self.shared = Some(Arc::clone(&packaging.shared));
    }

    /// Notes where the server listens, for whoever asks.
    pub fn set_listening(&mut self, listening: Listening) {
        self.listening = listening;
    }

    /// What a hand-over to a new process needs: the admin listener, and how to start it.
    pub fn set_hand_over(&mut self, admin_socket: Option<OwnedFd>, program: Option<Program>) {
        self.admin_socket = admin_socket;
        self.program = program;
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.process.ready.set(u64::from(phase == Phase::Ready));
    }

    /// Where the process is in its life.
    pub fn phase(&self) -> Phase {
        Phase::from_index(self.phase.load(Ordering::Relaxed))
    }

    /// The running configuration.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&locked(&self.config))
    }

    /// Time since the control state was made.
    pub fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// Workers whose turn counter has not moved for [`HEARTBEAT_MAX`] at `now`.
    pub fn silent_workers(&self, now: Instant) -> Vec<u16> {
        let pulses = locked(&self.pulses);
        let silent =
            |pulse: &Pulse| now.saturating_duration_since(pulse.changed_at) >= HEARTBEAT_MAX;
        let pairs = self.workers.iter().zip(pulses.iter());
        pairs.filter(|(_, pulse)| silent(pulse)).map(|(worker, _)| worker.index()).collect()
    }

    /// Counts that another worker has taken the place of one that failed.
    fn note_restart(&self, worker: u16) {
        self.process.worker_restarts.increment();
        if let Some(pulse) = locked(&self.pulses).get_mut(usize::from(worker)) {
            pulse.restarts += 1;
        }
    }

    /// How often that was, by worker.
    fn restarts(&self) -> Vec<u64> {
        locked(&self.pulses).iter().map(|pulse| pulse.restarts).collect()
    }

    /// Looks at every worker's turn counter; call a few times per second.
    fn feel_pulses(&self, now: Instant) {
        for (pulse, worker) in locked(&self.pulses).iter_mut().zip(&self.workers) {
            let turns = worker.metrics().turns.value();
            if turns == pulse.turns {
                continue;
            }
            if now.duration_since(pulse.changed_at) >= HEARTBEAT_MAX {
                let worker = worker.index();
                tracing::info!(event = event::WORKER_HEARTBEAT, worker, "worker turns again");
            }
            (pulse.turns, pulse.changed_at) = (turns, now);
        }
    }

    /// Reads the configuration again and, if it is valid, gives it to everybody.
    ///
    /// # Errors
    /// [`ConfigError`]; the running configuration stays.
    pub fn reload(&self) -> Result<ReloadReport, ConfigError> {
        let loaded = match self.source.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                self.process.config_reloads.of(Outcome::Failure).increment();
                for problem in &error.problems {
                    tracing::error!(event = event::CONFIG_REFUSED, "{problem}");
                }
                return Err(error);
            }
        };
        let (merged, changes) = merge(&self.config(), loaded.config);
        self.log.set_level(merged.log.level);
        self.log.set_lines_per_second_max(merged.log.lines_per_second_max);
        let merged = Arc::new(merged);
        *locked(&self.config) = Arc::clone(&merged);
        self.access.apply_config(merged);
        self.order(Order::ApplyConfig);
        self.publish_rules();
        self.report_faults();
        self.process.config_reloads.of(Outcome::Success).increment();
        self.process.config_loaded_at.set(unix_seconds());
        for warning in &loaded.warnings {
            tracing::warn!(event = event::CONFIG_WARNING, "{warning}");
        }
        for change in &changes.restart_required {
            tracing::warn!(event = event::CONFIG_WARNING, key = change.key, "needs a restart");
        }
        let changed = changes.changed.iter().map(|change| change.key.as_str()).collect::<Vec<_>>();
        tracing::info!(event = event::CONFIG_RELOADED, changed = changed.join(" "), "reloaded");
        // May take a while where thousands of certificates changed; the workers turned meanwhile.
        let certificates = self.certs.reload_from(CertSources::of(&self.config()));
        self.feel_pulses(Instant::now());
        Ok(ReloadReport { changes, warnings: loaded.warnings, certificates })
    }

    /// The certificates.
    pub fn certs(&self) -> &Arc<CertStore> {
        &self.certs
    }

    /// Gives the rules in force to every worker.
    fn publish_rules(&self) {
        self.order(Order::Rules);
    }

    /// Says which domains cannot be used, and why.
    fn report_faults(&self) {
        for (domain, fault) in self.access.faults() {
            tracing::error!(event = event::DOMAIN_FAULT, domain, "{fault}");
        }
    }

    /// Asks the control loop to drain and then stop the process.
    pub fn request_drain(&self) {
        self.drain_requested.notify_one();
    }

    /// Puts an order on every worker's list and delivers what the queues take.
    fn order(&self, order: Order) {
        for waiting in locked(&self.orders).iter_mut() {
            if !waiting.contains(&order) {
                waiting.push_back(order);
            }
        }
        self.deliver_orders();
    }

    /// Delivers waiting orders in their sequence; a full queue keeps them for the next tick.
    fn deliver_orders(&self) {
        for (waiting, worker) in locked(&self.orders).iter_mut().zip(&self.workers) {
            while let Some(order) = waiting.front() {
                let command = match order {
                    Order::ApplyConfig => Command::ApplyConfig(self.config()),
                    Order::Rules => Command::Rules(self.access.rules()),
                    Order::Drain => Command::Drain { deadline_ms: self.drain_left_ms() },
                    Order::GoOn => Command::GoOn,
                    Order::LetGo => {
                        let deadline_ms = u64::from(self.config().shutdown.drain_ms);
                        Command::LetGo { deadline_ms }
                    }
                    Order::Stop => Command::Stop,
                };
                if worker.send(command).is_err() {
                    break;
                }
                waiting.pop_front();
            }
        }
    }

    /// What the service manager shows beside the unit.
    fn summary(&self) -> String {
        let status = api::status_of(self);
        format!("serving {} streams, {} connections", status.streams, status.connections)
    }

    fn drain_left_ms(&self) -> u64 {
        let left = locked(&self.drain_until)
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    /// The OpenMetrics text.
    pub fn metrics_text(&self) -> String {
        self.process.uptime.set(self.uptime().as_secs_f64());
        self.process.log_dropped.set_total(self.log.dropped_lines());
        self.process.hook_questions_refused.set_total(self.access.asks().refused());
        let (domains, faulty, forbids) = self.access.counts();
        self.process.domains.set(domains);
        self.process.domains_faulty.set(faulty);
        self.process.forbids.set(forbids);
        self.process.resident_bytes.set(host::resident_bytes());
        self.note_kernel_tls();
        self.certificate_metrics();
        let workers: Vec<&WorkerMetrics> = self.workers.iter().map(WorkerHandle::metrics).collect();
        openmetrics::render(&self.process, &self.packaging, &self.storage, &workers)
    }

    /// What the kernel counts of its TLS; nothing where it has none.
    fn note_kernel_tls(&self) {
        let Ok(stat) = uring::read_tls_stat() else { return };
        let figures = [
            (KernelTlsPath::SendSoftware, stat.send_software_now, stat.send_software),
            (KernelTlsPath::ReceiveSoftware, stat.receive_software_now, stat.receive_software),
            (KernelTlsPath::SendDevice, stat.send_device_now, stat.send_device),
            (KernelTlsPath::ReceiveDevice, stat.receive_device_now, stat.receive_device),
        ];
        for (path, now, ever) in figures {
            self.process.kernel_tls_sockets.of(path).set(now);
            self.process.kernel_tls_sockets_total.of(path).set_total(ever);
        }
        self.process.kernel_tls_decrypt_errors.set_total(stat.decrypt_errors);
        self.process.kernel_tls_rekeys.set_total(stat.rekeys);
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in a float")]
    fn certificate_metrics(&self) {
        let figures = self.certs.figures();
        for &state in CertificateState::ALL {
            self.process.certificates.of(state).set(figures.states[state.index()]);
        }
        self.process.certificate_names.set(figures.names);
        self.process.certificates_loaded.set_total(figures.loaded_total);
        self.process.certificates_refused.set_total(figures.refused_total);
        let soonest = figures.soonest.into_iter().map(|(name, end)| (name, end as f64));
        self.process.certificate_expiry.set(soonest.collect());
    }
}

/// Now, in whole Unix seconds.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{COMMANDS_MAX, Events, Wake, WorkerPort, worker_link};

    struct Nobody;

    impl Wake for Nobody {
        fn wake(&self) {}
    }

    fn control() -> (Control, WorkerPort) {
        let (sink, _events) = Events::channel();
        let (port, seed) = worker_link(0, sink);
        let workers = vec![seed.with_waker(Arc::new(Nobody))];
        let config = Arc::new(Config::default());
        let (source, log) = (Source::default(), LogHandle::default());
        let access = Manager::open(Arc::clone(&config), 0).unwrap();
        (Control::new(source, config, CertStore::empty(), access, log, workers, 0), port)
    }

    #[test]
    fn a_worker_is_silent_after_two_seconds_without_a_turn_and_healthy_after_the_next() {
        let (control, port) = control();
        let start = Instant::now();
        control.feel_pulses(start);
        assert_eq!(control.silent_workers(start + Duration::from_millis(1_900)), [0; 0]);
        let later = start + Duration::from_secs(3);
        control.feel_pulses(later);
        assert_eq!(control.silent_workers(later), [0]);
        port.metrics().turns.increment();
        control.feel_pulses(later);
        assert_eq!(control.silent_workers(later), [0; 0]);
    }

    #[test]
    fn an_order_waits_for_room_in_the_queue_and_is_delivered_once() {
        let (control, port) = control();
        for _ in 0..COMMANDS_MAX {
            control.workers[0].send(Command::Drain { deadline_ms: 1 }).unwrap();
        }
        control.order(Order::ApplyConfig);
        control.order(Order::ApplyConfig);
        control.order(Order::Stop);
        for _ in 0..COMMANDS_MAX {
            assert!(matches!(port.take_command(), Some(Command::Drain { .. })));
        }
        assert!(port.take_command().is_none());
        control.deliver_orders();
        control.deliver_orders();
        assert!(matches!(port.take_command(), Some(Command::ApplyConfig(_))));
        assert!(matches!(port.take_command(), Some(Command::Stop)));
        assert!(port.take_command().is_none());
    }
}
