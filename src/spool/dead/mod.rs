//! Dead letters: kept in a row of small sled folders in the order of their burial, bounded by bytes and age.
//!
//! - A letter's *number* goes up with each burial and is never given out twice; it orders the letters and names them.
//! - What goes for want of room or for its age goes by whole folders, the oldest first. A folder is sealed at 16 MiB, or a
//!   quarter of `dead_letters.max_bytes`, or an eighth of `max_age`, whichever comes first. Room is made before letters
//!   are written, so the bound is passed only by what is in the newest folder, which is always kept.
//! - Age counts only while the wall clock can be believed (`clock.rs`).
//! - Nothing here stops the spool: a damaged folder is set aside in `<path>/quarantine/`, and while the disk does not work,
//!   burials fail and are tried again.
//! - One folder is open for writing, none when idle, so that memory does not grow with the letters.
//!
//! Whether a letter *counts* is the spool's affair (`funeral.rs`).

mod aside;
mod clock;
mod folder;
pub(super) mod offline;
mod page;
mod row;
#[cfg(test)]
mod tests;

pub use page::{DeadLettersError, DeadPage, KeptLetter};

use super::disk::Disk;
use super::durable::StorageError;
use super::{DeadLetter, Settings, key};
use clock::WallClock;
use folder::Found;
use page::Filling;
use row::Row;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Bytes on disk at which a folder is sealed, whatever the bounds are.
const MAX_FOLDER_BYTES: u64 = 16 * 1024 * 1024;
/// A folder is not sealed below this: sled's files take as much by themselves.
const MIN_FOLDER_BYTES: u64 = 1024 * 1024;
/// Into how many folders `dead_letters.max_bytes` is divided, at least.
const BYTES_SHARES: u64 = 4;
/// Into how many `dead_letters.max_age` is.
const AGE_SHARES: u64 = 8;
/// A folder takes letters for at least this long.
const MIN_FOLDER_AGE_MS: u64 = 60 * 60 * 1_000;

/// The dead letters of a data folder.
pub(super) struct DeadLetters {
    path: PathBuf,
    quarantine: PathBuf,
    disk: Disk,
    max_bytes: u64,
    max_age_ms: u64,
    clock: WallClock,
    /// `None` until the folders were looked through, and after a failure.
    row: Option<Row>,
    /// The next number to be given out, as far as it is known.
    next: u64,
    /// Folders up to this one may hold what a failed write left, and take no more letters.
    sealed_up_to: u64,
    /// How many the bounds have cost since the start.
    dropped: u64,
    /// Whether anything was asked since the last [`DeadLetters::tick`].
    in_use: bool,
}

impl DeadLetters {
    /// The letters under `settings.path`. Opens nothing yet. `next` is a number that was never given out.
    pub(super) fn new(settings: &Settings, disk: &Disk, next: u64) -> DeadLetters {
        DeadLetters {
            path: settings.path.join("dead"),
            quarantine: settings.path.join("quarantine"),
            disk: disk.clone(),
            max_bytes: settings.dead_max_bytes,
            max_age_ms: millis(settings.dead_max_age),
            clock: WallClock::default(),
            row: None,
            next: next.max(1),
            sealed_up_to: 0,
            dropped: 0,
            in_use: true,
        }
    }

    /// How many letters went for the bounds in bytes and age since this was made.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn row(&mut self) -> Result<&mut Row, StorageError> {
        self.in_use = true;
        let row = match self.row.take() {
            Some(row) => row,
            None => Row::load(&self.path, &self.quarantine, &self.disk, self.sealed_up_to)?,
        };
        self.next = self.next.max(row.next());
        Ok(self.row.insert(row))
    }

    /// Does something with the row. What fails for want of a working disk is done anew from the files next time.
    fn with_row<T>(
        &mut self,
        work: impl FnOnce(&mut Row) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let done = work(self.row()?);
        if done.is_err() {
            self.distrust();
        }
        done
    }

    /// Closes everything. After a failed write or sync nobody knows what the newest folder has on disk.
    fn distrust(&mut self) {
        if let Some(row) = self.row.take() {
            self.sealed_up_to = row.last_id();
        }
    }

    /// Gives out numbers for a burial. They are never given out again, whatever becomes of it.
    pub(super) fn reserve(&mut self, letters: usize) -> Result<Range<u64>, StorageError> {
        self.row()?;
        let first = self.next;
        self.next = first.saturating_add(letters as u64);
        Ok(first..self.next)
    }

    /// Puts letters on disk, numbered from `first` on, and drops the oldest for which there is no room then. After an
    /// error it is unknown whether they are there: they are to be removed before anything else is buried.
    pub(super) fn bury(
        &mut self,
        first: u64,
        letters: &[&DeadLetter],
        now: Instant,
    ) -> Result<(), StorageError> {
        let adding = letters.iter().map(|letter| page::size(letter) as u64).sum();
        let buried = self
            .make_room(adding, now)
            .and_then(|()| self.with_row(|row| row.write(first, letters)));
        if buried.is_err() {
            self.distrust();
        }
        buried
    }

    /// Seals the newest folder if it is due, then drops the oldest ones.
    fn make_room(&mut self, adding: u64, now: Instant) -> Result<(), StorageError> {
        let wall_ms = (self.disk.now_ms)();
        let believed = self.clock.is_believed(now, wall_ms);
        let (max_bytes, max_age_ms) = (self.max_bytes, self.max_age_ms);
        let folder_bytes =
            (max_bytes / BYTES_SHARES).clamp(MIN_FOLDER_BYTES, self.disk.fill_bytes(MAX_FOLDER_BYTES));
        let folder_age_ms = (max_age_ms / AGE_SHARES).max(MIN_FOLDER_AGE_MS);
        let dropped = self.with_row(|row| {
            let is_due = row.growing().is_some_and(|(_, folder)| {
                folder.bytes >= folder_bytes || folder.summary.oldest_ms.abs_diff(wall_ms) >= folder_age_ms
            });
            if is_due {
                row.seal()?;
            }
            let oldest_ms = wall_ms.saturating_sub(max_age_ms);
            let over_age = row
                .folders()
                .filter(|(_, folder)| folder.summary.newest_ms < oldest_ms);
            let over_age: Vec<u64> = over_age.filter(|_| believed).map(|(id, _)| id).collect();
            let mut dropped = 0;
            for id in over_age {
                dropped += row.delete(id)?;
            }
            while row.bytes().saturating_add(adding) > max_bytes {
                let growing = row.growing().map(|(id, _)| id);
                let Some((oldest, _)) = row.folders().find(|(id, _)| Some(*id) != growing) else {
                    break;
                };
                dropped += row.delete(oldest)?;
            }
            if dropped > 0 {
                tracing::warn!(
                    dropped,
                    "dropped the oldest dead letters to stay within dead_letters.max_bytes and max_age"
                );
            }
            Ok(dropped)
        })?;
        self.dropped += dropped;
        Ok(())
    }

    /// Looks after what time alone changes. Closes what nobody asked for since the last time.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), StorageError> {
        let was_in_use = std::mem::take(&mut self.in_use);
        let done = self.make_room(0, now);
        self.in_use = false;
        if let Some(row) = self.row.as_mut().filter(|_| !was_in_use) {
            row.close();
        }
        done
    }

    /// Letters in the order of their burial, from `after` on (exclusive).
    pub(super) fn list(&mut self, after: Option<u64>, limit: usize) -> Result<DeadPage, StorageError> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        self.row()?;
        let end = self.next;
        self.with_row(|row| {
            let mut page = Filling::new(limit, end);
            let mut has_damage = false;
            let ids = row.folders().filter(|(_, folder)| folder.summary.next > from);
            let ids: Vec<(u64, u64)> = ids.map(|(id, folder)| (id, folder.summary.next - 1)).collect();
            for (id, last) in ids {
                let mut from = from;
                while let Some(kept) = next_letter(row, id, from, last)? {
                    from = kept.number.saturating_add(1);
                    has_damage |= kept.letter.is_err();
                    if !page.take(kept) {
                        return Ok(page.done());
                    }
                }
            }
            if has_damage {
                // sled may keep answering with the error it met.
                row.close();
            }
            Ok(page.done())
        })
    }

    /// Removes those letters within a range that `condemned` says. Gives how many.
    pub(super) fn remove(
        &mut self,
        within: Range<u64>,
        condemned: impl FnMut(u64, &Found) -> bool,
    ) -> Result<u64, StorageError> {
        self.with_row(|row| row.remove(&within, condemned))
    }

    /// Removes the letters with these numbers. Gives how many of them there were.
    pub(super) fn remove_each(&mut self, numbers: &BTreeSet<u64>) -> Result<u64, StorageError> {
        let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) else {
            return Ok(0);
        };
        self.remove(first..last.saturating_add(1), |number, _| {
            numbers.contains(&number)
        })
    }

    /// Which of these letters are there.
    pub(super) fn present(&mut self, numbers: &BTreeSet<u64>) -> Result<BTreeSet<u64>, StorageError> {
        self.with_row(|row| {
            let spans = row.folders().map(|(id, folder)| (id, folder.summary));
            let spans: Vec<(u64, Range<u64>)> = spans.map(|(id, told)| (id, told.first..told.next)).collect();
            let mut present = BTreeSet::new();
            for (id, span) in spans {
                if numbers.range(span.clone()).next().is_none() {
                    continue;
                }
                let Some(db) = row.read(id)? else { continue };
                for &number in numbers.range(span) {
                    if db.get(&key::letter(number))?.is_some() {
                        present.insert(number);
                    }
                }
            }
            Ok(present)
        })
    }
}

/// The first letter of a folder that is not below `from`. Where not even the keys can be read, one entry stands for the
/// rest of the folder, up to its `last` letter.
fn next_letter(row: &mut Row, id: u64, from: u64, last: u64) -> Result<Option<KeptLetter>, StorageError> {
    let Some(db) = row.read(id)?.filter(|_| from <= last) else {
        return Ok(None);
    };
    let found = match db.ceiling(&key::letter(from)) {
        Err(error) if error.damage => {
            let letter = Err(format!("letters {from} to {last} cannot be read: {error}"));
            return Ok(Some(KeptLetter { number: last, letter }));
        }
        found => found?,
    };
    match found.and_then(|key| key::parse_letter(&key)) {
        None => Ok(None),
        Some(number) => {
            let letter = folder::load(db, number)?;
            Ok(Some(KeptLetter { number, letter }))
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
