//! Passing faults that may have to do with what is sent: its size, or something in it that makes a thing in between answer.
//!
//! The next part is smaller then, down to one event: by halves at once where it may be the size, after [`FAULTS_TOGETHER`] faults where it
//! may be the content. An event that failed [`LONE_FAULTS`] times alone is held, and the next one is tried, or the last. If that fails too, it is an
//! outage, and both wait in their order. If it passes, the held one is sent once more, and deferred if it fails again: it
//! leaves the batch, and whoever sends the batch tries it again later, beside the others. It is never buried for a passing fault.

use super::{Delivery, Held, Sent, Why};
use crate::verdict::Suspect;

/// How often several events may meet an answer that is not the API's own before they go one by one.
const FAULTS_TOGETHER: u32 = 5;
/// How often an event may fail alone before another is tried; twice as often each time that this was in vain, so that in an
/// outage hardly ever another goes first.
const LONE_FAULTS: u32 = 4;

impl<E> Delivery<E> {
    /// How many events that keep failing alone may be taken out of the delivery; none at first.
    pub(in crate::courier) fn may_defer(&mut self, most: usize) {
        self.may_defer = most;
    }

    /// The events that were taken out since the last call.
    pub(in crate::courier) fn take_deferred(&mut self) -> Vec<Sent<E>> {
        std::mem::take(&mut self.deferred)
    }

    /// A passing fault met the part.
    pub(super) fn fault(&mut self, suspect: Suspect) {
        match (suspect, self.part) {
            (Suspect::Nothing, _) => {}
            (_, 0 | 1) if self.held.iter().any(|held| held.why == Why::Stalled) => {
                self.in_vain = true;
            }
            (_, 0 | 1) => {
                if let Some(sent) = self.queue.front_mut() {
                    let faults = if sent.compared { u32::MAX } else { 1 };
                    sent.lone_faults = sent.lone_faults.saturating_add(faults);
                }
            }
            (Suspect::Size, part) => self.cap = part / 2,
            (Suspect::Content, _) => {
                self.faults += 1;
                if self.faults >= FAULTS_TOGETHER {
                    self.cap = 1;
                }
            }
        }
    }

    /// Whether the front event keeps failing alone.
    pub(super) fn is_stalled(&self) -> bool {
        let front = self.queue.front();
        let none_held = self.held.iter().all(|held| held.why != Why::Stalled);
        self.may_defer > 0
            && none_held
            && front.is_some_and(|sent| sent.lone_faults >= LONE_FAULTS << self.holds.min(8))
    }

    /// Another was tried in vain: back into their order with both.
    pub(super) fn give_back(&mut self) {
        if !std::mem::take(&mut self.in_vain) {
            return;
        }
        if std::mem::take(&mut self.from_end) {
            self.queue.rotate_left(self.queue.len().min(1));
        }
        self.readmit(|held| held.why == Why::Stalled);
    }

    /// Takes the front event out if it keeps failing alone and another passed; holds it if there is another to try.
    pub(super) fn hold_stalled(&mut self) {
        if !self.is_stalled() || self.doubtful > 0 {
            return;
        }
        let compared = self.queue.front().is_some_and(|sent| sent.compared);
        if !compared && self.queue.len() < 2 {
            return;
        }
        let Some((sent, from_end)) = self.pop_alone() else {
            return;
        };
        if compared {
            self.may_defer = self.may_defer.saturating_sub(1);
            self.deferred.push(sent);
            self.holds = 0;
            return;
        }
        self.held.push(Held {
            sent,
            why: Why::Stalled,
            from_end,
            reason: String::new(),
            status: None,
            excerpt: None,
        });
        self.alone = self.alone.max(1);
        // In turn with the next one and with the last, because what meets such faults may come in a row.
        self.holds += 1;
        if self.holds.is_multiple_of(2)
            && let Some(last) = self.queue.pop_back()
        {
            self.queue.push_front(last);
            self.from_end = true;
        }
    }

    /// Another passed, so what is held for it is not held up by the upstream: it goes once more.
    pub(super) fn compare_stalled(&mut self) {
        let stalled = self.held.iter_mut().filter(|held| held.why == Why::Stalled);
        stalled.for_each(|held| held.sent.compared = true);
    }
}
