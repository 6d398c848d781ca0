//! The row of generations on disk, of which the newest takes all writes and a few are open.
//!
//! Making one: folder, sled files, first batch with the whole snapshot, sync of the data, the mark that it was begun, then
//! sync of the files' names, the folder and its parent. Only then does anything count on it. One that was not finished
//! has neither head nor mark, or nothing that was ever acknowledged, and is removed. Deleting one: only after a commit is durable that says that
//! nothing in it is live, so that a half-deleted one is never needed again.
use super::disk::{Disk, sync_folder};
use super::durable::{Database, StorageError, Writes, is_begun, unmark_begun};
use super::quarantine::Quarantine;
use super::scan::{Scan, scan};
use super::sealed::{Sealed, Source};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// File that marks a folder as damaged.
const DAMAGED: &str = "damaged";
/// A copy of sled's file from before an opening that may have changed it.
const KEPT: &str = "db.kept";
/// Most open generations beside the newest: those that lanes read from.
const MAX_OLDER_OPEN: usize = 2;

/// All generations of a data folder.
pub(super) struct Generations {
    folder: PathBuf,
    disk: Disk,
    /// On disk, as far as we know.
    present: BTreeSet<u64>,
    /// Bytes on disk of those that are sealed.
    sealed: BTreeMap<u64, u64>,
    /// Where writes go. `None` after a failure, until the next one is begun.
    newest: Option<(u64, Database)>,
    /// Least recently read first. Only dead letters are read by sled once their folder is sealed.
    older: VecDeque<(u64, Database)>,
    /// Least recently read first.
    read_raw: VecDeque<(u64, Sealed)>,
    next: u64,
}

impl Generations {
    /// Lists what is in `folder`, which exists. Opens nothing.
    pub(super) fn list(folder: PathBuf, disk: &Disk) -> Result<Generations, StorageError> {
        let mut present = BTreeSet::new();
        for entry in fs::read_dir(&folder)? {
            if let Some(id) = entry?.file_name().to_str().and_then(parse_name) {
                present.insert(id);
            }
        }
        let next = present.last().map_or(1, |last| last + 1);
        Ok(Generations {
            folder,
            disk: disk.clone(),
            present,
            sealed: BTreeMap::new(),
            newest: None,
            older: VecDeque::new(),
            read_raw: VecDeque::new(),
            next,
        })
    }

    /// Numbers of all generations on disk.
    pub(super) fn present(&self) -> &BTreeSet<u64> {
        &self.present
    }

    /// Number of the generation that takes writes.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest.as_ref().map(|(id, _)| *id)
    }

    /// Size of the newest one's file.
    pub(super) fn newest_bytes(&self) -> u64 {
        self.newest.as_ref().map_or(0, |(_, db)| db.file_bytes())
    }

    /// The number that [`Generations::begin`] will use.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes on disk of each generation that is sealed.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (u64, u64)> {
        self.sealed.iter().map(|(&id, &bytes)| (id, bytes))
    }

    /// Bytes on disk of all that are sealed.
    pub(super) fn bytes(&self) -> u64 {
        self.sealed.values().sum()
    }

    /// Free bytes of the disk; as many as there can be if it does not say.
    pub(super) fn free_bytes(&self) -> u64 {
        (self.disk.free_bytes)(&self.folder).unwrap_or(u64::MAX)
    }

    fn seal_all_but(&mut self, newest: u64) {
        for &id in self.present.iter().filter(|&&id| id != newest) {
            if !self.sealed.contains_key(&id) {
                self.sealed.insert(id, bytes_on_disk(&self.path(id)));
            }
        }
    }

    /// No generation from here on gets a number below `id`.
    pub(super) fn begin_from(&mut self, id: u64) {
        self.next = self.next.max(id);
    }

    /// Closes one generation. Writing, if that was the newest, goes on in a new one.
    pub(super) fn close_one(&mut self, id: u64) {
        self.older.retain(|(older, _)| *older != id);
        self.read_raw.retain(|(sealed, _)| *sealed != id);
        self.newest.take_if(|(newest, _)| *newest == id);
    }

    /// Looks through the bytes of a damaged generation, which must be closed. From here on it counts as damaged, also after a
    /// restart.
    pub(super) fn scan(&self, id: u64) -> Result<Vec<Scan>, StorageError> {
        let path = self.path(id);
        if path.is_dir() {
            std::fs::File::create(path.join(DAMAGED))?;
            sync_folder(&path)?;
        }
        Ok(vec![scan(&path.join("db"))?, scan(&path.join(KEPT))?])
    }

    /// Whether a generation was found damaged before.
    pub(super) fn is_damaged(&self, id: u64) -> bool {
        self.path(id).join(DAMAGED).exists()
    }

    /// Moves a damaged generation, of which nothing is needed any more, to the quarantine.
    pub(super) fn set_aside(&mut self, id: u64, quarantine: &Quarantine) -> Result<(), StorageError> {
        self.close_one(id);
        if self.path(id).exists() {
            quarantine.take(&self.path(id))?;
        }
        self.present.remove(&id);
        self.sealed.remove(&id);
        Ok(())
    }

    /// Lets an existing generation take the writes.
    pub(super) fn resume(&mut self, id: u64, db: Database) {
        self.seal_all_but(id);
        self.newest = Some((id, db));
    }

    /// Opens a generation without keeping it.
    pub(super) fn open(&self, id: u64) -> Result<Database, StorageError> {
        Database::open(&self.path(id), &self.disk)
    }

    /// Keeps a copy of a generation's file until [`Generations::release`]: sled zeroes what follows a place that it cannot
    /// read, intact or not, as soon as it opens the file. Without room for a copy it goes without.
    pub(super) fn keep(&self, id: u64) {
        let (path, kept) = (self.path(id).join("db"), self.path(id).join(KEPT));
        // One that is there already is from before an opening that was cut off.
        if !kept.exists() && path.exists() {
            let draft = self.path(id).join("db.keeping");
            let copied = fs::copy(&path, &draft).and_then(|_| fs::rename(&draft, &kept));
            if copied.is_err() {
                let _ = fs::remove_file(&draft);
            }
        }
    }

    /// The files that the bytes of a generation lie in, those that sled cannot have changed first. Any of them may be missing.
    pub(super) fn files(&self, id: u64) -> [PathBuf; 2] {
        [KEPT, "db"].map(|name| self.path(id).join(name))
    }

    /// Gives up the copy: what sled read is all that there was.
    pub(super) fn release(&self, id: u64) -> Result<(), StorageError> {
        match fs::remove_file(self.path(id).join(KEPT)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether anything in a generation can ever have been acknowledged.
    pub(super) fn was_begun(&self, id: u64) -> bool {
        is_begun(&self.path(id))
    }

    /// Begins a generation with its first batch, which must hold the whole snapshot. The one before is sealed.
    pub(super) fn begin(&mut self, first: Writes) -> Result<(), StorageError> {
        self.begin_filled(|_, _| Ok((first, ())))
    }

    /// Begins a generation that `fill` may write to before; what it gives back is the last batch, which must hold the
    /// whole snapshot. Before that one nothing of it counts.
    pub(super) fn begin_filled<T>(
        &mut self,
        fill: impl FnOnce(&mut Database, u64) -> Result<(Writes, T), StorageError>,
    ) -> Result<T, StorageError> {
        let id = self.next;
        self.next += 1;
        self.present.insert(id);
        let made = self.open(id).and_then(|mut db| {
            let (last, filled) = fill(&mut db, id)?;
            db.commit(last)?;
            db.mark_begun()?;
            Ok((db, filled))
        });
        match made {
            Ok((db, filled)) => {
                // The sealed one is closed here: it is opened again if a lane reads from it.
                self.newest = Some((id, db));
                self.seal_all_but(id);
                Ok(filled)
            }
            Err(error) => {
                // Nothing in it was acknowledged. What cannot be removed now is removed with the dead ones.
                let _ = self.remove(id);
                Err(error.into_trouble())
            }
        }
    }

    /// Writes to the newest generation.
    pub(super) fn commit(&mut self, writes: Writes) -> Result<(), StorageError> {
        match &mut self.newest {
            Some((_, db)) => db.commit(writes).map_err(StorageError::into_trouble),
            None => Err(StorageError::trouble("no generation is open")),
        }
    }

    /// Closes everything after a failure. Writing goes on in a new generation, so that what the failed commit may have
    /// left in the old one is never read.
    pub(super) fn close(&mut self) {
        self.newest = None;
        self.older.clear();
        self.read_raw.clear();
    }

    /// Opens a sealed generation for [`Generations::source`], without sled; whether it was not open before. The newest
    /// is always open.
    pub(super) fn open_sealed(&mut self, id: u64) -> Result<bool, StorageError> {
        if self.newest() == Some(id) {
            return Ok(false);
        }
        let opened = match self.read_raw.iter().position(|(sealed, _)| *sealed == id) {
            Some(at) => self.read_raw.remove(at),
            None => None,
        };
        let is_new = opened.is_none();
        let opened = match opened {
            Some(opened) => opened,
            None => (id, Sealed::open(&self.path(id).join("db"))?),
        };
        self.read_raw.push_back(opened);
        while self.read_raw.len() > MAX_OLDER_OPEN {
            self.read_raw.pop_front();
        }
        Ok(is_new)
    }

    /// A generation to read events from.
    pub(super) fn source(&mut self, id: u64) -> Result<Source<'_>, StorageError> {
        self.open_sealed(id)?;
        let live = self.newest.as_ref().filter(|(newest, _)| *newest == id);
        let sealed = self.read_raw.back().filter(|(sealed, _)| *sealed == id);
        match (live, sealed) {
            (Some((_, db)), _) => Ok(Source::Live(db)),
            (None, Some((_, sealed))) => Ok(Source::Sealed(sealed)),
            (None, None) => Err(StorageError::trouble("no generation is open")),
        }
    }

    /// A folder of dead letters to read from.
    pub(super) fn read(&mut self, id: u64) -> Result<&Database, StorageError> {
        let none_open = || StorageError::trouble("no generation is open");
        if self.newest() == Some(id) {
            return self.newest.as_ref().map(|(_, db)| db).ok_or_else(none_open);
        }
        let opened = match self.older.iter().position(|(older, _)| *older == id) {
            Some(at) => self.older.remove(at),
            None => None,
        };
        let opened = match opened {
            Some(opened) => opened,
            None => (id, self.open(id)?),
        };
        self.keep_open(opened);
        self.older.back().map(|(_, db)| db).ok_or_else(none_open)
    }

    fn keep_open(&mut self, opened: (u64, Database)) {
        self.older.push_back(opened);
        while self.older.len() > MAX_OLDER_OPEN {
            self.older.pop_front();
        }
    }

    /// Deletes a generation in which nothing is live, as a durable commit says.
    pub(super) fn remove(&mut self, id: u64) -> Result<(), StorageError> {
        self.close_one(id);
        let path = self.path(id);
        // The mark first: what is left if this is cut off must not pass for a damaged generation.
        unmark_begun(&path)?;
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.present.remove(&id);
        self.sealed.remove(&id);
        Ok(sync_folder(&self.folder)?)
    }

    /// Where a generation lies.
    pub(super) fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("gen-{id:08}"))
    }
}

/// What a folder of plain files takes on disk, as far as that can be seen.
fn bytes_on_disk(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let blocks = files
        .filter_map(|file| file.metadata().ok())
        .map(|meta| meta.blocks());
    blocks.sum::<u64>() * 512
}

fn parse_name(name: &str) -> Option<u64> {
    name.strip_prefix("gen-")?.parse().ok()
}
