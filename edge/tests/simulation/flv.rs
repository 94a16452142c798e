//! Reads FLV as it comes over HTTP: chunks or WebSocket frames around tags, and the tags themselves.
//!
//! Stricter than any player: every length in its shortest form, one tag per chunk or frame, and what
//! cannot become right is refused at the first wrong byte, however few have come.

use super::link::Received;
use super::media::{AUDIO, DATA, VIDEO};

/// What the tags travel in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Chunks of HTTP/1.1.
    Chunks,
    /// Nothing: HTTP/1.0, where the body ends with the connection.
    Bare,
    /// Frames of a WebSocket.
    Frames,
}

const FILE_HEADER_BYTES: usize = 13;
const TAG_HEADER_BYTES: usize = 11;
const SIZE_BYTES: usize = 4;
/// Digits of the longest chunk that comes.
const CHUNK_DIGITS_MAX: usize = 6;

/// What was unwrapped.
#[derive(Debug)]
pub enum Piece {
    /// The file header or one tag.
    Flv(Vec<u8>),
    LastChunk,
    Pong(Vec<u8>),
    Close {
        code: u16,
        reason: String,
    },
}

/// A reader of one viewer's stream.
#[derive(Debug)]
pub struct FlvReader {
    pub form: Form,
    wants_audio: bool,
    wants_video: bool,
    has_header: bool,
}

impl FlvReader {
    pub fn new(form: Form, wants_audio: bool, wants_video: bool) -> Self {
        Self { form, wants_audio, wants_video, has_header: false }
    }

    /// The next whole piece of `input`, and how many bytes it takes with its wrapping.
    pub fn unwrap(&self, input: &[u8]) -> Result<Option<(Piece, usize)>, String> {
        match self.form {
            Form::Chunks => next_chunk(input),
            Form::Frames => next_frame(input),
            Form::Bare => Ok(self
                .bare_bytes(input)
                .and_then(|bytes| Some((Piece::Flv(input.get(..bytes)?.to_vec()), bytes)))),
        }
    }

    fn bare_bytes(&self, input: &[u8]) -> Option<usize> {
        if !self.has_header {
            return Some(FILE_HEADER_BYTES);
        }
        let length = u32::from_be_bytes([0, *input.get(1)?, *input.get(2)?, *input.get(3)?]);
        Some(TAG_HEADER_BYTES + length as usize + SIZE_BYTES)
    }

    /// A message of a tag; `None` for the file header.
    pub fn take(&mut self, piece: &[u8]) -> Result<Option<Received>, String> {
        if !std::mem::replace(&mut self.has_header, true) {
            return self.take_header(piece).map(|()| None);
        }
        let [kind, l2, l1, l0, t2, t1, t0, t3, 0, 0, 0, rest @ ..] = piece else {
            return Err(format!("no tag: {:x?}", piece.get(..24).unwrap_or(piece)));
        };
        let length = u32::from_be_bytes([0, *l2, *l1, *l0]) as usize;
        if rest.len() != length + SIZE_BYTES {
            return Err(format!("a tag of {length} bytes in a piece of {}", piece.len()));
        }
        let (body, size) = rest.split_at(length);
        if size != u32::try_from(TAG_HEADER_BYTES + length).expect("small").to_be_bytes() {
            return Err(format!("a tag of {length} bytes is followed by the size {size:x?}"));
        }
        let is_wanted = match *kind {
            AUDIO => self.wants_audio,
            VIDEO => self.wants_video,
            DATA => true,
            _ => return Err(format!("a tag of type {kind}")),
        };
        if !is_wanted {
            return Err(format!("a tag of type {kind}, which the viewer does not want"));
        }
        let timestamp = u32::from_be_bytes([*t3, *t2, *t1, *t0]);
        Ok(Some(Received { kind: *kind, msid: 1, timestamp, body: body.to_vec() }))
    }

    fn take_header(&self, piece: &[u8]) -> Result<(), String> {
        let [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0] = piece else {
            return Err(format!("no file header: {:x?}", piece.get(..24).unwrap_or(piece)));
        };
        let allowed = u8::from(self.wants_audio) * 4 + u8::from(self.wants_video);
        if flags & !allowed != 0 {
            return Err(format!("the file header announces {flags}, wanted is {allowed}"));
        }
        Ok(())
    }
}

fn next_chunk(input: &[u8]) -> Result<Option<(Piece, usize)>, String> {
    let is_digit = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = input.iter().take_while(is_digit).count();
    let (number, rest) = input.split_at(digits);
    let is_well_begun = digits <= CHUNK_DIGITS_MAX && (digits < 2 || number[0] != b'0');
    if !is_well_begun || !(b"\r\n".starts_with(&rest[..rest.len().min(2)])) {
        return Err(format!("no length of a chunk: {:x?}", &input[..input.len().min(16)]));
    }
    if rest.len() < 2 {
        return Ok(None);
    }
    let number = std::str::from_utf8(number).expect("digits");
    let length = usize::from_str_radix(number, 16).map_err(|error| error.to_string())?;
    let rest = &rest[2..];
    let end = rest.get(length..).unwrap_or_default();
    if !b"\r\n".starts_with(&end[..end.len().min(2)]) {
        return Err(format!("a chunk of {length} bytes ends with {:x?}", &end[..2.min(end.len())]));
    }
    if end.len() < 2 {
        return Ok(None);
    }
    let bytes = digits + 2 + length + 2;
    let piece = if length == 0 { Piece::LastChunk } else { Piece::Flv(rest[..length].to_vec()) };
    Ok(Some((piece, bytes)))
}

fn next_frame(input: &[u8]) -> Result<Option<(Piece, usize)>, String> {
    let Some(first) = input.first() else { return Ok(None) };
    if !matches!(first, 0x82 | 0x88 | 0x8A) {
        return Err(format!("a frame begins with {first:x}"));
    }
    let is_control = *first != 0x82;
    let (length, header_bytes) = match input {
        [_, 126, a, b, ..] => (u64::from(u16::from_be_bytes([*a, *b])), 4),
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 10)
        }
        [_, 126 | 127, ..] | [_] => return Ok(None),
        [_, length, ..] => (u64::from(*length), 2),
        [] => return Ok(None),
    };
    let is_shortest = match header_bytes {
        2 => length < 126,
        4 => length >= 126,
        _ => (0x1_0000..0x100_0000).contains(&length),
    };
    if !is_shortest || (is_control && header_bytes > 2) {
        return Err(format!("a frame {first:x} of {length} bytes after {header_bytes}"));
    }
    let length = usize::try_from(length).expect("small");
    let Some(payload) = input.get(header_bytes..header_bytes + length) else { return Ok(None) };
    let piece = match (first, payload) {
        (0x82, _) => Piece::Flv(payload.to_vec()),
        (0x8A, _) => Piece::Pong(payload.to_vec()),
        (_, [a, b, reason @ ..]) => Piece::Close {
            code: u16::from_be_bytes([*a, *b]),
            reason: String::from_utf8(reason.to_vec()).map_err(|error| error.to_string())?,
        },
        _ => return Err("a close frame without a code".to_owned()),
    };
    Ok(Some((piece, header_bytes + length)))
}
