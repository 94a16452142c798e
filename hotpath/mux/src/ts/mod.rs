//! MPEG-TS for HLS: H.264 or H.265 with AAC or MP3, one program.
//!
//! ```text
//!  AVCC NAL units ─► Annex B, with parameter sets¹ ────────────┐
//!  raw AAC        ─► ADTS, several frames a packet             ├─► PES ─► 188-byte packets
//!  tables (PAT, PMT) at the start of each segment ─────────────┘
//!  ¹ before keyframes, and before the first picture of a segment: streams without keyframes are decoded too
//! ```
//!
//! Times are 33 bits of 90 kHz and wrap; continuity counters run on across segments, so segments
//! can be joined into one stream. Never panics on samples; what is not yet written is bounded by
//! [`AUDIO_PES_BYTES_MAX`]. Called by the segmenter. Spec: ISO 13818-1 §2.4; 13818-7 §6.2; HLS: §3.2
//! of RFC 8216bis.

mod es;
mod packet;
mod tables;

use alloc::vec::Vec;

use rtmp::tag::{AudioCodec, VideoCodec};

use crate::media::{AudioClock, AudioTrack, Sample, Tracks, VideoTrack};
use packet::{PacketWriter, PesHeader};

/// Added to all times, so that sound a little before the first picture, and pictures shown before
/// they are decoded, still have a place, in milliseconds.
pub const OFFSET_MS: u64 = 1000;
/// Sound that waits to share a packet, in bytes; a PES packet has room for 65,535.
pub const AUDIO_PES_BYTES_MAX: usize = 32 * 1024;

/// Sound that shares a packet, in milliseconds.
const AUDIO_PES_MS: u64 = 70;
/// By this much the program clock is behind the decoding times, in 90 kHz units: 100 ms.
const CLOCK_LEAD: u64 = 9_000;
const UNITS_PER_MS: u64 = 90;
const CLOCK_HZ: u64 = 90_000;

/// True for the video codecs that have a stream type here.
pub fn supports_video(track: &VideoTrack) -> bool {
    matches!(track.codec, VideoCodec::Avc | VideoCodec::Hevc)
}

/// True for the sound codecs that have a stream type here, with a rate that ADTS can express.
pub fn supports_audio(track: &AudioTrack) -> bool {
    match track.codec {
        AudioCodec::Aac => es::adts_supports(&track.config),
        AudioCodec::Mp3 => true,
        _ => false,
    }
}

/// Sound of some frames, waiting for company.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct WaitingAudio {
    bytes: Vec<u8>,
    start_ms: u64,
    pts: u64,
}

/// Writes one program.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Muxer {
    out: Vec<u8>,
    packets: PacketWriter,
    #[cfg_attr(feature = "serde", serde(skip))]
    scratch: Vec<u8>,
    /// Parameter sets in Annex B form.
    parameter_sets: Vec<u8>,
    /// The next picture is the first of a segment.
    is_first: bool,
    audio_clock: Option<AudioClock>,
    audio: WaitingAudio,
    has_video: bool,
}

impl Muxer {
    /// What comes now belongs to `tracks`.
    pub fn set_tracks(&mut self, tracks: &Tracks) {
        self.parameter_sets.clear();
        self.has_video = tracks.video.is_some();
        if let Some(track) = &tracks.video {
            es::write_parameter_sets(track, &mut self.parameter_sets);
        }
    }

    /// What comes now begins a segment.
    pub fn begin_segment(&mut self) {
        self.is_first = true;
    }

    /// Adds a picture.
    pub fn push_video(&mut self, track: &VideoTrack, sample: &Sample<'_>) {
        self.scratch.clear();
        let is_first = core::mem::take(&mut self.is_first);
        let sets = if sample.sync || is_first { self.parameter_sets.as_slice() } else { &[] };
        es::write_annex_b(track, sets, sample.payload, &mut self.scratch);
        let dts = (sample.time_ms.saturating_add(OFFSET_MS)).saturating_mul(UNITS_PER_MS);
        let pts = dts.saturating_add_signed(i64::from(sample.composition_ms) * 90);
        let header = PesHeader {
            stream_id: packet::STREAM_VIDEO,
            pts,
            dts: (pts != dts).then_some(dts),
            clock: Some(dts.saturating_sub(CLOCK_LEAD)),
            random_access: sample.sync,
        };
        self.packets.pes(tables::VIDEO_PID, &header, &self.scratch, &mut self.out);
    }

    /// Adds a frame of `track`. An AAC frame too long for ADTS is left out.
    pub fn push_audio(&mut self, track: &AudioTrack, sample: &Sample<'_>) {
        let clock = self.audio_clock.get_or_insert_with(|| AudioClock::new(track.rate_hz));
        let samples = clock.place(sample.time_ms, track.duration(sample.payload));
        let rate_hz = u64::from(track.rate_hz.max(1));
        let full = sample.time_ms.saturating_sub(self.audio.start_ms) >= AUDIO_PES_MS
            || self.audio.bytes.len() + sample.payload.len() > AUDIO_PES_BYTES_MAX;
        if full {
            self.flush_audio();
        }
        if self.audio.bytes.is_empty() {
            let units = u128::from(samples) * u128::from(CLOCK_HZ) / u128::from(rate_hz);
            let units = u64::try_from(units).unwrap_or(u64::MAX);
            self.audio.pts = units.saturating_add(OFFSET_MS * UNITS_PER_MS);
            self.audio.start_ms = sample.time_ms;
        }
        if track.codec == AudioCodec::Aac {
            let Some(header) = es::adts_header(&track.config, sample.payload.len()) else { return };
            self.audio.bytes.extend_from_slice(&header);
        }
        self.audio.bytes.extend_from_slice(sample.payload);
    }

    /// The sound goes on with another configuration: its samples are counted anew.
    pub fn reset_audio(&mut self) {
        self.flush_audio();
        self.audio_clock = None;
    }

    /// Bytes that are ready or waiting.
    pub fn pending_bytes(&self) -> usize {
        self.out.len() + self.audio.bytes.len()
    }

    /// Appends all packets to `out`, and starts anew. At the start of a segment `tables` are the
    /// tracks it begins with.
    pub fn finish(&mut self, tables: Option<&Tracks>, out: &mut Vec<u8>) {
        self.flush_audio();
        if let Some(tracks) = tables {
            self.packets.section(tables::PAT_PID, &tables::pat(), out);
            self.packets.section(tables::PMT_PID, &tables::pmt(tracks), out);
        }
        out.extend_from_slice(&self.out);
        self.out.clear();
    }

    fn flush_audio(&mut self) {
        if self.audio.bytes.is_empty() {
            return;
        }
        let header = PesHeader {
            stream_id: packet::STREAM_AUDIO,
            pts: self.audio.pts,
            dts: None,
            clock: (!self.has_video).then_some(self.audio.pts.saturating_sub(CLOCK_LEAD)),
            random_access: !self.has_video,
        };
        self.packets.pes(tables::AUDIO_PID, &header, &self.audio.bytes, &mut self.out);
        self.audio.bytes.clear();
    }
}
