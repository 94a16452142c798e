//! Jobs by lane, with the time each lane may go on; removals by the time they are due.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use super::{Action, Job, REMOVALS_MAX};

#[derive(Debug, Default)]
struct Lane {
    jobs: VecDeque<Job>,
    /// Failed attempts at the first job.
    attempts: u32,
    /// No attempt before this.
    not_before_ms: u64,
}

type FullName = (Arc<Path>, String);

/// What waits inside the thread.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<u64, Lane>,
    /// Removals by due time and a serial number.
    later: BTreeMap<(u64, u64), Job>,
    /// Serial number of the removal that counts for a name.
    wanted: HashMap<FullName, u64>,
    serial: u64,
}

impl Lanes {
    pub(super) fn push(&mut self, job: Job) {
        self.lanes.entry(job.lane).or_default().jobs.push_back(job);
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Hands out what waits in a lane.
    pub(super) fn take_lane(&mut self, lane: u64) -> Vec<Job> {
        self.lanes.remove(&lane).map(|lane| lane.jobs.into()).unwrap_or_default()
    }

    /// Hands out what waits in all lanes.
    pub(super) fn take_all(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.lanes).into_values().flat_map(|lane| lane.jobs).collect()
    }

    /// When there is something to do; `None` without anything.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let lanes = self.lanes.values().map(|lane| lane.not_before_ms).min();
        let later = self.later.keys().next().map(|(due_ms, _)| *due_ms);
        lanes.into_iter().chain(later).min()
    }

    /// Lanes whose first job may be tried.
    pub(super) fn runnable(&self, now_ms: u64) -> Vec<u64> {
        let due = self.lanes.iter().filter(|(_, lane)| lane.not_before_ms <= now_ms);
        due.map(|(number, _)| *number).collect()
    }

    pub(super) fn front(&self, lane: u64) -> Option<&Job> {
        self.lanes.get(&lane)?.jobs.front()
    }

    /// The first job of a lane is done, or given up. True if it had failed before.
    pub(super) fn on_done(&mut self, lane: u64) -> bool {
        let Some(found) = self.lanes.get_mut(&lane) else { return false };
        let had_failed = found.attempts > 0;
        found.jobs.pop_front();
        found.attempts = 0;
        found.not_before_ms = 0;
        if found.jobs.is_empty() {
            self.lanes.remove(&lane);
        }
        had_failed
    }

    /// The first job of a lane has failed: the lane rests, longer each time. Returns how often it was
    /// tried.
    pub(super) fn on_failed(&mut self, lane: u64, now_ms: u64, retry_ms: u64) -> u32 {
        let Some(found) = self.lanes.get_mut(&lane) else { return u32::MAX };
        found.not_before_ms = now_ms + (retry_ms << found.attempts.min(16));
        found.attempts += 1;
        found.attempts
    }

    /// Keeps a removal until it is due. False if too many wait.
    pub(super) fn remove_later(&mut self, job: &Job, due_ms: u64) -> bool {
        if self.later.len() >= REMOVALS_MAX {
            return false;
        }
        self.serial += 1;
        self.wanted.insert((Arc::clone(&job.root), job.name.clone()), self.serial);
        let action = Action::Remove { after_ms: 0 };
        self.later.insert((due_ms, self.serial), Job { action, ..job.clone() });
        true
    }

    /// The name is written again: what was to remove it must not.
    pub(super) fn call_off_removal(&mut self, root: &Arc<Path>, name: &str) {
        if !self.wanted.is_empty() {
            self.wanted.remove(&(Arc::clone(root), name.to_owned()));
        }
    }

    /// Hands out all removals with the time until they are due, in milliseconds.
    pub(super) fn take_later(&mut self, now_ms: u64) -> Vec<(Job, u64)> {
        let wanted = std::mem::take(&mut self.wanted);
        let later = std::mem::take(&mut self.later).into_iter();
        let is_wanted = |job: &Job, serial| {
            wanted.get(&(Arc::clone(&job.root), job.name.clone())) == Some(&serial)
        };
        later
            .filter(|((_, serial), job)| is_wanted(job, *serial))
            .map(|((due_ms, _), job)| (job, due_ms.saturating_sub(now_ms)))
            .collect()
    }

    /// Hands out a removal that is due.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<Job> {
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now_ms
        {
            let ((_, serial), job) = entry.remove_entry();
            let name = (Arc::clone(&job.root), job.name.clone());
            if self.wanted.get(&name) == Some(&serial) {
                self.wanted.remove(&name);
                return Some(job);
            }
        }
        None
    }
}
