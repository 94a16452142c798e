//! The marker inside each media message: what lets a player judge a server without decoding.
//!
//! A marker carries the clock at which its message was made, a number, the publisher's timestamp
//! and a checksum of everything behind it. It travels in an element every decoder skips, placed
//! first in the body, so a marked stream still plays:
//!
//! ```text
//!  AVC    17|27 01 cts      length 06 05 size │ marker │ the frame's own NAL units …
//!  HEVC   9x|Ax hvc1 cts    length 4e 01 05 size │ marker │ …      (also legacy codec id 12)
//!  AV1    9x|Ax av01        7a size │ marker │ …                   (padding OBU)
//!  AAC    af 01             81 size │ marker │ …                   (data stream element)
//! ```
//!
//! The marker's bytes are never zero (seven bits to a byte, the eighth set), so it needs no
//! emulation prevention. Never allocates; reading looks at the first [`HEAD_BYTES`] bytes only.
//! Spec: H.264 Annex D and H.265 Annex D (user data SEI), AV1 5.7 (padding), ISO 14496-3 4.4.2.7.

use rtmp::tag::{self, AudioCodec, VideoCodec};

/// Names the marker: a UUID as user data SEI wants it, without zero bytes.
const UUID: [u8; 16] = *b"Ringcast.marker1";
/// Tag, number, clock, timestamp, length behind, checksum behind, checksum of the former.
const RAW_BYTES: usize = 4 + 4 + 8 + 4 + 4 + 4 + 2;
/// Seven bits to a byte.
const CODED_BYTES: usize = (RAW_BYTES * 8).div_ceil(7);
/// A marker with its name.
const MARKER_BYTES: usize = UUID.len() + CODED_BYTES;
/// The same as the one-byte size that goes before it.
#[expect(clippy::cast_possible_truncation)]
const MARKER_SIZE: u8 = MARKER_BYTES as u8;
/// First bytes of a body in which a marker is complete: 8 of tag header, 9 of wrapping at most.
pub(crate) const HEAD_BYTES: usize = 80;

const _: () = assert!(MARKER_BYTES < 0x7f, "a size is one byte in all four wrappings");
const _: () = assert!(MARKER_BYTES + 17 <= HEAD_BYTES, "a player would miss the marker's end");

/// What one message says of itself.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Marker {
    /// Names the run of the publisher: numbers start anew with it.
    pub(crate) tag: u32,
    /// Number among the stream's messages of the same kind.
    pub(crate) sequence: u32,
    /// Media clock when the message was made, nanoseconds.
    pub(crate) clock_ns: u64,
    /// Timestamp as the publisher wrote it, milliseconds.
    pub(crate) timestamp: u32,
    /// Bytes of the body behind the marker.
    pub(crate) rest_bytes: u32,
    /// CRC-32 of them.
    pub(crate) rest_crc: u32,
}

/// A marker found in a body, and where the bytes it vouches for begin.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) marker: Marker,
    pub(crate) rest_at: usize,
}

/// The element a marker hides in.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wrapping {
    /// NAL units with four-byte lengths: a user data SEI of H.264.
    AvcSei,
    /// The same of H.265.
    HevcSei,
    /// A padding OBU.
    Av1Padding,
    /// A data stream element in front of an AAC frame.
    AacElement,
}

impl Wrapping {
    /// How media of this video codec is marked; `None`: not at all.
    pub(crate) fn of_video(codec: VideoCodec) -> Option<Wrapping> {
        match codec {
            VideoCodec::Avc => Some(Wrapping::AvcSei),
            VideoCodec::Hevc => Some(Wrapping::HevcSei),
            VideoCodec::Av1 => Some(Wrapping::Av1Padding),
            _ => None,
        }
    }

    /// How media of this audio codec is marked; `None`: not at all.
    pub(crate) fn of_audio(codec: AudioCodec) -> Option<Wrapping> {
        (codec == AudioCodec::Aac).then_some(Wrapping::AacElement)
    }

    /// Appends the element with its marker.
    pub(crate) fn write(self, marker: &Marker, out: &mut Vec<u8>) {
        match self {
            Wrapping::AvcSei => {
                // Type, payload type, size, marker, and the stop bit of the unit.
                out.extend_from_slice(&[0, 0, 0, MARKER_SIZE + 4, 0x06, 5, MARKER_SIZE]);
                marker.write(out);
                out.push(0x80);
            }
            Wrapping::HevcSei => {
                out.extend_from_slice(&[0, 0, 0, MARKER_SIZE + 5, 0x4e, 1, 5, MARKER_SIZE]);
                marker.write(out);
                out.push(0x80);
            }
            Wrapping::Av1Padding => {
                // The last byte of a padding payload that is not zero is its trailing bits.
                out.extend_from_slice(&[0x7a, MARKER_SIZE + 1]);
                marker.write(out);
                out.push(0x80);
            }
            Wrapping::AacElement => {
                out.extend_from_slice(&[0x81, MARKER_SIZE]);
                marker.write(out);
            }
        }
    }

    /// Bytes of the element.
    pub(crate) fn bytes(self) -> usize {
        let (before, behind) = self.around();
        before + MARKER_BYTES + behind
    }

    /// Bytes before and behind the marker.
    fn around(self) -> (usize, usize) {
        match self {
            Wrapping::AvcSei => (7, 1),
            Wrapping::HevcSei => (8, 1),
            Wrapping::Av1Padding => (2, 1),
            Wrapping::AacElement => (2, 0),
        }
    }

    /// The marker that stands where `payload` begins within the body.
    pub(crate) fn find(self, head: &[u8], payload: usize) -> Option<Found> {
        let (before, behind) = self.around();
        let start = payload.checked_add(before)?;
        let marker = Marker::read(head.get(start..start + MARKER_BYTES)?)?;
        Some(Found { marker, rest_at: start + MARKER_BYTES + behind })
    }
}

/// Finds the marker of a video message by the first bytes of its body.
pub(crate) fn of_video(head: &[u8]) -> Option<Found> {
    let info = tag::video(head);
    Wrapping::of_video(info.codec)?.find(head, info.payload_offset)
}

/// Finds the marker of an audio message by the first bytes of its body.
pub(crate) fn of_audio(head: &[u8]) -> Option<Found> {
    let info = tag::audio(head);
    Wrapping::of_audio(info.codec)?.find(head, info.payload_offset)
}

impl Marker {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&UUID);
        let raw = self.raw();
        let (mut bits, mut count) = (0u32, 0);
        for byte in raw {
            bits = (bits << 8) | u32::from(byte);
            count += 8;
            while count >= 7 {
                count -= 7;
                out.push(seven(bits >> count));
            }
        }
        if count > 0 {
            out.push(seven(bits << (7 - count)));
        }
    }

    fn raw(&self) -> [u8; RAW_BYTES] {
        let mut raw = [0; RAW_BYTES];
        raw[0..4].copy_from_slice(&self.tag.to_be_bytes());
        raw[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        raw[8..16].copy_from_slice(&self.clock_ns.to_be_bytes());
        raw[16..20].copy_from_slice(&self.timestamp.to_be_bytes());
        raw[20..24].copy_from_slice(&self.rest_bytes.to_be_bytes());
        raw[24..28].copy_from_slice(&self.rest_crc.to_be_bytes());
        let sum = fold(&raw[..28]);
        raw[28..].copy_from_slice(&sum.to_be_bytes());
        raw
    }

    /// `bytes` is exactly a marker. `None`: it is not one, or damaged.
    fn read(bytes: &[u8]) -> Option<Marker> {
        let coded = bytes.strip_prefix(&UUID)?;
        let mut raw = [0; RAW_BYTES];
        // Eight coded bytes are seven raw ones; the last group is a short one.
        for (coded, raw) in coded.chunks(8).zip(raw.chunks_mut(7)) {
            let bits = coded.iter().fold(0u64, |bits, byte| (bits << 7) | u64::from(byte & 0x7f));
            let bits = bits << (64 - 7 * coded.len());
            raw.copy_from_slice(&bits.to_be_bytes()[..raw.len()]);
        }
        let word = |at: usize| u32::from_be_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let sum = u16::from_be_bytes([raw[28], raw[29]]);
        (fold(&raw[..28]) == sum).then(|| Marker {
            tag: word(0),
            sequence: word(4),
            clock_ns: (u64::from(word(8)) << 32) | u64::from(word(12)),
            timestamp: word(16),
            rest_bytes: word(20),
            rest_crc: word(24),
        })
    }
}

/// The low seven bits with the eighth set.
fn seven(bits: u32) -> u8 {
    bits.to_be_bytes()[3] | 0x80
}

/// Sixteen bits that notice a damaged marker.
fn fold(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks(4).fold(0x811c_9dc5u32, |sum, chunk| {
        let word = chunk.iter().fold(0, |word, &byte| (word << 8) | u32::from(byte));
        (sum ^ word).wrapping_mul(0x0100_0193).rotate_left(13)
    });
    let [a, b, c, d] = sum.to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            tag: 0x0102_0304,
            sequence: 77,
            clock_ns: 0x0011_2233_4455_6677,
            timestamp: u32::MAX,
            rest_bytes: 3,
            rest_crc: 0,
        }
    }

    #[test]
    fn a_marker_is_found_again_in_every_wrapping() {
        let heads: [(Wrapping, &[u8], bool); 6] = [
            (Wrapping::AvcSei, &[0x17, 1, 0, 0, 0], true),
            (Wrapping::AvcSei, &[0xa1, b'a', b'v', b'c', b'1', 0, 0, 0], true),
            (Wrapping::HevcSei, &[0x2c, 1, 0, 0, 0], true),
            (Wrapping::HevcSei, &[0x91, b'h', b'v', b'c', b'1', 0, 0, 0], true),
            (Wrapping::Av1Padding, &[0x91, b'a', b'v', b'0', b'1'], true),
            (Wrapping::AacElement, &[0xaf, 1], false),
        ];
        for (wrapping, head, is_video) in heads {
            let mut body = head.to_vec();
            wrapping.write(&marker(), &mut body);
            let rest_at = body.len();
            body.extend_from_slice(&[1, 2, 3]);
            body.resize(HEAD_BYTES.max(body.len()), 9);
            let find = if is_video { of_video } else { of_audio };
            let found = find(&body[..HEAD_BYTES]);
            assert_eq!(found, Some(Found { marker: marker(), rest_at }), "{wrapping:?}");
        }
    }

    #[test]
    fn a_marker_contains_no_zero_byte() {
        let mut bytes = Vec::new();
        Marker::default().write(&mut bytes);
        assert_eq!(bytes.len(), MARKER_BYTES);
        assert!(bytes.iter().all(|&byte| byte != 0));
    }

    #[test]
    fn any_flipped_bit_of_a_marker_is_noticed() {
        let mut bytes = Vec::new();
        marker().write(&mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = Marker::read(&damaged);
            // The eighth bit of a coded byte and the padding of the last one carry nothing.
            assert!(read.is_none_or(|read| read == marker()), "bit {bit}");
        }
    }

    #[test]
    fn media_of_others_has_no_marker() {
        assert_eq!(of_video(&[0x27; 80]), None);
        assert_eq!(of_video(&[0x17, 1]), None);
        assert_eq!(of_audio(&[0xaf; 80]), None);
        assert_eq!(of_audio(&[]), None);
    }
}
