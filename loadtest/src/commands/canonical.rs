//! `swarm canonical`: one workload, two numbers.
//!
//! One stream of 2.5 Mb/s with a keyframe every 2 s; players come evenly over three quarters of the
//! time, from none to more than a core should carry. The load is held as long as no player stalls,
//! none fails and each gets the full rate; the first interval in which that ends, ends the run. The
//! first number is the players held divided by the cores the server (with `ksoftirqd`) used for
//! them; the second is the 99th percentile of the time from the connect call to a whole keyframe,
//! over all joins while the load grew.

use super::build::Built;
use super::show::{self, Show};
use super::{Failure, default_media, default_view};
use crate::arrivals::{Arrivals, Ramp};
use crate::cli::{CanonicalArgs, Common};
use crate::probe;
use crate::report::Report;
use crate::run::{self, Sample};
use crate::target::Target;
use std::process::ExitCode;

/// Messages of AAC at 48 kHz in a second.
const AUDIO_PER_S: f64 = 46.875;
/// Share of the time in which players come.
const RAMP_SHARE: f64 = 0.75;
/// Less of the published rate than this share is not the full rate.
const RATE_SHARE_MIN: f64 = 0.95;
/// Above this a thread of ours is taken for the limit, percent.
const OWN_CPU_PERCENT_MAX: f64 = 90.0;

/// What ended the growth.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Limit {
    /// A player stalled, failed or fell behind.
    Server,
    /// This program.
    Generator,
    /// All players that were to be tried are held.
    Players,
}

impl Limit {
    const fn text(self) -> &'static str {
        match self {
            Limit::Server => "the server: a player stalled, failed or got less than the full rate",
            Limit::Generator => "this generator, not the server: the figure is extrapolated",
            Limit::Players => "--players: the server can do more, the figure is extrapolated",
        }
    }
}

/// Follows the growth.
#[derive(Clone, Debug)]
struct Watch {
    /// Messages a player gets in a second at full rate. Bytes would not do: a second with a
    /// keyframe in it has more of them than one without.
    rate: f64,
    limit: Limit,
    /// The last interval in which all was well.
    held: Option<Sample>,
}

impl Watch {
    /// False when the load is no longer held.
    fn on_sample(&mut self, sample: &Sample) -> bool {
        if sample.gauge.playing == 0 {
            return sample.failed == 0;
        }
        let settled = (sample.gauge.playing - sample.joined.min(sample.gauge.playing)) as f64;
        let expected = settled * self.rate * sample.seconds * RATE_SHARE_MIN;
        let is_full = sample.messages as f64 >= expected;
        if sample.stalls > 0 || sample.failed > 0 || !is_full {
            let is_ours = sample.own_cpu_percent_max() > OWN_CPU_PERCENT_MAX;
            self.limit = if is_ours { Limit::Generator } else { Limit::Server };
            return false;
        }
        self.held = Some(sample.clone());
        true
    }

    /// Players per core of the server; `None` without a process to look at.
    fn per_core(&self) -> Option<f64> {
        let held = self.held.as_ref()?;
        let cores = held.server?.total_percent() / 100.0;
        // Those who came during the interval have cost half of it, on average.
        let players = held.gauge.playing as f64 - held.joined as f64 / 2.0;
        (cores > 0.0).then(|| players.max(0.0) / cores)
    }
}

/// Runs the workload and prints its two numbers.
///
/// # Errors
/// The run could not begin or failed.
pub(super) fn canonical(args: &CanonicalArgs) -> Result<ExitCode, Failure> {
    let common = with_pid(&args.common);
    let mut built = Built::new(&common, 10.0)?;
    let media = default_media();
    built.publish(&media, 1.0)?;
    let rate = args.players as f64 / (built.seconds() * RAMP_SHARE).max(0.1);
    let arrivals = Arrivals::new(args.players, rate, Ramp::Linear, common.seed);
    built.play(&default_view(), arrivals.map_err(Failure::Usage)?)?;
    let mut watch = Watch { rate: media.fps + AUDIO_PER_S, limit: Limit::Players, held: None };
    let mut show = Show::new(&built.common);
    let (plan, probe) = built.seal();
    let outcome =
        run::run(plan, &probe, &mut |sample| show.sample(sample) & watch.on_sample(sample));
    let mut report = Report::new("canonical", outcome.map_err(Failure::Run)?);
    let held = watch.held.as_ref().map_or(0, |sample| sample.gauge.playing);
    report.metrics.insert("canonical_players_held".into(), held as f64);
    if let Some(per_core) = watch.per_core() {
        report.metrics.insert("canonical_subscribers_per_core".into(), per_core.floor());
    }
    report.notes.push(format!("held {held} players; the limit was {}", watch.limit.text()));
    if !args.common.json {
        show::print(&two_numbers(&report));
    }
    let missed = if held == 0 { vec!["no player could be held".into()] } else { Vec::new() };
    if args.common.json || args.common.out.is_some() || args.common.slo.is_some() {
        return show.finish(&report, missed);
    }
    for line in report.notes.iter().chain(&missed) {
        eprintln!("note: {line}");
    }
    show.draw(&report)?;
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Without a process to look at, the one that serves the address, if it can be seen.
fn with_pid(common: &Common) -> Common {
    let mut common = common.clone();
    if common.pid.is_empty() {
        let target = Target::parse(&common.url, false).ok();
        common.pid.extend(target.and_then(|target| probe::listener(target.addresses[0])));
    }
    common
}

fn two_numbers(report: &Report) -> String {
    let per_core = report.metric("canonical_subscribers_per_core");
    let per_core = per_core.map_or_else(
        || "not measured (give the server's --pid)".to_owned(),
        |count| format!("{count:.0}"),
    );
    let joined = report.metric("first_keyframe_ms_p99");
    let joined = joined.map_or_else(|| "not measured".into(), |ms| format!("{ms:.2} ms"));
    format!(
        "subscribers per core without a stall   {per_core}\n\
         p99 from join to first keyframe        {joined}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ServerUse;
    use crate::shard::Gauge;

    fn sample(playing: u64, messages: u64, cpu_percent: f64) -> Sample {
        let server = ServerUse { cpu_percent, ksoftirqd_percent: 5.0, ..ServerUse::default() };
        Sample {
            seconds: 1.0,
            gauge: Gauge { playing, ..Gauge::default() },
            messages,
            server: Some(server),
            ..Sample::default()
        }
    }

    fn watch() -> Watch {
        Watch { rate: 100.0, limit: Limit::Players, held: None }
    }

    #[test]
    fn the_load_is_held_while_all_get_the_full_rate() {
        let mut watch = watch();
        assert!(watch.on_sample(&sample(0, 0, 1.0)));
        assert!(watch.on_sample(&sample(10, 1000, 20.0)));
        assert_eq!(watch.per_core(), Some(40.0));
        assert!(!watch.on_sample(&sample(20, 1000, 45.0)));
        assert_eq!((watch.limit, watch.per_core()), (Limit::Server, Some(40.0)));
    }

    #[test]
    fn those_who_have_just_joined_are_not_expected_to_have_all() {
        let mut joining = sample(20, 1000, 30.0);
        joining.joined = 10;
        assert!(watch().on_sample(&joining));
    }

    #[test]
    fn a_busy_generator_is_not_the_servers_fault() {
        let mut stalled = sample(10, 1000, 30.0);
        (stalled.stalls, stalled.own_cpu_percent) = (1, vec![20.0, 97.0]);
        let mut watch = watch();
        assert!(!watch.on_sample(&stalled));
        assert_eq!(watch.limit, Limit::Generator);
        assert_eq!(watch.per_core(), None);
    }
}
