//! `swarm fetch`: how many requests for segments a server answers, and what one costs.
//!
//! `--parallel` connections stay open and ask for one segment of the playlist after the other, as fast as
//! they are answered: what a cache in front of the server would do at its worst. Bodies are counted and
//! thrown away, so the generator is far from its own limit. The first interval is left out of the rate.

use super::build::Built;
use super::show::Show;
use super::{Failure, at_most};
use crate::cli::FetchArgs;
use crate::report::Report;
use crate::run;
use std::process::ExitCode;

/// How long it lasts unless told otherwise, seconds.
const SECONDS: f64 = 5.0;

/// Runs the load.
///
/// # Errors
/// The address is none of HTTP, or the run could not begin or failed.
pub(super) fn fetch(args: &FetchArgs) -> Result<ExitCode, Failure> {
    let mut built = Built::new(&args.common, SECONDS)?;
    if args.publish {
        built.publish(&args.media, args.lead)?;
    }
    built.fetch(args.parallel)?;
    let mut show = Show::new(&built.common);
    let (plan, probe) = built.seal();
    let outcome = run::run(plan, &probe, &mut |sample| show.sample(sample));
    let report = Report::new("fetch", outcome.map_err(Failure::Run)?);
    let missed = at_most(&report, "failed", 0.0).into_iter().collect();
    show.finish(&report, missed)
}
