//! The commit: dead letters first, then everything else in one batch, then the answers. And what happens
//! when it fails.
use super::AppendError;
use super::Entry;
use super::durable::{StorageError, Writes};
use super::generation::GENERATION_BYTES;
use super::group::{Group, Plan};
use super::key;
use super::meta::Head;
use super::owner::{Failure, Owner};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Pause between attempts to get failed storage going again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Bytes from which a generation is worth replacing by an empty one, which takes about a segment.
const WORTH_DELETING_BYTES: u64 = 4 * 1024 * 1024;

impl Owner {
    /// Makes a group durable together with what was settled and buried since, and answers it.
    pub(super) fn commit(&mut self, mut group: Group) {
        let now = Instant::now();
        if let Some(failure) = self.failure.as_ref().filter(|failure| now < failure.retry_at) {
            let answer = Err(AppendError::Storage(failure.sentence.clone()));
            return group.answer(&answer);
        }
        let answer = match self.try_commit(group.take_entries(), now) {
            Ok(()) => {
                if self.failure.take().is_some() {
                    tracing::info!("storage works again: accepting");
                }
                Ok(())
            }
            Err(error) => Err(AppendError::Storage(self.fail(error, now))),
        };
        self.publish_refusal();
        group.answer(&answer);
    }

    fn try_commit(&mut self, entries: Vec<Entry>, now: Instant) -> Result<(), StorageError> {
        let now_ms = (self.disk.now_ms)();
        let plan = Plan::new(entries, &mut self.lanes, self.head.next_seq, now_ms);
        // Even if the commit fails: what it may have left on disk must not meet another event of the same number.
        self.head.next_seq = plan.next_seq;
        self.hold_funerals(&plan)?;

        let generation = self.writable_generation()?;
        let mut writes = Writes::default();
        let additions = plan.write(&mut writes, &self.lanes, generation, now_ms);
        let chunk_bytes = writes.bytes();
        self.lanes.write_changed(&mut writes, &additions);
        let payload: u64 = additions.iter().map(|addition| addition.extent.live_bytes).sum();
        let head = Head {
            accepted: self.head.accepted + plan.accepted,
            dead: self.head.dead + plan.refused.len() as u64,
            written: self.head.written + payload.max(chunk_bytes) + writes.bytes() - chunk_bytes,
            ..self.head
        };
        writes.set(key::HEAD.to_vec(), &head.encode());
        self.generations.commit(writes)?;

        self.head = head;
        self.mark.write(generation, &self.head);
        self.dirty_since = None;
        self.lanes.committed(&additions, now);
        self.publish_account();
        self.publish_lanes(additions.iter().map(|addition| addition.lane));
        self.remove_settled_generations();
        Ok(())
    }

    /// The generation that takes the next commit: a new one if there is none or the newest is to be sealed. The first
    /// commit of a generation says how all stands, so that it alone is enough to start from.
    fn writable_generation(&mut self) -> Result<u64, StorageError> {
        let sealed = self.head.written >= GENERATION_BYTES || self.newest_is_in_the_way();
        if let Some(newest) = self.generations.newest().filter(|_| !sealed) {
            return Ok(newest);
        }
        let generation = self.generations.next();
        let mut writes = Writes::default();
        self.lanes.write_all(&mut writes);
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

    /// Puts the dead letters of refused and buried events on disk; only then do the buried ones leave their lanes.
    fn hold_funerals(&mut self, plan: &Plan) -> Result<(), StorageError> {
        if plan.refused.is_empty() && self.funerals.is_empty() {
            return Ok(());
        }
        let buried = self
            .funerals
            .iter()
            .flat_map(|funeral| funeral.letters.iter().map(|(_, letter)| letter));
        let letters: Vec<_> = plan.refused.iter().chain(buried).cloned().collect();
        self.bury_letters(&letters).map_err(StorageError::trouble)?;
        let mut touched = BTreeSet::new();
        for funeral in std::mem::take(&mut self.funerals) {
            for (lane, letter) in &funeral.letters {
                if self.lanes.settle(*lane, letter.seq.0) {
                    self.head.dead += 1;
                    touched.insert(*lane);
                }
            }
            self.mark_dirty();
            let _ = funeral.reply.send(());
        }
        // Whatever becomes of the commit: feedback may have waited for what was buried.
        self.publish_lanes(touched);
        Ok(())
    }

    /// Nothing is accepted for want of room, and the newest generation takes some up although nothing in it is live. No
    /// append will ever fill and so seal it: only a new one gives the space back.
    pub(super) fn newest_is_in_the_way(&self) -> bool {
        let nothing_live = |id| self.lanes.live_in(id).events == 0;
        self.room.full().is_some()
            && self.head.written >= WORTH_DELETING_BYTES
            && self.generations.newest().is_some_and(nothing_live)
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
    fn fail(&mut self, error: StorageError, now: Instant) -> String {
        self.generations.close();
        let sentence = format!(
            "the spool could not be written: {error}: look at the disk under spool.path; it is tried again by itself"
        );
        if self.failure.is_none() {
            tracing::error!(%error, "storage failed: nothing is accepted until it works again");
        }
        self.failure = Some(Failure {
            sentence: sentence.clone(),
            retry_at: now + RETRY_PAUSE,
        });
        sentence
    }
}
