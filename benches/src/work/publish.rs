//! A message into the ring: the ring alone, and with everything the publisher's side does.

use ring::{Arena, MessageFlags, MessageKind, MessageMeta, Position, RingConfig, Tap, Writer};
use rtmp::session::MediaKind;

use super::rig::Rig;
use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;
use crate::media::{GOP_FRAMES, Stream};

/// Wire image kept before the head.
const RETAINED_BYTES: u64 = 2 * 1024 * 1024;
/// A full message header with a one-byte basic header.
const HEADER_BYTES: u8 = 12;

/// Reserve, commit, trim; nothing is written into the reservation.
struct RingOnly {
    lengths: Vec<(MessageMeta, usize)>,
    writer: Writer,
    arena: Arena,
    tap: Tap,
}

/// The ring without its payload: what a message costs beside the copy.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_ring(size: Size) -> Result<Box<dyn Work>, Skipped> {
    let config = RingConfig::default();
    let (writer, ring) = ring::stream_ring(config);
    let lengths = Stream::new(size.pick(1, 5)).messages.iter().map(meta_of).collect();
    let arena = Arena::new(&config, 32);
    let mut work = RingOnly { lengths, writer, arena, tap: ring.tap() };
    while work.writer.tail().0 < 2 * RETAINED_BYTES {
        work.run();
    }
    Ok(Box::new(work))
}

fn meta_of(message: &crate::media::Message) -> (MessageMeta, usize) {
    let is_keyframe = message.body.starts_with(&[0x17, 1]);
    let meta = MessageMeta {
        timestamp: message.timestamp,
        kind: match message.kind {
            MediaKind::Audio => MessageKind::Audio,
            MediaKind::Video => MessageKind::Video,
        },
        flags: if is_keyframe { MessageFlags::KEYFRAME } else { MessageFlags::NONE },
        header_bytes: HEADER_BYTES,
        body_bytes: u32::try_from(message.body.len()).expect("messages are small"),
    };
    (meta, usize::from(HEADER_BYTES) + message.body.len())
}

impl Work for RingOnly {
    fn run(&mut self) -> Outcome {
        let mut digest = Digest::default();
        let before = self.writer.head();
        for &(meta, bytes) in &self.lengths {
            self.writer.reserve(&mut self.arena, bytes).expect("within the budget");
            let start = self.writer.commit(meta);
            if meta.flags.contains(MessageFlags::KEYFRAME) {
                self.writer.set_join(Some(start));
            }
            if meta.kind == MessageKind::Video {
                self.writer.mark_video_end();
                let keep = Position(start.0.saturating_sub(RETAINED_BYTES));
                self.writer.trim(&mut self.arena, keep);
            }
            let view = self.tap.refresh();
            digest.mix(view.head.0 - before.0);
        }
        Outcome {
            units: self.lengths.len() as u64,
            bytes: self.writer.head().0 - before.0,
            copied_bytes: 0,
            digest: digest.value(),
        }
    }
}

/// Parts into the ring: tag, timeline, framing, meters, the one copy, trim.
struct Publish {
    rig: Rig,
    frames: u32,
}

/// The publisher's side as the worker calls it.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_publisher(size: Size) -> Result<Box<dyn Work>, Skipped> {
    Ok(Box::new(Publish { rig: Rig::new(), frames: size.pick(GOP_FRAMES, 10 * GOP_FRAMES) }))
}

impl Work for Publish {
    fn run(&mut self) -> Outcome {
        let mut digest = Digest::default();
        let copied_before = self.rig.copied_bytes();
        let head_before = self.rig.publisher.writer().head().0;
        let mut units = 0;
        for _ in 0..self.frames {
            units += self.rig.publish_frame();
            digest.mix(self.rig.tap.refresh().head.0 - head_before);
        }
        Outcome {
            units,
            bytes: self.rig.publisher.writer().head().0 - head_before,
            copied_bytes: self.rig.copied_bytes() - copied_before,
            digest: digest.value(),
        }
    }
}
