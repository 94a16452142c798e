//! What the workers of one process share: the registry, each other's wakers, and the count of
//! connections per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;

use crate::command::Wake;
use crate::hand_over::verdict::Verdict;
use crate::hls::Hls;
#[cfg(doc)]
use crate::metrics::MemoryStep;
use crate::registry::Registry;

/// Shared by all workers; nothing in it is touched for a media byte.
pub struct Shared {
    /// All streams.
    pub registry: Registry,
    /// Connections per address.
    pub addresses: Addresses,
    /// Streams cut for viewers over HTTP.
    pub hls: Hls,
    /// What the workers hold.
    pub memory: Memory,
    /// Whether what they told of is another process's.
    pub verdict: Verdict,
    /// How many takeovers were asked for: a worker that sees a new number looks through the
    /// streams it is home of.
    takeovers: AtomicU64,
    wakers: Box<[OnceLock<Arc<dyn Wake>>]>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Shared {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            registry: Registry::new(workers),
            addresses: Addresses::default(),
            hls: Hls::default(),
            memory: Memory::new(workers),
            verdict: Verdict::default(),
            takeovers: AtomicU64::new(0),
            wakers: (0..workers).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.wakers.len()
    }

    /// Each worker announces its waker once, before it serves anybody.
    pub fn set_waker(&self, worker: usize, waker: Arc<dyn Wake>) {
        if let Some(slot) = self.wakers.get(worker) {
            slot.get_or_init(|| waker);
        }
    }

    /// Makes a worker's present or next wait return.
    pub fn wake(&self, worker: usize) {
        if let Some(waker) = self.wakers.get(worker).and_then(OnceLock::get) {
            waker.wake();
        }
    }

    /// Asks `worker` to look for a stream that somebody wants to take over.
    pub fn ask_to_yield(&self, worker: usize) {
        self.takeovers.fetch_add(1, Ordering::AcqRel);
        self.wake(worker);
    }

    /// How many takeovers were asked for so far.
    pub fn takeovers(&self) -> u64 {
        self.takeovers.load(Ordering::Acquire)
    }

    /// Wakes every worker.
    pub fn wake_all(&self) {
        for worker in 0..self.wakers.len() {
            self.wake(worker);
        }
    }
}

/// Memory of one worker's streams, in bytes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Rings of streams.
    pub rings: u64,
    /// Free segments kept for reuse.
    pub spare: u64,
    /// Rings of other framings (FLV, MP4).
    pub framings: u64,
    /// Interleaved messages.
    pub reassembly: u64,
}

#[derive(Debug, Default)]
struct HeldCells {
    rings: AtomicU64,
    spare: AtomicU64,
    framings: AtomicU64,
    reassembly: AtomicU64,
}

/// What each worker holds, as it wrote down in its last sweep step: so sums are up to 50 ms old, and
/// no media byte costs a shared write.
#[derive(Debug)]
pub struct Memory {
    workers: Box<[CachePadded<HeldCells>]>,
    /// How many steps of shedding are in force; written by the control thread.
    level: AtomicU8,
}

impl Memory {
    fn new(workers: usize) -> Self {
        let workers = (0..workers).map(|_| CachePadded::default()).collect();
        Self { workers, level: AtomicU8::new(0) }
    }

    /// How many steps of [`MemoryStep`] are in force.
    pub fn level(&self) -> u8 {
        self.level.load(Ordering::Relaxed)
    }

    /// Puts so many steps into force; workers see it in their next sweep step.
    pub fn set_level(&self, level: u8) {
        self.level.store(level, Ordering::Relaxed);
    }

    /// Writes down what `worker` holds; only that worker calls it.
    pub fn note(&self, worker: usize, held: Held) {
        let Some(cells) = self.workers.get(worker) else { return };
        cells.rings.store(held.rings, Ordering::Relaxed);
        cells.spare.store(held.spare, Ordering::Relaxed);
        cells.framings.store(held.framings, Ordering::Relaxed);
        cells.reassembly.store(held.reassembly, Ordering::Relaxed);
    }

    /// What each worker holds.
    pub fn each(&self) -> impl Iterator<Item = Held> + '_ {
        self.workers.iter().map(|cells| Held {
            rings: cells.rings.load(Ordering::Relaxed),
            spare: cells.spare.load(Ordering::Relaxed),
            framings: cells.framings.load(Ordering::Relaxed),
            reassembly: cells.reassembly.load(Ordering::Relaxed),
        })
    }

    /// What all workers hold together.
    pub fn held(&self) -> Held {
        self.each().fold(Held::default(), |sum, held| Held {
            rings: sum.rings + held.rings,
            spare: sum.spare + held.spare,
            framings: sum.framings + held.framings,
            reassembly: sum.reassembly + held.reassembly,
        })
    }
}

/// Which limit on connections is reached.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// That of the process.
    Connections,
    /// That of the address.
    OfAddress,
}

/// Open connections, in total and per address. Its lock is taken at accept and at close.
#[derive(Debug)]
pub struct Addresses {
    open: AtomicUsize,
    /// As many as there are descriptors for.
    descriptors_max: AtomicUsize,
    counts: Mutex<HashMap<IpAddr, u32>>,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            descriptors_max: AtomicUsize::new(usize::MAX),
            counts: Mutex::default(),
        }
    }
}

impl Addresses {
    /// Admits no more than there are descriptors for: what is left is for everything else, and who comes
    /// then is told so instead of waiting for an accept that fails.
    pub fn set_descriptors_max(&self, descriptors_max: usize) {
        self.descriptors_max.store(descriptors_max, Ordering::Relaxed);
    }

    /// Counts a new connection unless the process has `max` or the address has
    /// `per_address_max` (0 is no limit).
    ///
    /// # Errors
    /// Which of the two is reached; then nothing was counted.
    pub fn admit(&self, address: IpAddr, max: usize, per_address_max: u32) -> Result<(), TooMany> {
        let max = max.min(self.descriptors_max.load(Ordering::Relaxed));
        if self.open.fetch_add(1, Ordering::Relaxed) >= max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(TooMany::Connections);
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_insert(0);
        if per_address_max > 0 && *count >= per_address_max {
            drop(counts);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(TooMany::OfAddress);
        }
        *count += 1;
        Ok(())
    }

    /// Connections counted now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A counted connection has ended.
    pub fn release(&self, address: IpAddr) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_address_is_refused_above_its_limit_and_admitted_again_after_a_release() {
        let addresses = Addresses::default();
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(addresses.admit(peer, 10, 2), Ok(()));
        assert_eq!(addresses.admit(peer, 10, 2), Ok(()));
        assert_eq!(addresses.admit(peer, 10, 2), Err(TooMany::OfAddress));
        assert_eq!(addresses.admit(other, 10, 2), Ok(()));
        addresses.release(peer);
        assert_eq!(addresses.admit(peer, 10, 2), Ok(()));
    }

    #[test]
    fn the_total_is_limited_whatever_the_addresses() {
        let addresses = Addresses::default();
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(addresses.admit(peer, 1, 0), Ok(()));
        assert_eq!(addresses.admit(peer, 1, 0), Err(TooMany::Connections));
        addresses.release(peer);
        assert_eq!(addresses.admit(peer, 1, 0), Ok(()));
    }
}
