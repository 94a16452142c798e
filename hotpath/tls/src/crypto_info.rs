//! Keys of one direction in the form the Linux kernel takes them: `struct tls12_crypto_info_*`.
//!
//! ```text
//!                      version  cipher  iv   key   salt  rec_seq
//!   AES-128-GCM  (51)  2        2       8    16    4     8          40 bytes
//!   AES-256-GCM  (52)  2        2       8    32    4     8          56
//!   ChaCha20     (54)  2        2       12   32    0     8          56
//! ```
//! `version` and `cipher` are in native byte order, `rec_seq` is big-endian. The 12-byte IV of a GCM suite
//! is split: its first 4 bytes are the salt, the other 8 the IV.
//!
//! **The nonce rule of TLS 1.2 with AES-GCM, sending.** There the sender chooses 8 bytes of each nonce and
//! writes them into the record. The library has used `iv ^ 0 … iv ^ (n-1)` for its first `n` records; the
//! kernel counts up from the IV it is given. Given the same IV, its first record would repeat the nonce of
//! our `Finished`, and one repetition gives the authentication key away. So the kernel starts 2^62 further
//! on: the library's nonces are within 2^24 of the IV (all differ from it in the low 24 bits only, and it
//! stops there), the kernel's are within 2^24 of IV + 2^62. TLS 1.3 and `ChaCha20` derive the whole nonce
//! from the record number on both sides, so for them the IV is passed as it is.

use std::fmt;

use rustls::{ConnectionTrafficSecrets, ProtocolVersion};
use zeroize::Zeroize;

use crate::error::{ErrorKind, Result, TlsError};

/// Largest of the structures.
const CRYPTO_INFO_BYTES_MAX: usize = 56;
/// Version and cipher.
const HEAD_BYTES: usize = 4;
/// The number of a record.
const NUMBER_BYTES: usize = 8;
/// Salt of a GCM suite.
const SALT_BYTES: usize = 4;
/// A nonce of any of the ciphers (RFC 5116 §3.2, RFC 8439 §2.8).
pub(crate) const NONCE_BYTES: usize = 12;

/// How far from the library's nonces the kernel starts its own (TLS 1.2 GCM, sending).
const EXPLICIT_IV_DISTANCE: u64 = 1 << 62;

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// AEAD of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-GCM with a 16-byte key.
    Aes128Gcm,
    /// AES-GCM with a 32-byte key.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    Chacha20Poly1305,
}

/// Which way the keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Send,
    Receive,
}

impl Version {
    /// Short name, as in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLS1.2",
            Self::Tls13 => "TLS1.3",
        }
    }

    /// Number on the wire and in the kernel's structure.
    pub fn number(self) -> u16 {
        match self {
            Self::Tls12 => 0x0303,
            Self::Tls13 => 0x0304,
        }
    }

    pub(crate) fn of(version: ProtocolVersion) -> Option<Self> {
        match version {
            ProtocolVersion::TLSv1_2 => Some(Self::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Self::Tls13),
            _ => None,
        }
    }
}

impl Cipher {
    /// All of them, the cheapest on a CPU with AES instructions first.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];

    /// Short name, as in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Chacha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// Length of its key.
    pub(crate) fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    /// Number of the cipher in the kernel's structure.
    pub fn kernel_number(self) -> u16 {
        match self {
            Self::Aes128Gcm => 51,
            Self::Aes256Gcm => 52,
            Self::Chacha20Poly1305 => 54,
        }
    }
}

/// Secrets of one direction for `setsockopt(SOL_TLS, TLS_TX | TLS_RX)`. Wiped when dropped, never printed.
pub struct CryptoInfo {
    bytes: [u8; CRYPTO_INFO_BYTES_MAX],
    bytes_used: usize,
    version: Version,
    cipher: Cipher,
}

impl CryptoInfo {
    /// The structure, to be copied nowhere but into the kernel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.bytes_used]
    }

    /// Version the keys belong to.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Cipher the keys belong to.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Puts the library's secrets into the kernel's order. `record_number` is that of the next record.
    pub(crate) fn new(
        version: Version,
        direction: Direction,
        record_number: u64,
        secrets: &ConnectionTrafficSecrets,
    ) -> Result<Self> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (cipher, key_bytes, key, iv) = match secrets {
            Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, 16, key.as_ref(), iv.as_ref()),
            Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, 32, key.as_ref(), iv.as_ref()),
            Chacha20Poly1305 { key, iv } => {
                (Cipher::Chacha20Poly1305, 32, key.as_ref(), iv.as_ref())
            }
            _ => return Err(foreign_secrets()),
        };
        if key.len() != key_bytes {
            return Err(foreign_secrets());
        }
        let mut info = Self { bytes: [0; CRYPTO_INFO_BYTES_MAX], bytes_used: 0, version, cipher };
        info.put(&version.number().to_ne_bytes());
        info.put(&cipher.kernel_number().to_ne_bytes());
        match (cipher, iv) {
            (Cipher::Chacha20Poly1305, _) => {
                info.put(iv);
                info.put(key);
            }
            (_, &[s0, s1, s2, s3, ref explicit @ ..]) => {
                let mut explicit: [u8; 8] = explicit.try_into().map_err(|_| foreign_secrets())?;
                if version == Version::Tls12 && direction == Direction::Send {
                    let moved = u64::from_be_bytes(explicit).wrapping_add(EXPLICIT_IV_DISTANCE);
                    explicit = moved.to_be_bytes();
                }
                info.put(&explicit);
                info.put(key);
                info.put(&[s0, s1, s2, s3]);
            }
            _ => return Err(foreign_secrets()),
        }
        info.put(&record_number.to_be_bytes());
        Ok(info)
    }

    /// The structure as somebody has written it down.
    ///
    /// # Errors
    /// `Internal`: no version and cipher of ours, or not as long as theirs.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let Some((&[v0, v1, c0, c1], _)) = bytes.split_first_chunk() else {
            return Err(foreign_secrets());
        };
        let number = u16::from_ne_bytes([v0, v1]);
        let version = [Version::Tls12, Version::Tls13].into_iter().find(|v| v.number() == number);
        let number = u16::from_ne_bytes([c0, c1]);
        let cipher = Cipher::ALL.into_iter().find(|cipher| cipher.kernel_number() == number);
        let (Some(version), Some(cipher)) = (version, cipher) else {
            return Err(foreign_secrets());
        };
        // All but the key is as long for each: version, cipher, IV with its salt, number.
        if bytes.len() != HEAD_BYTES + NONCE_BYTES + cipher.key_bytes() + NUMBER_BYTES {
            return Err(foreign_secrets());
        }
        let mut info = Self { bytes: [0; CRYPTO_INFO_BYTES_MAX], bytes_used: 0, version, cipher };
        info.put(bytes);
        Ok(info)
    }

    /// The same keys for records from `number` on.
    pub(crate) fn at_record(&self, number: u64) -> Self {
        let mut info = Self { bytes: self.bytes, ..*self };
        info.bytes_used -= NUMBER_BYTES;
        info.put(&number.to_be_bytes());
        info
    }

    /// Number of the next record.
    pub(crate) fn record_number(&self) -> u64 {
        self.as_bytes().last_chunk().map_or(0, |number| u64::from_be_bytes(*number))
    }

    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        let start = HEAD_BYTES + self.iv_bytes();
        self.bytes.get(start..start + self.cipher.key_bytes()).unwrap_or_default()
    }

    /// The IV as RFC 8446 §5.3 counts records into it: of a GCM suite salt and explicit part.
    pub(crate) fn iv(&self) -> [u8; NONCE_BYTES] {
        let iv = self.bytes.get(HEAD_BYTES..HEAD_BYTES + self.iv_bytes()).unwrap_or_default();
        let salt_at = HEAD_BYTES + self.iv_bytes() + self.cipher.key_bytes();
        let salt_end = self.bytes_used.saturating_sub(NUMBER_BYTES);
        let salt = self.bytes.get(salt_at..salt_end).unwrap_or_default();
        let mut nonce = [0; NONCE_BYTES];
        for (to, from) in nonce.iter_mut().zip(salt.iter().chain(iv)) {
            *to = *from;
        }
        nonce
    }

    fn iv_bytes(&self) -> usize {
        match self.cipher {
            Cipher::Chacha20Poly1305 => NONCE_BYTES,
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => NONCE_BYTES - SALT_BYTES,
        }
    }

    fn put(&mut self, part: &[u8]) {
        let end = self.bytes_used + part.len();
        self.bytes[self.bytes_used..end].copy_from_slice(part);
        self.bytes_used = end;
    }
}

fn foreign_secrets() -> TlsError {
    TlsError::new(ErrorKind::Internal("secrets of a cipher the kernel is not asked for".into()))
}

impl Drop for CryptoInfo {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for CryptoInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CryptoInfo")
            .field("version", &self.version)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::sync::Arc;

    use ::ktls::CryptoInfo as Other;
    use rustls::client::UnbufferedClientConnection;
    use rustls::server::UnbufferedServerConnection;
    use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
    use rustls::{ExtractedSecrets, SupportedCipherSuite};

    use super::*;
    use crate::testing::{Authority, Validity};
    use crate::{ClientOptions, ServerOptions, client_config_with, server_config, server_name};

    /// Takes one state of the library; true if it waits for bytes.
    fn step<Data>(
        status: UnbufferedStatus<'_, '_, Data>,
        out: &mut Vec<u8>,
        discard: &mut usize,
    ) -> bool {
        *discard = status.discard;
        match status.state.unwrap() {
            ConnectionState::EncodeTlsData(mut piece) => {
                let at = out.len();
                out.resize(at + 20_000, 0);
                let bytes = piece.encode(&mut out[at..]).unwrap();
                out.truncate(at + bytes);
                false
            }
            ConnectionState::TransmitTlsData(sent) => {
                sent.done();
                false
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
            other => panic!("{other:?}"),
        }
    }

    /// Secrets of a server after a handshake of the library with itself, and the suite.
    fn secrets(version: Version, cipher: Cipher) -> (SupportedCipherSuite, ExtractedSecrets) {
        let authority = Authority::new();
        let options = ServerOptions {
            version_max: version,
            ciphers: vec![cipher],
            tickets: 0,
            ..ServerOptions::default()
        };
        let resolver = authority.resolver(&["a.example"], Validity::Now);
        let server = server_config(resolver, &options).unwrap();
        let client = client_config_with(authority.roots(), &ClientOptions::default()).unwrap();
        let name = server_name("a.example").unwrap();
        let mut server = UnbufferedServerConnection::new(server).unwrap();
        let mut client = UnbufferedClientConnection::new(Arc::clone(&client), name).unwrap();
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while server.is_handshaking() || client.is_handshaking() || !to_client.is_empty() {
            let mut discard = 0;
            loop {
                let waits =
                    step(client.process_tls_records(&mut to_client), &mut to_server, &mut discard);
                to_client.drain(..discard);
                if waits {
                    break;
                }
            }
            loop {
                let waits =
                    step(server.process_tls_records(&mut to_server), &mut to_client, &mut discard);
                to_server.drain(..discard);
                if waits {
                    break;
                }
            }
        }
        let suite = server.negotiated_cipher_suite().unwrap();
        (suite, server.dangerous_into_kernel_connection().unwrap().0)
    }

    /// The other implementation's structure as bytes.
    fn bytes_of(other: &Other) -> Vec<u8> {
        let join = |info: (u16, u16), parts: [&[u8]; 4]| {
            [&info.0.to_ne_bytes()[..], &info.1.to_ne_bytes()]
                .concat()
                .into_iter()
                .chain(parts.concat())
                .collect()
        };
        match other {
            Other::AesGcm128(i) => {
                join((i.info.version, i.info.cipher_type), [&i.iv, &i.key, &i.salt, &i.rec_seq])
            }
            Other::AesGcm256(i) => {
                join((i.info.version, i.info.cipher_type), [&i.iv, &i.key, &i.salt, &i.rec_seq])
            }
            Other::Chacha20Poly1305(i) => {
                join((i.info.version, i.info.cipher_type), [&i.iv, &i.key, &[], &i.rec_seq])
            }
            _ => panic!("a cipher we do not have"),
        }
    }

    #[test]
    fn another_implementation_agrees_except_on_the_nonces_it_would_repeat() {
        for version in [Version::Tls12, Version::Tls13] {
            for cipher in Cipher::ALL {
                let (suite, secrets) = secrets(version, cipher);
                let is_moved = version == Version::Tls12 && cipher != Cipher::Chacha20Poly1305;
                for (direction, (number, keys)) in
                    [(Direction::Send, secrets.tx), (Direction::Receive, secrets.rx)]
                {
                    let ours = CryptoInfo::new(version, direction, number, &keys).unwrap();
                    let other = bytes_of(&Other::from_rustls(suite, (number, keys)).unwrap());
                    let mut expected = other.clone();
                    if is_moved && direction == Direction::Send {
                        let iv = u64::from_be_bytes(other[4..12].try_into().unwrap());
                        expected[4..12].copy_from_slice(&iv.wrapping_add(1 << 62).to_be_bytes());
                        assert_ne!(ours.as_bytes(), other);
                    }
                    assert_eq!(ours.as_bytes(), expected, "{version:?} {cipher:?} {direction:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let (_, secrets) = secrets(Version::Tls13, Cipher::Aes128Gcm);
        let info = CryptoInfo::new(Version::Tls13, Direction::Send, 7, &secrets.tx.1).unwrap();
        assert_eq!(format!("{info:?}"), "CryptoInfo { version: Tls13, cipher: Aes128Gcm, .. }");
    }
}
