//! Events that keep failing alone while others pass: tried again beside the batches, more and more seldom, and never given up for a
//! passing fault. They stay on lease meanwhile, and the
//! feedback of their project does not wait for them ([`Spool::defer`](crate::spool::Spool::defer)); after a restart they are where they were in the queue.

use super::confirm::{self, Confirmed, Patience};
use super::delivery::Sent;
use super::health;
use super::line::{Knobs, Line};
use super::repair;
use super::send::{facts, written};
use super::turn::{Attempt, Request};
use crate::backoff::Backoff;
use crate::batch;
use crate::spool::{Burial, Leased};
use crate::verdict::{self, Fate, LogVerdict};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Most such events of a lane. Further ones hold up their lane, with backoff.
const MOST: usize = 16;
/// How often in a row it must meet a 500 to be given up, as others pass meanwhile.
const SERVER_ERRORS: u32 = 3;
/// How many times the usual wait between two probes the wait between two tries grows to.
const SELDOM: u32 = 10;

/// The events of one lane, with the moments at which they are due. Pure: time and randomness are arguments.
#[derive(Debug)]
pub(super) struct Deferred<E> {
    rows: Vec<Row<E>>,
    /// One of them is being tried.
    trying: bool,
}

#[derive(Debug)]
struct Row<E> {
    sent: Sent<E>,
    tries: Tries,
    due: Instant,
}

/// How often an event was tried since it was deferred.
#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    all: u32,
    /// How often in a row it met a 500 last.
    server_errors: u32,
}

/// One that is tried now.
#[derive(Debug)]
pub(super) struct Due<E> {
    pub(super) sent: Sent<E>,
    tries: Tries,
}

impl<E> Deferred<E> {
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::new(),
            trying: false,
        }
    }

    /// How many more it takes.
    pub(super) fn room(&self) -> usize {
        MOST.saturating_sub(self.rows.len() + usize::from(self.trying))
    }

    /// Takes one up for the first time.
    pub(super) fn admit(&mut self, sent: Sent<E>, now: Instant, backoff: &Backoff, random: u64) {
        let tries = Tries::default();
        self.wait(Due { sent, tries }, now, backoff, random);
    }

    /// When the next one is due; `None` while one is being tried.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        let due = self.rows.iter().map(|row| row.due).min();
        due.filter(|_| !self.trying)
    }

    /// Gives out the one that is due first, if it is; until [`Deferred::ended`] no other.
    pub(super) fn next(&mut self, now: Instant) -> Option<Due<E>> {
        if self.trying {
            return None;
        }
        let rows = self.rows.iter().enumerate();
        let (at, row) = rows.min_by_key(|(_, row)| row.due)?;
        if row.due > now {
            return None;
        }
        self.trying = true;
        let row = self.rows.remove(at);
        Some(Due {
            sent: row.sent,
            tries: row.tries,
        })
    }

    /// Notes what came of the one that was tried: nothing if it has ended, itself if it failed again.
    pub(super) fn ended(&mut self, failed: Option<Due<E>>, now: Instant, backoff: &Backoff, random: u64) {
        self.trying = false;
        if let Some(due) = failed {
            self.wait(due, now, backoff, random);
        }
    }

    /// Gives up all that are not being tried.
    pub(super) fn clear(&mut self) -> Vec<E> {
        self.rows.drain(..).map(|row| row.sent.event).collect()
    }

    fn wait(&mut self, due: Due<E>, now: Instant, backoff: &Backoff, random: u64) {
        let all = due.tries.all.saturating_add(1);
        let wait = health::patient(backoff, all, random) * all.min(SELDOM);
        self.rows.push(Row {
            sent: due.sent,
            tries: Tries { all, ..due.tries },
            due: now + wait,
        });
    }
}

impl Line {
    /// Tries a deferred event once more. What comes of it says nothing about the lane. Gives it back if it failed in passing.
    pub(super) async fn try_deferred(
        self: &Arc<Self>,
        knobs: &mut Knobs,
        due: Due<Leased>,
    ) -> Option<Due<Leased>> {
        let Due { sent, mut tries } = due;
        let sent = confirm::settle_stored(self, knobs, vec![sent], false)
            .await?
            .pop()?;
        let failed = |sent| Some(Due { sent, tries });
        let Some(pass) = self.admit_read(knobs).await else {
            return failed(sent);
        };
        let settings = knobs.borrow_and_update().clone();
        let Some(key) = settings.key_for(&self.lane().project) else {
            return failed(sent);
        };
        if settings.confirm {
            confirm::sends(self, std::iter::once(&sent.event));
        }
        let event = written(&sent);
        let counted = matches!(event, Cow::Owned(_));
        let body = batch::body([event.as_ref()]);
        drop(event);
        let post = settings.upstream.post_log(&self.lane().project, key, body);
        let Ok(Attempt { began, outcome }) = self.ask_once(Request::Log(1), post).await else {
            return failed(sent);
        };
        let mut sent = sent;
        (sent.attempts, sent.absent) = (sent.attempts.saturating_add(1), false);
        let (status, excerpt) = facts(&outcome);
        tries.server_errors = if status == Some(500) {
            tries.server_errors + 1
        } else {
            0
        };
        let failed = |sent| Some(Due { sent, tries });
        let verdict = verdict::of_log(&outcome, 1, tries.server_errors / SERVER_ERRORS * 2);
        drop((outcome, pass));
        let bytes = sent.event.record().len();
        match &verdict {
            LogVerdict::Answered(_) => self.learn(&verdict, status, began, (1, bytes), &settings),
            verdict => self.count_log(verdict),
        }
        let passes = self.passes.load(Ordering::Relaxed);
        let burial = match verdict {
            LogVerdict::Answered(fates) => match fates.into_iter().next() {
                Some(Fate::Refused(reason)) => sent.bury(reason, status, excerpt),
                fate => {
                    sent.over_quota = matches!(fate, Some(Fate::OverQuota(_)));
                    self.over_quota(usize::from(sent.over_quota));
                    let zeroed = &self.common.metrics.delivery_zero_counts_events;
                    zeroed.inc_by(u64::from(counted));
                    self.confirm_alone(knobs, sent).await;
                    return None;
                }
            },
            LogVerdict::Bisect { reason } | LogVerdict::Split { reason } => {
                sent.bury(reason.for_letter(), status, excerpt)
            }
            LogVerdict::Blocked(blocked) => match sent.blocked(&blocked, passes) {
                true => sent.bury(blocked.refusal, status, excerpt),
                false => return failed(sent),
            },
            LogVerdict::Park { .. } | LogVerdict::Retry { .. } | LogVerdict::Unknown { .. } => {
                return failed(sent);
            }
        };
        self.bury_one(burial).await;
        None
    }

    /// Looks whether the event is stored, and does what can be done if not.
    async fn confirm_alone(self: &Arc<Self>, knobs: &mut Knobs, sent: Sent<Leased>) {
        if let Confirmed::Lost(lost) = confirm::confirm(self, knobs, vec![sent], Patience::Full).await {
            self.lost(lost.len());
            let hopeless = repair::repair(self, knobs, lost, None).await;
            repair::bury(self, knobs, hopeless).await;
        }
    }

    async fn bury_one(&self, burial: (Leased, Burial)) {
        self.spool().bury(self.lane(), vec![burial]).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::courier::delivery::{Delivery, EventForm};
    use std::time::Duration;

    fn sent(event: u32) -> Sent<u32> {
        let mut delivery = Delivery::in_doubt([Sent::new(event, EventForm::AsIs)]);
        delivery.take_doubtful().pop().expect("one")
    }

    #[test]
    fn each_is_tried_more_and_more_seldom_one_at_a_time_and_there_is_a_bound() {
        let backoff =
            Backoff::new(Duration::from_millis(500), Duration::from_secs(60)).expect("bounds are in order");
        let (mut deferred, mut now) = (Deferred::new(), Instant::now());
        assert_eq!(deferred.room(), MOST);
        deferred.admit(sent(1), now, &backoff, u64::MAX);
        let mut waits = Vec::new();
        for _ in 0..20 {
            assert!(deferred.next(now).is_none(), "it is not due");
            let due = deferred.next_moment().expect("one waits");
            waits.push(due - now);
            now = due;
            let due = deferred.next(now).expect("it is due");
            assert_eq!(
                (deferred.next_moment(), deferred.room()),
                (None, MOST - 1),
                "it is being tried"
            );
            deferred.admit(sent(2), now, &backoff, 0);
            assert!(deferred.next(now + 3_600 * Duration::from_secs(1)).is_none());
            assert_eq!(deferred.clear(), [2]);
            deferred.ended(Some(due), now, &backoff, u64::MAX);
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(
            (waits[0], waits[19]),
            (Duration::from_secs(4), Duration::from_secs(600))
        );
        let due = deferred.next(now + Duration::from_secs(600)).expect("it is due");
        assert_eq!(due.sent.event, 1);
        deferred.ended(None, now, &backoff, 0);
        assert_eq!(deferred.room(), MOST);
        for event in 0..20 {
            deferred.admit(sent(event), now, &backoff, 0);
        }
        assert_eq!(deferred.room(), 0);
    }
}
