//! Replies, all of them JSON but the metrics. Errors have the API's own shape, `{"detail": "sentence"}`.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// An answer, complete before its first byte is sent.
pub type Reply = Response<Full<Bytes>>;

/// A reply in place of what was asked for. Boxed, because refusals are rare and replies are large.
pub type Refused = Box<Reply>;

/// A JSON body that is written already.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    text(status, HeaderValue::from_static("application/json"), body)
}

/// A body of another type.
pub fn text(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// An error: one sentence that names the remedy.
pub fn detail(status: StatusCode, sentence: &str) -> Reply {
    #[derive(Serialize)]
    struct Detail<'a> {
        detail: &'a str,
    }
    // A struct of one text always has a JSON form.
    let body = serde_json::to_vec(&Detail { detail: sentence }).unwrap_or_default();
    json(status, body)
}

/// 503 with the seconds after which the client should try again.
pub fn unavailable(sentence: &str, retry_after_s: u32) -> Reply {
    let mut reply = detail(StatusCode::SERVICE_UNAVAILABLE, sentence);
    reply
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
    reply
}
