//! A client's end of a connection, plain or in TLS records.
//!
//! A run must not depend on what is random in a handshake: keys, nonces and their ciphertexts are, their
//! lengths are not. So the certificate is one of Ed25519, whose signatures are all of one length (those of
//! ECDSA are not), made of fixed bytes; and the network looks at lengths only.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use edge::worker::Secure;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber, date_time_ymd};
use tls::rustls::crypto::aws_lc_rs::default_provider;
use tls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tls::rustls::{ClientConfig, ServerConfig};
use tls::{ClientOptions, Roots, ServerOptions, Session, Version};
use uring::sim::SimPeer;
use uring::{FeatureState, KernelTls};

use super::dice::Dice;
use super::viewer::Sabotage;

const NAME: &str = "sim.test";
/// Plaintext sealed at once, in bytes.
const SEAL_BYTES_MAX: usize = 8_000;
/// The planted bug turns a bit over behind so many bytes of ciphertext.
const SPOILED_AT: u64 = 40_000;

/// PKCS #8 of an Ed25519 key that is nobody's.
fn key() -> PrivatePkcs8KeyDer<'static> {
    let mut der = vec![0x30, 0x2E, 2, 1, 0, 0x30, 5, 6, 3, 0x2B, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend((0..32).map(|byte| byte * 7 + 1));
    PrivatePkcs8KeyDer::from(der)
}

/// One certificate for all runs, and who trusts it: with TLS 1.3 and with 1.2.
struct Configs {
    server: Arc<ServerConfig>,
    clients: [Arc<ClientConfig>; 2],
}

fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key(), &PKCS_ED25519).expect("a key");
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        params.serial_number = Some(SerialNumber::from(1_u64));
        (params.not_before, params.not_after) =
            (date_time_ymd(2000, 1, 1), date_time_ymd(2999, 1, 1));
        let certificate = params.self_signed(&pair).expect("valid parameters");
        let chain = vec![certificate.der().clone()];
        let certified =
            CertifiedKey::from_der(chain, PrivateKeyDer::Pkcs8(key()), &default_provider());
        let resolver = SingleCertAndKey::from(certified.expect("key and certificate fit"));
        let server = tls::server_config(Arc::new(resolver), &ServerOptions::default());
        let client = |version_max| {
            let roots = Roots::Pem(certificate.pem().into_bytes());
            let options =
                ClientOptions { version_max, sessions_max: 0, ..ClientOptions::default() };
            tls::client_config_with(roots, &options).expect("a client's options")
        };
        Configs {
            server: server.expect("a server's options"),
            clients: [client(Version::Tls13), client(Version::Tls12)],
        }
    })
}

/// What a worker needs for TLS; records are made here, since the kernel makes none.
pub fn secure() -> Arc<Secure> {
    let off = FeatureState::Off { reason: "simulated" };
    let kernel = KernelTls {
        attach: off.clone(),
        ciphers: Vec::new(),
        rekey: off.clone(),
        record_limit: off,
    };
    Arc::new(Secure { config: Arc::clone(&configs().server), kernel })
}

/// One end of a connection.
#[derive(Debug)]
pub struct Wire {
    peer: SimPeer,
    records: Option<Box<Records>>,
}

#[derive(Debug)]
struct Records {
    session: Session,
    has_begun: bool,
    /// Sealed, and not yet taken by the socket.
    out: Vec<u8>,
    received_bytes: u64,
    has_goodbye: bool,
    sabotage: Sabotage,
}

impl Wire {
    pub fn plain(peer: SimPeer) -> Self {
        Self { peer, records: None }
    }

    pub fn secure(peer: SimPeer, dice: &mut Dice, sabotage: Sabotage) -> Self {
        let config = Arc::clone(dice.pick(&[&configs().clients[0], &configs().clients[1]]));
        let name = tls::server_name(NAME).expect("a name");
        let session = Session::client(config, name).expect("randomness");
        let records = Records {
            session,
            has_begun: false,
            out: Vec::new(),
            received_bytes: 0,
            has_goodbye: false,
            sabotage,
        };
        Self { peer, records: Some(Box::new(records)) }
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.peer.local_addr()
    }

    pub fn is_connected(&self) -> bool {
        self.peer.is_connected()
    }

    pub fn error(&self) -> Option<i32> {
        self.peer.error()
    }

    pub fn is_eof(&self) -> bool {
        self.peer.is_eof()
    }

    /// The other end went without a goodbye: what came may have been cut off.
    pub fn is_truncated(&self) -> bool {
        let records = self.records.as_ref();
        self.is_eof() && records.is_some_and(|records| !records.has_goodbye)
    }

    /// Nothing sealed waits for room in the socket.
    pub fn is_flushed(&self) -> bool {
        self.records.as_ref().is_none_or(|records| records.out.is_empty())
    }

    /// Takes plaintext: of at most `bytes_max` bytes of the wire.
    pub fn read(&mut self, bytes_max: usize) -> Result<Vec<u8>, String> {
        let mut bytes = self.peer.read(bytes_max);
        let Some(records) = &mut self.records else { return Ok(bytes) };
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let before = records.received_bytes;
        records.received_bytes += bytes.len() as u64;
        let is_due = before < SPOILED_AT && records.received_bytes >= SPOILED_AT;
        if records.sabotage == Sabotage::SpoilRecord && is_due {
            *bytes.last_mut().expect("not empty") ^= 1;
        }
        let mut plain = Vec::new();
        let progress = records.session.handle_bytes(&bytes, &mut records.out, &mut plain);
        let progress = progress.map_err(|error| format!("TLS cannot be read: {error}"))?;
        let is_over = progress == tls::Progress::PeerClosed;
        records.has_goodbye = is_over && records.sabotage != Sabotage::HideGoodbye;
        Ok(plain)
    }

    /// Sends what fits of `bytes`, and returns how many that were: none before a handshake is over.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let Some(records) = &mut self.records else { return Ok(self.peer.write(bytes)) };
        if !self.peer.is_connected() {
            return Ok(0);
        }
        let named = |error| format!("TLS cannot be written: {error}");
        if !std::mem::replace(&mut records.has_begun, true) {
            records.session.start(&mut records.out).map_err(named)?;
        }
        let mut taken = 0;
        if records.out.is_empty() && !records.has_goodbye && records.session.facts().is_some() {
            taken = bytes.len().min(SEAL_BYTES_MAX);
            if taken > 0 {
                records.session.encrypt(&bytes[..taken], &mut records.out).map_err(named)?;
            }
        }
        let written = self.peer.write(&records.out);
        records.out.drain(..written);
        Ok(taken)
    }

    /// Ends in order: a TLS client says so, if its socket takes that.
    pub fn close(mut self) {
        if let Some(records) = &mut self.records
            && records.out.is_empty()
        {
            records.session.close_notify(&mut records.out);
            self.peer.write(&records.out);
        }
    }

    /// Ends with a reset.
    pub fn reset(self) {
        self.peer.reset();
    }
}
