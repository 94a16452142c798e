//! What tests, benches and fuzz targets share: an authority, certificates, and two sessions joined by
//! two queues of bytes. Behind the feature `testing`; panics freely, for it never meets a real peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::{Cipher, ClientOptions, Progress, Roots, ServerOptions, Session, TlsError, Version};

/// When a certificate made here is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From long ago until long after.
    Now,
    /// Over since 2001.
    Over,
    /// From the year 2500 on.
    Future,
}

/// A certificate authority of one test, with ECDSA P-256 keys.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one that nobody else trusts.
    ///
    /// # Panics
    /// If the system gives no randomness.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        // A name of its own: two authorities of the same name would look like a forged signature.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("randomness");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("valid parameters") }
    }

    /// Its certificate, as [`Roots`] take it.
    pub fn roots(&self) -> Roots {
        Roots::Pem(self.issuer.pem().into_bytes())
    }

    /// A certificate and its key for `names`.
    ///
    /// # Panics
    /// If a name is none.
    pub fn certify(&self, names: &[&str], validity: Validity) -> Arc<CertifiedKey> {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("valid names");
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (date_time_ymd(2000, 1, 1), date_time_ymd(2999, 1, 1)),
            Validity::Over => (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1)),
            Validity::Future => (date_time_ymd(2500, 1, 1), date_time_ymd(2999, 1, 1)),
        };
        let key = KeyPair::generate().expect("randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("valid parameters");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![certificate.der().clone()];
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        Arc::new(certified.expect("key and certificate belong together"))
    }

    /// A resolver with one certificate for `names`, for every client.
    ///
    /// # Panics
    /// As [`certify`](Self::certify).
    pub fn resolver(&self, names: &[&str], validity: Validity) -> Arc<dyn ResolvesServerCert> {
        let certified = self.certify(names, validity);
        Arc::new(SingleCertAndKey::from(Arc::unwrap_or_clone(certified)))
    }
}

/// Which end of a [`Pair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

/// A client and a server, and what is on the way between them.
#[derive(Debug)]
pub struct Pair {
    /// The client.
    pub client: Session,
    /// The server.
    pub server: Session,
    /// Ciphertext the server has not received.
    pub to_server: Vec<u8>,
    /// Ciphertext the client has not received.
    pub to_client: Vec<u8>,
    /// Plaintext the client has received.
    pub client_plain: Vec<u8>,
    /// Plaintext the server has received.
    pub server_plain: Vec<u8>,
}

impl Pair {
    /// Two sessions; the client hello is on its way.
    ///
    /// # Panics
    /// If `name` is none or the client cannot start.
    pub fn new(
        server: &Arc<rustls::ServerConfig>,
        client: &Arc<rustls::ClientConfig>,
        name: &str,
    ) -> Self {
        let name = crate::server_name(name).expect("a name");
        let mut pair = Self {
            client: Session::client(Arc::clone(client), name).expect("a client"),
            server: Session::server(Arc::clone(server)).expect("a server"),
            to_server: Vec::new(),
            to_client: Vec::new(),
            client_plain: Vec::new(),
            server_plain: Vec::new(),
        };
        pair.client.start(&mut pair.to_server).expect("a client hello");
        pair
    }

    /// An established pair of one version and cipher; nothing is on its way.
    ///
    /// # Panics
    /// If they do not come to an agreement.
    pub fn established(version: Version, cipher: Cipher) -> Self {
        let authority = Authority::new();
        let server = ServerOptions {
            version_min: version,
            version_max: version,
            ciphers: vec![cipher],
            ..ServerOptions::default()
        };
        let resolver = authority.resolver(&["a.example"], Validity::Now);
        let server = crate::server_config(resolver, &server).expect("server options");
        let client = crate::client_config_with(authority.roots(), &ClientOptions::default())
            .expect("options");
        let mut pair = Self::new(&server, &client, "a.example");
        pair.drive(|all| all).expect("a handshake");
        assert!(pair.client.facts().is_some() && pair.server.facts().is_some());
        pair
    }

    /// Delivers what is on the way, in pieces of at most `cut(bytes waiting)` bytes, until both
    /// directions are quiet.
    ///
    /// # Errors
    /// The first error and whose it is; its alert, if any, is then on the way.
    pub fn drive(&mut self, mut cut: impl FnMut(usize) -> usize) -> Result<(), (Side, TlsError)> {
        while !(self.to_server.is_empty() && self.to_client.is_empty()) {
            for side in [Side::Server, Side::Client] {
                let waiting = match side {
                    Side::Server => self.to_server.len(),
                    Side::Client => self.to_client.len(),
                };
                if waiting > 0 {
                    self.deliver(side, cut(waiting).clamp(1, waiting))
                        .map_err(|error| (side, error))?;
                }
            }
        }
        Ok(())
    }

    /// Delivers the next `bytes` to one side.
    ///
    /// # Errors
    /// As [`Session::handle_bytes`].
    pub fn deliver(&mut self, side: Side, bytes: usize) -> Result<Progress, TlsError> {
        match side {
            Side::Server => {
                let piece = self.to_server.drain(..bytes).collect::<Vec<_>>();
                self.server.handle_bytes(&piece, &mut self.to_client, &mut self.server_plain)
            }
            Side::Client => {
                let piece = self.to_client.drain(..bytes).collect::<Vec<_>>();
                self.client.handle_bytes(&piece, &mut self.to_server, &mut self.client_plain)
            }
        }
    }

    /// Sends `plain` from one side; it is on the way then.
    ///
    /// # Errors
    /// As [`Session::encrypt`].
    pub fn send(&mut self, from: Side, plain: &[u8]) -> Result<(), TlsError> {
        match from {
            Side::Client => self.client.encrypt(plain, &mut self.to_server),
            Side::Server => self.server.encrypt(plain, &mut self.to_client),
        }
    }
}
