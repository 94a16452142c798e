//! Leases: the right to read bytes of a slot, counted without atomics inside one worker.
//!
//! A tap pins a slot once (one shared atomic) and counts its own uses of it in a plain cell: one
//! for its view, one per lease. When that count returns to zero, wherever that happens, the pin is
//! undone. So a lease outlives the view that gave it, and the tap itself.

use core::cell::Cell;
use core::fmt;
use core::ops::Deref;

use alloc::boxed::Box;
use alloc::rc::Rc;

use stable_deref_trait::StableDeref;

use crate::block::RawBlock;
use crate::slot::Handle;
use crate::stream_ring::Shared;
use crate::sync::Arc;

/// What a tap and its leases share on their thread.
#[derive(Debug)]
pub(crate) struct Holds {
    pub(crate) ring: Arc<Shared>,
    /// Per slot: uses by this tap's view and leases. Above zero: pinned once.
    counts: Box<[Cell<u32>]>,
}

impl Holds {
    pub(crate) fn new(ring: Arc<Shared>) -> Self {
        let counts = (0..ring.slot_count()).map(|_| Cell::new(0)).collect();
        Self { ring, counts }
    }

    /// Pins the slot for the view, unless the handle's life is over.
    pub(crate) fn hold(&self, handle: Handle) -> bool {
        let count = &self.counts[handle.slot() as usize];
        let slot = self.ring.slot(handle.slot());
        let is_held = match count.get() {
            0 => slot.pin(handle.generation()),
            // Held already, so its generation stands still.
            _ => slot.is_generation(handle.generation()),
        };
        if is_held {
            self.hold_again(handle.slot());
        }
        is_held
    }

    /// One more use of a slot that is held.
    #[inline]
    fn hold_again(&self, slot: u32) {
        let count = &self.counts[slot as usize];
        count.set(count.get().checked_add(1).expect("fewer leases than memory has bytes"));
    }

    /// One use less; the last one undoes the pin.
    #[inline]
    pub(crate) fn release(&self, slot: u32) {
        let count = &self.counts[slot as usize];
        let left = count.get().checked_sub(1).expect("a use is released once");
        count.set(left);
        if left == 0 {
            self.ring.slot(slot).unpin();
        }
    }
}

/// The right to read a contiguous run of published bytes for as long as it lives. Keeps the slot's
/// memory from reuse, also after the tap let go of it or was dropped. Stays on its worker; clone
/// and drop cost two plain increments.
pub struct Lease {
    bytes: RawBlock,
    slot: u32,
    holds: Rc<Holds>,
}

impl Lease {
    /// A lease on `bytes`, which lie in `slot`.
    ///
    /// # Safety
    /// `slot` is held through `holds`, `bytes` is a view of its block, and every byte of it is
    /// published (below an acquired head, or a whole preamble).
    pub(crate) unsafe fn new(holds: &Rc<Holds>, slot: u32, bytes: RawBlock) -> Self {
        holds.hold_again(slot);
        Self { bytes, slot, holds: Rc::clone(holds) }
    }
}

impl Lease {
    /// A lease on what follows the first `bytes` of this one: the rest of a short send. Empty when
    /// nothing follows.
    #[must_use]
    pub fn suffix(&self, bytes: usize) -> Self {
        let len = self.bytes.len();
        let from = u32::try_from(bytes).map_or(len, |bytes| bytes.min(len));
        self.holds.hold_again(self.slot);
        Self {
            bytes: self.bytes.part(from, len - from),
            slot: self.slot,
            holds: Rc::clone(&self.holds),
        }
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the block belongs to the slot, which this lease holds until its drop, and
        // published bytes are never written again while a slot is held.
        unsafe { self.bytes.as_slice() }
    }
}

// SAFETY: the bytes lie in the slot's block, whose address does not depend on where the lease is,
// and all clones hold the same slot.
unsafe impl StableDeref for Lease {}

impl Clone for Lease {
    fn clone(&self) -> Self {
        self.holds.hold_again(self.slot);
        Self { bytes: self.bytes, slot: self.slot, holds: Rc::clone(&self.holds) }
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        self.holds.release(self.slot);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("slot", &self.slot)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
