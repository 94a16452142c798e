//! What can go wrong on a session by the peer's doing, and what is done about it.
//!
//! One enum; [`SessionError::disposition`] is the only place that says what the peer is told, whether the
//! connection ends and under which label it is counted. Our own mistakes are assertions, not errors.

use alloc::string::String;
use core::fmt;

use crate::command::CommandError;
use crate::error::{Place, ProtocolError};

/// A mistake of the peer. Each carries the byte offset since connect at which it was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// Handshake, chunk layer or control message.
    Protocol(ProtocolError),
    /// A command that lacks what it cannot do without.
    Command {
        /// What was expected.
        expected: &'static str,
        /// Bytes since connect.
        offset: u64,
    },
    /// A command message above `COMMAND_BYTES_MAX`.
    CommandTooLong {
        /// Announced length, bytes.
        length: u32,
        /// Bytes since connect.
        offset: u64,
    },
    /// A string of a command above `STRING_BYTES_MAX`.
    StringTooLong {
        /// Which string.
        field: &'static str,
        /// Bytes since connect.
        offset: u64,
    },
    /// More torn messages at once than `assembly_bytes_max`.
    AssemblyFull {
        /// Bytes since connect.
        offset: u64,
    },
    /// `createStream`, `publish` or `play` before `connect`.
    NotConnected {
        /// Bytes since connect.
        offset: u64,
    },
    /// `connect` on a session that is connected.
    SecondConnect {
        /// Bytes since connect.
        offset: u64,
    },
    /// `publish` on a stream that was never created.
    PublishOnUnknownStream {
        /// Stream named by the peer.
        msid: u32,
        /// Bytes since connect.
        offset: u64,
    },
    /// `play` on a stream that was never created.
    PlayOnUnknownStream {
        /// Stream named by the peer.
        msid: u32,
        /// Bytes since connect.
        offset: u64,
    },
    /// `publish` on a stream that is published or played already.
    PublishOnBusyStream {
        /// Stream named by the peer.
        msid: u32,
        /// Bytes since connect.
        offset: u64,
    },
    /// `play` on a stream that is being published.
    PlayOnBusyStream {
        /// Stream named by the peer.
        msid: u32,
        /// Bytes since connect.
        offset: u64,
    },
    /// `createStream` with `STREAMS_MAX` streams open.
    TooManyStreams {
        /// Bytes since connect.
        offset: u64,
    },
    /// A client session: the server answered with an error.
    Refused {
        /// `code` of the answer, cut to a bounded length.
        code: String,
        /// `description` of the answer, cut likewise.
        description: String,
        /// Bytes since connect.
        offset: u64,
    },
    /// The peer did not do in time what it had to.
    Timeout {
        /// What was awaited.
        waiting_for: WaitingFor,
        /// Bytes since connect.
        offset: u64,
    },
}

/// What a session was waiting for when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingFor {
    /// The end of the handshake.
    Handshake,
    /// The `connect` command.
    Connect,
    /// Any sign of life.
    Activity,
    /// A client session: the server's answer to connect, createStream, publish or play.
    Answer,
}

/// What the peer is told about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorReply {
    /// Nothing: the peer could not read it, or nothing fits.
    Silence,
    /// `_error` to the command's transaction with this code.
    Failure {
        /// Status code.
        code: &'static str,
        /// Text for people.
        description: &'static str,
    },
    /// onStatus of level error on the stream of the command.
    Status {
        /// Status code.
        code: &'static str,
        /// Text for people.
        description: &'static str,
    },
}

/// What is done about an error: one row of the table in [`SessionError::disposition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disposition {
    /// What the peer is told. Already queued when `handle_bytes` returns the error.
    pub reply: ErrorReply,
    /// Whether the connection ends once the reply is sent. If not, the session goes on and
    /// the error is only counted.
    pub close: bool,
    /// Metric label.
    pub label: &'static str,
}

impl SessionError {
    /// The whole policy on errors, in one place.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        use ErrorReply::{Failure, Silence, Status};
        let (reply, close, label) = match self {
            Self::Protocol(error) => (Silence, true, error.label()),
            Self::Command { .. } => (Silence, true, "command_malformed"),
            Self::CommandTooLong { .. } => (Silence, true, "command_too_long"),
            Self::StringTooLong { .. } => (
                Failure { code: "NetConnection.Call.Failed", description: "String too long." },
                true,
                "string_too_long",
            ),
            Self::AssemblyFull { .. } => (Silence, true, "assembly_full"),
            Self::NotConnected { .. } => (
                Failure { code: "NetConnection.Call.Failed", description: "Connect first." },
                true,
                "not_connected",
            ),
            Self::SecondConnect { .. } => (
                Failure {
                    code: "NetConnection.Connect.Rejected",
                    description: "Already connected.",
                },
                true,
                "second_connect",
            ),
            Self::PublishOnUnknownStream { .. } => (
                Status {
                    code: "NetStream.Publish.BadName",
                    description: "No such message stream.",
                },
                true,
                "publish_unknown_stream",
            ),
            Self::PlayOnUnknownStream { .. } => (
                Status { code: "NetStream.Play.Failed", description: "No such message stream." },
                true,
                "play_unknown_stream",
            ),
            Self::PublishOnBusyStream { .. } => (
                Status {
                    code: "NetStream.Publish.BadName",
                    description: "The message stream is in use.",
                },
                true,
                "publish_busy_stream",
            ),
            Self::PlayOnBusyStream { .. } => (
                Status {
                    code: "NetStream.Play.Failed",
                    description: "The message stream is in use.",
                },
                true,
                "play_busy_stream",
            ),
            Self::TooManyStreams { .. } => (
                Failure { code: "NetConnection.Call.Failed", description: "Too many streams." },
                false,
                "too_many_streams",
            ),
            Self::Refused { .. } => (Silence, true, "refused_by_server"),
            Self::Timeout { waiting_for, .. } => (Silence, true, waiting_for.label()),
        };
        Disposition { reply, close, label }
    }

    /// Label for metrics: one of a fixed, small set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.disposition().label
    }
}

impl WaitingFor {
    const fn label(self) -> &'static str {
        match self {
            Self::Handshake => "handshake_timeout",
            Self::Connect => "connect_timeout",
            Self::Activity => "idle_timeout",
            Self::Answer => "answer_timeout",
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => return error.fmt(f),
            Self::Command { expected, .. } => write!(f, "command: expected {expected}")?,
            Self::CommandTooLong { length, .. } => write!(f, "command of {length} bytes")?,
            Self::StringTooLong { field, .. } => write!(f, "command: {field} is too long")?,
            Self::AssemblyFull { .. } => f.write_str("too many unfinished messages")?,
            Self::NotConnected { .. } => f.write_str("command before connect")?,
            Self::SecondConnect { .. } => f.write_str("second connect")?,
            Self::PublishOnUnknownStream { msid, .. } => {
                write!(f, "publish on message stream {msid}, which was not created")?;
            }
            Self::PlayOnUnknownStream { msid, .. } => {
                write!(f, "play on message stream {msid}, which was not created")?;
            }
            Self::PublishOnBusyStream { msid, .. } => {
                write!(f, "publish on message stream {msid}, which is in use")?;
            }
            Self::PlayOnBusyStream { msid, .. } => {
                write!(f, "play on message stream {msid}, which is being published")?;
            }
            Self::TooManyStreams { .. } => f.write_str("too many message streams")?,
            Self::Refused { code, description, .. } => {
                write!(f, "refused by the server with {code}: {description}")?;
            }
            Self::Timeout { waiting_for, .. } => {
                write!(f, "timeout waiting for {}", waiting_for.noun())?;
            }
        }
        write!(f, " (byte {})", self.offset())
    }
}

impl WaitingFor {
    const fn noun(self) -> &'static str {
        match self {
            Self::Handshake => "the handshake",
            Self::Connect => "connect",
            Self::Activity => "any byte",
            Self::Answer => "the answer of the server",
        }
    }
}

impl SessionError {
    /// Bytes received since connect when the mistake was noticed.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::Protocol(error) => error.place().offset,
            Self::Command { offset, .. }
            | Self::CommandTooLong { offset, .. }
            | Self::StringTooLong { offset, .. }
            | Self::AssemblyFull { offset }
            | Self::NotConnected { offset }
            | Self::SecondConnect { offset }
            | Self::PublishOnUnknownStream { offset, .. }
            | Self::PlayOnUnknownStream { offset, .. }
            | Self::PublishOnBusyStream { offset, .. }
            | Self::PlayOnBusyStream { offset, .. }
            | Self::TooManyStreams { offset }
            | Self::Refused { offset, .. }
            | Self::Timeout { offset, .. } => *offset,
        }
    }

    /// A message that is not a command, complete at `offset`.
    pub(super) fn from_command(error: CommandError, offset: u64) -> Self {
        match error {
            CommandError::Unnamed => Self::Command { expected: "a name", offset },
            CommandError::Amf(error) => Self::Protocol(error.into_protocol(Place::at(offset))),
        }
    }

    /// The same error of the reading half, `bytes` later in the stream: those of the handshake.
    pub(super) fn shifted(self, bytes: u64) -> Self {
        match self {
            Self::Protocol(error) => Self::Protocol(error.shifted(bytes)),
            Self::CommandTooLong { length, offset } => {
                Self::CommandTooLong { length, offset: offset + bytes }
            }
            Self::AssemblyFull { offset } => Self::AssemblyFull { offset: offset + bytes },
            // The others are found by a session, which counts from the start.
            other => other,
        }
    }
}

impl core::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Protocol(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ProtocolError> for SessionError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}
