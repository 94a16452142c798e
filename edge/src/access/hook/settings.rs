//! How a domain's hook is asked, and what it may answer.

use std::time::Duration;

use axum::http::Uri;

use crate::access::check::Limits;
use crate::access::secret::SecretText;
use crate::access::spec::{Fail, ProviderSpec};

/// The hook of one domain.
#[derive(Debug)]
pub struct HookSettings {
    /// Where the question is posted.
    pub url: Uri,
    /// Time for one try.
    pub timeout: Duration,
    /// Tries after the first.
    pub retries: u8,
    /// Longest time an answer is kept; zero keeps none.
    pub cache_max: Duration,
    /// What silence means.
    pub fail: Fail,
    /// Failures in a row after which the hook is left alone.
    pub breaker_failures: u32,
    /// How long it is left alone.
    pub breaker_open: Duration,
    /// Signs the questions, so that the hook's server knows who asks.
    pub key: Option<SecretText>,
}

impl HookSettings {
    /// Takes them from the spec, defaults filled in, the key read.
    ///
    /// # Errors
    /// A phrase that never holds the key.
    pub fn build(spec: &ProviderSpec) -> Result<Self, String> {
        let url = spec.url.as_deref().unwrap_or_default();
        let ms =
            |value: Option<u32>, default| Duration::from_millis(value.unwrap_or(default).into());
        Ok(Self {
            url: url.parse().map_err(|_| "url is not an address".to_owned())?,
            timeout: ms(spec.timeout_ms, 2_000),
            retries: spec.retries.unwrap_or(1),
            cache_max: Duration::from_secs(spec.cache_s_max.unwrap_or(300).into()),
            fail: spec.fail.unwrap_or_default(),
            breaker_failures: spec.breaker_failures.unwrap_or(5),
            breaker_open: ms(spec.breaker_open_ms, 10_000),
            key: spec.key_place().read()?,
        })
    }
}

/// What a hook said. The default is yes without any limit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HookAnswer {
    /// Why not, if it refused: text for the wire.
    pub refusal: Option<String>,
    /// Another app than the peer's.
    pub app: Option<String>,
    /// Another stream name than the peer's.
    pub stream: Option<String>,
    /// Limits it set.
    pub limits: Limits,
    /// How long the answer may be kept.
    pub ttl: Duration,
}
