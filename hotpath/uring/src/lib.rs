//! The kernel behind one trait: [`Io`], with three implementations that keep one contract.
//!
//! ```text
//!                        ┌─ Uring    io_uring: one enter per turn
//!   worker ── impl Io ───┼─ Epoll    where io_uring is forbidden or missing
//!                        └─ SimIo    a network in memory, a virtual clock, seeded faults
//! ```
//!
//! The only crate of the data path that knows descriptors, system calls and the clock. It knows
//! nothing of RTMP or streams: bytes come in as [`RecvBuf`] and go out as [`SendBuf`]. One instance
//! belongs to one thread; only a [`Waker`] may be used from others.
//!
//! Reading order: `io.rs` (the contract), `receiving.rs`, `uring_io/mod.rs`, `uring_io/submit.rs`,
//! `uring_io/complete.rs`, `kernel_tls/mod.rs`, `sim/mod.rs`. [`open`] chooses a backend at start.
//!
//! # What the kernel must offer
//!
//! | Feature | Linux | Used for | Without it |
//! |---|---|---|---|
//! | `wait_timeout` (enter with a time) | 5.11 | deadlines without a timer entry | io_uring refused, epoll |
//! | `completions_kept` (no drop) | 5.5 | bursts beyond the completion queue | io_uring refused, epoll |
//! | `buffer_ring` | 5.19 | receive memory shared by all connections | io_uring refused, epoll |
//! | `multishot_accept` | 5.19 | one entry per listener | io_uring refused, epoll |
//! | `multishot_receive` | 6.0 | one entry per connection | io_uring refused, epoll |
//! | `single_issuer`, `defer_taskrun` | 6.0, 6.1 | task work runs when the worker asks, in a batch | `coop_taskrun`: same semantics, more interruptions |
//! | `restricted_operations` | 5.10 | the ring refuses what we never do | noted as refused, served all the same |
//! | `min_wait` | 6.12 | not used: the worker's tick batches already | - |
//! | `receive_bundles` | 6.10 | not used: no gain, out-of-order buffers on 6.13 | - |
//! | `zero_copy_send` | 6.0 | not used: no gain below 15 KB per send | - |
//! | `registered_files` | 5.1 | not used: no gain for sends | - |
//! | `sendfile`, no operation of io_uring | 2.6.33 (to sockets, from memory files 3.17) | bytes of a [`MemFile`] | copied as all others |
//!
//! The kernel to aim at is 6.1. [`Features`] says at run time how each stands, and why. TLS by the
//! kernel is no matter of the backend: [`probe_kernel_tls`] tells what there is of it.
//!
//! # Unsafe inventory
//!
//! | Where | What must hold | Why it holds | What would notice |
//! |---|---|---|---|
//! | `pages.rs`: map, offset, unmap | inside the mapping; unmapped once, last | asserted; one owner | every test (fault) |
//! | `shared_bytes.rs`: slice of a region | mapped, and nobody writes | held by the slice's owner; written once, before it is mapped | `memory_is_given_back_with_the_last_part`, suite |
//! | `recv_pool.rs`: slices of a buffer | one owner at a time: pool, kernel or `RecvBuf` | owner table checked at each hand-over | `a_buffer_named_twice_is_a_panic`, suite |
//! | `uring_io/buf_ring.rs`: register, entries, tail, release | memory outlives the registration | `ManuallyDrop`, freed only by `release` | `dropping_everything_with_work_in_flight_is_clean` |
//! | `uring_io/submit.rs`, `mod.rs`: `push` | memory an entry names stays until its completion | send buffer and address live in the connection's entry, which stays until nothing is in flight | `closing_while_receiving_and_sending…`, `tiny_ring` |
//! | `uring_io/mod.rs`: drop | nothing in the kernel when memory goes | cancelled and waited for, else leaked | `dropping_everything_with_work_in_flight_is_clean` |
//! | `uring_io/complete.rs`, `epoll/mod.rs`, `waker.rs`: adopt a descriptor | just opened, no other owner | taken straight from the call's result | `ids_of_many_connections…` (counts) |
//! | `inherited.rs`: adopt a descriptor by number | passed to us, taken once | called before anything is opened; open is checked | `standard_streams_and_closed_numbers…`, socket activation in `edge/tests/systemd.rs` |
//! | `epoll/mod.rs`, `socket.rs`, `waker.rs`: plain calls | pointers to live locals of the right size | borrowed for the call only | suite on epoll, option tests |
//! | `kernel_tls/mod.rs`: `set_option` | the value stays for the call | a borrowed slice and its length | `keys_without_tls_attached_are_refused`, kernel TLS suite |
//! | `kernel_tls/mod.rs`: `writable` | initialised memory stays so | only recvmsg writes to it, whole bytes | `what_a_plain_socket_brings…`, kernel TLS suite |
//!
//! The worker's three sentences about ownership: a receive buffer belongs to exactly one of pool,
//! kernel and session; what a send reads stays until its completion, also when the connection is
//! gone; a connection's index is reused only when the kernel has answered for all of it.

pub mod affinity;
mod config;
mod epoll;
mod inherited;
mod io;
mod kernel_tls;
mod open;
mod pages;
mod probe;
mod receiving;
mod recv_pool;
mod shared_bytes;
pub mod sim;
mod slots;
mod socket;
mod token;
mod uring_io;
mod waker;

pub use config::{Batching, IoConfig, IoCounters, ListenOptions, SocketOptions};
pub use epoll::Epoll;
pub use inherited::{INHERITED_FD_FIRST, take_inherited_fd};
pub use io::{Completion, ConnId, Io, ListenerId, Nanos, ReceiveEnd, SendBuf, TlsDirection};
pub use kernel_tls::{
    KernelTls, TlsCipher, TlsStat, TlsSupport, TlsVersion, probe_kernel_tls, read_tls_stat,
};
pub use open::{IoChoice, Opened, open};
pub use probe::{Backend, Feature, FeatureState, Features, OpenError};
pub use recv_pool::RecvBuf;
pub use shared_bytes::{MemFile, SharedBytes};
pub use stable_deref_trait::StableDeref;
pub use uring_io::Uring;
pub use waker::Waker;
