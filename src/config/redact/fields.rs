//! Paths of `[redact]` that can be followed but fit no event as the API knows it: most likely slips.
use super::super::keys::RULE_KEYS;
use super::super::resolve::Resolver;
use super::super::values;
use crate::{event, feedback};

/// Fields of an event that the SDKs send beside those of the API's own table.
const OF_SDKS: [&str; 5] = [
    "system_prompt",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
];

/// Warns of each path that most likely does nothing.
pub(super) fn check(resolver: &mut Resolver) {
    let rules = resolver.written(RULE_KEYS[1]).into_iter().map(|(path, _)| path);
    let keys: Vec<String> = ["redact.fields", "redact.drop_fields"]
        .map(str::to_owned)
        .into_iter()
        .chain(rules)
        .collect();
    for key in keys {
        for path in resolver.list(&key).to_vec() {
            if let Some((sentence, is_hint)) = doubt(&path, key == "redact.drop_fields") {
                resolver.warn(&key, is_hint, sentence);
            }
        }
    }
}

/// What speaks against a path, and whether it is almost surely a slip.
fn doubt(path: &str, is_dropped: bool) -> Option<(String, bool)> {
    let shown = values::quote(path);
    let (first, below) = path.split_once('.').unwrap_or((path, ""));
    let last = path.rsplit('.').next().unwrap_or_default();
    if is_dropped && last.bytes().all(|byte| byte.is_ascii_digit()) {
        let sentence = format!(
            "{shown} ends with a number, and elements of lists are never dropped: name the list, or a key of its elements"
        );
        return Some((sentence, true));
    }
    let known = known_fields().find(|(name, _)| *name == first);
    match known {
        _ if first == "*" => None,
        Some((_, true)) => None,
        Some((_, false)) if below.is_empty() => None,
        Some((name, false)) => Some((
            format!(
                "{shown} fits nothing, because {name} is no object and no list: write {}",
                values::quote(name)
            ),
            true,
        )),
        None => Some(match nearest(first) {
            Some(near) => (
                format!(
                    "{shown} begins with what is no field of an event; did you mean {}?",
                    values::quote(&path.replacen(first, near, 1))
                ),
                true,
            ),
            None => (
                format!(
                    "{shown} begins with what is no field of an event, unless your clients send one of that name; what is in \
                     the metadata is named {}",
                    values::quote(&format!("metadata.{path}"))
                ),
                false,
            ),
        }),
    }
}

fn known_fields() -> impl Iterator<Item = (&'static str, bool)> {
    let texts = feedback::FIELDS.into_iter().chain(OF_SDKS);
    event::known_fields().chain(texts.map(|name| (name, false)))
}

/// The known field that a name was most likely meant to be: a slip or two away, or the longer form of it.
fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase().replace('-', "_");
    let close = |known: &&str| {
        let most = if known.len() < 5 { 1 } else { 2 };
        strsim::damerau_levenshtein(known, &lower) <= most
    };
    let names = || known_fields().map(|(known, _)| known);
    names()
        .filter(close)
        .min_by_key(|known| strsim::damerau_levenshtein(known, &lower))
        .or_else(|| names().find(|known| lower.len() >= 4 && known.starts_with(&lower)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_a_fields_name_is_told_with_the_right_one() {
        for (path, meant) in [
            ("inptu", "\"input\""),
            ("Input", "\"input\""),
            ("inputs", "\"input\""),
            ("metdata.headers", "\"metadata.headers\""),
            ("meta.headers", "\"metadata.headers\""),
            ("raw-input.messages.*.content", "\"raw_input.messages.*.content\""),
            ("note", "\"notes\""),
            ("user", "\"user_id\""),
        ] {
            let (sentence, is_hint) = doubt(path, false).expect(path);
            assert!(
                is_hint && sentence.ends_with(&format!("did you mean {meant}?")),
                "{sentence}"
            );
        }
        let (sentence, is_hint) = doubt("customer_email", true).expect("no field of the API");
        assert!(
            !is_hint && sentence.contains("\"metadata.customer_email\""),
            "{sentence}"
        );
    }

    #[test]
    fn a_path_below_a_text_and_a_dropped_element_do_nothing() {
        for path in [
            "input.text",
            "output.*",
            "notes.0",
            "session_id.x",
            "system_prompt.a",
        ] {
            let (sentence, is_hint) = doubt(path, false).expect(path);
            assert!(is_hint && sentence.contains("fits nothing"), "{sentence}");
        }
        let (sentence, is_hint) = doubt("raw_input.0", true).expect("an element");
        assert!(is_hint && sentence.contains("ends with a number"), "{sentence}");
    }

    #[test]
    fn paths_that_fit_events_and_feedback_pass() {
        for (name, may_hold_more) in known_fields() {
            assert_eq!(doubt(name, false), None, "{name}");
            assert_eq!(
                doubt(&format!("{name}.x"), false).is_none(),
                may_hold_more,
                "{name}"
            );
        }
        for path in ["*", "*.x", "metadata.0", "raw_input.0.content", "metadata.inptu"] {
            assert_eq!(doubt(path, false), None, "{path}");
        }
    }
}
