//! Puts one message on the wire in the one form every receiver understands.
//!
//! A full type 0 header, then type 3 headers at every chunk boundary, the extended timestamp
//! repeated in each of them once the time reaches 0xFFFFFF. The bytes depend on nothing but the
//! message and the chunk size, so subscribers can share them. Never allocates but in
//! `write_message`, never splits a message over two reservations. Called by publishers, which
//! write into the stream ring, and by sessions for replies. Spec: RTMP 1.0 §5.3.1.

use alloc::vec::Vec;

use super::{EXTENDED_TIMESTAMP, HeaderBytes, basic_header_bytes};
use crate::limits::{CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::message::MessageHeader;

/// Message header bytes of type 0, without basic header and extended timestamp.
const FULL_HEADER_BYTES: usize = 11;

/// How messages are cut: the chunk size of the outgoing direction.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framing {
    /// Chunk size in bytes, 1 to [`CHUNK_BYTES_MAX`].
    pub chunk_bytes: u32,
}

impl Framing {
    /// Bytes `header` and its body take on the wire.
    pub fn framed_bytes(&self, header: &MessageHeader) -> usize {
        let length = header.length as usize;
        let chunks = length.div_ceil(self.chunk_bytes.max(1) as usize).max(1);
        let (basic, extended) = header_parts(header);
        basic + FULL_HEADER_BYTES + extended + length + (chunks - 1) * (basic + extended)
    }

    /// Writes the type 0 header to the front of `out`; the body follows by
    /// [`FramedMessage::push`].
    ///
    /// # Panics
    /// When `out` is not exactly [`framed_bytes`](Self::framed_bytes) long, the chunk size is out
    /// of range, or the header cannot be expressed: mistakes of the caller, not of a peer.
    pub fn begin(self, header: &MessageHeader, out: &mut [u8]) -> FramedMessage {
        assert!(out.len() == self.framed_bytes(header), "reservation differs from framed_bytes");
        let start = self.start(header);
        let first = full_header(header);
        let (room, _) = out.split_at_mut(first.as_slice().len());
        room.copy_from_slice(first.as_slice());
        start
    }

    /// Appends a whole message to `out`.
    ///
    /// # Panics
    /// When `body` is not `header.length` bytes long, or as [`begin`](Self::begin).
    pub fn write_message(self, header: &MessageHeader, body: &[u8], out: &mut Vec<u8>) {
        assert!(body.len() == header.length as usize, "body length differs from its header");
        let framed = self.start(header);
        out.reserve(self.framed_bytes(header));
        out.extend_from_slice(full_header(header).as_slice());
        let mut chunks = body.chunks(self.chunk_bytes as usize);
        out.extend_from_slice(chunks.next().unwrap_or_default());
        for chunk in chunks {
            out.extend_from_slice(framed.continuation.as_slice());
            out.extend_from_slice(chunk);
        }
    }

    /// Checks the caller's numbers and prepares the state behind the first header.
    fn start(self, header: &MessageHeader) -> FramedMessage {
        assert!((1..=CHUNK_BYTES_MAX).contains(&self.chunk_bytes), "chunk size out of range");
        assert!(header.length <= MESSAGE_BYTES_MAX, "message length out of range");
        let (basic, extended) = header_parts(header);
        FramedMessage {
            continuation: continuation_header(header),
            chunk_bytes: self.chunk_bytes,
            chunk_remaining: self.chunk_bytes,
            body_remaining: header.length,
            header_bytes: basic + FULL_HEADER_BYTES + extended,
            written: basic + FULL_HEADER_BYTES + extended,
        }
    }
}

/// A message of which the header and some of the body are written.
#[derive(Clone, Copy, Debug)]
pub struct FramedMessage {
    continuation: HeaderBytes,
    chunk_bytes: u32,
    /// Body bytes that still fit into the open chunk.
    chunk_remaining: u32,
    body_remaining: u32,
    header_bytes: usize,
    written: usize,
}

impl FramedMessage {
    /// Writes the next body bytes to their place in `out`, the whole reservation `begin` got.
    ///
    /// # Panics
    /// When the parts are longer together than the header said, or `out` is another reservation.
    pub fn push(&mut self, out: &mut [u8], part: &[u8]) {
        assert!(part.len() <= self.body_remaining as usize, "more body than the header announced");
        let mut part = part;
        let (_, mut room) = out.split_at_mut(self.written);
        while !part.is_empty() {
            if self.chunk_remaining == 0 {
                let header = self.continuation.as_slice();
                let (place, after) = room.split_at_mut(header.len());
                place.copy_from_slice(header);
                room = after;
                self.written += header.len();
                self.chunk_remaining = self.chunk_bytes;
            }
            let count = part.len().min(self.chunk_remaining as usize);
            let (now, later) = part.split_at(count);
            let (place, after) = room.split_at_mut(count);
            place.copy_from_slice(now);
            (part, room) = (later, after);
            self.written += count;
            // `count` is at most `chunk_remaining` and, by the assertion, `body_remaining`.
            let count = u32::try_from(count).unwrap_or(self.chunk_remaining);
            self.chunk_remaining -= count;
            self.body_remaining -= count;
        }
    }

    /// True when the whole body was pushed: the reservation is full and may be published.
    pub fn is_complete(&self) -> bool {
        self.body_remaining == 0
    }

    /// Body bytes still to be pushed.
    pub fn body_remaining(&self) -> u32 {
        self.body_remaining
    }

    /// Bytes before the first body byte.
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Bytes of the reservation written so far, headers included.
    pub fn written_bytes(&self) -> usize {
        self.written
    }
}

/// Bytes of the basic header and of the extended timestamp.
fn header_parts(header: &MessageHeader) -> (usize, usize) {
    let extended = if header.timestamp >= EXTENDED_TIMESTAMP { 4 } else { 0 };
    (basic_header_bytes(header.csid), extended)
}

/// The type 0 header.
fn full_header(header: &MessageHeader) -> HeaderBytes {
    let mut bytes = HeaderBytes::basic(0, header.csid);
    bytes.push_u24(header.timestamp.min(EXTENDED_TIMESTAMP));
    bytes.push_u24(header.length);
    bytes.push(&[header.kind]);
    bytes.push(&header.msid.to_le_bytes());
    if header.timestamp >= EXTENDED_TIMESTAMP {
        bytes.push(&header.timestamp.to_be_bytes());
    }
    bytes
}

/// The type 3 header of every further chunk.
fn continuation_header(header: &MessageHeader) -> HeaderBytes {
    let mut bytes = HeaderBytes::basic(3, header.csid);
    if header.timestamp >= EXTENDED_TIMESTAMP {
        bytes.push(&header.timestamp.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const HEADER: MessageHeader =
        MessageHeader { csid: 6, kind: 9, msid: 1, timestamp: 40, length: 5 };

    #[test]
    fn a_message_longer_than_a_chunk_gets_type_3_headers() {
        let mut out = Vec::new();
        Framing { chunk_bytes: 2 }.write_message(&HEADER, b"abcde", &mut out);
        #[rustfmt::skip]
        assert_eq!(out, [
            0x06, 0x00, 0x00, 0x28, 0x00, 0x00, 0x05, 0x09, 0x01, 0x00, 0x00, 0x00, b'a', b'b',
            0xC6, b'c', b'd',
            0xC6, b'e',
        ]);
    }

    #[test]
    fn the_extended_timestamp_is_repeated_in_every_chunk() {
        let header = MessageHeader { timestamp: 0x00FF_FFFF, csid: 320, ..HEADER };
        let mut out = Vec::new();
        Framing { chunk_bytes: 4 }.write_message(&header, b"abcde", &mut out);
        #[rustfmt::skip]
        assert_eq!(out, [
            0x01, 0x00, 0x01, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x05, 0x09, 0x01, 0x00, 0x00, 0x00,
            0x00, 0xFF, 0xFF, 0xFF, b'a', b'b', b'c', b'd',
            0xC1, 0x00, 0x01, 0x00, 0xFF, 0xFF, 0xFF, b'e',
        ]);
    }

    #[test]
    fn pushing_in_pieces_gives_the_same_bytes_as_writing_at_once() {
        let body: Vec<u8> = (0..=255).cycle().take(700).collect();
        for timestamp in [0, 0x00FF_FFFE, 0x00FF_FFFF, u32::MAX] {
            for chunk_bytes in [1, 2, 128, 699, 700, 701, CHUNK_BYTES_MAX] {
                for piece_bytes in [1, 3, 128, 700] {
                    let framing = Framing { chunk_bytes };
                    let header = MessageHeader { timestamp, length: 700, ..HEADER };
                    let mut whole = Vec::new();
                    framing.write_message(&header, &body, &mut whole);
                    let mut out = vec![0; framing.framed_bytes(&header)];
                    let mut framed = framing.begin(&header, &mut out);
                    for piece in body.chunks(piece_bytes) {
                        assert!(!framed.is_complete());
                        framed.push(&mut out, piece);
                    }
                    assert!(framed.is_complete());
                    assert_eq!(framed.written_bytes(), out.len());
                    assert_eq!(out, whole);
                }
            }
        }
    }

    #[test]
    fn an_empty_message_is_its_header_alone() {
        let header = MessageHeader { length: 0, ..HEADER };
        let framing = Framing { chunk_bytes: 128 };
        let mut out = vec![0; framing.framed_bytes(&header)];
        let framed = framing.begin(&header, &mut out);
        assert!(framed.is_complete());
        assert_eq!(framed.header_bytes(), out.len());
    }

    #[test]
    #[should_panic(expected = "reservation differs")]
    fn a_reservation_of_the_wrong_size_is_our_own_bug() {
        Framing { chunk_bytes: 128 }.begin(&HEADER, &mut [0; 4]);
    }
}
