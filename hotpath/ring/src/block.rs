//! Memory of segments: the owning [`Block`] and its plain view [`RawBlock`].
//!
//! This file alone allocates and frees. Memory that is mapped or registered with the kernel would
//! be another way to make a `Block` here; nothing else in the crate would change.
//!
//! A block is zeroed when it comes from the allocator, so every slice over it is initialised. Under
//! the model checker each byte has a shadow cell: reading or writing a slice touches them, and a
//! read that races with a write fails the model.

use core::ptr::NonNull;

use alloc::alloc::{Layout, alloc_zeroed, dealloc};

#[cfg(loom)]
use crate::sync::UnsafeCell;

/// Alignment of every block: what an allocator gives without being asked. Blocks are far larger than a
/// cache line, and asking for one costs some allocators the next size class: a quarter more memory.
pub(crate) const ALIGN_BYTES: usize = 16;

/// Owns `len` bytes until dropped. Whoever moves a block out of a slot must know that no view of
/// it is left; the slot protocol (`slot.rs`) is what knows.
#[derive(Debug)]
pub(crate) struct Block(RawBlock);

// SAFETY: a block is the only owner of its allocation and has no tie to a thread; the global
// allocator takes memory back on any thread.
unsafe impl Send for Block {}

impl Block {
    /// A zeroed block of `len` bytes (1 or more); `None` when the allocator refuses.
    pub(crate) fn allocate(len: u32) -> Option<Self> {
        assert!(len > 0, "an empty block has no address");
        let layout = Layout::from_size_align(len as usize, ALIGN_BYTES).ok()?;
        // SAFETY: the layout's size is not zero, asserted above.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self(RawBlock {
            ptr,
            len,
            #[cfg(loom)]
            shadow: shadow_of(len),
        }))
    }

    /// The view of the whole block.
    #[inline]
    pub(crate) const fn raw(&self) -> RawBlock {
        self.0
    }

    #[inline]
    pub(crate) const fn len(&self) -> u32 {
        self.0.len
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        #[cfg(loom)]
        // SAFETY: made by `Box::into_raw` in `shadow_of`; this owner is going away.
        drop(unsafe { alloc::boxed::Box::from_raw(self.0.shadow.as_ptr()) });
        let layout = Layout::from_size_align(self.0.len as usize, ALIGN_BYTES)
            .expect("the layout was valid at allocation");
        // SAFETY: allocated in `allocate` with this very layout; the one owner drops it once, and
        // the slot protocol let go of the block only after the last reader had.
        unsafe { dealloc(self.0.ptr.as_ptr(), layout) };
    }
}

#[cfg(loom)]
fn shadow_of(len: u32) -> NonNull<[UnsafeCell<()>]> {
    let cells: alloc::boxed::Box<[UnsafeCell<()>]> =
        (0..len).map(|_| UnsafeCell::new(())).collect();
    NonNull::new(alloc::boxed::Box::into_raw(cells)).expect("a box has an address")
}

/// A range of a block, without ownership. Turning it into a slice is where the caller vouches for
/// the owner; see the two `unsafe` methods.
#[derive(Copy, Clone, Debug)]
pub(crate) struct RawBlock {
    ptr: NonNull<u8>,
    len: u32,
    #[cfg(loom)]
    shadow: NonNull<[UnsafeCell<()>]>,
}

impl RawBlock {
    #[inline]
    pub(crate) const fn len(self) -> u32 {
        self.len
    }

    /// The bytes `[from, from + len)` of this view.
    ///
    /// # Panics
    /// When the range does not lie inside.
    #[inline]
    pub(crate) fn part(self, from: u32, len: u32) -> Self {
        assert!(
            from <= self.len && len <= self.len - from,
            "the part lies inside the block it is a part of"
        );
        Self {
            // SAFETY: `from` is at most the length of the view, so the result stays inside the
            // allocation or one behind its end.
            ptr: unsafe { self.ptr.add(from as usize) },
            len,
            #[cfg(loom)]
            shadow: NonNull::slice_from_raw_parts(
                // SAFETY: one shadow cell per byte, so the same range is in bounds.
                unsafe { self.shadow.cast::<UnsafeCell<()>>().add(from as usize) },
                len as usize,
            ),
        }
    }

    /// The bytes for reading.
    ///
    /// # Safety
    /// For the whole of `'a` the block must stay allocated and nobody may write to this range.
    #[inline]
    pub(crate) unsafe fn as_slice<'a>(self) -> &'a [u8] {
        #[cfg(loom)]
        // SAFETY: the shadow lives as long as the block.
        for cell in unsafe { self.shadow.as_ref() } {
            cell.with(|_| ());
        }
        // SAFETY: in bounds by construction, initialised since allocation, and the caller vouches
        // for lifetime and absence of writers.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len as usize) }
    }

    /// The bytes for writing.
    ///
    /// # Safety
    /// For the whole of `'a` the block must stay allocated and nobody else may read or write this
    /// range.
    #[inline]
    pub(crate) unsafe fn as_mut_slice<'a>(self) -> &'a mut [u8] {
        #[cfg(loom)]
        // SAFETY: the shadow lives as long as the block.
        for cell in unsafe { self.shadow.as_ref() } {
            cell.with_mut(|_| ());
        }
        // SAFETY: in bounds by construction, initialised since allocation, and the caller vouches
        // for lifetime and exclusiveness.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len as usize) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_block_is_aligned_and_zeroed_and_parts_stay_inside() {
        let block = Block::allocate(100).expect("a hundred bytes");
        assert_eq!(block.raw().ptr.as_ptr() as usize % ALIGN_BYTES, 0);
        // SAFETY: the block is owned by this test and nobody writes.
        assert!(unsafe { block.raw().as_slice() }.iter().all(|&byte| byte == 0));
        assert_eq!(block.raw().part(100, 0).len(), 0);
        assert_eq!(block.raw().part(40, 60).len(), 60);
    }

    #[test]
    #[should_panic(expected = "the part lies inside")]
    fn a_part_beyond_the_end_is_refused() {
        let block = Block::allocate(16).expect("sixteen bytes");
        let _ = block.raw().part(8, u32::MAX);
    }
}
