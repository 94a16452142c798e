//! The writing end: reserves room, commits messages, forgets old segments, announces preambles.
//!
//! Owned by the stream's home worker. Never waits for a reader: what a reader still holds is
//! skipped and counted, and when nothing else is left, `reserve` says so. Never touches a byte
//! below the head. Memory comes from and goes to the [`Arena`] passed in.
//!
//! ```text
//!    trimmed            retained                              open segment
//!   ───────────┬──────────────────┬─────────────┬────────────────────┬───────────┬─ ─ ─ ─ ┐
//!              │ sealed           │ sealed      │ committed          │ reserved    unused
//!   ───────────┴──────────────────┴─────────────┴────────────────────┴───────────┴─ ─ ─ ─ ┘
//!              tail                                                  head
//! ```
//!
//! A message that does not fit behind the head opens another segment: the open one is then sealed
//! with what it has. The new segment is announced only with the commit of its first message, so a
//! cancelled reservation leaves nothing behind but a spare buffer.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::arena::Arena;
use crate::block::{Block, RawBlock};
use crate::config::{RingConfig, RingFull};
use crate::control::{ControlWriter, NO_JOIN, Snapshot};
use crate::entry::{Entry, index_bytes};
use crate::message::{MessageMeta, Position};
use crate::slot::{Contents, Handle};
use crate::stream_ring::{Shared, StreamRing};
use crate::sync::Arc;

mod retire;

/// A small segment that fills faster is followed by an ordinary one, in milliseconds of stream time.
const SMALL_SPAN_MS_MIN: u32 = 300;
/// An ordinary segment that lasts as long is followed by a small one, in milliseconds of stream time.
const LARGE_SPAN_MS_MAX: u32 = 2_400;

/// A retained segment as a trim policy sees it. Segments are trimmed whole.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SegmentSummary {
    /// First byte.
    pub start: Position,
    /// One behind the last committed byte.
    pub end: Position,
    /// Messages, at least one.
    pub messages: u32,
    /// Timestamp of the first message, milliseconds, 32-bit wrapping.
    pub first_timestamp: u32,
    /// Timestamp of the last message, milliseconds, 32-bit wrapping.
    pub last_timestamp: u32,
}

/// A retained segment; the last of the list is open.
#[derive(Debug)]
struct Segment {
    slot: u32,
    base: u64,
    used: u32,
    messages: u32,
    first_timestamp: u32,
    last_timestamp: u32,
    bytes: RawBlock,
    index: RawBlock,
}

/// A segment that was prepared for a reservation and is not announced yet.
#[derive(Debug)]
struct Spare {
    slot: u32,
    bytes: Block,
    index: Block,
}

/// A published preamble.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Preamble {
    slot: u32,
    valid_from: u64,
    block_bytes: u32,
}

/// An open reservation: where it goes and how long it is.
#[derive(Copy, Clone, Debug)]
enum Reservation {
    Open(u32),
    Spare(u32),
}

/// The only one who appends to a ring. May move to another thread; cannot be shared or cloned.
pub struct Writer {
    shared: Arc<Shared>,
    config: RingConfig,
    control: ControlWriter,
    head: u64,
    segments: VecDeque<Segment>,
    spare: Option<Spare>,
    reservation: Option<Reservation>,
    /// Present generation of each slot.
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Trimmed slots that wait for their last reader, with the bytes they keep.
    retired: Vec<(u32, u32)>,
    newest_preamble: Option<Preamble>,
    join_preamble: Option<Preamble>,
    preamble_version: u64,
    retained_messages: u64,
    /// Payload bytes of all buffers: retained, spare, preambles, retired.
    owned_bytes: u64,
    retired_bytes: u64,
    /// `&Writer` on two threads would be two writers.
    not_sync: PhantomData<Cell<()>>,
}

// SAFETY: the raw views in `segments` lead to blocks in slots of `shared`, which lives as long as
// the writer and is not tied to a thread. Whoever moves the writer moves the right to write with
// it, and the channel it moves through orders the two threads' accesses.
unsafe impl Send for Writer {}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, config: RingConfig) -> Self {
        let slots = config.slots;
        Self {
            shared,
            config,
            control: ControlWriter::new(),
            head: 0,
            segments: VecDeque::new(),
            spare: None,
            reservation: None,
            generations: (0..slots).map(|_| 0).collect(),
            free: (0..slots).rev().collect(),
            retired: Vec::with_capacity(slots as usize),
            newest_preamble: None,
            join_preamble: None,
            preamble_version: 0,
            retained_messages: 0,
            owned_bytes: 0,
            retired_bytes: 0,
            not_sync: PhantomData,
        }
    }

    /// Lets the ring begin at another position than 0, and its preambles behind another version: it goes
    /// on where a ring of another process stood, so that cursors keep their meaning.
    ///
    /// # Panics
    /// When anything was written or announced before.
    pub fn begin_at(&mut self, start: Position, preamble_version: u64) {
        let is_new = self.head == 0 && self.spare.is_none() && self.preamble_version == 0;
        assert!(is_new, "a ring begins once");
        self.head = start.0;
        self.preamble_version = preamble_version;
        self.publish(*self.control.published());
        self.shared.set_head(start.0);
        self.shared.set_flush_mark(start.0);
    }

    /// Makes room for one message of `bytes` on the wire, headers included. Invisible to readers
    /// until [`Writer::commit`].
    ///
    /// # Errors
    /// [`RingFull`] when no slot, budget or memory is left; nothing has changed then.
    ///
    /// # Panics
    /// When `bytes` is 0 or a reservation is open already: both are mistakes of the caller.
    pub fn reserve(&mut self, arena: &mut Arena, bytes: usize) -> Result<(), RingFull> {
        assert!(bytes > 0, "a message has at least its header");
        assert!(self.reservation.is_none(), "one reservation at a time");
        let Ok(bytes) = u32::try_from(bytes) else {
            return Err(self.over_budget());
        };
        if let Some(open) = self.segments.back()
            && bytes <= open.bytes.len() - open.used
            && open.messages < self.config.index_entries(open.bytes.len())
        {
            self.reservation = Some(Reservation::Open(bytes));
            return Ok(());
        }
        if self.spare.as_ref().is_none_or(|spare| spare.bytes.len() < bytes) {
            self.give_back_spare(arena);
            let len = bytes.max(self.next_segment_bytes());
            self.spare = Some(self.prepare_segment(arena, len)?);
        }
        self.reservation = Some(Reservation::Spare(bytes));
        Ok(())
    }

    /// The reservation's bytes, all of them. What they hold before the first write is unspecified.
    ///
    /// # Panics
    /// Without a reservation.
    pub fn reserved_mut(&mut self) -> &mut [u8] {
        let part = match (self.reservation, &self.spare, self.segments.back()) {
            (Some(Reservation::Open(bytes)), _, Some(open)) => open.bytes.part(open.used, bytes),
            (Some(Reservation::Spare(bytes)), Some(spare), _) => spare.bytes.raw().part(0, bytes),
            _ => panic!("bytes are reserved before they are written"),
        };
        // SAFETY: the range lies behind the head, where no reader looks, in a block that the slot
        // or the spare owns; the result borrows the only writer until it is last used.
        unsafe { part.as_mut_slice() }
    }

    /// What has been written to the reservation so far; nothing without one.
    #[must_use]
    pub fn reserved(&self) -> &[u8] {
        let part = match (self.reservation, &self.spare, self.segments.back()) {
            (Some(Reservation::Open(bytes)), _, Some(open)) => open.bytes.part(open.used, bytes),
            (Some(Reservation::Spare(bytes)), Some(spare), _) => spare.bytes.raw().part(0, bytes),
            _ => return &[],
        };
        // SAFETY: as in `reserved_mut`; the result borrows the only writer, so nobody writes meanwhile.
        unsafe { part.as_slice() }
    }

    /// True between `reserve` and `commit` or `cancel`.
    #[must_use]
    pub fn has_reservation(&self) -> bool {
        self.reservation.is_some()
    }

    /// Publishes the whole reservation as one message and returns where it starts.
    ///
    /// # Panics
    /// Without a reservation, or when `meta` tells of more bytes than were reserved.
    pub fn commit(&mut self, meta: MessageMeta) -> Position {
        let reservation = self.reservation.take();
        let bytes = match reservation {
            Some(Reservation::Open(bytes) | Reservation::Spare(bytes)) => bytes,
            None => panic!("a message is reserved before it is committed"),
        };
        assert!(
            u64::from(meta.header_bytes) + u64::from(meta.body_bytes) <= u64::from(bytes),
            "header and body lie inside the message"
        );
        if let Some(Reservation::Spare(_)) = reservation {
            self.announce_spare(meta.timestamp);
        }
        let start = self.head;
        let open = self.segments.back_mut().expect("a reservation lies in a segment");
        let entry = Entry { offset: open.used, end: open.used + bytes, meta };
        // SAFETY: this is the writer of the open segment and the entry is not committed yet.
        unsafe { entry.write(open.index, open.messages) };
        open.used += bytes;
        open.messages += 1;
        open.last_timestamp = meta.timestamp;
        self.retained_messages += 1;
        self.head = start + u64::from(bytes);
        self.shared.slot(open.slot).set_committed(open.messages);
        self.shared.set_head(self.head);
        Position(start)
    }

    /// Forgets the reservation; nothing of it was or will be visible. Without one, does nothing.
    pub fn cancel(&mut self) {
        self.reservation = None;
    }

    /// Says that everything up to the head may be flushed: a video message is complete.
    pub fn mark_video_end(&mut self) {
        self.shared.set_flush_mark(self.head);
    }

    /// Sets where joiners begin: the start of the newest keyframe, or `None` for "at the head".
    /// The preamble valid there is announced together with it.
    ///
    /// # Panics
    /// When the position is not inside `[tail, head)`.
    pub fn set_join(&mut self, join: Option<Position>) {
        let mut next = *self.control.published();
        let before = self.join_preamble;
        match join {
            Some(Position(position)) => {
                assert!(
                    next.tail <= position && position < self.head,
                    "a join position is retained and published"
                );
                next.join = position;
                self.join_preamble = [self.newest_preamble, before]
                    .into_iter()
                    .flatten()
                    .find(|preamble| preamble.valid_from <= position);
            }
            None => {
                next.join = NO_JOIN;
                self.join_preamble = None;
            }
        }
        self.publish(next);
        self.retire_preamble_unless_used(before);
    }

    /// Announces what a joiner needs before media: an opaque blob that holds from `valid_from` on.
    /// Returns its version: 1, 2, 3, ...
    ///
    /// Call it *before* committing the message that brings the change (with that message's start,
    /// which is the head), so that no joiner can begin behind the change with the old blob. A
    /// joiner at an older join position gets the blob that was valid there.
    ///
    /// # Errors
    /// [`RingFull`]; the previous preamble stays.
    ///
    /// # Panics
    /// When `valid_from` is ahead of the head.
    pub fn set_preamble(
        &mut self,
        arena: &mut Arena,
        blob: &[u8],
        valid_from: Position,
    ) -> Result<u64, RingFull> {
        assert!(valid_from.0 <= self.head, "a preamble is valid from a published position on");
        let preamble = self.fill_preamble(arena, blob, valid_from.0)?;
        self.preamble_version += 1;
        let before = [self.newest_preamble.replace(preamble), self.join_preamble];
        let join = self.control.published().join;
        if join != NO_JOIN && valid_from.0 <= join {
            self.join_preamble = Some(preamble);
        }
        self.publish(*self.control.published());
        self.shared.set_preamble_version(self.preamble_version);
        self.retire_preamble_unless_used(before[0]);
        if before[1] != before[0] {
            self.retire_preamble_unless_used(before[1]);
        }
        Ok(self.preamble_version)
    }

    /// One behind the last published byte.
    #[must_use]
    pub fn head(&self) -> Position {
        Position(self.head)
    }

    /// First retained byte; the head when nothing is retained.
    #[must_use]
    pub fn tail(&self) -> Position {
        Position(self.segments.front().map_or(self.head, |oldest| oldest.base))
    }

    /// The join position, unless none was set or it was trimmed.
    #[must_use]
    pub fn join(&self) -> Option<Position> {
        let join = self.control.published().join;
        (join != NO_JOIN).then_some(Position(join))
    }

    /// Published bytes that are not trimmed.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.head - self.tail().0
    }

    /// Published messages that are not trimmed.
    #[must_use]
    pub fn retained_messages(&self) -> u64 {
        self.retained_messages
    }

    /// Timestamp of the oldest retained message, milliseconds, 32-bit wrapping.
    #[must_use]
    pub fn oldest_timestamp(&self) -> Option<u32> {
        self.segments.front().map(|oldest| oldest.first_timestamp)
    }

    /// The retained segments, oldest first: what a trim policy decides on.
    pub fn segments(&self) -> impl Iterator<Item = SegmentSummary> + '_ {
        self.segments.iter().map(|segment| SegmentSummary {
            start: Position(segment.base),
            end: Position(segment.base + u64::from(segment.used)),
            messages: segment.messages,
            first_timestamp: segment.first_timestamp,
            last_timestamp: segment.last_timestamp,
        })
    }

    /// Bytes of all buffers this ring owns, trimmed but still held ones included.
    #[must_use]
    pub fn owned_bytes(&self) -> u64 {
        self.owned_bytes
    }

    /// Trimmed slots that a reader still holds, as of the last reclaim.
    #[must_use]
    pub fn held_slots(&self) -> u32 {
        u32::try_from(self.retired.len()).expect("not more than there are slots")
    }

    /// Bytes of the buffers in [`Writer::held_slots`].
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.retired_bytes
    }

    /// True when less than a quarter of the slots, or of the bytes, is left for what readers still hold and
    /// for what comes: time to trim, whatever else a policy says. A ring that is full of what it retains
    /// takes no message any more.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        let bytes = self.owned_bytes - self.retired_bytes;
        (self.free.len() + self.retired.len()) * 4 < self.config.slots as usize
            || bytes * 4 > u64::from(self.config.bytes_max) * 3
    }

    /// Another handle to this ring.
    #[must_use]
    pub fn ring(&self) -> StreamRing {
        StreamRing::from_shared(&self.shared)
    }

    /// Small segments until one fills within [`SMALL_SPAN_MS_MIN`], ordinary ones until one lasts
    /// [`LARGE_SPAN_MS_MAX`]: a slow stream keeps little beyond its GOP, and the bytes of a flush of a fast
    /// one lie in one piece. The two bounds are a factor of eight apart where the sizes are four apart.
    /// Where a quarter of the slots is in use, ordinary ones: a long retention is not to run out of slots.
    fn next_segment_bytes(&self) -> u32 {
        let small = self.config.small_segment_bytes();
        let Some(open) = self.segments.back() else { return small };
        if self.segments.len() * 4 > self.config.slots as usize {
            return self.config.segment_bytes;
        }
        let span_ms = open.last_timestamp.wrapping_sub(open.first_timestamp);
        let is_large = open.bytes.len() > small;
        let stays_large = is_large && span_ms < LARGE_SPAN_MS_MAX;
        let becomes_large = !is_large && span_ms < SMALL_SPAN_MS_MIN;
        if stays_large || becomes_large { self.config.segment_bytes } else { small }
    }

    /// Takes slot, budget and memory for a segment of `len` bytes.
    fn prepare_segment(&mut self, arena: &mut Arena, len: u32) -> Result<Spare, RingFull> {
        self.reclaim(arena);
        if self.free.len() <= self.config.slots_for_preambles() {
            return Err(RingFull::NoSlot { held: self.held_slots() });
        }
        self.check_budget(len)?;
        let index_len = index_bytes(self.config.index_entries(len));
        let (bytes, index) = (arena.take(len), arena.take(index_len));
        let (Some(bytes), Some(index)) = (bytes, index) else {
            return Err(RingFull::OutOfMemory);
        };
        let slot = self.free.pop().ok_or(RingFull::NoSlot { held: self.held_slots() })?;
        self.owned_bytes += u64::from(len);
        Ok(Spare { slot, bytes, index })
    }

    fn check_budget(&self, len: u32) -> Result<(), RingFull> {
        if self.owned_bytes + u64::from(len) > u64::from(self.config.bytes_max) {
            return Err(self.over_budget());
        }
        Ok(())
    }

    fn over_budget(&self) -> RingFull {
        RingFull::ByteBudget { held_bytes: self.retired_bytes }
    }

    fn handle_of(&self, slot: u32) -> Handle {
        Handle::new(slot, self.generations[slot as usize])
    }

    /// Seals the open segment and makes the spare the open one, beginning at the head.
    fn announce_spare(&mut self, first_timestamp: u32) {
        let Spare { slot, bytes, index } = self.spare.take().expect("the reservation lies in it");
        let mut next = *self.control.published();
        let sequence = next.next;
        self.segments.push_back(Segment {
            slot,
            base: self.head,
            used: 0,
            messages: 0,
            first_timestamp,
            last_timestamp: first_timestamp,
            bytes: bytes.raw(),
            index: index.raw(),
        });
        let contents =
            Contents { sequence, base: self.head, bytes: Some(bytes), index: Some(index) };
        // SAFETY: the slot came from `free`: recycled or never used, its generation unpublished.
        unsafe { self.shared.slot(slot).fill(contents, 0) };
        self.shared.set_handle(sequence, self.handle_of(slot));
        next.next = sequence + 1;
        self.publish(next);
    }

    /// Fills a slot with a preamble; does not announce it.
    fn fill_preamble(
        &mut self,
        arena: &mut Arena,
        blob: &[u8],
        valid_from: u64,
    ) -> Result<Preamble, RingFull> {
        let Some(len) =
            u32::try_from(blob.len()).ok().filter(|&len| len <= self.config.preamble_bytes_max)
        else {
            return Err(RingFull::PreambleTooLong);
        };
        self.reclaim(arena);
        if self.free.is_empty() {
            return Err(RingFull::NoSlot { held: self.held_slots() });
        }
        let block_len = len.max(1);
        self.check_budget(block_len)?;
        let block = arena.take(block_len).ok_or(RingFull::OutOfMemory)?;
        // SAFETY: the block is not in a slot yet, so nobody else can reach it.
        unsafe { block.raw().part(0, len).as_mut_slice() }.copy_from_slice(blob);
        let slot = self.free.pop().ok_or(RingFull::NoSlot { held: self.held_slots() })?;
        self.owned_bytes += u64::from(block_len);
        let contents = Contents {
            sequence: self.preamble_version + 1,
            base: valid_from,
            bytes: Some(block),
            index: None,
        };
        // SAFETY: the slot came from `free`: recycled or never used, its generation unpublished.
        unsafe { self.shared.slot(slot).fill(contents, len) };
        Ok(Preamble { slot, valid_from, block_bytes: block_len })
    }

    /// Publishes `next` with the present head, tail and preambles, if that changes anything.
    fn publish(&mut self, mut next: Snapshot) {
        next.tail = self.tail().0;
        let handle = |preamble: Option<Preamble>| {
            preamble.map_or(Handle::NONE, |preamble| self.handle_of(preamble.slot))
        };
        next.join_preamble = handle(self.join_preamble);
        next.newest_preamble = handle(self.newest_preamble);
        next.head = self.control.published().head;
        if next != *self.control.published() {
            next.head = self.head;
            self.control.publish(&self.shared.control, next);
        }
        self.check_invariants();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("head", &self.head())
            .field("tail", &self.tail())
            .field("join", &self.join())
            .field("segments", &self.segments.len())
            .field("free_slots", &self.free.len())
            .field("held_slots", &self.retired.len())
            .field("owned_bytes", &self.owned_bytes)
            .field("reservation", &self.reservation)
            .finish_non_exhaustive()
    }
}
