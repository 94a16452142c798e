//! Finding messages in a tap's view: binary search over segments, then over a segment's index.
//!
//! Nothing here touches shared words; every answer is about the last refresh.

use crate::message::{MessageView, Position};

use super::{Segment, Tap};

impl Segment {
    /// Number of the first entry that starts at or behind `position`; `messages` when none does.
    fn entry_at_or_after(&self, position: u64) -> u32 {
        let (mut low, mut high) = (0, self.messages);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.base + u64::from(self.entry(middle).offset) < position {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn message(&self, number: u32) -> MessageView {
        self.entry(number).view(self.base)
    }
}

impl Tap {
    /// The message that starts at `start`; `None` when none does or it is outside the view.
    #[must_use]
    pub fn message_at(&self, start: Position) -> Option<MessageView> {
        let segment = self.segment_at(start.0)?;
        let number = segment.entry_at_or_after(start.0);
        let message = (number < segment.messages).then(|| segment.message(number))?;
        (message.start == start).then_some(message)
    }

    /// The message of which `position` is a byte; `None` outside the view.
    #[must_use]
    pub fn message_containing(&self, position: Position) -> Option<MessageView> {
        let segment = self.segment_at(position.0)?;
        let number = segment.entry_at_or_after(position.0 + 1).checked_sub(1)?;
        let message = segment.message(number);
        (position < message.end).then_some(message)
    }

    /// The messages that start at or behind `from`, in order, up to the view's head.
    #[must_use]
    pub fn messages_from(&self, from: Position) -> Messages<'_> {
        let segment = self.segments.partition_point(|segment| segment.end <= from.0);
        let entry = self.segments.get(segment).map_or(0, |s| s.entry_at_or_after(from.0));
        Messages { tap: self, segment, entry }
    }

    /// The first message boundary at or behind `position`: the start of a message, or the head.
    /// `None` when `position` is before the tail or behind the head.
    #[must_use]
    pub fn boundary_at_or_after(&self, position: Position) -> Option<Position> {
        if position < self.view.tail || position > self.view.head {
            return None;
        }
        let boundary = match self.message_containing(position) {
            Some(message) if message.start == position => message.start,
            Some(message) => message.end,
            None => self.view.head,
        };
        Some(boundary)
    }

    /// The first keyframe that starts at or behind `position`; `None` when the view has none.
    #[must_use]
    pub fn keyframe_at_or_after(&self, position: Position) -> Option<MessageView> {
        self.messages_from(position).find(MessageView::is_keyframe)
    }

    /// The segment that holds `position`. Cursors are mostly near the head, so the two newest
    /// segments are tried before searching.
    #[inline]
    pub(super) fn segment_at(&self, position: u64) -> Option<&Segment> {
        if position < self.view.tail.0 || position >= self.view.head.0 {
            return None;
        }
        let newest = self.segments.len().checked_sub(1)?;
        for near in [newest, newest.saturating_sub(1)] {
            if self.segments[near].base <= position && position < self.segments[near].end {
                return Some(&self.segments[near]);
            }
        }
        let at = self.segments.partition_point(|segment| segment.end <= position);
        self.segments.get(at)
    }
}

/// Iterator over messages of a tap's view; see [`Tap::messages_from`].
#[derive(Clone, Debug)]
pub struct Messages<'t> {
    tap: &'t Tap,
    segment: usize,
    entry: u32,
}

impl Iterator for Messages<'_> {
    type Item = MessageView;

    fn next(&mut self) -> Option<MessageView> {
        loop {
            let segment = self.tap.segments.get(self.segment)?;
            if self.entry < segment.messages {
                self.entry += 1;
                return Some(segment.message(self.entry - 1));
            }
            self.segment += 1;
            self.entry = 0;
        }
    }
}
