//! A measured line of any mode but the two first ones: named numbers, and what makes them doubtful.
//!
//! Players and fan-in have columns and ratios of their own (`row.rs`); the modes here each ask one
//! question, so a line is the server, the load and the numbers that answer it, in order.

use std::fmt::Write as _;

use serde_json::Value;
use toml::Table;

/// Above these the load generator may have been the bottleneck: its busiest thread, and the busiest CPU
/// of its threads with all that ran there; per cent of a core.
const OWN_CPU_PERCENT_MAX: f64 = 90.0;
const OWN_CORE_BUSY_PERCENT_MAX: f64 = 95.0;
/// Above this a line was disturbed by other programs, per cent of a core.
const OTHERS_PERCENT_MAX: f64 = 5.0;

/// Whether swarm itself was at its limit, by its final object or by one of its samples.
pub(crate) fn is_player_side(own_cpu: Option<f64>, own_core_busy: Option<f64>) -> bool {
    own_cpu.is_some_and(|percent| percent > OWN_CPU_PERCENT_MAX)
        || own_core_busy.is_some_and(|percent| percent > OWN_CORE_BUSY_PERCENT_MAX)
}

/// The numbers of a line, with their units last in the name.
pub(crate) type Numbers = Vec<(&'static str, f64)>;

/// One line.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Line {
    pub(crate) mode: &'static str,
    pub(crate) server: String,
    /// Players, or what the mode varies.
    pub(crate) load: u32,
    pub(crate) outcome: Result<Numbers, String>,
    /// The players, not the server, may be what is measured.
    pub(crate) is_player_side: bool,
    pub(crate) others_percent: f64,
    /// Why the full rate was not kept, and doubts of the load generator.
    pub(crate) notes: Vec<String>,
}

impl Line {
    /// A line that could not be had.
    pub(crate) fn failed(mode: &'static str, server: &str, load: u32, error: String) -> Line {
        Line {
            mode,
            server: server.into(),
            load,
            outcome: Err(error),
            is_player_side: false,
            others_percent: 0.0,
            notes: Vec::new(),
        }
    }

    /// The numbers of `names` in swarm's final object, as `(name here, name there)`; what swarm did not
    /// measure is left out.
    pub(crate) fn of(
        mode: &'static str,
        server: &str,
        load: u32,
        (result, others_percent): &(Value, f64),
        names: &[(&'static str, &str)],
    ) -> Line {
        let metric = |name: &str| result["metrics"][name].as_f64();
        let read = |(here, there): &(&'static str, &str)| Some((*here, metric(there)?));
        let notes = result["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Line {
            mode,
            server: server.into(),
            load,
            outcome: Ok(names.iter().filter_map(read).collect()),
            is_player_side: is_player_side(
                metric("own_cpu_percent_max"),
                metric("own_core_busy_percent"),
            ),
            others_percent: *others_percent,
            notes: notes.map(str::to_owned).collect(),
        }
    }

    /// As it is written into a file of results.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.insert("server".into(), self.server.clone().into());
        table.insert("load".into(), i64::from(self.load).into());
        match &self.outcome {
            Err(error) => {
                table.insert("error".into(), error.clone().into());
            }
            Ok(numbers) => {
                for (name, value) in numbers {
                    table.insert((*name).into(), (*value).into());
                }
                table.insert("player_side_is_bottleneck".into(), self.is_player_side.into());
                table.insert("others_percent".into(), self.others_percent.into());
                table.insert("notes".into(), self.notes.clone().into());
            }
        }
        table
    }

    fn is_of(&self, other: &Line) -> bool {
        self.mode == other.mode && self.server == other.server && self.load == other.load
    }
}

/// The tables for people, mode by mode; lines of the same server and load are averaged.
pub(crate) fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    let mut modes: Vec<&str> = Vec::new();
    for line in lines {
        if !modes.contains(&line.mode) {
            modes.push(line.mode);
        }
    }
    for mode in modes {
        let of_mode: Vec<&Line> = lines.iter().filter(|line| line.mode == mode).collect();
        mode_text(mode, &of_mode, &mut text);
    }
    text
}

fn mode_text(mode: &str, lines: &[&Line], text: &mut String) {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in lines.iter().filter_map(|line| line.outcome.as_ref().ok()).flatten() {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let _ = write!(text, "\n{mode}\n\n| load | server |");
    for name in &names {
        let _ = write!(text, " {name} |");
    }
    let _ = writeln!(text, " doubts |\n|---|---|{}", "---|".repeat(names.len() + 1));
    for (index, line) in lines.iter().enumerate() {
        if lines[..index].iter().any(|earlier| earlier.is_of(line)) {
            continue;
        }
        let same: Vec<&&Line> = lines.iter().filter(|other| other.is_of(line)).collect();
        let _ = write!(text, "| {} | {} |", line.load, line.server);
        let errors = same.iter().filter_map(|line| line.outcome.as_ref().err());
        if same.iter().all(|line| line.outcome.is_err()) {
            let _ = writeln!(text, " {} |", errors.map(String::as_str).next().unwrap_or(""));
            continue;
        }
        for name in &names {
            let values = same.iter().filter_map(|line| line.outcome.as_ref().ok()).flatten();
            let values: Vec<f64> =
                values.filter(|(one, _)| one == name).map(|(_, value)| *value).collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            let _ = match values.is_empty() {
                true => write!(text, " - |"),
                false => write!(text, " {} |", shown(mean)),
            };
        }
        let _ = writeln!(text, " {} |", doubts(&same));
    }
}

/// Why not to trust a line.
fn doubts(same: &[&&Line]) -> String {
    let mut doubts: Vec<String> = Vec::new();
    if same.iter().any(|line| line.is_player_side) {
        doubts.push("the player side is the bottleneck".into());
    }
    let others = same.iter().map(|line| line.others_percent).fold(0.0, f64::max);
    if others > OTHERS_PERCENT_MAX {
        doubts.push(format!("disturbed: others used {others:.0} %"));
    }
    for note in same.iter().flat_map(|line| &line.notes) {
        // Swarm's own word for the first of these.
        if !doubts.contains(note) && !note.starts_with("the generator is the bottleneck") {
            doubts.push(note.clone());
        }
    }
    if doubts.is_empty() { "none".into() } else { doubts.join("; ") }
}

/// A number with as many digits as it deserves.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(server: &str, latency: f64) -> Line {
        let result = json!({
            "metrics": {"latency_before_ms_p99": latency, "own_cpu_percent_max": 20.0},
            "notes": ["a doubt"],
        });
        let names = [("before_ms_p99", "latency_before_ms_p99"), ("missing_ms", "no_such_thing")];
        Line::of("storm", server, 10, &(result, 0.0), &names)
    }

    #[test]
    fn rounds_are_averaged_and_what_was_not_measured_is_left_out() {
        let text = text(&[line("a", 1.0), line("b", 7.0), line("a", 3.0)]);
        assert!(text.contains("| load | server | before_ms_p99 | doubts |"), "{text}");
        assert!(text.contains("| 10 | a | 2.00 | a doubt |"), "{text}");
        assert_eq!(text.matches("| 10 |").count(), 2);
    }

    #[test]
    fn a_line_that_tells_of_the_players_says_so() {
        for metrics in [
            json!({"own_cpu_percent_max": 97.0}),
            json!({"own_cpu_percent_max": 30.0, "own_core_busy_percent": 99.0}),
        ] {
            let one = Line::of("storm", "a", 1, &(json!({"metrics": metrics}), 0.0), &[]);
            assert!(one.is_player_side);
            assert!(text(&[one]).contains("the player side is the bottleneck"));
        }
        assert!(!line("a", 1.0).is_player_side);
    }

    #[test]
    fn a_line_that_could_not_be_had_says_why_in_both_forms() {
        let failed = Line::failed("rtmps", "nginx", 3, "not installed".into());
        assert!(text(std::slice::from_ref(&failed)).contains("| 3 | nginx | not installed |"));
        assert_eq!(failed.table()["error"].as_str(), Some("not installed"));
        assert_eq!(line("a", 1.5).table()["before_ms_p99"].as_float(), Some(1.5));
    }
}
