//! What the upstream answers.
use super::assert_is_sentence;
use crate::verdict::{
    Answer, Blocked, Failure, FailureKind, Fate, FeedbackVerdict, LogVerdict, Outcome, Reason, of_feedback,
    of_log,
};
use crate::wire::json::push_string;
use serde_json::Value;

const STATUSES: [u16; 16] = [
    200, 200, 201, 204, 301, 400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503,
];

/// Stands for an event's content, as the API quotes it in its errors.
const QUOTED: &str = "PRIVATE-TEXT";

/// The first bytes say which status and how many events; the rest is the body.
pub fn reply(data: &[u8]) {
    let (Some(&[pick, events]), Some(body)) = (data.first_chunk(), data.get(2..)) else {
        return;
    };
    let (status, events) = (STATUSES[usize::from(pick & 15)], usize::from(events % 5));
    let server_errors = 1 + u32::from(pick >> 7);
    judge(status, events, server_errors, body.to_vec());

    let text = String::from_utf8_lossy(body);
    let (before, after) = text.split_once('|').unwrap_or((&text, ""));
    let mut quoting = b"{\"detail\":".to_vec();
    push_string(
        &mut quoting,
        &format!("{before}input_value='{QUOTED}'{after}, input_type=str"),
    );
    quoting.push(b'}');
    judge(status, events, server_errors, quoting);
    let mut refusing = b"{\"logged_events\":[{\"error_in_log\":".to_vec();
    push_string(
        &mut refusing,
        &format!("{before}input_value='{QUOTED}'{after}, input_type=str"),
    );
    refusing.extend_from_slice(b"}]}");
    judge(status, 1, server_errors, refusing);

    let failure = Failure {
        kind: FailureKind::Garbled,
        detail: text.into_owned(),
    };
    told(&failure.sentence());
}

fn judge(status: u16, events: usize, server_errors: u32, body: Vec<u8>) {
    let value: Option<Value> = serde_json::from_slice(&body).ok();
    let answer = Outcome::Answered(Answer {
        status,
        retry_after: None,
        body: body.into(),
    });
    match of_log(&answer, events, server_errors) {
        LogVerdict::Answered(fates) => {
            assert!((200..300).contains(&status));
            assert_eq!(fates.len(), events, "one an event");
            if let Some(value) = value {
                let slow = slowly(&value);
                assert_eq!(fates.iter().map(sort).collect::<Vec<_>>(), slow);
            }
            for fate in &fates {
                if let Fate::OverQuota(reason) | Fate::Refused(reason) = fate
                    && !reason.is_empty()
                {
                    told(reason);
                }
            }
        }
        LogVerdict::Bisect { reason } | LogVerdict::Split { reason } => told_of_both(reason),
        LogVerdict::Park { reason }
        | LogVerdict::Retry { reason, .. }
        | LogVerdict::Unknown { reason, .. } => told(&reason),
        LogVerdict::Blocked(blocked) => told_of_block(&blocked),
    }
    match of_feedback(&answer) {
        FeedbackVerdict::Delivered => assert!((200..300).contains(&status)),
        FeedbackVerdict::NotYet => assert_eq!(status, 404),
        FeedbackVerdict::ReadBack { reason } | FeedbackVerdict::Refused { reason } => told_of_both(reason),
        FeedbackVerdict::Park { reason } | FeedbackVerdict::Retry { reason, .. } => told(&reason),
        FeedbackVerdict::Blocked(blocked) => told_of_block(&blocked),
    }
}

fn told_of_both(reason: Reason) {
    told(&reason.to_string());
    told(&reason.for_letter());
}

fn told_of_block(blocked: &Blocked) {
    told(&blocked.park);
    told(&blocked.refusal);
}

/// A sentence of ours that quotes the upstream.
fn told(sentence: &str) {
    assert_is_sentence(sentence);
    assert!(
        sentence.chars().count() < 4_000 && !sentence.contains(QUOTED),
        "{sentence}"
    );
}

/// Accepted, over quota or refused, by a reader that takes the whole reply into memory.
fn slowly(reply: &Value) -> Vec<u8> {
    let fate = |element: &Value| match element.get("error_in_log") {
        Some(error) if !error.is_null() && element.get("input").is_none() => {
            let is_quota = error
                .as_str()
                .is_some_and(|text| text.starts_with("Max usage quota reached"));
            if is_quota { 1 } else { 2 }
        }
        _ => 0,
    };
    let list = reply["logged_events"].as_array();
    list.into_iter().flatten().map(fate).collect()
}

fn sort(fate: &Fate) -> u8 {
    match fate {
        Fate::Accepted => 0,
        Fate::OverQuota(_) => 1,
        Fate::Refused(_) => 2,
    }
}
