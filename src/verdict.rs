//! What an upstream's answer means for each event that was sent (contract.md section 7). Pure.
//!
//! Where the contract is silent, the rule is to lose nothing and to guess nothing: an answer that nobody understands is
//! tried again, and one that only a person can mend parks the project. Only an answer about the content of
//! the request ([`LogVerdict::Bisect`], [`LogVerdict::Split`], [`Fate::Refused`]) leads to a dead letter.
//!
//! **Whose word is it?** The API is FastAPI: each of its refusals is a JSON object with `detail`. Any other refusal comes from
//! something in between: a firewall, a proxy, a login page. Such a thing may refuse all requests, or only those whose content it
//! dislikes; one answer does not say which. [`LogVerdict::Blocked`] leaves that to whoever sees what becomes of others.
mod reason;
mod reply;

pub use reason::Reason;
pub use reply::mask_errors;

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

/// What a refusal that only a person can mend is taken for: by what becomes of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// It is the API's own word: JSON with `detail`.
    pub own: bool,
    /// If nothing passes: what is wrong with the project and what to do about it, in one sentence that anybody may see.
    pub park: String,
    /// If others pass: why this one is given up, for its dead letter.
    pub refusal: String,
}

/// What a passing fault may have to do with the request that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspect {
    /// Nothing: no connection came about, or the API itself says that it is busy.
    Nothing,
    /// Its size: it took too long or was cut off on the way.
    Size,
    /// Something in it: the answer is not the API's own.
    Content,
}

/// What to do about a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogVerdict {
    /// One fate an event, in the order sent.
    Answered(Vec<Fate>),
    /// One event spoils the batch: halve it down to that one. For a single event: bury it with this reason.
    Bisect {
        /// Status and what the API said.
        reason: Reason,
    },
    /// Too large: halve it. For a single event: bury it.
    Split {
        /// Status and what the API said.
        reason: Reason,
    },
    /// The project waits for a person.
    Park {
        /// What is wrong and what to do about it, in one sentence.
        reason: String,
    },
    /// Refused: the project waits for a person if nothing passes; if others do, this is about an event, as with `Bisect`.
    Blocked(Blocked),
    /// A passing fault, and nothing was taken: the same again, later.
    Retry {
        /// What the upstream asked for, uncapped.
        after: Option<Duration>,
        /// What is wrong, in one sentence.
        reason: String,
        /// What it may have to do with the request.
        suspect: Suspect,
    },
    /// The answer was lost or says nothing, so the request may have been taken: read back what is stored, then send the rest again.
    Unknown {
        /// What the upstream asked for, uncapped.
        after: Option<Duration>,
        /// What is wrong, in one sentence.
        reason: String,
        /// What it may have to do with the request.
        suspect: Suspect,
    },
}

impl LogVerdict {
    /// Frees the request of the suspicion that the fault has to do with it.
    pub fn acquit(&mut self) {
        if let Self::Retry { suspect, .. } | Self::Unknown { suspect, .. } = self {
            *suspect = Suspect::Nothing;
        }
    }
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
        reason: Reason,
    },
    /// Refused for good.
    Refused {
        /// Status and what the API said.
        reason: Reason,
    },
    /// The project waits for a person.
    Park {
        /// What is wrong and what to do about it, in one sentence.
        reason: String,
    },
    /// The project waits for a person if nothing passes; if other feedback does, this one is refused for good.
    Blocked(Blocked),
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
/// Any 2xx is judged by its list alone. A 4xx that the contract does not know, or that is not the API's own, may be about the route, a
/// proxy or one event ([`LogVerdict::Blocked`]). A connection that broke after the request may
/// have left, and a 5xx of a proxy, leave open whether it was taken; a 500 and a 503 of the API say that it was not.
pub fn of_log(outcome: &Outcome, events: usize, server_errors: u32) -> LogVerdict {
    let suspect = suspect(outcome);
    let answer = match outcome {
        Outcome::Answered(answer) => answer,
        Outcome::Failed(failure) => {
            let (after, reason) = (None, failure.sentence());
            return match failure.kind {
                FailureKind::Dns | FailureKind::Connect | FailureKind::Tls => LogVerdict::Retry {
                    after,
                    reason,
                    suspect,
                },
                FailureKind::Timeout | FailureKind::Closed | FailureKind::Garbled => LogVerdict::Unknown {
                    after,
                    reason,
                    suspect,
                },
            };
        }
    };
    let (after, said) = (answer.retry_after, answer.status);
    match answer.status {
        200..=299 => match reply::fates(&answer.body, events) {
            Ok(fates) => LogVerdict::Answered(fates),
            Err(fault) => {
                let reason =
                    format!("upstream answered {said}, but {fault}: whether it took the batch is unknown");
                LogVerdict::Unknown {
                    after,
                    reason,
                    suspect,
                }
            }
        },
        400 | 422 if answer.is_own() => LogVerdict::Bisect {
            reason: answer.reason(|said| format!("upstream refused the request because of an event ({said})")),
        },
        404 if answer.is_own() => LogVerdict::Blocked(answer.blocked(format!(
            "upstream does not know the project ({said}): check upstream.base_url (then reload) and the project's id \
             (upstream.project_id, then restart; or the one that the application sends). A corrected id does not free \
             what is queued: phosphod spool move --from WRONG --to RIGHT does"
        ))),
        413 => LogVerdict::Split {
            reason: answer.reason(|said| format!("the request is too large for upstream ({said})")),
        },
        500 if server_errors >= 2 => LogVerdict::Bisect {
            reason: answer.reason(|said| format!("upstream failed on the same batch {server_errors} times ({said})")),
        },
        407 => LogVerdict::Park {
            reason: barrier(answer),
        },
        300..=499 if !is_passing(answer.status) => {
            LogVerdict::Blocked(answer.blocked(barrier(answer)))
        }
        status => {
            let reason = format!("upstream is not able to take the batch now ({said})");
            match status {
                ..=500 | 503 => LogVerdict::Retry {
                    after,
                    reason,
                    suspect,
                },
                _ => LogVerdict::Unknown {
                    after,
                    reason,
                    suspect,
                },
            }
        }
    }
}

/// What a fault may have to do with the request, should it turn out to be a passing one.
///
/// A 500 is told from poison elsewhere. 524 is how one large proxy says 504.
fn suspect(outcome: &Outcome) -> Suspect {
    match outcome {
        Outcome::Failed(failure) => match failure.kind {
            FailureKind::Dns | FailureKind::Connect | FailureKind::Tls => Suspect::Nothing,
            FailureKind::Timeout | FailureKind::Closed => Suspect::Size,
            FailureKind::Garbled => Suspect::Content,
        },
        Outcome::Answered(answer) => match answer.status {
            408 | 413 | 504 | 524 => Suspect::Size,
            500 => Suspect::Nothing,
            _ if answer.is_own() => Suspect::Nothing,
            _ => Suspect::Content,
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
                    FeedbackVerdict::ReadBack {
                        reason: reason.into(),
                    }
                }
            };
        }
    };
    let said = answer.status;
    match answer.status {
        200..=299 => FeedbackVerdict::Delivered,
        404 if names_a_task(&answer.body) => FeedbackVerdict::NotYet,
        404 => FeedbackVerdict::Blocked(answer.blocked(format!(
            "upstream has no route for feedback ({said}): check upstream.base_url, which stands without /v2, then reload"
        ))),
        413 => FeedbackVerdict::Refused {
            reason: answer.reason(|said| format!("upstream refused the feedback ({said})")),
        },
        400 | 422 if answer.is_own() => FeedbackVerdict::Refused {
            reason: answer.reason(|said| format!("upstream refused the feedback ({said})")),
        },
        407 => FeedbackVerdict::Park {
            reason: barrier(answer),
        },
        300..=499 if !is_passing(answer.status) => {
            FeedbackVerdict::Blocked(answer.blocked(barrier(answer)))
        }
        408 | 425 | 429 | 503 => FeedbackVerdict::Retry {
            after: answer.retry_after,
            reason: format!("upstream is not able to take the feedback now ({said})"),
        },
        _ => FeedbackVerdict::ReadBack {
            reason: answer.reason(|said| format!("upstream failed, and may have counted the feedback ({said})")),
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
        Outcome::Answered(answer) if matches!(answer.status, 300..=399 | 401 | 403) => Some(barrier(answer)),
        _ => None,
    }
}

/// Whether a 4xx may pass by itself.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429)
}

/// What only a person can mend if every request meets it, with the remedy.
fn barrier(answer: &Answer) -> String {
    let said = answer.status;
    match answer.status {
        300..=399 => format!(
            "upstream answered with a redirect ({said}), which is never followed with the key: correct \
             upstream.base_url, then reload"
        ),
        401 if answer.is_own() => format!(
            "upstream refused the API key ({said}): set upstream.api_key_file and reload, or PHOSPHO_API_KEY and restart"
        ),
        403 if answer.is_own() => format!(
            "upstream does not let this API key use the project ({said}): set upstream.api_key_file and reload, or \
             PHOSPHO_API_KEY and restart. If the project's id is wrong, correct it where it is set (upstream.project_id takes \
             a restart), and move what is queued: phosphod spool move --from WRONG --to RIGHT"
        ),
        _ if answer.is_own() => format!(
            "upstream gave an answer that the phospho API does not give ({said}): check upstream.base_url and \
             upstream.proxy, then reload"
        ),
        status => format!(
            "something between here and the API answered {status} (it is not the API's own answer, which is JSON with \
             a detail): check upstream.base_url, upstream.proxy, and any firewall or login page on the way, then reload"
        ),
    }
}

impl Answer {
    /// Whether a refusal is the API's own word: a JSON object with `detail`. A long one may be cut off, because it quotes the
    /// events; `detail` comes first in it.
    fn is_own(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"{\"detail\":")
            || json::field(&self.body, "detail").is_some()
    }

    fn blocked(&self, park: String) -> Blocked {
        let own = self.is_own();
        let status = self.status;
        let refusal = match own {
            true => self
                .reason(|said| format!("upstream refused this one with {said}, while others pass"))
                .for_letter(),
            false => format!(
                "refused with {status} by something between here and the API (not the API's own answer), while others pass"
            ),
        };
        Blocked { own, park, refusal }
    }

    /// A sentence with the status and, for the dead letter, what the API said: `422: Field required`.
    fn reason(&self, sentence: impl Fn(&str) -> String) -> Reason {
        Reason::new(self.status, reply::detail(&self.body), sentence)
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
