//! JSON web tokens: signed claims that name the streams and what may be done with them.
//!
//! ```json
//!   {"stream": "live/room-*", "action": ["publish", "play"], "exp": 1792592000, "sub": "camera 7"}
//! ```
//!
//! | claim | meaning |
//! |---|---|
//! | `stream` | pattern, or list of patterns, of `app/name`; required |
//! | `action` | `publish`, `play`, `*`, or a list; required |
//! | `exp` | end of validity in Unix seconds; required |
//! | `nbf` | begin of validity |
//! | `iss`, `aud` | compared with the domain's settings where there are any |
//! | `sub` | whom it is for; shown in the log |
//!
//! In a pattern `*` stands for any characters between two slashes, and a level `**` for any levels. The
//! token stands in the query, as `token` or `jwt` unless the domain names other parameters. What algorithm
//! a token may use is decided by the key, never by the token. Signatures are checked by `jsonwebtoken`;
//! times are compared here, because this module has no clock.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{
    DenyReason, EVENT_BAD_SECRET, EVENT_EXPIRED, EVENT_NO_SECRET, EVENT_NO_TIME, Pass, Presented,
    Verdict, denied,
};
use crate::access::Role;
use crate::access::secret::SecretText;

mod keys;
mod pattern;

pub use keys::{KeyError, KeySet, SigningKey};

/// Parameters that may hold the token when the domain does not say.
pub const PARAMS_DEFAULT: [&str; 2] = ["token", "jwt"];
/// Difference of clocks that does not matter when the domain does not say, in seconds.
pub const LEEWAY_S_DEFAULT: u64 = 60;
/// Patterns of one token that are looked at.
const PATTERNS_MAX: usize = 64;

/// The scheme with its keys.
#[derive(Clone, Debug)]
pub struct Jwt {
    /// Keys that tokens may be signed with.
    pub keys: KeySet,
    /// Secret or private key in PEM that new tokens are signed with; checking does not need it.
    pub signing_key: Option<SecretText>,
    /// Only these algorithms; all that fit the keys if empty.
    pub algorithms: Vec<Algorithm>,
    /// Parameters that may hold the token; the first one present counts.
    pub params: Vec<Box<str>>,
    /// Difference of clocks that does not matter, in seconds.
    pub leeway_s: u64,
    /// `iss` a token must have.
    pub issuer: Option<Box<str>>,
    /// `aud` a token must have, alone or among others.
    pub audience: Option<Box<str>>,
}

impl Jwt {
    /// The scheme with defaults.
    pub fn new(keys: KeySet) -> Self {
        let params = PARAMS_DEFAULT.map(Box::from).to_vec();
        let (algorithms, leeway_s) = (Vec::new(), LEEWAY_S_DEFAULT);
        let signing_key = None;
        Self { keys, signing_key, algorithms, params, leeway_s, issuer: None, audience: None }
    }

    /// Whether the request carries a token.
    pub fn recognises(&self, presented: &Presented<'_>) -> bool {
        self.params.iter().any(|name| presented.has(name))
    }

    /// Token present, then signature, then time, issuer and audience, then stream and action.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, presented: &Presented<'_>) -> Verdict {
        let given = |name: &str| presented.query.value(name).filter(|token| !token.is_empty());
        let Some(token) = self.params.iter().find_map(|name| given(name)) else {
            let name = self.params.first().map_or("token", |name| name);
            let text = format!("no url arg {name}");
            return Err(denied(DenyReason::NoParam, EVENT_NO_SECRET, &text));
        };
        let claims = self.verified(&token)?;
        self.check_time(&claims, presented.unix_s)?;
        self.check_origin(&claims)?;
        let no_right = |text| Err(denied(DenyReason::NoRight, 0, text));
        if !claims.action.iter().any(|action| action == "*" || action == presented.role.text()) {
            return match presented.role {
                Role::Publish => no_right("the token does not allow to publish"),
                Role::Play => no_right("the token does not allow to play"),
            };
        }
        let patterns = claims.stream.iter().take(PATTERNS_MAX);
        let is_named = patterns
            .into_iter()
            .any(|pattern| pattern::matches(pattern, [presented.app, presented.stream]));
        if !is_named {
            return Err(denied(DenyReason::Ticket, 0, "the token is for another stream"));
        }
        Ok(Pass { user: claims.sub.map(Box::from), ..Pass::default() })
    }

    fn verified(&self, token: &str) -> Result<Claims, super::Denial> {
        let bad = |reason| denied(reason, EVENT_BAD_SECRET, "invalid token");
        let Ok(header) = jsonwebtoken::decode_header(token) else {
            return Err(bad(DenyReason::BadParam));
        };
        let is_wanted = self.algorithms.is_empty() || self.algorithms.contains(&header.alg);
        // An extension that must be understood is not understood here.
        if !is_wanted || header.crit.is_some() {
            return Err(bad(DenyReason::BadHash));
        }
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        for key in self.keys.candidates(header.alg, header.kid.as_deref()) {
            match jsonwebtoken::decode::<Claims>(token, key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) if is_of_claims(&error) => return Err(bad(DenyReason::BadParam)),
                Err(_) => {}
            }
        }
        Err(bad(DenyReason::BadHash))
    }

    fn check_time(&self, claims: &Claims, unix_s: u64) -> Result<(), super::Denial> {
        let Some(exp) = claims.exp.0 else {
            return Err(denied(DenyReason::NoParam, EVENT_NO_TIME, "the token has no exp"));
        };
        // The second named by `exp` is the first that is too late.
        if unix_s >= exp.saturating_add(self.leeway_s) {
            return Err(denied(DenyReason::Expired, EVENT_EXPIRED, "expired token"));
        }
        if claims.nbf.0.is_some_and(|nbf| unix_s.saturating_add(self.leeway_s) < nbf) {
            return Err(denied(DenyReason::NotYet, EVENT_EXPIRED, "token not valid yet"));
        }
        Ok(())
    }

    fn check_origin(&self, claims: &Claims) -> Result<(), super::Denial> {
        let other = |text| Err(denied(DenyReason::Ticket, 0, text));
        if self.issuer.as_deref().is_some_and(|issuer| claims.iss.as_deref() != Some(issuer)) {
            return other("the token is of another issuer");
        }
        let is_for = |audience: &str| claims.aud.iter().any(|aud| aud == audience);
        if self.audience.as_deref().is_some_and(|audience| !is_for(audience)) {
            return other("the token is for another audience");
        }
        Ok(())
    }
}

/// Whether the signature was right and the claims were not.
fn is_of_claims(error: &jsonwebtoken::errors::Error) -> bool {
    matches!(error.kind(), jsonwebtoken::errors::ErrorKind::Json(_))
}

/// What a token says. Claims that are not listed mean nothing.
#[derive(Deserialize, Debug)]
struct Claims {
    #[serde(default)]
    stream: Texts,
    #[serde(default)]
    action: Texts,
    #[serde(default)]
    exp: Time,
    #[serde(default)]
    nbf: Time,
    iss: Option<String>,
    #[serde(default)]
    aud: Texts,
    sub: Option<String>,
}

/// One text or a list of them.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Texts {
    fn iter(&self) -> std::slice::Iter<'_, String> {
        match self {
            Self::One(text) => std::slice::from_ref(text).iter(),
            Self::Many(texts) => texts.iter(),
        }
    }
}

/// Unix seconds; fractions are allowed and cut off. A time before 1970 is 0.
#[derive(Debug, Default)]
struct Time(Option<u64>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let seconds = number.as_u64().or_else(|| {
            // A cast of a float cannot be out of range: it goes to the nearest end.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            number.as_f64().map(|seconds| seconds as u64)
        });
        Ok(Self(seconds))
    }
}

/// The claims of a token made here.
#[derive(Serialize, Debug)]
struct NewClaims<'c> {
    stream: String,
    action: &'c str,
    exp: u64,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'c str>,
}

/// What a new token says.
#[derive(Copy, Clone, Debug)]
pub struct Order<'o> {
    /// What it allows.
    pub role: Role,
    /// App and name of the one stream it is for.
    pub path: [&'o str; 2],
    /// Now, in Unix seconds.
    pub unix_s: u64,
    /// First second at which it is not valid any more.
    pub expires_unix_s: u64,
    /// `iss`, where the domain asks for one.
    pub issuer: Option<&'o str>,
    /// `aud`, where the domain asks for one.
    pub audience: Option<&'o str>,
}

/// A token for one stream and one role.
///
/// # Errors
/// [`KeyError`] when the key cannot sign, and when the stream's name has a `*`, which would be a pattern.
pub fn sign(key: &SigningKey, order: &Order<'_>) -> Result<String, KeyError> {
    let [app, name] = order.path;
    if app.contains('*') || name.contains('*') {
        return Err(KeyError("a token cannot name a stream with a * in its name"));
    }
    let claims = NewClaims {
        stream: format!("{app}/{name}"),
        action: order.role.text(),
        exp: order.expires_unix_s,
        iat: order.unix_s,
        iss: order.issuer,
        aud: order.audience,
    };
    key.sign(&claims)
}

#[cfg(test)]
mod tests;
