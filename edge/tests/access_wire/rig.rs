//! One `ringcast` with domains: its configuration and store outlive a restart, all it writes is kept, and
//! when it ends nothing of that may hold a key.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::PATIENCE;
use crate::support::server::{How, matrix, wait_for};

/// Every key of these tests begins with this, so that one search finds any of them.
pub(crate) const KEY_MARK: &str = "sesame-";
/// Of push domains.
pub(crate) const PUSH_KEY: &str = "sesame-of-push";
/// Of play domains.
pub(crate) const PLAY_KEY: &str = "sesame-of-play";
/// The key that is not any domain's.
pub(crate) const WRONG_KEY: &str = "sesame-of-nobody";

/// How tests run that have nothing to do with kernel interfaces and workers.
pub(crate) fn plain() -> How {
    matrix(&[1])[0]
}

/// Now, in Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A server.
pub(crate) struct Rig {
    how: How,
    dir: TempDir,
    child: Child,
    readers: Vec<JoinHandle<()>>,
    /// What went to stderr and stdout.
    written: Arc<Mutex<Vec<String>>>,
    /// What the admin API answered.
    answered: Mutex<String>,
    /// Parameters that were good when they were presented.
    credentials: Mutex<Vec<String>>,
    pub(crate) rtmp: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Rig {
    /// Starts a server with a store. `settings` is TOML, `[access]` keys first.
    pub(crate) fn start(how: How, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("access.redb").display().to_string();
        let text = format!("[access]\nstore = {store:?}\n{settings}");
        fs::write(dir.path().join("ringcast.toml"), text).unwrap();
        let written = Arc::default();
        let (child, readers, [rtmp, admin]) = spawn(how, &dir, &written);
        let (answered, credentials) = (Mutex::default(), Mutex::default());
        Self { how, dir, child, readers, written, answered, credentials, rtmp, admin }
    }

    /// Ends the process, as a crash would, and starts it again with the same files.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let (child, readers, [rtmp, admin]) = spawn(self.how, &self.dir, &self.written);
        (self.child, self.readers, self.rtmp, self.admin) = (child, readers, rtmp, admin);
    }

    fn stop(&mut self) {
        // Fails only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    /// The configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("ringcast.toml")
    }

    /// Status and JSON of one admin request.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.request(method, path, body);
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// An admin request that must succeed.
    #[track_caller]
    pub(crate) fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build()
            .into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin))
            .header("content-type", "application/json");
        let mut response = match body {
            Value::Null => agent.run(request.body(()).unwrap()),
            body => agent.run(request.body(body.to_string()).unwrap()),
        }
        .unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        self.answered.lock().unwrap().push_str(&text);
        (response.status().as_u16(), text)
    }

    /// The RTMP address the server signs for a stream, remembered as a credential.
    pub(crate) fn address(&self, role: &str, domain: &str, stream: &str, more: &str) -> String {
        let path =
            format!("/api/v1/addresses?domain={domain}&role={role}&app=live&stream={stream}{more}");
        let answer = self.done("GET", &path, &Value::Null);
        let address = answer["addresses"]["rtmp"].as_str().expect("an RTMP address").to_owned();
        self.remember(&address);
        address
    }

    /// The parameters of this address may not be in the log.
    pub(crate) fn remember(&self, address: &str) {
        let query = address.split_once('?').map_or("", |(_, query)| query);
        let values = query.split('&').filter_map(|pair| pair.split_once('='));
        let secret = values.map(|(_, value)| value).filter(|value| value.len() >= 20);
        self.credentials.lock().unwrap().extend(secret.map(str::to_owned));
    }

    /// Publishers and players of a domain as its quotas count them.
    pub(crate) fn counts(&self, domain: &str) -> (u64, u64) {
        let shown = self.done("GET", &format!("/api/v1/domains/{domain}"), &Value::Null);
        let count = |name: &str| shown[name].as_u64().unwrap_or_else(|| panic!("{name}: {shown}"));
        (count("publishers"), count("subscribers"))
    }

    /// Log lines so far with this event.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.written.lock().unwrap();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["event"] == event).collect()
    }

    /// Waits for a log line with this event that fits, and returns it.
    pub(crate) fn wait_event(&self, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        wait_for(&format!("the log line {event}"), || {
            found = self.events(event).into_iter().find(&fits);
            found.is_some()
        });
        found.expect("awaited above")
    }

    /// Sum of all samples of a metric whose labels contain `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> u64 {
        let (_, text) = self.request("GET", "/metrics", &Value::Null);
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            found.contains(labels).then(|| value.split(' ').next()?.parse::<u64>().ok())?
        });
        samples.sum()
    }

    /// Refusals for this reason, by the metric.
    pub(crate) fn denied(&self, reason: &str) -> u64 {
        self.metric("ringcast_access_denied_total", &format!("reason=\"{reason}\""))
    }

    /// Everything written so far, and everything answered.
    fn everything(&self) -> [String; 2] {
        let written = self.written.lock().unwrap().join("\n");
        [written, self.answered.lock().unwrap().clone()]
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut text = String::new();
            for line in self.written.lock().unwrap().iter().rev().take(40).rev() {
                let _ = writeln!(text, "  {line}");
            }
            println!("log of the server:\n{text}");
            self.stop();
            return;
        }
        let _ = self.request("GET", "/metrics", &Value::Null);
        self.stop();
        let [written, answered] = self.everything();
        for line in written.lines().chain(answered.lines()) {
            assert!(!line.contains(KEY_MARK), "a key was written: {line}");
        }
        for credential in self.credentials.lock().unwrap().iter() {
            let line = written.lines().find(|line| line.contains(credential.as_str()));
            assert_eq!(line, None, "a good parameter was logged");
        }
        let panicked = written.lines().find(|line| line.contains("panicked"));
        assert_eq!(panicked, None);
    }
}

type Spawned = (Child, Vec<JoinHandle<()>>, [SocketAddr; 2]);

fn spawn(how: How, dir: &TempDir, written: &Arc<Mutex<Vec<String>>>) -> Spawned {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
        .args(["--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--io", how.io])
        .args(["--workers", &how.workers.to_string(), "--config"])
        .arg(dir.path().join("ringcast.toml"))
        .env("RINGCAST_LOG_FORMAT", "json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let ready = Arc::new(Mutex::new(None));
    let (sink, found) = (Arc::clone(written), Arc::clone(&ready));
    let out = thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.starts_with("ready ") {
                *found.lock().unwrap() = Some(line.clone());
            }
            sink.lock().unwrap().push(line);
        }
    });
    let sink = Arc::clone(written);
    let err = thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let ready = loop {
        if let Some(line) = ready.lock().unwrap().take() {
            break line;
        }
        let status = child.try_wait().unwrap();
        let is_waiting = status.is_none() && Instant::now() < deadline;
        let text = if is_waiting { String::new() } else { written.lock().unwrap().join("\n") };
        assert!(is_waiting, "no ready line, {status:?}: {text}");
        thread::park_timeout(std::time::Duration::from_millis(2));
    };
    let field = |name: &str| {
        let value = ready.split_whitespace().find_map(|field| field.strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name} in {ready}")).parse().unwrap()
    };
    let addresses = [field("rtmp="), field("admin=")];
    (child, vec![out, err], addresses)
}
