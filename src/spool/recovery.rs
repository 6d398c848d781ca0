//! Opening: from a data folder to an [`Owner`] that is ready to run. Reads only the newest generation, so that
//! the time does not depend on the backlog.
use super::command::Command;
use super::dead::DeadLetters;
use super::disk::{Disk, sync_folder};
use super::drop_log::DropLog;
use super::durable::{Database, StorageError, Writes};
use super::generation::Generations;
use super::lanes::Lanes;
use super::lease::Abandoned;
use super::meta::{Cursor, Extent, Head, decode_lane};
use super::owner::Owner;
use super::queue::LaneQueue;
use super::read::ChunkCache;
use super::room::Room;
use super::view::Shared;
use super::{OpenError, Settings, key, lock, migrate};
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
    let (head, lanes) = recover(&mut generations, now).map_err(damaged)?;
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
        abandoned: Arc::new(Abandoned::new(wake)),
        generations,
        dead: DeadLetters::new(settings, disk, head.uncounted_from),
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
        stuck: BTreeSet::new(),
        moving: false,
        shown: 0,
        lock,
    };
    owner.remove_settled_generations();
    owner.room.prepare(now);
    owner.publish_refusal();
    owner.settle_letters();
    owner.publish_account();
    owner.publish_lanes(0..owner.lanes.len() as u32);
    tracing::info!(
        path = %settings.path.display(),
        queued = owner.lanes.live(),
        bytes = owner.lanes.live_bytes(),
        lanes = owner.lanes.len(),
        generations = owner.generations.present().len(),
        "the spool is open"
    );
    Ok(owner)
}

/// Finds the newest generation that was finished, and reads from it how everything stood.
fn recover(generations: &mut Generations, now: Instant) -> Result<(Head, Lanes), StorageError> {
    let present: Vec<u64> = generations.present().iter().rev().copied().collect();
    for id in present {
        let mut db = match generations.open(id) {
            // Cut off while it was being made: nothing in it was ever acknowledged.
            Err(_) if !generations.was_begun(id) => {
                generations.remove(id)?;
                continue;
            }
            opened => opened?,
        };
        let Some(stored) = db.get(&key::HEAD)? else {
            if generations.was_begun(id) {
                return Err(StorageError::damaged(format!(
                    "generation {id} is damaged: its head is gone"
                )));
            }
            drop(db);
            generations.remove(id)?;
            continue;
        };
        let head = Head::decode(&stored).map_err(|error| unreadable("head", error))?;
        let lanes = read_lanes(&db, now)?;
        check_generations(&lanes, generations)?;
        // What was read may not be durable yet, if the process was killed before its sync.
        let mut writes = Writes::default();
        writes.set(key::HEAD.to_vec(), &head.encode());
        db.commit(writes)?;
        db.mark_begun()?;
        generations.resume(id, db);
        return Ok((head, lanes));
    }
    let head = Head {
        next_seq: 1,
        uncounted_from: 1,
        ..Head::default()
    };
    let lanes = Lanes::default();
    let mut writes = Writes::default();
    writes.set(key::HEAD.to_vec(), &head.encode());
    generations.begin(writes)?;
    Ok((head, lanes))
}

fn unreadable(what: &str, error: super::codec::CodecError) -> StorageError {
    StorageError::damaged(format!(
        "a {what} in the newest generation cannot be read: {error}"
    ))
}

fn read_lanes(db: &Database, now: Instant) -> Result<Lanes, StorageError> {
    let mut extents: BTreeMap<u32, BTreeMap<u64, Extent>> = BTreeMap::new();
    for kv in db.scan(&key::EXTENTS) {
        let (_, value) = kv?;
        let (lane, extent) = Extent::decode(&value).map_err(|error| unreadable("extent", error))?;
        extents.entry(lane).or_default().insert(extent.first, extent);
    }
    let mut lanes = Lanes::default();
    for (number, kv) in (0u32..).zip(db.scan(&key::LANES)) {
        let (_, value) = kv?;
        let (found, lane) = decode_lane(&value).map_err(|error| unreadable("lane name", error))?;
        if found != number {
            return Err(StorageError::damaged(format!(
                "the name of lane {number} is missing"
            )));
        }
        let cursor = match db.get(&key::cursor(number))? {
            None => Cursor::default(),
            Some(stored) => {
                Cursor::decode(&stored)
                    .map_err(|error| unreadable("cursor", error))?
                    .1
            }
        };
        let extents = extents.remove(&number).unwrap_or_default();
        lanes.recover(lane, LaneQueue::recovered(cursor, extents, now));
    }
    Ok(lanes)
}

/// What has not ended must lie in a generation that is there.
fn check_generations(lanes: &Lanes, generations: &Generations) -> Result<(), StorageError> {
    for state in lanes.iter() {
        let missing = state
            .queue
            .extents()
            .values()
            .map(|extent| extent.generation)
            .find(|id| !generations.present().contains(id));
        if let Some(id) = missing {
            return Err(StorageError::damaged(format!(
                "generation {id} is missing, and lane {} has events there",
                state.lane
            )));
        }
    }
    Ok(())
}
