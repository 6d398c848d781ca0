//! Burials: dead letters are durable before the events that they are of leave their lanes or are acknowledged, and count
//! from the commit after that on.
//!
//! Two folders cannot be written at once, so the head of the spool says which letters count: those below
//! `uncounted_from`, but for the `void` ones. Whatever does not count is removed: at the start, and before the next burial.
//! Its events are still queued, or were never acknowledged.
use super::commit::RETRY_PAUSE;
use super::durable::StorageError;
use super::group::{Funeral, Plan, Prepared};
use super::lanes::Lanes;
use super::letter_log::{LetterGroup, Line};
use super::owner::{Failure, Owner};
use super::view::locked;
use super::{DeadLetter, DeadLettersError, DeadPage};
use std::collections::BTreeSet;
use std::time::{Instant, SystemTime};

/// No letters.
const NONE: (u64, u64) = (0, 0);

impl Owner {
    /// Puts the dead letters of refused and buried events on disk; only then do the buried ones leave their lanes. If
    /// that fails they stay, and the refused ones must not be acknowledged.
    pub(super) fn hold_funerals(&mut self, plan: &Plan, now: Instant) -> Result<(), String> {
        if plan.refused.is_empty() && !self.are_funerals_due(now) {
            return Ok(());
        }
        let funerals = std::mem::take(&mut self.funerals);
        match self.bury_letters(&funerals, &plan.refused, now) {
            Ok(()) => {
                if self.dead_failure.take().is_some() {
                    tracing::info!("dead letters can be written again");
                }
                self.end_funerals(funerals);
                Ok(())
            }
            Err(error) => {
                self.funerals = funerals;
                Err(self.fail_letters(&error, now))
            }
        }
    }

    fn bury_letters(
        &mut self,
        funerals: &[Funeral],
        refused: &[DeadLetter],
        now: Instant,
    ) -> Result<(), StorageError> {
        self.clear_void()?;
        let buried = funerals.iter().flat_map(|funeral| &funeral.letters);
        let buried = buried.map(|(_, letter)| letter);
        let letters: Vec<&DeadLetter> = buried.chain(refused).collect();
        let numbers = self.dead.reserve(letters.len())?;
        // Until it is known to have worked, and for the refused ones until they are acknowledged.
        self.head.uncounted_from = numbers.end;
        self.head.void = (numbers.start, numbers.end);
        self.dead.bury(numbers.start, &letters, now)?;
        self.head.void.0 = numbers.end - refused.len() as u64;
        Ok(())
    }

    fn end_funerals(&mut self, funerals: Vec<Funeral>) {
        let mut touched = BTreeSet::new();
        let mut groups = Vec::new();
        for funeral in funerals {
            for (lane, letter) in &funeral.letters {
                groups.push(LetterGroup::of(letter, false));
                if self.lanes.settle(*lane, letter.seq.0) || self.head.find_again() {
                    self.head.dead += 1;
                    touched.insert(*lane);
                }
            }
            self.mark_dirty();
            let _ = funeral.reply.send(());
        }
        self.note_letters(&groups);
        // Whatever becomes of the commit: feedback may have waited for what was buried.
        self.publish_lanes(touched);
    }

    /// Notes letters of which the operators are to be told.
    pub(super) fn note_letters(&self, groups: &[LetterGroup]) {
        let mut log = locked(&self.shared.letter_log);
        log.note(groups, Instant::now(), SystemTime::now());
    }

    /// Logs what there is to say about dead letters; all of it if it is the `last` time.
    pub(super) fn report_letters(&self, now: Instant, last: bool) {
        let line = locked(&self.shared.letter_log).line(now, last);
        match line {
            None => {}
            Some(Line {
                letters,
                which,
                within: None,
            }) => tracing::warn!(
                letters,
                %which,
                "events became dead letters: `phosphod dead list` shows why"
            ),
            Some(Line {
                letters,
                which,
                within: Some(within),
            }) => tracing::warn!(
                letters,
                %which,
                seconds = within.as_secs(),
                "more events became dead letters: `phosphod dead list` shows why"
            ),
        }
    }

    /// Which letters do not count once this plan is durable: its own refused ones do.
    pub(super) fn void_after(&self, plan: &Plan) -> (u64, u64) {
        match plan.refused.is_empty() {
            true => self.head.void,
            false => NONE,
        }
    }

    /// Removes letters that do not count.
    pub(super) fn clear_void(&mut self) -> Result<(), StorageError> {
        self.clear_requeued()?;
        let (from, to) = self.head.void;
        if from < to {
            self.dead.remove(from..to, |_, _| true)?;
        }
        self.head.void = NONE;
        Ok(())
    }

    /// At the start: removes letters whose burial was cut off before its commit.
    pub(super) fn settle_letters(&mut self) {
        let from = self.head.uncounted_from;
        let done = self.clear_void().and_then(|()| match from {
            0 => Ok(0),
            from => {
                let (lanes, next_seq) = (&self.lanes, self.head.next_seq);
                self.dead.remove(from..u64::MAX, |_, found| {
                    found
                        .as_ref()
                        .is_ok_and(|letter| has_not_ended(lanes, next_seq, letter))
                })
            }
        });
        match done {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed dead letters whose burial was cut off"),
            Err(error) => {
                if self.head.void == NONE && from > 0 {
                    self.head.void = (from, u64::MAX);
                }
                self.fail_letters(&error, Instant::now());
            }
        }
    }

    /// Notes that dead letters do not work; gives the sentence for callers.
    pub(super) fn fail_letters(&mut self, error: &StorageError, now: Instant) -> String {
        let sentence = format!(
            "the dead letters could not be written: {error}: {}; it is tried again by itself",
            error.remedy()
        );
        if self.dead_failure.is_none() {
            tracing::error!(
                %error,
                "dead letters cannot be written: what is to be buried stays queued, and what can never be sent is refused"
            );
        }
        self.dead_failure = Some(Failure {
            sentence: sentence.clone(),
            retry_at: now + RETRY_PAUSE,
        });
        sentence
    }

    /// Why entries cannot be taken that would become dead letters at once, if they cannot.
    pub(super) fn refuses_refused(&self, append: &Prepared) -> Option<String> {
        let failure = self.dead_failure.as_ref()?;
        let waits = Instant::now() < failure.retry_at && append.has_refused();
        waits.then(|| failure.sentence.clone())
    }

    /// When burials that wait are to be tried.
    pub(super) fn funerals_due_at(&self) -> Option<Instant> {
        let failure = self.dead_failure.as_ref()?;
        (!self.funerals.is_empty()).then_some(failure.retry_at)
    }

    /// Whether burials wait and may be tried now.
    pub(super) fn are_funerals_due(&self, now: Instant) -> bool {
        let waits = self
            .dead_failure
            .as_ref()
            .is_some_and(|failure| now < failure.retry_at);
        !waits && !self.funerals.is_empty()
    }

    /// Letters for whoever asks: only those that count.
    pub(super) fn list_letters(
        &mut self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<DeadPage, DeadLettersError> {
        let listed = self.clear_void().and_then(|()| self.dead.list(after, limit));
        listed.map_err(|error| {
            tracing::error!(%error, "the dead letters cannot be read");
            DeadLettersError::Storage(format!(
                "the dead letters cannot be read: {error}: look at the disk under spool.path, and ask again"
            ))
        })
    }

    /// What time alone changes.
    pub(super) fn look_after_letters(&mut self, now: Instant) {
        if let Err(error) = self.clear_void().and_then(|()| self.dead.tick(now)) {
            tracing::error!(%error, "old dead letters could not be dropped: it is tried again");
        }
    }
}

/// Whether an event is still queued, or was never acknowledged.
fn has_not_ended(lanes: &Lanes, next_seq: u64, letter: &DeadLetter) -> bool {
    let seq = letter.seq.0;
    let queue = lanes
        .number(&letter.lane)
        .and_then(|number| lanes.get(number))
        .map(|state| &state.queue);
    seq >= next_seq || queue.is_some_and(|queue| queue.place(seq).is_some() && queue.is_live(seq))
}
