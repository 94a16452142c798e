//! Bytes that many connections send: in memory, or in a file of memory the kernel can send from.
//!
//! A send copies what it is given into the kernel, once for every connection. Bytes that lie in the pages
//! of a file need not be copied: `sendfile` puts references to the pages into the socket. So what many ask
//! for in large pieces, the segments of a stream, is put into a [`MemFile`], which is no file of a disk but
//! memory with a descriptor (memfd_create(2), Linux 3.17).
//!
//! ```text
//!   MemFile   │ region 0       │ region 1       │ a hole         │ region 3       │ …
//!             0                REGION_ALIGN     2 ×              3 ×
//!             ▲ pwrite, once: a region never changes          ▲ its pages went with its last reference
//! ```
//!
//! The kernel may refer to a page for long after the call, as long as the peer has not acknowledged it. A
//! region is therefore never written twice: a new one lies behind all others, where the file has no pages
//! yet, and a region given up is punched out of the file, which lets go of its pages but does not touch
//! what is in them. For that no page of the file, huge ones included, may belong to two regions: hence the
//! distance between them, which costs addresses of a file of 2^63 bytes and nothing else.
//!
//! Another process can read the same regions by a descriptor of the file ([`MemFile::try_clone_fd`],
//! [`MemFile::adopt`]). Neither punches anything then, since each may be sending what the other has given
//! up: the memory of such a file goes with the last region in use.

use bytes::{Buf as _, Bytes};
use std::ffi::CStr;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::pages::Pages;

/// Where regions begin: multiples of the largest page a file of memory is made of (x86-64, and arm64 with
/// pages of 4 KiB).
const REGION_ALIGN: u64 = 2 << 20;
/// Each region is a mapping, of which a process has 65,530 by default (`vm.max_map_count`), the allocator's
/// included.
const REGIONS_MAX: u32 = 16 * 1024;

/// Immutable bytes, shared by counting.
#[derive(Clone, Debug)]
pub struct SharedBytes(Place);

/// As large as the first alone: each connection has room for one.
#[derive(Clone, Debug)]
enum Place {
    Memory(Bytes),
    File { region: Arc<Region>, start: usize, count: usize },
}

impl SharedBytes {
    /// A part of these bytes.
    ///
    /// # Panics
    /// When `range` ends outside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} is not inside");
        Self(match &self.0 {
            Place::Memory(bytes) => Place::Memory(bytes.slice(range)),
            Place::File { region, start, .. } => {
                let region = Arc::clone(region);
                Place::File { region, start: start + range.start, count: range.len() }
            }
        })
    }

    /// Leaves out the first `bytes` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.len(), "{bytes} of {}", self.len());
        match &mut self.0 {
            Place::Memory(memory) => memory.advance(bytes),
            Place::File { start, count, .. } => {
                *start += bytes;
                *count -= bytes;
            }
        }
    }

    /// The same bytes, wherever they lie.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Place::Memory(bytes) => bytes.clone(),
            Place::File { .. } => Bytes::from_owner(self.clone()),
        }
    }

    /// The file these bytes lie in, and where they begin there, in bytes.
    pub fn place(&self) -> Option<(&Arc<MemFile>, u64)> {
        let Place::File { region, start, .. } = &self.0 else { return None };
        Some((&region.file, region.offset + *start as u64))
    }

    /// The file these bytes lie in, and where they begin there.
    pub(crate) fn in_file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        let Place::File { region, start, .. } = &self.0 else { return None };
        Some((region.file.fd.as_fd(), region.offset + *start as u64))
    }
}

impl Default for SharedBytes {
    fn default() -> Self {
        Self(Place::Memory(Bytes::new()))
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Memory(bytes) => bytes,
            Place::File { region, start, count } => {
                region.bytes().get(*start..*start + *count).unwrap_or_default()
            }
        }
    }
}

impl<T: Into<Bytes>> From<T> for SharedBytes {
    fn from(bytes: T) -> Self {
        Self(Place::Memory(bytes.into()))
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for SharedBytes {}

/// A file of memory, empty: no file of a disk. The name shows in `/proc`.
///
/// # Errors
/// No descriptor to be had, or a filter of system calls forbids it.
pub(crate) fn memory_file(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the name ends with a zero.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    check(fd)?;
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A file of memory, for [`SharedBytes`] of at least some tens of kilobytes. See the module.
#[derive(Debug)]
pub struct MemFile {
    fd: OwnedFd,
    /// Where the next region begins.
    next: AtomicU64,
    /// Mapped now, of this file and of those it was asked to [adopt](Self::adopt).
    regions: Arc<AtomicU32>,
    /// Another process reads it too.
    is_shared: AtomicBool,
}

impl MemFile {
    /// Makes one, empty.
    ///
    /// # Errors
    /// No descriptor to be had; a filter of system calls forbids what it takes; or the process may write
    /// files of a limited size only (`RLIMIT_FSIZE`), which the place of a region would soon exceed.
    pub fn new() -> io::Result<Arc<Self>> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes one rlimit to a local that outlives the call.
        check(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) })?;
        if limit.rlim_cur != libc::RLIM_INFINITY {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let fd = memory_file(c"segments")?;
        let (next, is_shared) = (AtomicU64::new(0), AtomicBool::new(false));
        let file = Self { fd, next, regions: Arc::default(), is_shared };
        // Memory that could not be given back is better not taken.
        file.punch(0, REGION_ALIGN)?;
        Ok(Arc::new(file))
    }

    /// A copy of `bytes` (at least one) in this file.
    ///
    /// # Errors
    /// No memory, there are more regions than mappings can be spared for: 16,384, or the file is another
    /// process's too.
    pub fn put(self: &Arc<Self>, bytes: &[u8]) -> io::Result<SharedBytes> {
        if self.is_shared.load(Ordering::Acquire) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        let span = (bytes.len() as u64).next_multiple_of(REGION_ALIGN);
        if span == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.count_region()?;
        let offset = self.next.fetch_add(span, Ordering::Relaxed);
        let mapped = self
            .write(bytes, offset)
            .and_then(|()| Pages::map_file(self.fd.as_fd(), offset, bytes.len()));
        let pages = mapped.inspect_err(|_| self.give_back(offset, span))?;
        let (count, file) = (bytes.len(), Arc::clone(self));
        let region = Arc::new(Region { pages, count, offset, span, file });
        Ok(SharedBytes(Place::File { region, start: 0, count }))
    }

    // For a hand-over.

    /// A descriptor for another process.
    ///
    /// # Errors
    /// None to be had.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Another process reads the regions there are: from now on none is punched, and none is added.
    pub fn pass_on(&self) {
        self.is_shared.store(true, Ordering::Release);
    }

    /// The file of another process, whose regions count as this one's. Nothing can be put there.
    pub fn adopt(&self, fd: OwnedFd) -> Arc<Self> {
        let (next, is_shared) = (AtomicU64::new(0), AtomicBool::new(true));
        Arc::new(Self { fd, next, regions: Arc::clone(&self.regions), is_shared })
    }

    /// The `count` bytes at `offset`, which were put there by whoever made the file.
    ///
    /// # Errors
    /// They lie outside (`EINVAL`), no memory, or there are too many regions.
    pub fn find(self: &Arc<Self>, offset: u64, count: usize) -> io::Result<SharedBytes> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let end = offset.checked_add(count as u64).filter(|end| *end <= i64::MAX as u64);
        // Behind the end of the file a mapping has no bytes but a signal.
        if count == 0 || end.ok_or_else(invalid)? > self.stat()?.st_size.unsigned_abs() {
            return Err(invalid());
        }
        let begin = offset / REGION_ALIGN * REGION_ALIGN;
        let start = usize::try_from(offset - begin).map_err(|_| invalid())?;
        self.count_region()?;
        let mapped = Pages::map_file(self.fd.as_fd(), begin, start + count);
        let pages = mapped.inspect_err(|_| {
            self.regions.fetch_sub(1, Ordering::Relaxed);
        })?;
        let span = ((start + count) as u64).next_multiple_of(REGION_ALIGN);
        let (file, region_bytes) = (Arc::clone(self), start + count);
        let region = Region { pages, count: region_bytes, offset: begin, span, file };
        Ok(SharedBytes(Place::File { region: Arc::new(region), start, count }))
    }

    fn stat(&self) -> io::Result<libc::stat> {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the kernel writes one stat to a local that outlives the call.
        check(unsafe { libc::fstat(self.fd.as_raw_fd(), stat.as_mut_ptr()) })?;
        // SAFETY: zeroed, and then written by the kernel.
        Ok(unsafe { stat.assume_init() })
    }

    fn count_region(&self) -> io::Result<()> {
        if self.regions.fetch_add(1, Ordering::Relaxed) >= REGIONS_MAX {
            self.regions.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Ok(())
    }

    fn write(&self, mut bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        while !bytes.is_empty() {
            let position = libc::off_t::try_from(at).map_err(io::Error::other)?;
            // SAFETY: the kernel reads the slice, which is borrowed for the call.
            let written = unsafe {
                libc::pwrite(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), position)
            };
            match usize::try_from(written) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or_default();
                    at += count as u64;
                }
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn give_back(&self, offset: u64, span: u64) {
        if !self.is_shared.load(Ordering::Acquire) {
            // It worked when the file was made; whole pages of such a file always can be punched out.
            let _ = self.punch(offset, span);
        }
        self.regions.fetch_sub(1, Ordering::Relaxed);
    }

    fn punch(&self, offset: u64, span: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let span = libc::off_t::try_from(span).map_err(io::Error::other)?;
        // SAFETY: a plain call without pointers.
        check(unsafe { libc::fallocate(self.fd.as_raw_fd(), mode, offset, span) })
    }
}

/// A part of the file that was written once and is read by whoever holds it.
#[derive(Debug)]
struct Region {
    pages: Pages,
    count: usize,
    offset: u64,
    span: u64,
    file: Arc<MemFile>,
}

impl Region {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is at least `count` long, stays until the region is dropped, and nobody
        // writes to a region of the file again once it is mapped.
        unsafe { std::slice::from_raw_parts(self.pages.at(0), self.count) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.file.give_back(self.offset, self.span);
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(file: &MemFile) -> u64 {
        file.stat().unwrap().st_blocks.unsigned_abs() * 512
    }

    #[test]
    fn what_is_put_is_read_back_and_found_in_the_file() {
        let file = MemFile::new().unwrap();
        let first: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let (one, two) = (file.put(&first).unwrap(), file.put(b"second").unwrap());
        assert_eq!(&one[..], first);
        assert_eq!(&two[..], b"second");
        assert_eq!(one.in_file().unwrap().1, 0);
        assert_eq!(two.in_file().unwrap().1, REGION_ALIGN);
        let mut part = one.slice(1_000..5_000);
        part.advance(24);
        assert_eq!(&part[..], &first[1_024..5_000]);
        assert_eq!(part.in_file().unwrap().1, 1_024);
        let through_file = {
            let mut bytes = vec![0; part.len()];
            let (fd, offset) = part.in_file().unwrap();
            // SAFETY: the kernel writes at most as many bytes as the vector has.
            let count = unsafe {
                libc::pread(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), offset as i64)
            };
            assert_eq!(count, part.len() as isize);
            bytes
        };
        assert_eq!(through_file, &part[..]);
    }

    #[test]
    fn memory_is_given_back_with_the_last_part() {
        let file = MemFile::new().unwrap();
        let whole = file.put(&vec![7; 3 << 20]).unwrap();
        assert_eq!(resident(&file), 3 << 20);
        let part = whole.slice(10..20);
        let bytes = part.to_bytes();
        drop((whole, part));
        assert_eq!(resident(&file), 3 << 20, "some bytes of it are still held");
        assert_eq!(&bytes[..], [7; 10]);
        drop(bytes);
        assert_eq!(resident(&file), 0);
        assert_eq!(file.regions.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn bytes_of_a_file_take_no_more_room_than_others() {
        assert_eq!(size_of::<SharedBytes>(), size_of::<Bytes>());
    }

    #[test]
    fn regions_are_bounded() {
        let file = MemFile::new().unwrap();
        file.regions.store(REGIONS_MAX, Ordering::Relaxed);
        assert_eq!(file.put(b"x").unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        assert_eq!(file.regions.load(Ordering::Relaxed), REGIONS_MAX);
        assert_eq!(file.put(b"").unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn regions_passed_on_are_read_by_the_other_one_and_go_with_the_last_of_both() {
        let file = MemFile::new().unwrap();
        let (kept, gone) = (file.put(&[7; 3 << 20]).unwrap(), file.put(&[8; 100]).unwrap());
        let part = kept.slice(5_000..6_000);
        let place = part.place().unwrap();
        assert!(Arc::ptr_eq(place.0, &file));
        let other = MemFile::new().unwrap();
        let adopted = other.adopt(file.try_clone_fd().unwrap());
        let found = adopted.find(place.1, 1_000).unwrap();
        assert_eq!(found.in_file().unwrap().1, 5_000);
        let second = adopted.find(gone.place().unwrap().1, 100).unwrap();
        file.pass_on();
        drop((kept, part, gone));
        assert_eq!((&found[..], &second[..]), (&[7; 1_000][..], &[8; 100][..]));
        drop(second);
        assert_eq!(resident(&adopted), (3 << 20) + 4_096, "the first process may still send it");
        assert_eq!(file.regions.load(Ordering::Relaxed), 0);
        assert_eq!(other.regions.load(Ordering::Relaxed), 1, "one mapping of whatever file");
    }

    #[test]
    fn what_lies_outside_of_a_file_is_not_found_in_it() {
        let file = MemFile::new().unwrap();
        let bytes = file.put(&[1; 100]).unwrap();
        let adopted = file.adopt(file.try_clone_fd().unwrap());
        for (offset, count) in [(0, 0), (0, 101), (100, 1), (u64::MAX, 1), (1, usize::MAX)] {
            let error = adopted.find(offset, count).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{offset} {count}");
        }
        assert_eq!(&adopted.find(0, 100).unwrap()[..], &bytes[..]);
        assert!(adopted.put(b"x").is_err());
        assert_eq!(file.regions.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn bytes_in_memory_lie_in_no_file() {
        let bytes = SharedBytes::from("text");
        assert!(bytes.in_file().is_none());
        assert_eq!(&bytes[..], b"text");
    }
}
