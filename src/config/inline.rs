//! The text of a variable or of `--set`: TOML's own form where it is written in one, else the bare text.
//!
//! A list begins with `[`, a text in TOML's form with a quotation mark, and a table, for a section, with `{`. What begins
//! like one of them and is none is a mistake: taken as a bare text it would be a value that nobody meant.
use super::keys::{Key, Kind};
use super::mistakes::Mistake;
use super::{file, layers, lookup};
use ::config::{Map, Value, ValueKind};
use std::path::Path;

/// Reads what was written for the key or section at `path`. The value comes from `origin`.
pub(super) fn read(path: &[String], origin: &str, text: &str) -> Result<Value, Mistake> {
    let trimmed = text.trim();
    let key = lookup::find(path).map(|(key, _)| key);
    let form = match (trimmed.as_bytes().first(), key) {
        (Some(b'[' | b'{'), Some(key)) if is_list(key) && !is_bare_list_of_addresses(trimmed) => {
            "a list, such as [\"a\", \"b\"]"
        }
        (Some(b'"' | b'\''), Some(_)) => "a text, such as \"a\" or 'a'",
        (Some(b'{'), None) if lookup::is_section(path) => "a table, such as {key = \"a\"}",
        _ => return Ok(Value::new(Some(&origin.to_owned()), text)),
    };
    // The text is not repeated: it may be a secret.
    parse(trimmed, origin).ok_or_else(|| {
        let sentence = format!("begins like TOML and is not {form}: mend its quotes and brackets");
        Mistake::new(layers::dotted(path), origin, sentence)
    })
}

fn is_list(key: &Key) -> bool {
    matches!(key.kind, Kind::List { .. } | Kind::Ids { .. })
}

/// Addresses of version 6 stand in brackets themselves: `[fe80::1],logs.internal`.
fn is_bare_list_of_addresses(text: &str) -> bool {
    is_address(text.split(',').next().unwrap_or_default().trim())
}

/// Whether a text is an address of version 6 in brackets.
pub(super) fn is_address(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

/// One value in TOML's form, and nothing behind it.
fn parse(text: &str, origin: &str) -> Option<Value> {
    let mut values = file::parse(Path::new(""), &format!("value = {text}\n")).ok()?;
    let value = values.remove("value")?;
    values.is_empty().then(|| attributed(value, &origin.to_owned()))
}

/// The value with all that is in it said to come from there.
fn attributed(value: Value, origin: &String) -> Value {
    let kind = match value.kind {
        ValueKind::Table(table) => {
            let table = table.into_iter();
            let table: Map<String, Value> = table
                .map(|(name, value)| (name, attributed(value, origin)))
                .collect();
            ValueKind::Table(table)
        }
        ValueKind::Array(list) => {
            let list = list.into_iter().map(|value| attributed(value, origin));
            ValueKind::Array(list.collect())
        }
        kind => kind,
    };
    Value::new(Some(origin), kind)
}

#[cfg(test)]
mod tests {
    use super::super::keys::KEYS;
    use super::*;

    fn at(key: &str, text: &str) -> Result<ValueKind, String> {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let value = read(&path, "--set", text).map_err(|mistake| mistake.to_string())?;
        assert_eq!(value.origin(), Some("--set"));
        Ok(value.kind)
    }

    fn texts(list: &[&str]) -> ValueKind {
        ValueKind::Array(
            list.iter()
                .map(|text| Value::new(Some(&"--set".to_owned()), *text))
                .collect(),
        )
    }

    #[test]
    fn every_list_key_takes_tomls_form_and_refuses_what_only_begins_like_it() {
        let lists = KEYS.iter().filter(|key| is_list(key));
        for key in lists.map(|key| key.path.replace("<name>", "x")) {
            assert_eq!(at(&key, r#"["a", "b"]"#), Ok(texts(&["a", "b"])), "{key}");
            assert_eq!(at(&key, " [ 'a' ] "), Ok(texts(&["a"])), "{key}");
            assert_eq!(at(&key, "[]"), Ok(texts(&[])), "{key}");
            assert_eq!(at(&key, r#""a""#), Ok("a".into()), "{key}");
            assert_eq!(at(&key, "a, b"), Ok("a, b".into()), "bare, for {key}");
            for broken in [
                "[",
                "[a]",
                "[\"a\"",
                "[\"a\"]]",
                "\"a\", \"b\"",
                "[\"a\"]\nx = 1",
                "{a}",
                "'a",
            ] {
                let told = at(&key, broken).expect_err(broken);
                assert!(
                    told.starts_with(&key) && told.contains("(--set): begins like TOML"),
                    "{told}"
                );
            }
        }
    }

    #[test]
    fn a_text_in_quotes_is_what_stands_between_them() {
        for (key, text, value) in [
            ("upstream.base_url", r#""https://a.example""#, "https://a.example"),
            ("upstream.project_id", "'p'", "p"),
            ("redact.rules.x.regex", r#""T-\\d+""#, "T-\\d+"),
            ("redact.rules.x.regex", r#"'"[a-z]+"'"#, "\"[a-z]+\""),
            ("redact.rules.x.regex", "[a-z]+", "[a-z]+"),
            ("spool.on_full", "\"reject\"", "reject"),
            ("intake.hosts", "[fe80::1],a", "[fe80::1],a"),
            ("no.such", "\"a\"", "\"a\""),
        ] {
            assert_eq!(at(key, text), Ok(value.into()), "{key}={text}");
        }
        for (key, text) in [
            ("redact.rules.x.regex", r#""[^"]+""#),
            ("upstream.api_key", "\"sk-hidden"),
            ("log.level", "\"info\"\nformat = \"json\""),
        ] {
            let told = at(key, text).expect_err(text);
            assert!(
                !told.contains("hidden") && !told.contains(char::is_control),
                "{told}"
            );
        }
    }

    #[test]
    fn a_section_takes_a_table() {
        let kind = at("redact.rules.x", r#"{ regex = "a", fields = ["input"] }"#).expect("a table");
        let ValueKind::Table(table) = kind else {
            panic!("{kind:?}")
        };
        assert_eq!(table["regex"].origin(), Some("--set"));
        assert_eq!(table["fields"].kind, texts(&["input"]));
        assert!(at("redact.rules.x", "{ regex").is_err());
        assert_eq!(at("redact.rules.x", "regex"), Ok("regex".into()));
    }
}
