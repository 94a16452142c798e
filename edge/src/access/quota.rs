//! What a domain may hold at one time, counted across all workers.
//!
//! A [`Place`] is taken when a publish or play is allowed and given back when it is dropped, wherever that
//! happens: the connection holds it inside its grant. [`Counters`] live as long as anybody holds a place,
//! so a new snapshot of the rules, or a domain deleted and made again, never forgets who is still there.
//! Publishers and players are counted by atomics. Connections per address need a table; its short lock is
//! taken only in domains that limit them, once per publish, play or end, never for media.
//! The table has an entry per address that holds a place: connections bound it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Role;

/// Parts of the address table, so that workers seldom meet at one lock.
const ADDRESS_SHARDS: usize = 16;
/// Shortest time over which a bit rate is averaged, in milliseconds: longer than the keyframe burst of an
/// ordinary encoder.
pub const BITRATE_WINDOW_MS: u64 = 2_000;

/// Quotas of a domain; 0 means no limit.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Publishers at one time.
    pub publishers_max: u32,
    /// Players at one time.
    pub subscribers_max: u32,
    /// Publishes and plays of one address at one time.
    pub connections_per_address_max: u32,
}

/// Which quota is used up.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Exceeded {
    /// [`Limits::publishers_max`].
    Publishers,
    /// [`Limits::subscribers_max`].
    Subscribers,
    /// [`Limits::connections_per_address_max`].
    Address,
}

/// Who is in a domain now.
#[derive(Debug, Default)]
pub struct Counters {
    publishers: AtomicU32,
    subscribers: AtomicU32,
    addresses: [Mutex<HashMap<IpAddr, u32>>; ADDRESS_SHARDS],
}

impl Counters {
    /// Publishers now, those about to replace another included.
    pub fn publishers(&self) -> u32 {
        self.publishers.load(Ordering::Relaxed)
    }

    /// Players now.
    pub fn subscribers(&self) -> u32 {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// Takes a place, and tells whether the publishers are more than allowed now, which only
    /// `may_replace` permits.
    ///
    /// # Errors
    /// The quota that is used up; then nothing was taken.
    pub fn take(
        self: &Arc<Self>,
        role: Role,
        peer: IpAddr,
        limits: &Limits,
        may_replace: bool,
    ) -> Result<(Place, bool), Exceeded> {
        let (count, max, exceeded) = match role {
            Role::Publish => (&self.publishers, limits.publishers_max, Exceeded::Publishers),
            Role::Play => (&self.subscribers, limits.subscribers_max, Exceeded::Subscribers),
        };
        let before = count.fetch_add(1, Ordering::Relaxed);
        // From here on the place is given back by its drop, also on the error paths.
        let mut place = Place { counters: Arc::clone(self), role, address: None };
        let is_over = max != 0 && before >= max;
        if is_over && !(may_replace && role == Role::Publish) {
            return Err(exceeded);
        }
        if limits.connections_per_address_max != 0 {
            let mut addresses = self.shard(peer);
            let of_address = addresses.entry(peer).or_insert(0);
            if *of_address >= limits.connections_per_address_max {
                return Err(Exceeded::Address);
            }
            *of_address += 1;
            place.address = Some(peer);
        }
        Ok((place, is_over))
    }

    fn shard(&self, peer: IpAddr) -> std::sync::MutexGuard<'_, HashMap<IpAddr, u32>> {
        let last = match peer {
            IpAddr::V4(ip) => ip.octets()[3],
            // The last octets of IPv6 hosts behind one router are the ones that differ.
            IpAddr::V6(ip) => ip.octets()[15],
        };
        let shard = &self.addresses[usize::from(last) % ADDRESS_SHARDS];
        // Only map operations run under this lock.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One taken place; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    counters: Arc<Counters>,
    role: Role,
    /// Set when the address was counted.
    address: Option<IpAddr>,
}

impl Place {
    /// Whether it is one of these.
    pub(crate) fn is_of(&self, counters: &Arc<Counters>) -> bool {
        Arc::ptr_eq(&self.counters, counters)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let count = match self.role {
            Role::Publish => &self.counters.publishers,
            Role::Play => &self.counters.subscribers,
        };
        count.fetch_sub(1, Ordering::Relaxed);
        let Some(peer) = self.address else { return };
        let mut addresses = self.counters.shard(peer);
        if let Some(of_address) = addresses.get_mut(&peer) {
            *of_address -= 1;
            if *of_address == 0 {
                addresses.remove(&peer);
            }
        }
    }
}

/// What a publisher's bit rate calls for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum BitrateVerdict {
    /// Nothing.
    Fine,
    /// It has gone over the limit: say so, once per time it does.
    Warn {
        /// Measured bits per second.
        bps: u64,
    },
    /// It stayed over the limit too long: close it.
    Cut {
        /// Measured bits per second.
        bps: u64,
    },
}

/// Watches the bit rate of one publisher: warns at the first window over the limit, and asks to cut once
/// it has been over it for `cut_ms` without a window below.
#[derive(Copy, Clone, Debug)]
pub struct BitrateMeter {
    bps_max: u64,
    cut_ms: u64,
    window_began_ms: u64,
    bytes_at_begin: u64,
    over_since_ms: Option<u64>,
}

impl BitrateMeter {
    /// A meter that starts now.
    pub fn new(bps_max: u64, cut_ms: u64, now_ms: u64, bytes_total: u64) -> Self {
        let (window_began_ms, bytes_at_begin) = (now_ms, bytes_total);
        Self { bps_max, cut_ms, window_began_ms, bytes_at_begin, over_since_ms: None }
    }

    /// Looks at the total of bytes received so far. Call as often as convenient, at least every few
    /// seconds.
    pub fn note(&mut self, now_ms: u64, bytes_total: u64) -> BitrateVerdict {
        let window_ms = now_ms.saturating_sub(self.window_began_ms);
        if window_ms < BITRATE_WINDOW_MS {
            return BitrateVerdict::Fine;
        }
        let bytes = bytes_total.saturating_sub(self.bytes_at_begin);
        let bps = bytes.saturating_mul(8_000) / window_ms;
        let began_ms = std::mem::replace(&mut self.window_began_ms, now_ms);
        self.bytes_at_begin = bytes_total;
        if bps <= self.bps_max {
            self.over_since_ms = None;
            return BitrateVerdict::Fine;
        }
        let is_first = self.over_since_ms.is_none();
        let since_ms = *self.over_since_ms.get_or_insert(began_ms);
        // However late the look: nobody is cut who was not warned.
        if is_first {
            BitrateVerdict::Warn { bps }
        } else if now_ms - since_ms >= self.cut_ms {
            BitrateVerdict::Cut { bps }
        } else {
            BitrateVerdict::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let counters = Arc::new(Counters::default());
        let limits = Limits { publishers_max: 1, subscribers_max: 2, ..Limits::default() };
        let first = counters.take(Role::Publish, ip(1), &limits, false).unwrap();
        let refused = counters.take(Role::Publish, ip(2), &limits, false);
        assert_eq!(refused.unwrap_err(), Exceeded::Publishers);
        assert_eq!(counters.publishers(), 1, "a refusal takes nothing");
        drop(first);
        assert_eq!(counters.publishers(), 0);
        assert!(counters.take(Role::Publish, ip(2), &limits, false).is_ok());
        let players = [1, 2].map(|n| counters.take(Role::Play, ip(n), &limits, false).unwrap());
        let refused = counters.take(Role::Play, ip(3), &limits, true);
        assert_eq!(refused.unwrap_err(), Exceeded::Subscribers, "players replace nobody");
        drop(players);
    }

    #[test]
    fn one_who_may_replace_is_let_in_and_marked() {
        let counters = Arc::new(Counters::default());
        let limits = Limits { publishers_max: 1, ..Limits::default() };
        let (_old, over) = counters.take(Role::Publish, ip(1), &limits, true).unwrap();
        assert!(!over);
        let (_new, over) = counters.take(Role::Publish, ip(1), &limits, true).unwrap();
        assert!(over);
    }

    #[test]
    fn an_address_is_counted_over_both_roles_and_forgotten_with_its_last_place() {
        let counters = Arc::new(Counters::default());
        let limits = Limits { connections_per_address_max: 2, ..Limits::default() };
        let publisher = counters.take(Role::Publish, ip(1), &limits, false).unwrap();
        let player = counters.take(Role::Play, ip(1), &limits, false).unwrap();
        let refused = counters.take(Role::Play, ip(1), &limits, false);
        assert_eq!(refused.unwrap_err(), Exceeded::Address);
        assert_eq!(counters.subscribers(), 1, "the refused player gave its place back");
        assert!(counters.take(Role::Play, ip(17), &limits, false).is_ok(), "another of the shard");
        drop((publisher, player));
        assert!(counters.addresses.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn counts_are_right_after_many_threads_took_and_dropped_places() {
        let counters = Arc::new(Counters::default());
        let limits =
            Limits { subscribers_max: 50, connections_per_address_max: 9, publishers_max: 0 };
        std::thread::scope(|scope| {
            for n in 0..4 {
                let counters = &counters;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for i in 0..2_000 {
                        held.extend(counters.take(Role::Play, ip(n), &limits, false));
                        if i % 3 == 0 {
                            held.pop();
                        }
                    }
                });
            }
        });
        assert_eq!(counters.subscribers(), 0);
        assert!(counters.addresses.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_publisher_over_its_rate_is_warned_once_then_cut() {
        let mut meter = BitrateMeter::new(1_000_000, 6_000, 10_000, 500);
        let mut bytes = 500;
        let mut told = Vec::new();
        for tick in 1..=8 {
            bytes += 150_000; // 1.2 Mbit/s in each second
            told.push(meter.note(10_000 + tick * 1_000, bytes));
        }
        assert_eq!(told[0], BitrateVerdict::Fine, "the first window is not over");
        assert_eq!(told[1], BitrateVerdict::Warn { bps: 1_200_000 });
        assert_eq!(told[3], BitrateVerdict::Fine, "warned already");
        assert_eq!(told[5], BitrateVerdict::Cut { bps: 1_200_000 });
    }

    #[test]
    fn a_window_below_the_rate_forgives() {
        let mut meter = BitrateMeter::new(8_000, 4_000, 0, 0);
        assert!(matches!(meter.note(2_000, 4_000), BitrateVerdict::Warn { .. }));
        assert_eq!(meter.note(4_000, 5_000), BitrateVerdict::Fine);
        assert!(matches!(meter.note(6_000, 9_000), BitrateVerdict::Warn { .. }));
    }
}
