//! What everybody together may hold: rings, interleaved messages, connections of a vhost, players of a
//! stream, commands in a second.
//!
//! Sums over workers are made of what each wrote down in its last sweep step: up to 50 ms old, in exchange
//! for not one shared write per message. Counts of players and publishers are exact but for publishers that
//! come to several workers at the same moment.

use rtmp::session::StatusLevel;
use uring::Io;

use super::Worker;
use crate::connection::Session;
use crate::http::{Answer, CLOSE_POLICY};
use crate::metrics::{CloseReason, Label as _, LimitReached, MemoryStep};
use crate::registry::{StreamLimit, StreamPhase};
use crate::shared::Held;

/// What streams may hold, as of the last sweep step.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Room {
    /// All rings together hold more than `limits.ring_bytes_max`.
    is_ring_full: bool,
    /// Steps of shedding in force for want of memory.
    level: u8,
}

impl Room {
    /// Rings keep their present GOP only, and what those who keep up may not have been sent yet.
    pub(super) fn is_short(self) -> bool {
        self.is_ring_full || self.is_in(MemoryStep::Retention)
    }

    fn is_in(self, step: MemoryStep) -> bool {
        usize::from(self.level) > step.index()
    }
}

/// Lag from which a subscriber may be closed for want of memory, in milliseconds: who is behind holds
/// segments that would be free otherwise.
const LAGGARD_MS: u32 = 500;

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// Writes down what this worker holds and looks at what all do.
    pub(super) fn sweep_budget(&mut self) {
        let own = self.held();
        let index = usize::from(self.index);
        self.shared.memory.note(index, own);
        self.port.metrics().reassembly_bytes.set(own.reassembly);
        let all = self.shared.memory.held();
        let limits = self.settings.limits();
        let is_full = all.rings > limits.ring_bytes_max;
        if is_full && !self.room.is_ring_full {
            self.note_limit(LimitReached::RingTotal);
            if self.error_lines.allow(self.now.0) {
                tracing::warn!(
                    event = "limit",
                    limit = "ring_total",
                    bytes = all.rings,
                    "rings keep their present GOP only (limits.ring_bytes_max)"
                );
            }
        }
        self.room.is_ring_full = is_full;
        self.room.level = self.shared.memory.level();
        let is_short = self.room.is_short();
        for (_, local) in &mut self.streams {
            if let Some(publisher) = &mut local.publisher {
                publisher.writer.look(self.now);
            }
            if let Some(reframer) = &mut local.reframer {
                reframer.look(self.now, local.vhost.publisher.recent_ms, is_short);
            }
        }
        if all.reassembly > limits.reassembly_total_bytes_max
            && self.shared.memory.each().all(|other| other.reassembly <= own.reassembly)
        {
            self.close_largest_reassembly();
        }
    }

    /// While memory is used up: of the subscribers here, the one furthest behind goes, once a second.
    pub(super) fn shed_laggards(&mut self) {
        if !self.room.is_in(MemoryStep::Laggards) {
            return;
        }
        let lags = self.watched.iter().filter_map(|&stream| {
            let local = self.streams.get(stream)?;
            let (tap, head) = (local.tap.as_ref()?, local.head?);
            let lag = |player: &super::stream::Player| {
                let connection = self.connections.get(player.conn)?.as_deref()?;
                let subscriber = &connection.play(player.msid)?.subscriber;
                // Who has taken all that was offered is not behind.
                subscriber.has_pending().then(|| (subscriber.lag_ms(tap, &head), player.conn))
            };
            local.players.iter().filter_map(lag).max()
        });
        let Some((lag_ms, conn)) = lags.max().filter(|(lag_ms, _)| *lag_ms >= LAGGARD_MS) else {
            return;
        };
        self.note_limit(LimitReached::MemoryLaggards);
        if let Some(connection) = self.connection(conn) {
            tracing::warn!(event = "limit", limit = "memory_laggards", conn = %connection.id,
                peer = %connection.peer, lag_ms, "closed: memory is used up, and it is furthest behind");
        }
        self.abandon(conn, CloseReason::MemoryLimit);
    }

    fn held(&self) -> Held {
        let mut held = Held { spare: self.arena.cached_bytes(), ..Held::default() };
        for (_, local) in &self.streams {
            if let Some(publisher) = &local.publisher {
                held.rings += publisher.writer.writer().owned_bytes();
                held.reassembly += publisher.writer.aside_held_bytes() as u64;
            } else if local.grace.is_some() {
                held.rings += local.entry.parked_bytes();
            }
            if let Some(reframer) = &local.reframer {
                held.framings += reframer.owned_bytes();
            }
        }
        held
    }

    /// Of the worker that holds most, the publisher that holds most goes.
    fn close_largest_reassembly(&mut self) {
        let held = |(_, local): (usize, &super::stream::LocalStream)| {
            let publisher = local.publisher.as_ref()?;
            Some((publisher.writer.aside_held_bytes(), publisher.conn))
        };
        let Some((bytes, conn)) = self.streams.iter().filter_map(held).max() else { return };
        self.note_limit(LimitReached::ReassemblyTotal);
        if let Some(connection) = self.connection(conn) {
            tracing::warn!(event = "limit", limit = "reassembly_total", conn = %connection.id,
                peer = %connection.peer, bytes, "closed: it holds most for interleaved messages");
        }
        self.close(conn, CloseReason::MemoryLimit);
    }

    /// Counts a limit on streams; returns what the peer is told.
    pub(super) fn note_stream_limit(&mut self, limit: StreamLimit) -> &'static str {
        let (limit, text) = match limit {
            StreamLimit::Streams => (LimitReached::Streams, "too many streams"),
            StreamLimit::StreamsOfVhost => {
                (LimitReached::StreamsPerVhost, "too many streams on this host")
            }
            StreamLimit::ConnectionsOfVhost => {
                (LimitReached::ConnectionsPerVhost, "too many connections on this host")
            }
            StreamLimit::Subscribers => (
                LimitReached::SubscribersPerStream,
                "the stream has as many players as it may have",
            ),
        };
        self.note_limit(limit);
        text
    }

    /// Why nobody may begin to publish a stream, if there is a reason.
    pub(super) fn lacks_room_to_publish(&mut self, stream: usize) -> Option<&'static str> {
        let local = self.streams.get(stream)?;
        let phase = local.entry.phase();
        // Who replaces a publisher adds nothing.
        if phase != StreamPhase::Live
            && local.entry.vhost_connections() >= local.vhost.connections_max
        {
            return Some(self.note_stream_limit(StreamLimit::ConnectionsOfVhost));
        }
        // Who returns to a stream in grace, or takes one over, finds its ring there.
        if phase != StreamPhase::Waiting {
            return None;
        }
        let limit = match (self.room.is_ring_full, self.room.is_in(MemoryStep::Publishers)) {
            (true, _) => LimitReached::RingTotal,
            (_, true) => LimitReached::MemoryPublishers,
            (false, false) => return None,
        };
        self.note_limit(limit);
        Some("there is no memory for another stream")
    }

    /// Why nobody new may watch anything, if there is a reason; counted.
    pub(super) fn refuses_subscribers(&mut self) -> Option<&'static str> {
        if !self.room.is_in(MemoryStep::Subscribers) {
            return None;
        }
        self.note_limit(LimitReached::MemorySubscribers);
        Some("the server is short of memory")
    }

    /// Counts a player of a stream, or says why there may be none more.
    pub(super) fn lacks_room_to_play(&mut self, stream: usize) -> Option<&'static str> {
        if let Some(text) = self.refuses_subscribers() {
            return Some(text);
        }
        let local = self.streams.get(stream)?;
        let vhost = &local.vhost;
        let admitted =
            local.entry.admit_subscriber(vhost.subscribers_per_stream_max, vhost.connections_max);
        admitted.err().map(|limit| self.note_stream_limit(limit))
    }

    /// Input stays unread because the peer does not take its replies.
    pub(super) fn note_unread(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        let is_first = connection.held_input.is_empty() && connection.closing.is_none();
        if is_first && !connection.is_waiting_for_answer() {
            self.note_limit(LimitReached::Replies);
        }
    }

    /// Whether a peer has sent more commands in this second than it may; then it is told and closed.
    pub(super) fn is_command_flood(&mut self, index: usize) -> bool {
        let now = self.now;
        let limits = self.settings.limits();
        let (commands_max, requests_max) =
            (limits.commands_per_second_max, limits.http_requests_per_second_max);
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        let (commands, max) = match &connection.session {
            Session::Rtmp(session) => (session.commands_received(), commands_max),
            Session::Http(session) if session.is_live() => (connection.requests, commands_max),
            Session::Http(_) => (connection.requests, requests_max),
            Session::Unknown => (0, commands_max),
        };
        if !connection.command_rate.is_over(now, commands, max) || connection.closing.is_some() {
            return false;
        }
        let limit = match &connection.session {
            Session::Http(session) if !session.is_live() => LimitReached::HttpRequestRate,
            _ => LimitReached::CommandRate,
        };
        let text = "too many commands in one second";
        tracing::info!(event = "limit", limit = limit.text(), conn = %connection.id,
            peer = %connection.peer, "{text}");
        connection.notify_status(0, StatusLevel::Error, "NetConnection.Connect.Closed", text);
        let is_viewer = match connection.session.http() {
            Some(session) if session.is_live() => {
                if session.framing().is_websocket() {
                    session.answer_close(Some(CLOSE_POLICY));
                }
                false
            }
            Some(_) => true,
            None => false,
        };
        self.note_limit(limit);
        if is_viewer {
            self.answer(index, &Answer::text(429, text));
        }
        self.close(index, CloseReason::CommandRate);
        true
    }
}

/// The limit that a class of protocol error is about.
pub(super) fn limit_of(label: &str) -> Option<LimitReached> {
    match label {
        "limit_message_bytes" => Some(LimitReached::Message),
        "limit_chunk_streams" => Some(LimitReached::ChunkStreams),
        "limit_tiny_chunks" => Some(LimitReached::TinyChunks),
        "command_too_long" | "string_too_long" | "assembly_full" => Some(LimitReached::Command),
        "limit_amf_depth" | "limit_amf_elements" | "limit_amf_string" => Some(LimitReached::Amf),
        _ => None,
    }
}
