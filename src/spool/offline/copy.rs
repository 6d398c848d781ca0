//! A copy of a sled folder: sled changes files when it opens them, so what is only looked at is opened elsewhere.
use super::super::disk::Disk;
use super::super::durable::{Database, StorageError};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tempfile::TempDir;

/// What the names of copies begin with.
const PREFIX: &str = "phosphod-look-";

/// An open copy; removed when dropped.
pub(super) struct Copy {
    // Closed before it is removed.
    pub(super) db: Database,
    _folder: TempDir,
    /// Locked, which tells a copy in use from one that was left behind.
    _in_use: File,
}

/// Copies a sled folder under the system's temporary folder, and opens the copy.
pub(super) fn open(folder: &Path) -> Result<Copy, StorageError> {
    let temporary = std::env::temp_dir();
    remove_left(&temporary);
    let (there, in_use) = make(&temporary).map_err(no_room)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What lies in blobs/ is never synced, and is told of by itself.
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), there.path().join(entry.file_name())).map_err(no_room)?;
        }
    }
    if !there.path().join("db").exists() {
        return Err(StorageError::damaged("its file db is missing"));
    }
    Ok(Copy {
        db: Database::open(there.path(), &Disk::real())?,
        _folder: there,
        _in_use: in_use,
    })
}

fn make(temporary: &Path) -> io::Result<(TempDir, File)> {
    loop {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(temporary)?;
        // Another one may take it for left behind, and remove it, before it is locked.
        let in_use = match File::open(made.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let is_taken = matches!(in_use.try_lock(), Err(TryLockError::WouldBlock));
        if !is_taken && made.path().exists() {
            return Ok((made, in_use));
        }
    }
}

/// Removes copies of ours that a killed process left. One that cannot be removed harms nobody.
fn remove_left(temporary: &Path) {
    let ours = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let is_copy = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let is_ours = || {
            let about = entry.metadata();
            about.is_ok_and(|about| about.is_dir() && about.uid() == ours)
        };
        if is_copy
            && is_ours()
            && let Ok(left) = File::open(entry.path())
            && left.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn no_room(error: io::Error) -> StorageError {
    StorageError::trouble(format!(
        "it could not be copied to the temporary folder ({error}): see that it is readable, or set TMPDIR to a folder with room"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let (in_use, lock) = make(temporary.path()).unwrap();
        let (left, gone) = make(temporary.path()).unwrap();
        fs::write(left.path().join("db"), "x").unwrap();
        // The lock of a process that was killed goes, and its folder stays.
        drop(gone);
        let left = left.keep();
        let other = temporary.path().join("somebody-elses");
        fs::create_dir(&other).unwrap();
        remove_left(temporary.path());
        assert!(!left.exists() && other.exists() && in_use.path().exists());
        drop(lock);
        remove_left(temporary.path());
        assert!(!in_use.path().exists());
    }

    #[test]
    fn those_who_look_at_the_same_time_leave_each_other_their_copies() {
        let temporary = tempfile::tempdir().unwrap();
        let look = || {
            for _ in 0..500 {
                remove_left(temporary.path());
                let (made, _in_use) = make(temporary.path()).unwrap();
                fs::write(made.path().join("db"), "x").unwrap();
            }
        };
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(look);
            }
        });
        remove_left(temporary.path());
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}
