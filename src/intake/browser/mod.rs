//! The listener for web pages (`[intake.browser]`): one route, for listed origins, with what browsers ask for (CORS).
//!
//! A page cannot keep a secret, so no token is asked for; what bounds it is the list of origins, which browsers hold to, the
//! size of a feedback and the rate of each address.

mod rate;

use super::{Id, Intake};
use crate::http::{
    Call, Handler, Limits, Lines, Peer, Refused, Reply, Stop, Transport, detail, listed_origin,
};
use crate::metrics::{Metrics, RequestLabels};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, HeaderName, HeaderValue, ORIGIN,
    RETRY_AFTER, VARY,
};
use hyper::{Method, StatusCode};
use rate::Rate;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::BufReader;
use tokio::net::UnixStream;

const ROUTE: &str = "/v2/tasks/{task_id}/flag";

/// How long a browser may go by the answer to a preflight, in seconds. Browsers cap it at some hours.
const MAX_AGE_S: &str = "3600";

/// Asked and answered where a page of a less private network calls this machine (Private Network Access).
const REQUEST_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// What applies to requests of web pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `intake.browser.origins`: whose pages may send feedback, exactly as browsers write it.
    pub origins: Vec<String>,
    /// `intake.browser.max_body_bytes`: largest feedback, in bytes. Default 64 KiB.
    pub max_body_bytes: usize,
    /// `intake.browser.requests_per_minute`: most feedback of one address a minute. Default 60.
    pub requests_per_minute: u32,
}

/// Answers the requests of the listener for web pages.
pub struct Browser {
    settings: Settings,
    intake: Arc<Intake>,
    rate: Mutex<Rate>,
    metrics: Arc<Metrics>,
}

impl Browser {
    /// Takes feedback for `intake`.
    pub fn new(settings: Settings, intake: Arc<Intake>, metrics: Arc<Metrics>) -> Self {
        Self {
            rate: Mutex::new(Rate::new(settings.requests_per_minute)),
            settings,
            intake,
            metrics,
        }
    }

    async fn answer(&self, mut call: Call) -> (&'static str, Reply) {
        let route = if call.fits(ROUTE) { ROUTE } else { "unknown" };
        if let Err(refused) = self.intake.settings.gate.check_host(&call) {
            return (route, call.refuse(*refused));
        }
        let Some(origin) = listed_origin(call.request().headers(), &self.settings.origins).cloned() else {
            return (route, call.refuse(foreign(&call)));
        };
        let reply = if route == ROUTE {
            self.serve(call).await.unwrap_or_else(|refused| *refused)
        } else {
            let sentence = "only POST /v2/tasks/{task_id}/flag is served to web pages: log from the server side of the app";
            call.refuse(detail(StatusCode::NOT_FOUND, sentence))
        };
        (route, readable(reply, origin))
    }

    /// A request to the route, of a listed origin.
    async fn serve(&self, call: Call) -> Result<Reply, Refused> {
        match *call.request().method() {
            Method::OPTIONS => Ok(call.refuse(preflight(&call))),
            Method::POST => {
                self.admit(&call)?;
                let most = self.settings.max_body_bytes;
                let key = "intake.browser.max_body_bytes";
                self.intake.feedback_within(call, Id::FeedbackOn, most, key).await
            }
            _ => {
                let mut reply = detail(StatusCode::METHOD_NOT_ALLOWED, "use POST");
                let allow = HeaderValue::from_static("POST, OPTIONS");
                reply.headers_mut().insert(ALLOW, allow);
                Ok(call.refuse(reply))
            }
        }
    }

    fn admit(&self, call: &Call) -> Result<(), Refused> {
        let Transport::Tcp(from) = call.transport() else {
            return Ok(());
        };
        // What is behind it is whole at any moment.
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = rate.admit(from, Instant::now());
        drop(rate);
        admitted.map_err(|wait| Box::new(call.refuse(too_many(self.settings.requests_per_minute, wait))))
    }
}

/// Without the headers that would let the page read it.
fn foreign(call: &Call) -> Reply {
    let sentence = match call.request().headers().contains_key(ORIGIN) {
        true => {
            "this origin is not listed: add it to intake.browser.origins exactly as the browser writes it"
        }
        false => {
            "this listener is for web pages, and the request has no Origin: use intake.http or the Unix socket"
        }
    };
    detail(StatusCode::FORBIDDEN, sentence)
}

fn too_many(per_minute: u32, wait: Duration) -> Reply {
    let sentence = format!(
        "more than {per_minute} requests a minute came from this address: wait, or raise \
         intake.browser.requests_per_minute"
    );
    let mut reply = detail(StatusCode::TOO_MANY_REQUESTS, &sentence);
    // Rounded up, so that who waits that long is let in.
    let seconds = wait.as_secs() + 1;
    reply
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    reply
}

/// What a page may send (the SDKs send JSON and no other header that needs leave).
fn preflight(call: &Call) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("content-type"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
    let asked = call.request().headers().get(REQUEST_PRIVATE);
    if asked.is_some_and(|asked| asked == "true") {
        headers.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
    }
    reply
}

/// Lets the page of that origin read the reply.
fn readable(mut reply: Reply, origin: HeaderValue) -> Reply {
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("retry-after"),
    );
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    reply
}

impl Handler for Browser {
    async fn handle(&self, call: Call) -> Reply {
        let (route, reply) = self.answer(call).await;
        let status = reply.status().as_u16();
        self.metrics
            .intake_requests
            .get_or_create(&RequestLabels { route, status })
            .inc();
        reply
    }
}

impl Lines for Browser {
    /// Never called: the listener is a TCP socket.
    async fn lines(&self, _: BufReader<UnixStream>, _: Option<Peer>, _: Limits, _: Stop) {}
}
