//! Times that the API will not keep: each is counted, and each project is told about once.

use crate::ids::ProjectId;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Most projects that are told about; clients may name any number of them.
const MOST_TOLD: usize = 1_024;

/// Projects that were told about.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashSet<ProjectId>>);

impl Told {
    /// Notes the projects of events with odd times; says so in the log for each that is new.
    pub(super) fn note(&self, projects: &[ProjectId]) {
        for project in self.fresh(projects) {
            tracing::warn!(
                %project,
                "an event's client_created_at, created_at or last_update is negative or more than a day ahead: the API \
                 will put the time of arrival in its place; send seconds since 1970, not milliseconds. Further ones are \
                 counted in phosphod_intake_odd_times_total"
            );
        }
    }

    fn fresh<'a>(&self, projects: &'a [ProjectId]) -> Vec<&'a ProjectId> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Vec::new();
        for project in projects {
            if told.len() < MOST_TOLD && !told.contains(project) {
                told.insert(project.clone());
                fresh.push(project);
            }
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_project_is_new_once_and_their_number_is_bounded() {
        let told = Told::default();
        let project = |n: usize| ProjectId::new(&format!("p{n}")).expect("an id");
        let (a, b) = (project(0), project(1));
        assert_eq!(told.fresh(&[a.clone(), b.clone(), a.clone()]), [&a, &b]);
        assert!(told.fresh(&[a, b]).is_empty());
        let many: Vec<_> = (0..2 * MOST_TOLD).map(project).collect();
        assert_eq!(told.fresh(&many).len(), MOST_TOLD - 2);
    }
}
