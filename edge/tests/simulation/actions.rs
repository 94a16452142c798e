//! What may happen between two moments of a run, how often, and why so often.

use std::sync::Arc;

use edge::command::{Command, ConnectionId, Reply};
use uring::Nanos;
use uring::sim::Faults;

use super::dice::Dice;
use super::server::{draw_flush, set_wall_clock};
use super::unwrap::Form;
use super::viewer::Viewer;
use super::world::{LAG_MS_FAIR, PATHS, World};

/// Publishers and players at one time: enough to meet, few enough to read a trace.
const PUBLISHERS_MAX: usize = 4;
const VIEWERS_MAX: usize = 12;
/// Viewers of HLS at one time. Each costs as much as several players.
const WATCHERS_MAX: usize = 3;
/// A fault this frequent leaves little through.
const STORM_PERMILLE: u16 = 900;
/// Longer than any run, in milliseconds.
pub const FOR_EVER_MS: u64 = 1 << 40;

#[derive(Copy, Clone, Debug)]
pub enum Action {
    Publish,
    Join,
    Watch,
    WatchNoMore,
    Say,
    Leave,
    CleanEnd,
    Lose,
    LoseAndReturn,
    TakeOver,
    Retune,
    Kick,
    Reload,
    Pause,
    Receive,
    PlayAlso,
    PlayAgain,
    Stall,
    Starve,
    JumpClock,
    Weather,
    Upgrade,
}

/// An action, how heavy it weighs in the draw, and why so heavy. A failing seed's story shows all three.
pub const ACTIONS: &[(Action, u32, &str)] = &[
    (
        Action::Publish,
        14,
        "nothing to see without a publisher; more than one per path is a takeover",
    ),
    (Action::Join, 40, "most of what can go wrong happens to players"),
    (Action::Watch, 10, "few see all there is: what they load is the same for everybody"),
    (Action::WatchNoMore, 5, "in the middle of a file, a held reload; stalls, too"),
    (Action::Say, 10, "viewers over HTTP have little to say; it must not disturb what they hear"),
    (Action::Leave, 12, "fewer than joins, so that the house fills up to its limit"),
    (Action::CleanEnd, 4, "ends hand state over, but each needs some life before it"),
    (Action::Lose, 2, "most lost publishers come back, some do not"),
    (Action::LoseAndReturn, 8, "within the grace period, around its end and after it"),
    (Action::TakeOver, 6, "crosses workers in most cases; rare in the world, frequent here"),
    (Action::Retune, 5, "chunk size, headers and metadata change while messages are on their way"),
    (Action::Kick, 4, "a short path of its own through closing"),
    (Action::Reload, 3, "cheap, touches every stream"),
    (Action::Pause, 12, "moves a player's place by command while bytes are on their way"),
    (Action::Receive, 8, "likewise, and the wire image no longer fits it"),
    (Action::PlayAgain, 6, "likewise, with or without closing first"),
    (
        Action::PlayAlso,
        4,
        "several plays share one connection: each changes the path of all others",
    ),
    (
        Action::Stall,
        12,
        "lag, skips and stalls need a full socket, and then time; some stall for ever",
    ),
    (Action::Starve, 3, "a worker without the processor makes everything happen at once"),
    (Action::JumpClock, 2, "the wall clock is set, or the machine slept: every timer is due"),
    (Action::Weather, 6, "long enough under one weather to meet its rare faults"),
    (Action::Upgrade, 4, "once or twice in a run: each takes everything along, or nothing"),
];

impl World {
    /// Makes one thing happen.
    pub fn act(&mut self) {
        let weights = ACTIONS.iter().map(|(_, weight, _)| *weight);
        let at = self.dice.weighted(weights);
        self.drawn.resize(ACTIONS.len(), 0);
        self.drawn[at] += 1;
        let (action, ..) = ACTIONS[at];
        match action {
            Action::Publish => self.publish_somewhere(),
            Action::Join => self.join_somewhere(),
            Action::Watch => self.watch_somewhere(),
            Action::WatchNoMore => self.disturb_watcher(),
            Action::Say => self.say(),
            Action::Leave => self.leave_somebody(),
            Action::CleanEnd => {
                if let Some(at) = self.some_publisher() {
                    self.note(&format!("publisher {at} says goodbye"));
                    self.end_publisher(at);
                }
            }
            Action::Lose => {
                self.lose();
            }
            Action::LoseAndReturn => self.lose_and_return(),
            Action::TakeOver => {
                if let Some(at) = self.some_publisher() {
                    self.publish(self.publishers[at].path);
                }
            }
            Action::Retune => self.retune(),
            Action::Kick => self.kick(),
            Action::Reload => self.reload(),
            Action::Pause => self.pause(),
            Action::Receive => self.receive(),
            Action::PlayAlso => self.play_also(),
            Action::PlayAgain => self.play_again(),
            Action::Stall => self.stall(),
            Action::Starve => self.starve(),
            Action::JumpClock => self.jump_clock(),
            Action::Weather => self.change_weather(),
            Action::Upgrade if self.upgrades.are_off => {}
            Action::Upgrade => self.begin_upgrade(),
        }
    }

    fn some_publisher(&mut self) -> Option<usize> {
        let live: Vec<usize> =
            (0..self.publishers.len()).filter(|&at| self.publishers[at].is_live()).collect();
        if live.is_empty() { None } else { Some(self.dice.pick(&live)) }
    }

    fn some_viewer(&mut self) -> Option<usize> {
        let playing: Vec<usize> = (0..self.viewers.len())
            .filter(|&at| self.viewers[at].link.is_open() && self.viewers[at].has_started)
            .collect();
        if playing.is_empty() { None } else { Some(self.dice.pick(&playing)) }
    }

    /// A viewer by RTMP.
    fn some_player(&mut self) -> Option<usize> {
        self.some_viewer().filter(|&at| !self.viewers[at].link.is_web())
    }

    fn publish_somewhere(&mut self) {
        let open = self.publishers.iter().filter(|publisher| publisher.link.is_open()).count();
        let path = self.dice.index(PATHS);
        let is_taken =
            self.publishers.iter().any(|other| other.link.is_open() && other.path == path);
        if open < PUBLISHERS_MAX && !is_taken {
            self.publish(path);
        }
    }

    fn join_somewhere(&mut self) {
        let open = self.viewers.iter().filter(|viewer| viewer.link.is_open()).count();
        if open < VIEWERS_MAX {
            let path = self.dice.index(PATHS);
            self.join(path);
        }
    }

    fn watch_somewhere(&mut self) {
        let here = self.watchers.iter().filter(|watcher| !watcher.is_over).count();
        if here < WATCHERS_MAX {
            let path = self.dice.index(PATHS);
            self.watch(path);
        }
    }

    /// A viewer of HLS leaves, or does not read for a while.
    fn disturb_watcher(&mut self) {
        let here: Vec<usize> =
            (0..self.watchers.len()).filter(|&at| !self.watchers[at].is_over).collect();
        if here.is_empty() {
            return;
        }
        let at = self.dice.pick(&here);
        if self.dice.chance(500) {
            let reset = self.dice.chance(500);
            self.watchers[at].leave(reset);
            self.note(&format!("watcher {at} leaves, reset {reset}"));
        } else {
            let for_ms = self.dice.pick(&[300, 2_500, 12_000]);
            self.watchers[at].stalled_until_ms = self.now_ms() + for_ms;
            self.note(&format!("watcher {at} stalls for {for_ms} ms"));
        }
    }

    fn leave_somebody(&mut self) {
        let Some(at) = self.some_viewer() else { return };
        let reset = self.dice.chance(500);
        self.note(&format!("viewer {at} leaves, reset {reset}"));
        self.viewers[at].link.hang_up(reset);
    }

    /// The cable of a publisher is cut. Returns its path.
    fn lose(&mut self) -> Option<usize> {
        let at = self.some_publisher()?;
        let (reset, now_ms) = (self.dice.chance(700), self.now_ms());
        let publisher = &mut self.publishers[at];
        let path = publisher.path;
        publisher.link.hang_up(reset);
        self.paths[path].lost_at_ms = Some(now_ms);
        self.note(&format!("publisher {at} is lost, path {path}"));
        Some(path)
    }

    fn lose_and_return(&mut self) {
        let Some(path) = self.lose() else { return };
        let grace_ms = self.grace_ms_min.max(200);
        // Within the grace period, around its end, and after it.
        let away_ms = match self.dice.index(4) {
            0 => self.dice.range(1, 100),
            1 => self.dice.range(1, grace_ms),
            2 => self.dice.range(grace_ms.saturating_sub(100), grace_ms + 100),
            _ => self.dice.range(grace_ms, grace_ms + 4_000),
        };
        self.returns.push((self.now_ms() + away_ms, path));
    }

    fn kick(&mut self) {
        let is_publisher = self.dice.chance(300);
        let found = if is_publisher { self.some_publisher() } else { self.some_viewer() };
        let Some(at) = found else { return };
        let told = match is_publisher {
            true => self.publishers[at].connection_id.clone(),
            false => self.viewers[at].connection_id.clone(),
        };
        let id: Option<ConnectionId> = match told {
            Some(id) => Some(id.parse().expect("an id")),
            // Viewers over HTTP are not told their id, and another process may have given another.
            None => {
                let address = match is_publisher {
                    true => self.publishers[at].link.local_addr(),
                    false => self.viewers[at].link.local_addr(),
                };
                let now_ms = self.now_ms();
                address.and_then(|address| self.server.find_client(address, now_ms))
            }
        };
        // It may be leaving, or a worker that starves does not answer.
        let Some(id) = id else { return };
        let (reply, _answer) = Reply::channel();
        let handle = &self.server.handles[usize::from(id.worker)];
        handle.send(Command::Kick { id, reply }).expect("commands are taken every turn");
        self.note(&format!("kick {id}, publisher {is_publisher}, number {at}"));
        if is_publisher {
            let path = self.publishers[at].path;
            self.paths[path].ended_at_ms = Some(self.now_ms());
        } else {
            self.viewers[at].was_kicked = true;
        }
    }

    /// A publisher changes what its messages are made of, at once or with the next of their kind.
    fn retune(&mut self) {
        let Some(at) = self.some_publisher() else { return };
        let now_ms = self.now_ms();
        let line = self.publishers[at].retune(&mut self.log, &mut self.dice, now_ms);
        self.note(&format!("publisher {at}: {line}"));
    }

    fn reload(&mut self) {
        self.config.defaults.flush = draw_flush(&mut self.dice);
        if !self.is_fair {
            self.config.defaults.lag_ms_max = self.dice.pick(&[500, 1_500, 4_000]);
        }
        self.config.defaults.grace_ms = self.dice.pick(&[0, 1_500, 3_000, 6_000]);
        // Now and then the rings together may hold nothing: they are short of memory then.
        self.config.limits.ring_bytes_max = self.dice.pick(&[0, 0, 1]);
        self.grace_ms_min = self.grace_ms_min.min(u64::from(self.config.defaults.grace_ms));
        let config = Arc::new(self.config.clone());
        self.server.send_all(|| Command::ApplyConfig(Arc::clone(&config)));
        if config.defaults.lag_ms_max < LAG_MS_FAIR {
            self.viewers.iter_mut().for_each(Viewer::forgive_gaps);
        }
        let (flush, lag_ms) = (config.defaults.flush, config.defaults.lag_ms_max);
        let (grace_ms, is_short) = (config.defaults.grace_ms, config.limits.ring_bytes_max > 0);
        self.note(&format!("reload: {flush:?}, lag {lag_ms}, grace {grace_ms}, short {is_short}"));
    }

    fn pause(&mut self) {
        let Some(at) = self.some_player() else { return };
        let play = self.dice.index(self.viewers[at].plays.len());
        self.viewers[at].said_at_ms = self.now_ms();
        let paused = !self.viewers[at].plays[play].is_pause_asked;
        let now_ms = self.now_ms();
        self.viewers[at].pause(play, paused, now_ms);
        self.note(&format!("viewer {at} pause {paused}"));
    }

    fn receive(&mut self) {
        let Some(at) = self.some_player() else { return };
        let play = self.dice.index(self.viewers[at].plays.len());
        self.viewers[at].said_at_ms = self.now_ms();
        let (video, on) = (self.dice.chance(500), self.dice.chance(500));
        self.viewers[at].receive(play, video, on);
        self.note(&format!("viewer {at} receive video {video} on {on}"));
    }

    fn play_also(&mut self) {
        let Some(at) = self.some_player() else { return };
        self.viewers[at].said_at_ms = self.now_ms();
        if self.viewers[at].plays.len() < 3 {
            let path = self.dice.index(PATHS);
            self.viewers[at].forgive_gaps();
            self.viewers[at].play_also(path);
            self.note(&format!("viewer {at} plays path {path} too"));
        }
    }

    fn play_again(&mut self) {
        let Some(at) = self.some_player() else { return };
        let play = self.dice.index(self.viewers[at].plays.len());
        self.viewers[at].said_at_ms = self.now_ms();
        // A play without `closeStream` takes the paused state with it; one at a time.
        if !self.viewers[at].plays[play].is_pause_asked {
            let closes_first = self.dice.chance(500);
            self.viewers[at].play_again(play, closes_first);
            self.note(&format!("viewer {at} plays again, close first {closes_first}"));
        }
    }

    /// A viewer over HTTP says something behind its request.
    fn say(&mut self) {
        let streaming: Vec<usize> = (0..self.viewers.len())
            .filter(|&at| self.viewers[at].link.web().is_some_and(|link| link.is_streaming()))
            .collect();
        if streaming.is_empty() {
            return;
        }
        let at = self.dice.pick(&streaming);
        self.viewers[at].said_at_ms = self.now_ms();
        let what = self.dice.index(8);
        let Some(link) = self.viewers[at].link.web() else { return };
        let line = match (link.form(), what) {
            (Form::Frames, 0) => {
                link.say_goodbye();
                "says goodbye"
            }
            (Form::Frames, 2..) => {
                link.ping();
                "pings"
            }
            _ => {
                link.babble();
                "babbles"
            }
        };
        self.note(&format!("viewer {at} {line}"));
    }

    fn stall(&mut self) {
        let Some(at) = self.some_viewer() else { return };
        let stall_ms = u64::from(self.config.defaults.stall_ms_max);
        // The last is longer than any run: it never reads again.
        let for_ms = self.dice.pick(&[300, 1_000, 2_500, stall_ms + 2_000, FOR_EVER_MS]);
        let until_ms = self.now_ms() + for_ms;
        let viewer = &mut self.viewers[at];
        viewer.forgive_gaps();
        viewer.stalled_until_ms = until_ms;
        viewer.prompt_since_ms = until_ms;
        self.note(&format!("viewer {at} stalls for {for_ms} ms"));
    }

    fn starve(&mut self) {
        if self.is_fair {
            return;
        }
        // One more than there are: the packager.
        let worker = self.dice.index(self.server.len() + 1);
        let for_ms = self.dice.pick(&[20, 200, 1_500, 5_000]);
        let until_ms = self.now_ms() + for_ms;
        if worker == self.server.len() {
            self.server.packager_starved_until_ms = until_ms;
            self.note(&format!("the packager starves for {for_ms} ms"));
            return;
        }
        self.server.starved_until_ms[worker] = until_ms;
        self.forgive_until(until_ms);
        self.note(&format!("worker {worker} starves for {for_ms} ms"));
    }

    fn forgive_until(&mut self, until_ms: u64) {
        self.starved_at_ms = self.starved_at_ms.max(until_ms);
        self.watchers.iter_mut().for_each(|watcher| watcher.was_away = true);
        self.viewers.iter_mut().for_each(Viewer::forgive_gaps);
    }

    /// Somebody sets the wall clock, which must not matter to any stream; or the whole machine was
    /// asleep, and both clocks have gone on.
    fn jump_clock(&mut self) {
        let unix_s = self.dice.pick(&[0, 946_684_800, 1_799_999_000, 1_800_000_000, 4_102_444_800]);
        set_wall_clock(unix_s);
        let slept_ms = self.dice.pick(&[0, 700, 4_000, 15_000]);
        if self.is_fair || slept_ms == 0 {
            self.note(&format!("the wall clock is set to {unix_s} s"));
            return;
        }
        self.net.advance_by(Nanos::from_millis(slept_ms));
        self.forgive_until(self.now_ms());
        let now_ms = self.now_ms();
        // What is told of the end of a stream comes later by the sleep.
        let ends = self.paths.iter_mut().filter_map(|path| path.ended_at_ms.as_mut());
        ends.for_each(|ended_at_ms| *ended_at_ms += slept_ms);
        for viewer in &mut self.viewers {
            viewer.prompt_since_ms = now_ms;
            viewer.plays.iter_mut().for_each(|play| play.judge.sleep(slept_ms));
        }
        self.watchers.iter_mut().for_each(|watcher| watcher.judge.sleep(slept_ms));
        self.note(&format!("everybody slept for {slept_ms} ms, the wall clock says {unix_s} s"));
    }

    pub fn change_weather(&mut self) {
        let faults = draw_faults(&mut self.dice, self.is_fair);
        self.note(&format!("weather: {faults:?}"));
        let now_ms = self.now_ms();
        let storms =
            [faults.buffers_empty_permille, faults.overflow_permille, faults.send_blocked_permille];
        let is_storm = storms.iter().any(|permille| *permille >= STORM_PERMILLE);
        if faults.socket_buffer_bytes < 100_000 || is_storm {
            self.viewers.iter_mut().for_each(Viewer::forgive_gaps);
            self.thin_until_ms = u64::MAX;
        } else {
            self.thin_until_ms = self.thin_until_ms.min(now_ms);
        }
        self.net.set_faults(faults);
    }
}

fn draw_faults(dice: &mut Dice, is_fair: bool) -> Faults {
    let mut faults = match dice.index(4) {
        0 => Faults::none(),
        1 => Faults::hostile(),
        _ => Faults::rough(),
    };
    if dice.chance(500) {
        faults = faults.with_queue_faults();
    }
    if faults.reset_permille > 0 {
        // Per segment: a connection is to live for some seconds of a stream.
        faults.reset_permille = 1;
        faults.receive_error_permille = 1;
    }
    faults.late_completion_permille = dice.pick(&[0, 200, 800]);
    faults.delay_max = Nanos::from_millis(dice.pick(&[1, 5, 60]));
    faults.socket_buffer_bytes = dice.pick(&[6_000, 30_000, 256 * 1024]);
    match dice.index(12) {
        // ENOBUFS: hardly ever a buffer.
        0 => faults.buffers_empty_permille = STORM_PERMILLE,
        // EMFILE at nearly every accept.
        1 => faults.accept_error_permille = STORM_PERMILLE,
        // A completion queue that always overflows.
        2 => faults.overflow_permille = STORM_PERMILLE,
        // EAGAIN for as long as this weather lasts, whoever reads.
        3 if !is_fair => faults.send_blocked_permille = 1_000,
        _ => {}
    }
    if is_fair {
        faults.socket_buffer_bytes = 256 * 1024;
        faults.delay_max = Nanos::from_millis(5);
    }
    faults
}
