//! What a run costs, read from `/proc` and, if given, from the server's metrics.
//!
//! The server's CPU is the time of its threads; what the kernel does for its sockets in the
//! background is charged to `ksoftirqd`, so the two are always read together. Both come from
//! scheduler statistics in nanoseconds; where the kernel does not keep them, from clock ticks.

use crate::num::now_ns;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nanoseconds of a clock tick of `/proc` (`USER_HZ` is 100 on every Linux).
const TICK_NS: u64 = 10_000_000;
/// Bytes of a page on the machines we run on.
const PAGE_BYTES: u64 = 4096;
/// Longest metrics page read, and longest wait for it.
const METRICS_BYTES_MAX: u64 = 4 << 20;
const METRICS_WAIT: Duration = Duration::from_millis(500);

/// CPU time of the calling thread so far, nanoseconds; 0 where the kernel does not tell.
pub(crate) fn own_thread_cpu_ns() -> u64 {
    scheduled_ns(Path::new("/proc/thread-self")).unwrap_or(0)
}

/// Time on a CPU by the scheduler's statistics of a thread.
fn scheduled_ns(thread: &Path) -> Option<u64> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The same by clock ticks, from the fields behind the name, which may contain anything.
fn ticks_ns(process: &Path) -> Option<u64> {
    let text = fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * TICK_NS)
}

/// A look at the server and the machine at one moment.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
pub(crate) struct Look {
    pub(crate) at_ns: u64,
    /// CPU time of the server's threads.
    pub(crate) server_cpu_ns: u64,
    /// CPU time of all `ksoftirqd` threads.
    pub(crate) ksoftirqd_cpu_ns: u64,
    /// Time of the machine in software interrupts, wherever they ran.
    pub(crate) softirq_ns: u64,
    /// Time of the machine's CPUs that was not idle.
    pub(crate) busy_ns: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) context_switches: u64,
}

/// Looks at one server again and again.
#[derive(Debug)]
pub(crate) struct Probe {
    root: PathBuf,
    pid: Option<u32>,
    metrics: Option<MetricsUrl>,
    ksoftirqd: Vec<PathBuf>,
}

impl Probe {
    /// Looks at the process `pid` and the page `metrics`, where given.
    ///
    /// # Errors
    /// There is no such process, or the address makes no sense.
    pub(crate) fn new(pid: Option<u32>, metrics: Option<&str>) -> Result<Probe, String> {
        Probe::under(Path::new("/"), pid, metrics)
    }

    /// The same below another root, for tests.
    fn under(root: &Path, pid: Option<u32>, metrics: Option<&str>) -> Result<Probe, String> {
        let root = root.join("proc");
        if let Some(pid) = pid
            && !root.join(pid.to_string()).join("stat").exists()
        {
            return Err(format!("--pid {pid}: no such process"));
        }
        let metrics = metrics.map(MetricsUrl::parse).transpose()?;
        let ksoftirqd = if pid.is_some() { ksoftirqd(&root) } else { Vec::new() };
        Ok(Probe { root, pid, metrics, ksoftirqd })
    }

    /// Whether there is anything to look at.
    pub(crate) fn sees_process(&self) -> bool {
        self.pid.is_some()
    }

    /// Whether the server is still there, as far as one can tell.
    pub(crate) fn is_alive(&self) -> bool {
        self.pid.is_none_or(|pid| self.root.join(pid.to_string()).join("statm").exists())
    }

    /// The server's own counters, summed over their labels; empty if it does not tell.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        self.metrics.as_ref().and_then(MetricsUrl::fetch).unwrap_or_default()
    }

    /// Looks now. What cannot be read is zero.
    pub(crate) fn look(&self) -> Look {
        let mut look = Look { at_ns: now_ns(), ..Look::default() };
        if let Some(pid) = self.pid {
            let process = self.root.join(pid.to_string());
            look.server_cpu_ns = process_cpu_ns(&process);
            look.rss_bytes = rss_bytes(&process).unwrap_or(0);
            look.context_switches = context_switches(&process);
            look.ksoftirqd_cpu_ns = self.ksoftirqd.iter().map(|thread| thread_cpu_ns(thread)).sum();
        }
        let columns = machine_ns(&self.root);
        look.softirq_ns = columns[SOFTIRQ];
        look.busy_ns = columns.iter().sum::<u64>() - columns[IDLE] - columns[IOWAIT];
        look
    }
}

/// Threads that have ended are not counted: servers keep theirs.
fn process_cpu_ns(process: &Path) -> u64 {
    let by_scheduler: u64 = threads(process).iter().filter_map(|thread| scheduled_ns(thread)).sum();
    if by_scheduler > 0 { by_scheduler } else { ticks_ns(process).unwrap_or(0) }
}

fn thread_cpu_ns(thread: &Path) -> u64 {
    scheduled_ns(thread).or_else(|| ticks_ns(thread)).unwrap_or(0)
}

fn threads(process: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(process.join("task")) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn ksoftirqd(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let is_one = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
    };
    entries.flatten().map(|entry| entry.path()).filter(is_one).collect()
}

fn rss_bytes(process: &Path) -> Option<u64> {
    let text = fs::read_to_string(process.join("statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

fn context_switches(process: &Path) -> u64 {
    let of_thread = |thread: &PathBuf| -> u64 {
        let text = fs::read_to_string(thread.join("status")).unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains("ctxt_switches:"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    threads(process).iter().map(of_thread).sum()
}

/// Columns of the machine's `cpu` line: user, nice, system, idle, iowait, irq, softirq, steal.
const COLUMNS: usize = 8;
const IDLE: usize = 3;
const IOWAIT: usize = 4;
const SOFTIRQ: usize = 6;

fn machine_ns(root: &Path) -> [u64; COLUMNS] {
    let text = fs::read_to_string(root.join("stat")).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let mut columns = [0; COLUMNS];
    for (column, field) in columns.iter_mut().zip(line.split_whitespace().skip(1)) {
        *column = field.parse::<u64>().unwrap_or(0) * TICK_NS;
    }
    columns
}

#[derive(Clone, Debug)]
struct MetricsUrl {
    authority: String,
    address: SocketAddr,
    path: String,
}

impl MetricsUrl {
    fn parse(url: &str) -> Result<MetricsUrl, String> {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
        let found =
            authority.to_socket_addrs().map_err(|error| format!("--metrics {url}: {error}"));
        let address = found?.next().ok_or_else(|| format!("--metrics {url}: no address"))?;
        Ok(MetricsUrl { authority: authority.into(), address, path: format!("/{path}") })
    }

    fn fetch(&self) -> Option<BTreeMap<String, f64>> {
        let mut stream = TcpStream::connect_timeout(&self.address, METRICS_WAIT).ok()?;
        stream.set_read_timeout(Some(METRICS_WAIT)).ok()?;
        stream.set_write_timeout(Some(METRICS_WAIT)).ok()?;
        let (path, host) = (&self.path, &self.authority);
        let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.take(METRICS_BYTES_MAX).read_to_end(&mut answer).ok()?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n")?;
        head.lines().next()?.contains(" 200 ").then(|| sums(body))
    }
}

/// Sums of an OpenMetrics page over all labels. Lines of chunked transfer are no metrics.
fn sums(page: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name_end = line.find(['{', ' ']).unwrap_or(line.len());
        let values = match line.rfind('}') {
            Some(end) => &line[end + 1..],
            None => &line[name_end..],
        };
        let value = values.split_whitespace().next().and_then(|value| value.parse::<f64>().ok());
        if let (Some(value), true) = (value, name_end > 0) {
            *sums.entry(line[..name_end].to_owned()).or_insert(0.0) += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_can_be_looked_at() {
        let probe = Probe::new(Some(std::process::id()), None).unwrap();
        let look = probe.look();
        assert!(look.rss_bytes > 100_000);
        assert!(look.server_cpu_ns > 0);
        assert!(probe.is_alive());
        assert!(Probe::new(Some(u32::MAX), None).is_err());
    }

    #[test]
    fn fields_behind_any_process_name_are_found() {
        let root = std::env::temp_dir().join(format!("swarm-probe-{}", std::process::id()));
        let process = root.join("proc/7");
        fs::create_dir_all(process.join("task/7")).unwrap();
        fs::write(process.join("stat"), "7 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 12 30 0 0").unwrap();
        fs::write(process.join("statm"), "900 100 5 1 0 20 0").unwrap();
        let switches = "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n";
        fs::write(process.join("task/7/status"), switches).unwrap();
        fs::write(root.join("proc/stat"), "cpu  1 2 3 4 5 6 70 8\n").unwrap();
        let look = Probe::under(&root, Some(7), None).unwrap().look();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(look.server_cpu_ns, 42 * TICK_NS);
        assert_eq!(look.rss_bytes, 100 * PAGE_BYTES);
        assert_eq!(look.context_switches, 7);
        assert_eq!(look.softirq_ns, 70 * TICK_NS);
        assert_eq!(look.busy_ns, (1 + 2 + 3 + 6 + 70 + 8) * TICK_NS);
    }

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let page =
            "# TYPE a counter\na_total{worker=\"0\"} 2\na_total{worker=\"1\"} 3.5 17\nb 1\n# EOF\n";
        let sums = sums(page);
        assert_eq!(sums["a_total"], 5.5);
        assert_eq!(sums["b"], 1.0);
        assert_eq!(sums.len(), 2);
    }
}
