//! What the kernel granted: each feature on, off or refused, with the reason and the remedy.
//!
//! Filled while an `Io` opens, read by the log line at start and by the host check. Never consulted
//! on the hot path: the decisions it records are taken once.

use std::fmt;
use std::io;

/// Which implementation serves.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Backend {
    /// io_uring.
    Uring,
    /// epoll and plain calls.
    Epoll,
    /// The simulated network.
    Sim,
}

impl Backend {
    /// The word of the configuration, the ready line and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Uring => "uring",
            Backend::Epoll => "epoll",
            Backend::Sim => "sim",
        }
    }
}

/// How one feature stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FeatureState {
    /// In use.
    On,
    /// Not in use, by our choice or because this backend has no need of it.
    Off {
        /// Why.
        reason: &'static str,
    },
    /// Wanted, and the kernel said no.
    Refused {
        /// What the kernel answered.
        errno: i32,
        /// The likely cause.
        reason: &'static str,
        /// What the operator can do about it.
        fix: &'static str,
    },
}

/// One feature of the kernel and how it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Short name, stable: a metrics label.
    pub name: &'static str,
    /// The Linux version that brought it.
    pub since: &'static str,
    /// On, off or refused.
    pub state: FeatureState,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            FeatureState::On => write!(f, "{}: on", self.name),
            FeatureState::Off { reason } => write!(f, "{}: off ({reason})", self.name),
            FeatureState::Refused { errno, reason, fix } => {
                write!(f, "{}: refused with errno {errno} ({reason}); {fix}", self.name)
            }
        }
    }
}

/// The backend and everything that was asked of the kernel for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Features {
    /// Which implementation serves.
    pub backend: Backend,
    /// In the order they were asked for.
    pub list: Vec<Feature>,
}

impl Features {
    pub(crate) fn new(backend: Backend) -> Features {
        Features { backend, list: Vec::new() }
    }

    pub(crate) fn push(&mut self, name: &'static str, since: &'static str, state: FeatureState) {
        self.list.push(Feature { name, since, state });
    }

    /// The state of the feature called `name`, if it was asked for.
    pub fn state(&self, name: &str) -> Option<&FeatureState> {
        self.list.iter().find(|feature| feature.name == name).map(|feature| &feature.state)
    }

    /// Whether the feature called `name` is in use.
    pub fn is_on(&self, name: &str) -> bool {
        self.state(name) == Some(&FeatureState::On)
    }
}

/// Why a backend could not be opened, in words an operator can act on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenError {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel answered; 0 when it was not asked.
    pub errno: i32,
    /// The likely cause.
    pub reason: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

impl OpenError {
    pub(crate) fn from_kernel(step: &'static str, error: &io::Error) -> OpenError {
        let errno = error.raw_os_error().unwrap_or(0);
        let (reason, fix) = explain(errno, io_uring_disabled());
        OpenError { step, errno, reason, fix }
    }

    pub(crate) fn too_old(reason: &'static str) -> OpenError {
        let fix = "run Linux 6.1 or later, or set io = \"epoll\"";
        OpenError { step: "probe the kernel", errno: 0, reason, fix }
    }

    pub(crate) fn misconfigured(reason: &'static str) -> OpenError {
        let fix = "correct the size in the configuration";
        OpenError { step: "check the sizes", errno: libc::EINVAL, reason, fix }
    }

    pub(crate) fn into_state(self) -> FeatureState {
        FeatureState::Refused { errno: self.errno, reason: self.reason, fix: self.fix }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.step, self.reason)?;
        if self.errno != 0 {
            write!(f, " (errno {})", self.errno)?;
        }
        write!(f, "; {}", self.fix)
    }
}

impl std::error::Error for OpenError {}

/// The sysctl that forbids io_uring: 0 allows it, 1 restricts it to a group, 2 forbids it. `None`
/// on kernels before 6.6, which have no such switch.
fn io_uring_disabled() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

/// The likely cause of an errno and its remedy, given the sysctl's value.
fn explain(errno: i32, disabled: Option<u8>) -> (&'static str, &'static str) {
    match (errno, disabled) {
        (libc::EPERM, Some(2)) => (
            "the sysctl kernel.io_uring_disabled is 2",
            "sysctl -w kernel.io_uring_disabled=0, or set io = \"epoll\"",
        ),
        (libc::EPERM, Some(1)) => (
            "the sysctl kernel.io_uring_disabled is 1 and this process is not in its group",
            "add the process to the group named by kernel.io_uring_group, or set the sysctl to 0",
        ),
        (libc::EPERM | libc::EACCES, _) => (
            "a security policy forbids it, most likely the container's seccomp profile",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the profile",
        ),
        (libc::ENOSYS, _) => (
            "the kernel has no io_uring, or a seccomp profile hides it",
            "run Linux 6.1 or later, and allow the three io_uring calls in the profile",
        ),
        (libc::ENOMEM, _) => (
            "not enough memory, or the limit of locked memory is too low",
            "raise LimitMEMLOCK (ulimit -l), or lower entries",
        ),
        (libc::EMFILE | libc::ENFILE, _) => (
            "too many open descriptors",
            "raise LimitNOFILE (ulimit -n), or fs.file-max for the whole system",
        ),
        (libc::EINVAL, _) => {
            ("this kernel does not know what was asked for", "run Linux 6.1 or later")
        }
        _ => ("not a refusal we know", "see the errno"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_forbidding_io_uring_is_told_apart() {
        let cases = [
            (libc::EPERM, Some(2), "kernel.io_uring_disabled is 2"),
            (libc::EPERM, Some(1), "is not in its group"),
            (libc::EPERM, Some(0), "seccomp"),
            (libc::EPERM, None, "seccomp"),
            (libc::ENOSYS, None, "hides it"),
            (libc::ENOMEM, Some(0), "locked memory"),
        ];
        for (errno, disabled, expected) in cases {
            let (reason, fix) = explain(errno, disabled);
            assert!(reason.contains(expected), "errno {errno}, sysctl {disabled:?}: {reason}");
            assert!(!fix.is_empty());
        }
    }

    #[test]
    fn an_error_reads_as_cause_and_remedy() {
        let error = io::Error::from_raw_os_error(libc::ENOMEM);
        let text = OpenError::from_kernel("set up a ring", &error).to_string();
        assert!(text.starts_with("cannot set up a ring: not enough memory"), "{text}");
        assert!(text.ends_with("or lower entries"), "{text}");
    }
}
