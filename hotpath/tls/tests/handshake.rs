//! Handshakes of our server with our client: versions, suites, any segmentation, names, resumption.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tls::rustls::server::{ClientHello, ResolvesServerCert};
use tls::rustls::sign::CertifiedKey;
use tls::testing::{Authority, Pair, Side, Validity};
use tls::{
    CertificateProblem, Cipher, ClientOptions, ErrorKind, Progress, Roots, ServerOptions, Session,
    Version, client_config, client_config_with, rustls, server_config,
};

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

fn configs(
    server: &ServerOptions,
    client: &ClientOptions,
) -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let authority = Authority::new();
    let resolver = authority.resolver(&["a.example", "127.0.0.1"], Validity::Now);
    (
        server_config(resolver, server).unwrap(),
        client_config_with(authority.roots(), client).unwrap(),
    )
}

/// Both directions carry what was said, and nothing else.
fn exchange(pair: &mut Pair) {
    pair.send(Side::Client, b"from the client").unwrap();
    pair.send(Side::Server, b"from the server").unwrap();
    pair.drive(|all| all).unwrap();
    assert_eq!(pair.server_plain, b"from the client");
    assert_eq!(pair.client_plain, b"from the server");
}

#[test]
fn every_version_and_cipher_is_agreed_and_carries_data() {
    for version in VERSIONS {
        for cipher in Cipher::ALL {
            let mut pair = Pair::established(version, cipher);
            for session in [&pair.client, &pair.server] {
                let facts = session.facts().unwrap();
                assert_eq!((facts.version, facts.cipher), (version, cipher));
                assert_eq!(facts.sni.as_deref(), Some("a.example"));
                assert!(!facts.resumed);
                assert!(facts.suite.starts_with("TLS"), "{}", facts.suite);
            }
            exchange(&mut pair);
        }
    }
}

#[test]
fn the_servers_order_of_ciphers_counts() {
    let wanted = ClientOptions {
        ciphers: vec![Cipher::Chacha20Poly1305, Cipher::Aes256Gcm, Cipher::Aes128Gcm],
        ..ClientOptions::default()
    };
    let (server, client) = configs(&ServerOptions::default(), &wanted);
    let mut pair = Pair::new(&server, &client, "a.example");
    pair.drive(|all| all).unwrap();
    assert_eq!(pair.server.facts().unwrap().cipher, Cipher::Aes128Gcm);
}

#[test]
fn every_split_of_a_handshake_ends_the_same() {
    for version in VERSIONS {
        let options = ServerOptions { version_max: version, ..ServerOptions::default() };
        let (server, client) = configs(&options, &ClientOptions::default());
        for piece in 1..=600 {
            let mut pair = Pair::new(&server, &client, "a.example");
            pair.drive(|_| piece).unwrap();
            assert_eq!(pair.server.facts().unwrap().version, version, "pieces of {piece}");
        }
        // One cut at every place of the client hello, and of the client's second flight.
        let hello_bytes = Pair::new(&server, &client, "a.example").to_server.len();
        for cut in 1..hello_bytes {
            let mut pair = Pair::new(&server, &client, "a.example");
            assert_eq!(pair.deliver(Side::Server, cut).unwrap(), Progress::Handshaking);
            assert!(pair.to_client.is_empty(), "an answer to {cut} bytes of a hello");
            pair.drive(|all| all).unwrap();
            exchange(&mut pair);
        }
        for cut in 1..200 {
            let mut pair = Pair::new(&server, &client, "a.example");
            pair.deliver(Side::Server, pair.to_server.len()).unwrap();
            pair.deliver(Side::Client, pair.to_client.len()).unwrap();
            pair.deliver(Side::Server, cut.min(pair.to_server.len())).unwrap();
            pair.drive(|all| all).unwrap();
            exchange(&mut pair);
        }
    }
}

#[test]
fn a_server_that_obeys_wanted_bytes_leaves_later_records_where_they_are() {
    for version in VERSIONS {
        let options = ServerOptions { version_max: version, ..ServerOptions::default() };
        let (server, client) = configs(&options, &ClientOptions::default());
        // With TLS 1.2 the client finishes last, and may go on at once, when it resumes.
        Pair::new(&server, &client, "a.example").drive(|all| all).unwrap();
        let mut pair = Pair::new(&server, &client, "a.example");
        let mut early = Vec::new();
        while !pair.server.is_kernel_ready() {
            if pair.to_server.is_empty() {
                pair.deliver(Side::Client, pair.to_client.len()).unwrap();
                if pair.client.facts().is_some() {
                    pair.client.encrypt(b"early", &mut early).unwrap();
                    pair.to_server.extend_from_slice(&early);
                }
            }
            let wanted = pair.server.wanted_bytes();
            pair.deliver(Side::Server, wanted.min(pair.to_server.len())).unwrap();
        }
        assert!(pair.server.facts().unwrap().resumed);
        assert!(pair.server_plain.is_empty());
        assert!(!early.is_empty() && pair.to_server == early, "{version:?}");
    }
}

#[test]
fn data_that_arrives_with_finished_is_given_out() {
    for version in VERSIONS {
        let options = ServerOptions { version_max: version, ..ServerOptions::default() };
        let (server, client) = configs(&options, &ClientOptions::default());
        let mut pair = Pair::new(&server, &client, "a.example");
        while pair.client.facts().is_none() {
            let waiting = pair.to_server.len();
            if waiting > 0 {
                pair.deliver(Side::Server, waiting).unwrap();
            }
            pair.deliver(Side::Client, pair.to_client.len()).unwrap();
        }
        pair.send(Side::Client, b"C0C1").unwrap();
        let progress = pair.deliver(Side::Server, pair.to_server.len()).unwrap();
        assert_eq!(progress, Progress::Established);
        assert_eq!(pair.server_plain, b"C0C1");
    }
}

#[test]
fn the_second_handshake_resumes_the_first() {
    for version in VERSIONS {
        let options = ServerOptions { version_max: version, ..ServerOptions::default() };
        let (server, client) = configs(&options, &ClientOptions::default());
        for is_resumed in [false, true, true] {
            let mut pair = Pair::new(&server, &client, "a.example");
            pair.drive(|all| all).unwrap();
            assert_eq!(pair.server.facts().unwrap().resumed, is_resumed, "{version:?}");
            assert_eq!(pair.client.facts().unwrap().resumed, is_resumed, "{version:?}");
            assert_eq!(pair.server.facts().unwrap().sni.as_deref(), Some("a.example"));
            exchange(&mut pair);
        }
    }
}

#[test]
fn without_tickets_or_memory_nothing_is_resumed() {
    let no_tickets = ServerOptions { tickets: 0, ..ServerOptions::default() };
    let no_memory = ClientOptions { sessions_max: 0, ..ClientOptions::default() };
    for (server, client) in
        [(no_tickets, ClientOptions::default()), (ServerOptions::default(), no_memory)]
    {
        for version in VERSIONS {
            let server = ServerOptions { version_max: version, ..server.clone() };
            let (server, client) = configs(&server, &client);
            for _ in 0..2 {
                let mut pair = Pair::new(&server, &client, "a.example");
                pair.drive(|all| all).unwrap();
                assert!(!pair.server.facts().unwrap().resumed);
            }
        }
    }
}

#[test]
fn a_client_that_names_an_address_sends_no_name_and_is_served() {
    let (server, client) = configs(&ServerOptions::default(), &ClientOptions::default());
    let mut pair = Pair::new(&server, &client, "127.0.0.1");
    pair.drive(|all| all).unwrap();
    assert_eq!(pair.server.facts().unwrap().sni, None);
    exchange(&mut pair);
}

/// Notes the names the library tells it.
#[derive(Debug)]
struct Recording {
    key: Arc<CertifiedKey>,
    names: Mutex<Vec<Option<String>>>,
}

impl ResolvesServerCert for Recording {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.names.lock().unwrap().push(hello.server_name().map(str::to_owned));
        Some(Arc::clone(&self.key))
    }
}

#[test]
fn the_name_is_the_one_the_resolver_sees() {
    let authority = Authority::new();
    let key = authority.certify(&["a.example"], Validity::Now);
    let recording = Arc::new(Recording { key, names: Mutex::default() });
    let resolver = Arc::clone(&recording) as Arc<dyn ResolvesServerCert>;
    let server = server_config(resolver, &ServerOptions::default()).unwrap();
    let client = client_config(Roots::Insecure).unwrap();
    for name in
        ["a.example", "Live.Example.COM", "xn--bcher-kva.example", "10.0.0.1", "::1", "x_y.z"]
    {
        let mut pair = Pair::new(&server, &client, name);
        pair.drive(|all| all).unwrap();
        let seen = recording.names.lock().unwrap().pop().unwrap();
        assert_eq!(pair.server.facts().unwrap().sni.as_deref(), seen.as_deref());
        assert_eq!(pair.server.sni(), pair.client.sni());
    }
}

#[test]
fn alpn_agrees_on_http_and_never_refuses_an_rtmp_client() {
    let cases: [(&[&str], Option<&str>); 5] = [
        (&[], None),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2", "http/1.1"], Some("http/1.1")),
        (&["rtmp"], None),
        (&["h2"], None),
    ];
    for version in VERSIONS {
        for (offer, agreed) in cases {
            let options = ClientOptions {
                alpn: offer.iter().map(|protocol| (*protocol).to_owned()).collect(),
                version_max: version,
                ..ClientOptions::default()
            };
            let (server, client) = configs(&ServerOptions::default(), &options);
            for is_resumed in [false, true] {
                let mut pair = Pair::new(&server, &client, "a.example");
                pair.drive(|all| all).unwrap();
                let facts = pair.server.facts().unwrap();
                assert_eq!(facts.alpn.as_deref(), agreed, "{offer:?}");
                assert_eq!(facts.resumed, is_resumed, "{offer:?}");
                assert_eq!(pair.client.facts().unwrap().alpn.as_deref(), agreed);
                exchange(&mut pair);
            }
        }
    }
}

/// The client's error for one server certificate, and what the server hears of it.
fn refusal(names: &[&str], validity: Validity, roots: Option<Roots>) -> (tls::TlsError, u8) {
    let authority = Authority::new();
    let resolver = authority.resolver(names, validity);
    let server = server_config(resolver, &ServerOptions::default()).unwrap();
    let client = client_config(roots.unwrap_or_else(|| authority.roots())).unwrap();
    let mut pair = Pair::new(&server, &client, "a.example");
    let (side, error) = pair.drive(|all| all).unwrap_err();
    assert_eq!(side, Side::Client);
    let (_, heard) = pair.drive(|all| all).unwrap_err();
    assert_eq!(heard.sni(), Some("a.example"));
    match *heard.kind() {
        ErrorKind::AlertReceived(number) => (error, number),
        ref other => panic!("the server heard {other:?}"),
    }
}

fn problem(error: &tls::TlsError) -> CertificateProblem {
    match error.kind() {
        ErrorKind::Certificate(problem, _) => *problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_for_other_names_is_refused_and_the_error_names_them() {
    let (error, alert) = refusal(&["b.example", "*.c.example"], Validity::Now, None);
    assert_eq!(problem(&error), CertificateProblem::WrongName);
    assert_eq!(error.label(), "certificate_wrong_name");
    let text = error.to_string();
    assert!(text.contains("a.example") && text.contains("b.example"), "{text}");
    assert_eq!(alert, 42); // bad_certificate
}

#[test]
fn expired_future_and_unknown_certificates_are_refused() {
    let (error, alert) = refusal(&["a.example"], Validity::Over, None);
    assert_eq!((problem(&error), alert), (CertificateProblem::Expired, 45));
    let (error, _) = refusal(&["a.example"], Validity::Future, None);
    assert_eq!(problem(&error), CertificateProblem::NotYetValid);
    let others = Authority::new().roots();
    let (error, alert) = refusal(&["a.example"], Validity::Now, Some(others));
    assert_eq!((problem(&error), alert), (CertificateProblem::UnknownIssuer, 48));
}

#[test]
fn an_insecure_client_takes_any_certificate() {
    let resolver = Authority::new().resolver(&["b.example"], Validity::Over);
    let server = server_config(resolver, &ServerOptions::default()).unwrap();
    for version in VERSIONS {
        let options = ClientOptions { version_max: version, ..ClientOptions::default() };
        let client = client_config_with(Roots::Insecure, &options).unwrap();
        let mut pair = Pair::new(&server, &client, "a.example");
        pair.drive(|all| all).unwrap();
        exchange(&mut pair);
    }
}

#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[test]
fn a_name_without_a_certificate_is_a_typed_error_that_knows_the_name() {
    let server = server_config(Arc::new(Nothing), &ServerOptions::default()).unwrap();
    let client = client_config(Roots::Insecure).unwrap();
    let mut pair = Pair::new(&server, &client, "a.example");
    let (side, error) = pair.drive(|all| all).unwrap_err();
    assert_eq!((side, error.kind()), (Side::Server, &ErrorKind::NoCertificate));
    assert_eq!(error.sni(), Some("a.example"));
    assert!(error.to_string().contains("a.example"));
    let (side, error) = pair.drive(|all| all).unwrap_err();
    assert_eq!(side, Side::Client);
    assert_eq!(error.label(), "alert_received");
}

#[test]
fn no_version_in_common_is_a_typed_error_on_both_sides() {
    let server = ServerOptions { version_min: Version::Tls13, ..ServerOptions::default() };
    let client = ClientOptions { version_max: Version::Tls12, ..ClientOptions::default() };
    let (server, client) = configs(&server, &client);
    let mut pair = Pair::new(&server, &client, "a.example");
    let (side, error) = pair.drive(|all| all).unwrap_err();
    assert_eq!((side, error.label()), (Side::Server, "incompatible"));
    assert!(error.to_string().contains("no TLS version in common"), "{error}");
    let (_, error) = pair.drive(|all| all).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::AlertReceived(70)); // protocol_version
}

#[test]
fn no_cipher_in_common_is_a_typed_error() {
    let server = ServerOptions { ciphers: vec![Cipher::Aes256Gcm], ..ServerOptions::default() };
    let client = ClientOptions { ciphers: vec![Cipher::Aes128Gcm], ..ClientOptions::default() };
    let (server, client) = configs(&server, &client);
    let (side, error) = Pair::new(&server, &client, "a.example").drive(|all| all).unwrap_err();
    assert_eq!(side, Side::Server);
    assert_eq!(error.kind(), &ErrorKind::Incompatible("no cipher suite in common".into()));
}

#[test]
fn unusable_options_and_roots_say_why() {
    let resolver = || Authority::new().resolver(&["a.example"], Validity::Now);
    let no_cipher = ServerOptions { ciphers: vec![], ..ServerOptions::default() };
    let no_version = ServerOptions {
        version_min: Version::Tls13,
        version_max: Version::Tls12,
        ..ServerOptions::default()
    };
    for options in [no_cipher, no_version] {
        let error = server_config(resolver(), &options).unwrap_err();
        assert_eq!(error.label(), "configuration");
    }
    for (pem, text) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\n!", "root")] {
        let error = client_config(Roots::Pem(pem.into())).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    assert_eq!(tls::server_name("no name").unwrap_err().label(), "configuration");
}

#[test]
fn no_debug_output_shows_more_than_names() {
    let pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    let handover = format!("{:?}", pair.server.into_kernel().unwrap());
    assert!(!handover.contains("bytes"), "{handover}");
    assert_eq!(format!("{:?}", Roots::Pem(vec![1, 2, 3])), "Pem(3 bytes)");
    let session = format!("{:?}", pair.client);
    assert!(session.contains("a.example") && session.len() < 400, "{session}");
}

#[test]
fn a_session_starts_once_and_refuses_calls_out_of_order() {
    let (server, client) = configs(&ServerOptions::default(), &ClientOptions::default());
    let mut pair = Pair::new(&server, &client, "a.example");
    let hello = pair.to_server.clone();
    pair.client.start(&mut pair.to_server).unwrap();
    assert_eq!(pair.to_server, hello);
    assert_eq!(pair.send(Side::Client, b"x").unwrap_err().label(), "not_ready");
    assert_eq!(pair.send(Side::Server, b"x").unwrap_err().label(), "not_ready");
    pair.client.close_notify(&mut pair.to_server);
    assert_eq!(pair.to_server, hello);
    assert!(!pair.server.is_kernel_ready());
    let fresh = Session::server(server).unwrap();
    assert_eq!(fresh.into_kernel().unwrap_err().label(), "not_ready");
    pair.drive(|all| all).unwrap();
    exchange(&mut pair);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_segmentation_delivers_the_same_bytes(
        cuts in proptest::collection::vec(1_usize..3000, 1..200),
        said in proptest::collection::vec((any::<bool>(), 0_usize..40_000), 1..6),
        tls13 in any::<bool>(),
    ) {
        let version = VERSIONS[usize::from(tls13)];
        let options = ServerOptions { version_max: version, ..ServerOptions::default() };
        let (server, client) = configs(&options, &ClientOptions::default());
        let mut pair = Pair::new(&server, &client, "a.example");
        let mut next = cuts.iter().copied().cycle();
        pair.drive(|_| next.next().unwrap()).unwrap();
        let (mut from_client, mut from_server) = (vec![], vec![]);
        for (number, (is_client, bytes)) in said.into_iter().enumerate() {
            let plain: Vec<u8> = (0..bytes).map(|at| ((at * 7 + number) % 251).try_into().unwrap()).collect();
            let (side, log) = if is_client {
                (Side::Client, &mut from_client)
            } else {
                (Side::Server, &mut from_server)
            };
            log.extend_from_slice(&plain);
            pair.send(side, &plain).unwrap();
        }
        pair.drive(|_| next.next().unwrap()).unwrap();
        prop_assert!(pair.server_plain == from_client);
        prop_assert!(pair.client_plain == from_server);
        prop_assert!(pair.server.is_at_boundary() && pair.client.is_at_boundary());
    }
}
