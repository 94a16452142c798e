//! The change of process under viewers of HLS: one playlist, every segment there, every frame once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mux::playlist::validate;
use serde_json::Value;

use crate::hls::addresses;
use crate::support::PATIENCE;
use crate::support::media::Source;
use crate::support::server::{Server, matrix, wait_for};
use crate::support::viewer::{Response, Viewer};
use crate::upgrade::{SEGMENT_MS, Show, frames_of};

/// Slower than the clock, with segments of half a second that are large enough for a file, or not.
fn source(frame_bytes: usize) -> Source {
    let (keyframe_bytes, audio_bytes) = (4 * frame_bytes, 40);
    Source { step_ms: 2, gop: 50, keyframe_bytes, frame_bytes, audio_bytes, ..Source::new(7) }
}

/// A viewer of one rendition that keeps what it was given.
struct Watcher {
    http: SocketAddr,
    playlist: String,
    init: Option<(String, Vec<u8>)>,
    /// Segments by their number.
    segments: BTreeMap<u64, (String, Vec<u8>)>,
}

impl Watcher {
    fn start(show: &mut Show, address: &str) -> Self {
        let http = show.server.http;
        let variants = ask(show, address);
        let playlist = addresses(variants.text()).remove(0);
        Self { http, playlist, init: None, segments: BTreeMap::new() }
    }

    /// Reads the playlist and everything it names, parts included.
    fn look(&mut self) -> String {
        let text = get(self.http, &self.playlist);
        let text = text.text().to_owned();
        assert_eq!(validate::media(&text), [], "{text}");
        assert!(!text.contains("#EXT-X-DISCONTINUITY"), "a seam: {text}");
        let field = |tag: &str| text.lines().find_map(|line| line.strip_prefix(tag));
        let first: u64 = field("#EXT-X-MEDIA-SEQUENCE:").unwrap().parse().unwrap();
        let next = self.segments.last_key_value().map_or(first, |(last, _)| last + 1);
        assert!(first <= next, "segment {next} has left before it was seen: {text}");
        let init = text.lines().find_map(|line| quoted(line, "#EXT-X-MAP:"));
        if let Some(init) = init {
            let body = get(self.http, &init).body;
            let known = self.init.get_or_insert_with(|| (init.clone(), body.clone()));
            assert_eq!(*known, (init, body));
        }
        for part in text.lines().filter_map(|line| quoted(line, "#EXT-X-PART:")) {
            assert!(!get(self.http, &part).body.is_empty());
        }
        for (sequence, address) in (first..).zip(addresses(&text)) {
            let body = get(self.http, &address).body;
            let known = self.segments.entry(sequence);
            let known = known.or_insert_with(|| (address.clone(), body.clone()));
            assert_eq!(known.0, address);
            assert!(known.1 == body, "segment {sequence} is another one");
        }
        text
    }

    /// All segments joined behind their init segment.
    fn file(&self) -> Vec<u8> {
        let init = self.init.iter().map(|(_, body)| body);
        init.chain(self.segments.values().map(|(_, body)| body)).flatten().copied().collect()
    }
}

/// The address in a line that begins with `tag`.
fn quoted(line: &str, tag: &str) -> Option<String> {
    let (_, uri) = line.strip_prefix(tag)?.split_once("URI=\"")?;
    Some(format!("/live/{}", uri.split('"').next()?))
}

/// An answer while nothing flows.
pub(crate) fn get(http: SocketAddr, path: &str) -> Response {
    let viewer = Viewer::ask(http, "GET", path, "h", "Connection: close\r\n");
    let response = viewer.wait_response();
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response
}

/// The same while media flows, no faster than time does: a first playlist begins with it.
fn ask(show: &mut Show, path: &str) -> Response {
    let viewer = Viewer::ask(show.server.http, "GET", path, "h", "Connection: close\r\n");
    let patience = Instant::now() + PATIENCE;
    while !viewer.has_ended() {
        assert!(Instant::now() < patience, "{path}");
        show.send(2);
        show.net.during(Duration::from_millis(4));
    }
    viewer.wait_response()
}

/// Clients that have asked and were told nothing yet.
fn unanswered(server: &Server) -> usize {
    let clients: Value = serde_json::from_str(&server.get("/api/v1/clients")).unwrap();
    let count = |client: &Value, field: &str| client[field].as_u64().unwrap();
    let items = clients["items"].as_array().unwrap().iter();
    items.filter(|c| count(c, "bytes_in") > 0 && count(c, "bytes_out") == 0).count()
}

/// Until the watcher has seen so many segments more.
fn watch(show: &mut Show, watcher: &mut Watcher, more: usize) {
    let (before, began_ms) = (watcher.segments.len(), show.source.timestamp);
    while watcher.segments.len() < before + more {
        // No window ahead of who looks: the server may have had no processor for a while.
        if show.segments_since(began_ms) <= (watcher.segments.len() - before) as u64 + 2 {
            show.send(50);
        }
        show.net.during(Duration::from_millis(50));
        watcher.look();
    }
}

#[test]
fn a_playlist_goes_on_over_two_upgrades_with_every_segment_and_every_frame_once() {
    for how in matrix(&[2]) {
        for frame_bytes in [40, 600] {
            println!("{how:?}, {frame_bytes}");
            let settings = &format!("[defaults]\nhls_segment_ms = {SEGMENT_MS}\n");
            let mut show = Show::start_with(how, settings, source(frame_bytes));
            let mut watcher = Watcher::start(&mut show, "/live/cam.m3u8");
            watch(&mut show, &mut watcher, 3);
            for _ in 0..2 {
                let before = watcher.look();
                show.upgrade();
                // Who is behind the live edge finds what it was told of.
                for address in addresses(&before) {
                    let body = get(show.server.http, &address).body;
                    assert!(
                        watcher
                            .segments
                            .values()
                            .any(|known| *known == (address.clone(), body.clone()))
                    );
                }
                watch(&mut show, &mut watcher, 3);
                assert_eq!(show.server.metric("ringcast_hls_segments_left_total", ""), 0);
            }
            let sizes: Vec<usize> = watcher.segments.values().map(|(_, body)| body.len()).collect();
            assert_eq!(
                sizes.iter().skip(2).all(|&size| size > 57_344),
                frame_bytes == 600,
                "{sizes:?}"
            );
            let numbers = frames_of(&watcher.file());
            let is_whole = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(is_whole, "every frame once: {numbers:?}");
        }
    }
}

#[test]
fn a_reload_that_waits_is_answered_by_the_process_that_goes_on() {
    for how in matrix(&[1, 2]) {
        let settings = &format!("[defaults]\nhls_segment_ms = {SEGMENT_MS}\n");
        let mut show = Show::start_with(how, settings, source(40));
        let mut watcher = Watcher::start(&mut show, "/live/cam.m3u8");
        watch(&mut show, &mut watcher, 2);
        for _ in 0..2 {
            let text = watcher.look();
            let hint = text.lines().find_map(|line| quoted(line, "#EXT-X-PRELOAD-HINT:")).unwrap();
            let numbers = hint.rsplit_once("/part-").unwrap().1.trim_end_matches(".m4s");
            let (msn, part) = numbers.split_once('.').unwrap();
            let reload = format!("{}&_HLS_msn={msn}&_HLS_part={part}", watcher.playlist);
            let fields = "Range: bytes=0-\r\nUser-Agent: test\r\n";
            let held = [
                Viewer::ask(watcher.http, "GET", &reload, "h", ""),
                Viewer::ask(watcher.http, "GET", &hint, "h", fields),
                Viewer::ask(watcher.http, "HEAD", &hint, "h", fields),
            ];
            wait_for("the requests to be read", || unanswered(&show.server) == held.len());
            show.upgrade();
            show.send(120);
            for viewer in &held {
                show.net.until("an answer", |_| viewer.response().is_some());
                assert!(!viewer.has_ended(), "the same connection, which goes on");
            }
            let [playlist, part, head] = held.map(|viewer| viewer.wait_response());
            assert_eq!((playlist.status, part.status, head.status), (200, 206, 206));
            let name = hint.rsplit_once('/').unwrap().1;
            assert!(playlist.text().contains(name), "{name} in {}", playlist.text());
            assert!(!part.body.is_empty());
        }
    }
}
