//! The `ringcast` program: command line, configuration, log; then [`edge::server::run`].
//!
//! Exit codes: 0 stopped as asked or the file is valid, 1 anything failed, 2 wrong usage.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use edge::certs::{CertSources, CertStore};
use edge::cli::{Cli, Command, ServeArgs};
use edge::config::load::check_file;
use edge::config::{Config, ConfigError, Source, reference};
use edge::control::notify::Notifier;
use edge::hand_over::{Predecessor, Program};
use edge::inherit::Inherited;
use edge::log;
use edge::server::{self, Setup, StartError};

/// Small allocations of many sizes from several threads: measured better than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    use_small_pages();
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve(&cli.serve),
        Some(Command::Serve(args)) => serve(&args),
        Some(Command::Check { file }) => return check(&file),
        Some(Command::Config { config }) => print_config(config.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one piece: the process that passes on to this one may write to the same place meanwhile.
            let text = format!("ringcast: {error}\n");
            // A standard error that is gone cannot be told of.
            drop(io::stderr().write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

/// Keeps the allocator's memory in pages of the usual size. In huge ones, which it asks for where the system
/// lets it, each of a worker's tables and heaps occupies a multiple of 2 MB however little of it is used:
/// measured with 4,000 players that is a third of the resident memory, and no CPU saved. Before anything is
/// allocated that counts. A kernel without huge pages refuses, and needs not be asked.
fn use_small_pages() {
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
}

fn serve(args: &ServeArgs) -> Result<(), StartError> {
    // Before anything else is opened: the numbers must be those that were passed.
    let inherited = Inherited::from_env().map_err(|error| StartError::Failed(error.to_string()))?;
    let predecessor =
        Predecessor::from_env().map_err(|error| StartError::Failed(error.to_string()))?;
    let source = args.source();
    let loaded = source.load().map_err(refused).inspect_err(|error| {
        if let Some(predecessor) = &predecessor {
            predecessor.refuse(&error.to_string());
        }
    })?;
    // To the end of the process: what is logged last is written when this is dropped.
    let (log, _last_lines) = log::start(&loaded.config.log);
    let notifier = Notifier::from_env();
    // Without it only the change of process is not to be had.
    let program = Program::of_this_process().ok();
    let setup = Setup { source, loaded, log, inherited, notifier, predecessor, program };
    server::run(setup, &mut io::stdout(), |config, certs, events| {
        let prepared = edge::runtime::prepare_workers(config, certs, events)?;
        Ok(|rules, inherited| prepared.start(rules, inherited))
    })
}

fn refused(error: ConfigError) -> StartError {
    StartError::Failed(format!("the configuration cannot be used\n{error}"))
}

fn check(file: &Path) -> ExitCode {
    match check_file(file) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("warning: {warning}");
            }
            for warning in certificate_warnings(&loaded.config) {
                eprintln!("warning: {warning}");
            }
            println!("{}: valid", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong with certificate files. No reason to call the configuration invalid: whoever checks may not
/// be allowed to read keys, and files change on their own.
fn certificate_warnings(config: &Config) -> Vec<String> {
    match CertStore::load(&CertSources::of(config)) {
        Err(error) => vec![error.to_string()],
        Ok((store, report)) => {
            let broken = report.failed.into_iter().map(|failure| failure.error);
            let odd = store.list().into_iter().flat_map(|one| {
                let name = one.name;
                one.warnings
                    .into_iter()
                    .map(move |warning| format!("certificate {name}: {warning}"))
            });
            report.problems.into_iter().chain(broken).chain(odd).collect()
        }
    }
}

fn print_config(file: Option<&Path>) -> Result<(), StartError> {
    let config = match file {
        None => Config::default(),
        Some(file) => {
            let source = Source { file: Some(file.to_owned()), ..Source::default() };
            source.with_process_env().load().map_err(refused)?.config
        }
    };
    let text = reference::reference(&config);
    match io::stdout().write_all(text.as_bytes()) {
        // `ringcast config | head` is not a failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(StartError::Failed(error.to_string()))
        }
        _ => Ok(()),
    }
}
