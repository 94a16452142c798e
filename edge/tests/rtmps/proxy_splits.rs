//! Every way in which segments can cut a PROXY header and the first record behind it.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use tls::rustls;

use crate::certs::NAME;
use crate::forge::terse;
use crate::peer::Peer;
use crate::proxy::{trusting, v1, v2};
use crate::server::Secured;
use crate::support::server::{matrix, wait_for};

/// Connections open at a time.
const BATCH: usize = 100;
const CLIENT: &str = "203.0.113.7:51234";

/// How a connection goes on behind the header.
#[derive(Copy, Clone, Debug)]
enum First {
    Tls,
    Rtmp,
}

/// One connection whose first bytes come in two pieces.
struct Split {
    peer: Peer,
    rest: Vec<u8>,
}

impl Split {
    /// Connects and prepares header and first record, of which nothing is sent yet.
    fn new(
        port: SocketAddr,
        config: &Arc<rustls::ClientConfig>,
        header: &[u8],
        first: First,
    ) -> Self {
        let mut peer = Peer::connect(port);
        let record = match first {
            First::Tls => peer.hello(config, NAME),
            First::Rtmp => [&[3][..], &[0; 1536]].concat(),
        };
        Self { peer, rest: [header, &record].concat() }
    }

    /// Sends what comes before the cut.
    fn send_first(&mut self, cut: usize) {
        let rest = self.rest.split_off(cut);
        let first = std::mem::replace(&mut self.rest, rest);
        assert!(self.peer.send_wire(&first));
    }

    /// Sends what comes after it; the server must answer as if there had been no cut.
    fn send_second(mut self, first: First) {
        assert!(self.peer.send_wire(&self.rest));
        match first {
            First::Tls => {
                while self.peer.facts().is_none() {
                    let result = self.peer.receive();
                    assert_eq!(result, Ok(()), "{:?}", self.peer.error);
                }
            }
            First::Rtmp => {
                while self.peer.plain.len() < 1 + 2 * 1536 {
                    assert_eq!(self.peer.receive(), Ok(()));
                }
            }
        }
        self.peer.reset();
    }
}

fn run(first: First, cuts_behind_header: usize) {
    for how in matrix(&[1]) {
        let secured = trusting(how, "");
        let config = terse(&secured.folder);
        for port in secured.ports() {
            for header in [v1(CLIENT), v2(CLIENT, &[4, 0, 2, 0, 0])] {
                let new = || Split::new(port, &config, &header, first);
                let whole = new().rest.len();
                let last = whole.min(header.len() + cuts_behind_header);
                for begin in (1..last).step_by(BATCH) {
                    batch(&secured, first, begin..last.min(begin + BATCH), new);
                }
            }
        }
        assert_eq!(secured.complaints(), Vec::<serde_json::Value>::new(), "{how:?}");
        let strangers = secured.server.events("close");
        assert!(strangers.iter().all(|line| line["peer"] == CLIENT), "{how:?}");
        secured.expect_none_left();
    }
}

/// One connection for each of these cuts. The second pieces follow when the server has taken all the first.
fn batch(secured: &Secured, first: First, cuts: Range<usize>, new: impl Fn() -> Split) {
    let taken = || secured.server.metric("ringcast_ingress_bytes_total", "");
    secured.expect_none_left();
    let before = taken();
    let sent: usize = cuts.clone().sum();
    let mut splits: Vec<Split> = Vec::new();
    for cut in cuts {
        let mut split = new();
        split.send_first(cut);
        splits.push(split);
    }
    wait_for("the first pieces to be read", || taken() == before + sent as u64);
    for split in splits {
        split.send_second(first);
    }
}

#[test]
fn a_proxy_header_and_a_client_hello_may_be_cut_at_every_byte() {
    run(First::Tls, usize::MAX / 2);
}

#[test]
fn a_proxy_header_and_a_plain_handshake_may_be_cut_at_every_byte() {
    // The rest of C0 and C1 is the business of the session's own tests.
    run(First::Rtmp, 16);
}
