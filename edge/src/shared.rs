//! What the workers of one process share: the registry, each other's wakers, and the count of
//! connections per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::command::Wake;
use crate::hls::Hls;
use crate::registry::Registry;

/// Shared by all workers; nothing in it is touched for a media byte.
pub struct Shared {
    /// All streams.
    pub registry: Registry,
    /// Connections per address.
    pub addresses: Addresses,
    /// Streams cut for viewers over HTTP.
    pub hls: Hls,
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

/// Open connections, in total and per address. Its lock is taken at accept and at close.
#[derive(Debug, Default)]
pub struct Addresses {
    open: AtomicUsize,
    counts: Mutex<HashMap<IpAddr, u32>>,
}

impl Addresses {
    /// Counts a new connection unless the process has `max` or the address has
    /// `per_address_max` (0 is no limit). True if it was counted.
    pub fn admit(&self, address: IpAddr, max: usize, per_address_max: u32) -> bool {
        if self.open.fetch_add(1, Ordering::Relaxed) >= max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_insert(0);
        if per_address_max > 0 && *count >= per_address_max {
            drop(counts);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        *count += 1;
        true
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
        assert!(addresses.admit(peer, 10, 2));
        assert!(addresses.admit(peer, 10, 2));
        assert!(!addresses.admit(peer, 10, 2));
        assert!(addresses.admit(other, 10, 2));
        addresses.release(peer);
        assert!(addresses.admit(peer, 10, 2));
    }

    #[test]
    fn the_total_is_limited_whatever_the_addresses() {
        let addresses = Addresses::default();
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(addresses.admit(peer, 1, 0));
        assert!(!addresses.admit(peer, 1, 0));
        addresses.release(peer);
        assert!(addresses.admit(peer, 1, 0));
    }
}
