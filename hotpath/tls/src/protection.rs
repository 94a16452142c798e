//! Record protection over keys alone: one direction of a connection, without the library.
//!
//! ```text
//!   TLS 1.3        header  seal(content · type)              nonce = IV ⊕ number, header authenticated
//!   TLS 1.2 GCM    header  explicit nonce  seal(content)     nonce = salt · explicit
//!   TLS 1.2 ChaCha header  seal(content)                     nonce = IV ⊕ number
//! ```
//! TLS 1.2 authenticates number, type, version and length of the content.
//!
//! **Nonces.** A number is used once: it goes up with each record and travels with the keys. The explicit
//! nonce of TLS 1.2 GCM is `IV ⊕ number` as in the library, with the IV that [`CryptoInfo`] has moved by
//! 2^62: none of the library's comes again.
//!
//! RFC 8446 §5.2, 5.3; RFC 5246 §6.2.3.3; RFC 5288 §3; RFC 7905 §2. Used by `Passed`.

use std::fmt;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::AlertDescription;

use crate::crypto_info::{Cipher, CryptoInfo, NONCE_BYTES, Version};
use crate::error::{ErrorKind, Result, TlsError};
use crate::limits::{RECORD_HEADER_BYTES, RECORD_OVERHEAD_BYTES_MAX, RECORD_PLAIN_BYTES_MAX};

/// Type of records of data; in TLS 1.3 of all that are encrypted.
pub(crate) const RECORD_DATA: u8 = 23;
/// Tag of all ciphers here, in bytes.
const TAG_BYTES: usize = 16;
/// Explicit nonce of TLS 1.2 GCM, in bytes.
const EXPLICIT_BYTES: usize = 8;

/// Seals or opens the records of one direction.
pub(crate) struct Protection {
    info: CryptoInfo,
    key: LessSafeKey,
    iv: [u8; NONCE_BYTES],
    /// Of the next record.
    number: u64,
}

impl Protection {
    /// # Errors
    /// `Internal`: a key the cipher does not take.
    pub(crate) fn new(info: CryptoInfo) -> Result<Self> {
        let algorithm = match info.cipher() {
            Cipher::Aes128Gcm => &AES_128_GCM,
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::Chacha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, info.key()).map_err(|_| failed("a key"))?;
        let (iv, number) = (info.iv(), info.record_number());
        Ok(Self { info, key: LessSafeKey::new(key), iv, number })
    }

    /// The keys, from the next record on.
    pub(crate) fn info(&self) -> CryptoInfo {
        self.info.at_record(self.number)
    }

    /// Appends one record of `kind` with `plain`, at most 16 KiB, to `out`.
    ///
    /// # Errors
    /// `Internal`: longer than that, or the cipher failed.
    pub(crate) fn seal(&mut self, kind: u8, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let (outer, has_inner_type) = match self.info.version() {
            Version::Tls12 => (kind, false),
            Version::Tls13 => (RECORD_DATA, true),
        };
        let nonce = self.counted_nonce();
        let explicit = self.explicit(&nonce);
        let bytes = explicit.len() + plain.len() + usize::from(has_inner_type) + TAG_BYTES;
        let length = u16::try_from(bytes).map_err(|_| failed("a record"))?;
        if plain.len() > RECORD_PLAIN_BYTES_MAX {
            return Err(failed("a record"));
        }
        out.reserve(plain.len() + RECORD_OVERHEAD_BYTES_MAX);
        let [high, low] = length.to_be_bytes();
        let header = [outer, 3, 3, high, low];
        out.extend_from_slice(&header);
        out.extend_from_slice(explicit);
        let at = out.len();
        out.extend_from_slice(plain);
        if has_inner_type {
            out.push(kind);
        }
        let content = out.get_mut(at..).unwrap_or_default();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = match self.info.version() {
            Version::Tls12 => {
                let data = self.additional12(kind, plain.len());
                self.key.seal_in_place_separate_tag(nonce, Aad::from(data), content)
            }
            Version::Tls13 => {
                self.key.seal_in_place_separate_tag(nonce, Aad::from(header), content)
            }
        };
        self.number += 1;
        out.extend_from_slice(tag.map_err(|_| failed("sealing"))?.as_ref());
        Ok(())
    }

    /// Type and content of a whole record, opened where it lies.
    ///
    /// # Errors
    /// `Undecryptable`, `Malformed`, `Misbehaved`, each with its alert.
    pub(crate) fn open<'r>(&mut self, record: &'r mut [u8]) -> Result<(u8, &'r [u8])> {
        let Some((&mut header, body)) = record.split_first_chunk_mut::<RECORD_HEADER_BYTES>()
        else {
            return Err(malformed("record header", AlertDescription::DecodeError));
        };
        let [outer, ..] = header;
        let content = match self.info.version() {
            Version::Tls13 if outer != RECORD_DATA => {
                let text = format!("plain record of type {outer} among sealed ones");
                return Err(TlsError::new(ErrorKind::Misbehaved(text.into()))
                    .with_alert(AlertDescription::UnexpectedMessage));
            }
            Version::Tls13 => {
                let nonce = Nonce::assume_unique_for_key(self.counted_nonce());
                self.key.open_in_place(nonce, Aad::from(header), body)
            }
            Version::Tls12 => {
                let mut nonce = self.counted_nonce();
                let (explicit, sealed) = match self.explicit(&nonce).len() {
                    0 => (&mut [][..], body),
                    bytes => body.split_at_mut_checked(bytes).ok_or_else(undecryptable)?,
                };
                for (to, from) in nonce.iter_mut().rev().zip(explicit.iter().rev()) {
                    *to = *from;
                }
                let bytes = sealed.len().checked_sub(TAG_BYTES).ok_or_else(undecryptable)?;
                let data = self.additional12(outer, bytes);
                let nonce = Nonce::assume_unique_for_key(nonce);
                self.key.open_in_place(nonce, Aad::from(data), sealed)
            }
        };
        let content: &[u8] = content.map_err(|_| undecryptable())?;
        self.number += 1;
        let (kind, content) = match self.info.version() {
            Version::Tls12 => (outer, content),
            Version::Tls13 => inner_plaintext(content)?,
        };
        if content.len() > RECORD_PLAIN_BYTES_MAX {
            return Err(malformed("OversizedRecord", AlertDescription::RecordOverflow));
        }
        Ok((kind, content))
    }

    fn counted_nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().rev().zip(self.number.to_le_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// The part of a nonce that goes into the record.
    fn explicit<'n>(&self, nonce: &'n [u8; NONCE_BYTES]) -> &'n [u8] {
        let is_implicit =
            self.info.version() == Version::Tls13 || self.info.cipher() == Cipher::Chacha20Poly1305;
        let bytes = if is_implicit { 0 } else { EXPLICIT_BYTES };
        nonce.get(NONCE_BYTES - bytes..).unwrap_or_default()
    }

    fn additional12(&self, kind: u8, plain_bytes: usize) -> [u8; 13] {
        let [a, b, c, d, e, f, g, h] = self.number.to_be_bytes();
        // A record is shorter than its header can tell.
        let [high, low] = u16::try_from(plain_bytes).unwrap_or(u16::MAX).to_be_bytes();
        [a, b, c, d, e, f, g, h, kind, 3, 3, high, low]
    }
}

/// Content and padding of TLS 1.3: the type is the last byte that is not zero (RFC 8446 §5.4).
fn inner_plaintext(content: &[u8]) -> Result<(u8, &[u8])> {
    let end = content.iter().rposition(|&byte| byte != 0);
    let found = end.and_then(|end| Some((*content.get(end)?, content.get(..end)?)));
    found.ok_or_else(|| {
        TlsError::new(ErrorKind::Misbehaved("a record without a type".into()))
            .with_alert(AlertDescription::UnexpectedMessage)
    })
}

fn undecryptable() -> TlsError {
    TlsError::new(ErrorKind::Undecryptable).with_alert(AlertDescription::BadRecordMac)
}

fn malformed(what: &str, alert: AlertDescription) -> TlsError {
    TlsError::new(ErrorKind::Malformed(what.into())).with_alert(alert)
}

fn failed(what: &str) -> TlsError {
    TlsError::new(ErrorKind::Internal(format!("record protection: {what}").into()))
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Protection");
        shown.field("info", &self.info).field("number", &self.number).finish_non_exhaustive()
    }
}
