//! Where the load goes: the server's addresses, the app, the names of the streams.
//!
//! Refuses addresses outside this machine unless told that the network is the operator's own. The
//! one place that knows schemes: another transport is one more [`Scheme`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

/// How bytes get to the server.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Scheme {
    /// Plain TCP.
    Rtmp,
}

/// A server, and what to ask of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// `host:port` as written, for `tcUrl`.
    pub(crate) authority: String,
    /// Addresses that reach the server; connections take them in turn. Never empty.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) app: String,
    /// Name of the stream, or what the names of several start with. Query included.
    pub(crate) name: String,
}

/// Why a target cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TargetError(pub(crate) String);

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What `rtmp://` means without a port.
const RTMP_PORT: u16 = 1935;
/// The stream name when the address has none.
const NAME: &str = "swarm";
/// Most addresses a target is spread over.
pub(crate) const ADDRESSES_MAX: u32 = 65_536;

impl Target {
    /// Takes `rtmp://HOST[:PORT]/APP[/NAME]` apart and looks the host up.
    ///
    /// # Errors
    /// Not such an address, no such host, or not on this machine and not `own_network`.
    pub(crate) fn parse(url: &str, own_network: bool) -> Result<Target, TargetError> {
        let error = |what: &str| TargetError(format!("{url}: {what}"));
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| error("expected rtmp://HOST[:PORT]/APP[/NAME]"))?;
        let scheme = match scheme {
            "rtmp" => Scheme::Rtmp,
            "rtmps" => return Err(error("rtmps is not in this version; use rtmp")),
            _ => return Err(error("unknown scheme; use rtmp")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (app, name) = path.split_once('/').unwrap_or((path, ""));
        if authority.is_empty() || app.is_empty() {
            return Err(error("expected rtmp://HOST[:PORT]/APP[/NAME]"));
        }
        let addresses = resolve(authority).map_err(|cause| error(&cause))?;
        if !own_network && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(error(
                "not an address of this machine; add --i-own-this-network if you may load it",
            ));
        }
        let name = if name.is_empty() { NAME } else { name };
        Ok(Target {
            scheme,
            authority: authority.into(),
            addresses,
            app: app.into(),
            name: name.into(),
        })
    }

    /// Connects to `count` consecutive addresses in turn, from the one given on: each has all the
    /// ports of the client side for itself. For servers that listen on all of 127.0.0.0/8.
    ///
    /// # Errors
    /// The server is not on an IPv4 loopback address, or the range leaves 127.0.0.0/8.
    pub(crate) fn spread(&mut self, count: u32) -> Result<(), TargetError> {
        let error = |what: &str| TargetError(format!("--spread {count}: {what}"));
        if count <= 1 {
            return Ok(());
        }
        let first = self.addresses[0];
        let IpAddr::V4(ip) = first.ip() else { return Err(error("needs an IPv4 address")) };
        if !ip.is_loopback() || count > ADDRESSES_MAX {
            return Err(error("needs an address in 127.0.0.0/8 and at most 65536 of them"));
        }
        let last = ip.to_bits().saturating_add(count - 1);
        if !Ipv4Addr::from_bits(last).is_loopback() {
            return Err(error("the range leaves 127.0.0.0/8"));
        }
        let addresses = ip.to_bits()..=last;
        self.addresses = addresses
            .map(|bits| SocketAddr::new(Ipv4Addr::from_bits(bits).into(), first.port()))
            .collect();
        Ok(())
    }

    /// The address of connection number `index`.
    pub(crate) fn address(&self, index: u64) -> SocketAddr {
        let count = self.addresses.len() as u64;
        self.addresses[usize::try_from(index % count).unwrap_or(0)]
    }

    /// The value of `tcUrl`.
    pub(crate) fn tc_url(&self) -> String {
        let Scheme::Rtmp = self.scheme;
        format!("rtmp://{}/{}", self.authority, self.app)
    }

    /// The name of stream `index` among `count`: as given when it is the only one, else numbered,
    /// in front of the query if there is one.
    pub(crate) fn stream_name(&self, index: usize, count: usize) -> String {
        if count <= 1 {
            return self.name.clone();
        }
        match self.name.split_once('?') {
            Some((name, query)) => format!("{name}-{index}?{query}"),
            None => format!("{}-{index}", self.name),
        }
    }
}

fn resolve(authority: &str) -> Result<Vec<SocketAddr>, String> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let found = if has_port {
        authority.to_socket_addrs()
    } else {
        (authority.trim_matches(['[', ']']), RTMP_PORT).to_socket_addrs()
    };
    let addresses: Vec<_> = found.map_err(|error| error.to_string())?.collect();
    // One server has one address unless it is spread: a name with two would halve what each gets.
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.map(|&address| vec![address]).ok_or_else(|| "the host has no address".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let target = Target::parse("rtmp://127.0.0.1:1936/live/a/b?k=v", false).unwrap();
        assert_eq!(target.addresses, ["127.0.0.1:1936".parse().unwrap()]);
        assert_eq!(target.tc_url(), "rtmp://127.0.0.1:1936/live");
        assert_eq!((target.app.as_str(), target.name.as_str()), ("live", "a/b?k=v"));
        assert_eq!(target.stream_name(0, 1), "a/b?k=v");
        assert_eq!(target.stream_name(2, 3), "a/b-2?k=v");
    }

    #[test]
    fn port_and_name_have_defaults() {
        let target = Target::parse("rtmp://127.0.0.1/live", false).unwrap();
        assert_eq!(target.address(0).port(), 1935);
        assert_eq!(target.stream_name(7, 9), "swarm-7");
        let v6 = Target::parse("rtmp://[::1]/live", false).unwrap();
        assert_eq!(v6.address(3), "[::1]:1935".parse().unwrap());
    }

    #[test]
    fn other_machines_are_refused_unless_they_are_ours() {
        let url = "rtmp://192.0.2.1/live";
        assert!(Target::parse(url, false).unwrap_err().0.contains("--i-own-this-network"));
        assert!(Target::parse(url, true).is_ok());
    }

    #[test]
    fn what_is_not_there_yet_is_said_clearly() {
        for (url, word) in [
            ("rtmps://127.0.0.1/live", "not in this version"),
            ("http://127.0.0.1/live", "unknown scheme"),
            ("127.0.0.1", "expected"),
            ("rtmp://127.0.0.1", "expected"),
            ("rtmp:///live", "expected"),
        ] {
            let error = Target::parse(url, false).unwrap_err();
            assert!(error.0.contains(word), "{url}: {error}");
        }
    }

    #[test]
    fn a_spread_target_takes_addresses_in_turn_and_stays_on_loopback() {
        let mut target = Target::parse("rtmp://127.0.0.1/live", false).unwrap();
        target.spread(3).unwrap();
        let ips: Vec<_> = (0..4).map(|index| target.address(index).ip().to_string()).collect();
        assert_eq!(ips, ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]);
        let mut end = Target::parse("rtmp://127.255.255.254/live", false).unwrap();
        assert!(end.spread(3).is_err());
    }
}
