//! Reads FLV as it comes over HTTP: a file header, then tags, one per chunk or frame.

use super::link::Received;
use super::media::{AUDIO, DATA, VIDEO};

const FILE_HEADER_BYTES: usize = 13;
const TAG_HEADER_BYTES: usize = 11;
const SIZE_BYTES: usize = 4;
/// A reader of one viewer's stream.
#[derive(Debug)]
pub struct FlvReader {
    wants_audio: bool,
    wants_video: bool,
    has_header: bool,
}

impl FlvReader {
    pub fn new(wants_audio: bool, wants_video: bool) -> Self {
        Self { wants_audio, wants_video, has_header: false }
    }

    /// Length of the next piece, if it is known.
    pub fn bare_bytes(&self, input: &[u8]) -> Option<usize> {
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
