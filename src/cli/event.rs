//! `phosphod event`: what became of one task's log event and feedback.
//!
//! Exit codes: 0 something is known; 1 nothing is; 2 the daemon could not be asked; 78 bad configuration.
use super::socket::{NoAnswer, Socket};
use super::table::{printable, time};
use super::terminal::{print, print_json};
use super::{FAILED, tell};
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Nobody answered, so nothing is known.
const NOT_ASKED: u8 = 2;

/// Arguments of `phosphod event`.
#[derive(Debug, Args)]
pub(super) struct EventArgs {
    #[command(flatten)]
    socket: Socket,
    /// The task id that the event was logged with
    #[arg(value_name = "TASK_ID")]
    task: String,
    /// The daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: EventArgs) -> ExitCode {
    let daemon = match args.socket.connect() {
        Ok(daemon) => daemon,
        Err(NoAnswer::Configuration(code)) => return code,
        Err(NoAnswer::Unreached(sentence)) => {
            tell(&format!("phosphod event: {sentence}"));
            return ExitCode::from(NOT_ASKED);
        }
    };
    let path = format!("/events/{}", utf8_percent_encode(&args.task, NON_ALPHANUMERIC));
    let answer = match daemon.get(&path).and_then(|answer| answer.good()) {
        Ok(answer) => answer,
        Err(sentence) => {
            tell(&format!("phosphod event: {}", printable(&sentence)));
            return ExitCode::from(FAILED);
        }
    };
    match args.json {
        true => print_json(&[&answer.body[..], b"\n"].concat()),
        false => print(&told(&serde_json::from_slice(&answer.body).unwrap_or_default())),
    }
    ExitCode::SUCCESS
}

/// The answer for people, a line a record.
fn told(answer: &Value) -> String {
    let mut text = String::new();
    let records = answer["records"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for record in records {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", printable(&line(record)));
    }
    let unreadable = answer["unreadable"].as_u64().unwrap_or_default();
    if unreadable > 0 {
        let _ = writeln!(
            text,
            "{unreadable} queued events cannot be read, and may be of this task too: see the daemon's log"
        );
    }
    text
}

fn line(record: &Value) -> String {
    let letter = &record["letter"];
    let of = if letter.is_object() { letter } else { record };
    let name = |key: &str| of[key].as_str().unwrap_or_default();
    let at = |key: &str| of[key].as_u64().and_then(time).unwrap_or_default();
    let who = format!("{} of project {}", name("kind"), name("project"));
    match record["state"].as_str().unwrap_or_default() {
        "delivered" => {
            let proof = match record["proof"].as_str().unwrap_or_default() {
                "read_back" => "confirmed: it was read back",
                "over_quota" => "stored over quota, so not analysed",
                "unaddressable" => {
                    "not confirmed: the API answered that it has it, and no URL of the API can name this task_id"
                }
                _ => "not confirmed: the API answered that it has it",
            };
            format!("{who}: delivered at {} ({proof})", at("delivered_at_ms"))
        }
        "queued" => format!("{who}: queued {}", place(record, &at("accepted_at_ms"))),
        "in_flight" => format!(
            "{who}: in flight (being sent or confirmed, or waiting for its next try), queued {}",
            place(record, &at("accepted_at_ms"))
        ),
        "dead" => format!(
            "{who}: dead letter {}, buried at {} after {} tries: {}",
            letter["number"],
            at("buried_at_ms"),
            letter["attempts"],
            name("reason")
        ),
        other => format!("{who}: {other}"),
    }
}

fn place(record: &Value, since: &str) -> String {
    let ahead = record["ahead"].as_u64().unwrap_or_default();
    let lane = &record["lane"];
    let state = lane["state"].as_str().unwrap_or_default();
    let why = lane["reason"].as_str().map(|reason| format!(": {reason}"));
    format!(
        "since {since}, {ahead} before it in its lane, in generation {}; the lane is {state}{}",
        record["generation"],
        why.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_record_is_a_line() {
        let queued = json!({"state": "queued", "kind": "log", "project": "p", "seq": 5, "generation": 2,
            "accepted_at_ms": 1_000, "ahead": 3, "lane": {"state": "parked", "reason": "no key"}});
        let dead = json!({"state": "dead", "letter": {"number": 7, "kind": "feedback", "project": "p", "reason": "why",
            "attempts": 2, "buried_at_ms": 2_000}});
        let done = json!({"state": "delivered", "kind": "log", "project": "p", "delivered_at_ms": 3_000,
            "confirmed": true, "proof": "read_back"});
        assert_eq!(
            told(&json!({"records": [queued, dead, done], "unreadable": 0})),
            "log of project p: queued since 1970-01-01T00:00:01Z, 3 before it in its lane, in generation 2; the lane is parked: no key\n\
             feedback of project p: dead letter 7, buried at 1970-01-01T00:00:02Z after 2 tries: why\n\
             log of project p: delivered at 1970-01-01T00:00:03Z (confirmed: it was read back)\n"
        );
    }
}
