//! The RTMP handshake, both sides, in the simple and the digest variant.
//!
//! Works on any segmentation, never judges the last packet of a client, never reads a clock, draws
//! its filler from a seed. Called by the sessions before the chunk reader. Spec: RTMP 1.0 §5.2;
//! the digest variant is documented by its deployments.
//!
//! ```text
//!  client                                   server
//!  C0 C1 (1 + 1536) ───────────────────────►          C1: time 4 · version 4 · random 1528
//!        ◄─────────────── S0 S1 S2 (1 + 1536 + 1536)  one buffer: clients wait for all of it
//!  C2 (1536) ──────────────────────────────►          read, never judged: devices send anything
//! ```
//!
//! A client that sets the version field of C1 may have hidden a digest in it: HMAC-SHA256 over the
//! other 1504 bytes, at one of two places. The server looks at base 772 first, then at base 8, and
//! answers by the scheme it finds; if there is none it falls back to the simple variant, where S2
//! is C1 again. Plain is what nearly all of today's encoders speak.

use alloc::vec::Vec;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::error::{Place, ProtocolError, Unsupported, Violation};

/// Bytes of each of C1, C2, S1 and S2.
pub const PACKET_BYTES: usize = 1_536;

/// The RTMP version, C0 and S0.
pub const VERSION: u8 = 3;

const DIGEST_BYTES: usize = 32;
/// Places a digest can be at, from the offset sum found at `base`.
const DIGEST_PLACES: u32 = 728;
/// Base offsets of the two schemes in the order they are tried: scheme 1, then scheme 0.
const DIGEST_BASES: [usize; 2] = [772, 8];
/// Version a digest server shows; any non-zero value does.
const SERVER_VERSION: [u8; 4] = [3, 5, 7, 1];
/// Version a digest client shows: servers look for a digest only above 9.0.115.
const CLIENT_VERSION: [u8; 4] = [10, 0, 45, 2];

const CLIENT_KEY: &[u8; 30] = b"Genuine Adobe Flash Player 001";
const SERVER_KEY: &[u8; 36] = b"Genuine Adobe Flash Media Server 001";
/// Follows either name to make the full key.
const KEY_TAIL: [u8; 32] = [
    0xF0, 0xEE, 0xC2, 0x4A, 0x80, 0x68, 0xBE, 0xE8, 0x2E, 0x00, 0xD0, 0xD1, 0x02, 0x9E, 0x7E, 0x57,
    0x6E, 0xEC, 0x5D, 0x2D, 0x29, 0x80, 0x6F, 0xAB, 0x93, 0xB8, 0xE6, 0x36, 0xCF, 0xEB, 0x31, 0xAE,
];

type Packet = [u8; PACKET_BYTES];

/// How the two sides shook hands.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeKind {
    /// Version field zero: the handshake as specified.
    Simple,
    /// Version field set, but no digest found: treated as simple.
    SimpleFallback,
    /// Digest at base 8.
    DigestScheme0,
    /// Digest at base 772.
    DigestScheme1,
}

impl HandshakeKind {
    fn of_base(base: usize) -> Self {
        if base == DIGEST_BASES[0] { Self::DigestScheme1 } else { Self::DigestScheme0 }
    }
}

/// The server's side. Keeps at most one packet, and only until the reply is written.
#[derive(Clone, Debug)]
pub struct Server {
    state: ServerState,
    seed: u64,
    consumed: u64,
}

/// ```text
///  Version ─C0─► Challenge ─C1─► Answer ─C2─► Done
/// ```
#[derive(Clone, Debug)]
enum ServerState {
    Version,
    Challenge { c1: Vec<u8> },
    Answer { kind: HandshakeKind, remaining: usize },
    Done { kind: HandshakeKind },
}

impl Server {
    /// A handshake that waits for C0. `seed` feeds the filler bytes and nothing secret.
    pub fn new(seed: u64) -> Self {
        Self { state: ServerState::Version, seed, consumed: 0 }
    }

    /// Takes handshake bytes from the front of `input`; what follows C2 stays there. The reply is
    /// appended to `out` all at once. True once C2 is complete.
    ///
    /// # Errors
    /// [`Violation::HandshakeVersion`] or [`Unsupported::EncryptedHandshake`] for the first byte;
    /// nothing else can be wrong.
    pub fn handle_bytes(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, ProtocolError> {
        let before = input.len();
        let done = self.advance(input, out);
        self.consumed += (before - input.len()) as u64;
        done
    }

    /// Bytes taken so far, at most 1 + 2 · 1536.
    pub fn bytes_consumed(&self) -> u64 {
        self.consumed
    }

    /// Which variant it is, once C1 is here.
    pub fn kind(&self) -> Option<HandshakeKind> {
        match self.state {
            ServerState::Answer { kind, .. } | ServerState::Done { kind } => Some(kind),
            ServerState::Version | ServerState::Challenge { .. } => None,
        }
    }

    /// Bytes of C1 kept while it is incomplete.
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            ServerState::Challenge { c1 } => c1.len(),
            _ => 0,
        }
    }

    fn advance(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, ProtocolError> {
        loop {
            match &mut self.state {
                ServerState::Version => {
                    let Some((&version, rest)) = input.split_first() else { return Ok(false) };
                    check_version(version, self.consumed)?;
                    *input = rest;
                    let c1 = Vec::with_capacity(PACKET_BYTES);
                    self.state = ServerState::Challenge { c1 };
                }
                ServerState::Challenge { c1 } => {
                    let Some(c1) = collect(c1, input) else { return Ok(false) };
                    let kind = reply(&c1, self.seed, out);
                    self.state = ServerState::Answer { kind, remaining: PACKET_BYTES };
                }
                ServerState::Answer { kind, remaining } => {
                    let count = input.len().min(*remaining);
                    *input = input.split_at(count).1;
                    *remaining -= count;
                    if *remaining > 0 {
                        return Ok(false);
                    }
                    self.state = ServerState::Done { kind: *kind };
                }
                ServerState::Done { .. } => return Ok(true),
            }
        }
    }
}

/// Which variant a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientVariant {
    /// As specified.
    Simple,
    /// With a digest at base 8, which every digest server knows.
    Digest,
}

/// The client's side.
#[derive(Clone, Debug)]
pub struct Client {
    variant: ClientVariant,
    seed: u64,
    state: ClientState,
    consumed: u64,
}

/// ```text
///  Version ─S0─► Challenge ─S1─► Answer ─S2─► Done
/// ```
#[derive(Clone, Debug)]
enum ClientState {
    Version,
    Challenge { s1: Vec<u8> },
    Answer { kind: HandshakeKind, remaining: usize },
    Done { kind: HandshakeKind },
}

impl Client {
    /// Appends C0 and C1 to `out` and waits for S0.
    pub fn new(variant: ClientVariant, seed: u64, out: &mut Vec<u8>) -> Self {
        let mut c1 = filler(seed);
        set_version(&mut c1, [0; 4]);
        if variant == ClientVariant::Digest {
            set_version(&mut c1, CLIENT_VERSION);
            let [_, base] = DIGEST_BASES;
            sign(&mut c1, base, CLIENT_KEY);
        }
        out.push(VERSION);
        out.extend_from_slice(&c1);
        Self { variant, seed, state: ClientState::Version, consumed: 0 }
    }

    /// Takes handshake bytes from the front of `input`; what follows S2 stays there. C2 is
    /// appended to `out` once S1 is complete. True once S2 is complete, which is not judged
    /// either: servers fill it as they like.
    ///
    /// # Errors
    /// As [`Server::handle_bytes`].
    pub fn handle_bytes(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, ProtocolError> {
        let before = input.len();
        let done = self.advance(input, out);
        self.consumed += (before - input.len()) as u64;
        done
    }

    /// Bytes taken so far, at most 1 + 2 · 1536.
    pub fn bytes_consumed(&self) -> u64 {
        self.consumed
    }

    /// Which variant it is, once S1 is here.
    pub fn kind(&self) -> Option<HandshakeKind> {
        match self.state {
            ClientState::Answer { kind, .. } | ClientState::Done { kind } => Some(kind),
            ClientState::Version | ClientState::Challenge { .. } => None,
        }
    }

    fn advance(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, ProtocolError> {
        loop {
            match &mut self.state {
                ClientState::Version => {
                    let Some((&version, rest)) = input.split_first() else { return Ok(false) };
                    check_version(version, self.consumed)?;
                    *input = rest;
                    let s1 = Vec::with_capacity(PACKET_BYTES);
                    self.state = ClientState::Challenge { s1 };
                }
                ClientState::Challenge { s1 } => {
                    let Some(s1) = collect(s1, input) else { return Ok(false) };
                    let kind = answer(self.variant, &s1, self.seed, out);
                    self.state = ClientState::Answer { kind, remaining: PACKET_BYTES };
                }
                ClientState::Answer { kind, remaining } => {
                    let count = input.len().min(*remaining);
                    *input = input.split_at(count).1;
                    *remaining -= count;
                    if *remaining > 0 {
                        return Ok(false);
                    }
                    self.state = ClientState::Done { kind: *kind };
                }
                ClientState::Done { .. } => return Ok(true),
            }
        }
    }
}

/// Judges C0 or S0.
fn check_version(version: u8, offset: u64) -> Result<(), ProtocolError> {
    match version {
        VERSION => Ok(()),
        6 | 8 | 9 => Err(ProtocolError::Unsupported(
            Unsupported::EncryptedHandshake(version),
            Place::at(offset),
        )),
        _ => Err(ProtocolError::Violation(Violation::HandshakeVersion(version), Place::at(offset))),
    }
}

/// Moves input into `packet`; gives it back when it is complete.
fn collect(packet: &mut Vec<u8>, input: &mut &[u8]) -> Option<Packet> {
    let wanted = PACKET_BYTES - packet.len();
    let (taken, rest) = input.split_at(input.len().min(wanted));
    packet.extend_from_slice(taken);
    *input = rest;
    packet.as_slice().try_into().ok()
}

/// Appends S0, S1 and S2 for `c1`.
fn reply(c1: &Packet, seed: u64, out: &mut Vec<u8>) -> HandshakeKind {
    let mut s1 = filler(seed);
    let found = if version_of(c1) == [0; 4] { None } else { find_digest(c1, CLIENT_KEY) };
    let (kind, s2) = match found {
        Some((base, digest)) => {
            set_version(&mut s1, SERVER_VERSION);
            sign(&mut s1, base, SERVER_KEY);
            (HandshakeKind::of_base(base), response(&digest, SERVER_KEY, seed))
        }
        None => {
            set_version(&mut s1, [0; 4]);
            // Clients compare S2 with C1, so it is repeated to the byte.
            let old = version_of(c1) == [0; 4];
            let kind = if old { HandshakeKind::Simple } else { HandshakeKind::SimpleFallback };
            (kind, *c1)
        }
    };
    out.reserve(1 + 2 * PACKET_BYTES);
    out.push(VERSION);
    out.extend_from_slice(&s1);
    out.extend_from_slice(&s2);
    kind
}

/// Appends C2 for `s1`.
fn answer(variant: ClientVariant, s1: &Packet, seed: u64, out: &mut Vec<u8>) -> HandshakeKind {
    let found = match variant {
        ClientVariant::Digest => find_digest(s1, SERVER_KEY),
        ClientVariant::Simple => None,
    };
    let (kind, c2) = match (found, variant) {
        (Some((base, digest)), _) => {
            (HandshakeKind::of_base(base), response(&digest, CLIENT_KEY, seed))
        }
        (None, ClientVariant::Simple) => (HandshakeKind::Simple, *s1),
        (None, ClientVariant::Digest) => (HandshakeKind::SimpleFallback, *s1),
    };
    out.extend_from_slice(&c2);
    kind
}

/// The last packet of either side in the digest variant: filler signed by a key made from the
/// digest it answers.
fn response(digest: &[u8; DIGEST_BYTES], name: &[u8], seed: u64) -> Packet {
    let mut packet = filler(!seed);
    let key = hmac(&[name, &KEY_TAIL], &[digest]);
    let (filler, signature) = packet.split_at_mut(PACKET_BYTES - DIGEST_BYTES);
    signature.copy_from_slice(&hmac(&[&key], &[filler]));
    packet
}

/// The digest in `packet` and the base it was found by.
fn find_digest(packet: &Packet, key: &[u8]) -> Option<(usize, [u8; DIGEST_BYTES])> {
    DIGEST_BASES.into_iter().find_map(|base| {
        let (before, digest, after) = split_at_digest(packet, base)?;
        // What is compared is no secret, so equality needs no constant time.
        (hmac(&[key], &[before, after]) == *digest).then_some((base, *digest))
    })
}

/// Puts the digest where the packet's own bytes at `base` say.
fn sign(packet: &mut Packet, base: usize, key: &[u8]) {
    let Some((before, _, after)) = split_at_digest(packet, base) else { return };
    let (digest, start) = (hmac(&[key], &[before, after]), before.len());
    if let Some(place) = packet.get_mut(start..start + DIGEST_BYTES) {
        place.copy_from_slice(&digest);
    }
}

/// Bytes before the digest, the digest, bytes behind it. `None` does not happen: the highest
/// place is 772 + 4 + 727, which leaves 33 bytes.
fn split_at_digest(packet: &Packet, base: usize) -> Option<(&[u8], &[u8; DIGEST_BYTES], &[u8])> {
    let places = packet.get(base..base + 4)?;
    let sum: u32 = places.iter().map(|byte| u32::from(*byte)).sum();
    let start = base + 4 + (sum % DIGEST_PLACES) as usize;
    let (before, rest) = packet.split_at_checked(start)?;
    let (digest, after) = rest.split_first_chunk::<DIGEST_BYTES>()?;
    Some((before, digest, after))
}

/// HMAC-SHA256 of the joined `data` under the joined `key`, which is shorter than a block is
/// long twice over.
fn hmac(key: &[&[u8]], data: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let mut block = [0; 128];
    let mut used = 0;
    for part in key {
        if let Some(room) = block.get_mut(used..used + part.len()) {
            room.copy_from_slice(part);
            used += part.len();
        }
    }
    let key = block.get(..used).unwrap_or_default();
    // HMAC takes keys of any length, so there is no error to handle.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; DIGEST_BYTES] };
    for part in data {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// A packet of filler; its first four bytes, the time, are zero.
fn filler(seed: u64) -> Packet {
    let mut packet = [0; PACKET_BYTES];
    let mut state = seed;
    for word in packet.chunks_exact_mut(8).skip(1) {
        // SplitMix64: enough to look random, which is all that is asked of filler.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    packet
}

fn version_of(packet: &Packet) -> [u8; 4] {
    let [_, _, _, _, a, b, c, d, ..] = *packet;
    [a, b, c, d]
}

fn set_version(packet: &mut Packet, version: [u8; 4]) {
    let [_, _, _, _, a, b, c, d, ..] = packet;
    [*a, *b, *c, *d] = version;
}

#[cfg(test)]
mod tests;
