//! The row of folders that dead letters lie in. The newest takes the letters until it is sealed; a folder is made, marked as
//! begun and deleted as a generation is (`generation.rs`), and has its first letters in its first commit.
use super::super::DeadLetter;
use super::super::disk::{Disk, sync_folder};
use super::super::durable::{Database, StorageError, Writes};
use super::super::generation::Generations;
use super::super::key;
use super::super::lock::make_folder;
use super::aside::set_aside;
use super::folder::{self, Found, Summary};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A folder that is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder {
    pub(super) summary: Summary,
    /// On disk.
    pub(super) bytes: u64,
    /// Takes no more letters.
    sealed: bool,
}

/// All folders, in the order of the numbers in them.
pub(super) struct Row {
    quarantine: PathBuf,
    generations: Generations,
    folders: BTreeMap<u64, Folder>,
}

impl Row {
    /// Looks through what is there, and sets aside what is damaged. Folders up to `sealed_up_to` take no more letters.
    pub(super) fn load(
        path: &Path,
        quarantine: &Path,
        disk: &Disk,
        sealed_up_to: u64,
    ) -> Result<Row, StorageError> {
        if path.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            let place = set_aside(path, quarantine, "dead")?;
            tracing::error!(place = %place.display(), "something else stood in the place of the dead letters: it was set aside");
        }
        if !path.exists() {
            make_folder(path)?;
            path.parent().map_or(Ok(()), sync_folder)?;
        }
        let mut row = Row {
            quarantine: quarantine.to_owned(),
            generations: Generations::list(path.to_owned(), disk)?,
            folders: BTreeMap::new(),
        };
        let present: Vec<u64> = row.generations.present().iter().copied().collect();
        for &id in &present {
            let may_grow = Some(&id) == present.last() && id > sealed_up_to;
            row.look_into(id, may_grow)?;
        }
        Ok(row)
    }

    fn look_into(&mut self, id: u64, may_grow: bool) -> Result<(), StorageError> {
        let path = self.generations.path(id);
        if let Some(summary) = Summary::of_sealed(&path) {
            let bytes = folder::disk_bytes(&path)?;
            let sealed = true;
            self.folders.insert(
                id,
                Folder {
                    summary,
                    bytes,
                    sealed,
                },
            );
            return Ok(());
        }
        if !self.generations.was_begun(id) {
            // Cut off while it was made or deleted: nothing in it counts.
            return self.generations.remove(id);
        }
        let Some((db, summary)) = self.open(id)? else {
            return Ok(());
        };
        match may_grow {
            true => self.generations.resume(id, db),
            false => {
                drop(db);
                summary.seal(&path)?;
            }
        }
        let bytes = folder::disk_bytes(&path)?;
        let sealed = !may_grow;
        self.folders.insert(
            id,
            Folder {
                summary,
                bytes,
                sealed,
            },
        );
        Ok(())
    }

    /// Opens a folder; `None` if it was damaged, and set aside.
    fn open(&mut self, id: u64) -> Result<Option<(Database, Summary)>, StorageError> {
        self.generations.close();
        let opened = self
            .generations
            .open(id)
            .and_then(|db| Summary::of(&db).map(|summary| (db, summary)));
        self.or_aside(id, opened)
    }

    /// Turns damage into `None`, and sets the folder aside.
    fn or_aside<T>(&mut self, id: u64, read: Result<T, StorageError>) -> Result<Option<T>, StorageError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.damage => self.set_aside(id, &error).map(|()| None),
            Err(error) => Err(error),
        }
    }

    fn set_aside(&mut self, id: u64, why: &StorageError) -> Result<(), StorageError> {
        self.generations.close();
        let path = self.generations.path(id);
        let place = set_aside(&path, &self.quarantine, &format!("dead-gen-{id:08}"))?;
        let letters = self.folders.remove(&id).map(|folder| folder.summary.letters);
        tracing::error!(
            error = %why, place = %place.display(), letters,
            "a folder of dead letters is damaged: it was set aside, and the letters in it are no longer shown"
        );
        self.generations.remove(id)
    }

    /// All folders, oldest first.
    pub(super) fn folders(&self) -> impl Iterator<Item = (u64, &Folder)> {
        self.folders.iter().map(|(&id, folder)| (id, folder))
    }

    /// What all of them take up on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.folders.values().map(|folder| folder.bytes).sum()
    }

    /// The folder that takes letters, if there is one.
    pub(super) fn growing(&self) -> Option<(u64, &Folder)> {
        self.folders().last().filter(|(_, folder)| !folder.sealed)
    }

    /// The number after the last letter.
    pub(super) fn next(&self) -> u64 {
        self.folders
            .values()
            .map(|folder| folder.summary.next)
            .max()
            .unwrap_or(0)
    }

    /// The highest number that any folder can have by now.
    pub(super) fn last_id(&self) -> u64 {
        self.generations.next() - 1
    }

    /// Lets the newest folder take no more letters, and closes it.
    pub(super) fn seal(&mut self) -> Result<(), StorageError> {
        let Some((id, _)) = self.growing() else {
            return Ok(());
        };
        self.generations.close();
        let path = self.generations.path(id);
        if let Some(folder) = self.folders.get_mut(&id) {
            folder.summary.seal(&path)?;
            folder.sealed = true;
            // sled writes a snapshot as it is closed.
            folder.bytes = folder::disk_bytes(&path)?;
        }
        Ok(())
    }

    /// Puts the letters of one burial on disk, all or none, numbered from `first` on.
    pub(super) fn write(&mut self, first: u64, letters: &[&DeadLetter]) -> Result<(), StorageError> {
        let mut writes = Writes::default();
        let (id, mut summary) = match self.growing().map(|(id, _)| id) {
            Some(id) if self.generations.newest() == Some(id) => (Some(id), self.folders[&id].summary),
            Some(id) => match self.open(id)? {
                Some((db, summary)) => {
                    self.generations.resume(id, db);
                    (Some(id), summary)
                }
                None => (None, Summary::empty(first)),
            },
            None => (None, Summary::empty(first)),
        };
        summary.add(first, letters, &mut writes);
        let id = match id {
            Some(id) => {
                self.generations.commit(writes)?;
                id
            }
            None => {
                let id = self.generations.next();
                self.generations.begin(writes)?;
                id
            }
        };
        let bytes = folder::disk_bytes(&self.generations.path(id))?;
        let sealed = false;
        self.folders.insert(
            id,
            Folder {
                summary,
                bytes,
                sealed,
            },
        );
        Ok(())
    }

    /// Deletes a folder. Gives how many letters were in it.
    pub(super) fn delete(&mut self, id: u64) -> Result<u64, StorageError> {
        if self.generations.newest() == Some(id) {
            self.generations.close();
        }
        self.generations.remove(id)?;
        Ok(self
            .folders
            .remove(&id)
            .map_or(0, |folder| folder.summary.letters))
    }

    /// Removes those letters within a range that `condemned` says, durably. A folder without letters is deleted.
    pub(super) fn remove(
        &mut self,
        within: &Range<u64>,
        mut condemned: impl FnMut(u64, &Found) -> bool,
    ) -> Result<u64, StorageError> {
        let touched = self
            .folders
            .iter()
            .filter(|(_, folder)| folder.summary.next > within.start && folder.summary.first < within.end);
        let touched: Vec<u64> = touched.map(|(&id, _)| id).collect();
        let mut removed = 0;
        for id in touched {
            let Some((mut db, mut summary)) = self.open(id)? else {
                continue;
            };
            let chosen = choose(&db, within, &mut condemned);
            let Some((count, mut writes)) = self.or_aside(id, chosen)? else {
                continue;
            };
            summary.letters = summary.letters.saturating_sub(count);
            // Also where there is nothing to remove: they may be gone by a removal whose sync failed.
            writes.set(key::HEAD.to_vec(), &summary.encode());
            db.commit(writes)?;
            removed += count;
            self.put_back(id, db, summary)?;
        }
        Ok(removed)
    }

    fn put_back(&mut self, id: u64, db: Database, summary: Summary) -> Result<(), StorageError> {
        let sealed = self.folders.get(&id).is_none_or(|folder| folder.sealed);
        let path = self.generations.path(id);
        if summary.letters == 0 {
            drop(db);
            self.delete(id)?;
            return Ok(());
        }
        match sealed {
            true => {
                drop(db);
                summary.seal(&path)?;
            }
            false => self.generations.resume(id, db),
        }
        let bytes = folder::disk_bytes(&path)?;
        self.folders.insert(
            id,
            Folder {
                summary,
                bytes,
                sealed,
            },
        );
        Ok(())
    }

    /// A folder to read from; `None` if it turned out to be damaged, and was set aside.
    pub(super) fn read(&mut self, id: u64) -> Result<Option<&Database>, StorageError> {
        let opened = self.generations.read(id).map(|_| ());
        match self.or_aside(id, opened)? {
            Some(()) => self.generations.read(id).map(Some),
            None => Ok(None),
        }
    }

    /// Closes everything: it is opened again when needed.
    pub(super) fn close(&mut self) {
        self.generations.close();
    }
}

/// Which letters are to go, and the writes for that.
fn choose(
    db: &Database,
    within: &Range<u64>,
    condemned: &mut impl FnMut(u64, &Found) -> bool,
) -> Result<(u64, Writes), StorageError> {
    let mut writes = Writes::default();
    let mut count = 0;
    for number in folder::numbers(db, within)? {
        if condemned(number, &folder::load(db, number)?) {
            folder::remove(db, number, &mut writes)?;
            count += 1;
        }
    }
    Ok((count, writes))
}
