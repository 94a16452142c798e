//! The simulated network: sockets, what is on its way between them, and the clock.
//!
//! ```text
//!   send ──► heap of arrivals (time, order) ──► inbox of the other end ──► receive
//!             room = socket_buffer_bytes − (on its way + in the inbox)
//! ```
//!
//! Knows nothing of the `Io` trait: ends are owned either by a port (one `SimIo`) or by the test.
//! Time moves only in [`Net::advance`]. No hashing, no addresses, no clock: the order of everything
//! follows from the seed and the calls made.

use super::faults::Faults;
use super::prng::Prng;
use crate::io::Nanos;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How long an unanswered connection request waits before it tries again (a full backlog).
const SYN_RETRY: Nanos = Nanos(1_000_000_000);
/// Where ports chosen by the network begin.
const PORT_FIRST: u16 = 40_000;

pub(super) type SocketKey = usize;
pub(super) type ListenKey = usize;
pub(super) type PortKey = usize;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// In a listener's backlog, or given up by its holder.
    Nobody,
    /// A test-side peer.
    Test,
    /// A connection of a `SimIo`, by index and generation.
    Port { port: PortKey, index: u32, generation: u32 },
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Connecting,
    Established,
    Refused(i32),
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) holder: Holder,
    pub(super) phase: Phase,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    other: Option<SocketKey>,
    pub(super) inbox: VecDeque<u8>,
    /// TLS records among the bytes of the inbox: what is not data interrupts them.
    pub(super) records: VecDeque<Record>,
    /// Bytes sent from here that have not reached the other inbox.
    on_its_way: usize,
    /// The other end has sent FIN, and it has arrived.
    pub(super) eof: bool,
    pub(super) write_shut: bool,
    pub(super) error: Option<i32>,
    /// The error has been told: as in a kernel, only the first call after it learns its number.
    error_told: bool,
    /// The holder has let go.
    pub(super) closed: bool,
    /// Somebody waits to hear of room for sending.
    pub(super) wants_room: bool,
    /// In its port's list of sockets to look at.
    touched: bool,
    /// Nothing sent from here arrives before this: keeps a direction in order.
    arrival_last: Nanos,
}

/// A TLS record that is not data, in its place among the bytes.
#[derive(Debug)]
pub(super) struct Record {
    /// Bytes of the inbox that come before it.
    behind_bytes: usize,
    pub(super) record_type: u8,
    pub(super) bytes: Vec<u8>,
}

impl Socket {
    /// Bytes that can be received before something that is not data.
    pub(super) fn data_bytes(&self) -> usize {
        self.records.front().map_or(self.inbox.len(), |record| record.behind_bytes)
    }

    /// Established, not broken, and the other end has not finished: what attaching TLS asks for.
    pub(super) fn stands(&self) -> bool {
        self.phase == Phase::Established && self.error.is_none() && !self.eof
    }

    /// Takes the record that is next, if one is.
    pub(super) fn take_record(&mut self) -> Option<Record> {
        self.records.pop_front_if(|record| record.behind_bytes == 0)
    }
}

#[derive(Debug)]
pub(super) struct Listening {
    pub(super) addr: SocketAddr,
    /// Who accepts from it: several that share it, or none for a test-side listener.
    pub(super) ports: Vec<PortKey>,
    pub(super) reuseport: bool,
    pub(super) backlog: VecDeque<SocketKey>,
    pub(super) backlog_max: usize,
    pub(super) open: bool,
}

#[derive(Debug)]
enum Event {
    Syn { client: SocketKey },
    SynAnswer { client: SocketKey, result: Result<SocketKey, i32> },
    Bytes { from: SocketKey, to: SocketKey, bytes: Vec<u8> },
    Record { to: SocketKey, record_type: u8, bytes: Vec<u8> },
    Fin { to: SocketKey },
    Reset { to: SocketKey, errno: i32 },
    Look { at: SocketKey },
    LookPort { port: PortKey },
}

struct Scheduled {
    at: Nanos,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What the network knows of one `SimIo`.
pub(super) struct Port {
    /// Its `SimIo` lives; a dropped one no longer holds up the clock.
    pub(super) open: bool,
    /// Until when its last turn would have waited.
    pub(super) deadline: Option<Nanos>,
    /// Sockets with something to report, in order of touching.
    pub(super) touched: VecDeque<SocketKey>,
    /// A turn would find something besides `touched`.
    pub(super) ready: bool,
    pub(super) signal: crate::waker::WakeSignal,
}

pub(super) struct Net {
    pub(super) now: Nanos,
    pub(super) prng: Prng,
    pub(super) faults: Faults,
    pub(super) sockets: Vec<Socket>,
    pub(super) listening: Vec<Listening>,
    pub(super) ports: Vec<Port>,
    heap: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    port_next: u16,
}

impl Net {
    pub(super) fn new(seed: u64, faults: Faults) -> Net {
        Net {
            now: Nanos::from_millis(1000),
            prng: Prng::new(seed),
            faults,
            sockets: Vec::new(),
            listening: Vec::new(),
            ports: Vec::new(),
            heap: BinaryHeap::new(),
            order: 0,
            port_next: PORT_FIRST,
        }
    }

    fn schedule(&mut self, at: Nanos, event: Event) {
        self.order += 1;
        self.heap.push(Reverse(Scheduled { at, order: self.order, event }));
    }

    fn latency(&mut self) -> Nanos {
        let jitter = self.prng.below(self.faults.latency_jitter.0);
        self.faults.latency_min.saturating_add(Nanos(jitter))
    }

    /// When something sent from `from` now arrives, behind everything sent before.
    fn arrival(&mut self, from: SocketKey) -> Nanos {
        let at = self.now.saturating_add(self.latency()).max(self.sockets[from].arrival_last);
        self.sockets[from].arrival_last = at;
        at
    }

    /// A delay of the kind the faults ask for, at least a nanosecond.
    pub(super) fn delay(&mut self) -> Nanos {
        let span = self.prng.below(self.faults.delay_max.0);
        self.now.saturating_add(Nanos(span + 1))
    }

    pub(super) fn unused_port(&mut self) -> u16 {
        self.port_next = self.port_next.checked_add(1).unwrap_or(PORT_FIRST);
        self.port_next
    }

    fn socket(&mut self, holder: Holder, local: SocketAddr, remote: SocketAddr) -> SocketKey {
        self.sockets.push(Socket {
            holder,
            phase: Phase::Connecting,
            local,
            remote,
            other: None,
            inbox: VecDeque::new(),
            records: VecDeque::new(),
            on_its_way: 0,
            eof: false,
            write_shut: false,
            error: None,
            error_told: false,
            closed: false,
            wants_room: false,
            touched: false,
            arrival_last: Nanos(0),
        });
        self.sockets.len() - 1
    }

    /// Tells the holder of `at` to look at it.
    pub(super) fn touch(&mut self, at: SocketKey) {
        let socket = &mut self.sockets[at];
        let Holder::Port { port, .. } = socket.holder else { return };
        if !socket.touched && !socket.closed {
            socket.touched = true;
            self.ports[port].touched.push_back(at);
        }
    }

    pub(super) fn take_touched(&mut self, port: PortKey) -> Option<SocketKey> {
        let at = self.ports[port].touched.pop_front()?;
        self.sockets[at].touched = false;
        Some(at)
    }

    /// `holder` goes on with a socket: it is told of everything there is to tell, and nobody else is.
    pub(super) fn take_hold(&mut self, at: SocketKey, holder: Holder) {
        let before = std::mem::replace(&mut self.sockets[at].holder, holder);
        if before != holder {
            if let Holder::Port { port, .. } = before {
                self.ports[port].touched.retain(|touched| *touched != at);
            }
            self.sockets[at].touched = false;
            self.sockets[at].wants_room = false;
        }
        self.touch(at);
    }

    pub(super) fn look_later(&mut self, at: SocketKey, when: Nanos) {
        self.schedule(when, Event::Look { at });
    }

    pub(super) fn look_port_later(&mut self, port: PortKey, when: Nanos) {
        self.schedule(when, Event::LookPort { port });
    }

    // --- what ends do ---

    pub(super) fn listen(
        &mut self,
        addr: SocketAddr,
        port: Option<PortKey>,
        reuseport: bool,
        backlog_max: usize,
    ) -> Result<ListenKey, i32> {
        let mut addr = addr;
        if addr.port() == 0 {
            addr.set_port(self.unused_port());
        }
        let shared = |other: &Listening| other.reuseport && reuseport;
        if self.listening.iter().any(|l| l.open && l.addr == addr && !shared(l)) {
            return Err(libc::EADDRINUSE);
        }
        let (backlog, ports) = (VecDeque::new(), port.into_iter().collect());
        self.listening.push(Listening { addr, ports, reuseport, backlog, backlog_max, open: true });
        Ok(self.listening.len() - 1)
    }

    /// `port`, or the test, accepts no more from it. The last one's end is its own.
    pub(super) fn close_listener(&mut self, key: ListenKey, port: Option<PortKey>) {
        let ports = &mut self.listening[key].ports;
        if let Some(at) = ports.iter().position(|other| Some(*other) == port) {
            ports.swap_remove(at);
        }
        if !ports.is_empty() {
            return;
        }
        self.listening[key].open = false;
        while let Some(waiting) = self.listening[key].backlog.pop_front() {
            self.reset(waiting);
        }
    }

    /// A connection from `source`, or from an address of the network's choice.
    pub(super) fn connect(
        &mut self,
        source: Option<IpAddr>,
        remote: SocketAddr,
        holder: Holder,
    ) -> SocketKey {
        let ip = source.unwrap_or(match remote.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(127, 1, 0, 1)),
            other => other,
        });
        let local = SocketAddr::new(ip, self.unused_port());
        let client = self.socket(holder, local, remote);
        let at = self.arrival(client);
        self.schedule(at, Event::Syn { client });
        client
    }

    /// Room for bytes sent from `from`.
    pub(super) fn room(&self, from: SocketKey) -> usize {
        let socket = &self.sockets[from];
        let unread = match socket.other {
            Some(other) => self.sockets[other].inbox.len(),
            None => return 0,
        };
        self.faults.socket_buffer_bytes.saturating_sub(socket.on_its_way + unread)
    }

    /// Takes what fits of `bytes`; the errno of a broken connection otherwise.
    pub(super) fn send(&mut self, from: SocketKey, bytes: &[u8]) -> Result<usize, i32> {
        if self.sockets[from].error.is_some() {
            return Err(self.take_error(from).unwrap_or(libc::EPIPE));
        }
        if self.sockets[from].write_shut {
            return Err(libc::EPIPE);
        }
        let take = bytes.len().min(self.room(from));
        let Some(to) = self.sockets[from].other else { return Ok(0) };
        if take > 0 {
            let at = self.arrival(from);
            self.sockets[from].on_its_way += take;
            self.schedule(at, Event::Bytes { from, to, bytes: bytes[..take].to_vec() });
        }
        Ok(take)
    }

    /// Sends a TLS record that is not data, behind everything sent before. Takes no room: it is
    /// small, and seldom.
    pub(super) fn send_record(
        &mut self,
        from: SocketKey,
        record_type: u8,
        bytes: &[u8],
    ) -> Result<(), i32> {
        if self.sockets[from].error.is_some() {
            return Err(self.take_error(from).unwrap_or(libc::EPIPE));
        }
        let Some(to) = self.sockets[from].other.filter(|_| !self.sockets[from].write_shut) else {
            return Err(libc::EPIPE);
        };
        let at = self.arrival(from);
        self.schedule(at, Event::Record { to, record_type, bytes: bytes.to_vec() });
        Ok(())
    }

    /// What broke the connection, once.
    pub(super) fn take_error(&mut self, at: SocketKey) -> Option<i32> {
        let socket = &mut self.sockets[at];
        let told = std::mem::replace(&mut socket.error_told, socket.error.is_some());
        if told { None } else { socket.error }
    }

    /// Moves up to `out.len()` received bytes out of the inbox.
    pub(super) fn receive(&mut self, at: SocketKey, out: &mut [u8]) -> usize {
        let socket = &mut self.sockets[at];
        let count = out.len().min(socket.data_bytes());
        let (front, back) = socket.inbox.as_slices();
        let split = count.min(front.len());
        out[..split].copy_from_slice(&front[..split]);
        out[split..count].copy_from_slice(&back[..count - split]);
        socket.inbox.drain(..count);
        socket.records.iter_mut().for_each(|record| record.behind_bytes -= count);
        if count > 0
            && let Some(other) = socket.other
        {
            self.offer_room(other);
        }
        count
    }

    /// Wakes a sender that waits for room, once a third of the buffer is free, as kernels do.
    fn offer_room(&mut self, from: SocketKey) {
        let enough = self.faults.socket_buffer_bytes / 3;
        if self.sockets[from].wants_room && self.room(from) >= enough {
            self.touch(from);
        }
    }

    pub(super) fn shutdown_write(&mut self, from: SocketKey) {
        if self.sockets[from].write_shut || self.sockets[from].error.is_some() {
            return;
        }
        self.sockets[from].write_shut = true;
        if let Some(to) = self.sockets[from].other {
            let at = self.arrival(from);
            self.schedule(at, Event::Fin { to });
        }
    }

    /// The holder lets go: FIN, or a reset when it leaves bytes unread.
    pub(super) fn close(&mut self, from: SocketKey) {
        if self.sockets[from].closed {
            return;
        }
        if self.sockets[from].inbox.is_empty() && self.sockets[from].records.is_empty() {
            self.shutdown_write(from);
        } else {
            self.send_reset(from);
        }
        self.let_go(from);
    }

    /// The holder lets go and the other end sees a reset.
    pub(super) fn reset(&mut self, from: SocketKey) {
        if !self.sockets[from].closed {
            self.send_reset(from);
            self.let_go(from);
        }
    }

    fn let_go(&mut self, from: SocketKey) {
        let socket = &mut self.sockets[from];
        socket.closed = true;
        socket.holder = Holder::Nobody;
        socket.inbox = VecDeque::new();
        socket.records = VecDeque::new();
    }

    fn send_reset(&mut self, from: SocketKey) {
        if let Some(to) = self.sockets[from].other {
            let at = self.arrival(from);
            self.schedule(at, Event::Reset { to, errno: libc::ECONNRESET });
        }
    }

    /// This end breaks with `errno`; the other will see a reset.
    pub(super) fn break_here(&mut self, at: SocketKey, errno: i32) {
        self.send_reset(at);
        self.broken(at, errno);
    }

    // --- time ---

    /// Moves the clock to the next thing that happens, unless something is ready now. `false`:
    /// nothing is ready and nothing will ever happen by itself.
    pub(super) fn advance(&mut self) -> bool {
        if self.is_ready() {
            return true;
        }
        let arrival = self.heap.peek().map(|Reverse(scheduled)| scheduled.at);
        let deadline = self.ports.iter().filter_map(|port| port.deadline).min();
        let Some(next) = [arrival, deadline].into_iter().flatten().min() else { return false };
        self.move_to(next);
        true
    }

    fn is_ready(&self) -> bool {
        let port_ready =
            |port: &Port| port.ready || !port.touched.is_empty() || port.signal.is_woken();
        self.ports.iter().any(|port| port.open && port_ready(port))
    }

    /// Moves the clock to `at`, never back, and lets everything due happen.
    pub(super) fn move_to(&mut self, at: Nanos) {
        let at = at.max(self.now);
        while let Some(Reverse(next)) = self.heap.peek()
            && next.at <= at
        {
            let Some(Reverse(next)) = self.heap.pop() else { break };
            self.now = self.now.max(next.at);
            self.happen(next.event);
        }
        self.now = at;
        for port in &mut self.ports {
            if port.deadline.is_some_and(|deadline| deadline <= at) {
                port.deadline = None;
                port.ready = true;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Syn { client } => self.on_syn(client),
            Event::SynAnswer { client, result } => self.on_syn_answer(client, result),
            Event::Bytes { from, to, bytes } => self.on_bytes(from, to, &bytes),
            Event::Record { to, record_type, bytes } => {
                let socket = &mut self.sockets[to];
                if !socket.closed && socket.error.is_none() {
                    let behind_bytes = socket.inbox.len();
                    socket.records.push_back(Record { behind_bytes, record_type, bytes });
                }
                self.touch(to);
            }
            Event::Fin { to } => {
                if self.sockets[to].error.is_none() {
                    self.sockets[to].eof = true;
                }
                self.touch(to);
            }
            // TCP calls a reset behind the peer's FIN a broken pipe.
            Event::Reset { to, .. } if self.sockets[to].eof => self.broken(to, libc::EPIPE),
            Event::Reset { to, errno } => self.broken(to, errno),
            Event::Look { at } => self.touch(at),
            Event::LookPort { port } => self.ports[port].ready = true,
        }
    }

    fn broken(&mut self, at: SocketKey, errno: i32) {
        let socket = &mut self.sockets[at];
        if socket.closed || socket.error.is_some() {
            return;
        }
        socket.error = Some(errno);
        socket.inbox = VecDeque::new();
        socket.records = VecDeque::new();
        self.touch(at);
    }

    fn on_syn(&mut self, client: SocketKey) {
        if self.sockets[client].closed {
            return;
        }
        let (addr, peer) = (self.sockets[client].remote, self.sockets[client].local);
        let open: Vec<ListenKey> = (0..self.listening.len())
            .filter(|&key| self.listening[key].open && self.listening[key].takes(addr))
            .collect();
        if open.is_empty() {
            let at = self.arrival(client);
            let result = Err(libc::ECONNREFUSED);
            self.schedule(at, Event::SynAnswer { client, result });
            return;
        }
        let key = open[self.prng.index_below(open.len())];
        if self.listening[key].backlog.len() >= self.listening[key].backlog_max {
            let at = self.now.saturating_add(SYN_RETRY);
            self.schedule(at, Event::Syn { client });
            return;
        }
        let server = self.socket(Holder::Nobody, addr, peer);
        self.sockets[server].phase = Phase::Established;
        self.sockets[server].other = Some(client);
        let at = self.arrival(server);
        self.schedule(at, Event::SynAnswer { client, result: Ok(server) });
        self.listening[key].backlog.push_back(server);
        for &port in &self.listening[key].ports {
            self.ports[port].ready = true;
        }
    }

    fn on_syn_answer(&mut self, client: SocketKey, result: Result<SocketKey, i32>) {
        match result {
            Ok(server) if self.sockets[client].closed => {
                self.schedule(self.now, Event::Reset { to: server, errno: libc::ECONNRESET });
            }
            Ok(server) => {
                self.sockets[client].phase = Phase::Established;
                self.sockets[client].other = Some(server);
                if self.sockets[client].write_shut {
                    // Asked for before the connection stood.
                    let at = self.arrival(client);
                    self.schedule(at, Event::Fin { to: server });
                }
            }
            Err(errno) => self.sockets[client].phase = Phase::Refused(errno),
        }
        self.touch(client);
    }

    fn on_bytes(&mut self, from: SocketKey, to: SocketKey, bytes: &[u8]) {
        self.sockets[from].on_its_way -= bytes.len();
        if self.sockets[to].closed {
            // Nobody there any more: the sender learns it by a reset.
            let at = self.arrival(to);
            self.schedule(at, Event::Reset { to: from, errno: libc::ECONNRESET });
            return;
        }
        if self.sockets[to].error.is_some() {
            return;
        }
        if self.prng.chance(self.faults.reset_permille) {
            self.broken(to, libc::ECONNRESET);
            self.broken(from, libc::ECONNRESET);
            return;
        }
        self.sockets[to].inbox.extend(bytes);
        self.touch(to);
    }
}

impl Listening {
    /// Whether a request to `addr` comes here: same port, and same or any address.
    fn takes(&self, addr: SocketAddr) -> bool {
        let same_family = self.addr.is_ipv4() == addr.is_ipv4();
        self.addr.port() == addr.port()
            && same_family
            && (self.addr.ip() == addr.ip() || self.addr.ip().is_unspecified())
    }
}
