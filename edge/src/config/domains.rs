//! `[domain."NAME"]` of the file: reading, checking against each other, the reference.
//!
//! The shape of a domain is [`DomainSpec`], shared with the admin API and the store; this file only finds
//! its tables and says where in the file something is wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use toml::de::{DeTable, DeValue};

use super::load::in_order;
use super::reference::comment;
use super::{Config, DOMAINS_MAX};
use crate::access::build::KeySets;
use crate::access::domain::Domain;
use crate::access::spec::{DomainSpec, normal_name};

/// Reads all domains: those that can be read, and what is wrong with the others, with byte offsets.
pub(super) fn read(tables: &DeTable<'_>) -> (BTreeMap<String, DomainSpec>, Vec<(usize, String)>) {
    let mut domains = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, value) in in_order(tables) {
        let (start, name) = (name.span().start, name.get_ref());
        let title = format!("[domain.\"{name}\"]");
        if !matches!(value.get_ref(), DeValue::Table(_)) {
            problems.push((start, format!("unknown key {name} in [domain]; write {title}")));
            continue;
        }
        let normal = match normal_name(name) {
            Ok(normal) => normal,
            Err(message) => {
                problems.push((start, format!("{title}: {message}")));
                continue;
            }
        };
        if domains.len() == DOMAINS_MAX {
            problems.push((start, format!("more than {DOMAINS_MAX} domains")));
            break;
        }
        let spec = match DomainSpec::deserialize(value.clone().into_deserializer()) {
            Ok(spec) => spec,
            Err(error) => {
                let offset = error.span().map_or(start, |span| span.start);
                problems.push((offset, format!("{title}: {}", error.message())));
                continue;
            }
        };
        if let Err(message) = spec.check() {
            problems.push((start, format!("{title}: {message}")));
        } else if domains.insert(normal, spec).is_some() {
            problems.push((start, format!("{title} is there twice")));
        }
    }
    (domains, problems)
}

/// What is wrong with domains that each are well written: links, and keys that cannot be read.
pub(super) fn faults(domains: &BTreeMap<String, DomainSpec>) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for (name, spec) in domains {
        let push = spec.push_domain.as_deref().and_then(|push| domains.get(push));
        if spec.push_domain.is_some() && push.is_none() {
            // It may be one of those made by the API; the server says so when it is not.
            continue;
        }
        faults.extend(
            Domain::build(name, spec, push, Arc::default(), &KeySets::new())
                .fault
                .map(|f| (name.clone(), f)),
        );
    }
    faults
}

/// The part of the reference about domains: an example, or the names of those there are.
pub(super) fn reference(out: &mut String, config: &Config) {
    out.push('\n');
    comment(
        out,
        "A domain is one host name, for publishing or for playing, with its own keys, names and quotas. A \
         play domain serves the streams of its push domain; both must be in one region. Providers are \
         asked in order. Keys: key_file or key_env are better than key. Domains can also be made, changed \
         and given new keys while the server runs: ringctl domain. Media settings are those of the vhost \
         that has the push domain's name.",
    );
    if config.domains.is_empty() {
        out.push_str(EXAMPLE);
    }
    for (name, spec) in &config.domains {
        let _ =
            writeln!(out, "# [domain.\"{name}\"]  {} providers, keys hidden", spec.provider.len());
    }
}

const EXAMPLE: &str = r##"#
# [domain."push.example.com"]
# type = "push"                        # push or play; fixed for life
# region = "default"                   # play domains must have that of their push domain
# style = "tencent"                    # plain, tencent, aliyun or oss: second publishers, names
# app_isolation = false                # true: live/cam and show/cam are two streams
# names = "strict"                     # strict: 1..=256 of 0-9 A-Z a-z _ = -; any
# duplicate_publish = "takeover"       # takeover or reject; as the style says if absent
# publishers_max = 0                   # 0 is no limit
# subscribers_max = 0
# connections_per_address_max = 0
# bitrate_bps_max = 0                  # of one publisher: warned, then cut after bitrate_cut_ms
# bitrate_cut_ms = 10000
# require = "any"                      # any: the first provider that knows the parameters; all
# [[domain."push.example.com".provider]]
# scheme = "txsecret"                  # open, txsecret, aliyun_a, oss, usersig, jwt, ip or hook
# key_file = "/etc/ringcast/push.key"
# backup_key_env = "PUSH_KEY_BACKUP"   # as good as the first; for a change of keys
#
# [domain."play.example.com"]
# type = "play"
# push_domain = "push.example.com"
"##;

#[cfg(test)]
mod tests {
    use crate::access::testing::config;
    use crate::config::Source;

    fn problems(text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.toml");
        std::fs::write(&file, text).unwrap();
        let error = Source { file: Some(file), ..Source::default() }.load().unwrap_err();
        let strip = |problem: &crate::config::Problem| {
            problem
                .to_string()
                .rsplit_once("r.toml:")
                .map_or(problem.to_string(), |(_, p)| p.into())
        };
        error.problems.iter().map(strip).collect()
    }

    #[test]
    fn every_wrong_domain_is_reported_with_its_line() {
        let found = problems(
            "[domain.\"*.a\"]\ntype = \"push\"\n\n[domain.\"b\"]\ntype = \"push\"\nkee = 1\n\n\
             [domain.\"c\"]\ntype = \"push\"\n\n[domain]\nd = 1\n",
        );
        assert_eq!(found.len(), 4, "{found:?}");
        for (line, words) in
            [("1:", "wildcards"), ("6:", "kee"), ("8:", "provider"), ("12:", "write")]
        {
            assert!(
                found.iter().any(|p| p.starts_with(line) && p.contains(words)),
                "{line} {words}: {found:?}"
            );
        }
    }

    #[test]
    fn links_and_keys_are_checked_over_all_domains() {
        let push = "[domain.\"p\"]\ntype = \"push\"\nregion = \"eu\"\n\
                    [[domain.\"p\".provider]]\nscheme = \"txsecret\"\nkey_file = \"/nonexistent/key\"\n";
        let play = "[domain.\"q\"]\ntype = \"play\"\npush_domain = \"P\"\n";
        let found = problems(&format!("{push}{play}"));
        assert!(found[0].contains("key_file /nonexistent/key"), "{found:?}");
        assert!(found[1].contains("region"), "{found:?}");
    }

    #[test]
    fn names_of_domains_are_read_in_any_case_and_named_once() {
        let config = config("[domain.\"Q.A\"]\ntype = \"play\"\n");
        assert!(config.domains.contains_key("q.a"));
        let twice = "[domain.\"Q\"]\ntype = \"play\"\n[domain.\"q\"]\ntype = \"play\"\n";
        assert!(problems(twice)[0].contains("twice"));
    }
}
