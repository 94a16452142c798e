//! The packager thread: looks at every packaged stream on its tick, publishes, lets go of what nobody
//! asks for.
//!
//! ```text
//!   loop: take opened renditions ─► follow each stream ─► publish changes ─► once a second: idle, figures
//!         └─ park until the next tick; without renditions until woken
//! ```
//!
//! It holds the registry's entries of the streams it packages as a worker does, and is noted as a
//! reader of them, so that their home workers keep the retention. A slow packager falls out of a ring
//! and starts over at a keyframe; nobody waits for it.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use live::path::StreamPath;
use live::publisher::Publisher;
use ring::{Arena, RingConfig};
use uring::MemFile;

use super::builder::Builder;
use super::passing::{Beginning, Order, Outbox, Passed, Resumed};
use super::source::{Output, Source};
use super::{HlsStart, Opened};
use crate::log::event;
use crate::metrics::{PackagingMetrics, StorageMetrics};
use crate::registry::{StreamEntry, StreamPhase, StreamsMax};
use crate::shared::Shared;
use crate::storage::StorageQueue;

/// Time between two looks at the rings, in milliseconds: what packaging adds to the delay of a part.
const TICK_MS: u64 = 10;
/// The same where no playlist has parts.
const TICK_PLAIN_MS: u64 = 40;
/// Longest sleep, in milliseconds.
const SLEEP_MS_MAX: u64 = 1_000;
/// Time between two looks at who still asks, in milliseconds.
const SWEEP_MS: u64 = 1_000;
/// Longest sleep at a standstill, in milliseconds.
const STILL_MS: u64 = 100;

/// The running threads: packager and storage.
#[derive(Debug)]
pub struct Packaging {
    /// What the packager reads.
    pub shared: Arc<Shared>,
    /// Its figures.
    pub metrics: Arc<PackagingMetrics>,
    /// Its thread.
    pub packager: JoinHandle<()>,
    /// The way to the storage thread.
    pub queue: StorageQueue,
    /// Its figures.
    pub storage_metrics: Arc<StorageMetrics>,
    /// The storage thread.
    pub storage: JoinHandle<()>,
}

impl Packaging {
    /// Ends both threads and waits for them: the packager takes one more look at its streams, then
    /// the storage thread writes what waits, for two seconds at most, or half a minute where another process
    /// waits for that.
    pub fn stop(self) {
        self.shared.hls.stop();
        // Panics have been reported as failures already.
        drop(self.packager.join());
        self.queue.stop();
        drop(self.storage.join());
    }
}

/// Now, on both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// By the monotonic clock, which workers go by too.
    pub mono_ms: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    /// What the clocks of this machine say.
    pub fn by_clocks() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // Neither part of it is ever negative.
        let mono_ms = time.tv_sec.unsigned_abs() * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { mono_ms, unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// Whether anything is packaged.
#[derive(Debug)]
enum Standing {
    Turning,
    /// Everything was told to another process; what was made for that alone is kept for it.
    Still {
        _outbox: Outbox,
    },
    /// Another process packages.
    Gone,
}

/// Packages all streams of the process.
pub struct Packager {
    shared: Arc<Shared>,
    metrics: Arc<PackagingMetrics>,
    storage: StorageQueue,
    /// Where segments are put, unless there is none to be had.
    file: Option<Arc<MemFile>>,
    sources: Vec<Source>,
    standing: Standing,
    swept_at_ms: u64,
    /// Refusals and segments given up that the log knows of.
    refused_logged: u64,
    forgotten_logged: u64,
    cpu_nanos: fn() -> u64,
}

impl std::fmt::Debug for Packager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packager").field("streams", &self.sources.len()).finish_non_exhaustive()
    }
}

impl Packager {
    /// A packager of the streams of `shared` that hands what is to be kept to `storage`; `cpu_nanos` tells
    /// the CPU time of the calling thread. Whoever watched what it begins with has asked `now`, for all it
    /// knows.
    pub fn new(
        shared: Arc<Shared>,
        metrics: Arc<PackagingMetrics>,
        storage: StorageQueue,
        cpu_nanos: fn() -> u64,
        beginning: Beginning,
        now: Now,
    ) -> Self {
        let Beginning { file, runs, segments_left } = beginning;
        metrics.segments_left.add(segments_left);
        let mut packager = Self {
            shared,
            metrics,
            storage,
            file,
            sources: Vec::new(),
            standing: Standing::Turning,
            swept_at_ms: 0,
            refused_logged: 0,
            forgotten_logged: 0,
            cpu_nanos,
        };
        for Resumed { path, builder, place } in runs {
            if let Some(source) = packager.source_of(&path) {
                source.resume(builder, &place, now.mono_ms);
            }
        }
        packager
    }

    /// Packages until [`Hls::stop`](super::Hls::stop).
    pub fn run(mut self) {
        self.shared.hls.set_packager(thread::current());
        while !self.shared.hls.is_stopping() {
            let sleep_ms = self.turn(Now::by_clocks());
            thread::park_timeout(Duration::from_millis(sleep_ms));
        }
        // The workers have ended: whatever they closed is seen now.
        self.turn(Now::by_clocks());
        self.let_go_of_all();
    }

    fn obey(&mut self, order: Order, now: Now) {
        match (order, &self.standing) {
            (Order::Export(answer), Standing::Turning) => {
                let passed = self.stand_still(now);
                // Who has given up waiting says how it goes on all the same.
                let _ = answer.send(passed);
            }
            (Order::GoOn, Standing::Still { .. }) => self.standing = Standing::Turning,
            (Order::LetGo(baton), Standing::Turning | Standing::Still { .. }) => {
                // Before any segment goes: the other process reads them in the same file.
                if let Some(file) = &self.file {
                    file.pass_on();
                }
                self.standing = Standing::Gone;
                self.let_go_of_all();
                self.storage.pass_on(baton);
            }
            (Order::Export(_) | Order::GoOn | Order::LetGo(_), _) => {}
        }
    }

    /// The workers stand still: takes the last of what there is, and tells all of it.
    fn stand_still(&mut self, now: Now) -> Passed {
        self.take_news(now);
        let mut outbox = Outbox::new(self.file.clone());
        let mut runs = Vec::new();
        for source in &self.sources {
            source.keep_places();
            let records = source.outputs.iter();
            runs.extend(
                records.filter_map(|output| output.builder.to_record(output.place(), &mut outbox)),
            );
        }
        let passed = outbox.passed(runs);
        self.standing = Standing::Still { _outbox: outbox };
        passed
    }

    /// One look at everything. Returns how long to sleep, in milliseconds.
    pub fn turn(&mut self, now: Now) -> u64 {
        for order in self.shared.hls.take_orders() {
            self.obey(order, now);
        }
        match self.standing {
            Standing::Turning => {}
            Standing::Still { .. } => return STILL_MS,
            Standing::Gone => return SLEEP_MS_MAX,
        }
        self.take_news(now);
        self.shed(now.mono_ms);
        if now.mono_ms.saturating_sub(self.swept_at_ms) >= SWEEP_MS {
            self.swept_at_ms = now.mono_ms;
            self.sweep(now);
        }
        self.sleep_ms()
    }

    fn take_news(&mut self, now: Now) {
        for opened in self.shared.hls.take_opened() {
            self.take_up(&opened, now);
        }
        for source in &mut self.sources {
            let followed = source.follow(now.unix_ms);
            if followed.overruns > 0 {
                self.metrics.overruns.add(followed.overruns);
                let path = source.entry.path();
                tracing::warn!(event = event::HLS_OVERRUN, %path, "packaging fell out of the ring");
            }
        }
        self.publish();
    }

    fn sleep_ms(&self) -> u64 {
        let mut sleep_ms = SLEEP_MS_MAX;
        for output in self.sources.iter().flat_map(|source| &source.outputs) {
            if output.builder.is_ended() {
                continue;
            }
            let has_parts = output.builder.rendition().has_parts();
            sleep_ms = sleep_ms.min(if has_parts { TICK_MS } else { TICK_PLAIN_MS });
        }
        sleep_ms
    }

    /// Begins a rendition.
    fn take_up(&mut self, opened: &Opened, now: Now) {
        let path = opened.entry.path().clone();
        let (file, bytes_max) = (self.file.as_ref(), self.shared.hls.bytes_max());
        let builder = Builder::new(opened, &self.storage, file, bytes_max);
        let Some(source) = self.source_of(&path) else { return };
        source.add(builder, now.mono_ms);
        let container = opened.rendition.key().container;
        tracing::info!(event = event::HLS_START, %path, ?container, "packaging begins");
    }

    /// The stream as it is read here, held from now on.
    fn source_of(&mut self, path: &StreamPath) -> Option<&mut Source> {
        let is_of = |source: &Source| source.entry.path() == path && !source.entry.is_retired();
        let at = match self.sources.iter().position(is_of) {
            Some(at) => at,
            None => {
                // The stream exists, so this makes none beyond the limit.
                let entry = self.shared.registry.hold(path, StreamsMax::NONE).ok()?;
                entry.set_tapped(self.shared.workers(), true);
                self.sources.push(Source::new(entry));
                self.sources.len() - 1
            }
        };
        self.sources.get_mut(at)
    }

    /// Publishes what has changed, within the memory there is.
    fn publish(&mut self) {
        let bytes_max = self.shared.hls.windows_bytes_max();
        let mut total = self.shared.hls.bytes();
        for source in &mut self.sources {
            for output in &mut source.outputs {
                let before = output.builder.held_bytes();
                let others = total.saturating_sub(before);
                let was_ended = output.builder.rendition().is_ended();
                if !output.builder.publish(others, bytes_max) {
                    continue;
                }
                if output.builder.is_ended() && !was_ended {
                    self.shared.hls.on_end(&source.entry, output.builder.settings());
                }
                total = others + output.builder.held_bytes();
                let built = output.builder.take_built();
                self.metrics.segments.add(built.segments);
                self.metrics.parts.add(built.parts);
                self.metrics.forced_cuts.add(built.forced_cuts);
                self.metrics.segments_forgotten.add(built.forgotten);
            }
        }
        self.shared.hls.set_bytes(total);
    }

    /// Ends renditions while all together hold too much though each holds its least: first those nobody
    /// watches, then the one that was begun last. Who asks again is refused while memory is short.
    fn shed(&mut self, now_ms: u64) {
        while self.shared.hls.bytes() > self.shared.hls.bytes_max() {
            let outputs = self.sources.iter_mut().enumerate().flat_map(|(at, source)| {
                source.outputs.iter_mut().enumerate().map(move |(place, output)| {
                    let is_watched = output.builder.rendition().viewers() > 0;
                    (is_watched, u64::MAX - output.begun_at_ms, at, place)
                })
            });
            let Some((_, _, at, place)) = outputs.min() else { return };
            let mut output = self.sources[at].outputs.remove(place);
            let bytes = output.builder.held_bytes();
            self.shared.hls.remove(output.builder.rendition());
            output.builder.close();
            self.shared.hls.set_bytes(self.shared.hls.bytes().saturating_sub(bytes));
            self.metrics.shed.increment();
            let path = &output.builder.rendition().key().path;
            let age_ms = now_ms.saturating_sub(output.begun_at_ms);
            tracing::warn!(event = event::HLS_END, %path, bytes, age_ms,
                "packaging ends: all streams together hold too much (limits.hls_bytes_max)");
        }
        self.drop_idle_sources();
    }

    /// Lets go of streams without a rendition.
    fn drop_idle_sources(&mut self) {
        if self.sources.iter().all(|source| !source.outputs.is_empty()) {
            return;
        }
        let (idle, busy) =
            std::mem::take(&mut self.sources).into_iter().partition(|s| s.outputs.is_empty());
        self.sources = busy;
        let idle: Vec<Source> = idle;
        for source in idle {
            self.let_go(source);
        }
    }

    /// Looks who still asks; counts what there is.
    fn sweep(&mut self, now: Now) {
        let mut closed_bytes = 0;
        let (mut renditions, mut viewers) = (0, 0);
        for source in &mut self.sources {
            for output in &mut source.outputs {
                output.builder.rendition().expire_viewers(now.mono_ms);
            }
            let hls = &self.shared.hls;
            let entry = &source.entry;
            source.outputs.retain_mut(|output| {
                if !is_idle(output, entry.phase(), now.mono_ms) {
                    renditions += 1;
                    viewers += output.builder.rendition().viewers() as u64;
                    return true;
                }
                hls.remove(output.builder.rendition());
                output.builder.close();
                closed_bytes += output.builder.held_bytes();
                let path = &output.builder.rendition().key().path;
                tracing::info!(event = event::HLS_END, %path, "packaging ends");
                // Somebody who came to publish may just have found it.
                hls.on_end(entry, output.builder.settings());
                false
            });
        }
        self.drop_idle_sources();
        let bytes = self.shared.hls.bytes().saturating_sub(closed_bytes);
        self.shared.hls.set_bytes(bytes);
        self.metrics.renditions.set(renditions);
        self.metrics.viewers.set(viewers);
        self.metrics.bytes.set(bytes);
        self.metrics.refused.set_total(self.shared.hls.refused());
        self.metrics.cpu.set_nanos((self.cpu_nanos)());
        self.log_limits();
    }

    /// Tells once a second at most that a bound was met.
    fn log_limits(&mut self) {
        let (refused, forgotten) =
            (self.shared.hls.refused(), self.metrics.segments_forgotten.value());
        if (refused, forgotten) != (self.refused_logged, self.forgotten_logged) {
            let bytes = self.shared.hls.bytes();
            tracing::warn!(
                event = event::HLS_LIMIT,
                refused = refused - self.refused_logged,
                forgotten = forgotten - self.forgotten_logged,
                bytes,
                "packaging meets a bound (hls_memory_bytes_max, limits.hls_bytes_max)"
            );
            (self.refused_logged, self.forgotten_logged) = (refused, forgotten);
        }
    }

    fn let_go(&self, source: Source) {
        let entry = Arc::clone(&source.entry);
        // The tap goes before the ring's writer.
        drop(source);
        entry.set_tapped(self.shared.workers(), false);
        if let Some(publisher) = self.shared.registry.release(&entry) {
            bury(publisher, &entry);
        }
    }

    fn let_go_of_all(&mut self) {
        for source in std::mem::take(&mut self.sources) {
            self.let_go(source);
        }
    }
}

/// True if nobody has asked for long enough, and nobody needs to: a publisher may have gone before the first
/// look at what it published.
fn is_idle(output: &mut Output, phase: StreamPhase, now_ms: u64) -> bool {
    let asked = output.builder.rendition().asked();
    if asked != output.asked {
        (output.asked, output.asked_at_ms) = (asked, now_ms);
    }
    let settings = output.builder.settings();
    let is_wanted = settings.start == HlsStart::Always
        && phase != StreamPhase::Waiting
        && !output.builder.is_ended();
    if is_wanted || output.builder.rendition().is_held() {
        output.asked_at_ms = now_ms;
    }
    now_ms.saturating_sub(output.asked_at_ms) >= settings.idle_ms
}

/// Gives back a ring nobody holds any more. It goes to the allocator: the packager writes none.
fn bury(publisher: Box<Publisher>, entry: &StreamEntry) {
    let mut arena = Arena::new(&RingConfig::default(), 0);
    publisher.finish(&mut arena);
    tracing::debug!(event = event::HLS_END, path = %entry.path(), "the ring is given back");
}
