//! Whoever takes too long to begin is closed, each with its reason, and disturbs nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tls::rustls;

use crate::certs::NAME;
use crate::peer::Peer;
use crate::proxy::{trusting, v2};
use crate::server::{Secured, ways};
use crate::support::server::wait_for;
use crate::witnesses::Witnesses;

/// Each deadline is told apart from the next by what comes after it.
const SETTINGS: &str = "[limits]\nfirst_byte_ms_max = 1200\ntls_handshake_ms_max = 2400\n\
                        handshake_ms_max = 3600\n";

/// What somebody who dawdles does until he is closed, and what the log says of him then.
struct Dawdler {
    name: &'static str,
    class: &'static str,
    /// State of the transport, where the line tells it.
    transport: Option<&'static str>,
    act: fn(&mut Peer, &Arc<rustls::ClientConfig>),
}

const DAWDLERS: &[Dawdler] = &[
    Dawdler { name: "not a byte", class: "first_byte", transport: Some("opening"), act: |_, _| {} },
    Dawdler {
        name: "half a PROXY header",
        class: "first_byte",
        transport: Some("opening"),
        act: |peer, _| assert!(peer.send_wire(b"PROXY TCP4 203.0.113.7")),
    },
    Dawdler {
        name: "a PROXY header and not a byte",
        class: "first_byte",
        transport: Some("opening"),
        act: |peer, _| assert!(peer.send_wire(&v2("203.0.113.7:1", &[]))),
    },
    Dawdler {
        name: "half a hello",
        class: "tls_handshake",
        transport: Some("handshake"),
        act: |peer, config| {
            let hello = peer.hello(config, NAME);
            assert!(peer.send_wire(&hello[..hello.len() / 2]));
        },
    },
    Dawdler {
        name: "a hello byte by byte",
        class: "tls_handshake",
        transport: Some("handshake"),
        act: |peer, config| {
            let hello = peer.hello(config, NAME);
            // Longer than any deadline, if somebody let it come to that.
            let pause = Duration::from_millis(20);
            for byte in &hello {
                thread::park_timeout(pause);
                if !peer.send_wire(&[*byte]) {
                    return;
                }
            }
        },
    },
    Dawdler {
        name: "a hello and no more",
        class: "tls_handshake",
        transport: Some("handshake"),
        act: |peer, config| {
            let hello = peer.hello(config, NAME);
            assert!(peer.send_wire(&hello));
        },
    },
    Dawdler {
        name: "TLS and then silence",
        class: "handshake_timeout",
        transport: None,
        act: |peer, config| assert_eq!(peer.shake_tls(config, NAME), Ok(())),
    },
    Dawdler {
        name: "TLS, the RTMP handshake and then silence",
        class: "connect_timeout",
        transport: None,
        act: |peer, config| {
            assert_eq!(peer.shake_tls(config, NAME), Ok(()));
            peer.shake_rtmp();
        },
    },
];

/// Lets one dawdle until he is closed; returns his address.
fn dawdle(port: SocketAddr, config: &Arc<rustls::ClientConfig>, dawdler: &Dawdler) -> String {
    let mut peer = Peer::connect(port);
    let own = peer.socket.local_addr().unwrap().to_string();
    (dawdler.act)(&mut peer, config);
    // What the server still has to say is read, and not answered.
    let mut buffer = [0; 4_096];
    loop {
        match std::io::Read::read(&mut peer.socket, &mut buffer) {
            Ok(0) => return own,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return own,
            Err(error) => panic!("{}: not closed: {error}", dawdler.name),
        }
    }
}

#[test]
fn whoever_takes_too_long_is_closed_with_a_reason() {
    for how in ways() {
        let secured = trusting(how, SETTINGS);
        let mut witnesses = Witnesses::start(&secured, how);
        for port in secured.ports() {
            let config = secured.folder.client();
            // All at once: each has his own deadline.
            let owns = witnesses.through("dawdlers", move || {
                let threads: Vec<_> = DAWDLERS
                    .iter()
                    .map(|dawdler| {
                        let config = Arc::clone(&config);
                        thread::spawn(move || dawdle(port, &config, dawdler))
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            for (dawdler, own) in DAWDLERS.iter().zip(owns) {
                expect_reason(&secured, dawdler, &own);
            }
        }
        let reached = |limit: &str| {
            secured.server.metric("ringcast_limits_reached_total", &format!("limit=\"{limit}\""))
        };
        assert!(reached("tls_handshake_time") >= 3 && reached("first_byte") >= 3);
        witnesses.finish();
        drop(witnesses);
        secured.expect_none_left();
    }
}

#[test]
fn a_storm_of_handshakes_is_cut_and_streams_go_on() {
    for how in ways() {
        let secured = trusting(how, "[limits]\ntls_handshakes_per_second_max = 20\n");
        let mut witnesses = Witnesses::start(&secured, how);
        let (port, config) = (secured.rtmps, secured.folder.client());
        witnesses.through("a storm of hellos", move || {
            // All connected before the first hello, so that they meet in few seconds.
            let mut peers: Vec<Peer> = (0..400).map(|_| Peer::connect(port)).collect();
            for peer in &mut peers {
                let hello = peer.hello(&config, NAME);
                // Those over the rate may be closed meanwhile.
                let _ = peer.send_wire(&hello);
            }
        });
        let label = "limit=\"tls_handshake_rate\"";
        wait_for("the rate to be met", || {
            secured.server.metric("ringcast_limits_reached_total", label) > 0
        });
        witnesses.finish();
        drop(witnesses);
        secured.expect_none_left();
    }
}

fn expect_reason(secured: &Secured, dawdler: &Dawdler, own: &str) {
    let name = dawdler.name;
    // The one a proxy speaks for is known by the name it was given.
    let peer = if name.starts_with("a PROXY") { "203.0.113.7:1" } else { own };
    secured.server.wait_log("close", "peer", peer);
    let of_peer = |event: &str| {
        let lines = secured.server.events(event).into_iter();
        lines.filter(|line| line["peer"] == peer).collect::<Vec<_>>()
    };
    let timeouts = of_peer("timeout");
    let timeout = timeouts.last().unwrap_or_else(|| panic!("{name}: no timeout is logged"));
    assert_eq!(timeout["class"], dawdler.class, "{name}: {timeout}");
    if let Some(transport) = dawdler.transport {
        assert_eq!(timeout["transport"], transport, "{name}: {timeout}");
    }
    for close in of_peer("close") {
        assert_eq!(close["reason"], "handshake_timeout", "{name}: {close}");
    }
}
