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

use arc_swap::ArcSwapOption;
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
use crate::server::{IoKind, Renewal, StartError, StartedWorkers};
use crate::shared::Shared;
use crate::storage::{Directory, StorageQueue, StorageThread};
use crate::transport::Secure;
use crate::worker::{Clocks, EntranceUse, Flow, Remains, Worker};

/// Stack of a worker thread, in bytes.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Connections a worker's `Io` has room for beyond `limits.connections_max`: those that are refused.
const CONNECTIONS_SPARE: u32 = 1_024;

/// How long sent bytes may stay unacknowledged, in milliseconds; no longer than a peer may be idle.
const UNACKNOWLEDGED_MS_MAX: u32 = 30_000;

/// What one worker reports when it is ready.
struct Ready {
    /// Where it listens: RTMP, RTMPS, HTTP.
    bound: [Option<SocketAddr>; 3],
    io: IoKind,
    io_refused: Option<String>,
}

/// Wakes whoever is a worker at present.
#[derive(Default)]
struct IoWaker(ArcSwapOption<uring::Waker>);

impl Wake for IoWaker {
    fn wake(&self) {
        if let Some(waker) = &*self.0.load() {
            waker.wake();
        }
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
    let legacies = inherit::distribute(std::mem::take(&mut inherited.workers), count);
    let mut started = StartedWorkers {
        go: Vec::new(),
        handles: Vec::new(),
        threads: Vec::new(),
        renew: Vec::new(),
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
        let (renew, renewals) = mpsc::channel();
        let share = |sockets: &[OwnedFd]| {
            inherit::share(sockets, index, count)
                .map_err(|error| StartError::Failed(format!("a passed socket: {error}")))
        };
        let post = Post {
            shared: Arc::clone(&shared),
            cpu: cpus.get(index % cpus.len().max(1)).copied(),
            addresses: [rtmp, rtmps, http],
            secure: secure.clone(),
            events: events.clone(),
            waker: Arc::default(),
        };
        let start = Start {
            passed: [&inherited.rtmp, &inherited.rtmps, &inherited.http]
                .map(|sockets| share(sockets))
                .into_iter()
                .collect::<Result<_, _>>()?,
            legacy,
            wait: inherited.is_succession.then_some(wait),
            port,
            serial: 0,
            renewed: Renewal { config: Arc::clone(&config), rules: Arc::clone(&rules) },
            is_renewed: false,
        };
        let waker: Arc<dyn Wake> = Arc::<IoWaker>::clone(&post.waker);
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let tell = |ready| ready_sender.send(ready).is_ok();
                post.hold(start, &tell, &renewals);
            })
            .map_err(|error| StartError::Failed(format!("cannot start a thread: {error}")))?;
        started.threads.push(thread);
        started.renew.push(renew);
        let ready = ready_receiver
            .recv()
            .map_err(|_| StartError::Failed("a worker ended before it was ready".to_owned()))??;
        shared.set_waker(index, Arc::clone(&waker));
        started.handles.push(seed.with_waker(waker));
        [rtmp, rtmps, http] = ready.bound;
        (started.rtmp, started.rtmps, started.http) = (rtmp, rtmps, http);
        started.io = ready.io;
        if index == 0 {
            started.io_refused = ready.io_refused;
        }
    }
    started.packaging = Some(spawn_packaging(shared, worker_index(count)?, events)?);
    Ok(started)
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

/// A worker's place: what stays when the worker in it has panicked and another one takes it.
struct Post {
    shared: Arc<Shared>,
    cpu: Option<usize>,
    /// Where to listen: RTMP, RTMPS, HTTP.
    addresses: [Option<SocketAddr>; 3],
    secure: Option<Arc<Secure>>,
    events: EventSink,
    waker: Arc<IoWaker>,
}

/// What one worker begins with.
struct Start {
    port: WorkerPort,
    /// Serial number of the last connection of the worker before it.
    serial: u64,
    renewed: Renewal,
    is_renewed: bool,
    /// Sockets to accept from instead of the addresses, in their order.
    passed: Vec<Vec<OwnedFd>>,
    /// What workers of the process before this one pass on.
    legacy: Vec<(WorkerRecord, Vec<OwnedFd>)>,
    /// The word to begin, if it is to be waited for.
    wait: Option<mpsc::Receiver<()>>,
}

impl Start {
    /// Takes the place of a worker, with what it left.
    fn after(remains: Remains, renewed: Renewal) -> Self {
        let Remains { port, serial, doors } = remains;
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
        Self { port, serial, renewed, is_renewed: true, passed, legacy, wait }
    }
}

/// How a worker ended before it was told to.
struct Fallen {
    message: String,
    remains: Result<Remains, &'static str>,
}

/// Tells the starter that a worker is ready, or why it cannot start, once; false if that is gone.
type TellStart<'t> = &'t dyn Fn(Result<Ready, StartError>) -> bool;

impl Post {
    /// The thread of a worker. One that panics is our fault: it never goes on. The control thread is told,
    /// and has another one begin in its place, by a word in `renewals`, or ends the process.
    fn hold(mut self, first: Start, tell: TellStart<'_>, renewals: &mpsc::Receiver<Renewal>) {
        let (index, events) = (first.port.index(), self.events.clone());
        let failed = |message| Event::Failed { worker: index, message };
        let tell_renewed = |ready: Result<Ready, StartError>| {
            events.report(match ready {
                Ok(_) => Event::Renewed { worker: index },
                // Its thread ends.
                Err(error) => failed(format!("a worker cannot be started anew: {error}")),
            });
            true
        };
        let (mut start, mut tell) = (first, tell);
        loop {
            let run = AssertUnwindSafe(|| self.run(start, tell));
            let fallen = match catch_unwind(run) {
                Ok(Ok(())) => return,
                Ok(Err(fallen)) => fallen,
                Err(panic) => {
                    let message =
                        format!("a worker panicked at its start: {}", panic_text(&*panic));
                    return events.report(failed(message));
                }
            };
            let Fallen { message, remains } = fallen;
            let remains = match remains {
                Ok(remains) => remains,
                // The thread ends: what is left of this worker is others' trouble.
                Err(what) => return events.report(failed(format!("{message}, {what}"))),
            };
            events.report(failed(message));
            let Ok(renewal) = renewals.recv() else { return };
            start = Start::after(remains, renewal);
            tell = &tell_renewed;
        }
    }

    /// Serves until told to stop.
    fn run(&mut self, start: Start, tell: TellStart<'_>) -> Result<(), Fallen> {
        let config = Arc::clone(&start.renewed.config);
        if let Some(cpu) = self.cpu
            && let Err(refused) = uring::affinity::pin_to(cpu)
        {
            tracing::warn!(event = "not_pinned", worker = start.port.index(), "{refused}");
        }
        let io_config = io_config(&config);
        let mut io_refused = None;
        if config.workers.io != IoChoice::Epoll {
            match uring::Uring::open(io_config.clone()) {
                Ok(io) => return self.serve(start, io, IoKind::Uring, None, tell),
                Err(refusal) if config.workers.io == IoChoice::Uring => {
                    tell(Err(StartError::UringRefused(refusal.to_string())));
                    return Ok(());
                }
                Err(refusal) => io_refused = Some(refusal.to_string()),
            }
        }
        match uring::Epoll::open(io_config) {
            Ok(io) => self.serve(start, io, IoKind::Epoll, io_refused, tell),
            Err(error) => {
                tell(Err(StartError::Failed(error.to_string())));
                Ok(())
            }
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
        let Start { port, serial, renewed, is_renewed, passed, legacy, wait } = start;
        let (index, config) = (port.index(), renewed.config);
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
        if wait.is_some() {
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
            worker.find_places();
            worker.take_up();
        }
        let turns = AssertUnwindSafe(|| {
            loop {
                #[cfg(debug_assertions)]
                provoke::panic_if_asked(index);
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

    /// Names a file; a worker whose index stands in it removes it and panics.
    const VARIABLE: &str = "RINGCAST_DEBUG_PANIC_FILE";

    pub(super) fn panic_if_asked(worker: u16) {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        let Some(file) = file else { return };
        let asked = std::fs::read_to_string(file).unwrap_or_default();
        if asked.trim() == worker.to_string() {
            // Once for each time it is written.
            std::fs::remove_file(file).expect("the file is there");
            panic!("asked to panic");
        }
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
