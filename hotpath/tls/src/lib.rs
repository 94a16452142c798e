//! TLS sessions without sockets: handshake, records, and keys for the kernel.
//!
//! A [`Session`] is one peer's TLS state, server or client. It takes bytes in any segmentation and appends
//! what must be sent and what was said to buffers of the caller. It knows no socket and starts no thread.
//! The library beneath asks the system for randomness and, for certificates and tickets, for the time.
//!
//! ```text
//!   ciphertext ──► handle_bytes ──► plain          handshake answers, alerts ──► out
//!   ciphertext ◄── encrypt ◄─────── plain          one shared image, many peers' out
//!
//!   established, on a record boundary, out sent:
//!   into_kernel ──► CryptoInfo send + receive ──► setsockopt      (the kernel does the records from here)
//!                └► KernelSession ◄── control records ── the socket
//!   into_record ──► SessionRecord ──► from_record     (another process goes on; so does this one)
//! ```
//!
//! Called by the worker of the edge and by the load tools; each session belongs to one thread.
//!
//! | promise | where |
//! |---|---|
//! | TLS 1.2 and 1.3, AEAD and ECDHE only; aws-lc-rs | [`server_config`], [`client_config`] |
//! | no byte beyond a record is wanted, so the kernel can take over | [`Session::wanted_bytes`] |
//! | a peer holds at most [`Session::HELD_BYTES_MAX`], an idle one about a kilobyte | `limits.rs` |
//! | peer bytes never panic; each error has a metric label and, where one is due, an alert | [`TlsError`] |
//! | no nonce is used twice across the hand-over | [`CryptoInfo`] |
//! | a session goes on in another process to the byte, over its keys alone | [`SessionRecord`] |
//! | secrets are wiped and never printed | [`CryptoInfo`], [`Secret`] |
//!
//! Specifications: RFC 8446 (TLS 1.3), RFC 5246, 5288, 7905 (TLS 1.2 and its AEAD suites), RFC 6066 (SNI),
//! RFC 7301 (ALPN), RFC 5077 (tickets); for the kernel, `include/uapi/linux/tls.h`.
#![forbid(unsafe_code)]

mod config;
mod crypto_info;
mod error;
#[cfg(feature = "testing")]
pub mod fuzz;
mod hello;
mod kernel;
mod limits;
mod passed;
mod portable;
mod protection;
mod record;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod verify;

pub use rustls;
pub use rustls::pki_types::ServerName;

pub use config::{
    ClientOptions, Roots, ServerOptions, client_config, client_config_with, server_config,
    server_name,
};
pub use crypto_info::{Cipher, CryptoInfo, Version};
pub use error::{CertificateProblem, ErrorKind, Plaintext, TlsError};
pub use kernel::{KernelEvent, KernelHandover, KernelSession};
pub use limits::{
    HELLO_BYTES_MAX, RECORD_HEADER_BYTES, RECORD_OVERHEAD_BYTES_MAX, RECORD_PLAIN_BYTES_MAX,
    RECORD_WIRE_BYTES_MAX,
};
pub use portable::{ControlRecord, FactsRecord, Secret, SessionRecord};
pub use session::{Facts, Progress, Session};
