//! Lists of networks: who may ask at all.
//!
//! A denied network wins over an allowed one; an empty allow list allows everybody who is not denied. An
//! IPv4 address that arrives inside IPv6 (`::ffff:192.0.2.1`) is taken as IPv4.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::{DenyReason, Pass, Verdict, denied};

/// An address, or all that begin like it: `192.0.2.0/24`, `2001:db8::/32`, `192.0.2.7`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Network {
    first: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()) & mask_v4(self.prefix_bits) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()) & mask_v6(self.prefix_bits) == 0
            }
            _ => false,
        }
    }
}

fn mask_v4(prefix_bits: u8) -> u32 {
    !u32::MAX.checked_shr(prefix_bits.into()).unwrap_or(0)
}

fn mask_v6(prefix_bits: u8) -> u128 {
    !u128::MAX.checked_shr(prefix_bits.into()).unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    /// Refuses bits behind the prefix, which are a slip in one part or the other, and says what was
    /// probably meant.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let bad = || format!("\"{text}\" is not an address or a network like 192.0.2.0/24");
        let written: IpAddr = address.parse().map_err(|_| bad())?;
        let bits_max: u8 = if written.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits_max,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| bad())?
            }
            Some(_) => return Err(bad()),
        };
        if prefix_bits > bits_max {
            return Err(format!("\"{text}\": the prefix has at most {bits_max} bits"));
        }
        let first: IpAddr = match written {
            IpAddr::V4(ip) => (ip.to_bits() & mask_v4(prefix_bits)).to_be_bytes().into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & mask_v6(prefix_bits)).into(),
        };
        if first != written {
            return Err(format!("\"{text}\": did you mean {first}/{prefix_bits} or {written}?"));
        }
        Ok(match (first, prefix_bits) {
            // The part of IPv6 that means IPv4.
            (IpAddr::V6(ip), 96..) if ip.to_ipv4_mapped().is_some() => {
                Self { first: first.to_canonical(), prefix_bits: prefix_bits - 96 }
            }
            _ => Self { first, prefix_bits },
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_bits)
    }
}

/// Who may and who may not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lists {
    /// Only these, if there are any.
    pub allow: Vec<Network>,
    /// Never these.
    pub deny: Vec<Network>,
}

impl Lists {
    /// Reads both lists.
    ///
    /// # Errors
    /// A phrase that names the entry.
    pub fn parse(allow: &[String], deny: &[String]) -> Result<Self, String> {
        let read = |list: &[String]| -> Result<Vec<Network>, String> {
            list.iter().map(|text| text.parse()).collect()
        };
        Ok(Self { allow: read(allow)?, deny: read(deny)? })
    }

    /// Whether a peer may ask.
    ///
    /// # Errors
    /// The refusal. It does not tell which list it was.
    pub fn check(&self, peer: IpAddr) -> Verdict {
        let within = |list: &[Network]| list.iter().any(|network| network.contains(peer));
        if within(&self.deny) || !(self.allow.is_empty() || within(&self.allow)) {
            return Err(denied(DenyReason::Ip, 0, "address not admitted"));
        }
        Ok(Pass::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(allow: &[&str], deny: &[&str], peer: &str) -> bool {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let lists = Lists::parse(&owned(allow), &owned(deny)).unwrap();
        let verdict = lists.check(peer.parse().unwrap());
        if let Err(denial) = &verdict {
            assert_eq!(denial.text, "denied by req auth: address not admitted");
            assert_eq!((denial.reason, denial.event_code), (DenyReason::Ip, 0));
        }
        verdict.is_ok()
    }

    #[test]
    fn deny_wins_over_allow_and_an_empty_allow_list_allows() {
        assert!(may(&[], &[], "192.0.2.7"));
        assert!(may(&[], &["192.0.2.0/24"], "192.0.3.0"));
        assert!(!may(&[], &["192.0.2.0/24"], "192.0.2.255"));
        assert!(!may(&["192.0.2.0/24"], &["192.0.2.7"], "192.0.2.7"));
        assert!(may(&["192.0.2.0/24"], &["192.0.2.7"], "192.0.2.8"));
        assert!(!may(&["192.0.2.0/24"], &[], "2001:db8::1"));
    }

    #[test]
    fn prefixes_of_every_length_hold_exactly_their_addresses() {
        for bits in 0..=32_u8 {
            let network = Network { first: [0, 0, 0, 0].into(), prefix_bits: bits };
            let last = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
            assert!(network.contains(IpAddr::from(last.to_be_bytes())), "/{bits}");
            if let Some(next) = last.checked_add(1) {
                assert!(!network.contains(IpAddr::from(next.to_be_bytes())), "/{bits}");
            }
        }
        for bits in 0..=128_u8 {
            let network = Network { first: Ipv6Addr::UNSPECIFIED.into(), prefix_bits: bits };
            // Below 2^48, so that no address is one of IPv4 in disguise.
            if bits >= 82 {
                let last = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
                assert!(network.contains(Ipv6Addr::from_bits(last).into()), "/{bits}");
                assert!(!network.contains(Ipv6Addr::from_bits(last + 1).into()), "/{bits}");
            }
        }
        assert!(may(&["::/0"], &[], "2001:db8::1") && !may(&["::/0"], &[], "192.0.2.1"));
    }

    #[test]
    fn ipv4_inside_ipv6_is_ipv4() {
        assert!(may(&["192.0.2.0/24"], &[], "::ffff:192.0.2.1"));
        assert!(may(&["::ffff:192.0.2.0/120"], &[], "192.0.2.1"));
        assert!(!may(&[], &["192.0.2.1"], "::ffff:192.0.2.1"));
    }

    #[test]
    fn a_slip_in_a_network_is_explained() {
        for (text, complaint) in [
            ("10.0.0.1/8", "did you mean 10.0.0.0/8 or 10.0.0.1?"),
            ("10.0.0.0/33", "at most 32 bits"),
            ("2001:db8::/129", "at most 128 bits"),
            ("10.0.0.0/", "not an address"),
            ("10.0.0.0/+8", "not an address"),
            ("10.0.0.0/999", "not an address"),
            ("10.0.0/8", "not an address"),
            ("example.com", "not an address"),
            ("", "not an address"),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
        assert_eq!("10.0.0.0/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
    }
}
