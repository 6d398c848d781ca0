//! The network and the API behind it: what meets a request, and who remembers it.

use super::fault::{Fault, LONE, Weather};
use super::plan::{Key, Plan};
use super::record::{self, SMALL_BODY};
use crate::board::{Board, LaneState};
use crate::ids::{self, Lane, ProjectId};
use crate::sandbox;
use crate::spool::simulated::SimDisk;
use crate::upstream::script::Ask;
use crate::verdict::{Answer, Failure, FailureKind, Outcome};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// Requests at which a run is taken to turn in circles; none is answered any more.
const TOO_MANY: u64 = 50_000;

/// One time that an event or a feedback was sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent {
    /// In which run of the daemon.
    pub(super) run: usize,
    /// Whether its task was stored when it was sent.
    pub(super) was_stored: bool,
    /// When it left.
    pub(super) left: Duration,
    /// When the API took it.
    pub(super) effect: Option<Duration>,
    /// When the daemon had a usable answer.
    pub(super) answered: Option<Duration>,
    /// With what status.
    pub(super) status: u16,
}

/// What is known of one event or feedback.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) sent: Vec<Sent>,
    /// Its place among all that the API took, the first time.
    pub(super) place: Option<u64>,
    /// How often a fault made it look like poison.
    pub(super) slandered: u32,
    /// What it met alone ([`Fault::lone`]).
    pub(super) lone: u32,
    /// It was sent alone while another of its project was held for such a fault.
    pub(super) early: bool,
}

impl Facts {
    /// When it was sent first.
    pub(super) fn left(&self) -> Option<Duration> {
        self.sent.first().map(|sent| sent.left)
    }
}

/// What there is to remember.
pub(super) struct Memory {
    pub(super) events: Vec<Facts>,
    pub(super) notes: Vec<Facts>,
    /// When each run of the daemon ended.
    pub(super) ends: Vec<Duration>,
    pub(super) requests: u64,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) broken: Vec<String>,
    pub(super) trace: Vec<String>,
    pub(super) hash: DefaultHasher,
    weather: Vec<Weather>,
    taken: u64,
    /// Tasks with feedback on its way.
    in_flight: BTreeSet<String>,
    /// What parked lanes sent.
    probes: BTreeMap<Lane, Probes>,
    /// How often the settings changed.
    mended: u32,
    /// All is mended, firewalls as well.
    healed: bool,
    /// The API has dropped a connection that the next request may go to.
    dropped: bool,
    rng: Rng,
    verbose: bool,
}

/// What a lane sent since it was parked.
#[derive(Debug, Default)]
struct Probes {
    since: Duration,
    sent: u32,
    in_flight: u32,
    mended: u32,
}

/// Network and API.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) api: sandbox::Handle,
    pub(super) disk: SimDisk,
    board: Mutex<Board>,
    began: Instant,
    memory: Mutex<Memory>,
}

/// What a request is about.
#[derive(Debug, Clone)]
enum About {
    Log(Vec<usize>),
    Feedback(usize),
    Read,
}

impl Memory {
    /// How often an event was sent that was stored.
    pub(super) fn again(&self) -> u64 {
        let sent = self.events.iter().flat_map(|facts| &facts.sent);
        sent.filter(|sent| sent.was_stored).count() as u64
    }
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, verbose: bool) -> World {
        let api = sandbox::Handle::default();
        api.adjust(|switches| {
            for (at, project) in plan.projects.iter().enumerate() {
                switches
                    .quota
                    .extend(project.quota.map(|quota| (format!("p{at}"), quota)));
            }
            if plan.small_bodies {
                switches.max_body_bytes = SMALL_BODY;
            }
        });
        let memory = Memory {
            events: vec![Facts::default(); plan.events.len()],
            notes: vec![Facts::default(); plan.notes.len()],
            ends: Vec::new(),
            requests: 0,
            faults: BTreeMap::new(),
            broken: Vec::new(),
            trace: Vec::new(),
            hash: DefaultHasher::new(),
            weather: vec![Weather::default(); plan.projects.len()],
            taken: 0,
            in_flight: BTreeSet::new(),
            probes: BTreeMap::new(),
            mended: 0,
            healed: false,
            dropped: false,
            rng: Rng::with_seed(seed ^ 0x5eed),
            verbose,
        };
        World {
            plan,
            api,
            disk: SimDisk::default(),
            board: Mutex::default(),
            began: Instant::now(),
            memory: Mutex::new(memory),
        }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("not poisoned")
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Writes down what happens.
    pub(super) fn note(&self, what: impl Fn() -> String) {
        let (now, mut memory) = (self.now(), self.memory());
        let what = what();
        (now, &what).hash(&mut memory.hash);
        if memory.verbose {
            memory.trace.push(format!("{:>10.3} {what}", now.as_secs_f64()));
        }
    }

    pub(super) fn weather(&self, project: usize, weather: Weather) {
        self.memory().weather[project] = weather;
    }

    /// The daemon runs, and shows its lanes here.
    pub(super) fn run_began(&self, board: &Board) {
        *self.board.lock().expect("not poisoned") = board.clone();
    }

    /// A person changed the settings.
    pub(super) fn mended(&self) {
        self.memory().mended += 1;
    }

    /// Nothing is in the way any more.
    pub(super) fn healed(&self) {
        self.memory().healed = true;
    }

    /// The daemon is gone.
    pub(super) fn run_ended(&self) {
        let now = self.now();
        let mut memory = self.memory();
        memory.ends.push(now);
        memory.in_flight.clear();
        memory.probes.clear();
        memory.dropped = false;
    }

    pub(super) fn is_stored(&self, task: &str) -> bool {
        self.api.task(task).is_some()
    }

    /// One attempt.
    pub(super) async fn ask(self: Arc<Self>, ask: Ask) -> Outcome {
        let project = ask.key.rsplit('-').next().expect("a part");
        let project: usize = project.parse().expect("keys end in their project");
        let about = match (&ask.body, ask.path[0].as_str()) {
            (Some(body), "log") => About::Log(record::events_in(body)),
            (Some(body), _) => About::Feedback(record::note_in(body).expect("notes")),
            (None, _) => About::Read,
        };
        let probe = self.probe(&about, project);
        let fault = self.begin(&ask, &about, project);
        self.note(|| format!("ask {:?} {} {about:?} {fault:?}", ask.path, ask.key));
        let (told, reply) = oneshot::channel();
        let run = self.memory().ends.len();
        let world = Arc::clone(&self);
        let (path, about2) = (ask.path.clone(), about.clone());
        // The API goes on when the daemon does not.
        tokio::spawn(async move {
            let _ = told.send(world.exchange(ask, &about2, run, project, fault).await);
        });
        let given_up = GivenUp {
            world: &self,
            probe,
            task: matches!(about, About::Feedback(_)).then(|| path[1].clone()),
            run,
        };
        let outcome = reply.await.expect("an outcome");
        drop(given_up);
        self.end(&path, &about, &outcome);
        outcome
    }

    /// A lane that waits for a person probes with one event at a time, and seldom. Gives the lane if this is a probe.
    fn probe(&self, about: &About, project: usize) -> Option<Lane> {
        let (kind, events) = match about {
            About::Log(events) => (ids::Kind::Log, events.len()),
            About::Feedback(_) => (ids::Kind::Feedback, 1),
            About::Read => return None,
        };
        let lane = Lane {
            project: ProjectId::new(&format!("p{project}")).expect("an id"),
            kind,
        };
        let now = self.now();
        let state = self.board.lock().expect("not poisoned").get(&lane);
        let mut memory = self.memory();
        let memory = &mut *memory;
        if !matches!(state, LaneState::Parked { .. }) {
            memory.probes.remove(&lane);
            return None;
        }
        let fresh = Probes {
            since: now,
            mended: memory.mended,
            ..Probes::default()
        };
        let probes = memory.probes.entry(lane.clone()).or_insert(fresh);
        probes.sent += 1;
        probes.in_flight += 1;
        // Waits between probes are 2 s and more, after other failures than a refusal less.
        let seconds = (now - probes.since).as_secs() as u32;
        // What was refused while another passed is tried again at once, some times.
        let most = 12 + 2 * seconds + 2 * (memory.mended - probes.mended);
        if events > 1 || probes.in_flight > 1 || probes.sent > most {
            memory.broken.push(format!(
                "at {now:?} lane {lane:?} is parked and sends {events} events, {probes:?}"
            ));
        }
        Some(lane)
    }

    fn begin(&self, ask: &Ask, about: &About, project: usize) -> Option<Fault> {
        let mut memory = self.memory();
        let memory = &mut *memory;
        memory.requests += 1;
        if memory.requests == TOO_MANY {
            memory.broken.push("it turns in circles".into());
        }
        let (run, left) = (memory.ends.len(), self.now());
        match about {
            About::Log(events) => {
                if let [nr] = events[..] {
                    let others = self.plan.events.iter().zip(&memory.events).enumerate();
                    let held = |(other, (event, facts)): (usize, (&record::Event, &Facts))| {
                        other != nr && event.project == project && facts.lone >= LONE && facts.place.is_none()
                    };
                    memory.events[nr].early |= others.into_iter().any(held);
                }
                for &nr in events {
                    let was_stored = self.is_stored(&self.plan.events[nr].task);
                    memory.events[nr].sent.push(Sent {
                        run,
                        left,
                        was_stored,
                        ..Sent::default()
                    });
                }
            }
            About::Feedback(nr) => {
                memory.notes[*nr].sent.push(Sent {
                    run,
                    left,
                    ..Sent::default()
                });
                if !memory.in_flight.insert(ask.path[1].clone()) {
                    memory
                        .broken
                        .push(format!("two feedbacks of task {} were sent at once", ask.path[1]));
                }
                self.check_gate(memory, *nr);
            }
            About::Read => {}
        }
        if memory.requests >= TOO_MANY {
            return Some(Fault::Silence);
        }
        if ask.key.starts_with("stale") {
            *memory.faults.entry("stale key").or_default() += 1;
            return Some(Fault::Status(401, None));
        }
        if std::mem::take(&mut memory.dropped) && memory.rng.bool() {
            return Some(Fault::Reset);
        }
        let fault = self.fault(ask, about, project, memory)?;
        if let About::Log(events) = about
            && let [nr] = events[..]
        {
            memory.events[nr].lone += fault.lone();
        }
        Some(fault)
    }

    /// What is in the way of a request: by what it holds, or by the weather.
    fn fault(&self, ask: &Ask, about: &About, project: usize, memory: &mut Memory) -> Option<Fault> {
        let body = ask.body.as_deref().filter(|_| !memory.healed).unwrap_or_default();
        let (name, fault) = if record::is_attack(body) {
            ("firewall", Fault::Page(403))
        } else if record::is_sluggish(body) {
            let fault = *memory
                .rng
                .choice(&[Fault::Page(504), Fault::Page(408), Fault::Silence])?;
            ("stuck", fault)
        } else {
            let fault = memory.weather[project].next(&mut memory.rng)?;
            let fault = fitting(fault, about, memory)?;
            (fault.name(), fault)
        };
        *memory.faults.entry(name).or_default() += 1;
        Some(fault)
    }

    /// No log of the feedback's project that was accepted before it may still be under way.
    fn check_gate(&self, memory: &mut Memory, nr: usize) {
        let disk = self.disk.look();
        let own = |(_, (lane, record)): &(&u64, &(Lane, bytes::Bytes))| {
            lane.kind == ids::Kind::Feedback && record::note_in(record) == Some(nr)
        };
        let Some((&seq, (lane, _))) = disk.records.iter().find(own) else {
            memory
                .broken
                .push(format!("feedback n{nr} was sent before it was on disk"));
            return;
        };
        for (before, (other, record)) in disk.records.range(..seq) {
            if other.kind != ids::Kind::Log || other.project != lane.project {
                continue;
            }
            let event = record::events_in(record)[0];
            let taken = || memory.events[event].sent.iter().any(|sent| sent.status == 200);
            // Feedback does not wait for an event that keeps failing alone while others pass.
            let deferred = memory.events[event].lone >= LONE;
            let ended = deferred
                || self.is_stored(&self.plan.events[event].task)
                || disk.revived.contains(before)
                || disk.dead.values().any(|letter| letter.seq.0 == *before)
                || !self.plan.confirms() && taken();
            if !ended {
                memory
                    .broken
                    .push(format!("feedback n{nr} was sent before event {event} had ended"));
            }
        }
    }

    async fn exchange(
        self: &Arc<Self>,
        ask: Ask,
        about: &About,
        run: usize,
        project: usize,
        fault: Option<Fault>,
    ) -> Outcome {
        self.travel().await;
        match fault {
            Some(Fault::Connect) => return failed(FailureKind::Connect),
            Some(Fault::Reset) => return failed(FailureKind::Closed),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Status(status, after)) => {
                return answered(status, after, "{\"detail\":\"a fault\"}".into());
            }
            Some(Fault::Page(status)) => {
                return answered(status, None, "<html>Sorry, you have been blocked</html>".into());
            }
            Some(Fault::Slow(seconds)) => sleep(Duration::from_secs(seconds)).await,
            _ => {}
        }
        if matches!(about, About::Read) && !self.plan.readable {
            *self.memory().faults.entry("no such route").or_default() += 1;
            return answered(404, None, "{\"detail\":\"Not Found\"}".into());
        }
        let path = format!("/v2/{}", ask.path.join("/"));
        let said = self.api.ask(&path, &format!("good-{project}"), ask.body).await;
        self.took(about, run, &said);
        self.travel().await;
        match fault {
            Some(Fault::ResetAfter) => failed(FailureKind::Closed),
            Some(Fault::SilenceAfter) => std::future::pending().await,
            Some(Fault::GarbledAfter) => failed(FailureKind::Garbled),
            Some(Fault::StatusAfter(status)) => answered(status, None, "oops".into()),
            Some(Fault::Mangled) if said.status == 200 => {
                answered(200, None, "{\"logged_events\":[]}".into())
            }
            _ => answered(said.status, None, said.body),
        }
    }

    /// Writes down what the API took.
    fn took(&self, about: &About, run: usize, said: &sandbox::Said) {
        let now = self.now();
        let mut memory = self.memory();
        let memory = &mut *memory;
        if said.then_drop {
            memory.dropped = true;
            *memory.faults.entry("batch lost").or_default() += 1;
        }
        if said.status != 200 {
            return;
        }
        match about {
            About::Log(events) => {
                for &nr in events {
                    memory.taken += 1;
                    let facts = &mut memory.events[nr];
                    facts.place.get_or_insert(memory.taken);
                    last_open(facts, run).effect = Some(now);
                }
            }
            About::Feedback(nr) => {
                memory.taken += 1;
                let facts = &mut memory.notes[*nr];
                facts.place.get_or_insert(memory.taken);
                last_open(facts, run).effect = Some(now);
            }
            About::Read => {}
        }
    }

    fn end(&self, path: &[String], about: &About, outcome: &Outcome) {
        let now = self.now();
        let status = match outcome {
            Outcome::Answered(answer) if answer.body != "{\"logged_events\":[]}" => answer.status,
            _ => 0,
        };
        self.note(|| match outcome {
            Outcome::Answered(answer) => format!("  got {path:?} {about:?}: {}", answer.status),
            Outcome::Failed(failure) => format!("  got {path:?} {about:?}: {:?}", failure.kind),
        });
        let mut memory = self.memory();
        let close = |facts: &mut Facts| {
            if let Some(sent) = facts.sent.last_mut() {
                sent.status = status;
                sent.answered = (status == 200).then_some(now);
            }
        };
        match about {
            About::Log(events) => {
                for &nr in events {
                    close(&mut memory.events[nr]);
                }
            }
            About::Feedback(nr) => {
                close(&mut memory.notes[*nr]);
            }
            About::Read => {}
        }
    }

    async fn travel(&self) {
        let ms = self.memory().rng.u64(0..30);
        sleep(Duration::from_millis(ms)).await;
    }
}

/// Knows when the daemon waits no longer for an answer.
struct GivenUp<'a> {
    world: &'a World,
    probe: Option<Lane>,
    task: Option<String>,
    run: usize,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let mut memory = self.world.memory();
        if let Some(probes) = self.probe.take().and_then(|lane| memory.probes.get_mut(&lane)) {
            probes.in_flight = probes.in_flight.saturating_sub(1);
        }
        if let Some(task) = self.task.take().filter(|_| memory.ends.len() == self.run) {
            memory.in_flight.remove(&task);
        }
    }
}

/// The attempt that the API is busy with: the last of that run of the daemon that had no effect yet.
fn last_open(facts: &mut Facts, run: usize) -> &mut Sent {
    let open = |sent: &Sent| sent.run == run && sent.effect.is_none();
    let last = |sent: &Sent| sent.run == run;
    let at = facts.sent.iter().rposition(open);
    let at = at.or(facts.sent.iter().rposition(last)).expect("it was sent");
    &mut facts.sent[at]
}

/// A fault as it can befall such a request; none where it would tell a lie that no API tells.
fn fitting(fault: Fault, about: &About, memory: &mut Memory) -> Option<Fault> {
    match (fault, about) {
        // A project that is unknown: told to log requests only.
        (Fault::Status(404, _), About::Feedback(_) | About::Read) => None,
        (Fault::Mangled | Fault::StatusAfter(_) | Fault::Page(_), About::Read) => None,
        // Again and again it means that something dislikes it.
        (fault, About::Log(events)) if events.len() == 1 && fault.lone() >= LONE => {
            (memory.events[events[0]].lone < 5 * LONE).then_some(fault)
        }
        (fault, About::Feedback(nr)) if fault.lone() >= LONE => {
            memory.notes[*nr].lone += LONE;
            (memory.notes[*nr].lone < 5 * LONE).then_some(fault)
        }
        (fault, About::Log(events)) if fault.looks_like_poison() => {
            // Once passes; again and again means poison.
            let slandered = events.iter().any(|&nr| memory.events[nr].slandered > 0);
            for &nr in events {
                memory.events[nr].slandered += u32::from(!slandered);
            }
            (!slandered).then_some(fault)
        }
        _ => Some(fault),
    }
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed(Failure {
        kind,
        detail: "a fault".into(),
    })
}

fn answered(status: u16, retry_after: Option<u64>, body: bytes::Bytes) -> Outcome {
    Outcome::Answered(Answer {
        status,
        retry_after: retry_after.map(Duration::from_secs),
        body,
    })
}

/// The key of a project, as the settings have it.
pub(super) fn key_text(key: Key, project: usize) -> Option<String> {
    match key {
        Key::Good => Some(format!("good-{project}")),
        Key::Stale => Some(format!("stale-{project}")),
        Key::Absent => None,
    }
}
