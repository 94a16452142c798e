//! A stream made here: right in rate, rhythm and tags, with nothing to see in it.
//!
//! Video of a constant frame rate in groups of a constant length, the first picture of each larger
//! by a factor; audio as AAC has it at 48 kHz, 46.875 messages a second. Sequence headers are
//! those of a real encoder's settings, and frames of AVC are well-formed NAL units, so any server
//! forwards the stream. Filler and checksums are made once.

use super::{Due, Rest, Stamp};
use crate::marker::Wrapping;
use crate::num::{Prng, SECOND_NS, low_u32, whole, whole_u32};
use rtmp::session::MediaKind;

/// Sequence parameter set of H.264 baseline 3.1, 1280×720.
const SPS: [u8; 9] = [0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe4];
/// Picture parameter set that goes with it.
const PPS: [u8; 4] = [0x68, 0xce, 0x38, 0x80];
/// AAC LC, 48 kHz, stereo.
const AUDIO_CONFIG: [u8; 2] = [0x11, 0x90];
/// Samples of one AAC frame, and how many are played in a second.
const AUDIO_SAMPLES: u64 = 1024;
const AUDIO_RATE: u64 = 48_000;
/// Bytes of the smallest unit behind a marker.
const REST_BYTES_MIN: usize = 16;

/// How video is tagged.
#[derive(Copy, Clone, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum CodecTag {
    /// H.264 in the tag every server knows.
    Avc,
    /// H.264 by FourCC (Enhanced RTMP).
    Avc1,
    /// H.265 by FourCC (Enhanced RTMP).
    Hvc1,
    /// AV1 by FourCC (Enhanced RTMP).
    Av01,
}

impl CodecTag {
    fn fourcc(self) -> &'static [u8] {
        match self {
            CodecTag::Avc => b"",
            CodecTag::Avc1 => b"avc1",
            CodecTag::Hvc1 => b"hvc1",
            CodecTag::Av01 => b"av01",
        }
    }

    fn wrapping(self) -> Wrapping {
        match self {
            CodecTag::Avc | CodecTag::Avc1 => Wrapping::AvcSei,
            CodecTag::Hvc1 => Wrapping::HevcSei,
            CodecTag::Av01 => Wrapping::Av1Padding,
        }
    }

    /// The tag header of a frame, `packet` being 0 for a sequence header and 1 for coded frames.
    fn header(self, is_key: bool, packet: u8, out: &mut Vec<u8>) {
        let frame_type = if is_key { 1 } else { 2 };
        match self {
            CodecTag::Avc => out.extend_from_slice(&[(frame_type << 4) | 7, packet, 0, 0, 0]),
            _ => {
                out.push(0x80 | (frame_type << 4) | packet);
                out.extend_from_slice(self.fourcc());
                if packet == 1 && self != CodecTag::Av01 {
                    out.extend_from_slice(&[0, 0, 0]);
                }
            }
        }
    }

    /// The codec's configuration record.
    fn config(self) -> Vec<u8> {
        match self {
            CodecTag::Avc | CodecTag::Avc1 => {
                let mut record = vec![1, SPS[1], SPS[2], SPS[3], 0xff, 0xe1, 0, 9];
                record.extend_from_slice(&SPS);
                record.extend_from_slice(&[1, 0, 4]);
                record.extend_from_slice(&PPS);
                record
            }
            // Main profile, level 3.1, four-byte lengths; parameter sets would be in band.
            CodecTag::Hvc1 => vec![
                1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0,
                0, 0x0f, 0,
            ],
            CodecTag::Av01 => vec![0x81, 0x05, 0x0c, 0x00],
        }
    }

    /// Turns filler of this size into one unit of the codec.
    fn unit(self, is_key: bool, filler: &mut [u8]) {
        let bytes = u32::try_from(filler.len()).unwrap_or(u32::MAX);
        match self {
            CodecTag::Avc | CodecTag::Avc1 => {
                filler[..4].copy_from_slice(&(bytes - 4).to_be_bytes());
                filler[4] = if is_key { 0x65 } else { 0x41 };
            }
            CodecTag::Hvc1 => {
                filler[..4].copy_from_slice(&(bytes - 4).to_be_bytes());
                filler[4..6].copy_from_slice(&[if is_key { 0x26 } else { 0x02 }, 1]);
            }
            // A frame OBU that reaches to the end of the unit.
            CodecTag::Av01 => filler[0] = 0x30,
        }
    }
}

/// What the stream is like.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SyntheticConfig {
    pub(crate) codec: CodecTag,
    /// Of the video alone, bits per second.
    pub(crate) bitrate: f64,
    /// Of the audio, bits per second; 0: no audio.
    pub(crate) audio_bitrate: f64,
    /// Pictures per second.
    pub(crate) fps: f64,
    /// Seconds from keyframe to keyframe.
    pub(crate) gop: f64,
    /// How much larger a keyframe is than another picture.
    pub(crate) keyframe_ratio: f64,
}

impl SyntheticConfig {
    /// Pictures of a group.
    fn gop_frames(&self) -> u64 {
        whole(self.gop * self.fps).max(1)
    }

    /// Bytes of a keyframe and of another picture.
    fn frame_bytes(&self) -> (u32, u32) {
        let frames = self.gop_frames() as f64;
        let group = self.bitrate / 8.0 * frames / self.fps;
        let other = group / (frames - 1.0 + self.keyframe_ratio);
        (whole_u32(other * self.keyframe_ratio), whole_u32(other))
    }

    fn audio_bytes(&self) -> u32 {
        whole_u32(self.audio_bitrate / 8.0 * AUDIO_SAMPLES as f64 / AUDIO_RATE as f64)
    }
}

/// A unit that follows a marker, made once.
#[derive(Clone, Debug)]
struct Unit {
    bytes: Vec<u8>,
    rest: Rest,
}

impl Unit {
    /// A unit such that it and the `around` bytes in front are `message_bytes` long.
    fn new(
        message_bytes: u32,
        around: usize,
        prng: &mut Prng,
        shape: impl FnOnce(&mut [u8]),
    ) -> Unit {
        let length = (message_bytes as usize).saturating_sub(around).max(REST_BYTES_MIN);
        let mut bytes = vec![0; length];
        prng.fill_non_zero(&mut bytes);
        shape(&mut bytes);
        let rest = Rest::of(&bytes);
        Unit { bytes, rest }
    }
}

/// The media of one synthetic stream. See the file's head.
#[derive(Clone, Debug)]
pub(crate) struct Synthetic {
    config: SyntheticConfig,
    keyframe: Unit,
    frame: Unit,
    audio: Option<Unit>,
    gop_frames: u64,
    frames: u64,
    audio_frames: u64,
}

impl Synthetic {
    /// The same seed makes the same bytes.
    pub(crate) fn new(config: SyntheticConfig, seed: u64) -> Synthetic {
        let mut prng = Prng::new(seed);
        let codec = config.codec;
        let (key_bytes, other_bytes) = config.frame_bytes();
        let mut header = Vec::new();
        codec.header(true, 1, &mut header);
        let around = header.len() + codec.wrapping().bytes();
        let keyframe = Unit::new(key_bytes, around, &mut prng, |unit| codec.unit(true, unit));
        let frame = Unit::new(other_bytes, around, &mut prng, |unit| codec.unit(false, unit));
        let has_audio = config.audio_bitrate > 0.0;
        let around = 2 + Wrapping::AacElement.bytes();
        let audio = has_audio.then(|| Unit::new(config.audio_bytes(), around, &mut prng, |_| {}));
        let gop_frames = config.gop_frames();
        Synthetic { config, keyframe, frame, audio, gop_frames, frames: 0, audio_frames: 0 }
    }

    fn video_due_ns(&self) -> u64 {
        whole(self.frames as f64 / self.config.fps * 1e9)
    }

    fn audio_due_ns(&self) -> u64 {
        // Once around 584 years.
        self.audio_frames * AUDIO_SAMPLES * (SECOND_NS / 1000) / (AUDIO_RATE / 1000)
    }

    fn is_audio_next(&self) -> bool {
        self.audio.is_some() && self.audio_due_ns() < self.video_due_ns()
    }

    /// See [`Source::due_ns`](super::Source::due_ns).
    pub(crate) fn due_ns(&self) -> u64 {
        if self.is_audio_next() { self.audio_due_ns() } else { self.video_due_ns() }
    }

    /// See [`Source::write_next`](super::Source::write_next).
    pub(crate) fn write_next(
        &mut self,
        stamp: &mut Stamp,
        clock_ns: u64,
        out: &mut Vec<u8>,
    ) -> Due {
        let timestamp = low_u32(self.due_ns() / 1_000_000);
        let is_audio = self.is_audio_next();
        let kind = if is_audio { MediaKind::Audio } else { MediaKind::Video };
        let due = Due { kind: Some(kind), timestamp };
        if let (true, Some(unit)) = (is_audio, &self.audio) {
            self.audio_frames += 1;
            out.extend_from_slice(&[0xaf, 1]);
            stamp.write(Wrapping::AacElement, due, clock_ns, unit.rest, out);
            out.extend_from_slice(&unit.bytes);
            return due;
        }
        let is_key = self.frames.is_multiple_of(self.gop_frames);
        let unit = if is_key { &self.keyframe } else { &self.frame };
        self.frames += 1;
        self.config.codec.header(is_key, 1, out);
        stamp.write(self.config.codec.wrapping(), due, clock_ns, unit.rest, out);
        out.extend_from_slice(&unit.bytes);
        due
    }

    /// See [`Source::opening`](super::Source::opening).
    pub(crate) fn opening(&self) -> Vec<(Option<MediaKind>, Vec<u8>)> {
        let mut video = Vec::new();
        self.config.codec.header(true, 0, &mut video);
        video.extend_from_slice(&self.config.codec.config());
        let mut opening = vec![(None, self.metadata()), (Some(MediaKind::Video), video)];
        if self.audio.is_some() {
            let audio = [&[0xaf, 0][..], &AUDIO_CONFIG].concat();
            opening.push((Some(MediaKind::Audio), audio));
        }
        opening
    }

    fn metadata(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut amf = rtmp::amf0::Writer::new(&mut body);
        amf.string("onMetaData");
        let entries = [
            ("width", 1280.0),
            ("height", 720.0),
            ("framerate", self.config.fps),
            ("videodatarate", self.config.bitrate / 1000.0),
            ("audiodatarate", self.config.audio_bitrate / 1000.0),
            ("audiosamplerate", AUDIO_RATE as f64),
        ];
        amf.ecma_array_begin(6);
        for (key, value) in entries {
            amf.key(key);
            amf.number(value);
        }
        amf.object_end();
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker;
    use rtmp::codec;
    use rtmp::tag;

    fn config(codec: CodecTag) -> SyntheticConfig {
        SyntheticConfig {
            codec,
            bitrate: 2_500_000.0,
            audio_bitrate: 128_000.0,
            fps: 30.0,
            gop: 2.0,
            keyframe_ratio: 8.0,
        }
    }

    #[test]
    fn a_second_has_the_bits_and_messages_asked_for() {
        let mut source = Synthetic::new(config(CodecTag::Avc), 1);
        let mut stamp = Stamp::new(1);
        let (mut bits, mut count) = ([0, 0], [0, 0]);
        while source.due_ns() < 16 * SECOND_NS {
            let mut body = Vec::new();
            let due = source.write_next(&mut stamp, 0, &mut body);
            let kind = usize::from(due.kind == Some(MediaKind::Audio));
            bits[kind] += body.len() * 8;
            count[kind] += 1;
        }
        assert_eq!(count, [480, 750]);
        assert!((39_600_000..40_400_000).contains(&bits[0]), "{bits:?}");
        assert!((2_030_000..2_070_000).contains(&bits[1]), "{bits:?}");
    }

    #[test]
    fn timestamps_never_run_backwards_and_keyframes_come_on_time() {
        let mut source = Synthetic::new(config(CodecTag::Avc), 1);
        let mut stamp = Stamp::new(1);
        let (mut last, mut keys) = (0, Vec::new());
        while source.due_ns() < 5 * SECOND_NS {
            let mut body = Vec::new();
            let due = source.write_next(&mut stamp, 0, &mut body);
            assert!(due.timestamp >= last);
            last = due.timestamp;
            if due.kind == Some(MediaKind::Video) && tag::video(&body).keyframe {
                keys.push(due.timestamp);
            }
        }
        assert_eq!(keys, [0, 2000, 4000]);
    }

    #[test]
    fn every_codec_is_recognised_and_its_markers_vouch_for_the_rest() {
        for codec in [CodecTag::Avc, CodecTag::Avc1, CodecTag::Hvc1, CodecTag::Av01] {
            let mut source = Synthetic::new(config(codec), 2);
            let mut stamp = Stamp::new(9);
            for (number, expected) in [(0u32, MediaKind::Video), (0, MediaKind::Audio)] {
                let mut body = Vec::new();
                let due = source.write_next(&mut stamp, 5, &mut body);
                assert_eq!(due.kind, Some(expected));
                let head = &body[..body.len().min(marker::HEAD_BYTES)];
                let found = match expected {
                    MediaKind::Video => marker::of_video(head),
                    MediaKind::Audio => marker::of_audio(head),
                };
                let found = found.unwrap_or_else(|| panic!("{codec:?} {expected:?}"));
                assert_eq!((found.marker.tag, found.marker.sequence), (9, number));
                let rest = &body[found.rest_at..];
                assert_eq!(found.marker.rest_bytes as usize, rest.len());
                assert_eq!(found.marker.rest_crc, crc32fast::hash(rest));
            }
        }
    }

    #[test]
    fn sequence_headers_are_those_of_720p_and_48_khz() {
        let opening = Synthetic::new(config(CodecTag::Avc), 1).opening();
        let info = tag::video(&opening[1].1);
        assert!(info.sequence_header);
        let video = codec::video_config(info.codec, &opening[1].1[info.payload_offset..]).unwrap();
        assert_eq!((video.width, video.height, video.level), (1280, 720, 31));
        let info = tag::audio(&opening[2].1);
        assert!(info.sequence_header);
        let audio = codec::audio_config(info.codec, &opening[2].1[info.payload_offset..]).unwrap();
        assert_eq!((audio.rate_hz, audio.channels), (48_000, 2));
        for codec in [CodecTag::Avc1, CodecTag::Hvc1, CodecTag::Av01] {
            let opening = Synthetic::new(config(codec), 1).opening();
            assert!(tag::video(&opening[1].1).sequence_header, "{codec:?}");
        }
    }

    #[test]
    fn frames_of_avc_are_whole_nal_units() {
        let mut source = Synthetic::new(config(CodecTag::Avc), 1);
        let mut body = Vec::new();
        source.write_next(&mut Stamp::new(1), 0, &mut body);
        let mut units = &body[5..];
        let mut types = Vec::new();
        while let Some((length, after)) = units.split_first_chunk::<4>() {
            let (unit, later) = after.split_at(u32::from_be_bytes(*length) as usize);
            types.push(unit[0] & 0x1f);
            units = later;
        }
        assert_eq!(types, [6, 5]);
    }
}
