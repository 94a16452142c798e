//! A viewer of HLS: asks for playlists as players do, loads what they list, judges both.
//!
//! ```text
//!   multivariant ─► playlist ─► init, parts or segments ─► playlist (held until there is more) ─► …
//!        ▲             └─ gone, refused ─┐                  or the part that is announced
//!        └─────── after a while ◄────────┘
//! ```
//!
//! Whatever happens to its connection, it connects again and asks again: HLS knows no lost byte. So frames
//! may be missing only where a discontinuity says so, or where it was too slow and the playlist has moved on.

use std::collections::VecDeque;

use mux::playlist::validate;

use super::answers::Answer;
use super::dice::Dice;
use super::files::Files;
use super::fmp4::Fmp4Reader;
use super::judge::{Judge, Seen};
use super::link::Received;
use super::media::{Log, VIDEO};
use super::playlist::Playlist;
use super::ts::{Piece, TsReader};
use super::viewer::{Pace, Sabotage};
use super::wire::Wire;

/// A held reload is answered with what there is after this, in milliseconds.
const HELD_MS_MAX: u64 = 7_900;
/// Who says nothing for so long may find that nothing is packaged any more, in milliseconds.
const AWAY_MS: u64 = 7_000;
/// Packets of MPEG-TS.
const PACKET_BYTES: usize = 188;
/// Whose playlist is no older than this is watching, in milliseconds.
const RECENT_MS: u64 = 4_000;
/// Segments that are served although they are no longer listed.
const BEHIND: u64 = 3;
const TEXTS_MAX: usize = 3;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    Multivariant,
    /// A playlist, held until it has this part of this segment.
    Playlist {
        until: Option<(u64, usize)>,
        skips: bool,
    },
    Init(String),
    /// A whole segment, or what of it was not heard as parts.
    Segment(String),
    Part(String),
    /// The part that comes next.
    Hint(String),
}

/// What is around a viewer in its turn.
pub struct Around<'w> {
    /// Connects to the server; the flag asks for TLS.
    pub connect: &'w mut dyn FnMut(bool) -> Wire,
    pub log: &'w Log,
    pub files: &'w mut Files,
    pub now_ms: u64,
    pub is_draining: bool,
}

#[derive(Debug)]
pub struct HlsViewer {
    pub path: usize,
    /// It loads parts as soon as they are there.
    is_hurried: bool,
    container: &'static str,
    wants_sound: bool,
    is_secure: bool,
    pub pace: Pace,
    pub stalled_until_ms: u64,
    /// It has left.
    pub is_over: bool,
    /// Memory for packaging is short: anything may be given up at any time.
    is_short: bool,
    dice: Dice,
    sabotage: Sabotage,
    peer: Option<Wire>,
    out: Vec<u8>,
    input: Vec<u8>,
    read_at_ms: u64,
    /// The request that waits for its answer, and since when.
    asked: Option<(Request, u64)>,
    next: Request,
    next_at_ms: u64,
    /// It was away, or kept waiting, for so long that packaging may have ended meanwhile.
    pub was_away: bool,
    /// Another process packages its stream anew, or it begins anew itself: the next run may show once more
    /// what was shown.
    pub may_begin_again: bool,
    /// Behind which number the next segment must be, since its playlist was passed on, and when that was, in
    /// milliseconds.
    pub floor: Option<(u64, u64)>,
    /// When it was last answered: until then somebody asked, as far as the server knows.
    answered_at_ms: u64,
    playlist_uri: String,
    playlist: Option<Playlist>,
    /// Texts of its last playlists, the newest last: planted bugs answer with them.
    texts: VecDeque<String>,
    /// Folder of the packaging run.
    run: String,
    /// The segment and part to load next, and the bytes of that segment before it.
    cursor: Option<(u64, usize)>,
    offset: usize,
    init: Option<String>,
    discontinuity: Option<u64>,
    /// It came in at a segment that need not begin with a keyframe: pictures before the first are not shown.
    awaits_keyframe: bool,
    /// A file that was listed and not there.
    gone: Option<u64>,
    reader: Fmp4Reader,
    packets: TsReader,
    pub judge: Judge,
    /// When its playlist last went on.
    pub moved_at_ms: u64,
    pub files_loaded: u64,
}

impl std::fmt::Display for HlsViewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pace, is_hurried, container, wants_sound, is_secure, .. } = self;
        write!(
            f,
            "{pace:?}, parts {is_hurried}, sound {wants_sound}, TLS {is_secure}, {container:?}"
        )
    }
}

impl HlsViewer {
    pub fn new(
        path: usize,
        dice: &mut Dice,
        now_ms: u64,
        tls_permille: u64,
        is_short: bool,
        sabotage: Sabotage,
    ) -> Self {
        let mut dice = Dice::new(dice.next());
        let pace = match dice.index(5) {
            0 => Pace::Slow(dice.range(20, 200)),
            _ => Pace::Prompt,
        };
        Self {
            path,
            is_hurried: dice.chance(600),
            container: dice.pick(&["", "", "", "?container=ts", "?container=fmp4"]),
            wants_sound: dice.chance(300),
            is_secure: dice.chance(tls_permille),
            pace,
            stalled_until_ms: 0,
            is_over: false,
            is_short,
            sabotage,
            peer: None,
            out: Vec::new(),
            input: Vec::new(),
            read_at_ms: now_ms,
            asked: None,
            next: Request::Multivariant,
            next_at_ms: now_ms,
            was_away: false,
            may_begin_again: false,
            floor: None,
            answered_at_ms: now_ms,
            playlist_uri: String::new(),
            playlist: None,
            texts: VecDeque::new(),
            run: String::new(),
            cursor: None,
            offset: 0,
            init: None,
            discontinuity: None,
            awaits_keyframe: false,
            gone: None,
            reader: Fmp4Reader::default(),
            packets: TsReader::default(),
            judge: Judge::of_fragments(path, true),
            moved_at_ms: now_ms,
            files_loaded: 0,
            dice,
        }
    }

    /// When it has something to do by itself.
    pub fn next_at_ms(&self, now_ms: u64) -> u64 {
        if self.is_over {
            return u64::MAX;
        }
        if self.stalled_until_ms > now_ms {
            return self.stalled_until_ms;
        }
        let reads_at_ms = match self.pace {
            Pace::Slow(_) if self.asked.is_some() => self.read_at_ms + 10,
            _ => u64::MAX,
        };
        let is_flushed = self.out.is_empty() && self.peer.as_ref().is_none_or(Wire::is_flushed);
        let writes_at_ms = if is_flushed { u64::MAX } else { now_ms + 7 };
        let asks_at_ms = if self.asked.is_none() { self.next_at_ms } else { u64::MAX };
        reads_at_ms.min(writes_at_ms).min(asks_at_ms)
    }

    /// It goes, in order or with a reset.
    pub fn leave(&mut self, reset: bool) {
        self.is_over = true;
        if let Some(peer) = self.peer.take() {
            if reset { peer.reset() } else { peer.close() }
        }
    }

    /// Another process serves its stream: the numbers go on there, if anybody knew them here. All of its
    /// playlist does, unless packaging `is_lost` and begins anew.
    pub fn pass_on(&mut self, now_ms: u64, is_lost: bool) {
        self.may_begin_again |= is_lost;
        self.was_away |= is_lost;
        let known = self.playlist.as_ref().filter(|_| self.answered_at_ms + RECENT_MS > now_ms);
        self.floor = known.map(|playlist| (playlist.edge().0, now_ms));
    }

    pub fn turn(&mut self, around: &mut Around<'_>) -> Result<Vec<Seen>, String> {
        let now_ms = around.now_ms;
        let mut seen = Vec::new();
        if self.is_over || self.stalled_until_ms > now_ms {
            return Ok(seen);
        }
        let Some(peer) = &mut self.peer else {
            if around.is_draining {
                self.is_over = true;
            } else if now_ms >= self.next_at_ms {
                self.peer = Some((around.connect)(self.is_secure));
            }
            return Ok(seen);
        };
        let is_broken = peer.error().is_some();
        if !peer.is_connected() && !is_broken {
            return Ok(seen);
        }
        let allowed = match self.pace {
            Pace::Prompt => usize::MAX,
            Pace::Slow(rate) => {
                let elapsed_ms = now_ms - self.read_at_ms;
                if elapsed_ms >= 10 {
                    self.read_at_ms = now_ms;
                }
                usize::try_from(if elapsed_ms < 10 { 0 } else { rate * elapsed_ms }).expect("small")
            }
        };
        let bytes = peer.read(allowed)?;
        let is_over = is_broken || peer.is_eof();
        self.input.extend_from_slice(&bytes);
        while let Some(answer) = Answer::take(&mut self.input)? {
            let Some((request, since_ms)) = self.asked.take() else {
                return Err(format!("an answer to no request: {}", answer.head));
            };
            self.was_away |= now_ms > self.answered_at_ms + AWAY_MS;
            if std::env::var_os("RINGCAST_SIM_LOG").is_some() {
                let (status, away) = (answer.status, self.was_away);
                eprintln!("{now_ms:>8} ms  path {}: {request:?} {status}, away {away}", self.path);
            }
            self.answered_at_ms = now_ms;
            self.next_at_ms = now_ms;
            let is_last = answer.is_last();
            let named = |error| format!("{request:?}: {error}");
            self.on_answer(&request, now_ms - since_ms, &answer, around, &mut seen)
                .map_err(named)?;
            if is_last {
                self.hang_up(now_ms);
            }
        }
        if is_over {
            self.hang_up(now_ms);
        }
        self.ask(now_ms)?;
        Ok(seen)
    }

    /// The connection is gone; what was asked for is asked for again over another.
    fn hang_up(&mut self, now_ms: u64) {
        self.peer = None;
        self.input.clear();
        self.out.clear();
        if let Some((request, _)) = self.asked.take() {
            self.next = request;
        }
        self.next_at_ms = self.next_at_ms.max(now_ms + self.dice.range(20, 400));
    }

    fn ask(&mut self, now_ms: u64) -> Result<(), String> {
        if self.asked.is_none() && self.out.is_empty() && now_ms >= self.next_at_ms {
            let address = match &self.next {
                Request::Multivariant => format!("s{}.m3u8{}", self.path, self.container),
                Request::Playlist { until, skips } => {
                    let until = until.map_or_else(String::new, |(sequence, part)| {
                        format!("&_HLS_msn={sequence}&_HLS_part={part}")
                    });
                    let skip = if *skips { "&_HLS_skip=YES" } else { "" };
                    format!("{}{until}{skip}", self.playlist_uri)
                }
                Request::Init(uri)
                | Request::Segment(uri)
                | Request::Part(uri)
                | Request::Hint(uri) => uri.clone(),
            };
            let request = format!("GET /live/{address} HTTP/1.1\r\nHost: sim.test\r\n\r\n");
            self.out = request.into_bytes();
            self.asked = Some((self.next.clone(), now_ms));
        }
        if let Some(peer) = &mut self.peer {
            let written = peer.write(&self.out)?;
            self.out.drain(..written);
        }
        Ok(())
    }

    fn on_answer(
        &mut self,
        request: &Request,
        waited_ms: u64,
        answer: &Answer,
        around: &mut Around<'_>,
        seen: &mut Vec<Seen>,
    ) -> Result<(), String> {
        let now_ms = around.now_ms;
        if !matches!(answer.status, 200 | 404 | 410 | 503) {
            return Err(format!("is answered with {}", answer.head));
        }
        let is_there = answer.status == 200;
        match request {
            Request::Multivariant if is_there => {
                self.choose(answer.text()?)?;
                self.next = Request::Playlist { until: None, skips: false };
                return Ok(());
            }
            Request::Playlist { until, .. } if is_there => {
                self.take_playlist(answer.text()?, *until, waited_ms, around)?;
            }
            Request::Multivariant | Request::Playlist { .. } => {
                // It begins anew, with what is listed then.
                self.forget();
                self.may_begin_again = true;
                self.next = Request::Multivariant;
                self.next_at_ms = now_ms + self.dice.range(300, 1_500);
                return Ok(());
            }
            Request::Hint(_) if !is_there => {
                self.next = Request::Playlist { until: None, skips: false };
                return Ok(());
            }
            Request::Hint(uri) => around.files.take(uri, &answer.body)?,
            Request::Init(_) | Request::Segment(_) | Request::Part(_) if !is_there => {
                // Whether that was right is known with the next playlist.
                self.gone = self.cursor.map(|(sequence, _)| sequence);
                self.next = Request::Playlist { until: None, skips: false };
                self.cursor = self.cursor.map(|(sequence, _)| (sequence + 1, 0));
                self.offset = 0;
                self.come_in(false);
                return Ok(());
            }
            Request::Init(uri) => {
                around.files.take(uri, &answer.body)?;
                let headers = self.reader.take_init(&answer.body)?;
                self.judge.learn(around.log, &headers)?;
                self.init = Some(uri.clone());
            }
            Request::Segment(uri) | Request::Part(uri) => {
                self.take_file(request, uri, &answer.body, around, seen)?;
            }
        }
        self.plan(now_ms);
        Ok(())
    }

    /// Takes a variant of the multivariant playlist.
    fn choose(&mut self, text: &str) -> Result<(), String> {
        if let Some(finding) = validate::multivariant(text).first() {
            return Err(format!("{finding:?} is broken by\n{text}"));
        }
        let variants: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let at = if self.wants_sound { variants.len().saturating_sub(1) } else { 0 };
        let uri = variants.get(at).ok_or("a multivariant playlist without variants")?;
        (*uri).clone_into(&mut self.playlist_uri);
        Ok(())
    }

    fn take_playlist(
        &mut self,
        text: &str,
        until: Option<(u64, usize)>,
        waited_ms: u64,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let text = self.spoil_playlist(text);
        let before = self.playlist.take().filter(|_| !self.was_away && !self.is_short);
        if before.is_none() && text.contains("#EXT-X-SKIP") {
            // A delta of what it no longer relies on: the next one is whole.
            self.was_away = true;
            return Ok(());
        }
        let read = Playlist::read(&text, before.as_ref())?;
        around.files.tell(&read)?;
        if let Some((floor, since_ms)) = self.floor.take()
            && read.edge().0 < floor
            // Later nobody may have asked for it for so long that it was given up; so is what is too much.
            && around.now_ms <= since_ms + AWAY_MS
            && !self.is_short
        {
            let next = read.edge().0;
            return Err(format!("segments were numbered up to {floor}, and now up to {next}"));
        }
        if let Some((sequence, part)) = until
            && waited_ms < HELD_MS_MAX
            && !read.has_ended
            && before.is_some()
            && !read.holds(sequence, part)
        {
            let edge = read.edge();
            return Err(format!("a reload until {sequence}.{part} was answered at {edge:?}"));
        }
        let run = read.segments.last().and_then(|last| last.uri.rsplit_once('/'));
        let run = run.map_or("", |(run, _)| run);
        if run != self.run {
            run.clone_into(&mut self.run);
            self.gone = None;
            (self.init, self.discontinuity) = (None, None);
            (self.reader, self.packets) = (Fmp4Reader::default(), TsReader::default());
            // Its last playlist may have come from the process before.
            match self.may_begin_again {
                true => self.judge.begin_run_elsewhere(),
                false => self.judge.begin_run(),
            }
            if before.is_none() {
                self.cursor = None;
            }
        }
        if let Some(sequence) = self.gone.take()
            && sequence + BEHIND >= read.sequence
            && before.is_some()
        {
            let first = read.sequence;
            return Err(format!(
                "a file of segment {sequence} was gone, the playlist is at {first}"
            ));
        }
        let has_moved = before.as_ref().is_none_or(|before| before.edge() != read.edge());
        if has_moved {
            self.moved_at_ms = around.now_ms;
        }
        let is_independent = read.is_independent;
        match self.cursor {
            None => {
                let at = self.dice.index(read.segments.len().max(1));
                self.cursor = Some((read.sequence + at as u64, 0));
                (self.offset, self.init, self.discontinuity) = (0, None, None);
                self.come_in(is_independent);
            }
            // It was too slow.
            Some((sequence, _)) if sequence < read.sequence => {
                (self.cursor, self.offset) = (Some((read.sequence, 0)), 0);
                self.come_in(is_independent);
            }
            Some(_) => {}
        }
        // An answer that was so long on its way may be of a run that is over.
        self.was_away = waited_ms > AWAY_MS;
        self.playlist = Some(read);
        Ok(())
    }

    /// It goes on at a segment of its own choice.
    fn come_in(&mut self, is_independent: bool) {
        self.judge.excuse_gap();
        self.awaits_keyframe = !is_independent;
    }

    /// Nothing of what it knew can be relied on.
    fn forget(&mut self) {
        (self.playlist, self.cursor, self.gone) = (None, None, None);
        self.run.clear();
    }

    /// What is loaded next: a file that is listed, else a playlist.
    fn plan(&mut self, now_ms: u64) {
        if let Some(request) = self.next_file() {
            self.next = request;
            return;
        }
        self.next = Request::Playlist { until: None, skips: false };
        let Some(playlist) = &self.playlist else { return };
        let (sequence, part) = playlist.edge();
        let may_skip = self.dice.chance(500) && !self.is_short && self.sabotage == Sabotage::None;
        self.next = Request::Playlist { until: None, skips: may_skip && playlist.has_parts };
        if playlist.has_ended {
            if self.dice.chance(100) {
                self.leave(false);
            }
            // Somebody may publish again.
            self.next_at_ms = now_ms + 1_000;
        } else if playlist.has_parts && self.is_hurried {
            match &playlist.hint {
                Some(hint) if self.dice.chance(300) => self.next = Request::Hint(hint.clone()),
                _ => {
                    let until = Some((sequence, part));
                    self.next = Request::Playlist { until, skips: may_skip };
                }
            }
        } else {
            self.next_at_ms = now_ms + playlist.target_s * 500;
        }
    }

    fn next_file(&mut self) -> Option<Request> {
        let playlist = self.playlist.as_ref()?;
        loop {
            let (sequence, part) = self.cursor?;
            let at = usize::try_from(sequence.checked_sub(playlist.sequence)?).expect("small");
            let segment = playlist.segments.get(at);
            let (map, parts, discontinuity) = match segment {
                Some(found) => (&found.map, &found.parts, found.discontinuity),
                None if sequence == playlist.edge().0 => {
                    (&playlist.open_map, &playlist.open_parts, playlist.open_discontinuity)
                }
                None => return None,
            };
            let next_part = parts.get(part).filter(|_| self.is_hurried);
            let request = match (next_part, segment) {
                (Some(uri), _) => Request::Part(uri.clone()),
                (None, Some(_)) if part > 0 && part == parts.len() => {
                    (self.cursor, self.offset) = (Some((sequence + 1, 0)), 0);
                    continue;
                }
                (None, Some(segment)) => Request::Segment(segment.uri.clone()),
                (None, None) => return None,
            };
            if self.discontinuity.replace(discontinuity) != Some(discontinuity) {
                self.judge.excuse_gap();
            }
            return match map {
                Some(map) if self.init.as_ref() != Some(map) => Some(Request::Init(map.clone())),
                _ => Some(request),
            };
        }
    }

    fn take_file(
        &mut self,
        request: &Request,
        uri: &str,
        body: &[u8],
        around: &mut Around<'_>,
        seen: &mut Vec<Seen>,
    ) -> Result<(), String> {
        self.files_loaded += 1;
        let mut body = body.to_vec();
        if self.sabotage == Sabotage::SpoilFile && around.files.has(uri) {
            *body.last_mut().expect("no file is empty") ^= 1;
        }
        around.files.take(uri, &body)?;
        let Some((sequence, part)) = self.cursor else { return Ok(()) };
        let is_part = matches!(request, Request::Part(_));
        let news = if is_part { &body[..] } else { body.get(self.offset..).unwrap_or_default() };
        let is_lost = self.sabotage == Sabotage::LoseSegment && self.files_loaded == 4;
        let is_begun = self.offset > 0 || is_part && part > 0;
        if is_lost {
            // Nothing of it is heard.
        } else if uri.ends_with(".ts") {
            self.judge.expect_packets();
            let news = spoil_packets(news, self.sabotage, self.files_loaded);
            for piece in self.packets.take(&news, !is_begun)? {
                match piece {
                    Piece::Header(header) => self.judge.learn_again(around.log, &header)?,
                    Piece::Media(message) => self.hear(&message, around, seen)?,
                }
            }
        } else {
            for message in self.reader.take_fragments(news)? {
                self.hear(&message, around, seen)?;
            }
        }
        (self.cursor, self.offset) = match is_part {
            true => (Some((sequence, part + 1)), self.offset + body.len()),
            false => (Some((sequence + 1, 0)), 0),
        };
        Ok(())
    }

    fn hear(
        &mut self,
        message: &Received,
        around: &Around<'_>,
        seen: &mut Vec<Seen>,
    ) -> Result<(), String> {
        let is_picture = message.kind == VIDEO;
        self.awaits_keyframe &= !(is_picture && message.body[0] == 0x17);
        if !self.awaits_keyframe || !is_picture {
            seen.push(self.judge.take(around.log, message, around.now_ms)?);
        }
        Ok(())
    }

    /// The planted bugs that show in playlists.
    fn spoil_playlist(&mut self, text: &str) -> String {
        let spoiled = match self.sabotage {
            Sabotage::HideDiscontinuity => text.replace("#EXT-X-DISCONTINUITY\n", ""),
            Sabotage::BreakPlaylist if self.files_loaded > 3 => {
                text.replace("#EXTINF:", "#EXTINF ")
            }
            Sabotage::TurnBack if self.texts.len() == TEXTS_MAX => self.texts[0].clone(),
            Sabotage::AnswerEarly if self.files_loaded > 3 && !self.texts.is_empty() => {
                self.texts[self.texts.len() - 1].clone()
            }
            _ => text.to_owned(),
        };
        if self.texts.len() == TEXTS_MAX {
            self.texts.pop_front();
        }
        self.texts.push_back(text.to_owned());
        spoiled
    }
}

/// The planted bugs that show in packets.
fn spoil_packets(file: &[u8], sabotage: Sabotage, files_loaded: u64) -> Vec<u8> {
    let is_video = |packet: &&[u8]| packet[1..3] == [1, 0] || packet[1..3] == [0x41, 0];
    let mut packets: Vec<Vec<u8>> = file.chunks(PACKET_BYTES).map(<[u8]>::to_vec).collect();
    let starts: Vec<usize> = (0..packets.len())
        .filter(|at| packets[*at][1] & 0x40 != 0 && is_video(&&packets[*at][..]))
        .collect();
    let [_, second, third, ..] = starts[..] else { return file.to_vec() };
    match sabotage {
        Sabotage::LosePicture if files_loaded > 2 => {
            let mut counter = packets[second][3];
            for (at, packet) in packets.iter_mut().enumerate() {
                if is_video(&&packet[..]) && (second..third).contains(&at) {
                    packet.clear();
                } else if is_video(&&packet[..]) && at >= third {
                    packet[3] = packet[3] & 0xF0 | counter & 0x0F;
                    counter = counter.wrapping_add(1);
                }
            }
        }
        Sabotage::SpoilPicture if files_loaded > 2 => {
            *packets[third - 1].last_mut().expect("a whole packet") ^= 1;
        }
        Sabotage::LosePacket if files_loaded > 2 => packets[third].clear(),
        _ => {}
    }
    packets.concat()
}
