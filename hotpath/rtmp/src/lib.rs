//! RTMP without I/O: bytes to messages and back, sessions, media tags.
//!
//! ```text
//!  peer's bytes ─► handshake ─► chunk reader ─► message parts ─► session ─► events
//!                                (borrowed)                       │
//!  peer's bytes ◄── framing · chunk writer ◄── messages ◄─────────┘ replies
//! ```
//!
//! This crate never opens a socket, reads a clock, spawns a thread or draws a random number:
//! bytes, [`Millis`] and seeds are arguments. It never panics on a peer's bytes, never keeps more
//! of them than a named limit ([`limits`]), and never copies media: message parts borrow the
//! receive buffer.
//!
//! | what | where it is written down | here |
//! |---|---|---|
//! | handshake | RTMP 1.0 §5.2; digest variant as deployed | [`handshake`] |
//! | chunk stream | RTMP 1.0 §5.3 | [`chunk`] |
//! | control messages | RTMP 1.0 §5.4, §7.1 | [`message`] |
//! | commands | RTMP 1.0 §7.2; Enhanced RTMP v2 | [`command`], [`session`] |
//! | AMF0, AMF3 inside it | AMF 0 and AMF 3 specifications | [`amf0`] |
//! | audio and video tags | FLV 10.1 annex E; Enhanced RTMP v1, v2 | [`tag`] |
//! | codec configuration | H.264, H.265, AV1, AAC, Opus | [`codec`] |
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

pub mod amf0;
pub mod chunk;
pub mod codec;
pub mod command;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod handshake;
pub mod limits;
pub mod message;
pub mod reader;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
pub mod session;
pub mod tag;

pub use error::ProtocolError;
pub use limits::ReaderLimits;
pub use message::{MessageHeader, MessagePart, kind};

/// Monotonic milliseconds since an arbitrary origin; only the worker reads the clock.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Millis(pub u64);
