//! Makes one rendition: segmenter, window, the bytes of segments, snapshots.
//!
//! ```text
//!   message ─► Segmenter ─► Output.bytes   [ part 0 | part 1 | part 2 …      the open segment
//!                               │ each part is copied, if parts are served
//!                               └─ End: the whole buffer becomes the segment, its parts slices of it
//! ```
//!
//! So a byte of media is copied once more for parts of the open segment, and not at all where there
//! are none. Memory: what [`HlsSettings::memory_bytes_max`] says, and one part more. At that bound the
//! oldest segments go first, then the open one is cut.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use mux::playlist::window::Window;
use mux::playlist::{MediaPlaylist, Name};
use mux::segment::{Event, Output, Segmenter};

use super::Opened;
use super::archive::Archive;
use super::rendition::Rendition;
use super::settings::HlsSettings;
use super::snapshot::{Facts, Playlists, Snapshot, Stored};
use crate::storage::StorageQueue;

/// Room a segment's buffer may have left over, in sixteenths; more is given back.
const SLACK_SIXTEENTHS: usize = 2;
/// Bits in a byte, milliseconds in a second.
const BITS_PER_BYTE_MS: u64 = 8 * 1000;

/// What building has done, for the packager's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Built {
    pub(super) segments: u64,
    pub(super) parts: u64,
    pub(super) forced_cuts: u64,
    /// Segments given up before their time, for want of memory.
    pub(super) forgotten: u64,
}

/// Builds one rendition.
#[derive(Debug)]
pub(super) struct Builder {
    rendition: Arc<Rendition>,
    settings: HlsSettings,
    prefix: String,
    archive: Option<Archive>,
    segmenter: Segmenter,
    output: Output,
    window: Window,
    segments: VecDeque<Arc<Stored>>,
    inits: Vec<(u32, Bytes)>,
    open: OpenSegment,
    facts: Facts,
    is_ended: bool,
    /// Something happened since the last snapshot.
    is_changed: bool,
    /// The first segment was asked to end early.
    is_hurried: bool,
    held_bytes: u64,
    built: Built,
    /// Segments and parts of the output's events, taken out while they are handled.
    events: Vec<Event>,
}

/// The segment whose bytes are in the output.
#[derive(Debug, Default)]
struct OpenSegment {
    /// Where its bytes begin in the output.
    start: usize,
    /// Where each part ends, from `start`.
    part_ends: Vec<usize>,
    /// Copies of the parts, where they are served.
    parts: Vec<Bytes>,
}

impl Builder {
    pub(super) fn new(opened: &Opened, storage: &StorageQueue) -> Self {
        let Opened { rendition, settings, before, .. } = opened;
        let container = rendition.key().container;
        let (sequence, discontinuities) = before.as_ref().map_or((0, 0), |before| {
            let snapshot = before.snapshot();
            (snapshot.edge.next_msn, snapshot.discontinuities)
        });
        Self {
            prefix: rendition.prefix(),
            archive: Archive::new(rendition, settings, storage),
            rendition: Arc::clone(rendition),
            segmenter: Segmenter::following(settings.segmenter(container), sequence),
            output: Output::default(),
            window: Window::following(settings.window(), sequence, discontinuities),
            settings: settings.clone(),
            segments: VecDeque::new(),
            inits: Vec::new(),
            open: OpenSegment::default(),
            facts: Facts::default(),
            is_ended: false,
            is_changed: false,
            is_hurried: false,
            held_bytes: 0,
            built: Built::default(),
            events: Vec::new(),
        }
    }

    pub(super) fn rendition(&self) -> &Arc<Rendition> {
        &self.rendition
    }

    pub(super) fn settings(&self) -> &HlsSettings {
        &self.settings
    }

    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// What was done since the last call.
    pub(super) fn take_built(&mut self) -> Built {
        std::mem::take(&mut self.built)
    }

    /// Takes one message of the stream.
    pub(super) fn push(&mut self, kind: u8, timestamp: u32, body: &[u8], unix_ms: u64) {
        let forced = self.segmenter.counters().forced_cuts;
        self.segmenter.push(kind, timestamp, body, unix_ms, &mut self.output);
        self.built.forced_cuts += self.segmenter.counters().forced_cuts - forced;
        if !self.output.events.is_empty() {
            self.handle_events();
        }
    }

    /// All there is of the stream was taken: a rendition without a complete segment gets one now
    /// instead of at the next keyframe.
    pub(super) fn caught_up(&mut self) {
        if self.segments.is_empty() && !self.is_hurried {
            self.segmenter.cut_soon();
            self.is_hurried = true;
        }
    }

    /// What follows does not continue what was.
    pub(super) fn discontinuity(&mut self) {
        self.segmenter.discontinuity(&mut self.output);
        self.handle_events();
    }

    /// Completes the open segment: the publisher was lost, and may return.
    pub(super) fn pause(&mut self) {
        self.segmenter.finish(&mut self.output);
        self.handle_events();
    }

    /// The stream has ended.
    pub(super) fn end(&mut self) {
        self.pause();
        self.is_ended = true;
        self.is_changed = true;
        self.store_playlist();
    }

    /// Makes a snapshot of what has changed. `others_bytes` is what all other renditions hold, of the
    /// `total_bytes_max` there are for all; true if anything was published.
    pub(super) fn publish(&mut self, others_bytes: u64, total_bytes_max: u64) -> bool {
        if !self.is_changed {
            return false;
        }
        self.is_changed = false;
        let allowed = total_bytes_max.saturating_sub(others_bytes);
        let bytes_max = self.settings.memory_bytes_max.min(allowed);
        self.held_bytes = self.count_bytes();
        while self.held_bytes > bytes_max && self.window.forget_oldest().is_some() {
            self.built.forgotten += 1;
            self.drop_unlisted();
            self.held_bytes = self.count_bytes();
        }
        let snapshot = self.snapshot();
        self.rendition.publish(snapshot);
        true
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

    fn handle_events(&mut self) {
        std::mem::swap(&mut self.events, &mut self.output.events);
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.handle(&event);
        }
        self.events = events;
        self.is_changed = true;
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Init { generation, codecs, bytes } => {
                let init = Bytes::copy_from_slice(&self.output.bytes[bytes.clone()]);
                if let Some(archive) = self.archive.as_mut().filter(|_| !init.is_empty()) {
                    archive.put(Name::Init { generation: *generation }, &init);
                }
                self.inits.push((*generation, init));
                self.facts.codecs = codecs.as_str().into();
                let video = self.segmenter.tracks().video.as_ref();
                self.facts.resolution =
                    video.map_or((0, 0), |track| (track.facts.width, track.facts.height));
                self.open.start = bytes.end;
            }
            Event::Part { bytes, .. } => {
                if self.open.part_ends.is_empty() {
                    self.open.start = bytes.start;
                }
                self.open.part_ends.push(bytes.end - self.open.start);
                if self.rendition.has_parts() {
                    let part = &self.output.bytes[bytes.clone()];
                    self.open.parts.push(Bytes::copy_from_slice(part));
                }
                self.built.parts += 1;
            }
            Event::Begin { .. } | Event::End { .. } => {}
        }
        if self.window.apply(event).is_some() {
            self.drop_unlisted();
        }
        if let Event::End { sequence, duration_ms } = *event {
            self.complete(sequence, duration_ms);
        }
    }

    /// The open segment is whole: its buffer becomes its bytes.
    fn complete(&mut self, sequence: u64, duration_ms: u32) {
        let OpenSegment { start, part_ends, .. } = std::mem::take(&mut self.open);
        let end = start + part_ends.last().copied().unwrap_or(0);
        // The segmenter begins a part only with the message behind this one.
        debug_assert_eq!(end, self.output.bytes.len());
        let mut buffer = std::mem::take(&mut self.output.bytes);
        if buffer.capacity() - buffer.len() > buffer.capacity() / 16 * SLACK_SIXTEENTHS {
            buffer.shrink_to_fit();
        }
        // The next segment is likely to be as long.
        self.output.bytes.reserve(buffer.len() + buffer.len() / 16);
        let bytes = Bytes::from(buffer).slice(start..end);
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
            archive.put(Name::Segment { sequence }, &bytes);
        }
        self.segments.push_back(Arc::new(Stored { sequence, bytes, parts }));
        self.built.segments += 1;
        self.store_playlist();
    }

    /// Stores the playlist as it is without parts: whoever serves files cannot hold a request.
    fn store_playlist(&mut self) {
        let Some(archive) = &mut self.archive else { return };
        if self.segments.is_empty() {
            return;
        }
        let playlist = MediaPlaylist {
            target_ms: self.settings.segment_ms,
            part_target_ms: None,
            ended: self.is_ended,
            skip: false,
            reports: &[],
            names: self.rendition.names(&self.prefix),
        };
        let mut text = String::with_capacity(2048);
        playlist.write(&self.window, &mut text);
        archive.put_playlist(text);
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

    /// Bytes of all buffers.
    fn count_bytes(&self) -> u64 {
        let segments: usize = self.segments.iter().map(|stored| stored.bytes.len()).sum();
        let inits: usize = self.inits.iter().map(|(_, bytes)| bytes.len()).sum();
        let parts: usize = self.open.parts.iter().map(Bytes::len).sum();
        (segments + inits + parts + self.output.bytes.capacity()) as u64
    }

    fn snapshot(&mut self) -> Snapshot {
        self.facts.is_independent = self.window.listed().all(|segment| segment.independent);
        Snapshot {
            edge: self.window.edge(),
            is_ended: self.is_ended,
            is_closed: false,
            playlists: (!self.segments.is_empty()).then(|| self.playlists()),
            inits: self.inits.clone(),
            segments: self.segments.iter().cloned().collect(),
            open_parts: self.open.parts.clone(),
            facts: self.facts.clone(),
            target_ms: self.settings.segment_ms.max(self.window.segment_ms_longest()).into(),
            discontinuities: self.window.discontinuities(),
        }
    }

    fn playlists(&self) -> Playlists {
        let part_target_ms = self
            .rendition
            .has_parts()
            .then(|| self.settings.segmenter(self.rendition.key().container).part_target_ms());
        let mut playlist = MediaPlaylist {
            // Grows with the longest segment: that keyframes are far apart is seen with the first one.
            target_ms: self.settings.segment_ms,
            part_target_ms,
            ended: self.is_ended,
            skip: false,
            reports: &[],
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
