//! Reads bits, most significant first, with or without emulation prevention bytes.

/// Bit cursor over a slice.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    rest: core::slice::Iter<'a, u8>,
    byte: u8,
    left: u32,
    /// Zero bytes in a row before the current one; counted only if `escaped`.
    zeros: u32,
    escaped: bool,
}

impl<'a> Bits<'a> {
    /// Plain bits.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes.iter(), byte: 0, left: 0, zeros: 0, escaped: false }
    }

    /// Bits of a NAL unit: a 3 after two zeros was put there by the encoder and is skipped.
    pub(super) fn of_nal(bytes: &'a [u8]) -> Self {
        Self { escaped: true, ..Self::new(bytes) }
    }

    /// One bit.
    pub(super) fn bit(&mut self) -> Option<bool> {
        if self.left == 0 {
            self.byte = self.next_byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Some(self.byte >> self.left & 1 == 1)
    }

    /// `count` bits, at most 32.
    pub(super) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count.min(32) {
            value = value << 1 | u32::from(self.bit()?);
        }
        Some(value)
    }

    /// `count` bits, at most 8.
    pub(super) fn small(&mut self, count: u32) -> Option<u8> {
        u8::try_from(self.bits(count.min(8))?).ok()
    }

    /// Passes over `count` bits.
    pub(super) fn skip(&mut self, count: u32) -> Option<()> {
        for _ in 0..count {
            self.bit()?;
        }
        Some(())
    }

    /// An Exp-Golomb number; `None` beyond 32 bits.
    pub(super) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let suffix = self.bits(zeros)?;
        Some(((1_u32 << zeros) - 1).wrapping_add(suffix))
    }

    /// A signed Exp-Golomb number.
    pub(super) fn se(&mut self) -> Option<i64> {
        let number = i64::from(self.ue()?);
        Some(if number & 1 == 1 { (number + 1) / 2 } else { -(number / 2) })
    }

    fn next_byte(&mut self) -> Option<u8> {
        let mut byte = *self.rest.next()?;
        if self.escaped {
            if byte == 3 && self.zeros >= 2 {
                self.zeros = 0;
                byte = *self.rest.next()?;
            }
            self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
        }
        Some(byte)
    }
}
