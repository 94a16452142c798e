//! RTMP messages: their header, their parts, and the protocol control messages.
//!
//! A message body is never owned here; media goes through as borrowed [`MessagePart`]s.
//! Spec: RTMP 1.0 §5.4, §6.1, §7.1.

use alloc::vec::Vec;

use crate::error::{Malformed, Place, ProtocolError};
use crate::reader::Cursor;

/// Message type ids (RTMP 1.0 §5.4, §7.1).
pub mod kind {
    /// Set Chunk Size.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACK: u8 = 3;
    /// User Control Message.
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data in the AMF3 envelope.
    pub const DATA_AMF3: u8 = 15;
    /// Shared object in the AMF3 envelope.
    pub const SHARED_OBJECT_AMF3: u8 = 16;
    /// Command in the AMF3 envelope.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0.
    pub const DATA_AMF0: u8 = 18;
    /// Shared object in AMF0.
    pub const SHARED_OBJECT_AMF0: u8 = 19;
    /// Command in AMF0.
    pub const COMMAND_AMF0: u8 = 20;
    /// Aggregate of several tags.
    pub const AGGREGATE: u8 = 22;
}

/// User control event types (RTMP 1.0 §7.1.7, and those in use beside it).
pub mod event {
    /// The stream is usable. Data: msid.
    pub const STREAM_BEGIN: u16 = 0;
    /// Playback of the stream is over. Data: msid.
    pub const STREAM_EOF: u16 = 1;
    /// No data for a while. Data: msid.
    pub const STREAM_DRY: u16 = 2;
    /// The subscriber's buffer. Data: msid, milliseconds.
    pub const SET_BUFFER_LENGTH: u16 = 3;
    /// The stream is recorded. Data: msid.
    pub const STREAM_IS_RECORDED: u16 = 4;
    /// Asks for a pong. Data: timestamp.
    pub const PING_REQUEST: u16 = 6;
    /// Answers a ping with its timestamp.
    pub const PING_RESPONSE: u16 = 7;
}

/// Header of one message as seen after chunk header compression is undone.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageHeader {
    /// Chunk stream id, 2 to 65,599.
    pub csid: u32,
    /// Message type id, see [`kind`].
    pub kind: u8,
    /// Message stream id; 0 is the connection itself.
    pub msid: u32,
    /// Absolute time in milliseconds; wraps at 2³².
    pub timestamp: u32,
    /// Body length in bytes, at most 2²⁴ − 1.
    pub length: u32,
}

/// Consecutive body bytes of one message, as they arrived.
///
/// Parts of one message come in order, with parts of messages on other chunk streams possibly in
/// between. A message of length zero is one part with an empty body, `first` and `last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessagePart<'b> {
    /// Header of the message; the same in each of its parts.
    pub header: MessageHeader,
    /// Offset of `body` within the message, in bytes.
    pub offset: u32,
    /// The bytes, borrowed from the input.
    pub body: &'b [u8],
    /// The message starts here.
    pub first: bool,
    /// The message is complete with this part.
    pub last: bool,
    /// Only with `first`: an unfinished message on the same csid was dropped in favour of this
    /// one, because the peer sent a type 0 header in its middle. Whoever collects that message
    /// must discard it; no further part of it will come.
    pub replaced: bool,
}

/// A protocol control message (§5.4), or a user control message (§7.1.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Control {
    /// New chunk size of the sender's direction; the reserved top bit is already cleared.
    SetChunkSize(u32),
    /// The unfinished message on this csid will not be finished.
    Abort(u32),
    /// Bytes received so far, modulo 2³².
    Ack(u32),
    /// Bytes after which the sender expects an acknowledgement.
    WindowAckSize(u32),
    /// Limit of unacknowledged bytes for the receiver of this message.
    SetPeerBandwidth {
        /// Window in bytes.
        window: u32,
        /// 0 hard, 1 soft, 2 dynamic; others are seen and ignored.
        limit_type: u8,
    },
    /// A user control event with its first data word and, for buffer length, the second.
    User {
        /// Event type, see [`event`].
        event: u16,
        /// First 32-bit word, 0 if absent.
        data: u32,
        /// Second 32-bit word, 0 if absent.
        more: u32,
    },
}

impl Control {
    /// Longest body any control message needs, in bytes; what follows is ignored.
    pub const BODY_BYTES_MAX: usize = 10;

    /// Reads the body of a control message; `None` when `kind` is not one.
    ///
    /// Trailing bytes are ignored. User control events are never too short beyond their type:
    /// unknown ones exist with all lengths and are to be skipped.
    ///
    /// # Errors
    /// [`Malformed::ControlBody`] when the body is shorter than the type demands; `place` is
    /// passed through.
    pub fn parse(kind: u8, body: &[u8], place: Place) -> Result<Option<Self>, ProtocolError> {
        let mut cursor = Cursor::new(body);
        let control = match kind {
            kind::SET_CHUNK_SIZE => cursor.u32().map(|size| Self::SetChunkSize(size & 0x7FFF_FFFF)),
            kind::ABORT => cursor.u32().map(Self::Abort),
            kind::ACK => cursor.u32().map(Self::Ack),
            kind::WINDOW_ACK_SIZE => cursor.u32().map(Self::WindowAckSize),
            kind::SET_PEER_BANDWIDTH => cursor.u32().map(|window| Self::SetPeerBandwidth {
                window,
                // Some peers leave the type out; dynamic is what they mean.
                limit_type: cursor.u8().unwrap_or(2),
            }),
            kind::USER_CONTROL => cursor.u16().map(|event| Self::User {
                event,
                data: cursor.u32().unwrap_or(0),
                more: cursor.u32().unwrap_or(0),
            }),
            _ => return Ok(None),
        };
        match control {
            Some(control) => Ok(Some(control)),
            None => {
                let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
                Err(ProtocolError::Malformed(Malformed::ControlBody { kind, body_bytes }, place))
            }
        }
    }

    /// The message type id this is sent with.
    pub fn kind(&self) -> u8 {
        match self {
            Self::SetChunkSize(_) => kind::SET_CHUNK_SIZE,
            Self::Abort(_) => kind::ABORT,
            Self::Ack(_) => kind::ACK,
            Self::WindowAckSize(_) => kind::WINDOW_ACK_SIZE,
            Self::SetPeerBandwidth { .. } => kind::SET_PEER_BANDWIDTH,
            Self::User { .. } => kind::USER_CONTROL,
        }
    }

    /// Appends the body to `out`.
    pub fn write_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.body().as_slice());
    }

    /// The body, without any allocation.
    pub(crate) fn body(&self) -> ControlBody {
        let mut body = ControlBody { bytes: [0; CONTROL_BODY_BYTES_MAX], length: 0 };
        match *self {
            Self::SetChunkSize(word)
            | Self::Abort(word)
            | Self::Ack(word)
            | Self::WindowAckSize(word) => body.push(word.to_be_bytes()),
            Self::SetPeerBandwidth { window, limit_type } => {
                body.push(window.to_be_bytes());
                body.push([limit_type]);
            }
            Self::User { event, data, more } => {
                body.push(event.to_be_bytes());
                body.push(data.to_be_bytes());
                if event == event::SET_BUFFER_LENGTH {
                    body.push(more.to_be_bytes());
                }
            }
        }
        body
    }
}

/// Longest body of a control message we write: an event number and two words.
const CONTROL_BODY_BYTES_MAX: usize = 10;

/// Body of a control message.
pub(crate) struct ControlBody {
    bytes: [u8; CONTROL_BODY_BYTES_MAX],
    length: usize,
}

impl ControlBody {
    fn push<const N: usize>(&mut self, more: [u8; N]) {
        let end = self.length + N;
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(&more);
            self.length = end;
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_message_reads_back_as_written() {
        let all = [
            Control::SetChunkSize(4_096),
            Control::Abort(6),
            Control::Ack(0xF000_0001),
            Control::WindowAckSize(2_500_000),
            Control::SetPeerBandwidth { window: 2_500_000, limit_type: 2 },
            Control::User { event: event::STREAM_BEGIN, data: 1, more: 0 },
            Control::User { event: event::SET_BUFFER_LENGTH, data: 1, more: 3_000 },
            Control::User { event: event::PING_RESPONSE, data: 77, more: 0 },
        ];
        for control in all {
            let mut body = Vec::new();
            control.write_body(&mut body);
            assert!(body.len() <= Control::BODY_BYTES_MAX);
            let read = Control::parse(control.kind(), &body, Place::default());
            assert_eq!(read, Ok(Some(control)));
        }
    }

    #[test]
    fn the_reserved_bit_of_a_chunk_size_is_masked() {
        let read = Control::parse(kind::SET_CHUNK_SIZE, &[0x80, 0, 0x10, 0], Place::default());
        assert_eq!(read, Ok(Some(Control::SetChunkSize(4_096))));
    }

    #[test]
    fn a_short_control_body_is_malformed_and_other_kinds_are_not_control() {
        for kind in [1, 2, 3, 5, 6] {
            let read = Control::parse(kind, &[0, 0, 1], Place::at(9));
            assert_eq!(
                read,
                Err(ProtocolError::Malformed(
                    Malformed::ControlBody { kind, body_bytes: 3 },
                    Place::at(9)
                ))
            );
        }
        assert_eq!(Control::parse(kind::VIDEO, &[], Place::default()), Ok(None));
        // Event type alone: undocumented events of all sizes are in use.
        let read = Control::parse(kind::USER_CONTROL, &[0, 26], Place::default());
        assert_eq!(read, Ok(Some(Control::User { event: 26, data: 0, more: 0 })));
    }
}
