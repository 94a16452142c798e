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

use crate::abuse::{Abuser, Behaviour};
use crate::link::{Link, NoLease};
use crate::num::{Prng, now_ns, spread, whole};
use crate::plan::{Media, Plan};
use crate::player::{Player, Reason, Summary};
use crate::probe;
use crate::publisher::Publisher;
use crate::source::{FlvLoop, Source, Synthetic};
use crate::tally::{Measure, Tally};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use uring::{Completion, ConnId, Io, Nanos, ReceiveEnd};

/// Connections begun in one turn; the rest follows in the next.
const ARRIVALS_PER_TURN_MAX: usize = 64;
/// Longest wait, so that the stop flag is seen.
const WAIT_NS_MAX: u64 = 50_000_000;
/// Connections a flood opens in one run, all flooding peers together.
const FLOOD_MAX: u32 = 5_000;
/// Players of which a summary is kept.
const SUMMARIES_MAX: usize = 1_000_000;

/// Which part of the plan a thread does.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Duty {
    /// All publishers.
    Publish,
    /// Every `of`th player from `first` on; the first thread also does the hostile peers.
    Play { first: u64, of: u64 },
}

/// What is open at a moment.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Gauge {
    /// Players that play.
    pub(crate) playing: u64,
    /// Players, whatever they do.
    pub(crate) players: u64,
    /// Publishers whose stream is open.
    pub(crate) publishing: u64,
    /// Hostile peers.
    pub(crate) hostile: u64,
    /// Since the beginning: marked messages received, and what became of the others.
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
}

impl Gauge {
    /// Adds another thread's.
    pub(crate) fn add(&mut self, other: &Gauge) {
        self.playing += other.playing;
        self.players += other.players;
        self.publishing += other.publishing;
        self.hostile += other.hostile;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }

    fn add_accounts(&mut self, player: &Player) {
        for account in &player.accounts {
            self.received += account.received;
            self.lost += account.lost;
            self.duplicated += account.duplicated;
            self.reordered += account.reordered;
        }
    }
}

/// One thread's part of a sample.
#[derive(Debug)]
pub(crate) struct Part {
    /// Number of the interval.
    pub(crate) tick: u64,
    pub(crate) tally: Tally,
    pub(crate) gauge: Gauge,
    /// CPU time of the thread in the interval, and the interval.
    pub(crate) cpu_ns: u64,
    pub(crate) wall_ns: u64,
}

/// What a thread tells the reporter.
#[derive(Debug)]
pub(crate) enum News {
    /// An interval is over.
    Part(Box<Part>),
    /// The thread's work is done; `part` is what was left.
    Done { part: Box<Part>, summaries: Vec<Summary> },
    /// The thread cannot go on.
    Failed(String),
}

#[derive(Debug)]
enum Actor {
    Player(Box<Player>),
    Publisher(Box<Publisher>),
    Abuser(Box<Abuser>),
}

impl Actor {
    /// When it wants to act by itself; `u64::MAX`: not.
    fn due_ns(&self) -> u64 {
        match self {
            Actor::Player(player) => player.leave_ns,
            Actor::Publisher(publisher) => publisher.due_ns().unwrap_or(u64::MAX),
            Actor::Abuser(abuser) => abuser.due_ns,
        }
    }

    const fn role(&self) -> &'static str {
        match self {
            Actor::Player(_) => "player",
            Actor::Publisher(_) => "publisher",
            Actor::Abuser(_) => "hostile",
        }
    }
}

#[derive(Debug)]
struct Entry {
    link: Link,
    actor: Actor,
    /// Its due time is in the timers.
    scheduled: bool,
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
    /// The next player to come.
    next_player: u64,
    /// The next publisher and the next hostile peer.
    next_other: usize,
    floods: u32,
    again: Vec<Behaviour>,
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
        let (first, linger_ns) = match duty {
            Duty::Publish => (u64::MAX, crate::plan::LINGER_NS),
            Duty::Play { first, .. } => (first, 0),
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
            next_player: first,
            next_other: 0,
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

    fn next_arrival_ns(&self) -> u64 {
        let plan = &self.plan;
        let is_other_left = match self.duty {
            Duty::Publish => plan.publish.is_some() && self.next_other < plan.streams,
            Duty::Play { first, .. } => first == 0 && self.next_other < plan.hostile.len(),
        };
        let other_ns = match (is_other_left, self.duty) {
            (false, _) => u64::MAX,
            (true, Duty::Publish) => plan.start_ns,
            (true, Duty::Play { .. }) => plan.play_ns,
        };
        let player_ns = if self.next_player < plan.arrivals.count {
            plan.play_ns.saturating_add(plan.arrivals.at_ns(self.next_player))
        } else {
            u64::MAX
        };
        player_ns.min(other_ns)
    }

    /// Begins the connections whose time has come.
    fn arrive(&mut self, now: u64) {
        for behaviour in std::mem::take(&mut self.again) {
            self.open_hostile(behaviour, now);
        }
        for _ in 0..ARRIVALS_PER_TURN_MAX {
            let due_ns = self.next_arrival_ns();
            if due_ns > now {
                return;
            }
            // Players that come all at once are late by design.
            if self.plan.arrivals.rate > 0.0 {
                self.tally.record(Measure::Late, now - due_ns);
            }
            let index = self.next_other;
            match self.duty {
                Duty::Publish => {
                    self.next_other += 1;
                    self.open_publisher(index, now);
                }
                Duty::Play { first: 0, .. } if index < self.plan.hostile.len() => {
                    self.next_other += 1;
                    self.open_hostile(self.plan.hostile[index], now);
                }
                Duty::Play { of, .. } => {
                    let player = self.next_player;
                    self.next_player += of;
                    self.open_player(player, now);
                }
            }
        }
    }

    fn open_publisher(&mut self, index: usize, now: u64) {
        let plan = Arc::clone(&self.plan);
        let Some(media) = &plan.publish else { return };
        let random = self.prng.next();
        let (source, frame_ns) = match media {
            Media::Synthetic(config) => {
                let frame_ns = whole(1e9 / config.fps);
                (Source::Synthetic(Synthetic::new(config.clone(), random)), frame_ns)
            }
            Media::Flv(file) => (Source::Flv(FlvLoop::new(Arc::clone(file))), 33_000_000),
        };
        let phase_ns = whole(spread(index as u64) * frame_ns as f64);
        let config = Arc::clone(&plan.publisher_config[index]);
        let publisher = Publisher::new(config, source, plan.judging.clock, random, now);
        let actor = Actor::Publisher(Box::new(publisher.with_phase(phase_ns)));
        self.open(plan.target.address(index as u64), actor);
    }

    fn open_player(&mut self, index: u64, now: u64) {
        let plan = Arc::clone(&self.plan);
        let stream = plan.audience.stream_of(index);
        let random = self.prng.next();
        let mut player = Player::new(Arc::clone(&plan.player_config[stream]), random, now);
        player.leave_ns = now.saturating_add(plan.arrivals.stay_ns(index));
        self.open(plan.target.address(index), Actor::Player(Box::new(player)));
    }

    fn open_hostile(&mut self, behaviour: Behaviour, now: u64) {
        let plan = Arc::clone(&self.plan);
        if behaviour == Behaviour::Flood {
            if self.floods >= FLOOD_MAX {
                return;
            }
            self.floods += 1;
        }
        let random = self.prng.next();
        let abuser = Abuser::new(behaviour, &plan.player_config[0], random, now);
        self.tally.note_hostile(behaviour.name(), "opened");
        self.open(plan.target.address(random), Actor::Abuser(Box::new(abuser)));
    }

    fn open(&mut self, addr: SocketAddr, actor: Actor) {
        self.tally.counts.started += 1;
        let conn = match self.io.connect(addr) {
            Ok(conn) => conn,
            Err(error) => return self.note_end(actor, &format!("connect: {error}")),
        };
        let mut link = Link::new(conn);
        if let Actor::Abuser(abuser) = &actor {
            link.send_bytes_max = abuser.send_bytes_max();
        }
        if self.entries.len() <= conn.index() {
            self.entries.resize_with(conn.index() + 1, || None);
        }
        self.entries[conn.index()] = Some(Entry { link, actor, scheduled: false });
        self.schedule(conn);
    }

    fn entry(&mut self, conn: ConnId) -> Option<&mut Entry> {
        self.entries.get_mut(conn.index())?.as_mut().filter(|entry| entry.link.conn() == conn)
    }

    /// Puts the actor's due time into the timers unless it is there.
    fn schedule(&mut self, conn: ConnId) {
        let Some(entry) = self.entry(conn) else { return };
        let due_ns = entry.actor.due_ns();
        if !entry.scheduled && due_ns != u64::MAX {
            entry.scheduled = true;
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
            if entry.link.conn() != conn {
                continue;
            }
            entry.scheduled = false;
            match &mut entry.actor {
                Actor::Player(player) => {
                    player.leave(&mut entry.link.pending);
                    self.tally.counts.left += 1;
                    self.close_planned(conn, now);
                    continue;
                }
                Actor::Publisher(publisher) => {
                    publisher.on_due(now, &mut self.tally, &mut entry.link.pending);
                }
                Actor::Abuser(abuser) => abuser.on_due(now, &mut entry.link.pending),
            }
            entry.link.flush(&mut self.io);
            self.schedule(conn);
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
                match &mut entry.actor {
                    Actor::Player(player) => {
                        player.on_connected(now, &mut self.tally, &mut link.pending);
                    }
                    Actor::Publisher(publisher) => publisher.on_connected(now, &mut link.pending),
                    Actor::Abuser(abuser) => abuser.on_connected(now, &mut link.pending),
                }
                Ok(())
            }
            Completion::Connected { result: Err(errno), .. } => {
                Err(format!("connect: {}", errno_text(errno)))
            }
            Completion::Received { data, .. } => {
                let (tally, out) = (&mut self.tally, &mut link.pending);
                match &mut entry.actor {
                    Actor::Player(player) => player.on_bytes(&data, &self.plan.judging, tally, out),
                    Actor::Publisher(publisher) => publisher.on_bytes(&data, tally, out),
                    Actor::Abuser(abuser) => {
                        abuser.on_bytes(&data, now, out);
                        Ok(())
                    }
                }
            }
            Completion::ReceiveEnded { reason: ReceiveEnd::Eof, .. } => {
                Err("closed by the server".into())
            }
            Completion::ReceiveEnded { reason: ReceiveEnd::Error(errno), .. }
            | Completion::SendFailed { errno, .. } => Err(errno_text(errno)),
            Completion::Sent { bytes, blocked, buf, .. } => {
                link.on_sent(bytes, blocked, buf);
                Ok(())
            }
            Completion::Writable { .. } => {
                link.on_writable();
                Ok(())
            }
            Completion::Accepted { .. } | Completion::Woken => Ok(()),
        };
        match outcome {
            Ok(()) => self.after_event(conn, now),
            Err(reason) => self.close_failed(conn, &reason, now),
        }
    }

    /// Sends what an event left to send, and does what an actor asks for by its flags.
    fn after_event(&mut self, conn: ConnId, now: u64) {
        let Some(entry) = self.entries.get_mut(conn.index()).and_then(Option::as_mut) else {
            return;
        };
        entry.link.flush(&mut self.io);
        if let Actor::Abuser(abuser) = &mut entry.actor {
            if std::mem::take(&mut abuser.is_deaf) {
                self.io.pause_receive(conn);
            }
            if abuser.is_done {
                self.again.push(abuser.behaviour);
                return self.close_planned(conn, now);
            }
        }
        self.schedule(conn);
    }

    /// Ends a connection as intended: what it has to say still goes out.
    fn close_planned(&mut self, conn: ConnId, now: u64) {
        let Some(mut entry) = self.entries.get_mut(conn.index()).and_then(Option::take) else {
            return;
        };
        entry.link.flush(&mut self.io);
        self.io.close(conn);
        if let Actor::Player(player) = &mut entry.actor {
            self.keep_summary(player, now);
        }
    }

    /// Ends a connection that has failed.
    fn close_failed(&mut self, conn: ConnId, reason: &str, now: u64) {
        let Some(mut entry) = self.entries.get_mut(conn.index()).and_then(Option::take) else {
            return;
        };
        self.io.close(conn);
        if let Actor::Player(player) = &mut entry.actor {
            self.keep_summary(player, now);
        }
        self.note_end(entry.actor, reason);
    }

    fn note_end(&mut self, actor: Actor, reason: &str) {
        match actor {
            Actor::Abuser(abuser) => self.tally.note_hostile(abuser.behaviour.name(), reason),
            other => self.tally.note_close(&format!("{}: {reason}", other.role())),
        }
    }

    fn keep_summary(&mut self, player: &mut Player, now: u64) {
        self.gone.add_accounts(player);
        let summary = player.finish(now, &mut self.tally);
        if self.summaries.len() < SUMMARIES_MAX {
            self.summaries.push(summary);
        }
    }

    /// An interval is over.
    fn on_tick(&mut self, now: u64) {
        let mut silent: Vec<(ConnId, Reason)> = Vec::new();
        for entry in self.entries.iter_mut().flatten() {
            let checked = match &mut entry.actor {
                Actor::Player(player) => player.on_tick(now),
                Actor::Publisher(publisher) => publisher.on_tick(now),
                Actor::Abuser(_) => Ok(()),
            };
            silent.extend(checked.err().map(|reason| (entry.link.conn(), reason)));
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
