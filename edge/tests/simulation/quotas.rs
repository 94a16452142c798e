//! Domains with quotas, in some runs: who publishes and who plays takes a place, and gives it back.

use std::sync::Arc;

use edge::access::Rules;
use edge::access::build::KeySets;
use edge::access::domain::Domain;
use edge::access::forbid::Forbids;
use edge::access::quota::Counters;
use edge::access::spec::DomainSpec;
use edge::config::{Config, DuplicatePublish};
use live::path::StreamPath;

/// Hosts of who publishes and who plays.
pub const PUSH_HOST: &str = "push.test";
pub const PLAY_HOST: &str = "sim.test";

/// Puts the two hosts under domains. Addresses are counted, and never too many: all peers of a run have one.
pub fn add_domains(config: &mut Config) {
    let second = match config.defaults.duplicate_publish {
        DuplicatePublish::Takeover => "takeover",
        DuplicatePublish::Reject => "reject",
    };
    let push = format!(
        "type = \"push\"\nduplicate_publish = \"{second}\"\nconnections_per_address_max = 1000\n\
         [[provider]]\nscheme = \"open\"\n"
    );
    let play = format!(
        "type = \"play\"\npush_domain = \"{PUSH_HOST}\"\nconnections_per_address_max = 1000\n"
    );
    for (host, text) in [(PUSH_HOST, push), (PLAY_HOST, play)] {
        let spec: DomainSpec = toml::from_str(&text).expect("a domain");
        config.domains.insert(host.to_owned(), spec);
    }
}

/// The rules of one process, and the places taken in it.
pub struct Quotas {
    rules: Arc<Rules>,
    domains: Vec<Arc<Domain>>,
}

impl Quotas {
    pub fn new(config: &Config) -> Self {
        let push = config.domains.get(PUSH_HOST);
        let domains: Vec<Arc<Domain>> = config
            .domains
            .iter()
            .map(|(name, spec)| {
                let counters = Arc::new(Counters::default());
                let domain = Domain::build(name, spec, push, counters, &KeySets::default());
                assert_eq!(domain.fault, None, "a domain that can be used");
                Arc::new(domain)
            })
            .collect();
        let config = Arc::new(config.clone());
        let rules = Rules::new(config, domains.clone(), Forbids::default(), Arc::default());
        Self { rules: Arc::new(rules), domains }
    }

    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules)
    }

    /// The stream of this number.
    pub fn path(&self, number: usize) -> StreamPath {
        let vhost = if self.domains.is_empty() { "default" } else { PUSH_HOST };
        StreamPath::new(vhost, "live", &format!("s{number}")).expect("a name")
    }

    /// Places taken now: publishers, players.
    pub fn taken(&self) -> (u32, u32) {
        let sum = |count: fn(&Counters) -> u32| {
            self.domains.iter().map(|domain| count(&domain.counters)).sum()
        };
        (sum(Counters::publishers), sum(Counters::subscribers))
    }

    /// What must be true when everybody has left.
    pub fn check_all_home(&self) -> Result<(), String> {
        match self.taken() {
            (0, 0) => Ok(()),
            (publishers, players) => Err(format!(
                "not all came home: {publishers} places of publishers, {players} of players"
            )),
        }
    }
}
