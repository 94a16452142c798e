//! Finds certificate pairs: in a folder, in the ways people and ACME clients lay them out, and in the
//! configuration. Looks at names and file status only; opens no certificate.
//!
//! ```text
//!   DIR/NAME.crt  (or .cer, .pem) + DIR/NAME.key            by hand, lego
//!   DIR/NAME/fullchain.pem + DIR/NAME/privkey.pem           by hand, certbot live/, dehydrated
//!   DIR/NAME_ecc/fullchain.cer + DIR/NAME_ecc/NAME.key      acme.sh, also without _ecc
//!   DIR/NAME/NAME.crt + DIR/NAME/NAME.key                   Caddy, one issuer's folder
//!   DIR/NAME/tls.crt + DIR/NAME/tls.key                     secrets mounted by orchestrators
//! ```
//!
//! A folder without any of these is looked into once more, so that the folder above (`/etc/letsencrypt`,
//! Caddy's `certificates`, lego's) works too, and DIR may itself be one of them. Names beginning with a dot,
//! `*.issuer.crt`, and files of other kinds are not looked at. Half a pair is a pair: reading it says which
//! file is missing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::Config;

/// Pairs taken from one folder; more are left out, and that is told.
pub const PAIRS_MAX: usize = 65_536;

/// Problems told at one look.
const PROBLEMS_MAX: usize = 50;

/// Where certificates come from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CertSources {
    /// `tls.dir`.
    pub dir: Option<PathBuf>,
    /// `[certificate."NAME"]`.
    pub entries: Vec<CertEntry>,
}

/// One certificate named in the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertEntry {
    /// Its name in the file; `default` is for clients without SNI.
    pub name: String,
    /// PEM file: the certificate, then its intermediates.
    pub cert: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
    /// Host names it is chosen for; those it names itself if empty.
    pub domains: Vec<String>,
}

impl CertSources {
    /// What a configuration asks for.
    pub fn of(config: &Config) -> Self {
        let entries = config.certificates.iter().filter_map(|(name, entry)| {
            // Both are there: a configuration without them is refused.
            let (cert, key) = (entry.cert.path()?.to_owned(), entry.key.path()?.to_owned());
            Some(CertEntry { name: name.clone(), cert, key, domains: entry.domains.0.clone() })
        });
        Self { dir: config.tls.dir.path().map(Path::to_owned), entries: entries.collect() }
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.dir.is_none() && self.entries.is_empty()
    }
}

/// Names a pair for as long as it is known, also when its files change. Sorted by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct PairId {
    /// Name of the pair.
    pub name: String,
    /// Certificate file of a pair found in the folder; `None` for an entry of the configuration.
    pub found_at: Option<PathBuf>,
}

/// The two files of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PairFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Host names it is chosen for; those of the certificate if empty.
    pub domains: Vec<String>,
}

/// What tells one version of a file from another without opening it; `None` if it is not there.
pub(super) type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// Those of certificate and key.
pub(super) type Stamps = (Stamp, Stamp);

fn stamp(path: &Path) -> Stamp {
    // Follows links: clients of ACME change where a link points, not the file.
    let file = fs::metadata(path).ok()?;
    let (modified, changed) =
        ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    Some((file.dev(), file.ino(), file.size(), modified, changed))
}

/// A pair as it is at the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FoundPair {
    pub id: PairId,
    pub files: PairFiles,
    pub stamps: Stamps,
}

impl FoundPair {
    fn new(id: PairId, files: PairFiles) -> Self {
        let stamps = (stamp(&files.cert), stamp(&files.key));
        Self { id, files, stamps }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub pairs: Vec<FoundPair>,
    /// Folders that could not be looked into. While there are any, absence proves nothing.
    pub problems: Vec<String>,
}

/// Looks for pairs.
pub(super) fn find(sources: &CertSources) -> Found {
    let mut found = Found::default();
    for entry in &sources.entries {
        let id = PairId { name: entry.name.clone(), found_at: None };
        let (cert, key) = (entry.cert.clone(), entry.key.clone());
        let files = PairFiles { cert, key, domains: entry.domains.clone() };
        found.pairs.push(FoundPair::new(id, files));
    }
    if let Some(dir) = &sources.dir {
        found.look_into(dir);
    }
    found
}

impl Found {
    fn look_into(&mut self, dir: &Path) {
        let Some(folder) = self.list(dir) else { return };
        let name = folder_name(dir);
        match folder.own_pair(&name).filter(|_| folder.has_fullchain()) {
            Some((cert, key)) => self.add(name, dir, cert, key),
            None => {
                for (stem, cert, key) in folder.file_pairs(true) {
                    self.add(stem, dir, cert, key);
                }
            }
        }
        for name in &folder.folders {
            let path = dir.join(name);
            let Some(inner) = self.list(&path) else { continue };
            if let Some((cert, key)) = inner.own_pair(name) {
                self.add(name.clone(), &path, cert, key);
                continue;
            }
            for (stem, cert, key) in inner.file_pairs(false) {
                self.add(stem, &path, cert, key);
            }
            for name in &inner.folders {
                let path = path.join(name);
                let pair = self.list(&path).and_then(|innermost| innermost.own_pair(name));
                if let Some((cert, key)) = pair {
                    self.add(name.clone(), &path, cert, key);
                }
            }
        }
    }

    fn add(&mut self, name: String, folder: &Path, cert: String, key: String) {
        if self.pairs.len() == PAIRS_MAX {
            return self.problem(format!("more than {PAIRS_MAX} certificates; {name} is left out"));
        }
        let (cert, key) = (folder.join(cert), folder.join(key));
        let id = PairId { name, found_at: Some(cert.clone()) };
        let files = PairFiles { cert, key, domains: Vec::new() };
        self.pairs.push(FoundPair::new(id, files));
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }

    /// Names in a folder; a folder that cannot be read is a problem, one that has just gone is not there.
    fn list(&mut self, path: &Path) -> Option<Folder> {
        match Folder::read(path) {
            Ok(folder) => Some(folder),
            Err(error) => {
                self.problem(format!("{}: {error}", path.display()));
                None
            }
        }
    }
}

fn folder_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "default".into(), |name| name.to_string_lossy().into_owned())
}

#[derive(Debug, Default)]
struct Folder {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Folder {
    fn read(path: &Path) -> io::Result<Self> {
        let mut folder = Self::default();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // A name that is no text cannot be a host's.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let mut kind = entry.file_type()?;
            if kind.is_symlink() {
                // A link to nothing is a file that cannot be read, which its pair will tell.
                match fs::metadata(entry.path()) {
                    Ok(target) => kind = target.file_type(),
                    Err(_) => drop(folder.files.insert(name.clone())),
                }
            }
            if kind.is_dir() {
                folder.folders.insert(name);
            } else if kind.is_file() {
                folder.files.insert(name);
            }
        }
        Ok(folder)
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    fn has_fullchain(&self) -> bool {
        self.has("fullchain.pem") || self.has("fullchain.cer")
    }

    /// Certificate and key if the folder is one pair's.
    fn own_pair(&self, name: &str) -> Option<(String, String)> {
        if self.has("fullchain.pem") || self.has("privkey.pem") {
            return Some(("fullchain.pem".into(), "privkey.pem".into()));
        }
        if self.has("fullchain.cer") {
            let bare = name.strip_suffix("_ecc").unwrap_or(name);
            let mut key = format!("{bare}.key");
            // The folder was renamed: its only key is the one.
            let mut keys = self.files.iter().filter(|file| file.ends_with(".key"));
            if !self.has(&key)
                && let (Some(only), None) = (keys.next(), keys.next())
            {
                key.clone_from(only);
            }
            return Some(("fullchain.cer".into(), key));
        }
        [name, "tls"].into_iter().find_map(|stem| {
            let (cert, key) = (format!("{stem}.crt"), format!("{stem}.key"));
            (self.has(&cert) || self.has(&key)).then_some((cert, key))
        })
    }

    /// `NAME.crt` + `NAME.key`: name, certificate, key. With `halves` also those of which one is missing.
    fn file_pairs(&self, halves: bool) -> Vec<(String, String, String)> {
        let mut pairs = Vec::new();
        let mut seen = BTreeSet::new();
        for file in &self.files {
            let Some((stem, extension)) = file.rsplit_once('.') else { continue };
            let is_other = !matches!(extension, "crt" | "cer" | "key" | "pem");
            if is_other || stem.ends_with(".issuer") || seen.contains(stem) {
                continue;
            }
            let key = format!("{stem}.key");
            let cert = ["crt", "cer", "pem"]
                .map(|extension| format!("{stem}.{extension}"))
                .into_iter()
                .find(|name| self.has(name));
            // A .pem alone may be anything: a CA, parameters.
            if extension == "pem" && !self.has(&key) {
                continue;
            }
            seen.insert(stem.to_owned());
            let is_whole = cert.is_some() && self.has(&key);
            if is_whole || halves {
                pairs.push((stem.to_owned(), cert.unwrap_or(format!("{stem}.crt")), key));
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the files, then lists `name: certificate + key`, relative to the folder.
    fn found(files: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let sources = CertSources { dir: Some(dir.path().to_owned()), entries: Vec::new() };
        let found = find(&sources);
        assert_eq!(found.problems, Vec::<String>::new());
        let short = |path: &Path| path.strip_prefix(dir.path()).unwrap().display().to_string();
        let line = |FoundPair { id, files, .. }: &FoundPair| {
            format!("{}: {} + {}", id.name, short(&files.cert), short(&files.key))
        };
        found.pairs.iter().map(line).collect()
    }

    #[test]
    fn pairs_of_files_are_found_by_their_names() {
        let files =
            ["a.crt", "a.key", "b.c.cer", "b.c.key", "d.pem", "d.key", "dh.pem", "x.txt", ".e.crt"];
        assert_eq!(
            found(&files),
            ["a: a.crt + a.key", "b.c: b.c.cer + b.c.key", "d: d.pem + d.key"]
        );
    }

    #[test]
    fn half_a_pair_is_a_pair_whose_other_file_is_missing() {
        assert_eq!(found(&["a.crt", "b.key"]), ["a: a.crt + a.key", "b: b.crt + b.key"]);
        assert_eq!(
            found(&["a/fullchain.pem", "b/privkey.pem"]),
            ["a: a/fullchain.pem + a/privkey.pem", "b: b/fullchain.pem + b/privkey.pem"]
        );
    }

    #[test]
    fn the_layouts_of_acme_clients_are_found() {
        let certbot = [
            "README",
            "a.com/cert.pem",
            "a.com/chain.pem",
            "a.com/fullchain.pem",
            "a.com/privkey.pem",
        ];
        assert_eq!(found(&certbot), ["a.com: a.com/fullchain.pem + a.com/privkey.pem"]);

        let acme_sh = [
            "account.conf",
            "acme.sh",
            "ca/acme.example/directory/account.key",
            "dnsapi/dns_x.sh",
            "a.com/a.com.cer",
            "a.com/a.com.key",
            "a.com/ca.cer",
            "a.com/fullchain.cer",
            "a.com_ecc/a.com.cer",
            "a.com_ecc/a.com.key",
            "a.com_ecc/fullchain.cer",
        ];
        assert_eq!(
            found(&acme_sh),
            [
                "a.com: a.com/fullchain.cer + a.com/a.com.key",
                "a.com_ecc: a.com_ecc/fullchain.cer + a.com_ecc/a.com.key"
            ]
        );

        let lego = ["_.a.com.crt", "_.a.com.issuer.crt", "_.a.com.json", "_.a.com.key"];
        assert_eq!(found(&lego), ["_.a.com: _.a.com.crt + _.a.com.key"]);

        let caddy = ["a.com/a.com.crt", "a.com/a.com.json", "a.com/a.com.key"];
        assert_eq!(found(&caddy), ["a.com: a.com/a.com.crt + a.com/a.com.key"]);

        let secret = ["a/tls.crt", "a/tls.key", "a/ca.crt"];
        assert_eq!(found(&secret), ["a: a/tls.crt + a/tls.key"]);
    }

    #[test]
    fn the_folder_above_or_below_works_too() {
        let above =
            ["live/a.com/fullchain.pem", "live/a.com/privkey.pem", "archive/a.com/privkey1.pem"];
        assert_eq!(found(&above), ["a.com: live/a.com/fullchain.pem + live/a.com/privkey.pem"]);
        let lego = ["certificates/a.com.crt", "certificates/a.com.key", "accounts/x/keys/x.key"];
        assert_eq!(found(&lego), ["a.com: certificates/a.com.crt + certificates/a.com.key"]);
        let own = found(&["fullchain.pem", "privkey.pem"]);
        assert_eq!(own.len(), 1);
        assert!(own[0].ends_with(": fullchain.pem + privkey.pem"), "{own:?}");
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_a_problem_and_not_an_empty_one() {
        let dir = Some(PathBuf::from("/nowhere/certs"));
        let found = find(&CertSources { dir, entries: Vec::new() });
        assert!(found.problems[0].starts_with("/nowhere/certs: No such file"), "{found:?}");
    }
}
