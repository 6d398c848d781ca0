//! What an upstream's answer means for each event that was sent (contract.md section 7). Pure.
//!
//! Where the contract is silent, the rule is to lose nothing and to guess nothing: an answer that nobody understands is
//! tried again, and one that only a person can mend parks the project. Only an answer about the content of
//! the request ([`LogVerdict::Bisect`], [`LogVerdict::Split`], [`Fate::Refused`]) leads to a dead letter.
mod reply;

use crate::wire::json;
use std::time::Duration;

/// What came of one HTTP attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A complete response arrived.
    Answered(Answer),
    /// None did.
    Failed(Failure),
}

/// A complete HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Retry-After, already turned into a duration from now (seconds or HTTP date).
    pub retry_after: Option<Duration>,
    /// Body, bounded by the upstream client.
    pub body: bytes::Bytes,
}

/// Why no complete response arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of fault.
    pub kind: FailureKind,
    /// The fault in words, without the key and without event content.
    pub detail: String,
}

/// Kinds of fault below HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Name lookup failed.
    Dns,
    /// No connection could be made.
    Connect,
    /// The server's certificate or handshake was not acceptable.
    Tls,
    /// Time ran out; the request may have been taken.
    Timeout,
    /// The connection closed before a complete reply; the request may have been taken. This is
    /// what a keep-alive connection does that the server closed after its last reply.
    Closed,
    /// The reply was not HTTP, or its body broke off or was too large.
    Garbled,
}

/// What became of one event of a batch that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Echoed: accepted.
    Accepted,
    /// Stored, though the project's quota is used up, so it will not be analysed.
    OverQuota(String),
    /// `error_in_log`: refused for good, with the API's reason.
    Refused(String),
}

/// What to do about a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogVerdict {
    /// One fate an event, in the order sent.
    Answered(Vec<Fate>),
    /// One event spoils the batch: halve it down to that one. For a single event: bury it with this reason.
    Bisect {
        /// Status and what the API said.
        reason: String,
    },
    /// Too large: halve it. For a single event: bury it.
    Split {
        /// Status and what the API said.
        reason: String,
    },
    /// The project waits for a person.
    Park {
        /// What is wrong and what to do about it, in one sentence.
        reason: String,
    },
    /// A passing fault, and nothing was taken: the same again, later.
    Retry {
        /// What the upstream asked for, uncapped.
        after: Option<Duration>,
        /// What is wrong, in one sentence.
        reason: String,
    },
    /// The answer was lost or says nothing, so the request may have been taken: read back what is stored, then send the rest again.
    Unknown {
        /// What the upstream asked for, uncapped.
        after: Option<Duration>,
        /// What is wrong, in one sentence.
        reason: String,
    },
}

/// What to do about one feedback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedbackVerdict {
    /// Taken.
    Delivered,
    /// 404: the task is not there yet.
    NotYet,
    /// The answer was lost, so it may have been counted: read the task back before sending again.
    ReadBack {
        /// What is wrong, in one sentence.
        reason: String,
    },
    /// Refused for good.
    Refused {
        /// Status and what the API said.
        reason: String,
    },
    /// The project waits for a person.
    Park {
        /// What is wrong and what to do about it, in one sentence.
        reason: String,
    },
    /// A passing fault.
    Retry {
        /// What the upstream asked for, uncapped.
        after: Option<Duration>,
        /// What is wrong, in one sentence.
        reason: String,
    },
}

/// Decides about a batch of `events` events. `server_errors` counts how many 500s in a row this same
/// batch has met, this one included: a 500 can pass once, a repeated one means poison.
///
/// Any 2xx is judged by its list alone. A 4xx that the contract does not know parks: it is more likely about the route
/// or a proxy than about one event, and bisecting would bury every event there is. A connection that broke after the request may
/// have left, and a 5xx of a proxy, leave open whether it was taken; a 500 and a 503 of the API say that it was not.
pub fn of_log(outcome: &Outcome, events: usize, server_errors: u32) -> LogVerdict {
    let answer = match outcome {
        Outcome::Answered(answer) => answer,
        Outcome::Failed(failure) => {
            let (after, reason) = (None, failure.sentence());
            return match failure.kind {
                FailureKind::Dns | FailureKind::Connect | FailureKind::Tls => {
                    LogVerdict::Retry { after, reason }
                }
                FailureKind::Timeout | FailureKind::Closed | FailureKind::Garbled => {
                    LogVerdict::Unknown { after, reason }
                }
            };
        }
    };
    let (after, said) = (answer.retry_after, answer.said());
    match answer.status {
        200..=299 => match reply::fates(&answer.body, events) {
            Ok(fates) => LogVerdict::Answered(fates),
            Err(fault) => {
                let reason =
                    format!("upstream answered {said}, but {fault}: whether it took the batch is unknown");
                LogVerdict::Unknown { after, reason }
            }
        },
        400 | 422 => LogVerdict::Bisect {
            reason: format!("upstream refused the request because of an event ({said})"),
        },
        404 => LogVerdict::Park {
            reason: format!(
                "upstream does not know the project ({said}): check upstream.base_url (then reload) and the project's id \
                 (upstream.project_id, then restart; or the one that the application sends). A corrected id does not free \
                 what is queued: phosphod spool move --from WRONG --to RIGHT does"
            ),
        },
        413 => LogVerdict::Split {
            reason: format!("the request is too large for upstream ({said})"),
        },
        500 if server_errors >= 2 => LogVerdict::Bisect {
            reason: format!("upstream failed on the same batch {server_errors} times ({said})"),
        },
        status => match fault_for_a_person(status, &said) {
            Some(reason) => LogVerdict::Park { reason },
            None => {
                let reason = format!("upstream is not able to take the batch now ({said})");
                match status {
                    ..=500 | 503 => LogVerdict::Retry { after, reason },
                    _ => LogVerdict::Unknown { after, reason },
                }
            }
        },
    }
}

/// Decides about one feedback.
///
/// Any 2xx is delivered. A 404 that is the API's own word about the task means that it is not there yet; any other one that this is
/// no phospho API. A 408, 429 or 503 says that nothing was done. Every other fault from 500 up, as well as a
/// connection that broke after the request may have left, can hide feedback that was counted, and each further call
/// would count again; so the task is read back first.
pub fn of_feedback(outcome: &Outcome) -> FeedbackVerdict {
    let answer = match outcome {
        Outcome::Answered(answer) => answer,
        Outcome::Failed(failure) => {
            let reason = failure.sentence();
            return match failure.kind {
                FailureKind::Dns | FailureKind::Connect | FailureKind::Tls => {
                    FeedbackVerdict::Retry { after: None, reason }
                }
                FailureKind::Timeout | FailureKind::Closed | FailureKind::Garbled => {
                    FeedbackVerdict::ReadBack { reason }
                }
            };
        }
    };
    let said = answer.said();
    match answer.status {
        200..=299 => FeedbackVerdict::Delivered,
        404 if names_a_task(&answer.body) => FeedbackVerdict::NotYet,
        404 => FeedbackVerdict::Park {
            reason: format!(
                "upstream has no route for feedback ({said}): check upstream.base_url, which stands without /v2, then reload"
            ),
        },
        400 | 413 | 422 => FeedbackVerdict::Refused {
            reason: format!("upstream refused the feedback ({said})"),
        },
        408 | 425 | 429 | 503 => FeedbackVerdict::Retry {
            after: answer.retry_after,
            reason: format!("upstream is not able to take the feedback now ({said})"),
        },
        status => match fault_for_a_person(status, &said) {
            Some(reason) => FeedbackVerdict::Park { reason },
            None => FeedbackVerdict::ReadBack {
                reason: format!("upstream failed, and may have counted the feedback ({said})"),
            },
        },
    }
}

/// Whether a 404's body is the API's own word about a task: a sentence as `detail`, where FastAPI says "Not Found" for a route that
/// does not exist, and a proxy sends no such JSON.
pub fn names_a_task(body: &[u8]) -> bool {
    json::field(body, "detail")
        .and_then(json::text_of)
        .is_some_and(|detail| detail != "Not Found")
}

/// Why a task cannot be read back until a person has mended something; `None` for any other answer.
pub fn bars_reading(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Answered(answer) if matches!(answer.status, 300..=399 | 401 | 403) => {
            fault_for_a_person(answer.status, &answer.said())
        }
        _ => None,
    }
}

/// What only a person can mend, with the remedy; `None` for a fault that may pass.
fn fault_for_a_person(status: u16, said: &str) -> Option<String> {
    Some(match status {
        300..=399 => format!(
            "upstream answered with a redirect ({said}), which is never followed with the key: correct \
             upstream.base_url, then reload"
        ),
        401 => format!(
            "upstream refused the API key ({said}): set upstream.api_key_file and reload, or PHOSPHO_API_KEY and restart"
        ),
        403 => format!(
            "upstream does not let this API key use the project ({said}): set upstream.api_key_file and reload, or \
             PHOSPHO_API_KEY and restart. If the project's id is wrong, correct it where it is set (upstream.project_id takes \
             a restart), and move what is queued: phosphod spool move --from WRONG --to RIGHT"
        ),
        408 | 425 | 429 => return None,
        400..=499 => format!(
            "upstream gave an answer that the phospho API does not give ({said}): check upstream.base_url and \
             upstream.proxy, then reload"
        ),
        _ => return None,
    })
}

impl Answer {
    /// Status and, where it can be shown, what the API said: `401: Invalid token`.
    fn said(&self) -> String {
        match reply::detail(&self.body) {
            Some(detail) => format!("{}: {detail}", self.status),
            None => self.status.to_string(),
        }
    }
}

impl Failure {
    /// The fault and where to look, in one sentence.
    pub fn sentence(&self) -> String {
        let (what, remedy) = match self.kind {
            FailureKind::Dns => (
                "its name was not found",
                "check upstream.base_url and the network",
            ),
            FailureKind::Connect => (
                "no connection could be made",
                "check upstream.base_url and the network",
            ),
            FailureKind::Tls => (
                "no trusted connection could be made",
                "check upstream.ca_file and the clock",
            ),
            FailureKind::Timeout => ("no answer came in time", "see upstream.timeout"),
            FailureKind::Closed => (
                "it closed the connection before its answer",
                "the same is sent again",
            ),
            FailureKind::Garbled => (
                "its answer was not usable",
                "check upstream.base_url and upstream.proxy",
            ),
        };
        format!("upstream: {what} ({}): {remedy}", reply::printable(&self.detail))
    }
}

#[cfg(test)]
mod tests;
