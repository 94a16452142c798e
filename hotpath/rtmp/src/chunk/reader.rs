//! Splits the byte stream of one peer into parts of RTMP messages.
//!
//! Never copies media, never allocates per message (a new chunk stream may grow one small table),
//! never reads a clock, never panics on peer bytes. Called by the sessions only; one reader per
//! direction of a connection.
//!
//! A part is emitted as soon as its bytes are here, so a part may be less than a chunk.
//! Invariant: consumed + held == fed, and held ≤ [`HEADER_BYTES_MAX`]: only a torn header is kept.
//! A new chunk size acts on the next chunk, so the caller applies it between two calls to `next`.
//!
//! What the specification (§5.3.1) leaves open, and what is done here:
//!
//! * **Type 3 and the extended timestamp.** Most peers repeat it in type 3 chunks, some do not.
//!   The first type 3 chunk after an extended header decides for the connection: if its next four
//!   bytes are the extended timestamp they are header, else payload. A peer taken for one that
//!   repeats is taken for one that omits at the first type 3 chunk that does not repeat; that is
//!   proof, so it stays. Equality by chance can mislead once in 2³² such peers.
//! * **Torn peeks.** When the four bytes arrive in several segments and turn out to be payload,
//!   up to three of them are already held. They are given out as parts of one byte that borrow a
//!   static table, so that nothing has to be copied and no part borrows the reader.
//! * **Type 1 on a fresh chunk stream** counts from time 0 on msid 0. Types 2 and 3 there are
//!   violations: the length of their message is unknown.
//! * **Type 3 that starts a message** adds the last delta, which is 0 after a type 0 header.
//! * **Type 0 in the middle of a message** drops that message, once per connection; the next part
//!   says so by `replaced`. The second time is a violation.
//! * **Type 1 or 2 in the middle of a message** continues it if length and type are the same.

use alloc::vec::Vec;

use super::EXTENDED_TIMESTAMP;
use crate::error::{LimitExceeded, Place, ProtocolError, Violation};
use crate::limits::{
    CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX, CHUNK_STREAMS_MAX, HEADER_BYTES_MAX, MESSAGE_BYTES_MAX,
    ReaderLimits, TINY_CHUNK_BYTES,
};
use crate::message::{MessageHeader, MessagePart};

/// Chunk streams below this number are found by direct look-up: those that peers use. A server has one
/// reader for every player, so it is not more.
const DIRECT_CSIDS: usize = 16;
/// Chunk streams for which room is made at once: a player sends on two.
const STREAMS_STEP: usize = 2;

/// One-byte bodies for payload that had to be held; see the module's text on torn peeks.
static BYTE_BODIES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut value = 0_u8;
    loop {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler; in range")]
        {
            bytes[value as usize] = value;
        }
        match value.checked_add(1) {
            Some(next) => value = next,
            None => break bytes,
        }
    }
};

/// Whether this peer repeats the extended timestamp in type 3 chunks, as far as is known.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtendedOnType3 {
    /// No type 3 chunk followed an extended header yet.
    Unknown,
    /// It does, so far.
    Repeated,
    /// It does not; proven.
    Omitted,
}

/// Reader of one direction of a connection. After an error it must not be used again.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug)]
pub struct ChunkReader {
    limits: ReaderLimits,
    chunk_bytes: u32,
    /// Payload bytes of the current chunk still to come; 0 between chunks.
    chunk_remaining: u32,
    /// Chunk stream of the current chunk, an index into `streams`.
    current: u8,
    streams: Vec<ChunkStream>,
    /// By csid: index into `streams` plus one, 0 if the csid was never used.
    direct: [u8; DIRECT_CSIDS],
    /// Bytes taken from the input whose meaning is not known yet.
    held: [u8; HEADER_BYTES_MAX],
    held_len: u8,
    consumed: u64,
    type3: ExtendedOnType3,
    has_replaced_partial: bool,
    /// Tiny chunks the peer may still send.
    tiny_credit: u32,
}

/// What is remembered of a chunk stream: its last header and the progress of its message.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default)]
struct ChunkStream {
    csid: u32,
    msid: u32,
    timestamp: u32,
    /// Added by a type 3 chunk that starts a message.
    delta: u32,
    /// Body length of the last message.
    length: u32,
    /// Body bytes of the message given out; 0 when no message is open. A message that is open
    /// between two chunks has at least one byte, because a chunk of it was read.
    received: u32,
    /// Extended timestamp as it stood on the wire in the last header of type 0, 1 or 2.
    extended: Option<u32>,
    kind: u8,
    /// The open message displaced another; told with its first part.
    replaced: bool,
}

impl ChunkStream {
    fn header(&self) -> MessageHeader {
        MessageHeader {
            csid: self.csid,
            kind: self.kind,
            msid: self.msid,
            timestamp: self.timestamp,
            length: self.length,
        }
    }
}

/// A chunk header that was complete. Fields a type does not have are zero.
#[derive(Clone, Copy, Debug)]
struct ChunkHeader {
    fmt: u8,
    csid: u32,
    /// Index into `streams`, if the csid is known.
    slot: Option<usize>,
    /// Bytes of the whole header.
    bytes: usize,
    /// Timestamp (type 0) or delta (types 1 and 2), extended form resolved.
    time: u32,
    extended: Option<u32>,
    length: u32,
    kind: u8,
    msid: u32,
    /// What a type 3 chunk just taught about this peer.
    learned: Option<ExtendedOnType3>,
}

impl ChunkReader {
    /// A reader at the first byte after the handshake, with a chunk size of 128.
    pub fn new(limits: ReaderLimits) -> Self {
        let limits = ReaderLimits {
            message_bytes_max: limits.message_bytes_max.min(MESSAGE_BYTES_MAX),
            chunk_streams_max: limits.chunk_streams_max.clamp(1, CHUNK_STREAMS_MAX),
            tiny_chunks_max: limits.tiny_chunks_max,
        };
        Self {
            limits,
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            chunk_remaining: 0,
            current: 0,
            streams: Vec::new(),
            direct: [0; DIRECT_CSIDS],
            held: [0; HEADER_BYTES_MAX],
            held_len: 0,
            consumed: 0,
            type3: ExtendedOnType3::Unknown,
            has_replaced_partial: false,
            tiny_credit: limits.tiny_chunks_max,
        }
    }

    /// Takes the next part from the front of `input`.
    ///
    /// Call until `None`: then all of `input` was taken, and more is needed. The part borrows the
    /// input, never the reader.
    ///
    /// # Errors
    /// [`Violation`] and [`LimitExceeded`] as listed in the module's text; offsets count from the
    /// reader's first byte. The connection is to be closed: the reader has lost its place.
    #[inline]
    pub fn next<'b>(
        &mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<MessagePart<'b>>, ProtocolError> {
        if self.chunk_remaining == 0 {
            if !self.read_header(input)? {
                return Ok(None);
            }
            if self.chunk_remaining == 0 {
                return Ok(self.part(&[]));
            }
        }
        Ok(self.read_payload(input))
    }

    /// Sets the size of the peer's chunks from the next chunk on, in bytes.
    ///
    /// Sizes above [`CHUNK_BYTES_MAX`] act like it, since no message is longer.
    ///
    /// # Errors
    /// [`Violation::ChunkSizeZero`].
    pub fn set_chunk_size(&mut self, chunk_bytes: u32) -> Result<(), ProtocolError> {
        if chunk_bytes == 0 {
            let place = Place::at(self.consumed);
            return Err(ProtocolError::Violation(Violation::ChunkSizeZero, place));
        }
        self.chunk_bytes = chunk_bytes.min(CHUNK_BYTES_MAX);
        Ok(())
    }

    /// Forgets the unfinished message on `csid` and returns its header; `None` if there is none.
    ///
    /// For Abort messages, so it acts between chunks: the message whose chunk is being read right
    /// now cannot be aborted, and asking for that does nothing.
    pub fn abort(&mut self, csid: u32) -> Option<MessageHeader> {
        let slot = self.slot_of(csid)?;
        let in_chunk = self.chunk_remaining > 0 && slot == usize::from(self.current);
        let stream = self.streams.get_mut(slot)?;
        if stream.received == 0 || in_chunk {
            return None;
        }
        stream.received = 0;
        Some(stream.header())
    }

    /// Whether the numbers fit together: they may have come from another process.
    pub(crate) fn is_sound(&self) -> bool {
        let count = self.streams.len();
        self.held_bytes() <= HEADER_BYTES_MAX
            && (1..=CHUNK_BYTES_MAX).contains(&self.chunk_bytes)
            && self.direct.iter().all(|&entry| usize::from(entry) <= count)
            && self.streams.iter().all(|stream| stream.received <= stream.length)
            && (self.chunk_remaining == 0 || usize::from(self.current) < count)
    }

    /// Bytes whose meaning is known: all that were fed, but for [`held_bytes`](Self::held_bytes).
    pub fn bytes_consumed(&self) -> u64 {
        self.consumed
    }

    /// Bytes of a torn header, at most [`HEADER_BYTES_MAX`].
    pub fn held_bytes(&self) -> usize {
        usize::from(self.held_len)
    }

    /// Chunk size in force for the peer's next chunk, in bytes.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_bytes
    }

    /// How this peer treats extended timestamps, for logs.
    pub fn extended_on_type3(&self) -> ExtendedOnType3 {
        self.type3
    }

    /// Messages dropped because another started in their middle: 0 or 1.
    pub fn partials_replaced(&self) -> u32 {
        u32::from(self.has_replaced_partial)
    }

    /// Reads one header and opens its chunk; false if more input is needed.
    #[inline]
    fn read_header(&mut self, input: &mut &[u8]) -> Result<bool, ProtocolError> {
        if self.held_len != 0 {
            return self.read_torn_header(input);
        }
        match self.parse(input) {
            Some(header) => {
                *input = input.get(header.bytes..).unwrap_or_default();
                self.open_chunk(&header)?;
                Ok(true)
            }
            None => {
                self.hold(input);
                Ok(false)
            }
        }
    }

    /// Like `read_header`, with the first bytes of the header held from earlier input.
    #[cold]
    fn read_torn_header(&mut self, input: &mut &[u8]) -> Result<bool, ProtocolError> {
        let held_before = self.held_bytes();
        let rest = *input;
        self.hold(input);
        let joined = self.held;
        let Some(header) = self.parse(joined.get(..self.held_bytes()).unwrap_or_default()) else {
            return Ok(false);
        };
        match header.bytes.checked_sub(held_before) {
            Some(from_input) => {
                *input = rest.get(from_input..).unwrap_or_default();
                self.held_len = 0;
            }
            None => {
                // A peek that failed left payload, or even a next header, in front of the input.
                *input = rest;
                self.set_held(held_before);
                self.unhold(header.bytes);
            }
        }
        self.open_chunk(&header)?;
        Ok(true)
    }

    /// Moves as much input behind the held bytes as fits. All of it fits when a header is torn.
    fn hold(&mut self, input: &mut &[u8]) {
        let before = self.held_bytes();
        let room = self.held.get_mut(before..).unwrap_or_default();
        let count = room.len().min(input.len());
        if let (Some(room), Some((taken, rest))) =
            (room.get_mut(..count), input.split_at_checked(count))
        {
            room.copy_from_slice(taken);
            *input = rest;
            self.set_held(before + count);
        }
    }

    /// Takes `count` bytes off the front of the held ones.
    fn unhold(&mut self, count: usize) {
        let before = self.held_bytes();
        self.held.copy_within(count..before, 0);
        self.set_held(before - count);
    }

    /// At most [`HEADER_BYTES_MAX`].
    fn set_held(&mut self, bytes: usize) {
        self.held_len = u8::try_from(bytes).unwrap_or(u8::MAX);
    }

    #[inline]
    fn slot_of(&self, csid: u32) -> Option<usize> {
        match self.direct.get(csid as usize) {
            Some(entry) => usize::from(*entry).checked_sub(1),
            None => self.streams.iter().position(|stream| stream.csid == csid),
        }
    }

    /// Reads the header at the front of `bytes`; `None` when it is not complete.
    #[inline]
    fn parse(&self, bytes: &[u8]) -> Option<ChunkHeader> {
        let (&[first], rest) = bytes.split_first_chunk::<1>()?;
        let (csid, rest) = match first & 0x3F {
            0 => {
                let (&[low], rest) = rest.split_first_chunk::<1>()?;
                (64 + u32::from(low), rest)
            }
            1 => {
                let (&[low, high], rest) = rest.split_first_chunk::<2>()?;
                (64 + u32::from(low) + 256 * u32::from(high), rest)
            }
            id => (u32::from(id), rest),
        };
        let mut header = ChunkHeader {
            fmt: first >> 6,
            csid,
            slot: self.slot_of(csid),
            bytes: 0,
            time: 0,
            extended: None,
            length: 0,
            kind: 0,
            msid: 0,
            learned: None,
        };
        let rest = match header.fmt {
            0 => {
                let (fields, rest) = rest.split_first_chunk::<11>()?;
                let &[t0, t1, t2, l0, l1, l2, kind, m0, m1, m2, m3] = fields;
                header.time = u32::from_be_bytes([0, t0, t1, t2]);
                header.length = u32::from_be_bytes([0, l0, l1, l2]);
                header.kind = kind;
                header.msid = u32::from_le_bytes([m0, m1, m2, m3]);
                header.take_extended(rest)?
            }
            1 => {
                let (&[t0, t1, t2, l0, l1, l2, kind], rest) = rest.split_first_chunk::<7>()?;
                header.time = u32::from_be_bytes([0, t0, t1, t2]);
                header.length = u32::from_be_bytes([0, l0, l1, l2]);
                header.kind = kind;
                header.take_extended(rest)?
            }
            2 => {
                let (&[t0, t1, t2], rest) = rest.split_first_chunk::<3>()?;
                header.time = u32::from_be_bytes([0, t0, t1, t2]);
                header.take_extended(rest)?
            }
            _ => self.peek_extended(&mut header, rest)?,
        };
        header.bytes = bytes.len() - rest.len();
        Some(header)
    }

    /// Decides whether a type 3 header goes on with an extended timestamp; returns what follows
    /// the header, or `None` when more bytes are needed to tell.
    #[inline]
    fn peek_extended<'b>(&self, header: &mut ChunkHeader, rest: &'b [u8]) -> Option<&'b [u8]> {
        let extended = header.slot.and_then(|slot| self.streams.get(slot)).and_then(|s| s.extended);
        let Some(extended) = extended else { return Some(rest) };
        if self.type3 == ExtendedOnType3::Omitted {
            return Some(rest);
        }
        let wanted = extended.to_be_bytes();
        let differs = rest.iter().zip(&wanted).any(|(byte, want)| byte != want);
        if differs {
            header.learned = Some(ExtendedOnType3::Omitted);
            return Some(rest);
        }
        let (_, rest) = rest.split_first_chunk::<4>()?;
        header.learned = Some(ExtendedOnType3::Repeated);
        Some(rest)
    }

    /// Applies a header: starts or continues a message and opens the chunk's payload.
    #[inline]
    fn open_chunk(&mut self, header: &ChunkHeader) -> Result<(), ProtocolError> {
        let offset = self.consumed;
        self.consumed += header.bytes as u64;
        if let Some(learned) = header.learned {
            self.type3 = learned;
        }
        let slot = match header.slot {
            Some(slot) => slot,
            None => self.open_stream(header, offset)?,
        };
        let message_bytes_max = self.limits.message_bytes_max;
        let place = Place::on(header.csid, offset);
        if header.fmt <= 1 && header.length > message_bytes_max {
            let reason =
                LimitExceeded::MessageBytes { length: header.length, max: message_bytes_max };
            return Err(ProtocolError::LimitExceeded(reason, place));
        }
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(()) };
        if stream.received == 0 {
            stream.start(header);
        } else if header.fmt == 0 {
            if self.has_replaced_partial {
                return Err(ProtocolError::Violation(Violation::PartialReplaced, place));
            }
            self.has_replaced_partial = true;
            stream.received = 0;
            stream.start(header);
            stream.replaced = true;
        } else {
            stream.go_on(header).map_err(|reason| ProtocolError::Violation(reason, place))?;
        }
        let body_remaining = stream.length - stream.received;
        // `chunk_streams_max` is at most 255.
        self.current = u8::try_from(slot).unwrap_or(u8::MAX);
        self.chunk_remaining = body_remaining.min(self.chunk_bytes);
        self.charge(body_remaining, place)
    }

    /// Takes the price of one chunk from the peer's credit; see [`ReaderLimits::tiny_chunks_max`].
    #[inline]
    fn charge(&mut self, body_remaining: u32, place: Place) -> Result<(), ProtocolError> {
        let ends_message = self.chunk_remaining == body_remaining;
        let tiny = self.chunk_remaining < TINY_CHUNK_BYTES && !ends_message;
        let max = self.limits.tiny_chunks_max;
        if tiny || body_remaining == 0 {
            match self.tiny_credit.checked_sub(1) {
                Some(credit) => self.tiny_credit = credit,
                None => {
                    let reason = LimitExceeded::TinyChunks { max };
                    return Err(ProtocolError::LimitExceeded(reason, place));
                }
            }
        } else if self.tiny_credit < max {
            let refund = 1 + self.chunk_remaining / TINY_CHUNK_BYTES;
            self.tiny_credit = self.tiny_credit.saturating_add(refund).min(max);
        }
        Ok(())
    }

    /// Makes room for a csid seen for the first time.
    #[cold]
    fn open_stream(&mut self, header: &ChunkHeader, offset: u64) -> Result<usize, ProtocolError> {
        let place = Place::on(header.csid, offset);
        if header.fmt > 1 {
            let reason = Violation::FreshChunkStream { fmt: header.fmt };
            return Err(ProtocolError::Violation(reason, place));
        }
        let max = self.limits.chunk_streams_max;
        if self.streams.len() >= usize::from(max) {
            return Err(ProtocolError::LimitExceeded(LimitExceeded::ChunkStreams { max }, place));
        }
        let slot = self.streams.len();
        if slot == self.streams.capacity() {
            self.streams.reserve_exact(STREAMS_STEP.max(slot));
        }
        self.streams.push(ChunkStream { csid: header.csid, ..ChunkStream::default() });
        if let (Some(entry), Ok(number)) =
            (self.direct.get_mut(header.csid as usize), u8::try_from(slot + 1))
        {
            *entry = number;
        }
        Ok(slot)
    }

    /// Takes payload of the open chunk; `None` when there is no input.
    #[inline]
    fn read_payload<'b>(&mut self, input: &mut &'b [u8]) -> Option<MessagePart<'b>> {
        if self.held_len != 0 {
            return self.read_held_payload();
        }
        if input.is_empty() {
            return None;
        }
        let count = input.len().min(self.chunk_remaining as usize);
        let (body, rest) = input.split_at_checked(count)?;
        *input = rest;
        self.part(body)
    }

    /// Gives out one held byte as payload.
    #[cold]
    fn read_held_payload(&mut self) -> Option<MessagePart<'static>> {
        let value = usize::from(*self.held.first()?);
        let body = BYTE_BODIES.get(value..=value)?;
        self.unhold(1);
        self.part(body)
    }

    /// Words `body`, which lies within the open chunk, as a part of the current message.
    #[inline]
    fn part<'b>(&mut self, body: &'b [u8]) -> Option<MessagePart<'b>> {
        let stream = self.streams.get_mut(usize::from(self.current))?;
        // Never more than the open chunk, whose length came from a 24-bit field.
        let count = u32::try_from(body.len()).ok()?;
        let offset = stream.received;
        let end = offset + count;
        let last = end == stream.length;
        let part = MessagePart {
            header: stream.header(),
            offset,
            body,
            first: offset == 0,
            last,
            replaced: stream.replaced,
        };
        stream.received = if last { 0 } else { end };
        stream.replaced = false;
        self.chunk_remaining -= count;
        self.consumed += u64::from(count);
        Some(part)
    }
}

impl ChunkHeader {
    /// Resolves the timestamp field; returns what follows the header, `None` if it is torn.
    #[inline]
    fn take_extended<'b>(&mut self, rest: &'b [u8]) -> Option<&'b [u8]> {
        if self.time != EXTENDED_TIMESTAMP {
            return Some(rest);
        }
        let (bytes, rest) = rest.split_first_chunk::<4>()?;
        self.time = u32::from_be_bytes(*bytes);
        self.extended = Some(self.time);
        Some(rest)
    }
}

impl ChunkStream {
    /// Starts a message.
    #[inline]
    fn start(&mut self, header: &ChunkHeader) {
        match header.fmt {
            0 => {
                self.timestamp = header.time;
                self.delta = 0;
                self.msid = header.msid;
            }
            1 | 2 => {
                self.delta = header.time;
                self.timestamp = self.timestamp.wrapping_add(self.delta);
            }
            _ => self.timestamp = self.timestamp.wrapping_add(self.delta),
        }
        if header.fmt <= 1 {
            self.length = header.length;
            self.kind = header.kind;
        }
        if header.fmt <= 2 {
            self.extended = header.extended;
        }
    }

    /// Continues the open message by a header of type 1, 2 or 3. Its time stays what it was.
    #[inline]
    fn go_on(&mut self, header: &ChunkHeader) -> Result<(), Violation> {
        if header.fmt == 1 && (header.length != self.length || header.kind != self.kind) {
            return Err(Violation::HeaderChangedMidMessage);
        }
        if header.fmt <= 2 {
            self.extended = header.extended;
        }
        Ok(())
    }
}
