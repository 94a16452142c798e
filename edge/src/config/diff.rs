//! What a reload changes: the new snapshot, the keys that take effect, the keys that must wait.
//!
//! All or nothing is guaranteed before this: only a complete, valid configuration gets here. Keys that
//! need a restart keep their running value in the merged snapshot, so the snapshot never lies.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    Access, Admin, CertificateEntry, Config, Limits, Listen, Log, Reload, Section, Shutdown, Tls,
    VhostSettings, Workers,
};

/// One changed key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// `section.key`, or `vhost."NAME"` for a vhost that came or went.
    pub key: String,
    /// Running value as in a file; secrets hidden.
    pub from: String,
    /// New value.
    pub to: String,
}

/// Outcome of comparing two configurations.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Changes {
    /// Keys that take effect now.
    pub changed: Vec<Change>,
    /// Keys that differ but keep their running value until the next start.
    pub restart_required: Vec<Change>,
}

/// The configuration to run with after a reload, and what differs from the running one.
pub fn merge(running: &Config, new: Config) -> (Config, Changes) {
    let mut merged = new;
    let mut changes = Changes::default();

    macro_rules! compare {
        ($($field:ident: $type:ident),*) => {$(
            for spec in $type::KEYS {
                if running.$field.same_key(&merged.$field, spec.name) { continue; }
                let change = Change {
                    key: format!("{}.{}", stringify!($field), spec.name),
                    from: running.$field.show(spec.name),
                    to: merged.$field.show(spec.name),
                };
                match spec.reload {
                    Reload::Live => changes.changed.push(change),
                    Reload::Restart => {
                        merged.$field.copy_key(&running.$field, spec.name);
                        changes.restart_required.push(change);
                    }
                }
            }
        )*};
    }
    super::for_each_section!(compare);
    compare_vhosts(running, &merged, &mut changes);
    compare_certificates(running, &merged, &mut changes);
    compare_domains(running, &merged, &mut changes);
    (merged, changes)
}

fn compare_certificates(running: &Config, merged: &Config, changes: &mut Changes) {
    let (old, new) = (&running.certificates, &merged.certificates);
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names {
        if old.get(name) != new.get(name) {
            let shown = |entry: Option<&CertificateEntry>| {
                entry.map_or_else(|| "absent".to_owned(), |entry| entry.show("cert"))
            };
            let (from, to) = (shown(old.get(name)), shown(new.get(name)));
            changes.changed.push(Change { key: format!("certificate.\"{name}\""), from, to });
        }
    }
}

fn compare_vhosts(running: &Config, merged: &Config, changes: &mut Changes) {
    let presence = |present: bool| if present { "present" } else { "absent" }.to_owned();
    let mut names: Vec<_> = running.vhosts.keys().chain(merged.vhosts.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (old, new) = (running.vhosts.get(name), merged.vhosts.get(name));
        let (Some(old), Some(new)) = (old, new) else {
            let (from, to) = (presence(old.is_some()), presence(new.is_some()));
            changes.changed.push(Change { key: format!("vhost.\"{name}\""), from, to });
            continue;
        };
        for spec in VhostSettings::KEYS {
            if !old.same_key(new, spec.name) {
                changes.changed.push(Change {
                    key: format!("vhost.\"{name}\".{}", spec.name),
                    from: old.show(spec.name),
                    to: new.show(spec.name),
                });
            }
        }
    }
}

/// Domains that came, went or differ. What differs inside is not shown: it may be a key.
fn compare_domains(running: &Config, merged: &Config, changes: &mut Changes) {
    let mut names: Vec<_> = running.domains.keys().chain(merged.domains.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (old, new) = (running.domains.get(name), merged.domains.get(name));
        if old == new {
            continue;
        }
        let shown =
            |spec: Option<_>, other| if spec.is_some() { other } else { "absent" }.to_owned();
        let (from, to) = (shown(old, "present"), shown(new, "present"));
        let to = if old.is_some() && new.is_some() { "changed".to_owned() } else { to };
        changes.changed.push(Change { key: format!("domain.\"{name}\""), from, to });
    }
}
