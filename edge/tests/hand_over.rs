//! Streams and subscribers as records: a stream that goes on from its record is the stream it was, whatever
//! the moment; and no record, however wrong, is a panic.

use edge::hand_over::packaging::{
    BytesRecord, PackagingRecord, PlaceRecord, RunRecord, SegmentRecord, ShelfRecord,
};
use edge::hand_over::record::{
    ConnectionRecord, Door, FramingKind, FramingRecord, HttpRecord, Legacy, LiveRecord,
    LiveViewRecord, PathRecord, PermitRecord, PublishRecord, RenditionRecord, SpokenRecord,
    TransportRecord, VERSION, WorkerRecord,
};
use live::path::StreamPath;
use live::publisher::{Publisher, PublisherConfig};
use live::record::{PublisherRecord, RingRecord, SubscriberRecord, SubscriberState};
use live::subscriber::{Selection, Subscriber, SubscriberConfig};
use mux::playlist::window::{Window, WindowSettings};
use mux::segment::{Container, Output, Segmenter, Settings};
use mux::wrap::Wrap;
use proptest::prelude::*;
use ring::{Arena, Position, RingConfig, StreamRing, stream_ring};
use rtmp::Millis;
use rtmp::session::{MediaKind, MediaPart, ServerSession, SessionConfig};
use tls::{ControlRecord, FactsRecord, Secret, SessionRecord};

fn ring_config() -> RingConfig {
    RingConfig { segment_bytes: 64 * 1024, bytes_max: 4 << 20, slots: 64, ..RingConfig::default() }
}

/// A part of a message as a publisher sends it.
#[derive(Clone, Debug)]
struct Part {
    media: MediaKind,
    timestamp: u32,
    body: Vec<u8>,
    offset: usize,
    bytes: usize,
}

/// A picture and a sound that come behind everything else.
fn last_parts() -> Vec<Part> {
    let mut last = parts(&[(5, 10), (3, 10)], 0);
    last.iter_mut().for_each(|part| part.timestamp += 1_000);
    last
}

/// Messages of a stream with headers and keyframes, cut into parts; audio may come between the parts of a
/// video.
fn parts(sizes: &[(u8, u16)], cuts: u8) -> Vec<Part> {
    let mut parts = Vec::new();
    for (number, &(what, size)) in (0_u32..).zip(sizes) {
        let (media, mut body) = match what % 8 {
            0 => (MediaKind::Video, vec![0x17, 1, 0, 0, 0]),
            1 => (MediaKind::Video, vec![0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 30, 0xff, 0xe1, 0, 0]),
            2 => (MediaKind::Audio, vec![0xaf, 0, 0x12, 0x10]),
            3 | 4 => (MediaKind::Audio, vec![0xaf, 1]),
            _ => (MediaKind::Video, vec![0x27, 1, 0, 0, 0]),
        };
        body.extend((0..size).map(|at| at.to_le_bytes()[0] ^ what));
        let timestamp = number * 10;
        let pieces = usize::from(cuts % 3) + 1;
        let step = body.len().div_ceil(pieces);
        for offset in (0..body.len()).step_by(step) {
            let bytes = step.min(body.len() - offset);
            parts.push(Part { media, timestamp, body: body.clone(), offset, bytes });
        }
    }
    // Audio moves up between the parts of what came before it.
    for at in 1..parts.len() {
        let (before, this) = (&parts[at - 1], &parts[at]);
        let is_whole = this.offset == 0 && this.bytes == this.body.len();
        if cuts & 4 != 0 && is_whole && before.media != this.media && before.offset > 0 {
            parts.swap(at - 1, at);
        }
    }
    parts
}

fn feed(publisher: &mut Publisher, arena: &mut Arena, part: &Part, now: Millis) {
    let end = part.offset + part.bytes;
    let result = publisher.handle_media(
        arena,
        &MediaPart {
            msid: 1,
            audio_or_video: part.media,
            timestamp: part.timestamp,
            length: u32::try_from(part.body.len()).unwrap(),
            csid: if part.media == MediaKind::Audio { 4 } else { 6 },
            offset: u32::try_from(part.offset).unwrap(),
            body: &part.body[part.offset..end],
            first: part.offset == 0,
            last: end == part.body.len(),
        },
        now,
    );
    result.unwrap();
}

/// Everything a reader sees of a ring from a position on.
fn seen(ring: &StreamRing, from: Position) -> impl PartialEq + std::fmt::Debug {
    let mut tap = ring.tap();
    let view = tap.refresh();
    let messages: Vec<_> = tap.messages_from(from).collect();
    let mut bytes = Vec::new();
    let mut at = from;
    while let Some(lease) = tap.lease(at, usize::MAX) {
        at = Position(at.0 + lease.len() as u64);
        bytes.extend_from_slice(&lease);
    }
    let kept = |p: ring::Preamble| (p.version, p.valid_from, p.bytes.to_vec());
    // An older preamble keeps its place, not its number: see the worker's export.
    let older = |p: ring::Preamble| (p.valid_from, p.bytes.to_vec());
    let join = tap.join_point().map(|join| (join.position, join.preamble.map(older)));
    let preamble = tap.preamble().map(kept);
    // Before the position nobody looks.
    (messages, bytes, join, preamble, view.head, view.flush_mark.max(from))
}

fn begin(arena: &mut Arena) -> Publisher {
    let (writer, _) = stream_ring(ring_config());
    let mut publisher = Publisher::new(PublisherConfig::default(), writer);
    publisher.begin_session(arena, Millis(0));
    publisher
}

fn export(publisher: &Publisher) -> (Position, Vec<u8>) {
    let mut tap = publisher.writer().ring().tap();
    let view = tap.refresh();
    let from = view.join.unwrap_or(view.head);
    let record = publisher.to_record(&tap, from, true);
    (from, postcard::to_allocvec(&record).unwrap())
}

fn import(bytes: &[u8], arena: &mut Arena) -> Option<Box<Publisher>> {
    let record: PublisherRecord = postcard::from_bytes(bytes).ok()?;
    let (writer, _) = stream_ring(ring_config());
    let config = PublisherConfig::default();
    Publisher::from_record(config, writer, &record, arena, Millis(0)).ok()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_stream_goes_on_from_its_record_as_if_nothing_had_been(
        sizes in prop::collection::vec((any::<u8>(), 0_u16..3_000), 1..40),
        cuts in any::<u8>(),
        at in any::<prop::sample::Index>(),
    ) {
        let mut arena = Arena::new(&ring_config(), 4);
        let parts = parts(&sizes, cuts);
        let at = at.index(parts.len() + 1);
        let mut publisher = begin(&mut arena);
        for part in &parts[..at] {
            feed(&mut publisher, &mut arena, part, Millis(u64::from(part.timestamp)));
        }
        let (from, bytes) = export(&publisher);
        let mut other = import(&bytes, &mut arena).expect("a sound record");
        let rings = [publisher.writer().ring(), other.writer().ring()];
        prop_assert_eq!(seen(&rings[0], from), seen(&rings[1], from));
        // What the tags of media alone tell is known again with the next of them.
        for part in parts[at..].iter().chain(&last_parts()) {
            let now = Millis(u64::from(part.timestamp));
            feed(&mut publisher, &mut arena, part, now);
            feed(&mut other, &mut arena, part, now);
        }
        prop_assert_eq!(seen(&rings[0], from), seen(&rings[1], from));
        prop_assert_eq!(publisher.facts(), other.facts());
        prop_assert_eq!(publisher.timeline().newest(), other.timeline().newest());
    }

    #[test]
    fn a_record_cut_or_changed_anywhere_is_no_panic(
        sizes in prop::collection::vec((any::<u8>(), 0_u16..300), 1..12),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut arena = Arena::new(&ring_config(), 4);
        let mut publisher = begin(&mut arena);
        let parts = parts(&sizes, 1);
        for part in &parts[..parts.len() - 1] {
            feed(&mut publisher, &mut arena, part, Millis(u64::from(part.timestamp)));
        }
        let (_, mut bytes) = export(&publisher);
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = value;
        }
        if let Some(mut other) = import(&bytes, &mut arena) {
            let _ = seen(&other.writer().ring(), Position(0));
            feed(&mut other, &mut arena, &parts[parts.len() - 1], Millis(1_000));
        }
    }
}

#[test]
fn a_subscriber_goes_on_where_it_stood_and_the_rest_of_its_message_goes_first() {
    let mut arena = Arena::new(&ring_config(), 4);
    let mut publisher = begin(&mut arena);
    let parts = parts(&[(1, 4), (2, 0), (0, 2_000), (5, 900), (3, 50)], 0);
    for part in &parts {
        feed(&mut publisher, &mut arena, part, Millis(u64::from(part.timestamp)));
    }
    let mut tap = publisher.writer().ring().tap();
    let head = tap.refresh();
    let join = head.join.unwrap();
    let whole = tap.lease(join, usize::MAX).unwrap();
    for taken in 1..whole.len() {
        let now = Millis(1);
        let mut subscriber = Subscriber::new(Selection::all(1), now);
        let config = SubscriberConfig::default();
        subscriber.poll_join(&config, &tap, &head, true, now).unwrap();
        let mut sent = 0;
        while sent < taken {
            let lease = subscriber.next_lease(&tap).unwrap();
            let bytes = lease.len().min(taken - sent);
            subscriber.on_sent(&tap, &lease, bytes, now);
            sent += bytes;
        }
        let rest = if subscriber.is_mid_message() { subscriber.take_rest(&tap) } else { None };
        let mut got = whole[..taken].to_vec();
        got.extend_from_slice(rest.as_deref().unwrap_or_default());
        let bytes = postcard::to_allocvec(&subscriber.to_record()).unwrap();
        let record: SubscriberRecord = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(record.state, SubscriberState::Flowing);
        let mut other = Subscriber::from_record(&record);
        while let Some(lease) = other.next_lease(&tap) {
            got.extend_from_slice(&lease);
            other.on_sent(&tap, &lease, lease.len(), now);
        }
        assert_eq!(got, *whole, "{taken} bytes taken before");
    }
}

fn facts() -> FactsRecord {
    FactsRecord {
        is_tls13: true,
        suite: "TLS13_AES_128_GCM_SHA256".to_owned(),
        resumed: false,
        sni: Some("a.example".to_owned()),
        alpn: None,
    }
}

/// Keys are made by sessions only; these are none.
fn secret(byte: u8) -> Secret {
    postcard::from_bytes(&[2, byte, byte]).unwrap()
}

fn control() -> ControlRecord {
    ControlRecord {
        is_client: false,
        message: vec![24],
        key_updates_left: 32,
        events_left: 64,
        received_bytes: 1,
        records_sent: 2,
        next_send: vec![secret(1)],
        next_receive: vec![secret(2)],
    }
}

fn records() -> TransportRecord {
    let (send, receive) = (secret(3), secret(4));
    let incoming = vec![23, 3, 3];
    let record = SessionRecord { facts: facts(), send, receive, control: control(), incoming };
    TransportRecord::Records(Box::new(record))
}

fn kernel() -> TransportRecord {
    TransportRecord::Kernel { facts: facts(), control: Box::new(control()), must_update_send: true }
}

fn viewer() -> HttpRecord {
    let framing = FramingKind::Flv(Wrap::Chunk);
    HttpRecord {
        live: Some(LiveViewRecord { framing, audio: true, video: false, has_begun: true }),
        since: 1,
        replies: vec![2],
        keep_alive: false,
        requests: 3,
        status: 200,
        user_agent: Some("player".to_owned()),
    }
}

fn framing(path: &PathRecord) -> FramingRecord {
    let mut segmenter = Segmenter::new(Settings::new(Container::Fmp4));
    let mut out = Output::default();
    for (number, part) in (0..).zip(parts(&[(1, 4), (2, 0), (0, 20), (3, 5), (5, 9)], 0)) {
        let kind = part.media.type_id();
        segmenter.push(kind, number * 40, &part.body, 1_000, &mut out);
    }
    FramingRecord {
        number: 3,
        path: path.clone(),
        kind: FramingKind::Fmp4(Wrap::WebSocket),
        ring: RingRecord { start: 7, ..RingRecord::default() },
        cursor: 8,
        preamble_version: 1,
        keyframe: Some(7),
        newest_timestamp: 9,
        is_broken: false,
        tracks: (true, true),
        ends: (1, 2),
        segmenter: postcard::to_allocvec(&segmenter).unwrap(),
    }
}

fn rendition(path: PathRecord) -> RenditionRecord {
    let container = Container::Fmp4;
    RenditionRecord { path, container, sequence: 5, discontinuities: 1, target_ms: 2_000 }
}

fn run(path: PathRecord) -> RunRecord {
    let settings = Settings { sound_alone: true, ..Settings::new(Container::Ts) };
    let mut segmenter = Segmenter::following(settings, 5);
    let mut window = Window::following(WindowSettings::default(), 5, 1);
    let mut out = Output::default();
    let tags = parts(&[(1, 4), (2, 0), (0, 20), (3, 5), (5, 9), (0, 9), (3, 5)], 0);
    for (number, part) in (0..).zip(tags) {
        segmenter.push(part.media.type_id(), number * 500, &part.body, 1_000, &mut out);
    }
    for event in &out.events {
        window.apply(event);
    }
    let file = |offset| BytesRecord::File { file: 0, offset, count: 60_000 };
    let shelf = |bytes, open| ShelfRecord {
        window: window.clone(),
        segments: vec![SegmentRecord { sequence: 5, bytes, part_ends: vec![20, 60_000] }],
        inits: vec![(1, BytesRecord::Here(vec![1, 2]))],
        open: BytesRecord::Here(open),
        open_start: 2,
        open_part_ends: vec![3],
        codecs: "avc1.42c01e".to_owned(),
        resolution: (320, 180),
        bandwidth: 100_000,
    };
    RunRecord {
        path,
        container: Container::Ts,
        numbers: (1, Some(2)),
        main: shelf(file(2 << 20), vec![1, 2, 3, 4, 5]),
        sound: Some(shelf(BytesRecord::Left, vec![6, 7])),
        segmenter: BytesRecord::Here(postcard::to_allocvec(&segmenter).unwrap()),
        target_ms: 2_000,
        is_ended: false,
        is_hurried: true,
        place: PlaceRecord {
            cursor: Some(9),
            ends_seen: 1,
            sessions_seen: 2,
            is_paused: false,
            begun_at: 3,
        },
    }
}

/// What a record looks like is part of its version: whoever changes it raises that, so that a process of
/// another version refuses instead of reading something else.
#[test]
fn the_bytes_of_an_example_are_those_of_this_version() {
    let mut arena = Arena::new(&ring_config(), 4);
    let mut publisher = begin(&mut arena);
    let parts = parts(&[(1, 4), (2, 0), (0, 200), (5, 90), (3, 50), (6, 700)], 1);
    for part in &parts[..parts.len() - 1] {
        feed(&mut publisher, &mut arena, part, Millis(u64::from(part.timestamp)));
    }
    let (_, stream) = export(&publisher);
    let subscriber =
        postcard::to_allocvec(&Subscriber::new(Selection::all(1), Millis(5)).to_record());
    let session = ServerSession::new(SessionConfig::default(), 7, Millis(3));
    let session = postcard::to_allocvec(&session).unwrap();
    let peer = "192.0.2.7:1".parse().unwrap();
    let path = PathRecord::from(&StreamPath::new("default", "live", "cam").unwrap());
    let live = |transport, spoken| LiveRecord {
        transport,
        sealed_rest: vec![4],
        spoken,
        connect: None,
        rest: vec![1, 2],
        held_input: vec![3],
        publishes: vec![PublishRecord {
            msid: 1,
            path: path.clone(),
            tracks: (true, false),
            permit: Some(PermitRecord {
                bitrate_bps_max: Some(1),
                bitrate_cut_ms: 2,
                until: None,
                place: Some("push.example.com".to_owned()),
            }),
        }],
        plays: Vec::new(),
        play_serial: 4,
        bytes_in: 5,
        bytes_out: 6,
        skips: 7,
        role: Some(true),
        last_path: Some(path.clone()),
    };
    let connection = |live| ConnectionRecord {
        serial: 1,
        peer,
        proxy: Some(peer),
        accepted_at: 5,
        is_read_by_record: false,
        may_speak_http: true,
        live: Some(live),
    };
    let connections = vec![
        connection(live(TransportRecord::Plain, SpokenRecord::Rtmp(session.clone()))),
        connection(live(records(), SpokenRecord::Nothing)),
        connection(live(kernel(), SpokenRecord::Http(Box::new(viewer())))),
    ];
    let framings = vec![framing(&path)];
    let worker = WorkerRecord { index: 1, serial: 2, connections, streams: Vec::new(), framings };
    let doors = vec![Door::Http, Door::Admin];
    let packaging = PackagingRecord { files: 1, runs: vec![run(path.clone())] };
    let renditions = vec![rendition(path)];
    let legacy = Legacy { doors, workers: vec![worker], renditions, packaging };
    let legacy = postcard::to_allocvec(&legacy).unwrap();
    let lengths = [stream.len(), subscriber.unwrap().len(), session.len(), legacy.len()];
    let sum =
        legacy.iter().chain(&stream).fold(0_u32, |sum, &byte| sum.rotate_left(5) ^ u32::from(byte));
    assert_eq!(
        (VERSION, lengths, sum),
        (3, [877, 16, 102, 1_308], 1_137_134_830),
        "raise VERSION with a change"
    );
}
