//! One request, as services see it.

use super::activity::Activity;
use super::body::Pace;
use super::reply::{Refused, Reply, detail};
use super::{Limits, Transport};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// A request, with what its connection knows about it.
#[derive(Debug)]
pub struct Call {
    pub(super) request: Request<Incoming>,
    transport: Transport,
    pub(super) limits: Limits,
    activity: Arc<Activity>,
    param: Range<usize>,
    pub(super) pace: Pace,
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
            pace: Pace::new(limits.body),
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

    /// A reply to a request whose body stays unread.
    pub fn unread(&self, reply: Reply) -> Reply {
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
pub(super) fn closing(mut reply: Reply) -> Reply {
    reply
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// Lets pass what the API would (contract.md section 1): no type, `application/json`, or any `+json`; uncompressed.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), Refused> {
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
