//! The courier of one feedback lane.
//!
//! The spool gives a feedback out only after the logs that were accepted before it. Several tasks are served at once, because the
//! API may hold a request for 31 s; of one task one at a time, in order. A task that is not there yet is looked for
//! at growing intervals until `feedback.wait_max` after the first 404 (counted anew after a restart), and on while logs of its
//! project that were accepted by then are still queued here; if the log of the task is found among the dead letters, it will never be there, and the feedback is buried at once.
//!
//! **An upstream that refuses everything must not turn a queue into dead letters, nor one feedback hold up the others.** A
//! feedback that is refused (400, 413, 422) is buried at once only if another was delivered since the last burial; else the
//! lane backs off and it is tried again, [`ROUNDS_REFUSED`] times. One whose answer is lost, or is a 5xx, is tried again
//! behind the others; it is buried if that goes on for `feedback.wait_max` while others are delivered in between. One that something
//! between here and the API refuses, or that meets a 401 or 403 of the API, is tried again behind the others as well. It is buried if
//! it is refused again after another was delivered, and [`REFUSALS`] times in all, or [`OWN_PROOFS`] times so where it is the API's own word. The lane is
//! parked, and nothing is buried, once [`BLOCKED_IN_A_ROW`] of them or all there are were refused with nothing in between.

use super::clock;
use super::feedback_try::{Held, Overdue, Tried, unaddressable};
use super::health;
use super::line::{Knobs, Line, changed};
use super::pulse::Ear;
use super::roster::Roster;
use super::{CourierError, Settings};
use crate::batch::Limits;
use crate::fates::Proof;
use crate::feedback::Feedback;
use crate::spool::{Burial, Leased};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;

/// Most feedback that a lane holds on lease, those that wait for their task included.
const MAX_HELD: usize = 1024;
/// Most of them that wait for logs of this queue although `feedback.wait_max` is over: the lane has to be free for others.
const MAX_OVERDUE: usize = MAX_HELD / 2;
/// Bytes of records from which on no more is leased.
const MAX_HELD_BYTES: usize = 8 << 20;
/// Most feedback in one lease.
const MAX_LEASE: usize = 256;
/// How often a refused feedback is tried again while no other is delivered.
const ROUNDS_REFUSED: u32 = 3;

/// How many refusals in a row, each of another feedback, park the lane.
const BLOCKED_IN_A_ROW: u32 = 4;
/// How often something in between must refuse a feedback, all in all.
const REFUSALS: u32 = 6;
/// How often the API must refuse a feedback by its key after another was delivered.
const OWN_PROOFS: u32 = 8;

/// One feedback lane.
pub(super) struct FeedbackLane {
    line: Arc<Line>,
    knobs: Knobs,
    roster: Roster<Held>,
    flights: JoinSet<(Held, Tried)>,
    /// A lease came back empty: wait for news before the next.
    dry: bool,
    /// Something was delivered since the last burial of a refused one.
    taken_since_burial: bool,
    /// When something was delivered last.
    last_taken: Option<Instant>,
    /// When the API last said anything about a feedback.
    last_heard: Option<Instant>,
    /// Refusals since then that are about the project or about one feedback.
    blocked: u32,
}

impl FeedbackLane {
    pub(super) fn new(line: Arc<Line>, knobs: Knobs) -> Self {
        Self {
            line,
            knobs,
            roster: Roster::new(),
            flights: JoinSet::new(),
            dry: false,
            taken_since_burial: false,
            last_taken: None,
            last_heard: None,
            blocked: 0,
        }
    }

    /// Runs until shutdown. Answers the watchdog by `ear`, also while it waits for the spool: a burial takes until the disk works.
    pub(super) async fn run(mut self, mut ear: Ear) -> Result<(), CourierError> {
        let line = self.line.clone();
        loop {
            let settings = self.knobs.borrow_and_update().clone();
            let has_key = settings.key_for(&line.lane().project).is_some();
            line.keyed(has_key);
            if has_key {
                self.start(&settings);
            }
            let wake = if has_key {
                self.next_moment(&settings)
            } else {
                None
            };
            let room = self.room(has_key);
            tokio::select! {
                biased;
                () = line.stop().draining() => break,
                Some(flight) = self.flights.join_next() => {
                    let (held, tried) = flight?;
                    ear.while_doing(self.land(held, tried, &settings)).await;
                }
                () = changed(&mut self.knobs) => {
                    line.wake();
                    self.roster.wake(|held| held.busy || held.blocked.is_some());
                }
                () = ear.answer() => {}
                () = sleep_until(wake), if wake.is_some() => {}
                () = ready(&line, self.dry), if room > 0 => ear.while_doing(self.lease(room, &settings)).await,
            }
        }
        let settings = self.knobs.borrow().clone();
        while let Some(flight) = self.flights.join_next().await {
            let (held, tried) = flight?;
            self.land(held, tried, &settings).await;
        }
        let rest = self.roster.clear().into_iter().map(|held| held.event);
        line.release(rest.collect()).await;
        Ok(())
    }

    /// Starts what may be tried now.
    fn start(&mut self, settings: &Settings) {
        let now = clock::now();
        if self.line.health().hold(now).is_some() {
            return;
        }
        while self.flights.len() < self.streams(settings) {
            let Some(mut held) = self.roster.next(now) else {
                return;
            };
            let (line, mut knobs) = (self.line.clone(), self.knobs.clone());
            self.flights.spawn(async move {
                let tried = held.attempt(&line, &mut knobs).await;
                (held, tried)
            });
        }
    }

    fn streams(&self, settings: &Settings) -> usize {
        if self.line.health().is_troubled() {
            1
        } else {
            settings.feedback_concurrency.max(1)
        }
    }

    /// When something may be started that may not be now; `None` while only a landing or news can change that.
    fn next_moment(&self, settings: &Settings) -> Option<Instant> {
        let hold = self.line.health().hold(clock::now());
        if hold.is_some() {
            return hold;
        }
        (self.flights.len() < self.streams(settings))
            .then(|| self.roster.next_moment())
            .flatten()
    }

    /// How many may be leased now. A parked lane probes with a single one.
    fn room(&self, has_key: bool) -> usize {
        let health = self.line.health();
        match (has_key, health.is_parked()) {
            (false, _) => 0,
            // Those that were refused wait, and another may pass.
            (true, true) if self.flights.is_empty() && !self.roster.is_ready(clock::now()) => {
                usize::from(health.hold(clock::now()).is_none() && self.roster.len() < MAX_HELD)
            }
            (true, true) => 0,
            (true, false) if self.roster.bytes() >= MAX_HELD_BYTES => 0,
            (true, false) => MAX_HELD.saturating_sub(self.roster.len()).min(MAX_LEASE),
        }
    }

    async fn lease(&mut self, room: usize, settings: &Settings) {
        let limits = Limits {
            max_events: room,
            max_bytes: settings
                .batch
                .max_bytes
                .min(MAX_HELD_BYTES - self.roster.bytes().min(MAX_HELD_BYTES - 1)),
            max_age: Duration::ZERO,
        };
        let events = self.line.spool().lease(self.line.lane(), &limits).await;
        self.dry = events.is_empty();
        for event in events {
            match Feedback::from_record(event.record()) {
                Some(feedback) if !feedback.task().is_addressable() => {
                    self.bury(event, unaddressable(0)).await;
                }
                Some(feedback) => self.roster.admit(Held::new(event, feedback)),
                None => self.bury(event, unreadable()).await,
            }
        }
    }

    async fn land(&mut self, mut held: Held, tried: Tried, settings: &Settings) {
        match tried {
            Tried::Delivered => {
                if self.line.health().is_troubled() {
                    self.roster.wake(|held| held.busy);
                }
                self.line.passed();
                self.heard();
                self.taken_since_burial = true;
                self.last_taken = Some(clock::now());
                self.ended(&held);
                self.line.settle(vec![held.event], Proof::Answered).await;
            }
            Tried::Refused(burial, shown, began) => {
                self.heard();
                self.refused(held, burial, (&shown, began), settings).await;
            }
            Tried::Unanswered(burial) => self.unanswered(held, burial, settings).await,
            Tried::Blocked {
                burial,
                own,
                park,
                began,
            } => {
                if self.blocks(&mut held, own) {
                    self.line.passed();
                    self.roster.landed(&held);
                    return self.bury(held.event, burial).await;
                }
                if self.blocked >= BLOCKED_IN_A_ROW
                    || self.roster.len() <= 1
                    || self.line.health().is_parked()
                {
                    self.line.park(began, &park, settings);
                }
                self.set_aside(held, settings);
            }
            Tried::Again => {
                held.busy = true;
                self.set_aside(held, settings);
            }
            Tried::Orphaned(burial) => {
                self.line.passed();
                self.ended(&held);
                self.bury(held.event, burial).await;
            }
            Tried::NotYet => {
                self.line.passed();
                self.heard();
                self.not_yet(held, settings).await;
            }
            // Neither says whether the upstream takes feedback.
            Tried::Unnamed(burial) => {
                self.roster.landed(&held);
                self.bury(held.event, burial).await;
            }
            Tried::Odd => self.set_aside(held, settings),
            Tried::Failed | Tried::Parked | Tried::Stopped => {
                held.not_before = None;
                self.roster.back(held);
            }
        }
    }

    async fn refused(
        &mut self,
        held: Held,
        burial: Burial,
        (shown, began): (&str, Instant),
        settings: &Settings,
    ) {
        if self.taken_since_burial {
            self.line.passed();
        } else if held.failures < ROUNDS_REFUSED {
            self.line.failing(began, None, shown, settings);
            return self.set_aside(held, settings);
        }
        self.taken_since_burial = false;
        self.ended(&held);
        self.bury(held.event, burial).await;
    }

    /// The API itself said something: what is in between lets something pass.
    fn heard(&mut self) {
        self.last_heard = Some(clock::now());
        self.blocked = 0;
    }

    /// Notes that something refused a feedback which may be its own fault; whether that is proved.
    fn blocks(&mut self, held: &mut Held, own: bool) -> bool {
        let before = held.blocked.replace(clock::now());
        let passed = before.is_some_and(|before| self.last_heard.is_some_and(|heard| heard > before));
        held.proofs += u32::from(passed);
        self.blocked = self.blocked.saturating_add(1);
        held.refusals += u32::from(!own);
        match own {
            true => held.proofs >= OWN_PROOFS,
            false => held.proofs > 0 && held.refusals >= REFUSALS,
        }
    }

    async fn unanswered(&mut self, mut held: Held, mut burial: Burial, settings: &Settings) {
        let now = clock::now();
        let before = held.unanswered.replace(now);
        if self
            .last_taken
            .is_none_or(|taken| before.is_none_or(|before| taken < before))
        {
            // It may be the upstream and not this feedback: the time counts anew.
            held.unanswered_since = None;
        }
        let since = *held.unanswered_since.get_or_insert(before.unwrap_or(now));
        if now - since < settings.feedback_wait_max || self.last_taken.is_none_or(|taken| taken < since) {
            return self.set_aside(held, settings);
        }
        burial.reason.push_str(&format!(
            "; so it went for {:?} (feedback.wait_max), while other feedback was delivered",
            settings.feedback_wait_max
        ));
        self.ended(&held);
        self.bury(held.event, burial).await;
    }

    /// Tries it again later, behind what is ready by then.
    fn set_aside(&mut self, mut held: Held, settings: &Settings) {
        held.failures = held.failures.saturating_add(1);
        let wait = settings.backoff.delay(held.failures, fastrand::u64(..));
        held.not_before = Some(clock::now() + wait);
        self.roster.back(held);
    }

    async fn not_yet(&mut self, mut held: Held, settings: &Settings) {
        let now = clock::now();
        let since = *held.missing_since.get_or_insert(now);
        held.misses = held.misses.saturating_add(1);
        let board = &self.line.common.board;
        board.waits_for_task(self.line.lane(), held.event.seq(), since, SystemTime::now());
        let over = now - since >= settings.feedback_wait_max;
        if over && !self.may_still_come(&mut held) {
            let reason = format!(
                "the API has no task {} even {:?} (feedback.wait_max) after this feedback was first sent: was the task \
                 logged, and to this account?",
                held.feedback.task(),
                settings.feedback_wait_max
            );
            let burial = Burial {
                reason,
                status: Some(404),
                excerpt: None,
                attempts: held.attempts,
            };
            self.ended(&held);
            return self.bury(held.event, burial).await;
        }
        let wait = health::patient(&settings.backoff, held.misses, fastrand::u64(..));
        held.not_before = Some(match over {
            true => now + wait,
            false => (now + wait).min(since + settings.feedback_wait_max),
        });
        self.roster.back(held);
    }

    /// Whether the log of an overdue feedback may still leave this queue. It can have been accepted after its feedback, and
    /// then the spool's order does not keep the feedback back.
    fn may_still_come(&self, held: &mut Held) -> bool {
        let pending = self.line.logs_pending();
        let overdue = || self.roster.count(|other| other.overdue.is_some());
        let last = match (held.overdue, pending) {
            (Some(Overdue::LastLook), _) | (None, None) => return false,
            (None, _) if overdue() >= MAX_OVERDUE => return false,
            (Some(Overdue::Behind(last)), _) | (None, Some((_, last))) => last,
        };
        held.overdue = Some(match pending {
            Some((first, _)) if first <= last => Overdue::Behind(last),
            _ => Overdue::LastLook,
        });
        true
    }

    /// It leaves the lane.
    fn ended(&mut self, held: &Held) {
        self.roster.landed(held);
        if held.missing_since.is_some() {
            self.line
                .common
                .board
                .waits_no_more(self.line.lane(), held.event.seq());
        }
    }

    async fn bury(&self, event: Leased, burial: Burial) {
        self.line
            .spool()
            .bury(self.line.lane(), vec![(event, burial)])
            .await;
    }
}

fn unreadable() -> Burial {
    Burial {
        reason: "the record is not a feedback that this version can read: report this, with the versions that ran before".into(),
        status: None,
        excerpt: None,
        attempts: 0,
    }
}

/// Resolves when there is feedback to lease.
async fn ready(line: &Line, dry: bool) {
    if dry {
        line.view.changed().await;
    }
    while line.view.ready().events == 0 {
        line.view.changed().await;
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
