//! The control plane: looking into the sandbox and switching it, over HTTP under `/sandbox/`.

use super::book::Book;
use super::reply::Reply;
use super::store::State;
use bytes::Bytes;
use hyper::Method;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// What an unknown control request is told.
const ROUTES: &str = "the control routes are GET /sandbox/state, GET /sandbox/tasks[?project=P], \
    GET /sandbox/tasks/{id}, GET /sandbox/evals[?task_id=T], GET /sandbox/logs[?project=P], \
    GET /sandbox/wait?stored=N&evals=M&requests=K&timeout_ms=T, GET and PUT /sandbox/switches, POST /sandbox/reset";
/// How long `/sandbox/wait` waits unless told, and at most, in milliseconds.
const WAIT_MS: u64 = 10_000;
const MAX_WAIT_MS: u64 = 600_000;

/// Whether a path belongs to the control plane.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/sandbox/")
}

/// Answers a control request.
pub(super) async fn answer(book: &Arc<Book>, head: &Parts, body: &Bytes) -> Reply {
    let query = match query(head.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(reason) => return Reply::detail(400, &reason),
    };
    let param = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let parts: Vec<&str> = head.uri.path().split('/').skip(2).collect();
    let (get, post, put) = (
        head.method == Method::GET,
        head.method == Method::POST,
        head.method == Method::PUT,
    );
    match parts.as_slice() {
        ["state"] if get => Reply::json(200, &book.state()),
        ["tasks"] if get => Reply::json(200, &book.with(|page| page.store.task_rows(param("project")))),
        ["tasks", id] if get => {
            let id = percent_decode_str(id).decode_utf8_lossy();
            match book.with(|page| page.store.task_row(&id)) {
                Some(row) => Reply::json(200, &row),
                None => Reply::detail(404, &format!("no task {id} is stored")),
            }
        }
        ["evals"] if get => Reply::json(200, &book.with(|page| page.store.eval_rows(param("task_id")))),
        ["logs"] if get => Reply::json(200, &book.with(|page| page.store.log_rows(param("project")))),
        ["wait"] if get => wait(book, &query).await,
        ["switches"] if get => Reply::json(200, &book.with(|page| page.switches.clone())),
        ["switches"] if put => match serde_json::from_slice::<Value>(body) {
            Err(error) => Reply::detail(400, &format!("switches are a JSON object: {error}")),
            Ok(change) => match book.switch(&change).await {
                Ok(switches) => Reply::json(200, &switches),
                Err(reason) => Reply::detail(400, &reason),
            },
        },
        ["reset"] if post => match book.reset().await {
            Ok(()) => Reply::json(200, &book.state()),
            Err(reason) => Reply::detail(500, &reason),
        },
        _ => Reply::detail(404, &format!("{} {}: {ROUTES}", head.method, head.uri.path())),
    }
}

fn query(text: &str) -> Result<Vec<(String, String)>, String> {
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        let decoded = percent_decode_str(&spaced)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned);
        decoded.map_err(|_| format!("the query is not UTF-8: {part}"))
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// Answers once each named count has reached its number: 200, or 408 when the time is over; the counts either way.
async fn wait(book: &Arc<Book>, query: &[(String, String)]) -> Reply {
    let mut limit = WAIT_MS;
    let mut wishes = Vec::new();
    for (name, value) in query {
        let Ok(number) = value.parse::<u64>() else {
            return Reply::detail(400, &format!("{name} must be a whole number, not \"{value}\""));
        };
        if name == "timeout_ms" {
            limit = number.min(MAX_WAIT_MS);
        } else if State::default().count(name).is_some() {
            wishes.push((name.as_str(), number));
        } else {
            return Reply::detail(
                400,
                &format!("there is no count \"{name}\" to wait for: see GET /sandbox/state"),
            );
        }
    }
    let reached = |state: &State| {
        wishes
            .iter()
            .all(|(name, least)| state.count(name).is_some_and(|now| now >= *least))
    };
    match book.wait(Duration::from_millis(limit), reached).await {
        Ok(state) => Reply::json(200, &state),
        Err(state) => Reply::json(408, &state),
    }
}
