//! Asks a domain's providers, in their order.
//!
//! ```text
//!   address lists          any of them denies ──────────────────────────► Deny
//!   require = "any"        first provider that recognises the request ──► its verdict
//!                          none does ───────────────────────────────────► Deny: what the first one misses
//!   require = "all"        first provider that does not pass ───────────► its verdict
//!                          all pass ────────────────────────────────────► Pass
//! ```
//!
//! A domain without any provider but address lists is open to those the lists let through.

use super::domain::Domain;
use super::providers::{Pass, Presented, Provider};
use super::spec::Require;
use super::{Denial, Question};

/// What a hook allows at most. Absent means it sets no limit.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Bits per second a publisher may send.
    pub bitrate_bps_max: Option<u64>,
    /// Seconds the permission lasts.
    pub lifetime_s_max: Option<u64>,
}

/// What the providers say together.
#[derive(Debug)]
pub enum Verdict {
    /// Yes.
    Pass(Pass),
    /// No.
    Deny(Denial),
    /// The hook is to be asked; what the providers before it said is kept.
    Ask(Pass),
}

/// One step of a domain's list.
#[derive(Debug)]
pub enum Check {
    /// A provider that answers by itself.
    Local(Provider),
    /// The hook of the domain.
    Hook,
}

/// What the domain's providers say.
pub fn run(domain: &Domain, question: &Question<'_>) -> Verdict {
    let presented = Presented::of(question);
    for gate in &domain.gates {
        if let Err(denial) = gate.check(&presented) {
            return Verdict::Deny(denial);
        }
    }
    match domain.require {
        Require::Any => any(&domain.checks, &presented),
        Require::All => all(&domain.checks, &presented),
    }
}

fn any(checks: &[Check], presented: &Presented<'_>) -> Verdict {
    for check in checks {
        match check {
            Check::Hook => return Verdict::Ask(Pass::default()),
            Check::Local(provider) if provider.recognises(presented) => {
                return provider.check(presented).map_or_else(Verdict::Deny, Verdict::Pass);
            }
            Check::Local(_) => {}
        }
    }
    // Nobody recognised it: the first says what it misses. Should that provider let it pass without any
    // parameter of its own, that is its decision.
    match checks.first() {
        Some(Check::Local(provider)) => {
            provider.check(presented).map_or_else(Verdict::Deny, Verdict::Pass)
        }
        Some(Check::Hook) | None => Verdict::Pass(Pass::default()),
    }
}

fn all(checks: &[Check], presented: &Presented<'_>) -> Verdict {
    let mut pass = Pass::default();
    for check in checks {
        match check {
            // It stands last.
            Check::Hook => return Verdict::Ask(pass),
            Check::Local(provider) => match provider.check(presented) {
                Err(denial) => return Verdict::Deny(denial),
                Ok(more) => pass = both(pass, more),
            },
        }
    }
    Verdict::Pass(pass)
}

/// What two proofs allow together.
fn both(one: Pass, other: Pass) -> Pass {
    let mut pass = one;
    pass.tracks.audio &= other.tracks.audio;
    pass.tracks.video &= other.tracks.video;
    pass.user = pass.user.or(other.user);
    pass
}
