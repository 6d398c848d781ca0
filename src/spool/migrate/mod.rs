//! From format 1 to the present one, when a folder is opened.
//!
//! All that has not ended is written anew into `<path>/migrating/` and synced. Then the `format` file is replaced, which
//! decides: before that the next start begins again, after it the next start goes on with the renames. So no older
//! version ever meets a folder that is half of each. The old files go last.
mod format1;
mod salvage;

use super::Settings;
use super::chunk::{self, Label};
use super::dead::DeadLetters;
use super::disk::{Disk, sync_folder};
use super::durable::{Database, StorageError, Writes, is_begun};
use super::generation::Generations;
use super::lanes::Lanes;
use super::meta::{Cursor, Extent, Head};
use super::queue::LaneQueue;
use super::salvage::settle_account;
use super::{DeadLetter, key, lock};
use crate::ids::Lane;
use format1::Pieces;
use salvage::Told;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the new files lie until they are complete, and then the old ones until they are removed.
const DRAFT: &str = "migrating";
/// Lies in the draft if something could not be read: the old files are then kept.
const LOSSES: &str = "losses";
/// What a data folder consists of, beside the small files.
const PARTS: [&str; 2] = ["spool", "dead"];
/// Bytes that are committed together.
const COMMIT_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes after which a generation made here is sealed: the default of `spool.generation_bytes`.
const GENERATION_BYTES: u64 = 64 * 1024 * 1024;
/// Dead letters that are buried together, unless they are large.
const LETTERS_AT_ONCE: usize = 100;
/// How often the log says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Called after each step with its name, so that tests can cut the work off there.
pub(super) type AfterStep<'a> = &'a mut dyn FnMut(&'static str) -> io::Result<()>;

/// Whether a migration was begun on a folder and has not ended.
pub(super) fn is_under_way(path: &Path) -> bool {
    path.join(DRAFT).exists()
}

/// Brings a folder of an older format, whose lock we hold, to the present one; or ends what was cut off.
pub(super) fn bring_up(
    settings: &Settings,
    disk: &Disk,
    found: u32,
    after: AfterStep<'_>,
) -> Result<(), StorageError> {
    let path = &settings.path;
    let draft = path.join(DRAFT);
    if found < lock::FORMAT {
        remove(&draft)?;
        write_draft(settings, disk, &draft)?;
        after("written")?;
        lock::write_format(path)?;
        after("decided")?;
    }
    if is_under_way(path) {
        put_in_place(path, &draft, after)?;
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Exchanges the old parts for the new ones. May be cut off anywhere and be done again.
fn put_in_place(path: &Path, draft: &Path, after: AfterStep<'_>) -> io::Result<()> {
    for part in PARTS {
        let (new, place) = (draft.join(part), path.join(part));
        if !new.exists() {
            continue;
        }
        if place.exists() {
            fs::rename(&place, draft.join(format!("old-{part}")))?;
            after("old one aside")?;
        }
        fs::rename(&new, &place)?;
        after("new one in place")?;
    }
    sync_folder(draft)?;
    sync_folder(path)?;
    after("in place")?;
    if draft.join(LOSSES).exists() {
        let quarantine = path.join("quarantine");
        lock::make_folder(&quarantine)?;
        fs::rename(draft, quarantine.join("format-1"))?;
        sync_folder(&quarantine)?;
    } else {
        remove(draft)?;
    }
    sync_folder(path)
}

/// Writes all that has not ended in the present format, durably.
fn write_draft(settings: &Settings, disk: &Disk, draft: &Path) -> Result<(), StorageError> {
    let (old, new) = (settings.path.join("spool"), draft.join("spool"));
    for folder in [draft, &new] {
        lock::make_folder(folder)?;
    }
    for folder in [&old, &settings.path.join("dead")] {
        lock::make_folder(folder)?;
    }
    let generations = Generations::list(old, disk)?;
    let told = newest_state(&generations)?;
    let lanes = &told.state.lanes;
    let total = lanes
        .iter()
        .flat_map(|lane| lane.extents.values())
        .map(|x| x.live)
        .sum();
    tracing::info!(
        path = %settings.path.display(),
        events = total,
        "the data folder has format 1: all that is queued is written anew, which needs as much free disk again"
    );
    let mut moving = Moving::begin(&told, Generations::list(new, disk)?, total)?;
    for &id in generations.present() {
        moving.take_generation(&told, id, &generations)?;
    }
    let (moved, bytes) = (moving.moved, moving.bytes);
    let (letters, lost_letters) = move_letters(settings, disk, draft)?;
    let lost = moving.end(&told, letters)?;
    if lost + lost_letters > 0 || !told.damaged.is_empty() {
        fs::File::create(draft.join(LOSSES))?.sync_all()?;
        tracing::error!(
            events = lost,
            dead_letters = lost_letters,
            "some of format 1 was damaged and could not be read: counted as dropped, and the old files are kept in \
             quarantine/format-1"
        );
    }
    for folder in [draft.join("spool"), draft.join("dead"), draft.to_owned()] {
        sync_folder(&folder)?;
    }
    sync_folder(&settings.path)?;
    tracing::info!(
        events = moved,
        bytes,
        lanes = lanes.len(),
        dead_letters = letters,
        "the data folder was brought from format 1 to format {}",
        lock::FORMAT
    );
    Ok(())
}

/// How all stood, from the newest generation that can be read, and what can be read of newer ones.
fn newest_state(generations: &Generations) -> Result<Told, StorageError> {
    let mut pieces = BTreeMap::new();
    let mut told = Told::default();
    told.state.head.next_seq = 1;
    for &id in generations.present().iter().rev() {
        let begun = generations.was_begun(id);
        generations.keep(id);
        let opened = generations.open(id);
        let read = opened
            .as_ref()
            .map_err(Clone::clone)
            .and_then(format1::read_state);
        match read {
            Ok(Some(state)) => {
                told = Told::whole(state, id);
                break;
            }
            // Cut off while it was being made: nothing in it was ever acknowledged.
            Err(_) | Ok(None) if !begun => {}
            Err(error) if !error.damage => return Err(error),
            Err(_) | Ok(None) => {
                let found = opened
                    .as_ref()
                    .map_or_else(|_| Pieces::default(), format1::read_pieces);
                pieces.insert(id, found);
            }
        }
    }
    told.with(pieces, generations)
}

/// A lane on its way.
struct MovingLane {
    lane: Lane,
    cursor: Cursor,
    extents: BTreeMap<u64, Extent>,
    /// At the time of the account.
    told: format1::Cursor,
    /// Those of the open events that were found.
    open: BTreeSet<u64>,
}

/// The new generations while they are filled.
struct Moving {
    generations: Generations,
    lanes: Vec<MovingLane>,
    head: Head,
    writes: Writes,
    /// Bytes in the newest generation.
    written: u64,
    total: u64,
    moved: u64,
    bytes: u64,
    shown: Instant,
    /// The next sequence at the time of the account.
    told_next: u64,
}

impl Moving {
    fn begin(told: &Told, generations: Generations, total: u64) -> Result<Moving, StorageError> {
        let lanes = told.state.lanes.iter().zip(&told.cursors);
        let lanes = lanes.map(|(old, told)| MovingLane {
            lane: old.lane.clone(),
            cursor: Cursor {
                next: old.cursor.next,
                open: old.cursor.open.clone(),
            },
            told: told.clone(),
            extents: BTreeMap::new(),
            open: BTreeSet::new(),
        });
        let state = told.state.head;
        let mut moving = Moving {
            generations,
            lanes: lanes.collect(),
            head: Head {
                next_seq: state.next_seq,
                accepted: state.accepted,
                delivered: state.delivered,
                dead: state.dead,
                dropped: state.dropped,
                ..Head::default()
            },
            writes: Writes::default(),
            written: 0,
            total,
            moved: 0,
            bytes: 0,
            shown: Instant::now(),
            told_next: state.next_seq,
        };
        moving.begin_generation()?;
        Ok(moving)
    }

    /// Moves what a generation of format 1 holds. One that is damaged gives what can be found in it.
    fn take_generation(
        &mut self,
        told: &Told,
        id: u64,
        generations: &Generations,
    ) -> Result<(), StorageError> {
        let db = match generations.open(id) {
            Err(error) if error.damage => None,
            opened => Some(opened?),
        };
        let whole = match &db {
            Some(db) => salvage::is_whole(told, id, db)?,
            None => false,
        };
        // One that is not whole has to be closed, because what follows opens it in its own way.
        let db = db.filter(|_| whole);
        let mut found = match db {
            Some(_) => salvage::Chunks::new(),
            None => salvage::chunks(generations, id)?,
        };
        for (number, old) in (0u32..).zip(&told.state.lanes) {
            let Some(extent) = old.extents.get(&id) else {
                continue;
            };
            let before = self.moved;
            let take = |chunk: format1::Chunk| self.add(number, old, extent, &chunk);
            let taken = match &db {
                Some(db) => format1::each_chunk(db, old.number, take),
                None => found
                    .extract_if((old.number, 0)..=(old.number, u64::MAX), |_, _| true)
                    .map(|(_, chunk)| chunk)
                    .try_for_each(take),
            };
            if let Err(error) = taken
                && !error.damage
            {
                return Err(error);
            }
            if id > told.head_of {
                // No account knows of them.
                self.head.accepted += extent.live.saturating_sub(self.moved - before);
            }
        }
        Ok(())
    }

    /// Adds the events of a chunk that have not ended: each run of them is a chunk again.
    fn add(
        &mut self,
        number: u32,
        old: &format1::LaneState,
        within: &format1::Extent,
        chunk: &format1::Chunk,
    ) -> Result<(), StorageError> {
        let live = |&(seq, _): &(u64, &Vec<u8>)| {
            (within.first..=within.last).contains(&seq) && old.cursor.is_live(seq)
        };
        self.account_for(number, old, within, chunk);
        let mut events = (chunk.first..).zip(&chunk.events).peekable();
        while events.peek().is_some() {
            let mut run = Vec::new();
            let mut first = None;
            while let Some((seq, event)) = events.next_if(live) {
                first.get_or_insert(seq);
                run.push(event);
            }
            match first {
                Some(first) => self.add_run(number, first, chunk.accepted_at_ms, &run)?,
                None => drop(events.next()),
            }
        }
        Ok(())
    }

    /// Counts what came or ended after the account was written.
    fn account_for(
        &mut self,
        number: u32,
        old: &format1::LaneState,
        within: &format1::Extent,
        chunk: &format1::Chunk,
    ) {
        let Some(lane) = self.lanes.get(number as usize) else {
            return;
        };
        let seqs = (chunk.first..).take(chunk.events.len());
        for seq in seqs.filter(|seq| (within.first..=within.last).contains(seq)) {
            let is_new = seq >= self.told_next;
            self.head.accepted += u64::from(is_new);
            let was_live = is_new || lane.told.is_live(seq);
            self.head.delivered += u64::from(was_live && !old.cursor.is_live(seq));
            self.head.next_seq = self.head.next_seq.max(seq + 1);
        }
    }

    fn add_run(
        &mut self,
        number: u32,
        first: u64,
        accepted_at_ms: u64,
        run: &[&Vec<u8>],
    ) -> Result<(), StorageError> {
        let Some(lane) = self.lanes.get_mut(number as usize) else {
            return Ok(());
        };
        let generation = self.generations.newest();
        let generation = generation.ok_or_else(|| StorageError::trouble("no generation is open"))?;
        let label = Label {
            lane: number,
            kind: lane.lane.kind,
            first,
            accepted_at_ms,
        };
        self.writes
            .set_long(key::event(number, first), first, chunk::encode(&label, run));
        let added = Extent {
            generation,
            first,
            last: first + run.len() as u64 - 1,
            live: run.len() as u64,
            live_bytes: run.iter().map(|event| event.len() as u64).sum(),
        };
        lane.open
            .extend((first..=added.last).filter(|&seq| seq < lane.cursor.next));
        let extended = match lane.extents.last_entry() {
            Some(last) if last.get().generation == generation => last.get().extended(&added),
            _ => added,
        };
        lane.extents.insert(extended.first, extended);
        self.moved += added.live;
        self.bytes += added.live_bytes;
        self.show();
        if self.writes.bytes() >= COMMIT_BYTES {
            self.commit()?;
            if self.written >= GENERATION_BYTES {
                self.write_snapshot();
                self.commit()?;
                self.begin_generation()?;
            }
        }
        Ok(())
    }

    fn show(&mut self) {
        if self.shown.elapsed() >= PROGRESS_EVERY {
            self.shown = Instant::now();
            tracing::info!(
                events = self.moved,
                of = self.total,
                "bringing the data folder to a new format"
            );
        }
    }

    fn commit(&mut self) -> Result<(), StorageError> {
        self.written += self.writes.bytes();
        self.generations.commit(std::mem::take(&mut self.writes))
    }

    fn begin_generation(&mut self) -> Result<(), StorageError> {
        self.written = 0;
        self.write_snapshot();
        self.written = self.writes.bytes();
        self.generations.begin(std::mem::take(&mut self.writes))
    }

    /// Says how all stands, as every generation does.
    fn write_snapshot(&mut self) {
        let now = Instant::now();
        let mut lanes = Lanes::default();
        for lane in &self.lanes {
            let queue = LaneQueue::recovered(lane.cursor.clone(), lane.extents.clone(), now);
            lanes.recover(lane.lane.clone(), queue);
        }
        lanes.write_all(&mut self.writes);
        let head = Head {
            written: self.written + self.writes.bytes(),
            ..self.head
        };
        self.writes.set(key::HEAD.to_vec(), &head.encode());
    }

    /// The last commit: what could not be read has been dropped. Gives how many events that were.
    fn end(mut self, told: &Told, letters: u64) -> Result<u64, StorageError> {
        for lane in &mut self.lanes {
            lane.cursor.open = std::mem::take(&mut lane.open);
            self.head.next_seq = self.head.next_seq.max(lane.cursor.next);
        }
        if !told.damaged.is_empty() {
            let more = letters.saturating_sub(self.head.dead);
            self.head.dead += more;
            self.head.accepted += more;
        }
        let saved = if told.damaged.is_empty() { 0 } else { self.moved };
        settle_account(&mut self.head, self.moved, saved);
        self.write_snapshot();
        self.commit()?;
        Ok(self.head.lost)
    }
}

/// Buries the dead letters again. How many, and how many could not be read.
fn move_letters(settings: &Settings, disk: &Disk, new: &Path) -> Result<(u64, u64), StorageError> {
    let old = settings.path.join("dead");
    let settings_there = Settings {
        path: new.to_owned(),
        ..settings.clone()
    };
    let mut dead = DeadLetters::new(&settings_there, disk, 1);
    let mut bury = |letters: Vec<DeadLetter>| {
        let letters: Vec<&DeadLetter> = letters.iter().collect();
        let numbers = dead.reserve(letters.len())?;
        dead.bury(numbers.start, &letters, Instant::now())
    };
    let db = match Database::open(&old, disk) {
        Err(error) if error.damage && is_begun(&old) => return Ok((0, 1)),
        Err(error) if error.damage => return Ok((0, 0)),
        opened => opened?,
    };
    let (mut moved, mut lost) = (0, 0);
    let mut batch: Vec<DeadLetter> = Vec::new();
    let mut bytes = 0;
    for letter in format1::letters(&db) {
        match letter {
            Ok(Some(letter)) => {
                bytes += letter.record.len() as u64;
                batch.push(letter);
            }
            Err(error) if !error.damage => return Err(error),
            _ => lost += 1,
        }
        if batch.len() >= LETTERS_AT_ONCE || bytes >= COMMIT_BYTES {
            moved += batch.len() as u64;
            bury(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    moved += batch.len() as u64;
    if !batch.is_empty() {
        bury(batch)?;
    }
    Ok((moved, lost))
}
