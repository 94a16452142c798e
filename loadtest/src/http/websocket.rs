//! The client's side of WebSocket: the request's fields, frames of the server, answers to them.
//!
//! Never keeps a payload but that of a control frame. Spec: RFC 6455 §4.1, §5.

use super::response::Head;

/// Key of every handshake: that of the specification's example, so that the answer is known without a
/// hash. A client in front of untrusted proxies would take a random one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Longest payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;
/// Longest frame taken.
const FRAME_BYTES_MAX: u64 = 64 << 20;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Fields that ask for the upgrade.
pub(super) fn fields() -> String {
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n"
    )
}

/// Whether the server has upgraded.
pub(super) fn is_accepted(head: &Head) -> bool {
    head.status == 101 && head.accept.as_deref() == Some(ACCEPT)
}

/// What came from the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Incoming<'i> {
    /// Some of a binary message. `ends_frame`: the frame is whole with it.
    Binary { bytes: &'i [u8], ends_frame: bool },
    /// Some of a text message.
    Text(&'i [u8]),
    /// To be answered with the same payload.
    Ping(Vec<u8>),
    /// The server leaves, with this code.
    Close(Option<u16>),
}

/// Reads the server's frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: [u8; 10],
    have: usize,
    /// Of the frame that is open.
    open: Option<Open>,
    /// Kind of the message that continuation frames go on with.
    message: u8,
    control: Vec<u8>,
}

#[derive(Copy, Clone, Debug)]
struct Open {
    opcode: u8,
    left: u64,
}

impl Frames {
    /// Takes bytes from `input`; `None` when more are needed.
    ///
    /// # Errors
    /// The server breaks the rules of the protocol.
    pub(crate) fn next<'i>(
        &mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Incoming<'i>>, &'static str> {
        loop {
            let Some(open) = &mut self.open else {
                if !self.take_header(input)? {
                    return Ok(None);
                }
                continue;
            };
            let count = usize::try_from(open.left).unwrap_or(usize::MAX).min(input.len());
            if count == 0 && open.left > 0 {
                return Ok(None);
            }
            let (bytes, rest) = input.split_at(count);
            *input = rest;
            open.left -= count as u64;
            let (opcode, is_whole) = (open.opcode, open.left == 0);
            if is_whole {
                self.open = None;
            }
            match opcode {
                BINARY if bytes.is_empty() && !is_whole => {}
                BINARY => return Ok(Some(Incoming::Binary { bytes, ends_frame: is_whole })),
                TEXT => return Ok(Some(Incoming::Text(bytes))),
                _ => {
                    self.control.extend_from_slice(bytes);
                    if let Some(event) = self.control_frame(opcode, is_whole) {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    fn control_frame(&mut self, opcode: u8, is_whole: bool) -> Option<Incoming<'static>> {
        if !is_whole {
            return None;
        }
        let payload = std::mem::take(&mut self.control);
        match opcode {
            PING => Some(Incoming::Ping(payload)),
            CLOSE => {
                let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                Some(Incoming::Close(code))
            }
            _ => None,
        }
    }

    /// True when a frame is open.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<bool, &'static str> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.header[self.have] = byte;
            self.have += 1;
            let Some(open) = self.parse()? else { continue };
            self.have = 0;
            self.open = Some(open);
            return Ok(true);
        }
        Ok(false)
    }

    fn parse(&mut self) -> Result<Option<Open>, &'static str> {
        let header = &self.header[..self.have];
        let &[first, second, ref extended @ ..] = header else { return Ok(None) };
        if second & 0x80 != 0 {
            return Err("websocket: the server masks its frames");
        }
        let wide = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| (sum << 8) | u64::from(byte));
        let (left, least) = match second {
            126 if extended.len() < 2 => return Ok(None),
            127 if extended.len() < 8 => return Ok(None),
            126 => (wide(extended), 126),
            127 => (wide(extended), 1 << 16),
            length => (u64::from(length), 0),
        };
        if left < least || left > FRAME_BYTES_MAX {
            return Err("websocket: a length in the wrong form");
        }
        if first & 0x70 != 0 {
            return Err("websocket: reserved bits are set");
        }
        let is_final = first & 0x80 != 0;
        let opcode = match first & 0x0f {
            0 if self.message != 0 => self.message,
            opcode @ (TEXT | BINARY) if self.message == 0 => opcode,
            opcode @ (CLOSE | PING | PONG) if is_final && left <= CONTROL_BYTES_MAX as u64 => {
                return Ok(Some(Open { opcode, left }));
            }
            _ => return Err("websocket: a frame out of order"),
        };
        self.message = if is_final { 0 } else { opcode };
        Ok(Some(Open { opcode, left }))
    }
}

/// Appends a control frame of the client.
pub(crate) fn write_frame(is_close: bool, payload: &[u8], mask: u32, out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    let length = u8::try_from(payload.len()).unwrap_or(0);
    let opcode = if is_close { CLOSE } else { PONG };
    let mask = mask.to_be_bytes();
    out.extend_from_slice(&[0x80 | opcode, 0x80 | length]);
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Binary bytes, ends of frames, text, and other events.
    type Found = (Vec<u8>, u32, String, Vec<String>);

    fn read(bytes: &[u8], piece: usize) -> Result<Found, &'static str> {
        let mut frames = Frames::default();
        let (mut binary, mut ends, mut text, mut events) =
            (Vec::new(), 0, String::new(), Vec::new());
        for mut input in bytes.chunks(piece) {
            while let Some(incoming) = frames.next(&mut input)? {
                match incoming {
                    Incoming::Binary { bytes, ends_frame } => {
                        binary.extend_from_slice(bytes);
                        ends += u32::from(ends_frame);
                    }
                    Incoming::Text(bytes) => text += std::str::from_utf8(bytes).unwrap(),
                    other => events.push(format!("{other:?}")),
                }
            }
        }
        Ok((binary, ends, text, events))
    }

    #[test]
    fn frames_of_all_lengths_are_read_in_pieces_of_any_size() {
        let mut bytes = vec![0x81, 2, b'h', b'i', 0x89, 1, b'p'];
        for length in [0usize, 1, 125, 126, 65_535, 65_536] {
            let header = mux::wrap::Wrap::WebSocket.begin(length);
            bytes.extend_from_slice(header.as_slice());
            bytes.extend(std::iter::repeat_n(7, length));
        }
        // A message in two frames with a ping between them, a pong nobody asked for, and a goodbye.
        bytes.extend_from_slice(&[0x02, 1, 8, 0x89, 0, 0x80, 1, 9, 0x8a, 0, 0x88, 2, 0x03, 0xe8]);
        for piece in [1, 5, 1000, 1 << 20] {
            let (binary, ends, text, events) = read(&bytes, piece).unwrap();
            assert_eq!((binary.len(), ends), (131_325, 8), "{piece}");
            assert_eq!((text.as_str(), &binary[131_323..]), ("hi", &[8, 9][..]));
            assert_eq!(events, ["Ping([112])", "Ping([])", "Close(Some(1000))"]);
        }
    }

    #[test]
    fn broken_rules_are_named() {
        for (bytes, word) in [
            (&[0x82, 0x81, 0, 0, 0, 0, 1][..], "masks"),
            (&[0xc2, 0], "reserved"),
            (&[0x80, 0], "out of order"),
            (&[0x02, 0, 0x82, 0], "out of order"),
            (&[0x09, 0], "out of order"),
            (&[0x89, 126, 0, 126], "out of order"),
            (&[0x82, 126, 0, 125], "wrong form"),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0, 1, 0], "wrong form"),
            (&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0], "wrong form"),
        ] {
            assert!(read(bytes, 1).unwrap_err().contains(word), "{bytes:?}");
        }
    }

    #[test]
    fn answers_are_masked() {
        let mut out = Vec::new();
        write_frame(false, b"ab", 0x0102_0304, &mut out);
        assert_eq!(out, [0x8a, 0x82, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2]);
        out.clear();
        write_frame(true, &1000u16.to_be_bytes(), 0, &mut out);
        assert_eq!(out, [0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]);
    }
}
