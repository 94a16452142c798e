//! Two results side by side: each number, and the ratio of the second to the first.

use crate::report::number;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// One number in both results; absent where it was not measured.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) before: Option<f64>,
    pub(crate) after: Option<f64>,
}

impl Row {
    /// After divided by before, where both are there and the first is not 0.
    fn ratio(&self) -> Option<f64> {
        let (before, after) = (self.before?, self.after?);
        (before != 0.0).then(|| after / before)
    }
}

/// The numbers of a result file: of its last line that is a result.
///
/// # Errors
/// There is none in it.
pub(crate) fn metrics_of(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let is_result = |value: &Value| value["type"] == "final";
    let mut parsed = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let Some(result) = parsed.rfind(is_result) else {
        return Err("no result of a swarm run in it".into());
    };
    let metrics = result["metrics"].as_object().ok_or("the result has no metrics")?;
    let number = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64()?));
    Ok(metrics.iter().filter_map(number).collect())
}

/// All numbers of both, by name.
pub(crate) fn rows(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Vec<Row> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let row = |name: &String| Row {
        name: name.clone(),
        before: before.get(name).copied(),
        after: after.get(name).copied(),
    };
    names.into_iter().map(row).collect()
}

/// The table for people.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = format!("{:<30} {:>14} {:>14} {:>8}\n", "", "before", "after", "ratio");
    let cell = |value: Option<f64>| value.map_or("-".into(), number);
    for row in rows {
        let ratio = row.ratio().map_or("-".into(), |ratio| format!("{ratio:.3}"));
        let (before, after) = (cell(row.before), cell(row.after));
        let _ = writeln!(text, "{:<30} {before:>14} {after:>14} {ratio:>8}", row.name);
    }
    text
}

/// The table as JSON.
pub(crate) fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "name": row.name, "before": row.before, "after": row.after, "ratio": row.ratio(),
        })
    };
    json!({ "type": "comparison", "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "{\"type\":\"sample\",\"metrics\":{\"x\":9}}\n\
        {\"type\":\"final\",\"metrics\":{\"latency_ms_p99\":10.0,\"lost\":0}}\n";
    const AFTER: &str = "{\"type\":\"final\",\"metrics\":{\"latency_ms_p99\":5,\"rss_mb\":3.5}}";

    #[test]
    fn numbers_of_two_results_stand_side_by_side() {
        let rows = rows(&metrics_of(BEFORE).unwrap(), &metrics_of(AFTER).unwrap());
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["latency_ms_p99", "lost", "rss_mb"]);
        assert_eq!(rows[0].ratio(), Some(0.5));
        assert_eq!(rows[1], Row { name: "lost".into(), before: Some(0.0), after: None });
        assert!(text(&rows).contains("0.500"));
        assert_eq!(json(&rows)["rows"][2]["after"], 3.5);
    }

    #[test]
    fn a_ratio_to_nothing_is_none() {
        let row = Row { name: "lost".into(), before: Some(0.0), after: Some(3.0) };
        assert_eq!(row.ratio(), None);
    }

    #[test]
    fn what_is_no_result_is_refused() {
        assert!(metrics_of("").is_err());
        assert!(metrics_of("{\"type\":\"sample\"}\nnot json\n").is_err());
    }
}
