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
    /// Open descriptors of the server; 0 where this user may not see them.
    pub(crate) fds: u64,
    pub(crate) context_switches: u64,
}

/// Looks at one server again and again.
#[derive(Debug)]
pub(crate) struct Probe {
    root: PathBuf,
    /// Processes of the server; what they use is added up.
    pids: Vec<u32>,
    metrics: Option<MetricsUrl>,
    ksoftirqd: Vec<PathBuf>,
}

impl Probe {
    /// Looks at the processes `pids` and the page `metrics`, where given.
    ///
    /// # Errors
    /// There is no such process, or the address makes no sense.
    pub(crate) fn new(pids: &[u32], metrics: Option<&str>) -> Result<Probe, String> {
        Probe::under(Path::new("/"), pids, metrics)
    }

    /// The same below another root, for tests.
    fn under(root: &Path, pids: &[u32], metrics: Option<&str>) -> Result<Probe, String> {
        let root = root.join("proc");
        let is_gone = |pid: &&u32| !root.join(pid.to_string()).join("stat").exists();
        if let Some(pid) = pids.iter().find(is_gone) {
            return Err(format!("--pid {pid}: no such process"));
        }
        let metrics = metrics.map(MetricsUrl::parse).transpose()?;
        let ksoftirqd = if pids.is_empty() { Vec::new() } else { ksoftirqd(&root) };
        Ok(Probe { root, pids: pids.to_vec(), metrics, ksoftirqd })
    }

    /// Whether there is anything to look at.
    pub(crate) fn sees_process(&self) -> bool {
        !self.pids.is_empty()
    }

    /// Whether the server is still there, as far as one can tell.
    pub(crate) fn is_alive(&self) -> bool {
        self.pids.iter().all(|pid| self.root.join(pid.to_string()).join("statm").exists())
    }

    /// The server's own metrics; empty if it does not tell.
    pub(crate) fn page(&self) -> Page {
        Page(self.metrics.as_ref().and_then(MetricsUrl::fetch).unwrap_or_default())
    }

    /// For how long each of these CPUs has been busy since the machine's start, interrupts included.
    pub(crate) fn cpus_busy_ns(&self, cpus: &[usize]) -> Vec<u64> {
        let text = fs::read_to_string(self.root.join("stat")).unwrap_or_default();
        let busy_ns = |cpu: &usize| {
            let name = format!("cpu{cpu} ");
            busy_ns(&columns_ns(text.lines().find(|line| line.starts_with(&name)).unwrap_or("")))
        };
        cpus.iter().map(busy_ns).collect()
    }

    /// Looks now. What cannot be read is zero.
    pub(crate) fn look(&self) -> Look {
        let mut look = Look { at_ns: now_ns(), ..Look::default() };
        for pid in &self.pids {
            let process = self.root.join(pid.to_string());
            look.server_cpu_ns += process_cpu_ns(&process);
            look.rss_bytes += rss_bytes(&process).unwrap_or(0);
            look.fds += fds(&process);
            look.context_switches += context_switches(&process);
        }
        look.ksoftirqd_cpu_ns = self.ksoftirqd.iter().map(|thread| thread_cpu_ns(thread)).sum();
        let text = fs::read_to_string(self.root.join("stat")).unwrap_or_default();
        let columns = columns_ns(text.lines().next().unwrap_or_default());
        look.softirq_ns = columns[SOFTIRQ];
        look.busy_ns = busy_ns(&columns);
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

fn fds(process: &Path) -> u64 {
    fs::read_dir(process.join("fd")).map_or(0, |entries| entries.count() as u64)
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

fn columns_ns(line: &str) -> [u64; COLUMNS] {
    let mut columns = [0; COLUMNS];
    for (column, field) in columns.iter_mut().zip(line.split_whitespace().skip(1)) {
        *column = field.parse::<u64>().unwrap_or(0) * TICK_NS;
    }
    columns
}

fn busy_ns(columns: &[u64; COLUMNS]) -> u64 {
    columns.iter().sum::<u64>() - columns[IDLE] - columns[IOWAIT]
}

/// The process that serves `address` on this machine: whose child nobody else is who listens there
/// too (a server with a master process works in its child). `None`: nobody, several, or not to be seen
/// by this user.
pub(crate) fn listener(address: SocketAddr) -> Option<u32> {
    let root = Path::new("/proc");
    let sockets: Vec<String> = ["net/tcp", "net/tcp6"]
        .iter()
        .flat_map(|table| listening_inodes(&root.join(table), address.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let entries = fs::read_dir(root).ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let open = fs::read_dir(root.join(format!("{pid}/fd"))).into_iter().flatten().flatten();
        let mut names = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        names.any(|name| name.to_str().is_some_and(|name| sockets.iter().any(|one| one == name)))
    };
    let holders: Vec<u32> = pids.filter(holds).collect();
    let parents: Vec<u32> = holders.iter().filter_map(|pid| parent(root, *pid)).collect();
    let mut workers = holders.iter().filter(|pid| !parents.contains(pid));
    workers.next().copied().filter(|_| workers.next().is_none())
}

/// Inodes of the sockets that listen on a port, whatever the address.
fn listening_inodes(table: &Path, port: u16) -> Vec<u64> {
    const LISTENING: &str = "0A";
    let text = fs::read_to_string(table).unwrap_or_default();
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local_port, 16).ok()? == port;
        (is_it && *fields.get(3)? == LISTENING).then(|| fields.get(9)?.parse().ok())?
    };
    text.lines().skip(1).filter_map(inode).collect()
}

fn parent(root: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(root.join(format!("{pid}/stat"))).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
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

    fn fetch(&self) -> Option<String> {
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
        head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
    }
}

/// An OpenMetrics page. Lines of chunked transfer are no metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let name_end = line.find(['{', ' ']).filter(|&end| end > 0)?;
            let values = match line.rfind('}') {
                Some(end) => &line[end + 1..],
                None => &line[name_end..],
            };
            Some((&line[..name_end], values.split_whitespace().next()?.parse().ok()?))
        })
    }

    /// Every metric, summed over its labels.
    pub(crate) fn sums(&self) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (name, value) in self.values() {
            *sums.entry(name.to_owned()).or_insert(0.0) += value;
        }
        sums
    }

    /// The largest value of a metric over its labels.
    pub(crate) fn largest(&self, name: &str) -> Option<f64> {
        self.values().filter(|(one, _)| *one == name).map(|(_, value)| value).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_can_be_looked_at() {
        let probe = Probe::new(&[std::process::id()], None).unwrap();
        let look = probe.look();
        assert!(look.rss_bytes > 100_000);
        assert!(look.server_cpu_ns > 0);
        assert!(probe.is_alive());
        assert!(Probe::new(&[u32::MAX], None).is_err());
    }

    #[test]
    fn the_process_behind_an_address_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(super::listener(address), Some(std::process::id()));
        drop(listener);
        assert_eq!(super::listener(address), None);
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
        let stat = "cpu  1 2 3 4 5 6 70 8\ncpu1 1 0 0 9 9 0 0 0\ncpu11 5 0 0 9 9 0 2 0\n";
        fs::write(root.join("proc/stat"), stat).unwrap();
        let probe = Probe::under(&root, &[7, 7], None).unwrap();
        let look = probe.look();
        assert_eq!(probe.cpus_busy_ns(&[11, 1, 2]), [7 * TICK_NS, TICK_NS, 0]);
        fs::remove_dir_all(&root).unwrap();
        // Two processes, which happen to be the same.
        assert_eq!(look.server_cpu_ns, 2 * 42 * TICK_NS);
        assert_eq!(look.rss_bytes, 2 * 100 * PAGE_BYTES);
        assert_eq!(look.context_switches, 2 * 7);
        assert_eq!(look.softirq_ns, 70 * TICK_NS);
        assert_eq!(look.busy_ns, (1 + 2 + 3 + 6 + 70 + 8) * TICK_NS);
    }

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let page =
            "# TYPE a counter\na_total{worker=\"0\"} 2\na_total{worker=\"1\"} 3.5 17\nb 1\n# EOF\n";
        let page = Page(page.to_owned());
        let sums = page.sums();
        assert_eq!((page.largest("a_total"), page.largest("a")), (Some(3.5), None));
        assert_eq!(sums["a_total"], 5.5);
        assert_eq!(sums["b"], 1.0);
        assert_eq!(sums.len(), 2);
    }
}
