//! Collects samples and writes them as one fragment.
//!
//! A sample's duration is the distance to the next one, so the last picture of a fragment gets its
//! duration from whoever ends the fragment. Buffers keep their room from one fragment to the next.

use alloc::vec::Vec;

use super::boxes::Boxes;
use super::{AUDIO_TRACK, VIDEO_TIMESCALE, VIDEO_TRACK, VIDEO_UNITS_PER_MS};
use crate::media::{AudioClock, AudioTrack, Sample};

/// sample_depends_on = 2: of no other sample.
const FLAGS_SYNC: u32 = 0x0200_0000;
/// sample_depends_on = 1, sample_is_non_sync_sample.
const FLAGS_DEPENDS: u32 = 0x0101_0000;
/// data offset, and duration, size, flags and composition offset of each sample.
const TRUN_FLAGS: u32 = 0x0F01;
/// default-base-is-moof.
const TFHD_FLAGS: u32 = 0x02_0000;
/// Duration of a picture nothing is known about: 40 ms.
const PICTURE_DEFAULT: u32 = VIDEO_TIMESCALE / 25;

/// One sample's line in the table.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Entry {
    duration: u32,
    bytes: u32,
    flags: u32,
    composition: i32,
}

/// Consecutive samples of one track.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Run {
    entries: Vec<Entry>,
    data: Vec<u8>,
    /// Decoding time of the first sample, in units of the track.
    start: u64,
}

impl Run {
    fn push(&mut self, time: u64, entry: Entry, payload: &[u8]) {
        if self.entries.is_empty() {
            self.start = time;
        }
        self.entries.push(entry);
        self.data.extend_from_slice(payload);
    }
}

/// A fragment that is being collected.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Fragment {
    sequence: u32,
    video: Run,
    /// Decoding time of the last picture, in units of the track; kept across fragments.
    video_last: Option<u64>,
    picture_duration: Option<u32>,
    audio: Run,
    /// Where in the run the last frame of sound starts, in units of the track.
    audio_units: u64,
    audio_clock: Option<AudioClock>,
}

impl Fragment {
    /// Adds a picture. One that does not come after its predecessor is put right behind it.
    pub fn push_video(&mut self, sample: &Sample<'_>) {
        let stated = sample.time_ms.saturating_mul(VIDEO_UNITS_PER_MS);
        let time = self.video_last.map_or(stated, |last| stated.max(last.saturating_add(1)));
        self.end_picture(time);
        let entry = Entry {
            duration: self.picture_duration.unwrap_or(PICTURE_DEFAULT),
            bytes: length(sample.payload),
            flags: if sample.sync { FLAGS_SYNC } else { FLAGS_DEPENDS },
            composition: sample.composition_ms.saturating_mul(90),
        };
        self.video.push(time, entry, sample.payload);
        self.video_last = Some(time);
    }

    /// Adds a frame of `track`.
    pub fn push_audio(&mut self, track: &AudioTrack, sample: &Sample<'_>) {
        let duration = track.duration(sample.payload);
        let clock = self.audio_clock.get_or_insert_with(|| AudioClock::new(track.rate_hz));
        let time = clock.place(sample.time_ms, duration);
        if let Some(last) = self.audio.entries.last_mut() {
            // After a pause the table must still lead to where the clock is.
            let so_far = time.saturating_sub(self.audio.start);
            last.duration = last.duration.max(clamp(so_far.saturating_sub(self.audio_units)));
        }
        let entry =
            Entry { duration, bytes: length(sample.payload), flags: FLAGS_SYNC, composition: 0 };
        self.audio.push(time, entry, sample.payload);
        self.audio_units = time.saturating_sub(self.audio.start);
    }

    /// The sound goes on with another configuration: its samples are counted anew.
    pub fn reset_audio(&mut self) {
        self.audio_clock = None;
    }

    /// Payload bytes collected.
    pub fn payload_bytes(&self) -> usize {
        self.video.data.len() + self.audio.data.len()
    }

    /// Samples collected.
    pub fn samples(&self) -> usize {
        self.video.entries.len() + self.audio.entries.len()
    }

    /// Appends the fragment to `out` and starts the next one. `next_video_ms` is the decoding time
    /// of the picture that comes next, if it is known. Writes nothing if nothing was collected.
    pub fn finish(&mut self, next_video_ms: Option<u64>, out: &mut Vec<u8>) {
        if self.samples() == 0 {
            return;
        }
        if let Some(next_ms) = next_video_ms {
            self.end_picture(next_ms.saturating_mul(VIDEO_UNITS_PER_MS));
        }
        self.sequence = self.sequence.wrapping_add(1);
        out.reserve(self.payload_bytes() + 16 * self.samples() + 256);
        let mut boxes = Boxes::new(out);
        let start = boxes.position();
        let mut offsets = [None, None];
        boxes.nest(b"moof", |boxes| {
            boxes.full(b"mfhd", 0, 0, |boxes| boxes.u32(self.sequence));
            offsets = [
                write_traf(boxes, VIDEO_TRACK, &self.video),
                write_traf(boxes, AUDIO_TRACK, &self.audio),
            ];
        });
        let mut data_at = boxes.position() - start + 8;
        for (at, run) in offsets.into_iter().zip([&self.video, &self.audio]) {
            if let Some(at) = at {
                boxes.patch(at, u32::try_from(data_at).unwrap_or(u32::MAX));
            }
            data_at += run.data.len();
        }
        boxes.nest(b"mdat", |boxes| {
            boxes.bytes(&self.video.data);
            boxes.bytes(&self.audio.data);
        });
        for run in [&mut self.video, &mut self.audio] {
            run.entries.clear();
            run.data.clear();
        }
    }

    /// The last picture lasts until `time`.
    fn end_picture(&mut self, time: u64) {
        let Some(last) = self.video_last else { return };
        let duration = clamp(time.saturating_sub(last));
        if duration == 0 {
            return;
        }
        self.picture_duration = Some(duration);
        if let Some(entry) = self.video.entries.last_mut() {
            entry.duration = duration;
        }
    }
}

/// One track's part of the table; the place of its data offset.
fn write_traf(boxes: &mut Boxes<'_>, track: u32, run: &Run) -> Option<usize> {
    if run.entries.is_empty() {
        return None;
    }
    let mut offset_at = 0;
    boxes.nest(b"traf", |boxes| {
        boxes.full(b"tfhd", 0, TFHD_FLAGS, |boxes| boxes.u32(track));
        boxes.full(b"tfdt", 1, 0, |boxes| boxes.u64(run.start));
        // Version 1: composition offsets are signed.
        boxes.full(b"trun", 1, TRUN_FLAGS, |boxes| {
            boxes.u32(u32::try_from(run.entries.len()).unwrap_or(u32::MAX));
            offset_at = boxes.position();
            boxes.u32(0);
            for entry in &run.entries {
                boxes.u32(entry.duration);
                boxes.u32(entry.bytes);
                boxes.u32(entry.flags);
                boxes.u32(entry.composition.cast_unsigned());
            }
        });
    });
    Some(offset_at)
}

fn clamp(units: u64) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
}

fn length(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).unwrap_or(u32::MAX)
}
