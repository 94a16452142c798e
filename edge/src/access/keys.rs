//! A change of keys without a moment in which good addresses are refused.
//!
//! ```text
//!   key A                    addresses are signed with A
//!   add       A, backup B    both are good; hand B to those who sign
//!   switch    B, backup A    both are good; B is the main key now
//!   retire    B              addresses signed with A are refused from now on; streams that run stay
//! ```

use std::path::PathBuf;

use serde::Deserialize;

use super::manager::AccessError;
use super::secret::SecretText;
use super::spec::{DomainSpec, ProviderSpec, Scheme};

/// A key to come, in one of three ways.
#[derive(Clone, PartialEq, Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct NewKey {
    /// The key itself.
    pub key: Option<SecretText>,
    /// File that holds it.
    pub key_file: Option<PathBuf>,
    /// Environment variable of the server that holds it.
    pub key_env: Option<String>,
    /// oss: the access key id that goes with it.
    pub access_key_id: Option<String>,
}

/// One step of a change of keys.
#[derive(Clone, PartialEq, Debug)]
pub enum Rotation {
    /// Sets the backup key, which must be free.
    Add(NewKey),
    /// The two change places.
    Switch,
    /// Removes the backup key.
    Retire,
}

/// The spec after a step. A domain with several providers of one scheme has the step made in the first.
pub(super) fn rotated(
    spec: &DomainSpec,
    scheme: Scheme,
    step: Rotation,
) -> Result<DomainSpec, AccessError> {
    let mut spec = spec.clone();
    let conflict = |text: &str| Err(AccessError::Conflict(text.to_owned()));
    let Some(provider) = spec.provider.iter_mut().find(|provider| provider.scheme == scheme) else {
        let text = format!("it has no provider of the scheme {}", scheme.text());
        return Err(AccessError::Conflict(text));
    };
    let has_backup = provider.backup_place().count() > 0;
    match step {
        Rotation::Add(_) if has_backup => {
            return conflict("there is a backup key already: retire it first");
        }
        Rotation::Add(new) => set_backup(provider, new),
        Rotation::Switch | Rotation::Retire if !has_backup => {
            return conflict("there is no backup key: add one first");
        }
        Rotation::Switch => switch(provider),
        Rotation::Retire => set_backup(provider, NewKey::default()),
    }
    Ok(spec)
}

fn set_backup(provider: &mut ProviderSpec, new: NewKey) {
    provider.backup_key = new.key;
    provider.backup_key_file = new.key_file;
    provider.backup_key_env = new.key_env;
    provider.backup_access_key_id = new.access_key_id;
}

fn switch(provider: &mut ProviderSpec) {
    std::mem::swap(&mut provider.key, &mut provider.backup_key);
    std::mem::swap(&mut provider.key_file, &mut provider.backup_key_file);
    std::mem::swap(&mut provider.key_env, &mut provider.backup_key_env);
    if let Some(backup_id) = provider.backup_access_key_id.take() {
        provider.backup_access_key_id = provider.access_key_id.replace(backup_id);
    }
}
