//! Many random steps of publishers and players, with takeovers, grace periods, kicks, cuts, refusals and a
//! hook that changes its mind; again and again the places taken must be exactly those of who is there.

use rtmp::session::ClientRole::{self, Play, Publish};
use serde_json::{Value, json};

use crate::hook_server::{Does, HookServer};
use crate::peer::{Answer, Wire};
use crate::rig::Rig;
use crate::support::raw::RawPeer;
use crate::support::server::{How, matrix, wait_for};

const PUBLISHERS_MAX: u64 = 4;
const PLAYERS_MAX: u64 = 9;
const STREAMS: u64 = 6;
const ROUNDS: u32 = 25;
const STEPS: u32 = 12;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn one_of(&mut self, from: &[usize]) -> Option<usize> {
        let count = u64::try_from(from.len()).unwrap();
        if count == 0 { None } else { Some(from[usize::try_from(self.below(count)).unwrap()]) }
    }
}

fn settings(style: &str, hook: &HookServer) -> String {
    let mut text = "[defaults]\ngrace_ms = 150\nplay_wait_ms = 3600000\n".to_owned();
    let hook = format!(
        "scheme = \"hook\"\nurl = \"http://{}/\"\nbreaker_failures = 1000\ntimeout_ms = 20000",
        hook.address
    );
    for (name, provider) in [("open", "scheme = \"open\""), ("hook", hook.as_str())] {
        text += &format!(
            "[domain.\"push.{name}.test\"]\ntype = \"push\"\nstyle = \"{style}\"\n\
             publishers_max = {PUBLISHERS_MAX}\nconnections_per_address_max = 6\n\
             [[domain.\"push.{name}.test\".provider]]\n{provider}\n\
             [domain.\"play.{name}.test\"]\ntype = \"play\"\npush_domain = \"push.{name}.test\"\n\
             subscribers_max = {PLAYERS_MAX}\nconnections_per_address_max = 20\n\
             [[domain.\"play.{name}.test\".provider]]\n{provider}\n"
        );
    }
    text
}

struct Crowd {
    rig: Rig,
    wire: Wire,
    hook: HookServer,
    dice: Dice,
    /// Which pair of domains a peer went to.
    pairs: Vec<&'static str>,
    is_hook_waiting: bool,
}

impl Crowd {
    fn open(&mut self, role: ClientRole) {
        let pair = if self.dice.below(2) == 0 { "open" } else { "hook" };
        let half = if role == Publish { "push" } else { "play" };
        // Now and then a name that is refused.
        let stream = match self.dice.below(12) {
            0 => "no.name".to_owned(),
            n => format!("s{}", n % STREAMS),
        };
        self.wire.open(role, &format!("rtmp://{half}.{pair}.test/live/{stream}"));
        self.pairs.push(pair);
    }

    fn here(&self) -> Vec<usize> {
        let peers = self.wire.peers.iter().enumerate();
        peers.filter(|(_, peer)| !peer.has_ended()).map(|(at, _)| at).collect()
    }

    fn step(&mut self) {
        let here = self.here();
        let somebody = self.dice.one_of(&here);
        match (self.dice.below(16), somebody) {
            (0..=4, _) | (_, None) => self.open(Publish),
            (5..=8, _) => self.open(Play),
            (9, Some(peer)) => self.wire.leave(peer),
            (10, Some(peer)) => self.wire.vanish(peer),
            (11, Some(peer)) => self.wire.reset(peer),
            (12, Some(peer)) => {
                if let Some(id) = &self.wire.peers[peer].id {
                    // It may have gone meanwhile.
                    self.rig.ask("DELETE", &format!("/api/v1/clients/{id}"), &Value::Null);
                }
            }
            (13, _) => {
                let stream = format!("s{}", self.dice.below(STREAMS));
                let is_short = self.dice.below(2) == 0;
                let body = json!({"domain": "push.open.test", "stream": stream, "scope": "all",
                    "oneshot": is_short});
                let done = self.rig.done("POST", "/api/v1/forbids", &body);
                if !is_short {
                    let target = done["target"].as_str().unwrap();
                    self.wire.turn();
                    self.rig.done("DELETE", &format!("/api/v1/forbids/{target}"), &Value::Null);
                }
            }
            (14, _) => {
                self.is_hook_waiting = true;
                self.hook.now(Does::Waits);
            }
            _ => {
                self.is_hook_waiting = false;
                let refuses = self.dice.below(3) == 0;
                self.hook.answers(if refuses { 403 } else { 200 }, "");
            }
        }
        for _ in 0..self.dice.below(4) {
            self.wire.turn();
        }
    }

    /// Everybody has an answer, and the places taken are those of who is there.
    fn settle(&mut self, round: u32) {
        if self.is_hook_waiting {
            self.is_hook_waiting = false;
            self.hook.answers(200, "");
        }
        self.wire.until("everybody to be answered", |wire| {
            wire.peers.iter().all(|peer| peer.has_ended() || peer.answer == Some(Answer::Started))
        });
        let expected = |crowd: &Self, pair: &str, role: ClientRole| {
            let peers = crowd.wire.peers.iter().zip(&crowd.pairs);
            let there =
                peers.filter(|(peer, at)| **at == pair && peer.role == role && !peer.has_ended());
            there.count() as u64
        };
        let begun = std::time::Instant::now();
        for pair in ["open", "hook"] {
            loop {
                self.wire.turn();
                let places = (
                    self.rig.counts(&format!("push.{pair}.test")).0,
                    self.rig.counts(&format!("play.{pair}.test")).1,
                );
                let there = (expected(self, pair, Publish), expected(self, pair, Play));
                assert!(places.0 <= PUBLISHERS_MAX + 2 && places.1 <= PLAYERS_MAX, "{places:?}");
                if places == there {
                    assert!(there.0 <= PUBLISHERS_MAX, "round {round}: {there:?}");
                    break;
                }
                let seconds = begun.elapsed().as_secs();
                assert!(seconds < 20, "round {round}, {pair}: {places:?} taken, {there:?} there");
            }
        }
    }
}

fn run(how: How, style: &str, seed: u64) {
    println!("{how:?} {style} seed {seed}");
    let hook = HookServer::answering(200, "");
    let rig = Rig::start(how, &settings(style, &hook));
    let wire = Wire::new(rig.rtmp);
    let (dice, pairs, is_hook_waiting) = (Dice(seed), Vec::new(), false);
    let mut crowd = Crowd { rig, wire, hook, dice, pairs, is_hook_waiting };
    for round in 0..ROUNDS {
        for _ in 0..STEPS {
            crowd.step();
        }
        crowd.settle(round);
    }
    // Otherwise the dice were no test.
    let peers = crowd.wire.peers.iter();
    let started = peers.filter(|peer| peer.answer == Some(Answer::Started)).count();
    let publishes =
        |result: &str| crowd.rig.metric("ringcast_publish_total", &format!("result=\"{result}\""));
    let conflicts = publishes(if style == "tencent" { "takeover" } else { "busy" });
    let counts = (started, conflicts, publishes("resumed"), publishes("limit"));
    assert!(counts.0 > 50 && counts.1 > 5 && counts.2 > 0, "{counts:?}");
    for peer in crowd.here() {
        crowd.wire.vanish(peer);
        crowd.wire.until_ended(peer);
    }
    let Crowd { rig, mut wire, .. } = crowd;
    for pair in ["open", "hook"] {
        wait_for("all places to be free", || rig.counts(&format!("push.{pair}.test")) == (0, 0));
        wait_for("all places to be free", || rig.counts(&format!("play.{pair}.test")) == (0, 0));
    }
    // The table of addresses is empty too: as many fit as at the beginning.
    for n in 0..PUBLISHERS_MAX {
        wire.started(Publish, &format!("rtmp://push.open.test/live/n{n}"));
    }
    for _ in 0..PLAYERS_MAX {
        wire.started(Play, "rtmp://play.open.test/live/n0");
    }
    assert_eq!(wire.refused(Publish, "rtmp://push.open.test/live/n9").1, "too many publishers");
    assert_eq!(wire.refused(Play, "rtmp://play.open.test/live/n9").1, "too many players");
}

#[test]
fn places_are_those_of_who_is_there_after_many_random_steps_where_the_newest_wins() {
    for (how, seed) in matrix(&[1, 2]).into_iter().zip(1..) {
        run(how, "tencent", seed);
    }
}

#[test]
fn places_are_those_of_who_is_there_after_many_random_steps_where_the_newcomer_is_refused() {
    for (how, seed) in matrix(&[1, 2]).into_iter().zip(100..) {
        run(how, "aliyun", seed);
    }
}

/// A peer that is one command away from publishing on the push domain.
fn about_to_publish(rig: &Rig) -> RawPeer {
    let mut raw = RawPeer::shaken(rig.rtmp);
    raw.command(0, "connect", 1.0, |amf| {
        amf.object_begin();
        amf.key("app");
        amf.string("live");
        amf.key("tcUrl");
        amf.string("rtmp://push.open.test/live");
        amf.object_end();
    });
    raw.read_until(b"NetConnection.Connect.Success");
    raw.create_stream(2.0);
    raw.read_until(b"_result");
    raw
}

#[test]
fn who_leaves_while_it_waits_for_another_to_yield_takes_no_place() {
    const NEWCOMERS: usize = 5;
    let hook = HookServer::answering(200, "");
    for how in matrix(&[2]) {
        let rig = Rig::start(how, &settings("tencent", &hook));
        let mut wire = Wire::new(rig.rtmp);
        for round in 0..40 {
            let owner = wire.started(Publish, "rtmp://push.open.test/live/cam");
            let mut newcomers: Vec<RawPeer> =
                (0..NEWCOMERS).map(|_| about_to_publish(&rig)).collect();
            for newcomer in &mut newcomers {
                newcomer.command(1, "publish", 3.0, |amf| {
                    amf.null();
                    amf.string("cam");
                });
                // Fails only when the server was quicker.
                let _ = newcomer.socket.shutdown(std::net::Shutdown::Write);
            }
            let what = format!("the places after round {round}, {how:?}");
            wait_for(&what, || {
                wire.turn();
                rig.counts("push.open.test").0 == u64::from(!wire.peers[owner].has_ended())
            });
            drop(newcomers);
            wire.leave(owner);
            wait_for(&what, || rig.counts("push.open.test") == (0, 0));
        }
    }
}

/// Newcomers that wait for the owner to yield while the stream is being forbidden.
#[test]
fn nobody_slips_past_a_forbid_that_comes_while_a_takeover_is_under_way() {
    let hook = HookServer::answering(200, "");
    for how in matrix(&[2]) {
        let rig = Rig::start(how, &settings("tencent", &hook));
        let mut wire = Wire::new(rig.rtmp);
        for round in 0..60 {
            let owner = wire.started(Publish, "rtmp://push.open.test/live/cam");
            let mut newcomers: Vec<RawPeer> = (0..4).map(|_| about_to_publish(&rig)).collect();
            std::thread::scope(|scope| {
                let forbid = scope.spawn(|| {
                    let body = json!({"domain": "push.open.test", "stream": "cam"});
                    rig.done("POST", "/api/v1/forbids", &body)
                });
                for newcomer in &mut newcomers {
                    newcomer.command(1, "publish", 3.0, |amf| {
                        amf.null();
                        amf.string("cam");
                    });
                }
                forbid.join().unwrap();
            });
            wire.until_ended(owner);
            wait_for(&format!("nobody to publish, round {round}, {how:?}"), || {
                rig.counts("push.open.test") == (0, 0)
            });
            for mut newcomer in newcomers {
                newcomer.read_to_end();
            }
            let target = "/api/v1/forbids/stream:push.open.test/live/cam";
            rig.done("DELETE", target, &Value::Null);
        }
    }
}
