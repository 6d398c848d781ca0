//! Refusals that may be about the project or about an event: another's answer than the API's, or a 401, 403 or 404 of the API.
//!
//! What tells is what becomes of others. A batch that is blocked is tried with its first event alone, then with its neighbours, one
//! after the other, and at last with the last of the batch, because what a firewall dislikes often comes in a row. If nothing passes, the
//! project is parked and nothing is buried. If one passes, the batch is searched by halves as after a 422. An event is only
//! given up if it is refused, then another passes, and it is refused again, [`REFUSALS`] times alone. So a firewall that begins to refuse
//! everything in the middle of a batch takes nothing with it.
//!
//! A refusal of the API itself is nearly always about the key or the project, and an ailing auth service can give it too. So it parks the
//! project at once; others are only tried while that lasts, now and then. And it has to come [`OWN_PROOFS`] times so, with a wait between.

use super::{Delivery, Held, Sent, Step, Then, Why};
use crate::verdict::Blocked;

/// How many neighbours of a blocked event are tried, and then the last of the batch.
const NEIGHBOURS: usize = 3;
/// The same after a refusal of the API itself, which is nearly always about the key.
const OWN_NEIGHBOURS: usize = 1;
/// How often something in between must refuse an event alone, all in all.
const REFUSALS: u32 = 6;
/// How often the API itself must refuse it alone after another was accepted.
const OWN_PROOFS: u32 = 8;

impl<E> Sent<E> {
    /// Notes that it was blocked alone when so much had passed; whether that is proof enough that it is about this event.
    pub(in crate::courier) fn blocked(&mut self, blocked: &Blocked, passes: u64) -> bool {
        let before = self.blocked_at.replace(passes);
        self.refusals += u32::from(!blocked.own);
        self.proofs += u32::from(before.is_some_and(|before| passes > before));
        match blocked.own {
            true => self.proofs >= OWN_PROOFS,
            false => self.proofs > 0 && self.refusals >= REFUSALS,
        }
    }
}

impl<E> Delivery<E> {
    /// Notes how much passed in the lane, whatever request it came with.
    pub(in crate::courier) fn heard(&mut self, passes: u64) {
        self.elsewhere = passes;
    }

    /// Notes whether the lane waits for a person. Then no later event is asked for, and the API's own refusals are looked into.
    pub(in crate::courier) fn parked(&mut self, parked: bool) {
        self.is_parked = parked;
    }

    /// The front event was blocked alone.
    pub(super) fn blocked_alone(
        &mut self,
        blocked: Blocked,
        status: Option<u16>,
        excerpt: Option<String>,
    ) -> Step<E> {
        // Of a part that was refused all others have passed since.
        let cornered = self.spoiled == 1;
        let Some((mut sent, from_end)) = self.pop_alone() else {
            return Step::then(Then::Go);
        };
        if cornered {
            sent.blocked_at.get_or_insert(0);
        }
        let before = sent.proofs;
        let enough = sent.blocked(&blocked, self.passes + self.elsewhere);
        let (proven, ever) = (sent.proofs > before, sent.proofs > 0);
        if !enough && !blocked.own && ever {
            // Once more: every other answer may be such a one, by whatever spreads requests over several servers.
            self.queue.push_front(sent);
            self.alone += 1;
            return Step::then(Then::Go);
        }
        let held = Held {
            sent,
            why: Why::Blocked,
            from_end,
            reason: blocked.refusal,
            status,
            excerpt,
        };
        self.readmit(|held| held.why == Why::Stalled);
        if enough {
            self.readmit_held();
            return self.bury(vec![held], "", Then::Go);
        }
        self.held.push(held);
        let reason = blocked.park;
        if proven {
            self.readmit_held();
            return Step::then(Then::Wait { asked: None, reason });
        }
        if blocked.own && !self.is_parked && !ever {
            self.readmit_held();
            return Step::then(Then::Park { reason });
        }
        let tried = self.held.iter().filter(|held| held.why == Why::Blocked).count() - 1;
        let most = if blocked.own { OWN_NEIGHBOURS } else { NEIGHBOURS };
        self.alone = self.alone.max(1);
        if tried < most && !self.queue.is_empty() {
            return Step::then(Then::Go);
        }
        if tried == most
            && let Some(last) = self.queue.pop_back()
        {
            self.queue.push_front(last);
            self.from_end = true;
            return Step::then(Then::Go);
        }
        if self.queue.is_empty() && !self.is_parked && !self.is_again && self.companions < NEIGHBOURS {
            self.companions += 1;
            self.lonely = Some(reason);
            return Step::then(Then::Go);
        }
        self.readmit_held();
        Step::then(Then::Park { reason })
    }
}
