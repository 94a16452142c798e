//! The part of a ring that threads share, and the handle to it.

use core::fmt;

use alloc::boxed::Box;

use crate::config::RingConfig;
use crate::control::Control;
use crate::message::Position;
use crate::slot::{Handle, Slot};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::tap::Tap;
use crate::writer::Writer;

/// The two words that change with every message, on a line of their own.
#[derive(Debug)]
#[repr(C, align(128))]
struct Published {
    head: AtomicU64,
    flush_mark: AtomicU64,
}

/// Shared by the writer, all taps and all leases; freed with the last of them.
#[derive(Debug)]
pub(crate) struct Shared {
    published: Published,
    pub(crate) control: Control,
    preamble_version: AtomicU64,
    /// Segment sequence modulo slots → handle of its slot.
    directory: Box<[AtomicU64]>,
    slots: Box<[Slot]>,
}

impl Shared {
    fn new(config: &RingConfig) -> Self {
        Self {
            published: Published { head: AtomicU64::new(0), flush_mark: AtomicU64::new(0) },
            control: Control::new(),
            preamble_version: AtomicU64::new(0),
            directory: (0..config.slots).map(|_| AtomicU64::new(Handle::NONE.0)).collect(),
            slots: (0..config.slots).map(|_| Slot::new()).collect(),
        }
    }

    #[inline]
    pub(crate) fn slot(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most SLOTS_MAX")]
    pub(crate) fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    fn directory(&self, sequence: u64) -> &AtomicU64 {
        let mask = self.directory.len() as u64 - 1;
        let place = usize::try_from(sequence & mask).expect("a directory index fits");
        &self.directory[place]
    }

    /// Writer: says in which slot segment `sequence` lives.
    ///
    /// Release: the slot was filled before. Needed beside the control word's Release because a
    /// slow reader can meet the entry of a later segment here. Model: `loom_recycle`.
    pub(crate) fn set_handle(&self, sequence: u64, handle: Handle) {
        self.directory(sequence).store(handle.0, Ordering::Release);
    }

    /// Reader: where segment `sequence` lives, or already a later one with the same place.
    pub(crate) fn handle(&self, sequence: u64) -> Handle {
        Handle(self.directory(sequence).load(Ordering::Acquire))
    }

    /// Acquire: everything below the head is complete. Model: `loom_publish`.
    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.published.head.load(Ordering::Acquire)
    }

    /// Release: payload, index entry, committed count, and the segment's announcement come before.
    /// Model: `loom_publish`.
    #[inline]
    pub(crate) fn set_head(&self, head: u64) {
        self.published.head.store(head, Ordering::Release);
    }

    /// Acquire: a head loaded afterwards is not behind this mark. Model: `loom_publish`.
    #[inline]
    pub(crate) fn flush_mark(&self) -> u64 {
        self.published.flush_mark.load(Ordering::Acquire)
    }

    /// Release: the head it repeats was stored before. Model: `loom_publish`.
    pub(crate) fn set_flush_mark(&self, mark: u64) {
        self.published.flush_mark.store(mark, Ordering::Release);
    }

    /// A hint without ordering: what belongs to it is read through a tap.
    pub(crate) fn preamble_version(&self) -> u64 {
        self.preamble_version.load(Ordering::Relaxed)
    }

    pub(crate) fn set_preamble_version(&self, version: u64) {
        self.preamble_version.store(version, Ordering::Relaxed);
    }
}

/// Makes an empty ring: its one writer and the handle from which taps are made.
///
/// # Panics
/// When `config` is not valid; see [`RingConfig::validate`].
#[must_use]
pub fn stream_ring(config: RingConfig) -> (Writer, StreamRing) {
    if let Err(reason) = config.validate() {
        panic!("{reason}");
    }
    let shared = Arc::new(Shared::new(&config));
    (Writer::new(Arc::clone(&shared), config), StreamRing { shared })
}

/// A handle to a stream ring: cheap to clone, may be sent to and used from any thread. Keeps the
/// ring's memory alive; does not keep any segment from being trimmed.
#[derive(Clone)]
pub struct StreamRing {
    shared: Arc<Shared>,
}

impl StreamRing {
    pub(crate) fn from_shared(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// A reader for the calling worker. Its view is empty until the first [`Tap::refresh`].
    /// Allocates (a worker makes one tap per stream); takes no lock.
    #[must_use]
    pub fn tap(&self) -> Tap {
        Tap::new(Arc::clone(&self.shared))
    }

    /// One behind the last published byte.
    #[must_use]
    pub fn head(&self) -> Position {
        Position(self.shared.head())
    }

    /// One behind the last byte of the last complete video message, as marked by the writer.
    #[must_use]
    pub fn flush_mark(&self) -> Position {
        Position(self.shared.flush_mark())
    }

    /// The newest join position. To join, use [`Tap::join_point`], which adds the preamble.
    #[must_use]
    pub fn join(&self) -> Option<Position> {
        self.shared.control.join().map(Position)
    }

    /// Version of the newest preamble; 0 before the first.
    #[must_use]
    pub fn preamble_version(&self) -> u64 {
        self.shared.preamble_version()
    }

    /// True when both handles lead to the same ring.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        core::ptr::eq(&raw const *self.shared, &raw const *other.shared)
    }
}

impl fmt::Debug for StreamRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamRing")
            .field("head", &self.head())
            .field("flush_mark", &self.flush_mark())
            .field("join", &self.join())
            .field("preamble_version", &self.preamble_version())
            .finish_non_exhaustive()
    }
}
