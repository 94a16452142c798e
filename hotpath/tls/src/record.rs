//! Where records begin and end in the peer's byte stream. Knows no key and keeps no payload.
//!
//! Exists for one promise: a worker that receives at most [`RecordCursor::wanted_bytes`] at a time never
//! takes a byte of the next record out of the kernel, so the kernel can go on from there with the keys.
//!
//! ```text
//!   type  version  length   payload
//!   1     2        2        length
//!   └── header_bytes ──┘    └ payload_bytes_left ┘
//! ```
//! Record layer: RFC 8446 §5.1, RFC 5246 §6.2.1.

use crate::limits::{RECORD_HEADER_BYTES, RECORD_WIRE_BYTES_MAX};

/// Counts through the stream, whatever its segmentation.
#[derive(Debug, Default)]
pub(crate) struct RecordCursor {
    header: [u8; RECORD_HEADER_BYTES],
    header_bytes: usize,
    payload_bytes_left: usize,
}

/// What one piece of input brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Advance {
    /// Records whose last byte was in the piece.
    pub(crate) records: usize,
    /// Bytes of the piece that were counted: all of it, or up to the end of an absurd header.
    pub(crate) bytes: usize,
    /// A header no TLS peer sends: the rest of such a record is not worth waiting for.
    pub(crate) is_absurd: bool,
}

impl RecordCursor {
    /// Bytes until the next decision: the rest of the header, else the rest of the record. Never 0, not
    /// even behind an absurd header, where nobody should ask.
    pub(crate) fn wanted_bytes(&self) -> usize {
        match self.payload_bytes_left {
            0 => (RECORD_HEADER_BYTES - self.header_bytes).max(1),
            left => left,
        }
    }

    /// Whether the last byte seen ended a record (or none was seen yet).
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.header_bytes == 0 && self.payload_bytes_left == 0
    }

    /// Bytes of the record that has begun and not ended.
    pub(crate) fn torn_bytes(&self) -> usize {
        match self.payload_bytes_left {
            0 => self.header_bytes,
            left => {
                let [_, _, _, high, low] = self.header;
                let payload_bytes = usize::from(u16::from_be_bytes([high, low]));
                RECORD_HEADER_BYTES + payload_bytes.saturating_sub(left)
            }
        }
    }

    /// Counts `input`. Stops at an absurd header: the stream has no further meaning.
    pub(crate) fn advance(&mut self, mut input: &[u8]) -> Advance {
        let all_bytes = input.len();
        let mut seen = Advance::default();
        while !input.is_empty() {
            if self.payload_bytes_left == 0 {
                let (head, rest) =
                    input.split_at(input.len().min(RECORD_HEADER_BYTES - self.header_bytes));
                self.header[self.header_bytes..self.header_bytes + head.len()]
                    .copy_from_slice(head);
                self.header_bytes += head.len();
                input = rest;
                if self.header_bytes < RECORD_HEADER_BYTES {
                    break;
                }
                let [kind, major, _, high, low] = self.header;
                self.payload_bytes_left = usize::from(u16::from_be_bytes([high, low]));
                let is_legal = (20..=24).contains(&kind)
                    && major == 3
                    && self.payload_bytes_left <= RECORD_WIRE_BYTES_MAX - RECORD_HEADER_BYTES;
                if !is_legal {
                    self.payload_bytes_left = 0;
                    seen.is_absurd = true;
                    break;
                }
            } else {
                let taken = input.len().min(self.payload_bytes_left);
                self.payload_bytes_left -= taken;
                input = &input[taken..];
            }
            if self.payload_bytes_left == 0 {
                self.header_bytes = 0;
                seen.records += 1;
            }
        }
        seen.bytes = all_bytes - input.len();
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three records: 3 bytes, none, 300 bytes.
    fn stream() -> Vec<u8> {
        let mut bytes = vec![22, 3, 1, 0, 3, 1, 2, 3, 23, 3, 3, 0, 0, 23, 3, 3, 1, 44];
        bytes.resize(bytes.len() + 300, 7);
        bytes
    }

    #[test]
    fn every_split_counts_the_same_records() {
        let bytes = stream();
        for cut in 0..=bytes.len() {
            let mut cursor = RecordCursor::default();
            let first = cursor.advance(&bytes[..cut]);
            let torn = [0, 8, 13, bytes.len()].into_iter().filter(|end| *end <= cut).max().unwrap();
            assert_eq!(cursor.torn_bytes(), cut - torn, "cut at {cut}");
            let second = cursor.advance(&bytes[cut..]);
            assert_eq!(first.records + second.records, 3, "cut at {cut}");
            assert!(cursor.is_at_boundary(), "cut at {cut}");
        }
    }

    #[test]
    fn obeying_wanted_bytes_stops_on_every_boundary() {
        let bytes = stream();
        let (mut cursor, mut at, mut boundaries) = (RecordCursor::default(), 0, vec![]);
        while at < bytes.len() {
            let wanted = cursor.wanted_bytes();
            assert!(wanted > 0);
            cursor.advance(&bytes[at..at + wanted]);
            at += wanted;
            if cursor.is_at_boundary() {
                boundaries.push(at);
            }
        }
        assert_eq!(boundaries, [8, 13, bytes.len()]);
    }

    #[test]
    fn absurd_headers_are_told_at_their_fifth_byte() {
        for header in [*b"GET /", [3, 0, 0, 0, 0], [22, 2, 0, 0, 5], [23, 3, 3, 0xff, 0xff]] {
            let mut cursor = RecordCursor::default();
            assert!(!cursor.advance(&header[..4]).is_absurd);
            let seen = cursor.advance(&[header[4], 1, 2, 3]);
            assert_eq!((seen.is_absurd, seen.bytes, seen.records), (true, 1, 0), "{header:?}");
            assert!(cursor.wanted_bytes() > 0 && !cursor.is_at_boundary());
        }
    }
}
