//! One rendition as requests see it: playlists, segments, parts, init segments, viewers.
//!
//! Never waits and never copies media: an answer is a counted reference to bytes the packager made.
//! Called by workers; [`Rendition::publish`] by the packager alone.

use std::fmt::Write as _;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use live::path::StreamPath;
use mux::playlist::multivariant::{self, Variant};
use mux::playlist::query::{Answer, Reload};
use mux::playlist::{Name, Names, Report};
use mux::segment::Container;
use uring::SharedBytes;

use super::settings::HlsSettings;
use super::snapshot::{Facts, Snapshot};
use super::viewers::{EXPIRY_TARGETS, Viewers};
use super::{Numbers, locked};
use crate::access::quota::Place;

const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
/// Names of segments are new with each run of the packager, so what they stand for never changes.
const CACHE_FILE: &str = "public, max-age=31536000, immutable";
/// Every viewer has a multivariant playlist of its own.
const CACHE_MULTIVARIANT: &str = "no-store";
/// A playlist changes with each segment: one that is a second old is good enough for a crowd.
const CACHE_PLAYLIST: &str = "public, max-age=1";
/// The answer to a blocking reload holds what was asked for, however often it is given.
const CACHE_RELOAD: &str = "public, max-age=12";
/// With parts a playlist changes several times a second.
const CACHE_PARTS: &str = "no-cache";

/// Which rendition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RenditionKey {
    /// The stream.
    pub path: StreamPath,
    /// What its segments are made of.
    pub container: Container,
}

/// An answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// 200.
    Ready {
        /// The body, shared by all who ask.
        body: SharedBytes,
        /// What follows it for this viewer alone; empty but for playlists that report another rendition.
        tail: String,
        /// `Content-Type`.
        content_type: &'static str,
        /// `Cache-Control`.
        cache_control: &'static str,
    },
    /// Not there yet: ask again when [`Rendition::version`] has changed.
    Wait,
    /// 404.
    NotFound,
    /// 410: it was there.
    Gone,
    /// 400, with the reason.
    BadRequest(&'static str),
    /// 503, with the reason: later perhaps.
    Unavailable(&'static str),
}

/// A viewer's address of a playlist, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address<'a> {
    /// The last part of the path, without suffix and as it was sent.
    pub name: &'a str,
    /// What it asked with, which travels along.
    pub query: &'a str,
    /// Its session.
    pub session: u64,
}

/// One rendition. Shared by workers and packager.
#[derive(Debug)]
pub struct Rendition {
    key: RenditionKey,
    number: u64,
    has_parts: bool,
    /// This is the sound alone, beside another rendition.
    is_sound: bool,
    /// The sound alone, beside this rendition.
    sound: Option<Arc<Rendition>>,
    snapshot: ArcSwap<Snapshot>,
    version: AtomicU64,
    /// Counts requests, so that the packager sees whether somebody is there.
    asked: AtomicU64,
    /// Requests that wait for what is still to come.
    held: AtomicU64,
    /// A viewer may load both renditions of a stream, and is one.
    viewers: Arc<Mutex<Viewers>>,
}

impl Rendition {
    /// A rendition, with the sound alone beside it where the settings want that; `number` makes numbers.
    pub(super) fn new(key: RenditionKey, number: impl Fn() -> u64, settings: &HlsSettings) -> Self {
        Self::with_numbers(key, (number(), number()), settings)
    }

    /// The same with these numbers, of the whole and of the sound alone.
    pub(super) fn with_numbers(
        key: RenditionKey,
        (main, alone): (u64, u64),
        settings: &HlsSettings,
    ) -> Self {
        let viewers = Arc::default();
        let one = |is_sound, sound| Self {
            has_parts: settings.has_parts(key.container),
            key: key.clone(),
            number: if is_sound { alone } else { main },
            is_sound,
            sound,
            snapshot: ArcSwap::default(),
            version: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            held: AtomicU64::new(0),
            viewers: Arc::clone(&viewers),
        };
        let sound = settings.is_audio_only_offered.then(|| Arc::new(one(true, None)));
        one(false, sound)
    }

    /// The sound alone, beside this one.
    pub fn sound(&self) -> Option<&Arc<Self>> {
        self.sound.as_ref()
    }

    /// True for the sound alone beside another rendition.
    pub fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Which one it is.
    pub fn key(&self) -> &RenditionKey {
        &self.key
    }

    /// The number its segments are found under, see [`Hls::by_key`](super::Hls::by_key).
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Changes with each part, segment and end: whoever got [`Reply::Wait`] asks again then.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// True if nothing will follow.
    pub fn is_ended(&self) -> bool {
        self.snapshot.load().is_ended
    }

    /// The multivariant playlist for a new viewer: this rendition, and the sound alone behind it.
    pub fn multivariant(&self, address: &Address<'_>) -> Reply {
        self.ask();
        let snapshot = self.snapshot.load();
        if snapshot.is_closed {
            return Reply::Gone;
        }
        if snapshot.playlists.is_none() {
            return if snapshot.is_ended { Reply::NotFound } else { Reply::Wait };
        }
        let facts = &snapshot.facts;
        let uri = self.uri(address, self.is_sound);
        let sound = self.sound.as_ref().map(|sound| (self.uri(address, true), sound.snapshot()));
        let mut variants = vec![variant(&uri, facts)];
        if let Some((uri, sound)) = &sound
            && sound.playlists.is_some()
        {
            variants.push(variant(uri, &sound.facts));
        }
        let mut text = String::with_capacity(512 + 2 * uri.len());
        multivariant::write(&variants, facts.is_independent, &mut text);
        ready(text, PLAYLIST_TYPE, CACHE_MULTIVARIANT)
    }

    /// The media playlist, with a report of the other rendition for a viewer at `address`.
    pub fn playlist(&self, reload: &Reload, address: Option<&Address<'_>>) -> Reply {
        self.ask();
        let snapshot = self.snapshot.load();
        if snapshot.is_closed {
            return Reply::Gone;
        }
        let Some(playlists) = &snapshot.playlists else {
            let is_none = snapshot.is_ended || snapshot.is_absent;
            return if is_none { Reply::NotFound } else { Reply::Wait };
        };
        // Without parts nobody was told that reloads may block.
        let is_blocking = self.has_parts && reload.msn.is_some();
        if is_blocking && !snapshot.is_ended {
            match reload.answer_at(snapshot.edge) {
                Answer::Now => {}
                Answer::Wait => return Reply::Wait,
                Answer::TooFar => return Reply::BadRequest("_HLS_msn is far ahead of the stream"),
            }
        }
        let cache_control = match (is_blocking, self.has_parts) {
            (true, _) => CACHE_RELOAD,
            (false, true) => CACHE_PARTS,
            (false, false) => CACHE_PLAYLIST,
        };
        let is_delta = self.has_parts && reload.skip && !playlists.delta.is_empty();
        let body = if is_delta { &playlists.delta } else { &playlists.full };
        Reply::Ready {
            body: body.clone().into(),
            tail: address.map_or_else(String::new, |address| self.report(&snapshot, address)),
            content_type: PLAYLIST_TYPE,
            cache_control,
        }
    }

    /// Where the other rendition stands. Its address is the viewer's own, so that its permission and its
    /// session travel along; so the line is no part of the playlist that all viewers share.
    fn report(&self, snapshot: &Snapshot, address: &Address<'_>) -> String {
        let mut line = String::new();
        let Some(edge) = snapshot.other_edge.filter(|_| self.has_parts && !snapshot.is_ended)
        else {
            return line;
        };
        let uri = self.uri(address, !self.is_sound);
        if let Some(report) = Report::at(&uri, edge) {
            report.write(&mut line);
        }
        line
    }

    /// The address of a media playlist, relative to that of the others.
    fn uri(&self, address: &Address<'_>, is_sound: bool) -> String {
        let Address { name, query, session } = *address;
        let escaped;
        let name = if is_clean(name) && !name.contains([':', '/']) {
            name
        } else {
            escaped = escaped_name(&self.key.path);
            &escaped
        };
        let mut uri = String::with_capacity(name.len() + query.len() + 64);
        uri.push_str(name);
        uri.push_str(".m3u8?");
        if is_clean(query) && !query.is_empty() {
            uri.push_str(query);
            uri.push('&');
        }
        // Writing to a string cannot fail.
        let _infallible = write!(uri, "session={session:016x}");
        if is_sound {
            uri.push_str("&rendition=audio");
        }
        uri
    }

    /// An init segment, a segment or a part. [`Reply::Wait`] for the part that comes next.
    pub fn file(&self, name: Name) -> Reply {
        self.ask();
        let snapshot = self.snapshot.load();
        if snapshot.is_closed {
            return Reply::Gone;
        }
        let content_type = match (self.key.container, self.is_sound) {
            (Container::Ts, _) => "video/mp2t",
            (Container::Fmp4, false) => "video/mp4",
            (Container::Fmp4, true) => "audio/mp4",
        };
        let found = match name {
            Name::Init { generation } => {
                let found = snapshot.inits.iter().find(|(number, _)| *number == generation);
                found.map(|(_, bytes)| bytes)
            }
            Name::Segment { sequence } => match snapshot.segment(sequence) {
                Some(stored) => Some(&stored.bytes),
                None if snapshot.is_past(sequence) => return Reply::Gone,
                None => None,
            },
            Name::Part { sequence, part } if self.has_parts => {
                match find_part(&snapshot, sequence, part) {
                    Ok(bytes) => Some(bytes),
                    Err(reply) => return reply,
                }
            }
            Name::Part { .. } => None,
        };
        found.map_or(Reply::NotFound, |bytes| ready(bytes.clone(), content_type, CACHE_FILE))
    }

    /// Notes that a viewer asked for a playlist; true if it is a new one. It is forgotten, and its place
    /// in the quotas given back, when it has not asked for three target durations.
    pub fn note_viewer(&self, token: u64, mono_ms: u64, place: Option<Place>) -> bool {
        locked(&self.viewers).note(token, mono_ms, place)
    }

    /// True for a viewer that has a place already.
    pub fn knows_viewer(&self, token: u64) -> bool {
        locked(&self.viewers).knows(token)
    }

    /// True once a playlist could be answered.
    pub fn has_begun(&self) -> bool {
        self.snapshot.load().playlists.is_some()
    }

    /// Viewers now.
    pub fn viewers(&self) -> usize {
        locked(&self.viewers).len()
    }

    /// Packager: forgets viewers that are gone.
    pub(super) fn expire_viewers(&self, mono_ms: u64) {
        let target_ms = u64::from(self.snapshot.load().target_ms.max(1000));
        locked(&self.viewers).expire(mono_ms.saturating_sub(EXPIRY_TARGETS * target_ms));
    }

    /// Packager: how many requests there were.
    pub(super) fn asked(&self) -> u64 {
        let sound = self.sound.as_ref().map_or(0, |sound| sound.asked());
        self.asked.load(Ordering::Relaxed).wrapping_add(sound)
    }

    /// Packager: whether a request waits.
    pub(super) fn is_held(&self) -> bool {
        let is_sound_held = self.sound.as_ref().is_some_and(|sound| sound.is_held());
        is_sound_held || self.held.load(Ordering::Relaxed) > 0
    }

    /// Packager: what is answered from now on.
    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        // Release: who sees the new version finds the new snapshot.
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(super) fn has_parts(&self) -> bool {
        self.has_parts
    }

    /// Where the next run of this rendition begins: not in a segment of which parts were shown.
    pub(super) fn numbers(&self) -> Numbers {
        let snapshot = self.snapshot.load();
        let shown = u64::from(!snapshot.open_parts.is_empty());
        Numbers {
            sequence: snapshot.edge.next_msn + shown,
            discontinuities: snapshot.discontinuities,
            target_ms: snapshot.target_ms,
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Folder of the segments, relative to the playlist, as in a URL.
    pub(super) fn prefix(&self) -> String {
        format!("{}/{:016x}/", escaped_name(&self.key.path), self.number)
    }

    /// How segments are called in playlists.
    pub(super) fn names<'p>(&self, prefix: &'p str) -> Names<'p> {
        Names { container: self.key.container, prefix, query: "" }
    }

    fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }
}

/// A rendition that somebody asks something of. As long as this is there, packaging does not end for want of
/// viewers.
#[derive(Debug)]
pub struct HeldRendition(Arc<Rendition>);

impl HeldRendition {
    /// Holds it.
    pub fn new(rendition: Arc<Rendition>) -> Self {
        rendition.held.fetch_add(1, Ordering::Relaxed);
        Self(rendition)
    }
}

impl Deref for HeldRendition {
    type Target = Arc<Rendition>;

    fn deref(&self) -> &Arc<Rendition> {
        &self.0
    }
}

impl Drop for HeldRendition {
    fn drop(&mut self) {
        // From now on it may be idle, not since it was asked.
        self.0.ask();
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

fn find_part(snapshot: &Snapshot, sequence: u64, part: u32) -> Result<&SharedBytes, Reply> {
    let edge = snapshot.edge;
    let at = usize::try_from(part).unwrap_or(usize::MAX);
    if let Some(stored) = snapshot.segment(sequence) {
        if let Some(bytes) = stored.parts.get(at) {
            return Ok(bytes);
        }
    } else if snapshot.is_past(sequence) {
        return Err(Reply::Gone);
    } else if sequence == edge.next_msn {
        if let Some(bytes) = snapshot.open_parts.get(at) {
            return Ok(bytes);
        }
        if part == edge.next_part && !snapshot.is_ended {
            return Err(Reply::Wait);
        }
    }
    Err(Reply::NotFound)
}

fn ready(
    body: impl Into<SharedBytes>,
    content_type: &'static str,
    cache_control: &'static str,
) -> Reply {
    Reply::Ready { body: body.into(), tail: String::new(), content_type, cache_control }
}

fn variant<'a>(uri: &'a str, facts: &'a Facts) -> Variant<'a> {
    let Facts { codecs, bandwidth, resolution, .. } = facts;
    Variant { uri, bandwidth: *bandwidth, codecs, resolution: *resolution }
}

/// Nothing that ends a line, a quoted string or an address.
fn is_clean(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

/// The stream's name as it is written in a URL.
fn escaped_name(path: &StreamPath) -> String {
    let mut url = String::new();
    // Writing to a string cannot fail.
    let _infallible = write!(url, "{}", path.url_path());
    match url.rsplit_once('/') {
        Some((_, name)) => name.to_owned(),
        None => url,
    }
}
