//! The rules for what one play may show: invariants 1, 2 and the timestamps of 8.

use super::link::Received;
use super::media::{AUDIO, Class, Log, Mark, VIDEO, mark_of};

/// A kind of media may go back by so much (the disorder a timeline lets through), in milliseconds.
const BACKWARD_MS_MAX: i64 = 1_000;
/// How far timestamps may run ahead of the time between two publications, in milliseconds.
const AHEAD_MS_MAX: i64 = 10_000;

/// How far repairs may move audio and video against each other, in milliseconds.
const SYNC_MS_MAX: i64 = 200;

/// What a message turned out to be.
#[derive(Copy, Clone, Debug)]
pub struct Seen {
    pub mark: Mark,
    pub class: Class,
    /// Virtual time from the publisher's socket to here; media only.
    pub delay_ms: u64,
}

/// What one play has shown so far.
#[derive(Debug)]
pub struct Judge {
    path: usize,
    /// Sessions in the order in which they were first seen.
    sessions: Vec<u32>,
    /// Last audio and last video message.
    last: [Option<Mark>; 2],
    told: [Option<Mark>; 3],
    clock: [Option<(u32, u64)>; 2],
    /// Gaps are not excused: this player was never slow, never paused and hears everything.
    pub is_strict: bool,
    /// A new play may begin at a keyframe that was heard before.
    restarts: [u32; 2],
    /// What it travels in.
    vessel: Vessel,
    /// A change of tracks excuses a gap of sound and one of pictures.
    may_miss: [bool; 2],
    /// The first session from each of these on need not go on from the one before.
    timelines_from: Vec<usize>,
    /// How far timestamps may run ahead of the time between two publications, in milliseconds.
    ahead_ms_max: i64,
    pub media: u64,
}

/// What a play travels in, as far as the rules differ.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Vessel {
    /// Messages or tags, one for one.
    Messages,
    /// Fragmented MP4: nothing tells metadata; sound is counted in samples; another track begins a
    /// segment, which begins with a keyframe.
    Fragments,
    /// MPEG-TS: likewise, and of a configuration of sound too little is told to know it.
    Packets,
}

impl Judge {
    pub fn new(path: usize, is_strict: bool) -> Self {
        Self {
            path,
            sessions: Vec::new(),
            last: [None; 2],
            told: [None; 3],
            clock: [None; 2],
            is_strict,
            restarts: [0; 2],
            vessel: Vessel::Messages,
            may_miss: [false; 2],
            timelines_from: Vec::new(),
            ahead_ms_max: AHEAD_MS_MAX,
            media: 0,
        }
    }

    /// The same for a play that comes as fragmented MP4.
    pub fn of_fragments(path: usize, is_strict: bool) -> Self {
        Self { vessel: Vessel::Fragments, ..Self::new(path, is_strict) }
    }

    /// Parameter sets before a picture: those that are known, or others.
    pub fn learn_again(&mut self, log: &Log, header: &Received) -> Result<(), String> {
        let mark = mark_of(header.kind, &header.body);
        match self.told[0] == mark && mark.is_some() {
            true => Ok(()),
            false => self.learn(log, std::slice::from_ref(header)),
        }
    }

    /// What comes next need not follow what was heard, but must begin as a stream does.
    pub fn excuse_gap(&mut self) {
        self.may_miss = [true; 2];
    }

    /// Another process packages now, or the viewer begins anew: the run begins at a keyframe, which may have
    /// been shown before, of a session that was seen to end.
    pub fn begin_run_elsewhere(&mut self) {
        self.sessions.clear();
        self.restarts = [1; 2];
        self.begin_run();
    }

    /// What was over when another process took over is not known there: whoever publishes next begins
    /// another timeline.
    pub fn expect_timeline(&mut self, log: &Log) {
        self.timelines_from.push(log.sessions.len());
    }

    /// What comes is MPEG-TS.
    pub fn expect_packets(&mut self) {
        self.vessel = Vessel::Packets;
    }

    /// Everybody slept: what fell into that time is published in one moment.
    pub fn sleep(&mut self, slept_ms: u64) {
        self.ahead_ms_max += i64::try_from(slept_ms).expect("short runs");
    }

    /// Another packaging run: its times have nothing to do with those before.
    pub fn begin_run(&mut self) {
        self.clock = [None; 2];
        self.excuse_gap();
    }

    /// What an init segment says: sequence headers, as they were published. One of a session before may
    /// stay, for a track that the present one does not have.
    pub fn learn(&mut self, log: &Log, headers: &[Received]) -> Result<(), String> {
        for header in headers {
            let mark = mark_of(header.kind, &header.body);
            let sent = mark.and_then(|mark| log.find(mark));
            let (Some(mark), Some(sent)) = (mark, sent) else {
                return Err(format!("an init segment of a configuration nobody sent: {header:x?}"));
            };
            let session = &log.sessions[mark.session as usize];
            if *sent.body != *header.body || session.path != self.path {
                return Err(format!("the configuration {mark:?} is not what was published"));
            }
            let at = sent.class.config().ok_or("an init segment says what is no configuration")?;
            self.told[at] = Some(mark);
        }
        self.excuse_gap();
        Ok(())
    }

    /// The player asks for the stream once more: it will begin again at a keyframe, at some place
    /// that may lie behind what was heard.
    pub fn expect_restart(&mut self) {
        self.restarts = self.restarts.map(|restarts| restarts + 1);
        self.is_strict = false;
    }

    pub fn last(&self, kind: u8) -> Option<Mark> {
        self.last[usize::from(kind == VIDEO)]
    }

    /// Timestamp of the last message of a kind, and the virtual time at which it was published.
    pub fn clock(&self, kind: u8) -> Option<(u32, u64)> {
        self.clock[usize::from(kind == VIDEO)]
    }

    pub fn take(&mut self, log: &Log, message: &Received, now_ms: u64) -> Result<Seen, String> {
        let Some(mark) = mark_of(message.kind, &message.body) else {
            return Err(format!("a message nobody published: kind {}", message.kind));
        };
        let Some(sent) = log.find(mark) else {
            return Err(format!("{mark:?} was never published"));
        };
        if sent.class.kind() != message.kind || *sent.body != *message.body {
            return Err(format!("{mark:?} is not what was published ({:?})", sent.class));
        }
        let session = &log.sessions[mark.session as usize];
        if session.path != self.path {
            return Err(format!("{mark:?} belongs to path {}, not {}", session.path, self.path));
        }
        if self.sessions.last() != Some(&mark.session) {
            if self.sessions.contains(&mark.session) {
                return Err(format!("{mark:?} comes after its session was over"));
            }
            self.sessions.push(mark.session);
            let known = self.timelines_from.len();
            self.timelines_from.retain(|&first| first > mark.session as usize);
            if self.restarts != [0; 2] || self.timelines_from.len() < known {
                // Between two plays the stream may have been forgotten, its timeline with it.
                self.clock = [None; 2];
            }
        }
        let seen = Seen { mark, class: sent.class, delay_ms: now_ms.saturating_sub(sent.at_ms) };
        if let Some(at) = sent.class.config() {
            self.told[at] = Some(mark);
            return Ok(seen);
        }
        self.media += 1;
        self.begin_again(mark, sent.class);
        self.judge_order(mark, sent.class, sent.previous, session.keyframes)?;
        self.judge_headers(mark, sent.class, sent.in_force)?;
        self.judge_time(message, sent.at_ms)?;
        self.judge_sync(log, mark, sent.timestamp, message)?;
        self.last[usize::from(message.kind == VIDEO)] = Some(mark);
        Ok(seen)
    }

    /// Forgets what was heard if this can only be the beginning of a play that was asked for.
    fn begin_again(&mut self, mark: Mark, class: Class) {
        let last = self.last(class.kind());
        let lane = usize::from(class.kind() == VIDEO);
        if self.restarts[lane] > 0 && last.is_some_and(|last| mark <= last) {
            self.restarts[lane] -= 1;
            self.last[lane] = None;
            self.clock[lane] = None;
        }
    }

    fn judge_order(
        &mut self,
        mark: Mark,
        class: Class,
        previous: Option<u32>,
        keyframes: bool,
    ) -> Result<(), String> {
        let last = self.last(class.kind()).filter(|last| last.session == mark.session);
        if let Some(last) = last
            && mark <= last
        {
            return Err(format!("{mark:?} comes behind {last:?}: repeated or out of order"));
        }
        let follows = previous == last.map(|last| last.index);
        let is_excused = std::mem::take(&mut self.may_miss[usize::from(class.kind() == VIDEO)]);
        if follows {
            return Ok(());
        }
        if self.is_strict && last.is_some() && !is_excused {
            return Err(format!("{mark:?} follows {last:?}: lost for a player that kept up"));
        }
        let is_decodable = !keyframes || class != (Class::Video { keyframe: false });
        if !is_decodable {
            return Err(format!("{mark:?} follows {last:?}: a gap that ends without a keyframe"));
        }
        Ok(())
    }

    fn judge_headers(
        &self,
        mark: Mark,
        class: Class,
        in_force: [Option<Mark>; 3],
    ) -> Result<(), String> {
        let own = match class.kind() {
            AUDIO => Class::AudioHeader,
            _ => Class::VideoHeader,
        };
        let known = [(own, "sequence header"), (Class::Metadata, "metadata")];
        let known = match self.vessel {
            Vessel::Messages => &known[..],
            Vessel::Fragments => &known[..1],
            Vessel::Packets if class.kind() == AUDIO => &[],
            Vessel::Packets => &known[..1],
        };
        for &(config, name) in known {
            let at = config.config().expect("a configuration has a place");
            if in_force[at].is_some() && in_force[at] != self.told[at] {
                let (wanted, told) = (in_force[at], self.told[at]);
                return Err(format!("{mark:?} needs the {name} {wanted:?}, told was {told:?}"));
            }
        }
        Ok(())
    }

    fn judge_time(&mut self, message: &Received, sent_at_ms: u64) -> Result<(), String> {
        let clock = &mut self.clock[usize::from(message.kind == VIDEO)];
        if let Some((timestamp, at_ms)) = *clock {
            let step_ms = i64::from(message.timestamp.wrapping_sub(timestamp).cast_signed());
            let elapsed_ms = i64::try_from(sent_at_ms.saturating_sub(at_ms)).expect("short runs");
            if step_ms < -BACKWARD_MS_MAX || step_ms > elapsed_ms + self.ahead_ms_max {
                return Err(format!(
                    "kind {} steps by {step_ms} ms after {elapsed_ms} ms",
                    message.kind
                ));
            }
        }
        *clock = Some((message.timestamp, sent_at_ms));
        Ok(())
    }

    /// Audio and video published side by side stay side by side.
    fn judge_sync(
        &self,
        log: &Log,
        mark: Mark,
        sent: u32,
        message: &Received,
    ) -> Result<(), String> {
        let other = if message.kind == VIDEO { AUDIO } else { VIDEO };
        let (Some(last), Some((timestamp, _))) = (self.last(other), self.clock(other)) else {
            return Ok(());
        };
        if last.session != mark.session || mark.index.abs_diff(last.index) > 4 {
            return Ok(());
        }
        let Some(beside) = log.find(last) else { return Ok(()) };
        let published_ms = i64::from(sent.wrapping_sub(beside.timestamp).cast_signed());
        let heard_ms = i64::from(message.timestamp.wrapping_sub(timestamp).cast_signed());
        if published_ms.abs() < 1_000 && (heard_ms - published_ms).abs() > SYNC_MS_MAX {
            return Err(format!(
                "{mark:?} was published {published_ms} ms from {last:?} and is heard {heard_ms} ms from it"
            ));
        }
        Ok(())
    }
}
