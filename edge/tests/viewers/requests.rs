//! Requests that are no stream: methods, names, refusals, limits.

use crate::support::client::Net;
use crate::support::server::{How, Server, wait_for};
use crate::support::viewer::Viewer;

const ONE: How = How { io: "epoll", workers: 1 };

#[test]
fn every_page_may_read_and_every_method_but_three_is_refused() {
    let server = Server::start(ONE, "");
    let options = Viewer::ask(
        server.http,
        "OPTIONS",
        "/live/cam.m3u8",
        "h",
        "Origin: http://page\r\nAccess-Control-Request-Headers: range, x-y\r\n",
    )
    .wait_response();
    assert_eq!(options.status, 204);
    assert_eq!(options.field("access-control-allow-origin"), Some("*"));
    assert_eq!(options.field("access-control-allow-headers"), Some("range, x-y"));
    let post = Viewer::ask(server.http, "POST", "/live/cam.flv", "h", "Content-Length: 0\r\n");
    let post = post.wait_response();
    assert_eq!((post.status, post.field("allow")), (405, Some("GET, HEAD, OPTIONS")));
    for path in ["/", "/live/cam", "/favicon.ico", "/live/cam.avi"] {
        assert_eq!(Viewer::get(server.http, path).wait_response().status, 404, "{path}");
    }
}

#[test]
fn an_answer_without_a_body_is_followed_by_the_next_answer() {
    let server = Server::start(ONE, "");
    let requests = "OPTIONS /a HTTP/1.1\r\nHost: h\r\n\r\n\
                    GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let viewer = Viewer::send(server.http, requests.as_bytes());
    viewer.wait_end();
    let options = viewer.response().unwrap();
    assert_eq!(options.status, 204);
    assert!(options.text().starts_with("HTTP/1.1 404 Not Found\r\n"), "{:?}", options.text());
}

#[test]
fn one_connection_serves_one_request_after_another_also_when_they_come_together() {
    let server = Server::start(ONE, "");
    let request = "GET /none HTTP/1.1\r\nHost: h\r\n\r\n";
    let viewer = Viewer::send(server.http, request.repeat(50).as_bytes());
    let count = || {
        let bytes = viewer.bytes();
        String::from_utf8_lossy(&bytes).matches("HTTP/1.1 404 Not Found\r\n").count()
    };
    wait_for("fifty answers", || count() == 50);
    assert!(!viewer.has_ended());
    let last = Viewer::ask(server.http, "GET", "/none", "h", "Connection: close\r\n");
    last.wait_end();
    assert_eq!(last.wait_response().field("connection"), Some("close"));
}

#[test]
fn a_stream_nobody_publishes_is_not_found_after_a_while() {
    let server = Server::start(ONE, "[defaults]\nhttp_wait_ms = 300\n");
    let flv = Viewer::get(server.http, "/live/none.flv");
    let websocket = Viewer::websocket(server.http, "/live/none.flv", "h");
    let playlist = Viewer::get(server.http, "/live/none.m3u8");
    assert_eq!(flv.wait_response().status, 404);
    assert_eq!(flv.wait_response().text(), "nobody publishes this stream\n");
    assert_eq!(playlist.wait_response().status, 404);
    websocket.wait_end();
    let (opcode, close) = websocket.frames().pop().unwrap();
    assert_eq!((opcode, &close[2..]), (8, &b"nobody publishes this stream"[..]));
    let head = Viewer::ask(server.http, "HEAD", "/live/none.flv", "h", "").wait_response();
    assert_eq!((head.status, head.body.len()), (404, 0));
}

#[test]
fn head_tells_what_get_would_without_playing() {
    let server = Server::start(ONE, "");
    let mut net = Net::new(server.rtmp);
    let publisher = net.publish("cam");
    net.until_started(&[publisher]);
    for (path, content_type) in [("/live/cam.flv", "video/x-flv"), ("/live/cam.mp4", "video/mp4")] {
        let head = Viewer::ask(server.http, "HEAD", path, "h", "");
        head.wait_end();
        let head = head.response().unwrap();
        assert_eq!((head.status, head.field("content-type")), (200, Some(content_type)));
        assert!(head.body.is_empty() && head.field("content-length").is_none());
    }
    assert!(server.events("play").is_empty());
}

#[test]
fn a_refused_viewer_is_told_why() {
    let settings = r#"
        [domain."play.example"]
        type = "play"
        push_domain = "push.example"
        [[domain."play.example".provider]]
        scheme = "txsecret"
        key = "0123456789abcdef"
        [domain."push.example"]
        type = "push"
        [[domain."push.example".provider]]
        scheme = "txsecret"
        key = "0123456789abcdef"
    "#;
    let server = Server::start(ONE, settings);
    for suffix in ["flv", "m3u8", "mp4"] {
        let path = format!("/live/cam.{suffix}?txSecret=00&txTime=5FFFFFFF");
        let refused = Viewer::ask(server.http, "GET", &path, "play.example", "").wait_response();
        assert_eq!(refused.status, 403, "{suffix}");
        let reason = refused.field("x-tengine-error").expect("the reason").to_owned();
        assert_eq!(refused.text().trim_end(), reason);
        assert!(reason.starts_with("denied by req auth"), "{reason}");
    }
    let unknown = Viewer::ask(server.http, "GET", "/live/cam.flv", "other.example", "");
    let unknown = unknown.wait_response();
    assert_eq!((unknown.status, unknown.text()), (403, "unknown domain other.example\n"));
    let websocket = Viewer::websocket(server.http, "/live/cam.mp4?txSecret=00", "play.example");
    websocket.wait_end();
    let (opcode, close) = websocket.frames().pop().unwrap();
    assert_eq!((opcode, &close[..2]), (8, &[3, 240][..]), "code 1008");
    assert!(close[2..].starts_with(b"denied by req auth"));
}

#[test]
fn what_is_no_request_gets_an_answer_and_the_end() {
    let server = Server::start(ONE, "");
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (long.as_str(), 414),
    ] {
        let viewer = Viewer::send(server.http, bytes.as_bytes());
        viewer.wait_end();
        assert_eq!(viewer.response().unwrap().status, status, "{bytes:.40}");
    }
    // Counted when the peer's own end has been seen.
    wait_for("four disconnects to be counted", || {
        server.metric("ringcast_disconnects_total", "reason=\"protocol_error\"") >= 4
    });
}

#[test]
fn a_request_that_never_ends_is_ended() {
    let server = Server::start(ONE, "");
    let mut viewer = Viewer::send(server.http, b"GET / HTTP/1.1\r\nHost: h\r\n");
    for _ in 0..4 {
        std::thread::yield_now();
        viewer.write(b"X: y\r\n");
    }
    viewer.wait_end();
    assert_eq!(viewer.response().unwrap().status, 408);
}

#[test]
fn the_rtmp_port_serves_no_http() {
    let server = Server::start(ONE, "");
    let viewer = Viewer::get(server.rtmp, "/live/cam.flv");
    viewer.wait_end();
    assert_eq!(viewer.response().unwrap().status, 404);
}

#[test]
fn a_server_that_drains_tells_its_viewers() {
    let server = Server::start(ONE, "");
    let mut net = Net::new(server.rtmp);
    let publisher = net.publish("cam");
    net.until_started(&[publisher]);
    let waiting = Viewer::get(server.http, "/live/none.flv");
    let playlist = Viewer::get(server.http, "/live/none.m3u8");
    let live = Viewer::websocket(server.http, "/live/cam.flv", "h");
    net.until("the viewers", |_| {
        server.events("play").len() == 2
            && server.metric("ringcast_connections_accepted_total", "") >= 4
    });
    server.signal(rustix::process::Signal::TERM);
    for viewer in [&waiting, &playlist] {
        net.until("the answer", |_| viewer.has_ended());
        assert_eq!(viewer.response().unwrap().status, 503);
    }
    net.until("the goodbye", |_| live.has_ended());
    let (opcode, close) = live.frames().pop().unwrap();
    assert_eq!((opcode, &close[..2]), (8, &[3, 233][..]), "code 1001");
}

#[test]
fn a_viewer_behind_a_trusted_proxy_is_known_by_its_own_address() {
    let settings = "[listen]\nproxy_from = \"127.0.0.0/8\"\n[defaults]\nhttp_wait_ms = 200\n";
    let server = Server::start(ONE, settings);
    // What stands left of the nearest stranger is the stranger's word.
    let fields = "X-Forwarded-For: 198.51.100.1, 203.0.113.9, 127.0.0.7\r\n";
    let viewer = Viewer::ask(server.http, "GET", "/live/cam.flv", "h", fields);
    assert_eq!(viewer.wait_response().status, 404);
    server.wait_log("play", "peer", "203.0.113.9:0");

    let server = Server::start(ONE, "[defaults]\nhttp_wait_ms = 200\n");
    let viewer = Viewer::ask(server.http, "GET", "/live/cam.flv", "h", fields);
    assert_eq!(viewer.wait_response().status, 404);
    wait_for("the log line", || !server.events("play").is_empty());
    let peer = server.events("play")[0]["peer"].as_str().unwrap().to_owned();
    assert!(peer.starts_with("127.0.0.1:"), "nobody's word is taken unasked: {peer}");
}
