//! What only a real kernel shows: a turn without deadline ends by a wake from another thread, or by a
//! peer, and not before; a peer may be gone before it is accepted.

mod common;

use common::{EpollWorld, Peer, Server, UringWorld, World};
use uring::{Completion, Io, IoConfig, Nanos};

fn a_wake_from_another_thread_ends_an_endless_turn<W: World>() {
    let Some(mut world) = W::open(IoConfig::default()) else { return };
    let mut completions = Vec::new();
    for _ in 0..100 {
        let waker = world.io().waker();
        let thread = std::thread::spawn(move || waker.wake());
        // No deadline: without the wake this test hangs. Whether the thread is faster than the
        // wait is chance, and both must work.
        while completions.is_empty() {
            world.io().turn(None, &mut completions).unwrap();
        }
        assert!(matches!(completions[..], [Completion::Woken]), "{completions:?}");
        completions.clear();
        thread.join().unwrap();
    }
    assert_eq!(world.io().counters().wakes, 100);
}

fn a_turn_waits_for_its_deadline_and_not_less<W: World>() {
    let Some(mut world) = W::open(IoConfig::default()) else { return };
    let mut completions = Vec::new();
    world.io().turn(Some(Nanos(0)), &mut completions).unwrap();
    let deadline = world.io().now().saturating_add(Nanos::from_millis(20));
    let turns = world.io().counters().turns;
    while world.io().now() < deadline {
        world.io().turn(Some(deadline), &mut completions).unwrap();
    }
    assert!(completions.is_empty());
    // The wait is the kernel's, not a loop of ours.
    assert!(world.io().counters().turns - turns <= 3);
}

fn an_idle_turn_after_work_waits_for_the_peer<W: World>()
where
    W::P: Send + 'static,
{
    let Some(mut server) = Server::<W>::open(IoConfig::default()) else { return };
    let addr = server.listen();
    let (mut peer, conn) = server.pair(addr);
    for _ in 0..5 {
        server.turn();
    }
    let mut completions = Vec::new();
    let thread = std::thread::spawn(move || {
        assert_eq!(Peer::write(&mut peer, b"wake up"), 7);
        peer
    });
    while completions.is_empty() {
        server.world.io().turn(None, &mut completions).unwrap();
    }
    assert!(matches!(&completions[..], [Completion::Received { conn: at, .. }] if *at == conn));
    thread.join().unwrap();
}

fn a_probe_that_has_left_is_counted_and_not_reported<W: World>() {
    let Some(mut server) = Server::<W>::open(IoConfig::default()) else { return };
    let addr = server.listen();
    server.world.peer(addr).reset();
    server.until("noticed", |server| server.world.io().counters().accept_gone == 1);
    let (_peer, _) = server.pair(addr);
    let counters = server.world.io().counters();
    assert_eq!((counters.accepted, counters.opened, counters.accept_errors), (1, 1, 0));
}

#[test]
fn uring_counts_probes() {
    a_probe_that_has_left_is_counted_and_not_reported::<UringWorld>();
}

#[test]
fn epoll_counts_probes() {
    a_probe_that_has_left_is_counted_and_not_reported::<EpollWorld>();
}

#[test]
fn uring_wakes() {
    a_wake_from_another_thread_ends_an_endless_turn::<UringWorld>();
}

#[test]
fn epoll_wakes() {
    a_wake_from_another_thread_ends_an_endless_turn::<EpollWorld>();
}

#[test]
fn uring_waits_until_the_deadline() {
    a_turn_waits_for_its_deadline_and_not_less::<UringWorld>();
}

#[test]
fn epoll_waits_until_the_deadline() {
    a_turn_waits_for_its_deadline_and_not_less::<EpollWorld>();
}

#[test]
fn uring_waits_for_a_peer() {
    an_idle_turn_after_work_waits_for_the_peer::<UringWorld>();
}

#[test]
fn epoll_waits_for_a_peer() {
    an_idle_turn_after_work_waits_for_the_peer::<EpollWorld>();
}
