//! The budget of memory: what is used, which steps of shedding that calls for, and saying so.
//!
//! Looked at with every tick of the control thread. Used is the larger of what the server keeps count of and
//! what is resident: the first tells what shedding can give back, the second what the kernel will count.
//! The level rises at once, and falls by one step after two calm seconds, so that it does not flutter.
//! Workers read it in their sweep step ([`crate::shared::Memory`]); what each step does to a peer stands
//! in `LIMITS.md`.
//!
//! ```text
//!   80 %           85 %          90 %          95 %         100 %  of limits.memory_bytes_max
//!   subscribers ─► publishers ─► retention ─► hls windows ─► laggards
//!   refused        refused       trimmed       cut            closed
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Control, locked};
use crate::host;
use crate::log::event;
use crate::metrics::{Label as _, MemoryStep, MemoryUse};
use crate::shared::Shared;

/// Share of the budget, in percent, at which each step begins.
const BEGIN_PERCENT: [u64; MemoryStep::ALL.len()] = [80, 85, 90, 95, 100];
/// A step ends this much below where it begins, in percent of the budget.
const CALM_PERCENT: u64 = 3;
/// And after so long.
const CALM: Duration = Duration::from_secs(2);
/// What the machine has is ours by this share, in quarters, where nothing is configured.
const SHARE_QUARTERS: u64 = 3;
/// HLS windows shrink to no less than this for all streams, in bytes.
const HLS_BYTES_MIN: u64 = 1024 * 1024;

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Watch {
    ladder: Ladder,
    /// Memory of the machine; looked at once.
    machine_bytes: Option<u64>,
}

/// How many steps are in force.
#[derive(Debug, Default)]
struct Ladder {
    level: usize,
    /// Since when the topmost step is no longer called for.
    calm_since: Option<Instant>,
}

impl Ladder {
    /// Looks at the use; true if the level has changed.
    fn step(&mut self, used: u64, budget: u64, now: Instant) -> bool {
        let is_at = |percent: u64| used.saturating_mul(100) >= budget.saturating_mul(percent);
        let called_for = BEGIN_PERCENT.iter().take_while(|&&percent| is_at(percent)).count();
        if called_for > self.level {
            (self.level, self.calm_since) = (called_for, None);
            return true;
        }
        let Some(top) = self.level.checked_sub(1) else { return false };
        let begin = BEGIN_PERCENT.get(top).copied().unwrap_or(100);
        if is_at(begin - CALM_PERCENT) {
            self.calm_since = None;
            return false;
        }
        if now.duration_since(*self.calm_since.get_or_insert(now)) < CALM {
            return false;
        }
        (self.level, self.calm_since) = (top, None);
        true
    }
}

impl Control {
    /// Looks at the use of memory and puts as many steps of shedding into force as it calls for.
    pub(super) fn watch_memory(&self, now: Instant) {
        let Some(shared) = &self.shared else { return };
        let accounted = self.account_memory(shared);
        let resident = host::resident_bytes();
        let used = accounted.max(resident);
        let mut watch = locked(&self.memory);
        let machine = *watch
            .machine_bytes
            .get_or_insert_with(|| host::memory_limit_bytes(Path::new("/")).unwrap_or(u64::MAX));
        let budget = match self.config().limits.memory_bytes_max {
            0 => machine / 4 * SHARE_QUARTERS,
            bytes => bytes,
        };
        self.process.memory_budget_bytes.set(budget);
        self.process.resident_bytes.set(resident);
        let before = watch.ladder.level;
        if !watch.ladder.step(used, budget, now) {
            return;
        }
        let level = watch.ladder.level;
        drop(watch);
        self.apply_memory_level(shared, before, level);
        let step = level.checked_sub(1).and_then(|top| MemoryStep::ALL.get(top));
        let step = step.map_or("none", |step| step.text());
        if level > before {
            tracing::warn!(
                event = event::MEMORY,
                level,
                step,
                used,
                budget,
                accounted,
                resident,
                "memory runs short: shedding"
            );
        } else {
            tracing::info!(
                event = event::MEMORY,
                level,
                step,
                used,
                budget,
                accounted,
                resident,
                "memory is less short"
            );
        }
    }

    fn apply_memory_level(&self, shared: &Shared, before: usize, level: usize) {
        for step in MemoryStep::ALL.iter().skip(before).take(level.saturating_sub(before)) {
            self.process.memory_steps.of(*step).increment();
        }
        let is_hls_short = |level: usize| level > MemoryStep::Hls.index();
        match (is_hls_short(before), is_hls_short(level)) {
            (false, true) => {
                let bytes = shared.hls.bytes() / 2;
                shared.hls.shrink_windows(Some(bytes.max(HLS_BYTES_MIN)));
            }
            (true, false) => shared.hls.shrink_windows(None),
            _ => {}
        }
        self.process.memory_level.set(level as u64);
        shared.memory.set_level(u8::try_from(level).unwrap_or(u8::MAX));
    }

    /// What the server kept count of at the last look, in bytes.
    pub(super) fn accounted_bytes(&self) -> u64 {
        let counted = &self.process.memory_accounted;
        MemoryUse::ALL.iter().map(|what| counted.of(*what).value()).sum()
    }

    /// What the server keeps count of, in bytes.
    fn account_memory(&self, shared: &Shared) -> u64 {
        let held = shared.memory.held();
        let uses = [
            (MemoryUse::Rings, held.rings),
            (MemoryUse::Framings, held.framings),
            (MemoryUse::Spare, held.spare),
            (MemoryUse::Reassembly, held.reassembly),
            (MemoryUse::Hls, shared.hls.bytes()),
            (MemoryUse::Storage, self.storage.waiting_bytes.value()),
        ];
        for (what, bytes) in uses {
            self.process.memory_accounted.of(what).set(bytes);
        }
        uses.iter().map(|(_, bytes)| bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_begins_at_its_share_of_the_budget() {
        let now = Instant::now();
        for (used, level) in
            [(79, 0), (80, 1), (84, 1), (85, 2), (90, 3), (95, 4), (99, 4), (100, 5), (900, 5)]
        {
            let mut ladder = Ladder::default();
            assert_eq!(ladder.step(used, 100, now), level > 0);
            assert_eq!(ladder.level, level, "{used} %");
        }
    }

    #[test]
    fn the_level_falls_step_by_step_after_calm_and_not_before() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut ladder = Ladder::default();
        assert!(ladder.step(91, 100, at(0)));
        // Just below the step is not calm.
        assert!(!ladder.step(88, 100, at(5_000)));
        assert!(!ladder.step(50, 100, at(6_000)));
        assert!(!ladder.step(50, 100, at(7_900)));
        assert!(ladder.step(50, 100, at(8_000)));
        assert_eq!(ladder.level, 2);
        // Calm is counted anew for each step, and by what interrupts it.
        assert!(!ladder.step(50, 100, at(9_000)));
        assert!(!ladder.step(83, 100, at(9_500)));
        assert!(!ladder.step(50, 100, at(10_000)));
        assert!(!ladder.step(50, 100, at(11_900)));
        assert!(ladder.step(50, 100, at(12_000)));
        assert_eq!(ladder.level, 1);
        assert!(ladder.step(100, 100, at(12_001)), "it rises at once");
        assert_eq!(ladder.level, 5);
    }
}
