//! The API's routes, and what they have in common: keys, bodies, surprises.

use super::book::Book;
use super::reply::Reply;
use super::switches::Switches;
use super::{feedback, log, scan};
use bytes::Bytes;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, LOCATION};
use hyper::http::request::Parts;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::sync::Arc;

/// What is coded in the `Location` of a redirect.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?');

/// Nesting up to which a body is known to be fine, counted from the whole body's brackets.
const FINE_DEPTH: usize = 260;
/// Nesting from which the API fails with 500.
const FAILING_DEPTH: usize = 500;
/// Nesting from which the API cannot parse a body.
const UNPARSED_DEPTH: usize = 3_000;

enum Route<'a> {
    Health,
    Log(&'a str),
    Feedback(&'a str, &'static str),
    Read(&'a str),
    Update(&'a str),
    /// It would fit without the slashes at its end.
    Redirect,
    /// The path is known, but not for this method.
    OtherMethod,
    /// One of the tasks' or logs', that no route fits.
    NotFound,
    Unknown,
}

/// Finds the route of a path that is decoded already: so does the API, and a coded slash in an id parts it.
fn route<'a>(method: &Method, path: &'a str) -> Route<'a> {
    if let Some(found) = fitting(method, path) {
        return found;
    }
    let without = path.trim_end_matches('/');
    if without != path && fitting(method, without).is_some() {
        return Route::Redirect;
    }
    let of_the_api = ["/v2/tasks/", "/v2/log/", "/v0/log/"];
    match *method != Method::OPTIONS && of_the_api.iter().any(|start| path.starts_with(start)) {
        true => Route::NotFound,
        false => Route::Unknown,
    }
}

fn fitting<'a>(method: &Method, path: &'a str) -> Option<Route<'a>> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    let (post, get) = (method == Method::POST, method == Method::GET);
    Some(match parts.as_slice() {
        ["v2" | "v3", "health"] if get => Route::Health,
        ["v2" | "v0", "log", project] if post => Route::Log(project),
        ["v2", "tasks", id, "flag"] if post => Route::Feedback(id, "flag"),
        ["v2", "tasks", id, "human-eval"] if post => Route::Feedback(id, "human_eval"),
        ["v2", "tasks", id] if get => Route::Read(id),
        ["v2", "tasks", id] if post => Route::Update(id),
        // What it answers to a preflight request is not known.
        _ if method == Method::OPTIONS => return None,
        ["v2" | "v3", "health"]
        | ["v2" | "v0", "log", _]
        | ["v2", "tasks", _]
        | ["v2", "tasks", _, "flag" | "human-eval"] => Route::OtherMethod,
        _ => return None,
    })
}

/// The kind of a request, as the `only` switch names it.
pub(super) fn kind(head: &Parts) -> &'static str {
    match route(&head.method, &decoded(head)) {
        Route::Health => "health",
        Route::Log(_) => "log",
        Route::Feedback(..) => "feedback",
        Route::Read(_) | Route::Update(_) => "task",
        Route::Redirect | Route::OtherMethod | Route::NotFound | Route::Unknown => "unknown",
    }
}

/// The path as the API routes it.
fn decoded(head: &Parts) -> Cow<'_, str> {
    percent_decode_str(head.uri.path()).decode_utf8_lossy()
}

/// Answers an API request.
pub(super) async fn answer(book: &Arc<Book>, head: &Parts, body: &Bytes) -> Reply {
    if head.uri.query().is_some() {
        return surprise(book, format!("a query: {} {}", head.method, head.uri));
    }
    if body.len() > book.with(|page| page.switches.max_body_bytes) {
        return Reply::detail(413, "Request Entity Too Large");
    }
    if percent_decode_str(head.uri.path()).decode_utf8().is_err() {
        return surprise(book, format!("a path that is not UTF-8: {}", head.uri.path()));
    }
    let path = decoded(head);
    match route(&head.method, &path) {
        Route::Health => Reply::raw(200, "{\"status\":\"OK\"}"),
        Route::Log(project) => log::log(book, project, &head.headers, body),
        Route::Feedback(id, field) => feedback::evaluate(book, id, field, &head.headers, body).await,
        Route::Read(id) => feedback::read(book, id, &head.headers),
        Route::Update(id) => feedback::update(book, id, &head.headers, body),
        Route::Redirect => unrouted(book, redirect(head, &path)),
        Route::OtherMethod => unrouted(book, Reply::detail(405, "Method Not Allowed")),
        Route::NotFound => unrouted(book, Reply::detail(404, "Not Found")),
        Route::Unknown => surprise(
            book,
            format!("no such route: {} {}", head.method, head.uri.path()),
        ),
    }
}

fn unrouted(book: &Book, reply: Reply) -> Reply {
    book.with(|page| page.store.state.unrouted += 1);
    reply
}

fn redirect(head: &Parts, path: &str) -> Reply {
    let host = head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let path = utf8_percent_encode(path.trim_end_matches('/'), PATH);
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
