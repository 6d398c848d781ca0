//! Log events: checked once at the door, then carried byte for byte.
//!
//! An event is read in two passes: one for the fields that the API checks (contract.md section 1), one for what it can
//! never store, wherever it stands ([`Hazard`]). The order of keys and the spelling of numbers stay as they came, because
//! nothing is ever written anew: what is absent is spliced in right after the opening brace.
mod document;
mod hazards;
mod rules;
mod tokenizer;

pub use document::{DocumentSize, MAX_DOCUMENT_BYTES, document_size};
pub use hazards::Hazard;
pub use tokenizer::{TOKEN_COUNTS, breaks_tokenizer};

use crate::ids::{IdError, ProjectId, TaskId};
use crate::wire::json::{self, JsonKind, Malformed};
use rules::Field;
use serde_json::value::RawValue;
use std::borrow::Cow;
use uuid::Uuid;

/// What the daemon adds to an event that lacks it. Pure: time and randomness are arguments.
#[derive(Debug, Clone)]
pub struct Stamps<'a> {
    /// Project for an event that names none: the one in the URL, or the configured default.
    pub project: Option<&'a ProjectId>,
    /// `client_created_at` for an event that has none, in seconds since 1970.
    pub now_s: i64,
    /// `task_id` for an event that has none.
    pub task: Uuid,
}

/// Why an event or a feedback can never be stored by the API, as a sentence with the remedy. Holds no text of the
/// client's, so that it may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not JSON. Lines and columns count from its own first byte.
    #[error("it is {0}: mend it and send it again")]
    Json(#[from] Malformed),
    /// Its bytes are not UTF-8.
    #[error("it is not valid UTF-8 at byte {0}: JSON must be sent as UTF-8")]
    Utf8(usize),
    /// It is JSON, but no object.
    #[error("it is {0}: send a JSON object, such as {{\"input\": \"hello\"}}")]
    NotAnObject(JsonKind),
    /// A required field is absent.
    #[error("{field} is missing: send {wanted}")]
    Missing {
        /// Which field.
        field: &'static str,
        /// What belongs there.
        wanted: &'static str,
    },
    /// A field of a type that the API refuses.
    #[error("{field} is {came}: send {wanted}")]
    WrongType {
        /// Which field.
        field: &'static str,
        /// What was sent, in words.
        came: &'static str,
        /// What belongs there.
        wanted: &'static str,
    },
    /// A string with half a surrogate pair in an escape, such as `"\ud83d"`.
    #[error("{0} holds half a surrogate pair (a \\ud83d without its \\ude00): send whole characters")]
    Surrogate(&'static str),
    /// Something that breaks the API's storage, and with it the whole batch.
    #[error("{place} {hazard} at byte {byte}, which the API can never store: {}", hazard.remedy())]
    Unstorable {
        /// The field that it stands in, where that is one that the API checks; else `it`, the event.
        place: &'static str,
        /// What it is.
        hazard: Hazard,
        /// Offset in the event, from 0.
        byte: usize,
    },
    /// As a document of the API's database it is certainly over 16 MiB ([`document_size`]).
    #[error(
        "it is over 16 MiB in the API's database, which can never store it (a list of numbers takes up to eight times its \
         JSON there): shorten it, or send long lists as a string"
    )]
    TooLarge,
    /// A log event's `task_id` that others would share.
    #[error("{0}. The API keeps only the first of all events with one task_id, so the others would be lost")]
    EventTask(IdError),
    /// A feedback's task id that names no task.
    #[error("{0}. Feedback must name the task that it is about")]
    FeedbackTask(IdError),
    /// A `project_id` that cannot be one.
    #[error("{0}")]
    Project(#[from] IdError),
    /// Nothing says which project it belongs to.
    #[error(
        "no project: set upstream.project_id (or PHOSPHO_PROJECT_ID), post to /v2/log/{{project_id}}, or put a project_id into the body"
    )]
    NoProject,
    /// `flag` and `human_eval` say opposite things.
    #[error("flag and human_eval contradict each other: send one of them")]
    Contradiction,
}

impl Refusal {
    /// Whether it was refused only because neither it nor the request nor the configuration names a project. That is
    /// the request's fault rather than the event's: 422.
    pub fn is_no_project(&self) -> bool {
        matches!(self, Refusal::NoProject)
    }
}

/// A checked event. Its JSON is what the client sent, byte for byte, plus the stamps.
#[derive(Debug, Clone)]
pub struct Event {
    json: Vec<u8>,
    task: TaskId,
    project: ProjectId,
    session: Option<String>,
    has_odd_time: bool,
}

/// How far ahead of now the API takes a time for one, in seconds; it puts now in the place of a later one.
const MOST_AHEAD_S: i64 = 24 * 3600;

impl Event {
    /// Checks one event (contract.md section 1) and stamps what is absent.
    ///
    /// White space around the object is cut; nothing else changes. An own `project_id` outranks the stamped one; null
    /// and `""` count as none, and are left as sent. Where a key occurs twice the last one counts, as in the API.
    ///
    /// # Errors
    /// The first fault found, in the order of the contract's table. An event that the API would refuse
    /// alone is refused here alone; so is one for which it would refuse the whole batch.
    pub fn parse(raw: &[u8], stamps: &Stamps<'_>) -> Result<Self, Refusal> {
        let text = object_text(raw)?;
        let fields = Fields::read(text)?;
        for (field, value) in rules::ALL.iter().zip(&fields.0) {
            rules::check(field, *value)?;
        }
        if let Some((hazard, byte)) = hazards::first(text) {
            let place = fields.place(text, byte);
            return Err(Refusal::Unstorable { place, hazard, byte });
        }
        if document_size(text.as_bytes()) == DocumentSize::TooLarge {
            return Err(Refusal::TooLarge);
        }

        let mut uuid_text = Uuid::encode_buffer();
        let own_task = fields.text(Field::TaskId)?;
        let task = match &own_task {
            Some(own) => TaskId::from_client(own),
            None => TaskId::new(stamps.task.hyphenated().encode_lower(&mut uuid_text)),
        }
        .map_err(Refusal::EventTask)?;
        let project = choose_project(fields.text(Field::ProjectId)?.as_deref(), stamps.project)?;
        project.check_unpadded()?;
        let session = fields.text(Field::SessionId)?.map(Cow::into_owned);

        let mut stamped = Vec::new();
        if own_task.is_none() {
            push_stamp(&mut stamped, "task_id");
            json::push_string(&mut stamped, task.as_str());
        }
        if fields.get(Field::ClientCreatedAt).is_none() {
            push_stamp(&mut stamped, "client_created_at");
            stamped.extend_from_slice(stamps.now_s.to_string().as_bytes());
        }
        if fields.get(Field::ProjectId).is_none() {
            push_stamp(&mut stamped, "project_id");
            json::push_string(&mut stamped, project.as_str());
        }
        Ok(Self {
            json: splice(text, &stamped),
            task,
            project,
            session,
            has_odd_time: fields.has_odd_time(stamps.now_s),
        })
    }

    /// The event as it goes to the API.
    pub fn json(&self) -> &[u8] {
        &self.json
    }
    /// The same, given away.
    pub fn into_json(self) -> Vec<u8> {
        self.json
    }
    /// Its task id, own or stamped.
    pub fn task(&self) -> &TaskId {
        &self.task
    }
    /// The project that it goes to: its own `project_id`, else the stamped one.
    pub fn project(&self) -> &ProjectId {
        &self.project
    }
    /// Its session id, where it has one.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }
    /// Whether a time of its own is negative or more than a day ahead, as milliseconds are. The API puts now in its place.
    pub fn has_odd_time(&self) -> bool {
        self.has_odd_time
    }
}

/// Reads the task id back out of a stored event's JSON ([`Event::json`]). `None` if the record is not an event.
pub fn task_of(json: &[u8]) -> Option<TaskId> {
    TaskId::new(&json::text_of(json::field(json, "task_id")?)?).ok()
}

/// The `project_id` that an event or a feedback names itself, for one that was refused and is kept as a dead letter.
/// Quotes and blanks around it are part of it. `None` if it names none that could be one.
pub fn project_of(json: &[u8]) -> Option<ProjectId> {
    ProjectId::new(&json::text_of(json::field(json, "project_id")?)?).ok()
}

/// A stored event or feedback for another project: what names one names that one. Every other byte stays. Where nothing
/// names a project, the URL does.
pub fn with_project(json: &[u8], project: &ProjectId) -> Vec<u8> {
    let mut named = Vec::new();
    if let Ok(text) = std::str::from_utf8(json) {
        let start = text.as_ptr() as usize;
        let wanted = |key: &str| (key == "project_id").then_some(0);
        // All of them, should there be more than one: the last one counts, and none of the others may mislead.
        let read = json::for_each_field(text, wanted, |_, value: &RawValue| {
            if json::text_of(value).is_some_and(|text| !text.is_empty()) {
                let at = (value.get().as_ptr() as usize).wrapping_sub(start);
                named.push(at..at.saturating_add(value.get().len()));
            }
        });
        if read.is_err() {
            named.clear();
        }
    }
    let mut moved = Vec::with_capacity(json.len() + project.as_str().len());
    let mut copied = 0;
    for value in named {
        moved.extend_from_slice(json.get(copied..value.start).unwrap_or_default());
        json::push_string(&mut moved, project.as_str());
        copied = value.end;
    }
    moved.extend_from_slice(json.get(copied..).unwrap_or_default());
    moved
}

/// The fields of an event that the API knows, and whether something can lie below each.
pub fn known_fields() -> impl Iterator<Item = (&'static str, bool)> {
    rules::ALL.iter().map(|row| (row.name, row.may_hold_more()))
}

/// The text of what should be a JSON object, without white space around it. Only its first byte is checked.
pub(crate) fn object_text(raw: &[u8]) -> Result<&str, Refusal> {
    let text = std::str::from_utf8(raw).map_err(|e| Refusal::Utf8(e.valid_up_to()))?;
    let text = json::trim(text);
    match text.starts_with('{') {
        true => Ok(text),
        false => Err(Refusal::NotAnObject(JsonKind::of_text(text)?)),
    }
}

/// An own project, if it is more than an empty text, else the given one.
pub(crate) fn choose_project(own: Option<&str>, given: Option<&ProjectId>) -> Result<ProjectId, Refusal> {
    match (own.filter(|own| !own.is_empty()), given) {
        (Some(own), Some(given)) if own == given.as_str() => Ok(given.clone()),
        (Some(own), _) => Ok(ProjectId::new(own)?),
        (None, Some(given)) => Ok(given.clone()),
        (None, None) => Err(Refusal::NoProject),
    }
}

/// The values of the fields that the API checks, as they stand in the event.
struct Fields<'a>([Option<&'a RawValue>; rules::ALL.len()]);

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Result<Self, Refusal> {
        let mut values = [None; rules::ALL.len()];
        json::for_each_field(text, rules::slot, |slot, value| values[slot] = Some(value))
            .map_err(|error| Malformed::new(text, &error))?;
        Ok(Self(values))
    }

    fn get(&self, field: Field) -> Option<&'a RawValue> {
        self.0[field as usize]
    }

    /// The field that the byte `at` of the event stands in.
    fn place(&self, text: &str, at: usize) -> &'static str {
        let holds = |value: &RawValue| {
            let start = (value.get().as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
            (start..start.saturating_add(value.get().len())).contains(&at)
        };
        let mut fields = rules::ALL.iter().zip(&self.0);
        let found = fields.find(|(_, value)| value.is_some_and(holds));
        found.map_or("it", |(row, _)| row.name)
    }

    fn has_odd_time(&self, now_s: i64) -> bool {
        let sane = 0..=now_s.saturating_add(MOST_AHEAD_S);
        [Field::ClientCreatedAt, Field::CreatedAt, Field::LastUpdate]
            .into_iter()
            .filter_map(|field| self.get(field)?.get().parse::<i64>().ok())
            .any(|time| !sane.contains(&time))
    }

    /// The content of a field that was checked to be a string or null.
    fn text(&self, field: Field) -> Result<Option<Cow<'a, str>>, Refusal> {
        match self.get(field) {
            Some(value) if JsonKind::of(value) == JsonKind::String => match json::text_of(value) {
                Some(text) => Ok(Some(text)),
                None => Err(Refusal::Surrogate(rules::ALL[field as usize].name)),
            },
            _ => Ok(None),
        }
    }
}

fn push_stamp(stamped: &mut Vec<u8>, key: &str) {
    if !stamped.is_empty() {
        stamped.push(b',');
    }
    json::push_string(stamped, key);
    stamped.push(b':');
}

/// Puts the stamps behind the opening brace. The object is never empty, since it has its `input`.
fn splice(object: &str, stamped: &[u8]) -> Vec<u8> {
    if stamped.is_empty() {
        return object.as_bytes().to_vec();
    }
    let rest = &object.as_bytes()[1..];
    let mut json = Vec::with_capacity(object.len() + stamped.len() + 1);
    json.push(b'{');
    json.extend_from_slice(stamped);
    json.push(b',');
    json.extend_from_slice(rest);
    json
}

#[cfg(test)]
mod tests;
