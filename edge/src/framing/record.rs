//! A framing as a record, and one that goes on from it: ring, place in the source, and the segmenter's state.
//!
//! Positions of the ring stay what they were, so its viewers' cursors do; so does the place in the stream's
//! own ring, which begins in the other process no later than where this reads.

use live::path::StreamPath;
use live::record::{BadRecord, RingRecord};
use mux::segment::Segmenter;
use ring::{Arena, Position, RingConfig, Tap};

use super::{FramingKind, Reframer};
use crate::hand_over::HandOverError;
use crate::hand_over::record::FramingRecord;
use crate::registry::StreamEntry;
use live::publisher::PublisherConfig;

impl Reframer {
    /// Next message of the source; `None` before the first one was taken.
    pub(crate) fn cursor(&self) -> Option<Position> {
        self.cursor
    }

    /// Everything another process needs to go on, the ring from `places` or its newest keyframe on. `number`
    /// is what its viewers name it by. `None` before it has begun.
    ///
    /// # Errors
    /// The segmenter cannot be serialized.
    pub(crate) fn to_record(
        &self,
        (number, path): (u64, &StreamPath),
        places: impl Iterator<Item = Position>,
    ) -> Result<Option<FramingRecord>, HandOverError> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        let mut tap = self.writer.ring().tap();
        let view = tap.refresh();
        let kept = places.chain(view.join).min().unwrap_or(view.head);
        let from = tap.boundary_at_or_after(kept.clamp(view.tail, view.head)).unwrap_or(view.head);
        let segmenter = match &self.fragments {
            None => Vec::new(),
            Some(fragments) => postcard::to_allocvec(&fragments.segmenter)
                .map_err(|error| HandOverError::new(format!("a segmenter: {error}")))?,
        };
        Ok(Some(FramingRecord {
            number,
            path: path.into(),
            kind: self.kind,
            ring: RingRecord::of(&tap, from),
            cursor: cursor.0,
            preamble_version: self.preamble_version,
            keyframe: self.keyframe.map(|at| at.0),
            newest_timestamp: self.newest_timestamp,
            is_broken: self.is_broken,
            tracks: (self.has_audio, self.has_video),
            ends: (self.ends_seen, self.end.0),
            segmenter,
        }))
    }

    /// Goes on from a record, reading the ring behind `source`.
    ///
    /// # Errors
    /// Its parts do not fit together, or not in here.
    pub(crate) fn from_record(
        record: &FramingRecord,
        entry: &StreamEntry,
        source: Tap,
        (ring, config): (RingConfig, &PublisherConfig),
        arena: &mut Arena,
    ) -> Result<Self, HandOverError> {
        let kind = record.kind;
        let mut reframer = Self::new(kind, entry, source, ring, config);
        let failed = |error: BadRecord| {
            HandOverError::new(format!("the {} framing of {}: {error}", kind.text(), entry.path()))
        };
        record.ring.fill(&mut reframer.writer, arena).map_err(failed)?;
        if let Some(fragments) = &mut reframer.fragments {
            let segmenter: Result<Segmenter, _> = postcard::from_bytes(&record.segmenter);
            fragments.segmenter =
                segmenter.map_err(|error| HandOverError::new(format!("a segmenter: {error}")))?;
        } else if kind == FramingKind::Rtmp {
            return Err(failed(BadRecord::Inconsistent));
        }
        reframer.cursor = Some(Position(record.cursor));
        reframer.preamble_version = record.preamble_version;
        reframer.keyframe = record.keyframe.map(Position);
        reframer.newest_timestamp = record.newest_timestamp;
        reframer.is_broken = record.is_broken;
        (reframer.has_audio, reframer.has_video) = record.tracks;
        if reframer.cursor.is_some_and(|cursor| cursor <= entry.sessions().1) {
            // It may not have come to the present session yet.
            reframer.sessions_seen = reframer.sessions_seen.saturating_sub(1);
        }
        (reframer.ends_seen, reframer.end) = (record.ends.0, Position(record.ends.1));
        Ok(reframer)
    }
}
