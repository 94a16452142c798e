//! Signed publish address of an object storage's LiveChannel: HMAC-SHA1 over expiry, parameters, resource.
//!
//! ```text
//!   rtmp://bucket.host/live/channel?playlistName=a.m3u8&OSSAccessKeyId=id&Expires=1472201595&Signature=…
//!   rtmp://192.0.2.1:1935/bucket/live/channel?…            the same, for hosts that cannot name a bucket
//!
//!   signed text:  1472201595 \n  playlistName:a.m3u8 \n  /bucket/channel
//! ```
//!
//! All other parameters are signed, sorted by name and decoded, whichever they are; their order in the
//! address is free. Names and values that would make the signed text ambiguous are refused, and so is a
//! name that comes twice. The signature is compared as text: base64 has several texts for the same bytes.
//! A LiveChannel is not played over RTMP, so this scheme refuses every play.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use std::borrow::Cow;
use std::net::IpAddr;

use super::{
    Denial, DenyReason, EVENT_BAD_SECRET, EVENT_EXPIRED, EVENT_NO_SECRET, EVENT_NO_TIME, Pass,
    Presented, Role, Verdict, decimal, same,
};
use crate::access::secret::SecretText;

/// Parameters of one address, those that are not signed included.
pub const PARAMS_MAX: usize = 64;
/// The app of a LiveChannel.
pub const APP: &str = "live";
/// Parameters that are not part of the signed text.
const UNSIGNED: [&str; 4] = ["OSSAccessKeyId", "Expires", "Signature", "SecurityToken"];

/// An access key: a public id and its secret.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// `OSSAccessKeyId`.
    pub id: Box<str>,
    /// Its secret.
    pub secret: SecretText,
}

/// The scheme with its keys.
#[derive(Clone, Debug)]
pub struct SignedUrl {
    /// The access key, and a second one while keys are changed. They may have the same id.
    pub keys: Vec<AccessKey>,
    /// The only bucket; otherwise the address names it.
    pub bucket: Option<Box<str>>,
    /// Anybody may publish without signing (ACL public-read-write). What is signed is checked all the same.
    pub public_write: bool,
}

impl SignedUrl {
    /// Whether the request carries any of the three parameters.
    pub fn recognises(&self, presented: &Presented<'_>) -> bool {
        UNSIGNED.iter().take(3).any(|name| presented.has(name))
    }

    /// Parameters present, then expiry, then signature.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, presented: &Presented<'_>) -> Verdict {
        if presented.role == Role::Play {
            return Err(access_denied(
                DenyReason::NoRight,
                0,
                "a LiveChannel is not played over RTMP",
            ));
        }
        if self.public_write && !self.recognises(presented) {
            return Ok(Pass::default());
        }
        let required = |name: &str, event_code| {
            let value = presented.query.value(name).filter(|value| !value.is_empty());
            let text = || format!("no url arg {name}");
            value.ok_or_else(|| access_denied(DenyReason::NoParam, event_code, &text()))
        };
        let id = required("OSSAccessKeyId", EVENT_NO_SECRET)?;
        let expires = required("Expires", EVENT_NO_TIME)?;
        let signature = required("Signature", EVENT_NO_SECRET)?;
        let Some(expires_unix_s) = decimal(&expires) else {
            return Err(access_denied(DenyReason::BadParam, EVENT_NO_TIME, "invalid Expires"));
        };
        if presented.unix_s > expires_unix_s {
            let text = format!("expired Expires={expires}");
            return Err(access_denied(DenyReason::Expired, EVENT_EXPIRED, &text));
        }
        let bucket = self.bucket(presented)?;
        let text = text_to_sign(presented, &expires, bucket)?;
        if !self.keys.iter().any(|key| *key.id == *id) {
            let text = "InvalidAccessKeyId: the access key id is not known here";
            return Err(Denial::new(DenyReason::BadHash, EVENT_BAD_SECRET, text));
        }
        let of_id = self.keys.iter().filter(|key| *key.id == *id);
        let is_right = of_id.fold(subtle::Choice::from(0), |found, key| {
            found | same(signature_of(key.secret.expose(), &text).as_bytes(), signature.as_bytes())
        });
        if bool::from(is_right) {
            Ok(Pass::default())
        } else {
            Err(mismatch("the signature does not match"))
        }
    }

    fn bucket<'p>(&'p self, presented: &Presented<'p>) -> Result<&'p str, Denial> {
        let named = named_bucket(presented.app, presented.host);
        match (&self.bucket, named) {
            (Some(only), Some(Named::ByApp(named))) if **only != *named => {
                Err(access_denied(DenyReason::Ticket, 0, "another bucket"))
            }
            (Some(only), Some(_)) => Ok(only),
            (None, Some(Named::ByApp(named) | Named::ByHost(Some(named)))) => Ok(named),
            (None, Some(Named::ByHost(None))) => {
                Err(access_denied(DenyReason::BadParam, 0, "the address names no bucket"))
            }
            (_, None) => {
                Err(access_denied(DenyReason::BadParam, 309, "the app is live or BUCKET/live"))
            }
        }
    }
}

/// Who names the bucket.
enum Named<'p> {
    ByApp(&'p str),
    /// `None`: the host is an address or has one label.
    ByHost(Option<&'p str>),
}

fn named_bucket<'p>(app: &'p str, host: Option<&'p str>) -> Option<Named<'p>> {
    if app == APP {
        return Some(Named::ByHost(host.and_then(bucket_of_host)));
    }
    let (bucket, rest) = app.split_once('/')?;
    (rest == APP).then_some(Named::ByApp(bucket))
}

fn bucket_of_host(host: &str) -> Option<&str> {
    let is_address = host.parse::<IpAddr>().is_ok();
    host.split_once('.').filter(|_| !is_address).map(|(bucket, _)| bucket)
}

/// The bucket that an address means, if app and host name one; for the generator.
pub fn bucket_of<'p>(app: &'p str, host: &'p str) -> Option<&'p str> {
    match named_bucket(app, Some(host))? {
        Named::ByApp(bucket) => Some(bucket),
        Named::ByHost(bucket) => bucket,
    }
}

/// The text under the signature of a request.
fn text_to_sign(presented: &Presented<'_>, expires: &str, bucket: &str) -> Result<String, Denial> {
    let mut params: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    for (count, (name, value)) in presented.query.pairs().enumerate() {
        if count == PARAMS_MAX {
            return Err(mismatch("too many parameters"));
        }
        if UNSIGNED.contains(&&*name) {
            continue;
        }
        // Each of these could give two addresses one signed text.
        if name.contains([':', '\n']) || value.contains('\n') {
            return Err(mismatch("a parameter cannot be signed"));
        }
        params.push((name, value));
    }
    params.sort_unstable();
    if params.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(mismatch("a parameter comes twice"));
    }
    Ok(join(
        expires,
        params.iter().map(|(name, value)| (&**name, &**value)),
        bucket,
        presented.stream,
    ))
}

fn join<'p>(
    expires: &str,
    params: impl Iterator<Item = (&'p str, &'p str)>,
    bucket: &str,
    channel: &str,
) -> String {
    let mut text = format!("{expires}\n");
    for (name, value) in params {
        for part in [name, ":", value, "\n"] {
            text.push_str(part);
        }
    }
    for part in ["/", bucket, "/", channel] {
        text.push_str(part);
    }
    text
}

/// HMAC-SHA1 of the text in base64. The key is a secret, or one with what a scheme puts behind it.
pub(crate) fn signature_of(key: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

/// The signature for a channel; the caller writes it into the address with `=`, `+` and `/` escaped.
/// `params` are the other parameters of the address, decoded, sorted by name.
pub fn sign(
    secret: &SecretText,
    [bucket, channel]: [&str; 2],
    params: &[(&str, &str)],
    expires_unix_s: u64,
) -> String {
    let text = join(&expires_unix_s.to_string(), params.iter().copied(), bucket, channel);
    signature_of(secret.expose(), &text)
}

fn access_denied(reason: DenyReason, event_code: u16, text: &str) -> Denial {
    Denial::new(reason, event_code, format!("AccessDenied: {text}"))
}

fn mismatch(text: &str) -> Denial {
    let text = format!("SignatureDoesNotMatch: {text}");
    Denial::new(DenyReason::BadHash, EVENT_BAD_SECRET, text)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{presented, query, secret};
    use super::*;

    const EXPIRES: u64 = 1_472_201_595;

    fn scheme() -> SignedUrl {
        let key = |id: &str, text: &str| AccessKey { id: id.into(), secret: secret(text) };
        let keys = vec![key("test-ak-id", "test-ak-secret"), key("new-id", "new-secret")];
        SignedUrl { keys, bucket: None, public_write: false }
    }

    fn check(
        scheme: &SignedUrl,
        at: (&str, &str, Option<&str>),
        raw: &str,
        unix_s: u64,
    ) -> Verdict {
        let query = query(raw);
        let (app, stream, host) = at;
        scheme.check(&Presented { host, ..presented((app, stream), &query, unix_s) })
    }

    const SIGNED: &str = "OSSAccessKeyId=test-ak-id&Expires=1472201595\
        &Signature=p4nPvxwSjQ1nbpEXBcZduVMrVYw%3D&playlistName=playlist.m3u8";

    #[test]
    fn both_ways_of_naming_the_bucket_lead_to_the_same_signature() {
        for at in [
            ("test-bucket/live", "test-channel", Some("127.0.0.1")),
            ("test-bucket/live", "test-channel", None),
            ("live", "test-channel", Some("test-bucket.oss.example.com")),
        ] {
            assert!(check(&scheme(), at, SIGNED, EXPIRES).is_ok(), "{at:?}");
            assert!(check(&scheme(), at, SIGNED, EXPIRES + 1).is_err(), "{at:?}");
        }
        let only = SignedUrl { bucket: Some("test-bucket".into()), ..scheme() };
        let by_address = ("live", "test-channel", Some("127.0.0.1"));
        assert!(check(&only, by_address, SIGNED, EXPIRES).is_ok());
        let text = |scheme: &SignedUrl, at: (&str, &str, Option<&str>)| {
            check(scheme, at, SIGNED, EXPIRES).unwrap_err().text
        };
        assert_eq!(text(&scheme(), by_address), "AccessDenied: the address names no bucket");
        let other = ("other/live", "test-channel", None);
        assert_eq!(text(&only, other), "AccessDenied: another bucket");
        let mismatch = "SignatureDoesNotMatch: the signature does not match";
        assert_eq!(text(&scheme(), other), mismatch);
        let app = ("push", "test-channel", Some("test-bucket.oss.example.com"));
        assert_eq!(text(&scheme(), app), "AccessDenied: the app is live or BUCKET/live");
    }

    #[test]
    fn each_failure_has_its_text_and_code() {
        use DenyReason::{BadHash, BadParam, Expired, NoParam};
        let at = ("live", "c", Some("b.example.com"));
        for (raw, unix_s, text, reason, code) in [
            ("", 0, "AccessDenied: no url arg OSSAccessKeyId", NoParam, 502),
            ("OSSAccessKeyId=a&Signature=b", 0, "AccessDenied: no url arg Expires", NoParam, 500),
            ("OSSAccessKeyId=a&Expires=5", 0, "AccessDenied: no url arg Signature", NoParam, 502),
            (
                "OSSAccessKeyId=a&Expires=5x&Signature=b",
                0,
                "AccessDenied: invalid Expires",
                BadParam,
                500,
            ),
            (
                "OSSAccessKeyId=a&Expires=5&Signature=b",
                6,
                "AccessDenied: expired Expires=5",
                Expired,
                501,
            ),
            (
                "OSSAccessKeyId=a&Expires=5&Signature=b",
                5,
                "InvalidAccessKeyId: the access key id is not known here",
                BadHash,
                503,
            ),
            (
                "OSSAccessKeyId=new-id&Expires=5&Signature=b",
                5,
                "SignatureDoesNotMatch: the signature does not match",
                BadHash,
                503,
            ),
        ] {
            let denial = check(&scheme(), at, raw, unix_s).unwrap_err();
            assert_eq!((&*denial.text, denial.reason, denial.event_code), (text, reason, code));
        }
    }

    #[test]
    fn parameters_that_would_make_the_text_ambiguous_are_refused() {
        let signature = sign(&secret("new-secret"), ["b", "c"], &[("p", "1"), ("q", "2")], 5);
        let signature = signature.replace('+', "%2B");
        let common = format!("OSSAccessKeyId=new-id&Expires=5&Signature={signature}");
        let at = ("live", "c", Some("b.example.com"));
        assert!(check(&scheme(), at, &format!("q=2&{common}&p=1"), 5).is_ok());
        for params in ["p=1%0Aq:2", "p:1%0Aq=2", "p=1&q=2&q=2", "p=1", "p=1&q=2&r="] {
            let denial = check(&scheme(), at, &format!("{common}&{params}"), 5).unwrap_err();
            assert!(denial.text.starts_with("SignatureDoesNotMatch"), "{params}: {denial}");
        }
        let many = format!("{common}&{}", "x=1&".repeat(200));
        assert!(check(&scheme(), at, &many, 5).unwrap_err().text.ends_with("too many parameters"));
    }

    #[test]
    fn a_bucket_open_for_writing_needs_no_signature_but_checks_one_that_is_there() {
        let open = SignedUrl { public_write: true, ..scheme() };
        let at = ("live", "test-channel", Some("test-bucket.oss.example.com"));
        assert!(check(&open, at, "", EXPIRES).is_ok());
        assert!(check(&open, at, SIGNED, EXPIRES + 1).is_err());
    }

    #[test]
    fn the_bucket_is_that_of_the_domain_asked_not_of_the_host_connected_to() {
        for (app, expected) in [("live", true), ("live...vhost...other.oss.test", false)] {
            let name = format!("test-channel?{SIGNED}");
            let tc_url = Some("rtmp://test-bucket.oss.test/live");
            let question = crate::access::Question {
                role: Role::Publish,
                resolved: &live::path::resolve(app, tc_url, &name).unwrap(),
                peer: IpAddr::from([192, 0, 2, 7]),
                unix_s: EXPIRES,
                suffix: crate::access::Suffix::None,
                connection: "0-1".parse().unwrap(),
                connect: None,
                is_renewal: false,
            };
            assert_eq!(scheme().check(&Presented::of(&question)).is_ok(), expected, "{app}");
        }
    }

    #[test]
    fn a_channel_is_not_played() {
        let query = query(SIGNED);
        let asked = presented(("test-bucket/live", "test-channel"), &query, EXPIRES);
        let denial = scheme().check(&Presented { role: Role::Play, ..asked }).unwrap_err();
        assert_eq!(denial.text, "AccessDenied: a LiveChannel is not played over RTMP");
    }
}
