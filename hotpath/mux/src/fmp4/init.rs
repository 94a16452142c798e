//! The init segment: what a decoder must know before the first fragment.
//!
//! Configuration records go in as the publisher sent them. Spec: ISO 14496-12 §8, 14496-14 §5.6,
//! 14496-15 §5.4 and §8.4; AV1-ISOBMFF §2; VP9, Opus and FLAC bindings.

use alloc::vec::Vec;

use rtmp::tag::{AudioCodec, VideoCodec};

use super::boxes::Boxes;
use super::{AUDIO_TRACK, VIDEO_TIMESCALE, VIDEO_TRACK};
use crate::media::{AudioTrack, Tracks, VideoTrack};

/// Units a second of the movie header; nothing else depends on it.
const MOVIE_TIMESCALE: u32 = 1000;
/// Rotation and scale: none.
const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];
/// Object types of elementary stream descriptors (ISO 14496-1 §7.2.6.6).
const OBJECT_AAC: u8 = 0x40;
const OBJECT_MP3: u8 = 0x6B;

/// True for the video codecs that have a sample entry here.
pub fn supports_video(track: &VideoTrack) -> bool {
    use VideoCodec::{Av1, Avc, Hevc, Vp9};
    matches!(track.codec, Avc | Hevc | Av1 | Vp9)
}

/// True for the sound codecs that have a sample entry here.
pub fn supports_audio(track: &AudioTrack) -> bool {
    use AudioCodec::{Aac, Flac, Mp3, Opus};
    matches!(track.codec, Aac | Mp3 | Opus | Flac)
}

/// Appends the init segment of `tracks` to `out`. Tracks without a sample entry are left out.
pub fn write_init(tracks: &Tracks, out: &mut Vec<u8>) {
    let video = tracks.video.as_ref().filter(|track| supports_video(track));
    let audio = tracks.audio.as_ref().filter(|track| supports_audio(track));
    let mut boxes = Boxes::new(out);
    boxes.nest(b"ftyp", |boxes| {
        boxes.bytes(b"iso6");
        boxes.u32(0);
        boxes.bytes(b"iso6cmfcmp41");
    });
    boxes.nest(b"moov", |boxes| {
        boxes.full(b"mvhd", 0, 0, |boxes| {
            boxes.zeros(8); // creation and modification time
            boxes.u32(MOVIE_TIMESCALE);
            boxes.u32(0); // duration: live
            boxes.u32(0x0001_0000); // rate
            boxes.u16(0x0100); // volume
            boxes.zeros(10);
            matrix(boxes);
            boxes.zeros(24);
            boxes.u32(AUDIO_TRACK + 1); // next track id
        });
        if let Some(track) = video {
            video_trak(boxes, track);
        }
        if let Some(track) = audio {
            audio_trak(boxes, track);
        }
        boxes.nest(b"mvex", |boxes| {
            for (id, present) in [(VIDEO_TRACK, video.is_some()), (AUDIO_TRACK, audio.is_some())] {
                if present {
                    boxes.full(b"trex", 0, 0, |boxes| {
                        boxes.u32(id);
                        boxes.u32(1); // the only sample description
                        boxes.zeros(12);
                    });
                }
            }
        });
    });
}

fn matrix(boxes: &mut Boxes<'_>) {
    for value in MATRIX {
        boxes.u32(value);
    }
}

fn tkhd(boxes: &mut Boxes<'_>, id: u32, volume: u16, (width, height): (u32, u32)) {
    // Flags: enabled, in movie.
    boxes.full(b"tkhd", 0, 3, |boxes| {
        boxes.zeros(8);
        boxes.u32(id);
        boxes.zeros(4 + 4 + 8 + 2 + 2); // reserved, duration, reserved, layer, group
        boxes.u16(volume);
        boxes.u16(0);
        matrix(boxes);
        boxes.u32(width << 16);
        boxes.u32(height << 16);
    });
}

fn media_header(boxes: &mut Boxes<'_>, timescale: u32, handler: &[u8; 4], name: &[u8]) {
    boxes.full(b"mdhd", 0, 0, |boxes| {
        boxes.zeros(8);
        boxes.u32(timescale);
        boxes.u32(0);
        boxes.u16(0x55C4); // language: undetermined
        boxes.u16(0);
    });
    boxes.full(b"hdlr", 0, 0, |boxes| {
        boxes.u32(0);
        boxes.bytes(handler);
        boxes.zeros(12);
        boxes.bytes(name);
        boxes.u8(0);
    });
}

/// Where the data is (here), and the tables, all empty but for the sample entry.
fn tables(boxes: &mut Boxes<'_>, entry: impl FnOnce(&mut Boxes<'_>)) {
    boxes.nest(b"dinf", |boxes| {
        boxes.full(b"dref", 0, 0, |boxes| {
            boxes.u32(1);
            boxes.full(b"url ", 0, 1, |_| {});
        });
    });
    boxes.nest(b"stbl", |boxes| {
        boxes.full(b"stsd", 0, 0, |boxes| {
            boxes.u32(1);
            entry(boxes);
        });
        boxes.full(b"stts", 0, 0, |boxes| boxes.u32(0));
        boxes.full(b"stsc", 0, 0, |boxes| boxes.u32(0));
        boxes.full(b"stsz", 0, 0, |boxes| boxes.zeros(8));
        boxes.full(b"stco", 0, 0, |boxes| boxes.u32(0));
    });
}

fn video_trak(boxes: &mut Boxes<'_>, track: &VideoTrack) {
    // Sizes of real pictures fit; a record that says otherwise is nonsense.
    let side = |pixels: u32| u16::try_from(pixels).unwrap_or(0);
    let (width, height) = (side(track.facts.width), side(track.facts.height));
    boxes.nest(b"trak", |boxes| {
        tkhd(boxes, VIDEO_TRACK, 0, (width.into(), height.into()));
        boxes.nest(b"mdia", |boxes| {
            media_header(boxes, VIDEO_TIMESCALE, b"vide", b"video");
            boxes.nest(b"minf", |boxes| {
                boxes.full(b"vmhd", 0, 1, |boxes| boxes.zeros(8));
                tables(boxes, |boxes| video_entry(boxes, track, width, height));
            });
        });
    });
}

fn video_entry(boxes: &mut Boxes<'_>, track: &VideoTrack, width: u16, height: u16) {
    let (entry, record) = match track.codec {
        VideoCodec::Avc => (b"avc1", b"avcC"),
        VideoCodec::Hevc => (b"hvc1", b"hvcC"),
        VideoCodec::Av1 => (b"av01", b"av1C"),
        _ => (b"vp09", b"vpcC"),
    };
    boxes.nest(entry, |boxes| {
        boxes.zeros(6);
        boxes.u16(1); // data reference
        boxes.zeros(16);
        boxes.u16(width);
        boxes.u16(height);
        boxes.u32(0x0048_0000); // 72 dpi, both ways
        boxes.u32(0x0048_0000);
        boxes.u32(0);
        boxes.u16(1); // frames a sample
        boxes.zeros(32); // compressor name
        boxes.u16(24); // depth
        boxes.u16(0xFFFF);
        if track.codec == VideoCodec::Vp9 {
            boxes.full(record, 1, 0, |boxes| boxes.bytes(&track.config));
        } else {
            boxes.nest(record, |boxes| boxes.bytes(&track.config));
        }
    });
}

fn audio_trak(boxes: &mut Boxes<'_>, track: &AudioTrack) {
    boxes.nest(b"trak", |boxes| {
        tkhd(boxes, AUDIO_TRACK, 0x0100, (0, 0));
        boxes.nest(b"mdia", |boxes| {
            media_header(boxes, track.rate_hz, b"soun", b"audio");
            boxes.nest(b"minf", |boxes| {
                boxes.full(b"smhd", 0, 0, |boxes| boxes.u32(0));
                tables(boxes, |boxes| audio_entry(boxes, track));
            });
        });
    });
}

fn audio_entry(boxes: &mut Boxes<'_>, track: &AudioTrack) {
    let entry = match track.codec {
        AudioCodec::Opus => b"Opus",
        AudioCodec::Flac => b"fLaC",
        _ => b"mp4a",
    };
    boxes.nest(entry, |boxes| {
        boxes.zeros(6);
        boxes.u16(1); // data reference
        boxes.zeros(8);
        boxes.u16(track.channels.into());
        boxes.u16(16); // bits a sample
        boxes.u32(0);
        // Rates beyond 16 bits do not fit here; the record has them.
        boxes.u32(u16::try_from(track.rate_hz).map_or(0, u32::from) << 16);
        match track.codec {
            AudioCodec::Opus => boxes.nest(b"dOps", |boxes| opus_record(boxes, &track.config)),
            AudioCodec::Flac => boxes.full(b"dfLa", 0, 0, |boxes| {
                // Last block, STREAMINFO.
                boxes.u8(0x80);
                boxes.bytes(track.config.get(1..).unwrap_or_default());
            }),
            AudioCodec::Mp3 => esds(boxes, OBJECT_MP3, &[]),
            _ => esds(boxes, OBJECT_AAC, &track.config),
        }
    });
}

/// OpusHead without its magic, little-endian numbers turned round.
fn opus_record(boxes: &mut Boxes<'_>, head: &[u8]) {
    let Some(&[_, channels, skip0, skip1, r0, r1, r2, r3, gain0, gain1]) =
        head.get(8..18).and_then(|bytes| bytes.first_chunk::<10>())
    else {
        return;
    };
    boxes.u8(0);
    boxes.bytes(&[channels, skip1, skip0, r3, r2, r1, r0, gain1, gain0]);
    // Mapping family, and its table if it has one.
    boxes.bytes(head.get(18..).unwrap_or_default());
}

fn esds(boxes: &mut Boxes<'_>, object: u8, config: &[u8]) {
    boxes.full(b"esds", 0, 0, |boxes| {
        let specific = if config.is_empty() { 0 } else { 5 + config.len() };
        let decoder = 13 + specific;
        descriptor(boxes, 3, 3 + 5 + decoder + 5 + 1);
        boxes.u16(0); // stream id: as the track
        boxes.u8(0);
        descriptor(boxes, 4, decoder);
        boxes.u8(object);
        boxes.u8(0x15); // audio stream
        boxes.zeros(3 + 4 + 4); // buffer size and bit rates: not known
        if !config.is_empty() {
            descriptor(boxes, 5, config.len());
            boxes.bytes(config);
        }
        descriptor(boxes, 6, 1);
        boxes.u8(2);
    });
}

/// Tag and length in the form of four bytes.
fn descriptor(boxes: &mut Boxes<'_>, tag: u8, length: usize) {
    let seven = |shift: u32| u8::try_from(length >> shift & 0x7F).unwrap_or(0);
    boxes.bytes(&[tag, 0x80 | seven(21), 0x80 | seven(14), 0x80 | seven(7), seven(0)]);
}
