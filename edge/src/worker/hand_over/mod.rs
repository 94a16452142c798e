//! A worker that passes its connections and streams to another process, and one that takes them over.
//!
//! ```text
//!   turning ─ StandStill ─► stopping ─ nothing in flight ─► still ─┬─ Export ─► a record
//!      ▲                                                           ├─ LetGo ─► drains the rest
//!      └──────────────────────────── GoOn ─────────────────────────┘
//! ```
//!
//! Standing still, a worker sends nothing and takes nothing; its turns are its heartbeat. What changes on the
//! way there changes nothing for a peer: the rest of a message that is half sent moves from the subscriber to
//! the connection. So a worker that is told to go on goes on.

mod export;
mod import;

use uring::{Io, Nanos};

use super::Worker;
use crate::command::Reply;
use crate::connection::{Closing, Connection, Sending};
use crate::framing::FramingKind;
use crate::metrics::CloseReason;

pub use export::Export;
pub(super) use import::PassedFraming;

/// Distance of two turns on the way to a standstill, and in it, in milliseconds.
const STOPPING_TURN_MS: u64 = 1;
const STILL_TURN_MS: u64 = 100;

/// Whether the worker moves anything.
#[derive(Debug, Default)]
pub(super) enum Standstill {
    /// It does.
    #[default]
    Off,
    /// Something is in flight yet; who waits for the end of that.
    Stopping(Reply<()>),
    /// Nothing is.
    Still,
}

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    pub(super) fn is_still(&self) -> bool {
        !matches!(self.standstill, Standstill::Off)
    }

    /// When to turn next; `None` while it moves.
    pub(super) fn still_deadline(&self) -> Option<Nanos> {
        let ms = match self.standstill {
            Standstill::Off => return None,
            Standstill::Stopping(_) => STOPPING_TURN_MS,
            Standstill::Still => STILL_TURN_MS,
        };
        Some(self.now_nanos.saturating_add(Nanos::from_millis(ms)))
    }

    pub(super) fn begin_standstill(&mut self, reply: Reply<()>) {
        // A worker that drains or stops has nothing to pass on: nobody hears of it in time.
        if self.drain.is_none() && !self.stopping && !self.is_still() {
            self.standstill = Standstill::Stopping(reply);
            self.io.freeze();
        }
    }

    /// A turn on the way to a standstill.
    pub(super) fn stand_still(&mut self) {
        if !matches!(self.standstill, Standstill::Stopping(_)) {
            return;
        }
        let is_sending = |c: &Connection| c.output.sending != Sending::Nothing;
        if !self.io.is_frozen() || self.connections.iter().flatten().any(|c| is_sending(c)) {
            self.io.freeze();
            return;
        }
        for index in 0..self.connections.len() {
            self.settle(index);
        }
        for (_, local) in &self.streams {
            if let Some(cursor) = local.reframer.as_ref().and_then(|reframer| reframer.cursor()) {
                local.entry.keep_from(cursor);
            }
        }
        if let Standstill::Stopping(reply) =
            std::mem::replace(&mut self.standstill, Standstill::Still)
        {
            reply.send(());
        }
    }

    /// Takes the rest of a message that is half sent from its play, and notes from where on the ring is
    /// needed.
    fn settle(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let mut is_torn = false;
        for play in &mut connection.plays {
            let Some(stream) = self.streams.get_mut(play.stream) else { continue };
            let was_waiting = usize::from(play.subscriber.is_waiting());
            if play.subscriber.is_mid_message() {
                let rest = stream.tap.as_ref().and_then(|tap| play.subscriber.take_rest(tap));
                is_torn |= rest.is_none() || connection.output.rest.is_some();
                connection.output.rest = rest.map(|rest| rest.to_vec());
            }
            stream.waiting += usize::from(play.subscriber.is_waiting());
            stream.waiting -= was_waiting;
            if stream.framing == FramingKind::Rtmp
                && let Some(place) = play.subscriber.place()
            {
                stream.entry.keep_from(place);
            }
        }
        if is_torn {
            // The ring has lost the rest of its message: it would have been closed at its next look.
            self.abandon(index, CloseReason::Overrun);
        }
    }

    /// Nothing was passed on: goes on where it stopped.
    pub(super) fn go_on(&mut self) {
        self.exported = None;
        self.take_up();
    }

    /// Moves again, from a standstill of its own or with what it has taken over.
    pub fn take_up(&mut self) {
        if !self.is_still() {
            return;
        }
        self.standstill = Standstill::Off;
        self.io.thaw();
        for (_, local) in &mut self.streams {
            local.entry.keep_nothing();
        }
        for index in 0..self.connections.len() {
            self.resume_input(index);
            self.pump(index);
        }
        (self.tick_at, self.sweep_at) = (self.now, self.now);
    }

    /// What was passed on is another process's now; the rest is drained.
    pub(super) fn let_go(&mut self, deadline_ms: u64) {
        for index in self.exported.take().unwrap_or_default() {
            let now = self.now;
            if let Some(connection) = self.connection(index) {
                let reason = CloseReason::HandedOver;
                connection.closing = Some(Closing { reason, deadline: now, shut_down: true });
            }
            self.remove(index);
        }
        for entrance in std::mem::take(&mut self.listeners) {
            self.io.release_listener(entrance.listener);
        }
        self.standstill = Standstill::Off;
        self.io.thaw();
        self.begin_drain(deadline_ms);
    }

    // The other side.

    /// Begins at a standstill: nothing is taken from the kernel before [`Worker::take_up`].
    pub fn hold(&mut self) {
        self.standstill = Standstill::Still;
        self.io.freeze();
    }
}
