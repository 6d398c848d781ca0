//! Shapes of the wire: what stands between the bytes of a request and an event.
//!
//! Bodies are cut into events here, without looking into them: an event stays the very bytes that came. Nothing recurses,
//! so that depth costs memory of one byte a level and no stack.
pub mod json;
pub mod reply;

use json::{JsonKind, Malformed};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The key that a log request's events stand under.
pub const BATCH_KEY: &str = "batched_log_events";

/// Why a request body cannot be cut into events, as a sentence with the remedy. Holds nothing of the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// There is no body, or only white space.
    #[error("the body is empty: expected {expected}")]
    Empty {
        /// What the route takes.
        expected: &'static str,
    },
    /// The body is not UTF-8.
    #[error("the body is not valid UTF-8 at byte {byte}: send JSON as UTF-8, uncompressed")]
    Utf8 {
        /// Offset of the first byte that is wrong, from 0.
        byte: usize,
    },
    /// The body is not JSON.
    #[error("the body is {fault}. Expected {expected}")]
    Malformed {
        /// What is wrong, and where.
        fault: Malformed,
        /// What the route takes.
        expected: &'static str,
    },
    /// The body is JSON of another kind.
    #[error("the body is {found}: expected {expected}")]
    WrongShape {
        /// What came.
        found: JsonKind,
        /// What the route takes.
        expected: &'static str,
    },
    /// The body is an object without the list of events.
    #[error("the body has no batched_log_events: expected {expected}")]
    NoList {
        /// What the route takes.
        expected: &'static str,
    },
    /// The list of events is something else.
    #[error("batched_log_events is not a list (line {line}, column {column}): expected {expected}")]
    NotAList {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
        /// What the route takes.
        expected: &'static str,
    },
    /// More events than can be held at once.
    #[error(
        "the body has more than {most} events: send it in smaller parts, or raise intake.max_in_flight_bytes"
    )]
    TooMany {
        /// As many are taken.
        most: usize,
    },
}

const EXPECTED_BATCH: &str = "{\"batched_log_events\": [{\"input\": \"...\", \"output\": \"...\"}]}";
const EXPECTED_ANY: &str = "one event such as {\"input\": \"...\", \"output\": \"...\"}, a list of events, \
                            or {\"batched_log_events\": [...]}";

/// Cuts `{"batched_log_events": [...]}` into its events. Other top-level keys are ignored; of several lists the
/// last counts, as in the API. The events may be any JSON: [`crate::wire`] does not look into them.
///
/// # Errors
/// Not UTF-8, not JSON, not an object, or no list under that key. The API answers 422 or 400 to all of these.
/// More than `most` events: a list of tiny ones would take many times the body's own memory.
pub fn split_batch(body: &[u8], most: usize) -> Result<Vec<&RawValue>, BodyError> {
    let expected = EXPECTED_BATCH;
    match read(body, expected)? {
        (text, b'{') => read_batch(text, expected, most)?.ok_or(BodyError::NoList { expected }),
        (text, _) => Err(wrong_shape(text, expected)),
    }
}

/// Cuts the body of the friendly `POST /log`: one event object, a list of events, or the batched form. An object
/// that has the key `batched_log_events` is the batched form, whatever else is in it.
///
/// # Errors
/// As [`split_batch`], but an object without the list is one event.
pub fn split_any(body: &[u8], most: usize) -> Result<Vec<&RawValue>, BodyError> {
    let expected = EXPECTED_ANY;
    let (text, first) = read(body, expected)?;
    let malformed = |error| BodyError::Malformed {
        fault: Malformed::new(text, &error),
        expected,
    };
    match first {
        b'[' => {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            let list = List { most }.deserialize(&mut deserializer);
            let list = list.and_then(|events| deserializer.end().map(|()| events));
            list.map_err(malformed)?.ok_or(BodyError::TooMany { most })
        }
        b'{' => match read_batch(text, expected, most)? {
            Some(events) => Ok(events),
            None => Ok(vec![serde_json::from_str(text).map_err(malformed)?]),
        },
        _ => Err(wrong_shape(text, expected)),
    }
}

/// The body as text, and its first byte that is not white space.
fn read<'a>(body: &'a [u8], expected: &'static str) -> Result<(&'a str, u8), BodyError> {
    // Once for all: serde_json need not check any string again.
    let text = std::str::from_utf8(body).map_err(|error| BodyError::Utf8 {
        byte: error.valid_up_to(),
    })?;
    match json::trim(text).as_bytes() {
        [first, ..] => Ok((text, *first)),
        [] => Err(BodyError::Empty { expected }),
    }
}

/// Why a text that begins like neither an object nor a list was not taken.
fn wrong_shape(text: &str, expected: &'static str) -> BodyError {
    match JsonKind::of_text(text) {
        Ok(found) => BodyError::WrongShape { found, expected },
        Err(fault) => BodyError::Malformed { fault, expected },
    }
}

/// The list of the batched form; `None` if there is no such key.
fn read_batch<'a>(
    text: &'a str,
    expected: &'static str,
    most: usize,
) -> Result<Option<Vec<&'a RawValue>>, BodyError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = deserializer
        .deserialize_map(BatchVisitor { most })
        .and_then(|found| deserializer.end().map(|()| found));
    let found = found.map_err(|error| {
        let fault = Malformed::new(text, &error);
        match error.is_data() {
            // The only type that the visitor insists on is the list's.
            true => BodyError::NotAList {
                line: fault.line,
                column: fault.column,
                expected,
            },
            false => BodyError::Malformed { fault, expected },
        }
    })?;
    match found {
        None => Ok(None),
        Some(list) => list.map(Some).ok_or(BodyError::TooMany { most }),
    }
}

/// `None` for a list of more than that.
type Bounded<'a> = Option<Vec<&'a RawValue>>;

/// A list of any values; what is over `most` is checked and not kept.
struct List {
    most: usize,
}

impl<'de> DeserializeSeed<'de> for List {
    type Value = Bounded<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Bounded<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut events = Vec::new();
        while let Some(event) = list.next_element()? {
            if events.len() == self.most {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
            events.push(event);
        }
        Ok(Some(events))
    }
}

struct BatchVisitor {
    most: usize,
}

impl<'de> Visitor<'de> for BatchVisitor {
    /// `None` without the key.
    type Value = Option<Bounded<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut events = None;
        while let Some(key) = map.next_key::<&RawValue>()? {
            if json::key_text(key).as_deref() == Some(BATCH_KEY) {
                // Of several the last counts; the one before must not stay meanwhile.
                drop(events.take());
                events = Some(map.next_value_seed(List { most: self.most })?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests;
