//! Bodies of the fuzz targets, here so that a change of the crate that breaks one fails to compile
//! instead of failing at night. Each asserts more than "does not panic"; see fuzz/README.md.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use live::path::{StreamPath, resolve};
use live::publisher::{Publisher, PublisherConfig};
use live::subscriber::Subscriber;
use ring::{Arena, RingConfig, stream_ring};
use rtmp::Millis;
use rtmp::session::ServerSession;
use serde_json::Value;

use crate::access::Role;
use crate::access::Suffix;
use crate::access::providers::aliyun::AuthKey;
use crate::access::providers::jwt::{Jwt, KeySet, LEEWAY_S_DEFAULT};
use crate::access::providers::oss::{AccessKey, SignedUrl};
use crate::access::providers::txsecret::TxSecret;
use crate::access::providers::usersig::ticket::{Ticket, TicketError};
use crate::access::providers::usersig::{RoomPlace, TicketKeys, UserSig};
use crate::access::providers::{Keys, Presented, Provider};
use crate::access::secret::SecretText;
use crate::certs::pem;
use crate::config::{VhostSettings, load};
use crate::front::{FIRST_BYTES, FrontDoor, PROXY_BYTES_MAX, Step};
use crate::hand_over::record::SpokenRecord;
use crate::hand_over::wire;
use crate::hls::{Hls, HlsSettings, Passed};
use crate::storage::StorageQueue;

/// Now, in Unix seconds.
const NOW: u64 = 1_800_000_000;
/// How long every key is: what nobody guesses.
const KEY: &str = "a key of the fuzz targets that no input contains";

/// What the front door makes of a connection, and how many bytes it has asked for beyond what came.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Door {
    Decided { protocol: crate::front::Protocol, rest: Vec<u8>, client: Option<String> },
    Undecided,
    Refused,
}

/// Feeds the door as a worker does: never more than it asked for, in pieces of at most `piece` bytes.
fn open_door(is_trusted: bool, data: &[u8], piece: usize) -> Door {
    let mut door = FrontDoor::new(is_trusted);
    let (mut rest, mut wanted) = (data, FIRST_BYTES);
    let mut taken = 0;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(wanted.min(piece).min(rest.len()));
        (rest, taken) = (later, taken + now.len());
        match door.handle_bytes(now) {
            Ok(Step::More(more)) => {
                assert!(
                    more > 0 && taken + more <= PROXY_BYTES_MAX,
                    "asks for {more} behind {taken}"
                );
                wanted = more;
            }
            Ok(Step::Decided { protocol, rest: decided }) => {
                assert!(!decided.is_empty() && data[..taken].ends_with(&decided));
                let whole = [decided.as_slice(), rest].concat();
                let client = door.client().map(|client| client.to_string());
                assert!(is_trusted || client.is_none(), "nobody else speaks for others");
                return Door::Decided { protocol, rest: whole, client };
            }
            Err(_) => return Door::Refused,
        }
    }
    Door::Undecided
}

/// The first bytes of a connection: who calls and in which protocol does not depend on how they come, as
/// long as the first piece is whole; no byte behind a PROXY header is swallowed.
///
/// # Panics
/// When the door breaks a promise.
pub fn front(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let is_trusted = first & 1 == 1;
    let whole = open_door(is_trusted, data, usize::MAX);
    let piece = FIRST_BYTES.max(usize::from(first >> 1));
    let pieces = open_door(is_trusted, data, piece);
    assert_eq!(whole, pieces, "pieces of {piece} bytes matter");
    let _ = open_door(is_trusted, data, 1);
}

/// An address in three lines (app, tcUrl, name) and every scheme of signatures: what resolves is within
/// its bounds, and nothing that was not signed passes.
///
/// # Panics
/// When an address is taken that must not be.
pub fn access(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let (app, tc_url) = (lines.next().unwrap_or_default(), lines.next());
    let Ok(resolved) = resolve(app, tc_url, lines.next().unwrap_or_default()) else { return };
    let path = &resolved.path;
    for part in [path.vhost(), path.app(), path.name()] {
        assert!(!part.is_empty() && !part.chars().any(char::is_control), "{part:?}");
    }
    for role in [Role::Publish, Role::Play] {
        let presented = Presented {
            role,
            app: path.app(),
            stream: path.name(),
            suffix: Suffix::Flv,
            host: resolved.host.as_deref(),
            query: &resolved.query,
            peer: IpAddr::from([192, 0, 2, 7]),
            unix_s: NOW,
        };
        for scheme in schemes() {
            let _ = scheme.recognises(&presented);
            assert!(scheme.check(&presented).is_err(), "{scheme:?} lets {text:?} pass");
        }
    }
}

fn keys() -> Keys {
    let secret = SecretText::new(KEY).expect("it is short");
    Keys::new(secret.clone(), Some(secret))
}

fn schemes() -> [Provider; 4] {
    let shared = TicketKeys { shared: Some(keys()), ..TicketKeys::default() };
    let access_key =
        AccessKey { id: "id".into(), secret: SecretText::new(KEY).expect("it is short") };
    [
        Provider::TxSecret(TxSecret { keys: keys(), validity_s: 3_600 }),
        Provider::Aliyun(AuthKey { keys: keys(), validity_s: 3_600, timestamp_is_expiry: false }),
        Provider::Oss(SignedUrl { keys: vec![access_key], bucket: None, public_write: false }),
        Provider::UserSig(UserSig {
            keys: shared,
            sdk_app_id: 1_400_000_000,
            private_map_key: true,
            room: RoomPlace::Stream,
        }),
    ]
}

/// A ticket: the input as its text, and as the JSON inside one. Neither is signed by a key of ours.
///
/// # Panics
/// When a ticket passes that nobody signed.
pub fn ticket(data: &[u8]) {
    let keys = TicketKeys { shared: Some(keys()), ..TicketKeys::default() };
    let refused = |result: Result<Ticket, TicketError>| assert!(result.is_err(), "{result:?}");
    if let Ok(text) = std::str::from_utf8(data) {
        refused(keys.open(text));
    }
    let compressed = miniz_oxide::deflate::compress_to_vec_zlib(data, 1);
    let text = base64::engine::general_purpose::STANDARD.encode(compressed);
    refused(keys.open(&text.replace('+', "*").replace('/', "-").replace('=', "_")));
}

/// Whether the scheme takes a token for publishing `live/cam`.
fn takes(scheme: &Jwt, token: &str) -> bool {
    // As clients write what may not stand in an address.
    let escaped: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let Ok(resolved) = resolve("live", None, &format!("cam?token={escaped}")) else { return false };
    let presented = Presented {
        role: Role::Publish,
        app: "live",
        stream: "cam",
        suffix: Suffix::None,
        host: None,
        query: &resolved.query,
        peer: IpAddr::from([192, 0, 2, 7]),
        unix_s: NOW,
    };
    scheme.check(&presented).is_ok()
}

/// What claims must say at least for a token that was taken, read in another way.
fn assert_allows(header: &str, claims: &str) {
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("it was read before");
    let (header, claims) = (read(header), read(claims));
    assert_eq!(header["alg"], "HS256", "the key is of no other");
    assert!(header.get("crit").is_none_or(Value::is_null), "nothing here is understood");
    let says = |claim: &str, wanted: &dyn Fn(&str) -> bool| match &claims[claim] {
        Value::String(text) => wanted(text),
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).any(wanted),
        _ => false,
    };
    let oldest = NOW - LEEWAY_S_DEFAULT;
    assert!(claims["exp"].as_f64().is_some_and(|exp| exp > oldest as f64), "{claims}");
    assert!(says("action", &|action| action == "publish" || action == "*"), "{claims}");
    let is_other =
        |pattern: &str| !pattern.contains('*') && pattern.trim_matches('/') != "live/cam";
    assert!(says("stream", &|pattern| !is_other(pattern)), "{claims}");
    assert!(claims["iss"] == "fuzz" && says("aud", &|audience| audience == "edge"), "{claims}");
}

/// A token: the input as its text, as a set of keys, and as header and claims in two lines. Those are
/// signed by nobody, by another key, and by ours.
///
/// # Panics
/// When a token passes that nobody signed, or one that says something else.
pub fn jwt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let secret = SecretText::new(KEY).expect("it is short");
    let mut scheme = Jwt::new(KeySet::of_secret(&secret));
    if let Ok(fetched) = KeySet::of_jwks(text) {
        scheme.keys.extend(fetched);
    }
    assert!(!takes(&scheme, text), "nobody signed {text:?}");
    let Some((header, claims)) = text.split_once('\n') else { return };
    scheme.issuer = Some("fuzz".into());
    scheme.audience = Some("edge".into());
    let body = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signed = |key: &str| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), body.as_bytes());
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    for forged in [format!("{body}."), signed(""), signed("another key")] {
        assert!(!takes(&scheme, &forged), "nobody signed {text:?}");
    }
    if takes(&scheme, &signed(KEY)) {
        assert_allows(header, claims);
    }
}

/// The record of a hand-over, as the sound block it never is after a change on the way: what is read is the
/// same when it is written and read again, and what it holds becomes streams, subscribers and sessions or
/// is refused.
///
/// # Panics
/// When it reads back as something else.
pub fn hand_over(data: &[u8]) {
    let mut block = (data.len() as u64).to_be_bytes().to_vec();
    block.extend_from_slice(digest(&SHA256, data).as_ref());
    block.extend_from_slice(data);
    let read = |block: &[u8]| wire::receive_block(block).and_then(|body| wire::decode(&body));
    let Ok(legacy) = read(&block) else { return };
    let files = usize::from(legacy.packaging.files);
    assert!(legacy.sockets() <= data.len() + files, "each of the others was a byte at least");
    let written = wire::encode(&legacy).expect("it was read");
    let again = read(&written).expect("it was written");
    assert_eq!(format!("{again:?}"), format!("{legacy:?}"));

    let ring_config = RingConfig {
        segment_bytes: 4096,
        bytes_max: 64 * 1024,
        slots: 64,
        ..RingConfig::default()
    };
    let mut arena = Arena::new(&ring_config, 4);
    for worker in &legacy.workers {
        for stream in &worker.streams {
            let (writer, _) = stream_ring(ring_config);
            let (config, record) = (PublisherConfig::default(), &stream.publisher);
            let _ = Publisher::from_record(config, writer, record, &mut arena, Millis(0));
        }
        for live in worker.connections.iter().filter_map(|connection| connection.live.as_ref()) {
            if let SpokenRecord::Rtmp(session) = &live.spoken {
                let session = postcard::from_bytes::<ServerSession>(session);
                let _ = session.map(|session| session.is_portable());
            }
            for play in &live.plays {
                let _ = Subscriber::from_record(&play.subscriber);
            }
        }
    }
    let (hls, passed) = (Hls::default(), Passed { record: legacy.packaging, files: Vec::new() });
    let settings = |_: &StreamPath| HlsSettings::of(&VhostSettings::default());
    drop(hls.resume(passed, settings, &StorageQueue::default()));
}

/// A configuration file: every problem has a place in it, and what loads can be shown again.
///
/// # Panics
/// When a problem points outside of the file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Keys that name files would be read.
    if text.contains("file") || text.contains("dir") || text.contains("store") {
        return;
    }
    let lines = text.matches('\n').count() + 1;
    let Err(error) = load::check_text(text) else { return };
    assert!(!error.problems.is_empty());
    for problem in &error.problems {
        assert!(!problem.message.is_empty());
        let line = problem.place.strip_prefix("fuzz:").map(str::parse::<usize>);
        if let Some(line) = line {
            assert!(
                line.is_ok_and(|line| (1..=lines).contains(&line)),
                "{problem} of {lines} lines"
            );
        }
    }
}

/// A PEM file: sections are pieces of the text in its order, each whole.
///
/// # Panics
/// When a section is none.
pub fn pem(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(sections) = pem::sections(text) else { return };
    let mut line_before = 0;
    for section in sections {
        assert!(section.line > line_before && text.contains(section.text));
        let end = format!("-----END {}-----", section.label);
        assert!(section.text.contains(&end), "{section:?}");
        line_before = section.line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    type Body = fn(&[u8]);

    /// Inputs near its corpus that a target takes here.
    const INPUTS_NEAR: usize = 1_000;

    const TARGETS: [(&str, Body); 7] = [
        ("front", front),
        ("access", access),
        ("ticket", ticket),
        ("jwt", jwt),
        ("hand_over", hand_over),
        ("config", config),
        ("pem", pem),
    ];

    /// Bytes changed, cut, repeated, inserted, by numbers that are the same in every run.
    fn mutated(input: &[u8], state: &mut u64) -> Vec<u8> {
        let mut draw = |bound: usize| {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(*state >> 33).expect("31 bits") % bound.max(1)
        };
        let mut data = input.to_vec();
        for _ in 0..=draw(3) {
            let at = draw(data.len() + 1);
            match draw(5) {
                0 => data.truncate(at),
                1 if at < data.len() => data[at] = draw(256).to_le_bytes()[0],
                2 if at < data.len() => data[at] ^= 1 << draw(8),
                3 => {
                    let end = at + draw(data.len() - at + 1);
                    let piece = data[at..end].to_vec();
                    data.splice(at..at, piece);
                }
                _ => data.insert(at, draw(256).to_le_bytes()[0]),
            }
        }
        data
    }

    /// What was found stays found, and near it nothing else is.
    #[test]
    fn every_target_takes_its_corpus_and_what_is_near_it() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut state = 7;
        for (name, body) in TARGETS {
            let entries = fs::read_dir(corpus.join(name)).expect(name);
            let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
            paths.sort();
            assert!(paths.len() > 2, "{name} has a corpus");
            let near = INPUTS_NEAR.div_ceil(paths.len());
            for path in paths {
                let input = fs::read(&path).expect("readable");
                body(&input);
                for _ in 0..near {
                    body(&mutated(&input, &mut state));
                }
            }
        }
    }
}
