//! Certificates: which there are, which one a client gets, and how they change while the server runs.
//!
//! A [`CertStore`] is shared by all workers. A handshake asks it for a certificate: one atomic load and two
//! look-ups, no lock, whatever the number of certificates. Everything else (looking at files, decoding,
//! deciding what replaces what) happens on the control side. A change reaches handshakes that begin after
//! it and touches no connection; a file that cannot be used changes nothing but what is told about it.
//!
//! ```text
//!   folder, [certificate] ─ sources ─► files ─ pair ─► checked pairs ─ state ─► index ─ swap ─► handshakes
//! ```
//!
//! - `sources`: where pairs of files are found. `pem`, `pair`: what is in them.
//! - `state`: what replaces what, and when. `expiry`: when to warn.
//! - `index`: exact name, then wildcard, then default; ECDSA before RSA.
//! - `report`: what the API, the log and the metrics tell.
//!
//! For operators: `edge/CERTIFICATES.md`.

mod expiry;
mod index;
pub mod pair;
pub(crate) mod pem;
pub mod report;
pub mod sources;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tls::rustls::server::{ClientHello, ResolvesServerCert};
use tls::rustls::sign::CertifiedKey;

pub use report::{CertError, CertFailure, CertInfo, Figures, LoadReport};
pub use sources::{CertEntry, CertSources};

use index::Index;
use state::{Look, State};

/// The certificates of the server. Shared by workers (which only resolve) and the control thread.
pub struct CertStore {
    index: ArcSwap<Index>,
    /// Held during a whole look, so that there is one at a time and the newest wins.
    sources: Mutex<CertSources>,
    /// Held for moments. Taken while holding `sources`, never the other way.
    state: Mutex<State>,
    provider: CryptoProvider,
}

impl fmt::Debug for CertStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertStore")
            .field("names", &self.index.load().names())
            .finish_non_exhaustive()
    }
}

impl CertStore {
    /// A store without certificates; every handshake fails until a reload finds some.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self {
            index: ArcSwap::default(),
            sources: Mutex::default(),
            state: Mutex::new(State::new()),
            provider: aws_lc_rs::default_provider(),
        })
    }

    /// Loads everything `sources` names. Blocks: reads files, on several threads if there are many. What
    /// cannot be used is logged and reported; what has expired is served, loudly, if there is no other.
    ///
    /// # Errors
    /// [`CertError`] if something is asked for and not one certificate can be used.
    pub fn load(sources: &CertSources) -> Result<(Arc<Self>, LoadReport), CertError> {
        Self::load_at(sources, unix_now_s())
    }

    fn load_at(sources: &CertSources, now_s: i64) -> Result<(Arc<Self>, LoadReport), CertError> {
        let store = Self::empty();
        store.set_sources(sources.clone());
        let report = store.look(Look::Asked, now_s);
        if !sources.is_empty() && !store.state().has_pairs() {
            let mut reasons = report.problems;
            reasons.extend(report.failed.into_iter().map(|failure| failure.error));
            return Err(CertError { reasons });
        }
        Ok((store, report))
    }

    /// Looks at the files now and takes what changed, because somebody asked. Blocks.
    pub fn reload(&self) -> LoadReport {
        self.look(Look::Asked, unix_now_s())
    }

    /// The same with other sources: a reload of the configuration.
    pub fn reload_from(&self, sources: CertSources) -> LoadReport {
        self.set_sources(sources);
        self.reload()
    }

    fn set_sources(&self, sources: CertSources) {
        *lock(&self.sources) = sources;
    }

    /// Looks at the files because time passed: what changed is taken once it has come to rest, and
    /// certificates that end soon are warned about. Blocks; call it every few seconds.
    pub fn watch(&self) -> LoadReport {
        self.look(Look::Watching, unix_now_s())
    }

    /// All certificates by name, those that cannot be used included.
    pub fn list(&self) -> Vec<CertInfo> {
        self.state().list()
    }

    /// Figures for metrics.
    pub fn figures(&self) -> Figures {
        self.state().figures()
    }

    /// When the first certificate ends, in Unix time.
    pub fn next_expiry_s(&self) -> Option<i64> {
        self.figures().soonest.first().map(|(_, end)| *end)
    }

    /// Whether there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        !self.state().has_pairs()
    }

    fn look(&self, look: Look, now_s: i64) -> LoadReport {
        let sources = lock(&self.sources);
        let found = sources::find(&sources);
        let plan = self.state().plan(found, look, now_s);
        // Without the lock of the state: whoever lists certificates does not wait for ten thousand keys.
        let results = plan.read(&self.provider);
        let (report, index) = self.state().apply(plan, results);
        if let Some(index) = index {
            self.index.store(Arc::new(index));
        }
        report
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A panic of a holder leaves complete values: each is replaced by assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // In lower case already; a final dot is against the standard and means nothing.
        let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
        self.index.load().choose(name, hello.signature_schemes()).cloned()
    }
}

fn unix_now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
