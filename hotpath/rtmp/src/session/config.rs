//! Knobs and limits of sessions. Memory of one server session is at most
//! `reply_bytes_max` + `assembly_bytes_max` + the chunk reader's tables + [`STREAMS_MAX`] stream slots.

use alloc::string::String;

use crate::limits::ReaderLimits;

/// Message streams one connection may hold open at once; a further `createStream` is refused.
pub const STREAMS_MAX: usize = 16;
/// Longest string kept from a command (app, tcUrl, name with its query, …). Longer ones are an error.
pub const STRING_BYTES_MAX: usize = 4096;
/// FourCC entries kept per list of `connect`; further ones are ignored.
pub const FOURCCS_MAX: usize = 32;
/// Longest command message; longer ones are an error.
pub const COMMAND_BYTES_MAX: u32 = 64 * 1024;
/// Longest control message that is looked at in full; longer ones (SWF verification) are cut off.
pub const CONTROL_BYTES_MAX: u32 = 64;
/// Bytes that the replies to one message of the peer never exceed. A session consumes nothing while its
/// reply space has less than this left, so no reply is ever cut or lost.
pub const REPLY_BURST_BYTES_MAX: usize = 4096;
/// Longest code, description or address in a reply; longer ones are cut at a character boundary.
pub const REPLY_STRING_BYTES_MAX: usize = 512;
/// Smallest acknowledgement window that is honoured, so that a peer cannot ask for an
/// Acknowledgement per byte.
pub const WINDOW_ACK_BYTES_MIN: u32 = 4096;

const _: () = assert!(
    REPLY_STRING_BYTES_MAX * 4 + 1024 <= REPLY_BURST_BYTES_MAX,
    "a reply with two or three strings must fit, else replies to one message could be cut"
);

/// Settings of a [`ServerSession`](super::ServerSession).
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Window announced to the peer, and the one acknowledged by when the peer announces none. Bytes.
    pub window_ack_bytes: u32,
    /// Chunk size of everything sent, announced before the reply to `connect`. Bytes, 128 to 16,777,215.
    pub chunk_bytes_out: u32,
    /// Limits of the chunk reader.
    pub limits: ReaderLimits,
    /// Echoed to the peer in the reply to `connect` as `ringcast_id`, to find the connection in logs.
    pub connection_id: String,
    /// Longest time from accept to the end of the handshake. Milliseconds.
    pub handshake_ms_max: u64,
    /// Longest time from the end of the handshake to the `connect` command. Milliseconds.
    pub connect_ms_max: u64,
    /// Longest time without any sign of life: a byte received, or progress in sending told by
    /// [`note_send_progress`](super::ServerSession::note_send_progress). Milliseconds.
    pub idle_ms_max: u64,
    /// Time between two ping requests, once connected. Milliseconds; 0 sends none.
    pub ping_interval_ms: u64,
    /// Replies held until taken, preamble written by the owner included. Bytes; at least four
    /// times [`REPLY_BURST_BYTES_MAX`].
    pub reply_bytes_max: usize,
    /// Longest data message; longer ones are dropped and counted. Bytes.
    pub data_bytes_max: u32,
    /// Torn commands and data messages held for reassembly, all chunk streams together. Bytes.
    pub assembly_bytes_max: usize,
    /// Whether `onBWDone` follows the reply to `connect`; some players wait for it.
    pub bw_done: bool,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            window_ack_bytes: 2_500_000,
            chunk_bytes_out: 65_536,
            limits: ReaderLimits::default(),
            connection_id: String::new(),
            handshake_ms_max: 15_000,
            connect_ms_max: 15_000,
            idle_ms_max: 90_000,
            ping_interval_ms: 30_000,
            reply_bytes_max: 256 * 1024,
            data_bytes_max: 256 * 1024,
            assembly_bytes_max: 512 * 1024,
            bw_done: true,
        }
    }
}
