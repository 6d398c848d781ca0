//! Texts that stand where a client should have put an id: a variable that was never filled in.
//!
//! Only exact shapes count, so that an id which merely contains `null` or a `$` passes.

use std::fmt;

/// What such a text looks like. Holds no text of the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfilled {
    /// Exactly this word, which a language prints for a value that is not there.
    Word(&'static str),
    /// Written like this example, which a shell or a template engine should have replaced.
    Template(&'static str),
}

/// What languages print for a value that is not there.
const WORDS: [&str; 23] = [
    "undefined",
    "null",
    "Null",
    "NULL",
    "(null)",
    "<null>",
    "None",
    "<none>",
    "<None>",
    "nil",
    "<nil>",
    "%!s(<nil>)",
    "%!v(<nil>)",
    "<no value>",
    "<undefined>",
    "NaN",
    "nan",
    "NaT",
    "<NA>",
    "[object Object]",
    "[object Undefined]",
    "[object Null]",
    "[object Promise]",
];

/// Format strings without a value.
const SLOTS: [&str; 6] = ["{}", "{0}", "%s", "%d", "%v", "%@"];

/// Names that samples and templates give to an id, in lower case and without separators.
const NAMES: [&str; 8] = [
    "taskid",
    "task",
    "id",
    "uuid",
    "guid",
    "taskuuid",
    "eventid",
    "messageid",
];

impl Unfilled {
    /// The shape of a text that is a variable never filled in; `None` for any other text.
    pub fn of(text: &str) -> Option<Self> {
        let word = WORDS.iter().find(|word| **word == text);
        word.map(|word| Unfilled::Word(word))
            .or_else(|| template(text).map(Unfilled::Template))
    }
}

impl fmt::Display for Unfilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = match self {
            Unfilled::Word("undefined") => {
                "the client sent a variable that it never set (the public JS samples do, where they say `tastId`)"
            }
            Unfilled::Word(_) => "the client sent a variable that it never set",
            Unfilled::Template("$TASK_ID" | "${TASK_ID}") => {
                "the client sent a variable that was never filled in (in single quotes a shell does not; the public \
                 curl samples have them)"
            }
            Unfilled::Template(_) => "the client sent a variable that was never filled in",
        };
        match self {
            Unfilled::Word(word) => write!(f, "\"{word}\": {cause}"),
            Unfilled::Template(example) => write!(f, "a text like \"{example}\": {cause}"),
        }
    }
}

fn template(text: &str) -> Option<&'static str> {
    if let Some(slot) = SLOTS.iter().find(|slot| **slot == text) {
        return Some(slot);
    }
    let within = |open: &str, close: &str| text.strip_prefix(open)?.strip_suffix(close);
    let plain = |inner: &str| !inner.trim().is_empty() && !inner.contains(['{', '}']);
    // Braces and other marks around anything are common in real ids; around a name of an id they are not.
    [
        ("${TASK_ID}", within("${", "}").is_some_and(plain)),
        ("{{task_id}}", within("{{", "}}").is_some_and(plain)),
        ("<%= task_id %>", within("<%=", "%>").is_some_and(plain)),
        ("#{task_id}", within("#{", "}").is_some_and(is_identifier)),
        ("%{task_id}", within("%{", "}").is_some_and(is_identifier)),
        ("%(task_id)s", within("%(", ")s").is_some_and(is_identifier)),
        (
            "$TASK_ID",
            within("$", "").is_some_and(|name| is_variable(name) || is_name(name)),
        ),
        (
            "%TASK_ID%",
            within("%", "%").is_some_and(|name| is_variable(name) || is_name(name)),
        ),
        ("{task_id}", within("{", "}").is_some_and(is_name)),
        ("<task_id>", within("<", ">").is_some_and(is_name)),
        (":task_id", within(":", "").is_some_and(is_name)),
    ]
    .into_iter()
    .find_map(|(example, fits)| fits.then_some(example))
}

/// Whether a text is named as environment variables are: capitals, digits, underscores.
fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(fits)
        && name.bytes().any(|byte| byte.is_ascii_uppercase())
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

fn is_identifier(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let name = name.trim();
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && name.bytes().all(fits)
}

/// Whether a text is one of [`NAMES`] in any spelling: `task_id`, `taskId`, `your-task-id`.
fn is_name(text: &str) -> bool {
    let separator = |c: char| matches!(c, '_' | '-' | ' ' | '.');
    let bare: String = text.chars().filter(|c| !separator(*c)).collect();
    let bare = bare.to_ascii_lowercase();
    NAMES.contains(&bare.strip_prefix("your").unwrap_or(&bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_were_never_filled_in_are_known_by_their_shape() {
        for text in WORDS {
            assert_eq!(Unfilled::of(text), Some(Unfilled::Word(text)));
        }
        for (text, example) in [
            ("$TASK_ID", "$TASK_ID"),
            ("$TASK_ID_2", "$TASK_ID"),
            ("$task_id", "$TASK_ID"),
            ("$taskId", "$TASK_ID"),
            ("${TASK_ID}", "${TASK_ID}"),
            ("${task.id}", "${TASK_ID}"),
            ("${TASK_ID:-}", "${TASK_ID}"),
            ("{{task_id}}", "{{task_id}}"),
            ("{{ $json.id }}", "{{task_id}}"),
            ("%TASK_ID%", "%TASK_ID%"),
            ("%task_id%", "%TASK_ID%"),
            ("{task_id}", "{task_id}"),
            ("{taskId}", "{task_id}"),
            ("#{task.id}", "#{task_id}"),
            ("%{task_id}", "%{task_id}"),
            ("%(task_id)s", "%(task_id)s"),
            ("<%= task.id %>", "<%= task_id %>"),
            ("<task_id>", "<task_id>"),
            ("<your-task-id>", "<task_id>"),
            (":task_id", ":task_id"),
            ("{}", "{}"),
            ("%s", "%s"),
        ] {
            assert_eq!(Unfilled::of(text), Some(Unfilled::Template(example)), "{text}");
        }
    }

    #[test]
    fn an_id_that_only_resembles_one_passes() {
        for text in [
            "550e8400-e29b-41d4-a716-446655440000",
            "{550e8400-e29b-41d4-a716-446655440000}",
            "{deadbeef}",
            "task_id",
            "none",
            "nullable",
            "task-null",
            "null/1",
            "undefined1",
            " null",
            "Nonesuch",
            "NaN-1",
            "NANCY",
            "$1",
            "$2b$10$abcdefgh",
            "$user-17",
            "$anonymous",
            "a$TASK_ID",
            "$TASK_ID/1",
            "${a}-${b}",
            "${}",
            "{{}}",
            "{{a}}-{{b}}",
            "100%",
            "%41",
            "%20%",
            "50%off%",
            "<user@host>",
            "<17>",
            "{a:1}",
            "[object Window]",
            ":17",
            "#{}",
            "#17",
        ] {
            assert_eq!(Unfilled::of(text), None, "{text}");
        }
    }

    #[test]
    fn the_sentence_shows_the_shape_and_says_what_it_is() {
        let sentence = |text: &str| Unfilled::of(text).expect(text).to_string();
        assert!(sentence("undefined").starts_with("\"undefined\": the client sent a variable"));
        assert!(sentence("$MY_SECRET").starts_with("a text like \"$TASK_ID\": the client sent a variable"));
        assert!(sentence("${TASK_ID}").contains("single quotes"));
        assert!(
            !sentence("$MY_SECRET").contains("SECRET"),
            "no text of the client's"
        );
    }
}
