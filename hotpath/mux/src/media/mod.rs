//! What a container needs of a message: samples and tracks, from legacy and Enhanced RTMP bodies.
//!
//! [`read`] classes one body and borrows its payload; [`Clock`] turns timestamps that wrap at 2³²
//! ms into ones that do not; [`tracks`] holds codec configurations, [`codec_names`] their names
//! for playlists and players. Of a multitrack message the first track is taken. Never panics on a
//! body. Called by the segmenter, and by whoever wants a single track's facts.

pub mod audio_clock;
pub mod codec_names;
pub mod tracks;

pub use audio_clock::AudioClock;
pub use tracks::{AudioTrack, Tracks, VideoTrack};

use rtmp::kind;
use rtmp::tag::{self, VideoCodec};

/// Sound or picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

/// One coded frame, as the container will carry it: NAL units behind their lengths, OBUs, a raw
/// AAC, Opus or MP3 frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample<'a> {
    /// Sound or picture.
    pub kind: Kind,
    /// Decoding time on the stream's timeline, in milliseconds; does not wrap.
    pub time_ms: u64,
    /// Presentation minus decoding time, in milliseconds; ±2²³.
    pub composition_ms: i32,
    /// A decoder can start here. Always true for sound.
    pub sync: bool,
    /// The coded bytes, never empty.
    pub payload: &'a [u8],
}

/// What a message is to a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Media<'a> {
    /// Configuration of the video track.
    VideoTrack(VideoTrack),
    /// Configuration of the audio track.
    AudioTrack(AudioTrack),
    /// A coded picture; its `time_ms` is the message's timestamp, not yet unwrapped.
    Video(Sample<'a>),
    /// Coded sound, likewise, and the track it says it belongs to if its codec has no
    /// configuration (MP3).
    Audio(Sample<'a>, Option<AudioTrack>),
    /// Nothing for a container: metadata, commands, ends of sequences, empty frames.
    Nothing,
    /// A codec, or a configuration, that no container here can carry.
    Unsupported(Kind),
}

/// Classes one message body. `kind` is the message type id.
pub fn read(kind: u8, timestamp: u32, body: &[u8]) -> Media<'_> {
    match kind {
        kind::VIDEO => read_video(timestamp, body),
        kind::AUDIO => read_audio(timestamp, body),
        _ => Media::Nothing,
    }
}

fn read_video(timestamp: u32, body: &[u8]) -> Media<'_> {
    let info = tag::video(body);
    if info.truncated || info.command || info.metadata || info.end_of_sequence {
        return Media::Nothing;
    }
    let Some(track) = tag::video_tracks(body).next() else { return Media::Nothing };
    if info.sequence_header {
        return match VideoTrack::new(track.codec, track.payload) {
            Some(track) => Media::VideoTrack(track),
            None => Media::Unsupported(Kind::Video),
        };
    }
    if !matches!(
        track.codec,
        VideoCodec::Avc | VideoCodec::Hevc | VideoCodec::Av1 | VideoCodec::Vp9
    ) {
        return Media::Unsupported(Kind::Video);
    }
    if track.payload.is_empty() {
        return Media::Nothing;
    }
    Media::Video(Sample {
        kind: Kind::Video,
        time_ms: timestamp.into(),
        composition_ms: info.composition_time,
        sync: info.keyframe,
        payload: track.payload,
    })
}

fn read_audio(timestamp: u32, body: &[u8]) -> Media<'_> {
    let info = tag::audio(body);
    if info.truncated || info.multichannel_config || info.end_of_sequence {
        return Media::Nothing;
    }
    let Some(track) = tag::audio_tracks(body).next() else { return Media::Nothing };
    if info.sequence_header {
        return match AudioTrack::new(track.codec, track.payload) {
            Some(track) => Media::AudioTrack(track),
            None => Media::Unsupported(Kind::Audio),
        };
    }
    if !tracks::carries(track.codec) {
        return Media::Unsupported(Kind::Audio);
    }
    if track.payload.is_empty() {
        return Media::Nothing;
    }
    let sample = Sample {
        kind: Kind::Audio,
        time_ms: timestamp.into(),
        composition_ms: 0,
        sync: true,
        payload: track.payload,
    };
    Media::Audio(sample, AudioTrack::of_frame(track.codec, track.payload))
}

/// Unwraps 32-bit milliseconds.
///
/// A timestamp is taken for the one nearest to the previous one, so small disorder goes back a
/// little and a wrap goes on; nothing goes below 0.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Clock {
    last_ms: Option<u64>,
}

impl Clock {
    /// The place of `timestamp` on a timeline that does not wrap, in milliseconds.
    pub fn unwrap(&mut self, timestamp: u32) -> u64 {
        let time_ms = match self.last_ms {
            None => timestamp.into(),
            Some(last_ms) => {
                // Only the low half matters: the difference is taken modulo 2³² as well.
                let low = u32::try_from(last_ms & 0xFFFF_FFFF).unwrap_or(u32::MAX);
                let step = timestamp.wrapping_sub(low).cast_signed();
                last_ms.saturating_add_signed(step.into())
            }
        };
        self.last_ms = Some(time_ms);
        time_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_over_the_wrap_and_back_over_it() {
        let mut clock = Clock::default();
        assert_eq!(clock.unwrap(u32::MAX - 1), 0xFFFF_FFFE);
        assert_eq!(clock.unwrap(3), 0x1_0000_0003);
        assert_eq!(clock.unwrap(u32::MAX), 0xFFFF_FFFF);
        assert_eq!(clock.unwrap(40), 0x1_0000_0028);
        let mut clock = Clock::default();
        clock.unwrap(5);
        assert_eq!(clock.unwrap(u32::MAX), 0, "nothing is before the beginning");
    }

    #[test]
    fn bodies_are_classed() {
        let picture = [0x17, 1, 0xFF, 0xFF, 0xD8, 0, 0, 0, 1, 0x65];
        let Media::Video(sample) = read(9, 7, &picture) else { panic!("no picture") };
        assert_eq!((sample.composition_ms, sample.sync, sample.time_ms), (-40, true, 7));
        assert_eq!(sample.payload, [0, 0, 0, 1, 0x65]);
        assert_eq!(read(9, 0, &[0x17, 2, 0, 0, 0]), Media::Nothing);
        assert_eq!(read(9, 0, &[0x17, 0, 0, 0, 0, 1]), Media::Unsupported(Kind::Video));
        assert_eq!(read(9, 0, &[0x24, 1]), Media::Unsupported(Kind::Video));
        assert_eq!(read(8, 0, &[0x72, 1]), Media::Unsupported(Kind::Audio));
        assert_eq!(read(8, 0, &[0xAF, 1]), Media::Nothing);
        assert_eq!(read(18, 0, &[0x02]), Media::Nothing);
        assert!(matches!(read(8, 0, &[0xAF, 0, 0x12, 0x10]), Media::AudioTrack(_)));
    }
}
