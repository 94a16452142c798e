//! The publisher's own state, ring aside, as numbers and back; see [`crate::record`].

use alloc::vec::Vec;

use ring::{Arena, Position};
use rtmp::Millis;
use rtmp::tag;

use super::aside::Aside;
use super::facts::gather_body;
use super::{Placed, Publisher};
use crate::preamble::EntryKey;
use crate::record::{
    BadRecord, EntryRecord, OpenRecord, PublisherRecord, RingRecord, kind_number, kind_of,
};
use crate::wait::Wait;

impl Publisher {
    pub(crate) fn state_record(&self, with_partials: bool) -> PublisherRecord {
        let at_tail = self.at_tail.as_ref().filter(|_| with_partials);
        let aside = self.aside.iter().filter(|_| with_partials);
        PublisherRecord {
            chunk_bytes: self.framing.chunk_bytes,
            ring: RingRecord::default(),
            entries: self
                .preamble
                .entries()
                .map(|(key, kind, body)| EntryRecord {
                    key: key.numbers(),
                    kind,
                    body: body.to_vec(),
                })
                .collect(),
            timeline: self.timeline.clone(),
            at_tail: at_tail.map(|at_tail| {
                let Placed { csid, media, timestamp, wire_timestamp, length } = at_tail.message;
                let header_bytes = at_tail.framed.header_bytes();
                let bytes = length.saturating_sub(at_tail.framed.body_remaining());
                let bytes = usize::try_from(bytes).unwrap_or(0);
                let image = self.writer.reserved();
                let body = gather_body(image, header_bytes, bytes, self.framing);
                let kind = kind_number(media);
                let complete = false;
                OpenRecord { csid, kind, timestamp, wire_timestamp, length, body, complete }
            }),
            aside: aside
                .map(|aside| OpenRecord {
                    csid: aside.csid,
                    kind: kind_number(aside.media),
                    timestamp: aside.timestamp,
                    wire_timestamp: aside.timestamp,
                    length: u32::try_from(aside.length).unwrap_or(u32::MAX),
                    body: aside.body.clone(),
                    complete: aside.complete,
                })
                .collect(),
            dropping: if with_partials { self.dropping.clone() } else { Vec::new() },
            newest_timestamp: self.newest_timestamp,
            hold_video_since: self.hold_video_since.map(Wait::numbers),
            broken: self.broken,
            sessions: self.sessions,
        }
    }

    /// Takes over the state; the ring is filled already.
    pub(crate) fn restore(
        &mut self,
        arena: &mut Arena,
        record: &PublisherRecord,
        now: Millis,
    ) -> Result<(), BadRecord> {
        for EntryRecord { key, kind, body } in &record.entries {
            self.preamble.update(EntryKey::of_numbers(*key), *kind, body);
            match *kind {
                rtmp::kind::VIDEO => self.facts.note_video_header(body, &tag::video(body)),
                rtmp::kind::AUDIO => {
                    self.facts.note_audio(&tag::audio(body));
                    self.facts.note_audio_header(body);
                }
                _ => {}
            }
        }
        self.timeline = record.timeline.clone();
        self.meter.begin_session(now.0);
        self.newest_keyframe = record.ring.join.map(Position);
        self.newest_timestamp = record.newest_timestamp;
        self.hold_video_since = record.hold_video_since.map(Wait::of_numbers);
        self.broken = record.broken;
        self.sessions = record.sessions;
        self.dropping.clone_from(&record.dropping);
        for open in &record.aside {
            let length = usize::try_from(open.length).map_err(|_| BadRecord::Inconsistent)?;
            let is_whole = open.body.len() == length;
            if open.body.len() > length || open.complete && !is_whole {
                return Err(BadRecord::Inconsistent);
            }
            let aside = Aside {
                csid: open.csid,
                media: kind_of(open.kind)?,
                timestamp: open.timestamp,
                length,
                body: open.body.clone(),
                complete: open.complete,
            };
            // Counted as received where they are copied, or given up.
            self.counters.payload_bytes += aside.payload_bytes();
            self.aside.push(aside);
        }
        let Some(open) = &record.at_tail else { return Ok(()) };
        let is_long = open.length > rtmp::limits::MESSAGE_BYTES_MAX;
        if is_long || open.body.len() >= usize::try_from(open.length).unwrap_or(0) {
            return Err(BadRecord::Inconsistent);
        }
        self.place(
            arena,
            Placed {
                csid: open.csid,
                media: kind_of(open.kind)?,
                timestamp: open.timestamp,
                wire_timestamp: open.wire_timestamp,
                length: open.length,
            },
        )?;
        if let Some(at_tail) = self.at_tail.as_mut() {
            at_tail.framed.push(self.writer.reserved_mut(), &open.body);
        }
        Ok(())
    }
}
