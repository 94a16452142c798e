//! From the wire image of a message back to its body: what every other framing of a stream is
//! made from.
//!
//! The image is the one [`Publisher`](crate::publisher::Publisher) writes: a fmt 0 header, then the
//! body in chunks, a type 3 header with a one-byte basic header between them, the extended timestamp
//! repeated in each (RTMP 1.0 §5.3.1). Never allocates; a short image gives a short body.

use rtmp::chunk::Framing;

/// A fmt 0 header with a one-byte basic header and no extended timestamp, in bytes.
const PLAIN_HEADER_BYTES: usize = 12;
/// A type 3 basic header, in bytes.
const CONTINUATION_BYTES: usize = 1;
/// The extended timestamp, in bytes.
const EXTENDED_BYTES: usize = 4;

/// The parts of a message's body, in order; see [`body_parts`].
#[derive(Clone, Debug)]
pub struct BodyParts<'a> {
    rest: &'a [u8],
    body_bytes: usize,
    chunk_bytes: usize,
    continuation_bytes: usize,
}

/// The body of the message whose image is `image`, chunk by chunk. `header_bytes` and `body_bytes` are
/// those of its [`MessageMeta`](ring::MessageMeta); `framing` is the stream's.
pub fn body_parts(
    image: &[u8],
    header_bytes: usize,
    body_bytes: usize,
    framing: Framing,
) -> BodyParts<'_> {
    let is_extended = header_bytes > PLAIN_HEADER_BYTES;
    BodyParts {
        rest: image.get(header_bytes..).unwrap_or(&[]),
        body_bytes,
        chunk_bytes: usize::try_from(framing.chunk_bytes).unwrap_or(usize::MAX),
        continuation_bytes: CONTINUATION_BYTES + if is_extended { EXTENDED_BYTES } else { 0 },
    }
}

/// The timestamp in a message's header, which for metadata is not the message's place on the timeline.
pub fn wire_timestamp(image: &[u8], header_bytes: usize) -> u32 {
    let field = |at: usize| image.get(at).copied().unwrap_or_default();
    if header_bytes > PLAIN_HEADER_BYTES {
        return u32::from_be_bytes([field(12), field(13), field(14), field(15)]);
    }
    u32::from_be_bytes([0, field(1), field(2), field(3)])
}

impl<'a> Iterator for BodyParts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let count = self.body_bytes.min(self.chunk_bytes).min(self.rest.len());
        if count == 0 {
            return None;
        }
        let (part, tail) = self.rest.split_at(count);
        self.body_bytes -= count;
        self.rest = tail.get(self.continuation_bytes..).unwrap_or(&[]);
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use rtmp::message::MessageHeader;

    #[test]
    fn the_body_comes_back_whatever_the_chunks_and_the_time() {
        for timestamp in [0, 0xFF_FFFE, 0xFF_FFFF, u32::MAX] {
            for chunk_bytes in [1, 7, 128, 65_536] {
                for length in [0_u32, 1, 127, 128, 129, 300] {
                    let body: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
                    let header = MessageHeader { csid: 6, kind: 9, msid: 1, timestamp, length };
                    let framing = Framing { chunk_bytes };
                    let mut image = Vec::new();
                    framing.write_message(&header, &body, &mut image);
                    let header_bytes = if timestamp >= 0xFF_FFFF { 16 } else { 12 };
                    assert_eq!(wire_timestamp(&image, header_bytes), timestamp);
                    let parts = body_parts(&image, header_bytes, body.len(), framing);
                    assert_eq!(parts.flatten().copied().collect::<Vec<u8>>(), body);
                    // A torn image gives less, and no more.
                    let torn = image.get(..image.len() / 2).unwrap();
                    let parts = body_parts(torn, header_bytes, body.len(), framing);
                    assert!(body.starts_with(&parts.flatten().copied().collect::<Vec<u8>>()));
                }
            }
        }
    }
}
