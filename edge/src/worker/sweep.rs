//! What happens because time passes: deadlines of sessions and closings, lag of blocked
//! subscribers, silent publishers, grace periods, waiting players, exported counters, load.
//!
//! A step every [`SWEEP_MS`](super) visits a share of the connection table, so that a turn stays
//! short however many connections there are; deadlines are kept to within a second.

use rtmp::Millis;
use rtmp::session::PlayError;
use uring::{Batching, Io, Nanos};

use super::settings::Limits;
use super::{ARENA_SEGMENTS_CACHED_MAX, SWEEP_MS, SWEEP_STEPS, Worker};
use crate::connection::{Connection, Session};
use crate::metrics::{CloseReason, GraceResult, LimitReached, StreamLife};
use crate::registry::{GraceEnd, StreamPhase};
use crate::transport::Transport;

/// Busy share of a worker from which its flush window widens, and below which it narrows, in percent.
const BUSY_HIGH_PERCENT: u64 = 70;
const BUSY_LOW_PERCENT: u64 = 50;
/// First step of a widened window, in milliseconds.
const WIDEN_MS_FIRST: u32 = 10;
/// Distance of two looks at the load, in milliseconds.
const LOAD_MS: u64 = 1_000;

/// Published messages in one sweep step from which turns gather completions: 2,000 a second, as many
/// small streams make. Messages, since the gathering itself makes fewer receives of them.
const GATHER_MESSAGES_MIN: u32 = 100;
/// Published messages in one sweep step from which they gather longer.
const GATHER_LONGER_MESSAGES_MIN: u32 = 400;
/// Completions that end the gathering.
const GATHER_COMPLETIONS_MAX: u32 = 256;
/// How long somebody who comes is served without long gathering, in milliseconds: time for the
/// commands before a publish or play.
const ARRIVAL_MS: u64 = 1_000;

/// How long a turn may gather completions, after so many published messages in the last sweep step.
/// `is_awaited`: somebody watches, or has just come, so that a turn more is a delay for somebody.
fn batching(messages: u32, is_awaited: bool) -> Batching {
    let wait_ms = match messages {
        0..GATHER_MESSAGES_MIN => return Batching::OFF,
        _ if !is_awaited => 20,
        GATHER_MESSAGES_MIN..GATHER_LONGER_MESSAGES_MIN => 1,
        GATHER_LONGER_MESSAGES_MIN.. => 5,
    };
    Batching { completions: GATHER_COMPLETIONS_MAX, wait: Nanos::from_millis(wait_ms) }
}

/// How busy the worker is, and what that does to its flush window.
#[derive(Debug)]
pub(super) struct Load {
    cpu_nanos: fn() -> u64,
    at: Millis,
    cpu_at: u64,
    window_ms: u32,
}

impl Load {
    pub(super) fn new(cpu_nanos: fn() -> u64) -> Self {
        Self { cpu_nanos, at: Millis(0), cpu_at: cpu_nanos(), window_ms: 0 }
    }

    /// The widened window, 0 while there is no need.
    pub(super) fn window_ms(&self) -> u32 {
        self.window_ms
    }

    /// Looks at the load once a second; returns the busy share in percent when it did.
    fn measure(&mut self, now: Millis, window_ms_max: u32) -> Option<u64> {
        let elapsed_ms = now.0.saturating_sub(self.at.0);
        if elapsed_ms < LOAD_MS {
            return None;
        }
        let cpu = (self.cpu_nanos)();
        let busy = (cpu.saturating_sub(self.cpu_at) / 10_000).checked_div(elapsed_ms).unwrap_or(0);
        let is_first = self.at.0 == 0;
        self.at = now;
        self.cpu_at = cpu;
        if is_first {
            return None;
        }
        if busy >= BUSY_HIGH_PERCENT {
            self.window_ms = (self.window_ms * 2).max(WIDEN_MS_FIRST).min(window_ms_max);
        } else if busy < BUSY_LOW_PERCENT {
            self.window_ms /= 2;
            if self.window_ms < WIDEN_MS_FIRST {
                self.window_ms = 0;
            }
        }
        Some(busy)
    }
}

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    pub(super) fn sweep(&mut self) {
        if self.now < self.sweep_at {
            return;
        }
        self.sweep_at = Millis(self.now.0 + SWEEP_MS);
        self.messages_before = std::mem::take(&mut self.messages);
        self.gather();
        self.sweep_connections();
        self.sweep_streams();
        self.sweep_budget();
        self.sweep_load();
        self.sweep_drain();
    }

    /// Tells the `Io` how long its turns may gather.
    fn gather(&mut self) {
        let is_awaited = self.now < self.arrival_until
            || !self.watched.is_empty()
            || self.streams.iter().any(|(_, stream)| stream.is_published_and_watched());
        self.set_batching(batching(self.messages_before, is_awaited));
    }

    /// Somebody has come: its commands are not to wait longer than others' media does.
    pub(super) fn expect_commands(&mut self) {
        self.arrival_until = Millis(self.now.0 + ARRIVAL_MS);
        self.set_batching(batching(self.messages_before, true));
    }

    fn set_batching(&mut self, batching: Batching) {
        // Milliseconds are far below 2^53: exact.
        #[allow(clippy::cast_precision_loss)]
        let wait_s = batching.wait.0 as f64 / 1e9;
        self.port.metrics().turn_gathering.set(wait_s);
        self.io.set_batching(batching);
    }

    fn sweep_connections(&mut self) {
        let share = self.connections.len().div_ceil(SWEEP_STEPS);
        let first = self.sweep_step * share;
        self.sweep_step = (self.sweep_step + 1) % SWEEP_STEPS;
        for index in first..(first + share).min(self.connections.len()) {
            self.sweep_connection(index);
        }
    }

    fn sweep_connection(&mut self, index: usize) {
        let now = self.now;
        let limits = self.settings.limits();
        let Some(connection) = self.connection(index) else { return };
        if let Some(closing) = connection.closing {
            if now >= closing.deadline {
                self.remove(index);
            }
            return;
        }
        let late = is_late_to_open(connection, now, &limits);
        if let Some((class, limit)) = late {
            tracing::info!(event = "timeout", conn = %connection.id, peer = %connection.peer,
                class, transport = connection.transport.text());
            self.note_limit(limit);
            self.close(index, CloseReason::HandshakeTimeout);
            return;
        }
        if let Some(session) = connection.session.rtmp()
            && session.poll_timeout().is_some_and(|at| now >= at)
            && let Err(error) = session.handle_timeout(now)
        {
            tracing::info!(event = "timeout", conn = %connection.id, peer = %connection.peer,
                class = error.label(), error = %error);
            let (reason, limit) = if connection.connect.is_none() {
                (CloseReason::HandshakeTimeout, LimitReached::Handshake)
            } else {
                (CloseReason::IdleTimeout, LimitReached::Idle)
            };
            self.note_limit(limit);
            self.close(index, reason);
            return;
        }
        if self.sweep_http(index) {
            return;
        }
        self.sweep_access(index);
        if self.sweep_permits(index) {
            return;
        }
        self.check_lags(index);
        self.sweep_plays(index);
        self.pump(index);
    }

    /// Plays that have waited long enough for a publisher, or for a keyframe that never comes.
    fn sweep_plays(&mut self, index: usize) {
        let now = self.now;
        let count = self.connection(index).map_or(0, |connection| connection.plays.len());
        for at in 0..count {
            let Some(play) = self.connection(index).and_then(|c| c.plays.get(at)) else { return };
            let (msid, since, stream) = (play.msid, play.waiting_since, play.stream);
            if !play.subscriber.is_waiting() {
                continue;
            }
            if self.try_join(index, msid) {
                continue;
            }
            let Some(local) = self.streams.get(stream) else { continue };
            let wait_ms = local.vhost.wait_ms(local.framing);
            let is_over = now.0.saturating_sub(since.0) >= wait_ms;
            if is_over && local.entry.phase() == StreamPhase::Waiting {
                self.note_limit(LimitReached::PlayWait);
                let text = "nobody publishes this stream";
                self.end_accepted_play(index, msid, PlayError::StreamNotFound, text);
                self.close(index, CloseReason::PlayWaitTimeout);
                return;
            }
        }
    }

    fn sweep_streams(&mut self) {
        let now = self.now;
        let mut counts = [0u64; 3];
        let mut ring_bytes = 0;
        let mut silent = Vec::new();
        let mut graces = Vec::new();
        for (index, local) in &mut self.streams {
            if let Some(publisher) = &local.publisher {
                counts[0] += 1;
                ring_bytes += publisher.writer.writer().retained_bytes();
                let idle_ms_max = local.vhost.idle_publisher_ms_max;
                if idle_ms_max > 0 && now.0.saturating_sub(publisher.heard_at.0) >= idle_ms_max {
                    silent.push(publisher.conn);
                }
            } else if let Some(grace) = local.grace {
                counts[1] += u64::from(local.entry.phase() == StreamPhase::Grace);
                if now >= grace.until {
                    graces.push((index, grace.session));
                }
            } else if local.entry.phase() == StreamPhase::Waiting {
                counts[2] += 1;
            }
        }
        for conn in silent {
            self.note_limit(LimitReached::IdlePublisher);
            self.close(conn, CloseReason::PublisherIdle);
        }
        for (index, session) in graces {
            self.end_grace(index, session);
        }
        // As many as there are streams: at keyframes all of them may trim at once.
        let live = usize::try_from(counts[0]).unwrap_or(usize::MAX);
        let cached_max = if self.room.is_short() { 0 } else { live.max(ARENA_SEGMENTS_CACHED_MAX) };
        self.arena.set_segments_cached_max(cached_max);
        let streams = &self.port.metrics().streams;
        streams.of(StreamLife::Live).set(counts[0]);
        streams.of(StreamLife::Grace).set(counts[1]);
        streams.of(StreamLife::Waiting).set(counts[2]);
        self.port.metrics().ring_bytes.set(ring_bytes);
        for (_, local) in &mut self.streams {
            if let Some(publisher) = &mut local.publisher {
                publisher.export(self.port.metrics());
                if let Some(gop) = publisher.writer.meter().last_gop() {
                    local.entry.note_gop(gop.ms);
                }
            }
            local.export_framing(self.port.metrics());
        }
    }

    fn end_grace(&mut self, stream: usize, session: u64) {
        let Some(local) = self.streams.get_mut(stream) else { return };
        let arena = &mut self.arena;
        match local.entry.end_grace(session, |publisher| publisher.end_session(arena, true)) {
            // Whoever claims the stream will take it, or give it up: look again.
            GraceEnd::Claimed => return,
            GraceEnd::Ended => {
                self.port.metrics().grace_ended.of(GraceResult::Expired).increment();
                tracing::info!(event = "grace_over", stream = %local.entry.path());
            }
            GraceEnd::NotOurs => {}
        }
        local.grace = None;
        self.mark_dirty(stream);
        self.wake_tapped(stream);
    }

    fn sweep_load(&mut self) {
        let flush_ms_max = self.settings.flush_ms_max();
        let Some(busy_percent) = self.load.measure(self.now, flush_ms_max) else { return };
        let metrics = self.port.metrics();
        // Percent and milliseconds are far below 2^53: exact.
        #[allow(clippy::cast_precision_loss)]
        metrics.busy.set(busy_percent as f64 / 100.0);
        metrics.flush_window_widened.set(f64::from(self.load.window_ms()) / 1_000.0);
        let io = self.io.counters();
        metrics.uring_submissions.set_total(io.sends);
        metrics.uring_completions.set_total(io.completions);
        metrics.io_waits.set_total(io.enters);
        metrics.io_file_sends.set_total(io.sends_from_file);
        metrics.uring_no_buffers.set_total(io.receive_buffers_empty);
        metrics.uring_overflows.set_total(io.completion_overflows);
        metrics.io_stale.set_total(io.stale_completions);
        metrics.accept_errors.set_total(io.accept_errors);
        self.sample_lags();
        self.shed_laggards();
    }

    /// Lag of every subscriber, once a second.
    fn sample_lags(&mut self) {
        for &stream in &self.watched {
            let Some(local) = self.streams.get(stream) else { continue };
            let (Some(tap), Some(head)) = (&local.tap, local.head) else { continue };
            for player in &local.players {
                let play = self
                    .connections
                    .get(player.conn)
                    .and_then(Option::as_deref)
                    .and_then(|c| c.play(player.msid));
                let Some(play) = play else { continue };
                if !play.subscriber.is_waiting() {
                    let lag_ms = play.subscriber.lag_ms(tap, &head);
                    self.port.metrics().lag.observe(u64::from(lag_ms));
                }
            }
        }
    }

    pub(super) fn close_listeners(&mut self) {
        for entrance in self.listeners.drain(..) {
            self.io.close_listener(entrance.listener);
        }
    }
}

/// What a connection was late with, if it has used up its time for the first byte, the TLS handshake, or
/// what is to be spoken within it: the class of the log line.
fn is_late_to_open(
    connection: &Connection,
    now: Millis,
    limits: &Limits,
) -> Option<(&'static str, LimitReached)> {
    let age_ms = now.0.saturating_sub(connection.accepted_at.0);
    let (ms_max, class, limit) = match (&connection.transport, &connection.session) {
        (Transport::Opening(_), _) => {
            (limits.first_byte_ms_max, "first_byte", LimitReached::FirstByte)
        }
        (Transport::Handshake(_), _) => {
            (limits.tls_handshake_ms_max, "tls_handshake", LimitReached::TlsHandshakeTime)
        }
        (_, Session::Unknown) => {
            (limits.handshake_ms_max, "handshake_timeout", LimitReached::Handshake)
        }
        (_, Session::Rtmp(_) | Session::Http(_)) => return None,
    };
    (age_ms >= ms_max).then_some((class, limit))
}
