//! The courier of one log lane.
//!
//! As many batches are in flight as the lane's [`window`](super::window) allows, which events may go side by side is up to
//! [`sessions`](super::sessions). A batch that failed is sent again before it makes room for another, so the events of a session go out in
//! the order of acceptance; with `delivery.concurrency = 1` all events do.
//! Confirmations run beside, so that they do not hold back the next batch; too many of them do. When a batch turns out to be lost, its
//! sessions are closed until it is repaired. What was sent of them before that was known arrives before it.

use super::clock;
use super::confirm::{Confirmed, Patience, bare, confirm};
use super::deferred::{Deferred, Due};
use super::delivery::{Delivery, EventForm, Sent};
use super::line::{Knobs, Line, changed};
use super::pulse::Ear;
use super::repair;
use super::send::Progress;
use super::sessions::{self, Batch, How, Sessions, Ticket};
use super::token_counts::Question;
use super::tokens;
use super::{CourierError, Settings};
use crate::batch::{Decision, Limits};
use crate::event::{self, DocumentSize};
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

/// A batch on its way.
#[derive(Debug)]
struct Flight {
    ticket: Ticket,
    /// What it is to show about the upstream.
    question: Option<Question>,
}

/// What a lane's task ended with.
enum Report {
    /// A batch has nothing left to send; what was accepted last has to be confirmed, and what keeps failing alone is to be tried again.
    Sent(Flight, Vec<Sent<Leased>>, Vec<Sent<Leased>>),
    /// A part of a batch was accepted; the rest is still to be sent.
    Partly(Flight, Vec<Sent<Leased>>, Delivery<Leased>),
    /// A batch wants company.
    Lonely(Flight, Delivery<Leased>),
    /// The rest of a batch cannot be sent for now.
    Left(Ticket, Vec<Leased>),
    /// A confirmation is through. These events were lost.
    Confirmed(Accepted, Vec<Sent<Leased>>),
    /// A lost batch is stored again, but for these events.
    Repaired(Ticket, Vec<Sent<Leased>>),
    /// Events that can never be stored have ended.
    Buried,
    /// A deferred event has ended, or failed again.
    Retried(Option<Due<Leased>>),
}

/// What is to be known of events that were accepted.
struct Accepted {
    /// Their sessions are closed under this.
    closed: Option<Ticket>,
    question: Option<Question>,
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
            let free = room && self.sessions.any_free(&self.how(&settings, streams));
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
            self.take_last(report?).await;
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
        let settings = self.knobs.borrow().clone();
        let how = self.how(&settings, streams);
        if let Some(batch) = self.sessions.cut(limits, &how) {
            self.send_batch(batch, &settings);
        }
    }

    /// How the next batch is to be cut.
    fn how(&self, settings: &Settings, streams: usize) -> How {
        let plan = self.line.token_counts(settings);
        How {
            beside: streams > 1,
            in_order: settings.concurrency == 1,
            breaking: (plan.adds || plan.ask > 0).then_some(tokens::ADDED_BYTES),
            ask: plan.ask,
        }
    }

    fn send_batch(&mut self, batch: Batch<Leased>, settings: &Settings) {
        let knowledge = &self.line.common.token_counts;
        let question = batch
            .is_question
            .then(|| knowledge.ask(settings.upstream.base_url()))
            .flatten();
        let adds = question.is_none() && self.line.token_counts(settings).adds;
        let in_doubt = batch.events.iter().any(|(event, _)| self.line.is_in_doubt(event));
        let events = batch.events.into_iter().map(|(event, breaks)| {
            let form = if adds && breaks {
                EventForm::ZeroCounts
            } else {
                EventForm::AsIs
            };
            Sent::new(event, form)
        });
        let mut delivery = if in_doubt {
            Delivery::in_doubt(events)
        } else {
            Delivery::whole(events)
        };
        if self.line.health().is_parked() {
            delivery.one_first();
        }
        let ticket = batch.ticket;
        self.send(Flight { ticket, question }, delivery);
    }

    async fn lease(&mut self, limits: &Limits) {
        let events = self.line.spool().lease(self.line.lane(), limits).await;
        self.dry = events.is_empty();
        self.line.leased(&events);
        self.sessions.admit(events);
    }

    async fn take(&mut self, report: Report) {
        match report {
            Report::Sent(flight, accepted, deferred) => {
                self.sent(flight, accepted);
                self.defer(deferred).await;
            }
            Report::Partly(flight, accepted, mut rest) => {
                self.partly(&flight, accepted);
                self.defer(rest.take_deferred()).await;
                self.send(flight, rest);
            }
            Report::Lonely(flight, mut delivery) => {
                delivery.join(self.company(flight.ticket).await);
                self.send(flight, delivery);
            }
            Report::Left(ticket, mut rest) => {
                self.sessions.land(ticket);
                // They come back with the next lease, in order: before what waits, if that goes back as well.
                rest.extend(self.sessions.give_up());
                self.line.release(rest).await;
            }
            Report::Confirmed(accepted, lost) if lost.is_empty() => {
                self.confirming -= 1;
                accepted
                    .closed
                    .into_iter()
                    .for_each(|ticket| self.sessions.land(ticket));
            }
            Report::Confirmed(accepted, lost) => self.repair(accepted, lost),
            Report::Repaired(ticket, hopeless) => {
                self.sessions.land(ticket);
                self.bury(hopeless);
            }
            Report::Buried => self.confirming -= 1,
            Report::Retried(failed) => {
                self.count_deferred(if failed.is_some() { 0 } else { -1 });
                let backoff = self.knobs.borrow().backoff;
                self.deferred
                    .ended(failed, clock::now(), &backoff, fastrand::u64(..));
            }
        }
    }

    /// Takes a report after the shutdown began: nothing more is sent.
    async fn take_last(&mut self, report: Report) {
        match report {
            Report::Partly(flight, accepted, rest) => {
                self.take(Report::Left(flight.ticket, rest.into_rest())).await;
                self.partly(&flight, accepted);
            }
            Report::Lonely(flight, rest) => self.take(Report::Left(flight.ticket, rest.into_rest())).await,
            Report::Sent(flight, accepted, deferred) => {
                self.line.release(bare(deferred)).await;
                self.sent(flight, accepted);
            }
            Report::Confirmed(_, lost) => self.line.release(bare(lost)).await,
            Report::Retried(failed) => {
                self.count_deferred(-1);
                let failed = failed.into_iter().map(|due| due.sent.event);
                self.line.release(failed.collect()).await;
            }
            report => self.take(report).await,
        }
    }

    /// A batch has nothing left to send. The sessions of a question stay closed until it is answered.
    fn sent(&mut self, flight: Flight, accepted: Vec<Sent<Leased>>) {
        let Flight { ticket, question } = flight;
        let closed = (question.is_some() && !accepted.is_empty()).then_some(ticket);
        match closed {
            Some(_) => self.sessions.keep_closed(ticket, self.is_in_order()),
            None => self.sessions.land(ticket),
        }
        self.confirm(Accepted { closed, question }, accepted);
    }

    /// A part of a batch was accepted.
    fn partly(&mut self, flight: &Flight, accepted: Vec<Sent<Leased>>) {
        let question = flight.question.clone();
        let closed = None;
        self.confirm(Accepted { closed, question }, accepted);
    }

    fn is_in_order(&self) -> bool {
        self.knobs.borrow().concurrency == 1
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
    async fn company(&mut self, ticket: Ticket) -> Option<Sent<Leased>> {
        let settings = self.knobs.borrow().clone();
        let in_order = self.is_in_order();
        let mut event = self.sessions.join(ticket, in_order);
        if event.is_none() {
            let room = self.sessions.room(&limits(&self.line, &settings))?;
            self.lease(&Limits {
                max_events: 1,
                ..room
            })
            .await;
            event = self.sessions.join(ticket, in_order);
        }
        let event = event?;
        let adds = self.line.token_counts(&settings).adds && event::breaks_tokenizer(event.record());
        let form = if adds {
            EventForm::ZeroCounts
        } else {
            EventForm::AsIs
        };
        Some(Sent::new(event, form))
    }

    fn send(&mut self, flight: Flight, mut delivery: Delivery<Leased>) {
        let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
        delivery.may_defer(self.deferred.room());
        self.tasks.spawn(async move {
            match line.advance(&mut knobs, &mut delivery).await {
                Progress::Accepted(accepted) if delivery.is_done() => {
                    Report::Sent(flight, accepted, delivery.take_deferred())
                }
                Progress::Accepted(accepted) => Report::Partly(flight, accepted, delivery),
                Progress::Done => Report::Sent(flight, Vec::new(), delivery.take_deferred()),
                Progress::Lonely => Report::Lonely(flight, delivery),
                Progress::Parked | Progress::Stopped => Report::Left(flight.ticket, delivery.into_rest()),
            }
        });
    }

    fn confirm(&mut self, accepted: Accepted, events: Vec<Sent<Leased>>) {
        if events.is_empty() {
            return;
        }
        self.confirming += 1;
        let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
        let patience = match accepted.question {
            Some(_) => Patience::Prompt,
            None => Patience::Full,
        };
        self.tasks.spawn(async move {
            let lost = match confirm(&line, &mut knobs, events, patience).await {
                Confirmed::Lost(lost) => lost,
                Confirmed::Stored => {
                    if let Some(question) = &accepted.question {
                        line.learned(question, false);
                    }
                    Vec::new()
                }
                Confirmed::Untold | Confirmed::Stopped => Vec::new(),
            };
            Report::Confirmed(accepted, lost)
        });
    }

    /// Sends a lost batch again. What is still to come of its sessions waits for that.
    fn repair(&mut self, accepted: Accepted, lost: Vec<Sent<Leased>>) {
        self.line.lost(lost.len());
        let in_order = self.is_in_order();
        let ticket = accepted.closed.unwrap_or_else(|| {
            let sessions = lost.iter().map(|sent| sessions::key_of(sent.event.record()));
            self.sessions.close(sessions, in_order)
        });
        let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
        self.tasks.spawn(async move {
            let hopeless = repair::repair(&line, &mut knobs, lost, accepted.question).await;
            Report::Repaired(ticket, hopeless)
        });
    }

    fn bury(&mut self, hopeless: Vec<Sent<Leased>>) {
        let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
        self.tasks.spawn(async move {
            repair::bury(&line, &mut knobs, hopeless).await;
            Report::Buried
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
    fn breaks_tokenizer(&self) -> bool {
        event::breaks_tokenizer(self.record())
    }
    fn is_large(&self) -> bool {
        event::document_size(self.record()) != DocumentSize::Fits
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
