//! Finds the events that make the API lose a batch, by sending halves of it. Pure: it is told what was stored, and says what
//! to send next.
//!
//! A [`Strand`] is a row of events that is sent by one task. One that was lost and holds several sessions forks into two strands
//! of about the same size, which go side by side; the events of a session stay together and in order. The events of a
//! single session are halved in turn, front half first, so that none of them overtakes another.
//!
//! One event among 500 costs at most 22 requests after the first, however the sessions are distributed. After a few that are to blame
//! a strand goes on in small parts that double with each success.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

/// After so many events that were given up a strand is taken to be full of such events.
const DENSE: usize = 3;

/// Events that are sent one part after the other. `E` is whatever stands for an event.
#[derive(Debug)]
pub(super) struct Strand<E> {
    /// In order; with the number that stands for the event's session, `None` if it owes nobody an order.
    queue: VecDeque<(Option<u64>, E)>,
    /// So many events at the front were lost together.
    lost: usize,
    /// Something of this was lost twice, so an event of it is to blame and not a passing fault.
    is_proven: bool,
    /// Events in the part that was given out.
    part: usize,
    /// Events that were given up.
    given_up: usize,
    /// Most events in a part of which nothing is known.
    cap: usize,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next<E> {
    /// Send these as one request, see what is stored, and say so by [`Strand::stored`], [`Strand::lost`] or
    /// [`Strand::given_up`].
    Send(Vec<E>),
    /// Go on with these two, side by side.
    Fork([Strand<E>; 2]),
    /// Nothing is left.
    Done,
}

impl<E> Strand<E> {
    /// Events that were lost as one request. `session` gives the number that stands for an event's session.
    pub(super) fn new(events: Vec<E>, session: impl Fn(&E) -> Option<u64>) -> Self {
        let lost = events.len();
        let keyed = events.into_iter().map(|event| (session(&event), event));
        Self {
            queue: keyed.collect(),
            lost,
            is_proven: false,
            part: 0,
            given_up: 0,
            cap: usize::MAX,
        }
    }

    /// What to do next.
    pub(super) fn next(&mut self) -> Next<E> {
        if self.queue.is_empty() {
            return Next::Done;
        }
        if self.lost > 1 && self.lost == self.queue.len() && self.has_sessions() {
            let [first, second] = self.forked();
            return Next::Fork([first, second]);
        }
        let count = match self.lost {
            0 => self.queue.len().min(self.cap),
            lost => lost.div_ceil(2),
        };
        self.part = count;
        Next::Send(self.queue.drain(..count).map(|(_, event)| event).collect())
    }

    /// The part that was given out is stored.
    pub(super) fn stored(&mut self) {
        self.cap = self.cap.saturating_mul(2);
        // Then the event to blame is behind it, if there is one.
        self.lost = match self.is_proven {
            true => self.lost.saturating_sub(self.part),
            false => 0,
        };
    }

    /// Of the part that was given out these were lost, in order. There are several of them.
    pub(super) fn lost(&mut self, events: Vec<E>, session: impl Fn(&E) -> Option<u64>) {
        self.is_proven = true;
        self.lost = events.len();
        for event in events.into_iter().rev() {
            self.queue.push_front((session(&event), event));
        }
    }

    /// The part that was given out was a single event, which was lost and is given up.
    pub(super) fn given_up(&mut self) {
        self.is_proven = true;
        self.lost = 0;
        self.given_up += 1;
        if self.given_up >= DENSE {
            self.cap = 1;
        }
    }

    /// All that is left, in order.
    pub(super) fn into_rest(self) -> Vec<E> {
        self.queue.into_iter().map(|(_, event)| event).collect()
    }

    /// Whether the events are of more than one session.
    fn has_sessions(&self) -> bool {
        let first = self.queue.front().map(|(session, _)| *session);
        self.queue
            .iter()
            .any(|(session, _)| session.is_none() || Some(*session) != first)
    }

    /// Deals the sessions out to two strands, the largest first, each to the one that has less.
    fn forked(&mut self) -> [Strand<E>; 2] {
        let mut groups: Vec<usize> = Vec::new();
        let mut known: HashMap<u64, usize> = HashMap::new();
        let group_of: Vec<usize> = self
            .queue
            .iter()
            .map(|(session, _)| {
                let fresh = groups.len();
                let group = session.map_or(fresh, |session| *known.entry(session).or_insert(fresh));
                if group == fresh {
                    groups.push(0);
                }
                groups[group] += 1;
                group
            })
            .collect();
        let mut by_size: Vec<usize> = (0..groups.len()).collect();
        by_size.sort_by_key(|group| std::cmp::Reverse(groups[*group]));
        let (mut side_of, mut sizes) = (vec![0; groups.len()], [0, 0]);
        for group in by_size {
            let side = usize::from(sizes[1] < sizes[0]);
            side_of[group] = side;
            sizes[side] += groups[group];
        }
        let mut sides = [VecDeque::new(), VecDeque::new()];
        for (group, keyed) in group_of.into_iter().zip(self.queue.drain(..)) {
            sides[side_of[group]].push_back(keyed);
        }
        sides.map(|queue| Strand {
            queue,
            lost: 0,
            is_proven: true,
            part: 0,
            given_up: 0,
            cap: usize::MAX,
        })
    }
}
