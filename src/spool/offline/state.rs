//! How a spool stood when its daemon stopped, as its newest generation says.
use super::super::codec::CodecError;
use super::super::durable::{Database, StorageError};
use super::super::mark::Mark;
use super::super::meta::{Cursor, Extent, Head, decode_lane};
use super::super::{key, requeue};
use super::copy;
use super::row::Row;
use crate::ids::Lane;
use std::collections::{BTreeMap, BTreeSet};

/// What a generation says about all.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) head: Head,
    pub(super) names: BTreeMap<u32, Lane>,
    pub(super) cursors: BTreeMap<u32, Cursor>,
    pub(super) extents: BTreeMap<u32, BTreeMap<u64, Extent>>,
    /// Dead letters whose events are queued again.
    pub(super) requeued: BTreeSet<u64>,
}

impl State {
    /// All extents, with the numbers of their lanes.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Extent)> {
        let rows = self.extents.iter();
        rows.flat_map(|(&lane, row)| row.values().map(move |extent| (lane, extent)))
    }

    /// A lane's cursor and extents.
    pub(super) fn lane(&self, number: u32) -> (Cursor, Vec<Extent>) {
        let row = self.extents.get(&number);
        let extents = row.map(|row| row.values().copied().collect()).unwrap_or_default();
        (self.cursors.get(&number).cloned().unwrap_or_default(), extents)
    }

    /// Whether a dead letter counts: the burial of one that does not was never committed, or it is queued again.
    pub(super) fn counts(&self, letter: u64) -> bool {
        let Head {
            uncounted_from: from,
            void,
            ..
        } = self.head;
        (from == 0 || letter < from)
            && !(void.0..void.1).contains(&letter)
            && !self.requeued.contains(&letter)
    }
}

/// The newest state that can be read, and what is wrong with newer ones, a sentence each.
pub(super) fn newest(
    generations: &Row,
    mark: Option<Mark>,
) -> Result<(Option<u64>, State, Vec<String>), StorageError> {
    let mut damage = Vec::new();
    for &id in generations.present.iter().rev() {
        let begun = generations.was_begun(id);
        let read = copy::open(&generations.path(id)).and_then(|copy| read(&copy.db));
        let reason = match read {
            Ok(Some(state)) => {
                damage.extend(behind(id, &state.head, mark));
                return Ok((Some(id), state, damage));
            }
            // Cut off while it was being made: nothing in it was ever acknowledged.
            Ok(None) | Err(_) if !begun => continue,
            Err(error) if !error.damage => return Err(error),
            Ok(None) => "its head is gone".to_owned(),
            Err(error) => error.to_string(),
        };
        damage.push(format!("generation {id} is damaged: {reason}"));
    }
    let empty = State::default();
    damage.extend(behind(0, &empty.head, mark));
    Ok((None, empty, damage))
}

/// What is missing if a generation says less than was durable once.
fn behind(id: u64, head: &Head, mark: Option<Mark>) -> Option<String> {
    let mark = mark?;
    let behind = id < mark.generation || (id == mark.generation && mark.head.is_after(head));
    behind.then(|| {
        format!(
            "the high-water mark speaks of generation {} with {} events accepted, and what can be read ends at generation {id} \
             with {}: its tail was cut off or damaged",
            mark.generation, mark.head.accepted, head.accepted
        )
    })
}

/// What an open generation says; `None` if it has no head.
fn read(db: &Database) -> Result<Option<State>, StorageError> {
    let Some(stored) = db.get(&key::HEAD)? else {
        return Ok(None);
    };
    let mut state = State {
        head: Head::decode(&stored).map_err(|error| unreadable("head", error))?,
        ..State::default()
    };
    if let Some(note) = db.get(&key::REQUEUED)? {
        state.requeued = requeue::decode(&note).map_err(|error| unreadable("row of dead letters", error))?;
    }
    for kv in db.scan(&key::EXTENTS) {
        let (lane, extent) = Extent::decode(&kv?.1).map_err(|error| unreadable("extent", error))?;
        let row = state.extents.entry(lane).or_default();
        row.insert(extent.first, extent);
    }
    for kv in db.scan(&key::CURSORS) {
        let (lane, cursor) = Cursor::decode(&kv?.1).map_err(|error| unreadable("cursor", error))?;
        state.cursors.insert(lane, cursor);
    }
    for kv in db.scan(&key::LANES) {
        let (number, lane) = decode_lane(&kv?.1).map_err(|error| unreadable("lane name", error))?;
        state.names.insert(number, lane);
    }
    if let Some(lane) = state.extents.keys().find(|lane| !state.names.contains_key(lane)) {
        return Err(StorageError::damaged(format!(
            "the name of lane {lane} is missing"
        )));
    }
    let live: u64 = state.all().map(|(_, extent)| extent.live).sum();
    let head = &state.head;
    if head.ended() + live != head.accepted {
        return Err(StorageError::damaged(format!(
            "the ledger does not balance: {} accepted, but {} delivered + {} dead + {} dropped + {live} queued",
            head.accepted, head.delivered, head.dead, head.dropped
        )));
    }
    Ok(Some(state))
}

fn unreadable(what: &str, error: CodecError) -> StorageError {
    StorageError::damaged(format!("a {what} cannot be read: {error}"))
}
