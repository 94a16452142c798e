//! From a host name to a certificate: two look-ups in hash tables, whatever their size.
//!
//! Immutable once built. A new one replaces it as a whole while handshakes that began with the old one
//! finish with it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use tls::rustls::sign::CertifiedKey;
use tls::rustls::{SignatureAlgorithm, SignatureScheme};

use super::pair::Pair;
use super::report::Validity;
use super::sources::PairId;

/// Kinds of keys one name may have, in the order they are offered: ECDSA costs the server least, RSA is
/// for clients that know nothing else.
const KINDS: usize = 3;

fn kind_of(pair: &Pair) -> usize {
    match pair.key.key.algorithm() {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::RSA => 2,
        _ => 1,
    }
}

/// The certificates of one name, one per kind of key.
#[derive(Clone, Debug, Default)]
struct Candidates([Option<Arc<CertifiedKey>>; KINDS]);

impl Candidates {
    /// The first the client can verify; if there is none, the first, so that the handshake fails with the
    /// reason instead of with a certificate of somebody else.
    fn choose(&self, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let mut all = self.0.iter().flatten();
        let fits = |one: &&Arc<CertifiedKey>| one.key.choose_scheme(schemes).is_some();
        all.clone().find(fits).or_else(|| all.next())
    }
}

/// Which certificate for which name.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Box<str>, Candidates>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Candidates>,
    default: Candidates,
}

/// A pair that may be served.
#[derive(Copy, Clone, Debug)]
pub(super) struct Served<'a> {
    pub id: &'a PairId,
    pub pair: &'a Pair,
    pub validity: Validity,
}

impl Served<'_> {
    /// The largest of a name is served: valid before not valid, configured before found, the longest
    /// lasting, and between equals the first by name.
    fn rank(&self) -> (bool, bool, i64, Reverse<&PairId>) {
        let is_configured = self.id.found_at.is_none();
        let is_valid = self.validity == Validity::Valid;
        (is_valid, is_configured, self.pair.not_after_s, Reverse(self.id))
    }
}

type Best<'a, 's> = HashMap<&'s str, [Option<&'a Served<'s>>; KINDS]>;

impl Index {
    /// Decides for every name. `served` is sorted by name.
    pub(super) fn build(served: &[Served<'_>]) -> Self {
        let mut best: Best<'_, '_> = HashMap::new();
        for one in served {
            let kind = kind_of(one.pair);
            for name in &one.pair.names {
                let place = &mut best.entry(name).or_default()[kind];
                if place.is_none_or(|other| other.rank() < one.rank()) {
                    *place = Some(one);
                }
            }
        }
        let mut index = Self::default();
        for (name, kinds) in &best {
            let candidates = Candidates(kinds.map(|one| one.map(|one| Arc::clone(&one.pair.key))));
            match name.strip_prefix("*.") {
                Some(parent) => index.wildcard.insert(parent.into(), candidates),
                None => index.exact.insert((*name).into(), candidates),
            };
        }
        if let Some(default) = default_of(served) {
            // The other kinds of key come from the pairs that share its first name.
            let kinds = default.pair.names.first().and_then(|name| best.get(name.as_str()));
            let kinds = kinds.copied().unwrap_or_default();
            index.default = Candidates(kinds.map(|one| one.map(|one| Arc::clone(&one.pair.key))));
            index.default.0[kind_of(default.pair)] = Some(Arc::clone(&default.pair.key));
        }
        index
    }

    /// The certificate for a client that asks for `name` (in lower case) and can verify `schemes`: the
    /// exact name, else the wildcard of its parent, else the default. `None` only if there is none at all.
    pub(super) fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
        });
        named.unwrap_or(&self.default).choose(schemes)
    }

    /// Names with a certificate, wildcards counted once.
    pub(super) fn names(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }
}

/// The pair called `default`, else the first by name that is valid, else the first.
pub(super) fn default_of<'a, 's>(served: &'a [Served<'s>]) -> Option<&'a Served<'s>> {
    let is_default = |one: &&Served<'_>| one.id.name == "default";
    let is_valid = |one: &&Served<'_>| one.validity == Validity::Valid;
    served.iter().find(is_default).or_else(|| served.iter().find(is_valid)).or(served.first())
}
