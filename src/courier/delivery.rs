//! The way of one batch to the end of each of its events. Pure: it takes verdicts and says what to send next.
//!
//! **Finding poison** (contract.md section 7: 400, 422, a repeated 500). A batch that is refused as a whole holds at least
//! one event that spoils it. The part that is known to be spoiled is halved, front half first: a half that passes
//! leaves the spoiled event in what is behind it, a half that fails is spoiled itself. Once it is down to one
//! event, everything in front of that has been delivered, and all behind it goes as one part again. So one
//! event among 1,000 costs at most 14 requests, and order is kept. After a few burials the rest goes in small parts that
//! double with each success, so that a batch full of poison costs about one request an event.
//!
//! **An upstream that refuses everything must not turn a queue into dead letters.** So an event that fails alone
//! is only buried if something else was accepted:
//! - 400, 413 and 422, alone: buried if another event of this batch was accepted. Otherwise it is held and its neighbour is sent
//!   alone. If that is accepted, the held one is sent once more and buried if it fails again. If that fails too, or
//!   there is none, the lane backs off and both are tried again, [`ROUNDS_REFUSED`](failed::ROUNDS_REFUSED) times; then they are buried.
//! - 500, alone: the same, with [`ROUNDS_FAILED`](failed::ROUNDS_FAILED) rounds; and the event must fail `ALONE_FAILURES` times with a wait between,
//!   and another event must have been accepted since the last burial, so that an upstream that breaks down
//!   halfway through a batch does not take the rest with it.
//! - An answer that something in between gives ([`blocked`]): buried once others pass and it is refused alone again and again.
//!   The project is parked, and nothing is buried, if nothing passes.
//!
//! **Passing faults** that may have to do with what is sent make the next part smaller; one event that keeps failing alone while others
//! pass is taken out of their way ([`faults`]).

mod blocked;
mod failed;
mod faults;
mod sent;
#[cfg(test)]
mod tests;

pub(super) use sent::{EventForm, Sent};

use crate::spool::Burial;
use crate::verdict::{Fate, LogVerdict};
use std::collections::VecDeque;
use std::time::Duration;

/// After so many burials a batch is taken to be full of poison.
const DENSE_BURIALS: u32 = 3;

/// What one reply brought about.
#[derive(Debug)]
pub(super) struct Step<E> {
    /// Accepted by the API, whether it will analyse them or not; in order.
    pub(super) accepted: Vec<Sent<E>>,
    /// Given up.
    pub(super) buried: Vec<(E, Burial)>,
    /// What to do now.
    pub(super) then: Then,
}

/// How a delivery goes on after a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Send the next part, if there is one left.
    Go,
    /// Back off, then send.
    Wait {
        /// What the upstream asked for.
        asked: Option<Duration>,
        /// Why, in one sentence.
        reason: String,
    },
    /// Stop: the project waits for a person.
    Park {
        /// Why and what to do, in one sentence.
        reason: String,
    },
}

/// Why an event waits for what becomes of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The API refused it.
    Refused,
    /// Something in between refused it.
    Blocked,
    /// It keeps meeting passing faults.
    Stalled,
}

/// An event that failed alone, and how.
#[derive(Debug)]
struct Held<E> {
    sent: Sent<E>,
    why: Why,
    /// It was tried from the end of the queue.
    from_end: bool,
    /// For its dead letter.
    reason: String,
    status: Option<u16>,
    excerpt: Option<String>,
}

/// One batch on its way. `E` is whatever stands for an event.
#[derive(Debug)]
pub(super) struct Delivery<E> {
    /// Events that have not ended, in order.
    queue: VecDeque<Sent<E>>,
    /// Events that failed alone while nothing was accepted, in order; they stand before `queue`.
    held: Vec<Held<E>>,
    /// Events at the front of `queue` that the part in flight is made of.
    part: usize,
    /// So many events at the front were sent, and nobody knows whether they were taken.
    doubtful: usize,
    /// So many events at the front hold at least one that spoils them; 0 where nothing is known.
    spoiled: usize,
    /// So many events at the front go alone.
    alone: usize,
    /// Most events in a part.
    cap: usize,
    /// All of it was sent before, and no other event may join it.
    is_again: bool,
    /// 500s in a row, as the verdict wants them counted.
    server_errors: u32,
    /// How often the front event met a 500 alone, while others are accepted.
    alone_failures: u32,
    /// Another event was accepted; for 500: since the last burial.
    passed: bool,
    passed_since_burial: bool,
    burials: u32,
    /// How often `held` was tried again.
    rounds: u32,
    /// It was looked for company since the last part was sent.
    offered: bool,
    /// All that is left failed alone, some of it blocked, and another is wanted to compare it with; else the project is to be parked
    /// for this reason.
    lonely: Option<String>,
    /// There was none.
    forsaken: Option<String>,
    /// How often that was so since something passed last.
    companions: usize,
    /// The lane waits for a person.
    is_parked: bool,
    /// The front of `queue` was taken from its end.
    from_end: bool,
    /// What passed: replies to this delivery's parts, and to other requests of the lane.
    passes: u64,
    elsewhere: u64,
    /// Faults in a row that are not the API's own word, of parts with several events.
    faults: u32,
    /// How many events that keep failing alone may be taken out.
    may_defer: usize,
    /// How often one was held for that.
    holds: u32,
    /// What was tried meanwhile failed too.
    in_vain: bool,
    /// Those that were taken out.
    deferred: Vec<Sent<E>>,
}

impl<E> Delivery<E> {
    /// A batch that goes as a whole first.
    pub(super) fn whole(events: impl IntoIterator<Item = Sent<E>>) -> Self {
        Self {
            queue: events.into_iter().collect(),
            held: Vec::new(),
            part: 0,
            doubtful: 0,
            spoiled: 0,
            alone: 0,
            cap: usize::MAX,
            is_again: false,
            server_errors: 0,
            alone_failures: 0,
            passed: false,
            passed_since_burial: false,
            burials: 0,
            rounds: 0,
            offered: false,
            lonely: None,
            forsaken: None,
            companions: 0,
            is_parked: false,
            from_end: false,
            passes: 0,
            elsewhere: 0,
            faults: 0,
            may_defer: 0,
            holds: 0,
            in_vain: false,
            deferred: Vec::new(),
        }
    }

    /// The same, but an earlier process may have sent some of them.
    pub(super) fn in_doubt(events: impl IntoIterator<Item = Sent<E>>) -> Self {
        let mut delivery = Self::whole(events);
        delivery.doubtful = delivery.queue.len();
        delivery
    }

    /// Has the first event go alone.
    pub(super) fn one_first(&mut self) {
        self.alone = self.alone.max(1);
    }

    /// Events that were accepted before and not stored, now to be sent as a whole again.
    pub(super) fn again(events: Vec<Sent<E>>) -> Self {
        Self {
            is_again: true,
            ..Self::whole(events)
        }
    }

    /// Whether every event has ended.
    pub(super) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.held.is_empty()
    }

    /// Whether another event would tell poison from a broken upstream.
    pub(super) fn wants_company(&self) -> bool {
        let one = self.queue.len() + self.held.len() == 1;
        let wanted = self.lonely.is_some() || one && (self.rounds > 0 || self.is_stalled());
        wanted && !self.offered && !self.is_again
    }

    /// Adds a later event at the end, if there is one; if not, there is no company until the next part was sent.
    pub(super) fn join(&mut self, event: Option<Sent<E>>) {
        self.offered = true;
        if let Some(reason) = self.lonely.take() {
            self.alone = self.alone.max(1);
            if event.is_none() {
                self.readmit_held();
                self.forsaken = Some(reason);
            }
        }
        self.queue.extend(event);
        self.hold_stalled();
    }

    /// Why the project is to be parked, if nothing was found that passes.
    pub(super) fn take_forsaken(&mut self) -> Option<String> {
        self.forsaken.take()
    }

    /// The events to send now, in order. Empty once the delivery is done.
    #[cfg(test)]
    pub(super) fn next_part(&mut self) -> impl ExactSizeIterator<Item = &Sent<E>> {
        self.next_part_within((usize::MAX, usize::MAX), |_| 0)
    }

    /// The events to send now, in order: so many and so many bytes at most, but for a single larger one. Empty once the delivery is done.
    pub(super) fn next_part_within(
        &mut self,
        (events, most): (usize, usize),
        bytes: impl Fn(&Sent<E>) -> usize,
    ) -> impl ExactSizeIterator<Item = &Sent<E>> {
        let size = match (self.alone > 0, self.spoiled) {
            (true, _) => 1,
            (false, 0) => self.queue.len(),
            (false, spoiled) => spoiled.div_ceil(2),
        };
        let size = size.min(self.cap).min(events).max(1).min(self.queue.len());
        let fits = |sum: &mut usize, sent: &Sent<E>| {
            *sum = sum.saturating_add(bytes(sent));
            (*sum <= most).then_some(())
        };
        let fitting = self.queue.iter().take(size).scan(0, fits).count();
        self.part = fitting.max(1).min(size);
        self.queue.iter().take(self.part)
    }

    /// Notes that the part was sent and what status came back. Returns the count of 500s in a row that
    /// [`crate::verdict::of_log`] asks for.
    pub(super) fn note(&mut self, status: Option<u16>) -> u32 {
        self.offered = false;
        for sent in self.queue.iter_mut().take(self.part) {
            sent.attempts = sent.attempts.saturating_add(1);
        }
        self.server_errors = if status == Some(500) {
            self.server_errors.saturating_add(1)
        } else {
            0
        };
        self.server_errors
    }

    /// Takes the verdict on the part that [`Delivery::next_part`] gave out. `status` and `excerpt` are for dead letters.
    pub(super) fn take(
        &mut self,
        verdict: LogVerdict,
        status: Option<u16>,
        excerpt: Option<String>,
    ) -> Step<E> {
        match verdict {
            LogVerdict::Answered(fates) => self.answered(fates, status, excerpt),
            LogVerdict::Park { reason } => Step::then(Then::Park { reason }),
            LogVerdict::Retry {
                after,
                reason,
                suspect,
            } => {
                self.fault(suspect);
                Step::then(Then::Wait { asked: after, reason })
            }
            LogVerdict::Unknown {
                after,
                reason,
                suspect,
            } => {
                self.doubtful = self.part;
                self.fault(suspect);
                Step::then(Then::Wait { asked: after, reason })
            }
            LogVerdict::Bisect { .. } if self.part > 1 => {
                self.spoiled = self.part;
                Step::then(Then::Go)
            }
            LogVerdict::Blocked(_) if self.part > 1 => {
                self.spoiled = self.part;
                if !self.passed {
                    // One tells whether anything passes, and halving would take longer to.
                    self.alone = self.alone.max(1);
                }
                Step::then(Then::Go)
            }
            LogVerdict::Blocked(blocked) => self.blocked_alone(blocked, status, excerpt),
            LogVerdict::Split { .. } if self.part > 1 => {
                self.cap = self.part / 2;
                Step::then(Then::Go)
            }
            LogVerdict::Bisect { reason } | LogVerdict::Split { reason } => {
                self.failed_alone(reason, status, excerpt)
            }
        }
    }

    /// Takes out what was sent and may have been taken, to be looked for; what is not found goes back by [`Delivery::not_found`].
    pub(super) fn take_doubtful(&mut self) -> Vec<Sent<E>> {
        let count = std::mem::take(&mut self.doubtful).min(self.queue.len());
        self.queue.drain(..count).collect()
    }

    /// The settings changed, so what was refused before may pass now: all that is held goes back into its place.
    pub(super) fn start_over(&mut self) {
        if std::mem::take(&mut self.from_end) {
            self.queue.rotate_left(self.queue.len().min(1));
        }
        self.in_vain = false;
        (self.lonely, self.forsaken, self.companions) = (None, None, 0);
        self.readmit_held();
    }

    /// Puts back, in order, what was looked for in vain; `stored` tells whether some was found.
    pub(super) fn not_found(&mut self, events: Vec<Sent<E>>, stored: bool) {
        for sent in events.into_iter().rev() {
            self.queue.push_front(sent);
        }
        if stored {
            // What is left is another batch, of which nothing is known but that the upstream takes something.
            (self.part, self.spoiled, self.alone) = (0, 0, 0);
            (self.server_errors, self.alone_failures, self.rounds) = (0, 0, 0);
            (self.passed, self.passed_since_burial) = (true, true);
            (self.passes, self.from_end) = (self.passes + 1, false);
            self.compare_stalled();
            self.readmit_held();
        }
        self.give_back();
        self.hold_stalled();
    }

    /// Every event that has not ended, in order: to be released.
    pub(super) fn into_rest(mut self) -> Vec<E> {
        self.start_over();
        let deferred = self.deferred.into_iter();
        deferred.chain(self.queue).map(|sent| sent.event).collect()
    }

    fn answered(&mut self, fates: Vec<Fate>, status: Option<u16>, excerpt: Option<String>) -> Step<E> {
        let mut step = Step::then(Then::Go);
        let count = self.part.min(fates.len());
        for (sent, fate) in self.queue.drain(..count).zip(fates) {
            match fate {
                Fate::Accepted => step.accepted.push(sent),
                Fate::OverQuota(_) => step.accepted.push(Sent {
                    over_quota: true,
                    ..sent
                }),
                Fate::Refused(reason) => {
                    step.buried.push(sent.bury(reason, status, excerpt.clone()));
                }
            }
        }
        (self.part, self.faults, self.from_end) = (0, 0, false);
        (self.lonely, self.companions) = (None, 0);
        self.passes += 1;
        self.compare_stalled();
        self.spoiled = self.spoiled.saturating_sub(count);
        self.alone = self.alone.saturating_sub(count);
        self.cap = self.cap.saturating_mul(2);
        // What is left of a spoiled part has met its first 500 already.
        self.server_errors = u32::from(self.spoiled > 0);
        self.alone_failures = 0;
        self.rounds = 0;
        self.passed = true;
        self.passed_since_burial = true;
        self.readmit_held();
        step
    }

    /// Each for what it met itself.
    fn bury(&mut self, events: Vec<Held<E>>, addition: &str, then: Then) -> Step<E> {
        self.passed_since_burial = false;
        self.burials = self.burials.saturating_add(1);
        if self.burials >= DENSE_BURIALS {
            self.cap = 1;
        }
        let buried = events
            .into_iter()
            .map(|held| held.sent.bury(held.reason + addition, held.status, held.excerpt));
        Step {
            buried: buried.collect(),
            ..Step::then(then)
        }
    }

    /// Takes the front event out, which failed alone, and with it what was known of the part.
    fn pop_alone(&mut self) -> Option<(Sent<E>, bool)> {
        let sent = self.queue.pop_front()?;
        (self.part, self.spoiled, self.server_errors, self.alone_failures) = (0, 0, 0, 0);
        self.alone = self.alone.saturating_sub(1);
        Some((sent, std::mem::take(&mut self.from_end)))
    }

    /// Puts what was held back in its place; each of it goes alone.
    fn readmit_held(&mut self) {
        self.readmit(|_| true);
    }

    /// The same for some of it; what was tried from the end goes back there.
    fn readmit(&mut self, which: impl Fn(&Held<E>) -> bool) {
        let back: Vec<Held<E>> = self.held.extract_if(.., |held| which(held)).collect();
        for mut held in back.into_iter().rev() {
            held.sent.lone_faults = 0;
            if held.from_end {
                self.queue.push_back(held.sent);
                continue;
            }
            self.queue.push_front(held.sent);
            self.alone += 1;
            self.doubtful += usize::from(self.doubtful > 0);
        }
    }
}

impl<E> Step<E> {
    fn then(then: Then) -> Self {
        Self {
            accepted: Vec::new(),
            buried: Vec::new(),
            then,
        }
    }
}
