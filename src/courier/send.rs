//! Sends a delivery's parts, one after the other, until something is accepted or nothing more can be done.

use super::Settings;
use super::clock;
use super::confirm;
use super::delivery::{Delivery, EventForm, Sent, Then};
use super::line::{Knobs, Line};
use super::tokens;
use super::turn::{Attempt, Request, STALE_CONNECTIONS, Turn, is_closed};
use crate::batch;
use crate::spool::Leased;
use crate::verdict::{self, Answer, LogVerdict, Outcome, Suspect};
use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Most bytes of an upstream's body that a dead letter keeps.
const EXCERPT_BYTES: usize = 1024;

/// A kept connection that the server had closed before is noticed within this time. What breaks later was cut off.
const STALE_WITHIN: Duration = Duration::from_millis(500);

/// In about this time a connection that the server closed after its reply is known to be closed.
const NOTICE: Duration = Duration::from_millis(25);

/// How often the lane is asked whether it is in trouble, once a move wants what it has on lease.
const CLAIM_PAUSE: Duration = Duration::from_millis(25);

/// How far a delivery came.
#[derive(Debug)]
pub(super) enum Progress {
    /// The API accepted these; there may be more to send.
    Accepted(Vec<Sent<Leased>>),
    /// Every event has ended.
    Done,
    /// One event is left, and another would tell whether it or the upstream is at fault ([`Delivery::join`]).
    Lonely,
    /// The lane waits for a person or for a key: what is left is to be released or kept, as the caller likes.
    Parked,
    /// Shutdown: what is left is to be released.
    Stopped,
}

impl Line {
    /// Sends until something is accepted. Waits out passing faults; buries and settles what ends on the way.
    pub(super) async fn advance(&self, knobs: &mut Knobs, delivery: &mut Delivery<Leased>) -> Progress {
        // Connections in a row that closed without a reply.
        let mut closed = 0;
        loop {
            let doubtful = delivery.take_doubtful();
            let count = doubtful.len();
            // A request that a reset cut off may still be executed, so what it brought is waited for.
            let at_once = doubtful.iter().all(|sent| sent.attempts == 0);
            let missing = tokio::select! {
                biased;
                missing = confirm::settle_stored(self, knobs, doubtful, at_once) => missing,
                // What an earlier process may have sent goes back to be moved if nobody answers for it.
                () = self.claimed_in_trouble(), if at_once => return Progress::Parked,
            };
            let Some(missing) = missing else {
                return Progress::Stopped;
            };
            let stored = missing.len() < count;
            delivery.not_found(missing, stored);
            if delivery.is_done() {
                return Progress::Done;
            }
            if knobs.has_changed() {
                // What the settings mend is not to be compared, nor parked, after they changed.
                delivery.start_over();
            }
            if delivery.wants_company() {
                return Progress::Lonely;
            }
            if let Some(reason) = delivery.take_forsaken() {
                let settings = knobs.borrow().clone();
                self.park(clock::now(), &reason, &settings);
                self.wake_if_changed(knobs);
                return Progress::Parked;
            }
            if closed > 0 {
                // The look's own connection may have been closed behind it, too: that takes a moment to be noticed.
                tokio::time::sleep(NOTICE * closed.min(8)).await;
            }
            let pass = tokio::select! {
                biased;
                pass = self.admit(knobs) => pass,
                // What waits goes back, so that it can be moved to another project.
                () = self.view.claimed() => Err(Turn::Parked),
            };
            let pass = match pass {
                Ok(pass) => pass,
                Err(Turn::Stopped) => return Progress::Stopped,
                Err(Turn::Go | Turn::Parked) => return Progress::Parked,
            };
            if knobs.has_changed() {
                // They may have changed while it waited for its turn.
                delivery.start_over();
            }
            let settings = knobs.borrow_and_update().clone();
            let Some(key) = settings.key_for(&self.lane().project) else {
                return Progress::Parked;
            };
            delivery.parked(self.health().is_parked());
            let most = (
                settings.batch.max_events,
                self.size().apply(settings.batch.max_bytes),
            );
            if delivery.next_part_within(most, bytes_of).len() > 1 && self.health().is_parked() {
                // It was parked while the batch waited. The lane probes with one event.
                return Progress::Parked;
            }
            if settings.confirm {
                let next = delivery.next_part_within(most, bytes_of);
                confirm::sends(self, next.map(|sent| &sent.event));
            }
            let next = delivery.next_part_within(most, bytes_of);
            let part: Vec<Cow<'_, [u8]>> = next.map(written).collect();
            let counted = part.iter().filter(|event| matches!(event, Cow::Owned(_))).count();
            let (events, bytes) = (part.len(), part.iter().map(|event| event.len()).sum());
            let body = batch::body(part.iter().map(Cow::as_ref));
            drop(part);
            let upstream = match self.lost_lately() {
                true => settings.upstream.on_fresh_connections(),
                false => settings.upstream.clone(),
            };
            let post = upstream.post_log(&self.lane().project, key, body);
            let Attempt { began, outcome } = match self.ask_once(Request::Log(events), post).await {
                Ok(attempt) => attempt,
                Err(Turn::Stopped) => return Progress::Stopped,
                Err(Turn::Go | Turn::Parked) => continue,
            };

            let (status, excerpt) = facts(&outcome);
            let mut verdict = verdict::of_log(&outcome, events, delivery.note(status));
            closed = if is_closed(&outcome) { closed + 1 } else { 0 };
            if closed == 1 && clock::now() - began < STALE_WITHIN {
                verdict.acquit();
            }
            drop(outcome);
            self.learn(&verdict, status, began, (events, bytes), &settings);
            drop(pass);
            delivery.heard(self.passes.load(Ordering::Relaxed));
            let step = delivery.take(verdict, status, excerpt);
            if !step.accepted.is_empty() {
                self.common
                    .metrics
                    .delivery_zero_counts_events
                    .inc_by(counted as u64);
            }
            if !step.buried.is_empty() {
                self.spool().bury(self.lane(), step.buried).await;
            }
            self.over_quota(step.accepted.iter().filter(|sent| sent.over_quota).count());
            match step.then {
                Then::Go => {}
                Then::Wait { .. }
                    if (1..=STALE_CONNECTIONS).contains(&closed) && !self.health().is_troubled() => {}
                Then::Wait { asked, reason } => {
                    self.failing(began, asked, &reason, &settings);
                }
                Then::Park { reason } => {
                    self.park(began, &reason, &settings);
                    self.wake_if_changed(knobs);
                    return Progress::Parked;
                }
            }
            if !step.accepted.is_empty() {
                return Progress::Accepted(step.accepted);
            }
        }
    }

    /// Resolves when a move asks for what the lane has on lease while the last that was heard of the upstream is a fault.
    async fn claimed_in_trouble(&self) {
        self.view.claimed().await;
        while !self.health().is_troubled() {
            tokio::time::sleep(CLAIM_PAUSE).await;
        }
    }

    /// Counts the attempt, and remembers what a verdict says about the upstream beyond this batch.
    pub(super) fn learn(
        &self,
        verdict: &LogVerdict,
        status: Option<u16>,
        began: Instant,
        (events, bytes): (usize, usize),
        settings: &Settings,
    ) {
        self.count_log(verdict);
        match verdict {
            LogVerdict::Answered(_) => {
                self.passed();
                self.passes.fetch_add(1, Ordering::Relaxed);
                self.size().passed(bytes, settings.batch.max_bytes, clock::now());
                self.answered(began, bytes, settings);
            }
            LogVerdict::Split { .. } if events > 1 => self.size().refused(bytes, clock::now()),
            LogVerdict::Retry { suspect, .. } | LogVerdict::Unknown { suspect, .. }
                if events > 1 && *suspect == Suspect::Size =>
            {
                self.size().lost(bytes, clock::now());
            }
            _ => {}
        }
        // Else a parked lane whose first event is poison would probe with it for ever: a 500 is poison only once it repeats.
        match verdict {
            LogVerdict::Bisect { reason } | LogVerdict::Split { reason } => self.unpark(&reason.to_string()),
            LogVerdict::Retry { reason, .. } | LogVerdict::Unknown { reason, .. } if status == Some(500) => {
                self.unpark(reason);
            }
            _ => {}
        }
    }

    /// Counts a log request by what its answer meant.
    pub(super) fn count_log(&self, verdict: &LogVerdict) {
        self.count(match verdict {
            LogVerdict::Answered(_) => "answered",
            LogVerdict::Bisect { .. } => "bisect",
            LogVerdict::Split { .. } => "split",
            LogVerdict::Park { .. } => "park",
            LogVerdict::Blocked(_) => "blocked",
            LogVerdict::Retry { .. } => "retry",
            LogVerdict::Unknown { .. } => "unknown",
        });
    }
}

/// At most so many bytes of a request are the event's.
fn bytes_of(sent: &Sent<Leased>) -> usize {
    let added = match sent.form {
        EventForm::AsIs => 0,
        EventForm::ZeroCounts => tokens::ADDED_BYTES,
    };
    sent.event.record().len() + added
}

/// The event as it goes into the request.
pub(super) fn written(sent: &Sent<Leased>) -> Cow<'_, [u8]> {
    let record = sent.event.record();
    let altered = match sent.form {
        EventForm::AsIs => None,
        EventForm::ZeroCounts => tokens::with_zero_counts(record),
    };
    altered.map_or(Cow::Borrowed(record), Cow::Owned)
}

/// The status, if there is one, and the beginning of the body of a reply that is no success (a 200's would be the
/// batch itself, echoed).
pub(super) fn facts(outcome: &Outcome) -> (Option<u16>, Option<String>) {
    match outcome {
        Outcome::Answered(Answer {
            status: status @ 200..300,
            ..
        }) => (Some(*status), None),
        Outcome::Answered(answer) => {
            let head = &answer.body[..answer.body.len().min(EXCERPT_BYTES)];
            (
                Some(answer.status),
                Some(String::from_utf8_lossy(head).into_owned()),
            )
        }
        Outcome::Failed(_) => (None, None),
    }
}
