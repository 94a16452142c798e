//! Messages that cannot be placed yet: interleaved with the one at the tail, or too short so far to
//! tell what they are. Bounded by `aside_bytes_max`; appended oldest first when the tail is free.

use alloc::vec::Vec;

use ring::{Arena, MessageKind};
use rtmp::Millis;
use rtmp::session::MediaPart;

use super::{PEEK_BYTES, Placed, Progress, PublishError, Publisher};

/// A message that cannot be placed yet.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) csid: u32,
    pub(super) media: MessageKind,
    pub(super) timestamp: u32,
    pub(super) length: usize,
    pub(super) body: Vec<u8>,
    pub(super) complete: bool,
}

impl Aside {
    /// Bytes that count as media payload.
    pub(super) fn payload_bytes(&self) -> u64 {
        if self.media == MessageKind::Data { 0 } else { self.body.len() as u64 }
    }
}

impl Publisher {
    /// Appends a part to its message aside. If the message is the oldest aside, the tail is free
    /// and enough is known of it, it moves to the tail and goes on there.
    pub(super) fn handle_aside(
        &mut self,
        arena: &mut Arena,
        part: &MediaPart<'_>,
        now: Millis,
    ) -> Result<Progress, PublishError> {
        if let Some(aside) = self.aside.iter_mut().find(|m| m.csid == part.csid && !m.complete) {
            aside.body.extend_from_slice(part.body);
            aside.complete = part.last;
            self.counters.copied_aside_bytes += part.body.len() as u64;
        }
        let before = self.counters.messages;
        self.drain_aside(arena, now);
        let committed = self.counters.messages != before;
        Ok(if committed { Progress::Committed } else { Progress::Partial })
    }

    /// Appends what is complete aside, oldest first, while the tail is free; the first incomplete
    /// one with enough known bytes becomes the message at the tail.
    pub(super) fn drain_aside(&mut self, arena: &mut Arena, now: Millis) {
        while self.at_tail.is_none() {
            // Complete messages overtake one that is still too short to be placed.
            let ready = self.aside.iter().position(|m| m.complete || m.body.len() >= PEEK_BYTES);
            let Some(ready) = ready else { return };
            let aside = self.aside.remove(ready);
            if aside.media == MessageKind::Data {
                self.append_whole(arena, aside.media, aside.timestamp, &aside.body, now);
                continue;
            }
            let timestamp = self.map(aside.media, aside.timestamp, &aside.body, now);
            if self.holds_back(aside.media, &aside.body, now) {
                self.drop_aside(&aside);
                continue;
            }
            let length = u32::try_from(aside.length).unwrap_or(u32::MAX);
            let message = Placed {
                csid: aside.csid,
                media: aside.media,
                timestamp,
                wire_timestamp: timestamp,
                length,
            };
            if self.place(arena, message).is_err() {
                self.counters.dropped_ring_full += 1;
                self.broken |= aside.media == MessageKind::Video;
                self.drop_aside(&aside);
                continue;
            }
            if let Some(at_tail) = self.at_tail.as_mut() {
                at_tail.framed.push(self.writer.reserved_mut(), &aside.body);
                self.counters.copied_bytes += aside.body.len() as u64;
            }
            if aside.complete {
                self.complete_at_tail(arena, now);
            }
        }
    }

    pub(super) fn drop_aside(&mut self, aside: &Aside) {
        self.counters.dropped_bytes += aside.payload_bytes();
        if !aside.complete {
            self.dropping.push(aside.csid);
        }
    }

    /// Memory that interleaved messages hold now, in bytes: what has arrived of them, with the slack of
    /// growing buffers. What was only announced costs nothing.
    pub fn aside_held_bytes(&self) -> usize {
        self.aside.iter().map(|message| message.body.capacity()).sum()
    }

    pub(super) fn aside_bytes(&self) -> usize {
        self.aside.iter().map(|message| message.length).sum()
    }

    pub(super) fn forget_aside(&mut self, is_torn: impl Fn(&Aside) -> bool) {
        let counters = &mut self.counters;
        self.aside.retain(|message| {
            if is_torn(message) {
                counters.torn += 1;
                counters.dropped_bytes += message.payload_bytes();
                return false;
            }
            true
        });
    }
}
