use super::*;
use crate::wire::{BodyError, split_whole};
use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An event as it was found: its text, where it stands, and its length if it was cut short.
type Piece = (Vec<u8>, u64, Option<u64>);

fn owned(element: Element<'_>) -> Piece {
    (element.text.to_vec(), element.start, element.cut_from)
}

/// What is found when the body comes in pieces of these sizes, in turn.
fn in_pieces(body: &[u8], form: Form, hold: usize, sizes: &[usize]) -> (Vec<Piece>, Option<Fault>) {
    let mut splitter = Splitter::new(form, hold);
    let (mut found, mut left) = (Vec::new(), body);
    for size in sizes.iter().cycle() {
        if left.is_empty() {
            break;
        }
        let (mut piece, rest) = left.split_at((*size).min(left.len()));
        left = rest;
        loop {
            match splitter.next(&mut piece) {
                Ok(Some(element)) => found.push(owned(element)),
                Ok(None) => break,
                Err(fault) => return (found, Some(fault)),
            }
        }
        assert!(piece.is_empty() && splitter.held() <= hold.max(HEAD_BYTES));
    }
    let fault = splitter.finish().err();
    (found, fault)
}

fn texts(body: &str, form: Form) -> Result<Vec<String>, BodyError> {
    let events = split_whole(body.as_bytes(), form, 1000, 1000)?.expect("fewer than a thousand");
    let text = |event: &Element<'_>| String::from_utf8(event.text.to_vec()).expect("text");
    Ok(events.iter().map(text).collect())
}

/// A text that is JSON, cut by serde_json: the elements of all lists under the key.
fn by_serde(text: &str, form: Form) -> Option<Vec<&str>> {
    struct Lists<'a>(Option<Vec<&'a RawValue>>);
    impl<'de: 'a, 'a> Deserialize<'de> for Lists<'a> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct V;
            impl<'de> Visitor<'de> for V {
                type Value = Lists<'de>;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lists<'de>, A::Error> {
                    let mut all = None;
                    while let Some(key) = map.next_key::<&RawValue>()? {
                        if serde_json::from_str::<String>(key.get()).is_ok_and(|key| key == BATCH_KEY) {
                            let events = map.next_value::<Vec<&RawValue>>()?;
                            all.get_or_insert_with(Vec::new).extend(events);
                        } else {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                    Ok(Lists(all))
                }
            }
            deserializer.deserialize_map(V)
        }
    }
    let trimmed = json::trim(text);
    if trimmed.starts_with('[') {
        let events: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        return (form == Form::Any).then(|| events.into_iter().map(RawValue::get).collect());
    }
    let Lists(all) = serde_json::from_str(text).ok()?;
    match (all, form) {
        (Some(events), _) => Some(events.into_iter().map(RawValue::get).collect()),
        (None, Form::Any) => Some(vec![trimmed]),
        (None, Form::Batch) => None,
    }
}

#[test]
fn a_text_that_is_no_json_spoils_the_event_that_it_stands_in_and_no_other() {
    for bad in [
        r#"{"score":NaN}"#,
        r#"{"score":[-Infinity,{"b":undefined}]}"#,
        r#"{'input':'single quotes'}"#,
        r#"{"input":"a",}"#,
        r#"{"input":"bad escape \x"}"#,
        r#"{"input":"half \ud83d"}"#,
        "{\"input\":\"a\ttab and\na line\"}",
        r#"{"input":"a"} {"input":"no comma between"}"#,
        r#"{"a":[1}}"#,
        "nonsense",
    ] {
        let events = [r#"{"input":"a, ]}["}"#, bad, r#"{"input":"c\\"}"#];
        for (open, close, form) in [
            ("{\"batched_log_events\":[", "],\"x\":NaN}", Form::Batch),
            ("[", "]", Form::Any),
        ] {
            let body = format!("{open}{}{close}", events.join(" , "));
            assert_eq!(texts(&body, form).expect(bad), events);
        }
    }
    let body = b"{\"batched_log_events\":[{\"input\":\"\xc3\x28\"},{\"input\":\"b\"}]}";
    let events = split_whole(body, Form::Batch, 1000, 1000).expect("it can be cut");
    assert_eq!(events.expect("two")[0].text, b"{\"input\":\"\xc3\x28\"}");
}

#[test]
fn of_an_event_that_is_too_long_the_head_is_kept_and_the_others_are_whole() {
    let long = format!("{{\"input\":\"{}\"}}", "x".repeat(3 * HEAD_BYTES));
    let body = format!("[{{\"a\":1}},{long}  ,{{\"b\":2}}]");
    for sizes in [&[1_000_000][..], &[1000], &[HEAD_BYTES + 7, 3]] {
        let (found, fault) = in_pieces(body.as_bytes(), Form::Any, 1000, sizes);
        assert_eq!(fault, None);
        assert_eq!(found[0], (b"{\"a\":1}".to_vec(), 1, None));
        let (head, start, length) = &found[1];
        assert_eq!(head.as_slice(), &long.as_bytes()[..HEAD_BYTES]);
        assert_eq!((*start, *length), (9, Some(long.len() as u64 + 2)));
        assert_eq!(found[2].0, b"{\"b\":2}");
    }
}

#[test]
fn an_object_is_one_event_until_the_key_of_the_list_is_seen() {
    let events = |body: &str| in_pieces(body.as_bytes(), Form::Any, 1000, &[3]);
    let (found, fault) = events("\u{feff} {\"input\":\"a\",\"n\":[{}]} ");
    assert_eq!(fault, None);
    assert_eq!(found, [(b"{\"input\":\"a\",\"n\":[{}]}".to_vec(), 4, None)]);
    let (found, _) = events("{\"input\":\"a\",\"batched\\u005flog_events\":[1,2],\"z\":{}}");
    assert_eq!(found.len(), 2);
    let (found, fault) = events("{\"input\":\"a\"} x");
    assert_eq!((found.len(), fault.map(|fault| fault.byte)), (1, Some(14)));
}

#[test]
fn a_byte_order_mark_may_stand_before_the_body_and_nowhere_else() {
    for (body, is_good) in [
        (&b"\xef\xbb\xbf[1]"[..], true),
        (b"\xef\xbb\xbf \n[1]", true),
        (b" \xef\xbb\xbf[1]", false),
        (b"\xef\xbb[1]", false),
        (b"\xef\xbb\xbf\xef\xbb\xbf[1]", false),
        (b"[1]\xef\xbb\xbf", false),
    ] {
        for size in [1, 100] {
            let (_, fault) = in_pieces(body, Form::Any, 100, &[size]);
            assert_eq!(fault.is_none(), is_good, "{body:?}");
        }
    }
    let empty = split_whole(b"\xef\xbb\xbf", Form::Any, 9, 9);
    assert!(matches!(empty, Err(BodyError::Empty { .. })), "{empty:?}");
}

#[test]
fn a_key_that_only_begins_like_that_of_the_list_is_another_one() {
    for key in [
        "batched_log_events2",
        "batched_log_event",
        "\\u0062atched_log_eventsss",
        &"\\u0062".repeat(30),
    ] {
        let body = format!("{{\"{key}\":[1]}}");
        assert!(
            matches!(texts(&body, Form::Batch), Err(BodyError::NoList { .. })),
            "{key}"
        );
    }
    let escaped: String = BATCH_KEY
        .chars()
        .map(|c| format!("\\u{:04x}", c as u32))
        .collect();
    assert_eq!(
        texts(&format!("{{\"{escaped}\":[1]}}"), Form::Batch).expect("the key"),
        ["1"]
    );
}

#[test]
fn more_events_than_are_kept_at_once_are_checked_all_the_same() {
    let count = |body: &[u8]| {
        let events = split_whole(body, Form::Any, 100, 2)?;
        Ok(events.map(|events| events.len()))
    };
    assert_eq!(count(b"[1,2,3]"), Ok(None));
    assert_eq!(count(b"[1,2]"), Ok(Some(2)));
    assert!(matches!(count(b"[1,2,3,"), Err(BodyError::Malformed { .. })));
}

/// Bodies of all kinds of members and elements, good and bad.
fn bodies() -> impl Strategy<Value = String> {
    let element = prop_oneof![
        4 => "\\{\"[a-e\\\\\\[\\],]{0,6}\":(1|\"[\\]\\},é]{0,4}\"|\\[1,\\{\\}\\]|null)\\}",
        1 => Just("[[\"\\\\\"],{\"a\":{}}]".to_owned()),
        1 => Just("NaN".to_owned()),
        1 => Just("{\"a\":-Infinity}".to_owned()),
        1 => "[0-9a-z\"' \\\\{}\\[\\],:]{0,6}",
        1 => Just(String::new()),
    ];
    let list = (prop::collection::vec((element, "[ \n]{0,2}"), 0..6)).prop_map(|elements| {
        let texts: Vec<String> = elements
            .into_iter()
            .map(|(text, blank)| format!("{blank}{text}{blank}"))
            .collect();
        format!("[{}]", texts.join(","))
    });
    let key = prop_oneof![
        Just("\"batched_log_events\"".to_owned()),
        Just("\"batched\\u005flog_events\"".to_owned()),
        "\"[a-b\\]{}]{0,3}\"",
    ];
    let member = (key, "[ \t]{0,1}", list.clone(), any::<bool>()).prop_map(|(key, blank, list, is_list)| {
        let value = if is_list {
            list
        } else {
            "{\"x\":[\"]\"]}".to_owned()
        };
        format!("{blank}{key}{blank}:{value}")
    });
    let object = prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(",")));
    (
        prop_oneof![Just(""), Just("\u{feff}"), Just(" \r\n")],
        prop_oneof![3 => object, 2 => list, 1 => "[\\[\\]{}\",:a1 \\\\]{0,20}"],
        prop_oneof![8 => Just(""), 1 => Just("\n "), 1 => Just("x")],
    )
        .prop_map(|(before, value, after)| format!("{before}{value}{after}"))
}

proptest! {
    #[test]
    fn in_which_pieces_a_body_comes_makes_no_difference(
        body in bodies(), cut in 0usize..200, hold in 1usize..40,
        sizes in prop::collection::vec(1usize..12, 1..5),
    ) {
        let body = &body.as_bytes()[..cut.max(1).min(body.len())];
        for form in [Form::Batch, Form::Any] {
            let whole = in_pieces(body, form, hold, &[body.len().max(1)]);
            prop_assert_eq!(in_pieces(body, form, hold, &sizes), whole);
        }
    }

    #[test]
    fn a_body_that_is_json_is_cut_as_serde_json_cuts_it(body in bodies()) {
        let text = body.strip_prefix('\u{feff}').unwrap_or(&body);
        prop_assume!(serde_json::from_str::<IgnoredAny>(text).is_ok());
        for form in [Form::Batch, Form::Any] {
            match (by_serde(text, form), texts(&body, form)) {
                (Some(expected), found) => prop_assert_eq!(found.expect("cut"), expected),
                (None, found) => prop_assert!(found.is_err()),
            }
        }
    }
}
