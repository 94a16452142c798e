//! Signals end to end: with a real process and real peers, and once inside this process with workers
//! that are not real, to see each command they are given. Only that one test signals its own
//! process, because signals are for the whole of it.

mod common;
mod support;

use std::fs;
use std::net::TcpStream;
use std::process::ExitStatus;

use common::{Options, TestServer, Told};
use rustix::process::{Signal, getpid, kill_process};
use support::client::{Net, Seen, assert_complete};
use support::media::Source;
use support::server::{How, Server, matrix, wait_for};

const UNPUBLISHED: &str = "NetStream.Play.UnpublishNotify";

/// A server with a publisher and players of `live/cam` who have got something.
struct Live {
    server: Server,
    net: Net,
    publisher: usize,
    players: Vec<usize>,
    source: Source,
}

impl Live {
    fn start(how: How, settings: &str, players: usize) -> Self {
        let server = Server::start(how, settings);
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
        let players: Vec<usize> = (0..players).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 15);
        net.until_received(&players, &source);
        Self { server, net, publisher, players, source }
    }

    /// Turns the clients until the server has ended.
    fn until_exit(&mut self) -> ExitStatus {
        let Self { server, net, .. } = self;
        net.until("the end of the process", |_| server.try_exit().is_some());
        server.wait_exit()
    }
}

#[test]
fn sigterm_tells_players_refuses_new_peers_and_ends_when_the_publisher_has_left() {
    for how in matrix(&[1, 2]) {
        let settings = "[shutdown]\ndrain_ms = 3600000\n[defaults]\nidle_publisher_ms_max = 0\n";
        let mut live = Live::start(how, settings, 6);
        live.server.signal(Signal::TERM);
        let Live { server, net, publisher, players, source } = &mut live;
        net.until("the drain to be told of", |_| {
            server.get("/api/v1/status").contains("\"drain\":{\"left_ms\":")
        });
        net.until("the goodbye to the players", |net| {
            players.iter().all(|&player| net.clients[player].ended.is_some())
        });
        for &player in players.iter() {
            let client = &net.clients[player];
            let asked = client.seen.iter().position(|seen| *seen == Seen::Reconnect);
            assert!(asked.is_some(), "who understands it is asked to come again first");
            assert!(client.has_status(UNPUBLISHED), "{:?}", client.seen.last());
            assert_complete(client, source);
        }
        net.until("the publisher to be told", |net| {
            net.clients[*publisher].seen.contains(&Seen::Reconnect)
        });
        assert_eq!(net.clients[*publisher].ended, None, "a publisher may end in order");
        let addr = server.rtmp;
        wait_for("new peers to be refused", || TcpStream::connect(addr).is_err());
        assert!(server.try_exit().is_none());
        net.unpublish(*publisher);
        net.vanish(*publisher);
        assert!(live.until_exit().success());
    }
}

#[test]
fn sigterm_ends_within_the_drain_time_although_a_publisher_goes_on() {
    for how in matrix(&[1, 2]) {
        let mut live = Live::start(how, "[shutdown]\ndrain_ms = 400\n", 2);
        live.server.signal(Signal::TERM);
        // Bounded by the patience of all tests; that it is the configured time, the log tells.
        let status = live.until_exit();
        assert!(status.success(), "{status:?}");
        let told = live.server.events("drain");
        assert!(
            told.iter().any(|line| line["message"] == "draining for at most 400ms"),
            "{told:?}"
        );
        assert_eq!(
            live.server.events("stop").iter().filter(|l| l["message"] == "stopped").count(),
            1
        );
    }
}

#[test]
fn sigint_ends_at_once_with_everybody_connected() {
    for how in matrix(&[2]) {
        let mut live = Live::start(how, "[shutdown]\ndrain_ms = 3600000\n", 6);
        live.server.signal(Signal::INT);
        let status = live.until_exit();
        assert!(status.success(), "{status:?}");
        let Live { net, publisher, players, .. } = &mut live;
        net.until("the end of all connections", |net| {
            players.iter().chain([&*publisher]).all(|&index| net.clients[index].ended.is_some())
        });
    }
}

#[test]
fn sighup_applies_a_change_and_keeps_the_old_configuration_when_the_new_one_is_wrong() {
    for how in matrix(&[2]) {
        let server = Server::start(how, "[defaults]\ngrace_ms = 3600000\n");
        let reload = |text: &str, event: &str| {
            let before = server.events(event).len();
            fs::write(server.config_file(), text).unwrap();
            server.signal(Signal::HUP);
            wait_for(event, || server.events(event).len() > before);
        };
        reload("[defaults]\ngrace_ms = 100\nflush = 20\n", "config_reloaded");
        ends_soon_after_a_loss(&server, "first");
        assert!(server.metric("ringcast_flushes_total", "cause=\"window\"") > 0, "flush = 20");
        reload("[defaults]\ngrace_ms = soon\n", "config_refused");
        ends_soon_after_a_loss(&server, "second");
        reload("[defaults]\ngrace_mz = 3600000\n", "config_refused");
        ends_soon_after_a_loss(&server, "third");
    }
}

/// A stream whose publisher is lost is over after the short grace period.
fn ends_soon_after_a_loss(server: &Server, name: &str) {
    let mut net = Net::new(server.rtmp);
    let publisher = net.publish(name);
    net.until_started(&[publisher]);
    let player = net.play(name);
    net.until_started(&[player]);
    let mut source = Source::new(1);
    net.send_headers(publisher, &source);
    net.send_frames(publisher, &mut source, 3);
    net.until_received(&[player], &source);
    net.reset(publisher);
    net.until("the end of the stream", |net| net.clients[player].has_status(UNPUBLISHED));
}

#[test]
fn sighup_under_load_cuts_nobody() {
    for how in matrix(&[2]) {
        let mut live = Live::start(how, "", 30);
        for round in 1..=5_u32 {
            let reloads = live.server.events("config_reloaded").len();
            let text = format!("[defaults]\ngrace_ms = {round}000\nflush = {round}\n");
            fs::write(live.server.config_file(), text).unwrap();
            live.server.signal(Signal::HUP);
            wait_for("the reload", || {
                live.net.send_frames(live.publisher, &mut live.source, 1);
                live.net.until_received(&live.players, &live.source);
                live.server.events("config_reloaded").len() > reloads
            });
        }
        live.net.send_frames(live.publisher, &mut live.source, 10);
        live.net.until_received(&live.players, &live.source);
        for &player in &live.players {
            assert_eq!(assert_complete(&live.net.clients[player], &live.source), 0);
        }
        assert!(live.server.events("close").is_empty());
    }
}

#[test]
fn hangup_reloads_and_terminate_drains_then_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringcast.toml");
    fs::write(&file, "[limits]\nstreams_max = 5\n").unwrap();
    let options = Options { file: Some(file.clone()), workers: 1, ..Options::default() };
    let server = TestServer::start(options);
    // An answer shows that the control loop runs, and with it the signal handlers.
    assert_eq!(server.ask("get", "/readyz").0, 200);

    fs::write(&file, "[limits]\nstreams_max = 6\n").unwrap();
    kill_process(getpid(), Signal::HUP).unwrap();
    assert!(matches!(server.told(), Told::Config(0, config) if config.limits.streams_max == 6));

    fs::write(&file, "[limits]\nstreams_max = none\n").unwrap();
    kill_process(getpid(), Signal::HUP).unwrap();
    // Two signals may be delivered to two threads, and the first one seen last: by the next server.
    wait_for("the refused reload", || {
        let metrics = server.ask_text("get", "/metrics", &[]).2;
        metrics.contains("ringcast_config_reloads_total{result=\"failure\"} 1\n")
    });
    kill_process(getpid(), Signal::TERM).unwrap();
    assert!(matches!(server.told(), Told::Drain(0, _)), "a refused reload reaches no worker");
    assert!(matches!(server.told(), Told::Stop(0)));
    server.join().unwrap();

    let server = TestServer::start(Options { workers: 1, ..Options::default() });
    assert_eq!(server.ask("get", "/readyz").0, 200);
    kill_process(getpid(), Signal::INT).unwrap();
    let told = server.told();
    assert!(matches!(told, Told::Stop(0)), "no draining: {told:?}");
    server.join().unwrap();
}
