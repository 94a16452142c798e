//! One timeline per stream: maps each publisher session's timestamps onto the stream's own.
//!
//! Never reads a clock, never allocates, never panics on any timestamp. Called by the publisher
//! once per message, in the order of arrival. All timestamps are 32-bit milliseconds that wrap;
//! they are only compared by their distance, so 0xFFFFFF and 2^32 are places like any other.
//!
//! ```text
//!   in      1000 ──► 9000 ┊ publisher returns ┊ 50 ──► 7050 │ 90 000 (its clock jumped) ──►
//!   offset       0        ┊ 12 000 ms later   ┊   20 950    │        −61 960
//!   out     1000 ──► 9000 ┊      the gap      ┊ 21 000 ───► 28 000 28 040 ──►
//! ```
//!
//! Within a session the mapping adds one number, so distances between messages, of one kind and
//! between audio and video, are those the publisher sent. Small disorder passes through. The number
//! changes only for a *gross jump* of a kind: more than [`BACKWARD_MS_MAX`] back from its last
//! message, or more than [`FORWARD_MS_MAX`] ahead of everything sent, plus the time that has gone by
//! on the clock (which covers pauses, and publishers that drop frames after having fallen behind).
//!
//! Audio and video usually jump together, but never in the same message, and messages sent before
//! the jump may still arrive between. So each kind has its own offset. The first kind to jump gets
//! a new offset that continues its own timeline; the other kind changes to *that* offset when its
//! messages fit it better, and so keeps its exact relation to the first. A kind that jumped alone
//! and comes back finds the old offset with the other kind, or its own previous one.
//!
//! Codec configuration and metadata often carry timestamp 0 in mid-stream. They are placed, but
//! they never move anything.

/// Start of a stream whose publisher does not start near 0, in milliseconds. Not 0, so that audio
/// which belongs a little before the first video still has a place.
pub const START_MS: u32 = 1_000;
/// A kind that goes back further than this has jumped.
pub const BACKWARD_MS_MAX: u32 = 1_000;
/// A kind that goes ahead of the stream and the clock by more than this has jumped.
pub const FORWARD_MS_MAX: u32 = 5_000;
/// The gap before a new session is the time that has gone by, between these.
pub const GAP_MS_MIN: u32 = 40;
/// See [`GAP_MS_MIN`]. Longer than any sensible grace period, shorter than a player's patience.
pub const GAP_MS_MAX: u32 = 60_000;

/// How far the first message of a kind may be behind the other kind, in milliseconds. Wider than
/// for later ones: publishers fill one track's queue before they start the other.
pub(crate) const FIRST_BACKWARD_MS_MAX: u32 = 10_000;
/// How far a stream that lags behind the clock may catch up at once, in milliseconds.
pub(crate) const SLACK_MS_MAX: u32 = 30_000;
/// For so long after a jump the other kind is expected to follow it, in milliseconds.
const PAIR_MS_MAX: u64 = 10_000;
/// Largest distance that counts as a frame's duration, in milliseconds.
const STEP_MS_MAX: i64 = 1_000;
/// A kind's floor follows its messages at this distance, in milliseconds, so that comparing with it
/// is right for ever.
const FLOOR_DISTANCE_MS_MAX: u32 = 600_000;

/// What a timestamp belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// An audio message.
    Audio,
    /// A video message; the timestamp is a decoding time, so B-frames do not matter here.
    Video,
    /// A data message. Always placed like a configuration.
    Data,
}

/// What was repaired since the stream began.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimelineCounters {
    /// Sessions begun, with the first.
    pub sessions: u64,
    /// Gross jumps forward that were taken out.
    pub forward_jumps: u64,
    /// Gross jumps backward that were taken out.
    pub backward_jumps: u64,
    /// Times a kind changed to an offset already in use: the second half of a jump, or its end.
    pub rejoined: u64,
    /// Messages moved up to the beginning of their session, or to the last message before a jump,
    /// because their own place was before that.
    pub floored: u64,
    /// Configurations and data messages whose own timestamp made no sense where they came.
    pub replaced: u64,
}

/// State of one stream's timeline; see the module's documentation.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug)]
pub struct Timeline {
    audio: Lane,
    video: Lane,
    /// Where the session begins on the timeline.
    start: Start,
    /// Newest timestamp given to media; the furthest, not the last.
    newest: u32,
    newest_at_ms: u64,
    /// How far the stream is behind the clock, bounded: what it may catch up at once.
    slack_ms: u32,
    jumped_at_ms: Option<u64>,
    counters: TimelineCounters,
}

#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// First session: a publisher that starts near 0 keeps its own timestamps.
    Fresh,
    /// A session after another, or the first of a stream that begins elsewhere: its first message goes
    /// here.
    At(u32),
}

/// One kind of media within the session.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// `None` until the kind's first message of the session.
    last: Option<Last>,
    /// Offset before the last change: where a kind returns to after a single wild timestamp.
    previous_offset: Option<u32>,
    /// No message goes below this: the end of the last session, or of what came before a jump.
    floor: u32,
}

#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug)]
struct Last {
    offset: u32,
    /// Timestamp and offset added: the message's own place, though it may be below the floor.
    out: u32,
    at_ms: u64,
    /// Last small step forward, in milliseconds: a frame's duration.
    step_ms: u32,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Timeline {
    /// A stream that has had no publisher. The first session may send at once.
    pub fn new() -> Self {
        Self {
            audio: Lane::default(),
            video: Lane::default(),
            start: Start::Fresh,
            newest: 0,
            newest_at_ms: 0,
            slack_ms: 0,
            jumped_at_ms: None,
            counters: TimelineCounters::default(),
        }
    }

    /// A stream that has had no publisher, as one that has run for so long: the first session begins at
    /// `start_ms` (wrapping milliseconds), whatever its own timestamps. 0 is as [`Timeline::new`].
    pub fn starting_at(start_ms: u32) -> Self {
        if start_ms == 0 {
            return Self::new();
        }
        // As at the start of an ordinary stream, there is room for audio before the first video.
        let lane = Lane { floor: start_ms.wrapping_sub(START_MS), ..Lane::default() };
        Self {
            audio: lane,
            video: lane,
            start: Start::At(start_ms),
            newest: lane.floor,
            ..Self::new()
        }
    }

    /// Begins a publisher's session at `now_ms`: its first message follows the stream's newest one
    /// by the time that has gone by since, within [`GAP_MS_MIN`] and [`GAP_MS_MAX`].
    pub fn begin_session(&mut self, now_ms: u64) {
        self.counters.sessions += 1;
        let begun = self.audio.last.is_some() || self.video.last.is_some();
        let lane = Lane { floor: self.newest, ..Lane::default() };
        (self.audio, self.video) = (lane, lane);
        self.slack_ms = 0;
        self.jumped_at_ms = None;
        // A session without media leaves the start where it was.
        if begun {
            let gap_ms = clock_ms(self.newest_at_ms, now_ms).clamp(GAP_MS_MIN, GAP_MS_MAX);
            self.start = Start::At(self.newest.wrapping_add(gap_ms));
        }
    }

    /// Maps one message. `now_ms` is any monotonic clock. `is_config` is for sequence headers and
    /// everything else that has no time of its own.
    pub fn map(&mut self, now_ms: u64, track: Track, timestamp: u32, is_config: bool) -> u32 {
        match track {
            Track::Audio | Track::Video if !is_config => self.map_media(now_ms, track, timestamp),
            Track::Video if self.video.last.is_some() => self.place(now_ms, self.video, timestamp),
            Track::Audio if self.audio.last.is_some() => self.place(now_ms, self.audio, timestamp),
            _ => self.place(now_ms, self.leading_lane(), timestamp),
        }
    }

    /// Newest timestamp given to audio or video, in milliseconds; 0 before the first.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// What was repaired since the stream began.
    pub fn counters(&self) -> TimelineCounters {
        self.counters
    }

    fn map_media(&mut self, now_ms: u64, track: Track, timestamp: u32) -> u32 {
        let (lane, other) = match track {
            Track::Video => (self.video, self.audio.last),
            _ => (self.audio, self.video.last),
        };
        let offset = match (lane.last, other) {
            (Some(last), other) => self.offset_of_next(now_ms, lane, last, other, timestamp),
            (None, Some(other)) => self.offset_of_first(now_ms, other, timestamp),
            (None, None) => {
                self.newest_at_ms = now_ms;
                self.first_of_session(timestamp).wrapping_sub(timestamp)
            }
        };
        self.remember(now_ms, track, offset, timestamp.wrapping_add(offset))
    }

    /// The place of a session's first message.
    fn first_of_session(&self, timestamp: u32) -> u32 {
        match self.start {
            Start::At(start) => start,
            Start::Fresh if timestamp <= START_MS => timestamp,
            Start::Fresh => START_MS,
        }
    }

    /// The offset for a kind's first message of a session, when the other kind came before.
    fn offset_of_first(&mut self, now_ms: u64, other: Last, timestamp: u32) -> u32 {
        let ahead_ms = distance(self.newest, timestamp.wrapping_add(other.offset));
        if ahead_ms < -i64::from(FIRST_BACKWARD_MS_MAX) || ahead_ms > self.ahead_ms_max(now_ms) {
            // The kinds do not share a clock: all that is known is that they arrive together.
            self.count_jump(ahead_ms);
            return self.newest.wrapping_sub(timestamp);
        }
        other.offset
    }

    /// The offset for a kind's next message: its own, another in use that fits better, or a new one.
    fn offset_of_next(
        &mut self,
        now_ms: u64,
        lane: Lane,
        last: Last,
        other: Option<Last>,
        timestamp: u32,
    ) -> u32 {
        let misfit = |offset: u32| self.misfit(now_ms, last, timestamp.wrapping_add(offset));
        let own = misfit(last.offset);
        let known = [other.map(|other| other.offset), lane.previous_offset];
        let candidates = known.into_iter().flatten().filter(|offset| *offset != last.offset);
        let best = candidates.map(|offset| (misfit(offset), offset)).min();
        let follows = self.jumped_at_ms.is_some_and(|at| now_ms.saturating_sub(at) <= PAIR_MS_MAX);
        match best {
            // `min` prefers a fit over a jump, so a sound own offset is left only for a better one.
            Some((fit @ Misfit::Small(_), offset)) if fit < own && (follows || own.is_gross()) => {
                self.counters.rejoined += 1;
                offset
            }
            _ if !own.is_gross() => last.offset,
            _ => {
                self.count_jump(distance(last.out, timestamp.wrapping_add(last.offset)));
                self.jumped_at_ms = Some(now_ms);
                self.after_jump(now_ms, last).wrapping_sub(timestamp)
            }
        }
    }

    /// Where a kind continues that has jumped. The clock says how much time went by, the last step
    /// how much it is at least: in a burst the clock stands still.
    fn after_jump(&self, now_ms: u64, last: Last) -> u32 {
        let gone_ms = i64::from(clock_ms(last.at_ms, now_ms));
        // A kind that was silent for long must not overtake the stream by that time.
        let lead_ms = distance(last.out, self.newest).max(0) + self.ahead_ms_max(now_ms)
            - i64::from(FORWARD_MS_MAX);
        let step_ms = gone_ms.min(lead_ms).max(i64::from(last.step_ms));
        last.out.wrapping_add(u32::try_from(step_ms).unwrap_or(0))
    }

    /// How badly `out` continues a kind, by its distance from where it could be by the clock.
    fn misfit(&self, now_ms: u64, last: Last, out: u32) -> Misfit {
        let step_ms = distance(last.out, out);
        if step_ms < -i64::from(BACKWARD_MS_MAX)
            || distance(self.newest, out) > self.ahead_ms_max(now_ms)
        {
            return Misfit::Gross(step_ms.unsigned_abs());
        }
        let expected_ms_max = i64::from(clock_ms(last.at_ms, now_ms)) + i64::from(self.slack_ms);
        Misfit::Small(if step_ms < 0 {
            step_ms.unsigned_abs()
        } else {
            u64::try_from(step_ms - expected_ms_max).unwrap_or(0)
        })
    }

    /// How far ahead of the newest message one may be that has not jumped.
    fn ahead_ms_max(&self, now_ms: u64) -> i64 {
        let gone_ms = clock_ms(self.newest_at_ms, now_ms);
        i64::from(gone_ms) + i64::from(self.slack_ms) + i64::from(FORWARD_MS_MAX)
    }

    /// The place of a message that has no time of its own: by its timestamp if that is between the
    /// last message and what may come, else with the last message.
    fn place(&mut self, now_ms: u64, lane: Lane, timestamp: u32) -> u32 {
        let Some(last) = lane.last else {
            // Before the first media. A fresh stream may begin at 0 or at START_MS, so at 0.
            return match self.start {
                Start::At(start) => start,
                Start::Fresh => 0,
            };
        };
        let out = timestamp.wrapping_add(last.offset);
        let sent = lane.above_floor(last.out);
        let is_sound =
            distance(sent, out) >= 0 && distance(self.newest, out) <= self.ahead_ms_max(now_ms);
        if is_sound {
            return out;
        }
        self.counters.replaced += 1;
        sent
    }

    /// The kind that is furthest on the timeline.
    fn leading_lane(&self) -> Lane {
        match (self.audio.last, self.video.last) {
            (Some(audio), Some(video)) if distance(video.out, audio.out) > 0 => self.audio,
            (Some(_), None) => self.audio,
            _ => self.video,
        }
    }

    /// Takes over the offset of a message and its own place, and returns the place it gets.
    fn remember(&mut self, now_ms: u64, track: Track, offset: u32, out: u32) -> u32 {
        let is_first = self.audio.last.is_none() && self.video.last.is_none();
        let lane = if track == Track::Video { &mut self.video } else { &mut self.audio };
        lane.remember(now_ms, offset, out);
        let placed = lane.above_floor(out);
        if placed != out {
            self.counters.floored += 1;
        }
        let advance_ms = if is_first { 0 } else { distance(self.newest, placed).max(0) };
        let gone_ms = i64::from(clock_ms(self.newest_at_ms, now_ms));
        let slack_ms = (i64::from(self.slack_ms) + gone_ms - advance_ms).max(0);
        self.slack_ms = u32::try_from(slack_ms).unwrap_or(u32::MAX).min(SLACK_MS_MAX);
        if is_first || advance_ms > 0 {
            self.newest = placed;
        }
        self.newest_at_ms = now_ms;
        placed
    }

    fn count_jump(&mut self, ahead_ms: i64) {
        if ahead_ms < 0 {
            self.counters.backward_jumps += 1;
        } else {
            self.counters.forward_jumps += 1;
        }
    }
}

impl Lane {
    fn remember(&mut self, now_ms: u64, offset: u32, out: u32) {
        let mut step_ms = 0;
        if let Some(last) = self.last {
            step_ms = last.step_ms;
            if last.offset != offset {
                self.previous_offset = Some(last.offset);
                // The two sides of a jump are joined by an estimate; input in order stays so.
                self.floor = self.above_floor(last.out);
            } else if (1..=STEP_MS_MAX).contains(&distance(last.out, out)) {
                step_ms = out.wrapping_sub(last.out);
            }
        }
        self.last = Some(Last { offset, out, at_ms: now_ms, step_ms });
        if !(-i64::from(FLOOR_DISTANCE_MS_MAX)..=i64::from(FLOOR_DISTANCE_MS_MAX))
            .contains(&distance(self.floor, out))
        {
            self.floor = out.wrapping_sub(FLOOR_DISTANCE_MS_MAX);
        }
    }

    fn above_floor(&self, out: u32) -> u32 {
        if distance(self.floor, out) < 0 { self.floor } else { out }
    }
}

/// How a message continues its kind. Ordered: what fits is less than what does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Misfit {
    /// Milliseconds outside of what the clock allows for.
    Small(u64),
    /// A gross jump.
    Gross(u64),
}

impl Misfit {
    fn is_gross(self) -> bool {
        matches!(self, Self::Gross(_))
    }
}

/// From one wrapping timestamp to another, in milliseconds, by the shorter way round.
fn distance(from: u32, to: u32) -> i64 {
    let forward = to.wrapping_sub(from);
    if forward <= u32::MAX / 2 { i64::from(forward) } else { i64::from(forward) - (1 << 32) }
}

/// Clock time gone by, in milliseconds; at most a day, so that sums of it cannot overflow.
fn clock_ms(from_ms: u64, now_ms: u64) -> u32 {
    const DAY_MS: u32 = 86_400_000;
    u32::try_from(now_ms.saturating_sub(from_ms)).unwrap_or(DAY_MS).min(DAY_MS)
}
