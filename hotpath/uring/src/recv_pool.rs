//! The receive memory of one worker: a fixed number of equal buffers, each with exactly one owner.
//!
//! ```text
//!            lend                     fill                      drop
//!   FREE ───────────► LENT ─────────────────────► HELD ──────────────────► FREE
//!   pool's list       the kernel (buffer ring)    a RecvBuf (session)      pool's list
//!                     or one recv call
//! ```
//!
//! The owner of each buffer is written down and checked on every hand-over, so a completion that
//! names a buffer twice is a panic here and not two sessions reading one memory. Never grows, never
//! allocates after `new` (but for `set_aside`, cold). One thread only: the handles are not `Send`.

use crate::pages::Pages;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::rc::Rc;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Owner {
    Free,
    Lent,
    Held,
}

struct Slab {
    pages: Pages,
    buffer_bytes: usize,
    owners: Box<[Cell<Owner>]>,
    free: RefCell<Vec<u16>>,
}

impl Slab {
    fn hand_over(&self, index: u16, from: Owner, to: Owner) {
        let owner = &self.owners[usize::from(index)];
        assert_eq!(owner.get(), from, "receive buffer {index} has another owner");
        owner.set(to);
    }

    fn give_back(&self, index: u16, from: Owner) {
        self.hand_over(index, from, Owner::Free);
        self.free.borrow_mut().push(index);
    }
}

/// All receive buffers of one `Io`.
pub(crate) struct RecvPool {
    slab: Rc<Slab>,
}

impl RecvPool {
    /// `count` buffers of `buffer_bytes`, all free.
    ///
    /// # Errors
    /// `ENOMEM` from the kernel.
    pub(crate) fn new(count: u16, buffer_bytes: u32) -> io::Result<RecvPool> {
        assert!(count > 0 && buffer_bytes > 0, "a pool needs buffers with room");
        let buffer_bytes = buffer_bytes as usize;
        let pages = Pages::map(usize::from(count) * buffer_bytes)?;
        let owners = vec![Cell::new(Owner::Free); usize::from(count)].into_boxed_slice();
        // Reversed, so that buffer 0 is used first and a quiet worker touches few pages.
        let free = RefCell::new((0..count).rev().collect());
        Ok(RecvPool { slab: Rc::new(Slab { pages, buffer_bytes, owners, free }) })
    }

    /// Takes a free buffer for the kernel or a recv call; `None` when sessions hold them all.
    pub(crate) fn lend(&self) -> Option<u16> {
        let index = self.slab.free.borrow_mut().pop()?;
        self.slab.hand_over(index, Owner::Free, Owner::Lent);
        Some(index)
    }

    /// The start of a lent buffer, of `buffer_bytes` length. Valid while the pool or any of its
    /// `RecvBuf` lives.
    pub(crate) fn lent_start(&self, index: u16) -> *mut u8 {
        assert_eq!(self.slab.owners[usize::from(index)].get(), Owner::Lent);
        self.slab.pages.at(usize::from(index) * self.slab.buffer_bytes)
    }

    /// The first `bytes` of a lent buffer have been written: from now on a session owns it.
    pub(crate) fn fill(&self, index: u16, bytes: usize) -> RecvBuf {
        assert!(bytes <= self.slab.buffer_bytes, "more bytes than the buffer holds");
        self.slab.hand_over(index, Owner::Lent, Owner::Held);
        RecvBuf { home: Home::Pool { slab: Rc::clone(&self.slab), index, bytes } }
    }

    /// A lent buffer comes back unused.
    pub(crate) fn unlend(&self, index: u16) {
        self.slab.give_back(index, Owner::Lent);
    }

    /// Lends a buffer to `receive`, which returns how many bytes it wrote. The buffer becomes a
    /// `RecvBuf` if that is more than zero. `None`: no buffer was free, nothing was called.
    pub(crate) fn receive_with(
        &self,
        receive: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> Option<io::Result<Option<RecvBuf>>> {
        let index = self.lend()?;
        let start = self.lent_start(index);
        // SAFETY: buffer `index` is owned by this call (Lent) until `fill` or `unlend` below, the
        // mapping lives as long as the slab and is zeroed by the kernel, hence initialised.
        let room = unsafe { std::slice::from_raw_parts_mut(start, self.slab.buffer_bytes) };
        Some(match receive(room) {
            Ok(bytes) if bytes > 0 => Ok(Some(self.fill(index, bytes))),
            other => {
                self.unlend(index);
                other.map(|_| None)
            }
        })
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.slab.buffer_bytes
    }

    pub(crate) fn free_count(&self) -> usize {
        self.slab.free.borrow().len()
    }
}

impl fmt::Debug for RecvPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvPool")
            .field("buffers", &self.slab.owners.len())
            .field("free", &self.free_count())
            .finish()
    }
}

/// Received bytes, owned by whoever holds this; dropping it returns the memory to the worker's pool.
///
/// Not `Send`: it lives and dies on the worker that received it.
pub struct RecvBuf {
    home: Home,
}

enum Home {
    Pool {
        slab: Rc<Slab>,
        index: u16,
        bytes: usize,
    },
    /// Copied aside, so that bytes nobody asks for keep no buffer from the others.
    Aside(Box<[u8]>),
}

impl RecvBuf {
    /// The same bytes in memory of their own; the pool gets its buffer back. For bytes that came in
    /// during a pause: a few hundred paused peers would otherwise hold the whole pool.
    pub(crate) fn set_aside(self) -> RecvBuf {
        RecvBuf { home: Home::Aside(Box::from(&*self)) }
    }

    /// Bytes that never were in a buffer of the pool.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> RecvBuf {
        RecvBuf { home: Home::Aside(bytes.into_boxed_slice()) }
    }

    /// Flips one bit of the first byte: the simulation's planted bug.
    pub(crate) fn flip(&mut self, bit: usize) {
        let mut bytes: Box<[u8]> = Box::from(&**self);
        bytes[0] ^= 1 << (bit & 7);
        *self = RecvBuf { home: Home::Aside(bytes) };
    }
}

impl Deref for RecvBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.home {
            Home::Pool { slab, index, bytes } => {
                let start = slab.pages.at(usize::from(*index) * slab.buffer_bytes);
                // SAFETY: the slab keeps the mapping alive; buffer `index` is owned by this value
                // (Held) from `fill` until `drop`, so neither kernel nor pool writes to it while
                // it is borrowed.
                unsafe { std::slice::from_raw_parts(start, *bytes) }
            }
            Home::Aside(bytes) => bytes,
        }
    }
}

impl Drop for RecvBuf {
    fn drop(&mut self) {
        if let Home::Pool { slab, index, .. } = &self.home {
            slab.give_back(*index, Owner::Held);
        }
    }
}

impl fmt::Debug for RecvBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecvBuf({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_home_when_its_holder_drops_it() {
        let pool = RecvPool::new(2, 4096).unwrap();
        let first = pool.receive_with(|room| {
            room[..3].copy_from_slice(b"abc");
            Ok(3)
        });
        let first = first.unwrap().unwrap().unwrap();
        assert_eq!(&*first, b"abc");
        let second = pool.receive_with(|_| Ok(1)).unwrap().unwrap();
        assert!(pool.receive_with(|_| Ok(1)).is_none());
        drop(second);
        assert_eq!(pool.free_count(), 1);
        drop(pool);
        assert_eq!(&*first, b"abc");
    }

    #[test]
    fn bytes_set_aside_keep_no_buffer() {
        let pool = RecvPool::new(1, 4096).unwrap();
        let fill = |room: &mut [u8]| {
            room[..2].copy_from_slice(b"ab");
            Ok(2)
        };
        let aside = pool.receive_with(fill).unwrap().unwrap().unwrap().set_aside();
        assert_eq!((&*aside, pool.free_count()), (&b"ab"[..], 1));
        drop(aside);
        assert_eq!(pool.free_count(), 1);
    }

    #[test]
    fn an_empty_or_failed_receive_keeps_no_buffer() {
        let pool = RecvPool::new(1, 4096).unwrap();
        assert!(pool.receive_with(|_| Ok(0)).unwrap().unwrap().is_none());
        let error = io::Error::from_raw_os_error(libc::ECONNRESET);
        assert!(pool.receive_with(|_| Err(error)).unwrap().is_err());
        assert_eq!(pool.free_count(), 1);
    }

    #[test]
    #[should_panic(expected = "another owner")]
    fn a_buffer_named_twice_is_a_panic() {
        let pool = RecvPool::new(1, 4096).unwrap();
        let index = pool.lend().unwrap();
        let _first = pool.fill(index, 1);
        let _second = pool.fill(index, 1);
    }
}
