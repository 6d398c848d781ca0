mod passing;

use super::failed::{ROUNDS_FAILED, ROUNDS_REFUSED};
use super::*;
use crate::verdict::{Blocked, Suspect};
use proptest::prelude::*;

/// What the scripted upstream does with one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    Quota,
    Refused,
    /// 400 for every batch with it.
    Poison,
    /// 500 for every batch with it.
    Crashing,
}

/// How a whole delivery went.
#[derive(Debug, Default)]
struct Tale {
    requests: usize,
    waits: usize,
    accepted: Vec<usize>,
    over_quota: usize,
    buried: Vec<(usize, Burial)>,
}

impl Tale {
    fn buried(&self) -> Vec<usize> {
        self.buried.iter().map(|(event, _)| *event).collect()
    }
}

fn retry(reason: String, suspect: Suspect) -> LogVerdict {
    LogVerdict::Retry {
        after: None,
        reason,
        suspect,
    }
}

fn reply(natures: &[Nature], part: &[usize], server_errors: u32, most: usize) -> LogVerdict {
    let reason = String::from("refused");
    if part.len() > most {
        return LogVerdict::Split {
            reason: reason.into(),
        };
    }
    let has = |nature| part.iter().any(|event| natures[*event] == nature);
    if has(Nature::Poison) {
        return LogVerdict::Bisect {
            reason: reason.into(),
        };
    }
    if has(Nature::Crashing) {
        return match server_errors {
            0 | 1 => retry(reason, Suspect::Nothing),
            _ => LogVerdict::Bisect {
                reason: reason.into(),
            },
        };
    }
    let fate = |event: &usize| match natures[*event] {
        Nature::Quota => Fate::OverQuota("quota".into()),
        Nature::Refused => Fate::Refused("bad flag".into()),
        _ => Fate::Accepted,
    };
    LogVerdict::Answered(part.iter().map(fate).collect())
}

fn status(natures: &[Nature], part: &[usize], most: usize) -> u16 {
    let has = |nature| part.iter().any(|event| natures[*event] == nature);
    match () {
        () if part.len() > most => 413,
        () if has(Nature::Poison) => 400,
        () if has(Nature::Crashing) => 500,
        () => 200,
    }
}

/// Plays a delivery to its end. `faults` makes the n-th request fail in passing.
fn play(natures: &[Nature], most: usize, faults: &[bool]) -> Tale {
    let mut delivery = whole(0..natures.len());
    let mut tale = Tale::default();
    while !delivery.is_done() {
        let part: Vec<usize> = delivery.next_part().map(|sent| sent.event).collect();
        assert!(
            !part.is_empty(),
            "a delivery that is not done has something to send"
        );
        assert!(tale.requests < 100_000, "it comes to an end");
        tale.requests += 1;
        let step = if faults.get(tale.requests).copied().unwrap_or(false) {
            let _ = delivery.note(Some(503));
            delivery.take(retry("down".into(), Suspect::Nothing), Some(503), None)
        } else {
            let status = status(natures, &part, most);
            let errors = delivery.note(Some(status));
            delivery.take(
                reply(natures, &part, errors, most),
                Some(status),
                Some("body".into()),
            )
        };
        for sent in &step.accepted {
            tale.accepted.push(sent.event);
            tale.over_quota += usize::from(sent.over_quota);
        }
        tale.buried.extend(step.buried);
        tale.waits += usize::from(matches!(step.then, Then::Wait { .. }));
    }
    tale
}

fn whole(events: impl IntoIterator<Item = usize>) -> Delivery<usize> {
    Delivery::whole(events.into_iter().map(|event| Sent::new(event, EventForm::AsIs)))
}

fn one_bad(count: usize, at: usize, nature: Nature) -> Vec<Nature> {
    (0..count)
        .map(|event| if event == at { nature } else { Nature::Good })
        .collect()
}

#[test]
fn a_batch_that_passes_costs_one_request() {
    let tale = play(&[Nature::Good; 500], usize::MAX, &[]);
    assert_eq!((tale.requests, tale.waits), (1, 0));
    assert_eq!(tale.accepted, (0..500).collect::<Vec<_>>());
}

#[test]
fn one_poison_event_among_1000_is_found_alone_in_at_most_21_requests_wherever_it_stands() {
    for nature in [Nature::Poison, Nature::Crashing] {
        let mut most = 0;
        for at in 0..1000 {
            let tale = play(&one_bad(1000, at, nature), usize::MAX, &[]);
            assert_eq!(tale.buried(), [at]);
            assert_eq!(tale.accepted.len(), 999);
            assert!(tale.accepted.is_sorted(), "the good ones keep their order");
            most = most.max(tale.requests);
        }
        println!("{nature:?}: at most {most} requests");
        assert!(most <= 21, "{most} requests for {nature:?}");
    }
}

#[test]
fn a_dead_letter_tells_reason_status_excerpt_and_attempts() {
    let tale = play(&one_bad(2, 1, Nature::Poison), usize::MAX, &[]);
    let (_, burial) = &tale.buried[0];
    assert_eq!((burial.reason.as_str(), burial.status), ("refused", Some(400)));
    assert_eq!((burial.excerpt.as_deref(), burial.attempts), (Some("body"), 2));
}

#[test]
fn an_upstream_that_refuses_everything_is_waited_for_and_little_is_buried() {
    for (nature, rounds) in [
        (Nature::Poison, ROUNDS_REFUSED),
        (Nature::Crashing, ROUNDS_FAILED),
    ] {
        let natures = [nature; 64];
        let mut delivery = whole(0..natures.len());
        let (mut waits, mut requests) = (0, 0);
        let buried = loop {
            let part: Vec<usize> = delivery.next_part().map(|sent| sent.event).collect();
            requests += 1;
            let status = status(&natures, &part, usize::MAX);
            let errors = delivery.note(Some(status));
            let step = delivery.take(reply(&natures, &part, errors, usize::MAX), Some(status), None);
            if !step.buried.is_empty() {
                break step.buried;
            }
            waits += u32::from(matches!(step.then, Then::Wait { .. }));
        };
        assert_eq!(buried.len(), 2, "one after the other, not the whole queue");
        assert!(waits >= rounds, "{waits} waits before anything was given up");
        assert!(
            requests <= 8 + 6 * (rounds + 1),
            "{requests} requests while nothing passed"
        );
    }
}

#[test]
fn a_lone_event_is_told_from_a_broken_upstream_by_the_company_of_another() {
    let natures = [Nature::Crashing, Nature::Good];
    let mut delivery = whole([0]);
    let mut buried = Vec::new();
    let mut requests = 0;
    while !delivery.is_done() {
        if delivery.wants_company() && requests < 5 {
            delivery.join(Some(Sent::new(1, EventForm::AsIs)));
        }
        let part: Vec<usize> = delivery.next_part().map(|sent| sent.event).collect();
        requests += 1;
        let status = status(&natures, &part, usize::MAX);
        let errors = delivery.note(Some(status));
        buried.extend(
            delivery
                .take(reply(&natures, &part, errors, usize::MAX), Some(status), None)
                .buried,
        );
    }
    assert_eq!(buried.iter().map(|(event, _)| *event).collect::<Vec<_>>(), [0]);
    assert!(requests < 15, "{requests}");
}

#[test]
fn a_batch_that_is_too_large_is_split_and_only_what_is_too_large_alone_is_buried() {
    let tale = play(&[Nature::Good; 100], 30, &[]);
    assert!(tale.buried.is_empty());
    assert_eq!(tale.accepted, (0..100).collect::<Vec<_>>());
    let mut delivery = whole([7]);
    assert_eq!(delivery.next_part().count(), 1);
    let _ = delivery.note(Some(413));
    let step = delivery.take(LogVerdict::Split { reason: "413".into() }, Some(413), None);
    assert!(step.buried.is_empty(), "it may be the upstream");
    assert!(matches!(step.then, Then::Wait { .. }));
    let tale = play(&[Nature::Good; 2], 0, &[]);
    assert_eq!(tale.buried.len(), 2);
    assert!(
        tale.waits > ROUNDS_REFUSED as usize,
        "an upstream that takes nothing is waited for"
    );
}

#[test]
fn what_has_not_ended_comes_back_in_order_when_the_project_is_parked() {
    let mut delivery = whole(0..4);
    assert_eq!(delivery.next_part().count(), 4);
    let _ = delivery.note(Some(401));
    let step = delivery.take(LogVerdict::Park { reason: "401".into() }, Some(401), None);
    assert_eq!(step.then, Then::Park { reason: "401".into() });
    assert_eq!(delivery.into_rest(), [0, 1, 2, 3]);
}

#[test]
fn one_that_is_held_is_not_forgotten_when_the_last_beside_it_is_buried() {
    use Nature::{Crashing, Good, Poison};
    let tale = play(&[Good, Poison, Crashing, Poison], 1, &[]);
    assert_eq!(tale.accepted, [0]);
    let mut buried = tale.buried();
    buried.sort_unstable();
    assert_eq!(buried, [1, 2, 3]);
}

#[test]
fn two_that_are_buried_together_are_each_buried_for_what_they_met_themselves() {
    let mut delivery = whole([0, 1]);
    let mut met = Vec::new();
    while !delivery.is_done() {
        let part: Vec<usize> = delivery.next_part().map(|sent| sent.event).collect();
        let status = if part == [0] { 413 } else { 422 };
        delivery.note(Some(status));
        let reason = format!("it met {status}");
        let verdict = LogVerdict::Bisect {
            reason: reason.into(),
        };
        met.extend(delivery.take(verdict, Some(status), None).buried);
    }
    let met: Vec<_> = met
        .iter()
        .map(|(event, burial)| (*event, burial.status, &burial.reason[..10]))
        .collect();
    assert_eq!(met, [(0, Some(413), "it met 413"), (1, Some(422), "it met 422")]);
}

fn natures() -> impl Strategy<Value = Vec<Nature>> {
    let nature = prop_oneof![
        12 => Just(Nature::Good),
        1 => Just(Nature::Quota),
        1 => Just(Nature::Refused),
        1 => Just(Nature::Poison),
        1 => Just(Nature::Crashing),
    ];
    prop::collection::vec(nature, 1..80)
}

proptest! {
    #[test]
    fn every_event_ends_once_and_by_its_nature(
        natures in natures(), most in 1usize..100, faults in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let tale = play(&natures, most, &faults);
        let of = |wanted: &[Nature]| -> Vec<usize> {
            (0..natures.len()).filter(|event| wanted.contains(&natures[*event])).collect()
        };
        prop_assert_eq!(&tale.accepted, &of(&[Nature::Good, Nature::Quota]), "all good ones, in order");
        prop_assert_eq!(tale.over_quota, of(&[Nature::Quota]).len());
        let mut buried = tale.buried();
        buried.sort_unstable();
        prop_assert_eq!(buried, of(&[Nature::Refused, Nature::Poison, Nature::Crashing]));
    }
}

#[test]
fn what_may_have_been_taken_is_looked_for_and_what_is_not_found_goes_again_in_its_place() {
    let mut delivery = whole(0..4);
    let sent =
        |delivery: &mut Delivery<usize>| delivery.next_part().map(|sent| sent.event).collect::<Vec<_>>();
    assert_eq!(sent(&mut delivery), [0, 1, 2, 3]);
    assert!(delivery.take_doubtful().is_empty(), "nothing was sent yet");
    let _ = delivery.note(None);
    let unknown = LogVerdict::Unknown {
        after: None,
        reason: "lost".into(),
        suspect: Suspect::Nothing,
    };
    let step = delivery.take(unknown, None, None);
    assert!(matches!(step.then, Then::Wait { .. }));
    let mut doubtful = delivery.take_doubtful();
    assert_eq!(
        doubtful.iter().map(|sent| sent.event).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert!(doubtful.iter().all(|sent| sent.attempts == 1));
    doubtful.retain(|sent| sent.event % 2 == 1);
    delivery.not_found(doubtful, true);
    assert_eq!(sent(&mut delivery), [1, 3]);
    assert!(delivery.take_doubtful().is_empty(), "they are looked for once");
    assert_eq!(delivery.into_rest(), [1, 3]);
}
