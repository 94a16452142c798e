//! Keys of tokens: read from a secret, a PEM file or a JSON web key set; each with what it may be used for.
//!
//! A key knows its algorithms, so a public key is never taken as a secret of HMAC. Reading happens when the
//! rules are built; checking a token allocates nothing here.

use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};

use super::{
    Algorithm, AlgorithmParameters, DecodingKey, EllipticCurve, EncodingKey, Header, Jwk, JwkSet,
    PublicKeyUse, SecretText, Serialize,
};

/// Keys of one domain.
const KEYS_MAX: usize = 64;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const EDWARDS: &[Algorithm] = &[Algorithm::EdDSA];

/// Why a key cannot be used. Never holds any of it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct KeyError(pub(super) &'static str);

impl KeyError {
    /// The phrase.
    pub fn text(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for KeyError {}

#[derive(Clone)]
struct Entry {
    id: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Keys that tokens may be signed with.
#[derive(Clone, Default)]
pub struct KeySet {
    entries: Vec<Entry>,
}

impl KeySet {
    /// A secret for HS256, HS384 and HS512.
    pub fn of_secret(secret: &SecretText) -> Self {
        Self::of(HMAC, DecodingKey::from_secret(secret.expose().as_bytes()))
    }

    /// The first public key of a PEM text: RSA, P-256, P-384 or Ed25519.
    ///
    /// # Errors
    /// [`KeyError`] when there is none or it is of another kind.
    pub fn of_public_pem(pem: &str) -> Result<Self, KeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| KeyError("there is no PUBLIC KEY in this PEM text"))?;
        // Parsing fails for keys of another kind, curve or size, so it tells what a key is.
        if ParsedPublicKey::new(&signature::ED25519, &der).is_ok() {
            Ok(Self::of(EDWARDS, DecodingKey::from_ed_der(&der)))
        } else if ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &der).is_ok() {
            Ok(Self::of(P256, DecodingKey::from_ec_der(&der)))
        } else if ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, &der).is_ok() {
            Ok(Self::of(P384, DecodingKey::from_ec_der(&der)))
        } else if ParsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, &der).is_ok() {
            Ok(Self::of(RSA, DecodingKey::from_rsa_der(&der)))
        } else {
            Err(KeyError(
                "the public key is none of RSA (2048 bits or more), P-256, P-384, Ed25519",
            ))
        }
    }

    /// The signature keys of a JSON web key set. Keys of other kinds or uses are left out; shared secrets
    /// too, because a set is something that is given away.
    ///
    /// # Errors
    /// [`KeyError`] when the text is no key set, when nothing is left, and over 64 keys.
    pub fn of_jwks(json: &str) -> Result<Self, KeyError> {
        let set: JwkSet =
            serde_json::from_str(json).map_err(|_| KeyError("this is no JSON web key set"))?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeyError("the key set has more than 64 keys"));
        }
        let entries: Vec<Entry> = set.keys.iter().filter_map(entry_of).collect();
        if entries.is_empty() {
            return Err(KeyError(
                "the key set has no public key for RS, PS, ES or EdDSA signatures",
            ));
        }
        Ok(Self { entries })
    }

    /// Adds the keys of another set: backup keys, a file beside a secret.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.entries.truncate(KEYS_MAX);
    }

    /// Whether there is no key, so that no token can pass.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys that a token with this header may have been signed with.
    pub(super) fn candidates(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |entry: &&Entry| {
            let is_named = match (&entry.id, id) {
                (Some(known), Some(wanted)) => **known == *wanted,
                _ => true,
            };
            is_named && entry.algorithms.contains(&algorithm)
        };
        self.entries.iter().filter(fits).map(|entry| &entry.key)
    }

    fn of(algorithms: &[Algorithm], key: DecodingKey) -> Self {
        Self { entries: vec![Entry { id: None, algorithms: algorithms.to_vec(), key }] }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.entries.len())
    }
}

fn entry_of(jwk: &Jwk) -> Option<Entry> {
    let is_for_signatures = match &jwk.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => true,
        Some(_) => false,
    };
    let fitting = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA,
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => P256,
            EllipticCurve::P384 => P384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => EDWARDS,
        _ => return None,
    };
    let mut algorithms = fitting.to_vec();
    if let Some(named) = &jwk.common.key_algorithm {
        let named = named.to_string();
        algorithms.retain(|algorithm| format!("{algorithm:?}") == named);
    }
    let id = jwk.common.key_id.as_deref().map(Box::from);
    let key = DecodingKey::from_jwk(jwk).ok()?;
    (is_for_signatures && !algorithms.is_empty()).then_some(Entry { id, algorithms, key })
}

/// A key that makes tokens.
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    /// A PEM private key signs with RS256, ES256, ES384 or EdDSA, whichever it is for; any other text is a
    /// secret and signs with HS256.
    ///
    /// # Errors
    /// [`KeyError`] when it is a PEM text without a usable private key.
    pub fn new(text: &SecretText) -> Result<Self, KeyError> {
        if !text.expose().contains("-----BEGIN ") {
            let key = EncodingKey::from_secret(text.expose().as_bytes());
            return Ok(Self { algorithm: Algorithm::HS256, key });
        }
        let unusable = KeyError("there is no usable PRIVATE KEY in this PEM text");
        let der = PrivateKeyDer::from_pem_slice(text.expose().as_bytes()).map_err(|_| unusable)?;
        Self::of_private(der.secret_der()).ok_or(unusable)
    }

    fn of_private(der: &[u8]) -> Option<Self> {
        use aws_lc_rs::signature::{
            ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
            Ed25519KeyPair, RsaKeyPair,
        };
        let of = |algorithm, key| Some(Self { algorithm, key });
        if Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).is_ok() {
            of(Algorithm::EdDSA, EncodingKey::from_ed_der(der))
        } else if EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).is_ok() {
            of(Algorithm::ES256, EncodingKey::from_ec_der(der))
        } else if EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der).is_ok() {
            of(Algorithm::ES384, EncodingKey::from_ec_der(der))
        } else {
            // The library signs with the inner form only: PKCS#1.
            let inner = inner_rsa(der);
            RsaKeyPair::from_der(inner).ok()?;
            of(Algorithm::RS256, EncodingKey::from_rsa_der(inner))
        }
    }

    /// Makes a token of these claims.
    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        jsonwebtoken::encode(&Header::new(self.algorithm), claims, &self.key)
            .map_err(|_| KeyError("this key cannot sign"))
    }
}

/// The PKCS#1 key inside PKCS#8; anything else as it is. Every RSA key of a useful size has lengths of two
/// bytes there, so what stands around it has a fixed size; the caller's parser judges what is found.
fn inner_rsa(der: &[u8]) -> &[u8] {
    // version 0, rsaEncryption with NULL parameters, OCTET STRING with a length of two bytes
    const AROUND: [u8; 20] = [
        0x02, 0x01, 0x00, 0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01,
        0x01, 0x05, 0x00, 0x04, 0x82,
    ];
    // Before it: SEQUENCE and a length of two bytes. After it: the two bytes of the string's length.
    let inner =
        der.get(4..).and_then(|rest| rest.strip_prefix(&AROUND)).and_then(|rest| rest.get(2..));
    inner.unwrap_or(der)
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.algorithm)
    }
}
