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
//!   [`Io::pause_receive`], `ReceiveEnded` or `close`. A connection that begins with a bounded
//!   receive takes that one, and then receiving rests: see the second picture.
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
//!
//! How it receives. While receiving rests, nothing is taken from the kernel: what the peer sends
//! stays there, byte for byte, and so do its end and its errors. That is what a TLS handshake needs
//! whose keys go to the kernel afterwards.
//!
//! ```text
//!   accepted, connected                    accepted, connected with a first bound
//!        │                                      │
//!        ▼            resume_receive            ▼          receive_once
//!    streaming ◄───────────────── resting ◄── bounded ◄───────────────── resting
//!        └── TlsRecord ──────────────▲            Received
//! ```
//!
//! A pause holds back what streaming or a bounded receive would deliver, and its end goes on where
//! it began; where receiving rests there is nothing to pause.

use crate::config::{Batching, IoCounters, ListenOptions};
use crate::probe::Features;
use crate::recv_pool::RecvBuf;
use crate::shared_bytes::SharedBytes;
use crate::waker::Waker;
use stable_deref_trait::StableDeref;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};

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
    /// The dense part of the id, below
    /// [`IoConfig::connections_max`](crate::IoConfig::connections_max): fit to index a table.
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
    /// Bytes many connections send that are no ring's: segments and playlists. Those that lie in a
    /// [`MemFile`](crate::MemFile) are not copied into the kernel, where it is not the one to encrypt them.
    Shared(SharedBytes),
}

impl<L: Deref<Target = [u8]>> SendBuf<L> {
    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        match self {
            SendBuf::Lease(lease) => lease,
            SendBuf::Owned(bytes) => bytes,
            SendBuf::Shared(bytes) => bytes,
        }
    }

    /// The file the bytes lie in, and where they begin there.
    pub(crate) fn in_file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        match self {
            SendBuf::Shared(bytes) => bytes.in_file(),
            SendBuf::Lease(_) | SendBuf::Owned(_) => None,
        }
    }
}

impl<L> fmt::Debug for SendBuf<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendBuf::Lease(_) => f.write_str("Lease"),
            SendBuf::Owned(bytes) => write!(f, "Owned({} bytes)", bytes.len()),
            SendBuf::Shared(bytes) => write!(f, "Shared({} bytes)", bytes.len()),
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

/// One direction of a connection, as the owner of the keys sees it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TlsDirection {
    /// What we send: `TLS_TX`.
    Send,
    /// What we receive: `TLS_RX`.
    Receive,
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
    /// A TLS record that is not application data has arrived on a connection whose keys the kernel
    /// holds, in order with the bytes around it. Receiving rests from here on.
    TlsRecord {
        /// The connection.
        conn: ConnId,
        /// The content type: 21 alert, 22 handshake.
        record_type: u8,
        /// The decrypted content, at most 16 KiB.
        bytes: Vec<u8>,
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
            | Completion::TlsRecord { conn, .. }
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
            Completion::TlsRecord { conn, record_type, bytes } => f
                .debug_struct("TlsRecord")
                .field("conn", conn)
                .field("record_type", record_type)
                .field("bytes", &bytes.len())
                .finish(),
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

    /// Listens on a socket that somebody else has bound: a service manager, or the process before this
    /// one. Whoever shares it shares its queue of peers. Options that a bound socket can still take are set.
    /// Returns its address.
    ///
    /// # Errors
    /// `EINVAL`: not a TCP socket of this family. The errno of listen or of an option.
    fn listen_on(
        &mut self,
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)>;

    /// Stops accepting and frees the address. Peers not yet reported are closed.
    fn close_listener(&mut self, listener: ListenerId);

    /// Opens a connection from any address of ours, and streams from the start: the short form of
    /// [`Io::connect_from`].
    ///
    /// # Errors
    /// As there.
    fn connect(&mut self, addr: SocketAddr) -> io::Result<ConnId> {
        self.connect_from(None, addr, None)
    }

    /// Opens a connection; `Connected` tells the result. The port of `source` is chosen only when
    /// the destination is known (`IP_BIND_ADDRESS_NO_PORT`), so one source address carries as many
    /// connections to each destination as there are ports. `first_receive_bytes_max` (not 0) is that
    /// of [`ListenOptions`].
    ///
    /// # Errors
    /// No descriptor to be had, or `connections_max` reached (`EMFILE`); `source` is no address of
    /// this host (`EADDRNOTAVAIL`) or not of the family of `addr` (`EINVAL`, `EAFNOSUPPORT`).
    fn connect_from(
        &mut self,
        source: Option<IpAddr>,
        addr: SocketAddr,
        first_receive_bytes_max: Option<u32>,
    ) -> io::Result<ConnId>;

    /// Sends `buf`, which must not be empty. Never waits for room: what does not fit is reported
    /// by `Sent { blocked: true }`. Trying again before `Writable` is allowed and most likely
    /// in vain; `Writable` may then come late, when nothing waits for it any more.
    ///
    /// # Panics
    /// When a send is already in flight on `conn`, or `buf` is empty: both are bugs of the caller.
    fn send(&mut self, conn: ConnId, buf: SendBuf<Self::Lease>);

    /// [`Io::send`] of bytes that others follow at once: the kernel may keep back those that fill no packet,
    /// for up to 200 ms, and send them with what follows (`MSG_MORE`). It saves a packet, and the peer a
    /// wake-up for it. The simulation keeps nothing back.
    ///
    /// # Panics
    /// As [`Io::send`].
    fn send_more(&mut self, conn: ConnId, buf: SendBuf<Self::Lease>);

    /// Delivers neither `Received` nor `ReceiveEnded` nor `TlsRecord` for `conn` until
    /// [`Io::resume_receive`] (completions already handed out excepted). The peer then feels the
    /// back-pressure of TCP. No effect where receiving rests.
    fn pause_receive(&mut self, conn: ConnId);

    /// Ends a pause, or goes from resting to streaming; no effect otherwise.
    fn resume_receive(&mut self, conn: ConnId);

    /// One `Received` of 1 to `bytes_max` bytes (and to the size of a receive buffer), or
    /// `ReceiveEnded`, or `TlsRecord`; then receiving rests again. Takes not a byte more from the
    /// kernel.
    ///
    /// Only where receiving rests; elsewhere the call is a bug of the caller, ignored and counted
    /// in [`IoCounters::stale_calls`]. No effect after `ReceiveEnded`.
    ///
    /// # Panics
    /// When `bytes_max` is 0; with debug assertions, when receiving does not rest.
    fn receive_once(&mut self, conn: ConnId, bytes_max: u32);

    /// Prepares `conn` for keys in the kernel (`TCP_ULP` "tls"). Until they are set, bytes pass as
    /// they are. A small system call; where the kernel has no TLS it may look for a module each
    /// time, so ask [`probe_kernel_tls`](crate::probe_kernel_tls) first, once.
    ///
    /// # Errors
    /// `ENOENT`: no TLS in this kernel; the connection goes on as before. `ENOTCONN`: the peer has
    /// left already. `EEXIST`: attached before. `EALREADY`: receiving does not rest, or a send is
    /// in flight. `EBADF`: `conn` is closed (counted as a stale call).
    fn attach_tls(&mut self, conn: ConnId) -> io::Result<()>;

    /// Gives the kernel the keys of one direction: a `struct tls12_crypto_info_…` of linux/tls.h,
    /// which this call reads and keeps no copy of. From then on `send` takes, and `Received` brings,
    /// application data. A second call for the same direction is a rekey.
    ///
    /// # Errors
    /// `EBUSY`: this kernel cannot rekey (before 6.14). `EINVAL`, `ENOPROTOOPT`: cipher or version
    /// unknown to it, or not attached. `EALREADY`: keys to receive while receiving goes on, keys to
    /// send while a send is in flight. `EBADF`: `conn` is closed (counted as a stale call).
    fn set_tls_keys(
        &mut self,
        conn: ConnId,
        direction: TlsDirection,
        crypto_info: &[u8],
    ) -> io::Result<()>;

    /// Sends one record of another type than application data, `bytes` (1 to 16 KiB) encrypted by
    /// the kernel under the current key: an alert, a key update. Does not wait for room.
    ///
    /// # Errors
    /// `EAGAIN`: no room, nothing was sent. `EIO`: only a part was sent, close the connection.
    /// `EINVAL`: no keys to send, or not 1 to 16 KiB. `EALREADY`: a send is in flight. `EBADF`:
    /// `conn` is closed (counted as a stale call). Else what broke the connection.
    fn send_tls_record(&mut self, conn: ConnId, record_type: u8, bytes: &[u8]) -> io::Result<()>;

    /// Asks the kernel to acknowledge what has arrived now rather than with the next answer, and to
    /// go on so for a while (`TCP_QUICKACK`). A peer that leaves Nagle's algorithm on sends its
    /// next small command only after that acknowledgement, up to 40 ms later without it. One
    /// system call: for command exchanges, not for media.
    fn acknowledge_now(&mut self, conn: ConnId);

    /// How many unsent bytes the kernel takes for `conn` before the socket counts as full
    /// (`TCP_NOTSENT_LOWAT`, at least 1); until then that of [`ListenOptions`]. A small bound keeps a
    /// follower of a live stream close to it, a large one takes a whole file in few sends; the size of the
    /// send buffer bounds both. One system call. The simulation has no such bound, and does nothing.
    fn set_unsent_max(&mut self, conn: ConnId, bytes_max: u32);

    /// Sends FIN after the send in flight, if any, has taken what fits. Receiving goes on.
    fn shutdown_write(&mut self, conn: ConnId);

    /// Ends the connection. A send made before it in the same turn still reaches the kernel.
    /// Nothing more is delivered for `conn`; buffers in flight are dropped by the `Io` when the
    /// kernel is done with them, and so is the descriptor.
    fn close(&mut self, conn: ConnId);

    /// Takes nothing more from the kernel, neither bytes nor peers, until [`Io::thaw`]: what comes stays
    /// there, for whoever reads the sockets next. What is on its way is still delivered. Say it again in
    /// each turn until [`Io::is_frozen`]: a cancellation may lose its race.
    fn freeze(&mut self);

    /// True once nothing is on its way any more after [`Io::freeze`], sends included.
    fn is_frozen(&mut self) -> bool;

    /// Goes on where [`Io::freeze`] stopped.
    fn thaw(&mut self);

    /// Another descriptor of a connection's socket, for another process. Only while frozen.
    ///
    /// # Errors
    /// No descriptor to be had; `EBADF`: `conn` is closed.
    fn duplicate(&mut self, conn: ConnId) -> io::Result<OwnedFd>;

    /// Another descriptor of a listener's socket. Only while frozen.
    ///
    /// # Errors
    /// As [`Io::duplicate`].
    fn duplicate_listener(&mut self, listener: ListenerId) -> io::Result<OwnedFd>;

    /// Takes a connected socket in, which receives as an accepted one would. Keys it has in the kernel go on
    /// being used, in both directions. Only while frozen.
    ///
    /// # Errors
    /// The descriptor is no connected TCP socket: `ENOTCONN` for one whose peer has broken the connection
    /// meanwhile. `connections_max` is reached (`EMFILE`).
    fn adopt(
        &mut self,
        socket: OwnedFd,
        first_receive_bytes_max: Option<u32>,
    ) -> io::Result<ConnId>;

    /// Lets go of a connection that somebody else goes on with: like [`Io::close`], but nothing is done to
    /// the socket itself. Only while frozen.
    fn release(&mut self, conn: ConnId);

    /// Lets go of a listener that somebody else goes on with. Only while frozen.
    fn release_listener(&mut self, listener: ListenerId);

    /// Submits what was asked, waits until something is ready or `deadline` has passed (`None`:
    /// until something is ready or a waker calls), and appends what happened to `completions`.
    ///
    /// Does not wait when something is ready already. Appends at most
    /// [`IoConfig::completions_per_turn_max`](crate::IoConfig::completions_per_turn_max), and `Woken`.
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
