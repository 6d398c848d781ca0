//! A copy of a sled folder: sled changes files when it opens them, so what is only looked at is opened elsewhere.
use super::super::disk::Disk;
use super::super::durable::{Database, StorageError};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// An open copy; removed when dropped.
pub(super) struct Copy {
    // Closed before it is removed.
    pub(super) db: Database,
    _folder: TempDir,
}

/// Copies a sled folder under the system's temporary folder, and opens the copy.
pub(super) fn open(folder: &Path) -> Result<Copy, StorageError> {
    let made = tempfile::Builder::new().prefix("phosphod-look-").tempdir();
    let there = made.map_err(no_room)?;
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
    })
}

fn no_room(error: std::io::Error) -> StorageError {
    StorageError::trouble(format!(
        "it could not be copied to the temporary folder ({error}): see that it is readable, or set TMPDIR to a folder with room"
    ))
}
