//! A drain by its rules, on a clock of its own: who goes when, to the step of the server's sweep.
//!
//! ```text
//!   drain ─ 0 s ─────────────────── 3 s ── 4 s ──────── 6 s ─────── the last viewer ──────── deadline
//!     unwatched publisher asked │ each viewer at the keyframe  │            │ publisher asked   │ closed
//!                               │ behind its turn: told        │            │                   │
//!                               │ or asked, and told 2 s later │            │                   │
//! ```

use std::collections::BTreeSet;

use edge::command::Command;
use edge::config::Config;

use super::media::Class;
use super::world::World;

/// Distance of keyframes, in milliseconds: pictures come every 100.
const GOP_MS: u64 = 1_000;
/// Two steps of the server's sweep, one of them to notice the keyframe, and the way through the network.
const SOON_MS: u64 = 150;
/// The turns of viewers lie within this time, in milliseconds.
const SPREAD_MS: u64 = 3_000;
/// How long who was asked to reconnect is given, in milliseconds.
const RECONNECT_MS: u64 = 2_000;
/// Streams: with viewers of every kind, and without any.
const WATCHED: usize = 0;
const UNWATCHED: usize = 1;
/// Viewers of each kind.
const EACH: usize = 8;

impl World {
    /// Publishers of two streams, and viewers of the first: players who can be asked to reconnect and who
    /// cannot, viewers of FLV and of fragments.
    fn on_air(seed: u64) -> Result<Self, String> {
        let mut world = Self::steady(seed, Config::default(), 2);
        for path in [WATCHED, UNWATCHED] {
            world.publish(path);
            let publisher = world.publishers.last_mut().expect("it has just come");
            publisher.calm_down_with_groups_of(GOP_MS / 100);
        }
        world.live_until(world.now_ms() + 200)?;
        for _ in 0..EACH {
            world.join_promptly(WATCHED, false);
            world.join_promptly(WATCHED, true);
            world.join_as_of_old(WATCHED);
            world.make_prompt();
            world.join_fragments(WATCHED);
            world.make_prompt();
        }
        world.live_until(world.now_ms() + 5_000)?;
        let is_watching = |world: &Self, at: usize| world.viewers[at].plays[0].judge.media > 20;
        match (0..world.viewers.len()).find(|&at| !is_watching(&world, at)) {
            Some(at) => Err(format!("viewer {at} does not watch yet")),
            None => Ok(world),
        }
    }

    /// Begins a drain; returns when.
    fn drain(&mut self, deadline_ms: u64) -> u64 {
        self.is_draining = true;
        let links = self.viewers.iter_mut().filter_map(|viewer| viewer.link.web());
        links.for_each(|link| link.may_be_drained = true);
        self.server.send_all(|| Command::Drain { deadline_ms });
        self.now_ms()
    }

    /// When the newest keyframe of the watched stream was sent, at a moment.
    fn keyframe_before(&self, at_ms: u64) -> u64 {
        let session = self.log.sessions.iter().find(|session| session.path == WATCHED);
        let sent = session.expect("somebody published").sent.iter();
        let keyframes = sent.filter(|sent| sent.class == Class::Video { keyframe: true });
        keyframes.map(|sent| sent.at_ms).take_while(|&sent| sent <= at_ms).last().unwrap_or(0)
    }

    /// With time enough: viewers at keyframes, one group after the other, and publishers behind them.
    pub fn drain_in_turn(seed: u64) -> Result<(), String> {
        let mut world = Self::on_air(seed)?;
        let deadline_ms = 20_000;
        let began_ms = world.drain(deadline_ms);
        world.live_until(began_ms + deadline_ms - SOON_MS)?;
        let mut groups = BTreeSet::new();
        let mut last_gone_ms = began_ms;
        for (at, viewer) in world.viewers.iter().enumerate() {
            let gone_ms = viewer.gone_at_ms.ok_or(format!("viewer {at} was not let go"))?;
            let turn_ms = viewer.asked_at_ms.unwrap_or(gone_ms);
            let keyframe_ms = world.keyframe_before(turn_ms);
            if turn_ms > keyframe_ms + SOON_MS {
                let late_ms = turn_ms - keyframe_ms;
                return Err(format!("viewer {at} goes {late_ms} ms behind a keyframe"));
            }
            if turn_ms > began_ms + SPREAD_MS + GOP_MS + SOON_MS {
                return Err(format!("viewer {at} goes {} ms after the begin", turn_ms - began_ms));
            }
            if let Some(asked_ms) = viewer.asked_at_ms
                && !(RECONNECT_MS..RECONNECT_MS + SOON_MS).contains(&(gone_ms - asked_ms))
            {
                return Err(format!("viewer {at} was given {} ms", gone_ms - asked_ms));
            }
            groups.insert(keyframe_ms);
            last_gone_ms = last_gone_ms.max(gone_ms);
        }
        let asked = world.viewers.iter().filter(|viewer| viewer.asked_at_ms.is_some()).count();
        if asked != EACH {
            return Err(format!("{asked} viewers were asked to reconnect, {EACH} can be"));
        }
        if groups.len() < 3 {
            return Err(format!("all viewers go at the keyframes {groups:?}"));
        }
        for publisher in &world.publishers {
            let asked_ms = publisher.asked_at_ms.ok_or("a publisher was not asked")?;
            let due_ms = if publisher.path == WATCHED { last_gone_ms } else { began_ms };
            if !(due_ms..due_ms + SOON_MS).contains(&asked_ms) {
                let path = publisher.path;
                return Err(format!("path {path}: asked at {asked_ms} ms, due at {due_ms}"));
            }
            if let Some(gone_ms) = publisher.gone_at_ms {
                return Err(format!("a publisher was cut at {gone_ms} ms, in time"));
            }
        }
        world.live_until(began_ms + deadline_ms + SOON_MS)?;
        world.expect_nobody()
    }

    /// In little time publishers are asked at its half, whoever watches, and the end is the end.
    pub fn drain_in_haste(seed: u64) -> Result<(), String> {
        let mut world = Self::on_air(seed)?;
        let deadline_ms = 3_000;
        let began_ms = world.drain(deadline_ms);
        world.live_until(began_ms + deadline_ms / 2 - 1)?;
        if world.publishers[WATCHED].asked_at_ms.is_some() {
            return Err("a publisher is asked while it is watched".to_owned());
        }
        world.live_until(began_ms + deadline_ms / 2 + SOON_MS)?;
        if world.publishers[WATCHED].asked_at_ms.is_none() {
            return Err("a publisher is not asked at half of the time".to_owned());
        }
        if world.viewers.iter().all(|viewer| viewer.gone_at_ms.is_some()) {
            return Err("it was not watched any more".to_owned());
        }
        world.live_until(began_ms + deadline_ms + SOON_MS)?;
        world.expect_nobody()
    }

    fn expect_nobody(&self) -> Result<(), String> {
        let viewers = self.viewers.iter().filter(|viewer| viewer.link.is_open()).count();
        let publishers = self.publishers.iter().filter(|it| it.link.is_open()).count();
        if viewers + publishers > 0 {
            return Err(format!("{viewers} viewers, {publishers} publishers outlive the drain"));
        }
        Ok(())
    }
}
