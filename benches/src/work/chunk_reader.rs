//! Bytes of a publisher to message parts: the stream as an encoder chunks it, in receive buffers.

use rtmp::chunk::{ChunkReader, ChunkWriter, Compression};
use rtmp::message::MessageHeader;

use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;
use crate::media::{Message, Stream};

/// Bytes per receive buffer, as the worker's default is.
const RECEIVE_BYTES: usize = 16 * 1024;

struct Read {
    wire: Vec<u8>,
    reader: ChunkReader,
}

/// Header of a message on its usual chunk stream.
pub(super) fn header_of(message: &Message) -> MessageHeader {
    let csid = match message.kind {
        rtmp::session::MediaKind::Audio => rtmp::chunk::CSID_AUDIO,
        rtmp::session::MediaKind::Video => rtmp::chunk::CSID_VIDEO,
    };
    MessageHeader {
        csid,
        kind: message.kind.type_id(),
        msid: rtmp::chunk::MEDIA_MSID,
        timestamp: message.timestamp,
        length: u32::try_from(message.body.len()).expect("messages are small"),
    }
}

/// The reader at one chunk size.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build<const CHUNK_BYTES: u32>(size: Size) -> Result<Box<dyn Work>, Skipped> {
    let stream = Stream::new(size.pick(1, 5));
    let mut writer = ChunkWriter::new(Compression::SameLength);
    writer.set_chunk_size(CHUNK_BYTES);
    let mut wire = Vec::new();
    for message in &stream.messages {
        writer.write_message(&header_of(message), &message.body, &mut wire);
    }
    let mut reader = ChunkReader::new(rtmp::ReaderLimits::default());
    reader.set_chunk_size(CHUNK_BYTES).expect("not zero");
    Ok(Box::new(Read { wire, reader }))
}

impl Work for Read {
    fn run(&mut self) -> Outcome {
        let mut outcome = Outcome { bytes: self.wire.len() as u64, ..Outcome::default() };
        let mut digest = Digest::default();
        for buffer in self.wire.chunks(RECEIVE_BYTES) {
            let borrowed = buffer.as_ptr_range();
            let mut input = buffer;
            while let Some(part) = self.reader.next(&mut input).expect("a valid chunk stream") {
                // Whatever does not lie in the receive buffer was copied on the way.
                if !part.body.is_empty() && !borrowed.contains(&part.body.as_ptr()) {
                    outcome.copied_bytes += part.body.len() as u64;
                }
                digest.mix(u64::from(part.header.timestamp) << 32 | part.body.len() as u64);
                outcome.units += u64::from(part.last);
            }
        }
        outcome.digest = digest.value();
        outcome
    }
}
