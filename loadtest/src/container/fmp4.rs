//! Reads fragmented MP4: tracks from the init segment, samples by the tables of each fragment.
//!
//! ```text
//!  Box ─┬─ moov, moof ─► Table: kept whole, then parsed
//!       ├─ mdat ───────► Data: samples in pieces, as their bytes pass by
//!       └─ others ─────► Skip
//! ```
//!
//! Bounded: a table of [`TABLE_BYTES_MAX`], [`SAMPLES_MAX`] samples of a fragment, [`TRACKS_MAX`]
//! tracks. Spec: ISO 14496-12 §8.3 to §8.8.

use super::wide;
use crate::marker::Wrapping;
use crate::num::low_u32;
use crate::viewer::{Piece, Shape};
use rtmp::session::MediaKind;

const TABLE_BYTES_MAX: u64 = 1 << 20;
const SAMPLES_MAX: usize = 16_384;
const TRACKS_MAX: usize = 16;
const HEADER_BYTES: usize = 8;
/// With a length of 64 bits.
const LONG_HEADER_BYTES: usize = 16;

/// sample_is_non_sync_sample.
const NON_SYNC: u32 = 1 << 16;
const TFHD_BASE: u32 = 1;
const TFHD_DESCRIPTION: u32 = 2;
const TFHD_DURATION: u32 = 8;
const TFHD_SIZE: u32 = 0x10;
const TFHD_FLAGS: u32 = 0x20;
const TRUN_OFFSET: u32 = 1;
const TRUN_FIRST_FLAGS: u32 = 4;
const TRUN_DURATION: u32 = 0x100;
const TRUN_SIZE: u32 = 0x200;
const TRUN_FLAGS: u32 = 0x400;
const TRUN_COMPOSITION: u32 = 0x800;

#[derive(Copy, Clone, Debug)]
struct Track {
    id: u32,
    kind: Option<MediaKind>,
    timescale: u32,
    wrapping: Option<Wrapping>,
    defaults: Defaults,
}

/// What holds for samples whose table does not say.
#[derive(Copy, Clone, Debug, Default)]
struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

/// A sample of the open fragment, by its place in all that was read.
#[derive(Copy, Clone, Debug)]
struct Sample {
    at: u64,
    end: u64,
    kind: MediaKind,
    timestamp: u32,
    shape: Shape,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Box,
    Table {
        is_moov: bool,
        left: u64,
    },
    Data {
        left: u64,
    },
    Skip {
        left: u64,
    },
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Fmp4Reader {
    state: State,
    /// Bytes read, and where the open fragment began.
    offset: u64,
    moof_at: u64,
    /// A box header, or a table.
    kept: Vec<u8>,
    tracks: Vec<Track>,
    samples: Vec<Sample>,
    next: usize,
}

impl Fmp4Reader {
    /// See [`Container::handle_bytes`](super::Container::handle_bytes).
    pub(super) fn handle_bytes(
        &mut self,
        bytes: &[u8],
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        let mut input = bytes;
        while !input.is_empty() {
            match self.state {
                State::Box => self.take_header(&mut input)?,
                State::Table { is_moov, left } => {
                    let taken = self.take(&mut input, left);
                    self.kept.extend_from_slice(taken);
                    let left = left - taken.len() as u64;
                    self.state = State::Table { is_moov, left };
                    if left == 0 {
                        self.read_table(is_moov)?;
                        self.state = State::Box;
                    }
                }
                State::Data { left } => {
                    let at = self.offset;
                    let taken = self.take(&mut input, left);
                    self.tell_samples(at, taken, tell);
                    self.go_on(left, taken.len(), |left| State::Data { left });
                }
                State::Skip { left } => {
                    let taken = self.take(&mut input, left).len();
                    self.go_on(left, taken, |left| State::Skip { left });
                }
            }
        }
        Ok(())
    }

    /// See [`Container::end_unit`](super::Container::end_unit).
    pub(super) fn end_unit(&self) -> Result<(), &'static str> {
        let is_between = self.state == State::Box && self.kept.is_empty();
        if !is_between {
            return Err("mp4: it ends within a box");
        }
        let is_all = self.next >= self.samples.len();
        if is_all { Ok(()) } else { Err("mp4: samples of a fragment are missing") }
    }

    fn go_on(&mut self, left: u64, taken: usize, state: impl FnOnce(u64) -> State) {
        let left = left - taken as u64;
        self.state = if left == 0 { State::Box } else { state(left) };
    }

    fn take<'i>(&mut self, input: &mut &'i [u8], left: u64) -> &'i [u8] {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let (taken, rest) = input.split_at(count);
        *input = rest;
        self.offset += count as u64;
        taken
    }

    fn take_header(&mut self, input: &mut &[u8]) -> Result<(), &'static str> {
        let is_long = self.kept.len() >= HEADER_BYTES && self.kept[..4] == [0, 0, 0, 1];
        let wanted = if is_long { LONG_HEADER_BYTES } else { HEADER_BYTES };
        let missing = (wanted - self.kept.len()) as u64;
        let taken = self.take(input, missing);
        self.kept.extend_from_slice(taken);
        if self.kept.len() < wanted || (wanted == HEADER_BYTES && self.kept[..4] == [0, 0, 0, 1]) {
            return Ok(());
        }
        let size = if is_long { wide(&self.kept[8..]) } else { wide(&self.kept[..4]) };
        let left = size.checked_sub(wanted as u64).ok_or("mp4: a box shorter than its header")?;
        let kind = [self.kept[4], self.kept[5], self.kept[6], self.kept[7]];
        let header = std::mem::take(&mut self.kept);
        self.state = match &kind {
            b"moov" | b"moof" if left > TABLE_BYTES_MAX => return Err("mp4: a table is too long"),
            b"moov" | b"moof" => {
                self.moof_at = self.offset - header.len() as u64;
                self.kept = header;
                self.kept.clear();
                State::Table { is_moov: &kind == b"moov", left }
            }
            b"mdat" if self.samples.get(self.next).is_some_and(|next| next.at < self.offset) => {
                return Err("mp4: a sample outside of the data");
            }
            b"mdat" => State::Data { left },
            kind if kind.iter().all(u8::is_ascii_graphic) => State::Skip { left },
            _ => return Err("mp4: no box"),
        };
        if left == 0 {
            self.state = State::Box;
        }
        Ok(())
    }

    fn read_table(&mut self, is_moov: bool) -> Result<(), &'static str> {
        let table = std::mem::take(&mut self.kept);
        if is_moov {
            self.tracks = tracks(&table)?;
        } else {
            if self.next < self.samples.len() {
                return Err("mp4: samples of a fragment are missing");
            }
            self.samples.clear();
            self.next = 0;
            for (kind, traf) in Boxes(&table) {
                if kind == b"traf" {
                    self.read_traf(traf)?;
                }
            }
            self.samples.sort_by_key(|sample| sample.at);
            if !self.samples.is_sorted_by(|one, next| one.end <= next.at) {
                return Err("mp4: samples overlap");
            }
        }
        self.kept = table;
        self.kept.clear();
        Ok(())
    }

    fn read_traf(&mut self, traf: &[u8]) -> Result<(), &'static str> {
        let tfhd = Fields::of(traf, b"tfhd").ok_or("mp4: a fragment without header")?;
        let mut fields = tfhd;
        let id = fields.u32();
        let track = self.tracks.iter().find(|track| track.id == id).copied();
        let track = track.ok_or("mp4: a fragment of an unknown track")?;
        if tfhd.flags & TFHD_BASE != 0 {
            return Err("mp4: a fragment with an absolute offset");
        }
        let mut defaults = track.defaults;
        let mut skip = |flag: u32| if tfhd.flags & flag != 0 { Some(fields.u32()) } else { None };
        skip(TFHD_DESCRIPTION);
        defaults.duration = skip(TFHD_DURATION).unwrap_or(defaults.duration);
        defaults.size = skip(TFHD_SIZE).unwrap_or(defaults.size);
        defaults.flags = skip(TFHD_FLAGS).unwrap_or(defaults.flags);
        let mut tfdt = Fields::of(traf, b"tfdt").ok_or("mp4: a fragment without time")?;
        let mut time = if tfdt.version == 1 { tfdt.u64() } else { u64::from(tfdt.u32()) };
        let mut at = self.moof_at;
        for (kind, body) in Boxes(traf) {
            if kind == b"trun" {
                self.read_trun(Fields::new(body), &track, &defaults, (&mut time, &mut at))?;
            }
        }
        Ok(())
    }

    fn read_trun(
        &mut self,
        mut trun: Fields<'_>,
        track: &Track,
        defaults: &Defaults,
        (time, at): (&mut u64, &mut u64),
    ) -> Result<(), &'static str> {
        let flags = trun.flags;
        let has = |flag: u32| flags & flag != 0;
        let count = trun.u32();
        if has(TRUN_OFFSET) {
            *at = self.moof_at.saturating_add(u64::from(trun.u32()));
        }
        let first_flags = has(TRUN_FIRST_FLAGS).then(|| trun.u32());
        for index in 0..count {
            if self.samples.len() >= SAMPLES_MAX {
                return Err("mp4: too many samples in a fragment");
            }
            let duration = if has(TRUN_DURATION) { trun.u32() } else { defaults.duration };
            let size = if has(TRUN_SIZE) { trun.u32() } else { defaults.size };
            let own_flags = has(TRUN_FLAGS).then(|| trun.u32());
            if has(TRUN_COMPOSITION) {
                trun.u32();
            }
            if trun.is_cut {
                return Err("mp4: a table is cut off");
            }
            let first_flags = first_flags.filter(|_| index == 0);
            let sample_flags = own_flags.or(first_flags).unwrap_or(defaults.flags);
            let end = at.saturating_add(size.into());
            if let (Some(kind), true) = (track.kind, size > 0) {
                let is_key = kind == MediaKind::Video && sample_flags & NON_SYNC == 0;
                let timestamp = low_u32(milliseconds(*time, track.timescale));
                let shape = Shape::Frame { wrapping: track.wrapping, is_key };
                self.samples.push(Sample { at: *at, end, kind, timestamp, shape });
            }
            *at = end;
            *time = time.saturating_add(duration.into());
        }
        Ok(())
    }

    /// Tells of the samples in bytes of a data box that begin at `at`. None of those left ends before: they do
    /// not overlap, and none begins in front of its box.
    fn tell_samples(&mut self, at: u64, bytes: &[u8], tell: &mut dyn FnMut(&Piece<'_>)) {
        let end = at + bytes.len() as u64;
        let place = |position: u64| usize::try_from(position - at).unwrap_or(usize::MAX);
        while let Some(sample) = self.samples.get(self.next) {
            if sample.at >= end {
                return;
            }
            let from = place(sample.at.max(at));
            let to = place(sample.end.min(end));
            let last = sample.end <= end;
            tell(&Piece {
                kind: sample.kind,
                timestamp: sample.timestamp,
                shape: sample.shape,
                first: sample.at >= at,
                last,
                body: bytes.get(from..to).unwrap_or_default(),
            });
            if !last {
                return;
            }
            self.next += 1;
        }
    }
}

fn milliseconds(units: u64, timescale: u32) -> u64 {
    let timescale = u128::from(timescale.max(1));
    let rounded = (u128::from(units) * 1000 + timescale / 2) / timescale;
    u64::try_from(rounded).unwrap_or(u64::MAX)
}

fn tracks(moov: &[u8]) -> Result<Vec<Track>, &'static str> {
    let mut tracks = Vec::new();
    for (kind, trak) in Boxes(moov) {
        if kind == b"trak" {
            let track = track(trak).ok_or("mp4: a track without id, time or description")?;
            tracks.push(track);
        }
    }
    if tracks.is_empty() || tracks.len() > TRACKS_MAX {
        return Err("mp4: no tracks, or too many");
    }
    let extends = find(moov, b"mvex").map(Boxes).into_iter().flatten();
    for (_, trex) in extends.filter(|(kind, _)| *kind == b"trex") {
        let mut fields = Fields::new(trex);
        let (id, _description) = (fields.u32(), fields.u32());
        let (duration, size, flags) = (fields.u32(), fields.u32(), fields.u32());
        if let Some(track) = tracks.iter_mut().find(|track| track.id == id) {
            track.defaults = Defaults { duration, size, flags };
        }
    }
    Ok(tracks)
}

fn track(trak: &[u8]) -> Option<Track> {
    let mut tkhd = Fields::of(trak, b"tkhd")?;
    tkhd.skip(if tkhd.version == 1 { 16 } else { 8 });
    let id = tkhd.u32();
    let mdia = find(trak, b"mdia")?;
    let mut mdhd = Fields::of(mdia, b"mdhd")?;
    mdhd.skip(if mdhd.version == 1 { 16 } else { 8 });
    let timescale = mdhd.u32();
    let table = find(find(mdia, b"minf")?, b"stbl")?;
    // Version and flags, number of entries; then the entries are boxes.
    let entries = find(table, b"stsd")?.get(8..)?;
    let (entry, _) = Boxes(entries).next()?;
    let (kind, wrapping) = match entry {
        b"avc1" | b"avc3" => (Some(MediaKind::Video), Some(Wrapping::AvcSei)),
        b"hvc1" | b"hev1" => (Some(MediaKind::Video), Some(Wrapping::HevcSei)),
        b"av01" => (Some(MediaKind::Video), Some(Wrapping::Av1Padding)),
        b"vp09" => (Some(MediaKind::Video), None),
        b"mp4a" => (Some(MediaKind::Audio), Some(Wrapping::AacElement)),
        b"Opus" | b"fLaC" => (Some(MediaKind::Audio), None),
        _ => (None, None),
    };
    let is_cut = tkhd.is_cut || mdhd.is_cut;
    (!is_cut).then_some(Track { id, kind, timescale, wrapping, defaults: Defaults::default() })
}

/// The boxes in some bytes; what is cut off ends them.
struct Boxes<'b>(&'b [u8]);

impl<'b> Iterator for Boxes<'b> {
    type Item = (&'b [u8; 4], &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (size, rest) = self.0.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let size = usize::try_from(u32::from_be_bytes(*size)).ok()?.checked_sub(HEADER_BYTES)?;
        let (body, rest) = rest.split_at_checked(size)?;
        self.0 = rest;
        Some((kind, body))
    }
}

fn find<'b>(bytes: &'b [u8], kind: &[u8; 4]) -> Option<&'b [u8]> {
    Boxes(bytes).find(|(found, _)| *found == kind).map(|(_, body)| body)
}

/// Numbers of a box with version and flags; zeros behind its end.
#[derive(Copy, Clone, Debug)]
struct Fields<'b> {
    version: u8,
    flags: u32,
    rest: &'b [u8],
    is_cut: bool,
}

impl<'b> Fields<'b> {
    fn new(body: &'b [u8]) -> Fields<'b> {
        let mut fields = Fields { version: 0, flags: 0, rest: body, is_cut: false };
        let [version, a, b, c] = fields.u32().to_be_bytes();
        (fields.version, fields.flags) = (version, u32::from_be_bytes([0, a, b, c]));
        fields
    }

    fn of(parent: &'b [u8], kind: &[u8; 4]) -> Option<Fields<'b>> {
        find(parent, kind).map(Fields::new)
    }

    fn skip(&mut self, count: usize) {
        self.is_cut |= count > self.rest.len();
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn u32(&mut self) -> u32 {
        let value = self.rest.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        self.skip(4);
        value
    }

    fn u64(&mut self) -> u64 {
        let (high, low) = (self.u32(), self.u32());
        u64::from(high) << 32 | u64::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Container;
    use super::super::tests_of_readers::{Clip, read_all};
    use super::*;
    use mux::segment;

    #[test]
    fn fragments_are_read_in_pieces_of_any_size() {
        for codec in ["avc", "hvc1", "av01"] {
            let clip = Clip::new(segment::Container::Fmp4, codec);
            for piece in [1, 7, 1000, 1 << 20] {
                let seen = read_all(Container::fmp4(), &clip.units, piece).unwrap();
                clip.compare(&seen);
            }
        }
    }

    #[test]
    fn what_is_wrong_has_a_name() {
        let clip = Clip::new(segment::Container::Fmp4, "avc");
        let (init, part) = (clip.units[0].clone(), clip.units[1].clone());
        let error = |units: &[Vec<u8>]| read_all(Container::fmp4(), units, 100).unwrap_err();
        assert!(error(std::slice::from_ref(&part)).contains("unknown track"));
        let cut = part[..part.len() - 1].to_vec();
        assert!(error(&[init.clone(), cut]).contains("within a box"));
        assert!(error(&[b"not a box at all".to_vec()]).contains("box"));
        let mut huge = init;
        let moov = huge.windows(4).position(|four| four == b"moov").unwrap();
        huge[moov - 4..moov].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(error(&[huge]).contains("too long"));
    }

    #[test]
    fn samples_have_a_place_of_their_own_in_the_data() {
        let clip = Clip::new(segment::Container::Fmp4, "avc");
        let (init, part) = (&clip.units[0], &clip.units[1]);
        let error =
            |part: Vec<u8>| read_all(Container::fmp4(), &[init.clone(), part], 100).unwrap_err();
        let place = |name: &'static [u8]| {
            part.windows(4).enumerate().filter(move |(_, four)| *four == name).map(|(at, _)| at)
        };
        // The offset stands behind version, flags and number of samples.
        let offsets: Vec<usize> = place(b"trun").map(|at| at + 12).collect();
        let mut overlapping = part.clone();
        overlapping.copy_within(offsets[0]..offsets[0] + 4, offsets[1]);
        assert!(error(overlapping).contains("overlap"));
        let mut moved = part.clone();
        let data = place(b"mdat").next().unwrap() - 4;
        moved.splice(data..data, *b"\0\0\0\x08free");
        assert!(error(moved).contains("outside of the data"));
    }

    #[test]
    fn times_are_rounded_to_the_nearest_millisecond() {
        assert_eq!(milliseconds(1024, 48_000), 21);
        assert_eq!(milliseconds(3 * 1024, 48_000), 64);
        assert_eq!(milliseconds(90, 90_000), 1);
        assert_eq!(milliseconds(5, 0), 5_000);
    }
}
