//! A domain ready for use: keys read, providers built, its push domain found.
//!
//! Built by the control thread, immutable afterwards, shared by all workers inside [`super::rules::Rules`].
//! A domain that cannot be built (its key file is gone) is kept with its fault: it refuses everybody and
//! says so, which is better than being open or unknown.

use std::sync::Arc;

use live::path::{PathError, Resolved, StreamPath};

use super::build::{self, KeySets};
use super::check::Check;
use super::hook::HookSettings;
use super::providers::Provider;
use super::quota::{Counters, Limits};
use super::spec::{DomainSpec, DomainType, Names, Require, Scheme};
use super::{Denial, DenyReason, Role};
use crate::config::DuplicatePublish;

/// App of every stream whose push domain does not tell apps apart.
pub const SHARED_APP: &str = "live";
/// Longest app and longest stream name under strict rules, in characters.
pub const NAME_CHARS_MAX: usize = 256;

/// Sub codes of the failure map.
const EVENT_CODE_UNKNOWN_DOMAIN: u16 = 301;
const EVENT_CODE_ILLEGAL_STREAM: u16 = 308;
const EVENT_CODE_ILLEGAL_APP: u16 = 309;

/// One domain.
#[derive(Debug)]
pub struct Domain {
    /// Host name in normal form.
    pub name: Box<str>,
    /// Publishing or playing.
    pub kind: DomainType,
    /// The domain streams belong to: this one, or the push domain of a play domain, if it has one.
    pub streams_of: Option<Box<str>>,
    /// Whether apps tell streams apart; of the push domain.
    pub app_isolation: bool,
    /// Which names may be used.
    pub names: Names,
    /// What a second publisher meets.
    pub duplicate_publish: Option<DuplicatePublish>,
    /// Quotas.
    pub limits: Limits,
    /// Bits per second of one publisher.
    pub bitrate_bps_max: Option<u64>,
    /// Time over that limit before a publisher is cut, in milliseconds.
    pub bitrate_cut_ms: u64,
    /// How the providers work together.
    pub require: Require,
    /// Address lists, which always apply.
    pub gates: Vec<Provider>,
    /// The other providers, in order; the hook last where all must pass.
    pub checks: Vec<Check>,
    /// The hook, if one of the providers is.
    pub hook: Option<Arc<HookSettings>>,
    /// Who is here now.
    pub counters: Arc<Counters>,
    /// Why it cannot be used, for operators.
    pub fault: Option<String>,
}

impl Domain {
    /// Builds it. `push` is the spec of the push domain a play domain names, if that exists.
    pub fn build(
        name: &str,
        spec: &DomainSpec,
        push: Option<&DomainSpec>,
        counters: Arc<Counters>,
        key_sets: &KeySets,
    ) -> Self {
        let streams_of = match spec.kind {
            DomainType::Push => Some(Box::from(name)),
            DomainType::Play => spec.push_domain.as_deref().map(Box::from),
        };
        let mut domain = Self {
            name: Box::from(name),
            kind: spec.kind,
            streams_of,
            app_isolation: push.unwrap_or(spec).app_isolation,
            names: spec.names(),
            duplicate_publish: spec.duplicate_publish(),
            limits: spec.limits(),
            bitrate_bps_max: (spec.bitrate_bps_max != 0).then_some(spec.bitrate_bps_max),
            bitrate_cut_ms: u64::from(spec.bitrate_cut_ms),
            require: spec.require,
            gates: Vec::new(),
            checks: Vec::new(),
            hook: None,
            counters,
            fault: spec.check().and_then(|()| check_link(spec, push)).err(),
        };
        if domain.fault.is_none() {
            domain.fault = domain.add_providers(spec, key_sets).err();
        }
        domain
    }

    fn add_providers(&mut self, spec: &DomainSpec, key_sets: &KeySets) -> Result<(), String> {
        for (index, provider) in spec.provider.iter().enumerate() {
            let at = |error: String| {
                format!("provider {} ({}): {error}", index + 1, provider.scheme.text())
            };
            match provider.scheme {
                Scheme::Ip => self.gates.push(build::provider(provider, key_sets).map_err(at)?),
                Scheme::Hook => {
                    self.hook = Some(Arc::new(HookSettings::build(provider).map_err(at)?));
                    self.checks.push(Check::Hook);
                }
                _ => {
                    let built = build::provider(provider, key_sets).map_err(at)?;
                    self.checks.push(Check::Local(built));
                }
            }
        }
        if self.require == Require::All {
            self.checks.sort_by_key(|check| matches!(check, Check::Hook));
        }
        Ok(())
    }

    /// Everything about this domain that needs no provider.
    pub(super) fn check_place(&self, role: Role, resolved: &Resolved) -> Option<Denial> {
        if self.fault.is_some() {
            let text = format!("domain {} is not usable at present", self.name);
            return Some(Denial::new(DenyReason::Misconfigured, 0, text));
        }
        if self.kind.role() != role {
            let (is, not) = match self.kind {
                DomainType::Push => ("push", "playing"),
                DomainType::Play => ("play", "publishing"),
            };
            let text = format!("{} is a {is} domain: {not} is not served here", self.name);
            return Some(Denial::new(DenyReason::WrongDomain, EVENT_CODE_UNKNOWN_DOMAIN, text));
        }
        if self.streams_of.is_none() {
            let text = format!("play domain {} has no push domain", self.name);
            return Some(Denial::new(DenyReason::WrongDomain, EVENT_CODE_UNKNOWN_DOMAIN, text));
        }
        if self.names == Names::Strict {
            if !is_strict_name(resolved.path.app()) {
                let text = "illegal characters in the app name";
                return Some(Denial::new(DenyReason::IllegalName, EVENT_CODE_ILLEGAL_APP, text));
            }
            if !is_strict_name(resolved.path.name()) {
                let text = "illegal characters in the stream name";
                return Some(Denial::new(DenyReason::IllegalName, EVENT_CODE_ILLEGAL_STREAM, text));
            }
        }
        None
    }

    /// The identity of a stream that was asked for on this domain: the same for the push domain and all
    /// its play domains.
    pub(super) fn identity(&self, app: &str, stream: &str) -> Result<StreamPath, PathError> {
        let app = if self.app_isolation { app } else { SHARED_APP };
        StreamPath::new(self.streams_of.as_deref().unwrap_or(&self.name), app, stream)
    }
}

/// Whether a play domain and its push domain go together; the rest of a spec is checked by
/// [`DomainSpec::check`].
///
/// # Errors
/// A phrase that continues "domain NAME: ".
pub fn check_link(spec: &DomainSpec, push: Option<&DomainSpec>) -> Result<(), String> {
    let Some(push_name) = &spec.push_domain else { return Ok(()) };
    let Some(push) = push else {
        return Err(format!("push_domain {push_name:?} does not exist"));
    };
    if push.kind != DomainType::Push {
        return Err(format!("push_domain {push_name:?} is a play domain"));
    }
    if push.region != spec.region {
        let (own, other) = (&spec.region, &push.region);
        return Err(format!("its region {own:?} is not that of its push domain, {other:?}"));
    }
    Ok(())
}

/// `0-9 A-Z a-z _ = -`, at least one.
fn is_strict_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'=' | b'-');
    !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.bytes().all(fits)
}
