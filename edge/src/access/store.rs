//! Keeps domains made by the API and all forbids in one file, through crashes and restarts.
//!
//! One table each, JSON values, one transaction per change: a change is on the disk when it is acknowledged,
//! or was never made. The file holds keys, so only the server's user may read it. Control thread only; it
//! may wait for the disk. One process at a time: the file is locked.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::forbid::{Forbid, Target};
use super::spec::DomainSpec;

const DOMAINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("domains");
const FORBIDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("forbids");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Version of what the tables hold.
const FORMAT: u64 = 1;
/// Memory for pages of the file: the tables are small and read once.
const CACHE_BYTES: usize = 1024 * 1024;

/// The store cannot be used, or a change was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError(pub(super) String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// Any of the database's errors, in words.
fn failed(error: impl fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

/// Everything that was kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// Domains by name.
    pub domains: BTreeMap<String, DomainSpec>,
    /// Forbids.
    pub forbids: BTreeMap<Target, Forbid>,
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

/// One change.
#[derive(Debug)]
pub enum Change<'c> {
    /// Sets a domain.
    PutDomain(&'c str, &'c DomainSpec),
    /// Removes a domain.
    RemoveDomain(&'c str),
    /// Sets a forbid.
    PutForbid(&'c Target, &'c Forbid),
    /// Removes a forbid.
    RemoveForbid(&'c Target),
}

impl Store {
    /// Opens or makes the file, and reads it.
    ///
    /// # Errors
    /// [`StoreError`]: not readable, used by another process, damaged, or of a newer version.
    pub fn open(path: &Path) -> Result<(Self, Kept), StoreError> {
        let at = |error: StoreError| StoreError(format!("{}: {error}", path.display()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| at(failed(error)))?;
        // A file somebody made beforehand gets the same rights.
        let rights = std::fs::Permissions::from_mode(0o600);
        file.set_permissions(rights).map_err(|error| at(failed(error)))?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_file(file)
            .map_err(|error| at(failed(error)))?;
        let store = Self { database };
        store.prepare().map_err(at)?;
        let kept = store.read().map_err(at)?;
        Ok((store, kept))
    }

    /// Makes the tables of a new file; refuses one of another version.
    fn prepare(&self) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(failed)?;
        {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            let format = meta.get("format").map_err(failed)?.map(|format| format.value());
            match format {
                None => drop(meta.insert("format", FORMAT).map_err(failed)?),
                Some(FORMAT) => {}
                Some(other) => {
                    let text = format!("it is of format {other}, this version knows {FORMAT}");
                    return Err(StoreError(text));
                }
            }
            transaction.open_table(DOMAINS).map_err(failed)?;
            transaction.open_table(FORBIDS).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    fn read(&self) -> Result<Kept, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let mut kept = Kept::default();
        let domains = transaction.open_table(DOMAINS).map_err(failed)?;
        for entry in domains.iter().map_err(failed)? {
            let (name, value) = entry.map_err(failed)?;
            let unreadable = |error| StoreError(format!("domain {}: {error}", name.value()));
            let spec = serde_json::from_slice(value.value()).map_err(unreadable)?;
            kept.domains.insert(name.value().to_owned(), spec);
        }
        let forbids = transaction.open_table(FORBIDS).map_err(failed)?;
        for entry in forbids.iter().map_err(failed)? {
            let (target, value) = entry.map_err(failed)?;
            let at = |error: String| StoreError(format!("forbid {}: {error}", target.value()));
            let forbid =
                serde_json::from_slice(value.value()).map_err(|error| at(error.to_string()))?;
            kept.forbids.insert(target.value().parse().map_err(at)?, forbid);
        }
        Ok(kept)
    }

    /// Makes all changes or none; they are on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn apply(&self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(failed)?;
        {
            let mut domains = transaction.open_table(DOMAINS).map_err(failed)?;
            let mut forbids = transaction.open_table(FORBIDS).map_err(failed)?;
            for change in changes {
                match change {
                    Change::PutDomain(name, spec) => {
                        let value = spec.to_stored().to_string();
                        drop(domains.insert(*name, value.as_bytes()).map_err(failed)?);
                    }
                    Change::RemoveDomain(name) => drop(domains.remove(*name).map_err(failed)?),
                    Change::PutForbid(target, forbid) => {
                        let value = serde_json::to_vec(forbid).map_err(failed)?;
                        let key = target.to_string();
                        drop(forbids.insert(key.as_str(), value.as_slice()).map_err(failed)?);
                    }
                    Change::RemoveForbid(target) => {
                        drop(forbids.remove(target.to_string().as_str()).map_err(failed)?);
                    }
                }
            }
        }
        transaction.commit().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::forbid::Scope;
    use crate::access::spec::{DomainType, ProviderSpec, Scheme};

    fn spec(key: &str) -> DomainSpec {
        let mut provider = ProviderSpec::new(Scheme::Txsecret);
        provider.key = Some(crate::access::secret::SecretText::new(key).unwrap());
        DomainSpec { provider: vec![provider], ..DomainSpec::new(DomainType::Push) }
    }

    fn forbid() -> Forbid {
        Forbid { scope: Scope::All, until_s: Some(9), since_s: 1, reason: "why".into() }
    }

    #[test]
    fn what_was_kept_is_there_again_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.redb");
        let (store, kept) = Store::open(&path).unwrap();
        assert!(kept.domains.is_empty() && kept.forbids.is_empty());
        let targets: Vec<Target> = ["stream:a.example/live/cam", "address:10.0.0.0/8"]
            .map(|text| text.parse().unwrap())
            .into();
        let (a, b, forbid) = (spec("key-of-a"), spec("key-of-b"), forbid());
        store
            .apply(&[
                Change::PutDomain("a.example", &a),
                Change::PutDomain("b.example", &b),
                Change::PutForbid(&targets[0], &forbid),
                Change::PutForbid(&targets[1], &forbid),
            ])
            .unwrap();
        store
            .apply(&[Change::RemoveDomain("b.example"), Change::RemoveForbid(&targets[1])])
            .unwrap();
        drop(store);
        let (_, kept) = Store::open(&path).unwrap();
        assert_eq!(kept.domains, BTreeMap::from([("a.example".to_owned(), a)]));
        assert_eq!(kept.forbids, BTreeMap::from([(targets[0].clone(), forbid)]));
    }

    #[test]
    fn only_the_servers_user_may_read_the_file_and_only_one_process_opens_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.redb");
        std::fs::write(&path, "").unwrap();
        let _store = Store::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("access.redb"), "{error}");
    }

    #[test]
    fn a_file_that_is_none_of_ours_or_too_new_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        std::fs::write(&path, "buy milk ".repeat(1_000)).unwrap();
        assert!(Store::open(&path).is_err());
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("buy milk"));
        let path = dir.path().join("new.redb");
        let (store, _) = Store::open(&path).unwrap();
        let transaction = store.database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("format", FORMAT + 1).unwrap();
        transaction.commit().unwrap();
        drop(store);
        assert!(Store::open(&path).unwrap_err().to_string().contains("format 2"));
    }

    const CHILD: &str = "access::store::tests::a_child_writes_until_it_is_killed";
    const CHILD_PATH: &str = "RINGCAST_TEST_STORE";

    /// What the killed process of the next test runs: acknowledges on standard output what it has kept.
    /// Without the path that test gives it there is nothing to do.
    #[test]
    fn a_child_writes_until_it_is_killed() {
        use std::io::Write as _;
        let Some(path) = std::env::var_os(CHILD_PATH) else { return };
        let (store, kept) = Store::open(Path::new(&path)).unwrap();
        let spec = spec(&"k".repeat(500));
        for n in kept.domains.len().. {
            store.apply(&[Change::PutDomain(&format!("d{n:06}.example"), &spec)]).unwrap();
            writeln!(std::io::stdout(), "kept {n}").unwrap();
        }
    }

    #[test]
    fn what_was_acknowledged_is_there_after_the_process_was_killed_in_the_middle_of_writing() {
        use std::io::BufRead as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.redb");
        let mut acknowledged = 0;
        for round in 1..=4 {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", CHILD, "--nocapture"])
                .env(CHILD_PATH, &path)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
            for line in lines.map_while(Result::ok) {
                let Some(n) = line.rsplit_once("kept ") else { continue };
                acknowledged = n.1.parse::<usize>().unwrap() + 1;
                if acknowledged >= round * 20 {
                    // It is writing the next one by now.
                    child.kill().unwrap();
                    break;
                }
            }
            child.wait().unwrap();
            let (_, kept) = Store::open(&path).unwrap();
            let count = kept.domains.len();
            assert!(count >= acknowledged && count > 0, "{count} of {acknowledged} are left");
            for (n, name) in kept.domains.keys().enumerate() {
                assert_eq!(*name, format!("d{n:06}.example"), "none is missing in between");
            }
        }
    }
}
