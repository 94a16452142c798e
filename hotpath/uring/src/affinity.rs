//! Pins the calling thread to one CPU, so that a worker's sockets, memory and caches stay together.

use std::fmt;

/// The CPUs this process may use, by number, ascending. Empty when the system does not tell.
pub fn allowed_cpus() -> Vec<usize> {
    let mut cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus
}

/// The CPU cannot be used by this process: offline, or outside its cpuset.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct CpuRefused {
    /// The CPU asked for.
    pub cpu: usize,
}

impl fmt::Display for CpuRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot pin to CPU {}: offline or not allowed to this process (see taskset -p, cpuset)",
            self.cpu
        )
    }
}

impl std::error::Error for CpuRefused {}

/// Pins the calling thread to `cpu`.
///
/// # Errors
/// [`CpuRefused`] when the kernel does not grant that CPU; the thread then runs where it did.
pub fn pin_to(cpu: usize) -> Result<(), CpuRefused> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(CpuRefused { cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_pins_to_an_allowed_cpu_and_not_to_an_absent_one() {
        let cpus = allowed_cpus();
        let last = *cpus.last().expect("a thread runs somewhere");
        std::thread::spawn(move || {
            pin_to(last).unwrap();
            assert_eq!(allowed_cpus(), [last]);
            assert_eq!(pin_to(1023), Err(CpuRefused { cpu: 1023 }));
        })
        .join()
        .unwrap();
    }
}
