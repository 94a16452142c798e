//! From the wire image of a message back to its body: what every other framing of a stream is
//! made from.
//!
//! The image is the one [`Publisher`](crate::publisher::Publisher) writes: a fmt 0 header, then the
//! body in chunks, a type 3 header with a one-byte basic header between them, the extended timestamp
//! repeated in each (RTMP 1.0 §5.3.1). A short image gives a short body.

use alloc::vec::Vec;

use ring::MessageKind;
use rtmp::chunk::Framing;
use rtmp::message::kind;

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

/// The body as one slice: a part of the image where it lies in one chunk, put together in `scratch` where it
/// lies in several. Arguments as for [`body_parts`]. Copies only in the second case.
pub fn whole_body<'a>(
    image: &'a [u8],
    header_bytes: usize,
    body_bytes: usize,
    framing: Framing,
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    let mut parts = body_parts(image, header_bytes, body_bytes, framing);
    let first = parts.next().unwrap_or_default();
    if first.len() == body_bytes {
        return first;
    }
    scratch.clear();
    scratch.extend_from_slice(first);
    parts.for_each(|part| scratch.extend_from_slice(part));
    scratch
}

/// The message type id of what a ring holds (RTMP 1.0 §7.1).
pub const fn message_type(media: MessageKind) -> u8 {
    match media {
        MessageKind::Audio => kind::AUDIO,
        MessageKind::Video => kind::VIDEO,
        MessageKind::Data => kind::DATA_AMF0,
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
                    let mut scratch = Vec::new();
                    let whole = whole_body(&image, header_bytes, body.len(), framing, &mut scratch);
                    assert_eq!(whole, body);
                    let is_split = length > chunk_bytes;
                    assert_eq!(scratch.is_empty(), !is_split, "copied only if it must be");
                    // A torn image gives less, and no more.
                    let torn = image.get(..image.len() / 2).unwrap();
                    let parts = body_parts(torn, header_bytes, body.len(), framing);
                    assert!(body.starts_with(&parts.flatten().copied().collect::<Vec<u8>>()));
                }
            }
        }
    }
}
