//! What is written is read again, whatever is written and however the bytes are cut.
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

use proptest::collection::vec;
use proptest::prelude::*;
use rtmp::chunk::{ChunkWriter, Compression, Framing, OpenMessage};
use rtmp::fuzz::read_in_pieces;
use rtmp::reference::{Message, read_all};
use rtmp::{MessageHeader, ReaderLimits, kind};

/// One thing a peer does.
#[derive(Clone, Debug)]
enum Action {
    /// Starts a message on one of the chunk streams, unless one is open there.
    Start { stream: usize, time: Time, kind: u8, msid: u32, length: usize },
    /// Writes the next chunk of an open message.
    Continue(usize),
    /// Changes the chunk size.
    Resize(u32),
}

/// Time of a message, relative to the one before it on the chunk stream or absolute.
#[derive(Clone, Copy, Debug)]
enum Time {
    At(u32),
    After(u32),
}

const CSIDS: [u32; 6] = [3, 63, 64, 319, 320, 65_599];

fn time() -> impl Strategy<Value = Time> {
    prop_oneof![
        4 => (0_u32..100).prop_map(Time::After),
        1 => Just(Time::After(40)),
        1 => (0x00FF_FFF0_u32..0x0100_0010).prop_map(Time::After),
        2 => (0x00FF_FFF0_u32..0x0100_0010).prop_map(Time::At),
        2 => (0_u32..32).prop_map(|back| Time::At(u32::MAX - back)),
        1 => any::<u32>().prop_map(Time::At),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let length = prop_oneof![0_usize..4, 120_usize..140, 0_usize..600, Just(64)];
    let chunk_bytes = prop_oneof![1_u32..6, 120_u32..140, Just(4_096), Just(16_777_216)];
    prop_oneof![
        4 => (0..CSIDS.len(), time(), 3_u8..23, 0_u32..3, length).prop_map(
            |(stream, time, kind, msid, length)| {
                Action::Start { stream, time, kind, msid, length }
            }
        ),
        8 => (0..CSIDS.len()).prop_map(Action::Continue),
        1 => chunk_bytes.prop_map(Action::Resize),
    ]
}

/// The peer's side of a recording.
struct Peer<'b> {
    writer: ChunkWriter,
    open: [Option<(MessageHeader, OpenMessage<'b>)>; CSIDS.len()],
    times: [u32; CSIDS.len()],
    body: &'b [u8],
    out: Vec<u8>,
    written: Vec<Message>,
}

impl<'b> Peer<'b> {
    fn new(compression: Compression, body: &'b [u8]) -> Self {
        Self {
            writer: ChunkWriter::new(compression),
            open: [None; CSIDS.len()],
            times: [0; CSIDS.len()],
            body,
            out: Vec::new(),
            written: Vec::new(),
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Start { stream, time, kind, msid, length } => {
                if self.open[stream].is_some() {
                    return;
                }
                let timestamp = match time {
                    Time::At(timestamp) => timestamp,
                    Time::After(delta) => self.times[stream].wrapping_add(delta),
                };
                self.times[stream] = timestamp;
                let header = MessageHeader {
                    csid: CSIDS[stream],
                    kind,
                    msid,
                    timestamp,
                    length: length as u32,
                };
                let open = self.writer.begin(&header, &self.body[..length], &mut self.out);
                self.open[stream] = Some((header, open));
                self.close_if_complete(stream);
            }
            Action::Continue(stream) => {
                if let Some((_, open)) = &mut self.open[stream] {
                    self.writer.write_chunk(open, &mut self.out);
                    self.close_if_complete(stream);
                }
            }
            Action::Resize(chunk_bytes) => {
                let header = MessageHeader {
                    csid: 2,
                    kind: kind::SET_CHUNK_SIZE,
                    msid: 0,
                    timestamp: 0,
                    length: 4,
                };
                let body = chunk_bytes.to_be_bytes();
                self.writer.write_message(&header, &body, &mut self.out);
                self.writer.set_chunk_size(chunk_bytes);
                self.written.push(Message { header, body: body.to_vec() });
            }
        }
    }

    fn close_if_complete(&mut self, stream: usize) {
        if let Some((header, _)) = self.open[stream].take_if(|(_, open)| open.is_complete()) {
            let body = self.body[..header.length as usize].to_vec();
            self.written.push(Message { header, body });
        }
    }

    fn finish(mut self) -> (Vec<u8>, Vec<Message>) {
        for stream in 0..CSIDS.len() {
            while self.open[stream].is_some() {
                self.act(&Action::Continue(stream));
            }
        }
        (self.out, self.written)
    }
}

fn limits() -> ReaderLimits {
    ReaderLimits { tiny_chunks_max: u32::MAX, ..ReaderLimits::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_written_is_read_in_any_segmentation(
        actions in vec(action(), 1..60),
        compression in prop_oneof![
            Just(Compression::Full),
            Just(Compression::Delta),
            Just(Compression::SameLength),
            Just(Compression::Smallest),
        ],
        body in vec(any::<u8>(), 600),
        pieces in vec(1_usize..40, 1..20),
    ) {
        let mut peer = Peer::new(compression, &body);
        actions.iter().for_each(|action| peer.act(action));
        let (bytes, written) = peer.finish();

        let oracle = read_all(&bytes, limits());
        prop_assert_eq!(oracle.error, None);
        prop_assert_eq!(&oracle.messages, &written, "the writer emits what the reference reads");

        let mut piece = pieces.iter().cycle();
        let cut = read_in_pieces(&bytes, limits(), |_| *piece.next().unwrap());
        prop_assert_eq!(&cut, &oracle);
        let whole = read_in_pieces(&bytes, limits(), |_| bytes.len());
        prop_assert_eq!(&whole, &oracle);
    }

    #[test]
    fn shared_framing_reads_as_the_messages_it_frames(
        messages in vec((0..CSIDS.len(), any::<u32>(), 3_u8..23, any::<u32>(), 0_usize..700), 1..8),
        chunk_bytes in prop_oneof![1_u32..4, 100_u32..200, Just(65_536)],
        body in vec(any::<u8>(), 700),
        piece in 1_usize..200,
    ) {
        let framing = Framing { chunk_bytes };
        let mut bytes = vec![0x02, 0, 0, 0, 0, 0, 4, kind::SET_CHUNK_SIZE, 0, 0, 0, 0];
        bytes.extend(chunk_bytes.to_be_bytes());
        let mut wanted = Vec::new();
        for (stream, timestamp, kind, msid, length) in messages {
            let header =
                MessageHeader { csid: CSIDS[stream], kind, msid, timestamp, length: length as u32 };
            let start = bytes.len();
            bytes.resize(start + framing.framed_bytes(&header), 0);
            let room = &mut bytes[start..];
            let mut framed = framing.begin(&header, room);
            body[..length].chunks(piece).for_each(|part| framed.push(room, part));
            prop_assert!(framed.is_complete());
            prop_assert_eq!(framed.written_bytes(), room.len());
            wanted.push(Message { header, body: body[..length].to_vec() });
        }
        let oracle = read_all(&bytes, limits());
        prop_assert_eq!(oracle.error, None);
        prop_assert_eq!(&oracle.messages[1..], &wanted[..]);
        prop_assert_eq!(read_in_pieces(&bytes, limits(), |_| piece), oracle);
    }
}

#[test]
fn the_longest_message_goes_through_in_one_chunk_and_in_many() {
    let length = rtmp::limits::MESSAGE_BYTES_MAX;
    let body = vec![0x5A; length as usize];
    let header = MessageHeader { csid: 6, kind: kind::VIDEO, msid: 1, timestamp: 7, length };
    for chunk_bytes in [128, 65_536, rtmp::limits::CHUNK_BYTES_MAX] {
        let mut bytes = Vec::new();
        Framing { chunk_bytes }.write_message(&header, &body, &mut bytes);
        let mut reader = rtmp::chunk::ChunkReader::new(ReaderLimits::default());
        reader.set_chunk_size(chunk_bytes).unwrap();
        let mut received = 0;
        for mut piece in bytes.chunks(16 * 1024) {
            while let Some(part) = reader.next(&mut piece).unwrap() {
                assert_eq!(part.offset, received);
                received += part.body.len() as u32;
                assert_eq!(part.last, received == length);
            }
        }
        assert_eq!(received, length);
    }
}
