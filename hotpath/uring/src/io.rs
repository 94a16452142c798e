//! The one door to the kernel: what a worker may ask of a network, and what it is told.
//!
//! Three implementations answer to this trait: [`Uring`](crate::Uring), [`Epoll`](crate::Epoll) and
//! [`SimIo`](crate::sim::SimIo). A worker is generic over [`Io`], so the code that serves peers is
//! byte for byte the code that runs in the simulation. One shared test suite holds them together.
//!
//! Contract, the same for all three:
//!
//! - One thread. An `Io` and everything it hands out, [`Waker`] excepted, stays on its worker.
//! - [`Io::turn`] is the only call that blocks, and it does not block while work is at hand. All
//!   other calls note a wish and return; what came of it is a [`Completion`] of a later turn.
//! - Every completion names its connection by [`ConnId`]. After [`Io::close`] nothing more is
//!   delivered for that id: late completions are swallowed and counted here.
//! - A call with an id that is already closed does nothing and is counted in
//!   [`IoCounters::stale_calls`].
//! - Receiving is on from the start (from `Accepted`, or from `Connected` with `Ok`) until
//!   [`Io::pause_receive`], `ReceiveEnded` or `close`.
//! - At most one send is in flight per connection. Its buffer belongs to the `Io` until it comes
//!   back in `Sent` or `SendFailed`, or until the connection is closed.
//!
//! The life of a connection as its owner sees it:
//!
//! ```text
//!  Accepted ─────────────┐
//!                        ▼
//!  connect ─ Connected ─ open ── Received*  ── ReceiveEnded{Eof}    may still send
//!             │ Err       │                 └─ ReceiveEnded{Error}  close it
//!             ▼           │
//!           close         └── send ── Sent{blocked: false} ── send …
//!                                  ├─ Sent{blocked: true} ── Writable ── send …
//!                                  └─ SendFailed ── close
//! ```

use crate::probe::Features;
use crate::recv_pool::RecvBuf;
use crate::waker::Waker;
use stable_deref_trait::StableDeref;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;

/// Nanoseconds of the monotonic clock; in the simulation, of the virtual clock.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The instant (or span) of `ms` milliseconds; saturates.
    pub const fn from_millis(ms: u64) -> Nanos {
        Nanos(ms.saturating_mul(1_000_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// This instant moved by `span`; saturates at the end of time.
    pub const fn saturating_add(self, span: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(span.0))
    }

    /// The span from `earlier` to this instant; zero when `earlier` is later.
    pub const fn since(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Names one connection of one `Io`, for as long as it lives and never again.
///
/// `index` is a small dense number that is reused; `generation` tells the users of one index
/// apart, so an id kept too long can never reach somebody else's socket.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// The dense part of the id, below [`IoConfig::connections_max`]: fit to index a table.
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The part that tells successive users of one index apart.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// Names one listening socket of one `Io`.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListenerId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Bytes to send: a lease on shared memory, or an owned buffer that comes back for reuse.
pub enum SendBuf<L> {
    /// A right to read bytes somebody else owns; dropped when the send is over.
    Lease(L),
    /// Bytes of this connection alone; the allocation returns with the completion.
    Owned(Vec<u8>),
}

impl<L: Deref<Target = [u8]>> SendBuf<L> {
    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        match self {
            SendBuf::Lease(lease) => lease,
            SendBuf::Owned(bytes) => bytes,
        }
    }
}

impl<L> fmt::Debug for SendBuf<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendBuf::Lease(_) => f.write_str("Lease"),
            SendBuf::Owned(bytes) => write!(f, "Owned({} bytes)", bytes.len()),
        }
    }
}

/// Why no more bytes will be received on a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ReceiveEnd {
    /// The peer has sent everything it ever will; sending to it may still work.
    Eof,
    /// The connection broke; the errno says how (`ECONNRESET`, `ETIMEDOUT`, …).
    Error(i32),
}

/// What the world did since the last turn.
pub enum Completion<L> {
    /// A peer has connected; receiving is on.
    Accepted {
        /// The listener it came to.
        listener: ListenerId,
        /// The new connection.
        conn: ConnId,
        /// The other end.
        peer: SocketAddr,
        /// Our end, as the peer addressed it.
        local: SocketAddr,
    },
    /// [`Io::connect`] is decided. After an error the caller still owns `conn` and closes it.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Connected and receiving, or the errno.
        result: Result<(), i32>,
    },
    /// Bytes from the peer, never empty, in order.
    Received {
        /// The connection.
        conn: ConnId,
        /// The bytes; dropping the buffer returns it to the receive pool.
        data: RecvBuf,
    },
    /// Nothing more will be received. Delivered at most once per connection. A broken connection
    /// tells its error once: after `SendFailed` this may say `Eof`.
    ReceiveEnded {
        /// The connection.
        conn: ConnId,
        /// End of stream or error.
        reason: ReceiveEnd,
    },
    /// A send is over; another may follow.
    Sent {
        /// The connection.
        conn: ConnId,
        /// How many bytes of the buffer the kernel took: all of them unless `blocked`.
        bytes: usize,
        /// The socket took less than everything: `Writable` will follow, send the rest then.
        blocked: bool,
        /// The buffer of the call.
        buf: SendBuf<L>,
    },
    /// A send failed for good; the connection is of no more use and should be closed.
    SendFailed {
        /// The connection.
        conn: ConnId,
        /// `EPIPE`, `ECONNRESET`, …; never `EAGAIN`.
        errno: i32,
        /// The buffer of the call.
        buf: SendBuf<L>,
    },
    /// After `Sent { blocked: true }`: there is room again, or an error the next send will report.
    Writable {
        /// The connection.
        conn: ConnId,
    },
    /// Somebody called [`Waker::wake`] since the last turn; any number of calls is one `Woken`.
    Woken,
}

impl<L> Completion<L> {
    /// The connection this is about; `None` for `Woken`.
    pub fn conn(&self) -> Option<ConnId> {
        match self {
            Completion::Accepted { conn, .. }
            | Completion::Connected { conn, .. }
            | Completion::Received { conn, .. }
            | Completion::ReceiveEnded { conn, .. }
            | Completion::Sent { conn, .. }
            | Completion::SendFailed { conn, .. }
            | Completion::Writable { conn } => Some(*conn),
            Completion::Woken => None,
        }
    }
}

impl<L> fmt::Debug for Completion<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Completion::Accepted { listener, conn, peer, local } => f
                .debug_struct("Accepted")
                .field("listener", listener)
                .field("conn", conn)
                .field("peer", peer)
                .field("local", local)
                .finish(),
            Completion::Connected { conn, result } => {
                f.debug_struct("Connected").field("conn", conn).field("result", result).finish()
            }
            Completion::Received { conn, data } => {
                f.debug_struct("Received").field("conn", conn).field("bytes", &data.len()).finish()
            }
            Completion::ReceiveEnded { conn, reason } => {
                f.debug_struct("ReceiveEnded").field("conn", conn).field("reason", reason).finish()
            }
            Completion::Sent { conn, bytes, blocked, buf } => f
                .debug_struct("Sent")
                .field("conn", conn)
                .field("bytes", bytes)
                .field("blocked", blocked)
                .field("buf", buf)
                .finish(),
            Completion::SendFailed { conn, errno, buf } => f
                .debug_struct("SendFailed")
                .field("conn", conn)
                .field("errno", errno)
                .field("buf", buf)
                .finish(),
            Completion::Writable { conn } => {
                f.debug_struct("Writable").field("conn", conn).finish()
            }
            Completion::Woken => f.write_str("Woken"),
        }
    }
}

/// TCP settings of a connection, whether accepted or opened by us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketOptions {
    /// `TCP_NODELAY`: off would add up to 40 ms to every small command exchange.
    pub nodelay: bool,
    /// `TCP_NOTSENT_LOWAT`: bytes that may wait unsent in the kernel before the socket counts as
    /// full. 128 KiB holds a stalled peer's hidden backlog near 290 KB instead of several MB.
    pub notsent_lowat_bytes: Option<u32>,
    /// `SO_SNDBUF`; `None` leaves the kernel's automatic size.
    pub send_buffer_bytes: Option<u32>,
    /// `SO_RCVBUF`; `None` leaves the kernel's automatic size.
    pub receive_buffer_bytes: Option<u32>,
    /// `SO_KEEPALIVE` with this idle time, and a third of it between probes; `None` is off.
    pub keepalive_idle_s: Option<u32>,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged.
    pub user_timeout_ms: Option<u32>,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            nodelay: true,
            notsent_lowat_bytes: Some(128 * 1024),
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            keepalive_idle_s: Some(60),
            user_timeout_ms: Some(30_000),
        }
    }
}

/// How to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenOptions {
    /// Connections the kernel completes before we accept them (capped by `net.core.somaxconn`).
    pub backlog: u32,
    /// `SO_REUSEPORT`: several workers listen on one address and the kernel spreads peers.
    pub reuseport: bool,
    /// For an IPv6 address: refuse IPv4 peers in mapped form.
    pub v6only: bool,
    /// Settings of the accepted connections.
    pub socket: SocketOptions,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            backlog: 4096,
            reuseport: true,
            v6only: false,
            socket: SocketOptions::default(),
        }
    }
}

/// Sizes of one `Io`. Memory: `recv_buffers × recv_buffer_bytes` plus about 200 bytes per
/// connection ever open at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IoConfig {
    /// Submission queue entries, a power of two up to 32,768. More wishes than this in one turn
    /// cost an extra system call, nothing else.
    pub entries: u32,
    /// Receive buffers, a power of two up to 32,768. The kernel fills them for all connections.
    pub recv_buffers: u16,
    /// Bytes per receive buffer.
    pub recv_buffer_bytes: u32,
    /// Connections at once; a peer above that is closed as soon as it is accepted, and counted.
    pub connections_max: u32,
    /// Completions one turn hands out, at least 4; the rest waits for the next turn, which does not
    /// block.
    pub completions_per_turn_max: usize,
    /// io_uring: run task work only when this thread asks for it, where the kernel can (6.1). Off
    /// only to compare, or to test what older kernels get.
    pub defer_taskrun: bool,
    /// How long a listener rests after the process or the system ran out of descriptors.
    pub accept_backoff_ms: u32,
    /// Settings of the connections opened by [`Io::connect`].
    pub connect_socket: SocketOptions,
}

impl Default for IoConfig {
    fn default() -> IoConfig {
        IoConfig {
            entries: 1024,
            recv_buffers: 512,
            recv_buffer_bytes: 16 * 1024,
            connections_max: 1 << 20,
            completions_per_turn_max: 1024,
            defer_taskrun: true,
            accept_backoff_ms: 100,
            connect_socket: SocketOptions::default(),
        }
    }
}

/// Plain sums since the start of one `Io`; the worker publishes them.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct IoCounters {
    /// Calls of [`Io::turn`].
    pub turns: u64,
    /// System calls that enter the ring or wait for events.
    pub enters: u64,
    /// Completions handed to the worker.
    pub completions: u64,
    /// Peers accepted.
    pub accepted: u64,
    /// Accepts that failed, of any kind.
    pub accept_errors: u64,
    /// Times a listener was put to rest because descriptors or memory ran out.
    pub accept_backoffs: u64,
    /// Peers that had left before their address could be read (port probes).
    pub accept_gone: u64,
    /// Peers closed at once because `connections_max` was reached.
    pub accept_over_limit: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes copied once more because they came in during a pause.
    pub set_aside_bytes: u64,
    /// Receives that found no free buffer.
    pub receive_buffers_empty: u64,
    /// Receives armed again after they ended without the peer's doing.
    pub receive_rearmed: u64,
    /// Sends handed to the kernel.
    pub sends: u64,
    /// Bytes the kernel took from sends.
    pub sent_bytes: u64,
    /// Sends that came back short or found the socket full.
    pub sends_blocked: u64,
    /// Sends that failed for good.
    pub sends_failed: u64,
    /// Completions of closed connections, swallowed.
    pub stale_completions: u64,
    /// Calls with the id of a closed connection or listener, ignored.
    pub stale_calls: u64,
    /// Completions the kernel had to park because the completion queue was full.
    pub completion_overflows: u64,
    /// `Woken` completions.
    pub wakes: u64,
    /// Connections opened, by either side.
    pub opened: u64,
    /// Connections whose descriptor has been closed; `opened - closed` are held now.
    pub closed: u64,
}

/// How long a waiting turn may gather completions before it returns.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Batching {
    /// Completions that end the wait at once. 1 is no gathering.
    pub completions: u32,
    /// Longest delay of a completion that is alone.
    pub wait: Nanos,
}

impl Batching {
    /// Every completion ends the wait.
    pub const OFF: Batching = Batching { completions: 1, wait: Nanos(0) };
}

/// A network, driven by one thread in turns. See the module's contract.
pub trait Io {
    /// The memory a shared send reads from. Its address must not move with the handle, because the
    /// kernel reads from it while the handle sits in the operation table.
    type Lease: StableDeref<Target = [u8]> + 'static;

    /// The time, read once per turn, right after waiting. Monotonic.
    fn now(&self) -> Nanos;

    /// Listens on `addr` (port 0 lets the kernel choose) and starts to accept. Returns the address
    /// bound.
    ///
    /// # Errors
    /// The errno of socket, bind or listen, or of an option that must not fail.
    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)>;

    /// Stops accepting and frees the address. Peers not yet reported are closed.
    fn close_listener(&mut self, listener: ListenerId);

    /// Opens a connection; `Connected` tells the result.
    ///
    /// # Errors
    /// No descriptor to be had, or `connections_max` reached (`EMFILE`).
    fn connect(&mut self, addr: SocketAddr) -> io::Result<ConnId>;

    /// Sends `buf`, which must not be empty. Never waits for room: what does not fit is reported
    /// by `Sent { blocked: true }`. Trying again before `Writable` is allowed and most likely
    /// in vain; `Writable` may then come late, when nothing waits for it any more.
    ///
    /// # Panics
    /// When a send is already in flight on `conn`, or `buf` is empty: both are bugs of the caller.
    fn send(&mut self, conn: ConnId, buf: SendBuf<Self::Lease>);

    /// Delivers neither `Received` nor `ReceiveEnded` for `conn` until [`Io::resume_receive`]
    /// (completions already handed out excepted). The peer then feels the back-pressure of TCP.
    fn pause_receive(&mut self, conn: ConnId);

    /// Ends a pause; no effect without one.
    fn resume_receive(&mut self, conn: ConnId);

    /// Asks the kernel to acknowledge what has arrived now rather than with the next answer, and to
    /// go on so for a while (`TCP_QUICKACK`). A peer that leaves Nagle's algorithm on sends its
    /// next small command only after that acknowledgement, up to 40 ms later without it. One
    /// system call: for command exchanges, not for media.
    fn acknowledge_now(&mut self, conn: ConnId);

    /// Sends FIN after the send in flight, if any, has taken what fits. Receiving goes on.
    fn shutdown_write(&mut self, conn: ConnId);

    /// Ends the connection. A send made before it in the same turn still reaches the kernel.
    /// Nothing more is delivered for `conn`; buffers in flight are dropped by the `Io` when the
    /// kernel is done with them, and so is the descriptor.
    fn close(&mut self, conn: ConnId);

    /// Submits what was asked, waits until something is ready or `deadline` has passed (`None`:
    /// until something is ready or a waker calls), and appends what happened to `completions`.
    ///
    /// Does not wait when something is ready already. Appends at most
    /// [`IoConfig::completions_per_turn_max`], and `Woken`.
    ///
    /// # Errors
    /// Only what leaves the `Io` unusable; everything about one connection is a completion.
    fn turn(
        &mut self,
        deadline: Option<Nanos>,
        completions: &mut Vec<Completion<Self::Lease>>,
    ) -> io::Result<()>;

    /// Trades delay for fewer turns while many peers send: a hint, without effect on the order or
    /// the content of completions. An implementation that cannot gather ignores it.
    fn set_batching(&mut self, batching: Batching);

    /// A handle by which any thread can end a waiting turn.
    fn waker(&self) -> Waker;

    /// What the kernel granted, for the log line at start and for the host check.
    fn features(&self) -> &Features;

    /// The sums so far.
    fn counters(&self) -> &IoCounters;
}
