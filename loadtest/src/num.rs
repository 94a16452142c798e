//! Clocks and conversions between whole and real numbers, each with its rounding written down.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds of a millisecond.
pub(crate) const MS_NS: u64 = 1_000_000;

/// The clock all waiting and timing is done by: the same one the `Io` reads, in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// What the clock inside media shows.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum MediaClock {
    /// `CLOCK_MONOTONIC`: publishers and players run on one machine.
    #[default]
    Monotonic,
    /// `CLOCK_REALTIME`: machines whose clocks are kept together. Latency is as good as they are.
    Wall,
}

impl MediaClock {
    /// The time by this clock, nanoseconds.
    pub(crate) fn now_ns(self) -> u64 {
        match self {
            MediaClock::Monotonic => now_ns(),
            MediaClock::Wall => clock_ns(ClockId::Realtime),
        }
    }
}

fn clock_ns(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    // Neither part is negative for these two clocks.
    time.tv_sec.unsigned_abs() * SECOND_NS + time.tv_nsec.unsigned_abs()
}

/// Rounds a real number to the nearest whole one; what is below zero or no number becomes 0, what
/// is too large the largest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// As [`whole`], into 32 bits.
pub(crate) fn whole_u32(value: f64) -> u32 {
    u32::try_from(whole(value)).unwrap_or(u32::MAX)
}

/// The low 32 bits: for times that wrap at 2^32 on the wire.
#[expect(clippy::cast_possible_truncation)]
pub(crate) const fn low_u32(value: u64) -> u32 {
    value as u32
}

/// Seconds as nanoseconds; nothing is earlier than now.
pub(crate) fn seconds_ns(seconds: f64) -> u64 {
    whole(seconds * 1e9)
}

/// Nanoseconds as seconds.
pub(crate) fn as_seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Nanoseconds as milliseconds.
pub(crate) fn as_ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// A part of a whole, 0 when there is no whole.
pub(crate) fn ratio(part: f64, total: f64) -> f64 {
    if total > 0.0 { part / total } else { 0.0 }
}

/// Fraction of the golden ratio: multiples of it, modulo 1, never crowd.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// The `index`th of a series of numbers in [0, 1) that fills the interval evenly from the start.
pub(crate) fn spread(index: u64) -> f64 {
    (index as f64 * GOLDEN).fract()
}

/// A small generator of random bits (splitmix64): same seed, same load.
#[derive(Clone, Debug)]
pub(crate) struct Prng(u64);

impl Prng {
    pub(crate) fn new(seed: u64) -> Prng {
        Prng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Fills `out` with bytes of which none is zero: no start code can appear among them.
    pub(crate) fn fill_non_zero(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bits = self.next() | 0x0101_0101_0101_0101;
            chunk.copy_from_slice(&bits.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_saturates() {
        assert_eq!([whole(-3.0), whole(2.5), whole(f64::NAN)], [0, 3, 0]);
        assert_eq!(whole(1e30), u64::MAX);
        assert_eq!(whole_u32(1e12), u32::MAX);
    }

    #[test]
    fn spread_numbers_fill_every_tenth_early() {
        let mut tenths = [0; 10];
        for index in 0..20 {
            tenths[usize::try_from(whole((spread(index) * 10.0).floor())).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|&count| count > 0), "{tenths:?}");
    }

    #[test]
    fn filler_has_no_zero_byte() {
        let mut bytes = [0; 1001];
        Prng::new(1).fill_non_zero(&mut bytes);
        assert!(bytes.iter().all(|&byte| byte != 0));
    }
}
