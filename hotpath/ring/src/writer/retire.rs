//! How the writer forgets: trimming, waiting for readers without waiting, and the end of a stream.

use crate::arena::Arena;
use crate::control::NO_JOIN;
use crate::message::Position;

use super::{Preamble, Reservation, Spare, Writer};

impl Writer {
    /// Forgets every segment that ends at or before `before`, the open one included, and takes
    /// back what no reader holds. A join position that falls out becomes `None`.
    ///
    /// A segment with an open reservation stays.
    pub fn trim(&mut self, arena: &mut Arena, before: Position) {
        let mut next = *self.control.published();
        while let Some(oldest) = self.segments.front() {
            let is_reserved =
                self.segments.len() == 1 && matches!(self.reservation, Some(Reservation::Open(_)));
            if oldest.base + u64::from(oldest.used) > before.0 || is_reserved {
                break;
            }
            let (slot, bytes, messages) = (oldest.slot, oldest.bytes.len(), oldest.messages);
            self.segments.pop_front();
            self.retained_messages -= u64::from(messages);
            self.retire(slot, bytes);
            next.oldest += 1;
        }
        let mut join_preamble = None;
        if next.join != NO_JOIN && next.join < self.tail().0 {
            next.join = NO_JOIN;
            join_preamble = self.join_preamble.take();
        }
        // Announced before anything is recycled, so that a reader who comes too late for a slot
        // finds the reason at its next look.
        self.publish(next);
        self.retire_preamble_unless_used(join_preamble);
        self.reclaim(arena);
    }

    /// Takes back slots and buffers whose last reader has let go since they were trimmed. Returns
    /// how many are still held. Called by `reserve` and `trim` too.
    pub fn reclaim(&mut self, arena: &mut Arena) -> u32 {
        let mut at = 0;
        while let Some(&(slot, bytes)) = self.retired.get(at) {
            let generation = self.generations[slot as usize];
            if !self.shared.slot(slot).recycle(generation) {
                at += 1;
                continue;
            }
            self.generations[slot as usize] = generation.wrapping_add(1);
            // SAFETY: the exchange has just ended the slot's life without readers.
            let contents = unsafe { self.shared.slot(slot).take() };
            [contents.bytes, contents.index].into_iter().flatten().for_each(|b| arena.put(b));
            self.owned_bytes -= u64::from(bytes);
            self.retired_bytes -= u64::from(bytes);
            self.retired.swap_remove(at);
            self.free.push(slot);
        }
        self.check_invariants();
        self.held_slots()
    }

    /// Ends the stream: forgets everything, preambles included, and gives buffers back. Taps see
    /// an empty ring at their next refresh; what they or their leases still hold stays readable
    /// and is freed with the last of them.
    pub fn finish(mut self, arena: &mut Arena) {
        self.cancel();
        self.give_back_spare(arena);
        let preambles = [self.newest_preamble.take(), self.join_preamble.take()];
        let mut next = *self.control.published();
        next.join = NO_JOIN;
        self.publish(next);
        self.retire_preamble_unless_used(preambles[0]);
        if preambles[1] != preambles[0] {
            self.retire_preamble_unless_used(preambles[1]);
        }
        self.trim(arena, self.head());
    }

    /// From live to retired: announced to be gone, perhaps still held.
    fn retire(&mut self, slot: u32, bytes: u32) {
        self.retired_bytes += u64::from(bytes);
        self.retired.push((slot, bytes));
    }

    pub(super) fn retire_preamble_unless_used(&mut self, preamble: Option<Preamble>) {
        if let Some(unused) = preamble
            && self.newest_preamble != preamble
            && self.join_preamble != preamble
        {
            self.retire(unused.slot, unused.block_bytes);
        }
    }

    pub(super) fn give_back_spare(&mut self, arena: &mut Arena) {
        if let Some(Spare { slot, bytes, index }) = self.spare.take() {
            self.owned_bytes -= u64::from(bytes.len());
            arena.put(bytes);
            arena.put(index);
            // Never published in this generation, so there is no life to end.
            self.free.push(slot);
        }
    }

    /// Every slot is in exactly one state, and the sums are right. Debug builds, after each change.
    pub(super) fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let published = self.control.published();
        assert!(published.tail <= published.head && published.head <= self.head);
        assert!(published.oldest <= published.next);
        assert!(self.retired_bytes <= self.owned_bytes);
        assert!(self.owned_bytes <= u64::from(self.config.bytes_max));
        assert_eq!(self.retired.iter().map(|r| u64::from(r.1)).sum::<u64>(), self.retired_bytes);
    }
}
