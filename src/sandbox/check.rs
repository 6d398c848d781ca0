//! The API's field table for log events (contract.md section 1), on its own two feet: the daemon has another
//! implementation of the same table, and the two are held against each other by the tests.

use super::bson;
use super::scan::{self, Kind};
use std::borrow::Cow;

/// Largest document that the API's database takes, in bytes of BSON.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// An event with less JSON cannot be larger than that: `1,` in a list takes 13 bytes at most.
const NEVER_TOO_LARGE: usize = MAX_DOCUMENT_BYTES * 2 / 13 - 1024;

/// What the tokenizer of the API refuses to read in a text.
const SPECIAL_TOKENS: [&str; 5] = [
    "<|endoftext|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|endofprompt|>",
];

/// Fields of a log event that the API knows.
const KNOWN: [&str; 20] = [
    "input",
    "output",
    "project_id",
    "task_id",
    "environment",
    "client_created_at",
    "created_at",
    "last_update",
    "session_id",
    "user_id",
    "version_id",
    "step_id",
    "test_id",
    "raw_input_type_name",
    "raw_output_type_name",
    "flag",
    "metadata",
    "raw_input",
    "raw_output",
    "org_id",
];

/// Fields of a Task that no event has: under these names an unknown field of an event is dropped instead of copied to
/// metadata.
const TASK_FIELDS: [&str; 14] = [
    "id",
    "additional_input",
    "additional_output",
    "data",
    "human_eval",
    "last_eval",
    "sentiment",
    "language",
    "notes",
    "events",
    "topics",
    "is_last_task",
    "task_position",
    "org_id",
];

/// A log event as text, cut into its fields.
pub(super) struct Event<'a> {
    /// The event exactly as it arrived.
    pub(super) raw: &'a str,
    fields: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Event<'a> {
    /// Takes the text of a JSON object that a parser has accepted.
    pub(super) fn new(raw: &'a str) -> Self {
        Self {
            raw,
            fields: scan::fields(raw),
        }
    }

    /// A field's value as it stands. Of several with one name the last counts, as in the API.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.fields
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| *value)
    }

    /// A field's text, where it is a string.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name)
            .filter(|v| scan::kind(v) == Kind::Text)
            .map(scan::text_of)
    }

    /// What makes the API answer 422 for the whole request: the field and the reason.
    pub(super) fn shape_error(&self) -> Option<(&'static str, &'static str)> {
        match self.get("input").map(scan::kind) {
            Some(Kind::Text) => {}
            Some(_) => return Some(("input", "Input should be a valid string")),
            None => return Some(("input", "Field required")),
        }
        ["output", "project_id"].into_iter().find_map(|name| {
            let kind = self.get(name).map(scan::kind);
            (!matches!(kind, None | Some(Kind::Null | Kind::Text)))
                .then_some((name, "Input should be a valid string"))
        })
    }

    /// What makes the API refuse this event alone: the reason for its `error_in_log`.
    pub(super) fn field_error(&self) -> Option<String> {
        let wrong = |name: &str, want: &str| {
            Some(format!(
                "validation error for LogEvent: {name}: Input should be {want}"
            ))
        };
        for (name, _) in self
            .fields
            .iter()
            .filter(|(name, _)| KNOWN.contains(&name.as_ref()))
        {
            let Some(value) = self.get(name) else { continue };
            let kind = scan::kind(value);
            let found = match name.as_ref() {
                "task_id" | "environment" if kind != Kind::Text => wrong(name, "a valid string"),
                "client_created_at" if kind != Kind::Integer => wrong(name, "a valid integer"),
                "created_at" | "last_update" if !matches!(kind, Kind::Integer | Kind::Null) => {
                    wrong(name, "a valid integer")
                }
                "session_id"
                | "user_id"
                | "version_id"
                | "step_id"
                | "test_id"
                | "raw_input_type_name"
                | "raw_output_type_name"
                    if !matches!(kind, Kind::Text | Kind::Null) =>
                {
                    wrong(name, "a valid string")
                }
                "flag" if !is_flag(value) => wrong(name, "'success' or 'failure'"),
                "metadata" if !matches!(kind, Kind::Object | Kind::Null) => wrong(name, "a valid dictionary"),
                "raw_input" if !is_raw(value, false) => {
                    wrong(name, "a string, dictionary or list of one of them")
                }
                "raw_output" if !is_raw(value, true) => {
                    wrong(name, "a string, dictionary or list of one of them")
                }
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Why storing this event fails after the reply, which loses its whole batch (contract.md section 1).
    /// `tokenizer_mended`: the tokenizer is no reason.
    pub(super) fn poison(&self, hazards_in_batch: bool, tokenizer_mended: bool) -> Option<&'static str> {
        if self.raw.len() > NEVER_TOO_LARGE && bson::value_bytes(self.raw) > MAX_DOCUMENT_BYTES {
            return Some("a document over 16 MiB");
        }
        if hazards_in_batch {
            let found = scan::hazards(self.raw);
            if found.wide_integer {
                return Some("an integer beyond signed 64 bits");
            }
            if found.nul_key {
                return Some("a NUL character in a key");
            }
        }
        if tokenizer_mended {
            return None;
        }
        let special = self.has_special_token();
        if !special && !self.has_odd_messages() {
            return None;
        }
        match self.token_counts() {
            [Some(_), Some(_)] => None,
            _ if special => Some("a special token such as <|endoftext|> in input or raw_input"),
            _ => Some("a chat message in raw_input with a value that is not a string"),
        }
    }

    /// The event's own `prompt_tokens` and `completion_tokens`, as they stand in the metadata that the task gets.
    fn token_counts(&self) -> [Option<&'a str>; 2] {
        let metadata = self.metadata();
        ["prompt_tokens", "completion_tokens"].map(|name| {
            let found = metadata.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| *value)
        })
    }

    /// In `input`, or in a text of `raw_input`: a string, or a list of strings or objects. In `output` it does no harm, and a
    /// `raw_input` that is an object is not counted.
    fn has_special_token(&self) -> bool {
        let mut texts: Vec<&str> = self.get("input").into_iter().collect();
        if let Some(raw) = self.get("raw_input") {
            match scan::kind(raw) {
                Kind::Text => texts.push(raw),
                Kind::List => {
                    for element in scan::elements(raw) {
                        texts.push(element);
                        texts.extend(scan::fields(element).into_iter().map(|(_, value)| value));
                    }
                }
                _ => {}
            }
        }
        texts.retain(|text| scan::kind(text) == Kind::Text && (text.contains('|') || text.contains("\\u")));
        texts
            .into_iter()
            .map(scan::text_of)
            .any(|text| SPECIAL_TOKENS.iter().any(|token| text.contains(token)))
    }

    /// Whether the counters of a session whose first event this is can never be incremented again.
    pub(super) fn stalls_session(&self) -> bool {
        let is_null = |value: &str| scan::kind(value) == Kind::Null;
        self.get("output").is_none_or(is_null) || self.token_counts().into_iter().flatten().any(is_null)
    }

    /// A list of objects is taken for chat messages, whatever their keys: so the API's tokenizer takes it.
    fn has_odd_messages(&self) -> bool {
        let Some(list) = self.get("raw_input").filter(|v| scan::kind(v) == Kind::List) else {
            return false;
        };
        let odd = |message: &str| {
            scan::fields(message)
                .iter()
                .any(|(_, v)| scan::kind(v) != Kind::Text)
        };
        scan::elements(list).into_iter().any(odd)
    }

    /// The metadata that the task gets: the event's own, then its unknown fields but those of a Task.
    pub(super) fn metadata(&self) -> Vec<(Cow<'a, str>, &'a str)> {
        let mut all = self.get("metadata").map(scan::fields).unwrap_or_default();
        for (key, value) in &self.fields {
            let known = KNOWN.contains(&key.as_ref()) || TASK_FIELDS.contains(&key.as_ref());
            if !known && !all.iter().any(|(k, _)| k == key) {
                all.push((key.clone(), value));
            }
        }
        all
    }
}

/// Whether a value is "success", "failure" or null.
pub(super) fn is_flag(value: &str) -> bool {
    match scan::kind(value) {
        Kind::Null => true,
        Kind::Text => matches!(scan::text_of(value).as_ref(), "success" | "failure"),
        _ => false,
    }
}

fn is_raw(value: &str, nulls: bool) -> bool {
    match scan::kind(value) {
        Kind::Null | Kind::Text | Kind::Object => true,
        Kind::List => {
            let mut kinds: Vec<Kind> = scan::elements(value).into_iter().map(scan::kind).collect();
            if nulls {
                kinds.retain(|kind| *kind != Kind::Null);
            }
            kinds.iter().all(|k| *k == Kind::Text) || kinds.iter().all(|k| *k == Kind::Object)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_become_metadata_but_for_those_of_a_task() {
        let raw = r#"{"input":"i","model":"m","notes":"n","metadata":{"a":1.0,"x":2},"x":3}"#;
        let got = Event::new(raw).metadata();
        let got: Vec<_> = got.iter().map(|(k, v)| (k.as_ref(), *v)).collect();
        assert_eq!(got, [("a", "1.0"), ("x", "2"), ("model", "\"m\"")]);
    }

    #[test]
    fn special_tokens_are_refused_where_the_tokenizer_reads() {
        let poison = |fields: &str| {
            Event::new(&format!("{{{fields}}}"))
                .poison(false, false)
                .is_some()
        };
        assert!(poison(r#""input":"a <|fim_middle|>""#));
        assert!(poison(r#""input":"a","raw_input":"<|endofprompt|>""#));
        assert!(poison(r#""input":"a","raw_input":["x","<|endoftext|>"]"#));
        assert!(poison(
            r#""input":"a","raw_input":[{"content":"\u003c|endoftext|>"}]"#
        ));
        assert!(!poison(
            r#""input":"a","raw_input":{"content":"<|endoftext|>"},"output":"<|endoftext|>""#
        ));
        assert!(!poison(
            r#""input":"<|im_start|>","raw_input":[{"<|endoftext|>":"x"}]"#
        ));
    }

    #[test]
    fn a_document_is_measured_as_the_database_does() {
        let list = |count| {
            format!(
                r#"{{"input":"x","metadata":{{"a":[{}]}}}}"#,
                vec!["1"; count].join(",")
            )
        };
        assert_eq!(Event::new(&list(1_250_000)).poison(false, false), None);
        assert_eq!(
            Event::new(&list(1_400_000)).poison(false, false),
            Some("a document over 16 MiB")
        );
    }

    #[test]
    fn the_tokenizer_is_skipped_by_token_counts_of_any_kind_and_place() {
        let poison = |extra: &str| {
            Event::new(&format!(r#"{{"input":"\u003c|endoftext|>"{extra}}}"#))
                .poison(false, false)
                .is_some()
        };
        assert!(poison(""));
        assert!(poison(r#","prompt_tokens":1"#));
        assert!(!poison(r#","prompt_tokens":0,"completion_tokens":0"#));
        assert!(!poison(r#","prompt_tokens":1,"completion_tokens":2"#));
        assert!(!poison(
            r#","metadata":{"prompt_tokens":null},"completion_tokens":null"#
        ));
    }

    #[test]
    fn a_special_token_does_harm_wherever_the_tokenizer_meets_it() {
        let poison = |fields: &str| {
            Event::new(&format!(r#"{{"input":"i",{fields}}}"#))
                .poison(false, false)
                .is_some()
        };
        for fields in [
            r#""raw_input":"a <|endoftext|>""#,
            r#""raw_input":["a","<|endoftext|>"]"#,
            r#""raw_input":[{"role":"user","content":"\u003c|endoftext|>"}]"#,
        ] {
            assert!(poison(fields), "{fields}");
            let counted = format!(r#"{fields},"prompt_tokens":0,"completion_tokens":0"#);
            assert!(!poison(&counted), "{counted}");
        }
        for fields in [
            r#""output":"<|endoftext|>""#,
            r#""raw_output":["<|endoftext|>"]"#,
            r#""metadata":{"a":"<|endoftext|>"}"#,
            r#""raw_input":{"content":"<|endoftext|>"}"#,
            r#""raw_input":"<|end""#,
        ] {
            assert!(!poison(fields), "{fields}");
        }
    }

    #[test]
    fn null_counts_or_a_null_output_stall_a_session() {
        let stalls = |fields: &str| Event::new(&format!(r#"{{"input":"i"{fields}}}"#)).stalls_session();
        assert!(stalls("") && stalls(r#","output":null"#));
        assert!(!stalls(r#","output":"o""#));
        assert!(!stalls(
            r#","output":"o","metadata":{"prompt_tokens":0,"completion_tokens":0}"#
        ));
        assert!(stalls(
            r#","output":"o","metadata":{"prompt_tokens":null,"completion_tokens":null}"#
        ));
    }
}
