use super::*;
use proptest::prelude::*;

const UUID: Uuid = Uuid::from_u128(0x0123_4567_89ab_4cde_8123_4567_89ab_cdef);
const UUID_TEXT: &str = "01234567-89ab-4cde-8123-456789abcdef";

fn parse(raw: &str) -> Result<Event, Refusal> {
    let project = ProjectId::new("proj").expect("valid");
    Event::parse(
        raw.as_bytes(),
        &Stamps {
            project: Some(&project),
            now_s: 1_700_000_000,
            task: UUID,
        },
    )
}

fn refusal(raw: &str) -> String {
    parse(raw).expect_err(raw).to_string()
}

/// An event that has `input` and the one field in question (which may be `input` again: the last counts).
fn with(field: &str, value: &str) -> Result<Event, Refusal> {
    parse(&format!(r#"{{"input":"i","{field}":{value}}}"#))
}

#[test]
fn every_row_of_the_contracts_field_table_is_held() {
    let values = [
        "null",
        "true",
        "1",
        "1.0",
        "1e3",
        "-5",
        r#""""#,
        r#""text""#,
        "{}",
        r#"{"a":1}"#,
        "[]",
        "[1]",
        "[null]",
        r#"["a","b"]"#,
        "[{},{}]",
        r#"["a",{}]"#,
        r#"["a",null]"#,
        "[{},null]",
        "[[]]",
        r#""success""#,
    ];
    let text = vec![r#""""#, r#""text""#, r#""success""#];
    let text_or_null = [vec!["null"], text.clone()].concat();
    let raw_input = [
        text_or_null.clone(),
        vec!["{}", r#"{"a":1}"#, "[]", r#"["a","b"]"#, "[{},{}]"],
    ]
    .concat();
    let raw_output = [raw_input.clone(), vec!["[null]", r#"["a",null]"#, "[{},null]"]].concat();
    let table: &[(&[&str], Vec<&str>)] = &[
        (&["input", "environment"], text.clone()),
        (&["task_id"], vec![r#""text""#, r#""success""#]), // The API takes "" too, but events would share it.
        (
            &[
                "output",
                "project_id",
                "session_id",
                "user_id",
                "version_id",
                "step_id",
            ],
            text_or_null.clone(),
        ),
        (
            &["test_id", "raw_input_type_name", "raw_output_type_name"],
            text_or_null.clone(),
        ),
        (&["client_created_at"], vec!["1", "-5"]),
        (&["created_at", "last_update"], vec!["null", "1", "-5"]),
        (&["flag"], vec!["null", r#""success""#]),
        (&["metadata"], vec!["null", "{}", r#"{"a":1}"#]),
        (&["raw_input"], raw_input),
        (&["raw_output"], raw_output),
        (&["anything_else", "notes", "data"], values.to_vec()),
    ];
    let mut seen = Vec::new();
    for (fields, taken) in table {
        for field in *fields {
            seen.push(*field);
            for value in values {
                let result = with(field, value);
                assert_eq!(
                    result.is_ok(),
                    taken.contains(&value),
                    "{field}: {value} gave {result:?}"
                );
                if let Err(refusal) = result {
                    assert!(
                        refusal.to_string().contains(field),
                        "{refusal} does not name {field}"
                    );
                }
            }
        }
    }
    for row in &rules::ALL {
        assert!(seen.contains(&row.name), "{} is not in this table", row.name);
    }
}

#[test]
fn the_fields_that_are_read_stand_where_the_table_has_them() {
    for (field, name) in [
        (Field::ProjectId, "project_id"),
        (Field::TaskId, "task_id"),
        (Field::ClientCreatedAt, "client_created_at"),
        (Field::SessionId, "session_id"),
    ] {
        assert_eq!(rules::ALL[field as usize].name, name);
    }
}

#[test]
fn a_refusal_names_the_field_what_came_and_what_is_wanted() {
    assert_eq!(refusal(r#"{"output":"o"}"#), "input is missing: send a string");
    assert_eq!(refusal(r#"{"input":7}"#), "input is an integer: send a string");
    assert_eq!(
        with("client_created_at", "1.0").expect_err("float").to_string(),
        "client_created_at is a number with a fraction or an exponent: send whole seconds since 1970 as an integer, or leave it out"
    );
    assert_eq!(
        with("flag", r#""bad""#).expect_err("flag").to_string(),
        "flag is another string: send \"success\", \"failure\" or null"
    );
    assert_eq!(
        with("raw_input", "[null]").expect_err("list").to_string(),
        "raw_input is a list that holds null: send null, a string, an object, a list of objects or a list of strings"
    );
    assert_eq!(
        refusal("[]"),
        "it is a list: send a JSON object, such as {\"input\": \"hello\"}"
    );
    assert_eq!(
        refusal("{\"input\":\"a\",\n \"x\" 1}"),
        "it is not valid JSON at line 2, column 6 (byte 19): expected `:`: mend it and send it again"
    );
}

#[test]
fn a_task_id_that_events_would_share_is_refused_with_the_reason() {
    for id in [
        r#""""#,
        r#""undefined""#,
        r#""$TASK_ID""#,
        r#""${TASK_ID}""#,
        r#""null""#,
        r#""[object Object]""#,
    ] {
        let sentence = with("task_id", id).expect_err(id).to_string();
        assert!(
            sentence.ends_with(
                "keeps only the first of all events with one task_id, so the others would be lost"
            )
        );
        assert!(id == r#""""# || sentence.contains("variable"), "{sentence}");
    }
    // No URL can name these, but the API stores them.
    for id in [r#""order/17""#, r#"".""#, r#""..""#] {
        assert!(with("task_id", id).is_ok(), "{id}");
    }
}

#[test]
fn what_is_absent_is_stamped_behind_the_opening_brace_and_nothing_else_changes() {
    let event = parse(" { \"input\" : \"a\" , \"n\":1.10e+40 }\n").expect("valid");
    let expected = format!(
        r#"{{"task_id":"{UUID_TEXT}","client_created_at":1700000000,"project_id":"proj", "input" : "a" , "n":1.10e+40 }}"#
    );
    assert_eq!(String::from_utf8_lossy(event.json()), expected);
    assert_eq!(
        (event.task().as_str(), event.project().as_str()),
        (UUID_TEXT, "proj")
    );
    assert_eq!(event.session(), None);

    let own =
        r#"{"input":"a","project_id":"mine","task_id":"t/1","client_created_at":12,"session_id":"s\n"}"#;
    let event = parse(own).expect("valid");
    assert_eq!(event.json(), own.as_bytes());
    assert_eq!((event.task().as_str(), event.project().as_str()), ("t/1", "mine"));
    assert_eq!(event.session(), Some("s\n"));
}

#[test]
fn a_null_or_empty_project_is_left_as_sent_and_the_given_one_chosen() {
    for own in ["null", r#""""#] {
        let event = with("project_id", own).expect("valid");
        assert_eq!(event.project().as_str(), "proj");
        let json = String::from_utf8_lossy(event.json()).into_owned();
        assert_eq!(json.matches("project_id").count(), 1, "{json}");
        assert!(json.ends_with(&format!(r#""project_id":{own}}}"#)), "{json}");
    }
}

#[test]
fn without_any_project_the_refusal_names_the_remedies_and_can_be_told_apart() {
    let stamps = Stamps {
        project: None,
        now_s: 1,
        task: UUID,
    };
    let refusal = Event::parse(br#"{"input":"a"}"#, &stamps).expect_err("no project");
    assert!(refusal.is_no_project());
    assert!(refusal.to_string().contains("upstream.project_id"), "{refusal}");
    assert!(refusal.to_string().contains("/v2/log/{project_id}"), "{refusal}");
    let own = Event::parse(br#"{"input":"a","project_id":"mine"}"#, &stamps).expect("own project");
    assert_eq!(own.project().as_str(), "mine");
}

#[test]
fn of_a_doubled_key_the_last_counts_as_in_the_api() {
    assert_eq!(
        with("input", "1").expect_err("last is wrong").to_string(),
        "input is an integer: send a string"
    );
    let event = parse(r#"{"input":1,"task_id":"a","input":"i","task\u005fid":"b"}"#).expect("last is right");
    assert_eq!(event.task().as_str(), "b");
    assert_eq!(task_of(event.json()), TaskId::new("b").ok());
}

#[test]
fn what_can_never_be_stored_is_refused_with_its_place_and_the_remedy() {
    let depth = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for (field, value, sentence) in [
        (
            "session_id",
            r#""\ud83d""#,
            "session_id holds half a surrogate pair (a \\ud83d without its \\ude00) at byte 27, which the API can never \
             store: send whole characters",
        ),
        (
            "metadata",
            r#"{"a\u0000":1}"#,
            "metadata has a key with a NUL character (\\u0000) at byte 27, which the API can never store: rename the key",
        ),
        (
            "metadata",
            r#"{"n":9223372036854775808}"#,
            "metadata holds an integer beyond signed 64 bits at byte 29, which the API can never store: send it as a string",
        ),
        (
            "created_at",
            "9223372036854775808",
            "created_at holds an integer beyond signed 64 bits at byte 26, which the API can never store: send it as a string",
        ),
        (
            "secret name",
            "[1e400]",
            "it holds a number beyond a double's range, such as 1e400 at byte 28, which the API can never store: send it \
             as a string",
        ),
        (
            "raw_output",
            &format!(r#"{{"a":{depth}}}"#),
            "raw_output is nested over 200 deep at byte 229, which the API can never store: send it flatter, or as a string",
        ),
    ] {
        assert_eq!(with(field, value).expect_err(value).to_string(), sentence);
    }
    let key = parse(r#"{"input":"i","\ud83dx":1}"#)
        .expect_err("a key")
        .to_string();
    assert!(key.starts_with("it holds half a surrogate pair"), "{key}");
}

#[test]
fn times_in_milliseconds_far_ahead_or_before_1970_are_kept_and_told() {
    let day = 24 * 3600;
    for (time, odd) in [
        (0, false),
        (1_700_000_000 + day, false),
        (1_700_000_000 + day + 1, true),
        (1_700_000_000_000, true),
        (-1, true),
        (i64::MIN, true),
    ] {
        for field in ["client_created_at", "created_at", "last_update"] {
            let event = with(field, &time.to_string()).expect("it is kept");
            assert_eq!(event.has_odd_time(), odd, "{field}: {time}");
        }
    }
    for event in [
        parse(r#"{"input":"i"}"#),
        with("created_at", "null"),
        with("metadata", r#"{"created_at":-1}"#),
    ] {
        assert!(!event.expect("valid").has_odd_time());
    }
}

#[test]
fn a_hundred_thousand_open_brackets_overflow_no_stack() {
    let deep = |n: usize| format!(r#"{{"input":"a","x":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    assert!(refusal(&deep(100_000)).contains("nested over 200 deep"));
    let raw_input = format!(
        r#"{{"input":"a","raw_input":[{}1{}]}}"#,
        "{\"a\":".repeat(50_000),
        "}".repeat(50_000)
    );
    assert!(refusal(&raw_input).contains("nested over 200 deep"));
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(parse(&"{\"a\":".repeat(100_000)).is_err());
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_with_their_place() {
    let stamps = Stamps {
        project: None,
        now_s: 1,
        task: UUID,
    };
    let refusal = Event::parse(b" {\"input\":\"\xff\"}", &stamps).expect_err("not UTF-8");
    assert_eq!(refusal, Refusal::Utf8(11));
}

#[test]
fn task_and_project_are_read_back_from_a_record() {
    let record = parse(r#"{"input":"a"}"#).expect("valid").into_json();
    assert_eq!(task_of(&record).map(|t| t.to_string()), Some(UUID_TEXT.into()));
    assert_eq!(project_of(&record).map(|p| p.to_string()), Some("proj".into()));
    assert_eq!(task_of(b"not JSON"), None);
    assert_eq!(project_of(br#"{"input":3,"project_id":4}"#), None);
}

/// JSON text with odd spacing and number tokens of every spelling, for which parsing and writing anew would show.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?",
        ".*".prop_map(|text| serde_json::to_string(&text).expect("text")),
        r#""(\\u[0-9a-c][0-9a-f]{3}|\\ud83d\\ude00|\\n|\\/|😀|ü){0,5}""#,
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let spaced = ("[ \t\n]{0,2}", inner).prop_map(|(space, value)| format!("{space}{value}{space}"));
        prop_oneof![
            prop::collection::vec(spaced.clone(), 0..5).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec(("[a-z_]{1,12}", spaced), 0..5).prop_map(|fields| object(&fields)),
        ]
    })
}

fn object(fields: &[(String, String)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("\"{key}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(" ,\t"))
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        before in prop::collection::vec(("x_[a-z]{0,8}", json_text()), 0..5),
        after in prop::collection::vec(("x_[a-z]{0,8}", json_text()), 0..5),
        own in prop::collection::vec(prop::sample::select(vec!["task_id", "project_id", "client_created_at"]), 0..3),
        input in ".*",
        space in "[ \t\r\n]{0,3}",
    ) {
        let mut fields = before;
        for key in &own {
            let value = if *key == "client_created_at" { "12" } else { "\"own\"" };
            fields.push(((*key).to_owned(), value.to_owned()));
        }
        fields.push(("input".to_owned(), serde_json::to_string(&input).expect("text")));
        fields.extend(after);
        let sent = object(&fields);
        let event = parse(&format!("{space}{sent}{space}")).expect(&sent);

        let mut stamps = Vec::new();
        if !own.contains(&"task_id") {
            stamps.push(format!("\"task_id\":\"{UUID_TEXT}\""));
        }
        if !own.contains(&"client_created_at") {
            stamps.push("\"client_created_at\":1700000000".to_owned());
        }
        if !own.contains(&"project_id") {
            stamps.push("\"project_id\":\"proj\"".to_owned());
        }
        stamps.push(sent[1..].to_owned());
        prop_assert_eq!(String::from_utf8_lossy(event.json()), format!("{{{}", stamps.join(",")));
        prop_assert_eq!(task_of(event.json()), Some(event.task().clone()));
        let again = parse(&String::from_utf8_lossy(event.json())).expect("a stamped event is an event");
        prop_assert_eq!(again.json(), event.json());
    }

    #[test]
    fn no_bytes_make_parsing_panic(
        raw in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            r#"[{}\[\]",:\\a-f0-9. \n"]{0,60}"#.prop_map(String::into_bytes),
            json_text().prop_map(String::into_bytes),
        ],
        cut in any::<prop::sample::Index>(),
    ) {
        let project = ProjectId::new("proj").expect("valid");
        let stamps = Stamps { project: Some(&project), now_s: 0, task: UUID };
        for part in [&raw[..], &raw[..cut.index(raw.len() + 1)]] {
            if let Err(refusal) = Event::parse(part, &stamps) {
                prop_assert!(!refusal.to_string().is_empty());
            }
            task_of(part);
        }
    }
}

#[test]
fn a_stored_record_names_the_project_that_it_is_moved_to_and_stays_as_it_was() {
    let to = ProjectId::new("new \"p\"").expect("an id");
    for (record, moved) in [
        (
            r#"{"project_id":"old","input":"a"}"#,
            r#"{"project_id":"new \"p\"","input":"a"}"#,
        ),
        (
            r#"{"a": 1.50, "project_id" : "old" ,"metadata":{"project_id":"old"}}"#,
            r#"{"a": 1.50, "project_id" : "new \"p\"" ,"metadata":{"project_id":"old"}}"#,
        ),
        (
            r#"{"project_id":"x","project_id":"y"}"#,
            r#"{"project_id":"new \"p\"","project_id":"new \"p\""}"#,
        ),
        (r#"{"project_\u0069d":"o"}"#, r#"{"project_\u0069d":"new \"p\""}"#),
        (
            r#"{"project_id":null,"input":"a"}"#,
            r#"{"project_id":null,"input":"a"}"#,
        ),
        (
            r#"{"project_id":"","input":"a"}"#,
            r#"{"project_id":"","input":"a"}"#,
        ),
        (r#"{"input":"a"}"#, r#"{"input":"a"}"#),
        ("no JSON", "no JSON"),
    ] {
        let told = String::from_utf8(with_project(record.as_bytes(), &to)).expect("text");
        assert_eq!(told, moved);
    }
}
