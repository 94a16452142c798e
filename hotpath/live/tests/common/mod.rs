//! A publisher, its ring and subscribers on one thread, and a decoder of what they were sent.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use live::publisher::{Keep, Progress, PublishError, Publisher, PublisherConfig};
use live::subscriber::{Join, Selection, Subscriber, SubscriberConfig};
use ring::{Arena, RingConfig, StreamRing, Tap};
use rtmp::Millis;
use rtmp::chunk::ChunkReader;
use rtmp::session::{MediaKind, MediaPart};

/// One message as a subscriber's decoder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: u8,
    pub msid: u32,
    pub timestamp: u32,
    pub body: Vec<u8>,
}

pub struct Rig {
    pub arena: Arena,
    pub publisher: Publisher,
    pub ring: StreamRing,
    pub now: Millis,
    pub keep: Keep,
}

impl Rig {
    pub fn new(config: PublisherConfig) -> Self {
        Self::with_ring(config, RingConfig::default())
    }

    pub fn with_ring(config: PublisherConfig, ring_config: RingConfig) -> Self {
        let mut arena = Arena::new(&ring_config, 8);
        let (writer, ring) = ring::stream_ring(ring_config);
        let mut publisher = Publisher::new(config, writer);
        publisher.begin_session(&mut arena, Millis(0));
        Self { arena, publisher, ring, now: Millis(0), keep: Keep::All }
    }

    /// A whole message in one part; the clock follows the timestamp.
    pub fn publish(&mut self, kind: MediaKind, timestamp: u32, body: &[u8]) -> Progress {
        self.now = Millis(u64::from(timestamp).max(self.now.0));
        self.part(kind, 6, timestamp, body, 0..body.len()).expect("room aside")
    }

    /// One part of a message.
    pub fn part(
        &mut self,
        kind: MediaKind,
        csid: u32,
        timestamp: u32,
        body: &[u8],
        range: std::ops::Range<usize>,
    ) -> Result<Progress, PublishError> {
        let part = MediaPart {
            msid: 1,
            audio_or_video: kind,
            timestamp,
            length: u32::try_from(body.len()).unwrap(),
            csid,
            offset: u32::try_from(range.start).unwrap(),
            body: &body[range.clone()],
            first: range.start == 0,
            last: range.end == body.len(),
        };
        let progress = self.publisher.handle_media(&mut self.arena, &part, self.now);
        self.publisher.look(self.now);
        self.publisher.trim(&mut self.arena, self.keep);
        progress
    }

    pub fn headers(&mut self, timestamp: u32) {
        self.publish(MediaKind::Video, timestamp, &avc_header(1));
        self.publish(MediaKind::Audio, timestamp, &aac_header());
    }

    /// GOPs of 25 video messages 40 ms apart that all come in one moment, as when a publisher's path was
    /// blocked.
    pub fn burst(&mut self, start: u32, gops: u32, bytes: usize) {
        for frame in 0..gops * 25 {
            let body = video(frame % 25 == 0, bytes);
            let timestamp = start + frame * 40;
            self.part(MediaKind::Video, 6, timestamp, &body, 0..body.len()).expect("room aside");
        }
    }

    /// One GOP of `frames` video messages 40 ms apart, each followed by audio.
    pub fn gop(&mut self, start: u32, frames: u32, bytes: usize) {
        for frame in 0..frames {
            let timestamp = start.wrapping_add(frame * 40);
            self.publish(MediaKind::Video, timestamp, &video(frame == 0, bytes));
            self.publish(MediaKind::Audio, timestamp, &audio(40));
        }
    }
}

/// A subscriber with what it was sent so far.
pub struct Viewer {
    pub tap: Tap,
    pub subscriber: Subscriber,
    pub config: SubscriberConfig,
    pub bytes: Vec<u8>,
    pub join: Option<Join>,
}

impl Viewer {
    pub fn new(rig: &Rig, config: SubscriberConfig) -> Self {
        let selection = Selection::all(rtmp::chunk::MEDIA_MSID);
        Self::selecting(rig, config, selection)
    }

    pub fn selecting(rig: &Rig, config: SubscriberConfig, selection: Selection) -> Self {
        Self {
            tap: rig.ring.tap(),
            subscriber: Subscriber::new(selection, rig.now),
            config,
            bytes: Vec::new(),
            join: None,
        }
    }

    /// Tries to join; true if it has a place now.
    pub fn try_join(&mut self, now: Millis, has_video: bool) -> bool {
        let head = self.tap.refresh();
        let join = self.subscriber.poll_join(&self.config, &self.tap, &head, has_video, now);
        let joined = join.is_some();
        self.join = join.or(self.join.take());
        joined
    }

    /// Takes everything up to the head, at most `step` bytes per send.
    pub fn drain(&mut self, now: Millis, step: usize) {
        let head = self.tap.refresh();
        self.subscriber.set_target(head.head, now);
        while let Some(lease) = self.subscriber.next_lease(&self.tap) {
            let taken = lease.len().min(step);
            self.bytes.extend_from_slice(&lease[..taken]);
            self.subscriber.on_sent(&self.tap, &lease, taken, now);
        }
    }

    /// Takes exactly `count` bytes, then the socket is full.
    pub fn take(&mut self, now: Millis, count: usize) {
        let head = self.tap.refresh();
        self.subscriber.set_target(head.head, now);
        let mut left = count;
        while left > 0 {
            let Some(lease) = self.subscriber.next_lease(&self.tap) else { break };
            let taken = lease.len().min(left);
            self.bytes.extend_from_slice(&lease[..taken]);
            self.subscriber.on_sent(&self.tap, &lease, taken, now);
            left -= taken;
        }
    }

    /// The messages it was sent, whole ones only.
    pub fn seen(&self) -> Vec<Seen> {
        decode(&self.bytes, 65_536)
    }
}

/// Decodes a wire image that starts on a message boundary.
pub fn decode(bytes: &[u8], chunk_bytes: u32) -> Vec<Seen> {
    let mut reader = ChunkReader::new(rtmp::ReaderLimits::default());
    reader.set_chunk_size(chunk_bytes).expect("a chunk size");
    let mut input = bytes;
    let mut seen = Vec::new();
    let mut open: Option<Seen> = None;
    while let Some(part) = reader.next(&mut input).expect("a valid wire image") {
        if part.first {
            assert!(open.is_none(), "messages are not interleaved in the wire image");
            open = Some(Seen {
                kind: part.header.kind,
                msid: part.header.msid,
                timestamp: part.header.timestamp,
                body: Vec::new(),
            });
        }
        open.as_mut().expect("a first part came").body.extend_from_slice(part.body);
        if part.last {
            seen.extend(open.take());
        }
    }
    seen
}

pub fn avc_header(variant: u8) -> Vec<u8> {
    vec![
        0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1F, 0xFF, 0xE1, 0, 4, 0x67, 0x64, 0, variant, 1, 0, 2,
        0x68, 0xEE,
    ]
}

pub fn aac_header() -> Vec<u8> {
    vec![0xAF, 0, 0x12, 0x10]
}

pub fn video(keyframe: bool, bytes: usize) -> Vec<u8> {
    let mut body = vec![if keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    body.extend((0..bytes).map(|i| u8::try_from(i % 251).unwrap()));
    body
}

pub fn audio(bytes: usize) -> Vec<u8> {
    let mut body = vec![0xAF, 1];
    body.extend((0..bytes).map(|i| u8::try_from(i % 241).unwrap()));
    body
}

pub fn is_keyframe(seen: &Seen) -> bool {
    seen.kind == 9 && seen.body.starts_with(&[0x17, 1])
}
