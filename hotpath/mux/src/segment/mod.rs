//! The segmenter: cuts a stream into parts and segments, and tells what came of it.
//!
//! ```text
//!  push(message) ─► Init?  Begin  Part  Part  Part  End   Begin  Part …
//!                   └ when tracks change; then Begin says "discontinuity"
//! ```
//!
//! A segment is nothing but its parts joined. A part ends before the sample that would make it
//! longer than its target; a segment ends at the first keyframe after its target, or, without
//! keyframes, at its maximum. One that had to start without a keyframe ends at the next one.
//! Pictures set the pace; sound does if there are none, or none for [`VIDEO_QUIET_MS`].
//!
//! Sound that is configured anew, or joins, in the middle of a segment waits for the next one, which begins
//! at the next keyframe, whatever the target: its init segment is in force from there on, and no picture is
//! left out for it. A track that the publisher's successor neither announces nor sends is gone with the
//! first part of what it sends.
//!
//! Where [`Settings::sound_alone`] asks for it, the sound is written a second time without the pictures, cut
//! by the same decisions: two renditions with one timeline and one numbering, which players can switch
//! between at any segment or part.
//!
//! Bytes and events go into an [`Output`] of the caller, who drains it after each call. What is
//! kept between calls is one part (its sound twice): at most [`PART_BYTES_MAX`] and one message, at most
//! [`PART_SAMPLES_MAX`] table lines. Never reads a clock: wall time is an argument, and is only used
//! for dates. Never panics on a body.

mod open;
mod packer;
mod sound;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use crate::media::{self, AudioTrack, Clock, Kind, Media, Sample, Tracks, VideoTrack, codec_names};
use crate::playlist::window::Window;
use open::Open;
use packer::Packer;
use sound::Sound;

/// Payload after which a part ends, whatever its target, in bytes.
pub const PART_BYTES_MAX: usize = 8 << 20;
/// Samples after which a part ends.
pub const PART_SAMPLES_MAX: usize = 4096;
/// Payload after which a segment ends at the latest, whatever its target, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Parts after which a segment ends, for streams whose clock stands still.
pub const SEGMENT_PARTS_MAX: u32 = 1024;
/// After so long without a picture sound sets the pace, in milliseconds.
pub const VIDEO_QUIET_MS: u64 = 1000;
/// So long a stream that starts with sound is given for its pictures to appear, in milliseconds.
pub const START_WAIT_MS: u64 = 500;
/// A date is corrected at a segment's start when it is off by more than this, in milliseconds.
pub const DATE_DRIFT_MS: u64 = 1000;

/// What a segment is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Container {
    /// MPEG-TS: H.264, H.265; AAC, MP3.
    Ts,
    /// Fragmented MP4: also AV1, VP9; Opus, FLAC.
    Fmp4,
}

/// Lengths, all in milliseconds of the stream's timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Settings {
    /// What is written.
    pub container: Container,
    /// Parts aim at this. It is also how long bytes stay inside, so it matters without
    /// low-latency playlists too.
    pub part_ms: u32,
    /// Segments end at the first keyframe after this.
    pub segment_ms: u32,
    /// Segments end here without a keyframe. At least `segment_ms`.
    pub segment_ms_max: u32,
    /// So long a stream with pictures is given for its first keyframe; then it starts without.
    pub keyframe_wait_ms: u32,
    /// Payload after which a segment ends, in bytes; at most [`SEGMENT_BYTES_MAX`] counts.
    pub segment_bytes_max: u64,
    /// Whether a stream of pictures and sound is also written as sound alone.
    pub sound_alone: bool,
}

impl Settings {
    /// Parts of 200 ms, segments of 2 s, at most 6 s without a keyframe.
    pub const fn new(container: Container) -> Self {
        Self {
            container,
            part_ms: 200,
            segment_ms: 2000,
            segment_ms_max: 6000,
            keyframe_wait_ms: 6000,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            sound_alone: false,
        }
    }

    /// How long a part may be at most while frames come regularly: the target and a tenth, so that
    /// times rounded to milliseconds do not cost a frame. Announce this as part target.
    pub const fn part_target_ms(&self) -> u32 {
        self.part_ms + slack(self.part_ms)
    }
}

const fn slack(part_ms: u32) -> u32 {
    let tenth = part_ms / 10;
    if tenth < 2 { 2 } else { tenth }
}

/// The init segment of the sound alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SoundInit {
    /// Name of its codec, as in a playlist.
    pub codecs: String,
    /// The bytes, in [`Output::sound`]. Empty for MPEG-TS.
    pub bytes: Range<usize>,
}

/// What happened. Ranges are into [`Output::bytes`], those of `sound` into [`Output::sound`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An init segment, for all segments of `generation`. Empty for MPEG-TS.
    Init {
        /// Counts the changes of tracks, from 1.
        generation: u32,
        /// Names of the codecs, as in a playlist.
        codecs: String,
        /// The bytes.
        bytes: Range<usize>,
        /// The same for the sound alone; `None` where that is not written.
        sound: Option<SoundInit>,
    },
    /// A segment begins; its first part follows.
    Begin {
        /// Media sequence number, from 0.
        sequence: u64,
        /// Which init segment it needs.
        generation: u32,
        /// It does not continue what was before.
        discontinuity: bool,
        /// Starts with a keyframe, or is sound.
        independent: bool,
        /// When it began, in milliseconds since 1970.
        date_ms: u64,
    },
    /// A part is complete.
    Part {
        /// The segment it belongs to.
        sequence: u64,
        /// Its number in the segment, from 0.
        part: u32,
        /// Its length in milliseconds, at least 1.
        duration_ms: u32,
        /// A decoder can start in it.
        independent: bool,
        /// The bytes.
        bytes: Range<usize>,
        /// The sound alone; never empty where that is written.
        sound: Range<usize>,
    },
    /// The segment is complete.
    End {
        /// Its media sequence number.
        sequence: u64,
        /// The sum of its parts, in milliseconds.
        duration_ms: u32,
    },
}

/// Where bytes and events go. The caller empties it; its room is used again.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes the events point into.
    pub bytes: Vec<u8>,
    /// The same of the sound alone.
    pub sound: Vec<u8>,
    /// What happened, in order.
    pub events: Vec<Event>,
}

impl Output {
    /// Forgets everything but the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sound.clear();
        self.events.clear();
    }
}

/// What was left out or forced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Counters {
    /// Messages of codecs, or configurations, that the container cannot carry.
    pub unsupported: u64,
    /// Samples before the first keyframe, or of a track without configuration.
    pub dropped: u64,
    /// Segments that ended without a keyframe.
    pub forced_cuts: u64,
}

/// Which tracks were not heard of.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Unheard {
    video: bool,
    audio: bool,
}

/// Cuts one stream.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Segmenter {
    settings: Settings,
    clock: Clock,
    tracks: Tracks,
    packer: Packer,
    sound: Option<Sound>,
    open: Option<Open>,
    /// Sequence number of the next segment.
    sequence: u64,
    generation: u32,
    /// The next segment needs another init segment.
    tracks_changed: bool,
    /// The next segment does not continue the last one.
    discontinuity: bool,
    /// In force with the next segment.
    sound_next: Option<AudioTrack>,
    /// Tracks that were not heard of since the publisher changed.
    unheard: Unheard,
    /// The open segment ends with its next part.
    cut_wanted: bool,
    /// Since when samples wait for a segment to begin.
    waiting_since_ms: Option<u64>,
    video_last_ms: Option<u64>,
    /// Wall clock minus timeline, in milliseconds.
    date_offset_ms: Option<u64>,
    counters: Counters,
}

impl Segmenter {
    /// A segmenter that has seen nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            clock: Clock::default(),
            tracks: Tracks::default(),
            packer: Packer::new(settings.container),
            sound: settings.sound_alone.then(|| Sound::new(settings.container)),
            open: None,
            sequence: 0,
            generation: 0,
            tracks_changed: true,
            discontinuity: false,
            sound_next: None,
            unheard: Unheard::default(),
            cut_wanted: false,
            waiting_since_ms: None,
            video_last_ms: None,
            date_offset_ms: None,
            counters: Counters::default(),
        }
    }

    /// One that goes on where another one of the same stream ended: its first segment is number
    /// `sequence`, and a discontinuity if that is not 0.
    pub fn following(settings: Settings, sequence: u64) -> Self {
        Self { sequence, discontinuity: sequence > 0, ..Self::new(settings) }
    }

    /// Goes on with other settings for the same container. Where it is not offered to leave the pictures out
    /// any more, or from now on, the next segment is a discontinuity.
    pub fn set_settings(&mut self, settings: Settings) {
        if settings.sound_alone != self.settings.sound_alone {
            self.sound = settings.sound_alone.then(|| {
                let mut sound = Sound::new(self.settings.container);
                if let Some(track) = &self.tracks.audio {
                    sound.set_track(track);
                }
                sound
            });
            (self.tracks_changed, self.discontinuity) = (true, true);
        }
        self.settings = Settings { container: self.settings.container, ..settings };
    }

    /// What is written.
    pub fn container(&self) -> Container {
        self.settings.container
    }

    /// Whether `window` was told everything that came of this so far, and nothing else.
    pub fn is_at(&self, window: &Window) -> bool {
        let (place, next) = match &self.open {
            Some(open) => ((open.sequence, open.parts), open.sequence.checked_add(1)),
            None => ((self.sequence, 0), Some(self.sequence)),
        };
        window.next_part() == place && next == Some(self.sequence)
    }

    /// The tracks now.
    pub fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    /// What was left out or forced so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes one message: its type id, its time on the stream's timeline, its whole body, and the
    /// wall clock in milliseconds since 1970. Sequence headers are messages like the others; a
    /// repeated one changes nothing.
    pub fn push(&mut self, kind: u8, timestamp: u32, body: &[u8], wall_ms: u64, out: &mut Output) {
        match media::read(kind, timestamp, body) {
            Media::Nothing => {}
            Media::Unsupported(_) => self.counters.unsupported += 1,
            Media::VideoTrack(track) => self.set_video(track, out),
            Media::AudioTrack(track) => self.set_audio(track, out),
            Media::Video(sample) => self.sample(sample, timestamp, wall_ms, out),
            Media::Audio(sample, track) => {
                if let Some(track) = track {
                    self.set_audio(track, out);
                }
                self.sample(sample, timestamp, wall_ms, out);
            }
        }
    }

    /// Ends the open segment, or the next one, with its next part, keyframe or not, so that there is
    /// a complete one soon. Counted as forced.
    pub fn cut_soon(&mut self) {
        self.cut_wanted = true;
    }

    /// The publisher changed: what is open ends here, what comes is a discontinuity.
    pub fn discontinuity(&mut self, out: &mut Output) {
        self.finish(out);
        self.date_offset_ms = None;
        let Tracks { video, audio } = &self.tracks;
        self.unheard = Unheard { video: video.is_some(), audio: audio.is_some() };
    }

    /// Ends the open segment, as at the end of the stream. Going on is possible, with a
    /// discontinuity.
    pub fn finish(&mut self, out: &mut Output) {
        if let Some(open) = self.open.take() {
            let end_ms = open.end_ms();
            self.end_segment(open, end_ms, None, out);
            self.discontinuity = true;
        }
        self.waiting_since_ms = None;
    }

    fn set_video(&mut self, track: VideoTrack, out: &mut Output) {
        self.unheard.video = false;
        if self.tracks.video.as_ref() == Some(&track) {
            return;
        }
        if !self.packer.supports_video(&track) {
            self.counters.unsupported += 1;
            return;
        }
        self.before_change(self.tracks.video.is_none(), out);
        self.tracks.video = Some(track);
        self.packer.set_tracks(&self.tracks);
    }

    fn set_audio(&mut self, track: AudioTrack, out: &mut Output) {
        self.unheard.audio = false;
        let is_known = self.tracks.audio.as_ref() == Some(&track);
        if !is_known && !self.packer.supports_audio(&track) {
            self.counters.unsupported += 1;
            return;
        }
        // What waits for a segment is no longer what the publisher sends, or was another publisher's.
        self.sound_next = None;
        if is_known {
            return;
        }
        let added = self.tracks.audio.is_none();
        match &self.open {
            Some(open) if !added || open.parts > 0 => self.sound_next = Some(track),
            _ => {
                self.before_change(added, out);
                self.change_audio(track);
            }
        }
    }

    fn change_audio(&mut self, track: AudioTrack) {
        if let Some(sound) = &mut self.sound {
            sound.set_track(&track);
        }
        self.tracks.audio = Some(track);
        self.packer.reset_audio();
        self.packer.set_tracks(&self.tracks);
    }

    /// A track is about to be replaced or, `added`, to join. One that joins before anything of the
    /// segment went out disturbs nobody.
    fn before_change(&mut self, added: bool, out: &mut Output) {
        let nothing_out = self.open.as_ref().is_none_or(|open| open.parts == 0);
        if !(added && nothing_out) {
            self.finish(out);
        }
        self.tracks_changed = true;
    }

    fn sample(&mut self, sample: Sample<'_>, timestamp: u32, wall_ms: u64, out: &mut Output) {
        let is_video = sample.kind == Kind::Video;
        let known = match is_video {
            true => self.tracks.video.is_some(),
            false => self.tracks.audio.is_some() || self.sound_next.is_some(),
        };
        if !known {
            self.counters.dropped += 1;
            return;
        }
        let unheard = if is_video { &mut self.unheard.video } else { &mut self.unheard.audio };
        *unheard = false;
        let sample = Sample { time_ms: self.clock.unwrap(timestamp), ..sample };
        match self.open.take() {
            Some(open) => self.cut(open, &sample, wall_ms, out),
            None if self.may_start(&sample) => self.begin(&sample, wall_ms),
            None => {}
        }
        let waits = !is_video && self.sound_next.is_some();
        let Some(open) = self.open.as_mut().filter(|_| !waits) else {
            self.counters.dropped += 1;
            return;
        };
        open.note(&sample, self.tracks.video.is_none());
        if is_video {
            self.video_last_ms = Some(sample.time_ms);
        }
        self.packer.push(&self.tracks, &sample);
        if let Some(sound) = self.sound_beside_pictures().filter(|_| !is_video) {
            sound.push(&sample);
        }
    }

    /// The second writer, from the moment on that there are pictures that it leaves out.
    fn sound_beside_pictures(&mut self) -> Option<&mut Sound> {
        let has_both = self.tracks.video.is_some() && self.tracks.audio.is_some();
        self.sound.as_mut().filter(|sound| has_both || sound.is_offered())
    }

    /// Ends part or segment in front of `sample` where it is time to.
    fn cut(&mut self, mut open: Open, sample: &Sample<'_>, wall_ms: u64, out: &mut Output) {
        let paced = self.sets_pace(sample);
        let elapsed_ms = sample.time_ms.saturating_sub(open.start_ms);
        let next_video_ms = (sample.kind == Kind::Video).then_some(sample.time_ms);
        // A keyframe a few milliseconds early is the one that is meant.
        let due = elapsed_ms + u64::from(self.settings.segment_ms / 20)
            >= u64::from(self.settings.segment_ms)
            || !open.independent
            || self.sound_next.is_some();
        let at_start = match sample.kind {
            Kind::Video => sample.sync,
            Kind::Audio => !self.has_pictures(),
        };
        let part_ms = sample.time_ms.saturating_sub(open.part_start_ms);
        let limit_ms = u64::from(self.settings.part_target_ms());
        let long = paced && part_ms > 0 && part_ms + open.step_ms(sample) > limit_ms;
        let forced = elapsed_ms >= u64::from(self.settings.segment_ms_max)
            || self.cut_wanted && (long || open.parts > 0)
            || self.sound_next.is_some() && sample.kind == Kind::Audio;
        let full = open.bytes >= self.settings.segment_bytes_max.min(SEGMENT_BYTES_MAX)
            || open.parts >= SEGMENT_PARTS_MAX;
        if full || paced && elapsed_ms > 0 && (due && at_start || forced) {
            if !at_start {
                self.counters.forced_cuts += 1;
            }
            self.end_segment(open, sample.time_ms, next_video_ms, out);
            self.begin(sample, wall_ms);
            return;
        }
        let big = self.packer.payload_bytes() >= PART_BYTES_MAX
            || self.packer.samples() >= PART_SAMPLES_MAX;
        if long || big {
            self.end_part(&mut open, sample.time_ms, next_video_ms, out);
        }
        self.open = Some(open);
    }

    /// True if cuts follow this kind of sample.
    fn sets_pace(&self, sample: &Sample<'_>) -> bool {
        match (sample.kind, &self.tracks.video, self.video_last_ms) {
            (Kind::Video, ..) | (Kind::Audio, None, _) => true,
            (Kind::Audio, Some(_), _) if !self.has_pictures() => true,
            (Kind::Audio, Some(_), last_ms) => {
                sample.time_ms.saturating_sub(last_ms.unwrap_or(0)) > VIDEO_QUIET_MS
            }
        }
    }

    /// Whether there is a track of pictures that has not gone with the last publisher.
    fn has_pictures(&self) -> bool {
        let is_gone = self.unheard.video && !self.unheard.audio && self.tracks.audio.is_some();
        self.tracks.video.is_some() && !is_gone
    }

    /// The first part is complete: a track that was not heard of beside one that was is gone.
    fn drop_unheard(&mut self) {
        let Unheard { video, audio } = core::mem::take(&mut self.unheard);
        let Tracks { video: pictures, audio: sound } = &mut self.tracks;
        let is_changed = match (video, audio) {
            (true, false) if sound.is_some() => pictures.take().is_some(),
            (false, true) if pictures.is_some() => sound.take().is_some(),
            _ => false,
        };
        if is_changed {
            self.tracks_changed = true;
            self.packer.set_tracks(&self.tracks);
        }
    }

    /// True if a segment may begin with `sample`.
    fn may_start(&mut self, sample: &Sample<'_>) -> bool {
        let since_ms = *self.waiting_since_ms.get_or_insert(sample.time_ms);
        let waited_ms = sample.time_ms.saturating_sub(since_ms);
        let patience_ms = match (sample.kind, self.has_pictures()) {
            (Kind::Video, _) if sample.sync => return true,
            (Kind::Audio, false) => START_WAIT_MS,
            _ => self.settings.keyframe_wait_ms.into(),
        };
        waited_ms >= patience_ms
    }

    fn begin(&mut self, sample: &Sample<'_>, wall_ms: u64) {
        let expected = self.date_offset_ms.map(|offset| offset.wrapping_add(sample.time_ms));
        let date_ms = match expected {
            Some(expected) if expected.abs_diff(wall_ms) <= DATE_DRIFT_MS => expected,
            _ => wall_ms,
        };
        self.date_offset_ms = Some(date_ms.wrapping_sub(sample.time_ms));
        self.waiting_since_ms = None;
        if let Some(track) = self.sound_next.take() {
            self.change_audio(track);
            (self.tracks_changed, self.discontinuity) = (true, true);
        }
        let independent = match sample.kind {
            Kind::Video => sample.sync,
            Kind::Audio => !self.has_pictures(),
        };
        self.packer.begin_segment();
        self.open = Some(Open::new(self.sequence, sample, date_ms, independent));
        self.sequence += 1;
    }

    fn end_segment(
        &mut self,
        mut open: Open,
        end_ms: u64,
        next_video_ms: Option<u64>,
        out: &mut Output,
    ) {
        self.end_part(&mut open, end_ms, next_video_ms, out);
        self.cut_wanted = false;
        let (sequence, duration_ms) = (open.sequence, open.duration_ms);
        out.events.push(Event::End { sequence, duration_ms });
    }

    fn end_part(
        &mut self,
        open: &mut Open,
        end_ms: u64,
        next_video_ms: Option<u64>,
        out: &mut Output,
    ) {
        if open.parts == 0 {
            self.announce(open, out);
        }
        let duration_ms = end_ms.saturating_sub(open.part_start_ms).max(1);
        let duration_ms = u32::try_from(duration_ms).unwrap_or(u32::MAX);
        let start = out.bytes.len();
        let tables = (open.parts == 0).then_some(&self.tracks);
        self.packer.finish(tables, next_video_ms, &mut out.bytes);
        let bytes = start..out.bytes.len();
        let (sequence, part) = (open.sequence, open.parts);
        let independent = open.part_independent;
        let sound_start = out.sound.len();
        if let Some(sound) = self.sound_beside_pictures() {
            sound.finish(part == 0, &mut out.sound);
        }
        let sound = sound_start..out.sound.len();
        out.events.push(Event::Part { sequence, part, duration_ms, independent, bytes, sound });
        open.next_part(duration_ms, out.bytes.len() - start);
    }

    /// Init, if it is another one, and Begin.
    fn announce(&mut self, open: &Open, out: &mut Output) {
        self.drop_unheard();
        if self.tracks_changed {
            self.tracks_changed = false;
            self.generation += 1;
            let start = out.bytes.len();
            self.packer.write_init(&self.tracks, &mut out.bytes);
            out.events.push(Event::Init {
                generation: self.generation,
                codecs: codec_names::list(&self.tracks),
                bytes: start..out.bytes.len(),
                sound: self.sound_beside_pictures().map(|sound| sound.init(&mut out.sound)),
            });
        }
        out.events.push(Event::Begin {
            sequence: open.sequence,
            generation: self.generation,
            discontinuity: core::mem::take(&mut self.discontinuity),
            independent: open.independent,
            date_ms: open.date_ms,
        });
    }
}
