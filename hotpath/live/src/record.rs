//! A stream and its subscribers as plain numbers and bytes: what goes to another process that carries on.
//!
//! Positions stay what they were, since the ring there begins where this one's part begins; times are those
//! of a clock both processes share. Nothing here is decoded from a peer. What does not fit together is
//! refused with [`BadRecord`], never a panic.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ring::{Arena, MessageFlags, MessageKind, MessageMeta, Position, RingFull, Tap, Writer};
use rtmp::Millis;
use serde::{Deserialize, Serialize};

use crate::publisher::{Publisher, PublisherConfig};
use crate::timeline::Timeline;

/// No stream comes near: a gigabyte a second for a hundred years.
const POSITION_MAX: u64 = 1 << 62;

/// A message of the ring; its bytes are in [`RingRecord::image`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRecord {
    /// As in [`MessageMeta`].
    pub timestamp: u32,
    /// 0 audio, 1 video, 2 data.
    pub kind: u8,
    /// As in [`MessageMeta`].
    pub flags: u16,
    /// As in [`MessageMeta`].
    pub header_bytes: u8,
    /// As in [`MessageMeta`].
    pub body_bytes: u32,
    /// Bytes of the wire image, headers included.
    pub wire_bytes: u32,
}

/// A blob of metadata and sequence headers, and from where on it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreambleRecord {
    /// Position.
    pub valid_from: u64,
    /// The blob.
    #[serde(with = "as_bytes")]
    pub blob: Vec<u8>,
}

/// An entry of the publisher's own table of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRecord {
    /// Class and track of its key.
    pub key: (u8, u16),
    /// RTMP message type.
    pub kind: u8,
    /// RTMP message body.
    #[serde(with = "as_bytes")]
    pub body: Vec<u8>,
}

/// A message that has come in part, or waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRecord {
    /// Chunk stream it comes on.
    pub csid: u32,
    /// As in [`MessageRecord`].
    pub kind: u8,
    /// The publisher's own for those aside, the stream's for the one at the tail.
    pub timestamp: u32,
    /// In the message header; of the one at the tail only.
    pub wire_timestamp: u32,
    /// Whole length of the body.
    pub length: u32,
    /// Body so far.
    #[serde(with = "as_bytes")]
    pub body: Vec<u8>,
    /// All of it is here.
    pub complete: bool,
}

/// A part of a ring, up to its head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingRecord {
    /// Position of the first message.
    pub start: u64,
    /// Messages from there to the head.
    pub messages: Vec<MessageRecord>,
    /// Their wire images, one behind the other.
    #[serde(with = "as_bytes")]
    pub image: Vec<u8>,
    /// Start of the newest keyframe a joiner may begin at.
    pub join: Option<u64>,
    /// What such a joiner is told first, where that is not what holds at the head.
    pub join_preamble: Option<PreambleRecord>,
    /// What holds at the head.
    pub preamble: Option<PreambleRecord>,
    /// Its version.
    pub preamble_version: u64,
}

/// A stream's writing side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublisherRecord {
    /// Chunk size of the wire image.
    pub chunk_bytes: u32,
    /// The ring.
    pub ring: RingRecord,
    /// The table it is made of.
    pub entries: Vec<EntryRecord>,
    /// The timeline.
    pub timeline: Timeline,
    /// The message being written at the tail.
    pub at_tail: Option<OpenRecord>,
    /// Those that wait for their turn.
    pub aside: Vec<OpenRecord>,
    /// Chunk streams whose present message is left out.
    pub dropping: Vec<u32>,
    /// Timestamp of the last message.
    pub newest_timestamp: u32,
    /// Video waits for a keyframe: when it was last looked for, and milliseconds waited until then.
    pub hold_video_since: Option<(Millis, u64)>,
    /// Video is undecodable until the next keyframe.
    pub broken: bool,
    /// Sessions so far.
    pub sessions: u32,
}

/// A subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriberRecord {
    /// What it does.
    pub state: SubscriberState,
    /// Message stream.
    pub msid: u32,
    /// As in [`Selection`](crate::subscriber::Selection).
    pub audio: bool,
    /// As in [`Selection`](crate::subscriber::Selection).
    pub video: bool,
    /// As in [`Selection`](crate::subscriber::Selection).
    pub is_fixed: bool,
    /// Next byte to send: where a message begins.
    pub cursor: u64,
    /// It may be sent up to here.
    pub target: u64,
    /// The stream has ended here.
    pub limit: Option<u64>,
    /// The peer wants a pause.
    pub wants_pause: bool,
    /// Nothing has been sent since it was given its place.
    pub is_joining: bool,
    /// When it last took something.
    pub last_progress: Millis,
    /// When it last had taken everything.
    pub behind_since: Millis,
    /// Times it fell out of the ring.
    pub overruns: u8,
    /// It waits for video: when it last looked, and milliseconds waited until then.
    pub video_from_keyframe: Option<(Millis, u64)>,
    /// Jumps made.
    pub skips: u32,
}

/// What a subscriber does.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscriberState {
    /// Has no place; a join must lie at or behind this position.
    Waiting(u64),
    /// Is sent what is new.
    Flowing,
    /// Wants nothing for now.
    Paused,
}

/// The parts of a record do not fit together, or do not fit in here.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// Lengths or positions contradict each other.
    Inconsistent,
    /// The ring has no room for what it holds.
    NoRoom,
}

impl core::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Inconsistent => "its parts do not fit together",
            Self::NoRoom => "the ring has no room for it",
        })
    }
}

impl core::error::Error for BadRecord {}

impl From<RingFull> for BadRecord {
    fn from(_: RingFull) -> Self {
        Self::NoRoom
    }
}

/// As stored: 0 audio, 1 video, 2 data.
pub(crate) fn kind_number(kind: MessageKind) -> u8 {
    match kind {
        MessageKind::Audio => 0,
        MessageKind::Video => 1,
        MessageKind::Data => 2,
    }
}

/// The way back.
pub(crate) fn kind_of(number: u8) -> Result<MessageKind, BadRecord> {
    match number {
        0 => Ok(MessageKind::Audio),
        1 => Ok(MessageKind::Video),
        2 => Ok(MessageKind::Data),
        _ => Err(BadRecord::Inconsistent),
    }
}

impl RingRecord {
    /// What the ring holds from `from` on: a message's start, the join position or before it. `tap` was
    /// looked at after the last commit.
    pub fn of(tap: &Tap, from: Position) -> Self {
        let head = tap.view().head;
        let mut record = Self { start: from.0, ..Self::default() };
        for message in tap.messages_from(from) {
            let meta = message.meta;
            record.messages.push(MessageRecord {
                timestamp: meta.timestamp,
                kind: kind_number(meta.kind),
                flags: meta.flags.bits(),
                header_bytes: meta.header_bytes,
                body_bytes: meta.body_bytes,
                wire_bytes: u32::try_from(message.wire_bytes()).unwrap_or(u32::MAX),
            });
        }
        let mut at = from;
        while at < head
            && let Some(lease) = tap.lease(at, usize::MAX)
        {
            record.image.extend_from_slice(&lease);
            at = at.after(lease.len() as u64);
        }
        let kept = |preamble: ring::Preamble| PreambleRecord {
            valid_from: preamble.valid_from.0,
            blob: preamble.bytes.to_vec(),
        };
        let newest = tap.preamble();
        let version = newest.as_ref().map_or(0, |preamble| preamble.version);
        record.preamble_version = version;
        record.preamble = newest.map(kept);
        if let Some(join) = tap.join_point() {
            record.join = Some(join.position.0);
            let other = join.preamble.filter(|preamble| preamble.version != version);
            record.join_preamble = other.map(kept);
        }
        record
    }

    /// Fills an unused ring.
    ///
    /// # Errors
    /// [`BadRecord`].
    pub fn fill(&self, writer: &mut Writer, arena: &mut Arena) -> Result<(), BadRecord> {
        let preambles = [&self.join_preamble, &self.preamble];
        let announced = preambles.into_iter().flatten().count() as u64;
        let Some(version) = self.preamble_version.checked_sub(announced) else {
            return Err(BadRecord::Inconsistent);
        };
        let is_beyond = self.start > POSITION_MAX || self.preamble_version > POSITION_MAX;
        if is_beyond || self.join.is_some_and(|join| join < self.start) {
            return Err(BadRecord::Inconsistent);
        }
        writer.begin_at(Position(self.start), version);
        let mut due = preambles.map(Option::as_ref);
        let mut image = self.image.as_slice();
        for message in &self.messages {
            announce(writer, arena, &mut due)?;
            let bytes = usize::try_from(message.wire_bytes).map_err(|_| BadRecord::Inconsistent)?;
            let used = u64::from(message.header_bytes) + u64::from(message.body_bytes);
            if bytes == 0 || used > u64::from(message.wire_bytes) {
                return Err(BadRecord::Inconsistent);
            }
            let Some((wire, rest)) = image.split_at_checked(bytes) else {
                return Err(BadRecord::Inconsistent);
            };
            image = rest;
            writer.reserve(arena, bytes)?;
            writer.reserved_mut().copy_from_slice(wire);
            let kind = kind_of(message.kind)?;
            let at = writer.commit(MessageMeta {
                timestamp: message.timestamp,
                kind,
                flags: MessageFlags::from_bits(message.flags),
                header_bytes: message.header_bytes,
                body_bytes: message.body_bytes,
            });
            if kind == MessageKind::Video {
                writer.mark_video_end();
            }
            if self.join == Some(at.0) {
                writer.set_join(Some(at));
            }
        }
        announce(writer, arena, &mut due)?;
        let is_whole = image.is_empty() && due.iter().all(Option::is_none);
        if is_whole && writer.join().map(|join| join.0) == self.join {
            Ok(())
        } else {
            Err(BadRecord::Inconsistent)
        }
    }
}

/// Announces what holds from the head on, the older first. The newer one holds only behind the join position,
/// or there is no older one; so that position has been set by then.
fn announce(
    writer: &mut Writer,
    arena: &mut Arena,
    due: &mut [Option<&PreambleRecord>; 2],
) -> Result<(), BadRecord> {
    let head = writer.head().0;
    for waiting in due {
        if waiting.is_some_and(|preamble| preamble.valid_from > head) {
            return Ok(());
        }
        if let Some(preamble) = waiting.take() {
            writer.set_preamble(arena, &preamble.blob, Position(preamble.valid_from))?;
        }
    }
    Ok(())
}

impl Publisher {
    /// This stream as a record, with the ring from `from` on: a message's start at or before the join
    /// position. `tap` is one of this stream's ring, looked at after the last commit. Without
    /// `with_partials` what has come of messages in part is left out.
    pub fn to_record(&self, tap: &Tap, from: Position, with_partials: bool) -> PublisherRecord {
        let mut record = self.state_record(with_partials);
        record.ring = RingRecord::of(tap, from);
        record
    }

    /// The stream of a record, in an unused ring.
    ///
    /// # Errors
    /// [`BadRecord`].
    pub fn from_record(
        config: PublisherConfig,
        writer: Writer,
        record: &PublisherRecord,
        arena: &mut Arena,
        now: Millis,
    ) -> Result<Box<Self>, BadRecord> {
        let config = PublisherConfig { chunk_bytes: record.chunk_bytes, ..config };
        if !(1..=rtmp::limits::CHUNK_BYTES_MAX).contains(&config.chunk_bytes) {
            return Err(BadRecord::Inconsistent);
        }
        let mut writer = writer;
        record.ring.fill(&mut writer, arena)?;
        let mut publisher = Box::new(Self::new(config, writer));
        publisher.restore(arena, record, now)?;
        Ok(publisher)
    }
}

/// Byte strings as such: element by element they would take a hundred times as long.
pub mod as_bytes {
    use alloc::vec::Vec;
    use core::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    /// Writes them.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads them.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
