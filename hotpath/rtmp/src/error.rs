//! What can be wrong with a peer's bytes, sorted by whose fault it is.
//!
//! | class | meaning |
//! |---|---|
//! | [`Malformed`] | does not parse |
//! | [`Violation`] | parses, breaks a rule of the protocol |
//! | [`Unsupported`] | legal, but not spoken here |
//! | [`LimitExceeded`] | legal, but more than one peer may cost us |
//!
//! Each error knows its [`Place`] and says what was expected instead. Mistakes of our own caller
//! are assertions, never values of these types.

use core::fmt;

/// Where in a peer's byte stream something went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Chunk stream the bytes belonged to, where one was known.
    pub csid: Option<u32>,
    /// Bytes since the connection was opened (handshake included once a session adds it).
    pub offset: u64,
}

impl Place {
    /// A place on a chunk stream.
    pub fn on(csid: u32, offset: u64) -> Self {
        Self { csid: Some(csid), offset }
    }

    /// A place outside any chunk stream, for instance in the handshake.
    pub fn at(offset: u64) -> Self {
        Self { csid: None, offset }
    }
}

/// Bytes that do not parse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Malformed {
    /// An AMF value of a known type is broken.
    AmfValue,
    /// An AMF body ends inside a value.
    AmfTruncated,
    /// A protocol control message is shorter than its type demands.
    ControlBody {
        /// Message type id.
        kind: u8,
        /// Body bytes received.
        body_bytes: u32,
    },
    /// An aggregate message does not divide into tags.
    AggregateBody,
}

/// Bytes that parse but break the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// The first byte of the connection is not the RTMP version.
    HandshakeVersion(u8),
    /// A chunk stream was opened by a header that takes its length from a previous message.
    FreshChunkStream {
        /// Header type, 2 or 3.
        fmt: u8,
    },
    /// A second message started, for the second time, before the first was complete.
    PartialReplaced,
    /// A type 1 header changed length or type of the message it continues.
    HeaderChangedMidMessage,
    /// Set Chunk Size asked for zero bytes.
    ChunkSizeZero,
}

/// Legal requests this implementation does not serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unsupported {
    /// The peer wants the encrypted variant of the handshake (version 6, 8 or 9).
    EncryptedHandshake(u8),
    /// An AMF type without a meaning here.
    AmfMarker(u8),
}

/// Legal input beyond what one peer may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LimitExceeded {
    /// A message announces a longer body than allowed.
    MessageBytes {
        /// Announced length, in bytes.
        length: u32,
        /// Limit, in bytes.
        max: u32,
    },
    /// More chunk streams than allowed.
    ChunkStreams {
        /// Limit.
        max: u16,
    },
    /// Too many tiny chunks or empty messages for the bytes they carry.
    TinyChunks {
        /// Limit.
        max: u32,
    },
    /// AMF nested too deeply.
    AmfDepth,
    /// Too many AMF values in one body.
    AmfElements,
    /// An AMF string is too long.
    AmfString,
}

/// Why a peer's bytes cannot be accepted. The connection is to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// Does not parse.
    Malformed(Malformed, Place),
    /// Parses, breaks the rules.
    Violation(Violation, Place),
    /// Legal, not spoken here.
    Unsupported(Unsupported, Place),
    /// Legal, too much.
    LimitExceeded(LimitExceeded, Place),
}

impl ProtocolError {
    /// Where it happened.
    pub fn place(&self) -> Place {
        match *self {
            Self::Malformed(_, place)
            | Self::Violation(_, place)
            | Self::Unsupported(_, place)
            | Self::LimitExceeded(_, place) => place,
        }
    }

    /// The same error, `bytes` later in the stream: used by whoever read bytes before us.
    #[must_use]
    pub fn shifted(mut self, bytes: u64) -> Self {
        match &mut self {
            Self::Malformed(_, place)
            | Self::Violation(_, place)
            | Self::Unsupported(_, place)
            | Self::LimitExceeded(_, place) => place.offset = place.offset.saturating_add(bytes),
        }
        self
    }

    /// Stable name for metrics and logs; never contains peer data.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(reason, _) => match reason {
                Malformed::AmfValue => "malformed_amf_value",
                Malformed::AmfTruncated => "malformed_amf_truncated",
                Malformed::ControlBody { .. } => "malformed_control_body",
                Malformed::AggregateBody => "malformed_aggregate",
            },
            Self::Violation(reason, _) => match reason {
                Violation::HandshakeVersion(_) => "violation_handshake_version",
                Violation::FreshChunkStream { .. } => "violation_fresh_chunk_stream",
                Violation::PartialReplaced => "violation_partial_replaced",
                Violation::HeaderChangedMidMessage => "violation_header_changed",
                Violation::ChunkSizeZero => "violation_chunk_size_zero",
            },
            Self::Unsupported(reason, _) => match reason {
                Unsupported::EncryptedHandshake(_) => "unsupported_encrypted_handshake",
                Unsupported::AmfMarker(_) => "unsupported_amf_marker",
            },
            Self::LimitExceeded(reason, _) => match reason {
                LimitExceeded::MessageBytes { .. } => "limit_message_bytes",
                LimitExceeded::ChunkStreams { .. } => "limit_chunk_streams",
                LimitExceeded::TinyChunks { .. } => "limit_tiny_chunks",
                LimitExceeded::AmfDepth => "limit_amf_depth",
                LimitExceeded::AmfElements => "limit_amf_elements",
                LimitExceeded::AmfString => "limit_amf_string",
            },
        }
    }

    /// What would have been accepted at this place, in words.
    pub fn expected(&self) -> &'static str {
        match self {
            Self::Malformed(reason, _) => match reason {
                Malformed::AmfValue => "a well-formed AMF value",
                Malformed::AmfTruncated => "a complete AMF value",
                Malformed::ControlBody { .. } => "the full body of the control message",
                Malformed::AggregateBody => "whole tags inside the aggregate message",
            },
            Self::Violation(reason, _) => match reason {
                Violation::HandshakeVersion(_) => "handshake version 3",
                Violation::FreshChunkStream { .. } => {
                    "a type 0 or type 1 header on a new chunk stream"
                }
                Violation::PartialReplaced => "the rest of the message before the next one",
                Violation::HeaderChangedMidMessage => {
                    "the same length and type until the message ends"
                }
                Violation::ChunkSizeZero => "a chunk size of at least one byte",
            },
            Self::Unsupported(reason, _) => match reason {
                Unsupported::EncryptedHandshake(_) => "handshake version 3, or RTMP over TLS",
                Unsupported::AmfMarker(_) => "a known AMF type marker",
            },
            Self::LimitExceeded(reason, _) => match reason {
                LimitExceeded::MessageBytes { .. } => "a shorter message",
                LimitExceeded::ChunkStreams { .. } => "fewer chunk streams",
                LimitExceeded::TinyChunks { .. } => "a larger chunk size",
                LimitExceeded::AmfDepth => "less deeply nested AMF",
                LimitExceeded::AmfElements => "fewer AMF values",
                LimitExceeded::AmfString => "a shorter AMF string",
            },
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason, _) => write!(f, "malformed input ({reason:?})")?,
            Self::Violation(reason, _) => write!(f, "protocol violation ({reason:?})")?,
            Self::Unsupported(reason, _) => write!(f, "unsupported input ({reason:?})")?,
            Self::LimitExceeded(reason, _) => write!(f, "limit exceeded ({reason:?})")?,
        }
        let place = self.place();
        write!(f, " at byte {}", place.offset)?;
        if let Some(csid) = place.csid {
            write!(f, " on chunk stream {csid}")?;
        }
        write!(f, ", expected {}", self.expected())
    }
}

impl core::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_error_tells_class_place_and_expectation() {
        let error =
            ProtocolError::Violation(Violation::FreshChunkStream { fmt: 3 }, Place::on(33, 3_073));
        assert_eq!(
            error.to_string(),
            "protocol violation (FreshChunkStream { fmt: 3 }) at byte 3073 on chunk stream 33, \
             expected a type 0 or type 1 header on a new chunk stream"
        );
        assert_eq!(error.label(), "violation_fresh_chunk_stream");
        assert_eq!(error.shifted(1_000).place().offset, 4_073);
    }
}
