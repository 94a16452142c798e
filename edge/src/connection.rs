//! One connection: its socket, its session (RTMP or HTTP), what it publishes and plays, and what it has
//! to send. Plain state; the worker moves it.
//!
//! ```text
//!   accepted ─► first byte ─┬─► RTMP (handshake, connect, commands) ─┬─► publishes ─┐
//!        │                  │                                        └─► plays ─────┤
//!        │                  └─► HTTP (requests, one after another) ────► plays ─────┤
//!        │ protocol error, refusal, kick, timeout, end of stream                    │
//!        └──────────────► closing: replies flushed ─► shutdown ─► closed ◄── peer gone ┘
//! ```

use std::net::SocketAddr;

use live::subscriber::Subscriber;
use ring::Position;
use rtmp::Millis;
use rtmp::session::{ServerSession, StatusLevel};
use uring::{ConnId, Nanos, SendBuf};

use crate::access::providers::Tracks;
use crate::access::quota::BitrateMeter;
use crate::access::{Grant, Introduction, Role as AccessRole};
use crate::command::ConnectionId;
use crate::http::HttpSession;
use crate::metrics::{CloseReason, ConnectionState, Role, TlsMode};
use crate::transport::Transport;

/// Time to flush the last replies of a closing connection, in milliseconds.
pub(crate) const CLOSE_FLUSH_MS_MAX: u64 = 5_000;
/// Time a closed connection waits for its peer's end, so that the last bytes are not lost to a
/// reset, in milliseconds.
pub(crate) const CLOSE_LINGER_MS_MAX: u64 = 1_000;

/// Counts commands in whole seconds of the worker's clock.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct CommandRate {
    second: u32,
    /// The count at the begin of the second, and at the last look.
    before: u32,
    last: u32,
}

impl CommandRate {
    /// Whether a count that stands at `commands` (and may wrap) has grown by more than `max` in the present
    /// second.
    pub(crate) fn is_over(&mut self, now: Millis, commands: u32, max: u32) -> bool {
        // Seconds of a process fit; where they do not, a second is counted into another one.
        #[allow(clippy::cast_possible_truncation)]
        let second = (now.0 / 1_000) as u32;
        if second != self.second {
            self.second = second;
            self.before = self.last;
        }
        self.last = commands;
        commands.wrapping_sub(self.before) > max
    }
}

/// Index of a stream in the worker's table.
pub(crate) type StreamIndex = usize;

/// A stream the connection publishes.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) msid: u32,
    pub(crate) stream: StreamIndex,
    /// Kinds of media its ticket allows.
    pub(crate) tracks: Tracks,
    pub(crate) permit: Option<Box<Permit>>,
}

/// A permission that binds something, kept as long as it is used: dropping it gives its place in the
/// quotas back.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(crate) grant: Grant,
    pub(crate) bitrate: Option<BitrateMeter>,
    pub(crate) until: Option<Millis>,
}

/// A request that waits for the control thread's answer.
#[derive(Copy, Clone, Debug)]
pub(crate) struct PendingAccess {
    pub(crate) ticket: u64,
    pub(crate) role: AccessRole,
    pub(crate) msid: u32,
    pub(crate) since: Millis,
}

/// A publish request that waits for another worker's publisher to yield.
#[derive(Debug)]
pub(crate) struct PendingPublish {
    pub(crate) msid: u32,
    pub(crate) stream: StreamIndex,
    pub(crate) grant: Grant,
}

/// A stream the connection plays.
#[derive(Debug)]
pub(crate) struct Play {
    /// Tells plays apart that follow each other on one message stream.
    pub(crate) serial: u64,
    pub(crate) msid: u32,
    pub(crate) stream: StreamIndex,
    /// Place in the stream's list of players.
    pub(crate) slot: usize,
    pub(crate) subscriber: Subscriber,
    /// When the play command came; taken when the first media byte was sent.
    pub(crate) asked_at: Option<Nanos>,
    /// Since when it waits for a publisher.
    pub(crate) waiting_since: Millis,
    /// It has been given a place in the present life of the stream.
    pub(crate) has_joined: bool,
    /// The stream has ended: tell the peer once this position is sent.
    pub(crate) ends_at: Option<Position>,
    /// Preamble version the peer has been told by a join.
    pub(crate) preamble_version: u64,
    pub(crate) permit: Option<Box<Permit>>,
}

/// What a connection speaks. Made when its first application byte has come, so that a probe or a TLS
/// handshake that is left costs no session.
#[derive(Debug)]
pub(crate) enum Session {
    /// Nothing was said yet.
    Unknown,
    /// RTMP, as publisher or player.
    Rtmp(Box<ServerSession>),
    /// HTTP, as viewer.
    Http(Box<HttpSession>),
}

impl Session {
    /// The RTMP session, if it is one.
    pub(crate) fn rtmp(&mut self) -> Option<&mut ServerSession> {
        match self {
            Self::Rtmp(session) => Some(session),
            Self::Unknown | Self::Http(_) => None,
        }
    }

    /// The HTTP session, if it is one.
    pub(crate) fn http(&mut self) -> Option<&mut HttpSession> {
        match self {
            Self::Http(session) => Some(session),
            Self::Unknown | Self::Rtmp(_) => None,
        }
    }

    /// True if something is to be sent before media.
    pub(crate) fn has_replies(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Rtmp(session) => session.has_replies(),
            Self::Http(session) => session.has_replies(),
        }
    }

    /// Moves what is to be sent before media to the end of `out`.
    pub(crate) fn take_replies(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Unknown => {}
            Self::Rtmp(session) => session.take_replies(out),
            Self::Http(session) => session.take_replies(out),
        }
    }

    /// As in logs and in the API.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Rtmp(_) => "rtmp",
            Self::Http(session) => session.protocol(),
        }
    }

    /// The peer took something, or showed that it can.
    pub(crate) fn note_send_progress(&mut self, now: Millis) {
        match self {
            Self::Unknown => {}
            Self::Rtmp(session) => session.note_send_progress(now),
            Self::Http(session) => session.note_progress(now),
        }
    }
}

/// What the send in flight carries.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Nothing is in flight.
    Nothing,
    /// Replies or copied messages; the rest of a short send comes back.
    Owned,
    /// The body of a response, many viewers' alike.
    Body,
    /// A range of the ring, for the play with this serial number.
    Shared { play: u64 },
    /// TLS bytes that carry nothing of the above, or the end of what did.
    Sealed,
}

/// Plaintext whose records are on their way.
#[derive(Debug)]
pub(crate) struct Sealing {
    pub(crate) buf: SendBuf<ring::Lease>,
    /// How much of it was sealed.
    pub(crate) bytes: usize,
}

/// The sending side.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) sending: Sending,
    /// The socket is full until `Writable` comes.
    pub(crate) blocked: bool,
    /// The kernel was told to take large bodies at once.
    pub(crate) is_bulk: bool,
    /// It is in the worker's queue of connections that catch up.
    pub(crate) is_queued: bool,
    /// Unsent rest of an owned buffer.
    pub(crate) rest: Option<Vec<u8>>,
    /// What the send in flight was sealed from.
    pub(crate) sealing: Option<Sealing>,
    /// TLS bytes to be sent before anything else.
    pub(crate) sealed_rest: Option<Vec<u8>>,
    /// `close_notify` was sent, or need not be.
    pub(crate) is_goodbye_said: bool,
}

/// A connection on its way out.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Closing {
    pub(crate) reason: CloseReason,
    pub(crate) deadline: Millis,
    /// Our end is shut down; only the peer's end is awaited.
    pub(crate) shut_down: bool,
}

/// One connection of a worker.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) conn: ConnId,
    pub(crate) id: ConnectionId,
    /// The client: the other end of the socket, or whom a trusted proxy speaks for.
    pub(crate) peer: SocketAddr,
    /// The proxy, if there is one.
    pub(crate) proxy: Option<Box<SocketAddr>>,
    /// Counted for its address.
    pub(crate) is_admitted: bool,
    pub(crate) transport: Transport,
    /// Receiving rests after each read until the transport is open.
    pub(crate) is_read_by_record: bool,
    /// What the TLS handshake settled.
    pub(crate) tls: Option<Box<tls::Facts>>,
    /// The gauge cell of its transport.
    pub(crate) tls_mode: Option<TlsMode>,
    /// It came in where viewers' HTTP is served.
    pub(crate) may_speak_http: bool,
    pub(crate) accepted_at: Millis,
    pub(crate) session: Session,
    pub(crate) connect: Option<Box<Introduction>>,
    pub(crate) output: Output,
    /// Input that could not be consumed yet.
    pub(crate) held_input: Vec<u8>,
    pub(crate) publishes: Vec<Publish>,
    /// Boxed, as all that is rare and large: most connections play.
    pub(crate) pending_publish: Option<Box<PendingPublish>>,
    pub(crate) pending_access: Option<PendingAccess>,
    pub(crate) plays: Vec<Play>,
    /// Serial number of the last play.
    pub(crate) play_serial: u64,
    pub(crate) closing: Option<Closing>,
    pub(crate) receive_ended: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) skips: u64,
    /// Requests and frames of a viewer over HTTP; an RTMP session counts its own.
    pub(crate) requests: u32,
    pub(crate) command_rate: CommandRate,
    /// The gauge cell this connection is counted in.
    pub(crate) counted: (Role, ConnectionState),
    /// It once had this role; kept for the closing log line and metrics.
    pub(crate) role: Role,
    /// Path of the last stream it published or played, for the closing log line.
    pub(crate) last_path: Option<live::path::StreamPath>,
}

impl Connection {
    pub(crate) fn new(
        conn: ConnId,
        id: ConnectionId,
        peer: SocketAddr,
        transport: Transport,
        now: Millis,
    ) -> Self {
        Self {
            conn,
            id,
            peer,
            proxy: None,
            is_admitted: true,
            transport,
            is_read_by_record: false,
            tls: None,
            tls_mode: None,
            may_speak_http: false,
            accepted_at: now,
            session: Session::Unknown,
            connect: None,
            output: Output {
                sending: Sending::Nothing,
                blocked: false,
                is_bulk: false,
                is_queued: false,
                rest: None,
                sealing: None,
                sealed_rest: None,
                is_goodbye_said: false,
            },
            held_input: Vec::new(),
            publishes: Vec::new(),
            pending_publish: None,
            pending_access: None,
            plays: Vec::new(),
            play_serial: 0,
            closing: None,
            receive_ended: false,
            bytes_in: 0,
            bytes_out: 0,
            skips: 0,
            requests: 0,
            command_rate: CommandRate::default(),
            counted: (Role::Undecided, ConnectionState::Handshake),
            role: Role::Undecided,
            last_path: None,
        }
    }

    /// True while nothing may be handed to the socket.
    pub(crate) fn is_output_busy(&self) -> bool {
        self.output.sending != Sending::Nothing || self.output.blocked
    }

    /// True while the session waits for an answer that comes in a later turn.
    pub(crate) fn is_waiting_for_answer(&self) -> bool {
        let is_responding = match &self.session {
            Session::Http(session) => session.is_responding(),
            Session::Unknown | Session::Rtmp(_) => false,
        };
        is_responding || self.pending_publish.is_some() || self.pending_access.is_some()
    }

    /// Says on the wire what happens to a stream, where RTMP has a message for it.
    pub(crate) fn notify_status(&mut self, msid: u32, level: StatusLevel, code: &str, text: &str) {
        if let Some(session) = self.session.rtmp() {
            session.notify_status(msid, level, code, text);
        }
    }

    /// What it plays on a message stream.
    pub(crate) fn play(&self, msid: u32) -> Option<&Play> {
        self.plays.iter().find(|play| play.msid == msid)
    }

    /// What it plays on a message stream, to be changed.
    pub(crate) fn play_mut(&mut self, msid: u32) -> Option<&mut Play> {
        self.plays.iter_mut().find(|play| play.msid == msid)
    }

    /// Takes on a role unless it has one already: a refused second stream changes nothing.
    pub(crate) fn claim_role(&mut self, role: Role) {
        if self.publishes.is_empty() && self.plays.is_empty() {
            self.role = role;
        }
    }

    /// The role and state this connection is to be counted under.
    pub(crate) fn state(&self) -> (Role, ConnectionState) {
        let state = if self.closing.is_some() {
            ConnectionState::Closing
        } else if self.plays.iter().any(|play| !play.subscriber.is_waiting())
            || !self.publishes.is_empty()
        {
            ConnectionState::Live
        } else if !self.plays.is_empty() || self.pending_publish.is_some() {
            ConnectionState::Waiting
        } else if self.connect.is_some() || matches!(self.session, Session::Http(_)) {
            ConnectionState::Command
        } else {
            ConnectionState::Handshake
        };
        (self.role, state)
    }
}
