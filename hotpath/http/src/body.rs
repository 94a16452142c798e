//! Bodies of requests: counted, bounded, thrown away.
//!
//! Nothing that is served needs one, yet the next request stands behind it, so where it ends must
//! be known for sure.
//!
//! ```text
//!  size ──┬─ CR ──────► LF ──┬─► data ─► CR ─► LF ─► size
//!         └─ ; ─► extension ─┘
//!                            └─ size 0 ─► trailer lines ─► empty line: end
//! ```
//!
//! Spec: RFC 9112 §6.1-§6.3, §7.1.

use crate::fields::{self, Fields};
use crate::{HttpError, Limits};

/// Digits of a chunk's size: what 64 bits hold, leading zeros included.
const SIZE_DIGITS_MAX: u8 = 16;

/// What is left of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    /// So many bytes.
    Bytes(u64),
    /// Chunks up to one of size 0 and the trailer behind it.
    Chunks(Chunks),
}

impl Body {
    /// The body that the head announces.
    pub(crate) fn of(
        limits: &Limits,
        fields: Fields<'_>,
        is_http_1_1: bool,
    ) -> Result<Self, HttpError> {
        // Also when both say the same: another reader may have taken the list for one number.
        let length = fields.only("content-length").map_err(|_| HttpError::BodyLength)?;
        if fields.has("transfer-encoding") {
            // A server of version 1.0 does not know of chunks and would have read another body.
            if length.is_some() || !is_http_1_1 {
                return Err(HttpError::BodyLength);
            }
            is_chunked(fields)?;
            return Ok(Self::Chunks(Chunks::default()));
        }
        let Some(digits) = length else { return Ok(Self::Bytes(0)) };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(HttpError::BodyLength);
        }
        // Digits beyond 64 bits are a length all the same.
        let bytes = fields::decimal(digits).unwrap_or(u64::MAX);
        if bytes > limits.body_bytes_max {
            return Err(HttpError::BodyTooLarge);
        }
        Ok(Self::Bytes(bytes))
    }

    /// True when the request ends with its head.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::Bytes(0)
    }

    /// Takes bytes of the body. True: it is over.
    pub(crate) fn skip(&mut self, limits: &Limits, input: &mut &[u8]) -> Result<bool, HttpError> {
        match self {
            Self::Bytes(left) => {
                skip_bytes(left, input);
                Ok(*left == 0)
            }
            Self::Chunks(chunks) => chunks.skip(limits, input),
        }
    }
}

/// `chunked` is the only coding, and once. Anything with another one is not spoken here, unless it
/// leaves the end of the body unknown.
fn is_chunked(fields: Fields<'_>) -> Result<(), HttpError> {
    let mut chunked = 0;
    let mut others = 0;
    let mut ends_with_chunked = false;
    for coding in fields.elements("transfer-encoding") {
        ends_with_chunked = coding.eq_ignore_ascii_case(b"chunked");
        if ends_with_chunked {
            chunked += 1;
        } else {
            others += 1;
        }
    }
    // A list of one, spread over commas or fields, is legal and sent by nobody honest.
    let is_plain = fields
        .only("transfer-encoding")
        .is_ok_and(|value| value.is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")));
    match (chunked, others) {
        (1, 0) if is_plain => Ok(()),
        (0, 1..) => Err(HttpError::TransferCoding),
        (1, 1..) if ends_with_chunked => Err(HttpError::TransferCoding),
        _ => Err(HttpError::BodyLength),
    }
}

fn skip_bytes(left: &mut u64, input: &mut &[u8]) {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *input = input.get(here..).unwrap_or_default();
    *left -= here as u64;
}

/// Place within a chunked body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chunks {
    part: Part,
    data_bytes: u64,
    /// Bytes of extensions and trailer: they carry nothing, so they may not be many.
    idle_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeReturn { size: u64 },
    Data { left: u64 },
    DataEnd,
    DataReturn,
    TrailerStart { is_first: bool },
    TrailerLine,
    TrailerReturn,
    EndReturn,
    End,
}

impl Default for Part {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl Chunks {
    fn skip(&mut self, limits: &Limits, input: &mut &[u8]) -> Result<bool, HttpError> {
        loop {
            if let Part::Data { left } = &mut self.part {
                skip_bytes(left, input);
                if *left == 0 {
                    self.part = Part::DataEnd;
                }
            }
            if self.part == Part::End {
                return Ok(true);
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(false) };
            self.part = self.step(limits, byte)?;
            *input = rest;
        }
    }

    /// What follows a byte that is no data.
    fn step(&mut self, limits: &Limits, byte: u8) -> Result<Part, HttpError> {
        Ok(match (self.part, byte) {
            (Part::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(HttpError::Chunk);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Part::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (Part::Size { digits: 1.., size }, b'\r') => Part::SizeReturn { size },
            (Part::Size { digits: 1.., size }, b';') => {
                self.idle(limits, Part::Extension { size })?
            }
            (Part::Extension { size }, b'\r') => Part::SizeReturn { size },
            (Part::Extension { size }, b'\t' | 0x20..=0x7E | 0x80..) => {
                self.idle(limits, Part::Extension { size })?
            }
            (Part::SizeReturn { size: 0 }, b'\n') => Part::TrailerStart { is_first: true },
            (Part::SizeReturn { size }, b'\n') => self.chunk(limits, size)?,
            (Part::DataEnd, b'\r') => Part::DataReturn,
            (Part::DataReturn, b'\n') => Part::default(),
            (Part::TrailerStart { .. }, b'\r') => Part::EndReturn,
            (Part::TrailerStart { is_first: false }, b' ' | b'\t') => {
                return Err(HttpError::FoldedHeader);
            }
            (Part::TrailerStart { .. }, 0x21..=0x7E) => self.idle(limits, Part::TrailerLine)?,
            (Part::TrailerLine, b'\r') => Part::TrailerReturn,
            (Part::TrailerLine, b'\t' | 0x20..=0x7E | 0x80..) => {
                self.idle(limits, Part::TrailerLine)?
            }
            (Part::TrailerReturn, b'\n') => Part::TrailerStart { is_first: false },
            (Part::EndReturn, b'\n') => Part::End,
            _ => return Err(HttpError::Chunk),
        })
    }

    fn chunk(&mut self, limits: &Limits, size: u64) -> Result<Part, HttpError> {
        self.data_bytes = self.data_bytes.saturating_add(size);
        if self.data_bytes > limits.body_bytes_max {
            return Err(HttpError::BodyTooLarge);
        }
        Ok(Part::Data { left: size })
    }

    fn idle(&mut self, limits: &Limits, part: Part) -> Result<Part, HttpError> {
        self.idle_bytes += 1;
        if self.idle_bytes > limits.head_bytes_max {
            return Err(HttpError::HeadTooLarge);
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(text: &[u8]) -> Result<(bool, usize), HttpError> {
        let limits = Limits { head_bytes_max: 20, headers_max: 1, body_bytes_max: 0x20 };
        let mut input = text;
        let over = Body::Chunks(Chunks::default()).skip(&limits, &mut input)?;
        Ok((over, input.len()))
    }

    #[test]
    fn chunks_end_behind_the_trailer_and_leave_the_rest() {
        assert_eq!(skip(b"0\r\n\r\nGET"), Ok((true, 3)));
        assert_eq!(skip(b"3\r\nabc\r\n00A\r\n0123456789\r\n000\r\n\r\n"), Ok((true, 0)));
        assert_eq!(skip(b"3;a=\"b\"\r\nabc\r\n0;x\r\nA: b\r\nC:\r\n\r\nX"), Ok((true, 1)));
        assert_eq!(skip(b"3\r\n\r\n\r\r\n0\r\n\r"), Ok((false, 0)));
        assert_eq!(skip(b"20\r\n"), Ok((false, 0)));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for text in [
            &b"\r\n"[..],
            b";\r\n",
            b"x\r\n",
            b"+3\r\nabc\r\n",
            b"0x3\r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"3 \r\nabc\r\n",
            b"3\nabc\r\n",
            b"3\r\rabc\r\n",
            b"3\r\nabcd",
            b"3\r\nabc\n",
            b"3\r\nabc\r\r",
            b"3;a\nb\r\nabc",
            b"00000000000000003\r\nabc",
            b"0\r\n\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n A: b\r\n\r\n",
            b"0\r\n\0",
            b"0\r\nA\0",
        ] {
            assert_eq!(skip(text), Err(HttpError::Chunk), "{}", text.escape_ascii());
        }
        assert_eq!(skip(b"0\r\nA: b\r\n c\r\n\r\n"), Err(HttpError::FoldedHeader));
    }

    #[test]
    fn chunks_extensions_and_trailers_are_bounded() {
        assert_eq!(skip(b"21\r\n"), Err(HttpError::BodyTooLarge));
        assert_eq!(skip(b"FFFFFFFFFFFFFFFF\r\n"), Err(HttpError::BodyTooLarge));
        assert_eq!(skip(b"1\r\na\r\n20\r\n"), Err(HttpError::BodyTooLarge));
        assert_eq!(skip(b"1;aaaaaaaaaaaaaaaaaaa\r\n"), Ok((false, 0)));
        assert_eq!(skip(b"1;aaaaaaaaaaaaaaaaaaaa\r\n"), Err(HttpError::HeadTooLarge));
        assert_eq!(skip(b"0\r\nA: aaaaaaaaa\r\nB: bbbbbbbbb\r\n"), Err(HttpError::HeadTooLarge));
    }
}
