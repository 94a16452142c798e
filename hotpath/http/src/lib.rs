//! HTTP/1 and WebSocket of a server, without I/O: requests in, heads of answers and frames out.
//!
//! ```text
//!  viewer's bytes ─► head scan ─► httparse ─► checks ─► body skipped ─► Request
//!                    where it ends             │
//!                                              └─► upgrade ─► FrameReader ─► Ping, Close, …
//!  viewer's bytes ◄─ Head · websocket::write_* ◄─ answers of the worker
//! ```
//!
//! This crate never opens a socket, reads a clock or spawns a thread. It never panics on a peer's
//! bytes, and keeps none of them but an incomplete head of at most [`Limits::head_bytes_max`];
//! bodies and WebSocket data are counted and thrown away. What a message means never depends on
//! how its bytes were split. Where two readers of HTTP could understand one message differently
//! (which is how requests are smuggled past a proxy) it is refused, see [`HttpError`].
//!
//! | what | where it is written down | here |
//! |---|---|---|
//! | lines, request line, fields | RFC 9112 §2, §3, §5 | [`RequestReader`] |
//! | target and host | RFC 9112 §3.2, RFC 9110 §7.2 | [`Request`] |
//! | body of a request | RFC 9112 §6, §7 | [`RequestReader`] |
//! | persistence | RFC 9112 §9.3 | [`Request::keep_alive`] |
//! | ranges, codings of an answer | RFC 9110 §14, §12.5.3 | [`ByteRange`], [`Request`] |
//! | answers | RFC 9112 §4, RFC 9110 §15; Fetch (CORS) | [`Head`], [`Status`] |
//! | WebSocket handshake | RFC 6455 §4.2 | [`WebSocketUpgrade`], [`websocket::write_accept`] |
//! | WebSocket frames | RFC 6455 §5, §7.4 | [`websocket::FrameReader`] |
//!
//! # Example
//! ```
//! use http1::{Head, Length, Limits, RequestReader};
//!
//! let mut reader = RequestReader::new();
//! let mut input = &b"GET /live/a.flv HTTP/1.1\r\nHost: edge.example\r\n\r\n"[..];
//! let mut out = Vec::new();
//! match reader.handle_bytes(&Limits::default(), &mut input) {
//!     Ok(Some(request)) => {
//!         assert_eq!(request.path, "/live/a.flv");
//!         let head = Head {
//!             status: 200,
//!             content_type: "video/x-flv",
//!             length: Length::UntilClose,
//!             keep_alive: request.keep_alive,
//!             cache_control: "no-store",
//!             extra: &[],
//!         };
//!         head.write(&mut out);
//!     }
//!     Ok(None) => {} // more bytes are needed
//!     Err(error) => error.write_answer(&mut out),
//! }
//! assert!(out.starts_with(b"HTTP/1.1 200 OK\r\n"));
//! ```
//!
//! # Copies
//! A head that arrives whole is parsed where it lies; one that does not is collected first. The
//! fields of a [`Request`] are copied out of it: once per request, never per media byte.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod body;
mod error;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod reader;
mod request;
mod response;
mod scan;
mod target;
pub mod websocket;

pub use error::{HttpError, Status};
pub use reader::RequestReader;
pub use request::{ByteRange, Method, Request, WebSocketUpgrade};
pub use response::{Head, Length};

/// What one request may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a head: request line, fields and the empty line behind them. Chunk extensions and
    /// trailers of a body may have as much again.
    pub head_bytes_max: usize,
    /// Fields of a head.
    pub headers_max: usize,
    /// Bytes of a request's body, which is read and thrown away.
    pub body_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes_max: 16 * 1024, headers_max: 64, body_bytes_max: 64 * 1024 }
    }
}
