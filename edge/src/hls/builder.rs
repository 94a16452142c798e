//! Makes the renditions of one stream in one container: segmenter, shelves, snapshots.
//!
//! ```text
//!   message ─► Segmenter ─► Output ─┬─ bytes ─► Shelf ─ snapshot ─► Rendition
//!                                   └─ sound ─► Shelf ─ snapshot ─► Rendition     with hls_audio_only
//! ```
//!
//! One segmenter cuts both, so that they have the same segments and parts under the same numbers.
//!
//! A byte of media is copied once more for parts of the open segment, and once into the file that segments
//! lie in. Memory: what [`HlsSettings::memory_bytes_max`] says, and one part more. At that bound the
//! oldest segments go first, then the open one is cut.

use std::sync::Arc;

use mux::playlist::window::Window;
use mux::segment::{Event, Output, Segmenter, SoundInit};
use uring::MemFile;

use super::archive::Archive;
use super::passing::{Inbox, Outbox};
use super::rendition::Rendition;
use super::settings::HlsSettings;
use super::shelf::{Beside, Shelf};
use super::snapshot::Snapshot;
use super::{Numbers, Opened};
use crate::hand_over::packaging::{PlaceRecord, RunRecord};
use crate::storage::StorageQueue;

/// What building has done, for the packager's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Built {
    pub(super) segments: u64,
    pub(super) parts: u64,
    pub(super) forced_cuts: u64,
    /// Segments given up before their time, for want of memory.
    pub(super) forgotten: u64,
}

/// Builds the renditions of one stream in one container.
#[derive(Debug)]
pub(super) struct Builder {
    settings: HlsSettings,
    segmenter: Segmenter,
    output: Output,
    main: Shelf,
    /// Where segments are put.
    file: Option<Arc<MemFile>>,
    /// The sound alone, from the moment on that there are both pictures and sound.
    sound: Option<Shelf>,
    /// Target duration, announced with the first playlist; it grows no more than it must.
    target_ms: u32,
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

impl Builder {
    /// Begins; all streams together may hold `total_bytes_max`.
    pub(super) fn new(
        opened: &Opened,
        storage: &StorageQueue,
        file: Option<&Arc<MemFile>>,
        total_bytes_max: u64,
    ) -> Self {
        let Opened { rendition, settings, before, .. } = opened;
        let container = rendition.key().container;
        let Numbers { sequence, discontinuities, target_ms } = before.unwrap_or_default();
        let window = Window::following(settings.window(), sequence, discontinuities);
        let archive = Archive::new(rendition, settings, storage);
        let segmenter = settings.segmenter_within(container, total_bytes_max);
        Self {
            segmenter: Segmenter::following(segmenter, sequence),
            output: Output::default(),
            main: Shelf::new(Arc::clone(rendition), window, archive, file.cloned()),
            file: file.cloned(),
            sound: None,
            // To a player it is the same playlist.
            target_ms: settings.segment_ms.max(target_ms),
            settings: settings.clone(),
            is_ended: false,
            is_changed: false,
            is_hurried: false,
            held_bytes: 0,
            built: Built::default(),
            events: Vec::new(),
        }
    }

    /// Everything another process needs to go on, and where in the stream that is. `None` if there is no room
    /// for it.
    pub(super) fn to_record(&self, place: PlaceRecord, outbox: &mut Outbox) -> Option<RunRecord> {
        let rendition = self.rendition();
        let segmenter = postcard::to_allocvec(&self.segmenter).ok()?;
        Some(RunRecord {
            path: (&rendition.key().path).into(),
            container: rendition.key().container,
            numbers: (rendition.number(), rendition.sound().map(|sound| sound.number())),
            main: self.main.to_record(&self.output.bytes, outbox),
            sound: self.sound.as_ref().map(|sound| sound.to_record(&self.output.sound, outbox)),
            segmenter: outbox.place_copy(&segmenter),
            target_ms: self.target_ms,
            is_ended: self.is_ended,
            is_hurried: self.is_hurried,
            place,
        })
    }

    /// Goes on from a record, with these settings, and tells how many segments were not to be had. `None` if
    /// it does not fit together, or what is needed to go on is not there.
    pub(super) fn resume(
        record: &RunRecord,
        (rendition, settings): (Arc<Rendition>, &HlsSettings),
        (storage, file): (&StorageQueue, Option<&Arc<MemFile>>),
        total_bytes_max: u64,
        inbox: &Inbox,
    ) -> Option<(Self, u64)> {
        let container = rendition.key().container;
        let segmenter = inbox.take(&record.segmenter)?;
        let mut segmenter: Segmenter = postcard::from_bytes(&segmenter).ok()?;
        if segmenter.container() != container {
            return None;
        }
        let archive = Archive::new(&rendition, settings, storage);
        let window = settings.window();
        let alone = rendition.sound().cloned();
        let (main, bytes, left) =
            Shelf::resume(&record.main, (rendition, window), (archive, file), inbox)?;
        if !segmenter.is_at(main.window()) {
            return None;
        }
        segmenter.set_settings(settings.segmenter_within(container, total_bytes_max));
        let sound = match (&record.sound, alone) {
            (Some(record), Some(alone)) => {
                Some(Shelf::resume(record, (alone, window), (None, file), inbox)?)
            }
            _ => None,
        };
        let (sound, sound_bytes) =
            sound.map_or((None, Vec::new()), |(s, bytes, _)| (Some(s), bytes));
        let output = Output { bytes, sound: sound_bytes, events: Vec::new() };
        let builder = Self {
            segmenter,
            output,
            main,
            file: file.cloned(),
            sound,
            target_ms: settings.segment_ms.max(record.target_ms),
            settings: settings.clone(),
            is_ended: record.is_ended,
            is_changed: true,
            is_hurried: record.is_hurried,
            held_bytes: 0,
            built: Built::default(),
            events: Vec::new(),
        };
        Some((builder, left))
    }

    /// The main rendition.
    pub(super) fn rendition(&self) -> &Arc<Rendition> {
        self.main.rendition()
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
        if !self.main.has_begun() && !self.is_hurried {
            self.segmenter.cut_soon();
            self.is_hurried = true;
        }
    }

    /// Keyframes are so far apart, in milliseconds, 0 if that is not known. Before the first playlist was
    /// answered the target duration follows from it.
    pub(super) fn expect_gop(&mut self, gop_ms: u32) {
        if !self.main.has_begun() {
            self.target_ms = self.target_ms.max(self.settings.target_ms(gop_ms));
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
        self.main.store_playlist(self.target_ms, true);
    }

    /// Makes snapshots of what has changed. `others_bytes` is what all other renditions hold, of the
    /// `total_bytes_max` there are for all; true if anything was published.
    pub(super) fn publish(&mut self, others_bytes: u64, total_bytes_max: u64) -> bool {
        if !self.is_changed {
            return false;
        }
        self.is_changed = false;
        let allowed = total_bytes_max.saturating_sub(others_bytes);
        let bytes_max = self.settings.memory_bytes_max.min(allowed);
        self.held_bytes = self.count_bytes();
        while self.held_bytes > bytes_max && self.main.forget_oldest() {
            self.built.forgotten += 1;
            let first = self.main.first_kept();
            if let Some(sound) = self.sound.as_mut().filter(|sound| sound.first_kept() < first) {
                sound.forget_oldest();
            }
            self.held_bytes = self.count_bytes();
        }
        let (is_ended, target_ms) = (self.is_ended, self.target_ms);
        let edge = |shelf: &Shelf| shelf.has_begun().then(|| shelf.window().edge());
        let (main_edge, sound_edge) = (edge(&self.main), self.sound.as_ref().and_then(edge));
        // Who reads of the sound in the main playlist finds it there.
        if let Some(sound) = &mut self.sound {
            sound.publish(&self.settings, Beside { other: main_edge, target_ms, is_ended });
        } else if let Some(rendition) = self.rendition().sound() {
            // Who waits for it learns that there is none, perhaps for now.
            let is_absent = main_edge.is_some();
            let told = rendition.snapshot();
            if (is_ended, is_absent) != (told.is_ended, told.is_absent) {
                rendition.publish(Snapshot { is_ended, is_absent, ..Snapshot::default() });
            }
        }
        self.main.publish(&self.settings, Beside { other: sound_edge, target_ms, is_ended });
        true
    }

    /// Gives everything up: nobody asks any more.
    pub(super) fn close(&mut self) {
        if let Some(sound) = &mut self.sound {
            sound.close();
        } else if let Some(rendition) = self.rendition().sound() {
            let is_closed = true;
            rendition.publish(Snapshot { is_ended: true, is_closed, ..Snapshot::default() });
        }
        self.main.close();
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
            Event::Init { generation, codecs, bytes, sound } => {
                let video = self.segmenter.tracks().video.as_ref();
                let resolution =
                    video.map_or((0, 0), |track| (track.facts.width, track.facts.height));
                self.main.put_init(*generation, codecs, resolution, &self.output.bytes, bytes);
                if let Some(init) = sound {
                    self.put_sound_init(*generation, init);
                }
            }
            Event::Part { bytes, sound: range, .. } => {
                self.main.put_part(&self.output.bytes, bytes);
                if let Some(sound) = &mut self.sound {
                    sound.put_part(&self.output.sound, range);
                }
                self.built.parts += 1;
            }
            Event::Begin { .. } | Event::End { .. } => {}
        }
        self.main.apply(event);
        if let Some(sound) = &mut self.sound {
            sound.apply(&as_sound(event));
        }
        if let Event::End { sequence, duration_ms } = *event {
            if let Some(sound) = &mut self.sound {
                sound.complete(sequence, duration_ms, &mut self.output.sound);
            }
            self.main.complete(sequence, duration_ms, &mut self.output.bytes);
            self.built.segments += 1;
            self.main.store_playlist(self.target_ms, self.is_ended);
        }
    }

    /// The sound alone can be written from the next segment on.
    fn put_sound_init(&mut self, generation: u32, init: &SoundInit) {
        let Some(rendition) = self.rendition().sound() else { return };
        let rendition = Arc::clone(rendition);
        let window = self.main.window();
        let file = self.file.as_ref();
        let shelf = self
            .sound
            .get_or_insert_with(|| Shelf::new(rendition, window.beside(), None, file.cloned()));
        shelf.put_init(generation, &init.codecs, (0, 0), &self.output.sound, &init.bytes);
    }

    /// Bytes of all buffers.
    fn count_bytes(&self) -> u64 {
        let sound = self.sound.as_ref().map_or(0, Shelf::count_bytes);
        let output = self.output.bytes.capacity() + self.output.sound.capacity();
        (self.main.count_bytes() + sound + output) as u64
    }
}

/// The event as it concerns the sound alone: a decoder can start anywhere.
fn as_sound(event: &Event) -> Event {
    let mut event = event.clone();
    if let Event::Begin { independent, .. } | Event::Part { independent, .. } = &mut event {
        *independent = true;
    }
    event
}
