//! What a viewer sends in frames: control frames are handed out, data is thrown away.
//!
//! Data may be of any length and in any number of fragments; none of it is held, so its text is
//! not checked to be UTF-8 either. A control frame is kept until it is whole: 125 bytes, inline.
//! Behind a close frame nothing counts any more, and all is taken.
//!
//! ```text
//!  header 2 [+ 2 | + 8] + mask 4 ─┬─► data ───────► Message, when the last fragment is over
//!                                 └─► control ─┬──► Ping · Pong
//!                                              └──► Close ─► closed: all is taken
//! ```
//!
//! Spec: RFC 6455 §5.2-§5.5, §7.4.

use core::fmt;

use super::{
    BINARY, CLOSE, CONTINUATION, CONTROL_BYTES_MAX, ControlPayload, PING, PONG, TEXT, is_close_code,
};

/// Bytes of the longest header: two, a length of eight, the mask.
const HEADER_BYTES_MAX: usize = 14;

/// What a viewer's frames mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// To be answered by [`super::write_pong`] with the payload.
    Ping(ControlPayload),
    /// The answer to a ping, or a sign of life.
    Pong,
    /// The peer is done, with its code if it gave one. To be answered by [`super::write_close`],
    /// then the connection closes.
    Close(Option<u16>),
    /// A text or binary message is over. Its bytes were thrown away.
    Message,
}

/// Why a viewer's frames cannot be accepted. The connection is to be closed, with
/// [`FrameError::close_code`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// A bit is set that belongs to an extension, and none was agreed upon.
    ReservedBits,
    /// A kind of frame that does not exist.
    Opcode,
    /// A client's frame without mask.
    NotMasked,
    /// A length in a longer form than it needs, or beyond 63 bits.
    Length,
    /// A control frame of more than 125 bytes.
    ControlTooLong,
    /// A control frame in fragments.
    ControlFragmented,
    /// A continuation of nothing, or a message within another.
    Continuation,
    /// A close frame with half a code, or one that may not be sent.
    CloseCode,
    /// The reason in a close frame is not UTF-8.
    CloseReason,
}

impl FrameError {
    /// Short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved_bits",
            Self::Opcode => "opcode",
            Self::NotMasked => "not_masked",
            Self::Length => "length",
            Self::ControlTooLong => "control_too_long",
            Self::ControlFragmented => "control_fragmented",
            Self::Continuation => "continuation",
            Self::CloseCode => "close_code",
            Self::CloseReason => "close_reason",
        }
    }

    /// The code to close with.
    pub fn close_code(&self) -> u16 {
        if *self == Self::CloseReason { 1007 } else { 1002 }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedBits => "reserved bits without an extension",
            Self::Opcode => "unknown kind of frame",
            Self::NotMasked => "client's frame without mask",
            Self::Length => "length not in its shortest form",
            Self::ControlTooLong => "control frame too long",
            Self::ControlFragmented => "control frame in fragments",
            Self::Continuation => "fragments out of order",
            Self::CloseCode => "close code that may not be sent",
            Self::CloseReason => "close reason is not UTF-8",
        })
    }
}

impl core::error::Error for FrameError {}

/// Reads the frames a client sends.
#[derive(Clone, Debug, Default)]
pub struct FrameReader {
    state: State,
    /// The first fragment of a message was seen and the last was not.
    is_fragmented: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header { bytes: [u8; HEADER_BYTES_MAX], length: usize },
    Data { left: u64, is_final: bool },
    Control { opcode: u8, mask: [u8; 4], wanted: u8, payload: ControlPayload },
    Closed,
    Failed(FrameError),
}

impl Default for State {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER_BYTES_MAX], length: 0 }
    }
}

impl FrameReader {
    /// A reader behind the handshake.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` up to what is worth an event. `Ok(None)`: all bytes
    /// are taken and more are needed.
    ///
    /// # Errors
    /// When a frame breaks the protocol. Further calls return the same error.
    pub fn handle_bytes(&mut self, input: &mut &[u8]) -> Result<Option<Event>, FrameError> {
        let result = self.advance(input);
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        result
    }

    /// True between messages and frames.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Header { length: 0, .. } | State::Closed) && !self.is_fragmented
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Event>, FrameError> {
        loop {
            match &mut self.state {
                State::Header { bytes, length } => {
                    let Some(frame) = take_header(bytes, length, input)? else { return Ok(None) };
                    self.state = self.payload_of(frame)?;
                }
                State::Data { left, is_final } => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *input = input.get(here..).unwrap_or_default();
                    *left -= here as u64;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let is_final = *is_final;
                    self.state = State::default();
                    if is_final {
                        return Ok(Some(Event::Message));
                    }
                }
                State::Control { opcode, mask, wanted, payload } => {
                    payload.fill(*wanted, *mask, input);
                    if payload.length < *wanted {
                        return Ok(None);
                    }
                    let event = control_event(*opcode, *payload)?;
                    let is_close = matches!(event, Event::Close(_));
                    self.state = if is_close { State::Closed } else { State::default() };
                    return Ok(Some(event));
                }
                State::Closed => {
                    *input = &[];
                    return Ok(None);
                }
                State::Failed(error) => return Err(*error),
            }
        }
    }

    /// What follows a header.
    fn payload_of(&mut self, frame: Frame) -> Result<State, FrameError> {
        let Frame { opcode, is_final, mask, payload_bytes } = frame;
        if is_control(opcode) {
            // The header was refused if it is longer than a control frame may be.
            let wanted = u8::try_from(payload_bytes).map_err(|_| FrameError::ControlTooLong)?;
            return Ok(State::Control { opcode, mask, wanted, payload: ControlPayload::default() });
        }
        let is_continuation = opcode == CONTINUATION;
        if is_continuation != self.is_fragmented {
            return Err(FrameError::Continuation);
        }
        self.is_fragmented = !is_final;
        Ok(State::Data { left: payload_bytes, is_final })
    }
}

/// A header, checked.
struct Frame {
    opcode: u8,
    is_final: bool,
    mask: [u8; 4],
    payload_bytes: u64,
}

/// Collects a header and refuses it at the byte that shows what is wrong.
fn take_header(
    bytes: &mut [u8; HEADER_BYTES_MAX],
    length: &mut usize,
    input: &mut &[u8],
) -> Result<Option<Frame>, FrameError> {
    while let Some((&byte, rest)) = input.split_first() {
        let [first, second, ..] = *bytes;
        match *length {
            0 => check_first(byte)?,
            1 => check_second(first, byte)?,
            2 if second & 0x7F == 127 && byte & 0x80 != 0 => return Err(FrameError::Length),
            _ => {}
        }
        *input = rest;
        if let Some(place) = bytes.get_mut(*length) {
            *place = byte;
        }
        *length += 1;
        let [first, second, extended @ ..] = *bytes;
        let (extended_bytes, payload_bytes) = match second & 0x7F {
            126 => (2, u64::from(u16::from_be_bytes([extended[0], extended[1]]))),
            127 => (8, extended.first_chunk().copied().map_or(0, u64::from_be_bytes)),
            short => (0, u64::from(short)),
        };
        if *length == 2 + extended_bytes && is_too_long_a_form(extended_bytes, payload_bytes) {
            return Err(FrameError::Length);
        }
        if *length > 1 && *length == 2 + extended_bytes + 4 {
            let mask = extended.get(extended_bytes..).and_then(<[u8]>::first_chunk).copied();
            return Ok(Some(Frame {
                opcode: first & 0x0F,
                is_final: first & 0x80 != 0,
                mask: mask.unwrap_or_default(),
                payload_bytes,
            }));
        }
    }
    Ok(None)
}

fn check_first(first: u8) -> Result<(), FrameError> {
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits);
    }
    match first & 0x0F {
        CONTINUATION | TEXT | BINARY => Ok(()),
        CLOSE | PING | PONG if first & 0x80 == 0 => Err(FrameError::ControlFragmented),
        CLOSE | PING | PONG => Ok(()),
        _ => Err(FrameError::Opcode),
    }
}

fn check_second(first: u8, second: u8) -> Result<(), FrameError> {
    if second & 0x80 == 0 {
        return Err(FrameError::NotMasked);
    }
    if is_control(first & 0x0F) && usize::from(second & 0x7F) > CONTROL_BYTES_MAX {
        return Err(FrameError::ControlTooLong);
    }
    Ok(())
}

fn is_control(opcode: u8) -> bool {
    opcode & 0x8 != 0
}

fn is_too_long_a_form(extended_bytes: usize, payload_bytes: u64) -> bool {
    match extended_bytes {
        2 => payload_bytes < 126,
        8 => payload_bytes <= 0xFFFF,
        _ => false,
    }
}

impl ControlPayload {
    /// Takes bytes until `wanted` are here, and unmasks them.
    fn fill(&mut self, wanted: u8, mask: [u8; 4], input: &mut &[u8]) {
        let start = usize::from(self.length);
        let room = self.bytes.get_mut(start..usize::from(wanted)).unwrap_or_default();
        let mask = mask.iter().cycle().skip(start % 4);
        let mut taken: u8 = 0;
        for ((place, byte), mask) in room.iter_mut().zip(*input).zip(mask) {
            *place = byte ^ mask;
            taken += 1;
        }
        *input = input.get(usize::from(taken)..).unwrap_or_default();
        self.length += taken;
    }
}

fn control_event(opcode: u8, payload: ControlPayload) -> Result<Event, FrameError> {
    match opcode {
        PING => Ok(Event::Ping(payload)),
        PONG => Ok(Event::Pong),
        _ => match payload.as_slice() {
            [] => Ok(Event::Close(None)),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !is_close_code(code) {
                    return Err(FrameError::CloseCode);
                }
                str::from_utf8(reason).map_err(|_| FrameError::CloseReason)?;
                Ok(Event::Close(Some(code)))
            }
            [_] => Err(FrameError::CloseCode),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    /// A client's frame with everything as given.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        let [extended @ .., high, low] = (payload.len() as u64).to_be_bytes();
        match payload.len() {
            0..=125 => out.push(0x80 | low),
            126..=0xFFFF => out.extend([0xFE, high, low]),
            _ => {
                out.push(0xFF);
                out.extend(extended);
                out.extend([high, low]);
            }
        }
        out.extend(MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    /// Events up to the end of the input or an error, for input in pieces of `piece` bytes.
    fn read(bytes: &[u8], piece: usize) -> (Vec<Event>, Option<FrameError>) {
        let mut reader = FrameReader::new();
        let mut events = Vec::new();
        for mut input in bytes.chunks(piece) {
            loop {
                match reader.handle_bytes(&mut input) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break assert!(input.is_empty()),
                    Err(error) => return (events, Some(error)),
                }
            }
        }
        (events, None)
    }

    fn events(frames: &[Vec<u8>]) -> Vec<Event> {
        let bytes = frames.concat();
        let whole = read(&bytes, bytes.len());
        assert_eq!(whole.1, None);
        for piece in 1..bytes.len().min(20) {
            assert_eq!(read(&bytes, piece), whole);
        }
        whole.0
    }

    fn error(bytes: &[u8]) -> Option<FrameError> {
        let whole = read(bytes, bytes.len());
        assert_eq!(read(bytes, 1), whole);
        whole.1
    }

    fn payload(bytes: &[u8]) -> ControlPayload {
        bytes.into()
    }

    #[test]
    fn the_frames_of_the_specification_are_read() {
        let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
        assert_eq!(events(&[hello.to_vec()]), [Event::Message]);
        let ping = [0x89, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
        assert_eq!(events(&[ping.to_vec()]), [Event::Ping(payload(b"Hello"))]);
    }

    #[test]
    fn messages_of_any_length_and_in_fragments_are_thrown_away() {
        for length in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 0x1_0001] {
            assert_eq!(events(&[frame(0x82, &vec![7; length])]), [Event::Message], "{length}");
        }
        assert_eq!(
            events(&[
                frame(0x01, b"a"),
                frame(0x89, b"in between"),
                frame(0x00, b""),
                frame(0x8A, b""),
                frame(0x80, b"c"),
                frame(0x81, b""),
            ]),
            [Event::Ping(payload(b"in between")), Event::Pong, Event::Message, Event::Message]
        );
    }

    #[test]
    fn a_length_of_63_bits_is_counted_and_not_held() {
        let mut reader = FrameReader::new();
        let header = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4];
        assert_eq!(reader.handle_bytes(&mut &header[..]), Ok(None));
        assert!(!reader.is_idle());
        for _ in 0..1_000 {
            let mut input = &[0_u8; 1_000][..];
            assert_eq!(reader.handle_bytes(&mut input), Ok(None));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn close_ends_it_with_or_without_a_code() {
        let close = |payload: &[u8]| events(&[frame(0x88, payload), vec![0xFF; 30]]);
        assert_eq!(close(b""), [Event::Close(None)]);
        assert_eq!(close(b"\x03\xE8"), [Event::Close(Some(1000))]);
        assert_eq!(close(b"\x0F\xA0bye"), [Event::Close(Some(4000))]);
    }

    #[test]
    fn close_codes_that_may_not_be_sent_are_refused() {
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            let bytes = frame(0x88, &code.to_be_bytes());
            assert_eq!(error(&bytes), Some(FrameError::CloseCode), "{code}");
        }
        assert_eq!(error(&frame(0x88, b"\x03")), Some(FrameError::CloseCode));
        assert_eq!(error(&frame(0x88, b"\x03\xE8\xFF")), Some(FrameError::CloseReason));
        assert_eq!(FrameError::CloseReason.close_code(), 1007);
        assert_eq!(FrameError::CloseCode.close_code(), 1002);
    }

    #[test]
    fn frames_that_break_the_protocol_are_refused_at_the_byte_that_shows_it() {
        let long = [7; 126];
        let cases: &[(&str, Vec<u8>, FrameError)] = &[
            ("rsv1", vec![0xC1], FrameError::ReservedBits),
            ("rsv2", vec![0xA1], FrameError::ReservedBits),
            ("rsv3", vec![0x91], FrameError::ReservedBits),
            ("opcode 3", vec![0x83], FrameError::Opcode),
            ("opcode 7", vec![0x87], FrameError::Opcode),
            ("opcode B", vec![0x8B], FrameError::Opcode),
            ("opcode F", vec![0x8F], FrameError::Opcode),
            ("no mask", vec![0x81, 0x05], FrameError::NotMasked),
            ("ping in fragments", vec![0x09], FrameError::ControlFragmented),
            ("close in fragments", vec![0x08], FrameError::ControlFragmented),
            ("long ping", frame(0x89, &long), FrameError::ControlTooLong),
            ("ping of 64 bits", vec![0x89, 0xFF], FrameError::ControlTooLong),
            ("16 bits for 125", vec![0x82, 0xFE, 0, 125], FrameError::Length),
            (
                "64 bits for 65535",
                [vec![0x82, 0xFF], vec![0; 6], vec![0xFF; 2]].concat(),
                FrameError::Length,
            ),
            ("64th bit", vec![0x82, 0xFF, 0x80], FrameError::Length),
            ("continues nothing", frame(0x80, b""), FrameError::Continuation),
            (
                "within another",
                [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
                FrameError::Continuation,
            ),
            (
                "continues what is over",
                [frame(0x81, b""), frame(0x80, b"")].concat(),
                FrameError::Continuation,
            ),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(error(bytes), Some(*expected), "{name}");
        }
    }

    #[test]
    fn an_error_stays() {
        let mut reader = FrameReader::new();
        assert_eq!(reader.handle_bytes(&mut &[0x83][..]), Err(FrameError::Opcode));
        let good = frame(0x81, b"a");
        assert_eq!(reader.handle_bytes(&mut &*good), Err(FrameError::Opcode));
    }
}
