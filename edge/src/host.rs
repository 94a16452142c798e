//! The host at start: the file descriptor limit is raised, the worst findings are named with their fix.
//!
//! Worst first: what contradicts this configuration, then what `tuning/knobs.tsv` calls required, then
//! one line on what it recommends. The table is that of `tuning/tune`, so both say the same and the fix is
//! a command of that tool. Reads files and nothing else; changes no host setting.

mod knobs;
mod memory;

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, IoChoice};
use knobs::{Difference, Facts, current, differences, profile_with};

/// Findings logged at start.
pub const FINDINGS_MAX: usize = 5;
/// Recommended settings named in the line about them; the tool shows the rest.
const NAMES_MAX: usize = 3;
/// Descriptors the process uses for other things than connections.
const DESCRIPTORS_OTHER: u64 = 64;

/// Descriptors kept from connections, where there are enough, for all other things and for each worker.
const DESCRIPTORS_RESERVED: usize = 256;
const DESCRIPTORS_PER_WORKER: usize = 8;

/// Something about the host that will hurt, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
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

/// Descriptors of this process that connections may use beside so many workers: what is left is for
/// listeners, the admin API, hooks, files, and those that are refused.
pub fn descriptors_for_connections(workers: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let reserve = DESCRIPTORS_RESERVED + workers.saturating_mul(DESCRIPTORS_PER_WORKER);
    limit - reserve.min(limit / 4)
}

/// The worst findings, worst first, at most [`FINDINGS_MAX`]. `root` is `/`, or a copy of it in tests.
pub fn findings(root: &Path, config: &Config, fds_max: u64) -> Vec<Finding> {
    let host = Host { root, facts: Facts::of(root) };
    let mut named = Vec::new();
    let mut found = Vec::new();
    for (key, finding) in host.against(config, fds_max) {
        named.push(key);
        found.push(finding);
    }
    let mut rest = differences(root, &host.facts, host.facts.profile());
    rest.retain(|difference| !named.contains(&difference.knob.key));
    let (required, recommended): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|difference| difference.knob.need == "required");
    found.extend(required.iter().map(|difference| host.required(difference)));
    found.extend(host.recommended(&recommended));
    found.truncate(FINDINGS_MAX);
    found
}

struct Host<'r> {
    root: &'r Path,
    facts: Facts,
}

impl Host<'_> {
    /// What contradicts the configuration, each with the knob it is about.
    fn against(&self, config: &Config, fds_max: u64) -> Vec<(&'static str, Finding)> {
        let number = |key: &str| current(self.root, key)?.parse::<u64>().ok();
        let connections = u64::from(config.limits.connections_max);
        let mut found = Vec::new();

        let key = "kernel.io_uring_disabled";
        let disabled = number(key).unwrap_or(0);
        if disabled != 0 && config.workers.io != IoChoice::Epoll {
            let what = format!("io_uring is disabled by the kernel ({key} = {disabled})");
            let fix = format!(
                "{}tuning/tune apply --profile edge-10g --with {key}, or sysctl -w {key}=0; or set \
                 workers.io = \"epoll\"",
                if self.facts.is_container { "on the host: " } else { "" }
            );
            found.push((key, Finding { what, fix }));
        }

        let needed = connections.saturating_add(DESCRIPTORS_OTHER);
        if fds_max < needed {
            let what = format!(
                "{fds_max} open files allowed, but limits.connections_max is {connections}"
            );
            let fix = self.fix("LimitNOFILE", "limits", needed, &format!("ulimit -Hn {needed}"));
            let fix = format!("{fix}; or lower limits.connections_max");
            found.push(("LimitNOFILE", Finding { what, fix }));
        }

        let (key, needed) = ("net.netfilter.nf_conntrack_max", connections.saturating_mul(2));
        if let Some(entries) = number(key).filter(|&entries| entries < needed) {
            let what = format!(
                "connection tracking holds {entries} entries, fewer than twice \
                 limits.connections_max ({needed})"
            );
            let fix = self.fix(key, "sysctl", needed, &format!("sysctl -w {key}={needed}"));
            let fix =
                format!("{fix}; or exempt the listening ports (conntrack.notrack of the tool)");
            found.push((key, Finding { what, fix }));
        }

        let (key, needed) = ("net.core.somaxconn", u64::from(config.listen.backlog));
        if let Some(backlog) = number(key).filter(|&backlog| backlog < needed) {
            let what = format!("{key} = {backlog} cuts listen.backlog = {needed}");
            let fix = self.fix(key, "sysctl", needed, &format!("sysctl -w {key}={needed}"));
            found.push((key, Finding { what, fix }));
        }
        found
    }

    /// The command of the tool that gives `key` at least `needed`, and the command by hand.
    fn fix(&self, key: &str, group: &str, needed: u64, by_hand: &str) -> String {
        let profiles: &[&'static str] =
            if self.facts.is_container { &["container"] } else { &["edge-10g", "edge-100g"] };
        match profile_with(profiles, key, needed) {
            Some(profile) => {
                format!("tuning/tune apply --profile {profile} --only {group}, or {by_hand}")
            }
            None => by_hand.to_owned(),
        }
    }

    fn required(&self, difference: &Difference) -> Finding {
        let Difference { knob, current, wanted } = difference;
        let key = knob.key;
        let quote = if wanted.contains(' ') { "\"" } else { "" };
        Finding {
            what: format!("{key} = {current}, should be {wanted}: {}", knob.why),
            fix: format!(
                "tuning/tune apply --profile {} --only sysctl, or sysctl -w {key}={quote}{wanted}{quote}",
                self.facts.profile()
            ),
        }
    }

    /// One line for all of them: none is worth a line of its own at each start.
    fn recommended(&self, differences: &[Difference]) -> Option<Finding> {
        let first = differences.first()?;
        let mut names = first.knob.key.to_owned();
        for difference in differences.iter().take(NAMES_MAX).skip(1) {
            names = names + ", " + difference.knob.key;
        }
        let more = differences.len().saturating_sub(NAMES_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(Finding {
            what: format!("recommended kernel settings differ: {names}{more}"),
            fix: format!(
                "tuning/tune check --profile {0} tells why; tuning/tune apply --profile {0} sets them",
                self.facts.profile()
            ),
        })
    }
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

pub use memory::memory_limit_bytes;

/// Memory of the host below `root` in bytes, if it tells.
pub fn memory_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests;
