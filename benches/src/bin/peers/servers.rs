//! Starts and stops the servers that are compared, each pinned to one CPU on a port of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Where Debian puts the module of nginx.
const NGINX_MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
/// How long a server may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// A server given by the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) pid: u32,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Peer, String> {
        let parts: Vec<&str> = text.split(',').collect();
        let [name, url, pid] = parts[..] else { return Err("expected NAME,URL,PID".into()) };
        let pid = pid.parse().map_err(|_| format!("{pid} is no process id"))?;
        Ok(Peer { name: name.into(), url: url.into(), pid })
    }
}

/// A server that can be measured.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Ringcast { program: PathBuf, flush: String },
    Nginx,
    Running(Peer),
}

/// A server that runs. Dropping it kills what was started here.
#[derive(Debug)]
pub(crate) struct Running {
    /// Address of an application.
    pub(crate) url: String,
    /// The process that does the work.
    pub(crate) pid: u32,
    /// What was started, and its folder, which goes with it.
    child: Option<(Child, Option<tempfile::TempDir>)>,
}

impl Server {
    pub(crate) fn ringcast(program: &Path, flush: &str) -> Server {
        let is_window = flush.bytes().all(|byte| byte.is_ascii_digit());
        let unit = if is_window { " ms" } else { "" };
        let kind = Kind::Ringcast { program: program.into(), flush: flush.into() };
        Server { name: format!("ringcast {flush}{unit}"), kind }
    }

    pub(crate) fn nginx() -> Server {
        Server { name: "nginx-rtmp".into(), kind: Kind::Nginx }
    }

    pub(crate) fn running(peer: Peer) -> Server {
        Server { name: peer.name.clone(), kind: Kind::Running(peer) }
    }

    /// The flush policy does not touch ingest: one row of ours is enough.
    pub(crate) fn counts_for_fan_in(&self) -> bool {
        !matches!(&self.kind, Kind::Ringcast { flush, .. } if flush != "frame")
    }

    /// Starts it on `cpu`.
    pub(crate) fn start(&self, cpu: usize) -> Result<Running, String> {
        let started = match &self.kind {
            Kind::Ringcast { program, flush } => start_ringcast(program, flush, cpu),
            Kind::Nginx => start_nginx(cpu),
            Kind::Running(peer) => {
                Ok(Running { url: peer.url.clone(), pid: peer.pid, child: None })
            }
        };
        started.map_err(|error| format!("{}: {error}", self.name))
    }
}

impl Running {
    /// Ends it in order, and by force when it takes too long.
    pub(crate) fn stop(mut self) {
        if let Some((child, _)) = &mut self.child {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // A process that is gone already cannot be told.
            let _ = pid.map(|pid| kill_process(pid, Signal::INT));
            wait_until(|| matches!(child.try_wait(), Ok(Some(_))));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.child {
            // Fails when it has ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `program`, pinned. The pinning program becomes it, so the process id stays.
fn pinned(program: &Path, cpu: usize) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &cpu.to_string()]).arg(program).stdin(Stdio::null());
    command
}

fn start_ringcast(program: &Path, flush: &str, cpu: usize) -> Result<Running, String> {
    let mut child = pinned(program, cpu)
        .args(["--rtmp", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"])
        .args(["--http", "off", "--cpus", &cpu.to_string(), "--flush", flush])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let pid = child.id();
    let stdout = child.stdout.take();
    let mut running = Running { url: String::new(), pid, child: Some((child, None)) };
    let (sender, receiver) = channel();
    // Reads to the end, so that the server never finds its output closed.
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout.into_iter().fold(empty(), |_, out| Box::new(out)));
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if let Some(addr) = ready_address(&line) {
                // The receiver may have lost its patience.
                let _ = sender.send(addr);
            }
            line.clear();
        }
    });
    let addr = receiver.recv_timeout(PATIENCE).map_err(|_| "did not become ready".to_owned())?;
    running.url = format!("rtmp://{addr}/live");
    Ok(running)
}

fn empty() -> Box<dyn Read + Send> {
    Box::new(std::io::empty())
}

/// The RTMP address in the ready line.
fn ready_address(line: &str) -> Option<SocketAddr> {
    let fields = line.strip_prefix("ready ")?;
    fields.split_whitespace().find_map(|field| field.strip_prefix("rtmp="))?.parse().ok()
}

fn start_nginx(cpu: usize) -> Result<Running, String> {
    if !Path::new(NGINX_MODULE).exists() {
        return Err("not installed (packages nginx and libnginx-mod-rtmp)".into());
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let addr = free_address().map_err(|error| error.to_string())?;
    let config = folder.path().join("nginx.conf");
    fs::write(&config, nginx_config(folder.path(), addr)).map_err(|error| error.to_string())?;
    let child = pinned(Path::new("nginx"), cpu)
        .args(["-e", "stderr", "-p"])
        .arg(folder.path())
        .arg("-c")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("nginx: {error}"))?;
    let master = child.id();
    let url = format!("rtmp://{addr}/live");
    let mut running = Running { url, pid: master, child: Some((child, Some(folder))) };
    let mut worker = None;
    let is_up = wait_until(|| {
        worker = child_of(master);
        worker.is_some() && TcpStream::connect(addr).is_ok()
    });
    running.pid = worker.filter(|_| is_up).ok_or("nginx did not start")?;
    Ok(running)
}

/// As a user would write it: one worker, everything else by default, no log of accesses.
fn nginx_config(folder: &Path, addr: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "load_module {NGINX_MODULE};\n\
         daemon off;\n\
         worker_processes 1;\n\
         worker_rlimit_nofile 16384;\n\
         pid {folder}/nginx.pid;\n\
         error_log {folder}/error.log error;\n\
         events {{ worker_connections 8192; }}\n\
         rtmp {{\n\
         \x20   access_log off;\n\
         \x20   server {{\n\
         \x20       listen {addr};\n\
         \x20       application live {{ live on; }}\n\
         \x20   }}\n\
         }}\n"
    )
}

/// An address that was free a moment ago: nginx cannot be told to ask the kernel itself.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// A process whose parent is `parent`.
fn child_of(parent: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parent_in(&stat) == Some(parent)
    })
}

/// The parent's process id in a line of `/proc/PID/stat`; the name before it may contain anything.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Looks until it is so, for as long as patience lasts.
fn wait_until(mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if is_so() {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_name_url_and_process() {
        let peer: Peer = "srs,rtmp://127.0.0.1:1936/live,42".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.pid), ("srs", 42));
        assert!("srs,rtmp://127.0.0.1/live".parse::<Peer>().is_err());
        assert!("srs,rtmp://127.0.0.1/live,x".parse::<Peer>().is_err());
    }

    #[test]
    fn the_ready_line_tells_the_address() {
        let line = "ready rtmp=127.0.0.1:4711 rtmps=off http=off admin=127.0.0.1:1 workers=1\n";
        assert_eq!(ready_address(line), "127.0.0.1:4711".parse().ok());
        assert_eq!(ready_address("publish rtmp=127.0.0.1:4711"), None);
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("7 (a) b (c)) S 42 7 7 0"), Some(42));
        assert_eq!(parent_in("nothing"), None);
    }

    #[test]
    fn only_one_row_of_ours_counts_for_fan_in() {
        let counts = |flush| Server::ringcast(Path::new("r"), flush).counts_for_fan_in();
        assert!(counts("frame") && !counts("100") && Server::nginx().counts_for_fan_in());
    }
}
