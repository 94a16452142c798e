//! `txSecret` and `txTime`: MD5 over key, stream name and time of expiry.
//!
//! ```text
//!   rtmp://push.example.com/live/8888_test001?txSecret=7bd965…&txTime=5C2A3CFF
//!   txSecret = md5(key + "8888_test001" + "5C2A3CFF")      txTime = Unix seconds of expiry, hexadecimal
//! ```
//!
//! The time is hashed as it was written, so its case matters to the hash but not to the expiry. The app,
//! the host and the suffix are not hashed; a transcoding suffix of the name is. The secret is taken in
//! lower or in upper case, not in a mixture.

use std::borrow::Cow;

use super::{
    DenyReason, EVENT_BAD_SECRET, EVENT_EXPIRED, EVENT_NO_SECRET, EVENT_NO_TIME, Keys, Pass,
    Presented, Verdict, denied, hex_text, md5_hex, same,
};
use crate::access::secret::SecretText;

/// Most hexadecimal digits of a time: more would not fit 64 bits.
const TIME_DIGITS_MAX: usize = 16;

/// The scheme with its keys.
#[derive(Clone, Debug)]
pub struct TxSecret {
    /// Either key is accepted.
    pub keys: Keys,
    /// Seconds an address stays valid after its time; 0 for pushing.
    pub validity_s: u64,
}

impl TxSecret {
    /// Parameters present, then expiry, then hash.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, presented: &Presented<'_>) -> Verdict {
        let value = |name| presented.query.value(name).filter(|value| !value.is_empty());
        let no_time = || denied(DenyReason::NoParam, EVENT_NO_TIME, "no url arg txTime");
        let no_secret = || denied(DenyReason::NoParam, EVENT_NO_SECRET, "no url arg txSecret");
        let time: Cow<'_, str> = value("txTime").ok_or_else(no_time)?;
        let secret = value("txSecret").ok_or_else(no_secret)?;
        let Some(expires_unix_s) = parse_time(&time) else {
            return Err(denied(DenyReason::BadParam, EVENT_NO_TIME, "invalid txTime"));
        };
        if presented.unix_s > expires_unix_s.saturating_add(self.validity_s) {
            let text = format!("expired txTime={time}");
            return Err(denied(DenyReason::Expired, EVENT_EXPIRED, &text));
        }
        let is_right = self.keys.any(|key| {
            let expected = md5_hex(&[key, presented.stream, &time]);
            let upper = expected.map(|digit| digit.to_ascii_uppercase());
            same(&expected, secret.as_bytes()) | same(&upper, secret.as_bytes())
        });
        if is_right {
            Ok(Pass::default())
        } else {
            Err(denied(DenyReason::BadHash, EVENT_BAD_SECRET, "invalid txSecret"))
        }
    }
}

/// The two parameters for a stream, as a query: valid up to and including `expires_unix_s`.
pub fn sign(key: &SecretText, stream: &str, expires_unix_s: u64) -> String {
    let time = format!("{expires_unix_s:X}");
    let secret = hex_text(md5_hex(&[key.expose(), stream, &time]));
    format!("txSecret={secret}&txTime={time}")
}

/// Unix seconds of a `txTime`: hexadecimal digits of either case, nothing else.
fn parse_time(text: &str) -> Option<u64> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && text.len() <= TIME_DIGITS_MAX { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{presented, query, secret};
    use super::*;

    const EXPIRES: u64 = 1_546_271_999;

    fn scheme() -> TxSecret {
        TxSecret { keys: Keys::new(secret("push key"), Some(secret("backup"))), validity_s: 0 }
    }

    fn refusal(raw: &str, unix_s: u64) -> (String, DenyReason, u16) {
        let query = query(raw);
        let denial = scheme().check(&presented(("live", "s"), &query, unix_s)).unwrap_err();
        (denial.text, denial.reason, denial.event_code)
    }

    #[test]
    fn each_failure_has_its_text_and_code_in_the_order_of_the_checks() {
        let table = [
            ("", 0, "no url arg txTime", DenyReason::NoParam, 500),
            ("txSecret=a", 0, "no url arg txTime", DenyReason::NoParam, 500),
            ("txSecret=a&txTime=", 0, "no url arg txTime", DenyReason::NoParam, 500),
            ("txTime=5C2A3CFF", 0, "no url arg txSecret", DenyReason::NoParam, 502),
            ("txTime=5C2A3CFF&txSecret=", 0, "no url arg txSecret", DenyReason::NoParam, 502),
            ("txTime=xyz&txSecret=a", 0, "invalid txTime", DenyReason::BadParam, 500),
            ("txTime=%2B1&txSecret=a", 0, "invalid txTime", DenyReason::BadParam, 500),
            ("txTime=00000000000000001&txSecret=a", 0, "invalid txTime", DenyReason::BadParam, 500),
            (
                "txTime=5C2A3CFF&txSecret=a",
                EXPIRES + 1,
                "expired txTime=5C2A3CFF",
                DenyReason::Expired,
                501,
            ),
            ("txTime=5C2A3CFF&txSecret=a", EXPIRES, "invalid txSecret", DenyReason::BadHash, 503),
            ("txtime=5C2A3CFF&txSecret=a", EXPIRES, "no url arg txTime", DenyReason::NoParam, 500),
        ];
        for (raw, unix_s, text, reason, code) in table {
            let expected = (format!("denied by req auth: {text}"), reason, code);
            assert_eq!(refusal(raw, unix_s), expected, "{raw}");
        }
    }

    #[test]
    fn either_key_signs_and_the_second_of_expiry_is_the_last() {
        for key in ["push key", "backup"] {
            let query = query(&sign(&secret(key), "s", EXPIRES));
            assert!(scheme().check(&presented(("live", "s"), &query, EXPIRES)).is_ok());
            assert!(scheme().check(&presented(("live", "s"), &query, EXPIRES + 1)).is_err());
            let later = TxSecret { validity_s: 60, ..scheme() };
            assert!(later.check(&presented(("live", "s"), &query, EXPIRES + 60)).is_ok());
            assert!(later.check(&presented(("live", "s"), &query, EXPIRES + 61)).is_err());
        }
        let query = query(&sign(&secret("another"), "s", EXPIRES));
        assert!(scheme().check(&presented(("live", "s"), &query, EXPIRES)).is_err());
    }

    #[test]
    fn the_secret_is_taken_in_upper_case_but_not_in_a_mixture() {
        let signed = sign(&secret("push key"), "s", EXPIRES);
        let (_, rest) = signed.split_once('=').unwrap();
        let (hash, time) = rest.split_once('&').unwrap();
        let check = |hash: &str| {
            let query = query(&format!("txSecret={hash}&{time}"));
            scheme().check(&presented(("live", "s"), &query, EXPIRES)).is_ok()
        };
        assert!(check(hash) && check(&hash.to_uppercase()));
        let first = hash.find(|c: char| c.is_ascii_lowercase()).unwrap();
        let mut mixed = hash.to_uppercase();
        mixed.replace_range(first..=first, &hash[first..=first]);
        assert!(!check(&mixed), "{mixed}");
    }

    #[test]
    fn the_last_second_of_time_does_not_overflow() {
        let signed = sign(&secret("push key"), "s", u64::MAX);
        let query = query(&signed);
        let forever = TxSecret { validity_s: u64::MAX, ..scheme() };
        assert!(forever.check(&presented(("live", "s"), &query, u64::MAX)).is_ok());
    }
}
