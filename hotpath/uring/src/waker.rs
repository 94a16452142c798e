//! Ends a waiting turn from any thread, without a system call while the worker is awake.
//!
//! ```text
//!   worker                                   any thread
//!   sleeping := true                         woken := true  (was true already: done)
//!   woken?  yes: do not wait                 sleeping?  no: done, the worker will look
//!   wait on the eventfd among others                    yes: write the eventfd
//!   sleeping := false, take woken
//! ```
//!
//! Both sides write one flag and then read the other's, all sequentially consistent, so at least
//! one of them sees the other: a wake is never lost, and a busy worker costs its caller one swap.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Shared {
    /// `None` in the simulation, where nobody really waits.
    event: Option<File>,
    sleeping: AtomicBool,
    woken: AtomicBool,
}

/// Ends a waiting turn of one worker; that turn reports `Woken`.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    /// Makes the worker's current or next turn return with `Woken`. Cheap when it is awake; calls
    /// that come before it looks count as one.
    pub fn wake(&self) {
        if self.shared.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        if !self.shared.sleeping.load(Ordering::SeqCst) {
            return;
        }
        if let Some(mut event) = self.shared.event.as_ref() {
            // The only refusal is EAGAIN at a count near 2^64, and then it is readable anyway.
            let _ = event.write(&1u64.to_ne_bytes());
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("woken", &self.shared.woken).finish_non_exhaustive()
    }
}

/// The worker's side of its wakers.
pub(crate) struct WakeSignal {
    shared: Arc<Shared>,
}

impl WakeSignal {
    /// With an eventfd to wait on.
    pub(crate) fn with_eventfd() -> io::Result<WakeSignal> {
        // SAFETY: plain call without pointers; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just returned by eventfd and belongs to nobody else.
        let event = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(WakeSignal::new(Some(event)))
    }

    /// Flags alone.
    pub(crate) fn without_eventfd() -> WakeSignal {
        WakeSignal::new(None)
    }

    fn new(event: Option<File>) -> WakeSignal {
        let shared =
            Shared { event, sleeping: AtomicBool::new(false), woken: AtomicBool::new(false) };
        WakeSignal { shared: Arc::new(shared) }
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker { shared: Arc::clone(&self.shared) }
    }

    /// Makes the eventfd unreadable again, after a wait has reported it.
    pub(crate) fn drain(&self) {
        let mut count = [0; 8];
        if let Some(mut event) = self.shared.event.as_ref() {
            // EAGAIN: another wait's report has been drained already. There is no other error.
            let _ = event.read(&mut count);
        }
    }

    /// The descriptor to wait on; -1 without one.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.shared.event.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Announces a wait. `false`: somebody has called already, do not wait.
    pub(crate) fn may_sleep(&self) -> bool {
        self.shared.sleeping.store(true, Ordering::SeqCst);
        !self.shared.woken.load(Ordering::SeqCst)
    }

    /// Ends the announcement and takes the call, if there was one.
    pub(crate) fn take_woken(&self) -> bool {
        self.shared.sleeping.store(false, Ordering::SeqCst);
        self.shared.woken.swap(false, Ordering::SeqCst)
    }

    /// Whether a call is waiting to be taken.
    pub(crate) fn is_woken(&self) -> bool {
        self.shared.woken.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for WakeSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeSignal").field("event", &self.raw_fd()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(signal: &WakeSignal) -> bool {
        let mut count = [0; 8];
        signal.shared.event.as_ref().unwrap().read(&mut count).is_ok()
    }

    #[test]
    fn waking_a_running_worker_writes_nothing() {
        let signal = WakeSignal::with_eventfd().unwrap();
        signal.waker().wake();
        assert!(!is_readable(&signal));
        assert!(!signal.may_sleep(), "the call came first: no waiting");
        assert!(signal.take_woken());
        assert!(!signal.take_woken());
    }

    #[test]
    fn waking_a_sleeping_worker_writes_once() {
        let signal = WakeSignal::with_eventfd().unwrap();
        assert!(signal.may_sleep());
        signal.waker().wake();
        signal.waker().wake();
        assert!(is_readable(&signal));
        assert!(!is_readable(&signal));
        assert!(signal.take_woken());
    }
}
