//! `swarm tls`: how many TLS handshakes a second a server bears, and what one costs.
//!
//! Each connection shakes hands and leaves, and the next takes its place at once, `--parallel` of them
//! at a time. First full handshakes, then ones that resume: for these every connection waits for the
//! server's tickets before it leaves, so that the next has one to show. The first of them cannot
//! resume; they are counted as full ones and left out of the rate.

use super::build::Built;
use super::show::Show;
use super::{Failure, at_most};
use crate::cli::{HandshakeArg, TlsArgs};
use crate::report::{Metrics, Report};
use crate::run::{self, Outcome, Sample};
use std::process::ExitCode;

/// How long each kind lasts unless told otherwise, seconds.
const SECONDS: f64 = 5.0;

/// Runs one kind of handshakes or both.
///
/// # Errors
/// The address is not one of TLS, or a run could not begin or failed.
pub(super) fn tls(args: &TlsArgs) -> Result<ExitCode, Failure> {
    let mut show = Show::new(&args.common);
    let mut metrics = Metrics::new();
    let mut all: Option<Outcome> = None;
    for resumes in [false, true] {
        let is_wanted = match args.handshake {
            HandshakeArg::Full => !resumes,
            HandshakeArg::Resumed => resumes,
            HandshakeArg::Both => true,
        };
        if is_wanted {
            let outcome = run_kind(args, resumes, &mut show)?;
            rates(&outcome.samples, resumes, &mut metrics);
            all = Some(match all {
                Some(earlier) => earlier.then(outcome),
                None => outcome,
            });
        }
    }
    let Some(outcome) = all else { return Ok(ExitCode::SUCCESS) };
    let mut report = Report::new("tls", outcome);
    report.metrics.extend(metrics);
    if args.handshake != HandshakeArg::Full && report.metric("tls_resumed").unwrap_or(0.0) == 0.0 {
        report.notes.push("the server let no session be resumed".into());
    }
    let missed = at_most(&report, "failed", 0.0).into_iter().collect();
    show.finish(&report, missed)
}

fn run_kind(args: &TlsArgs, resumes: bool, show: &mut Show) -> Result<Outcome, Failure> {
    let mut built = Built::new(&args.common, SECONDS)?;
    let Some(security) = &built.plan.security else {
        return Err(Failure::Usage(format!(
            "tls: {} is no address of TLS (rtmps, https, wss)",
            args.common.url
        )));
    };
    built.plan.security = Some(security.resuming(resumes));
    built.plan.shakers = args.parallel;
    built.plan.shakers_resume = resumes;
    let (plan, probe) = built.seal();
    run::run(plan, &probe, &mut |sample| show.sample(sample)).map_err(Failure::Run)
}

/// Handshakes per second, and what the server used for one, from the second interval on.
fn rates(samples: &[Sample], resumes: bool, metrics: &mut Metrics) {
    let kind = if resumes { "tls_resumed" } else { "tls_full" };
    let counted = samples.get(1..).filter(|rest| !rest.is_empty()).unwrap_or(samples);
    let count = |sample: &Sample| if resumes { sample.tls_resumed } else { sample.tls_full };
    let handshakes: f64 = counted.iter().map(|sample| count(sample) as f64).sum();
    let seconds: f64 = counted.iter().map(|sample| sample.seconds).sum();
    if seconds <= 0.0 || handshakes == 0.0 {
        return;
    }
    metrics.insert(format!("{kind}_per_s"), handshakes / seconds);
    let cpu_s: Option<f64> = counted
        .iter()
        .map(|sample| Some(sample.server?.total_percent() / 100.0 * sample.seconds))
        .sum();
    if let Some(cpu_s) = cpu_s {
        metrics.insert(format!("{kind}_cpu_us"), cpu_s * 1e6 / handshakes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ServerUse;

    fn sample(tls_full: u64, cpu_percent: f64) -> Sample {
        let server = Some(ServerUse { cpu_percent, ..ServerUse::default() });
        Sample { seconds: 0.5, tls_full, tls_resumed: 7, server, ..Sample::default() }
    }

    #[test]
    fn the_first_interval_is_left_out_of_the_rate() {
        let mut metrics = Metrics::new();
        rates(&[sample(1, 90.0), sample(100, 50.0), sample(100, 50.0)], false, &mut metrics);
        assert_eq!(metrics["tls_full_per_s"], 200.0);
        assert_eq!(metrics["tls_full_cpu_us"], 2_500.0);
        rates(&[sample(1, 90.0)], true, &mut metrics);
        assert_eq!(metrics["tls_resumed_per_s"], 14.0);
    }

    #[test]
    fn without_a_process_there_is_a_rate_and_no_cost() {
        let mut metrics = Metrics::new();
        let blind = Sample { server: None, ..sample(10, 0.0) };
        rates(&[blind.clone(), blind], false, &mut metrics);
        assert_eq!(metrics.len(), 1);
    }
}
