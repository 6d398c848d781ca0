//! From a request to the service that answers it.

use super::route::fits;
use super::{Call, Gate, Guard, Handler, Limits, Lines, Peer, Refused, Reply, Route, Stop, Verb, detail};
use crate::metrics::{Metrics, RequestLabels};
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, StatusCode};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::net::UnixStream;

/// A table of routes and what answers them.
pub trait Service: Send + Sync + 'static {
    /// What the service knows its routes by.
    type Id: Copy + Send + Sync + 'static;
    /// All its routes.
    const ROUTES: &'static [Route<Self::Id>];
    /// Answers a request to one of them.
    fn call(&self, id: Self::Id, call: Call) -> impl Future<Output = Reply> + Send;
}

/// Two services behind one gate; the first also speaks NDJSON.
#[derive(Debug)]
pub struct Router<A, B> {
    first: Arc<A>,
    second: Arc<B>,
    gate: Gate,
    metrics: Arc<Metrics>,
}

/// A route that fits, with the label that it is counted by.
struct Found<Id> {
    id: Id,
    guard: Guard,
    pattern: &'static str,
    param: Range<usize>,
}

/// What a table says to a path.
enum Lookup<Id> {
    Found(Found<Id>),
    /// The path is known, but not for this method.
    OtherVerb(Verb, &'static str),
    Unknown,
}

fn look_up<Id: Copy>(routes: &'static [Route<Id>], method: &Method, path: &str) -> Lookup<Id> {
    let mut lookup = Lookup::Unknown;
    for route in routes {
        let Some(param) = fits(route.pattern, path) else {
            continue;
        };
        let allowed = match route.verb {
            Verb::Get => method == Method::GET || method == Method::HEAD,
            Verb::Post => method == Method::POST,
        };
        if allowed {
            let Route {
                pattern, guard, id, ..
            } = *route;
            return Lookup::Found(Found {
                id,
                guard,
                pattern,
                param,
            });
        }
        lookup = Lookup::OtherVerb(route.verb, route.pattern);
    }
    lookup
}

impl<A: Service, B: Service> Router<A, B> {
    /// Counts every request in `metrics` by its route's pattern and its status.
    pub fn new(first: Arc<A>, second: Arc<B>, gate: Gate, metrics: Arc<Metrics>) -> Self {
        Self {
            first,
            second,
            gate,
            metrics,
        }
    }

    async fn answer(&self, call: Call) -> (&'static str, Reply) {
        let (request, transport) = (call.request(), call.transport());
        if let Err(refused) = self
            .gate
            .check_caller(transport, request.uri(), request.headers())
        {
            return ("unknown", call.refuse(*refused));
        }
        let (method, path) = (request.method(), request.uri().path());
        let other_verb = match look_up(A::ROUTES, method, path) {
            Lookup::Found(found) => {
                let pattern = found.pattern;
                return match self.admit(call, &found) {
                    Ok(call) => (pattern, self.first.call(found.id, call).await),
                    Err(refused) => (pattern, *refused),
                };
            }
            Lookup::OtherVerb(verb, pattern) => Some((verb, pattern)),
            Lookup::Unknown => None,
        };
        let other_verb = match look_up(B::ROUTES, method, path) {
            Lookup::Found(found) => {
                let pattern = found.pattern;
                return match self.admit(call, &found) {
                    Ok(call) => (pattern, self.second.call(found.id, call).await),
                    Err(refused) => (pattern, *refused),
                };
            }
            Lookup::OtherVerb(verb, pattern) => Some((verb, pattern)),
            Lookup::Unknown => other_verb,
        };
        match other_verb {
            Some((verb, pattern)) => (pattern, call.refuse(wrong_verb(verb, method, pattern))),
            None => ("unknown", call.refuse(self.unknown(path))),
        }
    }

    fn admit<Id>(&self, call: Call, found: &Found<Id>) -> Result<Call, Refused> {
        match self
            .gate
            .check_route(found.guard, call.transport(), call.request().headers())
        {
            Ok(()) => Ok(call.with_param(found.param.clone())),
            Err(refused) => Err(Box::new(call.refuse(*refused))),
        }
    }

    fn unknown(&self, path: &str) -> Reply {
        let first = A::ROUTES.iter().map(|route| (route.verb, route.pattern));
        let second = B::ROUTES.iter().map(|route| (route.verb, route.pattern));
        let routes: Vec<_> = first
            .chain(second)
            .map(|(verb, at)| format!("{} {at}", verb.as_str()))
            .collect();
        let sentence = format!("there is no route {path}; the routes are: {}", routes.join(", "));
        detail(StatusCode::NOT_FOUND, &sentence)
    }
}

fn wrong_verb(verb: Verb, method: &Method, pattern: &str) -> Reply {
    let sentence = format!("{pattern} does not take {method}: use {}", verb.as_str());
    let mut reply = detail(StatusCode::METHOD_NOT_ALLOWED, &sentence);
    reply
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(verb.allow()));
    reply
}

impl<A: Service + Lines, B: Service> Handler for Router<A, B> {
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

impl<A: Lines, B: Send + Sync + 'static> Lines for Router<A, B> {
    fn lines(
        &self,
        stream: BufReader<UnixStream>,
        peer: Option<Peer>,
        limits: Limits,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send {
        self.first.lines(stream, peer, limits, stop)
    }
}
