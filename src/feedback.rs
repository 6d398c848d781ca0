//! User feedback about a logged task.
use crate::event::{Refusal, choose_project, object_text};
use crate::ids::{IdError, ProjectId, TaskId};
use crate::wire::json::{self, JsonKind, Malformed};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A user's judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// The task was fine.
    Success,
    /// It was not.
    Failure,
}

impl Flag {
    /// `success` or `failure`, as on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Flag::Success => "success",
            Flag::Failure => "failure",
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        [Flag::Success, Flag::Failure]
            .into_iter()
            .find(|flag| flag.as_str() == text)
    }
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

/// What is read of a feedback body; anything else in it is ignored, as the API does. All are texts.
pub const FIELDS: [&str; 7] = [
    "flag",
    "human_eval",
    "source",
    "flag_source",
    "notes",
    "project_id",
    "task_id",
];

/// The source that the API gives to feedback that names none.
const DEFAULT_SOURCE: &str = "owner";

const WANTED_FLAG: &str = "\"success\" or \"failure\"";

impl Feedback {
    /// Checks a feedback body. `task` is the id from the URL; without it the body's `task_id` counts.
    /// `project` is for a body without `project_id`.
    ///
    /// `flag` and `human_eval` are two names of one field, and so are `source` and `flag_source`, of which `source`
    /// wins. What is absent or null stays absent: the API has its own defaults.
    ///
    /// # Errors
    /// Not an object; a field of the wrong type; no judgement, or two that differ; a task id that names no
    /// task (empty, or a variable never filled in) or that no URL of the API can name; no project.
    pub fn parse(raw: &[u8], task: Option<&str>, project: Option<&ProjectId>) -> Result<Self, Refusal> {
        let id_of = |text: &str| {
            let task = TaskId::from_client(text)?;
            match task.is_addressable() {
                true => Ok(task),
                false => Err(IdError::Unaddressable("task_id")),
            }
        };
        let feedback = Self::read(raw, task, project, id_of)?;
        feedback.project.check_unpadded()?;
        Ok(feedback)
    }

    fn read(
        raw: &[u8],
        task: Option<&str>,
        project: Option<&ProjectId>,
        id_of: impl Fn(&str) -> Result<TaskId, IdError>,
    ) -> Result<Self, Refusal> {
        let text = object_text(raw)?;
        let mut values = [None; FIELDS.len()];
        json::for_each_field(
            text,
            |key| FIELDS.iter().position(|name| *name == key),
            |slot, value| values[slot] = Some(value),
        )
        .map_err(|error| Malformed::new(text, &error))?;
        let [
            flag,
            human_eval,
            source,
            flag_source,
            notes,
            own_project,
            own_task,
        ] = values;

        let flag = match (read_flag("flag", flag)?, read_flag("human_eval", human_eval)?) {
            (Some(one), Some(other)) if one != other => return Err(Refusal::Contradiction),
            (one, other) => one.or(other).ok_or(Refusal::Missing {
                field: "flag",
                wanted: WANTED_FLAG,
            })?,
        };
        let source = read_text("source", source)?;
        let flag_source = read_text("flag_source", flag_source)?;
        let notes = read_text("notes", notes)?;
        let own_project = read_text("project_id", own_project)?;
        let own_task = match task {
            Some(_) => None,
            None => read_text("task_id", own_task)?,
        };
        let Some(task) = task.or(own_task.as_deref()) else {
            return Err(Refusal::Missing {
                field: "task_id",
                wanted: "the id that the task was logged with",
            });
        };
        Ok(Self {
            task: id_of(task).map_err(Refusal::FeedbackTask)?,
            project: choose_project(own_project.as_deref(), project)?,
            flag,
            source: source.or(flag_source),
            notes,
        })
    }

    /// What the spool keeps: a JSON object with `task_id`, `project_id`, `flag` and, where given, `source` and `notes`.
    pub fn to_record(&self) -> Vec<u8> {
        write_object(&[
            ("task_id", Some(self.task.as_str())),
            ("project_id", Some(self.project.as_str())),
            ("flag", Some(self.flag.as_str())),
            ("source", self.source.as_deref()),
            ("notes", self.notes.as_deref()),
        ])
    }

    /// The inverse of [`Feedback::to_record`]. Takes any project and any task id that is one: an earlier version may have
    /// let it in.
    pub fn from_record(record: &[u8]) -> Option<Self> {
        Self::read(record, None, None, TaskId::new).ok()
    }

    /// Body for `POST /v2/tasks/{task_id}/human-eval` (contract.md section 2).
    pub fn upstream_body(&self) -> Vec<u8> {
        write_object(&[
            ("human_eval", Some(self.flag.as_str())),
            ("source", self.source.as_deref()),
            ("notes", self.notes.as_deref()),
            ("project_id", Some(self.project.as_str())),
        ])
    }

    /// Whether a task, as `GET /v2/tasks/{id}` shows it, already bears this feedback.
    ///
    /// The API shows the judgement and its source in `last_eval`, and the notes of that evaluation in the task's own
    /// `notes` alone; the `notes` within `last_eval` are always null. What was not given counts as what the API puts in
    /// its place: source `owner`, and no notes, for a feedback without notes erases those of an earlier one.
    ///
    /// Doubtful cases are `false`: sending again adds a row to `evals`, not sending would lose the feedback. A
    /// task with a `last_eval` is judged by that, for a log event's own `flag` sets the task's `flag` without
    /// any evaluation. Without such a key, `human_eval` or `flag` count, and the source where it is shown.
    pub fn is_borne_by(&self, task_json: &[u8]) -> bool {
        let of_task = |key: &str| json::field(task_json, key);
        let text = |value: Option<&RawValue>| json::text_of(value?).map(Cow::into_owned);
        let within = |object: Option<&RawValue>, key: &str| text(json::field(object?.get().as_bytes(), key));

        let (flag, source) = match (of_task("last_eval"), of_task("human_eval")) {
            (last @ Some(_), _) => (within(last, "value"), within(last, "source")),
            (None, human) => (
                within(human, "flag").or_else(|| text(of_task("flag"))),
                within(human, "source").or_else(|| text(of_task("source"))),
            ),
        };
        let same_source = match (&self.source, &source) {
            (None, None) => true,
            (given, shown) => Some(given.as_deref().unwrap_or(DEFAULT_SOURCE)) == shown.as_deref(),
        };
        flag.as_deref() == Some(self.flag.as_str()) && same_source && self.notes == text(of_task("notes"))
    }

    /// The task that it is about.
    pub fn task(&self) -> &TaskId {
        &self.task
    }
    /// The project of that task.
    pub fn project(&self) -> &ProjectId {
        &self.project
    }
    /// The judgement.
    pub fn flag(&self) -> Flag {
        self.flag
    }
}

fn read_text(field: &'static str, value: Option<&RawValue>) -> Result<Option<String>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    match JsonKind::of(value) {
        JsonKind::Null => Ok(None),
        JsonKind::String => match json::text_of(value) {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err(Refusal::Surrogate(field)),
        },
        kind => Err(Refusal::WrongType {
            field,
            came: kind.as_str(),
            wanted: "a string or null",
        }),
    }
}

fn read_flag(field: &'static str, value: Option<&RawValue>) -> Result<Option<Flag>, Refusal> {
    let wrong = |came| Refusal::WrongType {
        field,
        came,
        wanted: WANTED_FLAG,
    };
    let Some(value) = value else { return Ok(None) };
    match JsonKind::of(value) {
        JsonKind::Null => Ok(None),
        JsonKind::String => {
            let text = json::text_of(value).ok_or(Refusal::Surrogate(field))?;
            Flag::from_text(&text)
                .map(Some)
                .ok_or_else(|| wrong("another string"))
        }
        kind => Err(wrong(kind.as_str())),
    }
}

/// A JSON object of the fields that are there.
fn write_object(fields: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (key, value) in fields {
        let Some(value) = value else { continue };
        if out.len() > 1 {
            out.push(b',');
        }
        json::push_string(&mut out, key);
        out.push(b':');
        json::push_string(&mut out, value);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests;
