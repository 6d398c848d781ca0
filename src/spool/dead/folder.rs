//! What lies in one folder of dead letters, and what it says of itself.
use super::super::codec::{self, CodecError, Fields, put_varint, seal, unseal};
use super::super::disk::sync_folder;
use super::super::durable::{Database, StorageError, Writes};
use super::super::{DeadLetter, key, letter, parts};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// File with the summary of a folder that takes no more letters, so that it need not be opened to be known.
const SEALED: &str = "sealed";

/// A letter, or why it cannot be read.
pub(super) type Found = Result<DeadLetter, String>;

/// What a folder holds: its head, and the file `sealed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// Number of its first letter.
    pub(super) first: u64,
    /// One after the number of its last.
    pub(super) next: u64,
    /// Letters that were not removed.
    pub(super) letters: u64,
    /// When the first and the last letter were buried, by the wall clock.
    pub(super) oldest_ms: u64,
    pub(super) newest_ms: u64,
}

impl Summary {
    /// Of a folder that has nothing yet and begins with this number.
    pub(super) fn empty(first: u64) -> Summary {
        Summary {
            first,
            next: first,
            letters: 0,
            oldest_ms: u64::MAX,
            newest_ms: 0,
        }
    }

    /// Adds the letters of one burial to it and to the writes.
    pub(super) fn add(&mut self, first: u64, letters: &[&DeadLetter], writes: &mut Writes) {
        for (number, dead) in (first..).zip(letters) {
            writes.set_long(key::letter(number), number, letter::encode(dead, number));
            self.next = number + 1;
            self.letters += 1;
            self.oldest_ms = self.oldest_ms.min(dead.buried_at_ms);
            self.newest_ms = self.newest_ms.max(dead.buried_at_ms);
        }
        writes.set(key::HEAD.to_vec(), &self.encode());
    }

    /// What an open folder says. A folder that was begun always has a head.
    pub(super) fn of(db: &Database) -> Result<Summary, StorageError> {
        let head = db.get(&key::HEAD)?;
        let head = head.ok_or_else(|| StorageError::damaged("its head is gone"))?;
        Summary::decode(&head)
            .map_err(|error| StorageError::damaged(format!("its head cannot be read: {error}")))
    }

    /// What a sealed folder says, if it is one and can be read.
    pub(super) fn of_sealed(folder: &Path) -> Option<Summary> {
        Summary::decode(&fs::read(folder.join(SEALED)).ok()?).ok()
    }

    /// Writes the file `sealed`, whole or not at all.
    pub(super) fn seal(&self, folder: &Path) -> io::Result<()> {
        let draft = folder.join("sealed.new");
        let mut options = parts::options();
        let mut file = options.write(true).create(true).truncate(true).open(&draft)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&draft, folder.join(SEALED))?;
        sync_folder(folder)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut head = Vec::new();
        for number in [
            self.first,
            self.next,
            self.letters,
            self.oldest_ms,
            self.newest_ms,
        ] {
            put_varint(&mut head, number);
        }
        seal(codec::Kind::Head, &head, &[])
    }

    fn decode(sealed: &[u8]) -> Result<Summary, CodecError> {
        let (head, _) = unseal(codec::Kind::Head, sealed)?;
        let mut fields = Fields(head);
        let mut number = || fields.varint().ok_or(CodecError::Malformed("summary"));
        Ok(Summary {
            first: number()?,
            next: number()?,
            letters: number()?,
            oldest_ms: number()?,
            newest_ms: number()?,
        })
    }
}

/// Numbers of the letters within a range, in order.
pub(super) fn numbers(db: &Database, within: &Range<u64>) -> Result<Vec<u64>, StorageError> {
    let mut numbers = Vec::new();
    for kv in db.scan(&key::LETTERS) {
        let (key, _) = kv?;
        numbers.extend(key::parse_letter(&key).filter(|number| within.contains(number)));
    }
    Ok(numbers)
}

/// Reads a letter. Damage is told in its place; trouble is an error.
pub(super) fn load(db: &Database, number: u64) -> Result<Found, StorageError> {
    let read = db
        .get(&key::letter(number))
        .and_then(|slot| db.long(&slot.unwrap_or_default(), number));
    let sealed = match read {
        Err(error) if error.damage => return Ok(Err(error.to_string())),
        read => read?,
    };
    Ok(match letter::decode(&sealed) {
        Ok((found, letter)) if found == number => Ok(letter),
        Ok((found, _)) => Err(format!("dead letter {found} stands in its place")),
        Err(error) => Err(error.to_string()),
    })
}

/// Removes a letter: its key, and what its slots hold.
pub(super) fn remove(db: &Database, number: u64, writes: &mut Writes) -> Result<(), StorageError> {
    if let Some(slot) = db.get(&key::letter(number))?
        && let Ok(first) = slot.as_ref().try_into().map(u32::from_be_bytes)
    {
        let value = db.get(&key::slot(first))?.unwrap_or_default();
        let count = match codec::as_piece(&value) {
            Ok(Some((piece, _))) if piece.id == number => piece.count,
            _ => 1,
        };
        for slot in first..first.saturating_add(u32::from(count)) {
            writes.set(key::slot(slot).to_vec(), &[]);
        }
    }
    writes.remove(key::letter(number));
    Ok(())
}

/// Bytes that a folder takes up on disk.
pub(super) fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        match entry?.metadata() {
            Ok(meta) => bytes += meta.blocks() * 512,
            // sled removes old snapshots by itself.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
