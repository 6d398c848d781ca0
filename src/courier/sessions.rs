//! Which leased events may go into the next batch while others are in flight. Pure.
//!
//! **The rule.** An event waits while a batch with an event of its session is in flight, and while an earlier event of its
//! session waits. So the events of a session are sent in their order, however many streams there are; several in one batch
//! keep their order in it. Events without a session owe each other no order, but for those of one `task_id`, of which the API keeps the
//! first. What waits goes first as soon as it may.
//!
//! Reading an event's session costs time, so it is only done once a second stream is to be filled. A batch that was cut
//! before that is of *unknown* sessions: nothing is sent beside it until it has landed.
//!
//! **The bound.** What waits is never more than a batch: [`Sessions::room`] says how much more may be leased.

#[cfg(test)]
mod tests;

use crate::batch::Limits;
use crate::wire::json;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A number that stands for an event's session, or for its task if it has none. Two that share a number by chance only keep an
/// order that they need not. `None` for what is no event.
pub(super) fn key_of(event: &[u8]) -> Option<u64> {
    const KEYS: [&str; 2] = ["session_id", "task_id"];
    let mut values: [Option<&RawValue>; 2] = [None; 2];
    let wanted = |key: &str| KEYS.iter().position(|known| *known == key);
    let event = std::str::from_utf8(event).ok()?;
    json::for_each_field(event, wanted, |slot, value| values[slot] = Some(value)).ok()?;
    let text = |value: Option<&RawValue>| value.and_then(json::text_of).map(String::from);
    let mut hasher = DefaultHasher::new();
    match text(values[0]) {
        Some(session) => (0, session).hash(&mut hasher),
        None => (1, text(values[1])?).hash(&mut hasher),
    }
    Some(hasher.finish())
}

/// What is asked of an event.
pub(super) trait Entry {
    /// A number that stands for its session, the same for each event of it; `None` if it needs no order.
    fn session(&self) -> Option<u64>;
    /// Length in bytes.
    fn bytes(&self) -> usize;
}

/// A batch in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// One lane's leased events that are not in flight, and the sessions of those that are.
#[derive(Debug)]
pub(super) struct Sessions<E> {
    /// In order.
    waiting: VecDeque<Waiting<E>>,
    bytes: usize,
    /// The sessions of each batch in flight; `None`: unknown.
    flights: BTreeMap<Ticket, Option<HashSet<u64>>>,
    last: u64,
}

#[derive(Debug)]
struct Waiting<E> {
    event: E,
    /// `None`: not read yet.
    session: Option<Option<u64>>,
}

impl<E> Waiting<E>
where
    E: Entry,
{
    fn session(&mut self) -> Option<u64> {
        *self.session.get_or_insert_with(|| self.event.session())
    }
}

impl<E: Entry> Sessions<E> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            flights: BTreeMap::new(),
            last: 0,
        }
    }

    /// Batches in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// What may be leased to make a full batch with what waits; `None` if that is one already.
    pub(super) fn room(&self, limits: &Limits) -> Option<Limits> {
        let room = Limits {
            max_events: limits.max_events.saturating_sub(self.waiting.len()),
            max_bytes: limits.max_bytes.saturating_sub(self.bytes),
            ..*limits
        };
        (room.max_events > 0 && (self.waiting.is_empty() || room.max_bytes > 0)).then_some(room)
    }

    /// Takes events that were leased, which are later than all that wait.
    pub(super) fn admit(&mut self, events: impl IntoIterator<Item = E>) {
        for event in events {
            self.bytes += event.bytes();
            self.waiting.push_back(Waiting { event, session: None });
        }
    }

    /// Whether [`Sessions::cut`] would give anything.
    pub(super) fn any_free(&mut self) -> bool {
        !self.free(1, !self.flights.is_empty()).is_empty()
    }

    /// The next batch, within `limits`: all that may go, in order. `None` if nothing may. `beside`: whether others may be in
    /// flight beside it.
    pub(super) fn cut(&mut self, limits: &Limits, beside: bool) -> Option<(Ticket, Vec<E>)> {
        let beside = beside || !self.flights.is_empty();
        let free = self.free(limits.max_events, beside);
        let count = limits.cut(free.iter().map(|&at| self.waiting[at].event.bytes()));
        if count == 0 {
            return None;
        }
        self.last += 1;
        let ticket = Ticket(self.last);
        self.flights.insert(ticket, beside.then(HashSet::new));
        Some((ticket, self.board(ticket, &free[..count])))
    }

    /// One more event for a batch in flight: the first that may go beside the others, be it of a session in this one.
    pub(super) fn join(&mut self, ticket: Ticket) -> Option<E> {
        let own = self.flights.remove(&ticket)?;
        let first = self.free(1, true);
        self.flights.insert(ticket, own);
        self.board(ticket, &first).pop()
    }

    /// Notes that a batch needs nothing more to be sent.
    pub(super) fn land(&mut self, ticket: Ticket) {
        self.flights.remove(&ticket);
    }

    /// Gives up all that waits, in order: events of a batch are going back to the lane, and none of their sessions may
    /// overtake them.
    pub(super) fn give_up(&mut self) -> Vec<E> {
        self.bytes = 0;
        self.waiting.drain(..).map(|waiting| waiting.event).collect()
    }

    /// The places of the first events that may go, in order, at most `most`.
    fn free(&mut self, most: usize, read: bool) -> Vec<usize> {
        if self.flights.values().any(Option::is_none) {
            return Vec::new();
        }
        if !read {
            return (0..self.waiting.len().min(most)).collect();
        }
        let mut free = Vec::new();
        for (at, waiting) in self.waiting.iter_mut().enumerate() {
            if free.len() >= most {
                break;
            }
            // All that waits of a session waits for the same batch, so none of it can overtake another.
            if !waiting
                .session()
                .is_some_and(|session| busy(&self.flights, session))
            {
                free.push(at);
            }
        }
        free
    }

    /// Moves events, by place in order, into a batch in flight.
    fn board(&mut self, ticket: Ticket, places: &[usize]) -> Vec<E> {
        let mut places = places.iter().copied().peekable();
        let (mut taken, mut rest) = (Vec::new(), VecDeque::with_capacity(self.waiting.len()));
        for (at, waiting) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            if places.next_if_eq(&at).is_none() {
                rest.push_back(waiting);
                continue;
            }
            self.bytes -= waiting.event.bytes();
            if let (Some(session), Some(Some(sessions))) = (waiting.session, self.flights.get_mut(&ticket)) {
                sessions.extend(session);
            }
            taken.push(waiting.event);
        }
        self.waiting = rest;
        taken
    }
}

/// Whether a batch in flight has events of the session. There are as many as streams.
fn busy(flights: &BTreeMap<Ticket, Option<HashSet<u64>>>, session: u64) -> bool {
    flights
        .values()
        .flatten()
        .any(|sessions| sessions.contains(&session))
}
