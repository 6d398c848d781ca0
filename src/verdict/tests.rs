use super::*;
use proptest::prelude::*;

fn answer(status: u16, body: &str) -> Outcome {
    Outcome::Answered(Answer {
        status,
        retry_after: None,
        body: bytes::Bytes::copy_from_slice(body.as_bytes()),
    })
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed(Failure {
        kind,
        detail: "why".into(),
    })
}

const KINDS: [FailureKind; 6] = [
    FailureKind::Dns,
    FailureKind::Connect,
    FailureKind::Tls,
    FailureKind::Timeout,
    FailureKind::Closed,
    FailureKind::Garbled,
];

/// What the API's own refusals look like, and what those of things in between do.
const OWN: &str = r#"{"detail":"why"}"#;
const BETWEEN: [&str; 6] = [
    "",
    "{}",
    "null",
    "<html>blocked</html>",
    r#"{"error":"blocked"}"#,
    r#"["detail"]"#,
];

/// A verdict's name and its sentence.
fn log(outcome: &Outcome, server_errors: u32) -> (&'static str, String) {
    match of_log(outcome, 2, server_errors) {
        LogVerdict::Answered(fates) => ("answered", format!("{fates:?}")),
        LogVerdict::Bisect { reason } => ("bisect", reason.for_letter()),
        LogVerdict::Split { reason } => ("split", reason.for_letter()),
        LogVerdict::Park { reason } => ("park", reason),
        LogVerdict::Blocked(blocked) => (whose(&blocked), blocked.park),
        LogVerdict::Retry { reason, .. } => ("retry", reason),
        LogVerdict::Unknown { reason, .. } => ("unknown", reason),
    }
}

fn whose(blocked: &Blocked) -> &'static str {
    if blocked.own { "blocked" } else { "blocked between" }
}

fn feedback(outcome: &Outcome) -> (&'static str, String) {
    match of_feedback(outcome) {
        FeedbackVerdict::Delivered => ("delivered", String::new()),
        FeedbackVerdict::NotYet => ("not yet", String::new()),
        FeedbackVerdict::ReadBack { reason } => ("read back", reason.for_letter()),
        FeedbackVerdict::Refused { reason } => ("refused", reason.for_letter()),
        FeedbackVerdict::Park { reason } => ("park", reason),
        FeedbackVerdict::Blocked(blocked) => (whose(&blocked), blocked.park),
        FeedbackVerdict::Retry { reason, .. } => ("retry", reason),
    }
}

#[test]
fn each_event_of_a_200_has_its_own_fate() {
    let body = r#"{"logged_events": [
        {"input": "a", "task_id": "t", "n": 1e400, "deep": [[["\ud800"]]]},
        {"error_in_log": "Max usage quota reached for project P: 10/10 logs"},
        {"error_in_log": "1 validation error\nflag"},
        {"error_in_log": "my own field", "input": "echoed"},
        {"error_in_log": null, "task_id": "t"},
        {"error_in_log": {"odd": 1}}
    ], "more": 1}"#;
    let fates = [
        Fate::Accepted,
        Fate::OverQuota("Max usage quota reached for project P: 10/10 logs".into()),
        Fate::Refused("1 validation error\\nflag".into()),
        Fate::Accepted,
        Fate::Accepted,
        Fate::Refused("{\"odd\": 1}".into()),
    ];
    for status in [200, 201, 202] {
        assert_eq!(
            of_log(&answer(status, body), 6, 0),
            LogVerdict::Answered(fates.to_vec())
        );
    }
    assert_eq!(
        of_log(&answer(200, r#"{"logged_events":[]}"#), 0, 0),
        LogVerdict::Answered(vec![])
    );
}

#[test]
fn a_200_that_does_not_tell_is_retried_and_never_guessed_at() {
    for body in [
        "",
        "null",
        "OK",
        "[]",
        "{}",
        "<html>",
        r#"{"logged_events":null}"#,
        r#"{"logged_events":[]}"#,
        r#"{"logged_events":[{"input":"a"}]}"#,
        r#"{"logged_events":[{"input":"a"},{"input":"b"},{"input":"c"}]}"#,
        r#"{"logged_events":[{"input":"a"},null]}"#,
        r#"{"logged_events":[{"input":"a"},{}]}"#,
        r#"{"logged_events":[{"input":"a"},{"error_in_log":null}]}"#,
        r#"{"logged_events":[{"input":"a"},{"input":"b"}]"#,
    ] {
        let (verdict, reason) = log(&answer(200, body), 0);
        assert_eq!(verdict, "unknown", "{body}");
        assert!(reason.ends_with("unknown"), "{reason}");
    }
    assert_eq!(log(&answer(204, ""), 0).0, "unknown");
}

#[test]
fn every_row_of_the_contracts_answer_table_is_held_for_logs() {
    let echoed = r#"{"logged_events":[{"input":"a"},{"input":"b"}]}"#;
    assert_eq!(log(&answer(200, echoed), 0).0, "answered");
    let blocked = vec![300, 301, 302, 307, 308, 401, 403, 404];
    let unknown = vec![402, 405, 406, 409, 410, 415, 418, 431, 451]; // Not in the table.
    for (own, between, statuses) in [
        ("bisect", "blocked between", vec![400, 422]),
        ("split", "split", vec![413]),
        ("blocked", "blocked between", blocked),
        ("blocked", "blocked between", unknown),
        ("park", "park", vec![407]),
        ("retry", "retry", vec![408, 425, 429, 500, 503]),
        // A gateway's answers: the request may have been taken behind it.
        ("unknown", "unknown", vec![501, 502, 504, 507, 520, 524, 599]),
        ("retry", "retry", vec![0, 100, 101]), // Not in the table.
        ("unknown", "unknown", vec![600, 999, u16::MAX]), // Not in the table.
    ] {
        for status in statuses {
            assert_eq!(log(&answer(status, OWN), 1).0, own, "{status}");
            for body in BETWEEN {
                assert_eq!(log(&answer(status, body), 1).0, between, "{status} {body}");
            }
        }
    }
    for (server_errors, verdict) in [(0, "retry"), (1, "retry"), (2, "bisect"), (u32::MAX, "bisect")] {
        assert_eq!(
            log(&answer(500, "Internal Server Error"), server_errors).0,
            verdict,
            "{server_errors}"
        );
    }
    assert_eq!(log(&answer(503, "{}"), 9).0, "retry");
    for kind in KINDS {
        let verdict = match kind {
            FailureKind::Dns | FailureKind::Connect | FailureKind::Tls => "retry",
            FailureKind::Timeout | FailureKind::Closed | FailureKind::Garbled => "unknown",
        };
        assert_eq!(log(&failed(kind), 9).0, verdict, "{kind:?}");
    }
}

#[test]
fn every_row_of_the_contracts_answer_table_is_held_for_feedback() {
    for (own, between, statuses) in [
        ("delivered", "delivered", vec![200, 201, 204]),
        ("refused", "blocked between", vec![400, 422]),
        ("refused", "refused", vec![413]),
        (
            "blocked",
            "blocked between",
            vec![301, 307, 401, 402, 403, 405, 409, 418, 451],
        ),
        ("not yet", "blocked between", vec![404]),
        ("park", "park", vec![407]),
        ("retry", "retry", vec![408, 425, 429, 503]),
        (
            "read back",
            "read back",
            vec![0, 100, 500, 501, 502, 504, 520, 600],
        ),
    ] {
        for status in statuses {
            assert_eq!(feedback(&answer(status, OWN)).0, own, "{status}");
            for body in BETWEEN {
                assert_eq!(feedback(&answer(status, body)).0, between, "{status} {body}");
            }
        }
    }
    for kind in KINDS {
        let verdict = match kind {
            FailureKind::Dns | FailureKind::Connect | FailureKind::Tls => "retry",
            FailureKind::Timeout | FailureKind::Closed | FailureKind::Garbled => "read back",
        };
        assert_eq!(feedback(&failed(kind)).0, verdict, "{kind:?}");
    }
}

#[test]
fn feedback_waits_for_a_task_and_not_for_a_route() {
    for body in [r#"{"detail":"Task t not found"}"#, r#"{"detail":""}"#] {
        assert_eq!(feedback(&answer(404, body)).0, "not yet", "{body}");
    }
    for (body, wish) in [
        (r#"{"detail":"Not Found"}"#, "blocked"),
        ("<html>nginx</html>", "blocked between"),
        (r#"{"detail":[]}"#, "blocked"),
        ("", "blocked between"),
    ] {
        let (verdict, reason) = feedback(&answer(404, body));
        assert_eq!(verdict, wish, "{body}");
        assert!(reason.contains("upstream.base_url"), "{reason}");
    }
}

#[test]
fn what_bars_reading_is_for_a_person_and_names_the_remedy() {
    for status in [301, 307, 401, 403] {
        let reason = bars_reading(&answer(status, "{}")).expect("barred");
        assert!(reason.contains("upstream."), "{reason}");
    }
    for status in [200, 404, 405, 429, 500, 501, 503] {
        assert_eq!(bars_reading(&answer(status, "{}")), None, "{status}");
    }
    for kind in KINDS {
        assert_eq!(bars_reading(&failed(kind)), None, "{kind:?}");
    }
}

#[test]
fn retry_after_is_handed_on() {
    let after = Some(Duration::from_secs(7));
    for status in [429, 503] {
        let outcome = Outcome::Answered(Answer {
            status,
            retry_after: after,
            body: bytes::Bytes::new(),
        });
        assert!(
            matches!(of_log(&outcome, 1, 0), LogVerdict::Retry { after: a, .. } | LogVerdict::Unknown { after: a, .. } if a == after)
        );
        assert!(matches!(of_feedback(&outcome), FeedbackVerdict::Retry { after: a, .. } if a == after));
    }
}

#[test]
fn sentences_name_the_remedy() {
    assert_eq!(
        log(&answer(401, r#"{"detail":"Invalid token"}"#), 0).1,
        "upstream refused the API key (401): set upstream.api_key_file and reload, or PHOSPHO_API_KEY and restart"
    );
    for (status, remedies) in [
        (307, vec!["upstream.base_url"]),
        (403, vec!["PHOSPHO_API_KEY", "upstream.api_key_file", "project"]),
        (404, vec!["upstream.project_id", "upstream.base_url"]),
        (405, vec!["upstream.base_url", "upstream.proxy"]),
    ] {
        let (_, reason) = log(&answer(status, r#"{"detail":""}"#), 0);
        assert!(reason.contains(&format!("({status})")), "{reason}");
        for remedy in remedies {
            assert!(reason.contains(remedy), "{reason}");
        }
    }
    for status in [400, 403, 404, 407, 451] {
        let (_, reason) = log(&answer(status, "<html>"), 0);
        for words in [
            "something between here and the API",
            &status.to_string(),
            "not the API's own",
            "upstream.proxy",
        ] {
            assert!(reason.contains(words), "{reason}");
        }
        let LogVerdict::Blocked(Blocked { refusal, .. }) = of_log(&answer(status, "<html>"), 1, 0) else {
            assert_eq!(status, 407);
            continue;
        };
        assert_eq!(
            refusal,
            format!(
                "refused with {status} by something between here and the API (not the API's own answer), while others pass"
            )
        );
    }
    assert_eq!(
        log(&failed(FailureKind::Dns), 0).1,
        "upstream: its name was not found (why): check upstream.base_url and the network"
    );
}

/// What anybody may see of a verdict: the log, `/status` and the metrics have nothing else.
fn shown(outcome: &Outcome, server_errors: u32) -> String {
    let log = match of_log(outcome, 1, server_errors) {
        LogVerdict::Answered(_) => String::new(),
        LogVerdict::Bisect { reason } | LogVerdict::Split { reason } => reason.to_string(),
        LogVerdict::Blocked(blocked) => blocked.park,
        LogVerdict::Park { reason }
        | LogVerdict::Retry { reason, .. }
        | LogVerdict::Unknown { reason, .. } => reason,
    };
    let feedback = match of_feedback(outcome) {
        FeedbackVerdict::Delivered | FeedbackVerdict::NotYet => String::new(),
        FeedbackVerdict::ReadBack { reason } | FeedbackVerdict::Refused { reason } => reason.to_string(),
        FeedbackVerdict::Blocked(blocked) => blocked.park,
        FeedbackVerdict::Park { reason } | FeedbackVerdict::Retry { reason, .. } => reason,
    };
    [log, feedback, bars_reading(outcome).unwrap_or_default()].join("\n")
}

#[test]
fn what_anybody_may_see_has_the_class_and_the_status_and_none_of_the_upstream_s_words() {
    let detail = r#"{"detail":"got CANARY"}"#;
    let faults = r#"{"detail":[{"loc":["body","CANARY"],"msg":"is CANARY","type":"x"}]}"#;
    for status in (200..=599).filter(|status| *status != 204) {
        for body in [
            detail,
            faults,
            "CANARY",
            r#"{"logged_events":[{"error_in_log":"CANARY"}]}"#,
        ] {
            for server_errors in [1, 5] {
                let shown = shown(&answer(status, body), server_errors);
                assert!(!shown.contains("CANARY"), "{status}: {shown}");
                let said = status < 300 || shown.contains(&status.to_string());
                assert!(said || status == 404, "{status}: {shown}");
            }
        }
    }
}

#[test]
fn what_upstream_says_is_bounded_on_one_line_and_without_the_events_content() {
    let (_, reason) = log(&answer(400, r#"{"detail":"a\n<0>fake\u001b[31m\u202e"}"#), 0);
    assert!(
        reason.ends_with("(400: a\\n<0>fake\\u{1b}[31m\\u{202e})"),
        "{reason}"
    );

    let long = format!(r#"{{"detail":"{}"}}"#, "ü".repeat(100_000));
    assert!(log(&answer(400, &long), 0).1.chars().count() < 400);

    let faults = r#"{"detail":[
        {"type":"missing","loc":["body","batched_log_events",3,"input"],"msg":"Field required","input":"SECRET"},
        {"type":"missing","loc":[],"msg":"x","input":"SECRET"}]}"#;
    let (_, reason) = log(&answer(422, faults), 0);
    assert!(
        reason.ends_with("(422: body.batched_log_events.3.input: Field required, and 1 more)"),
        "{reason}"
    );
    let faults = r#"{"detail":[{"loc":["body","batched_log_events",3,"raw_input","SECRET"],"msg":"no"}]}"#;
    let (_, reason) = log(&answer(422, faults), 0);
    assert!(
        reason.ends_with("(422: body.batched_log_events.3.raw_input: no)"),
        "{reason}"
    );
    for (said, shown) in [
        (
            "a [type=b, input_value='SECRET', input_type=str]",
            "a [type=b, input_value=..., input_type=str]",
        ),
        (
            "a [input_value=', input_type=SECRET, input_type=str]",
            "a [input_value=..., input_type=str]",
        ),
        (
            ", input_type= [input_value=SECRET",
            ", input_type= [input_value=...",
        ),
    ] {
        let (_, reason) = log(&answer(400, &serde_json::json!({"detail": said}).to_string()), 0);
        assert!(reason.ends_with(&format!("(400: {shown})")), "{reason}");
    }
    for hidden in [
        r#"{"detail":{"input":"SECRET"}}"#,
        "SECRET",
        r#"{"detail":[{"input":"SECRET"}]}"#,
    ] {
        let reason = log(&answer(422, hidden), 0).1;
        assert!(reason.contains("422") && !reason.contains("SECRET"), "{reason}");
    }
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let element = prop_oneof![
        Just(r#"{"input":"a"}"#.to_owned()),
        Just(r#"{"error_in_log":"Max usage quota reached"}"#.to_owned()),
        "[\\[\\]{}\":,a0\\\\]{0,12}",
    ];
    let list = prop::collection::vec(element, 0..5)
        .prop_map(|e| format!(r#"{{"logged_events":[{}]}}"#, e.join(",")));
    let body = prop_oneof![
        list.prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..60),
        any::<String>().prop_map(|text| serde_json::json!({ "detail": text }).to_string().into_bytes()),
    ];
    let status = prop_oneof![any::<u16>(), 100_u16..600, Just(200)];
    prop_oneof![
        9 => (status, body, any::<Option<u32>>()).prop_map(|(status, body, seconds)| {
            let retry_after = seconds.map(|s| Duration::from_secs(s.into()));
            Outcome::Answered(Answer { status, retry_after, body: body.into() })
        }),
        1 => (prop::sample::select(KINDS.to_vec()), any::<String>())
            .prop_map(|(kind, detail)| Outcome::Failed(Failure { kind, detail })),
    ]
}

proptest! {
    #[test]
    fn any_answer_has_a_verdict_with_one_fate_an_event_and_a_short_clean_reason(
        outcome in any_outcome(), events in 0_usize..5, server_errors in any::<u32>(),
    ) {
        let of_feedback = feedback(&outcome);
        let reason = match of_log(&outcome, events, server_errors) {
            LogVerdict::Answered(fates) => {
                prop_assert_eq!(fates.len(), events);
                let success = matches!(&outcome, Outcome::Answered(Answer { status: 200..=299, .. }));
                prop_assert!(success, "only a 2xx settles");
                String::new()
            }
            LogVerdict::Bisect { reason } | LogVerdict::Split { reason } => reason.for_letter(),
            LogVerdict::Park { reason } | LogVerdict::Retry { reason, .. } | LogVerdict::Unknown { reason, .. } => reason,
            LogVerdict::Blocked(blocked) => blocked.park + &blocked.refusal,
        };
        for reason in [reason, of_feedback.1] {
            prop_assert!(!reason.chars().any(char::is_control), "{}", reason);
            prop_assert!(reason.len() < 16 * 1024, "{}", reason.len());
        }
    }
}

/// How the fault of a log request was judged.
fn suspect_of(outcome: &Outcome) -> Option<Suspect> {
    match of_log(outcome, 2, 1) {
        LogVerdict::Retry { suspect, .. } | LogVerdict::Unknown { suspect, .. } => Some(suspect),
        _ => None,
    }
}

#[test]
fn what_may_have_to_do_with_size_or_content_is_told_from_an_outage() {
    use Suspect::{Content, Nothing, Size};
    for (status, own, between) in [
        (408, Size, Size),
        (504, Size, Size),
        (524, Size, Size),
        (425, Nothing, Content),
        (429, Nothing, Content),
        (500, Nothing, Nothing),
        (502, Nothing, Content),
        (503, Nothing, Content),
        (200, Nothing, Content),
        (202, Nothing, Content),
    ] {
        assert_eq!(suspect_of(&answer(status, OWN)), Some(own), "{status}");
        assert_eq!(suspect_of(&answer(status, "<html>")), Some(between), "{status}");
    }
    for kind in KINDS {
        let wish = match kind {
            FailureKind::Dns | FailureKind::Connect | FailureKind::Tls => Nothing,
            FailureKind::Timeout | FailureKind::Closed => Size,
            FailureKind::Garbled => Content,
        };
        assert_eq!(suspect_of(&failed(kind)), Some(wish), "{kind:?}");
    }
    let mut verdict = of_log(&failed(FailureKind::Closed), 2, 1);
    verdict.acquit();
    assert!(matches!(verdict, LogVerdict::Unknown { suspect: Nothing, .. }));
}

#[test]
fn a_refusal_of_the_api_that_was_cut_off_for_its_length_is_its_own_still() {
    let cut = format!(r#" {{"detail":[{{"loc":["body"],"input":"{}"#, "x".repeat(70_000));
    assert_eq!(log(&answer(422, &cut), 0).0, "bisect");
    assert_eq!(feedback(&answer(422, &cut)).0, "refused");
}
