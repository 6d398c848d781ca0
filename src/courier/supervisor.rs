//! Runs the couriers, and brings all of them to an end.

use super::clock;
use super::desk::{self, Couriers};
use super::line::Common;
use super::news;
use super::outlet::Outlet;
use super::stop::{Phase, Stop};
use super::token_counts::Knowledge;
use super::witness::Witnesses;
use super::{CourierError, Heart, Settings};
use crate::board::Board;
use crate::metrics::Metrics;
use crate::spool::Spool;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Runs a courier for every lane that has work, present and future, until `shutdown` resolves; then lets attempts in flight finish
/// for up to `grace`, releases the rest, and returns.
///
/// # Errors
/// If a courier fails, which none should.
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
    let mut couriers = Couriers::new(common, seen_knobs);
    let mut reloads = true;
    tokio::pin!(shutdown);
    let views = lanes.borrow_and_update().clone();
    couriers.start(&views, &mut heart);
    loop {
        let look_at = couriers.due();
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = couriers.tasks.join_next() => {
                let (lane, ended) = ended?;
                ended?;
                couriers.ended(&lane);
                // Something may have come since its courier saw that there was nothing, and others may wait for its place.
                if !couriers.is_crowded() {
                    let views = lanes.borrow_and_update().clone();
                    couriers.start(&views, &mut heart);
                }
            }
            changed = lanes.changed() => {
                changed.map_err(|_| CourierError::SpoolGone)?;
                let views = lanes.borrow_and_update().clone();
                couriers.start(&views, &mut heart);
            }
            () = desk::at(look_at) => {
                couriers.look();
                if couriers.is_crowded() {
                    let views = lanes.borrow_and_update().clone();
                    couriers.start(&views, &mut heart);
                }
            }
            () = heart.beat() => {}
            changed = settings.changed(), if reloads => {
                reloads = changed.is_ok();
                // It may be another upstream now.
                couriers.common.forget_upstream();
                let fresh = settings.borrow_and_update().clone();
                couriers.common.spool.keep_room(fresh.project_keys.keys().cloned());
                if fresh.upstream.base_url() != couriers.knobs.borrow().upstream.base_url() {
                    couriers.common.board.set_token_counts(None);
                }
                knobs.tell(fresh);
                couriers.common.outlet.reload();
            }
        }
    }
    couriers.tell(Phase::Draining);
    phase.tell(Phase::Draining);
    let mut end = Ok(());
    let finished = tokio::time::timeout(grace, couriers.finish(&mut end)).await;
    if finished.is_err() {
        couriers.tell(Phase::Aborting);
        phase.tell(Phase::Aborting);
        couriers.finish(&mut end).await;
    }
    end
}
