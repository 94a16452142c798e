//! An authority of the test and a folder of certificates that changes while a server reads it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tls::rustls::pki_types::CertificateDer;
use tls::{ClientOptions, Roots, Version, rustls};

/// The name of the one certificate, where a test has no use for more.
pub(crate) const NAME: &str = "one.test";

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        // A name of its own: two authorities of one name would look like a forged signature.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A client that trusts nobody else.
    pub(crate) fn client(&self, options: &ClientOptions) -> Arc<rustls::ClientConfig> {
        tls::client_config_with(Roots::Pem(self.pem.clone().into_bytes()), options).unwrap()
    }
}

/// A client of one version only. It remembers tickets if asked to.
pub(crate) fn only(version: Version, remembers: bool) -> ClientOptions {
    let sessions_max = if remembers { 8 } else { 0 };
    let (version_min, version_max) = (version, version);
    ClientOptions { version_min, version_max, sessions_max, ..ClientOptions::default() }
}

/// A folder with certificates, and who vouches for them.
pub(crate) struct Folder {
    dir: TempDir,
    pub(crate) authority: Authority,
}

impl Folder {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("served")).unwrap();
        let folder = Self { dir, authority: Authority::new() };
        fs::write(folder.authority_file(), &folder.authority.pem).unwrap();
        folder
    }

    /// One with a certificate for [`NAME`], which is the default, too.
    pub(crate) fn with_one() -> Self {
        let folder = Self::new();
        folder.put("one", &[NAME, "localhost", "127.0.0.1"]);
        folder
    }

    /// Puts a new pair in place of the one of that name, if there is one: both files are complete
    /// before either is seen. Returns the certificate.
    pub(crate) fn put(&self, pair: &str, names: &[&str]) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let cert = params.signed_by(&key, &self.authority.issuer).unwrap();
        self.replace(&format!("{pair}.key"), &key.serialize_pem());
        self.replace(&format!("{pair}.crt"), &cert.pem());
        cert.der().clone()
    }

    /// Replaces one file by an atomic rename.
    pub(crate) fn replace(&self, file: &str, text: &str) {
        let fresh = self.dir.path().join("fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.served().join(file)).unwrap();
    }

    /// What the server reads.
    pub(crate) fn served(&self) -> PathBuf {
        self.path().join("served")
    }

    /// What a client trusts.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.path().join("authority.pem")
    }

    /// A client that trusts the authority, with default options and no memory.
    pub(crate) fn client(&self) -> Arc<rustls::ClientConfig> {
        let options = ClientOptions { sessions_max: 0, ..ClientOptions::default() };
        self.authority.client(&options)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}
