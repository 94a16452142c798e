//! The encoders, each with the command line people use, publishing a clip in real time.

use crate::child::{Program, Running, Scratch, ffmpeg_new};
use crate::media::Clip;

/// `ffmpeg -re -i CLIP -c copy -f flv URL`.
pub(crate) fn ffmpeg(scratch: &Scratch, clip: &Clip, url: &str) -> Running {
    publish_with("ffmpeg", scratch, "publish-ffmpeg", clip, &[], url)
}

/// ffmpeg again, logging under another name, for the second publisher of a test.
pub(crate) fn ffmpeg_again(scratch: &Scratch, clip: &Clip, url: &str) -> Running {
    publish_with("ffmpeg", scratch, "publish-ffmpeg-again", clip, &[], url)
}

/// The newer ffmpeg, sending Enhanced RTMP.
pub(crate) fn ffmpeg_enhanced(scratch: &Scratch, clip: &Clip, url: &str) -> Running {
    let enhanced = ["-rtmp_enhanced_codecs", "hvc1,av01,vp09,Opus"];
    publish_with(&ffmpeg_new(), scratch, "publish-ffmpeg-new", clip, &enhanced, url)
}

/// ffmpeg with options between the clip and the address.
pub(crate) fn ffmpeg_with(scratch: &Scratch, clip: &Clip, options: &[&str], url: &str) -> Running {
    publish_with("ffmpeg", scratch, "publish-ffmpeg", clip, options, url)
}

/// A clip again and again, as a live stream.
pub(crate) fn ffmpeg_looping(
    scratch: &Scratch,
    label: &str,
    clip: &Clip,
    options: &[&str],
    url: &str,
) -> Running {
    looping("ffmpeg", scratch, label, clip, options, url)
}

/// The same by the newer ffmpeg, sending Enhanced RTMP.
pub(crate) fn ffmpeg_looping_enhanced(
    scratch: &Scratch,
    label: &str,
    clip: &Clip,
    url: &str,
) -> Running {
    let enhanced = ["-rtmp_enhanced_codecs", "hvc1,av01,vp09,Opus"];
    looping(&ffmpeg_new(), scratch, label, clip, &enhanced, url)
}

fn looping(
    ffmpeg: &str,
    scratch: &Scratch,
    label: &str,
    clip: &Clip,
    options: &[&str],
    url: &str,
) -> Running {
    Program::new(ffmpeg, scratch, label)
        .args([
            "-nostdin",
            "-hide_banner",
            "-loglevel",
            "warning",
            "-re",
            "-stream_loop",
            "-1",
            "-i",
        ])
        .arg(&clip.path)
        .args(["-c", "copy", "-f", "flv"])
        .args(options)
        .arg(url)
        .start()
}

fn publish_with(
    ffmpeg: &str,
    scratch: &Scratch,
    label: &str,
    clip: &Clip,
    options: &[&str],
    url: &str,
) -> Running {
    Program::new(ffmpeg, scratch, label)
        .args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-re", "-i"])
        .arg(&clip.path)
        .args(["-c", "copy"])
        .args(options)
        .args(["-f", "flv", url])
        .start()
}

/// GStreamer: a file through `flvmux` into `rtmp2sink`, paced by its clock.
pub(crate) fn gstreamer(scratch: &Scratch, clip: &Clip, url: &str) -> Running {
    let pipeline = format!(
        "filesrc location={} ! flvdemux name=in flvmux name=out streamable=true \
         ! rtmp2sink tls-validation-flags=0 location={url} \
         in.video ! queue ! h264parse ! identity sync=true ! out.video \
         in.audio ! queue ! aacparse ! out.audio",
        clip.path.display()
    );
    Program::new("gst-launch-1.0", scratch, "publish-gstreamer")
        .arg("-e")
        .args(pipeline.split_whitespace())
        .start()
}
