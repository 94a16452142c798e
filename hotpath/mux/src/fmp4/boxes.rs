//! Writes nested boxes: the size of each is filled in when it is closed. Lossless and infallible;
//! what is inside is the business of the callers next door. Spec: ISO 14496-12 §4.2.

use alloc::vec::Vec;

/// Appends boxes to a buffer.
#[derive(Debug)]
pub(super) struct Boxes<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Boxes<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// A box with what `body` writes.
    pub(super) fn nest(&mut self, kind: &[u8; 4], body: impl FnOnce(&mut Self)) {
        let at = self.position();
        self.u32(0);
        self.bytes(kind);
        body(self);
        // Boxes hold a bounded number of samples and records, far below 4 GiB.
        let size = u32::try_from(self.position() - at).unwrap_or(u32::MAX);
        self.patch(at, size);
    }

    /// A box with version and flags.
    pub(super) fn full(
        &mut self,
        kind: &[u8; 4],
        version: u8,
        flags: u32,
        body: impl FnOnce(&mut Self),
    ) {
        self.nest(kind, |boxes| {
            boxes.u32(u32::from(version) << 24 | flags & 0x00FF_FFFF);
            body(boxes);
        });
    }

    /// Bytes written so far.
    pub(super) fn position(&self) -> usize {
        self.out.len()
    }

    /// Replaces four bytes that were written before.
    pub(super) fn patch(&mut self, at: usize, value: u32) {
        if let Some(place) = self.out.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.out.resize(self.out.len() + count, 0);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }
}
