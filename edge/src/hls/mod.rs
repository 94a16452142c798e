//! HLS packaging: streams of the rings cut into segments and parts, and kept for viewers over HTTP.
//!
//! One thread ([`packager`]) cuts all streams. It reads the rings as a subscriber does, through taps of
//! its own, so it can lag without hurting anybody. What came of it is published as immutable snapshots;
//! a worker that answers a request loads one and takes a counted reference to bytes. No worker waits
//! for the packager, and the packager never waits for a worker.
//!
//! ```text
//!   ring ─► Tap ─► Source ─┬─► Builder (fMP4) ─ snapshot ─► Rendition ◄── requests, on every worker
//!                          └─► Builder (TS)   ─ snapshot ─► Rendition         ▲
//!                                                  └─► storage queue          └ Hls: by path, by key
//! ```
//!
//! - [`Hls`]: finds or starts a rendition; what all of them may hold together.
//! - [`Rendition`]: answers requests. `snapshot`: what it answers from. `viewers`: who is there.
//! - `passing`: how all of it goes on in another process.
//! - `builder`: segmenter of one stream in one container. `shelf`: window and bytes of one of its renditions,
//!   the whole or the sound alone. `source`: one stream's tap and events.
//!
//! Locks: two short ones around maps, taken when a rendition begins, ends or is looked up by its
//! path, and one per rendition around its table of viewers. None is held over a system call.

mod archive;
mod builder;
pub mod packager;
mod passing;
mod rendition;
mod settings;
mod shelf;
mod snapshot;
mod source;
#[cfg(test)]
mod tests;
mod viewers;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use arc_swap::ArcSwap;
use live::path::StreamPath;
use mux::segment::Container;
use uring::MemFile;

use crate::log::event;
use crate::registry::{StreamEntry, StreamPhase};

pub use passing::{Beginning, EXPORT_PARTS, Order, Passed};
pub use rendition::{Address, HeldRendition, Rendition, RenditionKey, Reply};
pub use settings::{HlsSettings, HlsStart};

/// Renditions of the process, whatever they hold.
pub const RENDITIONS_MAX: usize = 16_384;
/// New renditions are refused while this many eighths of what windows may hold are in use.
const OPEN_EIGHTHS_MAX: u64 = 7;

type ByKey = HashMap<u64, Arc<Rendition>>;
/// By stream and [`place`].
type ByPath = HashMap<StreamPath, [Option<Arc<Rendition>>; 2]>;

/// A rendition and the stream it is to be made of, on its way to the packager.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) rendition: Arc<Rendition>,
    pub(crate) entry: Arc<StreamEntry>,
    pub(crate) settings: HlsSettings,
    /// Where the one before it has ended, in this process or in another.
    pub(crate) before: Option<Numbers>,
}

/// Numbers of a playlist that never go back: where the next run of the same rendition begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Numbers {
    /// Media sequence number of its first segment.
    pub sequence: u64,
    /// Discontinuities so far.
    pub discontinuities: u64,
    /// Target duration, in milliseconds; to a player it is the same playlist.
    pub target_ms: u32,
}

/// All renditions of the process; shared by the workers and the packager thread.
pub struct Hls {
    by_path: Mutex<ByPath>,
    /// Where renditions of the process before this one stopped, until they are opened here.
    inherited: Mutex<HashMap<RenditionKey, Numbers>>,
    by_key: ArcSwap<ByKey>,
    inbox: Mutex<Vec<Opened>>,
    /// For the packager, of a hand-over.
    orders: Mutex<Vec<Order>>,
    packager: OnceLock<Thread>,
    is_stopping: AtomicBool,
    bytes_max: AtomicU64,
    /// The same for windows while memory runs short.
    windows_bytes_max: AtomicU64,
    /// Bytes all renditions hold; the packager keeps count.
    bytes: AtomicU64,
    refused: AtomicU64,
}

impl fmt::Debug for Hls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renditions = self.by_key.load().len();
        let bytes = self.bytes();
        f.debug_struct("Hls").field("renditions", &renditions).field("bytes", &bytes).finish()
    }
}

impl Default for Hls {
    fn default() -> Self {
        Self {
            by_path: Mutex::default(),
            inherited: Mutex::default(),
            by_key: ArcSwap::default(),
            inbox: Mutex::default(),
            orders: Mutex::default(),
            packager: OnceLock::new(),
            is_stopping: AtomicBool::new(false),
            bytes_max: AtomicU64::new(u64::MAX),
            windows_bytes_max: AtomicU64::new(u64::MAX),
            bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only operations on maps and vectors run under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hls {
    /// The running rendition of a stream, or one that is started now: the packager takes it up at its
    /// next tick, until then it answers [`Reply::Wait`]. `container` is what the request asks for; without
    /// it the vhost decides. `None`, and counted, over a limit or where HLS is off.
    pub fn open(
        &self,
        entry: &Arc<StreamEntry>,
        container: Option<Container>,
        settings: &HlsSettings,
    ) -> Option<Arc<Rendition>> {
        if !settings.is_on {
            return None;
        }
        let container = container.unwrap_or(settings.container);
        let mut by_path = locked(&self.by_path);
        let found = by_path.get(entry.path()).and_then(|pair| pair[place(container)].clone());
        if let Some(found) = &found
            && (!found.is_ended() || entry.phase() != StreamPhase::Live)
        {
            return Some(Arc::clone(found));
        }
        let full = self.bytes() >= self.windows_bytes_max().saturating_mul(OPEN_EIGHTHS_MAX) / 8;
        if full || self.by_key.load().len() >= RENDITIONS_MAX {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let key = RenditionKey { path: entry.path().clone(), container };
        let before = match &found {
            Some(found) => Some(found.numbers()),
            None => locked(&self.inherited).remove(&key),
        };
        let rendition = Arc::new(Rendition::new(key, random_key, settings));
        // Both maps are changed under the lock of the first.
        let mut by_key = ByKey::clone(&self.by_key.load());
        add(&rendition, &mut by_path, &mut by_key);
        self.by_key.store(Arc::new(by_key));
        drop(by_path);
        locked(&self.inbox).push(Opened {
            rendition: Arc::clone(&rendition),
            entry: Arc::clone(entry),
            settings: settings.clone(),
            before,
        });
        self.wake();
        Some(rendition)
    }

    /// The rendition of a stream that has ended, as long as it is kept.
    pub fn find(
        &self,
        path: &StreamPath,
        container: Option<Container>,
        settings: &HlsSettings,
    ) -> Option<Arc<Rendition>> {
        let container = container.unwrap_or(settings.container);
        locked(&self.by_path).get(path).and_then(|pair| pair[place(container)].clone())
    }

    /// A publisher has begun: starts packaging where the vhost wants it without a viewer.
    pub fn on_publish(&self, entry: &Arc<StreamEntry>, settings: &HlsSettings) {
        if settings.start == HlsStart::Always {
            // Refused over a limit; counted there.
            let _opened = self.open(entry, None, settings);
        }
    }

    /// Packager only: a run of `entry` with these settings has ended, and that was published. A publisher who
    /// had returned by then found it running and began no other.
    pub(crate) fn on_end(&self, entry: &Arc<StreamEntry>, settings: &HlsSettings) {
        let phase = {
            // Whoever returns later looks for a run under this lock, and sees that there is none.
            let _paths = locked(&self.by_path);
            entry.phase()
        };
        if phase == StreamPhase::Live {
            self.on_publish(entry, settings);
        }
    }

    /// The rendition whose segments are found under `key`.
    pub fn by_key(&self, key: u64) -> Option<Arc<Rendition>> {
        self.by_key.load().get(&key).cloned()
    }

    /// Every rendition there is; of one that has its sound alone beside it, the whole.
    pub fn renditions(&self) -> Vec<Arc<Rendition>> {
        self.by_key.load().values().filter(|found| !found.is_sound()).cloned().collect()
    }

    /// Bytes held by all renditions.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What all renditions may hold together, `limits.hls_bytes_max`.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Sets what all renditions may hold together, in bytes.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// To how much windows are cut, in bytes: no more than that, and less while memory runs short. What a
    /// rendition needs at least is not cut.
    pub fn windows_bytes_max(&self) -> u64 {
        self.bytes_max().min(self.windows_bytes_max.load(Ordering::Relaxed))
    }

    /// Memory runs short: windows are cut to `bytes` in all. `None`: no longer.
    pub fn shrink_windows(&self, bytes: Option<u64>) {
        self.windows_bytes_max.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Where each rendition stops if its next part is another process's, those that were inherited and not
    /// asked for included.
    pub fn numbers(&self) -> Vec<(RenditionKey, Numbers)> {
        let mut numbers = locked(&self.inherited).clone();
        let inbox = locked(&self.inbox);
        let opened = inbox.iter().filter_map(|o| Some((o.rendition.key().clone(), o.before?)));
        let shown = self.renditions().into_iter().map(|one| (one.key().clone(), one.numbers()));
        // A run that is over is kept beside the one after it for a while.
        for (key, reached) in opened.chain(shown) {
            let furthest = numbers.entry(key).or_insert(reached);
            if reached.sequence > furthest.sequence {
                *furthest = reached;
            }
        }
        numbers.into_iter().collect()
    }

    /// Renditions go on behind those of the process before this one. The number of them is bounded there.
    pub fn inherit(&self, numbers: impl IntoIterator<Item = (RenditionKey, Numbers)>) {
        locked(&self.inherited).extend(numbers.into_iter().take(RENDITIONS_MAX));
    }

    /// Asks the packager, for a hand-over.
    pub fn order(&self, order: Order) {
        locked(&self.orders).push(order);
        self.wake();
    }

    pub(crate) fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut locked(&self.orders))
    }

    /// Renditions refused over a limit.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Asks the packager thread to end.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// The packager's thread announces itself, to be woken for new renditions.
    pub(crate) fn set_packager(&self, thread: Thread) {
        self.packager.get_or_init(|| thread);
    }

    pub(crate) fn take_opened(&self) -> Vec<Opened> {
        std::mem::take(&mut locked(&self.inbox))
    }

    /// Packager only: its total has changed.
    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Packager only: nobody will find `rendition` any more.
    pub(crate) fn remove(&self, rendition: &Arc<Rendition>) {
        let mut by_path = locked(&self.by_path);
        let key = rendition.key();
        if let Some(pair) = by_path.get_mut(&key.path) {
            let slot = &mut pair[place(key.container)];
            if slot.as_ref().is_some_and(|found| Arc::ptr_eq(found, rendition)) {
                *slot = None;
            }
            if pair.iter().all(Option::is_none) {
                by_path.remove(&key.path);
            }
        }
        let mut by_key = ByKey::clone(&self.by_key.load());
        for gone in [Some(rendition), rendition.sound()].into_iter().flatten() {
            by_key.remove(&gone.number());
        }
        self.by_key.store(Arc::new(by_key));
    }

    fn wake(&self) {
        if let Some(thread) = self.packager.get() {
            thread.unpark();
        }
    }
}

/// Whoever asks finds `rendition` from now on, by its path and by its numbers.
fn add(rendition: &Arc<Rendition>, by_path: &mut ByPath, by_key: &mut ByKey) {
    let key = rendition.key();
    let pair = by_path.entry(key.path.clone()).or_default();
    pair[place(key.container)] = Some(Arc::clone(rendition));
    for new in [Some(rendition), rendition.sound()].into_iter().flatten() {
        by_key.insert(new.number(), Arc::clone(new));
    }
}

fn place(container: Container) -> usize {
    match container {
        Container::Ts => 0,
        Container::Fmp4 => 1,
    }
}

/// The file segments are put into. Without it each viewer's are copied on their way to the socket.
fn mem_file() -> Option<Arc<MemFile>> {
    MemFile::new()
        .inspect_err(|error| {
            tracing::warn!(event = event::HLS_COPIES, %error, "segments are copied for each viewer");
        })
        .ok()
}

/// A number nobody can guess: who has it may fetch the segments named with it.
fn random_key() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the random source of the process works");
    u64::from_be_bytes(bytes)
}
