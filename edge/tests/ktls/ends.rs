//! How connections end, by either side, in order and not.

use rustix::process::Signal;
use tls::{Cipher, Version};

use crate::certs::suites;
use crate::peer::{End, Peer};
use crate::server::{Secured, default_way, ways};
use crate::support::client::Net;
use crate::support::media::Source;
use crate::support::server::wait_for;
use crate::tunnel::Tunnel;

#[test]
fn a_goodbye_of_the_client_ends_its_stream_and_is_answered() {
    for how in ways(1) {
        let secured = Secured::start(how);
        for suite in suites() {
            let config = secured.certs.client(suite, false);
            let mut peer = Peer::publishing(secured.rtmps, &config, "cam");
            peer.say_goodbye();
            assert_eq!(peer.read_to_end(), End::Orderly, "{suite:?}");
            // The name is free: the same again is not refused.
        }
        secured.expect_none_left();
    }
}

#[test]
fn a_server_that_stops_says_goodbye_to_everybody() {
    let mut secured = Secured::start(default_way());
    let tunnels: Vec<Tunnel> = suites()
        .into_iter()
        .map(|suite| Tunnel::start(secured.rtmps, secured.certs.client(suite, false)))
        .collect();
    let mut publishing = Net::new(tunnels[0].addr);
    let publisher = publishing.publish("cam");
    publishing.until_started(&[publisher]);
    let mut source = Source::new(1);
    publishing.send_headers(publisher, &source);
    publishing.send_frames(publisher, &mut source, 5);
    publishing.until("all to be sent", |net| net.clients[publisher].is_flushed());
    let mut nets = Vec::new();
    for tunnel in &tunnels {
        let mut net = Net::new(tunnel.addr);
        let player = net.play("cam");
        net.until_received(&[player], &source);
        nets.push(net);
    }
    secured.server.signal(Signal::TERM);
    assert!(secured.server.wait_exit().success());
    wait_for("the ends", || tunnels.iter().map(|tunnel| tunnel.ends().len()).sum::<usize>() == 7);
    for tunnel in &tunnels {
        assert!(tunnel.ends().iter().all(|&end| end == End::Orderly), "{:?}", tunnel.ends());
    }
}

#[test]
fn a_forged_record_ends_its_connection_and_no_other() {
    for how in ways(1) {
        let secured = Secured::start(how);
        for suite in suites() {
            let config = secured.certs.client(suite, false);
            let mut bystander = Peer::connected(secured.rtmps, &config);
            let mut peer = Peer::connected(secured.rtmps, &config);
            let mut forged = vec![23, 3, 3, 0, 64];
            forged.extend([0x5a; 64]);
            assert!(peer.send_wire(&forged));
            let end = peer.read_to_end();
            println!("{suite:?}: {end:?}");
            bystander.create_stream();
        }
        let errors = if secured.is_kernel { 6 } else { 0 };
        assert_eq!(secured.decrypt_errors(), errors, "counted by the kernel");
        secured.expect_none_left();
    }
}

#[test]
fn a_record_that_is_not_tls_ends_its_connection() {
    let secured = Secured::start(default_way());
    let config = secured.certs.client((Version::Tls13, Cipher::Aes128Gcm), false);
    for wire in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[23, 3, 3, 0xff, 0xff, 0], &[0; 5]] {
        let mut peer = Peer::connected(secured.rtmps, &config);
        assert!(peer.send_wire(wire));
        peer.read_to_end();
    }
    let mut after = Peer::connected(secured.rtmps, &config);
    after.create_stream();
}
