//! Reads MPEG-TS: one program of H.264 or H.265 with AAC, as HLS segments have it.
//!
//! ```text
//!  188-byte packets ─► tables: PIDs and codecs
//!                 └──► PES packets ─┬─ pictures: Annex B, turned back into the units a publisher sent
//!                                   └─ sound: ADTS frames
//! ```
//!
//! A picture is known when its packet ends, so it is told at the beginning of the next, or at the end of
//! the segment. Of pictures whose checksum is not wanted only the first [`HEAD_BYTES`] are kept. Packets
//! that are missing within a segment are an error. Bounded: [`PES_BYTES_MAX`]. Spec: ISO 13818-1 §2.4.

use super::wide;
use crate::marker::{self, Wrapping};
use crate::num::low_u32;
use crate::viewer::{Judging, Piece, Shape};
use rtmp::session::MediaKind;

/// First byte of a packet.
pub(super) const SYNC: u8 = 0x47;
const PACKET_BYTES: usize = 188;
/// Longest packet of an elementary stream.
const PES_BYTES_MAX: usize = 16 << 20;
/// In so many bytes of a picture its marker must be: delimiter and parameter sets stand before it.
const HEAD_BYTES: usize = 2048;
const UNITS_PER_MS: u64 = 90;
/// Samples of an AAC frame, and the rates by their index.
const AAC_SAMPLES: u64 = 1024;
const AAC_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

/// Stream types of a program map.
const TYPE_AVC: u8 = 0x1b;
const TYPE_HEVC: u8 = 0x24;
const TYPE_AAC: u8 = 0x0f;
const TYPE_MP3: [u8; 2] = [3, 4];

/// An elementary stream.
#[derive(Debug)]
struct Stream {
    pid: u16,
    kind: MediaKind,
    wrapping: Option<Wrapping>,
    /// Next continuity counter; `None`: any.
    counter: Option<u8>,
    is_key: bool,
    is_open: bool,
    /// Enough of the packet is here: the rest is passed over.
    is_enough: bool,
    pes: Vec<u8>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct TsReader {
    packet: Vec<u8>,
    map_pid: Option<u16>,
    streams: Vec<Stream>,
}

impl TsReader {
    /// See [`Container::handle_bytes`](super::Container::handle_bytes).
    pub(super) fn handle_bytes(
        &mut self,
        bytes: &[u8],
        judging: &Judging,
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        let mut input = bytes;
        if !self.packet.is_empty() {
            let taken = input.len().min(PACKET_BYTES - self.packet.len());
            self.packet.extend_from_slice(&input[..taken]);
            input = &input[taken..];
            if self.packet.len() < PACKET_BYTES {
                return Ok(());
            }
            let packet = std::mem::take(&mut self.packet);
            self.on_packet(&packet, judging, tell)?;
            self.packet = packet;
            self.packet.clear();
        }
        let mut packets = input.chunks_exact(PACKET_BYTES);
        for packet in &mut packets {
            self.on_packet(packet, judging, tell)?;
        }
        self.packet.extend_from_slice(packets.remainder());
        Ok(())
    }

    /// See [`Container::end_unit`](super::Container::end_unit).
    pub(super) fn end_unit(
        &mut self,
        judging: &Judging,
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        if !self.packet.is_empty() {
            return Err("ts: it ends within a packet");
        }
        for stream in &mut self.streams {
            stream.end(judging, tell)?;
            stream.counter = None;
        }
        Ok(())
    }

    fn on_packet(
        &mut self,
        packet: &[u8],
        judging: &Judging,
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        let [SYNC, high, low, control, ..] = *packet else { return Err("ts: no packet") };
        let pid = u16::from_be_bytes([high & 0x1f, low]);
        let is_start = high & 0x40 != 0;
        let has_field = control & 0x20 != 0;
        let field_bytes = if has_field { 1 + usize::from(packet[4]) } else { 0 };
        let payload = packet.get(4 + field_bytes..).ok_or("ts: a field longer than its packet")?;
        if control & 0x10 == 0 {
            return Ok(());
        }
        if pid == 0 {
            self.map_pid = Some(program_map(section(payload)?)?);
            return Ok(());
        }
        if self.map_pid == Some(pid) {
            return self.on_map(section(payload)?, judging, tell);
        }
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.pid == pid) else {
            return Ok(());
        };
        let counter = control & 0x0f;
        if stream.counter.is_some_and(|wanted| wanted != counter) {
            return Err("ts: a packet is missing");
        }
        stream.counter = Some((counter + 1) & 0x0f);
        if is_start {
            stream.end(judging, tell)?;
            stream.is_open = true;
            stream.is_key = field_bytes > 1 && packet[5] & 0x40 != 0;
        }
        stream.push(payload, judging)
    }

    /// The streams of the program. The same ones again change nothing.
    fn on_map(
        &mut self,
        section: &[u8],
        judging: &Judging,
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        let cut = "ts: a program map is cut off";
        let (head, rest) = section.split_at_checked(9).ok_or(cut)?;
        let skip = usize::from(u16::from_be_bytes([head[7] & 0x0f, head[8]]));
        let mut rest = rest.get(skip..).ok_or(cut)?;
        let mut found = Vec::new();
        while let Some((entry, after)) = rest.split_first_chunk::<5>() {
            let pid = u16::from_be_bytes([entry[1] & 0x1f, entry[2]]);
            let skip = usize::from(u16::from_be_bytes([entry[3] & 0x0f, entry[4]]));
            rest = after.get(skip..).ok_or(cut)?;
            let (kind, wrapping) = match entry[0] {
                TYPE_AVC => (MediaKind::Video, Some(Wrapping::AvcSei)),
                TYPE_HEVC => (MediaKind::Video, Some(Wrapping::HevcSei)),
                TYPE_AAC => (MediaKind::Audio, Some(Wrapping::AacElement)),
                other if TYPE_MP3.contains(&other) => (MediaKind::Audio, None),
                _ => continue,
            };
            found.push((pid, kind, wrapping));
        }
        let known = self.streams.iter().map(|one| (one.pid, one.kind, one.wrapping));
        if known.eq(found.iter().copied()) {
            return Ok(());
        }
        for stream in &mut self.streams {
            stream.end(judging, tell)?;
        }
        let stream = |(pid, kind, wrapping)| Stream {
            pid,
            kind,
            wrapping,
            counter: None,
            is_key: false,
            is_open: false,
            is_enough: false,
            pes: Vec::new(),
        };
        self.streams = found.into_iter().map(stream).collect();
        Ok(())
    }
}

impl Stream {
    fn push(&mut self, payload: &[u8], judging: &Judging) -> Result<(), &'static str> {
        if !self.is_open || self.is_enough {
            return Ok(());
        }
        if self.pes.len() + payload.len() > PES_BYTES_MAX {
            return Err("ts: a packet of an elementary stream is too long");
        }
        let is_head = self.pes.len() < HEAD_BYTES;
        self.pes.extend_from_slice(payload);
        if is_head && self.pes.len() >= HEAD_BYTES && self.kind == MediaKind::Video {
            let found = self.wrapping.and_then(|one| find_marker(one, &self.pes));
            self.is_enough = found.is_none_or(|found| !judging.checks(found.marker.sequence));
        }
        Ok(())
    }

    /// The packet is whole.
    fn end(
        &mut self,
        judging: &Judging,
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        if !std::mem::take(&mut self.is_open) {
            return Ok(());
        }
        self.is_enough = false;
        let pes = std::mem::take(&mut self.pes);
        let (timestamp, payload) = pes_packet(&pes)?;
        let shape = Shape::Frame { wrapping: self.wrapping, is_key: self.is_key };
        let mut piece =
            Piece { kind: self.kind, timestamp, shape, first: true, last: true, body: &[] };
        match (self.kind, self.wrapping) {
            (MediaKind::Audio, Some(_)) => self.tell_adts(payload, piece, tell)?,
            (MediaKind::Audio, None) => tell(&piece),
            (MediaKind::Video, wrapping) => {
                let whole = wrapping.and_then(|one| units_from_marker(one, payload, judging));
                piece.body = whole.as_deref().unwrap_or_default();
                tell(&piece);
            }
        }
        self.pes = pes;
        self.pes.clear();
        Ok(())
    }

    fn tell_adts(
        &self,
        payload: &[u8],
        first: Piece<'_>,
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        let mut rest = payload;
        let mut samples = 0;
        while !rest.is_empty() {
            let header = rest.first_chunk::<7>().ok_or("ts: a frame of sound is cut off")?;
            if header[0] != 0xff || header[1] & 0xf6 != 0xf0 {
                return Err("ts: no frame of sound");
            }
            let header_bytes = if header[1] & 1 == 1 { 7 } else { 9 };
            let length = (usize::from(header[3] & 3) << 11)
                | (usize::from(header[4]) << 3)
                | usize::from(header[5] >> 5);
            let frame = rest.get(header_bytes..length).ok_or("ts: a frame of sound is cut off")?;
            rest = &rest[length..];
            let rate = AAC_RATES.get(usize::from(header[2] >> 2 & 0x0f)).copied();
            let after_ms = samples * 1000 / u64::from(rate.unwrap_or(48_000));
            samples += AAC_SAMPLES;
            let timestamp = first.timestamp.wrapping_add(low_u32(after_ms));
            tell(&Piece { timestamp, body: frame, ..first });
        }
        Ok(())
    }
}

/// A section that begins in this payload, from its table id to before its checksum.
fn section(payload: &[u8]) -> Result<&[u8], &'static str> {
    let cut = "ts: a section is cut off";
    let (&pointer, rest) = payload.split_first().ok_or(cut)?;
    let rest = rest.get(usize::from(pointer)..).ok_or(cut)?;
    let &[_, high, low] = rest.first_chunk::<3>().ok_or(cut)?;
    let length = usize::from(u16::from_be_bytes([high & 0x0f, low]));
    let end = (3 + length).checked_sub(4).ok_or(cut)?;
    // Behind the length, so that what follows counts from where tables differ.
    rest.get(3..end).ok_or(cut)
}

/// Where the map of the first program is.
fn program_map(section: &[u8]) -> Result<u16, &'static str> {
    let programs = section.get(5..).unwrap_or_default().chunks_exact(4);
    let mut maps = programs.filter(|entry| entry[..2] != [0, 0]);
    let entry = maps.next().ok_or("ts: no program")?;
    Ok(u16::from_be_bytes([entry[2] & 0x1f, entry[3]]))
}

/// Decoding time in milliseconds, and what is behind the header.
fn pes_packet(pes: &[u8]) -> Result<(u32, &[u8]), &'static str> {
    let cut = "ts: a packet of an elementary stream is cut off";
    let head = pes.first_chunk::<9>().ok_or(cut)?;
    if head[..3] != [0, 0, 1] {
        return Err("ts: no packet of an elementary stream");
    }
    let data = pes.get(9..9 + usize::from(head[8])).ok_or(cut)?;
    let stamp = match head[7] >> 6 {
        3 => data.get(5..10),
        2 => data.get(..5),
        _ => return Err("ts: a packet without time"),
    };
    let stamp = stamp.ok_or(cut)?;
    let units =
        wide(&[stamp[0] >> 1 & 7]) << 30 | wide(&stamp[1..3]) >> 1 << 15 | wide(&stamp[3..5]) >> 1;
    Ok((low_u32(units / UNITS_PER_MS), &pes[9 + data.len()..]))
}

/// NAL units behind their start codes. Units never end with a zero byte.
fn units(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    let mut begun = next_start(rest).map(|at| {
        rest = &rest[at + 3..];
    });
    std::iter::from_fn(move || {
        begun?;
        let end = next_start(rest);
        let unit = &rest[..end.unwrap_or(rest.len())];
        begun = end.map(|at| rest = &rest[at + 3..]);
        let zeros = unit.iter().rev().take_while(|&&byte| byte == 0).count();
        Some(&unit[..unit.len() - zeros])
    })
    .filter(|unit| !unit.is_empty())
}

/// Where the next 00 00 01 begins.
fn next_start(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(&third) = bytes.get(at + 2) {
        match third {
            1 if bytes[at..at + 2] == [0, 0] => return Some(at),
            0 => at += 1,
            _ => at += 3,
        }
    }
    None
}

/// A unit with the four-byte length a marker is looked for behind.
fn with_length(unit: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(unit.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(unit);
}

/// The marker in the beginning of a packet of pictures.
fn find_marker(wrapping: Wrapping, pes: &[u8]) -> Option<marker::Found> {
    let payload = pes_packet(pes).ok()?.1;
    units(payload).find_map(|unit| marker_of(wrapping, unit))
}

fn marker_of(wrapping: Wrapping, unit: &[u8]) -> Option<marker::Found> {
    let mut head = Vec::with_capacity(marker::HEAD_BYTES + 4);
    with_length(&unit[..unit.len().min(marker::HEAD_BYTES)], &mut head);
    wrapping.find(&head, 0)
}

/// The picture as its publisher sent it, from the unit with the marker on; without what follows where
/// that is not checked.
fn units_from_marker(wrapping: Wrapping, payload: &[u8], judging: &Judging) -> Option<Vec<u8>> {
    let mut found = None;
    let mut out = Vec::new();
    for unit in units(payload) {
        if found.is_none() {
            found = marker_of(wrapping, unit);
        }
        let Some(found) = found else { continue };
        with_length(unit, &mut out);
        if !judging.checks(found.marker.sequence) {
            break;
        }
    }
    found.map(|_| out)
}

#[cfg(test)]
mod tests {
    use super::super::Container;
    use super::super::tests_of_readers::{Clip, read_all};
    use super::*;
    use mux::segment;

    fn reader() -> Container {
        Container::of_segment(SYNC)
    }

    #[test]
    fn segments_are_read_in_pieces_of_any_size() {
        for codec in ["avc", "hvc1"] {
            let clip = Clip::new(segment::Container::Ts, codec);
            for piece in [1, 187, 188, 1000, 1 << 20] {
                clip.compare(&read_all(reader(), &clip.units, piece).unwrap());
            }
        }
    }

    #[test]
    fn what_is_wrong_has_a_name() {
        let clip = Clip::new(segment::Container::Ts, "avc");
        let segment = clip.units.concat();
        let error = |bytes: Vec<u8>| read_all(reader(), &[bytes], 1000).unwrap_err();
        assert!(error(segment[..segment.len() - 1].to_vec()).contains("within a packet"));
        let mut missing = segment.clone();
        missing.drain(5 * PACKET_BYTES..6 * PACKET_BYTES);
        assert!(error(missing).contains("missing"));
        let mut torn = segment;
        torn.remove(3);
        assert!(error(torn).contains("ts: "));
    }

    #[test]
    fn units_are_found_whatever_their_start_codes() {
        let bytes = [0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 7, 0, 0, 3, 1, 0, 0, 0, 0, 1, 5, 1, 2, 0, 0];
        let found: Vec<&[u8]> = units(&bytes).collect();
        assert_eq!(found, [&[9, 0xf0][..], &[7, 0, 0, 3, 1], &[5, 1, 2]]);
        assert_eq!(units(&[1, 2, 3]).count(), 0);
        assert_eq!(units(&[0, 0, 1]).count(), 0);
    }
}
