use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    seq: usize,
    session: Option<u64>,
    bytes: usize,
    breaks: bool,
    large: bool,
}

impl Entry for Event {
    fn breaks_tokenizer(&self) -> bool {
        self.breaks
    }
    fn is_large(&self) -> bool {
        self.large
    }
    fn session(&self) -> Option<u64> {
        self.session
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

fn limits(max_events: usize) -> Limits {
    Limits {
        max_events,
        max_bytes: 4_000,
        max_age: Duration::ZERO,
    }
}

/// Events of these sessions (0: none), numbered in their order.
fn events(sessions: &[u64]) -> Vec<Event> {
    let event = |(seq, &session)| Event {
        seq,
        session: (session > 0).then_some(session),
        bytes: 10,
        breaks: false,
        large: false,
    };
    sessions.iter().enumerate().map(event).collect()
}

const fn how(beside: bool) -> How {
    How {
        beside,
        in_order: false,
        breaking: None,
        ask: 0,
    }
}

/// While the upstream is asked with at most so many events.
const fn asking(ask: usize) -> How {
    How {
        beside: true,
        in_order: false,
        breaking: Some(10),
        ask,
    }
}

fn numbers(events: &[(Event, bool)]) -> Vec<usize> {
    events.iter().map(|(event, _)| event.seq).collect()
}

/// The next batch: its ticket, and the numbers of its events.
fn cut(sessions: &mut Sessions<Event>, max_events: usize, how: &How) -> Option<(Ticket, Vec<usize>)> {
    let batch = sessions.cut(&limits(max_events), how)?;
    Some((batch.ticket, numbers(&batch.events)))
}

#[test]
fn a_session_in_flight_is_held_back_and_goes_first_once_its_batch_landed() {
    let mut sessions = Sessions::new();
    sessions.admit(events(&[1, 2, 1, 3, 0, 2, 4]));
    let (first, batch) = cut(&mut sessions, 2, &how(true)).expect("a batch");
    assert_eq!(batch, [0, 1]);
    let (_, batch) = cut(&mut sessions, 2, &how(true)).expect("a batch");
    assert_eq!(batch, [3, 4], "2 is of session 1");
    let (third, batch) = cut(&mut sessions, 2, &how(true)).expect("a batch");
    assert_eq!(batch, [6], "5 is of session 2");
    assert!(cut(&mut sessions, 2, &how(true)).is_none());
    sessions.land(third);
    assert!(!sessions.any_free(&how(true)));
    sessions.land(first);
    let (_, batch) = cut(&mut sessions, 2, &how(true)).expect("a batch");
    assert_eq!(batch, [2, 5]);
}

#[test]
fn nothing_goes_beside_a_batch_whose_sessions_are_unknown() {
    let mut sessions = Sessions::new();
    sessions.admit(events(&[1, 0, 2]));
    let (alone, batch) = cut(&mut sessions, 2, &how(false)).expect("a batch");
    assert_eq!(batch, [0, 1]);
    assert!(!sessions.any_free(&how(true)));
    assert_eq!(cut(&mut sessions, 2, &how(true)), None);
    sessions.land(alone);
    assert!(sessions.any_free(&how(true)));
}

#[test]
fn company_may_be_of_a_session_in_its_own_batch_but_not_in_another() {
    let mut sessions = Sessions::new();
    sessions.admit(events(&[1, 2, 2, 1]));
    let (first, _) = cut(&mut sessions, 1, &how(true)).expect("a batch");
    cut(&mut sessions, 1, &how(true)).expect("a batch");
    assert_eq!(sessions.join(first, false).map(|event| event.seq), Some(3));
    assert_eq!(sessions.join(first, false), None, "2 is of session 2");
}

/// Events of these sessions, of which some break the tokenizer.
fn breaking(sessions: &[u64], breaking: &[usize]) -> Vec<Event> {
    let mut events = events(sessions);
    breaking.iter().for_each(|at| events[*at].breaks = true);
    events
}

#[test]
fn what_breaks_the_tokenizer_goes_apart_and_what_follows_it_in_its_session_waits() {
    let mut sessions = Sessions::new();
    sessions.admit(breaking(&[1, 2, 1, 3, 1, 2, 0], &[2, 5]));
    let batch = sessions.cut(&limits(9), &asking(usize::MAX)).expect("a batch");
    assert_eq!(numbers(&batch.events), [0, 1, 3, 6], "4 is behind 2");
    assert!(!batch.is_question);
    assert!(
        !sessions.any_free(&asking(usize::MAX)),
        "2 and 5 are behind 0 and 1"
    );
    sessions.land(batch.ticket);
    let question = sessions.cut(&limits(9), &asking(usize::MAX)).expect("a batch");
    assert_eq!(
        question
            .events
            .iter()
            .map(|(event, breaks)| (event.seq, *breaks))
            .collect::<Vec<_>>(),
        [(2, true), (5, true)]
    );
    assert!(question.is_question);
    sessions.keep_closed(question.ticket, false);
    assert_eq!(
        sessions.in_flight(),
        0,
        "a question that was sent takes no stream"
    );
    sessions.admit(breaking(&[3, 1], &[0]));
    let (_, batch) = cut(&mut sessions, 9, &asking(0)).expect("a batch");
    assert_eq!(batch, [0], "session 1 is closed");
    sessions.land(question.ticket);
    assert_eq!(cut(&mut sessions, 9, &asking(0)).expect("a batch").1, [4, 1]);
}

#[test]
fn a_question_of_one_event_takes_the_first_and_leaves_the_others_among_the_rest() {
    let mut sessions = Sessions::new();
    sessions.admit(breaking(&[1, 2, 3, 1], &[0, 1]));
    let question = sessions.cut(&limits(9), &asking(1)).expect("a batch");
    assert_eq!((numbers(&question.events), question.is_question), (vec![0], true));
    let batch = sessions.cut(&limits(9), &asking(0)).expect("a batch");
    assert_eq!((numbers(&batch.events), batch.is_question), (vec![1, 2], false));
}

#[test]
fn in_order_nothing_overtakes_a_question_or_what_is_repaired() {
    let strict = How {
        in_order: true,
        beside: false,
        ..asking(usize::MAX)
    };
    let mut sessions = Sessions::new();
    sessions.admit(breaking(&[1, 2, 3, 4], &[1, 2]));
    let (first, batch) = cut(&mut sessions, 9, &strict).expect("a batch");
    assert_eq!(batch, [0]);
    sessions.land(first);
    let question = sessions.cut(&limits(9), &strict).expect("a batch");
    assert_eq!(
        (numbers(&question.events), question.is_question),
        (vec![1, 2], true)
    );
    sessions.keep_closed(question.ticket, true);
    assert!(!sessions.any_free(&strict), "nothing overtakes it");
    sessions.land(question.ticket);
    let repair = sessions.close([Some(9)].into_iter(), true);
    assert!(!sessions.any_free(&strict), "nothing overtakes what is repaired");
    sessions.land(repair);
    assert_eq!(cut(&mut sessions, 9, &strict).expect("a batch").1, [3]);
}

#[test]
fn the_sessions_of_a_lost_batch_are_closed_until_it_is_repaired() {
    let mut sessions = Sessions::new();
    sessions.admit(events(&[1, 2, 0]));
    let repair = sessions.close([Some(1), None].into_iter(), false);
    let (other, batch) = cut(&mut sessions, 9, &how(false)).expect("a batch");
    assert_eq!(batch, [1, 2]);
    sessions.land(other);
    assert!(!sessions.any_free(&how(false)));
    sessions.land(repair);
    assert_eq!(cut(&mut sessions, 9, &how(false)).expect("a batch").1, [0]);
}

#[test]
fn what_may_be_too_large_goes_alone_after_what_waited_beside_it() {
    let mut sessions = Sessions::new();
    let mut all = events(&[1, 2, 1, 3, 4]);
    all[1].large = true;
    sessions.admit(all.drain(..4));
    let (first, batch) = cut(&mut sessions, 2, &how(true)).expect("a batch");
    assert_eq!(batch, [0, 2]);
    // What comes later does not hold it up, and what was there does.
    sessions.admit(all);
    let (second, batch) = cut(&mut sessions, 1, &how(true)).expect("a batch");
    assert_eq!(batch, [3]);
    assert!(
        !sessions.any_free(&how(true)),
        "nothing may be in flight beside it"
    );
    sessions.land(first);
    sessions.land(second);
    let (large, batch) = cut(&mut sessions, 9, &how(true)).expect("a batch");
    assert_eq!(batch, [1]);
    assert!(!sessions.any_free(&how(true)), "nothing goes beside it");
    sessions.land(large);
    assert_eq!(cut(&mut sessions, 9, &how(true)).expect("a batch").1, [4]);
}

#[test]
fn in_order_what_may_be_too_large_goes_in_its_turn() {
    let strict = How {
        in_order: true,
        ..how(false)
    };
    let mut sessions = Sessions::new();
    let mut all = events(&[1, 2, 3]);
    all[1].large = true;
    sessions.admit(all);
    for expected in [vec![0], vec![1], vec![2]] {
        let (ticket, batch) = cut(&mut sessions, 9, &strict).expect("a batch");
        assert_eq!(batch, expected);
        sessions.land(ticket);
    }
}

#[test]
fn what_counts_add_is_within_the_limit_of_a_batch() {
    let mut sessions = Sessions::new();
    sessions.admit(breaking(&[1, 2, 3], &[0, 1]));
    let tight = Limits {
        max_bytes: crate::batch::body([&[b'x'; 20][..], &[b'x'; 20]]).len(),
        ..limits(9)
    };
    let batch = sessions.cut(&tight, &asking(0)).expect("a batch");
    assert_eq!(numbers(&batch.events), [0, 1]);
}

#[test]
fn an_event_s_key_is_its_session_whatever_way_that_is_written_and_else_its_task() {
    let key = |text: &str| key_of(text.as_bytes());
    let a = key(r#"{"session_id":"a","task_id":"1"}"#);
    assert!(a.is_some());
    assert_eq!(a, key(r#"{"task_id":"2", "session_id": "\u0061"}"#));
    assert_ne!(a, key(r#"{"task_id":"1","session_id":"b"}"#));
    let task = key(r#"{"task_id":"a"}"#);
    assert_ne!(a, task, "a task is no session");
    assert_eq!(
        task,
        key(r#"{"session_id":null,"input":{"session_id":"x"},"task_id":"a"}"#)
    );
    assert_ne!(task, key(r#"{"task_id":"b"}"#));
    assert_eq!(key("{}"), None);
    assert_eq!(key("[]"), None);
}

/// What happens to a lane.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many streams are allowed, and as much is leased and sent as that lets go, while so many events are to be asked with.
    Fill(usize, usize),
    /// A batch in flight was sent, and its sessions stay closed.
    Close(usize),
    /// They are opened again.
    Open(usize),
    /// A batch in flight is through.
    Land(usize),
    /// A batch in flight goes back to the lane.
    Leave(usize),
    /// A batch in flight takes another event.
    Join(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..6, prop::sample::select(vec![0, 0, 1, usize::MAX])).prop_map(|(streams, ask)| Step::Fill(streams, ask)),
        1 => any::<usize>().prop_map(Step::Close),
        1 => any::<usize>().prop_map(Step::Open),
        3 => any::<usize>().prop_map(Step::Land),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::Join),
    ]
}

/// A lane: what is queued, what is in flight, what has ended.
struct Lane {
    sessions: Sessions<Event>,
    queued: BTreeSet<Event>,
    flights: Vec<(Ticket, Vec<Event>)>,
    closed: Vec<(Ticket, Vec<Event>)>,
    ended: BTreeSet<Event>,
    all: Vec<Event>,
}

impl Lane {
    fn lease(&mut self, limits: &Limits) {
        let queued: Vec<Event> = self.queued.iter().copied().collect();
        let count = limits
            .cut(queued.iter().map(|event| event.bytes))
            .min(limits.max_events);
        for event in &queued[..count] {
            self.queued.remove(event);
        }
        self.sessions.admit(queued[..count].to_vec());
    }

    fn take(&mut self, step: Step, limits: &Limits) {
        let count = self.flights.len();
        match step {
            Step::Open(which) => {
                if let Some(at) = which.checked_rem(self.closed.len()) {
                    let (ticket, batch) = self.closed.remove(at);
                    self.sessions.land(ticket);
                    self.ended.extend(batch);
                }
            }
            Step::Fill(streams, ask) => {
                if let Some(room) = self.sessions.room(limits) {
                    self.lease(&room);
                }
                let how = How {
                    beside: streams > 1,
                    ..asking(ask)
                };
                while self.sessions.in_flight() < streams {
                    let free = self.sessions.any_free(&how);
                    let batch = self.sessions.cut(limits, &how);
                    assert_eq!(free, batch.is_some(), "whether something may go");
                    let Some(batch) = batch else { break };
                    let events: Vec<Event> = batch.events.iter().map(|(event, _)| *event).collect();
                    assert!(batch.events.iter().all(|(event, breaks)| event.breaks == *breaks));
                    assert!(
                        !batch.is_question || events.iter().all(|event| event.breaks) && events.len() <= ask
                    );
                    let large = events.iter().any(|event| event.large);
                    assert!(!large || events.len() == 1 && self.flights.is_empty(), "alone");
                    self.flights.push((batch.ticket, events));
                    self.check_last_sent(count.min(self.flights.len() - 1)..);
                }
            }
            _ if count == 0 => {}
            Step::Land(which) => {
                let (ticket, batch) = self.flights.remove(which % count);
                self.sessions.land(ticket);
                self.ended.extend(batch);
            }
            Step::Close(which) => {
                let (ticket, batch) = self.flights.remove(which % count);
                self.sessions.keep_closed(ticket, false);
                self.closed.push((ticket, batch));
            }
            Step::Leave(which) => {
                let (ticket, batch) = self.flights.remove(which % count);
                self.sessions.land(ticket);
                self.queued.extend(batch);
                self.queued.extend(self.sessions.give_up());
            }
            Step::Join(which) => {
                let at = which % count;
                let joined = self.sessions.join(self.flights[at].0, false);
                self.flights[at].1.extend(joined);
                self.check_last_sent(at..=at);
            }
        }
    }

    /// All events of the same session that were accepted before one that is being sent have ended or stand before it.
    fn check_last_sent(
        &self,
        which: impl std::slice::SliceIndex<[(Ticket, Vec<Event>)], Output = [(Ticket, Vec<Event>)]>,
    ) {
        for (_, batch) in &self.flights[which] {
            for (at, event) in batch.iter().enumerate() {
                let earlier = self.all[..event.seq]
                    .iter()
                    .filter(|earlier| earlier.session == event.session);
                for earlier in earlier.filter(|earlier| earlier.session.is_some()) {
                    assert!(
                        self.ended.contains(earlier) || batch[..at].contains(earlier),
                        "{event:?} overtakes {earlier:?}"
                    );
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn sessions_keep_their_order_nothing_is_lost_and_what_waits_is_bounded(
        kinds in prop::collection::vec((0_u64..6, 1_usize..1_500, prop::bool::weighted(0.2), prop::bool::weighted(0.05)), 1..80),
        steps in prop::collection::vec(step(), 0..120),
        max_events in 1_usize..8,
    ) {
        let limits = limits(max_events);
        let all: Vec<Event> = kinds.iter().enumerate().map(|(seq, &(session, bytes, breaks, large))| Event {
            seq, session: (session > 0).then_some(session), bytes, breaks, large,
        }).collect();
        let mut lane = Lane {
            sessions: Sessions::new(),
            queued: all.iter().copied().collect(),
            flights: Vec::new(),
            closed: Vec::new(),
            ended: BTreeSet::new(),
            all: all.clone(),
        };
        let last = all.len();
        let drain = std::iter::repeat_n([Step::Fill(3, usize::MAX), Step::Land(0), Step::Open(0)], 2 * last + 8).flatten();
        for step in steps.into_iter().chain(drain) {
            lane.take(step, &limits);
            let waiting = lane.sessions.waiting.len();
            prop_assert!(waiting <= max_events, "{} wait", waiting);
            prop_assert_eq!(lane.sessions.bytes, lane.sessions.waiting.iter().map(|w| w.event.bytes).sum::<usize>());
            let in_flight: usize = lane.flights.iter().chain(&lane.closed).map(|(_, batch)| batch.len()).sum();
            prop_assert_eq!(lane.queued.len() + waiting + in_flight + lane.ended.len(), last);
        }
        prop_assert_eq!(lane.ended.len(), last, "all of it ends");
    }
}
