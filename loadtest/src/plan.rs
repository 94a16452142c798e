//! What a run does, decided before it begins: who connects when, on which thread, to which stream.

use crate::arrivals::{Arrivals, Disturbance};
use crate::http::{Format, HlsMode, Watch};
use crate::num::{SECOND_NS, spread};
use crate::player::{Judging, What};
use crate::secure::Security;
use crate::source::{FlvFile, SyntheticConfig};
use crate::target::Target;
use rtmp::session::{ClientConfig, ClientRole};
use std::sync::Arc;
use uring::IoChoice;

/// Media of the publishers.
#[derive(Clone, Debug)]
pub(crate) enum Media {
    /// Made here.
    Synthetic(SyntheticConfig),
    /// A file, over and over.
    Flv(Arc<FlvFile>),
}

/// How viewers are spread over streams.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) enum Popularity {
    /// All streams alike.
    Even,
    /// The k-th stream has 1/k^s of the viewers of the first.
    Zipf(f64),
}

impl Popularity {
    /// Upper ends of the streams' shares of [0, 1), ascending.
    fn shares(self, streams: usize) -> Vec<f64> {
        let weight = |rank: usize| match self {
            Popularity::Even => 1.0,
            Popularity::Zipf(exponent) => (rank as f64 + 1.0).powf(-exponent),
        };
        let total: f64 = (0..streams).map(weight).sum();
        let mut sum = 0.0;
        let mut share = |rank| {
            sum += weight(rank) / total;
            sum
        };
        (0..streams).map(&mut share).collect()
    }
}

/// Streams and who watches which.
#[derive(Clone, Debug)]
pub(crate) struct Audience {
    shares: Vec<f64>,
}

impl Audience {
    pub(crate) fn new(streams: usize, popularity: Popularity) -> Audience {
        Audience { shares: popularity.shares(streams.max(1)) }
    }

    /// The stream of player number `index`. Any run of players is spread like the whole.
    pub(crate) fn stream_of(&self, index: u64) -> usize {
        let at = spread(index);
        self.shares.partition_point(|&end| end <= at).min(self.shares.len() - 1)
    }
}

/// Hostile peers, by what they do.
pub(crate) type Hostile = Vec<crate::abuse::Behaviour>;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where players go, and where publishers do.
    pub(crate) target: Target,
    pub(crate) publish_target: Target,
    pub(crate) streams: usize,
    /// Whether we publish the streams, and what.
    pub(crate) publish: Option<Media>,
    pub(crate) arrivals: Arrivals,
    pub(crate) audience: Audience,
    pub(crate) hostile: Hostile,
    /// What happens to those who watch, once they do.
    pub(crate) disturbance: Option<Disturbance>,
    /// Connections that only shake hands, over and over, and whether they wait for tickets.
    pub(crate) shakers: u64,
    pub(crate) shakers_resume: bool,
    /// TLS, where the target has it.
    pub(crate) security: Option<Security>,
    pub(crate) publish_security: Option<Security>,
    pub(crate) judging: Judging,
    /// When the first connects, by our clock.
    pub(crate) start_ns: u64,
    /// When the first player connects.
    pub(crate) play_ns: u64,
    /// When hostile peers connect.
    pub(crate) hostile_ns: u64,
    /// When players are done.
    pub(crate) end_ns: u64,
    /// Length of a sample.
    pub(crate) interval_ns: u64,
    /// CPUs of the player threads, one each; `None`: not pinned.
    pub(crate) cpus: Vec<Option<usize>>,
    /// CPU of the publisher thread.
    pub(crate) publisher_cpu: Option<usize>,
    pub(crate) io: IoChoice,
    pub(crate) recv_buffers: u16,
    pub(crate) seed: u64,
    /// What players watch, by stream.
    pub(crate) watched: Vec<What>,
    pub(crate) publisher_config: Vec<Arc<ClientConfig>>,
}

/// How long publishers outlive players, so that nobody sees the stream end.
pub(crate) const LINGER_NS: u64 = SECOND_NS / 5;

/// What players of each stream ask for, by the target's scheme.
pub(crate) fn watched(target: &Target, streams: usize, hls: HlsMode, is_fetch: bool) -> Vec<What> {
    if !target.scheme.is_http() {
        let configs = client_configs(target, streams, ClientRole::Play);
        return configs.into_iter().map(What::Rtmp).collect();
    }
    let watch = |index| {
        What::Http(Arc::new(Watch {
            authority: target.authority.as_str().into(),
            path: target.path(index, streams),
            format: target.format().unwrap_or(Format::File),
            is_websocket: target.scheme.is_websocket(),
            hls,
            is_fetch,
        }))
    };
    (0..streams).map(watch).collect()
}

/// The session settings of a role on each stream.
pub(crate) fn client_configs(
    target: &Target,
    streams: usize,
    role: ClientRole,
) -> Vec<Arc<ClientConfig>> {
    let config = |index| {
        Arc::new(ClientConfig {
            tc_url: target.tc_url(),
            app: target.app.clone(),
            stream: target.stream_name(index, streams),
            role,
            flash_ver: "LNX 10,0,32,18 (compatible; swarm)".into(),
            ..ClientConfig::default()
        })
    };
    (0..streams).map(config).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewers(streams: usize, popularity: Popularity, players: u64) -> Vec<u32> {
        let audience = Audience::new(streams, popularity);
        let mut counts = vec![0; streams];
        for index in 0..players {
            counts[audience.stream_of(index)] += 1;
        }
        counts
    }

    #[test]
    fn an_even_audience_is_even_from_the_start() {
        for players in [100, 1000] {
            let counts = viewers(10, Popularity::Even, players);
            let fair = u32::try_from(players / 10).unwrap();
            assert!(counts.iter().all(|count| count.abs_diff(fair) <= 3), "{counts:?}");
        }
    }

    #[test]
    fn a_zipf_audience_falls_as_the_curve_says() {
        let counts = viewers(4, Popularity::Zipf(1.0), 2500);
        for (count, expected) in counts.iter().zip([1200u32, 600, 400, 300]) {
            assert!(count.abs_diff(expected) <= 5, "{counts:?}");
        }
    }
}
