//! WebSocket of a server: the handshake, what a viewer sends, the frames around what it gets.
//!
//! ```text
//!  request ─► upgrade (checked with the request) ─► write_accept
//!  viewer's frames ─► FrameReader ─► Ping ─► write_pong · Close ─► write_close · Message: thrown away
//!  text ─► write_text ─► unmasked frame              media: mux::wrap
//! ```
//!
//! Media never passes through here: the header of its frame is part of a stream's shared bytes.
//! No extension is ever agreed upon, so reserved bits are errors.
//!
//! Spec: RFC 6455 §4.2, §5, §7.4.

mod frames;
pub(crate) mod handshake;
mod reader;

pub use frames::{write_close, write_ping, write_pong, write_text};
pub use handshake::write_accept;
pub use reader::{Event, FrameError, FrameReader};

/// Bytes a control frame may carry.
pub const CONTROL_BYTES_MAX: usize = 125;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Payload of a control frame, unmasked.
#[derive(Clone, Copy)]
pub struct ControlPayload {
    bytes: [u8; CONTROL_BYTES_MAX],
    length: u8,
}

impl ControlPayload {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Default for ControlPayload {
    fn default() -> Self {
        Self { bytes: [0; CONTROL_BYTES_MAX], length: 0 }
    }
}

/// The first [`CONTROL_BYTES_MAX`] bytes.
impl From<&[u8]> for ControlPayload {
    fn from(bytes: &[u8]) -> Self {
        let mut payload = Self::default();
        for (place, byte) in payload.bytes.iter_mut().zip(bytes) {
            *place = *byte;
            payload.length += 1;
        }
        payload
    }
}

impl core::ops::Deref for ControlPayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for ControlPayload {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for ControlPayload {}

impl core::fmt::Debug for ControlPayload {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ControlPayload({})", self.as_slice().escape_ascii())
    }
}

/// True for codes that may stand in a close frame: those of the protocol and its registry, and
/// those left to libraries and applications.
fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
