//! Reads the segments of MPEG-TS as hardware players do, with a reader that shares no code with the writer.
//!
//! ```text
//!   188-byte packets ─► tables: what is what ─► PES packets ─┬─ pictures: delimiter, sets, a slice
//!                                                            └─ sound: ADTS frames
//! ```
//!
//! What comes out is what was published, as far as it can be told from this: of a configuration of sound only
//! two bytes are, and of the sounds in one packet only the first has its time.

use super::link::Received;
use super::media::{AUDIO, SLICE, SLICE_IDR, VIDEO};

const PACKET_BYTES: usize = 188;
/// 90 kHz, in 33 bits.
const UNITS_PER_MS: i64 = 90;
const TIME_BITS: u32 = 33;
/// AAC at 96 kHz: all that is published here.
const AUDIO_FRAME_UNITS: i64 = 960;
const AUDIO_CONFIG: [u8; 2] = [0x10, 0x10];
const START_CODE: [u8; 4] = [0, 0, 0, 1];
const DELIMITER: [u8; 6] = [0, 0, 0, 1, 9, 0xF0];
const ADTS_BYTES: usize = 7;
/// The clock of the decoder is behind the times of what it is given, by no more than this, in milliseconds.
const CLOCK_LEAD_MS_MAX: i64 = 1_000;

/// What a file holds, in its order.
#[derive(Debug)]
pub enum Piece {
    /// Parameter sets, as the sequence header they were in.
    Header(Received),
    Media(Received),
}

/// A reader of the consecutive files of one viewer.
#[derive(Debug, Default)]
pub struct TsReader {
    map_pid: Option<u16>,
    streams: Vec<Stream>,
    /// The last time of anything, in units that do not wrap.
    clock: Option<i64>,
}

#[derive(Debug)]
struct Stream {
    pid: u16,
    kind: u8,
    /// Next continuity counter.
    counter: Option<u8>,
    /// A packet in the making; none before its start.
    pes: Option<Vec<u8>>,
    last: Option<i64>,
}

impl TsReader {
    /// Whole packets of one file, at whose end each elementary stream is between two of its packets.
    pub fn take(&mut self, file: &[u8], begins: bool) -> Result<Vec<Piece>, String> {
        let mut pieces = Vec::new();
        if !file.len().is_multiple_of(PACKET_BYTES) {
            return Err(format!("{} bytes are no packets", file.len()));
        }
        self.streams.iter_mut().for_each(|stream| stream.counter = None);
        for (at, packet) in file.chunks(PACKET_BYTES).enumerate() {
            let pid = self.take_packet(packet, &mut pieces)?;
            if begins && at == 0 && pid != 0 {
                return Err(format!("a segment begins with PID {pid:#x}, not with its tables"));
            }
        }
        for at in 0..self.streams.len() {
            self.end_pes(at, &mut pieces)?;
        }
        Ok(pieces)
    }

    fn take_packet(&mut self, packet: &[u8], pieces: &mut Vec<Piece>) -> Result<u16, String> {
        let [0x47, high, low, control, rest @ ..] = packet else {
            return Err("a packet without its sync byte".to_owned());
        };
        let pid = u16::from_be_bytes([high & 0x1F, *low]);
        let (begins, has_field) = (high & 0x40 != 0, control & 0x20 != 0);
        let field_bytes = if has_field { 1 + usize::from(rest[0]) } else { 0 };
        let payload = rest.get(field_bytes..).ok_or("a field longer than its packet")?;
        match pid {
            0 => {
                let section = section(payload)?;
                let word = section.get(8 + 2..8 + 4).ok_or("an association without a program")?;
                self.map_pid = Some(u16::from_be_bytes([word[0] & 0x1F, word[1]]));
                return Ok(pid);
            }
            _ if self.map_pid == Some(pid) => {
                self.take_map(section(payload)?)?;
                return Ok(pid);
            }
            _ => {}
        }
        let at = self.streams.iter().position(|stream| stream.pid == pid);
        let at = at.ok_or_else(|| format!("a packet of PID {pid:#x}, which no table names"))?;
        let counter = control & 0x0F;
        if self.streams[at].counter.is_some_and(|wanted| wanted != counter) {
            return Err(format!("a packet of PID {pid:#x} is missing"));
        }
        self.streams[at].counter = Some((counter + 1) & 0x0F);
        if begins {
            self.end_pes(at, pieces)?;
            self.streams[at].pes = Some(Vec::new());
            if has_field && rest[1] & 0x10 != 0 {
                self.check_clock(&rest[2..8], payload)?;
            }
        }
        let pes = self.streams[at].pes.as_mut().ok_or("the rest of a packet nobody has begun")?;
        pes.extend_from_slice(payload);
        Ok(pid)
    }

    fn take_map(&mut self, section: &[u8]) -> Result<(), String> {
        let info_bytes = usize::from(section[10] & 0x0F) << 8 | usize::from(section[11]);
        let mut rest = section.get(12 + info_bytes..section.len() - 4).ok_or("a map cut short")?;
        let mut streams = Vec::new();
        while let [kind, high, low, info_high, info_low, after @ ..] = rest {
            let pid = u16::from_be_bytes([high & 0x1F, *low]);
            let kind = match kind {
                0x1B => VIDEO,
                0x0F => AUDIO,
                other => return Err(format!("a stream of type {other:#x}")),
            };
            let known =
                self.streams.iter_mut().find(|known| known.pid == pid && known.kind == kind);
            let last = known.as_ref().and_then(|known| known.last);
            let (counter, pes) = known.map_or((None, None), |k| (k.counter, k.pes.take()));
            streams.push(Stream { pid, kind, counter, pes, last });
            let info_bytes = usize::from(info_high & 0x0F) << 8 | usize::from(*info_low);
            rest = after.get(info_bytes..).ok_or("a description cut short")?;
        }
        self.streams = streams;
        Ok(())
    }

    /// The clock of the decoder, at the beginning of a PES packet: in front of what that is due at.
    fn check_clock(&self, field: &[u8], pes: &[u8]) -> Result<(), String> {
        let base = field[..4].iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte)) << 1
            | i64::from(field[4] >> 7);
        let (_, due, _) = pes_header(pes)?;
        let lead = wrapped(due - base);
        if (0..=CLOCK_LEAD_MS_MAX * UNITS_PER_MS).contains(&lead) {
            Ok(())
        } else {
            Err(format!("the clock says {base}, due is {due}"))
        }
    }

    fn end_pes(&mut self, at: usize, pieces: &mut Vec<Piece>) -> Result<(), String> {
        let Some(pes) = self.streams[at].pes.take() else { return Ok(()) };
        let (length, due, payload) = pes_header(&pes)?;
        if length != 0 && length != payload.len() {
            return Err(format!("a PES packet of {} bytes says {length}", payload.len()));
        }
        let time = match self.clock {
            Some(clock) => clock + wrapped(due - clock),
            None => due,
        };
        self.clock = Some(time);
        let stream = &mut self.streams[at];
        if stream.last.is_some_and(|last| last >= time) {
            let (kind, last) = (stream.kind, stream.last);
            return Err(format!("a sample of kind {kind} at {time} behind {last:?}"));
        }
        stream.last = Some(time);
        match stream.kind {
            VIDEO => take_picture(payload, time, pieces),
            _ => take_sounds(payload, time, pieces),
        }
    }
}

/// The section that begins in a packet, from its table number on.
fn section(payload: &[u8]) -> Result<&[u8], String> {
    let section = payload.get(1..).filter(|_| payload[0] == 0).ok_or("a section elsewhere")?;
    let length = usize::from(section[1] & 0x0F) << 8 | usize::from(section[2]);
    let whole = section.get(..3 + length).ok_or("a section longer than its packet")?;
    let rest = &section[3 + length..];
    if rest.iter().any(|byte| *byte != 0xFF) {
        return Err("something behind a section".to_owned());
    }
    Ok(whole)
}

/// Bytes behind the header as it says (0: not said), when it is due, and those bytes.
fn pes_header(pes: &[u8]) -> Result<(usize, i64, &[u8]), String> {
    let [0, 0, 1, _, length @ .., _, _, _] = pes.get(..9).ok_or("a PES packet cut short")? else {
        return Err("no PES packet".to_owned());
    };
    let (flags, header_bytes) = (pes[7] >> 6, usize::from(pes[8]));
    let payload = pes.get(9 + header_bytes..).ok_or("a PES header cut short")?;
    let time = |at: usize| {
        let five = pes.get(at..at + 5)?;
        let parts = [five[0] >> 1 & 7, five[1], five[2] >> 1, five[3], five[4] >> 1].map(i64::from);
        Some(parts[0] << 30 | parts[1] << 22 | parts[2] << 15 | parts[3] << 7 | parts[4])
    };
    let due = match flags {
        2 => time(9),
        3 => time(14),
        _ => None,
    };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let behind = length.saturating_sub(3 + header_bytes);
    Ok((behind, due.ok_or("a PES packet without its time")?, payload))
}

/// A difference of times of 33 bits.
fn wrapped(difference: i64) -> i64 {
    let shift = i64::BITS - TIME_BITS;
    difference << shift >> shift
}

/// As the timestamps of messages are: relative to each other, in 32 bits.
fn timestamp(time: i64) -> u32 {
    u32::try_from((time / UNITS_PER_MS) & i64::from(u32::MAX)).expect("32 bits")
}

fn take_picture(payload: &[u8], time: i64, pieces: &mut Vec<Piece>) -> Result<(), String> {
    let timestamp = timestamp(time);
    let mut rest = payload.strip_prefix(&DELIMITER).ok_or("a picture without its delimiter")?;
    let mut sets: Vec<&[u8]> = Vec::new();
    loop {
        let unit = rest.strip_prefix(&START_CODE).ok_or("a unit without its start code")?;
        match unit.first() {
            Some(&first @ (SLICE_IDR | SLICE)) => {
                if let [sps, pps] = sets[..] {
                    pieces.push(Piece::Header(sequence_header(sps, pps, timestamp)));
                } else if !sets.is_empty() {
                    return Err(format!("{} parameter sets", sets.len()));
                }
                let tag = if first == SLICE_IDR { 0x17 } else { 0x27 };
                let length = u32::try_from(unit.len()).expect("small").to_be_bytes();
                let body = [&[tag, 1, 0, 0, 0], &length[..], unit].concat();
                pieces.push(Piece::Media(Received { kind: VIDEO, msid: 1, timestamp, body }));
                return Ok(());
            }
            Some(0x67 | 0x68) => {
                let end = unit.windows(4).position(|window| window == START_CODE);
                let (set, after) = unit.split_at(end.ok_or("parameter sets without a picture")?);
                sets.push(set);
                rest = after;
            }
            other => return Err(format!("a unit that begins with {other:?}")),
        }
    }
}

/// The decoder's configuration these parameter sets were in.
fn sequence_header(sps: &[u8], pps: &[u8], timestamp: u32) -> Received {
    let length = |set: &[u8]| u16::try_from(set.len()).expect("small").to_be_bytes();
    let head = [0x17, 0, 0, 0, 0, 1, sps[1], sps[2], sps[3], 0xFF, 0xE1];
    let body = [&head, &length(sps)[..], sps, &[1], &length(pps), pps].concat();
    Received { kind: VIDEO, msid: 1, timestamp, body }
}

fn take_sounds(payload: &[u8], time: i64, pieces: &mut Vec<Piece>) -> Result<(), String> {
    let (mut rest, mut time) = (payload, time);
    while !rest.is_empty() {
        let head = rest.get(..ADTS_BYTES).ok_or("an ADTS header cut short")?;
        let length =
            usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5] >> 5);
        let (object, rate) = ((head[2] >> 6) + 1, head[2] >> 2 & 0x0F);
        let channels = (head[2] & 1) << 2 | head[3] >> 6;
        let config = [object << 3 | rate >> 1, (rate & 1) << 7 | channels << 3];
        if head[0] != 0xFF || head[1] & 0xF6 != 0xF0 || config != AUDIO_CONFIG {
            return Err(format!("an ADTS header {head:x?} of {config:x?}"));
        }
        let frame = rest.get(ADTS_BYTES..length).ok_or("a sound beyond its packet")?;
        let body = [&[0xAF, 1], frame].concat();
        let timestamp = timestamp(time);
        pieces.push(Piece::Media(Received { kind: AUDIO, msid: 1, timestamp, body }));
        (rest, time) = (&rest[length..], time + AUDIO_FRAME_UNITS);
    }
    Ok(())
}
