//! TLS sessions without sockets: handshake, records, and keys for the kernel.
#![forbid(unsafe_code)]

pub use rustls;
