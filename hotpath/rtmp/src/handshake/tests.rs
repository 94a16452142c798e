//! Both sides against each other, and the server against packets built here.

use std::vec;
use std::vec::Vec;

use super::*;

const SEED: u64 = 7;

/// Feeds `input` in pieces of `piece` bytes; returns the reply and what was left over.
fn serve(input: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>, Option<HandshakeKind>) {
    let mut server = Server::new(SEED);
    let (mut out, mut left, mut done) = (Vec::new(), Vec::new(), false);
    for piece in input.chunks(piece) {
        let mut piece = piece;
        done = server.handle_bytes(&mut piece, &mut out).expect("a good handshake");
        assert!(done || piece.is_empty());
        assert!(server.held_bytes() <= PACKET_BYTES);
        left.extend_from_slice(piece);
    }
    assert_eq!(server.bytes_consumed() + left.len() as u64, input.len() as u64);
    (out, left, if done { server.kind() } else { None })
}

fn c0_c1(version: [u8; 4]) -> Vec<u8> {
    let mut c1 = filler(99);
    c1[..4].copy_from_slice(&[1, 2, 3, 4]);
    set_version(&mut c1, version);
    let mut out = vec![VERSION];
    out.extend(c1);
    out
}

fn signed_c0_c1(base: usize) -> Vec<u8> {
    let mut c1 = filler(99);
    set_version(&mut c1, CLIENT_VERSION);
    sign(&mut c1, base, CLIENT_KEY);
    let mut out = vec![VERSION];
    out.extend(c1);
    out
}

#[test]
fn the_keyed_hash_is_hmac_sha256() {
    // RFC 4231, test case 2.
    let digest = hmac(&[b"Je", b"fe"], &[b"what do ya want ", b"for nothing?"]);
    assert_eq!(digest[..8], [0x5B, 0xDC, 0xC1, 0x46, 0xBF, 0x60, 0x75, 0x4E]);
    assert_eq!(digest[24..], [0x9D, 0xEC, 0x58, 0xB9, 0x64, 0xEC, 0x38, 0x43]);
}

#[test]
fn an_old_client_gets_its_own_packet_back() {
    let mut input = c0_c1([0; 4]);
    let (out, _, kind) = serve(&input, 9_999);
    assert_eq!(out.len(), 1 + 2 * PACKET_BYTES);
    assert_eq!(out[0], VERSION);
    assert_eq!(out[1..9], [0; 8]);
    assert_eq!(out[1 + PACKET_BYTES..], input[1..]);
    assert_eq!(kind, None, "C2 is still to come");
    input.extend([0xEE; PACKET_BYTES]);
    input.extend(b"next");
    let (_, left, kind) = serve(&input, 9_999);
    assert_eq!((left.as_slice(), kind), (b"next".as_slice(), Some(HandshakeKind::Simple)));
}

#[test]
fn a_version_without_a_digest_falls_back_to_simple() {
    let mut input = c0_c1([9, 0, 124, 2]);
    input.extend([0; PACKET_BYTES]);
    let (out, _, kind) = serve(&input, 100);
    assert_eq!(kind, Some(HandshakeKind::SimpleFallback));
    assert_eq!(out[5..9], [0; 4]);
    assert_eq!(out[1 + PACKET_BYTES..], input[1..=PACKET_BYTES]);
}

#[test]
fn each_digest_scheme_is_answered_in_kind() {
    for (base, wanted) in [(772, HandshakeKind::DigestScheme1), (8, HandshakeKind::DigestScheme0)] {
        let mut input = signed_c0_c1(base);
        input.extend([0; PACKET_BYTES]);
        let (out, _, kind) = serve(&input, 1_000);
        assert_eq!(kind, Some(wanted));
        let s1: &Packet = out[1..=PACKET_BYTES].try_into().unwrap();
        assert_eq!(find_digest(s1, SERVER_KEY).map(|(found, _)| found), Some(base));
        // S2 is signed by a key made of the client's digest.
        let c1: &Packet = input[1..=PACKET_BYTES].try_into().unwrap();
        let (_, digest) = find_digest(c1, CLIENT_KEY).unwrap();
        let s2 = &out[1 + PACKET_BYTES..];
        let key = hmac(&[SERVER_KEY, &KEY_TAIL], &[&digest]);
        assert_eq!(s2[1_504..], hmac(&[&key], &[&s2[..1_504]]));
    }
}

#[test]
fn the_highest_digest_place_stays_inside_the_packet() {
    for base in DIGEST_BASES {
        for sum in [0, 727] {
            let mut c1 = [0; PACKET_BYTES];
            // Four bytes whose sum is the offset.
            c1[base..base + 4].copy_from_slice(&match sum {
                0 => [0; 4],
                _ => [255, 255, 217, 0],
            });
            sign(&mut c1, base, CLIENT_KEY);
            assert_eq!(find_digest(&c1, CLIENT_KEY).map(|(found, _)| found), Some(base));
        }
    }
}

#[test]
fn the_transcript_does_not_depend_on_segmentation() {
    for mut input in [c0_c1([0; 4]), c0_c1([1, 1, 1, 1]), signed_c0_c1(772), signed_c0_c1(8)] {
        input.extend([0x55; PACKET_BYTES]);
        input.extend(b"\x02\x00");
        let whole = serve(&input, input.len());
        for piece in [1, 2, 1_535, 1_536, 1_537, 1_538, 3_072, 3_073] {
            assert_eq!(serve(&input, piece), whole, "pieces of {piece}");
        }
    }
}

#[test]
fn nothing_is_answered_before_all_of_c1_is_here() {
    let input = c0_c1([0; 4]);
    let (out, _, _) = serve(&input[..PACKET_BYTES], 7);
    assert!(out.is_empty());
}

#[test]
fn a_wrong_first_byte_is_named() {
    for version in (0..=255).filter(|version| *version != VERSION) {
        let mut server = Server::new(SEED);
        let error = server.handle_bytes(&mut [version, 0].as_slice(), &mut Vec::new());
        let place = Place::at(0);
        let wanted = match version {
            6 | 8 | 9 => {
                ProtocolError::Unsupported(Unsupported::EncryptedHandshake(version), place)
            }
            _ => ProtocolError::Violation(Violation::HandshakeVersion(version), place),
        };
        assert_eq!(error, Err(wanted));
    }
}

#[test]
fn both_client_variants_shake_hands_with_the_server() {
    for (variant, wanted) in [
        (ClientVariant::Simple, HandshakeKind::Simple),
        (ClientVariant::Digest, HandshakeKind::DigestScheme0),
    ] {
        for piece in [1, 1_000, 9_999] {
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let mut client = Client::new(variant, 3, &mut to_server);
            let mut server = Server::new(SEED);
            let (mut client_done, mut server_done) = (false, false);
            for _ in 0..3 {
                for mut part in core::mem::take(&mut to_server).chunks(piece) {
                    server_done = server.handle_bytes(&mut part, &mut to_client).unwrap();
                }
                for mut part in core::mem::take(&mut to_client).chunks(piece) {
                    client_done = client.handle_bytes(&mut part, &mut to_server).unwrap();
                }
            }
            assert!(client_done && server_done);
            assert_eq!((client.kind(), server.kind()), (Some(wanted), Some(wanted)));
            assert_eq!(client.bytes_consumed(), 1 + 2 * PACKET_BYTES as u64);
        }
    }
}

#[test]
fn a_digest_client_accepts_a_server_that_only_echoes() {
    let (mut out, mut c2) = (Vec::new(), Vec::new());
    let mut client = Client::new(ClientVariant::Digest, 3, &mut out);
    let mut reply = vec![VERSION];
    reply.extend([0x11; PACKET_BYTES]);
    reply.extend(&out[1..]);
    assert_eq!(client.handle_bytes(&mut reply.as_slice(), &mut c2), Ok(true));
    assert_eq!(client.kind(), Some(HandshakeKind::SimpleFallback));
    assert_eq!(c2, [0x11; PACKET_BYTES]);
}
