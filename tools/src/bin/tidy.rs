//! Command line of the house rules.

use std::process::ExitCode;

use tools::cli::{self, Arguments};
use tools::tidy;

const HELP: &str = "\
Checks the house rules that no compiler checks. Exit code 1 when one is broken.

  tidy [DIR]

Examples
  cargo run -p tools --bin tidy
  cargo run -p tools --bin tidy -- ../another-checkout
";

fn main() -> ExitCode {
    cli::run(HELP, check)
}

fn check(mut arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let root = arguments.take_word().unwrap_or_else(|| ".".into());
    arguments.finish()?;
    let findings = tidy::check(root.as_ref())?;
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} findings", findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
