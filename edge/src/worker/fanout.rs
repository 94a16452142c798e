//! Streams to subscribers: who sees news, who joins, who is flushed when.

use std::sync::Arc;

use live::flush::HeadView;
use live::publisher::Keep;
use live::subscriber::{Selection, Subscriber};
use uring::Io;

use super::settings::Settings;
use super::stream::{LocalStream, Pass, Player};
use super::{SENDS_PER_TURN_MAX, Worker};
use crate::connection::{Permit, Play, Sending, Session};
use crate::metrics::FlushCause;

/// Sends of a turn while somebody may wait for an answer: some hundred microseconds of the kernel's time.
const ARRIVAL_SENDS_PER_TURN_MAX: usize = 32;
/// Bytes of such a turn, likewise; what reaches it is the last.
const ARRIVAL_BYTES_PER_TURN_MAX: usize = 128 * 1024;

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// Serves the streams written to in this turn and, on the tick, all streams with subscribers
    /// here; then goes on with flush passes.
    pub(super) fn serve_streams(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for stream in dirty.drain(..) {
            self.serve_dirty(stream);
        }
        // Serving may mark streams again (a stream that ends is written by nobody else now).
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        if self.takeovers_seen != self.shared.takeovers() {
            self.takeovers_seen = self.shared.takeovers();
            self.yield_wanted_streams();
        }
        if self.now >= self.tick_at.min(self.sweep_at) {
            self.tick_at = rtmp::Millis(u64::MAX);
            for at in (0..self.watched.len()).rev() {
                let Some(&stream) = self.watched.get(at) else { continue };
                self.serve_stream(stream);
            }
            for at in (0..self.claims.len()).rev() {
                let Some(&index) = self.claims.get(at) else { continue };
                self.poll_claim(index);
            }
        }
        self.serve_waiting_views();
        self.run_passes();
        self.serve_catching_up();
        self.serve_overruns();
    }

    /// Ends the publishers here whose streams somebody elsewhere waits for.
    fn yield_wanted_streams(&mut self) {
        let wanted: Vec<usize> = self
            .streams
            .iter()
            .filter(|(_, local)| local.publisher.is_some() && local.entry.is_yield_wanted())
            .map(|(index, _)| index)
            .collect();
        for stream in wanted {
            self.yield_stream(stream);
        }
    }

    fn serve_dirty(&mut self, stream: usize) {
        let Some(local) = self.streams.get_mut(stream) else { return };
        local.is_dirty = false;
        if let Some(publisher) = &mut local.publisher {
            let keep = match (local.entry.is_tapped(), self.room.is_short()) {
                (false, _) => Keep::Gop,
                (true, true) => Keep::Recent,
                (true, false) => Keep::All,
            };
            publisher.writer.trim(&mut self.arena, keep);
            local.entry.set_has_video(publisher.writer.facts().video_codec.is_some());
            self.wake_tapped(stream);
        }
        self.serve_stream(stream);
        // From the back: a framing whose last viewer leaves here is no longer listed.
        let count = self.streams.get(stream).map_or(0, |local| local.framed.len());
        for at in (0..count).rev() {
            let framed = self.streams.get(stream).and_then(|local| local.framed.get(at).copied());
            let Some(framed) = framed else { continue };
            self.serve_stream(framed);
        }
    }

    /// Wakes the other workers that have subscribers of a stream.
    pub(super) fn wake_tapped(&self, stream: usize) {
        let Some(local) = self.streams.get(stream) else { return };
        local.entry.for_each_tapped(|worker| {
            if worker != usize::from(self.index) {
                self.shared.wake(worker);
            }
        });
    }

    /// Looks at a stream's state and head once.
    fn serve_stream(&mut self, stream: usize) {
        let now = self.now;
        let Some(local) = self.streams.get_mut(stream) else { return };
        if local.players.is_empty() {
            self.forget_stream_if_unneeded(stream);
            return;
        }
        let previous = local.head;
        let Some(head) = local.refresh(&mut self.arena, &self.settings) else {
            self.leave_retired(stream);
            return;
        };
        let (ends, end_position) = local.ends();
        if ends != local.ends_seen {
            local.ends_seen = ends;
            self.end_plays(stream, end_position);
        }
        self.leave_retired(stream);
        let Some(local) = self.streams.get_mut(stream) else { return };
        if local.waiting > 0 && local.offers_joins() && previous != Some(head) {
            self.join_waiting(stream);
        }
        let Some(local) = self.streams.get_mut(stream) else { return };
        let has_video = local.entry.has_video();
        let view = HeadView { head: head.head, flush_mark: head.flush_mark, has_video };
        local.clock.widen(self.load.window_ms());
        let is_due = local.clock.poll_flush(view, now);
        if let Some(at) = local.clock.poll_timeout(has_video) {
            self.tick_at = self.tick_at.min(at);
        }
        if is_due {
            let cause = match local.vhost.flush {
                live::flush::FlushPolicy::Frame if has_video => FlushCause::Frame,
                live::flush::FlushPolicy::Frame => FlushCause::Timer,
                live::flush::FlushPolicy::Immediate => FlushCause::Turn,
                live::flush::FlushPolicy::Window(_) => FlushCause::Window,
            };
            self.port.metrics().flushes.of(cause).increment();
            // A pass that is not finished goes on from where it is, and round: began it anew, those at the
            // end would never be served by a worker that is late.
            let next = local.pass.map_or(0, |pass| pass.next);
            if local.pass.replace(Pass { next, left: local.players.len() }).is_none() {
                self.passes.push(stream);
            }
        }
    }

    /// Every subscriber learns that the stream ends at `end`, once it has been sent so far.
    fn end_plays(&mut self, stream: usize, end: ring::Position) {
        let now = self.now;
        let Some(local) = self.streams.get(stream) else { return };
        // From the back: who leaves here is replaced by the last.
        for at in (0..local.players.len()).rev() {
            let Some(player) = self.streams.get(stream).and_then(|l| l.players.get(at).copied())
            else {
                continue;
            };
            let play = self
                .connections
                .get_mut(player.conn)
                .and_then(Option::as_deref_mut)
                .and_then(|connection| connection.play_mut(player.msid));
            let Some(play) = play else { continue };
            if play.has_joined {
                play.ends_at = Some(end);
                play.subscriber.set_limit(end, now);
                self.pump(player.conn);
            }
        }
    }

    fn join_waiting(&mut self, stream: usize) {
        let Some(local) = self.streams.get(stream) else { return };
        // From the back, as above.
        for at in (0..local.players.len()).rev() {
            let Some(player) = self.streams.get(stream).and_then(|l| l.players.get(at).copied())
            else {
                continue;
            };
            if self.try_join(player.conn, player.msid) {
                self.port.metrics().flushes.of(FlushCause::Join).increment();
                self.pump(player.conn);
            }
        }
    }

    /// Goes on with unfinished flush passes, a bounded number of sends and bytes per turn.
    fn run_passes(&mut self) {
        let (sends_max, bytes_max) = self.round_max();
        let mut sends_left = sends_max;
        self.handed_bytes = 0;
        let mut passes = std::mem::take(&mut self.passes);
        let first = passes.first().copied();
        passes.retain(|&stream| {
            while sends_left > 0 && self.handed_bytes < bytes_max {
                let Some(local) = self.streams.get_mut(stream) else { return false };
                let (Some(pass), Some(head)) = (local.pass, local.head) else { return false };
                let at = if pass.next < local.players.len() { pass.next } else { 0 };
                let player = local.players.get(at).copied().filter(|_| pass.left > 0);
                let Some(player) = player else {
                    local.pass = None;
                    return false;
                };
                local.pass = Some(Pass { next: at + 1, left: pass.left - 1 });
                sends_left -= usize::from(self.flush_player(player, head.head));
                let Some(local) = self.streams.get_mut(stream) else { return false };
                if local.players.get(at).is_some_and(|other| *other != player)
                    && let Some(pass) = &mut local.pass
                {
                    // It left, and another took its place.
                    pass.next = at;
                }
            }
            true
        });
        // Which is not finished goes behind the others, so that none makes the rest wait.
        if passes.first().copied() == first && !passes.is_empty() {
            passes.rotate_left(1);
        }
        passes.append(&mut self.passes);
        self.passes = passes;
    }

    /// Sends and bytes for those who follow the head, or catch up, in one turn: fewer for a while after
    /// somebody has come, who is answered when the kernel has copied what was handed to it before. A turn has
    /// its price, so that a busy worker takes long ones all the same.
    pub(super) fn round_max(&self) -> (usize, usize) {
        let is_busy = self.load.window_ms() > 0;
        match self.now < self.arrival_until && !is_busy {
            true => (ARRIVAL_SENDS_PER_TURN_MAX, ARRIVAL_BYTES_PER_TURN_MAX),
            false => (SENDS_PER_TURN_MAX, usize::MAX),
        }
    }

    fn flush_player(&mut self, player: Player, head: ring::Position) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(player.conn).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        let Some(play) = connection.play_mut(player.msid) else {
            return false;
        };
        play.subscriber.set_target(head, now);
        if connection.is_output_busy() { false } else { self.pump(player.conn) }
    }

    // Subscribers come and go.

    pub(super) fn begin_play(
        &mut self,
        index: usize,
        msid: u32,
        stream: usize,
        permit: Option<Box<Permit>>,
    ) {
        let now = self.now;
        let asked_at = self.now_nanos;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Some(local) = self.streams.get(stream) else { return };
        let selection = match &mut connection.session {
            Session::Http(session) => session.selection(msid),
            Session::Rtmp(session) => {
                session.accept_play(msid);
                Selection::all(msid)
            }
            Session::Unknown => Selection::all(msid),
        };
        connection.play_serial += 1;
        // Nearly everybody plays one stream: no room for three more.
        connection.plays.reserve_exact(1);
        connection.plays.push(Play {
            serial: connection.play_serial,
            msid,
            stream,
            slot: local.players.len(),
            subscriber: Subscriber::new(selection, now),
            asked_at: Some(asked_at),
            waiting_since: now,
            has_joined: false,
            ends_at: None,
            preamble_version: 0,
            permit,
        });
        self.enter_stream(stream, Player { conn: index, msid });
    }

    /// Lists a waiting player with a stream, behind those there.
    pub(super) fn enter_stream(&mut self, stream: usize, player: Player) {
        let Some(local) = self.streams.get_mut(stream) else { return };
        if local.players.is_empty() {
            self.watched.push(stream);
            local.entry.set_tapped(usize::from(self.index), true);
            (local.ends_seen, _) = local.entry.ends();
        }
        local.players.push(player);
        local.waiting += 1;
    }

    /// Ends what a connection plays on `msid`. No reply: the session has answered the peer.
    pub(super) fn stop_play(&mut self, index: usize, msid: u32) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Some(at) = connection.plays.iter().position(|play| play.msid == msid) else { return };
        let mut play = connection.plays.remove(at);
        let Some(local) = self.streams.get_mut(play.stream) else { return };
        local.entry.release_subscriber();
        // What follows on this connection must begin behind the message that is half sent.
        if connection.output.sending == Sending::Nothing
            && let Some(rest) = local.tap.as_ref().and_then(|tap| play.subscriber.rest_lease(tap))
        {
            connection.output.rest = Some(rest.to_vec());
        }
        self.leave_stream(play.stream, play.slot, play.subscriber.is_waiting());
    }

    /// Takes a player off a stream's list; a stream without players here is let go of.
    pub(super) fn leave_stream(&mut self, stream: usize, slot: usize, is_waiting: bool) {
        let Some(local) = self.streams.get_mut(stream) else { return };
        local.waiting -= usize::from(is_waiting);
        local.players.swap_remove(slot);
        if let Some(pass) = &mut local.pass {
            // The last one is now where the pass may have been already.
            pass.left = local.players.len();
        }
        if let Some(&moved) = local.players.get(slot) {
            let moved = self
                .connections
                .get_mut(moved.conn)
                .and_then(Option::as_deref_mut)
                .and_then(|c| c.play_mut(moved.msid));
            if let Some(moved) = moved {
                moved.slot = slot;
            }
        }
        if local.players.is_empty() {
            local.untap(&mut self.arena, self.port.metrics());
            self.watched.retain(|&watched| watched != stream);
            self.note_untapped(stream, usize::from(self.index));
            self.forget_stream_if_unneeded(stream);
        }
    }

    /// Tells the home worker when nobody here watches a stream any more, in whatever framing.
    fn note_untapped(&self, stream: usize, worker: usize) {
        let Some(entry) = self.streams.get(stream).map(|local| &local.entry) else { return };
        let is_watched = |&other: &usize| {
            self.streams.get(other).is_some_and(|local| Arc::ptr_eq(&local.entry, entry))
        };
        if !self.watched.iter().any(is_watched) {
            entry.set_tapped(worker, false);
        }
    }

    pub(super) fn pause(&mut self, index: usize, msid: u32, paused: bool) {
        let now = self.now;
        let Some((play, stream, arena, settings)) = self.play_of(index, msid) else { return };
        // Before the first publisher there is no ring; a pause is remembered all the same.
        let head = stream.refresh(arena, settings).unwrap_or_default();
        let was_waiting = play.subscriber.is_waiting();
        play.subscriber.set_paused(paused, &head, now);
        stream.waiting += usize::from(play.subscriber.is_waiting());
        stream.waiting -= usize::from(was_waiting);
        if !paused {
            play.subscriber.set_target(head.head, now);
            self.try_join(index, msid);
        }
    }

    pub(super) fn select(&mut self, index: usize, msid: u32, change: impl FnOnce(&mut Selection)) {
        let now = self.now;
        let Some((play, ..)) = self.play_of(index, msid) else { return };
        let mut selection = play.subscriber.selection();
        change(&mut selection);
        play.subscriber.select(selection, now);
    }

    fn play_of(
        &mut self,
        index: usize,
        msid: u32,
    ) -> Option<(&mut Play, &mut LocalStream, &mut ring::Arena, &Settings)> {
        let connection = self.connections.get_mut(index)?.as_deref_mut()?;
        let play = connection.play_mut(msid)?;
        let stream = self.streams.get_mut(play.stream)?;
        Some((play, stream, &mut self.arena, &self.settings))
    }
}
