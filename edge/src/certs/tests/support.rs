//! A folder of certificates made on the spot, and handshakes in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, SanType, SignatureAlgorithm,
};
use tls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tls::rustls::crypto::aws_lc_rs;
use tls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme,
};

use super::super::{CertSources, CertStore};

/// The time the tests live in: 2026-01-01.
pub(super) const NOW_S: i64 = 1_767_225_600;
pub(super) const DAY_S: i64 = 86_400;

/// A key of its own kind, made once: RSA keys are slow to make.
pub(super) fn key(algorithm: &'static SignatureAlgorithm) -> &'static KeyPair {
    static RSA: OnceLock<KeyPair> = OnceLock::new();
    static ECDSA: OnceLock<KeyPair> = OnceLock::new();
    let cell = if algorithm == &PKCS_RSA_SHA256 { &RSA } else { &ECDSA };
    cell.get_or_init(|| KeyPair::generate_for(algorithm).unwrap())
}

/// A CA that signs what the tests need.
pub(super) struct Ca {
    pub issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }
}

/// What a certificate says. Default: ECDSA, valid from yesterday for 90 days.
#[derive(Clone)]
pub(super) struct Cert {
    pub names: Vec<String>,
    pub from_s: i64,
    pub to_s: i64,
    pub algorithm: &'static SignatureAlgorithm,
}

impl Cert {
    pub(super) fn new(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            from_s: NOW_S - DAY_S,
            to_s: NOW_S + 89 * DAY_S,
            algorithm: &PKCS_ECDSA_P256_SHA256,
        }
    }

    pub(super) fn rsa(mut self) -> Self {
        self.algorithm = &PKCS_RSA_SHA256;
        self
    }

    pub(super) fn valid(mut self, from_s: i64, to_s: i64) -> Self {
        (self.from_s, self.to_s) = (from_s, to_s);
        self
    }

    pub(super) fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        for name in &self.names {
            let san = match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().unwrap()),
            };
            params.subject_alt_names.push(san);
        }
        params.not_before = rcgen::date_time_ymd(1970, 1, 1)
            + std::time::Duration::from_secs(u64::try_from(self.from_s).unwrap());
        params.not_after = rcgen::date_time_ymd(1970, 1, 1)
            + std::time::Duration::from_secs(u64::try_from(self.to_s).unwrap());
        params
    }

    /// Certificate signed by a CA of its own, and key, as PEM.
    pub(super) fn pem(&self) -> (String, String) {
        let key = key(self.algorithm);
        (self.params().self_signed(key).unwrap().pem(), key.serialize_pem())
    }

    pub(super) fn signed_by(&self, ca: &Ca) -> String {
        self.params().signed_by(key(self.algorithm), &ca.issuer).unwrap().pem()
    }
}

/// A folder of certificates.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file by renaming it into place, as careful programs do.
    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let part = path.with_extension("part");
        fs::write(&part, text).unwrap();
        fs::rename(part, path).unwrap();
    }

    /// Writes NAME.crt and NAME.key.
    pub(super) fn put(&self, name: &str, cert: &Cert) {
        let (cert, key) = cert.pem();
        self.write(&format!("{name}.key"), &key);
        self.write(&format!("{name}.crt"), &cert);
    }

    pub(super) fn remove(&self, name: &str) {
        for extension in ["crt", "key"] {
            fs::remove_file(self.file(&format!("{name}.{extension}"))).unwrap();
        }
    }

    pub(super) fn sources(&self) -> CertSources {
        CertSources { dir: Some(self.path().to_owned()), entries: Vec::new() }
    }

    pub(super) fn load(&self) -> Arc<CertStore> {
        CertStore::load_at(&self.sources(), NOW_S).unwrap().0
    }
}

/// Host names of a certificate, comma separated.
pub(super) fn names_of(der: &CertificateDer<'_>) -> String {
    use x509_parser::extensions::GeneralName;
    let (_, cert) = x509_parser::parse_x509_certificate(der).unwrap();
    let names = cert.subject_alternative_name().unwrap().unwrap();
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    names.collect::<Vec<_>>().join(",")
}

#[derive(Debug)]
struct AnyServer(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// What a client knows.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum Knows {
    Everything,
    OnlyRsa,
}

/// A client and a server that have exchanged nothing yet.
pub(super) fn ends(
    store: &Arc<CertStore>,
    name: &str,
    knows: Knows,
) -> (ClientConnection, ServerConnection) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(store) as _);
    let mut schemes = vec![SignatureScheme::RSA_PSS_SHA256];
    if knows == Knows::Everything {
        schemes.insert(0, SignatureScheme::ECDSA_NISTP256_SHA256);
    }
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(schemes)))
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = ClientConnection::new(Arc::new(client), name).unwrap();
    (client, ServerConnection::new(Arc::new(server)).unwrap())
}

/// Carries bytes both ways until nobody has more to say.
pub(super) fn converse(client: &mut ClientConnection, server: &mut ServerConnection) {
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        feed(&wire, |bytes| {
            server.read_tls(bytes).unwrap();
            server.process_new_packets().unwrap();
        });
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        feed(&wire, |bytes| {
            client.read_tls(bytes).unwrap();
            client.process_new_packets().unwrap();
        });
    }
}

fn feed(mut wire: &[u8], mut take: impl FnMut(&mut &[u8])) {
    while !wire.is_empty() {
        take(&mut wire);
    }
}

/// Host names of the certificate a client gets that asks for `name`; an address asks for none.
pub(super) fn served(store: &Arc<CertStore>, name: &str, knows: Knows) -> String {
    let (mut client, mut server) = ends(store, name, knows);
    converse(&mut client, &mut server);
    assert!(!client.is_handshaking() && !server.is_handshaking());
    names_of(&client.peer_certificates().unwrap()[0])
}

/// What the store lists of one pair: state and error.
pub(super) fn told(store: &CertStore, name: &str) -> (crate::metrics::CertificateState, String) {
    let list = store.list();
    let one =
        list.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("{name} is not listed"));
    (one.state, one.error.clone().unwrap_or_default())
}
