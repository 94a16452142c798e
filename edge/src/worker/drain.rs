//! The way out in order: who is asked to come again elsewhere, who is told that it ends, and when.
//!
//! ```text
//!   nothing in use ─► closed at once; a request without its answer, whole or not ─► 503, closed
//!   an answer under way ─► sent to its end, or to the deadline
//!   player, viewer ─ its turn, in the first half ─► a keyframe has just come ─┬─ asked to reconnect ─┐
//!                                                                             │   left ◄─ or ─► told ◄┘
//!                                                                             └─ told, closed
//!   publisher ─ nobody watches, or half of the time is over ─► asked to reconnect ─► left, or the deadline
//! ```
//!
//! Turns are spread so that players do not all knock at the next server in the same moment; a keyframe that
//! has just come is where they will begin there, so little is seen twice. Viewers over HTTP have their turns
//! like players; none of them can be asked to reconnect, so they are told (close 1001, the last chunk).
//! Publishers of watched streams are last.

use std::collections::HashMap;

use ring::Position;
use rtmp::Millis;
use uring::Io;

use super::Worker;
use crate::command::Event;
use crate::connection::{Connection, Session};
use crate::http::Answer;
use crate::metrics::{CloseReason, Role};
use crate::registry::StreamPhase;

/// The turns of players lie within this time at most, in milliseconds, and within half of the drain time.
const SPREAD_MS_MAX: u64 = 3_000;
/// How long a player whose turn has come waits for a keyframe, in milliseconds.
const KEYFRAME_MS_MAX: u64 = 2_000;
/// How long a player that was asked to reconnect has to leave by itself, in milliseconds.
const RECONNECT_MS_MAX: u64 = 2_000;
/// What peers are told.
const GOING_AWAY: &str = "this server is going away";

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    began: Millis,
    until: Millis,
    /// When a connection was asked to reconnect, or found not to understand that.
    asked: HashMap<u64, Millis>,
    /// Newest keyframe of each watched stream at the last look.
    joins: HashMap<usize, Option<Position>>,
}

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// Accepts nothing more; ends what is not in use, and the rest in turn.
    pub(super) fn begin_drain(&mut self, deadline_ms: u64) {
        let (began, until) = (self.now, Millis(self.now.0 + deadline_ms));
        self.drain = Some(Drain { began, until, asked: HashMap::new(), joins: HashMap::new() });
        self.close_listeners();
        for index in 0..self.connections.len() {
            let Some(connection) = self.connection(index) else { continue };
            let is_rtmp = matches!(connection.session, Session::Rtmp(_));
            if is_rtmp && connection.role != Role::Undecided && connection.closing.is_none() {
                continue;
            }
            if let Some(session) = connection.session.http() {
                if session.finish_answer() || session.is_watching() {
                    continue;
                }
                session.go_away();
                if session.is_unanswered() {
                    let mut answer = Answer::text(503, GOING_AWAY);
                    if !session.is_asked() {
                        // Of a request that is not whole it is not known whether a body may follow.
                        answer.body = String::new().into();
                    }
                    self.answer(index, &answer);
                }
            }
            self.close(index, CloseReason::Drained);
        }
        self.sweep_drain();
    }

    /// One step; every sweep step while draining.
    pub(super) fn sweep_drain(&mut self) {
        let Some(mut drain) = self.drain.take() else { return };
        let is_over = self.now >= drain.until;
        let fresh = self.fresh_streams(&mut drain);
        for index in 0..self.connections.len() {
            if is_over {
                self.say_farewell(index);
            } else {
                self.drain_connection(index, &mut drain, &fresh);
            }
        }
        self.drain = Some(drain);
        if self.open_count == 0 && !self.drained {
            self.drained = true;
            self.port.report(Event::Drained { worker: self.index });
        }
    }

    /// Streams with a keyframe since the last look, and those that will have none.
    fn fresh_streams(&self, drain: &mut Drain) -> Vec<usize> {
        let mut fresh = Vec::new();
        for &stream in &self.watched {
            let Some(local) = self.streams.get(stream) else { continue };
            let join = local.entry.ring().and_then(ring::StreamRing::join);
            let before = drain.joins.insert(stream, join);
            let has_keyframes = local.entry.phase() == StreamPhase::Live && local.entry.has_video();
            if !has_keyframes || before.is_some_and(|before| before != join) {
                fresh.push(stream);
            }
        }
        fresh
    }

    fn drain_connection(&mut self, index: usize, drain: &mut Drain, fresh: &[usize]) {
        let now = self.now;
        let Some(connection) = self.connections.get(index).and_then(Option::as_deref) else {
            return;
        };
        // Over HTTP, who watches nothing is here only until it has its answer.
        let is_answered =
            matches!(&connection.session, Session::Http(session) if !session.is_watching());
        if connection.closing.is_some() || is_answered {
            return;
        }
        let serial = connection.id.serial;
        match drain.asked.get(&serial) {
            Some(_) if !connection.publishes.is_empty() => {}
            Some(at) if now.0.saturating_sub(at.0) >= RECONNECT_MS_MAX => self.say_farewell(index),
            Some(_) => {}
            None if self.is_its_turn(connection, drain, fresh) => {
                let is_publisher = !connection.publishes.is_empty();
                drain.asked.insert(serial, now);
                let session = self.connection(index).and_then(|c| c.session.rtmp());
                let is_asked = session.is_some_and(|s| s.reconnect_request(None, GOING_AWAY));
                if is_publisher || is_asked {
                    self.pump(index);
                } else {
                    self.say_farewell(index);
                }
            }
            None => {}
        }
    }

    fn is_its_turn(&self, connection: &Connection, drain: &Drain, fresh: &[usize]) -> bool {
        let whole_ms = drain.until.0 - drain.began.0;
        let gone_ms = self.now.0.saturating_sub(drain.began.0);
        if !connection.publishes.is_empty() {
            let is_watched = connection.publishes.iter().any(|publish| {
                self.streams.get(publish.stream).is_some_and(|local| local.entry.is_tapped())
            });
            return !is_watched || gone_ms >= whole_ms / 2;
        }
        let spread_ms = (whole_ms / 2).min(SPREAD_MS_MAX);
        // Neighbours in the order of accepting are far apart here.
        let scattered = connection.id.serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let Some(late_ms) = gone_ms.checked_sub(scattered % spread_ms.max(1)) else { return false };
        late_ms >= KEYFRAME_MS_MAX || connection.plays.iter().all(|p| fresh.contains(&p.stream))
    }

    /// Tells a player that what it plays ends, and closes.
    fn say_farewell(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        if connection.closing.is_some() {
            // It has been told, and its last bytes are on their way.
            return self.close(index, CloseReason::Drained);
        }
        let msids: Vec<u32> = connection.plays.iter().map(|play| play.msid).collect();
        match &mut connection.session {
            Session::Rtmp(session) => {
                msids.into_iter().for_each(|msid| session.notify_unpublish(msid));
            }
            Session::Http(session) => session.go_away(),
            Session::Unknown => {}
        }
        self.close(index, CloseReason::Drained);
    }
}
