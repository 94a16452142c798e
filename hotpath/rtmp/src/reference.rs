//! A slow, obvious chunk reader: the oracle for the fast one, and for what our writers emit.
//!
//! Takes a whole recording at once and looks at it byte by byte with nothing in mind but RTMP 1.0
//! §5.3.1 and the choices the text of [`chunk::reader`](crate::chunk::reader) lists. It shares no
//! code with that reader. Set Chunk Size and Abort messages act as they are read, as in a session.
//! For tests and fuzzing only: it copies, it allocates, it keeps everything.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::limits::ReaderLimits;
use crate::message::{MessageHeader, kind};

/// A whole message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its header.
    pub header: MessageHeader,
    /// Its body.
    pub body: Vec<u8>,
}

/// What a recording says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transcript {
    /// Messages in the order in which they were completed.
    pub messages: Vec<Message>,
    /// Label of the error that ended the reading.
    pub error: Option<&'static str>,
}

#[derive(Clone, Default)]
struct Stream {
    header: MessageHeader,
    delta: u32,
    extended: Option<u32>,
    body: Vec<u8>,
}

/// Everything known while reading.
struct State<'a> {
    rest: &'a [u8],
    limits: ReaderLimits,
    chunk_bytes: usize,
    streams: BTreeMap<u32, Stream>,
    omits_on_type3: bool,
    replaced_once: bool,
    tiny_credit: u64,
    messages: Vec<Message>,
}

/// Why reading stopped.
enum Stop {
    /// The recording ends inside something.
    End,
    Error(&'static str),
}

/// Reads a recording of one direction, without its handshake.
pub fn read_all(recording: &[u8], limits: ReaderLimits) -> Transcript {
    let mut state = State {
        rest: recording,
        limits,
        chunk_bytes: 128,
        streams: BTreeMap::new(),
        omits_on_type3: false,
        replaced_once: false,
        tiny_credit: limits.tiny_chunks_max.into(),
        messages: Vec::new(),
    };
    let error = loop {
        match state.read_chunk() {
            Ok(()) => {}
            Err(Stop::End) => break None,
            Err(Stop::Error(label)) => break Some(label),
        }
    };
    Transcript { messages: state.messages, error }
}

impl State<'_> {
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Stop> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Stop::End)?;
        self.rest = rest;
        Ok(taken.to_vec())
    }

    fn number(&mut self, count: usize) -> Result<u32, Stop> {
        Ok(self.bytes(count)?.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn read_chunk(&mut self) -> Result<(), Stop> {
        let first = self.number(1)?;
        let fmt = first / 64;
        let csid = match first % 64 {
            0 => 64 + self.number(1)?,
            1 => {
                let low = self.number(1)?;
                64 + low + 256 * self.number(1)?
            }
            id => id,
        };
        let known = self.streams.contains_key(&csid);
        let mut stream = self.streams.get(&csid).cloned().unwrap_or_default();
        stream.header.csid = csid;
        let (time, announced) = self.read_message_header(fmt, &mut stream)?;
        if !known && fmt >= 2 {
            return Err(Stop::Error("violation_fresh_chunk_stream"));
        }
        if !known && self.streams.len() >= self.limits.chunk_streams_max.into() {
            return Err(Stop::Error("limit_chunk_streams"));
        }
        if fmt <= 1 && announced.length > self.limits.message_bytes_max {
            return Err(Stop::Error("limit_message_bytes"));
        }
        if !stream.body.is_empty() {
            if fmt == 0 && self.replaced_once {
                return Err(Stop::Error("violation_partial_replaced"));
            }
            if fmt == 0 {
                self.replaced_once = true;
                stream.body.clear();
            }
            let same =
                announced.length == stream.header.length && announced.kind == stream.header.kind;
            if fmt == 1 && !same {
                return Err(Stop::Error("violation_header_changed"));
            }
        }
        if stream.body.is_empty() {
            match fmt {
                0 => (stream.header.timestamp, stream.delta) = (time, 0),
                1 | 2 => stream.delta = time,
                _ => {}
            }
            stream.header.timestamp = stream.header.timestamp.wrapping_add(stream.delta);
            stream.header.length = announced.length;
            stream.header.kind = announced.kind;
            stream.header.msid = announced.msid;
        }
        self.read_body(csid, stream)
    }

    /// The message header and extended timestamp: the time field, and the header announced.
    fn read_message_header(
        &mut self,
        fmt: u32,
        stream: &mut Stream,
    ) -> Result<(u32, MessageHeader), Stop> {
        let mut announced = stream.header;
        let mut time = if fmt <= 2 { self.number(3)? } else { 0 };
        if fmt <= 1 {
            announced.length = self.number(3)?;
            announced.kind = self.bytes(1)?.into_iter().next().unwrap_or_default();
        }
        if fmt == 0 {
            announced.msid = self.number(4)?.swap_bytes();
        }
        if fmt <= 2 {
            stream.extended = None;
            if time == 0xFF_FFFF {
                time = self.number(4)?;
                stream.extended = Some(time);
            }
        } else if let Some(extended) = stream.extended
            && !self.omits_on_type3
        {
            let wanted = extended.to_be_bytes();
            if self.rest.starts_with(&wanted) {
                self.bytes(4)?;
            } else if wanted.starts_with(self.rest) {
                return Err(Stop::End);
            } else {
                self.omits_on_type3 = true;
            }
        }
        Ok((time, announced))
    }

    fn read_body(&mut self, csid: u32, mut stream: Stream) -> Result<(), Stop> {
        let wanted = stream.header.length as usize - stream.body.len();
        let count = wanted.min(self.chunk_bytes);
        let max = u64::from(self.limits.tiny_chunks_max);
        if wanted == 0 || (count < 64 && count < wanted) {
            if self.tiny_credit == 0 {
                return Err(Stop::Error("limit_tiny_chunks"));
            }
            self.tiny_credit -= 1;
        } else {
            self.tiny_credit = max.min(self.tiny_credit + 1 + count as u64 / 64);
        }
        let payload = self.bytes(count)?;
        stream.body.extend(payload);
        if stream.body.len() == stream.header.length as usize {
            let body = core::mem::take(&mut stream.body);
            let message = Message { header: stream.header, body };
            self.streams.insert(csid, stream);
            return self.complete(message);
        }
        self.streams.insert(csid, stream);
        Ok(())
    }

    /// Acts on the two messages that change how chunks are read, and keeps every message.
    fn complete(&mut self, message: Message) -> Result<(), Stop> {
        let word = message.body.first_chunk::<4>().map(|word| u32::from_be_bytes(*word));
        let kind = message.header.kind;
        self.messages.push(message);
        match (kind, word) {
            (kind::SET_CHUNK_SIZE | kind::ABORT, None) => {
                return Err(Stop::Error("malformed_control_body"));
            }
            (kind::SET_CHUNK_SIZE, Some(word)) => {
                let size = word & 0x7FFF_FFFF;
                if size == 0 {
                    return Err(Stop::Error("violation_chunk_size_zero"));
                }
                self.chunk_bytes = (size as usize).min(16 * 1024 * 1024);
            }
            (kind::ABORT, Some(csid)) => {
                if let Some(stream) = self.streams.get_mut(&csid) {
                    stream.body.clear();
                }
            }
            _ => {}
        }
        Ok(())
    }
}
