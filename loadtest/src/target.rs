//! Where the load goes: the server's addresses, the app, the names of the streams.
//!
//! Refuses addresses outside this machine unless told that the network is the operator's own. The
//! one place that knows schemes: another transport is one more [`Scheme`].

use crate::http::Format;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

/// How bytes get to the server.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Scheme {
    /// Plain TCP.
    Rtmp,
    /// TLS over TCP.
    Rtmps,
    /// HTTP/1.1, plain and over TLS.
    Http,
    Https,
    /// WebSocket, plain and over TLS.
    Ws,
    Wss,
}

impl Scheme {
    const ALL: [Scheme; 6] =
        [Scheme::Rtmp, Scheme::Rtmps, Scheme::Http, Scheme::Https, Scheme::Ws, Scheme::Wss];

    /// As it is written in front of an address.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Scheme::Rtmp => "rtmp",
            Scheme::Rtmps => "rtmps",
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        }
    }

    /// Everything is inside TLS.
    pub(crate) const fn is_tls(self) -> bool {
        matches!(self, Scheme::Rtmps | Scheme::Https | Scheme::Wss)
    }

    /// It begins with a request of HTTP: for players, not for publishers.
    pub(crate) const fn is_http(self) -> bool {
        !matches!(self, Scheme::Rtmp | Scheme::Rtmps)
    }

    /// It goes on as WebSocket.
    pub(crate) const fn is_websocket(self) -> bool {
        matches!(self, Scheme::Ws | Scheme::Wss)
    }

    /// The port an address means that names none.
    const fn port(self) -> u16 {
        match self {
            Scheme::Rtmp => 1935,
            Scheme::Http | Scheme::Ws => 80,
            Scheme::Rtmps | Scheme::Https | Scheme::Wss => 443,
        }
    }
}

/// A server, and what to ask of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// `host:port` as written, for `tcUrl`.
    pub(crate) authority: String,
    /// Host as written, without port and brackets: whom a certificate must name.
    pub(crate) host: String,
    /// Addresses that reach the server; connections take them in turn. Never empty.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Addresses of ours that connections come from, in turn; empty: the system chooses.
    pub(crate) sources: Vec<IpAddr>,
    /// Of RTMP; of HTTP the folder.
    pub(crate) app: String,
    /// Name of the stream, or what the names of several start with, and the ending of its address over
    /// HTTP. Query included.
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

/// The stream name when the address has none.
const NAME: &str = "swarm";
/// Most addresses a target is spread over.
pub(crate) const ADDRESSES_MAX: u32 = 65_536;

impl Target {
    /// Takes `rtmp://HOST[:PORT]/APP[/NAME]` or `http://HOST[:PORT]/APP/NAME.flv` apart and looks the
    /// host up.
    ///
    /// # Errors
    /// Not such an address, no such host, or not on this machine and not `own_network`.
    pub(crate) fn parse(url: &str, own_network: bool) -> Result<Target, TargetError> {
        let error = |what: &str| TargetError(format!("{url}: {what}"));
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| error("expected rtmp://HOST[:PORT]/APP[/NAME]"))?;
        let scheme = Scheme::ALL.into_iter().find(|one| one.text() == scheme);
        let scheme = scheme
            .ok_or_else(|| error("unknown scheme; use rtmp, rtmps, http, https, ws or wss"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (app, name) = match scheme.is_http() {
            true => folder_and_file(path),
            false => path.split_once('/').unwrap_or((path, "")),
        };
        if scheme.is_http() && (authority.is_empty() || name.is_empty()) {
            return Err(error("expected http://HOST[:PORT]/APP/NAME.flv, .mp4 or .m3u8"));
        }
        if !scheme.is_http() && (authority.is_empty() || app.is_empty()) {
            return Err(error("expected rtmp://HOST[:PORT]/APP[/NAME]"));
        }
        let (host, port) = host_and_port(authority, scheme);
        let addresses = resolve(host, port).map_err(|cause| error(&cause))?;
        if !own_network && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(error(
                "not an address of this machine; add --i-own-this-network if you may load it",
            ));
        }
        let name = if name.is_empty() { NAME } else { name };
        Ok(Target {
            scheme,
            authority: authority.into(),
            host: host.into(),
            addresses,
            sources: Vec::new(),
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

    /// Lets connections come from these addresses in turn, `A`, `A-B` or several of them with commas
    /// between: each has a range of ports of its own.
    ///
    /// # Errors
    /// Not such a list, too many, or not of the family of the server's address.
    pub(crate) fn come_from(&mut self, list: &str) -> Result<(), TargetError> {
        let error = |what: &str| TargetError(format!("--sources {list}: {what}"));
        let mut sources = Vec::new();
        for part in list.split(',') {
            let range = part.split_once('-').unwrap_or((part, part));
            let parse = |text: &str| text.trim().parse::<IpAddr>();
            let (Ok(first), Ok(last)) = (parse(range.0), parse(range.1)) else {
                return Err(error("expected addresses like 127.0.0.1-127.0.0.50"));
            };
            sources.extend(between(first, last).ok_or_else(|| error("no range of addresses"))?);
            if sources.len() > ADDRESSES_MAX as usize {
                return Err(error("at most 65536 addresses"));
            }
        }
        let is_v4 = self.addresses[0].is_ipv4();
        if sources.iter().any(|source| source.is_ipv4() != is_v4) {
            return Err(error("not of the family of the server's address"));
        }
        self.sources = sources;
        Ok(())
    }

    /// Both ends of connection number `index`: where it comes from, if that is ours to say, and where
    /// it goes. All pairs come in turn.
    pub(crate) fn ends(&self, index: u64) -> (Option<IpAddr>, SocketAddr) {
        let nth = |of: u64, index: u64| usize::try_from(index % of.max(1)).unwrap_or(0);
        let count = self.addresses.len() as u64;
        let source = self.sources.get(nth(self.sources.len() as u64, index / count));
        (source.copied(), self.addresses[nth(count, index)])
    }

    /// The value of `tcUrl`.
    pub(crate) fn tc_url(&self) -> String {
        format!("{}://{}/{}", self.scheme.text(), self.authority, self.app)
    }

    /// The name of stream `index` among `count`: as given when it is the only one, else numbered,
    /// in front of ending and query if there are any.
    pub(crate) fn stream_name(&self, index: usize, count: usize) -> String {
        if count <= 1 {
            return self.name.clone();
        }
        let end = match self.name.find('?') {
            Some(query) => query,
            None => self.name.len(),
        };
        let has_ending = self.scheme.is_http() && self.format().is_some();
        let end = if has_ending { self.name[..end].rfind('.').unwrap_or(end) } else { end };
        let (name, rest) = self.name.split_at(end);
        format!("{name}-{index}{rest}")
    }

    /// The container of the stream, by the ending of its address over HTTP.
    pub(crate) fn format(&self) -> Option<Format> {
        Format::of_path(self.name.split('?').next().unwrap_or_default())
    }

    /// Path and query of stream `index` among `count` over HTTP.
    pub(crate) fn path(&self, index: usize, count: usize) -> String {
        let name = self.stream_name(index, count);
        if self.app.is_empty() { format!("/{name}") } else { format!("/{}/{name}", self.app) }
    }

    /// Where what is watched over HTTP is published unless told: RTMP on the same host.
    pub(crate) fn publish_url(&self) -> String {
        let name = self.name.split('?').next().unwrap_or_default();
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("rtmp://{host}/{}/{stem}", self.app)
    }
}

/// Takes the path of an address over HTTP apart; the file has the query.
fn folder_and_file(path: &str) -> (&str, &str) {
    let end = path.find('?').unwrap_or(path.len());
    match path[..end].rfind('/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => ("", path),
    }
}

/// Takes `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT` apart.
fn host_and_port(authority: &str, scheme: Scheme) -> (&str, u16) {
    let split = authority.rsplit_once(':').filter(|(host, _)| {
        // The colons of an address in brackets are no separators.
        !host.starts_with('[') || host.ends_with(']')
    });
    let (host, port) = split
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .unwrap_or((authority, scheme.port()));
    (host.trim_matches(['[', ']']), port)
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = (host, port).to_socket_addrs();
    let addresses: Vec<_> = found.map_err(|error| error.to_string())?.collect();
    // One server has one address unless it is spread: a name with two would halve what each gets.
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.map(|&address| vec![address]).ok_or_else(|| "the host has no address".into())
}

/// All addresses from one to another; `None` if they are none of one range, or too many.
fn between(first: IpAddr, last: IpAddr) -> Option<Vec<IpAddr>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let (first, last) = (first.to_bits(), last.to_bits());
            let count = last.checked_sub(first)?;
            (count < ADDRESSES_MAX)
                .then(|| (first..=last).map(|bits| Ipv4Addr::from_bits(bits).into()).collect())
        }
        (first, last) => (first == last).then(|| vec![first]),
    }
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
        assert_eq!(target.ends(0).1.port(), 1935);
        assert_eq!(target.stream_name(7, 9), "swarm-7");
        let v6 = Target::parse("rtmp://[::1]/live", false).unwrap();
        assert_eq!(v6.ends(3), (None, "[::1]:1935".parse().unwrap()));
        let secure = Target::parse("rtmps://[::1]:8443/live", false).unwrap();
        assert_eq!(secure.addresses, ["[::1]:8443".parse().unwrap()]);
        assert_eq!(
            (secure.host.as_str(), secure.tc_url()),
            ("::1", "rtmps://[::1]:8443/live".into())
        );
        assert_eq!(
            Target::parse("rtmps://127.0.0.1/live", false).unwrap().addresses[0].port(),
            443
        );
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
            ("ftp://127.0.0.1/live", "unknown scheme"),
            ("http://127.0.0.1/live/", "expected http://"),
            ("http://127.0.0.1", "expected http://"),
            ("127.0.0.1", "expected"),
            ("rtmp://127.0.0.1", "expected"),
            ("rtmp:///live", "expected"),
        ] {
            let error = Target::parse(url, false).unwrap_err();
            assert!(error.0.contains(word), "{url}: {error}");
        }
    }

    #[test]
    fn addresses_over_http_have_a_folder_a_name_and_an_ending() {
        let target = Target::parse("ws://localhost:8080/a/live/x.y.flv?k=/z.m3u8", false).unwrap();
        assert!(target.scheme.is_websocket() && target.scheme.is_http());
        assert_eq!((target.app.as_str(), target.format()), ("a/live", Some(Format::Flv)));
        assert_eq!(target.path(0, 1), "/a/live/x.y.flv?k=/z.m3u8");
        assert_eq!(target.path(3, 9), "/a/live/x.y-3.flv?k=/z.m3u8");
        assert_eq!(target.publish_url(), "rtmp://localhost/a/live/x.y");
        let bare = Target::parse("https://[::1]/x.m3u8", false).unwrap();
        assert_eq!((bare.path(0, 1).as_str(), bare.addresses[0].port()), ("/x.m3u8", 443));
        let other = Target::parse("http://127.0.0.1/a/file.bin", false).unwrap();
        assert_eq!((other.format(), other.path(1, 2).as_str()), (None, "/a/file.bin-1"));
    }

    #[test]
    fn a_spread_target_takes_addresses_in_turn_and_stays_on_loopback() {
        let mut target = Target::parse("rtmp://127.0.0.1/live", false).unwrap();
        target.spread(3).unwrap();
        let ips: Vec<_> = (0..4).map(|index| target.ends(index).1.ip().to_string()).collect();
        assert_eq!(ips, ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]);
        let mut end = Target::parse("rtmp://127.255.255.254/live", false).unwrap();
        assert!(end.spread(3).is_err());
    }

    #[test]
    fn all_pairs_of_addresses_come_in_turn() {
        let mut target = Target::parse("rtmp://127.0.0.1/live", false).unwrap();
        target.spread(2).unwrap();
        target.come_from("127.0.1.1-127.0.1.2,127.0.9.9").unwrap();
        let pairs: std::collections::BTreeSet<_> = (0..6).map(|index| target.ends(index)).collect();
        assert_eq!(pairs.len(), 6);
        assert_eq!(target.ends(2).0, Some("127.0.1.2".parse().unwrap()));
        assert_eq!(target.ends(0), target.ends(6));
    }

    #[test]
    fn sources_are_addresses_of_the_servers_family() {
        let mut target = Target::parse("rtmp://127.0.0.1/live", false).unwrap();
        for list in ["", "127.0.0.9-127.0.0.1", "::1", "here", "127.0.0.1-127.9.9.9", "::1-::9"] {
            assert!(target.come_from(list).is_err(), "{list}");
        }
        let mut v6 = Target::parse("rtmp://[::1]/live", false).unwrap();
        v6.come_from("::1").unwrap();
        assert_eq!(v6.ends(5).0, Some("::1".parse().unwrap()));
    }
}
