//! What the tasks of one lane share: its handles, how its upstream is doing, and what people are told about it.

use super::Settings;
use super::clock;
use super::health::Health;
use super::outlet::{Outlet, Slot};
use super::size::SizeCap;
use super::stop::Stop;
use super::telling::Telling;
use super::window::Window;
use crate::batch::Decision;
use crate::board::{Board, LaneState};
use crate::ids::{Kind, Lane};
use crate::metrics::{AttemptLabels, Metrics, StateLabel};
use crate::spool::{LaneView, Leased, Spool};
use crate::verdict::{Failure, FailureKind, Outcome};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// The settings as one task sees them; each task has its own, so that none misses a change.
pub(super) type Knobs = watch::Receiver<Arc<Settings>>;

/// What all lanes share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) spool: Spool,
    pub(super) board: Board,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: Stop,
    pub(super) outlet: Arc<Outlet>,
    /// Whether the upstream tells which tasks it has stored.
    pub(super) telling: Arc<Mutex<Telling>>,
}

impl Common {
    /// Forgets whether the upstream tells what it stored.
    pub(super) fn forget_telling(&self) {
        *self.telling.lock().unwrap_or_else(PoisonError::into_inner) = Telling::default();
    }
}

/// One lane, for all its tasks.
pub(super) struct Line {
    pub(super) common: Common,
    pub(super) view: LaneView,
    health: Mutex<Health>,
    size: Mutex<SizeCap>,
    window: Mutex<Window>,
    /// Log requests in flight, or about to be.
    posts: AtomicUsize,
    /// Rings when one of them ends.
    freed: Notify,
    /// Rings when the upstream takes something again.
    healed: Notify,
    quota_told: AtomicBool,
    loss_told: AtomicBool,
}

/// The right to send one log request, or to read one task back.
pub(super) struct Pass<'a> {
    _post: Option<Post<'a>>,
    _slot: Slot,
}

/// One of the log requests that the lane may have in flight.
struct Post<'a>(&'a Line);

impl Drop for Post<'_> {
    fn drop(&mut self) {
        self.0.posts.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_waiters();
    }
}

/// What a request is, as far as its turn goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// So many log events.
    Log(usize),
    /// One feedback.
    Feedback,
    /// A task is read back. That may still be done while the shutdown waits for attempts in flight.
    Read,
}

/// One attempt that was made.
#[derive(Debug)]
pub(super) struct Attempt {
    /// When it left.
    pub(super) began: Instant,
    pub(super) outcome: Outcome,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Send.
    Go,
    /// The lane waits for a person by now.
    Parked,
    /// Shutdown: send nothing more.
    Stopped,
}

impl Line {
    pub(super) fn new(common: Common, view: LaneView) -> Self {
        common.board.set(view.lane(), LaneState::Flowing);
        gauge(&common.metrics, &LaneState::Flowing, 1);
        Self {
            common,
            view,
            health: Mutex::default(),
            size: Mutex::default(),
            window: Mutex::new(Window::new()),
            posts: AtomicUsize::new(0),
            freed: Notify::new(),
            healed: Notify::new(),
            quota_told: AtomicBool::new(false),
            loss_told: AtomicBool::new(false),
        }
    }

    pub(super) fn lane(&self) -> &Lane {
        self.view.lane()
    }

    pub(super) fn spool(&self) -> &Spool {
        &self.common.spool
    }

    pub(super) fn stop(&self) -> &Stop {
        &self.common.stop
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn size(&self) -> MutexGuard<'_, SizeCap> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn telling(&self) -> MutexGuard<'_, Telling> {
        self.common.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Log requests that the lane may have in flight now: one while it is in trouble.
    pub(super) fn streams(&self, settings: &Settings) -> usize {
        if self.health().is_troubled() {
            1
        } else {
            self.window().allowed(settings.concurrency)
        }
    }

    pub(super) async fn release(&self, events: Vec<Leased>) {
        if !events.is_empty() {
            self.spool().release(self.lane(), events).await;
        }
    }

    pub(super) async fn settle(&self, events: Vec<Leased>) {
        if !events.is_empty() {
            self.spool().settle(self.lane(), events).await;
        }
    }

    /// One attempt. A connection that closed without a reply is most often one that the server had closed after its last
    /// reply, so that is tried once more at once. `None`: shutdown came first.
    pub(super) async fn ask<F: Future<Output = Outcome>>(
        &self,
        what: Request,
        request: impl Fn() -> F,
    ) -> Option<Attempt> {
        let attempt = self.ask_once(what, request()).await?;
        if is_closed(&attempt.outcome) {
            self.count("retry");
            return self.ask_once(what, request()).await;
        }
        Some(attempt)
    }

    /// One attempt, whatever comes of it, once the rate limit lets it go. `None`: shutdown came first.
    pub(super) async fn ask_once(
        &self,
        what: Request,
        request: impl Future<Output = Outcome>,
    ) -> Option<Attempt> {
        let events = if let Request::Log(events) = what {
            events
        } else {
            0
        };
        tokio::select! {
            biased;
            () = self.common.outlet.pace(events) => {}
            () = self.stop().draining(), if what != Request::Read => return None,
            () = self.stop().aborting() => return None,
        }
        let (began, _departed) = (clock::now(), self.common.outlet.departed(self.lane().kind));
        let outcome = tokio::select! {
            outcome = request => outcome,
            () = self.stop().aborting() => return None,
        };
        self.common
            .metrics
            .delivery_attempt_seconds
            .observe(began.elapsed().as_secs_f64());
        Some(Attempt { began, outcome })
    }

    /// Counts an attempt by what its answer meant.
    pub(super) fn count(&self, verdict: &'static str) {
        let labels = AttemptLabels {
            kind: self.lane().kind.as_str(),
            verdict,
        };
        self.common.metrics.delivery_attempts.get_or_create(&labels).inc();
    }

    /// Waits until the lane may send. A change of the settings ends the wait.
    pub(super) async fn turn(&self, knobs: &mut Knobs) -> Turn {
        let mut waited = false;
        loop {
            let healed = self.healed.notified();
            let (hold, parked) = {
                let health = self.health();
                (health.hold(clock::now()), health.is_parked())
            };
            match hold {
                _ if self.stop().is_draining() => return Turn::Stopped,
                _ if waited && parked => return Turn::Parked,
                None => return Turn::Go,
                Some(until) => tokio::select! {
                    () = self.stop().draining() => return Turn::Stopped,
                    () = healed => {}
                    () = changed(knobs) => self.wake(),
                    () = tokio::time::sleep_until(until.into()) => {}
                },
            }
            waited = true;
        }
    }

    /// Waits until the lane may send a log request: until it is not holding back, one of its streams is free, and so is a
    /// slot. `Err` says why it may not.
    pub(super) async fn admit(&self, knobs: &mut Knobs) -> Result<Pass<'_>, Turn> {
        loop {
            match self.turn(knobs).await {
                Turn::Go => {}
                turn => return Err(turn),
            }
            let (freed, healed) = (self.freed.notified(), self.healed.notified());
            let streams = self.streams(&knobs.borrow());
            let Some(post) = self.enter(streams) else {
                tokio::select! {
                    () = self.stop().draining() => return Err(Turn::Stopped),
                    () = freed => {}
                    () = healed => {}
                    () = changed(knobs) => self.wake(),
                }
                if self.health().is_parked() {
                    return Err(Turn::Parked);
                }
                continue;
            };
            let slot = tokio::select! {
                () = self.stop().draining() => return Err(Turn::Stopped),
                slot = self.common.outlet.slot(Kind::Log) => slot,
            };
            // Waiting for the slot may have taken long.
            if self.health().hold(clock::now()).is_none() {
                return Ok(Pass {
                    _post: Some(post),
                    _slot: slot,
                });
            }
        }
    }

    /// The same for reading a task back, which takes no stream while all is well. `None`: shutdown came first.
    pub(super) async fn admit_read(&self, knobs: &mut Knobs) -> Option<Pass<'_>> {
        while self.health().is_troubled() && !self.stop().is_draining() {
            match self.admit(knobs).await {
                Ok(pass) => return Some(pass),
                Err(Turn::Stopped) => return None,
                Err(Turn::Go | Turn::Parked) => {}
            }
        }
        tokio::select! {
            () = self.stop().aborting() => None,
            slot = self.common.outlet.slot(Kind::Log) => Some(Pass { _post: None, _slot: slot }),
        }
    }

    /// The same for a feedback. `None`: shutdown came first.
    pub(super) async fn admit_feedback(&self) -> Option<Slot> {
        tokio::select! {
            () = self.stop().draining() => None,
            slot = self.common.outlet.slot(Kind::Feedback) => Some(slot),
        }
    }

    fn enter(&self, streams: usize) -> Option<Post<'_>> {
        let more = |posts| (posts < streams).then_some(posts + 1);
        self.posts
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Post(self))
    }

    /// Notes that a log request of so many bytes was answered.
    pub(super) fn answered(&self, began: Instant, bytes: usize, settings: &Settings) {
        let now = clock::now();
        // A view of its own, so that nobody else's wait for news is disturbed.
        let due = settings.batch.decide(&self.view.clone().ready(), now) == Decision::Close;
        let mut window = self.window();
        let full = self.posts.load(Ordering::Relaxed) >= window.allowed(settings.concurrency);
        window.answered(began, now, bytes, settings.concurrency, due && full);
    }

    /// The settings changed: what failed may work now.
    pub(super) fn wake(&self) {
        self.health().wake(clock::now());
    }

    /// The same if they changed while an attempt was in flight: what it met may be mended already.
    pub(super) fn wake_if_changed(&self, knobs: &Knobs) {
        if knobs.has_changed().unwrap_or(false) {
            self.wake();
        }
    }

    /// Notes a passing fault of an attempt that began at `began`; tells people when it is the first.
    pub(super) fn failing(&self, began: Instant, asked: Option<Duration>, reason: &str, settings: &Settings) {
        let mut health = self.health();
        let now = clock::now();
        let failures = health.failed(began, now, asked, &settings.backoff, fastrand::u64(..));
        self.window().failed(failures, began, now);
        if health.is_parked() {
            return;
        }
        if self.show(LaneState::BackingOff {
            failures,
            reason: reason.into(),
        }) {
            tracing::warn!(lane = %self.lane(), queued = self.view.queued(), "delivery is failing and is tried again: {reason}");
        }
    }

    /// Notes that the lane waits for a person; tells people when that is new.
    pub(super) fn park(&self, began: Instant, reason: &str, settings: &Settings) {
        let mut health = self.health();
        health.parked(began, clock::now(), &settings.backoff, fastrand::u64(..));
        if self.show(LaneState::Parked {
            reason: reason.into(),
        }) {
            tracing::warn!(lane = %self.lane(), queued = self.view.queued(), "delivery is parked: {reason}");
        }
    }

    /// Notes that the upstream took something; tells people if it had not.
    pub(super) fn passed(&self) {
        let mut health = self.health();
        let Some(failed_for) = health.passed(clock::now()) else {
            return;
        };
        self.show(LaneState::Flowing);
        drop(health);
        self.healed.notify_waiters();
        let failed_for = Duration::from_millis(u64::try_from(failed_for.as_millis()).unwrap_or(u64::MAX));
        tracing::info!(lane = %self.lane(), queued = self.view.queued(), "delivery works again after {failed_for:?}");
    }

    /// Tells people whether the lane has a key to send with.
    pub(super) fn keyed(&self, has_key: bool) {
        let _health = self.health();
        let queueing = matches!(self.common.board.get(self.lane()), LaneState::QueueingOnly { .. });
        if has_key {
            if queueing {
                self.show(LaneState::Flowing);
                tracing::info!(lane = %self.lane(), queued = self.view.queued(), "there is a key now: delivery begins");
            }
            return;
        }
        let project = &self.lane().project;
        let reason = format!(
            "no API key for project {project}, so its events are only queued: set PHOSPHO_API_KEY, upstream.api_key_file \
             or upstream.projects.{project}.api_key_file, then reload"
        );
        if self.show(LaneState::QueueingOnly {
            reason: reason.clone(),
        }) {
            tracing::warn!(lane = %self.lane(), queued = self.view.queued(), "{reason}");
        }
    }

    /// Counts events stored over quota, and warns once a project.
    pub(super) fn over_quota(&self, events: usize) {
        self.common
            .metrics
            .delivery_over_quota_events
            .inc_by(events as u64);
        if events > 0 && !self.quota_told.swap(true, Ordering::Relaxed) {
            let project = &self.lane().project;
            tracing::warn!(%project, "the project's quota is used up: its events are stored but not analysed; raise it with phospho");
        }
    }

    /// Counts a batch that was accepted and not stored, and warns once a lane.
    pub(super) fn lost(&self, events: usize) {
        self.common.metrics.delivery_unconfirmed_batches.inc();
        if !self.loss_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                lane = %self.lane(), events,
                "the API accepted a batch and did not store it: its events are sent again one by one; \
                 further ones are counted in phosphod_delivery_unconfirmed_batches_total"
            );
        }
    }

    /// The upstream was found not to tell what it stored.
    pub(super) fn no_read_back(&self) {
        tracing::warn!(
            "the upstream has no GET /v2/tasks/{{task_id}}: from now on its 200 counts as delivered, unconfirmed, and it is \
             asked again once an hour; set delivery.confirm = false to say that this is meant"
        );
    }

    /// Notes a word of the upstream about a task.
    pub(super) fn told(&self, stored: bool) {
        if self.telling().told(stored) {
            tracing::info!(
                "the upstream tells again which tasks it stored: batches are confirmed from now on"
            );
        }
    }

    /// Writes the state down; whether it is another kind than before. Called with `health` locked, which keeps
    /// the lane's tasks from overtaking each other.
    fn show(&self, state: LaneState) -> bool {
        let before = self.common.board.get(self.lane());
        let changed = self.common.board.set(self.lane(), state.clone());
        if changed {
            gauge(&self.common.metrics, &before, -1);
            gauge(&self.common.metrics, &state, 1);
        }
        changed
    }
}

fn gauge(metrics: &Metrics, state: &LaneState, by: i64) {
    metrics
        .lanes
        .get_or_create(&StateLabel { state: state.name() })
        .inc_by(by);
}

/// Whether the connection closed before a reply.
pub(super) fn is_closed(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Failed(Failure {
            kind: FailureKind::Closed,
            ..
        })
    )
}

/// Resolves when the settings change.
pub(super) async fn changed(knobs: &mut Knobs) {
    if knobs.changed().await.is_err() {
        // Nobody is left to change them.
        std::future::pending::<()>().await;
    }
}
