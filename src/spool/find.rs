//! Finds what is queued of one task.
//!
//! The queue has no index by task, so all that is live is read: sealed generations from their files, which never change, by the
//! thread that asks; the newest one in small portions by the owning thread, which does other work in between. What is found
//! is then looked up in the lanes, because it may have ended meanwhile.
//!
//! An event that is moved to the newest generation while this goes on is found there, for that one is read last. Memory: one
//! generation's places at a time, and one portion.
use super::chunk::Chunk;
use super::command::Command;
use super::durable::StorageError;
use super::meta::Extent;
use super::owner::Owner;
use super::sealed::{Sealed, Source};
use super::{Inner, Spool};
use crate::event;
use crate::ids::{Lane, Seq, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// Chunks, and bytes of them, that the owning thread reads before others get their turn.
const PORTION_CHUNKS: usize = 16;
const PORTION_BYTES: usize = 256 * 1024;

/// An event that is queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it goes.
    pub lane: Lane,
    /// Its place in the order of acceptance.
    pub seq: Seq,
    /// The generation that it lies in.
    pub generation: u64,
    /// Wall clock at its acceptance, milliseconds since 1970.
    pub accepted_at_ms: u64,
    /// It is with its courier: being sent or confirmed, or held for its next try.
    pub leased: bool,
    /// Events of the lane before it that have not ended.
    pub ahead: u64,
}

/// What was found of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of acceptance.
    pub places: Vec<Place>,
    /// Events that could not be read, and may be of the task.
    pub unreadable: u64,
}

/// Why nothing can be said.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FindError {
    /// The spool is shutting down.
    #[error("the daemon is shutting down: ask again in a moment")]
    Closed,
    /// The thread that looked failed.
    #[error("looking through the queue failed: {0}: report this")]
    Failed(String),
}

/// Where everything lies that has not ended.
pub(super) struct Layout {
    newest: Option<u64>,
    rows: Vec<Row>,
    /// Where the generations lie that are not the newest.
    sealed: BTreeMap<u64, PathBuf>,
}

struct Row {
    number: u32,
    unread: Option<u64>,
    extents: Vec<Extent>,
}

/// Some chunks of a lane, and where to read on.
pub(super) struct Portion {
    chunks: Vec<Chunk>,
    next: Option<u64>,
}

/// How an event stands.
pub(super) struct Standing {
    lane: Lane,
    generation: u64,
    leased: bool,
    /// Events before it, but for those in its own extent that were never leased.
    before: u64,
}

impl Spool {
    /// Finds what is queued of a task. Reads the whole backlog, so one at a time is enough. A look that nobody waits for any
    /// more ends soon.
    pub async fn find(&self, task: &TaskId) -> Result<Found, FindError> {
        let stop = StopOnDrop::default();
        let (search, flag) = (Search::new(Arc::clone(&self.inner), task.clone()), stop.flag());
        match tokio::task::spawn_blocking(move || search.run(&flag)).await {
            Ok(found) => found.ok_or(FindError::Closed),
            Err(fault) => Err(FindError::Failed(fault.to_string())),
        }
    }
}

#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An event whose task is the wanted one.
struct Hit {
    accepted_at_ms: u64,
    /// Events of its extent before it that were never leased.
    unread_before: u64,
}

struct Search {
    spool: Arc<Inner>,
    task: TaskId,
    /// By lane and sequence.
    hits: BTreeMap<(u32, u64), Hit>,
    read: BTreeSet<u64>,
    /// Generations that could not be opened, and events in chunks that could not be read.
    unopened: BTreeSet<u64>,
    unreadable: u64,
}

/// The look is over: nobody waits for it, or the spool is closed.
struct Over;

impl Search {
    fn new(spool: Arc<Inner>, task: TaskId) -> Search {
        Search {
            spool,
            task,
            hits: BTreeMap::new(),
            read: BTreeSet::new(),
            unopened: BTreeSet::new(),
            unreadable: 0,
        }
    }

    /// `None` if the spool is closed, or nobody waits any more.
    fn run(mut self, stop: &AtomicBool) -> Option<Found> {
        self.search(stop).ok()
    }

    fn search(&mut self, stop: &AtomicBool) -> Result<Found, Over> {
        // Generations are sealed and emptied meanwhile, so each time it is asked anew which there are.
        let layout = loop {
            let layout = self.ask(|reply| Command::Layout { reply })?;
            let next = layout.sealed.iter().find(|(id, _)| !self.read.contains(id));
            let Some((&id, path)) = next else { break layout };
            self.read.insert(id);
            self.read_sealed(&layout, id, path.join("db"), stop)?;
        };
        self.read_newest(&layout, stop)?;
        for (id, extent) in layout.extents() {
            if self.unopened.contains(&id) {
                self.unreadable += extent.live;
            }
        }
        let mut found = Found {
            places: Vec::new(),
            unreadable: self.unreadable,
        };
        for ((lane, seq), hit) in std::mem::take(&mut self.hits) {
            let standing = self.ask(|reply| Command::Standing { lane, seq, reply })?;
            found.places.extend(standing.map(|standing| Place {
                lane: standing.lane,
                seq: Seq(seq),
                generation: standing.generation,
                accepted_at_ms: hit.accepted_at_ms,
                leased: standing.leased,
                ahead: standing.before + hit.unread_before,
            }));
        }
        found.places.sort_by_key(|place| place.seq);
        Ok(found)
    }

    fn read_sealed(&mut self, layout: &Layout, id: u64, db: PathBuf, stop: &AtomicBool) -> Result<(), Over> {
        let Ok(sealed) = Sealed::open(&db) else {
            // Or emptied and deleted since.
            self.unopened.insert(id);
            return Ok(());
        };
        for row in &layout.rows {
            for extent in row.extents.iter().filter(|extent| extent.generation == id) {
                let mut unread_before = 0;
                for (first, end) in sealed.chunks(row.number, extent.first, extent.last) {
                    if stop.load(Ordering::Relaxed) {
                        return Err(Over);
                    }
                    match Source::Sealed(&sealed).chunk(row.number, first) {
                        Ok(chunk) => self.look(row, extent, &chunk, &mut unread_before),
                        Err(_) => self.unreadable += end - first,
                    }
                }
            }
        }
        Ok(())
    }

    fn read_newest(&mut self, layout: &Layout, stop: &AtomicBool) -> Result<(), Over> {
        for row in &layout.rows {
            let lane = row.number;
            for extent in row
                .extents
                .iter()
                .filter(|extent| Some(extent.generation) == layout.newest)
            {
                let (mut from, mut unread_before) = (Some(extent.first), 0);
                while let Some(first) = from {
                    if stop.load(Ordering::Relaxed) {
                        return Err(Over);
                    }
                    let last = extent.last;
                    let read = self.ask(|reply| Command::ReadOn {
                        lane,
                        from: first,
                        last,
                        reply,
                    })?;
                    let Ok(portion) = read else {
                        self.unreadable += extent.live;
                        break;
                    };
                    for chunk in &portion.chunks {
                        self.look(row, extent, chunk, &mut unread_before);
                    }
                    from = portion.next;
                }
            }
        }
        Ok(())
    }

    /// Notes the task's events in a chunk. `unread_before` counts on.
    fn look(&mut self, row: &Row, extent: &Extent, chunk: &Chunk, unread_before: &mut u64) {
        let (from, end) = (
            chunk.label.first.max(extent.first),
            chunk.end().min(extent.last + 1),
        );
        let unread = |before: u64| {
            row.unread
                .map_or(0, |first| before.saturating_sub(first.max(from)))
        };
        for seq in from..end {
            let task = chunk.event(seq).and_then(|record| event::task_of(&record));
            if task.as_ref() == Some(&self.task) {
                let hit = Hit {
                    accepted_at_ms: chunk.label.accepted_at_ms,
                    unread_before: *unread_before + unread(seq),
                };
                self.hits.insert((row.number, seq), hit);
            }
        }
        *unread_before += unread(end);
    }

    fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Over> {
        let (reply, answer) = oneshot::channel();
        let sent = self.spool.commands.blocking_send(command(reply));
        sent.map_err(|_| Over)?;
        answer.blocking_recv().map_err(|_| Over)
    }
}

impl Layout {
    fn extents(&self) -> impl Iterator<Item = (u64, &Extent)> {
        let extents = self.rows.iter().flat_map(|row| &row.extents);
        extents.map(|extent| (extent.generation, extent))
    }
}

impl Owner {
    /// Where everything lies that has not ended.
    pub(super) fn layout(&self) -> Layout {
        let rows = (0u32..).zip(self.lanes.iter()).map(|(number, state)| Row {
            number,
            unread: state.queue.unread(),
            extents: state.queue.extents().values().copied().collect(),
        });
        let rows: Vec<Row> = rows.filter(|row| !row.extents.is_empty()).collect();
        let newest = self.generations.newest();
        let others = self.lanes.generations().filter(|&id| Some(id) != newest);
        let sealed = others.map(|id| (id, self.generations.path(id))).collect();
        Layout { newest, rows, sealed }
    }

    /// Reads some chunks of a lane, from the one that holds `from` on, and none beyond `last`.
    pub(super) fn read_on(&mut self, lane: u32, from: u64, last: u64) -> Result<Portion, StorageError> {
        let place = self.lanes.get(lane).and_then(|state| state.queue.place(from));
        let mut portion = Portion {
            chunks: Vec::new(),
            next: None,
        };
        let Some(extent) = place else {
            // All of it has ended by now.
            return Ok(portion);
        };
        self.look_twice(extent.generation, |source| {
            let mut next = match source.floor(lane, from)? {
                Some(first) if source.chunk(lane, first)?.end() > from => Some(first),
                _ => source.ceiling(lane, from)?,
            };
            let (mut chunks, mut bytes) = (Vec::new(), 0);
            while let Some(first) = next.filter(|&first| first <= last)
                && chunks.len() < PORTION_CHUNKS
                && bytes < PORTION_BYTES
            {
                let chunk = source.chunk(lane, first)?;
                bytes += chunk.bytes();
                next = source.ceiling(lane, chunk.end())?;
                chunks.push(chunk);
            }
            portion.next = next.filter(|&first| first <= last);
            portion.chunks = chunks;
            Ok(())
        })?;
        Ok(portion)
    }

    /// How an event stands; `None` if it has ended.
    pub(super) fn standing(&self, lane: u32, seq: u64) -> Option<Standing> {
        let state = self.lanes.get(lane)?;
        let generation = state.queue.place(seq)?.generation;
        let (leased, before) = state.queue.standing(seq)?;
        Some(Standing {
            lane: state.lane.clone(),
            generation,
            leased,
            before,
        })
    }
}
