//! The routes that tell operators how things stand, and what to do with dead letters. No event content, but for
//! `/dead_letters` and `/events`, which are on the Unix socket only.

mod asked;
mod dead_letters;
mod events;
mod exposition;
pub mod lanes;
mod letters;
mod status;

use crate::board::Board;
use crate::http::{
    Budget, Call, Guard, LongWork, Refused, Reply, Reservation, Route, Service, Verb, counted, detail, json,
    text, unavailable,
};
use crate::ids::TaskId;
use crate::metrics::{Metrics, StateLabel};
use crate::redact::{Redactor, Screen};
use crate::secret::Secrets;
use crate::spool::{DeadPage, KeptLetter, Spool};
use asked::Asked;
use bytes::Bytes;
use exposition::Format;
use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderValue, LINK, VARY};
use letters::{Broken, Check, Done};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What a client is told to wait while the daemon does not accept, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// Looks for an event that go on at a time, and how long another waits for its turn.
const MAX_LOOKS: usize = 1;
const LOOK_PATIENCE: Duration = Duration::from_secs(10);

/// Looks at dead letters for an answer at a time; how long another waits for its turn, and the
/// answer for its room.
const MAX_READS: usize = 1;
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Largest body of a request about dead letters, beside the record in it.
const REQUEST_BYTES: usize = 64 * 1024;

/// There is no room for an answer.
const UNREAD: &str =
    "no room: as many answers as may be were asked for and are not read yet: ask again in a moment";

/// What the routes know of the configuration.
#[derive(Debug, Clone)]
pub struct About {
    /// `upstream.base_url`.
    pub base_url: String,
    /// What is masked in the words of `/status` and in the reasons of dead letters.
    pub secrets: Secrets,
    /// `intake.max_event_bytes`: the largest record that a dead letter is queued again with.
    pub max_event_bytes: usize,
    /// `[redact]`: what is taken out of a dead letter that is queued again.
    pub redactor: Option<Arc<Redactor>>,
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
    /// One of them.
    DeadLetter,
    /// Queue them again.
    Requeue,
    /// Remove them.
    Purge,
    /// What became of one event.
    Event,
    /// Move what is queued of a project to another.
    MoveLanes,
}

/// Answers the admin routes.
#[derive(Clone)]
pub struct Admin {
    about: About,
    check: Check,
    spool: Spool,
    board: Board,
    metrics: Arc<Metrics>,
    /// For the bodies of requests here and for the answers: never a question of what clients send.
    budget: Budget,
    /// Who may read dead letters for an answer.
    reads: Arc<Semaphore>,
    /// Who may look for an event: it takes reading the whole backlog.
    looking: Arc<Semaphore>,
    started: Instant,
}

impl Admin {
    /// The uptime counts from here.
    pub fn new(about: About, spool: Spool, board: Board, metrics: Arc<Metrics>) -> Self {
        let budget = Budget::new(
            4 * most_bytes(&about).max(1024 * 1024),
            Gauge::default(),
            Counter::default(),
        );
        let redactor = about.redactor.clone();
        let check = Check {
            max_event_bytes: about.max_event_bytes,
            work: LongWork::new(redactor.is_some()),
            screen: redactor.map(|redactor| Screen::new(redactor, &metrics)),
        };
        Self {
            about,
            check,
            spool,
            board,
            metrics,
            budget,
            reads: Arc::new(Semaphore::new(MAX_READS)),
            looking: Arc::new(Semaphore::new(MAX_LOOKS)),
            started: Instant::now(),
        }
    }

    fn ready(&self) -> Reply {
        match self.spool.refusing() {
            None => json(StatusCode::OK, &b"{\"status\":\"ready\"}"[..]),
            Some(sentence) => unavailable(&sentence, RETRY_AFTER_S),
        }
    }

    fn metrics(&self, call: &Call) -> Reply {
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
        self.metrics
            .dead_letters_dropped
            .inner()
            .store(self.spool.dropped_letters(), Relaxed);
        let format = Format::asked(call.request().headers());
        let ledger = self.spool.ledger();
        let page = match format {
            Format::Prometheus => self.metrics.encode_prometheus(&ledger),
            Format::OpenMetrics => self.metrics.encode(&ledger),
        };
        let Ok(page) = page else {
            return fault("the metrics could not be written");
        };
        let mut reply = text(StatusCode::OK, format.content_type(), page);
        reply.headers_mut().insert(VARY, ACCEPT.into());
        reply
    }

    fn status(&self) -> Reply {
        written(&self.standing())
    }

    fn standing(&self) -> status::Status<'_> {
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
        let mut given_up = self.board.waiting(Instant::now());
        given_up.extend(self.spool.letters_hint());
        status::Status::new(
            (&self.about.base_url, self.board.token_counts()),
            uptime,
            self.spool.ledger(),
            lanes.collect(),
            spool,
            &self.board.notices(),
            &given_up,
        )
        .masked(&self.about.secrets)
    }

    /// How things stand, in one line for `systemctl status`: what is queued, and why if it is not being sent.
    pub fn sentence(&self) -> String {
        self.standing().sentence()
    }

    async fn dead_letters(&self, call: &Call) -> Reply {
        match dead_letters::Page::of(call.query("after"), call.query("limit")) {
            Ok(page) => match self.spool.dead_letters(page.after, page.limit).await {
                Ok(found) => {
                    let bytes = found.letters.iter().map(record_bytes).sum();
                    let work = &self.check.work;
                    work.run(bytes, || shown(&found, page.limit, &self.about.secrets))
                        .await
                }
                Err(error) => unavailable(&error.to_string(), RETRY_AFTER_S),
            },
            Err(sentence) => detail(StatusCode::UNPROCESSABLE_ENTITY, sentence),
        }
    }

    async fn dead_letter(&self, call: &Call) -> Result<Reply, Refused> {
        let number = call.param()?;
        let number = number.parse().map_err(|_| {
            unprocessable("the path must end with the number of a dead letter, such as /dead_letters/7")
        })?;
        let found = letters::find(&self.spool, number).await;
        match found.map_err(|sentence| Box::new(unavailable(&sentence, RETRY_AFTER_S)))? {
            Some(kept) => {
                let secrets = &self.about.secrets;
                let written = self.check.work.run(record_bytes(&kept), || {
                    written(&dead_letters::Shown::new(&kept, secrets))
                });
                Ok(written.await)
            }
            None => Ok(detail(
                StatusCode::NOT_FOUND,
                &format!(
                    "there is no dead letter {number}: it was queued again, purged or dropped, or never was; GET /dead_letters lists \
                     those there are"
                ),
            )),
        }
    }

    async fn requeue(&self, mut call: Call) -> Result<Reply, Refused> {
        let (body, _room) = self.body(&mut call).await?;
        let asked = self.check.work.run(body.len(), || Asked::of(&body)).await;
        let asked = asked.map_err(|sentence| unprocessable(&sentence))?;
        let ended = letters::requeue(&self.spool, asked, &self.check).await;
        let done = ended
            .as_ref()
            .map_or_else(|broken| broken.done.done, |done| done.done);
        self.metrics.dead_letters_requeued.inc_by(done);
        if done > 0 {
            tracing::info!(letters = done, "dead letters were queued again");
        }
        Ok(answer(ended, "queued again"))
    }

    async fn purge(&self, mut call: Call) -> Result<Reply, Refused> {
        let (body, _room) = self.body(&mut call).await?;
        let asked = Asked::of(&body).map_err(|sentence| unprocessable(&sentence))?;
        let ended = letters::purge(&self.spool, asked).await;
        let done = ended
            .as_ref()
            .map_or_else(|broken| broken.done.done, |done| done.done);
        self.metrics.dead_letters_purged.inc_by(done);
        if done > 0 {
            tracing::info!(letters = done, "dead letters were purged");
        }
        Ok(answer(ended, "purged"))
    }

    async fn event(&self, call: &Call) -> Result<Reply, Refused> {
        let task = TaskId::new(&call.param()?).map_err(|error| unprocessable(&error.to_string()))?;
        let busy = || {
            let sentence =
                "another event is being looked for, which reads the whole backlog: ask again in a moment";
            Box::new(unavailable(sentence, RETRY_AFTER_S))
        };
        let turn = timeout(LOOK_PATIENCE, self.looking.acquire()).await;
        let _turn = turn.map_err(|_| busy())?;
        let fate = events::look(&self.spool, &self.board, &task).await;
        let fate = fate.map_err(|sentence| Box::new(unavailable(&sentence, RETRY_AFTER_S)))?;
        let reach = self.board.fates().reach();
        Ok(
            match events::Told::new(&task, &fate, &self.board, &self.about.secrets, reach) {
                Some(told) => self.counted(written(&told), ANSWER_PATIENCE).await,
                None => detail(
                    StatusCode::NOT_FOUND,
                    &events::unknown(&task, fate.unreadable, reach),
                ),
            },
        )
    }

    async fn move_lanes(&self, mut call: Call) -> Result<Reply, Refused> {
        let (body, _room) = self.body(&mut call).await?;
        let (from, to) = lanes::asked(&body).map_err(|sentence| unprocessable(&sentence))?;
        let ended = lanes::move_project(&self.spool, &from, &to).await;
        let done = ended.as_ref().map_or_else(|stopped| stopped.done, |done| *done);
        if done.logs + done.feedback > 0 {
            tracing::info!(
                from = %from, to = %to, logs = done.logs, feedback = done.feedback, left = done.left,
                "what was queued of a project was moved to another"
            );
        }
        Ok(match ended {
            Ok(done) => written(&done),
            Err(stopped) => unavailable(&stopped.to_string(), RETRY_AFTER_S),
        })
    }

    /// Reads dead letters for an answer when it has its turn. The next one does once there is room
    /// for that, so only one answer is ever there without.
    async fn in_turn(&self, answer: impl Future<Output = Reply> + Send) -> Reply {
        match timeout(ANSWER_PATIENCE, self.reads.acquire()).await {
            Ok(_turn) => self.counted(answer.await, ANSWER_PATIENCE).await,
            Err(_) => unavailable(UNREAD, RETRY_AFTER_S),
        }
    }

    /// An answer that counts in the budget until it is sent.
    async fn counted(&self, answer: Reply, patience: Duration) -> Reply {
        let counted = counted(answer, &self.budget, patience).await;
        counted.unwrap_or_else(|_| unavailable(UNREAD, RETRY_AFTER_S))
    }

    async fn body(&self, call: &mut Call) -> Result<(Bytes, Reservation), Refused> {
        call.json_body(most_bytes(&self.about), "intake.max_event_bytes", &self.budget)
            .await
    }
}

/// What an answer is made of that takes time to write.
fn record_bytes(kept: &KeptLetter) -> usize {
    kept.letter.as_ref().map_or(0, |letter| letter.record.len())
}

/// Largest request body.
fn most_bytes(about: &About) -> usize {
    about.max_event_bytes.saturating_add(REQUEST_BYTES)
}

/// What was done; where it ended early, how far it came.
fn answer(ended: Result<Done, Broken>, what: &str) -> Reply {
    match ended {
        Ok(done) => written(&done),
        Err(Broken { done, sentence }) if done.done == 0 => unavailable(&sentence, RETRY_AFTER_S),
        Err(Broken { done, sentence }) => unavailable(
            &format!(
                "{} dead letters are {what}, the rest is not: {sentence}",
                done.done
            ),
            RETRY_AFTER_S,
        ),
    }
}

fn unprocessable(sentence: &str) -> Refused {
    Box::new(detail(StatusCode::UNPROCESSABLE_ENTITY, sentence))
}

impl Service for Admin {
    type Id = Id;

    const ROUTES: &'static [Route<Id>] = &[
        get("/healthz", Guard::Open, Id::Healthz),
        get("/readyz", Guard::Open, Id::Readyz),
        get("/metrics", Guard::Token, Id::Metrics),
        get("/status", Guard::Token, Id::Status),
        get("/dead_letters", Guard::UnixOnly, Id::DeadLetters),
        get("/dead_letters/{id}", Guard::UnixOnly, Id::DeadLetter),
        post("/dead_letters/requeue", Id::Requeue),
        post("/dead_letters/purge", Id::Purge),
        get("/events/{task_id}", Guard::UnixOnly, Id::Event),
        post("/lanes/move", Id::MoveLanes),
    ];

    async fn call(&self, id: Id, call: Call) -> Reply {
        match id {
            Id::Healthz => json(StatusCode::OK, &b"{\"status\":\"ok\"}"[..]),
            Id::Readyz => self.ready(),
            // Written in one go, so nobody waits with a page that has no room.
            Id::Metrics => self.counted(self.metrics(&call), Duration::ZERO).await,
            Id::Status => self.counted(self.status(), Duration::ZERO).await,
            Id::DeadLetters => self.in_turn(self.dead_letters(&call)).await,
            Id::DeadLetter => {
                let shown = async { self.dead_letter(&call).await.unwrap_or_else(|refused| *refused) };
                self.in_turn(shown).await
            }
            Id::Requeue => self.requeue(call).await.unwrap_or_else(|refused| *refused),
            Id::Event => self.event(&call).await.unwrap_or_else(|refused| *refused),
            Id::MoveLanes => self.move_lanes(call).await.unwrap_or_else(|refused| *refused),
            Id::Purge => self.purge(call).await.unwrap_or_else(|refused| *refused),
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

const fn post(pattern: &'static str, id: Id) -> Route<Id> {
    Route {
        verb: Verb::Post,
        pattern,
        guard: Guard::UnixOnly,
        id,
    }
}

/// A page of dead letters. Where the next one is stands in a header, so that the body stays a plain list.
fn shown(page: &DeadPage, limit: usize, secrets: &Secrets) -> Reply {
    let letters = page.letters.iter();
    let letters: Vec<_> = letters
        .map(|kept| dead_letters::Shown::new(kept, secrets))
        .collect();
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
