//! Audio message bodies. See the parent module for the layout.

use super::{ExHeader, FourCc, Multitrack, NoExHeader, RawTracks, Track, ex_header, mod_ex};
use crate::reader::Cursor;

/// Packet types of enhanced audio tags.
mod packet {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const SEQUENCE_END: u8 = 2;
    pub(super) const MULTICHANNEL_CONFIG: u8 = 4;
    pub(super) const MULTITRACK: u8 = 5;
}

/// Sound format that announces an enhanced tag.
const FORMAT_ENHANCED: u8 = 9;

/// An audio codec.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum AudioCodec {
    /// Linear PCM, formats 0 (byte order of the sender) and 3 (little-endian).
    Pcm,
    /// ADPCM, format 1.
    Adpcm,
    /// MP3, formats 2 and 14, or `.mp3`.
    Mp3,
    /// Nellymoser, formats 4, 5 and 6.
    Nellymoser,
    /// G.711 A-law, format 7.
    G711A,
    /// G.711 µ-law, format 8.
    G711Mu,
    /// AAC, format 10 or `mp4a`.
    Aac,
    /// Speex, format 11.
    Speex,
    /// AC-3, `ac-3`.
    Ac3,
    /// Enhanced AC-3, `ec-3`.
    Eac3,
    /// Opus, `Opus`.
    Opus,
    /// FLAC, `fLaC`.
    Flac,
    /// Something else: a sound format below 16, or a FourCC as a big-endian number. Format 15 is
    /// specific to the device that sends it.
    Unknown(u32),
}

impl AudioCodec {
    /// Short name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcm => "pcm",
            Self::Adpcm => "adpcm",
            Self::Mp3 => "mp3",
            Self::Nellymoser => "nellymoser",
            Self::G711A => "g711a",
            Self::G711Mu => "g711u",
            Self::Aac => "aac",
            Self::Speex => "speex",
            Self::Ac3 => "ac3",
            Self::Eac3 => "eac3",
            Self::Opus => "opus",
            Self::Flac => "flac",
            Self::Unknown(_) => "unknown",
        }
    }

    fn of_fourcc(fourcc: FourCc) -> Self {
        match &fourcc.0 {
            b"mp4a" => Self::Aac,
            b"Opus" => Self::Opus,
            b"fLaC" => Self::Flac,
            b"ac-3" => Self::Ac3,
            b"ec-3" => Self::Eac3,
            b".mp3" => Self::Mp3,
            _ => Self::Unknown(fourcc.to_u32()),
        }
    }

    fn of_format(format: u8) -> Self {
        match format {
            0 | 3 => Self::Pcm,
            1 => Self::Adpcm,
            2 | 14 => Self::Mp3,
            4..=6 => Self::Nellymoser,
            7 => Self::G711A,
            8 => Self::G711Mu,
            10 => Self::Aac,
            11 => Self::Speex,
            _ => Self::Unknown(format.into()),
        }
    }
}

/// What an audio message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioInfo {
    /// Codec of the message, or of its first track.
    pub codec: AudioCodec,
    /// Carries a FourCC (Enhanced RTMP).
    pub enhanced: bool,
    /// Decoder configuration ("sequence start" in Enhanced RTMP).
    pub sequence_header: bool,
    /// End of the sequence, or silence; carries no sound.
    pub end_of_sequence: bool,
    /// Order and number of channels.
    pub multichannel_config: bool,
    /// Tracks in the message.
    pub multitrack: Multitrack,
    /// Sample rate the legacy header states, in hertz; meaningless for AAC. 0 if it has none.
    pub rate_hz: u32,
    /// Channels the legacy header states; meaningless for AAC. 0 if it has none.
    pub channels: u8,
    /// To be added to the timestamp, in nanoseconds.
    pub nano_offset: u32,
    /// Offset of the first track's payload in the body, in bytes. Behind the body if truncated.
    pub payload_offset: usize,
    /// The body ends inside the header; the other fields are the best guess.
    pub truncated: bool,
}

/// Classes the body of an audio message. Never fails.
pub fn audio(body: &[u8]) -> AudioInfo {
    let Some((&first, _)) = body.split_first() else {
        return AudioInfo { truncated: true, ..blank(AudioCodec::Unknown(0)) };
    };
    if first >> 4 != FORMAT_ENHANCED {
        return legacy(body, first);
    }
    match enhanced_header(body) {
        Ok(header) => enhanced(body, &header),
        Err(reason) => AudioInfo { truncated: reason == NoExHeader::Torn, ..legacy(body, first) },
    }
}

/// The tracks of an audio message. A message with one track yields one, with what follows its
/// header as payload.
pub fn audio_tracks(body: &[u8]) -> AudioTracks<'_> {
    let first = body.first().copied().unwrap_or_default();
    if first >> 4 == FORMAT_ENHANCED
        && let Ok(header) = enhanced_header(body)
    {
        return AudioTracks { source: Source::Enhanced(RawTracks::new(body, &header)) };
    }
    let info = legacy(body, first);
    let payload = body.get(info.payload_offset..).unwrap_or_default();
    let track = Track { id: 0, codec: info.codec, payload };
    AudioTracks { source: Source::Legacy((!body.is_empty()).then_some(track)) }
}

/// Iterator over the tracks of an audio message.
#[derive(Clone, Debug)]
pub struct AudioTracks<'a> {
    source: Source<'a>,
}

#[derive(Clone, Debug)]
enum Source<'a> {
    Legacy(Option<Track<'a, AudioCodec>>),
    Enhanced(RawTracks<'a>),
}

impl<'a> Iterator for AudioTracks<'a> {
    type Item = Track<'a, AudioCodec>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::Legacy(track) => track.take(),
            Source::Enhanced(tracks) => {
                let Track { id, codec, payload } = tracks.next()?;
                Some(Track { id, codec: AudioCodec::of_fourcc(codec), payload })
            }
        }
    }
}

fn enhanced_header(body: &[u8]) -> Result<ExHeader, NoExHeader> {
    let mut cursor = Cursor::new(body);
    let first = cursor.u8().ok_or(NoExHeader::Torn)?;
    let types = mod_ex(&mut cursor, first & 0x0F)?;
    ex_header(&mut cursor, types, packet::MULTITRACK)
}

fn enhanced(body: &[u8], header: &ExHeader) -> AudioInfo {
    let track_bytes = match header.multitrack {
        Multitrack::No => 0,
        Multitrack::One => 1,
        Multitrack::Many => 1 + 3,
        Multitrack::ManyCodecs => 4 + 1 + 3,
    };
    let payload_offset = header.tracks_at + track_bytes;
    AudioInfo {
        enhanced: true,
        sequence_header: header.packet_type == packet::SEQUENCE_START,
        end_of_sequence: header.packet_type == packet::SEQUENCE_END,
        multichannel_config: header.packet_type == packet::MULTICHANNEL_CONFIG,
        multitrack: header.multitrack,
        nano_offset: header.nano_offset,
        payload_offset,
        truncated: body.len() < payload_offset,
        ..blank(AudioCodec::of_fourcc(header.fourcc))
    }
}

fn legacy(body: &[u8], first: u8) -> AudioInfo {
    let format = first >> 4;
    let codec = AudioCodec::of_format(format);
    let rate_hz = match (format, first >> 2 & 0x03) {
        (4, _) => 16_000,
        (5 | 7 | 8 | 14, _) => 8_000,
        (11, _) => 16_000,
        (_, 0) => 5_512,
        (_, 1) => 11_025,
        (_, 2) => 22_050,
        _ => 44_100,
    };
    let info = AudioInfo { rate_hz, channels: 1 + (first & 1), payload_offset: 1, ..blank(codec) };
    if codec != AudioCodec::Aac {
        return info;
    }
    let packet_type = body.get(1).copied();
    AudioInfo {
        sequence_header: packet_type == Some(0),
        payload_offset: 2,
        truncated: packet_type.is_none(),
        ..info
    }
}

fn blank(codec: AudioCodec) -> AudioInfo {
    AudioInfo {
        codec,
        enhanced: false,
        sequence_header: false,
        end_of_sequence: false,
        multichannel_config: false,
        multitrack: Multitrack::No,
        rate_hz: 0,
        channels: 0,
        nano_offset: 0,
        payload_offset: 0,
        truncated: false,
    }
}
