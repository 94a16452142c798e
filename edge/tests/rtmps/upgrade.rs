//! The change of process under TLS: records of both versions go on to the byte in a new process and in the
//! one after it, for encoders, players and viewers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use edge::hand_over::record::VERSION;
use rustix::process::Signal;
use serde_json::Value;
use tls::{ClientOptions, Version};

use crate::certs::{Folder, NAME};
use crate::server::{Secured, ways};
use crate::support::client::{Net, assert_complete};
use crate::support::media::Source;
use crate::support::server::{Server, wait_for};
use crate::support::viewer::Viewer;
use crate::tunnel::Tunnel;

/// One stream, its publisher and everybody who follows it in step.
struct Show {
    net: Net,
    publisher: usize,
    players: Vec<usize>,
    source: Source,
}

impl Show {
    fn send(&mut self, count: u32) {
        self.net.send_frames(self.publisher, &mut self.source, count);
        self.net.until_received(&self.players, &self.source);
    }

    fn upgrade(&mut self, server: &mut Server) {
        server.upgrade(|| self.send(1));
    }
}

#[test]
fn encoders_players_and_viewers_over_tls_notice_nothing_of_two_upgrades() {
    for how in ways() {
        for version in [Version::Tls12, Version::Tls13] {
            follow_two_upgrades(Secured::start(how), version);
        }
    }
}

fn follow_two_upgrades(mut secured: Secured, version: Version) {
    let options = ClientOptions { version_max: version, ..ClientOptions::default() };
    let tunnel = Tunnel::start(secured.rtmps, secured.folder.authority.client(&options));
    let mut net = Net::new(tunnel.addr);
    let publisher = net.publish("cam");
    net.until_started(&[publisher]);
    let mut players: Vec<usize> = (0..6).map(|_| net.play("cam")).collect();
    net.until_started(&players);
    // Slower than the clock, so that waiting for the new process makes nobody late.
    let source = Source { step_ms: 2, keyframe_bytes: 120_000, ..Source::new(5) };
    net.send_headers(publisher, &source);
    let slow = players.remove(0);
    let mut show = Show { net, publisher, players, source };
    show.send(10);
    let viewers = [
        Viewer::get(tunnel.addr, "/live/cam.flv"),
        Viewer::websocket(tunnel.addr, "/live/cam.flv", "127.0.0.1"),
    ];
    for viewer in &viewers {
        wait_for("the first tag of a viewer", || viewer.has_begun());
    }
    for round in 0..2 {
        // Who reads nothing is in the middle of a message and of a record.
        show.net.freeze(slow);
        let is_behind = |client: Value| client["lag_ms"].as_u64() > Some(0);
        while !secured.clients().into_iter().any(is_behind) {
            show.send(10);
        }
        // The encoder is in the middle of a picture.
        show.source.restart();
        show.net.send_frames(show.publisher, &mut show.source, 1);
        show.net.clients[show.publisher].hold_back(30_000);
        let torn = show.publisher;
        show.net.until("the first part to be sent", |net| net.clients[torn].is_flushed());
        secured.server.upgrade(|| show.net.turn());
        show.net.clients[torn].let_go();
        show.net.thaw(slow);
        show.players.push(slow);
        show.send(10);
        show.players.pop();
        for &player in show.players.iter().chain(&[slow]) {
            assert_complete(&show.net.clients[player], &show.source);
        }
        for viewer in &viewers {
            show.net.until("the last tag", |_| viewer.has_all(&show.source));
            viewer.tags().assert_whole(&show.source);
        }
        let count = secured.server.metric("ringcast_tls_connections", "");
        assert_eq!(count, 9, "{version:?}, process {round}: all are counted as what they are");
    }
    assert!(tunnel.facts().iter().all(|facts| facts.version == version));
    assert_eq!(tunnel.ends(), [], "nobody was closed");
    // A step with everybody at once.
    show.players.push(slow);
    show.upgrade(&mut secured.server);
    show.send(20);
    assert!(secured.complaints().is_empty(), "{:?}", secured.complaints());
    // The session ends in order in a process that has not begun it.
    show.net.unpublish(show.publisher);
    for viewer in &viewers {
        show.net.until("the end", |_| viewer.has_ended());
    }
    drop(tunnel);
    secured.expect_none_left();
}

#[test]
fn a_handshake_under_way_ends_in_order_and_the_new_process_has_the_next_one() {
    for how in ways() {
        let mut secured = Secured::start(how);
        let config = secured.folder.client();
        let mut hello = Vec::new();
        let name = tls::server_name(NAME).unwrap();
        tls::Session::client(Arc::clone(&config), name).unwrap().start(&mut hello).unwrap();
        let mut torn = TcpStream::connect(secured.rtmps).unwrap();
        torn.write_all(&hello[..hello.len() / 2]).unwrap();
        wait_for("the handshake to begin", || {
            secured.server.metric("ringcast_connections_accepted_total", "") == 1
                && secured.server.metric("ringcast_ingress_bytes_total", "") > 0
        });
        secured.server.upgrade(|| {});
        let mut rest = Vec::new();
        torn.read_to_end(&mut rest).expect("an end, not a reset");
        secured.server.wait_log("close", "reason", "drained");
        let tunnel = Tunnel::start(secured.rtmps, config);
        let mut net = Net::new(tunnel.addr);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
    }
}

#[test]
fn after_an_upgrade_that_failed_late_everybody_goes_on_in_the_old_process() {
    // It says hello, and refuses what it is offered.
    let [a, b, c, d] = VERSION.to_be_bytes();
    let script = format!(
        "#!/usr/bin/env bash\nprintf 'RINGCAST\\x{a:02x}\\x{b:02x}\\x{c:02x}\\x{d:02x}....' >&0\n\
         printf 'Eno room here' >&0\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("refuses");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let settings = format!("[shutdown]\nupgrade_program = \"{}\"\n", program.display());
    for how in ways() {
        let secured = Secured::start_with(how, Folder::with_one(), &settings);
        let tunnel = Tunnel::start(secured.rtmps, secured.folder.client());
        let mut net = Net::new(tunnel.addr);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
        let players: Vec<usize> = (0..3).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        let source = Source { step_ms: 2, ..Source::new(5) };
        net.send_headers(publisher, &source);
        let mut show = Show { net, publisher, players, source };
        show.send(12);
        let viewers = ["/live/cam.flv", "/live/cam.flv"].map(|path| Viewer::get(tunnel.addr, path));
        for viewer in &viewers {
            wait_for("the first tag of a viewer", || viewer.has_begun());
        }
        for attempt in 1..=3 {
            secured.server.signal(Signal::QUIT);
            wait_for("the end of the attempt", || {
                show.send(1);
                secured.server.events("upgrade").iter().filter(|l| l["level"] == "ERROR").count()
                    == attempt
            });
            show.send(20);
            for &player in &show.players {
                assert_complete(&show.net.clients[player], &show.source);
            }
            for viewer in &viewers {
                show.net.until("the last tag", |_| viewer.has_all(&show.source));
                viewer.tags().assert_whole(&show.source);
            }
        }
        assert!(tunnel.ends().is_empty() && secured.server.successors().is_empty());
    }
}
