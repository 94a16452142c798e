//! Objectives: terms like `p99_latency<500ms`, checked against the table of a result.
//!
//! ```text
//!   TERMS = TERM[,TERM…]     TERM = NAME OP VALUE[UNIT]     OP = < <= > >=     UNIT = us ms s %
//!   p99_latency   is latency_ms_p99      max_stall   is stall_ms_max
//!   stall, loss   are stall_percent, loss_percent        any name of the table is itself
//! ```
//!
//! A name that was not measured is a missed objective: nobody should rely on its silence.

use crate::report::{Metrics, number};
use std::fmt;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Relation {
    Below,
    AtMost,
    Above,
    AtLeast,
}

impl Relation {
    const ALL: [(&'static str, Relation); 4] = [
        ("<=", Relation::AtMost),
        (">=", Relation::AtLeast),
        ("<", Relation::Below),
        (">", Relation::Above),
    ];

    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Relation::Below => value < bound,
            Relation::AtMost => value <= bound,
            Relation::Above => value > bound,
            Relation::AtLeast => value >= bound,
        }
    }
}

/// One term.
#[derive(Clone, PartialEq, Debug)]
struct Term {
    text: String,
    metric: String,
    relation: Relation,
    bound: f64,
}

/// What a run must hold to.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Slo {
    terms: Vec<Term>,
}

/// A term that makes no sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SloError(String);

impl fmt::Display for SloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Slo {
    /// Reads terms; empty text has none.
    ///
    /// # Errors
    /// Names the first term that makes no sense.
    pub(crate) fn parse(text: &str) -> Result<Slo, SloError> {
        let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
        Ok(Slo { terms: terms.map(Term::parse).collect::<Result<_, _>>()? })
    }

    /// The terms a result misses, each with what was measured.
    pub(crate) fn missed(&self, metrics: &Metrics) -> Vec<String> {
        let judge = |term: &Term| match metrics.get(&term.metric) {
            Some(&value) if term.relation.holds(value, term.bound) => None,
            Some(&value) => Some(format!("{}: {} is {}", term.text, term.metric, number(value))),
            None => Some(format!("{}: {} was not measured", term.text, term.metric)),
        };
        self.terms.iter().filter_map(judge).collect()
    }
}

impl Term {
    fn parse(text: &str) -> Result<Term, SloError> {
        let error = |what: &str| SloError(format!("{text}: {what}"));
        let split = |(sign, relation): (&str, Relation)| {
            text.split_once(sign).map(|(name, value)| (name.trim(), relation, value.trim()))
        };
        let found = Relation::ALL.into_iter().find_map(split);
        let (name, relation, value) = found.ok_or_else(|| error("expected NAME<VALUE"))?;
        let metric = metric_of(name);
        let (digits, factor) = in_unit_of(&metric, value).ok_or_else(|| {
            error(if metric.contains("_ms") { "expected us, ms or s" } else { "unit does not fit" })
        })?;
        let bound: f64 = digits.trim().parse().map_err(|_| error("not a number"))?;
        if name.is_empty() || !bound.is_finite() {
            return Err(error("expected NAME<VALUE"));
        }
        Ok(Term { text: text.into(), metric, relation, bound: bound * factor })
    }
}

/// The name in the table for a name in a term.
fn metric_of(name: &str) -> String {
    match name {
        "stall" | "loss" => return format!("{name}_percent"),
        "slope" => return "lag_slope_ms_per_s_max".into(),
        "cpu" => return "cpu_percent_per_1000".into(),
        _ => {}
    }
    match name.split_once('_') {
        Some((rank @ ("p50" | "p90" | "p99" | "p999" | "max"), what)) => {
            format!("{what}_ms_{rank}")
        }
        _ => name.into(),
    }
}

/// The digits of a value and the factor that brings them into the metric's unit.
fn in_unit_of<'v>(metric: &str, value: &'v str) -> Option<(&'v str, f64)> {
    let is_time = metric.contains("_ms");
    let is_share = metric.contains("percent");
    for (unit, is_for, factor) in
        [("us", is_time, 1e-3), ("ms", is_time, 1.0), ("s", is_time, 1e3), ("%", is_share, 1.0)]
    {
        if let Some(digits) = value.strip_suffix(unit) {
            return is_for.then_some((digits, factor));
        }
    }
    Some((value, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        let entries = [("latency_ms_p99", 12.5), ("stall_percent", 0.2), ("lost", 0.0)];
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn missed(terms: &str) -> Vec<String> {
        Slo::parse(terms).unwrap().missed(&metrics())
    }

    #[test]
    fn terms_that_hold_are_silent() {
        assert_eq!(missed("p99_latency<500ms, stall <= 0.2%, lost<=0"), [""; 0]);
        assert_eq!(missed("p99_latency<0.1s,p99_latency>12000us,latency_ms_p99>=12.5"), [""; 0]);
        assert_eq!(missed(""), [""; 0]);
    }

    #[test]
    fn missed_terms_say_what_was_measured() {
        assert_eq!(
            missed("p99_latency<10ms,stall<0.1%,lost<1"),
            ["p99_latency<10ms: latency_ms_p99 is 12.50", "stall<0.1%: stall_percent is 0.2000"]
        );
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        assert_eq!(missed("cpu<30%"), ["cpu<30%: cpu_percent_per_1000 was not measured"]);
    }

    #[test]
    fn nonsense_is_refused() {
        for terms in ["p99_latency", "p99_latency<", "p99_latency<5%", "stall<5ms", "<5", "a<nan"] {
            assert!(Slo::parse(terms).is_err(), "{terms}");
        }
    }
}
