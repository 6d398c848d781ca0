//! The commit: dead letters first, then everything else in one batch, then the answers. And what happens
//! when it fails.
use super::AppendError;
use super::dropping::Dropping;
use super::durable::{StorageError, Writes};
use super::group::{Group, Origins, Part, Plan, queued_bytes};
use super::meta::Head;
use super::owner::{Failure, Owner};
use super::{key, requeue};
use std::time::{Duration, Instant};

/// Pause between attempts to get failed storage going again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Bytes from which a generation is worth replacing by an empty one, which takes about a segment.
const WORTH_DELETING_BYTES: u64 = 4 * 1024 * 1024;

/// Why a commit was not made.
pub(super) enum Stop {
    /// There is nothing wrong with the storage: its appends are refused.
    Refused(AppendError),
    Storage(StorageError),
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Stop {
        Stop::Storage(error)
    }
}

impl Owner {
    /// Makes a group durable together with what was settled and buried since, and answers it.
    pub(super) fn commit(&mut self, mut group: Group) {
        let now = Instant::now();
        if let Some(failure) = self.failure.as_ref().filter(|failure| now < failure.retry_at) {
            let answer = Err(AppendError::Storage(failure.sentence.clone()));
            return group.answer(&answer);
        }
        let answer = self.commit_parts(group.take_parts(), Origins::default(), Dropping::ForAppends, now);
        self.publish_refusal();
        group.answer(&answer);
    }

    /// A commit without appends, that drops a generation.
    pub(super) fn commit_alone(&mut self, dropping: Dropping, now: Instant) {
        // What went wrong was logged, and is tried again.
        let _ = self.commit_parts(Vec::new(), Origins::default(), dropping, now);
    }

    /// `origins` are what the parts come from, if not from clients.
    pub(super) fn commit_parts(
        &mut self,
        parts: Vec<Part>,
        origins: Origins,
        dropping: Dropping,
        now: Instant,
    ) -> Result<(), AppendError> {
        let now_ms = (self.disk.now_ms)();
        // What only changes its lane takes no room from others.
        let adding = match origins.leased.is_empty() {
            true => queued_bytes(&parts),
            false => 0,
        };
        let plan = Plan::new(parts, origins, &mut self.lanes, self.head.next_seq, now_ms);
        // Even if the commit fails: what it may have left on disk must not meet another event of the same number.
        self.head.next_seq = plan.next_seq;
        if let Err(sentence) = self.hold_funerals(&plan, now)
            && !plan.refused.is_empty()
        {
            return Err(AppendError::Storage(sentence));
        }
        match self.try_commit(&plan, adding, dropping, now) {
            Ok(()) => {
                if self.failure.take().is_some() {
                    tracing::info!("storage works again");
                }
                Ok(())
            }
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Storage(error)) => Err(AppendError::Storage(self.fail(error, now))),
        }
    }

    fn try_commit(&mut self, plan: &Plan, adding: u64, dropping: Dropping, now: Instant) -> Result<(), Stop> {
        let now_ms = (self.disk.now_ms)();
        let generation = self.writable_generation(dropping)?;
        // Behind the commit that may begin a generation, which would else tell of it before the ledger does.
        let dropped = self.take_dropped(dropping, adding, now)?;
        let taken = self.take_transferred(&plan.origins.leased);
        let mut writes = Writes::default();
        let additions = plan.write(&mut writes, &self.lanes, generation, now_ms);
        let chunk_bytes = writes.bytes();
        self.lanes.write_changed(&mut writes, &additions);
        self.requeued.write(&mut writes, &plan.origins.letters);
        let payload: u64 = additions.iter().map(|addition| addition.extent.live_bytes).sum();
        let head = Head {
            accepted: self.head.accepted + plan.accepted - taken.events,
            dead: self.head.dead + plan.refused.len() as u64,
            dropped: self.head.dropped + dropped.total(),
            written: self.head.written + payload.max(chunk_bytes) + writes.bytes() - chunk_bytes,
            void: self.void_after(plan),
            ..self.head
        };
        let head = requeue::account(head, plan.origins.letters.len() as u64);
        writes.set(key::HEAD.to_vec(), &head.encode());
        if let Err(error) = self.generations.commit(writes) {
            self.put_back_transferred(taken);
            self.put_back(dropped);
            return Err(error.into());
        }

        self.head = head;
        self.mark.write(generation, &self.head);
        self.dirty_since = None;
        self.lanes.committed(&additions, now);
        self.requeued.committed(&plan.origins.letters);
        // Before the ledger shows them.
        self.note_letters(&plan.refused_groups());
        self.publish_account();
        self.note_dropped(&dropped, dropping, now);
        self.publish_lanes(additions.iter().map(|addition| addition.lane));
        self.remove_settled_generations();
        Ok(())
    }

    /// The generation that takes the next commit: a new one if there is none or the newest is to be sealed. The first
    /// commit of a generation says how all stands, so that it alone is enough to start from.
    pub(super) fn writable_generation(&mut self, dropping: Dropping) -> Result<u64, StorageError> {
        let full = self.newest_is_full() || self.newest_is_in_the_way();
        let stays = |&newest: &u64| !full && dropping != Dropping::Generation(newest);
        if let Some(newest) = self.generations.newest().filter(stays) {
            return Ok(newest);
        }
        let generation = self.generations.next();
        let mut writes = Writes::default();
        self.lanes.write_all(&mut writes);
        self.requeued.write_all(&mut writes);
        let head = Head {
            written: writes.bytes(),
            ..self.head
        };
        writes.set(key::HEAD.to_vec(), &head.encode());
        self.generations.begin(writes)?;
        self.head = head;
        self.mark.write(generation, &self.head);
        self.mark.sync();
        self.lanes.committed(&[], Instant::now());
        Ok(generation)
    }

    /// By what was written to it, or by what that takes on the disk: several times as much when commits are small, for what
    /// sled adds to each change.
    fn newest_is_full(&self) -> bool {
        let most_disk = self.generation_bytes.max(WORTH_DELETING_BYTES);
        self.head.written >= self.generation_bytes || self.generations.newest_bytes() >= most_disk
    }

    /// Nothing is accepted for want of room, and the newest generation takes some up although nothing in it is live. No
    /// append will ever fill and so seal it: only a new one gives the space back.
    pub(super) fn newest_is_in_the_way(&self) -> bool {
        let nothing_live = |id| self.lanes.live_in(id).events == 0;
        self.room.full().is_some()
            && self.newest_is_large()
            && self.generations.newest().is_some_and(nothing_live)
    }

    /// Whether deleting the newest generation frees more than the next one takes.
    pub(super) fn newest_is_large(&self) -> bool {
        self.head.written >= WORTH_DELETING_BYTES
    }

    /// Deletes generations in which, as is now durable, nothing is live.
    pub(super) fn remove_settled_generations(&mut self) {
        let newest = self.generations.newest();
        let present = self.generations.present().iter().copied();
        let settled: Vec<u64> = present
            .filter(|&id| Some(id) != newest && self.lanes.live_in(id).events == 0)
            .collect();
        for id in settled {
            let gone = match self.generations.is_damaged(id) {
                // A salvage that was cut off before this.
                true => self.generations.set_aside(id, &self.quarantine),
                false => self.generations.remove(id),
            };
            if let Err(error) = gone {
                tracing::warn!(generation = id, %error, "a settled generation could not be deleted: it is tried again");
            }
        }
    }

    /// Stops trusting what is open. The next attempt starts a new generation. Gives the sentence for callers.
    pub(super) fn fail(&mut self, error: StorageError, now: Instant) -> String {
        self.generations.close();
        let freed = self.room.give_way(error.full);
        let sentence = format!(
            "the spool could not be written: {error}: {}; it is tried again by itself",
            error.remedy()
        );
        if self.failure.is_none() {
            tracing::error!(%error, "storage failed: nothing is accepted until it works again");
        }
        self.failure = Some(Failure {
            sentence: sentence.clone(),
            retry_at: if freed { now } else { now + RETRY_PAUSE },
        });
        sentence
    }
}
