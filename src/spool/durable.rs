//! One sled folder, opened so that a panic is caught, and written so that a commit is on disk when it returns.
use super::disk::{Disk, sync_folder};
use super::key::MAX_VALUE_BYTES;
use super::slots::{self, Slots};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Segment size of every sled folder. Goes together with [`MAX_VALUE_BYTES`].
pub(super) const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
/// Page cache of one open sled folder.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// File that marks a folder whose first commit is durable.
const BEGUN: &str = "begun";
/// How often a lock is tried that its former holder has not given back yet, and the pause between: 1 s in all.
pub(super) const LOCK_TRIES: u32 = 200;
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// What sled says of that lock.
const LOCKED: &str = "could not acquire lock";

/// What went wrong below, in one clause. Never holds event content.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(super) struct StorageError {
    reason: String,
    /// What is stored is not what was written, so that trying again is of no use.
    pub(super) damage: bool,
    /// There was no space for it.
    pub(super) full: bool,
    /// A file would have grown past what this process may write.
    too_large: bool,
}

impl StorageError {
    /// Something that may work again: the disk, or the machine.
    pub(super) fn trouble(reason: impl Into<String>) -> StorageError {
        StorageError {
            reason: reason.into(),
            damage: false,
            full: false,
            too_large: false,
        }
    }

    /// What a person should look at.
    pub(super) fn remedy(&self) -> &'static str {
        match self.too_large {
            true => "raise the limit on file sizes (LimitFSIZE of the unit, ulimit -f)",
            false => "look at the disk under spool.path",
        }
    }

    /// The same, of writing: whatever went wrong, it is tried again in another generation.
    pub(super) fn into_trouble(self) -> StorageError {
        StorageError {
            damage: false,
            ..self
        }
    }

    /// Something that is stored is not what was written.
    pub(super) fn damaged(reason: impl Into<String>) -> StorageError {
        StorageError {
            reason: reason.into(),
            damage: true,
            full: false,
            too_large: false,
        }
    }
}

impl From<sled::Error> for StorageError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => StorageError {
                // Without a number it is sled's own: it read what makes no sense, or waits for its lock.
                damage: is_damage(&error)
                    || (error.raw_os_error().is_none() && !error.to_string().contains(LOCKED)),
                ..error.into()
            },
            _ => StorageError::damaged(error.to_string()),
        }
    }
}

impl From<std::io::Error> for StorageError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        StorageError {
            full: matches!(error.kind(), StorageFull | QuotaExceeded),
            too_large: error.kind() == FileTooLarge,
            damage: is_damage(&error),
            ..StorageError::trouble(error.to_string())
        }
    }
}

/// Whether trying again is of no use: the bytes are not there, not what they were, or the disk cannot read them.
fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof) || is_unreadable(error)
}

fn is_unreadable(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Writes that become durable together, or not at all.
#[derive(Default)]
pub(super) struct Writes {
    batch: sled::Batch,
    long: Vec<Long>,
    bytes: u64,
}

/// A value that goes into slots.
struct Long {
    key: Vec<u8>,
    id: u64,
    sealed: Vec<u8>,
}

impl Writes {
    /// Sets a key. The value must not be longer than [`MAX_VALUE_BYTES`].
    pub(super) fn set(&mut self, key: Vec<u8>, value: &[u8]) {
        debug_assert!(value.len() <= MAX_VALUE_BYTES);
        self.bytes += (key.len() + value.len()) as u64;
        self.batch.insert(key, value);
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.bytes += key.len() as u64;
        self.batch.remove(key);
    }

    /// Puts a value of any length into slots, to be found under `key`. `id` names it among its neighbours.
    pub(super) fn set_long(&mut self, key: Vec<u8>, id: u64, sealed: Vec<u8>) {
        self.bytes += (key.len() + sealed.len()) as u64;
        self.long.push(Long { key, id, sealed });
    }

    /// The values that would go into slots.
    #[cfg(test)]
    pub(super) fn into_long(self) -> Vec<Vec<u8>> {
        self.long.into_iter().map(|long| long.sealed).collect()
    }

    /// Key and value bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// An open sled folder.
pub(super) struct Database {
    db: sled::Db,
    /// Found when first needed.
    slots: Option<Slots>,
    /// Our own handle to sled's file: sled's flush alone does not survive a power cut (design.md section 3).
    file: File,
    path: PathBuf,
    disk: Disk,
    /// Goes last.
    #[expect(dead_code, reason = "it is there to be dropped")]
    last: LastHandle,
}

/// The handle with which sled closes. It syncs then, and panics if it cannot.
struct LastHandle(Option<sled::Db>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        let db = self.0.take();
        // All that counts was synced by its commit.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

impl Database {
    /// Opens or makes the folder. A panic of sled on damaged files becomes an error.
    pub(super) fn open(path: &Path, disk: &Disk) -> Result<Database, StorageError> {
        let config = sled::Config::new()
            .path(path)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .use_compression(false)
            .flush_every_ms(None);
        let db = open_unlocked(&config)?;
        let last = LastHandle(Some(db.clone()));
        let file = File::open(path.join("db"))?;
        make_private(path)?;
        Ok(Database {
            db,
            slots: None,
            file,
            path: path.to_owned(),
            disk: disk.clone(),
            last,
        })
    }

    /// Applies the writes and returns once they would survive a power cut. After an error it is unknown
    /// whether they would: close the folder and trust it again only after reopening.
    pub(super) fn commit(&mut self, writes: Writes) -> Result<(), StorageError> {
        let Database { db, slots, .. } = self;
        guarded(|| {
            let mut batch = writes.batch;
            if !writes.long.is_empty() {
                let mut filling = match *slots {
                    Some(slots) => slots,
                    None => Slots::find(db)?,
                };
                for Long { key, id, sealed } in writes.long {
                    filling.fill(db, &mut batch, key, id, sealed)?;
                }
                *slots = Some(filling);
            }
            db.apply_batch(batch)?;
            db.flush()
        })?;
        (self.disk.sync_data)(&self.file)?;
        if self.file.metadata()?.nlink() == 0 {
            // What is written to it goes with the process.
            return Err(StorageError::trouble(format!(
                "{} was deleted while it is in use",
                self.path.join("db").display()
            )));
        }
        Ok(())
    }

    /// Marks the folder as one that holds something, and makes it durable itself: its files' names and its own name
    /// in its parent. Needed once, after the first commit and before the first acknowledgement.
    pub(super) fn mark_begun(&self) -> Result<(), StorageError> {
        File::create(self.path.join(BEGUN))?;
        make_private(&self.path)?;
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            File::open(&path)?.sync_all()?;
        }
        sync_folder(&self.path)?;
        if let Some(parent) = self.path.parent() {
            sync_folder(parent)?;
        }
        Ok(())
    }

    /// Size of sled's file, which grows by whole segments; nothing if the system does not tell.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |about| about.len())
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StorageError> {
        guarded(|| self.db.get(key))
    }

    /// All keys with a prefix, in order, with their values.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), StorageError>> + use<> {
        let mut found = self.db.scan_prefix(prefix);
        std::iter::from_fn(move || guarded(|| found.next().transpose()).transpose())
    }

    /// The last key that is not above `key`, with its value.
    pub(super) fn floor(&self, key: &[u8]) -> Result<Option<(sled::IVec, sled::IVec)>, StorageError> {
        guarded(|| self.db.range(..=key).next_back().transpose())
    }

    /// The first key that is not below `key`.
    pub(super) fn ceiling(&self, key: &[u8]) -> Result<Option<sled::IVec>, StorageError> {
        guarded(|| self.db.range(key..).next().transpose()).map(|kv| kv.map(|(key, _)| key))
    }

    /// What was put into slots, given the value under its key.
    pub(super) fn long(&self, slot: &[u8], id: u64) -> Result<Vec<u8>, StorageError> {
        let number = slot.try_into().map(u32::from_be_bytes);
        let number = number.map_err(|_| StorageError::damaged("the number of a slot makes no sense"))?;
        match catch_unwind(AssertUnwindSafe(|| slots::read(&self.db, number, id))) {
            Ok(read) => read,
            Err(_) => Err(gave_up()),
        }
    }
}

/// Whether a folder's first commit was durable. sled takes badly damaged files for empty ones: this tells them from a
/// folder that was never finished.
pub(super) fn is_begun(folder: &Path) -> bool {
    folder.join(BEGUN).exists()
}

/// Takes the mark away from a folder that is about to be deleted.
pub(super) fn unmark_begun(folder: &Path) -> std::io::Result<()> {
    match fs::remove_file(folder.join(BEGUN)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens, and waits for the lock: sled's own threads hold it for a moment after a folder was closed.
fn open_unlocked(config: &sled::Config) -> Result<sled::Db, StorageError> {
    for _ in 1..LOCK_TRIES {
        match guarded(|| open_twice(config)) {
            Err(error) if error.reason.contains(LOCKED) => {
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    guarded(|| config.open())
}

/// Opens; once more if the disk did not give back what it should, which it may do at the second try.
fn open_twice(config: &sled::Config) -> sled::Result<sled::Db> {
    match config.open() {
        Err(sled::Error::Io(error)) if is_unreadable(&error) => config.open(),
        opened => opened,
    }
}

/// Runs what may panic inside sled.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, StorageError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Ok(done?),
        Err(_) => Err(gave_up()),
    }
}

fn gave_up() -> StorageError {
    StorageError::damaged("sled gave up on damaged files")
}

/// Folder 0700, files 0600, whatever the umask was.
fn make_private(folder: &Path) -> std::io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let mode = if entry.file_type()?.is_dir() { 0o700 } else { 0o600 };
        match fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)) {
            // sled removes old snapshots by itself.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::io::{Error, ErrorKind};

    #[test]
    fn only_what_cannot_get_better_is_damage() {
        let of_sled = |error: Error| StorageError::from(sled::Error::Io(error)).damage;
        let of_disk = |error: Error| StorageError::from(error).damage;
        for errno in [Errno::NOSPC, Errno::MFILE, Errno::ACCESS] {
            assert!(!of_sled(errno.into()) && !of_disk(errno.into()), "{errno}");
        }
        assert!(of_sled(Errno::IO.into()) && of_disk(Errno::IO.into()));
        for kind in [ErrorKind::UnexpectedEof, ErrorKind::InvalidData] {
            assert!(of_sled(kind.into()) && of_disk(kind.into()), "{kind}");
        }
        assert!(of_sled(Error::other("this makes no sense")));
        assert!(!of_sled(Error::other(format!("{LOCKED} on a file"))));
    }
}
