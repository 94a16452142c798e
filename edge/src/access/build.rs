//! From a provider as people write it to one that can be asked: defaults filled in, keys and files read.
//!
//! Control thread only. Errors name fields and files and never hold a key.

use std::collections::HashMap;

use super::providers::jwt::{Jwt, KeySet};
use super::providers::oss::{AccessKey, SignedUrl};
use super::providers::usersig::{RoomPlace, TicketKeys, UserSig};
use super::providers::{Keys, Provider, aliyun, ip, txsecret};
use super::secret::{SecretText, read_file};
use super::spec::{ProviderSpec, Scheme};

/// Validity of a type A address whose domain does not say, in seconds.
const ALIYUN_VALIDITY_S: u64 = 1_800;

/// Key sets fetched so far: text by address.
pub type KeySets = HashMap<String, String>;

/// Builds a provider that answers by itself.
///
/// # Errors
/// A phrase that continues "provider N: ".
pub(super) fn provider(spec: &ProviderSpec, key_sets: &KeySets) -> Result<Provider, String> {
    Ok(match spec.scheme {
        // The hook is not asked here; the caller keeps it apart.
        Scheme::Open | Scheme::Hook => Provider::Open,
        Scheme::Txsecret => Provider::TxSecret(txsecret::TxSecret {
            keys: keys(spec)?,
            validity_s: spec.validity_s.unwrap_or(0),
        }),
        Scheme::AliyunA => Provider::Aliyun(aliyun::AuthKey {
            keys: keys(spec)?,
            validity_s: spec.validity_s.unwrap_or(ALIYUN_VALIDITY_S),
            timestamp_is_expiry: spec.timestamp_is_expiry.unwrap_or(false),
        }),
        Scheme::Oss => Provider::Oss(oss(spec)?),
        Scheme::Usersig => Provider::UserSig(usersig(spec)?),
        Scheme::Jwt => Provider::Jwt(jwt(spec, key_sets)?),
        Scheme::Ip => {
            let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
            Provider::Ip(ip::Lists::parse(&list(&spec.allow), &list(&spec.deny))?)
        }
    })
}

fn main_and_backup(
    spec: &ProviderSpec,
) -> Result<(Option<SecretText>, Option<SecretText>), String> {
    Ok((spec.key_place().read()?, spec.backup_place().read()?))
}

fn keys(spec: &ProviderSpec) -> Result<Keys, String> {
    let (main, backup) = main_and_backup(spec)?;
    let main = main.ok_or_else(|| "needs key, key_file or key_env".to_owned())?;
    Ok(Keys::new(main, backup))
}

fn oss(spec: &ProviderSpec) -> Result<SignedUrl, String> {
    let (main, backup) = main_and_backup(spec)?;
    let id = spec.access_key_id.as_deref().unwrap_or_default();
    let backup_id = spec.backup_access_key_id.as_deref().unwrap_or(id);
    let pairs = [(id, main), (backup_id, backup)];
    let key = |(id, secret): (&str, Option<SecretText>)| {
        secret.map(|secret| AccessKey { id: Box::from(id), secret })
    };
    Ok(SignedUrl {
        keys: pairs.into_iter().filter_map(key).collect(),
        bucket: spec.bucket.as_deref().map(Box::from),
        public_write: spec.public_write.unwrap_or(false),
    })
}

fn usersig(spec: &ProviderSpec) -> Result<UserSig, String> {
    let (main, backup) = main_and_backup(spec)?;
    let mut keys =
        TicketKeys { shared: main.map(|main| Keys::new(main, backup)), ..TicketKeys::default() };
    if let Some(path) = &spec.public_key_file {
        let at = |error: &str| format!("public_key_file {}: {error}", path.display());
        let pem = read_file(path).map_err(|error| at(&error))?;
        keys.public.add_pem(&pem).map_err(at)?;
    }
    Ok(UserSig {
        keys,
        sdk_app_id: spec.sdk_app_id.unwrap_or(0),
        private_map_key: spec.private_map_key.unwrap_or(false),
        room: match spec.room_in_app {
            Some(true) => RoomPlace::App,
            _ => RoomPlace::Stream,
        },
    })
}

fn jwt(spec: &ProviderSpec, key_sets: &KeySets) -> Result<Jwt, String> {
    let mut set = KeySet::default();
    let (main, backup) = main_and_backup(spec)?;
    let signing_key = main.clone();
    for secret in [main, backup].into_iter().flatten() {
        // A private key in PEM signs new addresses; what it signed is checked by its public half.
        if !secret.expose().contains("-----BEGIN ") {
            set.extend(KeySet::of_secret(&secret));
        }
    }
    if let Some(path) = &spec.public_key_file {
        let at = |error: String| format!("public_key_file {}: {error}", path.display());
        let pem = read_file(path).map_err(at)?;
        set.extend(KeySet::of_public_pem(&pem).map_err(|error| at(error.to_string()))?);
    }
    if let Some(path) = &spec.jwks_file {
        let at = |error: String| format!("jwks_file {}: {error}", path.display());
        let json = read_file(path).map_err(at)?;
        set.extend(KeySet::of_jwks(&json).map_err(|error| at(error.to_string()))?);
    }
    // What was fetched has been checked; before the first fetch no token of it passes.
    if let Some(json) = spec.jwks_url.as_ref().and_then(|url| key_sets.get(url)) {
        set.extend(KeySet::of_jwks(json).map_err(|error| format!("jwks_url: {error}"))?);
    }
    let mut jwt = Jwt::new(set);
    jwt.signing_key = signing_key;
    for name in spec.algorithms.iter().flatten() {
        let algorithm = name.parse().map_err(|_| format!("algorithms: {name:?} is unknown"))?;
        jwt.algorithms.push(algorithm);
    }
    if let Some(params) = &spec.token_params {
        jwt.params = params.iter().map(|name| Box::from(name.as_str())).collect();
    }
    jwt.leeway_s = spec.leeway_s.unwrap_or(jwt.leeway_s);
    jwt.issuer = spec.issuer.as_deref().map(Box::from);
    jwt.audience = spec.audience.as_deref().map(Box::from);
    Ok(jwt)
}

/// Whether a fetched text is a key set that can be used.
///
/// # Errors
/// A phrase.
pub fn check_key_set(json: &str) -> Result<(), String> {
    KeySet::of_jwks(json).map(drop).map_err(|error| error.to_string())
}
