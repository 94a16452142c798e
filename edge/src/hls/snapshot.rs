//! What a rendition is at one moment: everything a request is answered from, and nothing that changes.
//!
//! Made by the packager with each part, shared by counted references. Complete segments are shared
//! between snapshots, so a snapshot costs a list of them and the playlists that changed.

use std::sync::Arc;

use bytes::Bytes;
use mux::playlist::window::Edge;
use uring::SharedBytes;

/// A complete segment.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) bytes: SharedBytes,
    /// Slices of `bytes`; none where playlists list no parts.
    pub(super) parts: Box<[SharedBytes]>,
}

/// One playlist in the forms players ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Playlists {
    /// With parts where the rendition has them.
    pub(super) full: Bytes,
    /// The same as a delta update; empty where it would not differ.
    pub(super) delta: Bytes,
}

/// What the multivariant playlist says.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) codecs: Arc<str>,
    pub(super) resolution: (u32, u32),
    /// Highest bit rate of a segment so far, in bits a second.
    pub(super) bandwidth: u64,
    pub(super) is_independent: bool,
}

/// A rendition at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) edge: Edge,
    /// Where the stream's other rendition ends, if there is one that can be watched.
    pub(super) other_edge: Option<Edge>,
    /// Nothing will follow.
    pub(super) is_ended: bool,
    /// This is the sound alone, and the whole has begun without pictures or without sound.
    pub(super) is_absent: bool,
    /// Packaging has ended and its bytes are given up.
    pub(super) is_closed: bool,
    /// `None` before there is a complete segment.
    pub(super) playlists: Option<Playlists>,
    /// Generation and bytes, oldest first.
    pub(super) inits: Vec<(u32, SharedBytes)>,
    /// Oldest first, numbers without gaps.
    pub(super) segments: Vec<Arc<Stored>>,
    /// Parts of the open segment, which is number `edge.next_msn`; empty where none are listed.
    pub(super) open_parts: Vec<SharedBytes>,
    pub(super) facts: Facts,
    /// Target duration, in milliseconds.
    pub(super) target_ms: u32,
    /// All discontinuities so far.
    pub(super) discontinuities: u64,
}

impl Snapshot {
    pub(super) fn segment(&self, sequence: u64) -> Option<&Arc<Stored>> {
        let first = self.segments.first()?.sequence;
        let at = usize::try_from(sequence.checked_sub(first)?).ok()?;
        self.segments.get(at)
    }

    /// True for numbers of segments that were there once.
    pub(super) fn is_past(&self, sequence: u64) -> bool {
        sequence < self.segments.first().map_or(self.edge.next_msn, |first| first.sequence)
    }
}
