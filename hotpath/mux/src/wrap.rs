//! What a piece of a stream travels in over HTTP: nothing, a chunk of its body, or a WebSocket frame.
//!
//! The bytes around a piece depend on its length alone, so that all viewers share them. Never allocates.
//!
//! ```text
//!   Chunk      length in hex CR LF            piece   CR LF
//!   WebSocket  82 · length in 1, 3 or 9 bytes piece
//! ```
//!
//! Spec: RFC 9112 §7.1; RFC 6455 §5.2 (server side, so unmasked).

/// Longest beginning, in bytes.
pub const BEGIN_BYTES_MAX: usize = 18;

/// Behind the last chunk of a body.
pub const CHUNKS_END: &[u8] = b"0\r\n\r\n";

const FINAL_BINARY: u8 = 0x82;

/// The kinds of wrapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Wrap {
    /// None: the body ends with the connection.
    #[default]
    None,
    /// Each piece is a chunk.
    Chunk,
    /// Each piece is a binary frame.
    WebSocket,
}

/// What stands before a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Begin {
    bytes: [u8; BEGIN_BYTES_MAX],
    length: usize,
}

impl Begin {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        for (room, byte) in self.bytes.iter_mut().skip(self.length).zip(bytes) {
            *room = *byte;
        }
        self.length += bytes.len();
    }
}

impl Wrap {
    /// What stands before a piece of so many bytes, which is not empty.
    pub fn begin(self, piece_bytes: usize) -> Begin {
        let mut begin = Begin::default();
        let [b0, b1, b2, b3, b4, b5, b6, b7] = (piece_bytes as u64).to_be_bytes();
        match self {
            Self::None => {}
            Self::Chunk => {
                let digits = (usize::BITS - piece_bytes.leading_zeros()).div_ceil(4).max(1);
                for digit in (0..digits).rev() {
                    let [value, ..] = (piece_bytes >> (4 * digit) & 0xF).to_le_bytes();
                    begin.push(&[if value < 10 { b'0' + value } else { b'a' + value - 10 }]);
                }
                begin.push(b"\r\n");
            }
            // The shortest form is the only one the specification allows.
            Self::WebSocket => match piece_bytes {
                0..=125 => begin.push(&[FINAL_BINARY, b7]),
                126..=0xFFFF => begin.push(&[FINAL_BINARY, 126, b6, b7]),
                _ => begin.push(&[FINAL_BINARY, 127, b0, b1, b2, b3, b4, b5, b6, b7]),
            },
        }
        begin
    }

    /// What stands behind a piece.
    pub const fn end(self) -> &'static [u8] {
        match self {
            Self::Chunk => b"\r\n",
            Self::None | Self::WebSocket => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_begins_with_its_length_in_hex_without_leading_zeros() {
        for (bytes, text) in [
            (0, "0\r\n"),
            (9, "9\r\n"),
            (10, "a\r\n"),
            (0x10, "10\r\n"),
            (0xFFFF, "ffff\r\n"),
            (0x0100_0000, "1000000\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            assert_eq!(Wrap::Chunk.begin(bytes).as_slice(), text.as_bytes());
        }
    }

    #[test]
    fn a_frame_has_the_shortest_of_three_length_forms() {
        for (bytes, head) in [
            (125, &[0x82, 125][..]),
            (126, &[0x82, 126, 0, 126]),
            (0xFFFF, &[0x82, 126, 0xFF, 0xFF]),
            (0x1_0000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(Wrap::WebSocket.begin(bytes).as_slice(), head);
        }
        assert!(Wrap::None.begin(5).as_slice().is_empty());
    }
}
