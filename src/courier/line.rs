//! What the tasks of one lane share: its handles, how its upstream is doing, and what people are told about it.

use super::Settings;
use super::clock;
use super::graves::Graves;
use super::health::Health;
use super::news::News;
use super::outlet::Outlet;
use super::promptness::Promptness;
use super::size::SizeCap;
use super::stop::Stop;
use super::telling::Telling;
use super::token_counts::{Knowledge, Plan, Question};
use super::window::Window;
use super::witness::Witnesses;
use crate::batch::Decision;
use crate::board::{Board, LaneState, TokenCountsState};
use crate::event;
use crate::fates::Proof;
use crate::ids::{Kind, Lane, Seq, TaskId};
use crate::metrics::{AttemptLabels, Metrics, StateLabel};
use crate::spool::{LaneView, Leased, Spool};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The settings as one task sees them; each task has its own, so that none misses a change.
pub(super) type Knobs = News<Arc<Settings>>;

/// Most events of a lane that an earlier process can have had on lease when it ended.
const MAX_IN_DOUBT: usize = 4_096;

/// How long after a lost batch each log request gets a connection of its own.
const FRESH_CONNECTIONS: Duration = Duration::from_secs(60);

/// The events that an earlier process may have sent: the oldest that it left.
#[derive(Debug, Default)]
struct Doubt {
    events: usize,
    /// The last of them.
    until: Option<Seq>,
}

/// What all lanes share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) spool: Spool,
    pub(super) board: Board,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: Stop,
    /// Log events that were given up.
    pub(super) graves: Arc<Graves>,
    pub(super) outlet: Arc<Outlet>,
    /// Whether the upstream tells which tasks it has stored.
    pub(super) telling: Arc<Mutex<Telling>>,
    /// By which events to tell what was stored.
    pub(super) witnesses: Arc<Mutex<Witnesses>>,
    /// What size of request the way to the upstream takes.
    pub(super) size: Arc<Mutex<SizeCap>>,
    /// How soon the upstream stores.
    pub(super) promptness: Arc<Mutex<Promptness>>,
    /// Whether it needs token counts.
    pub(super) token_counts: Knowledge,
}

impl Common {
    /// Forgets whether the upstream tells what it stored, and what size of request it takes.
    pub(super) fn forget_upstream(&self) {
        *self.telling.lock().unwrap_or_else(PoisonError::into_inner) = Telling::default();
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = SizeCap::default();
    }
}

/// One lane, for all its tasks.
pub(super) struct Line {
    pub(super) common: Common,
    pub(super) view: LaneView,
    health: Mutex<Health>,
    window: Mutex<Window>,
    doubt: Mutex<Doubt>,
    /// Log requests of which the upstream took something.
    pub(super) passes: AtomicU64,
    /// Log requests in flight, or about to be.
    pub(super) posts: AtomicUsize,
    /// Rings when one of them ends.
    pub(super) freed: Notify,
    /// Rings when the upstream takes something again.
    pub(super) healed: Notify,
    quota_told: AtomicBool,
    loss_told: AtomicBool,
    /// When a batch was last found to have been accepted and not stored.
    lost_at: Mutex<Option<Instant>>,
}

impl Line {
    pub(super) fn new(common: Common, view: LaneView) -> Self {
        // One that rested is shown as it was then.
        if let Some(before) = common.board.begin(view.lane()) {
            gauge(&common.metrics, &before, -1);
        }
        gauge(&common.metrics, &LaneState::Flowing, 1);
        Self {
            common,
            view,
            health: Mutex::default(),
            window: Mutex::new(Window::new()),
            doubt: Mutex::default(),
            passes: AtomicU64::new(0),
            posts: AtomicUsize::new(0),
            freed: Notify::new(),
            healed: Notify::new(),
            quota_told: AtomicBool::new(false),
            loss_told: AtomicBool::new(false),
            lost_at: Mutex::default(),
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
        self.common.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn telling(&self) -> MutexGuard<'_, Telling> {
        self.common.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn witnesses(&self) -> MutexGuard<'_, Witnesses> {
        self.common
            .witnesses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn promptness(&self) -> MutexGuard<'_, Promptness> {
        self.common
            .promptness
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do with events that break the API's tokenizer.
    pub(super) fn token_counts(&self, settings: &Settings) -> Plan {
        let can_tell = settings.confirm && !self.telling().is_off();
        let base_url = settings.upstream.base_url();
        self.common
            .token_counts
            .plan(settings.token_counts, base_url, can_tell, clock::now())
    }

    /// Notes whether the upstream stored events that break the tokenizer without token counts; tells people if that is news.
    pub(super) fn learned(&self, question: &Question, needs_counts: bool) {
        if !question.answer(needs_counts, clock::now()) {
            return;
        }
        self.common.board.set_token_counts(Some(TokenCountsState {
            needed: needs_counts,
            since_ms: clock::wall_ms(),
        }));
        if needs_counts {
            tracing::info!(
                "the upstream loses batches with tool calls, pictures or special tokens: such events are sent with \
                 prompt_tokens and completion_tokens of 0 from now on (delivery.token_counts)"
            );
        } else {
            tracing::info!("the upstream stores tool calls, pictures and special tokens as they are");
        }
    }

    fn doubt(&self) -> MutexGuard<'_, Doubt> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which of the events that were leased an earlier process may have sent.
    pub(super) fn leased(&self, events: &[Leased]) {
        let mut doubt = self.doubt();
        for event in events.iter().filter(|event| event.is_from_before_start()) {
            if Some(event.seq()) > doubt.until && doubt.events < MAX_IN_DOUBT {
                *doubt = Doubt {
                    events: doubt.events + 1,
                    until: Some(event.seq()),
                };
            }
        }
    }

    /// Whether an earlier process may have sent the event.
    pub(super) fn is_in_doubt(&self, event: &Leased) -> bool {
        event.is_from_before_start() && Some(event.seq()) <= self.doubt().until
    }

    /// The first log of the lane's project that has not ended, and the last that was accepted.
    pub(super) fn logs_pending(&self) -> Option<(Seq, Seq)> {
        let logs = Lane {
            project: self.lane().project.clone(),
            kind: Kind::Log,
        };
        let lanes = self.spool().lanes();
        let views = lanes.borrow();
        views.iter().find(|view| *view.lane() == logs)?.pending()
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

    /// Ends delivered events. `proof` is how that is known.
    pub(super) async fn settle(&self, events: Vec<Leased>, proof: Proof) {
        if events.is_empty() {
            return;
        }
        let tasks = events.iter().filter_map(|event| event::task_of(event.record()));
        let (named, unnamed): (Vec<TaskId>, Vec<TaskId>) = {
            let telling = self.telling();
            tasks.partition(|task| proof == Proof::OverQuota || telling.names(task))
        };
        // First the memory: whoever finds the event gone from the queue finds it there.
        let (fates, now) = (self.common.board.fates(), clock::wall_ms());
        self.common
            .metrics
            .delivery_unaddressable_events
            .inc_by(unnamed.len() as u64);
        fates.delivered(self.lane(), named, now, proof);
        fates.delivered(self.lane(), unnamed, now, Proof::Unaddressable);
        self.spool().settle(self.lane(), events).await;
    }

    /// Counts an attempt by what its answer meant.
    pub(super) fn count(&self, verdict: &'static str) {
        let labels = AttemptLabels {
            kind: self.lane().kind.as_str(),
            verdict,
        };
        self.common.metrics.delivery_attempts.get_or_create(&labels).inc();
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
        if knobs.has_changed() {
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

    /// Notes that the upstream found fault with an event, so a parked lane waits for no person any more.
    pub(super) fn unpark(&self, reason: &str) {
        let mut health = self.health();
        if health.unpark() {
            self.show(LaneState::BackingOff {
                failures: 1,
                reason: reason.into(),
            });
            tracing::info!(lane = %self.lane(), "delivery is no longer parked, but what is sent fails: {reason}");
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
            "no API key for project {project}, so its events are only queued: set upstream.api_key_file or \
             upstream.projects.{project}.api_key_file and reload, or PHOSPHO_API_KEY and restart"
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
                "the API accepted a batch and did not store it: its events are sent again in smaller parts; \
                 further ones are counted in phosphod_delivery_unconfirmed_batches_total"
            );
        }
    }

    /// Notes that something was accepted and not stored just now.
    pub(super) fn lost_now(&self) {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
    }

    /// Whether the upstream lost a batch a short while ago. It drops the connection after each, and what is sent on such a
    /// connection would be looked for with patience before it is sent again.
    pub(super) fn lost_lately(&self) -> bool {
        let lost_at = *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner);
        lost_at.is_some_and(|at| clock::now().saturating_duration_since(at) < FRESH_CONNECTIONS)
    }

    /// The upstream was found not to tell what it stored.
    pub(super) fn no_read_back(&self) {
        tracing::warn!(
            "the upstream has no GET /v2/tasks/{{task_id}}: from now on its 200 counts as delivered, unconfirmed, and it is \
             asked again once an hour; set delivery.confirm = false to say that this is meant"
        );
    }

    /// Whether a URL of the API names the event's task, so that it can be asked for.
    pub(super) fn names(&self, event: &Leased) -> bool {
        event::task_of(event.record()).is_some_and(|task| self.telling().names(&task))
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

/// Resolves when the settings change.
pub(super) async fn changed(knobs: &mut Knobs) {
    knobs.changed().await;
}
