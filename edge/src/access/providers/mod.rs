//! The schemes by which a peer proves a right, each a module of plain functions over plain inputs.
//!
//! Pure: no clock (now is an argument), no system call, no lock, no log. Peer text never panics and never
//! makes more memory than a small multiple of the query, which `live::path` bounds at 8 KiB. Keys and
//! signatures are compared in constant time. Called by [`super::rules`] on a worker for each publish and
//! play, by the address generator ([`crate::address`]) and by `ringctl`.
//!
//! | module | parameters | signed by |
//! |---|---|---|
//! | [`txsecret`] | `txSecret`, `txTime` | MD5 over key, stream, time |
//! | [`aliyun`] | `auth_key`, type A | MD5 over URI, time, random, user, key |
//! | [`oss`] | `OSSAccessKeyId`, `Expires`, `Signature` | HMAC-SHA1 over time, parameters, bucket and channel |
//! | [`usersig`] | `userid`, `usersig`, `privateMapKey` | ECDSA P-256 (version 1) or HMAC-SHA256 (version 2) |
//! | [`jwt`] | `token` or `jwt` | HS, RS, PS, ES or EdDSA |
//! | [`ip`] | none | nobody: lists of networks |
//!
//! Every scheme with keys accepts a main and a backup key alike, so that keys can be changed while both
//! kinds of addresses are in use. The hook is not here: it waits for somebody else.

pub mod aliyun;
pub mod ip;
pub mod jwt;
pub mod oss;
pub mod txsecret;
pub mod usersig;

use std::net::IpAddr;

use live::path::{StreamKey, VhostSource};
use md5::{Digest as _, Md5};
use subtle::{Choice, ConstantTimeEq as _};

use super::secret::SecretText;
use super::{Denial, DenyReason, Question, Role, Suffix};

/// Sub code of the failure map: the request has no time of expiry, or one that cannot be read.
pub const EVENT_NO_TIME: u16 = 500;
/// Sub code of the failure map: the time is over.
pub const EVENT_EXPIRED: u16 = 501;
/// Sub code of the failure map: the request has no signature.
pub const EVENT_NO_SECRET: u16 = 502;
/// Sub code of the failure map: the signature does not match.
pub const EVENT_BAD_SECRET: u16 = 503;

/// How every refusal of an address or ticket begins.
const DENIED: &str = "denied by req auth: ";

/// What a peer asks for and presents, as far as a scheme may know it.
#[derive(Copy, Clone, Debug)]
pub struct Presented<'a> {
    /// What it wants to do.
    pub role: Role,
    /// App as the peer wrote it, decoded once; may have several levels.
    pub app: &'a str,
    /// Stream name, decoded once, without [`Presented::suffix`].
    pub stream: &'a str,
    /// Kind of address.
    pub suffix: Suffix,
    /// Host of the domain the peer asks, in normal form.
    pub host: Option<&'a str>,
    /// The parameters.
    pub query: &'a StreamKey,
    /// Address of the peer.
    pub peer: IpAddr,
    /// Now, in Unix seconds.
    pub unix_s: u64,
}

impl<'a> Presented<'a> {
    /// The part of a question that schemes look at.
    pub fn of(question: &Question<'a>) -> Self {
        let resolved = question.resolved;
        Self {
            role: question.role,
            app: resolved.path.app(),
            stream: resolved.path.name(),
            suffix: question.suffix,
            host: match resolved.vhost_source {
                // Otherwise an address signed for one domain would open another that has its keys.
                VhostSource::Explicit => Some(resolved.path.vhost()),
                VhostSource::Host | VhostSource::Default => resolved.host.as_deref(),
            },
            query: &resolved.query,
            peer: question.peer,
            unix_s: question.unix_s,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.query.pairs().any(|(candidate, _)| candidate == name)
    }
}

/// Passed, with what the proof says beyond yes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pass {
    /// What a publisher may send.
    pub tracks: Tracks,
    /// Whom the ticket names: the user of a UserSig, the subject of a token.
    pub user: Option<Box<str>>,
}

/// Kinds of media a publisher may send.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Tracks {
    /// Audio messages.
    pub audio: bool,
    /// Video messages.
    pub video: bool,
}

impl Default for Tracks {
    fn default() -> Self {
        Self { audio: true, video: true }
    }
}

/// What a scheme says.
pub type Verdict = Result<Pass, Denial>;

/// One scheme with its keys and settings, ready for use.
#[derive(Clone, Debug)]
pub enum Provider {
    /// Everybody may.
    Open,
    /// `txSecret`.
    TxSecret(txsecret::TxSecret),
    /// `auth_key`, type A.
    Aliyun(aliyun::AuthKey),
    /// Signed URL of a LiveChannel.
    Oss(oss::SignedUrl),
    /// UserSig.
    UserSig(usersig::UserSig),
    /// JSON web token.
    Jwt(jwt::Jwt),
    /// Networks.
    Ip(ip::Lists),
}

impl Provider {
    /// Whether the request carries any parameter of this scheme. True for schemes without parameters.
    pub fn recognises(&self, presented: &Presented<'_>) -> bool {
        match self {
            Self::Open | Self::Ip(_) => true,
            Self::TxSecret(_) => presented.has("txSecret") || presented.has("txTime"),
            Self::Aliyun(_) => presented.has("auth_key"),
            Self::Oss(oss) => oss.recognises(presented),
            Self::UserSig(_) => presented.has("usersig"),
            Self::Jwt(jwt) => jwt.recognises(presented),
        }
    }

    /// Whether the request has the right it asks for.
    ///
    /// # Errors
    /// The refusal, with the exact text for the wire.
    pub fn check(&self, presented: &Presented<'_>) -> Verdict {
        match self {
            Self::Open => Ok(Pass::default()),
            Self::TxSecret(scheme) => scheme.check(presented),
            Self::Aliyun(scheme) => scheme.check(presented),
            Self::Oss(scheme) => scheme.check(presented),
            Self::UserSig(scheme) => scheme.check(presented),
            Self::Jwt(scheme) => scheme.check(presented),
            Self::Ip(lists) => lists.check(presented.peer),
        }
    }
}

/// A main key and, while keys are changed, a backup key that is as good.
#[derive(Clone, Debug)]
pub struct Keys {
    main: SecretText,
    backup: Option<SecretText>,
}

impl Keys {
    /// Both keys.
    pub fn new(main: SecretText, backup: Option<SecretText>) -> Self {
        Self { main, backup }
    }

    /// The key that new addresses are signed with.
    pub fn main(&self) -> &SecretText {
        &self.main
    }

    /// Whether `matches` says yes to any key. Every key is tried, so that the time does not tell which.
    fn any(&self, matches: impl Fn(&str) -> Choice) -> bool {
        let backup = self.backup.as_ref().map_or(Choice::from(0), |key| matches(key.expose()));
        bool::from(matches(self.main.expose()) | backup)
    }
}

fn denied(reason: DenyReason, event_code: u16, text: &str) -> Denial {
    Denial::new(reason, event_code, format!("{DENIED}{text}"))
}

/// MD5 of the parts put together, as 32 lower-case hexadecimal digits.
pub(crate) fn md5_hex(parts: &[&str]) -> [u8; 32] {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    let digest: [u8; 16] = hash.finalize().into();
    let mut hex = [0; 32];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    hex
}

/// As text. The digits are ASCII by construction.
pub(crate) fn hex_text(hex: [u8; 32]) -> String {
    hex.iter().copied().map(char::from).collect()
}

/// Equal in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> Choice {
    a.ct_eq(b)
}

/// A number written in decimal digits only: no sign, no space. At most what 64 bits hold.
fn decimal(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
pub(super) mod testing {
    //! A request to try schemes on.

    use super::*;

    /// A publish of `/app/stream` from 192.0.2.7 with the given query at the given time.
    pub(crate) fn presented<'a>(
        (app, stream): (&'a str, &'a str),
        query: &'a StreamKey,
        unix_s: u64,
    ) -> Presented<'a> {
        Presented {
            role: Role::Publish,
            app,
            stream,
            suffix: Suffix::None,
            host: Some("push.example.com"),
            query,
            peer: IpAddr::from([192, 0, 2, 7]),
            unix_s,
        }
    }

    /// A raw query.
    pub(crate) fn query(raw: &str) -> StreamKey {
        StreamKey::new(raw).unwrap()
    }

    /// A key.
    pub(crate) fn secret(text: &str) -> SecretText {
        SecretText::new(text).unwrap()
    }
}
