//! Looks into a client hello before the TLS library does: which name the client asks for, and whether
//! its ALPN offer has anything for us.
//!
//! Two facts are needed before the library may see the hello. The name, because the library tells it to
//! the certificate resolver only, and a refused hello should be logged with its name. The offer, because
//! the library refuses an offer without a match, and an RTMP client that offers some protocol of its own
//! must not be refused for that.
//!
//! Never decides validity: what does not parse here is [`Hello::Opaque`] and goes to the library, which
//! refuses it with the right alert. RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301 §3.1.

use rustls::pki_types::ServerName;

use crate::limits::{HELLO_BYTES_MAX, RECORD_HEADER_BYTES, RECORD_PLAIN_BYTES_MAX};

const RECORD_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER_BYTES: usize = 4;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// What the bytes so far say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// More records are needed.
    Incomplete,
    /// Longer than [`HELLO_BYTES_MAX`], or claims to be.
    TooLarge,
    /// Whole, or wrong in a way that more bytes will not mend.
    Complete(HelloFacts),
}

/// The two facts; both empty when the hello does not parse.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct HelloFacts {
    /// Lower case host name, if the client named one.
    pub(crate) sni: Option<Box<str>>,
    /// The client offers protocols and none of them is ours.
    pub(crate) is_alpn_foreign: bool,
}

/// Reads the records in `wire`, which begins with the first byte of the connection.
pub(crate) fn inspect(wire: &[u8], alpn_ours: &[Vec<u8>]) -> Hello {
    let mut message = Vec::new();
    // What lies beyond the limit is not looked at, so that the answer does not depend on segmentation.
    let mut rest = &wire[..wire.len().min(HELLO_BYTES_MAX)];
    loop {
        if message.len() >= MESSAGE_HEADER_BYTES {
            let [kind, a, b, c] = [message[0], message[1], message[2], message[3]];
            if kind != MESSAGE_CLIENT_HELLO {
                return Hello::Complete(HelloFacts::default());
            }
            let end = MESSAGE_HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
            if end > HELLO_BYTES_MAX {
                return Hello::TooLarge;
            }
            if let Some(body) = message.get(MESSAGE_HEADER_BYTES..end) {
                return Hello::Complete(facts_of(body, alpn_ours).unwrap_or_default());
            }
        }
        let Some((header, payload)) = rest.split_at_checked(RECORD_HEADER_BYTES) else { break };
        let payload_bytes = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let is_part = header[0] == RECORD_HANDSHAKE
            && header[1] == 3
            && (1..=RECORD_PLAIN_BYTES_MAX).contains(&payload_bytes);
        if !is_part {
            return Hello::Complete(HelloFacts::default());
        }
        let Some((payload, after)) = payload.split_at_checked(payload_bytes) else { break };
        message.extend_from_slice(payload);
        rest = after;
    }
    if wire.len() > HELLO_BYTES_MAX { Hello::TooLarge } else { Hello::Incomplete }
}

/// Walks the hello's fields to its extensions.
fn facts_of(body: &[u8], alpn_ours: &[Vec<u8>]) -> Option<HelloFacts> {
    let mut hello = Cursor(body);
    hello.take(2 + 32)?; // version, random
    hello.block8()?; // session id
    hello.block16()?; // cipher suites
    hello.block8()?; // compression methods
    let mut facts = HelloFacts::default();
    if hello.0.is_empty() {
        return Some(facts);
    }
    let mut extensions = Cursor(hello.block16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let content = Cursor(extensions.block16()?);
        match kind {
            EXTENSION_SERVER_NAME => facts.sni = server_name_in(content)?,
            EXTENSION_ALPN => facts.is_alpn_foreign = !is_offered(content, alpn_ours)?,
            _ => {}
        }
    }
    Some(facts)
}

/// The host name of the extension. Addresses and malformed names count as none, as in the library.
fn server_name_in(mut extension: Cursor<'_>) -> Option<Option<Box<str>>> {
    const NAME_TYPE_HOST: u8 = 0;
    let mut names = Cursor(extension.block16()?);
    if names.take(1)? != [NAME_TYPE_HOST] {
        return Some(None);
    }
    Some(match ServerName::try_from(names.block16()?) {
        Ok(ServerName::DnsName(name)) => Some(name.as_ref().to_ascii_lowercase().into()),
        _ => None,
    })
}

fn is_offered(mut extension: Cursor<'_>, alpn_ours: &[Vec<u8>]) -> Option<bool> {
    let mut offers = Cursor(extension.block16()?);
    let mut is_ours = false;
    while !offers.0.is_empty() {
        let offer = offers.block8()?;
        is_ours |= alpn_ours.iter().any(|ours| ours == offer);
    }
    Some(is_ours)
}

/// Checked walk over length-prefixed fields.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        let taken = self.take(2)?;
        Some(u16::from_be_bytes([taken[0], taken[1]]))
    }

    fn block8(&mut self) -> Option<&'a [u8]> {
        let bytes = usize::from(self.take(1)?[0]);
        self.take(bytes)
    }

    fn block16(&mut self) -> Option<&'a [u8]> {
        let bytes = usize::from(self.number16()?);
        self.take(bytes)
    }
}
