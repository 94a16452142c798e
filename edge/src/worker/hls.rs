//! Viewers of HLS: playlists and files of the packager, answered at once or when they are there.
//!
//! The packager works on a thread of its own; here its results are looked up, never waited for. A request for
//! what is still to come (a blocking reload, a stream about to begin) is put aside and asked again when the
//! rendition's version has moved, which is looked at every few milliseconds: two loads for each that waits.

use std::sync::Arc;

use mux::playlist::query::Reload;
use uring::{Io, SharedBytes};

use super::Worker;
use crate::access::Grant;
use crate::access::quota::Place;
use crate::hls::{Address, HeldRendition, Rendition, Reply};
use crate::http::{Answer, FileName, TokenQuery, View};
use crate::metrics::{LimitReached, PlayResult, Role};
use crate::registry::StreamPhase;

/// Distance of two looks at what viewers wait for, in milliseconds.
const LOOK_MS: u64 = 5;
/// Distance of two looks for a stream that nobody publishes yet, in milliseconds.
const RETRY_MS: u64 = 100;
/// Longest wait of a blocking reload or a hinted part, in milliseconds. A stream whose publisher is lost
/// stands still: players are given the playlist as it is before they give up (hls.js waits 10 s for a first
/// byte).
const RELOAD_MS_MAX: u64 = 8_000;
/// What a viewer is told to wait where no more streams can be packaged, in seconds: streams that nobody asks
/// for end after `hls_idle_ms`, which is 30 s unless configured.
const RETRY_AFTER_S: &str = "10";

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// A viewer may have the playlist it asked for.
    pub(super) fn view_playlist(&mut self, index: usize, query: TokenQuery, grant: Grant) {
        let Some(asked) = self.http(index).and_then(|session| session.asked()) else { return };
        let reload = match Reload::parse(&asked.request.query) {
            Ok(reload) => reload,
            Err(error) => {
                self.answer(index, &Answer::text(400, &error.to_string()));
                return;
            }
        };
        let Grant { path, place, .. } = grant;
        let view =
            View::Playlist { path, query, reload, place, rendition: None, retry_at: self.now };
        self.serve_view(index, view);
    }

    /// A file of a packaging run. Who knows its key was shown the playlist.
    pub(super) fn answer_file(&mut self, index: usize, file: FileName) {
        match self.shared.hls.by_key(file.key) {
            Some(rendition) => {
                let rendition = HeldRendition::new(rendition);
                self.serve_view(index, View::File { version: 0, rendition, file });
            }
            None => self.answer(index, &Answer::text(404, "these segments are gone")),
        }
    }

    /// Answers, or puts the view aside.
    fn serve_view(&mut self, index: usize, mut view: View) {
        let reply = match &mut view {
            View::File { rendition, file, version } => {
                *version = rendition.version();
                rendition.file(file.name)
            }
            View::Playlist { .. } => self.ask_for_playlist(index, &mut view),
        };
        match reply {
            Reply::Wait => {
                let now = self.now;
                let Some(session) = self.http(index) else { return };
                if session.wait(view, now) {
                    self.views_waiting.push(index);
                }
            }
            Reply::Ready { body, tail, content_type, cache_control } => {
                self.answer_body(index, body, &tail, content_type, cache_control);
            }
            Reply::NotFound => {
                self.answer(index, &Answer::text(404, "there is no such thing in this stream"));
            }
            Reply::Gone => self.answer(index, &Answer::text(410, "this is no longer kept")),
            Reply::BadRequest(text) => self.answer(index, &Answer::text(400, text)),
            Reply::Unavailable(text) => {
                let extra = &[("Retry-After", RETRY_AFTER_S)];
                self.answer(index, &Answer { extra, ..Answer::text(503, text) });
            }
        }
    }

    fn ask_for_playlist(&mut self, index: usize, view: &mut View) -> Reply {
        let View::Playlist { path, query, reload, place, rendition, retry_at } = view else {
            return Reply::NotFound;
        };
        if rendition.is_none() {
            if self.now < *retry_at {
                return Reply::Wait;
            }
            *retry_at = rtmp::Millis(self.now.0 + RETRY_MS);
            let settings = &self.settings.vhost(path.vhost()).hls;
            if !settings.is_on {
                return Reply::NotFound;
            }
            let Some(entry) = self.shared.registry.find(path) else { return Reply::Wait };
            let is_live = entry.phase() != StreamPhase::Waiting;
            let found = match is_live {
                true => self.shared.hls.open(&entry, query.container, settings),
                false => self.shared.hls.find(path, query.container, settings),
            };
            let Some(found) = found else {
                // Over a limit, and said so by the packager's counters.
                let text = "no more streams can be packaged now";
                return if is_live { Reply::Unavailable(text) } else { Reply::Wait };
            };
            let found = match query.is_sound {
                true => found.sound().cloned(),
                false => Some(found),
            };
            let Some(found) = found else { return Reply::NotFound };
            *rendition = Some((HeldRendition::new(found), u64::MAX));
        }
        let Some((rendition, version)) = rendition else { return Reply::Wait };
        *version = rendition.version();
        let rendition = Arc::clone(&**rendition);
        let name = self.asked_name(index);
        let address = |session| Address { name: &name, query: &query.own, session };
        match query.session {
            None => rendition.multivariant(&address(self.next_random())),
            Some(token) => {
                let place = place.take();
                self.note_viewer(index, &rendition, token, place);
                rendition.playlist(reload, Some(&address(token)))
            }
        }
    }

    fn asked_name(&mut self, index: usize) -> String {
        let asked = self.http(index).and_then(|session| session.asked());
        let stream = asked.and_then(|asked| asked.route.stream());
        stream.map(|(_, name, _)| name.to_owned()).unwrap_or_default()
    }

    /// Counts the viewer, once for all of its requests.
    fn note_viewer(
        &mut self,
        index: usize,
        rendition: &Rendition,
        token: u64,
        place: Option<Place>,
    ) {
        let is_new = rendition.note_viewer(token, self.now.0, place);
        let Some(connection) = self.connection(index) else { return };
        let client = connection.session.http().and_then(|session| Some(session.asked()?.client));
        connection.role = Role::Subscriber;
        let path = &rendition.key().path;
        if is_new {
            tracing::info!(event = "play", conn = %connection.id, peer = %connection.peer,
                client = client.map(tracing::field::display), stream = %path,
                result = "accepted", protocol = "hls",
                session = format_args!("{token:016x}"));
            self.port.metrics().plays.of(PlayResult::Accepted).increment();
            self.port.metrics().connections_total.of(Role::Subscriber).increment();
        }
        if let Some(connection) = self.connection(index)
            && connection.last_path.as_ref() != Some(path)
        {
            connection.last_path = Some(path.clone());
        }
    }

    /// The body and what follows it for this viewer, or the part of both that was asked for.
    fn answer_body(
        &mut self,
        index: usize,
        body: SharedBytes,
        tail: &str,
        content_type: &str,
        cache_control: &str,
    ) {
        let range = self.http(index).and_then(|session| session.asked()?.request.range);
        let (body, tail) = match range {
            // No player asks for a part of a playlist.
            Some(_) if !tail.is_empty() => ([&body[..], tail.as_bytes()].concat().into(), ""),
            _ => (body, tail),
        };
        let whole = Answer { status: 200, content_type, cache_control, extra: &[], body, tail };
        let Some(range) = range else {
            self.answer(index, &whole);
            return;
        };
        let length = whole.body.len() as u64;
        match range.within(length) {
            Some(part) => {
                let text = format!("bytes {}-{}/{length}", part.start, part.end - 1);
                // Both lie inside the body.
                let at = |byte: u64| usize::try_from(byte).unwrap_or(0);
                let body = whole.body.slice(at(part.start)..at(part.end));
                let extra = &[("Content-Range", text.as_str())];
                self.answer(index, &Answer { status: 206, extra, body, ..whole });
            }
            None => {
                let text = format!("bytes */{length}");
                let extra = &[("Content-Range", text.as_str())];
                self.answer(index, &Answer { extra, ..Answer::text(416, "nothing lies there") });
            }
        }
    }

    /// Asks again for those that wait, every [`LOOK_MS`].
    pub(super) fn serve_waiting_views(&mut self) {
        if self.views_waiting.is_empty() || self.now < self.views_at {
            return;
        }
        self.views_at = rtmp::Millis(self.now.0 + LOOK_MS);
        for at in (0..self.views_waiting.len()).rev() {
            let Some(&index) = self.views_waiting.get(at) else { continue };
            if self.retry_view(index) {
                self.views_waiting.swap_remove(at);
            }
        }
    }

    /// True if the connection waits no more.
    fn retry_view(&mut self, index: usize) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return true;
        };
        let Some(session) = connection.session.http() else { return true };
        let Some((since, view)) = session.waiting_view() else { return true };
        let waited_ms = now.0.saturating_sub(since.0);
        if view.has_news(now) {
            let Some(view) = session.resume_view() else { return true };
            self.serve_view(index, view);
            if self.http(index).is_some_and(|session| session.is_waiting()) {
                return false;
            }
            self.pump(index);
            return true;
        }
        let (limit_ms, status, text) = match view {
            View::Playlist { rendition: Some((rendition, _)), .. } if rendition.has_begun() => {
                (RELOAD_MS_MAX, 503, "the stream does not go on")
            }
            View::File { .. } => (RELOAD_MS_MAX, 503, "the stream does not go on"),
            View::Playlist { path, .. } => {
                let wait_ms = self.settings.vhost(path.vhost()).http_wait_ms;
                (wait_ms, 404, "nobody publishes this stream")
            }
        };
        if waited_ms < limit_ms {
            return false;
        }
        let view = self.http(index).and_then(|session| session.resume_view());
        // What there is, as if nothing further had been asked for.
        if let Some(View::Playlist { rendition: Some((rendition, _)), query, .. }) = &view {
            let name = self.asked_name(index);
            let address =
                query.session.map(|session| Address { name: &name, query: &query.own, session });
            if let Reply::Ready { body, tail, content_type, cache_control: _ } =
                rendition.playlist(&Reload::default(), address.as_ref())
            {
                self.answer_body(index, body, &tail, content_type, "no-store");
                self.pump(index);
                return true;
            }
        }
        if status == 404 {
            self.port.metrics().plays.of(PlayResult::NotFound).increment();
            self.note_limit(LimitReached::PlayWait);
        }
        self.answer(index, &Answer::text(status, text));
        self.pump(index);
        true
    }
}
