use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Most requests that one event among 500 may cost: the batch itself, the search, and one try with token counts.
const MOST_REQUESTS: usize = 24;

/// How a search went.
#[derive(Debug, Default)]
struct Search {
    /// After the request that was lost first.
    requests: usize,
    /// In order of storage, if of those that go side by side the last fork goes first.
    stored: Vec<usize>,
    given_up: Vec<usize>,
    /// Most requests that had to be sent one after the other.
    rounds: usize,
}

/// Searches a lost batch of events of these sessions, of which the `bad` ones cannot be stored. The first `faults` requests
/// are lost whatever they hold.
fn search(sessions: &[Option<u64>], bad: &BTreeSet<usize>, mut faults: usize) -> Search {
    let mut search = Search::default();
    let events = (0..sessions.len()).collect();
    let mut strands = vec![(Strand::new(events, |event: &usize| sessions[*event]), 0)];
    while let Some((mut strand, mut rounds)) = strands.pop() {
        loop {
            match strand.next() {
                Next::Done => break,
                Next::Fork([first, second]) => {
                    strands.extend([(second, rounds), (first, rounds)]);
                    break;
                }
                Next::Send(part) => {
                    assert!(!part.is_empty());
                    search.requests += 1;
                    rounds += 1;
                    assert!(search.requests < 100_000, "it comes to an end");
                    let fault = faults > 0;
                    faults -= usize::from(fault);
                    if !fault && part.iter().all(|event| !bad.contains(event)) {
                        search.stored.extend(part);
                        strand.stored();
                    } else if part.len() > 1 {
                        strand.lost(part, |event| sessions[*event]);
                    } else {
                        search.given_up.extend(part);
                        strand.given_up();
                    }
                }
            }
        }
        assert!(strand.into_rest().is_empty());
        search.rounds = search.rounds.max(rounds);
    }
    search
}

fn no_sessions(count: usize) -> Vec<Option<u64>> {
    vec![None; count]
}

/// So many sessions, whose events take turns, the first ones having more.
fn skewed(count: usize, sessions: u64) -> Vec<Option<u64>> {
    let of = |at: usize| (at as u64 % (at as u64 % sessions + 1)) % sessions;
    (0..count).map(|at| Some(of(at))).collect()
}

#[test]
fn one_event_among_500_costs_at_most_24_requests_however_sessions_are_distributed() {
    let mut layouts = vec![no_sessions(500), vec![Some(1); 500]];
    for sessions in [2, 3, 5, 7, 50, 100, 250, 499] {
        layouts.push((0..500).map(|at| Some(at % sessions)).collect());
        layouts.push(skewed(500, sessions));
    }
    let mut most = 0;
    for (layout, sessions) in layouts.iter().enumerate() {
        for bad in 0..500 {
            let search = search(sessions, &BTreeSet::from([bad]), 0);
            assert_eq!(search.given_up, [bad]);
            assert_eq!(search.stored.len(), 499);
            let requests = 1 + search.requests + 1;
            assert!(
                requests <= MOST_REQUESTS,
                "{requests} for {bad} in layout {layout}"
            );
            most = most.max(requests);
        }
    }
    println!("at most {most} requests");
}

#[test]
fn without_sessions_it_takes_the_time_of_nine_answers_after_the_first() {
    for bad in 0..500 {
        assert!(search(&no_sessions(500), &BTreeSet::from([bad]), 0).rounds <= 9);
    }
}

#[test]
fn what_a_passing_fault_lost_is_stored_with_two_requests_more() {
    let none = BTreeSet::new();
    assert_eq!(search(&no_sessions(500), &none, 0).requests, 2);
    assert_eq!(search(&vec![Some(1); 500], &none, 0).requests, 2);
}

#[test]
fn a_single_event_is_sent_once_more_before_it_is_given_up() {
    let bad = BTreeSet::from([0]);
    assert_eq!(search(&no_sessions(1), &BTreeSet::new(), 0).stored, [0]);
    let search = search(&no_sessions(1), &bad, 0);
    assert_eq!((search.requests, search.given_up), (1, vec![0]));
}

#[test]
fn a_session_full_of_events_to_blame_costs_few_requests_for_each() {
    let bad: BTreeSet<usize> = (0..1000).step_by(10).collect();
    let search = search(&vec![Some(1); 1000], &bad, 0);
    assert_eq!((search.given_up.len(), search.stored.len()), (100, 900));
    assert!(search.requests <= 800, "{} requests", search.requests);
    let all = (0..100).collect();
    assert!(self::search(&vec![Some(1); 100], &all, 0).requests <= 130);
}

proptest! {
    #[test]
    fn every_good_event_is_stored_once_and_each_session_in_order(
        sessions in prop::collection::vec(prop::option::weighted(0.8, 0_u64..8), 1..120),
        bad in prop::collection::btree_set(0_usize..120, 0..12),
        faults in 0_usize..4,
    ) {
        let bad: BTreeSet<usize> = bad.into_iter().filter(|event| *event < sessions.len()).collect();
        let search = search(&sessions, &bad, faults);
        let mut all: Vec<usize> = search.stored.iter().chain(&search.given_up).copied().collect();
        all.sort_unstable();
        prop_assert_eq!(all, (0..sessions.len()).collect::<Vec<_>>());
        if faults == 0 {
            prop_assert_eq!(search.given_up.iter().copied().collect::<BTreeSet<_>>(), bad);
        }
        for session in sessions.iter().flatten() {
            let own = search.stored.iter().filter(|event| sessions[**event] == Some(*session));
            prop_assert!(own.is_sorted(), "session {}", session);
        }
        prop_assert!(search.requests <= 2 * sessions.len() + faults);
    }
}
