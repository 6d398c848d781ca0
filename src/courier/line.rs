//! What the tasks of one lane share: its handles, how its upstream is doing, and what people are told about it.

use super::Settings;
use super::clock;
use super::graves::Graves;
use super::health::Health;
use super::size::SizeCap;
use super::stop::Stop;
use crate::board::{Board, LaneState};
use crate::event;
use crate::fates::Proof;
use crate::ids::{Lane, TaskId};
use crate::metrics::{AttemptLabels, Metrics, StateLabel};
use crate::spool::{LaneView, Leased, Spool};
use crate::verdict::{Failure, FailureKind, Outcome};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// The upstream does not tell which tasks it has stored; cleared when the settings change.
    pub(super) no_read_back: Arc<AtomicBool>,
    /// The upstream has shown at least one stored task when asked.
    pub(super) shown: Arc<AtomicBool>,
    /// Log events that were given up.
    pub(super) graves: Arc<Graves>,
}

/// One lane, for all its tasks.
pub(super) struct Line {
    pub(super) common: Common,
    pub(super) view: LaneView,
    health: Mutex<Health>,
    size: Mutex<SizeCap>,
    /// Rings when the upstream takes something again.
    healed: Notify,
    quota_told: AtomicBool,
    loss_told: AtomicBool,
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

    pub(super) async fn release(&self, events: Vec<Leased>) {
        if !events.is_empty() {
            self.spool().release(self.lane(), events).await;
        }
    }

    /// Ends delivered events. `proof` is how that is known.
    pub(super) async fn settle(&self, events: Vec<Leased>, proof: Proof) {
        if events.is_empty() {
            return;
        }
        let tasks: Vec<TaskId> = events
            .iter()
            .filter_map(|event| event::task_of(event.record()))
            .collect();
        // First the memory: whoever finds the event gone from the queue finds it there.
        let fates = self.common.board.fates();
        fates.delivered(self.lane(), tasks, clock::wall_ms(), proof);
        self.spool().settle(self.lane(), events).await;
    }

    /// One attempt. A connection that closed without a reply is most often one that the server had closed after its last
    /// reply, so that is tried once more at once. `None`: shutdown gave the attempt up.
    pub(super) async fn ask<F: Future<Output = Outcome>>(&self, request: impl Fn() -> F) -> Option<Outcome> {
        let outcome = self.ask_once(request()).await?;
        if is_closed(&outcome) {
            self.count("retry");
            return self.ask_once(request()).await;
        }
        Some(outcome)
    }

    /// One attempt, whatever comes of it. `None`: shutdown gave it up.
    pub(super) async fn ask_once(&self, request: impl Future<Output = Outcome>) -> Option<Outcome> {
        let began = clock::now();
        let outcome = tokio::select! {
            outcome = request => outcome,
            () = self.stop().aborting() => return None,
        };
        self.common
            .metrics
            .delivery_attempt_seconds
            .observe(began.elapsed().as_secs_f64());
        Some(outcome)
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
        let failures = health.failed(began, clock::now(), asked, &settings.backoff, fastrand::u64(..));
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

    /// The upstream has no route to read tasks back; says so once.
    pub(super) fn no_read_back(&self) {
        if !self.common.no_read_back.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the upstream has no GET /v2/tasks/{{task_id}}: from now on its 200 counts as delivered, unconfirmed; \
                 set delivery.confirm = false to say that this is meant"
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
