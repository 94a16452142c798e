//! An authority and one certificate of a test, in the folder layout of the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tls::{Cipher, ClientOptions, Roots, Version, rustls};

/// The name the certificate is for, besides 127.0.0.1.
pub(crate) const NAME: &str = "ktls.test";

/// One version with one cipher.
pub(crate) type Suite = (Version, Cipher);

/// Every version with every cipher.
pub(crate) fn suites() -> Vec<Suite> {
    let of = |version| Cipher::ALL.map(|cipher| (version, cipher));
    [of(Version::Tls13), of(Version::Tls12)].concat()
}

/// A folder with a certificate, and who vouches for it.
pub(crate) struct Certs {
    dir: TempDir,
    authority_pem: String,
}

impl Certs {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Else both have one name, and OpenSSL takes the certificate for its own authority.
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let authority_key = KeyPair::generate().unwrap();
        let authority_pem = params.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let names = [NAME, "localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, NAME);
        let cert = params.signed_by(&key, &issuer).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("served")).unwrap();
        let file = |name: String, text: &str| fs::write(dir.path().join(name), text).unwrap();
        file(format!("served/{NAME}.crt"), &cert.pem());
        file(format!("served/{NAME}.key"), &key.serialize_pem());
        file("authority.pem".to_owned(), &authority_pem);
        Self { dir, authority_pem }
    }

    /// What the server reads.
    pub(crate) fn served(&self) -> PathBuf {
        self.dir.path().join("served")
    }

    /// What a client trusts.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// A client that offers this and nothing else. It remembers tickets if asked to.
    pub(crate) fn client(&self, suite: Suite, remembers: bool) -> Arc<rustls::ClientConfig> {
        let (version, cipher) = suite;
        let options = ClientOptions {
            version_min: version,
            version_max: version,
            ciphers: vec![cipher],
            sessions_max: if remembers { 8 } else { 0 },
            ..ClientOptions::default()
        };
        let roots = Roots::Pem(self.authority_pem.clone().into_bytes());
        tls::client_config_with(roots, &options).unwrap()
    }
}

impl AsRef<Path> for Certs {
    fn as_ref(&self) -> &Path {
        self.dir.path()
    }
}
