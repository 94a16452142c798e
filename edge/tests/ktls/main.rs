//! RTMPS against a real `ringcast` process: by kernel TLS where this kernel has it, by records made in
//! user space where it has not. The same tests both ways; only what the kernel counts differs.
//!
//! On a host without the module they prove the fallback. `tools/test ktls` runs them again on two kernels
//! that have it, with `KERNEL_TLS=required`: then a server that does not use it fails them.
//!
//! ```text
//!   Net (RTMP clients of tests/support) ─► Tunnel (client side of TLS) ─► ringcast      whole streams
//!   Peer (one TLS connection, byte by byte) ────────────────────────────► ringcast      cuts, keys, ends
//!   openssl, ffmpeg, GStreamer ─────────────────────────────────────────► ringcast      other people's TLS
//! ```

#[allow(dead_code, reason = "shared with the end-to-end tests, of which this needs a part")]
#[path = "../e2e/child.rs"]
mod child;
#[allow(dead_code, reason = "shared with the end-to-end tests, of which this needs a part")]
#[path = "../e2e/media.rs"]
mod media;
#[path = "../support/mod.rs"]
mod support;

mod certs;
mod ciphers;
mod crowd;
mod ends;
mod handshake;
mod keys;
mod peer;
mod programs;
mod server;
mod tunnel;
mod upgrade;
