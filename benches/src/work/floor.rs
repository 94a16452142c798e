//! One stream to many sockets over loopback: our own fan-out, and the floor below it.
//!
//! Three cases send the same wire image with the same flushes to the same number of sockets:
//!
//! | case | per socket and flush |
//! |---|---|
//! | `floor_send` | one send(2) of ready bytes, nothing else |
//! | `floor_uring` | one SEND entry of ready bytes, nothing else |
//! | `fan_out_sockets` | what a worker does: publish, cursor, lease, SEND entry, bookkeeping |
//!
//! The difference is what Ringcast adds to the kernel's price. Timed by the thread's CPU clock;
//! between iterations the receivers empty the sockets, as they do between frames in life.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::rc::Rc;

use live::subscriber::Subscriber;
use ring::{Lease, Position};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{self, AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use uring::{Completion, ConnId, Io, IoConfig, ListenOptions, SendBuf, StableDeref, Uring};

use super::crowd::{Crowd, pin_sender};
use super::fan_out::joined;
use super::rig::Rig;
use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;
use crate::media::GOP_FRAMES;

/// Sockets of the catalogue's cases.
const SOCKETS: [usize; 2] = [10, 100];
/// Sockets of a small case whose full size is larger.
const SMALL_MAX: usize = 50;
/// Open files beside the two ends of each connection.
const FILES_OTHER: u64 = 100;

/// The three loops.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Loop {
    /// send(2).
    Send,
    /// Bare io_uring.
    Uring,
    /// Ring, subscribers and io_uring.
    FanOut,
}

/// One of the loops over `sockets` sockets, with a flush every `frames_per_flush` frames.
///
/// # Errors
/// No descriptors, no io_uring.
pub fn build(
    which: Loop,
    sockets: usize,
    frames_per_flush: u32,
    size: Size,
) -> Result<Box<dyn Work>, Skipped> {
    pin_sender(size);
    Ok(match which {
        Loop::Send => Box::new(SendLoop::new(sockets, frames_per_flush, size)?),
        Loop::Uring => Box::new(UringLoop::new(sockets, frames_per_flush, size)?),
        Loop::FanOut => Box::new(FanOut::new(sockets, frames_per_flush, size)?),
    })
}

/// [`Loop::Send`] for the catalogue.
///
/// # Errors
/// As [`build`].
pub fn build_send<const FRAMES: u32>(size: Size) -> Result<Box<dyn Work>, Skipped> {
    build(Loop::Send, size.pick(SOCKETS[0], SOCKETS[1]), FRAMES, size)
}

/// [`Loop::Uring`] for the catalogue.
///
/// # Errors
/// As [`build`].
pub fn build_uring<const FRAMES: u32>(size: Size) -> Result<Box<dyn Work>, Skipped> {
    build(Loop::Uring, size.pick(SOCKETS[0], SOCKETS[1]), FRAMES, size)
}

/// [`Loop::FanOut`] for the catalogue.
///
/// # Errors
/// As [`build`].
pub fn build_fan_out<const FRAMES: u32>(size: Size) -> Result<Box<dyn Work>, Skipped> {
    build(Loop::FanOut, size.pick(SOCKETS[0], SOCKETS[1]), FRAMES, size)
}

/// [`Loop::FanOut`] to exactly so many sockets (50 at most in the small case), a flush for each frame.
///
/// # Errors
/// As [`build`]; also when this process may not open two files for each socket.
pub fn build_fan_out_to<const COUNT: usize>(size: Size) -> Result<Box<dyn Work>, Skipped> {
    let count = size.pick(COUNT.min(SMALL_MAX), COUNT);
    allow_files(2 * count as u64 + FILES_OTHER)?;
    build(Loop::FanOut, count, 1, size)
}

/// Raises the limit of open files, the hard one too where that is allowed.
fn allow_files(needed: u64) -> Result<(), Skipped> {
    let limit = getrlimit(Resource::Nofile);
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    let wanted = Rlimit { current: Some(needed), maximum: limit.maximum };
    let raised = match (is_enough(limit.current), is_enough(limit.maximum)) {
        (true, _) => return Ok(()),
        (false, true) => setrlimit(Resource::Nofile, wanted),
        (false, false) => setrlimit(Resource::Nofile, Rlimit { maximum: Some(needed), ..wanted }),
    };
    raised.map_err(|error| Skipped(format!("{needed} open files needed: {error}")))
}

/// The wire image of one GOP, cut into flushes.
fn flushes(frames_per_flush: u32) -> Vec<Rc<[u8]>> {
    let mut rig = Rig::new();
    let mut from = rig.tap.refresh().head;
    let cut = |_| {
        let head = rig.publish_frames(frames_per_flush).head;
        let mut image = Vec::new();
        while let Some(lease) = rig.tap.lease(from, usize::MAX) {
            image.extend_from_slice(&lease);
            from = from.after(lease.len() as u64);
        }
        assert_eq!(from, head);
        image.into()
    };
    (0..GOP_FRAMES / frames_per_flush).map(cut).collect()
}

/// What an iteration that sent `flush_bytes` to each of `sockets` sockets reports.
fn outcome(sockets: usize, flush_bytes: usize) -> Outcome {
    let mut digest = Digest::default();
    digest.mix(flush_bytes as u64);
    digest.mix(sockets as u64);
    Outcome {
        units: sockets as u64,
        bytes: (sockets * flush_bytes) as u64,
        copied_bytes: 0,
        digest: digest.value(),
    }
}

// ── send(2) ──────────────────────────────────────────────────────────────────────────────────────

struct SendLoop {
    sockets: Vec<TcpStream>,
    flushes: Vec<Rc<[u8]>>,
    next: usize,
    /// Sockets that were full, with the bytes they took.
    short: Vec<(usize, usize)>,
    sent_bytes: u64,
    crowd: Crowd,
}

impl SendLoop {
    fn new(count: usize, frames_per_flush: u32, size: Size) -> Result<SendLoop, Skipped> {
        let listener = listen()?;
        let crowd = Crowd::connect(listener.local_addr()?, count, size)?;
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count {
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            sockets.push(socket);
        }
        let flushes = flushes(frames_per_flush);
        let short = Vec::with_capacity(count);
        Ok(SendLoop { sockets, flushes, next: 0, short, sent_bytes: 0, crowd })
    }
}

/// A listener with room for the whole crowd at once; the standard library's has less.
fn listen() -> std::io::Result<TcpListener> {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    net::listen(&socket, 4_096)?;
    Ok(TcpListener::from(socket))
}

/// Bytes a socket takes now; 0 when it is full. The standard library sends with send(2).
fn send(mut socket: &TcpStream, bytes: &[u8]) -> usize {
    match socket.write(bytes) {
        Ok(taken) => taken,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("send: {error}"),
    }
}

impl Work for SendLoop {
    fn run(&mut self) -> Outcome {
        let flush = &*self.flushes[self.next % self.flushes.len()];
        self.next += 1;
        for (number, socket) in self.sockets.iter().enumerate() {
            let taken = send(socket, flush);
            if taken < flush.len() {
                self.short.push((number, taken));
            }
        }
        while let Some((number, mut taken)) = self.short.pop() {
            let socket = &self.sockets[number];
            while taken < flush.len() {
                let mut room = [PollFd::new(socket, PollFlags::OUT)];
                poll(&mut room, None).expect("poll works");
                taken += send(socket, &flush[taken..]);
            }
        }
        let outcome = outcome(self.sockets.len(), flush.len());
        self.sent_bytes += outcome.bytes;
        outcome
    }

    fn settle(&mut self) {
        self.crowd.wait_for(self.sent_bytes);
    }
}

// ── io_uring ─────────────────────────────────────────────────────────────────────────────────────

/// An io_uring with accepted connections and their receivers.
struct Served<L> {
    io: Uring<L>,
    conns: Vec<ConnId>,
    /// Number of a connection by its index.
    numbers: Vec<usize>,
    crowd: Crowd,
}

impl<L: StableDeref<Target = [u8]> + 'static> Served<L> {
    fn new(count: usize, size: Size) -> Result<Served<L>, Skipped> {
        let mut io = Uring::open(IoConfig::default())?;
        let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let (_, addr) = io.listen(any_port, &ListenOptions::default())?;
        let crowd = Crowd::connect(addr, count, size)?;
        let mut conns = Vec::with_capacity(count);
        let mut numbers = Vec::new();
        let mut completions = Vec::new();
        while conns.len() < count {
            io.turn(None, &mut completions)?;
            for completion in completions.drain(..) {
                if let Completion::Accepted { conn, .. } = completion {
                    numbers.resize(numbers.len().max(conn.index() + 1), usize::MAX);
                    numbers[conn.index()] = conns.len();
                    conns.push(conn);
                }
            }
        }
        Ok(Served { io, conns, numbers, crowd })
    }

    fn number(&self, conn: ConnId) -> usize {
        self.numbers[conn.index()]
    }
}

struct UringLoop {
    served: Served<Rc<[u8]>>,
    flushes: Vec<Rc<[u8]>>,
    next: usize,
    completions: Vec<Completion<Rc<[u8]>>>,
    /// What each socket has still to take of the flush.
    rests: Vec<usize>,
    /// Buffers for the rest of a short send, which a bare lease cannot express.
    spare: Vec<Vec<u8>>,
    sent_bytes: u64,
}

impl UringLoop {
    fn new(count: usize, frames_per_flush: u32, size: Size) -> Result<UringLoop, Skipped> {
        let flushes = flushes(frames_per_flush);
        let longest = flushes.iter().map(|flush| flush.len()).max().unwrap_or(0);
        Ok(UringLoop {
            served: Served::new(count, size)?,
            flushes,
            next: 0,
            completions: Vec::with_capacity(2 * count),
            rests: vec![0; count],
            spare: (0..count).map(|_| Vec::with_capacity(longest)).collect(),
            sent_bytes: 0,
        })
    }
}

impl Work for UringLoop {
    fn run(&mut self) -> Outcome {
        let flush = &self.flushes[self.next % self.flushes.len()];
        self.next += 1;
        for (conn, rest) in self.served.conns.iter().zip(&mut self.rests) {
            *rest = flush.len();
            self.served.io.send(*conn, SendBuf::Lease(Rc::clone(flush)));
        }
        let mut owed = self.rests.len();
        while owed > 0 {
            self.served.io.turn(None, &mut self.completions).expect("io_uring works");
            for completion in self.completions.drain(..) {
                match completion {
                    Completion::Sent { conn, bytes, buf, .. } => {
                        let rest = &mut self.rests[self.served.number(conn)];
                        *rest -= bytes;
                        owed -= usize::from(*rest == 0);
                        if let SendBuf::Owned(buffer) = buf {
                            self.spare.push(buffer);
                        }
                    }
                    Completion::Writable { conn } => {
                        let rest = self.rests[self.served.number(conn)];
                        let mut buffer = self.spare.pop().expect("one for each socket");
                        buffer.clear();
                        buffer.extend_from_slice(&flush[flush.len() - rest..]);
                        self.served.io.send(conn, SendBuf::Owned(buffer));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let outcome = outcome(self.rests.len(), flush.len());
        self.sent_bytes += outcome.bytes;
        outcome
    }

    fn settle(&mut self) {
        self.served.crowd.wait_for(self.sent_bytes);
    }
}

// ── ring, subscribers and io_uring ───────────────────────────────────────────────────────────────

struct FanOut {
    rig: Rig,
    served: Served<Lease>,
    subscribers: Vec<Subscriber>,
    frames_per_flush: u32,
    completions: Vec<Completion<Lease>>,
    sent_bytes: u64,
}

impl FanOut {
    fn new(count: usize, frames_per_flush: u32, size: Size) -> Result<FanOut, Skipped> {
        let served = Served::new(count, size)?;
        let mut rig = Rig::new();
        let subscribers = joined(&mut rig, count);
        let completions = Vec::with_capacity(2 * count);
        Ok(FanOut { rig, served, subscribers, frames_per_flush, completions, sent_bytes: 0 })
    }

    /// Sends what is next for a subscriber. False when nothing is.
    fn pump(&mut self, number: usize) -> bool {
        let Some(lease) = self.subscribers[number].next_lease(&self.rig.tap) else { return false };
        self.served.io.send(self.served.conns[number], SendBuf::Lease(lease));
        true
    }

    /// Takes completions until every subscriber is at the head.
    fn finish(&mut self, head: Position) {
        let now = self.rig.now();
        let mut owed = self.subscribers.len();
        while owed > 0 {
            self.served.io.turn(None, &mut self.completions).expect("io_uring works");
            let mut completions = std::mem::take(&mut self.completions);
            for completion in completions.drain(..) {
                match completion {
                    Completion::Sent { conn, bytes, blocked, buf: SendBuf::Lease(lease) } => {
                        let number = self.served.number(conn);
                        let subscriber = &mut self.subscribers[number];
                        subscriber.on_sent(&self.rig.tap, &lease, bytes, now);
                        if subscriber.cursor() == head {
                            owed -= 1;
                        } else if !blocked {
                            self.pump(number);
                        }
                    }
                    Completion::Writable { conn } => {
                        self.pump(self.served.number(conn));
                    }
                    other => panic!("{other:?}"),
                }
            }
            self.completions = completions;
        }
    }
}

impl Work for FanOut {
    fn run(&mut self) -> Outcome {
        let before = self.rig.tap.view().head;
        let copied_before = self.rig.copied_bytes();
        let head = self.rig.publish_frames(self.frames_per_flush).head;
        let now = self.rig.now();
        for number in 0..self.subscribers.len() {
            self.subscribers[number].set_target(head, now);
            assert!(self.pump(number), "there is a new frame");
        }
        self.finish(head);
        let flush_bytes = usize::try_from(head.0 - before.0).expect("a flush fits into memory");
        let outcome = Outcome {
            copied_bytes: self.rig.copied_bytes() - copied_before,
            ..outcome(self.subscribers.len(), flush_bytes)
        };
        self.sent_bytes += outcome.bytes;
        outcome
    }

    fn settle(&mut self) {
        self.served.crowd.wait_for(self.sent_bytes);
    }
}
