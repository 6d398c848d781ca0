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
//! **Closed sessions.** The sessions of a batch that was lost, or whose fate decides how others are sent, stay closed until it is
//! repaired. That takes no stream.
//!
//! **Apart.** Events that break the API's tokenizer go apart from all others while the upstream is asked whether it stores
//! them ([`token_counts`](super::token_counts)). An event that may be too large for the API's database goes alone, after what
//! waited beside it, and nothing goes beside it.
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
    /// Whether it breaks the API's tokenizer.
    fn breaks_tokenizer(&self) -> bool;
    /// Whether it may be too large for the API's database.
    fn is_large(&self) -> bool;
}

/// How the next batch is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct How {
    /// Others may be in flight beside it.
    pub(super) beside: bool,
    /// Nothing may overtake anything.
    pub(super) in_order: bool,
    /// Events that break the tokenizer are to be told from others, and each is to be taken for so many bytes more.
    pub(super) breaking: Option<usize>,
    /// So many of them at most make a batch of their own, and none goes with others before that.
    pub(super) ask: usize,
}

/// A batch that was cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch<E> {
    pub(super) ticket: Ticket,
    /// In order; whether each breaks the tokenizer, as far as that was asked.
    pub(super) events: Vec<(E, bool)>,
    /// It holds only events that break the tokenizer, and is to show what becomes of them.
    pub(super) is_question: bool,
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
    /// The sessions that are closed though nothing of them is in flight; `None`: all.
    closed: BTreeMap<Ticket, Option<HashSet<u64>>>,
    last: u64,
    /// Events that were admitted so far.
    admitted: u64,
    /// How many of those that wait may be too large.
    large: usize,
}

#[derive(Debug)]
struct Waiting<E> {
    event: E,
    /// `None`: not read yet.
    session: Option<Option<u64>>,
    /// The same.
    breaks: Option<bool>,
    is_large: bool,
    /// How many were admitted before it.
    nr: u64,
    /// How many had been admitted when a large one could first have gone.
    passed: Option<u64>,
}

impl<E> Waiting<E>
where
    E: Entry,
{
    fn session(&mut self) -> Option<u64> {
        *self.session.get_or_insert_with(|| self.event.session())
    }

    fn breaks(&mut self) -> bool {
        *self.breaks.get_or_insert_with(|| self.event.breaks_tokenizer())
    }
}

/// The places of what goes next.
enum Choice {
    /// Events of any kind.
    Usual(Vec<usize>),
    /// Events that break the tokenizer.
    Question(Vec<usize>),
    /// One that may be too large.
    Large(usize),
}

impl<E: Entry> Sessions<E> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            flights: BTreeMap::new(),
            closed: BTreeMap::new(),
            last: 0,
            admitted: 0,
            large: 0,
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
            let is_large = event.is_large();
            self.large += usize::from(is_large);
            self.waiting.push_back(Waiting {
                event,
                session: None,
                breaks: None,
                is_large,
                nr: self.admitted,
                passed: None,
            });
            self.admitted += 1;
        }
    }

    /// Whether [`Sessions::cut`] would give anything.
    pub(super) fn any_free(&mut self, how: &How) -> bool {
        self.choose(1, how).is_some()
    }

    /// The next batch, within `limits`: all that may go, in order. `None` if nothing may.
    pub(super) fn cut(&mut self, limits: &Limits, how: &How) -> Option<Batch<E>> {
        let choice = self.choose(limits.max_events, how)?;
        let is_question = matches!(choice, Choice::Question(_));
        let (places, sessions) = match choice {
            Choice::Large(place) => (vec![place], None),
            Choice::Question(places) => (places, Some(HashSet::new())),
            Choice::Usual(places) => {
                let reads = self.reads(how);
                (places, reads.then(HashSet::new))
            }
        };
        let added = how.breaking.unwrap_or_default();
        let lengths = places.iter().map(|&at| {
            let waiting = &mut self.waiting[at];
            let grows = how.breaking.is_some() && waiting.breaks();
            waiting.event.bytes() + if grows { added } else { 0 }
        });
        let count = limits.cut(lengths);
        if count == 0 {
            return None;
        }
        let ticket = self.ticket();
        self.flights.insert(ticket, sessions);
        let events = self.board(ticket, &places[..count]);
        Some(Batch {
            ticket,
            events,
            is_question,
        })
    }

    /// One more event for a batch in flight: the first that may go beside the others, be it of a session in this one.
    pub(super) fn join(&mut self, ticket: Ticket, in_order: bool) -> Option<E> {
        let own = self.flights.remove(&ticket)?;
        let how = How {
            beside: true,
            in_order,
            breaking: None,
            ask: 0,
        };
        let first = self.usual(1, &how);
        self.flights.insert(ticket, own);
        self.board(ticket, &first).pop().map(|(event, _)| event)
    }

    /// Notes that a batch needs nothing more to be sent, or that closed sessions may go on.
    pub(super) fn land(&mut self, ticket: Ticket) {
        self.flights.remove(&ticket);
        self.closed.remove(&ticket);
    }

    /// Notes that a batch needs nothing more to be sent for now, and keeps its sessions closed.
    pub(super) fn keep_closed(&mut self, ticket: Ticket, in_order: bool) {
        if let Some(sessions) = self.flights.remove(&ticket) {
            self.closed.insert(ticket, sessions.filter(|_| !in_order));
        }
    }

    /// Closes the sessions of events that have to be sent again, until the ticket lands.
    pub(super) fn close(&mut self, sessions: impl Iterator<Item = Option<u64>>, in_order: bool) -> Ticket {
        let ticket = self.ticket();
        let sessions = (!in_order).then(|| sessions.flatten().collect());
        self.closed.insert(ticket, sessions);
        ticket
    }

    /// Gives up all that waits, in order: events of a batch are going back to the lane, and none of their sessions may
    /// overtake them.
    pub(super) fn give_up(&mut self) -> Vec<E> {
        (self.bytes, self.large) = (0, 0);
        self.waiting.drain(..).map(|waiting| waiting.event).collect()
    }

    fn ticket(&mut self) -> Ticket {
        self.last += 1;
        Ticket(self.last)
    }

    /// Whether the sessions of a batch have to be read.
    fn reads(&self, how: &How) -> bool {
        how.beside || how.ask > 0 || !self.flights.is_empty() || !self.closed.is_empty()
    }

    /// The places of the first events that may go, in order, at most `most`.
    fn choose(&mut self, most: usize, how: &How) -> Option<Choice> {
        if self
            .flights
            .values()
            .chain(self.closed.values())
            .any(Option::is_none)
        {
            return None;
        }
        if self.large > 0
            && let Some(place) = self.due_large(how)
        {
            return self.flights.is_empty().then_some(Choice::Large(place));
        }
        if how.ask > 0 {
            let places = self.question(most.min(how.ask), how);
            if !places.is_empty() {
                return Some(Choice::Question(places));
            }
        }
        let places = self.usual(most, how);
        (!places.is_empty()).then_some(Choice::Usual(places))
    }

    /// Events of any kind that may go. If there is to be a question, those for it stay, and what follows them in their sessions.
    fn usual(&mut self, most: usize, how: &How) -> Vec<usize> {
        if !self.reads(how) && self.large == 0 {
            return (0..self.waiting.len().min(most)).collect();
        }
        let mut left = how.ask;
        self.free(most, how, |waiting| {
            let stays = left > 0 && waiting.breaks();
            left -= usize::from(stays);
            !stays && !waiting.is_large
        })
    }

    /// Events that break the tokenizer and are the next of their sessions.
    fn question(&mut self, most: usize, how: &How) -> Vec<usize> {
        self.free(most, how, |waiting| !waiting.is_large && waiting.breaks())
    }

    /// Events that are wanted, of sessions in which nothing before them waits or is on its way. `wants` is asked of each
    /// once, and only of those that may go.
    fn free(&mut self, most: usize, how: &How, mut wants: impl FnMut(&mut Waiting<E>) -> bool) -> Vec<usize> {
        let (mut free, mut barred) = (Vec::new(), HashSet::new());
        for (at, waiting) in self.waiting.iter_mut().enumerate() {
            if free.len() >= most {
                break;
            }
            let session = waiting.session();
            let is_closed = session.is_some_and(|session| {
                barred.contains(&session) || busy(&self.flights, session) || busy(&self.closed, session)
            });
            if !is_closed && wants(waiting) {
                free.push(at);
            } else if how.in_order {
                break;
            } else {
                barred.extend(session);
            }
        }
        free
    }

    /// The first that may be too large, if it is its turn: once all that was there when it could first have gone is gone.
    fn due_large(&mut self, how: &How) -> Option<usize> {
        let mut barred = HashSet::new();
        let (mut large, mut first) = (None, None);
        for (at, waiting) in self.waiting.iter_mut().enumerate() {
            let session = waiting.session();
            let is_closed = session.is_some_and(|session| {
                barred.contains(&session) || busy(&self.flights, session) || busy(&self.closed, session)
            });
            match (is_closed, waiting.is_large) {
                (false, true) if large.is_none() => large = Some(at),
                (false, false) if first.is_none() => first = Some(waiting.nr),
                _ => {}
            }
            if is_closed || waiting.is_large {
                barred.extend(session);
            }
            if how.in_order || large.is_some() && first.is_some() {
                break;
            }
        }
        let admitted = self.admitted;
        let passed = *self.waiting[large?].passed.get_or_insert(admitted);
        first.is_none_or(|first| first >= passed).then_some(large?)
    }

    /// Moves events, by place in order, into a batch in flight.
    fn board(&mut self, ticket: Ticket, places: &[usize]) -> Vec<(E, bool)> {
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
            self.large -= usize::from(waiting.is_large);
            taken.push((waiting.event, waiting.breaks.unwrap_or(false)));
        }
        self.waiting = rest;
        taken
    }
}

/// Whether one of the batches has events of the session. There are as many as streams, or as confirmations.
fn busy(flights: &BTreeMap<Ticket, Option<HashSet<u64>>>, session: u64) -> bool {
    flights
        .values()
        .flatten()
        .any(|sessions| sessions.contains(&session))
}
