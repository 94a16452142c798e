//! The sound of a stream written a second time, without the pictures.
//!
//! Cut where the segmenter cuts: it decides nothing. Kept between calls: the sound of one part.

use alloc::vec::Vec;

use super::packer::Packer;
use super::{Container, SoundInit};
use crate::media::{AudioTrack, Sample, Tracks, codec_names};

/// A box without contents that readers pass over (ISO 14496-12 §8.1.2): a part in which nothing was heard is
/// not empty, since an empty body is an error to some players.
const FREE_BOX: [u8; 8] = [0, 0, 0, 8, b'f', b'r', b'e', b'e'];

/// Writes the second rendition.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Sound {
    container: Container,
    packer: Packer,
    /// Without pictures.
    tracks: Tracks,
    /// Its init segment was written, so that somebody may read it.
    is_offered: bool,
}

impl Sound {
    pub(super) fn new(container: Container) -> Self {
        let (packer, tracks) = (Packer::new(container), Tracks::default());
        Self { container, packer, tracks, is_offered: false }
    }

    /// Whether it is written even where it is silent, or all there is.
    pub(super) fn is_offered(&self) -> bool {
        self.is_offered
    }

    /// What comes now is sound of `track`.
    pub(super) fn set_track(&mut self, track: &AudioTrack) {
        self.tracks.audio = Some(track.clone());
        self.packer.reset_audio();
        self.packer.set_tracks(&self.tracks);
    }

    pub(super) fn push(&mut self, sample: &Sample<'_>) {
        self.packer.push(&self.tracks, sample);
    }

    /// Appends the part; `is_first` of its segment.
    pub(super) fn finish(&mut self, is_first: bool, out: &mut Vec<u8>) {
        let is_silent = self.packer.samples() == 0;
        // Tables are what can be written of a transport stream in which nothing was heard.
        let is_ts = self.container == Container::Ts;
        let tables = (is_first || is_silent && is_ts).then_some(&self.tracks);
        if is_silent && !is_ts {
            out.extend_from_slice(&FREE_BOX);
        }
        self.packer.finish(tables, None, out);
    }

    /// Appends the init segment.
    pub(super) fn init(&mut self, out: &mut Vec<u8>) -> SoundInit {
        self.is_offered = true;
        let start = out.len();
        self.packer.write_init(&self.tracks, out);
        SoundInit { codecs: codec_names::list(&self.tracks), bytes: start..out.len() }
    }
}
