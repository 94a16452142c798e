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

use crate::certificate;

/// Where Debian puts the modules of nginx, and the packages they are in.
const RTMP_MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
const PACKAGES: &str = "packages nginx, libnginx-mod-rtmp, libnginx-mod-stream";
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
    Ringcast(Ringcast),
    Nginx,
    /// nginx-rtmp, its own TLS proxy in front of it, in the same process.
    NginxTls,
    /// The TLS proxy of nginx in front of Ringcast.
    NginxBefore(Ringcast),
    Running(Peer),
    /// nginx with the files of a folder.
    NginxFiles(PathBuf),
}

/// How Ringcast is started.
#[derive(Clone, Debug)]
pub(crate) struct Ringcast {
    pub(crate) program: PathBuf,
    pub(crate) flush: String,
    /// Of its workers, one each; empty: one worker on the CPU of all servers.
    pub(crate) cpus: Vec<usize>,
    /// `tls.kernel` where RTMPS is measured.
    pub(crate) tls: Option<&'static str>,
    /// Whether viewers' HTTP is served.
    pub(crate) http: bool,
    /// Settings, by the names of their variables.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

/// A server that runs. Dropping it kills what was started here.
#[derive(Debug)]
pub(crate) struct Running {
    /// Address of an application.
    pub(crate) url: String,
    /// The processes that do the work.
    pub(crate) pids: Vec<u32>,
    /// Page of its own counters, of Ringcast.
    pub(crate) metrics: Option<String>,
    /// Address of its HTTP, without a path.
    pub(crate) http: Option<String>,
    /// What was started, and its folders, which go with it.
    children: Vec<(Child, Option<tempfile::TempDir>)>,
}

impl Ringcast {
    pub(crate) fn new(program: &Path, flush: &str) -> Ringcast {
        Ringcast {
            program: program.into(),
            flush: flush.into(),
            cpus: Vec::new(),
            tls: None,
            http: false,
            settings: Vec::new(),
        }
    }
}

impl Server {
    pub(crate) fn ringcast(program: &Path, flush: &str) -> Server {
        let is_window = flush.bytes().all(|byte| byte.is_ascii_digit());
        let unit = if is_window { " ms" } else { "" };
        let kind = Kind::Ringcast(Ringcast::new(program, flush));
        Server { name: format!("ringcast {flush}{unit}"), kind }
    }

    /// With one worker on each of these CPUs.
    pub(crate) fn ringcast_on(program: &Path, flush: &str, cpus: &[usize]) -> Server {
        let (workers, s) = (cpus.len(), if cpus.len() == 1 { "" } else { "s" });
        let ringcast = Ringcast { cpus: cpus.to_vec(), ..Ringcast::new(program, flush) };
        Server { name: format!("ringcast {workers} worker{s}"), kind: Kind::Ringcast(ringcast) }
    }

    /// With RTMPS; `kernel` is its setting of that name.
    pub(crate) fn ringcast_tls(program: &Path, flush: &str, kernel: &'static str) -> Server {
        let records = if kernel == "off" { "user space" } else { "kTLS" };
        let ringcast = Ringcast { tls: Some(kernel), ..Ringcast::new(program, flush) };
        Server { name: format!("ringcast rtmps {records}"), kind: Kind::Ringcast(ringcast) }
    }

    /// With viewers' HTTP and these settings.
    pub(crate) fn ringcast_http(
        program: &Path,
        flush: &str,
        settings: &[(&'static str, &'static str)],
    ) -> Server {
        let mut server = Server::ringcast(program, flush);
        if let Kind::Ringcast(ringcast) = &mut server.kind {
            (ringcast.http, ringcast.settings) = (true, settings.to_vec());
        }
        server
    }

    /// nginx as a server of files.
    pub(crate) fn nginx_files(folder: &Path) -> Server {
        Server { name: "nginx files".into(), kind: Kind::NginxFiles(folder.into()) }
    }

    pub(crate) fn nginx() -> Server {
        Server { name: "nginx-rtmp".into(), kind: Kind::Nginx }
    }

    pub(crate) fn nginx_tls() -> Server {
        Server { name: "nginx TLS + nginx-rtmp".into(), kind: Kind::NginxTls }
    }

    pub(crate) fn nginx_before_ringcast(program: &Path, flush: &str) -> Server {
        let kind = Kind::NginxBefore(Ringcast::new(program, flush));
        Server { name: "nginx TLS + ringcast".into(), kind }
    }

    pub(crate) fn running(peer: Peer) -> Server {
        Server { name: peer.name.clone(), kind: Kind::Running(peer) }
    }

    /// The flush policy does not touch ingest: one row of ours is enough.
    pub(crate) fn counts_for_fan_in(&self) -> bool {
        !matches!(&self.kind, Kind::Ringcast(ringcast) if ringcast.flush != "frame")
    }

    /// Whether it is started and stopped here.
    pub(crate) fn is_started_here(&self) -> bool {
        !matches!(self.kind, Kind::Running(_))
    }

    /// CPUs of its workers, where they are not the one of all servers.
    pub(crate) fn worker_cpus(&self) -> &[usize] {
        match &self.kind {
            Kind::Ringcast(ringcast) => &ringcast.cpus,
            _ => &[],
        }
    }

    /// Whether it is a running server with TLS: it has a place among the rows of TLS only.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(&self.kind, Kind::Running(peer) if peer.url.starts_with("rtmps:"))
    }

    /// Starts it on `cpu`.
    pub(crate) fn start(&self, cpu: usize) -> Result<Running, String> {
        let started = match &self.kind {
            Kind::Ringcast(ringcast) => start_ringcast(ringcast, cpu),
            Kind::Nginx => start_nginx(cpu, &|folder, addr| nginx_rtmp(folder, addr, None)),
            Kind::NginxTls => start_nginx_tls(cpu, &|folder, addr| {
                let inside = free_address().map_err(|error| error.to_string())?;
                nginx_rtmp(folder, inside, Some(addr))
            }),
            Kind::NginxBefore(ringcast) => start_before(ringcast, cpu),
            Kind::NginxFiles(files) => start_nginx(cpu, &|folder, addr| {
                Ok(nginx_head(folder, &[])? + &nginx_http(folder, addr, files))
            })
            .map(|mut running| {
                running.http = running.url_of_http();
                running
            }),
            Kind::Running(peer) => Ok(Running {
                url: peer.url.clone(),
                pids: vec![peer.pid],
                metrics: None,
                http: None,
                children: Vec::new(),
            }),
        };
        started.map_err(|error| format!("{}: {error}", self.name))
    }
}

impl Running {
    /// The address it listens at, as one of HTTP.
    fn url_of_http(&self) -> Option<String> {
        let address = self.url.strip_prefix("rtmp://")?.split('/').next()?;
        Some(format!("http://{address}"))
    }

    /// Ends it in order, and by force when it takes too long.
    pub(crate) fn stop(mut self) {
        for (child, _) in &mut self.children {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // A process that is gone already cannot be told.
            let _ = pid.map(|pid| kill_process(pid, Signal::INT));
        }
        let is_over = |(child, _): &mut (Child, _)| matches!(child.try_wait(), Ok(Some(_)));
        wait_until(|| self.children.iter_mut().all(is_over));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            // Fails when it has ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `program`, pinned. The pinning program becomes it, so the process id stays.
fn pinned(program: &Path, cpus: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", cpus]).arg(program).stdin(Stdio::null());
    command
}

fn start_ringcast(ringcast: &Ringcast, cpu: usize) -> Result<Running, String> {
    let cpus = if ringcast.cpus.is_empty() { vec![cpu] } else { ringcast.cpus.clone() };
    let list = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut command = pinned(&ringcast.program, &list);
    command
        .args(["--rtmp", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--http", if ringcast.http { "127.0.0.1:0" } else { "off" }])
        .envs(ringcast.settings.iter().copied())
        .args(["--workers", &cpus.len().to_string(), "--cpus", &list, "--flush", &ringcast.flush])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let folder = match ringcast.tls {
        Some(kernel) => {
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            certificate::write(folder.path(), "default")?;
            command.args(["--rtmps", "127.0.0.1:0", "--tls-dir"]).arg(folder.path());
            command.env("RINGCAST_TLS_KERNEL", kernel);
            Some(folder)
        }
        None => None,
    };
    let spawned = command.spawn();
    let mut child = spawned.map_err(|error| format!("{}: {error}", ringcast.program.display()))?;
    let pid = child.id();
    let stdout = child.stdout.take();
    let children = vec![(child, folder)];
    let mut running =
        Running { url: String::new(), pids: vec![pid], metrics: None, http: None, children };
    let (sender, receiver) = channel();
    // Reads to the end, so that the server never finds its output closed.
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout.into_iter().fold(empty(), |_, out| Box::new(out)));
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if line.starts_with("ready ") {
                // The receiver may have lost its patience.
                let _ = sender.send(line.clone());
            }
            line.clear();
        }
    });
    let ready = receiver.recv_timeout(PATIENCE).map_err(|_| "did not become ready".to_owned())?;
    let (scheme, field) = match ringcast.tls {
        Some(_) => ("rtmps", "rtmps="),
        None => ("rtmp", "rtmp="),
    };
    let addr = ready_address(&ready, field).ok_or_else(|| format!("does not serve {scheme}"))?;
    running.url = format!("{scheme}://{addr}/live");
    if ringcast.http {
        let addr = ready_address(&ready, "http=").ok_or("does not serve http")?;
        running.http = Some(format!("http://{addr}"));
    }
    let admin = ready_address(&ready, "admin=");
    running.metrics = admin.map(|admin| format!("http://{admin}/metrics"));
    Ok(running)
}

fn empty() -> Box<dyn Read + Send> {
    Box::new(std::io::empty())
}

/// An address in the ready line.
fn ready_address(line: &str, field: &str) -> Option<SocketAddr> {
    let fields = line.strip_prefix("ready ")?;
    fields.split_whitespace().find_map(|one| one.strip_prefix(field))?.parse().ok()
}

/// Makes the configuration below a folder for a server at an address.
type Configure<'c> = &'c dyn Fn(&Path, SocketAddr) -> Result<String, String>;

fn start_nginx(cpu: usize, configure: Configure<'_>) -> Result<Running, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let addr = free_address().map_err(|error| error.to_string())?;
    let config = folder.path().join("nginx.conf");
    let text = configure(folder.path(), addr)?;
    fs::write(&config, text).map_err(|error| error.to_string())?;
    let child = pinned(Path::new("nginx"), &cpu.to_string())
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
    let children = vec![(child, Some(folder))];
    let mut running = Running { url, pids: Vec::new(), metrics: None, http: None, children };
    let mut worker = None;
    let is_up = wait_until(|| {
        worker = child_of(master);
        worker.is_some() && TcpStream::connect(addr).is_ok()
    });
    running.pids.push(worker.filter(|_| is_up).ok_or("nginx did not start")?);
    Ok(running)
}

fn start_nginx_tls(cpu: usize, configure: Configure<'_>) -> Result<Running, String> {
    let mut running = start_nginx(cpu, configure)?;
    running.url = running.url.replacen("rtmp:", "rtmps:", 1);
    Ok(running)
}

/// Ringcast, and nginx as its TLS proxy on the same CPU.
fn start_before(ringcast: &Ringcast, cpu: usize) -> Result<Running, String> {
    let mut inside = start_ringcast(ringcast, cpu)?;
    let rest = inside.url.strip_prefix("rtmp://").and_then(|rest| rest.strip_suffix("/live"));
    let to: SocketAddr = rest.and_then(|addr| addr.parse().ok()).ok_or("has no address")?;
    let mut front = start_nginx_tls(cpu, &|folder, addr| {
        Ok(nginx_head(folder, &[STREAM_MODULE])? + &nginx_stream(folder, addr, to)?)
    })?;
    front.pids.append(&mut inside.pids);
    front.children.append(&mut inside.children);
    Ok(front)
}

/// What all configurations begin with: one worker, everything else by default.
fn nginx_head(folder: &Path, modules: &[&str]) -> Result<String, String> {
    let mut text = String::new();
    for module in modules {
        if !Path::new(module).exists() {
            return Err(format!("{module} is not installed ({PACKAGES})"));
        }
        text = text + "load_module " + module + ";\n";
    }
    let folder = folder.display();
    Ok(format!(
        "{text}\
         daemon off;\n\
         worker_processes 1;\n\
         worker_rlimit_nofile 16384;\n\
         pid {folder}/nginx.pid;\n\
         error_log {folder}/error.log error;\n\
         events {{ worker_connections 16384; }}\n"
    ))
}

/// nginx-rtmp at `addr` as a user would write it, without a log of accesses; with a TLS proxy of the
/// same process in front of it where `tls` is given.
fn nginx_rtmp(folder: &Path, addr: SocketAddr, tls: Option<SocketAddr>) -> Result<String, String> {
    let modules: &[&str] =
        if tls.is_some() { &[RTMP_MODULE, STREAM_MODULE] } else { &[RTMP_MODULE] };
    let mut text = nginx_head(folder, modules)?;
    text += &format!(
        "rtmp {{\n\
         \x20   access_log off;\n\
         \x20   server {{\n\
         \x20       listen {addr};\n\
         \x20       application live {{ live on; }}\n\
         \x20   }}\n\
         }}\n"
    );
    if let Some(tls) = tls {
        text += &nginx_stream(folder, tls, addr)?;
    }
    Ok(text)
}

/// Files of a folder at `addr`, as Debian configures it, without a log of accesses. Connections stay as
/// long as the client wants them, as they do at Ringcast.
fn nginx_http(folder: &Path, addr: SocketAddr, files: &Path) -> String {
    let (folder, files) = (folder.display(), files.display());
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String =
        kinds.iter().map(|kind| format!("\x20   {kind}_temp_path {folder}/{kind};\n")).collect();
    format!(
        "http {{\n\
         {temporary}\
         \x20   access_log off;\n\
         \x20   sendfile on;\n\
         \x20   tcp_nopush on;\n\
         \x20   keepalive_requests 100000000;\n\
         \x20   types {{ video/mp2t ts; application/vnd.apple.mpegurl m3u8; }}\n\
         \x20   server {{ listen {addr}; root {files}; }}\n\
         }}\n"
    )
}

/// TLS at `addr` for what listens in the clear at `to`.
fn nginx_stream(folder: &Path, addr: SocketAddr, to: SocketAddr) -> Result<String, String> {
    certificate::write(folder, "default")?;
    let folder = folder.display();
    Ok(format!(
        "stream {{\n\
         \x20   server {{\n\
         \x20       listen {addr} ssl;\n\
         \x20       ssl_certificate {folder}/default.crt;\n\
         \x20       ssl_certificate_key {folder}/default.key;\n\
         \x20       ssl_protocols TLSv1.2 TLSv1.3;\n\
         \x20       proxy_pass {to};\n\
         \x20   }}\n\
         }}\n"
    ))
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
        assert_eq!(ready_address(line, "rtmp="), "127.0.0.1:4711".parse().ok());
        assert_eq!(ready_address(line, "rtmps="), None);
        assert_eq!(ready_address("publish rtmp=127.0.0.1:4711", "rtmp="), None);
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
