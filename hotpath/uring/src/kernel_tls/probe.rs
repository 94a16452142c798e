//! What TLS this kernel offers, found out once at start by trying it on loopback connections.
//!
//! There is no other way to ask: a module may be missing, a cipher may be compiled out, and whether
//! keys can be replaced shows only when one tries. One pair of sockets per cipher and version, each
//! with keys of zeros under which nothing is ever sent; where TLS is missing, one pair and no more.

use super::{attach, limit_records, set_keys};
use crate::io::TlsDirection;
use crate::probe::{Feature, FeatureState};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

const NO_TLS: &str = "there is no TLS in the kernel";

/// A cipher the kernel may know, of those we negotiate.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TlsCipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM (5.1).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (5.11).
    Chacha20Poly1305,
}

impl TlsCipher {
    const ALL: [TlsCipher; 3] =
        [TlsCipher::Aes128Gcm, TlsCipher::Aes256Gcm, TlsCipher::Chacha20Poly1305];

    /// The number of linux/tls.h, as in a `tls12_crypto_info`.
    pub const fn number(self) -> u16 {
        match self {
            TlsCipher::Aes128Gcm => 51,
            TlsCipher::Aes256Gcm => 52,
            TlsCipher::Chacha20Poly1305 => 54,
        }
    }

    /// The word of the log and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            TlsCipher::Aes128Gcm => "aes-128-gcm",
            TlsCipher::Aes256Gcm => "aes-256-gcm",
            TlsCipher::Chacha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// Size of its `tls12_crypto_info`: version, cipher, IV, key, salt, sequence number.
    const fn info_bytes(self) -> usize {
        match self {
            TlsCipher::Aes128Gcm => 4 + 8 + 16 + 4 + 8,
            TlsCipher::Aes256Gcm => 4 + 8 + 32 + 4 + 8,
            TlsCipher::Chacha20Poly1305 => 4 + 12 + 32 + 8,
        }
    }
}

/// A version of TLS the kernel may know.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TlsVersion {
    /// TLS 1.2 (4.13).
    Tls12,
    /// TLS 1.3 (5.1).
    Tls13,
}

impl TlsVersion {
    const ALL: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];

    /// The number on the wire, as in a `tls12_crypto_info`.
    pub const fn number(self) -> u16 {
        match self {
            TlsVersion::Tls12 => 0x0303,
            TlsVersion::Tls13 => 0x0304,
        }
    }

    /// The word of the log and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        }
    }
}

/// How the kernel stands to one cipher of one version.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TlsSupport {
    /// The cipher.
    pub cipher: TlsCipher,
    /// The version.
    pub version: TlsVersion,
    /// It took keys to send, or the errno.
    pub send: Result<(), i32>,
    /// It took keys to receive, or the errno.
    pub receive: Result<(), i32>,
}

impl TlsSupport {
    /// In both directions.
    pub fn is_full(&self) -> bool {
        self.send.is_ok() && self.receive.is_ok()
    }
}

/// What [`probe_kernel_tls`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelTls {
    /// TLS can be attached to a connection.
    pub attach: FeatureState,
    /// Each cipher of each version; empty when TLS cannot be attached.
    pub ciphers: Vec<TlsSupport>,
    /// Keys in use can be replaced, so a peer's key update does not end its connection.
    pub rekey: FeatureState,
    /// The size of the records we send can be limited.
    pub record_limit: FeatureState,
}

impl KernelTls {
    /// Whether any cipher serves in both directions.
    pub fn is_on(&self) -> bool {
        self.ciphers.iter().any(TlsSupport::is_full)
    }

    /// Whether keys of this form (a `tls12_crypto_info`, of which only version and cipher are read)
    /// would be taken in both directions.
    pub fn takes(&self, crypto_info: &[u8]) -> bool {
        let &[a, b, c, d, ..] = crypto_info else { return false };
        let (version, cipher) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
        self.ciphers.iter().any(|support| {
            support.is_full()
                && (support.version.number(), support.cipher.number()) == (version, cipher)
        })
    }

    /// The same as lines for the log, like those of an `Io`: what is refused names its remedy.
    pub fn features(&self) -> Vec<Feature> {
        let line =
            |name, since, state: &FeatureState| Feature { name, since, state: state.clone() };
        vec![
            line("kernel_tls", "4.17", &self.attach),
            line("kernel_tls_ciphers", "5.11", &self.ciphers_state()),
            line("kernel_tls_rekey", "6.14", &self.rekey),
            line("kernel_tls_record_limit", "6.19", &self.record_limit),
        ]
    }

    /// All ciphers, or what the first one lacking was refused with.
    fn ciphers_state(&self) -> FeatureState {
        if self.attach != FeatureState::On {
            return FeatureState::Off { reason: NO_TLS };
        }
        let refused = self.ciphers.iter().find_map(|cipher| cipher.send.and(cipher.receive).err());
        let Some(errno) = refused else { return FeatureState::On };
        let (reason, fix) = match errno {
            libc::ENOENT => (
                "the kernel could not load the module of a cipher",
                "modprobe -a gcm chacha20poly1305 (aesni_intel on x86 for speed); until then \
                 such connections are encrypted in user space",
            ),
            _ => (
                "this kernel does not know all ciphers",
                "run Linux 6.1 or later; until then such connections are encrypted in user space",
            ),
        };
        FeatureState::Refused { errno, reason, fix }
    }

    fn without(attach: FeatureState) -> KernelTls {
        let off = FeatureState::Off { reason: NO_TLS };
        KernelTls { attach, ciphers: Vec::new(), rekey: off.clone(), record_limit: off }
    }
}

/// One line: on or off, why and what to do, or what is there.
impl fmt::Display for KernelTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kernel TLS: ")?;
        match &self.attach {
            FeatureState::On if !self.is_on() => f.write_str("on, but without any cipher")?,
            FeatureState::On => f.write_str("on")?,
            FeatureState::Off { reason } => write!(f, "off ({reason})")?,
            FeatureState::Refused { errno, reason, fix } => {
                write!(f, "refused with errno {errno} ({reason}); {fix}")?;
            }
        }
        for support in &self.ciphers {
            write!(f, "; {} {}", support.cipher.name(), support.version.name())?;
            match (support.send, support.receive) {
                (Ok(()), Ok(())) => {}
                (Ok(()), Err(errno)) => write!(f, " not to receive (errno {errno})")?,
                (Err(errno), Ok(())) => write!(f, " not to send (errno {errno})")?,
                (Err(errno), Err(_)) => write!(f, " refused (errno {errno})")?,
            }
        }
        if self.ciphers.is_empty() {
            return Ok(());
        }
        let word = |state: &FeatureState| if *state == FeatureState::On { "yes" } else { "no" };
        write!(f, "; rekey {}, record limit {}", word(&self.rekey), word(&self.record_limit))
    }
}

/// Tries TLS by the kernel on loopback connections. Well under 5 ms, unless the kernel looks for its
/// module first, as it does for a privileged process.
pub fn probe_kernel_tls() -> KernelTls {
    let first = pair().and_then(|(socket, _other)| attach(&socket));
    if let Err(error) = first {
        return KernelTls::without(refusal(&error));
    }
    let mut found = KernelTls::without(FeatureState::On);
    for cipher in TlsCipher::ALL {
        for version in TlsVersion::ALL {
            found.try_cipher(cipher, version);
        }
    }
    found
}

impl KernelTls {
    fn try_cipher(&mut self, cipher: TlsCipher, version: TlsVersion) {
        let mut support = TlsSupport { cipher, version, send: Err(0), receive: Err(0) };
        match pair().and_then(|(socket, other)| attach(&socket).map(|()| (socket, other))) {
            Ok((socket, _other)) => {
                let info = blank_info(cipher, version);
                let set = |direction| set_keys(&socket, direction, &info);
                support.send = set(TlsDirection::Send).map_err(|error| errno(&error));
                support.receive = set(TlsDirection::Receive).map_err(|error| errno(&error));
                // Keys can be replaced in 1.3 only, and one cipher answers for all.
                if support.is_full()
                    && (cipher, version) == (TlsCipher::Aes128Gcm, TlsVersion::Tls13)
                {
                    self.record_limit = limit_state(limit_records(&socket, 8 * 1024));
                    self.rekey = rekey_state(set(TlsDirection::Send));
                }
            }
            Err(error) => {
                (support.send, support.receive) = (Err(errno(&error)), Err(errno(&error)))
            }
        }
        self.ciphers.push(support);
    }
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let other = TcpStream::connect(listener.local_addr()?)?;
    Ok((listener.accept()?.0, other))
}

/// Keys of zeros.
fn blank_info(cipher: TlsCipher, version: TlsVersion) -> Vec<u8> {
    let mut info = vec![0; cipher.info_bytes()];
    info[..2].copy_from_slice(&version.number().to_ne_bytes());
    info[2..4].copy_from_slice(&cipher.number().to_ne_bytes());
    info
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn refusal(error: &io::Error) -> FeatureState {
    let errno = errno(error);
    let (reason, fix) = match errno {
        libc::ENOENT => (
            "the tls module is not loaded, or the kernel was built without CONFIG_TLS",
            "modprobe tls, and write tls to /etc/modules-load.d/tls.conf to keep it",
        ),
        libc::ENOPROTOOPT => {
            ("the kernel is older than TLS in the kernel", "run Linux 6.1 or later")
        }
        libc::EPERM | libc::EACCES => {
            ("a security policy forbids it", "allow setsockopt with TCP_ULP in the seccomp profile")
        }
        _ => ("the loopback connection to try it on failed", "see the errno"),
    };
    FeatureState::Refused { errno, reason, fix }
}

fn rekey_state(result: io::Result<()>) -> FeatureState {
    match result {
        Ok(()) => FeatureState::On,
        Err(error) => FeatureState::Refused {
            errno: errno(&error),
            reason: "this kernel keeps the first key of a connection for good",
            fix: "run Linux 6.14 or later; until then a peer's key update ends its connection",
        },
    }
}

fn limit_state(result: io::Result<()>) -> FeatureState {
    match result {
        Ok(()) => FeatureState::On,
        Err(error) => FeatureState::Refused {
            errno: errno(&error),
            reason: "this kernel has no limit for records",
            fix: "nothing to do: records are as large as what is sent at once, up to 16 KiB",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> KernelTls {
        let mut found = KernelTls::without(FeatureState::On);
        for cipher in TlsCipher::ALL {
            for version in TlsVersion::ALL {
                let support = TlsSupport { cipher, version, send: Ok(()), receive: Ok(()) };
                found.ciphers.push(support);
            }
        }
        found
    }

    #[test]
    fn a_missing_module_is_told_with_the_command_that_loads_it() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        let missing = KernelTls::without(refusal(&error));
        assert!(!missing.is_on() && !missing.takes(&[0; 40]));
        let text = missing.to_string();
        assert!(text.starts_with("kernel TLS: refused with errno 2 (the tls module"), "{text}");
        assert!(text.contains("modprobe tls"), "{text}");
        assert!(missing.features()[0].to_string().contains("modprobe tls"));
    }

    #[test]
    fn keys_are_judged_by_version_and_cipher_in_both_directions() {
        let mut found = full();
        let info = blank_info(TlsCipher::Aes256Gcm, TlsVersion::Tls13);
        assert!(found.is_on() && found.takes(&info));
        assert!(!found.takes(&info[..3]) && !found.takes(&[]));
        assert!(!found.takes(&[9; 56]));
        assert_eq!(found.ciphers_state(), FeatureState::On);
        found.ciphers[3].receive = Err(libc::ENOENT);
        assert!(found.is_on() && !found.takes(&info));
        let text = found.to_string();
        assert!(text.contains("aes-256-gcm 1.3 not to receive (errno 2)"), "{text}");
        assert!(found.features()[1].to_string().contains("modprobe -a gcm"));
        assert!(text.contains("; chacha20-poly1305 1.3; rekey no"), "{text}");
    }

    #[test]
    fn the_probe_answers_for_this_kernel_and_contradicts_itself_nowhere() {
        let found = probe_kernel_tls();
        println!("{found}");
        for feature in found.features() {
            println!("{feature}");
        }
        match &found.attach {
            FeatureState::On => assert_eq!(found.ciphers.len(), 6),
            FeatureState::Refused { errno, .. } => {
                assert!(found.ciphers.is_empty() && *errno != 0);
            }
            FeatureState::Off { .. } => panic!("nobody switches it off"),
        }
    }
}
