//! The routes that take events and feedback (design.md section 5), and NDJSON on the Unix socket.
//!
//! What to answer and what to store is decided by pure functions ([`log`], [`mod@line`]); what is here reads bodies, hands
//! the entries to the spool, and answers once they are on disk.

mod answers;
mod body;
pub mod browser;
mod feedback;
pub mod line;
pub mod log;
mod ndjson;
mod odd_time;

use crate::http::{
    Budget, Call, Gate, Guard, Limits, Lines, Peer, Refused, Reply, Reservation, Route, SMALL_BYTES, Service,
    Stop, Verb, detail, json, unavailable,
};
use crate::ids::{Kind, ProjectId};
use crate::metrics::{KindLabel, Metrics};
use crate::redact::{Redactor, Screen};
use crate::spool::{AppendError, Entry, Spool};
use crate::wire;
use bytes::Bytes;
use feedback::Decided;
use hyper::StatusCode;
use log::Door;
use prometheus_client::metrics::counter::Counter;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::io::BufReader;
use tokio::net::UnixStream;

/// What a client is told to wait when the spool does not take its events, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// Events that are parsed before other requests get a turn, so that a body of 10,000 does not stall them.
const EVENTS_A_TURN: usize = 256;

/// How the intake is set up (`[intake]`, and the project of `[upstream]`).
#[derive(Debug, Clone)]
pub struct Settings {
    /// `intake.max_body_bytes`: largest request body, but for log requests, which may be of any size.
    pub max_body_bytes: usize,
    /// `intake.max_in_flight_bytes`: most bytes of bodies and lines that are not answered yet.
    pub max_in_flight_bytes: usize,
    /// `intake.max_event_bytes`: largest single event; a larger one becomes a dead letter, whole up to twice that, else its first
    /// 64 KiB. Also the longest NDJSON line.
    pub max_event_bytes: usize,
    /// `upstream.project_id`, for what names no project. Default none.
    pub default_project: Option<ProjectId>,
    /// What callers must show.
    pub gate: Gate,
    /// `[redact]`: what is taken out of everything that comes. Default none.
    pub redactor: Option<Arc<Redactor>>,
}

/// Which intake route was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// A batch for the project in the path.
    LogTo,
    /// Anything that is events.
    Log,
    /// Feedback about the task in the path.
    FeedbackOn,
    /// Feedback that names its task itself.
    Feedback,
    /// What SDKs ask whether the API is there.
    Health,
}

const fn post(pattern: &'static str, id: Id) -> Route<Id> {
    Route {
        verb: Verb::Post,
        pattern,
        guard: Guard::Write,
        id,
    }
}

/// Takes events and feedback and puts them into the spool.
#[derive(Clone)]
pub struct Intake {
    settings: Settings,
    spool: Spool,
    budget: Budget,
    metrics: Arc<Metrics>,
    counters: Counters,
    screen: Option<Screen>,
    odd_times: Arc<odd_time::Told>,
}

/// Counters of `metrics` that every request touches, looked up once.
#[derive(Clone)]
struct Counters {
    logs: Counter,
    feedbacks: Counter,
    refused_logs: Counter,
    refused_feedbacks: Counter,
}

impl Counters {
    /// Which one counts an entry of that kind.
    fn of(&self, kind: Kind, deliverable: bool) -> &Counter {
        match (kind, deliverable) {
            (Kind::Log, false) => &self.refused_logs,
            (Kind::Feedback, false) => &self.refused_feedbacks,
            (Kind::Log, true) => &self.logs,
            (Kind::Feedback, true) => &self.feedbacks,
        }
    }
}

impl Intake {
    /// An intake into `spool`.
    pub fn new(settings: Settings, spool: Spool, metrics: Arc<Metrics>) -> Self {
        let label = |kind: Kind| KindLabel { kind: kind.as_str() };
        // Owned: a reference would hold the family's lock while the next is looked up.
        let counters = Counters {
            logs: metrics.intake_events.get_or_create_owned(&label(Kind::Log)),
            feedbacks: metrics.intake_events.get_or_create_owned(&label(Kind::Feedback)),
            refused_logs: metrics
                .intake_refused_events
                .get_or_create_owned(&label(Kind::Log)),
            refused_feedbacks: metrics
                .intake_refused_events
                .get_or_create_owned(&label(Kind::Feedback)),
        };
        let budget = Budget::new(
            settings.max_in_flight_bytes,
            metrics.intake_in_flight_bytes.clone(),
            metrics.intake_no_room.clone(),
        );
        let redactor = settings.redactor.clone();
        Self {
            screen: redactor.map(|redactor| Screen::new(redactor, &metrics)),
            settings,
            spool,
            budget,
            metrics,
            counters,
            odd_times: Arc::default(),
        }
    }

    /// What callers must show, for the [`crate::http::Router`] in front.
    pub fn gate(&self) -> Gate {
        self.settings.gate.clone()
    }

    /// What holds for events of that project, unless they name another.
    fn door(&self, project: Option<ProjectId>) -> Door {
        Door {
            project,
            max_event_bytes: self.settings.max_event_bytes,
            screen: self.screen.clone(),
            projects: Some(self.spool.project_room()),
        }
    }

    async fn feedback(&self, call: Call, id: Id) -> Result<Reply, Refused> {
        let Settings {
            max_body_bytes,
            max_event_bytes,
            ..
        } = self.settings;
        let (most, key) = match max_body_bytes < max_event_bytes {
            true => (max_body_bytes, "intake.max_body_bytes"),
            false => (max_event_bytes, "intake.max_event_bytes"),
        };
        self.feedback_within(call, id, most, key).await
    }

    /// Takes a feedback of at most `most` bytes, which is what the configuration `key` is set to.
    async fn feedback_within(
        &self,
        mut call: Call,
        id: Id,
        most: usize,
        key: &str,
    ) -> Result<Reply, Refused> {
        let task = match id {
            Id::FeedbackOn => Some(call.param()?.into_owned()),
            _ => None,
        };
        let (body, _room) = call.json_body(most, key, &self.budget).await?;
        let door = self.door(self.settings.default_project.clone());
        let body = door.screened(&body);
        let Decided { entry, outcome } = feedback::decide(&body, task.as_deref(), &door);
        let kept = entry.is_some();
        if let Some(Entry::Queued { lane, .. }) = &entry {
            let admitted = door.admit(&lane.project, &mut BTreeSet::new());
            admitted.map_err(|sentence| no_room(&sentence))?;
        }
        self.append(entry.into_iter().collect())
            .await
            .map_err(|error| refusal_of(&error))?;
        let feedback = outcome.map_err(|refusal| {
            self.counters.refused_feedbacks.inc_by(u64::from(kept));
            unprocessable(&refusal.to_string())
        })?;
        self.counters.feedbacks.inc();
        let mut reply = b"{\"task_id\":".to_vec();
        wire::json::push_string(&mut reply, feedback.task().as_str());
        reply.extend_from_slice(b",\"queued\":true}");
        Ok(json(StatusCode::OK, reply))
    }

    /// Counts events with times that the API will replace, and tells people.
    fn note_odd_times(&self, projects: &[ProjectId]) {
        if !projects.is_empty() {
            self.metrics.intake_odd_times.inc_by(projects.len() as u64);
            self.odd_times.note(projects);
        }
    }

    /// Resolves once the entries are on disk.
    async fn append(&self, entries: Vec<Entry>) -> Result<(), AppendError> {
        if entries.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.spool.append(entries).await?;
        self.metrics
            .intake_append_seconds
            .observe(began.elapsed().as_secs_f64());
        Ok(())
    }
}

impl Service for Intake {
    type Id = Id;

    const ROUTES: &'static [Route<Id>] = &[
        post("/v2/log/{project_id}", Id::LogTo),
        post("/v0/log/{project_id}", Id::LogTo),
        post("/v2/tasks/{task_id}/flag", Id::FeedbackOn),
        post("/v2/tasks/{task_id}/human-eval", Id::FeedbackOn),
        Route {
            verb: Verb::Get,
            pattern: "/v2/health",
            guard: Guard::Token,
            id: Id::Health,
        },
        post("/log", Id::Log),
        post("/feedback", Id::Feedback),
    ];

    async fn call(&self, id: Id, call: Call) -> Reply {
        let answered = match id {
            Id::LogTo | Id::Log => self.log(call, id).await,
            Id::FeedbackOn | Id::Feedback => self.feedback(call, id).await,
            Id::Health => Ok(json(StatusCode::OK, &b"{\"status\":\"OK\"}"[..])),
        };
        answered.unwrap_or_else(|refused| *refused)
    }
}

impl Lines for Intake {
    async fn lines(&self, stream: BufReader<UnixStream>, peer: Option<Peer>, limits: Limits, stop: Stop) {
        match self.settings.gate.check_peer(peer) {
            Ok(()) => ndjson::serve(self, stream, limits, stop).await,
            Err(sentence) => ndjson::refuse(stream, &sentence, limits).await,
        }
    }
}

/// A large reply keeps its room until it is sent: the client decides how fast that goes.
fn held(reply: Vec<u8>, mut room: Reservation) -> Bytes {
    struct Held(
        Vec<u8>,
        #[expect(dead_code, reason = "it is held, not read")] Reservation,
    );
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    if reply.len() <= SMALL_BYTES {
        return reply.into();
    }
    room.shrink_to(reply.len());
    Bytes::from_owner(Held(reply, room))
}

fn unprocessable(sentence: &str) -> Refused {
    Box::new(detail(StatusCode::UNPROCESSABLE_ENTITY, sentence))
}

/// The answer where nothing is taken for want of room: the client sends it again.
fn no_room(sentence: &str) -> Refused {
    Box::new(unavailable(sentence, RETRY_AFTER_S))
}

fn refusal_of(error: &AppendError) -> Refused {
    Box::new(unavailable(&error.to_string(), RETRY_AFTER_S))
}

/// Seconds since 1970; a clock before that counts as 0, which the API replaces by its own time.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
