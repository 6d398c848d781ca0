//! What the API's replies say: one fate an event, and the `detail` of an error.
use super::Fate;
use crate::visible::is_hidden;
use crate::wire::json::{self, JsonKind, Text};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Longest text of the upstream's that goes into a sentence, in characters.
const MAX_CHARS: usize = 300;

/// How many parts of a fault's place are told: `body.batched_log_events.3.metadata`. What is further in may be a client's key.
const PLACE_PARTS: usize = 4;

/// How `error_in_log` begins for an event that was stored, but will not be analysed (contract.md section 1).
const QUOTA: &str = "Max usage quota reached";

/// The fates of `events` events, in the order sent, from the body of a 2xx. Elements beyond those are not read.
///
/// # Errors
/// The body does not tell: the fault as the end of a sentence.
pub(super) fn fates(body: &[u8], events: usize) -> Result<Vec<Fate>, String> {
    let (mut fates, mut elements, mut odd) = (Vec::new(), 0, false);
    let read = each_element(body, |element| {
        elements += 1;
        match element.fate() {
            _ if elements > events => return false,
            Some(fate) => fates.push(fate),
            None => odd = true,
        }
        true
    });
    match read {
        _ if elements > events => Err(format!(
            "its list has {elements} logged_events or more for {events} events"
        )),
        Err(_) => Err("its body is not a list of logged_events".to_owned()),
        Ok(()) if elements < events => Err(format!(
            "its list has {elements} logged_events for {events} events"
        )),
        Ok(()) if odd => Err("one of its logged_events is neither an event nor an error".to_owned()),
        Ok(()) => Ok(fates),
    }
}

/// The body of a 2xx with `mask` applied to its errors. `None`: that changes nothing.
pub fn mask_errors<'a>(body: &'a [u8], mask: impl Fn(&'a str) -> Cow<'a, str>) -> Option<Vec<u8>> {
    memchr::memmem::find(body, b"error_in_log")?;
    let mut out = Vec::new();
    let mut done = 0;
    let read = each_element(body, |element| {
        let Some((error, Cow::Owned(masked))) = element.error.map(|error| (error, mask(error.get()))) else {
            return true;
        };
        // It is a piece of the body.
        let start = (error.get().as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
        out.extend_from_slice(body.get(done..start).unwrap_or_default());
        out.extend_from_slice(masked.as_bytes());
        done = start + error.get().len();
        true
    });
    if done == 0 || read.is_err() {
        return None;
    }
    out.extend_from_slice(body.get(done..)?);
    Some(out)
}

/// Hands out the elements of `logged_events` one by one, so that a long list takes no memory; until `take` has had enough.
fn each_element<'a>(body: &'a [u8], take: impl FnMut(Element<'a>) -> bool) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Deserializer::deserialize_map(&mut deserializer, ReplyVisitor(take))?;
    deserializer.end()
}

/// The whole reply.
struct ReplyVisitor<F>(F);

impl<'a, F: FnMut(Element<'a>) -> bool> Visitor<'a> for ReplyVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with logged_events")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(Text(key)) = map.next_key()? {
            if key != "logged_events" {
                map.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut found, true) {
                return Err(A::Error::duplicate_field("logged_events"));
            } else {
                map.next_value_seed(Elements(&mut self.0))?;
            }
        }
        match found {
            true => Ok(()),
            false => Err(A::Error::missing_field("logged_events")),
        }
    }
}

/// Its list.
struct Elements<'f, F>(&'f mut F);

impl<'a, F: FnMut(Element<'a>) -> bool> DeserializeSeed<'a> for Elements<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a, F: FnMut(Element<'a>) -> bool> Visitor<'a> for Elements<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            if !(self.0)(element) {
                return Err(A::Error::custom("enough"));
            }
        }
        Ok(())
    }
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

/// A foreign text on one line: what is not seen escaped, at most [`MAX_CHARS`] characters of it, and nothing
/// that pydantic quotes of an event.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in without_input(text).chars().enumerate() {
        if at == MAX_CHARS {
            out.push('…');
            break;
        }
        match is_hidden(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_up_to_one_element_more_than_was_sent() {
        let mut seen = 0;
        let list = format!(r#"{{"logged_events":[{}{{}}]}}"#, "{},".repeat(1_000));
        let read = each_element(list.as_bytes(), |_| {
            seen += 1;
            seen < 3
        });
        assert!(read.is_err());
        assert_eq!(seen, 3);
        // What follows is not even looked at.
        let longer = br#"{"logged_events":[{"input":"a"},{"input":"b"},{"input":"c"}]}"#;
        let fault = fates(longer, 1).expect_err("three for one");
        assert!(fault.contains("2 logged_events or more for 1"), "{fault}");
    }

    #[test]
    fn errors_are_masked_and_all_else_stays_as_it_is() {
        let body = br#"{"logged_events": [{"input":"KEY"}, {"error_in_log": "a KEY b"}, {"error_in_log":null}, {"error_in_log":["KEY"]}], "x":"KEY"}"#;
        let mask = |text: &'static str| match text.contains("KEY") {
            true => Cow::Owned(text.replace("KEY", "***")),
            false => Cow::Borrowed(text),
        };
        let masked = mask_errors(body, mask).expect("two are");
        assert_eq!(
            String::from_utf8(masked).expect("text"),
            r#"{"logged_events": [{"input":"KEY"}, {"error_in_log": "a *** b"}, {"error_in_log":null}, {"error_in_log":["***"]}], "x":"KEY"}"#
        );
        assert_eq!(
            mask_errors(br#"{"logged_events":[{"error_in_log":"fine"}]}"#, mask),
            None
        );
        assert_eq!(mask_errors(b"error_in_log", mask), None);
    }
}
