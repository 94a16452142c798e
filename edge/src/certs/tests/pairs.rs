//! What is accepted as a pair, and what a refusal says.

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::super::CertStore;
use super::support::{Ca, Cert, Folder, NOW_S, key, told};
use crate::metrics::CertificateState;

/// Loads the pair `x` beside a good one and returns its error, without the folder.
fn refusal(folder: &Folder) -> String {
    folder.put("good", &Cert::new(&["good.test"]));
    let store = folder.load();
    let (state, error) = told(&store, "x");
    assert_eq!(state, CertificateState::Broken);
    error.replace(&format!("{}/", folder.path().display()), "")
}

fn with(cert: &str, key: &str) -> String {
    let folder = Folder::new();
    folder.write("x.crt", cert);
    folder.write("x.key", key);
    refusal(&folder)
}

#[test]
fn pkcs8_sec1_and_pkcs1_keys_of_every_kind_are_read() {
    let folder = Folder::new();
    folder.put("ecdsa", &Cert::new(&["a.test"]));
    folder.put("rsa", &Cert::new(&["a.test"]).rsa());
    for (name, algorithm) in [("p384", &PKCS_ECDSA_P384_SHA384), ("ed25519", &PKCS_ED25519)] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        folder.write(&format!("{name}.key"), &key.serialize_pem());
        let cert = Cert::new(&["b.test"]).params().self_signed(&key).unwrap();
        folder.write(&format!("{name}.crt"), &cert.pem());
    }
    // The older forms, cut out of PKCS#8: version, algorithm, then an octet string with the key.
    for (name, rsa) in [("sec1", false), ("pkcs1", true)] {
        let cert = if rsa { Cert::new(&["c.test"]).rsa() } else { Cert::new(&["c.test"]) };
        let pkcs8 = key(cert.algorithm).serialized_der();
        let inner = inner_key(pkcs8);
        let label = if rsa { "RSA PRIVATE KEY" } else { "EC PRIVATE KEY" };
        let parameters = if rsa {
            String::new()
        } else {
            // P-256, as openssl writes before the key.
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n".into()
        };
        let text = format!(
            "{parameters}-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            base64(inner)
        );
        folder.write(&format!("{name}.key"), &text);
        folder.write(&format!("{name}.crt"), &cert.pem().0);
    }
    let (store, report) = CertStore::load_at(&folder.sources(), NOW_S).unwrap();
    assert_eq!((report.loaded, report.failed), (6, Vec::new()));
    let kinds: Vec<_> =
        store.list().into_iter().map(|one| (one.name, one.key_type.unwrap())).collect();
    let expected = [
        ("ecdsa", "ECDSA P-256"),
        ("ed25519", "Ed25519"),
        ("p384", "ECDSA P-384"),
        ("pkcs1", "RSA 2048"),
        ("rsa", "RSA 2048"),
        ("sec1", "ECDSA P-256"),
    ];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
}

/// The private key inside a PKCS#8 structure: what the octet string after version and algorithm holds.
fn inner_key(pkcs8: &[u8]) -> &[u8] {
    fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
        let (length, head) = match der[1] {
            short @ 0..=0x7F => (usize::from(short), 2),
            0x81 => (usize::from(der[2]), 3),
            _ => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        };
        (der[0], &der[head..head + length], &der[head + length..])
    }
    let (_, content, _) = element(pkcs8);
    let (_, _, rest) = element(content);
    let (_, _, rest) = element(rest);
    let (tag, inner, _) = element(rest);
    assert_eq!(tag, 0x04);
    inner
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for position in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * position) & 63) as usize];
            out.push(if position <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[test]
fn every_refusal_names_the_file_the_line_and_the_reason() {
    let (cert, key_pem) = Cert::new(&["a.test"]).pem();
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    for (cert_text, key_text, expected) in [
        (
            cert.as_str(),
            other_key.as_str(),
            "x.crt: line 1: the key does not belong to this certificate",
        ),
        ("", &key_pem, "x.crt: empty; half written?"),
        (&cert, "", "x.key: empty; half written?"),
        ("nothing\n", &key_pem, "x.crt: there is no certificate in it"),
        (&key_pem, &key_pem, "x.crt: there is no certificate in it"),
        (&cert, &cert, "x.key: there is no PEM private key in it (found CERTIFICATE)"),
        (&cert[..cert.len() / 2], &key_pem, "x.crt: line 1: CERTIFICATE has no END; half written?"),
        (
            &cert,
            "\n-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "x.key: line 2: the key is encrypted",
        ),
        (
            &cert,
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAA==\n\
             -----END RSA PRIVATE KEY-----\n",
            "x.key: line 1: the key is encrypted",
        ),
        (
            &cert,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "x.key: line 1: the key cannot be used; it must be ECDSA",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nA*==\n-----END CERTIFICATE-----\n",
            &key_pem,
            "x.crt: line 1: the certificate is damaged",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key_pem,
            "x.crt: line 1: not a certificate",
        ),
    ] {
        let error = with(cert_text, key_text);
        assert!(error.starts_with(expected), "{error:?} instead of {expected:?}");
    }
    let folder = Folder::new();
    folder.write("x.crt", &cert);
    let missing = refusal(&folder);
    assert!(missing.starts_with("x.key: No such file or directory"), "{missing}");
}

#[test]
fn a_der_file_and_a_huge_one_are_refused_with_what_to_do() {
    let (cert, key) = Cert::new(&["a.test"]).pem();
    let folder = Folder::new();
    folder.write("x.key", &key);
    std::fs::write(folder.file("x.crt"), [0x30, 0x82, 0xFF, 0xFE]).unwrap();
    assert!(refusal(&folder).contains("openssl x509 -inform der"));
    assert!(with(&cert.repeat(3_000), &key).starts_with("x.crt: larger than 1048576 bytes"));
    assert!(with(&cert.repeat(17), &key).contains("more than 16 certificates"));
}

#[test]
fn a_chain_out_of_order_is_put_in_order_and_what_does_not_belong_is_left_out() {
    let root = Ca::new("Root");
    let stranger = Ca::new("Stranger");
    let leaf_cert = Cert::new(&["a.test"]);
    let leaf = leaf_cert.signed_by(&root);
    let key_pem = key(leaf_cert.algorithm).serialize_pem();
    let folder = Folder::new();
    folder.write("a.key", &key_pem);
    folder.write("a.crt", &format!("{leaf}{}{}", stranger.pem, root.pem));
    let store = folder.load();
    let list = store.list();
    assert_eq!((list[0].chain, list[0].issuer.as_deref()), (2, Some("CN=Root")));
    let line = leaf.lines().count() + 1;
    assert_eq!(
        list[0].warnings,
        [format!(
            "certificate 2 (line {line}, CN=Stranger) does not belong to the chain and is not sent"
        )]
    );
    // The leaf must be first: nobody can guess which key is meant.
    let wrong = with(&format!("{}{leaf}", root.pem), &key_pem);
    assert!(wrong.contains("the key belongs to certificate 2 of the file"), "{wrong}");
}

#[test]
fn names_come_from_the_alternative_names_and_only_else_from_the_common_name() {
    let folder = Folder::new();
    folder.put("san", &Cert::new(&["A.test", "*.a.test", "10.0.0.1", "::1"]));
    let mut params = Cert::new(&[]).params();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Common.test");
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    folder.write("cn.crt", &params.self_signed(key).unwrap().pem());
    folder.write("cn.key", &key.serialize_pem());
    let list = folder.load().list();
    assert_eq!(list[0].names, ["common.test"]);
    assert_eq!(list[1].names, ["a.test", "*.a.test", "10.0.0.1", "::1"]);
}

#[test]
fn a_folder_without_anything_to_serve_is_an_error_that_says_why() {
    let folder = Folder::new();
    let error = CertStore::load_at(&folder.sources(), NOW_S).unwrap_err().to_string();
    assert!(
        error.ends_with("the folder holds none; it should hold NAME.crt and NAME.key"),
        "{error}"
    );
    folder.write("x.crt", "nonsense");
    let error = CertStore::load_at(&folder.sources(), NOW_S).unwrap_err().to_string();
    assert!(error.contains("x.key: No such file") || error.contains("x.crt: "), "{error}");
    assert!(CertStore::load_at(&super::super::CertSources::default(), NOW_S).unwrap().0.is_empty());
}
