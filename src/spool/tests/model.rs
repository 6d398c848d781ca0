//! Random steps against a simple model: nothing lost, doubled or out of order, and the ledger adds up.
use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Steps of one run.
const STEPS: usize = 1_000;

/// Four runs; `PHOSPHOD_SEED` adds one of its own.
fn seeds() -> Vec<u64> {
    let own = std::env::var("PHOSPHOD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> = (1..=4).chain(own).collect();
    println!("model: seeds {seeds:?}, {STEPS} steps each");
    seeds
}

/// Small generations, so that many come and go, and what little is live in them is moved on.
fn small(path: &Path) -> Settings {
    Settings {
        generation_bytes: 1 << 20,
        ..settings(path)
    }
}

/// What should be true of one lane.
#[derive(Default)]
struct Expected {
    /// Waiting to be leased, by sequence.
    waiting: BTreeMap<u64, Vec<u8>>,
    leased: Vec<Leased>,
}

/// Takes what a kill -9 would leave, on the owning thread, so that nothing changes meanwhile.
#[derive(Default)]
struct Camera {
    /// What to copy, while copies are wanted.
    folder: Mutex<Option<PathBuf>>,
    copy: Mutex<Option<TempDir>>,
}

impl Camera {
    fn disk(self: &Arc<Camera>) -> Disk {
        let camera = Arc::clone(self);
        Disk {
            sync_data: Arc::new(move |file: &std::fs::File| {
                let synced = file.sync_data();
                if let Some(folder) = &*locked(&camera.folder) {
                    *locked(&camera.copy) = Some(killed(folder));
                }
                synced
            }),
            ..Disk::real()
        }
    }
}

struct World {
    camera: Arc<Camera>,
    folder: TempDir,
    spool: Spool,
    lanes: Vec<(Lane, Expected)>,
    ledger: Ledger,
    next_seq: u64,
    dead: BTreeSet<u64>,
}

impl World {
    async fn append(&mut self, random: &mut fastrand::Rng) {
        let mut entries = Vec::new();
        // The order in which one append gives out sequences: logs by lane, then feedback by lane.
        let mut new: Vec<(usize, Vec<u8>)> = Vec::new();
        for _ in 0..random.usize(1..40) {
            let lane = random.usize(..self.lanes.len());
            let len = if random.u8(..) == 0 {
                random.usize(..200_000)
            } else {
                random.usize(..2_000)
            };
            let record: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            entries.push(queued(&self.lanes[lane].0, record.clone()));
            new.push((lane, record));
        }
        let n = entries.len() as u64;
        self.spool.append(entries).await.unwrap();
        self.ledger.accepted += n;
        self.ledger.queued += n;
        // Which lane comes first among logs is the spool's affair, so the model reads the sequences back on lease.
        for (lane, record) in new {
            let expected = &mut self.lanes[lane].1;
            let key = self.next_seq;
            self.next_seq += 1;
            expected.waiting.insert(key, record);
        }
    }

    async fn lease(&mut self, random: &mut fastrand::Rng) {
        let at = random.usize(..self.lanes.len());
        let lane = self.lanes[at].0.clone();
        let got = self.spool.lease(&lane, &limits(random.usize(1..60))).await;
        let expected = &mut self.lanes[at].1;
        if lane.kind == Kind::Log {
            assert_eq!(got.is_empty(), expected.waiting.is_empty());
        }
        for event in got {
            let (_, record) = expected.waiting.pop_first().unwrap();
            assert!(
                event.record() == &record,
                "lane {lane}: event {} is another",
                event.seq()
            );
            expected.leased.push(event);
        }
    }

    /// Ends or gives back a random part of what a lane has leased.
    async fn end(&mut self, random: &mut fastrand::Rng) {
        let at = random.usize(..self.lanes.len());
        let lane = self.lanes[at].0.clone();
        let expected = &mut self.lanes[at].1;
        let some: Vec<Leased> = match random.u8(0..3) {
            // All of them are released: part of them would not come back in the model's own order.
            0 => {
                let all = std::mem::take(&mut expected.leased);
                let mut back: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
                let floor = expected.waiting.keys().next().copied().unwrap_or(self.next_seq);
                let mut sorted: Vec<&Leased> = all.iter().collect();
                sorted.sort_by_key(|event| event.seq());
                for (n, event) in (floor - sorted.len() as u64..).zip(sorted) {
                    back.insert(n, event.record().to_vec());
                }
                expected.waiting.extend(back);
                self.spool.release(&lane, all).await;
                return;
            }
            _ => expected.leased.extract_if(.., |_| random.bool()).collect(),
        };
        let n = some.len() as u64;
        self.ledger.queued -= n;
        if random.u8(..) < 64 {
            self.ledger.dead += n;
            self.dead.extend(some.iter().map(|event| event.seq().0));
            let buried = some.into_iter().map(|event| (event, burial("model"))).collect();
            self.spool.bury(&lane, buried).await;
        } else {
            self.ledger.delivered += n;
            self.spool.settle(&lane, some).await;
        }
    }

    /// Stops or is killed; what was leased is waiting again.
    async fn reopen(&mut self, kill: bool) {
        if kill {
            // Durable before the kill, so that the model knows what comes back.
            *locked(&self.camera.folder) = Some(self.folder.path().to_owned());
            commit(&self.spool).await;
            *locked(&self.camera.folder) = None;
            self.ledger.accepted += 1;
            self.ledger.queued += 1;
            self.next_seq += 1;
            let copy = locked(&self.camera.copy).take().unwrap();
            self.spool.close().await;
            self.folder = copy;
        } else {
            self.spool.close().await;
        }
        self.spool = Spool::open_on(small(self.folder.path()), self.camera.disk()).unwrap();
        for (_, expected) in &mut self.lanes {
            let mut leased = std::mem::take(&mut expected.leased);
            leased.sort_by_key(|event| event.seq());
            let floor = expected.waiting.keys().next().copied().unwrap_or(self.next_seq);
            for (n, event) in (floor - leased.len() as u64..).zip(&leased) {
                expected.waiting.insert(n, event.record().to_vec());
            }
        }
        assert_eq!(self.spool.ledger(), self.ledger);
    }
}

#[tokio::test]
async fn random_steps_with_kills_lose_and_double_nothing() {
    for seed in seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let camera = Arc::new(Camera::default());
        let spool = Spool::open_on(small(folder.path()), camera.disk()).unwrap();
        let names = [logs("a"), feedback("a"), logs("b"), feedback("c")];
        let lanes = names
            .map(|lane| (lane, Expected::default()))
            .into_iter()
            .collect();
        // Model keys start high: what comes back goes below what waits.
        let mut world = World {
            camera,
            folder,
            spool,
            lanes,
            ledger: Ledger::default(),
            next_seq: 1 << 40,
            dead: BTreeSet::new(),
        };
        for _ in 0..STEPS {
            match random.u8(0..20) {
                0..7 => world.append(&mut random).await,
                7..14 => world.lease(&mut random).await,
                14..19 => world.end(&mut random).await,
                _ => world.reopen(random.bool()).await,
            }
            assert!(world.spool.ledger().balances());
        }
        world.reopen(false).await;
        let letters = letters(&world.spool).await;
        assert_eq!(letters.len() as u64, world.ledger.dead);
        assert_eq!(
            letters.iter().map(|l| l.seq.0).collect::<BTreeSet<_>>(),
            world.dead
        );
        for at in [0, 2, 1, 3] {
            let lane = world.lanes[at].0.clone();
            while !world.lanes[at].1.waiting.is_empty() {
                let got = world.spool.lease(&lane, &limits(50)).await;
                assert!(!got.is_empty(), "seed {seed}: {lane} lost something");
                for event in &got {
                    let (_, record) = world.lanes[at].1.waiting.pop_first().unwrap();
                    assert!(
                        event.record() == &record,
                        "seed {seed}: {lane}: event {}",
                        event.seq()
                    );
                }
                world.spool.settle(&lane, got).await;
            }
            assert!(world.spool.lease(&lane, &limits(1)).await.is_empty());
        }
        world.spool.close().await;
    }
}
