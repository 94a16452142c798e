//! The server's end of one RTMP connection.
//!
//! Called by the connection of a worker only. `commands` acts on what the peer says, `answers` is what the
//! owner says; this file is the frame: phases, input order, time, and facts for logs.

mod answers;
mod commands;
mod data;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::acks::{AckWindow, low_32_bits};
use super::config::{REPLY_BURST_BYTES_MAX, SessionConfig};
use super::error::{ErrorReply, SessionError, WaitingFor};
use super::event::{Event, MediaPart, PlayRequest, StatusLevel};
use super::inbound::{Inbound, InboundLimits, Incoming, len_u32};
use super::outbound::Outbound;
use super::state::{Phase, PhaseInput, Streams};
use crate::Millis;
use crate::handshake::{self, HandshakeKind};
use crate::message::{Control, event};

/// The server's end of one RTMP connection. See the [module](super) for the contract.
///
/// A server holds one for every player, so what only the first second needs lives in `opening`.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Debug)]
pub struct ServerSession {
    phase: Phase,
    /// Gone once `connect` is accepted.
    #[cfg_attr(feature = "serde", serde(skip))]
    opening: Option<Box<Opening>>,
    handshake_bytes: u32,
    inbound: Inbound,
    streams: Streams,
    /// Stream whose `publish` or `play` waits for an answer.
    pending: Option<u32>,
    outbound: Outbound,
    acks: AckWindow,
    /// Window last told to the peer; 0 before.
    announced_window: u32,
    /// The Play after a StopPlay: two events of one command.
    #[cfg_attr(feature = "serde", serde(skip))]
    queued_play: Option<Box<PlayRequest>>,
    timers: Timers,
    peer: PeerInfo,
    counters: Counters,
}

/// What is needed until `connect` is accepted.
#[derive(Debug)]
struct Opening {
    config: SessionConfig,
    /// Present in `Phase::Handshake` only.
    handshake: Option<handshake::Server>,
    connect: ConnectFacts,
    /// When the present phase must have ended.
    deadline: Millis,
}

/// What a session counts itself; see [`SessionCounters`] for the meaning.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    messages_ignored: u32,
    /// Data messages among the skipped ones.
    data_skipped: u32,
    commands_unknown: u32,
    errors_survived: u32,
    /// Wraps; see [`ServerSession::commands_received`].
    commands: u32,
}

impl Counters {
    fn ignore_message(&mut self) {
        self.messages_ignored = self.messages_ignored.saturating_add(1);
    }
}

/// What has to be remembered of `connect` for its reply.
#[derive(Clone, Copy, Debug, Default)]
struct ConnectFacts {
    transaction: f64,
    object_encoding: u8,
    enhanced: bool,
}

/// All times are on the clock of the caller.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug)]
struct Timers {
    /// As configured.
    idle_ms_max: u32,
    ping_interval_ms: u32,
    last_activity: Millis,
    next_ping: Millis,
    /// When the unanswered ping request was sent.
    pinged_at: Option<Millis>,
}

/// Facts about the peer, for logs and statistics. What it said of itself is in its
/// [`ConnectRequest`](super::ConnectRequest), which the owner has.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerInfo {
    /// `capsEx` of connect; 0 before it.
    pub caps_ex: u32,
    /// How the handshake was done; `None` before it was.
    pub handshake: Option<HandshakeKind>,
    /// Round trip of the last answered ping, milliseconds; includes the peer's own delay.
    pub rtt_ms: Option<u64>,
    /// The last acknowledged byte count, modulo 2^32.
    pub acknowledged_bytes: Option<u32>,
}

/// What was tolerated or dropped on a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Audio, video and data messages for streams that are not being published.
    pub messages_ignored: u64,
    /// Messages of unknown kinds, and data messages that are too long or empty of meaning.
    pub messages_skipped: u64,
    /// Commands without a handler.
    pub commands_unknown: u64,
    /// Errors after which the session went on.
    pub errors_survived: u64,
    /// Notices of the owner that found no room in the reply space.
    pub notices_dropped: u64,
}

impl ServerSession {
    /// A session on which nothing has been received. `random` seeds the bytes of the handshake.
    #[must_use]
    pub fn new(config: SessionConfig, random: u64, now: Millis) -> Self {
        let limits = InboundLimits::new(config.data_bytes_max, config.assembly_bytes_max);
        Self {
            phase: Phase::Handshake,
            handshake_bytes: 0,
            inbound: Inbound::new(config.limits, limits),
            streams: Streams::default(),
            pending: None,
            outbound: Outbound::new(config.reply_bytes_max.max(4 * REPLY_BURST_BYTES_MAX)),
            acks: AckWindow::new(config.window_ack_bytes),
            announced_window: 0,
            queued_play: None,
            timers: Timers {
                idle_ms_max: clamp_u32(config.idle_ms_max),
                ping_interval_ms: clamp_u32(config.ping_interval_ms),
                last_activity: now,
                next_ping: after(now, config.ping_interval_ms),
                pinged_at: None,
            },
            peer: PeerInfo::default(),
            counters: Counters::default(),
            opening: Some(Box::new(Opening {
                handshake: Some(handshake::Server::new(random)),
                connect: ConnectFacts::default(),
                deadline: after(now, config.handshake_ms_max),
                config,
            })),
        }
    }

    /// Takes bytes from the front of `input` until there is an event.
    ///
    /// `None` means: the input is used up, or a request is unanswered, or the replies must be taken first
    /// (see the [module](super)). Consumed bytes are never needed again, unconsumed ones must be
    /// offered again.
    ///
    /// # Errors
    /// The peer's mistake. What it is to be told is already queued; take the replies, send them, close.
    pub fn handle_bytes<'b>(
        &mut self,
        now: Millis,
        input: &mut &'b [u8],
    ) -> Result<Option<Event<'b>>, SessionError> {
        if !input.is_empty() {
            self.timers.last_activity = now;
        }
        loop {
            if let Some(request) = self.queued_play.take() {
                return Ok(Some(Event::Play(request)));
            }
            if self.phase == Phase::Closing {
                *input = &[];
                return Ok(None);
            }
            if self.outbound.room() < REPLY_BURST_BYTES_MAX || self.is_waiting_for_owner() {
                return Ok(None);
            }
            if self.phase == Phase::Handshake {
                if !self.handle_handshake(now, input)? {
                    return Ok(None);
                }
                continue;
            }
            let incoming = match self.inbound.next(input) {
                Ok(incoming) => incoming,
                Err(error) => return Err(self.fail(self.shifted(error), 0.0, 0)),
            };
            if let Some(received) = self.acks.due(self.bytes_in()) {
                self.outbound.control(Control::Ack(received));
            }
            let Some(incoming) = incoming else { return Ok(None) };
            if let Some(event) = self.on_incoming(now, incoming)? {
                return Ok(Some(event));
            }
        }
    }

    /// True while the session can go on in another process from its serialized form: connected, and no
    /// request unanswered. What it then lacks is nothing that lasts.
    #[must_use]
    pub fn is_portable(&self) -> bool {
        self.phase == Phase::Connected
            && self.opening.is_none()
            && self.pending.is_none()
            && self.queued_play.is_none()
            && self.inbound.is_sound()
    }

    fn is_waiting_for_owner(&self) -> bool {
        self.phase == Phase::ConnectPending || self.pending.is_some()
    }

    /// True when the handshake is complete.
    fn handle_handshake(&mut self, now: Millis, input: &mut &[u8]) -> Result<bool, SessionError> {
        let Some(opening) = &mut self.opening else { return Ok(true) };
        let Some(handshake) = &mut opening.handshake else { return Ok(true) };
        let before = input.len();
        let result = handshake.handle_bytes(input, self.outbound.raw());
        self.handshake_bytes += len_u32(before - input.len());
        match result {
            Ok(false) => Ok(false),
            Ok(true) => {
                self.peer.handshake = handshake.kind();
                opening.handshake = None;
                opening.deadline = after(now, opening.config.connect_ms_max);
                self.step_phase(PhaseInput::HandshakeDone);
                Ok(true)
            }
            Err(error) => Err(self.fail(SessionError::Protocol(error), 0.0, 0)),
        }
    }

    fn on_incoming<'b>(
        &mut self,
        now: Millis,
        incoming: Incoming<'b>,
    ) -> Result<Option<Event<'b>>, SessionError> {
        if !matches!(incoming, Incoming::Media(_)) {
            self.counters.commands = self.counters.commands.wrapping_add(1);
        }
        match incoming {
            Incoming::Media(part) => Ok(self.on_media(part)),
            Incoming::MediaAborted { csid, msid, kind } => {
                let msid = self.streams.resolve(msid).filter(|id| self.streams.is_publishing(*id));
                Ok(msid.map(|msid| Event::MediaAborted { csid, msid, kind }))
            }
            Incoming::Data { msid, timestamp, body } => Ok(self.on_data(msid, timestamp, body)),
            Incoming::Command { msid, body } => self.on_command(now, msid, &body),
            Incoming::Control(control) => Ok(self.on_control(now, control)),
        }
    }

    fn on_media<'b>(&mut self, part: MediaPart<'b>) -> Option<Event<'b>> {
        match self.streams.resolve(part.msid) {
            Some(msid) if self.streams.is_publishing(msid) => {
                Some(Event::Media(MediaPart { msid, ..part }))
            }
            _ => {
                if part.first {
                    self.counters.ignore_message();
                }
                None
            }
        }
    }

    fn on_control(&mut self, now: Millis, control: Control) -> Option<Event<'static>> {
        match control {
            Control::Ack(bytes) => {
                self.peer.acknowledged_bytes = Some(bytes);
                return Some(Event::Acknowledged { bytes });
            }
            Control::WindowAckSize(bytes) => self.acks.set_window(bytes),
            Control::User { event, data, more } => match event {
                event::SET_BUFFER_LENGTH => {
                    return Some(Event::BufferLength { msid: data, ms: more });
                }
                event::PING_REQUEST => self.outbound.pong(data),
                event::PING_RESPONSE => self.on_pong(now, data),
                // 26, 31, 32 and others that players send unasked.
                _ => {}
            },
            Control::SetPeerBandwidth { window, .. } => self.announce_window(window),
            _ => {}
        }
        None
    }

    /// How much may be outstanding is left to the kernel, but the peer is told its own number back, once
    /// per value, as the specification asks.
    fn announce_window(&mut self, window: u32) {
        if self.announced_window != window {
            self.announced_window = window;
            self.outbound.control(Control::WindowAckSize(window));
        }
    }

    fn on_pong(&mut self, now: Millis, timestamp: u32) {
        if let Some(sent_at) = self.timers.pinged_at
            && ping_timestamp(sent_at) == timestamp
        {
            self.timers.pinged_at = None;
            self.peer.rtt_ms = Some(now.0.saturating_sub(sent_at.0));
        }
    }

    /// Does what an error asks for: reply, count, close. Hands the error back.
    fn fail(&mut self, error: SessionError, transaction: f64, msid: u32) -> SessionError {
        let disposition = error.disposition();
        match disposition.reply {
            ErrorReply::Silence => {}
            ErrorReply::Failure { code, description } => {
                self.reply_failure(transaction, code, description);
            }
            ErrorReply::Status { code, description } => {
                self.outbound.status(msid, StatusLevel::Error, code, description);
            }
        }
        if disposition.close {
            self.step_phase(PhaseInput::Fail);
            self.pending = None;
        } else {
            self.counters.errors_survived = self.counters.errors_survived.saturating_add(1);
        }
        error
    }

    fn step_phase(&mut self, input: PhaseInput) {
        let next = self.phase.step(input);
        debug_assert!(next.is_ok(), "{:?} has no arrow for {input:?}", self.phase);
        self.phase = next.unwrap_or(Phase::Closing);
    }

    /// The chunk reader counts from the end of the handshake.
    fn shifted(&self, error: SessionError) -> SessionError {
        error.shifted(u64::from(self.handshake_bytes))
    }

    /// Tells that time has passed. Call at or after [`poll_timeout`](Self::poll_timeout).
    ///
    /// # Errors
    /// [`SessionError::Timeout`]: send the replies, close.
    pub fn handle_timeout(&mut self, now: Millis) -> Result<(), SessionError> {
        let waiting_for = match self.phase {
            Phase::Handshake if self.is_opening_late(now) => Some(WaitingFor::Handshake),
            Phase::AwaitingConnect if self.is_opening_late(now) => Some(WaitingFor::Connect),
            Phase::Connected if self.pending.is_none() && now >= self.idle_deadline() => {
                Some(WaitingFor::Activity)
            }
            _ => None,
        };
        if let Some(waiting_for) = waiting_for {
            let error = SessionError::Timeout { waiting_for, offset: self.bytes_in() };
            return Err(self.fail(error, 0.0, 0));
        }
        if self.is_waiting_for_owner() {
            // The silence is ours: bytes of the peer may lie unconsumed.
            self.timers.last_activity = now;
        }
        if self.pings() && now >= self.timers.next_ping {
            self.ping(now);
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None` while only the
    /// owner or nobody is awaited.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        match self.phase {
            Phase::Handshake | Phase::AwaitingConnect => self.opening.as_ref().map(|o| o.deadline),
            Phase::Connected if self.pings() => {
                Some(self.idle_deadline().min(self.timers.next_ping))
            }
            Phase::Connected => Some(self.idle_deadline()),
            Phase::ConnectPending | Phase::Closing => None,
        }
    }

    /// Tells that the peer took bytes from us: a sign of life of players that never send anything.
    pub fn note_send_progress(&mut self, now: Millis) {
        self.timers.last_activity = self.timers.last_activity.max(now);
    }

    fn is_opening_late(&self, now: Millis) -> bool {
        self.opening.as_ref().is_some_and(|opening| now >= opening.deadline)
    }

    fn pings(&self) -> bool {
        self.phase == Phase::Connected && self.timers.ping_interval_ms > 0
    }

    fn idle_deadline(&self) -> Millis {
        after(self.timers.last_activity, u64::from(self.timers.idle_ms_max))
    }

    /// Moves what is to be sent to the end of `out`, and makes room for further replies.
    pub fn take_replies(&mut self, out: &mut Vec<u8>) {
        self.outbound.take(out);
    }

    /// Whether there is something to send.
    #[must_use]
    pub fn has_replies(&self) -> bool {
        !self.outbound.is_empty()
    }

    /// The connection is to be closed as soon as the replies are sent.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// `connect` was accepted, and the session is not closing.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// The stream is being published.
    #[must_use]
    pub fn is_publishing(&self, msid: u32) -> bool {
        self.streams.is_publishing(msid)
    }

    /// The stream is being played.
    #[must_use]
    pub fn is_playing(&self, msid: u32) -> bool {
        self.streams.is_playing(msid)
    }

    /// Message streams that are open.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Facts about the peer.
    #[must_use]
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// Bytes consumed since connect, handshake included.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        u64::from(self.handshake_bytes) + self.inbound.bytes_consumed()
    }

    /// Memory held for torn messages and replies, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.inbound.held_bytes() + self.outbound.held_bytes()
    }

    /// What was tolerated or dropped so far.
    #[must_use]
    pub fn counters(&self) -> SessionCounters {
        SessionCounters {
            messages_ignored: self.counters.messages_ignored.into(),
            messages_skipped: self.inbound.skipped_messages()
                + u64::from(self.counters.data_skipped),
            commands_unknown: self.counters.commands_unknown.into(),
            errors_survived: self.counters.errors_survived.into(),
            notices_dropped: self.outbound.dropped(),
        }
    }

    /// Everything received that is not media: commands, control and data messages, so that who owns
    /// the session can bound their rate. Wraps at 2^32.
    #[must_use]
    pub fn commands_received(&self) -> u32 {
        self.counters.commands
    }

    /// The chunk size announced by the peer, and ours. Bytes.
    #[must_use]
    pub fn chunk_sizes(&self) -> (u32, u32) {
        (self.inbound.chunk_bytes(), self.outbound.framing().chunk_bytes)
    }
}

/// Times of more than 49 days are as good as none.
fn clamp_u32(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

fn after(now: Millis, delay_ms: u64) -> Millis {
    Millis(now.0.saturating_add(delay_ms))
}

/// The time that goes into a ping: only its equality with the answer counts.
fn ping_timestamp(now: Millis) -> u32 {
    low_32_bits(now.0)
}
