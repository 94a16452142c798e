//! Viewers' HTTP on one connection: what is being asked, what is being answered. Plain state; the worker
//! moves it (`worker/http.rs`).
//!
//! ```text
//!   Idle ─ request ─► Asking ─┬─ refusal, file, playlist ─────► Responding ─ sent ─► Idle, or closing
//!    ▲                        ├─ not there yet ─► Waiting ─────────▲
//!    │                        └─ live stream ─► Live ─ end of stream ─► closing
//!    └─ the next request, which is not read before the answer is sent
//! ```
//!
//! One request at a time: what comes behind it is held, bounded like all held input. A live viewer over
//! plain HTTP is not listened to any more; one over WebSocket is, for pings and its goodbye.
//!
//! RFC 9110, 9112 (HTTP/1.1); RFC 6455 (WebSocket).

mod record;
mod route;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http1::websocket::{self, FrameReader};
use http1::{Head, Length, Request, RequestReader};
use live::path::StreamPath;
use live::preamble;
use live::subscriber::Selection;
use mux::flv;
use mux::playlist::query::Reload;
use mux::wrap::{CHUNKS_END, Wrap};
use rtmp::Millis;
use rtmp::message::{MessageHeader, kind};
use uring::SharedBytes;

pub(crate) use route::{FileName, Route, TokenQuery};

use crate::access::quota::Place;
use crate::framing::FramingKind;
use crate::hls::HeldRendition;

/// Bodies up to this size leave in one send with their head, in bytes: a copy costs less than another send.
/// Room for both is what buffers are kept for.
pub(crate) const INLINE_BODY_BYTES_MAX: usize = 56 * 1024;
/// Room for an ordinary head, in bytes.
const HEAD_BYTES: usize = 512;
/// Most that may wait for a viewer besides media, in bytes: the headers of a stream, heads, pongs.
const REPLY_BYTES_MAX: usize = preamble::PREAMBLE_BYTES_MAX + 64 * 1024;

/// Text that a refused WebSocket client gets with its close frame; RFC 6455 leaves room for 123 bytes.
const CLOSE_REASON_BYTES_MAX: usize = 123;
/// Close code: a policy forbids it.
pub(crate) const CLOSE_POLICY: u16 = 1008;
/// Close code: the server goes away.
const CLOSE_GOING_AWAY: u16 = 1001;
/// Close code: the stream has ended.
const CLOSE_NORMAL: u16 = 1000;

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) route: Route,
    /// The viewer, as a trusted proxy told.
    pub(crate) client: IpAddr,
}

/// Where the session is.
#[derive(Debug)]
enum State {
    Idle,
    Asking,
    Waiting { view: Box<View> },
    Responding,
    Live { frames: Option<FrameReader>, has_begun: bool, has_ended: bool },
}

/// What a viewer of HLS asked for.
#[derive(Debug)]
pub(crate) enum View {
    /// A playlist.
    Playlist {
        path: StreamPath,
        query: TokenQuery,
        reload: Reload,
        /// The viewer's place in the quotas, until its session keeps it.
        place: Option<Place>,
        /// What it is answered from, and the version that had nothing for it.
        rendition: Option<(HeldRendition, u64)>,
        /// When to look for a rendition again.
        retry_at: Millis,
    },
    /// A file, and the version that did not have it.
    File { rendition: HeldRendition, version: u64, file: FileName },
}

impl View {
    /// Whether asking again may bring something.
    pub(crate) fn has_news(&self, now: Millis) -> bool {
        match self {
            Self::Playlist { rendition: Some((rendition, version)), .. }
            | Self::File { rendition, version, .. } => rendition.version() != *version,
            Self::Playlist { rendition: None, retry_at, .. } => now >= *retry_at,
        }
    }
}

/// What a viewer has come too late with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Late {
    /// The rest of a request.
    Request,
    /// The next request.
    KeepAlive,
    /// Taking the response.
    Response,
}

/// How long a viewer may take, in milliseconds.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Deadlines {
    /// For a whole request, from its first byte.
    pub(crate) request_ms_max: u64,
    /// Between two requests.
    pub(crate) keep_alive_ms_max: u64,
    /// Without progress of a response.
    pub(crate) stall_ms_max: u64,
}

/// What the first bytes of a live stream depend on.
#[derive(Copy, Clone, Debug)]
pub(crate) struct ViewerStart<'a> {
    /// The viewer has not been sent anything of this stream.
    pub(crate) is_first: bool,
    /// Whether sound and pictures were seen, if that is known.
    pub(crate) tracks: Option<(bool, bool)>,
    /// Where on the stream's timeline it begins, in milliseconds.
    pub(crate) timestamp: u32,
    /// The time, as in a head.
    pub(crate) date: &'a str,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) content_type: &'a str,
    pub(crate) cache_control: &'a str,
    pub(crate) extra: &'a [(&'a str, &'a str)],
    /// The body, shared by all who are answered with it…
    pub(crate) body: SharedBytes,
    /// … and what follows it for this viewer alone.
    pub(crate) tail: &'a str,
}

impl Answer<'static> {
    /// A status with a sentence for people.
    pub(crate) fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            cache_control: "no-store",
            extra: &[],
            body: format!("{text}\n").into(),
            tail: "",
        }
    }
}

/// The HTTP side of one connection.
#[derive(Debug)]
pub(crate) struct HttpSession {
    reader: RequestReader,
    state: State,
    /// Since when it is in this state, or the last progress of its response.
    since: Millis,
    /// Heads, small bodies, pongs, headers of a stream.
    replies: Vec<u8>,
    /// The rest of a larger body.
    body: Option<SharedBytes>,
    keep_alive: bool,
    /// A close frame was written.
    has_said_goodbye: bool,
    asked: Option<Box<Asked>>,
    /// The present request had to wait.
    has_waited: bool,
    /// What the last live request asked for: its form, sound, pictures.
    framing: FramingKind,
    audio: bool,
    video: bool,
    requests: u64,
    status: u16,
    user_agent: Option<Box<str>>,
}

impl HttpSession {
    /// A session whose first byte has just come.
    pub(crate) fn new(now: Millis) -> Self {
        Self {
            reader: RequestReader::new(),
            state: State::Idle,
            since: now,
            replies: Vec::new(),
            body: None,
            keep_alive: true,
            has_said_goodbye: false,
            asked: None,
            has_waited: false,
            framing: FramingKind::Rtmp,
            audio: true,
            video: true,
            requests: 0,
            status: 0,
            user_agent: None,
        }
    }

    // Reading.

    /// The reader, while a request is wanted.
    pub(crate) fn reader(&mut self, now: Millis) -> Option<&mut RequestReader> {
        if !matches!(self.state, State::Idle) {
            return None;
        }
        if self.reader.is_idle() {
            self.since = now;
        }
        Some(&mut self.reader)
    }

    /// The reader of WebSocket frames, for a live viewer over one.
    pub(crate) fn frames(&mut self) -> Option<&mut FrameReader> {
        match &mut self.state {
            State::Live { frames, .. } => frames.as_mut(),
            _ => None,
        }
    }

    /// True for a live viewer over plain HTTP, who has nothing more to say.
    pub(crate) fn is_deaf(&self) -> bool {
        matches!(self.state, State::Live { frames: None, .. })
    }

    /// A request is to be answered.
    pub(crate) fn begin(&mut self, asked: Asked, now: Millis) {
        self.requests += 1;
        self.keep_alive = asked.request.keep_alive;
        if self.user_agent.is_none() {
            self.user_agent = asked.request.user_agent.as_deref().map(Into::into);
        }
        self.asked = Some(Box::new(asked));
        self.has_waited = false;
        self.state = State::Asking;
        self.since = now;
    }

    /// The request that is being answered.
    pub(crate) fn asked(&self) -> Option<&Asked> {
        self.asked.as_deref()
    }

    /// True while a request is being answered: what follows it must wait.
    pub(crate) fn is_responding(&self) -> bool {
        matches!(self.state, State::Asking | State::Waiting { .. } | State::Responding)
    }

    /// The answer is not there yet. True if it is the first time it is found so.
    pub(crate) fn wait(&mut self, view: View, now: Millis) -> bool {
        let is_first = !self.has_waited;
        if is_first {
            self.since = now;
            self.has_waited = true;
        }
        self.state = State::Waiting { view: Box::new(view) };
        is_first
    }

    /// What is waited for, and since when.
    pub(crate) fn waiting_view(&self) -> Option<(Millis, &View)> {
        match &self.state {
            State::Waiting { view } => Some((self.since, view)),
            _ => None,
        }
    }

    /// Takes back what was waited for: it is to be answered now.
    pub(crate) fn resume_view(&mut self) -> Option<View> {
        match std::mem::replace(&mut self.state, State::Asking) {
            State::Waiting { view } => Some(*view),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// True while the answer is not there yet.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Whether it is late with something.
    pub(crate) fn late(&self, deadlines: &Deadlines, now: Millis) -> Option<Late> {
        let waited_ms = now.0.saturating_sub(self.since.0);
        match self.state {
            State::Idle if self.reader.is_idle() => {
                (waited_ms >= deadlines.keep_alive_ms_max).then_some(Late::KeepAlive)
            }
            State::Idle => (waited_ms >= deadlines.request_ms_max).then_some(Late::Request),
            State::Responding => (waited_ms >= deadlines.stall_ms_max).then_some(Late::Response),
            State::Asking | State::Waiting { .. } | State::Live { .. } => None,
        }
    }

    // Answering.

    /// Queues a whole answer. An error that leaves the request unread ends the connection. A live stream that
    /// has begun is an answer already: whatever there is to say now, its body ends.
    pub(crate) fn answer(&mut self, answer: &Answer<'_>, date: &str, now: Millis) {
        if self.has_begun() {
            self.end_of_stream();
            return;
        }
        let is_head =
            self.asked.as_ref().is_some_and(|asked| asked.request.method == http1::Method::Head);
        self.keep_alive &= self.asked.is_some();
        let body_bytes = answer.body.len() + answer.tail.len();
        let length = match answer.status {
            204 | 304 => Length::None,
            _ => Length::Known(body_bytes as u64),
        };
        let has_body = !is_head && length != Length::None;
        let extra: Vec<(&str, &str)> =
            [("Date", date)].into_iter().chain(answer.extra.iter().copied()).collect();
        let head = Head {
            status: answer.status,
            content_type: answer.content_type,
            length,
            keep_alive: self.keep_alive,
            cache_control: answer.cache_control,
            extra: &extra,
        };
        let is_inline = has_body && body_bytes <= INLINE_BODY_BYTES_MAX;
        self.replies.reserve(HEAD_BYTES + if is_inline { body_bytes } else { 0 });
        head.write(&mut self.replies);
        self.status = answer.status;
        if is_inline {
            self.replies.extend_from_slice(&answer.body);
            self.replies.extend_from_slice(answer.tail.as_bytes());
        } else if has_body && answer.tail.is_empty() {
            self.body = Some(answer.body.clone());
        } else if has_body {
            // A playlist of some hundred segments: rare, and copied whole.
            self.body = Some([&answer.body[..], answer.tail.as_bytes()].concat().into());
        }
        self.state = State::Responding;
        self.since = now;
    }

    /// Refuses a WebSocket in a way a page can read: it is opened and closed at once with the reason.
    pub(crate) fn refuse_websocket(&mut self, text: &str, now: Millis) {
        if self.has_begun() {
            self.end_of_stream();
            return;
        }
        if !matches!(self.state, State::Live { .. }) {
            self.accept_websocket();
        }
        let mut end = text.len().min(CLOSE_REASON_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.say_goodbye(CLOSE_POLICY, text.get(..end).unwrap_or_default());
        self.keep_alive = false;
        self.state = State::Responding;
        self.since = now;
    }

    fn accept_websocket(&mut self) {
        let upgrade = self.asked.as_ref().and_then(|asked| asked.request.upgrade.as_ref());
        if let Some(upgrade) = upgrade {
            let protocol = upgrade.protocol.as_deref();
            websocket::write_accept(&upgrade.key, protocol, &mut self.replies);
            self.status = 101;
        }
    }

    /// Begins to show a live stream. Over WebSocket the handshake is answered now, over plain HTTP the
    /// head waits for the first byte of the stream, since without one the answer is another.
    pub(crate) fn begin_live(&mut self, framing: FramingKind) {
        let framing = self.understood(framing);
        self.framing = framing;
        let frames = framing.is_websocket().then(FrameReader::new);
        if frames.is_some() {
            self.accept_websocket();
        }
        let asked = self.asked.take();
        let query = asked.as_ref().map_or("", |asked| asked.request.query.as_str());
        let wants =
            |track: &str| !query.split('&').any(|pair| pair.strip_prefix(track) == Some("=0"));
        let can_choose = matches!(framing, FramingKind::Flv(_));
        (self.audio, self.video) = (wants("audio"), wants("video"));
        if !can_choose || (!self.audio && !self.video) {
            (self.audio, self.video) = (true, true);
        }
        self.keep_alive = false;
        self.state = State::Live { frames, has_begun: false, has_ended: false };
    }

    /// The form in which the viewer takes the stream.
    pub(crate) fn framing(&self) -> FramingKind {
        self.framing
    }

    /// What the viewer wants to hear and see.
    pub(crate) fn selection(&self, msid: u32) -> Selection {
        Selection { msid, audio: self.audio, video: self.video, is_fixed: true }
    }

    /// The head of the response, if it is due, and what the stream begins with. False if the viewer has
    /// not taken what was queued before.
    pub(crate) fn write_preamble(
        &mut self,
        start: &ViewerStart<'_>,
        selection: Selection,
        blob: Option<&[u8]>,
    ) -> bool {
        if let State::Live { has_begun, .. } = &mut self.state {
            *has_begun = true;
        }
        if start.is_first && !self.framing.is_websocket() {
            self.write_live_head(start.date);
        }
        let blob = blob.unwrap_or_default();
        match self.framing {
            FramingKind::Flv(wrap) => self.write_flv_start(wrap, start, selection, blob),
            FramingKind::Rtmp | FramingKind::Fmp4(_) => {
                self.replies.extend_from_slice(blob);
            }
        }
        self.has_room()
    }

    /// Answers what a live stream would be answered with, without the stream.
    pub(crate) fn answer_live_head(&mut self, framing: FramingKind, date: &str, now: Millis) {
        self.framing = self.understood(framing);
        self.write_live_head(date);
        self.keep_alive = false;
        self.state = State::Responding;
        self.since = now;
    }

    fn write_live_head(&mut self, date: &str) {
        self.status = 200;
        let length = match self.framing.wrap() {
            Wrap::Chunk => Length::Chunked,
            Wrap::None | Wrap::WebSocket => Length::UntilClose,
        };
        Head {
            status: 200,
            content_type: self.framing.content_type(),
            length,
            keep_alive: false,
            cache_control: "no-store",
            extra: &[("Date", date)],
        }
        .write(&mut self.replies);
    }

    fn write_flv_start(
        &mut self,
        wrap: Wrap,
        start: &ViewerStart<'_>,
        selection: Selection,
        blob: &[u8],
    ) {
        let framing = flv::Framing { wrap };
        if start.is_first {
            let (audio, video) = match start.tracks {
                // Not seen yet is not the same as not there.
                None | Some((false, false)) => (true, true),
                Some(tracks) => tracks,
            };
            let header = flv::file_header(audio && selection.audio, video && selection.video);
            self.replies.extend_from_slice(wrap.begin(header.len()).as_slice());
            self.replies.extend_from_slice(&header);
            self.replies.extend_from_slice(wrap.end());
        }
        for (kind, body) in preamble::entries(blob) {
            let is_wanted = match kind {
                kind::AUDIO => selection.audio,
                kind::VIDEO => selection.video,
                _ => true,
            };
            if !is_wanted {
                continue;
            }
            // Entries are bounded far below 2^32; metadata has no time of its own.
            let length = u32::try_from(body.len()).unwrap_or(0);
            let timestamp = if kind == kind::DATA_AMF0 { 0 } else { start.timestamp };
            let header = MessageHeader { csid: 0, kind, msid: 0, timestamp, length };
            let at = self.replies.len();
            self.replies.resize(at + framing.framed_bytes(&header), 0);
            let out = self.replies.get_mut(at..).unwrap_or_default();
            framing.begin(&header, out).push(out, body);
        }
    }

    /// The stream has ended, and everything of it was sent.
    pub(crate) fn end_of_stream(&mut self) {
        let State::Live { has_ended, .. } = &mut self.state else { return };
        if std::mem::replace(has_ended, true) {
            return;
        }
        match self.framing.wrap() {
            Wrap::None => {}
            Wrap::Chunk => self.replies.extend_from_slice(CHUNKS_END),
            Wrap::WebSocket => self.say_goodbye(CLOSE_NORMAL, "the stream has ended"),
        }
    }

    /// True while the viewer has been told nothing: it has a request that waits for its answer, or a part
    /// of one.
    pub(crate) fn is_unanswered(&self) -> bool {
        match self.state {
            State::Idle => !self.reader.is_idle(),
            State::Asking
            | State::Waiting { .. }
            | State::Live { frames: None, has_begun: false, .. } => true,
            State::Responding | State::Live { .. } => false,
        }
    }

    /// True while a whole request is there that has not been answered to its end.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// True while a live stream goes on.
    pub(crate) fn is_watching(&self) -> bool {
        matches!(self.state, State::Live { has_begun: true, has_ended: false, .. })
    }

    /// The answer that is being sent is the last one. False if none is.
    pub(crate) fn finish_answer(&mut self) -> bool {
        let is_answering = matches!(self.state, State::Responding);
        self.keep_alive &= !is_answering;
        is_answering
    }

    /// Takes leave of a viewer: the server goes away. A body in chunks ends in order, and the next answer is
    /// the last.
    pub(crate) fn go_away(&mut self) {
        self.keep_alive = false;
        let State::Live { frames, has_begun, has_ended, .. } = &mut self.state else { return };
        if *has_ended {
            return;
        }
        if frames.is_some() {
            self.say_goodbye(CLOSE_GOING_AWAY, "the server is going away");
        } else if *has_begun && matches!(self.framing.wrap(), Wrap::Chunk) {
            *has_ended = true;
            self.replies.extend_from_slice(CHUNKS_END);
        }
    }

    /// True once something of a live stream was queued: its answer has begun.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.state, State::Live { has_begun: true, .. })
    }

    /// True once the last of a live stream was queued.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Live { has_ended: true, .. })
    }

    /// Chunks are not for clients of HTTP/1.0.
    fn understood(&self, framing: FramingKind) -> FramingKind {
        let is_old = self.asked.as_ref().is_some_and(|asked| !asked.request.is_http_1_1);
        match framing {
            FramingKind::Flv(Wrap::Chunk) if is_old => FramingKind::Flv(Wrap::None),
            FramingKind::Fmp4(Wrap::Chunk) if is_old => FramingKind::Fmp4(Wrap::None),
            other => other,
        }
    }

    /// Queues the answer to a ping. False if the viewer pings and does not read.
    pub(crate) fn pong(&mut self, payload: &[u8]) -> bool {
        websocket::write_pong(payload, &mut self.replies);
        self.has_room()
    }

    /// Answers a viewer's goodbye.
    pub(crate) fn answer_close(&mut self, code: Option<u16>) {
        self.say_goodbye(code.unwrap_or(CLOSE_NORMAL), "");
    }

    /// Ends a WebSocket: nothing follows a close frame (RFC 6455, section 5.5.1), so there is one.
    fn say_goodbye(&mut self, code: u16, text: &str) {
        if !std::mem::replace(&mut self.has_said_goodbye, true) {
            websocket::write_close(code, text, &mut self.replies);
        }
    }

    fn has_room(&self) -> bool {
        self.replies.len() <= REPLY_BYTES_MAX
    }

    // Sending.

    pub(crate) fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    pub(crate) fn take_replies(&mut self, out: &mut Vec<u8>) {
        let replies = std::mem::take(&mut self.replies);
        match out.is_empty() {
            true => *out = replies,
            false => out.extend_from_slice(&replies),
        }
    }

    /// True while there is a body to send.
    pub(crate) fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// What is left of the body.
    pub(crate) fn body(&self) -> Option<SharedBytes> {
        self.body.clone()
    }

    /// The socket took so much of the body.
    pub(crate) fn note_body_sent(&mut self, bytes: usize) {
        if let Some(body) = &mut self.body {
            let bytes = bytes.min(body.len());
            body.advance(bytes);
            if body.is_empty() {
                self.body = None;
            }
        }
    }

    /// The peer took something.
    pub(crate) fn note_progress(&mut self, now: Millis) {
        if matches!(self.state, State::Responding) {
            self.since = now;
        }
    }

    /// True when everything queued was handed to the socket and there is nothing more to come.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.state, State::Responding) && self.replies.is_empty() && self.body.is_none()
    }

    /// Goes on to the next request. False if the connection is to be closed instead.
    pub(crate) fn next_request(&mut self, now: Millis) -> bool {
        self.asked = None;
        self.state = State::Idle;
        self.since = now;
        self.keep_alive
    }

    // For the log.

    /// True while or after a live stream was shown.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// As in logs and in the API.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.framing {
            FramingKind::Rtmp => "http",
            framing => framing.text(),
        }
    }
}
