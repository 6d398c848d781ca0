//! Dead letters of a daemon that is stopped: what a folder says of itself, and the letters of one that is open.
use super::super::durable::{Database, StorageError};
use super::folder::{self, Found, Summary};
use std::path::Path;

/// What a folder of dead letters says of itself.
#[derive(Debug, Clone, Copy)]
pub(in crate::spool) struct Told {
    /// One after the number of its last letter.
    pub(in crate::spool) next: u64,
    /// Letters that were not removed.
    pub(in crate::spool) letters: u64,
}

impl From<Summary> for Told {
    fn from(summary: Summary) -> Told {
        Told {
            next: summary.next,
            letters: summary.letters,
        }
    }
}

/// What a folder says that takes no more letters.
pub(in crate::spool) fn told_sealed(folder: &Path) -> Option<Told> {
    Summary::of_sealed(folder).map(Told::from)
}

/// What an open folder says.
pub(in crate::spool) fn told(db: &Database) -> Result<Told, StorageError> {
    Summary::of(db).map(Told::from)
}

/// Numbers of all letters in an open folder, in order.
pub(in crate::spool) fn numbers(db: &Database) -> Result<Vec<u64>, StorageError> {
    folder::numbers(db, &(0..u64::MAX))
}

/// Reads a letter, or says why it cannot be read.
pub(in crate::spool) fn load(db: &Database, number: u64) -> Result<Found, StorageError> {
    folder::load(db, number)
}
