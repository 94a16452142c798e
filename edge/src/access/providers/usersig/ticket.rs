//! The text of a ticket: base64 of zlib of JSON, in two versions. Reads, writes and signs; who is meant and
//! until when is compared by the caller.
//!
//! Reading is bounded: at most [`JSON_BYTES_MAX`] come out of the compression, and nothing may follow it.
//! Texts with control characters are refused, because the signed text separates its lines by them.

use std::borrow::Cow;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::access::providers::decimal;
use crate::access::secret::SecretText;

/// Longest JSON of a ticket. Real ones have 150 to 700 bytes.
pub const JSON_BYTES_MAX: usize = 4_096;
/// Version text written into new tickets of version 1.
const VERSION_1: &str = "201512300000";
/// zlib level of new tickets, as the implementations of the scheme use it.
const LEVEL: u8 = 6;

/// Why a ticket cannot be taken. Holds nothing of it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TicketError {
    /// It is none.
    Malformed,
    /// No key signed it.
    BadSignature,
}

/// What a ticket says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// 1 or 2.
    pub version: u8,
    /// User.
    pub user: String,
    /// Application.
    pub sdk_app_id: u64,
    /// Made at, in Unix seconds.
    pub time_unix_s: u64,
    /// Valid for so many seconds.
    pub expire_s: u64,
    /// Binary part, decoded; a privateMapKey has one.
    pub userbuf: Option<Vec<u8>>,
}

impl Ticket {
    /// Last second of validity.
    pub fn expires_unix_s(&self) -> u64 {
        self.time_unix_s.saturating_add(self.expire_s)
    }
}

/// A ticket that was read, with what its signature must fit.
pub(super) struct Opened {
    pub(super) ticket: Ticket,
    pub(super) version: Version,
}

pub(super) enum Version {
    V1 { signed: String, signature: Vec<u8> },
    V2 { signed: String, signature: Vec<u8> },
}

/// Version 1: every value is a text.
#[derive(Serialize, Deserialize)]
struct JsonV1<'j> {
    #[serde(rename = "TLS.account_type", borrow)]
    account_type: Cow<'j, str>,
    #[serde(rename = "TLS.identifier", borrow)]
    identifier: Cow<'j, str>,
    #[serde(rename = "TLS.appid_at_3rd", borrow, skip_serializing_if = "Option::is_none")]
    appid_at_3rd: Option<Cow<'j, str>>,
    #[serde(rename = "TLS.sdk_appid", borrow)]
    sdk_appid: Cow<'j, str>,
    #[serde(rename = "TLS.expire_after", borrow)]
    expire_after: Cow<'j, str>,
    #[serde(rename = "TLS.version", borrow, skip_serializing_if = "Option::is_none")]
    version: Option<Cow<'j, str>>,
    #[serde(rename = "TLS.time", borrow)]
    time: Cow<'j, str>,
    #[serde(rename = "TLS.userbuf", borrow, skip_serializing_if = "Option::is_none")]
    userbuf: Option<Cow<'j, str>>,
    #[serde(rename = "TLS.sig", borrow)]
    sig: Cow<'j, str>,
}

/// Version 2: numbers are numbers.
#[derive(Serialize, Deserialize)]
struct JsonV2<'j> {
    #[serde(rename = "TLS.ver", borrow)]
    ver: Cow<'j, str>,
    #[serde(rename = "TLS.identifier", borrow)]
    identifier: Cow<'j, str>,
    #[serde(rename = "TLS.sdkappid")]
    sdkappid: u64,
    #[serde(rename = "TLS.expire")]
    expire: u64,
    #[serde(rename = "TLS.time")]
    time: u64,
    #[serde(rename = "TLS.userbuf", borrow, skip_serializing_if = "Option::is_none")]
    userbuf: Option<Cow<'j, str>>,
    #[serde(rename = "TLS.sig", borrow)]
    sig: Cow<'j, str>,
}

/// Which version a JSON is: the one thing read before the rest.
#[derive(Deserialize)]
struct JsonVersion<'j> {
    #[serde(rename = "TLS.ver", borrow)]
    ver: Option<Cow<'j, str>>,
}

impl JsonV1<'_> {
    fn signed(&self) -> String {
        let third = self.appid_at_3rd.as_deref();
        let lines = [
            ("appid_at_3rd", third),
            ("account_type", Some(&*self.account_type)),
            ("identifier", Some(&*self.identifier)),
            ("sdk_appid", Some(&*self.sdk_appid)),
            ("time", Some(&*self.time)),
            ("expire_after", Some(&*self.expire_after)),
            ("userbuf", self.userbuf.as_deref()),
        ];
        join(&lines)
    }

    fn open(self) -> Option<Opened> {
        let texts = [&self.account_type, &self.identifier];
        if texts.into_iter().chain(&self.appid_at_3rd).any(|text| has_control(text)) {
            return None;
        }
        let ticket = Ticket {
            version: 1,
            sdk_app_id: decimal(&self.sdk_appid)?,
            time_unix_s: decimal(&self.time)?,
            expire_s: decimal(&self.expire_after)?,
            userbuf: decoded(self.userbuf.as_deref())?,
            user: self.identifier.as_ref().to_owned(),
        };
        let signature = STANDARD.decode(&*self.sig).ok()?;
        Some(Opened { ticket, version: Version::V1 { signed: self.signed(), signature } })
    }
}

impl JsonV2<'_> {
    fn signed(&self) -> String {
        let numbers = [self.sdkappid, self.time, self.expire].map(|number| number.to_string());
        let [app_id, time, expire] = &numbers;
        let lines = [
            ("identifier", Some(&*self.identifier)),
            ("sdkappid", Some(&**app_id)),
            ("time", Some(&**time)),
            ("expire", Some(&**expire)),
            ("userbuf", self.userbuf.as_deref()),
        ];
        join(&lines)
    }

    fn open(self) -> Option<Opened> {
        if has_control(&self.identifier) {
            return None;
        }
        let ticket = Ticket {
            version: 2,
            sdk_app_id: self.sdkappid,
            time_unix_s: self.time,
            expire_s: self.expire,
            userbuf: decoded(self.userbuf.as_deref())?,
            user: self.identifier.as_ref().to_owned(),
        };
        let signature = STANDARD.decode(&*self.sig).ok()?;
        Some(Opened { ticket, version: Version::V2 { signed: self.signed(), signature } })
    }
}

/// `TLS.name:value` and a line end for each value there is.
fn join(lines: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in lines.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        for part in ["TLS.", name, ":", value, "\n"] {
            text.push_str(part);
        }
    }
    text
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// `Some(None)` without a userbuf, `None` for one that is no base64. An empty one is a userbuf.
#[expect(clippy::option_option)]
fn decoded(userbuf: Option<&str>) -> Option<Option<Vec<u8>>> {
    userbuf.map(|text| STANDARD.decode(text)).transpose().ok()
}

/// Takes a ticket apart. Does not check its signature.
pub(super) fn read(text: &str) -> Result<Opened, TicketError> {
    let mut plain = [0; JSON_BYTES_MAX];
    let json = inflate(text, &mut plain).ok_or(TicketError::Malformed)?;
    let opened = open(json).ok_or(TicketError::Malformed)?;
    Ok(opened)
}

fn open(json: &[u8]) -> Option<Opened> {
    let version: JsonVersion<'_> = serde_json::from_slice(json).ok()?;
    if version.ver.is_some_and(|ver| ver.starts_with("2.")) {
        serde_json::from_slice::<JsonV2<'_>>(json).ok()?.open()
    } else {
        serde_json::from_slice::<JsonV1<'_>>(json).ok()?.open()
    }
}

/// Undoes the three letters, base64 and zlib. The whole text must be one ticket.
fn inflate<'p>(text: &str, plain: &'p mut [u8; JSON_BYTES_MAX]) -> Option<&'p [u8]> {
    let standard: String = text.chars().map(from_url).collect::<Option<String>>()?;
    let compressed = STANDARD.decode(standard).ok()?;
    let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
        | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut state = Box::<DecompressorOxide>::default();
    let (status, read, written) = decompress(&mut state, &compressed, plain, 0, flags);
    (status == TINFLStatus::Done && read == compressed.len()).then(|| &plain[..written])
}

/// One text per ticket: the standard letters that were replaced are not taken.
fn from_url(c: char) -> Option<char> {
    match c {
        '*' => Some('+'),
        '-' => Some('/'),
        '_' => Some('='),
        '+' | '/' | '=' => None,
        other => Some(other),
    }
}

fn to_url(c: char) -> char {
    match c {
        '+' => '*',
        '/' => '-',
        '=' => '_',
        other => other,
    }
}

fn deflate(json: &[u8]) -> String {
    let compressed = miniz_oxide::deflate::compress_to_vec_zlib(json, LEVEL);
    STANDARD.encode(compressed).chars().map(to_url).collect()
}

pub(super) fn hmac_of(key: &str, signed: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed.as_bytes())
}

/// A key that makes tickets, and the version it makes.
pub enum SigningKey {
    /// Version 1: a private key of P-256.
    V1(Box<EcdsaKeyPair>),
    /// Version 2: a shared text.
    V2(SecretText),
}

impl SigningKey {
    /// A PEM private key makes version 1, any other text version 2.
    ///
    /// # Errors
    /// A phrase when it is a PEM text without a private key of P-256.
    pub fn new(text: &SecretText) -> Result<Self, &'static str> {
        if !text.expose().contains("-----BEGIN ") {
            return Ok(Self::V2(text.clone()));
        }
        let unusable = "there is no P-256 PRIVATE KEY in this PEM text";
        let der = PrivateKeyDer::from_pem_slice(text.expose().as_bytes()).map_err(|_| unusable)?;
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        EcdsaKeyPair::from_private_key_der(algorithm, der.secret_der())
            .map(|pair| Self::V1(Box::new(pair)))
            .map_err(|_| unusable)
    }
}

impl SigningKey {
    /// Version of the tickets it makes.
    pub fn version(&self) -> u8 {
        match self {
            Self::V1(_) => 1,
            Self::V2(_) => 2,
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1(_) => "SigningKey(version 1)",
            Self::V2(_) => "SigningKey(version 2)",
        })
    }
}

/// Makes a ticket that says what `ticket` says; its version is that of the key, whatever `ticket` says.
///
/// # Errors
/// A phrase when the user has control characters or the ticket would be too long to be read.
pub fn sign(key: &SigningKey, ticket: &Ticket) -> Result<String, &'static str> {
    if ticket.user.is_empty() || has_control(&ticket.user) {
        return Err("a user is a text without control characters");
    }
    let userbuf = ticket.userbuf.as_ref().map(|bytes| Cow::Owned(STANDARD.encode(bytes)));
    let json = match key {
        SigningKey::V1(pair) => {
            let mut json = JsonV1 {
                account_type: "0".into(),
                identifier: (&*ticket.user).into(),
                appid_at_3rd: Some("0".into()),
                sdk_appid: ticket.sdk_app_id.to_string().into(),
                expire_after: ticket.expire_s.to_string().into(),
                version: Some(VERSION_1.into()),
                time: ticket.time_unix_s.to_string().into(),
                userbuf,
                sig: Cow::Borrowed(""),
            };
            let signature = pair
                .sign(&SystemRandom::new(), json.signed().as_bytes())
                .map_err(|_| "the system has no random numbers")?;
            json.sig = STANDARD.encode(signature).into();
            serde_json::to_vec(&json)
        }
        SigningKey::V2(key) => {
            let mut json = JsonV2 {
                ver: "2.0".into(),
                identifier: (&*ticket.user).into(),
                sdkappid: ticket.sdk_app_id,
                expire: ticket.expire_s,
                time: ticket.time_unix_s,
                userbuf,
                sig: Cow::Borrowed(""),
            };
            json.sig = STANDARD.encode(hmac_of(key.expose(), &json.signed())).into();
            serde_json::to_vec(&json)
        }
    };
    let json = json.map_err(|_| "the ticket cannot be written")?;
    if json.len() > JSON_BYTES_MAX {
        return Err("the ticket would be too long: shorten user or room");
    }
    Ok(deflate(&json))
}
