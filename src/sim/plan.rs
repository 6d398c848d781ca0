//! A schedule, made from one number.

use super::fault::Weather;
use super::record::{BAD, Event, Kind, Note};
use crate::batch::Limits;
use crate::courier::{RateLimit, TokenCounts};
use fastrand::Rng;
use std::time::Duration;

/// One part of an append.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Event(usize),
    Note(usize),
}

/// Something that happens.
#[derive(Debug, Clone)]
pub(super) enum Turn {
    /// A client sends.
    Append(Vec<Entry>),
    /// SIGKILL, and a start after so long.
    Kill(Duration),
    /// An orderly end, and a start after so long.
    Shutdown(Duration),
    /// Requests of a project fare like this from now on.
    Weather(usize, Weather),
    /// A person sets the right key.
    Mend(usize),
    /// The API loses the next batch after its 200.
    Lose,
    /// A person queues all dead letters again; with `true` after mending the events.
    Requeue(bool),
    /// The API stores so many milliseconds after its 200.
    StoreLate(u64),
}

/// The key that a project has at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Good,
    /// One that the API refuses.
    Stale,
    Absent,
}

/// One project.
#[derive(Debug, Clone)]
pub(super) struct Project {
    pub(super) key: Key,
    pub(super) quota: Option<u64>,
    /// Nothing goes wrong with it: whatever happens to the others, it must be served.
    pub(super) calm: bool,
}

/// A schedule.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) projects: Vec<Project>,
    pub(super) events: Vec<Event>,
    pub(super) notes: Vec<Note>,
    /// In the order of time.
    pub(super) turns: Vec<(Duration, Turn)>,
    /// When everything is mended.
    pub(super) heal_at: Duration,
    pub(super) batch: Limits,
    pub(super) concurrency: usize,
    pub(super) max_in_flight: usize,
    pub(super) rate_limit: RateLimit,
    pub(super) feedback_concurrency: usize,
    pub(super) confirm: bool,
    /// The API has the route to read tasks back.
    pub(super) readable: bool,
    pub(super) wait_max: Duration,
    pub(super) grace: Duration,
    /// The API takes small bodies only.
    pub(super) small_bodies: bool,
    /// The API may lose batches that it accepted.
    pub(super) loses: bool,
    pub(super) token_counts: TokenCounts,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let heal_at = Duration::from_millis(rng.u64(2_000..240_000));
        let mut plan = Plan {
            projects: Vec::new(),
            events: Vec::new(),
            notes: Vec::new(),
            turns: Vec::new(),
            heal_at,
            batch: Limits {
                max_events: *rng.choice(&[1, 3, 8, 500]).expect("one"),
                max_bytes: *rng.choice(&[600, 4_000, 4 << 20]).expect("one"),
                max_age: Duration::from_millis(rng.u64(1..800)),
            },
            concurrency: *rng.choice(&[1, 1, 2, 4]).expect("one"),
            max_in_flight: *rng.choice(&[2, 5, 64, 64]).expect("one"),
            rate_limit: rate_limit(&mut rng),
            feedback_concurrency: rng.usize(1..6),
            confirm: rng.u8(0..100) < 85,
            readable: rng.u8(0..100) < 90,
            wait_max: Duration::from_secs(*rng.choice(&[900, 3_600]).expect("one")),
            grace: Duration::from_millis(rng.u64(0..10_000)),
            small_bodies: rng.u8(0..100) < 30,
            loses: false,
            token_counts: TokenCounts::Auto,
        };
        plan.loses = plan.confirms() && rng.bool();
        plan.token_counts = match rng.u8(0..10) {
            0 => TokenCounts::Always,
            1 => TokenCounts::Never,
            _ => TokenCounts::Auto,
        };
        plan.add_projects(&mut rng);
        plan.add_records(&mut rng);
        plan.add_trouble(&mut rng);
        plan.turns.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Whether what goes wrong with one project cannot keep a request of another one waiting for long.
    pub(super) fn is_roomy(&self) -> bool {
        self.max_in_flight == 64 && self.rate_limit == RateLimit::default()
    }

    /// Whether what the API accepts and does not store is found out.
    pub(super) fn confirms(&self) -> bool {
        self.confirm && self.readable
    }

    /// Whether the API may store what it accepted some time after its reply.
    pub(super) fn stores_late(&self) -> bool {
        let mut turns = self.turns.iter();
        turns.any(|(_, turn)| matches!(turn, Turn::StoreLate(_)))
    }

    fn add_projects(&mut self, rng: &mut Rng) {
        for at in 0..rng.usize(1..4) {
            let calm = at > 0 && rng.u8(0..3) == 0;
            let key = match rng.u8(0..10) {
                0 if !calm => Key::Stale,
                1 if !calm => Key::Absent,
                _ => Key::Good,
            };
            let quota = (rng.u8(0..8) == 0).then(|| rng.u64(0..10));
            self.projects.push(Project { key, quota, calm });
        }
    }

    fn add_records(&mut self, rng: &mut Rng) {
        let (count, bad_percent) = (rng.usize(3..=40), *rng.choice(&[0, 0, 8, 25, 80]).expect("one"));
        let mut left = count;
        while left > 0 {
            let at = self.moment(rng);
            let project = rng.usize(0..self.projects.len());
            let size = rng.usize(1..=left.min(8));
            left -= size;
            let mut entries = Vec::new();
            for _ in 0..size {
                entries.push(Entry::Event(self.add_event(project, bad_percent, rng)));
                if rng.u8(0..4) == 0 {
                    let nr = self.add_note(project, rng);
                    match rng.u8(0..4) {
                        // Before its log, beside it, or later.
                        0 => {
                            let early = Duration::from_millis(rng.u64(0..5_000));
                            let at = at.saturating_sub(early);
                            self.turns.push((at, Turn::Append(vec![Entry::Note(nr)])));
                        }
                        1 => entries.push(Entry::Note(nr)),
                        _ => {
                            let at = at + Duration::from_millis(rng.u64(0..20_000));
                            self.turns
                                .push((at.min(self.heal_at), Turn::Append(vec![Entry::Note(nr)])));
                        }
                    }
                }
            }
            self.turns.push((at, Turn::Append(entries)));
        }
    }

    fn add_event(&mut self, project: usize, bad_percent: u8, rng: &mut Rng) -> usize {
        let mut kind = Kind::Good;
        if rng.u8(0..100) < bad_percent && self.projects[project].calm {
            // Its own firewall is the least that may be wrong with it.
            kind = *rng.choice(&[Kind::Evil, Kind::Good]).expect("one");
        } else if rng.u8(0..100) < bad_percent && !self.projects[project].calm {
            kind = *rng.choice(&BAD).expect("one");
            let unseen = matches!(kind, Kind::Curable | Kind::Lost) && !self.loses;
            if unseen || kind == Kind::TooLarge && !self.small_bodies {
                kind = Kind::Refused;
            }
        }
        let nr = self.events.len();
        let session = (rng.u8(0..10) < 6).then(|| rng.u8(0..3));
        let mut task = format!("t{nr}");
        let last = self
            .events
            .iter()
            .rev()
            .find(|event| event.project == project && event.kind == Kind::Good);
        // A stream that leaves in parts, all under one id: the first wins.
        if kind == Kind::Good
            && rng.u8(0..12) == 0
            && let Some(last) = last
        {
            task.clone_from(&last.task);
        }
        self.events
            .push(Event::new(nr, kind, project, task, session, rng));
        nr
    }

    /// About the latest event, an older one or none.
    fn add_note(&mut self, project: usize, rng: &mut Rng) -> usize {
        let nr = self.notes.len();
        let own: Vec<&Event> = self
            .events
            .iter()
            .filter(|event| event.project == project)
            .collect();
        let task = match rng.u8(0..10) {
            0 => format!("unknown{nr}"),
            1..4 => rng.choice(&own).expect("one").task.clone(),
            _ => own.last().expect("one").task.clone(),
        };
        let too_large = self.small_bodies && rng.u8(0..10) == 0 && !self.projects[project].calm;
        let evil = !too_large && rng.u8(0..12) == 0;
        self.notes
            .push(Note::new(nr, project, task, (too_large, evil), rng));
        nr
    }

    fn add_trouble(&mut self, rng: &mut Rng) {
        for project in 0..self.projects.len() {
            if !self.projects[project].calm {
                for _ in 0..rng.usize(0..4) {
                    let weather = Weather::rough(rng);
                    self.spell(rng, project, weather);
                }
            }
            if self.projects[project].key != Key::Good {
                let at = self.moment(rng);
                self.turns.push((at, Turn::Mend(project)));
            }
        }
        for _ in 0..*rng.choice(&[0, 0, 1, 2, 4]).expect("one") {
            let (at, pause) = (self.moment(rng), Duration::from_millis(rng.u64(0..4_000)));
            let turn = match rng.bool() {
                true => Turn::Kill(pause),
                false => Turn::Shutdown(pause),
            };
            self.turns.push((at, turn));
        }
        // Where all is down at once.
        if rng.u8(0..5) == 0 {
            let (weather, from) = (Weather::rough(rng), self.moment(rng));
            for project in 0..self.projects.len() {
                if !self.projects[project].calm {
                    self.turns.push((from, Turn::Weather(project, weather.clone())));
                }
            }
        }
        if rng.u8(0..4) == 0 {
            let at = self.moment(rng);
            self.turns.push((at, Turn::Requeue(rng.bool())));
        }
        // Without counts one more try has to bring a good event through, and with counts one of what breaks the tokenizer.
        let curable = self.events.iter().any(|event| event.kind == Kind::Curable);
        if self.loses && !curable && rng.bool() {
            let at = self.moment(rng);
            self.turns.push((at, Turn::Lose));
        }
        if rng.u8(0..3) == 0 {
            let at = self.moment(rng);
            self.turns.push((at, Turn::StoreLate(rng.u64(1..3_000))));
        }
    }

    /// Rough weather, and a calm after it.
    fn spell(&mut self, rng: &mut Rng, project: usize, weather: Weather) {
        let from = self.moment(rng);
        let until = from + Duration::from_millis(rng.u64(100..90_000));
        self.turns.push((from, Turn::Weather(project, weather)));
        self.turns.push((
            until.min(self.heal_at),
            Turn::Weather(project, Weather::default()),
        ));
    }

    fn moment(&self, rng: &mut Rng) -> Duration {
        self.heal_at * rng.u32(0..1_000) / 1_000
    }
}

fn rate_limit(rng: &mut Rng) -> RateLimit {
    if rng.u8(0..8) > 0 {
        return RateLimit::default();
    }
    RateLimit {
        requests_per_second: rng.bool().then(|| rng.u32(1..20)),
        events_per_second: rng.bool().then(|| rng.u32(1..20)),
    }
}
