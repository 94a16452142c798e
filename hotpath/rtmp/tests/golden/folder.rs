//! The folders of captures: reading them, and comparing with what is stored in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rtmp::session::ClientRole;

/// Set to 1 to store what is found instead of comparing it.
const UPDATE: &str = "RINGCAST_UPDATE";
/// Keys of about.toml, each a string that says something.
const ABOUT_KEYS: [&str; 6] = ["client", "version", "date", "command", "server_commit", "cut"];
/// Lines around a difference that are shown.
const CONTEXT_LINES: usize = 3;
/// Lines of each side of a difference that are shown.
const DIFF_LINES_MAX: usize = 12;

/// One folder.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) name: String,
    pub(crate) c2s: Vec<u8>,
    pub(crate) s2c: Vec<u8>,
    /// No folder before this one has the same client in the same version.
    pub(crate) is_first_of_client: bool,
    about: String,
    path: PathBuf,
}

/// All folders, in the order of their names.
pub(crate) fn load_all() -> Vec<Capture> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let entries = fs::read_dir(&testdata).expect("a folder testdata");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.is_dir());
    paths.sort();
    let mut clients = BTreeSet::new();
    let mut captures: Vec<Capture> = paths.into_iter().map(Capture::load).collect();
    for capture in &mut captures {
        let client = [capture.about("client"), capture.about("version")].map(String::from);
        capture.is_first_of_client = clients.insert(client);
    }
    captures
}

impl Capture {
    fn load(path: PathBuf) -> Self {
        let read = |name: &str| {
            let path = path.join(name);
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let name = path.file_name().expect("a folder").to_string_lossy().into_owned();
        let about = String::from_utf8(read("about.toml")).expect("about.toml is text");
        let (c2s, s2c) = (read("c2s.bin"), read("s2c.bin"));
        Self { name, c2s, s2c, is_first_of_client: false, about, path }
    }

    /// What the client is for, by the end of the folder's name.
    pub(crate) fn role(&self) -> ClientRole {
        let plays = ["-play", "-pull"].iter().any(|end| self.name.ends_with(end));
        if plays { ClientRole::Play } else { ClientRole::Publish }
    }

    /// The string behind a key of about.toml.
    fn about(&self, key: &str) -> &str {
        let value = self
            .about
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'));
        value.unwrap_or_else(|| panic!("{}/about.toml has no {key} = \"…\"", self.name))
    }

    pub(crate) fn check_about(&self) {
        for key in ABOUT_KEYS {
            assert!(!self.about(key).is_empty(), "{}/about.toml: {key} is empty", self.name);
        }
        assert!(self.about.contains("\nquirks = ["), "{}/about.toml: no quirks", self.name);
        let named = format!("{}-{}-", self.about("client"), self.about("version"));
        assert!(self.name.starts_with(&named), "{} is not named {named}…", self.name);
        // A path from the root exists on the machine of the recording only.
        let mut words = self.about.split([' ', '"', '=', ',', '\n']);
        let path = words.find(|word| word.starts_with('/'));
        assert_eq!(path, None, "{}/about.toml names a path", self.name);
    }

    /// Compares with a file of the folder, or writes it.
    pub(crate) fn expect_stored(&self, file: &str, found: &[u8]) {
        let path = self.path.join(file);
        if std::env::var(UPDATE).is_ok_and(|value| value == "1") {
            fs::write(&path, found).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            return;
        }
        let stored = fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; {UPDATE}=1 makes it", path.display());
        });
        if stored != found {
            let difference = match (str::from_utf8(&stored), str::from_utf8(found)) {
                (Ok(stored), Ok(found)) => line_difference(stored, found),
                _ => byte_difference(&stored, found),
            };
            panic!(
                "{}/{file} is not what it was (- stored, + found; {UPDATE}=1 accepts):\n{difference}",
                self.name
            );
        }
    }
}

/// The lines between the first and the last that differ, with a few around them.
fn line_difference(stored: &str, found: &str) -> String {
    let (stored, found): (Vec<&str>, Vec<&str>) =
        (stored.lines().collect(), found.lines().collect());
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| {
        pairs.take_while(|(stored, found)| stored == found).count()
    };
    let front = same(&mut stored.iter().zip(&found));
    let back = same(&mut stored[front..].iter().rev().zip(found[front..].iter().rev()));
    let mut text = format!("at line {}\n", front + 1);
    let mut show = |mark: char, lines: &[&str]| {
        for line in lines.iter().take(DIFF_LINES_MAX) {
            text.push_str(&format!("{mark} {line}\n"));
        }
        if lines.len() > DIFF_LINES_MAX {
            text.push_str(&format!("{mark} … {} lines more\n", lines.len() - DIFF_LINES_MAX));
        }
    };
    show(' ', &stored[front.saturating_sub(CONTEXT_LINES)..front]);
    show('-', &stored[front..stored.len() - back]);
    show('+', &found[front..found.len() - back]);
    show(' ', &stored[stored.len() - back..][..back.min(CONTEXT_LINES)]);
    text
}

fn byte_difference(stored: &[u8], found: &[u8]) -> String {
    let front = stored.iter().zip(found).take_while(|(stored, found)| stored == found).count();
    let around =
        |bytes: &[u8]| bytes[front..bytes.len().min(front + 32)].escape_ascii().to_string();
    format!(
        "at byte {front}, {} bytes stored, {} found\n- {}\n+ {}",
        stored.len(),
        found.len(),
        around(stored),
        around(found)
    )
}

#[test]
fn a_difference_shows_its_lines_and_those_around_it() {
    let difference = line_difference("a\nb\nc\nd\ne\n", "a\nb\nx\ny\nd\ne\n");
    assert_eq!(difference, "at line 3\n  a\n  b\n- c\n+ x\n+ y\n  d\n  e\n");
    assert_eq!(line_difference("a\n", "a\nb\n"), "at line 2\n  a\n+ b\n");
    assert!(byte_difference(b"\x00ab\xFF", b"\x00ax\xFF").starts_with("at byte 2, "));
}
