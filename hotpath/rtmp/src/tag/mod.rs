//! The media view of an audio or video message: what a stream must know of it to fan it out.
//!
//! Reads the first bytes of a body, never more than its header, and never fails: what is not
//! understood is classed as unknown and forwarded untouched, since the subscriber may know better.
//! Legacy FLV tags, HEVC as codec id 12, and Enhanced RTMP v1 and v2 with their loops of ModEx and
//! their several tracks. Called by publishers once per message.
//!
//! ```text
//!  legacy    frame type 4 | codec id 4   [packet type 8 · composition time 24]      payload
//!  enhanced  1 | frame type 3 | packet type 4   [ModEx…]   FourCC                   payload
//!            multitrack: [ModEx…] type 4 | packet type 4 · FourCC · id 8 · [size 24] payload …
//! ```
//!
//! The bit that marks an enhanced video tag is the top bit of the legacy frame type, and cameras
//! exist that set it by mistake. So a header is believed only if a FourCC stands where it must.
//!
//! Spec: FLV 10.1 annex E.4; Enhanced RTMP v2, "Enhanced Video" and "Enhanced Audio".

mod audio;
mod video;

pub use audio::{AudioCodec, AudioInfo, AudioTracks, audio, audio_tracks};
pub use video::{VideoCodec, VideoInfo, VideoTracks, video, video_tracks};

use crate::reader::Cursor;

/// Body bytes after which a header of one track is complete, short of large ModEx data.
pub const TAG_HEADER_BYTES: usize = 16;

/// ModEx elements read before a tag is taken for nonsense.
const MOD_EX_COUNT_MAX: u32 = 8;

/// The packet type that puts a ModEx element in front, the same for audio and video.
const PACKET_MOD_EX: u8 = 7;

/// Four characters that name a codec.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// The characters as one big-endian number, as in the info maps of Enhanced RTMP.
    pub const fn to_u32(self) -> u32 {
        u32::from_be_bytes(self.0)
    }

    /// True if all four could be typed, which no field at that place of a legacy tag ever is.
    fn is_printable(self) -> bool {
        self.0.iter().all(|byte| matches!(byte, 0x20..=0x7E))
    }
}

/// How many tracks a message carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Multitrack {
    /// No multitrack header: track 0.
    #[default]
    No,
    /// One track, with an id.
    One,
    /// Several tracks of one codec.
    Many,
    /// Several tracks, each with its codec.
    ManyCodecs,
}

/// One track of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Track<'a, C> {
    /// Track id; 0 for messages without a multitrack header. Says nothing about order.
    pub id: u8,
    /// Codec of this track.
    pub codec: C,
    /// The codec's bytes: configuration, coded frames, or none.
    pub payload: &'a [u8],
}

/// Enhanced header up to the first track.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ExHeader {
    packet_type: u8,
    multitrack: Multitrack,
    /// FourCC of the message, or of its first track.
    fourcc: FourCc,
    /// Nanoseconds to add to the timestamp.
    nano_offset: u32,
    /// Offset of the first track's bytes: payload, or id and size in front of it.
    tracks_at: usize,
}

/// Why there is no enhanced header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NoExHeader {
    /// The bytes end before it could be told.
    Torn,
    /// It is something else.
    Other,
}

/// Packet type and nanosecond offset after all ModEx elements; the cursor stands behind them.
fn mod_ex(cursor: &mut Cursor<'_>, packet_type: u8) -> Result<(u8, u32), NoExHeader> {
    let mut packet_type = packet_type;
    let mut nano_offset = 0;
    for _ in 0..MOD_EX_COUNT_MAX {
        if packet_type != PACKET_MOD_EX {
            return Ok((packet_type, nano_offset));
        }
        let mut size = usize::from(cursor.u8().ok_or(NoExHeader::Torn)?) + 1;
        if size == 256 {
            size = usize::from(cursor.u16().ok_or(NoExHeader::Torn)?) + 1;
        }
        let data = cursor.take(size).ok_or(NoExHeader::Torn)?;
        let types = cursor.u8().ok_or(NoExHeader::Torn)?;
        if let (0, Some(&[a, b, c])) = (types >> 4, data.first_chunk::<3>()) {
            nano_offset = u32::from_be_bytes([0, a, b, c]);
        }
        packet_type = types & 0x0F;
    }
    Err(NoExHeader::Other)
}

/// The rest of an enhanced header behind its ModEx elements.
fn ex_header(
    cursor: &mut Cursor<'_>,
    (packet_type, nano_offset): (u8, u32),
    multitrack_packet: u8,
) -> Result<ExHeader, NoExHeader> {
    let mut packet_type = packet_type;
    let mut multitrack = Multitrack::No;
    if packet_type == multitrack_packet {
        let types = cursor.u8().ok_or(NoExHeader::Torn)?;
        multitrack = match types >> 4 {
            0 => Multitrack::One,
            1 => Multitrack::Many,
            2 => Multitrack::ManyCodecs,
            _ => return Err(NoExHeader::Other),
        };
        packet_type = types & 0x0F;
        if packet_type == multitrack_packet {
            return Err(NoExHeader::Other);
        }
    }
    let before_fourcc = cursor.position();
    let fourcc = FourCc(cursor.array().ok_or(NoExHeader::Torn)?);
    if !fourcc.is_printable() {
        return Err(NoExHeader::Other);
    }
    let tracks_at = match multitrack {
        // Every track, the first one too, starts with its FourCC.
        Multitrack::ManyCodecs => before_fourcc,
        _ => cursor.position(),
    };
    Ok(ExHeader { packet_type, multitrack, fourcc, nano_offset, tracks_at })
}

/// Walks the tracks of a message. A track that is cut off ends the walk.
#[derive(Clone, Debug)]
struct RawTracks<'a> {
    rest: Cursor<'a>,
    multitrack: Multitrack,
    fourcc: FourCc,
    done: bool,
}

impl<'a> RawTracks<'a> {
    fn new(body: &'a [u8], header: &ExHeader) -> Self {
        let rest = Cursor::new(body.get(header.tracks_at..).unwrap_or_default());
        Self { rest, multitrack: header.multitrack, fourcc: header.fourcc, done: false }
    }

    fn next(&mut self) -> Option<Track<'a, FourCc>> {
        if self.done || (self.multitrack != Multitrack::No && self.rest.is_empty()) {
            return None;
        }
        let track = self.read();
        self.done = track.is_none() || matches!(self.multitrack, Multitrack::No | Multitrack::One);
        track
    }

    fn read(&mut self) -> Option<Track<'a, FourCc>> {
        if self.multitrack == Multitrack::No {
            return Some(Track { id: 0, codec: self.fourcc, payload: self.rest.rest() });
        }
        if self.multitrack == Multitrack::ManyCodecs {
            self.fourcc = FourCc(self.rest.array()?);
        }
        let id = self.rest.u8()?;
        let payload = match self.multitrack {
            Multitrack::One => self.rest.rest(),
            _ => {
                let size = self.rest.u24()?;
                self.rest.take(size as usize)?
            }
        };
        Some(Track { id, codec: self.fourcc, payload })
    }
}

#[cfg(test)]
mod tests;
