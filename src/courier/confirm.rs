//! Whether what the API accepted was stored.
//!
//! One GET tells about a whole request, because the API stores it as a whole or not at all ([`witness`](super::witness)).
//! Storing happens after the reply, so a missing task is looked for again over `confirm_patience`. Nothing is settled before it
//! is known to be stored; what is lost goes to [`repair`](super::repair). Faults while reading back say nothing about the event:
//! they are waited out like any other.

use super::clock;
use super::crosscheck::Weighed;
use super::delivery::Sent;
use super::health;
use super::line::{Knobs, Line, changed};
use super::readback::{self, Read};
use super::telling::Silence;
use super::turn::{Attempt, Request, Turn};
use crate::event;
use crate::fates::Proof;
use crate::spool::Leased;
use crate::verdict;
use std::time::Instant;

/// After which thousandths of `confirm_patience` a missing task is looked for again.
pub(super) const LOOKS: [u32; 4] = [30, 120, 420, 1000];

/// After so many looks, beside the first, [`Patience::Prompt`] may end: 0.4 s with the default `confirm_patience`.
const HURRIED_LOOKS: usize = 2;

/// How often a missing task is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Once.
    Once,
    /// Over `confirm_patience`, after an answer that was lost.
    Lost,
    /// Over `confirm_patience`, after an answer.
    Full,
    /// No longer than others needed lately ([`promptness`](super::promptness)), and over `confirm_patience` at most.
    Prompt,
}

/// How many tasks of a request may turn out to have no URL before its others are not asked for either.
const MOST_ODD: usize = 2;

/// What reading back brought.
enum Found {
    /// So many of the events, by index, are not stored.
    Missing(Vec<usize>),
    /// The upstream does not tell.
    Untold,
    /// Shutdown came first.
    Stopped,
}

/// What became of events that were accepted.
#[derive(Debug)]
pub(super) enum Confirmed {
    /// They are stored, and settled.
    Stored,
    /// They are settled, but nothing tells whether their request was stored.
    Untold,
    /// These are not stored; the others are settled.
    Lost(Vec<Sent<Leased>>),
    /// Shutdown came first; they are released.
    Stopped,
}

/// Looks whether the events of one accepted request are stored, and settles those that are.
pub(super) async fn confirm(
    line: &Line,
    knobs: &mut Knobs,
    events: Vec<Sent<Leased>>,
    patience: Patience,
) -> Confirmed {
    if events.is_empty() {
        return Confirmed::Stored;
    }
    if !knobs.borrow().confirm || !line.telling().may_ask(clock::now()) {
        settle(line, events, Proof::Answered).await;
        return Confirmed::Untold;
    }
    let wanted = line.witnesses().wanted(clock::now());
    let (mut agreed, mut odd, mut end) = (0, 0, events.len());
    while let Some(at) = events[..end].iter().rposition(|sent| tells(line, sent)) {
        end = at;
        match find(line, knobs, &events[at..=at], patience).await {
            Found::Missing(missing) if missing.is_empty() => {
                // Another event may have been sent under the task while it was looked for.
                agreed += usize::from(tells(line, &events[at]));
                if agreed >= wanted {
                    break;
                }
                odd += usize::from(!line.names(&events[at].event));
                if odd >= MOST_ODD {
                    settle(line, events, Proof::Answered).await;
                    return Confirmed::Untold;
                }
            }
            Found::Missing(_) => {
                line.lost_now();
                return Confirmed::Lost(events);
            }
            Found::Untold => {
                settle(line, events, Proof::Answered).await;
                return Confirmed::Untold;
            }
            Found::Stopped => {
                line.release(bare(events)).await;
                return Confirmed::Stopped;
            }
        }
    }
    if agreed > 0 {
        settle(line, events, Proof::ReadBack).await;
        return Confirmed::Stored;
    }
    // No single event tells about the others.
    match settle_found(line, knobs, events, patience).await {
        None => Confirmed::Stopped,
        Some(missing) if missing.is_empty() => Confirmed::Untold,
        Some(missing) => {
            line.lost_now();
            Confirmed::Lost(missing)
        }
    }
}

/// Whether the event's task can only be there if the request that it came with was stored.
fn tells(line: &Line, sent: &Sent<Leased>) -> bool {
    (sent.absent || !line.is_in_doubt(&sent.event))
        && line.names(&sent.event)
        && event::task_of(sent.event.record())
            .is_some_and(|task| line.witnesses().tells(&task, sent.event.seq()))
}

/// Notes what a request is about to bring, for [`tells`].
pub(super) fn sends<'a>(line: &Line, events: impl Iterator<Item = &'a Leased>) {
    for event in events {
        if let Some(task) = event::task_of(event.record()) {
            line.witnesses().sends(&task, event.seq());
        }
    }
}

/// Looks for events whose answer was lost before they are sent again, because each time that the API takes one adds to its raw logs and
/// sums (contract.md section 4). Settles those that are stored and returns the others; `None` if shutdown came first.
///
/// The last one tells whether the request was taken at all. If it was, each is asked for, because the API may have refused some of
/// them singly. `at_once`: there was hardly time to take it, so a missing one is not waited for.
pub(super) async fn settle_stored(
    line: &Line,
    knobs: &mut Knobs,
    mut events: Vec<Sent<Leased>>,
    at_once: bool,
) -> Option<Vec<Sent<Leased>>> {
    let named = |events: &[Sent<Leased>]| events.iter().rposition(|sent| line.names(&sent.event));
    let Some(last) = named(&events) else {
        return Some(events);
    };
    if !knobs.borrow().confirm || !line.telling().may_ask(clock::now()) {
        return Some(events);
    }
    let patience = if at_once { Patience::Once } else { Patience::Lost };
    let mut found = find(line, knobs, &events[last..=last], patience).await;
    if !line.names(&events[last].event) && !matches!(found, Found::Stopped) {
        // It turned out to have no URL, which says nothing about the request.
        return Some(events);
    }
    if matches!(&found, Found::Missing(missing) if missing.is_empty()) {
        found = find(line, knobs, &events, Patience::Once).await;
    } else if let Found::Missing(_) = found {
        events[last].absent = true;
        found = Found::Untold;
    }
    match found {
        Found::Missing(mut missing) => {
            // What cannot be asked for is sent again: its task absorbs the second time.
            missing.extend((0..events.len()).filter(|at| !line.names(&events[*at].event)));
            missing.sort_unstable();
            missing.dedup();
            let (mut lost, stored) = parted(events, missing);
            lost.iter_mut().for_each(|sent| sent.absent = true);
            settle(line, stored, Proof::ReadBack).await;
            Some(lost)
        }
        Found::Untold => Some(events),
        Found::Stopped => {
            line.release(bare(events)).await;
            None
        }
    }
}

/// The events whose indices are given, and the others.
fn parted(events: Vec<Sent<Leased>>, missing: Vec<usize>) -> (Vec<Sent<Leased>>, Vec<Sent<Leased>>) {
    let mut missing = missing.into_iter().peekable();
    let (lost, stored): (Vec<_>, Vec<_>) = events
        .into_iter()
        .enumerate()
        .partition(|(index, _)| missing.next_if_eq(index).is_some());
    let bare = |events: Vec<(usize, _)>| events.into_iter().map(|(_, sent)| sent).collect();
    (bare(lost), bare(stored))
}

/// Settles those of the accepted events that are stored, and returns the others; `None` if shutdown came first.
pub(super) async fn settle_found(
    line: &Line,
    knobs: &mut Knobs,
    accepted: Vec<Sent<Leased>>,
    patience: Patience,
) -> Option<Vec<Sent<Leased>>> {
    match find(line, knobs, &accepted, patience).await {
        Found::Missing(missing) => {
            let (lost, stored) = parted(accepted, missing);
            settle(line, stored, Proof::ReadBack).await;
            Some(lost)
        }
        Found::Untold => {
            settle(line, accepted, Proof::Answered).await;
            Some(Vec::new())
        }
        Found::Stopped => {
            line.release(bare(accepted)).await;
            None
        }
    }
}

/// Looks for the events' tasks at once, and for the missing ones again at [`LOOKS`], as `patience` says, until all are
/// found.
async fn find(line: &Line, knobs: &mut Knobs, events: &[Sent<Leased>], patience: Patience) -> Found {
    let began = clock::now();
    let looks: &[u32] = if patience == Patience::Once { &[] } else { &LOOKS };
    let mut missing: Vec<usize> = (0..events.len()).collect();
    for (look, share) in std::iter::once(0).chain(looks.iter().copied()).enumerate() {
        let most = knobs.borrow().confirm_patience;
        if !pause_until(line, began + most * share / 1000, look == 0).await {
            return Found::Stopped;
        }
        let asked = clock::now();
        let mut still = Vec::new();
        for index in missing {
            match read_back(line, knobs, &events[index].event).await {
                Some(Read::Stored(_)) => {
                    let after_answer = matches!(patience, Patience::Full | Patience::Prompt);
                    // What has no URL is taken for stored, which says nothing of how soon it is.
                    if after_answer && line.names(&events[index].event) {
                        line.promptness().stored(began, clock::now());
                    }
                }
                Some(Read::NoRoute) => return Found::Untold,
                Some(_) => still.push(index),
                None => return Found::Stopped,
            }
        }
        missing = still;
        let may_hurry = patience == Patience::Prompt && look >= HURRIED_LOOKS;
        if missing.is_empty() || may_hurry && line.promptness().is_overdue(began, asked, most) {
            break;
        }
    }
    Found::Missing(missing)
}

/// Whether the moment came before the end of the shutdown.
pub(super) async fn pause_until(line: &Line, moment: Instant, at_once: bool) -> bool {
    tokio::select! {
        biased;
        () = line.stop().aborting() => false,
        () = tokio::time::sleep_until(moment.into()), if !at_once => true,
        () = std::future::ready(()), if at_once => true,
    }
}

/// Asks until the upstream says something about the task, or is believed without ([`Read::NoRoute`]). `None`: shutdown came first.
async fn read_back(line: &Line, knobs: &mut Knobs, event: &Leased) -> Option<Read> {
    let Some(task) = event::task_of(event.record()).filter(|task| line.telling().names(task)) else {
        return Some(unaskable());
    };
    let (mut silences, mut odd) = (0, 0);
    loop {
        let settings = knobs.borrow_and_update().clone();
        let Some(key) = settings.key_for(&line.lane().project) else {
            wait_for_mending(line, knobs).await;
            if line.stop().is_draining() {
                return None;
            }
            continue;
        };
        let pass = line.admit_read(knobs).await?;
        let get = || settings.upstream.get_task(&task, key);
        let Attempt { began, outcome } = match line.ask(Request::Read, get).await {
            Ok(attempt) => attempt,
            Err(Turn::Stopped) => return None,
            Err(Turn::Go | Turn::Parked) => continue,
        };
        let outcome = match line
            .weigh(Request::Read, (&task, key), &settings, &mut odd, outcome)
            .await
        {
            Weighed::Upstream(outcome) => outcome,
            Weighed::Unnamed => return Some(unaskable()),
            Weighed::Stopped => return None,
            Weighed::AskAgain(wait) => {
                drop(pass);
                if !pause_until(line, clock::now() + wait, wait.is_zero()).await {
                    return None;
                }
                continue;
            }
        };
        if let Some(reason) = verdict::bars_reading(&outcome) {
            line.park(began, &reason, &settings);
            drop(pass);
            if line.turn(knobs).await == Turn::Stopped {
                return None;
            }
            continue;
        }
        let read = readback::read(outcome);
        line.count(match &read {
            Read::Stored(_) => "stored",
            Read::Missing => "missing",
            Read::NoRoute | Read::Unknown { .. } => "unreadable",
        });
        match &read {
            Read::Stored(_) | Read::Missing => {
                line.told(matches!(read, Read::Stored(_)));
                return Some(read);
            }
            Read::NoRoute => {
                silences += 1;
                let silence = line.telling().silent(silences, clock::now());
                match silence {
                    Silence::AskAgain => {}
                    Silence::Believe => return Some(read),
                    Silence::GivenUp => {
                        line.no_read_back();
                        return Some(read);
                    }
                }
                drop(pass);
                let wait = health::patient(&settings.backoff, silences, fastrand::u64(..));
                if !pause_until(line, clock::now() + wait, false).await {
                    return None;
                }
            }
            Read::Unknown { asked, reason } => {
                silences = 0;
                line.failing(began, *asked, reason, &settings);
                drop(pass);
                if line.turn(knobs).await == Turn::Stopped {
                    return None;
                }
            }
        }
    }
}

/// What is said of an event that the API accepted and that cannot be asked for.
fn unaskable() -> Read {
    Read::Stored(bytes::Bytes::new())
}

/// Waits for a change of the settings or, where the lane is parked, for the next probe. Shutdown ends the wait.
pub(super) async fn wait_for_mending(line: &Line, knobs: &mut Knobs) {
    let settings = knobs.borrow().clone();
    if settings.key_for(&line.lane().project).is_some() {
        line.turn(knobs).await;
        return;
    }
    tokio::select! {
        biased;
        () = line.stop().draining() => {}
        () = changed(knobs) => line.wake(),
    }
}

/// Ends stored events; those over quota have a proof of their own.
async fn settle(line: &Line, events: Vec<Sent<Leased>>, proof: Proof) {
    let (over_quota, others): (Vec<_>, Vec<_>) = events.into_iter().partition(|sent| sent.over_quota);
    line.settle(bare(over_quota), Proof::OverQuota).await;
    line.settle(bare(others), proof).await;
}

pub(super) fn bare(events: Vec<Sent<Leased>>) -> Vec<Leased> {
    events.into_iter().map(|sent| sent.event).collect()
}
