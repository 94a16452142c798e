//! The snapshot every worker decides by: domains, forbids, and the vhosts of the configuration.
//!
//! Immutable; the control thread builds a new one whenever something changes and every worker swaps its
//! `Arc`. A decision is a few hash lookups, the providers' computation, and one atomic addition for the
//! quota. Without any domain everything is as the vhosts' own `publish` and `play` say.
//!
//! The domain is the host the peer wrote in `tcUrl`, unless a `vhost` or `domain` parameter named another:
//! then that, and the stream belongs to it too, so nobody is checked by one domain and let into another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use live::path::{Resolved, StreamPath, VhostSource};

use super::check::{self, Verdict};
use super::domain::{Domain, SHARED_APP};
use super::forbid::Forbids;
use super::hook::{Asks, HookAnswer, HookQuestion};
use super::providers::Pass;
use super::quota::{Exceeded, Limits, Place};
use super::spec::Fail;
use super::{Decision, Denial, DenyReason, Grant, Question, Role};
use crate::config::{Config, DEFAULT_VHOST, DuplicatePublish, UnknownDomain};

/// Sub codes of the failure map.
const EVENT_CODE_UNKNOWN_DOMAIN: u16 = 301;
const EVENT_CODE_TOO_MANY_PUBLISHERS: u16 = 601;
const EVENT_CODE_HOOK: u16 = 19;

/// Everything a worker decides by.
#[derive(Debug)]
pub struct Rules {
    config: Arc<Config>,
    domains: HashMap<Box<str>, Arc<Domain>>,
    forbids: Forbids,
    asks: Arc<Asks>,
}

impl Rules {
    /// The rules of a configuration without domains and forbids: open, as its vhosts say.
    pub fn open(config: Arc<Config>) -> Self {
        Self::new(config, Vec::new(), Forbids::default(), Arc::default())
    }

    /// A snapshot. Domain names are in normal form and differ.
    pub fn new(
        config: Arc<Config>,
        domains: Vec<Arc<Domain>>,
        forbids: Forbids,
        asks: Arc<Asks>,
    ) -> Self {
        let domains = domains.into_iter().map(|domain| (domain.name.clone(), domain)).collect();
        Self { config, domains, forbids, asks }
    }

    /// A domain by its name in normal form.
    pub fn domain(&self, name: &str) -> Option<&Arc<Domain>> {
        self.domains.get(name)
    }

    /// May this peer do this, now? Answers at once.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let Question { role, peer, unix_s, .. } = *question;
        if let Some(denial) = self.forbids.check_address(peer, role, unix_s) {
            return Decision::Deny(denial);
        }
        let host = asked_host(question.resolved);
        let Some(domain) = self.domains.get(host) else { return self.decide_vhost(question, host) };
        if let Some(denial) = domain.check_place(role, question.resolved) {
            return Decision::Deny(denial);
        }
        let asked = &question.resolved.path;
        let Ok(path) = domain.identity(asked.app(), asked.name()) else {
            let text = "the stream name cannot be used";
            return Decision::Deny(Denial::new(DenyReason::IllegalName, 0, text));
        };
        if let Some(denial) = self
            .vhost_denial(role, path.vhost())
            .or_else(|| self.forbids.check_stream(&path, role, unix_s))
        {
            return Decision::Deny(denial);
        }
        match check::run(domain, question) {
            Verdict::Pass(pass) => {
                let limits = check::Limits::default();
                let who = (role, peer, question.is_renewal);
                self.admit(domain, who, path, &limits, pass)
            }
            Verdict::Deny(denial) => Decision::Deny(denial),
            Verdict::Ask(pass) => {
                let asked = HookQuestion::new(question, Arc::clone(domain), path, pass);
                Decision::Ask(Box::new(asked))
            }
        }
    }

    /// Whether a stream or an address is shut out now: for an answer that has been on its way while that
    /// may have changed.
    pub fn forbidden(
        &self,
        path: &StreamPath,
        role: Role,
        peer: IpAddr,
        unix_s: u64,
    ) -> Option<Denial> {
        let of_address = self.forbids.check_address(peer, role, unix_s);
        of_address.or_else(|| self.forbids.check_stream(path, role, unix_s))
    }

    /// Hands a question that [`Rules::decide`] answered with `Ask` to the control thread; the answer
    /// comes as `Command::Answer` with the question's ticket. When too many wait already, answers at once
    /// by the domain's `fail` setting.
    pub fn ask(&self, question: Box<HookQuestion>) -> Option<Decision> {
        match self.asks.push(question) {
            Ok(()) => None,
            Err(question) => Some(self.without_hook(&question)),
        }
    }

    /// What becomes of a question its hook has not answered.
    pub fn without_hook(&self, question: &HookQuestion) -> Decision {
        let fail = question.domain.hook.as_ref().map_or(Fail::Closed, |hook| hook.fail);
        match fail {
            Fail::Open => self.conclude(question, &HookAnswer::default()),
            Fail::Closed => {
                let text = "the authorization service gives no answer";
                Decision::Deny(Denial::new(DenyReason::HookFailed, EVENT_CODE_HOOK, text))
            }
        }
    }

    /// What becomes of a question its hook has answered. The domain and the forbids may have changed
    /// since it was asked: they are looked at again.
    pub fn conclude(&self, question: &HookQuestion, answer: &HookAnswer) -> Decision {
        if let Some(text) = &answer.refusal {
            return Decision::Deny(Denial::new(DenyReason::Hook, EVENT_CODE_HOOK, text.clone()));
        }
        let Some(domain) = self.domains.get(&question.domain.name) else {
            return Decision::Deny(unknown_domain(&question.domain.name));
        };
        let app = answer.app.as_deref().unwrap_or(&question.app);
        let stream = answer.stream.as_deref().unwrap_or(&question.stream);
        let Ok(path) = domain.identity(app, stream) else {
            // The hook's mistake, not the peer's.
            let text = "the authorization service gives no usable name";
            return Decision::Deny(Denial::new(DenyReason::HookFailed, EVENT_CODE_HOOK, text));
        };
        let HookQuestion { role, peer, unix_s, .. } = *question;
        let forbidden = self
            .forbids
            .check_address(peer, role, unix_s)
            .or_else(|| self.forbids.check_stream(&path, role, unix_s));
        match forbidden {
            Some(denial) => Decision::Deny(denial),
            None => {
                let who = (role, peer, question.is_renewal);
                self.admit(domain, who, path, &answer.limits, question.pass.clone())
            }
        }
    }

    /// Takes the place in the quotas, unless the peer has one, and makes the grant.
    fn admit(
        &self,
        domain: &Arc<Domain>,
        (role, peer, is_renewal): (Role, IpAddr, bool),
        path: StreamPath,
        limits: &check::Limits,
        pass: Pass,
    ) -> Decision {
        let own_policy = self.config.vhost(path.vhost()).1.duplicate_publish;
        let may_replace =
            domain.duplicate_publish.unwrap_or(own_policy) == DuplicatePublish::Takeover;
        let taken = match is_renewal {
            true => None,
            false => Some(domain.counters.take(role, peer, &domain.limits, may_replace)),
        };
        let (place, is_over) = match taken {
            None => (None, false),
            Some(Ok((place, is_over))) => (Some(place), is_over),
            Some(Err(exceeded)) => return Decision::Deny(quota_denial(exceeded)),
        };
        let bitrates = [domain.bitrate_bps_max, limits.bitrate_bps_max];
        Decision::Allow(Grant {
            path,
            bitrate_bps_max: bitrates.into_iter().flatten().min(),
            bitrate_cut_ms: domain.bitrate_cut_ms,
            tracks: pass.tracks,
            user: pass.user,
            duplicate_publish: domain.duplicate_publish,
            over_quota: is_over.then(|| Box::new(quota_denial(Exceeded::Publishers))),
            lifetime_s_max: limits.lifetime_s_max,
            place,
        })
    }

    /// The domain a place is one of; none for one that has been deleted.
    pub fn domain_of(&self, place: &Place) -> Option<&str> {
        let domain = self.domains.values().find(|domain| place.is_of(&domain.counters))?;
        Some(&domain.name)
    }

    /// A place in a domain for who had one there in the process before this, whatever its quotas are now.
    pub fn readmit(&self, role: Role, peer: IpAddr, domain: &str) -> Option<Place> {
        let domain = self.domains.get(domain)?;
        let counts_addresses = domain.limits.connections_per_address_max != 0;
        let connections_per_address_max = if counts_addresses { u32::MAX } else { 0 };
        let limits = Limits { connections_per_address_max, ..Limits::default() };
        domain.counters.take(role, peer, &limits, true).ok().map(|(place, _)| place)
    }

    /// A host without a domain of its own.
    fn decide_vhost(&self, question: &Question<'_>, host: &str) -> Decision {
        let Question { role, unix_s, resolved, .. } = *question;
        let vhost = self.vhost_of_streams(host);
        let is_known = vhost != DEFAULT_VHOST || self.domains.is_empty();
        if !is_known && self.config.access.unknown_domains == UnknownDomain::Refuse {
            return Decision::Deny(unknown_domain(host));
        }
        let path = resolved.path.with_vhost(vhost).unwrap_or_else(|_| resolved.path.clone());
        let denial = self
            .vhost_denial(role, host)
            .or_else(|| self.forbids.check_stream(&path, role, unix_s));
        match denial {
            Some(denial) => Decision::Deny(denial),
            None => Decision::Allow(Grant::unlimited(path)),
        }
    }

    /// The vhost in the identity of streams asked for on a host that is no domain. Hosts under a wildcard
    /// stay apart from each other; all others are one under the vhost's name.
    fn vhost_of_streams<'a>(&'a self, host: &'a str) -> &'a str {
        let (vhost, _) = self.config.vhost(host);
        if vhost.starts_with("*.") { host } else { vhost }
    }

    /// What the switches of a host's vhost say.
    fn vhost_denial(&self, role: Role, host: &str) -> Option<Denial> {
        let (name, vhost) = self.config.vhost(host);
        let (allowed, verb) = match role {
            Role::Publish => (vhost.publish, "publishing"),
            Role::Play => (vhost.play, "playing"),
        };
        let text = || format!("{verb} is not allowed on {name}");
        (!allowed).then(|| Denial::new(DenyReason::Vhost, 0, text()))
    }

    /// The identity of a stream named by an operator: a domain of either type or a vhost, and `app` if it
    /// matters there.
    pub fn stream_named(&self, host: &str, app: Option<&str>, stream: &str) -> Option<StreamPath> {
        let app = app.unwrap_or(SHARED_APP);
        match self.domains.get(host) {
            Some(domain) => domain.identity(app, stream).ok(),
            None => StreamPath::new(self.vhost_of_streams(host), app, stream).ok(),
        }
    }
}

/// The host whose rules apply.
fn asked_host(resolved: &Resolved) -> &str {
    match (resolved.vhost_source, &resolved.host) {
        (VhostSource::Host, Some(host)) => host,
        _ => resolved.path.vhost(),
    }
}

fn unknown_domain(host: &str) -> Denial {
    let text = format!("unknown domain {host}");
    Denial::new(DenyReason::UnknownDomain, EVENT_CODE_UNKNOWN_DOMAIN, text)
}

fn quota_denial(exceeded: Exceeded) -> Denial {
    let (code, text) = match exceeded {
        Exceeded::Publishers => (EVENT_CODE_TOO_MANY_PUBLISHERS, "too many publishers"),
        Exceeded::Subscribers => (0, "too many players"),
        Exceeded::Address => (0, "too many connections from this address"),
    };
    Denial::new(DenyReason::Quota, code, text)
}

#[cfg(test)]
mod tests;
