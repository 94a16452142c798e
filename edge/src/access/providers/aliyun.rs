//! `auth_key`, type A: MD5 over URI, time, a random text, a user and the key.
//!
//! ```text
//!   rtmp://push.example.com/app/stream?auth_key=1543302081-0-0-3a5e9fd1a1aec97a79fe5497f0992783
//!                                               timestamp  │ │ md5("/app/stream-1543302081-0-0-" + key)
//!                                                       rand uid
//! ```
//!
//! The URI includes `.flv` and `.m3u8`, so an RTMP address does not open the FLV of its stream. Two
//! readings of the timestamp are in use: usually it is the time of signing, and the address is valid for
//! `validity_s` after it; with `timestamp_is_expiry` it is the end itself.

use std::borrow::Cow;

use super::{
    DenyReason, EVENT_BAD_SECRET, EVENT_EXPIRED, EVENT_NO_SECRET, EVENT_NO_TIME, Keys, Pass,
    Presented, Verdict, decimal, denied, hex_text, md5_hex, same,
};
use crate::access::secret::SecretText;

/// Validity of an address when the domain does not say, in seconds.
pub const VALIDITY_S_DEFAULT: u64 = 1_800;
/// Characters of a wrong hash that are told back to the peer.
const ECHO_CHARS_MAX: usize = 64;

/// The scheme with its keys.
#[derive(Clone, Debug)]
pub struct AuthKey {
    /// Either key is accepted.
    pub keys: Keys,
    /// Seconds from the timestamp during which an address is valid.
    pub validity_s: u64,
    /// The timestamp is the end of validity; `validity_s` means nothing then.
    pub timestamp_is_expiry: bool,
}

impl AuthKey {
    /// Form, then expiry, then hash.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, presented: &Presented<'_>) -> Verdict {
        let Some(auth_key) = presented.query.value("auth_key").filter(|key| !key.is_empty()) else {
            return Err(denied(DenyReason::NoParam, EVENT_NO_SECRET, "no url arg auth_key"));
        };
        let Some(fields) = Fields::parse(&auth_key) else {
            return Err(denied(DenyReason::BadParam, EVENT_NO_TIME, "invalid timestamp"));
        };
        let validity_s = if self.timestamp_is_expiry { 0 } else { self.validity_s };
        if presented.unix_s > fields.unix_s.saturating_add(validity_s) {
            let text = format!("expired timestamp={}", fields.timestamp);
            return Err(denied(DenyReason::Expired, EVENT_EXPIRED, &text));
        }
        let Fields { timestamp, rand, uid, hash, .. } = fields;
        let is_right = self.keys.any(|key| {
            let [app, stream] = [presented.app, presented.stream];
            same(
                &digest(key, [app, stream, presented.suffix.text()], [timestamp, rand, uid]),
                hash.as_bytes(),
            )
        });
        if is_right {
            return Ok(Pass::default());
        }
        let text = format!("invalid md5hash={}", echo(hash));
        Err(denied(DenyReason::BadHash, EVENT_BAD_SECRET, &text))
    }
}

/// The parts of an `auth_key`.
struct Fields<'k> {
    timestamp: &'k str,
    unix_s: u64,
    rand: &'k str,
    uid: &'k str,
    hash: &'k str,
}

impl<'k> Fields<'k> {
    /// Exactly four fields, the first a number.
    fn parse(auth_key: &'k str) -> Option<Self> {
        let mut fields = auth_key.split('-');
        let (timestamp, rand) = (fields.next()?, fields.next()?);
        let (uid, hash) = (fields.next()?, fields.next()?);
        let unix_s = decimal(timestamp)?;
        fields.next().is_none().then_some(Self { timestamp, unix_s, rand, uid, hash })
    }
}

fn digest(key: &str, [app, stream, suffix]: [&str; 3], [time, rand, uid]: [&str; 3]) -> [u8; 32] {
    md5_hex(&["/", app, "/", stream, suffix, "-", time, "-", rand, "-", uid, "-", key])
}

/// The `auth_key` parameter for one address, as a query. `suffix` is that of the address, with its dot.
/// `rand` and `uid` are `0` unless the caller has others; they must not hold a `-`.
pub fn sign(
    key: &SecretText,
    [app, stream, suffix]: [&str; 3],
    timestamp: u64,
    [rand, uid]: [&str; 2],
) -> String {
    let time = timestamp.to_string();
    let hash = hex_text(digest(key.expose(), [app, stream, suffix], [&time, rand, uid]));
    format!("auth_key={time}-{rand}-{uid}-{hash}")
}

/// The peer's own text, made short and printable.
fn echo(hash: &str) -> Cow<'_, str> {
    let is_plain = hash.len() <= ECHO_CHARS_MAX && hash.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain {
        return Cow::Borrowed(hash);
    }
    hash.chars().filter(char::is_ascii_graphic).take(ECHO_CHARS_MAX).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{presented, query, secret};
    use super::*;
    use crate::access::Suffix;

    const SIGNED: u64 = 1_543_302_081;

    fn scheme() -> AuthKey {
        let keys = Keys::new(secret("testmainkey01"), Some(secret("testbackupkey02")));
        AuthKey { keys, validity_s: VALIDITY_S_DEFAULT, timestamp_is_expiry: false }
    }

    fn refusal(raw: &str, unix_s: u64) -> (String, DenyReason, u16) {
        let query = query(raw);
        let denial = scheme().check(&presented(("app", "stream"), &query, unix_s)).unwrap_err();
        (denial.text, denial.reason, denial.event_code)
    }

    #[test]
    fn each_failure_has_its_exact_text() {
        use DenyReason::{BadHash, BadParam, Expired, NoParam};
        let wrong = "0123456789abcdef0123456789abcdef";
        for (raw, unix_s, text, reason, code) in [
            ("", 0, "no url arg auth_key", NoParam, 502),
            ("auth_key=", 0, "no url arg auth_key", NoParam, 502),
            ("Auth_key=1-0-0-a", 0, "no url arg auth_key", NoParam, 502),
            ("auth_key=1-0-a", 0, "invalid timestamp", BadParam, 500),
            ("auth_key=1-0-0-a-b", 0, "invalid timestamp", BadParam, 500),
            ("auth_key=x-0-0-a", 0, "invalid timestamp", BadParam, 500),
            ("auth_key=+1-0-0-a", 0, "invalid timestamp", BadParam, 500),
            ("auth_key=-1-0-0-a", 0, "invalid timestamp", BadParam, 500),
            ("auth_key=99999999999999999999-0-0-a", 0, "invalid timestamp", BadParam, 500),
            ("auth_key=5-0-0-a", 1_806, "expired timestamp=5", Expired, 501),
            ("auth_key=005-0-0-a", 1_806, "expired timestamp=005", Expired, 501),
            ("auth_key=5-0-0-a%0Ab%20", 5, "invalid md5hash=ab", BadHash, 503),
            (
                &format!("auth_key=5-0-0-{wrong}"),
                1_805,
                &format!("invalid md5hash={wrong}"),
                BadHash,
                503,
            ),
        ] {
            let expected = (format!("denied by req auth: {text}"), reason, code);
            assert_eq!(refusal(raw, unix_s), expected, "{raw}");
        }
    }

    #[test]
    fn a_long_wrong_hash_is_told_back_shortened() {
        let (text, ..) = refusal(&format!("auth_key=5-0-0-{}", "é!".repeat(2_000)), 5);
        assert_eq!(text, format!("denied by req auth: invalid md5hash={}", "!".repeat(64)));
    }

    #[test]
    fn the_timestamp_is_the_time_of_signing_or_the_end() {
        let signed = sign(&secret("testbackupkey02"), ["app", "stream", ""], SIGNED, ["0", "0"]);
        let query = query(&signed);
        let at = |scheme: &AuthKey, unix_s| {
            scheme.check(&presented(("app", "stream"), &query, unix_s)).is_ok()
        };
        let usual = scheme();
        assert!(
            at(&usual, SIGNED - 9) && at(&usual, SIGNED + 1_800) && !at(&usual, SIGNED + 1_801)
        );
        let strict = AuthKey { timestamp_is_expiry: true, ..scheme() };
        assert!(at(&strict, SIGNED) && !at(&strict, SIGNED + 1));
    }

    #[test]
    fn an_address_opens_its_own_suffix_only() {
        let all = [Suffix::None, Suffix::Flv, Suffix::M3u8];
        for signed_for in all {
            let path = ["app", "stream", signed_for.text()];
            let query = query(&sign(&secret("testmainkey01"), path, SIGNED, ["r", "7"]));
            for asked in all {
                let mut presented = presented(("app", "stream"), &query, SIGNED);
                presented.suffix = asked;
                assert_eq!(scheme().check(&presented).is_ok(), asked == signed_for);
            }
        }
    }
}
