//! What the store knows about each pair, and what looking at the files again does with it.
//!
//! ```text
//!   files as they were read ── same as now ──► nothing is opened
//!        │ differ
//!        ▼ (watching: only once two looks in a row saw the same, so that a half-written pair is not read)
//!   read and checked ── refused ──────────────► the old pair stays; why is told once, kept for the list
//!        │ usable        └ not valid by its dates while the old one is: refused too
//!        ▼
//!   replaces the old pair; the index is built anew and swapped
//! ```
//!
//! A pair whose files are gone is forgotten at an explicit reload, or when two looks in a row miss it; not
//! while a folder cannot be read, and never if none would be left, or none of its name that can be used.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use tls::rustls::crypto::CryptoProvider;

use super::expiry::Warned;
use super::index::{Index, Served, default_of};
use super::pair::{self, Pair};
use super::report::{CertInfo, Figures, LoadReport, Validity, utc_text};
use super::sources::{Found, FoundPair, PairFiles, PairId, Stamps};
use crate::log::event;
use crate::metrics::{CertificateState, Label as _};

/// Pairs a thread should have at least before it is started for reading them.
const PAIRS_PER_THREAD_MIN: usize = 64;
/// Threads that read at most.
const THREADS_MAX: usize = 16;
/// Lines of one kind logged at one look; the rest is counted.
const LOG_LINES_MAX: usize = 20;
/// Certificates whose end is a metric of their own.
pub(super) const SOONEST_MAX: usize = 20;

/// Why the files are looked at.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// Somebody asked: what is there is meant.
    Asked,
    /// Time passed: what is there may be half done.
    Watching,
}

#[derive(Debug)]
struct Slot {
    files: PairFiles,
    /// The files as they were when last read, whether that succeeded or not.
    read_at: Stamps,
    /// The files as they were at the last look, if they differ from `read_at`.
    settling: Option<Stamps>,
    /// What is served.
    pair: Option<Pair>,
    /// Dates of `pair` as the index knows them.
    validity: Validity,
    /// Why the files are not what is served.
    error: Option<String>,
    /// When to read again although nothing changed: the pair refused was not valid yet.
    again_at_s: Option<i64>,
    warned: Warned,
    /// Looks in a row that did not find it.
    missed: u32,
}

impl Slot {
    fn new(files: PairFiles) -> Self {
        Self {
            files,
            read_at: (None, None),
            settling: None,
            pair: None,
            validity: Validity::Valid,
            error: None,
            again_at_s: None,
            warned: Warned::default(),
            missed: 0,
        }
    }

    /// Whether to read the files now.
    fn wants_reading(&mut self, found: &FoundPair, is_new: bool, look: Look, now_s: i64) -> bool {
        // It was gone, that was told, and it is back: whatever it looks like, read it.
        if std::mem::take(&mut self.missed) > 1 && self.error.is_some() {
            self.read_at = (None, None);
        }
        if self.files != found.files {
            self.files.clone_from(&found.files);
            self.read_at = (None, None);
            self.error = None;
        }
        let now = found.stamps;
        let is_due = self.again_at_s.is_some_and(|at| at <= now_s);
        if now == self.read_at && !is_due {
            self.settling = None;
            return is_new || (look == Look::Asked && self.error.is_some());
        }
        let is_settled = self.settling == Some(now);
        if look == Look::Watching && !is_settled && !is_due {
            self.settling = Some(now);
            return false;
        }
        // Taken before reading: a change during it is seen at the next look.
        self.read_at = now;
        self.settling = None;
        true
    }

    /// Takes what reading gave, or keeps what there is. Returns whether it was taken.
    fn take(&mut self, result: Result<Pair, String>, now_s: i64) -> bool {
        self.again_at_s = None;
        let refused = match result {
            Err(message) => message,
            Ok(new) => {
                let validity = new.validity(now_s);
                let old_is_valid =
                    self.pair.as_ref().is_some_and(|old| old.validity(now_s) == Validity::Valid);
                if validity == Validity::Valid || !old_is_valid {
                    self.error = None;
                    self.warned = Warned::default();
                    self.validity = validity;
                    self.pair = Some(new);
                    return true;
                }
                let file = self.files.cert.display();
                if validity == Validity::NotYet {
                    self.again_at_s = Some(new.not_before_s);
                    format!("{file}: not valid before {}", utc_text(new.not_before_s))
                } else {
                    format!("{file}: expired on {}", utc_text(new.not_after_s))
                }
            }
        };
        let meanwhile = match &self.pair {
            Some(old) => format!("; the one valid until {} stays", utc_text(old.not_after_s)),
            None => String::new(),
        };
        self.error = Some(format!("{refused}{meanwhile}"));
        false
    }

    fn state(&self) -> CertificateState {
        match (&self.pair, self.validity) {
            (None, _) => CertificateState::Broken,
            (_, Validity::NotYet) => CertificateState::NotYetValid,
            (_, Validity::Expired) => CertificateState::Expired,
            (_, Validity::Valid) if self.error.is_some() => CertificateState::Stale,
            _ => CertificateState::Valid,
        }
    }
}

/// What to read, decided under the lock; the reading itself is done without it.
#[derive(Debug)]
pub(super) struct Plan {
    look: Look,
    now_s: i64,
    to_read: Vec<(PairId, PairFiles)>,
    problems: Vec<String>,
}

impl Plan {
    /// Reads the pairs on as many threads as there is work for. Results are in the plan's order.
    pub(super) fn read(&self, provider: &CryptoProvider) -> Vec<Result<Pair, String>> {
        read_all(&self.to_read, provider)
    }
}

/// All pairs. Behind the store's lock.
#[derive(Debug)]
pub(super) struct State {
    slots: BTreeMap<PairId, Slot>,
    problems: Vec<String>,
    names: usize,
    loaded_total: u64,
    refused_total: u64,
    /// Pairs opened since the start, for tests that nothing is read in vain.
    pub(super) reads: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            slots: BTreeMap::new(),
            problems: Vec::new(),
            names: 0,
            loaded_total: 0,
            refused_total: 0,
            reads: 0,
        }
    }

    pub(super) fn has_pairs(&self) -> bool {
        self.slots.values().any(|slot| slot.pair.is_some())
    }

    /// Compares what was found with what is known, and says which pairs to read.
    pub(super) fn plan(&mut self, found: Found, look: Look, now_s: i64) -> Plan {
        for slot in self.slots.values_mut() {
            slot.missed += 1;
        }
        let mut to_read = Vec::new();
        for pair in found.pairs {
            let (slot, is_new) = match self.slots.entry(pair.id.clone()) {
                Entry::Occupied(known) => (known.into_mut(), false),
                Entry::Vacant(place) => (place.insert(Slot::new(pair.files.clone())), true),
            };
            if slot.wants_reading(&pair, is_new, look, now_s) {
                to_read.push((pair.id, pair.files));
            }
        }
        self.reads += to_read.len() as u64;
        Plan { look, now_s, to_read, problems: found.problems }
    }

    /// Takes what reading gave. The index is there if names may now lead elsewhere.
    pub(super) fn apply(
        &mut self,
        plan: Plan,
        results: Vec<Result<Pair, String>>,
    ) -> (LoadReport, Option<Index>) {
        let Plan { look, now_s, to_read, problems } = plan;
        let mut report = LoadReport::default();
        for ((id, _), result) in to_read.iter().zip(results) {
            self.take(id, result, now_s, &mut report);
        }
        tell_more(report.failed_total, event::CERT_REFUSED);
        report.removed = self.forget_missing(look, problems.is_empty());
        self.tell_problems(problems);

        let dates_changed = self.follow_the_calendar(now_s);
        let changed = report.loaded > 0 || report.removed > 0 || dates_changed;
        let index = changed.then(|| Index::build(&self.served()));
        if let Some(index) = &index {
            self.names = index.names();
        }
        report.total = self.slots.len();
        report.problems.clone_from(&self.problems);
        (report, index)
    }

    fn take(
        &mut self,
        id: &PairId,
        result: Result<Pair, String>,
        now_s: i64,
        report: &mut LoadReport,
    ) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let is_change = slot.pair.is_some();
        if slot.take(result, now_s) {
            self.loaded_total += 1;
            report.loaded += 1;
            let Some(pair) = &slot.pair else { return };
            let early = (slot.validity == Validity::NotYet)
                .then(|| format!("not valid before {}", utc_text(pair.not_before_s)));
            for warning in pair.warnings.iter().chain(&early) {
                if report.loaded <= LOG_LINES_MAX {
                    tracing::warn!(event = event::CERT_WARNING, certificate = id.name, "{warning}");
                }
            }
            if is_change && report.loaded <= LOG_LINES_MAX {
                tracing::info!(
                    event = event::CERT_LOADED,
                    certificate = id.name,
                    not_after = utc_text(pair.not_after_s),
                    "certificate replaced; new handshakes use it"
                );
            }
        } else if let Some(error) = &slot.error {
            self.refused_total += 1;
            if report.failed_total < LOG_LINES_MAX {
                tracing::error!(event = event::CERT_REFUSED, certificate = id.name, "{error}");
            }
            report.fail(&id.name, error);
        }
    }

    /// Removes pairs whose files are gone. Returns how many.
    fn forget_missing(&mut self, look: Look, is_complete: bool) -> usize {
        let misses = if look == Look::Asked { 1 } else { 2 };
        // Entries of the configuration are known to be gone whatever the folder is like.
        let is_gone = |id: &PairId, slot: &Slot| {
            slot.missed >= misses && (is_complete || id.found_at.is_none())
        };
        if !self.slots.iter().any(|(id, slot)| is_gone(id, slot)) {
            return 0;
        }
        let present = || self.slots.iter().filter(|(id, slot)| !is_gone(id, slot));
        let is_last = !present().any(|(_, slot)| slot.pair.is_some());
        // Names whose files moved to where they cannot be used.
        let broken: BTreeSet<String> = present()
            .filter(|(_, slot)| slot.pair.is_none())
            .map(|(id, _)| id.name.clone())
            .collect();
        let before = self.slots.len();
        self.slots.retain(|id, slot| {
            if !is_gone(id, slot) {
                return true;
            }
            let stays = slot.pair.is_some() && (is_last || broken.contains(&id.name));
            if stays {
                let reason =
                    "its files are gone; it stays because no other can be used in its place";
                slot.error = Some(reason.to_owned());
            } else {
                let certificate = &id.name;
                tracing::info!(event = event::CERT_REMOVED, certificate, "its files are gone");
            }
            stays
        });
        before - self.slots.len()
    }

    /// Logs what could not be looked into, once.
    fn tell_problems(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::error!(event = event::CERT_REFUSED, "{problem}");
        }
        self.problems = problems;
    }

    /// Certificates begin, end and come near their end. Returns whether the index must follow.
    fn follow_the_calendar(&mut self, now_s: i64) -> bool {
        let (mut changed, mut lines) = (false, 0);
        for (id, slot) in &mut self.slots {
            let Some(pair) = &slot.pair else { continue };
            let validity = pair.validity(now_s);
            changed |= validity != slot.validity;
            slot.validity = validity;
            if let Some(days_left) = slot.warned.is_due(pair, now_s) {
                lines += 1;
                if lines <= LOG_LINES_MAX {
                    tell_expiry(&id.name, pair, days_left);
                }
            }
        }
        tell_more(lines, event::CERT_EXPIRY);
        changed
    }

    fn served(&self) -> Vec<Served<'_>> {
        self.slots
            .iter()
            .filter_map(|(id, slot)| {
                Some(Served { id, pair: slot.pair.as_ref()?, validity: slot.validity })
            })
            .collect()
    }

    pub(super) fn list(&self) -> Vec<CertInfo> {
        let served = self.served();
        let default = default_of(&served).map(|served| served.id);
        self.slots
            .iter()
            .map(|(id, slot)| {
                let pair = slot.pair.as_ref();
                CertInfo {
                    name: id.name.clone(),
                    state: slot.state(),
                    is_default: default == Some(id),
                    names: pair.map_or_else(Vec::new, |pair| pair.names.clone()),
                    issuer: pair.map(|pair| pair.issuer.clone()),
                    not_before: pair.map(|pair| utc_text(pair.not_before_s)),
                    not_after: pair.map(|pair| utc_text(pair.not_after_s)),
                    not_after_unix_s: pair.map(|pair| u64::try_from(pair.not_after_s).unwrap_or(0)),
                    key_type: pair.map(|pair| pair.key_type.clone()),
                    chain: pair.map_or(0, |pair| pair.key.cert.len()),
                    cert_file: slot.files.cert.display().to_string(),
                    key_file: slot.files.key.display().to_string(),
                    error: slot.error.clone(),
                    warnings: pair.map_or_else(Vec::new, |pair| pair.warnings.clone()),
                }
            })
            .collect()
    }

    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures {
            names: self.names as u64,
            loaded_total: self.loaded_total,
            refused_total: self.refused_total,
            ..Figures::default()
        };
        let mut ends = Vec::with_capacity(self.slots.len());
        for (id, slot) in &self.slots {
            figures.states[slot.state().index()] += 1;
            ends.extend(slot.pair.as_ref().map(|pair| (pair.not_after_s, &id.name)));
        }
        ends.sort();
        // Two pairs of one name are one series: the sooner end is the one to look at.
        for (end, name) in ends {
            if figures.soonest.len() == SOONEST_MAX {
                break;
            }
            if !figures.soonest.iter().any(|(known, _)| known == name) {
                figures.soonest.push((name.clone(), end));
            }
        }
        figures
    }
}

fn tell_expiry(certificate: &str, pair: &Pair, days_left: i64) {
    let not_after = utc_text(pair.not_after_s);
    if days_left < 0 {
        tracing::error!(event = event::CERT_EXPIRY, certificate, not_after, "it has EXPIRED");
    } else {
        tracing::warn!(
            event = event::CERT_EXPIRY,
            certificate,
            not_after,
            days_left,
            "it ends soon"
        );
    }
}

/// Says how many lines were left out.
fn tell_more(lines: usize, code: &'static str) {
    if let Some(more @ 1..) = lines.checked_sub(LOG_LINES_MAX) {
        tracing::warn!(event = code, more, "and more certificates; see ringctl certs");
    }
}

fn read_all(
    to_read: &[(PairId, PairFiles)],
    provider: &CryptoProvider,
) -> Vec<Result<Pair, String>> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let threads = (to_read.len() / PAIRS_PER_THREAD_MIN).clamp(1, cpus.min(THREADS_MAX));
    let read_some = |some: &[(PairId, PairFiles)]| -> Vec<_> {
        some.iter().map(|(_, files)| pair::read(files, provider)).collect()
    };
    if threads == 1 {
        return read_some(to_read);
    }
    thread::scope(|scope| {
        let parts = to_read.chunks(to_read.len().div_ceil(threads));
        let started: Vec<_> = parts.map(|part| (part, scope.spawn(|| read_some(part)))).collect();
        let joined = started.into_iter().map(|(part, thread)| {
            thread.join().unwrap_or_else(|_| {
                let message = "reading it panicked: please report this".to_owned();
                vec![Err(message); part.len()]
            })
        });
        joined.flatten().collect()
    })
}
