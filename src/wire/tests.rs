use super::json::*;
use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;
use std::error::Error;

fn cut(body: &[u8], form: Form) -> Result<Vec<Element<'_>>, BodyError> {
    split_whole(body, form, usize::MAX, 1000).map(|events| events.expect("fewer than a thousand"))
}

fn texts(body: &str, form: Form) -> Result<Vec<&str>, String> {
    let events = cut(body.as_bytes(), form).map_err(|error| error.to_string())?;
    let text = |event: &Element<'_>| {
        std::str::from_utf8(&body.as_bytes()[event.start as usize..][..event.text.len()])
    };
    Ok(events.iter().map(|event| text(event).expect("text")).collect())
}

fn batch(body: &str) -> Result<Vec<&str>, String> {
    texts(body, Form::Batch)
}

/// As the route does: a body that is one event must be JSON.
fn any_form(body: &str) -> Result<Vec<&str>, String> {
    let events = texts(body, Form::Any)?;
    match cut(body.as_bytes(), Form::Any).as_deref() {
        Ok([one]) if one.is_body => explain_event(body.as_bytes()).map_err(|error| error.to_string())?,
        _ => {}
    }
    Ok(events)
}

#[test]
fn a_batch_is_cut_into_its_events_byte_for_byte() {
    let body =
        r#" { "other": [1e400, {"a": "\ud800"}], "batched_log_events" : [ {"a": 1.10} , 7,null,"x" ] } "#;
    assert_eq!(
        batch(body).expect("valid"),
        [r#"{"a": 1.10}"#, "7", "null", r#""x""#]
    );
    assert_eq!(any_form(body).expect("valid").len(), 4);
    assert_eq!(
        batch(r#"{"batched_log_events":[]}"#).expect("valid"),
        Vec::<&str>::new()
    );
    let twice = r#"{"batched_log_events":[1],"batched\u005flog_events":[2,3]}"#;
    assert_eq!(
        batch(twice).expect("valid"),
        ["1", "2", "3"],
        "nothing of it is lost"
    );
}

#[test]
fn the_friendly_route_takes_one_event_a_list_or_a_batch() {
    assert_eq!(
        any_form("\n {\"input\": \"a\"}\n").expect("one"),
        [r#"{"input": "a"}"#]
    );
    assert_eq!(
        any_form(r#"[{"input":"a"} ,{}]"#).expect("list"),
        [r#"{"input":"a"}"#, "{}"]
    );
    assert_eq!(any_form("[]").expect("list"), Vec::<&str>::new());
    assert_eq!(
        any_form(r#"{"input":"a","batched_log_events":[1]}"#).expect("batch"),
        ["1"]
    );
}

#[test]
fn a_body_that_cannot_be_cut_says_where_and_what_was_expected() {
    for (body, sentence) in [
        ("", "the body is empty: expected {"),
        (" \n", "the body is empty: expected {"),
        ("[]", "the body is a list: expected {\"batched_log_events\": ["),
        ("3", "the body is an integer: expected {"),
        ("{}", "the body has no batched_log_events: expected {"),
        (
            "{\"batched_log_events\":\n {}}",
            "batched_log_events is not a list (line 2, column ",
        ),
        (
            r#"{"batched_log_events":null}"#,
            "batched_log_events is not a list (line 1, column ",
        ),
        ("nonsense", "the body is not valid JSON at line 1, column "),
        (
            "{\"batched_log_events\":\n[{\"a\":1},\n {\"a\":1}}",
            "the body is not valid JSON at line 3, column 9 (byte 41): expected `,` or `]`. Expected {\"batched",
        ),
        (
            "{\"x\" 1,\n\"batched_log_events\":[]}",
            "the body is not valid JSON at line 1, column 6 (byte 5): expected `:`. Expected {\"batched",
        ),
        (
            "{\"a\":1,}",
            "the body is not valid JSON at line 1, column 8 (byte 7): trailing comma. Expected {",
        ),
        (
            "{\"a\":\"x",
            "the body is not valid JSON at line 1, column 7 (byte 7): EOF while parsing a string.",
        ),
        (
            "{\"a\":1\n\n",
            "the body is not valid JSON at line 3, column 1 (byte 8): EOF while parsing an object.",
        ),
        (
            "{\"batched_log_events\":[]} x",
            "the body is not valid JSON at line 1, column 27 (byte 26): trailing",
        ),
    ] {
        let error = batch(body).expect_err(body);
        assert!(error.starts_with(sentence), "{body:?} gave {error}");
    }
    let one = any_form("{\"input\": 'a'}").expect_err("single quotes");
    assert!(
        one.starts_with("the body is not valid JSON at line 1, column 11 (byte 10): expected value."),
        "{one}"
    );
    assert!(one.contains("one event such as"), "{one}");
    assert!(
        any_form("[1,")
            .expect_err("list")
            .contains("(byte 3): EOF while parsing a value")
    );
    assert_eq!(
        any_form("\"a\"").expect_err("string").split(':').next(),
        Some("the body is a string")
    );
}

#[test]
fn invalid_utf_8_that_is_in_no_event_has_its_own_sentence_with_the_place() {
    let error = cut(b"{\"\xc3\x28\":1}", Form::Batch).expect_err("no list either");
    assert_eq!(error, BodyError::Utf8 { byte: 2 });
    assert!(
        error
            .to_string()
            .starts_with("the body is not valid UTF-8 at byte 2: send JSON as UTF-8")
    );
    let gzip = cut(b"\x1f\x8b\x08", Form::Any).expect_err("compressed");
    assert_eq!(gzip, BodyError::Utf8 { byte: 1 });
}

#[test]
fn a_hundred_thousand_open_brackets_overflow_no_stack() {
    for open in [
        "[",
        "{\"a\":",
        "{\"batched_log_events\":",
        "{\"batched_log_events\":[",
    ] {
        let deep = open.repeat(100_000);
        assert!(cut(deep.as_bytes(), Form::Batch).is_err());
        assert!(cut(deep.as_bytes(), Form::Any).is_err());
    }
    let closed = format!(
        "{{\"batched_log_events\":[{}{}]}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(batch(&closed).expect("valid").len(), 1);
}

#[test]
fn one_field_is_read_from_an_object_and_of_several_the_last() {
    let object = br#"{"kind":"log","deep":[[{"kind":"x"}]],"kind":"feedback"}"#;
    assert_eq!(
        field(object, "kind").and_then(text_of).as_deref(),
        Some("feedback")
    );
    assert!(field(object, "absent").is_none());
    assert!(field(b"[1]", "kind").is_none());
    assert!(field(b"{\"kind\":1", "kind").is_none());
    assert!(field(b"\xff", "kind").is_none());
}

#[test]
fn kinds_are_told_by_the_token() -> Result<(), Box<dyn Error>> {
    for (token, kind) in [
        ("null", JsonKind::Null),
        ("false", JsonKind::Boolean),
        ("-0", JsonKind::Integer),
        ("123456789012345678901234567890", JsonKind::Integer),
        ("1.0", JsonKind::Fraction),
        ("1E3", JsonKind::Fraction),
        ("\"\"", JsonKind::String),
        ("[]", JsonKind::List),
        ("{}", JsonKind::Object),
    ] {
        assert_eq!(
            JsonKind::of(serde_json::from_str::<&RawValue>(token)?),
            kind,
            "{token}"
        );
    }
    assert_eq!(JsonKind::of_text(" \n[] "), Ok(JsonKind::List));
    assert!(JsonKind::of_text("nonsense").is_err());
    assert!(JsonKind::of_text("").is_err());
    Ok(())
}

proptest! {
    #[test]
    fn a_written_string_is_read_back_as_it_was(text in any::<String>(), odd in "[\\x00-\\x7f]{0,20}") {
        for text in [text, odd] {
            let mut out = Vec::new();
            push_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
        }
    }

    #[test]
    fn no_bytes_make_cutting_panic(
        raw in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            r#"\{"batched_log_events":[\[\]{},":0-9a\n ]{0,30}"#.prop_map(String::into_bytes),
        ],
    ) {
        for form in [Form::Batch, Form::Any] {
            match cut(&raw, form) {
                Err(BodyError::Malformed { fault, .. }) => prop_assert!(fault.byte <= raw.len()),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
                Ok(events) => for event in events {
                    let start = event.start as usize;
                    prop_assert_eq!(&raw[start..start + event.text.len()], event.text);
                },
            }
        }
    }
}

#[test]
fn a_word_of_another_language_is_named_where_json_has_another() {
    for (text, sentence) in [
        (
            r#"{"a":NaN}"#,
            "column 6 (byte 5): NaN is no value in JSON, null is",
        ),
        (r#"{"a":[1,-Infinity]}"#, "-Infinity is no value in JSON, null is"),
        (
            r#"{"a":Infinity}"#,
            "(byte 5): Infinity is no value in JSON, null is",
        ),
        (r#"{"a":nan}"#, "nan is no value in JSON, null is"),
        (r#"{"a":undefined}"#, "undefined is no value in JSON, null is"),
        (r#"{"a":None}"#, "None is no value in JSON, null is"),
        ("{\"a\":\nTrue}", "True is no value in JSON, true is"),
        (r#"{"a":secret}"#, "expected value"),
        (r#"{"a":NaNo}"#, "expected value"),
        (r#"{"a":'NaN'}"#, "expected value"),
    ] {
        let fault = JsonKind::of_text(text).expect_err(text).to_string();
        assert!(fault.ends_with(sentence), "{text}: {fault}");
    }
}
