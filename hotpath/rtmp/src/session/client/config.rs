//! Settings of a client session, and what it tells its owner.

use alloc::string::String;
use alloc::vec::Vec;

use crate::handshake::ClientVariant;
use crate::limits::ReaderLimits;
use crate::session::caps_ex;
use crate::session::event::{DataMessage, MediaKind, MediaPart, StatusLevel};

/// What a client session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRole {
    /// Sends a stream.
    Publish,
    /// Receives a stream.
    Play,
}

/// Settings of a [`ClientSession`](super::ClientSession). Sessions share one through an `Arc`, so that
/// thousands of them cost one.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `tcUrl`: scheme, host, port and app.
    pub tc_url: String,
    /// `app`.
    pub app: String,
    /// Stream name with its query.
    pub stream: String,
    /// What to do with the stream.
    pub role: ClientRole,
    /// `flashVer`; some servers look at it.
    pub flash_ver: String,
    /// Chunk size of what is sent, announced once connected. Bytes, 128 to 16,777,215.
    pub chunk_bytes_out: u32,
    /// Window announced to the server, and the one acknowledged by when it announces none. Bytes.
    pub window_ack_bytes: u32,
    /// Buffer announced when playing. Milliseconds.
    pub buffer_ms: u32,
    /// Variant of the handshake.
    pub handshake: ClientVariant,
    /// Limits of the chunk reader.
    pub limits: ReaderLimits,
    /// Enhanced RTMP `capsEx`; 0 announces nothing of Enhanced RTMP but `fourccs`.
    pub caps_ex: u32,
    /// Enhanced RTMP `fourCcList`; empty announces none.
    pub fourccs: Vec<String>,
    /// Longest wait for each answer of the server during setup. Milliseconds.
    pub answer_ms_max: u64,
    /// Longest silence of the server while playing. Milliseconds; 0 for no limit.
    pub idle_ms_max: u64,
    /// Commands and control messages held until taken. Bytes.
    pub reply_bytes_max: usize,
    /// Longest data message taken in. Bytes.
    pub data_bytes_max: u32,
    /// Torn commands and data messages held for reassembly. Bytes.
    pub assembly_bytes_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            tc_url: String::new(),
            app: String::new(),
            stream: String::new(),
            role: ClientRole::Play,
            flash_ver: String::from("FMLE/3.0 (compatible; Ringcast)"),
            chunk_bytes_out: 65_536,
            window_ack_bytes: 2_500_000,
            buffer_ms: 3_000,
            handshake: ClientVariant::Simple,
            limits: ReaderLimits::default(),
            caps_ex: caps_ex::ALL,
            fourccs: Vec::from([String::from("*")]),
            answer_ms_max: 15_000,
            idle_ms_max: 60_000,
            reply_bytes_max: 64 * 1024,
            data_bytes_max: 256 * 1024,
            assembly_bytes_max: 512 * 1024,
        }
    }
}

/// One thing that happened on a client session, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent<'b> {
    /// The server accepted `connect`. The session goes on by itself.
    Connected(ServerInfo),
    /// `NetStream.Publish.Start`: media may be written from now on.
    Published {
        /// Stream to write on.
        msid: u32,
    },
    /// `NetStream.Play.Start` or its like: media will come.
    PlayStarted {
        /// Stream the media comes on.
        msid: u32,
    },
    /// Any other onStatus.
    Status(Status),
    /// The stream is over: unpublished, stopped, or complete.
    StreamEnded(Status),
    /// The server asks for a new connection (Enhanced RTMP v2); this one goes on until closed.
    ReconnectRequest {
        /// Where to; the same address when absent. May be relative to `tcUrl`.
        tc_url: Option<String>,
        /// Text for people.
        description: String,
    },
    /// Part of an audio or video message.
    Media(MediaPart<'b>),
    /// The message begun on this chunk stream will not be completed.
    MediaAborted {
        /// Chunk stream of the dropped message.
        csid: u32,
        /// Stream the dropped message belonged to.
        msid: u32,
        /// Audio or video.
        kind: MediaKind,
    },
    /// A complete data message, for example `onMetaData`.
    Data(DataMessage<'b>),
    /// User control StreamBegin.
    StreamBegin {
        /// Stream it is about.
        msid: u32,
    },
    /// User control StreamEOF.
    StreamEof {
        /// Stream it is about.
        msid: u32,
    },
    /// User control StreamDry.
    StreamDry {
        /// Stream it is about.
        msid: u32,
    },
    /// Acknowledgement: the server has received this many bytes, modulo 2^32.
    Acknowledged {
        /// Total received by the server since connect, modulo 2^32.
        bytes: u32,
    },
    /// The server called `close`: the connection is to be closed.
    PeerClosed,
}

/// What the server said about itself in the reply to `connect`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// `fmsVer`.
    pub version: String,
    /// `ringcast_id`: name of the connection in the logs of a Ringcast server.
    pub connection_id: Option<String>,
    /// Enhanced RTMP `capsEx`; 0 when absent.
    pub caps_ex: u32,
    /// Enhanced RTMP `fourCcList`.
    pub fourccs: Vec<String>,
}

/// An onStatus message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Stream it is about; 0 for the connection.
    pub msid: u32,
    /// Its level; an unknown one counts as a notice.
    pub level: StatusLevel,
    /// Its code, cut to a bounded length.
    pub code: String,
    /// Text for people, cut likewise.
    pub description: String,
}
