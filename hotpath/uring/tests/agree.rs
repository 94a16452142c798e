//! Random operations by plain sockets and by each `Io` must lead to the same state.
//!
//! A program of operations runs first against a server made of `std::net` calls; the state after each
//! operation is written down. Then the same program runs on each implementation, which must reach the
//! same states one after the other.

mod common;

use common::{Chance, EpollWorld, Peer, PlainPeer, Server, SimWorld, UringWorld, World, any_port};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use uring::{Io, IoConfig, ReceiveEnd};

#[derive(Copy, Clone, Debug)]
enum Op {
    PeerWrites(usize),
    ServerWrites(usize),
    PeerShuts,
    ServerShuts,
    PeerResets,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct State {
    at_server: usize,
    at_peer: usize,
    ended: Option<ReceiveEnd>,
    peer_over: bool,
    send_failed: Option<i32>,
}

/// Never writes after its own end of that direction, except for the server, whose error is part of
/// what must agree; ends with a reset in one case of three.
fn program(seed: u64) -> Vec<Op> {
    let mut chance = Chance(seed);
    let (mut peer_open, mut ops) = (true, Vec::new());
    for _ in 0..12 {
        ops.push(match chance.below(10) {
            0..4 if peer_open => Op::PeerWrites(1 + chance.below(50_000)),
            8 if peer_open => {
                peer_open = false;
                Op::PeerShuts
            }
            9 => Op::ServerShuts,
            _ => Op::ServerWrites(1 + chance.below(50_000)),
        });
    }
    if chance.below(3) == 0 {
        ops.extend([Op::PeerResets, Op::ServerWrites(1)]);
    }
    ops
}

fn pattern(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// The server by plain calls.
struct Plain {
    stream: TcpStream,
    peer: Option<PlainPeer>,
    state: State,
    to_peer: Vec<u8>,
}

impl Plain {
    fn open() -> Plain {
        let listener = TcpListener::bind(any_port()).unwrap();
        let peer = PlainPeer::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let stream = listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        Plain { stream, peer: Some(peer), state: State::default(), to_peer: Vec::new() }
    }

    fn read_peer(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        peer.read_into(&mut self.to_peer);
        self.state.at_peer = self.to_peer.len();
        self.state.peer_over = peer.is_over();
    }

    fn read_server(&mut self) {
        let mut part = [0; 8192];
        while self.state.ended.is_none() {
            match self.stream.read(&mut part) {
                Ok(0) => self.state.ended = Some(ReceiveEnd::Eof),
                Ok(count) => {
                    assert_eq!(part[..count], pattern(self.state.at_server, count));
                    self.state.at_server += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.state.ended = Some(ReceiveEnd::Error(error.raw_os_error().unwrap()));
                }
            }
        }
    }

    fn write_server(&mut self, count: usize) {
        let bytes = pattern(self.state.at_peer, count);
        let (mut written, goal) = (0, self.state.at_peer + count);
        while written < count {
            match self.stream.write(&bytes[written..]) {
                Ok(part) => written += part,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.state.send_failed = error.raw_os_error();
                    return;
                }
            }
            self.read_peer();
        }
        while self.state.at_peer < goal {
            self.read_peer();
        }
    }

    fn write_peer(&mut self, count: usize) {
        let bytes = pattern(self.state.at_server, count);
        let (mut written, goal) = (0, self.state.at_server + count);
        while self.state.at_server < goal {
            if let Some(peer) = &mut self.peer {
                written += peer.write(&bytes[written..]);
            }
            self.read_server();
        }
    }

    fn apply(&mut self, op: Op) -> State {
        match op {
            Op::PeerWrites(count) => self.write_peer(count),
            Op::ServerWrites(count) => self.write_server(count),
            Op::PeerShuts => {
                self.peer.as_mut().unwrap().shutdown_write();
                while self.state.ended.is_none() {
                    self.read_server();
                }
            }
            Op::ServerShuts => {
                // Both halves may be over already; then there is nothing to shut.
                let _ = self.stream.shutdown(Shutdown::Write);
                while !self.state.peer_over {
                    self.read_peer();
                }
            }
            Op::PeerResets => {
                self.peer.take().unwrap().reset();
                // Until the reset has arrived, whether or not there is still an end to read.
                while self.stream.peer_addr().is_ok() {
                    self.read_server();
                }
                self.read_server();
            }
        }
        self.state.clone()
    }
}

fn run<W: World>(mut server: Server<W>, seed: u64) {
    let addr = server.listen();
    let (peer, conn) = server.pair(addr);
    let (mut plain, mut peer) = (Plain::open(), Some(peer));
    let (mut to_peer, mut peer_over, mut from_peer) = (Vec::new(), false, 0);
    for (step, op) in program(seed).into_iter().enumerate() {
        let before = plain.state.clone();
        let goal = plain.apply(op);
        let mut to_write = Vec::new();
        match op {
            Op::PeerWrites(count) => to_write = pattern(before.at_server, count),
            Op::ServerWrites(count) => server.queue(conn, &pattern(before.at_peer, count)),
            Op::PeerShuts => peer.as_mut().unwrap().shutdown_write(),
            Op::ServerShuts => server.world.io().shutdown_write(conn),
            Op::PeerResets => peer.take().unwrap().reset(),
        }
        let (mut written, mut turns) = (0, 0);
        server.until("the same state", |server| {
            if let Some(peer) = &mut peer {
                if written < to_write.len() {
                    written += peer.write(&to_write[written..]);
                }
                peer.read_into(&mut to_peer);
                peer_over = peer.is_over();
            }
            let seen = server.seen(conn);
            let state = State {
                at_server: seen.received.len(),
                at_peer: to_peer.len(),
                ended: seen.ended,
                peer_over,
                send_failed: seen.send_failed,
            };
            turns += 1;
            assert!(turns < 3_000, "seed {seed} step {step} {op:?}: {goal:?} but {state:?}");
            state == goal && seen.to_send.is_empty()
        });
        if matches!(op, Op::PeerResets) {
            // On loopback a reset has arrived when the call returns; let a simulated one arrive.
            (0..20).for_each(|_| server.turn());
        }
        from_peer += to_write.len();
    }
    assert!(server.seen(conn).received == pattern(0, from_peer), "bytes differ");
    assert!(to_peer == plain.to_peer, "bytes differ");
}

fn run_all<W: World>() {
    for seed in 0..40 {
        let Some(server) = Server::<W>::open(IoConfig::default()) else { return };
        run(server, seed);
    }
}

#[test]
fn uring_agrees_with_plain_sockets() {
    run_all::<UringWorld>();
}

#[test]
fn epoll_agrees_with_plain_sockets() {
    run_all::<EpollWorld>();
}

#[test]
fn the_simulation_agrees_with_plain_sockets() {
    run_all::<SimWorld>();
}
