//! Findings on hosts made of files, and the comparison with `tuning/tune`, which judges the same hosts.

use std::collections::BTreeSet;
use std::process::Command;

use super::*;

/// A host made of files.
struct Made(tempfile::TempDir);

impl Made {
    fn new(files: &[(&str, &str)]) -> Made {
        let made = Made(tempfile::tempdir().unwrap());
        made.put("proc/meminfo", "MemTotal:        2048000 kB");
        made.put("proc/sys/kernel/osrelease", "6.12.1-made");
        for (path, text) in files {
            made.put(path, text);
        }
        made
    }

    fn put(&self, path: &str, text: &str) {
        let file = self.0.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("{text}\n")).unwrap();
    }

    fn findings(&self, config: &Config, fds_max: u64) -> Vec<Finding> {
        findings(self.0.path(), config, fds_max)
    }

    /// Keys of the settings that differ, by what `tuning/tune check` says, with their fixes.
    fn told_by_the_tool(&self, need: &str, profile: &str) -> BTreeSet<String> {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning/tune");
        let output = Command::new("bash")
            .arg(tool)
            .args(["check", "--json", "--only", "sysctl", "--profile", profile, "--root"])
            .arg(self.0.path())
            .output()
            .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let items = report["items"].as_array().unwrap().iter();
        let items = items.filter(|item| item["need"] == need && item["status"] == "differs");
        items.map(|item| item["fix"].as_str().unwrap().to_owned()).collect()
    }

    /// The same by what the server says.
    fn told_by_us(&self, need: &str, profile: &str) -> BTreeSet<String> {
        let host = Host { root: self.0.path(), facts: Facts::of(self.0.path()) };
        let all = differences(self.0.path(), &host.facts, profile);
        let of_need = all.iter().filter(|difference| difference.knob.need == need);
        let by_hand = |difference: &Difference| {
            let fix = host.required(difference).fix;
            fix.split_once(", or ").unwrap().1.to_owned()
        };
        of_need.map(by_hand).collect()
    }
}

const UNTUNED: [(&str, &str); 14] = [
    ("proc/sys/net/core/somaxconn", "128"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "128"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1"),
    ("proc/sys/net/ipv4/tcp_synack_retries", "5"),
    ("proc/sys/net/core/netdev_max_backlog", "1000"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("proc/sys/net/ipv4/tcp_rmem", "8192\t131072\t33554432"),
    ("proc/sys/net/ipv4/tcp_mem", "24000\t32000\t48000"),
    ("proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "65536"),
    ("proc/sys/fs/file-max", "9223372036854775807"),
    ("proc/sys/fs/nr_open", "65536"),
];

#[test]
fn what_contradicts_the_configuration_comes_first_then_the_required_settings() {
    let host = Made::new(&UNTUNED);
    host.put("proc/sys/kernel/io_uring_disabled", "2");
    let found = host.findings(&Config::default(), 1_024);
    let named =
        ["io_uring_disabled = 2", "1024 open files", "65536 entries", "cuts listen.backlog"];
    assert_eq!(found.len(), FINDINGS_MAX);
    for (finding, name) in found.iter().zip(named) {
        assert!(finding.what.contains(name), "{finding:?}");
        assert!(finding.fix.contains("tuning/tune apply --profile edge-10g"), "{finding:?}");
    }
    assert!(found[4].what.starts_with("net.ipv4.tcp_slow_start_after_idle = 1"), "{found:?}");
    assert!(found[4].fix.ends_with("sysctl -w net.ipv4.tcp_slow_start_after_idle=0"), "{found:?}");
}

#[test]
fn what_is_merely_recommended_takes_one_line() {
    let host = Made::new(&[
        ("proc/sys/net/ipv4/tcp_mem", "24000 32000 48000"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096 16384 4194304"),
        ("proc/sys/net/ipv4/tcp_synack_retries", "5"),
        ("proc/sys/vm/swappiness", "60"),
    ]);
    let found = host.findings(&Config::default(), u64::MAX);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.ends_with("net.ipv4.tcp_mem and 1 more"), "{found:?}");
}

#[test]
fn a_host_without_faults_or_without_files_has_no_findings() {
    let host = Made::new(&[
        ("proc/sys/net/core/somaxconn", "65535"),
        ("proc/sys/kernel/io_uring_disabled", "0"),
    ]);
    assert_eq!(host.findings(&Config::default(), u64::MAX), []);
    assert_eq!(findings(Path::new("/nowhere"), &Config::default(), u64::MAX), []);
}

#[test]
fn a_larger_backlog_names_the_profile_that_has_it() {
    let host = Made::new(&[("proc/sys/net/core/somaxconn", "4096")]);
    let mut config = Config::default();
    config.listen.backlog = 65_535;
    let found = host.findings(&config, u64::MAX);
    assert!(found[0].fix.contains("--profile edge-100g --only sysctl"), "{found:?}");
}

#[test]
fn the_server_and_the_tool_say_the_same_of_the_same_host() {
    let untuned = Made::new(&UNTUNED);
    let large = Made::new(&UNTUNED);
    large.put("proc/meminfo", "MemTotal:      131072000 kB");
    large.put("sys/devices/system/node/node0/x", "");
    large.put("sys/devices/system/node/node1/x", "");
    large.put("proc/sys/kernel/numa_balancing", "1");
    large.put("proc/sys/vm/zone_reclaim_mode", "1");
    let container = Made::new(&UNTUNED);
    container.put(".dockerenv", "");
    let partly = Made::new(&UNTUNED);
    partly.put("proc/sys/net/core/somaxconn", "70000");
    partly.put("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0");
    partly.put("proc/sys/net/ipv4/ip_local_port_range", "1024\t60999");
    partly.put("proc/sys/net/ipv4/tcp_mtu_probing", "0");
    for (host, profile) in [
        (&untuned, "edge-10g"),
        (&large, "edge-10g"),
        (&large, "edge-100g"),
        (&container, "container"),
        (&partly, "edge-10g"),
        (&partly, "latency"),
        (&untuned, "dev"),
    ] {
        for need in ["required", "recommended"] {
            let (tool, us) = (host.told_by_the_tool(need, profile), host.told_by_us(need, profile));
            assert!(!tool.is_empty() || profile == "dev", "{profile}, {need}");
            assert_eq!(tool, us, "{profile}, {need}");
        }
    }
}
