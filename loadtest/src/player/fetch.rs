//! Requests as fast as they are answered, over a connection that stays: what a server of segments can do.
//!
//! The segments of a playlist in turn, each fetcher beginning with another; the playlist is read again
//! once a second, so that a live one can be asked for. Any other address is asked for itself. Bodies are
//! counted and thrown away.

use super::Reason;
use super::stream::refusal;
use crate::http::{Exchange, Got, Head, Watch};
use crate::num::{MS_NS, SECOND_NS};
use crate::playlist::{self, PLAYLIST_BYTES_MAX, Playlist};
use crate::tally::Measure;
use crate::viewer::{Scene, Viewer};
use std::sync::Arc;

/// How long a playlist is good for.
const LIST_NS: u64 = SECOND_NS;
/// Until a playlist with nothing in it is read again.
const RETRY_NS: u64 = 200 * MS_NS;
/// Requests that may fail in a row.
const FAILURES_MAX: u8 = 20;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Fetcher {
    watch: Arc<Watch>,
    pub(super) exchange: Exchange,
    /// Of the playlist that is read again.
    list: String,
    is_list: bool,
    list_ns: u64,
    paths: Vec<String>,
    next: usize,
    head: Head,
    text: Vec<u8>,
    asked_ns: u64,
    due_ns: u64,
    failures: u8,
}

impl Fetcher {
    pub(super) fn new(watch: Arc<Watch>, random: u64) -> Fetcher {
        let is_list = watch.is_hls();
        Fetcher {
            exchange: Exchange::new(Arc::clone(&watch.authority), false),
            list: watch.path.clone(),
            is_list,
            list_ns: 0,
            paths: if is_list { Vec::new() } else { vec![watch.path.clone()] },
            watch,
            next: usize::try_from(random >> 40).unwrap_or(0),
            head: Head::default(),
            text: Vec::new(),
            asked_ns: 0,
            due_ns: u64::MAX,
            failures: 0,
        }
    }

    pub(super) fn on_connected(
        &mut self,
        viewer: &mut Viewer,
        scene: &Scene<'_>,
        out: &mut Vec<u8>,
    ) {
        viewer.on_asked(scene);
        if self.asked_ns == 0 {
            self.go_on(scene.now_ns, out);
        }
        self.exchange.on_connected(out);
    }

    /// Bytes of the server. Appends requests to `out`.
    ///
    /// # Errors
    /// The fetcher is over.
    pub(super) fn on_bytes(
        &mut self,
        bytes: &[u8],
        viewer: &mut Viewer,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let mut input = bytes;
        while let Some(got) = self.exchange.next(&mut input, out)? {
            match got {
                Got::Head(head) => self.head = head,
                Got::Body(body) if self.is_list && self.head.status == 200 => {
                    if self.text.len() + body.len() > PLAYLIST_BYTES_MAX {
                        return Err("playlist: is too long".into());
                    }
                    self.text.extend_from_slice(body);
                }
                Got::Body(_) => {}
                Got::End => self.on_response(viewer, scene, out)?,
            }
        }
        Ok(())
    }

    /// The server has ended the connection.
    ///
    /// # Errors
    /// In the midst of a response.
    pub(super) fn on_eof(
        &mut self,
        viewer: &mut Viewer,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        if self.exchange.on_eof(out)? { self.on_response(viewer, scene, out) } else { Ok(()) }
    }

    fn on_response(
        &mut self,
        viewer: &mut Viewer,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let now_ns = scene.now_ns;
        scene.tally.counts.requests += 1;
        if self.head.status == 200 {
            self.failures = 0;
        } else {
            scene.tally.note_status(&format!("http {}", self.head.status));
            self.failures += 1;
            // A segment that has left the window: the playlist tells of others.
            let may_pass = matches!(self.head.status, 404 | 410 | 503) && self.watch.is_hls();
            if !may_pass || self.failures > FAILURES_MAX {
                return Err(refusal(&self.head));
            }
            self.paths.clear();
            self.due_ns = if self.is_list { now_ns + RETRY_NS } else { u64::MAX };
            self.is_list = true;
            self.list_ns = 0;
            self.text.clear();
            self.go_on(now_ns, out);
            return Ok(());
        }
        let took_ns = now_ns.saturating_sub(self.asked_ns);
        if self.is_list {
            scene.tally.record(Measure::HlsPlaylist, took_ns);
            self.on_playlist(now_ns)?;
        } else {
            scene.tally.record(Measure::HlsSegment, took_ns);
            viewer.on_media(scene);
            viewer.on_joined(scene);
        }
        self.go_on(now_ns, out);
        Ok(())
    }

    fn on_playlist(&mut self, now_ns: u64) -> Result<(), Reason> {
        let bytes = std::mem::take(&mut self.text);
        let text = std::str::from_utf8(&bytes).map_err(|_| "playlist: is no text")?;
        let base = self.exchange.path().to_owned();
        match playlist::parse(text).map_err(|error| error.to_string())? {
            Playlist::Variants(variants) => {
                let first = variants.first().copied().unwrap_or_default();
                self.list = self.exchange.resolve(&base, first)?;
            }
            Playlist::Media(list) => {
                let uris = list.segments.iter().filter_map(|segment| segment.uri);
                let paths = uris.map(|uri| self.exchange.resolve(&base, uri));
                self.paths = paths.collect::<Result<_, _>>()?;
                self.list_ns = now_ns;
                if self.paths.is_empty() {
                    self.due_ns = now_ns + RETRY_NS;
                }
            }
        }
        Ok(())
    }

    fn go_on(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        if self.due_ns != u64::MAX && self.due_ns > now_ns {
            return;
        }
        self.due_ns = u64::MAX;
        let is_stale = self.list_ns == 0 || now_ns >= self.list_ns + LIST_NS;
        self.is_list = self.watch.is_hls() && (is_stale || self.paths.is_empty());
        self.asked_ns = now_ns;
        let path = match self.paths.get(self.next % self.paths.len().max(1)) {
            Some(path) if !self.is_list => path.clone(),
            _ => self.list.clone(),
        };
        self.next = self.next.wrapping_add(usize::from(!self.is_list));
        self.exchange.ask(path, out);
    }

    /// When it acts by itself.
    pub(super) fn due_ns(&self) -> u64 {
        if self.exchange.is_free() { self.due_ns } else { u64::MAX }
    }

    pub(super) fn on_due(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        if self.exchange.is_free() {
            self.go_on(now_ns, out);
        }
    }
}
