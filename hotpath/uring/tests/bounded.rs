//! Bounded receives, the source of a connection, and what of kernel TLS needs no kernel TLS: each
//! case on io_uring (as of 6.1 and as of 6.0), on epoll and on the simulated network.
//!
//! That a bounded receive brings no more than it asked for, and that nothing comes at rest, is
//! checked by the server at every completion.

mod common;

use common::{
    Chance, EpollWorld, Mode, OldUringWorld, Peer, Server, SimWorld, UringWorld, World,
    read_exactly, write_all,
};
use std::net::IpAddr;
use uring::{ConnId, Io, IoConfig, ReceiveEnd, TlsDirection};

macro_rules! on_each {
    ($($case:ident),* $(,)?) => {
        mod on_uring { $(#[test] fn $case() { super::$case::<super::UringWorld>(); })* }
        mod on_old_uring { $(#[test] fn $case() { super::$case::<super::OldUringWorld>(); })* }
        mod on_epoll { $(#[test] fn $case() { super::$case::<super::EpollWorld>(); })* }
        mod on_sim { $(#[test] fn $case() { super::$case::<super::SimWorld>(); })* }
    };
}

on_each!(
    bounded_receives_take_what_they_ask_for_and_streaming_takes_the_rest,
    bounds_of_any_size_cut_the_stream_anywhere,
    a_bound_beyond_the_buffer_is_the_buffer,
    an_end_at_rest_is_told_to_the_next_receive,
    a_reset_at_rest_is_told_to_the_next_receive,
    a_pause_holds_a_bounded_receive_back_and_it_rests_after_it,
    a_pause_at_rest_is_none,
    resuming_twice_during_a_bounded_receive_leaves_it_bounded,
    pausing_and_resuming_at_random_around_bounded_receives_loses_nothing,
    a_hundred_bounded_receivers_share_four_buffers,
    connecting_from_an_address_shows_it_to_the_peer,
    a_source_of_another_family_is_refused,
    closing_in_every_state_of_receiving_is_clean,
    receiving_after_the_end_does_nothing,
    a_bounded_receive_of_a_closed_connection_is_counted,
    tls_is_refused_while_something_is_under_way,
    tls_calls_about_a_closed_connection_are_refused_and_counted,
);

/// A bounded receive of what already streams is a bug of the caller.
#[cfg(debug_assertions)]
macro_rules! asking_while_streaming_panics {
    ($($name:ident: $world:ty),* $(,)?) => { $(
        #[test]
        #[should_panic(expected = "receiving does not rest")]
        fn $name() {
            let Some(mut server) = Server::<$world>::open(IoConfig::default()) else {
                panic!("receiving does not rest (skipped)")
            };
            let addr = server.listen();
            let (_peer, conn) = server.pair(addr);
            server.world.io().receive_once(conn, 1);
        }
    )* };
}

#[cfg(debug_assertions)]
asking_while_streaming_panics!(
    asking_while_streaming_panics_on_uring: UringWorld,
    asking_while_streaming_panics_on_epoll: EpollWorld,
    asking_while_streaming_panics_on_sim: SimWorld,
);

/// A server whose connections begin with a receive of at most `first_bytes_max`.
fn server<W: World>(first_bytes_max: u32) -> Option<Server<W>> {
    let mut server = Server::open(IoConfig::default())?;
    server.first_bytes_max = Some(first_bytes_max);
    Some(server)
}

/// Receives bounded until `count` bytes are there in all, as a TLS handshake does.
fn receive_up_to<W: World>(server: &mut Server<W>, conn: ConnId, count: usize) {
    server.until("enough", |server| {
        let seen = server.seen(conn);
        let missing = count - seen.received.len();
        if missing > 0 && seen.mode == Mode::Resting {
            server.receive_once(conn, u32::try_from(missing).unwrap());
        }
        missing == 0
    });
}

fn some_turns<W: World>(server: &mut Server<W>) {
    (0..50).for_each(|_| server.turn());
}

fn bounded_receives_take_what_they_ask_for_and_streaming_takes_the_rest<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    let bytes = Chance(21).bytes(10_000);
    write_all(&mut server, &mut peer, &bytes);
    for count in [5, 12] {
        receive_up_to(&mut server, conn, count);
        some_turns(&mut server);
        assert_eq!(server.seen(conn).received, bytes[..count]);
        let counters = *server.world.io().counters();
        assert_eq!((counters.received_bytes, counters.set_aside_bytes), (count as u64, 0));
        assert!(counters.receive_once > 0);
    }
    server.resume(conn);
    server.until("all", |server| server.seen(conn).received.len() == bytes.len());
    assert!(server.seen(conn).received == bytes, "bytes differ");
    server.queue(conn, b"and back");
    assert_eq!(read_exactly(&mut server, &mut peer, 8), b"and back");
}

fn bounds_of_any_size_cut_the_stream_anywhere<W: World>() {
    let Some(mut server) = server::<W>(1) else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    let mut chance = Chance(22);
    let bytes = chance.bytes(60_000);
    let mut written = 0;
    server.until("all", |server| {
        written += peer.write(&bytes[written..]);
        if server.seen(conn).mode == Mode::Resting {
            let bytes_max = [1, 5, 100, 3_000][chance.below(4)];
            server.receive_once(conn, bytes_max);
        }
        server.seen(conn).received.len() == bytes.len()
    });
    assert!(server.seen(conn).received == bytes, "bytes differ");
}

fn a_bound_beyond_the_buffer_is_the_buffer<W: World>() {
    let config = IoConfig { recv_buffer_bytes: 256, ..IoConfig::default() };
    let Some(mut server) = Server::<W>::open(config) else { return };
    server.first_bytes_max = Some(u32::MAX);
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    write_all(&mut server, &mut peer, &[9; 2_000]);
    server.until("a part", |server| server.seen(conn).mode == Mode::Resting);
    some_turns(&mut server);
    assert!((1..=256).contains(&server.seen(conn).received.len()));
    receive_up_to(&mut server, conn, 2_000);
}

fn an_end_at_rest_is_told_to_the_next_receive<W: World>() {
    for streaming in [false, true] {
        let Some(mut server) = server::<W>(5) else { return };
        let addr = server.listen();
        let (mut peer, conn) = server.pair(addr);
        write_all(&mut server, &mut peer, b"helloand more");
        receive_up_to(&mut server, conn, 5);
        peer.shutdown_write();
        some_turns(&mut server);
        assert_eq!((server.seen(conn).received.len(), server.seen(conn).ended), (5, None));
        receive_up_to(&mut server, conn, 13);
        some_turns(&mut server);
        assert_eq!(server.seen(conn).ended, None);
        if streaming {
            server.resume(conn)
        } else {
            server.receive_once(conn, 1)
        }
        server.until("the end", |server| server.seen(conn).ended.is_some());
        assert_eq!(server.seen(conn).ended, Some(ReceiveEnd::Eof));
        server.queue(conn, b"still here");
        assert_eq!(read_exactly(&mut server, &mut peer, 10), b"still here");
    }
}

fn a_reset_at_rest_is_told_to_the_next_receive<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    write_all(&mut server, &mut peer, b"hello");
    receive_up_to(&mut server, conn, 5);
    peer.reset();
    some_turns(&mut server);
    assert_eq!(server.seen(conn).ended, None);
    server.receive_once(conn, 5);
    server.until("broken", |server| server.seen(conn).ended.is_some());
    assert_eq!(server.seen(conn).ended, Some(ReceiveEnd::Error(libc::ECONNRESET)));
}

fn a_pause_holds_a_bounded_receive_back_and_it_rests_after_it<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    // Paused at once, and after the receive has had time to be armed.
    for turns in [0, 3] {
        let (mut peer, conn) = server.pair(addr);
        (0..turns).for_each(|_| server.turn());
        server.pause(conn);
        write_all(&mut server, &mut peer, b"0123456789");
        some_turns(&mut server);
        assert!(server.seen(conn).received.is_empty());
        server.resume(conn);
        server.until("a part", |server| !server.seen(conn).received.is_empty());
        some_turns(&mut server);
        assert!(server.seen(conn).received.len() <= 5);
        receive_up_to(&mut server, conn, 10);
        assert_eq!(server.seen(conn).received, b"0123456789");
    }
}

fn a_pause_at_rest_is_none<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    write_all(&mut server, &mut peer, b"0123456789");
    receive_up_to(&mut server, conn, 5);
    server.pause(conn);
    receive_up_to(&mut server, conn, 7);
    server.pause(conn);
    server.resume(conn);
    server.until("all", |server| server.seen(conn).received == b"0123456789");
}

fn resuming_twice_during_a_bounded_receive_leaves_it_bounded<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    server.world.io().resume_receive(conn);
    server.world.io().resume_receive(conn);
    write_all(&mut server, &mut peer, b"0123456789");
    server.until("a part", |server| !server.seen(conn).received.is_empty());
    some_turns(&mut server);
    assert!(server.seen(conn).received.len() <= 5);
}

fn pausing_and_resuming_at_random_around_bounded_receives_loses_nothing<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    let mut chance = Chance(23);
    let bytes = chance.bytes(150_000);
    let mut written = 0;
    server.until("all", |server| {
        let count = (bytes.len() - written).min(chance.below(4_000));
        written += peer.write(&bytes[written..written + count]);
        if server.seen(conn).mode == Mode::Resting {
            server.receive_once(conn, 1 + u32::try_from(chance.below(2_000)).unwrap());
        }
        match chance.below(5) {
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

fn a_hundred_bounded_receivers_share_four_buffers<W: World>() {
    let config = IoConfig { recv_buffers: 4, recv_buffer_bytes: 512, ..IoConfig::default() };
    let Some(mut server) = Server::<W>::open(config) else { return };
    server.first_bytes_max = Some(5);
    let addr = server.listen();
    let mut peers: Vec<W::P> = (0..100).map(|_| server.world.peer(addr)).collect();
    let mut written = vec![0; 100];
    server.until("all received", |server| {
        for (at, peer) in peers.iter_mut().enumerate() {
            written[at] += peer.write(&[7; 2_000][written[at]..]);
        }
        let resting: Vec<ConnId> =
            server.accepted.iter().copied().filter(|&conn| rests(server, conn)).collect();
        resting.into_iter().for_each(|conn| server.receive_once(conn, 700));
        server.conns.values().map(|seen| seen.received.len()).sum::<usize>() == 200_000
    });
}

fn rests<W: World>(server: &Server<W>, conn: ConnId) -> bool {
    server.seen(conn).mode == Mode::Resting
}

fn connecting_from_an_address_shows_it_to_the_peer<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let (mut acceptor, addr) = server.world.acceptor();
    let source: IpAddr = "127.0.0.9".parse().unwrap();
    let mut peers = Vec::new();
    for _ in 0..3 {
        let conn = server.connect_from(Some(source), addr, 3);
        server.until("connected", |server| server.seen(conn).connected.is_some());
        assert_eq!(server.seen(conn).connected, Some(Ok(())));
        server.until("accepted", |server| {
            peers.extend(server.world.accept(&mut acceptor).map(|peer| (conn, peer)));
            peers.last().is_some_and(|(last, _)| *last == conn)
        });
    }
    for (conn, mut peer) in peers {
        assert_eq!(peer.other_addr().ip(), source);
        assert_ne!(peer.other_addr().port(), 0);
        write_all(&mut server, &mut peer, b"0123456");
        receive_up_to(&mut server, conn, 3);
        some_turns(&mut server);
        assert_eq!(server.seen(conn).received, b"012");
        server.resume(conn);
        server.until("the rest", |server| server.seen(conn).received == b"0123456");
    }
}

fn a_source_of_another_family_is_refused<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let source: IpAddr = "::1".parse().unwrap();
    assert!(server.world.io().connect_from(Some(source), addr, None).is_err());
    let counters = server.world.io().counters();
    assert_eq!(counters.opened, counters.closed);
}

fn closing_in_every_state_of_receiving_is_clean<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    type Prepare<W> = fn(&mut Server<W>, &mut <W as World>::P, ConnId);
    let states: [Prepare<W>; 7] = [
        // Asked, nothing there; asked, and there it is.
        |_, _, _| {},
        |_, peer, _| {
            peer.write(b"0123456789");
        },
        // Paused with nothing, and with bytes held back.
        |server, _, conn| server.pause(conn),
        |server, peer, conn| {
            server.turn();
            peer.write(b"0123456789");
            server.pause(conn);
            server.turn();
        },
        // At rest, with bytes in the kernel and with an end.
        |server, peer, conn| {
            write_all(server, peer, b"0123456789");
            receive_up_to(server, conn, 5);
        },
        |server, peer, conn| {
            write_all(server, peer, b"01234");
            receive_up_to(server, conn, 5);
            peer.shutdown_write();
            server.turn();
        },
        // Asked again, cancelled, asked for everything.
        |server, peer, conn| {
            write_all(server, peer, b"01234");
            receive_up_to(server, conn, 5);
            server.receive_once(conn, 5);
            server.pause(conn);
            server.resume(conn);
        },
    ];
    for prepare in states {
        for turns in [0, 1, 20] {
            let (mut peer, conn) = server.pair(addr);
            prepare(&mut server, &mut peer, conn);
            (0..turns).for_each(|_| server.turn());
            server.close(conn);
            let mut rest = Vec::new();
            server.until("the peer sees the end", |_| {
                peer.read_into(&mut rest);
                peer.is_over()
            });
        }
    }
    server.until("all descriptors closed", |server| {
        let counters = server.world.io().counters();
        counters.opened == counters.closed
    });
}

fn receiving_after_the_end_does_nothing<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    peer.shutdown_write();
    server.until("the end", |server| server.seen(conn).ended.is_some());
    server.world.io().receive_once(conn, 5);
    server.world.io().resume_receive(conn);
    some_turns(&mut server);
    assert_eq!(server.world.io().counters().stale_calls, 0);
}

fn a_bounded_receive_of_a_closed_connection_is_counted<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let (_peer, conn) = server.pair(addr);
    server.close(conn);
    server.world.io().receive_once(conn, 5);
    assert_eq!(server.world.io().counters().stale_calls, 1);
}

fn refusal(result: std::io::Result<()>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn tls_is_refused_while_something_is_under_way<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    let io = server.world.io();
    assert_eq!(refusal(io.attach_tls(conn)), Some(libc::EALREADY), "a receive is in flight");
    let keys = io.set_tls_keys(conn, TlsDirection::Receive, &[0; 40]);
    assert_eq!(refusal(keys), Some(libc::EALREADY));
    write_all(&mut server, &mut peer, b"01234");
    receive_up_to(&mut server, conn, 5);
    server.queue(conn, b"in flight");
    server.pump();
    let io = server.world.io();
    assert_eq!(refusal(io.attach_tls(conn)), Some(libc::EALREADY), "a send is in flight");
    let keys = io.set_tls_keys(conn, TlsDirection::Send, &[0; 40]);
    assert_eq!(refusal(keys), Some(libc::EALREADY));
    assert_eq!(refusal(io.send_tls_record(conn, 21, &[1, 0])), Some(libc::EALREADY));
    server.until("sent", |server| server.seen(conn).to_send.is_empty());
    let io = server.world.io();
    let keys = io.set_tls_keys(conn, TlsDirection::Send, &[0; 40]);
    assert_eq!(refusal(keys), Some(libc::ENOPROTOOPT), "nothing is attached");
    // Without keys nothing may go out: it would go out plain.
    assert_eq!(refusal(io.send_tls_record(conn, 21, &[1, 0])), Some(libc::EINVAL));
    assert_eq!(read_exactly(&mut server, &mut peer, 9), b"in flight");
    server.resume(conn);
    let io = server.world.io();
    assert_eq!(refusal(io.attach_tls(conn)), Some(libc::EALREADY), "streaming");
}

fn tls_calls_about_a_closed_connection_are_refused_and_counted<W: World>() {
    let Some(mut server) = server::<W>(5) else { return };
    let addr = server.listen();
    let (_peer, conn) = server.pair(addr);
    server.close(conn);
    let io = server.world.io();
    let before = io.counters().stale_calls;
    assert_eq!(refusal(io.attach_tls(conn)), Some(libc::EBADF));
    assert_eq!(refusal(io.set_tls_keys(conn, TlsDirection::Send, &[])), Some(libc::EBADF));
    assert_eq!(refusal(io.send_tls_record(conn, 21, &[1, 0])), Some(libc::EBADF));
    assert_eq!(io.counters().stale_calls, before + 3);
}
