//! The feedback that a lane holds: one in flight per task, in order per task, oldest first among the tasks. Pure.

use crate::ids::{Seq, TaskId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// What a roster needs to know of what it holds.
pub(super) trait Entry {
    /// The task that it is about.
    fn task(&self) -> &TaskId;
    /// Its place in the order of acceptance.
    fn seq(&self) -> Seq;
    /// Not to be tried before this moment.
    fn not_before(&self) -> Option<Instant>;
    /// May be tried at any moment from now on.
    fn wake(&mut self);
    /// What it takes of memory, about.
    fn bytes(&self) -> usize;
}

/// Feedback by task.
#[derive(Debug)]
pub(super) struct Roster<T> {
    tasks: BTreeMap<TaskId, Row<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct Row<T> {
    waiting: VecDeque<T>,
    in_flight: bool,
}

impl<T: Entry> Roster<T> {
    pub(super) fn new() -> Self {
        Self {
            tasks: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// What all that is held takes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are held, those in flight included.
    pub(super) fn len(&self) -> usize {
        self.tasks
            .values()
            .map(|row| row.waiting.len() + usize::from(row.in_flight))
            .sum()
    }

    /// How many of those that wait are such.
    pub(super) fn count(&self, is_such: impl Fn(&T) -> bool) -> usize {
        let waiting = self.tasks.values().flat_map(|row| &row.waiting);
        waiting.filter(|entry| is_such(entry)).count()
    }

    /// Takes one up, behind what is held for its task.
    pub(super) fn admit(&mut self, entry: T) {
        self.bytes += entry.bytes();
        let row = self.tasks.entry(entry.task().clone()).or_insert(Row {
            waiting: VecDeque::new(),
            in_flight: false,
        });
        row.waiting.push_back(entry);
    }

    /// Gives out the oldest that may be tried now; its task is in flight until [`Roster::landed`] or [`Roster::back`].
    pub(super) fn next(&mut self, now: Instant) -> Option<T> {
        let row = self
            .tasks
            .values_mut()
            .filter(|row| !row.in_flight)
            .filter_map(|row| {
                row.waiting
                    .front()
                    .map(|head| (head.seq(), head.not_before()))
                    .map(|head| (head, row))
            })
            .filter(|((_, not_before), _)| not_before.is_none_or(|moment| moment <= now))
            .min_by_key(|((seq, _), _)| *seq)
            .map(|(_, row)| row)?;
        row.in_flight = true;
        row.waiting.pop_front()
    }

    /// Has those that wait and are such wait for no moment any more.
    pub(super) fn wake(&mut self, is_such: impl Fn(&T) -> bool) {
        let waiting = self.tasks.values_mut().flat_map(|row| &mut row.waiting);
        waiting.filter(|entry| is_such(entry)).for_each(Entry::wake);
    }

    /// Whether [`Roster::next`] would give one.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        let idle = self.tasks.values().filter(|row| !row.in_flight);
        let mut heads = idle.filter_map(|row| row.waiting.front());
        heads.any(|head| head.not_before().is_none_or(|moment| moment <= now))
    }

    /// When the next one may be tried that may not be yet.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        self.tasks
            .values()
            .filter(|row| !row.in_flight)
            .filter_map(|row| row.waiting.front()?.not_before())
            .min()
    }

    /// The feedback in flight has ended.
    pub(super) fn landed(&mut self, entry: &T) {
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        let task = entry.task();
        if let Some(row) = self.tasks.get_mut(task) {
            row.in_flight = false;
            if row.waiting.is_empty() {
                self.tasks.remove(task);
            }
        }
    }

    /// The feedback in flight is to be tried again: it stays the first of its task.
    pub(super) fn back(&mut self, entry: T) {
        let task = entry.task().clone();
        let row = self.tasks.entry(task).or_insert(Row {
            waiting: VecDeque::new(),
            in_flight: false,
        });
        row.in_flight = false;
        row.waiting.push_front(entry);
    }

    /// Empties the roster of what is not in flight, in the order of acceptance.
    pub(super) fn clear(&mut self) -> Vec<T> {
        let mut all: Vec<T> = self
            .tasks
            .values_mut()
            .flat_map(|row| row.waiting.drain(..))
            .collect();
        let bytes: usize = all.iter().map(Entry::bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        self.tasks.retain(|_, row| row.in_flight);
        all.sort_by_key(Entry::seq);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Note {
        task: TaskId,
        seq: u64,
        not_before: Option<Instant>,
    }

    impl Entry for Note {
        fn task(&self) -> &TaskId {
            &self.task
        }
        fn seq(&self) -> Seq {
            Seq(self.seq)
        }
        fn not_before(&self) -> Option<Instant> {
            self.not_before
        }
        fn wake(&mut self) {
            self.not_before = None;
        }
        fn bytes(&self) -> usize {
            10
        }
    }

    fn note(task: u8, seq: u64) -> Note {
        Note {
            task: TaskId::new(&format!("t{task}")).expect("an id"),
            seq,
            not_before: None,
        }
    }

    #[test]
    fn one_is_in_flight_per_task_and_a_later_one_waits_behind_it() {
        let (mut roster, now) = (Roster::new(), Instant::now());
        for (task, seq) in [(2, 1), (1, 2), (2, 3)] {
            roster.admit(note(task, seq));
        }
        let first = roster.next(now).expect("one is ready");
        assert_eq!(first.seq, 1);
        assert_eq!(roster.next(now).map(|n| n.seq), Some(2));
        assert_eq!(roster.next(now), None, "both tasks are in flight");
        roster.back(first);
        assert_eq!(
            roster.next(now).map(|n| n.seq),
            Some(1),
            "it stays the first of its task"
        );
        roster.landed(&note(2, 0));
        assert_eq!(roster.next(now).map(|n| n.seq), Some(3));
        assert_eq!((roster.len(), roster.bytes()), (2, 20));
    }

    #[test]
    fn one_that_waits_for_its_moment_holds_back_only_its_task() {
        let (mut roster, now) = (Roster::new(), Instant::now());
        let later = now + Duration::from_secs(5);
        roster.admit(Note {
            not_before: Some(later),
            ..note(1, 1)
        });
        roster.admit(note(1, 2));
        roster.admit(note(2, 3));
        assert_eq!(roster.next_moment(), Some(later));
        assert_eq!(roster.next(now).map(|n| n.seq), Some(3));
        assert_eq!(roster.next(now), None);
        assert_eq!(roster.next(later).map(|n| n.seq), Some(1));
        assert_eq!(roster.clear(), [note(1, 2)]);
        assert_eq!(roster.bytes(), 20, "two are in flight");
    }

    proptest! {
        #[test]
        fn every_one_is_given_out_once_and_in_order_within_its_task(tasks in prop::collection::vec(0u8..6, 0..60)) {
            let (mut roster, now) = (Roster::new(), Instant::now());
            for (seq, task) in tasks.iter().enumerate() {
                roster.admit(note(*task, seq as u64));
            }
            let mut given = Vec::new();
            while roster.len() > 0 {
                let mut flying = Vec::new();
                while let Some(note) = roster.next(now) {
                    flying.push(note);
                }
                prop_assert!(!flying.is_empty());
                for note in flying {
                    roster.landed(&note);
                    given.push(note);
                }
            }
            prop_assert_eq!((given.len(), roster.bytes()), (tasks.len(), 0));
            for task in 0..6 {
                let own = given.iter().filter(|n| n.task == note(task, 0).task).map(|n| n.seq);
                prop_assert!(own.is_sorted());
            }
        }
    }
}
