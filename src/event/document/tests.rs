use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A value as BSON, the way the API's driver writes it: its type and its bytes.
fn encoded(value: &Value) -> (u8, Vec<u8>) {
    match value {
        Value::Null => (0x0a, Vec::new()),
        Value::Bool(flag) => (0x08, vec![u8::from(*flag)]),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => match i32::try_from(integer) {
                Ok(small) => (0x10, small.to_le_bytes().to_vec()),
                Err(_) => (0x12, integer.to_le_bytes().to_vec()),
            },
            None => {
                let double = number.as_f64().expect("a double");
                (0x01, double.to_le_bytes().to_vec())
            }
        },
        Value::String(text) => {
            let length = i32::try_from(text.len() + 1).expect("short");
            (0x02, [&length.to_le_bytes()[..], text.as_bytes(), b"\0"].concat())
        }
        Value::Array(list) => {
            let elements = list.iter().enumerate();
            (
                0x04,
                document(elements.map(|(at, value)| (at.to_string(), value))),
            )
        }
        Value::Object(fields) => (
            0x03,
            document(fields.iter().map(|(key, value)| (key.clone(), value))),
        ),
    }
}

fn document<'a>(elements: impl Iterator<Item = (String, &'a Value)>) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in elements {
        let (kind, bytes) = encoded(value);
        body.push(kind);
        body.extend_from_slice(key.as_bytes());
        body.push(0);
        body.extend_from_slice(&bytes);
    }
    let length = i32::try_from(body.len() + 5).expect("short");
    [&length.to_le_bytes()[..], &body, b"\0"].concat()
}

fn bson_length(value: &Value) -> u64 {
    encoded(value).1.len() as u64
}

/// The largest and the smallest document that the API may make of an event.
fn documents(event: &Map<String, Value>) -> (u64, u64) {
    let (mut large, mut small) = (event.clone(), event.clone());
    small.retain(|key, _| !DROPPED.contains(&key.as_str()));
    let metadata = large.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let unknown: Vec<_> = event
        .iter()
        .filter(|(key, _)| rules::slot(key).is_none())
        .collect();
    if let Some(metadata) = metadata.as_object_mut() {
        for (key, value) in unknown {
            metadata.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    (bson_length(&small.into()), bson_length(&large.into()))
}

fn checked(text: &str) {
    let event: Value = serde_json::from_str(text).expect("JSON");
    let (small, large) = documents(event.as_object().expect("an object"));
    let bounds = bounds(text, Keys::Compared);
    assert!(
        bounds.lower <= small,
        "{} over {small}: {text:.200}",
        bounds.lower
    );
    assert!(
        bounds.upper >= large,
        "{} under {large}: {text:.200}",
        bounds.upper
    );
    assert!(
        bounds.upper <= bounds.lower.max(text.len() as u64) * MOST_GROWTH + 200 + ADDED_BY_API,
        "{bounds:?} of {} bytes",
        text.len()
    );
}

#[test]
fn the_encoder_of_these_tests_writes_the_example_of_the_specification() {
    let expected = b"\x31\0\0\0\x04BSON\0\x26\0\0\0\x020\0\x08\0\0\0awesome\0\x011\0\x33\x33\x33\x33\x33\x33\x14\x40\x102\0\xc2\x07\0\0\0\0";
    let (_, bytes) = encoded(&json!({"BSON": ["awesome", 5.05, 1986]}));
    assert_eq!(bytes, expected);
}

#[test]
fn the_lower_bound_is_the_length_of_what_has_no_surprises() {
    let event = json!({
        "input": "é\"\n😀", "task_id": "t", "raw_input": [{"role": "user", "content": "x"}],
        "metadata": {"a": [1, -2, 2_147_483_648_i64, 1.5, true, null, {}, []], "b": {"c": "d"}},
    });
    let exact = bson_length(&event);
    for text in [
        event.to_string(),
        serde_json::to_string_pretty(&event).expect("it prints"),
    ] {
        assert_eq!(bounds(&text, Keys::AllDistinct).lower, exact);
        assert_eq!(bounds(&text, Keys::Compared).lower, exact);
    }
    let escaped = r#"{"input":"\u00e9\u0022\u000a\ud83d\ude00"}"#;
    assert_eq!(
        bounds(escaped, Keys::Compared).lower,
        bson_length(&json!({"input": "é\"\n😀"}))
    );
}

fn event_of(list: &str) -> String {
    format!("{{\"input\":\"x\",\"metadata\":{{\"list\":[{list}]}}}}")
}

#[test]
fn an_event_is_refused_once_it_is_surely_over_the_limit_and_doubted_before() {
    // Each of a million and more small integers takes 13 bytes, or 17 at most.
    for (count, expected) in [
        (900_000, DocumentSize::Fits),
        (1_200_000, DocumentSize::Doubtful),
        (1_400_000, DocumentSize::TooLarge),
    ] {
        let text = event_of(&vec!["1"; count].join(","));
        assert_eq!(document_size(text.as_bytes()), expected, "{count} numbers");
    }
    let text = format!("{{\"input\":\"{}\"}}", "x".repeat(15 << 20));
    assert_eq!(
        document_size(text.as_bytes()),
        DocumentSize::Fits,
        "text takes what it takes"
    );
    assert_eq!(
        document_size(&text.as_bytes()[..14 << 20]),
        DocumentSize::Fits,
        "no JSON"
    );
}

#[test]
fn of_a_key_that_stands_twice_only_the_last_value_is_sure_to_be_stored() {
    let list = vec!["1"; 750_000].join(",");
    let twice = format!("{{\"input\":\"x\",\"metadata\":{{\"a\":[{list}],\"\\u0061\":[{list}]}}}}");
    assert_eq!(document_size(twice.as_bytes()), DocumentSize::Doubtful);
    let two = twice.replace("\\u0061", "b");
    assert_eq!(document_size(two.as_bytes()), DocumentSize::TooLarge);
}

#[test]
fn what_the_api_drops_is_not_sure_to_be_stored() {
    let list = vec!["1"; 1_400_000].join(",");
    let dropped = format!("{{\"input\":\"x\",\"data\":[{list}]}}");
    assert_eq!(document_size(dropped.as_bytes()), DocumentSize::Doubtful);
    assert_eq!(
        document_size(dropped.replace("data", "mine").as_bytes()),
        DocumentSize::TooLarge
    );
}

#[test]
fn nothing_grows_more_than_what_the_shortest_event_is_judged_by() {
    for element in ["1", "[]", "{}", "\"\"", "null", "1.5", "true", "{\"\":1}"] {
        let list = vec![element; 200_000].join(",");
        let unknown = format!("{{\"input\":\"x\",\"mine\":[{list}]}}");
        let bounds = bounds(&unknown, Keys::AllDistinct);
        let most = unknown.len() as u64 * MOST_GROWTH;
        assert!(bounds.upper - ADDED_BY_API <= most, "{element}: {bounds:?}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[^\\x00]{0,12}".prop_map(Value::from),
        prop::collection::vec(0_i32..100, 0..130).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
            prop::collection::btree_map("[^\\x00]{0,5}", inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

/// The text with every character outside ASCII as an escape.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(ascii @ 0..0x80) => out.push(char::from(ascii)),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out
}

proptest! {
    #[test]
    fn the_document_lies_between_the_bounds(
        fields in prop::collection::btree_map(
            prop_oneof![Just("metadata"), Just("raw_input"), Just("output"), Just("data"), Just("mine"), Just("other")],
            value(), 0..6,
        ), pretty in any::<bool>(), ascii in any::<bool>(),
    ) {
        let mut event: Map<String, Value> = Map::new();
        event.insert("input".into(), "x".into());
        for (key, value) in fields {
            let value = if key == "metadata" { json!({"own": value}) } else { value };
            event.insert(key.into(), value);
        }
        let event = Value::Object(event);
        let text = if pretty { serde_json::to_string_pretty(&event) } else { serde_json::to_string(&event) };
        let text = text.expect("it prints");
        checked(&if ascii { escaped(&text) } else { text });
    }

    #[test]
    fn any_text_is_measured_without_harm(text in "\\PC{0,80}", bytes in "[\\[\\]{},:\"\\\\u0-9a-f. tn-]{0,80}") {
        for keys in [Keys::AllDistinct, Keys::Compared] {
            bounds(&text, keys);
            bounds(&bytes, keys);
        }
    }
}
