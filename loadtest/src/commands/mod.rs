//! The commands: each turns its flags into a plan, runs it and judges the result.

mod build;
mod canonical;
mod fetch;
mod scenario;
mod show;
mod tls;

use crate::abuse::Behaviour;
use crate::arrivals::{Arrivals, Disturbance};
use crate::cli::{
    AbuseArgs, ChurnArgs, Command, CompareArgs, MediaArgs, PlayArgs, PublishArgs, SoakArgs,
    ViewArgs,
};
use crate::compare;
use crate::corpus;
use crate::http::HlsMode;
use crate::num::{SECOND_NS, seconds_ns, whole};
use crate::plan::Popularity;
use crate::probe::Probe;
use crate::report::{GROWING, Report, number};
use crate::run;
use crate::source::CodecTag;
use build::Built;
use clap::ValueEnum as _;
use show::Show;
use std::cell::Cell;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a command lasts unless told otherwise, seconds.
const SECONDS: f64 = 10.0;
/// The same of a soak.
const SOAK_SECONDS: f64 = 600.0;
/// The same of abuse with the corpus: some cases wait for deadlines of the server, 10 s by default.
const CORPUS_SECONDS: f64 = 20.0;
/// What may be gained during a soak without a leak, of memory in MB, descriptors, and latency in
/// milliseconds: allocators keep pages, connections overlap, machines have other work.
const SOAK_NOISE: [f64; 3] = [8.0, 8.0, 5.0];
/// Latency gained over a whole soak that is no more than noise, milliseconds.
const SOAK_CREEP_MS_MIN: f64 = 5.0;
/// How long a join storm counts as a disturbance.
const STORM_NS: u64 = 2 * SECOND_NS;
/// Players that watch while others misbehave.
const WITNESSES: u64 = 5;

/// Why a command did not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// It began and failed.
    Run(String),
}

impl Failure {
    /// The program's exit code.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Run(_) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Run(text) => f.write_str(text),
        }
    }
}

/// Does what the command line says.
///
/// # Errors
/// See [`Failure`].
pub(crate) fn execute(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Publish(args) => publish(&args),
        Command::Play(args) => finish("play", build_play(&args, SECONDS)?, &|_| Vec::new()),
        Command::Churn(args) => churn(&args),
        Command::Soak(args) => soak(&args),
        Command::Abuse(args) => abuse(&args),
        Command::Tls(args) => tls::tls(&args),
        Command::Fetch(args) => fetch::fetch(&args),
        Command::Canonical(args) => canonical::canonical(&args),
        Command::Run(args) => execute(scenario::load(&args)?),
        Command::Compare(args) => compare(&args),
    }
}

fn publish(args: &PublishArgs) -> Result<ExitCode, Failure> {
    let mut built = Built::new(&args.common, SECONDS)?;
    built.publish(&args.media, 0.0)?;
    finish("publish", built, &|_| Vec::new())
}

fn build_play(args: &PlayArgs, seconds: f64) -> Result<Built, Failure> {
    let mut built = Built::new(&args.common, seconds)?;
    if args.view.publish {
        built.publish(&args.media, args.view.lead)?;
    }
    let arrivals = Arrivals::new(args.players, args.ramp, args.ramp_shape, args.common.seed);
    built.play(&args.view, arrivals.map_err(Failure::Usage)?)?;
    disturb(&mut built, args)?;
    Ok(built)
}

/// A join storm, or viewers that stall, in the middle of the run.
fn disturb(built: &mut Built, args: &PlayArgs) -> Result<(), Failure> {
    if args.storm == 0 && args.stalled == 0 {
        let is_asked = args.disturb_at.is_some() || args.disturb_for.is_some();
        let refusal = "--disturb-at and --disturb-for need --storm or --stalled";
        return if is_asked { Err(Failure::Usage(refusal.into())) } else { Ok(()) };
    }
    let at_s = args.disturb_at.unwrap_or(built.seconds() / 2.0);
    if at_s >= built.seconds() {
        return Err(Failure::Usage("--disturb-at: the run is over by then".into()));
    }
    let lasts_ns = match args.disturb_for {
        Some(seconds) => seconds_ns(seconds),
        None if args.stalled > 0 => u64::MAX,
        None => STORM_NS,
    };
    built.disturb(Disturbance { storm: args.storm, at_ns: seconds_ns(at_s), lasts_ns });
    let stalled = usize::try_from(args.stalled).unwrap_or(0);
    built.plan.hostile = vec![Behaviour::NeverReads; stalled];
    Ok(())
}

/// Fails when a join fails.
fn churn(args: &ChurnArgs) -> Result<ExitCode, Failure> {
    let mut built = Built::new(&args.common, SECONDS)?;
    if args.view.publish {
        built.publish(&args.media, args.view.lead)?;
    }
    let count = whole(args.rate * built.seconds()).max(1);
    let arrivals = Arrivals::new(count, args.rate, args.ramp_shape, args.common.seed);
    built.play(&args.view, arrivals.map_err(Failure::Usage)?.staying(seconds_ns(args.stay)))?;
    finish("churn", built, &|report| at_most(report, "failed", 0.0).into_iter().collect())
}

/// Fails when latency creeps, memory or descriptors grow, or anybody is lost.
fn soak(args: &SoakArgs) -> Result<ExitCode, Failure> {
    let slope_max = args.slope_max / 60.0;
    let limits = [args.rss_slope_max, args.fds_slope_max, args.latency_slope_max];
    finish("soak", build_soak(args)?, &|report| {
        let mut missed = Vec::new();
        let steady = report.samples.iter().filter(|sample| sample.is_steady);
        let seconds: f64 = steady.map(|sample| sample.seconds).sum();
        let slope_max = slope_max.max(SOAK_CREEP_MS_MIN / seconds.max(1.0));
        if args.stay.is_none() {
            missed.extend(at_most(report, "lag_slope_ms_per_s_max", slope_max));
        }
        missed.extend(at_most(report, "failed", 0.0));
        missed.extend(at_most(report, "corrupt", 0.0));
        missed.extend(grown(report, limits));
        if report.metric("latency_ms_slope_per_h").is_none() {
            missed.push("the latency slope was not measured: no marked media, or too short".into());
        }
        missed
    })
}

/// Viewers who stay, or so many that as many are there at any time.
fn build_soak(args: &SoakArgs) -> Result<Built, Failure> {
    let Some(stay) = args.stay else { return build_play(&args.play, SOAK_SECONDS) };
    let play = &args.play;
    if play.storm > 0 || play.stalled > 0 {
        return Err(Failure::Usage("--stay: neither with --storm nor with --stalled".into()));
    }
    let mut built = Built::new(&play.common, SOAK_SECONDS)?;
    if play.view.publish {
        built.publish(&play.media, play.view.lead)?;
    }
    let rate = play.players as f64 / stay;
    let count = whole(rate * built.seconds()).max(1);
    let arrivals = Arrivals::new(count, rate, play.ramp_shape, play.common.seed);
    built.play(&play.view, arrivals.map_err(Failure::Usage)?.staying(seconds_ns(stay)))?;
    Ok(built)
}

/// What grows by more than its limit; what is gained must also be more than comes and goes by itself.
fn grown(report: &Report, limits: [f64; 3]) -> Vec<String> {
    let judged = GROWING.into_iter().zip(limits).zip(SOAK_NOISE);
    let grown = judged.filter_map(|(((name, read), limit), noise)| {
        let slope = report.slope(read).filter(|slope| slope.exceeds(limit, noise))?;
        Some(format!(
            "{name} grows by {} (± {}) per hour, at most {}; it gained {}",
            number(slope.per_hour),
            number(slope.error_per_hour),
            number(limit),
            number(slope.gained)
        ))
    });
    grown.collect()
}

/// Fails when the witnesses suffer or the server is gone.
fn abuse(args: &AbuseArgs) -> Result<ExitCode, Failure> {
    let has_cases = args.only.is_empty();
    let seconds = if has_cases { CORPUS_SECONDS } else { SECONDS };
    let mut built = Built::new(&args.common, seconds)?;
    built.publish(&args.media, 1.0)?;
    let view = ViewArgs { check: 1, ..default_view() };
    if built.plan.target.scheme.is_http() {
        return Err(Failure::Usage(
            "abuse: hostile peers speak RTMP; use an rtmp:// address".into(),
        ));
    }
    built.play(&view, Arrivals::at_once(WITNESSES))?;
    let kinds = match args.only.as_slice() {
        [] => Behaviour::value_variants(),
        some => some,
    };
    let each = usize::try_from(args.each).unwrap_or(1);
    let cases = has_cases.then(|| start_cases(args, &built)).transpose()?;
    let cases = Cell::new(cases);
    built.plan.hostile = kinds.iter().flat_map(|&kind| std::iter::repeat_n(kind, each)).collect();
    finish("abuse", built, &|report| {
        let harmless = ["failed", "stalls", "lost", "corrupt", "server_gone"];
        let mut missed: Vec<_> =
            harmless.into_iter().filter_map(|name| at_most(report, name, 0.0)).collect();
        if report.metric("joined") != Some(WITNESSES as f64) {
            missed.push("not all witnesses could play".into());
        }
        missed.extend(cases.take().map_or_else(Vec::new, |cases| end_cases(cases, args)));
        missed
    })
}

/// Starts the cases of the corpus beside the run.
fn start_cases(
    args: &AbuseArgs,
    built: &Built,
) -> Result<JoinHandle<Vec<corpus::Verdict>>, Failure> {
    let target = &built.plan.target;
    let address = target.addresses.first();
    let scene = corpus::Scene {
        rtmp: *address.ok_or_else(|| Failure::Usage("abuse: no address".into()))?,
        http: args.http,
        app: target.app.clone(),
        patience: Duration::from_secs_f64(args.case_seconds),
    };
    if args.http.is_some_and(|http| !http.ip().is_loopback()) && !args.common.i_own_this_network {
        let text = "abuse: --http is not on this machine; see --i-own-this-network";
        return Err(Failure::Usage(text.into()));
    }
    let probe = Probe::new(&args.common.pid, None).map_err(Failure::Usage)?;
    Ok(thread::spawn(move || corpus::run(&scene, &probe)))
}

/// Waits for the cases, tells of them, and returns what failed.
fn end_cases(cases: JoinHandle<Vec<corpus::Verdict>>, args: &AbuseArgs) -> Vec<String> {
    let Ok(verdicts) = cases.join() else { return vec!["the corpus could not be run".into()] };
    let text = match args.common.json {
        true => format!("{}\n", corpus::json(&verdicts)),
        false => format!("{}\n", corpus::text(&verdicts)),
    };
    show::print(&text);
    let failed = verdicts.iter().filter_map(|one| Some((one.name, one.failure.as_ref()?)));
    failed.map(|(name, failure)| format!("case {name}: {failure}")).collect()
}

/// An objective of a command.
fn at_most(report: &Report, name: &str, bound: f64) -> Option<String> {
    let value = report.metric(name)?;
    (value > bound).then(|| format!("{name} is {}, at most {}", number(value), number(bound)))
}

/// Runs a plan, shows it, and judges it by the operator's objectives and those of the command.
fn finish(
    command: &str,
    built: Built,
    judge: &dyn Fn(&Report) -> Vec<String>,
) -> Result<ExitCode, Failure> {
    let mut show = Show::new(&built.common);
    let (plan, probe) = built.seal();
    let outcome = run::run(plan, &probe, &mut |sample| show.sample(sample));
    let report = Report::new(command, outcome.map_err(Failure::Run)?);
    let missed = judge(&report);
    show.finish(&report, missed)
}

fn compare(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let read = |path: &Path| {
        let error = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|cause| error(cause.to_string()))?;
        compare::metrics_of(&text).map_err(error)
    };
    let rows = compare::rows(&read(&args.before)?, &read(&args.after)?);
    let text = if args.json { format!("{}\n", compare::json(&rows)) } else { compare::text(&rows) };
    show::print(&text);
    Ok(ExitCode::SUCCESS)
}

/// The stream of commands that bring their own: 720p30 at 2.5 Mb/s.
fn default_media() -> MediaArgs {
    MediaArgs {
        flv: None,
        bitrate: 2_500_000.0,
        audio_bitrate: 128_000.0,
        fps: 30.0,
        gop: 2.0,
        keyframe_ratio: 8.0,
        codec: CodecTag::Avc,
    }
}

fn default_view() -> ViewArgs {
    ViewArgs {
        publish: true,
        lead: 1.0,
        popularity: Popularity::Even,
        buffer_ms: 1000,
        check: 16,
        hls: HlsMode::Auto,
    }
}
