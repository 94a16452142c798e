//! Configurations written by x264, x265, libaom and the AAC encoder of FFmpeg.

use std::vec::Vec;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2);
    pairs.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

const AVC_1080: &str =
    "0164 0028 ffe1 001b 6764 0028 acd9 4078 0227 e5c0 4400 0003 0004 0000 0300 c83c
    60c6 5801 0006 68eb e3cb 22c0 fdf8 f800";
const AVC_854: &str =
    "0164 001e ffe1 001a 6764 001e acd9 40d8 3de6 f011 0000 0300 0100 0003 0032 0f16
    2d96 0100 0668 ebe3 cb22 c0fd f8f8 00";
const AVC_INTERLACED_422: &str =
    "017a 0015 ffe1 0018 677a 0015 bcd9 444d 8088 0000 0300 0800 0003 0190
    f8a1 4cb0 0100 0668 fba3 cb22 c0fe f8f8 00";
const HEVC_1080: &str =
    "0101 6000 0000 9000 0000 0000 78f0 00fc fdf8 f800 000f 0420 0001 0018 4001 0c01
    ffff 0160 0000 0300 9000 0003 0000 0300 7895 9809 2100 0100 2a42 0101 0160 0000 0300 9000 0003
    0000 0300 78a0 03c0 8010 e596 5669 24ca f016 8080 0000 0300 8000 000c 84";
const HEVC_854: &str =
    "0101 6000 0000 9000 0000 0000 5af0 00fc fdf8 f800 000f 0420 0001 0018 4001 0c01
    ffff 0160 0000 0300 9000 0003 0000 0300 5a95 9809 2100 0100 2a42 0101 0160 0000 0300 9000 0003
    0000 0300 5aa0 06b2 01e1 d796 5669 24ca f016 8080 0000 0300 8000 000c 84";
const AV1_854: &str = "8124 0000 0a0d 2000 0024 c6ab df36 be48 0868 01";

#[test]
fn picture_sizes_are_read_from_real_configurations() {
    use VideoCodec::{Av1, Avc, Hevc};
    #[rustfmt::skip]
    let rows = [
        (Avc, AVC_1080, 1920, 1080, 100, 40),
        (Avc, AVC_854, 854, 480, 100, 30),
        (Avc, AVC_INTERLACED_422, 64, 64, 122, 21),
        (Hevc, HEVC_1080, 1920, 1080, 1, 120),
        (Hevc, HEVC_854, 854, 480, 1, 90),
        (Av1, AV1_854, 854, 480, 1, 4),
    ];
    for (codec, bytes, width, height, profile, level) in rows {
        let config = video_config(codec, &hex(bytes));
        assert_eq!(config, Some(VideoConfig { width, height, profile, level }), "{bytes}");
    }
}

#[test]
fn profile_and_level_survive_a_parameter_set_that_does_not_parse() {
    let no_sps = video_config(VideoCodec::Avc, &hex("01 64 00 28 FF E0"));
    assert_eq!(no_sps, Some(VideoConfig { profile: 100, level: 40, ..VideoConfig::default() }));
    let cut = hex("01 64 00 28 FF E1 00 02 67 64");
    assert_eq!(video_config(VideoCodec::Avc, &cut).map(|config| config.width), Some(0));
    let vp9 = Some(VideoConfig { profile: 2, level: 31, ..VideoConfig::default() });
    assert_eq!(video_config(VideoCodec::Vp9, &hex("02 1F 80")), vp9);
    assert_eq!(video_config(VideoCodec::Vp9, &hex("01 00 00 00 02 1F 80")), vp9);
    assert_eq!(video_config(VideoCodec::Vp6, &[1, 2, 3]), None);
}

#[test]
fn audio_configurations_are_read() {
    use AudioCodec::{Aac, Flac, Mp3, Opus};
    #[rustfmt::skip]
    let rows = [
        (Aac, "1190 56E5 00", Some((48_000, 2, 2))),
        (Aac, "1210", Some((44_100, 2, 2))),
        // Explicit SBR at 24 kHz that decodes at 48 kHz.
        (Aac, "2B11 8800", Some((48_000, 2, 5))),
        // Sample rate written out: 12,345 Hz.
        (Aac, "1780 181C 8800", Some((12_345, 1, 2))),
        (Aac, "12", None),
        (Aac, "1690", None),
        (Opus, "4F70 7573 4865 6164 01 02 3801 80BB 0000 0000 00", Some((48_000, 2, 0))),
        (Opus, "4F70 7573 4865", None),
        (Flac, "664C 6143 8000 0022 1000 1000 0000 0000 0000 0BB8 02F0", Some((48_000, 2, 0))),
        (Mp3, "FFFB", None),
    ];
    for (codec, bytes, wanted) in rows {
        let config = audio_config(codec, &hex(bytes));
        let got = config.map(|config| (config.rate_hz, config.channels, config.profile));
        assert_eq!(got, wanted, "{bytes}");
    }
}

#[test]
fn no_prefix_and_no_flipped_bit_of_a_configuration_panics() {
    for (codec, bytes) in [
        (VideoCodec::Avc, AVC_1080),
        (VideoCodec::Avc, AVC_INTERLACED_422),
        (VideoCodec::Hevc, HEVC_1080),
        (VideoCodec::Av1, AV1_854),
    ] {
        let mut bytes = hex(bytes);
        for cut in 0..bytes.len() {
            video_config(codec, &bytes[..cut]);
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            video_config(codec, &bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
