//! Log events: checked once at the door, then carried byte for byte.
use crate::ids::{ProjectId, TaskId};
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

/// Why an event can never be stored by the API, as a sentence with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// A checked event. Its JSON is what the client sent, byte for byte, plus the stamps.
#[derive(Debug, Clone)]
pub struct Event {
    json: Vec<u8>,
    task: TaskId,
    project: ProjectId,
    session: Option<String>,
}

impl Event {
    /// Checks one event (contract.md section 1) and stamps what is absent.
    pub fn parse(_raw: &[u8], _stamps: &Stamps<'_>) -> Result<Self, Refusal> {
        todo!()
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
}

/// Reads the task id back out of a stored event's JSON ([`Event::json`]). `None` if the record is not an event.
pub fn task_of(_json: &[u8]) -> Option<TaskId> {
    todo!()
}
