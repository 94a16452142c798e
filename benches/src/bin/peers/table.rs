//! The tables for people: one line per server and load, over all rounds.
//!
//! CPU columns show the mean of the rounds and how far they lie apart; the ratio is to nginx-rtmp
//! under the same load. A row whose load generator was at its limit is marked.

use std::fmt::Write as _;

use crate::line::is_player_side;
use crate::row::{Cell, FanInRow, Row};

/// Whom the others are compared with.
const REFERENCE: &str = "nginx-rtmp";
/// Above this a row was disturbed by other programs, per cent of a core.
const OTHERS_PERCENT_MAX: f64 = 5.0;

/// Players of one stream.
pub(crate) fn players(cells: &[Cell<Row>]) -> String {
    let mut text = String::from(
        "| players | server | s/GB | % of a core per 1000 | spread | × nginx-rtmp | full rate \
         | first frame p50 / p99 ms | from play p50 / p99 ms | latency p50 / p99 ms \
         | RSS MB | KB/player | swarm % | others % |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (load, server, rows) in groups(cells) {
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                let _ = writeln!(text, "| {load} | {server} | {error} |");
                continue;
            }
        };
        let mean = |of: &dyn Fn(&Row) -> Option<f64>| mean(rows.iter().filter_map(|row| of(row)));
        let cpu = |row: &Row| Some(row.cpu_percent_per_1000);
        let reference = rows_of(cells, load, REFERENCE);
        let reference = self::mean(reference.iter().map(|row| row.cpu_percent_per_1000));
        let own = rows.iter().map(|row| row.own_cpu_percent_max).fold(0.0, f64::max);
        let is_limit = rows
            .iter()
            .any(|row| is_player_side(Some(row.own_cpu_percent_max), row.own_core_busy_percent));
        let behind = rows.iter().find_map(|row| row.behind.as_deref());
        let _ = writeln!(
            text,
            "| {load} | {server} | {} | {} | {} | {} | {} | {} / {} | {} / {} | {} / {} | {} | {} \
             | {own:.0}{} | {} |",
            shown(mean(&|row| Some(row.cpu_s_per_gb)), 3),
            shown(mean(&cpu), 1),
            spread(rows.iter().map(|row| row.cpu_percent_per_1000)),
            shown(mean(&cpu).zip(reference).map(|(ours, theirs)| ours / theirs), 2),
            behind.map_or("yes".into(), |why| format!("no: {why}")),
            shown(mean(&|row| row.first_frame_ms_p50), 2),
            shown(mean(&|row| row.first_frame_ms_p99), 2),
            shown(mean(&|row| row.play_to_frame_ms_p50), 2),
            shown(mean(&|row| row.play_to_frame_ms_p99), 2),
            shown(mean(&|row| row.latency_ms_p50), 2),
            shown(mean(&|row| row.latency_ms_p99), 2),
            shown(mean(&|row| row.rss_mb), 1),
            shown(rss_kb_per_player(cells, server, load), 1),
            if is_limit { " (limit)" } else { "" },
            others(rows.iter().map(|row| row.others_percent)),
        );
    }
    text
}

/// Growth of the server's memory from its smallest load to this one, per player more: what the
/// stream itself takes is in both and falls out.
fn rss_kb_per_player(cells: &[Cell<Row>], server: &str, load: u32) -> Option<f64> {
    let of_server = cells.iter().filter(|cell| cell.server == server && cell.outcome.is_ok());
    let smallest = of_server.map(|cell| cell.load).min().filter(|&smallest| smallest < load)?;
    let rss_mb = |load| mean(rows_of(cells, load, server).iter().filter_map(|row| row.rss_mb));
    let growth_kb = (rss_mb(load)? - rss_mb(smallest)?) * 1e6 / 1024.0;
    Some(growth_kb / f64::from(load - smallest))
}

/// Publishers of many streams.
pub(crate) fn fan_in(cells: &[Cell<FanInRow>]) -> String {
    if cells.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n| publishers | server | % of a core per stream | spread | × nginx-rtmp | RSS MB \
         | swarm % | others % |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (load, server, rows) in groups(cells) {
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                let _ = writeln!(text, "| {load} | {server} | {error} |");
                continue;
            }
        };
        let cpu = |rows: &[&FanInRow]| mean(rows.iter().map(|row| row.cpu_percent_per_stream));
        let reference = cpu(&rows_of(cells, load, REFERENCE));
        let _ = writeln!(
            text,
            "| {load} | {server} | {} | {} | {} | {} | {} | {} |",
            shown(cpu(&rows), 4),
            spread(rows.iter().map(|row| row.cpu_percent_per_stream)),
            shown(cpu(&rows).zip(reference).map(|(ours, theirs)| ours / theirs), 2),
            shown(mean(rows.iter().map(|row| row.rss_mb)), 1),
            shown(mean(rows.iter().map(|row| row.own_cpu_percent_max)), 0),
            others(rows.iter().map(|row| row.others_percent)),
        );
    }
    text
}

/// Load, server, and its measured rows or why there is none.
type Group<'c, R> = (u32, &'c str, Result<Vec<&'c R>, &'c str>);

/// Load by load, the servers in the order of their first run.
fn groups<R>(cells: &[Cell<R>]) -> Vec<Group<'_, R>> {
    let mut loads: Vec<u32> = cells.iter().map(|cell| cell.load).collect();
    loads.sort_unstable();
    loads.dedup();
    let mut groups = Vec::new();
    for load in loads {
        let mut servers: Vec<&str> = Vec::new();
        for cell in cells.iter().filter(|cell| cell.load == load) {
            if !servers.contains(&cell.server.as_str()) {
                servers.push(&cell.server);
            }
        }
        for server in servers {
            let rows = rows_of(cells, load, server);
            let error = cells.iter().find_map(|cell| {
                let is_one = cell.load == load && cell.server == server;
                cell.outcome.as_ref().err().filter(|_| is_one)
            });
            let rows = match error {
                Some(error) if rows.is_empty() => Err(error.as_str()),
                _ => Ok(rows),
            };
            groups.push((load, server, rows));
        }
    }
    groups
}

fn rows_of<'c, R>(cells: &'c [Cell<R>], load: u32, server: &str) -> Vec<&'c R> {
    let of_it = cells.iter().filter(|cell| cell.load == load && cell.server == server);
    of_it.filter_map(|cell| cell.outcome.as_ref().ok()).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// Half the distance from the smallest to the largest, in per cent of their middle.
fn spread(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len() < 2 || least + most <= 0.0 {
        return "-".into();
    }
    format!("±{:.0} %", 100.0 * (most - least) / (most + least))
}

/// The most that other programs used in a round.
fn others(values: impl Iterator<Item = f64>) -> String {
    let most = values.fold(0.0, f64::max);
    format!("{most:.0}{}", if most > OTHERS_PERCENT_MAX { " (disturbed)" } else { "" })
}

fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(server: &str, load: u32, cpu_percent_per_1000: f64) -> Cell<Row> {
        let row = Row { cpu_percent_per_1000, ..Row::default() };
        Cell { server: server.into(), load, outcome: Ok(row) }
    }

    #[test]
    fn rounds_are_averaged_and_compared_with_the_reference_of_the_same_load() {
        let cells = [
            cell("ringcast frame", 100, 10.0),
            cell(REFERENCE, 100, 20.0),
            cell("ringcast frame", 500, 99.0),
            cell("ringcast frame", 100, 20.0),
        ];
        let text = players(&cells);
        assert!(
            text.contains("| 100 | ringcast frame | 0.000 | 15.0 | ±33 % | 0.75 | yes |"),
            "{text}"
        );
        assert!(text.contains("| 500 | ringcast frame | 0.000 | 99.0 | - | - | yes |"), "{text}");
    }

    #[test]
    fn memory_per_player_is_the_growth_between_two_loads() {
        let with_rss = |load, rss_mb| {
            let row = Row { rss_mb: Some(rss_mb), ..Row::default() };
            Cell { server: "ringcast frame".into(), load, outcome: Ok(row) }
        };
        let cells = [with_rss(100, 10.0), with_rss(1_100, 12.048)];
        assert_eq!(rss_kb_per_player(&cells, "ringcast frame", 1_100), Some(2.0));
        assert_eq!(rss_kb_per_player(&cells, "ringcast frame", 100), None);
    }

    #[test]
    fn a_server_that_could_not_be_measured_says_why() {
        let missing =
            Cell { server: REFERENCE.into(), load: 20, outcome: Err("not installed".into()) };
        assert!(players(&[missing]).contains("| 20 | nginx-rtmp | not installed |"));
        let row = FanInRow { cpu_percent_per_stream: 0.02, ..FanInRow::default() };
        let measured = Cell { server: REFERENCE.into(), load: 200, outcome: Ok(row) };
        assert!(fan_in(&[measured]).contains("| 200 | nginx-rtmp | 0.0200 | - | 1.00 |"));
        assert_eq!(fan_in(&[]), "");
    }
}
