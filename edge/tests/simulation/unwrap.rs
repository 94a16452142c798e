//! What a stream travels in over HTTP: chunks, WebSocket frames, or nothing.
//!
//! Stricter than any player: every length in its shortest form, and what cannot become right is refused at
//! the first wrong byte, however few have come.

/// What the pieces of a stream travel in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Chunks of HTTP/1.1.
    Chunks,
    /// Nothing: HTTP/1.0, where the body ends with the connection.
    Bare,
    /// Frames of a WebSocket.
    Frames,
}

/// Digits of the longest chunk that comes.
const CHUNK_DIGITS_MAX: usize = 6;

/// What was unwrapped.
#[derive(Debug)]
pub enum Piece {
    /// Of the stream: a file header, a tag, an init segment, a fragment.
    Body(Vec<u8>),
    /// What a page is told of the init segment that follows.
    Text(String),
    LastChunk,
    Pong(Vec<u8>),
    Close {
        code: u16,
        reason: String,
    },
}

/// The next whole piece of `input`, and how many bytes it takes with its wrapping. A bare one is as long as
/// `bare_bytes` says.
pub fn unwrap(
    form: Form,
    input: &[u8],
    bare_bytes: impl FnOnce(&[u8]) -> Option<usize>,
) -> Result<Option<(Piece, usize)>, String> {
    match form {
        Form::Chunks => next_chunk(input),
        Form::Frames => next_frame(input),
        Form::Bare => Ok(bare_bytes(input)
            .and_then(|bytes| Some((Piece::Body(input.get(..bytes)?.to_vec()), bytes)))),
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
    let piece = if length == 0 { Piece::LastChunk } else { Piece::Body(rest[..length].to_vec()) };
    Ok(Some((piece, bytes)))
}

fn next_frame(input: &[u8]) -> Result<Option<(Piece, usize)>, String> {
    let Some(first) = input.first() else { return Ok(None) };
    if !matches!(first, 0x81 | 0x82 | 0x88 | 0x8A) {
        return Err(format!("a frame begins with {first:x}"));
    }
    let is_control = first & 0x08 != 0;
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
        (0x82, _) => Piece::Body(payload.to_vec()),
        (0x81, _) => {
            Piece::Text(String::from_utf8(payload.to_vec()).map_err(|error| error.to_string())?)
        }
        (0x8A, _) => Piece::Pong(payload.to_vec()),
        (_, [a, b, reason @ ..]) => Piece::Close {
            code: u16::from_be_bytes([*a, *b]),
            reason: String::from_utf8(reason.to_vec()).map_err(|error| error.to_string())?,
        },
        _ => return Err("a close frame without a code".to_owned()),
    };
    Ok(Some((piece, header_bytes + length)))
}
