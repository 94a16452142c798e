//! What decoder configurations say about a stream: picture size, profile, sample rate.
//!
//! For logs, metrics and the streams list only; nothing on the data path depends on it. Never
//! panics, never fails loudly: a configuration that cannot be read is `None`, and the stream goes
//! on. Called when a sequence header arrives.
//!
//! | codec | configuration | specification |
//! |---|---|---|
//! | H.264 | AVCDecoderConfigurationRecord, SPS | ISO 14496-15 §5.3, H.264 §7.3.2.1 |
//! | H.265 | HEVCDecoderConfigurationRecord, SPS | ISO 14496-15 §8.3, H.265 §7.3.2.2 |
//! | AV1 | AV1CodecConfigurationRecord, sequence header | AV1-ISOBMFF §2.3, AV1 §5.5 |
//! | VP9 | VPCodecConfigurationRecord | VP-ISOBMFF |
//! | AAC | AudioSpecificConfig | ISO 14496-3 §1.6 |
//! | Opus | identification header | RFC 7845 §5.1 |
//! | FLAC | STREAMINFO | RFC 9639 §8.2 |

mod audio;
mod av1;
mod bits;
mod h26x;

use crate::reader::Cursor;
use crate::tag::{AudioCodec, VideoCodec};

/// What a video configuration says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VideoConfig {
    /// Width in pixels after cropping; 0 if not told.
    pub width: u32,
    /// Height in pixels after cropping; 0 if not told.
    pub height: u32,
    /// Profile number as the codec defines it.
    pub profile: u8,
    /// Level number as the codec defines it: 31 is 3.1 for H.264, 93 is 3.1 for H.265.
    pub level: u8,
}

/// What an audio configuration says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AudioConfig {
    /// Sample rate of the decoded sound, in hertz.
    pub rate_hz: u32,
    /// Channels; 0 if the configuration describes them in a way of its own.
    pub channels: u8,
    /// Audio object type for AAC, 0 for others.
    pub profile: u8,
}

/// Reads a video configuration, the payload of a sequence header.
pub fn video_config(codec: VideoCodec, payload: &[u8]) -> Option<VideoConfig> {
    match codec {
        VideoCodec::Avc => h26x::avc_config(payload),
        VideoCodec::Hevc => h26x::hevc_config(payload),
        VideoCodec::Av1 => av1::av1_config(payload),
        VideoCodec::Vp9 => vp9_config(payload),
        _ => None,
    }
}

/// Reads an audio configuration, the payload of a sequence header.
pub fn audio_config(codec: AudioCodec, payload: &[u8]) -> Option<AudioConfig> {
    match codec {
        AudioCodec::Aac => audio::aac_config(payload),
        AudioCodec::Opus => audio::opus_config(payload),
        AudioCodec::Flac => audio::flac_config(payload),
        _ => None,
    }
}

/// Profile and level; the size of VP9 pictures stands in the pictures.
fn vp9_config(payload: &[u8]) -> Option<VideoConfig> {
    // Some senders keep version and flags of the box the record comes from.
    let mut cursor = Cursor::new(payload.strip_prefix(&[1, 0, 0, 0]).unwrap_or(payload));
    Some(VideoConfig { profile: cursor.u8()?, level: cursor.u8()?, ..VideoConfig::default() })
}

#[cfg(test)]
mod tests;
