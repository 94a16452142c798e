//! Frames of a server: never masked, never fragmented, in the shortest form.
//!
//! ```text
//!  0x80|opcode · length 7 [· 16 | · 64] · payload
//! ```
//!
//! Spec: RFC 6455 §5.2, §5.5.

use alloc::vec::Vec;

use super::{CLOSE, CONTROL_BYTES_MAX, PING, PONG, TEXT, is_close_code};

const FINAL: u8 = 0x80;

/// Writes a text message.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    write_header(TEXT, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Writes a ping, which the peer answers.
///
/// # Panics
/// When the payload is longer than [`CONTROL_BYTES_MAX`]: a mistake of the caller, not of a peer.
pub fn write_ping(payload: &[u8], out: &mut Vec<u8>) {
    write_control(PING, payload, out);
}

/// Writes the answer to a ping, with its payload.
///
/// # Panics
/// When the payload is longer than [`CONTROL_BYTES_MAX`]: a mistake of the caller, not of a peer.
pub fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_control(PONG, payload, out);
}

/// Writes a close frame, the last frame of a connection. A reason that is too long is cut.
///
/// # Panics
/// When `code` may not be sent, such as 1005 and 1006: a mistake of the caller, not of a peer.
pub fn write_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    assert!(is_close_code(code), "a close code that may be sent");
    let reason_bytes = reason.floor_char_boundary(CONTROL_BYTES_MAX - 2);
    write_header(CLOSE, 2 + reason_bytes, out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes().get(..reason_bytes).unwrap_or_default());
}

fn write_control(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() <= CONTROL_BYTES_MAX, "control frames are short");
    write_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

fn write_header(opcode: u8, payload_bytes: usize, out: &mut Vec<u8>) {
    out.push(FINAL | opcode);
    let [.., high, low] = (payload_bytes as u64).to_be_bytes();
    match payload_bytes {
        0..=125 => out.push(low),
        126..=0xFFFF => out.extend_from_slice(&[126, high, low]),
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        let header = |bytes| written(|out| write_header(TEXT, bytes, out));
        assert_eq!(header(0), [0x81, 0]);
        assert_eq!(header(125), [0x81, 125]);
        assert_eq!(header(126), [0x81, 126, 0, 126]);
        assert_eq!(header(0xFFFF), [0x81, 126, 0xFF, 0xFF]);
        assert_eq!(header(0x1_0000), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn control_frames_and_texts_are_those_of_the_specification() {
        assert_eq!(written(|out| write_text("Hello", out)), b"\x81\x05Hello");
        assert_eq!(written(|out| write_pong(b"Hello", out)), b"\x8A\x05Hello");
        assert_eq!(written(|out| write_ping(b"", out)), [0x89, 0]);
        assert_eq!(written(|out| write_close(1001, "bye", out)), b"\x88\x05\x03\xE9bye");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "直".repeat(50);
        let frame = written(|out| write_close(1008, &reason, out));
        assert_eq!(frame.len(), 2 + 2 + 123);
        assert_eq!(String::from_utf8(frame[4..].to_vec()).unwrap().chars().count(), 41);
        let reason = std::format!("a{}", "直".repeat(50));
        assert_eq!(written(|out| write_close(1008, &reason, out)).len(), 2 + 2 + 121);
    }
}
