//! A stream cut for HLS: segmenter, container, window, playlists with parts. What the packager adds is
//! one copy of each part of the open segment, and a snapshot.

use mux::playlist::window::{Window, WindowSettings};
use mux::playlist::{MediaPlaylist, Names};
use mux::segment::{Container, Event, Output, Segmenter, Settings};
use rtmp::message::kind;
use rtmp::session::MediaKind;

use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;
use crate::media::{Message, Stream};

/// Bytes of a video tag in front of the first NAL unit, and of that unit's length.
const TAG_BYTES: usize = 5;
const NAL_LENGTH_BYTES: usize = 4;
/// Media bytes are copied into the open part, and from there behind its table.
const COPIES: u64 = 2;

struct Packaging {
    stream: Stream,
    settings: Settings,
    segmenter: Segmenter,
    window: Window,
    output: Output,
    playlist: String,
    base_ms: u32,
    gops: u32,
}

/// Two seconds of a stream into fragmented MP4 with parts of 200 ms.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_fmp4(size: Size) -> Result<Box<dyn Work>, Skipped> {
    Ok(Box::new(Packaging::new(Container::Fmp4, size)))
}

/// The same into MPEG-TS, whose playlists have no parts.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_ts(size: Size) -> Result<Box<dyn Work>, Skipped> {
    Ok(Box::new(Packaging::new(Container::Ts, size)))
}

impl Packaging {
    fn new(container: Container, size: Size) -> Self {
        let mut stream = Stream::new(1);
        for message in stream.messages.iter_mut().filter(|m| m.kind == MediaKind::Video) {
            // One NAL unit each.
            let nal = message.body.len() - TAG_BYTES - NAL_LENGTH_BYTES;
            let length = u32::try_from(nal).expect("pictures are small").to_be_bytes();
            message.body[TAG_BYTES..TAG_BYTES + NAL_LENGTH_BYTES].copy_from_slice(&length);
            // A picture, whatever the dice say.
            let is_keyframe = message.body[0] == 0x17;
            message.body[TAG_BYTES + NAL_LENGTH_BYTES] = if is_keyframe { 0x65 } else { 0x41 };
        }
        let settings = Settings::new(container);
        let mut packaging = Self {
            settings,
            segmenter: Segmenter::new(settings),
            window: Window::new(WindowSettings::default()),
            output: Output::default(),
            playlist: String::new(),
            base_ms: 0,
            gops: size.pick(1, 10),
            stream,
        };
        for header in packaging.stream.headers.clone() {
            packaging.push(&header);
        }
        packaging
    }

    fn push(&mut self, message: &Message) {
        let kind = match message.kind {
            MediaKind::Audio => kind::AUDIO,
            MediaKind::Video => kind::VIDEO,
        };
        let timestamp = self.base_ms.wrapping_add(message.timestamp);
        let unix_ms = u64::from(timestamp);
        self.segmenter.push(kind, timestamp, &message.body, unix_ms, &mut self.output);
    }

    /// What follows a part: the playlists that list it.
    fn write_playlists(&mut self, digest: &mut Digest) {
        let has_parts = self.settings.container == Container::Fmp4;
        let mut playlist = MediaPlaylist {
            target_ms: self.settings.segment_ms,
            part_target_ms: has_parts.then(|| self.settings.part_target_ms()),
            ended: false,
            skip: false,
            names: Names { container: self.settings.container, prefix: "cam/0123/", query: "" },
        };
        for skip in [false, true].into_iter().take(if has_parts { 2 } else { 1 }) {
            playlist.skip = skip;
            self.playlist.clear();
            playlist.write(&self.window, &mut self.playlist);
            digest.mix_ends(self.playlist.as_bytes());
        }
    }
}

impl Work for Packaging {
    fn run(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let mut digest = Digest::default();
        let messages = std::mem::take(&mut self.stream.messages);
        for _ in 0..self.gops {
            for message in &messages {
                outcome.units += 1;
                outcome.bytes += message.body.len() as u64;
                self.push(message);
                let mut events = std::mem::take(&mut self.output.events);
                for event in events.drain(..) {
                    self.window.apply(&event);
                    if let Event::Part { bytes, .. } = event {
                        let part = &self.output.bytes[bytes];
                        outcome.copied_bytes += COPIES * part.len() as u64;
                        digest.mix_ends(part);
                        self.write_playlists(&mut digest);
                    }
                }
                self.output.events = events;
                self.output.bytes.clear();
            }
            self.base_ms = self.base_ms.wrapping_add(self.stream.duration_ms);
        }
        self.stream.messages = messages;
        outcome.digest = digest.value();
        outcome
    }
}
