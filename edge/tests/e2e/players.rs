//! The players, each with the command line people use, writing what it took to a file.

use std::path::PathBuf;
use std::time::Duration;

use crate::child::{Program, Running, Scratch, ffmpeg_new};
use crate::media::{Packets, Tail};

/// A player ends within this time of the stream's end.
pub(crate) const PLAYER_END_MAX: Duration = Duration::from_secs(30);

/// Takes parameter sets and delimiters out of H.264.
pub(crate) const BARE_H264: &str = "filter_units=remove_types=7-9";
/// Takes them out of HEVC, and the message that x265 keeps with them.
pub(crate) const BARE_HEVC: &str = "filter_units=remove_types=32-35|39";

/// A running player.
pub(crate) struct Player {
    pub(crate) running: Running,
    /// What it writes.
    pub(crate) file: PathBuf,
    /// What it may lack at the end, by its own doing.
    pub(crate) tail: Tail,
}

impl Player {
    /// Waits for its end and reads what it wrote.
    pub(crate) fn finish(mut self, scratch: &Scratch) -> Packets {
        self.running.expect_end(PLAYER_END_MAX);
        Packets::read(&self.file, scratch)
    }

    /// The same for codecs only the newer ffmpeg reads.
    pub(crate) fn finish_new(mut self, scratch: &Scratch) -> Packets {
        self.running.expect_end(PLAYER_END_MAX);
        Packets::read_with(&ffmpeg_new(), &self.file, scratch)
    }
}

/// `ffmpeg -i URL -c copy`.
pub(crate) fn ffmpeg(scratch: &Scratch, label: &str, url: &str) -> Player {
    ffmpeg_with("ffmpeg", scratch, label, &["-i", url])
}

/// The newer ffmpeg, which announces the Enhanced RTMP codecs it can take.
pub(crate) fn ffmpeg_enhanced(scratch: &Scratch, label: &str, url: &str) -> Player {
    let codecs = "hvc1,av01,vp09,Opus";
    ffmpeg_with(&ffmpeg_new(), scratch, label, &["-rtmp_enhanced_codecs", codecs, "-i", url])
}

/// ffmpeg for the first seconds of a stream that is not going to end by itself.
pub(crate) fn ffmpeg_for(scratch: &Scratch, label: &str, url: &str, seconds: u32) -> Player {
    ffmpeg_with("ffmpeg", scratch, label, &["-i", url, "-t", &seconds.to_string()])
}

/// One ffmpeg or the other, with its options and where to read from.
pub(crate) fn ffmpeg_with(ffmpeg: &str, scratch: &Scratch, label: &str, args: &[&str]) -> Player {
    let file = scratch.file(&format!("{label}.flv"));
    let running = Program::new(ffmpeg, scratch, label)
        .args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-y"])
        .args(args)
        .args(["-c", "copy", "-f", "flv"])
        .arg(&file)
        .start();
    Player { running, file, tail: Tail::COMPLETE }
}

/// ffmpeg that reads HLS from the beginning of the playlist; its own choice is the third segment from the
/// end.
pub(crate) fn ffmpeg_hls(scratch: &Scratch, label: &str, url: &str) -> Player {
    ffmpeg_with("ffmpeg", scratch, label, &["-live_start_index", "0", "-i", url])
}

/// The same for MPEG-TS, where each picture carries a delimiter and each keyframe the headers of the
/// stream; without them it is the picture that was published.
pub(crate) fn ffmpeg_hls_ts(scratch: &Scratch, label: &str, url: &str) -> Player {
    let args = ["-live_start_index", "0", "-i", url, "-bsf:v", BARE_H264];
    ffmpeg_with("ffmpeg", scratch, label, &args)
}

/// `ffplay` without screen and speaker. Writes no file; it ends by itself at the stream's end.
pub(crate) fn ffplay(scratch: &Scratch, label: &str, url: &str) -> Running {
    Program::new("ffplay", scratch, label)
        .args(["-hide_banner", "-loglevel", "verbose", "-autoexit", url])
        .env("SDL_VIDEODRIVER", "dummy")
        .env("SDL_AUDIODRIVER", "dummy")
        .start()
}

/// `rtmpdump --live`, which writes the FLV it hears without understanding codecs.
pub(crate) fn rtmpdump(scratch: &Scratch, label: &str, url: &str) -> Player {
    rtmpdump_with(scratch, label, url, &[])
}

/// The same held to TLS 1.2: its library takes a session ticket of TLS 1.3 for the end of the connection,
/// whoever sends it.
pub(crate) fn rtmpdump_tls_1_2(scratch: &Scratch, label: &str, url: &str) -> Player {
    // One for each: what another one reads just now must not be emptied and written anew.
    let settings = scratch.file(&format!("{label}-gnutls"));
    std::fs::write(&settings, "[overrides]\ndisabled-version = tls1.3\n").expect("it is ours");
    let settings = settings.display().to_string();
    rtmpdump_with(scratch, label, url, &[("GNUTLS_SYSTEM_PRIORITY_FILE", &settings)])
}

fn rtmpdump_with(scratch: &Scratch, label: &str, url: &str, env: &[(&str, &str)]) -> Player {
    let file = scratch.file(&format!("{label}.flv"));
    let mut program =
        Program::new("rtmpdump", scratch, label).args(["--live", "-r", url, "-o"]).arg(&file);
    for (name, value) in env {
        program = program.env(name, value);
    }
    Player { running: program.start(), file, tail: Tail::COMPLETE }
}

/// GStreamer: `rtmp2src ! filesink` (the element's output is FLV).
pub(crate) fn gstreamer(scratch: &Scratch, label: &str, url: &str) -> Player {
    let file = scratch.file(&format!("{label}.flv"));
    // The authority of a test is not one of this system.
    let running = Program::new("gst-launch-1.0", scratch, label)
        .args(["-e", "rtmp2src", "tls-validation-flags=0", &format!("location={url}")])
        .args(["!", "filesink"])
        .arg(format!("location={}", file.display()))
        .start();
    // rtmp2src gives up what it holds when the server says that the stream ended.
    Player { running, file, tail: Tail { missing_max: 3 } }
}

/// GStreamer over HTTP: `source` leads to a demuxer called `in`, whose pictures are written.
pub(crate) fn gstreamer_http(scratch: &Scratch, label: &str, url: &str, demux: &str) -> Player {
    let (file, sound) =
        (scratch.file(&format!("{label}.h264")), scratch.file(&format!("{label}.aac")));
    let pipeline = format!(
        "{demux} name=in \
         in. ! queue ! h264parse ! video/x-h264,stream-format=byte-stream ! filesink location={} \
         in. ! queue ! aacparse ! audio/mpeg,stream-format=adts ! filesink location={}",
        file.display(),
        sound.display()
    );
    let running = Program::new("gst-launch-1.0", scratch, label)
        .args(["-e", "souphttpsrc", &format!("location={url}"), "!"])
        .args(pipeline.split_whitespace())
        .start();
    Player { running, file, tail: Tail::COMPLETE }
}

/// VLC, writing the bytes its access module delivers to the demuxer.
pub(crate) fn vlc_dump(scratch: &Scratch, label: &str, url: &str) -> Player {
    let file = scratch.file(&format!("{label}.flv"));
    let running = vlc(scratch, label, url)
        .arg("--demux=dump")
        .arg(format!("--demuxdump-file={}", file.display()))
        .arg("vlc://quit")
        .start();
    Player { running, file, tail: Tail::COMPLETE }
}

/// VLC through its own demuxer and packetizers into a transport stream, as when it shows a picture.
pub(crate) fn vlc_remux(scratch: &Scratch, label: &str, url: &str) -> Player {
    let file = scratch.file(&format!("{label}.ts"));
    let running = vlc(scratch, label, url)
        .arg(format!("--sout=#std{{access=file,mux=ts,dst={}}}", file.display()))
        .arg("vlc://quit")
        .start();
    // It throws away what it still buffers (a second, and more on a busy machine) when the input ends.
    Player { running, file, tail: Tail { missing_max: 75 } }
}

fn vlc(scratch: &Scratch, label: &str, url: &str) -> Program {
    Program::new("vlc", scratch, label)
        .args(["-I", "dummy", "--no-color", "--play-and-exit", "-v", url])
        .env("HOME", scratch.file(""))
        .never_as_root()
}
