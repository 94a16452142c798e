//! What a vhost says about packaging, as the packager reads it.

use std::path::Path;
use std::sync::Arc;

use mux::playlist::window::WindowSettings;
use mux::segment::{Container, Settings};

use crate::config::{HlsContainer, VhostSettings};

pub use crate::config::HlsStart;

/// Segments that are still served after they left the playlist.
const BEHIND: usize = 3;
/// Without keyframes, and where they are far apart, a segment ends after so many times its target…
const SEGMENT_TARGETS_MAX: u32 = 6;
/// … and never before this: encoders with their defaults make a keyframe every ten seconds.
const SEGMENT_MS_MAX_MIN: u32 = 12_000;
/// A stream of pictures is given so long for its first keyframe; some never have one.
const KEYFRAME_WAIT_MS: u32 = 5_000;
/// One segment gets at most this share of what a stream may hold.
const SEGMENT_SHARE: u64 = 4;
/// The first playlist shows what the ring has of the last so many segments.
const HISTORY_SEGMENTS: u32 = 3;

/// Packaging of the streams of one vhost.
#[derive(Clone, PartialEq, Debug)]
pub struct HlsSettings {
    /// Whether HLS is served at all.
    pub is_on: bool,
    /// When packaging starts.
    pub start: HlsStart,
    /// Packaging ends when nobody has asked for so long, in milliseconds.
    pub idle_ms: u64,
    /// Target of a segment, in milliseconds.
    pub segment_ms: u32,
    /// Target of a part, in milliseconds.
    pub part_ms: u32,
    /// Complete segments a playlist lists.
    pub window: usize,
    /// Whether fragmented MP4 is offered with parts.
    pub is_low_latency: bool,
    /// What is written for a request that does not say.
    pub container: Container,
    /// Bytes one rendition may hold.
    pub memory_bytes_max: u64,
    /// Folder segments and playlists are also written to.
    pub dir: Option<Arc<Path>>,
    /// How long files stay there after they left the playlist, in milliseconds; 0 keeps them.
    pub dir_keep_ms: u64,
}

impl HlsSettings {
    /// The settings of one vhost.
    pub fn of(vhost: &VhostSettings) -> Self {
        Self {
            is_on: vhost.hls,
            start: vhost.hls_start,
            idle_ms: vhost.hls_idle_ms.into(),
            segment_ms: vhost.hls_segment_ms,
            part_ms: vhost.hls_part_ms,
            window: usize::from(vhost.hls_window),
            is_low_latency: vhost.hls_low_latency,
            container: match vhost.hls_container {
                HlsContainer::Ts => Container::Ts,
                HlsContainer::Auto | HlsContainer::Fmp4 => Container::Fmp4,
            },
            memory_bytes_max: vhost.hls_memory_bytes_max.into(),
            dir: vhost.hls_dir.path().map(Arc::from),
            dir_keep_ms: vhost.hls_dir_keep_ms.into(),
        }
    }

    /// True if playlists of this container list parts.
    pub(super) fn has_parts(&self, container: Container) -> bool {
        self.is_low_latency && container == Container::Fmp4
    }

    pub(super) fn segmenter(&self, container: Container) -> Settings {
        Settings {
            part_ms: self.part_ms.min(self.segment_ms),
            segment_ms: self.segment_ms,
            segment_ms_max: (self.segment_ms * SEGMENT_TARGETS_MAX).max(SEGMENT_MS_MAX_MIN),
            keyframe_wait_ms: KEYFRAME_WAIT_MS,
            segment_bytes_max: self.memory_bytes_max / SEGMENT_SHARE,
            ..Settings::new(container)
        }
    }

    pub(super) fn window(&self) -> WindowSettings {
        WindowSettings { listed: self.window, behind: BEHIND }
    }

    /// Stream time before the head that a new rendition begins with, where the ring has it.
    pub(super) fn history_ms(&self) -> u32 {
        self.segment_ms * HISTORY_SEGMENTS
    }
}
