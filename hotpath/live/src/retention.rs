//! How much of a stream a ring keeps: the same rule for the primary ring and for every other framing.

use ring::{Arena, Position, Writer};

/// Caps on what is kept. The present GOP is kept beyond `ms`, but not beyond the other two.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds of stream time.
    pub ms: u32,
    /// Bytes of wire image.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
}

impl Retention {
    /// Gives whole segments beyond the caps back to the arena. `newest_timestamp` is that of the last
    /// message, `keyframe` where joiners begin. Returns where they begin afterwards: nowhere, if the GOP
    /// was larger than the caps (then the writer has been told).
    pub fn trim(
        self,
        writer: &mut Writer,
        arena: &mut Arena,
        newest_timestamp: u32,
        keyframe: Option<Position>,
    ) -> Option<Position> {
        let mut keyframe = keyframe;
        loop {
            let Some(oldest) = writer.segments().next() else { return keyframe };
            if oldest.end >= writer.head() {
                return keyframe;
            }
            let age_ms = newest_timestamp.wrapping_sub(oldest.last_timestamp);
            let age_ms = if age_ms > i32::MAX as u32 { 0 } else { age_ms };
            let over_caps =
                writer.retained_bytes() > self.bytes || writer.retained_messages() > self.messages;
            let in_gop = keyframe.is_some_and(|keyframe| keyframe < oldest.end);
            if !over_caps && (in_gop || age_ms <= self.ms) {
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
