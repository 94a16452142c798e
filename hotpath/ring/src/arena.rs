//! The free buffers of one worker, shared by all stream rings whose writers live there.
//!
//! An arena is never shared between threads: it is passed as an argument to those writer calls
//! that take or give back memory. That keeps [`Writer`](crate::Writer) free to move to another
//! worker on takeover; its buffers are then given back to the new worker's arena.
//!
//! It caches segments of both sizes and message indexes, up to a bound, and only these; anything else
//! (oversize segments, preambles) goes straight to the allocator. So after warm-up, media of
//! ordinary size moves without allocation.

use alloc::vec::Vec;

use crate::block::Block;
use crate::config::RingConfig;
use crate::entry::index_bytes;

/// Free buffers of one worker. Bounded: `segments_cached_max` × (segment + small segment + 2 indexes).
#[derive(Debug)]
pub struct Arena {
    segment_bytes: u32,
    small_bytes: u32,
    index_bytes: u32,
    small_index_bytes: u32,
    cached_max: usize,
    segments: Vec<Block>,
    small_segments: Vec<Block>,
    indexes: Vec<Block>,
    small_indexes: Vec<Block>,
}

impl Arena {
    /// An empty arena for rings configured like `config` (others work too, but their buffers are
    /// not cached). Keeps at most `segments_cached_max` free segments with their indexes.
    ///
    /// # Panics
    /// When `config` is not valid; see [`RingConfig::validate`].
    #[must_use]
    pub fn new(config: &RingConfig, segments_cached_max: usize) -> Self {
        if let Err(reason) = config.validate() {
            panic!("{reason}");
        }
        Self {
            segment_bytes: config.segment_bytes,
            small_bytes: config.small_segment_bytes(),
            index_bytes: index_bytes(config.index_entries(config.segment_bytes)),
            small_index_bytes: index_bytes(config.index_entries(config.small_segment_bytes())),
            cached_max: segments_cached_max,
            segments: Vec::with_capacity(segments_cached_max),
            small_segments: Vec::with_capacity(segments_cached_max),
            indexes: Vec::with_capacity(segments_cached_max),
            small_indexes: Vec::with_capacity(segments_cached_max),
        }
    }

    /// Fills the cache up to `segments` free segments, so that not even the first streams
    /// allocate. Stops early when the allocator refuses. Returns how many are cached now.
    pub fn warm(&mut self, segments: usize) -> usize {
        let wanted = segments.min(self.cached_max);
        while self.segments.len() < wanted {
            let (Some(segment), Some(index)) =
                (Block::allocate(self.segment_bytes), Block::allocate(self.index_bytes))
            else {
                break;
            };
            self.put(segment);
            self.put(index);
        }
        self.segments.len()
    }

    /// Sets how many free segments of each size are kept; frees those above. With as many as there are
    /// streams, media moves without allocation even when all of them trim at once.
    pub fn set_segments_cached_max(&mut self, segments_cached_max: usize) {
        self.cached_max = segments_cached_max;
        self.segments.truncate(segments_cached_max);
        self.small_segments.truncate(segments_cached_max);
        self.indexes.truncate(segments_cached_max);
        self.small_indexes.truncate(segments_cached_max);
    }

    /// Free segments in the cache, of both sizes.
    #[must_use]
    pub fn cached_segments(&self) -> usize {
        self.segments.len() + self.small_segments.len()
    }

    /// Bytes of all cached buffers.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        let bytes = |blocks: &Vec<Block>| blocks.iter().map(|b| u64::from(b.len())).sum::<u64>();
        [&self.segments, &self.small_segments, &self.indexes, &self.small_indexes]
            .map(bytes)
            .iter()
            .sum()
    }

    /// A block of exactly `len` bytes; `None` when the allocator has no memory.
    pub(crate) fn take(&mut self, len: u32) -> Option<Block> {
        let cached = if len == self.segment_bytes {
            self.segments.pop()
        } else if len == self.small_bytes {
            self.small_segments.pop()
        } else if len == self.index_bytes {
            self.indexes.pop()
        } else if len == self.small_index_bytes {
            self.small_indexes.pop()
        } else {
            None
        };
        cached.or_else(|| Block::allocate(len))
    }

    /// Keeps a block for the next `take`, or frees it when it is of another size or the cache is
    /// full.
    pub(crate) fn put(&mut self, block: Block) {
        let cache = if block.len() == self.segment_bytes {
            &mut self.segments
        } else if block.len() == self.small_bytes {
            &mut self.small_segments
        } else if block.len() == self.index_bytes {
            &mut self.indexes
        } else if block.len() == self.small_index_bytes {
            &mut self.small_indexes
        } else {
            return;
        };
        if cache.len() < self.cached_max {
            cache.push(block);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_arena_keeps_what_fits_and_frees_the_rest() {
        let mut arena = Arena::new(&RingConfig::default(), 2);
        assert_eq!(arena.warm(5), 2);
        let (one, two) = (arena.take(256 * 1024).unwrap(), arena.take(256 * 1024).unwrap());
        let three = arena.take(256 * 1024).unwrap();
        assert_eq!(arena.cached_segments(), 0);
        arena.put(one);
        arena.put(two);
        arena.put(three);
        arena.put(Block::allocate(77).unwrap());
        assert_eq!(arena.cached_segments(), 2);
        assert_eq!(arena.cached_bytes(), 2 * (256 * 1024 + 512 * 20));
    }
}
