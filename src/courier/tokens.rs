//! Lets an event skip the API's tokenizer, which fails on some events and then loses the whole batch. Pure.
//!
//! The API counts no tokens of an event that carries both counts. They are 0, because with null the counters of the event's
//! session can never be incremented again.

use crate::event::TOKEN_COUNTS;
use crate::wire::json::{self, JsonKind};
use serde_json::value::RawValue;

/// Most bytes that [`with_zero_counts`] adds to an event.
pub(super) const ADDED_BYTES: usize = r#""metadata":{"prompt_tokens":0,"completion_tokens":0},"#.len();

/// The event with the token counts that it lacks set to 0 in its `metadata`; every other byte stays.
///
/// A count given at the top level stands too, because the API copies it into `metadata`. `None` if nothing is lacking, or
/// the event is no JSON object or its `metadata` neither an object nor null.
pub(super) fn with_zero_counts(event: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(event).ok()?;
    let metadata = json::field(event, "metadata");
    let given = |count: &str| {
        json::field(event, count).is_some()
            || metadata.is_some_and(|metadata| json::field(metadata.get().as_bytes(), count).is_some())
    };
    let lacking: Vec<String> = TOKEN_COUNTS
        .iter()
        .filter(|count| !given(count))
        .map(|count| format!("\"{count}\":0"))
        .collect();
    let lacking = lacking.join(",");
    if lacking.is_empty() {
        return None;
    }
    match metadata {
        None => insert(text, 0, &format!("\"metadata\":{{{lacking}}}")),
        Some(metadata) => {
            let start = offset(text, metadata)?;
            match JsonKind::of(metadata) {
                JsonKind::Object => insert(text, start, &lacking),
                JsonKind::Null => {
                    let (before, after) = (&text[..start], &text[start + metadata.get().len()..]);
                    Some(format!("{before}{{{lacking}}}{after}").into_bytes())
                }
                _ => None,
            }
        }
    }
}

/// Puts fields at the head of the object that begins at or after `from`.
fn insert(text: &str, from: usize, fields: &str) -> Option<Vec<u8>> {
    let head = from + text[from..].find('{')? + 1;
    let (before, after) = text.split_at(head);
    let comma = if after.trim_start().starts_with('}') {
        ""
    } else {
        ","
    };
    let whole = format!("{before}{fields}{comma}{after}");
    serde_json::from_str::<&RawValue>(&whole).ok()?;
    Some(whole.into_bytes())
}

/// Where a value that was read out of `text` stands in it.
fn offset(text: &str, value: &RawValue) -> Option<usize> {
    let start = value.get().as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    (start + value.get().len() <= text.len()).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn spliced(event: &str) -> Option<String> {
        with_zero_counts(event.as_bytes()).map(|bytes| String::from_utf8(bytes).expect("UTF-8"))
    }

    #[test]
    fn both_counts_are_added_where_there_is_no_metadata() {
        assert_eq!(
            spliced(r#" {"input":"a" }"#).as_deref(),
            Some(r#" {"metadata":{"prompt_tokens":0,"completion_tokens":0},"input":"a" }"#)
        );
        assert_eq!(
            spliced(r#"{"x":"metadata","metadata" : null,"y":1.00}"#).as_deref(),
            Some(r#"{"x":"metadata","metadata" : {"prompt_tokens":0,"completion_tokens":0},"y":1.00}"#)
        );
        assert_eq!(
            spliced(r#"{"metadata":{ }}"#).as_deref(),
            Some(r#"{"metadata":{"prompt_tokens":0,"completion_tokens":0 }}"#)
        );
    }

    #[test]
    fn a_count_that_the_event_gives_is_left_alone() {
        assert_eq!(
            spliced(r#"{"metadata":{"prompt_tokens":7,"a":[1e5]}}"#).as_deref(),
            Some(r#"{"metadata":{"completion_tokens":0,"prompt_tokens":7,"a":[1e5]}}"#)
        );
        assert_eq!(
            spliced(r#"{"completion_tokens":3,"metadata":{}}"#).as_deref(),
            Some(r#"{"completion_tokens":3,"metadata":{"prompt_tokens":0}}"#)
        );
        assert_eq!(
            spliced(r#"{"prompt_tokens":null,"metadata":{"completion_tokens":null}}"#),
            None
        );
    }

    #[test]
    fn what_cannot_take_them_is_not_touched() {
        for event in [
            "",
            "[]",
            "null",
            r#"{"metadata":"text"}"#,
            r#"{"metadata":[]}"#,
            r#"{"a":"#,
            "\u{7f}",
        ] {
            assert_eq!(spliced(event), None, "{event}");
        }
        assert_eq!(with_zero_counts(b"{\"a\":\"\xff\"}"), None);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("metadata".to_owned()),
            Just("prompt_tokens".to_owned()),
            Just("completion_tokens".to_owned()),
            ".{0,6}",
        ]
    }

    proptest! {
        #[test]
        fn only_lacking_counts_are_added_and_nothing_else_changes(
            fields in prop::collection::btree_map(key(), value(), 0..6), pretty in any::<bool>(),
        ) {
            let before = Value::Object(fields.into_iter().collect());
            let text = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) };
            let text = text.expect("it prints");
            let Some(after) = with_zero_counts(text.as_bytes()) else { return Ok(()) };
            prop_assert!(after.len() <= text.len() + ADDED_BYTES);
            let mut after: Value = serde_json::from_slice(&after).expect("still JSON");
            let metadata = after["metadata"].as_object_mut().expect("an object");
            for count in TOKEN_COUNTS {
                let own = before.get(count).is_some() || before["metadata"].get(count).is_some();
                prop_assert!(own || metadata.remove(count) == Some(Value::from(0)));
            }
            if before["metadata"].is_null() {
                prop_assert!(metadata.is_empty());
                match before.get("metadata") {
                    Some(null) => after["metadata"] = null.clone(),
                    None => drop(after.as_object_mut().expect("an object").remove("metadata")),
                }
            }
            prop_assert_eq!(after, before);
        }
    }
}
