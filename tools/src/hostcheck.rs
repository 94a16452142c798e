//! Compares this host with what `tuning/` recommends. Reads, never writes.
//!
//! The kernel settings come from the very file that applies them, so the two cannot drift. The rest
//! are conditions that no file of ours can set: the kernel's version, whether io_uring is allowed,
//! limits of the process.

use std::fs;
use std::path::Path;

/// The settings file, as shipped.
const SYSCTL: &str = include_str!("../../tuning/sysctl.d/60-ringcast.conf");
/// Oldest kernel that has all that is used.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Open files below which large audiences do not fit.
const OPEN_FILES_MIN: u64 = 65_536;
/// Settings for which only this value is right; for the others more is as good.
const EXACT: [&str; 3] = [
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.ip_local_port_range",
];

/// How one condition stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Name of the setting.
    pub name: String,
    /// What was found.
    pub found: String,
    /// What is recommended.
    pub wanted: String,
}

/// All differences of the host whose `/proc` is at `proc`.
pub fn differences(proc: &Path) -> Vec<Difference> {
    let mut found = sysctl_differences(proc);
    found.extend(kernel_difference(proc));
    found.extend(uring_difference(proc));
    found.extend(open_files_difference(proc));
    found
}

fn sysctl_differences(proc: &Path) -> Vec<Difference> {
    settings()
        .filter_map(|(name, wanted)| {
            let file = proc.join("sys").join(name.replace('.', "/"));
            // A setting this kernel or container does not have cannot be changed either.
            let text = fs::read_to_string(file).ok()?;
            let found = text.split_whitespace().collect::<Vec<_>>().join(" ");
            (!suffices(name, &found, wanted)).then(|| Difference {
                name: name.into(),
                found,
                wanted: wanted.into(),
            })
        })
        .collect()
}

/// Names and values of the settings file.
fn settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    SYSCTL.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim(), value.trim()))
    })
}

fn suffices(name: &str, found: &str, wanted: &str) -> bool {
    if EXACT.contains(&name) {
        return found == wanted;
    }
    // Of the triples (least, default, most) only the most bounds a busy host.
    let last = |text: &str| text.split_whitespace().last()?.parse::<u64>().ok();
    last(found) >= last(wanted)
}

fn kernel_difference(proc: &Path) -> Option<Difference> {
    let release = fs::read_to_string(proc.join("sys/kernel/osrelease")).ok()?;
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    (version < KERNEL_MIN).then(|| Difference {
        name: "kernel".into(),
        found: release.trim().into(),
        wanted: format!("{}.{} or newer (else epoll)", KERNEL_MIN.0, KERNEL_MIN.1),
    })
}

fn uring_difference(proc: &Path) -> Option<Difference> {
    // Kernels before 6.6 have no such switch.
    let text = fs::read_to_string(proc.join("sys/kernel/io_uring_disabled")).ok()?;
    (text.trim() != "0").then(|| Difference {
        name: "kernel.io_uring_disabled".into(),
        found: text.trim().into(),
        wanted: "0 (else epoll)".into(),
    })
}

fn open_files_difference(proc: &Path) -> Option<Difference> {
    let limits = fs::read_to_string(proc.join("self/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    // The soft limit is what a process starts with; the hard one is what it may raise it to.
    let hard = line.split_whitespace().nth(1)?;
    let is_low = hard.parse::<u64>().is_ok_and(|hard| hard < OPEN_FILES_MIN);
    is_low.then(|| Difference {
        name: "open files (hard limit)".into(),
        found: hard.into(),
        wanted: format!("{OPEN_FILES_MIN} or more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/proc` in which every condition is met.
    fn good_host(name: &str) -> std::path::PathBuf {
        let proc = std::env::temp_dir().join(format!("ringcast-{name}-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let file = proc.join(path);
            fs::create_dir_all(file.parent().expect("below proc")).expect("ours");
            fs::write(file, text).expect("ours");
        };
        for (name, value) in settings() {
            write(&format!("sys/{}", name.replace('.', "/")), &value.replace(' ', "\t"));
        }
        write("sys/kernel/osrelease", "6.1.0-13-amd64\n");
        write("sys/kernel/io_uring_disabled", "0\n");
        write("self/limits", "Max open files            1024         1048576      files\n");
        proc
    }

    #[test]
    fn a_tuned_host_has_no_differences() {
        let proc = good_host("tuned");
        assert!(settings().count() > 5, "the settings file is read");
        assert_eq!(differences(&proc), []);
        fs::remove_dir_all(proc).expect("ours");
    }

    #[test]
    fn each_condition_is_noticed() {
        let proc = good_host("untuned");
        for (path, text) in [
            ("sys/net/core/somaxconn", "128"),
            ("sys/net/ipv4/tcp_slow_start_after_idle", "1"),
            ("sys/net/ipv4/tcp_wmem", "4096\t16384\t65536"),
            ("sys/kernel/osrelease", "5.10.0-9"),
            ("sys/kernel/io_uring_disabled", "2"),
            ("self/limits", "Max open files            1024         4096         files\n"),
        ] {
            fs::write(proc.join(path), text).expect("ours");
        }
        let names: Vec<_> = differences(&proc).into_iter().map(|each| each.name).collect();
        let expected = [
            "net.core.somaxconn",
            "net.ipv4.tcp_wmem",
            "net.ipv4.tcp_slow_start_after_idle",
            "kernel",
            "kernel.io_uring_disabled",
            "open files (hard limit)",
        ];
        assert_eq!(names, expected);
        fs::remove_dir_all(proc).expect("ours");
    }
}
