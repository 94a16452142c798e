//! From message parts to things a session acts upon; the same for both ends of a connection.
//!
//! Media parts pass through borrowed. Commands and data messages are borrowed when they arrive in one
//! part and assembled in bounded buffers when torn. SetChunkSize and Abort act here, between two parts.
//! Called by `ServerSession` and `ClientSession` only.
//!
//! ```text
//!   ChunkReader ──part──┬─ audio, video ─────────────────────────► Incoming::Media (borrowed)
//!        ▲              ├─ aggregate ── split while it streams ──► Incoming::Media (borrowed)
//!        │ rest         ├─ command, data ── whole or assembled ──► Incoming::Command, Data
//!        └──────────────┴─ control ──────── whole or assembled ──► acts here, or Incoming::Control
//! ```
//!
//! One call yields at most one item. When a part holds more than that (several tags of an aggregate,
//! or an aborted message before the part), its unread bytes are handed back to the input and read
//! again by the next
//! call; the caller keeps unconsumed input anyway.
//!
//! Spec: RTMP 1.0 §5.4 (protocol control), §7.1 (message types; 7.1.6 aggregate).

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::aggregate::{Aggregate, Piece};
use super::config::{COMMAND_BYTES_MAX, CONTROL_BYTES_MAX};
use super::error::SessionError;
use super::event::{MediaKind, MediaPart};
use crate::chunk::ChunkReader;
use crate::error::Place;
use crate::limits::ReaderLimits;
use crate::message::{Control, MessageHeader, MessagePart, kind};

/// One item for a session to act upon.
#[derive(Debug)]
pub(super) enum Incoming<'b> {
    Media(MediaPart<'b>),
    MediaAborted { csid: u32, msid: u32, kind: MediaKind },
    Data { msid: u32, timestamp: u32, body: Cow<'b, [u8]> },
    Command { msid: u32, body: Cow<'b, [u8]> },
    Control(Control),
}

/// How messages are put together, and how much of that may be held.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug)]
pub(super) struct InboundLimits {
    pub(super) data_bytes_max: u32,
    pub(super) assembly_bytes_max: u32,
}

impl InboundLimits {
    pub(super) fn new(data_bytes_max: u32, assembly_bytes_max: usize) -> Self {
        Self { data_bytes_max, assembly_bytes_max: len_u32(assembly_bytes_max) }
    }
}

/// A message that has begun and is not complete, at most one per chunk stream.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Debug)]
struct OpenMessage {
    csid: u32,
    msid: u32,
    hold: Hold,
}

/// What is kept of an open message.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Debug)]
enum Hold {
    /// Audio or video: nothing, its parts have gone through.
    Through(MediaKind),
    /// Nothing: of a kind or a length that is not taken in.
    Skipped,
    /// All bytes so far.
    Assembled(Vec<u8>),
    /// The place within an aggregate. Boxed: rare, and larger than all else.
    Aggregate(Box<Aggregate>),
}

/// A part, or the end of one, that was handed back to the input.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug)]
struct Rest {
    header: MessageHeader,
    offset: u32,
    bytes: u32,
    first: bool,
    last: bool,
}

/// The reading half of a session.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Debug)]
pub(super) struct Inbound {
    reader: ChunkReader,
    limits: InboundLimits,
    open: Vec<OpenMessage>,
    rest: Option<Rest>,
    /// Sum of the lengths of all assembled bytes.
    assembled_bytes: u32,
    /// Messages dropped for their length or their kind.
    skipped_messages: u32,
}

impl Inbound {
    pub(super) fn new(reader: ReaderLimits, limits: InboundLimits) -> Self {
        Self {
            reader: ChunkReader::new(reader),
            limits,
            open: Vec::new(),
            rest: None,
            assembled_bytes: 0,
            skipped_messages: 0,
        }
    }

    /// Whether the numbers fit together: they may have come from another process.
    pub(super) fn is_sound(&self) -> bool {
        self.reader.is_sound()
    }

    /// Bytes of chunks consumed; the handshake is not among them.
    pub(super) fn bytes_consumed(&self) -> u64 {
        self.reader.bytes_consumed()
    }

    pub(super) fn chunk_bytes(&self) -> u32 {
        self.reader.chunk_size()
    }

    pub(super) fn skipped_messages(&self) -> u64 {
        u64::from(self.skipped_messages)
    }

    /// Memory held for torn messages and headers.
    pub(super) fn held_bytes(&self) -> usize {
        self.reader.held_bytes() + self.open.iter().map(OpenMessage::held_bytes).sum::<usize>()
    }

    /// The next item, or `None` when the input is used up.
    pub(super) fn next<'b>(
        &mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<Incoming<'b>>, SessionError> {
        loop {
            let before = *input;
            let Some(part) = self.next_part(input)? else { return Ok(None) };
            if part.first
                && let Some(aborted) = self.close_torn(part.header.csid)
            {
                self.hand_back(input, before, &part, part.body.len());
                return Ok(Some(aborted));
            }
            if let Some(incoming) = self.on_part(part, before, input)? {
                return Ok(Some(incoming));
            }
        }
    }

    fn next_part<'b>(
        &mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<MessagePart<'b>>, SessionError> {
        let Some(rest) = self.rest.take() else { return Ok(self.reader.next(input)?) };
        let wanted = rest.bytes as usize;
        let taken = wanted.min(input.len());
        if taken < wanted && taken == 0 {
            self.rest = Some(rest);
            return Ok(None);
        }
        let (body, after) = input.split_at(taken);
        *input = after;
        let complete = taken == wanted;
        if !complete {
            let taken = len_u32(taken);
            let offset = rest.offset.saturating_add(taken);
            self.rest = Some(Rest { offset, bytes: rest.bytes - taken, first: false, ..rest });
        }
        Ok(Some(MessagePart {
            header: rest.header,
            offset: rest.offset,
            body,
            first: rest.first,
            last: rest.last && complete,
            replaced: false,
        }))
    }

    /// Returns the last `bytes` bytes of a part to the input, to be read as a part again.
    fn hand_back<'b>(
        &mut self,
        input: &mut &'b [u8],
        before: &'b [u8],
        part: &MessagePart<'b>,
        bytes: usize,
    ) {
        debug_assert!(
            part.body.is_empty()
                || core::ptr::eq(part.body.as_ptr_range().end, input.as_ptr_range().start),
            "the body of a part ends where the input goes on"
        );
        let start = before.len() - input.len() - bytes;
        *input = before.get(start..).unwrap_or_default();
        let used = part.body.len() - bytes;
        // A part that was itself a part of a rest: what follows it is still to be read as rest.
        let follows = self.rest.take();
        self.rest = Some(Rest {
            header: part.header,
            offset: part.offset.saturating_add(len_u32(used)),
            bytes: len_u32(bytes) + follows.map_or(0, |rest| rest.bytes),
            first: part.first && used == 0,
            last: part.last || follows.is_some_and(|rest| rest.last),
        });
    }

    fn on_part<'b>(
        &mut self,
        part: MessagePart<'b>,
        before: &'b [u8],
        input: &mut &'b [u8],
    ) -> Result<Option<Incoming<'b>>, SessionError> {
        match part.header.kind {
            kind::AUDIO => Ok(self.on_media(&part, MediaKind::Audio)),
            kind::VIDEO => Ok(self.on_media(&part, MediaKind::Video)),
            kind::AGGREGATE => self.on_aggregate(part, before, input),
            kind::COMMAND_AMF0 | kind::COMMAND_AMF3 => {
                if part.header.length > COMMAND_BYTES_MAX {
                    let offset = self.bytes_consumed();
                    return Err(SessionError::CommandTooLong {
                        length: part.header.length,
                        offset,
                    });
                }
                self.on_assembled(&part)
            }
            kind::DATA_AMF0 | kind::DATA_AMF3 => {
                if part.header.length > self.limits.data_bytes_max {
                    self.skip(&part);
                    return Ok(None);
                }
                self.on_assembled(&part)
            }
            kind::SET_CHUNK_SIZE..=kind::SET_PEER_BANDWIDTH => {
                if part.header.length > CONTROL_BYTES_MAX {
                    self.skip(&part);
                    return Ok(None);
                }
                self.on_assembled(&part)
            }
            // Shared objects and whatever else: nothing a live relay acts upon.
            _ => {
                self.skip(&part);
                Ok(None)
            }
        }
    }

    fn on_media<'b>(&mut self, part: &MessagePart<'b>, media: MediaKind) -> Option<Incoming<'b>> {
        let MessageHeader { csid, msid, .. } = part.header;
        if part.first && !part.last {
            self.begin(OpenMessage { csid, msid, hold: Hold::Through(media) });
        }
        if !part.first {
            let skipped = self.open.iter().any(|open| open.csid == csid && open.is_skipped());
            if part.last {
                self.close(csid);
            }
            if skipped {
                return None;
            }
        }
        // Empty messages are sent by some encoders at the end; there is nothing in them to pass on.
        if part.header.length == 0 {
            return None;
        }
        Some(Incoming::Media(MediaPart {
            msid,
            audio_or_video: media,
            timestamp: part.header.timestamp,
            length: part.header.length,
            csid,
            offset: part.offset,
            body: part.body,
            first: part.first,
            last: part.last,
        }))
    }

    /// Lets a message go by. Counted once, at its first part.
    fn skip(&mut self, part: &MessagePart<'_>) {
        let MessageHeader { csid, msid, .. } = part.header;
        if part.first {
            self.skipped_messages = self.skipped_messages.saturating_add(1);
            if !part.last {
                self.begin(OpenMessage { csid, msid, hold: Hold::Skipped });
            }
        } else if part.last {
            self.close(csid);
        }
    }

    /// Puts together a message that is acted upon as a whole.
    fn on_assembled<'b>(
        &mut self,
        part: &MessagePart<'b>,
    ) -> Result<Option<Incoming<'b>>, SessionError> {
        let header = part.header;
        if part.first && part.last {
            return self.on_message(&header, Cow::Borrowed(part.body));
        }
        let bytes = len_u32(part.body.len());
        if self.assembled_bytes.saturating_add(bytes) > self.limits.assembly_bytes_max {
            return Err(SessionError::AssemblyFull { offset: self.bytes_consumed() });
        }
        if part.first {
            let hold = Hold::Assembled(Vec::new());
            self.begin(OpenMessage { csid: header.csid, msid: header.msid, hold });
        }
        let Some(message) = self.open.iter_mut().find(|open| open.csid == header.csid) else {
            return Ok(None);
        };
        let Hold::Assembled(bytes) = &mut message.hold else { return Ok(None) };
        append_bounded(bytes, part.body, header.length);
        self.assembled_bytes += len_u32(part.body.len());
        if !part.last {
            return Ok(None);
        }
        let bytes = core::mem::take(bytes);
        self.assembled_bytes = self.assembled_bytes.saturating_sub(len_u32(bytes.len()));
        self.open.retain(|open| open.csid != header.csid);
        self.on_message(&header, Cow::Owned(bytes))
    }

    fn on_message<'b>(
        &mut self,
        header: &MessageHeader,
        body: Cow<'b, [u8]>,
    ) -> Result<Option<Incoming<'b>>, SessionError> {
        if body.is_empty() {
            return Ok(None);
        }
        let MessageHeader { msid, timestamp, .. } = *header;
        Ok(match header.kind {
            kind::COMMAND_AMF0 => Some(Incoming::Command { msid, body }),
            kind::COMMAND_AMF3 => Some(Incoming::Command { msid, body: without_selector(body) }),
            kind::DATA_AMF0 => Some(Incoming::Data { msid, timestamp, body }),
            kind::DATA_AMF3 => {
                Some(Incoming::Data { msid, timestamp, body: without_selector(body) })
            }
            _ => return self.on_control(header, &body),
        })
    }

    fn on_control<'b>(
        &mut self,
        header: &MessageHeader,
        body: &[u8],
    ) -> Result<Option<Incoming<'b>>, SessionError> {
        let place = Place::on(header.csid, self.bytes_consumed());
        Ok(match Control::parse(header.kind, body, place)? {
            Some(Control::SetChunkSize(bytes)) => {
                self.reader.set_chunk_size(bytes)?;
                None
            }
            Some(Control::Abort(csid)) => self.abort(csid),
            control => control.map(Incoming::Control),
        })
    }

    /// The peer gave up the message on `csid`.
    fn abort<'b>(&mut self, csid: u32) -> Option<Incoming<'b>> {
        self.reader.abort(csid)?;
        self.close_torn(csid)
    }

    fn on_aggregate<'b>(
        &mut self,
        part: MessagePart<'b>,
        before: &'b [u8],
        input: &mut &'b [u8],
    ) -> Result<Option<Incoming<'b>>, SessionError> {
        let MessageHeader { csid, msid, .. } = part.header;
        if part.first {
            let aggregate = Aggregate::new(part.header.timestamp, part.header.length);
            self.begin(OpenMessage { csid, msid, hold: Hold::Aggregate(Box::new(aggregate)) });
        }
        let data_bytes_max = self.limits.data_bytes_max;
        let room = self.limits.assembly_bytes_max.saturating_sub(self.assembled_bytes) as usize;
        let mut body = part.body;
        let Some(aggregate) = self.open.iter_mut().find_map(|open| match &mut open.hold {
            Hold::Aggregate(aggregate) if open.csid == csid => Some(aggregate),
            _ => None,
        }) else {
            if part.last {
                self.close(csid);
            }
            return Ok(None);
        };
        let held_before = len_u32(aggregate.held_bytes());
        let piece = aggregate.next(&mut body, data_bytes_max, room);
        self.assembled_bytes = self.assembled_bytes + len_u32(aggregate.held_bytes()) - held_before;
        let piece = piece
            .map_err(|_| SessionError::AssemblyFull { offset: self.reader.bytes_consumed() })?;
        if !body.is_empty() {
            self.hand_back(input, before, &part, body.len());
        } else if part.last {
            self.close(csid);
        }
        Ok(piece.map(|piece| match piece {
            Piece::Media(media) => Incoming::Media(MediaPart {
                msid,
                audio_or_video: media.kind,
                timestamp: media.timestamp,
                length: media.length,
                csid,
                offset: media.offset,
                body: media.body,
                first: media.offset == 0,
                last: media.last,
            }),
            Piece::Data { timestamp, body } => Incoming::Data { msid, timestamp, body },
        }))
    }

    /// Lets the rest of all open media of a stream go by: the stream has ended or starts anew.
    /// `with_zero` when message stream 0 means it too.
    pub(super) fn skip_open_of(&mut self, msid: u32, with_zero: bool) {
        for open in &mut self.open {
            let chosen = open.msid == msid || (with_zero && open.msid == 0);
            if chosen && matches!(open.hold, Hold::Through(_) | Hold::Aggregate(_)) {
                self.assembled_bytes = self.assembled_bytes.saturating_sub(open.assembled_bytes());
                open.hold = Hold::Skipped;
            }
        }
    }

    /// Notes a message that is not complete. Nearly always it is the only one.
    fn begin(&mut self, message: OpenMessage) {
        if self.open.len() == self.open.capacity() {
            self.open.reserve_exact(self.open.len().max(1));
        }
        self.open.push(message);
    }

    /// Gives back memory that was needed for commands only, when there is nothing open.
    pub(super) fn shrink(&mut self) {
        if self.open.is_empty() {
            self.open = Vec::new();
        }
    }

    /// Forgets a message that came to its end.
    fn close(&mut self, csid: u32) {
        if let Some(index) = self.open.iter().position(|open| open.csid == csid) {
            let closed = self.open.swap_remove(index);
            self.assembled_bytes = self.assembled_bytes.saturating_sub(closed.assembled_bytes());
        }
    }

    /// Forgets a message that will not come to its end; a media message that was begun is reported.
    fn close_torn<'b>(&mut self, csid: u32) -> Option<Incoming<'b>> {
        let index = self.open.iter().position(|open| open.csid == csid)?;
        let open = self.open.swap_remove(index);
        self.assembled_bytes = self.assembled_bytes.saturating_sub(open.assembled_bytes());
        let media = match &open.hold {
            Hold::Through(media) => Some(*media),
            Hold::Aggregate(aggregate) => aggregate.open_media(),
            Hold::Skipped | Hold::Assembled(_) => None,
        }?;
        Some(Incoming::MediaAborted { csid, msid: open.msid, kind: media })
    }
}

impl OpenMessage {
    fn is_skipped(&self) -> bool {
        matches!(self.hold, Hold::Skipped)
    }

    /// Bytes that count toward `assembly_bytes_max`.
    fn assembled_bytes(&self) -> u32 {
        match &self.hold {
            Hold::Assembled(bytes) => len_u32(bytes.len()),
            Hold::Aggregate(aggregate) => len_u32(aggregate.held_bytes()),
            Hold::Through(_) | Hold::Skipped => 0,
        }
    }

    fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.hold {
                Hold::Assembled(bytes) => bytes.capacity(),
                Hold::Aggregate(aggregate) => size_of::<Aggregate>() + aggregate.held_bytes(),
                Hold::Through(_) | Hold::Skipped => 0,
            }
    }
}

/// Appends without ever reserving more than the message can need, nor trusting its announced length.
pub(super) fn append_bounded(bytes: &mut Vec<u8>, more: &[u8], length: u32) {
    const STEP_BYTES: usize = 4096;
    if bytes.capacity() - bytes.len() < more.len() {
        let missing = (length as usize).saturating_sub(bytes.len());
        bytes.reserve_exact(more.len().max(missing.min(STEP_BYTES.max(bytes.len()))));
    }
    bytes.extend_from_slice(more);
}

/// Drops the format selector of the AMF3 message types; what follows is AMF0.
fn without_selector(body: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if body.first() == Some(&0) { without_front(body, 1) } else { body }
}

/// The body without its first `bytes` bytes.
pub(super) fn without_front(body: Cow<'_, [u8]>, bytes: usize) -> Cow<'_, [u8]> {
    match body {
        Cow::Borrowed(slice) => Cow::Borrowed(slice.get(bytes..).unwrap_or_default()),
        Cow::Owned(mut vec) => {
            vec.drain(..bytes.min(vec.len()));
            Cow::Owned(vec)
        }
    }
}

/// Lengths of parts fit: messages are at most 2^24 - 1 bytes.
pub(super) fn len_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
