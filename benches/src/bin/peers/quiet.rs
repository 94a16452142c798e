//! Was the machine quiet? The user time of programs that are not part of the comparison, and the
//! time a hypervisor took away.
//!
//! Only user time: what the kernel does in interrupts is booked differently from kernel to kernel.
//! Clock ticks are exact enough for a figure that is to be zero.

use std::fs;
use std::time::Instant;

/// Clock ticks per second of `/proc` (`USER_HZ` is 100 on every Linux).
const TICKS_PER_S: f64 = 100.0;

/// A look at the machine before a run.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Before {
    at: Instant,
    all_ticks: u64,
    server_ticks: u64,
}

impl Before {
    /// Looks now; `server` are the processes that are measured.
    pub(crate) fn look(server: &[u32]) -> Before {
        Before { at: Instant::now(), all_ticks: all_ticks(), server_ticks: ticks_of(server) }
    }

    /// What others used since, in per cent of one core. `client_ticks` is what the load generator
    /// used in the meantime.
    pub(crate) fn others_percent(&self, server: &[u32], client_ticks: u64) -> f64 {
        let all = all_ticks().saturating_sub(self.all_ticks);
        let ours = ticks_of(server).saturating_sub(self.server_ticks) + client_ticks;
        let seconds = self.at.elapsed().as_secs_f64().max(1.0 / TICKS_PER_S);
        100.0 * all.saturating_sub(ours) as f64 / TICKS_PER_S / seconds
    }
}

fn ticks_of(server: &[u32]) -> u64 {
    server.iter().map(|pid| user_ticks(*pid)).sum()
}

/// User time of a process so far, in clock ticks; 0 when it is gone.
pub(crate) fn user_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    user_in(&stat).unwrap_or(0)
}

/// Field 14 of `/proc/PID/stat`, counted from behind the name, which may contain anything.
fn user_in(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse().ok()
}

fn all_ticks() -> u64 {
    all_in(&fs::read_to_string("/proc/stat").unwrap_or_default()).unwrap_or(0)
}

/// user + nice + steal of the first line of `/proc/stat`.
fn all_in(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    Some(fields.first()? + fields.get(1)? + fields.get(7)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_time_is_found_in_both_files() {
        assert_eq!(user_in("7 (a) b) S 1 7 7 0 -1 0 1 2 3 4 55 66 7 8"), Some(55));
        assert_eq!(all_in("cpu  10 2 30 40 5 6 7 8 9 0\ncpu0 1"), Some(20));
        assert_eq!((user_in(""), all_in("cpu 1")), (None, None));
    }
}
