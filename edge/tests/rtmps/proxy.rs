//! PROXY headers: who may speak for others, and where the client's own address is seen then.

use std::net::SocketAddr;

use crate::certs::{Folder, NAME};
use crate::peer::{Dress, End, Peer};
use crate::server::{Secured, ways};
use crate::support::server::{How, wait_for};

/// Signature of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V4: &str = "203.0.113.7:51234";
const V6: &str = "[2001:db8::7]:51234";

/// A header of version 1 in the name of `client`.
pub(crate) fn v1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let (family, own) =
        if client.is_ipv4() { ("TCP4", "198.51.100.1") } else { ("TCP6", "2001:db8::1") };
    format!("PROXY {family} {} {own} {} 443\r\n", client.ip(), client.port()).into_bytes()
}

/// A header of version 2 in the name of `client`, with `extra` (TLVs) behind the addresses.
pub(crate) fn v2(client: &str, extra: &[u8]) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let mut addresses = Vec::new();
    let family = match client {
        SocketAddr::V4(client) => {
            addresses.extend(client.ip().octets());
            addresses.extend([198, 51, 100, 1]);
            0x11
        }
        SocketAddr::V6(client) => {
            addresses.extend(client.ip().octets());
            addresses.extend([0; 16]);
            0x21
        }
    };
    addresses.extend(client.port().to_be_bytes());
    addresses.extend(443_u16.to_be_bytes());
    addresses.extend(extra);
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x21, family], &length, &addresses].concat()
}

/// A proxy's word about itself, as its health checks have it.
fn local() -> Vec<u8> {
    [SIGNATURE, &[0x20, 0, 0, 0]].concat()
}

/// A server that believes everybody on this machine.
pub(crate) fn trusting(how: How, settings: &str) -> Secured {
    let trust = format!("proxy_from = \"127.0.0.0/8\"\n{settings}");
    Secured::start_with(how, Folder::with_one(), &trust)
}

/// With TLS and without.
fn dresses(secured: &Secured) -> [Dress; 2] {
    [Dress::Tls(secured.folder.client(), NAME), Dress::Plain]
}

fn expect_peer(secured: &Secured, address: &str) {
    let clients = secured.clients();
    assert!(clients.iter().any(|client| client["peer"] == address), "{address} in {clients:?}");
    secured.server.wait_log("connect", "peer", address);
}

#[test]
fn the_client_a_trusted_proxy_names_is_the_client_everywhere() {
    for how in ways() {
        let secured = trusting(how, "");
        let tlvs = [3, 0, 4, 1, 2, 3, 4, 4, 0, 0];
        let headers = [
            (V4, v1(V4)),
            (V6, v1(V6)),
            (V4, v2(V4, &[])),
            (V6, v2(V6, &[])),
            // With what proxies add: a checksum nobody asks for, and padding.
            (V4, v2(V4, &tlvs)),
        ];
        for port in secured.ports() {
            for dress in dresses(&secured) {
                for (address, header) in &headers {
                    let logged = secured.server.events("close").len();
                    let mut peer = Peer::behind(port, header);
                    peer.introduce(&dress, "live.test");
                    expect_peer(&secured, address);
                    assert_eq!(secured.clients().len(), 1, "the proxy itself is not listed");
                    peer.publish("cam");
                    secured.server.wait_log("publish", "peer", address);
                    peer.reset();
                    wait_for("the end", || secured.server.events("close").len() > logged);
                    assert_eq!(secured.server.events("close")[logged]["peer"], *address);
                }
            }
        }
        assert_eq!(secured.complaints(), Vec::<serde_json::Value>::new());
        secured.expect_none_left();
    }
}

#[test]
fn a_trusted_proxy_need_not_speak_for_anybody() {
    for how in ways() {
        let secured = trusting(how, "");
        for port in secured.ports() {
            for dress in dresses(&secured) {
                for header in [local(), b"PROXY UNKNOWN\r\n".to_vec(), Vec::new()] {
                    let mut peer = Peer::behind(port, &header);
                    peer.introduce(&dress, "live.test");
                    expect_peer(&secured, &peer.socket.local_addr().unwrap().to_string());
                }
            }
        }
        secured.expect_none_left();
    }
}

#[test]
fn a_health_check_of_a_proxy_is_no_error() {
    for how in ways() {
        let secured = trusting(how, "");
        for port in secured.ports() {
            for header in [local(), b"PROXY UNKNOWN\r\n".to_vec(), Vec::new()] {
                drop(Peer::behind(port, &header));
            }
        }
        wait_for("six probes", || {
            secured.server.metric("ringcast_disconnects_total", "reason=\"probe\"") == 6
        });
        assert_eq!(secured.complaints(), Vec::<serde_json::Value>::new());
        assert_eq!(secured.server.events("close"), Vec::<serde_json::Value>::new());
    }
}

#[test]
fn the_limit_per_address_counts_clients_and_not_their_proxy() {
    for how in ways() {
        let secured = trusting(how, "[limits]\nconnections_per_address_max = 2\n");
        for dress in dresses(&secured) {
            let open = |address: &str| {
                let mut peer = Peer::behind(secured.rtmps, &v2(address, &[]));
                peer.introduce(&dress, "live.test");
                peer
            };
            let first = [open("203.0.113.7:1"), open("203.0.113.7:2")];
            let others = [open("203.0.113.8:1"), open("203.0.113.9:1"), open("203.0.113.9:2")];
            let mut third = Peer::behind(secured.rtmps, &v1("203.0.113.7:3"));
            third.vanish();
            assert!(matches!(third.read_to_end(), End::Truncated | End::Reset));
            secured.server.wait_log("close", "peer", "203.0.113.7:3");
            assert!(secured.server.has_logged("close", "reason", "connection_limit"));
            drop(first);
            let is_gone =
                |address: &str| secured.clients().iter().all(|client| client["peer"] != address);
            wait_for("the first two to be gone", || {
                is_gone("203.0.113.7:1") && is_gone("203.0.113.7:2")
            });
            drop([open("203.0.113.7:4"), open("203.0.113.7:5")]);
            drop(others);
            secured.expect_none_left();
        }
    }
}

#[test]
fn clients_that_arrive_together_are_not_held_against_their_proxy() {
    for how in ways() {
        let secured = trusting(how, "[limits]\nconnections_per_address_max = 1\n");
        let mut peers: Vec<Peer> = (0..8).map(|_| Peer::connect(secured.rtmps)).collect();
        wait_for("all of them to be accepted", || {
            secured.server.metric("ringcast_connections_accepted_total", "") == 8
        });
        for (index, peer) in peers.iter_mut().enumerate() {
            assert!(peer.send_wire(&v1(&format!("203.0.113.{index}:5"))));
            peer.introduce(&Dress::Plain, "live.test");
        }
        assert_eq!(secured.clients().len(), 8);
    }
}

#[test]
fn a_header_of_anybody_else_is_an_error() {
    for how in ways() {
        let folder = Folder::with_one();
        let secured = Secured::start_with(how, folder, "proxy_from = \"10.0.0.0/8, ::1\"\n");
        for port in secured.ports() {
            for header in [v1(V4), v2(V4, &[])] {
                let before = secured.complaints().len();
                let mut peer = Peer::behind(port, &header);
                let own = peer.socket.local_addr().unwrap().to_string();
                let mut hello = vec![3];
                hello.extend_from_slice(&[0; 1536]);
                peer.send_wire(&hello);
                peer.read_to_end();
                wait_for("a complaint", || secured.complaints().len() > before);
                let line = secured.complaints().pop().unwrap();
                assert_eq!(line["peer"], own, "what it said is not believed");
            }
        }
        for line in secured.complaints() {
            assert_eq!(line["event"], "proxy_header");
            assert!(line["error"].as_str().unwrap().contains("listen.proxy_from"), "{line}");
        }
        Peer::connected(secured.rtmps, &Dress::Tls(secured.folder.client(), NAME)).create_stream();
        secured.expect_none_left();
    }
}

#[test]
fn a_header_that_cannot_be_read_ends_its_connection() {
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 600]].concat();
    let mut too_long = v2(V4, &[]);
    too_long[14] = 0xff;
    let mut no_version = v2(V4, &[]);
    no_version[12] = 0x31;
    let no_port = b"PROXY TCP4 203.0.113.7 198.51.100.1 77777 443\r\n".to_vec();
    for how in ways() {
        let secured = trusting(how, "");
        for port in secured.ports() {
            for header in [&endless, &too_long, &no_version, &no_port] {
                let before = secured.server.events("proxy_header").len();
                let mut peer = Peer::behind(port, header);
                let own = peer.socket.local_addr().unwrap().to_string();
                peer.read_to_end();
                wait_for("the log line", || secured.server.events("proxy_header").len() > before);
                let line = &secured.server.events("proxy_header")[before];
                assert_eq!(line["peer"], own);
                secured.server.wait_log("close", "peer", &own);
            }
        }
        let counted = secured.server.metric("ringcast_protocol_errors_total", "proxy_header");
        assert_eq!(counted, 8);
        secured.expect_none_left();
    }
}

#[test]
fn a_second_header_is_not_believed() {
    for how in ways() {
        let secured = trusting(how, "");
        for second in [v1("192.0.2.1:1"), v2("192.0.2.1:1", &[])] {
            let before = secured.server.events("close").len();
            Peer::behind(secured.rtmps, &[v1(V4), second].concat()).read_to_end();
            wait_for("the end", || secured.server.events("close").len() > before);
            assert_eq!(secured.server.events("close")[before]["peer"], V4);
            assert_eq!(secured.server.events("proxy_header").pop().unwrap()["peer"], V4);
        }
    }
}
