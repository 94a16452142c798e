//! Codec configurations as containers need them. The publisher's record is kept byte for byte.

use alloc::boxed::Box;

use rtmp::codec::{self, VideoConfig};
use rtmp::tag::{AudioCodec, VideoCodec};

/// Largest configuration record that is kept, in bytes.
pub const CONFIG_BYTES_MAX: usize = 64 * 1024;

/// A video track.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VideoTrack {
    /// AVC, HEVC, AV1 or VP9.
    pub codec: VideoCodec,
    /// The body of the `avcC`, `hvcC`, `av1C` box; of `vpcC` without version and flags.
    pub config: Box<[u8]>,
    /// Picture size, profile and level; zeros where the record does not tell.
    pub facts: VideoConfig,
}

impl VideoTrack {
    /// A track from the payload of a sequence header; `None` if no container here carries it.
    pub fn new(codec: VideoCodec, config: &[u8]) -> Option<Self> {
        // Shortest record that all fixed fields fit into.
        let (config, bytes_min) = match codec {
            VideoCodec::Avc => (config, 7),
            VideoCodec::Hevc => (config, 23),
            VideoCodec::Av1 => (config, 4),
            // Some senders keep version and flags of the box the record comes from.
            VideoCodec::Vp9 => (config.strip_prefix(&[1, 0, 0, 0]).unwrap_or(config), 6),
            _ => return None,
        };
        if !(bytes_min..=CONFIG_BYTES_MAX).contains(&config.len()) {
            return None;
        }
        let facts = codec::video_config(codec, config)?;
        Some(Self { codec, config: config.into(), facts })
    }

    /// Bytes of the length in front of each NAL unit, 1 to 4.
    pub fn nal_length_bytes(&self) -> usize {
        let at = match self.codec {
            VideoCodec::Avc => 4,
            VideoCodec::Hevc => 21,
            _ => return 4,
        };
        usize::from(self.config.get(at).copied().unwrap_or(3) & 0x03) + 1
    }
}

/// An audio track.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AudioTrack {
    /// AAC, MP3, Opus or FLAC.
    pub codec: AudioCodec,
    /// AudioSpecificConfig, OpusHead or STREAMINFO; empty for MP3.
    pub config: Box<[u8]>,
    /// Samples a second of the decoded sound, never 0; also the track's timescale.
    pub rate_hz: u32,
    /// Channels; at least 1.
    pub channels: u8,
    /// Audio object type for AAC, 0 for others.
    pub profile: u8,
}

/// True for the sound codecs that some container here carries.
pub(crate) fn carries(codec: AudioCodec) -> bool {
    matches!(codec, AudioCodec::Aac | AudioCodec::Mp3 | AudioCodec::Opus | AudioCodec::Flac)
}

impl AudioTrack {
    /// A track from the payload of a sequence header; `None` if no container here carries it.
    pub fn new(codec: AudioCodec, config: &[u8]) -> Option<Self> {
        if !carries(codec) || config.len() > CONFIG_BYTES_MAX {
            return None;
        }
        if codec == AudioCodec::Opus && config.len() < 19 {
            return None;
        }
        let config = match codec {
            // The metadata block alone; its header and length are fixed.
            AudioCodec::Flac => config.strip_prefix(b"fLaC").unwrap_or(config).get(..38)?,
            _ => config,
        };
        let facts = codec::audio_config(codec, config)?;
        if facts.rate_hz == 0 {
            return None;
        }
        let channels = if facts.channels == 0 { 2 } else { facts.channels };
        let (rate_hz, profile) = (facts.rate_hz, facts.profile);
        Some(Self { codec, config: config.into(), rate_hz, channels, profile })
    }

    /// The track a frame says it belongs to, for codecs without a configuration.
    pub(crate) fn of_frame(codec: AudioCodec, frame: &[u8]) -> Option<Self> {
        if codec != AudioCodec::Mp3 {
            return None;
        }
        let (rate_hz, channels, _) = mp3_header(frame)?;
        Some(Self { codec, config: Box::default(), rate_hz, channels, profile: 0 })
    }

    /// Samples that `frame` lasts, in units of `rate_hz`.
    pub fn duration(&self, frame: &[u8]) -> u32 {
        match self.codec {
            // Band replication makes two samples of one; `rate_hz` is the doubled rate then.
            AudioCodec::Aac if matches!(self.profile, 5 | 29) => 2048,
            AudioCodec::Aac => 1024,
            AudioCodec::Mp3 => mp3_header(frame).map_or(1152, |(_, _, samples)| samples),
            AudioCodec::Opus => opus_samples(frame),
            AudioCodec::Flac => self.flac_block_samples(),
            _ => 0,
        }
    }

    /// Largest block size of the STREAMINFO, which is the only one unless the encoder varies it.
    fn flac_block_samples(&self) -> u32 {
        let size = self.config.get(6..8).and_then(|bytes| bytes.first_chunk::<2>());
        size.map_or(4096, |bytes| u16::from_be_bytes(*bytes).into())
    }
}

/// The video and audio track of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tracks {
    /// Pictures, if any.
    pub video: Option<VideoTrack>,
    /// Sound, if any.
    pub audio: Option<AudioTrack>,
}

/// Sample rate, channels and samples a frame of an MPEG audio layer 3 header (ISO 11172-3 §2.4.2).
fn mp3_header(frame: &[u8]) -> Option<(u32, u8, u32)> {
    let &[sync, version_layer, rates, mode] = frame.first_chunk::<4>()?;
    if sync != 0xFF || version_layer & 0xE6 != 0xE2 {
        return None;
    }
    let rate_hz = *[44_100, 48_000, 32_000].get(usize::from(rates >> 2 & 3))?;
    let channels = if mode >> 6 == 3 { 1 } else { 2 };
    match version_layer >> 3 & 3 {
        3 => Some((rate_hz, channels, 1152)),
        2 => Some((rate_hz / 2, channels, 576)),
        0 => Some((rate_hz / 4, channels, 576)),
        _ => None,
    }
}

/// Samples at 48 kHz of an Opus packet (RFC 6716 §3.1).
fn opus_samples(packet: &[u8]) -> u32 {
    let Some(&toc) = packet.first() else { return 0 };
    let frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880].get(usize::from(config & 3)),
        config @ 12..=15 => [480, 960].get(usize::from(config & 1)),
        config => [120, 240, 480, 960].get(usize::from(config & 3)),
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).copied().unwrap_or(1) & 0x3F),
    };
    // No packet is longer than 120 ms.
    (frame.copied().unwrap_or(960) * frames).min(5760)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_sound_say_how_long_they_are() {
        assert_eq!(opus_samples(&[0xFC]), 960);
        assert_eq!(opus_samples(&[0x0B, 3]), 3 * 960);
        assert_eq!(opus_samples(&[0x0B, 63]), 5760, "no packet is longer than 120 ms");
        assert_eq!(opus_samples(&[0x83, 4]), 480);
        assert_eq!(opus_samples(&[]), 0);
        assert_eq!(mp3_header(&[0xFF, 0xFB, 0x90, 0x44]), Some((44_100, 2, 1152)));
        assert_eq!(mp3_header(&[0xFF, 0xF3, 0x84, 0xC4]), Some((24_000, 1, 576)));
        assert_eq!(mp3_header(&[0xFF, 0xFB, 0x9C, 0x44]), None);
        assert_eq!(mp3_header(&[0xFF, 0xFB]), None);
    }

    #[test]
    fn records_too_short_or_too_long_make_no_track() {
        assert_eq!(VideoTrack::new(VideoCodec::Avc, &[1, 100, 0, 40]), None);
        assert_eq!(VideoTrack::new(VideoCodec::Avc, &[1; CONFIG_BYTES_MAX + 1]), None);
        assert_eq!(AudioTrack::new(AudioCodec::Opus, b"OpusHead\x01\x02"), None);
        assert_eq!(AudioTrack::new(AudioCodec::Speex, &[1]), None);
    }
}
