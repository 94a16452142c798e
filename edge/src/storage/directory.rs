//! A folder of the file system as a store.
//!
//! A file is written beside its name and renamed onto it, so that whoever reads finds the old bytes or
//! all of the new ones. Nothing is flushed to the disk by force: after a power cut the newest segments
//! may be missing, and the stream is over anyway.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Stores names as files below their root.
#[derive(Debug, Default)]
pub struct Directory;

impl super::Store for Directory {
    fn put(&mut self, root: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let target = inside(root, name)?;
        let mut beside = target.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let written = create(&beside).and_then(|mut file| file.write_all(bytes));
        let renamed = written.and_then(|()| fs::rename(&beside, &target));
        if renamed.is_err() {
            // Half a file helps nobody and may be what fills the disk.
            drop(fs::remove_file(&beside));
        }
        renamed
    }

    fn remove(&mut self, root: &Path, name: &str) -> io::Result<()> {
        let target = inside(root, name)?;
        absent_is_fine(fs::remove_file(&target))?;
        // Folders go with their last file; one that is not empty says so, and stays.
        for folder in target.ancestors().skip(1).take_while(|folder| *folder != root) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn folders(&mut self, root: &Path, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(inside(root, folder)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if metadata.is_dir() {
                // A clock that was set back makes everything young.
                let age = metadata.modified()?.elapsed().unwrap_or_default();
                found.push((name, u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
            }
        }
        Ok(found)
    }

    fn remove_folder(&mut self, root: &Path, folder: &str) -> io::Result<()> {
        absent_is_fine(fs::remove_dir_all(inside(root, folder)?))
    }
}

/// The folders of a name are made when they are missing, which is seldom.
fn create(path: &Path) -> io::Result<fs::File> {
    match fs::File::create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            fs::File::create(path)
        }
        result => result,
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A path below `root`. Names come from stream paths, which hold no `..`; this does not rely on it.
fn inside(root: &Path, name: &str) -> io::Result<PathBuf> {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if !name.split('/').all(is_plain) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(root.join(name))
}
