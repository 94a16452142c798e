//! The message index of a segment: fixed entries of 20 bytes, one per message, in wire order.
//!
//! ```text
//!   0        4        8           12          16     17      18      20
//!   | offset | end    | body_bytes | timestamp | kind | header| flags  |   native byte order
//! ```
//!
//! `offset` and `end` are relative to the segment's base. An entry is written once, before the head
//! passes its message, and never changed while the segment lives.

use crate::block::RawBlock;
use crate::message::{MessageFlags, MessageKind, MessageMeta, MessageView, Position};

/// Bytes of one entry.
pub(crate) const ENTRY_BYTES: u32 = 20;

/// Bytes of an index with room for `entries`.
pub(crate) const fn index_bytes(entries: u32) -> u32 {
    entries * ENTRY_BYTES
}

/// One decoded entry.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: u32,
    pub(crate) end: u32,
    pub(crate) meta: MessageMeta,
}

impl Entry {
    /// Writes entry `number`.
    ///
    /// # Safety
    /// The caller owns the index's segment as its writer, and `number` is not yet committed.
    pub(crate) unsafe fn write(self, index: RawBlock, number: u32) {
        let kind = match self.meta.kind {
            MessageKind::Audio => 0,
            MessageKind::Video => 1,
            MessageKind::Data => 2,
        };
        // SAFETY: the caller is the one writer, and readers stop before `number`.
        let out = unsafe { index.part(number * ENTRY_BYTES, ENTRY_BYTES).as_mut_slice() };
        out[0..4].copy_from_slice(&self.offset.to_ne_bytes());
        out[4..8].copy_from_slice(&self.end.to_ne_bytes());
        out[8..12].copy_from_slice(&self.meta.body_bytes.to_ne_bytes());
        out[12..16].copy_from_slice(&self.meta.timestamp.to_ne_bytes());
        out[16] = kind;
        out[17] = self.meta.header_bytes;
        out[18..20].copy_from_slice(&self.meta.flags.bits().to_ne_bytes());
    }

    /// Reads entry `number`.
    ///
    /// # Safety
    /// The caller holds the index's segment (pinned, or as its writer), and `number` is below a
    /// committed count it has acquired.
    #[inline]
    pub(crate) unsafe fn read(index: RawBlock, number: u32) -> Self {
        // SAFETY: committed entries are never written again while the segment is held.
        let bytes = unsafe { index.part(number * ENTRY_BYTES, ENTRY_BYTES).as_slice() };
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            offset: word(0),
            end: word(4),
            meta: MessageMeta {
                body_bytes: word(8),
                timestamp: word(12),
                kind: match bytes[16] {
                    0 => MessageKind::Audio,
                    1 => MessageKind::Video,
                    _ => MessageKind::Data,
                },
                header_bytes: bytes[17],
                flags: MessageFlags::from_bits(u16::from_ne_bytes([bytes[18], bytes[19]])),
            },
        }
    }

    /// The entry in absolute positions.
    #[inline]
    pub(crate) fn view(self, base: u64) -> MessageView {
        MessageView {
            start: Position(base + u64::from(self.offset)),
            end: Position(base + u64::from(self.end)),
            meta: self.meta,
        }
    }
}
