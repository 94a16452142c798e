//! FLV over HTTP and WebSocket: the file header, and messages as tags.
//!
//! A tag's bytes depend on nothing but the message, so that all viewers share them: this is the
//! second framing of a stream's ring, filled from the primary one. Never allocates. Called by
//! whoever fills that ring, with a reservation of exactly [`Framing::framed_bytes`].
//!
//! ```text
//!  [wrap]  kind 8 · length 24 · time 24 · time's top byte · 0 24   body   11 + length 32  [end of wrap]
//! ```
//!
//! Spec: FLV 10.1 annex E.2-E.4; what tags travel in: [`wrap`](crate::wrap).

use rtmp::MessageHeader;
use rtmp::limits::MESSAGE_BYTES_MAX;

use crate::wrap::Wrap;

/// Bytes of the file header with the first PreviousTagSize.
pub const FILE_HEADER_BYTES: usize = 13;
/// Bytes in front of a tag's body.
pub const TAG_HEADER_BYTES: usize = 11;
/// Bytes behind a tag's body.
pub const TAG_TRAILER_BYTES: usize = 4;

/// What the file starts with. The flags say what is to come; players wait for a track that is
/// announced, so announce only what the stream has.
pub const fn file_header(audio: bool, video: bool) -> [u8; FILE_HEADER_BYTES] {
    let flags = (audio as u8) << 2 | video as u8;
    [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]
}

/// How a message becomes a tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Framing {
    /// What each tag travels in.
    pub wrap: Wrap,
}

impl Framing {
    /// Bytes `header` and its body take.
    pub fn framed_bytes(self, header: &MessageHeader) -> usize {
        let tag_bytes = tag_bytes(header);
        self.wrap.begin(tag_bytes).as_slice().len() + tag_bytes + self.wrap.end().len()
    }

    /// Writes everything in front of the body to the front of `out` and PreviousTagSize to its
    /// end; the body follows by [`FramedTag::push`]. Chunk stream and message stream of `header`
    /// play no part.
    ///
    /// # Panics
    /// When `out` is not exactly [`framed_bytes`](Self::framed_bytes) long, or the body is longer
    /// than a message may be: mistakes of the caller, not of a peer.
    pub fn begin(self, header: &MessageHeader, out: &mut [u8]) -> FramedTag {
        assert!(out.len() == self.framed_bytes(header), "reservation differs from framed_bytes");
        assert!(header.length <= MESSAGE_BYTES_MAX, "message length out of range");
        let begin = self.wrap.begin(tag_bytes(header));
        let (front, rest) = out.split_at_mut(begin.as_slice().len());
        front.copy_from_slice(begin.as_slice());
        let end = self.wrap.end();
        let (rest, back) = rest.split_at_mut(rest.len() - end.len());
        back.copy_from_slice(end);
        if let Some((tag, rest)) = rest.split_first_chunk_mut::<TAG_HEADER_BYTES>() {
            *tag = tag_header(header);
            if let Some(trailer) = rest.last_chunk_mut::<TAG_TRAILER_BYTES>() {
                let header_bytes: u32 = 11;
                *trailer = (header_bytes + header.length).to_be_bytes();
            }
        }
        let header_bytes = front.len() + TAG_HEADER_BYTES;
        FramedTag { header_bytes, written: header_bytes, body_remaining: header.length as usize }
    }
}

/// A tag of which the header, the trailer and some of the body are written.
#[derive(Clone, Copy, Debug)]
pub struct FramedTag {
    header_bytes: usize,
    written: usize,
    body_remaining: usize,
}

impl FramedTag {
    /// Writes the next body bytes to their place in `out`, the whole reservation `begin` got.
    ///
    /// # Panics
    /// When the parts are longer together than the header said, or `out` is another reservation.
    pub fn push(&mut self, out: &mut [u8], part: &[u8]) {
        assert!(part.len() <= self.body_remaining, "more body than the header announced");
        let (_, room) = out.split_at_mut(self.written);
        let (place, _) = room.split_at_mut(part.len());
        place.copy_from_slice(part);
        self.written += part.len();
        self.body_remaining -= part.len();
    }

    /// True when the whole body was pushed: the reservation is full and may be published.
    pub fn is_complete(&self) -> bool {
        self.body_remaining == 0
    }

    /// Bytes before the first body byte.
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }
}

fn tag_bytes(header: &MessageHeader) -> usize {
    TAG_HEADER_BYTES + header.length as usize + TAG_TRAILER_BYTES
}

fn tag_header(header: &MessageHeader) -> [u8; TAG_HEADER_BYTES] {
    let [_, l0, l1, l2] = header.length.to_be_bytes();
    let [top, t0, t1, t2] = header.timestamp.to_be_bytes();
    [header.kind, l0, l1, l2, t0, t1, t2, top, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const HEADER: MessageHeader =
        MessageHeader { csid: 6, kind: 9, msid: 1, timestamp: 0x0102_0304, length: 3 };

    fn framed(framing: Framing, header: &MessageHeader, body: &[u8], piece: usize) -> Vec<u8> {
        let mut out = vec![0xEE; framing.framed_bytes(header)];
        let mut tag = framing.begin(header, &mut out);
        for part in body.chunks(piece) {
            assert!(!tag.is_complete());
            tag.push(&mut out, part);
        }
        assert!(tag.is_complete());
        out
    }

    #[test]
    fn a_tag_has_its_time_split_and_its_size_behind_it() {
        #[rustfmt::skip]
        assert_eq!(framed(Framing::default(), &HEADER, b"abc", 1), [
            9, 0, 0, 3, 0x02, 0x03, 0x04, 0x01, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 14,
        ]);
    }

    #[test]
    fn a_websocket_frame_is_one_tag_in_each_of_the_three_length_forms() {
        let framing = Framing { wrap: Wrap::WebSocket };
        for (length, head) in [
            (110, vec![0x82, 125]),
            (111, vec![0x82, 126, 0, 126]),
            (0xFFFF - 15, vec![0x82, 126, 0xFF, 0xFF]),
            (0x1_0000 - 15, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let header = MessageHeader { length, ..HEADER };
            let body = vec![7; length as usize];
            let out = framed(framing, &header, &body, 1000);
            assert_eq!(out[..head.len()], head);
            assert_eq!(out[head.len()..], framed(Framing::default(), &header, &body, 70_000));
        }
    }

    #[test]
    fn a_chunk_is_one_tag_between_its_length_and_a_line_end() {
        let framing = Framing { wrap: Wrap::Chunk };
        let out = framed(framing, &HEADER, b"abc", 2);
        assert!(out.starts_with(b"12\r\n") && out.ends_with(b"\r\n"), "{out:?}");
        assert_eq!(out[4..out.len() - 2], framed(Framing::default(), &HEADER, b"abc", 3));
    }

    #[test]
    fn an_empty_message_is_header_and_trailer() {
        let header = MessageHeader { length: 0, ..HEADER };
        assert_eq!(framed(Framing::default(), &header, b"", 1).len(), 15);
    }

    #[test]
    fn the_file_header_announces_what_there_is() {
        assert_eq!(file_header(true, true)[4], 5);
        assert_eq!(file_header(true, false)[4], 4);
        assert_eq!(file_header(false, true)[4], 1);
    }

    #[test]
    #[should_panic(expected = "reservation differs")]
    fn a_reservation_of_the_wrong_size_is_our_own_bug() {
        Framing::default().begin(&HEADER, &mut [0; 4]);
    }

    #[test]
    #[should_panic(expected = "more body")]
    fn more_body_than_announced_is_our_own_bug() {
        let mut out = [0; 18];
        let mut tag = Framing::default().begin(&HEADER, &mut out);
        tag.push(&mut out, b"abcd");
    }
}
