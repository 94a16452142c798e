//! Buffers for bytes that go to one connection only, used again and again.

use super::SENDS_PER_TURN_MAX;
use crate::transport::SEAL_BYTES_MAX;

/// Buffers kept at most.
const BUFFERS_MAX: usize = SENDS_PER_TURN_MAX;
/// Largest buffer kept, in bytes: what one send seals, with its record headers.
const BUFFER_BYTES_MAX: usize = SEAL_BYTES_MAX + 1024;

/// Buffers that nobody uses at the moment, with whatever they held.
#[derive(Debug, Default)]
pub(super) struct SpareBuffers(Vec<Vec<u8>>);

impl SpareBuffers {
    /// An empty buffer.
    pub(super) fn empty(&mut self) -> Vec<u8> {
        let mut buffer = self.used();
        buffer.clear();
        buffer
    }

    /// A buffer with bytes of an earlier use, maybe another peer's, for whoever writes over all it sends.
    pub(super) fn used(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn put(&mut self, buffer: Vec<u8>) {
        if self.0.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            self.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_unless_it_is_to_be_written_over() {
        let mut spare = SpareBuffers::default();
        spare.put(b"of another peer".to_vec());
        assert!(spare.empty().is_empty());
        spare.put(b"of another peer".to_vec());
        assert_eq!(spare.used(), b"of another peer");
        spare.put(Vec::with_capacity(BUFFER_BYTES_MAX + 1));
        assert_eq!(spare.empty().capacity(), 0, "too large to be kept");
        (0..=BUFFERS_MAX).for_each(|_| spare.put(vec![1]));
        assert_eq!(spare.0.len(), BUFFERS_MAX);
    }
}
