//! What a connection sends, in which order, and how it ends.
//!
//! At most one send is in flight per connection. Order: the unsent rest of an owned buffer, the rest
//! of a message already begun, replies, then media. Replies therefore never land inside a message.

use live::preamble;
use rtmp::chunk::{CSID_AUDIO, CSID_DATA, CSID_VIDEO};
use rtmp::message::{MessageHeader, kind};
use rtmp::session::PlayError;
use uring::{Io, SendBuf};

use super::Worker;
use super::ingest::PublishEnd;
use super::stream::LocalStream;
use crate::connection::{
    CLOSE_FLUSH_MS_MAX, CLOSE_LINGER_MS_MAX, Closing, Connection, Play, Sending, Session,
};
use crate::http::ViewerStart;
use crate::metrics::{CloseReason, Label, LimitReached, TlsHandshake};
use crate::transport::Transport;

/// Sends per turn for subscribers that catch up: a send of theirs fills a socket, which takes the
/// kernel some tens of microseconds.
const CATCH_UP_SENDS_PER_TURN_MAX: usize = 32;
/// Unsent bytes the kernel may hold of a response's body; its send buffer, which grows with the speed of the
/// connection, is the bound below that.
const BODY_UNSENT_BYTES_MAX: u32 = 1 << 20;
/// Bytes gathered per send for subscribers that need their own copy.
const COPY_BYTES_MAX: usize = 64 * 1024;

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// Hands the next bytes of a connection to the socket, if it is free and there are any.
    /// True if a send was made.
    pub(super) fn pump(&mut self, index: usize) -> bool {
        let (now, is_still) = (self.now, self.is_still());
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        if connection.is_output_busy() || is_still {
            return false;
        }
        if connection.output.sealed_rest.is_some() {
            return self.flush_sealed(index);
        }
        if connection.transport.must_update_send() {
            self.update_send_key(index);
        }
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        if !connection.transport.is_open() {
            if connection.closing.is_some() {
                self.shut_down(index);
            }
            return false;
        }
        if let Some(rest) = connection.output.rest.take() {
            return self.send_owned(index, rest);
        }
        if !connection.plays.iter().any(|play| play.subscriber.is_mid_message()) {
            note_stream_ends(connection, &mut self.streams, now);
            // A viewer over HTTP is shown one stream to its end. Its play goes now: while its last bytes
            // are on their way, nobody who publishes the stream again may begin behind them.
            let has_ended = connection.session.http().is_some_and(|session| session.has_ended());
            if has_ended && connection.closing.is_none() {
                self.close(index, CloseReason::StreamEnded);
                return self.connection(index).is_some_and(|closing| closing.is_output_busy());
            }
            if connection.session.has_replies() {
                let mut replies = self.spare.empty();
                if let Some(connection) = self.connection(index) {
                    connection.session.take_replies(&mut replies);
                }
                let sent = self.send_owned(index, replies);
                self.resume_input(index);
                return sent;
            }
            if let Some(session) = connection.session.http() {
                if let Some(body) = session.body() {
                    connection.output.sending = Sending::Body;
                    // A file is no live stream: the kernel may hold much of it unsent, which saves most of
                    // the partial sends and the waits for room between them.
                    if !std::mem::replace(&mut connection.output.is_bulk, true) {
                        self.io.set_unsent_max(connection.conn, BODY_UNSENT_BYTES_MAX);
                    }
                    return self.transmit(index, SendBuf::Shared(body));
                }
                if session.is_answered() && connection.closing.is_none() {
                    return self.on_answered(index);
                }
            }
            if connection.closing.is_some() {
                self.shut_down(index);
                return false;
            }
        }
        self.send_media(index)
    }

    fn send_media(&mut self, index: usize) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        let is_only_play = connection.plays.len() == 1;
        for (at, play) in connection.plays.iter_mut().enumerate() {
            let Some(stream) = self.streams.get_mut(play.stream) else { continue };
            let Some(tap) = &stream.tap else { continue };
            if !play.subscriber.has_pending() {
                continue;
            }
            let is_shared = is_only_play && play.subscriber.is_shared();
            if is_shared || play.subscriber.is_mid_message() {
                let lease = if is_shared {
                    play.subscriber.next_lease(tap)
                } else {
                    play.subscriber.rest_lease(tap)
                };
                let Some(lease) = lease else {
                    if play.subscriber.is_overrun(tap) {
                        self.overruns.push(index);
                    }
                    continue;
                };
                note_first_frame(play, self.now_nanos, self.port.metrics());
                connection.output.sending = Sending::Shared { play: play.serial };
                self.port.metrics().sends.increment();
                return self.transmit(index, SendBuf::Lease(lease));
            }
            let mut copied = self.spare.empty();
            let config = &stream.vhost.subscriber;
            play.subscriber.copy_next(config, tap, &mut copied, COPY_BYTES_MAX, now);
            if copied.is_empty() {
                self.spare.put(copied);
                if play.subscriber.is_overrun(tap) {
                    self.overruns.push(index);
                }
                continue;
            }
            note_first_frame(play, self.now_nanos, self.port.metrics());
            stream.bytes_out += copied.len() as u64;
            self.port.metrics().sends.increment();
            // The next connection's turn begins with another play, so none starves the rest.
            connection.plays.rotate_left(at + 1);
            return self.send_owned(index, copied);
        }
        false
    }

    fn send_owned(&mut self, index: usize, bytes: Vec<u8>) -> bool {
        if bytes.is_empty() {
            self.spare.put(bytes);
            return false;
        }
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        connection.output.sending = Sending::Owned;
        self.transmit(index, SendBuf::Owned(bytes))
    }

    pub(super) fn on_sent(
        &mut self,
        index: usize,
        bytes: usize,
        blocked: bool,
        buf: SendBuf<ring::Lease>,
    ) {
        let now = self.now;
        self.port.metrics().egress_bytes.add(bytes as u64);
        let Some(connection) = self.connection(index) else { return };
        connection.bytes_out += bytes as u64;
        let (bytes, buf) = match &connection.transport {
            Transport::Plain => (bytes, buf),
            Transport::Kernel(_) => {
                self.note_kernel_sent(index, bytes);
                (bytes, buf)
            }
            _ => match self.on_sealed_sent(index, bytes, buf) {
                Some(sealing) => (sealing.bytes, sealing.buf),
                None => return self.after_sealed(index, bytes, blocked),
            },
        };
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        connection.output.blocked = blocked;
        if bytes > 0 || !blocked {
            connection.session.note_send_progress(now);
        }
        let sending = std::mem::replace(&mut connection.output.sending, Sending::Nothing);
        match (sending, buf) {
            (Sending::Shared { play: serial }, buf) => {
                let play = connection.plays.iter_mut().find(|play| play.serial == serial);
                let Some(play) = play else {
                    // It stopped playing while the send was out; a lease ends where a message ends.
                    let rest = buf.bytes().get(bytes..).unwrap_or(&[]);
                    connection.output.rest = (!rest.is_empty()).then(|| rest.to_vec());
                    self.after_send(index, blocked, false);
                    return;
                };
                if let Some(stream) = self.streams.get_mut(play.stream)
                    && let Some(tap) = &stream.tap
                {
                    stream.bytes_out += bytes as u64;
                    if let SendBuf::Lease(lease) = &buf {
                        play.subscriber.on_sent(tap, lease, bytes, now);
                    }
                    stream.waiting += usize::from(play.subscriber.is_waiting());
                }
            }
            (_, SendBuf::Owned(mut owned)) if bytes < owned.len() => {
                owned.drain(..bytes);
                connection.output.rest = Some(owned);
            }
            (_, SendBuf::Owned(owned)) => self.spare.put(owned),
            (_, SendBuf::Shared(_)) => {
                if let Some(session) = connection.session.http() {
                    session.note_body_sent(bytes);
                }
            }
            (_, SendBuf::Lease(_)) => {}
        }
        self.after_send(index, blocked, matches!(sending, Sending::Shared { .. }));
    }

    /// Bytes without plaintext of ours have left, all or in part.
    fn after_sealed(&mut self, index: usize, bytes: usize, blocked: bool) {
        let now = self.now;
        let Some(connection) = self.connection(index) else { return };
        connection.output.blocked = blocked;
        connection.output.sending = Sending::Nothing;
        if bytes > 0 || !blocked {
            connection.session.note_send_progress(now);
        }
        self.hand_over(index);
        self.after_send(index, blocked, false);
    }

    fn after_send(&mut self, index: usize, blocked: bool, was_shared: bool) {
        if blocked {
            self.port.metrics().sends_blocked.increment();
            return;
        }
        let is_behind = was_shared
            && self.connection(index).is_some_and(|connection| {
                connection.plays.iter().any(|play| play.subscriber.has_pending())
            });
        if is_behind {
            self.catch_up_later(index);
        } else {
            self.pump(index);
        }
    }

    /// Queues a connection that has more to take than the news of this turn, so that those who
    /// catch up (joiners, the slow) do not delay those who follow the head.
    fn catch_up_later(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        if !std::mem::replace(&mut connection.output.is_queued, true) {
            self.catching_up.push_back(index);
        }
    }

    /// Serves queued connections, a bounded number of sends per turn.
    pub(super) fn serve_catching_up(&mut self) {
        let (_, bytes_max) = self.round_max();
        self.handed_bytes = 0;
        for _ in 0..CATCH_UP_SENDS_PER_TURN_MAX.min(self.catching_up.len()) {
            if self.handed_bytes >= bytes_max {
                return;
            }
            let Some(index) = self.catching_up.pop_front() else { return };
            if let Some(connection) = self.connection(index) {
                connection.output.is_queued = false;
                self.pump(index);
            }
        }
    }

    /// Those who were found to have fallen out of a ring skip now: to wait for their next look would be up to
    /// a second in which they are shown nothing.
    pub(super) fn serve_overruns(&mut self) {
        for at in 0..self.overruns.len() {
            let Some(&index) = self.overruns.get(at) else { break };
            self.check_lags(index);
            let count = self.connection(index).map_or(0, |connection| connection.plays.len());
            for at in 0..count {
                let play = self.connection(index).and_then(|connection| connection.plays.get(at));
                let Some(play) = play else { break };
                let msid = play.msid;
                if play.subscriber.is_waiting() && self.try_join(index, msid) {
                    self.catch_up_later(index);
                }
            }
        }
        self.overruns.clear();
    }

    pub(super) fn on_writable(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        connection.output.blocked = false;
        self.check_lags(index);
        self.catch_up_later(index);
    }

    /// Gives a waiting play its place in the ring, preamble first, if the stream has one to offer.
    pub(super) fn try_join(&mut self, index: usize, msid: u32) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        let is_only_play = connection.plays.len() == 1;
        // Not by `play_mut`: the session is needed beside it.
        let play = connection.plays.iter_mut().find(|play| play.msid == msid);
        let Some(play) = play else {
            return false;
        };
        let Some(stream) = self.streams.get_mut(play.stream) else { return false };
        if !play.subscriber.is_waiting() || !stream.offers_joins() {
            return false;
        }
        let Some(head) = stream.refresh(&mut self.arena, &self.settings) else { return false };
        let Some(tap) = &stream.tap else { return false };
        if let Some(session) = connection.session.rtmp()
            && session.chunk_sizes().1 != stream.entry.chunk_bytes()
        {
            if !is_only_play {
                let text = "another chunk size is in use on this connection";
                self.end_accepted_play(index, msid, PlayError::Failed, text);
                self.close(index, CloseReason::Refused);
                return false;
            }
            session.set_chunk_bytes_out(stream.entry.chunk_bytes());
        }
        let has_video = stream.entry.has_video();
        let config = &stream.vhost.subscriber;
        let Some(join) = play.subscriber.poll_join(config, tap, &head, has_video, now) else {
            return false;
        };
        stream.waiting -= 1;
        let is_first = !std::mem::replace(&mut play.has_joined, true);
        play.ends_at = None;
        let preamble = join.preamble.filter(|news| news.version != play.preamble_version);
        let blob = preamble.as_ref().map(|preamble| &*preamble.bytes);
        if let Some(preamble) = &preamble {
            play.preamble_version = preamble.version;
        }
        let is_written = match &mut connection.session {
            Session::Rtmp(session) => preamble::entries(blob.unwrap_or_default()).all(|entry| {
                let (kind, body) = entry;
                let header = preamble_header(kind, msid, join.timestamp, body.len());
                session.write_message(&header, body).is_ok()
            }),
            Session::Http(session) => {
                let tracks = stream.reframer.as_ref().map(|reframer| reframer.tracks());
                let date = &self.date.1;
                let start = ViewerStart { is_first, tracks, timestamp: join.timestamp, date };
                session.write_preamble(&start, play.subscriber.selection(), blob)
            }
            Session::Unknown => true,
        };
        // A peer that asks and never reads has filled its reply space.
        if !is_written {
            self.note_limit(LimitReached::Replies);
            self.close(index, CloseReason::MemoryLimit);
            return false;
        }
        self.update_state(index);
        true
    }

    /// Decides for each play of a connection whether it has fallen too far behind.
    pub(super) fn check_lags(&mut self, index: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let mut hopeless = None;
        for play in &mut connection.plays {
            let Some(stream) = self.streams.get_mut(play.stream) else { continue };
            let Some(head) = stream.refresh(&mut self.arena, &self.settings) else { continue };
            let Some(tap) = &stream.tap else { continue };
            let was_waiting = usize::from(play.subscriber.is_waiting());
            let metrics = self.port.metrics();
            match play.subscriber.check_lag(&stream.vhost.subscriber, tap, &head, now) {
                live::subscriber::LagVerdict::Fine => {}
                live::subscriber::LagVerdict::SkipStarted { lag_ms, overrun } => {
                    connection.skips += 1;
                    let reason = if overrun {
                        crate::metrics::SkipReason::Overrun
                    } else {
                        crate::metrics::SkipReason::Lag
                    };
                    metrics.skips.of(reason).increment();
                    metrics.limits_reached.of(LimitReached::Lag).increment();
                    if self.skip_lines.allow(now.0) {
                        tracing::info!(event = "skip", conn = %connection.id, lag_ms,
                            skips = play.subscriber.skips(), stream = %stream.entry.path());
                    }
                }
                live::subscriber::LagVerdict::Close(live::subscriber::Hopeless::Stalled) => {
                    hopeless = Some(CloseReason::Stalled);
                }
                live::subscriber::LagVerdict::Close(live::subscriber::Hopeless::Overrun) => {
                    hopeless = Some(CloseReason::Overrun);
                }
            }
            stream.waiting += usize::from(play.subscriber.is_waiting());
            stream.waiting -= was_waiting;
        }
        if let Some(reason) = hopeless {
            self.note_limit(match reason {
                CloseReason::Stalled => LimitReached::Stall,
                _ => LimitReached::Lag,
            });
            self.abandon(index, reason);
        }
    }

    /// Ends a connection in order: what it publishes and plays ends, its last replies are
    /// flushed, then the socket is shut down.
    pub(super) fn close(&mut self, index: usize, reason: CloseReason) {
        let now = self.now;
        let Some(connection) = self.connection(index) else { return };
        if connection.closing.is_some() {
            return;
        }
        let deadline = rtmp::Millis(now.0 + CLOSE_FLUSH_MS_MAX);
        connection.closing = Some(Closing { reason, deadline, shut_down: false });
        connection.held_input = Vec::new();
        self.end_roles(index);
        self.update_state(index);
        self.pump(index);
    }

    /// Ends a connection at once: the peer is gone or past hope.
    pub(super) fn abandon(&mut self, index: usize, reason: CloseReason) {
        let now = self.now;
        let Some(connection) = self.connection(index) else { return };
        if connection.closing.is_none() {
            connection.closing = Some(Closing { reason, deadline: now, shut_down: true });
        }
        self.remove(index);
    }

    fn shut_down(&mut self, index: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        if connection.closing.is_none_or(|closing| closing.shut_down) {
            return;
        }
        if !connection.output.is_goodbye_said && self.say_goodbye(index) {
            return;
        }
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Some(closing) = &mut connection.closing else { return };
        closing.shut_down = true;
        closing.deadline = rtmp::Millis(now.0 + CLOSE_LINGER_MS_MAX);
        if connection.receive_ended {
            self.remove(index);
        } else {
            self.io.shutdown_write(connection.conn);
        }
    }

    fn end_roles(&mut self, index: usize) {
        self.withdraw_claim(index);
        while let Some(msid) =
            self.connection(index).and_then(|c| c.publishes.last().map(|publish| publish.msid))
        {
            let reason =
                self.connection(index).and_then(|c| c.closing).map(|closing| closing.reason);
            let how = match reason {
                Some(CloseReason::Kicked) => PublishEnd::Clean,
                Some(CloseReason::HandedOver) => PublishEnd::HandedOver,
                _ => PublishEnd::Lost,
            };
            self.unpublish(index, msid, how);
        }
        while let Some(msid) =
            self.connection(index).and_then(|c| c.plays.last().map(|play| play.msid))
        {
            self.stop_play(index, msid);
        }
    }

    fn withdraw_claim(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        let (id, Some(pending)) = (connection.id, &connection.pending_publish) else { return };
        let stream = pending.stream;
        if let Some(local) = self.streams.get(stream) {
            local.entry.withdraw_claim(id);
        }
        self.end_claim(index);
        self.forget_stream_if_unneeded(stream);
    }

    /// Takes a connection out of the table, closes its socket and writes its last log line.
    pub(super) fn remove(&mut self, index: usize) {
        self.end_roles(index);
        let Some(connection) = self.connections.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.open_count -= 1;
        self.by_serial.remove(&connection.id.serial);
        if connection.is_admitted {
            self.shared.addresses.release(connection.peer.ip());
        }
        if matches!(&connection.transport, Transport::Handshake(h) if !h.is_leaving) {
            self.port.metrics().tls_handshakes.of(TlsHandshake::Failed).increment();
        }
        if let Some(mode) = connection.tls_mode {
            self.port.metrics().tls_connections.of(mode).decrement();
        }
        let reason = connection.closing.map_or(CloseReason::Internal, |closing| closing.reason);
        match reason {
            CloseReason::HandedOver => self.io.release(connection.conn),
            _ => self.io.close(connection.conn),
        }
        let http = match &connection.session {
            Session::Http(session) => Some(session),
            Session::Unknown | Session::Rtmp(_) => None,
        };
        let metrics = self.port.metrics();
        metrics.connections.of(connection.counted.0, connection.counted.1).decrement();
        metrics.disconnects.of(connection.role, reason).increment();
        if reason != CloseReason::Probe {
            tracing::info!(
                event = "close",
                conn = %connection.id,
                peer = %connection.peer,
                role = connection.role.text(),
                stream = connection.last_path.as_ref().map(tracing::field::display),
                reason = reason.text(),
                bytes_in = connection.bytes_in,
                bytes_out = connection.bytes_out,
                skips = connection.skips,
                protocol = connection.session.protocol(),
                requests = http.map(|session| session.requests()),
                status = http.map(|session| session.status()),
                user_agent = http.and_then(|session| session.user_agent()),
                duration_ms = self.now.0 - connection.accepted_at.0,
            );
        }
    }

    /// Keeps the connection gauge in step with what the connection does.
    pub(super) fn update_state(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let state = connection.state();
        if state == connection.counted {
            return;
        }
        let connections = &self.port.metrics().connections;
        connections.of(connection.counted.0, connection.counted.1).decrement();
        connections.of(state.0, state.1).increment();
        connection.counted = state;
    }
}

/// Tells the peer of each of its streams that has ended and is sent to its end.
fn note_stream_ends(
    connection: &mut Connection,
    streams: &mut slab::Slab<LocalStream>,
    now: rtmp::Millis,
) {
    for play in &mut connection.plays {
        let Some(ends_at) = play.ends_at else { continue };
        let subscriber = &play.subscriber;
        if subscriber.is_waiting() || subscriber.is_paused() || subscriber.cursor() >= ends_at {
            play.ends_at = None;
            play.has_joined = false;
            match &mut connection.session {
                Session::Rtmp(session) => session.notify_unpublish(play.msid),
                Session::Http(session) => session.end_of_stream(),
                Session::Unknown => {}
            }
            play.preamble_version = 0;
            play.waiting_since = now;
            if !play.subscriber.is_waiting() {
                play.subscriber.on_stream_end();
                if let Some(stream) = streams.get_mut(play.stream) {
                    stream.waiting += 1;
                }
            }
        }
    }
}

fn note_first_frame(play: &mut Play, now: uring::Nanos, metrics: &crate::metrics::WorkerMetrics) {
    if let Some(asked_at) = play.asked_at.take() {
        metrics.first_frame.observe(now.since(asked_at).0 / 1_000);
    }
}

fn preamble_header(kind: u8, msid: u32, timestamp: u32, body_bytes: usize) -> MessageHeader {
    let csid = match kind {
        kind::AUDIO => CSID_AUDIO,
        kind::VIDEO => CSID_VIDEO,
        _ => CSID_DATA,
    };
    // See the publisher: metadata has no time of its own.
    let timestamp = if kind == kind::DATA_AMF0 { 0 } else { timestamp };
    // Preamble entries are bounded far below 2^32.
    let length = u32::try_from(body_bytes).unwrap_or(u32::MAX);
    MessageHeader { csid, kind, msid, timestamp, length }
}
