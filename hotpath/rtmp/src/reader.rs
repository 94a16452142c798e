//! A checked cursor over bytes that are already here.
//!
//! Every take is checked and borrows; nothing is copied but scalars. Running short is `None`: the
//! caller knows the type it was reading and words the error. All integers are big-endian (§3)
//! unless the name says otherwise.

/// Reads scalars and sub-slices from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
    total_bytes: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, total_bytes: bytes.len() }
    }

    /// Bytes taken so far.
    pub fn position(&self) -> usize {
        self.total_bytes - self.rest.len()
    }

    /// Bytes not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True when every byte was taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte, without taking it.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Takes `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// Takes a fixed number of bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Takes a 16-bit integer.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Takes a 24-bit integer.
    pub fn u24(&mut self) -> Option<u32> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// Takes a signed 24-bit integer.
    pub fn i24(&mut self) -> Option<i32> {
        self.array().map(|[a, b, c]| i32::from_be_bytes([a, b, c, 0]) >> 8)
    }

    /// Takes a 32-bit integer.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Takes a 32-bit little-endian integer (message stream ids, §5.3.1.2.1).
    pub fn u32_le(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes an IEEE 754 double.
    pub fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_are_checked_and_leave_the_cursor_alone_on_failure() {
        let mut cursor = Cursor::new(&[0x01, 0x02, 0x03, 0xFF, 0xFF, 0xFE]);
        assert_eq!(cursor.u24(), Some(0x01_0203));
        assert_eq!(cursor.u32(), None);
        assert_eq!(cursor.position(), 3);
        assert_eq!(cursor.i24(), Some(-2));
        assert!(cursor.is_empty());
        assert_eq!(cursor.u8(), None);
    }
}
