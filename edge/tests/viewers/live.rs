//! Live streams over HTTP-FLV and WebSocket.

use std::time::Instant;

use rtmp::session::ClientRole;

use crate::support::client::{Net, assert_complete};
use crate::support::media::{Item, Kind, Source};
use crate::support::server::{How, Server, matrix, wait_for};
use crate::support::viewer::{Viewer, WEBSOCKET_ACCEPT};

const ONE: How = How { io: "epoll", workers: 1 };

fn publish(how: How, settings: &str, name: &str) -> (Server, Net, usize) {
    let server = Server::start(how, settings);
    let mut net = Net::new(server.rtmp);
    let publisher = net.publish(name);
    net.until_started(&[publisher]);
    (server, net, publisher)
}

#[test]
fn flv_viewers_get_every_frame_over_plain_http_and_websocket() {
    for how in matrix(&[1, 2, 4]) {
        println!("{how:?}");
        let (server, mut net, publisher) = publish(how, "", "cam");
        let mut source = Source::new(7);
        let open = || {
            [
                Viewer::get(server.http, "/live/cam.flv"),
                Viewer::websocket(server.http, "/live/cam.flv", "127.0.0.1"),
            ]
        };
        // Some wait before anything is sent, the others come while frames flow.
        let early: Vec<Viewer> = (0..5).flat_map(|_| open()).collect();
        wait_for("the waiting viewers", || server.events("play").len() >= early.len());
        net.send_headers(publisher, &source);
        let mut late = Vec::new();
        for _ in 0..10 {
            net.send_frames(publisher, &mut source, 4);
            late.extend(open());
            let plays = early.len() + late.len();
            net.until("the late viewers", |_| server.events("play").len() >= plays);
        }
        net.send_frames(publisher, &mut source, 40);
        net.unpublish(publisher);
        for viewer in early.iter().chain(&late) {
            net.until("the end", |_| viewer.has_ended());
            let response = viewer.response().unwrap();
            if response.status == 101 {
                assert_eq!(response.field("sec-websocket-accept"), Some(WEBSOCKET_ACCEPT));
                let (opcode, close) = viewer.frames().pop().unwrap();
                assert_eq!((opcode, &close[..2]), (8, &[3, 232][..]), "goodbye with code 1000");
            } else {
                assert_eq!(response.field("content-type"), Some("video/x-flv"));
                assert_eq!(response.field("connection"), Some("close"));
            }
        }
        for viewer in early.iter().chain(&late) {
            let response = viewer.response().unwrap();
            if response.status == 200 {
                assert!(response.body.ends_with(b"\r\n0\r\n\r\n"), "the last chunk");
            }
        }
        for viewer in &early {
            assert_eq!(viewer.tags().assert_whole(&source), 0, "joined before media");
        }
        let begun_later =
            late.iter().filter(|viewer| viewer.tags().assert_whole(&source) > 0).count();
        assert!(begun_later > 0, "some joined in mid-stream");
        server.wait_log("close", "reason", "stream_ended");
    }
}

#[test]
fn an_rtmp_player_and_http_viewers_see_the_same_stream() {
    let (server, mut net, publisher) = publish(ONE, "", "cam");
    let mut source = Source::new(3);
    let player = net.play("cam");
    net.until_started(&[player]);
    let viewer = Viewer::get(server.http, "/live/cam.flv");
    wait_for("the viewer", || server.events("play").len() == 2);
    net.send_headers(publisher, &source);
    net.send_frames(publisher, &mut source, 60);
    net.until_received(&[player], &source);
    assert_eq!(assert_complete(&net.clients[player], &source), 0);
    net.until("the viewer to have all", |_| viewer.has_all(&source));
    assert_eq!(viewer.tags().assert_whole(&source), 0);
    let protocols: Vec<String> = server
        .events("play")
        .iter()
        .map(|line| line["protocol"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(protocols, ["rtmp", "http-flv"]);
    let clients = server.get("/api/v1/clients");
    assert!(clients.contains("\"http-flv\""), "{clients}");
}

#[test]
fn a_client_of_http_1_0_gets_a_body_that_ends_with_the_connection() {
    let (server, mut net, publisher) = publish(ONE, "", "cam");
    let mut source = Source::new(3);
    let viewer = Viewer::send(server.http, b"GET /live/cam.flv HTTP/1.0\r\n\r\n");
    wait_for("the viewer", || server.events("play").len() == 1);
    net.send_headers(publisher, &source);
    net.send_frames(publisher, &mut source, 30);
    net.until("all frames", |_| viewer.has_all(&source));
    assert_eq!(viewer.tags().assert_whole(&source), 0);
    assert_eq!(viewer.response().unwrap().field("transfer-encoding"), None);
}

#[test]
fn one_track_can_be_asked_for() {
    let (server, mut net, publisher) = publish(ONE, "", "cam");
    let mut source = Source::new(3);
    let audio = Viewer::get(server.http, "/live/cam.flv?video=0");
    let video = Viewer::get(server.http, "/live/cam.flv?audio=0&x=1");
    wait_for("the viewers", || server.events("play").len() == 2);
    net.send_headers(publisher, &source);
    net.send_frames(publisher, &mut source, 60);
    let sent = |wanted: fn(&Item) -> bool| -> Vec<Item> {
        source.sent.iter().filter(|item| wanted(item)).copied().collect()
    };
    let sounds = sent(|item| item.kind == Kind::Audio);
    let pictures = sent(|item| item.kind != Kind::Audio);
    net.until("the sound", |_| audio.tags().frames() == sounds);
    net.until("the pictures", |_| video.tags().frames() == pictures);
    assert_eq!((audio.tags().flags, video.tags().flags), (4, 1), "only what comes is announced");
    assert!(audio.tags().items.iter().all(|item| item.kind != Kind::VideoHeader));
    assert!(video.tags().items.iter().all(|item| item.kind != Kind::AudioHeader));
}

#[test]
fn a_lost_publisher_returns_and_viewers_stay() {
    let (server, mut net, publisher) = publish(ONE, "", "cam");
    let mut source = Source::new(3);
    let viewer = Viewer::get(server.http, "/live/cam.flv");
    wait_for("the viewer", || server.events("play").len() == 1);
    net.send_headers(publisher, &source);
    net.send_frames(publisher, &mut source, 30);
    net.until("the first session", |_| viewer.has_all(&source));
    net.reset(publisher);
    server.wait_log("unpublish", "how", "lost");
    let publisher = net.publish("cam");
    net.until_started(&[publisher]);
    let mut second = Source::new(4);
    net.send_headers(publisher, &second);
    net.send_frames(publisher, &mut second, 30);
    net.until("the second session", |_| viewer.has_all(&second));
    assert!(!viewer.has_ended());
    let got = viewer.tags().frames();
    let (before, after): (Vec<Item>, Vec<Item>) = got.iter().partition(|item| item.tag == 3);
    assert_eq!(before, source.sent);
    assert_eq!(after.first().map(|item| item.kind), Some(Kind::Keyframe));
    let times: Vec<u32> = got.iter().map(|item| item.timestamp).collect();
    assert!(times.is_sorted(), "one timeline");
    let sequences = |items: &[Item]| items.iter().map(|item| item.sequence).collect::<Vec<_>>();
    let all = sequences(&second.sent);
    assert!(all.ends_with(&sequences(&after)), "no gap after the keyframe");
}

#[test]
fn timestamps_beyond_24_bits_arrive_whole() {
    let (server, mut net, publisher) = publish(ONE, "", "cam");
    let mut source = Source::new(3).starting_at(0xFF_FFFF - 500);
    let viewer = Viewer::get(server.http, "/live/cam.flv");
    let websocket = Viewer::websocket(server.http, "/live/cam.flv", "127.0.0.1");
    wait_for("the viewers", || server.events("play").len() == 2);
    net.send_headers(publisher, &source);
    net.send_frames(publisher, &mut source, 60);
    for viewer in [&viewer, &websocket] {
        net.until("all frames", |_| viewer.has_all(&source));
        let got = viewer.tags().frames();
        assert_eq!(got.len(), source.sent.len());
        let offset = source.sent[0].timestamp - got[0].timestamp;
        for (got, sent) in got.iter().zip(&source.sent) {
            assert_eq!(got.timestamp + offset, sent.timestamp);
        }
    }
}

#[test]
fn a_viewer_that_does_not_read_skips_to_a_keyframe_or_goes_and_nobody_else_waits() {
    let settings = "[defaults]\nlag_ms_max = 1000\nstall_ms_max = 2000\n";
    let (server, mut net, publisher) = publish(ONE, settings, "cam");
    let mut source = Source { frame_bytes: 20_000, ..Source::new(3) };
    let lazy = std::net::TcpStream::connect(server.http).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&lazy, 4_096).unwrap();
    std::io::Write::write_all(&mut &lazy, b"GET /live/cam.flv HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    let viewer = Viewer::get(server.http, "/live/cam.flv");
    wait_for("the viewers", || server.events("play").len() == 2);
    net.send_headers(publisher, &source);
    let began = Instant::now();
    net.until("the lazy one to be closed", |net| {
        // Not as fast as it goes, or who reads is behind in stream time, too, when it has no processor.
        if u128::from(source.timestamp) <= 2 * began.elapsed().as_millis() {
            net.send_frames(publisher, &mut source, 1);
        }
        server.has_logged("close", "reason", "stalled")
    });
    net.until("the other to have all", |_| viewer.has_all(&source));
    assert_eq!(viewer.tags().assert_whole(&source), 0);
    drop(lazy);
}

#[test]
fn a_ping_is_answered_and_a_goodbye_too() {
    let (server, _net, _publisher) = publish(ONE, "", "cam");
    let mut viewer = Viewer::websocket(server.http, "/live/cam.flv", "127.0.0.1");
    // A masked ping with "hi", then a masked close with 1000.
    viewer.write(&[0x89, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]);
    wait_for("the pong", || viewer.frames().contains(&(10, b"hi".to_vec())));
    viewer.write(&[0x88, 0x82, 0, 0, 0, 0, 3, 232]);
    viewer.wait_end();
    assert_eq!(viewer.frames().last(), Some(&(8, vec![3, 232])));
}

#[test]
fn a_kick_ends_a_viewer() {
    let (server, mut net, publisher) = publish(ONE, "", "cam");
    let mut source = Source::new(3);
    let viewer = Viewer::get(server.http, "/live/cam.flv");
    net.send_headers(publisher, &source);
    net.send_frames(publisher, &mut source, 30);
    net.until("frames", |_| viewer.has_begun());
    net.until("the log line", |_| !server.events("play").is_empty());
    let id = server.events("play")[0]["conn"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/clients/{id}");
    let kick = Viewer::ask(server.admin, "DELETE", &path, &server.admin.to_string(), "");
    net.until("the answer", |_| kick.response().is_some());
    assert_eq!(kick.response().unwrap().status, 200);
    viewer.wait_end();
    server.wait_log("close", "reason", "kicked");
}

#[test]
fn rtmp_is_taken_on_the_port_of_http() {
    let server = Server::start(ONE, "");
    let mut net = Net::new(server.http);
    let publisher = net.open(ClientRole::Publish, "cam", None);
    net.until_started(&[publisher]);
    let mut source = Source::new(1);
    let viewer = Viewer::get(server.http, "/live/cam.flv");
    wait_for("the viewer", || server.events("play").len() == 1);
    net.send_headers(publisher, &source);
    net.send_frames(publisher, &mut source, 30);
    net.until("all frames", |_| viewer.has_all(&source));
}

#[test]
fn all_viewers_leave_with_the_end_of_their_stream() {
    // Lists of players and of framings shrink while they are walked.
    let (server, mut net, publisher) = publish(ONE, "", "cam");
    let mut source = Source::new(3);
    let viewers: Vec<Viewer> = (0..24)
        .map(|at| match at % 4 {
            0 => Viewer::websocket(server.http, "/live/cam.flv", "h"),
            1 => Viewer::websocket(server.http, "/live/cam.mp4", "h"),
            2 => Viewer::get(server.http, "/live/cam.mp4"),
            _ => Viewer::get(server.http, "/live/cam.flv"),
        })
        .collect();
    wait_for("the viewers", || server.events("play").len() == viewers.len());
    net.send_headers(publisher, &source);
    net.send_frames(publisher, &mut source, 20);
    net.until("media", |_| viewers.iter().all(|viewer| viewer.bytes().len() > 20_000));
    net.unpublish(publisher);
    for viewer in &viewers {
        net.until("the end", |_| viewer.has_ended());
    }
    let ended = || {
        let lines = server.events("close");
        lines.iter().filter(|line| line["reason"] == "stream_ended").count()
    };
    net.until("their log lines", |_| ended() == viewers.len());
}
