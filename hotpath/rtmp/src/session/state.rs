//! The two state machines of a server session: the connection's phase and each message stream's role.
//!
//! Pure data: no bytes, no replies. An input that a state has no arrow for is refused by type, never
//! ignored by accident; the tests walk every arrow and try every missing one.

use alloc::string::String;
use alloc::vec::Vec;

use super::config::STREAMS_MAX;

/// How far the connection is.
///
/// ```text
///   Handshake ──C2 read──► AwaitingConnect ──connect──► ConnectPending ──accept──► Connected
///       │                        │                           │ reject, fail            │
///       └──── fail ──────────────┴──── fail ────────────► Closing ◄──── fail ──────────┘
/// ```
///
/// `fail` stands for an error that closes, a time-out and the owner's refusal of a stream. Closing has
/// no way out: what the peer still sends is thrown away while the last replies are flushed.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// C0, C1 and C2 are being read.
    Handshake,
    /// Chunks are being read, `connect` has not come.
    AwaitingConnect,
    /// `connect` waits for the owner's answer.
    ConnectPending,
    /// Streams may be created.
    Connected,
    /// Only the replies queued so far are still sent.
    Closing,
}

/// What can happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PhaseInput {
    /// C2 was read.
    HandshakeDone,
    /// `connect` came.
    Connect,
    /// The owner accepted it.
    Accept,
    /// The owner refused it.
    Reject,
    /// The connection is to end.
    Fail,
}

impl Phase {
    /// The next phase.
    pub(super) const fn step(self, input: PhaseInput) -> Result<Self, NoArrow> {
        match (self, input) {
            (Self::Handshake, PhaseInput::HandshakeDone) => Ok(Self::AwaitingConnect),
            (Self::AwaitingConnect, PhaseInput::Connect) => Ok(Self::ConnectPending),
            (Self::ConnectPending, PhaseInput::Accept) => Ok(Self::Connected),
            (Self::ConnectPending, PhaseInput::Reject) | (_, PhaseInput::Fail) => Ok(Self::Closing),
            _ => Err(NoArrow),
        }
    }
}

/// What one message stream is used for.
///
/// ```text
///                publish                  accept                 end
///        ┌────► ──────────► PublishPending ─────► Publishing ──────────┐
///        │                    │ reject, end                            │
///      Idle ◄─────────────────┴──────────────────────────────◄─────────┤
///        │                    ┌ reject, end                            │
///        └────► ──────────► PlayPending ────────► Playing ─────────────┘
///                play                     accept  │     ▲         end
///                                                 └play─┘ (to PlayPending: replaces what is played)
/// ```
///
/// `end` stands for closeStream, deleteStream, FCUnpublish and the owner's own decision.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StreamState {
    /// Created, no role.
    Idle,
    /// `publish` waits for the owner's answer.
    PublishPending {
        /// Name as requested, to match FCUnpublish.
        name: String,
    },
    /// Media is taken in.
    Publishing {
        /// Name as requested.
        name: String,
    },
    /// `play` waits for the owner's answer.
    PlayPending {
        /// Whether Play.Reset belongs to the reply.
        reset: bool,
    },
    /// Media goes out.
    Playing,
}

/// What can happen to a message stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StreamInput {
    /// The peer wants to publish.
    Publish { name: String },
    /// The peer wants to play.
    Play { reset: bool },
    /// The owner accepted the pending request.
    Accept,
    /// The owner refused the pending request.
    Reject,
    /// The role ends.
    End,
}

/// The role that a transition brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedRole {
    Publishing,
    Playing,
}

/// The state has no arrow for the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoArrow;

impl StreamState {
    /// The next state, and the role that ended on the way.
    pub(super) fn step(self, input: StreamInput) -> Result<(Self, Option<EndedRole>), NoArrow> {
        match self {
            Self::Idle => Self::step_idle(input),
            Self::PublishPending { name } => match input {
                StreamInput::Accept => Ok((Self::Publishing { name }, None)),
                StreamInput::Reject | StreamInput::End => Ok((Self::Idle, None)),
                StreamInput::Publish { .. } | StreamInput::Play { .. } => Err(NoArrow),
            },
            Self::PlayPending { .. } => match input {
                StreamInput::Accept => Ok((Self::Playing, None)),
                StreamInput::Reject | StreamInput::End => Ok((Self::Idle, None)),
                StreamInput::Publish { .. } | StreamInput::Play { .. } => Err(NoArrow),
            },
            Self::Publishing { .. } => match input {
                StreamInput::End => Ok((Self::Idle, Some(EndedRole::Publishing))),
                _ => Err(NoArrow),
            },
            Self::Playing => match input {
                StreamInput::End => Ok((Self::Idle, Some(EndedRole::Playing))),
                StreamInput::Play { reset } => {
                    Ok((Self::PlayPending { reset }, Some(EndedRole::Playing)))
                }
                _ => Err(NoArrow),
            },
        }
    }

    fn step_idle(input: StreamInput) -> Result<(Self, Option<EndedRole>), NoArrow> {
        match input {
            StreamInput::Publish { name } => Ok((Self::PublishPending { name }, None)),
            StreamInput::Play { reset } => Ok((Self::PlayPending { reset }, None)),
            StreamInput::End => Ok((Self::Idle, None)),
            StreamInput::Accept | StreamInput::Reject => Err(NoArrow),
        }
    }
}

/// The message streams of one connection: at most `STREAMS_MAX`, ids from 1, lowest free id first.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    slots: Vec<(u32, StreamState)>,
    /// Published stream that message stream 0 means; `None` while nothing is published.
    zero: Option<u32>,
}

impl Streams {
    /// Opens a stream; `None` when `STREAMS_MAX` are open.
    ///
    /// A freed id is given out again: a subscriber that closes its stream and creates another is
    /// back on id 1, the one whose wire image is shared.
    pub(super) fn create(&mut self) -> Option<u32> {
        if self.slots.len() >= STREAMS_MAX {
            return None;
        }
        let msid = (1..).find(|id| self.state(*id).is_none())?;
        // Nearly everybody opens one.
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(self.slots.len().max(1));
        }
        self.slots.push((msid, StreamState::Idle));
        Some(msid)
    }

    /// Removes a stream and says which role it had.
    pub(super) fn delete(&mut self, msid: u32) -> Option<EndedRole> {
        let ended = self.step(msid, StreamInput::End).ok().flatten();
        self.slots.retain(|(id, _)| *id != msid);
        ended
    }

    pub(super) fn state(&self, msid: u32) -> Option<&StreamState> {
        self.slots.iter().find(|(id, _)| *id == msid).map(|(_, state)| state)
    }

    /// Moves a stream along an arrow. Without an arrow, or without such a stream, nothing changes.
    pub(super) fn step(
        &mut self,
        msid: u32,
        input: StreamInput,
    ) -> Result<Option<EndedRole>, NoArrow> {
        let Some((_, slot)) = self.slots.iter_mut().find(|(id, _)| *id == msid) else {
            return Err(NoArrow);
        };
        let (next, ended) = slot.clone().step(input)?;
        *slot = next;
        self.settle_zero();
        Ok(ended)
    }

    /// The stream that a message for `msid` means: itself when it exists. An encoder that sends everything
    /// on message stream 0 means the stream it published first, or the only one before it publishes.
    pub(super) fn resolve(&self, msid: u32) -> Option<u32> {
        if self.state(msid).is_some() {
            return Some(msid);
        }
        match self.slots.as_slice() {
            _ if msid != 0 => None,
            _ if self.zero.is_some() => self.zero,
            [(only, _)] => Some(*only),
            _ => None,
        }
    }

    /// Whether message stream 0 means this published stream.
    pub(super) fn is_zero(&self, msid: u32) -> bool {
        self.zero == Some(msid)
    }

    /// Keeps what message stream 0 means until that stream ends: a message never changes its stream.
    fn settle_zero(&mut self) {
        if !self.zero.is_some_and(|msid| self.is_publishing(msid)) {
            let published = self.slots.iter().map(|(id, _)| *id);
            self.zero = published.into_iter().find(|id| self.is_publishing(*id));
        }
    }

    pub(super) fn is_publishing(&self, msid: u32) -> bool {
        matches!(self.state(msid), Some(StreamState::Publishing { .. }))
    }

    pub(super) fn is_playing(&self, msid: u32) -> bool {
        matches!(self.state(msid), Some(StreamState::Playing))
    }

    /// The published stream that a name means: the one of that name, else the only one there is.
    pub(super) fn published_as(&self, wanted: &str) -> Option<u32> {
        let mut published = self.slots.iter().filter_map(|(id, state)| match state {
            StreamState::Publishing { name } => Some((*id, name.as_str())),
            _ => None,
        });
        let first = published.next()?;
        match published.next() {
            None => Some(first.0),
            Some(second) => core::iter::once(first)
                .chain(core::iter::once(second))
                .chain(published)
                .find(|(_, name)| *name == wanted)
                .map(|(id, _)| id),
        }
    }

    /// Whether any stream is published or played.
    pub(super) fn has_role(&self) -> bool {
        self.slots.iter().any(|(_, state)| {
            matches!(state, StreamState::Publishing { .. } | StreamState::Playing)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn states() -> Vec<StreamState> {
        vec![
            StreamState::Idle,
            StreamState::PublishPending { name: "a".into() },
            StreamState::Publishing { name: "a".into() },
            StreamState::PlayPending { reset: true },
            StreamState::Playing,
        ]
    }

    fn inputs() -> Vec<StreamInput> {
        vec![
            StreamInput::Publish { name: "b".into() },
            StreamInput::Play { reset: false },
            StreamInput::Accept,
            StreamInput::Reject,
            StreamInput::End,
        ]
    }

    /// Rows are phases, columns are inputs, both in the order of their declaration.
    #[test]
    fn every_phase_arrow_exists_and_no_other() {
        use Phase as P;
        use PhaseInput as I;
        let no = Err(NoArrow);
        let end = Ok(P::Closing);
        let table = [
            (P::Handshake, [Ok(P::AwaitingConnect), no, no, no, end]),
            (P::AwaitingConnect, [no, Ok(P::ConnectPending), no, no, end]),
            (P::ConnectPending, [no, no, Ok(P::Connected), end, end]),
            (P::Connected, [no, no, no, no, end]),
            (P::Closing, [no, no, no, no, end]),
        ];
        let inputs = [I::HandshakeDone, I::Connect, I::Accept, I::Reject, I::Fail];
        for (phase, row) in table {
            for (input, expected) in inputs.into_iter().zip(row) {
                assert_eq!(phase.step(input), expected, "{phase:?} on {input:?}");
            }
        }
    }

    /// Rows are states, columns are inputs, in the order of the functions above.
    #[test]
    fn every_arrow_exists_and_no_other() {
        use StreamState as S;
        let pending = S::PlayPending { reset: false };
        let publish_pending = S::PublishPending { name: "b".into() };
        let publishing = S::Publishing { name: "a".into() };
        let ended_playing = Some(EndedRole::Playing);
        let ended_publishing = Some(EndedRole::Publishing);
        #[rustfmt::skip]
        let table = [
            [
                    Ok((publish_pending, None)),
                    Ok((pending.clone(), None)),
                    Err(NoArrow),
                    Err(NoArrow),
                    Ok((S::Idle, None)),
                ],
            [Err(NoArrow), Err(NoArrow), Ok((publishing, None)), Ok((S::Idle, None)), Ok((S::Idle, None))],
            [Err(NoArrow), Err(NoArrow), Err(NoArrow), Err(NoArrow), Ok((S::Idle, ended_publishing))],
            [Err(NoArrow), Err(NoArrow), Ok((S::Playing, None)), Ok((S::Idle, None)), Ok((S::Idle, None))],
            [
                    Err(NoArrow),
                    Ok((pending, ended_playing)),
                    Err(NoArrow),
                    Err(NoArrow),
                    Ok((S::Idle, ended_playing)),
                ],
        ];
        for (state, row) in states().into_iter().zip(table) {
            for (input, expected) in inputs().into_iter().zip(row) {
                let found = state.clone().step(input.clone());
                assert_eq!(found, expected, "{state:?} on {input:?}");
            }
        }
    }

    #[test]
    fn a_missing_arrow_leaves_the_stream_as_it_was() {
        let mut streams = Streams::default();
        let msid = streams.create().unwrap();
        assert_eq!(streams.step(msid, StreamInput::Accept), Err(NoArrow));
        assert_eq!(streams.state(msid), Some(&StreamState::Idle));
        assert_eq!(streams.step(9, StreamInput::End), Err(NoArrow));
    }

    #[test]
    fn ids_start_at_one_and_the_lowest_free_one_comes_first() {
        let mut streams = Streams::default();
        assert_eq!(
            (streams.create(), streams.create(), streams.create()),
            (Some(1), Some(2), Some(3))
        );
        streams.delete(2);
        assert_eq!(streams.create(), Some(2));
        streams.delete(1);
        assert_eq!(streams.create(), Some(1));
    }

    #[test]
    fn a_stream_above_the_limit_is_refused_until_one_is_deleted() {
        let mut streams = Streams::default();
        for _ in 0..STREAMS_MAX {
            assert!(streams.create().is_some());
        }
        assert_eq!(streams.create(), None);
        streams.delete(7);
        assert_eq!(streams.create(), Some(7));
    }

    #[test]
    fn message_stream_zero_means_the_only_stream_or_the_one_published_first() {
        let mut streams = Streams::default();
        assert_eq!(streams.resolve(0), None);
        streams.create();
        assert_eq!(streams.resolve(0), Some(1));
        assert_eq!(streams.resolve(1), Some(1));
        assert_eq!(streams.resolve(2), None);
        streams.create();
        assert_eq!(streams.resolve(0), None);
        for msid in [2, 1] {
            streams.step(msid, StreamInput::Publish { name: "a".into() }).unwrap();
            streams.step(msid, StreamInput::Accept).unwrap();
            assert_eq!(streams.resolve(0), Some(2));
        }
        streams.delete(2);
        assert_eq!(streams.resolve(0), Some(1));
        streams.step(1, StreamInput::End).unwrap();
        streams.create();
        assert_eq!(streams.resolve(0), None);
    }

    #[test]
    fn a_published_stream_is_found_by_name_or_by_being_alone() {
        let mut streams = Streams::default();
        for name in ["a", "b"] {
            let msid = streams.create().unwrap();
            streams.step(msid, StreamInput::Publish { name: name.into() }).unwrap();
            streams.step(msid, StreamInput::Accept).unwrap();
        }
        assert_eq!(streams.published_as("b"), Some(2));
        assert_eq!(streams.published_as("c"), None);
        streams.delete(1);
        assert_eq!(streams.published_as("c"), Some(2));
        streams.delete(2);
        assert_eq!(streams.published_as("b"), None);
    }
}
