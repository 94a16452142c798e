//! One run: a server, its peers, a clock, and everything the seed makes happen to them.
//!
//! ```text
//!   begin ─► 20 s of actions and faults ─► faults end ─► everybody catches up ─► publishers rest
//!         ─► each player must be at the head ─► all leave, or the server drains ─► all came home
//! ```

use edge::config::Config;
use uring::sim::{Faults, SimIo, SimNet};
use uring::{Io, IoConfig, Nanos};

use super::actions::{ACTIONS, FOR_EVER_MS};
use super::dice::Dice;
use super::files::Files;
use super::hls::{Around, HlsViewer};
use super::media::{Class, Log, fragments_end, has_changed_lately};
use super::publisher::Publisher;
use super::quotas::add_domains;
use super::server::{Pools, Server, draw_config, make_scarce};
use super::trace::Trace;
use super::upgrade::{Upgrade, Upgrades};
use super::viewer::{News, Pace, Sabotage, Viewer};
use super::web::Wanted;
use super::wire::Wire;

/// Stream names in a run.
pub const PATHS: usize = 3;
/// Longest way from a publisher to a player that keeps up, whatever others do, in milliseconds:
/// the widest flush window, the network's delays, and a tick on each side.
const DELAY_MS_MAX: u64 = 900;
/// A player that reads at once never lags by more than this, in milliseconds.
pub const LAG_MS_FAIR: u32 = 4_000;
/// Longest time in which a playlist does not go on, in milliseconds: a GOP beyond a segment, the poll of a
/// plain player, and the rest before the check.
const HLS_DELAY_MS_MAX: u64 = 9_000;
/// Connections in TLS: some in each run.
const TLS_PERMILLE: u64 = 120;
/// Time between two looks at the books, in milliseconds.
const BALANCE_MS: u64 = 100;
/// Time for everything to come to rest without faults: a keyframe wait, a lag, a GOP.
const CATCH_UP_MS: u64 = 12_000;

/// What is known of a stream name from outside.
#[derive(Copy, Clone, Debug, Default)]
pub struct PathFacts {
    /// When its publisher was last lost without a goodbye.
    pub lost_at_ms: Option<u64>,
    /// When it last ended for a reason that allows no grace.
    pub ended_at_ms: Option<u64>,
}

pub struct World {
    pub dice: Dice,
    pub net: SimNet,
    alarm: SimIo<ring::Lease>,
    pub server: Server,
    /// Processes before it, which drain what was not passed on.
    pub before: Vec<Server>,
    pub upgrade: Option<Upgrade>,
    pub upgrades: Upgrades,
    /// What the last upgrade told of.
    pub last_record: Vec<u8>,
    pub pools: Pools,
    pub config: Config,
    /// The shortest grace period that was configured in this run.
    pub grace_ms_min: u64,
    pub log: Log,
    pub paths: [PathFacts; PATHS],
    pub publishers: Vec<Publisher>,
    pub viewers: Vec<Viewer>,
    pub watchers: Vec<HlsViewer>,
    files: Files,
    /// Publishers that will come (back): when and where.
    pub returns: Vec<(u64, usize)>,
    /// A run in which nobody who reads at once has a reason to miss anything.
    pub is_fair: bool,
    /// A run in which everything runs out.
    pub is_scarce: bool,
    /// How many connections are made in TLS.
    tls_permille: u64,
    /// How often each action was drawn.
    pub drawn: Vec<u32>,
    pub trace: Trace,
    pub starved_at_ms: u64,
    balanced_at_ms: u64,
    /// Sockets were too small for the streams until then.
    pub thin_until_ms: u64,
    pub is_draining: bool,
    pub sabotage: Sabotage,
    pub heard: u64,
    /// Samples that viewers of HLS were shown.
    pub watched: u64,
    /// Connections that were made in TLS.
    pub secured: u64,
}

impl World {
    pub fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut dice = Dice::new(seed);
        let net = SimNet::new(dice.next(), Faults::none());
        let mut config = draw_config(&mut dice);
        let is_fair = dice.chance(400);
        if is_fair {
            config.defaults.lag_ms_max = 2 * LAG_MS_FAIR;
            config.defaults.retention_ms = 3 * LAG_MS_FAIR;
            config.defaults.retention_messages = 16_384;
        }
        let is_scarce = !is_fair && dice.chance(300);
        let mut pools = Pools::AMPLE;
        if is_scarce {
            pools = Pools::scarce(&mut dice);
            make_scarce(&mut config, &mut dice);
        }
        let has_domains = dice.chance(500);
        if has_domains {
            add_domains(&mut config);
        }
        let workers = 1 + dice.index(4);
        let server = Server::start(&net, &config, pools, workers, &mut dice);
        let mut world = Self::with(dice, net, config, server, pools);
        (world.is_fair, world.is_scarce, world.sabotage) = (is_fair, is_scarce, sabotage);
        world.tls_permille = TLS_PERMILLE;
        let config = &world.config.defaults;
        let line = format!(
            "{workers} workers, domains {has_domains}, {:?}, grace {}, lag {}, stall {}, wait {}, \
             gop cache {}, {:?}, fair {is_fair}, scarce {is_scarce}",
            config.flush,
            config.grace_ms,
            config.lag_ms_max,
            config.stall_ms_max,
            config.play_wait_ms,
            config.gop_cache,
            config.duplicate_publish
        );
        world.note(&line);
        world
    }

    /// A world without chance in its configuration, and without faults.
    pub fn steady(seed: u64, config: Config, workers: usize) -> Self {
        let mut dice = Dice::new(seed);
        let net = SimNet::new(dice.next(), Faults::none());
        let server = Server::start(&net, &config, Pools::AMPLE, workers, &mut dice);
        Self::with(dice, net, config, server, Pools::AMPLE)
    }

    fn with(dice: Dice, net: SimNet, config: Config, server: Server, pools: Pools) -> Self {
        if std::env::var_os("RINGCAST_SIM_LOG").is_some() {
            // The second call of a process finds one installed, which is as good.
            let log = tracing_subscriber::fmt().without_time().with_writer(std::io::stderr);
            let _ = log.try_init();
        }
        let alarm_config =
            IoConfig { recv_buffers: 2, recv_buffer_bytes: 4_096, ..IoConfig::default() };
        Self {
            alarm: net.io(alarm_config).expect("memory for two buffers"),
            net,
            server,
            before: Vec::new(),
            upgrade: None,
            upgrades: Upgrades::default(),
            last_record: Vec::new(),
            pools,
            grace_ms_min: u64::from(config.defaults.grace_ms),
            config,
            is_fair: false,
            is_scarce: false,
            tls_permille: 0,
            drawn: Vec::new(),
            log: Log::default(),
            paths: [PathFacts::default(); PATHS],
            publishers: Vec::new(),
            viewers: Vec::new(),
            watchers: Vec::new(),
            files: Files::default(),
            returns: Vec::new(),
            trace: Trace::default(),
            starved_at_ms: 0,
            balanced_at_ms: 0,
            thin_until_ms: 0,
            is_draining: false,
            sabotage: Sabotage::None,
            heard: 0,
            watched: 0,
            secured: 0,
            dice,
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.net.now().as_millis()
    }

    pub fn note(&mut self, line: &str) {
        self.trace.note(self.now_ms(), line);
    }

    /// The whole run.
    pub fn run(&mut self) -> Result<(), String> {
        let until_ms = self.now_ms() + 20_000;
        while self.now_ms() < until_ms {
            let pause_ms = self.dice.range(20, 400);
            self.act();
            let next_ms = self.now_ms() + pause_ms;
            self.live_until(next_ms)?;
        }
        self.note(&self.actions_drawn());
        self.note("faults end");
        self.thin_until_ms = self.thin_until_ms.min(self.now_ms());
        self.net.set_faults(Faults::none());
        self.returns.clear();
        let now_ms = self.now_ms();
        for viewer in &mut self.viewers {
            if viewer.stalled_until_ms >= FOR_EVER_MS {
                continue;
            }
            if viewer.pace != Pace::Prompt || viewer.stalled_until_ms > now_ms {
                viewer.prompt_since_ms = now_ms;
            }
            viewer.stalled_until_ms = 0;
            viewer.pace = Pace::Prompt;
        }
        for watcher in &mut self.watchers {
            watcher.pace = Pace::Prompt;
            watcher.stalled_until_ms = 0;
        }
        if self.sabotage == Sabotage::StopPackager {
            self.server.packager_starved_until_ms = FOR_EVER_MS;
        }
        for _ in 0..CATCH_UP_MS / 500 {
            self.live_until(self.now_ms() + 500)?;
            self.note("calm");
        }
        for publisher in &mut self.publishers {
            publisher.is_silent = true;
        }
        self.live_until(self.now_ms() + 2_000)?;
        self.check_heads()?;
        self.check_watchers()?;
        self.check_left_behind()?;
        self.leave()
    }

    /// What was drawn, how often, how likely it was and why: the key to the story of a seed.
    pub fn actions_drawn(&self) -> String {
        let mut text = "actions drawn, weight and why:".to_owned();
        for ((action, weight, why), drawn) in ACTIONS.iter().zip(&self.drawn) {
            text.push_str(&format!("\n            {drawn:>3} × {action:?} ({weight}): {why}"));
        }
        text
    }

    pub fn leave(&mut self) -> Result<(), String> {
        if self.dice.chance(300) {
            let is_rough = self.dice.chance(500);
            self.note(&format!("drain, faults go on {is_rough}"));
            if is_rough {
                self.change_weather();
            }
            self.is_draining = true;
            let links = self.viewers.iter_mut().filter_map(|viewer| viewer.link.web());
            links.for_each(|link| link.may_be_drained = true);
            self.server.send_all(|| edge::command::Command::Drain { deadline_ms: 2_000 });
            self.live_until(self.now_ms() + 12_000)?;
            if self.publishers.iter().any(|publisher| publisher.link.is_open())
                || self
                    .viewers
                    .iter()
                    .any(|viewer| viewer.link.is_open() && viewer.stalled_until_ms < FOR_EVER_MS)
            {
                return Err("a connection outlived the drain".to_owned());
            }
        }
        match self.sabotage {
            Sabotage::Hold => self.server.hold_stream(),
            Sabotage::Miscount => self.server.miscount(),
            _ => {}
        }
        self.note("all leave");
        for at in 0..self.publishers.len() {
            self.end_publisher(at);
        }
        self.is_draining = true;
        for viewer in &mut self.viewers {
            viewer.link.hang_up(false);
        }
        for watcher in &mut self.watchers {
            watcher.leave(false);
        }
        self.live_until(self.now_ms() + 12_000)?;
        self.server.check_all_home()?;
        if !self.before.is_empty() {
            let sizes: Vec<_> = self.before.iter().map(Server::sizes).collect();
            return Err(format!("a process before this one does not end: {sizes:?}"));
        }
        for viewer in &self.viewers {
            viewer.link.judge_by_reference()?;
        }
        self.server.send_all(|| edge::command::Command::Stop);
        self.live_until(self.now_ms() + 10)?;
        if !self.server.has_stopped() {
            return Err("a worker goes on after it was told to stop".to_owned());
        }
        Ok(())
    }

    /// Lets time pass until `until_ms`.
    pub fn live_until(&mut self, until_ms: u64) -> Result<(), String> {
        while self.now_ms() < until_ms {
            let now_ms = self.now_ms();
            self.server.turn(now_ms);
            if now_ms >= self.balanced_at_ms + BALANCE_MS {
                self.balanced_at_ms = now_ms;
                self.server.check_balance()?;
                self.before.iter().try_for_each(Server::check_balance)?;
            }
            self.turn_upgrade(now_ms)?;
            self.turn_publishers(now_ms)?;
            self.turn_viewers(now_ms)?;
            self.turn_watchers(now_ms)?;
            self.come_back(now_ms);
            let peers = self.publishers.iter().map(Publisher::next_at_ms);
            let players = self.viewers.iter().map(|viewer| viewer.next_at_ms(now_ms));
            let watchers = self.watchers.iter().map(|watcher| watcher.next_at_ms(now_ms));
            let servers = || self.before.iter().chain([&self.server]);
            let starved = servers().flat_map(|server| &server.starved_until_ms).copied();
            let returns = self.returns.iter().map(|(at_ms, _)| *at_ms);
            let next_ms = peers
                .chain(players)
                .chain(watchers)
                .chain(servers().map(Server::packager_next_ms))
                .chain([self.upgrade_next_ms()])
                .chain(starved)
                .chain(returns)
                .filter(|at_ms| *at_ms > now_ms)
                .fold(until_ms, u64::min);
            let mut none = Vec::new();
            let alarm = Some(Nanos::from_millis(next_ms));
            self.alarm.turn(alarm, &mut none).expect("the alarm has no connections");
            let is_starved =
                servers().flat_map(|s| &s.starved_until_ms).any(|until| *until > now_ms);
            if is_starved || servers().any(Server::has_stopped_some) {
                // A worker that does not turn looks ready for ever: time must pass all the same.
                self.net.advance_by(Nanos(200_000));
            } else if !self.net.advance_to_next_event() {
                self.net.advance_by(Nanos::from_millis(1));
            }
        }
        Ok(())
    }

    fn come_back(&mut self, now_ms: u64) {
        while let Some(at) = self.returns.iter().position(|(at_ms, _)| *at_ms <= now_ms) {
            let (_, path) = self.returns.swap_remove(at);
            self.publish(path);
        }
    }

    fn turn_publishers(&mut self, now_ms: u64) -> Result<(), String> {
        for at in 0..self.publishers.len() {
            let publisher = &mut self.publishers[at];
            if !publisher.link.is_open() {
                continue;
            }
            let was_live = publisher.is_live();
            let named = |error| format!("publisher {at}: {error}");
            publisher.turn(&mut self.log, &mut self.dice, now_ms).map_err(named)?;
            let (is_live, path) = (publisher.is_live(), publisher.path);
            let (session, is_gone) = (publisher.session, !publisher.link.is_open());
            if is_live && !was_live {
                self.trace.note(now_ms, &format!("publisher {at} live, path {path}, {session:?}"));
            } else if was_live && !is_live {
                self.trace.note(now_ms, &format!("publisher {at} no longer live, path {path}"));
                self.paths[path].lost_at_ms = Some(now_ms);
            } else if is_gone {
                self.trace.note(now_ms, &format!("publisher {at} gone, path {path}"));
            }
        }
        Ok(())
    }

    fn turn_viewers(&mut self, now_ms: u64) -> Result<(), String> {
        for at in 0..self.viewers.len() {
            if !self.viewers[at].link.is_open() {
                continue;
            }
            let named = |error| format!("viewer {at}: {error}");
            let news = self.viewers[at].turn(&self.log, now_ms).map_err(named)?;
            for news in news {
                self.on_news(at, news, now_ms).map_err(named)?;
            }
        }
        Ok(())
    }

    fn turn_watchers(&mut self, now_ms: u64) -> Result<(), String> {
        for (at, watcher) in self.watchers.iter_mut().enumerate() {
            let (net, server, sabotage) = (&self.net, self.server.addr, self.sabotage);
            let (dice, secured) = (&mut self.dice, &mut self.secured);
            let mut around = Around {
                connect: &mut |is_secure| {
                    *secured += u64::from(is_secure);
                    match is_secure {
                        true => Wire::secure(net.connect(server), dice, sabotage),
                        false => Wire::plain(net.connect(server)),
                    }
                },
                log: &self.log,
                files: &mut self.files,
                now_ms,
                is_draining: self.is_draining,
            };
            let seen = watcher.turn(&mut around);
            for seen in seen.map_err(|error| format!("watcher {at}: {error}"))? {
                self.watched += 1;
                let mark = [seen.mark.session.to_be_bytes(), seen.mark.index.to_be_bytes()];
                self.trace.count(now_ms, mark.as_flattened());
            }
        }
        Ok(())
    }

    fn on_news(&mut self, at: usize, news: News, now_ms: u64) -> Result<(), String> {
        match news {
            News::Ended { path } => {
                self.trace.note(now_ms, &format!("viewer {at} hears the end of path {path}"));
                let viewer = &self.viewers[at];
                let is_late = viewer.is_left_behind
                    || viewer.pace != Pace::Prompt
                    || viewer.prompt_since_ms + 8_000 > now_ms;
                // The end of a bare body may be the end of a viewer that was too slow.
                let is_late = is_late || viewer.link.is_bare() && !viewer.plays[0].judge.is_strict;
                if is_late { Ok(()) } else { self.check_end(path, now_ms) }
            }
            News::CutOff => {
                self.trace.note(now_ms, &format!("viewer {at} is cut off"));
                // Left behind before its request had been read, it has asked for nothing yet.
                let has_asked = self.viewers[at].link.web().is_some_and(|link| !link.awaits_head());
                let must_be_told = self.must_be_told(at);
                let viewer = &self.viewers[at];
                let judge = &viewer.plays[0].judge;
                let may_be_cut_off = match viewer.is_left_behind {
                    true => !has_asked || !must_be_told,
                    false => !judge.is_strict || self.is_draining && !must_be_told,
                };
                let may_be_cut_off = may_be_cut_off
                    || viewer.was_kicked
                    // Over a limit it is closed before a byte is read.
                    || self.is_scarce && judge.media == 0;
                if may_be_cut_off { Ok(()) } else { Err("its stream was cut off".to_owned()) }
            }
            News::Gone => {
                self.trace.note(now_ms, &format!("viewer {at} gone"));
                Ok(())
            }
            News::Media { seen, is_first } => {
                self.heard += 1;
                let mark = [seen.mark.session.to_be_bytes(), seen.mark.index.to_be_bytes()];
                self.trace.count(now_ms, mark.as_flattened());
                if is_first {
                    self.trace.note(now_ms, &format!("viewer {at} begins at {:?}", seen.mark));
                }
                self.check_delay(at, &seen, now_ms)
            }
        }
    }

    /// A drain has to tell this viewer that the server goes away. One that takes a stream in chunks
    /// cannot be told: a body that ends early is all it can be shown.
    fn must_be_told(&mut self, at: usize) -> bool {
        self.viewers[at].link.web().is_some_and(|link| link.can_be_told_to_go())
    }

    /// A player that keeps up hears everything soon, whatever the others do.
    fn check_delay(&self, at: usize, seen: &super::judge::Seen, now_ms: u64) -> Result<(), String> {
        let viewer = &self.viewers[at];
        let sent_at_ms = now_ms - seen.delay_ms;
        let is_bound = viewer.pace == Pace::Prompt
            && viewer.plays.len() == 1
            && viewer.plays[0].judge.is_strict
            && sent_at_ms > viewer.prompt_since_ms + 6_000
            && sent_at_ms > self.starved_at_ms.max(self.thin_until_ms) + 3_000;
        let keyframes = self.log.sessions[seen.mark.session as usize].keyframes;
        let joined_long_ago = viewer.plays[0].judge.media > 20;
        // What a lost publisher sent last may be the beginning of a fragment, which then waits for its rest.
        let is_last = viewer.link.is_fragmented()
            && self.paths[viewer.plays[0].path].lost_at_ms.is_some_and(|lost_at_ms| {
                sent_at_ms <= lost_at_ms && sent_at_ms + DELAY_MS_MAX > lost_at_ms
            });
        let is_bound = is_bound && !is_last;
        if is_bound && keyframes && joined_long_ago && seen.delay_ms > DELAY_MS_MAX {
            let (delay_ms, class): (u64, Class) = (seen.delay_ms, seen.class);
            return Err(format!("{class:?} {:?} took {delay_ms} ms", seen.mark));
        }
        Ok(())
    }

    /// A stream ends for its players when its publisher says so, or when the grace is over.
    fn check_end(&self, path: usize, now_ms: u64) -> Result<(), String> {
        let facts = self.paths[path];
        let was_ended = facts.ended_at_ms.is_some_and(|at_ms| at_ms + 8_000 > now_ms);
        let waited_ms = facts.lost_at_ms.map(|at_ms| now_ms - at_ms);
        let is_over = waited_ms.is_some_and(|waited_ms| waited_ms + 100 >= self.grace_ms_min);
        if was_ended || is_over || self.is_draining {
            return Ok(());
        }
        Err(format!(
            "path {path} ended {waited_ms:?} ms after its publisher was lost, grace is {}",
            self.grace_ms_min
        ))
    }

    /// Without faults, everybody who can has heard the last message.
    fn check_heads(&self) -> Result<(), String> {
        for (at, viewer) in self.viewers.iter().enumerate() {
            let is_frozen = viewer.stalled_until_ms >= FOR_EVER_MS;
            let is_over = !viewer.link.is_open() || viewer.link.is_over();
            if is_over || !viewer.has_started || is_frozen || viewer.is_left_behind {
                continue;
            }
            for play in &viewer.plays {
                let live = self
                    .publishers
                    .iter()
                    .find(|publisher| publisher.is_live() && publisher.path == play.path);
                let Some(session) = live.and_then(|publisher| publisher.session) else {
                    self.check_is_told(at, play.path)?;
                    continue;
                };
                if play.is_pause_asked {
                    continue;
                }
                let sent = &self.log.sessions[session as usize].sent;
                let is_fragmented = viewer.link.is_fragmented();
                let sent = if is_fragmented { &sent[..fragments_end(sent)] } else { &sent[..] };
                let wanted = |class: Class| match class {
                    Class::Video { .. } => play.wants_video,
                    Class::Audio => play.wants_audio,
                    _ => false,
                };
                let Some(newest) = sent.iter().rposition(|sent| wanted(sent.class)) else {
                    continue;
                };
                let kind = sent[newest].class.kind();
                let last = play.judge.last(kind);
                let is_there = last.is_some_and(|last| {
                    let index = last.index as usize;
                    last.session == session && (index == newest || is_fragmented && index > newest)
                });
                let keyframes = self.log.sessions[session as usize].keyframes;
                // Another track begins another segment, at a keyframe, or after seconds without a change.
                let may_miss = is_fragmented && (!keyframes || has_changed_lately(sent));
                if !is_there && !may_miss {
                    let (pace, video, audio) = (viewer.pace, play.wants_video, play.wants_audio);
                    return Err(format!(
                        "viewer {at} stream {} path {} ({pace:?}, video {video}, audio {audio}): heard \
                         {last:?} of kind {kind} at {:?}, the head is {session}/{newest} of {} ms, \
                         keyframes {keyframes}, flushed {}",
                        play.msid,
                        play.path,
                        play.judge.clock(kind),
                        sent[newest].at_ms,
                        live.is_some_and(|publisher| publisher.link.is_flushed())
                    ));
                }
            }
        }
        Ok(())
    }

    /// Without faults, who watches a stream by HLS is a segment or two behind it.
    fn check_watchers(&self) -> Result<(), String> {
        let now_ms = self.now_ms();
        for (at, watcher) in self.watchers.iter().enumerate() {
            let live = self.publishers.iter().find(|publisher| {
                publisher.is_live() && publisher.path == watcher.path && !publisher.ends
            });
            let Some(session) = live.and_then(|publisher| publisher.session) else { continue };
            let session = &self.log.sessions[session as usize];
            // Without keyframes, a publisher that changes its tracks all the time leaves nothing to show.
            let began_at_ms = session.sent.first().map_or(now_ms, |first| first.at_ms);
            let is_old = began_at_ms + CATCH_UP_MS < now_ms && session.keyframes;
            if watcher.is_over || self.is_scarce || !is_old {
                continue;
            }
            let stood_ms = now_ms - watcher.moved_at_ms;
            if stood_ms > HLS_DELAY_MS_MAX {
                return Err(format!(
                    "watcher {at} of path {}: its playlist stands still for {stood_ms} ms, {watcher}",
                    watcher.path
                ));
            }
        }
        Ok(())
    }

    /// A viewer over HTTP does not outlive the stream it has seen.
    fn check_is_told(&self, at: usize, path: usize) -> Result<(), String> {
        let (facts, play) = (self.paths[path], &self.viewers[at].plays[0]);
        let is_free = !self.publishers.iter().any(|publisher| {
            publisher.link.is_open() && publisher.path == path && publisher.refused.is_none()
        });
        let gone_at_ms = facts.lost_at_ms.max(facts.ended_at_ms);
        let is_long_ago = gone_at_ms.is_some_and(|at_ms| at_ms + 9_000 < self.now_ms());
        if self.viewers[at].link.is_web() && play.judge.media > 0 && is_free && is_long_ago {
            return Err(format!("viewer {at}: path {path} is over, and nobody tells it"));
        }
        Ok(())
    }

    // What actions are made of.

    /// A connection to the server, now and then in TLS: a handshake costs as much as seconds of a stream.
    fn connect(&mut self) -> Wire {
        let is_secure = self.dice.chance(self.tls_permille);
        self.secured += u64::from(is_secure);
        let peer = self.net.connect(self.server.addr);
        match is_secure {
            true => Wire::secure(peer, &mut self.dice, self.sabotage),
            false => Wire::plain(peer),
        }
    }

    pub fn publish(&mut self, path: usize) {
        let peer = self.connect();
        let now_ms = self.now_ms();
        let publisher = Publisher::new(peer, path, &mut self.dice, now_ms);
        self.publishers.push(publisher);
        self.note(&format!("publisher {} comes, path {path}", self.publishers.len() - 1));
    }

    pub fn join(&mut self, path: usize) {
        let is_web = self.dice.chance(450);
        self.join_as(path, is_web);
    }

    /// A viewer comes, over HTTP or by RTMP.
    pub fn join_as(&mut self, path: usize, is_web: bool) {
        let peer = self.connect();
        let now_ms = self.now_ms();
        let kind = if is_web { Viewer::over_http } else { Viewer::by_rtmp };
        let viewer = kind(peer, path, &mut self.dice, now_ms, self.sabotage);
        self.take_in(viewer, path);
    }

    /// A viewer of fragmented MP4 comes.
    pub fn join_fragments(&mut self, path: usize) {
        let peer = self.connect();
        let (now_ms, sabotage) = (self.now_ms(), self.sabotage);
        let viewer = Viewer::of_form(peer, path, Wanted::Fmp4, &mut self.dice, now_ms, sabotage);
        self.take_in(viewer, path);
    }

    /// A player comes that knows nothing of Enhanced RTMP.
    pub fn join_as_of_old(&mut self, path: usize) {
        let peer = self.connect();
        let (now_ms, sabotage) = (self.now_ms(), self.sabotage);
        let viewer = Viewer::able_to(peer, path, 0, &mut self.dice, now_ms, sabotage);
        self.take_in(viewer, path);
    }

    fn take_in(&mut self, mut viewer: Viewer, path: usize) {
        let now_ms = self.now_ms();
        // A player of a small lag may skip although it reads at once: the way here is long.
        if self.config.defaults.lag_ms_max < LAG_MS_FAIR || self.thin_until_ms > now_ms {
            viewer.forgive_gaps();
        }
        let how = viewer.describe();
        self.viewers.push(viewer);
        self.note(&format!("viewer {} comes, path {path}, {how}", self.viewers.len() - 1));
    }

    /// A viewer of HLS comes.
    pub fn watch(&mut self, path: usize) {
        let now_ms = self.now_ms();
        let watcher = HlsViewer::new(
            path,
            &mut self.dice,
            now_ms,
            self.tls_permille,
            self.is_scarce,
            self.sabotage,
        );
        self.note(&format!("watcher {} comes, path {path}, {watcher}", self.watchers.len()));
        self.watchers.push(watcher);
    }

    pub fn end_publisher(&mut self, at: usize) {
        let now_ms = self.now_ms();
        let publisher = &mut self.publishers[at];
        let path = publisher.path;
        if publisher.is_live() {
            publisher.end();
            self.paths[path].ended_at_ms = Some(now_ms);
        } else {
            publisher.link.hang_up(false);
        }
    }
}
