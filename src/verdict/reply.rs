//! What the API's replies say: one fate an event, and the `detail` of an error.
use super::Fate;
use crate::wire::json::{self, JsonKind, Text};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Longest text of the upstream's that goes into a sentence, in characters.
const MAX_CHARS: usize = 300;

/// How many parts of a fault's place are told: `body.batched_log_events.3.metadata`. What is further in may be a client's key.
const PLACE_PARTS: usize = 4;

/// How `error_in_log` begins for an event that was stored, but will not be analysed (contract.md section 1).
const QUOTA: &str = "Max usage quota reached";

/// The fates of `events` events, in the order sent, from the body of a 2xx.
///
/// # Errors
/// The body does not tell: the fault as the end of a sentence.
pub(super) fn fates(body: &[u8], events: usize) -> Result<Vec<Fate>, String> {
    let Ok(Reply { logged_events }) = serde_json::from_slice(body) else {
        return Err("its body is not a list of logged_events".to_owned());
    };
    if logged_events.len() != events {
        return Err(format!(
            "its list has {} logged_events for {events} events",
            logged_events.len()
        ));
    }
    let fates: Option<Vec<Fate>> = logged_events.iter().map(Element::fate).collect();
    fates.ok_or_else(|| "one of its logged_events is neither an event nor an error".to_owned())
}

/// The body of a 2xx with `mask` applied to its errors. `None`: that changes nothing.
pub fn mask_errors<'a>(body: &'a [u8], mask: impl Fn(&'a str) -> Cow<'a, str>) -> Option<Vec<u8>> {
    memchr::memmem::find(body, b"error_in_log")?;
    let Reply { logged_events } = serde_json::from_slice(body).ok()?;
    let mut out = Vec::new();
    let mut done = 0;
    for error in logged_events.iter().filter_map(|element| element.error) {
        let Cow::Owned(masked) = mask(error.get()) else {
            continue;
        };
        // It is a piece of the body.
        let start = (error.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
        out.extend_from_slice(body.get(done..start)?);
        out.extend_from_slice(masked.as_bytes());
        done = start + error.get().len();
    }
    if done == 0 {
        return None;
    }
    out.extend_from_slice(body.get(done..)?);
    Some(out)
}

#[derive(serde::Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    logged_events: Vec<Element<'a>>,
}

/// What counts of one element. The echoed event itself can be large and is skipped.
#[derive(Default)]
struct Element<'a> {
    error: Option<&'a RawValue>,
    has_input: bool,
    has_task_id: bool,
}

impl Element<'_> {
    fn fate(&self) -> Option<Fate> {
        match self.error.filter(|error| JsonKind::of(error) != JsonKind::Null) {
            // An event may bring a field `error_in_log` of its own, which is then echoed beside its input.
            Some(error) if !self.has_input => {
                let text = json::text_of(error).unwrap_or(error.get().into());
                Some(match text.starts_with(QUOTA) {
                    true => Fate::OverQuota(printable(&text)),
                    false => Fate::Refused(printable(&text)),
                })
            }
            _ => (self.has_input || self.has_task_id).then_some(Fate::Accepted),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Element<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut element = Element::default();
                while let Some(Text(key)) = map.next_key()? {
                    if key == "error_in_log" {
                        element.error = Some(map.next_value()?);
                        continue;
                    }
                    element.has_input |= key == "input";
                    element.has_task_id |= key == "task_id";
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(element)
            }
        }
        deserializer.deserialize_map(ElementVisitor)
    }
}

/// What an error body's `detail` says, fit for a log line. A list of faults (422) is told by place and fault alone, since
/// it quotes the event's content beside them. `None` if the body has nothing that can be shown.
pub(super) fn detail(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Fault<'a> {
        #[serde(borrow)]
        loc: Vec<&'a RawValue>,
        msg: String,
    }
    let detail = json::field(body, "detail")?;
    match JsonKind::of(detail) {
        JsonKind::String => json::text_of(detail).map(|text| printable(&text)),
        JsonKind::List => {
            let faults: Vec<Fault<'_>> = serde_json::from_str(detail.get()).ok()?;
            let first = faults.first()?;
            let place: Vec<_> = first
                .loc
                .iter()
                .take(PLACE_PARTS)
                .map(|part| json::text_of(part).unwrap_or(part.get().into()))
                .collect();
            let more = match faults.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            Some(format!(
                "{}{more}",
                printable(&format!("{}: {}", place.join("."), first.msg))
            ))
        }
        _ => None,
    }
}

/// Cuts out what stands between `input_value=` and `, input_type=`, as pydantic quotes an event in the text of its errors.
fn without_input(text: &str) -> Cow<'_, str> {
    const START: &str = "input_value=";
    const END: &str = ", input_type=";
    let Some(first) = text.find(START) else {
        return text.into();
    };
    // An event may hold such marks itself: all between the first and the last is taken for its content.
    let end = text.rfind(END).filter(|end| *end >= first).unwrap_or(text.len());
    format!("{}...{}", &text[..first + START.len()], &text[end..]).into()
}

/// A foreign text on one line: control characters and direction marks escaped, at most [`MAX_CHARS`] characters of it, and nothing
/// that pydantic quotes of an event.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in without_input(text).chars().enumerate() {
        if at == MAX_CHARS {
            out.push('…');
            break;
        }
        match c {
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
