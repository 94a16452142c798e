//! A TLS client that shows what others hide: the certificate it was given, and its keys, with which it
//! seals records that no library would.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tls::rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use tls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tls::rustls::pki_types::{CertificateDer, pem::PemObject};
use tls::rustls::{
    self, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    SupportedCipherSuite,
};

use crate::certs::{Folder, NAME};
use crate::support::PATIENCE;

/// Handshakes as a client of `config`.
fn shake(
    addr: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
    name: &str,
) -> Result<(TcpStream, ClientConnection), String> {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let name = tls::server_name(name).unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(|error| error.to_string())?;
    }
    Ok((socket, connection))
}

/// The certificate a client of `config` that asks for `name` is given; what is wrong with it otherwise.
pub(crate) fn served(
    addr: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
    name: &str,
) -> Result<CertificateDer<'static>, String> {
    let (_, connection) = shake(addr, config, name)?;
    Ok(connection.peer_certificates().expect("no resumption").first().unwrap().clone())
}

/// A client whose hello is short: one classic group, so that it can be cut at every byte.
pub(crate) fn terse(folder: &Folder) -> Arc<rustls::ClientConfig> {
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(folder.authority_file()).unwrap();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// An established TLS 1.3 connection whose records are made here.
pub(crate) struct Forger {
    pub(crate) socket: TcpStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Forger {
    pub(crate) fn connect(addr: SocketAddr, folder: &Folder) -> Self {
        // Of the three ciphers, this one has keys of a length that a seal can be made of by hand.
        let options = tls::ClientOptions {
            ciphers: vec![tls::Cipher::Aes256Gcm],
            ..crate::certs::only(tls::Version::Tls13, false)
        };
        let (socket, connection) = shake(addr, &folder.authority.client(&options), NAME).unwrap();
        let suite = connection.negotiated_cipher_suite().unwrap();
        let SupportedCipherSuite::Tls13(suite) = suite else { panic!("{suite:?}") };
        let (sequence, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("asked for") };
        Self { socket, encrypter: suite.aead_alg.encrypter(key, iv), sequence }
    }

    /// One record; false when the server has closed.
    pub(crate) fn send(&mut self, kind: ContentType, bytes: &[u8]) -> bool {
        let record = self.seal(kind, bytes);
        self.socket.write_all(&record).is_ok()
    }

    /// One record, not sent yet.
    pub(crate) fn seal(&mut self, typ: ContentType, bytes: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(bytes);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let sealed = self.encrypter.encrypt(message, self.sequence).unwrap();
        self.sequence += 1;
        sealed.encode()
    }
}
