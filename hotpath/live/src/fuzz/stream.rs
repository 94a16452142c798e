//! A publisher, its ring and a subscriber against what was sent: parts of interleaved messages, torn ones,
//! sessions, retention, pauses, lags, and hand-overs to another ring in between.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use ring::{Arena, MessageFlags, MessageKind, MessageView, Position, RingConfig, Tap, stream_ring};
use rtmp::Millis;
use rtmp::chunk::{Framing, MEDIA_MSID};
use rtmp::session::{MediaKind, MediaPart};

use crate::image::whole_body;
use crate::preamble;
use crate::publisher::{Keep, Publisher, PublisherConfig};
use crate::subscriber::{LagVerdict, Selection, Subscriber, SubscriberConfig};

const RING: RingConfig = RingConfig {
    segment_bytes: 4_096,
    slots: 32,
    index_entries_per_segment: 64,
    bytes_max: 64 * 1_024,
    preamble_bytes_max: 8_192,
};
/// A header larger than a quarter of this need not be kept.
const PREAMBLE_BYTES: usize = 8_192;
/// Chunk streams of the publisher.
const CSIDS: [u32; 3] = [4, 5, 6];
/// A marker in each body: its number.
const NUMBER_AT: usize = 5;
const BODY_BYTES_MIN: usize = NUMBER_AT + 4;

/// What the publisher is in the middle of, on one chunk stream.
struct Open {
    number: usize,
    sent: usize,
}

/// A message as it was sent.
struct Sent {
    kind: MediaKind,
    csid: u32,
    body: Vec<u8>,
    /// All its parts were sent, in order.
    is_whole: bool,
    /// It was seen in the ring.
    is_committed: bool,
}

struct World {
    config: PublisherConfig,
    framing: Framing,
    arena: Arena,
    publisher: Box<Publisher>,
    tap: Tap,
    now_ms: u64,
    open: [Option<Open>; 3],
    sent: Vec<Sent>,
    /// Number of the message committed last, of each chunk stream.
    last: [Option<usize>; 3],
    /// The wire image from the beginning on, and its messages.
    image: Vec<u8>,
    messages: Vec<MessageView>,
    /// Video sequence header in force, by position from which on: of this session.
    headers: Vec<(Position, Option<Vec<u8>>)>,
    subscriber: Subscriber,
    /// Next byte the subscriber must be sent; `None` where it may begin anywhere.
    expected: Option<Position>,
    keep: Keep,
    /// The ring had no room for a sequence header: it counts that, and tells the one before.
    has_unkept: bool,
    /// A part was sent that did not fit: then not all payload is accounted for.
    has_misfit: bool,
}

/// Operations from `data`: what, how much, of what.
///
/// # Panics
/// When the stream breaks a promise.
pub fn stream(data: &[u8]) {
    let Some((&shape, ops)) = data.split_first() else { return };
    let mut world = World::new(shape);
    for op in ops.chunks_exact(3) {
        let [what, a, b] = [op[0], op[1], op[2]];
        match what % 20 {
            0..=8 => world.part(usize::from(what) % 3, a, b),
            9 => world.begin_anew(usize::from(a) % 3, b),
            10 => world.abort(usize::from(a) % 3),
            11 => world.data(a, b),
            12 => world.trim(match a & 3 {
                0 => Keep::All,
                2 => Keep::Recent,
                _ => Keep::Gop,
            }),
            13 => world.end_session(a & 1 == 0),
            14 => world.now_ms += u64::from(a) * u64::from(b),
            15 | 16 => world.read(usize::from(a) << 8 | usize::from(b)),
            17 => world.pause(a & 1 == 0),
            18 => world.check_lag(),
            _ => world.hand_over(a & 1 == 0),
        }
        world.look();
        // As a worker does where there is news; now and then it comes to nothing for a while.
        if a & 3 != 0 {
            world.trim(world.keep);
            world.look();
        }
    }
    world.end_session(true);
    world.look();
    world.check_payload();
}

impl World {
    fn new(shape: u8) -> Self {
        let config = PublisherConfig {
            chunk_bytes: if shape & 1 == 0 { 128 } else { 4_096 },
            retention_ms: if shape & 2 == 0 { 400 } else { 10_000 },
            retention_bytes: 32 * 1_024,
            retention_messages: 40,
            recent_ms: 100,
            aside_bytes_max: if shape & 4 == 0 { 2_048 } else { 1 << 20 },
            keyframe_wait_ms_max: 500,
            first_timestamp_ms: if shape & 8 == 0 { 0 } else { 0x00FF_FF00 },
        };
        let mut arena = Arena::new(&RING, 4);
        let (writer, ring) = stream_ring(RING);
        let mut publisher = Box::new(Publisher::new(config, writer));
        publisher.begin_session(&mut arena, Millis(0));
        Self {
            config,
            framing: Framing { chunk_bytes: config.chunk_bytes },
            arena,
            publisher,
            tap: ring.tap(),
            now_ms: 0,
            open: [None, None, None],
            sent: Vec::new(),
            last: [None; 3],
            image: Vec::new(),
            messages: Vec::new(),
            headers: vec![(Position(0), None)],
            subscriber: Subscriber::new(Selection::all(MEDIA_MSID), Millis(0)),
            expected: None,
            keep: Keep::All,
            has_unkept: false,
            has_misfit: false,
        }
    }

    fn now(&self) -> Millis {
        Millis(self.now_ms)
    }

    /// The next part of what is being sent on a chunk stream, or the first of another message.
    fn part(&mut self, at: usize, a: u8, b: u8) {
        if self.open[at].is_none() {
            self.begin(at, a, b);
        }
        let Some(Open { number, sent }) = self.open[at].take() else { return };
        let (left, size) = (self.sent[number].body.len() - sent, usize::from(a) * 8 + 1);
        let bytes = if b & 1 == 0 { left } else { size.min(left) };
        // What a reader would never hand on, but what a hand-over of two records may bring.
        let is_misfit = b == 0xFF && sent > 0 && left > 1;
        let last = (sent + bytes == self.sent[number].body.len()) != is_misfit;
        let body = self.sent[number].body.clone();
        let part = MediaPart {
            msid: 1,
            audio_or_video: self.sent[number].kind,
            timestamp: low(self.now_ms),
            length: low(body.len() as u64),
            csid: CSIDS[at],
            offset: low(sent as u64),
            body: &body[sent..sent + bytes],
            first: sent == 0,
            last,
        };
        let now = self.now();
        let result = self.publisher.handle_media(&mut self.arena, &part, now);
        self.has_misfit |= is_misfit;
        if result.is_err() {
            // Its connection is closed for it.
            self.has_misfit = true;
            return self.end_session(false);
        }
        if is_misfit {
            // It has given the message up, or has never had it: the rest is nothing to it.
            self.abort(at);
        } else if last {
            self.sent[number].is_whole = true;
        } else {
            self.open[at] = Some(Open { number, sent: sent + bytes });
        }
    }

    fn begin(&mut self, at: usize, a: u8, b: u8) {
        let (kind, head) = match b / 32 {
            0 => (MediaKind::Video, [0x17, 0, 0, 0, 0]),
            1 => (MediaKind::Audio, [0xAF, 0, 0x12, 0x10, 0]),
            2 | 3 => (MediaKind::Audio, [0xAF, 1, 0, 0, 0]),
            4 => (MediaKind::Video, [0x17, 1, 0, 0, 0]),
            _ => (MediaKind::Video, [0x27, 1, 0, 0, 0]),
        };
        let number = self.sent.len();
        let mut body = head.to_vec();
        body.extend_from_slice(&low(number as u64).to_be_bytes());
        let rest = usize::from(a) * usize::from(b % 32);
        body.extend((0..rest).map(|at| low_byte(at * 31 + number * 7)));
        let csid = CSIDS[at];
        self.sent.push(Sent { kind, csid, body, is_whole: false, is_committed: false });
        self.open[at] = Some(Open { number, sent: 0 });
    }

    /// Another message in the middle of one.
    fn begin_anew(&mut self, at: usize, b: u8) {
        self.open[at] = None;
        self.part(at, b, b | 1);
    }

    fn abort(&mut self, at: usize) {
        self.open[at] = None;
        let now = self.now();
        self.publisher.handle_abort(&mut self.arena, CSIDS[at], now);
    }

    fn data(&mut self, a: u8, b: u8) {
        let mut body = match b & 1 {
            0 => b"\x02\x00\x0aonMetaData".to_vec(),
            _ => b"\x02\x00\x04text".to_vec(),
        };
        body.extend((0..usize::from(a)).map(|at| low_byte(at + usize::from(b))));
        let (now, timestamp) = (self.now(), low(self.now_ms));
        self.publisher.handle_data(&mut self.arena, timestamp, &body, now);
    }

    fn trim(&mut self, keep: Keep) {
        self.keep = keep;
        self.publisher.look(self.now());
        self.publisher.trim(&mut self.arena, keep);
    }

    /// The publisher goes, and another comes.
    fn end_session(&mut self, clean: bool) {
        self.publisher.end_session(&mut self.arena, clean);
        self.open = [None, None, None];
        self.look();
        let now = self.now();
        self.publisher.begin_session(&mut self.arena, now);
        self.headers.push((self.publisher.writer().head(), None));
    }

    /// The subscriber takes up to `bytes` of what there is, in one or two sends.
    fn read(&mut self, bytes: usize) {
        let (config, now) = (SubscriberConfig::default(), self.now());
        let head = self.tap.refresh();
        let join = self.subscriber.poll_join(&config, &self.tap, &head, true, now);
        if let Some(join) = join {
            self.check_join(self.subscriber.cursor(), join.preamble.as_ref());
            self.expected = None;
        }
        self.subscriber.set_target(head.head, now);
        let mut left = bytes;
        while left > 0
            && let Some(lease) = self.subscriber.next_lease(&self.tap)
        {
            let (at, taken) = (self.subscriber.cursor(), lease.len().min(left));
            self.check_lease(at, &lease);
            self.subscriber.on_sent(&self.tap, &lease, taken, now);
            left -= taken;
            // A skip that had waited for the end of its message may have come.
            let next = Position(at.0 + taken as u64);
            self.expected = Some(next).filter(|next| self.subscriber.cursor() == *next);
        }
    }

    fn check_lease(&self, at: Position, lease: &[u8]) {
        assert!(self.expected.is_none_or(|expected| expected == at), "a gap without a reason");
        if self.expected.is_none() {
            let begins = self.messages.iter().any(|message| message.start == at);
            assert!(begins, "it begins in the middle of a message");
        }
        assert_eq!(lease, &self.image[place(at)..place(at) + lease.len()], "the bytes at {at:?}");
    }

    fn pause(&mut self, paused: bool) {
        let (head, now) = (self.tap.refresh(), self.now());
        self.subscriber.set_paused(paused, &head, now);
        self.note_cursor();
    }

    fn check_lag(&mut self) {
        let (config, now) = (SubscriberConfig::default(), self.now());
        let head = self.tap.refresh();
        if let LagVerdict::Close(_) = self.subscriber.check_lag(&config, &self.tap, &head, now) {
            self.subscriber = Subscriber::new(Selection::all(MEDIA_MSID), now);
        }
        self.note_cursor();
    }

    /// It may stand elsewhere now.
    fn note_cursor(&mut self) {
        let cursor = self.subscriber.cursor();
        self.expected = self.expected.filter(|expected| *expected == cursor);
    }

    /// Stream and subscriber go on in another ring, by their records; as one whose publisher comes along or
    /// as one that waits for it.
    fn hand_over(&mut self, with_partials: bool) {
        let rest = self.subscriber.is_mid_message().then(|| {
            let at = self.subscriber.cursor();
            (at, self.subscriber.take_rest(&self.tap))
        });
        if let Some((at, rest)) = rest {
            match rest {
                Some(rest) => {
                    self.check_lease(at, &rest);
                    self.expected = Some(Position(at.0 + rest.len() as u64));
                }
                // The ring has lost it: such a connection is closed.
                None => self.subscriber = Subscriber::new(Selection::all(MEDIA_MSID), self.now()),
            }
        }
        let view = self.tap.refresh();
        let kept = [view.join, self.subscriber.place()].into_iter().flatten().min();
        let from = kept.unwrap_or(view.head).clamp(view.tail, view.head);
        let from = self.tap.boundary_at_or_after(from).unwrap_or(view.head);
        let record = self.publisher.to_record(&self.tap, from, with_partials);
        let (writer, ring) = stream_ring(RING);
        let now = self.now();
        let mut other = Publisher::from_record(self.config, writer, &record, &mut self.arena, now)
            .expect("a record of a stream fits");
        if !with_partials {
            self.open = [None, None, None];
            other.end_session(&mut self.arena, false);
        }
        core::mem::swap(&mut self.publisher, &mut other);
        self.tap = ring.tap();
        let after = self.tap.refresh();
        assert_eq!((after.head, after.tail, after.join), (view.head, from, view.join));
        self.subscriber = Subscriber::from_record(&self.subscriber.to_record());
        self.note_cursor();
        // What the old one had counted is not the new one's.
        self.has_misfit = true;
        other.finish(&mut self.arena);
    }

    /// Takes over what was committed, and compares it with what was sent; then the ring's own books.
    fn look(&mut self) {
        self.has_unkept |= self.publisher.counters().preamble_not_kept > 0;
        let view = self.tap.refresh();
        let seen = Position(self.image.len() as u64);
        let news: Vec<MessageView> = self.tap.messages_from(seen.max(view.tail)).collect();
        for message in news {
            assert_eq!(place(message.start), self.image.len(), "messages join");
            let mut at = message.start;
            while at < message.end {
                let lease = self.tap.lease(at, place(message.end) - place(at));
                let lease = lease.expect("what the ring has just taken");
                self.image.extend_from_slice(&lease);
                at = Position(at.0 + lease.len() as u64);
            }
            self.take(&message);
            self.messages.push(message);
        }
        assert_eq!(place(view.head), self.image.len(), "nothing else is in the ring");
        let join = view.join.map(|join| (join, self.tap.join_point()));
        if let Some((join, point)) = join {
            assert!(view.tail <= join && join < view.head, "a join position is in the ring");
            self.check_join(join, point.and_then(|point| point.preamble).as_ref());
        }
        let retained = self.publisher.writer().retained_messages();
        assert!(retained <= 64 * 32, "{retained} messages are retained");
    }

    fn take(&mut self, message: &MessageView) {
        let meta = message.meta;
        let image = &self.image[place(message.start)..place(message.end)];
        let mut scratch = Vec::new();
        let (header_bytes, body_bytes) = (usize::from(meta.header_bytes), meta.body_bytes as usize);
        let body = whole_body(image, header_bytes, body_bytes, self.framing, &mut scratch);
        if meta.kind == MessageKind::Data {
            return;
        }
        let number = body.get(NUMBER_AT..BODY_BYTES_MIN).expect("all bodies are numbered");
        let number = number.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let sent = self.sent.get_mut(number).expect("a message that was sent");
        assert!(sent.is_whole && body == sent.body, "message {number} is not what was sent");
        assert!(!core::mem::replace(&mut sent.is_committed, true), "message {number} comes twice");
        let kind =
            if sent.kind == MediaKind::Audio { MessageKind::Audio } else { MessageKind::Video };
        assert_eq!(kind, meta.kind);
        let at = CSIDS.iter().position(|csid| *csid == sent.csid).expect("one of three");
        assert!(self.last[at].is_none_or(|last| last < number), "message {number} is out of order");
        self.last[at] = Some(number);
        if kind == MessageKind::Video && meta.flags.contains(MessageFlags::SEQUENCE_HEADER) {
            self.headers.push((message.start, Some(body.to_vec())));
        }
    }

    /// Who joins there is told the sequence header that is in force there, and begins with a keyframe
    /// unless it begins with what comes next.
    fn check_join(&self, join: Position, told: Option<&ring::Preamble>) {
        let message = self.messages.iter().rev().find(|message| message.start == join);
        let is_keyframe = |m: &MessageView| m.meta.flags.contains(MessageFlags::KEYFRAME);
        assert!(place(join) == self.image.len() || message.is_some_and(is_keyframe));
        let Some((_, wanted)) = self.headers.iter().rev().find(|(from, _)| *from <= join) else {
            return;
        };
        let told = told.map(|preamble| preamble.bytes.clone());
        let told = told.as_deref().unwrap_or_default();
        let video = preamble::entries(told).find(|(kind, _)| *kind == rtmp::kind::VIDEO);
        let is_told = video.map(|(_, body)| body) == wanted.as_deref();
        let is_large = wanted.as_ref().is_some_and(|body| body.len() > PREAMBLE_BYTES / 4);
        assert!(
            is_told || is_large || self.has_unkept,
            "a joiner at {join:?} is told another sequence header"
        );
    }

    /// Every payload byte was copied, or dropped and counted.
    fn check_payload(&self) {
        let counters = self.publisher.counters();
        let accounted = counters.copied_bytes + counters.dropped_bytes;
        assert!(self.has_misfit || counters.payload_bytes == accounted, "{counters:?}");
    }
}

fn place(position: Position) -> usize {
    usize::try_from(position.0).expect("a run is short")
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("32 bits")
}

fn low_byte(value: usize) -> u8 {
    u8::try_from(value & 0xFF).expect("8 bits")
}
