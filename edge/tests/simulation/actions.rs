//! What may happen between two moments of a run, how often, and why so often.

use std::sync::Arc;

use edge::command::{Command, ConnectionId, Reply};
use uring::Nanos;
use uring::sim::Faults;

use super::dice::Dice;
use super::flv::Form;
use super::server::draw_flush;
use super::viewer::Viewer;
use super::world::{LAG_MS_FAIR, PATHS, World};

/// Publishers and players at one time: enough to meet, few enough to read a trace.
const PUBLISHERS_MAX: usize = 4;
const VIEWERS_MAX: usize = 12;

#[derive(Copy, Clone, Debug)]
pub enum Action {
    Publish,
    Join,
    Say,
    Leave,
    CleanEnd,
    Lose,
    LoseAndReturn,
    TakeOver,
    Kick,
    Reload,
    Pause,
    Receive,
    PlayAlso,
    PlayAgain,
    Stall,
    Starve,
    Weather,
}

/// The weights, and the reason for each.
const ACTIONS: &[(Action, u32)] = &[
    // There is nothing to see without a publisher; more than one per path is a takeover.
    (Action::Publish, 14),
    // Most of what can go wrong happens to players.
    (Action::Join, 40),
    // Viewers over HTTP have little to say; it must not disturb what they hear.
    (Action::Say, 10),
    // Fewer than joins, so that the house fills up to its limit.
    (Action::Leave, 12),
    // Ends and returns are where state is handed over, but each needs some life before it.
    (Action::CleanEnd, 4),
    (Action::Lose, 2),
    (Action::LoseAndReturn, 8),
    // Crosses workers in most cases; rare in the world, frequent here.
    (Action::TakeOver, 6),
    // A short path of its own through closing.
    (Action::Kick, 3),
    // Cheap, touches every stream.
    (Action::Reload, 3),
    // These three move a player's place by command while bytes are on their way.
    (Action::Pause, 12),
    (Action::Receive, 8),
    (Action::PlayAgain, 6),
    // Several plays share one connection: each changes the path of all others.
    (Action::PlayAlso, 4),
    // Lag, skips and stalls need a full socket, and then time.
    (Action::Stall, 12),
    // A worker without the processor makes everything happen at once.
    (Action::Starve, 3),
    // Long enough under one weather to meet its rare faults.
    (Action::Weather, 5),
];

impl World {
    /// Makes one thing happen.
    pub fn act(&mut self) {
        let weights = ACTIONS.iter().map(|(_, weight)| *weight);
        let (action, _) = ACTIONS[self.dice.weighted(weights)];
        match action {
            Action::Publish => self.publish_somewhere(),
            Action::Join => self.join_somewhere(),
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
            Action::Kick => self.kick(),
            Action::Reload => self.reload(),
            Action::Pause => self.pause(),
            Action::Receive => self.receive(),
            Action::PlayAlso => self.play_also(),
            Action::PlayAgain => self.play_again(),
            Action::Stall => self.stall(),
            Action::Starve => self.starve(),
            Action::Weather => self.change_weather(),
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
        let found = if is_publisher { self.some_publisher() } else { self.some_player() };
        let Some(at) = found else { return };
        let id = match is_publisher {
            true => self.publishers[at].connection_id.clone(),
            false => self.viewers[at].connection_id.clone(),
        };
        let id: ConnectionId = id.expect("told at connect").parse().expect("an id");
        let (reply, _answer) = Reply::channel();
        let handle = &self.server.handles[usize::from(id.worker)];
        handle.send(Command::Kick { id, reply }).expect("commands are taken every turn");
        self.note(&format!("kick {id}, publisher {is_publisher}, number {at}"));
        if is_publisher {
            let path = self.publishers[at].path;
            self.paths[path].ended_at_ms = Some(self.now_ms());
        }
    }

    fn reload(&mut self) {
        self.config.defaults.flush = draw_flush(&mut self.dice);
        if !self.is_fair {
            self.config.defaults.lag_ms_max = self.dice.pick(&[500, 1_500, 4_000]);
        }
        self.config.defaults.grace_ms = self.dice.pick(&[0, 1_500, 3_000, 6_000]);
        self.grace_ms_min = self.grace_ms_min.min(u64::from(self.config.defaults.grace_ms));
        let config = Arc::new(self.config.clone());
        self.server.send_all(|| Command::ApplyConfig(Arc::clone(&config)));
        if config.defaults.lag_ms_max < LAG_MS_FAIR {
            self.viewers.iter_mut().for_each(Viewer::forgive_gaps);
        }
        let (flush, lag_ms) = (config.defaults.flush, config.defaults.lag_ms_max);
        self.note(&format!("reload: {flush:?}, lag {lag_ms}, grace {}", config.defaults.grace_ms));
    }

    fn pause(&mut self) {
        let Some(at) = self.some_player() else { return };
        let play = self.dice.index(self.viewers[at].plays.len());
        let paused = !self.viewers[at].plays[play].is_pause_asked;
        let now_ms = self.now_ms();
        self.viewers[at].pause(play, paused, now_ms);
        self.note(&format!("viewer {at} pause {paused}"));
    }

    fn receive(&mut self) {
        let Some(at) = self.some_player() else { return };
        let play = self.dice.index(self.viewers[at].plays.len());
        let (video, on) = (self.dice.chance(500), self.dice.chance(500));
        self.viewers[at].receive(play, video, on);
        self.note(&format!("viewer {at} receive video {video} on {on}"));
    }

    fn play_also(&mut self) {
        let Some(at) = self.some_player() else { return };
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
        let for_ms = self.dice.pick(&[300, 1_000, 2_500, stall_ms + 2_000]);
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
        let worker = self.dice.index(self.server.len());
        let for_ms = self.dice.pick(&[20, 200, 1_500]);
        let until_ms = self.now_ms() + for_ms;
        self.server.starved_until_ms[worker] = until_ms;
        self.starved_at_ms = until_ms;
        for viewer in &mut self.viewers {
            viewer.forgive_gaps();
        }
        self.note(&format!("worker {worker} starves for {for_ms} ms"));
    }

    fn change_weather(&mut self) {
        let mut faults = draw_faults(&mut self.dice);
        if self.is_fair {
            faults.socket_buffer_bytes = 256 * 1024;
            faults.delay_max = Nanos::from_millis(5);
        }
        self.note(&format!(
            "weather: resets {}, short sends {}, late {}, buffer {}",
            faults.reset_permille,
            faults.short_send_permille,
            faults.late_completion_permille,
            faults.socket_buffer_bytes
        ));
        let now_ms = self.now_ms();
        if faults.socket_buffer_bytes < 100_000 {
            self.viewers.iter_mut().for_each(Viewer::forgive_gaps);
            self.thin_until_ms = u64::MAX;
        } else {
            self.thin_until_ms = self.thin_until_ms.min(now_ms);
        }
        self.net.set_faults(faults);
    }
}

fn draw_faults(dice: &mut Dice) -> Faults {
    let mut faults = match dice.index(4) {
        0 => Faults::none(),
        1 => Faults::hostile(),
        _ => Faults::rough(),
    };
    if faults.reset_permille > 0 {
        // Per segment: a connection is to live for some seconds of a stream.
        faults.reset_permille = 1;
        faults.receive_error_permille = 1;
    }
    faults.late_completion_permille = dice.pick(&[0, 200, 800]);
    faults.delay_max = Nanos::from_millis(dice.pick(&[1, 5, 60]));
    faults.socket_buffer_bytes = dice.pick(&[6_000, 30_000, 256 * 1024]);
    faults
}
