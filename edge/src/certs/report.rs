//! What the store tells: each certificate for the API, what a reload did, figures for metrics.

use std::fmt;

use serde::Serialize;

use crate::metrics::CertificateState;

/// Whether the dates of a certificate allow it to be used.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Validity {
    NotYet,
    Valid,
    Expired,
}

/// One certificate as operators see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CertInfo {
    /// Name of the pair: of its files or folder, or of its entry in the configuration.
    pub name: String,
    /// How it stands.
    pub state: CertificateState,
    /// Whether clients that ask for no name, or for an unknown one, get it.
    pub is_default: bool,
    /// Host names it is meant for; empty if none could be read yet.
    pub names: Vec<String>,
    /// Distinguished name of the issuer.
    pub issuer: Option<String>,
    /// First moment it is valid (RFC 3339, UTC).
    pub not_before: Option<String>,
    /// Last moment it is valid (RFC 3339, UTC).
    pub not_after: Option<String>,
    /// The same in Unix time, in seconds.
    pub not_after_unix_s: Option<u64>,
    /// For people, like `ECDSA P-256`.
    pub key_type: Option<String>,
    /// Certificates sent to clients, the leaf included; 0 if none could be read yet.
    pub chain: usize,
    /// Certificate file.
    pub cert_file: String,
    /// Key file.
    pub key_file: String,
    /// Why the files as they are now cannot be used. The certificate described here, if any, is an
    /// earlier one.
    pub error: Option<String>,
    /// What is not as it should be and does not keep it from being served.
    pub warnings: Vec<String>,
}

/// One certificate that could not be taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CertFailure {
    /// Name of the pair.
    pub name: String,
    /// File, line, reason, and what is served meanwhile.
    pub error: String,
}

/// What looking at the files did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct LoadReport {
    /// Pairs known now.
    pub total: usize,
    /// Pairs read and taken.
    pub loaded: usize,
    /// Pairs whose files are gone.
    pub removed: usize,
    /// Pairs that could not be taken, the first [`LoadReport::FAILURES_MAX`] by name.
    pub failed: Vec<CertFailure>,
    /// How many there are.
    pub failed_total: usize,
    /// Folders that cannot be looked into.
    pub problems: Vec<String>,
}

impl LoadReport {
    /// Entries of [`LoadReport::failed`].
    pub const FAILURES_MAX: usize = 50;

    pub(super) fn fail(&mut self, name: &str, error: &str) {
        self.failed_total += 1;
        if self.failed.len() < Self::FAILURES_MAX {
            self.failed.push(CertFailure { name: name.to_owned(), error: error.to_owned() });
        }
    }
}

/// There is no certificate to serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertError {
    /// Why, one line each; folders first, then pairs.
    pub reasons: Vec<String>,
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no certificate can be used (tls.dir, [certificate])")?;
        if self.reasons.is_empty() {
            f.write_str(": the folder holds none; it should hold NAME.crt and NAME.key")?;
        }
        for reason in &self.reasons {
            write!(f, "\n  {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CertError {}

/// Figures for metrics.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Certificates by state.
    pub states: [u64; 5],
    /// Names with a certificate.
    pub names: u64,
    /// Certificates taken since the start.
    pub loaded_total: u64,
    /// Refusals since the start.
    pub refused_total: u64,
    /// The certificates that end first: name and end in Unix time, soonest first.
    pub soonest: Vec<(String, i64)>,
}

/// `2026-11-21T06:47:43Z`.
pub(super) fn utc_text(unix_s: i64) -> String {
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    // Days are counted from 1 March of year 0, so that the leap day is the last of its year; 400 years
    // have 146,097 days.
    let from_march = days + 719_468;
    let (era, day) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}Z",
        era * 400 + year + next_year,
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_the_calendar() {
        for (unix_s, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_483_228_799, "2016-12-31T23:59:59Z"),
            (1_469_848_425, "2016-07-30T03:13:45Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc_text(unix_s), expected);
        }
    }
}
