//! What peers send: bytes into sessions, media into publishers, commands into answers.

use live::path::StreamPath;
use live::publisher::{Progress, Publisher};
use rtmp::session::{
    ConnectRequest, DataMessage, Event, MediaPart, PlayError, PublishError, ServerSession,
    StatusLevel,
};
use uring::Io;

use super::Worker;
use super::access::log_text;
use super::stream::{Grace, LocalPublisher, LocalStream};
use crate::access::{Grant, Introduction, Role as AccessRole};
use crate::connection::{PendingPublish, Publish, Session};
use crate::framing::FramingKind;
use crate::front::Protocol;
use crate::http::HttpSession;
use crate::log;
use crate::metrics::{CloseReason, LimitReached, MediaKind, PlayResult, PublishResult, Role};
use crate::registry::{Claim, StreamLimit, StreamPhase, StreamsMax};
use crate::transport::Transport;

/// How a publisher's session ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum PublishEnd {
    /// The publisher said so: the stream ends at once.
    Clean,
    /// The connection was lost: the grace period begins.
    Lost,
    /// Another publisher takes the stream over.
    Takeover,
    /// It goes on in another process.
    HandedOver,
}

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    pub(super) fn on_received(&mut self, index: usize, data: &[u8]) {
        let metrics = self.port.metrics();
        metrics.ingress_bytes.add(data.len() as u64);
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        connection.bytes_in += data.len() as u64;
        if connection.closing.is_some() {
            return;
        }
        match connection.transport {
            Transport::Plain | Transport::Kernel(_) => self.on_plain(index, data),
            Transport::Records(_) => self.on_records(index, data),
            Transport::Opening(_) => self.on_opening(index, data),
            Transport::Handshake(_) => self.on_handshake(index, data),
        }
    }

    /// Application bytes, whatever they travelled in.
    pub(super) fn on_plain(&mut self, index: usize, data: &[u8]) {
        let Some(connection) = self.connection(index) else { return };
        if connection.closing.is_some() {
            return;
        }
        if matches!(connection.session, Session::Unknown) && !self.begin_session(index, data) {
            return;
        }
        let Some(connection) = self.connection(index) else { return };
        if connection.is_waiting_for_answer() || !connection.held_input.is_empty() {
            self.hold_input(index, data);
            return;
        }
        let mut input = data;
        self.feed(index, &mut input);
        if !input.is_empty() {
            self.note_unread(index);
            self.hold_input(index, input);
        }
        if !self.pump(index) {
            self.acknowledge_command(index);
        }
    }

    /// The first application byte tells what is spoken. False if that is not served here.
    fn begin_session(&mut self, index: usize, data: &[u8]) -> bool {
        let is_http = data.first().copied().map(Protocol::of) == Some(Protocol::Http);
        let random = self.next_random();
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        if is_http && !connection.may_speak_http {
            self.refuse_http(index);
            return false;
        }
        connection.session = if is_http {
            Session::Http(Box::new(HttpSession::new(self.now)))
        } else {
            let config = self.settings.session_config(connection.id.to_string());
            // Its deadlines count from the accept.
            let session = ServerSession::new(config, random, connection.accepted_at);
            Session::Rtmp(Box::new(session))
        };
        true
    }

    /// No answer will carry the acknowledgement of a command soon: send it alone. Encoders and players
    /// that leave Nagle's algorithm on hold their next command back until it comes.
    fn acknowledge_command(&mut self, index: usize) {
        let Some(connection) = self.connections.get(index).and_then(Option::as_deref) else {
            return;
        };
        if connection.publishes.is_empty() && connection.plays.is_empty() {
            self.io.acknowledge_now(connection.conn);
        }
    }

    /// Goes on with input that had to wait.
    pub(super) fn resume_input(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        if connection.held_input.is_empty() || connection.is_waiting_for_answer() {
            return;
        }
        let held = std::mem::take(&mut connection.held_input);
        let mut input = held.as_slice();
        self.feed(index, &mut input);
        if !input.is_empty()
            && let Some(connection) = self.connection(index)
        {
            connection.held_input = input.to_vec();
        }
    }

    fn hold_input(&mut self, index: usize, data: &[u8]) {
        let held_input_bytes_max = self.settings.limits().held_input_bytes_max;
        let Some(connection) = self.connection(index) else { return };
        if connection.closing.is_some() {
            return;
        }
        if connection.held_input.len() + data.len() > held_input_bytes_max {
            self.note_limit(LimitReached::HeldInput);
            // It does not read, so there is nothing to say to it, and no reason to hear more of it.
            self.abandon(index, CloseReason::MemoryLimit);
            return;
        }
        connection.held_input.extend_from_slice(data);
    }

    /// Feeds the session until it wants no more. What it leaves in `input` waits for an answer or
    /// for room among the replies.
    fn feed(&mut self, index: usize, input: &mut &[u8]) {
        loop {
            let now = self.now;
            let Some(connection) = self.connection(index) else { return };
            if connection.closing.is_some() {
                *input = &[];
                return;
            }
            let session = match &mut connection.session {
                Session::Rtmp(session) => session,
                Session::Http(_) => return self.feed_http(index, input),
                Session::Unknown => return,
            };
            match session.handle_bytes(now, input) {
                Ok(Some(event)) => self.on_event(index, event),
                Ok(None) => {
                    self.update_state(index);
                    if self.is_command_flood(index) {
                        *input = &[];
                    }
                    return;
                }
                Err(error) => {
                    self.port.metrics().protocol_errors.increment(error.label());
                    if let Some(limit) = super::budget::limit_of(error.label()) {
                        self.note_limit(limit);
                    }
                    if self.error_lines.allow(now.0)
                        && let Some(connection) = self.connection(index)
                    {
                        tracing::warn!(
                            event = "protocol_error",
                            conn = %connection.id,
                            peer = %connection.peer,
                            class = error.label(),
                            error = %error,
                        );
                    }
                    *input = &[];
                    self.close(index, CloseReason::ProtocolError);
                    return;
                }
            }
        }
    }

    fn on_event(&mut self, index: usize, event: Event<'_>) {
        match event {
            Event::Media(part) => self.on_media(index, &part),
            Event::Data(data) => self.on_data(index, &data),
            Event::Connect(request) => self.on_connect(index, *request),
            Event::Publish(request) => self.on_publish(index, &request),
            Event::Play(request) => self.on_play(index, request.msid, &request.name),
            Event::MediaAborted { csid, msid, .. } => {
                let now = self.now;
                if let Some((_, publisher, arena)) = self.publisher_of(index, msid) {
                    publisher.writer.handle_abort(arena, csid, now);
                }
            }
            Event::ClearMetadata { msid } => {
                if let Some((_, publisher, arena)) = self.publisher_of(index, msid) {
                    publisher.writer.clear_metadata(arena);
                }
            }
            Event::Unpublish { msid } => self.unpublish(index, msid, PublishEnd::Clean),
            Event::StopPlay { msid } => self.stop_play(index, msid),
            Event::Pause { msid, paused, .. } => self.pause(index, msid, paused),
            Event::ReceiveAudio { msid, on } => {
                self.select(index, msid, |selection| selection.audio = on);
            }
            Event::ReceiveVideo { msid, on } => {
                self.select(index, msid, |selection| selection.video = on);
            }
            Event::Seek { .. } | Event::BufferLength { .. } | Event::Acknowledged { .. } => {}
        }
    }

    // Media: the hot path.

    fn on_media(&mut self, index: usize, part: &MediaPart<'_>) {
        let now = self.now;
        if !self.may_send(index, part) {
            return;
        }
        let Some((stream, publisher, arena)) = self.publisher_of(index, part.msid) else { return };
        publisher.heard_at = now;
        match publisher.writer.handle_media(arena, part, now) {
            Ok(Progress::Committed) => {
                self.messages += 1;
                self.mark_dirty(stream);
            }
            Ok(Progress::Partial | Progress::Dropped) => {}
            Err(_) => {
                self.note_limit(LimitReached::Reassembly);
                self.close(index, CloseReason::MemoryLimit);
            }
        }
    }

    /// Whether the publisher's ticket has the right for this kind of media.
    fn may_send(&self, index: usize, part: &MediaPart<'_>) -> bool {
        let Some(connection) = self.connections.get(index).and_then(Option::as_deref) else {
            return false;
        };
        let tracks = connection.publishes.iter().find(|p| p.msid == part.msid).map(|p| p.tracks);
        tracks.is_some_and(|tracks| match part.audio_or_video {
            rtmp::session::MediaKind::Audio => tracks.audio,
            rtmp::session::MediaKind::Video => tracks.video,
        })
    }

    fn on_data(&mut self, index: usize, data: &DataMessage<'_>) {
        let now = self.now;
        let Some((stream, publisher, arena)) = self.publisher_of(index, data.msid) else { return };
        publisher.writer.handle_data(arena, data.timestamp, &data.body, now);
        self.mark_dirty(stream);
        self.port.metrics().messages_in.of(MediaKind::Data).increment();
    }

    fn publisher_of(
        &mut self,
        index: usize,
        msid: u32,
    ) -> Option<(usize, &mut LocalPublisher, &mut ring::Arena)> {
        let connection = self.connections.get(index)?.as_deref()?;
        let publish = connection.publishes.iter().find(|publish| publish.msid == msid)?;
        let stream = self.streams.get_mut(publish.stream)?;
        Some((publish.stream, stream.publisher.as_mut()?, &mut self.arena))
    }

    pub(super) fn mark_dirty(&mut self, stream: usize) {
        if let Some(local) = self.streams.get_mut(stream)
            && !local.is_dirty
        {
            local.is_dirty = true;
            self.dirty.push(stream);
        }
    }

    // Commands.

    fn on_connect(&mut self, index: usize, request: ConnectRequest) {
        let Some(connection) = self.connection(index) else { return };
        if let Some(session) = connection.session.rtmp() {
            session.accept_connect();
        }
        tracing::info!(
            event = "connect",
            conn = %connection.id,
            peer = %connection.peer,
            app = %log::redact(&request.app),
            flash_ver = request.flash_ver.as_deref().unwrap_or(""),
            transport = connection.transport.text(),
            sni = connection.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
            caps_ex = request.caps_ex,
        );
        connection.connect = Some(Box::new(Introduction::from(request)));
    }

    /// Publishes under a permission.
    pub(super) fn publish_as(&mut self, index: usize, msid: u32, mut grant: Grant) {
        let vhost = self.settings.vhost(grant.path.vhost());
        let stream = match self.local_stream(&grant.path, FramingKind::Rtmp) {
            Ok(stream) => stream,
            Err(limit) => {
                let text = self.note_stream_limit(limit);
                self.refuse_publish(index, msid, PublishResult::Limit, text);
                return;
            }
        };
        if let Some(text) = self.lacks_room_to_publish(stream) {
            self.forget_stream_if_unneeded(stream);
            self.refuse_publish(index, msid, PublishResult::Limit, text);
            return;
        }
        let Some(id) = self.connection(index).map(|connection| connection.id) else { return };
        let Some(local) = self.streams.get(stream) else { return };
        let phase = local.entry.phase();
        if phase != StreamPhase::Live
            && let Some(denial) = grant.over_quota.take()
        {
            self.forget_stream_if_unneeded(stream);
            // It may only replace somebody who is live.
            self.refuse(index, AccessRole::Publish, msid, &denial);
            return;
        }
        let duplicate_publish = grant.duplicate_publish.unwrap_or(vhost.duplicate_publish);
        let claim = local.entry.claim(id, duplicate_publish);
        match claim {
            Claim::Granted(writer) => {
                let result = match phase {
                    StreamPhase::Grace => PublishResult::Resumed,
                    _ => PublishResult::Accepted,
                };
                self.begin_publish(index, (msid, grant), stream, writer, result);
            }
            Claim::Busy => {
                self.forget_stream_if_unneeded(stream);
                self.refuse_publish(index, msid, PublishResult::Busy, "somebody publishes already");
            }
            Claim::Retired => {
                self.forget_stream_if_unneeded(stream);
                self.publish_as(index, msid, grant);
            }
            Claim::Pending { owner } if owner == id => {
                local.entry.withdraw_claim(id);
                self.refuse_publish(index, msid, PublishResult::Busy, "you publish it already");
            }
            Claim::Pending { owner } => {
                if let Some(connection) = self.connection(index) {
                    let pending = PendingPublish { msid, stream, grant };
                    connection.pending_publish = Some(Box::new(pending));
                }
                if let Some(local) = self.streams.get_mut(stream) {
                    local.claims += 1;
                }
                self.claims.push(index);
                if owner.worker == self.index {
                    self.yield_stream(stream);
                    self.poll_claim(index);
                } else {
                    self.shared.ask_to_yield(usize::from(owner.worker));
                }
            }
        }
    }

    pub(super) fn refuse_publish(
        &mut self,
        index: usize,
        msid: u32,
        result: PublishResult,
        text: &str,
    ) {
        self.port.metrics().publishes.of(result).increment();
        let code = match result {
            PublishResult::Denied => PublishError::Denied,
            _ => PublishError::BadName,
        };
        let Some(connection) = self.connection(index) else { return };
        if let Some(session) = connection.session.rtmp() {
            session.reject_publish(msid, code, text);
        }
        connection.claim_role(Role::Publisher);
        tracing::info!(event = "publish_refused", conn = %connection.id, peer = %connection.peer,
            result = crate::metrics::Label::text(result), reason = log_text(text));
        self.close_unless_in_use(index);
    }

    pub(super) fn begin_publish(
        &mut self,
        index: usize,
        (msid, grant): (u32, Grant),
        stream: usize,
        writer: Option<Box<Publisher>>,
        result: PublishResult,
    ) {
        let now = self.now;
        let Some(local) = self.streams.get_mut(stream) else { return };
        let ring_config = self.settings.stream_ring_config(&local.vhost);
        let mut writer = writer.unwrap_or_else(|| {
            let (writer, _) = ring::stream_ring(ring_config);
            Box::new(Publisher::new(local.vhost.publisher, writer))
        });
        writer.begin_session(&mut self.arena, now);
        local.entry.begin(&writer);
        local.entry.count_publisher();
        self.shared.hls.on_publish(&local.entry, &local.vhost.hls);
        local.grace = None;
        let at_begin = *writer.counters();
        local.publisher = Some(LocalPublisher {
            conn: index,
            msid,
            writer,
            since: now,
            heard_at: now,
            at_begin,
            exported: at_begin,
        });
        let path = local.entry.path().clone();
        let metrics = self.port.metrics();
        metrics.publishes.of(result).increment();
        let (tracks, user) = (grant.tracks, grant.user.clone());
        let permit = self.permit(index, grant);
        if let Some(connection) = self.connection(index) {
            if let Some(session) = connection.session.rtmp() {
                session.accept_publish(msid);
            }
            connection.publishes.push(Publish { msid, stream, tracks, permit });
            connection.role = Role::Publisher;
            tracing::info!(event = "publish", conn = %connection.id, peer = %connection.peer,
                stream = %path, result = crate::metrics::Label::text(result),
                user = user.as_deref());
            connection.last_path = Some(path);
        }
        self.port.metrics().connections_total.of(Role::Publisher).increment();
        match result {
            PublishResult::Takeover => self.port.metrics().publish_takeovers.increment(),
            PublishResult::Resumed => {
                self.port.metrics().grace_ended.of(crate::metrics::GraceResult::Resumed).increment()
            }
            _ => {}
        }
        self.mark_dirty(stream);
        self.wake_tapped(stream);
    }

    /// Ends what a connection publishes on `msid`.
    pub(super) fn unpublish(&mut self, index: usize, msid: u32, how: PublishEnd) {
        let now = self.now;
        let Some(connection) = self.connection(index) else { return };
        let Some(at) = connection.publishes.iter().position(|publish| publish.msid == msid) else {
            return;
        };
        let stream = connection.publishes.swap_remove(at).stream;
        let id = connection.id;
        let Some(local) = self.streams.get_mut(stream) else { return };
        let Some(mut publisher) = local.publisher.take() else { return };
        local.entry.release_publisher();
        let grace_ms = local.vhost.grace_ms;
        let grace = match how {
            PublishEnd::Clean => false,
            PublishEnd::Lost => grace_ms > 0,
            PublishEnd::Takeover | PublishEnd::HandedOver => true,
        };
        publisher.writer.end_session(&mut self.arena, !grace);
        publisher.export(self.port.metrics());
        let writer = publisher.writer;
        let parked = local.entry.park(writer, grace);
        if grace || parked.is_claimed {
            let until = rtmp::Millis(now.0 + grace_ms);
            local.grace = Some(Grace { until, session: parked.session });
            self.port.metrics().grace_started.increment();
        }
        tracing::info!(event = "unpublish", conn = %id, stream = %local.entry.path(),
            how = match how {
                PublishEnd::Clean => "clean",
                PublishEnd::Lost => "lost",
                PublishEnd::Takeover => "takeover",
                PublishEnd::HandedOver => "handed_over",
            },
            published_ms = now.0 - publisher.since.0);
        self.mark_dirty(stream);
        self.wake_tapped(stream);
        if parked.is_claimed {
            self.shared.wake_all();
        }
    }

    // Playing.

    /// Plays under a permission.
    pub(super) fn play_as(&mut self, index: usize, msid: u32, grant: Grant) {
        let vhost = self.settings.vhost(grant.path.vhost());
        let framing = match self.connection(index).map(|connection| &connection.session) {
            Some(Session::Http(session)) => session.framing(),
            _ => FramingKind::Rtmp,
        };
        let stream = match self.local_stream(&grant.path, framing) {
            Ok(stream) => stream,
            Err(limit) => {
                let text = self.note_stream_limit(limit);
                self.refuse_play(index, msid, PlayResult::Limit, text);
                return;
            }
        };
        let is_waiting = self
            .streams
            .get(stream)
            .is_some_and(|local| local.entry.phase() == StreamPhase::Waiting);
        if is_waiting && vhost.wait_ms(framing) == 0 {
            self.forget_stream_if_unneeded(stream);
            let text = "nobody publishes this stream";
            self.refuse_play(index, msid, PlayResult::NotFound, text);
            return;
        }
        self.stop_play(index, msid);
        if framing != FramingKind::Rtmp {
            self.renew_date();
        }
        // The entry's own text: a copy for each player would stay for as long as it watches.
        let Some(path) = self.streams.get(stream).map(|local| local.entry.path().clone()) else {
            return;
        };
        if let Some(text) = self.lacks_room_to_play(stream) {
            self.forget_stream_if_unneeded(stream);
            self.refuse_play(index, msid, PlayResult::Limit, text);
            return;
        }
        let permit = self.permit(index, grant);
        self.begin_play(index, msid, stream, permit);
        let result = if is_waiting { PlayResult::Waiting } else { PlayResult::Accepted };
        self.port.metrics().plays.of(result).increment();
        self.port.metrics().connections_total.of(Role::Subscriber).increment();
        if let Some(connection) = self.connection(index) {
            connection.role = Role::Subscriber;
            tracing::info!(event = "play", conn = %connection.id, peer = %connection.peer,
                stream = %path, result = crate::metrics::Label::text(result),
                protocol = connection.session.protocol());
            connection.last_path = Some(path);
        }
        self.try_join(index, msid);
    }

    pub(super) fn refuse_play(&mut self, index: usize, msid: u32, result: PlayResult, text: &str) {
        self.port.metrics().plays.of(result).increment();
        if self.refuse_viewer(index, result, text) {
            return;
        }
        let code = match result {
            PlayResult::NotFound => PlayError::StreamNotFound,
            _ => PlayError::Failed,
        };
        let Some(connection) = self.connection(index) else { return };
        if let Some(session) = connection.session.rtmp() {
            session.reject_play(msid, code, text);
        }
        connection.claim_role(Role::Subscriber);
        tracing::info!(event = "play_refused", conn = %connection.id, peer = %connection.peer,
            result = crate::metrics::Label::text(result), reason = log_text(text));
        self.close_unless_in_use(index);
    }

    /// Tells a peer that what it plays will not come, although its request was accepted.
    pub(super) fn end_accepted_play(
        &mut self,
        index: usize,
        msid: u32,
        code: PlayError,
        text: &str,
    ) {
        self.port.metrics().plays.of(PlayResult::NotFound).increment();
        if self.refuse_viewer(index, PlayResult::NotFound, text) {
            return;
        }
        let Some(connection) = self.connection(index) else { return };
        connection.notify_status(msid, StatusLevel::Error, code.code(), text);
        tracing::info!(event = "play_refused", conn = %connection.id, peer = %connection.peer,
            result = "not_found", reason = text);
    }

    /// A refusal ends the connection, unless it has another stream in use.
    fn close_unless_in_use(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        if connection.publishes.is_empty() && connection.plays.is_empty() {
            self.close(index, CloseReason::Refused);
        }
    }

    // Local records of streams.

    /// This worker's record of a stream, made if need be.
    pub(super) fn local_stream(
        &mut self,
        path: &StreamPath,
        framing: FramingKind,
    ) -> Result<usize, StreamLimit> {
        if let Some(index) = self.present_stream(path, framing) {
            return Ok(index);
        }
        let vhost = self.settings.vhost(path.vhost());
        let total = self.settings.limits().streams_max;
        let max = StreamsMax { total, of_vhost: vhost.streams_max };
        let entry = self.shared.registry.hold(path, max)?;
        let index = self.streams.insert(LocalStream::new(entry, framing, vhost, self.now));
        self.by_path.insert((path.clone(), framing), index);
        self.link_framings(path);
        Ok(index)
    }

    /// The record for RTMP knows those of other framings, to serve them when there is news.
    fn link_framings(&mut self, path: &StreamPath) {
        let Some(&primary) = self.by_path.get(&(path.clone(), FramingKind::Rtmp)) else { return };
        let framed = FramingKind::SECONDARY
            .iter()
            .filter_map(|&framing| self.by_path.get(&(path.clone(), framing)).copied())
            .collect();
        if let Some(local) = self.streams.get_mut(primary) {
            local.framed = framed;
        }
    }

    /// Drops this worker's record of a stream if it has no more reason to keep it.
    pub(super) fn forget_stream_if_unneeded(&mut self, stream: usize) {
        if self.streams.get(stream).is_none_or(LocalStream::is_needed) {
            return;
        }
        let local = self.streams.remove(stream);
        let key = (local.entry.path().clone(), local.framing);
        self.unlisted.retain(|&index| index != stream);
        if self.by_path.get(&key) == Some(&stream) {
            // One that was passed on beside it is found from now on.
            let is_like_it = |index: &usize| {
                let other = self.streams.get(*index);
                other.is_some_and(|other| {
                    other.framing == key.1
                        && other.entry.path() == &key.0
                        && !other.entry.is_retired()
                })
            };
            match self.unlisted.iter().position(is_like_it) {
                Some(at) => self.by_path.insert(key, self.unlisted.swap_remove(at)),
                None => self.by_path.remove(&key),
            };
        }
        if local.framing != FramingKind::Rtmp {
            self.link_framings(local.entry.path());
        }
        self.dirty.retain(|&index| index != stream);
        self.passes.retain(|&index| index != stream);
        drop(local.tap);
        if let Some(publisher) = self.shared.registry.release(&local.entry) {
            publisher.finish(&mut self.arena);
        }
    }
}
