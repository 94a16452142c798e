//! The phases of a client session. Pure data; the tests walk every arrow and try every missing one.

use crate::session::state::NoArrow;

/// How far a client session is.
///
/// ```text
///   Handshake ─► Connecting ─► Creating ─► Requesting ─► Active ─► Closed
///        S2 read      _result       _result      onStatus      close
///      └──────────────┴─────────────┴────────────┴── close, refused, failed ──► Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientPhase {
    /// S0, S1 and S2 are being read.
    Handshake,
    /// `connect` is unanswered.
    Connecting,
    /// `createStream` is unanswered.
    Creating,
    /// `publish` or `play` is unanswered.
    Requesting { msid: u32 },
    /// Media flows.
    Active { msid: u32 },
    /// Only what is queued is still sent.
    Closed,
}

/// What can happen to a client session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientInput {
    /// The handshake is complete.
    HandshakeDone,
    /// `connect` was accepted.
    Connected,
    /// `createStream` was answered with this id.
    Created { msid: u32 },
    /// The stream starts.
    Started,
    /// Over, for whatever reason.
    Close,
}

impl ClientPhase {
    /// The next phase.
    pub(super) const fn step(self, input: ClientInput) -> Result<Self, NoArrow> {
        match (self, input) {
            (Self::Handshake, ClientInput::HandshakeDone) => Ok(Self::Connecting),
            (Self::Connecting, ClientInput::Connected) => Ok(Self::Creating),
            (Self::Creating, ClientInput::Created { msid }) => Ok(Self::Requesting { msid }),
            (Self::Requesting { msid }, ClientInput::Started) => Ok(Self::Active { msid }),
            (_, ClientInput::Close) => Ok(Self::Closed),
            _ => Err(NoArrow),
        }
    }

    /// The stream created for this session.
    pub(super) const fn msid(self) -> Option<u32> {
        match self {
            Self::Requesting { msid } | Self::Active { msid } => Some(msid),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are phases, columns are inputs, both in the order of their declaration.
    #[test]
    fn every_arrow_exists_and_no_other() {
        use ClientInput as I;
        use ClientPhase as P;
        let no = Err(NoArrow);
        let end = Ok(P::Closed);
        let requesting = P::Requesting { msid: 4 };
        let active = P::Active { msid: 4 };
        let inputs = [I::HandshakeDone, I::Connected, I::Created { msid: 4 }, I::Started, I::Close];
        let table = [
            (P::Handshake, [Ok(P::Connecting), no, no, no, end]),
            (P::Connecting, [no, Ok(P::Creating), no, no, end]),
            (P::Creating, [no, no, Ok(requesting), no, end]),
            (requesting, [no, no, no, Ok(active), end]),
            (active, [no, no, no, no, end]),
            (P::Closed, [no, no, no, no, end]),
        ];
        for (phase, row) in table {
            for (input, expected) in inputs.into_iter().zip(row) {
                assert_eq!(phase.step(input), expected, "{phase:?} on {input:?}");
            }
        }
    }
}
