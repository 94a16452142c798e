//! A certificate for the TLS rows: self-signed, for this machine's loopback, made anew for each server.

use std::fs;
use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};

/// Writes `NAME.crt` and `NAME.key` (ECDSA P-256, PEM) into a folder.
///
/// # Errors
/// No randomness, or the folder cannot be written.
pub(crate) fn write(folder: &Path, name: &str) -> Result<(), String> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = generate_simple_self_signed(names).map_err(|error| error.to_string())?;
    let CertifiedKey { cert, signing_key } = made;
    for (kind, text) in [("crt", cert.pem()), ("key", signing_key.serialize_pem())] {
        let file = folder.join(format!("{name}.{kind}"));
        fs::write(file, text).map_err(|error| format!("certificate: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_are_pem() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a").unwrap();
        let read = |file| fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(read("a.crt").starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(read("a.key").starts_with("-----BEGIN PRIVATE KEY-----"));
    }
}
