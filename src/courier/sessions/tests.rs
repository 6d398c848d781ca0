use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    seq: usize,
    session: Option<u64>,
    bytes: usize,
}

impl Entry for Event {
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
    };
    sessions.iter().enumerate().map(event).collect()
}

fn numbers(events: &[Event]) -> Vec<usize> {
    events.iter().map(|event| event.seq).collect()
}

#[test]
fn a_session_in_flight_is_held_back_and_goes_first_once_its_batch_landed() {
    let mut sessions = Sessions::new();
    sessions.admit(events(&[1, 2, 1, 3, 0, 2, 4]));
    let (first, batch) = sessions.cut(&limits(2), true).expect("a batch");
    assert_eq!(numbers(&batch), [0, 1]);
    let (_, batch) = sessions.cut(&limits(2), true).expect("a batch");
    assert_eq!(numbers(&batch), [3, 4], "2 is of session 1");
    let (third, batch) = sessions.cut(&limits(2), true).expect("a batch");
    assert_eq!(numbers(&batch), [6], "5 is of session 2");
    assert!(sessions.cut(&limits(2), true).is_none());
    sessions.land(third);
    assert!(!sessions.any_free());
    sessions.land(first);
    let (_, batch) = sessions.cut(&limits(2), true).expect("a batch");
    assert_eq!(numbers(&batch), [2, 5]);
}

#[test]
fn nothing_goes_beside_a_batch_whose_sessions_are_unknown() {
    let mut sessions = Sessions::new();
    sessions.admit(events(&[1, 0, 2]));
    let (alone, batch) = sessions.cut(&limits(2), false).expect("a batch");
    assert_eq!(numbers(&batch), [0, 1]);
    assert!(!sessions.any_free());
    assert_eq!(sessions.cut(&limits(2), true), None);
    sessions.land(alone);
    assert!(sessions.any_free());
}

#[test]
fn company_may_be_of_a_session_in_its_own_batch_but_not_in_another() {
    let mut sessions = Sessions::new();
    sessions.admit(events(&[1, 2, 2, 1]));
    let (first, _) = sessions.cut(&limits(1), true).expect("a batch");
    let (_, _) = sessions.cut(&limits(1), true).expect("a batch");
    assert_eq!(sessions.join(first).map(|event| event.seq), Some(3));
    assert_eq!(sessions.join(first), None, "2 is of session 2");
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
    /// So many streams are allowed, and as much is leased and sent as that lets go.
    Fill(usize),
    /// A batch in flight is through.
    Land(usize),
    /// A batch in flight goes back to the lane.
    Leave(usize),
    /// A batch in flight takes another event.
    Join(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..6).prop_map(Step::Fill),
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
            Step::Fill(streams) => {
                if let Some(room) = self.sessions.room(limits) {
                    self.lease(&room);
                }
                while self.sessions.in_flight() < streams
                    && let Some((ticket, batch)) = self.sessions.cut(limits, streams > 1)
                {
                    self.flights.push((ticket, batch));
                    self.check_last_sent(count.min(self.flights.len() - 1)..);
                }
            }
            _ if count == 0 => {}
            Step::Land(which) => {
                let (ticket, batch) = self.flights.remove(which % count);
                self.sessions.land(ticket);
                self.ended.extend(batch);
            }
            Step::Leave(which) => {
                let (ticket, batch) = self.flights.remove(which % count);
                self.sessions.land(ticket);
                self.queued.extend(batch);
                self.queued.extend(self.sessions.give_up());
            }
            Step::Join(which) => {
                let at = which % count;
                let joined = self.sessions.join(self.flights[at].0);
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
        kinds in prop::collection::vec((0_u64..6, 1_usize..1_500), 1..80),
        steps in prop::collection::vec(step(), 0..120),
        max_events in 1_usize..8,
    ) {
        let limits = limits(max_events);
        let all: Vec<Event> = kinds.iter().enumerate().map(|(seq, &(session, bytes))| Event {
            seq, session: (session > 0).then_some(session), bytes,
        }).collect();
        let mut lane = Lane {
            sessions: Sessions::new(),
            queued: all.iter().copied().collect(),
            flights: Vec::new(),
            ended: BTreeSet::new(),
            all: all.clone(),
        };
        let last = all.len();
        let drain = std::iter::repeat_n([Step::Fill(3), Step::Land(0)], 2 * last + 8).flatten();
        for step in steps.into_iter().chain(drain) {
            lane.take(step, &limits);
            let waiting = lane.sessions.waiting.len();
            prop_assert!(waiting <= max_events, "{} wait", waiting);
            prop_assert_eq!(lane.sessions.bytes, lane.sessions.waiting.iter().map(|w| w.event.bytes).sum::<usize>());
            let in_flight: usize = lane.flights.iter().map(|(_, batch)| batch.len()).sum();
            prop_assert_eq!(lane.queued.len() + waiting + in_flight + lane.ended.len(), last);
        }
        prop_assert_eq!(lane.ended.len(), last, "all of it ends");
    }
}
