//! The change of process: the keys the kernel holds go with their sockets, and the next record is the next
//! one, in both directions and of every kind.

use serde_json::Value;
use tls::{Cipher, Version};

use crate::certs::Suite;
use crate::peer::{End, Peer};
use crate::server::{Secured, ways};
use crate::support::client::{Net, assert_complete};
use crate::support::media::Source;
use crate::support::server::{Server, wait_for};
use crate::support::viewer::Viewer;
use crate::tunnel::Tunnel;

/// TLS connections of one [`Show`]: an encoder, two players, two viewers over HTTP, and one that is idle.
const CONNECTIONS: u64 = 6;

/// A stream and all who follow it, in one version of TLS.
struct Show {
    suite: Suite,
    name: &'static str,
    tunnel: Tunnel,
    net: Net,
    publisher: usize,
    players: Vec<usize>,
    /// One of the players, who does not always read.
    slow: usize,
    viewers: Vec<Viewer>,
    idle: Peer,
    source: Source,
}

impl Show {
    fn start(secured: &Secured, suite: Suite, name: &'static str) -> Self {
        let config = secured.certs.client(suite, false);
        let idle = Peer::connected(secured.rtmps, &config);
        let tunnel = Tunnel::start(secured.rtmps, config);
        let mut net = Net::new(tunnel.addr);
        let publisher = net.publish(name);
        net.until_started(&[publisher]);
        let players: Vec<usize> = (0..2).map(|_| net.play(name)).collect();
        net.until_started(&players);
        let slow = players[0];
        // Slower than the clock, so that waiting for the new process makes nobody late.
        let source = Source { step_ms: 1, keyframe_bytes: 120_000, ..Source::new(7) };
        net.send_headers(publisher, &source);
        let path = format!("/live/{name}.flv");
        let viewers = vec![
            Viewer::get(tunnel.addr, &path),
            Viewer::websocket(tunnel.addr, &path, "127.0.0.1"),
        ];
        let mut show =
            Self { suite, name, tunnel, net, publisher, players, slow, viewers, idle, source };
        show.send(10);
        let Self { net, viewers, .. } = &mut show;
        net.until("the viewers to begin", |_| viewers.iter().all(Viewer::has_begun));
        show
    }

    /// Sends so many pictures; all who read get them.
    fn send(&mut self, count: u32) {
        let Self { net, players, source, .. } = self;
        net.send_frames(self.publisher, source, count);
        let reading = players.iter().copied().filter(|&player| !net.clients[player].is_frozen);
        let reading: Vec<usize> = reading.collect();
        net.until_received(&reading, source);
    }

    /// One player is in the middle of a message and of a record, and so is the encoder.
    fn tear(&mut self, server: &Server) {
        self.net.freeze(self.slow);
        while !self.is_anybody_behind(server) {
            self.send(10);
        }
        self.source.restart();
        let publisher = self.publisher;
        self.net.send_frames(publisher, &mut self.source, 1);
        self.net.clients[publisher].hold_back(30_000);
        self.net.until("the first part to be sent", |net| net.clients[publisher].is_flushed());
    }

    /// Somebody waits for room in its socket.
    fn is_anybody_behind(&self, server: &Server) -> bool {
        let clients: Value = serde_json::from_str(&server.get("/api/v1/clients")).unwrap();
        let mut clients = clients["items"].as_array().unwrap().iter();
        clients.any(|it| it["stream"] == self.name && it["lag_ms"].as_u64() > Some(0))
    }

    /// Everybody goes on, and has every frame.
    fn mend(&mut self) {
        self.net.clients[self.publisher].let_go();
        self.net.thaw(self.slow);
        self.send(12);
        for &player in &self.players {
            assert_complete(&self.net.clients[player], &self.source);
        }
        for viewer in &self.viewers {
            self.net.until("the last tag", |_| viewer.has_all(&self.source));
            viewer.tags().assert_whole(&self.source);
        }
        assert_eq!(self.tunnel.ends(), [], "{:?}: nobody was closed", self.suite);
        self.idle.create_stream();
    }

    /// The stream ends, and viewers over HTTP with it.
    fn end(&mut self) {
        self.net.unpublish(self.publisher);
        for viewer in &self.viewers {
            self.net.until("the end of a viewer", |_| viewer.has_ended());
        }
        wait_for("the ends of viewers", || self.tunnel.ends().len() >= self.viewers.len());
        let ends = self.tunnel.ends();
        assert!(ends.iter().all(|&end| end == End::Orderly), "{:?}: {ends:?}", self.suite);
    }
}

#[test]
fn encoders_players_and_viewers_keep_every_frame_over_an_upgrade() {
    for how in ways(1) {
        let mut secured = Secured::start(how);
        let suites = [
            ((Version::Tls13, Cipher::Aes128Gcm), "new"),
            ((Version::Tls12, Cipher::Aes256Gcm), "old"),
        ];
        let mut shows = suites.map(|(suite, name)| Show::start(&secured, suite, name));
        secured.expect_handed_over(2 * CONNECTIONS);
        shows.iter_mut().for_each(|show| show.tear(&secured.server));
        secured.server.upgrade(|| shows.iter_mut().for_each(|show| show.net.turn()));
        shows.iter_mut().for_each(Show::mend);
        // They are the same connections, and counted as what they are.
        secured.expect_in_kernel(2 * CONNECTIONS);
        let mode = if secured.is_kernel { "mode=\"kernel\"" } else { "mode=\"records\"" };
        let count = secured.server.metric("ringcast_tls_connections", mode);
        assert_eq!(count, 2 * CONNECTIONS);
        let sealed = secured.server.metric("ringcast_tls_sealed_bytes_total", "");
        assert_eq!(sealed == 0, secured.is_kernel, "{sealed} bytes were sealed by the server");
        // What is no data is understood by a process that has not seen the handshake.
        let [new, _] = &mut shows;
        let mut update = Vec::new();
        new.idle.session.update_keys(&mut update).unwrap();
        assert!(new.idle.send_wire(&update));
        if secured.can_change_keys() {
            new.idle.create_stream();
        } else {
            assert_eq!(new.idle.read_to_end(), End::Orderly);
        }
        assert_eq!(secured.decrypt_errors(), 0);
        shows.iter_mut().for_each(Show::end);
        drop(shows);
        secured.expect_none_left();
    }
}
