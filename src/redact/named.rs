//! Secrets that a text calls by a name: `api_key=...`, `"password": "..."`, `Password: ...`.
use super::quotes::{Quoted, Quotes};
use super::secret_name::{Secret, is_no_value, is_opaque, is_several_words};
use super::steps;
use memchr::memchr2_iter;
use std::ops::Range;

/// Most bytes of a name that stands bare.
const MOST_NAME: usize = 64;

/// Most blanks between a name, what follows it, and a value.
const MOST_BLANKS: usize = 64;

/// Bytes from which on a value is no call and no words of code.
const MOST_WORDS: usize = 64;

/// Most letters of the scheme of a URL.
const MOST_SCHEME: usize = 16;

/// Most equals signs at the end of a key.
const MOST_PADDING: usize = 3;

/// Fewest characters of a key or a token that stands bare.
const KEY_CHARS: usize = 12;

/// Fewest of a password that stands bare behind a colon, where a sentence may go on.
const PASSWORD_CHARS: usize = 4;

/// Hands the place of each value to `hit`. `source` is the text before its escapes were read.
pub(super) fn find(text: &str, source: &str, hit: &mut dyn FnMut(Range<usize>)) {
    let mut quotes = Quotes::of(text, source);
    let mut behind = 0;
    for at in memchr2_iter(b':', b'=', text.as_bytes()) {
        if at < behind {
            continue;
        }
        if let Some(name) = Name::before(text, at)
            && let Some(value) = Value::behind(text, at, name)
        {
            behind = value.find(&mut quotes, hit).unwrap_or(behind);
        }
    }
}

/// What stands before a colon or an equals sign.
#[derive(Debug, Clone, Copy)]
struct Name {
    secret: Secret,
    is_quoted: bool,
}

impl Name {
    fn before(text: &str, at: usize) -> Option<Self> {
        let blanks = |text: &str| text.bytes().rev().take(MOST_BLANKS).take_while(is_blank).count();
        let front = text.get(..at)?;
        let front = &front[..front.len() - blanks(front)];
        // `user[password]=`, `config["password"] =`
        let front = front.strip_suffix(']').unwrap_or(front);
        // `**Password**:`
        let front = front.strip_suffix("**").unwrap_or(front);
        let quoted = front.strip_suffix(['"', '\'', '`']);
        let front = quoted.unwrap_or(front);
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let word = |text: &str| text.bytes().rev().take(MOST_NAME).take_while(is_part).count();
        let last = word(front);
        if last == 0 {
            return None;
        }
        let start = front.len() - last;
        let secret = Secret::named(&front[start..]).or_else(|| {
            // `Your API key:`
            let before = front[..start].strip_suffix(' ')?;
            let two = before.len() - word(before);
            Secret::named(&front[two..])
        });
        Some(Self {
            secret: secret?,
            is_quoted: quoted.is_some(),
        })
    }
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// What stands behind the colon or the equals sign.
#[derive(Debug, Clone, Copy)]
struct Value<'t> {
    text: &'t str,
    start: usize,
    name: Name,
    is_equation: bool,
    /// Whether it stands on a further line.
    has_break: bool,
}

impl<'t> Value<'t> {
    /// That of the sign at `at`.
    fn behind(text: &'t str, at: usize, name: Name) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut start = at + 1;
        match bytes.get(start)? {
            // `:=`, `==`, `=>`
            b'=' | b'>' => start += 1,
            // `Secret::new`
            b':' => return None,
            _ => {}
        }
        // `**Password:** ...`
        if text.get(start..)?.starts_with("**") {
            start += 2;
        }
        let gap = start;
        start = behind_blanks(text, start);
        Some(Self {
            text,
            start,
            name,
            is_equation: bytes[at] == b'=',
            has_break: text[gap..start].contains('\n'),
        })
    }

    /// Hands the places of what is secret in it to `hit`. Where to look further, if something is.
    fn find(mut self, quotes: &mut Quotes<'_>, hit: &mut dyn FnMut(Range<usize>)) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut behind = None;
        let is_list = bytes.get(self.start) == Some(&b'[');
        if is_list {
            self.start = behind_blanks(self.text, self.start + 1);
        }
        // `b"..."`, `f'...'`
        if let [b'b' | b'f' | b'r' | b'u', b'"' | b'\'', ..] = bytes.get(self.start..)? {
            self.start += 1;
        }
        if !self.text[self.start..].starts_with(is_quote) {
            let place = self.bare().filter(|_| !is_list)?;
            hit(place.clone());
            return Some(place.end);
        }
        while self.text[self.start..].starts_with(is_quote) {
            let end = match quotes.look(self.start) {
                Quoted::To(end) => end,
                Quoted::CutOff => self.end_of_line_or_word(),
                Quoted::Nothing => break,
            };
            if let Some(place) = self.quoted(end) {
                behind = Some(place.end);
                hit(place);
            }
            let next = behind_blanks(self.text, (end + 1).min(self.text.len()));
            if !is_list || bytes.get(next) != Some(&b',') {
                break;
            }
            self.start = behind_blanks(self.text, next + 1);
        }
        behind
    }

    /// Whether it is a value in any case, and not a sentence that goes on.
    fn is_definite(&self) -> bool {
        self.name.is_quoted || self.is_equation
    }

    /// Where it ends if nothing closes it: it may have been cut off.
    fn end_of_line_or_word(&self) -> usize {
        let inner = self.start + 1;
        let is_line = self.is_definite() && self.text[self.start..].starts_with('"');
        let ends = |c: char| c == '\n' || (!is_line && (c.is_whitespace() || is_quote(c)));
        let length = self.text[inner..].find(ends);
        length.map_or(self.text.len(), |length| inner + length)
    }

    /// What is secret between its quotes.
    fn quoted(&self, end: usize) -> Option<Range<usize>> {
        let inner = self.start + 1;
        let value = &self.text[inner..end];
        steps::add(value.len());
        let place = self.name.secret.within(value)?;
        // A sentence in quotes.
        if !self.is_definite() && value[place.clone()].contains(char::is_whitespace) {
            return None;
        }
        Some(inner + place.start..inner + place.end)
    }

    /// The value without quotes.
    fn bare(&self) -> Option<Range<usize>> {
        let is_equation = self.is_equation && !self.has_break;
        let place = bare(self.text, self.start, self.name.secret, is_equation)?;
        let value = &self.text[place.clone()];
        // A number of JSON is no text: something else in its place would not be JSON.
        if self.name.is_quoted && !self.is_equation && value.parse::<f64>().is_ok() {
            return None;
        }
        // Behind an empty value, the next line gives another name.
        let goes_on = value.ends_with('=') || self.text[place.end..].starts_with(['=', ':']);
        let is_next_line = self.has_break && (goes_on || self.name.secret != Secret::Key);
        (!is_next_line).then_some(place)
    }
}

/// The first place from `at` on that is no white space, or where that is more than usual.
fn behind_blanks(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    let blanks = rest.iter().take(MOST_BLANKS);
    at + blanks.take_while(|byte| byte.is_ascii_whitespace()).count()
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

/// The value without quotes that begins at `start`. What is turned down is short, or has neither
/// colon nor equals sign in it: so no part of a text is read again and again.
fn bare(text: &str, start: usize, secret: Secret, is_equation: bool) -> Option<Range<usize>> {
    let rest = &text[start..];
    let scheme = rest
        .bytes()
        .take(MOST_SCHEME)
        .take_while(u8::is_ascii_alphabetic)
        .count();
    let is_url = scheme > 0 && rest[scheme..].starts_with("://");
    let is_folder = secret == Secret::PasswordOrFolder && rest.starts_with(['/', '~', '.']);
    if is_url || is_folder {
        return None;
    }
    let length = match secret {
        Secret::Key | Secret::Token => length_of_key(rest),
        Secret::Password | Secret::PasswordOrFolder => length_of_password(rest),
    };
    steps::add(length);
    let value = &rest[..length];
    let is_call = rest[length..].starts_with(['(', '[', '{']);
    let is_code = match secret {
        Secret::Key | Secret::Token => is_several_words(value),
        _ => value.contains('.') && !value.contains('-') && is_several_words(value),
    };
    if length < MOST_WORDS && (is_call || is_code) {
        return None;
    }
    let is_secret = match secret {
        Secret::Key => value.trim_end_matches('=').len() >= KEY_CHARS,
        Secret::Token => is_opaque(value),
        _ if is_equation => !value.is_empty(),
        // A sentence may go on.
        _ => value.chars().count() >= PASSWORD_CHARS && !value.chars().all(char::is_alphabetic),
    };
    (is_secret && !is_no_value(value)).then_some(start..start + length)
}

fn length_of_key(rest: &str) -> usize {
    let is_part =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'-');
    let key = rest.bytes().take_while(is_part).count();
    let padding = rest[key..].bytes().take(MOST_PADDING);
    key + padding.take_while(|byte| *byte == b'=').count()
}

fn length_of_password(rest: &str) -> usize {
    let ends = |c: char| {
        c.is_whitespace() || is_quote(c) || is_bracket(c) || matches!(c, '&' | ';' | ',' | '<' | '>' | '|')
    };
    let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
    word.trim_end_matches(['.', '!', '?', ':', '*', '\\']).len()
}

fn is_bracket(c: char) -> bool {
    matches!(c, '(' | ')' | '[' | ']' | '{' | '}')
}

#[cfg(test)]
mod tests {
    use super::super::nested::resolve;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// The values, as they stand in the source.
    fn found(source: &str) -> Vec<String> {
        let text = resolve(source).unwrap_or_else(|| source.to_owned());
        let mut hits = Vec::new();
        find(&text, source, &mut |range| hits.push(text[range].to_owned()));
        hits
    }

    #[test]
    fn what_is_called_a_secret_is_one() {
        for (text, secret) in [
            (r#"{"api_key": "k1"}"#, "k1"),
            (r#"{"password":"correct horse","a":"b"}"#, "correct horse"),
            ("{'password': 'it is'}", "it is"),
            ("password = \"a b\"", "a b"),
            ("config[\"password\"] = f'x1'", "x1"),
            ("\"password\" => \"x1\"", "x1"),
            ("password=hunter2&next=1", "hunter2"),
            ("password=hunter2 https://example.com", "hunter2"),
            ("user[password]=swordfish&x", "swordfish"),
            ("Server=db;Pwd=a.b-c;Database=x", "a.b-c"),
            ("password=correct-horse-battery", "correct-horse-battery"),
            ("Password: hunter2.", "hunter2"),
            ("**Password:** hunter2", "hunter2"),
            ("`password`: hunter2", "hunter2"),
            ("Your API key: 0123456789abcdef", "0123456789abcdef"),
            ("X-Api-Key: abcdef0123456789", "abcdef0123456789"),
            ("secret_key:\n  abcdef0123456789", "abcdef0123456789"),
            ("?token=abcdef0123456789abcd&x", "abcdef0123456789abcd"),
            ("{\"password\": \"cut off h", "cut off h"),
            ("password: 'cut off", "cut"),
            ("{\"authorization\": \"Bearer abc\"}", "abc"),
            (r#"{\"password\":\"a\\\"b\",\"c\":\"d\"}"#, r#"a"b"#),
            (
                r#"{\u0022password\u0022:\u0022a\\u0022b\u0022,\u0022c\u0022:1}"#,
                r#"a"b"#,
            ),
            (r#"{"password":"a\"b","c":"d"}"#, r#"a"b"#),
            ("%22password%22%3A%22a%20b%22%2C%22c%22", "a b"),
        ] {
            assert_eq!(found(text), [secret], "{text}");
        }
    }

    #[test]
    fn each_of_a_list_is_found() {
        let text = r#"{\"passwords\": [ \"a1\", \"none\",\n\"b,2\"], \"c\": \"d\"}"#;
        assert_eq!(found(text), ["a1", "b,2"]);
        assert_eq!(found("passwords=['a', 'b"), ["a", "b"]);
    }

    #[test]
    fn what_only_speaks_of_one_is_none() {
        for text in [
            "api_key: none",
            "password: string",
            "password: must be long",
            "The secret: \"never give up\"",
            "api_key=os.environ.get(x)",
            "api_key = settings.openai_api_key",
            "password = get_password()",
            "password=\"\"",
            "\"password\": \"****\"",
            "password=${DB_PASSWORD}",
            "PWD=/home/ada",
            "prompt_tokens: 123456789012",
            "max_tokens=1000000000000",
            "token: Hello",
            "token=abc",
            "\"token_count\": \"1234567890123\"",
            "secret::Secret::new",
            "password:\nUser2: ada",
            "API_KEY=\nOTHER_NAME_1234=x",
            "reset password: https://example.com/r/1",
            "{\"password\": {\"a\": 1}}",
            "{\"password\": 123456, \"api_key\": 12345678901234}",
            "{\"passwords\": [1, \"a\"]}",
            "authorization: required-for-all-requests",
            ":",
            "=",
            "password",
            "password=",
            "password:",
        ] {
            assert_eq!(found(text), Vec::<String>::new(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn keys_are_found_however_their_names_are_written(
            before in "[ ,({]?",
            name in "(api[_-]?key|ACCESS[_-]?TOKEN|Auth_token|refresh-token|secretkey|client_secret)[\"']?",
            sign in "[ \\t]{0,3}[:=][ \\t\\r\\n]{0,3}",
            key in "[0-9][A-Za-z0-9._~+/-]{11,16}={0,2}",
            quote in "[\"'`]?",
            after in "( \\)|)",
        ) {
            let text = format!("{before}{name}{sign}{quote}{key}{quote}{after}");
            let is_next_line = sign.contains('\n') && key.ends_with('=');
            if quote.is_empty() && (is_next_line || is_number(&key)) {
                return Ok(());
            }
            prop_assert_eq!(found(&text), [key], "{}", text);
        }
    }

    fn is_number(key: &str) -> bool {
        key.parse::<f64>().is_ok()
    }

    #[test]
    fn a_quoted_value_is_found_to_its_end_at_any_depth() {
        let password = r#"a"b\c\"d\n'e"#;
        let mut text = json!({"password": password, "next": "kept"}).to_string();
        for depth in 0..7 {
            let mut hits = Vec::new();
            let resolved = resolve(&text).expect("it has escapes");
            find(&resolved, &text, &mut |range| hits.push(range));
            assert_eq!(hits.len(), 1, "{depth}: {text}");
            let (before, after) = (&resolved[..hits[0].start], &resolved[hits[0].end..]);
            assert!(
                before.ends_with("\"password\":\"") || before.ends_with("\":\""),
                "{depth}: {before}"
            );
            assert!(
                after.starts_with('"') && !after.contains('e') || after.starts_with("\",\"next"),
                "{after}"
            );
            text = json!(text).to_string();
            text = text[1..text.len() - 1].to_owned();
        }
    }
}
