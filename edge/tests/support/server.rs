//! One `ringcast` process with ports of the kernel's choosing, its log, its metrics and its end.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;

/// Workers that stand still do so for as long as it takes: what is judged is that nobody misses anything.
const PATIENT_STILL: (&str, &str) = ("RINGCAST_SHUTDOWN_STILL_MS_MAX", "20000");

/// On which kernel interface and with how many workers a test runs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct How {
    pub io: &'static str,
    pub workers: u16,
}

/// Both kernel interfaces with each number of workers; without io_uring where the kernel refuses it.
pub fn matrix(workers: &[u16]) -> Vec<How> {
    let ios: &[&'static str] = if has_uring() { &["uring", "epoll"] } else { &["epoll"] };
    ios.iter().flat_map(|&io| workers.iter().map(move |&workers| How { io, workers })).collect()
}

fn has_uring() -> bool {
    static HAS_URING: OnceLock<bool> = OnceLock::new();
    *HAS_URING.get_or_init(|| match uring::Uring::<ring::Lease>::open(uring::IoConfig::default()) {
        Ok(_) => true,
        Err(refusal) => {
            println!("io_uring is refused here, epoll only: {refusal}");
            false
        }
    })
}

/// A running server. Dropping it kills it; in a failing test its log is printed.
pub struct Server {
    child: Child,
    /// Who serves now: the child, or who has taken over from it.
    pub pid: u32,
    pub rtmp: SocketAddr,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    dir: TempDir,
}

impl Server {
    /// Starts a server and waits for its ready line. `settings` is TOML.
    pub fn start(how: How, settings: &str) -> Self {
        Self::start_at("127.0.0.1", how, settings, |_| {})
    }

    /// Starts a server that listens on `ip`, after `prepare` has changed the command.
    pub fn start_at(
        ip: &str,
        how: How,
        settings: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
        command.stdin(Stdio::null());
        Self::launch_at(ip, command, how, settings, prepare)
    }

    /// As [`Server::start`], by a command that ends in the program, its standard input and environment set.
    pub fn launch(command: Command, how: How, settings: &str) -> Self {
        Self::launch_at("127.0.0.1", command, how, settings, |_| {})
    }

    fn launch_at(
        ip: &str,
        mut command: Command,
        how: How,
        settings: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringcast.toml");
        fs::write(&file, settings).unwrap();
        let any_port = format!("{ip}:0");
        command
            .args(["--rtmp", &any_port, "--http", &any_port, "--admin", "127.0.0.1:0"])
            .args(["--io", how.io])
            .arg("--workers")
            .arg(how.workers.to_string())
            .arg("--config")
            .arg(&file)
            .env("RINGCAST_LOG_FORMAT", "json")
            // Unless a test has its own: the machine may be busy.
            .envs((!settings.contains("still_ms_max")).then_some(PATIENT_STILL))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&log);
        let reader = child.stderr.take().map(|stderr| {
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    sink.lock().unwrap().push(line);
                }
            })
        });
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        while !ready.starts_with("ready ") {
            ready.clear();
            if out.read_line(&mut ready).unwrap() == 0 {
                panic!("no ready line; status {:?}, log {:?}", child.wait(), log.lock().unwrap());
            }
        }
        let field = |name: &str| {
            let value = ready.split_whitespace().find_map(|field| field.strip_prefix(name));
            value.unwrap_or_else(|| panic!("no {name} in {ready}")).to_owned()
        };
        assert!(how.io == "auto" || field("io=") == how.io, "{ready}");
        Self {
            rtmp: field("rtmp=").parse().unwrap(),
            http: field("http=").parse().unwrap(),
            admin: field("admin=").parse().unwrap(),
            pid: child.id(),
            child,
            log,
            reader,
            dir,
        }
    }

    /// The configuration file, to be rewritten before a reload.
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("ringcast.toml")
    }

    /// The process that serves now.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Process numbers of those that have taken over, in order.
    pub fn successors(&self) -> Vec<u32> {
        let told = self.events("upgrade");
        let pids = told.iter().filter(|line| line["message"] == "handed over");
        pids.map(|line| u32::try_from(line["pid"].as_u64().unwrap()).unwrap()).collect()
    }

    /// Has the process hand over to a new one, which is the server then. Streams go on in `meanwhile`, which
    /// is called until it is done.
    pub fn upgrade(&mut self, mut meanwhile: impl FnMut()) {
        let before = self.successors().len();
        self.signal(Signal::QUIT);
        wait_for("the hand-over", || {
            meanwhile();
            let told = self.events("upgrade");
            assert!(told.iter().all(|line| line["level"] != "ERROR"), "{told:?}");
            self.successors().len() > before
        });
        self.pid = self.successors()[before];
        // Not judged: what is judged is that nobody misses anything.
        let told = self.events("upgrade");
        let last = told.iter().rev().find(|line| line["message"] == "handed over");
        println!("still for {} ms", last.map_or(&Value::Null, |line| &line["still_ms"]));
    }

    /// Whether the process has ended.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Whether the process that serves is there, as one that has ended and was not waited for is not.
    pub fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| state != 'Z')
    }

    /// Status of the process that was started first, once it has ended.
    pub fn wait_child(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Waits for the end of the process and of its log.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.try_exit() {
                break status;
            }
            assert!(Instant::now() < deadline, "the server ends");
            thread::yield_now();
        };
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// Log lines so far with this `event`.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.log.lock().unwrap();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["event"] == event).collect()
    }

    /// Whether a line with this `event` and this field has been logged.
    pub fn has_logged(&self, event: &str, field: &str, value: &str) -> bool {
        self.events(event).iter().any(|line| line[field] == value)
    }

    /// Waits for a line with this `event` and this field.
    pub fn wait_log(&self, event: &str, field: &str, value: &str) {
        wait_for(&format!("the log line {event} with {field}={value}"), || {
            self.has_logged(event, field, value)
        });
    }

    /// Sum of all samples of a metric whose labels contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> u64 {
        let text = self.get("/metrics");
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let value: f64 = value.split(' ').next()?.parse().ok()?;
            found.contains(labels).then_some(value)
        });
        // Through text: the counts looked at are whole and far below 2^53.
        format!("{:.0}", samples.sum::<f64>()).parse().unwrap()
    }

    /// Body of one admin request.
    pub fn get(&self, path: &str) -> String {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build()
            .into();
        let mut response = agent.get(format!("http://{}{path}", self.admin)).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.pid != self.child.id() {
            // Fails only for one that has ended.
            let _ = kill_process(self.pid(), Signal::KILL);
        }
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A successor the failed test does not know of would keep the log open for ever.
        if let Some(reader) = self.reader.take().filter(|_| !thread::panicking()) {
            let _ = reader.join();
        }
        if thread::panicking() {
            let mut text = String::new();
            for line in self.log.lock().unwrap().iter().rev().take(60).rev() {
                let _ = writeln!(text, "  {line}");
            }
            println!("log of the server:\n{text}");
        }
    }
}

/// A program in `dir` that is started in place of Ringcast and does what the script says.
pub fn program(dir: &Path, name: &str, script: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What a program says that begins to take over. Its way to the old process is its standard input.
pub fn hello(version: u32) -> String {
    let mut bytes = String::new();
    for byte in version.to_be_bytes().into_iter().chain([0, 0, 0, 7]) {
        write!(bytes, "\\x{byte:02x}").unwrap();
    }
    format!("printf 'RINGCAST{bytes}' >&0")
}

/// A program in `dir` that is Ringcast with so many workers, whatever its arguments say of them.
pub fn with_workers(dir: &Path, workers: u16) -> String {
    let script = format!(
        "arguments=()\nfor argument; do\n\
         [[ $before == --workers ]] && argument={workers}\n\
         arguments+=(\"$argument\")\nbefore=$argument\ndone\n\
         exec {} \"${{arguments[@]}}\"",
        env!("CARGO_BIN_EXE_ringcast")
    );
    program(dir, &format!("ringcast-{workers}"), &script)
}

/// Polls a condition that another process makes true.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}
