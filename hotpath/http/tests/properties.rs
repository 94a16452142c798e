//! Any bytes in any pieces: nothing panics, nothing is held beyond its limit, pieces never matter,
//! and what was built comes out again.

use http1::{Limits, Method, fuzz};
use proptest::prelude::*;

/// Parts of requests that make sense next to each other often enough.
const PARTS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"OPTIONS ",
    b"/a.flv?x=1",
    b"http://Host:80/b",
    b"*",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b" HTTP/2.0\r\n",
    b"Host: a\r\n",
    b"Host:",
    b"Content-Length: 3\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: upgrade, close\r\n",
    b"Upgrade: websocket\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"Range: bytes=1-2\r\n",
    b"X-Forwarded-For: 1.2.3.4\r\n",
    b"If-None-Match:\r\n",
    b"Accept-Encoding: gzip\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"0\r\nT: x\r\n\r\n",
    b"abc",
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b":",
    b"\0",
    b"\xC3\xA4",
    b"\xFF",
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
];

/// A body as it is written, its bytes on the wire, and the fields that announce it.
fn body() -> impl Strategy<Value = (String, Vec<u8>)> {
    let chunk = (prop::collection::vec(any::<u8>(), 1..20), "(;[a-z]{0,5}(=\"[a-z;]{0,3}\")?)?");
    prop_oneof![
        Just((String::new(), Vec::new())),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| (format!("Content-Length: {}\r\n", bytes.len()), bytes)),
        (prop::collection::vec(chunk, 0..3), "([A-Z][a-z]{0,4}: [a-z ]{0,5}\r\n){0,2}").prop_map(
            |(chunks, trailer)| {
                let mut wire = Vec::new();
                for (bytes, extension) in chunks {
                    wire.extend(format!("{:X}{extension}\r\n", bytes.len()).bytes());
                    wire.extend(bytes);
                    wire.extend(b"\r\n");
                }
                wire.extend(format!("0\r\n{trailer}\r\n").bytes());
                ("Transfer-Encoding: chunked\r\n".into(), wire)
            }
        ),
    ]
}

/// A request with what should be read of it.
fn request() -> impl Strategy<Value = (Vec<u8>, (Method, String, String, bool))> {
    let method = prop_oneof![
        Just(("GET", Method::Get)),
        Just(("HEAD", Method::Head)),
        Just(("OPTIONS", Method::Options)),
        Just(("POST", Method::Other)),
        Just(("get", Method::Other)),
    ];
    let target = ("(/[!-\"$-.0->@-~ä]{0,8}){1,3}", "[!-\"$-~]{0,10}");
    let fields =
        prop::collection::vec("X-[A-Za-z0-9-]{0,8}:[ \t]{0,2}[!-~ä直]{0,10}[ \t]{0,2}", 0..4);
    let close = prop_oneof![Just(""), Just("Connection: close\r\n")];
    (method, target, fields, body(), close, 0..3_usize).prop_map(
        |((word, method), (path, query), fields, (announced, wire), close, blank)| {
            let mut bytes = "\r\n".repeat(blank).into_bytes();
            bytes.extend(format!("{word} {path}?{query} HTTP/1.1\r\nHost: a\r\n").bytes());
            for field in fields {
                bytes.extend(format!("{field}\r\n").bytes());
            }
            bytes.extend(format!("{close}{announced}\r\n").bytes());
            bytes.extend(wire);
            (bytes, (method, path, query, close.is_empty()))
        },
    )
}

/// Lengths around those at which a frame's header changes.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![20 => 0..130_usize, 1 => 65_530..65_540_usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_keep_every_promise(data in prop::collection::vec(any::<u8>(), 0..800)) {
        fuzz::requests(&data);
        fuzz::frames(&data);
    }

    #[test]
    fn mixtures_of_parts_keep_every_promise(
        piece in any::<u8>(),
        parts in prop::collection::vec(0..PARTS.len(), 0..40),
    ) {
        let mut data = vec![piece];
        data.extend(parts.iter().flat_map(|part| PARTS[*part]));
        fuzz::requests(&data);
    }

    #[test]
    fn damaged_requests_keep_every_promise(
        request in request(),
        piece in any::<u8>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut data = vec![piece];
        data.extend(request.0);
        for (place, byte) in damage {
            let place = place.index(data.len());
            data[place] = byte;
        }
        fuzz::requests(&data);
    }

    #[test]
    fn pipelined_requests_come_out_as_they_were_built(
        requests in prop::collection::vec(request(), 1..5),
        piece in 1..200_usize,
    ) {
        let wire = requests.iter().flat_map(|request| request.0.clone()).collect::<Vec<_>>();
        let outcome = fuzz::read_requests(&Limits::default(), &wire, piece);
        prop_assert_eq!(outcome.error, None);
        prop_assert!(outcome.is_idle);
        prop_assert_eq!(outcome.bytes_in, wire.len() as u64);
        let read = outcome
            .requests
            .into_iter()
            .map(|request| (request.method, request.path, request.query, request.keep_alive))
            .collect::<Vec<_>>();
        let built = requests.into_iter().map(|request| request.1).collect::<Vec<_>>();
        prop_assert_eq!(read, built);
    }

    #[test]
    fn frames_of_all_kinds_keep_every_promise(
        piece in any::<u8>(),
        frames in prop::collection::vec((any::<u8>(), length(), any::<[u8; 4]>(), 0..20_u8), 0..8),
    ) {
        let mut data = vec![piece];
        for (first, length, mask, oddity) in frames {
            // Mostly frames that exist; now and then any bits, no mask, a form that is too long.
            let known = [0x82, 0x81, 0x89, 0x8A, 0x01, 0x00, 0x80, 0x88][usize::from(first % 8)];
            data.push(if oddity == 0 { first } else { known });
            let masked = if oddity == 1 { 0 } else { 0x80 };
            match length {
                0..=125 if oddity != 2 => data.push(masked | u8::try_from(length).unwrap()),
                0..=0xFFFF if oddity != 3 => {
                    data.push(masked | 126);
                    data.extend(u16::try_from(length).unwrap().to_be_bytes());
                }
                _ => {
                    data.push(masked | 127);
                    data.extend((length as u64).to_be_bytes());
                }
            }
            data.extend(mask);
            data.extend((0..length).map(|at| at.to_le_bytes()[0]));
        }
        fuzz::frames(&data);
    }
}

#[test]
fn a_request_split_in_two_anywhere_is_the_same() {
    let text = b"\r\nPOST http://H/a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3;x\r\nabc\r\n0\r\nT: x\r\n\r\nGET /c HTTP/1.0\r\n\r\n";
    let limits = Limits::default();
    let whole = fuzz::read_requests(&limits, text, text.len());
    assert_eq!(whole.requests.len(), 2);
    for split in 0..=text.len() {
        let mut reader = http1::RequestReader::new();
        let mut requests = Vec::new();
        for mut piece in [&text[..split], &text[split..]] {
            while let Some(request) = reader.handle_bytes(&limits, &mut piece).unwrap() {
                requests.push(request);
            }
        }
        assert_eq!(requests, whole.requests, "split at {split}");
    }
}

#[test]
fn the_corpus_keeps_every_promise() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, body) in [("requests", fuzz::requests as fn(&[u8])), ("frames", fuzz::frames)] {
        let files = std::fs::read_dir(folder.join(target)).unwrap().collect::<Vec<_>>();
        assert!(!files.is_empty());
        for file in files {
            body(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}
