//! Which lanes have a courier: those with work, a bounded number at a time. Clients choose project ids, and each courier takes
//! some 35 KiB, so neither a lane that rests nor all lanes of a long backlog may have one.
//!
//! A courier ends once its lane has had nothing for a while, and comes back with the next event. Where more lanes have work than
//! may be at it, they take turns: one that is refused gives its place up sooner than one that delivers. Projects that always have
//! room in the spool (a key of their own, the default one) have a courier whatever waits.

use super::clock;
use super::feedback_lane::FeedbackLane;
use super::line::{Common, Knobs, Line};
use super::log_lane::LogLane;
use super::news::{self, Teller};
use super::stop::{Phase, Stop};
use super::{CourierError, Heart};
use crate::board::LaneState;
use crate::ids::{Kind, Lane};
use crate::spool::LaneView;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long a lane has had nothing when its courier ends, at least; twice that at most.
const REST: Duration = Duration::from_secs(10);
/// How often places are looked for while lanes wait for one.
const CROWDED: Duration = Duration::from_millis(500);
/// How long a lane that is refused keeps its place while others wait for it.
const TROUBLED_TURN: Duration = Duration::from_secs(30);
/// The same for any other.
const TURN: Duration = Duration::from_secs(300);
/// How long attempts in flight may take after the end of a turn.
const GRACE: Duration = Duration::from_secs(30);

/// Resolves at that moment, if there is one.
pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// How a courier ended, and of which lane.
pub(super) type Ended = (Lane, Result<(), CourierError>);

/// A lane at work.
struct AtWork {
    phase: Teller<Phase>,
    view: LaneView,
    since: Instant,
    /// It had nothing when it was last looked at.
    rested: bool,
    /// When its courier was told to end.
    told: Option<Instant>,
    /// It counts among those that are bounded.
    counts: bool,
}

/// The couriers.
pub(super) struct Couriers {
    pub(super) common: Common,
    pub(super) knobs: Knobs,
    at_work: BTreeMap<Lane, AtWork>,
    pub(super) tasks: JoinSet<Ended>,
    /// Most lanes at a time; `usize::MAX`: any number.
    most: usize,
    /// Those of them that count.
    counted: usize,
    /// Where the search for lanes with work goes on.
    next: usize,
    /// Some found no place.
    crowded: bool,
    look_at: Instant,
}

impl Couriers {
    pub(super) fn new(common: Common, knobs: Knobs) -> Self {
        Self {
            most: common.spool.lanes_at_work(),
            common,
            knobs,
            at_work: BTreeMap::new(),
            tasks: JoinSet::new(),
            counted: 0,
            next: 0,
            crowded: false,
            look_at: clock::now(),
        }
    }

    /// Starts a courier for each lane that has work and none, as far as there are places. Round and round, so that all come up.
    pub(super) fn start(&mut self, views: &[LaneView], heart: &mut Heart) {
        self.crowded = false;
        let (later, sooner) = views.split_at(self.next.min(views.len()));
        let mut last = None;
        for (at, view) in (later.len()..).zip(sooner).chain((0..).zip(later)) {
            // Looked for first: there can be thousands, and a new one makes all of them be looked at.
            if view.queued() == 0 || self.at_work.contains_key(view.lane()) {
                continue;
            }
            let counts = !self.common.spool.keeps_room_for(&view.lane().project);
            if counts && self.counted >= self.most {
                self.crowded = true;
                continue;
            }
            last = Some(at + 1);
            self.hire(view, counts, heart);
        }
        self.next = last.unwrap_or(self.next);
        let pause = if self.crowded { CROWDED } else { REST };
        self.look_at = self.look_at.min(clock::now() + pause);
    }

    fn hire(&mut self, view: &LaneView, counts: bool, heart: &mut Heart) {
        let lane = view.lane().clone();
        let (phase, seen) = news::channel(Phase::Running);
        let common = Common {
            stop: Stop::new(seen),
            ..self.common.clone()
        };
        let line = Arc::new(Line::new(common, view.clone()));
        let (knobs, ear) = (self.knobs.clone(), heart.lane());
        if self.at_work.is_empty() {
            self.look_at = clock::now() + REST;
        }
        let at_work = AtWork {
            phase,
            view: view.clone(),
            since: clock::now(),
            rested: false,
            told: None,
            counts,
        };
        self.counted += usize::from(counts);
        self.at_work.insert(lane.clone(), at_work);
        match lane.kind {
            Kind::Log => self
                .tasks
                .spawn(async move { (lane, LogLane::new(line, knobs).run(ear).await) }),
            Kind::Feedback => self
                .tasks
                .spawn(async move { (lane, FeedbackLane::new(line, knobs).run(ear).await) }),
        };
    }

    /// A courier has ended.
    pub(super) fn ended(&mut self, lane: &Lane) {
        if let Some(gone) = self.at_work.remove(lane) {
            self.counted -= usize::from(gone.counts);
        }
    }

    /// Whether lanes wait for a place. Then places are given out with the next look, not one by one: each time takes a look at all.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// When it is to be looked who may rest.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.crowded || !self.at_work.is_empty()).then_some(self.look_at)
    }

    /// Ends the couriers of lanes that have nothing, and where others wait those whose turn is over.
    pub(super) fn look(&mut self) {
        let now = clock::now();
        self.look_at = now + if self.crowded { CROWDED } else { REST };
        for (lane, at_work) in &mut self.at_work {
            if let Some(told) = at_work.told {
                if now >= told + GRACE {
                    at_work.phase.tell(Phase::Aborting);
                }
                continue;
            }
            let has_nothing = at_work.view.queued() == 0;
            let rested = std::mem::replace(&mut at_work.rested, has_nothing) && has_nothing;
            let turn = || match self.common.board.get(lane) {
                LaneState::Flowing => TURN,
                _ => TROUBLED_TURN,
            };
            let is_over = self.crowded && at_work.counts && (has_nothing || now >= at_work.since + turn());
            if rested || is_over {
                at_work.told = Some(now);
                at_work.phase.tell(Phase::Draining);
            }
        }
    }

    /// Tells all of them how far the shutdown has come.
    pub(super) fn tell(&self, phase: Phase) {
        for at_work in self.at_work.values() {
            at_work.phase.tell(phase);
        }
    }

    /// Waits until all have ended; keeps the first fault.
    pub(super) async fn finish(&mut self, end: &mut Result<(), CourierError>) {
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.map_or_else(|panic| Err(panic.into()), |(_, ended)| ended);
            if end.is_ok() {
                *end = ended;
            }
        }
    }
}
