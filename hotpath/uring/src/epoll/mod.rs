//! `Io` on epoll and plain calls, for kernels and containers where io_uring is not to be had.
//!
//! ```text
//!   send: tried at once, outcome queued ─┐
//!                                        ▼
//!   turn: outcomes ─► epoll_wait ─► events set flags ─► ready connections, one receive each, in turn
//! ```
//!
//! Connections are registered once, edge-triggered, for both directions; what the edges said is kept
//! in flags, so pausing and resuming cost no system call. Listeners and the eventfd are
//! level-triggered. A wait's end is rounded up to the next millisecond, which is what `epoll_wait`
//! offers. Receiving, bounds and TLS are in `receive.rs`. Measured against io_uring a send costs the
//! same; what is lost is batching on ingest.

mod listening;
mod receive;

use crate::config::{Batching, IoConfig, IoCounters, ListenOptions};
use crate::io::{Completion, ConnId, Io, ListenerId, Nanos, SendBuf, TlsDirection};
use crate::kernel_tls::{Tls, closed};
use crate::probe::{Backend, FeatureState, Features, OpenError};
use crate::receiving::Receiving;
use crate::recv_pool::RecvPool;
use crate::slots::Slots;
use crate::socket::{self, FileSends};
use crate::token::{INDEX_MAX, Kind, Token};
use crate::waker::{WakeSignal, Waker};
use socket2::{SockAddr, SockRef};
use stable_deref_trait::StableDeref;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Events fetched per wait.
const EVENTS_MAX: usize = 1024;
/// Peers accepted from one listener per event; level-triggering brings the rest.
const ACCEPTS_PER_EVENT_MAX: usize = 64;
const LISTENERS_MAX: u32 = 1024;

const BOTH_WAYS: i32 = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
const RECEIVE_EVENTS: i32 = libc::EPOLLIN | ENDED_EVENTS;
const ENDED_EVENTS: i32 = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
const SEND_EVENTS: i32 = libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR;

struct Listener {
    fd: OwnedFd,
    /// Of the connections it brings.
    receiving: Receiving,
    resting_until: Option<Nanos>,
}

struct Conn<L> {
    fd: OwnedFd,
    connecting: bool,
    /// `connect` failed at once; not reported yet.
    refused: Option<i32>,
    receiving: Receiving,
    tls: Tls,
    paused: bool,
    receive_over: bool,
    /// The last edge said there is something, and we have not seen the end of it.
    readable: bool,
    /// The peer's end or an error has been announced: read until it shows.
    ended: bool,
    /// In `ready`.
    queued: bool,
    writable_owed: bool,
    /// A send whose outcome has not been reported.
    sent: Option<(SendBuf<L>, Result<usize, i32>)>,
}

impl<L> Conn<L> {
    /// Something is wanted from the socket, and may be delivered.
    fn may_receive(&self) -> bool {
        self.receiving != Receiving::Resting && !self.paused && !self.receive_over
    }
}

/// A network through epoll. See the module.
pub struct Epoll<L> {
    epoll: OwnedFd,
    pool: RecvPool,
    conns: Slots<Conn<L>>,
    listeners: Slots<Listener>,
    resting: u32,
    events: Vec<libc::epoll_event>,
    /// Connections with the outcome of a send or connect to report, in order.
    outcomes: VecDeque<(u32, u32)>,
    file_sends: FileSends,
    /// Connections to receive from, in turn.
    ready: VecDeque<(u32, u32)>,
    signal: WakeSignal,
    /// Nothing more is taken from the kernel.
    frozen: bool,
    now: Nanos,
    config: IoConfig,
    features: Features,
    counters: IoCounters,
}

impl<L: StableDeref<Target = [u8]> + 'static> Epoll<L> {
    /// Opens an epoll instance.
    ///
    /// # Errors
    /// [`OpenError`] when descriptors or memory run out, or a size is out of range.
    pub fn open(config: IoConfig) -> Result<Epoll<L>, OpenError> {
        if config.recv_buffers == 0 || config.recv_buffer_bytes == 0 {
            return Err(OpenError::misconfigured("recv_buffers and their size must not be zero"));
        }
        if config.connections_max > INDEX_MAX {
            return Err(OpenError::misconfigured("connections_max is at most 2^28"));
        }
        let signal = WakeSignal::with_eventfd()
            .map_err(|error| OpenError::from_kernel("make the wake-up descriptor", &error))?;
        let epoll =
            create().map_err(|error| OpenError::from_kernel("make an epoll instance", &error))?;
        let pool = RecvPool::new(config.recv_buffers, config.recv_buffer_bytes)
            .map_err(|error| OpenError::from_kernel("map the receive buffers", &error))?;
        let mut features = Features::new(Backend::Epoll);
        features.push("epoll", "2.6.27", FeatureState::On);
        let io = Epoll {
            epoll,
            pool,
            conns: Slots::new(config.connections_max),
            listeners: Slots::new(LISTENERS_MAX),
            resting: 0,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
            outcomes: VecDeque::new(),
            file_sends: FileSends::default(),
            ready: VecDeque::new(),
            signal,
            frozen: false,
            now: socket::clock(),
            config,
            features,
            counters: IoCounters::default(),
        };
        let token = Token::new(Kind::Wake, (0, 0));
        io.control(libc::EPOLL_CTL_ADD, io.signal.raw_fd(), libc::EPOLLIN, token)
            .map_err(|error| OpenError::from_kernel("watch the wake-up descriptor", &error))?;
        Ok(io)
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, token: Token) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: token.pack() };
        // SAFETY: the kernel reads one event from a local that outlives the call.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn find(&mut self, conn: ConnId) -> Option<&mut Conn<L>> {
        let found = self.conns.find(conn.index, conn.generation);
        if found.is_none() {
            self.counters.stale_calls += 1;
        }
        found
    }

    /// Takes a socket in and watches it; drops it again when it cannot be watched.
    fn insert(
        &mut self,
        fd: OwnedFd,
        receiving: Receiving,
        connecting: bool,
    ) -> io::Result<(u32, u32)> {
        let number = fd.as_raw_fd();
        let conn = Conn {
            fd,
            connecting,
            refused: None,
            receiving,
            tls: Tls::default(),
            paused: false,
            receive_over: false,
            readable: false,
            ended: false,
            queued: false,
            writable_owed: false,
            sent: None,
        };
        let full = |_| io::Error::from_raw_os_error(libc::EMFILE);
        let name = self.conns.insert(conn).map_err(full)?;
        // Each connection is in either queue once at most.
        let seats = name.0 as usize + 1;
        self.ready.reserve(seats.saturating_sub(self.ready.len()));
        self.outcomes.reserve(seats.saturating_sub(self.outcomes.len()));
        let token = Token::new(Kind::Receive, name);
        if let Err(error) = self.control(libc::EPOLL_CTL_ADD, number, BOTH_WAYS, token) {
            self.conns.remove(name.0, name.1);
            return Err(error);
        }
        self.counters.opened += 1;
        Ok(name)
    }

    fn send_with(&mut self, conn: ConnId, buf: SendBuf<L>, flags: i32) {
        assert!(!buf.bytes().is_empty(), "an empty send has no completion");
        let mut file_sends = self.file_sends;
        let Some(found) = self.find(conn) else { return };
        assert!(found.sent.is_none(), "a send is in flight on {conn:?}");
        let file = buf.in_file().filter(|_| !found.tls.attached);
        let sent = file.and_then(|file| {
            let bytes = buf.bytes().len();
            file_sends.try_send(|| socket::send_file(&found.fd, file, bytes))
        });
        let is_from_file = sent.is_some();
        let outcome = match sent {
            Some(outcome) => outcome.map(|bytes| bytes as usize),
            None => send_copy(&found.fd, buf.bytes(), flags),
        };
        found.writable_owed |= outcome.is_ok_and(|bytes| bytes < buf.bytes().len());
        found.sent = Some((buf, outcome));
        self.file_sends = file_sends;
        self.counters.sends += 1;
        self.counters.sends_from_file += u64::from(is_from_file);
        self.outcomes.push_back((conn.index, conn.generation));
    }

    fn queue_if_ready(&mut self, name: (u32, u32)) {
        let Some(conn) = self.conns.find(name.0, name.1) else { return };
        if conn.readable && conn.may_receive() && !(conn.queued || conn.connecting) {
            conn.queued = true;
            self.ready.push_back(name);
        }
    }

    /// Reports the sends and connects that were decided when they were asked for.
    fn report_outcomes(&mut self, completions: &mut Vec<Completion<L>>, limit: usize) {
        while completions.len() < limit
            && let Some(name) = self.outcomes.pop_front()
        {
            let Some(conn) = self.conns.find(name.0, name.1) else {
                self.counters.stale_completions += 1;
                continue;
            };
            if let Some(errno) = conn.refused.take() {
                completions.push(Completion::Connected { conn: id(name), result: Err(errno) });
                continue;
            }
            let Some((buf, outcome)) = conn.sent.take() else { continue };
            completions.push(match outcome {
                Ok(bytes) => {
                    let blocked = bytes < buf.bytes().len();
                    self.counters.sent_bytes += bytes as u64;
                    self.counters.sends_blocked += u64::from(blocked);
                    Completion::Sent { conn: id(name), bytes, blocked, buf }
                }
                Err(errno) => {
                    self.counters.sends_failed += 1;
                    Completion::SendFailed { conn: id(name), errno, buf }
                }
            });
        }
    }

    /// Waits until `until` at most (not at all when something is `at_hand`) and returns the number
    /// of events fetched, at most `events_max`.
    fn wait(
        &mut self,
        until: Option<Nanos>,
        at_hand: bool,
        events_max: usize,
    ) -> io::Result<usize> {
        let timeout_ms = if at_hand || !self.signal.may_sleep() {
            0
        } else {
            match until {
                None => -1,
                Some(at) => {
                    let nanos = at.since(socket::clock()).0;
                    i32::try_from(nanos.div_ceil(1_000_000)).unwrap_or(i32::MAX)
                }
            }
        };
        self.counters.enters += 1;
        let room = i32::try_from(events_max.clamp(1, self.events.len())).unwrap_or(1);
        // SAFETY: the kernel writes at most `room` events, and the vector owned by self has at
        // least that many.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), room, timeout_ms)
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINTR) => Ok(0),
                error => Err(error),
            },
        }
    }

    /// Handles an event of a listener, or one of anything else, as `listeners` says.
    fn on_event(
        &mut self,
        event: libc::epoll_event,
        listeners: bool,
        completions: &mut Vec<Completion<L>>,
        limit: usize,
    ) {
        let Some(token) = Token::unpack(event.u64) else { return };
        match token.kind {
            Kind::Accept if listeners => self.accept(token.name(), completions, limit),
            Kind::Wake if !listeners => self.signal.drain(),
            Kind::Receive if !listeners => {
                self.on_conn_event(token.name(), event.events.cast_signed(), completions);
            }
            _ => {}
        }
    }

    fn on_conn_event(
        &mut self,
        name: (u32, u32),
        events: i32,
        completions: &mut Vec<Completion<L>>,
    ) {
        let Some(conn) = self.conns.find(name.0, name.1) else {
            self.counters.stale_completions += 1;
            return;
        };
        conn.readable |= events & RECEIVE_EVENTS != 0;
        conn.ended |= events & ENDED_EVENTS != 0;
        if conn.connecting {
            if events & SEND_EVENTS == 0 {
                return;
            }
            conn.connecting = false;
            let result = match SockRef::from(&conn.fd).take_error() {
                Ok(None) => Ok(()),
                Ok(Some(error)) | Err(error) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
            };
            conn.receive_over = result.is_err();
            completions.push(Completion::Connected { conn: id(name), result });
        } else if conn.writable_owed && events & SEND_EVENTS != 0 {
            conn.writable_owed = false;
            completions.push(Completion::Writable { conn: id(name) });
        }
        self.queue_if_ready(name);
    }

    fn accept(&mut self, name: (u32, u32), completions: &mut Vec<Completion<L>>, limit: usize) {
        for _ in 0..ACCEPTS_PER_EVENT_MAX {
            if completions.len() >= limit {
                return;
            }
            let Some(listener) = self.listeners.find(name.0, name.1) else {
                self.counters.stale_completions += 1;
                return;
            };
            if listener.resting_until.is_some() {
                return;
            }
            match accept_one(&listener.fd) {
                Ok(fd) => {
                    let receiving = listener.receiving;
                    self.adopt(name, receiving, fd, completions);
                }
                Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
                    libc::EAGAIN => return,
                    errno if socket::is_peer_gone(errno) => self.counters.accept_errors += 1,
                    _ => return self.rest(name),
                },
            }
        }
    }

    fn adopt(
        &mut self,
        listener: (u32, u32),
        receiving: Receiving,
        fd: OwnedFd,
        completions: &mut Vec<Completion<L>>,
    ) {
        let (Ok(peer), Ok(local)) = (socket::peer_addr(&fd), socket::local_addr(&fd)) else {
            // A port probe that has already left: nobody to talk to, nothing to report.
            self.counters.accept_gone += 1;
            return;
        };
        let Ok(name) = self.insert(fd, receiving, false) else {
            self.counters.accept_over_limit += 1;
            return;
        };
        self.counters.accepted += 1;
        let listener = ListenerId { index: listener.0, generation: listener.1 };
        completions.push(Completion::Accepted { listener, conn: id(name), peer, local });
    }
}

fn id((index, generation): (u32, u32)) -> ConnId {
    ConnId { index, generation }
}

fn create() -> io::Result<OwnedFd> {
    // SAFETY: plain call without pointers; the result is checked before it is owned.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How many bytes the socket took, none if it is full.
fn send_copy(socket: &OwnedFd, bytes: &[u8], flags: i32) -> Result<usize, i32> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | flags;
    match SockRef::from(socket).send_with_flags(bytes, flags) {
        Ok(bytes) => Ok(bytes),
        Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
            libc::EAGAIN | libc::EINTR => Ok(0),
            errno => Err(errno),
        },
    }
}

fn accept_one(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null for the address says that none is wanted, so the kernel writes no memory.
    let fd = unsafe {
        libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just accepted, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl<L: StableDeref<Target = [u8]> + 'static> Io for Epoll<L> {
    type Lease = L;

    fn now(&self) -> Nanos {
        self.now
    }

    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let (fd, bound) = socket::listener(addr, options)?;
        Ok((self.accept_from(fd, options)?, bound))
    }

    fn listen_on(
        &mut self,
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let (fd, bound) = socket::passed_listener(socket, options)?;
        Ok((self.accept_from(fd, options)?, bound))
    }

    fn close_listener(&mut self, listener: ListenerId) {
        match self.listeners.remove(listener.index, listener.generation) {
            Some(found) => self.resting -= u32::from(found.resting_until.is_some()),
            None => self.counters.stale_calls += 1,
        }
    }

    fn connect_from(
        &mut self,
        source: Option<IpAddr>,
        addr: SocketAddr,
        first_receive_bytes_max: Option<u32>,
    ) -> io::Result<ConnId> {
        let receiving = Receiving::begin(first_receive_bytes_max);
        let fd = socket::outgoing(source, addr, &self.config.connect_socket)?;
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(true)?;
        let refusal = match socket.connect(&SockAddr::from(addr)) {
            Ok(()) => None,
            Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
                libc::EINPROGRESS => None,
                errno => Some(errno),
            },
        };
        let name = self.insert(fd, receiving, true)?;
        if let Some(errno) = refusal
            && let Some(conn) = self.conns.find(name.0, name.1)
        {
            // Decided at once (nobody listens on loopback, no route): told by the next turn, as
            // every other result.
            conn.refused = Some(errno);
            conn.connecting = false;
            conn.receive_over = true;
            self.outcomes.push_back(name);
        }
        Ok(id(name))
    }

    fn send(&mut self, conn: ConnId, buf: SendBuf<L>) {
        self.send_with(conn, buf, 0);
    }

    fn send_more(&mut self, conn: ConnId, buf: SendBuf<L>) {
        self.send_with(conn, buf, libc::MSG_MORE);
    }

    fn pause_receive(&mut self, conn: ConnId) {
        if let Some(found) = self.find(conn) {
            found.paused = found.receiving != Receiving::Resting;
        }
    }

    fn resume_receive(&mut self, conn: ConnId) {
        let Some(found) = self.find(conn) else { return };
        if found.receiving == Receiving::Resting {
            found.receiving = Receiving::Streaming;
        }
        found.paused = false;
        self.queue_if_ready((conn.index, conn.generation));
    }

    fn receive_once(&mut self, conn: ConnId, bytes_max: u32) {
        let once = Receiving::once(bytes_max);
        let Some(found) = self.find(conn) else { return };
        if found.receive_over {
            return;
        }
        let rests = found.receiving == Receiving::Resting;
        debug_assert!(rests, "receiving does not rest on {conn:?}");
        if !rests {
            self.counters.stale_calls += 1;
            return;
        }
        found.receiving = once;
        self.queue_if_ready((conn.index, conn.generation));
    }

    fn attach_tls(&mut self, conn: ConnId) -> io::Result<()> {
        self.attach(conn)
    }

    fn set_tls_keys(
        &mut self,
        conn: ConnId,
        direction: TlsDirection,
        crypto_info: &[u8],
    ) -> io::Result<()> {
        self.set_keys(conn, direction, crypto_info)
    }

    fn send_tls_record(&mut self, conn: ConnId, record_type: u8, bytes: &[u8]) -> io::Result<()> {
        self.send_record(conn, record_type, bytes)
    }

    fn acknowledge_now(&mut self, conn: ConnId) {
        if let Some(found) = self.find(conn) {
            socket::acknowledge_now(&found.fd);
        }
    }

    fn set_unsent_max(&mut self, conn: ConnId, bytes_max: u32) {
        if let Some(found) = self.find(conn) {
            socket::set_unsent_max(&found.fd, bytes_max);
        }
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        if let Some(found) = self.find(conn) {
            socket::shutdown_write(&found.fd);
        }
    }

    fn close(&mut self, conn: ConnId) {
        match self.conns.remove(conn.index, conn.generation) {
            Some(_) => self.counters.closed += 1,
            None => self.counters.stale_calls += 1,
        }
    }

    fn freeze(&mut self) {
        self.frozen = true;
        self.watch_listeners(0);
    }

    fn is_frozen(&mut self) -> bool {
        self.frozen && self.outcomes.is_empty()
    }

    fn thaw(&mut self) {
        self.frozen = false;
        // Whoever had them meanwhile may have changed what all who share them share. A socket of ours can
        // always be told.
        for (_, _, conn) in self.conns.iter_mut() {
            let _ = socket::set_nonblocking(&conn.fd, true);
        }
        for (_, _, listener) in self.listeners.iter_mut() {
            let _ = socket::set_nonblocking(&listener.fd, true);
        }
        self.watch_listeners(libc::EPOLLIN);
    }

    fn duplicate(&mut self, conn: ConnId) -> io::Result<OwnedFd> {
        self.find(conn).ok_or_else(closed)?.fd.try_clone()
    }

    fn duplicate_listener(&mut self, listener: ListenerId) -> io::Result<OwnedFd> {
        let found = self.listeners.find(listener.index, listener.generation);
        found.ok_or_else(closed)?.fd.try_clone()
    }

    fn adopt(
        &mut self,
        socket: OwnedFd,
        first_receive_bytes_max: Option<u32>,
    ) -> io::Result<ConnId> {
        socket::peer_addr(&socket)?;
        socket::set_nonblocking(&socket, true)?;
        let tls = Tls::of(&socket);
        let name = self.insert(socket, Receiving::begin(first_receive_bytes_max), false)?;
        if let Some(conn) = self.conns.find(name.0, name.1) {
            conn.tls = tls;
        }
        Ok(id(name))
    }

    fn release(&mut self, conn: ConnId) {
        // The socket lives on elsewhere, and what watches it here would with it.
        if let Some(number) = self.find(conn).map(|found| found.fd.as_raw_fd()) {
            let token = Token::new(Kind::Receive, (conn.index, conn.generation));
            let _ = self.control(libc::EPOLL_CTL_DEL, number, 0, token);
            self.close(conn);
        }
    }

    fn release_listener(&mut self, listener: ListenerId) {
        let name = (listener.index, listener.generation);
        if let Some(found) = self.listeners.find(name.0, name.1) {
            let number = found.fd.as_raw_fd();
            let _ = self.control(libc::EPOLL_CTL_DEL, number, 0, Token::new(Kind::Accept, name));
        }
        self.close_listener(listener);
    }

    fn turn(
        &mut self,
        deadline: Option<Nanos>,
        completions: &mut Vec<Completion<L>>,
    ) -> io::Result<()> {
        self.counters.turns += 1;
        let before = completions.len();
        let limit = before + self.config.completions_per_turn_max.max(1);
        // Once: a busy turn is no time to allocate. One more is for a wake.
        completions.reserve(limit - before + 1);
        self.report_outcomes(completions, limit);
        let rest_over = self.retry_listeners();
        // Ready connections without buffers are no reason to hurry.
        let can_receive = !self.frozen && !self.ready.is_empty() && self.pool.free_count() > 0;
        let at_hand = completions.len() > before || can_receive;
        let room = limit - completions.len();
        if room > 0 {
            let until = rest_over.into_iter().chain(deadline).min();
            let count = self.wait(until, at_hand, room)?;
            // Connections first: their edges do not come again, while a listener that finds no
            // room left is told again by the next wait.
            for listeners in [false, true] {
                for position in 0..count {
                    self.on_event(self.events[position], listeners, completions, limit);
                }
            }
        }
        self.now = socket::clock();
        if self.signal.take_woken() {
            self.counters.wakes += 1;
            completions.push(Completion::Woken);
        }
        if !self.frozen {
            self.receive(completions, limit);
        }
        self.counters.completions += (completions.len() - before) as u64;
        Ok(())
    }

    /// A readiness call returns with the first event; there is nothing to gather.
    fn set_batching(&mut self, _: Batching) {}

    fn waker(&self) -> Waker {
        self.signal.waker()
    }

    fn features(&self) -> &Features {
        &self.features
    }

    fn counters(&self) -> &IoCounters {
        &self.counters
    }
}

impl<L> fmt::Debug for Epoll<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll")
            .field("now", &self.now)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
