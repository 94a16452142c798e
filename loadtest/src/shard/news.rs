//! What a thread tells the reporter, and which part of the plan it does.

use crate::player::{Player, Summary};
use crate::tally::Tally;

/// Which part of the plan a thread does.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Duty {
    /// All publishers.
    Publish,
    /// Every `of`th player from `first` on, and as many of those who only shake hands; the first
    /// thread also does the hostile peers.
    Play { first: u64, of: u64 },
    /// Every `of`th player of a join storm: apart, so that those who watch already are not measured
    /// behind them in one queue.
    Storm { first: u64, of: u64 },
}

impl Duty {
    /// From one player of this thread to its next.
    pub(super) fn stride(self) -> u64 {
        match self {
            Duty::Publish => 1,
            Duty::Play { of, .. } | Duty::Storm { of, .. } => of,
        }
    }
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

    /// Adds what a player's messages came to.
    pub(super) fn add_accounts(&mut self, player: &Player) {
        for account in &player.viewer.accounts {
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
