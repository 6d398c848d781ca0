//! One request, as services see it.

use super::activity::Activity;
use super::budget::{Budget, LEAST_BYTES, NoRoom, Reservation, SMALL_BYTES};
use super::reply::{Refused, Reply, detail, unavailable};
use super::{Limits, Transport};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// What a client is told to wait when there was no room for its body, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// A request, with what its connection knows about it.
#[derive(Debug)]
pub struct Call {
    request: Request<Incoming>,
    transport: Transport,
    limits: Limits,
    activity: Arc<Activity>,
    param: Range<usize>,
}

impl Call {
    pub(super) fn new(
        request: Request<Incoming>,
        transport: Transport,
        limits: Limits,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            request,
            transport,
            limits,
            activity,
            param: 0..0,
        }
    }

    pub(super) fn with_param(mut self, param: Range<usize>) -> Self {
        self.param = param;
        self
    }

    /// Takes the parameter out of the path if that fits a pattern such as `/v2/tasks/{task_id}/flag`; tells whether it did.
    pub fn fits(&mut self, pattern: &'static str) -> bool {
        let found = super::route::fits(pattern, self.request.uri().path());
        let fits = found.is_some();
        self.param = found.unwrap_or_default();
        fits
    }

    /// What it came in by.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The request, its body unread.
    pub fn request(&self) -> &Request<Incoming> {
        &self.request
    }

    /// The parameter in the path, percent-decoded; empty for a route without one. Not UTF-8: 422.
    pub fn param(&self) -> Result<Cow<'_, str>, Refused> {
        let raw = self
            .request
            .uri()
            .path()
            .get(self.param.clone())
            .unwrap_or_default();
        percent_decode_str(raw).decode_utf8().map_err(|_| {
            let sentence = "the id in the path is not UTF-8: percent-encode its UTF-8 bytes";
            Box::new(detail(StatusCode::UNPROCESSABLE_ENTITY, sentence))
        })
    }

    /// The value of a key in the query, not decoded.
    pub fn query(&self, key: &str) -> Option<&str> {
        let pairs = self.request.uri().query()?.split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }

    /// Reads a JSON body of at most `max_bytes`, which is what the configuration `key` is set to. Anything else is
    /// a reply: 415 for another type or a compressed body, 413 over the limit, 503 (not 408: a 4xx ends the official SDK's sender) for a body that does not
    /// arrive in time or that `budget` has no room for, 400 for one that breaks off.
    ///
    /// Nothing is read from the socket while there is no room. What comes with the body is its room, to be held until the
    /// request is answered.
    pub async fn json_body(
        &mut self,
        max_bytes: usize,
        key: &str,
        budget: &Budget,
    ) -> Result<(Bytes, Reservation), Refused> {
        if let Err(refused) = check_type(self.request.headers()) {
            return Err(Box::new(self.unread(*refused)));
        }
        let size = self.request.body().size_hint();
        if size.lower() > max_bytes as u64 {
            return Err(Box::new(self.unread(too_large(max_bytes, key))));
        }
        // Of a chunked body the length is not known; it starts small and grows.
        let first = size.exact().unwrap_or(SMALL_BYTES as u64);
        let first = usize::try_from(first).unwrap_or(max_bytes);
        let mut room = match budget.reserve(first, self.limits.room).await {
            Ok(room) => room,
            Err(no_room) => {
                return Err(Box::new(
                    self.unread(unavailable(&no_room.to_string(), RETRY_AFTER_S)),
                ));
            }
        };
        let deadline = Instant::now() + self.limits.body;
        let body = collect(self.request.body_mut(), max_bytes, &mut room);
        match timeout_at(deadline, body).await {
            Ok(Ok(body)) => {
                room.shrink_to(body.len().max(LEAST_BYTES));
                Ok((body, room))
            }
            Ok(Err(Broken::TooLarge)) => Err(Box::new(self.unread(too_large(max_bytes, key)))),
            Ok(Err(Broken::NoRoom(no_room))) => Err(Box::new(
                self.unread(unavailable(&no_room.to_string(), RETRY_AFTER_S)),
            )),
            Ok(Err(Broken::Cut(error))) => {
                tracing::debug!(%error, "a body broke off");
                let sentence =
                    "the body broke off before its end, and nothing of it was taken: send it again";
                Err(Box::new(closing(detail(StatusCode::BAD_REQUEST, sentence))))
            }
            Err(_) => {
                let sentence = format!(
                    "the body did not arrive within {} s: send it again",
                    self.limits.body.as_secs()
                );
                Err(Box::new(self.unread(unavailable(&sentence, 1))))
            }
        }
    }

    /// A reply to a request whose body stays unread.
    fn unread(&self, reply: Reply) -> Reply {
        self.activity.linger();
        closing(reply)
    }

    /// Ends the connection after the reply if the request has a body that nobody read.
    pub fn refuse(&self, reply: Reply) -> Reply {
        if self.request.body().is_end_stream() {
            reply
        } else {
            self.unread(reply)
        }
    }
}

/// Marks a reply as the connection's last.
fn closing(mut reply: Reply) -> Reply {
    reply
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

enum Broken {
    TooLarge,
    NoRoom(NoRoom),
    Cut(hyper::Error),
}

async fn collect(body: &mut Incoming, max_bytes: usize, room: &mut Reservation) -> Result<Bytes, Broken> {
    let mut whole = Bytes::new();
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        // Trailers carry nothing for us.
        let Ok(piece) = frame.map_err(Broken::Cut)?.into_data() else {
            continue;
        };
        let sum = whole.len().max(pieces.len()) + piece.len();
        if sum > max_bytes {
            return Err(Broken::TooLarge);
        }
        if sum > room.bytes() {
            // By doubling, so that a long body does not ask for every piece.
            room.grow_to(sum.max(2 * room.bytes()).min(max_bytes))
                .map_err(Broken::NoRoom)?;
        }
        if sum == piece.len() {
            // Most bodies are one piece: no copy.
            whole = piece;
            continue;
        }
        // All that was reserved; memory that is not written to yet costs nothing.
        pieces.reserve_exact(room.bytes().max(sum) - pieces.len());
        if pieces.is_empty() {
            pieces.extend_from_slice(&whole);
        }
        pieces.extend_from_slice(&piece);
    }
    Ok(if pieces.is_empty() { whole } else { pieces.into() })
}

fn too_large(max_bytes: usize, key: &str) -> Reply {
    let sentence = format!(
        "the body is over the limit of {max_bytes} bytes ({key}): send it in smaller parts, or raise {key}"
    );
    detail(StatusCode::PAYLOAD_TOO_LARGE, &sentence)
}

/// Lets pass what the API would (contract.md section 1): no type, `application/json`, or any `+json`; uncompressed.
fn check_type(headers: &HeaderMap) -> Result<(), Refused> {
    let refused = |sentence: &str| Err(Box::new(detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence)));
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return refused(
            "compressed bodies are not taken: send the JSON uncompressed, without Content-Encoding",
        );
    }
    let Some(given) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = given
        .as_bytes()
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    match essence.as_slice() {
        b"application/json" => Ok(()),
        other if other.ends_with(b"+json") => Ok(()),
        b"application/x-www-form-urlencoded" => refused(
            "the Content-Type is application/x-www-form-urlencoded, which is what curl sends unless told otherwise: \
             add -H 'Content-Type: application/json'",
        ),
        _ => refused("the body must be JSON: send it with Content-Type: application/json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(content_type: &'static str) -> Option<u16> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        check_type(&headers).err().map(|reply| reply.status().as_u16())
    }

    #[test]
    fn json_passes_in_every_spelling_and_nothing_else_does() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/vnd.api+json",
            "application/problem+json ;x=y",
        ] {
            assert_eq!(status(good), None, "{good}");
        }
        for bad in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonp",
            "",
            "json",
        ] {
            assert_eq!(status(bad), Some(415), "{bad}");
        }
        assert!(check_type(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_compressed_body_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(check_type(&headers).is_err());
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
        assert!(check_type(&headers).is_ok());
    }
}
