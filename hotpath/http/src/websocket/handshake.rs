//! The opening handshake: is it one, and the answer that accepts it.
//!
//! Whoever names `websocket` in `Upgrade` means it, so anything missing then is an error with a
//! text rather than an answer the peer cannot read. Other upgrades (`h2c`) are ignored.
//!
//! Spec: RFC 6455 §4.2.1, §4.2.2, §4.4.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest, Sha1};

use crate::fields::{Fields, is_token};
use crate::response::{field, write_status};
use crate::{HttpError, Method, WebSocketUpgrade};

/// What the key is hashed with (§1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;
/// Characters of base64 for the key.
const KEY_CHARS: usize = 24;

/// Some clients make keys of 24 characters and care little for the last bits, which mean nothing.
const KEY_ENGINE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The request for WebSocket in a head, if it is one.
pub(crate) fn upgrade(
    method: Method,
    is_http_1_1: bool,
    has_body: bool,
    fields: Fields<'_>,
) -> Result<Option<WebSocketUpgrade>, HttpError> {
    if !fields.has_element("upgrade", "websocket") {
        return Ok(None);
    }
    let is_possible = method == Method::Get
        && is_http_1_1
        && !has_body
        && fields.has_element("connection", "upgrade");
    if !is_possible {
        return Err(HttpError::BadUpgrade);
    }
    match fields.only("sec-websocket-version") {
        Ok(Some(b"13")) => {}
        Ok(Some(_)) => return Err(HttpError::UpgradeVersion),
        Ok(None) | Err(_) => return Err(HttpError::BadUpgrade),
    }
    let key = fields.only("sec-websocket-key").ok().flatten().and_then(key);
    let protocol = fields
        .elements("sec-websocket-protocol")
        .next()
        .filter(|protocol| is_token(protocol))
        .map(|protocol| String::from_utf8_lossy(protocol).into_owned());
    match key {
        Some(key) => Ok(Some(WebSocketUpgrade { key: key.to_string(), protocol })),
        None => Err(HttpError::BadUpgrade),
    }
}

/// The key, if it is base64 of 16 bytes.
fn key(value: &[u8]) -> Option<&str> {
    let mut bytes = [0; KEY_CHARS];
    if value.len() != KEY_CHARS || KEY_ENGINE.decode_slice(value, &mut bytes) != Ok(KEY_BYTES) {
        return None;
    }
    str::from_utf8(value).ok()
}

/// Writes the answer that accepts: 101, after which both sides send frames. `key` is that of the
/// request; `protocol` one of those it offered.
pub fn write_accept(key: &str, protocol: Option<&str>, out: &mut Vec<u8>) {
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    // 20 bytes are 28 characters, so there is room for all of them.
    let length = STANDARD.encode_slice(hash, &mut accept).unwrap_or_default();
    let accept = accept.get(..length).unwrap_or_default();
    write_status(101, out);
    field("Upgrade", "websocket", out);
    field("Connection", "Upgrade", out);
    field("Sec-WebSocket-Accept", str::from_utf8(accept).unwrap_or_default(), out);
    if let Some(protocol) = protocol.filter(|protocol| is_token(protocol.as_bytes())) {
        field("Sec-WebSocket-Protocol", protocol, out);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn accepted(protocol: Option<&str>) -> String {
        let mut out = Vec::new();
        write_accept(KEY, protocol, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_answer_is_that_of_the_specification() {
        assert_eq!(
            accepted(None),
            "HTTP/1.1 101 Switching Protocols\r\nServer: ringcast\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn a_protocol_is_named_when_it_is_one() {
        assert!(accepted(Some("flv")).ends_with("\r\nSec-WebSocket-Protocol: flv\r\n\r\n"));
        assert_eq!(accepted(Some("a\r\nb")), accepted(None));
    }

    #[test]
    fn keys_are_base64_of_sixteen_bytes() {
        assert_eq!(key(KEY.as_bytes()), Some(KEY));
        assert!(key(b"AAAAAAAAAAAAAAAAAAAAAB==").is_some());
        for text in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25jZWE=",
            "dGhlIHNhbXBsZSBub25jZWFh",
            "dGhlIHNhbXBsZSBub25j ZQ=",
            "_Ghl-HNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25=ZQ==",
        ] {
            assert_eq!(key(text.as_bytes()), None, "{text}");
        }
    }
}
