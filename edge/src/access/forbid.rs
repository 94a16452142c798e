//! Streams and addresses that are shut out, for a while or until somebody lets them in again.
//!
//! A forbid names a stream (as the registry knows it: push domain, app, name) or an address or network. It
//! ends by itself at `until_s` to the second, because every decision compares; the control thread clears
//! what has ended away afterwards. Kept in the store, so it survives a restart. Cutting those who publish
//! or play at that moment is the control thread's second step, not this file's.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use live::path::StreamPath;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Denial, DenyReason, Role};

/// Forbids at one time.
pub const FORBIDS_MAX: usize = 10_000;
/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Sub code of the failure map: stream forbidden.
const EVENT_CODE_FORBIDDEN: u16 = 305;

/// An address, or all addresses with the same first bits.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Network {
    /// The address, its further bits 0.
    address: IpAddr,
    /// How many bits count.
    bits: u8,
}

impl Network {
    /// The network of `bits` that holds `address`. IPv4 written as IPv6 counts as IPv4.
    fn of(address: IpAddr, bits: u8) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        };
        Self { address, bits }
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::of(address, self.bits) == *self
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is neither an address nor ADDRESS/BITS");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| bad())?;
        let address = address.to_canonical();
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => {
                bits.trim().parse().ok().filter(|bits| *bits <= bits_max).ok_or_else(bad)?
            }
            None => bits_max,
        };
        Ok(Self::of(address, bits))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits_max = if self.address.is_ipv4() { 32 } else { 128 };
        write!(f, "{}", self.address)?;
        if self.bits == bits_max { Ok(()) } else { write!(f, "/{}", self.bits) }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who is shut out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// One stream.
    Stream(StreamPath),
    /// One address or network, on all domains.
    Address(Network),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(path) => write!(f, "stream:{path}"),
            Self::Address(network) => write!(f, "address:{network}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("stream", path)) => path
                .parse()
                .map(Self::Stream)
                .map_err(|error: live::path::PathError| format!("{path:?}: {error}")),
            Some(("address", network)) => network.parse().map(Self::Address),
            _ => Err("expected stream:DOMAIN/APP/NAME or address:ADDRESS".to_owned()),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What is shut out of a stream or for an address.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Publishing.
    #[default]
    Publish,
    /// Playing.
    Play,
    /// Both.
    All,
}

impl Scope {
    /// Whether it covers a role.
    pub fn covers(self, role: Role) -> bool {
        matches!(
            (self, role),
            (Self::All, _) | (Self::Publish, Role::Publish) | (Self::Play, Role::Play)
        )
    }
}

/// One forbid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forbid {
    /// What is shut out.
    pub scope: Scope,
    /// When it ends by itself, in Unix seconds; `None` lasts until it is lifted.
    pub until_s: Option<u64>,
    /// Since when, in Unix seconds.
    pub since_s: u64,
    /// Why, for operators. Not told to peers.
    pub reason: String,
}

impl Forbid {
    /// Whether it has not ended yet.
    pub fn is_active(&self, unix_s: u64) -> bool {
        self.until_s.is_none_or(|until_s| unix_s < until_s)
    }
}

/// All forbids, arranged for looking up.
#[derive(Clone, Debug, Default)]
pub struct Forbids {
    streams: HashMap<StreamPath, Forbid>,
    networks: HashMap<Network, Forbid>,
    /// Lengths that occur among the networks, by family: one lookup each.
    bits: BTreeSet<(bool, u8)>,
}

impl Forbids {
    /// Arranges them.
    pub fn new(all: impl IntoIterator<Item = (Target, Forbid)>) -> Self {
        let mut forbids = Self::default();
        for (target, forbid) in all {
            match target {
                Target::Stream(path) => drop(forbids.streams.insert(path, forbid)),
                Target::Address(network) => {
                    forbids.bits.insert((network.address.is_ipv4(), network.bits));
                    forbids.networks.insert(network, forbid);
                }
            }
        }
        forbids
    }

    /// Whether this stream is shut out now.
    pub fn check_stream(&self, path: &StreamPath, role: Role, unix_s: u64) -> Option<Denial> {
        let forbid = self.streams.get(path)?;
        denial("this stream is forbidden", forbid, role, unix_s)
    }

    /// Whether this address is shut out now.
    pub fn check_address(&self, peer: IpAddr, role: Role, unix_s: u64) -> Option<Denial> {
        let peer = peer.to_canonical();
        self.bits.iter().filter(|(is_ipv4, _)| *is_ipv4 == peer.is_ipv4()).find_map(|(_, bits)| {
            let forbid = self.networks.get(&Network::of(peer, *bits))?;
            denial("this address is forbidden", forbid, role, unix_s)
        })
    }
}

fn denial(text: &str, forbid: &Forbid, role: Role, unix_s: u64) -> Option<Denial> {
    if !forbid.scope.covers(role) || !forbid.is_active(unix_s) {
        return None;
    }
    let text = match forbid.until_s {
        Some(until_s) => format!("{text} until {}", utc_text(until_s)),
        None => text.to_owned(),
    };
    Some(Denial::new(DenyReason::Forbidden, EVENT_CODE_FORBIDDEN, text))
}

/// A time as `YYYY-MM-DDTHH:MM:SSZ`.
pub fn utc_text(unix_s: u64) -> String {
    let (days, of_day) = (unix_s / 86_400, unix_s % 86_400);
    // Years of 400 years have the same number of days; counted from 1 March, the leap day is last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbid(scope: Scope, until_s: Option<u64>) -> Forbid {
        Forbid { scope, until_s, since_s: 0, reason: "court order 7".into() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_forbid_ends_to_the_second_and_says_when_but_not_why() {
        let path: StreamPath = "push.example.com/live/cam".parse().unwrap();
        let all = [(Target::Stream(path.clone()), forbid(Scope::Publish, Some(1_609_430_400)))];
        let forbids = Forbids::new(all);
        let denial = forbids.check_stream(&path, Role::Publish, 1_609_430_399).unwrap();
        assert_eq!(denial.text, "this stream is forbidden until 2020-12-31T16:00:00Z");
        assert_eq!((denial.reason, denial.event_code), (DenyReason::Forbidden, 305));
        assert_eq!(forbids.check_stream(&path, Role::Publish, 1_609_430_400), None);
        assert_eq!(forbids.check_stream(&path, Role::Play, 0), None, "players are not meant");
        let other: StreamPath = "push.example.com/live/cam2".parse().unwrap();
        assert_eq!(forbids.check_stream(&other, Role::Publish, 0), None);
    }

    #[test]
    fn addresses_are_found_by_every_network_that_holds_them() {
        let forbids = Forbids::new([
            (Target::Address("10.1.0.0/16".parse().unwrap()), forbid(Scope::All, None)),
            (Target::Address("192.0.2.7".parse().unwrap()), forbid(Scope::Play, None)),
            (Target::Address("2001:db8::/32".parse().unwrap()), forbid(Scope::All, Some(10))),
        ]);
        for (address, role, unix_s, expected) in [
            ("10.1.255.3", Role::Publish, 0, true),
            ("::ffff:10.1.0.1", Role::Play, 0, true),
            ("10.2.0.1", Role::Publish, 0, false),
            ("192.0.2.7", Role::Play, 0, true),
            ("192.0.2.7", Role::Publish, 0, false),
            ("192.0.2.8", Role::Play, 0, false),
            ("2001:db8:1::1", Role::Play, 9, true),
            ("2001:db8:1::1", Role::Play, 10, false),
            ("2001:db9::1", Role::Play, 0, false),
        ] {
            let is = forbids.check_address(ip(address), role, unix_s).is_some();
            assert_eq!(is, expected, "{address} {role:?} {unix_s}");
        }
    }

    #[test]
    fn targets_read_back_as_they_are_written() {
        for text in [
            "stream:push.example.com/a/b/cam:1",
            "stream:::1/live/cam",
            "address:10.0.0.0/8",
            "address:::1",
            "address:0.0.0.0/0",
            "address:::/0",
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        assert_eq!("10.9.9.9/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
        for bad in ["", "stream:cam", "address:x", "address:10.0.0.0/33", "address:::/129", "cam"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_written_as_utc() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_483_200_000, "2016-12-31T16:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc_text(unix_s), text);
        }
    }
}
