//! RTMP sessions without I/O: the server's end and the client's end of one connection.
//!
//! ```text
//!   received bytes ─► handle_bytes ─► Event … Event, None     owner answers: accept_*, reject_*
//!                          │                                       │
//!   bytes to send  ◄─── take_replies ◄──── reply space ◄───────────┘
//!   clock          ─► handle_timeout / poll_timeout
//! ```
//!
//! The contract is *feed, drain, wait*: call `handle_bytes` with all unconsumed input until it returns
//! `None`, send what `take_replies` gives, then wait for bytes or for `poll_timeout`. Three things make
//! it return `None` with input left, and each is resumed by calling it again with that input:
//!
//! 1. a request (`connect`, `publish`, `play`) has not been answered by the owner,
//! 2. the reply space has no room for another burst of replies: take them first,
//! 3. nothing else: otherwise `None` means that the input is used up.
//!
//! So the owner keeps the unconsumed input, and offers the same bytes again. After an error, or when
//! [`ServerSession::is_closing`] is true, further input is thrown away: send the replies, then close.
//!
//! A session never copies media, reads no clock, draws no random numbers, and holds at most what
//! [`config`] names. Mistakes of the peer are [`SessionError`]s or are tolerated and counted; mistakes of
//! the owner (an answer nobody asked for) are assertions.
//!
//! | part | file |
//! |---|---|
//! | phases and roles, with their diagrams | `state` |
//! | message parts to media, data, commands | `inbound`, `aggregate` |
//! | replies | `outbound`, `acks` |
//! | the server's end | `server` |
//! | the client's end | `client` |
//! | what happened, in text | [`transcript`] |
//!
//! Spec: RTMP 1.0 §5.4, §7; Enhanced RTMP v2 (connect, reconnect). Habits of encoders and players that
//! are not in the specs stand beside the code that serves them, and each has a test with its name.

mod acks;
mod aggregate;
mod client;
pub mod config;
mod error;
mod event;
mod inbound;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod ops;
mod outbound;
mod server;
mod state;
pub mod transcript;

pub use client::{ClientConfig, ClientEvent, ClientRole, ClientSession, ServerInfo, Status};
pub use config::SessionConfig;
pub use error::{Disposition, ErrorReply, SessionError, WaitingFor};
pub use event::{
    ConnectRequest, DataMessage, Event, MediaKind, MediaPart, PlayError, PlayRequest, PublishError,
    PublishMode, PublishRequest, StatusLevel,
};
pub use outbound::ReplySpaceFull;
pub use server::{PeerInfo, ServerSession, SessionCounters};

/// Bits of `capsEx` in `connect` and its reply (Enhanced RTMP v2).
pub mod caps_ex {
    /// Understands a request to reconnect.
    pub const RECONNECT: u32 = 1;
    /// Understands multitrack messages.
    pub const MULTITRACK: u32 = 2;
    /// Understands ModEx prefixes.
    pub const MOD_EX: u32 = 4;
    /// Understands the nanosecond offset of timestamps.
    pub const TIMESTAMP_NANO_OFFSET: u32 = 8;
    /// All of them: what a relay that passes bytes on untouched can say of itself.
    pub const ALL: u32 = RECONNECT | MULTITRACK | MOD_EX | TIMESTAMP_NANO_OFFSET;
}

/// Mask of a FourCC info map: can pass the codec on without decoding it (Enhanced RTMP v2).
pub const FOURCC_CAN_FORWARD: u32 = 4;
