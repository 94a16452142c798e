//! Program tables. Spec: ISO 13818-1 §2.4.4.

use alloc::vec::Vec;

use rtmp::tag::{AudioCodec, VideoCodec};

use crate::media::Tracks;

pub(super) const PAT_PID: u16 = 0;
pub(super) const PMT_PID: u16 = 0x1000;
pub(super) const VIDEO_PID: u16 = 0x100;
pub(super) const AUDIO_PID: u16 = 0x101;

const PROGRAM: u16 = 1;
/// MPEG-1 sound from this rate up, MPEG-2 below.
const MPEG1_RATE_HZ_MIN: u32 = 32_000;

/// The one program and where its table is.
pub(super) fn pat() -> Vec<u8> {
    let mut body = Vec::with_capacity(4);
    body.extend_from_slice(&PROGRAM.to_be_bytes());
    body.extend_from_slice(&(0xE000 | PMT_PID).to_be_bytes());
    section(0, 1, &body)
}

/// The streams of the program.
pub(super) fn pmt(tracks: &Tracks) -> Vec<u8> {
    let clock_pid = if tracks.video.is_some() { VIDEO_PID } else { AUDIO_PID };
    let mut body = Vec::with_capacity(16);
    body.extend_from_slice(&(0xE000 | clock_pid).to_be_bytes());
    body.extend_from_slice(&[0xF0, 0]); // no program descriptors
    let mut stream = |stream_type: u8, pid: u16| {
        body.push(stream_type);
        body.extend_from_slice(&(0xE000 | pid).to_be_bytes());
        body.extend_from_slice(&[0xF0, 0]);
    };
    if let Some(track) = &tracks.video {
        stream(if track.codec == VideoCodec::Hevc { 0x24 } else { 0x1B }, VIDEO_PID);
    }
    if let Some(track) = &tracks.audio {
        let stream_type = match track.codec {
            AudioCodec::Mp3 if track.rate_hz >= MPEG1_RATE_HZ_MIN => 0x03,
            AudioCodec::Mp3 => 0x04,
            _ => 0x0F,
        };
        stream(stream_type, AUDIO_PID);
    }
    section(2, PROGRAM, &body)
}

fn section(table: u8, id: u16, body: &[u8]) -> Vec<u8> {
    // Five bytes of header behind the length, and the checksum.
    let length = u16::try_from(5 + body.len() + 4).unwrap_or(0);
    let mut out = Vec::with_capacity(12 + body.len());
    out.push(table);
    out.extend_from_slice(&(0xB000 | length).to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0xC1, 0, 0]); // version 0, current; section 0 of 0
    out.extend_from_slice(body);
    let checksum = crc32(&out);
    out.extend_from_slice(&checksum.to_be_bytes());
    out
}

/// CRC-32/MPEG-2. Some twenty bytes a segment, so bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte) << 24;
        for _ in 0..8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04C1_1DB7 } else { crc << 1 };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_specification() {
        assert_eq!(crc32(b"123456789"), 0x0376_E6E7);
        // A section with its checksum has the checksum 0.
        assert_eq!(crc32(&pat()), 0);
        assert_eq!(crc32(&pmt(&Tracks::default())), 0);
    }
}
