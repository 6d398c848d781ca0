//! Dead letters that are queued again, and letters that are removed.
//!
//! A letter and its event lie in different folders, which cannot be written at once. So the commit that queues the event also
//! notes, in the same batch, which letters it was made of: from then on these do not count. They are removed after it, and
//! only when that is durable is the note taken back, by a later commit.
//!
//! - Killed before the commit, or the commit fails: the letter is as it was, and nothing is queued.
//! - Killed between the commit and the removal: the event is queued, and the note says at the next start which letters are
//!   to go. Nobody is shown a letter while the note stands.
//! - Killed after the removal: the note names letters that are gone. Numbers are never given out twice, so it harms nothing.
//!
//! Only where the newest generation is damaged and its note with it can a letter stay beside its event; nothing is lost then.
//!
//! In the ledger such an event goes from `dead` back to `queued`. One whose letter is removed stays `dead`.
use super::codec::{self, CodecError, Fields, put_varint, seal, unseal};
use super::dropping::Dropping;
use super::durable::{StorageError, Writes};
use super::group::{Group, Origins, Prepared};
use super::meta::Head;
use super::owner::Owner;
use super::view::locked;
use super::{AppendError, DeadLettersError, Entry, key};
use crate::ids::Lane;
use std::collections::BTreeSet;
use std::time::Instant;

/// Most letters that are queued again or removed at once, so that the note fits into one value.
pub const MAX_LETTERS: usize = 1_000;

/// A dead letter on its way back into a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revived {
    /// Its number; the letter goes.
    pub number: u64,
    /// Where its event is queued.
    pub lane: Lane,
    /// What is queued: a record that was checked as at the door.
    pub record: Vec<u8>,
}

/// Letters whose events are queued again, and which are still to be removed.
#[derive(Debug, Default)]
pub(super) struct Note {
    numbers: BTreeSet<u64>,
    /// What the newest generation says differs from it.
    changed: bool,
}

impl Note {
    /// As the newest generation says.
    pub(super) fn of(numbers: BTreeSet<u64>) -> Note {
        Note {
            numbers,
            changed: false,
        }
    }

    /// Writes it, if that is not what stands there, with the letters that a commit adds to it.
    pub(super) fn write(&self, writes: &mut Writes, adding: &BTreeSet<u64>) {
        if self.changed || !adding.is_empty() {
            let numbers = self.numbers.union(adding).copied().collect();
            writes.set(key::REQUEUED.to_vec(), &encode(&numbers));
        }
    }

    /// Writes it for the start of a generation.
    pub(super) fn write_all(&self, writes: &mut Writes) {
        if !self.numbers.is_empty() {
            writes.set(key::REQUEUED.to_vec(), &encode(&self.numbers));
        }
    }

    /// The newest generation says what this does, and that these are to go.
    pub(super) fn committed(&mut self, added: &BTreeSet<u64>) {
        self.numbers.extend(added);
        self.changed = false;
    }
}

pub(super) fn encode(numbers: &BTreeSet<u64>) -> Vec<u8> {
    let mut body = Vec::new();
    let mut before = 0;
    for &number in numbers {
        put_varint(&mut body, number - before);
        before = number;
    }
    seal(codec::Kind::Requeued, &[], &body)
}

pub(super) fn decode(sealed: &[u8]) -> Result<BTreeSet<u64>, CodecError> {
    let (_, body) = unseal(codec::Kind::Requeued, sealed)?;
    let malformed = CodecError::Malformed("row of letters");
    let mut fields = Fields(&body);
    let mut numbers = BTreeSet::new();
    let mut before = 0u64;
    while !fields.0.is_empty() {
        let step = fields.varint().ok_or(malformed)?;
        before = before.checked_add(step).ok_or(malformed)?;
        numbers.insert(before);
    }
    Ok(numbers)
}

/// The account after letters were queued again. One that was never counted as dead counts as accepted once more.
pub(super) fn account(head: Head, letters: u64) -> Head {
    let counted = letters.min(head.dead);
    Head {
        dead: head.dead - counted,
        accepted: head.accepted - counted,
        ..head
    }
}

impl Owner {
    /// Queues the events of letters again, in this order, all or none, behind what their lanes have. Gives the numbers of
    /// letters that are not there any more, of which nothing is queued.
    pub(super) fn requeue(
        &mut self,
        letters: Vec<Revived>,
        group: &mut Group,
        now: Instant,
    ) -> Result<Vec<u64>, AppendError> {
        let asked: BTreeSet<u64> = letters.iter().map(|letter| letter.number).collect();
        if asked.len() < letters.len() || asked.len() > MAX_LETTERS {
            let sentence = format!("at most {MAX_LETTERS} dead letters at once, and each of them once");
            return Err(AppendError::Storage(sentence));
        }
        if let Some(failure) = self.failure.as_ref().filter(|failure| now < failure.retry_at) {
            return Err(AppendError::Storage(failure.sentence.clone()));
        }
        let there = self.clear_void().and_then(|()| self.dead.present(&asked));
        let there = there.map_err(|error| AppendError::Storage(self.fail_letters(&error, now)))?;
        let gone: Vec<u64> = asked.difference(&there).copied().collect();
        let entries = letters
            .into_iter()
            .filter(|letter| there.contains(&letter.number));
        let entries = entries.map(|Revived { lane, record, .. }| Entry::Queued { lane, record });
        let append = Prepared::new(entries.collect());
        if there.is_empty() {
            return Ok(gone);
        }
        if let Err(sentence) = self.admit(&append, group, now) {
            self.publish_refusal();
            return Err(AppendError::Full(sentence));
        }
        let origins = Origins {
            letters: there,
            ..Origins::default()
        };
        self.commit_parts(append.into_parts(), origins, Dropping::ForAppends, now)?;
        locked(&self.shared.letter_log).handled();
        // What cannot be removed now is removed before anybody is shown a letter again.
        if let Err(error) = self.clear_requeued() {
            self.fail_letters(&error, now);
        }
        Ok(gone)
    }

    /// Removes the letters that the note names, and takes it back.
    pub(super) fn clear_requeued(&mut self) -> Result<(), StorageError> {
        let numbers = &self.requeued.numbers;
        if !numbers.is_empty() {
            self.dead.remove_each(numbers)?;
            self.requeued = Note {
                numbers: BTreeSet::new(),
                changed: true,
            };
            self.mark_dirty();
        }
        Ok(())
    }

    /// Removes letters. Gives how many there were.
    pub(super) fn purge(&mut self, numbers: &BTreeSet<u64>) -> Result<u64, DeadLettersError> {
        let purged = self.clear_void().and_then(|()| self.dead.remove_each(numbers));
        if purged.as_ref().is_ok_and(|letters| *letters > 0) {
            locked(&self.shared.letter_log).handled();
        }
        purged.map_err(|error| {
            tracing::error!(%error, "dead letters could not be removed");
            DeadLettersError::Storage(format!(
                "the dead letters could not be removed: {error}: look at the disk under spool.path, and ask again"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_note_comes_back_as_it_was(numbers: BTreeSet<u64>) {
            prop_assert_eq!(decode(&encode(&numbers)), Ok(numbers));
        }

        #[test]
        fn garbage_in_the_envelope_is_an_error_or_a_value_and_never_a_panic(body: Vec<u8>) {
            let _ = decode(&seal(codec::Kind::Requeued, &[], &body));
        }
    }

    #[test]
    fn a_full_note_fits_into_one_value() {
        let step = u64::MAX / MAX_LETTERS as u64;
        let numbers = (1..=MAX_LETTERS as u64).map(|n| n * step).collect();
        assert!(encode(&numbers).len() <= key::MAX_VALUE_BYTES);
    }

    #[test]
    fn the_account_balances_whatever_was_counted_before() {
        let head = Head {
            accepted: 5,
            delivered: 2,
            dead: 3,
            ..Head::default()
        };
        let some = account(head, 2);
        assert_eq!((some.accepted + 2, some.dead), (5, 1));
        let more = account(head, 4);
        assert_eq!(
            (more.accepted + 4, more.dead),
            (6, 0),
            "one of them was not counted"
        );
    }
}
