//! Descriptors this process was started with, by their number (sd_listen_fds(3)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Lowest number a service manager passes: standard input, output and error lie below.
pub const INHERITED_FD_FIRST: RawFd = 3;

/// Takes over a descriptor that was passed to this process, and keeps it from programs this one starts.
///
/// Call it once per number, before anything else is opened: the number must not be anybody else's.
///
/// # Errors
/// `EBADF`: nothing is open there, or the number is below [`INHERITED_FD_FIRST`].
pub fn take_inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    if number < INHERITED_FD_FIRST {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: fcntl with F_SETFD names no memory; a number that is not open is refused.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, as the call above has shown, and passed to this process for this use; the contract of
    // this function is that it is called once per number and first.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_streams_and_closed_numbers_are_refused() {
        for number in [-1, 0, 1, 2, 1_000_000] {
            let error = take_inherited_fd(number).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{number}");
        }
    }
}
