//! One subscriber of a stream: a cursor into the ring and the rules for moving it.
//!
//! The worker asks for the next bytes ([`Subscriber::next_lease`] or, for the unusual subscriber,
//! [`Subscriber::copy_next`]), reports what the socket took ([`Subscriber::on_sent`]) and asks once
//! in a while whether the subscriber has fallen behind ([`Subscriber::check_lag`]). Nothing here
//! allocates, except `copy_next` into the caller's buffer.
//!
//! ```text
//!              join position known                   lag over limit, ring overrun
//!   Waiting ─────────────────────────► Flowing ───────────────────────────────► Skipping
//!    ▲  ▲                               │    ▲                                      │
//!    │  │ stream ended, all sent        │    │ resume within the ring               │ message finished
//!    │  └───────────────────────────────┘    │                                      │
//!    │                                  Paused                                      │
//!    └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A subscriber never stops inside a message: replies may be written, and jumps made, only when
//! [`Subscriber::is_mid_message`] is false.

use alloc::vec::Vec;

use ring::{
    Head, JoinPoint, Lease, MessageFlags, MessageKind, MessageView, Position, Preamble, Tap,
};
use rtmp::Millis;

#[cfg(feature = "serde")]
use crate::record::{SubscriberRecord, SubscriberState};
use crate::wait::Wait;

/// Time a subscriber is given to take a burst of the publisher before its lag counts, in milliseconds.
const BURST_MS_MAX: u64 = 1_000;

/// Settings of a subscriber, from its vhost.
#[derive(Copy, Clone, Debug)]
pub struct SubscriberConfig {
    /// Start from the newest keyframe in the ring; otherwise from the next one.
    pub gop_cache: bool,
    /// Largest lag behind the head, in milliseconds of stream time, before a skip.
    pub lag_ms_max: u32,
    /// Longest time without progress while bytes wait, in milliseconds, before a close.
    pub stall_ms_max: u32,
    /// How long a joiner waits for a keyframe in a stream that has video but shows none, in
    /// milliseconds; then it starts at the head (streams with intra refresh have no keyframes).
    pub keyframe_wait_ms_max: u32,
}

impl Default for SubscriberConfig {
    fn default() -> Self {
        Self {
            gop_cache: true,
            lag_ms_max: 8_000,
            stall_ms_max: 15_000,
            keyframe_wait_ms_max: 5_000,
        }
    }
}

/// Which messages a subscriber wants and under which message stream id.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Message stream id of the `NetStream` it plays on.
    pub msid: u32,
    /// False after `receiveAudio(false)`.
    pub audio: bool,
    /// False after `receiveVideo(false)`.
    pub video: bool,
    /// The choice is for good (an address asked for one track only), so that configurations of the
    /// other track are left out too.
    pub is_fixed: bool,
}

impl Selection {
    /// Everything, under this message stream id.
    pub const fn all(msid: u32) -> Self {
        Self { msid, audio: true, video: true, is_fixed: false }
    }

    /// True if the shared wire image can be sent as it is.
    pub fn is_shared(self) -> bool {
        self.audio && self.video && self.msid == rtmp::chunk::MEDIA_MSID
    }
}

/// Where a subscriber begins to read, and what it is to be told first.
#[derive(Clone, Debug)]
pub struct Join {
    /// First message to send.
    pub position: Position,
    /// Metadata and sequence headers to send before it.
    pub preamble: Option<Preamble>,
    /// Timestamp for the preamble's messages, in milliseconds on the stream's timeline.
    pub timestamp: u32,
}

/// Why a subscriber is to be closed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Hopeless {
    /// No byte was taken for `stall_ms_max`.
    Stalled,
    /// Fell out of the ring twice without reaching the head in between.
    Overrun,
}

/// What [`Subscriber::check_lag`] found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum LagVerdict {
    /// Within its limits.
    Fine,
    /// Too far behind: a skip to the newest keyframe has begun.
    SkipStarted {
        /// Lag at its start, in milliseconds of stream time.
        lag_ms: u32,
        /// The cursor had fallen out of the ring.
        overrun: bool,
    },
    /// To be closed.
    Close(Hopeless),
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// Has no place in the ring; a join must lie at or after `not_before`.
    Waiting {
        /// When it could first have joined: a wait for a publisher is no wait for a keyframe.
        since: Option<Wait>,
        not_before: Position,
    },
    Flowing,
    /// Sends the rest of the message it is in, then waits for a keyframe behind it.
    Skipping,
    Paused,
}

/// A subscriber's place in a stream.
#[derive(Debug)]
pub struct Subscriber {
    state: State,
    selection: Selection,
    /// Next byte to send.
    cursor: Position,
    /// Send up to here; the head of the flush that is being served.
    target: Position,
    /// The stream has ended here: nothing behind it is sent before the peer has been told.
    limit: Option<Position>,
    /// The peer has asked for a pause, also while there is nothing to pause yet.
    wants_pause: bool,
    /// End of the message that the cursor is inside of; equal to the cursor on a boundary.
    message_end: Position,
    /// Keeps the rest of a half-sent message although the ring may have moved on.
    held: Option<Lease>,
    /// A lease was handed out and its fate not reported yet: no jump before that.
    is_in_flight: bool,
    /// Nothing has been sent since it was given its place.
    is_joining: bool,
    /// The head when it last looked for a place.
    head_seen: Position,
    last_progress: Millis,
    /// When it last had taken everything.
    behind_since: Millis,
    overruns: u8,
    /// Video is left out until the next keyframe, since `receiveVideo(true)` came.
    video_from_keyframe: Option<Wait>,
    skips: u32,
}

impl Subscriber {
    /// A subscriber that waits for its first join.
    pub fn new(selection: Selection, now: Millis) -> Self {
        Self {
            state: State::Waiting { since: None, not_before: Position(0) },
            selection,
            cursor: Position(0),
            target: Position(0),
            limit: None,
            wants_pause: false,
            message_end: Position(0),
            held: None,
            is_in_flight: false,
            is_joining: false,
            head_seen: Position(0),
            last_progress: now,
            behind_since: now,
            overruns: 0,
            video_from_keyframe: None,
            skips: 0,
        }
    }

    /// What it wants.
    pub fn selection(&self) -> Selection {
        self.selection
    }

    /// True while it has no place in the ring.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// True after a pause request.
    pub fn is_paused(&self) -> bool {
        self.wants_pause
    }

    /// True if part of a message is sent and the rest is not.
    pub fn is_mid_message(&self) -> bool {
        self.cursor < self.message_end
    }

    /// Next byte to send.
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// How many skips it has made.
    pub fn skips(&self) -> u32 {
        self.skips
    }

    /// Looks for a place to start. With `Some`, the subscriber flows from there and the caller
    /// sends the preamble first.
    pub fn poll_join(
        &mut self,
        config: &SubscriberConfig,
        tap: &Tap,
        head: &Head,
        has_video: bool,
        now: Millis,
    ) -> Option<Join> {
        let State::Waiting { since, not_before } = self.state else { return None };
        if self.wants_pause {
            return None;
        }
        let keyframe = tap
            .join_point()
            .filter(|join| join.position >= not_before && (config.gop_cache || not_before.0 > 0));
        let mut since = since.unwrap_or(Wait::begin(now));
        let has_news = core::mem::replace(&mut self.head_seen, head.head) != head.head;
        let is_over = match has_news {
            true => since.is_over(now, config.keyframe_wait_ms_max),
            // A stream that stands still shows nothing, and no lack of keyframes either.
            false => since.pass(now),
        };
        self.state = State::Waiting { since: Some(since), not_before };
        let start = match keyframe {
            Some(join) => join,
            None if !config.gop_cache && not_before.0 == 0 => {
                // The next keyframe counts, not the one that is already here.
                let not_before = Position(head.head.0.max(1));
                self.state = State::Waiting { since: Some(since), not_before };
                return None;
            }
            None if has_video && !is_over => return None,
            None if head.head < not_before => return None,
            None => JoinPoint { position: head.head, preamble: tap.preamble() },
        };
        let timestamp = match tap.message_at(start.position) {
            Some(message) => message.meta.timestamp,
            None => newest_timestamp(tap, head),
        };
        self.state = State::Flowing;
        self.limit = None;
        self.cursor = start.position;
        self.message_end = start.position;
        self.is_joining = true;
        self.target = head.head;
        self.last_progress = now;
        self.behind_since = now;
        Some(Join { position: start.position, preamble: start.preamble, timestamp })
    }

    /// Allows sending up to `head`. Bytes that begin to wait now start the stall clock.
    pub fn set_target(&mut self, head: Position, now: Millis) {
        let head = self.limit.map_or(head, |limit| head.min(limit));
        if self.state == State::Flowing && head > self.target {
            if self.cursor >= self.target {
                self.last_progress = now;
                self.behind_since = now;
            }
            self.target = head;
        }
    }

    /// The stream has ended at `end`: send up to there and no further, until
    /// [`Subscriber::on_stream_end`].
    pub fn set_limit(&mut self, end: Position, now: Millis) {
        self.limit = Some(end);
        self.set_target(end, now);
        self.target = self.target.min(end.max(self.cursor)).max(self.message_end);
    }

    /// True if it may send something now.
    pub fn has_pending(&self) -> bool {
        match self.state {
            State::Flowing => self.cursor < self.target,
            State::Skipping | State::Paused | State::Waiting { .. } => self.is_mid_message(),
        }
    }

    /// True if it has fallen out of the ring, and has nothing of a message in hand to finish first.
    pub fn is_overrun(&self, tap: &Tap) -> bool {
        self.state == State::Flowing && self.cursor < tap.view().tail && self.held.is_none()
    }

    /// The next bytes of the shared wire image: all of a segment up to the target, so a lease ends
    /// where a message ends. The first lease after a join is one message, the keyframe: the pictures of all
    /// who join at the same time leave before the rest of anybody's GOP. `None` if there is
    /// nothing to send, or if the cursor has fallen out of the ring (then [`Subscriber::check_lag`] says what
    /// to do). Each lease is answered by one [`Subscriber::on_sent`].
    pub fn next_lease(&mut self, tap: &Tap) -> Option<Lease> {
        if self.state == State::Flowing && self.cursor < self.target {
            let mut target = self.target;
            if core::mem::take(&mut self.is_joining)
                && let Some(message) = tap.message_at(self.cursor)
            {
                target = target.min(message.end);
            }
            let wanted = usize::try_from(target.bytes_since(self.cursor));
            if let Some(lease) = tap.lease(self.cursor, wanted.unwrap_or(usize::MAX)) {
                self.is_in_flight = true;
                return Some(lease);
            }
        }
        self.rest_lease(tap)
    }

    /// The rest of the message that is half sent, and no more.
    pub fn rest_lease(&mut self, tap: &Tap) -> Option<Lease> {
        let lease = self.held.clone().or_else(|| self.lease_rest(tap));
        self.is_in_flight = lease.is_some();
        lease
    }

    fn lease_rest(&self, tap: &Tap) -> Option<Lease> {
        let rest = usize::try_from(self.message_end.bytes_since(self.cursor)).unwrap_or(0);
        if rest == 0 { None } else { tap.lease(self.cursor, rest) }
    }

    /// The socket took `bytes` of `lease`, the last one handed out. The rest of a message sent in
    /// part is kept from reuse.
    pub fn on_sent(&mut self, tap: &Tap, lease: &Lease, bytes: usize, now: Millis) {
        self.is_in_flight = false;
        if bytes > 0 {
            self.last_progress = now;
            let lease_end = self.cursor.after(lease.len() as u64);
            self.cursor = self.cursor.after(bytes as u64);
            self.held = None;
            if self.cursor >= lease_end {
                self.message_end = self.cursor;
                self.overruns = if self.cursor >= self.target { 0 } else { self.overruns };
            } else {
                self.hold_rest(tap, lease, bytes, lease_end);
            }
        }
        self.finish_skip();
    }

    /// After a short send. If the ring has dropped the message meanwhile, the lease has all that is
    /// left of it, and ends where a message ends.
    fn hold_rest(&mut self, tap: &Tap, lease: &Lease, bytes: usize, lease_end: Position) {
        match tap.message_containing(self.cursor) {
            Some(message) if message.start == self.cursor => self.message_end = self.cursor,
            Some(message) => {
                self.message_end = message.end;
                self.held = self.lease_rest(tap);
            }
            None => {
                self.message_end = lease_end;
                self.held = Some(lease.suffix(bytes));
            }
        }
    }

    /// The rest of the message it is in the middle of, which is then no more this subscriber's to send: the
    /// caller sends it before anything else. Nothing may be in flight.
    pub fn take_rest(&mut self, tap: &Tap) -> Option<Lease> {
        let rest = self.rest_lease(tap);
        self.is_in_flight = false;
        self.held = None;
        self.cursor = self.message_end.max(self.cursor);
        self.finish_skip();
        rest
    }

    /// Where it goes on in the ring; `None` while it has no place there.
    pub fn place(&self) -> Option<Position> {
        (!self.is_waiting()).then_some(self.cursor)
    }

    /// Stream time between the cursor and the head, in milliseconds; 0 if it is not flowing.
    pub fn lag_ms(&self, tap: &Tap, head: &Head) -> u32 {
        if self.state != State::Flowing || self.cursor >= head.head {
            return 0;
        }
        let newest = newest_timestamp(tap, head);
        let at = self.cursor.max(head.tail);
        let lag = tap.message_containing(at).map_or(0, |m| newest.wrapping_sub(m.meta.timestamp));
        // Small disorder between audio and video shows as a negative lag.
        if lag > i32::MAX as u32 { 0 } else { lag }
    }

    /// Decides whether the subscriber has fallen too far behind.
    pub fn check_lag(
        &mut self,
        config: &SubscriberConfig,
        tap: &Tap,
        head: &Head,
        now: Millis,
    ) -> LagVerdict {
        let stalled_ms = now.0.saturating_sub(self.last_progress.0);
        if self.has_pending() && stalled_ms >= u64::from(config.stall_ms_max) {
            return LagVerdict::Close(Hopeless::Stalled);
        }
        if self.state != State::Flowing || self.is_in_flight {
            return LagVerdict::Fine;
        }
        let lag_ms = self.lag_ms(tap, head);
        let overrun = self.is_overrun(tap);
        if overrun {
            self.overruns = self.overruns.saturating_add(1);
            if self.overruns > 1 || self.is_mid_message() {
                return LagVerdict::Close(Hopeless::Overrun);
            }
        } else if self.cursor >= self.target {
            // It has taken all it was offered.
            return LagVerdict::Fine;
        } else {
            // A publisher that catches up brings seconds of stream time at once: that is no lag yet.
            let behind_ms = now.0.saturating_sub(self.behind_since.0);
            let is_burst = behind_ms < u64::from(config.lag_ms_max).min(BURST_MS_MAX);
            if lag_ms <= config.lag_ms_max || is_burst {
                return LagVerdict::Fine;
            }
        }
        self.state = State::Skipping;
        self.skips = self.skips.saturating_add(1);
        self.finish_skip();
        LagVerdict::SkipStarted { lag_ms, overrun }
    }

    /// Stops or resumes. After a pause the subscriber goes on from its place, or from a newer
    /// keyframe if there is one.
    pub fn set_paused(&mut self, paused: bool, head: &Head, now: Millis) {
        self.wants_pause = paused;
        match (self.state, paused) {
            (State::Flowing | State::Skipping, true) => self.state = State::Paused,
            (State::Waiting { not_before, .. }, _) => {
                self.state = State::Waiting { since: None, not_before };
            }
            (State::Paused, false) => {
                self.last_progress = now;
                let newer_keyframe = head.join.is_some_and(|join| join > self.cursor);
                if newer_keyframe || self.cursor < head.tail {
                    self.state = State::Skipping;
                    self.finish_skip();
                } else {
                    self.state = State::Flowing;
                }
            }
            _ => {}
        }
    }

    /// Changes what it wants to hear (`receiveAudio`, `receiveVideo`).
    pub fn select(&mut self, selection: Selection, now: Millis) {
        if selection.video && !self.selection.video {
            self.video_from_keyframe = Some(Wait::begin(now));
        }
        self.selection = selection;
    }

    /// The stream has ended and all of it is sent: wait for the next publisher.
    pub fn on_stream_end(&mut self) {
        self.limit = None;
        self.message_end = self.cursor;
        self.wait_behind_cursor();
    }

    /// True if the shared wire image does for this subscriber.
    pub fn is_shared(&self) -> bool {
        self.selection.is_shared() && self.video_from_keyframe.is_none()
    }

    /// The unusual subscriber: appends its next whole messages to `out`, each with this
    /// subscriber's message stream id, leaving out what it does not want, until `out` holds
    /// `bytes_max` or more or the target is reached. The cursor moves at once.
    pub fn copy_next(
        &mut self,
        config: &SubscriberConfig,
        tap: &Tap,
        out: &mut Vec<u8>,
        bytes_max: usize,
        now: Millis,
    ) {
        if self.state != State::Flowing {
            return;
        }
        while self.cursor < self.target && out.len() < bytes_max {
            let Some(message) = tap.message_at(self.cursor) else { break };
            if self.wants(&message, config, now) {
                let bytes = usize::try_from(message.end.0 - message.start.0).unwrap_or(0);
                let Some(image) = tap.lease(message.start, bytes) else { break };
                append_with_msid(&image, self.selection.msid, out);
            }
            self.cursor = message.end;
            self.message_end = message.end;
            self.last_progress = now;
        }
        if self.cursor >= self.target {
            self.overruns = 0;
        }
    }

    fn wants(&mut self, message: &MessageView, config: &SubscriberConfig, now: Millis) -> bool {
        let flags = message.meta.flags;
        if flags.contains(MessageFlags::SEQUENCE_HEADER) && !self.selection.is_fixed {
            // Told always: what was switched off may be switched on again.
            return true;
        }
        match message.meta.kind {
            MessageKind::Audio => self.selection.audio,
            MessageKind::Data => true,
            MessageKind::Video if !self.selection.video => false,
            MessageKind::Video => {
                let Some(since) = &mut self.video_from_keyframe else { return true };
                let is_over = since.is_over(now, config.keyframe_wait_ms_max);
                if flags.contains(MessageFlags::KEYFRAME) || is_over {
                    self.video_from_keyframe = None;
                }
                self.video_from_keyframe.is_none()
            }
        }
    }

    fn finish_skip(&mut self) {
        if self.state == State::Skipping && !self.is_mid_message() && !self.is_in_flight {
            self.wait_behind_cursor();
        }
    }

    fn wait_behind_cursor(&mut self) {
        self.held = None;
        let not_before = Position(self.cursor.0.max(1));
        self.state = State::Waiting { since: None, not_before };
    }
}

#[cfg(feature = "serde")]
impl Subscriber {
    /// This subscriber as a record. Nothing may be in flight, and the message it was in the middle of must
    /// have been taken by [`Subscriber::take_rest`].
    pub fn to_record(&self) -> SubscriberRecord {
        debug_assert!(!self.is_in_flight && !self.is_mid_message(), "at rest between two messages");
        let Selection { msid, audio, video, is_fixed } = self.selection;
        SubscriberRecord {
            state: match self.state {
                State::Waiting { not_before, .. } => SubscriberState::Waiting(not_before.0),
                State::Flowing | State::Skipping => SubscriberState::Flowing,
                State::Paused => SubscriberState::Paused,
            },
            msid,
            audio,
            video,
            is_fixed,
            cursor: self.cursor.0,
            target: self.target.0,
            limit: self.limit.map(|limit| limit.0),
            wants_pause: self.wants_pause,
            is_joining: self.is_joining,
            last_progress: self.last_progress,
            behind_since: self.behind_since,
            overruns: self.overruns,
            video_from_keyframe: self.video_from_keyframe.map(Wait::numbers),
            skips: self.skips,
        }
    }

    /// The subscriber of a record.
    pub fn from_record(record: &SubscriberRecord) -> Self {
        let SubscriberRecord { msid, audio, video, is_fixed, .. } = *record;
        let cursor = Position(record.cursor);
        Self {
            state: match record.state {
                SubscriberState::Waiting(not_before) => {
                    State::Waiting { since: None, not_before: Position(not_before) }
                }
                SubscriberState::Flowing => State::Flowing,
                SubscriberState::Paused => State::Paused,
            },
            selection: Selection { msid, audio, video, is_fixed },
            cursor,
            target: Position(record.target),
            limit: record.limit.map(Position),
            wants_pause: record.wants_pause,
            message_end: cursor,
            held: None,
            is_in_flight: false,
            is_joining: record.is_joining,
            head_seen: Position(0),
            last_progress: record.last_progress,
            behind_since: record.behind_since,
            overruns: record.overruns,
            video_from_keyframe: record.video_from_keyframe.map(Wait::of_numbers),
            skips: record.skips,
        }
    }
}

/// Timestamp of the last message before the head; 0 while there is none.
fn newest_timestamp(tap: &Tap, head: &Head) -> u32 {
    let last_byte = Position(head.head.0.saturating_sub(1));
    tap.message_containing(last_byte).map_or(0, |message| message.meta.timestamp)
}

/// Appends one message of the wire image with another message stream id: bytes 8..12 of the fmt 0
/// header, little-endian (RTMP 1.0 §5.3.1.2.1). The media csids take a one-byte basic header.
fn append_with_msid(image: &[u8], msid: u32, out: &mut Vec<u8>) {
    const MSID_OFFSET: usize = 8;
    let start = out.len();
    out.extend_from_slice(image);
    if msid == rtmp::chunk::MEDIA_MSID {
        // As it stands there. Other framings have no such field.
        return;
    }
    if let Some(field) = out.get_mut(start + MSID_OFFSET..start + MSID_OFFSET + 4) {
        field.copy_from_slice(&msid.to_le_bytes());
    }
}
