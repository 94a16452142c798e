//! Makes the rules: what the configuration says, what the API has changed, what is forbidden.
//!
//! Control thread only. Every change is checked, kept by the store, and then published as a new snapshot, in
//! that order: what was acknowledged survives a crash, and what the disk refused is not in force. A domain
//! of the configuration file cannot be changed here, and wins over one of the same name made by the API.
//! Counters of a domain live on from snapshot to snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::build::{KeySets, check_key_set};
use super::domain::Domain;
use super::forbid::{FORBIDS_MAX, Forbid, Forbids, Target};
use super::hook::Asks;
use super::keys::{self, Rotation};
use super::quota::Counters;
use super::rules::Rules;
use super::spec::{DomainSpec, DomainType, Scheme};
use super::store::{Change, Store, StoreError};
use crate::config::{Config, DOMAINS_MAX};
use crate::log::event;

/// A change was not made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessError {
    /// There is no such domain or forbid.
    NotFound(String),
    /// It goes against what there is.
    Conflict(String),
    /// It cannot be read or makes no sense. Never holds a key.
    Invalid(String),
    /// It could not be kept, so it is not in force.
    Store(StoreError),
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(text) | Self::Conflict(text) | Self::Invalid(text) => f.write_str(text),
            Self::Store(error) => write!(f, "the change could not be kept: {error}"),
        }
    }
}

impl std::error::Error for AccessError {}

impl From<StoreError> for AccessError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One domain as the API shows it.
#[derive(Clone, PartialEq, Debug)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Whether it stands in the configuration file.
    pub from_file: bool,
    /// Its spec, keys as fingerprints.
    pub spec: Value,
    /// Why it is not usable, if so.
    pub fault: Option<String>,
    /// Play domains linked to it.
    pub play_domains: Vec<String>,
    /// Publishers now.
    pub publishers: u32,
    /// Players now.
    pub subscribers: u32,
}

#[derive(Debug)]
struct State {
    config: Arc<Config>,
    store: Option<Store>,
    /// The store is left to another process for a while: nothing can be kept.
    is_store_released: bool,
    /// Made by the API.
    made: BTreeMap<String, DomainSpec>,
    forbids: BTreeMap<Target, Forbid>,
    counters: HashMap<String, Arc<Counters>>,
    /// Fetched by the addresses domains name.
    key_sets: KeySets,
    /// As they are in force.
    built: BTreeMap<String, Arc<Domain>>,
    rules: Arc<Rules>,
}

/// The owner of all rules.
#[derive(Debug)]
pub struct Manager {
    state: Mutex<State>,
    asks: Arc<Asks>,
}

impl Manager {
    /// Opens the store the configuration names and builds the first snapshot.
    ///
    /// # Errors
    /// [`StoreError`] if there is a store and it cannot be used: a server that has forgotten its bans
    /// must not start as if there were none.
    pub fn open(config: Arc<Config>, unix_s: u64) -> Result<Self, StoreError> {
        let (store, kept) = match config.access.store.path() {
            Some(path) => {
                let (store, kept) = Store::open(path)?;
                (Some(store), kept)
            }
            None => (None, super::store::Kept::default()),
        };
        let asks = Arc::default();
        let mut state = State {
            rules: Arc::new(Rules::open(Arc::clone(&config))),
            config,
            store,
            is_store_released: false,
            made: kept.domains,
            forbids: kept.forbids,
            counters: HashMap::new(),
            key_sets: KeySets::new(),
            built: BTreeMap::new(),
        };
        state.forbids.retain(|_, forbid| forbid.is_active(unix_s));
        state.rebuild(None, &asks);
        Ok(Self { state: Mutex::new(state), asks })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A change is made as a whole at the end of its function; a panic before leaves the old state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot in force.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.state().rules)
    }

    /// The queue workers put questions for hooks into.
    pub fn asks(&self) -> Arc<Asks> {
        Arc::clone(&self.asks)
    }

    /// Whether changes survive a restart.
    pub fn is_persistent(&self) -> bool {
        self.state().store.is_some()
    }

    /// Leaves the store to another process, which opens it: changes are refused meanwhile.
    pub fn release_store(&self) {
        let mut state = self.state();
        state.is_store_released |= state.store.take().is_some();
    }

    /// Takes the store back, as the other process has not begun to serve.
    pub fn regain_store(&self) {
        let mut state = self.state();
        let Some(path) = state.config.access.store.path().filter(|_| state.is_store_released)
        else {
            return;
        };
        match Store::open(path) {
            Ok((store, _)) => {
                state.store = Some(store);
                state.is_store_released = false;
            }
            // Changes stay refused: none that is acknowledged may be lost.
            Err(error) => tracing::error!(event = event::ADMIN, "access.store: {error}"),
        }
    }

    /// Takes a reloaded configuration, and reads all keys again.
    pub fn apply_config(&self, config: Arc<Config>) {
        let mut state = self.state();
        state.config = config;
        state.rebuild(None, &self.asks);
    }

    /// Addresses of the key sets domains are configured with.
    pub fn key_set_urls(&self) -> BTreeSet<String> {
        let state = self.state();
        let specs = state.config.domains.values().chain(state.made.values());
        specs.flat_map(|spec| &spec.provider).filter_map(|p| p.jwks_url.clone()).collect()
    }

    /// Takes a key set that was fetched. Answers whether anything has changed.
    ///
    /// # Errors
    /// A phrase, when the text is no key set; the one before stays in force.
    pub fn put_key_set(&self, url: &str, json: &str) -> Result<bool, String> {
        check_key_set(json)?;
        let mut state = self.state();
        if state.key_sets.get(url).is_some_and(|known| known == json) {
            return Ok(false);
        }
        state.key_sets.insert(url.to_owned(), json.to_owned());
        state.rebuild(None, &self.asks);
        Ok(true)
    }

    /// Domains that cannot be used, with the reason.
    pub fn faults(&self) -> Vec<(String, String)> {
        let state = self.state();
        let fault = |(name, domain): (&String, &Arc<Domain>)| {
            domain.fault.as_ref().map(|fault| (name.clone(), fault.clone()))
        };
        state.built.iter().filter_map(fault).collect()
    }

    /// Domains in force, unusable ones among them, and forbids: for metrics.
    pub fn counts(&self) -> (u64, u64, u64) {
        let state = self.state();
        let faulty = state.built.values().filter(|domain| domain.fault.is_some()).count();
        (state.built.len() as u64, faulty as u64, state.forbids.len() as u64)
    }

    /// All domains by name.
    pub fn domains(&self) -> Vec<Shown> {
        let state = self.state();
        state.built.keys().filter_map(|name| state.shown(name)).collect()
    }

    /// One domain.
    ///
    /// # Errors
    /// [`AccessError::NotFound`].
    pub fn domain(&self, name: &str) -> Result<Shown, AccessError> {
        self.state().shown(name).ok_or_else(|| not_found(name))
    }

    /// Makes a domain, or with `replace` changes one.
    ///
    /// # Errors
    /// Every [`AccessError`]; the type and region of a domain never change, and a change may not leave a
    /// play domain with a push domain it does not fit.
    pub fn put_domain(
        &self,
        name: &str,
        spec: DomainSpec,
        replace: bool,
    ) -> Result<Shown, AccessError> {
        let mut state = self.state();
        state.check_changeable(name)?;
        spec.check().map_err(AccessError::Invalid)?;
        match (state.made.get(name), replace) {
            (Some(_), false) => {
                return Err(AccessError::Conflict(format!("domain {name} exists already")));
            }
            (None, true) => return Err(not_found(name)),
            (None, false) if state.made.len() >= DOMAINS_MAX => {
                let text = format!("there are {DOMAINS_MAX} domains already");
                return Err(AccessError::Conflict(text));
            }
            (Some(old), true) if old.kind != spec.kind || old.region != spec.region => {
                let text =
                    "the type and region of a domain never change; delete it and make it anew";
                return Err(AccessError::Conflict(text.to_owned()));
            }
            _ => {}
        }
        let push = spec.push_domain.as_deref().and_then(|push| state.spec(push));
        let built = Domain::build(name, &spec, push, Arc::default(), &state.key_sets);
        if let Some(fault) = built.fault {
            return Err(AccessError::Invalid(fault));
        }
        state.keep(&[Change::PutDomain(name, &spec)])?;
        state.made.insert(name.to_owned(), spec);
        state.rebuild(Some(name), &self.asks);
        state.shown(name).ok_or_else(|| not_found(name))
    }

    /// Changes part of a domain.
    ///
    /// # Errors
    /// As [`Manager::put_domain`], and what `edit` says.
    pub fn edit_domain(
        &self,
        name: &str,
        edit: impl FnOnce(&mut DomainSpec) -> Result<(), AccessError>,
    ) -> Result<Shown, AccessError> {
        let mut spec = {
            let state = self.state();
            state.check_changeable(name)?;
            state.made.get(name).cloned().ok_or_else(|| not_found(name))?
        };
        edit(&mut spec)?;
        self.put_domain(name, spec, true)
    }

    /// Removes a domain. Who publishes or plays there stays until it leaves.
    ///
    /// # Errors
    /// [`AccessError::Conflict`] while a play domain is linked to it.
    pub fn remove_domain(&self, name: &str) -> Result<(), AccessError> {
        let mut state = self.state();
        state.check_changeable(name)?;
        if !state.made.contains_key(name) {
            return Err(not_found(name));
        }
        if let Some(play) = state.play_domains(name).first() {
            let text = format!("play domain {play} is linked to {name}; unlink it first");
            return Err(AccessError::Conflict(text));
        }
        state.keep(&[Change::RemoveDomain(name)])?;
        state.made.remove(name);
        state.rebuild(Some(name), &self.asks);
        Ok(())
    }

    /// One step of a change of keys; see [`keys`].
    ///
    /// # Errors
    /// [`AccessError::Conflict`] when the step does not fit the keys there are.
    pub fn rotate(&self, name: &str, scheme: Scheme, step: Rotation) -> Result<Shown, AccessError> {
        self.edit_domain(name, |spec| {
            *spec = keys::rotated(spec, scheme, step)?;
            Ok(())
        })
    }

    /// All forbids that have not ended.
    pub fn forbids(&self, unix_s: u64) -> Vec<(Target, Forbid)> {
        let state = self.state();
        let active = state.forbids.iter().filter(|(_, forbid)| forbid.is_active(unix_s));
        active.map(|(target, forbid)| (target.clone(), forbid.clone())).collect()
    }

    /// Forbids, or changes a forbid there is.
    ///
    /// # Errors
    /// [`AccessError::Conflict`] when there are [`FORBIDS_MAX`], [`AccessError::Store`].
    pub fn forbid(&self, target: Target, forbid: Forbid) -> Result<(), AccessError> {
        let mut state = self.state();
        if state.forbids.len() >= FORBIDS_MAX && !state.forbids.contains_key(&target) {
            return Err(AccessError::Conflict(format!("there are {FORBIDS_MAX} forbids already")));
        }
        state.keep(&[Change::PutForbid(&target, &forbid)])?;
        state.forbids.insert(target, forbid);
        state.publish(&self.asks);
        Ok(())
    }

    /// Lifts a forbid.
    ///
    /// # Errors
    /// [`AccessError::NotFound`], [`AccessError::Store`].
    pub fn resume(&self, target: &Target) -> Result<Forbid, AccessError> {
        let mut state = self.state();
        if !state.forbids.contains_key(target) {
            return Err(AccessError::NotFound(format!("{target} is not forbidden")));
        }
        state.keep(&[Change::RemoveForbid(target)])?;
        let forbid = state.forbids.remove(target);
        state.publish(&self.asks);
        forbid.ok_or_else(|| AccessError::NotFound(format!("{target} is not forbidden")))
    }

    /// Clears away the forbids that have ended; call every few seconds. They are out of force already,
    /// whether or not the disk takes note. Returns those cleared.
    pub fn expire(&self, unix_s: u64) -> Vec<Target> {
        let mut state = self.state();
        let ended = state.forbids.iter().filter(|(_, forbid)| !forbid.is_active(unix_s));
        let ended: Vec<Target> = ended.map(|(target, _)| target.clone()).collect();
        if ended.is_empty() {
            return ended;
        }
        let changes: Vec<_> = ended.iter().map(Change::RemoveForbid).collect();
        if state.keep(&changes).is_err() {
            // Tried again by the next call; they stay out of force.
            return Vec::new();
        }
        state.forbids.retain(|_, forbid| forbid.is_active(unix_s));
        state.publish(&self.asks);
        ended
    }
}

fn not_found(name: &str) -> AccessError {
    AccessError::NotFound(format!("no domain {name}"))
}

impl State {
    fn keep(&self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        if self.is_store_released {
            return Err(StoreError("another process is about to take over".to_owned()));
        }
        self.store.as_ref().map_or(Ok(()), |store| store.apply(changes))
    }

    /// The spec in force: the file's, else the API's.
    fn spec(&self, name: &str) -> Option<&DomainSpec> {
        self.config.domains.get(name).or_else(|| self.made.get(name))
    }

    fn check_changeable(&self, name: &str) -> Result<(), AccessError> {
        if self.config.domains.contains_key(name) {
            let text =
                format!("domain {name} stands in the configuration file: change it there, reload");
            return Err(AccessError::Conflict(text));
        }
        Ok(())
    }

    fn names(&self) -> HashSet<String> {
        self.config.domains.keys().chain(self.made.keys()).cloned().collect()
    }

    fn play_domains(&self, push: &str) -> Vec<String> {
        let is_linked = |name: &&String| {
            self.spec(name).is_some_and(|spec| spec.push_domain.as_deref() == Some(push))
        };
        let mut names: Vec<_> = self.built.keys().filter(is_linked).cloned().collect();
        names.sort();
        names
    }

    fn shown(&self, name: &str) -> Option<Shown> {
        let (spec, domain) = (self.spec(name)?, self.built.get(name)?);
        Some(Shown {
            name: name.to_owned(),
            from_file: self.config.domains.contains_key(name),
            spec: spec.to_shown(),
            fault: domain.fault.clone(),
            play_domains: match spec.kind {
                DomainType::Push => self.play_domains(name),
                DomainType::Play => Vec::new(),
            },
            publishers: domain.counters.publishers(),
            subscribers: domain.counters.subscribers(),
        })
    }

    /// Builds all domains, or the changed one and those that look at it, then publishes.
    fn rebuild(&mut self, changed: Option<&str>, asks: &Arc<Asks>) {
        let names = self.names();
        self.built.retain(|name, _| names.contains(name));
        // A domain that is gone is remembered as long as somebody is there.
        self.counters
            .retain(|name, counters| names.contains(name) || Arc::strong_count(counters) > 1);
        for name in names {
            let Some(spec) = self.spec(&name) else { continue };
            let concerns =
                |changed| name == changed || spec.push_domain.as_deref() == Some(changed);
            if !changed.is_none_or(concerns) {
                continue;
            }
            let push = spec.push_domain.as_deref().and_then(|push| self.spec(push));
            let counters = self.counters.get(&name).cloned().unwrap_or_default();
            let domain = Domain::build(&name, spec, push, Arc::clone(&counters), &self.key_sets);
            self.counters.insert(name.clone(), counters);
            self.built.insert(name, Arc::new(domain));
        }
        self.publish(asks);
    }

    /// Makes the snapshot of what is built and forbidden.
    fn publish(&mut self, asks: &Arc<Asks>) {
        let domains = self.built.values().cloned().collect();
        let forbids = self.forbids.iter().map(|(target, forbid)| (target.clone(), forbid.clone()));
        let (config, forbids) = (Arc::clone(&self.config), Forbids::new(forbids));
        self.rules = Arc::new(Rules::new(config, domains, forbids, Arc::clone(asks)));
    }
}

#[cfg(test)]
mod tests;
