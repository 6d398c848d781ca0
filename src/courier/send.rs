//! Sends a delivery's parts, one after the other, until something is accepted or nothing more can be done.

use super::Settings;
use super::confirm;
use super::delivery::{Delivery, Sent, Then};
use super::line::{Knobs, Line};
use super::tokens;
use super::turn::{Attempt, Request, Turn, is_closed};
use crate::batch;
use crate::spool::Leased;
use crate::verdict::{self, Answer, LogVerdict, Outcome};
use std::borrow::Cow;
use std::time::Instant;

/// Most bytes of an upstream's body that a dead letter keeps.
const EXCERPT_BYTES: usize = 1024;

/// How events are written into the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dress {
    /// Byte for byte.
    AsIs,
    /// With null token counts ([`tokens::with_null_counts`]).
    NullCounts,
}

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
    pub(super) async fn advance(
        &self,
        knobs: &mut Knobs,
        delivery: &mut Delivery<Leased>,
        dress: Dress,
    ) -> Progress {
        // The last connection closed without a reply: most often one that the server had closed after its reply before, and
        // then the request was not even read.
        let mut closed = false;
        loop {
            let doubtful = delivery.take_doubtful();
            let count = doubtful.len();
            let Some(missing) = confirm::settle_stored(self, knobs, doubtful, closed).await else {
                return Progress::Stopped;
            };
            let stored = missing.len() < count;
            delivery.not_found(missing, stored);
            if delivery.is_done() {
                return Progress::Done;
            }
            if delivery.wants_company() {
                return Progress::Lonely;
            }
            let pass = match self.admit(knobs).await {
                Ok(pass) => pass,
                Err(Turn::Stopped) => return Progress::Stopped,
                Err(Turn::Go | Turn::Parked) => return Progress::Parked,
            };
            let settings = knobs.borrow_and_update().clone();
            let Some(key) = settings.key_for(&self.lane().project) else {
                return Progress::Parked;
            };
            let part: Vec<Cow<'_, [u8]>> = delivery.next_part().map(|event| dressed(event, dress)).collect();
            let (events, bytes) = (part.len(), part.iter().map(|event| event.len()).sum());
            let write = || batch::body(part.iter().map(Cow::as_ref));
            let post = || settings.upstream.post_log(&self.lane().project, key, write());
            let attempt = if closed {
                // It was looked for and not there. The look's own connection may have been closed behind it, too.
                self.ask(Request::Log(events), post).await
            } else {
                self.ask_once(Request::Log(events), post()).await
            };
            let Some(Attempt { began, outcome }) = attempt else {
                return Progress::Stopped;
            };
            drop(part);

            let (status, excerpt) = facts(&outcome);
            let verdict = verdict::of_log(&outcome, events, delivery.note(status));
            let closed_before = std::mem::replace(&mut closed, is_closed(&outcome));
            drop(outcome);
            self.learn(&verdict, began, events, bytes, &settings);
            drop(pass);
            let step = delivery.take(verdict, status, excerpt);
            if !step.buried.is_empty() {
                self.spool().bury(self.lane(), step.buried).await;
            }
            self.over_quota(step.accepted.iter().filter(|sent| sent.over_quota).count());
            match step.then {
                Then::Go => {}
                Then::Wait { .. } if closed && !closed_before => {}
                Then::Wait { asked, reason } => self.failing(began, asked, &reason, &settings),
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

    /// Counts the attempt, and remembers what a verdict says about the upstream beyond this batch.
    fn learn(&self, verdict: &LogVerdict, began: Instant, events: usize, bytes: usize, settings: &Settings) {
        self.count(match verdict {
            LogVerdict::Answered(_) => "answered",
            LogVerdict::Bisect { .. } => "bisect",
            LogVerdict::Split { .. } => "split",
            LogVerdict::Park { .. } => "park",
            LogVerdict::Retry { .. } => "retry",
            LogVerdict::Unknown { .. } => "unknown",
        });
        match verdict {
            LogVerdict::Answered(_) => {
                self.passed();
                self.size().passed(settings.batch.max_bytes);
                self.answered(began, bytes, settings);
            }
            LogVerdict::Split { .. } if events > 1 => self.size().refused(bytes),
            _ => {}
        }
    }
}

fn dressed(event: &Leased, dress: Dress) -> Cow<'_, [u8]> {
    match dress {
        Dress::AsIs => Cow::Borrowed(event.record()),
        Dress::NullCounts => {
            tokens::with_null_counts(event.record()).map_or(Cow::Borrowed(event.record()), Cow::Owned)
        }
    }
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
