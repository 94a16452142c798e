//! The host settings of `tuning/knobs.tsv`, judged the way `tuning/tune check` judges them.
//!
//! The table is compiled in, so what the server says at start and what the tool sets are one list. Only
//! kernel settings (group `sysctl`) are looked at here; cards, clocks and limits are the tool's business.
//! Reads below a root, `/` or a copy of it in tests; writes nothing, runs nothing.
//!
//! ```text
//!   row ─► gate open? ─► value of the profile ─► bounded by memory ─► does the current value suffice?
//! ```

use std::fs;
use std::path::Path;

/// The table itself.
const KNOBS: &str = include_str!("../../../tuning/knobs.tsv");
/// Columns in front of the profiles, and the profiles in the order of their columns.
const PROFILE_COLUMN: usize = 6;
const PROFILES: [&str; 5] = ["edge-10g", "edge-100g", "latency", "container", "dev"];

/// One row with the value of a profile.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Knob {
    pub(super) key: &'static str,
    group: &'static str,
    pub(super) need: &'static str,
    rule: &'static str,
    gate: &'static str,
    cap: &'static str,
    value: &'static str,
    pub(super) why: &'static str,
}

/// All rows with the values of `profile`; none for a profile that does not exist.
pub(super) fn knobs(profile: &str) -> impl Iterator<Item = Knob> {
    let column = PROFILES.iter().position(|name| *name == profile);
    KNOBS.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&'static str> = line.split('\t').collect();
        Some(Knob {
            key: fields.first()?,
            group: fields.get(1)?,
            need: fields.get(2)?,
            rule: fields.get(3)?,
            gate: fields.get(4)?,
            cap: fields.get(5)?,
            value: fields.get(PROFILE_COLUMN + column?)?,
            why: fields.get(PROFILE_COLUMN + PROFILES.len())?,
        })
    })
}

/// The first of `profiles` whose value of `key` is a number of at least `needed`.
pub(super) fn profile_with(
    profiles: &[&'static str],
    key: &str,
    needed: u64,
) -> Option<&'static str> {
    let offers = |profile: &&&'static str| {
        let mut row = knobs(profile).filter(|knob| knob.key == key);
        row.next().and_then(|knob| knob.value.parse::<u64>().ok()).is_some_and(|has| has >= needed)
    };
    profiles.iter().find(offers).copied()
}

/// What the table's gates and bounds ask about a host.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) is_container: bool,
    memory_kib: u64,
    memory_nodes: usize,
    kernel: (u64, u64),
    page_bytes: u64,
}

impl Facts {
    /// Looks at the host below `root`.
    pub(super) fn of(root: &Path) -> Facts {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let meminfo = text("proc/meminfo");
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let nodes = fs::read_dir(root.join("sys/devices/system/node"));
        let is_node = |name: &str| {
            name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let names = nodes.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let release = text("proc/sys/kernel/osrelease");
        let mut numbers =
            release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
        Facts {
            is_container: !text("run/systemd/container").trim().is_empty()
                || [".dockerenv", "run/.containerenv"].iter().any(|file| root.join(file).exists()),
            memory_kib: total
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .unwrap_or(0),
            memory_nodes: names.filter(|name| name.to_str().is_some_and(is_node)).count().max(1),
            kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            page_bytes: page_bytes(),
        }
    }

    /// The profile `tune` is to be called with here.
    pub(super) fn profile(&self) -> &'static str {
        if self.is_container { "container" } else { "edge-10g" }
    }

    fn opens(&self, gate: &str, root: &Path) -> bool {
        gate.split(',').all(|gate| match gate.split_once(['=', '>']) {
            None if gate == "host" => !self.is_container,
            None if gate == "numa" => self.memory_nodes > 1,
            None => gate == "-",
            Some(("cc", name)) => {
                let path = "net.ipv4.tcp_available_congestion_control";
                current(root, path).is_some_and(|all| all.split(' ').any(|one| one == name))
            }
            Some(("kernel", version)) => {
                let version = version.trim_start_matches('=');
                let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
                (major.parse(), minor.parse())
                    .pair()
                    .is_some_and(|least: (u64, u64)| self.kernel >= least)
            }
            Some(_) => false,
        })
    }

    /// A value of the table as it is for this host: `N%p` is a share of memory in pages, `N%k` in
    /// kilobytes, and a cap `BYTES@PERMILLE` bounds each number by the memory it may cost.
    fn value(&self, knob: &Knob) -> String {
        let share = |percent: &str, of: u64| percent.parse::<u64>().map_or(0, |p| of * p / 100);
        let bytes = self.memory_kib * 1024;
        let number = |word: &str| -> String {
            if let Some(percent) = word.strip_suffix("%p") {
                // The share first: that is the order of the tool, and it rounds differently.
                return (share(percent, bytes) / self.page_bytes).to_string();
            }
            match word.strip_suffix("%k") {
                Some(percent) => share(percent, self.memory_kib).to_string(),
                None => word.to_owned(),
            }
        };
        let bounded = |word: String| -> String {
            let limit = knob.cap.split_once('@').and_then(|(each, permille)| {
                let (each, permille): (u64, u64) = (each.parse().ok()?, permille.parse().ok()?);
                Some(bytes * permille / 1000 / each)
            });
            match (limit, word.parse::<u64>()) {
                (Some(limit), Ok(value)) if bytes > 0 => value.min(limit).to_string(),
                _ => word,
            }
        };
        knob.value.split(' ').map(number).map(bounded).collect::<Vec<_>>().join(" ")
    }
}

/// Bytes of a page, by what the kernel told this process at its start (entry 6 of the auxiliary vector,
/// `AT_PAGESZ` of getauxval(3)); those of most machines where it cannot be read.
fn page_bytes() -> u64 {
    const PAGE_SIZE: usize = 6;
    let vector = fs::read("/proc/self/auxv").unwrap_or_default();
    let words: Vec<usize> = vector
        .as_chunks::<{ size_of::<usize>() }>()
        .0
        .iter()
        .map(|word| usize::from_ne_bytes(*word))
        .collect();
    let entry = words.as_chunks::<2>().0.iter().find(|[name, _]| *name == PAGE_SIZE);
    entry.map_or(4_096, |[_, bytes]| *bytes as u64)
}

/// Two results as one.
trait Pair<A, B> {
    fn pair(self) -> Option<(A, B)>;
}

impl<A, B, E> Pair<A, B> for (Result<A, E>, Result<B, E>) {
    fn pair(self) -> Option<(A, B)> {
        self.0.ok().zip(self.1.ok())
    }
}

/// A kernel setting, white space squeezed; `None` where the kernel has none of that name.
pub(super) fn current(root: &Path, key: &str) -> Option<String> {
    let file = root.join("proc/sys").join(key.replace('.', "/"));
    let text = fs::read_to_string(file).ok()?;
    Some(text.lines().next()?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A kernel setting that does not suffice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Difference {
    pub(super) knob: Knob,
    pub(super) current: String,
    /// What to set: nothing that is large enough already is made smaller.
    pub(super) wanted: String,
}

/// All kernel settings of the profile that do not suffice, optional ones left out, in the table's order.
pub(super) fn differences(root: &Path, facts: &Facts, profile: &str) -> Vec<Difference> {
    let is_ours =
        |knob: &Knob| knob.group == "sysctl" && knob.need != "optional" && knob.value != "-";
    let judge = |knob: Knob| {
        let current = current(root, knob.key).filter(|_| facts.opens(knob.gate, root))?;
        let wanted = wanted(knob.rule, &current, &facts.value(&knob))?;
        Some(Difference { knob, current, wanted })
    };
    knobs(profile).filter(is_ours).filter_map(judge).collect()
}

/// What is to be set in place of `current`; `None` when it suffices or cannot be judged.
fn wanted(rule: &str, current: &str, value: &str) -> Option<String> {
    let numbers = |text: &str| -> Option<Vec<i128>> {
        text.split(' ').map(|word| word.parse().ok()).collect()
    };
    if rule == "exact" {
        let is_one = value.split('|').any(|choice| choice == current);
        return (!is_one).then(|| value.split('|').next().unwrap_or(value).to_owned());
    }
    let (have, want) = (numbers(current)?, numbers(value)?);
    let better: Vec<i128> = match (rule, have.as_slice(), want.as_slice()) {
        ("min", [have], [want]) => vec![*have.max(want)],
        ("max", [have], [want]) => vec![*have.min(want)],
        ("range", [low, high], [want_low, want_high]) => {
            vec![*low.min(want_low), *high.max(want_high)]
        }
        ("triple", [_, _, _], [_, _, _]) => {
            have.iter().zip(&want).map(|(have, want)| *have.max(want)).collect()
        }
        _ => return None,
    };
    let text =
        |numbers: &[i128]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    (better != have).then(|| text(&better))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_fields_and_a_rule_that_is_known() {
        let rows: Vec<Knob> = knobs("edge-10g").collect();
        assert!(rows.len() > 40 && knobs("nowhere").count() == 0);
        for knob in rows.iter().filter(|knob| knob.group == "sysctl") {
            let rules = ["min", "max", "exact", "triple", "range"];
            assert!(rules.contains(&knob.rule), "{knob:?}");
        }
    }

    #[test]
    fn a_value_suffices_by_the_rule_of_its_row() {
        for (rule, current, value, expected) in [
            ("min", "4096", "4096", None),
            ("min", "128", "4096", Some("4096")),
            ("max", "3", "5", None),
            ("max", "9", "5", Some("5")),
            ("exact", "2", "1|2", None),
            ("exact", "0", "1|2", Some("1")),
            ("triple", "8192 16384 33554432", "4096 65536 4194304", Some("8192 65536 33554432")),
            ("triple", "4096 65536 4194304", "4096 65536 4194304", None),
            ("range", "32768 60999", "10240 65000", Some("10240 65000")),
            ("range", "1024 65535", "10240 65000", None),
            ("min", "many", "4096", None),
        ] {
            assert_eq!(wanted(rule, current, value).as_deref(), expected, "{rule} {current}");
        }
    }

    #[test]
    fn the_profile_named_is_the_first_that_is_large_enough() {
        let profiles = ["edge-10g", "edge-100g"];
        let named = |needed| profile_with(&profiles, "net.core.somaxconn", needed);
        assert_eq!(named(4_096), Some("edge-10g"));
        assert_eq!(named(4_097), Some("edge-100g"));
        assert_eq!(named(1_000_000), None);
    }
}
