//! What every implementation of `Io` promises: each case runs on io_uring (as of 6.1 and as of
//! 6.0), on epoll and on the
//! simulated network in rough weather (short receives and sends, false blocks, missing buffers, late
//! and reordered completions).

mod common;

use common::{
    Chance, EpollWorld, OldUringWorld, Peer, Server, SimWorld, UringWorld, World, any_port,
    read_exactly, write_all,
};
use std::rc::Rc;
use uring::{Batching, Io, IoConfig, ListenOptions, MemFile, Nanos, ReceiveEnd, SendBuf};

macro_rules! on_each {
    ($($case:ident),* $(,)?) => {
        mod on_uring { $(#[test] fn $case() { super::$case::<super::UringWorld>(); })* }
        mod on_old_uring { $(#[test] fn $case() { super::$case::<super::OldUringWorld>(); })* }
        mod on_epoll { $(#[test] fn $case() { super::$case::<super::EpollWorld>(); })* }
        mod on_sim { $(#[test] fn $case() { super::$case::<super::SimWorld>(); })* }
    };
}

on_each!(
    a_peer_is_accepted_with_its_address,
    connecting_reports_success_and_refusal,
    what_is_sent_comes_back,
    gathering_turns_lose_nothing_and_hold_nothing_back,
    a_peer_that_does_not_read_blocks_the_send_until_it_does,
    a_larger_bound_of_unsent_bytes_takes_more_at_once,
    closing_while_receiving_and_sending_delivers_nothing_more,
    a_send_before_close_in_the_same_turn_arrives,
    what_more_follows_is_sent_with_it_or_soon,
    bytes_of_a_file_stay_as_they_were_when_they_were_sent,
    the_peers_half_close_leaves_the_other_half_open,
    our_half_close_leaves_the_other_half_open,
    half_closing_behind_a_send_cuts_nothing_off,
    a_reset_is_an_error_not_an_end,
    sending_to_a_broken_connection_fails_for_good,
    ids_of_many_connections_one_after_the_other_never_repeat,
    nothing_is_delivered_during_a_pause_and_nothing_is_lost,
    pausing_and_resuming_at_random_loses_nothing,
    an_end_during_a_pause_is_told_after_it,
    paused_peers_keep_no_buffers_from_the_others,
    sixty_four_connections_at_once_do_not_mix,
    a_hundred_senders_share_four_buffers,
    held_buffers_stop_receiving_and_their_return_resumes_it,
    a_turn_hands_out_no_more_than_its_limit,
    stale_ids_are_ignored_and_counted,
    a_closed_listener_refuses_and_frees_its_address,
    peers_above_the_limit_are_turned_away,
    a_past_deadline_does_not_wait,
    a_wake_is_reported_once,
    dropping_everything_with_work_in_flight_is_clean,
);

/// Two sends at once are a bug of the caller, so each implementation stops at once.
macro_rules! second_send_panics {
    ($($name:ident: $world:ty),* $(,)?) => { $(
        #[test]
        #[should_panic(expected = "a send is in flight")]
        fn $name() {
            let Some(mut server) = server::<$world>() else { panic!("a send is in flight (skipped)") };
            let addr = server.listen();
            let (_peer, conn) = server.pair(addr);
            server.world.io().send(conn, SendBuf::Owned(vec![1]));
            server.world.io().send(conn, SendBuf::Owned(vec![2]));
        }
    )* };
}

second_send_panics!(
    a_second_send_in_flight_panics_on_uring: UringWorld,
    a_second_send_in_flight_panics_on_epoll: EpollWorld,
    a_second_send_in_flight_panics_on_sim: SimWorld,
);

fn server<W: World>() -> Option<Server<W>> {
    Server::open(IoConfig::default())
}

fn a_peer_is_accepted_with_its_address<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    assert_ne!(addr.port(), 0);
    let (peer, conn) = server.pair(addr);
    assert_eq!(server.seen(conn).peer, Some(peer.addr()));
    assert_eq!(server.world.io().counters().accepted, 1);
}

fn connecting_reports_success_and_refusal<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let (mut acceptor, addr) = server.world.acceptor();
    let conn = server.world.io().connect(addr).unwrap();
    server.until("connected", |server| server.conns.contains_key(&conn));
    assert_eq!(server.seen(conn).connected, Some(Ok(())));
    let mut peer = None;
    server.until("accepted", |server| {
        peer = server.world.accept(&mut acceptor);
        peer.is_some()
    });
    let mut peer = peer.unwrap();
    server.queue(conn, b"hello");
    assert_eq!(read_exactly(&mut server, &mut peer, 5), b"hello");
    write_all(&mut server, &mut peer, b"there");
    server.until("received", |server| server.seen(conn).received == b"there");

    drop(acceptor);
    let refused = server.world.io().connect(addr).unwrap();
    server.until("refused", |server| server.conns.contains_key(&refused));
    assert_eq!(server.seen(refused).connected, Some(Err(libc::ECONNREFUSED)));
    server.close(refused);
    server.turn();
}

fn what_is_sent_comes_back<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    server.echo = true;
    let addr = server.listen();
    let (mut peer, _) = server.pair(addr);
    let mut chance = Chance(1);
    for _ in 0..40 {
        let count = 1 + chance.below(60_000);
        let bytes = chance.bytes(count);
        server.send_bytes_max = 1 + chance.below(40_000);
        let (mut written, mut back) = (0, Vec::new());
        server.until("echoed", |_| {
            written += peer.write(&bytes[written..]);
            peer.read_into(&mut back);
            back.len() >= count
        });
        assert!(back == bytes, "the echo differs");
    }
}

fn gathering_turns_lose_nothing_and_hold_nothing_back<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    server.echo = true;
    let addr = server.listen();
    let mut pairs: Vec<_> = (0..8).map(|_| server.pair(addr)).collect();
    let batching = Batching { completions: 64, wait: Nanos::from_millis(1) };
    server.world.io().set_batching(batching);
    let mut chance = Chance(5);
    for round in 0..20 {
        // Far fewer completions than a turn would gather: the rest of the wait must end by itself.
        let (peer, _) = &mut pairs[round % 8];
        let count = 1 + chance.below(5_000);
        let bytes = chance.bytes(count);
        let (mut written, mut back) = (0, Vec::new());
        server.until("echoed", |_| {
            written += peer.write(&bytes[written..]);
            peer.read_into(&mut back);
            back.len() >= count
        });
        assert!(back == bytes, "the echo differs");
    }
}

fn a_peer_that_does_not_read_blocks_the_send_until_it_does<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    let bytes = Chance(2).bytes(2 << 20);
    server.send_bytes_max = 1 << 20;
    server.queue(conn, &bytes);
    let mut quiet = 0;
    server.until("blocked for good", |server| {
        quiet =
            if server.completions_last == 0 && server.seen(conn).blocked { quiet + 1 } else { 0 };
        quiet > 20
    });
    assert!(server.seen(conn).sent_bytes < bytes.len());
    assert!(read_exactly(&mut server, &mut peer, bytes.len()) == bytes, "bytes differ");
    assert!(server.seen(conn).blocked_count > 0);
    assert!(server.world.io().counters().sends_blocked > 0);
}

/// What a peer that reads nothing is taken of at once; the simulation has one bound for all.
fn a_larger_bound_of_unsent_bytes_takes_more_at_once<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let bytes = Chance(2).bytes(1 << 20);
    server.send_bytes_max = bytes.len();
    let mut taken = |unsent_bytes_max: u32| {
        let (mut peer, conn) = server.pair(addr);
        server.world.io().set_unsent_max(conn, unsent_bytes_max);
        server.queue(conn, &bytes);
        server.until("the first send", |server| server.seen(conn).sent_bytes > 0);
        let taken = server.seen(conn).sent_bytes;
        assert!(read_exactly(&mut server, &mut peer, bytes.len()) == bytes, "bytes differ");
        taken
    };
    let (small, large) = (taken(16 * 1024), taken(2 << 20));
    assert!(W::IS_SIMULATED || small < large, "{small} {large}");
}

fn closing_while_receiving_and_sending_delivers_nothing_more<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    for round in 0..20 {
        let (mut peer, conn) = server.pair(addr);
        server.send_bytes_max = 1 << 20;
        server.queue(conn, &vec![1; 1 << 20]);
        for _ in 0..round {
            peer.write(&[2; 10_000]);
            server.turn();
        }
        peer.write(&[3; 10_000]);
        server.pump();
        server.close(conn);
        // The server's own check (`after close`) is the assertion for the completions.
        let mut rest = Vec::new();
        server.until("the peer sees the end", |_| {
            peer.read_into(&mut rest);
            peer.is_over()
        });
    }
    server.until("all descriptors closed", |server| {
        let counters = server.world.io().counters();
        counters.opened == counters.closed
    });
}

fn a_send_before_close_in_the_same_turn_arrives<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    // The rough simulation may take only a part, as a kernel with a full socket would.
    server.world.io().send(conn, SendBuf::Owned(b"good-bye".to_vec()));
    server.close(conn);
    let mut words = Vec::new();
    server.until("end of stream", |_| {
        peer.read_into(&mut words);
        peer.is_over()
    });
    assert!(b"good-bye".starts_with(&words) && !peer.is_reset());
    assert!(!words.is_empty(), "seed 7 does not block this send");
}

fn what_more_follows_is_sent_with_it_or_soon<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = loop {
        let (mut peer, conn) = server.pair(addr);
        let began = server.world.io().now();
        server.send_more(conn, SendBuf::Owned(b"head, ".to_vec()));
        server.until("the head", |server| server.seen(conn).in_flight == 0);
        let mut early = Vec::new();
        (0..5).for_each(|_| server.turn());
        if W::IS_SIMULATED {
            break (peer, conn);
        }
        peer.read_into(&mut early);
        // The kernel waits for 200 ms: who had no processor for as long sees nothing of it.
        server.turn();
        if server.world.io().now() < began.saturating_add(Nanos::from_millis(100)) {
            assert!(early.is_empty(), "sent by itself: {early:?}");
            break (peer, conn);
        }
    };
    server.queue(conn, b"body");
    assert_eq!(read_exactly(&mut server, &mut peer, 10), b"head, body");
    // Nothing follows: it is not kept for ever.
    server.send_more(conn, SendBuf::Owned(b"last words".to_vec()));
    assert_eq!(read_exactly(&mut server, &mut peer, 10), b"last words");
}

/// Memory that was given up while the kernel refers to it, and memory taken since: the peer, who reads
/// late, gets what was sent.
fn bytes_of_a_file_stay_as_they_were_when_they_were_sent<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    let file = MemFile::new().unwrap();
    let bytes = Chance(4).bytes(1 << 20);
    server.world.io().set_unsent_max(conn, 1 << 20);
    let sent = file.put(&bytes).unwrap();
    server.send(conn, SendBuf::Shared(sent));
    server.until("the send", |server| server.seen(conn).in_flight == 0);
    // The rest is not sent, and the last reference came back with the completion.
    server.conns.get_mut(&conn).unwrap().to_send.clear();
    let count = server.seen(conn).sent_bytes;
    let others: Vec<_> = (0..8).map(|_| file.put(&[0xee; 1 << 20]).unwrap()).collect();
    assert!(read_exactly(&mut server, &mut peer, count) == bytes[..count], "bytes differ");
    assert!(others.iter().all(|other| other.iter().all(|&byte| byte == 0xee)));
    let from_file = server.world.io().counters().sends_from_file;
    assert_eq!(from_file, u64::from(!W::IS_SIMULATED));
}

fn the_peers_half_close_leaves_the_other_half_open<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    write_all(&mut server, &mut peer, b"last");
    peer.shutdown_write();
    server.until("end", |server| server.seen(conn).ended.is_some());
    assert_eq!(server.seen(conn).received, b"last");
    assert_eq!(server.seen(conn).ended, Some(ReceiveEnd::Eof));
    server.queue(conn, b"still here");
    assert_eq!(read_exactly(&mut server, &mut peer, 10), b"still here");
}

fn our_half_close_leaves_the_other_half_open<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    server.world.io().shutdown_write(conn);
    let mut nothing = Vec::new();
    server.until("end", |_| {
        peer.read_into(&mut nothing);
        peer.is_over()
    });
    assert!(nothing.is_empty() && !peer.is_reset());
    write_all(&mut server, &mut peer, b"I talk on");
    server.until("received", |server| server.seen(conn).received == b"I talk on");
    server.queue(conn, b"x");
    server.until("refused", |server| server.seen(conn).send_failed.is_some());
    assert_eq!(server.seen(conn).send_failed, Some(libc::EPIPE));
}

fn half_closing_behind_a_send_cuts_nothing_off<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    server.queue(conn, b"complete sentence");
    server.pump();
    server.world.io().shutdown_write(conn);
    let mut words = Vec::new();
    server.until("end", |_| {
        peer.read_into(&mut words);
        peer.is_over()
    });
    assert!(b"complete sentence".starts_with(&words) && !peer.is_reset());
    server.until("told", |server| server.seen(conn).sent_bytes > 0);
    assert_eq!(words.len(), server.seen(conn).sent_bytes);
    assert!(!words.is_empty(), "seed 7 does not block this send");
}

fn a_reset_is_an_error_not_an_end<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    write_all(&mut server, &mut peer, b"x");
    server.until("received", |server| server.seen(conn).received == b"x");
    peer.reset();
    server.until("broken", |server| server.seen(conn).ended.is_some());
    assert_eq!(server.seen(conn).ended, Some(ReceiveEnd::Error(libc::ECONNRESET)));
    server.close(conn);
    server.turn();
}

fn sending_to_a_broken_connection_fails_for_good<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (peer, conn) = server.pair(addr);
    peer.reset();
    server.until("failed", |server| {
        if server.seen(conn).to_send.is_empty() {
            server.queue(conn, b"anybody?");
        }
        server.seen(conn).send_failed.is_some()
    });
    let errno = server.seen(conn).send_failed.unwrap();
    assert!([libc::EPIPE, libc::ECONNRESET].contains(&errno), "{errno}");
}

fn ids_of_many_connections_one_after_the_other_never_repeat<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    for _ in 0..200 {
        let (mut peer, conn) = server.pair(addr);
        server.queue(conn, b"hi");
        read_exactly(&mut server, &mut peer, 2);
        server.close(conn);
        assert!(conn.index() < 64, "indices are reused");
    }
    assert_eq!(server.closed.len(), 200);
    server.until("all descriptors closed", |server| {
        let counters = server.world.io().counters();
        counters.opened == 200 && counters.closed == 200
    });
}

fn nothing_is_delivered_during_a_pause_and_nothing_is_lost<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    write_all(&mut server, &mut peer, b"before");
    server.until("received", |server| server.seen(conn).received == b"before");
    server.pause(conn);
    write_all(&mut server, &mut peer, b" during");
    for _ in 0..50 {
        server.turn();
    }
    assert_eq!(server.seen(conn).received, b"before");
    server.resume(conn);
    write_all(&mut server, &mut peer, b" after");
    server.until("all", |server| server.seen(conn).received.len() == 19);
    assert_eq!(server.seen(conn).received, b"before during after");
}

fn pausing_and_resuming_at_random_loses_nothing<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    let mut chance = Chance(3);
    let bytes = chance.bytes(600_000);
    let mut written = 0;
    server.until("all", |server| {
        let count = (bytes.len() - written).min(chance.below(9_000));
        written += peer.write(&bytes[written..written + count]);
        match chance.below(4) {
            0 => server.pause(conn),
            1 => server.resume(conn),
            2 => {
                server.pause(conn);
                server.resume(conn);
            }
            _ => {}
        }
        if written == bytes.len() {
            server.resume(conn);
        }
        server.seen(conn).received.len() == bytes.len()
    });
    assert!(server.seen(conn).received == bytes, "bytes differ");
}

fn an_end_during_a_pause_is_told_after_it<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    server.pause(conn);
    write_all(&mut server, &mut peer, b"testament");
    peer.shutdown_write();
    for _ in 0..50 {
        server.turn();
    }
    assert_eq!(server.seen(conn).ended, None);
    server.resume(conn);
    server.until("end", |server| server.seen(conn).ended.is_some());
    assert_eq!(server.seen(conn).received, b"testament");
}

fn paused_peers_keep_no_buffers_from_the_others<W: World>() {
    let config = IoConfig { recv_buffers: 4, recv_buffer_bytes: 256, ..IoConfig::default() };
    let Some(mut server) = Server::<W>::open(config) else { return };
    let addr = server.listen();
    let mut paused: Vec<(W::P, uring::ConnId, usize)> = Vec::new();
    for _ in 0..16 {
        let (mut peer, conn) = server.pair(addr);
        // Partly before the pause, so that some of it is on its way into a buffer already.
        write_all(&mut server, &mut peer, &[1; 400]);
        server.pause(conn);
        let received = server.seen(conn).received.len();
        write_all(&mut server, &mut peer, &[1; 100]);
        paused.push((peer, conn, received));
    }
    let (mut peer, conn) = server.pair(addr);
    write_all(&mut server, &mut peer, &[2; 5_000]);
    server.until("all of the lively one", |server| server.seen(conn).received.len() == 5_000);
    for &(_, conn, received) in &paused {
        assert_eq!(server.seen(conn).received.len(), received, "nothing during a pause");
        server.resume(conn);
    }
    server.until("all of the others", |server| {
        paused.iter().all(|&(_, conn, _)| server.seen(conn).received.len() == 500)
    });
}

fn sixty_four_connections_at_once_do_not_mix<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    server.echo = true;
    let addr = server.listen();
    let mut peers: Vec<W::P> = (0..64).map(|_| server.world.peer(addr)).collect();
    let mut chance = Chance(4);
    let sent: Vec<Vec<u8>> = (0..64).map(|_| chance.bytes(20_000)).collect();
    let (mut written, mut back) = (vec![0; 64], vec![Vec::new(); 64]);
    server.until("all echoed", |_| {
        for (at, peer) in peers.iter_mut().enumerate() {
            let count = (sent[at].len() - written[at]).min(chance.below(3_000));
            written[at] += peer.write(&sent[at][written[at]..written[at] + count]);
            peer.read_into(&mut back[at]);
        }
        back.iter().all(|back| back.len() >= 20_000)
    });
    assert!(back == sent, "an echo differs");
    assert_eq!(server.accepted.len(), 64);
}

fn a_hundred_senders_share_four_buffers<W: World>() {
    let config = IoConfig { recv_buffers: 4, recv_buffer_bytes: 512, ..IoConfig::default() };
    let Some(mut server) = Server::<W>::open(config) else { return };
    let addr = server.listen();
    let mut peers: Vec<W::P> = (0..100).map(|_| server.world.peer(addr)).collect();
    let sent: Vec<Vec<u8>> = (0..100u64).map(|seed| Chance(seed).bytes(4_000)).collect();
    let mut written = vec![0; 100];
    server.until("all received", |server| {
        for (at, peer) in peers.iter_mut().enumerate() {
            written[at] += peer.write(&sent[at][written[at]..]);
        }
        server.conns.values().map(|seen| seen.received.len()).sum::<usize>() == 400_000
    });
    for (peer, sent) in peers.iter().zip(&sent) {
        let addr = Some(peer.addr());
        let seen = server.conns.values().find(|seen| seen.peer == addr).unwrap();
        assert!(seen.received == *sent, "bytes differ");
    }
    // No tight loop: what is armed again is bounded by the buffers, and a turn is a turn.
    let counters = *server.world.io().counters();
    assert!(counters.receive_rearmed <= 4 * counters.turns + 100, "{counters:?}");
}

fn held_buffers_stop_receiving_and_their_return_resumes_it<W: World>() {
    let config = IoConfig { recv_buffers: 2, recv_buffer_bytes: 64, ..IoConfig::default() };
    let Some(mut world) = W::open(config) else { return };
    let (_, addr) = world.io().listen(any_port(), &ListenOptions::default()).unwrap();
    let mut peer = world.peer(addr);
    let (mut completions, mut held, mut written) = (Vec::new(), Vec::new(), 0);
    let mut received = 0;
    let sent = Chance(5).bytes(300);
    let mut back: Vec<u8> = Vec::new();
    let mut emptied_at = None;
    for turn in 0..common::TURNS_MAX {
        written += peer.write(&sent[written..]);
        let deadline = world.io().now().saturating_add(Nanos::from_millis(1));
        world.io().turn(Some(deadline), &mut completions).unwrap();
        if completions.is_empty() {
            world.pass();
        }
        for completion in completions.drain(..) {
            if let uring::Completion::Received { data, .. } = completion {
                received += data.len();
                held.push(data);
            }
        }
        assert!(held.len() <= 2, "more buffers than there are");
        if held.len() == 2 && emptied_at.is_none() {
            emptied_at = Some(turn);
        }
        if emptied_at.is_some_and(|at| turn >= at + 30) || received == 300 {
            held.drain(..).for_each(|data| back.extend(&*data));
            emptied_at = None;
        }
        if back.len() == 300 {
            assert!(back == sent, "bytes differ");
            return;
        }
    }
    panic!("stuck at {received} of 300: {:?}", world.io().counters());
}

fn a_turn_hands_out_no_more_than_its_limit<W: World>() {
    let config = IoConfig { completions_per_turn_max: 8, ..IoConfig::default() };
    let Some(mut server) = Server::<W>::open(config) else { return };
    server.echo = true;
    let addr = server.listen();
    let mut peers: Vec<W::P> = (0..50).map(|_| server.world.peer(addr)).collect();
    let (mut written, mut back) = (vec![0; 50], vec![Vec::new(); 50]);
    let mut most = 0;
    server.until("all echoed", |server| {
        most = most.max(server.completions_last);
        for (at, peer) in peers.iter_mut().enumerate() {
            written[at] += peer.write(&[7; 500][written[at]..]);
            peer.read_into(&mut back[at]);
        }
        back.iter().all(|back| back.len() == 500)
    });
    assert!((1..=8).contains(&most), "{most}");
}

fn stale_ids_are_ignored_and_counted<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let (mut old_peer, old) = server.pair(addr);
    server.close(old);
    let mut rest = Vec::new();
    server.until("end", |_| {
        old_peer.read_into(&mut rest);
        old_peer.is_over()
    });
    let (mut peer, conn) = server.pair(addr);
    let io = server.world.io();
    let before = io.counters().stale_calls;
    io.send(old, SendBuf::Lease(Rc::from(&b"lost"[..])));
    io.pause_receive(old);
    io.resume_receive(old);
    io.shutdown_write(old);
    io.close(old);
    assert_eq!(io.counters().stale_calls, before + 5);
    write_all(&mut server, &mut peer, b"fine");
    server.until("received", |server| server.seen(conn).received == b"fine");
    server.queue(conn, b"fine too");
    assert_eq!(read_exactly(&mut server, &mut peer, 8), b"fine too");
}

fn a_closed_listener_refuses_and_frees_its_address<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let options = ListenOptions { reuseport: false, ..ListenOptions::default() };
    let (listener, addr) = server.world.io().listen(any_port(), &options).unwrap();
    assert!(server.world.io().listen(addr, &options).is_err(), "the address is taken");
    let (_peer, conn) = server.pair(addr);
    server.world.io().close_listener(listener);
    server.world.io().close_listener(listener);
    assert_eq!(server.world.io().counters().stale_calls, 1);
    for _ in 0..5 {
        server.turn();
    }
    let refused = server.world.io().connect(addr).unwrap();
    server.until("refused", |server| server.conns.contains_key(&refused));
    assert_eq!(server.seen(refused).connected, Some(Err(libc::ECONNREFUSED)));
    server.world.io().listen(addr, &options).unwrap();
    assert!(server.seen(conn).ended.is_none(), "accepted connections stay");
}

fn peers_above_the_limit_are_turned_away<W: World>() {
    let config = IoConfig { connections_max: 2, ..IoConfig::default() };
    let Some(mut server) = Server::<W>::open(config) else { return };
    let addr = server.listen();
    let (_first, _) = server.pair(addr);
    let (_second, second) = server.pair(addr);
    let mut third = server.world.peer(addr);
    let mut nothing = Vec::new();
    server.until("turned away", |_| {
        third.read_into(&mut nothing);
        third.is_over()
    });
    assert_eq!(server.world.io().counters().accept_over_limit, 1);
    assert!(server.world.io().connect(addr).is_err());
    server.close(second);
    server.until("room again", |server| server.world.io().counters().closed == 1);
    let (_fourth, _) = server.pair(addr);
}

fn a_past_deadline_does_not_wait<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    server.listen();
    let mut completions = Vec::new();
    let now = server.world.io().now();
    server.world.io().turn(Some(Nanos(0)), &mut completions).unwrap();
    server.world.io().turn(Some(now), &mut completions).unwrap();
    assert!(completions.is_empty());
    assert!(server.world.io().now() >= now);
}

fn a_wake_is_reported_once<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let waker = server.world.io().waker();
    for _ in 0..3 {
        waker.wake();
    }
    server.until("woken", |server| server.woken > 0);
    for _ in 0..20 {
        server.turn();
    }
    assert_eq!((server.woken, server.world.io().counters().wakes), (1, 1));
    std::thread::spawn(move || waker.wake()).join().unwrap();
    server.until("woken again", |server| server.woken == 2);
}

fn dropping_everything_with_work_in_flight_is_clean<W: World>() {
    let Some(mut server) = server::<W>() else { return };
    let addr = server.listen();
    let mut peers = Vec::new();
    for _ in 0..10 {
        let (mut peer, conn) = server.pair(addr);
        server.send_bytes_max = 1 << 20;
        server.queue(conn, &vec![1; 1 << 20]);
        peer.write(&[2; 5_000]);
        peers.push(peer);
    }
    server.turn();
    server.pump();
    drop(server);
}
