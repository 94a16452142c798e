//! Requests by which peers try to be two things at once, too much, or nothing: what each is told.
//!
//! Every case is also read byte by byte and at each split, since an attacker chooses those too.

use http1::{HttpError, Limits, Method, fuzz};

const LIMITS: Limits = Limits { head_bytes_max: 400, headers_max: 8, body_bytes_max: 32 };

/// Outcome of `text`, which must not depend on its pieces.
fn read(name: &str, text: &[u8]) -> fuzz::Outcome {
    let whole = fuzz::read_requests(&LIMITS, text, text.len());
    for piece in 1..text.len().min(40) {
        assert_eq!(fuzz::read_requests(&LIMITS, text, piece), whole, "{name} by {piece}");
    }
    whole
}

fn assert_refused(error: HttpError, cases: &[(&str, &str)]) {
    for (name, text) in cases {
        let outcome = read(name, text.as_bytes());
        assert_eq!(outcome.error, Some(error), "{name}");
        assert!(outcome.requests.is_empty(), "{name}");
    }
}

#[test]
fn bodies_whose_end_is_ambiguous_are_refused() {
    let cases = [
        ("both lengths", "Content-Length: 3\r\nTransfer-Encoding: chunked"),
        ("both, other order", "Transfer-Encoding: chunked\r\nContent-Length: 3"),
        ("both, length 0", "Transfer-Encoding: chunked\r\nContent-Length: 0"),
        ("two lengths", "Content-Length: 3\r\nContent-Length: 4"),
        ("two lengths in a list", "Content-Length: 3, 4"),
        ("the same length twice", "Content-Length: 3\r\ncontent-length: 3"),
        ("the same length in a list", "Content-Length: 3, 3"),
        ("signed length", "Content-Length: +3"),
        ("negative length", "Content-Length: -3"),
        ("hexadecimal length", "Content-Length: 0x3"),
        ("length with space", "Content-Length: 3 3"),
        ("fraction", "Content-Length: 3.0"),
        ("empty length", "Content-Length:"),
        ("quoted length", "Content-Length: \"3\""),
        ("chunked twice", "Transfer-Encoding: chunked, chunked"),
        ("chunked in two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("chunked is not last", "Transfer-Encoding: chunked, gzip"),
        ("chunked with an empty element", "Transfer-Encoding: chunked,"),
        ("empty coding", "Transfer-Encoding:"),
    ];
    for (name, fields) in cases {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        assert_refused(HttpError::BodyLength, &[(name, &text)]);
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_refused(HttpError::BodyLength, &[("chunked in 1.0", old)]);
}

#[test]
fn codings_that_are_not_spoken_are_named_so() {
    for coding in ["gzip", "gzip, chunked", "identity", "xchunked", "chunked;q=1", "\"chunked\""] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n");
        assert_refused(HttpError::TransferCoding, &[(coding, &text)]);
    }
}

#[test]
fn lines_and_fields_that_readers_see_differently_are_refused() {
    assert_refused(
        HttpError::LineEnd,
        &[
            ("bare LF", "GET / HTTP/1.1\nHost: a\n\n"),
            ("bare LF in the fields", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
            ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
            ("bare CR", "GET / HTTP/1.1\r\nX: a\rHost: b\r\n\r\n"),
            ("two CR", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
            ("LF first", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
    );
    assert_refused(
        HttpError::FoldedHeader,
        &[
            ("folded", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
            ("folded by tab", "GET / HTTP/1.1\r\nHost: a\r\n\tContent-Length: 3\r\n\r\n"),
            ("first field indented", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
            ("line of a space", "GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n"),
        ],
    );
    assert_refused(
        HttpError::Header,
        &[
            ("space before colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\n"),
            ("tab before colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 3\r\n\r\n"),
            ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
            ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
            ("name with space", "GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n"),
            ("name in quotes", "GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n"),
            ("name beyond ASCII", "GET / HTTP/1.1\r\nHost: a\r\nÄ: b\r\n\r\n"),
        ],
    );
    assert_refused(
        HttpError::ControlCharacter,
        &[
            ("zero in a value", "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n"),
            ("zero in a name", "GET / HTTP/1.1\r\nX\0: a\r\n\r\n"),
            ("vertical tab", "POST / HTTP/1.1\r\nTransfer-Encoding: \x0Bchunked\r\n\r\n"),
            ("delete", "GET /\x7F HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("tab in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("TLS", "\x16\x03\x01\x02"),
        ],
    );
}

#[test]
fn what_is_no_request_line_is_refused() {
    assert_refused(
        HttpError::RequestLine,
        &[
            ("one word", "GET\r\n\r\n"),
            ("HTTP/0.9", "GET /\r\n\r\n"),
            ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
            ("space first", " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n"),
            ("no number", "GET / HTTP/1.x\r\nHost: a\r\n\r\n"),
            ("long number", "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
            ("method with slash", "G/T / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("many empty lines", "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
    );
    assert_refused(
        HttpError::Version,
        &[
            ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
            ("HTTP/0.9 spelt out", "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
        ],
    );
    assert_refused(
        HttpError::Target,
        &[
            ("tunnel", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
            ("asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("relative", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("other scheme", "GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("user name", "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n"),
            ("no authority", "GET http:///a HTTP/1.1\r\nHost: b\r\n\r\n"),
        ],
    );
}

#[test]
fn hosts_are_one_and_well_formed() {
    assert_refused(
        HttpError::Host,
        &[
            ("missing", "GET / HTTP/1.1\r\n\r\n"),
            ("missing with absolute target", "GET http://a/ HTTP/1.1\r\n\r\n"),
            ("two", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            ("the same twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            ("two in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
            ("a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
            ("a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
            ("a list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
            ("a port beyond", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"),
            ("malformed beside an absolute target", "GET http://a/ HTTP/1.1\r\nHost: b/\r\n\r\n"),
        ],
    );
}

#[test]
fn what_is_too_much_is_named_so() {
    let long = "a".repeat(401);
    let line = format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_refused(HttpError::UriTooLong, &[("long target", &line), ("endless method", &long)]);
    let field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n");
    let fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X:\r\n".repeat(8));
    assert_refused(HttpError::HeadTooLarge, &[("long field", &field), ("nine fields", &fields)]);
    let fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X:\r\n".repeat(7));
    assert_eq!(read("eight fields", fields.as_bytes()).requests.len(), 1);
    for length in ["33", "18446744073709551615", "99999999999999999999999999"] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        assert_refused(HttpError::BodyTooLarge, &[(length, &text)]);
    }
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_refused(HttpError::BodyTooLarge, &[("long chunk", &format!("{chunked}21\r\n"))]);
    let trailer = format!("{chunked}0\r\nX: {long}\r\n\r\n");
    assert_refused(HttpError::HeadTooLarge, &[("long trailer", &trailer)]);
}

#[test]
fn a_head_may_be_as_long_as_allowed_and_not_a_byte_longer() {
    let with = |fill: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(fill));
    let fill = LIMITS.head_bytes_max - with(0).len();
    assert_eq!(read("longest", with(fill).as_bytes()).requests.len(), 1);
    assert_refused(HttpError::HeadTooLarge, &[("longer", &with(fill + 1))]);
}

#[test]
fn a_smuggled_request_never_comes_out() {
    let chunked = "Transfer-Encoding: chunked";
    for (fields, body) in [
        ("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("Transfer-Encoding:chunked\r\nTransfer-Encoding: x", "0\r\n\r\n"),
        (chunked, "3\nabc\r\n0\r\n\r\n"),
        (chunked, "3 ;\r\nabc\r\n0\r\n\r\n"),
        (chunked, "3;\nabc\r\n0\r\n\r\n"),
        (chunked, "3\r\nabc0\r\n\r\n"),
        (chunked, "-1\r\n"),
        (chunked, "10000000000000000\r\n"),
    ] {
        let smuggled = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}{smuggled}");
        let outcome = read(&text, text.as_bytes());
        assert!(outcome.error.is_some() && outcome.requests.is_empty(), "{text}");
    }
}

#[test]
fn bodies_are_skipped_and_the_next_request_is_found() {
    let text = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\nab\
                GET /2 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc\r\n\
                PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n\
                HEAD /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let outcome = read("bodies", text.as_bytes());
    assert_eq!(outcome.error, None);
    assert!(outcome.is_idle);
    let requests = outcome.requests.iter().map(|r| (r.method, &*r.path)).collect::<Vec<_>>();
    let expected =
        [(Method::Other, "/1"), (Method::Get, "/2"), (Method::Other, "/3"), (Method::Head, "/4")];
    assert_eq!(requests, expected);
}

#[test]
fn persistence_follows_version_and_connection() {
    for (version, connection, expected) in [
        ("1.1", None, true),
        ("1.1", Some("close"), false),
        ("1.1", Some("keep-alive, Close"), false),
        ("1.1", Some("closed"), true),
        ("1.0", None, false),
        ("1.0", Some("Keep-Alive"), true),
        ("1.0", Some("x, keep-alive"), true),
        ("1.0", Some("keep-alive\r\nConnection: close"), false),
    ] {
        let field = connection.map_or(String::new(), |value| format!("Connection: {value}\r\n"));
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n");
        let outcome = read("persistence", text.as_bytes());
        assert_eq!(outcome.requests[0].keep_alive, expected, "{version} {connection:?}");
        assert_eq!(outcome.requests[0].is_http_1_1, version == "1.1");
    }
}

#[test]
fn the_host_of_an_absolute_target_counts() {
    let outcome = read("absolute", b"GET http://B:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n");
    let request = &outcome.requests[0];
    assert_eq!(request.host.as_deref(), Some("b:80"));
    assert_eq!((&*request.path, &*request.query), ("/x", "y"));
    let outcome = read("asterisk", b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n");
    assert_eq!((outcome.requests[0].host.as_deref(), &*outcome.requests[0].path), (None, "/"));
}

/// A handshake with one line replaced or left out.
fn handshake(replaced: &str, by: &str) -> String {
    let lines = [
        "GET /live/a.flv HTTP/1.1",
        "Host: a",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];
    let mut text = String::new();
    for line in lines {
        let line = if !replaced.is_empty() && line.starts_with(replaced) { by } else { line };
        if !line.is_empty() {
            text.push_str(line);
            text.push_str("\r\n");
        }
    }
    text + "\r\n"
}

#[test]
fn handshakes_of_browsers_and_proxies_are_accepted() {
    for (name, replaced, by) in [
        ("plain", "", ""),
        ("list", "Connection", "Connection: keep-alive, upgrade"),
        ("two fields", "Connection", "Connection: keep-alive\r\nConnection: Upgrade"),
        ("upgrade list", "Upgrade", "Upgrade: h2c, WebSocket"),
        ("absolute", "GET", "GET ws://a/live/a.flv HTTP/1.1"),
        ("empty body", "Host", "Host: a\r\nContent-Length: 0"),
    ] {
        let outcome = read(name, handshake(replaced, by).as_bytes());
        let upgrade = outcome.requests[0].upgrade.as_ref();
        assert_eq!(upgrade.map(|u| &*u.key), Some("dGhlIHNhbXBsZSBub25jZQ=="), "{name}");
    }
    let with = handshake("Host", "Host: a\r\nSec-WebSocket-Protocol: flv, mp4");
    let outcome = read("protocol", with.as_bytes());
    assert_eq!(outcome.requests[0].upgrade.as_ref().unwrap().protocol.as_deref(), Some("flv"));
}

#[test]
fn handshakes_that_lack_something_are_refused_and_other_upgrades_ignored() {
    for (name, replaced, by) in [
        ("post", "GET", "POST / HTTP/1.1"),
        ("head", "GET", "HEAD / HTTP/1.1"),
        ("1.0", "GET", "GET / HTTP/1.0"),
        ("no connection", "Connection", ""),
        ("other connection", "Connection", "Connection: keep-alive"),
        ("no key", "Sec-WebSocket-Key", ""),
        ("short key", "Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="),
        ("two keys", "Host", "Host: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("no version", "Sec-WebSocket-Version", ""),
        ("two versions", "Host", "Host: a\r\nSec-WebSocket-Version: 13"),
        ("body", "Host", "Host: a\r\nContent-Length: 1"),
        ("chunked body", "Host", "Host: a\r\nTransfer-Encoding: chunked"),
    ] {
        assert_refused(HttpError::BadUpgrade, &[(name, &handshake(replaced, by))]);
    }
    for version in ["8", "0", "14", "13, 8", "013", ""] {
        let text = handshake("Sec-WebSocket-V", &format!("Sec-WebSocket-Version: {version}"));
        assert_refused(HttpError::UpgradeVersion, &[(version, &text)]);
    }
    for upgrade in ["Upgrade: h2c", "Upgrade: websockets", "Upgrade: web, socket", ""] {
        let outcome = read(upgrade, handshake("Upgrade", upgrade).as_bytes());
        assert_eq!(outcome.requests[0].upgrade, None, "{upgrade}");
    }
}

#[test]
fn frames_behind_a_handshake_are_left_to_their_reader() {
    let mut text = handshake("", "").into_bytes();
    text.extend([0x81, 0x80, 1, 2, 3, 4]);
    let mut input = &*text;
    let mut reader = http1::RequestReader::new();
    assert!(reader.handle_bytes(&LIMITS, &mut input).unwrap().is_some());
    assert_eq!(input.len(), 6);
}
