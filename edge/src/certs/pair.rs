//! Reads one pair of files: decodes, checks that they belong together, and tells what is in them.
//!
//! Every refusal names the file and, where there is one, the line. A pair is either complete or refused;
//! whether it may replace another one is decided by the store. Runs on the control side only.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use tls::rustls::crypto::CryptoProvider;
use tls::rustls::pki_types::pem::PemObject as _;
use tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tls::rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Name;

use super::pem::{Section, sections};
use super::report::Validity;
use super::sources::PairFiles;

/// Largest file that is read, in bytes. A chain of four RSA certificates has about 8,000.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Certificates one file may hold.
pub const CHAIN_MAX: usize = 16;
/// Host names taken from one certificate.
pub const NAMES_MAX: usize = 1_000;

/// A pair that can be served.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// What a handshake uses.
    pub key: Arc<CertifiedKey>,
    /// Host names it is chosen for: in lower case, wildcards as `*.parent`, addresses as text.
    pub names: Vec<String>,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// First second it is valid, in Unix time.
    pub not_before_s: i64,
    /// Last second it is valid, in Unix time.
    pub not_after_s: i64,
    /// For people: `ECDSA P-256`.
    pub key_type: String,
    /// What is not as it should be and does not keep it from being served.
    pub warnings: Vec<String>,
}

impl Pair {
    /// Whether its dates allow it to be served at `now_s`.
    pub(super) fn validity(&self, now_s: i64) -> Validity {
        if now_s < self.not_before_s {
            Validity::NotYet
        } else if now_s > self.not_after_s {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }
}

/// Reads and checks a pair.
///
/// # Errors
/// Why it cannot be served: file, line, what to do.
pub(super) fn read(files: &PairFiles, provider: &CryptoProvider) -> Result<Pair, String> {
    let at_cert = |message: String| format!("{}: {message}", files.cert.display());
    let at_key = |message: String| format!("{}: {message}", files.key.display());
    let cert_text = read_text(&files.cert)?;
    let key_text = read_text(&files.key)?;
    let chain = certificates(&cert_text).map_err(at_cert)?;
    let key = private_key(&key_text, provider).map_err(at_key)?;

    let mut parsed = Vec::with_capacity(chain.len());
    for (der, line) in &chain {
        parsed.push((parse(der).map_err(|what| at_cert(format!("line {line}: {what}")))?, *line));
    }
    let Some((leaf, leaf_line)) = parsed.first() else {
        return Err(at_cert("there is no certificate in it".into()));
    };
    check_key(key.as_ref(), &parsed)
        .map_err(|what| format!("{}: line {leaf_line}: {what}", files.cert.display()))?;

    let mut warnings = Vec::new();
    let order = chain_order(&parsed, &mut warnings);
    let served = order.iter().filter_map(|index| chain.get(*index).map(|(der, _)| der.clone()));
    let names = names(leaf, &files.domains, &mut warnings);
    if names.is_empty() {
        warnings.push("it names no host: it can only be the default".into());
    }
    Ok(Pair {
        names,
        issuer: name_text(leaf.issuer()),
        not_before_s: leaf.validity().not_before.timestamp(),
        not_after_s: leaf.validity().not_after.timestamp(),
        key_type: key_type(leaf),
        key: Arc::new(CertifiedKey::new(served.collect(), key)),
        warnings,
    })
}

fn read_text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(read) if read as u64 > FILE_BYTES_MAX => {
            Err(format!("{shown}: larger than {FILE_BYTES_MAX} bytes"))
        }
        Ok(0) => Err(format!("{shown}: empty; half written?")),
        Ok(_) => String::from_utf8(bytes).map_err(|_| {
            format!("{shown}: not PEM text; is it DER? `openssl x509 -inform der` converts")
        }),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(format!("{shown}: {error}; the server's user must be able to read it"))
        }
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// Certificates with the line each begins on.
fn certificates(text: &str) -> Result<Vec<(CertificateDer<'static>, usize)>, String> {
    let mut chain = Vec::new();
    for Section { line, text, .. } in
        sections(text)?.into_iter().filter(|section| section.label == "CERTIFICATE")
    {
        if chain.len() == CHAIN_MAX {
            return Err(format!("line {line}: more than {CHAIN_MAX} certificates"));
        }
        let der = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|error| format!("line {line}: the certificate is damaged: {error}"))?;
        chain.push((der, line));
    }
    Ok(chain)
}

fn private_key(text: &str, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, String> {
    let sections = sections(text)?;
    if let Some(section) = sections.iter().find(|section| is_encrypted(section)) {
        return Err(format!(
            "line {}: the key is encrypted; write it without a passphrase (openssl pkey) and \
             let file permissions protect it",
            section.line
        ));
    }
    let is_key = |section: &&Section<'_>| {
        matches!(section.label, "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY")
    };
    let Some(section) = sections.iter().find(is_key) else {
        let found = sections.first().map_or("nothing", |section| section.label);
        return Err(format!("there is no PEM private key in it (found {found})"));
    };
    let line = section.line;
    let der = PrivateKeyDer::from_pem_slice(section.text.as_bytes())
        .map_err(|error| format!("line {line}: the key is damaged: {error}"))?;
    provider.key_provider.load_private_key(der).map_err(|error| {
        format!(
            "line {line}: the key cannot be used; it must be ECDSA (P-256, P-384, P-521), Ed25519 or \
             RSA of 2048 to 8192 bits ({error})"
        )
    })
}

fn is_encrypted(section: &Section<'_>) -> bool {
    section.label == "ENCRYPTED PRIVATE KEY"
        || (section.label.ends_with("PRIVATE KEY") && section.text.contains("ENCRYPTED"))
}

fn parse<'a>(der: &'a CertificateDer<'static>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("bytes after the end of the certificate".into()),
        Err(error) => Err(format!("not a certificate: {error}")),
    }
}

/// The key must belong to the first certificate; if it belongs to another one, that is said.
fn check_key(key: &dyn SigningKey, chain: &[(X509Certificate<'_>, usize)]) -> Result<(), String> {
    // Every key of the provider tells its public half; one that does not cannot be checked here.
    let Some(public) = key.public_key() else { return Ok(()) };
    let belongs = |(certificate, _): &(X509Certificate<'_>, usize)| {
        certificate.public_key().raw == public.as_ref()
    };
    match chain.iter().position(belongs) {
        Some(0) => Ok(()),
        Some(index) => Err(format!(
            "the key belongs to certificate {} of the file, which must stand first",
            index + 1
        )),
        None => Err("the key does not belong to this certificate".into()),
    }
}

/// Positions of the chain as it is served: the leaf, then each one's issuer. What is out of place is put in
/// place, what does not belong is left out, and both are said.
fn chain_order(chain: &[(X509Certificate<'_>, usize)], warnings: &mut Vec<String>) -> Vec<usize> {
    let mut order = vec![0];
    while let Some((last, _)) = order.last().and_then(|index| chain.get(*index)) {
        let is_next = |index: &usize| {
            !order.contains(index) && chain[*index].0.subject().as_raw() == last.issuer().as_raw()
        };
        match (0..chain.len()).find(is_next) {
            Some(next) => order.push(next),
            None => break,
        }
    }
    for (index, (certificate, line)) in chain.iter().enumerate() {
        if !order.contains(&index) {
            let subject = name_text(certificate.subject());
            warnings.push(format!(
                "certificate {} (line {line}, {subject}) does not belong to the chain and is not sent",
                index + 1
            ));
        }
    }
    if !order.is_sorted() {
        warnings.push(
            "the chain is not in order (each must follow the one it issued); repaired".into(),
        );
    }
    order
}

/// Host names: the configured ones, else the alternative names, else the common name.
fn names(
    leaf: &X509Certificate<'_>,
    configured: &[String],
    warnings: &mut Vec<String>,
) -> Vec<String> {
    let mut own = Vec::new();
    let alternative = leaf.subject_alternative_name().ok().flatten();
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => own.push(name.trim_end_matches('.').to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => own.extend(address_text(bytes)),
            _ => {}
        }
    }
    if own.is_empty() {
        let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        own.extend(common.map(str::to_ascii_lowercase));
    }
    own.retain(|name| {
        let usable = is_host_name(name);
        if !usable {
            warnings.push(format!("{name:?} is not a host name and is not used"));
        }
        usable
    });
    own.truncate(NAMES_MAX);
    for name in configured.iter().filter(|name| !covers(&own, name)) {
        warnings.push(format!("clients will refuse it for {name}, which it does not name"));
    }
    if configured.is_empty() { own } else { configured.to_vec() }
}

fn covers(own: &[String], name: &str) -> bool {
    own.iter().any(|one| {
        one == name
            || one.strip_prefix("*.").is_some_and(|parent| {
                name.split_once('.')
                    .is_some_and(|(_, rest)| rest == parent && !name.starts_with('*'))
            })
    })
}

fn address_text(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).to_string())
}

/// A name a client can ask for: `a.example`, `*.example`, an address.
fn is_host_name(name: &str) -> bool {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    !bare.is_empty() && name.len() <= 253 && bare.chars().all(fits)
}

fn name_text(name: &X509Name<'_>) -> String {
    // Control characters would reach logs and terminals.
    let text = name.to_string();
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).take(500).collect()
}

fn key_type(leaf: &X509Certificate<'_>) -> String {
    match leaf.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        // Points say only how long they are, which tells the three curves apart.
        Ok(PublicKey::EC(point)) => {
            format!("ECDSA P-{}", if point.key_size() > 500 { 521 } else { point.key_size() })
        }
        _ => "Ed25519".into(),
    }
}
