//! Viewers over HTTP: requests in, answers or a live stream out.
//!
//! A live viewer is a subscriber like any other, of a stream in another framing; everything from the join
//! on is the code of RTMP players. What differs stands here: how it asks, and how it is told no.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use http1::{HttpError, Method, Request, websocket};
use live::path::{StreamPath, resolve};
use uring::Io;

use super::Worker;
use super::access::{canonical, log_text};
use crate::access::{Decision, DenyReason, Grant, Question, Role as AccessRole};
use crate::connection::Session;
use crate::framing::FramingKind;
use crate::http::{Answer, Asked, HttpSession, Late, Route};
use crate::metrics::{CloseReason, HttpResult, LimitReached, PlayResult, Role};
use crate::registry::StreamPhase;

/// How long a browser may remember the answer to a preflight, in seconds.
const PREFLIGHT_MAX_AGE: &str = "86400";
const METHODS: &str = "GET, HEAD, OPTIONS";

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    pub(super) fn http(&mut self, index: usize) -> Option<&mut HttpSession> {
        self.connection(index)?.session.http()
    }

    /// Bytes of a viewer. What is left in `input` waits until the present request is answered.
    pub(super) fn feed_http(&mut self, index: usize, input: &mut &[u8]) {
        let of_requests = self.settings.limits();
        let limits = http1::Limits {
            head_bytes_max: of_requests.http_head_bytes_max,
            headers_max: of_requests.http_fields_max,
            body_bytes_max: of_requests.http_body_bytes_max,
        };
        loop {
            let now = self.now;
            if self.is_command_flood(index) {
                *input = &[];
                return;
            }
            let Some(connection) = self.connection(index) else { return };
            if connection.closing.is_some() {
                *input = &[];
                return;
            }
            let Some(session) = connection.session.http() else { return };
            if session.is_deaf() {
                *input = &[];
                return;
            }
            if let Some(frames) = session.frames() {
                let result = frames.handle_bytes(input);
                connection.requests += u32::from(matches!(result, Ok(Some(_))));
                if !self.on_frame(index, result) {
                    return;
                }
                continue;
            }
            let Some(reader) = session.reader(now) else { return };
            match reader.handle_bytes(&limits, input) {
                Ok(Some(request)) => {
                    connection.requests = connection.requests.wrapping_add(1);
                    self.on_request(index, request);
                }
                Ok(None) => {
                    self.update_state(index);
                    return;
                }
                Err(error) => {
                    *input = &[];
                    self.on_bad_request(index, &error);
                    return;
                }
            }
        }
    }

    /// What came over a WebSocket. False when there is nothing more to read now.
    fn on_frame(
        &mut self,
        index: usize,
        result: Result<Option<websocket::Event>, websocket::FrameError>,
    ) -> bool {
        let Some(session) = self.http(index) else { return false };
        match result {
            Ok(None) => return false,
            Ok(Some(websocket::Event::Pong | websocket::Event::Message)) => {}
            Ok(Some(websocket::Event::Ping(payload))) => {
                if !session.pong(payload.as_slice()) {
                    self.abandon(index, CloseReason::MemoryLimit);
                    return false;
                }
            }
            Ok(Some(websocket::Event::Close(code))) => {
                session.answer_close(code);
                self.close(index, CloseReason::PeerClosed);
                return false;
            }
            Err(error) => {
                self.port.metrics().protocol_errors.increment(error.label());
                if self.error_lines.allow(self.now.0)
                    && let Some(connection) = self.connection(index)
                {
                    tracing::warn!(event = "protocol_error", conn = %connection.id,
                        peer = %connection.peer, class = error.label(), error = %error);
                }
                if let Some(session) = self.http(index) {
                    session.answer_close(Some(error.close_code()));
                }
                self.close(index, CloseReason::ProtocolError);
                return false;
            }
        }
        true
    }

    fn on_bad_request(&mut self, index: usize, error: &HttpError) {
        let now = self.now;
        self.port.metrics().protocol_errors.increment(error.label());
        let allow = self.error_lines.allow(now.0);
        let Some(connection) = self.connection(index) else { return };
        if allow {
            tracing::warn!(event = "protocol_error", conn = %connection.id,
                peer = %connection.peer, class = error.label(), error = %error);
        }
        let status = error.status().code();
        match status {
            414 | 431 => self.note_limit(LimitReached::HttpHead),
            413 => self.note_limit(LimitReached::HttpBody),
            _ => {}
        }
        let extra: &[(&str, &str)] = match status {
            426 => &[("Sec-WebSocket-Version", "13")],
            _ => &[],
        };
        self.answer(index, &Answer { extra, ..Answer::text(status, &error.to_string()) });
        self.close(index, CloseReason::ProtocolError);
    }

    fn on_request(&mut self, index: usize, request: Request) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let peer = canonical(connection.peer.ip());
        let client = match &request.forwarded_for {
            Some(list)
                if self
                    .settings
                    .trusts_proxy(connection.proxy.as_deref().unwrap_or(&connection.peer).ip()) =>
            {
                last_untrusted(list, |address| self.settings.trusts_proxy(address)).unwrap_or(peer)
            }
            _ => peer,
        };
        let method = request.method;
        let preflight = request.request_headers.clone();
        let route = Route::read(&request.path, &request.query, request.upgrade.is_some());
        let Some(session) = connection.session.http() else { return };
        session.begin(Asked { request, route: route.clone(), client }, now);
        match (method, route) {
            (Method::Options, _) => {
                let wanted = preflight.unwrap_or_else(|| "*".to_owned());
                let extra = [
                    ("Allow", METHODS),
                    ("Access-Control-Allow-Methods", METHODS),
                    ("Access-Control-Allow-Headers", wanted.as_str()),
                    ("Access-Control-Max-Age", PREFLIGHT_MAX_AGE),
                ];
                self.answer(index, &Answer { status: 204, extra: &extra, ..Answer::text(204, "") });
            }
            (Method::Other, _) => {
                let extra = &[("Allow", METHODS)];
                let text = "only GET, HEAD and OPTIONS are served";
                self.answer(index, &Answer { extra, ..Answer::text(405, text) });
            }
            (_, Route::Live { .. } | Route::Playlist { .. }) => self.ask_to_view(index),
            (_, Route::File(file)) => self.answer_file(index, file),
            (_, Route::Unknown) => {
                let text = "nothing is served here; a stream is /APP/NAME.flv, .mp4 or .m3u8";
                self.answer(index, &Answer::text(404, text));
            }
        }
    }

    /// Queues an answer and counts it.
    pub(super) fn answer(&mut self, index: usize, answer: &Answer<'_>) {
        let now = self.now;
        self.port.metrics().http_answers.of(HttpResult::of(answer.status)).increment();
        self.renew_date();
        let connection = self.connections.get_mut(index).and_then(Option::as_deref_mut);
        if let Some(session) = connection.and_then(|connection| connection.session.http()) {
            session.answer(answer, &self.date.1, now);
        }
    }

    /// Writes the date of heads anew if it is another second.
    pub(super) fn renew_date(&mut self) {
        let unix_s = (self.clocks.unix_s)();
        if self.date.0 != unix_s {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s);
            self.date = (unix_s, httpdate::fmt_http_date(time));
        }
    }

    // Access.

    fn ask_to_view(&mut self, index: usize) {
        let msid = rtmp::chunk::MEDIA_MSID;
        match self.decide_view(index, false) {
            // A viewer that has its place asks again with every reload of a playlist.
            Some(Decision::Deny(denial)) if denial.reason == DenyReason::Quota => {
                match self.renew_view(index) {
                    Some(grant) => self.view_as(index, grant),
                    None => {
                        let denial = Decision::Deny(denial);
                        self.conclude(index, AccessRole::Play, msid, denial);
                    }
                }
            }
            Some(Decision::Ask(mut question)) => {
                question.is_renewal = self.has_place(index, &question.path);
                self.conclude(index, AccessRole::Play, msid, Decision::Ask(question));
            }
            Some(decision) => self.conclude(index, AccessRole::Play, msid, decision),
            None => {
                let text = "the stream name cannot be used";
                self.refuse_view(index, 404, text, false);
            }
        }
    }

    /// Permission for a viewer of HLS whose session has a place in the quotas.
    fn renew_view(&mut self, index: usize) -> Option<Grant> {
        let Decision::Allow(grant) = self.decide_view(index, true)? else { return None };
        self.has_place(index, &grant.path).then_some(grant)
    }

    /// True for a viewer of HLS whose session watches `path` and has its place in the quotas.
    fn has_place(&mut self, index: usize, path: &StreamPath) -> bool {
        let Some(asked) = self.http(index).and_then(|session| session.asked()) else {
            return false;
        };
        let Route::Playlist { query, .. } = &asked.route else { return false };
        let (container, session) = (query.container, query.session);
        let settings = &self.settings.vhost(path.vhost()).hls;
        let rendition = self.shared.hls.find(path, container, settings);
        rendition.zip(session).is_some_and(|(found, token)| found.knows_viewer(token))
    }

    /// What the rules say to the viewer's address; `None` for one that names no stream.
    fn decide_view(&mut self, index: usize, is_renewal: bool) -> Option<Decision> {
        let connection = self.connections.get_mut(index)?.as_deref_mut()?;
        let id = connection.id;
        let asked = connection.session.http()?.asked()?;
        let (app, name, suffix) = asked.route.stream()?;
        let host = asked.request.host.as_deref().unwrap_or_default();
        let tc_url = format!("rtmp://{host}/{app}");
        // A playlist's own parameters change with each reload, and are nobody's permission.
        let own = match &asked.route {
            Route::Playlist { query, .. } => &query.own,
            _ => &asked.request.query,
        };
        let name = match own.as_str() {
            "" => name.to_owned(),
            query => format!("{name}?{query}"),
        };
        match resolve(app, Some(&tc_url), &name) {
            Ok(resolved) => Some(self.rules.decide(&Question {
                role: AccessRole::Play,
                resolved: &resolved,
                peer: asked.client,
                unix_s: (self.clocks.unix_s)(),
                suffix,
                connection: id,
                connect: None,
                is_renewal,
            })),
            Err(error) => {
                tracing::warn!(event = "bad_name", conn = %id, error = %error);
                None
            }
        }
    }

    /// A viewer may have what it asked for.
    pub(super) fn view_as(&mut self, index: usize, grant: Grant) {
        let Some(asked) = self.http(index).and_then(|session| session.asked()) else { return };
        let is_head = asked.request.method == Method::Head;
        match asked.route.clone() {
            Route::Live { framing, .. } if is_head => {
                let now = self.now;
                if self.shared.registry.phase(&grant.path) == StreamPhase::Waiting {
                    self.answer(index, &Answer::text(404, "nobody publishes this stream"));
                    return;
                }
                self.renew_date();
                let connection = self.connections.get_mut(index).and_then(Option::as_deref_mut);
                if let Some(session) = connection.and_then(|c| c.session.http()) {
                    session.answer_live_head(framing, &self.date.1, now);
                    self.port.metrics().http_answers.of(HttpResult::Ok).increment();
                }
            }
            Route::Live { framing, .. } => {
                let client = SocketAddr::new(asked.client, 0);
                // From here on the connection is this viewer's alone, whoever carries it.
                let peer = self.connection(index).map(|connection| connection.peer);
                if peer.is_some_and(|peer| canonical(peer.ip()) != client.ip())
                    && !self.speak_for(index, client)
                {
                    return;
                }
                self.begin_live(index, framing);
                self.play_as(index, rtmp::chunk::MEDIA_MSID, grant);
            }
            Route::Playlist { query, .. } => {
                // Who watches already has a session.
                let is_new = query.session.is_none();
                match is_new.then(|| self.refuses_subscribers()).flatten() {
                    Some(text) => self.answer(index, &Answer::text(503, text)),
                    None => self.view_playlist(index, query, grant),
                }
            }
            Route::File(_) | Route::Unknown => {}
        }
    }

    /// From here on it follows a live stream: the kernel must not hold more of that than of any player's.
    fn begin_live(&mut self, index: usize, framing: FramingKind) {
        let unsent_bytes_max = self.settings.limits().unsent_bytes_max;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        if std::mem::take(&mut connection.output.is_bulk) {
            self.io.set_unsent_max(connection.conn, unsent_bytes_max);
        }
        if let Some(session) = connection.session.http() {
            session.begin_live(framing);
        }
    }

    /// Tells a viewer no: with a status, or, over WebSocket, with a close frame that a page can read.
    fn refuse_view(&mut self, index: usize, status: u16, text: &str, is_denied: bool) {
        let now = self.now;
        let Some(session) = self.http(index) else { return };
        let is_websocket = session.framing().is_websocket() && session.is_live()
            || session.asked().is_some_and(|asked| asked.request.upgrade.is_some());
        if is_websocket {
            session.refuse_websocket(text, now);
            self.port.metrics().http_answers.of(HttpResult::of(status)).increment();
            return;
        }
        let error = [("X-Tengine-Error", text)];
        let extra: &[(&str, &str)] = if is_denied { &error } else { &[] };
        self.answer(index, &Answer { extra, ..Answer::text(status, text) });
    }

    /// The refusal of a play request, for viewers over HTTP. False if the connection is none.
    pub(super) fn refuse_viewer(&mut self, index: usize, result: PlayResult, text: &str) -> bool {
        let Some(connection) = self.connection(index) else { return false };
        let Session::Http(_) = &connection.session else { return false };
        connection.claim_role(Role::Subscriber);
        tracing::info!(event = "play_refused", conn = %connection.id, peer = %connection.peer,
            result = crate::metrics::Label::text(result), reason = log_text(text));
        if let Some(session) = self.http(index)
            && session.has_begun()
        {
            // It was answered long ago: whatever ends its stream now, the body ends.
            session.end_of_stream();
            return true;
        }
        let status = match result {
            PlayResult::Denied => 403,
            PlayResult::Limit => 503,
            _ => 404,
        };
        self.refuse_view(index, status, text, result == PlayResult::Denied);
        true
    }

    // The end of a request, and what is late.

    /// Everything of an answer is with the socket: on to the next request, or the end.
    pub(super) fn on_answered(&mut self, index: usize) -> bool {
        let now = self.now;
        let Some(session) = self.http(index) else { return false };
        if !session.next_request(now) {
            self.close(index, CloseReason::Answered);
            return false;
        }
        self.resume_input(index);
        self.update_state(index);
        self.pump(index)
    }

    /// Deadlines of a viewer over HTTP. True if its connection was closed.
    pub(super) fn sweep_http(&mut self, index: usize) -> bool {
        let now = self.now;
        let deadlines = self.settings.limits().http;
        let late = self.http(index).and_then(|session| session.late(&deadlines, now));
        let Some(late) = late else { return false };
        match late {
            Late::KeepAlive => {
                self.note_limit(LimitReached::HttpKeepAlive);
                self.close(index, CloseReason::IdleTimeout);
            }
            Late::Request => {
                self.note_limit(LimitReached::HttpRequest);
                self.answer(index, &Answer::text(408, "the request took too long"));
                self.close(index, CloseReason::HandshakeTimeout);
            }
            Late::Response => {
                self.note_limit(LimitReached::HttpStall);
                self.abandon(index, CloseReason::Stalled);
            }
        }
        true
    }
}

/// The nearest address in a list of proxies' clients that is no trusted proxy itself.
fn last_untrusted(list: &str, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut nearest = None;
    for address in list.rsplit(',') {
        let address = address.trim().trim_matches(['[', ']']);
        let Ok(address) = address.parse::<IpAddr>() else { return nearest };
        nearest = Some(canonical(address));
        if !is_trusted(address) {
            break;
        }
    }
    nearest
}
