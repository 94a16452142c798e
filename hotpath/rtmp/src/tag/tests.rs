//! Tags as encoders send them, byte by byte.

use std::vec::Vec;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// What a row expects of a video tag, in the order keyframe, sequence header, end of sequence,
/// metadata, command, enhanced.
fn flags(info: &VideoInfo) -> [bool; 6] {
    [
        info.keyframe,
        info.sequence_header,
        info.end_of_sequence,
        info.metadata,
        info.command,
        info.enhanced,
    ]
}

const KEY: [bool; 6] = [true, false, false, false, false, false];
const HEADER: [bool; 6] = [false, true, false, false, false, false];
const END: [bool; 6] = [false, false, true, false, false, false];
const COMMAND: [bool; 6] = [false, false, false, false, true, false];
const NONE: [bool; 6] = [false; 6];

fn ex(mut flags: [bool; 6]) -> [bool; 6] {
    flags[5] = true;
    flags
}

#[test]
fn video_tags_are_classed() {
    use VideoCodec::{Av1, Avc, H263, Hevc, Unknown, Vp6, Vp9};
    let metadata = [false, false, false, true, false, true];
    #[rustfmt::skip]
    let rows = [
        // Body, codec, flags, composition time, payload offset.
        ("17 00 00 00 00 01 64", Avc, HEADER, 0, 5),
        ("17 01 00 00 50 00 00 00 01 65", Avc, KEY, 80, 5),
        ("27 01 FF FF D8 00 00 00 01 41", Avc, NONE, -40, 5),
        ("17 02 00 00 00", Avc, END, 0, 5),
        ("1C 00 00 00 00 01", Hevc, HEADER, 0, 5),
        ("1C 01 00 00 00 00", Hevc, KEY, 0, 5),
        ("2C 01 00 00 21 00", Hevc, NONE, 33, 5),
        ("57 00", Avc, COMMAND, 0, 1),
        ("12 00", H263, KEY, 0, 1),
        ("24 00", Vp6, NONE, 0, 1),
        ("1F 00", Unknown(15), KEY, 0, 1),
        // Enhanced, v1.
        ("90 68 76 63 31 01", Hevc, ex(HEADER), 0, 5),
        ("91 68 76 63 31 00 00 28 26", Hevc, ex(KEY), 40, 8),
        ("A1 68 76 63 31 FF FF FF 02", Hevc, ex(NONE), -1, 8),
        ("93 68 76 63 31 26", Hevc, ex(KEY), 0, 5),
        ("91 61 76 30 31 12", Av1, ex(KEY), 0, 5),
        ("92 76 70 30 39", Vp9, ex(END), 0, 5),
        ("94 68 76 63 31 02", Hevc, metadata, 0, 5),
        ("D4 68 76 63 31 02", Hevc, metadata, 0, 5),
        ("95 61 76 30 31 0A", Av1, ex(HEADER), 0, 5),
        ("D0 00", Unknown(0), ex(COMMAND), 0, 2),
        // A codec of the future is believed by the look of its FourCC.
        ("91 78 76 63 39 00", Unknown(0x7876_6339), ex(KEY), 0, 5),
        // Several tracks: one, many, many codecs; the real packet type is inside.
        ("96 01 61 76 63 31 02 00 00 10 65", Avc, ex(KEY), 16, 10),
        ("96 00 61 76 63 31 02 01", Avc, ex(HEADER), 0, 7),
        ("96 13 61 76 30 31 00 00 00 02 12 00 01 00 00 01 13", Av1, ex(KEY), 0, 10),
        ("96 21 61 76 63 31 00 00 00 04 00 00 05 65 76 70 30 39 01 00 00 01 82", Avc, ex(KEY), 5, 13),
        ("A6 13 61 76 30 31 00 00 00 01 12", Av1, ex(NONE), 0, 10),
    ];
    for (bytes, codec, wanted, composition_time, payload_offset) in rows {
        let info = video(&hex(bytes));
        assert_eq!(info.codec, codec, "{bytes}");
        assert_eq!(flags(&info), wanted, "{bytes}");
        assert_eq!(info.composition_time, composition_time, "{bytes}");
        assert_eq!(info.payload_offset, payload_offset, "{bytes}");
        assert!(!info.truncated, "{bytes}");
    }
}

#[test]
fn an_enhanced_bit_without_a_fourcc_is_not_believed() {
    // A camera sets the top bit of the frame type of plain H.264; the picture itself decides.
    let inter = video(&hex("97 01 00 00 00 00 00 00 02 41 9A"));
    assert_eq!((inter.codec, inter.enhanced, inter.keyframe), (VideoCodec::Avc, false, false));
    let key = video(&hex("97 01 00 00 00 00 00 00 02 09 F0 00 00 00 02 65 88"));
    assert_eq!((key.codec, key.keyframe, key.payload_offset), (VideoCodec::Avc, true, 5));
    let config = video(&hex("F7 00 00 00 00 01 64 00 1F FF"));
    assert!(config.sequence_header && !config.enhanced);
    let hevc = video(&hex("9C 01 00 00 00 00 00 00 02 26 01"));
    assert_eq!((hevc.codec, hevc.keyframe), (VideoCodec::Hevc, true));
}

#[test]
fn mod_ex_elements_are_walked_whatever_their_size() {
    // Three bytes of nanoseconds, then coded frames.
    let info = video(&hex("97 02 03 0D 40 03 68 76 63 31 26"));
    assert_eq!((info.nano_offset, info.payload_offset), (200_000, 10));
    assert!(info.keyframe);
    // Two elements, an unknown one first.
    let info = video(&hex("97 00 FF 17 02 00 00 07 01 61 76 63 31 00 00 01 65"));
    assert_eq!((info.nano_offset, info.composition_time, info.keyframe), (7, 1, true));
    // 256 bytes and more need the long size.
    let mut body = hex("97 FF 01 2B");
    body.resize(body.len() + 300, 0xAA);
    body.extend(hex("F3 61 76 30 31 12"));
    let info = video(&body);
    assert_eq!((info.codec, info.keyframe, info.payload_offset), (VideoCodec::Av1, true, 309));
    // Endless ModEx is nonsense, not a loop.
    let mut body = hex("97");
    for _ in 0..100 {
        body.extend(hex("00 00 07"));
    }
    assert!(!video(&body).enhanced);
    // Around several tracks, and for audio.
    let info = video(&hex("97 00 00 06 03 61 76 30 31 09 12"));
    assert_eq!((info.multitrack, info.keyframe), (Multitrack::One, true));
    let info = audio(&hex("97 02 00 00 09 01 4F 70 75 73 FC"));
    assert_eq!((info.codec, info.nano_offset, info.payload_offset), (AudioCodec::Opus, 9, 10));
}

#[test]
fn audio_tags_are_classed() {
    use AudioCodec::{Aac, Ac3, Eac3, Flac, G711A, Mp3, Opus, Speex, Unknown};
    #[rustfmt::skip]
    let rows = [
        // Body, codec, sequence header, end of sequence, payload offset, rate, channels.
        ("AF 00 12 10", Aac, true, false, 2, 44_100, 2),
        ("AF 01 21", Aac, false, false, 2, 44_100, 2),
        ("2E FF FB", Mp3, false, false, 1, 44_100, 1),
        ("E2 FF", Mp3, false, false, 1, 8_000, 1),
        ("72 D5", G711A, false, false, 1, 8_000, 1),
        ("B2 00", Speex, false, false, 1, 16_000, 1),
        ("F0 01", Unknown(15), false, false, 1, 5_512, 1),
        ("90 4F 70 75 73 4F", Opus, true, false, 5, 0, 0),
        ("91 4F 70 75 73 FC", Opus, false, false, 5, 0, 0),
        ("92 66 4C 61 43", Flac, false, true, 5, 0, 0),
        ("94 61 63 2D 33 00", Ac3, false, false, 5, 0, 0),
        ("91 65 63 2D 33 0B", Eac3, false, false, 5, 0, 0),
        ("91 2E 6D 70 33 FF", Mp3, false, false, 5, 0, 0),
        ("95 10 6D 70 34 61 00 00 00 01 12", Aac, true, false, 10, 0, 0),
        // Format 9 without a FourCC is a format of the past.
        ("90 00 01 02 03 04", Unknown(9), false, false, 1, 5_512, 1),
    ];
    for (bytes, codec, sequence_header, end, payload_offset, rate_hz, channels) in rows {
        let info = audio(&hex(bytes));
        assert_eq!(info.codec, codec, "{bytes}");
        assert_eq!(info.sequence_header, sequence_header, "{bytes}");
        assert_eq!(info.end_of_sequence, end, "{bytes}");
        assert_eq!(info.payload_offset, payload_offset, "{bytes}");
        assert_eq!((info.rate_hz, info.channels), (rate_hz, channels), "{bytes}");
        assert!(!info.truncated, "{bytes}");
    }
}

#[test]
fn tracks_are_walked_and_a_cut_off_one_ends_the_walk() {
    let many = hex("96 21 61 76 63 31 00 00 00 04 00 00 05 65 76 70 30 39 07 00 00 01 82");
    let tracks: Vec<_> = video_tracks(&many).collect();
    assert_eq!(tracks.len(), 2);
    assert_eq!(tracks[0], Track { id: 0, codec: VideoCodec::Avc, payload: &[0x65] });
    assert_eq!(tracks[1], Track { id: 7, codec: VideoCodec::Vp9, payload: &[0x82] });
    for cut in 0..many.len() {
        let whole = video_tracks(&many[..cut]).collect::<Vec<_>>();
        assert!(whole.len() < 2 || cut == many.len(), "cut at {cut}");
    }
    let one: Vec<_> = video_tracks(&hex("17 01 00 00 00 AA BB")).map(|t| t.payload.len()).collect();
    assert_eq!(one, [2]);
    let audio_body = hex("95 10 4F 70 75 73 00 00 00 02 01 02 01 00 00 01 03");
    let ids: Vec<_> = audio_tracks(&audio_body).map(|t| (t.id, t.payload.len())).collect();
    assert_eq!(ids, [(0, 2), (1, 1)]);
    assert_eq!(video_tracks(&[]).count(), 0);
    assert_eq!(audio_tracks(&[]).count(), 0);
}

#[test]
fn a_body_cut_inside_its_header_says_so() {
    for bytes in
        ["17 01 00 00 50", "91 68 76 63 31 00 00 28", "97 02 03 0D 40 03 68 76 63 31", "D0 00"]
    {
        let body = hex(bytes);
        for cut in 0..body.len() {
            assert!(video(&body[..cut]).truncated, "{bytes} cut at {cut}");
        }
        assert!(!video(&body).truncated, "{bytes}");
    }
    for bytes in ["AF 00", "91 4F 70 75 73", "95 10 4F 70 75 73 00 00 00 02"] {
        let body = hex(bytes);
        for cut in 0..body.len() {
            assert!(audio(&body[..cut]).truncated, "{bytes} cut at {cut}");
        }
        assert!(!audio(&body).truncated, "{bytes}");
    }
}
