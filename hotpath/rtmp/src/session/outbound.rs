//! The writing half of a session: control messages and commands, framed into one bounded buffer.
//!
//! Each message has a full fmt 0 header on a fixed chunk stream, so nothing about earlier messages has to be
//! remembered. Everything a call queues is contiguous and leaves in one piece with the next `take`.
//! Called by `ServerSession` and `ClientSession` only. Media of live streams never goes through here.

use alloc::vec::Vec;

use super::config::REPLY_STRING_BYTES_MAX;
use super::event::StatusLevel;
use crate::amf0;
use crate::chunk::{CSID_COMMAND, CSID_CONTROL, Framing};
use crate::limits::CHUNK_BYTES_DEFAULT;
use crate::message::{Control, MessageHeader, event, kind};

/// What is kept allocated between two bursts of replies: room for a ping and an acknowledgement, and no
/// more, because a server holds one of these for every player.
const KEPT_BYTES_MAX: usize = 40;

/// The bytes do not fit into what is left of the reply space; nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplySpaceFull;

impl core::fmt::Display for ReplySpaceFull {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the reply space is full")
    }
}

impl core::error::Error for ReplySpaceFull {}

/// Bytes to send, bounded.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Debug)]
pub(super) struct Outbound {
    bytes: Vec<u8>,
    bytes_max: u32,
    framing: Framing,
    /// Messages that found no room.
    dropped: u32,
}

impl Outbound {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max: super::inbound::len_u32(bytes_max),
            framing: Framing { chunk_bytes: CHUNK_BYTES_DEFAULT },
            dropped: 0,
        }
    }

    /// Bytes that still fit.
    pub(super) fn room(&self) -> usize {
        (self.bytes_max as usize).saturating_sub(self.bytes.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn dropped(&self) -> u64 {
        u64::from(self.dropped)
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// Moves everything queued to the end of `out`.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
    }

    /// Where the handshake writes; it is bounded by its own size.
    pub(super) fn raw(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Queues a message, or nothing when it does not fit.
    pub(super) fn message(
        &mut self,
        header: &MessageHeader,
        body: &[u8],
    ) -> Result<(), ReplySpaceFull> {
        if self.framing.framed_bytes(header) > self.room() {
            self.dropped = self.dropped.saturating_add(1);
            return Err(ReplySpaceFull);
        }
        self.framing.write_message(header, body, &mut self.bytes);
        Ok(())
    }

    /// Queues a protocol control or user control message.
    pub(super) fn control(&mut self, control: Control) {
        self.queue(CSID_CONTROL, control.kind(), 0, control.body().as_slice());
        if let Control::SetChunkSize(chunk_bytes) = control {
            self.framing = Framing { chunk_bytes };
        }
    }

    /// Queues a user control event about one stream, or with one word of data.
    pub(super) fn user(&mut self, event: u16, data: u32) {
        self.control(Control::User { event, data, more: 0 });
    }

    /// Queues a command; `write` adds name, transaction and everything after.
    pub(super) fn command(&mut self, msid: u32, write: impl FnOnce(&mut amf0::Writer<'_>)) {
        self.amf(CSID_COMMAND, kind::COMMAND_AMF0, msid, write);
    }

    /// Queues a message with an AMF0 body.
    pub(super) fn amf(
        &mut self,
        csid: u32,
        kind: u8,
        msid: u32,
        write: impl FnOnce(&mut amf0::Writer<'_>),
    ) {
        let mut body = Vec::new();
        write(&mut amf0::Writer::new(&mut body));
        self.queue(csid, kind, msid, &body);
    }

    fn queue(&mut self, csid: u32, kind: u8, msid: u32, body: &[u8]) {
        let length = super::inbound::len_u32(body.len());
        let header = MessageHeader { csid, kind, msid, timestamp: 0, length };
        // A full reply space is counted by `message`; replies to the peer cannot meet it, because
        // nothing is consumed unless there is room for a burst of them.
        let _ = self.message(&header, body);
    }

    /// Queues `onStatus` on the message stream it is about.
    pub(super) fn status(&mut self, msid: u32, level: StatusLevel, code: &str, description: &str) {
        self.command(msid, |amf| {
            amf.string("onStatus");
            amf.number(0.0);
            amf.null();
            info(amf, level, code, description);
        });
    }

    /// Answers a ping of the peer.
    pub(super) fn pong(&mut self, timestamp: u32) {
        self.user(event::PING_RESPONSE, timestamp);
    }
}

/// The information object of onStatus and of `_error`.
pub(super) fn info(amf: &mut amf0::Writer<'_>, level: StatusLevel, code: &str, description: &str) {
    amf.object_begin();
    amf.key("level");
    amf.string(level.as_str());
    amf.key("code");
    amf.string(cut(code));
    amf.key("description");
    amf.string(cut(description));
    amf.object_end();
}

/// At most [`REPLY_STRING_BYTES_MAX`] bytes of `text`, cut between two characters.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(REPLY_STRING_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text: String = "é".repeat(REPLY_STRING_BYTES_MAX);
        assert_eq!(cut(&text).len(), REPLY_STRING_BYTES_MAX);
        let text: String = String::from("a") + &text;
        assert_eq!(cut(&text).len(), REPLY_STRING_BYTES_MAX - 1);
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn a_message_that_does_not_fit_is_counted_and_not_written_in_part() {
        let mut out = Outbound::new(20);
        out.pong(1);
        assert_eq!((out.dropped(), out.room()), (0, 2));
        out.pong(2);
        assert_eq!((out.dropped(), out.room()), (1, 2));
        let mut bytes = Vec::new();
        out.take(&mut bytes);
        assert_eq!((bytes.len(), out.room()), (18, 20));
    }

    #[test]
    fn a_large_burst_does_not_stay_allocated() {
        let mut out = Outbound::new(1 << 20);
        for _ in 0..10_000 {
            out.pong(1);
        }
        out.take(&mut Vec::new());
        assert!(out.held_bytes() <= KEPT_BYTES_MAX);
    }
}
