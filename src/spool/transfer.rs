//! What is queued of a project under a wrong id goes to another one.
//!
//! It is taken on lease, and while it is, nobody else is given anything of the project's lanes. One
//! commit puts a group behind what the other project has queued and ends it in its own lanes: after
//! a kill at any point each event is in exactly one of the two. A group holds all feedback up to
//! the first log that stays, so what is left of feedback is held back by a log that is left. Events
//! get new sequences, and the ledger stays as it is: they are neither accepted once more nor
//! delivered.
use super::dropping::Dropping;
use super::group::{Origins, Prepared};
use super::lanes::Memo;
use super::lease::Leased;
use super::owner::Owner;
use super::queue::MAX_OPEN;
use super::{AppendError, Entry};
use crate::batch::Limits;
use crate::ids::{Kind, Lane, ProjectId};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What a transfer put into another project's lanes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Log events.
    pub logs: u64,
    /// Feedback.
    pub feedback: u64,
}

/// What a commit takes out of its lanes to put it into others, and how that is undone if the commit
/// fails.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) events: u64,
    memo: Memo,
}

/// How long a claim keeps others from the two lanes of a project. It ends by itself, should who
/// moves them be gone.
const CLAIM_FOR: Duration = Duration::from_secs(5);

/// Bounds of the feedback that goes with a group of logs. More than that between two logs goes with
/// the next group.
const FEEDBACK: Limits = Limits {
    max_events: MAX_OPEN,
    max_bytes: 16 * 1024 * 1024,
    max_age: Duration::ZERO,
};

impl Owner {
    /// Leases the next logs of a project up to a sequence, and all feedback before the first log
    /// that stays, for who moves them. Keeps others from both lanes for a while. Empty as long as
    /// others have something on lease: it may come back, and would then go behind what came after
    /// it.
    pub(super) fn claim(
        &mut self,
        project: &ProjectId,
        last: u64,
        limits: &Limits,
        now: Instant,
    ) -> Vec<Leased> {
        let number = |kind| {
            let project = project.clone();
            self.lanes.number(&Lane { project, kind })
        };
        let (logs, feedback) = (number(Kind::Log), number(Kind::Feedback));
        let both = || logs.into_iter().chain(feedback);
        let mut leased = Vec::new();
        if !both().any(|number| self.lanes.is_in_use(number)) {
            both().for_each(|number| self.lanes.set_readable(number));
            let mut below = last.saturating_add(1);
            if let Some(number) = logs {
                leased = self.lease_below(number, below, limits, now);
                let first_left = self.lanes.get(number).and_then(|state| state.queue.first_idle());
                below = first_left.unwrap_or(u64::MAX).min(below);
            }
            if let Some(number) = feedback {
                leased.extend(self.lease_below(number, below, &FEEDBACK, now));
            }
        }
        for number in both() {
            self.lanes.set_claimed(number, now + CLAIM_FOR);
            self.lanes.publish(number);
        }
        leased
    }

    /// Puts events into the lanes of another project, all or none. After an error they are back in
    /// their own.
    pub(super) fn transfer(
        &mut self,
        events: Vec<(Leased, Vec<u8>)>,
        to: &ProjectId,
        now: Instant,
    ) -> Result<Transferred, AppendError> {
        let (mut leased, mut entries, mut done) = (Vec::new(), Vec::new(), Transferred::default());
        for (event, record) in events {
            let (number, seq, _) = event.end();
            // One that is not on lease any more was lost with a damaged generation.
            let Some(state) = self.lanes.get(number).filter(|state| state.queue.is_leased(seq)) else {
                continue;
            };
            let kind = state.lane.kind;
            match kind {
                Kind::Log => done.logs += 1,
                Kind::Feedback => done.feedback += 1,
            }
            leased.push((number, seq));
            let project = to.clone();
            let lane = Lane { project, kind };
            entries.push(Entry::Queued { lane, record });
        }
        if entries.is_empty() {
            return Ok(done);
        }
        if let Some(failure) = self.failure.as_ref().filter(|failure| now < failure.retry_at) {
            let sentence = failure.sentence.clone();
            self.release(leased.into_iter());
            return Err(AppendError::Storage(sentence));
        }
        let from: BTreeSet<u32> = leased.iter().map(|(lane, _)| *lane).collect();
        let origins = Origins {
            leased: leased.clone(),
            ..Origins::default()
        };
        let parts = Prepared::new(entries).into_parts();
        match self.commit_parts(parts, origins, Dropping::ForAppends, now) {
            Ok(()) => {
                self.publish_lanes(from);
                Ok(done)
            }
            Err(error) => {
                self.release(leased.into_iter());
                Err(error)
            }
        }
    }

    /// Ends leased events for a commit that puts them elsewhere. Behind what may begin a
    /// generation, which would else tell of their end before the commit that holds them.
    pub(super) fn take_transferred(&mut self, leased: &[(u32, u64)]) -> Taken {
        if leased.is_empty() {
            return Taken::default();
        }
        let memo = self.lanes.memo(leased.iter().map(|(lane, _)| *lane));
        let ended = leased.iter().filter(|&&(lane, seq)| self.lanes.settle(lane, seq));
        Taken {
            events: ended.count() as u64,
            memo,
        }
    }

    /// Puts back what a commit that failed would have put elsewhere.
    pub(super) fn put_back_transferred(&mut self, taken: Taken) {
        self.lanes.restore(taken.memo);
    }
}
