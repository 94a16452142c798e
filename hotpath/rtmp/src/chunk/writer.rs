//! The general chunk writer: all four header types, several messages at a time.
//!
//! Used where bytes are not shared: by the client session when it publishes, and by tests against
//! the reader. A type 3 header starts a message only with [`Compression::Smallest`], because
//! receivers disagree on what it means. Spec: RTMP 1.0 §5.3.1.

use alloc::vec::Vec;

use super::{EXTENDED_TIMESTAMP, HeaderBytes};
use crate::limits::{CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::message::MessageHeader;

/// How much of a message header may be left to the previous one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Compression {
    /// Every message starts with a type 0 header.
    #[default]
    Full,
    /// Types 0 and 1.
    Delta,
    /// Types 0, 1 and 2: what encoders send.
    SameLength,
    /// Also type 3, when the time advances by the same delta once more.
    Smallest,
}

/// Writer of one direction of a connection.
///
/// Remembers one header per chunk stream used; the ids are the caller's own, so few.
#[derive(Clone, Debug)]
pub struct ChunkWriter {
    chunk_bytes: u32,
    compression: Compression,
    streams: Vec<Sent>,
}

/// The last header sent on a chunk stream.
#[derive(Clone, Copy, Debug)]
struct Sent {
    header: MessageHeader,
    /// What a type 3 header would add; 0 after type 0.
    delta: u32,
    /// Timestamp field of the last header of type 0, 1 or 2.
    wire_time: u32,
}

/// A message of which at least one chunk is written. Chunks of other messages may come between,
/// but not of another message on the same chunk stream.
#[derive(Clone, Copy, Debug)]
pub struct OpenMessage<'m> {
    continuation: HeaderBytes,
    rest: &'m [u8],
}

impl ChunkWriter {
    /// A writer with a chunk size of 128.
    pub fn new(compression: Compression) -> Self {
        Self { chunk_bytes: CHUNK_BYTES_DEFAULT, compression, streams: Vec::new() }
    }

    /// Sets the chunk size from the next chunk on, in bytes. The peer must have been told by a
    /// Set Chunk Size message before.
    ///
    /// # Panics
    /// When the size is 0 or above [`CHUNK_BYTES_MAX`].
    pub fn set_chunk_size(&mut self, chunk_bytes: u32) {
        assert!((1..=CHUNK_BYTES_MAX).contains(&chunk_bytes), "chunk size out of range");
        self.chunk_bytes = chunk_bytes;
    }

    /// Chunk size in bytes.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_bytes
    }

    /// Appends a whole message to `out`.
    ///
    /// # Panics
    /// As [`begin`](Self::begin).
    pub fn write_message(&mut self, header: &MessageHeader, body: &[u8], out: &mut Vec<u8>) {
        let mut open = self.begin(header, body, out);
        while !open.is_complete() {
            self.write_chunk(&mut open, out);
        }
    }

    /// Appends the first chunk of a message to `out`.
    ///
    /// # Panics
    /// When `body` is not `header.length` bytes long, or the header cannot be expressed.
    pub fn begin<'m>(
        &mut self,
        header: &MessageHeader,
        body: &'m [u8],
        out: &mut Vec<u8>,
    ) -> OpenMessage<'m> {
        assert!(body.len() == header.length as usize, "body length differs from its header");
        assert!(header.length <= MESSAGE_BYTES_MAX, "message length out of range");
        let sent = self.streams.iter().position(|sent| sent.header.csid == header.csid);
        let previous = sent.and_then(|index| self.streams.get(index)).copied();
        let fmt = previous.map_or(0, |previous| self.smallest_fmt(&previous, header));
        let delta = match previous {
            Some(previous) if fmt > 0 => header.timestamp.wrapping_sub(previous.header.timestamp),
            _ => 0,
        };
        let wire_time = match (fmt, previous) {
            (0, _) => header.timestamp,
            (3, Some(previous)) => previous.wire_time,
            _ => delta,
        };
        let now = Sent { header: *header, delta, wire_time };
        match sent.and_then(|index| self.streams.get_mut(index)) {
            Some(sent) => *sent = now,
            None => self.streams.push(now),
        }
        out.extend_from_slice(chunk_header(fmt, header, wire_time).as_slice());
        let mut open = OpenMessage { continuation: chunk_header(3, header, wire_time), rest: body };
        self.write_payload(&mut open, out);
        open
    }

    /// Appends the next chunk of an open message to `out`.
    pub fn write_chunk(&self, open: &mut OpenMessage<'_>, out: &mut Vec<u8>) {
        if open.is_complete() {
            return;
        }
        out.extend_from_slice(open.continuation.as_slice());
        self.write_payload(open, out);
    }

    fn write_payload(&self, open: &mut OpenMessage<'_>, out: &mut Vec<u8>) {
        let count = open.rest.len().min(self.chunk_bytes as usize);
        let (now, later) = open.rest.split_at(count);
        out.extend_from_slice(now);
        open.rest = later;
    }

    /// The highest header type that says the same as `header` after `previous`.
    fn smallest_fmt(&self, previous: &Sent, header: &MessageHeader) -> u8 {
        let delta = header.timestamp.wrapping_sub(previous.header.timestamp);
        // A delta is unsigned on the wire: going back in time needs the absolute form.
        let backward = delta > u32::MAX / 2;
        if self.compression == Compression::Full || header.msid != previous.header.msid || backward
        {
            return 0;
        }
        let same_body =
            header.length == previous.header.length && header.kind == previous.header.kind;
        if !same_body || self.compression == Compression::Delta {
            return 1;
        }
        if self.compression == Compression::Smallest && delta == previous.delta {
            return 3;
        }
        2
    }
}

impl OpenMessage<'_> {
    /// True when the last chunk is written.
    pub fn is_complete(&self) -> bool {
        self.rest.is_empty()
    }
}

/// A chunk header of any type; `wire_time` is what its timestamp field (or the field a type 3
/// header refers to) says.
fn chunk_header(fmt: u8, header: &MessageHeader, wire_time: u32) -> HeaderBytes {
    let mut bytes = HeaderBytes::basic(fmt, header.csid);
    if fmt <= 2 {
        bytes.push_u24(wire_time.min(EXTENDED_TIMESTAMP));
    }
    if fmt <= 1 {
        bytes.push_u24(header.length);
        bytes.push(&[header.kind]);
    }
    if fmt == 0 {
        bytes.push(&header.msid.to_le_bytes());
    }
    if wire_time >= EXTENDED_TIMESTAMP {
        bytes.push(&wire_time.to_be_bytes());
    }
    bytes
}
