//! What the packager passes on: its runs, each with the window of its playlist, the segments in it, and what
//! it takes to write the next one. Descriptors of the files in which segments lie travel behind all others.
//!
//! Large pieces are named by their place in such a file, and are copied nowhere: the process after this one
//! maps them. Smaller ones are in the record. What fits nowhere is left out, and the playlist goes on behind
//! it.

use live::record::as_bytes;
use mux::playlist::window::Window;
use mux::segment::Container;
use serde::{Deserialize, Serialize};

use super::record::PathRecord;

/// All runs of a process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PackagingRecord {
    /// Files that segments lie in.
    pub files: u8,
    /// The runs.
    pub runs: Vec<RunRecord>,
}

/// One stream in one container.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// The stream.
    pub path: PathRecord,
    /// What its segments are made of.
    pub container: Container,
    /// The number its segments are found under, and that of its sound alone where that is offered.
    pub numbers: (u64, Option<u64>),
    /// The whole.
    pub main: ShelfRecord,
    /// The sound alone, once there is some.
    pub sound: Option<ShelfRecord>,
    /// The segmenter, serialized.
    pub segmenter: BytesRecord,
    /// Target duration, in milliseconds.
    pub target_ms: u32,
    /// Nothing will follow.
    pub is_ended: bool,
    /// The first segment was asked to end early.
    pub is_hurried: bool,
    /// Where in the stream it stands.
    pub place: PlaceRecord,
}

/// A place in a stream.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRecord {
    /// Position of the next message; `None` before there is a place to begin.
    pub cursor: Option<u64>,
    /// Ends of the stream that were seen.
    pub ends_seen: u64,
    /// Sessions of publishers that were seen.
    pub sessions_seen: u64,
    /// The publisher is lost, and what it sent is complete.
    pub is_paused: bool,
    /// When packaging began, in milliseconds of the monotonic clock.
    pub begun_at: u64,
}

/// One rendition.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShelfRecord {
    /// What its playlist lists.
    pub window: Window,
    /// The segments that are kept, oldest first.
    pub segments: Vec<SegmentRecord>,
    /// Init segments by their generation, oldest first.
    pub inits: Vec<(u32, BytesRecord)>,
    /// What was written of the open segment, and an init segment in front of it.
    pub open: BytesRecord,
    /// Where in that the segment begins.
    pub open_start: u64,
    /// Where its parts end, from there.
    pub open_part_ends: Vec<u64>,
    /// Names of the codecs, as in a playlist.
    pub codecs: String,
    /// Width and height, in pixels.
    pub resolution: (u32, u32),
    /// Highest bit rate of a segment so far, in bits a second.
    pub bandwidth: u64,
}

/// A complete segment.
#[derive(Debug, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// Its number.
    pub sequence: u64,
    /// Its bytes.
    pub bytes: BytesRecord,
    /// Where its parts end; none where playlists list no parts.
    pub part_ends: Vec<u64>,
}

/// Bytes, or where they are.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BytesRecord {
    /// There was no room for them.
    Left,
    /// Here.
    Here(#[serde(with = "as_bytes")] Vec<u8>),
    /// In a file.
    File {
        /// Its number among those passed on.
        file: u32,
        /// Where they begin there.
        offset: u64,
        /// How many they are.
        count: u64,
    },
}
