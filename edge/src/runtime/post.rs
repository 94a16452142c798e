//! The thread of a worker, from the opening of its `Io` on, and what becomes of it after a panic.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwapOption;
use uring::{Io, IoConfig, ListenOptions, SocketOptions};

use super::panic_text;
use crate::command::{Event, EventSink, Wake, WorkerPort};
use crate::config::{Config, IoChoice};
use crate::hand_over::record::{Door, WorkerRecord};
use crate::provoke::{self, Moment};
use crate::server::{IoKind, Renewal, StartError};
use crate::shared::Shared;
use crate::transport::Secure;
use crate::worker::{Clocks, EntranceUse, Flow, Remains, Worker};

/// Stack of a worker thread, in bytes.
pub(super) const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Connections a worker's `Io` has room for beyond `limits.connections_max`: those that are refused.
const CONNECTIONS_SPARE: u32 = 1_024;

/// How long sent bytes may stay unacknowledged, in milliseconds; no longer than a peer may be idle.
const UNACKNOWLEDGED_MS_MAX: u32 = 30_000;

/// What one worker reports when it is ready.
pub(super) struct Ready {
    /// Where it listens: RTMP, RTMPS, HTTP.
    pub(super) bound: [Option<SocketAddr>; 3],
    pub(super) io: IoKind,
    pub(super) io_refused: Option<String>,
}

/// Wakes whoever is a worker at present.
#[derive(Default)]
pub(super) struct IoWaker(ArcSwapOption<uring::Waker>);

impl Wake for IoWaker {
    fn wake(&self) {
        if let Some(waker) = &*self.0.load() {
            waker.wake();
        }
    }
}

/// A worker's thread that waits, and its starter's ends of what they say to each other.
pub(super) struct Place {
    pub(super) thread: JoinHandle<()>,
    pub(super) waker: Arc<IoWaker>,
    pub(super) opened: mpsc::Receiver<Result<(), StartError>>,
    pub(super) start: mpsc::Sender<Start>,
    pub(super) ready: mpsc::Receiver<Result<Ready, StartError>>,
    pub(super) renew: mpsc::Sender<Renewal>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("thread", &self.thread).finish_non_exhaustive()
    }
}

/// A worker's place: what stays when the worker in it has panicked and another one takes it.
pub(super) struct Post {
    pub(super) index: u16,
    pub(super) shared: Arc<Shared>,
    pub(super) cpu: Option<usize>,
    /// Where to listen: RTMP, RTMPS, HTTP.
    pub(super) addresses: [Option<SocketAddr>; 3],
    pub(super) secure: Option<Arc<Secure>>,
    pub(super) events: EventSink,
    pub(super) waker: Arc<IoWaker>,
}

/// What one worker begins with.
pub(super) struct Start {
    pub(super) port: WorkerPort,
    /// Serial number of the last connection of the worker before it.
    pub(super) serial: u64,
    pub(super) renewed: Renewal,
    pub(super) is_renewed: bool,
    /// Where to listen: RTMP, RTMPS, HTTP.
    pub(super) addresses: [Option<SocketAddr>; 3],
    /// Sockets to accept from instead of the addresses, in their order.
    pub(super) passed: Vec<Vec<OwnedFd>>,
    /// What workers of the process before this one pass on.
    pub(super) legacy: Vec<(WorkerRecord, Vec<OwnedFd>)>,
    /// The word to begin, if it is to be waited for.
    pub(super) wait: Option<mpsc::Receiver<()>>,
}

impl Start {
    /// Takes the place of a worker, with what it left.
    fn after(remains: Remains, renewed: Renewal, addresses: [Option<SocketAddr>; 3]) -> Self {
        let Remains { port, serial, doors, .. } = remains;
        let mut passed: Vec<Vec<OwnedFd>> = (0..3).map(|_| Vec::new()).collect();
        for (door, socket) in doors {
            let place = match door {
                Door::Rtmp => 0,
                Door::Rtmps => 1,
                // No worker has the admin listener.
                Door::Http | Door::Admin => 2,
            };
            passed[place].push(socket);
        }
        let (legacy, wait) = (Vec::new(), None);
        Self { port, serial, renewed, is_renewed: true, addresses, passed, legacy, wait }
    }
}

/// How a worker ended before it was told to.
struct Fallen {
    message: String,
    remains: Result<Remains, &'static str>,
}

/// What a worker turns on.
enum Opened {
    Uring(Box<uring::Uring<ring::Lease>>),
    /// And why it is not `io_uring`, where that was tried.
    Epoll(Box<uring::Epoll<ring::Lease>>, Option<String>),
}

/// The thread's ends of [`Place`].
struct Ways {
    opened: mpsc::Sender<Result<(), StartError>>,
    start: mpsc::Receiver<Start>,
    ready: mpsc::Sender<Result<Ready, StartError>>,
    renewals: mpsc::Receiver<Renewal>,
}

/// Tells the starter that a worker is ready, or why it cannot start, once; false if that is gone.
type TellStart<'t> = &'t dyn Fn(Result<Ready, StartError>) -> bool;

impl Post {
    /// Starts the thread.
    pub(super) fn fill(self, config: &Arc<Config>) -> Result<Place, StartError> {
        let (opened_sender, opened) = mpsc::channel();
        let (start, start_receiver) = mpsc::channel();
        let (ready_sender, ready) = mpsc::channel();
        let (renew, renewals) = mpsc::channel();
        let ways =
            Ways { opened: opened_sender, start: start_receiver, ready: ready_sender, renewals };
        let (waker, config) = (Arc::clone(&self.waker), Arc::clone(config));
        let thread = thread::Builder::new()
            .name(format!("worker-{}", self.index))
            .stack_size(STACK_BYTES)
            .spawn(move || self.hold(&config, &ways))
            .map_err(|error| StartError::Failed(format!("cannot start a thread: {error}")))?;
        Ok(Place { thread, waker, opened, start, ready, renew })
    }

    /// The thread of a worker. One that panics is our fault: it never goes on. The control thread is told,
    /// and has another one begin in its place, by a word in `renewals`, or ends the process.
    fn hold(mut self, config: &Config, ways: &Ways) {
        let (index, events) = (self.index, self.events.clone());
        let failed = |message| Event::Failed { worker: index, message };
        let tell_first = |ready| ways.ready.send(ready).is_ok();
        let tell_renewed = |ready: Result<Ready, StartError>| {
            events.report(match ready {
                Ok(_) => Event::Renewed { worker: index },
                // Its thread ends.
                Err(error) => failed(format!("a worker cannot be started anew: {error}")),
            });
            true
        };
        let mut tell: TellStart<'_> = &tell_first;
        let (first, refused) = match self.open(config) {
            Ok(io) => (Some(io), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // Nobody hears it where another worker was refused before.
        let is_wanted = ways.opened.send(refused).is_ok();
        let Some(mut io) = first.filter(|_| is_wanted) else { return };
        let Ok(mut start) = ways.start.recv() else { return };
        loop {
            let run = AssertUnwindSafe(|| self.run(start, io, tell));
            let fallen = match catch_unwind(run) {
                Ok(Ok(())) => return,
                Ok(Err(fallen)) => fallen,
                Err(panic) => {
                    let error = StartError::Failed(panicked_at_start(&*panic));
                    tell(Err(error));
                    return;
                }
            };
            let Fallen { message, remains } = fallen;
            let mut remains = match remains {
                Ok(remains) => remains,
                // The thread ends: what is left of this worker is others' trouble.
                Err(what) => return events.report(failed(format!("{message}, {what}"))),
            };
            events.report(failed(message));
            remains.tell(|| self.shared.verdict.wait());
            let Ok(renewal) = ways.renewals.recv() else { return };
            tell = &tell_renewed;
            io = match self.open(&renewal.config) {
                Ok(io) => io,
                Err(error) => {
                    tell(Err(error));
                    return;
                }
            };
            start = Start::after(remains, renewal, self.addresses);
        }
    }

    /// Opens what a worker turns on, on its CPU.
    fn open(&self, config: &Config) -> Result<Opened, StartError> {
        if let Some(cpu) = self.cpu
            && let Err(refused) = uring::affinity::pin_to(cpu)
        {
            tracing::warn!(event = "not_pinned", worker = self.index, "{refused}");
        }
        let open = AssertUnwindSafe(|| open_io(config));
        catch_unwind(open)
            .unwrap_or_else(|panic| Err(StartError::Failed(panicked_at_start(&*panic))))
    }

    /// Serves until told to stop.
    fn run(&mut self, start: Start, io: Opened, tell: TellStart<'_>) -> Result<(), Fallen> {
        match io {
            Opened::Uring(io) => self.serve(start, *io, IoKind::Uring, None, tell),
            Opened::Epoll(io, refused) => self.serve(start, *io, IoKind::Epoll, refused, tell),
        }
    }

    fn serve<I: Io<Lease = ring::Lease>>(
        &mut self,
        start: Start,
        io: I,
        kind: IoKind,
        io_refused: Option<String>,
        tell: TellStart<'_>,
    ) -> Result<(), Fallen> {
        let Start { port, serial, renewed, is_renewed, addresses, passed, legacy, wait } = start;
        let (index, config) = (self.index, renewed.config);
        self.addresses = addresses;
        self.waker.0.store(Some(Arc::new(io.waker())));
        if index == 0 && !is_renewed {
            tell_features(&io);
        }
        let clocks = Clocks { cpu_nanos: thread_cpu_nanos, unix_s: unix_seconds };
        let (shared, random) = (Arc::clone(&self.shared), random_seed());
        let mut worker =
            Worker::new(io, port, shared, Arc::clone(&config), renewed.rules, random, clocks);
        worker.set_serial(serial);
        if let Some(secure) = &self.secure {
            worker.set_secure(Arc::clone(secure));
        }
        let takes_over = wait.is_some();
        if takes_over {
            worker.hold();
        }
        match self.open_doors(&mut worker, passed, &config) {
            Ok(bound) => self.addresses = bound,
            Err(error) => {
                tell(Err(error));
                return Ok(());
            }
        }
        for (record, sockets) in legacy {
            provoke::panic_if_asked(index, Moment::Importing);
            if let Err(error) = worker.import(record, sockets) {
                tell(Err(StartError::Failed(error.to_string())));
                return Ok(());
            }
        }
        if !tell(Ok(Ready { bound: self.addresses, io: kind, io_refused })) {
            return Ok(());
        }
        if let Some(wait) = wait {
            // Without the word the sockets are somebody else's: touch nothing.
            if wait.recv().is_err() {
                return Ok(());
            }
        }
        // From here on there is somebody to be cut by a panic, and it is cleared away after one.
        let turns = AssertUnwindSafe(|| {
            if takes_over {
                provoke::panic_if_asked(index, Moment::TakingUp);
                worker.find_places();
                worker.take_up();
            }
            loop {
                provoke::panic_if_asked(index, Moment::Turning);
                match worker.turn() {
                    Ok(Flow::Continue) => {}
                    Ok(Flow::Stopped) => return None,
                    Err(error) => return Some(error.to_string()),
                }
            }
        });
        let message = match catch_unwind(turns) {
            Ok(None) => return Ok(()),
            Ok(Some(error)) => error,
            Err(panic) => format!("a worker panicked: {}", panic_text(&*panic)),
        };
        Err(Fallen { message, remains: worker.bury() })
    }

    /// Listens; returns where.
    fn open_doors<I: Io<Lease = ring::Lease>>(
        &self,
        worker: &mut Worker<I>,
        passed: Vec<Vec<OwnedFd>>,
        config: &Config,
    ) -> Result<[Option<SocketAddr>; 3], StartError> {
        let options = listen_options(config);
        let [rtmp, rtmps, http] = self.addresses;
        // Those whose PROXY header is believed may have TLS behind it wherever they come in.
        let is_proxied = !config.listen.proxy_from.0.is_empty();
        let usage =
            |door, reads_by_record, serves_http| EntranceUse { door, reads_by_record, serves_http };
        let serves_http = http.is_some() || passed.last().is_some_and(|p| !p.is_empty());
        let listeners = [
            ("rtmp", rtmp, usage(Door::Rtmp, is_proxied, false)),
            ("rtmps", rtmps, usage(Door::Rtmps, true, serves_http)),
            ("http", http, usage(Door::Http, is_proxied, true)),
        ];
        let mut bound = [None; 3];
        for ((door, passed), bound) in listeners.into_iter().zip(passed).zip(&mut bound) {
            *bound = listen(worker, door, passed, &options)?;
        }
        Ok(bound)
    }
}

fn panicked_at_start(panic: &(dyn std::any::Any + Send)) -> String {
    format!("a worker panicked at its start: {}", panic_text(panic))
}

fn open_io(config: &Config) -> Result<Opened, StartError> {
    let io_config = io_config(config);
    let mut refused = None;
    if config.workers.io != IoChoice::Epoll {
        match uring::Uring::open(io_config.clone()) {
            Ok(io) => return Ok(Opened::Uring(Box::new(io))),
            Err(refusal) if config.workers.io == IoChoice::Uring => {
                return Err(StartError::UringRefused(refusal.to_string()));
            }
            Err(refusal) => refused = Some(refusal.to_string()),
        }
    }
    let io =
        uring::Epoll::open(io_config).map_err(|error| StartError::Failed(error.to_string()))?;
    Ok(Opened::Epoll(Box::new(io), refused))
}

fn io_config(config: &Config) -> IoConfig {
    IoConfig {
        // One descriptor per connection whatever worker it lands on: each may have all.
        // And a few more, so that it is the worker that refuses, and says so.
        connections_max: config.limits.connections_max.saturating_add(CONNECTIONS_SPARE),
        ..IoConfig::default()
    }
}

fn listen_options(config: &Config) -> ListenOptions {
    ListenOptions {
        backlog: config.listen.backlog,
        socket: SocketOptions {
            notsent_lowat_bytes: Some(config.limits.unsent_bytes_max),
            // A peer behind a cut cable takes pings into its socket's buffer: only the kernel knows
            // that nothing is acknowledged.
            user_timeout_ms: Some(config.limits.idle_ms_max.min(UNACKNOWLEDGED_MS_MAX)),
            ..SocketOptions::default()
        },
        ..ListenOptions::default()
    }
}

fn tell_features(io: &impl Io) {
    for feature in &io.features().list {
        match feature.state {
            uring::FeatureState::Off { .. } => tracing::debug!(event = "io_feature", "{feature}"),
            _ => tracing::info!(event = "io_feature", "{feature}"),
        }
    }
}

/// Accepts from the passed sockets, or binds the address, or does neither; returns where it listens.
fn listen<I: Io<Lease = ring::Lease>>(
    worker: &mut Worker<I>,
    (what, address, usage): (&'static str, Option<SocketAddr>, EntranceUse),
    passed: Vec<OwnedFd>,
    options: &ListenOptions,
) -> Result<Option<SocketAddr>, StartError> {
    if passed.is_empty() {
        let Some(address) = address else { return Ok(None) };
        let bound = worker.listen(address, options, usage);
        return bound.map(Some).map_err(|source| StartError::Listen { what, address, source });
    }
    let mut bound = None;
    for socket in passed {
        let failed = |error| StartError::Failed(format!("the socket passed for {what}: {error}"));
        bound = Some(worker.listen_on(socket, options, usage).map_err(failed)?);
    }
    Ok(bound)
}

/// CPU time of the calling thread, in nanoseconds.
pub(super) fn thread_cpu_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // A thread's CPU time is never negative.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Unix time, in seconds; 0 while the clock stands before 1970.
fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A seed for handshake randoms: unpredictable enough to tell connections apart, no secret.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
