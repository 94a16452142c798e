//! A publisher and players that run beside whatever a test does to the server, and must notice nothing.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rtmp::session::ClientRole;

use crate::server::Secured;
use crate::support::client::{Net, assert_complete};
use crate::support::media::Source;
use crate::support::server::How;
use crate::tunnel::Tunnel;

/// One publisher by TLS, and on each worker a player by TLS and one without, both on the TLS port.
pub(crate) struct Witnesses {
    secure: Net,
    plain: Net,
    publisher: usize,
    secure_players: Vec<usize>,
    plain_players: Vec<usize>,
    source: Source,
    /// Dropped last: the others talk through it.
    _tunnel: Tunnel,
}

impl Witnesses {
    pub(crate) fn start(secured: &Secured, how: How) -> Self {
        let tunnel = Tunnel::start(secured.rtmps, secured.folder.client());
        let mut secure = Net::new(tunnel.addr);
        let publisher = secure.publish("witness");
        secure.until_started(&[publisher]);
        let play = |net: &mut Net| {
            let open = |worker| net.open(ClientRole::Play, "witness", Some(worker));
            let players: Vec<usize> = (0..how.workers).map(open).collect();
            net.until_started(&players);
            players
        };
        let secure_players = play(&mut secure);
        let mut plain = Net::new(secured.rtmps);
        let plain_players = play(&mut plain);
        let source = Source::new(1);
        secure.send_headers(publisher, &source);
        let mut witnesses = Self {
            secure,
            plain,
            publisher,
            secure_players,
            plain_players,
            source,
            _tunnel: tunnel,
        };
        witnesses.step();
        witnesses
    }

    /// One more picture for everybody.
    pub(crate) fn step(&mut self) {
        self.secure.send_frames(self.publisher, &mut self.source, 1);
        self.secure.until_received(&self.secure_players, &self.source);
        self.plain.until_received(&self.plain_players, &self.source);
    }

    /// Streams for as long as `work` takes on a thread of its own; returns what it returns.
    pub(crate) fn through<T: Send + 'static>(
        &mut self,
        what: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (sender, done) = mpsc::channel();
        let worker = thread::spawn(move || {
            // The receiver lives until this thread is joined.
            let _ = sender.send(work());
        });
        loop {
            match done.try_recv() {
                Ok(result) => {
                    worker.join().unwrap();
                    return result;
                }
                Err(mpsc::TryRecvError::Disconnected) => panic!("{what}"),
                Err(mpsc::TryRecvError::Empty) => {}
            }
            self.step();
            // A stream of 10 ms pictures: a few times faster than its own clock.
            self.plain.during(Duration::from_millis(2));
        }
    }

    /// Everybody has had every frame.
    pub(crate) fn finish(&mut self) {
        self.step();
        for (net, players) in
            [(&self.secure, &self.secure_players), (&self.plain, &self.plain_players)]
        {
            for &player in players {
                assert_eq!(assert_complete(&net.clients[player], &self.source), 0);
            }
        }
    }
}
