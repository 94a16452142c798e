//! The moment between the handshake and the kernel: whatever segments bring, no byte is lost or read twice.

use std::sync::Arc;

use tls::{Cipher, Version, rustls};

use crate::peer::{Cut, Peer};
use crate::server::{Secured, default_way, ways};

/// Bytes of the first application record at which it is cut too: its header and a little more.
const INTO_DATA_BYTES: usize = 8;

/// Cuts what a client sends after its hello at every byte; returns how many connections that took.
fn cut_everywhere(secured: &Secured, config: &Arc<rustls::ClientConfig>) -> u64 {
    let mut whole = Peer::connected(secured.rtmps, config);
    let flight_bytes = whole.flight_bytes;
    whole.say_goodbye();
    println!("{} bytes of handshake after the hello", flight_bytes);
    let mut connections = 1;
    for at in 1..=flight_bytes + INTO_DATA_BYTES {
        let mut peer = Peer::connect(secured.rtmps, config);
        peer.shake(Some(Cut { at }));
        peer.connect_app();
        peer.say_goodbye();
        connections += 1;
    }
    connections
}

#[test]
fn a_handshake_cut_at_any_byte_loses_nothing() {
    for how in ways(1) {
        let secured = Secured::start(how);
        let mut connections = 0;
        for version in [Version::Tls13, Version::Tls12] {
            let config = secured.certs.client((version, Cipher::Aes128Gcm), false);
            connections += cut_everywhere(&secured, &config);
        }
        secured.expect_handed_over(connections);
        secured.expect_none_left();
    }
}

#[test]
fn a_resumed_handshake_cut_at_any_byte_loses_nothing() {
    let secured = Secured::start(default_way());
    let mut connections = 0;
    for version in [Version::Tls13, Version::Tls12] {
        let config = secured.certs.client((version, Cipher::Aes256Gcm), true);
        let mut first = Peer::connected(secured.rtmps, &config);
        // Tickets come before the answer to this.
        first.create_stream();
        assert!(!first.session.facts().unwrap().resumed);
        let again = Peer::connected(secured.rtmps, &config);
        assert!(again.session.facts().unwrap().resumed, "{version:?}");
        connections += 2 + cut_everywhere(&secured, &config);
    }
    secured.expect_handed_over(connections);
    assert!(secured.server.metric("ringcast_tls_handshakes_total", "result=\"resumed\"") > 2);
}

#[test]
fn peers_that_leave_at_the_end_of_the_handshake_leave_nothing_behind() {
    for how in ways(1) {
        let secured = Secured::start(how);
        for version in [Version::Tls13, Version::Tls12] {
            let config = secured.certs.client((version, Cipher::Aes128Gcm), false);
            for round in 0..24 {
                let mut peer = Peer::connect(secured.rtmps, &config);
                // The last flight leaves with the end behind it.
                while peer.session.facts().is_none() {
                    let out = peer.receive().expect("the server answers");
                    assert!(peer.send_wire(&out));
                }
                match round % 3 {
                    0 => peer.vanish(),
                    1 => peer.say_goodbye(),
                    _ => {
                        peer.reset();
                        continue;
                    }
                }
                drop(peer);
            }
        }
        Peer::connected(
            secured.rtmps,
            &secured.certs.client((Version::Tls13, Cipher::Aes128Gcm), false),
        );
        secured.expect_none_left();
    }
}
