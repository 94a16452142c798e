//! Bodies of the fuzz targets: ordinary functions, so that the normal tests compile and run them.
//!
//! | target | asserts |
//! |---|---|
//! | [`server_bytes`] | the outcome does not depend on segmentation; the name is the resolver's; bounded |
//! | [`altered_handshake`] | a handshake with bytes changed on the way ends in order or goes through; bounded |
//! | [`kernel_records`] | control records of any content; keys only for a well-formed `KeyUpdate`; bounded |

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::testing::{Authority, Pair, Side, Validity};
use crate::{
    Cipher, KernelEvent, Progress, Roots, ServerOptions, Session, TlsError, Version, client_config,
    server_config,
};

thread_local! {
    /// The name the resolver was asked for last on this thread.
    static ASKED: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Asked(Arc<CertifiedKey>);

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(Some(hello.server_name().map(str::to_owned)));
        Some(Arc::clone(&self.0))
    }
}

fn server() -> &'static Arc<rustls::ServerConfig> {
    static CONFIG: OnceLock<Arc<rustls::ServerConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let key = Authority::new().certify(&["a.example"], Validity::Now);
        server_config(Arc::new(Asked(key)), &ServerOptions::default()).expect("good options")
    })
}

fn client() -> &'static Arc<rustls::ClientConfig> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| client_config(Roots::Insecure).expect("good options"))
}

/// Feeds `bytes` in pieces to a new server; how it ended, and the name it was asked for.
fn outcome(
    bytes: &[u8],
    mut piece: impl FnMut() -> usize,
) -> (Result<Progress, TlsError>, Option<String>) {
    let mut session = Session::server(Arc::clone(server())).expect("a server");
    let (mut out, mut plain) = (Vec::new(), Vec::new());
    let mut progress = Ok(Progress::Handshaking);
    let mut rest = bytes;
    ASKED.set(None);
    while !rest.is_empty() && progress.is_ok() {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        rest = later;
        progress = session.handle_bytes(now, &mut out, &mut plain);
        assert!(session.wanted_bytes() > 0);
        assert!(session.held_bytes() <= 2 * Session::HELD_BYTES_MAX);
    }
    assert!(plain.is_empty(), "nobody has keys");
    if let Some(asked) = ASKED.take() {
        assert_eq!(
            session.sni(),
            asked.as_deref(),
            "the name we saw is not the one the library saw"
        );
    }
    (progress, session.sni().map(str::to_owned))
}

/// Arbitrary bytes to a server. The first two choose the segmentation.
pub fn server_bytes(data: &[u8]) {
    let [low, high, bytes @ ..] = data else { return };
    let (whole, name) = outcome(bytes, || bytes.len());
    let mut toggle = false;
    let (torn, torn_name) = outcome(bytes, || {
        toggle = !toggle;
        usize::from(if toggle { *low } else { *high }) + 1
    });
    match (&whole, &torn) {
        (Ok(whole), Ok(torn)) => assert_eq!(whole, torn),
        (Err(whole), Err(torn)) => assert_eq!(whole.kind(), torn.kind()),
        _ => panic!("whole: {whole:?}, in pieces: {torn:?}"),
    }
    assert_eq!(name, torn_name);
}

/// A handshake whose bytes are changed on the way: triples of direction and delay, change.
pub fn altered_handshake(data: &[u8]) {
    let mut pair = Pair::new(server(), client(), "a.example");
    let mut changes = data.chunks_exact(2);
    let mut change = changes.next();
    let mut waiting = change.map_or(usize::MAX, |change| usize::from(change[0]) * 4);
    while !(pair.to_server.is_empty() && pair.to_client.is_empty()) {
        for side in [Side::Server, Side::Client] {
            let queue = match side {
                Side::Server => &mut pair.to_server,
                Side::Client => &mut pair.to_client,
            };
            if queue.is_empty() {
                continue;
            }
            let piece = queue.len().min(waiting.max(1));
            waiting -= piece.min(waiting);
            if waiting == 0 {
                queue[0] ^= change.map_or(0, |change| change[1]);
                change = changes.next();
                waiting = change.map_or(usize::MAX, |change| usize::from(change[0]) * 4);
            }
            if pair.deliver(side, piece).is_err() {
                return;
            }
            assert!(pair.server.held_bytes() <= 2 * Session::HELD_BYTES_MAX);
            assert!(pair.client.held_bytes() <= 2 * Session::HELD_BYTES_MAX);
        }
    }
}

/// Control records for what is left of a session in the kernel: type, length, content, and so on.
pub fn kernel_records(data: &[u8]) {
    let [flags, rest @ ..] = data else { return };
    let version = if flags & 1 == 0 { Version::Tls13 } else { Version::Tls12 };
    let pair = Pair::established(version, Cipher::Aes128Gcm);
    let ours = if flags & 2 == 0 { pair.server } else { pair.client };
    let mut session = ours.into_kernel().expect("an established session").session;
    let mut rest = rest;
    while let [kind, length, tail @ ..] = rest {
        let (content, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        match session.handle_record(*kind, content) {
            Ok(KernelEvent::KeyUpdate { receive, .. }) => {
                assert_eq!((version, receive.version()), (Version::Tls13, Version::Tls13));
            }
            Ok(KernelEvent::PeerClosed) => assert_eq!((*kind, content.len()), (21, 2)),
            Ok(KernelEvent::Ignored) => assert!(matches!(*kind, 21 | 22)),
            Err(error) => {
                assert!(!error.label().is_empty());
                return;
            }
        }
    }
}
