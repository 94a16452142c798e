//! Fragmented MP4 in the CMAF way: one init segment, then fragments of any length.
//!
//! ```text
//!  init      ftyp · moov( mvhd · trak… · mvex )
//!  fragment  moof( mfhd · traf( tfhd · tfdt 64 bit · trun )… ) · mdat( video samples · audio samples )
//! ```
//!
//! Video is track 1 with a timescale of 90,000, so that milliseconds are exact; audio is track 2
//! with its sample rate as timescale, its times counted in samples. Decoding times are 64-bit and
//! continue for ever. A fragment is a Media Source append, an HLS part, or one of several that
//! make a segment.
//!
//! Never panics on samples; memory is bounded by the caller, who ends fragments. Called by the
//! segmenter. Spec: ISO 14496-12 §8.8, 23000-19 §7.

mod boxes;
mod fragment;
mod init;

pub use fragment::Fragment;
pub use init::{supports_audio, supports_video, write_init};

/// Track id of the pictures.
pub const VIDEO_TRACK: u32 = 1;
/// Track id of the sound.
pub const AUDIO_TRACK: u32 = 2;
/// Units a second of the video track.
pub const VIDEO_TIMESCALE: u32 = 90_000;
/// Units of the video track in a millisecond.
pub(crate) const VIDEO_UNITS_PER_MS: u64 = 90;
