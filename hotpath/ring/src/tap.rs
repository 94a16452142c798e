//! The reading end: one tap per worker and stream.
//!
//! `refresh` takes one consistent look; everything else answers from that look and touches nothing
//! shared. On an idle stream a refresh is three loads. It never waits: when the writer changes
//! things faster than the tap can look, the tap keeps its older look and says nothing new.
//!
//! ```text
//!   flush mark ─► head ─► version, in this order:
//!     mark ≤ head          the mark was a head when it was stored
//!     head ≤ known end     a segment is announced (version) before the head enters it
//! ```

use core::fmt;

use alloc::collections::VecDeque;
use alloc::rc::Rc;

use crate::block::RawBlock;
use crate::control::{NO_JOIN, Snapshot};
use crate::entry::Entry;
use crate::lease::{Holds, Lease};
use crate::message::Position;
use crate::slot::Handle;
use crate::stream_ring::Shared;
use crate::sync::Arc;

mod lookup;

pub use lookup::Messages;

/// Looks at a changing ring before a refresh keeps what it had.
#[cfg(not(loom))]
const ATTEMPTS_MAX: u32 = 8;
#[cfg(loom)]
const ATTEMPTS_MAX: u32 = 2;

/// No snapshot has this version: published ones are even.
const VERSION_NONE: u64 = u64::MAX;

/// One consistent look at the ring: `tail <= flush_mark <= head` and `tail <= join < head`.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// One behind the last byte this tap can read.
    pub head: Position,
    /// First byte this tap can read; a cursor before it has fallen out of the ring.
    pub tail: Position,
    /// One behind the last complete video message.
    pub flush_mark: Position,
    /// Start of the newest keyframe, if one is retained.
    pub join: Option<Position>,
    /// Version of the newest preamble; 0 before the first.
    pub preamble_version: u64,
}

/// What a joiner sends before media.
#[derive(Clone, Debug)]
pub struct Preamble {
    /// 1, 2, 3, ... in the order of announcement.
    pub version: u64,
    /// First position for which it holds.
    pub valid_from: Position,
    /// The blob.
    pub bytes: Lease,
}

/// Where to begin, and the preamble that belongs there.
#[derive(Clone, Debug)]
pub struct JoinPoint {
    /// Start of a keyframe inside the tap's view.
    pub position: Position,
    /// The newest preamble that holds at `position`; none when none was set by then.
    pub preamble: Option<Preamble>,
}

/// A segment this tap holds.
#[derive(Debug)]
struct Segment {
    sequence: u64,
    base: u64,
    /// Base of the next segment; for the newest one the head.
    end: u64,
    messages: u32,
    slot: u32,
    bytes: RawBlock,
    index: RawBlock,
}

impl Segment {
    /// Entry `number`, below `messages`.
    #[inline]
    fn entry(&self, number: u32) -> Entry {
        debug_assert!(number < self.messages);
        // SAFETY: the tap holds the slot as long as the segment is in its list, and `messages` is
        // at most the committed count acquired from it.
        unsafe { Entry::read(self.index, number) }
    }
}

/// A preamble this tap holds.
#[derive(Copy, Clone, Debug)]
struct HeldPreamble {
    slot: u32,
    version: u64,
    valid_from: u64,
    bytes: RawBlock,
}

/// The preambles of a view: valid at its head, valid at its join position.
#[derive(Copy, Clone, Debug, Default)]
struct Preambles {
    newest: Option<HeldPreamble>,
    join: Option<HeldPreamble>,
}

/// One worker's reader of one stream; made by [`StreamRing::tap`](crate::StreamRing::tap) on the
/// worker that uses it.
pub struct Tap {
    holds: Rc<Holds>,
    /// Of the control words the view was made from.
    version: u64,
    view: Head,
    /// Contiguous, oldest first.
    segments: VecDeque<Segment>,
    preambles: Preambles,
    skipped_refreshes: u64,
}

impl Tap {
    pub(crate) fn new(ring: Arc<Shared>) -> Self {
        let zero = Position(0);
        Self {
            holds: Rc::new(Holds::new(ring)),
            version: VERSION_NONE,
            view: Head {
                head: zero,
                tail: zero,
                flush_mark: zero,
                join: None,
                preamble_version: 0,
            },
            segments: VecDeque::new(),
            preambles: Preambles::default(),
            skipped_refreshes: 0,
        }
    }

    /// Looks at the ring: takes hold of new segments, lets go of trimmed ones (leases keep theirs),
    /// and returns the new view. Positions in it never go back.
    pub fn refresh(&mut self) -> Head {
        let ring = &*self.holds.ring;
        let flush_mark = ring.flush_mark();
        let head = ring.head();
        if ring.control.version() == self.version {
            if head != self.view.head.0 {
                self.advance(head);
            }
            self.set_flush_mark(flush_mark);
        } else {
            self.look_again();
        }
        self.check_invariants();
        self.view
    }

    /// The view of the last refresh.
    #[inline]
    #[must_use]
    pub fn view(&self) -> Head {
        self.view
    }

    /// A lease on the bytes from `from` on: at most `bytes_max`, and not beyond the end of the
    /// segment or the head. `None` when `from` is outside `[tail, head)` or `bytes_max` is 0.
    #[must_use]
    pub fn lease(&self, from: Position, bytes_max: usize) -> Option<Lease> {
        let segment = self.segment_at(from.0)?;
        let available = usize::try_from(segment.end - from.0).ok()?;
        let len = u32::try_from(available.min(bytes_max)).ok().filter(|&len| len > 0)?;
        let offset = u32::try_from(from.0 - segment.base).ok()?;
        let bytes = segment.bytes.part(offset, len);
        // SAFETY: the segment is in the list, so its slot is held; `end` is not beyond the head.
        Some(unsafe { Lease::new(&self.holds, segment.slot, bytes) })
    }

    /// The newest keyframe with the preamble that belongs to it; both from the same look.
    #[must_use]
    pub fn join_point(&self) -> Option<JoinPoint> {
        let position = self.view.join?;
        Some(JoinPoint { position, preamble: self.preambles.join.map(|held| self.hand_out(held)) })
    }

    /// The newest preamble: what a joiner at the head needs.
    #[must_use]
    pub fn preamble(&self) -> Option<Preamble> {
        self.preambles.newest.map(|held| self.hand_out(held))
    }

    /// The preamble for a joiner at `position`, which is the join position or later: the newest
    /// one this tap holds that is valid there.
    #[must_use]
    pub fn preamble_at(&self, position: Position) -> Option<Preamble> {
        [self.preambles.newest, self.preambles.join]
            .into_iter()
            .flatten()
            .find(|held| held.valid_from <= position.0)
            .map(|held| self.hand_out(held))
    }

    /// Refreshes that kept an older view because the writer was in the middle of a change. For a
    /// counter; harmless when small.
    #[must_use]
    pub fn skipped_refreshes(&self) -> u64 {
        self.skipped_refreshes
    }

    fn hand_out(&self, held: HeldPreamble) -> Preamble {
        // SAFETY: the tap holds the slot while the preamble is in its fields, and a preamble is
        // complete before its handle is published.
        let bytes = unsafe { Lease::new(&self.holds, held.slot, held.bytes) };
        Preamble { version: held.version, valid_from: Position(held.valid_from), bytes }
    }

    /// The head moved inside the newest segment.
    fn advance(&mut self, head: u64) {
        let Some(newest) = self.segments.back_mut() else {
            return;
        };
        newest.messages = self.holds.ring.slot(newest.slot).committed();
        newest.end = head;
        // The count can be newer than the head: leave out what ends behind it.
        while newest.messages > 0
            && newest.base + u64::from(newest.entry(newest.messages - 1).end) > head
        {
            newest.messages -= 1;
        }
        self.view.head = Position(head);
    }

    /// Segments, join position or preambles changed.
    fn look_again(&mut self) {
        for _ in 0..ATTEMPTS_MAX {
            let ring = &*self.holds.ring;
            let flush_mark = ring.flush_mark();
            let head = ring.head();
            let Some((version, snapshot)) = ring.control.read() else {
                core::hint::spin_loop();
                continue;
            };
            let Some(preambles) = self.hold_preambles(&snapshot) else {
                continue;
            };
            if !self.adopt_segments(&snapshot) {
                self.release_preambles(preambles);
                continue;
            }
            let before = core::mem::replace(&mut self.preambles, preambles);
            self.release_preambles(before);
            self.version = version;
            let head = head.max(snapshot.head);
            self.advance(head);
            self.view.head = Position(head);
            self.view.tail = Position(snapshot.tail);
            self.view.join = (snapshot.join != NO_JOIN).then_some(Position(snapshot.join));
            self.view.preamble_version = self.preambles.newest.map_or(0, |held| held.version);
            self.set_flush_mark(flush_mark);
            return;
        }
        self.make_do();
    }

    /// No complete look within the bound: describe what is held, promise nothing more. Nothing was
    /// adopted in most cases, so the older view stands as it was; its join position and preamble
    /// belong together still, and the join position goes only if its segment went.
    fn make_do(&mut self) {
        self.skipped_refreshes += 1;
        self.version = VERSION_NONE;
        // A segment is announced when the head stands at its base, so that much is published.
        let newest_base = self.segments.back().map_or(0, |newest| newest.base);
        let head = newest_base.max(self.view.head.0);
        self.advance(head);
        self.view.head = Position(head);
        self.view.tail = Position(self.segments.front().map_or(head, |oldest| oldest.base));
        self.view.join = self.view.join.filter(|&join| join >= self.view.tail && join.0 < head);
        self.set_flush_mark(self.view.flush_mark.0);
    }

    fn set_flush_mark(&mut self, mark: u64) {
        let mark = mark.max(self.view.flush_mark.0).clamp(self.view.tail.0, self.view.head.0);
        self.view.flush_mark = Position(mark);
    }

    /// Holds exactly the snapshot's segments. `false` when one was recycled meanwhile; then none
    /// is held, since everything before it is gone too.
    fn adopt_segments(&mut self, snapshot: &Snapshot) -> bool {
        while let Some(oldest) = self.segments.front()
            && oldest.sequence < snapshot.oldest
        {
            self.holds.release(oldest.slot);
            self.segments.pop_front();
        }
        let first = self.segments.back().map_or(snapshot.oldest, |newest| newest.sequence + 1);
        for sequence in first..snapshot.next {
            let Some(segment) = self.hold_segment(sequence) else {
                self.release_segments();
                return false;
            };
            if let Some(sealed) = self.segments.back_mut() {
                // Sealed before its successor was announced: count and end are final.
                sealed.messages = self.holds.ring.slot(sealed.slot).committed();
                sealed.end = segment.base;
            }
            self.segments.push_back(segment);
        }
        true
    }

    fn hold_segment(&self, sequence: u64) -> Option<Segment> {
        let ring = &*self.holds.ring;
        let handle = ring.handle(sequence);
        if handle.is_none() || !self.holds.hold(handle) {
            return None;
        }
        let slot = ring.slot(handle.slot());
        // SAFETY: held in the generation of a handle loaded with Acquire.
        let contents = unsafe { slot.contents() };
        // The place in the directory may belong to a later segment by now.
        let (Some(bytes), Some(index), true) =
            (contents.bytes, contents.index, contents.sequence == sequence)
        else {
            self.holds.release(handle.slot());
            return None;
        };
        Some(Segment {
            sequence,
            base: contents.base,
            end: contents.base,
            messages: slot.committed(),
            slot: handle.slot(),
            bytes,
            index,
        })
    }

    fn release_segments(&mut self) {
        for segment in self.segments.drain(..) {
            self.holds.release(segment.slot);
        }
    }

    /// Holds the snapshot's preambles, beside those of the view. `None`, and nothing more held,
    /// when one was recycled meanwhile.
    fn hold_preambles(&self, snapshot: &Snapshot) -> Option<Preambles> {
        let newest = self.hold_preamble(snapshot.newest_preamble)?;
        let Some(join) = self.hold_preamble(snapshot.join_preamble) else {
            self.release_preambles(Preambles { newest, join: None });
            return None;
        };
        Some(Preambles { newest, join })
    }

    /// `Some(None)` when there is none to hold.
    fn hold_preamble(&self, handle: Handle) -> Option<Option<HeldPreamble>> {
        if handle.is_none() {
            return Some(None);
        }
        if !self.holds.hold(handle) {
            return None;
        }
        let slot = self.holds.ring.slot(handle.slot());
        // SAFETY: held in the generation of a handle loaded with Acquire.
        let contents = unsafe { slot.contents() };
        let bytes = contents.bytes.expect("a published slot has a buffer");
        Some(Some(HeldPreamble {
            slot: handle.slot(),
            version: contents.sequence,
            valid_from: contents.base,
            bytes: bytes.part(0, slot.committed()),
        }))
    }

    fn release_preambles(&self, preambles: Preambles) {
        for held in [preambles.newest, preambles.join].into_iter().flatten() {
            self.holds.release(held.slot);
        }
    }

    fn check_invariants(&self) {
        let view = self.view;
        debug_assert!(view.tail <= view.flush_mark && view.flush_mark <= view.head);
        debug_assert!(view.join.is_none_or(|join| view.tail <= join && join < view.head));
        debug_assert!(self.segments.front().is_none_or(|s| s.base == view.tail.0));
        debug_assert!(self.segments.back().is_none_or(|s| s.end == view.head.0));
        debug_assert!(!self.segments.is_empty() || view.tail == view.head);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.release_segments();
        self.release_preambles(self.preambles);
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("view", &self.view)
            .field("segments", &self.segments.len())
            .finish_non_exhaustive()
    }
}
