//! The questions beside cost per player: each mode starts servers, lets swarm do one thing, and makes
//! lines of what it saw.
//!
//! | mode | question | load |
//! |---|---|---|
//! | joins | how soon is the first picture there, one by one and all at once? | players |
//! | storm | do those who watch notice 2,000 that come at once? | watchers |
//! | stalled | do a thousand notice one that reads nothing? | watchers |
//! | capacity | how many players does one core serve at the full rate? | players held |
//! | ramp | what happens to latency and flush window on the way to saturation? | players at that time |
//! | scaling | what does a second worker bring? | players |
//! | rtmps | what does TLS cost, and who does it cheapest? | players |

use serde_json::Value;

use crate::client::{Play, RAMP_PER_S, SETTLE_S, Swarm};
use crate::line::{Line, is_player_side};
use crate::row::behind;
use crate::servers::Server;

/// Players that come per second where they come one by one: each has its picture before the next comes.
const JOINS_PER_S: u32 = 20;
/// Keyframe interval and rates of the stream of a join storm.
const STORM_GOP_S: u32 = 4;
const STORM_VIDEO: u32 = 8_000_000;
/// How long it counts as a storm.
const STORM_S: u32 = 3;
/// Seconds of calm before and after a disturbance.
const CALM_S: u32 = 5;
/// Steps of a search, and how close it comes: a tenth.
const TRIALS_MAX: u32 = 10;
/// Lines of a ramp.
const RAMP_LINES_MAX: usize = 20;

/// How large a mode is.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// Players that watch while something happens.
    pub(crate) watchers: u32,
    /// Players of a join storm.
    pub(crate) storm: u32,
    /// Players whose first picture is timed.
    pub(crate) joiners: u32,
    /// Players that stall.
    pub(crate) stalled: u32,
    /// Most players of a search and of a ramp.
    pub(crate) players_max: u32,
    /// First step of a search.
    pub(crate) players_first: u32,
    /// Seconds of a ramp.
    pub(crate) ramp_s: u32,
    /// Seconds during which all players are there.
    pub(crate) seconds: u32,
    /// Seconds of calm around a disturbance.
    pub(crate) calm_s: u32,
    /// Connections that ask for segments.
    pub(crate) fetchers: u32,
    /// Streams that are packaged.
    pub(crate) streams: u32,
}

impl Sizes {
    /// For measuring.
    pub(crate) fn full(seconds: u32) -> Sizes {
        Sizes {
            watchers: 1_000,
            storm: 2_000,
            joiners: 100,
            stalled: 1,
            players_max: 6_000,
            players_first: 1_000,
            ramp_s: 40,
            seconds,
            calm_s: CALM_S,
            fetchers: 16,
            streams: 50,
        }
    }

    /// To see that the tool works.
    pub(crate) fn smoke() -> Sizes {
        Sizes {
            watchers: 10,
            storm: 20,
            joiners: 20,
            stalled: 1,
            players_max: 20,
            players_first: 15,
            ramp_s: 4,
            seconds: 2,
            calm_s: 2,
            fetchers: 2,
            streams: 3,
        }
    }
}

/// What a mode needs.
#[derive(Debug)]
pub(crate) struct Context<'c> {
    pub(crate) swarm: &'c Swarm,
    pub(crate) sizes: &'c Sizes,
    /// CPU of the server.
    pub(crate) cpu: usize,
    pub(crate) lead_s: f64,
}

impl Context<'_> {
    /// Starts a server, runs swarm against it and stops it.
    pub(crate) fn run(
        &self,
        server: &Server,
        seconds: u32,
        flags: &[String],
    ) -> Result<(Value, f64), String> {
        let running = server.start(self.cpu)?;
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let outcome = self.swarm.run(&running, seconds, &flags);
        running.stop();
        outcome
    }

    pub(crate) fn stream(&self, players: u32, lead_s: f64) -> Vec<String> {
        let rates = &self.swarm.rates;
        vec![
            "play".into(),
            "--publish".into(),
            format!("--lead={lead_s}"),
            format!("--players={players}"),
            format!("--ramp={RAMP_PER_S}"),
            format!("--bitrate={}", rates.video_bits),
            format!("--audio-bitrate={}", rates.audio_bits),
        ]
    }

    /// The first picture of players that come one by one, and of as many that come in one instant, of
    /// whom the last waits for the keyframes of all others.
    pub(crate) fn joins(&self, server: &Server) -> Vec<Line> {
        let players = self.sizes.joiners;
        let times = |mode, per_s: u32| {
            let mut flags = self.stream(players, self.lead_s);
            flags.push(format!("--ramp={per_s}"));
            let came_s = players.checked_div(per_s).unwrap_or(0);
            let outcome = self.run(server, came_s + SETTLE_S + 1, &flags);
            let names = [
                ("joined", "joined"),
                ("handshake_ms_p50", "handshake_ms_p50"),
                ("handshake_ms_p99", "handshake_ms_p99"),
                ("play_to_start_ms_p50", "play_start_ms_p50"),
                ("play_to_start_ms_p99", "play_start_ms_p99"),
                ("play_to_frame_ms_p50", "play_to_keyframe_ms_p50"),
                ("play_to_frame_ms_p99", "play_to_keyframe_ms_p99"),
                ("first_frame_ms_p50", "first_keyframe_ms_p50"),
                ("first_frame_ms_p99", "first_keyframe_ms_p99"),
                ("failed", "failed"),
                ("own_core_busy_percent", "own_core_busy_percent"),
            ];
            line_of(mode, server, players, outcome, &names)
        };
        vec![times("joins_spread", JOINS_PER_S), times("joins_at_once", 0)]
    }

    /// Many that come at once while others watch.
    pub(crate) fn storm(&self, server: &Server) -> Line {
        let sizes = self.sizes;
        // A tenth of the others: a machine that 2,000 fill has no room for 1,000 more before them.
        let watchers = (sizes.watchers / 10).max(5);
        let at_s = watchers.div_ceil(RAMP_PER_S) + SETTLE_S + sizes.calm_s;
        // A whole GOP and more, so that a server that keeps one has one.
        let lead_s = f64::from(STORM_GOP_S) + 1.0;
        let mut flags = self.stream(watchers, lead_s);
        flags.extend([
            format!("--bitrate={STORM_VIDEO}"),
            format!("--gop={STORM_GOP_S}"),
            format!("--storm={}", sizes.storm),
            format!("--disturb-at={at_s}"),
            format!("--disturb-for={STORM_S}"),
        ]);
        let outcome = self.run(server, at_s + STORM_S + sizes.calm_s, &flags);
        let names = [
            ("storm_joined", "joined"),
            ("storm_failed", "failed"),
            ("before_ms_p50", "latency_before_ms_p50"),
            ("before_ms_p99", "latency_before_ms_p99"),
            ("during_ms_p50", "latency_during_ms_p50"),
            ("during_ms_p99", "latency_during_ms_p99"),
            ("after_ms_p50", "latency_after_ms_p50"),
            ("after_ms_p99", "latency_after_ms_p99"),
            ("storm_first_frame_ms_p50", "storm_first_keyframe_ms_p50"),
            ("storm_first_frame_ms_p99", "storm_first_keyframe_ms_p99"),
            ("lost", "lost"),
            ("stalled_players", "stalled_players"),
            ("own_core_busy_percent", "own_core_busy_percent"),
        ];
        let mut line = line_of("storm", server, watchers, outcome, &names);
        if let Ok(numbers) = &mut line.outcome {
            let joined = numbers.iter_mut().find(|(name, _)| *name == "storm_joined");
            joined.into_iter().for_each(|(_, count)| *count -= f64::from(watchers));
        }
        line
    }

    /// Some who read nothing while others watch.
    pub(crate) fn stalled(&self, server: &Server) -> Line {
        let sizes = self.sizes;
        let at_s = sizes.watchers.div_ceil(RAMP_PER_S) + SETTLE_S + sizes.calm_s;
        let mut flags = self.stream(sizes.watchers, self.lead_s);
        flags.push(format!("--stalled={}", sizes.stalled));
        flags.push(format!("--disturb-at={at_s}"));
        // Long enough for the stalled one to fill its buffers and to be noticed.
        let outcome = self.run(server, at_s + sizes.calm_s + sizes.seconds, &flags);
        let names = [
            ("before_ms_p50", "latency_before_ms_p50"),
            ("before_ms_p99", "latency_before_ms_p99"),
            ("during_ms_p50", "latency_during_ms_p50"),
            ("during_ms_p99", "latency_during_ms_p99"),
            ("during_ms_max", "latency_during_ms_max"),
            ("failed", "failed"),
            ("lost", "lost"),
            ("cpu_percent_total", "cpu_percent_total"),
            ("own_core_busy_percent", "own_core_busy_percent"),
        ];
        line_of("stalled", server, sizes.watchers, outcome, &names)
    }

    /// The most players that all get the full rate: more and more by half, then halving the gap.
    pub(crate) fn capacity(&self, server: &Server, is_late: &dyn Fn() -> bool) -> Line {
        let sizes = self.sizes;
        let (mut held, mut failed) = (0, None);
        let mut next = sizes.players_first.min(sizes.players_max);
        let mut best: Option<(Value, f64)> = None;
        let mut limit = "--players-max: the server can do more".to_owned();
        let mut was_players = false;
        for _ in 0..TRIALS_MAX {
            if is_late() {
                limit = "no time for a closer look".into();
                break;
            }
            let play = Play { players: next, seconds: sizes.seconds, lead_s: self.lead_s };
            let running = match server.start(self.cpu) {
                Ok(running) => running,
                Err(error) => return Line::failed("capacity", &server.name, 0, error),
            };
            let outcome = self.swarm.play_raw(&running, &play);
            running.stop();
            match verdict(&outcome, next, self.swarm) {
                Ok(()) => {
                    held = next;
                    best = outcome.ok();
                }
                Err((why, is_players)) => {
                    (limit, was_players) = (format!("{next} players: {why}"), is_players);
                    failed = Some(next);
                }
            }
            let Some(step) = next_trial(held, failed, sizes.players_max) else { break };
            next = step;
        }
        let Some(best) = best else {
            return Line::failed("capacity", &server.name, 0, limit);
        };
        let names = [
            ("cpu_percent_total", "cpu_percent_total"),
            ("cpu_percent_per_1000", "cpu_percent_per_1000"),
            ("latency_ms_p50", "latency_steady_ms_p50"),
            ("latency_ms_p99", "latency_steady_ms_p99"),
            ("own_core_busy_percent", "own_core_busy_percent"),
        ];
        let mut line = Line::of("capacity", &server.name, held, &best, &names);
        line.is_player_side |= was_players;
        line.notes.push(format!("limit: {limit}"));
        line
    }

    /// Latency, flush window and CPU while more and more players come.
    pub(crate) fn ramp(&self, server: &Server) -> Vec<Line> {
        let sizes = self.sizes;
        let running = match server.start(self.cpu) {
            Ok(running) => running,
            Err(error) => return vec![Line::failed("ramp", &server.name, 0, error)],
        };
        let rate = f64::from(sizes.players_max) / f64::from(sizes.ramp_s);
        let mut flags = self.stream(sizes.players_max, self.lead_s);
        flags.push(format!("--ramp={rate}"));
        flags.extend(running.metrics.iter().map(|page| format!("--metrics={page}")));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let outcome = self.swarm.run(&running, sizes.ramp_s + sizes.seconds, &flags);
        running.stop();
        match outcome {
            Ok(result) => ramp_lines(&server.name, &result),
            Err(error) => vec![Line::failed("ramp", &server.name, 0, error)],
        }
    }

    /// The same load on one worker and on two.
    pub(crate) fn scaling(&self, server: &Server) -> Line {
        let players = self.sizes.watchers;
        let seconds = players.div_ceil(RAMP_PER_S) + SETTLE_S + self.sizes.seconds;
        let outcome = self.run(server, seconds, &self.stream(players, self.lead_s));
        let names = [
            ("cpu_percent_total", "cpu_percent_total"),
            ("server_cpu_percent", "server_cpu_percent"),
            ("cpu_s_per_gb", "cpu_s_per_gb"),
            ("latency_ms_p50", "latency_steady_ms_p50"),
            ("latency_ms_p99", "latency_steady_ms_p99"),
            ("own_core_busy_percent", "own_core_busy_percent"),
        ];
        let generator = outcome.as_ref().ok().map(|(result, _)| generator_percent(result));
        let mut line = line_of("scaling", server, players, outcome, &names);
        if let (Ok(numbers), Some(percent)) = (&mut line.outcome, generator) {
            numbers.push(("generator_cpu_percent", percent));
        }
        if server.worker_cpus().contains(&self.swarm.cpu) {
            line.notes.push(format!("a worker shares CPU {} with the generator", self.swarm.cpu));
        }
        line
    }

    /// Players over TLS.
    pub(crate) fn rtmps(&self, server: &Server, players: u32) -> Line {
        let seconds = players.div_ceil(RAMP_PER_S) + SETTLE_S + self.sizes.seconds;
        let outcome = self.run(server, seconds, &self.stream(players, self.lead_s));
        let names = [
            ("cpu_s_per_gb", "cpu_s_per_gb"),
            ("cpu_percent_per_1000", "cpu_percent_per_1000"),
            ("tls_ms_p50", "tls_ms_p50"),
            ("tls_ms_p99", "tls_ms_p99"),
            ("first_frame_ms_p50", "first_keyframe_ms_p50"),
            ("first_frame_ms_p99", "first_keyframe_ms_p99"),
            ("latency_ms_p50", "latency_steady_ms_p50"),
            ("latency_ms_p99", "latency_steady_ms_p99"),
            ("rss_mb", "rss_mb"),
            ("own_core_busy_percent", "own_core_busy_percent"),
        ];
        let rates = self.swarm.rates;
        let late = outcome.as_ref().ok().and_then(|(result, _)| {
            behind(&|name| result["metrics"][name].as_f64(), players, &rates)
        });
        let mut line = line_of("rtmps", server, players, outcome, &names);
        line.notes.extend(late.map(|why| format!("not the full rate: {why}")));
        line
    }
}

pub(crate) fn line_of(
    mode: &'static str,
    server: &Server,
    load: u32,
    outcome: Result<(Value, f64), String>,
    names: &[(&'static str, &str)],
) -> Line {
    match outcome {
        Ok(result) => Line::of(mode, &server.name, load, &result, names),
        Err(error) => Line::failed(mode, &server.name, load, error),
    }
}

/// Whether all players got the full rate; otherwise why not, and whether that tells of the players.
fn verdict(
    outcome: &Result<(Value, f64), String>,
    players: u32,
    swarm: &Swarm,
) -> Result<(), (String, bool)> {
    let (result, _) = outcome.as_ref().map_err(|error| (error.clone(), false))?;
    let metric = |name: &str| result["metrics"][name].as_f64();
    let is_players = is_player_side(metric("own_cpu_percent_max"), metric("own_core_busy_percent"));
    match behind(&metric, players, &swarm.rates) {
        None => Ok(()),
        Some(why) => Err((why, is_players)),
    }
}

/// The next number of players to try; `None` when the answer is known to a tenth.
fn next_trial(held: u32, failed: Option<u32>, players_max: u32) -> Option<u32> {
    match failed {
        None if held >= players_max => None,
        None => Some((held + held / 2).clamp(held + 1, players_max)),
        Some(failed) if failed - held <= (held / 10).max(1) => None,
        Some(failed) => Some(held + (failed - held) / 2),
    }
}

/// Samples of a ramp, evenly thinned.
fn ramp_lines(server: &str, (result, others_percent): &(Value, f64)) -> Vec<Line> {
    let samples: Vec<&Value> = result["samples"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|sample| sample["playing"].as_u64().is_some_and(|playing| playing > 0))
        .collect();
    if samples.is_empty() {
        return vec![Line::failed("ramp", server, 0, "nobody played".into())];
    }
    let step = samples.len().div_ceil(RAMP_LINES_MAX);
    let names = [
        "latency_ms_p50",
        "latency_ms_p99",
        "flush_widened_ms",
        "received_mbps",
        "server_cpu_percent",
        "ksoftirqd_percent",
        "own_core_busy_percent",
        "stalls",
        "failed",
        "lost",
    ];
    let line = |sample: &&Value| {
        let number = |name: &&'static str| Some((*name, sample[*name].as_f64()?));
        let own = sample["own_cpu_percent"].as_array().into_iter().flatten();
        let own = own.filter_map(Value::as_f64).fold(0.0, f64::max);
        let playing = sample["playing"].as_u64().unwrap_or(0);
        Line {
            mode: "ramp",
            server: server.into(),
            load: u32::try_from(playing).unwrap_or(u32::MAX),
            outcome: Ok(names.iter().filter_map(number).collect()),
            is_player_side: is_player_side(Some(own), sample["own_core_busy_percent"].as_f64()),
            others_percent: *others_percent,
            notes: Vec::new(),
        }
    };
    // The last of each group: the end of the ramp is among them.
    samples.chunks(step).filter_map(<[_]>::last).map(line).collect()
}

/// CPU of all threads of the generator while all players were there, percent of a core.
fn generator_percent(result: &Value) -> f64 {
    let samples = result["samples"].as_array().into_iter().flatten();
    let steady = samples.filter(|sample| sample["steady"].as_bool() == Some(true));
    let sums: Vec<f64> = steady
        .map(|sample| {
            let threads = sample["own_cpu_percent"].as_array().into_iter().flatten();
            threads.filter_map(Value::as_f64).sum()
        })
        .collect();
    sums.iter().sum::<f64>() / sums.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Players held by a search of a server that bears `capacity`, and the trials it took.
    fn search(capacity: u32, first: u32, players_max: u32) -> (u32, u32) {
        let (mut held, mut failed, mut next) = (0, None, first);
        for trial in 1..=TRIALS_MAX {
            if next <= capacity {
                held = next;
            } else {
                failed = Some(next);
            }
            match next_trial(held, failed, players_max) {
                Some(step) => next = step,
                None => return (held, trial),
            }
        }
        (held, TRIALS_MAX)
    }

    #[test]
    fn a_search_comes_within_a_tenth_or_says_that_there_is_more() {
        for capacity in [130, 900, 1_000, 2_345, 5_999] {
            let (held, _) = search(capacity, 1_000, 6_000);
            assert!(held <= capacity && capacity - held <= capacity / 8, "{capacity}: {held}");
        }
        assert_eq!(search(100_000, 1_000, 6_000).0, 6_000);
        assert_eq!(search(0, 1_000, 6_000).0, 0);
        assert_eq!(search(100, 20, 20), (20, 1));
    }

    #[test]
    fn a_ramp_is_thinned_to_its_shape_and_keeps_its_end() {
        let sample = |playing: u64| {
            let latency_ms = playing as f64;
            json!({"playing": playing, "latency_ms_p99": latency_ms, "own_cpu_percent": [1.0]})
        };
        let samples: Vec<Value> = (0..=100).map(sample).collect();
        let lines = ramp_lines("a", &(json!({"samples": samples}), 0.0));
        assert_eq!((lines.len(), lines.last().map(|line| line.load)), (20, Some(100)));
        assert_eq!(lines[0].outcome, Ok(vec![("latency_ms_p99", 5.0)]));
        let nobody = ramp_lines("a", &(json!({"samples": []}), 0.0));
        assert!(nobody[0].outcome.is_err());
    }

    #[test]
    fn the_generators_share_is_that_of_all_its_threads() {
        let sample =
            |steady: bool, own: [f64; 2]| json!({"steady": steady, "own_cpu_percent": own});
        let samples =
            [sample(false, [90.0, 90.0]), sample(true, [10.0, 5.0]), sample(true, [20.0, 5.0])];
        assert_eq!(generator_percent(&json!({"samples": samples})), 20.0);
    }
}
