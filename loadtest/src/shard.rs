//! One thread of the generator: many connections, one loop, one wait per turn.
//!
//! ```text
//!  loop {
//!      arrive    players whose time has come call connect            bounded per turn
//!      due       publishers send, hostile peers act, players leave   bounded per actor
//!      turn      the only wait: until the next of these, or a completion
//!      handle    completions to their actor; what it answers is sent
//!      tick      once an interval: hand the tally to the reporter
//!  }
//! ```
//!
//! Shares nothing with other threads but the plan, a stop flag and the channel to the reporter.

mod actor;
mod arrive;
mod news;

use crate::abuse::Behaviour;
use crate::link::{Link, NoLease};
use crate::num::{Prng, now_ns};
use crate::plan::Plan;
use crate::player::{Reason, Summary};
use crate::probe;
use crate::secure::Step;
use crate::tally::{Measure, Tally};
use actor::Actor;
pub(crate) use news::{Duty, Gauge, News, Part};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use uring::{Completion, ConnId, Io, Nanos, ReceiveEnd};

/// Longest wait, so that the stop flag is seen.
const WAIT_NS_MAX: u64 = 50_000_000;
/// Players of which a summary is kept.
const SUMMARIES_MAX: usize = 1_000_000;

#[derive(Debug)]
struct Entry {
    link: Link,
    actor: Actor,
    /// The due time of it that is in the timers; `u64::MAX`: none.
    scheduled_ns: u64,
}

/// Somebody who is to come again at once.
#[derive(Copy, Clone, Debug)]
enum Again {
    Hostile(Behaviour),
    Shaker,
}

/// A thread's loop. See the file's head.
#[derive(Debug)]
pub(crate) struct Shard<I> {
    io: I,
    plan: Arc<Plan>,
    duty: Duty,
    /// Of this thread among all.
    number: usize,
    news: Sender<(usize, News)>,
    stop: Arc<AtomicBool>,
    /// By `ConnId::index`.
    entries: Vec<Option<Entry>>,
    timers: BinaryHeap<Reverse<(u64, ConnId)>>,
    tally: Tally,
    /// Accounts of players that are gone.
    gone: Gauge,
    summaries: Vec<Summary>,
    prng: Prng,
    /// Plain bytes of one received piece, where TLS is spoken.
    plain: Vec<u8>,
    /// The next player to come, and the one that comes no more.
    next_player: u64,
    players_end: u64,
    /// The next publisher and the next hostile peer.
    next_other: usize,
    /// Handshakes kept going.
    next_shaker: u64,
    /// Connections begun, for addresses in turn.
    opened: u64,
    floods: u32,
    again: Vec<Again>,
    end_ns: u64,
    tick: u64,
    tick_begun_ns: u64,
    tick_cpu_ns: u64,
}

impl<I: Io<Lease = NoLease>> Shard<I> {
    /// A loop that has not begun.
    pub(crate) fn new(
        io: I,
        plan: Arc<Plan>,
        duty: Duty,
        number: usize,
        news: Sender<(usize, News)>,
        stop: Arc<AtomicBool>,
    ) -> Shard<I> {
        let count = plan.arrivals.count;
        let storm = plan.disturbance.map_or(0, |disturbance| disturbance.storm);
        let (first, players_end, linger_ns) = match duty {
            Duty::Publish => (u64::MAX, 0, crate::plan::LINGER_NS),
            Duty::Play { first, .. } => (first, count, 0),
            Duty::Storm { first, .. } => (count + first, count + storm, 0),
        };
        Shard {
            io,
            duty,
            number,
            news,
            stop,
            entries: Vec::new(),
            timers: BinaryHeap::new(),
            tally: Tally::new(),
            gone: Gauge::default(),
            summaries: Vec::new(),
            prng: Prng::new(plan.seed ^ first.wrapping_mul(0x9e37_79b9)),
            plain: Vec::new(),
            next_player: first,
            players_end,
            next_other: 0,
            next_shaker: first,
            opened: first.wrapping_add(plan.seed),
            floods: 0,
            again: Vec::new(),
            end_ns: plan.end_ns.saturating_add(linger_ns),
            tick: 0,
            tick_begun_ns: now_ns(),
            tick_cpu_ns: probe::own_thread_cpu_ns(),
            plan,
        }
    }

    /// Runs to the end of the plan, or until stopped.
    pub(crate) fn run(mut self) {
        let mut completions = Vec::new();
        loop {
            let now = now_ns();
            if now >= self.end_ns || self.stop.load(Ordering::Relaxed) {
                return self.finish();
            }
            if now >= self.tick_end_ns() {
                self.on_tick(now);
            }
            self.arrive(now);
            self.do_due(now);
            let wake_ns = self.wake_ns(now);
            self.tally.record(Measure::Turn, now_ns().saturating_sub(now));
            if let Err(error) = self.io.turn(Some(Nanos(wake_ns)), &mut completions) {
                self.tell(News::Failed(error.to_string()));
                return;
            }
            let woken = now_ns();
            for completion in completions.drain(..) {
                self.on_completion(completion, woken);
            }
            self.tally.record(Measure::Turn, now_ns().saturating_sub(woken));
        }
    }

    fn tick_end_ns(&self) -> u64 {
        self.plan.start_ns + (self.tick + 1) * self.plan.interval_ns
    }

    /// When something is to be done even if the network is silent.
    fn wake_ns(&self, now: u64) -> u64 {
        let timer = self.timers.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns);
        [self.next_arrival_ns(), timer, self.tick_end_ns(), self.end_ns, now + WAIT_NS_MAX]
            .into_iter()
            .fold(u64::MAX, u64::min)
    }

    fn entry(&mut self, conn: ConnId) -> Option<&mut Entry> {
        self.entries.get_mut(conn.index())?.as_mut().filter(|entry| entry.link.conn() == conn)
    }

    /// Puts the actor's due time into the timers unless it is there, or an earlier one.
    fn schedule(&mut self, conn: ConnId) {
        let Some(entry) = self.entry(conn) else { return };
        let due_ns = entry.actor.due_ns();
        if due_ns < entry.scheduled_ns {
            entry.scheduled_ns = due_ns;
            self.timers.push(Reverse((due_ns, conn)));
        }
    }

    /// Lets everybody act whose time has come.
    fn do_due(&mut self, now: u64) {
        while let Some(&Reverse((due_ns, conn))) = self.timers.peek() {
            if due_ns > now {
                return;
            }
            self.timers.pop();
            let Some(entry) = self.entries.get_mut(conn.index()).and_then(Option::as_mut) else {
                continue;
            };
            if entry.link.conn() != conn || entry.scheduled_ns != due_ns {
                // Of a connection that is gone, or put off in the meantime.
                continue;
            }
            entry.scheduled_ns = u64::MAX;
            if entry.actor.due_ns() > now {
                self.schedule(conn);
                continue;
            }
            let out = &mut entry.link.pending;
            match &mut entry.actor {
                Actor::Player(player) if player.leave_ns > now => player.on_due(now, out),
                Actor::Player(player) => {
                    player.leave(out);
                    self.tally.counts.left += 1;
                    self.close_planned(conn, now);
                    continue;
                }
                Actor::Publisher(publisher) => publisher.on_due(now, &mut self.tally, out),
                Actor::Abuser(abuser) => abuser.on_due(now, out),
                Actor::Shaker(shaker) => shaker.is_done = true,
            }
            self.after_event(conn, now);
        }
    }

    fn on_completion(&mut self, completion: Completion<NoLease>, now: u64) {
        let Some(conn) = completion.conn() else { return };
        let Some(entry) = self.entries.get_mut(conn.index()).and_then(Option::as_mut) else {
            return;
        };
        let link = &mut entry.link;
        let outcome = match completion {
            Completion::Connected { result: Ok(()), .. } => {
                if let Actor::Player(_) = entry.actor {
                    self.tally.record(Measure::Connect, now.saturating_sub(link.started_ns));
                }
                match &mut link.secure {
                    Some(secure) => secure.on_connected(now),
                    None => {
                        let (tally, judging) = (&mut self.tally, &self.plan.judging);
                        entry.actor.on_connected(now, judging, tally, &mut link.pending);
                        Ok(())
                    }
                }
            }
            Completion::Connected { result: Err(errno), .. } => {
                Err(format!("connect: {}", errno_text(errno)))
            }
            Completion::Received { data, .. } => self.on_received(conn, &data, now),
            Completion::ReceiveEnded { reason: ReceiveEnd::Eof, .. } => {
                let (tally, judging) = (&mut self.tally, &self.plan.judging);
                entry.actor.on_eof(now, judging, tally, &mut link.pending)
            }
            Completion::ReceiveEnded { reason: ReceiveEnd::Error(errno), .. }
            | Completion::SendFailed { errno, .. } => {
                let (tally, judging) = (&mut self.tally, &self.plan.judging);
                let ended = entry.actor.on_eof(now, judging, tally, &mut link.pending);
                ended.map_err(|_| errno_text(errno))
            }
            Completion::Sent { bytes, blocked, buf, .. } => {
                link.on_sent(bytes, blocked, buf, now);
                Ok(())
            }
            Completion::Writable { .. } => {
                let blocked_ns = link.on_writable(now);
                if let (Actor::Publisher(_), true) = (&entry.actor, blocked_ns > 0) {
                    self.tally.record_blocked(blocked_ns);
                }
                Ok(())
            }
            // Nobody listens here, and no key is given to the kernel.
            _ => Ok(()),
        };
        match outcome {
            Ok(()) => self.after_event(conn, now),
            Err(reason) => self.close_failed(conn, &reason, now),
        }
    }

    /// Hands bytes of the server to the actor, through TLS where there is any.
    fn on_received(&mut self, conn: ConnId, data: &[u8], now: u64) -> Result<(), Reason> {
        let Some(entry) = self.entries.get_mut(conn.index()).and_then(Option::as_mut) else {
            return Ok(());
        };
        let (actor, tally, judging) = (&mut entry.actor, &mut self.tally, &self.plan.judging);
        let out = &mut entry.link.pending;
        let Some(secure) = &mut entry.link.secure else {
            return actor.on_bytes(data, now, judging, tally, out);
        };
        let was_established = secure.is_established();
        self.plain.clear();
        let step = secure.on_bytes(data, &mut self.plain, now)?;
        let mut has_tickets = was_established;
        if let Step::Established { took_ns, is_resumed, brings_tickets } = step {
            tally.record_secured(took_ns, is_resumed);
            actor.on_connected(now, judging, tally, out);
            has_tickets = !brings_tickets;
        }
        if let (Actor::Shaker(shaker), true) = (&mut *actor, has_tickets) {
            shaker.on_records();
        }
        if !self.plain.is_empty() {
            actor.on_bytes(&self.plain, now, judging, tally, out)?;
        }
        if step == Step::Closed { actor.on_eof(now, judging, tally, out) } else { Ok(()) }
    }

    /// Sends what an event left to send, and does what an actor asks for by its flags.
    fn after_event(&mut self, conn: ConnId, now: u64) {
        let Some(entry) = self.entries.get_mut(conn.index()).and_then(Option::as_mut) else {
            return;
        };
        let again = match &mut entry.actor {
            Actor::Abuser(abuser) => {
                if std::mem::take(&mut abuser.is_deaf) {
                    self.io.pause_receive(conn);
                }
                abuser.is_done.then_some(Again::Hostile(abuser.behaviour))
            }
            Actor::Shaker(shaker) => shaker.is_done.then_some(Again::Shaker),
            _ => None,
        };
        if let Some(again) = again {
            self.again.push(again);
            return self.close_planned(conn, now);
        }
        if let Actor::Player(player) = &entry.actor
            && player.wants_connection()
        {
            return self.reconnect(conn, now);
        }
        match entry.link.flush(&mut self.io) {
            Ok(()) => self.schedule(conn),
            Err(reason) => self.close_failed(conn, &reason, now),
        }
    }

    /// Gives a player another connection for the one it has used up.
    fn reconnect(&mut self, conn: ConnId, now: u64) {
        let Some(entry) = self.entries.get_mut(conn.index()).and_then(Option::take) else {
            return;
        };
        self.io.close(conn);
        self.tally.counts.reconnects += 1;
        self.connect(entry.actor, now);
    }

    /// Ends a connection as intended: what it has to say still goes out.
    fn close_planned(&mut self, conn: ConnId, now: u64) {
        let Some(mut entry) = self.entries.get_mut(conn.index()).and_then(Option::take) else {
            return;
        };
        entry.link.say_goodbye();
        // Nobody waits for what cannot be sent any more.
        let _ = entry.link.flush(&mut self.io);
        self.io.close(conn);
        self.keep(&mut entry, now);
    }

    /// Ends a connection that has failed.
    fn close_failed(&mut self, conn: ConnId, reason: &str, now: u64) {
        let Some(mut entry) = self.entries.get_mut(conn.index()).and_then(Option::take) else {
            return;
        };
        // The alert that says why, if there is one.
        let _ = entry.link.flush(&mut self.io);
        self.io.close(conn);
        self.keep(&mut entry, now);
        self.note_end(entry.actor, reason);
    }

    fn note_end(&mut self, actor: Actor, reason: &str) {
        match actor {
            Actor::Abuser(abuser) => self.tally.note_hostile(abuser.behaviour.name(), reason),
            other => self.tally.note_close(&format!("{}: {reason}", other.role())),
        }
    }

    /// What outlives a connection.
    fn keep(&mut self, entry: &mut Entry, now: u64) {
        let blocked_ns = entry.link.take_blocked(now);
        match &mut entry.actor {
            Actor::Player(player) => {
                self.gone.add_accounts(player);
                let summary = player.finish(now, &mut self.tally);
                if self.summaries.len() < SUMMARIES_MAX {
                    self.summaries.push(summary);
                }
            }
            Actor::Publisher(_) if blocked_ns > 0 => self.tally.record_blocked(blocked_ns),
            _ => {}
        }
    }

    /// An interval is over.
    fn on_tick(&mut self, now: u64) {
        let mut silent: Vec<(ConnId, Reason)> = Vec::new();
        for entry in self.entries.iter_mut().flatten() {
            let checked = entry.actor.on_tick(now);
            silent.extend(checked.err().map(|reason| (entry.link.conn(), reason)));
            if let Actor::Publisher(publisher) = &entry.actor {
                let wall_ns = now.saturating_sub(self.tick_begun_ns);
                self.tally.counts.publishing_ns +=
                    if publisher.is_publishing() { wall_ns } else { 0 };
                // Told as it goes on, so that a server that takes nothing at all shows.
                match entry.link.take_blocked(now) {
                    0 => {}
                    blocked_ns => self.tally.record_blocked(blocked_ns),
                }
            }
        }
        for (conn, reason) in silent {
            self.close_failed(conn, &reason, now);
        }
        let part = self.take_part(now);
        self.tell(News::Part(Box::new(part)));
    }

    fn take_part(&mut self, now: u64) -> Part {
        let cpu_ns = probe::own_thread_cpu_ns();
        let part = Part {
            tick: self.tick,
            tally: std::mem::replace(&mut self.tally, Tally::new()),
            gauge: self.gauge(),
            cpu_ns: cpu_ns.saturating_sub(self.tick_cpu_ns),
            wall_ns: now.saturating_sub(self.tick_begun_ns),
        };
        (self.tick_cpu_ns, self.tick_begun_ns) = (cpu_ns, now);
        // After a turn longer than an interval the next tick is the one that is under way.
        let passed = now.saturating_sub(self.plan.start_ns) / self.plan.interval_ns;
        self.tick = passed.max(self.tick + 1);
        part
    }

    fn gauge(&self) -> Gauge {
        let mut gauge = self.gone;
        for entry in self.entries.iter().flatten() {
            match &entry.actor {
                Actor::Player(player) => {
                    gauge.players += 1;
                    gauge.playing += u64::from(player.is_playing());
                    gauge.add_accounts(player);
                }
                Actor::Publisher(publisher) => {
                    gauge.publishing += u64::from(publisher.is_publishing());
                }
                Actor::Abuser(_) => gauge.hostile += 1,
                Actor::Shaker(_) => {}
            }
        }
        gauge
    }

    /// Ends all connections in good order.
    fn finish(mut self) {
        let now = now_ns();
        let gauge = self.gauge();
        for index in 0..self.entries.len() {
            let Some(entry) = &mut self.entries[index] else { continue };
            let conn = entry.link.conn();
            match &mut entry.actor {
                Actor::Player(player) => player.leave(&mut entry.link.pending),
                Actor::Publisher(publisher) => publisher.leave(&mut entry.link.pending),
                Actor::Abuser(abuser) => {
                    self.tally.note_hostile(abuser.behaviour.name(), "open at the end");
                }
                Actor::Shaker(_) => {}
            }
            self.close_planned(conn, now);
        }
        // Sends and closes reach the kernel; what they bring back concerns nobody any more.
        let _ = self.io.turn(Some(Nanos(now)), &mut Vec::new());
        let mut part = self.take_part(now);
        part.gauge = gauge;
        let summaries = std::mem::take(&mut self.summaries);
        self.tell(News::Done { part: Box::new(part), summaries });
    }

    /// A reporter that is gone needs no news.
    fn tell(&self, news: News) {
        let _ = self.news.send((self.number, news));
    }
}

fn errno_text(errno: i32) -> String {
    io::Error::from_raw_os_error(errno).to_string()
}
