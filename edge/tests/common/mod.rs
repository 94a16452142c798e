//! A whole server with workers that are not real: they answer commands and move nothing.

#![allow(dead_code, unreachable_pub, reason = "shared by test files that each use a part")]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use edge::command::{
    ClientInfo, Command, ConnectionId, Event, InspectPage, InspectScope, PublisherInfo, StreamInfo,
    StreamShare, StreamState, Wake, WorkerPort, worker_link,
};
use edge::config::{Config, Source};
use edge::control::notify::Notifier;
use edge::inherit::Inherited;
use edge::log::LogHandle;
use edge::metrics::Role;
use edge::server::{self, IoKind, Setup, StartError, StartedWorkers};
use serde_json::Value;

/// Longest wait for something that must happen; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a fake worker was told.
#[derive(Debug)]
pub enum Told {
    Config(u16, Arc<Config>),
    Kick(ConnectionId),
    Drain(u16, u64),
    Stop(u16),
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(&self) {
        self.0.unpark();
    }
}

/// Clients of each fake worker: enough for several pages.
pub const CLIENTS_PER_WORKER: u64 = 600;

struct FakeWorker {
    port: WorkerPort,
    told: Sender<Told>,
    stuck: Arc<AtomicBool>,
    dead: Arc<AtomicBool>,
    drain_at_once: bool,
}

impl FakeWorker {
    fn run(self) {
        let worker = self.port.index();
        loop {
            thread::park_timeout(Duration::from_millis(20));
            if self.stuck.load(Ordering::Relaxed) {
                continue;
            }
            if self.dead.load(Ordering::Relaxed) {
                return;
            }
            self.port.metrics().turns.increment();
            while let Some(command) = self.port.take_command() {
                match command {
                    Command::Inspect { scope, cursor, count_max, reply } => {
                        reply.send(page(worker, scope, cursor, count_max));
                    }
                    Command::Kick { id, reply } => {
                        let _ = self.told.send(Told::Kick(id));
                        reply.send((1..=CLIENTS_PER_WORKER).contains(&id.serial));
                    }
                    Command::ApplyConfig(config) => {
                        let _ = self.told.send(Told::Config(worker, config));
                    }
                    Command::Rules(_)
                    | Command::Answer { .. }
                    | Command::StandStill { .. }
                    | Command::Export { .. }
                    | Command::GoOn
                    | Command::LetGo { .. } => {}
                    Command::Drain { deadline_ms } => {
                        let _ = self.told.send(Told::Drain(worker, deadline_ms));
                        if self.drain_at_once {
                            self.port.report(Event::Drained { worker });
                        }
                    }
                    Command::Stop => {
                        let _ = self.told.send(Told::Stop(worker));
                        self.port.report(Event::Stopped { worker });
                        return;
                    }
                }
            }
        }
    }
}

fn page(worker: u16, scope: InspectScope, cursor: u64, count_max: u32) -> InspectPage {
    match scope {
        InspectScope::Streams => InspectPage {
            streams: if worker == 0 { vec![home_stream()] } else { Vec::new() },
            shares: shares(worker),
            ..InspectPage::default()
        },
        InspectScope::Clients => {
            let end = (cursor + u64::from(count_max)).min(CLIENTS_PER_WORKER);
            InspectPage {
                clients: (cursor..end).map(|index| client(worker, index + 1)).collect(),
                next: (end < CLIENTS_PER_WORKER).then_some(end),
                ..InspectPage::default()
            }
        }
    }
}

fn home_stream() -> StreamInfo {
    StreamInfo {
        vhost: "default".into(),
        app: "live/eu".into(),
        name: "cam".into(),
        video_codec: Some("h264".into()),
        width: Some(1280),
        height: Some(720),
        publisher: Some(PublisherInfo {
            id: ConnectionId { worker: 0, serial: 1 },
            peer: "127.0.0.1:5".into(),
            flash_ver: "FMLE/3.0".into(),
        }),
        ..StreamInfo::new(StreamState::Live)
    }
}

fn shares(worker: u16) -> Vec<StreamShare> {
    let share = |app: &str, name: &str, subscribers, lag_ms_max| StreamShare {
        vhost: "default".into(),
        app: app.into(),
        name: name.into(),
        subscribers,
        bytes_out: subscribers * 1_000,
        lag_ms_max,
    };
    let mut shares = vec![share("live/eu", "cam", 10, 100 * (u64::from(worker) + 1))];
    if worker == 1 {
        shares.push(share("live", "nobody", 3, 0));
    }
    shares
}

fn client(worker: u16, serial: u64) -> ClientInfo {
    ClientInfo {
        id: ConnectionId { worker, serial },
        role: if serial == 1 { Role::Publisher } else { Role::Subscriber },
        protocol: "rtmp",
        peer: "127.0.0.1:7".into(),
        vhost: Some("default".into()),
        app: Some("live/eu".into()),
        stream: Some("cam".into()),
        flash_ver: None,
        uses: Vec::new(),
        bytes_in: 1,
        bytes_out: 2,
        lag_ms: Some(3),
        skips: 0,
        uptime_ms: 4,
    }
}

struct Lines {
    buffer: Vec<u8>,
    sender: Sender<String>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let _ = self.sender.send(String::from_utf8(line).unwrap().trim_end().to_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a test server differs from the usual one.
pub struct Options {
    pub file: Option<PathBuf>,
    pub workers: u16,
    pub drain_at_once: bool,
    /// Socket of a service manager; empty for none.
    pub notify: String,
    /// Its patience.
    pub watchdog: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        let (notify, watchdog) = (String::new(), None);
        Self { file: None, workers: 2, drain_at_once: true, notify, watchdog }
    }
}

/// A running server.
pub struct TestServer {
    pub admin: SocketAddr,
    pub output: Vec<String>,
    pub told: Receiver<Told>,
    pub stuck: Vec<Arc<AtomicBool>>,
    /// Ends the thread of the last worker, as a panic would.
    pub dead: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), StartError>>>,
}

impl TestServer {
    pub fn start(options: Options) -> Self {
        let flags = vec![("--admin", "listen.admin", "127.0.0.1:0".to_owned())];
        let source = Source { file: options.file.clone(), env: Vec::new(), flags };
        let loaded = source.load().unwrap();
        let notifier = Notifier::new(&options.notify, options.watchdog);
        let (log, inherited) = (LogHandle::default(), Inherited::default());
        let (predecessor, program) = (None, None);
        let setup = Setup { source, loaded, log, inherited, notifier, predecessor, program };
        let (lines, output) = channel();
        let (teller, told) = channel();
        let stuck: Vec<_> = (0..options.workers).map(|_| Arc::default()).collect();
        let flags = stuck.clone();
        let dead: Arc<AtomicBool> = Arc::default();
        let deadly = Arc::clone(&dead);
        let last = options.workers - 1;
        let drain_at_once = options.drain_at_once;
        let thread = thread::spawn(move || {
            let mut out = Lines { buffer: Vec::new(), sender: lines };
            server::run(setup, &mut out, |_, _, events| {
                let mut started = StartedWorkers {
                    go: Vec::new(),
                    packaging: None,
                    handles: Vec::new(),
                    threads: Vec::new(),
                    renew: Vec::new(),
                    rtmps: None,
                    http: None,
                    is_kernel_tls: false,
                    rtmp: Some("127.0.0.1:1935".parse().unwrap()),
                    io: IoKind::Epoll,
                    io_refused: Some("test".into()),
                };
                for (index, stuck) in (0..).zip(flags) {
                    let (port, seed) = worker_link(index, events.clone());
                    let told = teller.clone();
                    let dead = if index == last { Arc::clone(&deadly) } else { Arc::default() };
                    let fake = FakeWorker { port, told, stuck, dead, drain_at_once };
                    let thread = thread::spawn(move || fake.run());
                    let waker = Arc::new(Unpark(thread.thread().clone()));
                    started.handles.push(seed.with_waker(waker));
                    started.threads.push(thread);
                }
                Ok(|_, _| Ok(started))
            })
        });
        let mut lines = Vec::new();
        let admin = loop {
            let line = output.recv_timeout(PATIENCE).expect("a ready line");
            lines.push(line.clone());
            if let Some(fields) = line.strip_prefix("ready ") {
                let admin = fields.split(' ').find_map(|field| field.strip_prefix("admin="));
                break admin.unwrap().parse().unwrap();
            }
        };
        Self { admin, output: lines, told, stuck, dead, thread: Some(thread) }
    }

    /// Status and JSON body of one request.
    pub fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let (status, _, body) = self.ask_text(method, path, &[]);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}")))
    }

    /// Status, content type and body of one request with extra headers.
    pub fn ask_text(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, String, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build()
            .into();
        let uri = format!("http://{}{path}", self.admin);
        let mut request =
            ureq::http::Request::builder().method(method.to_ascii_uppercase().as_str()).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = agent.run(request.body(()).unwrap()).unwrap();
        let kind = response.headers().get("content-type").map_or("", |v| v.to_str().unwrap());
        let kind = kind.to_owned();
        (response.status().as_u16(), kind, response.body_mut().read_to_string().unwrap())
    }

    /// The next thing a worker was told.
    pub fn told(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("a command for a worker")
    }

    /// Waits until the server has ended.
    pub fn join(mut self) -> Result<(), StartError> {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Drains through the API and waits for the end.
    pub fn finish(self) {
        assert_eq!(self.ask("post", "/api/v1/drain").0, 202);
        self.join().unwrap();
    }
}
