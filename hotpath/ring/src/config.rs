//! Sizes of a stream ring, their ranges, and the reasons for which a reservation is refused.

use core::fmt;

/// Sizes of one stream ring. Worst-case memory: `bytes_max` payload, one message index
/// (`index_entries_per_segment` × 20 bytes) per retained segment, and 64 bytes per slot.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct RingConfig {
    /// Bytes of an ordinary segment. 4 or more; default 256 KiB. A stream that takes long to fill one gets
    /// segments of a quarter, if that is 16 KiB or more: see [`RingConfig::small_segment_bytes`].
    pub segment_bytes: u32,
    /// Slots for segments and preambles. A power of two, 2 to 32,768; default 256.
    pub slots: u32,
    /// Messages a segment can hold; when the index is full the segment is sealed early. 1 to
    /// 65,536; default 512.
    pub index_entries_per_segment: u32,
    /// Bytes of buffers the ring may own at once, trimmed but still leased ones included. At
    /// least `segment_bytes`, at most 4 GiB - 1; default 64 MiB.
    pub bytes_max: u32,
    /// Longest preamble. Default 256 KiB.
    pub preamble_bytes_max: u32,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 256 * 1024,
            slots: 256,
            index_entries_per_segment: 512,
            bytes_max: 64 * 1024 * 1024,
            preamble_bytes_max: 256 * 1024,
        }
    }
}

/// Most slots a ring can have: a slot number must fit beside its generation in one word.
pub const SLOTS_MAX: u32 = 32_768;

/// Segments are not made smaller than this for slow streams, in bytes.
const SMALL_SEGMENT_BYTES_MIN: u32 = 16 * 1024;

/// Most messages a segment's index can have room for.
pub const INDEX_ENTRIES_MAX: u32 = 65_536;

impl RingConfig {
    /// Checks the ranges named at the fields; the text says which one is violated.
    ///
    /// # Errors
    /// The first violated range, as a sentence for the operator.
    pub const fn validate(&self) -> Result<(), &'static str> {
        if self.slots < 2 || self.slots > SLOTS_MAX || !self.slots.is_power_of_two() {
            return Err("slots must be a power of two from 2 to 32768");
        }
        if self.segment_bytes < 4 {
            return Err("segment_bytes must be 4 or more");
        }
        if self.index_entries_per_segment == 0 || self.index_entries_per_segment > INDEX_ENTRIES_MAX
        {
            return Err("index_entries_per_segment must be 1 to 65536");
        }
        if self.bytes_max < self.segment_bytes {
            return Err("bytes_max must hold at least one segment");
        }
        Ok(())
    }

    /// Bytes of a segment of a slow stream: what is kept beyond the present GOP is up to one segment.
    #[must_use]
    pub const fn small_segment_bytes(&self) -> u32 {
        let quarter = self.segment_bytes / 4;
        if quarter < SMALL_SEGMENT_BYTES_MIN { self.segment_bytes } else { quarter }
    }

    /// Messages that fit into a segment of so many bytes: small segments have small indexes.
    pub(crate) const fn index_entries(&self, segment_bytes: u32) -> u32 {
        let quarter = self.index_entries_per_segment / 4;
        if segment_bytes < self.segment_bytes && quarter > 0 {
            quarter
        } else {
            self.index_entries_per_segment
        }
    }

    /// Slots that media segments leave to preambles, so that a full ring can still announce new
    /// sequence headers. None in tiny rings.
    pub(crate) const fn slots_for_preambles(&self) -> usize {
        (self.slots / 32) as usize
    }
}

/// Why there is no room. Nothing was changed; trim, or wait until readers let go, and try again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RingFull {
    /// Every slot holds a retained segment or one that a reader still holds.
    NoSlot {
        /// Slots that were trimmed and only wait for their last reader.
        held: u32,
    },
    /// The message would carry the ring over `bytes_max`, or can never fit into it.
    ByteBudget {
        /// Bytes of buffers that were trimmed and only wait for their last reader.
        held_bytes: u64,
    },
    /// The allocator had no memory.
    OutOfMemory,
    /// A preamble longer than `preamble_bytes_max`.
    PreambleTooLong,
}

impl RingFull {
    /// A short stable name for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoSlot { .. } => "no_slot",
            Self::ByteBudget { .. } => "byte_budget",
            Self::OutOfMemory => "out_of_memory",
            Self::PreambleTooLong => "preamble_too_long",
        }
    }
}

impl fmt::Display for RingFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot { held } => {
                write!(f, "no free slot in the stream ring ({held} wait for readers)")
            }
            Self::ByteBudget { held_bytes } => {
                write!(
                    f,
                    "byte budget of the stream ring is used up ({held_bytes} bytes wait for readers)"
                )
            }
            Self::OutOfMemory => f.write_str("no memory for another segment"),
            Self::PreambleTooLong => f.write_str("preamble is longer than the ring allows"),
        }
    }
}

impl core::error::Error for RingFull {}
