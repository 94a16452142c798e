//! The hand-over to the kernel, proven against the TLS library: one side goes on as a kernel would, from
//! `crypto_info` alone, and the other side stays a session and must not notice.

mod support;

use std::collections::HashSet;

use support::{KernelRecords, explicit_nonces};
use tls::testing::{Authority, Pair, Side, Validity};
use tls::{
    Cipher, CryptoInfo, KernelEvent, KernelHandover, KernelSession, Progress, Roots, ServerOptions,
    Session, TlsError, Version, client_config, server_config,
};

const DATA: u8 = 23;
const HANDSHAKE: u8 = KernelSession::RECORD_TYPE_HANDSHAKE;
const ALERT: u8 = KernelSession::RECORD_TYPE_ALERT;

/// One side as a kernel with its socket, the other as a session.
struct Half {
    peer: Session,
    from_peer: Vec<u8>,
    peer_plain: Vec<u8>,
    send: KernelRecords,
    receive: KernelRecords,
    session: KernelSession,
}

impl Half {
    /// Established, some data exchanged in user space, then `side` given to the kernel.
    fn new(side: Side, version: Version, cipher: Cipher) -> Self {
        let mut pair = Pair::established(version, cipher);
        for _ in 0..3 {
            pair.send(Side::Client, b"before").unwrap();
            pair.send(Side::Server, b"before").unwrap();
        }
        pair.drive(|_| 7).unwrap();
        Self::of(pair, side)
    }

    fn of(pair: Pair, side: Side) -> Self {
        assert!(pair.to_client.is_empty() && pair.to_server.is_empty());
        let (ours, peer) = match side {
            Side::Server => (pair.server, pair.client),
            Side::Client => (pair.client, pair.server),
        };
        assert!(ours.is_kernel_ready());
        let KernelHandover { send, receive, session } = ours.into_kernel().unwrap();
        Self {
            peer,
            from_peer: Vec::new(),
            peer_plain: Vec::new(),
            send: KernelRecords::new(&send),
            receive: KernelRecords::new(&receive),
            session,
        }
    }

    /// A record of ours arrives at the peer.
    fn say(&mut self, kind: u8, plain: &[u8]) -> Result<Progress, TlsError> {
        let record = self.send.seal(kind, plain);
        self.peer.handle_bytes(&record, &mut self.from_peer, &mut self.peer_plain)
    }

    /// The peer's next record arrives at us.
    fn hear(&mut self) -> (u8, Vec<u8>) {
        self.receive.open(&mut self.from_peer)
    }

    fn exchange(&mut self) {
        for number in 0..5_u8 {
            self.peer_plain.clear();
            self.say(DATA, &[number; 9000]).unwrap();
            assert_eq!(self.peer_plain, [number; 9000]);
            self.peer.encrypt(&[number; 20_000], &mut self.from_peer).unwrap();
            let (first, second) = (self.hear(), self.hear());
            assert_eq!((first.0, second.0), (DATA, DATA));
            assert_eq!([first.1, second.1].concat(), [number; 20_000]);
        }
        assert!(self.from_peer.is_empty());
    }
}

fn every_case(mut check: impl FnMut(Side, Version, Cipher)) {
    for side in [Side::Server, Side::Client] {
        for version in [Version::Tls12, Version::Tls13] {
            for cipher in Cipher::ALL {
                check(side, version, cipher);
            }
        }
    }
}

#[test]
fn both_directions_go_on_in_the_kernel_for_every_version_and_cipher() {
    every_case(|side, version, cipher| {
        let mut half = Half::new(side, version, cipher);
        assert_eq!(half.session.version(), version);
        half.exchange();
        // And end in order, both ways.
        assert_eq!(half.say(ALERT, &KernelSession::CLOSE_NOTIFY).unwrap(), Progress::PeerClosed);
        half.peer.close_notify(&mut half.from_peer);
        let (kind, alert) = half.hear();
        let event = half.session.handle_record(kind, &alert).unwrap();
        assert!(matches!(event, KernelEvent::PeerClosed));
    });
}

#[test]
fn tls12_gcm_never_sends_the_same_nonce_twice() {
    for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm] {
        for side in [Side::Server, Side::Client] {
            let authority = Authority::new();
            let options = ServerOptions {
                version_max: Version::Tls12,
                ciphers: vec![cipher],
                ..ServerOptions::default()
            };
            let resolver = authority.resolver(&["a.example"], Validity::Now);
            let server = server_config(resolver, &options).unwrap();
            let client = client_config(authority.roots()).unwrap();
            let mut pair = Pair::new(&server, &client, "a.example");
            // Everything `side` says from its first byte on.
            let mut said = Vec::new();
            let mut rounds = 0;
            while rounds < 8 {
                for to in [Side::Server, Side::Client] {
                    let wire = if to == Side::Server { &pair.to_server } else { &pair.to_client };
                    if to != side {
                        said.extend_from_slice(wire);
                    }
                    let waiting = wire.len();
                    if waiting > 0 {
                        pair.deliver(to, waiting).unwrap();
                    }
                }
                if pair.server.facts().is_some() && pair.client.facts().is_some() {
                    pair.send(side, b"more").unwrap();
                    rounds += 1;
                }
            }
            let waiting = if side == Side::Client { &pair.to_server } else { &pair.to_client };
            said.extend_from_slice(waiting);
            pair.drive(|all| all).unwrap();
            let mut nonces = explicit_nonces(&said);
            assert_eq!(nonces.len(), 1 + 8, "Finished and eight records");
            let mut half = Half::of(pair, side);
            half.exchange();
            nonces.extend(
                half.send.nonces.iter().map(|nonce| <[u8; 8]>::try_from(&nonce[4..]).unwrap()),
            );
            let different = nonces.iter().collect::<HashSet<_>>();
            assert_eq!(different.len(), nonces.len(), "{cipher:?} {side:?}: {nonces:x?}");
        }
    }
}

#[test]
fn the_structures_have_the_sizes_the_kernel_checks() {
    every_case(|side, version, cipher| {
        let pair = Pair::established(version, cipher);
        let ours = if side == Side::Server { pair.server } else { pair.client };
        let handover = ours.into_kernel().unwrap();
        for info in [&handover.send, &handover.receive] {
            let bytes = if cipher == Cipher::Aes128Gcm { 40 } else { 56 };
            assert_eq!(info.as_bytes().len(), bytes);
            assert_eq!((info.version(), info.cipher()), (version, cipher));
        }
    });
}

/// Handles a KeyUpdate event as the worker does; the new keys for receiving.
fn follow(half: &mut Half, event: KernelEvent) -> bool {
    let KernelEvent::KeyUpdate { receive, respond } = event else { panic!("{event:?}") };
    half.receive = KernelRecords::new(&receive);
    respond
}

fn change_our_keys(half: &mut Half) {
    let (message, keys): (Vec<u8>, CryptoInfo) = half.session.update_send().unwrap();
    half.say(HANDSHAKE, &message).unwrap();
    half.send = KernelRecords::new(&keys);
}

#[test]
fn the_peers_key_update_is_followed_and_answered() {
    every_case(|side, version, cipher| {
        if version == Version::Tls12 {
            return;
        }
        let mut half = Half::new(side, version, cipher);
        for _ in 0..3 {
            half.peer.update_keys(&mut half.from_peer).unwrap();
            let (kind, message) = half.hear();
            assert_eq!((kind, &message[..]), (HANDSHAKE, &[24, 0, 0, 1, 1][..]));
            let event = half.session.handle_record(kind, &message).unwrap();
            assert!(follow(&mut half, event));
            change_our_keys(&mut half);
            half.exchange();
        }
    });
}

#[test]
fn our_own_key_update_is_followed_by_the_peer() {
    let mut half = Half::new(Side::Server, Version::Tls13, Cipher::Aes128Gcm);
    for _ in 0..3 {
        change_our_keys(&mut half);
        half.exchange();
    }
    let mut half = Half::new(Side::Server, Version::Tls12, Cipher::Aes128Gcm);
    assert_eq!(half.session.update_send().unwrap_err().label(), "not_ready");
    half.exchange();
}

#[test]
fn a_key_update_just_before_the_hand_over_is_answered_before_it() {
    let mut pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    pair.client.update_keys(&mut pair.to_server).unwrap();
    pair.send(Side::Client, b"and data").unwrap();
    pair.deliver(Side::Server, pair.to_server.len()).unwrap();
    assert!(!pair.to_client.is_empty(), "the answer would be lost with the session");
    pair.drive(|all| all).unwrap();
    Half::of(pair, Side::Server).exchange();
}

#[test]
fn a_torn_handshake_message_keeps_the_session_off_the_boundary() {
    // The peer as a kernel, so that its records can be what no library sends.
    let mut half = Half::new(Side::Client, Version::Tls13, Cipher::Aes128Gcm);
    half.say(HANDSHAKE, &[24, 0]).unwrap();
    assert!(!half.peer.is_at_boundary() && half.peer.wanted_bytes() == 5);
    assert!(!half.peer.is_kernel_ready());
    // Sending goes on meanwhile.
    half.peer.encrypt(b"meanwhile", &mut half.from_peer).unwrap();
    assert_eq!(half.hear(), (DATA, b"meanwhile".to_vec()));
    let (_, keys) = half.session.update_send().unwrap();
    half.say(HANDSHAKE, &[0, 1, 0]).unwrap();
    half.send = KernelRecords::new(&keys);
    assert!(half.peer.is_kernel_ready());
    half.exchange();
    // Torn again, and then a record that does not decrypt: refused with an alert, no panic.
    half.say(HANDSHAKE, &[24, 0]).unwrap();
    let mut record = half.send.seal(DATA, b"x");
    record[7] ^= 1;
    let error = half.peer.handle_bytes(&record, &mut half.from_peer, &mut vec![]).unwrap_err();
    assert_eq!(error.label(), "undecryptable");
    assert_eq!(half.hear(), (ALERT, vec![2, 20]));
    assert!(half.from_peer.is_empty());
}

#[test]
fn a_handshake_message_in_endless_pieces_is_bounded() {
    let mut half = Half::new(Side::Client, Version::Tls13, Cipher::Aes128Gcm);
    half.say(HANDSHAKE, &[24, 0, 0xff, 0]).unwrap();
    let error = loop {
        assert!(half.peer.held_bytes() <= 2 * Session::HELD_BYTES_MAX);
        if let Err(error) = half.say(HANDSHAKE, &[0; 4000]) {
            break error;
        }
    };
    assert_eq!(error.label(), "held_too_large");
}

#[test]
fn endless_empty_records_are_refused() {
    let mut half = Half::new(Side::Client, Version::Tls13, Cipher::Aes128Gcm);
    let error = (0..100).find_map(|_| half.say(DATA, b"").err()).unwrap();
    assert_eq!(error.label(), "misbehaved");
}

#[test]
fn tickets_after_the_hand_over_are_remembered_by_a_client() {
    let authority = Authority::new();
    let resolver = authority.resolver(&["a.example"], Validity::Now);
    let server = server_config(resolver, &ServerOptions::default()).unwrap();
    let client = client_config(authority.roots()).unwrap();
    let mut pair = Pair::new(&server, &client, "a.example");
    pair.deliver(Side::Server, pair.to_server.len()).unwrap();
    pair.deliver(Side::Client, pair.to_client.len()).unwrap();
    pair.deliver(Side::Server, pair.to_server.len()).unwrap();
    // The tickets are on their way when the client hands over.
    let mut tickets = std::mem::take(&mut pair.to_client);
    let mut half = Half::of(pair, Side::Client);
    let mut count = 0;
    while !tickets.is_empty() {
        let (kind, message) = half.receive.open(&mut tickets);
        assert_eq!(kind, HANDSHAKE);
        // In two pieces, as a server may send them.
        for piece in message.chunks(message.len() / 2 + 1) {
            let event = half.session.handle_record(kind, piece).unwrap();
            assert!(matches!(event, KernelEvent::Ignored));
        }
        count += 1;
    }
    assert!(count >= 1);
    half.exchange();
    let mut second = Pair::new(&server, &client, "a.example");
    second.drive(|all| all).unwrap();
    assert!(second.server.facts().unwrap().resumed);
}

#[test]
fn control_records_out_of_place_are_typed_errors_with_an_alert() {
    let tls13: [(u8, &[u8], &str, Option<u8>); 11] = [
        (ALERT, &[2, 40], "alert_received", None),
        (ALERT, &[1], "malformed", Some(50)),
        (ALERT, &[1, 0, 0], "malformed", Some(50)),
        (20, &[1], "misbehaved", Some(10)),
        (DATA, b"data", "misbehaved", Some(10)),
        (HANDSHAKE, &[], "malformed", Some(50)),
        (HANDSHAKE, &[24, 0, 0, 1, 2], "malformed", Some(47)),
        (HANDSHAKE, &[24, 0, 0, 0], "malformed", Some(47)),
        (HANDSHAKE, &[24, 0, 0, 1, 0, 24], "misbehaved", Some(10)),
        (HANDSHAKE, &[1, 0, 0, 0], "misbehaved", Some(10)),
        (HANDSHAKE, &[4, 0xff, 0, 0], "malformed", Some(50)),
    ];
    let tls12: [(u8, &[u8], &str, Option<u8>); 2] = [
        (HANDSHAKE, &[1, 0, 0, 0], "misbehaved", Some(100)),
        (ALERT, &[2, 80], "alert_received", None),
    ];
    for (version, cases) in [(Version::Tls13, &tls13[..]), (Version::Tls12, &tls12)] {
        for (kind, bytes, label, alert) in cases {
            let mut half = Half::new(Side::Server, version, Cipher::Aes128Gcm);
            let error = half.session.handle_record(*kind, bytes).unwrap_err();
            assert_eq!(error.label(), *label, "{kind} {bytes:?}");
            assert_eq!(error.kernel_alert(), alert.map(|number| [2, number]), "{kind} {bytes:?}");
        }
    }
    // A server has no use for tickets; a client takes well-formed ones.
    for side in [Side::Server, Side::Client] {
        let mut half = Half::new(side, Version::Tls13, Cipher::Aes128Gcm);
        let error = half.session.handle_record(HANDSHAKE, &[4, 0, 0, 1, 9]).unwrap_err();
        assert_eq!(error.label(), if side == Side::Server { "misbehaved" } else { "malformed" });
    }
}

#[test]
fn harmless_control_records_are_harmless_in_number_only() {
    let mut half = Half::new(Side::Server, Version::Tls12, Cipher::Aes128Gcm);
    let ignored = (0..1000).take_while(|_| half.session.handle_record(ALERT, &[1, 90]).is_ok());
    assert_eq!(ignored.count(), 64);
    let mut half = Half::new(Side::Server, Version::Tls13, Cipher::Aes128Gcm);
    let update = [24, 0, 0, 1, 0];
    for _ in 0..32 {
        half.session.handle_record(HANDSHAKE, &update).unwrap();
    }
    half.session.note_received(16 * 1024 - 1);
    assert_eq!(half.session.handle_record(HANDSHAKE, &update).unwrap_err().label(), "misbehaved");
    // Data earns the peer more of them, one for each 16 KiB.
    half.session.note_received(1);
    half.session.handle_record(HANDSHAKE, &update).unwrap();
    assert!(half.session.handle_record(HANDSHAKE, &update).is_err());
    for _ in 0..1000 {
        half.session.note_received(20_000);
        half.session.handle_record(HANDSHAKE, &update).unwrap();
    }
}

#[test]
fn records_are_counted_against_the_limit_of_the_cipher() {
    let mut half = Half::new(Side::Server, Version::Tls13, Cipher::Aes128Gcm);
    let at_first = half.session.records_left();
    assert!(at_first < 1 << 24, "those of user space count, too");
    assert!(at_first > (1 << 24) - 20);
    half.session.note_sent(0);
    half.session.note_sent(1);
    half.session.note_sent(16 * 1024);
    half.session.note_sent(16 * 1024 + 1);
    assert_eq!(half.session.records_left(), at_first - 5);
    half.session.note_sent(16 * 1024 * 7 * (1 << 21));
    assert!(half.session.needs_rekey() && half.session.records_left() > 1 << 20);
    half.session.note_sent(u64::MAX);
    half.session.note_sent(u64::MAX);
    assert_eq!(half.session.records_left(), 0);
    half.session.update_send().unwrap();
    assert_eq!(half.session.records_left(), 1 << 24);
    assert!(!half.session.needs_rekey());
    let mut half = Half::new(Side::Server, Version::Tls12, Cipher::Chacha20Poly1305);
    half.session.note_sent(1 << 60);
    assert!(!half.session.needs_rekey());
}

#[test]
fn a_session_that_is_closing_is_not_handed_over() {
    let mut pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    pair.server.close_notify(&mut pair.to_client);
    assert!(!pair.server.is_kernel_ready());
    assert_eq!(pair.server.into_kernel().unwrap_err().label(), "not_ready");
    pair.client.handle_end().unwrap_err();
    assert_eq!(pair.client.into_kernel().unwrap_err().sni(), Some("a.example"));
}

#[test]
fn insecure_roots_print_their_name() {
    assert_eq!(format!("{:?}", Roots::Insecure), "Insecure");
}
