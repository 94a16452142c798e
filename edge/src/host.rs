//! The host at start: the file descriptor limit is raised, the worst findings are named with their fix.
//!
//! Reads `/proc` and nothing else; changes no host setting. The full report is the tuning tool's business.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, IoChoice};

/// Findings logged at start.
pub const FINDINGS_MAX: usize = 3;

/// Something about the host that will hurt, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was found.
    pub what: String,
    /// The exact fix.
    pub fix: String,
}

/// Raises the soft limit of open files to the hard one and returns it; no limit is `u64::MAX`.
pub fn raise_file_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        limit.maximum.unwrap_or(u64::MAX)
    } else {
        limit.current.unwrap_or(u64::MAX)
    }
}

/// The worst findings, worst first, at most [`FINDINGS_MAX`]. `root` is `/`, or a copy of it in tests.
pub fn findings(root: &Path, config: &Config, fds_max: u64) -> Vec<Finding> {
    let number = |path: &str| -> Option<u64> {
        let text = fs::read_to_string(root.join("proc/sys").join(path)).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let connections = u64::from(config.limits.connections_max);
    let mut found = Vec::new();
    let mut add = |bad: bool, what: String, fix: &str| {
        if bad && found.len() < FINDINGS_MAX {
            found.push(Finding { what, fix: fix.to_owned() });
        }
    };

    let disabled = number("kernel/io_uring_disabled").unwrap_or(0);
    add(
        disabled != 0 && config.workers.io != IoChoice::Epoll,
        format!("io_uring is disabled by the kernel (kernel.io_uring_disabled = {disabled})"),
        "sysctl -w kernel.io_uring_disabled=0, or set workers.io = \"epoll\"",
    );
    add(
        fds_max < connections.saturating_add(64),
        format!("{fds_max} open files allowed, but limits.connections_max is {connections}"),
        "raise the hard limit (LimitNOFILE= in the unit, ulimit -Hn) or lower limits.connections_max",
    );
    let conntrack = number("net/netfilter/nf_conntrack_max");
    add(
        conntrack.is_some_and(|max| max < 2 * connections),
        format!(
            "connection tracking holds {} entries, fewer than twice limits.connections_max",
            conntrack.unwrap_or(0)
        ),
        "exempt the listening ports (notrack) or raise net.netfilter.nf_conntrack_max",
    );
    let somaxconn = number("net/core/somaxconn").unwrap_or(u64::MAX);
    let backlog = u64::from(config.listen.backlog);
    add(
        somaxconn < backlog,
        format!("net.core.somaxconn = {somaxconn} cuts listen.backlog = {backlog}"),
        "sysctl -w net.core.somaxconn=65535",
    );
    add(
        number("net/ipv4/tcp_slow_start_after_idle") == Some(1),
        "connections restart slowly after each pause (net.ipv4.tcp_slow_start_after_idle = 1)"
            .into(),
        "sysctl -w net.ipv4.tcp_slow_start_after_idle=0",
    );
    found
}

/// Resident memory of this process in bytes; 0 if unknown.
pub fn resident_bytes() -> u64 {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return 0 };
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_findings_come_first_and_only_three() {
        let root = tempfile::tempdir().unwrap();
        for (path, value) in [
            ("kernel/io_uring_disabled", "2\n"),
            ("net/netfilter/nf_conntrack_max", "1000\n"),
            ("net/core/somaxconn", "128\n"),
            ("net/ipv4/tcp_slow_start_after_idle", "1\n"),
        ] {
            let file = root.path().join("proc/sys").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, value).unwrap();
        }
        let found = findings(root.path(), &Config::default(), 1_024);
        let named = ["io_uring_disabled = 2", "1024 open files", "1000 entries"];
        assert_eq!(found.len(), named.len());
        for (finding, name) in found.iter().zip(named) {
            assert!(finding.what.contains(name), "{finding:?}");
        }
        assert_eq!(findings(Path::new("/nowhere"), &Config::default(), u64::MAX), []);
    }
}
