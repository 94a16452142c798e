//! What the ring knows of a message: where it lies and what it means to a subscriber.
//!
//! Plain values without behaviour; the ring never looks into payload. The publisher fills a
//! [`MessageMeta`] at commit, readers get it back inside a [`MessageView`].

use core::fmt;

/// An absolute byte offset in the endless wire image of one stream.
///
/// The first byte ever published is position 0. A position is never reused and never moves; with
/// 64 bits it does not wrap (at 100 Gbit/s it would take 46 years).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);

impl Position {
    /// The position `bytes` further on.
    #[must_use]
    pub const fn after(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }

    /// Bytes from `earlier` to this position; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The three kinds of messages a stream carries.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum MessageKind {
    /// RTMP type 8.
    Audio,
    /// RTMP type 9.
    Video,
    /// RTMP type 18 (and 15, once unwrapped).
    Data,
}

/// Properties of a message that decide over joining, flushing and skipping. A set of bits.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct MessageFlags(u16);

impl MessageFlags {
    /// No property.
    pub const NONE: Self = Self(0);
    /// A decoder can start here.
    pub const KEYFRAME: Self = Self(1);
    /// Codec configuration, not media.
    pub const SEQUENCE_HEADER: Self = Self(1 << 1);
    /// No other message refers to it; the first to go under pressure.
    pub const DISCARDABLE: Self = Self(1 << 2);
    /// Stream metadata (`onMetaData`) or codec metadata.
    pub const METADATA: Self = Self(1 << 3);
    /// The codec announced its end of sequence.
    pub const END_OF_SEQUENCE: Self = Self(1 << 4);

    /// The bits as stored in the message index.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The set with these bits; unknown bits are kept.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// True when every property of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::ops::BitOr for MessageFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl fmt::Debug for MessageFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 5] =
            ["KEYFRAME", "SEQUENCE_HEADER", "DISCARDABLE", "METADATA", "END_OF_SEQUENCE"];
        let mut set = f.debug_set();
        for (bit, name) in NAMES.iter().enumerate() {
            if self.0 >> bit & 1 == 1 {
                set.entry(&format_args!("{name}"));
            }
        }
        set.finish()
    }
}

/// What the publisher says about the message it commits.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MessageMeta {
    /// Absolute milliseconds of the stream's timeline, 32-bit wrapping.
    pub timestamp: u32,
    /// Audio, video or data.
    pub kind: MessageKind,
    /// Properties.
    pub flags: MessageFlags,
    /// Bytes of the first chunk's headers: the body begins this far behind the message's start.
    pub header_bytes: u8,
    /// Bytes of the body without any chunk header; continuation headers lie between its chunks.
    pub body_bytes: u32,
}

/// A committed message as a reader sees it: `[start, end)` of the wire image and its meta.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MessageView {
    /// First byte of the message's first chunk header.
    pub start: Position,
    /// One behind the last byte; the next message starts here.
    pub end: Position,
    /// What the publisher said about it.
    pub meta: MessageMeta,
}

impl MessageView {
    /// Bytes of the message on the wire, headers included.
    #[must_use]
    pub const fn wire_bytes(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// True when a decoder can start at this message.
    #[must_use]
    pub const fn is_keyframe(&self) -> bool {
        self.meta.flags.contains(MessageFlags::KEYFRAME)
    }
}
