//! The routes that tell operators how things stand. No event content, but for `/dead_letters`, which is on the Unix
//! socket only.

mod dead_letters;
mod status;

use crate::board::Board;
use crate::http::{Call, Guard, Reply, Route, Service, Verb, detail, json, text, unavailable};
use crate::metrics::{Metrics, StateLabel};
use crate::spool::{DeadPage, Spool};
use hyper::StatusCode;
use hyper::header::{HeaderValue, LINK};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// The text format of the metrics (OpenMetrics 1.0, which Prometheus asks for).
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What a client is told to wait while the daemon does not accept, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// What `/status` tells of the configuration.
#[derive(Debug, Clone)]
pub struct About {
    /// `upstream.base_url`.
    pub base_url: String,
}

/// Which admin route was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// Alive.
    Healthz,
    /// Accepting.
    Readyz,
    /// Prometheus.
    Metrics,
    /// For people.
    Status,
    /// What was given up, with its content.
    DeadLetters,
}

/// Answers the admin routes.
#[derive(Clone)]
pub struct Admin {
    about: About,
    spool: Spool,
    board: Board,
    metrics: Arc<Metrics>,
    started: Instant,
}

impl Admin {
    /// The uptime counts from here.
    pub fn new(about: About, spool: Spool, board: Board, metrics: Arc<Metrics>) -> Self {
        Self {
            about,
            spool,
            board,
            metrics,
            started: Instant::now(),
        }
    }

    fn ready(&self) -> Reply {
        match self.spool.refusing() {
            None => json(StatusCode::OK, &b"{\"status\":\"ready\"}"[..]),
            Some(sentence) => unavailable(&sentence, RETRY_AFTER_S),
        }
    }

    fn metrics(&self) -> Reply {
        let lanes = self.spool.lanes().borrow().clone();
        let mut counts = status::StateCounts::default();
        for view in lanes.iter() {
            counts.add(&self.board.get(view.lane()));
        }
        for (state, count) in counts.all() {
            self.metrics.lanes.get_or_create(&StateLabel { state }).set(count);
        }
        let live = i64::try_from(self.spool.live_bytes()).unwrap_or(i64::MAX);
        self.metrics.spool_live_bytes.set(live);
        let damage = self.spool.damage();
        self.metrics
            .spool_saved_events
            .inner()
            .store(damage.saved, Relaxed);
        self.metrics.spool_lost_events.inner().store(damage.lost, Relaxed);
        match self.metrics.encode(&self.spool.ledger()) {
            Ok(page) => text(StatusCode::OK, METRICS_TYPE, page),
            Err(_) => fault("the metrics could not be written"),
        }
    }

    fn status(&self) -> Reply {
        let lanes = self.spool.lanes().borrow().clone();
        let lanes = lanes.iter().map(|view| {
            status::Lane::new(
                view.lane(),
                view.queued(),
                view.ready().events,
                self.board.get(view.lane()),
            )
        });
        let spool = status::Spool {
            live_bytes: self.spool.live_bytes(),
            refusing: self.spool.refusing(),
            damage: self.spool.damage().into(),
        };
        let uptime = self.started.elapsed();
        written(&status::Status::new(
            &self.about.base_url,
            uptime,
            self.spool.ledger(),
            lanes.collect(),
            spool,
        ))
    }

    async fn dead_letters(&self, call: &Call) -> Reply {
        match dead_letters::Page::of(call.query("after"), call.query("limit")) {
            Ok(page) => match self.spool.dead_letters(page.after, page.limit).await {
                Ok(found) => shown(&found, page.limit),
                Err(error) => unavailable(&error.to_string(), RETRY_AFTER_S),
            },
            Err(sentence) => detail(StatusCode::UNPROCESSABLE_ENTITY, sentence),
        }
    }
}

impl Service for Admin {
    type Id = Id;

    const ROUTES: &'static [Route<Id>] = &[
        get("/healthz", Guard::Open, Id::Healthz),
        get("/readyz", Guard::Open, Id::Readyz),
        get("/metrics", Guard::Token, Id::Metrics),
        get("/status", Guard::Token, Id::Status),
        get("/dead_letters", Guard::UnixOnly, Id::DeadLetters),
    ];

    async fn call(&self, id: Id, call: Call) -> Reply {
        match id {
            Id::Healthz => json(StatusCode::OK, &b"{\"status\":\"ok\"}"[..]),
            Id::Readyz => self.ready(),
            Id::Metrics => self.metrics(),
            Id::Status => self.status(),
            Id::DeadLetters => self.dead_letters(&call).await,
        }
    }
}

const fn get(pattern: &'static str, guard: Guard, id: Id) -> Route<Id> {
    Route {
        verb: Verb::Get,
        pattern,
        guard,
        id,
    }
}

/// A page of dead letters. Where the next one is stands in a header, so that the body stays a plain list.
fn shown(page: &DeadPage, limit: usize) -> Reply {
    let letters: Vec<_> = page.letters.iter().map(dead_letters::Shown::new).collect();
    let mut reply = written(&letters);
    let link = page.next.map(|next| dead_letters::link(next, limit));
    if let Some(Ok(link)) = link.map(HeaderValue::try_from) {
        reply.headers_mut().insert(LINK, link);
    }
    reply
}

fn written(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => json(StatusCode::OK, body),
        Err(_) => fault("the answer could not be written"),
    }
}

fn fault(sentence: &str) -> Reply {
    detail(StatusCode::INTERNAL_SERVER_ERROR, sentence)
}
