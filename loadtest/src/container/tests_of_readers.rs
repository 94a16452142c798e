//! A clip for the tests of readers: marked media, through the server's own writers.

use super::Container;
use crate::marker::Marker;
use crate::num::{MediaClock, SECOND_NS};
use crate::source::{CodecTag, Stamp, Synthetic, SyntheticConfig};
use crate::viewer::{Judging, Shape};
use clap::ValueEnum as _;
use mux::segment::{self, Event, Output, Segmenter, Settings};
use rtmp::session::MediaKind;

/// Every second message is checked.
pub(super) const JUDGING: Judging = Judging {
    clock: MediaClock::Monotonic,
    buffer_ns: 0,
    check_every: 2,
    steady_ns: 0,
    disturbed: None,
};

/// A message as a reader has found it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    kind: MediaKind,
    timestamp: u32,
    is_key: bool,
    marker: Option<Marker>,
    is_intact: bool,
}

/// Init segment, if any, and parts.
pub(super) struct Clip {
    pub(super) units: Vec<Vec<u8>>,
    pictures: u32,
    sounds: u32,
}

impl Clip {
    /// Five seconds with a keyframe each second.
    pub(super) fn new(container: segment::Container, codec: &str) -> Clip {
        let config = SyntheticConfig {
            codec: CodecTag::from_str(codec, false).unwrap(),
            bitrate: 400_000.0,
            audio_bitrate: 64_000.0,
            fps: 25.0,
            gop: 1.0,
            keyframe_ratio: 8.0,
        };
        let mut source = Synthetic::new(config, 3);
        let mut segmenter = Segmenter::new(Settings::new(container));
        let mut out = Output::default();
        for (kind, body) in source.opening() {
            let kind = kind.map_or(rtmp::kind::DATA_AMF0, MediaKind::type_id);
            segmenter.push(kind, 0, &body, 0, &mut out);
        }
        let (mut stamp, mut body) = (Stamp::new(7), Vec::new());
        let (mut pictures, mut sounds) = (0, 0);
        while source.due_ns() < 5 * SECOND_NS {
            body.clear();
            let due = source.write_next(&mut stamp, 5, &mut body);
            let kind = due.kind.unwrap();
            segmenter.push(kind.type_id(), due.timestamp, &body, 0, &mut out);
            *(if kind == MediaKind::Video { &mut pictures } else { &mut sounds }) += 1;
        }
        segmenter.finish(&mut out);
        assert_eq!((segmenter.counters().dropped, segmenter.counters().unsupported), (0, 0));
        let unit = |event: &Event| match event {
            Event::Init { bytes, .. } | Event::Part { bytes, .. } => Some(bytes.clone()),
            _ => None,
        };
        let units = out.events.iter().filter_map(unit).map(|range| out.bytes[range].to_vec());
        let units = units.filter(|unit| !unit.is_empty()).collect();
        Clip { units, pictures, sounds }
    }

    /// All is there, in order, at its time and whole.
    pub(super) fn compare(&self, seen: &[Seen]) {
        let of = |kind| -> Vec<&Seen> { seen.iter().filter(|one| one.kind == kind).collect() };
        for (kind, count) in [(MediaKind::Video, self.pictures), (MediaKind::Audio, self.sounds)] {
            let found = of(kind);
            assert_eq!(found.len(), count as usize, "{kind:?}");
            let first = found[0].marker.unwrap();
            let offset = found[0].timestamp - first.timestamp;
            for (number, one) in (0..).zip(&found) {
                let marker = one.marker.unwrap_or_else(|| panic!("{kind:?} {number}"));
                assert_eq!((marker.tag, marker.sequence), (7, number), "{kind:?}");
                let moved = one.timestamp.abs_diff(marker.timestamp + offset);
                assert!(moved <= 1, "{kind:?} {number}: moved by {moved} ms");
                assert!(number % 2 == 1 || one.is_intact, "{kind:?} {number} is damaged");
                let is_key = kind == MediaKind::Video && number % 25 == 0;
                assert_eq!(one.is_key, is_key, "{kind:?} {number}");
            }
        }
    }
}

/// Everything a reader tells about units, given in pieces.
pub(super) fn read_all(
    mut container: Container,
    units: &[Vec<u8>],
    piece: usize,
) -> Result<Vec<Seen>, &'static str> {
    let mut seen = Vec::new();
    let mut bodies = [Vec::new(), Vec::new()];
    let mut tell = |piece: &crate::viewer::Piece<'_>| {
        let body = &mut bodies[usize::from(piece.kind == MediaKind::Audio)];
        if piece.first {
            body.clear();
        }
        body.extend_from_slice(piece.body);
        if !piece.last {
            return;
        }
        let Shape::Frame { wrapping, is_key } = piece.shape else { panic!("no frame") };
        let found = wrapping.and_then(|one| one.find(body, 0));
        let is_intact = found.is_some_and(|found| {
            let rest = &body[found.rest_at..];
            found.marker.rest_bytes as usize == rest.len()
                && found.marker.rest_crc == crc32fast::hash(rest)
        });
        let (kind, timestamp) = (piece.kind, piece.timestamp);
        let marker = found.map(|found| found.marker);
        seen.push(Seen { kind, timestamp, is_key, marker, is_intact });
    };
    for unit in units {
        for bytes in unit.chunks(piece) {
            container.handle_bytes(bytes, &JUDGING, &mut tell)?;
        }
        container.end_unit(&JUDGING, &mut tell)?;
    }
    Ok(seen)
}
