//! Page-aligned memory with an owner: anonymous and zeroed, for receive buffers and the buffer ring, which
//! the kernel writes to and which must start on a page; or the pages of a file, to be read.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// A mapping; unmapped on drop.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: `Pages` owns its mapping and hands out nothing but raw pointers into it.
unsafe impl Send for Pages {}
// SAFETY: as above; whoever reads or writes through the pointers answers for it.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `bytes` (not zero) of zeroed memory; pages cost nothing until first touched.
    pub(crate) fn map(bytes: usize) -> io::Result<Pages> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of
        // ours; the result is checked below and owned by `Pages` until its drop.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        Self::own(start, bytes)
    }

    /// Maps `bytes` (not zero) of a file from `offset` on (a multiple of the page size), for reading.
    pub(crate) fn map_file(file: BorrowedFd<'_>, offset: u64, bytes: usize) -> io::Result<Pages> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: as above; the descriptor is open for the call, and the mapping keeps the file itself.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        Self::own(start, bytes)
    }

    fn own(start: *mut libc::c_void, bytes: usize) -> io::Result<Pages> {
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Pages { start, bytes })
    }

    /// The address `offset` bytes in.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.bytes, "offset outside the mapping");
        // SAFETY: offset is inside the mapping, checked above; the mapping lives as long as self.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: start and bytes are those of the mapping this was made of; this owner is the last
        // user, the kernel's use having ended with the ring (see `uring_io::teardown`).
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
