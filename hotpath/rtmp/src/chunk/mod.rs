//! The chunk stream: messages cut into chunks, several messages at a time (RTMP 1.0 §5.3).
//!
//! | file | what it does |
//! |---|---|
//! | `reader` | bytes of a peer to message parts, any segmentation, nothing copied |
//! | `framing` | one message with a full header, for bytes many subscribers share |
//! | `writer` | general writer with header compression, for publishing and for tests |
//!
//! ```text
//!   basic header    message header        extended ts   payload (≤ chunk size)
//!   1..3 bytes      11 | 7 | 3 | 0        0 | 4         ...
//!   fmt+csid        by fmt 0 | 1 | 2 | 3
//!
//!   basic header, one byte     fmt csid      csid 2..63
//!                 two bytes    fmt 0  b1     csid 64 + b1
//!                 three bytes  fmt 1  b1 b2  csid 64 + b1 + 256·b2
//! ```

pub mod framing;
pub mod reader;
pub mod writer;

pub use framing::{FramedMessage, Framing};
pub use reader::{ChunkReader, ExtendedOnType3};
pub use writer::{ChunkWriter, Compression, OpenMessage};

/// Chunk stream of protocol control messages (fixed by §5.4).
pub const CSID_CONTROL: u32 = 2;
/// Chunk stream our commands go out on.
pub const CSID_COMMAND: u32 = 3;
/// Chunk stream our audio goes out on.
pub const CSID_AUDIO: u32 = 4;
/// Chunk stream our metadata goes out on.
pub const CSID_DATA: u32 = 5;
/// Chunk stream our video goes out on.
pub const CSID_VIDEO: u32 = 6;
/// Message stream id of the shared wire image; also the first id createStream hands out.
pub const MEDIA_MSID: u32 = 1;

/// Value of a 24-bit timestamp field that announces the extended timestamp.
pub const EXTENDED_TIMESTAMP: u32 = 0x00FF_FFFF;

/// Bytes of a basic header for `csid`.
pub(crate) const fn basic_header_bytes(csid: u32) -> usize {
    match csid {
        0..64 => 1,
        64..320 => 2,
        _ => 3,
    }
}

/// A header put together on the stack; at most [`crate::limits::HEADER_BYTES_MAX`] bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeaderBytes {
    bytes: [u8; crate::limits::HEADER_BYTES_MAX],
    used: usize,
}

impl HeaderBytes {
    /// A basic header for `csid` with header type `fmt`.
    ///
    /// # Panics
    /// When `csid` cannot be expressed; ids come from our own constants or from a reader.
    pub(crate) fn basic(fmt: u8, csid: u32) -> Self {
        assert!((2..=crate::limits::CSID_MAX).contains(&csid), "chunk stream id out of range");
        assert!(fmt < 4, "header type out of range");
        let mut header = Self { bytes: [0; crate::limits::HEADER_BYTES_MAX], used: 0 };
        let fmt = fmt << 6;
        let beyond = csid.saturating_sub(64);
        let [_, _, high, low] = beyond.to_be_bytes();
        match basic_header_bytes(csid) {
            1 => {
                let [_, _, _, id] = csid.to_be_bytes();
                header.push(&[fmt | id]);
            }
            2 => header.push(&[fmt, low]),
            _ => header.push(&[fmt | 1, low, high]),
        }
        header
    }

    /// Appends bytes; a header never has more than fit.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.used..end) {
            room.copy_from_slice(bytes);
            self.used = end;
        }
    }

    /// Appends a 24-bit integer.
    pub(crate) fn push_u24(&mut self, value: u32) {
        let [_, bytes @ ..] = value.to_be_bytes();
        self.push(&bytes);
    }

    /// The header.
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
