//! A simulated player: joins, listens with a temper of its own, and judges what it hears.

use rtmp::session::{ClientConfig, ClientRole};
use rtmp::{Millis, amf0};

use super::dice::Dice;
use super::judge::{Judge, Seen};
use super::line::Line;
use super::link::{Heard, Link, Received};
use super::media::{Class, Log, VIDEO};
use super::web::{Wanted, WebLink};
use super::wire::Wire;

/// A bug planted in a player's ears, to prove that the rules can be broken.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// One bit of a message is turned over.
    Corrupt,
    /// A message is heard twice.
    Repeat,
    /// A message is lost.
    Lose,
    /// Sequence headers are lost.
    LoseHeaders,
    /// A byte of an HTTP response is lost.
    Tear,
    /// The last chunk or frame of an HTTP response is lost.
    HideEnd,
    /// A fragment is lost.
    LoseFragment,
    /// Init segments are lost but for the first.
    LoseInit,
    /// The samples of a fragment lie elsewhere than its table says.
    MisplaceSample,
    /// A file of HLS is not what another viewer was given.
    SpoilFile,
    /// Of HLS a whole file is lost.
    LoseSegment,
    /// A playlist does not tell its discontinuities.
    HideDiscontinuity,
    /// Runs of HLS are not passed on, and their numbers are.
    ForgetPackaging,
    /// A playlist's lines are malformed.
    BreakPlaylist,
    /// A playlist is an older one.
    TurnBack,
    /// A reload is not held until there is more.
    AnswerEarly,
    /// The packager stands still.
    StopPackager,
    /// A bit of a TLS record is turned over.
    SpoilRecord,
    /// TLS ends without a goodbye.
    HideGoodbye,
    /// Everything comes seconds late.
    Late,
    /// Nothing is heard any more from some moment on.
    Deafen,
    /// An end is heard that nobody made.
    EndEarly,
    /// Timestamps go on from somewhere else.
    Jump,
    /// Not heard, but done to the server: it forgets to let go of a stream.
    Hold,
    /// Likewise: a connection is counted twice.
    Miscount,
    /// Done to what an upgrade passes on: the message at the tail of a ring is left out.
    ForgetPart,
    /// Likewise the messages that wait for their turn.
    ForgetAside,
    /// Likewise what belongs before media.
    ForgetPreamble,
    /// Likewise the rest of a message that is half sent.
    ForgetRest,
    /// Likewise the rest of TLS records.
    ForgetSealed,
    /// Likewise the numbers of playlists.
    ForgetNumbers,
    /// Places in rings are off by a byte.
    Misplace,
    /// Who has a place is to join anew.
    Rejoin,
    /// A place in the quotas is never given back.
    KeepPlace,
    /// A connection is not passed on.
    LeaveOut,
    /// A picture of MPEG-TS is lost, whole; a bit of one is turned over; a packet is lost.
    LosePicture,
    SpoilPicture,
    LosePacket,
}

/// How fast a player reads.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as bytes come.
    Prompt,
    /// So many bytes per millisecond.
    Slow(u64),
}

/// One play on the connection.
#[derive(Debug)]
pub struct Play {
    pub msid: u32,
    pub path: usize,
    pub judge: Judge,
    pub wants_audio: bool,
    pub wants_video: bool,
    /// The server has confirmed a pause that was not taken back.
    pub is_pause_confirmed: bool,
    pub is_pause_asked: bool,
    /// Pauses asked for that the server has not answered; only the last answer counts.
    pauses_unanswered: u32,
    /// Told that the stream has ended, and no media since.
    pub has_ended: bool,
}

impl Play {
    fn new(msid: u32, path: usize, is_strict: bool) -> Self {
        Self {
            msid,
            path,
            judge: Judge::new(path, is_strict),
            wants_audio: true,
            wants_video: true,
            is_pause_confirmed: false,
            is_pause_asked: false,
            pauses_unanswered: 0,
            has_ended: false,
        }
    }
}

/// What the world has to know of a player's turn.
#[derive(Debug)]
pub enum News {
    Ended {
        path: usize,
    },
    /// Its stream stopped without an end, on a connection that was closed in order.
    CutOff,
    Media {
        seen: Seen,
        is_first: bool,
    },
    Gone,
}

#[derive(Debug)]
pub struct Viewer {
    pub link: Line,
    pub plays: Vec<Play>,
    pub connection_id: Option<String>,
    pub has_started: bool,
    pub was_refused: bool,
    /// When it was asked to come again elsewhere, and when its connection was found gone.
    pub asked_at_ms: Option<u64>,
    pub gone_at_ms: Option<u64>,
    /// The server was told to close it.
    pub was_kicked: bool,
    /// An upgrade has not taken it along: the process before closes it.
    pub is_left_behind: bool,
    /// When it last heard media, and when it last asked for something.
    pub heard_at_ms: u64,
    pub said_at_ms: u64,
    pub pace: Pace,
    pub stalled_until_ms: u64,
    /// Since when it has kept up without a break; what it hears in time is judged from here on.
    pub prompt_since_ms: u64,
    sabotage: Sabotage,
    read_at_ms: u64,
    transaction: f64,
    heard: u64,
}

impl Viewer {
    /// A player.
    pub fn by_rtmp(
        peer: Wire,
        path: usize,
        dice: &mut Dice,
        now_ms: u64,
        sabotage: Sabotage,
    ) -> Self {
        let caps_ex = ClientConfig::default().caps_ex;
        Self::able_to(peer, path, caps_ex, dice, now_ms, sabotage)
    }

    /// A player that says it is able to do this of Enhanced RTMP.
    pub fn able_to(
        peer: Wire,
        path: usize,
        caps_ex: u32,
        dice: &mut Dice,
        now_ms: u64,
        sabotage: Sabotage,
    ) -> Self {
        let config = ClientConfig {
            tc_url: "rtmp://sim.test/live".to_owned(),
            app: "live".to_owned(),
            stream: format!("s{path}"),
            role: ClientRole::Play,
            window_ack_bytes: dice.pick(&[5_000, 100_000, 2_500_000]),
            caps_ex,
            ..ClientConfig::default()
        };
        let link = Link::new(peer, config, dice.next(), Millis(now_ms));
        Self::new(Line::Rtmp(Box::new(link)), path, dice, now_ms, sabotage)
    }

    /// A viewer over HTTP.
    pub fn over_http(
        peer: Wire,
        path: usize,
        dice: &mut Dice,
        now_ms: u64,
        sabotage: Sabotage,
    ) -> Self {
        let whole = Wanted::Flv { audio: true, video: true };
        let pictures = Wanted::Flv { audio: false, video: true };
        let sound = Wanted::Flv { audio: true, video: false };
        let fmp4 = Wanted::Fmp4;
        let wanted = dice.pick(&[whole, whole, whole, pictures, sound, fmp4, fmp4, fmp4]);
        Self::of_form(peer, path, wanted, dice, now_ms, sabotage)
    }

    /// A viewer over HTTP who wants just this.
    pub fn of_form(
        peer: Wire,
        path: usize,
        wanted: Wanted,
        dice: &mut Dice,
        now_ms: u64,
        sabotage: Sabotage,
    ) -> Self {
        let link = WebLink::new(peer, path, wanted, dice, sabotage);
        let mut viewer = Self::new(Line::Web(Box::new(link)), path, dice, now_ms, sabotage);
        let play = &mut viewer.plays[0];
        match wanted {
            Wanted::Flv { audio, video } => (play.wants_audio, play.wants_video) = (audio, video),
            Wanted::Fmp4 => play.judge = Judge::of_fragments(path, play.judge.is_strict),
        }
        viewer
    }

    fn new(link: Line, path: usize, dice: &mut Dice, now_ms: u64, sabotage: Sabotage) -> Self {
        let pace = match dice.index(4) {
            0 => Pace::Slow(dice.range(5, 120)),
            _ => Pace::Prompt,
        };
        let is_strict = pace == Pace::Prompt;
        Self {
            link,
            plays: vec![Play::new(1, path, is_strict)],
            connection_id: None,
            has_started: false,
            was_refused: false,
            asked_at_ms: None,
            gone_at_ms: None,
            was_kicked: false,
            is_left_behind: false,
            heard_at_ms: 0,
            said_at_ms: now_ms,
            pace,
            stalled_until_ms: 0,
            prompt_since_ms: now_ms,
            sabotage,
            read_at_ms: now_ms,
            transaction: 20.0,
            heard: 0,
        }
    }

    /// How it watches, for the story.
    pub fn describe(&self) -> String {
        let link = match &self.link {
            Line::Rtmp(_) => "rtmp".to_owned(),
            Line::Web(link) => {
                let kind = if link.is_fragmented() { "fmp4" } else { "flv" };
                format!("{kind} in {:?}", link.form())
            }
        };
        format!("{:?}, {link}, from {:?}", self.pace, self.link.local_addr())
    }

    /// When it reads again; prompt players are woken by what arrives.
    pub fn next_at_ms(&self, now_ms: u64) -> u64 {
        if self.stalled_until_ms > now_ms {
            return self.stalled_until_ms;
        }
        match self.pace {
            Pace::Prompt => self.link.next_at_ms(now_ms),
            Pace::Slow(_) => self.read_at_ms + 10,
        }
    }

    /// Nothing about its later messages is promised to be complete any more.
    pub fn forgive_gaps(&mut self) {
        for play in &mut self.plays {
            play.judge.is_strict = false;
        }
    }

    pub fn turn(&mut self, log: &Log, now_ms: u64) -> Result<Vec<News>, String> {
        let allowed = match self.pace {
            _ if now_ms < self.stalled_until_ms => 0,
            Pace::Prompt => usize::MAX,
            Pace::Slow(rate) => {
                let elapsed_ms = now_ms - self.read_at_ms;
                if elapsed_ms >= 10 {
                    self.read_at_ms = now_ms;
                }
                usize::try_from(if elapsed_ms < 10 { 0 } else { rate * elapsed_ms }).expect("small")
            }
        };
        let mut news = Vec::new();
        for heard in self.link.turn(Millis(now_ms), allowed)? {
            match heard {
                Heard::Connected(id) => self.connection_id = id,
                Heard::PlayStarted => self.has_started = true,
                Heard::Status { msid, code } => self.on_status(msid, &code, &mut news),
                Heard::Message(message) => self.on_message(log, message, now_ms, &mut news)?,
                Heard::Init(headers) => self.plays[0].judge.learn(log, &headers)?,
                Heard::Refused(_) => {
                    self.was_refused = true;
                    self.link.hang_up(false);
                    news.push(News::Gone);
                }
                Heard::CutOff => news.push(News::CutOff),
                Heard::AskedToReconnect => self.asked_at_ms = Some(now_ms),
                Heard::Gone => {
                    self.gone_at_ms = Some(now_ms);
                    news.push(News::Gone);
                }
                Heard::Published => return Err("a player was told that it publishes".to_owned()),
            }
        }
        Ok(news)
    }

    fn on_status(&mut self, msid: u32, code: &str, news: &mut Vec<News>) {
        let Some(play) = self.plays.iter_mut().find(|play| play.msid == msid) else { return };
        match code {
            "NetStream.Pause.Notify" => {
                play.pauses_unanswered = play.pauses_unanswered.saturating_sub(1);
                play.is_pause_confirmed = play.is_pause_asked && play.pauses_unanswered == 0;
            }
            "NetStream.Play.UnpublishNotify" => {
                play.has_ended = true;
                news.push(News::Ended { path: play.path });
            }
            _ => {}
        }
    }

    fn on_message(
        &mut self,
        log: &Log,
        mut message: Received,
        now_ms: u64,
        news: &mut Vec<News>,
    ) -> Result<(), String> {
        self.heard += 1;
        let mut times = 1;
        if self.heard > 20 {
            match self.sabotage {
                Sabotage::Corrupt => *message.body.last_mut().expect("bodies are long") ^= 4,
                Sabotage::Repeat => times = 2,
                Sabotage::Lose if message.kind == VIDEO && self.heard.is_multiple_of(50) => {
                    times = 0
                }
                Sabotage::Deafen if self.heard > 200 => times = 0,
                Sabotage::Jump if self.heard > 200 => {
                    message.timestamp = message.timestamp.wrapping_add(60_000);
                }
                Sabotage::EndEarly if self.heard == 400 => {
                    news.push(News::Ended { path: self.plays[0].path });
                }
                _ => {}
            }
        }
        let is_header = message.kind == VIDEO && message.body.get(1) == Some(&0);
        if self.sabotage == Sabotage::LoseHeaders && is_header {
            times = 0;
        }
        for _ in 0..times {
            self.judge(log, &message, now_ms, news)?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        log: &Log,
        message: &Received,
        now_ms: u64,
        news: &mut Vec<News>,
    ) -> Result<(), String> {
        let Some(play) = self.plays.iter_mut().find(|play| play.msid == message.msid) else {
            return Err(format!("a message on stream {}, which plays nothing", message.msid));
        };
        if play.is_pause_confirmed {
            return Err(format!("a message of kind {} during a pause", message.kind));
        }
        let is_first = play.judge.media == 0;
        let mut seen = play.judge.take(log, message, now_ms)?;
        if self.sabotage == Sabotage::Late && self.heard > 200 {
            seen.delay_ms += 3_000;
        }
        play.has_ended = false;
        self.heard_at_ms = now_ms;
        if matches!(seen.class, Class::Video { .. } | Class::Audio) {
            news.push(News::Media { seen, is_first });
        }
        Ok(())
    }

    // What players ask for besides media.

    pub fn pause(&mut self, at: usize, paused: bool, now_ms: u64) {
        let play = &mut self.plays[at];
        if play.is_pause_asked == paused {
            return;
        }
        play.is_pause_asked = paused;
        play.pauses_unanswered += u32::from(paused);
        play.is_pause_confirmed = false;
        play.judge.is_strict = false;
        self.prompt_since_ms = now_ms;
        let (msid, transaction) = (play.msid, self.transaction());
        self.command(msid, "pause", transaction, |amf| {
            amf.boolean(paused);
            amf.number(0.0);
        });
    }

    pub fn receive(&mut self, at: usize, video: bool, on: bool) {
        let play = &mut self.plays[at];
        play.judge.is_strict = false;
        if video {
            play.wants_video = on;
        } else {
            play.wants_audio = on;
        }
        let (msid, transaction) = (play.msid, self.transaction());
        let name = if video { "receiveVideo" } else { "receiveAudio" };
        self.command(msid, name, transaction, |amf| amf.boolean(on));
    }

    /// Another play on a message stream of its own.
    pub fn play_also(&mut self, path: usize) {
        let msid = self.plays.iter().map(|play| play.msid).max().unwrap_or(0) + 1;
        let transaction = self.transaction();
        self.command(0, "createStream", transaction, |_| {});
        self.plays.push(Play::new(msid, path, false));
        self.request_play(msid, path);
    }

    /// Plays the same stream again on the same message stream, with or without closing it first.
    pub fn play_again(&mut self, at: usize, closes_first: bool) {
        let (msid, path) = (self.plays[at].msid, self.plays[at].path);
        if closes_first {
            self.command(msid, "closeStream", 0.0, |_| {});
        }
        // What the first play still sends and what the second does cannot be told apart: the
        // second begins at a keyframe, which may be one that was heard already.
        self.request_play(msid, path);
        self.plays[at].judge.expect_restart();
    }

    fn request_play(&mut self, msid: u32, path: usize) {
        let transaction = self.transaction();
        self.command(msid, "play", transaction, |amf| {
            amf.string(&format!("s{path}"));
            amf.number(-2.0);
        });
    }

    /// Only players have commands.
    fn command(
        &mut self,
        msid: u32,
        name: &str,
        transaction: f64,
        arguments: impl FnOnce(&mut amf0::Writer<'_>),
    ) {
        let link = self.link.rtmp().expect("a player by RTMP");
        link.session.send_command(msid, name, transaction, arguments);
    }

    fn transaction(&mut self) -> f64 {
        self.transaction += 1.0;
        self.transaction
    }
}
