//! An upgrade: the workers stand still and tell what they have, others, as many or not, take it over and go
//! on over the same sockets. Records and descriptors travel as they do between two processes.
//!
//! ```text
//!   Stopping ─ still ─► Packaging ─► Exporting ─ told ─► Offered ─┬─ the word ─► the new go on
//!       │                   │            │                  │     │              the old let go ─► drained
//!       └───────────────────┴────────────┴──────────────────┴─────┴─ refused, damaged, gone or late:
//!                                                                    the old go on
//! ```
//!
//! Who is taken along must notice nothing: every rule for what it hears holds across the change. Who is
//! not is told by its server's end, in order. Nobody who is shown a stream, or publishes one, is left behind.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};

use aws_lc_rs::digest::{SHA256, digest};
use edge::command::{Command, InspectPage, InspectScope, Reply};
use edge::config::Config;
use edge::hand_over::record::{Legacy, SpokenRecord};
use edge::hand_over::{HandOverError, wire};
use edge::hls::{self, EXPORT_PARTS, Passed};
use edge::storage::Baton;
use edge::worker::Export;
use tokio::sync::oneshot;
use uring::sim::Faults;

use super::actions::FOR_EVER_MS;
use super::server::Server;
use super::viewer::{Sabotage, Viewer};
use super::world::World;

/// Time the old workers have to drain what was not passed on, in milliseconds.
const DRAIN_MS: u64 = 4_000;
/// Who has heard a message so shortly before an upgrade is in the middle of its stream, in milliseconds.
const WATCHING_MS: u64 = 400;
/// Who has said something so shortly before may be in the middle of saying it, in milliseconds.
const SAYING_MS: u64 = 3_000;
/// Length and digest of a block of records.
const HEAD_BYTES: usize = 8 + 32;
/// Processes of a run that may be on their way out at one time.
const BEFORE_MAX: usize = 2;

/// How an upgrade ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Fate {
    PassedOn,
    /// A byte of the records is another one when it arrives.
    Damaged,
    /// The new process has everything in place, and cannot go on.
    Refused,
    /// It ends before the word comes.
    Gone,
    /// It is not in place in time.
    Late,
}

pub struct Upgrade {
    fate: Fate,
    began_ms: u64,
    /// Workers of the new process.
    workers: usize,
    stage: Stage,
}

enum Stage {
    Stopping(Awaited<()>),
    /// The packager tells first: from where on it needs the rings.
    Packaging {
        answer: mpsc::Receiver<Passed>,
        told: Option<Passed>,
        until_ms: u64,
    },
    Exporting(Exports),
    Offered(Offer),
    /// The old workers were told to let go; the new go on a moment later.
    LetGo(Offer),
    /// The new ones have gone on; the old are told a moment later.
    GoneOn {
        at_ms: u64,
    },
}

/// What the old process tells.
struct Exports {
    /// Nothing, if the packager did not answer in time.
    packaging: Option<Passed>,
    workers: Awaited<Result<Box<Export>, HandOverError>>,
    clients: Awaited<InspectPage>,
}

/// The new process, in place.
struct Offer {
    server: Box<Server>,
    /// When the word comes.
    at_ms: u64,
    /// Whose connections the old process had, and whose it told of.
    present: BTreeSet<SocketAddr>,
    passed: BTreeSet<SocketAddr>,
    /// HLS begins anew there.
    is_packaging_lost: bool,
}

/// Answers that come one by one.
struct Awaited<T>(Vec<(oneshot::Receiver<T>, Option<T>)>);

impl Stage {
    fn is_ready(&mut self, now_ms: u64) -> bool {
        match self {
            Self::Stopping(stopping) => stopping.poll(),
            Self::Packaging { answer, told, until_ms } => {
                *told = told.take().or_else(|| answer.try_recv().ok());
                told.is_some() || now_ms >= *until_ms
            }
            Self::Exporting(exports) => exports.workers.poll() & exports.clients.poll(),
            Self::Offered(offer) | Self::LetGo(offer) => {
                offer.server.turn_held();
                now_ms >= offer.at_ms
            }
            Self::GoneOn { at_ms } => now_ms >= *at_ms,
        }
    }
}

impl<T> Awaited<T> {
    /// Asks every worker.
    fn of(server: &Server, command: impl Fn(Reply<T>) -> Command) -> Self {
        let mut awaited = Vec::new();
        for handle in &server.handles {
            let (reply, answer) = Reply::channel();
            handle.send(command(reply)).expect("commands are taken every turn");
            awaited.push((answer, None));
        }
        Self(awaited)
    }

    /// True once all are there.
    fn poll(&mut self) -> bool {
        for (answer, got) in &mut self.0 {
            *got = got.take().or_else(|| answer.try_recv().ok());
        }
        self.0.iter().all(|(_, got)| got.is_some())
    }

    fn take(self) -> impl Iterator<Item = T> {
        self.0.into_iter().filter_map(|(_, got)| got)
    }
}

/// What upgrades of a run came to, and what the processes that are gone had counted.
#[derive(Copy, Clone, Debug, Default)]
pub struct Upgrades {
    /// None are made.
    pub are_off: bool,
    pub passed_on: u64,
    pub failed: u64,
    /// Connections that went along, and viewers that stayed.
    pub taken: u64,
    pub left: u64,
    /// Connections that could not be taken over any more.
    pub broken: u64,
    /// Messages that went along in part: at the tail of a ring, and aside.
    pub parts: [u64; 2],
    pub skips: u64,
    pub stale: u64,
    pub takeovers: u64,
}

impl World {
    /// Begins an upgrade, unless one is under way or the process before is not gone yet.
    pub fn begin_upgrade(&mut self) {
        if self.upgrade.is_some() || self.before.len() >= BEFORE_MAX || self.is_draining {
            return;
        }
        let fate = match self.dice.index(16) {
            0 => Fate::Damaged,
            1 => Fate::Refused,
            2 => Fate::Gone,
            3 => Fate::Late,
            _ => Fate::PassedOn,
        };
        let workers = 1 + self.dice.index(4);
        self.start_upgrade(fate, workers);
    }

    /// Begins one that succeeds unless something is wrong.
    pub fn upgrade_to(&mut self, workers: usize) {
        self.start_upgrade(Fate::PassedOn, workers);
    }

    fn start_upgrade(&mut self, fate: Fate, workers: usize) {
        let stage =
            Stage::Stopping(Awaited::of(&self.server, |reply| Command::StandStill { reply }));
        self.upgrade = Some(Upgrade { fate, began_ms: self.now_ms(), workers, stage });
        self.note(&format!("upgrade to {workers} workers: {fate:?}"));
        self.stand_still_until(self.now_ms());
    }

    /// Nothing moved until then: what is on its way comes late.
    fn stand_still_until(&mut self, until_ms: u64) {
        self.starved_at_ms = self.starved_at_ms.max(until_ms);
        if !self.is_fair {
            // A lag, or less of a ring than it would take to catch up.
            self.viewers.iter_mut().for_each(Viewer::forgive_gaps);
        }
    }

    /// One step of the upgrade under way, and of the processes before.
    pub fn turn_upgrade(&mut self, now_ms: u64) -> Result<(), String> {
        self.turn_before(now_ms)?;
        let Some(mut upgrade) = self.upgrade.take() else { return Ok(()) };
        self.stand_still_until(now_ms);
        let is_ready = upgrade.stage.is_ready(now_ms);
        let still_ms = self.config.shutdown.still_ms_max;
        let is_late = now_ms >= upgrade.began_ms + u64::from(still_ms);
        let is_offered = matches!(upgrade.stage, Stage::LetGo(_) | Stage::GoneOn { .. });
        if is_late && !is_offered {
            self.fail_upgrade("out of time");
            return Ok(());
        }
        if !is_ready {
            self.upgrade = Some(upgrade);
            return Ok(());
        }
        let stage = match upgrade.stage {
            Stage::Stopping(_) => {
                let (sender, answer) = mpsc::channel();
                self.server.order_packager(hls::Order::Export(sender));
                let until_ms = now_ms + u64::from(still_ms / EXPORT_PARTS);
                Some(Stage::Packaging { answer, told: None, until_ms })
            }
            Stage::Packaging { told: packaging, .. } => {
                let scope = InspectScope::Clients;
                let inspect = |reply| Command::Inspect { scope, cursor: 0, count_max: 256, reply };
                let clients = Awaited::of(&self.server, inspect);
                let export = |reply| Command::Export { reply };
                let workers = Awaited::of(&self.server, export);
                Some(Stage::Exporting(Exports { packaging, workers, clients }))
            }
            Stage::Exporting(exports) => {
                self.offer(upgrade.fate, upgrade.workers, exports)?.map(Stage::Offered)
            }
            Stage::Offered(_) if upgrade.fate == Fate::Gone => {
                self.fail_upgrade("the new process has ended");
                None
            }
            Stage::Offered(offer) => Some(self.give_the_word(offer, upgrade.began_ms)?),
            Stage::LetGo(offer) => {
                self.go_on(*offer.server);
                None
            }
            Stage::GoneOn { .. } => {
                let_go(self.before.last_mut().expect("it was just put there"));
                None
            }
        };
        self.upgrade = stage.map(|stage| Upgrade { stage, ..upgrade });
        Ok(())
    }

    /// When something of it is due.
    pub fn upgrade_next_ms(&self) -> u64 {
        let Some(upgrade) = &self.upgrade else { return u64::MAX };
        match &upgrade.stage {
            Stage::Offered(offer) | Stage::LetGo(offer) => offer.at_ms,
            Stage::GoneOn { at_ms } => *at_ms,
            Stage::Stopping(_) | Stage::Packaging { .. } | Stage::Exporting(_) => self.now_ms() + 1,
        }
    }

    fn fail_upgrade(&mut self, why: &str) {
        self.server.send_all(|| Command::GoOn);
        self.server.order_packager(hls::Order::GoOn);
        self.upgrades.failed += 1;
        self.note(&format!("the upgrade has failed: {why}"));
    }

    /// Puts the new process in place. `None` if the old has to go on.
    fn offer(
        &mut self,
        fate: Fate,
        workers: usize,
        exports: Exports,
    ) -> Result<Option<Offer>, String> {
        let Exports { packaging, workers: exports, clients } = exports;
        let clients = clients.take().flat_map(|page| page.clients);
        let present = clients.map(|client| client.peer.parse().expect("an address")).collect();
        let is_packaging_lost = packaging.is_none();
        let packaging = packaging.unwrap_or_default();
        let mut legacy = Legacy::default();
        let (mut sockets, mut of_connections) = (Vec::new(), Vec::new());
        for export in exports.take() {
            let export = export.map_err(|error| format!("an export: {error}"))?;
            let Export { record, sockets: own, doors } = *export;
            for (door, socket) in doors {
                legacy.doors.push(door);
                sockets.push(socket);
            }
            legacy.workers.push(record);
            of_connections.extend(own);
        }
        sockets.extend(of_connections);
        sockets.extend(packaging.files);
        legacy.packaging = packaging.record;
        legacy.renditions = self.server.shared.hls.numbers().into_iter().map(Into::into).collect();
        let connections = legacy.workers.iter().flat_map(|worker| &worker.connections);
        let passed: BTreeSet<SocketAddr> = connections.map(|connection| connection.peer).collect();
        let (places, told) = (places(&legacy), passed.len() as u64);
        let passed = self.leave_out(passed);
        for stream in legacy.workers.iter().flat_map(|worker| &worker.streams) {
            self.upgrades.parts[0] += u64::from(stream.publisher.at_tail.is_some());
            self.upgrades.parts[1] += stream.publisher.aside.len() as u64;
        }
        self.plant(&mut legacy);
        let mut block = wire::encode(&legacy).map_err(|error| format!("records: {error}"))?;
        self.last_record = block[HEAD_BYTES..].to_vec();
        if fate == Fate::Damaged {
            let at = self.dice.index(block.len());
            block[at] ^= 1 << self.dice.index(8);
        }
        let legacy = match (read_block(&block), fate) {
            (Err(error), Fate::Damaged) => {
                self.fail_upgrade(&error.to_string());
                return Ok(None);
            }
            (Ok(_), Fate::Damaged) => return Err("damaged records were read".to_owned()),
            (legacy, _) => legacy.map_err(|error| format!("records: {error}"))?,
        };
        let sockets = carry(&sockets).map_err(|error| format!("descriptors: {error}"))?;
        let (net, config, pools) = (self.net.clone(), self.config.clone(), self.pools);
        let (now_ms, dice) = (self.now_ms(), &mut self.dice);
        let server =
            Server::take_over(&net, &config, pools, workers, dice, legacy, sockets, now_ms);
        let server = match server {
            Ok(server) => server,
            // Fewer workers have fewer places.
            Err(error) if self.is_scarce => {
                self.fail_upgrade(&error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(format!("the new process refuses: {error}")),
        };
        self.upgrades.broken += told - server.adopted();
        if self.sabotage == Sabotage::KeepPlace {
            server.keep_place();
        }
        let taken = server.quotas.taken();
        if taken.0 > places.0 || taken.1 > places.1 {
            return Err(format!("{taken:?} places were taken for {places:?} passed on"));
        }
        if fate == Fate::Refused {
            self.fail_upgrade("it cannot go on");
            return Ok(None);
        }
        let at_ms = match fate {
            Fate::Late => u64::MAX,
            _ => self.now_ms() + self.dice.pick(&[0, 5, 120, 900]),
        };
        Ok(Some(Offer { server: Box::new(server), at_ms, present, passed, is_packaging_lost }))
    }

    /// A planted bug: one of those that are told of is not gone on with.
    fn leave_out(&self, passed: BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
        let skipped = usize::from(self.sabotage == Sabotage::LeaveOut);
        passed.into_iter().skip(skipped).collect()
    }

    /// Both hear it; which of them first is nobody's choice.
    fn give_the_word(&mut self, offer: Offer, began_ms: u64) -> Result<Stage, String> {
        self.tell_apart(&offer, began_ms)?;
        let at_ms = self.now_ms() + self.dice.pick(&[0, 1, 10, 40]);
        Ok(if self.dice.chance(500) {
            let_go(&mut self.server);
            Stage::LetGo(Offer { at_ms, ..offer })
        } else {
            self.go_on(*offer.server);
            Stage::GoneOn { at_ms }
        })
    }

    /// The new process goes on, the one before is on its way out.
    fn go_on(&mut self, mut server: Server) {
        server.take_up();
        self.before.push(std::mem::replace(&mut self.server, server));
        // What was configured meanwhile.
        let config = Arc::new(self.config.clone());
        self.server.send_all(|| Command::ApplyConfig(Arc::clone(&config)));
        self.upgrades.passed_on += 1;
        self.note(&format!("{} new workers go on", self.server.len()));
    }

    /// Who goes along, and who stays: only with a reason.
    fn tell_apart(&mut self, offer: &Offer, began_ms: u64) -> Result<(), String> {
        let Offer { present, passed, .. } = offer;
        let stays = |address: Option<SocketAddr>| {
            address.is_some_and(|address| present.contains(&address) && !passed.contains(&address))
        };
        let now_ms = self.now_ms();
        for at in 0..self.publishers.len() {
            let publisher = &mut self.publishers[at];
            publisher.connection_id = None;
            if stays(publisher.link.local_addr()) {
                let path = publisher.path;
                self.trace.note(now_ms, &format!("publisher {at} stays behind"));
                if self.is_publishing(at, began_ms) {
                    return Err(format!("publisher {at} of path {path} was left behind"));
                }
                self.paths[path].lost_at_ms = Some(now_ms);
            }
        }
        let is_over: Vec<bool> = (0..self.paths.len()).map(|path| self.may_be_over(path)).collect();
        let is_lost = offer.is_packaging_lost;
        self.watchers.iter_mut().for_each(|watcher| watcher.pass_on(now_ms, is_lost));
        for at in 0..self.viewers.len() {
            let viewer = &mut self.viewers[at];
            viewer.connection_id = None;
            let over = viewer.plays.iter_mut().filter(|play| is_over[play.path]);
            over.for_each(|play| play.judge.expect_timeline(&self.log));
            if stays(viewer.link.local_addr()) {
                viewer.is_left_behind = true;
                viewer.forgive_gaps();
                if let Some(link) = viewer.link.web() {
                    link.may_be_drained = true;
                }
                self.upgrades.left += 1;
                self.trace.note(now_ms, &format!("viewer {at} stays behind"));
                if self.is_watching(at, began_ms) {
                    return Err(format!("viewer {at} was left behind in the middle of its stream"));
                }
            }
        }
        self.upgrades.taken += passed.len() as u64;
        self.note(&format!("{} of {} peers are passed on", passed.len(), present.len()));
        Ok(())
    }

    /// Nobody publishes it, and nobody may come back to it.
    fn may_be_over(&self, path: usize) -> bool {
        let is_live = self.publishers.iter().any(|other| other.is_live() && other.path == path);
        let facts = self.paths[path];
        let is_lost_lately = facts.lost_at_ms > facts.ended_at_ms
            && facts.lost_at_ms.is_some_and(|at_ms| at_ms + self.grace_ms_min / 2 > self.now_ms());
        !is_live && !is_lost_lately
    }

    /// A publisher is on the air, and nothing is known that would keep it from going along.
    fn is_publishing(&self, at: usize, began_ms: u64) -> bool {
        let (now_ms, publisher) = (self.now_ms(), &self.publishers[at]);
        let first_at_ms = publisher.session.and_then(|session| {
            let first = self.log.sessions[session as usize].sent.first()?;
            Some(first.at_ms)
        });
        let is_replaced = self.publishers.iter().enumerate().any(|(other, publisher)| {
            other != at && publisher.link.is_open() && publisher.path == self.publishers[at].path
        });
        let is_settled = first_at_ms.is_some_and(|first_at_ms| first_at_ms + SAYING_MS < began_ms);
        let ended_at_ms = self.paths[publisher.path].ended_at_ms;
        let is_told = ended_at_ms.is_some_and(|at_ms| at_ms + 8_000 > now_ms);
        publisher.is_live() && is_settled && !is_replaced && !is_told && !self.is_scarce
    }

    /// A viewer is shown a stream, and has nothing else to do with the server.
    fn is_watching(&self, at: usize, began_ms: u64) -> bool {
        let (now_ms, viewer) = (self.now_ms(), &self.viewers[at]);
        let is_over = |path: usize| {
            let at_ms = self.paths[path].ended_at_ms.max(self.paths[path].lost_at_ms);
            at_ms.is_some_and(|at_ms| at_ms + 12_000 > now_ms)
        };
        viewer.heard_at_ms + WATCHING_MS > began_ms
            && viewer.said_at_ms + SAYING_MS < began_ms
            && !viewer.was_kicked
            && !viewer.link.is_over()
            && !self.is_scarce
            && viewer.plays.iter().all(|play| !is_over(play.path))
    }

    /// Who was left behind has been closed by then.
    pub fn check_left_behind(&self) -> Result<(), String> {
        let stays = |viewer: &Viewer| {
            viewer.is_left_behind && viewer.link.is_open() && viewer.stalled_until_ms < FOR_EVER_MS
        };
        match self.viewers.iter().position(stays) {
            None => Ok(()),
            Some(at) => Err(format!("viewer {at} was left behind, and nobody closes it")),
        }
    }

    /// The processes before have their turns until nobody is left there, and then end.
    fn turn_before(&mut self, now_ms: u64) -> Result<(), String> {
        let mut gone = Vec::new();
        for (at, server) in self.before.iter_mut().enumerate() {
            server.turn(now_ms);
            if server.has_stopped() {
                gone.push(at);
            } else if self.upgrade.is_none() && server.is_deserted() && !server.is_told_to_stop {
                server.is_told_to_stop = true;
                server.send_all(|| Command::Stop);
            }
        }
        for at in gone.into_iter().rev() {
            let server = self.before.remove(at);
            server.check_peers_home().map_err(|error| format!("the process before: {error}"))?;
            self.upgrades.skips += server.skips();
            self.upgrades.stale += server.stale_completions();
            self.upgrades.takeovers += server.takeovers();
            self.note("the process before is gone");
        }
        Ok(())
    }

    /// Puts the planted bug into the records.
    fn plant(&self, legacy: &mut Legacy) {
        for worker in &mut legacy.workers {
            for stream in &mut worker.streams {
                let publisher = &mut stream.publisher;
                match self.sabotage {
                    Sabotage::ForgetPart => publisher.at_tail = None,
                    Sabotage::ForgetAside => publisher.aside.clear(),
                    Sabotage::ForgetPreamble => {
                        publisher.ring.preamble = None;
                        publisher.ring.preamble_version =
                            publisher.ring.join_preamble.iter().count() as u64;
                        publisher.entries.clear();
                    }
                    _ => {}
                }
            }
            let lives = worker.connections.iter_mut().filter_map(|one| one.live.as_mut());
            for live in lives {
                match self.sabotage {
                    Sabotage::ForgetRest => live.rest.clear(),
                    Sabotage::ForgetSealed => live.sealed_rest.clear(),
                    Sabotage::Misplace => {
                        for play in &mut live.plays {
                            play.subscriber.cursor += 1;
                        }
                    }
                    Sabotage::Rejoin => {
                        for play in &mut live.plays {
                            play.subscriber.state = live::record::SubscriberState::Waiting(0);
                        }
                    }
                    _ => {}
                }
            }
        }
        let forgets_numbers = self.sabotage == Sabotage::ForgetNumbers;
        if forgets_numbers {
            legacy.renditions.clear();
        }
        if forgets_numbers || self.sabotage == Sabotage::ForgetPackaging {
            legacy.packaging.runs.clear();
        }
    }
}

/// Another process has taken over.
fn let_go(server: &mut Server) {
    server.send_all(|| Command::LetGo { deadline_ms: DRAIN_MS });
    // Nobody waits for what is written here: folders are no part of it.
    let (baton, _) = UnixStream::pair().unwrap();
    server.order_packager(hls::Order::LetGo(Baton::new(Arc::new(baton))));
}

/// Places in quotas that are told of: publishers, players.
fn places(legacy: &Legacy) -> (u32, u32) {
    let lives = || {
        let connections = legacy.workers.iter().flat_map(|worker| &worker.connections);
        connections.filter_map(|connection| connection.live.as_ref())
    };
    let has_place = |permit: &Option<edge::hand_over::record::PermitRecord>| {
        permit.as_ref().is_some_and(|permit| permit.place.is_some())
    };
    let publishers =
        lives().flat_map(|live| &live.publishes).filter(|publish| has_place(&publish.permit));
    let players = lives().flat_map(|live| &live.plays).filter(|play| has_place(&play.permit));
    let count = |count: usize| u32::try_from(count).expect("few");
    (count(publishers.count()), count(players.count()))
}

/// Descriptors sent from one process to the other.
fn carry(sockets: &[OwnedFd]) -> std::io::Result<Vec<OwnedFd>> {
    let (ours, theirs) = UnixStream::pair()?;
    wire::send_sockets(&ours, sockets)?;
    wire::receive_sockets(&theirs, sockets.len())
}

/// The records of a block, without what says that they are whole.
pub fn read_record(record: &[u8]) -> Result<Legacy, HandOverError> {
    let mut block = (record.len() as u64).to_be_bytes().to_vec();
    block.extend_from_slice(digest(&SHA256, record).as_ref());
    block.extend_from_slice(record);
    read_block(&block)
}

/// The records of a block as it travels.
fn read_block(block: &[u8]) -> Result<Legacy, HandOverError> {
    wire::receive_block(block).and_then(|body| wire::decode(&body))
}

/// What is in a record.
pub fn kinds(legacy: &Legacy) -> BTreeSet<&'static str> {
    let mut kinds = BTreeSet::new();
    let mut note = |is_there: bool, kind| is_there.then(|| kinds.insert(kind));
    note(!legacy.renditions.is_empty(), "rendition");
    note(!legacy.packaging.runs.is_empty(), "packaging");
    for worker in &legacy.workers {
        note(!worker.framings.is_empty(), "framing");
        for stream in &worker.streams {
            note(stream.owner.is_none(), "grace");
            note(stream.publisher.at_tail.is_some(), "part");
        }
        for live in worker.connections.iter().filter_map(|connection| connection.live.as_ref()) {
            note(!live.publishes.is_empty(), "publisher");
            note(!live.plays.is_empty(), "player");
            note(!live.rest.is_empty(), "rest");
            note(matches!(live.spoken, SpokenRecord::Http(_)), "http");
        }
    }
    kinds
}

/// A small world in which messages are sent in parts, and an upgrade comes between two of them.
pub fn run_in_parts(seed: u64, sabotage: Sabotage) -> (Result<(), String>, [u64; 2]) {
    let mut world = World::steady(seed, Config::default(), 2);
    (world.sabotage, world.is_fair) = (sabotage, true);
    world.publish_steadily(0);
    world.publishers[0].send_in_parts();
    for _ in 0..2 {
        world.join_promptly(0, false);
        world.viewers.last_mut().expect("just come").plays[0].judge.is_strict = true;
    }
    let began_ms = world.now_ms();
    let result = world.live_until(began_ms + 1_500 + seed * 13);
    world.upgrade_to(1 + usize::from(seed.is_multiple_of(2)));
    let result = result.and_then(|()| world.live_until(began_ms + 5_000));
    (result, world.upgrades.parts)
}

/// Records of upgrades of small worlds: few peers, small pictures, no keys of TLS. One for each that has
/// something in it that those before had not.
pub fn examples() -> Vec<(String, Vec<u8>)> {
    let (mut examples, mut known) = (Vec::new(), BTreeSet::new());
    for seed in 1..=200 {
        let mut world = World::steady(seed, Config::default(), 1);
        let pass = |world: &mut World, for_ms: u64| {
            let until_ms = world.now_ms() + for_ms;
            world.live_until(until_ms).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        };
        world.publish_steadily(0);
        world.publishers[0].link.uplink_bytes_max = Some(12);
        match seed % 4 {
            0 => world.watch(0),
            1 => world.join_fragments(0),
            2 => world.join_promptly(0, true),
            _ => world.join_promptly(0, false),
        }
        pass(&mut world, 900);
        if seed % 5 == 0 {
            world.publishers[0].link.hang_up(true);
        } else if seed % 5 == 1 {
            // A socket that takes a part of a message.
            let faults = Faults { short_send_permille: 900, ..Faults::none() };
            world.net.set_faults(Faults { send_blocked_permille: 500, ..faults });
        }
        pass(&mut world, 60 + seed * 7);
        world.upgrade_to(1);
        pass(&mut world, 1_200);
        let record = std::mem::take(&mut world.last_record);
        let Ok(legacy) = read_record(&record) else { continue };
        let news = kinds(&legacy);
        if !news.is_subset(&known) || examples.len() < 6 {
            let name: Vec<&str> = news.iter().copied().collect();
            examples.push((format!("{seed}-{}", name.join("-")), record));
            known.extend(news);
        }
    }
    examples
}
