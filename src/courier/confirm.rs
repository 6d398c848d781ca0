//! Whether what the API accepted was stored, and what to do if it was not (contract.md "200 does not mean stored").
//!
//! One GET tells about a whole request, because the API stores it as a whole or not at all ([`witness`](super::witness)).
//! Storing happens after the reply, so a missing task is looked for again over `confirm_patience`. What is
//! missing then is sent again one by one, and what is still missing after that once more with null token counts;
//! the rest is buried, once the upstream has shown that it shows tasks at all. Nothing is settled before it is known to be stored. Faults while reading back say nothing
//! about the event: they are waited out like any other.

use super::clock;
use super::crosscheck::Weighed;
use super::delivery::{Delivery, Sent};
use super::health;
use super::line::{Knobs, Line, changed};
use super::readback::{self, Read};
use super::send::{Dress, Progress};
use super::telling::Silence;
use super::tokens;
use super::turn::{Attempt, Request, Turn};
use crate::event;
use crate::fates::Proof;
use crate::spool::{Burial, Leased};
use crate::verdict;
use std::time::Instant;

/// After which thousandths of `confirm_patience` a missing task is looked for again.
pub(super) const LOOKS: [u32; 4] = [30, 120, 420, 1000];

/// How often a missing event is looked for again, with backoff, while the upstream has not shown any task at all: about
/// ten minutes with the default `[retry]`. Burying then could be wrong about a whole queue.
const ROUNDS_UNSEEN: u32 = 20;

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

/// Sees accepted events to their end.
pub(super) async fn confirm(line: &Line, knobs: &mut Knobs, events: Vec<Sent<Leased>>) {
    if events.is_empty() {
        return;
    }
    if !knobs.borrow().confirm || !line.telling().may_ask(clock::now()) {
        return settle(line, events, Proof::Answered).await;
    }
    let wanted = line.witnesses().wanted(clock::now());
    let (mut agreed, mut odd, mut end) = (0, 0, events.len());
    while let Some(at) = events[..end].iter().rposition(|sent| tells(line, sent)) {
        end = at;
        match find(line, knobs, &events[at..=at], &LOOKS).await {
            Found::Missing(missing) if missing.is_empty() => {
                // Another event may have been sent under the task while it was looked for.
                agreed += usize::from(tells(line, &events[at]));
                if agreed >= wanted {
                    break;
                }
                odd += usize::from(!line.names(&events[at].event));
                if odd >= MOST_ODD {
                    return settle(line, events, Proof::Answered).await;
                }
            }
            Found::Missing(_) => {
                line.lost(events.len());
                return repair(line, knobs, events).await;
            }
            Found::Untold => return settle(line, events, Proof::Answered).await,
            Found::Stopped => return line.release(bare(events)).await,
        }
    }
    match agreed {
        0 => confirm_each(line, knobs, events).await,
        _ => settle(line, events, Proof::ReadBack).await,
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

/// The same as [`confirm`] where no single event tells about the others.
async fn confirm_each(line: &Line, knobs: &mut Knobs, events: Vec<Sent<Leased>>) {
    match settle_found(line, knobs, events, &LOOKS).await {
        Some(missing) if !missing.is_empty() => {
            line.lost(missing.len());
            repair(line, knobs, missing).await;
        }
        _ => {}
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
    let looks: &[u32] = if at_once { &[] } else { &LOOKS };
    let mut found = find(line, knobs, &events[last..=last], looks).await;
    if !line.names(&events[last].event) && !matches!(found, Found::Stopped) {
        // It turned out to have no URL, which says nothing about the request.
        return Some(events);
    }
    if matches!(&found, Found::Missing(missing) if missing.is_empty()) {
        found = find(line, knobs, &events, &[]).await;
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

/// Sends again what was not stored, first as it is, then with null token counts.
async fn repair(line: &Line, knobs: &mut Knobs, events: Vec<Sent<Leased>>) {
    let Some(missing) = resend(line, knobs, events, Dress::AsIs).await else {
        return;
    };
    let (curable, hopeless) = missing
        .into_iter()
        .partition(|sent| tokens::with_null_counts(sent.event.record()).is_some());
    let cured = resend(line, knobs, curable, Dress::NullCounts).await;
    if let Some(missing) = doubt(line, knobs, hopeless).await {
        bury(line, missing, "alone").await;
    }
    let Some(missing) = cured else { return };
    if let Some(missing) = doubt(line, knobs, missing).await {
        bury(line, missing, "alone and without token counts").await;
    }
}

/// Sends events one by one and settles those that were stored. Returns those that were not; `None` if shutdown came first.
async fn resend(
    line: &Line,
    knobs: &mut Knobs,
    events: Vec<Sent<Leased>>,
    dress: Dress,
) -> Option<Vec<Sent<Leased>>> {
    let mut delivery = Delivery::singly(events);
    let mut accepted = Vec::new();
    loop {
        match line.advance(knobs, &mut delivery, dress).await {
            Progress::Accepted(more) => accepted.extend(more),
            Progress::Done => break,
            Progress::Parked | Progress::Lonely => wait_for_mending(line, knobs).await,
            Progress::Stopped => {
                line.release(bare(accepted)).await;
                line.release(delivery.into_rest()).await;
                return None;
            }
        }
    }
    settle_found(line, knobs, accepted, &LOOKS).await
}

/// Settles those of the accepted events that are stored, and returns the others; `None` if shutdown came first.
async fn settle_found(
    line: &Line,
    knobs: &mut Knobs,
    accepted: Vec<Sent<Leased>>,
    looks: &[u32],
) -> Option<Vec<Sent<Leased>>> {
    match find(line, knobs, &accepted, looks).await {
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

/// Holds missing events for as long as the upstream has not shown a single task, as one might that always answers 404. What
/// appears meanwhile is settled; the rest is returned after [`ROUNDS_UNSEEN`]. `None` if shutdown came first.
async fn doubt(line: &Line, knobs: &mut Knobs, mut missing: Vec<Sent<Leased>>) -> Option<Vec<Sent<Leased>>> {
    for round in 1..=ROUNDS_UNSEEN {
        if missing.is_empty() || line.telling().has_shown() {
            break;
        }
        let wait = knobs.borrow().backoff.delay(round, fastrand::u64(..));
        if !pause_until(line, clock::now() + wait, false).await {
            line.release(bare(missing)).await;
            return None;
        }
        missing = settle_found(line, knobs, missing, &[]).await?;
    }
    Some(missing)
}

async fn bury(line: &Line, events: Vec<Sent<Leased>>, how: &str) {
    if events.is_empty() {
        return;
    }
    let graves = events.into_iter().map(|sent| {
        let reason = format!(
            "accepted but never stored: the API answered 200 and did not keep the event, even when it was sent {how}; \
             something in it cannot be stored, such as an integer beyond 64 bits or a NUL in a key"
        );
        (sent.event, Burial { reason, status: Some(200), excerpt: None, attempts: sent.attempts })
    });
    line.spool().bury(line.lane(), graves.collect()).await;
}

/// Looks for the events' tasks at once, and for the missing ones again at the given thousandths of `confirm_patience`,
/// until all are found.
async fn find(line: &Line, knobs: &mut Knobs, events: &[Sent<Leased>], looks: &[u32]) -> Found {
    let began = clock::now();
    let mut missing: Vec<usize> = (0..events.len()).collect();
    for look in std::iter::once(0).chain(looks.iter().copied()) {
        let patience = knobs.borrow().confirm_patience;
        if !pause_until(line, began + patience * look / 1000, look == 0).await {
            return Found::Stopped;
        }
        let mut still = Vec::new();
        for index in missing {
            match read_back(line, knobs, &events[index].event).await {
                Some(Read::Stored(_)) => {}
                Some(Read::NoRoute) => return Found::Untold,
                Some(_) => still.push(index),
                None => return Found::Stopped,
            }
        }
        missing = still;
        if missing.is_empty() {
            break;
        }
    }
    Found::Missing(missing)
}

/// Whether the moment came before the end of the shutdown.
async fn pause_until(line: &Line, moment: Instant, at_once: bool) -> bool {
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
async fn wait_for_mending(line: &Line, knobs: &mut Knobs) {
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

fn bare(events: Vec<Sent<Leased>>) -> Vec<Leased> {
    events.into_iter().map(|sent| sent.event).collect()
}
