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
    /// Whether the sound alone is a rendition of its own.
    pub is_audio_only_offered: bool,
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
            is_audio_only_offered: vhost.hls_audio_only,
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
            segment_ms_max: self.segment_ms_max(),
            keyframe_wait_ms: KEYFRAME_WAIT_MS,
            segment_bytes_max: self.memory_bytes_max / SEGMENT_SHARE,
            sound_alone: self.is_audio_only_offered,
            ..Settings::new(container)
        }
    }

    /// The same where all streams together may hold `total_bytes_max`: a segment of one is a part of that.
    pub(super) fn segmenter_within(&self, container: Container, total_bytes_max: u64) -> Settings {
        let settings = self.segmenter(container);
        let segment_bytes_max = settings.segment_bytes_max.min(total_bytes_max / SEGMENT_SHARE);
        Settings { segment_bytes_max, ..settings }
    }

    /// Target duration to announce for a stream with keyframes so far apart (0 if that is not known yet), in
    /// milliseconds: as long as a segment that ends at the first keyframe after its target will be, rounded
    /// as durations are (RFC 8216bis §4.4.3.1).
    pub(super) fn target_ms(&self, gop_ms: u32) -> u32 {
        let due_ms = self.segment_ms - self.segment_ms / 20;
        let gops = due_ms.checked_div(gop_ms).map_or(0, |_| due_ms.div_ceil(gop_ms));
        let expected_ms = gops.saturating_mul(gop_ms).min(self.segment_ms_max());
        self.segment_ms.max((expected_ms + 500) / 1000 * 1000)
    }

    fn segment_ms_max(&self) -> u32 {
        (self.segment_ms * SEGMENT_TARGETS_MAX).max(SEGMENT_MS_MAX_MIN)
    }

    pub(super) fn window(&self) -> WindowSettings {
        WindowSettings { listed: self.window, behind: BEHIND }
    }

    /// Stream time before the head that a new rendition begins with, where the ring has it.
    pub(super) fn history_ms(&self) -> u32 {
        self.segment_ms * HISTORY_SEGMENTS
    }
}
