//! Named limits of the wire layer: how much one peer may make us remember or compute.
//!
//! Protocol constants and per-connection limits live here together, so that the relations
//! between them can be asserted next to their definitions.

/// Largest message body the 24-bit length field can express, in bytes.
pub const MESSAGE_BYTES_MAX: u32 = 0x00FF_FFFF;

/// Largest chunk size that has any effect: no message is longer. In bytes.
pub const CHUNK_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Chunk size of both directions until a Set Chunk Size message changes it, in bytes (§5.4.1).
pub const CHUNK_BYTES_DEFAULT: u32 = 128;

/// Longest chunk header: 3 basic + 11 message + 4 extended timestamp, in bytes (§5.3.1).
pub const HEADER_BYTES_MAX: usize = 18;

/// Highest chunk stream id the three byte form can name: 64 + 255 + 255 · 256.
pub const CSID_MAX: u32 = 65_599;

/// A chunk that carries fewer bytes than this and does not end its message is *tiny*.
///
/// Half of the default chunk size: a peer that never changes the size never sends a tiny chunk.
pub const TINY_CHUNK_BYTES: u32 = 64;

/// Most chunk streams a reader can be configured to keep.
pub const CHUNK_STREAMS_MAX: u16 = 255;

/// Nesting depth up to which AMF values are read.
pub const AMF_DEPTH_MAX: u32 = 16;

/// Values (including object properties) read from one AMF body at most.
pub const AMF_ELEMENTS_MAX: u32 = 8_192;

/// Longest AMF string accepted, in bytes; URLs and keys are far shorter.
pub const AMF_STRING_BYTES_MAX: usize = 64 * 1024;

// A tiny chunk must be impossible at the default size, or honest peers would pay for abusers.
const _: () = assert!(TINY_CHUNK_BYTES <= CHUNK_BYTES_DEFAULT);
// A chunk of the largest size must hold the largest message, or clamping would change meaning.
const _: () = assert!(CHUNK_BYTES_MAX > MESSAGE_BYTES_MAX);

/// What one [`ChunkReader`](crate::chunk::ChunkReader) accepts from its peer.
///
/// Memory of a reader is about `100 + 40 · chunk_streams_max` bytes at the very most; message
/// bodies are never kept by it.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReaderLimits {
    /// Longest message body accepted, in bytes; at most [`MESSAGE_BYTES_MAX`].
    pub message_bytes_max: u32,
    /// Chunk streams a peer may use at the same time; 1 to [`CHUNK_STREAMS_MAX`].
    pub chunk_streams_max: u16,
    /// Tiny chunks and empty messages the peer may send in credit; every ordinary chunk pays
    /// one back, plus one for each [`TINY_CHUNK_BYTES`] it carries. Bounds the work per byte
    /// that a chunk size of 1 can cause.
    pub tiny_chunks_max: u32,
}

impl Default for ReaderLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX,
            chunk_streams_max: 64,
            tiny_chunks_max: 65_536,
        }
    }
}
