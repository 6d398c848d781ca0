//! Slots: where long values lie in a sled folder, so that each is written once.
//!
//! A leaf of sled is split in its middle when a 17th key comes, and both halves are written again with all their
//! values; a page is also written anew at every tenth change. So the keys of the slots are made beforehand with empty
//! values: by the time that a slot is filled, its leaf of 8 or 9 keys has been split off and gets at most one change a key. The
//! key under which a value is found again says which slot it is in.
use super::codec;
use super::durable::StorageError;
use super::key::{self, MAX_VALUE_BYTES};

/// Empty slots that are kept ahead of the filled ones: two leaves that are still growing, and some.
const AHEAD: u32 = 40;

/// The slots of an open folder.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Slots {
    /// The first that was never filled.
    next: u32,
    /// One after the last whose key exists.
    made: u32,
}

impl Slots {
    /// Finds where filling stopped.
    pub(super) fn find(db: &sled::Db) -> sled::Result<Slots> {
        let mut slots = Slots::default();
        for kv in db.scan_prefix(key::SLOTS).rev() {
            let (key, value) = kv?;
            let Some(number) = key::parse_slot(&key) else { continue };
            slots.made = slots.made.max(number + 1);
            if !value.is_empty() {
                slots.next = number + 1;
                break;
            }
        }
        Ok(slots)
    }

    /// Puts a value into the next free slots, and the number of the first of them under `key`.
    pub(super) fn fill(
        &mut self,
        db: &sled::Db,
        batch: &mut sled::Batch,
        key: Vec<u8>,
        id: u64,
        sealed: Vec<u8>,
    ) -> sled::Result<()> {
        batch.insert(key, &self.next.to_be_bytes());
        for piece in codec::pieces(sealed, id, MAX_VALUE_BYTES) {
            while self.made < self.next + AHEAD {
                db.insert(key::slot(self.made), &[])?;
                self.made += 1;
            }
            batch.insert(&key::slot(self.next), piece);
            self.next += 1;
        }
        Ok(())
    }
}

/// Reads what was put into the slots from `number` on. `id` is what it was filled with.
pub(super) fn read(db: &sled::Db, number: u32, id: u64) -> Result<Vec<u8>, StorageError> {
    let damaged = |what: &str| StorageError::damaged(format!("slot {number} {what}"));
    let mut joined = Vec::new();
    for part in 0..=u16::MAX {
        let value = db.get(key::slot(number.saturating_add(u32::from(part))))?;
        let value = value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| damaged("is empty"))?;
        match codec::as_piece(&value).map_err(|error| damaged(&format!("is unreadable: {error}")))? {
            None if part == 0 => return Ok(value.to_vec()),
            Some((piece, bytes)) if piece.id == id && piece.number == part => {
                joined.extend(bytes);
                if part + 1 == piece.count {
                    return Ok(joined);
                }
            }
            _ => return Err(damaged("holds something else")),
        }
    }
    Err(damaged("has no end"))
}
