//! Who watches a rendition: one session token each, until it has not been seen for a while.
//!
//! A viewer over HTTP has no connection that ends. It is there as long as it asks for playlists; its
//! token came with the multivariant playlist it asked for first. Bounded by [`VIEWERS_MAX`]: more are
//! served all the same, and not counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Viewers counted for one rendition. Cost: about 40 bytes each.
pub(super) const VIEWERS_MAX: usize = 100_000;
/// A token that was not seen for so many target durations is gone.
pub(super) const EXPIRY_TARGETS: u64 = 3;

/// Tokens and when they were last seen, in Unix milliseconds.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    // Tokens can be chosen by peers, so the map's hash must be a keyed one.
    seen: HashMap<u64, u64>,
}

impl Viewers {
    /// Notes a request; true for a new viewer.
    pub(super) fn note(&mut self, token: u64, now_ms: u64) -> bool {
        let is_full = self.seen.len() >= VIEWERS_MAX;
        match self.seen.entry(token) {
            Entry::Occupied(mut entry) => {
                entry.insert(now_ms);
                false
            }
            Entry::Vacant(_) if is_full => false,
            Entry::Vacant(entry) => {
                entry.insert(now_ms);
                true
            }
        }
    }

    /// Forgets who was last seen before `deadline_ms`.
    pub(super) fn expire(&mut self, deadline_ms: u64) {
        self.seen.retain(|_, seen_ms| *seen_ms >= deadline_ms);
        if self.seen.capacity() > 64 && self.seen.len() * 4 < self.seen.capacity() {
            self.seen.shrink_to(self.seen.len() * 2);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_is_new_once_and_again_after_it_was_gone() {
        let mut viewers = Viewers::default();
        assert!(viewers.note(7, 1000));
        assert!(!viewers.note(7, 2000));
        assert!(viewers.note(8, 2500));
        viewers.expire(2001);
        assert_eq!(viewers.len(), 1);
        assert!(viewers.note(7, 3000));
    }

    #[test]
    fn the_table_is_bounded_and_those_in_it_are_still_noted() {
        let mut viewers = Viewers::default();
        for token in 0..VIEWERS_MAX as u64 {
            assert!(viewers.note(token, 1));
        }
        assert!(!viewers.note(u64::MAX, 1));
        assert!(!viewers.note(3, 9));
        viewers.expire(9);
        assert_eq!(viewers.len(), 1);
        assert!(viewers.seen.capacity() < 1000);
    }
}
