//! Bodies of the fuzz targets, here so that a change of the crate that breaks one fails to
//! compile instead of failing at night. Each asserts more than "does not panic".

use alloc::vec;
use alloc::vec::Vec;

use crate::amf0;
use crate::chunk::ChunkReader;
use crate::error::ProtocolError;
use crate::handshake;
use crate::limits::{HEADER_BYTES_MAX, ReaderLimits};
use crate::message::{Control, MessagePart};
use crate::reference::{self, Message, Transcript};
use crate::tag;

/// Limits small enough for a fuzzer to reach.
pub fn small_limits() -> ReaderLimits {
    ReaderLimits { message_bytes_max: 1 << 16, chunk_streams_max: 4, tiny_chunks_max: 64 }
}

/// Reads `recording` in pieces as a session does: collects messages, acts on Set Chunk Size and
/// Abort, and checks on the way what every caller relies on. `split` says how long the piece
/// starting at an offset is.
///
/// # Panics
/// When the reader breaks a promise.
pub fn read_in_pieces(
    recording: &[u8],
    limits: ReaderLimits,
    mut split: impl FnMut(usize) -> usize,
) -> Transcript {
    let mut reader = ChunkReader::new(limits);
    let mut collector = Collector::default();
    let mut fed = 0;
    while fed < recording.len() {
        let end = (fed + split(fed).max(1)).min(recording.len());
        let mut input = recording.get(fed..end).unwrap_or_default();
        fed = end;
        loop {
            let before = input.len();
            let next = reader.next(&mut input).and_then(|part| match part {
                Some(part) => collector.take(&mut reader, &part).map(Some),
                None => Ok(None),
            });
            assert!(input.len() <= before, "input grew");
            assert!(reader.held_bytes() <= HEADER_BYTES_MAX, "too much held");
            match next {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => {
                    assert!(error.place().offset <= fed as u64, "an error in the future");
                    return collector.finish(Some(error.label()));
                }
            }
        }
        assert!(input.is_empty(), "input left without a part");
        let known = reader.bytes_consumed() + reader.held_bytes() as u64;
        assert_eq!(known, fed as u64, "consumed + held != fed");
    }
    collector.finish(None)
}

/// Puts parts together again.
#[derive(Default)]
struct Collector {
    messages: Vec<Message>,
    open: Vec<Message>,
}

impl Collector {
    fn take(
        &mut self,
        reader: &mut ChunkReader,
        part: &MessagePart<'_>,
    ) -> Result<(), ProtocolError> {
        let csid = part.header.csid;
        let position = self.open.iter().position(|message| message.header.csid == csid);
        let mut message = match position {
            Some(position) => self.open.swap_remove(position),
            None => Message { header: part.header, body: vec![] },
        };
        assert_eq!(part.replaced, part.first && position.is_some(), "unannounced replacement");
        if part.first {
            message = Message { header: part.header, body: vec![] };
        }
        assert_eq!(message.header, part.header, "header changed between parts");
        assert_eq!(message.body.len(), part.offset as usize, "gap between parts");
        message.body.extend_from_slice(part.body);
        let complete = message.body.len() == part.header.length as usize;
        assert_eq!(complete, part.last, "last does not mean complete");
        assert!(complete || !part.body.is_empty(), "a part without bytes");
        if !complete {
            self.open.push(message);
            return Ok(());
        }
        self.messages.push(message);
        let Some(Message { header, body }) = self.messages.last() else { return Ok(()) };
        let place = crate::error::Place::on(csid, reader.bytes_consumed());
        // Only the two kinds that act on the reader, as the oracle does.
        match (header.kind <= 2).then(|| Control::parse(header.kind, body, place)) {
            Some(Ok(Some(Control::SetChunkSize(size)))) => reader.set_chunk_size(size)?,
            Some(Ok(Some(Control::Abort(csid)))) => {
                let open = self.open.iter().position(|message| message.header.csid == csid);
                let dropped = reader.abort(csid);
                assert_eq!(
                    dropped,
                    open.map(|open| self.open.swap_remove(open).header),
                    "abort and open messages disagree"
                );
            }
            Some(Err(error)) => return Err(error),
            _ => {}
        }
        Ok(())
    }

    fn finish(self, error: Option<&'static str>) -> Transcript {
        Transcript { messages: self.messages, error }
    }
}

/// The first byte chooses the segmentation; the rest is read by [`read_in_pieces`] that way and
/// whole, which must not make a difference.
///
/// # Panics
/// On a broken promise.
pub fn chunk_reader(data: &[u8]) {
    let Some((&seed, recording)) = data.split_first() else { return };
    let whole = read_in_pieces(recording, small_limits(), |_| recording.len());
    let pieces = read_in_pieces(recording, small_limits(), |at| {
        1 + (usize::from(seed) + 7 * at) % usize::from(seed.max(1))
    });
    assert_eq!(pieces, whole, "segmentation changed the transcript");
}

/// The fast reader and the oracle read the same.
///
/// # Panics
/// When they do not.
pub fn differential(data: &[u8]) {
    let ours = read_in_pieces(data, small_limits(), |at| 1 + at % 13);
    let oracle = reference::read_all(data, small_limits());
    assert_eq!(ours, oracle, "fast and slow reader disagree");
}

/// The first byte chooses the segmentation of both sides' handshakes.
///
/// # Panics
/// When more is taken than given, or the reply depends on segmentation.
pub fn handshake(data: &[u8]) {
    let Some((&seed, input)) = data.split_first() else { return };
    let piece = 1 + usize::from(seed) * 16;
    let run = |piece: usize| {
        let mut server = handshake::Server::new(1);
        let mut out = Vec::new();
        let mut result = Ok(false);
        for mut part in input.chunks(piece) {
            result = server.handle_bytes(&mut part, &mut out);
            if result != Ok(false) {
                break;
            }
        }
        assert!(server.bytes_consumed() <= input.len() as u64);
        assert!(server.held_bytes() <= handshake::PACKET_BYTES);
        (out, result)
    };
    let (out, result) = run(input.len().max(1));
    assert!(out.is_empty() || out.len() == 1 + 2 * handshake::PACKET_BYTES);
    assert_eq!(run(piece), (out, result), "segmentation changed the handshake");
    let mut c1 = Vec::new();
    let variant = if seed & 1 == 0 {
        handshake::ClientVariant::Simple
    } else {
        handshake::ClientVariant::Digest
    };
    let mut client = handshake::Client::new(variant, 1, &mut c1);
    let mut out = Vec::new();
    for mut part in input.chunks(piece) {
        if client.handle_bytes(&mut part, &mut out) != Ok(false) {
            break;
        }
    }
    assert!(out.is_empty() || out.len() == handshake::PACKET_BYTES);
}

/// Every value that reads is written and reads back as the same value. Of long input only the
/// start is looked at: text that is repaired grows, and might outgrow the limit on strings.
///
/// # Panics
/// When it does not.
pub fn amf0(data: &[u8]) {
    let data = data.get(..16 * 1024).unwrap_or(data);
    let mut reader = amf0::Reader::new(data);
    while let Ok(Some(value)) = reader.next_value() {
        assert!(reader.position() <= data.len());
        let mut out = Vec::new();
        amf0::Writer::new(&mut out).value(&value);
        let read = amf0::Reader::new(&out).next_value();
        assert!(matches!(read, Ok(Some(_))), "written value does not read: {value:?}");
        let Ok(Some(again)) = read else { return };
        let mut out_again = Vec::new();
        amf0::Writer::new(&mut out_again).value(&again);
        // Bytes, not values: NaN is not equal to itself.
        assert_eq!(out, out_again, "a value changed by writing it");
    }
}

/// Tags and configurations: offsets stay inside the body, classes exclude each other.
///
/// # Panics
/// When they do not.
pub fn tag(data: &[u8]) {
    let video = tag::video(data);
    assert!(video.truncated || video.payload_offset <= data.len());
    let roles = [video.sequence_header, video.end_of_sequence, video.metadata, video.command];
    let roles = roles.iter().filter(|role| **role).count();
    assert!(roles <= 1 && !(video.keyframe && roles > 0), "contradicting classes");
    for track in tag::video_tracks(data) {
        assert!(track.payload.len() <= data.len());
        crate::codec::video_config(track.codec, track.payload);
    }
    let audio = tag::audio(data);
    assert!(audio.truncated || audio.payload_offset <= data.len());
    for track in tag::audio_tracks(data) {
        crate::codec::audio_config(track.codec, track.payload);
    }
}
