//! Messages to chunks: with header compression as a client sends, and in the shared wire form.

use rtmp::chunk::{ChunkWriter, Compression, Framing};

use super::chunk_reader::header_of;
use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;
use crate::media::Stream;

struct Compressed {
    stream: Stream,
    writer: ChunkWriter,
    out: Vec<u8>,
}

struct Framed {
    stream: Stream,
    framing: Framing,
    out: Vec<u8>,
}

/// [`ChunkWriter`] at a chunk size of 4,096 bytes.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_writer(size: Size) -> Result<Box<dyn Work>, Skipped> {
    let stream = Stream::new(size.pick(1, 5));
    let mut writer = ChunkWriter::new(Compression::SameLength);
    writer.set_chunk_size(4_096);
    Ok(Box::new(Compressed { stream, writer, out: Vec::new() }))
}

/// [`Framing`] at the outgoing chunk size of the server.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_framing(size: Size) -> Result<Box<dyn Work>, Skipped> {
    let stream = Stream::new(size.pick(1, 5));
    Ok(Box::new(Framed { stream, framing: Framing { chunk_bytes: 65_536 }, out: Vec::new() }))
}

impl Work for Compressed {
    fn run(&mut self) -> Outcome {
        let mut digest = Digest::default();
        let mut bytes = 0;
        for message in &self.stream.messages {
            self.out.clear();
            self.writer.write_message(&header_of(message), &message.body, &mut self.out);
            digest.mix_ends(&self.out);
            bytes += self.out.len() as u64;
        }
        outcome(&self.stream, bytes, digest)
    }
}

impl Work for Framed {
    fn run(&mut self) -> Outcome {
        let mut digest = Digest::default();
        let mut bytes = 0;
        for message in &self.stream.messages {
            // As the publisher does it: into a reservation, without knowing the whole body.
            let header = header_of(message);
            let framed_bytes = self.framing.framed_bytes(&header);
            if self.out.len() < framed_bytes {
                self.out.resize(framed_bytes, 0);
            }
            let room = &mut self.out[..framed_bytes];
            let mut framed = self.framing.begin(&header, room);
            for part in message.body.chunks(16 * 1024) {
                framed.push(room, part);
            }
            assert!(framed.is_complete());
            digest.mix_ends(room);
            bytes += room.len() as u64;
        }
        outcome(&self.stream, bytes, digest)
    }
}

fn outcome(stream: &Stream, bytes: u64, digest: Digest) -> Outcome {
    Outcome {
        units: stream.messages.len() as u64,
        bytes,
        copied_bytes: stream.payload_bytes(),
        digest: digest.value(),
    }
}
