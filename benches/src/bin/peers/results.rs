//! The file of a run: every row of every round, and where it was measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::line::Line;
use crate::row::{Cell, FanInRow, Row};

#[derive(Serialize, Debug)]
struct Results<'c> {
    machine: Machine,
    players: Vec<Entry<'c, Row>>,
    fan_in: Vec<Entry<'c, FanInRow>>,
    /// Lines of the other modes, by mode.
    #[serde(flatten)]
    modes: BTreeMap<&'static str, Vec<toml::Table>>,
}

#[derive(Serialize, Debug)]
struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
    /// Commit of the sources, `-dirty` with changes on top of it.
    commit: String,
    command: String,
    measured_at_unix_s: u64,
}

#[derive(Serialize, Debug)]
struct Entry<'c, R> {
    server: &'c str,
    load: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'c str>,
    #[serde(flatten)]
    row: Option<&'c R>,
}

/// Writes the file.
pub(crate) fn write(
    file: &Path,
    players: &[Cell<Row>],
    fan_in: &[Cell<FanInRow>],
    lines: &[Line],
) -> Result<(), String> {
    let mut modes: BTreeMap<&'static str, Vec<toml::Table>> = BTreeMap::new();
    for line in lines {
        modes.entry(line.mode).or_default().push(line.table());
    }
    let results =
        Results { machine: machine(), players: entries(players), fan_in: entries(fan_in), modes };
    let text = toml::to_string(&results).map_err(|error| error.to_string())?;
    fs::write(file, text).map_err(|error| error.to_string())
}

fn entries<R>(cells: &[Cell<R>]) -> Vec<Entry<'_, R>> {
    cells.iter().map(Entry::of).collect()
}

impl<'c, R> Entry<'c, R> {
    fn of(cell: &'c Cell<R>) -> Entry<'c, R> {
        Entry {
            server: &cell.server,
            load: cell.load,
            error: cell.outcome.as_ref().err().map(String::as_str),
            row: cell.outcome.as_ref().ok(),
        }
    }
}

fn machine() -> Machine {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Machine {
        cpu: model.map_or("unknown".into(), |(_, name)| name.trim().to_owned()),
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        commit: commit().unwrap_or_else(|| "unknown".into()),
        command: command(std::env::args().skip(1)),
        measured_at_unix_s: now.map_or(0, |now| now.as_secs()),
    }
}

/// The command as it was given to `benches/peers`, which adds where the programs are.
fn command(mut flags: impl Iterator<Item = String>) -> String {
    let mut command = "benches/peers".to_owned();
    while let Some(flag) = flags.next() {
        if ["--ringcast", "--swarm"].contains(&flag.as_str()) {
            flags.next();
        } else {
            command = command + " " + &flag;
        }
    }
    command
}

fn commit() -> Option<String> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git")
        .args(["-C", folder, "describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_what_was_typed() {
        let flags = ["--ringcast", "r", "--swarm", "s", "--players", "20"];
        let command = command(flags.into_iter().map(str::to_owned));
        assert_eq!(command, "benches/peers --players 20");
    }

    #[test]
    fn a_file_tells_rows_errors_and_where_they_come_from() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("results.toml");
        let row = Row { cpu_s_per_gb: 0.25, latency_ms_p50: Some(0.5), ..Row::default() };
        let cells = [
            Cell { server: "ringcast frame".into(), load: 100, outcome: Ok(row) },
            Cell { server: "nginx-rtmp".into(), load: 100, outcome: Err("not installed".into()) },
        ];
        let lines = [Line::failed("storm", "nginx-rtmp", 7, "not installed".into())];
        write(&file, &cells, &[], &lines).unwrap();
        let table: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        assert_eq!(table["players"][0]["cpu_s_per_gb"].as_float(), Some(0.25));
        assert_eq!(table["players"][1]["error"].as_str(), Some("not installed"));
        assert_eq!(table["storm"][0]["load"].as_integer(), Some(7));
        assert!(table["machine"]["kernel"].as_str().is_some_and(|kernel| !kernel.is_empty()));
    }
}
