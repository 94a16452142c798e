//! What a playlist lists: metadata of the newest segments, bounded.
//!
//! ```text
//!   behind: still served, no longer listed │ listed, complete │ open
//! ```
//!
//! Fed with the segmenter's events in order. Bytes are kept by the caller, who lets go of what
//! [`Window::apply`] returns. Memory: [`WindowSettings::listed`] + `behind` + 1 segments with at
//! most [`PARTS_MAX`] parts each.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::segment::{Event, SEGMENT_PARTS_MAX};

/// Parts of a segment that are remembered: all, since the segmenter makes no more.
pub const PARTS_MAX: usize = SEGMENT_PARTS_MAX as usize + 1;

/// Largest number that another process's window is believed to have: whatever follows can still be counted.
const SEQUENCE_MAX: u64 = u64::MAX / 4;

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WindowSettings {
    /// Complete segments in the playlist, at least 1. A playlist must last three target durations,
    /// and six before delta updates leave anything out.
    pub listed: usize,
    /// Segments that are still served after they left the playlist, for players that read it a
    /// moment before.
    pub behind: usize,
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self { listed: 6, behind: 3 }
    }
}

/// One part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Part {
    /// Length in milliseconds.
    pub duration_ms: u32,
    /// A decoder can start in it.
    pub independent: bool,
}

/// One segment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Segment {
    /// Media sequence number.
    pub sequence: u64,
    /// Which init segment it needs.
    pub generation: u32,
    /// It does not continue the one before.
    pub discontinuity: bool,
    /// Starts with a keyframe, or is sound.
    pub independent: bool,
    /// When it began, in milliseconds since 1970.
    pub date_ms: u64,
    /// Sum of the parts so far, in milliseconds.
    pub duration_ms: u32,
    /// It ended.
    pub complete: bool,
    /// Its parts so far.
    pub parts: Vec<Part>,
}

/// Where a window ends: all that a blocking reload is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Edge {
    /// Segment of the next part to come.
    pub next_msn: u64,
    /// Its number in that segment.
    pub next_part: u32,
    /// Parts of the segment before that one.
    pub parts_before: u32,
}

/// The newest segments of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Window {
    settings: WindowSettings,
    segments: VecDeque<Segment>,
    /// How many of the first are no longer listed.
    behind: usize,
    /// Discontinuities in front of segments that are no longer listed.
    discontinuities_behind: u64,
    segment_ms_longest: u32,
    /// What comes next while there is no segment.
    first_sequence: u64,
}

impl Window {
    /// An empty window.
    pub fn new(settings: WindowSettings) -> Self {
        Self::following(settings, 0, 0)
    }

    /// An empty window behind another one, which ended in front of segment `sequence` after so many
    /// discontinuities: to a player both are one playlist.
    pub fn following(settings: WindowSettings, sequence: u64, discontinuities: u64) -> Self {
        Self {
            settings,
            segments: VecDeque::new(),
            behind: 0,
            discontinuities_behind: discontinuities,
            segment_ms_longest: 0,
            first_sequence: sequence,
        }
    }

    /// An empty window for another rendition of the same stream, which begins with the next segment: numbers
    /// and target are those of this one.
    #[must_use]
    pub fn beside(&self) -> Self {
        let (sequence, _) = self.next_part();
        let segment_ms_longest = self.segment_ms_longest;
        let window = Self::following(self.settings, sequence, self.discontinuities());
        Self { segment_ms_longest, ..window }
    }

    /// Goes on with other settings in another process: what leaves the window for them is no longer
    /// [kept](Self::kept). `None` if its numbers do not fit together, as those of one that was built do.
    #[must_use]
    pub fn resume(mut self, settings: WindowSettings) -> Option<Self> {
        let first = self.segments.front().map_or(self.first_sequence, |first| first.sequence);
        let is_in_order =
            || (first..).zip(&self.segments).all(|(sequence, s)| s.sequence == sequence);
        let complete = self.segments.iter().take_while(|segment| segment.complete).count();
        let is_sound = first <= SEQUENCE_MAX
            && is_in_order()
            && complete + 1 >= self.segments.len()
            && self.behind <= complete
            && self.discontinuities_behind <= SEQUENCE_MAX
            && self.segments.iter().all(|segment| segment.parts.len() <= PARTS_MAX);
        if !is_sound {
            return None;
        }
        self.settings = settings;
        for _ in settings.listed.max(1)..complete - self.behind {
            self.unlist();
        }
        while self.behind > settings.behind {
            self.pop();
        }
        Some(self)
    }

    /// Forgets which parts complete segments up to number `sequence` are made of: they are served whole.
    pub fn join_parts(&mut self, sequence: u64) {
        let up_to = |segment: &&mut Segment| segment.complete && segment.sequence <= sequence;
        for segment in self.segments.iter_mut().take_while(up_to) {
            segment.parts = Vec::new();
        }
    }

    /// Takes an event. Returns the sequence number of a segment that is no longer kept.
    pub fn apply(&mut self, event: &Event) -> Option<u64> {
        match *event {
            Event::Init { .. } => None,
            Event::Begin { sequence, generation, discontinuity, independent, date_ms } => {
                self.segments.push_back(Segment {
                    sequence,
                    generation,
                    discontinuity,
                    independent,
                    date_ms,
                    duration_ms: 0,
                    complete: false,
                    parts: Vec::new(),
                });
                None
            }
            Event::Part { duration_ms, independent, .. } => {
                let segment = self.segments.back_mut()?;
                segment.duration_ms = segment.duration_ms.saturating_add(duration_ms);
                if segment.parts.len() < PARTS_MAX {
                    segment.parts.push(Part { duration_ms, independent });
                }
                None
            }
            Event::End { duration_ms, .. } => {
                let segment = self.segments.back_mut()?;
                segment.complete = true;
                segment.duration_ms = duration_ms;
                self.segment_ms_longest = self.segment_ms_longest.max(duration_ms);
                self.slide()
            }
        }
    }

    /// One segment more is complete: one leaves the playlist, and one the window.
    fn slide(&mut self) -> Option<u64> {
        if self.segments.len() - self.behind > self.settings.listed.max(1) {
            self.unlist();
        }
        if self.behind <= self.settings.behind { None } else { self.pop() }
    }

    /// Gives up the oldest segment although the settings would keep it, for want of memory. Returns
    /// its sequence number; `None`, and nothing is given up, if it is the only complete one.
    pub fn forget_oldest(&mut self) -> Option<u64> {
        if self.segments.iter().filter(|segment| segment.complete).count() < 2 {
            return None;
        }
        if self.behind == 0 {
            self.unlist();
        }
        self.pop()
    }

    fn unlist(&mut self) {
        if self.segments.get(self.behind).is_some_and(|segment| segment.discontinuity) {
            self.discontinuities_behind += 1;
        }
        self.behind += 1;
    }

    fn pop(&mut self) -> Option<u64> {
        self.behind -= 1;
        self.segments.pop_front().map(|segment| segment.sequence)
    }

    /// Segments of the playlist, the open one last.
    pub fn listed(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().skip(self.behind)
    }

    /// Sequence number of the first listed segment, or of the one to come.
    pub fn first_sequence(&self) -> u64 {
        self.listed().next().map_or(self.first_sequence, |segment| segment.sequence)
    }

    /// Discontinuities that left the playlist. The one in front of the first listed segment has: a
    /// player counts from this number on, and finds no tag there.
    pub fn discontinuity_sequence(&self) -> u64 {
        let first = self.listed().next().is_some_and(|segment| segment.discontinuity);
        self.discontinuities_behind.saturating_add(first.into())
    }

    /// Segments that are served, those that are no longer listed first.
    pub fn kept(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// All discontinuities so far, listed ones included.
    pub fn discontinuities(&self) -> u64 {
        let listed = self.listed().filter(|segment| segment.discontinuity).count();
        self.discontinuities_behind.saturating_add(listed as u64)
    }

    /// Where it ends.
    pub fn edge(&self) -> Edge {
        let (next_msn, next_part) = self.next_part();
        let before = match self.segments.back() {
            Some(segment) if segment.complete => Some(segment),
            _ => self.segments.len().checked_sub(2).and_then(|at| self.segments.get(at)),
        };
        let parts_before = before.map_or(0, |segment| segment.parts.len());
        Edge { next_msn, next_part, parts_before: u32::try_from(parts_before).unwrap_or(u32::MAX) }
    }

    /// Segment and part that come next.
    pub fn next_part(&self) -> (u64, u32) {
        match self.segments.back() {
            None => (self.first_sequence, 0),
            Some(segment) if segment.complete => (segment.sequence + 1, 0),
            Some(segment) => {
                (segment.sequence, u32::try_from(segment.parts.len()).unwrap_or(u32::MAX))
            }
        }
    }

    /// Longest segment ever seen, in milliseconds. Never shrinks, as a target must not.
    pub fn segment_ms_longest(&self) -> u32 {
        self.segment_ms_longest
    }

    /// Longest part kept, in milliseconds. One gap in the stream's time does not spoil the part
    /// target for longer than it is in the window.
    pub fn part_ms_longest(&self) -> u32 {
        let parts = self.segments.iter().flat_map(|segment| &segment.parts);
        parts.map(|part| part.duration_ms).max().unwrap_or(0)
    }
}
