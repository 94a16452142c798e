//! What real clients send, and what it is understood as.
//!
//! ```text
//!  testdata/CLIENT-VERSION-WHAT/  c2s.bin         what the client sent on one connection
//!                                 transcript.txt  requests, and frames behind a handshake
//!                                 about.toml      how it was recorded, what is odd about it
//! ```
//!
//! `RINGCAST_UPDATE=1 cargo test -p http1 --test golden` writes transcript.txt anew; look at the
//! difference before you keep it. Each capture is read whole, byte by byte and split in two at
//! every place.

use std::fs;
use std::path::{Path, PathBuf};

use http1::websocket::FrameReader;
use http1::{Limits, Request, RequestReader};

fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut paths = fs::read_dir(folder)
        .expect("testdata is there")
        .map(|entry| entry.expect("a readable entry").path())
        .collect::<Vec<_>>();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn transcript<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut reader = RequestReader::new();
    let mut frames = None::<FrameReader>;
    let mut text = String::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            let Some(reading) = &mut frames else {
                match reader.handle_bytes(&Limits::default(), &mut piece) {
                    Ok(None) => {}
                    Ok(Some(request)) => {
                        frames = request.upgrade.is_some().then(FrameReader::new);
                        text.push_str(&described(&request));
                    }
                    Err(error) => return format!("{text}{error}\n"),
                }
                continue;
            };
            match reading.handle_bytes(&mut piece) {
                Ok(None) => {}
                Ok(Some(event)) => text.push_str(&format!("{event:?}\n")),
                Err(error) => return format!("{text}{error}\n"),
            }
        }
    }
    let is_idle = reader.is_idle() && frames.is_none_or(|frames| frames.is_idle());
    text.push_str(if is_idle { "end between messages\n" } else { "end within a message\n" });
    text
}

/// All of a request, and what is absent left out.
fn described(request: &Request) -> String {
    let Request { method, path, query, host, is_http_1_1, keep_alive, .. } = request;
    let version = if *is_http_1_1 { "1.1" } else { "1.0" };
    let mut text = format!("{method:?} {path} {version} keep_alive={keep_alive}\n");
    let query = (!query.is_empty()).then_some(query);
    for (name, value) in [
        ("query", query),
        ("host", host.as_ref()),
        ("user_agent", request.user_agent.as_ref()),
        ("referer", request.referer.as_ref()),
        ("origin", request.origin.as_ref()),
        ("forwarded_for", request.forwarded_for.as_ref()),
        ("if_none_match", request.if_none_match.as_ref()),
        ("request_headers", request.request_headers.as_ref()),
    ] {
        if let Some(value) = value {
            text.push_str(&format!("  {name}: {value}\n"));
        }
    }
    if let Some(range) = request.range {
        text.push_str(&format!("  range: {range:?}\n"));
    }
    if request.accepts_gzip {
        text.push_str("  accepts_gzip\n");
    }
    if let Some(upgrade) = &request.upgrade {
        text.push_str(&format!("  upgrade: {} {:?}\n", upgrade.key, upgrade.protocol));
    }
    text
}

#[test]
fn transcripts_are_the_stored_ones_wherever_the_bytes_are_split() {
    for capture in captures() {
        let bytes = fs::read(capture.join("c2s.bin")).expect("a recording");
        let whole = transcript([&*bytes].into_iter());
        let stored = capture.join("transcript.txt");
        if std::env::var_os("RINGCAST_UPDATE").is_some() {
            fs::write(&stored, &whole).expect("a writable folder");
        }
        let name = capture.display();
        assert_eq!(whole, fs::read_to_string(stored).expect("a transcript"), "{name}");
        assert_eq!(transcript(bytes.chunks(1)), whole, "{name} byte by byte");
        for split in 0..bytes.len() {
            let (front, back) = bytes.split_at(split);
            assert_eq!(transcript([front, back].into_iter()), whole, "{name} split at {split}");
        }
    }
}
