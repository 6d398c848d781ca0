//! Events that change their lane: those of a project under a wrong id.
//!
//! They are on lease, so that nobody else has them, and while they are taken nobody else is given any of their lanes. One commit puts them behind what the other lane has and ends them
//! in their own: after a kill at any point each is in exactly one of the two. They get new sequences, and the ledger stays as
//! it is: they are neither accepted once more nor delivered.
use super::dropping::Dropping;
use super::group::{Origins, Prepared};
use super::lanes::Memo;
use super::lease::Leased;
use super::owner::Owner;
use super::{AppendError, Entry};
use crate::batch::Limits;
use crate::ids::Lane;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What a commit takes out of its lanes to put it into another, and how that is undone if the commit fails.
#[derive(Default)]
pub(super) struct Transferred {
    pub(super) events: u64,
    memo: Memo,
}

/// How long a claim keeps others from the two lanes of a project. It ends by itself, should who moves them be gone.
const CLAIM_FOR: Duration = Duration::from_secs(5);

impl Owner {
    /// Leases for who moves a project, and keeps others from it for a while.
    pub(super) fn claim(&mut self, lane: &Lane, limits: &Limits, now: Instant) -> Vec<Leased> {
        let Some(number) = self.lanes.number(lane) else {
            return Vec::new();
        };
        self.lanes.set_readable(number);
        let leased = self.lease(lane, limits, now);
        for number in [Some(number), self.lanes.peer(number)].into_iter().flatten() {
            self.lanes.set_unreadable(number, now + CLAIM_FOR);
            self.lanes.publish(number);
        }
        leased
    }

    /// Puts events into another lane, all or none. After an error they are back in their own.
    pub(super) fn transfer(
        &mut self,
        events: Vec<(Leased, Vec<u8>)>,
        to: &Lane,
        now: Instant,
    ) -> Result<(), AppendError> {
        let (mut leased, mut entries) = (Vec::new(), Vec::new());
        for (event, record) in events {
            let (lane, seq, _) = event.end();
            // One that is not on lease any more was lost with a damaged generation.
            if self
                .lanes
                .get(lane)
                .is_some_and(|state| state.queue.is_leased(seq))
            {
                leased.push((lane, seq));
                entries.push(Entry::Queued {
                    lane: to.clone(),
                    record,
                });
            }
        }
        if entries.is_empty() {
            return Ok(());
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
        let done = self.commit_parts(parts, origins, Dropping::ForAppends, now);
        match &done {
            Ok(()) => self.publish_lanes(from),
            Err(_) => self.release(leased.into_iter()),
        }
        done
    }

    /// Ends leased events for a commit that puts them elsewhere. Behind what may begin a generation, which would else tell of
    /// their end before the commit that holds them.
    pub(super) fn take_transferred(&mut self, leased: &[(u32, u64)]) -> Transferred {
        if leased.is_empty() {
            return Transferred::default();
        }
        let memo = self.lanes.memo(leased.iter().map(|(lane, _)| *lane));
        let ended = leased.iter().filter(|&&(lane, seq)| self.lanes.settle(lane, seq));
        Transferred {
            events: ended.count() as u64,
            memo,
        }
    }

    /// Puts back what a commit that failed would have put elsewhere.
    pub(super) fn put_back_transferred(&mut self, transferred: Transferred) {
        self.lanes.restore(transferred.memo);
    }
}
