//! Moving on: a lane that is parked or slow must not keep old generations on disk for the little that it has in them.
//!
//! Once the generations take more than twice the live payload and one generation beside, what is live in the
//! emptiest of them is written again to the newest, with its own sequences, so that the lane's order stays as it is. Each
//! step is one commit that holds both the events and where they now lie; the old generation is deleted, as any other, when
//! a durable commit says that nothing in it is live. A crash in between leaves the one or the other, never both or none.
//!
//! What drains by itself is left alone: the oldest generations of a backlog never come over that bound.
use super::chunk::{self, Chunk, Label};
use super::dropping::Dropping;
use super::durable::{StorageError, Writes};
use super::key;
use super::meta::{Extent, Head};
use super::owner::Owner;
use std::time::Instant;

/// Payload bytes that are moved with one commit: appends wait for no more than this.
const STEP_BYTES: usize = 2 * 1024 * 1024;
/// Free disk bytes beside what is to be moved, below which nothing is.
const SPARE_BYTES: u64 = 8 * 1024 * 1024;

/// Live events of one extent on their way to another generation.
struct Moving {
    writes: Writes,
    /// Where `writes` put them.
    moved: Extent,
    /// What stays behind for the next step.
    rest: Option<Extent>,
}

impl Owner {
    /// Moves a little on, if that is worth it; whether there may be more to do.
    pub(super) fn move_on(&mut self, now: Instant) -> bool {
        if self.failure.is_some() {
            return false;
        }
        let Some(generation) = self.worth_moving() else {
            return false;
        };
        let moved = self
            .writable_generation(Dropping::ForAppends)
            .and_then(|to| self.move_some(generation, to));
        match moved {
            Ok(()) => true,
            Err(error) if error.damage => {
                self.damaged.insert(generation);
                true
            }
            Err(error) => {
                self.fail(error, now);
                false
            }
        }
    }

    /// The generation to be emptied next, if the disk holds too much that has ended.
    fn worth_moving(&self) -> Option<u64> {
        let newest = self.generations.newest()?;
        let allowed = self
            .lanes
            .live_bytes()
            .saturating_mul(2)
            .saturating_add(self.generation_bytes);
        if self.generations.bytes() <= allowed {
            return None;
        }
        let worth = |&(id, bytes): &(u64, u64)| {
            let live = self.lanes.live_in(id);
            id != newest && live.events > 0 && live.bytes * 2 <= bytes && !self.damaged.contains(&id)
        };
        let candidates = self.generations.sizes().filter(worth);
        let (id, _) = candidates.min_by_key(|&(id, _)| self.lanes.live_in(id).bytes)?;
        let needed = self.lanes.live_in(id).bytes + SPARE_BYTES;
        (self.generations.free_bytes() >= needed).then_some(id)
    }

    fn move_some(&mut self, generation: u64, to: u64) -> Result<(), StorageError> {
        let found = (0u32..).zip(self.lanes.iter()).find_map(|(number, state)| {
            let mut extents = state.queue.extents().values();
            Some((number, *extents.find(|extent| extent.generation == generation)?))
        });
        let Some((lane, from)) = found else {
            return Err(StorageError::damaged("no lane knows what is live in it"));
        };
        let Moving {
            mut writes,
            moved,
            rest,
        } = self.read_moving(lane, from, to)?;
        let memo = self.lanes.memo(std::iter::once(lane));
        self.lanes.relocate(lane, from, moved, rest);
        self.lanes.write_changed(&mut writes, &[]);
        let head = Head {
            written: self.head.written + writes.bytes(),
            ..self.head
        };
        writes.set(key::HEAD.to_vec(), &head.encode());
        if let Err(error) = self.generations.commit(writes) {
            // The new generation that follows a failure must say where the events still lie.
            self.lanes.restore(memo);
            return Err(error);
        }
        self.head = head;
        self.dirty_since = None;
        self.lanes.committed(&[], Instant::now());
        self.publish_account();
        self.remove_settled_generations();
        Ok(())
    }

    /// Reads live events from the head of an extent, as many as one step may move, and packs them anew.
    fn read_moving(&mut self, lane: u32, from: Extent, to: u64) -> Result<Moving, StorageError> {
        let mut writes = Writes::default();
        let mut moved: Option<Extent> = None;
        let mut bytes = 0;
        let mut next = self.live_from(lane, from, from.first)?;
        while let Some(seq) = next.filter(|_| bytes < STEP_BYTES) {
            let chunk = self.read_chunk(lane, seq, from.generation)?;
            bytes += chunk.bytes();
            for (label, events) in self.live_runs(&chunk, from) {
                let run = Extent {
                    generation: to,
                    first: label.first,
                    last: label.first + events.len() as u64 - 1,
                    live: events.len() as u64,
                    live_bytes: events.iter().map(|event| event.len() as u64).sum(),
                };
                writes.set_long(
                    key::event(lane, run.first),
                    run.first,
                    chunk::encode(&label, &events),
                );
                moved = Some(moved.map_or(run, |moved| moved.extended(&run)));
            }
            next = self.live_from(lane, from, chunk.end())?;
        }
        let moved = moved.ok_or_else(|| StorageError::damaged("what is live in it is missing"))?;
        let rest = next.map(|first| Extent {
            first,
            live: from.live.saturating_sub(moved.live),
            live_bytes: from.live_bytes.saturating_sub(moved.live_bytes),
            ..from
        });
        let left = rest.map_or(0, |rest| rest.live.max(1));
        if moved.live + left != from.live {
            return Err(StorageError::damaged(
                "it holds more or fewer events than it should",
            ));
        }
        Ok(Moving { writes, moved, rest })
    }

    /// The first live event of an extent that is not below `seq`, which is its beginning or the end of a chunk.
    fn live_from(&mut self, lane: u32, extent: Extent, seq: u64) -> Result<Option<u64>, StorageError> {
        let Some(queue) = self.lanes.get(lane).map(|state| &state.queue) else {
            return Ok(None);
        };
        let open = queue.open_from(seq);
        let unread = match queue.unread() {
            Some(unread) if unread < seq && seq <= extent.last => self.following(lane, extent, seq)?,
            unread => unread.filter(|&unread| unread >= seq),
        };
        let first = [open, unread].into_iter().flatten().min();
        Ok(first.filter(|&first| first <= extent.last))
    }

    /// The live events of a chunk within an extent, in runs without a gap.
    fn live_runs(&self, chunk: &Chunk, extent: Extent) -> Vec<(Label, Vec<bytes::Bytes>)> {
        let Some(queue) = self.lanes.get(chunk.label.lane).map(|state| &state.queue) else {
            return Vec::new();
        };
        let mut runs: Vec<(Label, Vec<bytes::Bytes>)> = Vec::new();
        let within = chunk.label.first.max(extent.first)..chunk.end().min(extent.last + 1);
        for seq in within.filter(|&seq| queue.is_live(seq)) {
            let Some(event) = chunk.event(seq) else { continue };
            match runs.last_mut() {
                Some((label, events)) if label.first + events.len() as u64 == seq => events.push(event),
                _ => runs.push((
                    Label {
                        first: seq,
                        ..chunk.label
                    },
                    vec![event],
                )),
            }
        }
        runs
    }
}
