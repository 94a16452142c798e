//! The worker: one pinned thread, one `Io`, its own connections, and a share of the streams.
//!
//! The only file that knows all rooms of the data path. A turn:
//!
//! ```text
//! loop {
//!     io.turn(deadline)          // 1 the only blocking call
//!     for completion { .. }      // 2 bytes → session → publisher | command (ingest.rs)
//!     commands                   // 3 what the control thread asks (inspect.rs)
//!     serve_streams              // 4 heads seen, ends, joins, flush passes (fanout.rs)
//!     sweep                      // 5 deadlines, lag, grace (sweep.rs)
//! }
//! ```
//!
//! Every step is bounded: completions per turn by the `Io`, sends per turn by `SENDS_PER_TURN_MAX`
//! for those who follow the head and a quarter of that for those who catch up (fewer while somebody
//! comes), the sweep by its share of the table. No lock, no await and no log line per message. The worker
//! is generic over [`Io`] and reads no clock of its own, so the simulation runs this very code.

mod access;
mod budget;
mod burial;
mod claim;
mod drain;
mod fanout;
mod hand_over;
mod hls;
mod http;
mod ingest;
mod inspect;
mod output;
mod settings;
mod spare;
mod stream;
mod sweep;
mod transport;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use live::path::StreamPath;
use ring::Arena;
use rtmp::Millis;
use slab::Slab;
use uring::{Completion, Io, ListenOptions, ListenerId, Nanos, ReceiveEnd};

use crate::access::Rules;
use crate::command::{ConnectionId, Event, WorkerPort};
use crate::config::Config;
use crate::connection::Connection;
use crate::framing::FramingKind;
use crate::front::FIRST_BYTES;
use crate::hand_over::record::Door;
use crate::log::RepeatLimit;
use crate::metrics::{CloseReason, LimitReached, Role};
use crate::shared::{Shared, TooMany};
use crate::transport::Transport;

use hand_over::Standstill;
use settings::Settings;
use spare::SpareBuffers;

pub use crate::transport::Secure;
pub use burial::Remains;
pub use hand_over::Export;
pub(crate) use settings::VhostRules;
use stream::LocalStream;

/// Sends handed to the kernel in one turn, so that ingest is served in between.
pub(crate) const SENDS_PER_TURN_MAX: usize = 128;
/// Distance of two sweep steps, in milliseconds. The longest time, too, between two looks at the heads of
/// streams with subscribers here: news come by the publisher's bytes or by a wake-up, and flush timers
/// set earlier ticks.
const SWEEP_MS: u64 = 50;
/// Sweep steps in which the whole connection table is visited once.
const SWEEP_STEPS: usize = 20;
/// Longest sleep of a worker with nothing to do, in milliseconds; its turns are its heartbeat.
const IDLE_MS_MAX: u64 = 500;
/// Log lines per second and worker about skips, and about errors of peers; the counters tell the rest.
const LINES_PER_SECOND_MAX: u32 = 20;
/// Segment buffers a worker keeps for reuse at least; one per stream when it has more.
const ARENA_SEGMENTS_CACHED_MAX: usize = 64;

/// What the loop is to do after a turn.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// The worker was told to stop and has closed everything.
    Stopped,
}

/// Clocks besides that of the `Io`.
#[derive(Copy, Clone, Debug)]
pub struct Clocks {
    /// CPU time consumed by the worker's thread, in nanoseconds: for the busy ratio.
    pub cpu_nanos: fn() -> u64,
    /// Unix time in seconds: for addresses and tickets that expire.
    pub unix_s: fn() -> u64,
}

/// A listener, and how connections that come in by it are read at first.
#[derive(Copy, Clone, Debug)]
struct Entrance {
    door: Door,
    listener: ListenerId,
    reads_by_record: bool,
    serves_http: bool,
}

/// How a listener is used.
#[derive(Copy, Clone, Debug, Default)]
pub struct EntranceUse {
    /// What it is for.
    pub door: Door,
    /// TLS is expected: first bytes and handshakes are read so that the kernel can take the keys.
    pub reads_by_record: bool,
    /// HTTP is served here, besides RTMP.
    pub serves_http: bool,
}

impl EntranceUse {
    fn options(self, options: &ListenOptions) -> ListenOptions {
        let first = u32::try_from(FIRST_BYTES).ok();
        let first_receive_bytes_max = if self.reads_by_record { first } else { None };
        ListenOptions { first_receive_bytes_max, ..options.clone() }
    }
}

impl Entrance {
    fn new(listener: ListenerId, usage: EntranceUse) -> Self {
        let EntranceUse { door, reads_by_record, serves_http } = usage;
        Self { door, listener, reads_by_record, serves_http }
    }
}

/// One worker. `I` is the kernel's network or the simulated one.
pub struct Worker<I: Io<Lease = ring::Lease>> {
    index: u16,
    io: I,
    port: WorkerPort,
    shared: Arc<Shared>,
    settings: Settings,
    /// Who may publish and play.
    rules: Arc<Rules>,
    /// Mark of the last question handed over.
    tickets: u64,
    clocks: Clocks,
    arena: Arena,
    listeners: Vec<Entrance>,
    /// Certificates and keys; `None` when TLS is not served.
    secure: Option<Arc<Secure>>,
    /// What a TLS session has opened, for the time of one call.
    plain: Vec<u8>,
    /// Indexed by `ConnId::index`.
    connections: Vec<Option<Box<Connection>>>,
    open_count: usize,
    /// Serial number of the last connection.
    serial: u64,
    by_serial: HashMap<u64, usize>,
    streams: Slab<LocalStream>,
    by_path: HashMap<(StreamPath, FramingKind), usize>,
    /// Framings that were passed on beside another of their kind, which goes on with the viewers it has.
    unlisted: Vec<usize>,
    /// Streams with subscribers here: looked at on every tick.
    watched: Vec<usize>,
    /// Streams written to in this turn.
    dirty: Vec<usize>,
    /// Streams whose flush pass is not finished.
    passes: Vec<usize>,
    /// Bytes handed to sockets in this round of sends.
    handed_bytes: usize,
    /// Connections that have more to take than the news of a turn, in order.
    catching_up: VecDeque<usize>,
    /// Connections that were found to have fallen out of a ring.
    overruns: Vec<usize>,
    /// Connections whose request over HTTP waits for what is still to come.
    views_waiting: Vec<usize>,
    /// When they are looked at next.
    views_at: Millis,
    /// The date of heads, and the Unix second it is of.
    date: (u64, String),
    /// Connections with a pending publish.
    claims: Vec<usize>,
    /// Requests for takeovers this worker has looked at.
    takeovers_seen: u64,
    now: Millis,
    now_nanos: Nanos,
    /// When a flush timer is over.
    tick_at: Millis,
    sweep_at: Millis,
    sweep_step: usize,
    random: u64,
    spare: SpareBuffers,
    completions: Vec<Completion<ring::Lease>>,
    load: sweep::Load,
    /// Messages published since the last sweep step, and in the step before it.
    messages: u32,
    messages_before: u32,
    /// Until when somebody who has come may send commands.
    arrival_until: Millis,
    skip_lines: RepeatLimit,
    error_lines: RepeatLimit,
    /// TLS handshakes begun in this second.
    tls_handshakes: RepeatLimit,
    /// What streams may hold, as of the last sweep step.
    room: budget::Room,
    drain: Option<drain::Drain>,
    drained: bool,
    stopping: bool,
    standstill: Standstill,
    /// Connections told of by an export, in order of their index, until it is known what became of it.
    exported: Option<Vec<usize>>,
    /// Framings another process has passed on, until the streams' own rings are there.
    passed_framings: Vec<hand_over::PassedFraming>,
}

impl<I: Io<Lease = ring::Lease>> std::fmt::Debug for Worker<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .field("connections", &self.open_count)
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// A worker without listeners. `random` seeds handshakes.
    pub fn new(
        io: I,
        port: WorkerPort,
        shared: Arc<Shared>,
        config: Arc<Config>,
        rules: Arc<Rules>,
        random: u64,
        clocks: Clocks,
    ) -> Self {
        let settings = Settings::new(config);
        let now_nanos = io.now();
        let now = Millis(now_nanos.as_millis());
        Self {
            index: port.index(),
            io,
            port,
            shared,
            arena: Arena::new(&settings.ring_config(), ARENA_SEGMENTS_CACHED_MAX),
            settings,
            listeners: Vec::new(),
            secure: None,
            plain: Vec::new(),
            connections: Vec::new(),
            open_count: 0,
            serial: 0,
            by_serial: HashMap::new(),
            streams: Slab::new(),
            by_path: HashMap::new(),
            unlisted: Vec::new(),
            watched: Vec::new(),
            dirty: Vec::new(),
            passes: Vec::new(),
            handed_bytes: 0,
            catching_up: VecDeque::new(),
            overruns: Vec::new(),
            views_waiting: Vec::new(),
            views_at: now,
            date: (0, httpdate::fmt_http_date(std::time::SystemTime::UNIX_EPOCH)),
            claims: Vec::new(),
            takeovers_seen: 0,
            now,
            now_nanos,
            tick_at: now,
            sweep_at: now,
            sweep_step: 0,
            random,
            spare: SpareBuffers::default(),
            completions: Vec::new(),
            load: sweep::Load::new(clocks.cpu_nanos),
            rules,
            tickets: 0,
            clocks,
            messages: 0,
            messages_before: 0,
            arrival_until: now,
            skip_lines: RepeatLimit::new(LINES_PER_SECOND_MAX),
            error_lines: RepeatLimit::new(LINES_PER_SECOND_MAX),
            tls_handshakes: RepeatLimit::new(0),
            room: budget::Room::default(),
            drain: None,
            drained: false,
            stopping: false,
            standstill: Standstill::Off,
            exported: None,
            passed_framings: Vec::new(),
        }
    }

    /// Serves TLS with these certificates from now on.
    pub fn set_secure(&mut self, secure: Arc<Secure>) {
        self.secure = Some(secure);
    }

    /// Listens on `addr`; port 0 lets the kernel choose. Returns the address bound. Every listener takes
    /// RTMP and, when there are certificates, TLS.
    ///
    /// # Errors
    /// What the kernel says to socket, bind or listen.
    pub fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
        usage: EntranceUse,
    ) -> io::Result<SocketAddr> {
        let (listener, bound) = self.io.listen(addr, &usage.options(options))?;
        self.listeners.push(Entrance::new(listener, usage));
        Ok(bound)
    }

    /// Listens on a socket that was passed to this process, like [`Worker::listen`].
    ///
    /// # Errors
    /// It is no TCP socket, or what the kernel says to listen.
    pub fn listen_on(
        &mut self,
        socket: OwnedFd,
        options: &ListenOptions,
        usage: EntranceUse,
    ) -> io::Result<SocketAddr> {
        let (listener, bound) = self.io.listen_on(socket, &usage.options(options))?;
        self.listeners.push(Entrance::new(listener, usage));
        Ok(bound)
    }

    /// Numbers connections after `serial`: the worker before this one has used those up to it.
    pub fn set_serial(&mut self, serial: u64) {
        self.serial = serial;
    }

    /// The worker's `Io`, for its features and counters.
    pub fn io(&self) -> &I {
        &self.io
    }

    /// One turn of the loop.
    ///
    /// # Errors
    /// Only what makes the worker unable to go on: its `Io` failed as a whole.
    pub fn turn(&mut self) -> io::Result<Flow> {
        let deadline = self.next_deadline();
        self.io.turn(Some(deadline), &mut self.completions)?;
        self.now_nanos = self.io.now();
        self.now = Millis(self.now_nanos.as_millis());
        self.port.metrics().turns.increment();

        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.on_completion(completion);
        }
        self.completions = completions;
        while let Some(command) = self.port.take_command() {
            self.on_command(command);
        }
        if self.is_still() {
            self.stand_still();
        } else {
            self.serve_streams();
            self.sweep();
        }
        if self.stopping && self.open_count == 0 {
            self.port.report(Event::Stopped { worker: self.index });
            return Ok(Flow::Stopped);
        }
        Ok(Flow::Continue)
    }

    /// Checks what must hold between turns. For debug builds and the simulation.
    ///
    /// # Panics
    /// If an invariant is broken: our bug.
    pub fn check_invariants(&self) {
        let open = self.connections.iter().flatten().count();
        assert_eq!(open, self.open_count, "connections counted = connections open");
        for (index, stream) in &self.streams {
            let key = (stream.entry.path().clone(), stream.framing);
            assert!(
                stream.pass.is_none() || self.passes.contains(&index),
                "a pass that is not finished is gone on with"
            );
            let is_second = self.unlisted.contains(&index);
            let is_listed = (self.by_path.get(&key) == Some(&index)) != is_second;
            assert!(is_listed || stream.entry.is_retired(), "path index");
            assert_eq!(
                self.watched.contains(&index),
                !stream.players.is_empty(),
                "a stream is watched exactly while it has subscribers here"
            );
            let mut waiting = 0;
            for (slot, player) in stream.players.iter().enumerate() {
                let connection = self.connections.get(player.conn).and_then(Option::as_deref);
                let connection = connection.expect("a player's connection exists");
                let play = connection.play(player.msid);
                let play = play.expect("a player's play exists");
                assert_eq!((play.stream, play.slot), (index, slot), "player and play agree");
                waiting += usize::from(play.subscriber.is_waiting());
            }
            assert_eq!(waiting, stream.waiting, "waiting subscribers counted");
            if let Some(publisher) = &stream.publisher {
                let connection = self.connections.get(publisher.conn).and_then(Option::as_deref);
                let connection = connection.expect("a publisher's connection exists");
                assert!(
                    connection.publishes.iter().any(|publish| publish.stream == index),
                    "a publisher's connection knows that it publishes"
                );
            }
            let is_passed = self.passed_framings.iter().any(|framing| framing.stream == index);
            assert!(
                stream.is_needed() || stream.is_dirty || is_passed,
                "no stream is kept without a reason, but for the turn that ends it"
            );
        }
    }

    fn next_deadline(&self) -> Nanos {
        if let Some(at) = self.still_deadline() {
            return at;
        }
        let has_work =
            !self.passes.is_empty() || !self.catching_up.is_empty() || !self.overruns.is_empty();
        if has_work || !self.dirty.is_empty() {
            return self.now_nanos;
        }
        let mut at = self.now.0 + IDLE_MS_MAX;
        if self.open_count > 0 || !self.streams.is_empty() {
            at = at.min(self.sweep_at.0);
        }
        if !self.views_waiting.is_empty() {
            at = at.min(self.views_at.0);
        }
        if !self.watched.is_empty() || !self.claims.is_empty() {
            at = at.min(self.tick_at.0);
        }
        Nanos::from_millis(at)
    }

    fn on_completion(&mut self, completion: Completion<ring::Lease>) {
        match completion {
            Completion::Accepted { conn, peer, local: _, listener } => {
                self.on_accept(listener, conn, peer);
            }
            Completion::Received { conn, data } => self.on_received(conn.index(), &data),
            Completion::ReceiveEnded { conn, reason } => {
                self.on_receive_ended(conn.index(), reason);
            }
            Completion::Sent { conn, bytes, blocked, buf } => {
                self.on_sent(conn.index(), bytes, blocked, buf);
            }
            Completion::SendFailed { conn, .. } => {
                self.abandon(conn.index(), CloseReason::PeerLost);
            }
            Completion::Writable { conn } => self.on_writable(conn.index()),
            Completion::Woken => self.tick_at = self.now,
            Completion::Connected { conn, .. } => self.io.close(conn),
            Completion::TlsRecord { conn, record_type, bytes } => {
                self.on_tls_record(conn.index(), record_type, &bytes);
            }
        }
    }

    fn on_accept(&mut self, listener: ListenerId, conn: uring::ConnId, peer: SocketAddr) {
        self.port.metrics().connections_accepted.increment();
        let limits = self.settings.limits();
        // Whom a proxy speaks for is known later, and the limit is that client's.
        let per_address_max = match self.settings.trusts_proxy(peer.ip()) {
            true => 0,
            false => limits.connections_per_address_max,
        };
        let refused = if self.drain.is_some() || self.stopping {
            Some(CloseReason::Drained)
        } else {
            let addresses = &self.shared.addresses;
            let admitted = addresses.admit(peer.ip(), limits.connections_max, per_address_max);
            admitted.err().map(|too_many| self.note_too_many(too_many))
        };
        if let Some(reason) = refused {
            self.port.metrics().disconnects.of(Role::Undecided, reason).increment();
            self.io.close(conn);
            return;
        }
        self.serial += 1;
        let id = ConnectionId { worker: self.index, serial: self.serial };
        let mut connection = Connection::new(conn, id, peer, self.opening(peer), self.now);
        if let Some(entrance) = self.listeners.iter().find(|e| e.listener == listener) {
            connection.is_read_by_record = entrance.reads_by_record;
            connection.may_speak_http = entrance.serves_http;
        }
        self.seat(conn, connection);
        self.expect_commands();
    }

    fn note_too_many(&self, too_many: TooMany) -> CloseReason {
        self.note_limit(match too_many {
            TooMany::Connections => LimitReached::Connections,
            TooMany::OfAddress => LimitReached::ConnectionsPerAddress,
        });
        CloseReason::ConnectionLimit
    }

    /// Counts that a limit was reached.
    fn note_limit(&self, limit: LimitReached) {
        self.port.metrics().limits_reached.of(limit).increment();
    }

    fn on_receive_ended(&mut self, index: usize, reason: ReceiveEnd) {
        let Some(connection) = self.connection(index) else { return };
        connection.receive_ended = true;
        // Nobody but a balancer itself has been here, to see whether we are.
        let is_check =
            matches!(connection.transport, Transport::Opening(_)) && connection.proxy.is_none();
        let quiet = connection.bytes_in == 0 || is_check;
        let is_publishing = !connection.publishes.is_empty();
        if connection.closing.is_some() {
            self.remove(index);
            return;
        }
        let close_reason = match reason {
            _ if quiet => CloseReason::Probe,
            ReceiveEnd::Eof if !is_publishing => CloseReason::PeerClosed,
            ReceiveEnd::Eof | ReceiveEnd::Error(_) => CloseReason::PeerLost,
        };
        self.abandon(index, close_reason);
    }

    fn connection(&mut self, index: usize) -> Option<&mut Connection> {
        self.connections.get_mut(index).and_then(Option::as_deref_mut)
    }

    /// splitmix64: distinct handshake randoms from one seed, reproducible in the simulation.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
