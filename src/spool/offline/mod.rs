//! Looking at the data folder of a daemon that is stopped, without changing a byte of it.
//!
//! How all stands is read with sled from a copy of the newest generation; events are found in the bytes of the
//! files (`scan.rs`); dead letters are read with sled from copies, one folder at a time.

mod check;
mod copy;
mod events;
mod info;
mod letters;
mod row;
mod state;

pub use check::Problem;
pub use info::{DeadLetters, Generation, Info, LaneInfo};

use super::durable::StorageError;
use super::lock::{self, FolderLock};
use super::{DeadLetter, OpenError, mark, migrate};
use crate::ids::{Kind, Lane};
use events::Sources;
use row::Row;
use state::State;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Why a data folder could not be looked at. The sentence names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It is in use, somebody else's, or of a newer format.
    #[error(transparent)]
    Closed(#[from] OpenError),
    /// There is none.
    #[error("there is no data folder {}: name the right one with --path or spool.path", .0.display())]
    Absent(PathBuf),
    /// There is a folder, but not of phosphod's.
    #[error("{} is no data folder of phosphod's, for it has no file \"format\": name the right one with --path or spool.path", .0.display())]
    NotOurs(PathBuf),
    /// An older format, or one on its way to this one.
    #[error("the data folder {} has not been brought to format {} yet: run the daemon on it once", .0.display(), lock::FORMAT)]
    Older(PathBuf),
    /// The disk does not let us.
    #[error("the data folder {} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// A data folder that is being looked at. No daemon can start on it meanwhile.
pub struct Look {
    path: PathBuf,
    generations: Row,
    dead: Row,
    state: State,
    /// The generation that told the state.
    told_by: Option<u64>,
    damage: Vec<String>,
    _lock: Option<FolderLock>,
}

impl Look {
    /// Takes the lock of a folder that is there, and reads how all stands.
    ///
    /// # Errors
    /// In use, absent, not ours, or of another format.
    pub fn take(path: &Path) -> Result<Look, LookError> {
        if !path.exists() {
            return Err(LookError::Absent(path.to_owned()));
        }
        let (lock, format) = lock::take_existing(path)?;
        match format {
            None => return Err(LookError::NotOurs(path.to_owned())),
            Some(lock::FORMAT) if !migrate::is_under_way(path) => {}
            Some(_) => return Err(LookError::Older(path.to_owned())),
        }
        let unreadable = |error: StorageError| LookError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let generations = Row::list(path.join("spool")).map_err(|error| unreadable(error.into()))?;
        let dead = Row::list(path.join("dead")).map_err(|error| unreadable(error.into()))?;
        let (marked, unmarked) = match mark::look(path) {
            Ok(mark) => (mark, None),
            Err(reason) => (
                None,
                Some(format!("the high-water mark cannot be read: {reason}")),
            ),
        };
        let (told_by, state, mut damage) = state::newest(&generations, marked).map_err(unreadable)?;
        damage.extend(unmarked);
        Ok(Look {
            path: path.to_owned(),
            generations,
            dead,
            state,
            told_by,
            damage,
            _lock: lock,
        })
    }

    /// What is wrong with the description of the whole, a sentence each. What is queued is not known for sure then.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// Events that have not ended, of one project or of all.
    pub fn queued(&self, project: Option<&str>) -> u64 {
        let wanted = self.wanted(project);
        let numbers = wanted.iter().map(|(number, _)| *number);
        let rows = numbers.filter_map(|number| self.state.extents.get(&number));
        rows.flat_map(|row| row.values()).map(|extent| extent.live).sum()
    }

    /// Shows every event that has not ended, lane by lane in order, the logs of a project before its feedback. Gives how many
    /// could not be found.
    ///
    /// # Errors
    /// The disk, or what `show` broke with.
    pub fn each_event<B: From<LookError>>(
        &self,
        project: Option<&str>,
        mut show: impl FnMut(&Lane, &[u8]) -> Result<(), B>,
    ) -> Result<u64, B> {
        let mut sources = Sources::new(&self.generations);
        let mut missing = 0;
        for (number, lane) in self.wanted(project) {
            let (cursor, extents) = self.state.lane(number);
            let mut covered = 0;
            for extent in extents {
                let scans = sources
                    .get(extent.generation)
                    .map_err(|error| self.unreadable(&error))?;
                let shown =
                    events::each_in(scans, number, &extent, &cursor, &mut covered, |found| match show(
                        lane,
                        &found.record,
                    ) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(error) => ControlFlow::Break(error),
                    });
                match shown {
                    ControlFlow::Continue(found) => missing += extent.live.saturating_sub(found),
                    ControlFlow::Break(error) => return Err(error),
                }
            }
        }
        Ok(missing)
    }

    /// Shows every dead letter in the order of burial; one that cannot be read as the reason.
    ///
    /// # Errors
    /// The disk, or what `show` broke with.
    pub fn each_letter<B: From<LookError>>(
        &self,
        show: impl FnMut(u64, Result<DeadLetter, String>) -> Result<(), B>,
    ) -> Result<(), B> {
        letters::each(self, show)
    }

    /// The lanes of a project, or all: by project, logs first.
    fn wanted(&self, project: Option<&str>) -> Vec<(u32, &Lane)> {
        let all = self.state.names.iter().map(|(&number, lane)| (number, lane));
        let mut wanted: Vec<_> = all
            .filter(|(_, lane)| project.is_none_or(|project| lane.project.as_str() == project))
            .collect();
        wanted.sort_by_key(|(_, lane)| (lane.project.as_str(), lane.kind == Kind::Feedback));
        wanted
    }

    fn unreadable(&self, error: &StorageError) -> LookError {
        LookError::Unreadable {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}
