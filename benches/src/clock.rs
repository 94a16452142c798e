//! The two clocks a case can be timed by.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Which clock tells what a case costs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Clock {
    /// Elapsed time.
    Wall,
    /// CPU time of the thread, the kernel's part included: for cases that talk to another thread.
    /// It does not see what the kernel's own threads (ksoftirqd) do on the thread's behalf.
    ThreadCpu,
}

impl Clock {
    /// Time since an arbitrary origin.
    pub fn now(self) -> Duration {
        let id = match self {
            Clock::Wall => ClockId::Monotonic,
            Clock::ThreadCpu => ClockId::ThreadCPUTime,
        };
        // Neither clock is ever negative.
        Duration::try_from(clock_gettime(id)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_moves_both_clocks() {
        let mut digest = crate::Digest::default();
        let cpu = Clock::ThreadCpu.now();
        let wall = Clock::Wall.now();
        while Clock::ThreadCpu.now() == cpu {
            digest.mix(1);
        }
        assert!(Clock::Wall.now() > wall, "{digest:?}");
    }
}
