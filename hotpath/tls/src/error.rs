//! What can go wrong with a TLS peer or a configuration, sorted so that a metric and a log line follow.
//!
//! | kind | meaning | alert to the peer |
//! |---|---|---|
//! | `NotTls` | the first byte is no TLS record | none: the peer could not read it |
//! | `HelloTooLarge`, `HeldTooLarge` | more bytes than one peer may cost | plain, during the hello only |
//! | `Malformed`, `Misbehaved`, `Undecryptable` | the peer's bytes are wrong | by the library |
//! | `Incompatible`, `NoCertificate` | legal, but nothing in common | by the library |
//! | `Certificate` | the server's certificate is refused (client side) | by the library |
//! | `AlertReceived` | the peer gave up | none |
//! | `Truncated` | the connection ended without `close_notify` | none |
//! | `KeysExhausted` | no more records under these keys, and no others to be had | `close_notify` |
//! | `NotReady`, `Configuration`, `Internal` | ours, not the peer's | none or internal error |

use std::fmt;

use rustls::{AlertDescription, CertificateError, PeerIncompatible};

/// An error of one session or of a configuration; knows the name the client asked for.
#[derive(Clone, Debug)]
pub struct TlsError {
    kind: ErrorKind,
    sni: Option<Box<str>>,
    alert: Option<u8>,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer speaks something else.
    NotTls(Plaintext),
    /// The client hello is longer than [`HELLO_BYTES_MAX`](crate::HELLO_BYTES_MAX).
    HelloTooLarge,
    /// The peer keeps a handshake message unfinished beyond what may be held for it.
    HeldTooLarge {
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// Bytes that do not parse; the text names the message.
    Malformed(Box<str>),
    /// Bytes that parse and break the protocol.
    Misbehaved(Box<str>),
    /// A record does not decrypt: wrong keys, or changed on the way.
    Undecryptable,
    /// No version, suite, group or signature scheme in common.
    Incompatible(Box<str>),
    /// The resolver had no certificate for this client.
    NoCertificate,
    /// The server's certificate is refused.
    Certificate(CertificateProblem, Box<str>),
    /// The peer sent a fatal alert, by its number (RFC 8446 §6).
    AlertReceived(u8),
    /// End of stream without `close_notify`: what came last may be missing.
    Truncated,
    /// The keys have encrypted as many records as they may, and there are no others: TLS 1.2 has none; in
    /// another process than the handshake only so many were derived ahead.
    KeysExhausted,
    /// A call that this state of the session does not allow.
    NotReady(&'static str),
    /// Options, certificates or roots that cannot be used.
    Configuration(Box<str>),
    /// The library or the system failed.
    Internal(Box<str>),
}

/// What a peer without TLS seems to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// Version byte of an RTMP handshake.
    Rtmp,
    /// A capital letter: the method of an HTTP request or, from a server, the start of its answer.
    Http,
    /// Any other first byte.
    Other(u8),
}

/// Why a certificate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// Its validity is over.
    Expired,
    /// Its validity has not begun.
    NotYetValid,
    /// Issued for other names.
    WrongName,
    /// No root vouches for it.
    UnknownIssuer,
    /// Anything else; the text says what.
    Other,
}

/// Result of what a session or a configuration does.
pub(crate) type Result<T> = std::result::Result<T, TlsError>;

impl TlsError {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The host name the client asked for, where it was known by then.
    pub fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// Label for metrics: few, short, stable.
    pub fn label(&self) -> &'static str {
        match &self.kind {
            ErrorKind::NotTls(Plaintext::Rtmp) => "plain_rtmp",
            ErrorKind::NotTls(Plaintext::Http) => "plain_http",
            ErrorKind::NotTls(Plaintext::Other(_)) => "not_tls",
            ErrorKind::HelloTooLarge => "hello_too_large",
            ErrorKind::HeldTooLarge { .. } => "held_too_large",
            ErrorKind::Malformed(_) => "malformed",
            ErrorKind::Misbehaved(_) => "misbehaved",
            ErrorKind::Undecryptable => "undecryptable",
            ErrorKind::Incompatible(_) => "incompatible",
            ErrorKind::NoCertificate => "no_certificate",
            ErrorKind::Certificate(problem, _) => match problem {
                CertificateProblem::Expired => "certificate_expired",
                CertificateProblem::NotYetValid => "certificate_not_yet_valid",
                CertificateProblem::WrongName => "certificate_wrong_name",
                CertificateProblem::UnknownIssuer => "certificate_unknown_issuer",
                CertificateProblem::Other => "certificate_other",
            },
            ErrorKind::AlertReceived(_) => "alert_received",
            ErrorKind::Truncated => "truncated",
            ErrorKind::KeysExhausted => "keys_exhausted",
            ErrorKind::NotReady(_) => "not_ready",
            ErrorKind::Configuration(_) => "configuration",
            ErrorKind::Internal(_) => "internal",
        }
    }

    /// Payload of the alert record (type 21) this error asks for, when the kernel has the records and
    /// the caller must send it. A [`Session`](crate::Session) has put its alert into `out` already.
    pub fn kernel_alert(&self) -> Option<[u8; 2]> {
        const LEVEL_FATAL: u8 = 2;
        self.alert.map(|description| [LEVEL_FATAL, description])
    }

    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self { kind, sni: None, alert: None }
    }

    pub(crate) fn configuration(text: impl Into<Box<str>>) -> Self {
        Self::new(ErrorKind::Configuration(text.into()))
    }

    pub(crate) fn with_sni(self, sni: Option<&str>) -> Self {
        Self { sni: sni.map(Into::into), ..self }
    }

    pub(crate) fn with_alert(self, alert: AlertDescription) -> Self {
        Self { alert: Some(u8::from(alert)), ..self }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error;
        Self::new(match error {
            Error::InvalidMessage(what) => ErrorKind::Malformed(format!("{what:?}").into()),
            Error::PeerSentOversizedRecord => ErrorKind::Malformed("OversizedRecord".into()),
            Error::PeerMisbehaved(what) => ErrorKind::Misbehaved(format!("{what:?}").into()),
            Error::InappropriateMessage { got_type, .. } => {
                ErrorKind::Misbehaved(format!("{got_type:?} record out of place").into())
            }
            Error::InappropriateHandshakeMessage { got_type, .. } => {
                ErrorKind::Misbehaved(format!("{got_type:?} message out of place").into())
            }
            Error::DecryptError => ErrorKind::Undecryptable,
            Error::PeerIncompatible(what) => ErrorKind::Incompatible(incompatibility(what)),
            Error::NoApplicationProtocol => {
                ErrorKind::Incompatible("no ALPN protocol in common".into())
            }
            Error::AlertReceived(alert) => ErrorKind::AlertReceived(u8::from(alert)),
            Error::NoCertificatesPresented => {
                ErrorKind::Certificate(CertificateProblem::Other, "the server sent none".into())
            }
            Error::InvalidCertificate(problem) => {
                ErrorKind::Certificate(problem_of(&problem), problem.to_string().into())
            }
            // The library has no variant for this one; a test holds the text.
            Error::General(text) if text == "no server certificate chain resolved" => {
                ErrorKind::NoCertificate
            }
            other => ErrorKind::Internal(other.to_string().into()),
        })
    }
}

fn incompatibility(what: PeerIncompatible) -> Box<str> {
    match what {
        PeerIncompatible::NoCipherSuitesInCommon => "no cipher suite in common".into(),
        PeerIncompatible::NoKxGroupsInCommon => "no key exchange group in common".into(),
        PeerIncompatible::NoSignatureSchemesInCommon => "no signature scheme in common".into(),
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::ServerDoesNotSupportTls12Or13 => {
            format!("no TLS version in common ({what:?})").into()
        }
        other => format!("{other:?}").into(),
    }
}

fn problem_of(error: &CertificateError) -> CertificateProblem {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            CertificateProblem::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateProblem::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateProblem::WrongName
        }
        CertificateError::UnknownIssuer => CertificateProblem::UnknownIssuer,
        _ => CertificateProblem::Other,
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::NotTls(Plaintext::Rtmp) => {
                f.write_str("plain RTMP on a TLS port: the client must use rtmps://")
            }
            ErrorKind::NotTls(Plaintext::Http) => f.write_str("plain HTTP where TLS was expected"),
            ErrorKind::NotTls(Plaintext::Other(byte)) => {
                write!(f, "not TLS: the first byte is {byte:#04x}, a record would start with 0x16")
            }
            ErrorKind::HelloTooLarge => {
                write!(f, "client hello of more than {} bytes", crate::HELLO_BYTES_MAX)
            }
            ErrorKind::HeldTooLarge { bytes_max } => {
                write!(f, "handshake message still unfinished after {bytes_max} bytes")
            }
            ErrorKind::Malformed(what) => write!(f, "malformed TLS message: {what}"),
            ErrorKind::Misbehaved(what) => write!(f, "TLS protocol broken by the peer: {what}"),
            ErrorKind::Undecryptable => f.write_str("a TLS record does not decrypt"),
            ErrorKind::Incompatible(what) => write!(f, "nothing in common with the peer: {what}"),
            ErrorKind::NoCertificate => f.write_str("no certificate for this client"),
            ErrorKind::Certificate(_, what) => write!(f, "certificate refused: {what}"),
            ErrorKind::AlertReceived(number) => {
                write!(f, "the peer gave up: {:?} ({number})", AlertDescription::from(*number))
            }
            ErrorKind::Truncated => f.write_str("connection ended without close_notify"),
            ErrorKind::KeysExhausted => f.write_str(
                "as many records as these keys may encrypt; the peer must connect again",
            ),
            ErrorKind::NotReady(what) => write!(f, "call out of order: {what}"),
            ErrorKind::Configuration(what) => write!(f, "TLS configuration: {what}"),
            ErrorKind::Internal(what) => write!(f, "TLS failed: {what}"),
        }?;
        match &self.sni {
            Some(name) => write!(f, " (name {name})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TlsError {}
