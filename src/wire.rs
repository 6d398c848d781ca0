//! Shapes of the wire: what stands between the bytes of a request and an event.
//!
//! Bodies are cut into events here ([`mod@split`]), without looking into them: an event stays the very bytes that came. Nothing
//! recurses, so that depth costs no stack.
pub mod json;
pub mod reply;
pub mod split;

use json::{JsonKind, Malformed};
use split::{Element, Fault, FaultKind, Form, Splitter};

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
    /// A body that was taken as a stream is wrong at some byte.
    #[error("the body cannot be read as JSON at byte {byte}: {what}. Expected {expected}")]
    Stream {
        /// Offset in the body, from 0.
        byte: u64,
        /// What is wrong there.
        what: &'static str,
        /// What the route takes.
        expected: &'static str,
    },
}

const EXPECTED_BATCH: &str = "{\"batched_log_events\": [{\"input\": \"...\", \"output\": \"...\"}]}";
const EXPECTED_ANY: &str = "one event such as {\"input\": \"...\", \"output\": \"...\"}, a list of events, \
                            or {\"batched_log_events\": [...]}";

impl Form {
    fn expected(self) -> &'static str {
        match self {
            Form::Batch => EXPECTED_BATCH,
            Form::Any => EXPECTED_ANY,
        }
    }
}

/// Cuts a whole body into its events, of which each may be any text: [`crate::wire`] does not look into them. Of several
/// lists the events of all are taken, in order. `None` if there are more than `most` events; then the body can be cut as
/// well, by a [`Splitter`]. An event of more than `hold` bytes is cut short.
///
/// # Errors
/// The body cannot be cut. The sentence tells the first thing that is wrong with it as JSON.
pub fn split_whole(
    body: &[u8],
    form: Form,
    hold: usize,
    most: usize,
) -> Result<Option<Vec<Element<'_>>>, BodyError> {
    let mut splitter = Splitter::new(form, hold);
    let (mut events, mut is_over) = (Vec::new(), false);
    let mut rest = body;
    loop {
        match splitter.next(&mut rest) {
            Ok(Some(_)) if events.len() == most => is_over = true,
            Ok(Some(event)) => {
                let start = usize::try_from(event.start).unwrap_or(body.len());
                let text = body.get(start..start + event.text.len()).unwrap_or_default();
                events.push(Element { text, ..event });
            }
            Ok(None) => break,
            Err(fault) => return Err(explain(body, form, fault)),
        }
    }
    match splitter.finish() {
        Err(fault) => Err(explain(body, form, fault)),
        Ok(()) => Ok((!is_over).then_some(events)),
    }
}

/// Why a body that is here as a whole cannot be cut, with its line and column.
fn explain(body: &[u8], form: Form, fault: Fault) -> BodyError {
    let expected = form.expected();
    let (marked, body) = (body.len(), json::without_mark(body));
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => return utf8(error.valid_up_to()),
    };
    if json::trim(text).is_empty() {
        return BodyError::Empty { expected };
    }
    let mark = (marked - body.len()) as u64;
    let byte = usize::try_from(fault.byte.saturating_sub(mark)).unwrap_or(text.len());
    let found = match (JsonKind::of_text(text), fault.kind) {
        (Ok(found), _) => found,
        // The same place in other words, which know what was expected there.
        (Err(first), FaultKind::Syntax(what)) if first.byte == byte && byte < text.len() => {
            let fault = Malformed::at(text, byte, what);
            return BodyError::Malformed { fault, expected };
        }
        (Err(fault), _) => return BodyError::Malformed { fault, expected },
    };
    match fault.kind {
        FaultKind::Empty => BodyError::Empty { expected },
        FaultKind::WrongShape => BodyError::WrongShape { found, expected },
        FaultKind::NoList => BodyError::NoList { expected },
        FaultKind::NotAList => {
            let (line, column) = json::place(text, byte);
            BodyError::NotAList {
                line,
                column,
                expected,
            }
        }
        FaultKind::Syntax(what) => BodyError::Malformed {
            fault: Malformed::at(text, byte, what),
            expected,
        },
    }
}

fn utf8(byte: usize) -> BodyError {
    BodyError::Utf8 { byte }
}

impl Fault {
    /// The same for a body that went by: its beginning is not here any more.
    pub fn of_stream(self, form: Form) -> BodyError {
        let expected = form.expected();
        let what = match self.kind {
            FaultKind::Empty => return BodyError::Empty { expected },
            FaultKind::NoList => return BodyError::NoList { expected },
            FaultKind::WrongShape => "it begins like something else",
            FaultKind::NotAList => "batched_log_events is not a list",
            FaultKind::Syntax(what) => what,
        };
        BodyError::Stream {
            byte: self.byte,
            what,
            expected,
        }
    }
}

/// Why the body is not JSON where it is one event, as [`Element::is_body`] says.
pub fn explain_event(event: &[u8]) -> Result<(), BodyError> {
    let expected = EXPECTED_ANY;
    let text = std::str::from_utf8(event).map_err(|error| utf8(error.valid_up_to()))?;
    match JsonKind::of_text(text) {
        Ok(_) => Ok(()),
        Err(fault) => Err(BodyError::Malformed { fault, expected }),
    }
}

#[cfg(test)]
mod tests;
