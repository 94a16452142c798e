//! Splits an aggregate message into the messages it is made of, while it streams through.
//!
//! ```text
//!   sub-message:  type 1 · size 3 · timestamp 3 + 1 · msid 3 │ body (size) │ back pointer 4
//! ```
//!
//! Media bodies are borrowed, data messages are assembled (bounded), other kinds are skipped. The first
//! sub-message has the timestamp of the aggregate; the others keep their distance to the first.
//! A size that goes beyond the aggregate ends it: what follows cannot be told apart.
//! A missing last back pointer is no error.
//! Spec: RTMP 1.0 §7.1.6.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::event::MediaKind;
use super::inbound::{append_bounded, len_u32};
use crate::message::kind;

const HEADER_BYTES: usize = 11;
const BACK_POINTER_BYTES: u32 = 4;

/// The place within one aggregate message.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Debug)]
pub(super) struct Aggregate {
    /// Timestamp of the aggregate message.
    timestamp: u32,
    /// Body bytes of the aggregate that were not read yet.
    left: u32,
    /// Timestamp written in the first sub-message.
    first_sub_timestamp: Option<u32>,
    place: Place,
}

#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Debug)]
enum Place {
    Header {
        bytes: [u8; HEADER_BYTES],
        held: usize,
    },
    Media {
        kind: MediaKind,
        timestamp: u32,
        length: u32,
        offset: u32,
    },
    Data {
        timestamp: u32,
        length: u32,
        bytes: Vec<u8>,
    },
    /// A body of no interest and the back pointer after it, or the back pointer alone.
    Skip {
        left: u32,
    },
    /// Cannot be told apart from here on.
    Lost,
}

/// What one step brought.
#[derive(Debug)]
pub(super) enum Piece<'b> {
    Media(MediaPiece<'b>),
    Data { timestamp: u32, body: Cow<'b, [u8]> },
}

#[derive(Debug)]
pub(super) struct MediaPiece<'b> {
    pub(super) kind: MediaKind,
    pub(super) timestamp: u32,
    pub(super) length: u32,
    pub(super) offset: u32,
    pub(super) body: &'b [u8],
    pub(super) last: bool,
}

/// A data message does not fit into what may be held.
#[derive(Debug)]
pub(super) struct NoRoom;

impl Aggregate {
    pub(super) fn new(timestamp: u32, length: u32) -> Self {
        Self { timestamp, left: length, first_sub_timestamp: None, place: Place::header() }
    }

    /// Bytes of a data message held so far.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.place {
            Place::Data { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }

    /// The media message that has begun and not ended.
    pub(super) fn open_media(&self) -> Option<MediaKind> {
        match self.place {
            Place::Media { kind, offset, .. } if offset > 0 => Some(kind),
            _ => None,
        }
    }

    /// Reads on until there is a piece or the input is used up. `room` bounds what may be held in addition.
    pub(super) fn next<'b>(
        &mut self,
        input: &mut &'b [u8],
        data_bytes_max: u32,
        room: usize,
    ) -> Result<Option<Piece<'b>>, NoRoom> {
        while !input.is_empty() {
            match &mut self.place {
                Place::Header { bytes, held } => {
                    let taken = take(input, HEADER_BYTES - *held);
                    for (to, from) in bytes.iter_mut().skip(*held).zip(taken) {
                        *to = *from;
                    }
                    *held += taken.len();
                    self.left = self.left.saturating_sub(len_u32(taken.len()));
                    if *held == HEADER_BYTES {
                        let header = *bytes;
                        self.place = self.after_header(header, data_bytes_max);
                    }
                }
                Place::Skip { left } => {
                    let taken = take(input, *left as usize).len();
                    *left -= len_u32(taken);
                    self.left = self.left.saturating_sub(len_u32(taken));
                    if *left == 0 {
                        self.place = Place::header();
                    }
                }
                Place::Lost => *input = &[],
                Place::Media { .. } => return Ok(self.media(input)),
                Place::Data { .. } => {
                    if let Some(piece) = self.data(input, room)? {
                        return Ok(Some(piece));
                    }
                }
            }
        }
        Ok(None)
    }

    fn after_header(&mut self, header: [u8; HEADER_BYTES], data_bytes_max: u32) -> Place {
        let [type_id, s2, s1, s0, t2, t1, t0, t3, ..] = header;
        let length = u32::from_be_bytes([0, s2, s1, s0]);
        let written = u32::from_be_bytes([t3, t2, t1, t0]);
        if length > self.left {
            return Place::Lost;
        }
        let first = *self.first_sub_timestamp.get_or_insert(written);
        let timestamp = self.timestamp.wrapping_add(written.wrapping_sub(first));
        match type_id {
            _ if length == 0 => Place::back_pointer(),
            kind::AUDIO => Place::Media { kind: MediaKind::Audio, timestamp, length, offset: 0 },
            kind::VIDEO => Place::Media { kind: MediaKind::Video, timestamp, length, offset: 0 },
            kind::DATA_AMF0 if length <= data_bytes_max => {
                Place::Data { timestamp, length, bytes: Vec::new() }
            }
            _ => Place::Skip { left: length + BACK_POINTER_BYTES },
        }
    }

    fn media<'b>(&mut self, input: &mut &'b [u8]) -> Option<Piece<'b>> {
        let Place::Media { kind, timestamp, length, offset: at } = &mut self.place else {
            return None;
        };
        let (kind, timestamp, length, offset) = (*kind, *timestamp, *length, *at);
        let body = take(input, (length - offset) as usize);
        self.left = self.left.saturating_sub(len_u32(body.len()));
        *at = offset + len_u32(body.len());
        let last = *at == length;
        if last {
            self.place = Place::back_pointer();
        }
        Some(Piece::Media(MediaPiece { kind, timestamp, length, offset, body, last }))
    }

    fn data<'b>(&mut self, input: &mut &'b [u8], room: usize) -> Result<Option<Piece<'b>>, NoRoom> {
        let Place::Data { timestamp, length, bytes } = &mut self.place else { return Ok(None) };
        let (timestamp, length) = (*timestamp, *length);
        let body = take(input, length as usize - bytes.len());
        self.left = self.left.saturating_sub(len_u32(body.len()));
        if body.len() == length as usize {
            self.place = Place::back_pointer();
            return Ok(Some(Piece::Data { timestamp, body: Cow::Borrowed(body) }));
        }
        if body.len() > room {
            return Err(NoRoom);
        }
        append_bounded(bytes, body, length);
        if bytes.len() < length as usize {
            return Ok(None);
        }
        let body = Cow::Owned(core::mem::take(bytes));
        self.place = Place::back_pointer();
        Ok(Some(Piece::Data { timestamp, body }))
    }
}

impl Place {
    const fn header() -> Self {
        Self::Header { bytes: [0; HEADER_BYTES], held: 0 }
    }

    const fn back_pointer() -> Self {
        Self::Skip { left: BACK_POINTER_BYTES }
    }
}

/// Splits off the first `bytes` bytes, or all there are.
fn take<'b>(input: &mut &'b [u8], bytes: usize) -> &'b [u8] {
    let (taken, rest) = input.split_at(bytes.min(input.len()));
    *input = rest;
    taken
}
