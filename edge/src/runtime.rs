//! Starts the workers: one pinned thread each, with the best `Io` the kernel allows.
//!
//! A worker is made on its own thread, because its `Io` and its arena never leave it. It tells its
//! starter what it listens on, or why it could not start; nobody is served before all have.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use uring::{Io, IoConfig, ListenOptions, SocketOptions};

use crate::access::Rules;
use crate::certs::{CertSources, CertStore};
use crate::command::{Event, EventSink, Wake, WorkerPort, worker_link};
use crate::config::{Config, IoChoice, KernelTls};
use crate::hand_over::record::{Door, WorkerRecord};
use crate::hls::packager::{Packager, Packaging};
use crate::host;
use crate::inherit::{self, Inherited};
use crate::log::event;
use crate::metrics::{PackagingMetrics, StorageMetrics};
use crate::server::{IoKind, StartError, StartedWorkers};
use crate::shared::Shared;
use crate::storage::{Directory, StorageQueue, StorageThread};
use crate::transport::Secure;
use crate::worker::{Clocks, EntranceUse, Flow, Worker};

/// Stack of a worker thread, in bytes.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Connections a worker's `Io` has room for beyond `limits.connections_max`: those that are refused.
const CONNECTIONS_SPARE: u32 = 1_024;

/// How long sent bytes may stay unacknowledged, in milliseconds; no longer than a peer may be idle.
const UNACKNOWLEDGED_MS_MAX: u32 = 30_000;

/// What one worker reports when it is ready.
struct Ready {
    rtmp: Option<SocketAddr>,
    rtmps: Option<SocketAddr>,
    http: Option<SocketAddr>,
    io: IoKind,
    io_refused: Option<String>,
    waker: Arc<dyn Wake>,
}

struct IoWaker(uring::Waker);

impl Wake for IoWaker {
    fn wake(&self) {
        self.0.wake();
    }
}

/// Starts the configured workers, the n-th pinned to the n-th of the configured CPUs, round robin. They
/// listen on what was `inherited`, and bind where nothing was.
///
/// # Errors
/// What kept a worker from starting: the kernel refuses io_uring although the configuration
/// requires it, or an address cannot be bound.
pub fn spawn_workers(
    config: Arc<Config>,
    rules: Arc<Rules>,
    certs: Arc<CertStore>,
    events: EventSink,
    inherited: Inherited,
) -> Result<StartedWorkers, StartError> {
    let cpus = match config.workers.cpus.0.as_slice() {
        [] => uring::affinity::allowed_cpus(),
        cpus => cpus.iter().copied().map(usize::from).collect(),
    };
    let count = match config.workers.count {
        0 => cpus.len().max(1),
        count => usize::from(count),
    };
    let shared = Arc::new(Shared::new(count));
    shared.hls.set_bytes_max(config.limits.hls_bytes_max);
    shared.addresses.set_descriptors_max(host::descriptors_for_connections(count));
    let mut inherited = inherited;
    shared.hls.inherit(std::mem::take(&mut inherited.renditions));
    let legacies = distribute(std::mem::take(&mut inherited.workers), count);
    let mut started = StartedWorkers {
        go: Vec::new(),
        handles: Vec::new(),
        threads: Vec::new(),
        packaging: None,
        rtmp: None,
        rtmps: None,
        http: None,
        is_kernel_tls: false,
        io: IoKind::Uring,
        io_refused: None,
    };
    // The first worker asks the kernel for a port if none is given; the others join it there.
    let mut rtmp = config.listen.rtmp.address();
    let secure = secure(&config, certs)?;
    let mut rtmps = secure.as_ref().and_then(|_| config.listen.rtmps.address());
    let mut http = config.listen.http.address();
    if inherited.is_succession && secure.is_none() {
        // This configuration has no use for it any more.
        inherited.rtmps.clear();
    }
    if secure.is_none() && !inherited.rtmps.is_empty() {
        let text = "a socket for rtmps was passed, but there are no certificates";
        return Err(StartError::Failed(text.to_owned()));
    }
    started.is_kernel_tls = secure.as_ref().is_some_and(|secure| secure.kernel.is_on());
    for (index, legacy) in legacies.into_iter().enumerate() {
        let (go, wait) = mpsc::channel();
        if inherited.is_succession {
            started.go.push(go);
        }
        let (port, seed) = worker_link(worker_index(index)?, events.clone());
        let (ready_sender, ready_receiver) = mpsc::channel();
        let share = |sockets: &[OwnedFd]| {
            inherit::share(sockets, index, count)
                .map_err(|error| StartError::Failed(format!("a passed socket: {error}")))
        };
        let start = Start {
            passed: [&inherited.rtmp, &inherited.rtmps, &inherited.http]
                .map(|sockets| share(sockets))
                .into_iter()
                .collect::<Result<_, _>>()?,
            legacy,
            wait: inherited.is_succession.then_some(wait),
            port,
            shared: Arc::clone(&shared),
            config: Arc::clone(&config),
            cpu: cpus.get(index % cpus.len().max(1)).copied(),
            rtmp,
            rtmps,
            http,
            secure: secure.clone(),
            rules: Arc::clone(&rules),
            events: events.clone(),
        };
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .stack_size(STACK_BYTES)
            .spawn(move || start.run_guarded(&ready_sender))
            .map_err(|error| StartError::Failed(format!("cannot start a thread: {error}")))?;
        started.threads.push(thread);
        let ready = ready_receiver
            .recv()
            .map_err(|_| StartError::Failed("a worker ended before it was ready".to_owned()))??;
        shared.set_waker(index, Arc::clone(&ready.waker));
        started.handles.push(seed.with_waker(ready.waker));
        (rtmp, rtmps, http) = (ready.rtmp, ready.rtmps, ready.http);
        (started.rtmp, started.rtmps, started.http) = (rtmp, rtmps, http);
        started.io = ready.io;
        if index == 0 {
            started.io_refused = ready.io_refused;
        }
    }
    started.packaging = Some(spawn_packaging(shared, worker_index(count)?, events)?);
    Ok(started)
}

/// Gives each of `count` workers what it goes on with.
fn distribute(
    records: Vec<(WorkerRecord, Vec<OwnedFd>)>,
    count: usize,
) -> Vec<Vec<(WorkerRecord, Vec<OwnedFd>)>> {
    let mut legacies: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    for (record, sockets) in records {
        if let Some(legacy) = legacies.get_mut(usize::from(record.index) % count.max(1)) {
            legacy.push((record, sockets));
        }
    }
    legacies
}

/// Starts the threads that package streams for HLS and that write what is to be kept. They have no CPU of
/// their own: the scheduler puts them where a worker is idle. A panic of one is reported like a worker's,
/// under the number behind theirs.
fn spawn_packaging(
    shared: Arc<Shared>,
    number: u16,
    events: EventSink,
) -> Result<Packaging, StartError> {
    let (queue, store) = (StorageQueue::default(), Directory);
    let metrics = Arc::new(PackagingMetrics::default());
    let storage_metrics = Arc::new(StorageMetrics::default());
    let thread = StorageThread::new(queue.clone(), store, Arc::clone(&storage_metrics));
    let storage = spawn_guarded("storage", number, events.clone(), move || thread.run())?;
    let (seen, counted, keeps) = (Arc::clone(&shared), Arc::clone(&metrics), queue.clone());
    let packager = spawn_guarded("packager", number, events, move || {
        // Made there, because its taps never leave it.
        Packager::new(seen, counted, keeps, thread_cpu_nanos).run();
    })?;
    Ok(Packaging { shared, metrics, packager, queue, storage_metrics, storage })
}

fn spawn_guarded(
    name: &'static str,
    number: u16,
    events: EventSink,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let guarded = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            let message = format!("the {name} thread panicked: {}", panic_text(&*panic));
            events.report(Event::Failed { worker: number, message });
        }
    };
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(guarded)
        .map_err(|error| StartError::Failed(format!("cannot start a thread: {error}")))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// What TLS needs, if there are certificates.
fn secure(config: &Config, certs: Arc<CertStore>) -> Result<Option<Arc<Secure>>, StartError> {
    let kernel = match config.tls.kernel {
        KernelTls::Off => kernel_tls_off(),
        KernelTls::Auto | KernelTls::Require => uring::probe_kernel_tls(),
    };
    if config.tls.kernel == KernelTls::Require && !kernel.is_on() {
        return Err(StartError::KernelTlsRefused(kernel.to_string()));
    }
    if CertSources::of(config).is_empty() {
        return Ok(None);
    }
    match config.tls.kernel {
        KernelTls::Off => {}
        KernelTls::Auto | KernelTls::Require => {
            tracing::info!(event = event::IO_FEATURE, "{kernel}");
        }
    }
    let options = tls::ServerOptions {
        tickets: usize::from(config.tls.tickets),
        ..tls::ServerOptions::default()
    };
    let config = tls::server_config(certs, &options)
        .map_err(|error| StartError::Failed(format!("TLS: {error}")))?;
    Ok(Some(Arc::new(Secure { config, kernel })))
}

fn kernel_tls_off() -> uring::KernelTls {
    let off = uring::FeatureState::Off { reason: "tls.kernel = \"off\"" };
    uring::KernelTls {
        attach: off.clone(),
        ciphers: Vec::new(),
        rekey: off.clone(),
        record_limit: off,
    }
}

fn worker_index(index: usize) -> Result<u16, StartError> {
    u16::try_from(index).map_err(|_| StartError::Failed("more than 65,535 workers".to_owned()))
}

struct Start {
    port: WorkerPort,
    shared: Arc<Shared>,
    config: Arc<Config>,
    cpu: Option<usize>,
    rtmp: Option<SocketAddr>,
    rtmps: Option<SocketAddr>,
    http: Option<SocketAddr>,
    /// Sockets to accept from instead, in the order of the three above.
    passed: Vec<Vec<OwnedFd>>,
    /// What workers of the process before this one pass on.
    legacy: Vec<(WorkerRecord, Vec<OwnedFd>)>,
    /// The word to begin, if it is to be waited for.
    wait: Option<mpsc::Receiver<()>>,
    secure: Option<Arc<Secure>>,
    rules: Arc<Rules>,
    events: EventSink,
}

type ReadySender = mpsc::Sender<Result<Ready, StartError>>;

impl Start {
    /// A worker that panics is our fault: the process is told and stops, it never limps.
    fn run_guarded(self, ready: &ReadySender) {
        let (events, worker) = (self.events.clone(), self.port.index());
        let run = AssertUnwindSafe(|| self.run(ready));
        if let Err(panic) = catch_unwind(run) {
            let message = format!("a worker panicked: {}", panic_text(&*panic));
            events.report(Event::Failed { worker, message });
        }
    }

    fn run(self, ready: &ReadySender) {
        if let Some(cpu) = self.cpu
            && let Err(refused) = uring::affinity::pin_to(cpu)
        {
            tracing::warn!(event = "not_pinned", worker = self.port.index(), "{refused}");
        }
        let io_config = self.io_config();
        let mut io_refused = None;
        if self.config.workers.io != IoChoice::Epoll {
            match uring::Uring::open(io_config.clone()) {
                Ok(io) => return self.serve(io, IoKind::Uring, None, ready),
                Err(refusal) if self.config.workers.io == IoChoice::Uring => {
                    refuse(ready, StartError::UringRefused(refusal.to_string()));
                    return;
                }
                Err(refusal) => io_refused = Some(refusal.to_string()),
            }
        }
        match uring::Epoll::open(io_config) {
            Ok(io) => self.serve(io, IoKind::Epoll, io_refused, ready),
            Err(error) => refuse(ready, StartError::Failed(error.to_string())),
        }
    }

    fn io_config(&self) -> IoConfig {
        IoConfig {
            // One descriptor per connection whatever worker it lands on: each may have all.
            // And a few more, so that it is the worker that refuses, and says so.
            connections_max: self.config.limits.connections_max.saturating_add(CONNECTIONS_SPARE),
            ..IoConfig::default()
        }
    }

    fn serve<I: Io<Lease = ring::Lease>>(
        self,
        io: I,
        kind: IoKind,
        io_refused: Option<String>,
        ready: &ReadySender,
    ) {
        let index = self.port.index();
        let waker: Arc<dyn Wake> = Arc::new(IoWaker(io.waker()));
        if index == 0 {
            for feature in &io.features().list {
                match feature.state {
                    uring::FeatureState::Off { .. } => {
                        tracing::debug!(event = "io_feature", "{feature}");
                    }
                    _ => tracing::info!(event = "io_feature", "{feature}"),
                }
            }
        }
        let listen_options = ListenOptions {
            backlog: self.config.listen.backlog,
            socket: SocketOptions {
                notsent_lowat_bytes: Some(self.config.limits.unsent_bytes_max),
                // A peer behind a cut cable takes pings into its socket's buffer: only the kernel knows
                // that nothing is acknowledged.
                user_timeout_ms: Some(self.config.limits.idle_ms_max.min(UNACKNOWLEDGED_MS_MAX)),
                ..SocketOptions::default()
            },
            ..ListenOptions::default()
        };
        let random = random_seed();
        let mut worker = Worker::new(
            io,
            self.port,
            self.shared,
            Arc::clone(&self.config),
            self.rules,
            random,
            Clocks { cpu_nanos: thread_cpu_nanos, unix_s: unix_seconds },
        );
        if let Some(secure) = self.secure {
            worker.set_secure(secure);
        }
        if self.wait.is_some() {
            worker.hold();
        }
        let mut bound = [None; 3];
        // Those whose PROXY header is believed may have TLS behind it wherever they come in.
        let is_proxied = !self.config.listen.proxy_from.0.is_empty();
        let usage =
            |door, reads_by_record, serves_http| EntranceUse { door, reads_by_record, serves_http };
        let serves_http = self.http.is_some() || self.passed.last().is_some_and(|p| !p.is_empty());
        let listeners = [
            ("rtmp", self.rtmp, usage(Door::Rtmp, is_proxied, false)),
            ("rtmps", self.rtmps, usage(Door::Rtmps, true, serves_http)),
            ("http", self.http, usage(Door::Http, is_proxied, true)),
        ];
        for ((door, passed), bound) in listeners.into_iter().zip(self.passed).zip(&mut bound) {
            match listen(&mut worker, door, passed, &listen_options) {
                Ok(address) => *bound = address,
                Err(error) => return refuse(ready, error),
            }
        }
        for (record, sockets) in self.legacy {
            if let Err(error) = worker.import(record, sockets) {
                return refuse(ready, StartError::Failed(error.to_string()));
            }
        }
        let [rtmp, rtmps, http] = bound;
        if ready.send(Ok(Ready { rtmp, rtmps, http, io: kind, io_refused, waker })).is_err() {
            return;
        }
        if let Some(wait) = self.wait {
            // Without the word the sockets are somebody else's: touch nothing.
            if wait.recv().is_err() {
                return;
            }
            worker.find_places();
            worker.take_up();
        }
        loop {
            #[cfg(debug_assertions)]
            provoke::panic_if_asked(index);
            match worker.turn() {
                Ok(Flow::Continue) => {}
                Ok(Flow::Stopped) => return,
                Err(error) => {
                    self.events.report(Event::Failed { worker: index, message: error.to_string() });
                    return;
                }
            }
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

/// Tells the starter why this worker cannot start; it waits for exactly one message.
fn refuse(ready: &ReadySender, error: StartError) {
    // A starter that is gone has failed already and needs no reason.
    drop(ready.send(Err(error)));
}

/// CPU time of the calling thread, in nanoseconds.
fn thread_cpu_nanos() -> u64 {
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

/// How tests make a worker panic; in debug builds only.
#[cfg(debug_assertions)]
mod provoke {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    /// Names a file; a worker whose index stands in it panics.
    const VARIABLE: &str = "RINGCAST_DEBUG_PANIC_FILE";

    pub(super) fn panic_if_asked(worker: u16) {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        let Some(file) = file else { return };
        let asked = std::fs::read_to_string(file).unwrap_or_default();
        assert!(asked.trim() != worker.to_string(), "asked to panic");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Events;

    #[test]
    fn a_panic_of_a_thread_beside_the_workers_is_reported_with_its_name() {
        let (sink, events) = Events::channel();
        let thread = spawn_guarded("storage", 2, sink, || panic!("out of ink")).unwrap();
        thread.join().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let reported = runtime.block_on(events.next());
        let Event::Failed { worker: 2, message } = reported else { panic!("{reported:?}") };
        assert_eq!(message, "the storage thread panicked: out of ink");
    }
}
