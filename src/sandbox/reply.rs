//! What the sandbox answers, before it becomes HTTP.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;

/// A whole reply. Its body is JSON.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) header: Option<(HeaderName, HeaderValue)>,
    /// Drop the connection once the reply has gone out, as the API does when storing fails.
    pub(super) then_drop: bool,
}

impl Reply {
    /// A reply whose body is ready JSON text.
    pub(super) fn raw(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            status,
            body: body.into(),
            header: None,
            then_drop: false,
        }
    }

    /// A reply with a value as JSON.
    pub(super) fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::raw(status, body),
            Err(error) => Self::detail(500, &format!("the sandbox cannot write its own reply: {error}")),
        }
    }

    /// A reply of the API's usual error shape: `{"detail": text}`.
    pub(super) fn detail(status: u16, text: &str) -> Self {
        Self::raw(status, format!("{{\"detail\":{}}}", quote(text)))
    }

    /// A 422 as the API's validation writes it.
    pub(super) fn unprocessable(place: &[&str], reason: &str) -> Self {
        let place: Vec<String> = place
            .iter()
            .map(|part| {
                if part.bytes().all(|b| b.is_ascii_digit()) {
                    (*part).into()
                } else {
                    quote(part)
                }
            })
            .collect();
        let (place, reason) = (place.join(","), quote(reason));
        Self::raw(
            422,
            format!("{{\"detail\":[{{\"type\":\"value_error\",\"loc\":[{place}],\"msg\":{reason}}}]}}"),
        )
    }

    /// The same reply with a header.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.header = HeaderValue::from_str(value).ok().map(|value| (name, value));
        self
    }
}

/// A text as a JSON string.
pub(super) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
