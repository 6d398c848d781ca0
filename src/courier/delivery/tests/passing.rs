//! Refusals of something in between, and passing faults that have to do with what is sent.

use super::*;

/// How a delivery went until it was done or parked.
#[derive(Debug, Default)]
struct Way {
    requests: usize,
    waits: usize,
    accepted: Vec<usize>,
    buried: Vec<usize>,
    deferred: Vec<usize>,
    parked: Option<String>,
    rest: Vec<usize>,
}

impl Way {
    fn sorted(mut self) -> Self {
        self.buried.sort_unstable();
        self.deferred.sort_unstable();
        self
    }
}

fn blocked(own: bool) -> LogVerdict {
    LogVerdict::Blocked(Blocked {
        own,
        park: "parked".into(),
        refusal: "between".into(),
    })
}

fn accepted(part: &[usize]) -> LogVerdict {
    LogVerdict::Answered(part.iter().map(|_| Fate::Accepted).collect())
}

/// Plays a delivery of so many events; `answer` is told the number of the request and what it holds.
fn play(events: usize, answer: impl FnMut(usize, &[usize]) -> LogVerdict) -> Way {
    go_on(whole(0..events), answer)
}

/// The same for one that a parked lane probes with.
fn probe(events: usize, answer: impl FnMut(usize, &[usize]) -> LogVerdict) -> Way {
    let mut delivery = whole(0..events);
    delivery.parked(true);
    delivery.one_first();
    go_on(delivery, answer)
}

fn go_on(mut delivery: Delivery<usize>, mut answer: impl FnMut(usize, &[usize]) -> LogVerdict) -> Way {
    delivery.may_defer(100);
    let mut way = Way::default();
    loop {
        let doubtful = delivery.take_doubtful();
        delivery.not_found(doubtful, false);
        if delivery.is_done() {
            break;
        }
        if delivery.wants_company() {
            delivery.join(None);
        }
        if let Some(reason) = delivery.take_forsaken() {
            way.parked = Some(reason);
            break;
        }
        let part: Vec<usize> = delivery.next_part().map(|sent| sent.event).collect();
        assert!(!part.is_empty(), "it has something to send");
        way.requests += 1;
        assert!(way.requests < 20_000, "it comes to an end");
        let _ = delivery.note(Some(403));
        let step = delivery.take(answer(way.requests, &part), Some(403), Some("page".into()));
        if !step.accepted.is_empty() {
            delivery.parked(false);
        }
        way.accepted.extend(step.accepted.iter().map(|sent| sent.event));
        for (event, burial) in step.buried {
            assert_eq!(
                (burial.reason.as_str(), burial.excerpt.as_deref()),
                ("between", Some("page"))
            );
            way.buried.push(event);
        }
        let deferred = delivery.take_deferred();
        way.deferred.extend(deferred.into_iter().map(|sent| sent.event));
        way.waits += usize::from(matches!(step.then, Then::Wait { .. }));
        if let Then::Park { reason } = step.then {
            way.parked = Some(reason);
            break;
        }
    }
    way.deferred
        .extend(delivery.take_deferred().into_iter().map(|sent| sent.event));
    way.rest = delivery.into_rest();
    way
}

#[test]
fn one_event_that_a_firewall_dislikes_is_found_wherever_it_stands() {
    let mut most = 0;
    for at in 0..200 {
        let way = play(200, |_, part| match part.contains(&at) {
            true => blocked(false),
            false => accepted(part),
        });
        assert_eq!((way.buried, way.parked), (vec![at], None));
        let mut good = way.accepted.clone();
        good.sort_unstable();
        assert_eq!(good, (0..200).filter(|event| *event != at).collect::<Vec<_>>());
        most = most.max(way.requests);
    }
    println!("at most {most} requests");
    assert!(most <= 26, "{most}");
}

#[test]
fn a_row_of_them_in_front_does_not_hold_up_what_is_behind() {
    for row in 1..45 {
        let way = play(64, |_, part| match part.iter().any(|event| *event < row) {
            true => blocked(false),
            false => accepted(part),
        })
        .sorted();
        assert_eq!(
            (way.buried, way.parked),
            ((0..row).collect::<Vec<_>>(), None),
            "{row}"
        );
        assert_eq!(way.accepted.len(), 64 - row);
    }
}

#[test]
fn what_refuses_everything_parks_and_buries_nothing() {
    type Player = fn(usize, fn(usize, &[usize]) -> LogVerdict) -> Way;
    let players: [(Player, usize, usize); 2] = [(play, 6, 2), (probe, 5, 3)];
    for (player, between, own) in players {
        for (events, own, most) in [1, 2, 3, 5, 64]
            .into_iter()
            .flat_map(|events| [(events, false, between), (events, true, own)])
        {
            let way = match own {
                true => player(events, |_, _| blocked(true)),
                false => player(events, |_, _| blocked(false)),
            };
            assert_eq!(way.parked.as_deref(), Some("parked"), "{events}");
            assert!(way.buried.is_empty() && way.deferred.is_empty());
            assert_eq!(way.rest, (0..events).collect::<Vec<_>>(), "all, in order");
            assert!(way.requests <= most, "{} requests for {events}", way.requests);
        }
    }
}

#[test]
fn what_begins_to_refuse_everything_at_any_moment_buries_nothing_good() {
    for bad in [None, Some(9)] {
        for start in 0..40 {
            let way = play(32, |nr, part| {
                let bad = bad.is_some_and(|bad| part.contains(&bad));
                if nr > start || bad {
                    blocked(false)
                } else {
                    accepted(part)
                }
            });
            let wrong = way.buried.iter().find(|event| Some(**event) != bad);
            assert_eq!(wrong, None, "from request {start} on");
            assert_eq!(
                way.accepted.len() + way.buried.len() + way.rest.len(),
                32,
                "none is lost"
            );
        }
    }
}

#[test]
fn where_every_other_answer_is_such_a_refusal_nothing_good_is_buried() {
    for bad in [None, Some(9)] {
        for seed in 0..200u64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut refusals = [0; 32];
            let way = play(32, |_, part| {
                let bad = bad.is_some_and(|bad| part.contains(&bad));
                let unlucky = random.bool() && part.iter().all(|event| refusals[*event] < 5);
                if unlucky && let [event] = part {
                    refusals[*event] += 1;
                }
                if bad || unlucky {
                    blocked(false)
                } else {
                    accepted(part)
                }
            });
            let wrong = way.buried.iter().find(|event| Some(**event) != bad);
            assert_eq!(wrong, None, "seed {seed}");
        }
    }
}

#[test]
fn a_refusal_of_the_api_itself_takes_more_proof_and_waits() {
    let refuses = |_, part: &[usize]| match part.contains(&20) {
        true => blocked(true),
        false => accepted(part),
    };
    let way = play(64, refuses);
    assert_eq!(
        (way.buried, way.parked),
        (vec![20], None),
        "others pass meanwhile"
    );
    assert_eq!(way.accepted.len(), 63);
    assert!(way.waits >= 7, "{}", way.waits);
    let way = probe(64, |nr, part| match part.contains(&0) {
        true => refuses(nr, &[20]),
        false => accepted(part),
    });
    assert_eq!((way.buried, way.parked), (vec![0], None));
    assert_eq!(way.accepted.len(), 63);
    assert!(way.waits >= 7, "{}", way.waits);
    // One that passes in between, as when a service that checks keys ails.
    let mut refusals = 0;
    let way = probe(64, |_, part| {
        if part.contains(&0) && refusals < 6 {
            refusals += 1;
            return blocked(true);
        }
        accepted(part)
    });
    assert_eq!((way.buried.len(), way.accepted.len()), (0, 64));
}

#[test]
fn what_passed_elsewhere_in_the_lane_counts_as_proof() {
    let mut delivery = whole([1]);
    delivery.parked(true);
    let mut steps = Vec::new();
    for elsewhere in [5, 6, 6, 6, 6, 6] {
        assert_eq!(delivery.next_part().count(), 1);
        let _ = delivery.note(Some(403));
        delivery.heard(elsewhere);
        steps.push(delivery.take(blocked(false), Some(403), None));
    }
    assert!(matches!(steps[0].then, Then::Park { .. }) && steps[0].buried.is_empty());
    assert!(
        steps[1..5]
            .iter()
            .all(|step| step.then == Then::Go && step.buried.is_empty())
    );
    assert_eq!(steps[5].buried.len(), 1);
}

#[test]
fn a_part_is_cut_at_the_bytes_that_pass() {
    let mut delivery = whole([40, 40, 30, 200, 1]);
    let mut parts = Vec::new();
    while !delivery.is_done() {
        let part: Vec<usize> = delivery
            .next_part_within((usize::MAX, 100), |sent| sent.event)
            .map(|sent| sent.event)
            .collect();
        let _ = delivery.note(Some(200));
        let step = delivery.take(accepted(&part), Some(200), None);
        assert_eq!(step.accepted.len(), part.len());
        parts.push(part);
    }
    assert_eq!(parts, [vec![40, 40], vec![30], vec![200], vec![1]]);
}

fn lost(suspect: Suspect) -> LogVerdict {
    LogVerdict::Unknown {
        after: None,
        reason: "lost".into(),
        suspect,
    }
}

#[test]
fn a_way_on_which_large_requests_are_lost_is_met_with_smaller_ones() {
    for most in [1, 7, 100] {
        let way = play(500, |_, part| match part.len() > most {
            true => lost(Suspect::Size),
            false => accepted(part),
        });
        assert_eq!(way.accepted, (0..500).collect::<Vec<_>>(), "in order");
        assert!(way.buried.is_empty() && way.deferred.is_empty());
        assert!(
            way.requests <= 3 * 500usize.div_ceil(most) + 12,
            "{} requests at {most}",
            way.requests
        );
    }
}

#[test]
fn one_that_keeps_failing_alone_is_taken_out_of_the_way_of_the_others_and_not_buried() {
    for suspect in [Suspect::Size, Suspect::Content] {
        for bad in [0, 3, 6] {
            let way = play(8, |_, part| match part.contains(&bad) {
                true => lost(suspect),
                false => accepted(part),
            });
            let good: Vec<_> = (0..8).filter(|event| *event != bad).collect();
            assert_eq!(way.accepted, good);
            assert_eq!((way.buried.len(), way.deferred), (0, vec![bad]));
        }
    }
}

#[test]
fn an_outage_defers_nothing_and_keeps_the_order() {
    for suspect in [Suspect::Nothing, Suspect::Size, Suspect::Content] {
        for end in 1..60 {
            let way = play(20, |nr, part| match nr < end {
                true => lost(suspect),
                false => accepted(part),
            });
            assert!(
                way.buried.is_empty() && way.deferred.is_empty(),
                "{suspect:?} {end}"
            );
            let mut swapped = way.accepted.clone();
            swapped.sort_unstable();
            assert_eq!(swapped, (0..20).collect::<Vec<_>>());
            let others = way
                .accepted
                .iter()
                .filter(|event| ![way.accepted[0], 0].contains(event));
            assert!(
                others.is_sorted(),
                "at most two changed places: {:?}",
                way.accepted
            );
        }
    }
}

proptest! {
    #[test]
    fn each_event_ends_by_its_nature_through_a_firewall_and_a_way_for_so_many(
        natures in prop::collection::vec(prop_oneof![8 => Just(0u8), 1 => Just(1), 1 => Just(2)], 1..60),
        most in 1usize..80, faults in prop::collection::vec(0u8..6, 0..80),
    ) {
        // The last ones are good, so there is always something that passes.
        let natures: Vec<u8> = natures.into_iter().chain([0; 40]).collect();
        let of = |nature: u8| -> Vec<usize> {
            (0..natures.len()).filter(|event| natures[*event] == nature).collect()
        };
        let way = play(natures.len(), |nr, part| {
            let has = |nature| part.iter().any(|event| natures[*event] == nature);
            match faults.get(nr) {
                Some(0) => lost(Suspect::Nothing),
                Some(1) => lost(Suspect::Size),
                _ if part.len() > most => lost(Suspect::Size),
                _ if has(1) => blocked(false),
                _ if has(2) => lost(Suspect::Content),
                _ => accepted(part),
            }
        })
        .sorted();
        prop_assert_eq!(&way.parked, &None);
        // A fault in passing may hit any of them alone, again and again; it is deferred then, and so not lost.
        let natures = &natures;
        let deferred = |nature: u8| way.deferred.iter().copied().filter(move |event| natures[*event] == nature);
        let mut evil = way.buried.clone();
        evil.extend(deferred(1));
        evil.sort_unstable();
        prop_assert_eq!(evil, of(1));
        let mut good = way.accepted.clone();
        good.extend(deferred(0));
        good.sort_unstable();
        prop_assert_eq!(good, of(0));
        prop_assert_eq!(deferred(2).collect::<Vec<_>>(), of(2));
    }
}
