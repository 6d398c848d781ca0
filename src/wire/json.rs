//! Small tools for reading JSON without changing it: kinds, faults with their place, one field of an object.
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// What sort of JSON value stands somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// A number token without fraction and exponent. Its size does not matter.
    Integer,
    /// A number token with a fraction or an exponent: `1.0`, `1e3`.
    Fraction,
    /// A string.
    String,
    /// A list.
    List,
    /// An object.
    Object,
}

impl JsonKind {
    /// The kind of a value.
    pub fn of(value: &RawValue) -> Self {
        let token = value.get().as_bytes();
        match token.first() {
            Some(b't' | b'f') => JsonKind::Boolean,
            Some(b'"') => JsonKind::String,
            Some(b'[') => JsonKind::List,
            Some(b'{') => JsonKind::Object,
            Some(b'-' | b'0'..=b'9') if token.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) => {
                JsonKind::Fraction
            }
            Some(b'-' | b'0'..=b'9') => JsonKind::Integer,
            _ => JsonKind::Null,
        }
    }

    /// The kind of a whole text, white space around it allowed.
    ///
    /// # Errors
    /// The text is not one JSON value.
    pub fn of_text(text: &str) -> Result<Self, Malformed> {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(value) => Ok(Self::of(value)),
            Err(error) => Err(Malformed::new(text, &error)),
        }
    }

    /// The kind in words, with its article.
    pub fn as_str(self) -> &'static str {
        match self {
            JsonKind::Null => "null",
            JsonKind::Boolean => "a boolean",
            JsonKind::Integer => "an integer",
            JsonKind::Fraction => "a number with a fraction or an exponent",
            JsonKind::String => "a string",
            JsonKind::List => "a list",
            JsonKind::Object => "an object",
        }
    }
}

impl fmt::Display for JsonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not JSON: what is wrong and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not valid JSON at line {line}, column {column} (byte {byte}): {fault}")]
pub struct Malformed {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// Offset of the offending byte, from 0; the text's length where the text ends too early.
    pub byte: usize,
    /// What was found or expected there.
    pub fault: String,
}

impl Malformed {
    /// Turns serde_json's account of a fault in `text` into ours, which adds the byte offset.
    pub fn new(text: &str, error: &serde_json::Error) -> Self {
        let (line, column) = (error.line().max(1), error.column());
        let line_start = match line {
            1 => 0,
            n => text
                .match_indices('\n')
                .nth(n - 2)
                .map_or(text.len(), |(at, _)| at + 1),
        };
        let byte = match error.is_eof() {
            true => text.len(),
            false => (line_start + column).saturating_sub(1).min(text.len()),
        };
        let whole = error.to_string();
        let fault = whole
            .rsplit_once(" at line ")
            .map_or(whole.as_str(), |(fault, _)| fault);
        let fault = match foreign_word(text, byte) {
            Some((word, instead)) if !error.is_eof() => {
                format!("{word} is no value in JSON, {instead} is")
            }
            _ => fault.to_owned(),
        };
        Self {
            line,
            column: column.max(1),
            byte,
            fault,
        }
    }

    /// A fault at a byte of `text`.
    pub(super) fn at(text: &str, byte: usize, fault: &str) -> Self {
        let (line, column) = place(text, byte);
        Self {
            line,
            column,
            byte: byte.min(text.len()),
            fault: fault.to_owned(),
        }
    }
}

/// Words that programs write where JSON has another, and that word.
const FOREIGN_WORDS: [(&str, &str); 12] = [
    ("-Infinity", "null"),
    ("Infinity", "null"),
    ("-inf", "null"),
    ("inf", "null"),
    ("-NaN", "null"),
    ("NaN", "null"),
    ("-nan", "null"),
    ("nan", "null"),
    ("undefined", "null"),
    ("None", "null"),
    ("True", "true"),
    ("False", "false"),
];

/// The foreign word that stands at a byte of a text, and what to write instead. Only these words are ever told, so that
/// no content is.
fn foreign_word(text: &str, byte: usize) -> Option<(&'static str, &'static str)> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'_' | b'.');
    let bytes = text.as_bytes();
    // Longer than any of the words, so that the rest of the text costs nothing.
    let before = bytes.get(byte.saturating_sub(16)..byte)?;
    let start = byte - before.iter().rev().take_while(|byte| is_part(byte)).count();
    let end = start
        + bytes[start..]
            .iter()
            .take(16)
            .take_while(|byte| is_part(byte))
            .count();
    let word = text.get(start..end)?;
    FOREIGN_WORDS.into_iter().find(|(foreign, _)| *foreign == word)
}

/// Line and column, both from 1 and the column in bytes, of a byte of a text.
pub(super) fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.as_bytes().get(..byte).unwrap_or(text.as_bytes());
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count();
    (line, column)
}

/// A text without the UTF-8 byte order mark that some programs write before it.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Cuts JSON's white space (not Unicode's) at both ends.
pub fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

/// Cuts the same at the beginning of bytes.
pub fn trim_start(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
    &bytes[blanks..]
}

/// Cuts the same at the end of bytes.
pub fn trim_end(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().rev().take_while(|byte| is_blank(**byte)).count();
    &bytes[..bytes.len() - blanks]
}

/// Whether a byte is JSON's white space. What ASCII calls so besides, a form feed, is malformed between two tokens.
pub fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A string that borrows from the input wherever it holds no escapes.
#[derive(Debug)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A string's content. `None` for what is not a string, and for one with half a surrogate pair in an
/// escape (`"\ud83d"`), which stands for no text at all.
pub fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get())
        .ok()
        .map(|text| text.0)
}

/// A key's content; `None` for one with half a surrogate pair, which is nobody's key.
pub(super) fn key_text(key: &RawValue) -> Option<Cow<'_, str>> {
    let token = key.get();
    match token.contains('\\') {
        true => text_of(key),
        false => token.strip_prefix('"')?.strip_suffix('"').map(Cow::Borrowed),
    }
}

/// Hands each top-level field of a JSON object to `take`, in order, without looking into the values that
/// `wanted` declines. Does not recurse, however deep the object is.
pub fn for_each_field<'a>(
    object: &'a str,
    wanted: impl FnMut(&str) -> Option<usize>,
    take: impl FnMut(usize, &'a RawValue),
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    deserializer.deserialize_map(FieldVisitor { wanted, take })?;
    deserializer.end()
}

struct FieldVisitor<W, T> {
    wanted: W,
    take: T,
}

impl<'de, W: FnMut(&str) -> Option<usize>, T: FnMut(usize, &'de RawValue)> Visitor<'de>
    for FieldVisitor<W, T>
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<&RawValue>()? {
            match key_text(key).and_then(|key| (self.wanted)(&key)) {
                Some(slot) => (self.take)(slot, map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The value of one top-level key of an object; of several, the last, as Python reads it. `None` if the text is
/// not an object, is not JSON, or has no such key.
pub fn field<'a>(object: &'a [u8], key: &str) -> Option<&'a RawValue> {
    let object = std::str::from_utf8(object).ok()?;
    let mut found = None;
    for_each_field(
        object,
        |k| (k == key).then_some(0),
        |_, value| found = Some(value),
    )
    .ok()?;
    found
}

/// The kinds of a list's elements, in order, handed to `see`.
pub fn for_each_kind(list: &RawValue, mut see: impl FnMut(JsonKind)) -> Result<(), serde_json::Error> {
    for_each_element(list, |element| see(JsonKind::of(element)))
}

/// A list's elements, in order, handed to `see`. Does not recurse, however deep they are.
///
/// # Errors
/// The value is no list.
pub fn for_each_element<'a>(
    list: &'a RawValue,
    see: impl FnMut(&'a RawValue),
) -> Result<(), serde_json::Error> {
    struct Elements<F>(F);
    impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Elements<F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(element) = list.next_element::<&'de RawValue>()? {
                (self.0)(element);
            }
            Ok(())
        }
    }
    serde_json::Deserializer::from_str(list.get()).deserialize_seq(Elements(see))
}

/// Writes a text as a JSON string, quotes included.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        if *byte < 0x20 {
            out.extend_from_slice(b"\\u00");
            out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.extend([b'\\', *byte]);
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
