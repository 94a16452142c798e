//! Real clips through the muxers and back through FFmpeg: every decoded frame is the source's.

mod common;

use common::{Message, Scratch, ffmpeg, frame_md5, read_flv, segments};
use mux::flv::{Framing, file_header};
use mux::playlist::window::{Window, WindowSettings};
use mux::playlist::{MediaPlaylist, Names, validate};
use mux::segment::{Container, Event, Settings};
use rtmp::MessageHeader;

const PICTURES: &str = "testsrc=size=160x120:rate=25:duration=5";
const SOUND: &str = "sine=frequency=440:sample_rate=48000:duration=5";
/// B-frames, keyframes every second.
const H264: [&str; 8] = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25"];
const AAC: [&str; 2] = ["-c:a", "aac"];

/// A clip in FLV; `None` if FFmpeg cannot make it.
fn clip(scratch: &Scratch, codecs: &[&str], audio: bool, video: bool) -> Option<Vec<Message>> {
    let path = scratch.file("source.flv");
    let mut arguments = Vec::new();
    for (wanted, source) in [(video, PICTURES), (audio, SOUND)] {
        if wanted {
            arguments.extend(["-f", "lavfi", "-i", source]);
        }
    }
    arguments.extend(codecs);
    arguments.extend(["-f", "flv", path.to_str().unwrap()]);
    ffmpeg(&arguments)?;
    Some(read_flv(&std::fs::read(&path).unwrap()))
}

/// The joined stream, as one file.
fn joined(
    scratch: &Scratch,
    messages: &[Message],
    container: Container,
    shift_ms: u32,
) -> std::path::PathBuf {
    let (_, bytes) = segments(messages, container, shift_ms);
    let path = scratch.file(if container == Container::Ts { "joined.ts" } else { "joined.mp4" });
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Every picture and, as far as both decoders keep the priming, every frame of sound.
fn same_frames(scratch: &Scratch, path: &std::path::Path, streams: &[&str]) {
    for stream in streams {
        let source = frame_md5(&scratch.file("source.flv"), stream);
        let result = frame_md5(path, stream);
        assert!(!source.is_empty());
        if *stream == "0:v" {
            assert_eq!(result, source, "{} {stream}", path.display());
        } else {
            // FFmpeg cuts the decoded sound differently at the first and last frame.
            let sums = |frames: &[(i64, String)]| -> Vec<String> {
                frames.iter().map(|(_, sum)| sum.clone()).collect()
            };
            let (source, result) = (sums(&source), sums(&result));
            let tail = &source[2..source.len() - 2];
            let found = result.windows(tail.len()).any(|window| window == tail);
            assert!(found, "{} {stream}: {} of {}", path.display(), result.len(), source.len());
        }
    }
}

#[test]
fn h264_with_b_frames_and_aac_come_back_frame_by_frame() {
    let scratch = Scratch::new("h264");
    let codecs = [&H264[..], &AAC].concat();
    let Some(messages) = clip(&scratch, &codecs, true, true) else { return };
    // The 24-bit edge, the 32-bit edge, the 33-bit edge of MPEG-TS.
    for shift_ms in [0, 0x00FF_FFFF - 2500, u32::MAX - 2500, 95_443_717 - 1000 - 2500] {
        for container in [Container::Ts, Container::Fmp4] {
            let path = joined(&scratch, &messages, container, shift_ms);
            same_frames(&scratch, &path, &["0:v", "0:a"]);
        }
    }
}

#[test]
fn sound_alone_and_pictures_alone_come_back() {
    let scratch = Scratch::new("alone");
    if let Some(messages) = clip(&scratch, &H264, false, true) {
        for container in [Container::Ts, Container::Fmp4] {
            same_frames(&scratch, &joined(&scratch, &messages, container, 0), &["0:v"]);
        }
    }
    if let Some(messages) = clip(&scratch, &["-c:a", "libmp3lame", "-ar", "44100"], true, false) {
        for container in [Container::Ts, Container::Fmp4] {
            // Half a second is waited for pictures.
            let (events, bytes) = after_the_wait(&messages, container);
            assert!(events.iter().any(|event| matches!(event, Event::End { .. })));
            let path = scratch.file("alone");
            std::fs::write(&path, bytes).unwrap();
            let (source, result) =
                (frame_md5(&scratch.file("source.flv"), "0:a"), frame_md5(&path, "0:a"));
            assert!(result.len() * 10 > source.len() * 8, "{} of {}", result.len(), source.len());
        }
    }
}

fn after_the_wait(messages: &[Message], container: Container) -> (Vec<Event>, Vec<u8>) {
    let mut segmenter = mux::segment::Segmenter::new(Settings::new(container));
    let mut out = mux::segment::Output::default();
    for message in messages {
        segmenter.push(message.kind, message.timestamp, &message.body, 0, &mut out);
    }
    segmenter.finish(&mut out);
    (out.events, out.bytes)
}

/// What an MP4 file of one track holds: the configuration record, and its samples.
struct Mp4 {
    record: Vec<u8>,
    samples: Vec<Mp4Sample>,
}

struct Mp4Sample {
    dts_ms: i64,
    composition_ms: i64,
    key: bool,
    bytes: Vec<u8>,
}

/// Makes `source.mp4` and takes it apart.
fn mp4(scratch: &Scratch, input: &str, codec: &[&str], record: &[u8; 4]) -> Option<Mp4> {
    let path = scratch.file("source.mp4");
    let path = path.to_str().unwrap();
    ffmpeg(&[&["-f", "lavfi", "-i", input], codec, &[path]].concat())?;
    let bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(4).position(|four| four == record).unwrap();
    let size = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
    let entries = "packet=pts_time,dts_time,size,pos,flags";
    let packets = std::process::Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", entries, "-of", "csv=p=0", path])
        .output()
        .ok()?;
    let text = String::from_utf8(packets.stdout).unwrap();
    let sample = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        // Six digits behind the point.
        let us = |at: usize| fields[at].replace('.', "").parse::<i64>().unwrap();
        let ms = |at: usize| (us(at) + 500).div_euclid(1000);
        let number = |at: usize| fields[at].parse::<usize>().unwrap();
        Mp4Sample {
            dts_ms: ms(1),
            composition_ms: ms(0) - ms(1),
            key: fields[4].starts_with('K'),
            bytes: bytes[number(3)..number(3) + number(2)].to_vec(),
        }
    };
    Some(Mp4 {
        record: bytes[at + 4..at - 4 + size].to_vec(),
        // Lines of side data are shorter.
        samples: text.lines().filter(|line| line.matches(',').count() >= 4).map(sample).collect(),
    })
}

/// Messages with `header` in front of each sample.
fn messages_of(
    mp4: &Mp4,
    kind: u8,
    configuration: Vec<u8>,
    header: impl Fn(&Mp4Sample) -> Vec<u8>,
) -> Vec<Message> {
    let mut messages = vec![Message { kind, timestamp: 1000, body: configuration }];
    for sample in &mp4.samples {
        let timestamp = u32::try_from(sample.dts_ms + 1000).unwrap();
        messages.push(Message {
            kind,
            timestamp,
            body: [header(sample), sample.bytes.clone()].concat(),
        });
    }
    messages
}

const X265: [&str; 8] = [
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-x265-params",
    "log-level=error:keyint=25:bframes=2",
    "-tag:v",
    "hvc1",
];

#[test]
fn hevc_comes_back_frame_by_frame() {
    let scratch = Scratch::new("hevc");
    let Some(mp4) = mp4(&scratch, PICTURES, &X265, b"hvcC") else { return };
    // Codec id 12 and Enhanced RTMP.
    for enhanced in [false, true] {
        let head = |key: bool, packet: u8| match (enhanced, key) {
            (false, true) => vec![0x1C, packet],
            (false, false) => vec![0x2C, packet],
            (true, key) => [&[if key { 0x90 } else { 0xA0 } | packet], &b"hvc1"[..]].concat(),
        };
        let no_time: &[u8] = if enhanced { &[] } else { &[0, 0, 0] };
        let configuration = [&head(true, 0), no_time, &mp4.record].concat();
        let messages = messages_of(&mp4, 9, configuration, |sample| {
            let time = i32::try_from(sample.composition_ms).unwrap().to_be_bytes();
            [&head(sample.key, 1), &time[1..]].concat()
        });
        let source = frame_md5(&scratch.file("source.mp4"), "0:v");
        assert_eq!(source.len(), 125);
        for container in [Container::Ts, Container::Fmp4] {
            let path = joined(&scratch, &messages, container, 0);
            assert_eq!(frame_md5(&path, "0:v"), source, "{container:?}");
        }
    }
}

#[test]
fn av1_and_vp9_come_back_frame_by_frame() {
    let scratch = Scratch::new("av1");
    let small = "testsrc=size=64x64:rate=25:duration=2";
    let av1 = ["-c:v", "libaom-av1", "-cpu-used", "8", "-g", "25", "-lag-in-frames", "0"];
    let vp9 = [
        "-c:v",
        "libvpx-vp9",
        "-deadline",
        "realtime",
        "-cpu-used",
        "8",
        "-g",
        "25",
        "-lag-in-frames",
        "0",
    ];
    for (codec, record, fourcc) in [(&av1[..], b"av1C", b"av01"), (&vp9[..], b"vpcC", b"vp09")] {
        let Some(mp4) = mp4(&scratch, small, codec, record) else { continue };
        let configuration = [&[0x90], &fourcc[..], &mp4.record].concat();
        let messages = messages_of(&mp4, 9, configuration, |sample| {
            [&[if sample.key { 0x91 } else { 0xA1 }], &fourcc[..]].concat()
        });
        let source = frame_md5(&scratch.file("source.mp4"), "0:v");
        assert_eq!(source.len(), 50);
        let path = joined(&scratch, &messages, Container::Fmp4, 0);
        assert_eq!(frame_md5(&path, "0:v"), source, "{codec:?}");
    }
}

#[test]
fn opus_comes_back_frame_by_frame() {
    let scratch = Scratch::new("opus");
    let Some(mp4) = mp4(&scratch, SOUND, &["-c:a", "libopus"], b"dOps") else { return };
    let r = &mp4.record;
    let head = [r[1], r[3], r[2], r[7], r[6], r[5], r[4], r[9], r[8], r[10]];
    let configuration = [&b"\x90OpusOpusHead\x01"[..], &head].concat();
    let mut messages = messages_of(&mp4, 8, configuration, |_| b"\x91Opus".to_vec());
    // Sound that is waiting for pictures is not in the result: 500 ms of silence for the wait.
    let silence = Message { kind: 8, timestamp: 0, body: b"\x91Opus\xFC\xFF\xFE".to_vec() };
    messages.insert(1, silence);
    let (events, bytes) = after_the_wait(&messages, Container::Fmp4);
    assert!(matches!(&events[0], Event::Init { codecs, .. } if codecs == "opus"));
    let path = scratch.file("opus.mp4");
    std::fs::write(&path, bytes).unwrap();
    let sums = |file: &std::path::Path| -> Vec<String> {
        frame_md5(file, "0:a").into_iter().map(|(_, sum)| sum).collect()
    };
    let (source, result) = (sums(&scratch.file("source.mp4")), sums(&path));
    let tail = &source[2..source.len() - 2];
    assert!(
        result.windows(tail.len()).any(|window| window == tail),
        "{} {}",
        result.len(),
        source.len()
    );
}

#[test]
fn each_segment_and_the_playlist_play() {
    let scratch = Scratch::new("playlist");
    let codecs = [&H264[..], &AAC].concat();
    let Some(messages) = clip(&scratch, &codecs, true, true) else { return };
    for container in [Container::Ts, Container::Fmp4] {
        let (events, bytes) = segments(&messages, container, 0);
        let mut window = Window::new(WindowSettings::default());
        let suffix = if container == Container::Ts { "ts" } else { "m4s" };
        let mut segment = Vec::new();
        for event in &events {
            window.apply(event);
            match event {
                Event::Init { bytes: range, generation, .. } => {
                    let name = format!("init-{generation}.mp4");
                    std::fs::write(scratch.file(&name), &bytes[range.clone()]).unwrap();
                }
                Event::Part { bytes: range, .. } => {
                    segment.extend_from_slice(&bytes[range.clone()])
                }
                Event::End { sequence, .. } => {
                    let name = format!("seg-{sequence}.{suffix}");
                    std::fs::write(scratch.file(&name), std::mem::take(&mut segment)).unwrap();
                }
                Event::Begin { .. } => {}
            }
        }
        let names = Names { container, prefix: "", query: "" };
        let target_ms = Settings::new(container).segment_ms_max;
        let playlist =
            MediaPlaylist { target_ms, part_target_ms: None, ended: true, skip: false, names };
        let mut text = String::new();
        playlist.write(&window, &mut text);
        assert_eq!(validate::media(&text), [], "{text}");
        let path = scratch.file(&format!("{suffix}.m3u8"));
        std::fs::write(&path, &text).unwrap();
        same_frames(&scratch, &path, &["0:v", "0:a"]);
    }
}

#[test]
fn an_flv_file_of_our_tags_is_the_source() {
    let scratch = Scratch::new("flv");
    let codecs = [&H264[..], &AAC].concat();
    let Some(messages) = clip(&scratch, &codecs, true, true) else { return };
    let mut file = file_header(true, true).to_vec();
    for message in &messages {
        let length = u32::try_from(message.body.len()).unwrap();
        let header = MessageHeader {
            csid: 4,
            kind: message.kind,
            msid: 1,
            timestamp: message.timestamp,
            length,
        };
        let framing = Framing::default();
        let start = file.len();
        file.resize(start + framing.framed_bytes(&header), 0);
        framing.begin(&header, &mut file[start..]).push(&mut file[start..], &message.body);
    }
    let path = scratch.file("ours.flv");
    std::fs::write(&path, &file).unwrap();
    same_frames(&scratch, &path, &["0:v", "0:a"]);
}
