//! What a run prints while it lasts and in the end.

use super::Failure;
use crate::cli::Common;
use crate::plot;
use crate::report::{self, Report};
use crate::run::Sample;
use crate::slo::Slo;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prints samples and the result as the flags say.
#[derive(Debug)]
pub(crate) struct Show {
    json: bool,
    /// Standard error is a terminal: one line, written over and over.
    live: bool,
    out: Option<PathBuf>,
    plot: Option<PathBuf>,
    slo: Slo,
}

impl Show {
    pub(crate) fn new(common: &Common) -> Show {
        let slo = Slo::parse(common.slo.as_deref().unwrap_or_default()).unwrap_or_default();
        Show {
            json: common.json,
            live: io::stderr().is_terminal(),
            out: common.out.clone(),
            plot: common.plot.clone(),
            slo,
        }
    }

    /// Shows a sample. False when nobody reads any more.
    pub(crate) fn sample(&mut self, sample: &Sample) -> bool {
        if self.live {
            eprint!("\r\x1b[2K{}", report::sample_line(sample));
        } else if !self.json {
            eprintln!("{}", report::sample_line(sample));
        }
        !self.json || print(&format!("{}\n", report::sample_json(sample)))
    }

    /// Shows the result and writes the files. `missed` are objectives of the command.
    ///
    /// # Errors
    /// A file could not be written.
    pub(crate) fn finish(&self, report: &Report, missed: Vec<String>) -> Result<ExitCode, Failure> {
        if self.live {
            eprint!("\r\x1b[2K");
        }
        let json = format!("{}\n", report.json());
        let text = if self.json { json.clone() } else { report.text() };
        print(&text);
        if let Some(path) = &self.out {
            write(path, &json)?;
        }
        self.draw(report)?;
        let mut missed = missed;
        missed.extend(self.slo.missed(&report.metrics));
        for term in &missed {
            eprintln!("missed: {term}");
        }
        Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Show {
    /// Writes the drawing, if one is wanted.
    ///
    /// # Errors
    /// The file could not be written.
    pub(crate) fn draw(&self, report: &Report) -> Result<(), Failure> {
        let Some(path) = &self.plot else { return Ok(()) };
        write(path, &plot::svg(&format!("swarm {}", report.command), &report.samples))
    }
}

/// Writes to standard output; false when the reader has left.
pub(crate) fn print(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::Run(format!("{}: {error}", path.display())))
}
