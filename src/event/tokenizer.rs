//! Which events the API's tokenizer is known to fail on. Such an event loses the whole batch that holds it, unless it
//! carries its own token counts, because then the API does not count. Pure.

use crate::wire::json::{self, JsonKind};
use memchr::memmem;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The names of the two token counts, in `metadata` or at the top level.
pub const TOKEN_COUNTS: [&str; 2] = ["prompt_tokens", "completion_tokens"];

/// Special tokens of the tokenizer, which refuses a text that contains one.
const SPECIAL_TOKENS: [&str; 5] = [
    "<|endoftext|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|endofprompt|>",
];

/// Whether the API's tokenizer is known to fail on a stored event. That is the case if
/// - `raw_input` is a list of objects, and one of these has a value that is not a string (tool calls, vision), or
/// - `input`, or a text in `raw_input`, contains a special token such as `<|endoftext|>`,
///
/// and the event does not give both token counts itself. False for what is no event.
pub fn breaks_tokenizer(event: &[u8]) -> bool {
    if !may_break(event) {
        return false;
    }
    let Ok(text) = std::str::from_utf8(event) else {
        return false;
    };
    const NAMES: [&str; 5] = ["input", "raw_input", "metadata", TOKEN_COUNTS[0], TOKEN_COUNTS[1]];
    let mut values: [Option<&RawValue>; NAMES.len()] = [None; NAMES.len()];
    let slot = |key: &str| NAMES.iter().position(|name| *name == key);
    if json::for_each_field(text, slot, |slot, value| values[slot] = Some(value)).is_err() {
        return false;
    }
    let [input, raw_input, metadata, prompt, completion] = values;
    let breaks = input.is_some_and(has_special_token) || raw_input.is_some_and(raw_input_breaks);
    breaks && !(gives(prompt, metadata, TOKEN_COUNTS[0]) && gives(completion, metadata, TOKEN_COUNTS[1]))
}

/// A quick look that only passes what needs the slow one. A token or a key can be spelled with escapes.
fn may_break(event: &[u8]) -> bool {
    [b"|>".as_slice(), b"raw_input\"", b"\\u"]
        .iter()
        .any(|part| memmem::find(event, part).is_some())
}

/// Whether a count stands at the top level or in `metadata`, to which the API copies it.
fn gives(top_level: Option<&RawValue>, metadata: Option<&RawValue>, count: &str) -> bool {
    top_level.is_some()
        || metadata.is_some_and(|metadata| json::field(metadata.get().as_bytes(), count).is_some())
}

fn raw_input_breaks(raw_input: &RawValue) -> bool {
    match JsonKind::of(raw_input) {
        JsonKind::String => has_special_token(raw_input),
        JsonKind::List => {
            let mut breaks = false;
            // A list that cannot be read is none that was checked at the door.
            let _ = json::for_each_element(raw_input, |element| {
                breaks |= match JsonKind::of(element) {
                    JsonKind::String => has_special_token(element),
                    JsonKind::Object => message_breaks(element),
                    _ => false,
                };
            });
            breaks
        }
        _ => false,
    }
}

/// The API takes a list of objects for chat messages, whatever their keys, and counts the tokens of each value.
fn message_breaks(message: &RawValue) -> bool {
    let mut breaks = false;
    let any = |_: &str| Some(0);
    let _ = json::for_each_field(message.get(), any, |_, value| {
        breaks |= JsonKind::of(value) != JsonKind::String || has_special_token(value);
    });
    breaks
}

fn has_special_token(value: &RawValue) -> bool {
    let token = value.get();
    let text = match token.contains("\\u") {
        true => json::text_of(value).unwrap_or(Cow::Borrowed(token)),
        false => Cow::Borrowed(token),
    };
    memmem::find_iter(text.as_bytes(), b"<|").any(|at| {
        let rest = text.get(at..).unwrap_or_default();
        SPECIAL_TOKENS.iter().any(|special| rest.starts_with(special))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn breaks(event: &Value) -> bool {
        breaks_tokenizer(event.to_string().as_bytes())
    }

    #[test]
    fn tool_calls_and_pictures_break_it_and_plain_messages_do_not() {
        for (raw_input, expected) in [
            (
                json!([{"role": "assistant", "content": null, "tool_calls": [{"id": "c"}]}]),
                true,
            ),
            (
                json!([{"role": "user", "content": [{"type": "image_url"}]}]),
                true,
            ),
            (json!([{"role": "user", "content": "a"}, {"n": 1}]), true),
            (json!([{"role": "user", "content": "a"}, {}]), false),
            (json!({"role": "user", "content": null}), false),
            (json!(["a", "b"]), false),
            (json!([]), false),
            (json!("text"), false),
            (json!(null), false),
        ] {
            let event = json!({"input": "x", "raw_input": raw_input});
            assert_eq!(breaks(&event), expected, "{event}");
        }
        let output =
            json!({"input": "x", "raw_output": [{"content": null}], "metadata": {"raw_input": [{"a": 1}]}});
        assert!(!breaks(&output), "only raw_input is counted");
    }

    #[test]
    fn special_tokens_break_it_where_the_tokenizer_reads_and_however_they_are_spelled() {
        for special in SPECIAL_TOKENS {
            let text = format!("a <| b {special} c");
            assert!(breaks(&json!({"input": text})), "{special}");
            assert!(breaks(&json!({"input": "x", "raw_input": text})));
            assert!(breaks(&json!({"input": "x", "raw_input": ["y", text]})));
            assert!(breaks(
                &json!({"input": "x", "raw_input": [{"role": "user", "content": text}]})
            ));
            assert!(!breaks(
                &json!({"input": "x", "output": text, "metadata": {"input": text}})
            ));
        }
        assert!(!breaks(
            &json!({"input": "<|im_start|> <endoftext> <|endoftext >"})
        ));
        assert!(breaks_tokenizer(br#"{"input":"\u003c|endoftext|\u003e"}"#));
        assert!(breaks_tokenizer(br#"{"raw\u005finput":[{"a":1}],"input":"x"}"#));
    }

    #[test]
    fn an_event_with_both_counts_is_not_counted_by_the_api() {
        let with = |extra: &str| {
            breaks_tokenizer(format!(r#"{{"input":"x","raw_input":[{{"content":null}}]{extra}}}"#).as_bytes())
        };
        assert!(with(""));
        assert!(with(r#","prompt_tokens":1"#));
        assert!(with(r#","metadata":{"completion_tokens":1}"#));
        assert!(!with(
            r#","prompt_tokens":1,"metadata":{"completion_tokens":null}"#
        ));
        assert!(!with(r#","metadata":{"completion_tokens":0,"prompt_tokens":0}"#));
    }

    #[test]
    fn of_a_key_that_stands_twice_the_last_value_counts() {
        assert!(!breaks_tokenizer(
            br#"{"raw_input":[{"a":1}],"raw_input":"x","input":"x"}"#
        ));
        assert!(breaks_tokenizer(
            br#"{"raw_input":"x","raw_input":[{"a":1}],"input":"x"}"#
        ));
    }

    #[test]
    fn what_is_no_event_breaks_nothing() {
        for text in ["", "[]", "null", r#"{"input":"<|endoftext|>""#, r#"["|>"]"#] {
            assert!(!breaks_tokenizer(text.as_bytes()), "{text}");
        }
        assert!(!breaks_tokenizer(b"{\"input\":\"<|endoftext|>\xff\"}"));
    }

    /// The same rule, over parsed values.
    fn expected(event: &Value) -> bool {
        let special = |text: &str| SPECIAL_TOKENS.iter().any(|token| text.contains(token));
        let text_breaks = |value: &Value| value.as_str().is_some_and(special);
        let message = |message: &Value| match message {
            Value::Object(fields) => fields
                .values()
                .any(|value| !value.is_string() || text_breaks(value)),
            other => text_breaks(other),
        };
        let raw = match &event["raw_input"] {
            Value::Array(list) => list.iter().any(message),
            other => text_breaks(other),
        };
        let given = |count: &&str| event.get(count).is_some() || event["metadata"].get(count).is_some();
        (text_breaks(&event["input"]) || raw) && !TOKEN_COUNTS.iter().all(given)
    }

    fn text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            prop::sample::select(&SPECIAL_TOKENS[..]).prop_map(str::to_owned),
            Just("<|".to_owned()),
            Just("|>".to_owned()),
            "\\PC{0,4}",
        ];
        prop::collection::vec(part, 0..3).prop_map(|parts| parts.concat())
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![text().prop_map(Value::from), Just(Value::Null), Just(json!(7))];
        let key = prop::sample::select(vec!["role", "content", "prompt_tokens", "completion_tokens"]);
        leaf.prop_recursive(2, 12, 3, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..3)
                    .prop_map(|map| map.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_rule_over_parsed_values(
            input in text(), fields in prop::collection::btree_map(
                prop::sample::select(vec!["raw_input", "metadata", "output", "prompt_tokens", "completion_tokens"]),
                value(), 0..5,
            ), escaped in any::<bool>(),
        ) {
            let mut event = json!({"input": input});
            for (key, value) in fields {
                event[key] = value;
            }
            let mut text = event.to_string();
            if escaped {
                text = text.replace('<', "\\u003c").replace('|', "\\u007c");
            }
            prop_assert_eq!(breaks_tokenizer(text.as_bytes()), expected(&event), "{}", text);
        }

        #[test]
        fn any_bytes_are_looked_at_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            breaks_tokenizer(&bytes);
        }
    }
}
