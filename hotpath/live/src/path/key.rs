//! The parameters a peer presents with a stream's name: its stream key. A secret.
//!
//! Kept raw, because signatures are made over the raw text by some schemes; decoded on request,
//! once. Never printed: `Debug` tells the number of bytes, there is no `Display`, and there is no
//! `==` that would compare secrets in a time depending on them.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use super::{KEY_BYTES_MAX, PathError};

/// Raw query of a publish or play, without the leading `?`. At most [`KEY_BYTES_MAX`] bytes.
#[derive(Clone, Default)]
pub struct StreamKey {
    raw: Box<str>,
}

impl StreamKey {
    /// Takes a raw query without its `?`.
    ///
    /// # Errors
    /// [`PathError::KeyTooLong`] over [`KEY_BYTES_MAX`].
    pub fn new(raw: &str) -> Result<Self, PathError> {
        if raw.len() > KEY_BYTES_MAX {
            return Err(PathError::KeyTooLong);
        }
        Ok(Self { raw: Box::from(raw) })
    }

    /// True when the peer presented nothing.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The secret text, for checking signatures and for hooks. Not for logs.
    pub fn expose(&self) -> &str {
        &self.raw
    }

    /// The pairs in the order they came, decoded once. A part without `=` has an empty value.
    pub fn pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        raw_pairs(&self.raw).map(|(name, value)| (decode(name), decode(value)))
    }

    /// The decoded value of the first parameter called `name` (case matters).
    pub fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.pairs().find(|(candidate, _)| candidate == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamKey({} bytes, redacted)", self.raw.len())
    }
}

/// The pairs of a raw query, still encoded; empty parts are left out.
pub(super) fn raw_pairs(raw: &str) -> impl Iterator<Item = (&str, &str)> {
    raw.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Percent-decodes once, leniently: `+` stays, and an escape that is cut short, not hexadecimal or
/// not UTF-8 stays as it is, so that a name with a bare `%` still names something.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (plain, escapes) = rest.split_at(at);
        decoded.push_str(plain);
        rest = decode_run(escapes, &mut decoded);
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// Decodes the escapes at the start of `text` (which starts with `%`) and returns what follows.
fn decode_run<'t>(text: &'t str, decoded: &mut String) -> &'t str {
    let mut rest = text;
    while let Some(first) = escaped_byte(rest) {
        // An escaped character has as many escapes as UTF-8 has bytes for it: one to four.
        let mut bytes = [first, 0, 0, 0];
        let width = utf8_width(first);
        let mut after = rest.get(3..).unwrap_or_default();
        for slot in bytes.iter_mut().take(width).skip(1) {
            let Some(byte) = escaped_byte(after) else { break };
            *slot = byte;
            after = after.get(3..).unwrap_or_default();
        }
        let Some(Ok(c)) = bytes.get(..width).map(core::str::from_utf8) else { break };
        decoded.push_str(c);
        rest = after;
    }
    if rest.len() == text.len() {
        decoded.push('%');
        return rest.strip_prefix('%').unwrap_or_default();
    }
    rest
}

fn escaped_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix('%')?.get(..2)?;
    // `from_str_radix` alone would take a sign.
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
    u8::from_str_radix(digits, 16).ok()
}

fn utf8_width(first: u8) -> usize {
    match first {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF7 => 4,
        _ => 1,
    }
}
