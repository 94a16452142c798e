//! What a domain is, as people write it: one shape for the configuration file, the admin API and the store.
//!
//! Unknown fields are errors. [`DomainSpec::check`] finds everything that can be found without looking at
//! other domains or reading keys; [`super::domain`] does the rest. Keys never leave through `Serialize` or
//! `Debug`: the store uses `to_stored`, the API [`DomainSpec::to_shown`].
//!
//! ```toml
//! [domain."push.example.com"]        # a name is publishing or playing, never both
//! type = "push"
//! style = "tencent"
//! [[domain."push.example.com".provider]]
//! scheme = "txsecret"
//! key_file = "/etc/ringcast/push.key"
//!
//! [domain."play.example.com"]
//! type = "play"
//! push_domain = "push.example.com"
//! ```

mod provider;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Role;
use super::quota::Limits;
use crate::config::DuplicatePublish;

pub use provider::{Fail, ProviderSpec, Scheme};

/// Providers of one domain.
pub const PROVIDERS_MAX: usize = 8;
/// Entries of one list inside a provider.
pub const LIST_MAX: usize = 1_024;
/// Longest free text, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// Region of a domain that does not say.
pub const REGION_DEFAULT: &str = "default";

/// What a domain is for. Never changes in a domain's life.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainType {
    /// Streams are published here.
    Push,
    /// Streams are played here.
    Play,
}

impl DomainType {
    /// The role it serves.
    pub fn role(self) -> Role {
        match self {
            Self::Push => Role::Publish,
            Self::Play => Role::Play,
        }
    }
}

/// Whose habits a domain follows where they differ: second publishers and names.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// The vhost's `duplicate_publish`; strict names.
    #[default]
    Plain,
    /// The newest publisher wins; strict names.
    Tencent,
    /// The second publisher is refused; strict names.
    Aliyun,
    /// The second publisher is refused; any name an object may have.
    Oss,
}

/// Which apps and stream names may be used.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Names {
    /// One to 256 of `0-9 A-Z a-z _ = -` for app and name each.
    Strict,
    /// Whatever an RTMP address can carry.
    Any,
}

/// A second publisher of a stream.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondPublisher {
    /// It replaces the first.
    Takeover,
    /// It is refused.
    Reject,
}

/// How several providers work together. Address lists (`ip`) come first and must always pass.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Require {
    /// The first provider, in order, whose parameters the request carries decides alone. `open` and `hook`
    /// recognise every request, so what stands behind them is never reached. If no provider recognises
    /// the request, it is refused with what the first one misses.
    #[default]
    Any,
    /// Every provider must pass, in order, the hook last. The first refusal is the answer.
    All,
}

fn read_name<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(from)?;
    name.map(|name| normal_name(&name)).transpose().map_err(serde::de::Error::custom)
}

fn region_default() -> String {
    REGION_DEFAULT.to_owned()
}

fn bitrate_cut_ms_default() -> u32 {
    10_000
}

/// A domain as written. The name stands beside it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainSpec {
    /// Publishing or playing; fixed for life.
    #[serde(rename = "type")]
    pub kind: DomainType,
    /// Live centre; a play domain must be in that of its push domain. Fixed for life.
    #[serde(default = "region_default")]
    pub region: String,
    /// Where it is accelerated; shown only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Where its DNS entry points; shown only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cname: Option<String>,
    /// The push domain whose streams a play domain serves. Without one it serves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "read_name")]
    pub push_domain: Option<String>,
    /// Whose habits it follows.
    #[serde(default)]
    pub style: Style,
    /// Push domains: whether streams of different apps with one name are different streams.
    #[serde(default)]
    pub app_isolation: bool,
    /// Which names may be used; as the style says if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Names>,
    /// Second publishers; as the style says if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_publish: Option<SecondPublisher>,
    /// Publishers at one time; 0 is no limit.
    #[serde(default)]
    pub publishers_max: u32,
    /// Players at one time; 0 is no limit.
    #[serde(default)]
    pub subscribers_max: u32,
    /// Publishes and plays of one address at one time; 0 is no limit.
    #[serde(default)]
    pub connections_per_address_max: u32,
    /// Bits per second of one publisher, averaged over two seconds; 0 is no limit.
    #[serde(default)]
    pub bitrate_bps_max: u64,
    /// Time over that limit after which a publisher is cut, in milliseconds. It is warned of before.
    #[serde(default = "bitrate_cut_ms_default")]
    pub bitrate_cut_ms: u32,
    /// How the providers work together.
    #[serde(default)]
    pub require: Require,
    /// Who decides, in order. A play domain without any is open; a push domain must name one.
    #[serde(default)]
    pub provider: Vec<ProviderSpec>,
}

impl DomainSpec {
    /// A domain with nothing but its type.
    pub fn new(kind: DomainType) -> Self {
        Self {
            kind,
            region: region_default(),
            scope: None,
            cname: None,
            push_domain: None,
            style: Style::default(),
            app_isolation: false,
            names: None,
            duplicate_publish: None,
            publishers_max: 0,
            subscribers_max: 0,
            connections_per_address_max: 0,
            bitrate_bps_max: 0,
            bitrate_cut_ms: bitrate_cut_ms_default(),
            require: Require::default(),
            provider: Vec::new(),
        }
    }

    /// Quotas.
    pub fn limits(&self) -> Limits {
        Limits {
            publishers_max: self.publishers_max,
            subscribers_max: self.subscribers_max,
            connections_per_address_max: self.connections_per_address_max,
        }
    }

    /// The rule for names, style applied.
    pub fn names(&self) -> Names {
        self.names.unwrap_or(match self.style {
            Style::Oss => Names::Any,
            Style::Plain | Style::Tencent | Style::Aliyun => Names::Strict,
        })
    }

    /// What a second publisher meets, style applied; `None` is the vhost's affair.
    pub fn duplicate_publish(&self) -> Option<DuplicatePublish> {
        match (self.duplicate_publish, self.style) {
            (Some(SecondPublisher::Takeover), _) | (None, Style::Tencent) => {
                Some(DuplicatePublish::Takeover)
            }
            (Some(SecondPublisher::Reject), _) | (None, Style::Aliyun | Style::Oss) => {
                Some(DuplicatePublish::Reject)
            }
            (None, Style::Plain) => None,
        }
    }

    /// Everything that can be said of it alone.
    ///
    /// # Errors
    /// A phrase that continues "domain NAME: ". Holds no key.
    pub fn check(&self) -> Result<(), String> {
        let texts = [Some(&self.region), self.scope.as_ref(), self.cname.as_ref()];
        let is_bad = |text: &String| {
            text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control)
        };
        if texts.into_iter().flatten().any(is_bad) {
            return Err(
                "region, scope and cname are 1..=256 bytes without control characters".into()
            );
        }
        match self.kind {
            DomainType::Push if self.push_domain.is_some() => {
                return Err("push_domain belongs to play domains".into());
            }
            DomainType::Push if self.provider.is_empty() => {
                let text = "a push domain needs at least one provider; \
                            scheme = \"open\" lets everybody publish";
                return Err(text.into());
            }
            DomainType::Play if self.app_isolation => {
                return Err("app_isolation belongs to push domains".into());
            }
            DomainType::Push | DomainType::Play => {}
        }
        if self.provider.len() > PROVIDERS_MAX {
            return Err(format!("more than {PROVIDERS_MAX} providers"));
        }
        if self.provider.iter().filter(|provider| provider.scheme == Scheme::Hook).count() > 1 {
            return Err("more than one hook".into());
        }
        for (index, provider) in self.provider.iter().enumerate() {
            provider.check().map_err(|error| format!("provider {}: {error}", index + 1))?;
        }
        Ok(())
    }

    /// For the store, keys included. Not for logs and not for answers.
    pub(super) fn to_stored(&self) -> Value {
        let mut value = json!(self);
        for (index, provider) in self.provider.iter().enumerate() {
            for place in [provider.key_place(), provider.backup_place()] {
                if let Some(text) = place.text {
                    value["provider"][index][place.name] = text.expose().into();
                }
            }
        }
        value
    }

    /// For people: each key as its fingerprint and where it is.
    pub fn to_shown(&self) -> Value {
        let mut value = json!(self);
        for (index, provider) in self.provider.iter().enumerate() {
            for place in [provider.key_place(), provider.backup_place()] {
                let Some(shown) = value["provider"][index].as_object_mut() else { continue };
                for suffix in ["", "_file", "_env"] {
                    shown.remove(&format!("{}{suffix}", place.name));
                }
                if place.count() == 0 {
                    continue;
                }
                let fingerprint = match place.read() {
                    Ok(key) => key.map(|key| key.fingerprint()),
                    Err(_) => None,
                };
                let key = json!({"fingerprint": fingerprint, "from": place.shown()});
                shown.insert(place.name.to_owned(), key);
            }
        }
        value
    }
}

/// A domain's name in its normal form.
///
/// # Errors
/// A phrase that continues "domain NAME: ".
pub fn normal_name(name: &str) -> Result<String, &'static str> {
    if name.contains('*') {
        return Err("wildcards are not allowed: a domain is one host name");
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if name == crate::config::DEFAULT_VHOST {
        return Err("\"default\" is the vhost of all hosts that have no name here");
    }
    // The path type has the rule for hosts; the rest of the path does not matter.
    match live::path::StreamPath::new(&name, "live", "name") {
        Ok(_) if name.len() <= 253 => Ok(name),
        _ => Err("expected a host name or an address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::secret::SecretText;

    fn push(providers: &str) -> Result<DomainSpec, String> {
        let spec: DomainSpec =
            serde_json::from_str(&format!("{{\"type\":\"push\",\"provider\":{providers}}}"))
                .map_err(|error| error.to_string())?;
        spec.check().map(|()| spec)
    }

    #[test]
    fn a_name_is_one_host_without_wildcards() {
        assert_eq!(normal_name("Push.Example.COM."), Ok("push.example.com".into()));
        assert_eq!(normal_name("127.0.0.1"), Ok("127.0.0.1".into()));
        for bad in ["*.example.com", "", "a b", "a/b", "default", "http://x", "x:1935"] {
            assert!(normal_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_provider_is_refused_with_what_it_lacks_or_has_too_much() {
        for (provider, complaint) in [
            (r#"{"scheme":"txsecret"}"#, "needs key"),
            (r#"{"scheme":"txsecret","key":"k","key_env":"K"}"#, "only one of key"),
            (r#"{"scheme":"open","key":"k"}"#, "key has no meaning for the scheme open"),
            (r#"{"scheme":"open","key_file":"k"}"#, "key_file has no meaning"),
            (r#"{"scheme":"txsecret","key":"k","jwks_file":"x"}"#, "jwks_file has no meaning"),
            (r#"{"scheme":"txsecret","key":"k","public_key_file":"x"}"#, "has no meaning"),
            (r#"{"scheme":"oss","key":"k"}"#, "needs access_key_id"),
            (r#"{"scheme":"usersig","key":"k"}"#, "needs sdk_app_id"),
            (r#"{"scheme":"jwt"}"#, "needs a key"),
            (r#"{"scheme":"ip"}"#, "needs allow or deny"),
            (r#"{"scheme":"hook"}"#, "needs url"),
            (r#"{"scheme":"hook","url":"ftp://x/"}"#, "expected http://"),
            (r#"{"scheme":"hook","url":"http://u:p@x/"}"#, "user and password"),
            (r#"{"scheme":"hook","url":"http://x/","timeout_ms":1}"#, "outside 10..=60000"),
            (r#"{"scheme":"txsecret","key":"k","kee":1}"#, "unknown field"),
            (r#"{"scheme":"md5"}"#, "unknown variant"),
        ] {
            let error = push(&format!("[{provider}]")).unwrap_err();
            assert!(error.contains(complaint), "{provider}: {error}");
        }
        for good in [
            r#"{"scheme":"aliyun_a","key_env":"K","backup_key_file":"b","validity_s":60}"#,
            r#"{"scheme":"usersig","sdk_app_id":1,"public_key_file":"p"}"#,
            r#"{"scheme":"jwt","jwks_url":"https://x/keys"}"#,
            r#"{"scheme":"hook","url":"http://[::1]:80/a","key":"k","fail":"open"}"#,
        ] {
            assert_eq!(push(&format!("[{good}]")).map(drop), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_push_domain_is_never_open_by_omission_and_has_one_hook() {
        assert!(push("[]").unwrap_err().contains("at least one provider"));
        let hook = r#"{"scheme":"hook","url":"http://x/"}"#;
        assert!(push(&format!("[{hook},{hook}]")).unwrap_err().contains("more than one hook"));
    }

    #[test]
    fn styles_decide_what_is_not_said() {
        let mut spec = DomainSpec::new(DomainType::Push);
        for (style, second, names) in [
            (Style::Plain, None, Names::Strict),
            (Style::Tencent, Some(DuplicatePublish::Takeover), Names::Strict),
            (Style::Aliyun, Some(DuplicatePublish::Reject), Names::Strict),
            (Style::Oss, Some(DuplicatePublish::Reject), Names::Any),
        ] {
            spec.style = style;
            assert_eq!((spec.duplicate_publish(), spec.names()), (second, names), "{style:?}");
        }
        spec.duplicate_publish = Some(SecondPublisher::Takeover);
        assert_eq!(spec.duplicate_publish(), Some(DuplicatePublish::Takeover));
    }

    #[test]
    fn keys_leave_by_the_store_only() {
        let spec = push(r#"[{"scheme":"txsecret","key":"sesame-1","backup_key":"sesame-2"}]"#);
        let spec = spec.unwrap();
        let shown = format!("{spec:?} {} {}", json!(spec), spec.to_shown());
        assert!(!shown.contains("sesame"), "{shown}");
        let fingerprint = &spec.to_shown()["provider"][0]["key"]["fingerprint"];
        assert_eq!(*fingerprint, SecretText::new("sesame-1").unwrap().fingerprint());
        let stored: DomainSpec = serde_json::from_value(spec.to_stored()).unwrap();
        assert_eq!(stored, spec);
    }
}
