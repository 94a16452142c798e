//! The publisher's side of a stream: message parts in, wire image in the ring out.
//!
//! The one copy of a payload byte happens here: [`Publisher::handle_media`] copies each part
//! straight into its final place at the tail of the ring, where it was reserved when the first part
//! told the message's length. A message that arrives interleaved with the one at the tail is
//! assembled aside and appended when the tail is free (copied twice, counted, bounded by
//! `aside_bytes_max`). A torn or aborted message is never committed.
//!
//! A first part shorter than [`PEEK_BYTES`] waits in a small stash: the media tag's first bytes
//! decide how the timestamp is mapped, and so how long the message header is.
//!
//! Called by the stream's home worker only.

use alloc::vec::Vec;

use ring::{Arena, MessageFlags, MessageKind, MessageMeta, Position, RingFull, Writer};
use rtmp::chunk::{CSID_AUDIO, CSID_DATA, CSID_VIDEO, FramedMessage, Framing, MEDIA_MSID};
use rtmp::message::{MessageHeader, kind};
use rtmp::session::{MediaKind, MediaPart};
use rtmp::{Millis, tag};

use crate::image::message_type;
use crate::meter::StreamMeter;
use crate::preamble::{Change, EntryKey, Preamble};
use crate::retention::{Recent, Retention};
use crate::timeline::{Timeline, Track};
use crate::wait::Wait;

mod aside;
mod counters;
mod facts;
#[cfg(feature = "serde")]
mod record;

use aside::Aside;
pub use counters::PublisherCounters;
pub use facts::MediaFacts;
use facts::{audio_key, gather_body, video_key};

/// How much of a body is looked at before its message is placed, in bytes.
pub const PEEK_BYTES: usize = 16;
/// How much of a body the tag parser sees, in bytes; enough for nested ModEx and multitrack heads.
const TAG_BYTES: usize = 512;

/// Limits and shape of a stream, from its vhost.
#[derive(Copy, Clone, Debug)]
pub struct PublisherConfig {
    /// Outgoing chunk size in bytes, 128 to 16,777,215.
    pub chunk_bytes: u32,
    /// Retention in milliseconds of stream time.
    pub retention_ms: u32,
    /// Retention in bytes of wire image.
    pub retention_bytes: u64,
    /// Retention in messages.
    pub retention_messages: u64,
    /// What was published within so many milliseconds is kept even where it is older by its timestamps, or
    /// memory is short ([`Keep::Recent`]): longer than anything waits to be flushed.
    pub recent_ms: u32,
    /// Most bytes assembled aside at one time for interleaved messages.
    pub aside_bytes_max: usize,
    /// How long a returning publisher's video is held back until its first keyframe, in
    /// milliseconds.
    pub keyframe_wait_ms_max: u32,
    /// Where a new stream's timeline begins, in milliseconds; see [`Timeline::starting_at`].
    pub first_timestamp_ms: u32,
}

impl PublisherConfig {
    /// What a ring of this stream keeps, in whatever framing, while somebody watches.
    pub fn retention(&self) -> Retention {
        Retention {
            ms: self.retention_ms,
            bytes: self.retention_bytes,
            messages: self.retention_messages,
        }
    }
}

impl Default for PublisherConfig {
    fn default() -> Self {
        Self {
            chunk_bytes: 65_536,
            retention_ms: 10_000,
            retention_bytes: 32 * 1024 * 1024,
            retention_messages: 16_384,
            recent_ms: 2_000,
            aside_bytes_max: 16 * 1024 * 1024,
            keyframe_wait_ms_max: 5_000,
            first_timestamp_ms: 0,
        }
    }
}

/// How much of its retention a ring makes use of.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All of it, and what was published lately: a burst may be older than that by its timestamps.
    All,
    /// The present GOP, and what was published lately: those who keep up lose nothing.
    Recent,
    /// The present GOP: nobody watches, so nobody can fall behind, and a joiner starts at its keyframe.
    Gop,
}

/// What became of a part.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The message is not complete yet.
    Partial,
    /// A message was committed; subscribers have news.
    Committed,
    /// The message was dropped and counted in [`PublisherCounters`].
    Dropped,
}

/// Why a publisher must be closed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// Interleaved messages hold more than `aside_bytes_max`.
    AsideFull,
}

/// A message with a place in the ring.
#[derive(Copy, Clone, Debug)]
struct Placed {
    /// Chunk stream it arrives on; 0 for one that came whole.
    csid: u32,
    media: MessageKind,
    /// On the stream's timeline.
    timestamp: u32,
    /// In the message header.
    wire_timestamp: u32,
    length: u32,
}

/// The message that is being written at the tail of the ring.
#[derive(Debug)]
struct AtTail {
    message: Placed,
    framed: FramedMessage,
}

/// The writer of one stream. Moves between workers when a publisher returns elsewhere.
#[derive(Debug)]
pub struct Publisher {
    config: PublisherConfig,
    writer: Writer,
    framing: Framing,
    timeline: Timeline,
    preamble: Preamble,
    meter: StreamMeter,
    facts: MediaFacts,
    counters: PublisherCounters,
    at_tail: Option<AtTail>,
    /// In order of their first part; appended in this order when complete and the tail is free.
    aside: Vec<Aside>,
    /// csids whose current message is being dropped.
    dropping: Vec<u32>,
    newest_keyframe: Option<Position>,
    newest_timestamp: u32,
    recent: Recent,
    /// Set after a reconnect until the first keyframe, with the time it began.
    hold_video_since: Option<Wait>,
    /// Video is undecodable after a drop until the next keyframe.
    broken: bool,
    sessions: u32,
}

impl Publisher {
    /// A publisher that writes into `writer`.
    pub fn new(config: PublisherConfig, writer: Writer) -> Self {
        Self {
            framing: Framing { chunk_bytes: config.chunk_bytes },
            timeline: Timeline::starting_at(config.first_timestamp_ms),
            config,
            writer,
            preamble: Preamble::new(),
            meter: StreamMeter::new(),
            facts: MediaFacts::default(),
            counters: PublisherCounters::default(),
            at_tail: None,
            aside: Vec::new(),
            dropping: Vec::new(),
            newest_keyframe: None,
            newest_timestamp: 0,
            recent: Recent::default(),
            hold_video_since: None,
            broken: false,
            sessions: 0,
        }
    }

    /// A publisher's session begins: the first, a reconnect in the grace period or a takeover.
    /// The timeline goes on; metadata and sequence headers start afresh.
    pub fn begin_session(&mut self, arena: &mut Arena, now: Millis) {
        self.sessions += 1;
        self.timeline.begin_session(now.0);
        self.meter.begin_session(now.0);
        self.hold_video_since = (self.sessions > 1).then(|| Wait::begin(now));
        self.broken = false;
        self.set_newest_keyframe(None);
        self.preamble.clear();
        self.publish_preamble(arena);
    }

    /// The publisher's connection is gone. What it sent only in part is given up.
    /// `clean` ends the stream: nobody shall join what is in the ring.
    pub fn end_session(&mut self, arena: &mut Arena, clean: bool) {
        self.give_up_partials();
        if clean {
            self.set_newest_keyframe(None);
            self.preamble.clear();
            self.publish_preamble(arena);
            self.facts = MediaFacts::default();
        }
    }

    /// Takes one part of a media message.
    ///
    /// # Errors
    /// [`PublishError::AsideFull`] if interleaving holds too much memory: close the publisher.
    pub fn handle_media(
        &mut self,
        arena: &mut Arena,
        part: &MediaPart<'_>,
        now: Millis,
    ) -> Result<Progress, PublishError> {
        self.counters.payload_bytes += part.body.len() as u64;
        if part.first {
            self.forget_partial(part.csid);
            return self.handle_first(arena, part, now);
        }
        if let Some(at_tail) = self.at_tail.as_mut().filter(|m| m.message.csid == part.csid) {
            if !fits(part, at_tail.framed.body_remaining() as usize) {
                return Ok(self.drop_misfit(arena, part, now));
            }
            at_tail.framed.push(self.writer.reserved_mut(), part.body);
            self.counters.copied_bytes += part.body.len() as u64;
            if part.last {
                self.complete_at_tail(arena, now);
                self.drain_aside(arena, now);
                return Ok(Progress::Committed);
            }
            return Ok(Progress::Partial);
        }
        if let Some(aside) = self.aside.iter().find(|m| m.csid == part.csid && !m.complete) {
            if !fits(part, aside.length.saturating_sub(aside.body.len())) {
                return Ok(self.drop_misfit(arena, part, now));
            }
            return self.handle_aside(arena, part, now);
        }
        Ok(self.skip_dropped(part))
    }

    /// A message was aborted by its publisher (abort message, or a new header in its middle).
    pub fn handle_abort(&mut self, arena: &mut Arena, csid: u32, now: Millis) {
        self.forget_partial(csid);
        self.drain_aside(arena, now);
    }

    /// Takes a complete data message (AMF0, `@setDataFrame` already removed).
    pub fn handle_data(
        &mut self,
        arena: &mut Arena,
        timestamp: u32,
        body: &[u8],
        now: Millis,
    ) -> Progress {
        if is_metadata(body) {
            match self.preamble.update(EntryKey::METADATA, kind::DATA_AMF0, body) {
                Change::Added | Change::Replaced => self.publish_preamble(arena),
                Change::Same => {}
                Change::NotKept => self.counters.preamble_not_kept += 1,
            }
        }
        let timestamp = self.timeline.map(now.0, Track::Data, timestamp, true);
        if self.at_tail.is_some() {
            if self.aside_bytes() + body.len() > self.config.aside_bytes_max {
                self.counters.dropped_ring_full += 1;
                return Progress::Dropped;
            }
            self.aside.push(Aside {
                csid: 0,
                media: MessageKind::Data,
                timestamp,
                length: body.len(),
                body: body.to_vec(),
                complete: true,
            });
            return Progress::Partial;
        }
        self.append_whole(arena, MessageKind::Data, timestamp, body, now)
    }

    /// `@clearDataFrame`: late joiners get no metadata until new metadata comes.
    pub fn clear_metadata(&mut self, arena: &mut Arena) {
        if self.preamble.clear_metadata() {
            self.publish_preamble(arena);
        }
    }

    /// Tells of the time, many times a second: what was published lately is known by it.
    pub fn look(&mut self, now: Millis) {
        self.recent.look(self.writer.head(), now, self.config.recent_ms);
    }

    /// Gives segments that are not to be kept back to the arena; called once per turn with news.
    pub fn trim(&mut self, arena: &mut Arena, keep: Keep) {
        let mut retention = self.config.retention();
        let mut kept_from = self.recent.start();
        if keep != Keep::All {
            retention.ms = 0;
        }
        if keep == Keep::Gop {
            kept_from = self.writer.head();
        }
        let before = self.newest_keyframe;
        self.newest_keyframe =
            retention.trim(&mut self.writer, arena, self.newest_timestamp, before, kept_from);
        self.counters.gops_given_up +=
            u64::from(before.is_some() && self.newest_keyframe.is_none());
    }

    /// Counters since the stream began.
    pub fn counters(&self) -> &PublisherCounters {
        &self.counters
    }

    /// Rates and GOP length.
    pub fn meter(&self) -> &StreamMeter {
        &self.meter
    }

    /// Codecs and picture size.
    pub fn facts(&self) -> &MediaFacts {
        &self.facts
    }

    /// Timestamp repairs and position on the stream's timeline.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Stream time between the oldest and the newest message in the ring, in milliseconds.
    pub fn retained_ms(&self) -> u64 {
        let oldest = self.writer.oldest_timestamp().unwrap_or(self.newest_timestamp);
        let span_ms = self.newest_timestamp.wrapping_sub(oldest);
        if span_ms > i32::MAX as u32 { 0 } else { u64::from(span_ms) }
    }

    /// Ends the stream for good and gives its memory back.
    pub fn finish(self, arena: &mut Arena) {
        self.writer.finish(arena);
    }

    /// The ring's writer.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Chunk size of the wire image, in bytes.
    pub fn chunk_bytes(&self) -> u32 {
        self.framing.chunk_bytes
    }

    /// New limits after a configuration reload. The chunk size stays what the stream began with.
    pub fn set_config(&mut self, config: PublisherConfig) {
        self.config = PublisherConfig { chunk_bytes: self.config.chunk_bytes, ..config };
    }

    fn handle_first(
        &mut self,
        arena: &mut Arena,
        part: &MediaPart<'_>,
        now: Millis,
    ) -> Result<Progress, PublishError> {
        let must_stash = part.body.len() < PEEK_BYTES && !part.last;
        if must_stash || self.at_tail.is_some() || !self.aside.is_empty() {
            let length = usize::try_from(part.length).unwrap_or(usize::MAX);
            if self.aside_bytes() + length > self.config.aside_bytes_max {
                self.counters.dropped_bytes += part.body.len() as u64;
                return Err(PublishError::AsideFull);
            }
            let timestamp = part.timestamp;
            let (csid, media) = (part.csid, media_of(part));
            let body = Vec::with_capacity(length.min(PEEK_BYTES));
            self.aside.push(Aside { csid, media, timestamp, length, body, complete: false });
            return self.handle_aside(arena, part, now);
        }
        let timestamp = self.map(media_of(part), part.timestamp, part.body, now);
        if self.holds_back(media_of(part), part.body, now) {
            return Ok(self.start_dropping(part));
        }
        let message = Placed {
            csid: part.csid,
            media: media_of(part),
            timestamp,
            wire_timestamp: timestamp,
            length: part.length,
        };
        if self.place(arena, message).is_err() {
            self.counters.dropped_ring_full += 1;
            self.broken |= media_of(part) == MessageKind::Video;
            return Ok(self.start_dropping(part));
        }
        if let Some(at_tail) = self.at_tail.as_mut() {
            at_tail.framed.push(self.writer.reserved_mut(), part.body);
            self.counters.copied_bytes += part.body.len() as u64;
        }
        if !part.last {
            return Ok(Progress::Partial);
        }
        self.complete_at_tail(arena, now);
        Ok(Progress::Committed)
    }

    fn append_whole(
        &mut self,
        arena: &mut Arena,
        media: MessageKind,
        timestamp: u32,
        body: &[u8],
        now: Millis,
    ) -> Progress {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        // Players take metadata with a time of its own for a track of texts (ffmpeg's FLV reader).
        let wire_timestamp = if is_metadata(body) { 0 } else { timestamp };
        let message = Placed { csid: 0, media, timestamp, wire_timestamp, length };
        if self.place(arena, message).is_err() {
            self.counters.dropped_ring_full += 1;
            return Progress::Dropped;
        }
        if let Some(at_tail) = self.at_tail.as_mut() {
            at_tail.framed.push(self.writer.reserved_mut(), body);
        }
        self.complete_at_tail(arena, now);
        Progress::Committed
    }

    /// Reserves room at the tail and writes the message header.
    fn place(&mut self, arena: &mut Arena, message: Placed) -> Result<(), RingFull> {
        let csid = match message.media {
            MessageKind::Audio => CSID_AUDIO,
            MessageKind::Video => CSID_VIDEO,
            MessageKind::Data => CSID_DATA,
        };
        let kind = message_type(message.media);
        let Placed { wire_timestamp: timestamp, length, .. } = message;
        let header = MessageHeader { csid, kind, msid: MEDIA_MSID, timestamp, length };
        self.writer.reserve(arena, self.framing.framed_bytes(&header))?;
        let framed = self.framing.begin(&header, self.writer.reserved_mut());
        self.at_tail = Some(AtTail { message, framed });
        Ok(())
    }

    /// The message at the tail is whole: read its tag, commit it, move join and flush mark.
    fn complete_at_tail(&mut self, arena: &mut Arena, now: Millis) {
        let Some(AtTail { message, framed }) = self.at_tail.take() else { return };
        let header_bytes = framed.header_bytes();
        let body_bytes = usize::try_from(message.length).unwrap_or(0);
        let flags = self.read_tag(arena, message.media, header_bytes, body_bytes);
        self.meter_message(&message, flags, now);
        let position = self.writer.commit(MessageMeta {
            timestamp: message.timestamp,
            kind: message.media,
            flags,
            header_bytes: u8::try_from(header_bytes).unwrap_or(u8::MAX),
            body_bytes: message.length,
        });
        self.counters.messages += 1;
        self.counters.video += u64::from(message.media == MessageKind::Video);
        self.counters.audio += u64::from(message.media == MessageKind::Audio);
        let repairs = self.timeline.counters();
        self.counters.timestamp_repairs = repairs.forward_jumps + repairs.backward_jumps;
        self.newest_timestamp = message.timestamp;
        if flags.contains(MessageFlags::KEYFRAME) {
            self.set_newest_keyframe(Some(position));
        }
        if message.media == MessageKind::Video {
            self.writer.mark_video_end();
        }
    }

    /// What the tag at the tail is, noted in facts and preamble.
    fn read_tag(
        &mut self,
        arena: &mut Arena,
        media: MessageKind,
        header_bytes: usize,
        body_bytes: usize,
    ) -> MessageFlags {
        let first_chunk = body_bytes.min(self.framing.chunk_bytes as usize);
        let image = self.writer.reserved_mut();
        let first_chunk = image.get(header_bytes..header_bytes + first_chunk).unwrap_or(&[]);
        let head = first_chunk.get(..TAG_BYTES.min(first_chunk.len())).unwrap_or(&[]);
        match media {
            MessageKind::Data => MessageFlags::METADATA,
            MessageKind::Audio => {
                let info = tag::audio(head);
                self.facts.note_audio(&info);
                if !info.sequence_header && !info.multichannel_config {
                    return MessageFlags::NONE;
                }
                let body = gather_body(image, header_bytes, body_bytes, self.framing);
                self.facts.note_audio_header(&body);
                let key = audio_key(&body, &info);
                self.note_header(arena, key, kind::AUDIO, &body);
                MessageFlags::SEQUENCE_HEADER
            }
            MessageKind::Video => {
                let info = tag::video(head);
                if info.sequence_header || info.metadata {
                    let body = gather_body(image, header_bytes, body_bytes, self.framing);
                    self.facts.note_video_header(&body, &info);
                    let key = video_key(&body, &info);
                    self.note_header(arena, key, kind::VIDEO, &body);
                    return MessageFlags::SEQUENCE_HEADER;
                }
                if !info.command {
                    self.facts.video_codec = Some(info.codec.name());
                }
                match (info.keyframe, info.discardable) {
                    (true, _) => MessageFlags::KEYFRAME,
                    (false, true) => MessageFlags::DISCARDABLE,
                    (false, false) => MessageFlags::NONE,
                }
            }
        }
    }

    /// Keeps a sequence header for late joiners. Another one than before makes the keyframes in
    /// the ring unjoinable: they were coded with the old one.
    fn note_header(&mut self, arena: &mut Arena, key: EntryKey, kind: u8, body: &[u8]) {
        match self.preamble.update(key, kind, body) {
            Change::Same => {}
            Change::Added => self.publish_preamble(arena),
            Change::Replaced => {
                self.set_newest_keyframe(None);
                self.publish_preamble(arena);
            }
            Change::NotKept => self.counters.preamble_not_kept += 1,
        }
    }

    /// Before the message that carries the change is committed, so that whoever joins behind that
    /// message finds the preamble that belongs to it.
    fn publish_preamble(&mut self, arena: &mut Arena) {
        let valid_from = self.writer.head();
        if self.writer.set_preamble(arena, &self.preamble.to_blob(), valid_from).is_err() {
            self.counters.preamble_not_kept += 1;
        }
    }

    fn set_newest_keyframe(&mut self, position: Option<Position>) {
        self.newest_keyframe = position;
        self.writer.set_join(position);
    }

    fn meter_message(&mut self, message: &Placed, flags: MessageFlags, now: Millis) {
        let is_keyframe = flags.contains(MessageFlags::KEYFRAME);
        let is_config = flags.contains(MessageFlags::SEQUENCE_HEADER);
        match message.media {
            MessageKind::Video if is_config => self.meter.other(now.0, message.length),
            MessageKind::Video => {
                self.meter.video(now.0, message.timestamp, message.length, is_keyframe);
            }
            MessageKind::Audio => self.meter.audio(now.0, message.timestamp, message.length),
            MessageKind::Data => self.meter.other(now.0, message.length),
        }
    }

    /// Maps a publisher's timestamp onto the stream's timeline.
    fn map(&mut self, media: MessageKind, timestamp: u32, head: &[u8], now: Millis) -> u32 {
        let (track, is_config) = match media {
            MessageKind::Audio => {
                let info = tag::audio(head);
                (Track::Audio, info.sequence_header || info.multichannel_config)
            }
            MessageKind::Video => {
                let info = tag::video(head);
                let is_config = info.sequence_header || info.metadata || info.end_of_sequence;
                (Track::Video, is_config)
            }
            MessageKind::Data => (Track::Data, true),
        };
        self.timeline.map(now.0, track, timestamp, is_config)
    }

    /// True for video that nobody could decode: before the first keyframe of a returning
    /// publisher, or after a dropped message.
    fn holds_back(&mut self, media: MessageKind, head: &[u8], now: Millis) -> bool {
        if media != MessageKind::Video || (self.hold_video_since.is_none() && !self.broken) {
            return false;
        }
        let info = tag::video(head);
        if info.sequence_header || info.metadata {
            return false;
        }
        let wait_ms_max = self.config.keyframe_wait_ms_max;
        let is_over =
            self.hold_video_since.as_mut().is_some_and(|since| since.is_over(now, wait_ms_max));
        if info.keyframe || is_over {
            self.hold_video_since = None;
            self.broken = false;
            return false;
        }
        self.counters.dropped_before_keyframe += 1;
        true
    }

    fn start_dropping(&mut self, part: &MediaPart<'_>) -> Progress {
        self.counters.dropped_bytes += part.body.len() as u64;
        if !part.last {
            self.dropping.push(part.csid);
        }
        Progress::Dropped
    }

    fn skip_dropped(&mut self, part: &MediaPart<'_>) -> Progress {
        self.counters.dropped_bytes += part.body.len() as u64;
        if part.last {
            self.dropping.retain(|&csid| csid != part.csid);
            return Progress::Dropped;
        }
        Progress::Partial
    }

    /// Gives up a message that does not end where it was announced to.
    fn drop_misfit(&mut self, arena: &mut Arena, part: &MediaPart<'_>, now: Millis) -> Progress {
        self.forget_partial(part.csid);
        if !part.last {
            self.dropping.push(part.csid);
        }
        self.drain_aside(arena, now);
        Progress::Dropped
    }

    fn forget_partial(&mut self, csid: u32) {
        if self.at_tail.as_ref().is_some_and(|at_tail| at_tail.message.csid == csid) {
            self.at_tail = None;
            self.writer.cancel();
            self.counters.torn += 1;
        }
        self.forget_aside(|message| message.csid == csid && !message.complete);
        self.dropping.retain(|&dropping| dropping != csid);
    }

    fn give_up_partials(&mut self) {
        if self.at_tail.take().is_some() {
            self.writer.cancel();
            self.counters.torn += 1;
        }
        self.forget_aside(|_| true);
        self.dropping.clear();
    }
}

/// Whether a further part ends where its message does, of which so many bytes are `left`. The reader sees to
/// that; but after a hand-over it goes by one record and the publisher by another.
fn fits(part: &MediaPart<'_>, left: usize) -> bool {
    part.body.len() <= left && part.last == (part.body.len() == left)
}

fn media_of(part: &MediaPart<'_>) -> MessageKind {
    match part.audio_or_video {
        MediaKind::Audio => MessageKind::Audio,
        MediaKind::Video => MessageKind::Video,
    }
}

/// True for a data message whose handler is `onMetaData`.
fn is_metadata(body: &[u8]) -> bool {
    body.starts_with(b"\x02\x00\x0aonMetaData")
}
