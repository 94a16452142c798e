//! The control loop: signals, worker events, ticks; and the way out.
//!
//! ```text
//!             SIGHUP, POST reload: reload        (a refused configuration changes nothing)
//!   Ready ───────────────────────────────► Ready
//!     │ SIGTERM, SIGQUIT, POST drain                SIGINT, second SIGTERM, worker failed
//!     ▼                                                          │
//!   Draining ── all workers Drained, or drain_ms over ──► Stopping ◄── (from any phase)
//!                                                                │ all threads ended, or STOP_MAX over
//!                                                                ▼ run returns
//! ```
//!
//! SIGQUIT hands over to a new process (`super::upgrade`): while that lasts everything goes on here; when the
//! other process has taken over, what could not be passed on is drained. What would end this process
//! meanwhile, a signal or a worker that failed, does so once it is known how the hand-over ended.

use std::collections::VecDeque;
use std::fmt;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use super::notify::Notifier;
use super::{Control, Order, Phase, http, locked};
use crate::command::{Event, Events};
use crate::config::OnPanic;
use crate::hand_over::{HandOverError, Outcome};
use crate::log::event;
use crate::server::Renewal;

/// Heartbeats are looked at, orders delivered and threads checked this often.
const TICK: Duration = Duration::from_millis(200);
/// Time in which `workers.restarts_per_minute_max` restarts may fall.
const RESTARTS_WINDOW: Duration = Duration::from_secs(60);
/// How long worker threads may take to end after `Stop`.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The server stopped because something failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunError {
    /// The control thread could not be set up.
    Setup(String),
    /// A worker failed.
    Worker {
        /// Which.
        worker: u16,
        /// Why.
        message: String,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(message) => write!(f, "the control thread cannot start: {message}"),
            Self::Worker { worker, message } => write!(f, "worker {worker} failed: {message}"),
        }
    }
}

impl std::error::Error for RunError {}

/// What the control thread waits with. From its making on signals end nothing by themselves: those that come
/// before [`run`] are answered by it.
#[derive(Debug)]
pub struct Waiting {
    runtime: tokio::runtime::Runtime,
    signals: Signals,
}

impl Waiting {
    /// Handles signals from now on.
    ///
    /// # Errors
    /// [`RunError::Setup`]: no descriptors to be had.
    pub fn new() -> Result<Self, RunError> {
        let setup = |error: std::io::Error| RunError::Setup(error.to_string());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup)?;
        let signals = runtime.block_on(async { Signals::new() }).map_err(setup)?;
        Ok(Self { runtime, signals })
    }
}

/// The threads of the workers.
#[derive(Debug)]
pub struct Threads {
    /// One per worker.
    pub handles: Vec<JoinHandle<()>>,
    /// One per worker that can be replaced.
    pub renew: Vec<mpsc::Sender<Renewal>>,
}

/// Serves until told to stop; blocks the calling thread. `admin` must be non-blocking. `announce` runs
/// once signals are handled: who reads the ready line may send one at once.
///
/// # Errors
/// [`RunError`] if set-up or a worker failed.
pub fn run(
    control: Arc<Control>,
    admin: Option<TcpListener>,
    notifier: Notifier,
    (waiting, events): (Waiting, &Events),
    threads: Threads,
    announce: impl FnOnce(),
) -> Result<(), RunError> {
    let setup = |error: std::io::Error| RunError::Setup(error.to_string());
    let Waiting { runtime, signals } = waiting;
    runtime.block_on(async {
        let mut admin_task = None;
        if let Some(listener) = admin {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(setup)?;
            admin_task = Some(tokio::spawn(http::serve(listener, Arc::clone(&control))));
        }
        tokio::spawn(watch_certificates(Arc::clone(&control)));
        control.report_faults();
        super::access::start(&control);
        let drained = vec![false; threads.handles.len()];
        control.set_phase(Phase::Ready);
        announce();
        let life = Life {
            control,
            notifier,
            threads: threads.handles,
            renew: threads.renew,
            restarts: VecDeque::new(),
            drained,
            failure: None,
            stop_at: None,
            lost: 0,
            upgrade: None,
            postponed: None,
            fallen: None,
            admin_task,
        };
        life.run(signals, events).await
    })
}

/// Looks at the certificate files again and again. Off this thread: with very many files that takes longer
/// than a tick. However many there are and however slow their disk, it rests nineteen times as long as it
/// looked.
async fn watch_certificates(control: Arc<Control>) {
    let mut looked = Duration::ZERO;
    loop {
        let interval = Duration::from_millis(u64::from(control.config().tls.watch_interval_ms));
        tokio::time::sleep(interval.max(looked * 19)).await;
        let certs = Arc::clone(control.certs());
        let begin = Instant::now();
        // What it found is logged inside; it ends early only by a panic, and then the next look is due.
        drop(tokio::task::spawn_blocking(move || certs.watch()).await);
        looked = begin.elapsed();
    }
}

#[derive(Debug)]
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    quit: Signal,
}

#[derive(Copy, Clone, Debug)]
enum Wanted {
    Drain(&'static str),
    Stop(&'static str),
    Upgrade(&'static str),
    Reload,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.term.recv() => Wanted::Drain("SIGTERM"),
            _ = self.int.recv() => Wanted::Stop("SIGINT"),
            _ = self.hup.recv() => Wanted::Reload,
            _ = self.quit.recv() => Wanted::Upgrade("SIGQUIT"),
        }
    }
}

struct Life {
    control: Arc<Control>,
    notifier: Notifier,
    threads: Vec<JoinHandle<()>>,
    /// Has another worker take the place of one; emptied to let those end who wait for that.
    renew: Vec<mpsc::Sender<Renewal>>,
    /// When workers were started anew.
    restarts: VecDeque<Instant>,
    /// Workers that have no connection left, by index.
    drained: Vec<bool>,
    failure: Option<RunError>,
    /// When waiting for threads ends; set once stopping.
    stop_at: Option<Instant>,
    /// Log lines known to be lost.
    lost: u64,
    /// The outcome of a hand-over that is under way.
    upgrade: Option<oneshot::Receiver<Outcome>>,
    /// A signal that came while it was.
    postponed: Option<Wanted>,
    /// A worker that failed while it was, and that no other one replaces.
    fallen: Option<(u16, String)>,
    /// Accepts admin connections.
    admin_task: Option<tokio::task::JoinHandle<()>>,
}

impl Life {
    async fn run(mut self, mut signals: Signals, events: &Events) -> Result<(), RunError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = self.notifier.watchdog_interval().map(interval);
        self.notifier.ready();
        let control = Arc::clone(&self.control);
        while !self.is_over() {
            tokio::select! {
                wanted = signals.next() => self.on_wanted(wanted),
                () = control.drain_requested.notified() => {
                    self.on_wanted(Wanted::Drain("admin request"));
                }
                () = control.upgrade_requested.notified() => {
                    self.on_wanted(Wanted::Upgrade("admin request"));
                }
                outcome = outcome_of(self.upgrade.as_mut()) => self.on_upgrade(outcome),
                event = events.next() => self.on_event(event),
                _ = tick.tick() => self.on_tick(),
                _ = seconds.tick() => self.on_second(events),
                () = next_tick(watchdog.as_mut()) => self.on_watchdog(),
            }
        }
        for thread in self.threads.drain(..) {
            if thread.is_finished() {
                // A panic in it has been reported as a failure already.
                drop(thread.join());
            }
        }
        tracing::info!(event = event::STOP, "stopped");
        self.failure.map_or(Ok(()), Err)
    }

    fn on_wanted(&mut self, wanted: Wanted) {
        match wanted {
            // Whoever serves when the hand-over has ended is meant.
            Wanted::Drain(_) | Wanted::Stop(_) if self.upgrade.is_some() => {
                self.postponed = Some(wanted);
            }
            // On the way out nothing new begins, so there is nothing a new configuration could be for.
            Wanted::Reload if self.control.phase() != Phase::Ready => {}
            Wanted::Reload => {
                tracing::info!(event = event::SIGNAL, signal = "SIGHUP", "reloading");
                self.notifier.reloading();
                // Logged inside; a refused configuration leaves everything as it is.
                drop(self.control.reload());
                self.notifier.ready();
            }
            Wanted::Stop(cause) => self.stop(cause),
            Wanted::Upgrade(cause) => {
                if let Some(outcome) = self.control.begin_upgrade() {
                    tracing::info!(event = event::UPGRADE, cause, "handing over to a new process");
                    self.upgrade = Some(outcome);
                }
            }
            Wanted::Drain(cause) => match self.control.phase() {
                Phase::Starting | Phase::Ready => self.drain(cause),
                Phase::Draining => self.stop(cause),
                Phase::Stopping => {}
            },
        }
    }

    fn on_upgrade(&mut self, outcome: Outcome) {
        self.upgrade = None;
        match outcome {
            Outcome::Failed(error) => {
                tracing::error!(event = event::UPGRADE, "going on, since no hand-over: {error}");
                self.control.end_upgrade(Some(error.to_string()));
                if let Some((worker, message)) = self.fallen.take() {
                    self.fail(worker, message);
                }
                if let Some(wanted) = self.postponed.take() {
                    self.on_wanted(wanted);
                }
            }
            Outcome::PassedOn(pid) => {
                let still_ms = self.control.still_ms.load(Ordering::Relaxed);
                tracing::info!(event = event::UPGRADE, pid, still_ms, "handed over");
                self.control.end_upgrade(None);
                self.notifier.main_pid(pid);
                let signal = match self.postponed.take() {
                    Some(Wanted::Stop(_)) => Some(process::Signal::INT),
                    Some(_) => Some(process::Signal::TERM),
                    None => None,
                };
                let successor = i32::try_from(pid).ok().and_then(process::Pid::from_raw);
                if let (Some(signal), Some(successor)) = (signal, successor) {
                    // It fails only for one that has ended.
                    let _ = process::kill_process(successor, signal);
                }
                // The other process accepts from the same listener.
                if let Some(task) = self.admin_task.take() {
                    task.abort();
                }
                let drain =
                    Duration::from_millis(u64::from(self.control.config().shutdown.drain_ms));
                self.control.set_phase(Phase::Draining);
                *locked(&self.control.drain_until) = Some(Instant::now() + drain);
                if let Some((worker, message)) = self.fallen.take() {
                    // What it had told before is the other process's; nothing is left of it here. The
                    // threads beside the workers have nothing to drain.
                    if let Some(drained) = self.drained.get_mut(usize::from(worker)) {
                        *drained = true;
                    }
                    self.failure.get_or_insert(RunError::Worker { worker, message });
                }
                // Workers without anything left may have said so before.
                self.stop_if_drained();
            }
        }
    }

    fn drain(&mut self, cause: &str) {
        let drain = Duration::from_millis(u64::from(self.control.config().shutdown.drain_ms));
        tracing::info!(event = event::DRAIN, cause, "draining for at most {drain:?}");
        self.notifier.stopping(drain + STOP_MAX);
        self.control.set_phase(Phase::Draining);
        *locked(&self.control.drain_until) = Some(Instant::now() + drain);
        self.control.order(Order::Drain);
    }

    fn stop(&mut self, cause: &str) {
        if self.stop_at.is_some() {
            return;
        }
        tracing::info!(event = event::STOP, cause, "stopping");
        if self.control.phase() != Phase::Draining {
            self.notifier.stopping(STOP_MAX);
        }
        self.control.set_phase(Phase::Stopping);
        self.stop_at = Some(Instant::now() + STOP_MAX);
        // Who has failed waits for a word that does not come.
        self.renew.clear();
        self.control.order(Order::Stop);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Drained { worker } => {
                if let Some(drained) = self.drained.get_mut(usize::from(worker)) {
                    *drained = true;
                }
                self.stop_if_drained();
            }
            Event::Stopped { worker } => {
                tracing::debug!(event = event::STOP, worker, "worker stopped")
            }
            Event::Failed { worker, message } => self.on_failed(worker, message),
            Event::Renewed { worker } => {
                self.control.note_restart(worker);
                tracing::warn!(event = event::WORKER_RESTARTED, worker, "a new worker serves");
            }
        }
    }

    fn stop_if_drained(&mut self) {
        if self.control.phase() == Phase::Draining && self.drained.iter().all(|d| *d) {
            self.stop("all connections have ended");
        }
    }

    /// A worker has ended, with all it held: another one takes its place, or the process ends.
    fn on_failed(&mut self, worker: u16, message: String) {
        self.control.process.worker_failures.increment();
        tracing::error!(event = event::WORKER_FAILED, worker, "{message}");
        let is_replaced = self.may_restart() && self.renew(worker);
        if is_replaced || self.drains_without(worker, &message) {
            return;
        }
        // Workers that are told to stop would close what may be the other process's by then.
        if self.upgrade.is_some() {
            self.fallen.get_or_insert((worker, message));
        } else {
            self.fail(worker, message);
        }
    }

    /// In a drain the others go on to its end, where the process tells by its exit code that one failed.
    fn drains_without(&mut self, worker: u16, message: &str) -> bool {
        let index = usize::from(worker);
        let goes_on = self.control.config().workers.on_panic == OnPanic::Restart
            && self.control.phase() == Phase::Draining
            // It waits for a word: nothing of it is left. One that is gone left something.
            && self.threads.get(index).is_some_and(|thread| !thread.is_finished());
        if goes_on {
            self.drained[index] = true;
            self.failure.get_or_insert(RunError::Worker { worker, message: message.to_owned() });
            self.stop_if_drained();
        }
        goes_on
    }

    /// Whether a worker that has failed is replaced by another one. On the way out none is.
    fn may_restart(&mut self) -> bool {
        let workers = &self.control.config().workers;
        let now = Instant::now();
        self.restarts.retain(|&at| now.duration_since(at) < RESTARTS_WINDOW);
        self.control.phase() == Phase::Ready
            && workers.on_panic == OnPanic::Restart
            && self.restarts.len() < usize::from(workers.restarts_per_minute_max)
    }

    /// Has another worker begin; false where there is no place for one.
    fn renew(&mut self, worker: u16) -> bool {
        let Some(place) = self.renew.get(usize::from(worker)) else { return false };
        let (config, rules) = (self.control.config(), self.control.access.rules());
        let is_sent = place.send(Renewal { config, rules }).is_ok();
        if is_sent {
            self.restarts.push_back(Instant::now());
        }
        is_sent
    }

    fn fail(&mut self, worker: u16, message: String) {
        self.failure.get_or_insert(RunError::Worker { worker, message });
        self.stop("a worker failed");
    }

    fn on_tick(&mut self) {
        self.control.feel_pulses(Instant::now());
        self.control.watch_memory(Instant::now());
        self.control.deliver_orders();
        let drain_over = locked(&self.control.drain_until).is_some_and(|at| at <= Instant::now());
        if drain_over && self.control.phase() == Phase::Draining {
            self.stop("the drain time is over");
        }
        if self.stop_at.is_none()
            && self.fallen.is_none()
            && let Some(index) = self.threads.iter().position(JoinHandle::is_finished)
        {
            let worker = u16::try_from(index).unwrap_or(u16::MAX);
            self.on_failed(worker, "its thread ended by itself".to_owned());
        }
    }

    /// Whether `run` may return. Polled after every event, so the last `Stopped` or tick ends the loop.
    fn is_over(&self) -> bool {
        self.stop_at.is_some_and(|stop_at| {
            self.threads.iter().all(JoinHandle::is_finished) || stop_at <= Instant::now()
        })
    }

    fn on_second(&mut self, events: &Events) {
        let lost = self.control.log.dropped_lines();
        if lost > self.lost {
            let lines = lost - self.lost;
            tracing::warn!(
                event = event::LOG_DROPPED,
                lines,
                "the log's reader is too slow, or its disk is full"
            );
            self.lost = lost;
        }
        if self.control.phase() == Phase::Ready {
            self.notifier.status(&self.control.summary());
        }
        let (suppressed, total) = self.control.log.take_suppressed();
        for (code, lines) in suppressed {
            let text = "more lines of this event than log.lines_per_second_max";
            tracing::warn!(event = event::LOG_SUPPRESSED, code, lines, "{text}");
        }
        self.control.process.log_suppressed.set_total(total);
        self.control.process.events_dropped.set_total(events.dropped());
        for worker in self.control.silent_workers(Instant::now()) {
            tracing::error!(event = event::WORKER_HEARTBEAT, worker, "worker does not turn");
        }
    }

    fn on_watchdog(&self) {
        // Silence makes the service manager restart us, which is what a stuck worker needs.
        if self.control.silent_workers(Instant::now()).is_empty() {
            self.notifier.watchdog();
        }
    }
}

/// How the hand-over under way ends, or never.
async fn outcome_of(upgrade: Option<&mut oneshot::Receiver<Outcome>>) -> Outcome {
    match upgrade {
        Some(outcome) => outcome.await.unwrap_or_else(|_| {
            Outcome::Failed(HandOverError("the hand-over's thread has ended".to_owned()))
        }),
        None => std::future::pending().await,
    }
}

/// The next tick, or never.
async fn next_tick(timer: Option<&mut tokio::time::Interval>) {
    match timer {
        Some(timer) => drop(timer.tick().await),
        None => std::future::pending().await,
    }
}
