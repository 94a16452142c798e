//! Names of init segments, segments and parts: written into playlists, read from requests.
//!
//! `init-1.mp4` · `seg-12.ts`, `seg-12.m4s` · `part-12.3.ts`, `part-12.3.m4s`; in front of each the
//! folder it is found in, behind each the query the viewer came with, so that a signature or a
//! session travels along.

use alloc::string::String;
use core::fmt::{self, Write};

use crate::segment::Container;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// An init segment.
    Init {
        /// Its generation.
        generation: u32,
    },
    /// A whole segment.
    Segment {
        /// Its sequence number.
        sequence: u64,
    },
    /// A part of a segment.
    Part {
        /// The segment's sequence number.
        sequence: u64,
        /// The part's number in it.
        part: u32,
    },
}

/// Makes names.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Decides the suffix.
    pub container: Container,
    /// Put in front: a folder relative to the playlist, with its final slash, or empty. Must be
    /// written as in a URL, as `query` must; otherwise it is left out whole.
    pub prefix: &'a str,
    /// Appended behind a question mark unless empty. Must be a valid query: no quotes, no control
    /// characters; others are the caller's mistake, and are left out whole.
    pub query: &'a str,
}

impl Names<'_> {
    /// Appends a name to `out`.
    ///
    /// # Errors
    /// Never: writing to a string does not fail. The type is that of [`fmt::Write`].
    pub fn write(&self, name: Name, out: &mut String) -> fmt::Result {
        let suffix = suffix(self.container);
        if is_clean(self.prefix) {
            out.push_str(self.prefix);
        }
        match name {
            Name::Init { generation } => write!(out, "init-{generation}.mp4")?,
            Name::Segment { sequence } => write!(out, "seg-{sequence}.{suffix}")?,
            Name::Part { sequence, part } => write!(out, "part-{sequence}.{part}.{suffix}")?,
        }
        if is_clean(self.query) && !self.query.is_empty() {
            write!(out, "?{}", self.query)?;
        }
        Ok(())
    }
}

impl Name {
    /// Reads the last part of a request's path, without query. `None` for anything that
    /// [`Names::write`] would not write.
    pub fn parse(name: &str, container: Container) -> Option<Self> {
        let (stem, found) = name.rsplit_once('.')?;
        let parsed = if let Some(number) = stem.strip_prefix("init-") {
            Self::Init { generation: decimal(number)? }
        } else if let Some(number) = stem.strip_prefix("seg-") {
            Self::Segment { sequence: decimal(number)? }
        } else {
            let (sequence, part) = stem.strip_prefix("part-")?.split_once('.')?;
            Self::Part { sequence: decimal(sequence)?, part: decimal(part)? }
        };
        let wanted = match (parsed, container) {
            (Self::Init { .. }, Container::Fmp4) => "mp4",
            (Self::Init { .. }, Container::Ts) => return None,
            _ => suffix(container),
        };
        (found == wanted).then_some(parsed)
    }
}

const fn suffix(container: Container) -> &'static str {
    match container {
        Container::Ts => "ts",
        Container::Fmp4 => "m4s",
    }
}

/// Cannot end a quoted string, a line or an address.
fn is_clean(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

/// Digits only, no sign, no leading zeros: one name for one thing.
fn decimal<N: core::str::FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if digits && canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is() {
        for container in [Container::Ts, Container::Fmp4] {
            let names = Names { container, prefix: "", query: "" };
            for name in [
                Name::Segment { sequence: u64::MAX },
                Name::Part { sequence: 0, part: 12 },
                Name::Init { generation: 3 },
            ] {
                let mut text = String::new();
                names.write(name, &mut text).unwrap();
                let wanted = match (name, container) {
                    (Name::Init { .. }, Container::Ts) => None,
                    _ => Some(name),
                };
                assert_eq!(Name::parse(&text, container), wanted, "{text}");
            }
        }
        for text in ["seg-01.ts", "seg-+1.ts", "seg-.ts", "seg-1.m4s", "part-1.ts", "seg-1", ""] {
            assert_eq!(Name::parse(text, Container::Ts), None, "{text}");
        }
    }

    #[test]
    fn the_query_travels_along_unless_it_would_break_the_line() {
        let mut text = String::new();
        let name = Name::Segment { sequence: 1 };
        let container = Container::Ts;
        Names { container, prefix: "x/7f/", query: "a=b" }.write(name, &mut text).unwrap();
        assert_eq!(text, "x/7f/seg-1.ts?a=b");
        for bad in ["a\"b", "a\nb", "a b"] {
            text.clear();
            Names { container, prefix: bad, query: bad }.write(name, &mut text).unwrap();
            assert_eq!(text, "seg-1.ts");
        }
    }
}
