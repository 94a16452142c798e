//! Peers that speak something else, break the protocol, want too much, or go away.

use std::sync::Arc;

use tls::testing::{Authority, Pair, Side, Validity};
use tls::{
    Cipher, ErrorKind, HELLO_BYTES_MAX, Plaintext, Progress, RECORD_WIRE_BYTES_MAX, Roots,
    ServerOptions, Session, TlsError, Version, client_config, rustls, server_config, server_name,
};

fn server() -> Session {
    Session::server(config()).unwrap()
}

fn config() -> Arc<rustls::ServerConfig> {
    let resolver = Authority::new().resolver(&["a.example"], Validity::Now);
    server_config(resolver, &ServerOptions::default()).unwrap()
}

fn client() -> Session {
    let config = client_config(Roots::Insecure).unwrap();
    Session::client(config, server_name("a.example").unwrap()).unwrap()
}

/// What a session answers to these bytes.
fn tell(session: &mut Session, bytes: &[u8]) -> (Result<Progress, TlsError>, Vec<u8>) {
    let (mut out, mut plain) = (Vec::new(), Vec::new());
    let outcome = session.handle_bytes(bytes, &mut out, &mut plain);
    assert!(plain.is_empty());
    (outcome, out)
}

#[test]
fn plain_peers_are_told_apart_and_get_no_alert() {
    let mut c0c1 = vec![3];
    c0c1.resize(1 + 1536, 0x41);
    let cases: [(&[u8], Plaintext, &str); 4] = [
        (&c0c1, Plaintext::Rtmp, "plain_rtmp"),
        (b"GET / HTTP/1.1\r\n\r\n", Plaintext::Http, "plain_http"),
        (b"\x80\x2e\x01\x00\x02", Plaintext::Other(0x80), "not_tls"),
        (b"\x00", Plaintext::Other(0), "not_tls"),
    ];
    for (bytes, guess, label) in cases {
        for mut session in [server(), client()] {
            let (outcome, out) = tell(&mut session, bytes);
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::NotTls(guess));
            assert_eq!(error.label(), label);
            assert!(out.is_empty());
            assert_eq!(tell(&mut session, bytes).0.unwrap_err().label(), "not_ready");
        }
    }
}

#[test]
fn the_first_byte_alone_decides() {
    assert_eq!(tell(&mut server(), b"P").0.unwrap_err().label(), "plain_http");
    assert_eq!(tell(&mut server(), &[22]).0.unwrap(), Progress::Handshaking);
    assert_eq!(tell(&mut server(), &[21]).0.unwrap_err().label(), "misbehaved");
    assert_eq!(tell(&mut client(), &[21]).0.unwrap(), Progress::Handshaking);
}

#[test]
fn a_refusing_servers_alert_is_typed() {
    let (outcome, _) = tell(&mut client(), &[21, 3, 3, 0, 2, 2, 112]);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::AlertReceived(112)); // unrecognized_name
    assert_eq!(error.sni(), Some("a.example"));
}

#[test]
fn garbage_in_records_gets_an_alert() {
    let cases: [&[u8]; 5] = [
        &[22, 3, 1, 0, 4, 2, 0, 0, 0],          // a server hello
        &[22, 3, 1, 0, 0],                      // nothing
        &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0],       // a hello too short to be one
        &[22, 9, 9, 0, 5],                      // no version of TLS
        &[22, 3, 1, 0xff, 0xff, 1, 0, 0, 0, 0], // more than a record may have
    ];
    for bytes in cases {
        let mut session = server();
        let (outcome, out) = tell(&mut session, bytes);
        let error = outcome.unwrap_err();
        assert!(matches!(error.label(), "malformed" | "misbehaved"), "{error:?}");
        assert_eq!(out.first(), Some(&21), "{error:?}");
        assert!(session.held_bytes() < 4096);
    }
}

#[test]
fn an_error_behind_a_torn_handshake_message_gets_its_alert() {
    // A torn ClientKeyExchange stays in the buffer while the record behind it is refused.
    let torn = [22, 3, 3, 0, 6, 16, 0, 0, 200, 1, 2];
    for (bad, label) in [(&[9; 40][..], "malformed"), (&[20, 3, 3, 0, 1, 1], "misbehaved")] {
        let options = ServerOptions { version_max: Version::Tls12, ..ServerOptions::default() };
        let resolver = Authority::new().resolver(&["a.example"], Validity::Now);
        let config = server_config(resolver, &options).unwrap();
        let mut pair = Pair::new(&config, &client_config(Roots::Insecure).unwrap(), "a.example");
        pair.deliver(Side::Server, pair.to_server.len()).unwrap();
        let (outcome, out) = tell(&mut pair.server, &torn);
        assert_eq!((outcome.unwrap(), out.len()), (Progress::Handshaking, 0));
        assert!(!pair.server.is_at_boundary());
        let (outcome, out) = tell(&mut pair.server, bad);
        assert_eq!(outcome.unwrap_err().label(), label);
        assert!(out.is_empty() || out[0] == 21);
        assert_eq!(out.is_empty(), label == "misbehaved", "the library has no alert for this one");
    }
    // The same with a torn hello, which the library has not seen yet.
    let mut session = server();
    tell(&mut session, &[22, 3, 1, 0, 6, 1, 0, 0, 200, 3, 3]).0.unwrap();
    let (outcome, out) = tell(&mut session, &[23, 3, 3, 0, 3, 1, 2, 3]);
    assert_eq!((outcome.unwrap_err().label(), out.len()), ("misbehaved", 0));
}

#[test]
fn a_hello_may_be_large_but_not_endless() {
    // It claims too much at its first record.
    let (outcome, out) = tell(&mut server(), &[22, 3, 1, 0, 4, 1, 0, 0x80, 0]);
    assert_eq!(outcome.unwrap_err().kind(), &ErrorKind::HelloTooLarge);
    assert_eq!(out, [21, 3, 3, 0, 2, 2, 50]);
    // It claims little and comes in records of one byte, five times as large as what they carry.
    let mut session = server();
    let mut fed = 0;
    let error = loop {
        let piece = match fed {
            0 => [22, 3, 1, 0, 1, 1],
            6 => [22, 3, 1, 0, 1, 0],
            12 => [22, 3, 1, 0, 1, 0x30],
            _ => [22, 3, 1, 0, 1, 0],
        };
        fed += piece.len();
        assert!(session.held_bytes() < 4 * HELLO_BYTES_MAX);
        if let Err(error) = tell(&mut session, &piece).0 {
            break error;
        }
    };
    assert_eq!(error.kind(), &ErrorKind::HelloTooLarge);
    assert!(fed <= HELLO_BYTES_MAX + 6, "{fed}");
}

#[test]
fn a_record_changed_on_the_way_ends_the_session_with_an_alert() {
    for version in [Version::Tls12, Version::Tls13] {
        let mut pair = Pair::established(version, Cipher::Aes128Gcm);
        pair.send(Side::Client, b"some words").unwrap();
        *pair.to_server.last_mut().unwrap() ^= 1;
        let (side, error) = pair.drive(|all| all).unwrap_err();
        assert_eq!((side, error.label()), (Side::Server, "undecryptable"));
        let (side, error) = pair.drive(|all| all).unwrap_err();
        assert_eq!((side, error.kind()), (Side::Client, &ErrorKind::AlertReceived(20)));
    }
}

#[test]
fn a_torn_record_is_held_and_given_back() {
    let mut pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    let idle_bytes = pair.server.held_bytes();
    assert!(idle_bytes < 8 * 1024, "an idle session holds {idle_bytes} bytes");
    pair.send(Side::Client, &[7; 16 * 1024]).unwrap();
    let all = pair.to_server.len();
    assert!(all <= RECORD_WIRE_BYTES_MAX);
    pair.deliver(Side::Server, all - 1).unwrap();
    assert!(!pair.server.is_at_boundary() && pair.server.wanted_bytes() == 1);
    let held = pair.server.held_bytes();
    assert!((all..idle_bytes + 2 * all).contains(&held), "{held}");
    pair.deliver(Side::Server, 1).unwrap();
    assert!(pair.server.is_at_boundary());
    assert!(pair.server.held_bytes() <= idle_bytes);
    assert_eq!(pair.server_plain, [7; 16 * 1024]);
}

#[test]
fn close_notify_ends_each_direction_by_itself() {
    for version in [Version::Tls12, Version::Tls13] {
        let mut pair = Pair::established(version, Cipher::Aes256Gcm);
        pair.send(Side::Client, b"last words").unwrap();
        pair.client.close_notify(&mut pair.to_server);
        let said = pair.to_server.clone();
        pair.client.close_notify(&mut pair.to_server);
        assert_eq!(pair.to_server, said, "close_notify is said once");
        assert_eq!(pair.send(Side::Client, b"more").unwrap_err().label(), "not_ready");
        let progress = pair.deliver(Side::Server, pair.to_server.len()).unwrap();
        assert_eq!(progress, Progress::PeerClosed);
        assert_eq!(pair.server_plain, b"last words");
        assert!(!pair.server.is_kernel_ready());
        // What comes after it is ignored and not kept.
        let held = pair.server.held_bytes();
        for _ in 0..100 {
            let (outcome, out) = tell(&mut pair.server, &[0xff; 1000]);
            assert_eq!((outcome.unwrap(), out.len()), (Progress::PeerClosed, 0));
        }
        assert_eq!(pair.server.held_bytes(), held);
        pair.server.handle_end().unwrap();
        // The other direction is still open.
        pair.send(Side::Server, b"good bye").unwrap();
        pair.server.close_notify(&mut pair.to_client);
        let progress = pair.deliver(Side::Client, pair.to_client.len()).unwrap();
        assert_eq!((progress, &pair.client_plain[..]), (Progress::PeerClosed, &b"good bye"[..]));
    }
}

#[test]
fn a_close_notify_that_nobody_vouches_for_does_not_close() {
    let mut session = client();
    let mut out = Vec::new();
    session.start(&mut out).unwrap();
    let (outcome, _) = tell(&mut session, &[21, 3, 3, 0, 2, 1, 0]);
    assert_eq!(outcome.unwrap(), Progress::Handshaking);
    assert_eq!(session.encrypt(b"x", &mut out).unwrap_err().label(), "not_ready");
    assert_eq!(session.handle_end().unwrap_err().label(), "truncated");
}

#[test]
fn an_end_without_close_notify_is_truncation() {
    let mut pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    let error = pair.server.handle_end().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Truncated);
    assert_eq!(error.sni(), Some("a.example"));
    // Nobody who said nothing has truncated anything.
    server().handle_end().unwrap();
    let mut session = server();
    tell(&mut session, &[22, 3, 1]).0.unwrap();
    assert_eq!(session.handle_end().unwrap_err().label(), "truncated");
}

#[test]
fn key_updates_go_both_ways_and_are_answered_at_once() {
    let mut pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    for side in [Side::Client, Side::Server, Side::Client] {
        match side {
            Side::Client => pair.client.update_keys(&mut pair.to_server).unwrap(),
            Side::Server => pair.server.update_keys(&mut pair.to_client).unwrap(),
        }
        let (from, to) = match side {
            Side::Client => (pair.to_server.len(), Side::Server),
            Side::Server => (pair.to_client.len(), Side::Client),
        };
        assert!(from > 0);
        pair.deliver(to, from).unwrap();
        let answer = match side {
            Side::Client => pair.to_client.len(),
            Side::Server => pair.to_server.len(),
        };
        assert!(answer > 0, "the KeyUpdate asked for one in return");
        pair.drive(|all| all).unwrap();
        pair.send(Side::Client, b"ping").unwrap();
        pair.send(Side::Server, b"pong").unwrap();
        pair.drive(|_| 1).unwrap();
    }
    assert_eq!(pair.server_plain, b"pingpingping");
    assert_eq!(pair.client_plain, b"pongpongpong");
}

#[test]
fn a_key_update_is_refused_by_tls12() {
    let mut pair = Pair::established(Version::Tls12, Cipher::Aes128Gcm);
    assert!(pair.client.update_keys(&mut pair.to_server).is_err());
    assert!(pair.to_server.is_empty());
    pair.send(Side::Client, b"goes on").unwrap();
    pair.drive(|all| all).unwrap();
    assert_eq!(pair.server_plain, b"goes on");
}

#[test]
fn endless_key_updates_are_refused_and_answered_little() {
    let mut pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    for _ in 0..32 {
        pair.client.update_keys(&mut pair.to_server).unwrap();
    }
    pair.deliver(Side::Server, pair.to_server.len()).unwrap();
    assert!(pair.to_client.len() < 100, "one answer for all that came together");
    pair.client.update_keys(&mut pair.to_server).unwrap();
    let (side, error) = pair.drive(|all| all).unwrap_err();
    assert_eq!((side, error.label()), (Side::Server, "misbehaved"));
    assert!(error.to_string().contains("TooManyKeyUpdateRequests"), "{error}");
}

#[test]
fn encrypting_is_in_full_records_of_any_length_and_appends() {
    for version in [Version::Tls12, Version::Tls13] {
        let mut pair = Pair::established(version, Cipher::Aes128Gcm);
        for bytes in [0, 1, 1400, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 200_000] {
            let plain: Vec<u8> = (0..bytes).map(|at| (at % 251).try_into().unwrap()).collect();
            let mut out = b"before".to_vec();
            pair.server.encrypt(&plain, &mut out).unwrap();
            assert!(out.len() - 6 <= Session::encrypted_bytes(bytes), "{bytes}");
            let mut records = 0;
            let mut rest = &out[6..];
            while let [23, 3, 3, high, low, ..] = *rest {
                records += 1;
                rest = &rest[5 + usize::from(u16::from_be_bytes([high, low]))..];
            }
            assert_eq!((records, rest.len()), (bytes.div_ceil(16 * 1024), 0));
            pair.to_client.extend_from_slice(&out[6..]);
            pair.client_plain.clear();
            pair.drive(|all| all).unwrap();
            assert!(pair.client_plain == plain);
        }
    }
}

#[test]
fn encrypting_over_old_bytes_leaves_nothing_of_them() {
    for version in [Version::Tls12, Version::Tls13] {
        let mut pair = Pair::established(version, Cipher::Aes128Gcm);
        for is_passed in [false, true] {
            let mut room = vec![0xee; 50_000];
            for bytes in [60_000, 100, 0, 16 * 1024 + 1, 200_000, 1] {
                let plain: Vec<u8> = (0..bytes).map(|at| (at % 251).try_into().unwrap()).collect();
                pair.server.encrypt_over(&plain, &mut room).unwrap();
                assert!(room.len() <= Session::encrypted_bytes(bytes), "{bytes}: {}", room.len());
                pair.to_client.extend_from_slice(&room);
                pair.client_plain.clear();
                pair.drive(|all| all).unwrap();
                assert!(pair.client_plain == plain, "{bytes}");
            }
            if !is_passed {
                pair.server = pair.server.into_record().unwrap().0;
            }
        }
        pair.server.close_notify(&mut Vec::new());
        let mut room = b"old".to_vec();
        assert_eq!(pair.server.encrypt_over(b"x", &mut room).unwrap_err().label(), "not_ready");
        assert!(room.is_empty(), "nobody sends what was not sealed now");
    }
}

#[test]
fn an_encryption_that_finds_an_answer_waiting_sends_both() {
    // The KeyUpdate of the client arrives with data, so it is answered in the same call; then the next
    // record must already be under the new keys, whatever was sent before.
    let mut pair = Pair::established(Version::Tls13, Cipher::Chacha20Poly1305);
    pair.client.update_keys(&mut pair.to_server).unwrap();
    pair.send(Side::Client, b"with data").unwrap();
    pair.deliver(Side::Server, pair.to_server.len()).unwrap();
    pair.send(Side::Server, &[1; 40_000]).unwrap();
    pair.drive(|all| all).unwrap();
    assert_eq!(pair.client_plain, [1; 40_000]);
    assert_eq!(pair.server_plain, b"with data");
}
