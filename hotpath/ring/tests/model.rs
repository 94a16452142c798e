//! Random lists of operations on one writer and several taps, against a model that is a plain list
//! of messages. The model is slow and obvious; the ring must agree with it after each step.
#![cfg(not(loom))]

mod common;

use common::video;
use proptest::collection::vec;
use proptest::prelude::*;
use ring::{
    Arena, Head, Lease, MessageFlags, MessageView, Position, RingConfig, RingFull, StreamRing, Tap,
    Writer, stream_ring,
};

const TAPS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Publish { bytes: usize, is_keyframe: bool },
    Cancelled { bytes: usize },
    MarkVideoEnd,
    TrimOldest { segments: usize },
    TrimAll,
    Preamble { bytes: usize },
    Refresh { tap: usize },
    Lease { tap: usize, at: u64, bytes: usize },
    DropLease { nth: usize },
    ReplaceTap { tap: usize },
    Reclaim,
}

fn op() -> impl Strategy<Value = Op> {
    let tap = 0..TAPS;
    prop_oneof![
        8 => (1..40_usize, prop::bool::weighted(0.2))
            .prop_map(|(bytes, is_keyframe)| Op::Publish { bytes, is_keyframe }),
        1 => (1..120_usize).prop_map(|bytes| Op::Publish { bytes, is_keyframe: false }),
        1 => (1..120_usize).prop_map(|bytes| Op::Cancelled { bytes }),
        2 => Just(Op::MarkVideoEnd),
        3 => (1..3_usize).prop_map(|segments| Op::TrimOldest { segments }),
        1 => Just(Op::TrimAll),
        2 => (0..20_usize).prop_map(|bytes| Op::Preamble { bytes }),
        6 => tap.clone().prop_map(|tap| Op::Refresh { tap }),
        5 => (tap.clone(), any::<u64>(), 0..64_usize)
            .prop_map(|(tap, at, bytes)| Op::Lease { tap, at, bytes }),
        3 => any::<usize>().prop_map(|nth| Op::DropLease { nth }),
        1 => tap.prop_map(|tap| Op::ReplaceTap { tap }),
        1 => Just(Op::Reclaim),
    ]
}

/// The byte at a position of the wire image: any lost, doubled or overwritten byte shows.
fn byte_at(position: u64) -> u8 {
    u8::try_from(position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).expect("eight bits")
}

/// What the ring should look like, and what each tap should have seen.
struct World {
    writer: Writer,
    arena: Arena,
    ring: StreamRing,
    taps: Vec<Tap>,
    /// All messages ever published.
    messages: Vec<MessageView>,
    /// (version, valid_from, bytes) of all preambles ever set.
    preambles: Vec<(u64, u64, usize)>,
    flush_mark: u64,
    leases: Vec<(Lease, u64)>,
}

impl World {
    fn new() -> Self {
        let config = RingConfig {
            segment_bytes: 64,
            slots: 8,
            index_entries_per_segment: 5,
            bytes_max: 600,
            preamble_bytes_max: 16,
        };
        let (writer, ring) = stream_ring(config);
        let taps = (0..TAPS).map(|_| ring.tap()).collect();
        Self {
            writer,
            arena: Arena::new(&config, 4),
            ring,
            taps,
            messages: Vec::new(),
            preambles: Vec::new(),
            flush_mark: 0,
            leases: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Publish { bytes, is_keyframe } => self.publish(bytes, is_keyframe),
            Op::Cancelled { bytes } => {
                if self.writer.reserve(&mut self.arena, bytes).is_ok() {
                    self.writer.reserved_mut().fill(0xEE);
                    self.writer.cancel();
                }
            }
            Op::MarkVideoEnd => {
                self.writer.mark_video_end();
                self.flush_mark = self.writer.head().0;
            }
            Op::TrimOldest { segments } => {
                if let Some(end) = self.writer.segments().take(segments).last().map(|s| s.end) {
                    self.writer.trim(&mut self.arena, end);
                }
            }
            Op::TrimAll => self.writer.trim(&mut self.arena, self.writer.head()),
            Op::Preamble { bytes } => self.set_preamble(bytes),
            Op::Refresh { tap } => self.refresh(tap),
            Op::Lease { tap, at, bytes } => self.lease(tap, at, bytes),
            Op::DropLease { nth } if !self.leases.is_empty() => {
                let nth = nth % self.leases.len();
                drop(self.leases.swap_remove(nth));
            }
            Op::DropLease { .. } => {}
            Op::ReplaceTap { tap } => self.taps[tap] = self.ring.tap(),
            Op::Reclaim => {
                self.writer.reclaim(&mut self.arena);
            }
        }
        self.check();
    }

    fn publish(&mut self, bytes: usize, is_keyframe: bool) {
        let head = self.writer.head();
        match self.writer.reserve(&mut self.arena, bytes) {
            Ok(()) => {}
            Err(RingFull::NoSlot { .. } | RingFull::ByteBudget { .. }) => {
                assert_eq!(self.writer.head(), head, "a refusal changes nothing");
                return;
            }
            Err(other) => panic!("refused for no reason: {other}"),
        }
        for (byte, at) in self.writer.reserved_mut().iter_mut().zip(head.0..) {
            *byte = byte_at(at);
        }
        let flags = if is_keyframe { MessageFlags::KEYFRAME } else { MessageFlags::NONE };
        let stamp = u32::try_from(self.messages.len()).expect("few messages");
        let meta = video(stamp, bytes, flags);
        assert_eq!(self.writer.commit(meta), head);
        self.messages.push(MessageView { start: head, end: head.after(bytes as u64), meta });
        if is_keyframe {
            self.writer.set_join(Some(head));
        }
    }

    fn set_preamble(&mut self, bytes: usize) {
        let version = self.preambles.len() as u64 + 1;
        let blob = vec![u8::try_from(version % 251).expect("below 251"); bytes];
        let head = self.writer.head();
        match self.writer.set_preamble(&mut self.arena, &blob, head) {
            Ok(set) => {
                assert_eq!(set, version);
                self.preambles.push((version, head.0, bytes));
            }
            Err(RingFull::PreambleTooLong) => assert!(bytes > 16),
            Err(_) => assert!(bytes <= 16),
        }
    }

    /// Messages inside `[tail, head)`.
    fn retained(&self, tail: Position, head: Position) -> impl Iterator<Item = &MessageView> {
        self.messages.iter().filter(move |m| m.start >= tail && m.end <= head)
    }

    fn expected_join(&self) -> Option<Position> {
        let newest = self.messages.iter().rev().find(|m| m.is_keyframe())?.start;
        (newest >= self.writer.tail()).then_some(newest)
    }

    fn refresh(&mut self, tap: usize) {
        let view = self.taps[tap].refresh();
        let expected = Head {
            head: self.writer.head(),
            tail: self.writer.tail(),
            flush_mark: Position(self.flush_mark.max(self.writer.tail().0)),
            join: self.expected_join(),
            preamble_version: self.preambles.len() as u64,
        };
        assert_eq!(view, expected);
        assert_eq!(self.taps[tap].skipped_refreshes(), 0, "nobody writes meanwhile");
        self.check_preambles(&self.taps[tap]);
        self.check_lookups(&self.taps[tap]);
    }

    fn check_preambles(&self, tap: &Tap) {
        let expect = |held: Option<ring::Preamble>, at: u64| {
            let expected = self.preambles.iter().rev().find(|p| p.1 <= at);
            let held = held.map(|p| {
                assert!(p.bytes.iter().all(|&b| u64::from(b) == p.version % 251));
                (p.version, p.valid_from.0, p.bytes.len())
            });
            assert_eq!(held.as_ref(), expected);
        };
        expect(tap.preamble(), tap.view().head.0);
        if let Some(join) = tap.join_point() {
            expect(join.preamble, join.position.0);
            expect(tap.preamble_at(join.position), join.position.0);
        }
    }

    fn check_lookups(&self, tap: &Tap) {
        let Head { head, tail, .. } = tap.view();
        let retained: Vec<_> = self.retained(tail, head).copied().collect();
        assert_eq!(tap.messages_from(tail).collect::<Vec<_>>(), retained);
        for at in (tail.0.saturating_sub(2)..head.0 + 2).map(Position) {
            let containing = retained.iter().find(|m| m.start <= at && at < m.end).copied();
            assert_eq!(tap.message_containing(at), containing);
            assert_eq!(tap.message_at(at), containing.filter(|m| m.start == at));
            let following = retained.iter().find(|m| m.start >= at).copied();
            assert_eq!(tap.messages_from(at).next(), following);
            let boundary = (tail <= at && at <= head).then(|| following.map_or(head, |m| m.start));
            assert_eq!(tap.boundary_at_or_after(at), boundary);
            let keyframe = retained.iter().find(|m| m.start >= at && m.is_keyframe()).copied();
            assert_eq!(tap.keyframe_at_or_after(at), keyframe);
        }
    }

    fn lease(&mut self, tap: usize, at: u64, bytes_max: usize) {
        let Head { head, tail, .. } = self.taps[tap].view();
        let at = tail.0.saturating_sub(2) + at % (head.0 - tail.0 + 4);
        let lease = self.taps[tap].lease(Position(at), bytes_max);
        let is_inside = tail.0 <= at && at < head.0 && bytes_max > 0;
        assert_eq!(lease.is_some(), is_inside);
        if let Some(lease) = lease {
            assert!(lease.len() <= bytes_max && at + lease.len() as u64 <= head.0);
            let copy = lease.clone();
            assert_eq!(copy.as_ptr(), lease.as_ptr());
            self.leases.push((copy, at));
        }
    }

    /// What holds after every step: the writer's sums, and that no leased byte ever changes.
    fn check(&self) {
        let (head, tail) = (self.writer.head(), self.writer.tail());
        assert_eq!(self.ring.head(), head);
        assert_eq!(self.writer.retained_bytes(), head.0 - tail.0);
        assert_eq!(self.writer.retained_messages(), self.retained(tail, head).count() as u64);
        assert_eq!(
            self.writer.oldest_timestamp(),
            self.retained(tail, head).next().map(|m| m.meta.timestamp)
        );
        assert_eq!(self.writer.join(), self.expected_join());
        assert_eq!(self.ring.join(), self.expected_join());
        assert!(self.writer.owned_bytes() <= 600);
        for (lease, at) in &self.leases {
            assert!(lease.iter().zip(*at..).all(|(&byte, at)| byte == byte_at(at)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_ring_agrees_with_a_plain_list(ops in vec(op(), 1..200)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        // Everything comes home: without taps and leases nothing is held.
        world.leases.clear();
        world.taps.clear();
        world.writer.trim(&mut world.arena, world.writer.head());
        prop_assert_eq!(world.writer.held_slots(), 0);
    }
}
