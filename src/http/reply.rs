//! Replies, all of them JSON but the metrics. Errors have the API's own shape, `{"detail": "sentence"}`.

use super::budget::{Budget, NoRoom, Reservation, SMALL_BYTES};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::time::Duration;

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

/// A large body keeps its room until it is sent: the client decides how fast that goes.
pub fn held(body: impl Into<Bytes>, mut room: Reservation) -> Bytes {
    struct Held(
        Bytes,
        #[expect(dead_code, reason = "it is held, not read")] Reservation,
    );
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let body = body.into();
    if body.len() <= SMALL_BYTES {
        return body;
    }
    room.shrink_to(body.len());
    Bytes::from_owner(Held(body, room))
}

/// A reply that counts in `budget` until it is sent, if it is large. It waits for its room for up to
/// `patience`, in line. One that is larger than anything that `budget` has room for counts as that.
pub async fn counted(reply: Reply, budget: &Budget, patience: Duration) -> Result<Reply, NoRoom> {
    let bytes = reply.body().size_hint().exact().unwrap_or_default();
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes <= SMALL_BYTES {
        return Ok(reply);
    }
    let room = budget.reserve(bytes.min(budget.most_bytes()), patience).await?;
    let (parts, body) = reply.into_parts();
    // It is one piece, and there.
    let Ok(body) = body.collect().await;
    let body = held(body.to_bytes(), room);
    Ok(Response::from_parts(parts, Full::new(body)))
}
