//! The courier of one log lane.
//!
//! With `delivery.concurrency = 1` a batch is sent when the one before it has its reply, and a batch that failed is sent
//! again before any other, so events go out in the order of acceptance; with more, in as many streams as are allowed.
//! Confirmations run beside, so that they do not hold back the next batch; too many of them do. A
//! batch that was lost and is repaired therefore arrives behind what was sent in the meantime.

use super::clock;
use super::confirm::confirm;
use super::delivery::{Delivery, Sent};
use super::line::{Knobs, Line, changed};
use super::send::{Dress, Progress};
use super::{CourierError, Settings};
use crate::batch::{Decision, Limits};
use crate::spool::Leased;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Most batches of a lane that wait for their confirmation; more hold back the next batch.
const MAX_CONFIRMING: usize = 8;

/// What a lane's task ended with.
enum Report {
    /// A batch has nothing left to send; some of it may have to be confirmed.
    Sent(Option<Vec<Sent<Leased>>>),
    /// A part of a batch was accepted; the rest is still to be sent.
    Partly(Vec<Sent<Leased>>, Delivery<Leased>),
    /// A confirmation is through.
    Confirmed,
}

/// One log lane.
pub(super) struct LogLane {
    line: Arc<Line>,
    knobs: Knobs,
    tasks: JoinSet<Report>,
    sending: usize,
    confirming: usize,
    /// A lease came back empty: wait for news before the next.
    dry: bool,
}

impl LogLane {
    pub(super) fn new(line: Arc<Line>, knobs: Knobs) -> Self {
        Self {
            line,
            knobs,
            tasks: JoinSet::new(),
            sending: 0,
            confirming: 0,
            dry: false,
        }
    }

    /// Runs until shutdown.
    pub(super) async fn run(mut self) -> Result<(), CourierError> {
        let line = self.line.clone();
        loop {
            let settings = self.knobs.borrow_and_update().clone();
            let streams = if line.health().is_troubled() {
                1
            } else {
                settings.concurrency.max(1)
            };
            let room = self.sending < streams && self.confirming < MAX_CONFIRMING;
            tokio::select! {
                biased;
                () = line.stop().draining() => break,
                Some(report) = self.tasks.join_next() => self.take(report?),
                () = changed(&mut self.knobs) => line.wake(),
                limits = due(&line, &settings, &mut self.dry), if room => self.lease(&limits).await,
            }
        }
        while let Some(report) = self.tasks.join_next().await {
            match report? {
                Report::Partly(accepted, rest) => {
                    line.release(rest.into_rest()).await;
                    self.confirm(accepted);
                }
                report => self.take(report),
            }
        }
        Ok(())
    }

    async fn lease(&mut self, limits: &Limits) {
        let events = self.line.spool().lease(self.line.lane(), limits).await;
        self.dry = events.is_empty();
        if !self.dry {
            self.sending += 1;
            self.send(Delivery::whole(events));
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Sent(accepted) => {
                self.sending -= 1;
                if let Some(accepted) = accepted {
                    self.confirm(accepted);
                }
            }
            Report::Partly(accepted, rest) => {
                self.confirm(accepted);
                self.send(rest);
            }
            Report::Confirmed => self.confirming -= 1,
        }
    }

    fn send(&mut self, mut delivery: Delivery<Leased>) {
        let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
        self.tasks.spawn(async move {
            match line.advance(&mut knobs, &mut delivery, Dress::AsIs).await {
                Progress::Accepted(accepted) if delivery.is_done() => Report::Sent(Some(accepted)),
                Progress::Accepted(accepted) => Report::Partly(accepted, delivery),
                Progress::Done => Report::Sent(None),
                Progress::Parked | Progress::Stopped => {
                    line.release(delivery.into_rest()).await;
                    Report::Sent(None)
                }
            }
        });
    }

    fn confirm(&mut self, accepted: Vec<Sent<Leased>>) {
        self.confirming += 1;
        let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
        self.tasks.spawn(async move {
            confirm(&line, &mut knobs, accepted).await;
            Report::Confirmed
        });
    }
}

/// Resolves when a batch is to be leased, with its limits; never while the lane has no key. A parked
/// lane probes with a single event.
async fn due(line: &Line, settings: &Settings, dry: &mut bool) -> Limits {
    let has_key = settings.key_for(&line.lane().project).is_some();
    line.keyed(has_key);
    if !has_key {
        std::future::pending::<()>().await;
    }
    if *dry {
        line.view.changed().await;
        // Said once: this is asked for anew whenever a report comes in, and the news may be all there is.
        *dry = false;
    }
    let (hold, parked) = {
        let health = line.health();
        (health.hold(clock::now()), health.is_parked())
    };
    if let Some(until) = hold {
        tokio::time::sleep_until(until.into()).await;
    }
    let limits = if parked {
        Limits {
            max_events: 1,
            max_age: Duration::ZERO,
            ..settings.batch
        }
    } else {
        Limits {
            max_bytes: line.size().apply(settings.batch.max_bytes),
            ..settings.batch
        }
    };
    loop {
        match limits.decide(&line.view.ready(), clock::now()) {
            Decision::Close => return limits,
            Decision::Idle => line.view.changed().await,
            Decision::WaitUntil(moment) => tokio::select! {
                () = tokio::time::sleep_until(moment.into()) => {}
                () = line.view.changed() => {}
            },
        }
    }
}
