//! `on_full = "drop_oldest"`.
use super::*;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};

const KB: usize = 1_000;
/// Bytes that are to stay free.
const FLOOR: u64 = 1 << 40;

fn dropping(path: &Path, max_bytes: u64) -> Settings {
    Settings {
        max_bytes,
        on_full: OnFull::DropOldest,
        ..settings(path)
    }
}

/// An event of 1,000 bytes that begins with its number.
fn numbered(lane: &Lane, n: usize) -> Entry {
    queued(lane, format!("{n:>KB$}"))
}

fn numbers(leased: &[Leased]) -> Vec<usize> {
    texts(leased)
        .iter()
        .map(|text| text.trim().parse().unwrap())
        .collect()
}

async fn rest(spool: &Spool, lane: &Lane) -> Vec<usize> {
    numbers(&spool.lease(lane, &limits(10_000)).await)
}

#[tokio::test]
async fn the_newest_stay_the_oldest_are_counted_and_a_kill_changes_nothing_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(dropping(folder.path(), 100_000)).unwrap();
    let lane = logs("p");
    for start in (0..1_000).step_by(10) {
        let entries = (start..start + 10).map(|n| numbered(&lane, n));
        spool.append(entries.collect()).await.unwrap();
        let ledger = spool.ledger();
        assert!(ledger.balances() && spool.live_bytes() <= 100_000, "{ledger:?}");
    }
    let expected = Ledger {
        accepted: 1_000,
        dropped: 900,
        queued: 100,
        ..Ledger::default()
    };
    assert_eq!((spool.ledger(), spool.refusing()), (expected, None));
    let copy = killed(folder.path());
    let again = Spool::open(dropping(copy.path(), 100_000)).unwrap();
    assert_eq!(again.ledger(), expected);
    assert_eq!(rest(&again, &lane).await, (900..1_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_oldest_of_all_lanes_go_first_and_feedback_may_go_once_its_log_was_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(dropping(folder.path(), 10_000)).unwrap();
    let (a, b, c) = (logs("a"), feedback("a"), logs("c"));
    for n in 0..9 {
        spool
            .append(vec![numbered([&a, &b, &c][n % 3], n)])
            .await
            .unwrap();
    }
    assert_eq!(view(&spool, &b).ready().events, 0);
    // Two more than there is room for: 0 and 1 go, a log and a feedback.
    spool
        .append((9..12).map(|n| numbered(&c, n)).collect())
        .await
        .unwrap();
    assert_eq!(view(&spool, &b).queued(), 2);
    // 2, 3, 4, 5 and 6 go: no log of a is left, and the one feedback of a may go.
    spool
        .append((12..17).map(|n| numbered(&c, n)).collect())
        .await
        .unwrap();
    assert_eq!((spool.ledger().dropped, spool.live_bytes()), (7, 10_000));
    assert_eq!(view(&spool, &b).ready().events, 1);
    assert_eq!(rest(&spool, &a).await, [0; 0]);
    assert_eq!(rest(&spool, &b).await, [7]);
    assert_eq!(rest(&spool, &c).await, [8, 9, 10, 11, 12, 13, 14, 15, 16]);
}

#[tokio::test]
async fn what_is_on_lease_is_passed_over_and_what_came_back_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(dropping(folder.path(), 10_000)).unwrap();
    let lane = logs("p");
    spool
        .append((0..10).map(|n| numbered(&lane, n)).collect())
        .await
        .unwrap();
    let mut leased = spool.lease(&lane, &limits(4)).await;
    let kept = leased.split_off(2);
    spool.release(&lane, leased).await;
    // 0 and 1 came back; 2 and 3 are on lease.
    spool
        .append((10..15).map(|n| numbered(&lane, n)).collect())
        .await
        .unwrap();
    assert_eq!(spool.ledger().dropped, 5);
    assert_eq!(numbers(&kept), [2, 3]);
    // Whatever came, 9 KB do not fit beside the 2 KB on lease: nothing is dropped for that.
    let too_much = (20..29).map(|n| numbered(&lane, n)).collect();
    let refused = spool.append(too_much).await;
    assert!(
        matches!(&refused, Err(AppendError::Full(why)) if why.contains("spool.max_bytes")),
        "{refused:?}"
    );
    assert_eq!(spool.ledger().dropped, 5);
    let copy = killed(folder.path());
    spool.settle(&lane, kept).await;
    assert_eq!(rest(&spool, &lane).await, [7, 8, 9, 10, 11, 12, 13, 14]);
    commit(&spool).await;
    assert_eq!(spool.ledger().delivered, 2);

    let again = Spool::open(dropping(copy.path(), 10_000)).unwrap();
    assert_eq!(rest(&again, &lane).await, [2, 3, 7, 8, 9, 10, 11, 12, 13, 14]);
    assert!(again.ledger().balances(), "{:?}", again.ledger());
}

#[tokio::test]
async fn an_append_that_can_never_fit_is_refused_and_drops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(dropping(folder.path(), 10_000)).unwrap();
    let lane = logs("p");
    spool
        .append((0..10).map(|n| numbered(&lane, n)).collect())
        .await
        .unwrap();
    let refused = spool.append(vec![queued(&lane, vec![0; 10_001])]).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    assert_eq!((spool.ledger().dropped, spool.refusing()), (0, None));
    spool
        .append(vec![queued(&lane, vec![b'7'; 10_000])])
        .await
        .unwrap();
    assert_eq!((spool.ledger().dropped, spool.ledger().queued), (10, 1));
}

#[tokio::test]
async fn a_commit_that_fails_dropped_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&failing);
    let sync_data = move |file: &std::fs::File| match flag.load(Ordering::SeqCst) {
        true => Err(io::Error::other("injected")),
        false => file.sync_data(),
    };
    let disk = Disk {
        sync_data: Arc::new(sync_data),
        ..Disk::real()
    };
    let spool = Spool::open_on(dropping(folder.path(), 10_000), disk).unwrap();
    let lane = logs("p");
    spool
        .append((0..10).map(|n| numbered(&lane, n)).collect())
        .await
        .unwrap();
    let leased = spool.lease(&lane, &limits(3)).await;
    spool.release(&lane, leased).await;
    failing.store(true, Ordering::SeqCst);
    let refused = spool.append((10..15).map(|n| numbered(&lane, n)).collect()).await;
    assert!(matches!(refused, Err(AppendError::Storage(_))), "{refused:?}");
    assert_eq!((spool.ledger().dropped, spool.ledger().queued), (0, 10));
    failing.store(false, Ordering::SeqCst);
    while spool.append(vec![numbered(&lane, 15)]).await.is_err() {
        tokio::task::yield_now().await;
    }
    let ledger = spool.ledger();
    assert!(
        ledger.balances() && (ledger.accepted, ledger.dropped) == (11, 1),
        "{ledger:?}"
    );
    assert_eq!(rest(&spool, &lane).await, [1, 2, 3, 4, 5, 6, 7, 8, 9, 15]);
}

/// A disk that is under its floor of 1 TiB by a byte for each generation up to `full_until` that is there.
fn tight(folder: &Path, full_until: &Arc<AtomicU64>) -> (Settings, Disk) {
    let (until, spool) = (Arc::clone(full_until), folder.join("spool"));
    let free_bytes = move |_: &Path| {
        let until = until.load(Ordering::SeqCst);
        let there = |id: &u64| spool.join(format!("gen-{id:08}")).exists();
        Ok(FLOOR - (1..=until).filter(there).count() as u64)
    };
    let disk = Disk {
        free_bytes: Arc::new(free_bytes),
        ..Disk::real()
    };
    let settings = Settings {
        min_free_bytes: FLOOR,
        generation_bytes: 1 << 20,
        ..dropping(folder, 10 << 30)
    };
    (settings, disk)
}

#[tokio::test]
async fn under_the_floor_whole_generations_go_the_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    let full_until = Arc::new(AtomicU64::new(0));
    let (tight, disk) = tight(folder.path(), &full_until);
    let (spool, lane, other) = (Spool::open_on(tight, disk).unwrap(), logs("p"), logs("q"));
    let mut n = 0;
    while !folder.path().join("spool/gen-00000006").exists() {
        let entries = (n..n + 100).map(|n| numbered(if n % 2 == 0 { &lane } else { &other }, n));
        spool.append(entries.collect()).await.unwrap();
        n += 100;
    }
    full_until.store(2, Ordering::SeqCst);
    // Free space is looked at every 100 ms.
    while spool.ledger().dropped == 0 {
        spool.append(vec![numbered(&lane, n)]).await.unwrap();
        n += 1;
    }
    let ledger = spool.ledger();
    assert!(ledger.balances() && spool.refusing().is_none(), "{ledger:?}");
    let left = |id: u32| folder.path().join(format!("spool/gen-{id:08}")).exists();
    assert_eq!(
        [1, 2, 3, 4, 5, 6].map(left),
        [false, false, true, true, true, true]
    );
    let dropped = ledger.dropped as usize;
    let copy = killed(folder.path());
    let again = open(copy.path());
    assert_eq!(again.ledger(), ledger);
    let mut rest = rest(&again, &lane).await;
    let mut others = numbers(&again.lease(&other, &limits(10_000)).await);
    rest.append(&mut others);
    rest.sort_unstable();
    // The cursor's bound: 4,096 of a lane at once, so both fit.
    assert_eq!(rest, (dropped..n).collect::<Vec<_>>());
}

#[tokio::test]
async fn under_the_floor_even_the_newest_goes_if_it_is_the_only_one_but_nothing_on_lease() {
    let folder = tempfile::tempdir().unwrap();
    let full_until = Arc::new(AtomicU64::new(0));
    let (tight, disk) = tight(folder.path(), &full_until);
    let tight = Settings {
        generation_bytes: 64 << 20,
        ..tight
    };
    let (spool, lane) = (Spool::open_on(tight, disk).unwrap(), logs("p"));
    for start in (0..5_000).step_by(500) {
        spool
            .append((start..start + 500).map(|n| numbered(&lane, n)).collect())
            .await
            .unwrap();
    }
    let leased = spool.lease(&lane, &limits(3)).await;
    full_until.store(1, Ordering::SeqCst);
    // What is on lease keeps the generation, so the disk stays under its floor.
    let refused = loop {
        match spool.append(vec![numbered(&lane, 0)]).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(refused) => break refused,
        }
    };
    assert!(refused.to_string().contains("spool.min_free_bytes"), "{refused}");
    assert_eq!(numbers(&leased), [0, 1, 2]);
    assert_eq!(spool.ledger().queued, 3);
    spool.settle(&lane, leased).await;
    while spool.append(vec![numbered(&lane, 7)]).await.is_err() {
        tokio::task::yield_now().await;
    }
    let ledger = spool.ledger();
    assert!(
        ledger.balances() && ledger.queued == 1 && ledger.delivered == 3,
        "{ledger:?}"
    );
    assert_eq!(rest(&spool, &lane).await, [7]);
}

/// A disk whose free bytes a test says, and how often it was asked for them.
#[derive(Default)]
struct Told {
    free: AtomicU64,
    looks: AtomicU64,
}

/// A spool of several generations of 1 MiB on a disk that has just as much room as it must, and how many events are in it.
async fn on_a_disk(folder: &Path, told: &Arc<Told>) -> (Spool, u64) {
    told.free.store(FLOOR, Ordering::SeqCst);
    let told = Arc::clone(told);
    let disk = Disk {
        free_bytes: Arc::new(move |_| {
            told.looks.fetch_add(1, Ordering::SeqCst);
            Ok(told.free.load(Ordering::SeqCst))
        }),
        ..Disk::real()
    };
    let settings = Settings {
        min_free_bytes: FLOOR,
        generation_bytes: 1 << 20,
        ..dropping(folder, 10 << 30)
    };
    let spool = Spool::open_on(settings, disk).unwrap();
    let mut events = 0;
    while !folder.join("spool/gen-00000004").exists() {
        let entries = (0..100).map(|n| numbered(&logs("p"), n));
        spool.append(entries.collect()).await.unwrap();
        events += 100;
    }
    (spool, events)
}

/// Asks until the spool refuses, and on until it has looked at the disk some more times.
async fn refused(spool: &Spool, told: &Told, events: &mut u64) -> String {
    let mut until = None;
    loop {
        let looks = told.looks.load(Ordering::SeqCst);
        match spool.append(vec![numbered(&logs("p"), 0)]).await {
            Ok(()) => *events += 1,
            Err(refused) if until.is_some_and(|until| looks > until) => return refused.to_string(),
            Err(_) => until = until.or(Some(looks + 5)),
        }
    }
}

async fn accepted_again(spool: &Spool, told: &Told) {
    told.free.store(FLOOR, Ordering::SeqCst);
    while spool.append(vec![numbered(&logs("p"), 0)]).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_is_dropped_for_a_disk_that_somebody_else_fills() {
    let (folder, told) = (tempfile::tempdir().unwrap(), Arc::default());
    let (spool, mut events) = on_a_disk(folder.path(), &told).await;
    // More is missing than the whole queue takes.
    told.free.store(FLOOR - (1 << 30), Ordering::SeqCst);
    let sentence = refused(&spool, &told, &mut events).await;
    assert!(sentence.contains("spool.min_free_bytes"), "{sentence}");
    assert_eq!((spool.ledger().dropped, spool.ledger().queued), (0, events));
    accepted_again(&spool, &told).await;
    assert_eq!((spool.ledger().dropped, spool.ledger().queued), (0, events + 1));
}

#[tokio::test]
async fn a_generation_that_gave_nothing_back_is_the_only_one_that_goes() {
    let (folder, told) = (tempfile::tempdir().unwrap(), Arc::default());
    let (spool, mut events) = on_a_disk(folder.path(), &told).await;
    // It could help, but somebody else takes whatever is freed.
    told.free.store(FLOOR - 1, Ordering::SeqCst);
    refused(&spool, &told, &mut events).await;
    let gone = |id: u32| !folder.path().join(format!("spool/gen-{id:08}")).exists();
    assert_eq!([1, 2, 3].map(gone), [true, false, false]);
    let ledger = spool.ledger();
    assert!(ledger.balances() && ledger.dropped > 0, "{ledger:?}");
    accepted_again(&spool, &told).await;
    assert_eq!(spool.ledger().dropped, ledger.dropped);
}
