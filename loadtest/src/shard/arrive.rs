//! Who comes next on a thread, and how a connection begins.

use super::actor::{Actor, Shaker};
use super::{Again, Duty, Entry, Shard};
use crate::abuse::{Abuser, Behaviour};
use crate::link::{Link, NoLease};
use crate::num::{spread, whole};
use crate::plan::Media;
use crate::player::Player;
use crate::publisher::Publisher;
use crate::secure::Secure;
use crate::source::{FlvLoop, Source, Synthetic};
use crate::tally::Measure;
use std::sync::Arc;
use uring::Io;

/// Connections begun in one turn; the rest follows in the next.
const ARRIVALS_PER_TURN_MAX: usize = 64;
/// Connections a flood opens in one run, all flooding peers together.
const FLOOD_MAX: u32 = 5_000;

impl<I: Io<Lease = NoLease>> Shard<I> {
    /// When the next of all these comes; `u64::MAX`: nobody does.
    pub(super) fn next_arrival_ns(&self) -> u64 {
        self.next_other_ns().min(self.next_shaker_ns()).min(self.next_player_ns())
    }

    /// When the next publisher or hostile peer comes; `u64::MAX`: none.
    fn next_other_ns(&self) -> u64 {
        let plan = &self.plan;
        match self.duty {
            Duty::Publish if plan.publish.is_some() && self.next_other < plan.streams => {
                plan.start_ns
            }
            Duty::Play { first: 0, .. } if self.next_other < plan.hostile.len() => plan.hostile_ns,
            _ => u64::MAX,
        }
    }

    fn next_shaker_ns(&self) -> u64 {
        match self.duty {
            Duty::Play { .. } if self.next_shaker < self.plan.shakers => self.plan.play_ns,
            _ => u64::MAX,
        }
    }

    fn next_player_ns(&self) -> u64 {
        let plan = &self.plan;
        if self.next_player >= self.players_end {
            return u64::MAX;
        }
        let after_ns = match self.duty {
            Duty::Storm { .. } => plan.disturbance.map_or(u64::MAX, |storm| storm.at_ns),
            _ => plan.arrivals.at_ns(self.next_player),
        };
        plan.play_ns.saturating_add(after_ns)
    }

    /// Begins the connections whose time has come.
    pub(super) fn arrive(&mut self, now: u64) {
        for again in std::mem::take(&mut self.again) {
            match again {
                Again::Hostile(behaviour) => self.open_hostile(behaviour, now),
                Again::Shaker => self.open_shaker(now),
            }
        }
        for _ in 0..ARRIVALS_PER_TURN_MAX {
            let player_ns = self.next_player_ns();
            if self.next_other_ns() <= now {
                let index = self.next_other;
                self.next_other += 1;
                match self.duty {
                    Duty::Publish => self.open_publisher(index, now),
                    _ => self.open_hostile(self.plan.hostile[index], now),
                }
            } else if self.next_shaker_ns() <= now {
                self.next_shaker += self.duty.stride();
                self.open_shaker(now);
            } else if player_ns <= now {
                // Players that come all at once are late by design.
                if self.plan.arrivals.is_paced() && matches!(self.duty, Duty::Play { .. }) {
                    self.tally.record(Measure::Late, now - player_ns);
                }
                let player = self.next_player;
                self.next_player += self.duty.stride();
                self.open_player(player, now);
            } else {
                return;
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
        self.open(Actor::Publisher(Box::new(publisher.with_phase(phase_ns))), now);
    }

    fn open_player(&mut self, index: u64, now: u64) {
        let plan = Arc::clone(&self.plan);
        let stream = plan.audience.stream_of(index);
        let random = self.prng.next();
        let is_storm = matches!(self.duty, Duty::Storm { .. });
        let mut player = Player::new(&plan.watched[stream], is_storm, random, now);
        player.leave_ns = now.saturating_add(plan.arrivals.stay_ns(index));
        self.open(Actor::Player(Box::new(player)), now);
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
        let abuser = Abuser::new(behaviour, &plan.watched[0], random, now);
        self.tally.note_hostile(behaviour.name(), "opened");
        self.open(Actor::Abuser(Box::new(abuser)), now);
    }

    fn open_shaker(&mut self, now: u64) {
        self.open(Actor::Shaker(Shaker::new(self.plan.shakers_resume)), now);
    }

    fn open(&mut self, actor: Actor, now: u64) {
        self.tally.counts.started += 1;
        self.connect(actor, now);
    }

    /// Begins the connection of somebody who is new, or has lost the last one.
    pub(super) fn connect(&mut self, actor: Actor, now: u64) {
        let (target, security) = match actor {
            Actor::Publisher(_) => (&self.plan.publish_target, &self.plan.publish_security),
            _ => (&self.plan.target, &self.plan.security),
        };
        let (source, addr) = target.ends(self.opened);
        self.opened = self.opened.wrapping_add(self.duty.stride());
        let is_plain = matches!(&actor, Actor::Abuser(abuser) if abuser.is_raw());
        let security = security.as_ref().filter(|_| !is_plain);
        let secure = match security.map(Secure::new).transpose() {
            Ok(secure) => secure.map(Box::new),
            Err(reason) => return self.note_end(actor, &reason),
        };
        let conn = match self.io.connect_from(source, addr, None) {
            Ok(conn) => conn,
            Err(error) => return self.note_end(actor, &format!("connect: {error}")),
        };
        let mut link = Link::new(conn, secure, now);
        if let Actor::Abuser(abuser) = &actor {
            link.send_bytes_max = abuser.send_bytes_max();
        }
        if self.entries.len() <= conn.index() {
            self.entries.resize_with(conn.index() + 1, || None);
        }
        self.entries[conn.index()] = Some(Entry { link, actor, scheduled_ns: u64::MAX });
        self.schedule(conn);
    }
}
