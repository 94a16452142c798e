//! One world per implementation, and a server that checks the contract of `Io` at every completion.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use uring::sim::{Faults, SimListener, SimNet, SimPeer};
use uring::{
    Completion, ConnId, Epoll, Io, IoConfig, ListenOptions, MemFile, Nanos, ReceiveEnd, SendBuf,
    Uring,
};

pub(crate) type Lease = Rc<[u8]>;

/// Turns after which a test gives up: with 1 ms each, far beyond anything a healthy run needs.
pub(crate) const TURNS_MAX: usize = 20_000;

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Small numbers from a seed, the same everywhere.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

/// The test's end of a connection.
pub(crate) trait Peer {
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// Appends what has arrived.
    fn read_into(&mut self, bytes: &mut Vec<u8>);
    fn is_over(&mut self) -> bool;
    fn is_reset(&mut self) -> bool;
    fn shutdown_write(&mut self);
    fn reset(self);
    fn addr(&self) -> SocketAddr;
    /// The server's end, as seen from here.
    fn other_addr(&self) -> SocketAddr;
}

pub(crate) trait World {
    const IS_SIMULATED: bool = false;
    type I: Io<Lease = Lease>;
    type P: Peer;
    type A;
    /// `None` (with a printed reason) where the kernel does not offer it.
    fn open(config: IoConfig) -> Option<Self>
    where
        Self: Sized;
    fn io(&mut self) -> &mut Self::I;
    fn peer(&mut self, addr: SocketAddr) -> Self::P;
    fn acceptor(&mut self) -> (Self::A, SocketAddr);
    fn accept(&mut self, acceptor: &mut Self::A) -> Option<Self::P>;
    /// Lets the world go on after a turn that found nothing.
    fn pass(&mut self);
    /// Lets a moment pass whoever has something to do: time passes by itself but in the simulation.
    fn pass_a_moment(&mut self) {}
}

// --- plain sockets against io_uring and epoll ---

pub(crate) struct PlainPeer {
    stream: TcpStream,
    eof: bool,
    reset: bool,
}

impl PlainPeer {
    pub(crate) fn new(stream: TcpStream) -> PlainPeer {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        PlainPeer { stream, eof: false, reset: false }
    }

    fn note(&mut self, kind: ErrorKind) {
        match kind {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => {
                self.reset = true;
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Peer for PlainPeer {
    fn write(&mut self, bytes: &[u8]) -> usize {
        match self.stream.write(bytes) {
            Ok(count) => count,
            Err(error) => {
                self.note(error.kind());
                0
            }
        }
    }

    fn read_into(&mut self, bytes: &mut Vec<u8>) {
        let mut part = [0; 8192];
        for _ in 0..64 {
            match self.stream.read(&mut part) {
                Ok(0) => return self.eof = true,
                Ok(count) => bytes.extend(&part[..count]),
                Err(error) => return self.note(error.kind()),
            }
        }
    }

    fn is_over(&mut self) -> bool {
        self.eof || self.reset
    }

    fn is_reset(&mut self) -> bool {
        self.reset
    }

    fn shutdown_write(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self) {
        // Lingering for no time turns the close into a reset.
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    fn addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    fn other_addr(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }
}

pub(crate) struct Kernel<I>(pub(crate) I);
pub(crate) type UringWorld = Kernel<Uring<Lease>>;
pub(crate) type EpollWorld = Kernel<Epoll<Lease>>;

/// io_uring as kernels before 6.1 grant it.
pub(crate) struct OldUringWorld(Uring<Lease>);

macro_rules! kernel_world {
    ($world:ty, $make:path, $io:ident, $defer_taskrun:expr) => {
        impl World for $world {
            type I = $io<Lease>;
            type P = PlainPeer;
            type A = TcpListener;

            fn open(config: IoConfig) -> Option<Self> {
                match $io::open(IoConfig { defer_taskrun: $defer_taskrun, ..config }) {
                    Ok(io) => Some($make(io)),
                    Err(error) => {
                        println!("skipped: {error}");
                        None
                    }
                }
            }

            fn io(&mut self) -> &mut Self::I {
                &mut self.0
            }

            fn peer(&mut self, addr: SocketAddr) -> PlainPeer {
                PlainPeer::new(TcpStream::connect(addr).unwrap())
            }

            fn acceptor(&mut self) -> (TcpListener, SocketAddr) {
                let listener = TcpListener::bind(any_port()).unwrap();
                listener.set_nonblocking(true).unwrap();
                let addr = listener.local_addr().unwrap();
                (listener, addr)
            }

            fn accept(&mut self, acceptor: &mut TcpListener) -> Option<PlainPeer> {
                acceptor.accept().ok().map(|(stream, _)| PlainPeer::new(stream))
            }

            fn pass(&mut self) {}
        }
    };
}

kernel_world!(UringWorld, Kernel, Uring, true);
kernel_world!(OldUringWorld, OldUringWorld, Uring, false);
kernel_world!(EpollWorld, Kernel, Epoll, true);

// --- the simulation ---

impl Peer for SimPeer {
    fn write(&mut self, bytes: &[u8]) -> usize {
        SimPeer::write(self, bytes)
    }

    fn read_into(&mut self, bytes: &mut Vec<u8>) {
        bytes.extend(self.read(usize::MAX));
    }

    fn is_over(&mut self) -> bool {
        self.is_eof() || self.error().is_some()
    }

    fn is_reset(&mut self) -> bool {
        self.error().is_some()
    }

    fn shutdown_write(&mut self) {
        SimPeer::shutdown_write(self);
    }

    fn reset(self) {
        SimPeer::reset(self);
    }

    fn addr(&self) -> SocketAddr {
        self.local_addr()
    }

    fn other_addr(&self) -> SocketAddr {
        self.peer_addr()
    }
}

pub(crate) struct SimWorld {
    pub(crate) net: SimNet,
    pub(crate) io: uring::sim::SimIo<Lease>,
}

impl SimWorld {
    pub(crate) fn with(seed: u64, faults: Faults, config: IoConfig) -> SimWorld {
        let net = SimNet::new(seed, faults);
        let io = net.io(config).unwrap();
        SimWorld { net, io }
    }
}

impl World for SimWorld {
    const IS_SIMULATED: bool = true;
    type I = uring::sim::SimIo<Lease>;
    type P = SimPeer;
    type A = SimListener;

    fn open(config: IoConfig) -> Option<SimWorld> {
        Some(SimWorld::with(7, Faults::rough().with_queue_faults(), config))
    }

    fn io(&mut self) -> &mut Self::I {
        &mut self.io
    }

    fn peer(&mut self, addr: SocketAddr) -> SimPeer {
        self.net.connect(addr)
    }

    fn acceptor(&mut self) -> (SimListener, SocketAddr) {
        let listener = self.net.listen(any_port()).unwrap();
        let addr = listener.local_addr();
        (listener, addr)
    }

    fn accept(&mut self, acceptor: &mut SimListener) -> Option<SimPeer> {
        acceptor.accept()
    }

    fn pass(&mut self) {
        self.net.advance_to_next_event();
    }

    fn pass_a_moment(&mut self) {
        self.net.advance_by(Nanos::from_millis(1));
    }
}

// --- a server on top of either ---

/// How a connection receives, as its owner knows it.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mode {
    #[default]
    Streaming,
    /// A bounded receive has been asked for.
    Asked(usize),
    Resting,
}

/// What a connection of the server has been told, and what it still has to send.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) connected: Option<Result<(), i32>>,
    pub(crate) received: Vec<u8>,
    pub(crate) ended: Option<ReceiveEnd>,
    pub(crate) paused: bool,
    pub(crate) mode: Mode,
    pub(crate) to_send: VecDeque<u8>,
    pub(crate) in_flight: usize,
    pub(crate) blocked: bool,
    pub(crate) blocked_count: usize,
    /// TLS records that are not data, and after how many bytes each came.
    pub(crate) records: Vec<(usize, u8, Vec<u8>)>,
    pub(crate) send_failed: Option<i32>,
    pub(crate) sent_bytes: usize,
}

pub(crate) struct Server<W: World> {
    pub(crate) world: W,
    pub(crate) conns: BTreeMap<ConnId, Seen>,
    pub(crate) closed: BTreeSet<ConnId>,
    pub(crate) accepted: Vec<ConnId>,
    pub(crate) woken: usize,
    /// Sends back whatever comes.
    pub(crate) echo: bool,
    /// Accepted connections begin with a receive of at most so many bytes.
    pub(crate) first_bytes_max: Option<u32>,
    /// Bytes per send at most.
    pub(crate) send_bytes_max: usize,
    pub(crate) completions_last: usize,
    /// Where every third send lies.
    file: Arc<MemFile>,
    sends: usize,
    completions: Vec<Completion<Lease>>,
}

impl<W: World> Server<W> {
    pub(crate) fn open(config: IoConfig) -> Option<Server<W>> {
        Some(Server::new(W::open(config)?))
    }

    pub(crate) fn new(world: W) -> Server<W> {
        Server {
            world,
            conns: BTreeMap::new(),
            closed: BTreeSet::new(),
            accepted: Vec::new(),
            woken: 0,
            echo: false,
            first_bytes_max: None,
            send_bytes_max: 16 * 1024,
            completions_last: 0,
            file: MemFile::new().unwrap(),
            sends: 0,
            completions: Vec::new(),
        }
    }

    pub(crate) fn listen(&mut self) -> SocketAddr {
        let options = ListenOptions {
            first_receive_bytes_max: self.first_bytes_max,
            ..ListenOptions::default()
        };
        self.world.io().listen(any_port(), &options).unwrap().1
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        self.world.io().close(conn);
        assert!(self.closed.insert(conn), "closed twice");
        self.conns.remove(&conn);
    }

    pub(crate) fn queue(&mut self, conn: ConnId, bytes: &[u8]) {
        self.conns.get_mut(&conn).unwrap().to_send.extend(bytes);
    }

    pub(crate) fn pause(&mut self, conn: ConnId) {
        self.world.io().pause_receive(conn);
        let seen = self.conns.get_mut(&conn).unwrap();
        seen.paused = seen.mode != Mode::Resting;
    }

    pub(crate) fn resume(&mut self, conn: ConnId) {
        let seen = self.conns.get_mut(&conn).unwrap();
        if seen.mode == Mode::Resting {
            seen.mode = Mode::Streaming;
        }
        seen.paused = false;
        self.world.io().resume_receive(conn);
    }

    pub(crate) fn receive_once(&mut self, conn: ConnId, bytes_max: u32) {
        self.conns.get_mut(&conn).unwrap().mode = Mode::Asked(bytes_max as usize);
        self.world.io().receive_once(conn, bytes_max);
    }

    /// Opens a connection that begins with a receive of at most `first_bytes_max`.
    pub(crate) fn connect_from(
        &mut self,
        source: Option<IpAddr>,
        addr: SocketAddr,
        first_bytes_max: u32,
    ) -> ConnId {
        let conn = self.world.io().connect_from(source, addr, Some(first_bytes_max)).unwrap();
        let mode = Mode::Asked(first_bytes_max as usize);
        assert!(self.conns.insert(conn, Seen { mode, ..Seen::default() }).is_none());
        conn
    }

    pub(crate) fn seen(&self, conn: ConnId) -> &Seen {
        &self.conns[&conn]
    }

    /// Sends `buf`; nothing is queued.
    pub(crate) fn send(&mut self, conn: ConnId, buf: SendBuf<Lease>) {
        self.note_send(conn, &buf);
        self.world.io().send(conn, buf);
    }

    /// Sends `buf`, which more follows; nothing is queued.
    pub(crate) fn send_more(&mut self, conn: ConnId, buf: SendBuf<Lease>) {
        self.note_send(conn, &buf);
        self.world.io().send_more(conn, buf);
    }

    fn note_send(&mut self, conn: ConnId, buf: &SendBuf<Lease>) {
        let seen = self.conns.get_mut(&conn).unwrap();
        assert!(seen.to_send.is_empty() && seen.in_flight == 0);
        seen.to_send.extend(buf.bytes());
        seen.in_flight = buf.bytes().len();
    }

    /// Submits what is to be sent: owned buffers, leases and bytes of a file in turn.
    pub(crate) fn pump(&mut self) {
        for (&conn, seen) in &mut self.conns {
            if seen.in_flight > 0 || seen.blocked || seen.to_send.is_empty() {
                continue;
            }
            let count = seen.to_send.len().min(self.send_bytes_max);
            let bytes = seen.to_send.make_contiguous()[..count].to_vec();
            seen.in_flight = bytes.len();
            self.sends += 1;
            let buf = match self.sends % 3 {
                0 => SendBuf::Owned(bytes),
                1 => SendBuf::Lease(Rc::from(bytes)),
                _ => SendBuf::Shared(self.file.put(&bytes).unwrap()),
            };
            self.world.io().send(conn, buf);
        }
    }

    /// One turn of at most a millisecond; the world goes on if it found nothing.
    pub(crate) fn turn(&mut self) {
        self.turn_without_passing();
        if self.completions_last == 0 {
            self.world.pass();
        }
    }

    pub(crate) fn turn_without_passing(&mut self) {
        self.pump();
        let mut completions = std::mem::take(&mut self.completions);
        let deadline = self.world.io().now().saturating_add(Nanos::from_millis(1));
        self.world.io().turn(Some(deadline), &mut completions).unwrap();
        self.completions_last = completions.len();
        for completion in completions.drain(..) {
            self.on(completion);
        }
        self.completions = completions;
    }

    /// Turns until `done`, and fails if that takes forever.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Server<W>) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("never happened: {what}; {:?}", self.world.io().counters());
    }

    /// A peer and the server's end of its connection.
    pub(crate) fn pair(&mut self, addr: SocketAddr) -> (W::P, ConnId) {
        let peer = self.world.peer(addr);
        let before = self.accepted.len();
        self.until("accepted", |server| server.accepted.len() > before);
        (peer, self.accepted[before])
    }

    fn on(&mut self, completion: Completion<Lease>) {
        if let Some(conn) = completion.conn() {
            assert!(!self.closed.contains(&conn), "after close: {completion:?}");
        }
        match completion {
            Completion::Accepted { conn, peer, .. } => {
                let first = self.first_bytes_max;
                let mode =
                    first.map_or(Mode::Streaming, |bytes_max| Mode::Asked(bytes_max as usize));
                let seen = Seen { peer: Some(peer), mode, ..Seen::default() };
                assert!(self.conns.insert(conn, seen).is_none(), "an id given out twice");
                self.accepted.push(conn);
            }
            Completion::Connected { conn, result } => {
                let seen = self.conns.entry(conn).or_default();
                assert!(seen.connected.replace(result).is_none(), "connected twice");
            }
            Completion::Received { conn, data } => {
                let seen = self.conns.get_mut(&conn).unwrap();
                assert!(!data.is_empty() && !seen.paused && seen.ended.is_none());
                match seen.mode {
                    Mode::Streaming => {}
                    Mode::Asked(bytes_max) => {
                        assert!(data.len() <= bytes_max, "{} of {bytes_max}", data.len());
                        seen.mode = Mode::Resting;
                    }
                    Mode::Resting => panic!("received at rest: {data:?}"),
                }
                seen.received.extend(&*data);
                if self.echo {
                    seen.to_send.extend(&*data);
                }
            }
            Completion::ReceiveEnded { conn, reason } => {
                let seen = self.conns.get_mut(&conn).unwrap();
                assert!(!seen.paused && seen.mode != Mode::Resting);
                assert!(seen.ended.replace(reason).is_none(), "ended twice");
            }
            Completion::TlsRecord { conn, record_type, bytes } => {
                let seen = self.conns.get_mut(&conn).unwrap();
                assert!(!seen.paused && seen.ended.is_none() && seen.mode != Mode::Resting);
                seen.mode = Mode::Resting;
                seen.records.push((seen.received.len(), record_type, bytes));
            }
            Completion::Sent { conn, bytes, blocked, buf } => {
                let seen = self.conns.get_mut(&conn).unwrap();
                assert_eq!(buf.bytes().len(), seen.in_flight, "another buffer came back");
                assert_eq!(blocked, bytes < seen.in_flight);
                assert!(buf.bytes() == &seen.to_send.make_contiguous()[..seen.in_flight]);
                seen.in_flight = 0;
                seen.to_send.drain(..bytes);
                seen.sent_bytes += bytes;
                seen.blocked = blocked;
                seen.blocked_count += usize::from(blocked);
            }
            Completion::SendFailed { conn, errno, .. } => {
                let seen = self.conns.get_mut(&conn).unwrap();
                assert_ne!(errno, libc::EAGAIN);
                seen.in_flight = 0;
                seen.to_send.clear();
                seen.send_failed = Some(errno);
            }
            Completion::Writable { conn } => {
                let seen = self.conns.get_mut(&conn).unwrap();
                assert!(seen.blocked, "writable without being blocked");
                seen.blocked = false;
            }
            Completion::Woken => self.woken += 1,
        }
    }
}

/// Writes all of `bytes` while the server turns.
pub(crate) fn write_all<W: World>(server: &mut Server<W>, peer: &mut W::P, bytes: &[u8]) {
    let mut written = 0;
    server.until("the peer wrote everything", |_| {
        written += peer.write(&bytes[written..]);
        written == bytes.len()
    });
}

/// Reads until `count` bytes are there while the server turns.
pub(crate) fn read_exactly<W: World>(
    server: &mut Server<W>,
    peer: &mut W::P,
    count: usize,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    server.until("the peer read everything", |_| {
        peer.read_into(&mut bytes);
        bytes.len() >= count
    });
    assert_eq!(bytes.len(), count, "more than was sent");
    bytes
}
