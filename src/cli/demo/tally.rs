//! Whether the numbers add up. Pure: everything that was counted is an argument.

use super::app::Acknowledged;
use super::gauge::DeadLetter;
use crate::ledger::Ledger;
use crate::sandbox::Handle;
use std::collections::BTreeMap;

/// What the API has in the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Api {
    /// Task ids in order of storage.
    pub(super) stored: Vec<String>,
    /// The task of each row of feedback.
    pub(super) evals: Vec<String>,
    /// Events that came again and changed nothing.
    pub(super) duplicates: u64,
    /// Events that it lost after its 200.
    pub(super) lost: u64,
    /// Attempts that met it while it was down.
    pub(super) while_down: u64,
    /// Requests that the real API would not know.
    pub(super) surprises: Vec<String>,
}

impl Api {
    /// Counts at the sandbox.
    pub(super) fn of(sandbox: &Handle) -> Self {
        let state = sandbox.state();
        Self {
            stored: sandbox.tasks(None).into_iter().map(|row| row.task_id).collect(),
            evals: sandbox.evals(None).into_iter().map(|row| row.task_id).collect(),
            duplicates: state.duplicates,
            lost: state.lost,
            while_down: state.while_down,
            surprises: state.surprises,
        }
    }
}

/// The ledger right before the kill and right after the restart.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Restart {
    pub(super) before: Ledger,
    pub(super) after: Ledger,
}

/// Everything that was counted, by the three parties.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) acknowledged: Acknowledged,
    /// The one event that can never be delivered.
    pub(super) poison: String,
    pub(super) ledger: Ledger,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) api: Api,
    pub(super) restart: Restart,
}

/// Every way in which the numbers do not add up, a clause each; empty when all is well.
pub(super) fn faults(tally: &Tally) -> Vec<String> {
    let Tally {
        acknowledged,
        ledger,
        api,
        ..
    } = tally;
    let deliverable = acknowledged.events.iter().filter(|id| **id != tally.poison);
    let mut faults = unlike("events", deliverable, &api.stored);
    faults.extend(unlike("feedback", acknowledged.feedback.iter(), &api.evals));
    faults.extend(ledger_faults(tally));
    let dead: Vec<_> = tally
        .dead_letters
        .iter()
        .map(|letter| letter.record.task_id.as_str())
        .collect();
    if dead != [tally.poison.as_str()] {
        faults.push(format!(
            "the dead letters are {dead:?}, where only {} should be",
            tally.poison
        ));
    }
    if ledger.dead != tally.dead_letters.len() as u64 {
        faults.push(format!(
            "the ledger has {} dead letters, but {} are kept",
            ledger.dead,
            dead.len()
        ));
    }
    if api.lost > 0 {
        faults.push(format!("the API lost {} events after taking them", api.lost));
    }
    if let Some(first) = api.surprises.first() {
        faults.push(format!(
            "{} requests came that the API does not know, such as: {first}",
            api.surprises.len()
        ));
    }
    faults
}

/// What is missing, doubled or unasked for at the API, each acknowledged one being due exactly once.
fn unlike<'a>(what: &str, due: impl Iterator<Item = &'a String>, there: &'a [String]) -> Vec<String> {
    let mut balance: BTreeMap<&str, i64> = BTreeMap::new();
    for id in due {
        *balance.entry(id).or_default() += 1;
    }
    for id in there {
        *balance.entry(id).or_default() -= 1;
    }
    let missing = balance.values().filter(|left| **left > 0).count();
    let surplus = balance.values().filter(|left| **left < 0).count();
    let mut faults = Vec::new();
    if missing > 0 {
        faults.push(format!(
            "{missing} acknowledged {what} did not arrive or are doubled"
        ));
    }
    if surplus > 0 {
        faults.push(format!(
            "{surplus} {what} are at the API twice or were never acknowledged"
        ));
    }
    faults
}

/// What is wrong within the ledger, and between it and the other two parties.
fn ledger_faults(tally: &Tally) -> Vec<String> {
    let Tally {
        acknowledged,
        ledger,
        api,
        restart,
        ..
    } = tally;
    let mut faults = Vec::new();
    for (when, ledger) in [
        ("before the kill", &restart.before),
        ("after the restart", &restart.after),
        ("in the end", ledger),
    ] {
        if !ledger.balances() {
            faults.push(format!("the ledger does not balance {when}: {ledger:?}"));
        }
    }
    if restart.after.accepted != restart.before.accepted {
        faults.push(format!(
            "{} were accepted before the kill, but {} after it",
            restart.before.accepted, restart.after.accepted
        ));
    }
    let mut equal = |left: u64, what: &str, right: u64| {
        if left != right {
            faults.push(format!("{left} {what} {right}"));
        }
    };
    let sent = (acknowledged.events.len() + acknowledged.feedback.len()) as u64;
    let arrived = (api.stored.len() + api.evals.len()) as u64;
    equal(
        sent,
        "were acknowledged to the app, but the ledger has accepted",
        ledger.accepted,
    );
    equal(
        arrived,
        "are at the API, but the ledger has delivered",
        ledger.delivered,
    );
    equal(ledger.queued, "are still queued, which should be", 0);
    equal(ledger.dropped, "were dropped, which should be", 0);
    faults
}

#[cfg(test)]
mod tests {
    use super::super::gauge::Record;
    use super::*;

    fn ids(list: &[&str]) -> Vec<String> {
        list.iter().map(|id| (*id).to_owned()).collect()
    }

    fn ledger(accepted: u64, delivered: u64, dead: u64, queued: u64) -> Ledger {
        Ledger {
            accepted,
            delivered,
            dead,
            dropped: 0,
            queued,
        }
    }

    fn sound() -> Tally {
        let letter = DeadLetter {
            project: "p".into(),
            reason: "why".into(),
            attempts: 3,
            record: Record {
                task_id: "bad".into(),
            },
        };
        Tally {
            acknowledged: Acknowledged {
                events: ids(&["a", "b", "bad", "c"]),
                feedback: ids(&["b"]),
            },
            poison: "bad".into(),
            ledger: ledger(5, 4, 1, 0),
            dead_letters: vec![letter],
            api: Api {
                stored: ids(&["a", "c", "b"]),
                evals: ids(&["b"]),
                ..Api::default()
            },
            restart: Restart {
                before: ledger(3, 1, 0, 2),
                after: ledger(3, 0, 0, 3),
            },
        }
    }

    #[test]
    fn sound_numbers_add_up_even_with_duplicates_absorbed_and_redelivery_after_the_kill() {
        let mut tally = sound();
        assert_eq!(faults(&tally), Vec::<String>::new());
        tally.api.duplicates = 7;
        assert_eq!(faults(&tally), Vec::<String>::new());
    }

    #[test]
    fn every_single_wrong_number_is_noticed() {
        type Spoil = fn(&mut Tally);
        let wrong: &[(&str, Spoil)] = &[
            ("an event is missing", |t| drop(t.api.stored.pop())),
            ("another is there in its place", |t| t.api.stored[0] = "x".into()),
            ("an event is stored twice", |t| t.api.stored.push("a".into())),
            ("the poison was stored", |t| t.api.stored.push("bad".into())),
            ("feedback is missing", |t| t.api.evals.clear()),
            ("feedback counts twice", |t| t.api.evals.push("b".into())),
            ("feedback went to another task", |t| t.api.evals[0] = "a".into()),
            ("an acknowledgement is not in the ledger", |t| {
                t.acknowledged.events.push("d".into());
                t.api.stored.push("d".into());
            }),
            ("something is still queued", |t| t.ledger = ledger(5, 3, 1, 1)),
            ("the ledger does not balance", |t| t.ledger.delivered = 3),
            ("something was dropped", |t| {
                t.ledger.dropped = 1;
                t.ledger.delivered = 3;
            }),
            ("the kill lost something", |t| {
                t.restart.after = ledger(2, 1, 0, 1)
            }),
            ("the kill unbalanced the ledger", |t| t.restart.after.queued = 1),
            ("a dead letter is not kept", |t| t.dead_letters.clear()),
            ("another event died", |t| {
                t.dead_letters[0].record.task_id = "a".into();
            }),
            ("the API lost something", |t| t.api.lost = 1),
            ("the API was surprised", |t| t.api.surprises.push("what?".into())),
        ];
        for (what, spoil) in wrong {
            let mut tally = sound();
            spoil(&mut tally);
            assert_ne!(faults(&tally), Vec::<String>::new(), "{what}");
        }
    }
}
