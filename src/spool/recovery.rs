//! Opening: from a data folder to an [`Owner`] that is ready to run. Reads only the newest generation, so that
//! the time does not depend on the backlog, unless that one is damaged or its tail was cut.
use super::command::Command;
use super::dead::DeadLetters;
use super::disk::{Disk, sync_folder};
use super::drop_log::DropLog;
use super::durable::{Database, StorageError, Writes};
use super::generation::Generations;
use super::lanes::Lanes;
use super::lease::Abandoned;
use super::mark::{Mark, MarkFile};
use super::meta::{Cursor, Extent, Head, decode_lane};
use super::owner::Owner;
use super::quarantine::Quarantine;
use super::queue::LaneQueue;
use super::read::ChunkCache;
use super::requeue::{self, Note};
use super::room::Room;
use super::salvage::{carry_over, report, set_aside};
use super::scan::{Scan, merge_cursor};
use super::view::Shared;
use super::{OpenError, Settings, key, lock, migrate};
use crate::ids::Lane;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::{Receiver, WeakSender};
use tokio::sync::watch;

/// Opens or makes the data folder. Blocking.
pub(super) fn open(
    settings: &Settings,
    disk: &Disk,
    shared: &Arc<Shared>,
    commands: Receiver<Command>,
    wake: WeakSender<Command>,
) -> Result<Owner, OpenError> {
    let (lock, format) = lock::take(&settings.path)?;
    // Before anything is opened, which takes some space: a full disk gets it from the ballast.
    let room = Room::new(settings, disk);
    let damaged = |error: StorageError| OpenError::Storage {
        path: settings.path.clone(),
        reason: error.to_string(),
    };
    migrate::bring_up(settings, disk, format, &mut |_| Ok(())).map_err(damaged)?;
    let folder = settings.path.join("spool");
    lock::make_folder(&folder).map_err(|error| damaged(error.into()))?;
    sync_folder(&settings.path).map_err(|error| damaged(error.into()))?;
    let mut generations = Generations::list(folder, disk).map_err(damaged)?;
    let now = Instant::now();
    let mut mark = MarkFile::open(&settings.path);
    let quarantine = Quarantine::of(&settings.path);
    let marked = mark.read(!generations.present().is_empty());
    let (mut head, lanes, requeued) = recover(&mut generations, marked, &quarantine, now).map_err(damaged)?;
    if let Some(newest) = generations.newest() {
        mark.write(newest, &head);
        mark.sync();
    }
    if head.accepted > 0 {
        // Sealed by the first commit: a generation is written by one process only. What a killed one left behind its last
        // commit thus stands behind all that is counted there, and no later event bears the same number in the same file.
        head.written = head.written.max(settings.generation_bytes);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| damaged(error.into()))?;
    let mut owner = Owner {
        commands,
        runtime,
        disk: disk.clone(),
        shared: Arc::clone(shared),
        views: watch::Sender::new(Arc::default()),
        abandoned: Arc::new(Abandoned::new(wake, head.next_seq)),
        generations,
        dead: DeadLetters::new(settings, disk, head.uncounted_from),
        requeued: Note::of(requeued),
        mark,
        quarantine,
        lanes,
        head,
        room,
        generation_bytes: settings.generation_bytes,
        drop_log: DropLog::default(),
        cache: ChunkCache::default(),
        funerals: Vec::new(),
        failure: None,
        dead_failure: None,
        dirty_since: None,
        dead_check_at: now,
        unread_reason: None,
        damaged: BTreeSet::new(),
        moving: false,
        shown: 0,
        lock,
    };
    owner.remove_settled_generations();
    owner.room.prepare(now);
    owner.publish_refusal();
    owner.settle_letters();
    owner.publish_account();
    owner.publish_damage();
    owner.lanes.introduce_to(&shared.projects);
    owner.publish_lanes(0..owner.lanes.len() as u32);
    tracing::info!(
        path = %settings.path.display(),
        queued = owner.lanes.live(),
        bytes = owner.lanes.live_bytes(),
        lanes = owner.lanes.len(),
        generations = owner.generations.present().len(),
        quarantined = owner.quarantine.names().len(),
        "the spool is open"
    );
    Ok(owner)
}

/// What a generation says about the spool.
struct Base {
    /// `None`: nothing was ever begun, or nothing of it can be read.
    generation: Option<(u64, Database)>,
    state: State,
    /// Newer generations, which cannot be read.
    damaged: BTreeSet<u64>,
}

/// How the spool stood.
#[derive(Clone)]
struct State {
    head: Head,
    names: BTreeMap<u32, Lane>,
    cursors: BTreeMap<u32, Cursor>,
    extents: BTreeMap<u32, BTreeMap<u64, Extent>>,
    requeued: BTreeSet<u64>,
}

impl State {
    fn empty() -> State {
        State {
            head: Head {
                next_seq: 1,
                uncounted_from: 1,
                ..Head::default()
            },
            names: BTreeMap::new(),
            cursors: BTreeMap::new(),
            extents: BTreeMap::new(),
            requeued: BTreeSet::new(),
        }
    }

    /// Extents, with their lanes.
    fn all(&self) -> impl Iterator<Item = (u32, &Extent)> {
        let rows = self.extents.iter();
        rows.flat_map(|(&lane, row)| row.values().map(move |extent| (lane, extent)))
    }

    fn lanes(&self, now: Instant) -> Lanes {
        let mut lanes = Lanes::default();
        for (number, name) in &self.names {
            let cursor = self.cursors.get(number).cloned().unwrap_or_default();
            let extents = self.extents.get(number).cloned().unwrap_or_default();
            lanes.recover(name.clone(), LaneQueue::recovered(cursor, extents, now));
        }
        lanes
    }
}

/// From what is on disk to a spool that takes writes. What is damaged is salvaged first.
fn recover(
    generations: &mut Generations,
    mark: Option<Mark>,
    quarantine: &Quarantine,
    now: Instant,
) -> Result<(Head, Lanes, BTreeSet<u64>), StorageError> {
    generations.begin_from(mark.map_or(0, |mark| mark.generation + 1));
    let base = find_base(generations)?;
    let own = base.generation.as_ref().map_or(0, |(id, _)| *id);
    let behind = mark.filter(|mark| is_behind(own, &base.state.head, mark));
    let mut damaged = base.damaged;
    if own != 0 && behind.is_none() {
        generations.release(own)?;
    }
    let in_use: BTreeSet<u64> = base.state.all().map(|(_, extent)| extent.generation).collect();
    damaged.extend(in_use.iter().filter(|&&id| generations.is_damaged(id)));
    let missing = in_use.iter().any(|id| !generations.present().contains(id));
    match base.generation {
        Some((id, db)) if damaged.is_empty() && behind.is_none() && !missing => {
            resume(generations, id, db, &base.state.head)?;
            let lanes = base.state.lanes(now);
            return Ok((base.state.head, lanes, base.state.requeued));
        }
        None if damaged.is_empty() && behind.is_none() => {
            let mut writes = Writes::default();
            writes.set(key::HEAD.to_vec(), &base.state.head.encode());
            generations.begin(writes)?;
            return Ok((base.state.head, Lanes::default(), BTreeSet::new()));
        }
        // Closed: what is salvaged is read without sled.
        _ => {}
    }
    if own != 0 && behind.is_some_and(|mark| mark.generation == own) {
        damaged.insert(own);
    }
    let requeued = base.state.requeued.clone();
    let (head, lanes) = salvage(generations, base.state, own, behind, damaged, quarantine)?;
    Ok((head, lanes, requeued))
}

/// Whether the newest generation says less than was durable once.
fn is_behind(generation: u64, head: &Head, mark: &Mark) -> bool {
    generation < mark.generation || (generation == mark.generation && mark.head.is_after(head))
}

fn resume(generations: &mut Generations, id: u64, mut db: Database, head: &Head) -> Result<(), StorageError> {
    // What was read may not be durable yet, if the process was killed before its sync.
    let mut writes = Writes::default();
    writes.set(key::HEAD.to_vec(), &head.encode());
    db.commit(writes)?;
    db.mark_begun()?;
    generations.resume(id, db);
    Ok(())
}

/// Finds the newest generation that can be read. Those that were never finished are removed.
fn find_base(generations: &mut Generations) -> Result<Base, StorageError> {
    let present: Vec<u64> = generations.present().iter().rev().copied().collect();
    let mut damaged = BTreeSet::new();
    for id in present {
        let begun = generations.was_begun(id);
        generations.keep(id);
        let read = match generations.is_damaged(id) {
            true => Err(StorageError::damaged("it was found damaged before")),
            false => generations.open(id).and_then(|db| Ok((read_state(&db)?, db))),
        };
        match read {
            Ok((Some(state), db)) => {
                return Ok(Base {
                    generation: Some((id, db)),
                    state,
                    damaged,
                });
            }
            // Cut off while it was being made: nothing in it was ever acknowledged.
            Ok((None, _)) | Err(_) if !begun => generations.remove(id)?,
            Err(error) if !error.damage => return Err(error),
            Ok((None, _)) => note_damage(&mut damaged, id, "its head is gone"),
            Err(error) => note_damage(&mut damaged, id, &error.to_string()),
        }
    }
    Ok(Base {
        generation: None,
        state: State::empty(),
        damaged,
    })
}

fn note_damage(damaged: &mut BTreeSet<u64>, id: u64, reason: &str) {
    tracing::error!(generation = id, reason, "a generation is damaged: salvaging it");
    damaged.insert(id);
}

fn unreadable(what: &str, error: super::codec::CodecError) -> StorageError {
    StorageError::damaged(format!("a {what} cannot be read: {error}"))
}

/// What a generation says; `None` if it has no head.
fn read_state(db: &Database) -> Result<Option<State>, StorageError> {
    let Some(stored) = db.get(&key::HEAD)? else {
        return Ok(None);
    };
    let mut state = State::empty();
    state.head = Head::decode(&stored).map_err(|error| unreadable("head", error))?;
    if let Some(note) = db.get(&key::REQUEUED)? {
        state.requeued = requeue::decode(&note).map_err(|error| unreadable("row of dead letters", error))?;
    }
    for kv in db.scan(&key::EXTENTS) {
        let (lane, extent) = Extent::decode(&kv?.1).map_err(|error| unreadable("extent", error))?;
        state
            .extents
            .entry(lane)
            .or_default()
            .insert(extent.first, extent);
    }
    for kv in db.scan(&key::CURSORS) {
        let (lane, cursor) = Cursor::decode(&kv?.1).map_err(|error| unreadable("cursor", error))?;
        state.cursors.insert(lane, cursor);
    }
    for (number, kv) in (0u32..).zip(db.scan(&key::LANES)) {
        let (found, lane) = decode_lane(&kv?.1).map_err(|error| unreadable("lane name", error))?;
        if found != number {
            return Err(StorageError::damaged(format!(
                "the name of lane {number} is missing"
            )));
        }
        state.names.insert(number, lane);
    }
    let live: u64 = state.all().map(|(_, extent)| extent.live).sum();
    match live == state.head.queued() && state.extents.keys().all(|lane| state.names.contains_key(lane)) {
        true => Ok(Some(state)),
        false => Err(StorageError::damaged(
            "some of what it says about lanes is missing",
        )),
    }
}

/// Begins a generation with what can be read of the damaged ones, on top of `state`, which generation `own` told.
fn salvage(
    generations: &mut Generations,
    mut state: State,
    own: u64,
    behind: Option<Mark>,
    mut damaged: BTreeSet<u64>,
    quarantine: &Quarantine,
) -> Result<(Head, Lanes), StorageError> {
    let told = state.clone();
    let (head, lanes) = loop {
        let scanned: Vec<(u64, Vec<Scan>)> = damaged
            .iter()
            .map(|&id| Ok((id, generations.scan(id)?)))
            .collect::<Result<_, StorageError>>()?;
        let newer = damaged.last().copied().max(behind.map(|mark| mark.generation));
        let superseded = newer.is_some_and(|newer| newer > own);
        let (at, mut head) = latest_head(own, &told.head, &scanned, behind);
        let scans: Vec<Scan> = scanned.into_iter().flat_map(|(_, scans)| scans).collect();
        merge(&mut state, &told, &scans);
        let gone: BTreeSet<u64> = told
            .all()
            .map(|(_, extent)| extent.generation)
            .filter(|id| !generations.present().contains(id))
            .chain(damaged.iter().copied())
            .collect();
        let ended = match recount(generations, &mut state, &told, &gone) {
            Ok(ended) => ended,
            Err((id, error)) if error.damage => {
                note_damage(&mut damaged, id, &error.to_string());
                generations.close_one(id);
                continue;
            }
            Err((_, error)) => return Err(error),
        };
        let vanished = told
            .all()
            .filter(|(_, extent)| gone.contains(&extent.generation) && !damaged.contains(&extent.generation));
        if at == own {
            // No newer head says what became of these. Generations are deleted only when nothing in them is live.
            let delivered = ended
                + if superseded {
                    vanished.map(|(_, x)| x.live).sum()
                } else {
                    0
                };
            // It may be less: dead letters that were queued again have not ended any more.
            let known = head.ended().saturating_sub(told.head.ended());
            head.delivered += delivered.saturating_sub(known).min(head.queued());
        }
        let mut lanes = state.lanes(Instant::now());
        head.saved = head.saved.max(told.head.saved);
        // It may not be the last head that there was: no dead letter may go because of what it says.
        head.uncounted_from = 0;
        let before = head;
        let head = carry_over(generations, &mut lanes, head, &scans, &state.names, &gone)?;
        report(&damaged, &before, &head);
        break (head, lanes);
    };
    set_aside(generations, quarantine, &damaged);
    Ok((head, lanes))
}

/// The latest account that is known, and the generation that it is of.
fn latest_head(own: u64, told: &Head, scanned: &[(u64, Vec<Scan>)], mark: Option<Mark>) -> (u64, Head) {
    let found = scanned
        .iter()
        .flat_map(|(id, scans)| scans.iter().filter_map(|scan| Some((*id, scan.head?))));
    let marked = mark.map(|mark| (mark.generation, mark.head));
    let order = |head: &Head| (head.next_seq, head.accepted, head.ended());
    found
        .chain(marked)
        .chain([(own, *told)])
        .max_by_key(|(id, head)| (*id, order(head)))
        .unwrap_or((own, *told))
}

/// Adds what scans know about lanes: later cursors, and new names.
fn merge(state: &mut State, told: &State, scans: &[Scan]) {
    *state = told.clone();
    for scan in scans {
        for (number, name) in &scan.lanes {
            state.names.entry(*number).or_insert_with(|| name.clone());
        }
        for (lane, cursor) in &scan.cursors {
            merge_cursor(&mut state.cursors, *lane, cursor.clone());
        }
    }
}

/// Brings the extents that stay up to date with later cursors. Gives how many events they say have ended since; or which
/// generation could not be read.
fn recount(
    generations: &mut Generations,
    state: &mut State,
    told: &State,
    gone: &BTreeSet<u64>,
) -> Result<u64, (u64, StorageError)> {
    let mut ended = 0;
    let State { cursors, extents, .. } = state;
    for (&lane, row) in extents {
        row.retain(|_, extent| !gone.contains(&extent.generation));
        let cursor = cursors.get(&lane).cloned().unwrap_or_default();
        if told.cursors.get(&lane) == Some(&cursor) {
            continue;
        }
        for extent in row.values_mut() {
            let before = extent.live;
            if cursor.next > extent.first {
                let counted = count_live(generations, lane, extent, &cursor);
                (extent.live, extent.live_bytes) = counted.map_err(|error| (extent.generation, error))?;
            }
            ended += before.saturating_sub(extent.live);
        }
        row.retain(|_, extent| extent.live > 0);
    }
    Ok(ended)
}

/// Events of an extent that have not ended, and their bytes.
fn count_live(
    generations: &mut Generations,
    lane: u32,
    extent: &Extent,
    cursor: &Cursor,
) -> Result<(u64, u64), StorageError> {
    let any_open = cursor.open.range(extent.first..=extent.last).next().is_some();
    if cursor.next > extent.last && !any_open {
        return Ok((0, 0));
    }
    let source = generations.source(extent.generation)?;
    let (mut live, mut bytes) = (0, 0);
    let mut next = match source.floor(lane, extent.first)? {
        None => source.ceiling(lane, extent.first)?,
        found => found,
    };
    while let Some(first) = next.filter(|&first| first <= extent.last) {
        let chunk = source.chunk(lane, first)?;
        for seq in first.max(extent.first)..chunk.end().min(extent.last + 1) {
            if cursor.is_live(seq) {
                live += 1;
                bytes += chunk.event(seq).map_or(0, |event| event.len() as u64);
            }
        }
        next = source.ceiling(lane, first + 1)?;
    }
    Ok((live, bytes))
}
