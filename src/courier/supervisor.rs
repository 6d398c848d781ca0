//! Starts a courier for every lane, and brings all of them to an end.

use super::clock;
use super::feedback_lane::FeedbackLane;
use super::line::{Common, Knobs, Line};
use super::log_lane::LogLane;
use super::news;
use super::outlet::Outlet;
use super::stop::{Phase, Stop};
use super::token_counts::Knowledge;
use super::witness::Witnesses;
use super::{CourierError, Heart, Settings};
use crate::board::Board;
use crate::ids::{Kind, Lane};
use crate::metrics::Metrics;
use crate::spool::{LaneView, Spool};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Runs a courier for every lane, present and future, until `shutdown` resolves; then lets attempts in flight finish
/// for up to `grace`, releases the rest, and returns.
///
/// # Errors
/// If a courier ends by itself, which none should.
pub async fn run(
    spool: Spool,
    mut settings: watch::Receiver<Arc<Settings>>,
    board: Board,
    metrics: Arc<Metrics>,
    mut heart: Heart,
    shutdown: impl Future<Output = ()> + Send,
    grace: Duration,
) -> Result<(), CourierError> {
    let (phase, seen) = news::channel(Phase::Running);
    let (knobs, seen_knobs) = news::channel(settings.borrow_and_update().clone());
    let mut lanes = spool.lanes();
    let outlet = Arc::new(Outlet::new(seen_knobs.clone(), metrics.clone()));
    let common = Common {
        spool,
        board,
        metrics,
        stop: Stop::new(seen),
        graves: Arc::default(),
        outlet,
        telling: Arc::default(),
        witnesses: Arc::new(Mutex::new(Witnesses::new(clock::now()))),
        size: Arc::default(),
        promptness: Arc::default(),
        token_counts: Knowledge::default(),
    };
    let mut couriers = Couriers {
        common,
        knobs: seen_knobs,
        known: BTreeSet::new(),
        tasks: JoinSet::new(),
    };
    let mut reloads = true;
    tokio::pin!(shutdown);
    let views = lanes.borrow_and_update().clone();
    couriers.start(&views, &mut heart);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = couriers.tasks.join_next() => return ended?,
            changed = lanes.changed() => {
                changed.map_err(|_| CourierError::SpoolGone)?;
                let views = lanes.borrow_and_update().clone();
                couriers.start(&views, &mut heart);
            }
            () = heart.beat() => {}
            changed = settings.changed(), if reloads => {
                reloads = changed.is_ok();
                // It may be another upstream now.
                couriers.common.forget_upstream();
                let fresh = settings.borrow_and_update().clone();
                if fresh.upstream.base_url() != couriers.knobs.borrow().upstream.base_url() {
                    couriers.common.board.set_token_counts(None);
                }
                knobs.tell(fresh);
                couriers.common.outlet.reload();
            }
        }
    }
    phase.tell(Phase::Draining);
    let mut end = Ok(());
    let finished = tokio::time::timeout(grace, couriers.finish(&mut end)).await;
    if finished.is_err() {
        phase.tell(Phase::Aborting);
        couriers.finish(&mut end).await;
    }
    end
}

struct Couriers {
    common: Common,
    knobs: Knobs,
    known: BTreeSet<Lane>,
    tasks: JoinSet<Result<(), CourierError>>,
}

impl Couriers {
    /// Starts a courier for each lane that has none.
    fn start(&mut self, views: &[LaneView], heart: &mut Heart) {
        for view in views {
            // Looked for first: there can be thousands, and a new one makes all of them be looked at.
            if self.known.contains(view.lane()) {
                continue;
            }
            self.known.insert(view.lane().clone());
            let line = Arc::new(Line::new(self.common.clone(), view.clone()));
            let (knobs, ear) = (self.knobs.clone(), heart.lane());
            match view.lane().kind {
                Kind::Log => self.tasks.spawn(LogLane::new(line, knobs).run(ear)),
                Kind::Feedback => self.tasks.spawn(FeedbackLane::new(line, knobs).run(ear)),
            };
        }
    }

    /// Waits until all have ended; keeps the first fault.
    async fn finish(&mut self, end: &mut Result<(), CourierError>) {
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.unwrap_or_else(|panic| Err(panic.into()));
            if end.is_ok() {
                *end = ended;
            }
        }
    }
}
