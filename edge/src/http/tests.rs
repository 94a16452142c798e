//! What one connection is told, in order, without sockets.

use super::*;

const NOW: Millis = Millis(1_000);
const LIMITS: http1::Limits =
    http1::Limits { head_bytes_max: 16 * 1024, headers_max: 64, body_bytes_max: 64 * 1024 };

/// A session that was asked for a live stream in this form.
fn asked(fields: &str, framing: FramingKind) -> HttpSession {
    let mut session = HttpSession::new(NOW);
    let text = format!("GET /live/cam.flv HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let mut input = text.as_bytes();
    let reader = session.reader(NOW).expect("a request is wanted");
    let request = reader.handle_bytes(&LIMITS, &mut input).unwrap().expect("it is whole");
    let route = Route::read(&request.path, &request.query, request.upgrade.is_some());
    session.begin(Asked { request, route, client: [127, 0, 0, 1].into() }, NOW);
    session.begin_live(framing);
    session
}

fn begin(session: &mut HttpSession) {
    let start = ViewerStart { is_first: true, tracks: None, timestamp: 0, date: "today" };
    assert!(session.write_preamble(&start, Selection::all(1), None));
}

fn told(session: &mut HttpSession) -> Vec<u8> {
    let mut out = Vec::new();
    session.take_replies(&mut out);
    out
}

fn heads(bytes: &[u8]) -> usize {
    bytes.windows(9).filter(|window| *window == b"HTTP/1.1 ").count()
}

#[test]
fn a_stream_that_has_begun_is_the_only_answer_however_it_ends() {
    for is_end_known in [true, false] {
        let mut session = asked("", FramingKind::Flv(Wrap::Chunk));
        begin(&mut session);
        if is_end_known {
            session.end_of_stream();
        }
        // What waits for its publisher for too long is not found.
        session.answer(&Answer::text(404, "nobody publishes this stream"), "today", NOW);
        let bytes = told(&mut session);
        assert_eq!(heads(&bytes), 1, "{:?}", String::from_utf8_lossy(&bytes));
        assert!(bytes.starts_with(b"HTTP/1.1 200 ") && bytes.ends_with(b"\r\n0\r\n\r\n"));
        assert!(session.has_ended());
    }
    // Before it has begun it is answered like any other.
    let mut session = asked("", FramingKind::Flv(Wrap::Chunk));
    session.answer(&Answer::text(404, "nobody publishes this stream"), "today", NOW);
    let bytes = told(&mut session);
    assert!(heads(&bytes) == 1 && bytes.starts_with(b"HTTP/1.1 404 "));
}

#[test]
fn a_websocket_is_closed_once() {
    let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    type Closing = fn(&mut HttpSession);
    let at_its_end: Closing = |session| {
        session.end_of_stream();
        session.refuse_websocket("nobody publishes this stream", NOW);
    };
    let in_a_drain: Closing = |session| {
        session.answer_close(None);
        session.go_away();
        session.end_of_stream();
    };
    for close in [at_its_end, in_a_drain] {
        let mut session = asked(fields, FramingKind::Flv(Wrap::WebSocket));
        begin(&mut session);
        told(&mut session);
        close(&mut session);
        let bytes = told(&mut session);
        // One close frame of code 1000, and nothing behind its reason.
        assert_eq!(&bytes[..4], &[0x88, bytes[1], 3, 232]);
        assert_eq!(bytes.len(), 2 + usize::from(bytes[1]));
    }
}
