//! TLS records by the kernel, on every implementation that has a kernel: both ends of a connection
//! belong to one `Io`, with fixed keys, the one's to send being the other's to receive.
//!
//! A kernel without TLS must refuse to attach it and carry the connection on in plain; that is then
//! what each case checks. With `KERNEL_TLS=required` in the environment such a kernel fails.

mod common;

use common::{Chance, EpollWorld, Mode, OldUringWorld, Peer, Server, UringWorld, World, write_all};
use std::env;
use uring::{
    ConnId, FeatureState, Io, IoConfig, KernelTls, ReceiveEnd, TlsCipher, TlsDirection, TlsVersion,
    probe_kernel_tls, read_tls_stat,
};

macro_rules! on_each {
    ($($case:ident),* $(,)?) => {
        mod on_uring { $(#[test] fn $case() { super::$case::<super::UringWorld>(); })* }
        mod on_old_uring { $(#[test] fn $case() { super::$case::<super::OldUringWorld>(); })* }
        mod on_epoll { $(#[test] fn $case() { super::$case::<super::EpollWorld>(); })* }
    };
}

on_each!(
    every_cipher_and_version_carries_bytes_both_ways,
    a_wrong_key_is_told_as_a_broken_record,
    records_keep_their_place_among_the_bytes,
    a_record_that_comes_during_a_pause_is_told_after_it_and_behind_what_was_held,
    bounded_receives_work_on_opened_records,
    records_sent_before_the_keys_are_set_are_opened_after,
    closing_orderly_is_an_alert_and_then_the_end,
    a_key_update_is_waited_for_or_refused_as_the_probe_says,
    a_record_that_finds_no_room_is_refused_whole,
    a_peer_that_does_not_read_blocks_the_send_until_it_does,
    attaching_to_a_peer_that_has_left_is_an_ordinary_error,
    a_hundred_connections_at_once_do_not_mix,
    closing_with_records_on_their_way_is_clean,
);

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

fn is_required() -> bool {
    env::var("KERNEL_TLS").is_ok_and(|word| word == "required")
}

/// A `tls12_crypto_info`: version, cipher, IV, key, salt, sequence number.
fn keys_of(cipher: TlsCipher, version: TlsVersion, seed: u8) -> Vec<u8> {
    let secret_bytes = match cipher {
        TlsCipher::Aes128Gcm => 8 + 16 + 4,
        TlsCipher::Aes256Gcm => 8 + 32 + 4,
        TlsCipher::Chacha20Poly1305 => 12 + 32,
    };
    let mut info = Vec::new();
    info.extend(version.number().to_ne_bytes());
    info.extend(cipher.number().to_ne_bytes());
    info.extend((0..secret_bytes).map(|at: u8| seed.wrapping_mul(31).wrapping_add(at)));
    info.extend([0; 8]);
    info
}

fn keys(seed: u8) -> Vec<u8> {
    keys_of(TlsCipher::Aes128Gcm, TlsVersion::Tls13, seed)
}

/// Both ends of a connection, at rest after one plain byte each.
fn resting_pair<W: World>(server: &mut Server<W>) -> (ConnId, ConnId) {
    server.first_bytes_max = Some(1);
    let addr = server.listen();
    let before = server.accepted.len();
    let client = server.connect_from(None, addr, 1);
    server.until("accepted", |server| server.accepted.len() > before);
    let accepted = server.accepted[before];
    server.until("connected", |server| server.seen(client).connected == Some(Ok(())));
    for conn in [client, accepted] {
        server.queue(conn, b"h");
    }
    server.until("at rest", |server| {
        [client, accepted].iter().all(|&conn| {
            let seen = server.seen(conn);
            seen.mode == Mode::Resting && seen.in_flight == 0 && seen.to_send.is_empty()
        })
    });
    for conn in [client, accepted] {
        server.conns.get_mut(&conn).unwrap().received.clear();
    }
    (client, accepted)
}

/// Attaches TLS to both; `false` when this kernel has none, which is checked to do no harm.
fn attach<W: World>(server: &mut Server<W>, (client, accepted): (ConnId, ConnId)) -> bool {
    match server.world.io().attach_tls(client) {
        Ok(()) => {
            server.world.io().attach_tls(accepted).unwrap();
            let again = server.world.io().attach_tls(client).unwrap_err();
            assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
            true
        }
        Err(error) => {
            assert!(!is_required(), "no TLS in this kernel: {error}");
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
            goes_on_in_plain(server, client, accepted);
            false
        }
    }
}

fn goes_on_in_plain<W: World>(server: &mut Server<W>, client: ConnId, accepted: ConnId) {
    for conn in [client, accepted] {
        let result = server.world.io().set_tls_keys(conn, TlsDirection::Send, &keys(1));
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOPROTOOPT));
        let result = server.world.io().send_tls_record(conn, ALERT, &CLOSE_NOTIFY);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        server.resume(conn);
        server.queue(conn, b"in plain");
    }
    server.until("plain bytes both ways", |server| {
        [client, accepted].iter().all(|&conn| server.seen(conn).received == b"in plain")
    });
}

fn set_keys<W: World>(
    server: &mut Server<W>,
    (client, accepted): (ConnId, ConnId),
    to_accepted: &[u8],
    to_client: &[u8],
) {
    let io = server.world.io();
    io.set_tls_keys(client, TlsDirection::Send, to_accepted).unwrap();
    io.set_tls_keys(client, TlsDirection::Receive, to_client).unwrap();
    io.set_tls_keys(accepted, TlsDirection::Send, to_client).unwrap();
    io.set_tls_keys(accepted, TlsDirection::Receive, to_accepted).unwrap();
}

/// Both ends with keys and at rest; `None` where the kernel has no TLS.
fn keyed_pair<W: World>(server: &mut Server<W>) -> Option<(ConnId, ConnId)> {
    let pair = resting_pair(server);
    attach(server, pair).then(|| {
        set_keys(server, pair, &keys(1), &keys(2));
        pair
    })
}

fn open<W: World>() -> Option<Server<W>> {
    Server::open(IoConfig::default())
}

fn some_turns<W: World>(server: &mut Server<W>) {
    (0..50).for_each(|_| server.turn());
}

/// Sends what is queued on `conn`, and then a record.
fn send_then_record<W: World>(server: &mut Server<W>, conn: ConnId, record_type: u8, bytes: &[u8]) {
    server.until("sent", |server| {
        let seen = server.seen(conn);
        seen.to_send.is_empty() && seen.in_flight == 0
    });
    server.world.io().send_tls_record(conn, record_type, bytes).unwrap();
}

fn has_received<W: World>(server: &mut Server<W>, conn: ConnId, bytes: &[u8]) {
    server.until("received", |server| server.seen(conn).received.len() >= bytes.len());
    assert!(server.seen(conn).received == bytes, "bytes differ");
}

fn every_cipher_and_version_carries_bytes_both_ways<W: World>() {
    let found = probe_kernel_tls();
    if found.ciphers.is_empty() {
        let Some(mut server) = open::<W>() else { return };
        assert!(keyed_pair(&mut server).is_none(), "the probe said there is no TLS");
        return;
    }
    for support in found.ciphers.iter().filter(|support| support.is_full()) {
        let Some(mut server) = open::<W>() else { return };
        let pair = resting_pair(&mut server);
        assert!(attach(&mut server, pair));
        let info = |seed| keys_of(support.cipher, support.version, seed);
        assert!(found.takes(&info(1)));
        set_keys(&mut server, pair, &info(1), &info(2));
        let mut chance = Chance(31);
        let words = [chance.bytes(200_000), chance.bytes(150_000)];
        server.resume(pair.0);
        server.resume(pair.1);
        server.send_bytes_max = 1 + chance.below(40_000);
        server.queue(pair.0, &words[0]);
        server.queue(pair.1, &words[1]);
        has_received(&mut server, pair.1, &words[0]);
        has_received(&mut server, pair.0, &words[1]);
    }
}

fn a_wrong_key_is_told_as_a_broken_record<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    let pair = resting_pair(&mut server);
    if !attach(&mut server, pair) {
        return;
    }
    let io = server.world.io();
    io.set_tls_keys(pair.0, TlsDirection::Send, &keys(1)).unwrap();
    io.set_tls_keys(pair.1, TlsDirection::Receive, &keys(3)).unwrap();
    server.resume(pair.1);
    server.queue(pair.0, b"who can read this?");
    server.until("broken", |server| server.seen(pair.1).ended.is_some());
    let seen = server.seen(pair.1);
    assert_eq!((seen.received.len(), seen.ended), (0, Some(ReceiveEnd::Error(libc::EBADMSG))));
}

fn records_keep_their_place_among_the_bytes<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    let Some((client, accepted)) = keyed_pair(&mut server) else { return };
    // Once with the receiver armed while they come, once with all of them there before it asks.
    for armed in [true, false] {
        if armed {
            server.resume(accepted);
            some_turns(&mut server);
        }
        let before = server.seen(accepted).records.len();
        let mut expected = Vec::new();
        let mut sent = server.seen(accepted).received.len();
        for count in [1000, 3, 0, 20_000] {
            server.queue(client, &vec![7; count]);
            sent += count;
            let ticket = vec![4; 200];
            send_then_record(&mut server, client, HANDSHAKE, &ticket);
            expected.push((sent, HANDSHAKE, ticket));
        }
        server.queue(client, b"last");
        let goal = sent + 4;
        server.until("all bytes and records", |server| {
            if server.seen(accepted).mode == Mode::Resting {
                server.resume(accepted);
            }
            server.seen(accepted).received.len() == goal
        });
        assert_eq!(server.seen(accepted).records[before..], expected);
        // The alert puts the receiver at rest for the second round.
        send_then_record(&mut server, client, ALERT, &CLOSE_NOTIFY);
        server.until("the alert", |server| server.seen(accepted).mode == Mode::Resting);
    }
    assert_eq!(server.world.io().counters().tls_records, 10);
}

fn a_record_that_comes_during_a_pause_is_told_after_it_and_behind_what_was_held<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    let Some((client, accepted)) = keyed_pair(&mut server) else { return };
    let mut total = 0;
    for (round, turns) in [0, 1, 2, 30].into_iter().enumerate() {
        server.resume(accepted);
        (0..turns).for_each(|_| server.turn());
        server.pause(accepted);
        // Before the cancellation is through, so that bytes or the record may be in hand already.
        server.queue(client, b"before");
        send_then_record(&mut server, client, HANDSHAKE, &[4, 9]);
        server.queue(client, b"after");
        some_turns(&mut server);
        assert_eq!(server.seen(accepted).received.len(), total, "nothing during a pause");
        assert_eq!(server.seen(accepted).records.len(), round);
        server.resume(accepted);
        server.until("the record", |server| server.seen(accepted).records.len() > round);
        assert_eq!(server.seen(accepted).records[round].0, total + 6);
        server.resume(accepted);
        total += 11;
        server.until("the rest", |server| server.seen(accepted).received.len() == total);
        // At rest again for the next round.
        send_then_record(&mut server, client, ALERT, &CLOSE_NOTIFY);
        server.until("the alert", |server| server.seen(accepted).mode == Mode::Resting);
        server.conns.get_mut(&accepted).unwrap().records.pop();
    }
}

fn bounded_receives_work_on_opened_records<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    let Some((client, accepted)) = keyed_pair(&mut server) else { return };
    let bytes = Chance(32).bytes(30_000);
    server.queue(client, &bytes[..20_000]);
    send_then_record(&mut server, client, HANDSHAKE, &[4]);
    server.queue(client, &bytes[20_000..]);
    let mut chance = Chance(33);
    server.until("all", |server| {
        if server.seen(accepted).mode == Mode::Resting {
            server.receive_once(accepted, 1 + u32::try_from(chance.below(5_000)).unwrap());
        }
        server.seen(accepted).received.len() == bytes.len()
    });
    assert!(server.seen(accepted).received == bytes, "bytes differ");
    assert_eq!(server.seen(accepted).records, [(20_000, HANDSHAKE, vec![4])]);
}

fn records_sent_before_the_keys_are_set_are_opened_after<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    let pair = resting_pair(&mut server);
    if !attach(&mut server, pair) {
        return;
    }
    server.world.io().set_tls_keys(pair.0, TlsDirection::Send, &keys(1)).unwrap();
    server.queue(pair.0, &[5; 40_000]);
    send_then_record(&mut server, pair.0, HANDSHAKE, &[4]);
    server.queue(pair.0, b"end");
    some_turns(&mut server);
    server.world.io().set_tls_keys(pair.1, TlsDirection::Receive, &keys(1)).unwrap();
    server.resume(pair.1);
    server.until("the record", |server| !server.seen(pair.1).records.is_empty());
    assert_eq!(server.seen(pair.1).records, [(40_000, HANDSHAKE, vec![4])]);
    server.resume(pair.1);
    server.until("all", |server| server.seen(pair.1).received.len() == 40_003);
}

fn closing_orderly_is_an_alert_and_then_the_end<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    let Some((client, accepted)) = keyed_pair(&mut server) else { return };
    server.resume(accepted);
    server.queue(client, b"good-bye");
    send_then_record(&mut server, client, ALERT, &CLOSE_NOTIFY);
    server.close(client);
    server.until("the alert", |server| !server.seen(accepted).records.is_empty());
    assert_eq!(server.seen(accepted).records, [(8, ALERT, CLOSE_NOTIFY.to_vec())]);
    some_turns(&mut server);
    assert_eq!(server.seen(accepted).ended, None, "receiving rests behind the alert");
    server.resume(accepted);
    server.until("the end", |server| server.seen(accepted).ended.is_some());
    assert_eq!(server.seen(accepted).ended, Some(ReceiveEnd::Eof));
}

fn a_key_update_is_waited_for_or_refused_as_the_probe_says<W: World>() {
    let rekey = probe_kernel_tls().rekey;
    // The receiver's key set while it rests, and only after it has run into the new records.
    for late in [false, true] {
        let Some(mut server) = open::<W>() else { return };
        let Some((client, accepted)) = keyed_pair(&mut server) else { return };
        server.resume(accepted);
        server.queue(client, b"old key");
        send_then_record(&mut server, client, HANDSHAKE, &KEY_UPDATE);
        let set = server.world.io().set_tls_keys(client, TlsDirection::Send, &keys(9));
        server.until("the record", |server| !server.seen(accepted).records.is_empty());
        assert_eq!(server.seen(accepted).records, [(7, HANDSHAKE, KEY_UPDATE.to_vec())]);
        if let FeatureState::Refused { errno, .. } = rekey {
            assert_eq!((errno, set.unwrap_err().raw_os_error()), (libc::EBUSY, Some(errno)));
            let own = server.world.io().set_tls_keys(accepted, TlsDirection::Receive, &keys(9));
            assert_eq!(own.unwrap_err().raw_os_error(), Some(libc::EBUSY));
            // The old keys stay good: there is time to say farewell.
            send_then_record(&mut server, client, ALERT, &CLOSE_NOTIFY);
            server.resume(accepted);
            server.until("the alert", |server| server.seen(accepted).records.len() == 2);
            continue;
        }
        set.unwrap();
        server.queue(client, b", new key");
        if late {
            server.resume(accepted);
            some_turns(&mut server);
            let seen = server.seen(accepted);
            assert_eq!((seen.received.len(), seen.ended), (7, None), "waits for the key");
            server.world.io().set_tls_keys(accepted, TlsDirection::Receive, &keys(9)).unwrap();
        } else {
            server.world.io().set_tls_keys(accepted, TlsDirection::Receive, &keys(9)).unwrap();
            server.resume(accepted);
        }
        has_received(&mut server, accepted, b"old key, new key");
    }
}

fn a_record_that_finds_no_room_is_refused_whole<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    let Some((client, accepted)) = keyed_pair(&mut server) else { return };
    let bytes = Chance(34).bytes(12 << 20);
    server.send_bytes_max = 1 << 20;
    server.queue(client, &bytes);
    let mut quiet = 0;
    server.until("blocked for good", |server| {
        let still = server.completions_last == 0 && server.seen(client).blocked;
        quiet = if still { quiet + 1 } else { 0 };
        quiet > 20
    });
    // What has no room for data may have some for a record.
    let record = [4; 1_000];
    let io = server.world.io();
    let mut taken = 0;
    let full = loop {
        match io.send_tls_record(client, HANDSHAKE, &record) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 10_000, "there is always room");
    };
    assert_eq!(full.raw_os_error(), Some(libc::EAGAIN), "after {taken}");
    let sent = server.seen(client).sent_bytes - 1;
    server.conns.get_mut(&client).unwrap().to_send.clear();
    server.until("what was taken", |server| {
        if server.seen(accepted).mode == Mode::Resting {
            server.resume(accepted);
        }
        server.seen(accepted).records.len() == taken
            && server.seen(accepted).received.len() == sent
            && !server.seen(client).blocked
    });
    assert!(server.seen(accepted).received == bytes[..sent], "bytes differ");
    assert!(server.seen(accepted).records.iter().all(|(_, _, bytes)| bytes == &record));
    server.queue(client, b"room again");
    server.until("the rest", |server| server.seen(accepted).received.ends_with(b"room again"));
}

fn a_peer_that_does_not_read_blocks_the_send_until_it_does<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    let Some((client, accepted)) = keyed_pair(&mut server) else { return };
    let bytes = Chance(35).bytes(12 << 20);
    server.send_bytes_max = 100_000;
    server.queue(client, &bytes);
    server.until("blocked", |server| server.seen(client).blocked_count > 0);
    server.resume(accepted);
    has_received(&mut server, accepted, &bytes);
}

fn attaching_to_a_peer_that_has_left_is_an_ordinary_error<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    server.first_bytes_max = Some(1);
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    write_all(&mut server, &mut peer, b"hi");
    server.until("at rest", |server| server.seen(conn).mode == Mode::Resting);
    // On loopback it has arrived when the call returns.
    peer.shutdown_write();
    let error = server.world.io().attach_tls(conn).unwrap_err();
    let no_tls = probe_kernel_tls().attach != FeatureState::On;
    assert!(!no_tls || !is_required(), "no TLS in this kernel");
    let expected = if no_tls { libc::ENOENT } else { libc::ENOTCONN };
    assert_eq!(error.raw_os_error(), Some(expected));
    server.resume(conn);
    server.until("the end", |server| server.seen(conn).ended.is_some());
    assert_eq!(server.seen(conn).received, b"hi");
    assert_eq!(server.seen(conn).ended, Some(ReceiveEnd::Eof));
}

fn a_hundred_connections_at_once_do_not_mix<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    let mut pairs = Vec::new();
    for seed in 0..100 {
        let pair = resting_pair(&mut server);
        if !attach(&mut server, pair) {
            return;
        }
        set_keys(&mut server, pair, &keys(seed), &keys(seed + 100));
        server.resume(pair.0);
        server.resume(pair.1);
        pairs.push(pair);
    }
    let mut chance = Chance(36);
    let words: Vec<Vec<u8>> = (0..100).map(|_| chance.bytes(20_000)).collect();
    server.send_bytes_max = 3_000;
    for ((client, accepted), words) in pairs.iter().zip(&words) {
        server.queue(*client, words);
        server.queue(*accepted, words);
    }
    for ((client, accepted), words) in pairs.iter().zip(&words) {
        has_received(&mut server, *accepted, words);
        has_received(&mut server, *client, words);
    }
}

fn closing_with_records_on_their_way_is_clean<W: World>() {
    let Some(mut server) = open::<W>() else { return };
    for turns in 0..6 {
        let Some((client, accepted)) = keyed_pair(&mut server) else { return };
        server.resume(accepted);
        server.queue(client, &[1; 50_000]);
        send_then_record(&mut server, client, HANDSHAKE, &[4]);
        server.queue(client, &[2; 50_000]);
        (0..turns).for_each(|_| server.turn());
        server.close(accepted);
        server.close(client);
    }
    server.until("all descriptors closed", |server| {
        let counters = server.world.io().counters();
        counters.opened == counters.closed
    });
}

#[test]
fn the_probe_finds_every_cipher_where_tls_is_required() {
    let found: KernelTls = probe_kernel_tls();
    println!("{found}");
    for feature in found.features() {
        println!("{feature} (since {})", feature.since);
    }
    if is_required() {
        assert!(found.is_on() && found.attach == FeatureState::On);
        assert_eq!(found.ciphers.len(), 6);
        assert!(found.ciphers.iter().all(uring::TlsSupport::is_full), "{found}");
    }
    assert_eq!(found.attach == FeatureState::On, !found.ciphers.is_empty());
}

#[test]
fn the_kernel_counts_connections_and_broken_records() {
    let Ok(before) = read_tls_stat() else {
        assert!(!is_required(), "no /proc/net/tls_stat");
        return;
    };
    records_keep_their_place_among_the_bytes::<EpollWorld>();
    a_wrong_key_is_told_as_a_broken_record::<UringWorld>();
    let after = read_tls_stat().unwrap();
    // Other tests of this process count along.
    let sent =
        (after.send_software + after.send_device) - (before.send_software + before.send_device);
    let received = (after.receive_software + after.receive_device)
        - (before.receive_software + before.receive_device);
    assert!(sent >= 3 && received >= 3, "{before:?} {after:?}");
    assert!(after.decrypt_errors > before.decrypt_errors, "{before:?} {after:?}");
}
