//! A viewer of HLS that keeps everything: each playlist is judged line by line, each part and segment
//! fetched. It reads as low-latency players do, by blocking reloads where the server offers them, and ends
//! with the stream.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use mux::playlist::validate;

use crate::child::{Scratch, poll_until};

/// One answer, a blocking reload included.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// A stream of a few seconds ends within this.
const STREAM_MAX: Duration = Duration::from_secs(60);

/// A viewer at work.
pub(crate) struct Viewer {
    thread: JoinHandle<Recorded>,
}

/// What it saw.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// Playlists read.
    pub(crate) playlists: usize,
    /// Delta updates among them that left something out.
    pub(crate) deltas: usize,
    /// Parts that were fetched before their segment was complete.
    pub(crate) parts: usize,
    /// What was published between two discontinuities.
    pub(crate) lives: Vec<Life>,
    /// The multivariant playlist.
    pub(crate) multivariant: String,
}

/// Segments that continue each other, behind what a decoder must know before.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// Address of its init segment; empty for MPEG-TS.
    init: String,
    /// Init segment and segments, joined.
    bytes: Vec<u8>,
    /// Media sequence number of each segment.
    pub(crate) segments: Vec<u64>,
}

impl Life {
    /// Writes it to a file that a player takes for a recording.
    pub(crate) fn save(&self, scratch: &Scratch, name: &str) -> PathBuf {
        let file = scratch.file(name);
        std::fs::write(&file, &self.bytes).expect("the directory is ours");
        file
    }
}

impl Viewer {
    /// Begins to watch; `file` is the stream's name with suffix and what is asked of it.
    pub(crate) fn start(http: SocketAddr, file: &str) -> Self {
        let path = format!("/live/{file}");
        Self { thread: std::thread::spawn(move || Reader::new(http).read(&path)) }
    }

    /// Waits for the end of the stream.
    ///
    /// # Panics
    /// When a playlist broke a rule, a file was missing, or the stream did not end.
    pub(crate) fn finish(self) -> Recorded {
        match self.thread.join() {
            Ok(recorded) => recorded,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// A media playlist, as far as it is needed here.
#[derive(Debug, Default)]
struct Playlist {
    segments: Vec<Listed>,
    /// Parts of the segment that is not complete.
    open_parts: Vec<String>,
    first_sequence: u64,
    has_ended: bool,
    can_block: bool,
    can_skip: bool,
}

#[derive(Debug, Default)]
struct Listed {
    uri: String,
    init: String,
    is_discontinuity: bool,
    parts: Vec<String>,
}

impl Playlist {
    fn parse(text: &str) -> Self {
        let mut playlist = Self::default();
        let (mut init, mut is_discontinuity) = (String::new(), false);
        for line in text.lines() {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "#EXT-X-MEDIA-SEQUENCE" => playlist.first_sequence = value.parse().expect("number"),
                "#EXT-X-MAP" => init = uri(value).to_owned(),
                "#EXT-X-DISCONTINUITY" => is_discontinuity = true,
                "#EXT-X-PART" => playlist.open_parts.push(uri(value).to_owned()),
                "#EXT-X-ENDLIST" => playlist.has_ended = true,
                "#EXT-X-SERVER-CONTROL" => {
                    playlist.can_block = value.contains("CAN-BLOCK-RELOAD=YES");
                    playlist.can_skip = value.contains("CAN-SKIP-UNTIL=");
                }
                _ if line.starts_with('#') || line.is_empty() => {}
                _ => playlist.segments.push(Listed {
                    uri: line.to_owned(),
                    init: init.clone(),
                    is_discontinuity: std::mem::take(&mut is_discontinuity),
                    parts: std::mem::take(&mut playlist.open_parts),
                }),
            }
        }
        playlist
    }

    /// Number of the segment that is not complete.
    fn open_sequence(&self) -> u64 {
        self.first_sequence + self.segments.len() as u64
    }
}

fn uri(attributes: &str) -> &str {
    let value = attributes.split_once("URI=\"").expect("an address").1;
    value.split_once('"').expect("a quoted string").0
}

struct Reader {
    http: SocketAddr,
    recorded: Recorded,
    /// Parts fetched, by address.
    parts: BTreeMap<String, Vec<u8>>,
    next_sequence: Option<u64>,
}

impl Reader {
    fn new(http: SocketAddr) -> Self {
        Self { http, recorded: Recorded::default(), parts: BTreeMap::new(), next_sequence: None }
    }

    fn read(mut self, path: &str) -> Recorded {
        let (base, _) = path.rsplit_once('/').expect("an absolute path");
        let text = self.get_text(path);
        assert_eq!(validate::multivariant(&text), [], "{text}");
        let variant = text.lines().find(|line| !line.starts_with('#')).expect("a variant");
        let media = format!("{base}/{variant}");
        self.recorded.multivariant.clone_from(&text);
        let mut directives = String::new();
        poll_until("the end of the playlist", STREAM_MAX, || {
            let text = self.get_text(&format!("{media}{directives}"));
            assert_eq!(validate::media(&text), [], "{text}");
            self.recorded.playlists += 1;
            let playlist = Playlist::parse(&text);
            if playlist.can_skip {
                self.read_delta(&media);
            }
            self.take_segments(base, &playlist);
            self.take_parts(base, &playlist.open_parts);
            if playlist.can_block {
                let (sequence, part) = (playlist.open_sequence(), playlist.open_parts.len());
                directives = format!("&_HLS_msn={sequence}&_HLS_part={part}");
            }
            playlist.has_ended.then_some(())
        });
        self.recorded
    }

    fn read_delta(&mut self, media: &str) {
        let delta = self.get_text(&format!("{media}&_HLS_skip=YES"));
        assert_eq!(validate::media(&delta), [], "{delta}");
        self.recorded.playlists += 1;
        self.recorded.deltas += usize::from(delta.contains("#EXT-X-SKIP:"));
    }

    fn take_segments(&mut self, base: &str, playlist: &Playlist) {
        for (sequence, listed) in (playlist.first_sequence..).zip(&playlist.segments) {
            let next = *self.next_sequence.get_or_insert(sequence);
            assert!(sequence <= next, "segment {next} left the playlist before it was seen");
            if sequence < next {
                continue;
            }
            self.next_sequence = Some(next + 1);
            let bytes = self.get(&format!("{base}/{}", listed.uri));
            let parts: Vec<_> = listed.parts.iter().filter_map(|uri| self.parts.get(uri)).collect();
            if !parts.is_empty() && parts.len() == listed.parts.len() {
                let joined: Vec<u8> = parts.into_iter().flatten().copied().collect();
                assert!(joined == bytes, "segment {sequence} is its parts joined");
            }
            let is_first = self.recorded.lives.is_empty();
            if is_first || listed.is_discontinuity {
                self.recorded.lives.push(Life::default());
            }
            let live = self.recorded.lives.last().expect("one was added");
            let init = if live.init == listed.init {
                Vec::new()
            } else {
                assert!(live.segments.is_empty(), "tracks change at discontinuities");
                self.get(&format!("{base}/{}", listed.init))
            };
            let live = self.recorded.lives.last_mut().expect("one was added");
            live.init.clone_from(&listed.init);
            live.bytes.extend(init);
            live.bytes.extend(bytes);
            live.segments.push(sequence);
        }
    }

    fn take_parts(&mut self, base: &str, uris: &[String]) {
        for uri in uris {
            if !self.parts.contains_key(uri) {
                let bytes = self.get(&format!("{base}/{uri}"));
                self.recorded.parts += 1;
                self.parts.insert(uri.clone(), bytes);
            }
        }
    }

    fn get_text(&self, path: &str) -> String {
        String::from_utf8(self.get(path)).expect("a playlist is text")
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.http).expect("viewers' HTTP accepts");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a bound can be set");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it can be asked");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers in time");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).expect("a head is text");
        assert!(head.starts_with("HTTP/1.1 200 "), "GET {path}: {head}");
        body
    }
}
