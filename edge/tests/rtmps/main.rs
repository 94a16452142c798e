//! RTMPS as a whole, against a real `ringcast` process on both kernel interfaces: certificates chosen by
//! name and replaced under load, one port for everything, PROXY headers, deadlines, hostile peers, figures.
//! What the kernel does with keys and records is the subject of `tests/ktls`.
//!
//! ```text
//!   Net (RTMP clients of tests/support) ─► Tunnel (client side of TLS) ─► ringcast    whole streams
//!   Peer (one connection, bytes as they please, with or without TLS) ───► ringcast    all the rest
//! ```

#[allow(dead_code, reason = "shared with the kernel TLS tests, of which this needs a part")]
#[path = "../ktls/tunnel.rs"]
mod tunnel;

#[allow(dead_code, reason = "shared with the end-to-end tests, of which this needs a part")]
#[path = "../e2e/child.rs"]
mod child;
#[path = "../support/mod.rs"]
mod support;

mod certs;
mod deadlines;
mod figures;
mod forge;
mod hostile;
mod names;
mod peer;
mod proxy;
mod proxy_splits;
mod reload;
mod server;
mod sharing;
mod slow;
mod upgrade;
mod witnesses;
