//! Codec names for playlists and Media Source players.
//!
//! Spec: RFC 6381 §3.3; ISO 14496-15 annex E (HEVC); AV1-ISOBMFF §5; VP9 binding, "Codecs
//! Parameter String".

use alloc::format;
use alloc::string::String;

use rtmp::tag::{AudioCodec, VideoCodec};

use super::tracks::{AudioTrack, Tracks, VideoTrack};

/// `avc1.64001f`, `hvc1.1.6.L93.90`, `av01.0.04M.08`, `vp09.00.31.08`.
pub fn video(track: &VideoTrack) -> String {
    let byte = |at: usize| track.config.get(at).copied().unwrap_or_default();
    match track.codec {
        VideoCodec::Avc => format!("avc1.{:02x}{:02x}{:02x}", byte(1), byte(2), byte(3)),
        VideoCodec::Hevc => hevc(&track.config),
        VideoCodec::Av1 => {
            let tier = if byte(2) & 0x80 != 0 { 'H' } else { 'M' };
            let depth = match (byte(2) >> 6 & 1, byte(2) >> 5 & 1) {
                (0, _) => 8,
                (_, 0) => 10,
                _ => 12,
            };
            format!("av01.{}.{:02}{tier}.{depth:02}", byte(1) >> 5, byte(1) & 0x1F)
        }
        VideoCodec::Vp9 => format!("vp09.{:02}.{:02}.{:02}", byte(0), byte(1), byte(2) >> 4),
        _ => String::new(),
    }
}

fn hevc(config: &[u8]) -> String {
    let byte = |at: usize| config.get(at).copied().unwrap_or_default();
    let space = match byte(1) >> 6 {
        1 => "A",
        2 => "B",
        3 => "C",
        _ => "",
    };
    let flags = u32::from_be_bytes([byte(2), byte(3), byte(4), byte(5)]).reverse_bits();
    let tier = if byte(1) & 0x20 != 0 { 'H' } else { 'L' };
    let profile = byte(1) & 0x1F;
    let mut name = format!("hvc1.{space}{profile}.{flags:X}.{tier}{}", byte(12));
    let constraints = config.get(6..12).unwrap_or_default();
    let used = constraints.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
    for constraint in constraints.iter().take(used) {
        name.push_str(&format!(".{constraint:X}"));
    }
    name
}

/// `mp4a.40.2`, `mp4a.40.34` (MP3), `opus`, `fLaC`.
pub fn audio(track: &AudioTrack) -> String {
    match track.codec {
        AudioCodec::Aac => format!("mp4a.40.{}", track.profile),
        AudioCodec::Mp3 => String::from("mp4a.40.34"),
        AudioCodec::Opus => String::from("opus"),
        AudioCodec::Flac => String::from("fLaC"),
        _ => String::new(),
    }
}

/// Names of all tracks, separated by commas, video first.
pub fn list(tracks: &Tracks) -> String {
    let mut names = tracks.video.as_ref().map(video).unwrap_or_default();
    if let Some(track) = &tracks.audio {
        if !names.is_empty() {
            names.push(',');
        }
        names.push_str(&audio(track));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtmp::codec::VideoConfig;

    fn named(codec: VideoCodec, config: &[u8]) -> String {
        video(&VideoTrack { codec, config: config.into(), facts: VideoConfig::default() })
    }

    #[test]
    fn names_follow_the_records() {
        assert_eq!(named(VideoCodec::Avc, &[1, 0x64, 0, 0x1F]), "avc1.64001f");
        let main = [1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93];
        assert_eq!(named(VideoCodec::Hevc, &main), "hvc1.1.6.L93.90");
        let main_10 = [1, 0x22, 0x20, 0, 0, 0, 0xB0, 0, 0, 1, 0, 0, 120];
        assert_eq!(named(VideoCodec::Hevc, &main_10), "hvc1.2.4.H120.B0.0.0.1");
        assert_eq!(named(VideoCodec::Av1, &[0x81, 0x04, 0x0C, 0]), "av01.0.04M.08");
        assert_eq!(named(VideoCodec::Av1, &[0x81, 0x28, 0xC0, 0]), "av01.1.08H.10");
        assert_eq!(named(VideoCodec::Vp9, &[0, 31, 0x82, 1, 1, 1]), "vp09.00.31.08");
        let aac = AudioTrack::new(AudioCodec::Aac, &[0x12, 0x10]);
        assert_eq!(list(&Tracks { video: None, audio: aac }), "mp4a.40.2");
    }
}
