//! Reads FLV: the file header once, then tags. Script data is passed over.
//!
//! ```text
//!  "FLV" 1 flags 9 · size 0     kind 8 · length 24 · time 24 · top 8 · 0 24   body   size 32     …
//! ```
//!
//! Spec: FLV 10.1 annex E.

use super::wide;
use crate::num::low_u32;
use crate::viewer::{Piece, Shape};
use rtmp::kind;
use rtmp::session::MediaKind;

const FILE_HEADER_BYTES: usize = 13;
const TAG_HEADER_BYTES: usize = 11;
const TRAILER_BYTES: usize = 4;

#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    FileHeader,
    TagHeader,
    Body {
        kind: Option<MediaKind>,
        timestamp: u32,
        length: u32,
        left: u32,
    },
    Trailer {
        length: u32,
    },
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct FlvReader {
    state: State,
    kept: [u8; FILE_HEADER_BYTES],
    have: usize,
}

impl FlvReader {
    /// See [`Container::handle_bytes`](super::Container::handle_bytes).
    pub(super) fn handle_bytes(
        &mut self,
        bytes: &[u8],
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        let mut input = bytes;
        while !input.is_empty() {
            match self.state {
                State::FileHeader => {
                    let Some(header) = self.collect(&mut input, FILE_HEADER_BYTES) else { break };
                    if !header.starts_with(b"FLV\x01") || header[5..] != [0, 0, 0, 9, 0, 0, 0, 0] {
                        return Err("flv: no file header");
                    }
                    self.state = State::TagHeader;
                }
                State::TagHeader => {
                    let Some(header) = self.collect(&mut input, TAG_HEADER_BYTES) else { break };
                    self.state = open_tag(&header)?;
                }
                State::Body { .. } => self.body(&mut input, tell),
                State::Trailer { length } => {
                    let Some(trailer) = self.collect(&mut input, TRAILER_BYTES) else { break };
                    if wide(&trailer[..TRAILER_BYTES]) != u64::from(length) + 11 {
                        return Err("flv: the size behind a tag is wrong");
                    }
                    self.state = State::TagHeader;
                }
            }
        }
        Ok(())
    }

    /// See [`Container::end_unit`](super::Container::end_unit).
    pub(super) fn end_unit(&self) -> Result<(), &'static str> {
        let is_between = self.state == State::TagHeader && self.have == 0;
        if is_between { Ok(()) } else { Err("flv: a frame ends within a tag") }
    }

    fn body(&mut self, input: &mut &[u8], tell: &mut dyn FnMut(&Piece<'_>)) {
        let State::Body { kind, timestamp, length, left } = self.state else { return };
        let count = input.len().min(left as usize);
        let (body, rest) = input.split_at(count);
        *input = rest;
        let after = left - u32::try_from(count).unwrap_or(left);
        if let Some(kind) = kind {
            let (first, last) = (left == length, after == 0);
            tell(&Piece { kind, timestamp, shape: Shape::Tag, first, last, body });
        }
        self.state = match after {
            0 => State::Trailer { length },
            left => State::Body { kind, timestamp, length, left },
        };
    }

    /// So many bytes together, once they are here.
    fn collect(&mut self, input: &mut &[u8], count: usize) -> Option<[u8; FILE_HEADER_BYTES]> {
        let taken = input.len().min(count - self.have);
        self.kept[self.have..self.have + taken].copy_from_slice(&input[..taken]);
        *input = &input[taken..];
        self.have += taken;
        if self.have < count {
            return None;
        }
        self.have = 0;
        Some(self.kept)
    }
}

fn open_tag(header: &[u8; FILE_HEADER_BYTES]) -> Result<State, &'static str> {
    let [id, l0, l1, l2, t0, t1, t2, top, stream @ ..] = *header;
    if stream[..3] != [0, 0, 0] {
        return Err("flv: a tag of another stream");
    }
    let kind = match id {
        kind::AUDIO => Some(MediaKind::Audio),
        kind::VIDEO => Some(MediaKind::Video),
        kind::DATA_AMF0 => None,
        _ => return Err("flv: a tag of no known kind"),
    };
    let length = low_u32(wide(&[l0, l1, l2]));
    let timestamp = u32::from_be_bytes([top, t0, t1, t2]);
    Ok(match length {
        0 => State::Trailer { length },
        _ => State::Body { kind, timestamp, length, left: length },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mux::flv::{Framing, file_header};
    use rtmp::MessageHeader;

    type Read = Result<Vec<(MediaKind, u32, Vec<u8>)>, &'static str>;

    fn read(bytes: &[u8], piece: usize) -> Read {
        let mut reader = FlvReader::default();
        let (mut found, mut body) = (Vec::new(), Vec::new());
        for bytes in bytes.chunks(piece) {
            reader.handle_bytes(bytes, &mut |piece| {
                if piece.first {
                    body.clear();
                }
                body.extend_from_slice(piece.body);
                if piece.last {
                    found.push((piece.kind, piece.timestamp, body.clone()));
                }
            })?;
        }
        reader.end_unit()?;
        Ok(found)
    }

    fn tag(kind: u8, timestamp: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        let header = MessageHeader { csid: 4, kind, msid: 1, timestamp, length };
        let framing = Framing::default();
        let mut out = vec![0; framing.framed_bytes(&header)];
        framing.begin(&header, &mut out).push(&mut out, body);
        out
    }

    #[test]
    fn tags_are_read_in_pieces_of_any_size() {
        let bytes = [
            file_header(true, true).to_vec(),
            tag(18, 0, b"meta"),
            tag(9, 0x0102_0304, &[5; 300]),
            tag(8, 7, &[]),
            tag(8, 8, &[6]),
        ]
        .concat();
        let wanted =
            vec![(MediaKind::Video, 0x0102_0304, vec![5; 300]), (MediaKind::Audio, 8, vec![6])];
        for piece in [1, 2, 13, 100, 1000] {
            assert_eq!(read(&bytes, piece).as_ref(), Ok(&wanted), "{piece}");
        }
    }

    #[test]
    fn what_is_wrong_has_a_name() {
        let header = file_header(true, true).to_vec();
        let mut torn = tag(9, 0, b"abc");
        *torn.last_mut().unwrap() += 1;
        let mut other = tag(9, 0, b"abc");
        other[10] = 1;
        for (bytes, word) in [
            (b"RTMP, no FLV at all".to_vec(), "no file header"),
            ([header.clone(), torn].concat(), "size behind"),
            ([header.clone(), other].concat(), "another stream"),
            ([header.clone(), tag(7, 0, b"a")].concat(), "no known kind"),
            ([header, tag(9, 0, b"abc")[..12].to_vec()].concat(), "within a tag"),
        ] {
            assert!(read(&bytes, 3).unwrap_err().contains(word), "{word}");
        }
    }
}
