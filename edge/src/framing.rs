//! Other framings of a stream: FLV tags and MP4 fragments, in chunks or in WebSocket frames.
//!
//! A [`Reframer`] reads a stream's primary ring through a tap of its own and writes the same messages in
//! another form into a ring of its own, once for all viewers of that form on this worker. Above it nothing
//! differs: a viewer is a subscriber with a cursor into that ring. It is made for the first such viewer and
//! dropped with the last one; nothing is shared between workers, so a takeover needs no hand-over here.
//!
//! ```text
//!   primary ring ─ tap ─► Reframer ─┬─ Flv   header · body · size, one copy ─┐
//!   (wire image)                    └─ Fmp4  samples ─► fragment, two copies ┴─► own ring ─ tap ─► viewers
//! ```
//!
//! Goes on in another process to the byte: see `framing/record.rs`.
//!
//! Called by the worker when a stream with such viewers has news, and when one joins. Never waits, never
//! reads a clock. Memory: as much again as the primary ring retains, per framing and worker in use.

mod record;

use live::image::{body_parts, message_type, whole_body, wire_timestamp};
use live::preamble;
use live::publisher::PublisherConfig;
use live::retention::{Recent, Retention};
use mux::flv;
use mux::segment::{Container, Event, Output, Segmenter, Settings};
use mux::wrap::Wrap;
use ring::{
    Arena, Lease, MessageFlags, MessageKind, MessageMeta, MessageView, Position, RingConfig,
    StreamRing, Tap, Writer, stream_ring,
};
use rtmp::Millis;
use rtmp::chunk::Framing as ChunkFraming;
use rtmp::message::{MessageHeader, kind};
use serde::{Deserialize, Serialize};

use crate::registry::StreamEntry;

/// Length aimed at for fragments, in milliseconds: shorter than a picture lasts, so that each is one.
const FRAGMENT_MS: u32 = 1;

/// In which form a viewer takes a stream.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FramingKind {
    /// RTMP chunks: the primary ring.
    Rtmp,
    /// FLV tags.
    Flv(Wrap),
    /// Fragmented MP4; in WebSocket frames what they are is told in a text frame before.
    Fmp4(Wrap),
}

impl FramingKind {
    /// Those that are made from the primary ring.
    pub(crate) const SECONDARY: [Self; 6] = [
        Self::Flv(Wrap::None),
        Self::Flv(Wrap::Chunk),
        Self::Flv(Wrap::WebSocket),
        Self::Fmp4(Wrap::None),
        Self::Fmp4(Wrap::Chunk),
        Self::Fmp4(Wrap::WebSocket),
    ];

    /// As in logs and in the API.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Flv(Wrap::WebSocket) => "ws-flv",
            Self::Flv(_) => "http-flv",
            Self::Fmp4(Wrap::WebSocket) => "ws-fmp4",
            Self::Fmp4(_) => "http-fmp4",
        }
    }

    /// As a response's content type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Flv(_) => "video/x-flv",
            Self::Rtmp | Self::Fmp4(_) => "video/mp4",
        }
    }

    /// What its pieces travel in.
    pub(crate) fn wrap(self) -> Wrap {
        match self {
            Self::Rtmp => Wrap::None,
            Self::Flv(wrap) | Self::Fmp4(wrap) => wrap,
        }
    }

    /// Travels in WebSocket frames.
    pub(crate) fn is_websocket(self) -> bool {
        self.wrap() == Wrap::WebSocket
    }

    fn flv(self) -> Option<flv::Framing> {
        match self {
            Self::Flv(wrap) => Some(flv::Framing { wrap }),
            Self::Rtmp | Self::Fmp4(_) => None,
        }
    }
}

/// What was lost on the way from one ring to the other.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ReframerCounters {
    /// Messages dropped because slow viewers hold the whole ring.
    pub(crate) dropped: u64,
    /// Times the primary ring was faster.
    pub(crate) overruns: u64,
}

/// Fills one framing of one stream on one worker.
#[derive(Debug)]
pub(crate) struct Reframer {
    kind: FramingKind,
    source: Tap,
    /// Next message of the source.
    cursor: Option<Position>,
    chunks: ChunkFraming,
    writer: Writer,
    retention: Retention,
    recent: Recent,
    /// Memory runs short: nothing beyond the present GOP but what is recent.
    is_short: bool,
    /// Version of the source's preamble that is in force here.
    preamble_version: u64,
    /// Where the newest keyframe lies here.
    keyframe: Option<Position>,
    newest_timestamp: u32,
    /// Video is undecodable after a drop until the next keyframe.
    is_broken: bool,
    /// What the stream was seen to have since its last end.
    has_audio: bool,
    has_video: bool,
    ends_seen: u64,
    end: Position,
    sessions_seen: u64,
    fragments: Option<Box<Fragments>>,
    counters: ReframerCounters,
}

/// The state of an MP4 framing.
#[derive(Debug)]
struct Fragments {
    segmenter: Segmenter,
    output: Output,
    /// Bodies that lie in several chunks are put together here.
    body: Vec<u8>,
    /// A message of the ring in the making.
    message: Vec<u8>,
}

impl Reframer {
    /// Begins at the newest keyframe of `entry`'s ring; nothing is copied before [`Reframer::feed`].
    pub(crate) fn new(
        kind: FramingKind,
        entry: &StreamEntry,
        source: Tap,
        ring: RingConfig,
        config: &PublisherConfig,
    ) -> Self {
        let settings = Settings { part_ms: FRAGMENT_MS, ..Settings::new(Container::Fmp4) };
        let fragments = kind.flv().is_none().then(|| {
            Box::new(Fragments {
                segmenter: Segmenter::new(settings),
                output: Output::default(),
                body: Vec::new(),
                message: Vec::new(),
            })
        });
        let (writer, _) = stream_ring(ring);
        Self {
            kind,
            source,
            cursor: None,
            chunks: ChunkFraming { chunk_bytes: entry.chunk_bytes() },
            writer,
            retention: config.retention(),
            recent: Recent::default(),
            is_short: false,
            preamble_version: 0,
            keyframe: None,
            newest_timestamp: 0,
            is_broken: false,
            has_audio: false,
            has_video: false,
            ends_seen: entry.ends().0,
            sessions_seen: entry.sessions().0,
            end: Position(0),
            fragments,
            counters: ReframerCounters::default(),
        }
    }

    /// The ring viewers read.
    pub(crate) fn ring(&self) -> StreamRing {
        self.writer.ring()
    }

    /// How often the stream has ended as far as this ring goes, and where in it the last end lies.
    pub(crate) fn ends(&self) -> (u64, Position) {
        (self.ends_seen, self.end)
    }

    /// Whether sound and pictures were seen.
    pub(crate) fn tracks(&self) -> (bool, bool) {
        (self.has_audio, self.has_video)
    }

    /// What was lost since the last call.
    pub(crate) fn take_counters(&mut self) -> ReframerCounters {
        std::mem::take(&mut self.counters)
    }

    /// Tells of the time, many times a second, and whether memory runs short: then nothing is kept beyond
    /// the present GOP but what viewers that keep up may not have been sent yet.
    pub(crate) fn look(&mut self, now: Millis, recent_ms: u32, is_short: bool) {
        self.recent.look(self.writer.head(), now, recent_ms);
        self.is_short = is_short;
    }

    /// Bytes of the ring's buffers.
    pub(crate) fn owned_bytes(&self) -> u64 {
        self.writer.owned_bytes()
    }

    /// Gives the ring's memory back.
    pub(crate) fn finish(self, arena: &mut Arena) {
        self.writer.finish(arena);
    }

    /// Takes over everything the source has new. An end of the stream comes before what follows it.
    pub(crate) fn feed(&mut self, arena: &mut Arena, entry: &StreamEntry) {
        // One look: what lies before the end, and before the last session, is there then.
        let mut look = (entry.ends(), entry.sessions());
        loop {
            self.source.refresh();
            let now = (entry.ends(), entry.sessions());
            if now == std::mem::replace(&mut look, now) {
                break;
            }
        }
        let ((ends, end), (sessions, session)) = look;
        if ends != self.ends_seen {
            self.feed_to(arena, end);
            self.end_stream(arena);
            self.ends_seen = ends;
            self.end = self.writer.head();
        }
        if sessions != self.sessions_seen {
            self.feed_to(arena, session);
            self.discontinue(arena);
            self.sessions_seen = sessions;
        }
        self.feed_to(arena, self.source.view().head);
        self.follow_join();
        self.trim(arena);
    }

    fn feed_to(&mut self, arena: &mut Arena, end: Position) {
        let view = self.source.view();
        let is_overrun = self.cursor.is_some_and(|cursor| cursor < view.tail);
        self.counters.overruns += u64::from(is_overrun);
        let mut cursor = match self.cursor {
            Some(cursor) if !is_overrun => cursor,
            _ => self.start(arena),
        };
        while cursor < end {
            let Some(message) = self.source.message_at(cursor) else { break };
            self.renew_preamble(arena, cursor);
            self.take(arena, &message);
            cursor = message.end;
        }
        self.cursor = Some(cursor);
    }

    /// Where to begin: the newest keyframe, with the preamble that belongs to it.
    fn start(&mut self, arena: &mut Arena) -> Position {
        if let Some(join) = self.source.join_point() {
            if let Some(preamble) = join.preamble {
                self.set_preamble(arena, preamble.version, &preamble.bytes);
            }
            return join.position;
        }
        let head = self.source.view().head;
        self.renew_preamble(arena, head);
        head
    }

    /// Puts the source's newest preamble into force once the message is reached that it is for. When there
    /// was another change behind the newest keyframe, the keyframe's own comes first.
    fn renew_preamble(&mut self, arena: &mut Arena, at: Position) {
        if self.preamble_version == self.source.view().preamble_version {
            return;
        }
        if let Some(preamble) = self.source.preamble_at(at)
            && preamble.version > self.preamble_version
        {
            self.set_preamble(arena, preamble.version, &preamble.bytes);
        }
    }

    fn set_preamble(&mut self, arena: &mut Arena, version: u64, blob: &[u8]) {
        self.preamble_version = version;
        for (kind, _) in preamble::entries(blob) {
            self.has_audio |= kind == kind::AUDIO;
            self.has_video |= kind == kind::VIDEO;
        }
        let Some(fragments) = &mut self.fragments else {
            // The same entries; whoever joins makes tags of them, with the time of the join.
            if self.writer.set_preamble(arena, blob, self.writer.head()).is_err() {
                self.counters.dropped += 1;
            }
            return;
        };
        let Fragments { segmenter, output, .. } = &mut **fragments;
        for (kind, body) in preamble::entries(blob) {
            segmenter.push(kind, self.newest_timestamp, body, 0, output);
        }
        self.drain_fragments(arena);
    }

    /// One message of the source, in this ring's form.
    fn take(&mut self, arena: &mut Arena, message: &MessageView) {
        let Ok(bytes) = usize::try_from(message.wire_bytes()) else { return };
        let Some(image) = self.source.lease(message.start, bytes) else { return };
        self.has_audio |= message.meta.kind == MessageKind::Audio;
        self.has_video |= message.meta.kind == MessageKind::Video;
        self.newest_timestamp = message.meta.timestamp;
        match self.kind.flv() {
            Some(framing) => self.take_tag(arena, framing, message, &image),
            None => self.take_sample(arena, message, &image),
        }
    }

    fn take_tag(
        &mut self,
        arena: &mut Arena,
        framing: flv::Framing,
        message: &MessageView,
        image: &Lease,
    ) {
        let meta = message.meta;
        if !self.is_decodable(meta) {
            return;
        }
        let header_bytes = usize::from(meta.header_bytes);
        let header = MessageHeader {
            csid: 0,
            kind: message_type(meta.kind),
            msid: 0,
            timestamp: wire_timestamp(image, header_bytes),
            length: meta.body_bytes,
        };
        if self.writer.reserve(arena, framing.framed_bytes(&header)).is_err() {
            self.note_dropped(meta.kind);
            return;
        }
        let out = self.writer.reserved_mut();
        let mut tag = framing.begin(&header, out);
        let body_bytes = usize::try_from(meta.body_bytes).unwrap_or(usize::MAX);
        for part in body_parts(image, header_bytes, body_bytes, self.chunks) {
            tag.push(out, part);
        }
        let header_bytes = u8::try_from(tag.header_bytes()).unwrap_or(u8::MAX);
        self.commit(MessageMeta { header_bytes, ..meta });
    }

    fn take_sample(&mut self, arena: &mut Arena, message: &MessageView, image: &Lease) {
        let meta = message.meta;
        let Some(fragments) = &mut self.fragments else { return };
        let Fragments { segmenter, output, body, .. } = &mut **fragments;
        let header_bytes = usize::from(meta.header_bytes);
        let body_bytes = usize::try_from(meta.body_bytes).unwrap_or(usize::MAX);
        let whole = whole_body(image, header_bytes, body_bytes, self.chunks, body);
        segmenter.push(message_type(meta.kind), meta.timestamp, whole, 0, output);
        self.drain_fragments(arena);
    }

    /// What the segmenter has ready goes into the ring: descriptions as preamble and message, parts as
    /// messages.
    fn drain_fragments(&mut self, arena: &mut Arena) {
        let Some(mut fragments) = self.fragments.take() else { return };
        let Fragments { segmenter, output, message, .. } = &mut *fragments;
        let has_video = segmenter.tracks().video.is_some();
        for event in output.events.drain(..) {
            message.clear();
            match event {
                Event::Init { codecs, bytes, .. } => {
                    let init = output.bytes.get(bytes).unwrap_or_default();
                    self.write_init(&codecs, has_video, init, message);
                    // Before the message that carries the change, so that nobody joins behind it without.
                    if self.writer.set_preamble(arena, message, self.writer.head()).is_err() {
                        self.counters.dropped += 1;
                    }
                    let flags = MessageFlags::SEQUENCE_HEADER;
                    self.append(arena, MessageKind::Data, flags, message);
                }
                Event::Part { independent, bytes, .. } => {
                    let part = output.bytes.get(bytes).unwrap_or_default();
                    self.write_fragment(part, message);
                    let (kind, flags) = match (has_video, independent) {
                        (true, true) => (MessageKind::Video, MessageFlags::KEYFRAME),
                        (true, false) => (MessageKind::Video, MessageFlags::NONE),
                        (false, _) => (MessageKind::Audio, MessageFlags::NONE),
                    };
                    self.append(arena, kind, flags, message);
                }
                Event::Begin { .. } | Event::End { .. } => {}
            }
        }
        output.clear();
        self.fragments = Some(fragments);
    }

    fn write_init(&self, codecs: &str, has_video: bool, init: &[u8], out: &mut Vec<u8>) {
        if self.kind.is_websocket() {
            let kind = if has_video { "video" } else { "audio" };
            let mime = format!("{{\"mime\":\"{kind}/mp4; codecs=\\\"{codecs}\\\"\"}}");
            http1::websocket::write_text(&mime, out);
        }
        self.write_fragment(init, out);
    }

    fn write_fragment(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let wrap = self.kind.wrap();
        out.extend_from_slice(wrap.begin(bytes.len()).as_slice());
        out.extend_from_slice(bytes);
        out.extend_from_slice(wrap.end());
    }

    fn append(&mut self, arena: &mut Arena, kind: MessageKind, flags: MessageFlags, bytes: &[u8]) {
        let meta = MessageMeta {
            timestamp: self.newest_timestamp,
            kind,
            flags,
            header_bytes: 0,
            body_bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        };
        if bytes.is_empty() || !self.is_decodable(meta) {
            return;
        }
        if self.writer.reserve(arena, bytes.len()).is_err() {
            self.note_dropped(kind);
            return;
        }
        self.writer.reserved_mut().copy_from_slice(bytes);
        self.commit(meta);
    }

    /// False for pictures behind a dropped one, until the next keyframe.
    fn is_decodable(&mut self, meta: MessageMeta) -> bool {
        if self.is_broken && meta.kind == MessageKind::Video {
            let restarts = meta.flags.contains(MessageFlags::KEYFRAME);
            let configures = meta.flags.contains(MessageFlags::SEQUENCE_HEADER);
            self.is_broken = !restarts;
            self.counters.dropped += u64::from(!restarts && !configures);
            return restarts || configures;
        }
        true
    }

    fn note_dropped(&mut self, kind: MessageKind) {
        self.counters.dropped += 1;
        self.is_broken |= kind == MessageKind::Video;
    }

    /// Publishes the reservation.
    fn commit(&mut self, meta: MessageMeta) {
        let position = self.writer.commit(meta);
        if meta.flags.contains(MessageFlags::KEYFRAME) {
            self.keyframe = Some(position);
            self.writer.set_join(Some(position));
        }
        if meta.kind == MessageKind::Video {
            self.writer.mark_video_end();
        }
    }

    /// Joins are possible here while they are there: not into what a lost publisher left behind.
    fn follow_join(&mut self) {
        if self.source.view().join.is_none() && self.keyframe.take().is_some() {
            self.writer.set_join(None);
        }
    }

    /// The stream has ended, or another publisher goes on with it: what comes need not have the tracks of
    /// what was before.
    fn discontinue(&mut self, arena: &mut Arena) {
        if let Some(fragments) = &mut self.fragments {
            let Fragments { segmenter, output, .. } = &mut **fragments;
            segmenter.discontinuity(output);
            self.drain_fragments(arena);
        }
    }

    fn end_stream(&mut self, arena: &mut Arena) {
        self.discontinue(arena);
        (self.has_audio, self.has_video) = (false, false);
    }

    fn trim(&mut self, arena: &mut Arena) {
        let (newest, keyframe) = (self.newest_timestamp, self.keyframe);
        let ms = if self.is_short { 0 } else { self.retention.ms };
        let retention = Retention { ms, ..self.retention };
        let kept_from = self.recent.start();
        self.keyframe = retention.trim(&mut self.writer, arena, newest, keyframe, kept_from);
    }
}
