//! A session that goes on in another process: the peer, which is the TLS library itself, must not notice.

#[allow(dead_code, reason = "shared with the tests of the hand-over to the kernel")]
mod support;

use std::collections::HashSet;

use support::explicit_nonces;
use tls::testing::{Pair, Side};
use tls::{Cipher, ErrorKind, Progress, Session, SessionRecord, TlsError, Version};

const SIDES: [Side; 2] = [Side::Server, Side::Client];

/// `side` of the pair goes on from its record; what was a session is dropped.
fn pass(pair: &mut Pair, side: Side) {
    let kept = take(pair, side);
    let (_, record) = kept.into_record().unwrap();
    let bytes = postcard::to_allocvec(&record).unwrap();
    put(pair, side, session_of(&bytes).unwrap());
}

fn session_of(bytes: &[u8]) -> Result<Session, TlsError> {
    Session::from_record(&postcard::from_bytes::<SessionRecord>(bytes).unwrap())
}

fn take(pair: &mut Pair, side: Side) -> Session {
    let spare = Pair::established(Version::Tls13, Cipher::Aes128Gcm).client;
    let place = if side == Side::Client { &mut pair.client } else { &mut pair.server };
    std::mem::replace(place, spare)
}

fn put(pair: &mut Pair, side: Side, session: Session) {
    let place = if side == Side::Client { &mut pair.client } else { &mut pair.server };
    *place = session;
}

/// Data both ways, in pieces that cut records anywhere.
fn exchange(pair: &mut Pair, seed: u8) {
    for (number, bytes) in (seed..).zip([1, 700, 16_384, 40_000]) {
        let plain = vec![number; bytes];
        for from in SIDES {
            pair.send(from, &plain).unwrap();
        }
        let mut cut = usize::from(number);
        pair.drive(|_| {
            cut = (cut * 31 + 7) % 5_000;
            cut
        })
        .unwrap();
        assert!(pair.client_plain == plain && pair.server_plain == plain, "{bytes} bytes");
        pair.client_plain.clear();
        pair.server_plain.clear();
    }
}

fn every_case(mut check: impl FnMut(Side, Version, Cipher)) {
    for side in SIDES {
        for version in [Version::Tls12, Version::Tls13] {
            for cipher in Cipher::ALL {
                check(side, version, cipher);
            }
        }
    }
}

#[test]
fn a_session_passed_on_twice_goes_on_to_the_byte_with_every_version_and_cipher() {
    every_case(|side, version, cipher| {
        let mut pair = Pair::established(version, cipher);
        exchange(&mut pair, 1);
        let facts = pair.server.facts().cloned();
        for round in 0..2 {
            // The beginning of a record has come.
            let (other, way) = match side {
                Side::Server => (Side::Client, &mut pair.to_server),
                Side::Client => (Side::Server, &mut pair.to_client),
            };
            assert!(way.is_empty());
            pair.send(other, b"in the middle of this").unwrap();
            pair.deliver(side, 3 + 9 * round).unwrap();
            pass(&mut pair, side);
            pair.drive(|all| all).unwrap();
            let heard =
                if side == Side::Server { &mut pair.server_plain } else { &mut pair.client_plain };
            assert_eq!(std::mem::take(heard), b"in the middle of this");
            exchange(&mut pair, 10);
            assert_eq!(pair.server.facts(), facts.as_ref(), "{version:?} {cipher:?}");
        }
        let way = if side == Side::Server { &mut pair.to_client } else { &mut pair.to_server };
        let ours = if side == Side::Server { &mut pair.server } else { &mut pair.client };
        ours.close_notify(way);
        let bytes = way.len();
        let (other, last) = match side {
            Side::Server => (Side::Client, pair.deliver(Side::Client, bytes)),
            Side::Client => (Side::Server, pair.deliver(Side::Server, bytes)),
        };
        assert_eq!(last.unwrap(), Progress::PeerClosed, "{other:?}");
    });
}

#[test]
fn who_is_not_taken_over_goes_on_in_its_old_process_and_can_be_offered_again() {
    every_case(|side, version, cipher| {
        let mut pair = Pair::established(version, cipher);
        for seed in [1, 50, 100] {
            let (goes_on, _) = take(&mut pair, side).into_record().unwrap();
            put(&mut pair, side, goes_on);
            exchange(&mut pair, seed);
        }
        pass(&mut pair, side);
        exchange(&mut pair, 200);
    });
}

#[test]
fn keys_change_as_often_as_they_were_derived_ahead_and_then_the_session_ends_in_order() {
    for side in SIDES {
        let mut pair = Pair::established(Version::Tls13, Cipher::Aes256Gcm);
        pass(&mut pair, side);
        let mut changes = 0;
        let end = loop {
            // The peer changes its key and wants ours changed.
            let updated = match side {
                Side::Server => pair.client.update_keys(&mut pair.to_server),
                Side::Client => pair.server.update_keys(&mut pair.to_client),
            };
            updated.unwrap();
            if let Err((at, error)) = pair.drive(|_| 3) {
                assert_eq!(at, side);
                break error;
            }
            changes += 1;
            exchange(&mut pair, changes);
            if changes == 2 {
                pass(&mut pair, side);
            }
        };
        assert_eq!((changes, end.kind()), (16, &ErrorKind::KeysExhausted));
        // The peer is told in order.
        let (other, bytes) = match side {
            Side::Server => (Side::Client, pair.to_client.len()),
            Side::Client => (Side::Server, pair.to_server.len()),
        };
        assert_eq!(pair.deliver(other, bytes).unwrap(), Progress::PeerClosed);
    }
}

#[test]
fn it_can_ask_for_new_keys_itself_with_tls_1_3_only() {
    for side in SIDES {
        let mut pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
        pass(&mut pair, side);
        for seed in [1, 50] {
            let updated = match side {
                Side::Server => pair.server.update_keys(&mut pair.to_client),
                Side::Client => pair.client.update_keys(&mut pair.to_server),
            };
            updated.unwrap();
            exchange(&mut pair, seed);
        }
        let mut old = Pair::established(Version::Tls12, Cipher::Aes128Gcm);
        pass(&mut old, Side::Server);
        assert!(old.server.update_keys(&mut old.to_client).is_err());
    }
}

#[test]
fn no_explicit_nonce_comes_twice_over_two_processes() {
    for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm] {
        let mut pair = Pair::established(Version::Tls12, cipher);
        // Behind a record of type 20 the reader of nonces takes all to be sealed.
        let mut wire = vec![20, 3, 3, 0, 0];
        for _ in 0..3 {
            for _ in 0..40 {
                pair.send(Side::Server, b"x").unwrap();
            }
            wire.extend_from_slice(&pair.to_client);
            pair.drive(|all| all).unwrap();
            pass(&mut pair, Side::Server);
        }
        let nonces = explicit_nonces(&wire);
        assert_eq!((nonces.len(), nonces.iter().collect::<HashSet<_>>().len()), (120, 120));
    }
}

#[test]
fn records_changed_on_the_way_end_it_with_an_alert_the_peer_understands() {
    every_case(|side, version, cipher| {
        let mut pair = Pair::established(version, cipher);
        pass(&mut pair, side);
        let (other, ours) = match side {
            Side::Server => (Side::Client, &mut pair.to_server),
            Side::Client => (Side::Server, &mut pair.to_client),
        };
        drop(std::mem::take(ours));
        pair.send(other, &[7; 100]).unwrap();
        let way = if side == Side::Server { &mut pair.to_server } else { &mut pair.to_client };
        let last = way.len() - 1;
        way[last] ^= 1;
        let bytes = way.len();
        let error = pair.deliver(side, bytes).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Undecryptable, "{version:?} {cipher:?}");
        let told = if side == Side::Server { pair.to_client.len() } else { pair.to_server.len() };
        let error = pair.deliver(other, told).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::AlertReceived(20));
    });
}

#[test]
fn what_cannot_be_written_down_is_known_and_a_record_that_does_not_fit_is_refused() {
    let mut pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    let mut out = Vec::new();
    let young = Pair::new(&config(), &client(), "a.example").server;
    assert!(!young.is_portable() && young.into_record().is_err());
    let mut closed = take(&mut pair, Side::Server);
    assert!(closed.is_portable());
    closed.close_notify(&mut out);
    assert!(!closed.is_portable());

    let pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    let (_, record) = pair.server.into_record().unwrap();
    let bytes = postcard::to_allocvec(&record).unwrap();
    assert!(session_of(&bytes).is_ok());
    // Another suite than that of the keys, and any other bytes: an error or a session, never a panic.
    let other = SessionRecord { facts: facts("TLS13_AES_256_GCM_SHA384"), ..record };
    assert!(Session::from_record(&other).is_err());
    let other = SessionRecord { facts: facts("TLS_RSA_WITH_3DES"), ..other };
    assert!(Session::from_record(&other).is_err());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            if let Ok(record) = postcard::from_bytes::<SessionRecord>(&changed) {
                drop(Session::from_record(&record));
            }
        }
    }
}

fn facts(suite: &str) -> tls::FactsRecord {
    let suite = suite.to_owned();
    tls::FactsRecord { is_tls13: true, suite, resumed: false, sni: None, alpn: None }
}

fn config() -> std::sync::Arc<tls::rustls::ServerConfig> {
    let authority = tls::testing::Authority::new();
    let resolver = authority.resolver(&["a.example"], tls::testing::Validity::Now);
    tls::server_config(resolver, &tls::ServerOptions::default()).unwrap()
}

fn client() -> std::sync::Arc<tls::rustls::ClientConfig> {
    let authority = tls::testing::Authority::new();
    tls::client_config(authority.roots()).unwrap()
}
