//! Certificates replaced while a stream runs: nobody who is connected notices, whoever comes next does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use tls::rustls::pki_types::CertificateDer;

use crate::certs::{Folder, NAME};
use crate::forge::served;
use crate::server::{Secured, ways};
use crate::support::PATIENCE;
use crate::support::client::{Net, assert_complete, assert_headers_first};
use crate::support::media::Source;
use crate::support::server::wait_for;
use crate::tunnel::Tunnel;

const PLAYERS: usize = 50;
/// Frames that may be on their way to the slowest player before the next is sent.
const AHEAD_MAX: usize = 200;
/// The stream runs faster than its clock here, and nobody may be skipped for it.
const SETTINGS: &str = "[defaults]\nlag_ms_max = 600000\nretention_ms = 600000\n";

/// A publisher and players by TLS.
struct Crowd {
    net: Net,
    publisher: usize,
    players: Vec<usize>,
    source: Source,
}

impl Crowd {
    fn start(tunnel: &Tunnel) -> Self {
        let mut net = Net::new(tunnel.addr);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
        let players: Vec<usize> = (0..PLAYERS).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        let source = Source { frame_bytes: 1_500, ..Source::new(5) };
        net.send_headers(publisher, &source);
        let mut crowd = Self { net, publisher, players, source };
        crowd.stream_until("the first frames", |crowd| {
            crowd.players.iter().all(|&player| crowd.net.clients[player].last_frame().is_some())
        });
        crowd
    }

    /// True while somebody has yet to take much of what was sent.
    fn is_far_ahead(&self) -> bool {
        let taken = |&player: &usize| self.net.clients[player].last_sequence().unwrap_or(0);
        let slowest = self.players.iter().map(taken).min().unwrap_or(0);
        self.source.sent.len() > slowest as usize + AHEAD_MAX
    }

    /// Streams, one picture per turn as long as everybody follows, until the condition holds.
    fn stream_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if !self.is_far_ahead() {
                self.net.send_frames(self.publisher, &mut self.source, 1);
            }
            self.net.turn();
            if done(self) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
        }
    }

    fn finish(&mut self) {
        self.net.until_received(&self.players, &self.source);
        for &player in &self.players {
            let client = &self.net.clients[player];
            assert_eq!(assert_complete(client, &self.source), 0);
            assert_headers_first(client);
        }
    }
}

/// Handshakes without end on a thread of its own, and what certificates it was given.
struct Newcomers {
    seen: Arc<Mutex<Vec<CertificateDer<'static>>>>,
    is_stopping: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Newcomers {
    fn start(secured: &Secured) -> Self {
        let (addr, client) = (secured.rtmps, secured.folder.client());
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let is_stopping = Arc::new(AtomicBool::new(false));
        let (sink, stop) = (Arc::clone(&seen), Arc::clone(&is_stopping));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let certificate = served(addr, &client, NAME).unwrap();
                sink.lock().unwrap().push(certificate);
            }
        });
        Self { seen, is_stopping, thread: Some(thread) }
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn last(&self) -> Option<CertificateDer<'static>> {
        self.seen.lock().unwrap().last().cloned()
    }

    /// The certificates in the order in which they were given, each once per stretch.
    fn finish(&mut self) -> Vec<CertificateDer<'static>> {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("no handshake fails");
        let mut seen = self.seen.lock().unwrap().clone();
        seen.dedup();
        seen
    }
}

#[test]
fn fifty_players_lose_no_frame_while_their_certificate_is_replaced() {
    for how in ways() {
        let folder = Folder::new();
        let names = [NAME, "127.0.0.1"];
        let mut expected = vec![folder.put("one", &names)];
        let secured = Secured::start_with(how, folder, SETTINGS);
        let tunnel = Tunnel::start(secured.rtmps, secured.folder.client());
        let mut crowd = Crowd::start(&tunnel);
        let mut newcomers = Newcomers::start(&secured);
        crowd.stream_until("a newcomer", |_| newcomers.count() > 2);

        for _ in 0..2 {
            let fresh = secured.folder.put("one", &names);
            secured.server.signal(Signal::HUP);
            crowd
                .stream_until("the new certificate", |_| newcomers.last().as_ref() == Some(&fresh));
            expected.push(fresh);
        }
        break_and_mend(&secured, &mut crowd, &newcomers);
        let mended = secured.folder.put("one", &names);
        secured.server.signal(Signal::HUP);
        crowd.stream_until("the mended one", |_| newcomers.last().as_ref() == Some(&mended));
        expected.push(mended);

        assert!(newcomers.finish() == expected, "{how:?}: each in its turn, and never back");
        crowd.finish();
        assert_eq!(tunnel.facts().len(), PLAYERS + 1, "nobody had to connect again");
        assert_eq!(tunnel.ends(), []);
        assert_eq!(secured.server.metric("ringcast_subscriber_skips_total", ""), 0);
        assert_eq!(secured.server.metric("ringcast_tls_errors_total", ""), 0);
        drop((crowd, tunnel));
        secured.expect_none_left();
    }
}

/// Files that cannot be used change nothing but the log.
fn break_and_mend(secured: &Secured, crowd: &mut Crowd, newcomers: &Newcomers) {
    let served = newcomers.last().unwrap();
    let foreign = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (file, text) in [("one.key", foreign.as_str()), ("one.crt", "-----BEGIN NONSENSE")] {
        let refused = secured.server.events("cert_refused").len();
        secured.folder.replace(file, text);
        secured.server.signal(Signal::HUP);
        crowd
            .stream_until("the refusal", |_| secured.server.events("cert_refused").len() > refused);
        let before = newcomers.count();
        crowd.stream_until("newcomers after the refusal", |_| newcomers.count() > before + 3);
        assert!(newcomers.last().unwrap() == served, "{file}: the one before stays");
    }
}

#[test]
fn a_name_added_and_a_name_taken_away_by_a_reload_are_chosen_from_then_on() {
    for how in ways() {
        let secured = Secured::start(how);
        let client = secured.folder.client();
        assert!(served(secured.rtmps, &client, "late.test").is_err());
        let late = secured.folder.put("late", &["late.test"]);
        secured.server.signal(Signal::HUP);
        wait_for("the new name", || {
            served(secured.rtmps, &client, "late.test").as_ref() == Ok(&late)
        });
        for file in ["late.crt", "late.key"] {
            std::fs::remove_file(secured.folder.served().join(file)).unwrap();
        }
        secured.server.signal(Signal::HUP);
        wait_for("the name to be gone", || served(secured.rtmps, &client, "late.test").is_err());
        secured.server.wait_log("cert_removed", "certificate", "late");
        assert!(served(secured.rtmps, &client, NAME).is_ok());
    }
}
