//! What every request to the upstream passes, whatever lane it comes from: a slot, and the rate limit.
//!
//! **Slots** (`delivery.max_in_flight`) are given out in the order of asking, so no lane gets more than its turn. Feedback may
//! hold half of them at most, because the API can hold a feedback for 31 s; logs and read-backs may use all. Nobody who holds one
//! waits for another, so there is always somebody who can finish.
//!
//! **The rate limit** (`upstream.rate_limit`) is met after the slot and before the attempt: the wait is no part of the attempt, so
//! neither `upstream.timeout` nor the backoff knows of it. Who came first goes first.

use super::Settings;
use super::bucket::Bucket;
use super::clock;
use super::line::{Knobs, changed};
use crate::ids::Kind;
use crate::metrics::{KindLabel, Metrics};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// `upstream.rate_limit`. Both off by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests of any kind a second, at least 1.
    pub requests_per_second: Option<u32>,
    /// Log events a second, at least 1.
    pub events_per_second: Option<u32>,
}

/// Shared by all lanes.
pub(super) struct Outlet {
    knobs: Knobs,
    metrics: Arc<Metrics>,
    slots: Mutex<Slots>,
    pace: tokio::sync::Mutex<Pace>,
}

/// The right to have a request in flight.
pub(super) struct Slot {
    _permits: (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit),
}

#[derive(Clone)]
struct Slots {
    most: usize,
    all: Arc<Semaphore>,
    feedback: Arc<Semaphore>,
}

struct Pace {
    requests: Bucket,
    events: Bucket,
}

impl Outlet {
    pub(super) fn new(knobs: Knobs, metrics: Arc<Metrics>) -> Self {
        let slots = Slots::new(knobs.borrow().max_in_flight);
        Self {
            knobs,
            metrics,
            slots: Mutex::new(slots),
            pace: tokio::sync::Mutex::new(Pace {
                requests: Bucket::new(),
                events: Bucket::new(),
            }),
        }
    }

    /// Takes over a changed `delivery.max_in_flight`. What is in flight by then is not counted in the new number.
    pub(super) fn reload(&self) {
        let most = self.knobs.borrow().max_in_flight;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.most != most {
            let old = std::mem::replace(&mut *slots, Slots::new(most));
            // Who waits for an old one asks again.
            old.all.close();
            old.feedback.close();
        }
    }

    /// Waits for a slot.
    pub(super) async fn slot(&self, kind: Kind) -> Slot {
        loop {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let feedback = match kind {
                Kind::Log => None,
                Kind::Feedback => match slots.feedback.acquire_owned().await {
                    Ok(permit) => Some(permit),
                    Err(_) => continue,
                },
            };
            if let Ok(permit) = slots.all.acquire_owned().await {
                return Slot {
                    _permits: (feedback, permit),
                };
            }
        }
    }

    /// Waits until the rate limit lets a request with so many log events go.
    pub(super) async fn pace(&self, events: usize) {
        let mut knobs = self.knobs.clone();
        if limit(&mut knobs) == RateLimit::default() {
            return;
        }
        let mut pace = self.pace.lock().await;
        while let Some(rate) = limit(&mut knobs).requests_per_second {
            match pace.requests.take(clock::now(), rate.into(), 1.0) {
                Ok(()) => break,
                Err(wait) => pause(wait, &mut knobs).await,
            }
        }
        while let Some(rate) = limit(&mut knobs).events_per_second {
            match pace.events.take(clock::now(), rate.into(), events as f64) {
                Ok(()) => break,
                Err(wait) => pause(wait, &mut knobs).await,
            }
        }
    }

    /// Counts a request as in flight until what is returned is dropped.
    pub(super) fn departed(&self, kind: Kind) -> impl Drop + use<> {
        let label = KindLabel { kind: kind.as_str() };
        let gauge = self
            .metrics
            .delivery_in_flight_requests
            .get_or_create_owned(&label);
        gauge.inc();
        InFlight(gauge)
    }
}

impl Slots {
    fn new(most: usize) -> Self {
        let most = most.clamp(2, Semaphore::MAX_PERMITS);
        Self {
            most,
            all: Arc::new(Semaphore::new(most)),
            feedback: Arc::new(Semaphore::new(most / 2)),
        }
    }
}

fn limit(knobs: &mut Knobs) -> RateLimit {
    let settings: &Settings = &knobs.borrow_and_update();
    settings.rate_limit
}

async fn pause(wait: Duration, knobs: &mut Knobs) {
    tokio::select! {
        biased;
        () = tokio::time::sleep(wait) => {}
        () = changed(knobs) => {}
    }
}

struct InFlight(prometheus_client::metrics::gauge::Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
