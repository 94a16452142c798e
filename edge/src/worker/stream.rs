//! A stream as one worker knows it: the shared entry, this worker's tap and subscribers, and the
//! publisher if this worker is its home. One record for each framing in use: that of another framing
//! than RTMP reads a ring of its own, which it fills from the stream's.

use std::sync::Arc;

use live::flush::FlushClock;
use live::publisher::{Publisher, PublisherCounters};
use ring::{Arena, Head, Position, StreamRing, Tap};
use rtmp::Millis;

use super::VhostRules;
use super::settings::Settings;
use crate::framing::{FramingKind, Reframer};
use crate::hand_over::HandOverError;
use crate::hand_over::record::FramingRecord;
use crate::metrics::{LimitReached, MediaKind, WorkerMetrics};
use crate::registry::{StreamEntry, StreamPhase};

/// A subscriber's place in the stream's list.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Player {
    /// Index of its connection.
    pub(crate) conn: usize,
    /// The `NetStream` it plays on.
    pub(crate) msid: u32,
}

/// The publisher, on its home worker.
#[derive(Debug)]
pub(crate) struct LocalPublisher {
    pub(crate) conn: usize,
    pub(crate) msid: u32,
    pub(crate) writer: Box<Publisher>,
    pub(crate) since: Millis,
    /// When the last media byte came.
    pub(crate) heard_at: Millis,
    /// Counters at the begin of the session and as last exported.
    pub(crate) at_begin: PublisherCounters,
    pub(crate) exported: PublisherCounters,
}

impl LocalPublisher {
    /// Adds what was counted since the last time to the worker's metrics.
    pub(crate) fn export(&mut self, metrics: &WorkerMetrics) {
        let now = *self.writer.counters();
        let before = std::mem::replace(&mut self.exported, now);
        metrics.payload_received_bytes.add(now.payload_bytes - before.payload_bytes);
        metrics.payload_copied_bytes.add(now.copied_bytes - before.copied_bytes);
        metrics.payload_copied_aside_bytes.add(now.copied_aside_bytes - before.copied_aside_bytes);
        metrics.payload_dropped_bytes.add(now.dropped_bytes - before.dropped_bytes);
        metrics.messages_in.of(MediaKind::Video).add(now.video - before.video);
        metrics.messages_in.of(MediaKind::Audio).add(now.audio - before.audio);
        metrics.messages_dropped.add(now.dropped() - before.dropped());
        let gops_given_up = now.gops_given_up - before.gops_given_up;
        metrics.limits_reached.of(LimitReached::Ring).add(gops_given_up);
        metrics.timestamp_repairs.add(now.timestamp_repairs - before.timestamp_repairs);
    }
}

/// A grace period this worker watches over, because it was the stream's home.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Grace {
    pub(crate) until: Millis,
    /// The publisher's session it follows.
    pub(crate) session: u64,
}

/// Where a flush pass stands.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Pass {
    /// Next player.
    pub(crate) next: usize,
    /// Players it is still to come to.
    pub(crate) left: usize,
}

/// One stream on one worker.
#[derive(Debug)]
pub(crate) struct LocalStream {
    pub(crate) entry: Arc<StreamEntry>,
    pub(crate) framing: FramingKind,
    /// Fills the ring of another framing; made when the stream's ring has appeared.
    pub(crate) reframer: Option<Box<Reframer>>,
    /// Records of this stream's other framings here; kept in the one for RTMP.
    pub(crate) framed: Vec<usize>,
    pub(crate) vhost: Arc<VhostRules>,
    pub(crate) tap: Option<Tap>,
    pub(crate) head: Option<Head>,
    pub(crate) clock: FlushClock,
    pub(crate) players: Vec<Player>,
    /// Players without a place in the ring.
    pub(crate) waiting: usize,
    /// The unfinished flush pass.
    pub(crate) pass: Option<Pass>,
    pub(crate) publisher: Option<LocalPublisher>,
    /// This worker ends the grace period.
    pub(crate) grace: Option<Grace>,
    /// Connections here that wait for the writer.
    pub(crate) claims: usize,
    pub(crate) ends_seen: u64,
    pub(crate) bytes_out: u64,
    pub(crate) is_dirty: bool,
}

impl LocalStream {
    pub(crate) fn new(
        entry: Arc<StreamEntry>,
        framing: FramingKind,
        vhost: Arc<VhostRules>,
        now: Millis,
    ) -> Self {
        let clock = FlushClock::new(vhost.flush, Position(0), now);
        let (ends_seen, _) = entry.ends();
        Self {
            entry,
            framing,
            reframer: None,
            framed: Vec::new(),
            vhost,
            tap: None,
            head: None,
            clock,
            players: Vec::new(),
            waiting: 0,
            pass: None,
            publisher: None,
            grace: None,
            claims: 0,
            ends_seen,
            bytes_out: 0,
            is_dirty: false,
        }
    }

    /// True while this worker has a reason to keep its record.
    pub(crate) fn is_needed(&self) -> bool {
        !self.players.is_empty()
            || self.publisher.is_some()
            || self.grace.is_some()
            || self.claims > 0
    }

    /// True while it is published here and any worker has subscribers of it.
    pub(crate) fn is_published_and_watched(&self) -> bool {
        self.publisher.is_some() && self.entry.is_tapped()
    }

    /// True while a subscriber may be given a place in the ring.
    pub(crate) fn offers_joins(&self) -> bool {
        self.entry.phase() == StreamPhase::Live
    }

    /// Looks at the ring's head, tapping it first if it has appeared; another framing takes over what is
    /// new before.
    pub(crate) fn refresh(&mut self, arena: &mut Arena, settings: &Settings) -> Option<Head> {
        if self.tap.is_none() {
            let tap = self.entry.ring()?.tap();
            self.tap = Some(match self.framing {
                FramingKind::Rtmp => tap,
                kind => {
                    let ring = settings.stream_ring_config(&self.vhost);
                    let config = &self.vhost.publisher;
                    let reframer = Reframer::new(kind, &self.entry, tap, ring, config);
                    let tap = reframer.ring().tap();
                    self.reframer = Some(Box::new(reframer));
                    tap
                }
            });
        }
        if let Some(reframer) = &mut self.reframer {
            reframer.feed(arena, &self.entry);
        }
        self.head = self.tap.as_mut().map(Tap::refresh);
        self.head
    }

    /// Goes on with a framing that another process has passed on.
    ///
    /// # Errors
    /// The stream itself was not passed on, or the record does not fit.
    pub(crate) fn go_on_framing(
        &mut self,
        record: &FramingRecord,
        arena: &mut Arena,
        settings: &Settings,
    ) -> Result<(), HandOverError> {
        let ring = self.entry.ring().filter(|_| self.entry.phase() != StreamPhase::Waiting);
        let source = ring
            .ok_or_else(|| HandOverError::new("a framing of a stream that is not there"))?
            .tap();
        let ring = settings.stream_ring_config(&self.vhost);
        let config = (ring, &self.vhost.publisher);
        let reframer = Reframer::from_record(record, &self.entry, source, config, arena)?;
        self.tap = Some(reframer.ring().tap());
        self.reframer = Some(Box::new(reframer));
        Ok(())
    }

    /// The ring its players read.
    pub(crate) fn ring(&self) -> Option<StreamRing> {
        match (&self.reframer, self.framing) {
            (Some(reframer), _) => Some(reframer.ring()),
            (None, FramingKind::Rtmp) => self.entry.ring().cloned(),
            (None, _) => None,
        }
    }

    /// Adds what a framing lost since the last time to the worker's metrics.
    pub(crate) fn export_framing(&mut self, metrics: &WorkerMetrics) {
        let Some(reframer) = &mut self.reframer else { return };
        let lost = reframer.take_counters();
        metrics.framing_dropped.add(lost.dropped);
        metrics.framing_overruns.add(lost.overruns);
    }

    /// Lets go of the ring, as the last subscriber has left.
    pub(crate) fn untap(&mut self, arena: &mut Arena, metrics: &WorkerMetrics) {
        self.export_framing(metrics);
        self.tap = None;
        self.head = None;
        // It has nobody left to come to, and the next one begins anew.
        self.pass = None;
        if let Some(reframer) = self.reframer.take() {
            reframer.finish(arena);
        }
    }

    /// How often the stream has ended, and where in the ring read here the last end lies.
    pub(crate) fn ends(&self) -> (u64, Position) {
        match &self.reframer {
            Some(reframer) => reframer.ends(),
            None => self.entry.ends(),
        }
    }
}
