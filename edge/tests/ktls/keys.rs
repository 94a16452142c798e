//! New keys in the middle of a connection (TLS 1.3, RFC 8446 §4.6.3).

use tls::{Cipher, Version};

use crate::peer::{End, Peer};
use crate::server::{Secured, default_way, ways};

/// Changes of keys in a row, without any data between: more than anybody has a use for.
const UPDATES: usize = 200;

#[test]
fn a_key_update_is_followed_or_ends_the_connection_in_order() {
    for how in ways(1) {
        let secured = Secured::start(how);
        for cipher in Cipher::ALL {
            let config = secured.certs.client((Version::Tls13, cipher), false);
            let mut bystander = Peer::connected(secured.rtmps, &config);
            let mut peer = Peer::connected(secured.rtmps, &config);
            let mut out = Vec::new();
            peer.session.update_keys(&mut out).unwrap();
            assert!(peer.send_wire(&out));
            if secured.can_change_keys() {
                peer.create_stream();
                peer.create_stream();
                println!("{cipher:?}: followed");
            } else {
                assert_eq!(peer.read_to_end(), End::Orderly, "{cipher:?}");
                println!("{cipher:?}: this kernel cannot, closed in order");
            }
            bystander.create_stream();
        }
        assert_eq!(secured.decrypt_errors(), 0);
    }
}

#[test]
fn a_peer_that_never_stops_changing_keys_is_thrown_out() {
    let secured = Secured::start(default_way());
    let config = secured.certs.client((Version::Tls13, Cipher::Aes128Gcm), false);
    let mut bystander = Peer::connected(secured.rtmps, &config);
    let mut peer = Peer::connected(secured.rtmps, &config);
    for _ in 0..UPDATES {
        let mut out = Vec::new();
        peer.session.update_keys(&mut out).unwrap();
        if !peer.send_wire(&out) {
            break;
        }
    }
    let end = peer.read_to_end();
    println!("{end:?}");
    bystander.create_stream();
    drop((peer, bystander));
    secured.expect_none_left();
}
