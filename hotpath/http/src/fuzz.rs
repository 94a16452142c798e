//! Bodies of the fuzz targets, here so that a change of the crate that breaks one fails to
//! compile instead of failing at night. Each asserts more than "does not panic".

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::websocket::{Event, FrameReader};
use crate::{HttpError, Limits, Method, Request, RequestReader};

/// Small, so that short inputs reach them.
pub const LIMITS: Limits = Limits { head_bytes_max: 512, headers_max: 8, body_bytes_max: 64 };

/// Requests up to the end of `data` or an error, and the bytes taken by then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// In order.
    pub requests: Vec<Request>,
    /// What ended it.
    pub error: Option<HttpError>,
    /// See [`RequestReader::bytes_in`].
    pub bytes_in: u64,
    /// No request had begun at the end.
    pub is_idle: bool,
}

/// Reads `data` in pieces of `piece` bytes, checking what holds at every step.
///
/// # Panics
/// When the reader breaks a promise.
pub fn read_requests(limits: &Limits, data: &[u8], piece: usize) -> Outcome {
    let mut reader = RequestReader::new();
    let mut requests = Vec::new();
    let mut error = None;
    'pieces: for mut input in data.chunks(piece.max(1)) {
        loop {
            let before = (input.len(), reader.bytes_in());
            let result = reader.handle_bytes(limits, &mut input);
            let taken = (before.0 - input.len()) as u64;
            assert!(reader.bytes_in() == before.1 + taken, "bytes are counted as taken");
            assert!(reader.held_bytes() <= limits.head_bytes_max, "more is held than allowed");
            match result {
                Ok(Some(request)) => {
                    assert!(reader.is_idle() && reader.held_bytes() == 0 && taken > 0);
                    assert_written_again(&request);
                    requests.push(request);
                }
                Ok(None) => break assert!(input.is_empty(), "bytes are left untaken"),
                Err(found) => {
                    error = Some(found);
                    assert!(reader.held_bytes() == 0 && !reader.is_idle());
                    break 'pieces;
                }
            }
        }
    }
    Outcome { requests, error, bytes_in: reader.bytes_in(), is_idle: reader.is_idle() }
}

/// What is read of a request written again is the request.
fn assert_written_again(request: &Request) {
    let Some(head) = request.to_head() else { return };
    let limits = Limits { head_bytes_max: 1 << 20, headers_max: 16, body_bytes_max: 0 };
    let again = RequestReader::new().handle_bytes(&limits, &mut head.as_bytes());
    assert!(again.as_ref().is_ok_and(|again| again.as_ref() == Some(request)), "{head:?}");
}

/// Bytes of a connection: the first one is the size of the pieces. Pieces do not matter; what was
/// read means the same when it is written down and read again.
///
/// # Panics
/// When the reader breaks a promise.
pub fn requests(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let whole = read_requests(&LIMITS, data, data.len());
    let pieces = read_requests(&LIMITS, data, usize::from(*piece));
    assert!(whole == pieces, "pieces matter: {whole:?} {pieces:?}");
    for request in &whole.requests {
        check(request);
        let again = read_requests(&Limits::default(), written(request).as_bytes(), 4096);
        assert!(again.error.is_none() && again.requests.len() == 1, "{again:?}");
        assert!(again.requests.first() == Some(request), "{request:?} {again:?}");
    }
}

fn check(request: &Request) {
    assert!(request.path.starts_with('/') && !request.path.contains(['?', '#', ' ']));
    assert!(!request.query.contains(['#', ' ']));
    assert!(request.host.as_ref().is_none_or(|host| {
        !host.is_empty() && !host.contains(|c: char| c.is_ascii_uppercase() || c.is_whitespace())
    }));
    if let Some(upgrade) = &request.upgrade {
        assert!(request.method == Method::Get && request.is_http_1_1 && upgrade.key.len() == 24);
    }
}

/// A head that means the same as `request`.
fn written(request: &Request) -> String {
    let method = match request.method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Options => "OPTIONS",
        Method::Other => "POST",
    };
    let minor = u8::from(request.is_http_1_1);
    let (path, query) = (&request.path, &request.query);
    let mut head = format!("{method} {path}?{query} HTTP/1.{minor}\r\n");
    let mut field = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
    field("Host", request.host.as_deref().unwrap_or_default());
    let upgrade = if request.upgrade.is_some() { ", upgrade" } else { "" };
    let keep = if request.keep_alive { "keep-alive" } else { "close" };
    field("Connection", &format!("{keep}{upgrade}"));
    if let Some(upgrade) = &request.upgrade {
        field("Upgrade", "websocket");
        field("Sec-WebSocket-Version", "13");
        field("Sec-WebSocket-Key", &upgrade.key);
        field("Sec-WebSocket-Protocol", upgrade.protocol.as_deref().unwrap_or_default());
    }
    let texts = [
        ("X-Forwarded-For", &request.forwarded_for),
        ("User-Agent", &request.user_agent),
        ("Referer", &request.referer),
        ("Origin", &request.origin),
        ("If-None-Match", &request.if_none_match),
        ("Access-Control-Request-Headers", &request.request_headers),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            field(name, value);
        }
    }
    match request.range {
        Some(crate::ByteRange::Within { first, last }) => {
            field("Range", &format!("bytes={first}-{last}"));
        }
        Some(crate::ByteRange::From(first)) => field("Range", &format!("bytes={first}-")),
        Some(crate::ByteRange::Last(count)) => field("Range", &format!("bytes=-{count}")),
        None => {}
    }
    field("Accept-Encoding", if request.accepts_gzip { "gzip" } else { "identity" });
    head.push_str("\r\n");
    head
}

/// Bytes behind a handshake: the first one is the size of the pieces. Pieces do not matter, and a
/// slow, obvious reader finds the same.
///
/// # Panics
/// When the reader breaks a promise.
pub fn frames(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let whole = read_frames(data, data.len());
    let pieces = read_frames(data, usize::from(*piece));
    assert!(whole == pieces, "pieces matter: {whole:?} {pieces:?}");
    let reference = reference_frames(data);
    assert!(whole == reference, "{whole:?}, the reference says {reference:?}");
}

/// Events, and whether an error ended them.
type Frames = (Vec<Event>, bool);

fn read_frames(data: &[u8], piece: usize) -> Frames {
    let mut reader = FrameReader::new();
    let mut events = Vec::new();
    for mut input in data.chunks(piece.max(1)) {
        loop {
            match reader.handle_bytes(&mut input) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break assert!(input.is_empty(), "bytes are left untaken"),
                Err(_) => return (events, true),
            }
        }
    }
    (events, false)
}

/// Reads whole frames one after the other, with the rules as the specification lists them.
fn reference_frames(mut data: &[u8]) -> Frames {
    let mut events = Vec::new();
    let mut is_fragmented = false;
    loop {
        let (first, second) = match data {
            [] => return (events, false),
            [first] => return (events, first_is_wrong(*first)),
            [first, second, ..] => (*first, *second),
        };
        let opcode = first & 0x0F;
        let is_control = opcode >= 8;
        let short = second & 0x7F;
        if first_is_wrong(first) || second < 0x80 || (is_control && short > 125) {
            return (events, true);
        }
        let width = [(126, 2), (127, 8)].iter().find(|(code, _)| *code == short).map_or(0, |w| w.1);
        let Some(extended) = data.get(2..2 + width) else {
            return (events, width == 8 && data.get(2).is_some_and(|byte| *byte > 0x7F));
        };
        let length = extended.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        let is_shortest = match width {
            0 => true,
            2 => length > 125,
            _ => length > 0xFFFF && length <= u64::MAX / 2,
        };
        if !is_shortest {
            return (events, true);
        }
        let length = if width == 0 { u64::from(short) } else { length };
        let Some(mask) = data.get(2 + width..6 + width) else { return (events, false) };
        if !is_control {
            if (opcode == 0) != is_fragmented {
                return (events, true);
            }
            is_fragmented = first < 0x80;
        }
        let start = 6 + width;
        let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(start);
        let Some(masked) = data.get(start..end) else { return (events, false) };
        data = data.get(end..).unwrap_or_default();
        let payload: Vec<u8> =
            masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        match opcode {
            8 => {
                let event = reference_close(&payload);
                events.extend(event);
                return (events, event.is_none());
            }
            9 => events.push(Event::Ping(payload.as_slice().into())),
            10 => events.push(Event::Pong),
            _ if first < 0x80 => {}
            _ => events.push(Event::Message),
        }
    }
}

fn first_is_wrong(first: u8) -> bool {
    first & 0x70 != 0 || ![0, 1, 2, 0x88, 0x89, 0x8A, 0x80, 0x81, 0x82].contains(&(first & 0x8F))
}

fn reference_close(payload: &[u8]) -> Option<Event> {
    if payload.is_empty() {
        return Some(Event::Close(None));
    }
    let (code, reason) = payload.split_first_chunk::<2>()?;
    let code = u16::from_be_bytes(*code);
    let is_known = (1000..1015).contains(&code) && ![1004, 1005, 1006].contains(&code);
    let is_fine = (is_known || (3000..5000).contains(&code)) && str::from_utf8(reason).is_ok();
    is_fine.then_some(Event::Close(Some(code)))
}
