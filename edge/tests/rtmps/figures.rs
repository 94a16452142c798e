//! What the metrics tell of TLS, and that they tell nothing any more when everybody has left.

use std::sync::Arc;

use tls::{ClientOptions, Version};

use crate::certs::{NAME, only};
use crate::peer::{Dress, Peer};
use crate::server::{Secured, ways};
use crate::support::server::wait_for;

#[test]
fn handshakes_from_a_ticket_are_counted_apart_whichever_worker_they_reach() {
    const AGAIN: u64 = 12;
    for how in ways() {
        let secured = Secured::start(how);
        for (versions, version) in [Version::Tls13, Version::Tls12].into_iter().enumerate() {
            let client = secured.folder.authority.client(&only(version, true));
            let dress = Dress::Tls(client, NAME);
            for round in 0..=AGAIN {
                let mut peer = Peer::connected(secured.rtmps, &dress);
                // Tickets come before the answer to this.
                peer.create_stream();
                let facts = peer.facts().unwrap();
                assert_eq!((facts.version, facts.resumed), (version, round > 0));
                peer.say_goodbye();
            }
            let versions = versions as u64 + 1;
            wait_for("the handshakes to be counted", || {
                (secured.handshakes("full"), secured.handshakes("resumed"))
                    == (versions, versions * AGAIN)
            });
        }
        assert_eq!(secured.handshakes("failed"), 0);
        secured.expect_none_left();
    }
}

#[test]
fn a_ticket_outlives_the_certificate_it_was_given_with() {
    for how in ways() {
        let secured = Secured::start(how);
        let client = secured.folder.authority.client(&ClientOptions::default());
        let dress = Dress::Tls(Arc::clone(&client), NAME);
        Peer::connected(secured.rtmps, &dress).create_stream();
        let fresh = secured.folder.put("one", &[NAME]);
        secured.server.signal(rustix::process::Signal::HUP);
        let newcomer = secured.folder.client();
        wait_for("the new certificate", || {
            crate::forge::served(secured.rtmps, &newcomer, NAME).as_ref() == Ok(&fresh)
        });
        let mut peer = Peer::connected(secured.rtmps, &dress);
        peer.create_stream();
        assert!(peer.facts().unwrap().resumed);
    }
}

#[test]
fn the_figures_of_tls_follow_who_is_there_and_end_at_nothing() {
    for how in ways() {
        let secured = Secured::start(how);
        let config = secured.folder.client();
        let dress = Dress::Tls(Arc::clone(&config), NAME);
        let open = || secured.server.metric("ringcast_tls_connections", "");
        let mut peers: Vec<Peer> = (0..9).map(|_| Peer::connected(secured.rtmps, &dress)).collect();
        let plain = Peer::connected(secured.rtmps, &Dress::Plain);
        assert_eq!(open(), 9, "those without TLS are not among them");
        assert_eq!(secured.server.metric("ringcast_connections", ""), 10);
        // Leaving in every way there is.
        for (index, mut peer) in peers.drain(..).enumerate() {
            match index % 5 {
                0 => peer.say_goodbye(),
                1 => peer.reset(),
                2 => {
                    peer.vanish();
                    peer.read_to_end();
                }
                3 => drop(peer.send_wire(&[23, 3, 3, 0, 32].repeat(8))),
                _ => {
                    let id = own_id(&secured, &peer);
                    kick(&secured, &id);
                    peer.read_to_end();
                }
            }
        }
        drop(plain);
        // Handshakes that come to nothing are never among them.
        let mut half = Peer::connect(secured.rtmps);
        let hello = half.hello(&config, NAME);
        assert!(half.send_wire(&hello));
        half.reset();
        Peer::behind(secured.rtmps, &[0x16; 99]).read_to_end();
        secured.expect_none_left();
        for mode in ["mode=\"records\"", "mode=\"kernel\""] {
            assert_eq!(secured.server.metric("ringcast_tls_connections", mode), 0, "{mode}");
        }
        assert!(secured.server.metric("ringcast_tls_errors_total", "") > 0);
    }
}

/// How the API calls this peer.
fn own_id(secured: &Secured, peer: &Peer) -> String {
    let own = peer.socket.local_addr().unwrap().to_string();
    let clients = secured.clients();
    let client = clients.iter().find(|client| client["peer"] == own).expect("it is listed");
    client["id"].as_str().expect("an id").to_owned()
}

fn kick(secured: &Secured, id: &str) {
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let url = format!("http://{}/api/v1/clients/{id}", secured.server.admin);
    assert_eq!(agent.delete(url).call().unwrap().status(), 200);
}
