//! The change of process without loss: a running server hands listeners and live connections over to a new
//! process, and goes on itself whenever that fails.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use edge::hand_over::record::VERSION;
use rustix::process::Signal;
use serde_json::Value;
use support::client::{Net, assert_complete, assert_headers_first};
use support::media::Source;
use support::server::{How, Server, hello, matrix, program, wait_for, with_workers};

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
        let Self { server, net, publishers, players, sources } = self;
        server.upgrade(|| {
            for ((&publisher, source), players) in
                publishers.iter().zip(&mut *sources).zip(&*players)
            {
                net.send_frames(publisher, source, 1);
                net.until_received(players, source);
            }
        });
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
            live.net.freeze(slow);
            live.send(40);
            live.until_received();
            live.players[1].clear();
            let (torn, mut source) = (live.publishers.pop().unwrap(), live.sources.pop().unwrap());
            source.keyframe_bytes = 90_000;
            source.restart();
            live.net.send_frames(torn, &mut source, 1);
            live.net.clients[torn].hold_back(40_000);
            live.net.until("the first part to be sent", |net| net.clients[torn].is_flushed());
            live.upgrade();
            live.publishers.push(torn);
            live.sources.push(source);
            live.net.clients[torn].let_go();
            live.net.thaw(slow);
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
        assert_headers_first(&late.clients[player]);
    }
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
        let mut live = Live::start(how, "[shutdown]\nstill_ms_max = 3000\n", 1, 8);
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
        let settings = "[shutdown]\ndrain_ms = 5000\n[defaults]\nhttp_wait_ms = 3000\n";
        let mut live = Live::start(how, settings, 1, 2);
        let mut silent = TcpStream::connect(live.server.http).unwrap();
        // In the middle of a handshake, of a request, of a wait for its answer, and of a frame.
        let mut shaking = TcpStream::connect(live.server.rtmp).unwrap();
        shaking.write_all(&[3, 0, 0, 0, 0]).unwrap();
        let mut asking = TcpStream::connect(live.server.http).unwrap();
        asking.write_all(b"GET /noth").unwrap();
        let mut waiting = TcpStream::connect(live.server.http).unwrap();
        waiting
            .write_all(b"GET /live/none.m3u8 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut talking = TcpStream::connect(live.server.http).unwrap();
        let request = "GET /live/cam0.flv HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n";
        talking.write_all(request.as_bytes()).unwrap();
        let mut begin = [0; 12];
        talking.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"HTTP/1.1 101");
        talking.write_all(&[0x89]).unwrap();
        // Five besides the publisher and its players; the one worker reads them before these pictures.
        live.send_until("the connections", |server| {
            server.metric("ringcast_connections_accepted_total", "") == 8
        });
        live.send(5);
        live.until_received();
        live.upgrade();
        let mut answer = String::new();
        assert_eq!(
            shaking.read_to_string(&mut answer).unwrap(),
            0,
            "an end, not a reset: {answer}"
        );
        let mut answer = String::new();
        asking.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("Connection: close\r\n"), "{answer}");
        // Who waits does so in the new process, for as long as there.
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("going away"), "{answer}");
        let mut frames = Vec::new();
        talking.read_to_end(&mut frames).unwrap();
        let goodbye = [&[3, 0xe9][..], b"the server is going away"].concat();
        assert!(frames.ends_with(&goodbye), "code 1001");
        silent.write_all(b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        silent.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        wait_for("the end of the old process", || live.server.try_exit().is_some());
        let drained = || {
            let ends = live.server.events("close");
            ends.iter().filter(|line| line["reason"] == "drained").count()
        };
        wait_for("their last lines", || drained() >= 3);
        let ends = live.server.events("close");
        assert_eq!(drained(), 3, "each is counted as what it was: {ends:?}");
        live.assert_complete();
    }
}

#[test]
fn the_new_process_may_have_more_workers_or_fewer() {
    let dir = tempfile::tempdir().unwrap();
    for how in matrix(&[1, 3]) {
        for workers in [1, 2, 4] {
            let path = with_workers(dir.path(), workers);
            let settings = format!("[shutdown]\nupgrade_program = \"{path}\"\n");
            let mut live = Live::start(how, &settings, 3, 8);
            for source in &mut live.sources {
                source.step_ms = 2;
            }
            live.send(20);
            live.until_received();
            live.upgrade();
            live.send(20);
            live.until_received();
            live.assert_complete();
            let status = live.status();
            let served = status["workers"].as_array().map(Vec::len);
            assert_eq!(served, Some(usize::from(workers)), "{how:?}: {status}");
            assert_eq!((&status["publishers"], &status["subscribers"]), (&3.into(), &24.into()));
        }
    }
}

#[test]
fn places_in_quotas_and_under_limits_are_taken_along_and_given_back() {
    let domains = "[limits]\nstreams_max = 2\n[defaults]\nsubscribers_per_stream_max = 4\n\
        [domain.\"push.q.test\"]\ntype = \"push\"\npublishers_max = 1\n\
        [[domain.\"push.q.test\".provider]]\nscheme = \"open\"\n\
        [domain.\"play.q.test\"]\ntype = \"play\"\npush_domain = \"push.q.test\"\n\
        subscribers_max = 3\n";
    for how in matrix(&[1, 2]) {
        let mut server = Server::start(how, domains);
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish_at("push.q.test", "cam");
        net.until_started(&[publisher]);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        let players: Vec<usize> = (0..2).map(|_| net.play_at("play.q.test", "cam")).collect();
        net.until_started(&players);
        // One of the places is a viewer's over HTTP.
        let mut viewer = TcpStream::connect(server.http).unwrap();
        viewer.write_all(b"GET /live/cam.flv HTTP/1.1\r\nHost: play.q.test\r\n\r\n").unwrap();
        viewer.set_nonblocking(true).unwrap();
        let (mut begin, mut count) = ([0; 12], 0);
        net.until("the head of the viewer's answer", |net| {
            net.send_frames(publisher, &mut source, 1);
            count += viewer.read(&mut begin[count..]).unwrap_or(0);
            count == begin.len()
        });
        viewer.set_nonblocking(false).unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        for _ in 0..2 {
            server.upgrade(|| {
                net.send_frames(publisher, &mut source, 1);
                net.turn();
            });
            let domain = |name: &str, key: &str| {
                let text = server.get(&format!("/api/v1/domains/{name}"));
                serde_json::from_str::<Value>(&text).unwrap()[key].clone()
            };
            assert_eq!(domain("push.q.test", "publishers"), 1);
            assert_eq!(domain("play.q.test", "subscribers"), 3);
            // All places are taken, of the publishers but by who replaces another.
            let player = net.play_at("play.q.test", "cam");
            net.until("the refusal of a player", |net| net.clients[player].ended.is_some());
            let other = net.publish_at("push.q.test", "other");
            net.until("the refusal of a publisher", |net| net.clients[other].ended.is_some());
        }
        // And given back where nobody has taken them.
        drop(viewer);
        net.vanish(players[0]);
        let left = |server: &Server| {
            let text = server.get("/api/v1/domains/play.q.test");
            serde_json::from_str::<Value>(&text).unwrap()["subscribers"].clone()
        };
        net.until("two places to be given back", |_| left(&server) == 1);
        let late: Vec<usize> = (0..2).map(|_| net.play_at("play.q.test", "cam")).collect();
        net.until_started(&late);
        net.unpublish(publisher);
        net.vanish(publisher);
        wait_for("the publisher's place", || {
            let text = server.get("/api/v1/domains/push.q.test");
            serde_json::from_str::<Value>(&text).unwrap()["publishers"] == 0
        });
        let next = net.publish_at("push.q.test", "next");
        net.until_started(&[next]);
    }
}

#[test]
fn who_is_told_to_end_during_an_upgrade_has_the_new_process_end_in_order() {
    let dir = tempfile::tempdir().unwrap();
    // Long enough that the signal comes while it is under way.
    let script = format!("sleep 2; exec {} \"$@\"", env!("CARGO_BIN_EXE_ringcast"));
    let path = program(dir.path(), "slow", &script);
    let settings = format!("[shutdown]\ndrain_ms = 5000\nupgrade_program = \"{path}\"\n");
    for how in matrix(&[2]) {
        for signal in [Signal::TERM, Signal::INT] {
            let mut live = Live::start(how, &settings, 1, 3);
            live.server.signal(Signal::QUIT);
            live.server.wait_log("upgrade", "message", "handing over to a new process");
            live.server.signal(signal);
            // The hand-over is not cut short, and who serves then ends as if it had been told itself.
            live.send_until("the hand-over", |server| !server.successors().is_empty());
            live.server.pid = live.server.successors()[0];
            let wanted = if signal == Signal::TERM { "drain" } else { "stop" };
            if signal == Signal::TERM {
                // An encoder that is asked to leaves.
                live.net.vanish(live.publishers[0]);
            }
            live.net.until("the end of the new process", |_| {
                !live.server.events(wanted).is_empty() && !live.server.is_running()
            });
            let reasons = live.server.events("close");
            let is_orderly =
                |line: &Value| line["reason"] != "internal" && line["reason"] != "peer_reset";
            assert!(reasons.iter().all(is_orderly), "{reasons:?}");
            assert!(live.server.wait_child().success());
        }
    }
}

#[test]
fn the_new_process_survives_being_told_to_end_the_moment_it_has_taken_over() {
    for how in matrix(&[1]) {
        for _ in 0..5 {
            let mut live = Live::start(how, "[shutdown]\ndrain_ms = 3000\n", 1, 2);
            live.upgrade();
            live.server.signal(Signal::TERM);
            live.server.wait_log("drain", "cause", "SIGTERM");
            live.send(1);
            let publisher = live.publishers[0];
            live.net.unpublish(publisher);
            live.net.vanish(publisher);
            live.net.until("the end of the new process", |_| !live.server.is_running());
        }
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
