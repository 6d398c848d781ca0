//! Carries a schedule out: starts, kills and restarts the daemon's couriers, and sends as clients do.

use super::check;
use super::plan::{Entry, Key, Plan, Turn};
use super::record;
use super::world::{World, key_text};
use super::{Report, fault::Weather};
use crate::backoff::Backoff;
use crate::board::Board;
use crate::courier::{self, CourierError, Settings};
use crate::ids::{Kind, Lane, ProjectId};
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::spool::{Entry as Queued, MAX_LETTERS, Revived, Spool};
use crate::upstream::Upstream;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The longest that it may take, once all is mended, until nothing is queued.
const PATIENCE: Duration = Duration::from_secs(8 * 3_600);

/// Runs the schedule of a seed.
pub(super) fn run(seed: u64, verbose: bool) -> Report {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let world = Arc::new(World::new(seed, Plan::new(seed), verbose));
        world.note(|| {
            let plan = &world.plan;
            format!(
                "{:?} {:?} {}/{} {:?} feedback {} confirm {} readable {} wait {:?} small {} loses {}",
                plan.projects,
                plan.batch,
                plan.concurrency,
                plan.max_in_flight,
                plan.rate_limit,
                plan.feedback_concurrency,
                plan.confirm,
                plan.readable,
                plan.wait_max,
                plan.small_bodies,
                plan.loses
            )
        });
        let restarts = Driver::new(&world).drive().await;
        check::all(&world);
        let mut memory = world.memory();
        Report {
            hash: memory.hash.finish(),
            requests: memory.requests,
            events: world.disk.look().records.len() as u64,
            restarts,
            again: memory.again(),
            faults: std::mem::take(&mut memory.faults),
            broken: std::mem::take(&mut memory.broken),
            trace: std::mem::take(&mut memory.trace),
        }
    })
}

struct Daemon {
    spool: Spool,
    beat: JoinHandle<()>,
    couriers: JoinHandle<Result<(), CourierError>>,
    stop: oneshot::Sender<()>,
}

struct Driver {
    world: Arc<World>,
    settings: watch::Sender<Arc<Settings>>,
    keys: Vec<Key>,
    /// Appends that have no answer yet.
    appends: Vec<(Vec<Entry>, JoinHandle<bool>)>,
}

impl Driver {
    fn new(world: &Arc<World>) -> Driver {
        let keys: Vec<Key> = world.plan.projects.iter().map(|project| project.key).collect();
        Driver {
            world: Arc::clone(world),
            settings: watch::Sender::new(Arc::new(settings(world, &keys))),
            keys,
            appends: Vec::new(),
        }
    }

    async fn drive(mut self) -> u64 {
        let world = Arc::clone(&self.world);
        let mut daemon = self.start();
        let mut restarts = 0;
        for (at, turn) in world.plan.turns.clone() {
            sleep(at.saturating_sub(world.now())).await;
            world.note(|| format!("{turn:?}"));
            match turn {
                Turn::Append(entries) => self.append(&daemon.spool, entries),
                Turn::Kill(pause) => {
                    restarts += 1;
                    *world.memory().faults.entry("kill").or_default() += 1;
                    daemon = self.kill(daemon, pause).await;
                }
                Turn::Shutdown(pause) => {
                    restarts += 1;
                    self.shut_down(daemon).await;
                    sleep(pause).await;
                    daemon = self.again().await;
                }
                Turn::Weather(project, weather) => world.weather(project, weather),
                Turn::Mend(project) => self.mend(project),
                Turn::Requeue(mend) => self.requeue(&daemon.spool, mend).await,
                Turn::Lose => world.api.adjust(|switches| switches.lose += 1),
                Turn::StoreLate(ms) => world.api.adjust(|switches| switches.store_delay_ms = ms),
            }
        }
        sleep(world.plan.heal_at.saturating_sub(world.now())).await;
        if world.plan.is_roomy() {
            check::bystanders(&world);
        }
        world.note(|| "mended".into());
        world.healed();
        for project in 0..world.plan.projects.len() {
            world.weather(project, Weather::default());
        }
        world.api.adjust(|switches| switches.lose = 0);
        let mut waited = Duration::ZERO;
        while daemon.spool.ledger().queued > 0 || self.appends.iter().any(|(_, task)| !task.is_finished()) {
            if daemon.couriers.is_finished() || waited > PATIENCE {
                let ledger = daemon.spool.ledger();
                let what = format!("not delivered {waited:?} after all was mended: {ledger:?}");
                world.memory().broken.push(what);
                break;
            }
            // The longer, the less it matters when exactly.
            let step = (waited / 8).max(Duration::from_millis(500));
            sleep(step).await;
            waited += step;
        }
        let requests = world.memory().requests;
        sleep(Duration::from_secs(300)).await;
        if world.memory().requests != requests {
            world
                .memory()
                .broken
                .push("requests when nothing is queued".into());
        }
        self.shut_down(daemon).await;
        restarts
    }

    fn start(&self) -> Daemon {
        let (spool, beat) = Spool::simulated(&self.world.disk);
        let (stop, stopped) = oneshot::channel();
        let board = Board::default();
        self.world.run_began(&board);
        let couriers = courier::run(
            spool.clone(),
            self.settings.subscribe(),
            board,
            Arc::new(Metrics::new()),
            courier::pulse().1,
            async { drop(stopped.await) },
            self.world.plan.grace,
        );
        Daemon {
            spool,
            beat: tokio::spawn(beat),
            couriers: tokio::spawn(couriers),
            stop,
        }
    }

    /// Starts after an end; clients send again what they have no answer to.
    async fn again(&mut self) -> Daemon {
        self.world.note(|| "started again".into());
        let daemon = self.start();
        for (entries, task) in std::mem::take(&mut self.appends) {
            if task.await.unwrap_or(false) {
                continue;
            }
            let disk = self.world.disk.clone();
            let missing =
                entries.into_iter().filter(|entry| {
                    let Entry::Note(nr) = entry else { return true };
                    // A client that sends feedback twice means it.
                    !disk.look().records.values().any(|(lane, record)| {
                        lane.kind == Kind::Feedback && record::note_in(record) == Some(*nr)
                    })
                });
            self.append(&daemon.spool, missing.collect());
        }
        daemon
    }

    async fn kill(&mut self, daemon: Daemon, pause: Duration) -> Daemon {
        daemon.beat.abort();
        daemon.couriers.abort();
        let _ = daemon.beat.await;
        let _ = daemon.couriers.await;
        drop(daemon.spool);
        self.world.run_ended();
        sleep(pause.max(Duration::from_millis(1))).await;
        self.again().await
    }

    async fn shut_down(&mut self, daemon: Daemon) {
        let early = daemon.couriers.is_finished();
        let _ = daemon.stop.send(());
        let end = daemon.couriers.await;
        if early || !matches!(end, Ok(Ok(()))) {
            let what = format!("the couriers ended by themselves: {end:?}");
            self.world.memory().broken.push(what);
        }
        self.world.note(|| "couriers ended".into());
        daemon.spool.close().await;
        let _ = daemon.beat.await;
        self.world.run_ended();
    }

    fn append(&mut self, spool: &Spool, entries: Vec<Entry>) {
        let plan = &self.world.plan;
        let queued = entries
            .iter()
            .map(|entry| match entry {
                Entry::Event(nr) => {
                    let event = &plan.events[*nr];
                    queued(Kind::Log, event.project, &event.record)
                }
                Entry::Note(nr) => {
                    let note = &plan.notes[*nr];
                    queued(Kind::Feedback, note.project, &note.record)
                }
            })
            .collect();
        let spool = spool.clone();
        let task = tokio::spawn(async move { spool.append(queued).await.is_ok() });
        self.appends.retain(|(_, task)| !task.is_finished());
        self.appends.push((entries, task));
    }

    /// Queues all dead letters again.
    async fn requeue(&self, spool: &Spool, mend: bool) {
        let page = spool.dead_letters(None, MAX_LETTERS).await.expect("a page");
        let letters = page.letters.into_iter().map(|kept| {
            let letter = kept.letter.expect("a letter");
            let record = match letter.lane.kind {
                Kind::Log if mend => {
                    let nr = record::events_in(&letter.record)[0];
                    self.world.plan.events[nr].mended.clone()
                }
                _ => letter.record,
            };
            Revived {
                number: kept.number,
                lane: letter.lane,
                record,
            }
        });
        let letters: Vec<Revived> = letters.collect();
        if letters.is_empty() {
            return;
        }
        *self.world.memory().faults.entry("requeue").or_default() += 1;
        let gone = spool.requeue(letters).await;
        if !gone.as_ref().is_ok_and(Vec::is_empty) {
            let what = format!("letters were not queued again: {gone:?}");
            self.world.memory().broken.push(what);
        }
    }

    fn mend(&mut self, project: usize) {
        self.world.mended();
        self.keys[project] = Key::Good;
        self.settings
            .send_replace(Arc::new(settings(&self.world, &self.keys)));
    }
}

fn queued(kind: Kind, project: usize, record: &[u8]) -> Queued {
    Queued::Queued {
        lane: Lane {
            project: name(project),
            kind,
        },
        record: record.to_vec(),
    }
}

fn name(project: usize) -> ProjectId {
    ProjectId::new(&format!("p{project}")).expect("an id")
}

fn settings(world: &Arc<World>, keys: &[Key]) -> Settings {
    let plan = &world.plan;
    let project_keys = keys.iter().enumerate().filter_map(|(project, key)| {
        let key = key_text(*key, project)?;
        Some((name(project), Secret::new(&key)?))
    });
    let asked = Arc::clone(world);
    Settings {
        batch: plan.batch,
        backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(60)).expect("bounds"),
        confirm: plan.confirm,
        confirm_patience: Duration::from_millis(3_400),
        token_counts: plan.token_counts,
        concurrency: plan.concurrency,
        max_in_flight: plan.max_in_flight,
        rate_limit: plan.rate_limit,
        feedback_wait_max: plan.wait_max,
        feedback_concurrency: plan.feedback_concurrency,
        default_key: None,
        project_keys: project_keys.collect(),
        upstream: Upstream::scripted(Duration::from_secs(30), move |ask| Arc::clone(&asked).ask(ask)),
    }
}
