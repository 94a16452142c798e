//! Clips made at test time, and packet lists compared between source and what players wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::child::{Program, Scratch, ffmpeg_new};

/// Frames between keyframes in every clip.
pub(crate) const GOP_FRAMES: usize = 30;
/// Sound whose time was rounded to milliseconds, counted in samples and rounded again may be off by this.
const SAMPLE_ROUNDING_MS: i64 = 2;
/// Encoding or hashing a clip of a few seconds takes far less.
const WORK_MAX: Duration = Duration::from_secs(60);

/// A generated FLV file and its packets.
pub(crate) struct Clip {
    /// Where it is. Stays for the next run, which replaces it by the same.
    pub(crate) path: PathBuf,
    /// Its packets.
    pub(crate) packets: Packets,
}

/// H.264 with B frames and AAC, 6 s, 30 fps, a keyframe each second: the everyday stream.
pub(crate) fn h264_aac() -> &'static Clip {
    static CLIP: OnceLock<Clip> = OnceLock::new();
    let video = "-c:v libx264 -preset veryfast -g 30 -keyint_min 30 -sc_threshold 0 -bf 2";
    CLIP.get_or_init(|| Clip::make("h264-aac", "ffmpeg", "320x180", 6, video, "-c:a aac -b:a 64k"))
}

/// H.264 at a bit rate whose keyframes exceed an outgoing chunk (64 KiB).
pub(crate) fn h264_large() -> &'static Clip {
    static CLIP: OnceLock<Clip> = OnceLock::new();
    let video = "-vf noise=alls=60:allf=t -c:v libx264 -preset ultrafast -tune zerolatency \
                 -g 30 -keyint_min 30 -sc_threshold 0 -crf 20";
    CLIP.get_or_init(|| Clip::make("h264-large", "ffmpeg", "640x360", 3, video, "-c:a aac"))
}

/// H.264 of another size, for a stream that changes.
pub(crate) fn h264_other_size() -> &'static Clip {
    static CLIP: OnceLock<Clip> = OnceLock::new();
    let video = "-c:v libx264 -preset ultrafast -g 30 -keyint_min 30 -sc_threshold 0";
    let audio = "-c:a aac -b:a 64k";
    CLIP.get_or_init(|| Clip::make("h264-other-size", "ffmpeg", "640x360", 6, video, audio))
}

/// HEVC and AAC in Enhanced RTMP form.
pub(crate) fn hevc_aac() -> &'static Clip {
    static CLIP: OnceLock<Clip> = OnceLock::new();
    let video = "-c:v libx265 -preset ultrafast -x265-params \
                 log-level=error:keyint=30:min-keyint=30:scenecut=0:open-gop=0:bframes=2:pools=1";
    let ffmpeg = ffmpeg_new();
    CLIP.get_or_init(|| Clip::make("hevc-aac", &ffmpeg, "320x180", 4, video, "-c:a aac -b:a 64k"))
}

/// AV1 and Opus, which exist only in Enhanced RTMP.
pub(crate) fn av1_opus() -> &'static Clip {
    static CLIP: OnceLock<Clip> = OnceLock::new();
    let video = "-c:v libsvtav1 -preset 10 -g 30 -svtav1-params lp=1";
    let audio = "-c:a libopus -b:a 64k";
    let ffmpeg = ffmpeg_new();
    CLIP.get_or_init(|| Clip::make("av1-opus", &ffmpeg, "320x180", 4, video, audio))
}

/// AV1 and Opus of another size, for a stream that changes its codecs.
pub(crate) fn av1_opus_other_size() -> &'static Clip {
    static CLIP: OnceLock<Clip> = OnceLock::new();
    let video = "-c:v libsvtav1 -preset 10 -g 30 -svtav1-params lp=1";
    let audio = "-c:a libopus -b:a 64k";
    let (name, ffmpeg) = ("av1-opus-other-size", ffmpeg_new());
    CLIP.get_or_init(|| Clip::make(name, &ffmpeg, "640x360", 4, video, audio))
}

impl Clip {
    fn make(name: &str, ffmpeg: &str, size: &str, seconds: u32, video: &str, audio: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e-clips");
        fs::create_dir_all(&dir).expect("the clip directory can be made");
        let path = dir.join(format!("{name}.flv"));
        // Renamed when complete: another run of these tests may be reading the one of last time.
        let part = dir.join(format!("{name}-{}.flv", std::process::id()));
        let scratch = Scratch::new();
        let picture = format!("testsrc=size={size}:rate=30");
        Program::new(ffmpeg, &scratch, &format!("make-{name}"))
            .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"])
            .args(["-f", "lavfi", "-i", &picture])
            .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"])
            .args(["-t", &seconds.to_string(), "-pix_fmt", "yuv420p"])
            .args(video.split_whitespace().chain(audio.split_whitespace()))
            .arg(&part)
            .start()
            .expect_success(WORK_MAX);
        fs::rename(&part, &path).expect("both are in one directory");
        let packets = Packets::read_with(ffmpeg, &path, &scratch);
        let frames = usize::try_from(seconds).expect("a few seconds") * 30;
        assert_eq!(packets.video.len(), frames, "{name} is encoded completely");
        Self { path, packets }
    }
}

/// One packet, as the muxer of a player would see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    /// Decode time in ms.
    pub(crate) dts_ms: i64,
    /// Presentation time in ms.
    pub(crate) pts_ms: i64,
    /// Payload bytes.
    pub(crate) bytes: u64,
    /// MD5 of the payload.
    pub(crate) hash: String,
}

/// The packets of one file, each track in decode order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packets {
    /// Video packets.
    pub(crate) video: Vec<Packet>,
    /// Audio packets.
    pub(crate) audio: Vec<Packet>,
}

impl Packets {
    /// Packets of a file, read by Debian's ffmpeg.
    pub(crate) fn read(path: &Path, scratch: &Scratch) -> Self {
        Self::read_with("ffmpeg", path, scratch)
    }

    /// Packets of a file whose codecs need a certain ffmpeg.
    pub(crate) fn read_with(ffmpeg: &str, path: &Path, scratch: &Scratch) -> Self {
        let label = format!("read-{}", path.file_name().expect("a file").display());
        let text = Program::new(ffmpeg, scratch, &label)
            .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-copyts", "-i"])
            .arg(path)
            // Also what precedes the first keyframe.
            .args(["-copyinkf", "-map", "0:v?", "-map", "0:a?", "-c", "copy"])
            .args(["-f", "framemd5", "-"])
            .output(WORK_MAX);
        Self::parse(&text)
    }

    /// Parses `framemd5` output: `stream, dts, pts, duration, size, hash`, then side data if any.
    fn parse(text: &str) -> Self {
        let mut packets = Self::default();
        let mut video_stream = None;
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("#media_type ") {
                if let Some(stream) = declared.strip_suffix(": video") {
                    video_stream = Some(stream.to_owned());
                }
            } else if let Some(base) = line.strip_prefix("#tb ") {
                assert!(base.ends_with(": 1/1000"), "FLV counts milliseconds: {line}");
            } else if !line.starts_with('#') {
                let fields: Vec<_> = line.split(',').map(str::trim).collect();
                let [stream, dts, pts, _duration, bytes, hash, ..] = fields[..] else {
                    panic!("at least six fields: {line}")
                };
                let packet = Packet {
                    dts_ms: dts.parse().expect("dts"),
                    pts_ms: pts.parse().expect("pts"),
                    bytes: bytes.parse().expect("size"),
                    hash: hash.into(),
                };
                let is_video = video_stream.as_deref() == Some(stream);
                if is_video { &mut packets.video } else { &mut packets.audio }.push(packet);
            }
        }
        packets
    }

    /// The video hashes alone.
    pub(crate) fn video_hashes(&self) -> Vec<&str> {
        self.video.iter().map(|packet| packet.hash.as_str()).collect()
    }

    /// The audio hashes alone.
    pub(crate) fn audio_hashes(&self) -> Vec<&str> {
        self.audio.iter().map(|packet| packet.hash.as_str()).collect()
    }
}

/// What a player may lack at the end of a stream.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Tail {
    /// Packets of each track that may be missing.
    pub(crate) missing_max: usize,
}

impl Tail {
    /// Nothing may be missing.
    pub(crate) const COMPLETE: Self = Self { missing_max: 0 };
}

/// Checks that a player attached before the publisher got every packet, in order, with the same
/// relative times. Only audio that precedes the first keyframe may be missing: a stream with video
/// begins at a keyframe for everybody.
pub(crate) fn assert_all_frames(source: &Packets, received: &Packets, tail: Tail) {
    assert_run(source, received, 0, tail);
    assert_first_audio(source, received);
}

/// Only audio that precedes the first keyframe may be missing.
fn assert_first_audio(source: &Packets, received: &Packets) {
    let start_ms = source.video[0].dts_ms;
    for packet in &source.audio[..first_audio(source, received)] {
        assert!(packet.dts_ms <= start_ms, "audio of {} ms is missing", packet.dts_ms);
    }
}

/// Checks that a player that came in mid-stream got a contiguous run that begins with a keyframe and
/// lasts to the end. Answers the index of that keyframe's frame in the source.
pub(crate) fn assert_run_from_keyframe(source: &Packets, received: &Packets, tail: Tail) -> usize {
    let first = received.video.first().expect("some video was received");
    let keyframes = (0..source.video.len()).step_by(GOP_FRAMES);
    let start = keyframes
        .into_iter()
        .find(|&index| source.video[index].hash == first.hash)
        .expect("the first video packet is a keyframe of the source");
    assert_run(source, received, start, tail);
    start
}

/// The same where the container counts sound in samples: each time is first put back to the one of the source
/// it was rounded from, if it is that near.
pub(crate) fn assert_all_frames_by_samples(source: &Packets, received: &Packets, tail: Tail) {
    assert_all_frames(source, &with_source_times(source, received), tail);
}

/// The same for a player that came in mid-stream.
pub(crate) fn assert_run_from_keyframe_by_samples(
    source: &Packets,
    received: &Packets,
    tail: Tail,
) -> usize {
    assert_run_from_keyframe(source, &with_source_times(source, received), tail)
}

fn with_source_times(source: &Packets, received: &Packets) -> Packets {
    let first = received.video.first().expect("some video was received");
    let begun = source.video.iter().find(|packet| packet.hash == first.hash);
    let begun = begun.expect("the first video packet is one of the source");
    let offset_ms = begun.dts_ms - first.dts_ms;
    let audio = received.audio.iter().map(|packet| {
        let off_ms = |time: &&i64| (*time - offset_ms - packet.dts_ms).abs();
        let times = source.audio.iter().map(|packet| &packet.dts_ms);
        let nearest = times.min_by_key(off_ms).filter(|time| off_ms(time) <= SAMPLE_ROUNDING_MS);
        let time_ms = nearest.map_or(packet.dts_ms, |time| time - offset_ms);
        Packet { dts_ms: time_ms, pts_ms: time_ms, ..packet.clone() }
    });
    Packets { video: received.video.clone(), audio: audio.collect() }
}

fn assert_run(source: &Packets, received: &Packets, video_start: usize, tail: Tail) {
    assert!(!received.video.is_empty(), "some video was received");
    let offset_ms = source.video[video_start].dts_ms - received.video[0].dts_ms;
    assert_track("video", &source.video[video_start..], &received.video, offset_ms, tail);
    if !received.audio.is_empty() || video_start == 0 {
        let audio_start = first_audio(source, received);
        assert_track("audio", &source.audio[audio_start..], &received.audio, offset_ms, tail);
    }
}

/// Index in the source of the first audio packet received. A tone repeats its packets, so the place
/// is found by time, not by content.
fn first_audio(source: &Packets, received: &Packets) -> usize {
    let offset_ms = source
        .video
        .iter()
        .find(|packet| packet.hash == received.video[0].hash)
        .map_or(0, |packet| packet.dts_ms - received.video[0].dts_ms);
    let first = received.audio.first().expect("some audio was received");
    source
        .audio
        .iter()
        .position(|packet| packet.dts_ms == first.dts_ms + offset_ms)
        .expect("the first audio packet has a time of the source")
}

fn assert_track(name: &str, expected: &[Packet], received: &[Packet], offset_ms: i64, tail: Tail) {
    for (index, (want, have)) in expected.iter().zip(received).enumerate() {
        let have = Packet {
            dts_ms: have.dts_ms + offset_ms,
            pts_ms: have.pts_ms + offset_ms,
            ..have.clone()
        };
        assert_eq!(*want, have, "{name} packet {index} of the run");
    }
    assert!(
        received.len() <= expected.len(),
        "{name}: {} packets too many",
        received.len().saturating_sub(expected.len())
    );
    let missing = expected.len() - received.len();
    assert!(missing <= tail.missing_max, "{name}: the last {missing} packets are missing");
}

/// Checks a live source whose packets are not known: no gap and no step back in either track.
pub(crate) fn assert_steady(packets: &Packets, step_ms_max: i64) {
    for (name, track) in [("video", &packets.video), ("audio", &packets.audio)] {
        for (index, pair) in track.windows(2).enumerate() {
            let step_ms = pair[1].dts_ms - pair[0].dts_ms;
            let steady = (0..=step_ms_max).contains(&step_ms);
            assert!(steady, "{name} packet {index} is followed after {step_ms} ms");
        }
    }
}
