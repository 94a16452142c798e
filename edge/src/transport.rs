//! How the bytes of a connection travel: plain, in TLS records of ours, or in records of the kernel.
//!
//! ```text
//!   Opening ──┬─ first byte 0x03, HTTP ─────────────────────────────► Plain
//!             └─ first byte 0x16 ─► Handshake ─┬─ kernel TLS ─► (flight sent) ─► Kernel
//!                                              └─ no kernel TLS ──────────────► Records
//! ```
//!
//! Plain state; `worker/transport.rs` moves it. Nothing is kept per connection but the session: ciphertext
//! lives in pooled buffers from sealing to the completion of its send.

use std::sync::Arc;

use tls::rustls;

use crate::front::FrontDoor;

/// Plaintext sealed per send: four full records. More of a lease follows with the next send.
pub(crate) const SEAL_BYTES_MAX: usize = 64 * 1024;

/// What the workers share of TLS.
#[derive(Debug)]
pub struct Secure {
    /// Certificates, versions, tickets.
    pub config: Arc<rustls::ServerConfig>,
    /// What the kernel can do, as probed at start; off when the configuration says so.
    pub kernel: uring::KernelTls,
}

/// The transport of one connection.
#[derive(Debug)]
pub(crate) enum Transport {
    /// The first bytes decide.
    Opening(Box<FrontDoor>),
    /// TCP alone.
    Plain,
    /// TLS, not established yet, or waiting for its last flight to leave before the kernel takes over.
    Handshake(Box<Handshake>),
    /// TLS records made and opened here.
    Records(Box<tls::Session>),
    /// TLS records made and opened by the kernel.
    Kernel(Box<Kernel>),
}

impl Transport {
    /// True once application bytes may be sent.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Plain | Self::Records(_) | Self::Kernel(_))
    }

    /// True while a new sending key is due.
    pub(crate) fn must_update_send(&self) -> bool {
        matches!(self, Self::Kernel(kernel) if kernel.must_update_send)
    }

    /// For logs.
    pub(crate) fn text(&self) -> &'static str {
        match self {
            Self::Opening(_) => "opening",
            Self::Plain => "plain",
            Self::Handshake(_) => "handshake",
            Self::Records(_) => "records",
            Self::Kernel(_) => "kernel",
        }
    }
}

/// A handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) session: tls::Session,
    /// Established; the kernel takes over when everything queued has left.
    pub(crate) is_leaving: bool,
}

/// A connection whose keys the kernel holds.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) session: tls::KernelSession,
    /// A new sending key is due as soon as no send is in flight.
    pub(crate) must_update_send: bool,
}
