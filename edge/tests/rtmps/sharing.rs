//! One port for all: RTMP with TLS and without and HTTP with TLS and without, told apart by first bytes.

use tls::{ClientOptions, Session};

use crate::certs::NAME;
use crate::peer::{Dress, End, Peer};
use crate::server::{Secured, ways};
use crate::support::client::{Net, assert_complete, assert_headers_first};
use crate::support::media::Source;
use crate::support::server::wait_for;
use crate::tunnel::Tunnel;

#[test]
fn both_ports_take_both_and_all_of_them_share_a_stream() {
    for how in ways() {
        let secured = Secured::start(how);
        let tunnels = secured.ports().map(|port| Tunnel::start(port, secured.folder.client()));
        let [rtmp, rtmps] = secured.ports();
        for (turn, from) in [tunnels[0].addr, tunnels[1].addr, rtmp, rtmps].into_iter().enumerate()
        {
            let mut publishing = Net::new(from);
            let name = format!("cam{turn}");
            let publisher = publishing.publish(&name);
            publishing.until_started(&[publisher]);
            let mut source = Source { keyframe_bytes: 150_000, ..Source::new(9) };
            let mut nets: Vec<(Net, Vec<usize>)> = Vec::new();
            for addr in [tunnels[0].addr, tunnels[1].addr, rtmp, rtmps] {
                let mut net = Net::new(addr);
                let players = vec![net.play(&name), net.play(&name)];
                net.until_started(&players);
                nets.push((net, players));
            }
            publishing.send_headers(publisher, &source);
            for _ in 0..10 {
                publishing.send_frames(publisher, &mut source, 2);
                publishing.turn();
                nets.iter_mut().for_each(|(net, _)| net.turn());
            }
            publishing.until("all frames to be sent", |net| net.clients[publisher].is_flushed());
            for (net, players) in &mut nets {
                net.until_received(players, &source);
                for &player in &*players {
                    assert_eq!(assert_complete(&net.clients[player], &source), 0);
                    assert_headers_first(&net.clients[player]);
                }
            }
        }
        assert_eq!(secured.complaints(), Vec::<serde_json::Value>::new());
        drop(tunnels);
        secured.expect_none_left();
    }
}

const REQUEST: &[u8] = b"GET /live/cam.flv HTTP/1.1\r\nHost: one.test\r\n\r\n";

#[test]
fn http_is_answered_before_and_after_tls() {
    for how in ways() {
        let secured = Secured::start(how);
        let mut count = 0;
        for port in secured.ports() {
            let mut plain = Peer::behind(port, REQUEST);
            assert_eq!(plain.read_to_end(), End::Truncated);
            // As browsers and curl do it, by ALPN.
            let options =
                ClientOptions { alpn: vec!["http/1.1".to_owned()], ..ClientOptions::default() };
            let client = secured.folder.authority.client(&options);
            let mut secure = Peer::secure(port, &client, NAME).map_err(|end| format!("{end:?}"));
            let secure = secure.as_mut().unwrap();
            assert_eq!(secure.facts().unwrap().alpn.as_deref(), Some("http/1.1"));
            assert!(secure.send(REQUEST));
            assert_eq!(secure.read_to_end(), End::Orderly, "close_notify behind the answer");
            for answer in [&plain.plain, &secure.plain] {
                let text = String::from_utf8_lossy(answer);
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
                assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
                assert!(head.contains("Connection: close"), "{head}");
            }
            // Viewers are served behind TLS; on the port of RTMP an HTTP request is a mistake.
            count += if port == secured.server.rtmp { 2 } else { 0 };
            wait_for("the answers to be counted", || {
                secured.server.metric("ringcast_protocol_errors_total", "label=\"http\"") == count
            });
        }
        secured.expect_none_left();
    }
}

#[test]
fn a_request_in_many_small_records_is_still_http() {
    for how in ways() {
        let secured = Secured::start(how);
        let dress = secured.folder.client();
        let mut peer = Peer::secure(secured.rtmps, &dress, NAME).map_err(|end| format!("{end:?}"));
        let peer = peer.as_mut().unwrap();
        for byte in REQUEST {
            if !peer.send(&[*byte]) {
                break;
            }
        }
        peer.read_to_end();
        assert!(peer.plain.starts_with(b"HTTP/1.1 404 "), "{}", peer.plain.escape_ascii());
    }
}

#[test]
fn whoever_only_knocks_is_no_error() {
    for how in ways() {
        let secured = Secured::start(how);
        for port in secured.ports() {
            for round in 0..6 {
                let peer = Peer::connect(port);
                match round % 3 {
                    0 => drop(peer),
                    1 => peer.reset(),
                    _ => {
                        let mut peer = peer;
                        peer.vanish();
                        assert_eq!(peer.read_to_end(), End::Truncated);
                    }
                }
            }
        }
        // A connection that was reset before it was accepted may have no address any more: it counts as
        // nothing at all.
        wait_for("the probes to be counted", || {
            let counted = secured.server.metric("ringcast_disconnects_total", "reason=\"probe\"");
            (8..=12).contains(&counted)
        });
        // A monitor that looks at the certificate and goes away is nobody's trouble either.
        let client = secured.folder.client();
        for port in secured.ports() {
            let mut peer = Peer::secure(port, &client, NAME).map_err(|end| format!("{end:?}"));
            peer.as_mut().unwrap().say_goodbye();
        }
        wait_for("two goodbyes", || {
            secured.server.metric("ringcast_disconnects_total", "reason=\"peer_closed\"") == 2
        });
        assert_eq!(secured.complaints(), Vec::<serde_json::Value>::new());
        assert_eq!(secured.handshakes("failed"), 0);
        secured.expect_none_left();
    }
}

#[test]
fn tls_inside_tls_is_refused_by_the_rtmp_session() {
    for how in ways() {
        let secured = Secured::start(how);
        let client = secured.folder.client();
        let mut peer = Peer::connected(secured.rtmps, &Dress::Tls(client.clone(), NAME));
        peer.create_stream();
        let mut outer =
            Peer::secure(secured.rtmps, &client, NAME).map_err(|end| format!("{end:?}"));
        let outer = outer.as_mut().unwrap();
        let mut hello = Vec::new();
        let name = tls::server_name(NAME).unwrap();
        Session::client(client.clone(), name).unwrap().start(&mut hello).unwrap();
        assert!(outer.send(&hello));
        assert_eq!(outer.read_to_end(), End::Orderly);
        secured.server.wait_log("protocol_error", "class", "violation_handshake_version");
        peer.create_stream();
    }
}
