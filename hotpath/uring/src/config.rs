//! What an `Io` is told at its start, and what it counts: options, sizes, sums.
//!
//! Plain values, the same for all implementations. Who cannot use one says so at the field.

use crate::io::Nanos;

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
    /// `Some(n)`: an accepted connection receives at most `n` bytes (not 0) once, and then receiving
    /// rests until it is asked for. `None`: it receives without end from the start.
    pub first_receive_bytes_max: Option<u32>,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            backlog: 4096,
            reuseport: true,
            v6only: false,
            socket: SocketOptions::default(),
            first_receive_bytes_max: None,
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
    /// block. The first turn takes memory for all of them.
    pub completions_per_turn_max: usize,
    /// io_uring: run task work only when this thread asks for it, where the kernel can (6.1). Off
    /// only to compare, or to test what older kernels get.
    pub defer_taskrun: bool,
    /// How long a listener rests after the process or the system ran out of descriptors.
    pub accept_backoff_ms: u32,
    /// Settings of the connections opened by [`Io::connect`](crate::Io::connect).
    pub connect_socket: SocketOptions,
    /// The simulated network: whether [`Io::attach_tls`](crate::Io::attach_tls) is granted. The
    /// other implementations ask the kernel.
    pub kernel_tls: bool,
}

impl Default for IoConfig {
    fn default() -> IoConfig {
        IoConfig {
            entries: 1024,
            recv_buffers: 512,
            recv_buffer_bytes: 16 * 1024,
            connections_max: 1 << 20,
            completions_per_turn_max: 256,
            defer_taskrun: true,
            accept_backoff_ms: 100,
            connect_socket: SocketOptions::default(),
            kernel_tls: false,
        }
    }
}

/// Plain sums since the start of one `Io`; the worker publishes them.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct IoCounters {
    /// Calls of [`Io::turn`](crate::Io::turn).
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
    /// Bounded receives that brought bytes.
    pub receive_once: u64,
    /// TLS control records received: `TlsRecord` completions.
    pub tls_records: u64,
    /// Sends handed to the kernel.
    pub sends: u64,
    /// Those of them that were not copied: `sendfile` from a [`MemFile`](crate::MemFile).
    pub sends_from_file: u64,
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
