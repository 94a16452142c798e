//! Command line of the host check.

use std::path::Path;
use std::process::ExitCode;

use tools::cli::{self, Arguments};
use tools::hostcheck::differences;

const HELP: &str = "\
Compares this host with the recommendations of tuning/. Exit code 1 when something differs.

  hostcheck [--proc DIR]

Examples
  cargo run -p tools --bin hostcheck
  hostcheck --proc /host/proc        from within a container
";

fn main() -> ExitCode {
    cli::run(HELP, check)
}

fn check(mut arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let proc = arguments.take_value("--proc")?.unwrap_or_else(|| "/proc".into());
    arguments.finish()?;
    let differences = differences(Path::new(&proc));
    for difference in &differences {
        let (found, wanted) = (&difference.found, &difference.wanted);
        println!("{}: is {found}, recommended {wanted}", difference.name);
    }
    if differences.is_empty() {
        println!("nothing differs from tuning/");
        return Ok(ExitCode::SUCCESS);
    }
    println!("reasons and how to undo: tuning/README.md");
    Ok(ExitCode::FAILURE)
}
