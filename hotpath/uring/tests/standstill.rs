//! A network that stands still takes nothing from the kernel, and what it passes on goes on elsewhere: within
//! one kind of kernel interface and between the two.

mod common;

use common::{EpollWorld, UringWorld, World, any_port};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use uring::{Completion, ConnId, Io, IoConfig, ListenOptions, ListenerId, Nanos, SendBuf};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// As many turns of two milliseconds at most.
const TURNS_MAX: u32 = 10_000;

struct Side<W: World> {
    world: W,
    received: Vec<u8>,
    accepted: Vec<ConnId>,
    sent: usize,
}

impl<W: World> Side<W> {
    fn open() -> Option<Self> {
        let world = W::open(IoConfig::default())?;
        Some(Self { world, received: Vec::new(), accepted: Vec::new(), sent: 0 })
    }

    fn turn(&mut self) {
        let mut completions = Vec::new();
        let deadline = self.world.io().now().saturating_add(Nanos::from_millis(2));
        self.world.io().turn(Some(deadline), &mut completions).unwrap();
        for completion in completions {
            match completion {
                Completion::Received { data, .. } => self.received.extend_from_slice(&data),
                Completion::Accepted { conn, .. } => self.accepted.push(conn),
                Completion::Sent { bytes, .. } => self.sent += bytes,
                Completion::ReceiveEnded { reason, .. } => panic!("{reason:?}"),
                _ => {}
            }
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("waited in vain: {what}");
    }

    fn stand_still(&mut self) {
        for _ in 0..TURNS_MAX {
            self.world.io().freeze();
            if self.world.io().is_frozen() {
                return;
            }
            self.turn();
        }
        panic!("it comes to no standstill");
    }
}

/// A side with a listener and a connection that has brought a word.
fn connected<W: World>() -> Option<(Side<W>, ListenerId, ConnId, TcpStream)> {
    let mut side = Side::<W>::open()?;
    let (listener, addr) = side.world.io().listen(any_port(), &ListenOptions::default()).unwrap();
    let mut peer = TcpStream::connect(addr).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.write_all(b"one ").unwrap();
    side.until("the first word", |side| side.received == b"one ");
    let conn = side.accepted[0];
    Some((side, listener, conn, peer))
}

fn what_comes_during_a_standstill_is_there_afterwards<W: World>() {
    let Some((mut side, _, _, mut peer)) = connected::<W>() else { return };
    side.stand_still();
    let late = TcpStream::connect(peer.peer_addr().unwrap()).unwrap();
    peer.write_all(b"two ").unwrap();
    for _ in 0..50 {
        side.turn();
        assert!(side.world.io().is_frozen());
    }
    assert_eq!((&side.received[..], side.accepted.len()), (&b"one "[..], 1));
    side.world.io().thaw();
    side.until("what came meanwhile", |side| {
        side.received == b"one two " && side.accepted.len() == 2
    });
    drop(late);
}

fn what_is_passed_on_goes_on_and_the_peer_notices_nothing<A: World, B: World>() {
    let Some((mut old, listener, conn, mut peer)) = connected::<A>() else { return };
    let Some(mut new) = Side::<B>::open() else { return };
    old.stand_still();
    peer.write_all(b"two ").unwrap();
    let socket = old.world.io().duplicate(conn).unwrap();
    let door = old.world.io().duplicate_listener(listener).unwrap();
    new.world.io().freeze();
    let adopted = new.world.io().adopt(socket, None).unwrap();
    let (_, addr) = new.world.io().listen_on(door, &ListenOptions::default()).unwrap();
    for _ in 0..20 {
        new.turn();
    }
    assert!(new.received.is_empty(), "nothing before its time");
    old.world.io().release(conn);
    old.world.io().release_listener(listener);
    old.world.io().thaw();
    new.world.io().thaw();
    peer.write_all(b"three").unwrap();
    new.until("the rest", |side| side.received == b"two three");
    new.world.io().send(adopted, SendBuf::Owned(b"answer".to_vec()));
    new.until("the answer to be sent", |side| side.sent == 6);
    let mut answer = [0; 6];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    // The first side ends for good; the peer and who comes now are the second's.
    for _ in 0..20 {
        old.turn();
    }
    assert_eq!(old.received, b"one ");
    drop(old);
    let _late = TcpStream::connect(addr).unwrap();
    new.until("a peer at the same address", |side| side.accepted.len() == 1);
    peer.write_all(b"!").unwrap();
    new.until("the connection to live on", |side| side.received == b"two three!");
}

/// The other side has had the sockets and is gone: the first takes them back.
fn what_was_lent_in_vain_is_taken_back<A: World, B: World>() {
    let Some((mut old, listener, conn, mut peer)) = connected::<A>() else { return };
    let Some(mut new) = Side::<B>::open() else { return };
    old.stand_still();
    let socket = old.world.io().duplicate(conn).unwrap();
    let door = old.world.io().duplicate_listener(listener).unwrap();
    new.world.io().freeze();
    new.world.io().adopt(socket, None).unwrap();
    let (_, addr) = new.world.io().listen_on(door, &ListenOptions::default()).unwrap();
    new.turn();
    drop(new);
    old.world.io().thaw();
    peer.write_all(b"two").unwrap();
    let _late = TcpStream::connect(addr).unwrap();
    old.until("everything as before", |side| {
        side.received == b"one two" && side.accepted.len() == 2
    });
    assert!(old.world.io().duplicate(conn).is_ok());
}

#[test]
fn a_standstill_loses_nothing() {
    what_comes_during_a_standstill_is_there_afterwards::<UringWorld>();
    what_comes_during_a_standstill_is_there_afterwards::<EpollWorld>();
}

#[test]
fn sockets_go_on_in_another_network() {
    what_is_passed_on_goes_on_and_the_peer_notices_nothing::<UringWorld, UringWorld>();
    what_is_passed_on_goes_on_and_the_peer_notices_nothing::<EpollWorld, EpollWorld>();
    what_is_passed_on_goes_on_and_the_peer_notices_nothing::<EpollWorld, UringWorld>();
    what_is_passed_on_goes_on_and_the_peer_notices_nothing::<UringWorld, EpollWorld>();
}

#[test]
fn sockets_lent_in_vain_come_back() {
    what_was_lent_in_vain_is_taken_back::<UringWorld, UringWorld>();
    what_was_lent_in_vain_is_taken_back::<EpollWorld, EpollWorld>();
    what_was_lent_in_vain_is_taken_back::<EpollWorld, UringWorld>();
    what_was_lent_in_vain_is_taken_back::<UringWorld, EpollWorld>();
}
