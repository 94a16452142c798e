//! One stream as the packager reads it: a tap, and a place in the ring for each rendition.
//!
//! ```text
//!              live, place found            lost          returned
//!   Waiting ─────────────────────► Flowing ─────► Paused ─────────┐
//!      ▲                             │  ▲ ▲                       │ discontinuity
//!      │ fallen out of the ring      │  │ └───────────────────────┘
//!      └─────────────────────────────┤  └─ another publisher took over: discontinuity
//!                                    ▼ the stream has ended
//!                                  Ended: served until nobody asks any more
//! ```
//!
//! Reads positions, never waits. Time is an argument.

use std::sync::Arc;

use live::image::{message_type, whole_body};
use live::preamble;
use ring::{Head, MessageKind, MessageView, Position, Tap};
use rtmp::chunk::Framing;

use super::builder::Builder;
use crate::hand_over::packaging::PlaceRecord;
use crate::registry::{StreamEntry, StreamPhase};

/// A rendition and where it stands.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) builder: Builder,
    /// Next message to take; `None` before there is a place to begin.
    cursor: Option<Position>,
    /// Ends and sessions of the stream that it has seen.
    ends_seen: u64,
    sessions_seen: u64,
    /// The publisher is lost, and what it sent is complete.
    is_paused: bool,
    /// The packager's idea of when somebody asked last, and the count of requests then.
    pub(super) asked: u64,
    pub(super) asked_at_ms: u64,
    /// When packaging began.
    pub(super) begun_at_ms: u64,
}

impl Output {
    /// Where it stands, for a hand-over.
    pub(super) fn place(&self) -> PlaceRecord {
        PlaceRecord {
            cursor: self.cursor.map(|at| at.0),
            ends_seen: self.ends_seen,
            sessions_seen: self.sessions_seen,
            is_paused: self.is_paused,
            begun_at: self.begun_at_ms,
        }
    }
}

/// What a look at a stream found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Followed {
    /// Renditions that fell out of the ring.
    pub(super) overruns: u64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) entry: Arc<StreamEntry>,
    tap: Option<Tap>,
    pub(super) outputs: Vec<Output>,
    /// Bodies that lie in several chunks are put together here.
    scratch: Vec<u8>,
}

/// What the entry says, read before the ring's head.
#[derive(Clone, Copy, Debug)]
struct Look {
    phase: StreamPhase,
    ends: (u64, Position),
    sessions: (u64, Position),
}

impl Look {
    fn at(entry: &StreamEntry) -> Self {
        Self { phase: entry.phase(), ends: entry.ends(), sessions: entry.sessions() }
    }
}

impl Source {
    pub(super) fn new(entry: Arc<StreamEntry>) -> Self {
        Self { entry, tap: None, outputs: Vec::new(), scratch: Vec::new() }
    }

    pub(super) fn add(&mut self, builder: Builder, now_ms: u64) {
        let look = Look::at(&self.entry);
        self.outputs.push(Output {
            asked: builder.rendition().asked(),
            builder,
            cursor: None,
            ends_seen: look.ends.0,
            sessions_seen: look.sessions.0,
            is_paused: false,
            asked_at_ms: now_ms,
            begun_at_ms: now_ms,
        });
    }

    /// Goes on where another process stopped.
    pub(super) fn resume(&mut self, builder: Builder, place: &PlaceRecord, now_ms: u64) {
        self.outputs.push(Output {
            asked: builder.rendition().asked(),
            builder,
            cursor: place.cursor.map(Position),
            ends_seen: place.ends_seen,
            sessions_seen: place.sessions_seen,
            is_paused: place.is_paused,
            asked_at_ms: now_ms,
            begun_at_ms: place.begun_at,
        });
    }

    /// Where on each of its renditions needs the ring, at a standstill.
    pub(super) fn keep_places(&self) {
        let going = self.outputs.iter().filter(|output| !output.builder.is_ended());
        for cursor in going.filter_map(|output| output.cursor) {
            self.entry.keep_from(cursor);
        }
    }

    /// Takes what has come since the last call.
    pub(super) fn follow(&mut self, unix_ms: u64) -> Followed {
        // Before the head: whatever is announced here lies at or before it.
        let look = Look::at(&self.entry);
        if self.tap.is_none() {
            self.tap = self.entry.ring().map(ring::StreamRing::tap);
        }
        let Some(tap) = &mut self.tap else { return Followed::default() };
        let view = tap.refresh();
        let framing = Framing { chunk_bytes: self.entry.chunk_bytes().max(1) };
        let mut followed = Followed::default();
        let newest = newest_timestamp(tap, view);
        let gop_ms = self.entry.gop_ms();
        let scratch = &mut self.scratch;
        let mut follower = Follower { tap, view, framing, look, unix_ms, newest, gop_ms, scratch };
        for output in &mut self.outputs {
            followed.overruns += u64::from(follower.follow(output));
        }
        followed
    }
}

/// One look at a stream, for each of its renditions.
struct Follower<'s> {
    tap: &'s Tap,
    view: Head,
    framing: Framing,
    look: Look,
    unix_ms: u64,
    /// Timestamp of the last message before the head, which is as old as `unix_ms`.
    newest: u32,
    /// Distance of the stream's keyframes, as far as it is known.
    gop_ms: u32,
    scratch: &'s mut Vec<u8>,
}

impl Follower<'_> {
    /// Brings one rendition to the head. True if it had fallen out of the ring.
    fn follow(&mut self, output: &mut Output) -> bool {
        if output.builder.is_ended() {
            return false;
        }
        let mut is_overrun = false;
        if output.cursor.is_some_and(|at| at < self.view.tail || at > self.view.head) {
            output.builder.discontinuity();
            output.cursor = None;
            is_overrun = true;
        }
        if output.cursor.is_none() {
            self.start(output);
        }
        let has_ended = self.look.ends.0 != output.ends_seen;
        let is_other_session = self.look.sessions.0 != output.sessions_seen;
        if has_ended {
            self.take_until(output, self.look.ends.1);
            output.builder.end();
            return is_overrun;
        }
        if is_other_session {
            self.take_until(output, self.look.sessions.1);
            output.builder.discontinuity();
            output.sessions_seen = self.look.sessions.0;
            output.is_paused = false;
        }
        self.take_until(output, self.view.head);
        if output.cursor.is_some() {
            output.builder.caught_up();
        }
        if self.look.phase == StreamPhase::Grace && !output.is_paused {
            output.builder.pause();
            output.is_paused = true;
        }
        is_overrun
    }

    /// Finds the place to begin: the oldest keyframe of what the playlist is to show at first, or
    /// the newest one there is; without keyframes the oldest message.
    fn start(&mut self, output: &mut Output) {
        if self.look.phase != StreamPhase::Live {
            return;
        }
        let join = self.tap.join_point();
        let preamble = match &join {
            Some(join) => join.preamble.clone(),
            None => self.tap.preamble(),
        };
        let valid_from = preamble.as_ref().map_or(Position(0), |preamble| preamble.valid_from);
        let floor = self.view.tail.max(self.look.sessions.1).max(valid_from);
        let history_ms = output.builder.settings().history_ms();
        let newest = self.newest;
        let is_recent = |message: &MessageView| {
            let age_ms = newest.wrapping_sub(message.meta.timestamp);
            age_ms <= history_ms || age_ms > i32::MAX as u32
        };
        let mut messages = self.tap.messages_from(floor).filter(is_recent);
        let start = match join {
            Some(join) => messages
                .find(MessageView::is_keyframe)
                .map_or(join.position, |message| message.start),
            None => messages.next().map_or(self.view.head, |message| message.start),
        };
        let timestamp = self.tap.message_at(start).map_or(newest, |first| first.meta.timestamp);
        if let Some(preamble) = preamble {
            for (kind, body) in preamble::entries(&preamble.bytes) {
                output.builder.push(kind, timestamp, body, self.unix_ms);
            }
        }
        output.builder.expect_gop(self.gop_ms);
        output.cursor = Some(start);
    }

    /// When a message was the newest one. What the ring has held for a while was it earlier than now.
    fn unix_ms_of(&self, timestamp: u32) -> u64 {
        let age_ms = self.newest.wrapping_sub(timestamp);
        let age_ms = if age_ms <= i32::MAX as u32 { age_ms } else { 0 };
        self.unix_ms.saturating_sub(age_ms.into())
    }

    /// Takes the messages from the cursor up to `end`.
    fn take_until(&mut self, output: &mut Output, end: Position) {
        let Some(cursor) = output.cursor else { return };
        let end = end.min(self.view.head);
        let messages = self.tap.messages_from(cursor);
        for message in messages.take_while(|message| message.start < end) {
            self.take(output, &message);
            output.cursor = Some(message.end);
        }
    }

    fn take(&mut self, output: &mut Output, message: &MessageView) {
        if message.meta.kind == MessageKind::Data {
            return;
        }
        let wire_bytes = usize::try_from(message.wire_bytes()).unwrap_or(usize::MAX);
        let Some(image) = self.tap.lease(message.start, wire_bytes) else { return };
        let header_bytes = usize::from(message.meta.header_bytes);
        let body_bytes = usize::try_from(message.meta.body_bytes).unwrap_or(usize::MAX);
        let timestamp = message.meta.timestamp;
        let unix_ms = self.unix_ms_of(timestamp);
        let body = whole_body(&image, header_bytes, body_bytes, self.framing, self.scratch);
        output.builder.push(message_type(message.meta.kind), timestamp, body, unix_ms);
    }
}

fn newest_timestamp(tap: &Tap, view: Head) -> u32 {
    let last = view.head.0.checked_sub(1).map(Position);
    let last = last.and_then(|last| tap.message_containing(last));
    last.map_or(0, |message| message.meta.timestamp)
}
