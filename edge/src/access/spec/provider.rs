//! One provider of a domain as written: its scheme and the settings of that scheme.
//!
//! One flat shape for all schemes, so that key, backup key and their files and variables are written once;
//! a field that means nothing to the scheme is an error.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::LIST_MAX;
use crate::access::secret::{KeyPlace, SecretText};

/// A way to prove a right.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Everybody may.
    Open,
    /// `txSecret` and `txTime`.
    Txsecret,
    /// `auth_key`, type A.
    AliyunA,
    /// Signed URL of an object storage's LiveChannel.
    Oss,
    /// UserSig, with or without privateMapKey.
    Usersig,
    /// A JSON web token.
    Jwt,
    /// Lists of addresses.
    Ip,
    /// Somebody else's HTTP server decides.
    Hook,
}

impl Scheme {
    /// All, with their names.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Open, "open"),
        (Self::Txsecret, "txsecret"),
        (Self::AliyunA, "aliyun_a"),
        (Self::Oss, "oss"),
        (Self::Usersig, "usersig"),
        (Self::Jwt, "jwt"),
        (Self::Ip, "ip"),
        (Self::Hook, "hook"),
    ];

    /// The name used in files and answers.
    pub fn text(self) -> &'static str {
        Self::ALL.iter().find(|(scheme, _)| *scheme == self).map_or("", |(_, name)| name)
    }

    /// Fields of [`ProviderSpec`] that mean something to it, beside `scheme`. The three ways to give a key
    /// count as one.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Open => &[],
            Self::Txsecret => &["key", "backup_key", "validity_s"],
            Self::AliyunA => &["key", "backup_key", "validity_s", "timestamp_is_expiry"],
            Self::Oss => &[
                "key",
                "backup_key",
                "access_key_id",
                "backup_access_key_id",
                "bucket",
                "public_write",
            ],
            Self::Usersig => &[
                "key",
                "backup_key",
                "sdk_app_id",
                "public_key_file",
                "private_map_key",
                "room_in_app",
            ],
            Self::Jwt => &[
                "key",
                "backup_key",
                "public_key_file",
                "jwks_file",
                "jwks_url",
                "algorithms",
                "token_params",
                "leeway_s",
                "issuer",
                "audience",
            ],
            Self::Ip => &["allow", "deny"],
            Self::Hook => &[
                "key",
                "backup_key",
                "url",
                "timeout_ms",
                "retries",
                "cache_s_max",
                "fail",
                "breaker_failures",
                "breaker_open_ms",
            ],
        }
    }

    fn wants_key(self) -> bool {
        matches!(self, Self::Txsecret | Self::AliyunA | Self::Oss)
    }
}

/// What a hook's silence means.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fail {
    /// No.
    #[default]
    Closed,
    /// Yes.
    Open,
}

macro_rules! provider_spec {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ty,)*) => {
        /// One provider of a domain: its scheme and the settings of that scheme.
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct ProviderSpec {
            /// Which scheme.
            pub scheme: Scheme,
            $($(#[doc = $doc])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $field: Option<$type>,)*
        }

        impl ProviderSpec {
            /// A provider without any setting.
            pub fn new(scheme: Scheme) -> Self { Self { scheme, $($field: None),* } }

            /// Names of the fields that are set.
            fn set_fields(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$field.is_some() { names.push(stringify!($field)); })*
                names
            }
        }
    };
}

provider_spec! {
    /// The key. Prefer `key_file` or `key_env`.
    key: SecretText,
    /// File that holds the key and nothing else.
    key_file: PathBuf,
    /// Environment variable of the server that holds the key.
    key_env: String,
    /// A second key that is as good as the first: the new one, or the old one, during a change of keys.
    backup_key: SecretText,
    /// File that holds the second key.
    backup_key_file: PathBuf,
    /// Environment variable that holds the second key.
    backup_key_env: String,
    /// txsecret: seconds an address stays valid after its time, 0 if absent. aliyun_a: seconds from its
    /// timestamp, 1800 if absent.
    validity_s: u64,
    /// aliyun_a: the timestamp is the expiry itself.
    timestamp_is_expiry: bool,
    /// oss: the access key id that goes with the key.
    access_key_id: String,
    /// oss: the access key id that goes with the second key; the first if absent.
    backup_access_key_id: String,
    /// oss: the bucket; the first label of the host, or the first level of the app, if absent.
    bucket: String,
    /// oss: anybody may publish without a signature; what is signed is checked all the same.
    public_write: bool,
    /// usersig: the application.
    sdk_app_id: u32,
    /// usersig: public key of version 1 tickets. jwt: public key of RS, ES and EdDSA tokens. PEM.
    public_key_file: PathBuf,
    /// usersig: whether a privateMapKey is asked for too.
    private_map_key: bool,
    /// usersig: the room is the last level of the app; the stream name if absent or false.
    room_in_app: bool,
    /// jwt: file with a JSON web key set.
    jwks_file: PathBuf,
    /// jwt: address of a JSON web key set, fetched again every few minutes.
    jwks_url: String,
    /// jwt: algorithms accepted; those the keys are for, if absent.
    algorithms: Vec<String>,
    /// jwt: parameters that may hold the token; `token` and `jwt` if absent.
    token_params: Vec<String>,
    /// jwt: seconds of difference between clocks that do not matter, 60 if absent.
    leeway_s: u64,
    /// jwt: `iss` a token must have.
    issuer: String,
    /// jwt: `aud` a token must have.
    audience: String,
    /// ip: only these addresses and networks.
    allow: Vec<String>,
    /// ip: not these.
    deny: Vec<String>,
    /// hook: where to POST the question.
    url: String,
    /// hook: time for one try in milliseconds, 2000 if absent.
    timeout_ms: u32,
    /// hook: tries after the first, 1 if absent.
    retries: u8,
    /// hook: longest time an answer may be kept, whatever its `ttl_s` says; 300 if absent, 0 keeps none.
    cache_s_max: u32,
    /// hook: what silence means, closed if absent.
    fail: Fail,
    /// hook: failures in a row after which the hook is left alone, 5 if absent.
    breaker_failures: u32,
    /// hook: how long it is left alone, in milliseconds, 10000 if absent.
    breaker_open_ms: u32,
}

impl ProviderSpec {
    /// Where the first key is.
    pub fn key_place(&self) -> KeyPlace<'_> {
        let (text, file) = (self.key.as_ref(), self.key_file.as_deref());
        KeyPlace { name: "key", text, file, env: self.key_env.as_deref() }
    }

    /// Where the second key is.
    pub fn backup_place(&self) -> KeyPlace<'_> {
        let (text, file) = (self.backup_key.as_ref(), self.backup_key_file.as_deref());
        KeyPlace { name: "backup_key", text, file, env: self.backup_key_env.as_deref() }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let scheme = self.scheme.text();
        for field in self.set_fields() {
            let stem = field.strip_suffix("_file").or(field.strip_suffix("_env")).unwrap_or(field);
            let known = self.scheme.fields();
            let is_key = stem.ends_with("key") && known.contains(&stem);
            if !is_key && !known.contains(&field) {
                return Err(format!("{field} has no meaning for the scheme {scheme}"));
            }
        }
        for place in [self.key_place(), self.backup_place()] {
            if place.count() > 1 {
                let name = place.name;
                return Err(format!("set only one of {name}, {name}_file and {name}_env"));
            }
        }
        if self.scheme.wants_key() && self.key_place().count() == 0 {
            return Err(format!("the scheme {scheme} needs key, key_file or key_env"));
        }
        if self.backup_place().count() == 1 && self.key_place().count() == 0 {
            return Err("a backup key needs a key".to_owned());
        }
        self.check_scheme()?;
        let lists = [&self.algorithms, &self.token_params, &self.allow, &self.deny];
        if lists.iter().any(|list| list.as_ref().is_some_and(|list| list.len() > LIST_MAX)) {
            return Err(format!("a list has more than {LIST_MAX} entries"));
        }
        Ok(())
    }

    fn check_scheme(&self) -> Result<(), String> {
        let missing = |what: &str| Err(format!("the scheme {} needs {what}", self.scheme.text()));
        match self.scheme {
            Scheme::Oss if self.access_key_id.is_none() => missing("access_key_id"),
            Scheme::Usersig if self.sdk_app_id.is_none() => missing("sdk_app_id"),
            Scheme::Usersig if self.key_place().count() == 0 && self.public_key_file.is_none() => {
                missing("a key (version 2) or public_key_file (version 1)")
            }
            Scheme::Jwt
                if self.key_place().count() == 0
                    && self.public_key_file.is_none()
                    && self.jwks_file.is_none()
                    && self.jwks_url.is_none() =>
            {
                missing("a key, public_key_file, jwks_file or jwks_url")
            }
            Scheme::Ip if self.allow.is_none() && self.deny.is_none() => missing("allow or deny"),
            Scheme::Hook => match &self.url {
                None => missing("url"),
                Some(url) => check_http_url("url", url).and_then(|()| self.check_hook()),
            },
            Scheme::Jwt => {
                self.jwks_url.as_deref().map_or(Ok(()), |url| check_http_url("jwks_url", url))
            }
            _ => Ok(()),
        }
    }

    fn check_hook(&self) -> Result<(), String> {
        let in_range = |name, value: Option<u32>, min: u32, max: u32| match value {
            Some(value) if !(min..=max).contains(&value) => {
                Err(format!("{name}: {value} is outside {min}..={max}"))
            }
            _ => Ok(()),
        };
        in_range("timeout_ms", self.timeout_ms, 10, 60_000)?;
        in_range("retries", self.retries.map(u32::from), 0, 10)?;
        in_range("cache_s_max", self.cache_s_max, 0, 86_400)?;
        in_range("breaker_failures", self.breaker_failures, 1, 1_000)?;
        in_range("breaker_open_ms", self.breaker_open_ms, 100, 600_000)
    }
}

fn check_http_url(name: &str, url: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("{name}: {why}"));
    let parsed: Result<axum::http::Uri, _> = url.parse();
    let Ok(uri) = parsed else { return bad("not an address") };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return bad("expected http:// or https://");
    }
    match uri.authority() {
        None => bad("it has no host"),
        // It would be printed with the address.
        Some(authority) if authority.as_str().contains('@') => {
            bad("user and password do not belong into an address; use key")
        }
        Some(_) => Ok(()),
    }
}
