//! The change of process without loss: a running server hands listeners and live connections over to a new
//! process, and goes on itself whenever that fails.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use edge::hand_over::record::VERSION;
use rustix::process::Signal;
use serde_json::Value;
use support::client::{Net, assert_complete};
use support::media::Source;
use support::server::{How, Server, matrix, wait_for};

/// A server under load: publishers, and players of each.
struct Live {
    server: Server,
    net: Net,
    publishers: Vec<usize>,
    /// Players of each publisher.
    players: Vec<Vec<usize>>,
    sources: Vec<Source>,
}

impl Live {
    fn start(how: How, settings: &str, streams: u32, players: usize) -> Self {
        let server = Server::start(how, settings);
        let mut net = Net::new(server.rtmp);
        let name = |stream: u32| format!("cam{stream}");
        let publishers: Vec<usize> =
            (0..streams).map(|stream| net.publish(&name(stream))).collect();
        net.until_started(&publishers);
        let players: Vec<Vec<usize>> = (0..streams)
            .map(|stream| (0..players).map(|_| net.play(&name(stream))).collect())
            .collect();
        let mut sources: Vec<Source> = (0..streams).map(|stream| Source::new(stream + 1)).collect();
        for (of_stream, (&publisher, source)) in
            players.iter().zip(publishers.iter().zip(&mut sources))
        {
            net.until_started(of_stream);
            net.send_headers(publisher, source);
            net.send_frames(publisher, source, 15);
            net.until_received(of_stream, source);
        }
        Self { server, net, publishers, players, sources }
    }

    /// Every publisher sends so many pictures.
    fn send(&mut self, count: u32) {
        for (&publisher, source) in self.publishers.iter().zip(&mut self.sources) {
            self.net.send_frames(publisher, source, count);
        }
    }

    fn until_received(&mut self) {
        for (players, source) in self.players.iter().zip(&self.sources) {
            self.net.until_received(players, source);
        }
    }

    /// Sends a picture at a time until the condition holds.
    fn send_until(&mut self, what: &str, mut done: impl FnMut(&Server) -> bool) {
        wait_for(what, || {
            self.send(1);
            self.until_received();
            done(&self.server)
        });
    }

    /// Nobody was cut, skipped anything, or got anything twice.
    fn assert_complete(&self) {
        for (players, source) in self.players.iter().zip(&self.sources) {
            for &player in players {
                let client = &self.net.clients[player];
                assert_eq!((client.ended, assert_complete(client, source)), (None, 0));
            }
        }
        assert!(self.publishers.iter().all(|&p| self.net.clients[p].ended.is_none()));
    }

    /// Has the server hand over, under load; the new process is the server then.
    fn upgrade(&mut self) {
        let before = self.server.successors().len();
        self.server.signal(Signal::QUIT);
        self.send_until("the hand-over", |server| {
            let error = server.events("upgrade").iter().any(|line| line["level"] == "ERROR");
            assert!(!error, "{:?}", server.events("upgrade"));
            server.successors().len() > before
        });
        self.server.pid = self.server.successors()[before];
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.server.get("/api/v1/status")).unwrap()
    }
}

#[test]
fn two_upgrades_under_load_lose_nothing_and_cut_nobody() {
    for how in matrix(&[1, 2]) {
        let mut live = Live::start(how, "", 2, 25);
        let slow = live.players[0][0];
        live.net.shrink_receive_buffer(slow);
        live.sources[0].keyframe_bytes = 100_000;
        for source in &mut live.sources {
            // Slower than the clock, so that waiting for the new process makes nobody late.
            source.step_ms = 2;
        }
        for round in 0..2 {
            // One player reads nothing, so that it is in the middle of a message; one publisher has sent the
            // first part of a picture.
            let all_players = live.players.clone();
            live.players[0].remove(0);
            live.net.clients[slow].is_frozen = true;
            live.send(40);
            live.until_received();
            live.players[1].clear();
            let (torn, mut source) = (live.publishers.pop().unwrap(), live.sources.pop().unwrap());
            source.keyframe_bytes = 90_000;
            source.restart();
            live.net.send_frames(torn, &mut source, 1);
            let rest = live.net.clients[torn].hold_back(40_000);
            live.net.until("the first part to be sent", |net| net.clients[torn].is_flushed());
            live.upgrade();
            live.publishers.push(torn);
            live.sources.push(source);
            live.net.clients[torn].write_bytes(&rest);
            live.net.clients[slow].is_frozen = false;
            live.players = all_players;
            live.send(12);
            live.until_received();
            live.assert_complete();
            let status = live.status();
            assert_eq!(status["pid"], live.server.pid, "round {round}");
            assert_eq!((&status["publishers"], &status["subscribers"]), (&2.into(), &50.into()));
        }
        let mut server = live.server;
        wait_for("the end of the first process", || server.try_exit().is_some());
        assert!(server.wait_child().success());
        // Who comes now is served by the last process.
        let mut late = Net::new(server.rtmp);
        let player = late.play("cam0");
        late.until_started(&[player]);
        late.until("a picture for who comes later", |net| net.clients[player].frames().count() > 0);
    }
}

/// A program that is started in place of Ringcast and does what the script says.
fn program(dir: &std::path::Path, name: &str, script: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What a program says that begins to take over. Its way to the old process is its standard input.
fn hello(version: u32) -> String {
    let mut bytes = String::new();
    for byte in version.to_be_bytes().into_iter().chain([0, 0, 0, 7]) {
        write!(bytes, "\\x{byte:02x}").unwrap();
    }
    format!("printf 'RINGCAST{bytes}' >&0")
}

#[test]
fn whenever_an_upgrade_fails_the_old_process_goes_on_with_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (hello(VERSION), hello(VERSION + 1));
    let cases = [
        ("absent", None, "cannot start"),
        ("fails", Some("exit 1".to_owned()), "has ended"),
        (
            "is-else",
            Some("printf 'something else...' >&0; exec sleep 60".to_owned()),
            "not Ringcast",
        ),
        ("is-newer", Some(format!("{wrong}; exec sleep 60")), "format"),
        ("dies-early", Some(format!("{right}; exit 1")), "has ended"),
        ("hangs", Some(format!("{right}; exec sleep 60")), "in time"),
        ("refuses", Some(format!("{right}; printf 'Eno room here' >&0")), "no room here"),
        ("dies-late", Some(format!("{right}; printf R >&0")), "has ended"),
        ("does-not-go", Some(format!("{right}; printf R >&0; exec sleep 60")), "in time"),
    ];
    for how in matrix(&[2]) {
        let mut live = Live::start(how, "", 1, 8);
        for (attempt, (name, script, reason)) in (1..).zip(&cases) {
            let path = match script {
                Some(script) => program(dir.path(), name, script),
                None => dir.path().join(name).to_str().unwrap().to_owned(),
            };
            let reloads = live.server.events("config_reloaded").len();
            let text = format!("[shutdown]\nupgrade_program = \"{path}\"\n");
            fs::write(live.server.config_file(), text).unwrap();
            live.server.signal(Signal::HUP);
            wait_for("the reload", || live.server.events("config_reloaded").len() > reloads);
            live.server.signal(Signal::QUIT);
            let mut upgrade = Value::Null;
            live.send_until("the end of the attempt", |server| {
                let status: Value = serde_json::from_str(&server.get("/api/v1/status")).unwrap();
                upgrade = status["upgrade"].clone();
                upgrade["attempts"] == attempt && upgrade["running"] == false
            });
            let error = upgrade["error"].as_str().unwrap_or_default();
            assert!(error.contains(reason), "{name}: {error}");
            live.send(12);
            live.until_received();
            live.assert_complete();
        }
        // The new program reads the configuration as it is now.
        fs::write(live.server.config_file(), "[shutdown]\nupgrade_program = \"\"\n").unwrap();
        live.server.signal(Signal::HUP);
        let count = cases.len();
        wait_for("the reload", || live.server.events("config_reloaded").len() > count);
        fs::write(live.server.config_file(), "[limits]\nconnections_max = many\n").unwrap();
        live.server.signal(Signal::QUIT);
        live.send_until("the refusal of the configuration", |server| {
            let told = server.events("upgrade");
            told.iter().filter(|line| line["level"] == "ERROR").count() > count
        });
        live.assert_complete();
        assert!(live.server.events("close").is_empty(), "nobody was closed");
        assert!(live.server.try_exit().is_none());
        // Ten failures later it still can.
        fs::write(live.server.config_file(), "").unwrap();
        let before = live.server.successors().len();
        live.server.signal(Signal::QUIT);
        live.send_until("the hand-over", |server| server.successors().len() > before);
        live.server.pid = live.server.successors()[before];
        live.send(12);
        live.until_received();
        live.assert_complete();
    }
}

#[test]
fn what_cannot_be_passed_on_is_drained_and_what_has_said_nothing_is_passed_on() {
    for how in matrix(&[1]) {
        let mut live = Live::start(how, "[shutdown]\ndrain_ms = 5000\n", 1, 2);
        let mut silent = TcpStream::connect(live.server.http).unwrap();
        let mut viewer = TcpStream::connect(live.server.http).unwrap();
        viewer.write_all(b"GET /live/cam0.flv HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut begin = [0; 13];
        viewer.read_exact(&mut begin).unwrap();
        assert_eq!(&begin[..12], b"HTTP/1.1 200");
        live.upgrade();
        // Its stream ends in order: the last chunk of the body is there.
        let mut body = Vec::new();
        viewer.read_to_end(&mut body).unwrap();
        assert!(body.ends_with(b"\r\n0\r\n\r\n"), "the end of the body");
        silent.write_all(b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        silent.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        wait_for("the end of the old process", || live.server.try_exit().is_some());
        live.assert_complete();
    }
}

#[test]
fn ringctl_waits_until_another_process_answers() {
    let how = matrix(&[1])[0];
    let mut server = Server::start(how, "");
    let ringctl = |server: &Server| {
        let command = Command::new(env!("CARGO_BIN_EXE_ringctl"))
            .args(["--admin", &server.admin.to_string(), "upgrade"])
            .output()
            .unwrap();
        let text = [command.stdout, command.stderr].concat();
        (command.status.success(), String::from_utf8(text).unwrap())
    };
    let (done, text) = ringctl(&server);
    wait_for("the log", || !server.successors().is_empty());
    server.pid = server.successors()[0];
    assert!(done && text.contains(&format!("process {} has taken over", server.pid)), "{text}");
    fs::write(server.config_file(), "nonsense").unwrap();
    let (done, text) = ringctl(&server);
    assert!(!done && text.contains("goes on as it was"), "{text}");
}
