//! The way in: entries to the submission queue, the queue to the kernel, and waiting there.

use super::Uring;
use crate::io::Nanos;
use crate::socket;
use crate::token::Token;
use io_uring::squeue;
use io_uring::types::{SubmitArgs, Timespec};
use stable_deref_trait::StableDeref;
use std::io;

/// `IORING_ENTER_GETEVENTS` (linux/io_uring.h).
const ENTER_GETEVENTS: u32 = 1;
/// Enters in a row of one turn at most, when task work or our own backlog asks for more. A later
/// turn goes on from there, and does not wait before it is done.
const ENTERS_PER_TURN_MAX: u32 = 64;

impl<L: StableDeref<Target = [u8]> + 'static> Uring<L> {
    /// Queues an entry; enters the kernel to make room if the queue is full. Order is kept.
    ///
    /// # Safety
    /// Whatever memory the entry names must stay in place until its last completion is handled.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.pack());
        if self.backlog.is_empty() {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // A failure shows again in this turn's enter, where it can be reported.
            let _ = self.submit();
            self.stage_completions();
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Moves waiting entries to the queue as far as there is room.
    fn drain_backlog(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the promise made to `push` for this entry holds until its completion.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// The turn's enter: submits, runs task work, and waits when nothing is `at_hand`.
    pub(super) fn enter(&mut self, deadline: Option<Nanos>, at_hand: bool) -> io::Result<()> {
        let mut enters = 0;
        self.drain_backlog();
        while !self.backlog.is_empty() && enters < ENTERS_PER_TURN_MAX {
            self.submit()?;
            self.stage_completions();
            self.drain_backlog();
            enters += 1;
        }
        let until = self.wait_until(deadline);
        let may_wait = !at_hand && self.backlog.is_empty() && self.staged.is_empty();
        if may_wait && self.signal.may_sleep() {
            self.submit_and_wait(until)
        } else if self.must_enter() {
            self.submit()
        } else {
            Ok(())
        }
    }

    /// Something only the kernel can move on: entries, deferred task work, parked completions.
    pub(super) fn must_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        let overflow = queue.cq_overflow();
        let needed = overflow || queue.taskrun() || !queue.is_empty();
        drop(queue);
        self.counters.completion_overflows += u64::from(overflow);
        needed
    }

    /// Enters without waiting. Asks for events all the same: without that flag the kernel leaves
    /// deferred task work alone, and whoever enters to have it run would enter in vain.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.counters.enters += 1;
        let queue = self.ring.submission();
        let entries = u32::try_from(queue.len()).unwrap_or(u32::MAX);
        drop(queue);
        let submitter = self.ring.submitter();
        // SAFETY: no argument is passed, so the call names no memory but the ring's own.
        let entered =
            unsafe { submitter.enter::<libc::sigset_t>(entries, 0, ENTER_GETEVENTS, None) };
        absorb(entered)
    }

    /// Waits for one completion; when batching is on, first for several, for a short while.
    fn submit_and_wait(&mut self, until: Option<Nanos>) -> io::Result<()> {
        if self.batching.completions > 1 {
            let gathered = socket::clock().saturating_add(self.batching.wait);
            let end = until.map_or(gathered, |until| until.min(gathered));
            self.wait_for(self.batching.completions as usize, Some(end))?;
            if until == Some(end) || self.has_completions() {
                return Ok(());
            }
        }
        self.wait_for(1, until)
    }

    fn wait_for(&mut self, completions: usize, until: Option<Nanos>) -> io::Result<()> {
        self.counters.enters += 1;
        let Some(until) = until else { return absorb(self.ring.submit_and_wait(completions)) };
        let span = until.since(socket::clock());
        if span == Nanos(0) {
            return self.submit();
        }
        let nanos = u32::try_from(span.0 % 1_000_000_000).unwrap_or(0);
        let time = Timespec::new().sec(span.0 / 1_000_000_000).nsec(nanos);
        let args = SubmitArgs::new().timespec(&time);
        absorb(self.ring.submitter().submit_with_args(completions, &args))
    }
}

/// Errors of an enter that are no errors of the ring: the time was up, a signal came, or the kernel
/// wants its completions reaped (or memory) before it takes more. What was not submitted stays
/// queued.
fn absorb(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// How often `reap` may enter again within one turn.
pub(super) const TASK_WORK_ROUNDS_MAX: u32 = ENTERS_PER_TURN_MAX;
/// Completions below which a round of task work was not cut off by the kernel's limit of twenty.
pub(super) const TASK_WORK_ROUND_FEW: usize = 16;
