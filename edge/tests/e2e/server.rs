//! The server under test: started by its flags, awaited by its ready line, watched by its admin API.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::child::{Program, Running, Scratch, poll_until};

/// From start to the ready line; generous, because a debug build on a busy machine is slow.
const READY_MAX: Duration = Duration::from_secs(20);
/// For a client to get where it was sent.
const ATTACH_MAX: Duration = Duration::from_secs(20);
/// A port the kernel chooses.
const ANY_PORT: &str = "127.0.0.1:0";
/// One answer of the admin API.
const ADMIN_MAX: Duration = Duration::from_secs(5);

/// A running `ringcast`; stopped when dropped.
pub(crate) struct Server {
    running: Running,
    ready_line: String,
    rtmp: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
    /// The process that has taken over from the one that was started.
    successor: Option<Pid>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(successor) = self.successor {
            // Fails only for one that has ended.
            let _ = kill_process(successor, Signal::KILL);
        }
    }
}

impl Server {
    /// Starts the server with `flags` on ports chosen by the kernel and waits until it is ready.
    pub(crate) fn start(scratch: &Scratch, flags: &[&str]) -> Self {
        let mut running = Program::new(env!("CARGO_BIN_EXE_ringcast"), scratch, "ringcast")
            .args(["serve", "--rtmp", ANY_PORT, "--http", ANY_PORT, "--admin", ANY_PORT])
            .args(flags)
            .start_piped();
        let stdout = running.child.stdout.take().expect("stdout is piped");
        let (sender, lines) = mpsc::channel();
        // Reads to the end, so that the server never meets a full or closed pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test may have what it needs already.
                drop(sender.send(line));
            }
        });
        let ready_line = poll_until("the ready line", READY_MAX, || {
            match lines.try_recv() {
                Ok(line) => return line.starts_with("ready ").then_some(line),
                Err(mpsc::TryRecvError::Disconnected) => panic!("ringcast closed its stdout"),
                Err(mpsc::TryRecvError::Empty) => assert!(running.is_running(), "ringcast ended"),
            }
            None
        });
        let rtmp = address(&ready_line, "rtmp");
        let http = address(&ready_line, "http");
        let admin = address(&ready_line, "admin");
        Self { running, ready_line, rtmp, http, admin, successor: None }
    }

    /// Value of `key=` in the ready line.
    pub(crate) fn ready(&self, key: &str) -> &str {
        field(&self.ready_line, key)
    }

    /// Where RTMP is accepted.
    pub(crate) fn rtmp(&self) -> SocketAddr {
        self.rtmp
    }

    /// Where viewers' HTTP is accepted.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Address of a stream over HTTP; `file` is its name with the suffix of a form, and what is asked of it.
    pub(crate) fn http_url(&self, file: &str) -> String {
        format!("http://{}/live/{file}", self.http)
    }

    /// Address of the application, as an encoder's server field wants it.
    pub(crate) fn app_url(&self) -> String {
        format!("rtmp://{}/live", self.rtmp)
    }

    /// Address of a stream.
    pub(crate) fn url(&self, stream: &str) -> String {
        format!("rtmp://{}/live/{stream}", self.rtmp)
    }

    /// Waits until `count` players of the stream are attached.
    pub(crate) fn wait_players(&self, stream: &str, count: usize) {
        self.wait_clients("subscriber", stream, count);
    }

    /// Waits until the stream has a publisher.
    pub(crate) fn wait_publisher(&self, stream: &str) {
        self.wait_clients("publisher", stream, 1);
    }

    /// Waits until nobody publishes the stream.
    pub(crate) fn wait_no_publisher(&self, stream: &str) {
        self.wait_clients("publisher", stream, 0);
    }

    fn wait_clients(&self, role: &str, stream: &str, count: usize) {
        let what = format!("{count} clients are {role} of {stream}");
        // Many programs take longer to start.
        let bound = ATTACH_MAX + Duration::from_secs(2 * count as u64);
        poll_until(&what, bound, || {
            let clients = self.clients();
            let is_wanted = |client: &&Value| client["role"] == role && client["stream"] == stream;
            (clients.iter().filter(is_wanted).count() == count).then_some(())
        });
    }

    /// Waits until the publisher of the stream has been heard for this long.
    pub(crate) fn wait_uptime(&self, stream: &str, uptime_ms: u64) {
        let what = format!("{stream} is live for {uptime_ms} ms");
        poll_until(&what, ATTACH_MAX, || (self.uptime_ms(stream)? >= uptime_ms).then_some(()));
    }

    /// Waits until so many messages of video have been read from publishers: encoders may be slow.
    pub(crate) fn wait_pictures(&self, count: u64) {
        poll_until(&format!("{count} pictures"), ATTACH_MAX, || {
            let metrics = self.admin("/metrics");
            let name = "ringcast_messages_in_total{kind=\"video\"} ";
            let read = metrics.lines().find_map(|line| line.strip_prefix(name))?;
            (read.parse::<u64>().ok()? >= count).then_some(())
        });
    }

    /// Waits until the newest picture of a stream with a keyframe each second is far from any of them.
    pub(crate) fn wait_amid_group(&self, stream: &str) {
        poll_until("the middle of a group of pictures", ATTACH_MAX, || {
            (300..600).contains(&(self.uptime_ms(stream)? % 1000)).then_some(())
        });
    }

    fn uptime_ms(&self, stream: &str) -> Option<u64> {
        let streams = self.entries("/api/v1/streams");
        let live = streams.into_iter().find(|entry| entry["name"] == stream)?;
        live["uptime_ms"].as_u64()
    }

    /// Every connection the server knows.
    pub(crate) fn clients(&self) -> Vec<Value> {
        self.entries("/api/v1/clients")
    }

    /// The entries of a list of the admin API.
    fn entries(&self, path: &str) -> Vec<Value> {
        let body = self.admin(path);
        let value: Value = serde_json::from_str(&body)
            .unwrap_or_else(|error| panic!("{path} answers JSON: {error}: {body}"));
        value["items"].as_array().unwrap_or_else(|| panic!("{path} lists items: {body}")).clone()
    }

    /// Body of a GET on the admin address.
    ///
    /// # Panics
    /// When the status is not 200 or the answer does not come in time.
    pub(crate) fn admin(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("the admin address accepts");
        stream.set_read_timeout(Some(ADMIN_MAX)).expect("a bound can be set");
        // HTTP/1.0: the body ends with the connection and is never chunked.
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it can be asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the admin answers in time");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1);
        assert_eq!(status, Some("200"), "GET {path}: {head}");
        body.into()
    }

    /// Asks for a clean end and waits for it.
    ///
    /// # Panics
    /// When the server does not end with success within `bound`.
    pub(crate) fn terminate(&mut self, bound: Duration) {
        self.running.signal(Signal::TERM);
        self.running.expect_success(bound);
    }

    /// Hands over to a new process and waits until that one answers.
    pub(crate) fn upgrade(&mut self) {
        let before = self.pid();
        match self.successor {
            None => self.running.signal(Signal::QUIT),
            Some(pid) => kill_process(pid, Signal::QUIT).expect("the server is there"),
        }
        let pid = poll_until("another process", READY_MAX, || {
            Some(self.pid()).filter(|pid| *pid != before)
        });
        self.successor = i32::try_from(pid).ok().and_then(Pid::from_raw);
    }

    /// Number of the process that answers.
    fn pid(&self) -> u64 {
        let status: Value = serde_json::from_str(&self.admin("/api/v1/status")).expect("JSON");
        status["pid"].as_u64().expect("a number")
    }

    /// Checks that the server outlived the test.
    pub(crate) fn expect_running(&mut self) {
        assert!(self.running.is_running(), "ringcast still runs");
    }
}

fn address(ready_line: &str, key: &str) -> SocketAddr {
    field(ready_line, key).parse().unwrap_or_else(|_| panic!("address {key}: {ready_line}"))
}

fn field<'a>(ready_line: &'a str, key: &str) -> &'a str {
    ready_line
        .split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("the ready line names {key}: {ready_line}"))
}
