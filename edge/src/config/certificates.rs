//! `[certificate."NAME"]`: reads the entries, checks them, compares and prints them.
//!
//! NAME is free; `default` is the certificate of clients without SNI. Whether the files can be used is not
//! decided here: they may change while the server runs.

use std::fmt::Write as _;

use toml::de::{DeTable, DeValue};

use super::load::{Loader, in_order};
use super::{CertificateEntry, Config, Section as _};

/// Certificates one file may name.
pub const CERTIFICATES_MAX: usize = 16_384;

impl Loader {
    pub(super) fn read_certificates(
        &mut self,
        entries: &DeTable<'_>,
        place: &impl Fn(usize) -> String,
    ) {
        for (name, value) in in_order(entries) {
            let at = place(name.span().start);
            let name = name.get_ref().as_ref();
            let title = format!("[certificate.\"{name}\"]");
            let DeValue::Table(keys) = value.get_ref() else {
                self.problem(at, format!("unknown key {name} in [certificate]; write {title}"));
                continue;
            };
            if name.is_empty() || name.len() > 253 || name.contains(char::is_control) {
                self.problem(at, format!("{title}: expected a name of 1 to 253 characters"));
                continue;
            }
            if self.config.certificates.len() == CERTIFICATES_MAX {
                self.problem(at, format!("more than {CERTIFICATES_MAX} certificates"));
                return;
            }
            let mut entry = CertificateEntry::default();
            let mut complete = true;
            for (key, value) in in_order(keys) {
                let at = place(key.span().start);
                let specs = CertificateEntry::KEYS;
                let Some((spec, text)) = self.read_key(&title, specs, key.get_ref(), value, &at)
                else {
                    complete = false;
                    continue;
                };
                if let Err(message) = entry.set(spec.name, &text) {
                    self.problem(at, format!("{} in {title}: {message}", spec.name));
                    complete = false;
                }
            }
            for (key, file) in [("cert", &entry.cert), ("key", &entry.key)] {
                if complete && file.path().is_none() {
                    self.problem(at.clone(), format!("{title} needs {key}, a PEM file"));
                }
            }
            self.config.certificates.insert(name.to_owned(), entry);
        }
    }
}

/// The entries, as the reference shows them.
pub(super) fn write_reference(out: &mut String, config: &Config) {
    if config.certificates.is_empty() {
        out.push_str(
            "#\n# [certificate.\"live.example.com\"]\n\
             # cert = \"/etc/ringcast/live.example.com/fullchain.pem\"\n\
             # key = \"/etc/ringcast/live.example.com/privkey.pem\"\n\
             # domains = \"live.example.com, *.live.example.com\"\n",
        );
    }
    for (name, entry) in &config.certificates {
        let _ = writeln!(out, "[certificate.{}]", super::setting::quoted(name));
        for spec in CertificateEntry::KEYS {
            if !entry.same_key(&CertificateEntry::default(), spec.name) {
                let _ = writeln!(out, "{} = {}", spec.name, entry.show(spec.name));
            }
        }
        out.push('\n');
    }
}
