//! What is in a data folder, in figures.
use super::super::lock;
use super::super::quarantine::Quarantine;
use super::events::{Sources, each_in};
use super::{Look, LookError, letters};
use crate::ledger::Ledger;
use serde::Serialize;
use std::ops::ControlFlow;

/// A data folder in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Where it is.
    pub path: String,
    /// Version of its layout.
    pub format: u32,
    /// The account of all events.
    pub ledger: Ledger,
    /// Payload bytes of all that is queued.
    pub queued_bytes: u64,
    /// Lanes that were ever used, by project, logs first.
    pub lanes: Vec<LaneInfo>,
    /// Folders that events lie in, oldest first.
    pub generations: Vec<Generation>,
    /// What was given up and is kept.
    pub dead_letters: DeadLetters,
    /// Names of what was set aside as damaged.
    pub quarantine: Vec<String>,
    /// What is wrong with it, as far as this can be seen without reading all of it.
    pub damage: Vec<String>,
}

/// A lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneInfo {
    /// Whose it is.
    pub project: String,
    /// `log` or `feedback`.
    pub kind: &'static str,
    /// Events that have not ended.
    pub queued: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// When the first of them was accepted: wall clock, milliseconds since 1970.
    pub oldest_accepted_at_ms: Option<u64>,
}

/// A generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// Its number.
    pub number: u64,
    /// What it takes on disk.
    pub bytes_on_disk: u64,
    /// Events in it that have not ended.
    pub live: u64,
    /// Their payload bytes.
    pub live_bytes: u64,
}

/// All dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeadLetters {
    /// How many are kept.
    pub letters: u64,
    /// What they take on disk.
    pub bytes_on_disk: u64,
}

impl Look {
    /// The folder in figures.
    ///
    /// # Errors
    /// The disk.
    pub fn info(&self) -> Result<Info, LookError> {
        let head = &self.state.head;
        let (dead_letters, dead_damage) = letters::count(self)?;
        let mut damage = self.damage.clone();
        damage.extend(dead_damage);
        Ok(Info {
            path: self.path.display().to_string(),
            format: lock::FORMAT,
            ledger: Ledger {
                accepted: head.accepted,
                delivered: head.delivered,
                dead: head.dead,
                dropped: head.dropped,
                queued: self.queued(None),
            },
            queued_bytes: self.state.all().map(|(_, extent)| extent.live_bytes).sum(),
            lanes: self.lane_infos()?,
            generations: self.generation_infos(),
            dead_letters,
            quarantine: Quarantine::of(&self.path).names(),
            damage,
        })
    }

    fn lane_infos(&self) -> Result<Vec<LaneInfo>, LookError> {
        let mut sources = Sources::new(&self.generations);
        let mut infos = Vec::new();
        for (number, lane) in self.wanted(None) {
            let (cursor, extents) = self.state.lane(number);
            let mut oldest = None;
            for extent in extents.iter().filter(|extent| extent.live > 0) {
                let scans = sources.get(extent.generation);
                let scans = scans.map_err(|error| self.unreadable(&error))?;
                let first = each_in(scans, number, extent, &cursor, &mut 0, |found| {
                    ControlFlow::Break(found.accepted_at_ms)
                });
                if let ControlFlow::Break(at_ms) = first {
                    oldest = Some(at_ms);
                    break;
                }
            }
            infos.push(LaneInfo {
                project: lane.project.as_str().to_owned(),
                kind: lane.kind.as_str(),
                queued: extents.iter().map(|extent| extent.live).sum(),
                bytes: extents.iter().map(|extent| extent.live_bytes).sum(),
                oldest_accepted_at_ms: oldest,
            });
        }
        Ok(infos)
    }

    fn generation_infos(&self) -> Vec<Generation> {
        let info = |&number: &u64| {
            let here = |(_, extent): &(u32, &super::super::meta::Extent)| extent.generation == number;
            let extents = self.state.all().filter(here);
            let (live, live_bytes) = extents.fold((0, 0), |(live, bytes), (_, extent)| {
                (live + extent.live, bytes + extent.live_bytes)
            });
            Generation {
                number,
                bytes_on_disk: self.generations.bytes_on_disk(number),
                live,
                live_bytes,
            }
        };
        self.generations.present.iter().map(info).collect()
    }
}
