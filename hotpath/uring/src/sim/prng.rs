//! The only source of chance in a simulation: a 64-bit multiply-and-mix sequence (splitmix).
//! Equal seeds give equal runs on every machine.

/// A seeded sequence.
#[derive(Clone, Debug)]
pub(crate) struct Prng(u64);

impl Prng {
    pub(crate) fn new(seed: u64) -> Prng {
        Prng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero when `bound` is zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// An index or length below `bound`.
    pub(crate) fn index_below(&mut self, bound: usize) -> usize {
        // Widening, and back below `bound`: no bit is lost.
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    /// True `permille` times in a thousand. Draws nothing when the answer is certain to be no, so
    /// that a fault that is off does not disturb the sequence of the others.
    pub(crate) fn chance(&mut self, permille: u16) -> bool {
        permille > 0 && self.below(1000) < u64::from(permille)
    }
}
