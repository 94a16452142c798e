//! What a completion says about itself: the kind of operation and whose it was, in the 64 bits the
//! kernel carries from submission to completion (io_uring) or registration to event (epoll).
//!
//! ```text
//!   63    60 59              32 31               0
//!   ┌───────┬──────────────────┬──────────────────┐
//!   │ kind  │ index            │ generation       │
//!   └───────┴──────────────────┴──────────────────┘
//! ```

/// Highest index a token can carry, plus one.
pub(crate) const INDEX_MAX: u32 = 1 << 28;

const KIND_SHIFT: u32 = 60;
const INDEX_SHIFT: u32 = 32;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Accept,
    CancelAccept,
    Connect,
    Receive,
    Send,
    Writable,
    /// Of one receive: a pause.
    CancelReceive,
    /// Of everything on a descriptor: a close.
    CancelAll,
    Wake,
}

const KINDS: [Kind; 9] = [
    Kind::Accept,
    Kind::CancelAccept,
    Kind::Connect,
    Kind::Receive,
    Kind::Send,
    Kind::Writable,
    Kind::CancelReceive,
    Kind::CancelAll,
    Kind::Wake,
];

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Token {
    pub(crate) fn new(kind: Kind, (index, generation): (u32, u32)) -> Token {
        debug_assert!(index < INDEX_MAX);
        Token { kind, index, generation }
    }

    pub(crate) fn pack(self) -> u64 {
        (self.kind as u64) << KIND_SHIFT
            | u64::from(self.index) << INDEX_SHIFT
            | u64::from(self.generation)
    }

    /// `None`: not a token of ours.
    pub(crate) fn unpack(bits: u64) -> Option<Token> {
        let kind = *KINDS.get(usize::try_from(bits >> KIND_SHIFT).ok()?)?;
        let index = u32::try_from(bits >> INDEX_SHIFT & u64::from(INDEX_MAX - 1)).ok()?;
        let generation = u32::try_from(bits & u64::from(u32::MAX)).ok()?;
        Some(Token { kind, index, generation })
    }

    pub(crate) fn name(self) -> (u32, u32) {
        (self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_way_through_the_kernel() {
        for (position, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(position, kind as usize);
            for name in [(0, 0), (INDEX_MAX - 1, u32::MAX), (7, 9)] {
                let token = Token::new(kind, name);
                assert_eq!(Token::unpack(token.pack()), Some(token));
            }
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
