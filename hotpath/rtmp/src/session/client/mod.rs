//! The client's end of one RTMP connection: for relays, tools and load generators.
//!
//! Goes by itself through handshake, connect, createStream and publish or play; the owner reads
//! events and writes
//! media. The contract is that of the [module](super): feed, drain, wait. Nothing waits for the
//! owner here, so
//! `handle_bytes` returns `None` with input left only while commands must be taken first.
//!
//! ```text
//!   publish: connect ─► releaseStream, FCPublish, createStream ─► publish ─► media … close
//!   play:    connect ─► createStream ─► play, SetBufferLength ─► media … close
//! ```

mod config;
mod requests;
mod responses;
mod state;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use config::{ClientConfig, ClientEvent, ClientRole, ServerInfo, Status};
use state::{ClientInput, ClientPhase};

use super::acks::AckWindow;
use super::config::REPLY_BURST_BYTES_MAX;
use super::error::{SessionError, WaitingFor};
use super::event::DataMessage;
use super::inbound::{Inbound, InboundLimits, Incoming};
use super::outbound::Outbound;
use crate::Millis;
use crate::chunk::Framing;
use crate::handshake;
use crate::message::{Control, event};

/// The client's end of one RTMP connection.
#[derive(Debug)]
pub struct ClientSession {
    config: Arc<ClientConfig>,
    phase: ClientPhase,
    /// Present in `ClientPhase::Handshake` only.
    handshake: Option<Box<handshake::Client>>,
    handshake_bytes: u64,
    inbound: Inbound,
    outbound: Outbound,
    acks: AckWindow,
    /// Window last told to the server, so that it is not told again.
    announced_window: u32,
    last_activity: Millis,
}

impl ClientSession {
    /// A session whose first bytes (C0, C1) can be taken at once. `random` seeds the handshake.
    #[must_use]
    pub fn new(config: impl Into<Arc<ClientConfig>>, random: u64, now: Millis) -> Self {
        let config = config.into();
        let limits = InboundLimits::new(config.data_bytes_max, config.assembly_bytes_max);
        let mut outbound = Outbound::new(config.reply_bytes_max.max(4 * REPLY_BURST_BYTES_MAX));
        let handshake = handshake::Client::new(config.handshake, random, outbound.raw());
        Self {
            phase: ClientPhase::Handshake,
            handshake: Some(Box::new(handshake)),
            handshake_bytes: 0,
            inbound: Inbound::new(config.limits, limits),
            outbound,
            acks: AckWindow::new(config.window_ack_bytes),
            announced_window: 0,
            last_activity: now,
            config,
        }
    }

    /// Takes bytes from the front of `input` until there is an event.
    ///
    /// # Errors
    /// The server's mistake, or its refusal ([`SessionError::Refused`]). The session is closed then.
    pub fn handle_bytes<'b>(
        &mut self,
        now: Millis,
        input: &mut &'b [u8],
    ) -> Result<Option<ClientEvent<'b>>, SessionError> {
        if !input.is_empty() {
            self.last_activity = now;
        }
        loop {
            if self.phase == ClientPhase::Closed {
                *input = &[];
                return Ok(None);
            }
            if self.outbound.room() < REPLY_BURST_BYTES_MAX {
                return Ok(None);
            }
            if self.phase == ClientPhase::Handshake {
                if !self.handle_handshake(input)? {
                    return Ok(None);
                }
                continue;
            }
            let incoming = match self.inbound.next(input) {
                Ok(incoming) => incoming,
                Err(error) => return Err(self.fail(error.shifted(self.handshake_bytes))),
            };
            if let Some(received) = self.acks.due(self.bytes_in()) {
                self.outbound.control(Control::Ack(received));
            }
            let Some(incoming) = incoming else { return Ok(None) };
            match self.on_incoming(incoming) {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    /// True when the handshake is complete.
    fn handle_handshake(&mut self, input: &mut &[u8]) -> Result<bool, SessionError> {
        let Some(handshake) = &mut self.handshake else { return Ok(true) };
        let before = input.len();
        let result = handshake.handle_bytes(input, self.outbound.raw());
        self.handshake_bytes += (before - input.len()) as u64;
        match result {
            Ok(false) => Ok(false),
            Ok(true) => {
                self.handshake = None;
                self.step(ClientInput::HandshakeDone);
                self.request_connect();
                Ok(true)
            }
            Err(error) => Err(self.fail(SessionError::Protocol(error))),
        }
    }

    fn on_incoming<'b>(
        &mut self,
        incoming: Incoming<'b>,
    ) -> Result<Option<ClientEvent<'b>>, SessionError> {
        Ok(match incoming {
            Incoming::Media(part) => Some(ClientEvent::Media(part)),
            Incoming::MediaAborted { csid, msid, kind } => {
                Some(ClientEvent::MediaAborted { csid, msid, kind })
            }
            Incoming::Data { msid, timestamp, body } => {
                Some(ClientEvent::Data(DataMessage { msid, timestamp, body }))
            }
            Incoming::Control(control) => self.on_control(control),
            Incoming::Command { msid, body } => return self.on_command(msid, &body),
        })
    }

    fn on_control(&mut self, control: Control) -> Option<ClientEvent<'static>> {
        match control {
            Control::Ack(bytes) => return Some(ClientEvent::Acknowledged { bytes }),
            Control::WindowAckSize(bytes) => self.acks.set_window(bytes),
            Control::SetPeerBandwidth { window, .. } => self.announce_window(window),
            Control::User { event, data: msid, .. } => match event {
                event::STREAM_BEGIN => return Some(ClientEvent::StreamBegin { msid }),
                event::STREAM_EOF => return Some(ClientEvent::StreamEof { msid }),
                event::STREAM_DRY => return Some(ClientEvent::StreamDry { msid }),
                event::PING_REQUEST => self.outbound.pong(msid),
                _ => {}
            },
            _ => {}
        }
        None
    }

    /// Tells the server which window we count by, once per value.
    fn announce_window(&mut self, window: u32) {
        if self.announced_window != window {
            self.announced_window = window;
            self.outbound.control(Control::WindowAckSize(window));
        }
    }

    fn fail(&mut self, error: SessionError) -> SessionError {
        self.step(ClientInput::Close);
        error
    }

    fn step(&mut self, input: ClientInput) {
        let next = self.phase.step(input);
        debug_assert!(next.is_ok(), "{:?} has no arrow for {input:?}", self.phase);
        self.phase = next.unwrap_or(ClientPhase::Closed);
    }

    /// Tells that time has passed. Call at or after [`poll_timeout`](Self::poll_timeout).
    ///
    /// # Errors
    /// [`SessionError::Timeout`]: the server is silent for too long. The session is closed then.
    pub fn handle_timeout(&mut self, now: Millis) -> Result<(), SessionError> {
        let Some(deadline) = self.poll_timeout() else { return Ok(()) };
        if now < deadline {
            return Ok(());
        }
        let waiting_for = match self.phase {
            ClientPhase::Handshake => WaitingFor::Handshake,
            ClientPhase::Active { .. } => WaitingFor::Activity,
            _ => WaitingFor::Answer,
        };
        Err(self.fail(SessionError::Timeout { waiting_for, offset: self.bytes_in() }))
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        let wait_ms = match (self.phase, self.config.role) {
            (ClientPhase::Closed, _) => return None,
            // A server has nothing to say to a publisher but acknowledgements.
            (ClientPhase::Active { .. }, ClientRole::Publish) => return None,
            (ClientPhase::Active { .. }, ClientRole::Play) => match self.config.idle_ms_max {
                0 => return None,
                idle_ms_max => idle_ms_max,
            },
            _ => self.config.answer_ms_max,
        };
        Some(Millis(self.last_activity.0.saturating_add(wait_ms)))
    }

    /// Moves what is to be sent to the end of `out`. Take before each [`write_media`](Self::write_media)
    /// into the same buffer: order matters.
    pub fn take_replies(&mut self, out: &mut Vec<u8>) {
        self.outbound.take(out);
    }

    /// Whether there is something to send besides media.
    #[must_use]
    pub fn has_replies(&self) -> bool {
        !self.outbound.is_empty()
    }

    /// The stream is published or played.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.phase, ClientPhase::Active { .. })
    }

    /// Over: closed by the owner, refused, or failed. Send what is queued, then close the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == ClientPhase::Closed
    }

    /// The message stream created by the server, once it is.
    #[must_use]
    pub fn msid(&self) -> Option<u32> {
        self.phase.msid()
    }

    /// How outgoing messages are cut into chunks at present.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.outbound.framing()
    }

    /// Bytes consumed since connect, handshake included.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.handshake_bytes + self.inbound.bytes_consumed()
    }

    /// Memory held for torn messages and commands, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.inbound.held_bytes() + self.outbound.held_bytes()
    }
}
