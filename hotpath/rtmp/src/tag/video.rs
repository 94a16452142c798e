//! Video message bodies. See the parent module for the layout.

use super::{ExHeader, FourCc, Multitrack, NoExHeader, RawTracks, Track, ex_header, mod_ex};
use crate::reader::Cursor;

/// Packet types of enhanced video tags.
mod packet {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const CODED_FRAMES: u8 = 1;
    pub(super) const SEQUENCE_END: u8 = 2;
    pub(super) const CODED_FRAMES_X: u8 = 3;
    pub(super) const METADATA: u8 = 4;
    pub(super) const MPEG2TS_SEQUENCE_START: u8 = 5;
    pub(super) const MULTITRACK: u8 = 6;
}

/// Frame types of all video tags.
mod frame {
    pub(super) const KEY: u8 = 1;
    pub(super) const INTER: u8 = 2;
    pub(super) const DISPOSABLE: u8 = 3;
    pub(super) const GENERATED_KEY: u8 = 4;
    pub(super) const COMMAND: u8 = 5;
}

/// NAL units looked at to tell whether a tag with a meaningless frame type is a keyframe.
const SNIFFED_NALS_MAX: u32 = 8;

/// A video codec.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum VideoCodec {
    /// Sorenson H.263, codec id 2.
    H263,
    /// Screen video, codec id 3.
    Screen,
    /// On2 VP6, codec id 4.
    Vp6,
    /// On2 VP6 with alpha, codec id 5.
    Vp6Alpha,
    /// Screen video version 2, codec id 6.
    Screen2,
    /// H.264, codec id 7 or `avc1`.
    Avc,
    /// H.265, codec id 12 or `hvc1`.
    Hevc,
    /// H.266, `vvc1`.
    Vvc,
    /// VP8, `vp08`.
    Vp8,
    /// VP9, `vp09`.
    Vp9,
    /// AV1, `av01`.
    Av1,
    /// Something else: a codec id below 16, or a FourCC as a big-endian number.
    Unknown(u32),
}

impl VideoCodec {
    /// Short name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::H263 => "h263",
            Self::Screen => "screen",
            Self::Vp6 => "vp6",
            Self::Vp6Alpha => "vp6a",
            Self::Screen2 => "screen2",
            Self::Avc => "h264",
            Self::Hevc => "hevc",
            Self::Vvc => "vvc",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
            Self::Unknown(_) => "unknown",
        }
    }

    fn of_fourcc(fourcc: FourCc) -> Self {
        match &fourcc.0 {
            b"avc1" => Self::Avc,
            b"hvc1" => Self::Hevc,
            b"vvc1" => Self::Vvc,
            b"vp08" => Self::Vp8,
            b"vp09" => Self::Vp9,
            b"av01" => Self::Av1,
            _ => Self::Unknown(fourcc.to_u32()),
        }
    }

    fn of_id(id: u8) -> Self {
        match id {
            2 => Self::H263,
            3 => Self::Screen,
            4 => Self::Vp6,
            5 => Self::Vp6Alpha,
            6 => Self::Screen2,
            7 => Self::Avc,
            12 => Self::Hevc,
            _ => Self::Unknown(id.into()),
        }
    }

    /// Codecs whose coded frames start with a composition time.
    fn has_composition_time(self) -> bool {
        matches!(self, Self::Avc | Self::Hevc | Self::Vvc)
    }
}

/// What a video message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VideoInfo {
    /// Codec of the message, or of its first track.
    pub codec: VideoCodec,
    /// Carries a FourCC (Enhanced RTMP).
    pub enhanced: bool,
    /// Coded pictures a decoder can start at. For several tracks this looks inside: a sequence
    /// header flagged as a key frame is none.
    pub keyframe: bool,
    /// Nothing refers to it: may be left out under pressure.
    pub discardable: bool,
    /// Decoder configuration ("sequence start" in Enhanced RTMP).
    pub sequence_header: bool,
    /// End of the sequence; carries no picture.
    pub end_of_sequence: bool,
    /// AMF metadata such as colour information, no picture.
    pub metadata: bool,
    /// A command or info frame, no picture.
    pub command: bool,
    /// Tracks in the message.
    pub multitrack: Multitrack,
    /// Presentation minus decoding time of the first track, in milliseconds.
    pub composition_time: i32,
    /// To be added to the timestamp, in nanoseconds.
    pub nano_offset: u32,
    /// Offset of the first track's payload in the body, in bytes. Behind the body if truncated.
    pub payload_offset: usize,
    /// The body ends inside the header; the other fields are the best guess.
    pub truncated: bool,
}

/// Classes the body of a video message. Never fails.
pub fn video(body: &[u8]) -> VideoInfo {
    let Some((&first, _)) = body.split_first() else {
        return VideoInfo { truncated: true, ..blank(VideoCodec::Unknown(0)) };
    };
    if first & 0x80 == 0 {
        return legacy(body, first);
    }
    match enhanced_header(body) {
        Ok(Enhanced::Coded(header)) => enhanced(body, first, &header),
        Ok(Enhanced::Command { nano_offset }) => VideoInfo {
            enhanced: true,
            command: true,
            nano_offset,
            payload_offset: body.len(),
            ..blank(VideoCodec::Unknown(0))
        },
        Err(NoExHeader::Other) => legacy(body, first),
        Err(NoExHeader::Torn) => VideoInfo { truncated: true, ..legacy(body, first) },
    }
}

/// The tracks of a video message. A message with one track yields one, with what follows its
/// header as payload.
pub fn video_tracks(body: &[u8]) -> VideoTracks<'_> {
    let first = body.first().copied().unwrap_or_default();
    if first & 0x80 != 0
        && let Ok(Enhanced::Coded(header)) = enhanced_header(body)
    {
        let tracks = RawTracks::new(body, &header);
        return VideoTracks { source: Source::Enhanced(tracks, header.packet_type) };
    }
    let info = legacy(body, first);
    let payload = body.get(info.payload_offset..).unwrap_or_default();
    let track = Track { id: 0, codec: info.codec, payload };
    VideoTracks { source: Source::Legacy((!body.is_empty()).then_some(track)) }
}

/// Iterator over the tracks of a video message.
#[derive(Clone, Debug)]
pub struct VideoTracks<'a> {
    source: Source<'a>,
}

#[derive(Clone, Debug)]
enum Source<'a> {
    Legacy(Option<Track<'a, VideoCodec>>),
    Enhanced(RawTracks<'a>, u8),
}

impl<'a> Iterator for VideoTracks<'a> {
    type Item = Track<'a, VideoCodec>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::Legacy(track) => track.take(),
            Source::Enhanced(tracks, packet_type) => {
                let Track { id, codec, payload } = tracks.next()?;
                let codec = VideoCodec::of_fourcc(codec);
                let skip = composition_bytes(codec, *packet_type);
                Some(Track { id, codec, payload: payload.get(skip..).unwrap_or_default() })
            }
        }
    }
}

enum Enhanced {
    Coded(ExHeader),
    Command { nano_offset: u32 },
}

/// The header of a tag that claims to be enhanced.
fn enhanced_header(body: &[u8]) -> Result<Enhanced, NoExHeader> {
    let mut cursor = Cursor::new(body);
    let first = cursor.u8().ok_or(NoExHeader::Torn)?;
    let (packet_type, nano_offset) = mod_ex(&mut cursor, first & 0x0F)?;
    if first >> 4 & 0x07 == frame::COMMAND && packet_type != packet::METADATA {
        // One byte and nothing else: there is no FourCC to believe, so the length must do.
        return match cursor.rest().len() {
            0 => Err(NoExHeader::Torn),
            1 => Ok(Enhanced::Command { nano_offset }),
            _ => Err(NoExHeader::Other),
        };
    }
    ex_header(&mut cursor, (packet_type, nano_offset), packet::MULTITRACK).map(Enhanced::Coded)
}

fn enhanced(body: &[u8], first: u8, header: &ExHeader) -> VideoInfo {
    let codec = VideoCodec::of_fourcc(header.fourcc);
    let frame_type = first >> 4 & 0x07;
    let coded = matches!(header.packet_type, packet::CODED_FRAMES | packet::CODED_FRAMES_X);
    let metadata = header.packet_type == packet::METADATA;
    let track_bytes = match header.multitrack {
        Multitrack::No => 0,
        Multitrack::One => 1,
        Multitrack::Many => 1 + 3,
        Multitrack::ManyCodecs => 4 + 1 + 3,
    };
    let composition_at = header.tracks_at + track_bytes;
    let payload_offset = composition_at + composition_bytes(codec, header.packet_type);
    let mut composition = Cursor::new(body.get(composition_at..payload_offset).unwrap_or_default());
    VideoInfo {
        enhanced: true,
        keyframe: coded && matches!(frame_type, frame::KEY | frame::GENERATED_KEY),
        discardable: coded && frame_type == frame::DISPOSABLE,
        sequence_header: matches!(
            header.packet_type,
            packet::SEQUENCE_START | packet::MPEG2TS_SEQUENCE_START
        ),
        end_of_sequence: header.packet_type == packet::SEQUENCE_END,
        metadata,
        command: false,
        multitrack: header.multitrack,
        composition_time: composition.i24().unwrap_or(0),
        nano_offset: header.nano_offset,
        payload_offset,
        truncated: body.len() < payload_offset,
        ..blank(codec)
    }
}

fn composition_bytes(codec: VideoCodec, packet_type: u8) -> usize {
    if packet_type == packet::CODED_FRAMES && codec.has_composition_time() { 3 } else { 0 }
}

/// A tag of the FLV specification, or one that cannot be anything else.
fn legacy(body: &[u8], first: u8) -> VideoInfo {
    let codec = VideoCodec::of_id(first & 0x0F);
    let frame_type = first >> 4;
    let command = frame_type == frame::COMMAND;
    if command || !codec.has_composition_time() {
        return VideoInfo {
            keyframe: matches!(frame_type, frame::KEY | frame::GENERATED_KEY),
            discardable: frame_type == frame::DISPOSABLE,
            command,
            payload_offset: 1,
            ..blank(codec)
        };
    }
    let mut cursor = Cursor::new(body);
    cursor.u8();
    let (packet_type, composition_time) = (cursor.u8(), cursor.i24());
    let coded = packet_type == Some(1);
    let keyframe = match frame_type {
        frame::KEY | frame::GENERATED_KEY => true,
        frame::INTER | frame::DISPOSABLE => false,
        // A frame type that does not exist: look at the pictures themselves.
        _ => starts_with_random_access(codec, cursor.rest()),
    };
    VideoInfo {
        keyframe: coded && keyframe,
        discardable: coded && frame_type == frame::DISPOSABLE,
        sequence_header: packet_type == Some(0),
        end_of_sequence: packet_type == Some(2),
        composition_time: composition_time.unwrap_or(0),
        payload_offset: 5,
        truncated: composition_time.is_none(),
        ..blank(codec)
    }
}

/// True if one of the first NAL units is a picture a decoder can start at. Units are preceded by
/// their length in four bytes, which is what every encoder announces.
fn starts_with_random_access(codec: VideoCodec, payload: &[u8]) -> bool {
    let mut cursor = Cursor::new(payload);
    for _ in 0..SNIFFED_NALS_MAX {
        let Some(length) = cursor.u32() else { return false };
        let Some(header) = cursor.peek() else { return false };
        let found = match codec {
            VideoCodec::Avc => header & 0x1F == 5,
            VideoCodec::Hevc => matches!(header >> 1 & 0x3F, 16..=21),
            _ => false,
        };
        if found {
            return true;
        }
        if cursor.take(length as usize).is_none() {
            return false;
        }
    }
    false
}

fn blank(codec: VideoCodec) -> VideoInfo {
    VideoInfo {
        codec,
        enhanced: false,
        keyframe: false,
        discardable: false,
        sequence_header: false,
        end_of_sequence: false,
        metadata: false,
        command: false,
        multitrack: Multitrack::No,
        composition_time: 0,
        nano_offset: 0,
        payload_offset: 0,
        truncated: false,
    }
}
