//! Leases that are held while what they are of is damaged, or the storage fails and is begun anew: each event ends once, and only
//! what nobody ended counts as lost.
use super::damage::{LANES, Truth, fill, filled, harm_in_place, newest, small};
use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::AtomicBool;

/// Longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of the events so far, by their records.
#[derive(Default)]
struct Books {
    held: Vec<(Lane, Leased)>,
    /// What is on lease, or has ended.
    taken: BTreeSet<Vec<u8>>,
    delivered: u64,
    buried: u64,
}

impl Books {
    /// Takes some of a lane, each of them known, and by nobody else.
    async fn take(&mut self, spool: &Spool, lane: &Lane, events: usize, truth: &Truth, told: &str) {
        for event in spool.lease(lane, &limits(events)).await {
            let record = event.record().to_vec();
            assert!(truth.contains_key(&record), "{told}: an event changed");
            assert!(self.taken.insert(record), "{told}: {} came twice", event.seq());
            self.held.push((lane.clone(), event));
        }
    }

    /// Ends one of the leases in one of four ways; for good, if nothing is to come back.
    async fn end(&mut self, spool: &Spool, random: &mut fastrand::Rng, for_good: bool) {
        if self.held.is_empty() {
            return;
        }
        let (lane, event) = self.held.swap_remove(random.usize(..self.held.len()));
        let record = event.record().to_vec();
        match random.usize(..if for_good { 2 } else { 4 }) {
            0 => {
                self.delivered += 1;
                spool.settle(&lane, vec![event]).await;
            }
            1 => {
                self.buried += 1;
                spool.bury(&lane, vec![(event, burial("no good"))]).await;
            }
            back => {
                self.taken.remove(&record);
                match back {
                    2 => spool.release(&lane, vec![event]).await,
                    _ => drop(event),
                }
            }
        }
    }
}

/// Time in which nothing moved. How long all takes is up to the disk.
struct Patience {
    seen: Vec<u64>,
    until: std::time::Instant,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            seen: Vec::new(),
            until: std::time::Instant::now() + PATIENCE,
        }
    }
}

impl Patience {
    /// Whether something moved within [`PATIENCE`].
    fn with(&mut self, spool: &Spool, books: &Books) -> bool {
        let mut seen = vec![books.held.len() as u64, books.delivered, books.buried];
        seen.extend(LANES.map(logs).iter().map(|lane| view(spool, lane).queued()));
        if seen != self.seen {
            *self = Self {
                seen,
                ..Self::default()
            };
        }
        std::time::Instant::now() < self.until
    }
}

/// Everything under the spool's folder that is a generation.
fn generations(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("spool")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn is_over(spool: &Spool, books: &Books) -> bool {
    books.held.is_empty() && LANES.map(logs).iter().all(|lane| view(spool, lane).queued() == 0)
}

#[tokio::test]
async fn leases_that_outlive_a_damage_end_once_and_end_nothing_else() {
    let (mut held_when_lost, mut lost) = (0, 0);
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let fails = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&fails);
        let disk = Disk {
            // Once: everything is closed, and begun anew.
            sync_data: Arc::new(
                move |file: &fs::File| match failing.swap(false, Ordering::SeqCst) {
                    true => Err(std::io::Error::other("injected")),
                    false => file.sync_data(),
                },
            ),
            ..Disk::real()
        };
        let spool = Spool::open_on(small(folder.path()), disk).unwrap();
        let truth = filled(&spool, &mut random).await;
        let before = spool.ledger();
        let mut books = Books::default();
        for lane in LANES.map(logs) {
            books.take(&spool, &lane, 60, &truth, "before").await;
        }
        let mut what = Vec::new();
        for _ in 0..random.usize(1..4) {
            let there = generations(folder.path());
            let picked = random.usize(..there.len());
            what.push(harm_in_place(&mut random, &there[picked]));
        }
        let told = format!("seed {seed}, {what:?}");
        let mut patience = Patience::default();
        let fails_in = random.u32(..100);
        let mut rounds = 0;
        while !is_over(&spool, &books) {
            rounds += 1;
            assert!(patience.with(&spool, &books), "{told}: nothing moves");
            let lane = logs(LANES[random.usize(..LANES.len())]);
            books
                .take(&spool, &lane, random.usize(1..120), &truth, &told)
                .await;
            if rounds == fails_in {
                fails.store(true, Ordering::SeqCst);
            }
            for _ in 0..random.usize(..80) {
                books.end(&spool, &mut random, rounds > 100).await;
            }
        }
        fails.store(false, Ordering::SeqCst);
        while spool.append(vec![queued(&logs("commit"), "x")]).await.is_err() {
            tokio::task::yield_now().await;
        }
        let (ledger, damage) = (spool.ledger(), spool.damage());
        assert!(ledger.balances(), "{told}: {ledger:?}");
        assert_eq!(
            ledger.delivered - before.delivered,
            books.delivered,
            "{told}: {ledger:?}"
        );
        assert_eq!(ledger.dead, books.buried, "{told}: {ledger:?}");
        assert_eq!(letters(&spool).await.len() as u64, books.buried, "{told}");
        let ended = books.delivered + books.buried;
        assert_eq!(ledger.dropped, truth.len() as u64 - ended, "{told}: {ledger:?}");
        assert!(ledger.dropped <= damage.lost, "{told}: {ledger:?} {damage:?}");
        held_when_lost += damage.lost - ledger.dropped;
        lost += damage.lost;
        spool.close().await;
        let spool = Spool::open(small(folder.path())).unwrap();
        assert_eq!(
            (spool.ledger(), spool.damage()),
            (ledger, damage),
            "{told}: the second opening"
        );
        assert_eq!(
            letters(&spool).await.len() as u64,
            books.buried,
            "{told}: the second opening"
        );
        spool.close().await;
    }
    println!("{lost} events found lost, of which {held_when_lost} were on lease and ended after all");
    assert!(held_when_lost > 0, "no lease outlived its event");
}

#[tokio::test]
async fn the_newest_generation_is_salvaged_while_it_takes_writes() {
    let (mut there, mut lost, mut set_aside) = (0, 0, 0);
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path());
        let mut truth = Truth::new();
        // Far more than sled keeps in memory.
        for _ in 0..8 {
            fill(&spool, &mut random, &mut truth).await;
        }
        let before = spool.ledger();
        let mut books = Books::default();
        for lane in LANES.map(logs) {
            books.take(&spool, &lane, 60, &truth, "before").await;
        }
        let generation = newest(folder.path());
        let told = format!("seed {seed}, {}", harm_in_place(&mut random, &generation));
        let mut patience = Patience::default();
        while !is_over(&spool, &books) {
            assert!(patience.with(&spool, &books), "{told}: nothing moves");
            for lane in LANES.map(logs) {
                books.take(&spool, &lane, 200, &truth, &told).await;
            }
            // Appends may be refused, and are taken again without a restart.
            while spool.append(vec![queued(&logs("commit"), "x")]).await.is_err() {
                tokio::task::yield_now().await;
            }
            while !books.held.is_empty() {
                books.end(&spool, &mut random, true).await;
            }
        }
        // What ended last is counted with the next commit.
        commit(&spool).await;
        let (ledger, damage) = (spool.ledger(), spool.damage());
        assert!(ledger.balances(), "{told}: {ledger:?}");
        assert_eq!(
            ledger.delivered - before.delivered,
            books.delivered,
            "{told}: {before:?} {ledger:?} {damage:?} buried {}",
            books.buried
        );
        let ended = books.delivered + books.buried;
        assert_eq!(
            ledger.dropped,
            truth.len() as u64 - ended,
            "{told}: {ledger:?} {damage:?}"
        );
        assert!(ledger.dropped <= damage.lost, "{told}: {ledger:?} {damage:?}");
        let name = generation.file_name().unwrap().to_string_lossy().into_owned();
        if damage.lost > 0 && !told.contains("removed /") {
            assert_eq!(damage.quarantined, [name], "{told}");
        }
        println!(
            "{told}: {} of {} lost, {} saved",
            damage.lost,
            truth.len(),
            damage.saved
        );
        there += truth.len();
        lost += damage.lost;
        set_aside += damage.quarantined.len();
        spool.close().await;
        let spool = open(folder.path());
        assert_eq!(spool.ledger(), ledger, "{told}: the second opening");
        spool.close().await;
    }
    println!("{lost} of {there} events lost, {set_aside} of 12 folders set aside");
    assert!(set_aside >= 6, "most harm is met while running: {set_aside}");
}

#[tokio::test]
async fn many_lanes_on_lease_stay_within_a_bound_and_each_gets_something() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let lanes: Vec<Lane> = (0..100).map(|n| logs(&format!("p{n}"))).collect();
    let record = "x".repeat(64 << 10);
    for lane in &lanes {
        spool
            .append((0..64).map(|_| queued(lane, record.clone())).collect())
            .await
            .unwrap();
    }
    let mut held = Vec::new();
    for lane in &lanes {
        let leased = spool.lease(lane, &limits(1_000)).await;
        assert!(!leased.is_empty(), "{lane} gets nothing");
        held.push((lane, leased));
    }
    let bytes = |held: &[(&Lane, Vec<Leased>)]| -> usize {
        held.iter()
            .flat_map(|(_, leased)| leased)
            .map(|event| event.record().len())
            .sum()
    };
    let on_lease = bytes(&held);
    println!("{} MiB of 400 on lease", on_lease >> 20);
    assert!(
        (128 << 20..(256 << 20) + 100 * record.len()).contains(&on_lease),
        "{on_lease}"
    );
    // What ends makes room.
    let mut ended = 0;
    while let Some((lane, leased)) = held.pop() {
        ended += leased.len();
        spool.settle(lane, leased).await;
        let more = spool.lease(lane, &limits(1_000)).await;
        if !more.is_empty() {
            held.push((lane, more));
        }
    }
    assert_eq!(ended, 100 * 64);
    commit(&spool).await;
    spool.close().await;
}
