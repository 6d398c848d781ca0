//! Feedback and tasks: contract.md section 2.

use super::api::{self, Body, Key, surprise};
use super::book::{Book, Page};
use super::check;
use super::reply::Reply;
use super::scan::{self, Kind};
use super::store::EvalRow;
use hyper::header::HeaderMap;
use std::sync::Arc;
use tokio::time::{Duration, Instant, sleep_until};

/// When the API looks again for a task, in thirty-firsts of the whole wait: after 1, 3, 7 and 15 s of 31.
const LATER_LOOKS: [u32; 4] = [1, 3, 7, 15];
const LAST: u32 = 31;

/// What a feedback request says.
#[derive(Debug)]
struct Said {
    flag: String,
    source: String,
    notes: Option<String>,
    project: Option<String>,
}

/// `POST /v2/tasks/{task_id}/flag` and `/human-eval`; `field` is "flag" or "human_eval".
pub(super) async fn evaluate(
    book: &Arc<Book>,
    id: &str,
    field: &str,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Reply {
    let said = match said(book, field, headers, bytes) {
        Ok(said) => said,
        Err(reply) => return reply,
    };
    let (key, wait_ms) = book.with(|page| (api::key(&page.switches, headers), page.switches.eval_wait_ms));
    let has_key = key == Key::Good;
    if !has_key && said.project.is_none() {
        return Reply::detail(400, "Either an API key or a project_id is needed");
    }
    let start = Instant::now();
    if let Some(reply) = apply(book, id, has_key, &said) {
        return reply;
    }
    book.with(|page| page.store.state.early_evals += 1);
    for look in LATER_LOOKS {
        sleep_until(start + Duration::from_millis(wait_ms) * look / LAST).await;
        if let Some(reply) = apply(book, id, has_key, &said) {
            return reply;
        }
    }
    sleep_until(start + Duration::from_millis(wait_ms)).await;
    unknown(id)
}

/// Reads the body: 422 for wrong types, 400 for an absent flag.
fn said(book: &Book, field: &str, headers: &HeaderMap, bytes: &[u8]) -> Result<Said, Reply> {
    let body = Body::read(book, headers, bytes)?;
    if let Some(failure) = body.failure() {
        return Err(failure);
    }
    let fields = scan::fields(body.text);
    let get = |name: &str| {
        fields
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| *value)
    };
    let text = |name: &str| match get(name) {
        None => Ok(None),
        Some(value) => match scan::kind(value) {
            Kind::Null => Ok(None),
            Kind::Text => Ok(Some(scan::text_of(value).into_owned())),
            _ => Err(Reply::unprocessable(
                &["body", name],
                "Input should be a valid string",
            )),
        },
    };
    if !get(field).is_none_or(check::is_flag) {
        return Err(Reply::unprocessable(
            &["body", field],
            "Input should be 'success' or 'failure'",
        ));
    }
    let (flag, notes, project) = (text(field)?, text("notes")?, text("project_id")?);
    let source = text("source")?;
    if source.is_none() && get("source").is_some() {
        return Err(surprise(book, "feedback with source null".into()));
    }
    let flag = flag.ok_or_else(|| Reply::detail(400, &format!("{field} is required")))?;
    Ok(Said {
        flag,
        source: source.unwrap_or_else(|| "owner".into()),
        notes,
        project,
    })
}

/// Sets the feedback if the task is there. `None` if it is not (yet).
fn apply(book: &Book, id: &str, has_key: bool, said: &Said) -> Option<Reply> {
    book.with(|page| {
        let project = page.store.task(id)?.project.clone();
        if has_key && is_foreign(page, &project) {
            return Some(foreign());
        }
        if !has_key && said.project.as_deref() != Some(&*project) {
            return Some(Reply::detail(400, "The task is not in this project"));
        }
        page.store.evaluate(EvalRow {
            task_id: id.into(),
            project_id: project.to_string(),
            flag: said.flag.clone(),
            source: said.source.clone(),
            notes: said.notes.clone(),
        });
        page.store.task(id).map(|task| Reply::raw(200, task.view()))
    })
}

/// `GET /v2/tasks/{task_id}`.
pub(super) fn read(book: &Book, id: &str, headers: &HeaderMap) -> Reply {
    book.with(|page| {
        if let Some(refusal) = api::refusal(&api::key(&page.switches, headers)) {
            return refusal;
        }
        match page.store.task(id) {
            Some(task) if is_foreign(page, &task.project) => foreign(),
            Some(task) => Reply::raw(200, task.view()),
            None => unknown(id),
        }
    })
}

/// `POST /v2/tasks/{task_id}`: replaces the metadata and what else is given; a flag is one more evaluation.
pub(super) fn update(book: &Book, id: &str, headers: &HeaderMap, bytes: &[u8]) -> Reply {
    let key = book.with(|page| api::key(&page.switches, headers));
    if let Some(refusal) = api::refusal(&key) {
        return refusal;
    }
    let body = match Body::read(book, headers, bytes) {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    if let Some(failure) = body.failure() {
        return failure;
    }
    let fields = scan::fields(body.text);
    let known = ["metadata", "data", "flag", "flag_source", "notes"];
    if let Some((key, _)) = fields.iter().find(|(key, _)| !known.contains(&key.as_ref())) {
        return surprise(book, format!("POST /v2/tasks/{{id}} with the field {key}"));
    }
    let get = |name: &str| {
        fields
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| *value)
    };
    let object = |name: &str| get(name).filter(|v| scan::kind(v) == Kind::Object);
    let text = |name: &str| {
        get(name)
            .filter(|v| scan::kind(v) == Kind::Text)
            .map(|v| scan::text_of(v).into_owned())
    };
    if !get("flag").is_none_or(check::is_flag) {
        return Reply::unprocessable(&["body", "flag"], "Input should be 'success' or 'failure'");
    }
    book.with(|page| {
        let Some(project) = page.store.task(id).map(|task| task.project.clone()) else {
            return unknown(id);
        };
        if is_foreign(page, &project) {
            return foreign();
        }
        if let Some(task) = page.store.task_mut(id) {
            task.metadata = object("metadata").map(Into::into).or(task.metadata.take());
            task.data = object("data").map(Into::into).or(task.data.take());
            task.notes = text("notes").or(task.notes.take());
        }
        let notes = page.store.task(id).and_then(|task| task.notes.clone());
        if let Some(flag) = text("flag") {
            page.store.evaluate(EvalRow {
                task_id: id.into(),
                project_id: project.to_string(),
                flag,
                source: text("flag_source").unwrap_or_else(|| "owner".into()),
                notes,
            });
        }
        match page.store.task(id) {
            Some(task) => Reply::raw(200, task.view()),
            None => unknown(id),
        }
    })
}

/// Whether the project is another organisation's.
fn is_foreign(page: &Page, project: &str) -> bool {
    page.switches.projects.get(project) == Some(&403)
}

fn foreign() -> Reply {
    Reply::detail(403, "This task belongs to another organization")
}

fn unknown(id: &str) -> Reply {
    Reply::detail(404, &format!("Task {id} not found"))
}
