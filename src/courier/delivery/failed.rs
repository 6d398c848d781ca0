//! Refusals and 500s that an event met alone: it is held until another passes or fails, and buried if it alone fails.

use super::{Delivery, Held, Step, Then, Why};
use crate::verdict::Reason;

/// How often the same one or two events are tried again after 400, 413 or 422 while nothing at all is accepted.
pub(super) const ROUNDS_REFUSED: u32 = 3;
/// The same for 500: about ten minutes with the default `[retry]`.
pub(super) const ROUNDS_FAILED: u32 = 20;
/// How often an event must meet a 500 alone while others are accepted.
const ALONE_FAILURES: u32 = 3;

impl<E> Delivery<E> {
    /// The front event was sent alone and refused, or met a 500.
    pub(super) fn failed_alone(
        &mut self,
        reason: Reason,
        status: Option<u16>,
        excerpt: Option<String>,
    ) -> Step<E> {
        let shown = reason.to_string();
        let server_error = status == Some(500);
        let others_pass = if server_error {
            self.passed_since_burial
        } else {
            self.passed
        };
        if server_error && others_pass {
            self.alone_failures += 1;
            if self.alone_failures < ALONE_FAILURES {
                return Step::then(Then::Wait {
                    asked: None,
                    reason: shown,
                });
            }
        }
        let Some((sent, from_end)) = self.pop_alone() else {
            return Step::then(Then::Go);
        };
        let held = Held {
            sent,
            why: Why::Refused,
            from_end,
            reason: reason.for_letter(),
            status,
            excerpt,
        };
        if others_pass {
            // One that waits for company has had it.
            self.readmit_held();
            return self.bury(vec![held], "", Then::Go);
        }
        if status != Some(413) {
            // The API has read this one, so whatever is in between lets something pass.
            self.passes += 1;
        }
        self.readmit(|held| held.why != Why::Refused);
        self.held.push(held);
        self.alone = self.alone.max(1);
        if self.held.len() < 2 && !self.queue.is_empty() {
            return Step::then(Then::Go);
        }
        self.rounds += 1;
        if self.rounds
            > if server_error {
                ROUNDS_FAILED
            } else {
                ROUNDS_REFUSED
            }
        {
            self.rounds = 0;
            self.alone = 0;
            let held = std::mem::take(&mut self.held);
            let addition = format!(
                "; tried again {} times, while nothing else was accepted either",
                held[0].sent.attempts - 1
            );
            let then = Then::Wait {
                asked: None,
                reason: shown,
            };
            return self.bury(held, &addition, then);
        }
        self.alone = 0;
        self.readmit_held();
        Step::then(Then::Wait {
            asked: None,
            reason: shown,
        })
    }
}
