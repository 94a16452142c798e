//! Starts the workers: one pinned thread each, with the best `Io` the kernel allows.
//!
//! A worker is made on its own thread, because its `Io` and its arena never leave it. It tells its
//! starter what it listens on, or why it could not start; nobody is served before all have.
//!
//! ```text
//!   prepare_workers ─► kernel TLS tried, threads, each with its Io ─► Prepared
//!                          what a process before this one passes on ─────┴─► start ─► all listen
//! ```
//!
//! What takes long and needs nothing of the process before this one is in the first step: during the second
//! that process stands still.

mod post;

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use live::path::StreamPath;

use crate::access::Rules;
use crate::certs::{CertSources, CertStore};
use crate::command::{Event, EventSink, Wake, worker_link};
use crate::config::{Config, KernelTls};
use crate::hls::packager::{Now, Packager, Packaging};
use crate::hls::{Beginning, HlsSettings};
use crate::host;
use crate::inherit::{self, Inherited};
use crate::log::event;
use crate::metrics::{PackagingMetrics, StorageMetrics};
use crate::server::{IoKind, Renewal, StartError, StartedWorkers};
use crate::shared::Shared;
use crate::storage::{Baton, Directory, StorageQueue, StorageThread};
use crate::transport::Secure;
use post::{Place, Post, STACK_BYTES, Start, thread_cpu_nanos};

/// Workers that are ready to begin: their threads wait, each with its `Io`. Dropped, they end.
#[derive(Debug)]
pub struct Prepared {
    config: Arc<Config>,
    shared: Arc<Shared>,
    secure: Option<Arc<Secure>>,
    events: EventSink,
    places: Vec<Place>,
}

/// Makes the configured workers ready, the n-th pinned to the n-th of the configured CPUs, round robin.
/// Nothing is listened on yet.
///
/// # Errors
/// What keeps a worker from starting: the kernel refuses io_uring or TLS although the configuration requires
/// it, or there is no memory, thread or descriptor to be had.
pub fn prepare_workers(
    config: Arc<Config>,
    certs: Arc<CertStore>,
    events: EventSink,
) -> Result<Prepared, StartError> {
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
    let secure = secure(&config, certs)?;
    let mut places = Vec::with_capacity(count);
    for index in 0..count {
        let post = Post {
            index: worker_index(index)?,
            shared: Arc::clone(&shared),
            cpu: cpus.get(index % cpus.len().max(1)).copied(),
            addresses: [None; 3],
            secure: secure.clone(),
            events: events.clone(),
            waker: Arc::default(),
        };
        places.push(post.fill(&config)?);
    }
    for place in &places {
        let ended = |_| StartError::Failed("a worker ended before it was ready".to_owned());
        place.opened.recv().map_err(ended)??;
    }
    Ok(Prepared { config, shared, secure, events, places })
}

impl Prepared {
    /// Has the workers begin. They listen on what was `inherited`, and bind where nothing was; those that
    /// take over from another process wait for a word.
    ///
    /// # Errors
    /// What kept a worker from starting: what it takes over does not fit, or an address cannot be bound.
    pub fn start(
        self,
        rules: Arc<Rules>,
        mut inherited: Inherited,
    ) -> Result<StartedWorkers, StartError> {
        let Self { config, shared, secure, events, places } = self;
        let count = places.len();
        shared.hls.inherit(std::mem::take(&mut inherited.renditions));
        // Before the workers: they find what there was.
        let queue = StorageQueue::default();
        let hls_of = |path: &StreamPath| HlsSettings::of(config.vhost(path.vhost()).1);
        let packaging = std::mem::take(&mut inherited.packaging);
        let beginning = shared.hls.resume(packaging, hls_of, &queue);
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
        if inherited.is_succession() && secure.is_none() {
            // This configuration has no use for it any more.
            inherited.rtmps.clear();
        }
        if secure.is_none() && !inherited.rtmps.is_empty() {
            let text = "a socket for rtmps was passed, but there are no certificates";
            return Err(StartError::Failed(text.to_owned()));
        }
        started.is_kernel_tls = secure.as_ref().is_some_and(|secure| secure.kernel.is_on());
        // The first worker asks the kernel for a port if none is given; the others join it there.
        let listen = &config.listen;
        let rtmps = secure.and_then(|_| listen.rtmps.address());
        let mut addresses = [listen.rtmp.address(), rtmps, listen.http.address()];
        for ((index, place), legacy) in places.into_iter().enumerate().zip(legacies) {
            let (go, wait) = mpsc::channel();
            if inherited.is_succession() {
                started.go.push(go);
            }
            let (port, seed) = worker_link(worker_index(index)?, events.clone());
            let share = |sockets: &[OwnedFd]| {
                inherit::share(sockets, index, count)
                    .map_err(|error| StartError::Failed(format!("a passed socket: {error}")))
            };
            let start = Start {
                passed: [&inherited.rtmp, &inherited.rtmps, &inherited.http]
                    .map(|sockets| share(sockets))
                    .into_iter()
                    .collect::<Result<_, _>>()?,
                addresses,
                legacy,
                wait: inherited.is_succession().then_some(wait),
                port,
                serial: 0,
                renewed: Renewal { config: Arc::clone(&config), rules: Arc::clone(&rules) },
                is_renewed: false,
            };
            let ended = || StartError::Failed("a worker ended before it was ready".to_owned());
            place.start.send(start).map_err(|_| ended())?;
            let ready = place.ready.recv().map_err(|_| ended())??;
            let waker: Arc<dyn Wake> = place.waker;
            started.threads.push(place.thread);
            started.renew.push(place.renew);
            shared.set_waker(index, Arc::clone(&waker));
            started.handles.push(seed.with_waker(waker));
            addresses = ready.bound;
            started.io = ready.io;
            if index == 0 {
                started.io_refused = ready.io_refused;
            }
        }
        [started.rtmp, started.rtmps, started.http] = addresses;
        let mut word = || {
            let (go, wait) = mpsc::channel();
            let is_awaited = inherited.is_succession();
            if is_awaited {
                started.go.push(go);
            }
            is_awaited.then_some(wait)
        };
        let words = [word(), word()];
        let begin = (beginning, queue, inherited.baton);
        started.packaging =
            Some(spawn_packaging(shared, worker_index(count)?, events, begin, words)?);
        Ok(started)
    }
}

/// Starts the threads that package streams for HLS and that write what is to be kept. They have no CPU of
/// their own: the scheduler puts them where a worker is idle. A panic of one is reported like a worker's,
/// under the number behind theirs. Each waits for the word to begin where there is one to wait for.
fn spawn_packaging(
    shared: Arc<Shared>,
    number: u16,
    events: EventSink,
    (beginning, queue, baton): (Beginning, StorageQueue, Option<Baton>),
    words: [Option<mpsc::Receiver<()>>; 2],
) -> Result<Packaging, StartError> {
    let store = Directory;
    let metrics = Arc::new(PackagingMetrics::default());
    let storage_metrics = Arc::new(StorageMetrics::default());
    let thread = StorageThread::new(queue.clone(), store, Arc::clone(&storage_metrics));
    let thread = thread.after(baton);
    // Without the word the streams, and the way to the other process, are somebody else's.
    let is_ours = |word: Option<mpsc::Receiver<()>>| word.is_none_or(|word| word.recv().is_ok());
    let [word, packager_word] = words;
    let storage = spawn_guarded("storage", number, events.clone(), move || {
        if is_ours(word) {
            thread.run();
        }
    })?;
    let (seen, counted, keeps) = (Arc::clone(&shared), Arc::clone(&metrics), queue.clone());
    let packager = spawn_guarded("packager", number, events, move || {
        // Made there, because its taps never leave it.
        let now = Now::by_clocks();
        let packager = Packager::new(seen, counted, keeps, thread_cpu_nanos, beginning, now);
        if is_ours(packager_word) {
            packager.run();
        }
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
