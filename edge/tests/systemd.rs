//! What a service manager sees and gives: notifications, watchdog, sockets made beforehand, unit files.

mod common;
mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Options, TestServer};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use support::client::Net;
use support::media::Source;
use support::server::{Server, matrix, wait_for};
use tempfile::TempDir;

/// The manager's end of the notifications.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path, _dir: dir }
    }

    /// The next message, within this time.
    fn hear(&self, patience: Duration) -> Option<String> {
        let mut buffer = [0; 512];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let bytes = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..bytes].to_vec()).unwrap())
    }

    /// Waits for a message that begins so.
    fn until(&self, begin: &str) -> String {
        let deadline = Instant::now() + support::PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let heard = self.hear(left.max(Duration::from_millis(1)));
            let heard = heard.unwrap_or_else(|| panic!("no message {begin}"));
            if heard.starts_with(begin) {
                return heard;
            }
        }
    }
}

#[test]
fn a_manager_hears_of_readiness_status_reload_life_and_the_end() {
    let manager = Manager::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command
        .stdin(Stdio::null())
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "2000000");
    let how = matrix(&[2])[0];
    let mut server = Server::launch(command, how, "[shutdown]\ndrain_ms = 5000\n");
    manager.until("READY=1\nSTATUS=serving");
    manager.until("WATCHDOG=1");
    let mut net = Net::new(server.rtmp);
    let publisher = net.publish("cam");
    net.until_started(&[publisher]);
    manager.until("STATUS=serving 1 streams, 1 connections");
    server.signal(Signal::HUP);
    assert!(manager.until("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.until("READY=1");
    server.signal(Signal::TERM);
    assert!(manager.until("STOPPING=1").contains("EXTEND_TIMEOUT_USEC=7000000"));
    net.unpublish(publisher);
    net.vanish(publisher);
    net.until("the end", |_| server.try_exit().is_some());
    assert!(server.wait_exit().success());
}

#[test]
fn a_manager_hears_who_its_process_is_after_a_change() {
    let manager = Manager::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command
        .stdin(Stdio::null())
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "2000000");
    let how = matrix(&[1])[0];
    let mut server = Server::launch(command, how, "");
    manager.until("READY=1");
    let mut net = Net::new(server.rtmp);
    let publisher = net.publish("cam");
    net.until_started(&[publisher]);
    for _ in 0..2 {
        server.upgrade(|| net.turn());
        assert_eq!(manager.until("MAINPID=").trim(), format!("MAINPID={}", server.pid));
        // The one that is left says nothing that would be taken for the other's.
        manager.until("STATUS=serving 1 streams, 1 connections");
        manager.until("WATCHDOG=1");
    }
    server.signal(Signal::TERM);
    manager.until("STOPPING=1");
    net.unpublish(publisher);
    net.vanish(publisher);
    net.until("the end", |_| !server.is_running());
}

#[test]
fn the_watchdog_is_not_told_of_life_while_a_worker_does_not_turn() {
    let manager = Manager::new();
    let notify = manager.path.to_str().unwrap().to_owned();
    let watchdog = Some(Duration::from_millis(100));
    let server = TestServer::start(Options { notify, watchdog, ..Options::default() });
    manager.until("WATCHDOG=1");
    server.stuck[1].store(true, Ordering::Relaxed);
    wait_for("the worker to be missed", || server.ask("get", "/healthz").0 == 503);
    while manager.hear(Duration::from_millis(1)).is_some() {}
    // Twenty times the interval at which it would be told. A slow machine cannot fail this.
    let heard = manager.hear(Duration::from_secs(1));
    assert!(heard.as_deref() != Some("WATCHDOG=1"), "{heard:?}");
    server.stuck[1].store(false, Ordering::Relaxed);
    manager.until("WATCHDOG=1");
    server.finish();
}

/// A shell that gives the program these sockets from descriptor 3 on.
fn activated(sockets: &[(&str, &TcpListener)]) -> Command {
    let mut script = String::new();
    for ((_, socket), number) in sockets.iter().zip(3..) {
        fcntl_setfd(socket.as_fd(), FdFlags::empty()).unwrap();
        // First far away, so that none is overwritten by another.
        script += &format!("exec {}<&{};", number + 200, socket.as_raw_fd());
    }
    for number in 3..3 + sockets.len() {
        script += &format!("exec {number}<&{0} {0}<&-;", number + 200);
    }
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    script += "export LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut command = Command::new("bash");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_ringcast")])
        .stdin(Stdio::null())
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    command
}

fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn passed_sockets_are_served_by_all_workers_and_keep_who_came_before_the_start() {
    for how in matrix(&[1, 3]) {
        let ((rtmp, rtmp_at), (http, http_at), (admin, admin_at)) = (bound(), bound(), bound());
        let mut net = Net::new(rtmp_at);
        // Before there is any server: it waits in the socket's queue.
        let publisher = net.publish("cam");
        let named = [("ringcast-rtmp.socket", &rtmp), ("http", &http), ("admin", &admin)];
        let server = Server::launch(activated(&named), how, "");
        assert_eq!((server.rtmp, server.http, server.admin), (rtmp_at, http_at, admin_at));
        drop((rtmp, http, admin));
        net.until_started(&[publisher]);
        let players: Vec<usize> = (0..12).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 15);
        net.until_received(&players, &source);
        assert_eq!(server.metric("ringcast_connections_accepted_total", ""), 13);
        assert!(server.get("/api/v1/status").contains("\"connections\":13"));
    }
}

#[test]
fn a_passed_socket_that_has_no_use_ends_the_start() {
    let (listener, _) = bound();
    for name in ["nonsense", "rtmps"] {
        let mut command = activated(&[(name, &listener)]);
        let output = command.args(["--admin", "off", "--rtmp", "off"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(name), "{text}");
    }
}

fn unit_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning/systemd")
}

#[test]
fn unit_files_parse_and_are_hardened() {
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in fs::read_dir(unit_folder()).unwrap() {
        let file = entry.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let is_section = line.starts_with('[') && line.ends_with(']');
            let is_setting = line.split_once('=').is_some_and(|(key, _)| {
                key.starts_with(|c: char| c.is_ascii_uppercase())
                    && key.chars().all(|c| c.is_ascii_alphanumeric())
            });
            assert!(is_section || is_setting, "{}: {line}", file.display());
        }
        // The manager looks whether the program is there.
        let program = env!("CARGO_BIN_EXE_ringcast");
        let text = text.replace("/usr/local/bin/ringcast", program);
        let copy = dir.path().join(file.file_name().unwrap());
        fs::write(&copy, text).unwrap();
        units.push(copy);
    }
    assert!(units.len() >= 4, "{units:?}");
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        println!("skipped: systemd-analyze is not installed, units were read by the tests alone");
        return;
    };
    assert!(version.status.success());
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&units)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !text.contains("ringcast"), "{text}");
    // Exposure from 0 to 10, in tenths: what may listen on the network has some.
    let service = dir.path().join("ringcast.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=25"])
        .arg(&service)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
}
