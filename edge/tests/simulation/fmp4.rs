//! Reads fragmented MP4 as Media Source does, with a reader that shares no code with the writer.
//!
//! What comes out is what was published: samples become the message bodies they were made of, init segments
//! the sequence headers.

use std::io::Cursor;

use mp4_atom::{Any, Decode, Moof, ReadFrom};

use super::link::{Heard, Received};
use super::media::{AUDIO, VIDEO};

/// Units of a track in a millisecond: 90 kHz, and the sample rate of all that is published here.
const UNITS_PER_MS: [u64; 2] = [90, 96];
/// sample_depends_on = 2: of no other sample.
const FLAGS_SYNC: u32 = 0x0200_0000;
const BOX_HEADER_BYTES: usize = 8;

/// A reader of one viewer's stream, or of consecutive segments.
#[derive(Debug, Default)]
pub struct Fmp4Reader {
    has_init: bool,
    /// Decoding time of the last sample of pictures and of sound.
    last: [Option<u64>; 2],
    /// Announced by a text frame, and not yet come.
    announced: Option<String>,
}

impl Fmp4Reader {
    /// Length of the next piece without wrapping, if it is known: two boxes.
    pub fn bare_bytes(input: &[u8]) -> Option<usize> {
        let first = box_bytes(input)?;
        Some(first + box_bytes(input.get(first..)?)?)
    }

    /// A text frame: the type of what follows.
    pub fn announce(&mut self, text: String) -> Result<(), String> {
        match self.announced.replace(text) {
            None => Ok(()),
            Some(before) => Err(format!("nothing follows {before}")),
        }
    }

    /// An init segment or a fragment, whole. Of a WebSocket's (`is_announced`) each init segment comes behind
    /// its type.
    pub fn take(&mut self, piece: &[u8], is_announced: bool) -> Result<Vec<Heard>, String> {
        if piece.get(4..8) == Some(b"ftyp") {
            let headers = self.take_init(piece)?;
            match self.announced.take() {
                Some(text) if is_announced => check_mime(&text, &headers)?,
                None if !is_announced => {}
                other => return Err(format!("an init segment is announced as {other:?}")),
            }
            return Ok(vec![Heard::Init(headers)]);
        }
        if let Some(text) = &self.announced {
            return Err(format!("{text} is followed by something else"));
        }
        Ok(self.take_fragments(piece)?.into_iter().map(Heard::Message).collect())
    }

    /// The sequence headers of an init segment.
    pub fn take_init(&mut self, init: &[u8]) -> Result<Vec<Received>, String> {
        let mut rest = init;
        let named = |error| format!("no init segment: {error}");
        let (ftyp, moov) =
            (Any::decode(&mut rest).map_err(named)?, Any::decode(&mut rest).map_err(named)?);
        let (Any::Ftyp(_), Any::Moov(moov)) = (ftyp, moov) else {
            return Err("an init segment is ftyp and moov".to_owned());
        };
        if !rest.is_empty() {
            return Err(format!("{} bytes behind an init segment", rest.len()));
        }
        let mut headers = Vec::new();
        for trak in &moov.trak {
            let track = trak.tkhd.track_id;
            let timescale = u64::from(trak.mdia.mdhd.timescale);
            let (kind, config) = match track {
                1 => (VIDEO, [&[0x17, 0, 0, 0, 0], box_body(init, b"avcC")?].concat()),
                2 => {
                    (AUDIO, [&[0xAF, 0], audio_specific_config(box_body(init, b"esds")?)?].concat())
                }
                _ => return Err(format!("a track {track}")),
            };
            if timescale != 1_000 * UNITS_PER_MS[lane(kind)] {
                return Err(format!("track {track} has {timescale} units a second"));
            }
            headers.push(Received { kind, msid: 1, timestamp: 0, body: config });
        }
        self.has_init = true;
        Ok(headers)
    }

    /// The messages of any number of whole fragments, in the order of their tables.
    pub fn take_fragments(&mut self, bytes: &[u8]) -> Result<Vec<Received>, String> {
        if !self.has_init {
            return Err("a fragment without an init segment".to_owned());
        }
        let mut messages = Vec::new();
        let mut reader = Cursor::new(bytes);
        let position = |reader: &Cursor<&[u8]>| usize::try_from(reader.position()).expect("small");
        while position(&reader) < bytes.len() {
            let start = position(&reader);
            // In a part of the sound alone in which nothing is heard.
            if bytes.get(start + 4..start + 8) == Some(b"free") {
                let length = box_bytes(&bytes[start..]).ok_or("a box without a length")?;
                reader.set_position((start + length.max(BOX_HEADER_BYTES)) as u64);
                continue;
            }
            let named = |error| format!("no fragment at {start}: {error}");
            let moof = Any::read_from(&mut reader).map_err(named)?;
            let mdat = Any::read_from(&mut reader).map_err(named)?;
            let (Any::Moof(moof), Any::Mdat(mdat)) = (moof, mdat) else {
                return Err("a fragment is moof and mdat".to_owned());
            };
            let fragment = &bytes[start..position(&reader)];
            let payload_bytes = self.take_fragment(&moof, fragment, &mut messages)?;
            if payload_bytes != mdat.data.len() {
                let bytes = mdat.data.len();
                return Err(format!("samples of {payload_bytes} bytes in an mdat of {bytes}"));
            }
        }
        Ok(messages)
    }

    /// Returns the sum of the samples' lengths.
    fn take_fragment(
        &mut self,
        moof: &Moof,
        fragment: &[u8],
        messages: &mut Vec<Received>,
    ) -> Result<usize, String> {
        let mut payload_bytes = 0;
        for traf in &moof.traf {
            let kind = match traf.tfhd.track_id {
                1 => VIDEO,
                2 => AUDIO,
                track => return Err(format!("a fragment of track {track}")),
            };
            let [trun] = &traf.trun[..] else {
                return Err("a track's run is one table".to_owned());
            };
            let tfdt = traf.tfdt.as_ref().ok_or("a run without its time")?;
            let mut time = tfdt.base_media_decode_time;
            let offset = trun.data_offset.ok_or("a run without its place")?;
            let mut at = usize::try_from(offset).map_err(|_| "a run before its fragment")?;
            for sample in trun.samples.iter() {
                let (Some(bytes), Some(duration), Some(flags)) =
                    (sample.size, sample.duration, sample.flags)
                else {
                    return Err("a sample without size, duration or flags".to_owned());
                };
                let bytes = usize::try_from(bytes).expect("small");
                let payload = fragment.get(at..at + bytes).ok_or("a sample beyond its fragment")?;
                let last = &mut self.last[lane(kind)];
                if last.is_some_and(|last| last >= time) {
                    return Err(format!("a sample of kind {kind} at {time} behind {last:?}"));
                }
                *last = Some(time);
                messages.push(message(kind, flags == FLAGS_SYNC, time, payload));
                (time, at) = (time + u64::from(duration), at + bytes);
                payload_bytes += bytes;
            }
        }
        Ok(payload_bytes)
    }
}

/// Place of a kind's track in tables.
fn lane(kind: u8) -> usize {
    usize::from(kind == AUDIO)
}

/// The message a sample was made of.
fn message(kind: u8, is_sync: bool, time: u64, payload: &[u8]) -> Received {
    let prefix: &[u8] = match (kind, is_sync) {
        (AUDIO, _) => &[0xAF, 1],
        (_, true) => &[0x17, 1, 0, 0, 0],
        (_, false) => &[0x27, 1, 0, 0, 0],
    };
    let time_ms = time / UNITS_PER_MS[lane(kind)];
    // As on the wire, where it wraps.
    let timestamp = u32::try_from(time_ms & u64::from(u32::MAX)).expect("32 bits");
    Received { kind, msid: 1, timestamp, body: [prefix, payload].concat() }
}

fn box_bytes(input: &[u8]) -> Option<usize> {
    Some(u32::from_be_bytes(input.get(..4)?.try_into().ok()?) as usize)
}

/// The raw body of the first box of this type, wherever it is nested.
fn box_body<'b>(bytes: &'b [u8], kind: &[u8; 4]) -> Result<&'b [u8], String> {
    let found = bytes.windows(4).position(|window| window == kind).and_then(|at| {
        let start = at.checked_sub(4)?;
        let length = box_bytes(&bytes[start..])?;
        bytes.get(start + BOX_HEADER_BYTES..start + length)
    });
    found.ok_or_else(|| format!("no box {}", String::from_utf8_lossy(kind)))
}

/// The decoder's configuration in the descriptors of an `esds` (ISO 14496-1 §7.2.6).
fn audio_specific_config(esds: &[u8]) -> Result<&[u8], String> {
    fn descriptor(bytes: &[u8], tag: u8, skip: usize) -> Option<&[u8]> {
        let (first, mut rest) = bytes.split_first()?;
        let mut length = 0;
        loop {
            let (byte, after) = rest.split_first()?;
            length = length << 7 | usize::from(byte & 0x7F);
            rest = after;
            if byte & 0x80 == 0 {
                break;
            }
        }
        rest.get(skip..length).filter(|_| *first == tag)
    }
    // Version and flags; the number and flags of the stream; what the decoder needs.
    let found = esds.get(4..).and_then(|es| descriptor(es, 3, 3));
    let found = found.and_then(|config| descriptor(config, 4, 13));
    let found = found.and_then(|specific| descriptor(specific, 5, 0));
    found.ok_or_else(|| "an esds without the decoder's configuration".to_owned())
}

/// What a page gives to `addSourceBuffer`.
fn check_mime(text: &str, headers: &[Received]) -> Result<(), String> {
    let names: Vec<&str> = headers
        .iter()
        .map(|header| if header.kind == VIDEO { "avc1.42C01E" } else { "mp4a.40.2" })
        .collect();
    let kind = if headers.iter().any(|header| header.kind == VIDEO) { "video" } else { "audio" };
    let wanted = format!("{{\"mime\":\"{kind}/mp4; codecs=\\\"{}\\\"\"}}", names.join(","));
    if text.eq_ignore_ascii_case(&wanted) {
        Ok(())
    } else {
        Err(format!("an init segment of {wanted} is announced as {text}"))
    }
}
