//! Elementary streams as MPEG-TS wants them: Annex B and ADTS.
//!
//! Spec: ISO 14496-15 §5.3.3 and §8.3.3 (records); H.264 annex B, §7.4.1.2.3 (delimiters);
//! ISO 13818-7 §6.2 (ADTS).

use alloc::vec::Vec;

use rtmp::reader::Cursor;
use rtmp::tag::VideoCodec;

use crate::media::VideoTrack;

pub(super) const ADTS_BYTES: usize = 7;
const ADTS_FRAME_BYTES_MAX: usize = (1 << 13) - 1;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
const AVC_SPS: u8 = 7;
const AVC_DELIMITER: u8 = 9;
const HEVC_SPS: u8 = 33;
const HEVC_DELIMITER: u8 = 35;

/// Appends the parameter sets of the track's record. What is cut off is left out.
pub(super) fn write_parameter_sets(track: &VideoTrack, out: &mut Vec<u8>) {
    let mut cursor = Cursor::new(&track.config);
    // `None` only means that the record ends early.
    let _ended_early = match track.codec {
        VideoCodec::Avc => avc_sets(&mut cursor, out),
        _ => hevc_sets(&mut cursor, out),
    };
}

fn avc_sets(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Option<()> {
    cursor.take(5)?;
    for mask in [0x1F, 0xFF] {
        let count = cursor.u8()? & mask;
        for _ in 0..count {
            nal(cursor, out)?;
        }
    }
    Some(())
}

fn hevc_sets(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Option<()> {
    cursor.take(22)?;
    let arrays = cursor.u8()?;
    for _ in 0..arrays {
        cursor.u8()?;
        let count = cursor.u16()?;
        for _ in 0..count {
            nal(cursor, out)?;
        }
    }
    Some(())
}

/// Moves one NAL unit behind a 16-bit length.
fn nal(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Option<()> {
    let length = cursor.u16()?;
    let unit = cursor.take(length.into())?;
    if !unit.is_empty() {
        out.extend_from_slice(&START_CODE);
        out.extend_from_slice(unit);
    }
    Some(())
}

/// Appends one picture: delimiter, `sets` unless the picture brings its own, its NAL units. A unit
/// that says it is longer than what is left ends the picture.
pub(super) fn write_annex_b(track: &VideoTrack, sets: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let length_bytes = track.nal_length_bytes();
    let is_avc = track.codec == VideoCodec::Avc;
    let kind = |unit: &[u8]| {
        let first = unit.first().copied().unwrap_or_default();
        if is_avc { first & 0x1F } else { first >> 1 & 0x3F }
    };
    let (delimiter, sps) =
        if is_avc { (AVC_DELIMITER, AVC_SPS) } else { (HEVC_DELIMITER, HEVC_SPS) };
    out.extend_from_slice(&START_CODE);
    out.extend_from_slice(if is_avc { &[0x09, 0xF0] } else { &[0x46, 0x01, 0x50] });
    if !sets.is_empty() && !units(payload, length_bytes).any(|unit| kind(unit) == sps) {
        out.extend_from_slice(sets);
    }
    for unit in units(payload, length_bytes) {
        if kind(unit) != delimiter {
            out.extend_from_slice(&START_CODE);
            out.extend_from_slice(unit);
        }
    }
}

/// The NAL units of a payload, none of them empty.
fn units(payload: &[u8], length_bytes: usize) -> impl Iterator<Item = &[u8]> {
    let mut cursor = Cursor::new(payload);
    core::iter::from_fn(move || {
        loop {
            let length = cursor.take(length_bytes)?;
            let length = length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
            let unit = cursor.take(length)?;
            if !unit.is_empty() {
                return Some(unit);
            }
        }
    })
}

/// Object type, rate index and channels at the front of an AudioSpecificConfig.
fn adts_fields(config: &[u8]) -> Option<(u8, u8, u8)> {
    let &[a, b] = config.first_chunk::<2>()?;
    let (object, rate, channels) = (a >> 3, (a & 7) << 1 | b >> 7, b >> 3 & 0x0F);
    // An escaped object type or rate, or more channels, have no place in three and four bits.
    (object != 31 && object != 0 && rate < 13 && channels < 8).then_some((object, rate, channels))
}

/// True if ADTS can say what `config` says.
pub(super) fn adts_supports(config: &[u8]) -> bool {
    adts_fields(config).is_some()
}

/// The header of a frame of `frame_bytes`; `None` if it cannot be expressed.
pub(super) fn adts_header(config: &[u8], frame_bytes: usize) -> Option<[u8; ADTS_BYTES]> {
    let (object, rate, channels) = adts_fields(config)?;
    let length = frame_bytes.checked_add(ADTS_BYTES)?;
    if length > ADTS_FRAME_BYTES_MAX {
        return None;
    }
    // Extended object types are announced as what lies below them, low complexity.
    let profile = if (1..=4).contains(&object) { object - 1 } else { 1 };
    let length = u16::try_from(length).ok()?;
    let low = |shift: u32, mask: u16| u8::try_from(length >> shift & mask).unwrap_or(0);
    Some([
        0xFF,
        0xF1,
        profile << 6 | rate << 2 | channels >> 2,
        channels << 6 | low(11, 0x03),
        low(3, 0xFF),
        low(0, 0x07) << 5 | 0x1F,
        0xFC,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn adts_says_rate_channels_and_length() {
        let header = adts_header(&[0x12, 0x10], 0x123).unwrap();
        assert_eq!(header, [0xFF, 0xF1, 0x50, 0x80, 0x25, 0x5F, 0xFC]);
        let longest = adts_header(&[0x12, 0x10], ADTS_FRAME_BYTES_MAX - 7).unwrap();
        assert_eq!(longest[3..6], [0x83, 0xFF, 0xFF]);
        assert_eq!(adts_header(&[0x12, 0x10], ADTS_FRAME_BYTES_MAX - 6), None);
        assert!(!adts_supports(&[0x17, 0x80, 0x18]));
        assert!(!adts_supports(&[0x12]));
    }

    #[test]
    fn units_are_delimited_and_parameter_sets_come_first() {
        let config = [1, 100, 0, 30, 0xFF, 0xE1, 0, 2, 0x67, 1, 1, 0, 1, 0x68];
        let track = VideoTrack::new(VideoCodec::Avc, &config).unwrap();
        let mut sets = Vec::new();
        write_parameter_sets(&track, &mut sets);
        assert_eq!(sets, [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68]);
        let mut out = Vec::new();
        // An old delimiter, a picture, an empty unit, and one that is cut off.
        let payload = [0, 0, 0, 2, 9, 0x10, 0, 0, 0, 2, 0x65, 7, 0, 0, 0, 0, 0, 0, 0, 9, 0x65];
        write_annex_b(&track, &sets, &payload, &mut out);
        let mut wanted = Vec::from([0, 0, 0, 1, 9, 0xF0]);
        wanted.extend_from_slice(&sets);
        wanted.extend_from_slice(&[0, 0, 0, 1, 0x65, 7]);
        assert_eq!(out, wanted);
    }
}
