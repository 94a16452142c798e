//! One rendition of a packaged stream: its window, the bytes of its segments, what is published of them.
//!
//! ```text
//!   Output.bytes   [ part 0 | part 1 | part 2 …      the open segment
//!                    │ each part is copied, if parts are served
//!                    └─ End: the whole buffer becomes the segment, its parts slices of it
//! ```
//!
//! Segments lie in a file of memory, from which the kernel sends them to any number of viewers without
//! copying them once for each; but for those so small that they leave with the head of their answer.
//!
//! A [`Builder`](super::builder::Builder) feeds one, or two with the sound alone, with the events of one
//! segmenter; what they hold is its to bound.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use mux::playlist::window::{Edge, Window, WindowSettings};
use mux::playlist::{MediaPlaylist, Name};
use mux::segment::Event;
use uring::{MemFile, SharedBytes};

use super::archive::Archive;
use super::passing::{Inbox, Outbox};
use super::rendition::Rendition;
use super::settings::HlsSettings;
use super::snapshot::{Facts, Playlists, Snapshot, Stored};
use crate::hand_over::packaging::{SegmentRecord, ShelfRecord};
use crate::http::INLINE_BODY_BYTES_MAX;

/// Room a segment's buffer may have left over, in sixteenths; more is given back.
const SLACK_SIXTEENTHS: usize = 2;
/// Bits in a byte, milliseconds in a second.
const BITS_PER_BYTE_MS: u64 = 8 * 1000;

/// Where the stream is beside this rendition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Beside {
    /// Where the other rendition ends, if there is another one that can be watched.
    pub(super) other: Option<Edge>,
    /// Target duration, in milliseconds.
    pub(super) target_ms: u32,
    /// Nothing will follow.
    pub(super) is_ended: bool,
}

/// One rendition.
#[derive(Debug)]
pub(super) struct Shelf {
    rendition: Arc<Rendition>,
    prefix: String,
    archive: Option<Archive>,
    window: Window,
    segments: VecDeque<Arc<Stored>>,
    inits: Vec<(u32, SharedBytes)>,
    /// Where segments are put; in memory of the process without it.
    file: Option<Arc<MemFile>>,
    open: OpenSegment,
    facts: Facts,
}

/// The segment whose bytes are in the output.
#[derive(Debug, Default)]
struct OpenSegment {
    /// Where its bytes begin in the output.
    start: usize,
    /// Where each part ends, from `start`.
    part_ends: Vec<usize>,
    /// Copies of the parts, where they are served.
    parts: Vec<SharedBytes>,
}

impl Shelf {
    pub(super) fn new(
        rendition: Arc<Rendition>,
        window: Window,
        archive: Option<Archive>,
        file: Option<Arc<MemFile>>,
    ) -> Self {
        Self {
            prefix: rendition.prefix(),
            rendition,
            archive,
            window,
            segments: VecDeque::new(),
            inits: Vec::new(),
            file,
            open: OpenSegment::default(),
            facts: Facts::default(),
        }
    }

    /// Everything another process needs to go on; `buffer` is the open segment's.
    pub(super) fn to_record(&self, buffer: &[u8], outbox: &mut Outbox) -> ShelfRecord {
        // The newest first: if there is not room for all of them, the oldest are left out.
        let mut segments: Vec<SegmentRecord> = self
            .segments
            .iter()
            .rev()
            .map(|stored| SegmentRecord {
                sequence: stored.sequence,
                bytes: outbox.place(&stored.bytes),
                part_ends: ends(stored.parts.iter().map(|part| part.len())),
            })
            .collect();
        segments.reverse();
        let inits = self.inits.iter();
        ShelfRecord {
            window: self.window.clone(),
            segments,
            inits: inits.map(|(number, bytes)| (*number, outbox.place(bytes))).collect(),
            open: outbox.place_copy(buffer),
            open_start: self.open.start as u64,
            open_part_ends: self.open.part_ends.iter().map(|end| *end as u64).collect(),
            codecs: self.facts.codecs.as_ref().to_owned(),
            resolution: self.facts.resolution,
            bandwidth: self.facts.bandwidth,
        }
    }

    /// Goes on from a record. Returns the open segment's buffer, and how many segments were not to be had:
    /// neither they nor those before them are listed any more. `None` if it does not fit together, or what is
    /// needed to go on is not there.
    pub(super) fn resume(
        record: &ShelfRecord,
        (rendition, settings): (Arc<Rendition>, WindowSettings),
        (archive, file): (Option<Archive>, Option<&Arc<MemFile>>),
        inbox: &Inbox,
    ) -> Option<(Self, Vec<u8>, u64)> {
        let window = record.window.clone().resume(settings)?;
        let mut shelf = Self::new(rendition, window, archive, file.cloned());
        let left = shelf.resume_segments(record, inbox)?;
        for (generation, bytes) in &record.inits {
            shelf.inits.push((*generation, inbox.take(bytes)?));
        }
        let has_init = |generation| shelf.inits.iter().any(|(number, _)| *number == generation);
        if !shelf.window.kept().all(|segment| has_init(segment.generation)) {
            return None;
        }
        let buffer = inbox.take(&record.open)?.to_vec();
        shelf.resume_open(record, &buffer)?;
        shelf.facts.codecs = record.codecs.as_str().into();
        shelf.facts.resolution = record.resolution;
        shelf.facts.bandwidth = record.bandwidth;
        shelf.drop_unlisted();
        Some((shelf, buffer, left))
    }

    fn resume_segments(&mut self, record: &ShelfRecord, inbox: &Inbox) -> Option<u64> {
        let first = self.window.kept().next().map(|segment| segment.sequence);
        let complete: Vec<(u64, usize)> = self
            .window
            .kept()
            .filter(|segment| segment.complete)
            .map(|segment| (segment.sequence, segment.parts.len()))
            .collect();
        let is_kept =
            |segment: &&SegmentRecord| first.is_some_and(|first| segment.sequence >= first);
        let mut records = record.segments.iter().filter(is_kept);
        let mut missing = None;
        for (sequence, part_count) in complete {
            let segment = records.next().filter(|segment| segment.sequence == sequence)?;
            let Some(bytes) = inbox.take(&segment.bytes) else {
                missing = Some(sequence);
                self.segments.clear();
                continue;
            };
            let parts = match self.rendition.has_parts() && segment.part_ends.len() == part_count {
                true => slices(&bytes, &segment.part_ends)?,
                false => Box::default(),
            };
            if parts.is_empty() {
                // Made where playlists listed none, or to be listed in one that does not.
                self.window.join_parts(sequence);
            }
            self.segments.push_back(Arc::new(Stored { sequence, bytes, parts }));
        }
        let mut left = 0;
        let is_missing = |window: &Window| {
            let oldest = window.kept().next().map(|segment| segment.sequence);
            oldest.is_some() && oldest <= missing
        };
        while is_missing(&self.window) {
            self.window.forget_oldest()?;
            left += 1;
        }
        records.next().is_none().then_some(left)
    }

    fn resume_open(&mut self, record: &ShelfRecord, buffer: &[u8]) -> Option<()> {
        let start = usize::try_from(record.open_start).ok()?;
        let open = buffer.get(start..)?;
        let (_, part_count) = self.window.next_part();
        if record.open_part_ends.len() != usize::try_from(part_count).ok()? {
            return None;
        }
        let open = SharedBytes::from(open.to_vec());
        let part_ends = &record.open_part_ends;
        let parts = slices(&open, part_ends)?;
        // What the segmenter adds next lies right behind the last part.
        if part_ends.last().is_some_and(|last| *last != open.len() as u64) {
            return None;
        }
        self.open.start = start;
        self.open.part_ends =
            part_ends.iter().map(|end| usize::try_from(*end)).collect::<Result<_, _>>().ok()?;
        if self.rendition.has_parts() {
            self.open.parts = parts.into_vec();
        }
        Some(())
    }

    pub(super) fn rendition(&self) -> &Arc<Rendition> {
        &self.rendition
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// True once there is a complete segment.
    pub(super) fn has_begun(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Sequence number of the oldest segment that is kept.
    pub(super) fn first_kept(&self) -> u64 {
        self.window.kept().next().map_or(self.window.first_sequence(), |first| first.sequence)
    }

    /// An init segment: `range` of `buffer`.
    pub(super) fn put_init(
        &mut self,
        generation: u32,
        codecs: &str,
        resolution: (u32, u32),
        buffer: &[u8],
        range: &Range<usize>,
    ) {
        let init = copy(buffer.get(range.clone()).unwrap_or_default());
        if let Some(archive) = self.archive.as_mut().filter(|_| !init.is_empty()) {
            archive.put(Name::Init { generation }, init.to_bytes());
        }
        self.inits.push((generation, init));
        self.facts.codecs = codecs.into();
        self.facts.resolution = resolution;
        self.open.start = range.end;
    }

    /// A part of the open segment: `range` of `buffer`.
    pub(super) fn put_part(&mut self, buffer: &[u8], range: &Range<usize>) {
        if self.open.part_ends.is_empty() {
            self.open.start = range.start;
        }
        self.open.part_ends.push(range.end - self.open.start);
        if self.rendition.has_parts() {
            let part = buffer.get(range.clone()).unwrap_or_default();
            self.open.parts.push(copy(part));
        }
    }

    /// Takes an event into the window, and lets go of what that no longer keeps.
    pub(super) fn apply(&mut self, event: &Event) {
        if self.window.apply(event).is_some() {
            self.drop_unlisted();
        }
    }

    /// The open segment is whole: its buffer becomes its bytes.
    pub(super) fn complete(&mut self, sequence: u64, duration_ms: u32, buffer: &mut Vec<u8>) {
        let OpenSegment { start, part_ends, .. } = std::mem::take(&mut self.open);
        let end = start + part_ends.last().copied().unwrap_or(0);
        // The segmenter begins a part only with the message behind this one.
        debug_assert_eq!(end, buffer.len());
        let bytes = self.take_segment(buffer, start..end);
        let mut from = 0;
        let parts = part_ends.into_iter().filter(|_| self.rendition.has_parts()).map(|to| {
            let part = bytes.slice(from..to);
            from = to;
            part
        });
        let parts = parts.collect();
        let rate = bytes.len() as u64 * BITS_PER_BYTE_MS / u64::from(duration_ms.max(1));
        self.facts.bandwidth = self.facts.bandwidth.max(rate);
        if let Some(archive) = &mut self.archive {
            archive.put(Name::Segment { sequence }, bytes.to_bytes());
        }
        self.segments.push_back(Arc::new(Stored { sequence, bytes, parts }));
    }

    /// Takes a segment out of the buffer, which is empty then: the next one is likely to be as long.
    fn take_segment(&self, buffer: &mut Vec<u8>, range: Range<usize>) -> SharedBytes {
        let room = range.len() + range.len() / 16;
        let segment = buffer.get(range.clone()).unwrap_or_default();
        let file = self.file.as_ref().filter(|_| segment.len() > INLINE_BODY_BYTES_MAX);
        // Without room in the file it is kept like everything else.
        if let Some(Ok(bytes)) = file.map(|file| file.put(segment)) {
            buffer.clear();
            buffer.shrink_to(room);
            return bytes;
        }
        let mut whole = std::mem::take(buffer);
        if whole.capacity() - whole.len() > whole.capacity() / 16 * SLACK_SIXTEENTHS {
            whole.shrink_to_fit();
        }
        buffer.reserve(room);
        SharedBytes::from(whole).slice(range)
    }

    /// Stores the playlist as it is without parts: whoever serves files cannot hold a request.
    pub(super) fn store_playlist(&mut self, target_ms: u32, is_ended: bool) {
        let Some(archive) = &mut self.archive else { return };
        if self.segments.is_empty() {
            return;
        }
        let playlist = MediaPlaylist {
            target_ms,
            part_target_ms: None,
            ended: is_ended,
            skip: false,
            names: self.rendition.names(&self.prefix),
        };
        let mut text = String::with_capacity(2048);
        playlist.write(&self.window, &mut text);
        archive.put_playlist(text);
    }

    /// Gives up the oldest segment before its time; false if it is the only one.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let is_forgotten = self.window.forget_oldest().is_some();
        if is_forgotten {
            self.drop_unlisted();
        }
        is_forgotten
    }

    /// Bytes of all buffers but the output's.
    pub(super) fn count_bytes(&self) -> usize {
        let segments: usize = self.segments.iter().map(|stored| stored.bytes.len()).sum();
        let inits: usize = self.inits.iter().map(|(_, bytes)| bytes.len()).sum();
        let parts: usize = self.open.parts.iter().map(|part| part.len()).sum();
        segments + inits + parts
    }

    /// Makes what is answered from now on.
    pub(super) fn publish(&mut self, settings: &HlsSettings, beside: Beside) {
        self.facts.is_independent = self.window.listed().all(|segment| segment.independent);
        let playlists = self.has_begun().then(|| self.playlists(settings, beside));
        self.rendition.publish(Snapshot {
            is_absent: false,
            edge: self.window.edge(),
            other_edge: beside.other,
            is_ended: beside.is_ended,
            is_closed: false,
            playlists,
            inits: self.inits.clone(),
            segments: self.segments.iter().cloned().collect(),
            open_parts: self.open.parts.clone(),
            facts: self.facts.clone(),
            target_ms: beside.target_ms.max(self.window.segment_ms_longest()),
            discontinuities: self.window.discontinuities(),
        });
    }

    /// Gives everything up: nobody asks any more.
    pub(super) fn close(&mut self) {
        self.rendition.publish(Snapshot {
            is_ended: true,
            is_closed: true,
            edge: self.window.edge(),
            discontinuities: self.window.discontinuities(),
            ..Snapshot::default()
        });
        let Some(archive) = &mut self.archive else { return };
        for stored in &self.segments {
            archive.remove(Name::Segment { sequence: stored.sequence });
        }
        for (generation, _) in &self.inits {
            archive.remove(Name::Init { generation: *generation });
        }
        archive.close();
    }

    /// Lets go of what the window no longer keeps.
    fn drop_unlisted(&mut self) {
        let first = self.window.kept().next().map(|segment| (segment.sequence, segment.generation));
        let Some((sequence, generation)) = first else { return };
        while self.segments.front().is_some_and(|stored| stored.sequence < sequence) {
            let gone = self.segments.pop_front();
            if let (Some(archive), Some(gone)) = (&mut self.archive, gone) {
                archive.remove(Name::Segment { sequence: gone.sequence });
            }
        }
        self.inits.retain(|(number, bytes)| {
            let is_needed = *number >= generation;
            if let Some(archive) = self.archive.as_mut().filter(|_| !is_needed && !bytes.is_empty())
            {
                archive.remove(Name::Init { generation: *number });
            }
            is_needed
        });
    }

    fn playlists(&self, settings: &HlsSettings, beside: Beside) -> Playlists {
        let part_target_ms = self
            .rendition
            .has_parts()
            .then(|| settings.segmenter(self.rendition.key().container).part_target_ms());
        let mut playlist = MediaPlaylist {
            // Grows with the longest segment where that was not foreseen.
            target_ms: beside.target_ms,
            part_target_ms,
            ended: beside.is_ended,
            skip: false,
            names: self.rendition.names(&self.prefix),
        };
        let mut full = String::with_capacity(4096);
        playlist.write(&self.window, &mut full);
        let mut delta = String::new();
        if part_target_ms.is_some() {
            playlist.skip = true;
            playlist.write(&self.window, &mut delta);
            if delta == full {
                delta.clear();
            }
        }
        Playlists { full: full.into(), delta: delta.into() }
    }
}

/// Where pieces of these lengths end.
fn ends(lengths: impl Iterator<Item = usize>) -> Vec<u64> {
    let mut end = 0;
    let ends = lengths.map(|length| {
        end += length as u64;
        end
    });
    ends.collect()
}

/// The pieces that end there; `None` if they do not lie in `bytes` one behind the other.
fn slices(bytes: &SharedBytes, ends: &[u64]) -> Option<Box<[SharedBytes]>> {
    let mut from = 0;
    let slices = ends.iter().map(|end| {
        let to = usize::try_from(*end).ok().filter(|to| (from..=bytes.len()).contains(to))?;
        let slice = bytes.slice(from..to);
        from = to;
        Some(slice)
    });
    slices.collect()
}

fn copy(bytes: &[u8]) -> SharedBytes {
    bytes.to_vec().into()
}
