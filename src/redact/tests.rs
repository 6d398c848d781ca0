use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn rules() -> Rules {
    Rules {
        detect: Detector::ALL.to_vec(),
        hash_key: HashKey::new(KEY),
        ..Rules::default()
    }
}

fn redactor(rules: Rules) -> Redactor {
    Redactor::new(rules).expect("the rules are right")
}

fn paths(texts: &[&str]) -> Vec<FieldPath> {
    texts
        .iter()
        .map(|text| FieldPath::parse(text).expect(text))
        .collect()
}

fn own(name: &str, regex: &str, action: Action) -> OwnRule {
    OwnRule {
        name: name.into(),
        regex: regex.into(),
        fields: Vec::new(),
        action,
    }
}

/// The event as it is stored; checked to be stable.
fn apply(redactor: &Redactor, event: &str) -> String {
    let Some(altered) = redactor.apply(event.as_bytes()) else {
        return event.to_owned();
    };
    assert_eq!(
        redactor.apply(&altered),
        None,
        "once is enough: {}",
        String::from_utf8_lossy(&altered)
    );
    String::from_utf8(altered).expect("it stays text")
}

fn applied(event: &str) -> String {
    apply(&redactor(rules()), event)
}

#[test]
fn only_finds_change_and_all_else_stays_byte_for_byte() {
    assert_eq!(
        applied(
            r#" { "input" : "a\u0062\/ bob@example.com \n","n": 1.50 , "metadata":{"l":["10.0.0.1", 1e400],"k@b.co":null} } "#
        ),
        r#" { "input" : "a\u0062\/ [email] \n","n": 1.50 , "metadata":{"l":["[ip]", 1e400],"k@b.co":null} } "#
    );
    for untouched in [r#"{"input":"nothing here","n":[1,2]}"#, "{}", "", "7", "null"] {
        assert_eq!(redactor(rules()).apply(untouched.as_bytes()), None, "{untouched}");
    }
}

#[test]
fn what_is_escaped_is_found_all_the_same() {
    assert_eq!(
        applied(r#"{"input":"bob\u0040example.com"}"#),
        r#"{"input":"[email]"}"#
    );
    assert_eq!(
        applied(r#"{"input":"{\"mail\":\"bob@example.com\"}"}"#),
        r#"{"input":"{\"mail\":\"[email]\"}"}"#
    );
    assert_eq!(
        applied(r#"{"input":"tel\n+33612345678\t!"}"#),
        r#"{"input":"tel\n[phone]\t!"}"#
    );
    assert_eq!(
        applied(r#"{"input":"\ud83d bob@example.com"}"#),
        r#"{"input":"\ud83d [email]"}"#
    );
}

#[test]
fn ids_and_the_flag_are_sent_as_they_came_but_nothing_below_that_only_bears_their_name() {
    let event = r#"{"task_id":"a@b.co","session_id":"a@b.co","project_id":"a@b.co","version_id":"1.2.3.4","flag":"success",
        "user_id":"a@b.co","client_created_at":1700000000,"task\u005fid":"a@b.co"}"#;
    assert_eq!(applied(event), event);
    assert_eq!(
        applied(
            r#"{"metadata":{"task_id":"a@b.co","user_id":"a@b.co"},"task_id":["a@b.co"],"flag":"a@b.co"}"#
        ),
        r#"{"metadata":{"task_id":"[email]","user_id":"[email]"},"task_id":["[email]"],"flag":"[email]"}"#
    );
}

#[test]
fn fields_narrow_what_is_looked_at() {
    let narrow = redactor(Rules {
        fields: paths(&["input", "metadata.*.mail", "user_id"]),
        ..rules()
    });
    assert_eq!(
        apply(
            &narrow,
            r#"{"input":"a@b.co","output":"a@b.co","user_id":"a@b.co","metadata":{"x":{"mail":["a@b.co"],"m":"a@b.co"}}}"#
        ),
        r#"{"input":"[email]","output":"a@b.co","user_id":"[email]","metadata":{"x":{"mail":["[email]"],"m":"a@b.co"}}}"#
    );
    // No path could name it.
    assert_eq!(apply(&narrow, r#"["a@b.co"]"#), r#"["[email]"]"#);
    assert_eq!(apply(&narrow, r#""a@b.co""#), r#""[email]""#);
}

#[test]
fn hashes_tell_equal_texts_and_hide_them_without_the_key() {
    let hashing = |key: &[u8]| {
        redactor(Rules {
            action: Action::Hash,
            hash_key: HashKey::new(key),
            ..rules()
        })
    };
    let event = r#"["a@b.co","a@b.co","c@b.co"]"#;
    let hashed: Vec<String> = serde_json::from_str(&apply(&hashing(KEY), event)).expect("JSON");
    assert_eq!(hashed[0], hashed[1]);
    assert_ne!(hashed[0], hashed[2]);
    // HMAC-SHA256, as openssl dgst -sha256 -hmac computes it.
    assert_eq!(hashed[0], "[email:c2c76670c5641637]");
    let other: Vec<String> = serde_json::from_str(&apply(&hashing(&[7; 32]), event)).expect("JSON");
    assert_ne!(hashed[0], other[0]);
    assert!(
        !format!("{:?}", hashing(KEY)).contains("30, 31"),
        "the key does not show itself"
    );
}

#[test]
fn drop_empties_a_text_and_drop_fields_leaves_members_out() {
    let dropping = redactor(Rules {
        action: Action::Drop,
        drop_fields: paths(&["metadata.a", "metadata.*.deep", "raw_input"]),
        ..rules()
    });
    assert_eq!(
        apply(&dropping, r#"{"input":"call a@b.co","output":"fine"}"#),
        r#"{"input":"","output":"fine"}"#
    );
    for (event, left) in [
        (r#"{"metadata":{"a":1,"b":2}}"#, r#"{"metadata":{"b":2}}"#),
        (
            r#"{"metadata":{"b":2 , "a":[1,{"a":"]"}] }}"#,
            r#"{"metadata":{"b":2  }}"#,
        ),
        (r#"{"metadata":{ "a":"x,}" }}"#, r#"{"metadata":{ }}"#),
        (r#"{"metadata":{"a":1,"a":2}}"#, r#"{"metadata":{}}"#),
        (r#"{"metadata":{"c":1,"a":1,"a":2}}"#, r#"{"metadata":{"c":1}}"#),
        (
            r#"{"metadata":{"l":[{"deep":1},{"x":1}]}}"#,
            r#"{"metadata":{"l":[{"deep":1},{"x":1}]}}"#,
        ),
        (
            r#"{"metadata":[{"deep":1},{"x":1}]}"#,
            r#"{"metadata":[{},{"x":1}]}"#,
        ),
        (r#"{"raw_input":{"a":[[]]},"input":"x"}"#, r#"{"input":"x"}"#),
        (r#"{"input":"x","raw\u005finput":null}"#, r#"{"input":"x"}"#),
    ] {
        let of = apply(&dropping, event);
        assert_eq!(of, left, "{event}");
        serde_json::from_str::<Value>(&of).expect("it stays JSON");
    }
}

#[test]
fn own_rules_look_and_act_for_themselves() {
    let with = redactor(Rules {
        own: vec![
            OwnRule {
                fields: paths(&["input"]),
                ..own("ticket", "TICKET-[0-9]+", Action::Replace)
            },
            own("staff", "(?i)ada lovelace", Action::Hash),
        ],
        ..rules()
    });
    let of = apply(
        &with,
        r#"{"input":"TICKET-42 of Ada Lovelace, a@b.co","output":"TICKET-42"}"#,
    );
    assert!(of.starts_with(r#"{"input":"[ticket] of [staff:"#), "{of}");
    assert!(of.ends_with(r#"], [email]","output":"TICKET-42"}"#), "{of}");
    assert_eq!(with.names().last(), Some("drop_fields"));
}

#[test]
fn a_rule_that_drops_does_so_also_where_the_find_of_another_begins_before_its_own() {
    let with = redactor(Rules {
        own: vec![own("corp", "@corp\\.example", Action::Drop)],
        ..rules()
    });
    assert_eq!(
        apply(&with, r#"{"input":"ask bob@corp.example about the merger"}"#),
        r#"{"input":""}"#
    );
    assert_eq!(apply(&with, r#"["bob@b.example"]"#), r#"["[email]"]"#);
}

#[test]
fn what_is_no_json_does_not_become_it_by_losing_its_fault() {
    let with = redactor(Rules {
        drop_fields: paths(&["a", "m.a"]),
        own: vec![own("all", "(?s)all .*", Action::Replace)],
        ..rules()
    });
    for broken in [
        r#"{"input":"x","m":{"a": }}"#,
        r#"{"input":"x","a":nonsense}"#,
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"input":"x" "a":1}"#,
        r#"{"input":"x","a":1 2}"#,
        r#"{"input":"x","a":[}]}"#,
        r#"{"input":"x","a"::1}"#,
        r#"{"input":"all \q"}"#,
        "{\"input\":\"all \u{1}\"}",
        "{\"a\":1\u{c},\"input\":\"x\"}",
        "{\"input\":\"x\",\u{c}\"a\":1}",
        r#"{} "a@b.co \q""#,
    ] {
        let is_json = |text: &[u8]| serde_json::from_slice::<Value>(text).is_ok();
        assert!(!is_json(broken.as_bytes()), "{broken}");
        let left = apply(&with, broken);
        assert!(!is_json(left.as_bytes()), "{broken} became {left}");
        assert!(!left.contains("nonsense") && !left.contains("a@b.co"), "{left}");
    }
}

#[test]
fn the_blanks_before_what_is_left_out_go_with_it() {
    let with = redactor(Rules {
        drop_fields: paths(&["a"]),
        ..rules()
    });
    assert_eq!(
        apply(&with, "{ \"a\":1, \"input\":\"x\" }"),
        "{ \"input\":\"x\" }"
    );
    assert_eq!(
        apply(&with, "{\"input\":\"x\" , \"a\":1 }"),
        "{\"input\":\"x\"  }"
    );
    // Were they looked through again with each member, this would take hours.
    let blanks = " ".repeat(8 << 20);
    let members = r#""a":1,"#.repeat(1_000_000);
    let many = format!(r#"{{{blanks}{members}"input":"x"}}"#);
    assert_eq!(apply(&with, &many), r#"{"input":"x"}"#);
}

#[test]
fn finds_that_overlap_leave_one_mark_and_marks_are_no_finds() {
    assert_eq!(
        applied(r#"["https://bob:hunter22@example.com/"]"#),
        r#"["https://bob:[email]/"]"#
    );
    assert_eq!(
        applied(r#"["[phone] and [email:4111111111111111]"]"#),
        r#"["[phone] and [email:4111111111111111]"]"#
    );
    let greedy = redactor(Rules {
        own: vec![own("all", "(?s).+", Action::Replace)],
        ..rules()
    });
    assert_eq!(apply(&greedy, r#"["x [email] y"]"#), r#"["[all][email][all]"]"#);
}

#[test]
fn a_text_with_more_finds_than_can_be_looked_at_is_masked_as_a_whole() {
    let digits = redactor(Rules {
        own: vec![own("digit", "[0-9]", Action::Replace)],
        ..Rules::default()
    });
    let few = apply(&digits, &json!(["1a".repeat(3)]).to_string());
    assert_eq!(few, r#"["[digit]a[digit]a[digit]a"]"#);
    let many = apply(&digits, &json!(["1a".repeat(10_001)]).to_string());
    assert_eq!(many, r#"["[digit]"]"#);
}

#[test]
fn depth_and_what_is_no_json_do_no_harm() {
    let deep = format!(r#"{}"a@b.co"{}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(applied(&deep), deep.replace("a@b.co", "[email]"));
    let objects = format!(r#"{}"a@b.co"{}"#, r#"{"k":"#.repeat(1000), "}".repeat(1000));
    assert_eq!(applied(&objects), objects.replace("a@b.co", "[email]"));
    let all = redactor(Rules {
        drop_fields: paths(&["*"]),
        ..rules()
    });
    for broken in [
        r#"{"a@b.co"#,
        r#"{"a":"#,
        r#"{"a""#,
        "}}]]",
        r#"{"a\"#,
        r#"["\u12"]"#,
        r#"{"a" : }"#,
        "{\"a\":[[\"",
        ",,,",
        "\"\\",
    ] {
        all.apply(broken.as_bytes());
    }
    assert_eq!(all.apply(b"[\"a@b.co\xff\"]"), None, "it is never stored");
}

#[test]
fn rules_that_cannot_be_followed_say_why() {
    let fault = |rule: OwnRule| {
        let rules = Rules {
            own: vec![rule],
            ..Rules::default()
        };
        Redactor::new(rules)
            .expect_err("it cannot be followed")
            .to_string()
    };
    for (regex, told) in [
        ("(", "unclosed group: write it in the syntax"),
        ("(?=x)", "look-around"),
        ("a*", "fits an empty text"),
        ("(?:\\w{1000}){1000}", "size limit"),
    ] {
        let sentence = fault(own("x", regex, Action::Replace));
        assert!(sentence.contains(told) && !sentence.contains('\n'), "{sentence}");
    }
    assert!(fault(own("x", "a", Action::Hash)).contains("redact.hash_key_file"));
    let hash = Rules {
        action: Action::Hash,
        hash_key: None,
        ..rules()
    };
    assert_eq!(Redactor::new(hash), Err(RuleError::NoKey { rule: None }));
    assert!(HashKey::new(b" short\n").is_none());
}

/// Strings that hold secrets, near misses and anything else, as JSON may write them.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("bob@example.com"),
        Just("+33 6 12 34 56 78"),
        Just("4111 1111 1111 1111"),
        Just("sk-abcdefghijklmnop0123"),
        Just("DE89370400440532013000"),
        Just("203.0.113.7"),
        Just("2001:db8::1"),
        Just("1.2.3"),
        Just("2024-01-15"),
        Just("[email]"),
        Just("[ip:0123456789012345]"),
        Just("password: "),
        Just("api_key='"),
        Just("\"secret\":\""),
        Just("redis://:a@b/"),
        Just("-----BEGIN PRIVATE KEY-----"),
        Just("\\u0022"),
        Just("\\u005c"),
        Just("%22"),
        Just("\\"),
        Just(","),
        Just("}"),
        Just(" "),
        Just("é😀"),
        Just("\"\\\n"),
        Just("7"),
        Just("x"),
        Just("-"),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null)
    ];
    value_of(leaf)
}

fn value_of(leaf: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-c]|password", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The same structure with every string made the same.
fn shape(value: &Value) -> Value {
    match value {
        Value::String(_) => json!(""),
        Value::Array(list) => list.iter().map(shape).collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), shape(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// What hostile texts repeat: the beginnings of many finds, and finds.
const HOSTILE: [&str; 34] = [
    "@",
    "7",
    "eyJ",
    "\\",
    "\\n",
    "\\\\n4",
    "\\\"",
    "\\u005c",
    "\\ud83d",
    "%",
    "%25",
    "%0A4",
    "%C3",
    "\u{1b}[1",
    ":",
    "a=",
    "password=",
    "password:",
    "password='",
    "password:\"a ",
    "\"password\":'",
    "\\\"password\\\":\\\"\\\\\\\"a",
    "pwd=/",
    "password=a.",
    "api_key = ",
    "passwords=['a',",
    "://",
    "://a:b",
    "://a:b@",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY----------END",
    "Basic YTpi ",
    "password: http://",
    "[email]",
];

#[test]
fn the_work_grows_as_the_text_does() {
    let redactor = redactor(rules());
    let steps = |text: &str| {
        let event = json!({"input": text, "password": text}).to_string();
        steps::taken(|| {
            redactor.apply(event.as_bytes());
        })
    };
    // A text of its own ends each, so that what is looked for is found at the far end or nowhere.
    for end in ["", "(", "\"", "@"] {
        for part in HOSTILE {
            let text = |bytes: usize| part.repeat(bytes / part.len()) + end;
            let (once, twice) = (steps(&text(1 << 16)), steps(&text(1 << 17)));
            assert!(
                2 * once + once / 4 + 1024 >= twice,
                "{part} {end}: {once}, {twice}"
            );
            assert!(twice <= (1 << 17) * 40, "{part} {end}: {twice}");
        }
    }
}

proptest! {
    #[test]
    fn json_within_strings_stays_json_of_the_same_shape_however_deep(
        value in value_of(prop_oneof![text().prop_map(Value::from), Just(json!(7)), Just(Value::Null)]),
        depth in 1_usize..5,
        hash: bool,
    ) {
        let action = if hash { Action::Hash } else { Action::Replace };
        let redactor = redactor(Rules { action, ..rules() });
        let event = (0..depth).fold(value.clone(), |inner, _| json!({"a": inner.to_string()}));
        let after = apply(&redactor, &event.to_string());
        let mut read: Value = serde_json::from_str(&after).expect("it stays JSON");
        for _ in 0..depth {
            let inner = read["a"].as_str().expect("a text");
            read = match serde_json::from_str(inner) {
                Ok(read) => read,
                Err(error) => panic!("{error}: {inner}"),
            };
        }
        prop_assert_eq!(shape(&read), shape(&value));
    }

    #[test]
    fn it_stays_json_of_the_same_shape_and_once_is_enough(value in value(), hash: bool) {
        let action = if hash { Action::Hash } else { Action::Replace };
        let redactor = redactor(Rules { action, ..rules() });
        let event = value.to_string();
        let after = apply(&redactor, &event);
        let read: Value = serde_json::from_str(&after).expect("it stays JSON");
        prop_assert_eq!(shape(&read), shape(&value));
    }

    #[test]
    fn nothing_of_a_planted_secret_is_left(before in "[ ,;(<\"]{0,3}", after in "[ ,;)>!\"]{0,3}", secret in prop_oneof![
        "[a-z]{1,8}[.+_][a-z0-9]{1,8}@[a-z]{1,8}\\.(com|co\\.uk|fr)",
        "\\+[1-9][0-9]{10,12}",
        "sk-[A-Za-z0-9]{24}",
        "(25[0-4]|1[0-9]{2})(\\.(25[0-4]|1[0-9]{2})){3}",
        "2001:db8:[1-9a-f]{4}::[1-9a-f]{4}",
        Just("4111111111111111".to_owned()),
        Just("DE89370400440532013000".to_owned()),
    ], key in "[a-z]{1,5}") {
        let event = json!({"n": 1.5, key: {"l": [format!("{before}{secret}{after}"), "kept"]}}).to_string();
        let altered = applied(&event);
        prop_assert!(!altered.contains(&secret), "{}", altered);
        // What stands around the find is as it was.
        let quoted = json!(secret).to_string();
        let (front, back) = event.split_once(quoted.trim_matches('"')).expect("it is there");
        prop_assert!(altered.starts_with(front) && altered.ends_with(back), "{}", altered);
        prop_assert!(altered[front.len()..altered.len() - back.len()].starts_with('['));
    }

    #[test]
    fn any_bytes_go_through_and_what_is_no_secret_is_not_altered(bytes in prop::collection::vec(any::<u8>(), 0..64), words in "[a-zA-Z .,!?]{0,200}") {
        let redactor = redactor(rules());
        redactor.apply(&bytes);
        let event = json!({"input": words, "output": [words]}).to_string();
        prop_assert_eq!(redactor.apply(event.as_bytes()), None);
    }
}
