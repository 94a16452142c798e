//! Finds the end of a head, byte by byte, before anything of it is understood.
//!
//! A head is scanned once however it was split, so a slow peer costs what a fast one does. The
//! scan also refuses what readers disagree about: a line that ends with a bare LF, a bare CR, a
//! line that continues the one before. So the parser behind it meets whole heads made of plain
//! lines only.
//!
//! ```text
//!            ┌─────────── other ────────────┐
//!  at start ─┴─► in line ─── CR ──► CR seen ── LF ─┬─► at start      line counted
//!    │                                 ▲           ├─► end           line was empty
//!    └───────────── CR ────────────────┘           └─► at start      empty line before a request
//! ```
//!
//! Spec: RFC 9112 §2.2, §5.1, §5.2.

use crate::{HttpError, Limits};

/// Empty lines that may stand before a request line: some clients send one behind a body.
pub(crate) const BLANK_LINES_MAX: u8 = 4;

/// Place within a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct HeadScan {
    bytes: usize,
    lines: usize,
    line: Line,
    blank_lines: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Line {
    #[default]
    Start,
    Inside,
    /// CR seen; `true` when the line has bytes before it.
    Return(bool),
}

/// What was found in a piece of input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scanned {
    /// Bytes at the front that belong to empty lines before the head, also those of earlier
    /// pieces when this is not zero.
    pub(crate) blank_bytes: usize,
    /// Bytes up to the end of the head, if it is here.
    pub(crate) end: Option<usize>,
}

/// A head that is refused, and the byte of the piece which decided it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    pub(crate) error: HttpError,
    pub(crate) at: usize,
}

impl HeadScan {
    /// True when no byte of a request was seen.
    pub(crate) fn is_idle(&self) -> bool {
        self.bytes == 0
    }

    /// Lines behind the request line so far.
    pub(crate) fn headers(&self) -> usize {
        self.lines.saturating_sub(1)
    }

    /// Looks at `input` up to the end of the head.
    pub(crate) fn scan(&mut self, limits: &Limits, input: &[u8]) -> Result<Scanned, Refused> {
        let mut blank_bytes = 0;
        for (at, &byte) in input.iter().enumerate() {
            match self.step(limits, byte).map_err(|error| Refused { error, at })? {
                Step::On => {}
                Step::Blank => blank_bytes = at + 1,
                Step::End => return Ok(Scanned { blank_bytes, end: Some(at + 1) }),
            }
        }
        Ok(Scanned { blank_bytes, end: None })
    }

    fn step(&mut self, limits: &Limits, byte: u8) -> Result<Step, HttpError> {
        if self.bytes >= limits.head_bytes_max {
            return Err(if self.lines == 0 {
                HttpError::UriTooLong
            } else {
                HttpError::HeadTooLarge
            });
        }
        self.bytes += 1;
        self.line = match (self.line, byte) {
            (Line::Return(has_bytes), b'\n') => return self.line_ended(limits, has_bytes),
            (Line::Return(_), _) | (_, b'\n') => return Err(HttpError::LineEnd),
            (line, b'\r') => Line::Return(line == Line::Inside),
            (Line::Start, b' ' | b'\t') if self.lines > 0 => return Err(HttpError::FoldedHeader),
            (_, b'\t') if self.lines > 0 => Line::Inside,
            (_, 0..=0x1F | 0x7F) => return Err(HttpError::ControlCharacter),
            _ => Line::Inside,
        };
        Ok(Step::On)
    }

    fn line_ended(&mut self, limits: &Limits, has_bytes: bool) -> Result<Step, HttpError> {
        self.line = Line::Start;
        if has_bytes {
            self.lines += 1;
            if self.headers() > limits.headers_max {
                return Err(HttpError::HeadTooLarge);
            }
            return Ok(Step::On);
        }
        if self.lines > 0 {
            return Ok(Step::End);
        }
        self.bytes = 0;
        self.blank_lines += 1;
        if self.blank_lines > BLANK_LINES_MAX {
            return Err(HttpError::RequestLine);
        }
        Ok(Step::Blank)
    }
}

enum Step {
    On,
    Blank,
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(input: &[u8]) -> Result<Scanned, Refused> {
        HeadScan::default().scan(&Limits::default(), input)
    }

    fn refused(error: HttpError, at: usize) -> Result<Scanned, Refused> {
        Err(Refused { error, at })
    }

    #[test]
    fn a_head_ends_behind_its_first_empty_line() {
        let found = |blank_bytes, end| Ok(Scanned { blank_bytes, end });
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest"), found(0, Some(24)));
        assert_eq!(scan(b"G\r\n\r\n\r\n"), found(0, Some(5)));
        assert_eq!(scan(b"G\r\n\r"), found(0, None));
        assert_eq!(scan(b"\r\n\r\nG\r\n\r\n"), found(4, Some(9)));
        assert_eq!(scan(b""), found(0, None));
    }

    #[test]
    fn lines_that_readers_end_differently_are_refused_at_their_byte() {
        assert_eq!(scan(b"GET / HTTP/1.1\nHost: a\n\n"), refused(HttpError::LineEnd, 14));
        assert_eq!(scan(b"G\r\nA: b\rC: d\r\n\r\n"), refused(HttpError::LineEnd, 8));
        assert_eq!(scan(b"G\r\nA: b\r\r\n\r\n"), refused(HttpError::LineEnd, 8));
        assert_eq!(scan(b"G\r\nA: b\r\n c\r\n\r\n"), refused(HttpError::FoldedHeader, 9));
        assert_eq!(scan(b"G\r\n\tA: b\r\n\r\n"), refused(HttpError::FoldedHeader, 3));
        assert_eq!(scan(b"G\r\nA: \0\r\n\r\n"), refused(HttpError::ControlCharacter, 6));
        assert_eq!(scan(b"G\t/ HTTP/1.1\r\n\r\n"), refused(HttpError::ControlCharacter, 1));
    }

    #[test]
    fn empty_lines_before_a_request_are_few() {
        let mut scan = HeadScan::default();
        for _ in 0..BLANK_LINES_MAX {
            assert!(scan.scan(&Limits::default(), b"\r\n").is_ok());
            assert!(scan.is_idle());
        }
        assert_eq!(
            scan.scan(&Limits::default(), b"\r\n"),
            Err(Refused { error: HttpError::RequestLine, at: 1 })
        );
    }

    #[test]
    fn limits_hold_to_the_byte_and_to_the_field() {
        let head = b"GET / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n";
        let limits = Limits { head_bytes_max: head.len(), headers_max: 2, body_bytes_max: 0 };
        assert!(HeadScan::default().scan(&limits, head).is_ok());
        let tight = Limits { head_bytes_max: head.len() - 1, ..limits };
        assert_eq!(
            HeadScan::default().scan(&tight, head),
            refused(HttpError::HeadTooLarge, head.len() - 1)
        );
        let few = Limits { headers_max: 1, ..limits };
        assert_eq!(HeadScan::default().scan(&few, head), refused(HttpError::HeadTooLarge, 27));
        let line = Limits { head_bytes_max: 8, ..limits };
        assert_eq!(HeadScan::default().scan(&line, head), refused(HttpError::UriTooLong, 8));
    }
}
