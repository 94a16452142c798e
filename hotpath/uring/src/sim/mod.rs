//! A network in memory with a virtual clock and seeded faults, behind the same trait as the kernel.
//!
//! Several [`SimIo`], one per worker, share a [`SimNet`] in one thread. No turn ever waits: it
//! returns what is ready and notes its deadline. When no worker has anything left,
//! [`SimNet::advance_to_next_event`] moves the clock. The loop of a simulation:
//!
//! ```text
//!   loop {
//!       for worker in &mut workers { worker.turn() }     // each calls io.turn(deadline, …)
//!       drive the SimPeers
//!       if !net.advance_to_next_event() { break }        // at rest
//!   }
//! ```
//!
//! Same seed, same faults, same calls: same run, byte for byte. Never used in production.

mod faults;
mod net;
mod passing;
mod peer;
mod prng;
mod report;

pub use faults::Faults;
pub use peer::{SimListener, SimNet, SimPeer};

use crate::config::{Batching, IoConfig, IoCounters, ListenOptions};
use crate::io::{Completion, ConnId, Io, ListenerId, Nanos, SendBuf, TlsDirection};
use crate::kernel_tls::{RECORD_BYTES_MAX, busy, closed};
use crate::probe::{Backend, FeatureState, Features};
use crate::receiving::Receiving;
use crate::recv_pool::{RecvBuf, RecvPool};
use crate::slots::Slots;
use crate::waker::{WakeSignal, Waker};
use net::{Holder, ListenKey, Net, PortKey, SocketKey};
use stable_deref_trait::StableDeref;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

struct Listener {
    key: ListenKey,
    /// Of the connections it brings.
    receiving: Receiving,
    /// Out of descriptors: rests until then.
    resting_until: Option<Nanos>,
}

enum Send<L> {
    Idle,
    /// Asked for, not yet tried.
    Asked(SendBuf<L>),
    /// Decided; the completion is delivered when the time has come.
    Decided {
        at: Nanos,
        outcome: Result<usize, i32>,
        buf: SendBuf<L>,
    },
    /// `Writable` is owed. `until`: not before then, whatever room there is.
    Blocked {
        until: Nanos,
    },
}

impl<L> Send<L> {
    fn is_in_flight(&self) -> bool {
        matches!(self, Send::Asked(_) | Send::Decided { .. })
    }
}

/// Kernel TLS without the cryptography: bytes pass as they are, records keep their type.
#[derive(Copy, Clone, Default)]
struct Tls {
    attached: bool,
    send_keys: bool,
}

struct Conn<L> {
    socket: SocketKey,
    connecting: bool,
    receiving: Receiving,
    tls: Tls,
    paused: bool,
    receive_over: bool,
    /// A receive found no buffer and is not tried again before this.
    starved_until: Nanos,
    /// A standstill has cancelled its receive, which may have taken something before.
    races_freeze: bool,
    shutdown_asked: bool,
    send: Send<L>,
}

impl<L> Conn<L> {
    fn new(socket: SocketKey, receiving: Receiving, connecting: bool) -> Self {
        Self {
            socket,
            connecting,
            receiving,
            tls: Tls::default(),
            paused: false,
            receive_over: false,
            starved_until: Nanos(0),
            races_freeze: false,
            shutdown_asked: false,
            send: Send::Idle,
        }
    }
}

/// Operations of a connection that was closed before their completions came. Their buffers come home
/// then, and the connection counts as closed.
struct Late<L> {
    at: Nanos,
    send: Option<SendBuf<L>>,
    receive: Option<RecvBuf>,
}

impl<L> Late<L> {
    fn operations(&self) -> u64 {
        u64::from(self.send.is_some()) + u64::from(self.receive.is_some())
    }
}

/// One worker's side of a [`SimNet`].
pub struct SimIo<L> {
    net: Rc<RefCell<Net>>,
    port: PortKey,
    now: Nanos,
    config: IoConfig,
    pool: RecvPool,
    conns: Slots<Conn<L>>,
    listeners: Slots<Listener>,
    /// Takes nothing more: see [`Io::freeze`].
    frozen: bool,
    /// Connections with a send to try in the next turn.
    asked: Vec<ConnId>,
    /// What closed connections had in flight.
    late: Vec<Late<L>>,
    waker: Waker,
    features: Features,
    counters: IoCounters,
}

impl SimNet {
    /// A worker's side of this network.
    ///
    /// # Errors
    /// No memory for the receive buffers.
    pub fn io<L: StableDeref<Target = [u8]> + 'static>(
        &self,
        config: IoConfig,
    ) -> io::Result<SimIo<L>> {
        let signal = WakeSignal::without_eventfd();
        let waker = signal.waker();
        let mut net = self.net.borrow_mut();
        net.ports.push(net::Port {
            open: true,
            deadline: None,
            touched: std::collections::VecDeque::new(),
            ready: true,
            signal,
        });
        let mut features = Features::new(Backend::Sim);
        features.push("simulated_network", "-", FeatureState::On);
        Ok(SimIo {
            net: Rc::clone(&self.net),
            port: net.ports.len() - 1,
            now: net.now,
            pool: RecvPool::new(config.recv_buffers, config.recv_buffer_bytes)?,
            conns: Slots::new(config.connections_max),
            listeners: Slots::new(u32::MAX),
            frozen: false,
            asked: Vec::new(),
            late: Vec::new(),
            waker,
            features,
            counters: IoCounters::default(),
            config,
        })
    }
}

/// One pass over the touched sockets and everything else a turn looks at.
impl<L: StableDeref<Target = [u8]> + 'static> SimIo<L> {
    fn find(&mut self, conn: ConnId) -> Option<&mut Conn<L>> {
        let found = self.conns.find(conn.index, conn.generation);
        if found.is_none() {
            self.counters.stale_calls += 1;
        }
        found
    }

    fn insert(
        &mut self,
        socket: SocketKey,
        receiving: Receiving,
        connecting: bool,
    ) -> Option<ConnId> {
        let conn = Conn::new(socket, receiving, connecting);
        let (index, generation) = self.conns.insert(conn).ok()?;
        let mut net = self.net.borrow_mut();
        net.sockets[socket].holder = Holder::Port { port: self.port, index, generation };
        net.touch(socket);
        self.counters.opened += 1;
        Some(ConnId { index, generation })
    }

    fn drop_late_buffers(&mut self) {
        let now = self.now;
        for gone in self.late.extract_if(.., |late| late.at <= now) {
            self.counters.stale_completions += gone.operations();
            self.counters.closed += 1;
        }
    }

    /// What a receive has taken although it is being cancelled.
    fn lose_cancel_race(&mut self, found: &Conn<L>) -> Option<RecvBuf> {
        let is_receiving = !found.paused
            && !found.receive_over
            && !found.connecting
            && found.receiving == Receiving::Streaming;
        let mut net = self.net.borrow_mut();
        let has_data = net.sockets[found.socket].data_bytes() > 0;
        let rate = net.faults.cancel_lost_permille;
        if !is_receiving || !has_data || !net.prng.chance(rate) {
            return None;
        }
        match self.pool.receive_with(|room| Ok(net.receive(found.socket, room))) {
            Some(Ok(buf)) => buf,
            _ => None,
        }
    }

    /// Tries the sends asked for since the last turn.
    fn submit(&mut self) {
        for conn in std::mem::take(&mut self.asked) {
            let Some(found) = self.conns.find(conn.index, conn.generation) else { continue };
            let Send::Asked(buf) = std::mem::replace(&mut found.send, Send::Idle) else { continue };
            let mut net = self.net.borrow_mut();
            let outcome = try_send(&mut net, found.socket, buf.bytes());
            let late = net.faults.late_completion_permille;
            let at = if net.prng.chance(late) { net.delay() } else { net.now };
            found.send = Send::Decided { at, outcome, buf };
            if found.shutdown_asked {
                net.shutdown_write(found.socket);
            }
            let socket = found.socket;
            if at > net.now { net.look_later(socket, at) } else { net.touch(socket) }
        }
    }

    /// How many completions this turn hands out.
    fn completions_now(&mut self) -> usize {
        let mut net = self.net.borrow_mut();
        let rate = net.faults.overflow_permille;
        if net.prng.chance(rate) {
            self.counters.completion_overflows += 1;
            1 + net.prng.index_below(3)
        } else {
            self.config.completions_per_turn_max
        }
    }

    fn accept(&mut self, completions: &mut Vec<Completion<L>>, limit: usize) {
        if self.frozen {
            return;
        }
        let now = self.now;
        let ids: Vec<(u32, u32)> =
            self.listeners.iter_mut().map(|(index, generation, _)| (index, generation)).collect();
        for (index, generation) in ids {
            while completions.len() < limit {
                let Some(listener) = self.listeners.find(index, generation) else { break };
                if listener.resting_until.is_some_and(|until| until > now) {
                    break;
                }
                listener.resting_until = None;
                let (key, receiving) = (listener.key, listener.receiving);
                let mut net = self.net.borrow_mut();
                if net.listening[key].backlog.is_empty() {
                    break;
                }
                let rate = net.faults.accept_error_permille;
                if net.prng.chance(rate) {
                    let backoff = Nanos::from_millis(u64::from(self.config.accept_backoff_ms));
                    let until = now.saturating_add(backoff);
                    net.look_port_later(self.port, until);
                    listener.resting_until = Some(until);
                    self.counters.accept_errors += 1;
                    self.counters.accept_backoffs += 1;
                    break;
                }
                let Some(socket) = net.listening[key].backlog.pop_front() else { break };
                drop(net);
                self.accept_one(ListenerId { index, generation }, receiving, socket, completions);
            }
        }
    }

    fn accept_one(
        &mut self,
        listener: ListenerId,
        receiving: Receiving,
        socket: SocketKey,
        completions: &mut Vec<Completion<L>>,
    ) {
        let (peer, local, gone) = {
            let net = self.net.borrow();
            let accepted = &net.sockets[socket];
            (accepted.remote, accepted.local, accepted.error.is_some())
        };
        if gone {
            self.counters.accept_gone += 1;
            self.net.borrow_mut().close(socket);
            return;
        }
        let Some(conn) = self.insert(socket, receiving, false) else {
            self.counters.accept_over_limit += 1;
            self.net.borrow_mut().reset(socket);
            return;
        };
        self.counters.accepted += 1;
        completions.push(Completion::Accepted { listener, conn, peer, local });
    }

    /// The touched sockets of this turn, in the order they will be reported.
    fn take_touched(&mut self) -> Vec<SocketKey> {
        let mut net = self.net.borrow_mut();
        let mut touched: Vec<SocketKey> = Vec::new();
        while let Some(at) = net.take_touched(self.port) {
            touched.push(at);
        }
        let rate = net.faults.reorder_permille;
        if net.prng.chance(rate) {
            for last in (1..touched.len()).rev() {
                let other = net.prng.index_below(last + 1);
                touched.swap(last, other);
            }
        }
        touched
    }
}

fn try_send(net: &mut Net, socket: SocketKey, bytes: &[u8]) -> Result<usize, i32> {
    let faults = (net.faults.send_blocked_permille, net.faults.short_send_permille);
    let cut = if net.prng.chance(faults.0) {
        0
    } else if net.prng.chance(faults.1) {
        net.prng.index_below(bytes.len())
    } else {
        bytes.len()
    };
    net.send(socket, &bytes[..cut])
}

impl<L: StableDeref<Target = [u8]> + 'static> Io for SimIo<L> {
    type Lease = L;

    fn now(&self) -> Nanos {
        self.now
    }

    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let backlog_max = options.backlog as usize;
        let receiving = Receiving::begin(options.first_receive_bytes_max);
        let mut net = self.net.borrow_mut();
        let key = net.listen(addr, Some(self.port), options.reuseport, backlog_max);
        let key = key.map_err(io::Error::from_raw_os_error)?;
        let addr = net.listening[key].addr;
        let listener = Listener { key, receiving, resting_until: None };
        match self.listeners.insert(listener) {
            Ok((index, generation)) => Ok((ListenerId { index, generation }, addr)),
            Err(_) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }

    fn listen_on(
        &mut self,
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        self.share_listener(socket, options)
    }

    fn close_listener(&mut self, listener: ListenerId) {
        match self.listeners.remove(listener.index, listener.generation) {
            Some(found) => self.net.borrow_mut().close_listener(found.key, Some(self.port)),
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
        if self.conns.vacant().is_none() {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        if source.is_some_and(|source| source.is_ipv4() != addr.is_ipv4()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let socket = self.net.borrow_mut().connect(source, addr, Holder::Nobody);
        self.insert(socket, receiving, true)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))
    }

    fn send(&mut self, conn: ConnId, buf: SendBuf<L>) {
        assert!(!buf.bytes().is_empty(), "an empty send has no completion");
        let Some(found) = self.find(conn) else { return };
        match found.send {
            // A send while `Writable` is owed is tried all the same; the debt is forgiven.
            Send::Idle | Send::Blocked { .. } => found.send = Send::Asked(buf),
            Send::Asked(_) | Send::Decided { .. } => panic!("a send is in flight on {conn:?}"),
        }
        self.asked.push(conn);
        self.counters.sends += 1;
        self.net.borrow_mut().ports[self.port].ready = true;
    }

    fn send_more(&mut self, conn: ConnId, buf: SendBuf<L>) {
        self.send(conn, buf);
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
        let socket = found.socket;
        self.net.borrow_mut().touch(socket);
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
        let socket = found.socket;
        self.net.borrow_mut().touch(socket);
    }

    fn attach_tls(&mut self, conn: ConnId) -> io::Result<()> {
        let granted = self.config.kernel_tls;
        let net = Rc::clone(&self.net);
        let found = self.find(conn).ok_or_else(closed)?;
        if found.receiving != Receiving::Resting || found.send.is_in_flight() {
            return Err(busy());
        }
        if !granted {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        if found.tls.attached {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        if !net.borrow().sockets[found.socket].stands() {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        found.tls.attached = true;
        Ok(())
    }

    fn set_tls_keys(
        &mut self,
        conn: ConnId,
        direction: TlsDirection,
        crypto_info: &[u8],
    ) -> io::Result<()> {
        let found = self.find(conn).ok_or_else(closed)?;
        let free = match direction {
            TlsDirection::Send => !found.send.is_in_flight(),
            TlsDirection::Receive => found.receiving == Receiving::Resting,
        };
        if !free {
            return Err(busy());
        }
        if !found.tls.attached {
            return Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
        }
        if crypto_info.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        found.tls.send_keys |= direction == TlsDirection::Send;
        Ok(())
    }

    fn send_tls_record(&mut self, conn: ConnId, record_type: u8, bytes: &[u8]) -> io::Result<()> {
        let found = self.find(conn).ok_or_else(closed)?;
        if found.send.is_in_flight() {
            return Err(busy());
        }
        if !found.tls.send_keys || !(1..=RECORD_BYTES_MAX).contains(&bytes.len()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let socket = found.socket;
        let sent = self.net.borrow_mut().send_record(socket, record_type, bytes);
        sent.map_err(io::Error::from_raw_os_error)
    }

    /// The simulated network holds no acknowledgements back.
    fn acknowledge_now(&mut self, conn: ConnId) {
        let _ = self.find(conn);
    }

    fn set_unsent_max(&mut self, conn: ConnId, _bytes_max: u32) {
        let _ = self.find(conn);
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        let Some(found) = self.find(conn) else { return };
        found.shutdown_asked = true;
        if !matches!(found.send, Send::Asked(_)) {
            let socket = found.socket;
            self.net.borrow_mut().shutdown_write(socket);
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(found) = self.conns.remove(conn.index, conn.generation) else {
            self.counters.stale_calls += 1;
            return;
        };
        let receive = self.lose_cancel_race(&found);
        let mut net = self.net.borrow_mut();
        let (at, send) = match found.send {
            Send::Asked(buf) => {
                // Its effect is immediate, its completion comes late and finds nobody. An error
                // here means the connection is broken already, and it is being closed.
                let _ = try_send(&mut net, found.socket, buf.bytes());
                (net.delay(), Some(buf))
            }
            Send::Decided { at, buf, .. } => (at, Some(buf)),
            Send::Idle | Send::Blocked { .. } if receive.is_some() => (net.delay(), None),
            Send::Idle | Send::Blocked { .. } => (net.now, None),
        };
        let late = Late { at, send, receive };
        if late.operations() > 0 {
            net.look_port_later(self.port, at);
            self.late.push(late);
        } else {
            self.counters.closed += 1;
        }
        net.close(found.socket);
    }

    fn freeze(&mut self) {
        self.begin_standstill();
    }

    fn is_frozen(&mut self) -> bool {
        let is_quiet = |conn: &Conn<L>| !conn.send.is_in_flight() && !conn.races_freeze;
        self.frozen && self.conns.iter_mut().all(|(_, _, conn)| is_quiet(conn))
    }

    fn thaw(&mut self) {
        self.end_standstill();
    }

    fn duplicate(&mut self, conn: ConnId) -> io::Result<OwnedFd> {
        let found = self.conns.find(conn.index, conn.generation).ok_or_else(closed)?;
        passing::descriptor(passing::Named::Socket(found.socket))
    }

    fn duplicate_listener(&mut self, listener: ListenerId) -> io::Result<OwnedFd> {
        let found = self.listeners.find(listener.index, listener.generation);
        passing::descriptor(passing::Named::Listener(found.ok_or_else(closed)?.key))
    }

    fn adopt(
        &mut self,
        socket: OwnedFd,
        first_receive_bytes_max: Option<u32>,
    ) -> io::Result<ConnId> {
        self.take_in(socket, first_receive_bytes_max)
    }

    fn release(&mut self, conn: ConnId) {
        self.let_go_of(conn);
    }

    fn release_listener(&mut self, listener: ListenerId) {
        self.close_listener(listener);
    }

    fn turn(
        &mut self,
        deadline: Option<Nanos>,
        completions: &mut Vec<Completion<L>>,
    ) -> io::Result<()> {
        self.counters.turns += 1;
        let before = completions.len();
        let limit = before + self.completions_now();
        {
            let mut net = self.net.borrow_mut();
            self.now = net.now;
            net.ports[self.port].ready = false;
            if net.ports[self.port].signal.take_woken() {
                self.counters.wakes += 1;
                completions.push(Completion::Woken);
            }
        }
        self.drop_late_buffers();
        self.submit();
        self.accept(completions, limit);
        // A connection reports at most three things at once (`report`).
        let mut touched = self.take_touched().into_iter();
        while completions.len() + 3 <= limit.max(before + 3)
            && let Some(socket) = touched.next()
        {
            self.report(socket, completions);
        }
        let mut net = self.net.borrow_mut();
        touched.for_each(|socket| net.touch(socket));
        let count = completions.len() - before;
        self.counters.completions += count as u64;
        let port = &mut net.ports[self.port];
        port.deadline = deadline;
        // The clock stands still until a turn finds nothing: what this one reported may change
        // what the worker waits for.
        port.ready |= count > 0 || deadline.is_some_and(|deadline| deadline <= self.now);
        Ok(())
    }

    /// Virtual time has no use for it.
    fn set_batching(&mut self, _: Batching) {}

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn features(&self) -> &Features {
        &self.features
    }

    fn counters(&self) -> &IoCounters {
        &self.counters
    }
}

/// Whoever still holds one of its connections sees a reset, as when a process dies.
impl<L> Drop for SimIo<L> {
    fn drop(&mut self) {
        let mut net = self.net.borrow_mut();
        for (_, _, listener) in self.listeners.iter_mut() {
            net.close_listener(listener.key, Some(self.port));
        }
        for (index, generation, conn) in self.conns.iter_mut() {
            // What was taken in and never gone on with is another's still.
            if net.sockets[conn.socket].holder
                == (Holder::Port { port: self.port, index, generation })
            {
                net.reset(conn.socket);
            }
        }
        let port = &mut net.ports[self.port];
        port.open = false;
        port.deadline = None;
    }
}

impl<L> fmt::Debug for SimIo<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimIo")
            .field("port", &self.port)
            .field("now", &self.now)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
