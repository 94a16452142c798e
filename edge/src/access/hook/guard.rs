//! What stands before a hook: answers kept for a while, and the breaker that leaves a failing hook alone.
//!
//! Pure; the time is an argument. The cache holds no parameter of a peer: its keys are digests.
//!
//! ```text
//!             failure, fewer than N in a row          N in a row
//!   Closed ──────────────────────────────► Closed ─────────────────► Open
//!     ▲  success                                                      │ after breaker_open_ms
//!     └───────────────── Trying: one question goes through ◄──────────┘
//!                            └── failure ──► Open
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{HookAnswer, HookQuestion};

/// Answers kept at one time. Cost: a few hundred bytes each.
pub const CACHED_MAX: usize = 10_000;

/// A question as the cache knows it.
pub type QuestionDigest = [u8; 32];

/// Digest of everything an answer may depend on.
pub fn digest(question: &HookQuestion, url: &str) -> QuestionDigest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let peer = question.peer.to_string();
    let parts = [
        url,
        question.role.text(),
        &question.domain.name,
        &question.app,
        &question.stream,
        question.query.expose(),
        &peer,
    ];
    for part in parts {
        // Lengths first, so that no two questions run into one text.
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Answers kept for as long as the hook said.
#[derive(Debug, Default)]
pub struct Cache {
    answers: HashMap<QuestionDigest, (HookAnswer, Instant)>,
}

impl Cache {
    /// A kept answer that is not too old.
    pub fn find(&mut self, question: &QuestionDigest, now: Instant) -> Option<HookAnswer> {
        let (answer, until) = self.answers.get(question)?;
        if *until <= now {
            self.answers.remove(question);
            return None;
        }
        Some(answer.clone())
    }

    /// Keeps an answer for `ttl`. When there is no room, and nothing has run out, it is not kept.
    pub fn keep(
        &mut self,
        question: QuestionDigest,
        answer: &HookAnswer,
        ttl: Duration,
        now: Instant,
    ) {
        if ttl.is_zero() {
            return;
        }
        if self.answers.len() >= CACHED_MAX {
            self.answers.retain(|_, (_, until)| *until > now);
        }
        if self.answers.len() < CACHED_MAX {
            self.answers.insert(question, (answer.clone(), now + ttl));
        }
    }
}

/// What became of a breaker.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Turned {
    /// It is as it was.
    No,
    /// The hook is left alone now.
    Opened,
    /// The hook answers again.
    Closed,
}

/// Counts the failures of one hook.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
    /// One question is under way to see whether the hook answers again.
    is_trying: bool,
}

impl Breaker {
    /// Whether a question may go to the hook now.
    pub fn admit(&mut self, now: Instant) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now < until || self.is_trying => false,
            Some(_) => {
                self.is_trying = true;
                true
            }
        }
    }

    /// The hook has answered.
    pub fn succeeded(&mut self) -> Turned {
        let was_open = self.open_until.is_some();
        *self = Self::default();
        if was_open { Turned::Closed } else { Turned::No }
    }

    /// The hook has not answered, after all tries.
    pub fn failed(&mut self, failures_max: u32, open: Duration, now: Instant) -> Turned {
        self.failures = self.failures.saturating_add(1);
        let was_open = self.open_until.is_some();
        // Questions sent before it opened may fail afterwards: they change nothing.
        if was_open && !self.is_trying {
            return Turned::No;
        }
        if self.is_trying || self.failures >= failures_max {
            self.is_trying = false;
            self.open_until = Some(now + open);
        }
        if self.open_until.is_some() && !was_open { Turned::Opened } else { Turned::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(10);

    #[test]
    fn a_breaker_opens_after_its_failures_lets_one_try_and_closes_on_success() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.failed(2, OPEN, start), Turned::No);
        assert!(breaker.admit(start));
        assert_eq!(breaker.failed(2, OPEN, start), Turned::Opened);
        assert!(!breaker.admit(start + OPEN / 2));
        assert_eq!(breaker.failed(2, OPEN, start + OPEN / 2), Turned::No, "sent before");
        assert!(breaker.admit(start + OPEN), "one tries");
        assert!(!breaker.admit(start + OPEN), "only one");
        assert_eq!(breaker.failed(2, OPEN, start + OPEN), Turned::No, "stays open");
        assert!(!breaker.admit(start + OPEN + OPEN / 2));
        assert!(breaker.admit(start + OPEN + OPEN));
        assert_eq!(breaker.succeeded(), Turned::Closed);
        assert!(breaker.admit(start) && breaker == Breaker::default());
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.failed(2, OPEN, now);
        assert_eq!(breaker.succeeded(), Turned::No);
        assert_eq!(breaker.failed(2, OPEN, now), Turned::No);
    }

    #[test]
    fn answers_are_kept_as_long_as_they_may_and_never_more_than_there_is_room_for() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let (second, answer) = (Duration::from_secs(1), HookAnswer::default());
        cache.keep([1; 32], &answer, Duration::ZERO, now);
        assert_eq!(cache.find(&[1; 32], now), None);
        cache.keep([1; 32], &answer, second, now);
        assert_eq!(cache.find(&[1; 32], now), Some(answer.clone()));
        assert_eq!(cache.find(&[1; 32], now + second), None);
        for n in 0..CACHED_MAX + 5 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(n as u64).to_le_bytes());
            cache.keep(key, &answer, second, now);
        }
        assert_eq!(cache.answers.len(), CACHED_MAX);
        cache.keep([9; 32], &answer, second, now + second);
        assert_eq!(cache.answers.len(), 1, "what had run out made room");
    }
}
