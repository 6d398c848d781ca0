//! `POST /v2/log/{project_id}`: contract.md section 1.

use super::api::{self, Body};
use super::book::{Book, Page, now_s};
use super::check::Event;
use super::reply::{Reply, quote};
use super::scan::{self, Kind};
use super::store::{self, Incoming};
use bytes::Bytes;
use hyper::header::{HeaderMap, RETRY_AFTER};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Takes a batch: key, shape, maintenance, project, then 200 with an answer for each event.
pub(super) fn log(book: &Book, project: &str, headers: &HeaderMap, bytes: &Bytes) -> Reply {
    let key = book.with(|page| api::key(&page.switches, headers));
    if let Some(refusal) = api::refusal(&key) {
        return refusal;
    }
    let body = match Body::read(book, headers, bytes) {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let events = match events(body.text) {
        Ok(events) => events,
        Err(reply) => return reply,
    };
    let checked: Vec<_> = events
        .into_iter()
        .map(|event| {
            let error = event.field_error();
            (event, error)
        })
        .collect();
    let batch = Batch {
        checked,
        project: project.into(),
        bytes,
        now_s: now_s(),
    };
    book.with(|page| batch.take(page, &body))
}

/// The events of a body, or the 422.
fn events(text: &str) -> Result<Vec<Event<'_>>, Reply> {
    let fields = scan::fields(text);
    let list = fields
        .iter()
        .rev()
        .find(|(key, _)| key == "batched_log_events")
        .map(|(_, value)| *value);
    let list = list.ok_or_else(|| Reply::unprocessable(&["body", "batched_log_events"], "Field required"))?;
    if scan::kind(list) != Kind::List {
        return Err(Reply::unprocessable(
            &["body", "batched_log_events"],
            "Input should be a valid list",
        ));
    }
    let mut events = Vec::new();
    for (at, raw) in scan::elements(list).into_iter().enumerate() {
        let at = at.to_string();
        let place = ["body", "batched_log_events", &at];
        if scan::kind(raw) != Kind::Object {
            return Err(Reply::unprocessable(
                &place,
                "Input should be a valid dictionary or object",
            ));
        }
        let event = Event::new(raw);
        if let Some((field, reason)) = event.shape_error() {
            return Err(Reply::unprocessable(
                &[place[0], place[1], place[2], field],
                reason,
            ));
        }
        events.push(event);
    }
    Ok(events)
}

struct Batch<'a> {
    checked: Vec<(Event<'a>, Option<String>)>,
    project: Arc<str>,
    bytes: &'a Bytes,
    now_s: i64,
}

impl Batch<'_> {
    fn take(self, page: &mut Page, body: &Body<'_>) -> Reply {
        if page.switches.maintenance {
            let reply = Reply::detail(503, "The service is under maintenance");
            return match page.switches.retry_after() {
                Some(after) => reply.with(RETRY_AFTER, &after),
                None => reply,
            };
        }
        match page.switches.projects.get(&*self.project) {
            Some(403) => return Reply::detail(403, &foreign(&self.project)),
            Some(_) => return Reply::detail(404, &unknown(&self.project)),
            None => {}
        }
        if let Some(failure) = body.failure() {
            return failure;
        }
        if let Some(failure) = self.failed_on(page) {
            return failure;
        }
        let suspicious = body.hazards.wide_integer || body.hazards.nul_key;
        let mut out = Vec::with_capacity(body.text.len() + 256 * self.checked.len());
        out.extend_from_slice(b"{\"logged_events\":[");
        let mut incoming = Vec::with_capacity(self.checked.len());
        let mut poisoned = false;
        for (at, (event, error)) in self.checked.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match self.place(page, event, error.as_deref()) {
                Err(reason) => {
                    page.store.state.refused += 1;
                    refuse(&mut out, &reason);
                }
                Ok(project) => {
                    poisoned |= event.poison(suspicious, page.switches.tokenizer_mended).is_some()
                        || is_to_be_lost(page, event);
                    incoming.push(self.incoming(page, event, project, &mut out));
                }
            }
        }
        out.extend_from_slice(b"]}");
        let lost = self.hand_over(page, incoming, poisoned);
        Reply {
            then_drop: lost,
            ..Reply::raw(200, out)
        }
    }

    /// The failure that one of the events is switched to cause.
    fn failed_on(&self, page: &Page) -> Option<Reply> {
        if page.switches.fail_events.is_empty() {
            return None;
        }
        let mut ids = self.checked.iter().filter_map(|(event, _)| event.text("task_id"));
        let status = ids.find_map(|id| page.switches.fail_events.get(&*id))?;
        Some(Reply::detail(*status, "Internal Server Error"))
    }

    /// The project that an event is stored in, or why it is refused.
    fn place(&self, page: &Page, event: &Event<'_>, error: Option<&str>) -> Result<Arc<str>, String> {
        if let Some(error) = error {
            return Err(error.into());
        }
        let refused = event
            .text("task_id")
            .and_then(|id| page.switches.refuse_events.get(&*id));
        if let Some(reason) = refused {
            return Err(reason.clone());
        }
        let Some(own) = event.text("project_id").filter(|own| **own != *self.project) else {
            return Ok(self.project.clone());
        };
        match page.switches.projects.get(&*own) {
            Some(403) => Err(format!("403: {}", foreign(&own))),
            Some(_) => Err(format!("404: {}", unknown(&own))),
            None => Ok(own.as_ref().into()),
        }
    }

    /// Writes the answer for an event that will be stored, and makes it ready for the store.
    fn incoming(&self, page: &mut Page, event: &Event<'_>, project: Arc<str>, out: &mut Vec<u8>) -> Incoming {
        let task_id: Arc<str> = match event.text("task_id") {
            Some(id) => id.as_ref().into(),
            None => Uuid::new_v4().simple().to_string().into(),
        };
        let quota = page.switches.quota.get(&*project).copied();
        match quota.filter(|limit| page.store.over_quota(&project, *limit)) {
            Some(limit) => {
                page.store.state.over_quota += 1;
                refuse(
                    out,
                    &format!("Max usage quota reached for project {project}: {limit}/{limit} logs"),
                );
            }
            None => self.echo(event, &task_id, &project, out),
        }
        let raw = self.bytes.slice_ref(event.raw.as_bytes());
        Incoming {
            task_id,
            project,
            raw,
            flag: store::flag_of(event),
            session: event.text("session_id").map(|id| id.into()),
            stalls_session: event.stalls_session(),
        }
    }

    /// The event as it came, with defaults for what is absent.
    fn echo(&self, event: &Event<'_>, task_id: &str, project: &str, out: &mut Vec<u8>) {
        const NULLS: [&str; 11] = [
            "session_id",
            "output",
            "raw_input",
            "raw_output",
            "raw_input_type_name",
            "raw_output_type_name",
            "metadata",
            "flag",
            "user_id",
            "version_id",
            "test_id",
        ];
        out.extend_from_slice(event.raw.strip_suffix('}').unwrap_or(event.raw).as_bytes());
        let mut add = |name: &str, value: &str| {
            if event.get(name).is_none() {
                for part in [",\"", name, "\":", value] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
        };
        add("task_id", &quote(task_id));
        add("project_id", &quote(project));
        add("environment", "\"default environment\"");
        add("client_created_at", &self.now_s.to_string());
        for name in NULLS {
            add(name, "null");
        }
        out.push(b'}');
    }

    /// Stores the batch, or loses it without a word. Tells whether it was lost.
    fn hand_over(&self, page: &mut Page, incoming: Vec<Incoming>, poisoned: bool) -> bool {
        if incoming.is_empty() {
            return false;
        }
        let chosen = !poisoned && page.switches.lose > 0;
        page.switches.lose -= u64::from(chosen);
        if poisoned || chosen {
            page.store.state.lost += incoming.len() as u64;
            page.store.state.lost_batches += 1;
            return true;
        }
        let delay = page.switches.store_delay_ms;
        let due = (delay > 0).then(|| (Instant::now() + Duration::from_millis(delay)).into_std());
        page.store.store(incoming, due, page.switches.keep(), self.now_s);
        false
    }
}

fn is_to_be_lost(page: &Page, event: &Event<'_>) -> bool {
    let lost = &page.switches.lose_events;
    !lost.is_empty() && event.text("task_id").is_some_and(|id| lost.contains(&*id))
}

fn refuse(out: &mut Vec<u8>, reason: &str) {
    for part in ["{\"error_in_log\":", &quote(reason), "}"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn unknown(project: &str) -> String {
    format!("Project {project} not found")
}

fn foreign(project: &str) -> String {
    format!("You are not allowed to access project {project}")
}
