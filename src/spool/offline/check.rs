//! Whether all that a data folder says it holds is there and reads as it was written.
use super::super::durable::StorageError;
use super::super::meta::{Cursor, Extent};
use super::super::{chunk, codec, key};
use super::copy::{self, Copy};
use super::events::{Sources, each_in};
use super::{Look, LookError, letters};
use std::fmt;
use std::ops::ControlFlow;

/// What is done about damage among the events.
const SALVAGE: &str = "start the daemon on it: it carries over what can be read, counts the rest as dropped and sets the damaged folder aside";
/// What is done about damage that concerns no event.
const HARMLESS: &str = "no queued event lies there: start the daemon on it as usual, and look after the disk";
/// What is done about damage among the dead letters.
const ASIDE: &str = "start the daemon on it: it sets aside what cannot be read; see /dead_letters";
/// What is done about files that sled did not sync.
const BLOBS: &str = "copy the data folder as it is and report it: phosphod never makes such files";

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, and what.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// What is live in an extent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    events: u64,
    bytes: u64,
}

impl Look {
    /// How many folders [`Look::verify`] goes through.
    pub fn folders(&self) -> u64 {
        self.generations.present.len() as u64
    }

    /// Reads everything and says what is wrong. `step` is called after each generation.
    ///
    /// # Errors
    /// The disk, so that it could not be looked at.
    pub fn verify(&self, mut step: impl FnMut()) -> Result<Vec<Problem>, LookError> {
        let mut problems = Vec::new();
        let mut add = |what: String, remedy| problems.push(Problem { what, remedy });
        for what in &self.damage {
            add(what.clone(), SALVAGE);
        }
        for (lane, extent) in self.state.all() {
            let id = extent.generation;
            if extent.live > 0 && !self.generations.present.contains(&id) {
                let what = format!(
                    "generation {id} is gone, with {} of {}",
                    events(extent.live),
                    self.name(lane)
                );
                add(what, SALVAGE);
            }
        }
        let mut sources = Sources::new(&self.generations);
        for &id in &self.generations.present {
            for (what, remedy) in self.check_generation(id, &mut sources)? {
                add(format!("generation {id}: {what}"), remedy);
            }
            step();
        }
        for what in letters::problems(self)? {
            add(what, ASIDE);
        }
        Ok(problems)
    }

    fn check_generation(
        &self,
        id: u64,
        sources: &mut Sources<'_>,
    ) -> Result<Vec<(String, &'static str)>, LookError> {
        let path = self.generations.path(id);
        let mut problems = Vec::new();
        let blobs = std::fs::read_dir(path.join("blobs")).map_or(0, Iterator::count);
        if blobs > 0 {
            problems.push((
                format!("{blobs} files lie in blobs/, which sled does not sync"),
                BLOBS,
            ));
        }
        if path.join("damaged").exists() {
            problems.push(("it was found damaged before".to_owned(), SALVAGE));
        }
        let extents: Vec<(u32, Extent)> = self
            .state
            .all()
            .filter(|(_, extent)| extent.generation == id && extent.live > 0)
            .map(|(lane, extent)| (lane, *extent))
            .collect();
        for (lane, extent) in &extents {
            let scans = sources.get(id).map_err(|error| self.unreadable(&error))?;
            let (cursor, _) = self.state.lane(*lane);
            let mut tally = Tally::default();
            let _ = each_in::<()>(scans, *lane, extent, &cursor, &mut 0, |found| {
                tally.events += 1;
                tally.bytes += found.record.len() as u64;
                ControlFlow::Continue(())
            });
            problems.extend(self.difference(*lane, extent, tally).map(|what| (what, SALVAGE)));
        }
        let begun_and_told = self.generations.was_begun(id) && self.told_by.is_some_and(|told| id <= told);
        if problems.is_empty() && begun_and_told {
            // What the raw bytes hold, sled must find as well.
            let opened = copy::open(&path).and_then(|copy| self.check_copy(&copy, &extents));
            match opened {
                Ok(found) => problems.extend(found),
                Err(error) if !error.damage => return Err(self.unreadable(&error)),
                Err(error) if extents.is_empty() && self.told_by != Some(id) => {
                    problems.push((format!("it is damaged: {error}"), HARMLESS));
                }
                Err(error) => problems.push((format!("it is damaged: {error}"), SALVAGE)),
            }
        }
        Ok(problems)
    }

    /// What an open copy lacks of what should be there, and what in it does not check out.
    fn check_copy(
        &self,
        copy: &Copy,
        extents: &[(u32, Extent)],
    ) -> Result<Vec<(String, &'static str)>, StorageError> {
        let mut problems = Vec::new();
        for (lane, extent) in extents {
            let (cursor, _) = self.state.lane(*lane);
            let tally = tally_in(copy, *lane, extent, &cursor)?;
            problems.extend(self.difference(*lane, extent, tally).map(|what| (what, SALVAGE)));
        }
        let mut bad = 0;
        for kv in copy.db.scan(&key::SLOTS) {
            let (_, value) = kv?;
            bad += u64::from(!value.is_empty() && codec::open(&value).is_err());
        }
        if bad > 0 && problems.is_empty() {
            problems.push((format!("{bad} of its slots do not check out"), HARMLESS));
        }
        Ok(problems)
    }

    /// The sentence about an extent that does not hold what it should.
    fn difference(&self, lane: u32, extent: &Extent, found: Tally) -> Option<String> {
        let told = Tally {
            events: extent.live,
            bytes: extent.live_bytes,
        };
        let lane = self.name(lane);
        let range = format!("of {lane} from sequence {} to {}", extent.first, extent.last);
        if found.events < told.events {
            let missing = told.events - found.events;
            return Some(format!("{} {range} cannot be read", events(missing)));
        }
        (found != told).then(|| {
            format!(
                "{} with {} bytes were found {range}, where {} with {} should be",
                events(found.events),
                found.bytes,
                told.events,
                told.bytes
            )
        })
    }

    fn name(&self, lane: u32) -> String {
        let name = self.state.names.get(&lane);
        name.map_or_else(|| format!("lane {lane}"), ToString::to_string)
    }
}

/// Counts what is live in an extent, as sled finds it. Chunks that cannot be read count nothing.
fn tally_in(copy: &Copy, lane: u32, extent: &Extent, cursor: &Cursor) -> Result<Tally, StorageError> {
    let mut tally = Tally::default();
    let from = extent.first.saturating_sub(chunk::MAX_EVENTS as u64);
    let mut next = copy.db.ceiling(&key::event(lane, from))?;
    while let Some((of, first)) = next.as_deref().and_then(key::parse_event)
        && of == lane
        && first <= extent.last
    {
        let slot = copy.db.get(&key::event(lane, first))?.unwrap_or_default();
        let sealed = copy.db.long(&slot, first);
        if let Some(chunk) = sealed.ok().and_then(|sealed| chunk::decode(&sealed).ok()) {
            for seq in first.max(extent.first)..chunk.end().min(extent.last + 1) {
                if let Some(event) = chunk.event(seq).filter(|_| cursor.is_live(seq)) {
                    tally.events += 1;
                    tally.bytes += event.len() as u64;
                }
            }
        }
        next = copy.db.ceiling(&key::event(lane, first + 1))?;
    }
    Ok(tally)
}

fn events(count: u64) -> String {
    match count {
        1 => "1 event".to_owned(),
        _ => format!("{count} events"),
    }
}
