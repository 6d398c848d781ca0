//! What an upstream's answer means for each event that was sent (contract.md section 7). Pure.
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
    /// A passing fault: the same again, later.
    Retry {
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
pub fn of_log(_outcome: &Outcome, _events: usize, _server_errors: u32) -> LogVerdict {
    todo!()
}

/// Decides about one feedback.
pub fn of_feedback(_outcome: &Outcome) -> FeedbackVerdict {
    todo!()
}
