//! Who watches a rendition: one session token each, until it has not been seen for a while.
//!
//! A viewer over HTTP has no connection that ends. It is there as long as it asks for playlists; its
//! token came with the multivariant playlist it asked for first. Bounded by [`VIEWERS_MAX`]: more are
//! served all the same, and not counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::access::quota::Place;

/// Viewers counted for one rendition. Cost: about 60 bytes each.
pub(super) const VIEWERS_MAX: usize = 100_000;
/// A token that was not seen for so many target durations is gone.
pub(super) const EXPIRY_TARGETS: u64 = 3;

/// One viewer.
#[derive(Debug)]
struct Viewer {
    /// By the monotonic clock, in milliseconds: a clock that is set makes nobody leave, or stay.
    seen_ms: u64,
    /// Its place in the quotas of its domain, given back when it is forgotten.
    _place: Option<Place>,
}

/// Tokens and who they stand for.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    // Tokens can be chosen by peers, so the map's hash must be a keyed one.
    seen: HashMap<u64, Viewer>,
}

impl Viewers {
    /// Notes a request; true for a new viewer, whose `place` is then kept.
    pub(super) fn note(&mut self, token: u64, now_ms: u64, place: Option<Place>) -> bool {
        let is_full = self.seen.len() >= VIEWERS_MAX;
        match self.seen.entry(token) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().seen_ms = now_ms;
                false
            }
            Entry::Vacant(_) if is_full => false,
            Entry::Vacant(entry) => {
                entry.insert(Viewer { seen_ms: now_ms, _place: place });
                true
            }
        }
    }

    /// True for a token that was seen lately.
    pub(super) fn knows(&self, token: u64) -> bool {
        self.seen.contains_key(&token)
    }

    /// Forgets who was last seen before `deadline_ms`.
    pub(super) fn expire(&mut self, deadline_ms: u64) {
        self.seen.retain(|_, viewer| viewer.seen_ms >= deadline_ms);
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
        assert!(viewers.note(7, 1000, None));
        assert!(!viewers.note(7, 2000, None));
        assert!(viewers.note(8, 2500, None));
        viewers.expire(2001);
        assert_eq!(viewers.len(), 1);
        assert!(viewers.note(7, 3000, None));
    }

    #[test]
    fn the_table_is_bounded_and_those_in_it_are_still_noted() {
        let mut viewers = Viewers::default();
        for token in 0..VIEWERS_MAX as u64 {
            assert!(viewers.note(token, 1, None));
        }
        assert!(!viewers.note(u64::MAX, 1, None));
        assert!(!viewers.note(3, 9, None));
        viewers.expire(9);
        assert_eq!(viewers.len(), 1);
        assert!(viewers.seen.capacity() < 1000);
    }
}
