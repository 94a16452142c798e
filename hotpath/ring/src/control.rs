//! What a reader must see as one: which segments there are, where to join, and with what preamble.
//!
//! A sequence lock with one writer. The version is odd while a change is under way; a reader that
//! meets a change tries again a bounded number of times and then keeps what it had. It changes per
//! segment, keyframe, trim and preamble, not per message.
//!
//! Fields are stored with Release and loaded with Acquire instead of using fences: a reader that
//! sees a field of a newer change has then also seen that change's odd version, so its second look
//! at the version differs. (Fences would do the same, but the thread sanitizer does not know them.)
//! Model: `loom_join`.

use crate::slot::Handle;
use crate::sync::{AtomicU64, Ordering};

/// Stands for "no join position" in the shared word.
pub(crate) const NO_JOIN: u64 = u64::MAX;

/// One consistent state of the ring, head and flush mark aside.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    /// The head when this was published; never behind any other position in here.
    pub(crate) head: u64,
    /// Position of the first retained byte.
    pub(crate) tail: u64,
    /// Sequence of the oldest retained segment.
    pub(crate) oldest: u64,
    /// Sequence behind the newest segment; equal to `oldest` when none is retained.
    pub(crate) next: u64,
    /// Start of the newest keyframe, or [`NO_JOIN`].
    pub(crate) join: u64,
    /// The preamble valid at `join`.
    pub(crate) join_preamble: Handle,
    /// The preamble valid at the head.
    pub(crate) newest_preamble: Handle,
}

impl Snapshot {
    pub(crate) const EMPTY: Self = Self {
        head: 0,
        tail: 0,
        oldest: 0,
        next: 0,
        join: NO_JOIN,
        join_preamble: Handle::NONE,
        newest_preamble: Handle::NONE,
    };

    const fn words(&self) -> [u64; WORDS] {
        [
            self.head,
            self.tail,
            self.oldest,
            self.next,
            self.join,
            self.join_preamble.0,
            self.newest_preamble.0,
        ]
    }

    const fn from_words(words: [u64; WORDS]) -> Self {
        let [head, tail, oldest, next, join, join_preamble, newest_preamble] = words;
        Self {
            head,
            tail,
            oldest,
            next,
            join,
            join_preamble: Handle(join_preamble),
            newest_preamble: Handle(newest_preamble),
        }
    }
}

const WORDS: usize = 7;
const JOIN_WORD: usize = 4;

/// The shared words. `version` first: an idle refresh reads nothing else of this line.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Control {
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Control {
    pub(crate) fn new() -> Self {
        Self { version: AtomicU64::new(0), words: Snapshot::EMPTY.words().map(AtomicU64::new) }
    }

    /// Reader: has anything changed since the snapshot with this version?
    ///
    /// Acquire: a head stored before the version was seen is covered by that version's segments.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The join position alone, for metrics and decisions that need no preamble.
    pub(crate) fn join(&self) -> Option<u64> {
        let join = self.words[JOIN_WORD].load(Ordering::Acquire);
        (join != NO_JOIN).then_some(join)
    }

    /// Reader: one try for a consistent snapshot and its version.
    pub(crate) fn read(&self) -> Option<(u64, Snapshot)> {
        // Acquire: fields at least as new as this version. Model: `loom_join`.
        let version = self.version.load(Ordering::Acquire);
        if version % 2 == 1 {
            return None;
        }
        let mut words = [0; WORDS];
        for (word, shared) in words.iter_mut().zip(&self.words) {
            // Acquire: a newer field brings its odd version along.
            *word = shared.load(Ordering::Acquire);
        }
        // Relaxed: ordered after the field loads, because they acquire.
        (self.version.load(Ordering::Relaxed) == version)
            .then(|| (version, Snapshot::from_words(words)))
    }
}

/// The writer's end: remembers what is published, so that only changed words are stored.
#[derive(Debug)]
pub(crate) struct ControlWriter {
    version: u64,
    published: Snapshot,
}

impl ControlWriter {
    pub(crate) const fn new() -> Self {
        Self { version: 0, published: Snapshot::EMPTY }
    }

    /// What readers see.
    pub(crate) const fn published(&self) -> &Snapshot {
        &self.published
    }

    /// Makes `next` what readers see. Called by the ring's one writer.
    pub(crate) fn publish(&mut self, control: &Control, next: Snapshot) {
        // Relaxed: the fields' Release stores carry it along.
        control.version.store(self.version + 1, Ordering::Relaxed);
        for ((shared, old), new) in
            control.words.iter().zip(self.published.words()).zip(next.words())
        {
            if old != new {
                shared.store(new, Ordering::Release);
            }
        }
        self.version += 2;
        // Release: all fields, the directory and the filled slots come before. Model: `loom_join`.
        control.version.store(self.version, Ordering::Release);
        self.published = next;
    }
}
