//! How much of a stream a ring keeps: the same rule for the primary ring and for every other framing.

use ring::{Arena, Position, Writer};
use rtmp::Millis;

/// Caps on what is kept. The present GOP is kept beyond `ms`, but not beyond the other two.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds of stream time; 0 keeps nothing by its age.
    pub ms: u32,
    /// Bytes of wire image.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
}

impl Retention {
    /// Gives whole segments beyond the caps back to the arena. Within the caps the present GOP is kept, and
    /// what ends behind `kept_from`, however old it is in stream time. `newest_timestamp` is that of the last
    /// message, `keyframe` where joiners begin. Returns where they begin afterwards: nowhere, if the GOP was
    /// larger than the caps, or than the ring has room for (then the writer has been told).
    pub fn trim(
        self,
        writer: &mut Writer,
        arena: &mut Arena,
        newest_timestamp: u32,
        keyframe: Option<Position>,
        kept_from: Position,
    ) -> Option<Position> {
        let mut keyframe = keyframe;
        loop {
            let Some(oldest) = writer.segments().next() else { return keyframe };
            if oldest.end >= writer.head() {
                return keyframe;
            }
            let age_ms = newest_timestamp.wrapping_sub(oldest.last_timestamp);
            let age_ms = if age_ms > i32::MAX as u32 { 0 } else { age_ms };
            let over_caps = writer.retained_bytes() > self.bytes
                || writer.retained_messages() > self.messages
                || writer.is_crowded();
            let in_gop = keyframe.is_some_and(|keyframe| keyframe < oldest.end);
            let is_kept = in_gop || oldest.end > kept_from || age_ms < self.ms;
            if !over_caps && is_kept {
                return keyframe;
            }
            if in_gop {
                keyframe = None;
                writer.set_join(None);
            }
            writer.trim(arena, oldest.end);
        }
    }
}

/// Most that one look adds to the time that has passed, in milliseconds: a worker looks far more often, and
/// one that had no processor has served nobody meanwhile.
const LOOK_MS_MAX: u64 = 100;

/// Remembers what was published lately: those who keep up may not have been sent it yet. At first that is
/// everything.
#[derive(Copy, Clone, Debug, Default)]
pub struct Recent {
    looked_at: Millis,
    /// Since `newer` was noted.
    passed_ms: u64,
    older: Position,
    newer: Position,
}

impl Recent {
    /// Looks at the head. What was published within the last `span_ms` milliseconds is recent from then on,
    /// and up to twice as much.
    pub fn look(&mut self, head: Position, now: Millis, span_ms: u32) {
        self.passed_ms += now.0.saturating_sub(self.looked_at.0).min(LOOK_MS_MAX);
        self.looked_at = now;
        if self.passed_ms >= u64::from(span_ms) {
            (self.older, self.newer, self.passed_ms) = (self.newer, head, 0);
        }
    }

    /// Where it begins, as of the last look.
    pub fn start(&self) -> Position {
        self.older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_within_the_span_is_recent() {
        let mut recent = Recent::default();
        // A byte a millisecond.
        for ms in (0..10_000).step_by(50) {
            recent.look(Position(ms), Millis(ms), 1_000);
            let kept_ms = ms - recent.start().0;
            assert!((1_000..=2_000).contains(&kept_ms) || recent.start() == Position(0), "{ms}");
        }
        assert!(recent.start().0 >= 8_000);
    }

    #[test]
    fn time_in_which_nobody_looked_hardly_counts() {
        let mut recent = Recent::default();
        for at in 1..=9 {
            recent.look(Position(at), Millis(60_000 * at), 1_000);
            assert_eq!(recent.start(), Position(0));
        }
    }
}
