//! The promises (design.md sections 1 and 2), checked against what reached the API, the dead letters and the account.

use super::fault::LONE;
use super::plan::Turn;
use super::record::{self, Event, Kind};
use super::world::{Memory, Sent, World};
use crate::courier::TokenCounts;
use crate::ids;
use crate::sandbox::{EvalRow, TaskRow};
use crate::spool::DeadLetter;
use std::collections::BTreeMap;
use std::time::Duration;

/// A settle is durable so long after the answer that it is for, if nothing has to be confirmed.
const SETTLED_WITHIN: Duration = Duration::from_millis(200);
/// What is accepted is delivered so long after it, if nothing is wrong with its project.
const SERVED_WITHIN: Duration = Duration::from_secs(90);

/// Where something was accepted, where the API took it, and its number.
type Place = (u64, u64, usize);

struct Case<'a> {
    world: &'a World,
    memory: &'a Memory,
    tasks: BTreeMap<String, TaskRow>,
    evals: Vec<EvalRow>,
    dead: Vec<DeadLetter>,
    events: BTreeMap<usize, Copies>,
    notes: BTreeMap<usize, Copies>,
    broken: Vec<String>,
}

/// How often an event or a feedback was accepted, but for what was a dead letter and was queued again: that counts as
/// accepted where it was queued.
#[derive(Debug, Clone, Copy)]
struct Copies {
    /// The first of them.
    seq: u64,
    /// Those that can be stored.
    good: usize,
    bad: usize,
}

/// Checks all of it, at the end.
pub(super) fn all(world: &World) {
    let mut memory = world.memory();
    let mut case = Case {
        world,
        memory: &memory,
        tasks: world
            .api
            .tasks(None)
            .into_iter()
            .map(|task| (task.task_id.clone(), task))
            .collect(),
        evals: world.api.evals(None),
        dead: world.disk.look().dead.values().cloned().collect(),
        events: BTreeMap::new(),
        notes: BTreeMap::new(),
        broken: Vec::new(),
    };
    case.number();
    case.account();
    case.events();
    case.order();
    case.order_of_storing();
    case.notes();
    case.bounds();
    let surprises = world.api.state().surprises;
    let broken = case.broken;
    memory.broken.extend(broken);
    memory
        .broken
        .extend(surprises.into_iter().map(|what| format!("surprise: {what}")));
}

/// Checks that a project with which nothing is wrong is served whatever happens to the others.
pub(super) fn bystanders(world: &World) {
    let now = world.now();
    let mut memory = world.memory();
    let started = memory.ends.last().copied().unwrap_or_default();
    if now < started + SERVED_WITHIN {
        return;
    }
    let calm = world
        .plan
        .turns
        .iter()
        .filter(|(at, _)| *at + SERVED_WITHIN < now);
    for (_, turn) in calm {
        let super::plan::Turn::Append(entries) = turn else {
            continue;
        };
        for entry in entries {
            let super::plan::Entry::Event(nr) = entry else {
                continue;
            };
            let event = &world.plan.events[*nr];
            // A firewall that dislikes some of its own may have it wait.
            let own = world
                .plan
                .events
                .iter()
                .filter(|other| other.project == event.project);
            let good = own.into_iter().all(|other| other.kind != Kind::Evil);
            if good && world.plan.projects[event.project].calm && !world.is_stored(&event.task) {
                memory.broken.push(format!(
                    "event {nr} is not served, and nothing is wrong with its project"
                ));
            }
        }
    }
}

impl Case<'_> {
    fn say(&mut self, what: String) {
        self.broken.push(what);
    }

    fn number(&mut self) {
        let disk = self.world.disk.look();
        for (&seq, (lane, record)) in disk.records.iter().filter(|(seq, _)| !disk.revived.contains(seq)) {
            let (of, good) = match lane.kind {
                ids::Kind::Log => {
                    let nr = record::events_in(record)[0];
                    let event = &self.world.plan.events[nr];
                    let good = reason_of(event.kind, self.world.plan.token_counts).is_none()
                        || event.mended == **record;
                    (self.events.entry(nr), good)
                }
                ids::Kind::Feedback => {
                    let nr = record::note_in(record).expect("notes");
                    (self.notes.entry(nr), true)
                }
            };
            let copies = of.or_insert(Copies { seq, good: 0, bad: 0 });
            copies.good += usize::from(good);
            copies.bad += usize::from(!good);
        }
        drop(disk);
        let (events, notes) = (self.world.plan.events.len(), self.world.plan.notes.len());
        if (self.events.len(), self.notes.len()) != (events, notes) {
            self.say(format!(
                "{} of {events} events and {} of {notes} feedbacks were accepted",
                self.events.len(),
                self.notes.len()
            ));
        }
    }

    fn account(&mut self) {
        let (spool, _beat) = crate::spool::Spool::simulated(&self.world.disk);
        let ledger = spool.ledger();
        let disk = self.world.disk.look();
        let accepted = (disk.records.len() - disk.revived.len()) as u64;
        drop(disk);
        let dead = self.dead.len() as u64;
        if !ledger.balances() || ledger.queued > 0 || ledger.accepted != accepted || ledger.dead != dead {
            self.say(format!(
                "the account does not add up: {ledger:?}, {accepted} accepted, {dead} dead"
            ));
        }
    }

    fn graves(&self, kind: ids::Kind, nr: usize) -> Vec<&DeadLetter> {
        let of = |letter: &&DeadLetter| {
            letter.lane.kind == kind
                && match kind {
                    ids::Kind::Log => record::events_in(&letter.record) == [nr],
                    ids::Kind::Feedback => record::note_in(&letter.record) == Some(nr),
                }
        };
        self.dead.iter().filter(of).collect()
    }

    fn events(&mut self) {
        for (&nr, &Copies { good, bad, .. }) in &self.events.clone() {
            let event = &self.world.plan.events[nr];
            let graves: Vec<String> = self
                .graves(ids::Kind::Log, nr)
                .iter()
                .map(|letter| letter.burial.reason.clone())
                .collect();
            let task = self.tasks.get(&event.task);
            let own = task.is_some_and(|task| {
                let stored = record::events_in(task.raw.as_bytes())[0];
                self.world.plan.events[stored].task == event.task
                    && task.project_id == format!("p{}", event.project)
            });
            // What is stored under a task once counts for a bad copy of it too.
            let buried = if good == 0 {
                graves.len() == bad
            } else {
                graves.len() <= bad
            };
            let reason = reason_of(event.kind, self.world.plan.token_counts).unwrap_or_default();
            let told = graves.iter().all(|grave| grave.contains(reason));
            // What a firewall dislikes is given up, or stored once there is none any more.
            let fine = match event.kind {
                Kind::Evil if good == 0 => (own || buried) && graves.len() <= bad,
                _ => own == (good > 0) && buried,
            };
            if !fine || task.is_some() != own || !told {
                self.say(format!(
                    "event {nr} ({:?}), accepted {good} times good and {bad} times bad, is {} and dead for {graves:?}",
                    event.kind,
                    if task.is_some() { "stored" } else { "not stored" },
                ));
            }
            self.resends(nr, event);
        }
    }

    /// What is stored is sent again only where the daemon cannot know that.
    fn resends(&mut self, nr: usize, event: &Event) {
        let plan = &self.world.plan;
        let sent = &self.memory.events[nr].sent;
        let siblings = plan.events.iter().filter(|other| other.task == event.task);
        let Copies { good, bad, .. } = self.events[&nr];
        if siblings.count() > 1 || good + bad > 1 {
            return;
        }
        // Where the last event of a batch is refused alone, nobody can tell by it that the others are stored.
        let own = plan.events.iter().filter(|other| other.project == event.project);
        let looks = plan.confirms() && own.clone().all(|other| other.kind != Kind::InLog);
        for (at, again) in sent.iter().enumerate().filter(|(_, again)| again.was_stored) {
            let in_doubt = |before: &Sent| {
                let lied = before.status == 500;
                // After a connection that closed it is looked for at once, before what is stored late is there.
                let unseen = !looks || plan.stores_late();
                // What was lost and is repaired is not looked for longer than others lately needed to be stored.
                let hurried = at > 1 && plan.loses && plan.stores_late();
                hurried || before.run < again.run || lied || before.answered.is_none() && unseen
            };
            if !sent[..at].iter().any(in_doubt) {
                self.broken.push(format!(
                    "event {nr} was sent again when it was stored and that could be known: {sent:?}"
                ));
            }
        }
    }

    /// The events of a session are taken in the order of acceptance; with one stream those of a project.
    fn order(&mut self) {
        let plan = &self.world.plan;
        let mut rows: BTreeMap<(usize, String), Vec<Place>> = BTreeMap::new();
        for (nr, (event, facts)) in plan.events.iter().zip(&self.memory.events).enumerate() {
            let (Some(copies), Some(place)) = (self.events.get(&nr), facts.place) else {
                continue;
            };
            let compared = facts.early || facts.lone >= LONE;
            let is_good = matches!(event.kind, Kind::Good | Kind::Curable)
                && reason_of(event.kind, plan.token_counts).is_none();
            if !is_good || compared || self.is_slandered(event.project) {
                continue;
            }
            let row = match event.session {
                _ if plan.concurrency == 1 => String::new(),
                Some(session) => format!("session {session}"),
                None => format!("task {}", event.task),
            };
            rows.entry((event.project, row))
                .or_default()
                .push((copies.seq, place, nr));
        }
        for ((project, row), mut places) in rows {
            places.sort_unstable();
            if !places.is_sorted_by_key(|&(_, place, _)| place) {
                self.say(format!("project {project} {row} is out of order: {places:?}"));
            }
        }
    }

    /// Where the only batches that the API loses are those with events that break its tokenizer, the events of a session are not
    /// only sent but also stored in order: no batch is known to be lost later than the next of its sessions is sent.
    fn order_of_storing(&mut self) {
        let plan = &self.world.plan;
        let known = |event: &Event| matches!(event.kind, Kind::Good | Kind::Curable);
        let disturbs = |turn: &Turn| matches!(turn, Turn::Lose | Turn::Kill(_) | Turn::Shutdown(_));
        if plan.token_counts == TokenCounts::Never
            || !plan.confirms()
            || !plan.events.iter().all(known)
            || plan.turns.iter().any(|(_, turn)| disturbs(turn))
        {
            return;
        }
        let mut rows: BTreeMap<(usize, u8), Vec<(u64, u64)>> = BTreeMap::new();
        for (nr, event) in plan.events.iter().enumerate() {
            let shared = plan
                .events
                .iter()
                .filter(|other| other.task == event.task)
                .count()
                > 1;
            // What failed alone is tried beside another, which then passes first.
            let facts = &self.memory.events[nr];
            let compared = facts.early || facts.lone >= LONE;
            let (Some(copies), Some(task), false) = (
                self.events.get(&nr),
                self.tasks.get(&event.task),
                shared || compared,
            ) else {
                continue;
            };
            let row = event.session.filter(|_| plan.concurrency > 1);
            if event.session.is_some() || plan.concurrency == 1 {
                let rows = rows.entry((event.project, row.unwrap_or(u8::MAX))).or_default();
                rows.push((copies.seq, task.position));
            }
        }
        for ((project, row), mut places) in rows {
            places.sort_unstable();
            if !places.is_sorted_by_key(|&(_, position)| position) {
                self.say(format!(
                    "project {project} session {row} is stored out of order: {places:?}"
                ));
            }
        }
    }

    /// Whether faults and poison together may make a good event look like poison, which is then tried beside its neighbour.
    fn is_slandered(&self, project: usize) -> bool {
        let events = self.world.plan.events.iter().zip(&self.memory.events);
        let mut own = events.filter(|(event, _)| event.project == project);
        let poisoned = own.clone().any(|(event, _)| event.kind == Kind::Fails);
        poisoned && own.any(|(_, facts)| facts.slandered > 0)
    }

    fn notes(&mut self) {
        for (&nr, copies) in &self.notes.clone() {
            let copies = copies.good;
            let note = &self.world.plan.notes[nr];
            let graves: Vec<String> = self
                .graves(ids::Kind::Feedback, nr)
                .iter()
                .map(|letter| letter.burial.reason.clone())
                .collect();
            let rows = self.evals.iter().filter(|row| {
                row.task_id == note.task
                    && row
                        .notes
                        .as_deref()
                        .and_then(|notes| record::note_in(format!("\"notes\":\"{notes}").as_bytes()))
                        == Some(nr)
            });
            let rows = rows.count();
            let log = |event: &&Event| {
                event.task == note.task && reason_of(event.kind, self.world.plan.token_counts).is_some()
            };
            let mended = |(nr, _): &(usize, _)| {
                let evil = self.world.plan.events[*nr].kind == Kind::Evil;
                self.events.get(nr).is_some_and(|copies| copies.good > 0)
                    || evil && self.tasks.contains_key(&note.task)
            };
            let events = self.world.plan.events.iter().enumerate();
            if events.filter(|(_, event)| log(event)).any(|event| mended(&event)) {
                // Whether its log was mended before it was given up is a matter of moments.
                if rows + graves.len() < copies {
                    self.say(format!("feedback n{nr}, accepted {copies} times, counts {rows} times and is dead for {graves:?}"));
                }
                continue;
            }
            let has_task = self.tasks.contains_key(&note.task);
            let late = self.came_late(nr);
            let wish: &[&str] = match () {
                () if note.too_large && has_task => &["413"],
                () if note.too_large => &["413", "the API has no task"],
                () if !has_task => &["the API has no task"],
                () => &[],
            };
            let told = |grave: &String| wish.iter().any(|reason| grave.contains(reason));
            let buried = rows == 0 && graves.len() == copies && graves.iter().all(told);
            let evil = |grave: &String| grave.contains("between here and the API") || told(grave);
            match () {
                () if note.evil && rows + graves.len() >= copies && graves.iter().all(evil) => {}
                () if !wish.is_empty() && buried => {}
                () if late && rows + graves.len() == copies => {}
                () if !wish.is_empty() || rows < copies || !graves.is_empty() => {
                    self.say(format!("feedback n{nr}, accepted {copies} times, counts {rows} times and is dead for {graves:?}"));
                }
                () if rows > copies => self.doubles(nr),
                () => {}
            }
        }
        self.order_of_notes();
    }

    /// Whether a log that was accepted after the feedback about it reached the API only after `feedback.wait_max`.
    fn came_late(&self, nr: usize) -> bool {
        let note = &self.world.plan.notes[nr];
        let Some(copies) = self.notes.get(&nr) else {
            return false;
        };
        // After a restart the task is looked for at once, and the time counts from then on.
        let ends = &self.memory.ends;
        let last_start = ends.len().checked_sub(2).map(|last| ends[last]);
        let first = self.memory.notes[nr].left().or(last_start).unwrap_or_default();
        let events = self.world.plan.events.iter().enumerate();
        let mut logs = events.filter(|(_, event)| event.task == note.task).peekable();
        logs.peek().is_some()
            && logs.all(|(event, _)| {
                let sent = self.memory.events[event].sent.iter();
                // The API may have lost it before.
                let taken = sent.filter_map(|sent| sent.effect).max();
                copies.seq < self.events[&event].seq
                    && taken.is_none_or(|taken| taken >= first + self.world.plan.wait_max)
            })
    }

    /// Feedback may count twice only if the daemon ended before the first answer was settled on disk, or if the
    /// upstream has no route to read it back after an answer that was lost.
    fn doubles(&mut self, nr: usize) {
        let sent = &self.memory.notes[nr].sent;
        let effects: Vec<&Sent> = sent.iter().filter(|sent| sent.effect.is_some()).collect();
        for (at, again) in effects.iter().enumerate() {
            let known = |before: &&&Sent| {
                let end = self.memory.ends.get(before.run).copied().unwrap_or(Duration::MAX);
                match before.answered {
                    Some(answered) => before.run == again.run || answered + SETTLED_WITHIN < end,
                    None => before.run == again.run && self.world.plan.readable,
                }
            };
            if effects[..at].iter().any(|before| known(&before)) {
                self.broken.push(format!("feedback n{nr} counts twice: {sent:?}"));
            }
        }
    }

    /// Feedback of one task counts in the order of acceptance.
    fn order_of_notes(&mut self) {
        let mut tasks: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
        for (&nr, copies) in &self.notes {
            if let Some(place) = self.memory.notes[nr].place {
                let task = &self.world.plan.notes[nr].task;
                tasks.entry(task).or_default().push((copies.seq, place, nr));
            }
        }
        for (task, mut places) in tasks {
            places.sort_unstable();
            if !places.is_sorted_by_key(|&(_, place, _)| place) {
                self.broken
                    .push(format!("feedback of task {task} is out of order: {places:?}"));
            }
        }
    }

    /// Nobody is hammered.
    fn bounds(&mut self) {
        let runs = self.memory.ends.len() as u64;
        let records = (self.world.plan.events.len() + self.world.plan.notes.len()) as u64;
        let faults: u64 = self.memory.faults.values().sum();
        let most = 60 + 40 * records * runs + 4 * faults;
        if self.memory.requests > most {
            let requests = self.memory.requests;
            self.say(format!(
                "{requests} requests for {records} events and feedbacks, {runs} runs, {faults} faults"
            ));
        }
    }
}

/// What the dead letter of such an event says; `None` if it must be stored.
fn reason_of(kind: Kind, counts: TokenCounts) -> Option<&'static str> {
    match kind {
        Kind::Curable if counts == TokenCounts::Never => Some("never stored"),
        Kind::Good | Kind::Curable | Kind::Stuck => None,
        Kind::Lost => Some("never stored"),
        Kind::Refused => Some("422"),
        Kind::Fails => Some("500"),
        Kind::InLog => Some("flag"),
        Kind::TooLarge => Some("too large"),
        Kind::Evil => Some("between here and the API"),
    }
}
