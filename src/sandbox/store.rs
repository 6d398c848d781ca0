//! What the sandbox has stored, and what has happened to it.

use super::check::Event;
use super::scan;
use bytes::Bytes;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Counts of all that happened since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// API requests that were read, whatever became of them.
    pub requests: u64,
    /// Of these, those answered with a 4xx or 5xx.
    pub failed_requests: u64,
    /// Connections and requests that were reset because the API was switched down.
    pub while_down: u64,
    /// Tasks stored, each once.
    pub stored: u64,
    /// Events whose task was stored before: each is one more row in `logs`.
    pub duplicates: u64,
    /// Events answered with 200 that will be stored when `store_delay_ms` is over.
    pub pending: u64,
    /// Events answered with 200 and then silently lost.
    pub lost: u64,
    /// Batches of which that is true.
    pub lost_batches: u64,
    /// Events answered with `error_in_log` and not stored.
    pub refused: u64,
    /// Events answered with the quota error, but stored.
    pub over_quota: u64,
    /// Rows in `evals`.
    pub evals: u64,
    /// Feedback requests whose task was not there when they came.
    pub early_evals: u64,
    /// Requests whose path fits no route once it is decoded: answered with 404 "Not Found", 405 or a redirect.
    pub unrouted: u64,
    /// What arrived that the contract does not know, one sentence each; the first 1,000.
    pub surprises: Vec<String>,
    /// Stored, duplicate and feedback counts of each project.
    pub projects: BTreeMap<String, ProjectState>,
}

/// Counts of one project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProjectState {
    /// Tasks stored.
    pub stored: u64,
    /// Events whose task was stored before.
    pub duplicates: u64,
    /// Rows in `evals`.
    pub evals: u64,
}

impl State {
    /// A count by its name, as `/sandbox/wait` uses it.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        Some(match name {
            "requests" => self.requests,
            "failed_requests" => self.failed_requests,
            "while_down" => self.while_down,
            "stored" => self.stored,
            "duplicates" => self.duplicates,
            "lost" => self.lost,
            "lost_batches" => self.lost_batches,
            "refused" => self.refused,
            "over_quota" => self.over_quota,
            "evals" => self.evals,
            "early_evals" => self.early_evals,
            "unrouted" => self.unrouted,
            "surprises" => self.surprises.len() as u64,
            _ => return None,
        })
    }
}

/// A stored task, as tests see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskRow {
    /// Its id; where the event had none, the one that the sandbox gave it.
    pub task_id: String,
    /// The project that it is stored in.
    pub project_id: String,
    /// The event exactly as it arrived. Empty with `keep_raw` off.
    pub raw: String,
    /// Place in the order of storage over all projects, from 0.
    pub position: u64,
    /// Its feedback, where it has any.
    pub human_eval: Option<HumanEval>,
}

/// One call of `/flag` or `/human-eval` that was answered with 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EvalRow {
    /// The task.
    pub task_id: String,
    /// The task's project.
    pub project_id: String,
    /// "success" or "failure".
    pub flag: String,
    /// Who says so.
    pub source: String,
    /// Free text.
    pub notes: Option<String>,
}

/// A row of the raw `logs` collection: every event that was stored, duplicates as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogRow {
    /// The event's task.
    pub task_id: String,
    /// The project that it was sent to.
    pub project_id: String,
    /// The event exactly as it arrived.
    pub raw: String,
    /// Whether the task was stored before.
    pub duplicate: bool,
}

/// What a task holds of its feedback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HumanEval {
    /// "success" or "failure".
    pub flag: String,
    /// Who says so; absent where the flag came within the log event.
    pub source: Option<String>,
    /// Free text.
    pub notes: Option<String>,
}

/// The counters of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionRow {
    /// How many events the API counted, duplicates as well.
    pub session_length: u64,
    /// The task that it takes for the last.
    pub last_task: String,
    /// Its first event had null token counts or no output, so that nothing is counted any more.
    pub stalled: bool,
}

/// An event on its way into the store.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) task_id: Arc<str>,
    pub(super) project: Arc<str>,
    pub(super) raw: Bytes,
    pub(super) flag: Option<Box<str>>,
    pub(super) session: Option<Box<str>>,
    /// As the first of its session it keeps the session's counters from ever going up.
    pub(super) stalls_session: bool,
}

/// A stored task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) task_id: Arc<str>,
    pub(super) project: Arc<str>,
    pub(super) raw: Bytes,
    /// When it was stored, in seconds since 1970.
    pub(super) stored_s: i64,
    pub(super) human_eval: Option<HumanEval>,
    last_eval: Option<LastEval>,
    /// The notes of its last evaluation: the API shows them here and nowhere else.
    pub(super) notes: Option<String>,
    /// What `POST /v2/tasks/{id}` put there: a JSON value.
    pub(super) data: Option<String>,
    /// What `POST /v2/tasks/{id}` put in place of the event's metadata: a JSON object.
    pub(super) metadata: Option<String>,
}

#[derive(Debug)]
struct Log {
    task_id: Arc<str>,
    project: Arc<str>,
    raw: Bytes,
    duplicate: bool,
}

/// What of it stays in memory (`keep_raw`, `keep_tasks`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) raw: bool,
    pub(super) tasks: usize,
}

/// The store: tasks by id and in order, the raw logs, the feedback, the counts.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) state: State,
    tasks: VecDeque<Task>,
    /// Tasks that `keep_tasks` has made it forget: they came before the first of `tasks`.
    forgotten: usize,
    /// Positions in the order of storage.
    by_id: HashMap<Arc<str>, usize>,
    logs: Vec<Log>,
    evals: Vec<EvalRow>,
    /// Batches that wait for `store_delay_ms`, by when they are due.
    pending: VecDeque<(Instant, Vec<Incoming>)>,
    /// The sessions of the tasks whose text is kept.
    sessions: HashMap<Box<str>, SessionRow>,
    /// Logs counted against a project's quota.
    quota_used: HashMap<String, u64>,
}

impl Store {
    /// Stores a batch, now or at `due`. `now_s` in seconds since 1970.
    pub(super) fn store(&mut self, batch: Vec<Incoming>, due: Option<Instant>, keep: Keep, now_s: i64) {
        let Some(due) = due else {
            return self.store_now(batch, keep, now_s);
        };
        self.state.pending += batch.len() as u64;
        let at = self.pending.partition_point(|(other, _)| *other <= due);
        self.pending.insert(at, (due, batch));
    }

    /// Stores what is due. Tells when the next is.
    pub(super) fn settle(&mut self, now: Instant, keep: Keep, now_s: i64) -> Option<Instant> {
        while let Some((due, _)) = self.pending.front() {
            if *due > now {
                return Some(*due);
            }
            if let Some((_, batch)) = self.pending.pop_front() {
                self.state.pending -= batch.len() as u64;
                self.store_now(batch, keep, now_s);
            }
        }
        None
    }

    fn store_now(&mut self, batch: Vec<Incoming>, keep: Keep, now_s: i64) {
        for event in batch {
            let Incoming {
                task_id,
                project,
                raw,
                flag,
                session,
                stalls_session,
            } = event;
            let raw = if keep.raw { raw } else { Bytes::new() };
            if let Some(session) = session.filter(|_| keep.raw) {
                self.count_session(session, &task_id, stalls_session);
            }
            let duplicate = self.by_id.contains_key(&task_id);
            let counts = project_counts(&mut self.state.projects, &project);
            if duplicate {
                counts.duplicates += 1;
                self.state.duplicates += 1;
            } else {
                counts.stored += 1;
                self.state.stored += 1;
                self.by_id
                    .insert(task_id.clone(), self.forgotten + self.tasks.len());
                let human_eval = flag.map(|f| HumanEval {
                    flag: f.into(),
                    source: None,
                    notes: None,
                });
                let (task_id, project, raw) = (task_id.clone(), project.clone(), raw.clone());
                self.tasks.push_back(Task {
                    task_id,
                    project,
                    raw,
                    stored_s: now_s,
                    human_eval,
                    last_eval: None,
                    notes: None,
                    data: None,
                    metadata: None,
                });
                self.forget_beyond(keep.tasks);
            }
            if keep.raw {
                self.logs.push(Log {
                    task_id,
                    project,
                    raw,
                    duplicate,
                });
            }
        }
    }

    fn count_session(&mut self, session: Box<str>, task_id: &str, stalls: bool) {
        let first = SessionRow {
            session_length: 0,
            last_task: task_id.into(),
            stalled: stalls,
        };
        let row = self.sessions.entry(session).or_insert(first);
        if row.session_length == 0 || !row.stalled {
            row.session_length += 1;
            row.last_task = task_id.into();
        }
    }

    /// The counters of a session.
    pub(super) fn session_row(&self, id: &str) -> Option<SessionRow> {
        self.sessions.get(id).cloned()
    }

    fn forget_beyond(&mut self, kept: usize) {
        while self.tasks.len() > kept {
            let Some(oldest) = self.tasks.pop_front() else {
                return;
            };
            self.by_id.remove(&oldest.task_id);
            self.forgotten += 1;
        }
    }

    /// Counts one log against a project's quota of `limit`. True when it is over.
    pub(super) fn over_quota(&mut self, project: &str, limit: u64) -> bool {
        let used = self.quota_used.entry(project.into()).or_default();
        *used += 1;
        *used > limit
    }

    /// Where a task stands in `tasks`.
    fn place(&self, id: &str) -> Option<usize> {
        self.by_id.get(id)?.checked_sub(self.forgotten)
    }

    /// A task by its id.
    pub(super) fn task(&self, id: &str) -> Option<&Task> {
        self.tasks.get(self.place(id)?)
    }

    /// A task by its id, to change it.
    pub(super) fn task_mut(&mut self, id: &str) -> Option<&mut Task> {
        let at = self.place(id)?;
        self.tasks.get_mut(at)
    }

    /// Adds a row to `evals` and sets it as the task's feedback: the last call wins, notes and all.
    pub(super) fn evaluate(&mut self, row: EvalRow) {
        let Some(task) = self.task_mut(&row.task_id) else {
            return;
        };
        let (flag, source, notes) = (row.flag.clone(), Some(row.source.clone()), row.notes.clone());
        task.last_eval = Some(LastEval {
            value: flag.clone(),
            source: row.source.clone(),
            notes: None,
        });
        task.notes.clone_from(&notes);
        task.human_eval = Some(HumanEval { flag, source, notes });
        self.state.evals += 1;
        project_counts(&mut self.state.projects, &row.project_id).evals += 1;
        self.evals.push(row);
    }

    /// The tasks in order of storage, of one project or all.
    pub(super) fn task_rows(&self, project: Option<&str>) -> Vec<TaskRow> {
        let all = self.tasks.iter().enumerate();
        all.filter(|(_, task)| project.is_none_or(|p| *task.project == *p))
            .map(|(at, task)| task.row(self.forgotten + at))
            .collect()
    }

    /// One task as a row.
    pub(super) fn task_row(&self, id: &str) -> Option<TaskRow> {
        let at = self.place(id)?;
        self.tasks.get(at).map(|task| task.row(self.forgotten + at))
    }

    /// Feedback in order of arrival, of one task or all.
    pub(super) fn eval_rows(&self, task: Option<&str>) -> Vec<EvalRow> {
        self.evals
            .iter()
            .filter(|row| task.is_none_or(|t| row.task_id == t))
            .cloned()
            .collect()
    }

    /// The raw logs in order of storage, of one project or all.
    pub(super) fn log_rows(&self, project: Option<&str>) -> Vec<LogRow> {
        let all = self
            .logs
            .iter()
            .filter(|log| project.is_none_or(|p| *log.project == *p));
        all.map(|log| LogRow {
            task_id: log.task_id.to_string(),
            project_id: log.project.to_string(),
            raw: text(&log.raw).into(),
            duplicate: log.duplicate,
        })
        .collect()
    }
}

impl Task {
    fn row(&self, position: usize) -> TaskRow {
        TaskRow {
            task_id: self.task_id.to_string(),
            project_id: self.project.to_string(),
            raw: text(&self.raw).into(),
            position: position as u64,
            human_eval: self.human_eval.clone(),
        }
    }

    /// The task as the API shows it: JSON text with the event's own values as they stand.
    pub(super) fn view(&self) -> String {
        let event = Event::new(text(&self.raw));
        let own = |name| event.get(name).unwrap_or("null");
        let created = event.get("client_created_at").and_then(|v| v.parse::<i64>().ok());
        // The API puts now in the place of what is negative or more than 24 hours ahead.
        let sane = |at: &i64| (0..=self.stored_s + 24 * 3600).contains(at);
        let created = created.filter(sane).unwrap_or(self.stored_s);
        let metadata = self.metadata.clone().unwrap_or_else(|| {
            let pairs = event.metadata();
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(k, v)| format!("{}:{v}", super::reply::quote(k)))
                .collect();
            format!("{{{}}}", pairs.join(","))
        });
        let flag = self.human_eval.as_ref().map(|eval| eval.flag.as_str());
        let judged = flag.map_or("null".into(), |flag| {
            format!("{{\"flag\":{}}}", super::reply::quote(flag))
        });
        let json = |value: Result<String, serde_json::Error>| value.unwrap_or_else(|_| "null".into());
        format!(
            "{{\"id\":{},\"created_at\":{created},\"org_id\":null,\"project_id\":{},\"session_id\":{},\"input\":{},\
             \"additional_input\":null,\"output\":{},\"additional_output\":null,\"metadata\":{metadata},\"data\":{},\
             \"flag\":{},\"last_eval\":{},\"human_eval\":{judged},\"sentiment\":null,\"language\":null,\"events\":[],\
             \"environment\":{},\"notes\":{},\"test_id\":{},\"topics\":[],\"task_position\":null,\"is_last_task\":null}}",
            json(serde_json::to_string(&*self.task_id)),
            json(serde_json::to_string(&*self.project)),
            own("session_id"),
            own("input"),
            own("output"),
            self.data.as_deref().unwrap_or("null"),
            json(serde_json::to_string(&flag)),
            json(serde_json::to_string(&self.last_eval)),
            event.get("environment").unwrap_or("\"default environment\""),
            json(serde_json::to_string(&self.notes)),
            own("test_id"),
        )
    }
}

/// The newest evaluation of a task as the API shows it (read in its source). Unlike `human_eval`, a log's own flag
/// leaves it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LastEval {
    value: String,
    source: String,
    /// Always null in the API: the notes stand in the task's own `notes`.
    notes: Option<String>,
}

fn project_counts<'a>(all: &'a mut BTreeMap<String, ProjectState>, id: &str) -> &'a mut ProjectState {
    all.entry(id.into()).or_default()
}

/// The text of an event. What is stored was checked to be UTF-8.
fn text(raw: &Bytes) -> &str {
    std::str::from_utf8(raw).unwrap_or_default()
}

/// The flag inside a log event.
pub(super) fn flag_of(event: &Event<'_>) -> Option<Box<str>> {
    event
        .get("flag")
        .filter(|v| scan::kind(v) == scan::Kind::Text)
        .map(|v| scan::text_of(v).into())
}
