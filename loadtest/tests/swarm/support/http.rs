//! HTTP for viewers, of the streams a test server has: one blocking thread per connection, media through
//! the writers of the server proper. It can be told to be difficult.

use super::{Message, Streams};
use mux::flv::{Framing, file_header};
use mux::playlist::query::{Answer, Reload};
use mux::playlist::window::{Window, WindowSettings};
use mux::playlist::{MediaPlaylist, Name, Names, multivariant};
use mux::segment::{Container, Event, Output, Segmenter, Settings};
use mux::wrap::Wrap;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How the server makes it hard for its viewers.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    Plain,
    /// Every body in chunks of a few bytes.
    Chunked,
    /// Each connection ends with its first response.
    Closes,
    /// Each connection ends after its first response, without a word.
    Vanishes,
    /// What is asked for is elsewhere.
    Redirects,
    /// Nobody may watch.
    Refuses,
    /// One byte per send.
    Dribbles,
    /// Every third segment or part is not there any more.
    Forgets,
}

/// Longest a request is held.
const HELD: Duration = Duration::from_secs(5);
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Starts a server; it ends with the test's process.
pub(crate) fn serve(streams: &Streams, manner: Manner) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let site =
        Arc::new(Site { streams: Arc::clone(streams), manner, renditions: Mutex::default() });
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let site = Arc::clone(&site);
            // A viewer that leaves is none of our business.
            thread::spawn(move || drop(site.connection(socket)));
        }
    });
    addr
}

struct Site {
    streams: Streams,
    manner: Manner,
    renditions: Mutex<HashMap<(String, bool), Arc<Rendition>>>,
}

struct Request {
    path: String,
    query: String,
    upgrades: bool,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        assert!(lines.iter().any(|line| line.starts_with("Host: 127.0.0.1:")), "{lines:?}");
        let target = lines[0].strip_prefix("GET ").unwrap().strip_suffix(" HTTP/1.1").unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let upgrades = lines.iter().any(|line| line == "Upgrade: websocket");
        Ok(Some(Request { path: path.into(), query: query.into(), upgrades }))
    }

    fn has(&self, pair: &str) -> bool {
        self.query.split('&').any(|one| one == pair)
    }
}

impl Site {
    fn connection(&self, socket: TcpStream) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        let mut reader = BufReader::new(socket.try_clone()?);
        let mut out = Out { socket, manner: self.manner, answered: 0 };
        while let Some(request) = Request::read(&mut reader)? {
            self.answer(&request, &mut out)?;
            out.answered += 1;
            if matches!(self.manner, Manner::Closes | Manner::Vanishes) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Request, out: &mut Out) -> std::io::Result<()> {
        let mut path = request.path.as_str();
        if self.manner == Manner::Refuses {
            return out.whole(403, "X-Tengine-Error: denied by test\r\n", b"denied by test");
        }
        if self.manner == Manner::Redirects {
            match path.strip_prefix("/moved") {
                Some(rest) => path = rest,
                None => {
                    let to = format!("Location: /moved{path}?{}\r\n", request.query);
                    return out.whole(302, &to, b"elsewhere");
                }
            }
        }
        let file = path.rsplit('/').next().unwrap_or_default();
        let (stem, ending) = file.rsplit_once('.').unwrap_or((file, ""));
        match ending {
            "flv" => match self.subscribe(stem) {
                Some(messages) => out.flv(messages, request.upgrades),
                None => out.whole(404, "", b"no such stream"),
            },
            "mp4" if !stem.starts_with("init-") => match self.subscribe(stem) {
                Some(messages) => out.mp4(messages, request.upgrades),
                None => out.whole(404, "", b"no such stream"),
            },
            _ => self.hls(request, file, stem, out),
        }
    }

    fn subscribe(&self, name: &str) -> Option<std::sync::mpsc::Receiver<Message>> {
        self.streams.lock().unwrap().get_mut(name).map(super::Stream::subscribe)
    }

    fn hls(&self, request: &Request, file: &str, stem: &str, out: &mut Out) -> std::io::Result<()> {
        let is_ts = request.has("container=ts");
        if let (Some(stem), false) = (file.strip_suffix(".m3u8"), request.has("session=1")) {
            let query = [request.query.as_str(), "session=1"].join("&");
            let uri = format!("{stem}.m3u8?{}", query.trim_start_matches('&'));
            let variant =
                multivariant::Variant { uri: &uri, bandwidth: 1, codecs: "", resolution: (0, 0) };
            let mut text = String::new();
            multivariant::write(&[variant], true, &mut text);
            return out.whole(200, "", text.as_bytes());
        }
        let name = request.query.split('&').find_map(|pair| pair.strip_prefix("n="));
        let name = name.unwrap_or(stem);
        let Some(rendition) = self.rendition(name, is_ts) else {
            return out.whole(404, "", b"no such stream");
        };
        if file.ends_with(".m3u8") {
            return match rendition.playlist(name, request) {
                Some(text) => out.whole(200, "", text.as_bytes()),
                None => out.whole(400, "", b"too far"),
            };
        }
        let number: u32 = file.bytes().filter(u8::is_ascii_digit).map(u32::from).sum();
        if self.manner == Manner::Forgets && !file.starts_with("init") && number.is_multiple_of(3) {
            return out.whole(404, "", b"forgotten");
        }
        match rendition.file(Name::parse(file, rendition.container)) {
            Some(bytes) => out.whole(200, "", &bytes),
            None => out.whole(404, "", b"no such file"),
        }
    }

    fn rendition(&self, name: &str, is_ts: bool) -> Option<Arc<Rendition>> {
        let mut renditions = self.renditions.lock().unwrap();
        if let Some(known) = renditions.get(&(name.to_owned(), is_ts)) {
            return Some(Arc::clone(known));
        }
        let messages = self.subscribe(name)?;
        let container = if is_ts { Container::Ts } else { Container::Fmp4 };
        let rendition =
            Arc::new(Rendition { container, state: Mutex::default(), news: Condvar::new() });
        renditions.insert((name.to_owned(), is_ts), Arc::clone(&rendition));
        let packager = Arc::clone(&rendition);
        thread::spawn(move || packager.run(&messages));
        Some(rendition)
    }
}

/// A stream cut into segments of half a second in parts of 100 ms.
const SEGMENT_MS: u32 = 500;
const PART_MS: u32 = 100;

struct Rendition {
    container: Container,
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    window: Window,
    files: HashMap<Name2, Vec<u8>>,
    ended: bool,
}

/// [`Name`] cannot be a key.
type Name2 = (u8, u64, u32);

fn key(name: Name) -> Name2 {
    match name {
        Name::Init { generation } => (0, generation.into(), 0),
        Name::Segment { sequence } => (1, sequence, 0),
        Name::Part { sequence, part } => (2, sequence, part),
    }
}

impl Default for State {
    fn default() -> State {
        let window = Window::new(WindowSettings { listed: 6, behind: 60 });
        State { window, files: HashMap::new(), ended: false }
    }
}

impl Rendition {
    fn run(&self, messages: &std::sync::mpsc::Receiver<Message>) {
        let mut segmenter = Segmenter::new(Settings {
            part_ms: PART_MS,
            segment_ms: SEGMENT_MS,
            segment_ms_max: 4 * SEGMENT_MS,
            ..Settings::new(self.container)
        });
        let mut out = Output::default();
        for (header, body) in messages {
            segmenter.push(header.kind, header.timestamp, &body, 0, &mut out);
            self.take(&mut out);
        }
        segmenter.finish(&mut out);
        self.take(&mut out);
        self.state.lock().unwrap().ended = true;
        self.news.notify_all();
    }

    fn take(&self, out: &mut Output) {
        if out.events.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap();
        for event in &out.events {
            state.window.apply(event);
            match event {
                Event::Init { generation, bytes, .. } => {
                    let name = Name::Init { generation: *generation };
                    state.files.insert(key(name), out.bytes[bytes.clone()].to_vec());
                }
                Event::Part { sequence, part, bytes, .. } => {
                    let bytes = &out.bytes[bytes.clone()];
                    let whole = state.files.entry(key(Name::Segment { sequence: *sequence }));
                    whole.or_default().extend_from_slice(bytes);
                    let name = Name::Part { sequence: *sequence, part: *part };
                    state.files.insert(key(name), bytes.to_vec());
                }
                _ => {}
            }
        }
        out.clear();
        self.news.notify_all();
    }

    fn playlist(&self, name: &str, request: &Request) -> Option<String> {
        let reload = Reload::parse(&request.query).ok()?;
        let state = self.state.lock().unwrap();
        let (state, _) = self
            .news
            .wait_timeout_while(state, HELD, |state| {
                let is_empty = state.window.next_part() < (1, 0) && !state.ended;
                is_empty || reload.answer(&state.window) == Answer::Wait && !state.ended
            })
            .unwrap();
        if reload.answer(&state.window) == Answer::TooFar {
            return None;
        }
        let container = if self.container == Container::Ts { "&container=ts" } else { "" };
        let query = format!("n={name}{container}");
        let is_low = request.has("ll=1");
        let settings = Settings { part_ms: PART_MS, ..Settings::new(self.container) };
        let list = MediaPlaylist {
            target_ms: 4 * SEGMENT_MS,
            part_target_ms: is_low.then_some(settings.part_target_ms()),
            ended: state.ended,
            skip: reload.skip,
            names: Names { container: self.container, prefix: "", query: &query },
        };
        let mut text = String::new();
        list.write(&state.window, &mut text);
        Some(text)
    }

    fn file(&self, name: Option<Name>) -> Option<Vec<u8>> {
        let name = name?;
        let state = self.state.lock().unwrap();
        // The part that is announced is held until it is there, or the segment ended without it.
        let is_hinted = |state: &State| match name {
            Name::Part { sequence, part } => state.window.next_part() == (sequence, part),
            _ => false,
        };
        let wait =
            self.news.wait_timeout_while(state, HELD, |state| is_hinted(state) && !state.ended);
        let (state, _) = wait.unwrap();
        state.files.get(&key(name)).cloned()
    }
}

/// What a viewer gets.
struct Out {
    socket: TcpStream,
    manner: Manner,
    answered: u32,
}

impl Out {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.manner == Manner::Dribbles {
            return bytes.iter().try_for_each(|byte| self.socket.write_all(&[*byte]));
        }
        self.socket.write_all(bytes)
    }

    fn whole(&mut self, status: u16, fields: &str, body: &[u8]) -> std::io::Result<()> {
        let close = if self.manner == Manner::Closes { "Connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status} Test\r\n{fields}{close}");
        if self.manner == Manner::Chunked {
            let mut text = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            for chunk in body.chunks(997) {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            return self.send(&text);
        }
        self.send(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes())?;
        self.send(body)
    }

    /// The head of an endless response.
    fn endless(&mut self, upgrades: bool) -> std::io::Result<()> {
        let head = match upgrades {
            true => format!(
                "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            ),
            false if self.manner == Manner::Chunked => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into()
            }
            false => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".into(),
        };
        self.send(head.as_bytes())
    }

    /// Some of the body of an endless response; of a WebSocket a frame.
    fn some(&mut self, bytes: &[u8], upgrades: bool) -> std::io::Result<()> {
        if upgrades {
            self.send(Wrap::WebSocket.begin(bytes.len()).as_slice())?;
        } else if self.manner == Manner::Chunked {
            let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
            return self.send(&chunk);
        }
        self.send(bytes)
    }

    fn flv(
        &mut self,
        messages: std::sync::mpsc::Receiver<Message>,
        upgrades: bool,
    ) -> std::io::Result<()> {
        self.endless(upgrades)?;
        self.some(&file_header(true, true), upgrades)?;
        for (header, body) in messages {
            let framing = Framing { wrap: if upgrades { Wrap::WebSocket } else { Wrap::None } };
            let mut tag = vec![0; framing.framed_bytes(&header)];
            framing.begin(&header, &mut tag).push(&mut tag, &body);
            if upgrades { self.send(&tag)? } else { self.some(&tag, false)? }
        }
        Ok(())
    }

    fn mp4(
        &mut self,
        messages: std::sync::mpsc::Receiver<Message>,
        upgrades: bool,
    ) -> std::io::Result<()> {
        self.endless(upgrades)?;
        let settings = Settings { part_ms: 1, segment_ms: 500, ..Settings::new(Container::Fmp4) };
        let mut segmenter = Segmenter::new(settings);
        let mut out = Output::default();
        for (header, body) in messages {
            segmenter.push(header.kind, header.timestamp, &body, 0, &mut out);
            for event in &out.events {
                match event {
                    Event::Init { bytes, codecs, .. } => {
                        if upgrades {
                            let text = format!("{{\"mime\":\"video/mp4; codecs={codecs}\"}}");
                            let length = u8::try_from(text.len()).unwrap();
                            self.send(&[0x81, length])?;
                            self.send(text.as_bytes())?;
                            // Asks whether the viewer is there.
                            self.send(&[0x89, 1, b'?'])?;
                        }
                        self.some(&out.bytes[bytes.clone()], upgrades)?;
                    }
                    Event::Part { bytes, .. } => self.some(&out.bytes[bytes.clone()], upgrades)?,
                    _ => {}
                }
            }
            out.clear();
        }
        Ok(())
    }
}
