//! The front door: who is really calling, and in which protocol. First bytes decide.
//!
//! ```text
//!   accepted ─► [PROXY header of a trusted peer] ─► first byte ─┬─ 0x16  TLS ─► first plaintext byte
//!                                                               ├─ A..Z  HTTP
//!                                                               └─ other RTMP (its session judges)
//! ```
//!
//! Sans-IO and bounded: at most [`PROXY_BYTES_MAX`] bytes are ever held, and [`Step::More`] says how many
//! bytes may be read next without reading beyond the PROXY header, so that a TLS record behind it stays in
//! the kernel. A PROXY header of an untrusted peer is never believed: it is an error that says so.
//!
//! PROXY protocol: HAProxy's `proxy-protocol.txt`, versions 1 and 2.

use std::fmt;
use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult, v1, v2};

/// Longest PROXY header taken, in bytes: 16 and 520 more hold any address with the usual TLVs.
pub(crate) const PROXY_BYTES_MAX: usize = 536;
/// Bytes of the first read where no more than a TLS record header may be taken. Also what tells a PROXY
/// header from anything else.
pub(crate) const FIRST_BYTES: usize = 5;
/// Shortest version 1 line: `PROXY UNKNOWN\r\n`.
const V1_BYTES_MIN: usize = 15;
/// Longest version 1 line, CRLF included.
const V1_BYTES_MAX: usize = 107;
/// Fixed part of version 2; its last two bytes are the length of the rest.
const V2_HEAD_BYTES: usize = 16;
const V1_PREFIX: &[u8] = b"PROXY";
const V2_PREFIX: &[u8] = b"\r\n\r\n\0";

/// What a peer speaks.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// A TLS record of type handshake.
    Tls,
    /// An HTTP method.
    Http,
    /// RTMP, or something its session will refuse.
    Rtmp,
}

impl Protocol {
    /// Told by the first byte.
    pub(crate) fn of(first: u8) -> Self {
        match first {
            0x16 => Self::Tls,
            b'A'..=b'Z' => Self::Http,
            _ => Self::Rtmp,
        }
    }
}

/// What is to be done after some first bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Not decided: so many bytes more may be read.
    More(usize),
    /// Decided. `rest` is what follows the PROXY header, at least one byte.
    Decided {
        /// By the first byte of `rest`.
        protocol: Protocol,
        /// Bytes for that protocol.
        rest: Vec<u8>,
    },
}

/// A PROXY header that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BadProxyHeader(String);

impl fmt::Display for BadProxyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PROXY header: {}", self.0)
    }
}

/// The state of one connection at the front door.
#[derive(Debug)]
pub(crate) struct FrontDoor {
    taken: Vec<u8>,
    is_trusted: bool,
    has_header: bool,
    client: Option<SocketAddr>,
}

impl FrontDoor {
    /// `is_trusted`: the peer may speak for others by a PROXY header.
    pub(crate) fn new(is_trusted: bool) -> Self {
        Self { taken: Vec::new(), is_trusted, has_header: false, client: None }
    }

    /// The client a proxy speaks for, once its header was read.
    pub(crate) fn client(&self) -> Option<SocketAddr> {
        self.client
    }

    /// Takes the bytes of one read.
    ///
    /// # Errors
    /// [`BadProxyHeader`]: close the connection, there is nobody to answer.
    pub(crate) fn handle_bytes(&mut self, data: &[u8]) -> Result<Step, BadProxyHeader> {
        self.taken.extend_from_slice(data);
        if self.is_trusted && !self.has_header && self.is_proxy_header() {
            match self.read_proxy_header()? {
                Some(step) => return Ok(step),
                None => self.has_header = true,
            }
        }
        // No other protocol begins like this.
        if self.taken.len() >= FIRST_BYTES && self.is_proxy_header() {
            let reason = match self.has_header {
                true => "a second one",
                false => "of a peer that listen.proxy_from does not name",
            };
            return Err(BadProxyHeader(reason.to_owned()));
        }
        let Some(&first) = self.taken.first() else { return Ok(Step::More(FIRST_BYTES)) };
        Ok(Step::Decided { protocol: Protocol::of(first), rest: std::mem::take(&mut self.taken) })
    }

    /// True for a header, or for as much of its beginning as there is.
    fn is_proxy_header(&self) -> bool {
        let begins = |prefix: &[u8]| {
            let common = prefix.len().min(self.taken.len());
            self.taken.get(..common) == prefix.get(..common)
        };
        begins(V1_PREFIX) || begins(V2_PREFIX)
    }

    /// Takes the header off; `Some` when more of it must come first.
    fn read_proxy_header(&mut self) -> Result<Option<Step>, BadProxyHeader> {
        let missing = self.missing();
        if missing > 0 {
            if self.taken.len() + missing > PROXY_BYTES_MAX {
                return Err(BadProxyHeader(format!("longer than {PROXY_BYTES_MAX} bytes")));
            }
            return Ok(Some(Step::More(missing)));
        }
        let header = HeaderResult::parse(&self.taken);
        if header.is_incomplete() && self.taken.len() < PROXY_BYTES_MAX {
            return Ok(Some(Step::More(1)));
        }
        let (used, client) = match header {
            HeaderResult::V1(Ok(header)) => (header.header.len(), client_v1(&header.addresses)),
            HeaderResult::V2(Ok(header)) => (header.len(), client_v2(&header)),
            HeaderResult::V1(Err(error)) => return Err(BadProxyHeader(error.to_string())),
            HeaderResult::V2(Err(error)) => return Err(BadProxyHeader(error.to_string())),
        };
        self.taken.drain(..used.min(self.taken.len()));
        self.client = client;
        Ok(None)
    }

    /// Bytes that must still come before the header can be whole; never more than belong to it.
    fn missing(&self) -> usize {
        let have = self.taken.len();
        if have < FIRST_BYTES {
            return FIRST_BYTES - have;
        }
        if self.taken.starts_with(V2_PREFIX) {
            let Some(&[high, low]) = self.taken.get(V2_HEAD_BYTES - 2..V2_HEAD_BYTES) else {
                return V2_HEAD_BYTES - have;
            };
            let whole = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
            return whole.saturating_sub(have);
        }
        if have < V1_BYTES_MIN {
            return V1_BYTES_MIN - have;
        }
        // A line: it ends with CRLF, which may be split.
        let line = self.taken.get(..have.min(V1_BYTES_MAX)).unwrap_or_default();
        match line.iter().position(|&byte| byte == b'\n') {
            Some(_) => 0,
            None if have >= V1_BYTES_MAX => 0,
            None if line.ends_with(b"\r") => 1,
            None => 2.min(V1_BYTES_MAX - have),
        }
    }
}

/// `UNKNOWN` speaks for nobody: the connection's own address stays.
fn client_v1(addresses: &v1::Addresses) -> Option<SocketAddr> {
    match addresses {
        v1::Addresses::Tcp4(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Tcp6(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

/// `LOCAL` is the proxy itself, for example its health check.
fn client_v2(header: &v2::Header<'_>) -> Option<SocketAddr> {
    if header.command == v2::Command::Local {
        return None;
    }
    match header.addresses {
        v2::Addresses::IPv4(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v2::Addresses::IPv6(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 51234 443\r\n";

    fn v2(source: [u8; 4], port: u16, command: u8, tlv: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, 0x11]);
        header.extend(u16::try_from(12 + tlv.len()).unwrap().to_be_bytes());
        header.extend(source);
        header.extend([198, 51, 100, 1]);
        header.extend(port.to_be_bytes());
        header.extend(443u16.to_be_bytes());
        header.extend(tlv);
        header
    }

    /// Reads as much as it is allowed to, `most` at a time; returns the result and what was left.
    fn read(input: &[u8], most: usize) -> (FrontDoor, Result<Step, BadProxyHeader>, usize) {
        let mut door = FrontDoor::new(true);
        let (mut at, mut allowed) = (0, FIRST_BYTES);
        loop {
            let end = (at + allowed.min(most)).min(input.len());
            let step = door.handle_bytes(&input[at..end]);
            at = end;
            match step {
                Ok(Step::More(more)) if at < input.len() => allowed = more,
                other => return (door, other, at),
            }
        }
    }

    #[test]
    fn the_first_byte_tells_the_protocol() {
        assert_eq!(Protocol::of(0x16), Protocol::Tls);
        assert_eq!(Protocol::of(b'G'), Protocol::Http);
        assert_eq!(Protocol::of(3), Protocol::Rtmp);
        assert_eq!(Protocol::of(0), Protocol::Rtmp);
    }

    #[test]
    fn headers_of_both_versions_name_the_client_and_nothing_behind_them_is_read() {
        for header in [V1.to_vec(), v2([203, 0, 113, 7], 51234, 1, b"\x04\0\x03abc")] {
            for most in [1, 2, 3, 7, 600] {
                let mut input = header.clone();
                input.push(0x16);
                let (door, step, at) = read(&input, most);
                assert_eq!(door.client(), Some("203.0.113.7:51234".parse().unwrap()), "{most}");
                assert_eq!(step, Ok(Step::Decided { protocol: Protocol::Tls, rest: vec![0x16] }));
                assert_eq!(at, input.len());
                let (_, step, at) = read(&header, most);
                assert_eq!((step, at), (Ok(Step::More(FIRST_BYTES)), header.len()));
            }
        }
    }

    #[test]
    fn a_header_of_an_untrusted_peer_is_refused_by_its_first_bytes() {
        for header in [V1, &v2([1, 2, 3, 4], 5, 1, b"")] {
            for bytes in [FIRST_BYTES, header.len()] {
                let mut door = FrontDoor::new(false);
                let refusal = door.handle_bytes(&header[..bytes]).unwrap_err();
                assert!(refusal.to_string().contains("listen.proxy_from"), "{refusal}");
                assert_eq!(door.client(), None);
            }
        }
    }

    #[test]
    fn only_one_header_is_believed() {
        let second = v2([192, 0, 2, 1], 5, 1, b"");
        let (door, step, _) = read(&[V1, &second].concat(), 600);
        assert!(step.is_err(), "{step:?}");
        assert_eq!(door.client(), Some("203.0.113.7:51234".parse().unwrap()));
    }

    #[test]
    fn a_trusted_peer_need_not_send_a_header() {
        for (first, protocol) in
            [(&b"\x03\0\0\0\0"[..], Protocol::Rtmp), (b"POST ", Protocol::Http)]
        {
            let (door, step, _) = read(first, 5);
            assert_eq!(step, Ok(Step::Decided { protocol, rest: first.to_vec() }));
            assert_eq!(door.client(), None);
        }
    }

    #[test]
    fn a_proxy_that_speaks_for_nobody_leaves_the_address() {
        for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2([1, 2, 3, 4], 5, 0, b"")] {
            let (door, step, _) = read(&header, 600);
            assert_eq!((door.client(), step), (None, Ok(Step::More(FIRST_BYTES))));
        }
    }

    #[test]
    fn a_bad_header_is_refused_within_bounds() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 600]].concat();
        let (door, step, at) = read(&endless, 600);
        assert!(step.is_err() && at <= V1_BYTES_MAX, "{step:?} after {at}");
        assert!(door.taken.len() <= V1_BYTES_MAX);
        assert!(read(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n\x03", 600).1.is_err());
        let mut long = v2([1, 2, 3, 4], 5, 1, b"");
        long[14] = 0xFF;
        assert!(read(&long, 600).1.is_err(), "65 KB of TLVs");
    }
}
