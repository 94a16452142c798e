//! What the sequence headers of a stream tell: codecs, picture size, sound, and under which key of
//! the preamble each header belongs.

use alloc::vec::Vec;

use rtmp::chunk::Framing;
use rtmp::tag::{AudioInfo, Multitrack, VideoInfo};
use rtmp::{codec, tag};

use crate::image::body_parts;
use crate::preamble::EntryKey;

/// Codecs and picture of a stream, as its sequence headers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaFacts {
    /// Name of the video codec, if video was seen.
    pub video_codec: Option<&'static str>,
    /// Name of the audio codec, if audio was seen.
    pub audio_codec: Option<&'static str>,
    /// Picture size in luma samples.
    pub size: Option<(u32, u32)>,
    /// Audio sample rate in hertz.
    pub sample_rate_hz: Option<u32>,
    /// Audio channels.
    pub channels: Option<u8>,
}

/// The body of the message in `image` without its continuation headers.
pub(super) fn gather_body(
    image: &[u8],
    header_bytes: usize,
    body_bytes: usize,
    framing: Framing,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(body_bytes);
    for part in body_parts(image, header_bytes, body_bytes, framing) {
        body.extend_from_slice(part);
    }
    body
}

impl MediaFacts {
    pub(super) fn note_video_header(&mut self, body: &[u8], info: &VideoInfo) {
        self.video_codec = Some(info.codec.name());
        let Some(track) = tag::video_tracks(body).next() else { return };
        if let Some(config) = codec::video_config(track.codec, track.payload)
            && config.width > 0
        {
            self.size = Some((config.width, config.height));
        }
    }

    pub(super) fn note_audio(&mut self, info: &AudioInfo) {
        self.audio_codec = Some(info.codec.name());
        if self.sample_rate_hz.is_none() && info.rate_hz > 0 {
            self.sample_rate_hz = Some(info.rate_hz);
            self.channels = Some(info.channels);
        }
    }

    pub(super) fn note_audio_header(&mut self, body: &[u8]) {
        let Some(track) = tag::audio_tracks(body).next() else { return };
        if let Some(config) = codec::audio_config(track.codec, track.payload) {
            self.sample_rate_hz = Some(config.rate_hz);
            self.channels = Some(config.channels);
        }
    }
}

/// Several tracks in one message: kept apart from messages of single tracks.
const KEY_MANY_TRACKS: u16 = 1 << 8;
/// Beside the codec configuration of the same track: colour or channel layout.
const KEY_SIDE_DATA: u16 = 1 << 9;

pub(super) fn video_key(body: &[u8], info: &VideoInfo) -> EntryKey {
    let track = tag::video_tracks(body).next().map_or(0, |track| track.id);
    EntryKey::video(track_key(track, info.multitrack, info.metadata))
}

pub(super) fn audio_key(body: &[u8], info: &AudioInfo) -> EntryKey {
    let track = tag::audio_tracks(body).next().map_or(0, |track| track.id);
    EntryKey::audio(track_key(track, info.multitrack, info.multichannel_config))
}

fn track_key(track: u8, multitrack: Multitrack, is_side_data: bool) -> u16 {
    let many = matches!(multitrack, Multitrack::Many | Multitrack::ManyCodecs);
    u16::from(track)
        | if many { KEY_MANY_TRACKS } else { 0 }
        | if is_side_data { KEY_SIDE_DATA } else { 0 }
}
