//! Whether what was told to another process is that one's now: for a worker that has panicked since it told
//! it, and hears no order any more.
//!
//! ```text
//!   open ─► Awaited ─┬─ close(true)  ─► PassedOn
//!                    └─ close(false) ─► GoesOn     as before the first hand-over
//! ```

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest wait for a verdict: the offer and the answer to it may each take as long as
/// `shutdown.still_ms_max` allows at most. Only a control thread that has ended lets it pass.
const VERDICT_MAX: Duration = Duration::from_secs(2 * 60);

#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    GoesOn,
    Awaited,
    PassedOn,
}

/// How the present hand-over ends, or the last one did.
#[derive(Debug, Default)]
pub struct Verdict {
    state: Mutex<State>,
    news: Condvar,
}

impl Verdict {
    /// A hand-over begins.
    pub fn open(&self) {
        *self.lock() = State::Awaited;
    }

    /// It has ended.
    pub fn close(&self, is_passed_on: bool) {
        *self.lock() = if is_passed_on { State::PassedOn } else { State::GoesOn };
        self.news.notify_all();
    }

    /// Blocks until it has ended: true if everything is another process's now.
    pub fn wait(&self) -> bool {
        let is_awaited = |state: &mut State| *state == State::Awaited;
        let waited = self.news.wait_timeout_while(self.lock(), VERDICT_MAX, is_awaited);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == State::PassedOn
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only assignments run under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
