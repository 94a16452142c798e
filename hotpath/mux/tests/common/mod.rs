//! Clips made by FFmpeg, read as FLV, pushed through the segmenter.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use mux::segment::{Container, Event, Output, Segmenter, Settings};

/// A directory of its own, removed at the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mux-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind if it cannot be removed; nothing depends on it.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs FFmpeg; its standard output, or `None` with a printed reason.
pub(crate) fn ffmpeg(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y"]).args(arguments);
    match command.output() {
        Err(error) => {
            println!("skipped: ffmpeg does not run: {error}");
            None
        }
        Ok(output) if !output.status.success() => {
            let reason = String::from_utf8_lossy(&output.stderr);
            println!("skipped: ffmpeg {arguments:?}: {reason}");
            None
        }
        Ok(output) => Some(String::from_utf8(output.stdout).unwrap()),
    }
}

/// Presentation time since the first frame, as FFmpeg counts it, and checksum of each decoded frame.
pub(crate) fn frame_md5(file: &Path, stream: &str) -> Vec<(i64, String)> {
    let text = ffmpeg(&["-i", file.to_str().unwrap(), "-map", stream, "-f", "framemd5", "-"]);
    let text = text.unwrap_or_else(|| panic!("{} cannot be read", file.display()));
    let mut first = None;
    let frames = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let time: i64 = fields[2].parse().unwrap();
        (time - *first.get_or_insert(time), fields[5].to_owned())
    });
    frames.collect()
}

/// A message of an FLV file.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) timestamp: u32,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn read_flv(bytes: &[u8]) -> Vec<Message> {
    let mut rest = &bytes[13..];
    let mut messages = Vec::new();
    while rest.len() > 15 {
        let length = u32::from_be_bytes([0, rest[1], rest[2], rest[3]]) as usize;
        let timestamp = u32::from_be_bytes([rest[7], rest[4], rest[5], rest[6]]);
        messages.push(Message { kind: rest[0], timestamp, body: rest[11..11 + length].to_vec() });
        rest = &rest[11 + length + 4..];
    }
    messages
}

/// Everything the segmenter makes of `messages`, shifted by `shift_ms`.
pub(crate) fn segments(
    messages: &[Message],
    container: Container,
    shift_ms: u32,
) -> (Vec<Event>, Vec<u8>) {
    let mut segmenter = Segmenter::new(Settings::new(container));
    let mut out = Output::default();
    for message in messages {
        let timestamp = message.timestamp.wrapping_add(shift_ms);
        segmenter.push(
            message.kind,
            timestamp,
            &message.body,
            u64::from(message.timestamp),
            &mut out,
        );
    }
    segmenter.finish(&mut out);
    assert_eq!(segmenter.counters().dropped, 0);
    (out.events, out.bytes)
}
