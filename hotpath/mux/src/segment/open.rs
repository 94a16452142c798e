//! The segment that is being written.

use super::VIDEO_QUIET_MS;
use crate::media::{Kind, Sample};

/// Distance of two samples of a kind when nothing is known yet, in milliseconds.
const FRAME_DEFAULT_MS: u64 = 40;

/// Facts of the open segment and its open part.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Open {
    pub(super) sequence: u64,
    pub(super) start_ms: u64,
    pub(super) date_ms: u64,
    /// Starts with a keyframe, or is sound.
    pub(super) independent: bool,
    /// Parts that are complete.
    pub(super) parts: u32,
    /// Sum of their lengths.
    pub(super) duration_ms: u32,
    pub(super) bytes: u64,
    pub(super) part_start_ms: u64,
    pub(super) part_independent: bool,
    /// Times of the last sample of sound and picture in this segment.
    last_ms: [Option<u64>; 2],
    /// How long they last.
    frame_ms: [u64; 2],
}

impl Open {
    pub(super) fn new(sequence: u64, first: &Sample<'_>, date_ms: u64, independent: bool) -> Self {
        Self {
            sequence,
            start_ms: first.time_ms,
            date_ms,
            independent,
            parts: 0,
            duration_ms: 0,
            bytes: 0,
            part_start_ms: first.time_ms,
            part_independent: false,
            last_ms: [None; 2],
            frame_ms: [FRAME_DEFAULT_MS; 2],
        }
    }

    /// A sample goes into the open part.
    pub(super) fn note(&mut self, sample: &Sample<'_>, audio_only: bool) {
        let step_ms = self.step_ms(sample);
        self.part_independent |= sample.sync && (sample.kind == Kind::Video || audio_only);
        let ([audio, video], [audio_frame_ms, video_frame_ms]) =
            (&mut self.last_ms, &mut self.frame_ms);
        let (last, frame_ms) = match sample.kind {
            Kind::Audio => (audio, audio_frame_ms),
            Kind::Video => (video, video_frame_ms),
        };
        *frame_ms = step_ms;
        *last = Some(sample.time_ms);
    }

    /// How long `sample` will last, judging by its distance from the last one of its kind.
    pub(super) fn step_ms(&self, sample: &Sample<'_>) -> u64 {
        let [audio, video] = self.last_ms;
        let last = if sample.kind == Kind::Video { video } else { audio };
        last.map_or(FRAME_DEFAULT_MS, |last| sample.time_ms.saturating_sub(last))
    }

    /// Where the segment ends if nothing follows: where its pictures do, since parts are measured by them
    /// and sound that is a little ahead would make the last one too long; where its sound does if there are
    /// none, or none any more.
    pub(super) fn end_ms(&self) -> u64 {
        let ([audio, video], [audio_frame_ms, video_frame_ms]) = (self.last_ms, self.frame_ms);
        match (audio, video) {
            (Some(audio_ms), Some(video_ms))
                if audio_ms.saturating_sub(video_ms) > VIDEO_QUIET_MS =>
            {
                audio_ms.saturating_add(audio_frame_ms)
            }
            (_, Some(video_ms)) => video_ms.saturating_add(video_frame_ms),
            (Some(audio_ms), None) => audio_ms.saturating_add(audio_frame_ms),
            (None, None) => self.start_ms,
        }
    }

    /// The open part is complete; the next one starts where it ended.
    pub(super) fn next_part(&mut self, duration_ms: u32, bytes: usize) {
        self.parts += 1;
        self.duration_ms = self.duration_ms.saturating_add(duration_ms);
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.part_start_ms = self.part_start_ms.saturating_add(duration_ms.into());
        self.part_independent = false;
    }
}
