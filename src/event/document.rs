//! How large an event is as a document of the API's database. Pure.
//!
//! The database takes documents of up to 16 MiB, counted as BSON. There each element of a list bears its index as a text, and each
//! number takes four or eight bytes, so a list of small numbers grows to six or eight times its JSON. An event that is over the
//! limit loses its whole batch, and keeps the API busy for up to a minute.
//!
//! What the API adds to the document is not known exactly, so there are two bounds. The lower one counts the event's own fields
//! once. The upper one counts every number as eight bytes, counts unknown fields twice (the API copies them into `metadata`)
//! and leaves [`ADDED_BY_API`] for the rest. Both come from one pass over the text, without recursion.

use super::rules;
use crate::wire::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Largest document that the API's database takes, in bytes of BSON.
pub const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// What the API adds to a document by itself: ids, times, the results of its analysis.
const ADDED_BY_API: u64 = 64 << 10;

/// A list's element can take so many times its JSON: `1,` becomes a type, an index of up to seven digits, a NUL and eight
/// bytes, and an unknown field counts twice.
const MOST_GROWTH: u64 = 17;

/// No event with less JSON than this can be too large: about 980,000 bytes.
const NEVER_TOO_LARGE: u64 = (MAX_DOCUMENT_BYTES - ADDED_BY_API) / MOST_GROWTH;

/// Bytes of a document around its elements: a length and a NUL.
const DOCUMENT: u64 = 5;

/// Fields of a task. The API drops an event's own fields of these names, so they do not count towards the lower bound.
const DROPPED: [&str; 17] = [
    "id",
    "org_id",
    "additional_input",
    "additional_output",
    "data",
    "last_eval",
    "human_eval",
    "sentiment",
    "sentiment_score",
    "sentiment_magnitude",
    "language",
    "events",
    "notes",
    "topics",
    "task_position",
    "is_last_task",
    "evaluation_source",
];

/// Whether an event fits into the API's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentSize {
    /// It does.
    Fits,
    /// It may be over the limit.
    Doubtful,
    /// It is over the limit.
    TooLarge,
}

/// Judges an event, which must be JSON. What is no JSON fits. Takes no time below about 980,000 bytes.
pub fn document_size(event: &[u8]) -> DocumentSize {
    if (event.len() as u64) < NEVER_TOO_LARGE {
        return DocumentSize::Fits;
    }
    let Ok(text) = std::str::from_utf8(event) else {
        return DocumentSize::Fits;
    };
    let bounds = bounds(text, Keys::AllDistinct);
    if bounds.upper <= MAX_DOCUMENT_BYTES {
        DocumentSize::Fits
    } else if bounds.lower > MAX_DOCUMENT_BYTES
        // Of a key that stands twice, only the last value is stored: such events are rare, and take a second pass.
        && self::bounds(text, Keys::Compared).lower > MAX_DOCUMENT_BYTES
    {
        DocumentSize::TooLarge
    } else {
        DocumentSize::Doubtful
    }
}

/// Bytes of BSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bounds {
    lower: u64,
    upper: u64,
}

impl Bounds {
    const fn exact(bytes: u64) -> Self {
        Self {
            lower: bytes,
            upper: bytes,
        }
    }

    fn add(&mut self, other: Bounds) {
        self.lower += other.lower;
        self.upper += other.upper;
    }
}

/// How the keys of an object are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Each for another: quick, but the lower bound is too high where a key stands twice.
    AllDistinct,
    /// By a hash of their text.
    Compared,
}

/// An object or a list that is open.
#[derive(Debug)]
struct Open {
    is_object: bool,
    /// Without the value that is being read.
    size: Bounds,
    /// Elements so far.
    elements: u64,
    /// The key of the value that is being read, and the bytes of its element but for the value.
    key: Option<(Cow<'static, str>, u64)>,
    /// What each key took so far, where keys are compared.
    seen: HashMap<u64, u64>,
}

impl Open {
    fn new(is_object: bool) -> Self {
        Self {
            is_object,
            size: Bounds::exact(DOCUMENT),
            elements: 0,
            key: None,
            seen: HashMap::new(),
        }
    }
}

/// The bounds of a JSON object as a document; of anything else, of the values in it.
fn bounds(text: &str, keys: Keys) -> Bounds {
    let bytes = text.as_bytes();
    let mut open: Vec<Open> = Vec::new();
    let mut whole = Bounds::exact(0);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let (end, value) = match byte {
            b'"' => {
                let end = string_end(bytes, at);
                let outermost = open.len() == 1;
                match open.last_mut().filter(|top| top.is_object && top.key.is_none()) {
                    Some(top) => {
                        top.key = Some(key_of(&text[at..end], keys, outermost));
                        (end, None)
                    }
                    None => (end, Some(Bounds::exact(5 + decoded_length(&bytes[at..end])))),
                }
            }
            b'{' | b'[' => {
                open.push(Open::new(*byte == b'{'));
                (at + 1, None)
            }
            b'}' | b']' => (at + 1, open.pop().map(|closed| closed.size)),
            b't' => (at + 4, Some(Bounds::exact(1))),
            b'f' => (at + 5, Some(Bounds::exact(1))),
            b'n' => (at + 4, Some(Bounds::exact(0))),
            b'-' | b'0'..=b'9' => {
                let end = number_end(bytes, at);
                (end, Some(number(&text[at..end])))
            }
            _ => (at + 1, None),
        };
        if let Some(value) = value {
            let depth = open.len();
            match open.last_mut() {
                Some(top) => top.take(value, depth == 1, keys),
                None => whole.add(value),
            }
        }
        at = end;
    }
    whole.upper += ADDED_BY_API;
    whole
}

impl Open {
    /// Takes a value that has ended. `outermost`: this is the event itself.
    fn take(&mut self, value: Bounds, outermost: bool, keys: Keys) {
        let (key, around) = match (self.is_object, self.key.take()) {
            (true, Some((key, around))) => (Some(key), around),
            _ => (None, 2 + digits(self.elements)),
        };
        self.elements += 1;
        let mut element = Bounds::exact(around);
        element.add(value);
        if let Some(key) = key {
            if outermost && DROPPED.contains(&key.as_ref()) {
                element.lower = 0;
            }
            if outermost && rules::slot(&key).is_none() {
                element.upper *= 2;
            }
            if keys == Keys::Compared {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                let before = self.seen.insert(hasher.finish(), element.lower);
                self.size.lower = self.size.lower.saturating_sub(before.unwrap_or_default());
            }
        }
        self.size.add(element);
    }
}

/// A key's text, where that is wanted, and the bytes of its element but for the value.
fn key_of(token: &str, keys: Keys, outermost: bool) -> (Cow<'static, str>, u64) {
    let around = 2 + decoded_length(token.as_bytes());
    let wanted = outermost || keys == Keys::Compared;
    let text = wanted.then(|| {
        serde_json::from_str::<&RawValue>(token)
            .ok()
            .and_then(json::text_of)
    });
    let text = text
        .flatten()
        .map_or(Cow::Borrowed(""), |text| Cow::Owned(text.into_owned()));
    (text, around)
}

/// The place after the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(next) = bytes
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += next;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

/// Bytes of a string, given with its quotes, as UTF-8 without escapes.
fn decoded_length(token: &[u8]) -> u64 {
    let mut length = token.len().saturating_sub(2) as u64;
    let mut rest = token;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let escape = rest
            .get(at + 2..at + 6)
            .filter(|_| rest.get(at + 1) == Some(&b'u'));
        let unit = escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let (written, stored) = match unit {
            None => (2, 1),
            Some(0..0x80) => (6, 1),
            Some(0x80..0x800) => (6, 2),
            // Each half of a pair stands for half of the four bytes.
            Some(0xd800..0xe000) => (6, 2),
            Some(_) => (6, 3),
        };
        length = length.saturating_sub(written - stored);
        rest = rest.get(at + written as usize..).unwrap_or_default();
    }
    length
}

fn number_end(bytes: &[u8], start: usize) -> usize {
    let more = bytes[start..]
        .iter()
        .take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
    start + more.count()
}

/// An integer that fits takes four bytes, all others eight.
fn number(token: &str) -> Bounds {
    let is_small = token.len() <= 11 && token.parse::<i32>().is_ok();
    Bounds {
        lower: if is_small { 4 } else { 8 },
        upper: 8,
    }
}

/// Decimal digits of an index.
fn digits(index: u64) -> u64 {
    u64::from(index.checked_ilog10().unwrap_or_default()) + 1
}

#[cfg(test)]
mod tests;
