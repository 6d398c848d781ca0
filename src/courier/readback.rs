//! What `GET /v2/tasks/{task_id}` says about a task (contract.md section 1). Pure.
//!
//! **A missing task or a missing route?** The API answers for a task that it does not have with a 404 whose `detail` is a
//! sentence of its own. A route that does not exist answers 404 `{"detail":"Not Found"}` (FastAPI's own text), 405 or 501; a
//! proxy in between answers a 404 that is not such JSON at all. All those say nothing about the task, so nothing
//! may be concluded from them: they count as "no such route".

use crate::verdict::{Outcome, names_a_task};
use std::time::Duration;

/// What was learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    /// The task is stored; its JSON.
    Stored(bytes::Bytes),
    /// The API does not have it.
    Missing,
    /// This upstream does not tell.
    NoRoute,
    /// Nothing: ask again later.
    Unknown {
        /// What the upstream asked for.
        asked: Option<Duration>,
        /// Why, in one sentence.
        reason: String,
    },
}

/// Reads an outcome.
pub(super) fn read(outcome: Outcome) -> Read {
    let answer = match outcome {
        Outcome::Answered(answer) => answer,
        Outcome::Failed(failure) => {
            return Read::Unknown {
                asked: None,
                reason: format!("a task could not be read back: {}", failure.sentence()),
            };
        }
    };
    match answer.status {
        200 => Read::Stored(answer.body),
        404 if names_a_task(&answer.body) => Read::Missing,
        404 | 405 | 501 => Read::NoRoute,
        status => Read::Unknown {
            asked: answer.retry_after,
            reason: format!(
                "a task could not be read back: upstream answered {status} to GET /v2/tasks/{{task_id}}; if it never \
                 takes that, set delivery.confirm = false, then reload"
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Answer, Failure, FailureKind};

    fn of(status: u16, body: &'static str) -> Read {
        read(Outcome::Answered(Answer {
            status,
            retry_after: None,
            body: body.into(),
        }))
    }

    #[test]
    fn a_missing_task_is_told_from_a_missing_route() {
        assert_eq!(of(200, "{}"), Read::Stored("{}".into()));
        assert_eq!(of(404, r#"{"detail":"Task t1 not found"}"#), Read::Missing);
        assert_eq!(of(404, r#"{"detail":"Not Found"}"#), Read::NoRoute);
        assert_eq!(of(404, "<html>nginx</html>"), Read::NoRoute);
        assert_eq!(of(404, r#"{"error":"no such page"}"#), Read::NoRoute);
        assert_eq!(of(405, ""), Read::NoRoute);
        assert_eq!(of(501, ""), Read::NoRoute);
    }

    #[test]
    fn anything_else_says_nothing_about_the_task() {
        for status in [204, 302, 400, 401, 403, 429, 500, 503] {
            assert!(matches!(of(status, "{}"), Read::Unknown { .. }), "{status}");
        }
        let failure = Failure {
            kind: FailureKind::Timeout,
            detail: "time ran out".into(),
        };
        assert!(matches!(read(Outcome::Failed(failure)), Read::Unknown { .. }));
    }
}
