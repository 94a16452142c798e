//! HLS over real sockets: both renditions, large segments, refusals, deadlines, quotas.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mux::playlist::validate;

use crate::support::client::Net;
use crate::support::media::Source;
use crate::support::server::{How, Server, matrix};
use crate::support::viewer::{Response, Viewer};

const ONE: How = How { io: "epoll", workers: 1 };

/// A server, a stream that flows while somebody waits for something, and its viewer.
struct Rig {
    server: Server,
    net: Net,
    publisher: usize,
    source: Source,
    /// The viewer's `Host`.
    host: &'static str,
}

impl Rig {
    fn start(how: How, settings: &str, source: Source) -> Self {
        Self::start_at(how, settings, source, None)
    }

    /// Publishes for a domain.
    fn start_at(how: How, settings: &str, source: Source, domain: Option<&str>) -> Self {
        let server = Server::start(how, settings);
        let mut net = Net::new(server.rtmp);
        let publisher = match domain {
            Some(domain) => net.publish_at(domain, "cam"),
            None => net.publish("cam"),
        };
        net.until_started(&[publisher]);
        net.send_headers(publisher, &source);
        Self { server, net, publisher, source, host: "h" }
    }

    /// Sends until it is done.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Server) -> bool) {
        let Self { server, net, publisher, source, .. } = self;
        net.until(what, |net| {
            net.send_frames(*publisher, source, 2);
            done(server)
        });
    }

    /// Asks while media flows: a first playlist begins with media.
    fn get(&mut self, path: &str) -> Response {
        let fields = "Connection: close\r\n";
        let viewer = Viewer::ask(self.server.http, "GET", path, self.host, fields);
        self.until(path, |_| viewer.has_ended());
        viewer.wait_response()
    }

    /// Asks while nothing flows: what is listed stays.
    fn get_still(&mut self, path: &str) -> Response {
        let fields = "Connection: close\r\n";
        let viewer = Viewer::ask(self.server.http, "GET", path, self.host, fields);
        self.net.until(path, |_| viewer.has_ended());
        viewer.wait_response()
    }

    /// Address and length of a segment of at least so many bytes.
    fn large_segment(&mut self, bytes: usize) -> (String, usize) {
        let variants = self.get("/live/cam.m3u8");
        let path = addresses(variants.text()).remove(0);
        let mut found = None;
        let patience = Instant::now() + Duration::from_secs(30);
        while Instant::now() < patience {
            let playlist = self.get(&path);
            for address in addresses(playlist.text()).into_iter().rev() {
                let length = self.get_still(&address).body.len();
                if length >= bytes {
                    found = Some((address, length));
                    break;
                }
            }
            if found.is_some() {
                break;
            }
        }
        found.expect("a large segment")
    }
}

/// A connection that takes only so much ahead of being read, which has asked for `address`.
fn ask_slowly(server: &Server, address: &str, buffer_bytes: usize) -> TcpStream {
    let slow = TcpStream::connect(server.http).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&slow, buffer_bytes).unwrap();
    write!(&slow, "GET {address} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    slow
}

/// What a playlist lists.
pub(crate) fn addresses(text: &str) -> Vec<String> {
    assert!(text.starts_with("#EXTM3U\n"), "{text}");
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("/live/{line}")).collect()
}

/// Segments that a playlist lists, by their number.
pub(crate) fn by_number(text: &str) -> BTreeMap<u64, String> {
    let number = |address: &str| {
        let rest = address.split("/seg-").nth(1).unwrap();
        rest.split('.').next().unwrap().parse().unwrap()
    };
    addresses(text).into_iter().map(|address| (number(&address), address)).collect()
}

#[test]
fn both_renditions_are_played_by_one_viewer_with_its_own_parameters() {
    for how in matrix(&[2]) {
        let settings = "[defaults]\nhls_audio_only = true\n";
        let mut rig = Rig::start(how, settings, Source::new(3));
        let multivariant = rig.get("/live/cam.m3u8?who=me");
        assert_eq!(multivariant.status, 200);
        assert_eq!(validate::multivariant(multivariant.text()), [], "{}", multivariant.text());
        let variants = addresses(multivariant.text());
        let [main, sound] = variants.as_slice() else { panic!("{variants:?}") };
        assert!(main.contains("who=me&session="), "{main}");
        assert_eq!(&format!("{main}&rendition=audio"), sound);
        rig.get(main);
        let name = |address: &str| address.trim_start_matches("/live/").to_owned();
        let deadline = Instant::now() + Duration::from_secs(10);
        let (main_text, sound_text) = loop {
            let (main_text, sound_text) = (rig.get_still(main), rig.get_still(sound));
            let set = [(&*name(main), main_text.text()), (&*name(sound), sound_text.text())];
            for (_, text) in set {
                assert_eq!(validate::media(text), [], "{text}");
                assert!(text.contains("#EXT-X-RENDITION-REPORT"), "{text}");
            }
            // What was sent last may be packaged between the two looks; soon nothing is.
            let findings = validate::renditions(&set);
            if findings.is_empty() {
                break (main_text, sound_text);
            }
            assert!(Instant::now() < deadline, "{findings:?} {set:?}");
            thread::sleep(Duration::from_millis(20));
        };
        // Every segment of the sound is there, and a fraction of the whole. Between the two looks the stream
        // may have moved on.
        let whole = by_number(main_text.text());
        let alone = by_number(sound_text.text());
        assert!(alone.keys().any(|number| whole.contains_key(number)), "{whole:?} {alone:?}");
        for (number, alone) in alone {
            let Some(whole) = whole.get(&number) else { continue };
            let (whole, alone) = (rig.get_still(whole), rig.get_still(&alone));
            assert_eq!((whole.status, alone.status), (200, 200));
            assert_eq!(alone.field("content-type"), Some("audio/mp4"));
            assert!(!alone.body.is_empty() && alone.body.len() < whole.body.len() / 2);
        }
        let plays = |server: &Server| {
            let lines = server.events("play");
            lines.iter().filter(|line| line["protocol"] == "hls").count()
        };
        rig.until("the log line", |server| plays(server) > 0);
        assert_eq!(plays(&rig.server), 1, "one session, one viewer");
        // A reload of the sound that blocks is answered by what comes.
        let hint = sound_text.text().lines().find(|line| line.starts_with("#EXT-X-PRELOAD"));
        let hint = hint.unwrap().split("part-").nth(1).unwrap();
        let mut numbers = hint.split('.');
        let (msn, part) = (numbers.next().unwrap(), numbers.next().unwrap());
        let path = format!("{sound}&_HLS_msn={msn}&_HLS_part={part}&_HLS_skip=YES");
        let viewer = Viewer::ask(rig.server.http, "GET", &path, rig.host, "Connection: close\r\n");
        // Enough for it, and not so much that it has left the playlist before the server looks.
        rig.net.send_frames(rig.publisher, &mut rig.source, 60);
        rig.net.until(&path, |_| viewer.has_ended());
        let text = viewer.wait_response();
        assert!(text.text().contains(&format!("part-{msn}.{part}.m4s")), "{}", text.text());
        assert!(text.text().contains("#EXT-X-RENDITION-REPORT"), "{}", text.text());
    }
}

#[test]
fn a_stream_of_long_groups_of_pictures_is_announced_as_such_to_its_first_viewer() {
    // Large enough that the ring holds hardly more than the present group, and long enough that the first
    // segments are over before it is.
    let source = Source { gop: 1_000, frame_bytes: 4_000, ..Source::new(3) };
    let mut rig = Rig::start(ONE, "", source);
    // What is counted by then, is known by then.
    rig.until("the keyframes to be known", |server| {
        server.metric("ringcast_messages_in_total", "kind=\"video\"") > 2_100
    });
    let variants = rig.get("/live/cam.m3u8");
    let path = addresses(variants.text()).remove(0);
    let playlist = rig.get_still(&path);
    assert!(playlist.text().contains("#EXT-X-TARGETDURATION:10\n"), "{}", playlist.text());
}

#[test]
fn a_sound_that_is_not_offered_is_not_found() {
    let mut rig = Rig::start(ONE, "", Source::new(3));
    let variants = rig.get("/live/cam.m3u8");
    assert_eq!(addresses(variants.text()).len(), 1);
    let refused = rig.get("/live/cam.m3u8?rendition=audio");
    assert_eq!((refused.status, refused.text()), (404, "there is no such thing in this stream\n"));
}

#[test]
fn the_kernel_takes_a_whole_segment_for_a_peer_that_has_not_read_yet() {
    for how in matrix(&[1]) {
        let mut rig = Rig::start(how, "", Source { frame_bytes: 4_000, ..Source::new(3) });
        let (address, length) = rig.large_segment(600_000);
        let sent = |server: &Server| {
            let clients: serde_json::Value =
                serde_json::from_str(&server.get("/api/v1/clients")).unwrap();
            let items = clients["items"].as_array().unwrap().iter();
            items.filter_map(|client| client["bytes_out"].as_u64()).max().unwrap_or(0)
        };
        let slow = ask_slowly(&rig.server, &address, 4_096);
        rig.until("the segment to be with the kernel", |server| sent(server) > length as u64);
        drop(slow);
    }
}

/// The kernel refers to the segment's pages when it sends: who reads late, when the segment has left the
/// window and its memory was given back, gets its bytes all the same.
#[test]
fn a_large_segment_is_sent_without_a_copy_and_whole_to_who_reads_it_when_it_is_gone() {
    for how in matrix(&[1]) {
        let settings = "[defaults]\nhls_window = 3\n";
        let mut rig = Rig::start(how, settings, Source { frame_bytes: 4_000, ..Source::new(3) });
        let (address, length) = rig.large_segment(600_000);
        let whole = rig.get_still(&address).body;
        assert_eq!(whole.len(), length);
        let slow = ask_slowly(&rig.server, &address, 4_096);
        let mut reader = BufReader::new(&slow);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            reader.read_until(b'\n', &mut head).unwrap();
        }
        let mut looks = 0;
        rig.until("the segment to be gone", |server| {
            looks += 1;
            let ask = || Viewer::ask(server.http, "GET", &address, "h", "Connection: close\r\n");
            looks % 100 == 0 && ask().wait_response().status == 410
        });
        let is_from_file = |server: &Server| server.metric("ringcast_io_file_sends_total", "") > 0;
        rig.until("sends from the file to be counted", is_from_file);
        let mut late = vec![0; length];
        reader.read_exact(&mut late).unwrap();
        assert!(late == whole, "bytes differ");
    }
}

#[test]
fn a_viewer_that_takes_files_and_then_a_live_stream_is_one_like_any_other() {
    let settings = "[defaults]\nlag_ms_max = 1000\nstall_ms_max = 2000\n";
    let mut rig = Rig::start(ONE, settings, Source { frame_bytes: 4_000, ..Source::new(3) });
    let (address, length) = rig.large_segment(600_000);
    let mut slow = ask_slowly(&rig.server, &address, 32_768);
    slow.set_nonblocking(true).unwrap();
    let (mut buffer, mut taken) = (vec![0; 65_536], 0);
    rig.until("the file", |_| {
        while let Ok(bytes) = slow.read(&mut buffer) {
            taken += bytes;
        }
        taken > length
    });
    write!(&slow, "GET /live/cam.flv HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    rig.until("it lags, and is closed", |server| server.has_logged("close", "reason", "stalled"));
    // A backlog of a megabyte in the kernel would have hidden the lag for as long.
    let closes = rig.server.events("close");
    let close = closes.iter().find(|line| line["reason"] == "stalled").unwrap();
    let live_bytes = close["bytes_out"].as_u64().unwrap() - length as u64;
    assert!(live_bytes < 600_000, "{live_bytes}");
}

#[test]
fn a_segment_that_is_being_sent_is_sent_to_its_end_by_the_old_process() {
    for how in matrix(&[1]) {
        let settings = "[shutdown]\ndrain_ms = 30000\n";
        let mut rig = Rig::start(how, settings, Source { frame_bytes: 20_000, ..Source::new(3) });
        let (address, length) = rig.large_segment(3_000_000);
        let mut slow = ask_slowly(&rig.server, &address, 32_768);
        let mut body = vec![0; 65_536];
        let begun = slow.read(&mut body).unwrap();
        rig.server.upgrade(|| rig.net.turn());
        // Whoever comes now is served by the other one.
        let late: Vec<Viewer> = (0..20).map(|_| Viewer::get(rig.server.http, "/nothing")).collect();
        rig.net.until("answers", |_| late.iter().all(|viewer| viewer.response().is_some()));
        // Longer than last words may take.
        rig.net.during(Duration::from_millis(5_500));
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).unwrap();
        body.truncate(begun);
        body.append(&mut rest);
        let head = body.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(body.len() - head, length);
    }
}

#[test]
fn over_the_bound_of_memory_viewers_are_told_to_come_later() {
    let settings = "[limits]\nhls_bytes_max = 16777216\n\
                    [defaults]\nhls_segment_ms = 500\nhls_window = 100\n";
    let mut rig = Rig::start(ONE, settings, Source { frame_bytes: 20_000, ..Source::new(3) });
    rig.get("/live/cam.m3u8");
    rig.until("the bound is met", |server| {
        server.metric("ringcast_hls_segments_forgotten_total", "") > 0
    });
    let other = rig.net.publish("other");
    rig.net.until_started(&[other]);
    let mut small = Source::new(4);
    rig.net.send_headers(other, &small);
    rig.net.send_frames(other, &mut small, 10);
    let refused = rig.get_still("/live/other.m3u8");
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("10")));
    assert!(rig.server.metric("ringcast_hls_held_bytes", "") <= 16_777_216);
}

#[test]
fn the_deadlines_of_http_are_configured() {
    let settings = "[limits]\nhttp_request_ms_max = 200\nhttp_keep_alive_ms_max = 300\n\
                    http_stall_ms_max = 3000\n";
    let mut rig = Rig::start(ONE, settings, Source { frame_bytes: 20_000, ..Source::new(3) });
    let half = Viewer::send(rig.server.http, b"GET / HTTP/1.1\r\nHost: h\r\n");
    rig.until("the answer", |_| half.has_ended());
    assert_eq!(half.response().unwrap().status, 408);
    let _idle = Viewer::get(rig.server.http, "/none");
    rig.until("the end of it", |server| server.has_logged("close", "reason", "idle_timeout"));
    let (address, _) = rig.large_segment(3_000_000);
    let slow = ask_slowly(&rig.server, &address, 4_096);
    rig.until("it is given up", |server| server.has_logged("close", "reason", "stalled"));
    drop(slow);
}

/// A service that says yes to everything.
fn hook_that_allows() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            thread::spawn(move || {
                let mut reader = BufReader::new(socket.try_clone().unwrap());
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line == "\r\n" {
                        let mut body = vec![0; length];
                        reader.read_exact(&mut body).unwrap();
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        if socket.write_all(answer).is_err() {
                            return;
                        }
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

#[test]
fn a_viewer_behind_a_hook_keeps_its_place_when_the_domain_is_full() {
    let hook = hook_that_allows();
    let settings = format!(
        "[domain.\"push.q.test\"]\ntype = \"push\"\n\
         [[domain.\"push.q.test\".provider]]\nscheme = \"open\"\n\
         [domain.\"play.q.test\"]\ntype = \"play\"\npush_domain = \"push.q.test\"\n\
         subscribers_max = 1\n\
         [[domain.\"play.q.test\".provider]]\nscheme = \"hook\"\nurl = \"http://{hook}/\"\n"
    );
    let mut rig = Rig::start_at(ONE, &settings, Source::new(3), Some("push.q.test"));
    rig.host = "play.q.test";
    let variants = rig.get("/live/cam.m3u8?x=1");
    assert_eq!(variants.status, 200, "{}", variants.text());
    let mine = addresses(variants.text()).remove(0);
    for _ in 0..3 {
        let playlist = rig.get(&mine);
        assert_eq!(playlist.status, 200, "{}", playlist.text());
    }
    // The place is taken: for another, not for the one who has it.
    let other = rig.get("/live/cam.m3u8?x=2");
    assert_eq!((other.status, other.text()), (403, "too many players\n"));
    assert_eq!(rig.get(&mine).status, 200);
    rig.until("the count", |server| server.metric("ringcast_hls_viewers", "") == 1);
}
