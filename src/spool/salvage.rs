//! Salvage: what a raw scan found in damaged generations is carried over into a new one, which begins only when all of
//! it is there. Killed before that, nothing has happened; killed after it, only the quarantine is still to be done.
use super::chunk::{self, Chunk, Label};
use super::durable::{Database, StorageError, Writes};
use super::generation::Generations;
use super::lanes::{Lanes, write_lane};
use super::meta::{Cursor, Extent, Head};
use super::queue::LaneQueue;
use super::scan::{Scan, Spot};
use super::{key, quarantine::Quarantine};
use crate::ids::{Kind, Lane, ProjectId};
use crate::wire::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Bytes that are written at once.
const COMMIT_BYTES: u64 = 4 * 1024 * 1024;

/// Chunks of a lane by first sequence: which scan found it, and where.
type Finds<'a> = BTreeMap<u64, (&'a Scan, &'a [Spot])>;

/// How all stands once it is carried over.
struct Carried {
    queues: Vec<LaneQueue>,
    head: Head,
}

/// Begins a generation that holds all that is live in `scans` and not in a generation outside of `gone`. `head` says
/// what must have been there. `names` are those of lanes whose numbers in the scans are not the ones in `lanes`.
pub(super) fn carry_over(
    generations: &mut Generations,
    lanes: &mut Lanes,
    head: Head,
    scans: &[Scan],
    names: &BTreeMap<u32, Lane>,
    gone: &BTreeSet<u64>,
) -> Result<Head, StorageError> {
    let finds = sort_out(lanes, scans, names);
    let now = Instant::now();
    let carried = generations.begin_filled(|db, generation| {
        let mut carried = Carried {
            queues: Vec::new(),
            head: Head { written: 0, ..head },
        };
        let (mut saved, mut beyond) = (0, 0);
        for (number, state) in (0u32..).zip(lanes.iter()) {
            let none = Finds::new();
            let mut laying = Laying::new(number, &state.lane, &state.queue, generation, gone);
            for (scan, spots) in finds.get(&number).unwrap_or(&none).values() {
                if let Some((sealed, chunk)) = scan.chunk(spots) {
                    laying.lay(sealed, &chunk);
                }
                if laying.is_full() {
                    laying.flush(db)?;
                }
            }
            laying.flush(db)?;
            saved += laying.saved;
            beyond += laying.taken_from(head.next_seq);
            carried.head.next_seq = carried.head.next_seq.max(laying.covered);
            carried.head.written += laying.written;
            carried.queues.push(laying.finish(&state.queue, now));
        }
        let live = carried.queues.iter().map(LaneQueue::live).sum();
        carried.head.accepted += beyond;
        settle_account(&mut carried.head, live, saved);
        let mut snapshot = Writes::default();
        for ((number, state), queue) in (0u32..).zip(lanes.iter()).zip(&carried.queues) {
            write_lane(&mut snapshot, number, &state.lane, queue);
        }
        carried.head.written += snapshot.bytes();
        snapshot.set(key::HEAD.to_vec(), &carried.head.encode());
        Ok((snapshot, carried))
    })?;
    for (number, queue) in (0u32..).zip(carried.queues) {
        lanes.replace(number, queue);
    }
    // The snapshot said it all.
    lanes.committed(&[], now);
    Ok(carried.head)
}

/// Makes the account balance. What was accepted and is neither live nor known to have ended is lost, and counts as dropped. What
/// is live although it is counted as ended will be delivered again, so it has not been yet.
pub(super) fn settle_account(head: &mut Head, live: u64, saved: u64) {
    let lost = head.queued().saturating_sub(live);
    let again = live.saturating_sub(head.queued());
    let undelivered = again.min(head.delivered);
    head.delivered -= undelivered;
    head.accepted += again - undelivered;
    head.dropped += lost;
    head.lost += lost;
    head.saved += saved;
}

/// Which chunks belong to which lane. One whose lane's name was not found tells it by its first event.
fn sort_out<'a>(
    lanes: &mut Lanes,
    scans: &'a [Scan],
    names: &BTreeMap<u32, Lane>,
) -> BTreeMap<u32, Finds<'a>> {
    let mut finds: BTreeMap<u32, Finds> = BTreeMap::new();
    let mut numbers: BTreeMap<(usize, u32), Option<u32>> = BTreeMap::new();
    for (at, scan) in scans.iter().enumerate() {
        for ((lane, first), spots) in &scan.chunks {
            let number = *numbers.entry((at, *lane)).or_insert_with(|| {
                let named = names.get(lane).and_then(|name| lanes.number(name));
                let same = || {
                    names
                        .is_empty()
                        .then(|| lanes.get(*lane).map(|_| *lane))
                        .flatten()
                };
                named
                    .or_else(same)
                    .or_else(|| Some(lanes.number_or_new(&lane_of(&scan.chunk(spots)?.1)?)))
            });
            if let Some(number) = number {
                finds.entry(number).or_default().insert(*first, (scan, spots));
            }
        }
    }
    finds
}

/// The lane of a chunk, by what its first event says.
fn lane_of(chunk: &Chunk) -> Option<Lane> {
    let event = chunk.event(chunk.label.first)?;
    let project = json::text_of(json::field(&event, "project_id")?)?;
    Some(Lane {
        project: ProjectId::new(&project).ok()?,
        kind: chunk.label.kind,
    })
}

/// Chunks of one lane on their way into another generation, in their order.
pub(super) struct Laying {
    lane: u32,
    kind: Kind,
    generation: u64,
    cursor: Cursor,
    /// What lies in generations that stay.
    kept: BTreeMap<u64, Extent>,
    /// If given: nothing outside of these is wanted.
    known: Option<BTreeMap<u64, Extent>>,
    laid: BTreeMap<u64, Extent>,
    last: Option<Extent>,
    /// Events that were leased before, of those that were found.
    open: BTreeSet<u64>,
    /// Found events, in the order of their sequences: only the runs of them.
    runs: Vec<(u64, u64)>,
    /// Everything below was seen.
    covered: u64,
    pub(super) saved: u64,
    pub(super) written: u64,
    writes: Writes,
}

impl Laying {
    /// For all that is live of a lane and lies in none of the generations that stay.
    pub(super) fn new(
        lane: u32,
        name: &Lane,
        queue: &LaneQueue,
        generation: u64,
        gone: &BTreeSet<u64>,
    ) -> Laying {
        let stays = |extent: &&Extent| !gone.contains(&extent.generation);
        Laying {
            lane,
            kind: name.kind,
            generation,
            cursor: queue.cursor(None),
            kept: queue
                .extents()
                .values()
                .filter(stays)
                .map(|extent| (extent.first, *extent))
                .collect(),
            known: None,
            laid: BTreeMap::new(),
            last: None,
            open: BTreeSet::new(),
            runs: Vec::new(),
            covered: 0,
            saved: 0,
            written: 0,
            writes: Writes::default(),
        }
    }

    /// For what the lane knows to lie in the generations that go, and nothing else.
    pub(super) fn of_known(self, queue: &LaneQueue) -> Laying {
        let extents = queue.extents().iter();
        let known = extents.filter(|(first, _)| !self.kept.contains_key(first));
        Laying {
            known: Some(known.map(|(&first, &extent)| (first, extent)).collect()),
            ..self
        }
    }

    fn is_kept(&self, seq: u64) -> bool {
        covers(&self.kept, seq)
    }

    fn is_wanted(&self, seq: u64) -> bool {
        !self.is_kept(seq) && self.known.as_ref().is_none_or(|known| covers(known, seq))
    }

    /// Takes a chunk over, as far as it is wanted.
    pub(super) fn lay(&mut self, sealed: Vec<u8>, chunk: &Chunk) {
        let first = chunk.label.first;
        let new: Vec<u64> = (first.max(self.covered)..chunk.end())
            .filter(|&seq| self.is_wanted(seq))
            .collect();
        let is_whole = new.len() as u64 == chunk.end() - first && chunk.label.lane == self.lane;
        self.covered = self.covered.max(chunk.end());
        let live: Vec<u64> = new.into_iter().filter(|&seq| self.cursor.is_live(seq)).collect();
        if live.is_empty() {
            return;
        }
        match is_whole {
            true => self.writes.set_long(key::event(self.lane, first), first, sealed),
            false => self.lay_parts(chunk, &live),
        }
        for seq in live {
            self.add(seq, chunk.event(seq).map_or(0, |event| event.len() as u64));
        }
    }

    /// Makes chunks of what is live in one.
    fn lay_parts(&mut self, chunk: &Chunk, live: &[u64]) {
        for run in live.chunk_by(|a, b| a + 1 == *b) {
            let label = Label {
                lane: self.lane,
                kind: self.kind,
                first: run[0],
                ..chunk.label
            };
            let events: Vec<_> = run.iter().filter_map(|&seq| chunk.event(seq)).collect();
            let sealed = chunk::encode(&label, &events);
            self.writes
                .set_long(key::event(self.lane, run[0]), run[0], sealed);
        }
    }

    /// Adds a live event to the extents. One that begins with the first unread event tells where that is.
    fn add(&mut self, seq: u64, bytes: u64) {
        self.saved += 1;
        if seq < self.cursor.next {
            self.open.insert(seq);
        }
        match self.runs.last_mut() {
            Some((_, end)) if *end == seq => *end += 1,
            _ => self.runs.push((seq, seq + 1)),
        }
        let one = Extent {
            generation: self.generation,
            first: seq,
            last: seq,
            live: 1,
            live_bytes: bytes,
        };
        let extent = match self.last {
            Some(last) if self.follows(&last, seq) => last.extended(&one),
            _ => one,
        };
        self.laid.insert(extent.first, extent);
        self.last = Some(extent);
    }

    fn follows(&self, last: &Extent, seq: u64) -> bool {
        let crosses = (last.last < self.cursor.next) != (seq < self.cursor.next);
        !crosses && self.kept.range(last.last..seq).next().is_none()
    }

    /// How many of the found events have a sequence from `seq` on.
    fn taken_from(&self, seq: u64) -> u64 {
        let above = self
            .runs
            .iter()
            .map(|&(start, end)| end.saturating_sub(start.max(seq)));
        above.sum()
    }

    fn flush(&mut self, db: &mut Database) -> Result<(), StorageError> {
        self.writes().map_or(Ok(()), |writes| db.commit(writes))
    }

    /// What is to be written, if there is any.
    pub(super) fn writes(&mut self) -> Option<Writes> {
        self.written += self.writes.bytes();
        (self.writes.bytes() > 0).then(|| std::mem::take(&mut self.writes))
    }

    /// It is time to write.
    pub(super) fn is_full(&self) -> bool {
        self.writes.bytes() >= COMMIT_BYTES
    }

    /// The lane with what stays and what was found.
    pub(super) fn finish(self, queue: &LaneQueue, now: Instant) -> LaneQueue {
        let is_there = |seq: u64| self.open.contains(&seq) || self.is_kept(seq);
        let mut extents = self.kept.clone();
        extents.extend(&self.laid);
        queue.rebuilt(extents, is_there, now)
    }
}

fn covers(extents: &BTreeMap<u64, Extent>, seq: u64) -> bool {
    let before = extents.range(..=seq).next_back();
    before.is_some_and(|(_, extent)| seq <= extent.last)
}

/// Sets damaged generations aside. One that cannot be moved now is moved at the next start.
pub(super) fn set_aside(generations: &mut Generations, quarantine: &Quarantine, damaged: &BTreeSet<u64>) {
    for &id in damaged {
        match generations.set_aside(id, quarantine) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(generation = id, %error, "a damaged generation could not be moved to quarantine/: it is tried at the next start");
            }
        }
    }
}

/// Tells what came of it.
pub(super) fn report(damaged: &BTreeSet<u64>, before: &Head, after: &Head) {
    let (saved, lost) = (after.saved - before.saved, after.lost - before.lost);
    tracing::error!(
        generations = ?damaged, saved, lost,
        "the spool was damaged: what could be read was carried over, and the damaged folders are in quarantine/ under spool.path, to be looked at or deleted"
    );
}
