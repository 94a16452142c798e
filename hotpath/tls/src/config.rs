//! Configurations of servers and clients: versions, suites, tickets, roots. Built rarely, shared by all
//! workers, changed by building another one.
//!
//! The provider is aws-lc-rs: of the two the library offers it signs RSA handshakes twice as fast and
//! encrypts full records at nearly twice the rate. Its suites are ECDHE with an AEAD, nothing older.
//!
//! The server's order of ciphers counts, not the client's: clients built on `OpenSSL` put AES-256 first out
//! of habit, and AES-128 has ten rounds instead of fourteen, for each of thousands of players. `ChaCha20`
//! comes last; a client that offers nothing else still gets it.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion};

use crate::crypto_info::{Cipher, Version};
use crate::error::{Result, TlsError};
use crate::verify::AnyCertificate;

/// How a server handshakes. `Default` is what a public port should have.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Oldest version accepted; 1.2 by default, because encoders in use still stop there.
    pub version_min: Version,
    /// Newest version accepted; 1.3 by default.
    pub version_max: Version,
    /// Ciphers in our order of preference; [`Cipher::ALL`] by default.
    pub ciphers: Vec<Cipher>,
    /// ALPN protocols spoken after TLS besides RTMP, `http/1.1` by default. A client that offers none of
    /// them is served all the same, without ALPN: the first bytes of the plaintext decide.
    pub alpn: Vec<String>,
    /// Tickets sent per TLS 1.3 handshake, 2 by default; 0 turns resumption off for both versions.
    /// Tickets are sealed with keys that rotate every six hours and keep nothing in the server.
    pub tickets: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            version_min: Version::Tls12,
            version_max: Version::Tls13,
            ciphers: Cipher::ALL.to_vec(),
            alpn: vec!["http/1.1".into()],
            tickets: 2,
        }
    }
}

/// How a client handshakes.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Oldest version offered; 1.2 by default.
    pub version_min: Version,
    /// Newest version offered; 1.3 by default.
    pub version_max: Version,
    /// Ciphers offered, the most wanted first; [`Cipher::ALL`] by default.
    pub ciphers: Vec<Cipher>,
    /// ALPN protocols offered; none by default, as RTMP has none.
    pub alpn: Vec<String>,
    /// Servers whose tickets are remembered, 256 by default; 0 makes every handshake a full one.
    pub sessions_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            version_min: Version::Tls12,
            version_max: Version::Tls13,
            ciphers: Cipher::ALL.to_vec(),
            alpn: Vec::new(),
            sessions_max: 256,
        }
    }
}

/// Whom a client trusts.
#[derive(Clone)]
pub enum Roots {
    /// The certificates of the operating system, as its operator maintains them: they follow the
    /// distribution's updates and include a company's own authority. A list compiled into the
    /// program would do neither.
    System,
    /// PEM text with one or more certificates, and nothing else.
    Pem(Vec<u8>),
    /// Anybody. For load tests: the connection is encrypted, to whomever it goes.
    Insecure,
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("System"),
            Self::Pem(text) => write!(f, "Pem({} bytes)", text.len()),
            Self::Insecure => f.write_str("Insecure"),
        }
    }
}

/// Configuration of a server. Certificates are chosen by `resolver`, once per handshake, on the thread
/// that drives the session. Connections made with it can be handed to the kernel.
///
/// # Errors
/// `Configuration` if the options leave no version or cipher; `Internal` if the system gives no randomness
/// for the ticket keys.
pub fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
    options: &ServerOptions,
) -> Result<Arc<rustls::ServerConfig>> {
    let provider = provider(&options.ciphers)?;
    let versions = versions(options.version_min, options.version_max)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.ignore_client_order = true;
    config.enable_secret_extraction = true;
    config.alpn_protocols = alpn(&options.alpn);
    // Session ids would need memory per session; tickets need none.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = options.tickets;
    // Data before the handshake is complete can be replayed; RTMP has no use for it.
    config.max_early_data_size = 0;
    if options.tickets > 0 {
        config.ticketer = aws_lc_rs::Ticketer::new()?;
    }
    Ok(Arc::new(config))
}

/// Configuration of a client with the default [`ClientOptions`].
///
/// # Errors
/// As [`client_config_with`].
pub fn client_config(roots: Roots) -> Result<Arc<rustls::ClientConfig>> {
    client_config_with(roots, &ClientOptions::default())
}

/// Configuration of a client.
///
/// # Errors
/// `Configuration` if there are no usable roots (the text says where they were looked for) or the
/// options leave no version or cipher.
pub fn client_config_with(
    roots: Roots,
    options: &ClientOptions,
) -> Result<Arc<rustls::ClientConfig>> {
    let provider = provider(&options.ciphers)?;
    let versions = versions(options.version_min, options.version_max)?;
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)?;
    let builder = match roots {
        Roots::System => builder.with_root_certificates(system_roots()?),
        Roots::Pem(text) => builder.with_root_certificates(pem_roots(&text)?),
        Roots::Insecure => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
    };
    let mut config = builder.with_no_client_auth();
    config.enable_secret_extraction = true;
    config.alpn_protocols = alpn(&options.alpn);
    config.resumption = match options.sessions_max {
        0 => Resumption::disabled(),
        sessions_max => Resumption::in_memory_sessions(sessions_max),
    };
    Ok(Arc::new(config))
}

/// The name a client asks for and verifies: a host name or an address.
///
/// # Errors
/// `Configuration` if `host` is neither.
pub fn server_name(host: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| TlsError::configuration(format!("{host:?} is no host name and no address")))
}

/// The cipher of a suite, if it is one of ours.
pub(crate) fn cipher_of(suite: CipherSuite) -> Option<Cipher> {
    use CipherSuite as S;
    match suite {
        S::TLS13_AES_128_GCM_SHA256
        | S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some(Cipher::Aes128Gcm),
        S::TLS13_AES_256_GCM_SHA384
        | S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(Cipher::Aes256Gcm),
        S::TLS13_CHACHA20_POLY1305_SHA256
        | S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(Cipher::Chacha20Poly1305),
        _ => None,
    }
}

/// The suite of this registered name.
pub(crate) fn suite_named(name: &str) -> Option<SupportedCipherSuite> {
    let mut suites = aws_lc_rs::ALL_CIPHER_SUITES.iter();
    suites.find(|suite| suite.suite().as_str() == Some(name)).copied()
}

fn provider(ciphers: &[Cipher]) -> Result<Arc<CryptoProvider>> {
    if ciphers.is_empty() {
        return Err(TlsError::configuration("no cipher is allowed"));
    }
    let mut provider = aws_lc_rs::default_provider();
    let rank = |suite: &SupportedCipherSuite| {
        let cipher = cipher_of(suite.suite());
        ciphers.iter().position(|wanted| Some(*wanted) == cipher)
    };
    provider.cipher_suites.retain(|suite| rank(suite).is_some());
    provider.cipher_suites.sort_by_key(rank);
    Ok(Arc::new(provider))
}

fn versions(min: Version, max: Version) -> Result<Vec<&'static SupportedProtocolVersion>> {
    match (min, max) {
        (Version::Tls12, Version::Tls13) => Ok(vec![&TLS13, &TLS12]),
        (Version::Tls12, Version::Tls12) => Ok(vec![&TLS12]),
        (Version::Tls13, Version::Tls13) => Ok(vec![&TLS13]),
        (Version::Tls13, Version::Tls12) => {
            Err(TlsError::configuration("the oldest version allowed is newer than the newest"))
        }
    }
}

fn alpn(protocols: &[String]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

fn system_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let reason = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(TlsError::configuration(format!(
            "this system has no root certificates{reason}; install ca-certificates or name a PEM file"
        )));
    }
    Ok(store)
}

fn pem_roots(text: &[u8]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate
            .map_err(|error| TlsError::configuration(format!("root certificates: {error}")))?;
        store
            .add(certificate)
            .map_err(|error| TlsError::configuration(format!("root certificates: {error}")))?;
    }
    if store.is_empty() {
        return Err(TlsError::configuration("the PEM text has no certificate"));
    }
    Ok(store)
}
