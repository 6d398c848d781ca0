//! Whether an odd answer is about one id's URL or about the upstream.
//!
//! A router, a proxy or a firewall may treat the URL of one id specially: redirect it, say that there is no such route, or refuse
//! it. That says nothing about the upstream. So nothing is concluded from such an answer before the URL of a plain id, which
//! nothing on the way has a reason to treat specially, was asked for too: if the upstream tells about that one, the odd answer
//! is about the other id alone.

use super::Settings;
use super::health;
use super::line::Line;
use super::readback::{self, Read};
use super::turn::{Attempt, Request, Turn};
use crate::ids::TaskId;
use crate::secret::Secret;
use crate::verdict::{Answer, Outcome, names_a_task};
use std::time::Duration;

/// The id of a task that nobody logs.
const PLAIN_ID: &str = "phosphod-route-check";

/// What an answer about a task is worth.
#[derive(Debug)]
pub(super) enum Weighed {
    /// It may be taken for an answer of the upstream as a whole, or is no odd one.
    Upstream(Outcome),
    /// It is about this id alone, or nothing is known: ask again after this time.
    AskAgain(Duration),
    /// So often that no URL seems to name the task ([`Telling::unnamed`](super::telling::Telling::unnamed)).
    Unnamed,
    /// Shutdown.
    Stopped,
}

/// Whether an answer to a request about a task could be about its URL alone. A plain id is only suspected where the
/// upstream is said to have no such route.
pub(super) fn is_odd(outcome: &Outcome, task: &TaskId) -> bool {
    match outcome {
        Outcome::Answered(Answer {
            status: 405 | 501, ..
        }) => true,
        Outcome::Answered(answer) if answer.status == 404 => !names_a_task(&answer.body),
        outcome => !task.is_plain() && is_refusal(outcome),
    }
}

/// Whether the answer neither tells about a task nor is a fault that passes.
fn is_refusal(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answered(answer) => match answer.status {
            404 => !names_a_task(&answer.body),
            408 | 425 | 429 => false,
            status => matches!(status, 300..=499 | 501),
        },
        Outcome::Failed(_) => false,
    }
}

impl Line {
    /// Weighs an answer about a task; asks for a plain id where it is odd. `odd` counts for how long the same task has met
    /// such answers while the plain id did not.
    pub(super) async fn weigh(
        &self,
        what: Request,
        (task, key): (&TaskId, &Secret),
        settings: &Settings,
        odd: &mut u32,
        outcome: Outcome,
    ) -> Weighed {
        if !is_odd(&outcome, task) {
            return Weighed::Upstream(outcome);
        }
        let Ok(plain) = TaskId::new(PLAIN_ID) else {
            return Weighed::Upstream(outcome);
        };
        let get = || settings.upstream.get_task(&plain, key);
        let Attempt {
            began,
            outcome: check,
        } = match self.ask(what, get).await {
            Ok(attempt) => attempt,
            Err(Turn::Stopped) => return Weighed::Stopped,
            Err(Turn::Go | Turn::Parked) => return Weighed::AskAgain(Duration::ZERO),
        };
        if is_refusal(&check) {
            return Weighed::Upstream(outcome);
        }
        if let Read::Unknown { asked, reason } = readback::read(check) {
            self.failing(began, asked, &reason, settings);
            return Weighed::AskAgain(Duration::ZERO);
        }
        self.told(false);
        self.count("unreadable");
        if task.is_plain() {
            return Weighed::Upstream(outcome);
        }
        *odd = odd.saturating_add(1);
        match self.telling().unnamed(task, *odd) {
            true => Weighed::Unnamed,
            false => Weighed::AskAgain(health::patient(&settings.backoff, *odd, fastrand::u64(..))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd(status: u16, body: &'static str, task: &str) -> bool {
        let answer = Answer {
            status,
            retry_after: None,
            body: body.into(),
        };
        is_odd(&Outcome::Answered(answer), &TaskId::new(task).expect("an id"))
    }

    #[test]
    fn an_answer_is_odd_if_it_may_be_about_the_url_of_one_id() {
        const NO_ROUTE: &str = r#"{"detail":"Not Found"}"#;
        for task in ["plain-1", "a:b"] {
            assert!(odd(404, NO_ROUTE, task) && odd(404, "<html>", task));
            assert!(odd(405, "", task) && odd(501, "", task));
            assert!(!odd(404, r#"{"detail":"Task a not found"}"#, task));
            for passing in [200, 408, 425, 429, 500, 502, 503] {
                assert!(!odd(passing, "", task), "{passing}");
            }
        }
        for status in [301, 307, 400, 401, 403, 414, 418] {
            assert!(odd(status, "", "a:b"), "{status}");
            assert!(!odd(status, "", "plain-1"), "{status}: it is about the upstream");
        }
    }

    #[test]
    fn the_id_that_is_asked_for_in_its_place_is_plain() {
        assert!(TaskId::new(PLAIN_ID).expect("an id").is_plain());
    }
}
