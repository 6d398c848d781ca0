use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

fn in_metadata(value: &str) -> String {
    format!(r#"{{"input":"i","metadata":{{"a":{value}}}}}"#)
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    // The event's own braces are a level.
    format!(
        r#"{{"x":{}1{}}}"#,
        open.repeat(depth - 1),
        close.repeat(depth - 1)
    )
}

#[test]
fn what_the_api_can_never_store_is_found_wherever_it_stands() {
    let long = "9".repeat(310);
    let table = [
        (in_metadata(r#""\ud83d""#), Hazard::Surrogate),
        (in_metadata(r#""\uDE00""#), Hazard::Surrogate),
        (in_metadata(r#""\ud83d \ude00""#), Hazard::Surrogate),
        (in_metadata(r#""\ud83d\n""#), Hazard::Surrogate),
        (in_metadata(r#""\ud83d\ud83d\ude00""#), Hazard::Surrogate),
        (in_metadata(r#""\ud83d\ude00\ude00""#), Hazard::Surrogate),
        (in_metadata(r#"[{"b":["x\\\ud83dx"]}]"#), Hazard::Surrogate),
        (r#"{"input":"\ud83d"}"#.into(), Hazard::Surrogate),
        (r#"{"\ud83d":1}"#.into(), Hazard::Surrogate),
        (in_metadata(r#"{"x\udc00":1}"#), Hazard::Surrogate),
        (nested("[", "]", MAX_DEPTH + 1), Hazard::Depth),
        (nested("{\"a\":", "}", MAX_DEPTH + 1), Hazard::Depth),
        (r#"{"a\u0000":1}"#.into(), Hazard::NulKey),
        (in_metadata("{\"\\u0000\" \n\t: 1}"), Hazard::NulKey),
        (in_metadata(r#"[[{"\\\u0000":null}]]"#), Hazard::NulKey),
        (in_metadata("9223372036854775808"), Hazard::WideInteger),
        (in_metadata("-9223372036854775809"), Hazard::WideInteger),
        (in_metadata("[1,18446744073709551616]"), Hazard::WideInteger),
        (
            r#"{"created_at":99999999999999999999}"#.into(),
            Hazard::WideInteger,
        ),
        (in_metadata("1e400"), Hazard::BeyondDouble),
        (in_metadata("-1E+309"), Hazard::BeyondDouble),
        (in_metadata("1.8e308"), Hazard::BeyondDouble),
        (in_metadata(&format!("{long}.0")), Hazard::BeyondDouble),
    ];
    for (event, hazard) in table {
        assert!(serde_json::from_str::<&RawValue>(&event).is_ok(), "{event}");
        assert_eq!(first(&event).map(|(hazard, _)| hazard), Some(hazard), "{event}");
    }
}

#[test]
fn what_only_looks_like_it_is_let_through() {
    let fine = [
        in_metadata(r#""\ud83d\ude00""#),
        in_metadata(r#""\uD83D\uDE00\ud83d\ude00""#),
        in_metadata(r#""\\ud83d""#),
        in_metadata(r#""\\\\ude00 \" \u00e9 \/""#),
        in_metadata(r#""a NUL in a value: \u0000""#),
        in_metadata(r#"["\u0000","b"]"#),
        in_metadata(r#"{"\\u0000":"[[[{{{ 1e400"}"#),
        in_metadata("[9223372036854775807,-9223372036854775808,-0,0]"),
        in_metadata("[1e5,1.0,1E-400,1.7976931348623157e308,-0.0,123456789012345678901234567890.5]"),
        in_metadata("99999999999999999999e2"),
        nested("[", "]", MAX_DEPTH),
        nested("{\"a\":", "}", MAX_DEPTH),
        format!("[{}]", "[],{},".repeat(1_000) + "1"),
    ];
    for event in fine {
        assert!(serde_json::from_str::<&RawValue>(&event).is_ok(), "{event}");
        assert_eq!(first(&event), None, "{event}");
    }
}

#[test]
fn the_place_is_that_of_the_first_one() {
    let event = r#"{"input":"é","a":{"b":1e400,"c\u0000":99999999999999999999}}"#;
    assert_eq!(
        first(event),
        Some((Hazard::BeyondDouble, event.find("1e400").expect("it is there")))
    );
    let event = r#"{"a":"fine \ud83d\ude00, not \udc00"}"#;
    assert_eq!(first(event).map(|(_, at)| at), event.find("\\udc00"));
}

/// The same question, asked slowly: reads character by character, one call a level, and decodes every string.
struct Reference<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    found: Vec<Hazard>,
}

impl Reference<'_> {
    fn of(text: &str) -> Vec<Hazard> {
        let mut this = Reference {
            rest: text.chars().peekable(),
            found: Vec::new(),
        };
        this.value(0);
        this.found
    }

    fn next(&mut self) -> char {
        while self.rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        self.rest.next().expect("it is JSON")
    }

    fn peek(&mut self) -> char {
        while self.rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        *self.rest.peek().unwrap_or(&' ')
    }

    fn value(&mut self, depth: usize) {
        let open = self.peek();
        match open {
            '{' | '[' => {
                self.next();
                if depth == 200 {
                    self.found.push(Hazard::Depth);
                }
                while !matches!(self.peek(), '}' | ']') {
                    if open == '{' {
                        let key = self.string();
                        if key.contains(&0) {
                            self.found.push(Hazard::NulKey);
                        }
                        assert_eq!(self.next(), ':');
                    }
                    self.value(depth + 1);
                    if self.peek() == ',' {
                        self.next();
                    }
                }
                self.next();
            }
            '"' => {
                self.string();
            }
            _ => {
                let mut token = String::new();
                while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || "+-.".contains(*c)) {
                    token.push(c);
                }
                self.scalar(&token);
            }
        }
    }

    fn scalar(&mut self, token: &str) {
        if token.starts_with(|c: char| c.is_ascii_lowercase()) {
            return;
        }
        let limits = i128::from(i64::MIN)..=i128::from(i64::MAX);
        if token.contains(['.', 'e', 'E']) {
            if token.parse::<f64>().expect("a number").is_infinite() {
                self.found.push(Hazard::BeyondDouble);
            }
        } else if !token.parse::<i128>().is_ok_and(|n| limits.contains(&n)) {
            self.found.push(Hazard::WideInteger);
        }
    }

    fn string(&mut self) -> Vec<u16> {
        assert_eq!(self.next(), '"');
        let mut units = Vec::new();
        loop {
            match self.rest.next().expect("it is JSON") {
                '"' => break,
                '\\' => match self.rest.next().expect("it is JSON") {
                    'u' => {
                        let digits: String = self.rest.by_ref().take(4).collect();
                        units.push(u16::from_str_radix(&digits, 16).expect("four digits"));
                    }
                    // Which character it is does not matter here.
                    _ => units.push(1),
                },
                c => units.extend(c.encode_utf16(&mut [0; 2]).iter()),
            }
        }
        if String::from_utf16(&units).is_err() {
            self.found.push(Hazard::Surrogate);
        }
        units
    }
}

/// Strings of few kinds of pieces, so that they meet in every order.
fn string() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        r"\ud83d", r"\uDE00", r"\u0000", r"\u00e9", r"\\", r"\n", r#"\""#, "é", "🚀", "u0000", "a", "[",
        "1e400", ":",
    ]);
    prop::collection::vec(piece, 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        string(),
        "-?(0|[1-9][0-9]{0,3})",
        "-?[1-9][0-9]{17,20}",
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?[eE][+-]?[0-9]{1,3}",
        Just("922337203685477580".to_owned())
            .prop_flat_map(|head| (0..20u8).prop_map(move |n| format!("{head}{n}"))),
        (190..206usize).prop_map(|n| format!("{}{}", "[".repeat(n), "]".repeat(n))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let spaced = ("[ \n]{0,2}", inner).prop_map(|(space, value)| format!("{space}{value}{space}"));
        let member = (string(), "[ \t]{0,2}", spaced.clone())
            .prop_map(|(key, space, value)| format!("{key}{space}:{value}"));
        prop_oneof![
            prop::collection::vec(spaced, 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_finds_what_a_slow_reader_finds(text in json()) {
        prop_assert!(serde_json::from_str::<&RawValue>(&text).is_ok(), "{}", text);
        let slow = Reference::of(&text);
        match first(&text) {
            Some((hazard, at)) => {
                prop_assert!(slow.contains(&hazard), "{hazard:?} at {at} of {text}, but {slow:?}");
                prop_assert!(text.is_char_boundary(at));
            }
            None => prop_assert!(slow.is_empty(), "{slow:?} in {text}"),
        }
    }

    #[test]
    fn it_reads_a_lone_string_as_a_slow_reader_does(text in string(), is_key: bool) {
        let text = if is_key { format!("{{{text} :1}}") } else { text };
        prop_assert_eq!(first(&text).is_some(), !Reference::of(&text).is_empty(), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".*", odd in r#"[\\u"\[{0-9e.d8:-]{0,40}"#) {
        first(&text);
        first(&odd);
    }
}
