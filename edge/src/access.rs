//! Who may publish and play: one question with one shape, asked for every publish and play.
//!
//! The one provider so far is `open`: a vhost allows or forbids each role as a whole. Signed
//! addresses, tickets and hooks will be further providers behind the same question.

use live::path::Resolved;

use crate::worker::VhostRules;

/// What the peer wants to do.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Publish a stream.
    Publish,
    /// Play a stream.
    Play,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Go ahead.
    Allow,
    /// Refused, with the text for the wire and the log.
    Deny(String),
}

/// Answers on the worker, at once.
pub(crate) fn decide(vhost: &VhostRules, role: Role, resolved: &Resolved) -> Decision {
    let (allowed, verb) = match role {
        Role::Publish => (vhost.may_publish, "publishing"),
        Role::Play => (vhost.may_play, "playing"),
    };
    if allowed {
        Decision::Allow
    } else {
        Decision::Deny(format!("{verb} is not allowed on {}", resolved.path.vhost()))
    }
}
