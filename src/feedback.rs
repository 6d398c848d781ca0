//! User feedback about a logged task.
use crate::event::Refusal;
use crate::ids::{ProjectId, TaskId};

/// A user's judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// The task was fine.
    Success,
    /// It was not.
    Failure,
}

/// Checked feedback, both spellings (`flag`/`human_eval`, `source`/`flag_source`) made one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    task: TaskId,
    project: ProjectId,
    flag: Flag,
    source: Option<String>,
    notes: Option<String>,
}

impl Feedback {
    /// Checks a feedback body. `task` is the id from the URL; without it the body's `task_id` counts.
    /// `project` is for a body without `project_id`.
    pub fn parse(_raw: &[u8], _task: Option<&str>, _project: Option<&ProjectId>) -> Result<Self, Refusal> {
        todo!()
    }
    /// What the spool keeps.
    pub fn to_record(&self) -> Vec<u8> {
        todo!()
    }
    /// The inverse of [`Feedback::to_record`].
    pub fn from_record(_record: &[u8]) -> Option<Self> {
        todo!()
    }
    /// Body for `POST /v2/tasks/{task_id}/human-eval` (contract.md section 2).
    pub fn upstream_body(&self) -> Vec<u8> {
        todo!()
    }
    /// Whether a task, as `GET /v2/tasks/{id}` shows it, already bears this feedback.
    pub fn is_borne_by(&self, _task_json: &[u8]) -> bool {
        todo!()
    }
    /// The task that it is about.
    pub fn task(&self) -> &TaskId {
        &self.task
    }
    /// The project of that task.
    pub fn project(&self) -> &ProjectId {
        &self.project
    }
}
