//! Small vocabulary for the ring's tests.
#![allow(dead_code, reason = "each test file uses its part")]

use ring::{Arena, MessageFlags, MessageKind, MessageMeta, Position, RingConfig, RingFull, Writer};

/// A ring so small that everything wraps at once: segments of 8 bytes, two messages each.
pub(crate) fn tiny(slots: u32) -> RingConfig {
    RingConfig {
        segment_bytes: 8,
        slots,
        index_entries_per_segment: 2,
        bytes_max: 64,
        preamble_bytes_max: 8,
    }
}

/// A video message whose whole wire image is body.
pub(crate) fn video(timestamp: u32, bytes: usize, flags: MessageFlags) -> MessageMeta {
    MessageMeta {
        timestamp,
        kind: MessageKind::Video,
        flags,
        header_bytes: 0,
        body_bytes: u32::try_from(bytes).expect("a short message"),
    }
}

/// Publishes a message of `bytes` bytes, each of them `fill`, stamped with `fill`.
pub(crate) fn publish(
    writer: &mut Writer,
    arena: &mut Arena,
    fill: u8,
    bytes: usize,
) -> Result<Position, RingFull> {
    publish_flagged(writer, arena, fill, bytes, MessageFlags::NONE)
}

/// Like `publish`, with flags.
pub(crate) fn publish_flagged(
    writer: &mut Writer,
    arena: &mut Arena,
    fill: u8,
    bytes: usize,
    flags: MessageFlags,
) -> Result<Position, RingFull> {
    writer.reserve(arena, bytes)?;
    writer.reserved_mut().fill(fill);
    Ok(writer.commit(video(u32::from(fill), bytes, flags)))
}
