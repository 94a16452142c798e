//! A network that stands still takes nothing from the kernel, and what it passes on goes on elsewhere: within
//! one kind of kernel interface and between the two, and likewise in the simulation.

mod common;

use common::{EpollWorld, Peer, SimWorld, UringWorld, World, any_port};
use std::net::SocketAddr;
use uring::{Completion, ConnId, Io, IoConfig, ListenOptions, ListenerId, Nanos, SendBuf};

/// As many turns of two milliseconds at most.
const TURNS_MAX: u32 = 10_000;

struct Side<W: World> {
    world: W,
    received: Vec<u8>,
    accepted: Vec<ConnId>,
    sent: usize,
}

impl<W: World> Side<W> {
    fn new(world: W) -> Self {
        Self { world, received: Vec::new(), accepted: Vec::new(), sent: 0 }
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
        self.world.pass_a_moment();
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("waited in vain: {what}");
    }

    /// The peer says it, as soon as its connection stands.
    fn hear(&mut self, peer: &mut W::P, word: &[u8]) {
        let mut said = 0;
        self.until("room for a word", |_| {
            said += peer.write(&word[said..]);
            said == word.len()
        });
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

/// A connection to a listener, which has brought a word.
struct Connected<W: World> {
    side: Side<W>,
    listener: ListenerId,
    addr: SocketAddr,
    conn: ConnId,
    peer: W::P,
}

fn connected<W: World>() -> Option<Connected<W>> {
    let mut side = Side::new(W::open(IoConfig::default())?);
    let (listener, addr) = side.world.io().listen(any_port(), &ListenOptions::default()).unwrap();
    let mut peer = side.world.peer(addr);
    side.hear(&mut peer, b"one ");
    side.until("the first word", |side| side.received == b"one ");
    let conn = side.accepted[0];
    Some(Connected { side, listener, addr, conn, peer })
}

/// Opens the network that takes over beside the one that passes on.
type Beside<A, B> = fn(&A) -> Option<B>;

fn other<A: World, B: World>(_: &A) -> Option<B> {
    B::open(IoConfig::default())
}

fn simulated(old: &SimWorld) -> Option<SimWorld> {
    let (net, io) = (old.net.clone(), old.net.io(IoConfig::default()).unwrap());
    Some(SimWorld { net, io })
}

fn what_comes_during_a_standstill_is_there_afterwards<W: World>() {
    let Some(Connected { mut side, addr, mut peer, .. }) = connected::<W>() else { return };
    side.stand_still();
    let late = side.world.peer(addr);
    assert_eq!(peer.write(b"two "), 4);
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

fn what_is_passed_on_goes_on_and_the_peer_notices_nothing<A: World, B: World>(
    beside: Beside<A, B>,
) {
    for is_released_first in [true, false] {
        let Some(Connected { side: mut old, listener, conn, mut peer, addr }) = connected::<A>()
        else {
            return;
        };
        let Some(mut new) = beside(&old.world).map(Side::new) else { return };
        old.stand_still();
        assert_eq!(peer.write(b"two "), 4);
        let socket = old.world.io().duplicate(conn).unwrap();
        let door = old.world.io().duplicate_listener(listener).unwrap();
        new.world.io().freeze();
        let adopted = new.world.io().adopt(socket, None).unwrap();
        let (_, shared) = new.world.io().listen_on(door, &ListenOptions::default()).unwrap();
        assert_eq!(shared, addr);
        for _ in 0..20 {
            new.turn();
        }
        assert!(new.received.is_empty(), "nothing before its time");
        if is_released_first {
            old.world.io().release(conn);
            old.world.io().release_listener(listener);
            old.world.io().thaw();
            new.world.io().thaw();
        } else {
            new.world.io().thaw();
            new.until("what came meanwhile", |side| side.received == b"two ");
            old.world.io().release(conn);
            old.world.io().release_listener(listener);
            old.world.io().thaw();
        }
        assert_eq!(peer.write(b"three"), 5);
        new.until("the rest", |side| side.received == b"two three");
        new.world.io().send(adopted, SendBuf::Owned(b"answer".to_vec()));
        new.until("the answer to be sent", |side| side.sent == 6);
        let mut answer = Vec::new();
        new.until("the answer", |_| {
            peer.read_into(&mut answer);
            answer.len() >= 6
        });
        assert_eq!(&answer, b"answer");
        // The first side ends for good; the peer and who comes now are the second's.
        for _ in 0..20 {
            old.turn();
        }
        assert_eq!(old.received, b"one ");
        drop(old);
        let _late = new.world.peer(addr);
        new.until("a peer at the same address", |side| side.accepted.len() == 1);
        assert_eq!(peer.write(b"!"), 1);
        new.until("the connection to live on", |side| side.received == b"two three!");
    }
}

/// The other side has had the sockets and is gone: the first takes them back.
fn what_was_lent_in_vain_is_taken_back<A: World, B: World>(beside: Beside<A, B>) {
    let Some(Connected { side: mut old, listener, conn, mut peer, addr }) = connected::<A>() else {
        return;
    };
    let Some(mut new) = beside(&old.world).map(Side::new) else { return };
    old.stand_still();
    let socket = old.world.io().duplicate(conn).unwrap();
    let door = old.world.io().duplicate_listener(listener).unwrap();
    new.world.io().freeze();
    new.world.io().adopt(socket, None).unwrap();
    new.world.io().listen_on(door, &ListenOptions::default()).unwrap();
    new.turn();
    drop(new);
    old.world.io().thaw();
    assert_eq!(peer.write(b"two"), 3);
    let _late = old.world.peer(addr);
    old.until("everything as before", |side| {
        side.received == b"one two" && side.accepted.len() == 2
    });
    assert!(old.world.io().duplicate(conn).is_ok());
}

/// Its peer is gone with a reset: that is told by name, and the other sockets can be had.
fn a_connection_that_broke_meanwhile_is_refused_by_name<A: World, B: World>(beside: Beside<A, B>) {
    let Some(Connected { side: mut old, conn, peer, .. }) = connected::<A>() else { return };
    let Some(mut new) = beside(&old.world).map(Side::new) else { return };
    old.stand_still();
    peer.reset();
    for _ in 0..20 {
        old.turn();
    }
    let socket = old.world.io().duplicate(conn).unwrap();
    new.world.io().freeze();
    let refused = new.world.io().adopt(socket, None).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::NotConnected);
    old.world.io().release(conn);
    old.world.io().thaw();
    old.turn();
}

#[test]
fn a_standstill_loses_nothing() {
    what_comes_during_a_standstill_is_there_afterwards::<UringWorld>();
    what_comes_during_a_standstill_is_there_afterwards::<EpollWorld>();
    what_comes_during_a_standstill_is_there_afterwards::<SimWorld>();
}

#[test]
fn sockets_go_on_in_another_network() {
    what_is_passed_on_goes_on_and_the_peer_notices_nothing::<UringWorld, UringWorld>(other);
    what_is_passed_on_goes_on_and_the_peer_notices_nothing::<EpollWorld, EpollWorld>(other);
    what_is_passed_on_goes_on_and_the_peer_notices_nothing::<EpollWorld, UringWorld>(other);
    what_is_passed_on_goes_on_and_the_peer_notices_nothing::<UringWorld, EpollWorld>(other);
    what_is_passed_on_goes_on_and_the_peer_notices_nothing::<SimWorld, SimWorld>(simulated);
}

#[test]
fn sockets_lent_in_vain_come_back() {
    what_was_lent_in_vain_is_taken_back::<UringWorld, UringWorld>(other);
    what_was_lent_in_vain_is_taken_back::<EpollWorld, EpollWorld>(other);
    what_was_lent_in_vain_is_taken_back::<EpollWorld, UringWorld>(other);
    what_was_lent_in_vain_is_taken_back::<UringWorld, EpollWorld>(other);
    what_was_lent_in_vain_is_taken_back::<SimWorld, SimWorld>(simulated);
}

#[test]
fn a_broken_connection_is_refused_by_name() {
    a_connection_that_broke_meanwhile_is_refused_by_name::<UringWorld, UringWorld>(other);
    a_connection_that_broke_meanwhile_is_refused_by_name::<EpollWorld, EpollWorld>(other);
    a_connection_that_broke_meanwhile_is_refused_by_name::<SimWorld, SimWorld>(simulated);
}
