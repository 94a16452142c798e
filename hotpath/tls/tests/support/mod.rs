//! The record layer of a kernel, from the bytes of `crypto_info` alone: what `setsockopt` would get is all it
//! knows, so what it can exchange with the TLS library proves the hand-over.
//!
//! Written from RFC 8446 §5.2-5.3, RFC 5246 §6.2.3.3, RFC 5288 §3, RFC 7905 §2 and what the kernel's software
//! implementation does: it counts the explicit nonce of TLS 1.2 GCM up from the IV it was given.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use tls::{Cipher, CryptoInfo, Version};

/// One direction of a socket.
pub(crate) struct KernelRecords {
    is_tls13: bool,
    key: LessSafeKey,
    /// Salt and IV of GCM, or the IV of `ChaCha20`.
    iv: [u8; 12],
    is_gcm: bool,
    number: u64,
    /// Nonces of the records sealed here.
    pub(crate) nonces: Vec<[u8; 12]>,
}

fn part<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (head, rest) = bytes.split_first_chunk().expect("a structure as the kernel takes it");
    *bytes = rest;
    *head
}

impl KernelRecords {
    pub(crate) fn new(info: &CryptoInfo) -> Self {
        let mut bytes = info.as_bytes();
        let version = u16::from_ne_bytes(part(&mut bytes));
        let cipher = u16::from_ne_bytes(part(&mut bytes));
        let mut iv = [0; 12];
        let (algorithm, key) = match cipher {
            51 => {
                iv[4..].copy_from_slice(&part::<8>(&mut bytes));
                (&AES_128_GCM, part::<16>(&mut bytes).to_vec())
            }
            52 => {
                iv[4..].copy_from_slice(&part::<8>(&mut bytes));
                (&AES_256_GCM, part::<32>(&mut bytes).to_vec())
            }
            54 => {
                iv = part(&mut bytes);
                (&CHACHA20_POLY1305, part::<32>(&mut bytes).to_vec())
            }
            other => panic!("no cipher of the kernel: {other}"),
        };
        if cipher != 54 {
            iv[..4].copy_from_slice(&part::<4>(&mut bytes));
        }
        let number = u64::from_be_bytes(part(&mut bytes));
        assert!(bytes.is_empty(), "{} bytes too many", bytes.len());
        assert_eq!(version, info.version().number());
        assert_eq!(cipher, info.cipher().kernel_number());
        Self {
            is_tls13: info.version() == Version::Tls13,
            key: LessSafeKey::new(UnboundKey::new(algorithm, &key).expect("a key")),
            iv,
            is_gcm: info.cipher() != Cipher::Chacha20Poly1305,
            number,
            nonces: Vec::new(),
        }
    }

    /// Nonce that follows from the record's number.
    fn counted_nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// Additional data of TLS 1.2: number, type, version, length of the plaintext.
    fn additional12(&self, kind: u8, plain_bytes: usize) -> Vec<u8> {
        let mut data = self.number.to_be_bytes().to_vec();
        data.extend_from_slice(&[kind, 3, 3]);
        data.extend_from_slice(&u16::try_from(plain_bytes).unwrap().to_be_bytes());
        data
    }

    /// A whole record.
    pub(crate) fn seal(&mut self, kind: u8, plain: &[u8]) -> Vec<u8> {
        let mut body = plain.to_vec();
        let (nonce, outer, prefix) = if self.is_tls13 {
            body.push(kind);
            (self.counted_nonce(), 23, vec![])
        } else if self.is_gcm {
            // The IV itself is the counter.
            let nonce = self.iv;
            let counter = u64::from_be_bytes(self.iv[4..].try_into().unwrap());
            self.iv[4..].copy_from_slice(&counter.wrapping_add(1).to_be_bytes());
            (nonce, kind, nonce[4..].to_vec())
        } else {
            (self.counted_nonce(), kind, vec![])
        };
        let bytes = u16::try_from(prefix.len() + body.len() + 16).unwrap();
        let mut record = vec![outer, 3, 3];
        record.extend_from_slice(&bytes.to_be_bytes());
        let additional =
            if self.is_tls13 { record.clone() } else { self.additional12(kind, plain.len()) };
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(sealing, Aad::from(additional), &mut body).unwrap();
        self.nonces.push(nonce);
        self.number += 1;
        record.extend_from_slice(&prefix);
        record.extend_from_slice(&body);
        record
    }

    /// Type and plaintext of the first record in `wire`, which is taken out.
    pub(crate) fn open(&mut self, wire: &mut Vec<u8>) -> (u8, Vec<u8>) {
        let bytes = usize::from(u16::from_be_bytes([wire[3], wire[4]]));
        let record = wire.drain(..5 + bytes).collect::<Vec<_>>();
        let (header, mut body) = (&record[..5], record[5..].to_vec());
        let mut nonce = self.counted_nonce();
        let additional = if self.is_tls13 {
            header.to_vec()
        } else {
            let mut plain_bytes = bytes - 16;
            if self.is_gcm {
                nonce[..4].copy_from_slice(&self.iv[..4]);
                nonce[4..].copy_from_slice(&body[..8]);
                body.drain(..8);
                plain_bytes -= 8;
            }
            self.additional12(header[0], plain_bytes)
        };
        let opening = Nonce::assume_unique_for_key(nonce);
        let plain = self.key.open_in_place(opening, Aad::from(additional), &mut body);
        let mut plain = plain.expect("a record of these keys").to_vec();
        self.number += 1;
        let kind = if self.is_tls13 { plain.pop().expect("a type") } else { header[0] };
        (kind, plain)
    }
}

/// Nonces of the data records in `wire` as TLS 1.2 GCM shows them: the explicit half.
pub(crate) fn explicit_nonces(mut wire: &[u8]) -> Vec<[u8; 8]> {
    let mut nonces = Vec::new();
    let mut is_encrypted = false;
    while let [kind, _, _, high, low, ref rest @ ..] = *wire {
        let (body, after) = rest.split_at(usize::from(u16::from_be_bytes([high, low])));
        if is_encrypted {
            nonces.push(body[..8].try_into().unwrap());
        }
        is_encrypted |= kind == 20;
        wire = after;
    }
    nonces
}
