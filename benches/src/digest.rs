//! A quick digest of what a case computed: cheap enough to be taken inside the measured part.
//!
//! Not for security. Order matters, and every value mixed in changes the result.

/// A running digest of 64-bit values.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Digest(u64);

impl Digest {
    /// Mixes in one value.
    #[inline]
    pub fn mix(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    /// Mixes in the length of `bytes`, and what they begin and end with.
    #[inline]
    pub fn mix_ends(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        let first = bytes.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first));
        let last = bytes.last_chunk::<8>().map_or(0, |last| u64::from_le_bytes(*last));
        self.mix(first ^ last.rotate_left(32));
    }

    /// Mixes in every byte; for checks outside the measured part.
    pub fn mix_all(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.mix(u64::from(byte));
        }
    }

    /// The digest so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_length_and_content_change_the_digest() {
        let of = |values: &[u64]| {
            let mut digest = Digest::default();
            values.iter().for_each(|&value| digest.mix(value));
            digest.value()
        };
        assert_ne!(of(&[1, 2]), of(&[2, 1]));
        assert_ne!(of(&[1]), of(&[1, 1]));
        let mut short = Digest::default();
        short.mix_ends(&[7; 9]);
        let mut long = Digest::default();
        long.mix_ends(&[7; 10]);
        assert_ne!(short, long);
    }
}
