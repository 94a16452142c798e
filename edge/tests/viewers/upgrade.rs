//! The change of process under viewers: live ones in every form notice nothing, connections between two
//! requests go on.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use rtmp::session::MediaKind;
use rustix::process::Signal;

use crate::support::client::{Net, assert_complete};
use crate::support::media::{Item, Source};
use crate::support::server::{How, Server, matrix, wait_for, with_workers};
use crate::support::viewer::Viewer;

const TIMESCALE_AUDIO: u64 = 44_100;

/// Duration of a segment where a test is about HLS, in milliseconds.
pub(crate) const SEGMENT_MS: u64 = 500;

/// One stream and its publisher.
pub(crate) struct Show {
    pub(crate) server: Server,
    pub(crate) net: Net,
    pub(crate) publisher: usize,
    pub(crate) source: Source,
}

impl Show {
    pub(crate) fn start(how: How, settings: &str) -> Self {
        // Slower than the clock, so that waiting for the new process makes nobody late.
        Self::start_with(how, settings, Source { step_ms: 2, ..Source::new(7) })
    }

    pub(crate) fn start_with(how: How, settings: &str, source: Source) -> Self {
        let server = Server::start(how, settings);
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
        net.send_headers(publisher, &source);
        let mut show = Self { server, net, publisher, source };
        show.send(12);
        // Who joins before the first keyframe was read is likely to hear of a header twice: as it comes in,
        // and with what a keyframe needs. That was taken from one failure, and not seen in the code.
        let read = || show.server.metric("ringcast_messages_in_total", "");
        wait_for("the frames to be read", || read() >= 2 * 12);
        show
    }

    pub(crate) fn send(&mut self, count: u32) {
        self.net.send_frames(self.publisher, &mut self.source, count);
        let publisher = self.publisher;
        self.net.until("the frames to be sent", |net| net.clients[publisher].is_flushed());
    }

    /// Segments' worth of media sent since the source stood at `began_ms`.
    pub(crate) fn segments_since(&self, began_ms: u32) -> u64 {
        u64::from(self.source.timestamp - began_ms) / SEGMENT_MS
    }

    pub(crate) fn upgrade(&mut self) {
        self.upgrade_and(|| ());
    }

    pub(crate) fn upgrade_and(&mut self, mut meanwhile: impl FnMut()) {
        let Self { server, net, publisher, source } = self;
        // Half a second of the stream, however long it takes: windows of playlists move by no more.
        let mut pictures = 250;
        server.upgrade(|| {
            if pictures > 0 {
                pictures -= 1;
                net.send_frames(*publisher, source, 1);
            }
            net.turn();
            meanwhile();
        });
    }
}

#[test]
fn flv_viewers_in_every_dress_notice_nothing_of_two_upgrades() {
    for how in matrix(&[1, 2]) {
        println!("{how:?}");
        let mut show = Show::start(how, "[defaults]\nhttp_wait_ms = 60000\n");
        let addr = show.server.http;
        let mut viewers: Vec<Viewer> = (0..4)
            .flat_map(|_| {
                [
                    Viewer::get(addr, "/live/cam.flv"),
                    Viewer::send(addr, b"GET /live/cam.flv HTTP/1.0\r\n\r\n"),
                    Viewer::websocket(addr, "/live/cam.flv", "127.0.0.1"),
                ]
            })
            .collect();
        // Nobody publishes what this one waits for yet.
        let patient = Viewer::get(addr, "/live/later.flv");
        for viewer in &viewers {
            wait_for("the first tag", || viewer.has_begun());
        }
        wait_for("the patient one", || show.server.events("play").len() > viewers.len());
        for _ in 0..2 {
            show.send(30);
            show.upgrade();
            show.send(30);
            for viewer in &viewers {
                show.net.until("the last frame", |_| viewer.has_all(&show.source));
                viewer.tags().assert_whole(&show.source);
            }
            let subscribers = show.server.metric("ringcast_connections", "role=\"subscriber\"");
            assert_eq!(subscribers, 13);
        }
        // A WebSocket still answers.
        viewers[2].write(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']);
        wait_for("the pong", || viewers[2].frames().contains(&(10, b"hi".to_vec())));
        let later = show.net.publish("later");
        show.net.until_started(&[later]);
        let mut source = Source::new(9);
        show.net.send_headers(later, &source);
        show.net.send_frames(later, &mut source, 5);
        show.net.until("what it waited for", |_| patient.has_all(&source));
        show.net.unpublish(show.publisher);
        for viewer in &viewers {
            show.net.until("the end", |_| viewer.has_ended());
            let response = viewer.response().unwrap();
            let is_chunked = response.field("transfer-encoding").is_some();
            assert!(!is_chunked || response.body.ends_with(b"\r\n0\r\n\r\n"), "the last chunk");
        }
    }
}

/// A sample of a fragment.
struct Sample {
    track: u32,
    start: u64,
    duration: u32,
    payload: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Boxes of one level: type and content.
fn boxes(bytes: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let (mut boxes, mut rest) = (Vec::new(), bytes);
    while rest.len() >= 8 {
        let length = usize::try_from(word(rest, 0)).unwrap();
        let Some(content) = rest.get(8..length) else { break };
        boxes.push((rest[4..8].try_into().unwrap(), content));
        rest = &rest[length..];
    }
    boxes
}

/// Samples of whole fragments; numbers of fragments follow each other, and so do times of decoding.
fn samples(file: &[u8]) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut number = None;
    let all = boxes(file);
    for (at, (kind, moof)) in all.iter().enumerate().filter(|(_, (kind, _))| kind == b"moof") {
        assert_eq!(kind, b"moof");
        let Some((b"mdat", mdat)) = all.get(at + 1).map(|(kind, content)| (kind, content)) else {
            break;
        };
        let mut data = *mdat;
        for (kind, content) in boxes(moof) {
            match &kind {
                b"mfhd" => {
                    let next = word(content, 4);
                    assert!(number.is_none_or(|before: u32| next == before + 1), "{number:?}");
                    number = Some(next);
                }
                b"traf" => {
                    let parts = boxes(content);
                    let part =
                        |wanted: &[u8; 4]| parts.iter().find(|(kind, _)| kind == wanted).unwrap().1;
                    let track = word(part(b"tfhd"), 4);
                    let tfdt = part(b"tfdt");
                    let mut start = u64::from_be_bytes(tfdt[4..12].try_into().unwrap());
                    let trun = part(b"trun");
                    for entry in trun[12..].chunks_exact(16) {
                        let bytes = usize::try_from(word(entry, 4)).unwrap();
                        let (payload, rest) = data.split_at(bytes);
                        data = rest;
                        let duration = word(entry, 0);
                        let payload = payload.to_vec();
                        samples.push(Sample { track, start, duration, payload });
                        start += u64::from(duration);
                    }
                }
                _ => {}
            }
        }
    }
    samples
}

/// Numbers of the source's frames in the file, in order; one track's times leave no hole.
pub(crate) fn frames_of(file: &[u8]) -> Vec<u32> {
    let samples = samples(file);
    for track in [1, 2] {
        let of_track: Vec<&Sample> = samples.iter().filter(|s| s.track == track).collect();
        for pair in of_track.windows(2) {
            let end = pair[0].start + u64::from(pair[0].duration);
            // Sound is counted in samples while the source's clock is not that of AAC.
            let is_close = end.abs_diff(pair[1].start) <= TIMESCALE_AUDIO / 20;
            assert!(pair[1].start > pair[0].start && is_close, "track {track}: a hole at {end}");
        }
    }
    let mut numbers: Vec<u32> = samples
        .iter()
        .map(|sample| {
            let media = if sample.track == 1 { MediaKind::Video } else { MediaKind::Audio };
            let head: &[u8] = if sample.track == 1 { &[0x27, 1, 0, 0, 0] } else { &[0xaf, 1] };
            let item = Item::parse(media, 0, &[head, &sample.payload].concat());
            assert!(item.intact);
            item.sequence
        })
        .collect();
    // A fragment holds its pictures before its sound.
    numbers.sort_unstable();
    numbers
}

/// What a viewer has of a file in chunks or in frames.
fn file_of(viewer: &Viewer) -> Vec<u8> {
    let Some(response) = viewer.response() else { return Vec::new() };
    match response.status {
        101 => {
            let frames = viewer.frames();
            let binary = frames.into_iter().filter(|(opcode, _)| *opcode == 2);
            binary.flat_map(|(_, payload)| payload).collect()
        }
        _ => viewer.unchunked_body(),
    }
}

#[test]
fn mp4_viewers_get_fragments_that_follow_each_other_over_two_upgrades() {
    for how in matrix(&[1, 2]) {
        println!("{how:?}");
        let mut show = Show::start(how, "");
        let addr = show.server.http;
        let viewers: Vec<Viewer> = (0..3)
            .flat_map(|_| {
                [
                    Viewer::get(addr, "/live/cam.mp4"),
                    Viewer::websocket(addr, "/live/cam.mp4", "127.0.0.1"),
                ]
            })
            .collect();
        for viewer in &viewers {
            show.net.until("the first fragment", |net| {
                net.send_frames(show.publisher, &mut show.source, 1);
                !frames_of(&file_of(viewer)).is_empty()
            });
        }
        for _ in 0..2 {
            show.send(30);
            show.upgrade();
            show.send(30);
            // The newest frames wait for those that end their fragment.
            let wanted = u32::try_from(show.source.sent.len()).unwrap() - 8;
            for viewer in &viewers {
                show.net.until("the fragments", |_| {
                    frames_of(&file_of(viewer)).last().is_some_and(|&last| last >= wanted)
                });
                let numbers = frames_of(&file_of(viewer));
                let is_whole = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
                assert!(is_whole, "every frame once: {numbers:?}");
                let file = file_of(viewer);
                let inits = boxes(&file).iter().filter(|(kind, _)| kind == b"moov").count();
                assert_eq!(inits, 1, "one description");
            }
        }
    }
}

#[test]
fn a_connection_between_two_requests_goes_on() {
    for how in matrix(&[1, 2]) {
        let mut show = Show::start(how, "");
        let mut idle = Viewer::get(show.server.http, "/nothing");
        wait_for("the answer", || idle.response().is_some());
        for _ in 0..2 {
            show.upgrade();
            let before = idle.bytes().len();
            idle.write(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
            wait_for("another answer", || idle.bytes().len() == 2 * before || idle.has_ended());
            assert!(!idle.has_ended(), "the same connection");
            idle.forget();
            idle.write(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
            wait_for("another answer", || idle.bytes().len() == before);
        }
    }
}

#[test]
fn viewers_go_on_where_the_new_process_has_more_workers_or_fewer() {
    let dir = tempfile::tempdir().unwrap();
    for how in matrix(&[1, 3]) {
        for workers in [1, 2, 4] {
            println!("{how:?} then {workers}");
            let path = with_workers(dir.path(), workers);
            let settings = format!("[shutdown]\nupgrade_program = \"{path}\"\n");
            let mut show = Show::start(how, &settings);
            let viewers: Vec<Viewer> =
                (0..12).map(|_| Viewer::get(show.server.http, "/live/cam.flv")).collect();
            for viewer in &viewers {
                wait_for("the first tag", || viewer.has_begun());
            }
            for _ in 0..2 {
                show.send(30);
                show.upgrade();
                show.send(30);
                for viewer in &viewers {
                    show.net.until("the last frame", |_| viewer.has_all(&show.source));
                    viewer.tags().assert_whole(&show.source);
                }
            }
            // Who comes later and who leaves find their places.
            let late = Viewer::get(show.server.http, "/live/cam.flv");
            wait_for("a tag for who comes later", || late.has_begun());
            drop(viewers);
            show.send(10);
            show.net.until("the last frame", |_| late.has_all(&show.source));
        }
    }
}

/// The new configuration has room for some 4,000 messages in a ring; so many does one viewer hold, of one
/// framing. The stream itself and the others are taken over from their newest keyframe on.
#[test]
fn a_framing_that_cannot_go_on_ends_for_its_viewers_in_order_and_for_nobody_else() {
    for how in matrix(&[1]) {
        println!("{how:?}");
        let mut show = Show::start(how, "");
        let addr = show.server.http;
        let mut slow = TcpStream::connect(addr).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&slow, 16_384).unwrap();
        slow.write_all(b"GET /live/cam.flv HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let beside = Viewer::get(addr, "/live/cam.flv");
        let others = [
            Viewer::send(addr, b"GET /live/cam.flv HTTP/1.0\r\n\r\n"),
            Viewer::websocket(addr, "/live/cam.flv", "127.0.0.1"),
        ];
        let player = show.net.play("cam");
        show.net.until_started(&[player]);
        for viewer in others.iter().chain([&beside]) {
            wait_for("the first tag", || viewer.has_begun());
        }
        // Six seconds of stream: less than anybody may be behind.
        for _ in 0..100 {
            show.send(30);
            show.net.until("the last frame", |_| beside.has_all(&show.source));
        }
        let settings = "[defaults]\nretention_messages = 64\n";
        fs::write(show.server.config_file(), settings).unwrap();
        show.server.signal(Signal::QUIT);
        show.net.until("the hand-over", |_| !show.server.successors().is_empty());
        show.server.pid = show.server.successors()[0];

        // The new process says it, and writes its own lines.
        let mut failed = None;
        wait_for("it to be told", || {
            let told = show.server.events("upgrade");
            failed = told.into_iter().find(|line| line["level"] == "ERROR");
            failed.is_some()
        });
        let failed = failed.unwrap();
        let error = failed["error"].as_str().unwrap();
        assert!(error.contains("http-flv") && error.contains("no room"), "{error}");
        rustix::net::sockopt::set_socket_recv_buffer_size(&slow, 1 << 20).unwrap();
        let slow = Viewer::of(slow, false);
        for (name, viewer) in [("beside", &beside), ("slow", &slow)] {
            show.net.until("the end", |_| viewer.has_ended());
            let bytes = viewer.bytes();
            let tail = &bytes[bytes.len().saturating_sub(40)..];
            assert!(tail.ends_with(b"\r\n0\r\n\r\n"), "{name}: {}", tail.escape_ascii());
        }
        beside.tags().assert_whole(&show.source);
        assert!(slow.tags().frames().len() < show.source.sent.len() / 2, "it was far behind");
        let ended = |server: &Server| {
            let lines = server.events("close").into_iter();
            let ended = lines.filter(|line| line["reason"] == "stream_ended");
            ended.filter(|line| line["protocol"] == "http-flv").count()
        };
        wait_for("their last lines", || ended(&show.server) == 2);

        // Who asks again is shown the stream, and all others never stopped.
        let again = Viewer::get(addr, "/live/cam.flv");
        wait_for("the first tag", || again.has_begun());
        for _ in 0..30 {
            // No more at a time than is retained.
            show.send(1);
            show.net.until_received(&[player], &show.source);
        }
        for viewer in others.iter().chain([&again]) {
            show.net.until("the last frame", |_| viewer.has_all(&show.source));
            viewer.tags().assert_whole(&show.source);
        }
        assert!(show.net.clients[player].ended.is_none());
        assert_complete(&show.net.clients[player], &show.source);
        assert_eq!(ended(&show.server), 2);
    }
}
