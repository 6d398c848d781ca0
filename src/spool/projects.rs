//! How many projects may have something queued at a time (`spool.max_projects`): ids are the clients' to make up, and each
//! project that has work takes memory. Projects with a key of their own and the default project always have room, and so has
//! one that the spool knows already.
use super::view::locked;
use crate::ids::{Lane, ProjectId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often at most the log tells that projects are refused.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Which projects there are. Written by the owning thread, read by whoever takes events.
pub(super) struct Projects {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `spool.max_projects`; 0: no bound.
    most: usize,
    /// These always have room, and do not count.
    kept: BTreeSet<ProjectId>,
    /// How many lanes of each project have something that has not ended.
    known: BTreeMap<ProjectId, usize>,
    /// Projects that count.
    busy: usize,
    told: Option<Instant>,
}

impl State {
    fn recount(&mut self) {
        let State { known, kept, .. } = self;
        let counts = |(project, lanes): &(&ProjectId, &usize)| **lanes > 0 && !kept.contains(*project);
        self.busy = known.iter().filter(counts).count();
    }

    /// Whether a project has room beside others that are new as well.
    fn has_room(&self, project: &ProjectId, new: &BTreeSet<ProjectId>) -> bool {
        self.most == 0
            || self.known.contains_key(project)
            || self.kept.contains(project)
            || new.contains(project)
            || self.busy + new.len() < self.most
    }

    fn refusal(&mut self) -> String {
        let sentence = format!(
            "no room for another project: {} have events queued and spool.max_projects = {}: see which of them are real, \
             raise spool.max_projects, or give the project a key (upstream.projects.<id>.api_key_file)",
            self.busy, self.most
        );
        let now = Instant::now();
        if self.told.is_none_or(|told| now >= told + TELL_EVERY) {
            self.told = Some(now);
            tracing::warn!(reason = %sentence, "events of new projects are refused");
        }
        sentence
    }
}

impl Projects {
    pub(super) fn new(most: usize, kept: BTreeSet<ProjectId>) -> Projects {
        Projects {
            state: Mutex::new(State {
                most,
                kept,
                ..State::default()
            }),
        }
    }

    /// These have room from now on, whatever else is queued.
    pub(super) fn keep_room(&self, projects: impl IntoIterator<Item = ProjectId>) {
        let mut state = locked(&self.state);
        state.kept.extend(projects);
        state.recount();
    }

    /// Whether a project has room whatever is queued.
    pub(super) fn keeps_room_for(&self, project: &ProjectId) -> bool {
        locked(&self.state).kept.contains(project)
    }

    /// Most lanes that may be at work at a time: both of each project.
    pub(super) fn lanes_at_work(&self) -> usize {
        match locked(&self.state).most {
            0 => usize::MAX,
            most => most.saturating_mul(2),
        }
    }

    /// Which of these are new; an error if there is no room for all of them beside `new`.
    pub(super) fn newcomers<'a>(
        &self,
        projects: impl IntoIterator<Item = &'a ProjectId>,
        new: &BTreeSet<ProjectId>,
    ) -> Result<BTreeSet<ProjectId>, String> {
        let mut state = locked(&self.state);
        let mut with_these = new.clone();
        for project in projects {
            if !state.has_room(project, &with_these) {
                return Err(state.refusal());
            }
            if state.most > 0 && !state.known.contains_key(project) && !state.kept.contains(project) {
                with_these.insert(project.clone());
            }
        }
        Ok(with_these)
    }

    /// There is such a lane.
    pub(super) fn introduce(&self, lane: &Lane) {
        locked(&self.state).known.entry(lane.project.clone()).or_default();
    }

    /// A lane has something that has not ended, or has nothing any more.
    pub(super) fn note(&self, lane: &Lane, has_work: bool) {
        let mut state = locked(&self.state);
        let State {
            kept, known, busy, ..
        } = &mut *state;
        let lanes = known.entry(lane.project.clone()).or_default();
        let before = *lanes;
        *lanes = match has_work {
            true => before + 1,
            false => before.saturating_sub(1),
        };
        if kept.contains(&lane.project) {
            return;
        }
        match (before, *lanes) {
            (0, 1) => *busy += 1,
            (1, 0) => *busy = busy.saturating_sub(1),
            _ => {}
        }
    }
}

/// Says before an event is taken whether its project has room.
#[derive(Clone)]
pub struct ProjectRoom {
    projects: Arc<Projects>,
}

impl ProjectRoom {
    pub(super) fn new(projects: &Arc<Projects>) -> ProjectRoom {
        ProjectRoom {
            projects: Arc::clone(projects),
        }
    }

    /// Whether a project has room beside `new`, which are those that the same append brings; it is one of them then, if it is new.
    ///
    /// # Errors
    /// `spool.max_projects` is reached: why, in one sentence with the remedy.
    pub fn admit(&self, project: &ProjectId, new: &mut BTreeSet<ProjectId>) -> Result<(), String> {
        let mut state = locked(&self.projects.state);
        if !state.has_room(project, new) {
            return Err(state.refusal());
        }
        if !state.known.contains_key(project) {
            new.insert(project.clone());
        }
        Ok(())
    }
}

impl std::fmt::Debug for ProjectRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProjectRoom").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Kind;

    fn id(text: &str) -> ProjectId {
        ProjectId::new(text).unwrap()
    }

    fn lane(project: &str, kind: Kind) -> Lane {
        Lane {
            project: id(project),
            kind,
        }
    }

    #[test]
    fn a_project_counts_while_it_has_work_and_one_that_is_known_or_has_a_key_always_has_room() {
        let projects = Arc::new(Projects::new(2, BTreeSet::from([id("keyed")])));
        let room = ProjectRoom::new(&projects);
        let mut new = BTreeSet::new();
        assert!(room.admit(&id("a"), &mut new).is_ok());
        assert!(room.admit(&id("b"), &mut new).is_ok());
        let refused = room.admit(&id("c"), &mut new).unwrap_err();
        assert!(refused.contains("spool.max_projects = 2"), "{refused}");
        assert!(room.admit(&id("keyed"), &mut new).is_ok());
        for project in ["a", "b", "keyed"] {
            projects.note(&lane(project, Kind::Log), true);
        }
        projects.note(&lane("a", Kind::Feedback), true);
        assert!(room.admit(&id("a"), &mut BTreeSet::new()).is_ok());
        assert!(room.admit(&id("c"), &mut BTreeSet::new()).is_err());
        projects.note(&lane("a", Kind::Log), false);
        assert!(
            room.admit(&id("c"), &mut BTreeSet::new()).is_err(),
            "its feedback waits"
        );
        projects.note(&lane("a", Kind::Feedback), false);
        assert!(room.admit(&id("c"), &mut BTreeSet::new()).is_ok());
        assert!(projects.newcomers(&[id("c"), id("d")], &BTreeSet::new()).is_err());
        projects.keep_room([id("b")]);
        assert!(projects.newcomers(&[id("c"), id("d")], &BTreeSet::new()).is_ok());
    }
}
