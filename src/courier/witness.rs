//! By which event of a request to tell whether the API stored it (contract.md "200 does not mean stored"). Pure.
//!
//! The API stores a request as a whole or not at all, so one task tells about all of it; but only one that nothing else
//! can have brought there. Of several events with one task id, such as the parts of a stream, the API keeps the first: when
//! the task of one is there, that says nothing about the request that it came with. So it is remembered which event was
//! sent under a task, and a task under which a second one was sent tells nothing any more.
//!
//! What an earlier process sent is not remembered, so for a while after the start a task may be there by an earlier part of its
//! stream: [`Witnesses::wanted`] then asks for several that agree. A request of which all of them are such parts would
//! still pass.

use crate::ids::{Seq, TaskId};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Tasks that are remembered; the oldest go first, and then tell nothing. About 3 MiB.
const MOST: usize = 65_536;

/// So long after the start parts of streams that an earlier process began may still come.
const EARLY: Duration = Duration::from_secs(15 * 60);

/// How many witnesses a request needs as long as that.
const WANTED_EARLY: usize = 4;

/// The tasks of events that were sent lately, by a keyed hash, and the only event that was sent under each; `None` if there
/// were several. Two tasks that share a hash by chance cost some GETs.
#[derive(Debug)]
pub(super) struct Witnesses {
    start: Instant,
    keys: RandomState,
    sent: HashMap<u64, Option<Seq>>,
    order: VecDeque<u64>,
}

impl Witnesses {
    /// `start`: when the process started.
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            keys: RandomState::new(),
            sent: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// How many witnesses of a request have to be stored, if it has so many.
    pub(super) fn wanted(&self, now: Instant) -> usize {
        match now.saturating_duration_since(self.start) < EARLY {
            true => WANTED_EARLY,
            false => 1,
        }
    }

    /// Notes that an event is about to be sent.
    pub(super) fn sends(&mut self, task: &TaskId, event: Seq) {
        let hash = self.keys.hash_one(task);
        if let Some(only) = self.sent.get_mut(&hash) {
            if *only != Some(event) {
                *only = None;
            }
            return;
        }
        self.sent.insert(hash, Some(event));
        self.order.push_back(hash);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.sent.remove(&oldest);
        }
    }

    /// Whether only this event can have brought the task to the API, as far as this process knows.
    pub(super) fn tells(&self, task: &TaskId, event: Seq) -> bool {
        self.sent.get(&self.keys.hash_one(task)) == Some(&Some(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> TaskId {
        TaskId::new(name).expect("an id")
    }

    #[test]
    fn a_task_tells_until_a_second_event_is_sent_under_it() {
        let mut witnesses = Witnesses::new(Instant::now());
        assert!(!witnesses.tells(&task("a"), Seq(1)), "nothing was sent");
        witnesses.sends(&task("a"), Seq(1));
        witnesses.sends(&task("a"), Seq(1));
        assert!(witnesses.tells(&task("a"), Seq(1)), "it was sent again");
        assert!(!witnesses.tells(&task("a"), Seq(2)) && !witnesses.tells(&task("b"), Seq(1)));
        witnesses.sends(&task("a"), Seq(2));
        assert!(!witnesses.tells(&task("a"), Seq(1)) && !witnesses.tells(&task("a"), Seq(2)));
        witnesses.sends(&task("a"), Seq(1));
        assert!(!witnesses.tells(&task("a"), Seq(1)), "it never tells again");
    }

    #[test]
    fn after_a_start_several_have_to_agree() {
        let start = Instant::now();
        let witnesses = Witnesses::new(start);
        assert_eq!(witnesses.wanted(start), WANTED_EARLY);
        assert_eq!(witnesses.wanted(start + EARLY), 1);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut witnesses = Witnesses::new(Instant::now());
        for nr in 0..=MOST {
            witnesses.sends(&task(&format!("t{nr}")), Seq(nr as u64));
        }
        assert_eq!((witnesses.sent.len(), witnesses.order.len()), (MOST, MOST));
        assert!(!witnesses.tells(&task("t0"), Seq(0)));
        assert!(witnesses.tells(&task("t1"), Seq(1)));
    }
}
