//! The container that is written, one face for both.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Container;
use crate::media::{AudioTrack, Kind, Sample, Tracks, VideoTrack};
use crate::{fmp4, ts};

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Inner {
    Fmp4(Box<fmp4::Fragment>),
    Ts(Box<ts::Muxer>),
}

/// Collects one part.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Packer {
    inner: Inner,
    samples: usize,
}

impl Packer {
    pub(super) fn new(container: Container) -> Self {
        let inner = match container {
            Container::Ts => Inner::Ts(Box::default()),
            Container::Fmp4 => Inner::Fmp4(Box::default()),
        };
        Self { inner, samples: 0 }
    }

    pub(super) fn supports_video(&self, track: &VideoTrack) -> bool {
        match &self.inner {
            Inner::Ts(_) => ts::supports_video(track),
            Inner::Fmp4(_) => fmp4::supports_video(track),
        }
    }

    pub(super) fn supports_audio(&self, track: &AudioTrack) -> bool {
        match &self.inner {
            Inner::Ts(_) => ts::supports_audio(track),
            Inner::Fmp4(_) => fmp4::supports_audio(track),
        }
    }

    pub(super) fn set_tracks(&mut self, tracks: &Tracks) {
        if let Inner::Ts(muxer) = &mut self.inner {
            muxer.set_tracks(tracks);
        }
    }

    pub(super) fn reset_audio(&mut self) {
        match &mut self.inner {
            Inner::Ts(muxer) => muxer.reset_audio(),
            Inner::Fmp4(fragment) => fragment.reset_audio(),
        }
    }

    /// What comes now begins a segment.
    pub(super) fn begin_segment(&mut self) {
        if let Inner::Ts(muxer) = &mut self.inner {
            muxer.begin_segment();
        }
    }

    /// Adds a sample; without its track it is left out.
    pub(super) fn push(&mut self, tracks: &Tracks, sample: &Sample<'_>) {
        self.samples += 1;
        match (&mut self.inner, sample.kind, &tracks.video, &tracks.audio) {
            (Inner::Ts(muxer), Kind::Video, Some(track), _) => muxer.push_video(track, sample),
            (Inner::Ts(muxer), Kind::Audio, _, Some(track)) => muxer.push_audio(track, sample),
            (Inner::Fmp4(fragment), Kind::Video, Some(_), _) => fragment.push_video(sample),
            (Inner::Fmp4(fragment), Kind::Audio, _, Some(track)) => {
                fragment.push_audio(track, sample);
            }
            _ => {}
        }
    }

    pub(super) fn payload_bytes(&self) -> usize {
        match &self.inner {
            Inner::Ts(muxer) => muxer.pending_bytes(),
            Inner::Fmp4(fragment) => fragment.payload_bytes(),
        }
    }

    pub(super) fn samples(&self) -> usize {
        self.samples
    }

    /// Appends the part. `tables` are the tracks at the start of a segment.
    pub(super) fn finish(
        &mut self,
        tables: Option<&Tracks>,
        next_video_ms: Option<u64>,
        out: &mut Vec<u8>,
    ) {
        self.samples = 0;
        match &mut self.inner {
            Inner::Ts(muxer) => muxer.finish(tables, out),
            Inner::Fmp4(fragment) => fragment.finish(next_video_ms, out),
        }
    }

    pub(super) fn write_init(&self, tracks: &Tracks, out: &mut Vec<u8>) {
        if let Inner::Fmp4(_) = self.inner {
            fmp4::write_init(tracks, out);
        }
    }
}
