//! The courier of one log lane.
//!
//! As many batches are in flight as the lane's [`window`](super::window) allows, which events may go side by side is up to
//! [`sessions`](super::sessions). A batch that failed is sent again before it makes room for another, so the events of a session go out in
//! the order of acceptance; with `delivery.concurrency = 1` all events do.
//! Confirmations run beside, so that they do not hold back the next batch; too many of them do. A
//! batch that was lost and is repaired therefore arrives behind what was sent in the meantime.

use super::clock;
use super::confirm::confirm;
use super::deferred::{Deferred, Due};
use super::delivery::{Delivery, Sent};
use super::line::{Knobs, Line, changed};
use super::pulse::Ear;
use super::send::{Dress, Progress};
use super::sessions::{self, Sessions, Ticket};
use super::{CourierError, Settings};
use crate::batch::{Decision, Limits};
use crate::spool::Leased;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Most batches of a lane that wait for their confirmation, or twice as many as may be in flight; more hold back the
/// next batch.
const MAX_CONFIRMING: usize = 8;

/// Bytes up to which a parked lane takes several events to probe with, each alone.
const PROBE_BYTES: usize = 1 << 20;

/// A parked lane with so few events looks at a new one at once: all that were there may be what is refused.
const FEW: u64 = 4;

/// What a lane's task ended with.
enum Report {
    /// A batch has nothing left to send; what was accepted last has to be confirmed, and what keeps failing alone is to be tried again.
    Sent(Ticket, Vec<Sent<Leased>>, Vec<Sent<Leased>>),
    /// A part of a batch was accepted; the rest is still to be sent.
    Partly(Ticket, Vec<Sent<Leased>>, Delivery<Leased>),
    /// A batch wants company.
    Lonely(Ticket, Delivery<Leased>),
    /// The rest of a batch cannot be sent for now.
    Left(Ticket, Vec<Leased>),
    /// A confirmation is through.
    Confirmed,
    /// A deferred event has ended, or failed again.
    Retried(Option<Due<Leased>>),
}

/// One log lane.
pub(super) struct LogLane {
    line: Arc<Line>,
    knobs: Knobs,
    tasks: JoinSet<Report>,
    sessions: Sessions<Leased>,
    confirming: usize,
    deferred: Deferred<Leased>,
    /// A lease came back empty: wait for news before the next.
    dry: bool,
    /// The streams that the metric shows.
    shown: usize,
}

impl LogLane {
    pub(super) fn new(line: Arc<Line>, knobs: Knobs) -> Self {
        Self {
            line,
            knobs,
            tasks: JoinSet::new(),
            sessions: Sessions::new(),
            confirming: 0,
            deferred: Deferred::new(),
            dry: false,
            shown: 0,
        }
    }

    /// Runs until shutdown. Answers the watchdog by `ear`.
    pub(super) async fn run(mut self, mut ear: Ear) -> Result<(), CourierError> {
        let line = self.line.clone();
        loop {
            let settings = self.knobs.borrow_and_update().clone();
            let streams = line.streams(&settings);
            self.show(streams);
            let room = self.sessions.in_flight() < streams
                && self.confirming < MAX_CONFIRMING.max(2 * settings.concurrency);
            let free = room && self.sessions.any_free();
            let room = free || room && self.sessions.room(&limits(&line, &settings)).is_some();
            // In an outage the batches probe, if there are any.
            let may_retry = !line.health().is_troubled() || self.sessions.in_flight() == 0;
            let retry = self.deferred.next_moment().filter(|_| may_retry);
            tokio::select! {
                biased;
                () = line.stop().draining() => break,
                Some(report) = self.tasks.join_next() => self.take(report?).await,
                () = changed(&mut self.knobs) => line.wake(),
                () = ear.answer() => {}
                () = sleep_until(retry), if retry.is_some() => self.retry(),
                limits = due(&line, &settings, &mut self.dry, free), if room => self.fill(&limits, streams).await,
            }
        }
        while let Some(report) = self.tasks.join_next().await {
            match report? {
                Report::Partly(ticket, accepted, rest) => {
                    self.take(Report::Left(ticket, rest.into_rest())).await;
                    self.confirm(accepted);
                }
                Report::Lonely(ticket, rest) => self.take(Report::Left(ticket, rest.into_rest())).await,
                Report::Sent(ticket, accepted, deferred) => {
                    line.release(deferred.into_iter().map(|sent| sent.event).collect())
                        .await;
                    self.take(Report::Sent(ticket, accepted, Vec::new())).await;
                }
                Report::Retried(failed) => {
                    self.count_deferred(-1);
                    line.release(failed.into_iter().map(|due| due.sent.event).collect())
                        .await;
                }
                report => self.take(report).await,
            }
        }
        line.release(self.sessions.give_up()).await;
        let deferred = self.deferred.clear();
        self.count_deferred(-(deferred.len() as i64));
        line.release(deferred).await;
        Ok(())
    }

    fn show(&mut self, streams: usize) {
        let change = streams as i64 - self.shown as i64;
        if change != 0 {
            self.line.common.metrics.delivery_window_requests.inc_by(change);
            self.shown = streams;
        }
    }

    /// Leases what makes a full batch with what waits, and sends what may go.
    async fn fill(&mut self, limits: &Limits, streams: usize) {
        if let Some(room) = self.sessions.room(limits) {
            self.lease(&room).await;
        }
        if let Some((ticket, events)) = self.sessions.cut(limits, streams > 1) {
            let in_doubt = events.iter().any(|event| self.line.is_in_doubt(event));
            let mut delivery = if in_doubt {
                Delivery::in_doubt(events)
            } else {
                Delivery::whole(events)
            };
            if self.line.health().is_parked() {
                delivery.one_first();
            }
            self.send(ticket, delivery);
        }
    }

    async fn lease(&mut self, limits: &Limits) {
        let events = self.line.spool().lease(self.line.lane(), limits).await;
        self.dry = events.is_empty();
        self.line.leased(&events);
        self.sessions.admit(events);
    }

    async fn take(&mut self, report: Report) {
        match report {
            Report::Sent(ticket, accepted, deferred) => {
                self.sessions.land(ticket);
                self.confirm(accepted);
                self.defer(deferred).await;
            }
            Report::Partly(ticket, accepted, mut rest) => {
                self.confirm(accepted);
                self.defer(rest.take_deferred()).await;
                self.send(ticket, rest);
            }
            Report::Lonely(ticket, mut delivery) => {
                delivery.join(self.company(ticket).await);
                self.send(ticket, delivery);
            }
            Report::Left(ticket, mut rest) => {
                self.sessions.land(ticket);
                // They come back with the next lease, in order: before what waits, if that goes back as well.
                rest.extend(self.sessions.give_up());
                self.line.release(rest).await;
            }
            Report::Confirmed => self.confirming -= 1,
            Report::Retried(failed) => {
                self.count_deferred(if failed.is_some() { 0 } else { -1 });
                let backoff = self.knobs.borrow().backoff;
                self.deferred
                    .ended(failed, clock::now(), &backoff, fastrand::u64(..));
            }
        }
    }

    /// Takes events out of the way that keep failing alone while others pass.
    async fn defer(&mut self, events: Vec<Sent<Leased>>) {
        if events.is_empty() {
            return;
        }
        self.line
            .spool()
            .defer(events.iter().map(|sent| &sent.event))
            .await;
        let backoff = self.knobs.borrow().backoff;
        self.count_deferred(events.len() as i64);
        for sent in events {
            tracing::warn!(
                lane = %self.line.lane(), bytes = sent.event.record().len(), attempts = sent.attempts,
                "an event keeps failing alone while others pass: it is tried again beside them, more and more seldom; see \
                 upstream.timeout, and what stands between here and the API"
            );
            self.deferred
                .admit(sent, clock::now(), &backoff, fastrand::u64(..));
        }
    }

    fn count_deferred(&self, change: i64) {
        self.line.common.metrics.delivery_deferred_events.inc_by(change);
    }

    /// Tries the deferred event again that is due.
    fn retry(&mut self) {
        let Some(due) = self.deferred.next(clock::now()) else {
            return;
        };
        let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
        self.tasks
            .spawn(async move { Report::Retried(line.try_deferred(&mut knobs, due).await) });
    }

    /// A later event that may go with the batch, if there is one.
    async fn company(&mut self, ticket: Ticket) -> Option<Leased> {
        let waiting = self.sessions.join(ticket);
        if waiting.is_some() {
            return waiting;
        }
        let settings = self.knobs.borrow().clone();
        let room = self.sessions.room(&limits(&self.line, &settings))?;
        self.lease(&Limits {
            max_events: 1,
            ..room
        })
        .await;
        self.sessions.join(ticket)
    }

    fn send(&mut self, ticket: Ticket, mut delivery: Delivery<Leased>) {
        let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
        delivery.may_defer(self.deferred.room());
        self.tasks.spawn(async move {
            match line.advance(&mut knobs, &mut delivery, Dress::AsIs).await {
                Progress::Accepted(accepted) if delivery.is_done() => {
                    Report::Sent(ticket, accepted, delivery.take_deferred())
                }
                Progress::Accepted(accepted) => Report::Partly(ticket, accepted, delivery),
                Progress::Done => Report::Sent(ticket, Vec::new(), delivery.take_deferred()),
                Progress::Lonely => Report::Lonely(ticket, delivery),
                Progress::Parked | Progress::Stopped => Report::Left(ticket, delivery.into_rest()),
            }
        });
    }

    fn confirm(&mut self, accepted: Vec<Sent<Leased>>) {
        if accepted.is_empty() {
            return;
        }
        self.confirming += 1;
        let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
        self.tasks.spawn(async move {
            confirm(&line, &mut knobs, accepted).await;
            Report::Confirmed
        });
    }
}

impl sessions::Entry for Leased {
    fn session(&self) -> Option<u64> {
        sessions::key_of(self.record())
    }
    fn bytes(&self) -> usize {
        self.record().len()
    }
}

/// The bounds of the next batch. A parked lane probes with a single event, and now and then with a few of which each goes alone.
fn limits(line: &Line, settings: &Settings) -> Limits {
    let probe = line.health().probe();
    if let Some(events) = probe {
        Limits {
            // Each goes alone, so the bounds of a batch are none of theirs.
            max_events: events,
            max_bytes: settings.batch.max_bytes.max(PROBE_BYTES),
            max_age: Duration::ZERO,
        }
    } else {
        Limits {
            max_bytes: line.size().apply(settings.batch.max_bytes),
            ..settings.batch
        }
    }
}

/// Resolves when a batch is to be sent, with its limits: at once if some that was leased may go (`free`). Never while the
/// lane has no key.
async fn due(line: &Line, settings: &Settings, dry: &mut bool, free: bool) -> Limits {
    let has_key = settings.key_for(&line.lane().project).is_some();
    line.keyed(has_key);
    if !has_key {
        std::future::pending::<()>().await;
    }
    let hold = line.health().hold(clock::now());
    if let Some(until) = hold {
        let (parked, known) = (line.health().is_parked(), line.view.queued());
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until.into()) => {}
            () = more(line, known), if parked && known <= FEW => line.health().wake_to_compare(clock::now()),
        }
    }
    let limits = limits(line, settings);
    if free {
        return limits;
    }
    if *dry {
        line.view.changed().await;
        // Said once: this is asked for anew whenever a report comes in, and the news may be all there is.
        *dry = false;
    }
    loop {
        match limits.decide(&line.view.ready(), clock::now()) {
            Decision::Close => return limits,
            Decision::Idle => line.view.changed().await,
            Decision::WaitUntil(moment) => tokio::select! {
                biased;
                () = tokio::time::sleep_until(moment.into()) => {}
                () = line.view.changed() => {}
            },
        }
    }
}

/// Resolves once more events are queued than so many.
async fn more(line: &Line, known: u64) {
    let view = line.view.clone();
    loop {
        // Reading this is what the wait goes by.
        let _ = view.ready();
        if view.queued() > known {
            return;
        }
        view.changed().await;
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
