//! Makes a certificate authority and server certificates for trying RTMPS on one's own machine.
//!
//! ```text
//!   demo-certs DIR [NAME...]
//!     DIR/ca.crt                         to be trusted by players and encoders, if they verify at all
//!     DIR/certs/default/fullchain.pem    localhost, 127.0.0.1, ::1     + privkey.pem
//!     DIR/certs/NAME/fullchain.pem       NAME and *.NAME               + privkey.pem
//! ```
//!
//! NAME defaults to demo.ringcast.test. The key of the authority is never written: once this program ends
//! nobody can make another certificate that those who trust it would accept. What is there and fresh is
//! kept, so that trust given once lasts; with other names, or after sixty days, everything is made anew.
//! Not for production: nobody but those who were told trusts it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

const DAY: Duration = Duration::from_secs(86_400);
/// How long everything is valid.
const LIFE_DAYS: u32 = 90;
/// Age at which it is made anew.
const FRESH_DAYS: u32 = 60;
const NAME_DEFAULT: &str = "demo.ringcast.test";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(dir) = arguments.next().filter(|first| !first.starts_with('-')) else {
        eprintln!("usage: demo-certs DIR [NAME...]");
        return ExitCode::from(2);
    };
    let mut names: Vec<String> = arguments.collect();
    if names.is_empty() {
        names.push(NAME_DEFAULT.to_owned());
    }
    match make(&PathBuf::from(dir), &names) {
        Ok(made) => {
            println!("{made}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("demo-certs: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Makes what is not there. Returns what was done, for people.
fn make(dir: &Path, names: &[String]) -> Result<String, String> {
    // A name becomes a folder's name.
    if let Some(bad) = names.iter().find(|name| name.starts_with('.') || name.contains('/')) {
        return Err(format!("{bad:?} is not a host name"));
    }
    let ca_file = dir.join("ca.crt");
    if is_fresh(dir, names) {
        return Ok(format!("kept the certificates in {}", dir.display()));
    }
    let wrong = |error: rcgen::Error| error.to_string();
    let (issuer, ca_pem) = authority().map_err(wrong)?;
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let named = names.iter().map(|name| (name.as_str(), vec![name.clone(), format!("*.{name}")]));
    for (folder, hosts) in [("default", local)].into_iter().chain(named) {
        let (cert, key) = server(&hosts, &issuer).map_err(wrong)?;
        let folder = dir.join("certs").join(folder);
        let written = fs::create_dir_all(&folder)
            .and_then(|()| write(&folder.join("privkey.pem"), &key, 0o600))
            .and_then(|()| write(&folder.join("fullchain.pem"), &cert, 0o644));
        written.map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    // Last: it stands for a complete set.
    write(&ca_file, &ca_pem, 0o644).map_err(|error| format!("{}: {error}", ca_file.display()))?;
    Ok(format!("made a demo authority and {} certificates in {}", names.len() + 1, dir.display()))
}

/// Whether all of it is there and young enough.
fn is_fresh(dir: &Path, names: &[String]) -> bool {
    let age = fs::metadata(dir.join("ca.crt"))
        .and_then(|file| file.modified())
        .map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
    let all = names.iter().map(String::as_str).chain(["default"]);
    age.is_ok_and(|age| age < DAY * FRESH_DAYS)
        && all.map(|name| dir.join("certs").join(name)).all(|folder| {
            ["fullchain.pem", "privkey.pem"].iter().all(|file| folder.join(file).exists())
        })
}

fn dates(params: &mut CertificateParams) {
    // From yesterday, for machines whose clock is a little behind.
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * LIFE_DAYS).into();
}

fn authority() -> Result<(Issuer<'static, KeyPair>, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    dates(&mut params);
    params
        .distinguished_name
        .push(DnType::CommonName, "Ringcast demo authority (this machine only)");
    // Signs servers directly; no authority below it.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

/// Certificate and key, as PEM.
fn server(
    hosts: &[String],
    issuer: &Issuer<'static, KeyPair>,
) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    dates(&mut params);
    for host in hosts {
        params.subject_alt_names.push(match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    if let Some(first) = hosts.first() {
        params.distinguished_name.push(DnType::CommonName, first.as_str());
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

/// Writes beside the place and renames, so that a server that watches never sees half a file.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let part = path.with_extension("part");
    // A part left behind by a crash would keep its permissions.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
    file.write_all(text.as_bytes())?;
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push(path.display().to_string());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_set_is_complete_and_the_key_of_the_authority_is_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &["a.test".to_owned()]).unwrap();
        let expected = [
            "ca.crt",
            "certs/a.test/fullchain.pem",
            "certs/a.test/privkey.pem",
            "certs/default/fullchain.pem",
            "certs/default/privkey.pem",
        ];
        let expected = expected.map(|file| dir.path().join(file).display().to_string());
        assert_eq!(files(dir.path()), expected);
        for file in expected {
            let is_key = fs::read_to_string(&file).unwrap().contains("PRIVATE KEY");
            assert_eq!(is_key, file.ends_with("privkey.pem"), "{file}");
        }
    }

    #[test]
    fn what_is_fresh_is_kept_and_another_name_makes_all_anew() {
        let dir = tempfile::tempdir().unwrap();
        let ca = || fs::read_to_string(dir.path().join("ca.crt")).unwrap();
        make(dir.path(), &["a.test".to_owned()]).unwrap();
        let first = ca();
        assert!(make(dir.path(), &["a.test".to_owned()]).unwrap().starts_with("kept"));
        assert_eq!(ca(), first);
        make(dir.path(), &["a.test".to_owned(), "b.test".to_owned()]).unwrap();
        assert_ne!(ca(), first);
        assert!(make(dir.path(), &["../b".to_owned()]).is_err());
    }
}
