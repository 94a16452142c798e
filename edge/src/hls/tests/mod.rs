//! The packager without sockets and threads: rings filled by the publisher's own code, time as a number.

mod bounds;
mod folder;
mod life;
mod oracle;
mod passing;
mod playing;
mod sound;

use std::sync::Arc;

use bytes::Bytes;
use live::path::StreamPath;
use live::publisher::{Keep, Publisher, PublisherConfig};
use mux::playlist::query::Reload;
use mux::playlist::{Name, validate};
use mux::segment::Container;
use ring::{Arena, RingConfig};
use rtmp::Millis;
use rtmp::session::{MediaKind, MediaPart};

use super::packager::{Now, Packager};
use super::{Address, Beginning, HlsSettings, Rendition, Reply};
use crate::command::ConnectionId;
use crate::config::{DuplicatePublish, VhostSettings};
use crate::metrics::PackagingMetrics;
use crate::registry::{Claim, StreamEntry, StreamsMax};
use crate::shared::Shared;
use crate::storage::StorageQueue;

const UNIX_MS: u64 = 1_795_000_000_000;
const AVC_CONFIG: [u8; 27] = [
    0x17, 0, 0, 0, 0, 1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1, 0, 10, 0x67, 0x42, 0xC0, 0x1E, 0xD9, 0,
    0xA0, 0x47, 0xFE, 0xC8, 1, 0, 1, 0x68,
];
const AAC_CONFIG: [u8; 4] = [0xAF, 0, 0x11, 0x90];

/// A server's worth of streams, their publishers and a packager, on one thread.
pub(super) struct Bench {
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<PackagingMetrics>,
    pub(super) storage: StorageQueue,
    pub(super) packager: Packager,
    pub(super) now_ms: u64,
    /// Unix time when `now_ms` was 0, by the clock of the wall.
    pub(super) unix_ms: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::new(2));
        let metrics = Arc::new(PackagingMetrics::default());
        let storage = StorageQueue::default();
        let (seen, counted) = (Arc::clone(&shared), Arc::clone(&metrics));
        let (beginning, now) = (Beginning::new(), Now { mono_ms: 0, unix_ms: UNIX_MS });
        let packager = Packager::new(seen, counted, storage.clone(), || 0, beginning, now);
        Self { shared, metrics, storage, packager, now_ms: 0, unix_ms: UNIX_MS }
    }

    /// Lets `ms` pass, in turns of 10.
    pub(super) fn wait(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms = (self.now_ms + 10).min(until);
            self.turn();
        }
    }

    pub(super) fn turn(&mut self) {
        self.packager.turn(self.now());
    }

    pub(super) fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, unix_ms: self.unix_ms + self.now_ms }
    }

    pub(super) fn open(&self, stream: &Stream, settings: &HlsSettings) -> Arc<Rendition> {
        self.open_as(stream, None, settings)
    }

    pub(super) fn open_as(
        &self,
        stream: &Stream,
        container: Option<Container>,
        settings: &HlsSettings,
    ) -> Arc<Rendition> {
        self.shared.hls.open(&stream.entry, container, settings).expect("within all limits")
    }
}

/// One stream and its publisher.
pub(super) struct Stream {
    pub(super) entry: Arc<StreamEntry>,
    publisher: Option<Box<Publisher>>,
    arena: Arena,
    pub(super) timestamp: u32,
    pictures: u32,
    /// Pictures from one keyframe to the next; 0 for none but the first… and 1 for all.
    pub(super) gop: u32,
    pub(super) has_video: bool,
    pub(super) has_audio: bool,
    pub(super) picture_bytes: usize,
    pub(super) keep: Keep,
}

impl Stream {
    /// A stream of `name` whose publisher has begun, at `timestamp`.
    pub(super) fn start(bench: &Bench, name: &str, timestamp: u32) -> Self {
        let mut stream = Self::silent(bench, name, timestamp);
        stream.begin(bench);
        stream
    }

    pub(super) fn start_in(bench: &Bench, vhost: &str, name: &str, timestamp: u32) -> Self {
        let mut stream = Self::silent_in(bench, vhost, name, timestamp);
        stream.begin(bench);
        stream
    }

    pub(super) fn silent(bench: &Bench, name: &str, timestamp: u32) -> Self {
        Self::silent_in(bench, "default", name, timestamp)
    }

    fn silent_in(bench: &Bench, vhost: &str, name: &str, timestamp: u32) -> Self {
        let path = StreamPath::new(vhost, "live", name).unwrap();
        let entry = bench.shared.registry.hold(&path, StreamsMax::NONE).unwrap();
        let ring_config = RingConfig::default();
        let arena = Arena::new(&ring_config, 4);
        Self {
            entry,
            publisher: None,
            arena,
            timestamp,
            pictures: 0,
            gop: 25,
            has_video: true,
            has_audio: true,
            picture_bytes: 700,
            keep: Keep::All,
        }
    }

    pub(super) fn begin(&mut self, bench: &Bench) {
        let owner = ConnectionId { worker: 0, serial: 1 };
        let Claim::Granted(parked) = self.entry.claim(owner, DuplicatePublish::Takeover) else {
            panic!("somebody publishes")
        };
        let mut publisher = parked.unwrap_or_else(|| {
            let (writer, _ring) = ring::stream_ring(RingConfig::default());
            Box::new(Publisher::new(PublisherConfig::default(), writer))
        });
        publisher.begin_session(&mut self.arena, Millis(bench.now_ms));
        self.entry.begin(&publisher);
        self.publisher = Some(publisher);
        self.pictures = 0;
    }

    /// The next picture is a keyframe.
    pub(super) fn restart(&mut self) {
        self.pictures = 0;
    }

    /// The publisher is gone: for good if `is_clean`, else perhaps to return.
    pub(super) fn leave(&mut self, is_clean: bool) {
        let mut publisher = self.publisher.take().expect("somebody publishes");
        publisher.end_session(&mut self.arena, is_clean);
        self.entry.park(publisher, !is_clean);
    }

    /// Goes on in another process.
    pub(super) fn pass_to(mut self, bench: &mut Bench) -> Self {
        let publisher = self.publisher.take().expect("somebody publishes");
        let mut tap = publisher.writer().ring().tap();
        let view = tap.refresh();
        let from = [view.join, self.entry.kept_from()].into_iter().flatten().min();
        let from = tap.boundary_at_or_after(from.unwrap_or(view.head)).unwrap_or(view.head);
        let record = publisher.to_record(&tap, from, true);
        let (writer, _ring) = ring::stream_ring(RingConfig::default());
        let (config, now) = (PublisherConfig::default(), Millis(bench.now_ms));
        let passed = Publisher::from_record(config, writer, &record, &mut self.arena, now);
        let passed = passed.expect("a sound record");
        let path = self.entry.path().clone();
        let entry = bench.shared.registry.hold(&path, StreamsMax::NONE).unwrap();
        entry.restore(&passed, &self.entry.past());
        entry.restore_owner(ConnectionId { worker: 0, serial: 1 });
        self.entry = entry;
        self.publisher = Some(passed);
        self
    }

    pub(super) fn headers(&mut self, bench: &Bench) {
        if self.has_video {
            self.send(bench, MediaKind::Video, &AVC_CONFIG);
        }
        if self.has_audio {
            self.send(bench, MediaKind::Audio, &AAC_CONFIG);
        }
    }

    /// `ms` of media, one picture and one frame of sound every 40 ms, while the packager turns.
    pub(super) fn play(&mut self, bench: &mut Bench, ms: u64) {
        let until = bench.now_ms + ms;
        while bench.now_ms < until {
            self.frame(bench);
            bench.wait(40);
        }
    }

    /// The same without the packager.
    pub(super) fn fill(&mut self, bench: &mut Bench, ms: u64) {
        let until = bench.now_ms + ms;
        while bench.now_ms < until {
            self.frame(bench);
            bench.now_ms += 40;
        }
    }

    pub(super) fn frame(&mut self, bench: &Bench) {
        if self.has_video {
            let is_key = self.gop > 0 && self.pictures.is_multiple_of(self.gop);
            let mut body = vec![if is_key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
            let nal = self.picture_bytes + usize::from(is_key) * 300;
            body.extend_from_slice(&u32::try_from(nal).unwrap().to_be_bytes());
            body.push(if is_key { 0x65 } else { 0x41 });
            let filler = self.pictures.to_le_bytes();
            body.extend(filler.iter().copied().cycle().take(nal - 1));
            self.send(bench, MediaKind::Video, &body);
            self.pictures += 1;
        }
        if self.has_audio {
            let low = self.timestamp.to_le_bytes();
            let mut body = vec![0xAF, 1, 0x21, low[0], low[1]];
            body.resize(90, 7);
            self.send(bench, MediaKind::Audio, &body);
        }
        self.timestamp = self.timestamp.wrapping_add(40);
    }

    pub(super) fn send(&mut self, bench: &Bench, kind: MediaKind, body: &[u8]) {
        let publisher = self.publisher.as_mut().expect("somebody publishes");
        let part = MediaPart {
            msid: 1,
            audio_or_video: kind,
            timestamp: self.timestamp,
            length: u32::try_from(body.len()).unwrap(),
            csid: 6,
            offset: 0,
            body,
            first: true,
            last: true,
        };
        publisher.handle_media(&mut self.arena, &part, Millis(bench.now_ms)).unwrap();
        publisher.look(Millis(bench.now_ms));
        publisher.trim(&mut self.arena, self.keep);
    }
}

pub(super) fn settings() -> HlsSettings {
    HlsSettings::of(&VhostSettings::default())
}

/// A viewer of session 255.
pub(super) fn address<'a>(name: &'a str, query: &'a str) -> Address<'a> {
    Address { name, query, session: 0xFF }
}

pub(super) fn body(reply: Reply) -> Bytes {
    match reply {
        Reply::Ready { body, .. } => body.to_bytes(),
        other => panic!("no body: {other:?}"),
    }
}

/// The media playlist, judged.
pub(super) fn playlist(rendition: &Rendition) -> String {
    playlist_for(rendition, "")
}

pub(super) fn playlist_for(rendition: &Rendition, query: &str) -> String {
    let reload = Reload::parse(query).unwrap();
    let text = String::from_utf8(body(rendition.playlist(&reload, None)).to_vec()).unwrap();
    assert_eq!(validate::media(&text), [], "{text}");
    text
}

/// Sequence numbers of the segments listed.
pub(super) fn listed(text: &str) -> Vec<u64> {
    let names = text.lines().filter_map(|line| line.rsplit_once("/seg-").map(|(_, rest)| rest));
    names.filter(|_| true).map(|rest| rest.split('.').next().unwrap().parse().unwrap()).collect()
}

pub(super) fn segment(rendition: &Rendition, sequence: u64) -> Bytes {
    body(rendition.file(Name::Segment { sequence }))
}
