//! A slot: the place of one segment or preamble, and the word that decides who may touch it.
//!
//! ```text
//!   0                8            12        16         24       32           48           64
//!   | state: u64     | committed  | (pad)   | sequence | base   | bytes      | index      |
//!   | gen 32 | rd 32 | atomic u32 |         | -------- contents: plain memory ------------ |
//! ```
//!
//! - `state` high half: the generation, one more each time the slot is recycled. Low half: how
//!   many taps hold the slot (one per tap, however many leases it has given out).
//! - `committed`: messages in the index that readers may look at; for a preamble, its length.
//! - `contents`: written by the writer alone, and only between winning the slot and publishing it.
//!
//! ```text
//!               fill, publish handle              trim
//!   FREE(gen) ───────────────────────► LIVE(gen) ───────► RETIRED(gen) ──CAS (gen,0)→(gen+1,0)──►
//! FREE(gen+1)
//!                                        ▲ pin: +1, generation checked, else −1 ▲
//! ```
//!
//! Why a pin is enough: generation and readers are one word, so they have one order of changes. If
//! the pin comes first, the writer's exchange sees a reader and fails; if the exchange comes first,
//! the pin sees another generation and is undone. There is no third case.

use crate::block::{Block, RawBlock};
use crate::sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell};

/// Names a slot in one of its lives: generation in the high half, slot number in the low half.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Handle(pub(crate) u64);

impl Handle {
    /// No slot.
    pub(crate) const NONE: Self = Self(u64::MAX);

    pub(crate) const fn new(slot: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | slot as u64)
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is the slot number")]
    pub(crate) const fn slot(self) -> u32 {
        self.0 as u32
    }

    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What a slot holds while it is live.
#[derive(Debug)]
pub(crate) struct Contents {
    /// Segment: its number in the stream. Preamble: its version.
    pub(crate) sequence: u64,
    /// Segment: position of its first byte. Preamble: position from which it is valid.
    pub(crate) base: u64,
    /// The payload.
    pub(crate) bytes: Option<Block>,
    /// The message index; none for a preamble.
    pub(crate) index: Option<Block>,
}

impl Contents {
    const EMPTY: Self = Self { sequence: 0, base: 0, bytes: None, index: None };
}

/// A copy of the contents for a reader that holds the slot; valid as long as it does.
#[derive(Copy, Clone, Debug)]
pub(crate) struct ContentsView {
    pub(crate) sequence: u64,
    pub(crate) base: u64,
    pub(crate) bytes: Option<RawBlock>,
    pub(crate) index: Option<RawBlock>,
}

/// See the file's contract. One cache line, so that taps of different segments do not meet.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    state: AtomicU64,
    committed: AtomicU32,
    contents: UnsafeCell<Contents>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 64, "a slot is one cache line");

// SAFETY: the atomics are shared by nature. `contents` is written only by the writer while it owns
// the slot (FREE), and read only by those who pinned a published generation; the state word makes
// the two exclusive (see the file's contract), and the blocks inside are `Send`.
unsafe impl Sync for Slot {}
// SAFETY: nothing in a slot is tied to a thread.
unsafe impl Send for Slot {}

/// Readers above this mean that somebody pins without ever letting go.
const READERS_MAX: u64 = u32::MAX as u64 / 2;

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            committed: AtomicU32::new(0),
            contents: UnsafeCell::new(Contents::EMPTY),
        }
    }

    /// Reader: holds the slot if it still lives in `generation`. One fetch-add; undone if late.
    ///
    /// Relaxed: that contents are visible comes from the Acquire load that found the handle; that
    /// they stay comes from the order of changes of this one word. Model: `loom_recycle`.
    pub(crate) fn pin(&self, generation: u32) -> bool {
        let before = self.state.fetch_add(1, Ordering::Relaxed);
        assert!(before & u64::from(u32::MAX) < READERS_MAX, "too many readers of one slot");
        if before >> 32 == u64::from(generation) {
            return true;
        }
        // Nothing was read, so nothing has to be ordered before this.
        self.state.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Reader: lets go of a slot it had pinned.
    ///
    /// Release: all reads through the pin come before the writer's reuse, which acquires this
    /// word. Model: `loom_lease`.
    pub(crate) fn unpin(&self) {
        let before = self.state.fetch_sub(1, Ordering::Release);
        debug_assert!(before & u64::from(u32::MAX) > 0, "a slot is let go once per pin");
    }

    /// Reader that holds the slot in some generation: is it this one?
    pub(crate) fn is_generation(&self, generation: u32) -> bool {
        self.state.load(Ordering::Relaxed) >> 32 == u64::from(generation)
    }

    /// Writer: ends the slot's life in `generation` if no reader holds it.
    ///
    /// Acquire: pairs with `unpin`, so the next fill comes after the last reader's reads. The
    /// failure ordering is Relaxed, since nothing is done then. Model: `loom_lease`.
    pub(crate) fn recycle(&self, generation: u32) -> bool {
        let unheld = u64::from(generation) << 32;
        let next = u64::from(generation.wrapping_add(1)) << 32;
        self.state.compare_exchange(unheld, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Writer: puts contents into a free slot and resets the committed count to `committed`.
    ///
    /// # Safety
    /// The slot is FREE: the caller is the ring's one writer, it has recycled the slot (or never
    /// used it) and has not published a handle with its present generation.
    pub(crate) unsafe fn fill(&self, contents: Contents, committed: u32) {
        // Relaxed: the handle's Release store comes later. Model: `loom_publish`.
        self.committed.store(committed, Ordering::Relaxed);
        self.contents.with_mut(|cell| {
            // SAFETY: exclusive, by this function's contract; readers of older generations undo
            // their pin without looking at the contents.
            unsafe { *cell = contents }
        });
    }

    /// Writer: takes the contents out of a slot whose life it has just ended with `recycle`.
    ///
    /// # Safety
    /// As for [`Slot::fill`].
    pub(crate) unsafe fn take(&self) -> Contents {
        self.contents.with_mut(|cell| {
            // SAFETY: exclusive, by this function's contract.
            unsafe { core::ptr::replace(cell, Contents::EMPTY) }
        })
    }

    /// Reader: what the slot holds.
    ///
    /// # Safety
    /// The caller has pinned the slot in a generation whose handle it read with Acquire. The views
    /// inside may be used until it unpins.
    pub(crate) unsafe fn contents(&self) -> ContentsView {
        self.contents.with(|cell| {
            // SAFETY: pinned, so the writer does not touch the contents; they were complete before
            // the handle was published.
            let contents = unsafe { &*cell };
            ContentsView {
                sequence: contents.sequence,
                base: contents.base,
                bytes: contents.bytes.as_ref().map(Block::raw),
                index: contents.index.as_ref().map(Block::raw),
            }
        })
    }

    /// Writer: `count` messages of the index are complete.
    ///
    /// Release: entries and payload come before. Model: `loom_publish`.
    pub(crate) fn set_committed(&self, count: u32) {
        self.committed.store(count, Ordering::Release);
    }

    /// Reader that holds the slot: messages it may look at.
    ///
    /// Acquire: pairs with `set_committed`. The count can be ahead of a head read earlier; the tap
    /// clamps it. Model: `loom_publish`.
    pub(crate) fn committed(&self) -> u32 {
        self.committed.load(Ordering::Acquire)
    }
}
