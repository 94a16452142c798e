//! An established session as plain data, for another process on this machine that goes on with it.
//!
//! Made by [`Session::into_record`](crate::Session::into_record) and
//! [`KernelSession::to_record`](crate::KernelSession::to_record). Holds traffic keys: it is not to be stored
//! or logged. Keys are wiped when it is dropped; who serializes it wipes the bytes.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::config::{cipher_of, suite_named};
use crate::crypto_info::{CryptoInfo, Version};
use crate::error::{ErrorKind, Result, TlsError};
use crate::session::Facts;

/// Keys of one direction, as the kernel takes them. Wiped when dropped, never printed.
#[derive(Serialize, Deserialize)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub(crate) fn of(info: &CryptoInfo) -> Self {
        Self(info.as_bytes().to_vec())
    }

    /// The keys, which must be those of a session that agreed on `facts`.
    pub(crate) fn keys_of(&self, facts: &Facts) -> Result<CryptoInfo> {
        let info = CryptoInfo::from_bytes(&self.0)?;
        if info.version() == facts.version && info.cipher() == facts.cipher {
            Ok(info)
        } else {
            Err(unfit("keys of another cipher"))
        }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").finish_non_exhaustive()
    }
}

/// What the handshake agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsRecord {
    /// It is TLS 1.3, else 1.2.
    pub is_tls13: bool,
    /// Registered name of the suite.
    pub suite: String,
    /// A ticket of an earlier session was accepted.
    pub resumed: bool,
    /// Host name the client asked for.
    pub sni: Option<String>,
    /// Protocol agreed by ALPN.
    pub alpn: Option<String>,
}

impl From<&Facts> for FactsRecord {
    fn from(facts: &Facts) -> Self {
        Self {
            is_tls13: facts.version == Version::Tls13,
            suite: facts.suite.to_owned(),
            resumed: facts.resumed,
            sni: facts.sni.as_deref().map(str::to_owned),
            alpn: facts.alpn.as_deref().map(str::to_owned),
        }
    }
}

impl TryFrom<&FactsRecord> for Facts {
    type Error = TlsError;

    fn try_from(record: &FactsRecord) -> Result<Self> {
        let suite = suite_named(&record.suite).map(|suite| suite.suite());
        let found = suite.and_then(|suite| Some((suite.as_str()?, cipher_of(suite)?)));
        let Some((suite, cipher)) = found else { return Err(unfit("a suite that is unknown")) };
        Ok(Self {
            version: if record.is_tls13 { Version::Tls13 } else { Version::Tls12 },
            cipher,
            suite,
            resumed: record.resumed,
            sni: record.sni.as_deref().map(Into::into),
            alpn: record.alpn.as_deref().map(Into::into),
        })
    }
}

/// What is left of a session besides its records: see [`KernelSession`](crate::KernelSession).
#[derive(Debug, Serialize, Deserialize)]
pub struct ControlRecord {
    /// It is the client's side.
    pub is_client: bool,
    /// Handshake message that came in pieces.
    pub message: Vec<u8>,
    /// `KeyUpdate` messages the peer may send yet.
    pub key_updates_left: u32,
    /// Harmless messages it may send yet.
    pub events_left: u32,
    /// Data received.
    pub received_bytes: u64,
    /// Records sent under the present key.
    pub records_sent: u64,
    /// Next keys to send with, in order.
    pub next_send: Vec<Secret>,
    /// Next keys of the peer, in order.
    pub next_receive: Vec<Secret>,
}

/// A session whose records are made in the process.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    /// What was agreed.
    pub facts: FactsRecord,
    /// Keys to send with, and the number of the next record.
    pub send: Secret,
    /// Keys of the peer, and the number of its next record.
    pub receive: Secret,
    /// The rest.
    pub control: ControlRecord,
    /// The part of a record that has come.
    pub incoming: Vec<u8>,
}

pub(crate) fn unfit(what: &str) -> TlsError {
    TlsError::new(ErrorKind::Internal(format!("a session passed on: {what}").into()))
}
