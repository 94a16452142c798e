//! What a server session tells its connection: requests to answer, media parts to write, notices.
//!
//! Media borrows the receive buffer and is never copied here. A request owns its few strings, each cut
//! off by [`STRING_BYTES_MAX`](super::config::STRING_BYTES_MAX), because its answer may come turns later.
//! Strings are what the peer sent: app, name and query are told apart by the owner of paths, not here.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// One thing that happened on a server session, in the order in which the peer caused it. Requests with
/// many fields are boxed: an event is passed on by value for every part of every message.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'b> {
    /// `connect` came. Answer with `accept_connect` or `reject_connect`; nothing more is consumed before.
    Connect(Box<ConnectRequest>),
    /// `publish` came. Answer with `accept_publish` or `reject_publish`; nothing more is consumed before.
    Publish(PublishRequest),
    /// `play` came. Answer with `accept_play` or `reject_play`; nothing more is consumed before.
    Play(Box<PlayRequest>),
    /// Part of an audio or video message of a stream that is being published.
    Media(MediaPart<'b>),
    /// The message begun on this chunk stream will not be completed; what was written of it is void.
    MediaAborted {
        /// Chunk stream of the dropped message.
        csid: u32,
        /// Stream the dropped message belonged to.
        msid: u32,
        /// Audio or video.
        kind: MediaKind,
    },
    /// A complete data message of a stream that is being published, for example `onMetaData`.
    Data(DataMessage<'b>),
    /// `@clearDataFrame`: the cached metadata of the stream is void.
    ClearMetadata {
        /// Stream the notice belongs to.
        msid: u32,
    },
    /// The publisher ended its stream in a clean way (no grace period applies). Already answered.
    Unpublish {
        /// Stream that is no longer published.
        msid: u32,
    },
    /// The subscriber closed, deleted or replaced what it played. Already answered.
    StopPlay {
        /// Stream that is no longer played.
        msid: u32,
    },
    /// `pause` or `pauseRaw`. Already answered.
    Pause {
        /// Stream that is being played.
        msid: u32,
        /// True to pause, false to go on.
        paused: bool,
        /// Position of the peer, milliseconds of its timeline.
        at_ms: u32,
    },
    /// `seek`. Already answered; a live stream has nothing to seek in.
    Seek {
        /// Stream that is being played.
        msid: u32,
        /// Wanted position, milliseconds.
        at_ms: u32,
    },
    /// `receiveAudio`: whether the peer wants audio.
    ReceiveAudio {
        /// Stream that is being played.
        msid: u32,
        /// True when audio is wanted.
        on: bool,
    },
    /// `receiveVideo`: whether the peer wants video.
    ReceiveVideo {
        /// Stream that is being played.
        msid: u32,
        /// True when video is wanted.
        on: bool,
    },
    /// User control SetBufferLength.
    BufferLength {
        /// Stream the buffer is for, as told by the peer (it need not exist).
        msid: u32,
        /// Buffer of the peer, milliseconds.
        ms: u32,
    },
    /// Acknowledgement: the peer has received this many bytes, modulo 2^32.
    Acknowledged {
        /// Total received by the peer since connect, modulo 2^32.
        bytes: u32,
    },
}

/// The `connect` command, with spellings of its keys unified.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectRequest {
    /// `app`, trimmed of white space and of quotation marks around it.
    pub app: String,
    /// `tcUrl` (any case of the key), trimmed likewise; `None` when the peer sent none.
    pub tc_url: Option<String>,
    /// `flashVer`.
    pub flash_ver: Option<String>,
    /// `swfUrl`.
    pub swf_url: Option<String>,
    /// `pageUrl`.
    pub page_url: Option<String>,
    /// `objectEncoding`: 0 or 3; 0 when absent.
    pub object_encoding: u8,
    /// Enhanced RTMP `capsEx` bits; 0 when absent. See [`caps_ex`](super::caps_ex).
    pub caps_ex: u32,
    /// Enhanced RTMP `fourCcList`; `"*"` stands for all.
    pub fourccs: Vec<String>,
    /// Enhanced RTMP `videoFourCcInfoMap`: FourCC and its mask (1 decode, 2 encode, 4 forward).
    pub video_fourccs: Vec<(String, u32)>,
    /// Enhanced RTMP `audioFourCcInfoMap`: FourCC and its mask.
    pub audio_fourccs: Vec<(String, u32)>,
}

impl ConnectRequest {
    /// Whether the peer announced anything of Enhanced RTMP.
    #[must_use]
    pub fn is_enhanced(&self) -> bool {
        self.caps_ex != 0
            || !self.fourccs.is_empty()
            || !self.video_fourccs.is_empty()
            || !self.audio_fourccs.is_empty()
    }
}

/// The `publish` command.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishRequest {
    /// Stream to answer on.
    pub msid: u32,
    /// Publishing name as sent, query included, trimmed of white space; may be empty
    /// (whole address in the server field of the encoder).
    pub name: String,
    /// Publishing type; absent and unknown types mean live.
    pub mode: PublishMode,
}

/// Publishing type of the `publish` command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishMode {
    /// `live`, `default`, absent or unknown.
    #[default]
    Live,
    /// `record`.
    Record,
    /// `append`.
    Append,
}

/// The `play` command.
#[derive(Clone, Debug, PartialEq)]
pub struct PlayRequest {
    /// Stream to answer on.
    pub msid: u32,
    /// Name without a container prefix (`mp4:`, `flv:`, …), query included, trimmed of white space.
    pub name: String,
    /// Name exactly as sent.
    pub name_raw: String,
    /// `start` as sent (-2 live or recorded, -1 live, else a position); -2 when absent. Peers disagree
    /// on seconds or milliseconds; a live stream starts at its live edge whatever it says.
    pub start: f64,
    /// `duration` as sent; -1 (until the end) when absent.
    pub duration: f64,
    /// Whether an earlier playlist is to be replaced; true when absent.
    pub reset: bool,
}

/// Audio or video.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Message type 8.
    Audio,
    /// Message type 9.
    Video,
}

impl MediaKind {
    /// The RTMP message type id: 8 or 9.
    #[must_use]
    pub const fn type_id(self) -> u8 {
        match self {
            Self::Audio => 8,
            Self::Video => 9,
        }
    }
}

/// Consecutive bytes of one audio or video message, borrowed from the receive buffer.
///
/// Parts of one message come in order on their `csid`; parts of messages on other chunk streams may lie
/// between them. Sub-messages of an aggregate come as messages of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaPart<'b> {
    /// Stream the message belongs to.
    pub msid: u32,
    /// Audio or video.
    pub audio_or_video: MediaKind,
    /// Absolute milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    /// Body bytes of the whole message; at least 1.
    pub length: u32,
    /// Chunk stream the message travels on: at most one message is open per csid.
    pub csid: u32,
    /// Where `body` starts within the message body.
    pub offset: u32,
    /// The bytes; may be less than a chunk.
    pub body: &'b [u8],
    /// This part opens a message.
    pub first: bool,
    /// This part completes its message.
    pub last: bool,
}

/// A complete AMF0 data message, without AMF3 envelope and without `@setDataFrame`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataMessage<'b> {
    /// Stream the message belongs to.
    pub msid: u32,
    /// Absolute milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    /// AMF0 values, the first being the handler name. Borrowed when the message arrived in one piece.
    pub body: Cow<'b, [u8]>,
}

/// Why a publish request is refused; all are codes that the common encoders treat as final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// `NetStream.Publish.BadName`: the name is taken or unusable.
    BadName,
    /// `NetStream.Publish.Denied`: not allowed.
    Denied,
}

impl PublishError {
    /// The `code` of the onStatus message.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadName => "NetStream.Publish.BadName",
            Self::Denied => "NetStream.Publish.Denied",
        }
    }
}

/// Why a play request is refused; all are codes that the common players treat as final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayError {
    /// `NetStream.Play.StreamNotFound`: nothing of that name, or not for this peer to know.
    StreamNotFound,
    /// `NetStream.Play.Failed`: not allowed, or cannot be served.
    Failed,
}

impl PlayError {
    /// The `code` of the onStatus message.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::StreamNotFound => "NetStream.Play.StreamNotFound",
            Self::Failed => "NetStream.Play.Failed",
        }
    }
}

/// `level` of an onStatus message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusLevel {
    /// `status`: a notice.
    Status,
    /// `warning`.
    Warning,
    /// `error`: common peers give up.
    Error,
}

impl StatusLevel {
    /// As written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}
