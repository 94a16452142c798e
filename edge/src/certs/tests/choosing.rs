//! Which certificate a client gets.

use super::super::{CertEntry, CertSources, CertStore};
use super::support::{Cert, DAY_S, Folder, Knows, NOW_S, converse, ends, names_of, served};

fn get(store: &std::sync::Arc<CertStore>, name: &str) -> String {
    served(store, name, Knows::Everything)
}

#[test]
fn the_exact_name_wins_then_the_wildcard_then_the_default() {
    let folder = Folder::new();
    folder.put("default", &Cert::new(&["fallback.example", "127.0.0.1"]));
    folder.put("one", &Cert::new(&["live.a.example"]));
    folder.put("wild", &Cert::new(&["*.a.example"]));
    let store = folder.load();
    for (asked, expected) in [
        ("live.a.example", "live.a.example"),
        ("LIVE.A.example", "live.a.example"),
        ("other.a.example", "*.a.example"),
        ("deep.other.a.example", "fallback.example"),
        ("a.example", "fallback.example"),
        ("unknown.test", "fallback.example"),
        ("127.0.0.1", "fallback.example"),
        ("::1", "fallback.example"),
    ] {
        assert_eq!(get(&store, asked), expected, "{asked}");
    }
}

#[test]
fn a_final_dot_is_the_same_name() {
    use tls::rustls::SignatureScheme;
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test"]));
    folder.put("b", &Cert::new(&["b.test."]));
    let store = folder.load();
    assert_eq!(get(&store, "b.test"), "b.test.");
    let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
    let index = store.index.load();
    let chosen = index.choose(Some("b.test"), &schemes).unwrap();
    assert_eq!(names_of(&chosen.cert[0]), "b.test.");
}

#[test]
fn without_one_called_default_the_first_valid_by_name_is_it() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test"]).valid(NOW_S - 9 * DAY_S, NOW_S - DAY_S));
    folder.put("b", &Cert::new(&["b.test"]));
    folder.put("c", &Cert::new(&["c.test"]));
    let store = folder.load();
    assert_eq!(get(&store, "unknown.test"), "b.test");
    let defaults: Vec<_> = store.list().into_iter().filter(|one| one.is_default).collect();
    assert_eq!((defaults.len(), defaults[0].name.as_str()), (1, "b"));
}

#[test]
fn a_name_with_both_kinds_of_key_gives_ecdsa_to_clients_that_know_it_and_rsa_to_others() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test"]).rsa());
    folder.put("a_ecc", &Cert::new(&["a.test", "ecdsa.test"]));
    let store = folder.load();
    assert_eq!(get(&store, "a.test"), "a.test,ecdsa.test");
    assert_eq!(served(&store, "a.test", Knows::OnlyRsa), "a.test");
    assert_eq!(served(&store, "127.0.0.1", Knows::OnlyRsa), "a.test", "the default has both too");
    assert_eq!(get(&store, "127.0.0.1"), "a.test,ecdsa.test");
}

#[test]
fn a_client_that_can_verify_none_of_a_names_keys_is_refused_and_not_given_somebody_elses() {
    let folder = Folder::new();
    folder.put("default", &Cert::new(&["fallback.example"]).rsa());
    folder.put("a", &Cert::new(&["a.test"]));
    let (mut client, mut server) = ends(&folder.load(), "a.test", Knows::OnlyRsa);
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(matches!(error, tls::rustls::Error::PeerIncompatible(_)), "{error}");
}

#[test]
fn of_two_pairs_for_a_name_the_valid_then_the_configured_then_the_longer_lasting_is_served() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["x.test", "a.test"]).valid(NOW_S - DAY_S, NOW_S + 10 * DAY_S));
    folder.put("b", &Cert::new(&["x.test", "b.test"]).valid(NOW_S - DAY_S, NOW_S + 20 * DAY_S));
    folder.put("z", &Cert::new(&["x.test", "z.test"]).valid(NOW_S + DAY_S, NOW_S + 99 * DAY_S));
    assert_eq!(get(&folder.load(), "x.test"), "x.test,b.test");

    let other = Folder::new();
    other.put("c", &Cert::new(&["x.test", "c.test"]).valid(NOW_S - DAY_S, NOW_S + 5 * DAY_S));
    let mut sources = folder.sources();
    sources.entries.push(CertEntry {
        name: "mine".into(),
        cert: other.file("c.crt"),
        key: other.file("c.key"),
        domains: Vec::new(),
    });
    let (store, _) = CertStore::load_at(&sources, NOW_S).unwrap();
    assert_eq!(get(&store, "x.test"), "x.test,c.test");
    // Five days later the configured one has expired, and nobody touched a file.
    store.look(super::super::Look::Watching, NOW_S + 6 * DAY_S);
    assert_eq!(get(&store, "x.test"), "x.test,z.test");
}

#[test]
fn domains_of_an_entry_replace_the_names_of_its_certificate() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test"]));
    folder.put("b", &Cert::new(&["b.test", "*.b.test"]));
    let entry = |name: &str, file: &str, domains: &[&str]| CertEntry {
        name: name.into(),
        cert: folder.file(&format!("{file}.crt")),
        key: folder.file(&format!("{file}.key")),
        domains: domains.iter().map(|name| (*name).to_owned()).collect(),
    };
    let entries = vec![entry("default", "a", &[]), entry("b", "b", &["live.b.test", "odd.test"])];
    let sources = CertSources { dir: None, entries };
    let (store, _) = CertStore::load_at(&sources, NOW_S).unwrap();
    assert_eq!(get(&store, "live.b.test"), "b.test,*.b.test");
    assert_eq!(get(&store, "odd.test"), "b.test,*.b.test");
    assert_eq!(get(&store, "b.test"), "a.test", "no longer among its names");
    let list = store.list();
    let warnings = &list.iter().find(|one| one.name == "b").unwrap().warnings;
    assert_eq!(*warnings, ["clients will refuse it for odd.test, which it does not name"]);
}

#[test]
fn a_handshake_that_has_begun_ends_with_the_certificate_it_began_with() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test", "old.test"]));
    let store = folder.load();
    let (mut client, mut server) = ends(&store, "a.test", Knows::Everything);
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets().unwrap();

    folder.put("a", &Cert::new(&["a.test", "new.test"]));
    assert_eq!(store.look(super::super::Look::Asked, NOW_S).loaded, 1);
    converse(&mut client, &mut server);
    assert_eq!(names_of(&client.peer_certificates().unwrap()[0]), "a.test,old.test");
    assert_eq!(get(&store, "a.test"), "a.test,new.test");
}
