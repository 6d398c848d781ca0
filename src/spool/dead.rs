//! Dead letters: their own sled folder, in the order of acceptance, bounded by bytes and age.
use super::codec::{self, CodecError, Fields, put_varint, seal, unseal};
use super::disk::Disk;
use super::durable::{Database, StorageError, Writes};
use super::{DeadLetter, key, letter};
use crate::ids::Seq;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// What is kept, and how much was dropped to stay within the bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    letters: u64,
    bytes: u64,
    evicted: u64,
}

/// The dead letters of a data folder.
pub(super) struct DeadLetters {
    path: PathBuf,
    disk: Disk,
    max_bytes: u64,
    max_age_ms: u64,
    /// Closed after an error, reopened when next needed.
    db: Option<Database>,
}

impl DeadLetters {
    /// Opens or makes the folder.
    pub(super) fn open(
        path: PathBuf,
        disk: &Disk,
        max_bytes: u64,
        max_age: Duration,
    ) -> Result<DeadLetters, StorageError> {
        let max_age_ms = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        let mut dead = DeadLetters {
            path,
            disk: disk.clone(),
            max_bytes,
            max_age_ms,
            db: None,
        };
        dead.database()?;
        Ok(dead)
    }

    fn database(&mut self) -> Result<&mut Database, StorageError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => {
                let mut db = Database::open(&self.path, &self.disk)?;
                if db.get(&key::HEAD)?.is_none() {
                    if db.was_begun() {
                        return Err(StorageError::damaged(
                            "the dead letters are damaged: their totals are gone",
                        ));
                    }
                    let mut writes = Writes::default();
                    writes.set(key::HEAD.to_vec(), &Totals::default().encode());
                    db.commit(writes)?;
                }
                // Also where a start was cut off between the two.
                if !db.was_begun() {
                    db.mark_begun()?;
                }
                db
            }
        };
        Ok(self.db.insert(db))
    }

    /// Puts letters on disk and drops the oldest beyond the bounds. Burying a sequence again replaces it, so that a
    /// crash between this and the lane's settling does no harm. Gives how many were dropped.
    pub(super) fn bury(&mut self, letters: &[DeadLetter]) -> Result<u64, StorageError> {
        let done = self.try_bury(letters);
        if done.is_err() {
            self.db = None;
        }
        done
    }

    fn try_bury(&mut self, letters: &[DeadLetter]) -> Result<u64, StorageError> {
        let (max_bytes, now_ms) = (self.max_bytes, (self.disk.now_ms)());
        let oldest_ms = now_ms.saturating_sub(self.max_age_ms);
        let db = self.database()?;
        let before = totals(db)?;
        let mut after = before;
        let mut writes = Writes::default();
        let mut gone = BTreeSet::new();
        for letter in letters {
            if let Some(old) = load(db, letter.seq)? {
                remove(&mut writes, &old, &mut after);
            }
        }
        for dead_letter in letters {
            let sealed = letter::encode(dead_letter);
            let seq = dead_letter.seq.0;
            let bytes = sealed.len() as u64;
            writes.set_pieces(sealed, seq, |piece| key::letter(seq, piece));
            writes.set(key::age(dead_letter.buried_at_ms, seq), &bytes.to_be_bytes());
            after.letters += 1;
            after.bytes += bytes;
            gone.insert(seq);
        }
        for kv in db.scan(&key::AGES) {
            let (age, _) = kv?;
            let Some((buried_at_ms, seq)) = key::parse_age(&age) else {
                continue;
            };
            if buried_at_ms >= oldest_ms && after.bytes <= max_bytes {
                break;
            }
            if gone.insert(seq)
                && let Some(old) = load(db, Seq(seq))?
            {
                remove(&mut writes, &old, &mut after);
                after.evicted += 1;
            }
        }
        if after != before || !letters.is_empty() {
            writes.set(key::HEAD.to_vec(), &after.encode());
            db.commit(writes)?;
        }
        Ok(after.evicted - before.evicted)
    }

    /// Letters in order, from `after` on (exclusive).
    pub(super) fn list(&mut self, after: Option<Seq>, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        let db = self.database()?;
        let mut letters = Vec::new();
        let mut from = after.map_or(0, |seq| seq.0.saturating_add(1));
        while letters.len() < limit {
            let Some(found) = db.ceiling(&key::letter(from, 0))? else {
                break;
            };
            let Some((seq, _)) = key::parse_letter(&found) else {
                break;
            };
            if let Some(stored) = load(db, Seq(seq))? {
                letters.push(stored.letter);
            }
            from = seq.saturating_add(1);
        }
        Ok(letters)
    }
}

/// A letter as read back, with what it takes on disk.
struct Stored {
    letter: DeadLetter,
    bytes: usize,
}

fn load(db: &Database, seq: Seq) -> Result<Option<Stored>, StorageError> {
    let first = key::letter(seq.0, 0);
    let sealed = db.joined(&first[..first.len() - 2])?;
    if sealed.is_empty() {
        return Ok(None);
    }
    let letter =
        letter::decode(&sealed).map_err(|e| StorageError::damaged(format!("dead letter {seq} is unreadable: {e}")))?;
    Ok(Some(Stored {
        letter,
        bytes: sealed.len(),
    }))
}

fn remove(writes: &mut Writes, old: &Stored, totals: &mut Totals) {
    let seq = old.letter.seq.0;
    for piece in 0..codec::pieces_of(old.bytes, key::MAX_VALUE_BYTES) {
        writes.remove(key::letter(seq, piece));
    }
    writes.remove(key::age(old.letter.buried_at_ms, seq));
    totals.letters = totals.letters.saturating_sub(1);
    totals.bytes = totals.bytes.saturating_sub(old.bytes as u64);
}

fn totals(db: &Database) -> Result<Totals, StorageError> {
    let stored = db
        .get(&key::HEAD)?
        .ok_or_else(|| StorageError::damaged("the dead letters lost their totals"))?;
    Totals::decode(&stored).map_err(|e| StorageError::damaged(format!("the totals of the dead letters: {e}")))
}

impl Totals {
    fn encode(self) -> Vec<u8> {
        let mut head = Vec::new();
        for number in [self.letters, self.bytes, self.evicted] {
            put_varint(&mut head, number);
        }
        seal(codec::Kind::Head, &head, &[])
    }

    fn decode(sealed: &[u8]) -> Result<Totals, CodecError> {
        let (head, _) = unseal(codec::Kind::Head, sealed)?;
        let mut fields = Fields(head);
        match (fields.varint(), fields.varint(), fields.varint()) {
            (Some(letters), Some(bytes), Some(evicted)) => Ok(Totals {
                letters,
                bytes,
                evicted,
            }),
            _ => Err(CodecError::Malformed("totals")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Kind, Lane, ProjectId};
    use crate::spool::Burial;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn letter(seq: u64, buried_at_ms: u64, record: Vec<u8>) -> DeadLetter {
        let lane = Lane {
            project: ProjectId::new("p").unwrap(),
            kind: Kind::Log,
        };
        let burial = Burial {
            reason: "no".into(),
            status: Some(422),
            excerpt: Some("ü".into()),
            attempts: 3,
        };
        DeadLetter {
            seq: Seq(seq),
            lane,
            buried_at_ms,
            burial,
            record,
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..len).map(|_| random.u8(..)).collect()
    }

    fn seqs(dead: &mut DeadLetters) -> Vec<u64> {
        dead.list(None, 100).unwrap().iter().map(|l| l.seq.0).collect()
    }

    #[test]
    fn letters_come_back_whole_and_burying_twice_is_burying_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            DeadLetters::open(
                folder.path().join("dead"),
                &Disk::real(),
                1 << 30,
                Duration::from_secs(60),
            )
        };
        let now = (Disk::real().now_ms)();
        let mut dead = open().unwrap();
        dead.bury(&[letter(3, now, noise(100_000)), letter(1, now, b"one".to_vec())])
            .unwrap();
        dead.bury(&[letter(3, now + 1, b"short now".to_vec())]).unwrap();
        drop(dead);
        let mut dead = open().unwrap();
        let letters = dead.list(None, 10).unwrap();
        assert_eq!(seqs(&mut dead), [1, 3]);
        assert_eq!(letters[1].record, b"short now");
        assert_eq!(letters[1].burial.status, Some(422));
        assert_eq!(letters[1].burial.excerpt.as_deref(), Some("ü"));
        assert_eq!(dead.list(Some(Seq(1)), 10).unwrap().len(), 1);
        assert_eq!(totals(dead.database().unwrap()).unwrap().letters, 2);
    }

    #[test]
    fn the_oldest_go_first_when_there_are_too_many_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let mut dead = DeadLetters::open(
            folder.path().join("dead"),
            &Disk::real(),
            25_000,
            Duration::from_secs(60),
        )
        .unwrap();
        let now = (Disk::real().now_ms)();
        for seq in [5, 4, 3] {
            dead.bury(&[letter(seq, now + 10 - seq, noise(10_000))]).unwrap();
        }
        assert_eq!(seqs(&mut dead), [3, 4]);
    }

    #[test]
    fn letters_over_the_age_go() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let ticking = Arc::clone(&clock);
        let disk = Disk {
            now_ms: Arc::new(move || ticking.load(Ordering::Relaxed)),
            ..Disk::real()
        };
        let mut dead = DeadLetters::open(
            folder.path().join("dead"),
            &disk,
            1 << 30,
            Duration::from_secs(60),
        )
        .unwrap();
        dead.bury(&[letter(1, 1_000_000, vec![1]), letter(2, 1_000_000, vec![2])])
            .unwrap();
        clock.store(1_060_001, Ordering::Relaxed);
        assert_eq!(dead.bury(&[letter(3, 1_060_001, vec![3])]).unwrap(), 2);
        assert_eq!(seqs(&mut dead), [3]);
    }

    #[test]
    fn a_start_that_was_cut_off_before_the_mark_is_finished_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let path = folder.path().join("dead");
            DeadLetters::open(path, &Disk::real(), 1 << 20, Duration::from_secs(1)).unwrap()
        };
        drop(open());
        let mark = folder.path().join("dead/begun");
        std::fs::remove_file(&mark).unwrap();
        drop(open());
        assert!(mark.exists());
    }
}
