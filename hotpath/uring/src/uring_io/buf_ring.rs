//! The buffer ring: how free receive buffers get to the kernel and filled ones come back.
//!
//! Sole owner of receive memory. The kernel takes a buffer off the ring when bytes are there for
//! some connection, not before: a thousand idle connections hold none.
//!
//! ```text
//!   pool ── lend ──► ring entry {address, length, id} ── kernel fills it ──► CQE names the id
//!    ▲                 (tail published once per turn)                              │ take
//!    └────────────────────────── drop ─────────────────── RecvBuf ◄────────────────┘
//! ```
//!
//! The ring's memory and the buffers' must outlive the registration. `release` ends it; a `BufRing`
//! dropped without that keeps both mapped for good rather than pull them from under the kernel.

use crate::pages::Pages;
use crate::recv_pool::{RecvBuf, RecvPool};
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU16, Ordering};

/// The one buffer group we use.
pub(super) const GROUP: u16 = 0;

#[derive(Debug)]
pub(super) struct BufRing {
    entries: ManuallyDrop<Pages>,
    pool: ManuallyDrop<RecvPool>,
    count: u16,
    tail: u16,
    /// Buffers the kernel may fill.
    in_kernel: u16,
}

impl BufRing {
    /// Registers `count` (a power of two) buffers of `buffer_bytes` and gives them all to the
    /// kernel.
    pub(super) fn register(
        submitter: &Submitter<'_>,
        count: u16,
        buffer_bytes: u32,
    ) -> io::Result<BufRing> {
        let entries = Pages::map(usize::from(count) * size_of::<BufRingEntry>())?;
        let pool = RecvPool::new(count, buffer_bytes)?;
        let address = entries.at(0).expose_provenance() as u64;
        // SAFETY: `entries` is page-aligned and holds `count` entries; the BufRing made below owns
        // it, and unmaps it only in `release`, after the registration ended.
        unsafe { submitter.register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        let mut ring = BufRing {
            entries: ManuallyDrop::new(entries),
            pool: ManuallyDrop::new(pool),
            count,
            tail: 0,
            in_kernel: 0,
        };
        ring.refill();
        Ok(ring)
    }

    /// Gives every free buffer to the kernel. One store publishes them all.
    pub(super) fn refill(&mut self) {
        let before = self.tail;
        let length = u32::try_from(self.pool.buffer_bytes()).unwrap_or(u32::MAX);
        while let Some(id) = self.pool.lend() {
            let place = usize::from(self.tail & (self.count - 1));
            let address = self.pool.lent_start(id).expose_provenance() as u64;
            let entry = self.entries.at(place * size_of::<BufRingEntry>()).cast::<BufRingEntry>();
            // SAFETY: `place` is below `count`, so the entry is inside our mapping, aligned to its
            // own size from a page's start; the kernel does not read it before the tail moves past
            // it below, and has finished with its former content, whose buffer came back.
            let entry = unsafe { &mut *entry };
            entry.set_addr(address);
            entry.set_len(length);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            self.in_kernel += 1;
        }
        if self.tail != before {
            self.shared_tail().store(self.tail, Ordering::Release);
        }
    }

    /// Where the kernel reads how far the ring is filled: it lies in the first entry's spare bytes.
    fn shared_tail(&self) -> &AtomicU16 {
        let base = self.entries.at(0).cast::<BufRingEntry>();
        // SAFETY: base is the start of the registered ring, as `tail` demands.
        let tail = unsafe { BufRingEntry::tail(base) }.cast_mut();
        // SAFETY: the place is aligned, inside the mapping owned by self, and from here on written
        // only by this atomic store; entries' setters touch the other fields of the first entry.
        unsafe { AtomicU16::from_ptr(tail) }
    }

    /// The kernel has written `bytes` to buffer `id`. `None` when that is nothing: the buffer then
    /// goes back on the ring at the next refill.
    pub(super) fn take(&mut self, id: u16, bytes: usize) -> Option<RecvBuf> {
        self.in_kernel -= 1;
        if bytes == 0 {
            self.pool.unlend(id);
            return None;
        }
        Some(self.pool.fill(id, bytes))
    }

    /// Buffers the kernel may still fill, as far as completions have told us.
    pub(super) fn in_kernel(&self) -> usize {
        usize::from(self.in_kernel)
    }

    /// Ends the registration and frees the memory (buffers that sessions hold live on until they
    /// drop them). Call when no receive is in flight.
    pub(super) fn release(mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        submitter.unregister_buf_ring(GROUP)?;
        // SAFETY: the kernel has let go of the ring's memory, and `self` is consumed here, so
        // nothing uses the field again.
        unsafe { ManuallyDrop::drop(&mut self.entries) };
        // SAFETY: as above; `RecvBuf`s still out share ownership of the buffers.
        unsafe { ManuallyDrop::drop(&mut self.pool) };
        Ok(())
    }
}
