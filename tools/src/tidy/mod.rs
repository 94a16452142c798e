//! The house rules that neither the compiler nor clippy checks.
//!
//! Works on text: each file is read once, its comments and strings are told apart from its code by
//! `source`, and each rule looks at lines. A rule may be wrong about strange code; the exceptions
//! are in one list, `ALLOWED`, and an exception that is not needed any more is a finding itself.

mod rules;
mod source;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use source::Source;

/// Lines of a function in `hotpath`, signature and braces included.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a Rust file.
pub const FILE_LINES_MAX: usize = 700;
/// Characters of a line. rustfmt keeps code to 100; comments and literals get a little more.
pub const LINE_CHARS_MAX: usize = 110;

/// Exceptions: rule, path, and for functions the name.
const ALLOWED: &[(&str, &str, &str)] = &[
    // A counting allocator cannot be written without.
    ("unsafe-room", "edge/tests/no_alloc.rs", ""),
    ("unsafe-room", "edge/tests/support/confine.rs", ""),
    ("unsafe-room", "edge/tests/memory.rs", ""),
    // Nor can an exported symbol of a program without a standard library.
    ("unsafe-room", "tools/no-std/src/lib.rs", ""),
];

/// One violation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Path from the root of the repository.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Short name of the rule.
    pub rule: &'static str,
    /// What is wrong, or the name an exception would use.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path.display(), self.line, self.rule, self.what)
    }
}

/// Checks every text file below `root`.
///
/// # Errors
/// When a file cannot be read.
pub fn check(root: &Path) -> io::Result<Vec<Finding>> {
    let mut paths = Vec::new();
    collect(root, root, &mut paths)?;
    paths.sort();
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    for path in &paths {
        // Binary files (captures, corpora) have no lines.
        let Ok(text) = String::from_utf8(fs::read(root.join(path))?) else { continue };
        rules::any_text(path, &text, &mut findings);
        if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source::new(path.clone(), text));
        }
    }
    for source in &sources {
        rules::rust(source, &mut findings);
    }
    rules::files_are_used(&sources, &mut findings);
    Ok(without_allowed(findings, ALLOWED))
}

/// Paths below `dir`, relative to `root`, but for what is built or recorded.
fn collect(root: &Path, dir: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_left_out =
            ["target", ".git", "testdata", "corpus", "artifacts", "work", "LICENSE", "Cargo.lock"]
                .iter()
                .any(|left_out| name == *left_out);
        if is_left_out {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(root, &entry.path(), paths)?;
        } else if kind.is_file() {
            let path = entry.path();
            paths.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
        }
    }
    Ok(())
}

/// Removes the allowed findings; an exception nothing needs becomes a finding.
fn without_allowed(findings: Vec<Finding>, allowed: &[(&'static str, &str, &str)]) -> Vec<Finding> {
    let matches = |finding: &Finding, (rule, path, what): &(&str, &str, &str)| {
        finding.rule == *rule && finding.path == Path::new(path) && finding.what.contains(what)
    };
    let unused = allowed
        .iter()
        .filter(|exception| !findings.iter().any(|finding| matches(finding, exception)))
        .map(|(rule, path, what)| Finding {
            path: path.into(),
            line: 1,
            rule: "allowed-but-unneeded",
            what: format!("{rule} {what}"),
        })
        .collect::<Vec<_>>();
    let is_allowed =
        |finding: &Finding| allowed.iter().any(|exception| matches(finding, exception));
    findings.into_iter().filter(|finding| !is_allowed(finding)).chain(unused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(what: &str) -> Finding {
        Finding { path: "a.rs".into(), line: 3, rule: "long-function", what: what.into() }
    }

    #[test]
    fn exceptions_hide_what_they_name_and_nothing_else() {
        let found = vec![finding("`run` has 80 lines"), finding("`walk` has 80 lines")];
        let left = without_allowed(found, &[("long-function", "a.rs", "`run`")]);
        assert_eq!(left, [finding("`walk` has 80 lines")]);
    }

    #[test]
    fn unneeded_exceptions_are_findings() {
        let left = without_allowed(Vec::new(), &[("long-function", "a.rs", "`run`")]);
        assert_eq!(left[0].rule, "allowed-but-unneeded");
    }
}
