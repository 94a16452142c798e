//! The rules, each a few lines over [`Source`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{FILE_LINES_MAX, FUNCTION_LINES_MAX, Finding, LINE_CHARS_MAX, Source};

/// Crates that may contain `unsafe`.
const UNSAFE_ROOMS: [&str; 2] = ["hotpath/ring/", "hotpath/uring/"];
/// Crates that build without the standard library.
const NO_STD_ROOMS: [&str; 4] =
    ["hotpath/rtmp/src", "hotpath/live/src", "hotpath/ring/src", "hotpath/http/src"];
/// Folders of machines, which have no place in a repository. In pieces, so that this file passes.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
/// Notes to oneself. In pieces, so that this file passes.
const LEFTOVERS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];

/// Rules for every text file.
pub(super) fn any_text(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        let mut found = |rule, what: String| {
            findings.push(Finding { path: path.into(), line: index + 1, rule, what });
        };
        for word in LEFTOVERS.into_iter().filter(|word| has_word(line, word)) {
            found("leftover", format!("{word}: resolve it or make it an issue"));
        }
        for prefix in MACHINE_PATHS.into_iter().filter(|prefix| line.contains(*prefix)) {
            found("machine-path", format!("{prefix} exists on one machine only"));
        }
        if line.ends_with([' ', '\t']) {
            found("trailing-space", "space at the end of the line".into());
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        let line = text.lines().count();
        let what = "no newline at the end of the file".into();
        findings.push(Finding { path: path.into(), line, rule: "final-newline", what });
    }
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

/// Rules for one Rust file.
pub(super) fn rust(source: &Source, findings: &mut Vec<Finding>) {
    let path = source.path.to_string_lossy().replace('\\', "/");
    let mut found = |index: usize, rule: &'static str, what: String| {
        findings.push(Finding { path: source.path.clone(), line: index + 1, rule, what });
    };
    if source.lines.len() > FILE_LINES_MAX {
        found(0, "long-file", format!("{} lines, limit {FILE_LINES_MAX}", source.lines.len()));
    }
    if !source.lines.first().is_some_and(|line| line.starts_with("//!") || line.starts_with("#!")) {
        found(0, "no-contract", "a file opens with //! and its contract".into());
    }
    for (index, line) in source.lines.iter().enumerate() {
        let chars = line.chars().count();
        // A row of a table cannot be broken.
        let is_table = line.trim_start().trim_start_matches(['/', '!']).starts_with(" |");
        if chars > LINE_CHARS_MAX && !is_table {
            found(index, "long-line", format!("{chars} characters, limit {LINE_CHARS_MAX}"));
        }
        if line.trim() == "#[ignore]" {
            found(index, "ignore-without-reason", "write #[ignore = \"reason\"]".into());
        }
    }
    unsafe_rules(source, &path, &mut found);
    if NO_STD_ROOMS.iter().any(|room| path.starts_with(room)) {
        for (index, line) in source.code.iter().enumerate() {
            let uses_std = line.contains("std::") || line.contains("extern crate std");
            if uses_std && !source.is_test[index] {
                found(index, "std", "this crate builds without the standard library".into());
            }
        }
    }
    if path.starts_with("hotpath/") {
        long_functions(source, &mut found);
    }
}

fn unsafe_rules(source: &Source, path: &str, found: &mut impl FnMut(usize, &'static str, String)) {
    let may_be_unsafe = UNSAFE_ROOMS.iter().any(|room| path.starts_with(room));
    for (index, line) in source.code.iter().enumerate() {
        if !has_word(line, "unsafe") || line.trim_start().starts_with('#') {
            continue;
        }
        if !may_be_unsafe {
            found(index, "unsafe-room", "unsafe belongs to hotpath/ring and hotpath/uring".into());
        }
        let opens = line.contains("unsafe {") || line.contains("unsafe impl");
        if opens && !has_safety_comment(source, index) {
            found(index, "safety-comment", "no // SAFETY: comment above".into());
        }
    }
}

/// True when the comment lines directly above, past attributes and the start of the statement, say
/// why it is safe.
fn has_safety_comment(source: &Source, index: usize) -> bool {
    let mut statement_lines_left = 3;
    for above in (0..index).rev() {
        let line = source.lines[above].trim_start();
        if line.starts_with("//") {
            if line.contains("SAFETY:") {
                return true;
            }
        } else if !line.starts_with("#[") {
            // The block may be in the middle of a statement that starts a little higher.
            if statement_lines_left == 0 || line.ends_with(';') || line.ends_with('}') {
                return false;
            }
            statement_lines_left -= 1;
        }
    }
    false
}

fn long_functions(source: &Source, found: &mut impl FnMut(usize, &'static str, String)) {
    for (index, line) in source.code.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let Some(end) = source.block_end(index) else { continue };
        let lines = end - index + 1;
        if lines > FUNCTION_LINES_MAX {
            let what = format!("`{name}` has {lines} lines, limit {FUNCTION_LINES_MAX}");
            found(index, "long-function", what);
        }
    }
}

/// Name of the function declared on this line of code.
fn function_name(code: &str) -> Option<&str> {
    let (before, after) = code.split_once("fn ")?;
    let is_keyword = |word: &str| {
        word.starts_with("pub")
            || ["const", "async", "unsafe", "extern", "crate)", "super)"].contains(&word)
    };
    if !before.split_whitespace().all(is_keyword) {
        return None;
    }
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (end > 0).then(|| &after[..end])
}

/// Every file of a crate must be declared by a `mod` in the file above it.
pub(super) fn files_are_used(sources: &[Source], findings: &mut Vec<Finding>) {
    let mut declared = BTreeSet::new();
    for source in sources {
        let children = children_of(&source.path);
        for (index, line) in source.code.iter().enumerate() {
            let Some(name) = declared_module(line) else { continue };
            let attribute = index.checked_sub(1).map_or("", |above| source.lines[above].trim());
            if let Some(path) = path_attribute(attribute) {
                declared.insert(parent(&source.path).join(path));
            }
            declared.insert(children.join(format!("{name}.rs")));
            declared.insert(children.join(name).join("mod.rs"));
        }
    }
    for source in sources {
        if !is_crate_root(&source.path) && !declared.contains(&source.path) {
            let what = "no mod declares this file".into();
            let path = source.path.clone();
            findings.push(Finding { path, line: 1, rule: "unused-file", what });
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Folder in which the modules that this file declares are.
fn children_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    if name == "mod.rs" || is_crate_root(path) {
        parent(path).into()
    } else {
        path.with_extension("")
    }
}

/// True for files that cargo finds without a `mod`.
fn is_crate_root(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let folder = parent(path).file_name().unwrap_or_default();
    let is_target_folder = ["tests", "benches", "examples", "bin", "fuzz_targets", "fuzz"]
        .iter()
        .any(|target| folder == *target);
    let is_root_name = ["lib.rs", "main.rs", "build.rs"].iter().any(|root| name == *root);
    is_target_folder || is_root_name
}

fn declared_module(code: &str) -> Option<&str> {
    let declaration = code.trim().strip_suffix(';')?;
    let (before, name) = declaration.rsplit_once("mod ")?;
    let is_visibility = before.is_empty() || before.starts_with("pub");
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    (is_visibility && is_name).then_some(name)
}

fn path_attribute(line: &str) -> Option<&str> {
    line.strip_prefix("#[path = \"")?.strip_suffix("\"]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_broken(path: &str, text: &str) -> Vec<&'static str> {
        let mut findings = Vec::new();
        any_text(Path::new(path), text, &mut findings);
        rust(&Source::new(path.into(), text.into()), &mut findings);
        findings.into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_good_file_has_no_findings() {
        let text =
            "//! Contract.\n\nfn f() {\n    // SAFETY: owned until drop.\n    unsafe { g() }\n}\n";
        assert_eq!(rules_broken("hotpath/ring/src/a.rs", text), [""; 0]);
    }

    #[test]
    fn unsafe_needs_its_room_and_its_reason() {
        let text = "//! C.\nfn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(rules_broken("edge/src/a.rs", text), ["unsafe-room", "safety-comment"]);
        let lint = "//! C.\n#![forbid(unsafe_code)]\n// unsafe in words\n";
        assert_eq!(rules_broken("edge/src/a.rs", lint), [""; 0]);
    }

    #[test]
    fn std_is_for_tests_only_in_rooms_without_it() {
        let text = "//! C.\nuse std::fmt;\n#[cfg(test)]\nmod tests {\n    use std::io;\n}\n";
        assert_eq!(rules_broken("hotpath/rtmp/src/a.rs", text), ["std"]);
        assert_eq!(rules_broken("edge/src/a.rs", text), [""; 0]);
    }

    #[test]
    fn long_functions_lines_and_files_are_found() {
        let body = "    g();\n".repeat(FUNCTION_LINES_MAX - 1);
        let function = format!("//! C.\npub(crate) fn f() {{\n{body}}}\n");
        assert_eq!(rules_broken("hotpath/rtmp/src/a.rs", &function), ["long-function"]);
        let line = format!("//! {}\n", "x".repeat(LINE_CHARS_MAX));
        assert_eq!(rules_broken("edge/src/a.rs", &line), ["long-line"]);
        let file = "//! C.\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(rules_broken("edge/src/a.rs", &file), ["long-file"]);
    }

    #[test]
    fn leftovers_and_machine_paths_are_found_in_any_text() {
        for word in LEFTOVERS.into_iter().chain(MACHINE_PATHS) {
            let mut findings = Vec::new();
            any_text(Path::new("a.md"), &format!("see {word} here\n"), &mut findings);
            assert_eq!(findings.len(), 1, "{word}");
        }
    }

    #[test]
    fn ignored_tests_need_a_reason() {
        let text = "//! C.\n#[test]\n#[ignore]\nfn t() {}\n";
        assert_eq!(rules_broken("edge/src/a.rs", text), ["ignore-without-reason"]);
    }

    #[test]
    fn files_no_module_declares_are_found() {
        let file = |path: &str, text: &str| Source::new(path.into(), text.into());
        let sources = [
            file(
                "a/src/lib.rs",
                "mod one;\npub(crate) mod two;\n#[path = \"odd/name.rs\"]\nmod three;\n",
            ),
            file("a/src/one.rs", "mod inner;\n"),
            file("a/src/one/inner.rs", ""),
            file("a/src/two/mod.rs", "mod inner;\n"),
            file("a/src/two/inner.rs", ""),
            file("a/src/odd/name.rs", ""),
            file("a/src/forgotten.rs", ""),
            file("a/tests/suite.rs", ""),
        ];
        let mut findings = Vec::new();
        files_are_used(&sources, &mut findings);
        let paths: Vec<_> = findings.iter().map(|finding| finding.path.as_path()).collect();
        assert_eq!(paths, [Path::new("a/src/forgotten.rs")]);
    }
}
