//! A player of HLS over one connection: playlist, init segments, segments or parts, one at a time.
//!
//! ```text
//!            ┌──────────────── nothing left to fetch ────────────────┐
//!            ▼                                                       │
//!  Playlist ─┬─ variants ─► Playlist of the first                    │
//!            └─ segments ─► queue ─► Init · Segment · Part ─► viewer ┘
//!                                                   Hint ─► viewer ─► Playlist
//! ```
//!
//! In segments the player begins with the third last and reads the playlist again when the next segment
//! is due. In parts it begins as far from the end as the playlist wants it, at a part that stands alone,
//! and each reload waits for the next part; with [`HlsMode::Hint`] the part itself is waited for. Playback
//! begins when three segments are here, or as much as the hold-back of the playlist: so far behind the end
//! it then stays.

use super::Reason;
use super::stream::{SILENT_NS_MAX, refusal};
use crate::container::Container;
use crate::http::{Exchange, Got, Head, HlsMode, Watch, query};
use crate::num::MS_NS;
use crate::playlist::{self, MediaList, PLAYLIST_BYTES_MAX, Playlist};
use crate::tally::Measure;
use crate::viewer::{Piece, Scene, Viewer};
use std::collections::VecDeque;
use std::sync::Arc;

/// Complete segments a player of segments begins before the end, and has when playback starts.
const BEGIN_SEGMENTS: usize = 3;
/// Requests that may fail in a row.
const FAILURES_MAX: u8 = 10;
/// After a request that failed, or a playlist without anything, until the next.
const RETRY_NS: u64 = 300 * MS_NS;
/// After a reload that did not wait and brought nothing.
const PAUSE_NS: u64 = 50 * MS_NS;
/// Shortest pause between two reloads of a player of segments.
const RELOAD_NS_MIN: u64 = 250 * MS_NS;
/// Variants that lead to variants.
const VARIANTS_MAX: u8 = 3;

/// What a request is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Asked {
    Playlist,
    /// A playlist that is held until something new is in it.
    Reload,
    Init,
    Segment,
    Part,
    /// A part that is not made yet.
    Hint,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct HlsPlayer {
    watch: Arc<Watch>,
    pub(super) exchange: Exchange,
    asked: Asked,
    asked_ns: u64,
    head: Head,
    text: Vec<u8>,
    container: Option<Container>,
    /// Of the media playlist, once it is known.
    path: Option<String>,
    variants: u8,
    queue: VecDeque<(Asked, String)>,
    /// Of the init segment that was asked for last.
    map: Option<String>,
    /// Segment and part that were not yet asked for.
    next: Option<(u64, u32)>,
    is_parts: bool,
    can_skip: bool,
    hold_back_ms: u32,
    hint: Option<String>,
    /// The part that came by its hint: the playlist is read with it.
    hinted: Option<(u64, u32)>,
    /// Segments and parts that are here.
    fetched: usize,
    is_ended: bool,
    failures: u8,
    /// When to read the playlist again; `u64::MAX`: not by time.
    reload_ns: u64,
    heard_ns: u64,
    connections: u32,
}

impl HlsPlayer {
    pub(super) fn new(watch: Arc<Watch>) -> HlsPlayer {
        HlsPlayer {
            exchange: Exchange::new(Arc::clone(&watch.authority), false),
            watch,
            asked: Asked::Playlist,
            asked_ns: 0,
            head: Head::default(),
            text: Vec::new(),
            container: None,
            path: None,
            variants: 0,
            queue: VecDeque::new(),
            map: None,
            next: None,
            is_parts: false,
            can_skip: false,
            hold_back_ms: 0,
            hint: None,
            hinted: None,
            fetched: 0,
            is_ended: false,
            failures: 0,
            reload_ns: u64::MAX,
            heard_ns: 0,
            connections: 0,
        }
    }

    pub(super) fn on_connected(
        &mut self,
        viewer: &mut Viewer,
        scene: &Scene<'_>,
        out: &mut Vec<u8>,
    ) {
        viewer.on_asked(scene);
        self.heard_ns = scene.now_ns;
        self.connections += 1;
        if self.connections == 1 {
            self.ask(Asked::Playlist, self.watch.path.clone(), scene.now_ns, out);
        }
        self.exchange.on_connected(out);
    }

    /// Bytes of the server. Appends requests to `out`.
    ///
    /// # Errors
    /// The player is over.
    pub(super) fn on_bytes(
        &mut self,
        bytes: &[u8],
        viewer: &mut Viewer,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        self.heard_ns = scene.now_ns;
        let mut input = bytes;
        while let Some(got) = self.exchange.next(&mut input, out)? {
            match got {
                Got::Head(head) => self.head = head,
                Got::Body(_) if self.head.status != 200 => {}
                Got::Body(body) => self.on_body(body, viewer, scene)?,
                Got::End => self.on_response(viewer, scene, out)?,
            }
        }
        Ok(())
    }

    fn on_body(
        &mut self,
        body: &[u8],
        viewer: &mut Viewer,
        scene: &mut Scene<'_>,
    ) -> Result<(), Reason> {
        if matches!(self.asked, Asked::Playlist | Asked::Reload) {
            if self.text.len() + body.len() > PLAYLIST_BYTES_MAX {
                return Err("playlist: is too long".into());
            }
            self.text.extend_from_slice(body);
            return Ok(());
        }
        let (Some(&first), judging) = (body.first(), scene.judging) else { return Ok(()) };
        if self.asked != Asked::Init {
            viewer.on_media(scene);
        }
        let container = self.container.get_or_insert_with(|| Container::of_segment(first));
        let tell = &mut |piece: &Piece<'_>| viewer.on_piece(piece, scene);
        container.handle_bytes(body, judging, tell).map_err(Into::into)
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

    /// A response is whole.
    fn on_response(
        &mut self,
        viewer: &mut Viewer,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let now_ns = scene.now_ns;
        scene.tally.counts.requests += 1;
        if self.head.status != 200 {
            self.on_refused(scene)?;
            return self.go_on(viewer, now_ns, out);
        }
        self.failures = 0;
        let took_ns = now_ns.saturating_sub(self.asked_ns);
        match self.asked {
            Asked::Playlist | Asked::Reload => {
                let is_reload = self.asked == Asked::Reload;
                let measure = if is_reload { Measure::HlsReload } else { Measure::HlsPlaylist };
                scene.tally.record(measure, took_ns);
                if self.on_playlist(viewer, scene, out)? {
                    return Ok(());
                }
            }
            asked => {
                let judging = scene.judging;
                let tell = &mut |piece: &Piece<'_>| viewer.on_piece(piece, scene);
                if let Some(container) = &mut self.container {
                    container.end_unit(judging, tell)?;
                }
                match asked {
                    Asked::Segment => scene.tally.record(Measure::HlsSegment, took_ns),
                    Asked::Part => scene.tally.record(Measure::HlsPart, took_ns),
                    Asked::Hint => {
                        self.hinted = self.next;
                        self.next = self.next.map(|(msn, part)| (msn, part + 1));
                    }
                    _ => {}
                }
                self.fetched += usize::from(asked != Asked::Init);
            }
        }
        self.go_on(viewer, now_ns, out)
    }

    /// A response other than the one wanted.
    fn on_refused(&mut self, scene: &mut Scene<'_>) -> Result<(), Reason> {
        let status = self.head.status;
        scene.tally.note_status(&format!("http {status}"));
        self.failures += 1;
        let may_pass = matches!(status, 404 | 410 | 503 | 504);
        if !may_pass || self.failures > FAILURES_MAX {
            return Err(refusal(&self.head));
        }
        match self.asked {
            // The segment ended before such a part: the playlist tells what there is instead.
            Asked::Hint => self.hint = None,
            Asked::Playlist | Asked::Reload => self.reload_ns = scene.now_ns + RETRY_NS,
            Asked::Init | Asked::Segment | Asked::Part => {}
        }
        Ok(())
    }

    /// A playlist is whole. True when another one was asked for in its place.
    fn on_playlist(
        &mut self,
        viewer: &mut Viewer,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Reason> {
        let bytes = std::mem::take(&mut self.text);
        let text = std::str::from_utf8(&bytes).map_err(|_| "playlist: is no text")?;
        match playlist::parse(text).map_err(|error| error.to_string())? {
            Playlist::Variants(variants) => {
                self.variants += 1;
                if self.variants > VARIANTS_MAX {
                    return Err("playlist: variants without end".into());
                }
                let first = variants.first().copied().unwrap_or_default();
                let path = self.exchange.resolve(self.exchange.path(), first)?;
                self.ask(Asked::Playlist, path, scene.now_ns, out);
                return Ok(true);
            }
            Playlist::Media(list) => {
                if self.path.is_none() {
                    self.path = Some(self.exchange.path().to_owned());
                }
                if !list.segments.is_empty() {
                    viewer.on_joined(scene);
                }
                self.take_list(&list, scene.now_ns)?;
                if list.ended {
                    self.is_ended = true;
                    viewer.on_ended();
                }
            }
        }
        self.text = bytes;
        self.text.clear();
        Ok(false)
    }

    /// Queues what is new, and decides when to look again.
    fn take_list(&mut self, list: &MediaList<'_>, now_ns: u64) -> Result<(), Reason> {
        let wants_parts = self.watch.hls != HlsMode::Segments;
        let part_target_ms = list.part_target_ms.filter(|_| wants_parts && list.can_block);
        self.is_parts = part_target_ms.is_some();
        self.can_skip = list.can_skip;
        let three_parts = part_target_ms.unwrap_or(0).saturating_mul(3);
        self.hold_back_ms = list.part_hold_back_ms.unwrap_or(three_parts);
        self.hint = match (list.hint, self.watch.hls) {
            (Some(hint), HlsMode::Hint) => Some(self.found(hint)?),
            _ => None,
        };
        let was_hinted = self.hinted.take().is_some();
        let begin = self.next.or_else(|| first_to_play(list, self.is_parts, self.hold_back_ms));
        let Some(begin) = begin else {
            self.reload_ns = now_ns + RETRY_NS;
            return Ok(());
        };
        let queued = self.queue.len();
        self.queue_from(list, begin)?;
        let is_new = self.queue.len() > queued;
        let mut complete = list.segments.iter().filter(|segment| segment.uri.is_some());
        let last_ms = complete.next_back().map_or(list.target_ms, |last| last.duration_ms);
        let due_ms = last_ms.min(list.target_ms);
        self.reload_ns = match (self.is_parts, is_new) {
            (true, true) => u64::MAX,
            (true, false) if was_hinted || self.hint.is_some() => u64::MAX,
            (true, false) => now_ns + PAUSE_NS,
            // From when it was asked for, as players do.
            (false, true) => self.asked_ns + (u64::from(due_ms) * MS_NS).max(RELOAD_NS_MIN),
            (false, false) => now_ns + (u64::from(due_ms) * MS_NS / 2).max(RELOAD_NS_MIN),
        };
        Ok(())
    }

    fn queue_from(&mut self, list: &MediaList<'_>, begin: (u64, u32)) -> Result<(), Reason> {
        let mut next = begin;
        for segment in list.segments.iter().filter(|segment| segment.msn >= begin.0) {
            let from = if segment.msn == begin.0 { begin.1 } else { 0 };
            let is_in_parts = self.is_parts && !segment.parts.is_empty();
            let parts = if is_in_parts { &segment.parts[..] } else { &[] };
            let is_whole = !is_in_parts && from == 0;
            let whole = segment.uri.filter(|_| is_whole);
            let wanted = parts.get(from as usize..).unwrap_or_default();
            if let (Some(map), true) = (segment.map, whole.is_some() || !wanted.is_empty()) {
                let map = self.found(map)?;
                if self.map.as_ref() != Some(&map) {
                    self.map = Some(map.clone());
                    self.queue.push_back((Asked::Init, map));
                }
            }
            for part in wanted {
                let path = self.found(part.uri)?;
                self.queue.push_back((Asked::Part, path));
            }
            if let Some(uri) = whole {
                let path = self.found(uri)?;
                self.queue.push_back((Asked::Segment, path));
            }
            if segment.uri.is_some() {
                next = (segment.msn + 1, 0);
            } else if is_in_parts {
                let count = u32::try_from(segment.parts.len()).unwrap_or(u32::MAX);
                next = (segment.msn, count.max(from));
            }
        }
        self.next = Some(next);
        Ok(())
    }

    /// The path of something named in the playlist.
    fn found(&self, reference: &str) -> Result<String, Reason> {
        self.exchange.resolve(self.path.as_deref().unwrap_or_default(), reference)
    }

    /// Asks for the next thing, or waits for its time.
    fn go_on(&mut self, viewer: &mut Viewer, now_ns: u64, out: &mut Vec<u8>) -> Result<(), Reason> {
        if self.is_parts && self.queue.is_empty() {
            viewer.playout.start(now_ns, Some(self.hold_back_ms));
        } else if !self.is_parts && self.fetched >= BEGIN_SEGMENTS {
            viewer.playout.start(now_ns, None);
        }
        if let Some((asked, path)) = self.queue.pop_front() {
            self.ask(asked, path, now_ns, out);
            return Ok(());
        }
        if self.is_ended {
            self.reload_ns = u64::MAX;
            return Ok(());
        }
        if self.reload_ns != u64::MAX {
            if self.reload_ns <= now_ns {
                self.ask_playlist(now_ns, out);
            }
            return Ok(());
        }
        match self.hint.take() {
            Some(hint) if self.hinted.is_none() => self.ask(Asked::Hint, hint, now_ns, out),
            _ => self.ask_playlist(now_ns, out),
        }
        Ok(())
    }

    fn ask_playlist(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        self.reload_ns = u64::MAX;
        let path = self.path.clone().unwrap_or_else(|| self.watch.path.clone());
        let wanted = self.hinted.or(self.next).filter(|_| self.is_parts);
        let Some((msn, part)) = wanted else {
            return self.ask(Asked::Playlist, path, now_ns, out);
        };
        let skip = if self.can_skip { "&_HLS_skip=YES" } else { "" };
        let path = query(&path, &format!("_HLS_msn={msn}&_HLS_part={part}{skip}"));
        // What came by its hint is in the playlist already.
        let asked = if self.hinted.is_some() { Asked::Playlist } else { Asked::Reload };
        self.ask(asked, path, now_ns, out);
    }

    fn ask(&mut self, asked: Asked, path: String, now_ns: u64, out: &mut Vec<u8>) {
        (self.asked, self.asked_ns, self.heard_ns) = (asked, now_ns, now_ns);
        if asked == Asked::Init {
            self.container = Some(Container::fmp4());
        }
        self.text.clear();
        self.exchange.ask(path, out);
    }

    /// When it acts by itself.
    pub(super) fn due_ns(&self) -> u64 {
        if self.exchange.is_free() { self.reload_ns } else { u64::MAX }
    }

    pub(super) fn on_due(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        if self.exchange.is_free() && self.reload_ns <= now_ns {
            self.ask_playlist(now_ns, out);
        }
    }

    /// # Errors
    /// The server owes an answer for too long.
    pub(super) fn on_tick(&self, now_ns: u64) -> Result<(), Reason> {
        let is_owed = !self.exchange.is_free();
        let is_silent = is_owed && now_ns > self.heard_ns + SILENT_NS_MAX;
        if is_silent { Err("the server is silent".into()) } else { Ok(()) }
    }
}

/// Where a player begins; `None` if there is nothing to begin with.
fn first_to_play(list: &MediaList<'_>, is_parts: bool, hold_back_ms: u32) -> Option<(u64, u32)> {
    if !is_parts {
        let complete: Vec<u64> = list
            .segments
            .iter()
            .filter(|segment| segment.uri.is_some())
            .map(|segment| segment.msn)
            .collect();
        let at = complete.len().saturating_sub(BEGIN_SEGMENTS);
        return complete.get(at).map(|&msn| (msn, 0));
    }
    let mut back_ms = 0;
    let mut earliest = None;
    for segment in list.segments.iter().rev() {
        if segment.parts.is_empty() {
            back_ms += segment.duration_ms;
            earliest = Some((segment.msn, 0));
            if back_ms >= hold_back_ms {
                return earliest;
            }
            continue;
        }
        for (number, part) in segment.parts.iter().enumerate().rev() {
            back_ms += part.duration_ms;
            if part.independent {
                earliest = Some((segment.msn, u32::try_from(number).unwrap_or(u32::MAX)));
                if back_ms >= hold_back_ms {
                    return earliest;
                }
            }
        }
    }
    earliest
}

#[cfg(test)]
mod tests;
