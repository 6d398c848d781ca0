//! Damage that is met while running: what is intact in the generation is moved to the newest, what is not is counted lost, and
//! the folder is set aside. Only lanes that have something in it notice.
use super::dropping::Dropping;
use super::durable::{StorageError, Writes};
use super::key;
use super::meta::Head;
use super::owner::Owner;
use super::queue::LaneQueue;
use super::read::ChunkCache;
use super::salvage::{Laying, report, set_aside, settle_account};
use super::scan::Scan;
use super::sealed::Source;
use std::collections::BTreeSet;
use std::time::Instant;

/// What becomes of a lane whose events in a damaged generation were laid into the newest.
struct Laid {
    lane: u32,
    queue: LaneQueue,
    /// Events that were intact.
    saved: u64,
    /// Bytes that were written.
    written: u64,
}

impl Owner {
    /// Reads from a generation, and once more from the bytes of its file if that shows damage. If it still does, the
    /// generation is salvaged before long.
    pub(super) fn look_twice<T>(
        &mut self,
        generation: u64,
        mut look: impl FnMut(&Source) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        match self.look(generation, &mut look) {
            Err(error) if error.damage && !self.damaged.contains(&generation) => {
                // Also the newest: the next commit begins another.
                self.generations.close_one(generation);
                let again = self.look(generation, &mut look);
                if again.as_ref().is_err_and(|error| error.damage) {
                    tracing::error!(generation, %error, "a generation is damaged: salvaging it");
                    self.damaged.insert(generation);
                }
                again
            }
            looked => looked,
        }
    }

    fn look<T>(
        &mut self,
        generation: u64,
        look: &mut impl FnMut(&Source) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let is_new = self.generations.open_sealed(generation)?;
        let source = self.generations.source(generation)?;
        if let Source::Sealed(sealed) = &source
            && is_new
        {
            // One that is missing between two others would never be missed.
            let found = |queue: &LaneQueue, lane, first, last: u64| -> u64 {
                let chunks = sealed.chunks(lane, first, last);
                chunks
                    .map(|(start, end)| queue.live_within(start.max(first), end.min(last + 1)))
                    .sum()
            };
            let missing = (0u32..).zip(self.lanes.iter()).any(|(lane, state)| {
                let extents = state.queue.extents().values();
                extents
                    .filter(|extent| extent.generation == generation)
                    .any(|extent| found(&state.queue, lane, extent.first, extent.last) != extent.live)
            });
            if missing {
                self.generations.close_one(generation);
                return Err(StorageError::damaged("some of its events are missing"));
            }
        }
        look(&source)
    }

    /// Salvages the generations that turned out to be damaged.
    pub(super) fn salvage_damaged(&mut self, now: Instant) {
        while self.failure.is_none()
            && let Some(id) = self.damaged.first().copied()
        {
            match self.salvage_one(id, now) {
                Ok(()) => {
                    self.damaged.remove(&id);
                }
                Err(error) => {
                    self.fail(error, now);
                }
            }
        }
    }

    /// Blocks the thread for as long as it takes to read and write what is live in one generation.
    fn salvage_one(&mut self, id: u64, now: Instant) -> Result<(), StorageError> {
        self.generations.close_one(id);
        let to = self.writable_generation(Dropping::ForAppends)?;
        let scans = self.generations.scan(id)?;
        let gone = BTreeSet::from([id]);
        let lanes = self.lanes.in_generation(id);
        let mut laid = Vec::new();
        for &lane in &lanes {
            laid.extend(self.lay_known(lane, to, &gone, &scans, now)?);
        }
        let saved = laid.iter().map(|laid| laid.saved).sum();
        let written: u64 = laid.iter().map(|laid| laid.written).sum();
        let memo = self.lanes.memo(lanes.iter().copied());
        for Laid { lane, queue, .. } in laid {
            self.lanes.replace(lane, queue);
        }
        let mut writes = Writes::default();
        self.lanes.write_changed(&mut writes, &[]);
        let mut head = Head {
            written: self.head.written + written + writes.bytes(),
            ..self.head
        };
        settle_account(&mut head, self.lanes.live(), saved);
        writes.set(key::HEAD.to_vec(), &head.encode());
        if let Err(error) = self.generations.commit(writes) {
            self.lanes.restore(memo);
            return Err(error);
        }
        report(&gone, &self.head, &head);
        self.head = head;
        self.mark.write(to, &self.head);
        self.dirty_since = None;
        self.lanes.committed(&[], now);
        self.cache = ChunkCache::default();
        self.unread_reason = None;
        set_aside(&mut self.generations, &self.quarantine, &gone);
        self.publish_account();
        self.publish_damage();
        self.publish_lanes(lanes);
        Ok(())
    }

    /// Writes what is intact of a lane's events in a generation that goes.
    fn lay_known(
        &mut self,
        lane: u32,
        to: u64,
        gone: &BTreeSet<u64>,
        scans: &[Scan],
        now: Instant,
    ) -> Result<Option<Laid>, StorageError> {
        let Some(state) = self.lanes.get(lane) else {
            return Ok(None);
        };
        let mut laying = Laying::new(lane, &state.lane, &state.queue, to, gone).of_known(&state.queue);
        for (sealed, chunk) in chunks_of(scans, lane) {
            laying.lay(sealed, &chunk);
            if laying.is_full() {
                self.generations.commit(laying.writes().unwrap_or_default())?;
            }
        }
        if let Some(writes) = laying.writes() {
            self.generations.commit(writes)?;
        }
        Ok(Some(Laid {
            lane,
            saved: laying.saved,
            written: laying.written,
            queue: laying.finish(&state.queue, now),
        }))
    }
}

/// The intact chunks of a lane, in their order.
fn chunks_of(scans: &[Scan], lane: u32) -> impl Iterator<Item = (Vec<u8>, super::chunk::Chunk)> {
    let firsts: BTreeSet<u64> = scans
        .iter()
        .flat_map(|scan| scan.chunks.range((lane, 0)..=(lane, u64::MAX)))
        .map(|((_, first), _)| *first)
        .collect();
    firsts.into_iter().filter_map(move |first| {
        scans
            .iter()
            .find_map(|scan| scan.chunk(scan.chunks.get(&(lane, first))?))
    })
}
