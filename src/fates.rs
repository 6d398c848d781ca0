//! What became of the latest events that were delivered: a bounded memory, for whoever asks about one.
//!
//! It is of this process only, and goes back as far as its [`MAX_DELIVERIES`] entries do. An entry knows its task by a keyed hash
//! of 64 bits, so all of them take about 4 MiB, however long the ids are; that two tasks share a hash is one case in
//! 10^14 a look.
use crate::ids::{Lane, TaskId};
use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Deliveries that are remembered; the oldest go first.
pub const MAX_DELIVERIES: usize = 65_536;

/// How it is known that an event was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Its task was read back from the API.
    ReadBack,
    /// The API answered that it has it. For feedback that is all there is.
    Answered,
    /// The API answered that it stored it beyond the quota, without analysing it.
    OverQuota,
    /// The API answered that it has it, and no URL of the API names its task, so that it cannot be asked for.
    Unaddressable,
}

impl Proof {
    /// Whether its task was seen, and not only promised.
    pub fn is_confirmed(self) -> bool {
        self == Proof::ReadBack
    }

    /// `read_back`, `answered`, `over_quota` or `unaddressable`.
    pub fn as_str(self) -> &'static str {
        match self {
            Proof::ReadBack => "read_back",
            Proof::Answered => "answered",
            Proof::OverQuota => "over_quota",
            Proof::Unaddressable => "unaddressable",
        }
    }
}

/// An event that was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it was queued.
    pub lane: Lane,
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// How that is known.
    pub proof: Proof,
}

/// How far the memory goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Deliveries in it.
    pub deliveries: usize,
    /// When the oldest of them was, if any is older than what it has forgotten; `None` while it has forgotten nothing since
    /// the daemon started. Milliseconds since 1970.
    pub since_ms: Option<u64>,
}

/// The memory. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Fates(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    hasher: RandomState,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Oldest first.
    deliveries: VecDeque<(u64, Delivery)>,
    forgot: bool,
}

impl Fates {
    /// Notes deliveries of a lane. `at_ms` is the wall clock.
    pub fn delivered(&self, lane: &Lane, tasks: impl IntoIterator<Item = TaskId>, at_ms: u64, proof: Proof) {
        let hashes: Vec<u64> = tasks.into_iter().map(|task| self.hash(&task)).collect();
        let mut memory = self.memory();
        for hash in hashes {
            if memory.deliveries.len() >= MAX_DELIVERIES {
                memory.deliveries.pop_front();
                memory.forgot = true;
            }
            let lane = lane.clone();
            memory
                .deliveries
                .push_back((hash, Delivery { lane, at_ms, proof }));
        }
    }

    /// What is remembered of a task, oldest first: its log, and each feedback. A look goes through all of the memory, which
    /// takes about as long as a small request.
    pub fn of(&self, task: &TaskId) -> Vec<Delivery> {
        let hash = self.hash(task);
        let memory = self.memory();
        let found = memory.deliveries.iter().filter(|(of, _)| *of == hash);
        found.map(|(_, delivery)| delivery.clone()).collect()
    }

    /// How far it goes back.
    pub fn reach(&self) -> Reach {
        let memory = self.memory();
        let oldest = memory.deliveries.front().map(|(_, delivery)| delivery.at_ms);
        Reach {
            deliveries: memory.deliveries.len(),
            since_ms: oldest.filter(|_| memory.forgot),
        }
    }

    fn hash(&self, task: &TaskId) -> u64 {
        self.0.hasher.hash_one(task.as_str())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Kind, ProjectId};

    fn task(name: impl ToString) -> TaskId {
        TaskId::new(&name.to_string()).expect("an id")
    }

    fn lane(kind: Kind) -> Lane {
        let project = ProjectId::new("p").expect("an id");
        Lane { project, kind }
    }

    #[test]
    fn a_task_is_remembered_with_all_that_was_delivered_of_it() {
        let fates = Fates::default();
        fates.delivered(&lane(Kind::Log), [task("a"), task("b")], 5, Proof::ReadBack);
        fates
            .clone()
            .delivered(&lane(Kind::Feedback), [task("a")], 9, Proof::Answered);
        let of = |name: &str| -> Vec<_> {
            let found = fates.of(&task(name)).into_iter();
            found
                .map(|found| (found.lane.kind, found.at_ms, found.proof))
                .collect()
        };
        assert_eq!(
            of("a"),
            [
                (Kind::Log, 5, Proof::ReadBack),
                (Kind::Feedback, 9, Proof::Answered)
            ]
        );
        assert_eq!(of("b"), [(Kind::Log, 5, Proof::ReadBack)]);
        assert_eq!(of("c"), []);
        assert_eq!(
            fates.reach(),
            Reach {
                deliveries: 3,
                since_ms: None
            }
        );
    }

    #[test]
    fn the_oldest_go_first_and_it_says_how_far_it_goes_back() {
        let fates = Fates::default();
        for n in 0..=MAX_DELIVERIES as u64 {
            fates.delivered(&lane(Kind::Log), [task(n)], 100 + n, Proof::Answered);
        }
        assert_eq!(fates.of(&task(0)), []);
        assert_eq!(fates.of(&task(1)).len(), 1);
        assert_eq!(fates.of(&task(MAX_DELIVERIES)).len(), 1);
        let reach = Reach {
            deliveries: MAX_DELIVERIES,
            since_ms: Some(101),
        };
        assert_eq!(fates.reach(), reach);
    }

    #[test]
    fn an_entry_is_small() {
        assert!(
            size_of::<(u64, Delivery)>() <= 56,
            "{}",
            size_of::<(u64, Delivery)>()
        );
    }
}
