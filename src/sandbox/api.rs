//! The API's routes, and what they have in common: keys, bodies, surprises.

use super::book::Book;
use super::reply::Reply;
use super::switches::Switches;
use super::{feedback, log, scan};
use bytes::Bytes;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, LOCATION};
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

/// Nesting up to which a body is known to be fine, counted from the whole body's brackets.
const FINE_DEPTH: usize = 260;
/// Nesting from which the API fails with 500.
const FAILING_DEPTH: usize = 500;
/// Nesting from which the API cannot parse a body.
const UNPARSED_DEPTH: usize = 3_000;

enum Route<'a> {
    Health,
    Log(&'a str),
    LogSlash,
    Feedback(&'a str, &'static str),
    Read(&'a str),
    Update(&'a str),
    Unknown,
}

fn route<'a>(method: &Method, path: &'a str) -> Route<'a> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (post, get) = (method == Method::POST, method == Method::GET);
    match parts.as_slice() {
        ["v2", "health"] if get => Route::Health,
        ["v2" | "v0", "log", project] if post && !project.is_empty() => Route::Log(project),
        ["v2" | "v0", "log", project, ""] if post && !project.is_empty() => Route::LogSlash,
        ["v2", "tasks", id, "flag"] if post && !id.is_empty() => Route::Feedback(id, "flag"),
        ["v2", "tasks", id, "human-eval"] if post && !id.is_empty() => Route::Feedback(id, "human_eval"),
        ["v2", "tasks", id] if get && !id.is_empty() => Route::Read(id),
        ["v2", "tasks", id] if post && !id.is_empty() => Route::Update(id),
        _ => Route::Unknown,
    }
}

/// The kind of a request, as the `only` switch names it.
pub(super) fn kind(head: &Parts) -> &'static str {
    match route(&head.method, head.uri.path()) {
        Route::Health => "health",
        Route::Log(_) | Route::LogSlash => "log",
        Route::Feedback(..) => "feedback",
        Route::Read(_) | Route::Update(_) => "task",
        Route::Unknown => "unknown",
    }
}

/// Answers an API request.
pub(super) async fn answer(book: &Arc<Book>, head: &Parts, body: &Bytes) -> Reply {
    if head.uri.query().is_some() {
        return surprise(book, format!("a query: {} {}", head.method, head.uri));
    }
    if body.len() > book.with(|page| page.switches.max_body_bytes) {
        return Reply::detail(413, "Request Entity Too Large");
    }
    let asked = route(&head.method, head.uri.path());
    let (id, coded) = match &asked {
        Route::Log(id) | Route::Feedback(id, _) | Route::Read(id) | Route::Update(id) => {
            (percent_decode_str(id).decode_utf8(), *id)
        }
        _ => (Ok(String::new().into()), ""),
    };
    let Some(id) = id.ok().filter(|id| !id.contains('/')) else {
        return surprise(
            book,
            format!("an id in a path with a coded slash or that is not UTF-8: {coded}"),
        );
    };
    match asked {
        Route::Health => Reply::raw(200, "{\"status\":\"OK\"}"),
        Route::Log(_) => log::log(book, &id, &head.headers, body),
        Route::LogSlash => slash(head),
        Route::Feedback(_, field) => feedback::evaluate(book, &id, field, &head.headers, body).await,
        Route::Read(_) => feedback::read(book, &id, &head.headers),
        Route::Update(_) => feedback::update(book, &id, &head.headers, body),
        Route::Unknown => surprise(
            book,
            format!("no such route: {} {}", head.method, head.uri.path()),
        ),
    }
}

fn slash(head: &Parts) -> Reply {
    let host = head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let path = head.uri.path().trim_end_matches('/');
    Reply::raw(307, "").with(LOCATION, &format!("http://{host}{path}"))
}

/// Records a surprise and says so to the client.
pub(super) fn surprise(book: &Book, what: String) -> Reply {
    let reply = Reply::detail(
        501,
        &format!("the sandbox does not know how the API answers this: {what}"),
    );
    book.surprise(what);
    reply
}

/// Whose request it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// None, or not a Bearer one.
    Absent,
    /// Not one of the good ones.
    Bad,
    /// Good.
    Good,
}

/// Looks at the key of a request.
pub(super) fn key(switches: &Switches, headers: &HeaderMap) -> Key {
    let value = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let Some((scheme, key)) = value.split_once(' ') else {
        return Key::Absent;
    };
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
        return Key::Absent;
    }
    match &switches.keys {
        Some(good) if !good.iter().any(|k| k == key) => Key::Bad,
        _ => Key::Good,
    }
}

/// The refusal of a request whose key is required but not good.
pub(super) fn refusal(key: &Key) -> Option<Reply> {
    match key {
        Key::Absent => Some(Reply::detail(403, "Not authenticated")),
        Key::Bad => Some(Reply::detail(401, "Invalid token")),
        Key::Good => None,
    }
}

/// A body that is an object, with what was found in it.
pub(super) struct Body<'a> {
    pub(super) text: &'a str,
    pub(super) hazards: scan::Hazards,
}

impl<'a> Body<'a> {
    /// Reads a body as the API does: 400 for what is not text, 422 for what is not JSON or not called so.
    pub(super) fn read(book: &Book, headers: &HeaderMap, bytes: &'a [u8]) -> Result<Self, Reply> {
        let unparsed = || Reply::detail(400, "There was an error parsing the body");
        let zipped = bytes.starts_with(&[0x1f, 0x8b]);
        match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
            None => {}
            Some(b"gzip") if zipped => {}
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                return Err(surprise(
                    book,
                    format!("Content-Encoding: {other}, with a body that is not gzip"),
                ));
            }
        }
        json_type(headers).map_err(|unknown| match unknown {
            Some(unknown) => surprise(book, format!("Content-Type: {unknown}")),
            None => Reply::unprocessable(&["body"], "Input should be a valid dictionary or object"),
        })?;
        let text = std::str::from_utf8(bytes).map_err(|_| unparsed())?;
        if let Err(error) = serde_json::from_str::<&serde_json::value::RawValue>(text) {
            return Err(Reply::unprocessable(
                &["body"],
                &format!("JSON decode error: {error}"),
            ));
        }
        let text = text.trim();
        let hazards = scan::hazards(text);
        if hazards.depth >= UNPARSED_DEPTH {
            return Err(unparsed());
        }
        if hazards.depth > FINE_DEPTH && hazards.depth < FAILING_DEPTH {
            return Err(surprise(
                book,
                format!("a body nested {} deep: 250 is fine, 500 fails", hazards.depth),
            ));
        }
        if scan::kind(text) != scan::Kind::Object {
            return Err(Reply::unprocessable(
                &["body"],
                "Input should be a valid dictionary or object",
            ));
        }
        Ok(Self { text, hazards })
    }

    /// The failure of the server itself on a body that it can read but not handle.
    pub(super) fn failure(&self) -> Option<Reply> {
        let found = &self.hazards;
        (found.lone_surrogate || found.beyond_double || found.depth >= FAILING_DEPTH)
            .then(|| Reply::detail(500, "Internal Server Error"))
    }
}

/// Whether a body is said to be JSON; the error is an unknown type, or `None` where it is known to be refused.
fn json_type(headers: &HeaderMap) -> Result<(), Option<String>> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    match value.split(';').next().unwrap_or_default().trim() {
        "application/json" => Ok(()),
        other if other.starts_with("application/") && other.ends_with("+json") => Ok(()),
        "application/x-www-form-urlencoded" | "multipart/form-data" | "text/plain" => Err(None),
        _ => Err(Some(value)),
    }
}
