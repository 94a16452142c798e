//! Counts instructions of the cases in memory with callgrind, and compares them with the committed
//! counts. Time depends on the machine; instructions hardly do, so a shared CI machine can tell.
//!
//! Each case runs twice in a process of its own under valgrind, for a few and for a few more
//! iterations. The difference is what the additional iterations cost; building the case cancels out.
//! The committed counts belong to a release build of one compiler and are checked only there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use benches::{Case, Size, catalogue, find};
use clap::Parser;
use serde::{Deserialize, Serialize};

const EXAMPLES: &str = "\
Examples:
  instructions                     print instructions per unit of every case
  instructions --check             fail when a case needs over 10 % more than committed
  instructions --update            write the counts of this build as the committed ones";

/// Instructions per unit of the benchmark cases, counted by callgrind.
#[derive(Debug, Parser)]
#[command(name = "instructions", after_help = EXAMPLES)]
struct Args {
    /// Compare with the committed counts
    #[arg(long)]
    check: bool,
    /// Replace the committed counts
    #[arg(long, conflicts_with = "check")]
    update: bool,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// File of the committed counts
    #[arg(long, value_name = "FILE", default_value_os_t = committed_file())]
    file: PathBuf,
    /// Run a case and nothing else; what valgrind looks at
    #[arg(long, hide = true, num_args = 2, value_names = ["CASE", "ITERATIONS"])]
    child: Option<Vec<String>>,
}

/// Iterations of the two runs.
const ITERATIONS: [u64; 2] = [1, 4];
/// Keeps the C library from copying by a string instruction, of which callgrind counts every byte:
/// copies then weigh as much as they do in life, and the same on every machine.
const COPY_BY_VECTORS: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";
/// Growth over the committed count that is a failure, in per cent.
const GROWTH_PERCENT_MAX: f64 = 10.0;

/// Committed counts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Committed {
    /// Compiler of the build that was counted, as rustc --version says.
    compiler: String,
    /// Instructions per unit.
    instructions: BTreeMap<String, f64>,
}

fn committed_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.child {
        Some(child) => run_child(child),
        None => run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("instructions: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: valgrind is not installed");
        return Ok(());
    }
    let mut counted = BTreeMap::new();
    for case in catalogue().iter().filter(|case| case.is_in_memory()) {
        if case.name.contains(&args.only) {
            let count = count(case)?;
            println!("{:<24} {count:>12.1} instructions per {}", case.name, case.unit);
            counted.insert(case.name.to_owned(), count);
        }
    }
    let compiler = compiler();
    if args.update {
        let committed = Committed { compiler, instructions: counted };
        let text = toml::to_string(&committed).map_err(|error| error.to_string())?;
        let text = format!("# Instructions per unit; written by: instructions --update\n{text}");
        return fs::write(&args.file, text).map_err(|error| error.to_string());
    }
    if args.check {
        return check(&args.file, &compiler, &counted);
    }
    Ok(())
}

fn check(file: &Path, compiler: &str, counted: &BTreeMap<String, f64>) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let committed: Committed = toml::from_str(&text).map_err(|error| error.to_string())?;
    if cfg!(debug_assertions) {
        println!("skipped: instruction counts are kept for release builds");
        return Ok(());
    }
    if committed.compiler != compiler {
        println!("skipped: instruction counts are kept for {}", committed.compiler);
        return Ok(());
    }
    let faults = faults(&committed.instructions, counted);
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Cases that grew too much, or are unknown.
fn faults(committed: &BTreeMap<String, f64>, counted: &BTreeMap<String, f64>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, &count) in counted {
        let Some(&before) = committed.get(name) else {
            faults.push(format!("{name}: no committed count; run instructions --update"));
            continue;
        };
        let growth = 100.0 * (count / before - 1.0);
        if growth > GROWTH_PERCENT_MAX {
            faults.push(format!("{name}: {count:.1} instead of {before:.1}, {growth:+.1} %"));
        } else if growth < -GROWTH_PERCENT_MAX {
            println!("{name}: {growth:+.1} %; commit the better count");
        }
    }
    faults
}

/// Instructions per unit.
fn count(case: &Case) -> Result<f64, String> {
    let [few, more] = ITERATIONS.map(|iterations| count_run(case.name, iterations));
    let (few, more) = (few?, more?);
    Ok((more.instructions - few.instructions) / (more.units - few.units).max(1.0))
}

/// What one run under callgrind did.
struct Run {
    instructions: f64,
    units: f64,
}

fn count_run(name: &str, iterations: u64) -> Result<Run, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .env("GLIBC_TUNABLES", COPY_BY_VECTORS)
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["--child", name, &iterations.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let units = String::from_utf8_lossy(&output.stdout).trim().parse();
    let profile = fs::read_to_string(&out).map_err(|error| error.to_string())?;
    Ok(Run {
        instructions: total(&profile).ok_or("callgrind wrote no total")?,
        units: units.map_err(|error| format!("{name}: {error}"))?,
    })
}

/// The sum callgrind writes at the end of its file.
fn total(profile: &str) -> Option<f64> {
    let line = profile.lines().find_map(|line| line.strip_prefix("totals:"));
    let line = line.or_else(|| profile.lines().find_map(|line| line.strip_prefix("summary:")));
    line?.trim().parse().ok()
}

/// The half that valgrind looks at: prints how many units it did.
fn run_child(child: &[String]) -> Result<(), String> {
    let [name, iterations] = child else { return Err("a case and a number".into()) };
    let case = find(name).ok_or_else(|| format!("no case is called {name}"))?;
    let iterations: u64 = iterations.parse().map_err(|_| "not a number".to_owned())?;
    let mut work = (case.build)(Size::Small).map_err(|reason| reason.to_string())?;
    let units: u64 = (0..iterations).map(|_| work.run().units).sum();
    println!("{units}");
    Ok(())
}

/// The compiler that is installed, which is the one that built this.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(entries: &[(&str, f64)]) -> BTreeMap<String, f64> {
        entries.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn growth_above_the_tolerance_and_unknown_cases_are_faults() {
        let committed = counts(&[("a", 100.0), ("b", 100.0)]);
        assert!(faults(&committed, &counts(&[("a", 109.0), ("b", 50.0)])).is_empty());
        assert_eq!(faults(&committed, &counts(&[("a", 111.0), ("c", 1.0)])).len(), 2);
    }

    #[test]
    fn the_total_is_found_in_a_profile() {
        assert_eq!(total("events: Ir\nsummary: 7\nfn=main\n1 7\ntotals: 42\n"), Some(42.0));
        assert_eq!(total("fn=main"), None);
    }

    #[test]
    fn the_committed_counts_name_every_case_in_memory() {
        let text = fs::read_to_string(committed_file()).unwrap();
        let committed: Committed = toml::from_str(&text).unwrap();
        let names = catalogue().iter().filter(|case| case.is_in_memory()).map(|case| case.name);
        assert!(names.eq(names_in_order(&committed)), "run instructions --update");
    }

    /// The committed names in the catalogue's order; unknown ones last.
    fn names_in_order(committed: &Committed) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = committed.instructions.keys().map(String::as_str).collect();
        let place = |name: &str| catalogue().iter().position(|case| case.name == name);
        names.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
        names.into_iter()
    }
}
