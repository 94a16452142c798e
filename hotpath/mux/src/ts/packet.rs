//! 188-byte packets: sections, PES packets, the adaptation field, stuffing, continuity.
//!
//! ```text
//!  47 · flags+PID 16 · control+counter 8 · [length 8 · flags 8 · PCR 48 · FF…]   payload
//! ```
//! Spec: ISO 13818-1 §2.4.3.

use alloc::vec::Vec;

use super::tables::{AUDIO_PID, PAT_PID, PMT_PID, VIDEO_PID};

/// Size of every packet.
pub(super) const PACKET_BYTES: usize = 188;
/// PES stream ids.
pub(super) const STREAM_VIDEO: u8 = 0xE0;
pub(super) const STREAM_AUDIO: u8 = 0xC0;

const SYNC: u8 = 0x47;
const HEADER_BYTES: usize = 4;
const PAYLOAD_BYTES: usize = PACKET_BYTES - HEADER_BYTES;
/// Longest adaptation field that is written for its content: length, flags, program clock.
const ADAPTATION_BYTES_MAX: usize = 8;
const PES_HEADER_BYTES_MAX: usize = 19;
const TIME_MASK: u64 = (1 << 33) - 1;

/// What stands in front of an elementary stream's bytes. Times in 90 kHz, not yet wrapped.
#[derive(Debug)]
pub(super) struct PesHeader {
    pub(super) stream_id: u8,
    pub(super) pts: u64,
    pub(super) dts: Option<u64>,
    /// Program clock reference to send along.
    pub(super) clock: Option<u64>,
    pub(super) random_access: bool,
}

/// Continuity counters of the four PIDs.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct PacketWriter {
    counters: [u8; 4],
}

impl PacketWriter {
    /// One packet with a whole section, which is short.
    pub(super) fn section(&mut self, pid: u16, section: &[u8], out: &mut Vec<u8>) {
        self.header(pid, true, 1, out);
        out.push(0); // the section starts right here
        out.extend_from_slice(section);
        let stuffing = (PAYLOAD_BYTES - 1).saturating_sub(section.len());
        out.resize(out.len() + stuffing, 0xFF);
    }

    /// A PES packet, cut into as many packets as it takes.
    pub(super) fn pes(&mut self, pid: u16, pes: &PesHeader, payload: &[u8], out: &mut Vec<u8>) {
        let mut head = [0; PES_HEADER_BYTES_MAX];
        let head_bytes = pes_header(pes, payload.len(), &mut head);
        let mut head = head.get(..head_bytes).unwrap_or_default();
        let mut adaptation = [0; ADAPTATION_BYTES_MAX];
        let adaptation_bytes = adaptation_field(pes, &mut adaptation);
        let mut adaptation = adaptation.get(..adaptation_bytes).unwrap_or_default();
        let mut payload = payload;
        let mut first = true;
        out.reserve((payload.len() / PAYLOAD_BYTES + 2) * PACKET_BYTES);
        while !payload.is_empty() || !head.is_empty() {
            let room = PAYLOAD_BYTES - adaptation.len() - head.len();
            let count = room.min(payload.len());
            let stuffing = room - count;
            let has_field = !adaptation.is_empty() || stuffing > 0;
            self.header(pid, first, if has_field { 3 } else { 1 }, out);
            write_adaptation(adaptation, stuffing, out);
            out.extend_from_slice(head);
            let (now, later) = payload.split_at(count);
            out.extend_from_slice(now);
            (payload, head, adaptation, first) = (later, &[], &[], false);
        }
    }

    fn header(&mut self, pid: u16, start: bool, control: u8, out: &mut Vec<u8>) {
        let [high, low] = pid.to_be_bytes();
        let start = if start { 0x40 } else { 0 };
        out.extend_from_slice(&[SYNC, start | high, low, control << 4 | self.count(pid)]);
    }

    /// The counter of `pid`, which goes on.
    fn count(&mut self, pid: u16) -> u8 {
        let at = match pid {
            PAT_PID => 0,
            PMT_PID => 1,
            VIDEO_PID => 2,
            AUDIO_PID => 3,
            _ => return 0,
        };
        let Some(counter) = self.counters.get_mut(at) else { return 0 };
        let now = *counter;
        *counter = (now + 1) & 0x0F;
        now
    }
}

/// `field` (length byte included, or empty) made longer by `stuffing` bytes.
fn write_adaptation(field: &[u8], stuffing: usize, out: &mut Vec<u8>) {
    match (field.split_first(), stuffing) {
        (None, 0) => {}
        // A field of length 0 is one byte; from two on it has flags.
        (None, 1) => out.push(0),
        (None, _) => {
            out.push(u8::try_from(stuffing - 1).unwrap_or(0));
            out.push(0);
            out.resize(out.len() + stuffing - 2, 0xFF);
        }
        (Some((_, body)), _) => {
            out.push(u8::try_from(body.len() + stuffing).unwrap_or(0));
            out.extend_from_slice(body);
            out.resize(out.len() + stuffing, 0xFF);
        }
    }
}

/// Length byte, flags and program clock; 0 bytes if there is nothing to say.
fn adaptation_field(pes: &PesHeader, out: &mut [u8; ADAPTATION_BYTES_MAX]) -> usize {
    let random_access = if pes.random_access { 0x40 } else { 0 };
    match pes.clock {
        None if random_access == 0 => 0,
        None => {
            *out = [1, random_access, 0, 0, 0, 0, 0, 0];
            2
        }
        Some(clock) => {
            // 33 bits of 90 kHz, six ones, nine zero bits of 27 MHz.
            let bits = (clock & TIME_MASK) << 15 | 0x7E00;
            let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
            *out = [7, 0x10 | random_access, a, b, c, d, e, f];
            8
        }
    }
}

fn pes_header(pes: &PesHeader, payload: usize, out: &mut [u8; PES_HEADER_BYTES_MAX]) -> usize {
    let (flags, data_bytes) = if pes.dts.is_some() { (0xC0, 10) } else { (0x80, 5) };
    let length = match pes.stream_id {
        // Unbounded, which only video may be.
        STREAM_VIDEO => 0,
        _ => u16::try_from(3 + usize::from(data_bytes) + payload).unwrap_or(0),
    };
    let [l0, l1] = length.to_be_bytes();
    // 0x84: the payload starts with a picture or a frame of sound.
    let fixed = [0, 0, 1, pes.stream_id, l0, l1, 0x84, flags, data_bytes];
    let times = [
        stamp(if pes.dts.is_some() { 3 } else { 2 }, pes.pts),
        stamp(1, pes.dts.unwrap_or_default()),
    ];
    for (place, byte) in out.iter_mut().zip(fixed.iter().chain(times.as_flattened())) {
        *place = *byte;
    }
    fixed.len() + usize::from(data_bytes)
}

/// A time of 33 bits with its markers.
fn stamp(prefix: u64, time: u64) -> [u8; 5] {
    let time = time & TIME_MASK;
    let bits = prefix << 36
        | (time >> 30 & 0x7) << 33
        | 1 << 32
        | (time >> 15 & 0x7FFF) << 17
        | 1 << 16
        | (time & 0x7FFF) << 1
        | 1;
    let [_, _, _, a, b, c, d, e] = bits.to_be_bytes();
    [a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn every_payload_length_fills_whole_packets_and_comes_back() {
        for length in 0..600 {
            for clock in [None, Some(5)] {
                let payload = vec![0xAB; length];
                let header = PesHeader {
                    stream_id: STREAM_AUDIO,
                    pts: 7,
                    dts: None,
                    clock,
                    random_access: clock.is_some(),
                };
                let mut out = Vec::new();
                PacketWriter::default().pes(AUDIO_PID, &header, &payload, &mut out);
                assert_eq!(out.len() % PACKET_BYTES, 0);
                let mut back = Vec::new();
                for (at, packet) in out.chunks(PACKET_BYTES).enumerate() {
                    assert_eq!(packet[0], SYNC);
                    assert_eq!(usize::from(packet[3] & 0x0F), at % 16);
                    let field = if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
                    back.extend_from_slice(&packet[4 + field..]);
                }
                let announced = usize::from(u16::from_be_bytes([back[4], back[5]]));
                assert_eq!((&back[..4], announced), (&[0, 0, 1, 0xC0][..], 8 + length));
                assert_eq!(back[14..], payload);
            }
        }
    }

    #[test]
    fn times_wrap_at_33_bits() {
        assert_eq!(stamp(2, 1 << 33), stamp(2, 0));
        assert_eq!(stamp(2, 0), [0x21, 0, 1, 0, 1]);
        assert_eq!(stamp(3, (1 << 33) - 1), [0x3F, 0xFF, 0xFF, 0xFF, 0xFF]);
    }
}
