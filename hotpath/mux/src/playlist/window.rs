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

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
pub struct Part {
    /// Length in milliseconds.
    pub duration_ms: u32,
    /// A decoder can start in it.
    pub independent: bool,
}

/// One segment.
#[derive(Clone, PartialEq, Eq, Debug)]
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

/// The newest segments of a stream.
#[derive(Debug)]
pub struct Window {
    settings: WindowSettings,
    segments: VecDeque<Segment>,
    /// How many of the first are no longer listed.
    behind: usize,
    discontinuity_sequence: u64,
    segment_ms_longest: u32,
    part_ms_longest: u32,
}

impl Window {
    /// An empty window.
    pub fn new(settings: WindowSettings) -> Self {
        Self {
            settings,
            segments: VecDeque::new(),
            behind: 0,
            discontinuity_sequence: 0,
            segment_ms_longest: 0,
            part_ms_longest: 0,
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
                self.part_ms_longest = self.part_ms_longest.max(duration_ms);
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
            self.behind += 1;
            // The discontinuity counts when the segment it stands in front of is gone.
            if self.segments.get(self.behind - 1).is_some_and(|segment| segment.discontinuity) {
                self.discontinuity_sequence += 1;
            }
        }
        if self.behind <= self.settings.behind {
            return None;
        }
        self.behind -= 1;
        self.segments.pop_front().map(|segment| segment.sequence)
    }

    /// Segments of the playlist, the open one last.
    pub fn listed(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().skip(self.behind)
    }

    /// Sequence number of the first listed segment; 0 if there is none.
    pub fn first_sequence(&self) -> u64 {
        self.listed().next().map_or(0, |segment| segment.sequence)
    }

    /// Discontinuities that left the playlist.
    pub fn discontinuity_sequence(&self) -> u64 {
        self.discontinuity_sequence
    }

    /// Segment and part that come next.
    pub fn next_part(&self) -> (u64, u32) {
        match self.segments.back() {
            None => (0, 0),
            Some(segment) if segment.complete => (segment.sequence + 1, 0),
            Some(segment) => {
                (segment.sequence, u32::try_from(segment.parts.len()).unwrap_or(u32::MAX))
            }
        }
    }

    /// True if that part is there, or its segment was given up already.
    pub fn has_part(&self, sequence: u64, part: u32) -> bool {
        let found = self.segments.iter().find(|segment| segment.sequence == sequence);
        found.is_none_or(|segment| (part as usize) < segment.parts.len())
    }

    /// Longest segment ever seen, in milliseconds. Never shrinks, as a target must not.
    pub fn segment_ms_longest(&self) -> u32 {
        self.segment_ms_longest
    }

    /// Longest part ever seen, in milliseconds.
    pub fn part_ms_longest(&self) -> u32 {
        self.part_ms_longest
    }
}
