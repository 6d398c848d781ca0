//! What is on disk when, and what comes back after a crash.
use super::*;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

/// A disk whose sync can be made to fail or to wait for the test.
pub(in crate::spool) fn failing_disk() -> (Disk, Arc<AtomicBool>) {
    let failing = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&failing);
    let sync_data = move |file: &std::fs::File| match flag.load(Ordering::SeqCst) {
        true => Err(io::Error::other("injected")),
        false => file.sync_data(),
    };
    (
        Disk {
            sync_data: Arc::new(sync_data),
            ..Disk::real()
        },
        failing,
    )
}

/// A disk that can be made to fail in files whose path has `part` in it.
pub(in crate::spool) fn disk_failing_in(part: &'static str) -> (Disk, Arc<AtomicBool>) {
    let failing = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&failing);
    let sync_data =
        move |file: &std::fs::File| match flag.load(Ordering::SeqCst) && path_of(file).contains(part) {
            true => Err(io::Error::other("injected")),
            false => file.sync_data(),
        };
    (
        Disk {
            sync_data: Arc::new(sync_data),
            ..Disk::real()
        },
        failing,
    )
}

/// Where an open file lies.
pub(in crate::spool) fn path_of(file: &std::fs::File) -> String {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)));
    path.unwrap().to_string_lossy().into_owned()
}

#[tokio::test]
async fn an_append_is_answered_only_after_the_sync_returned() {
    let folder = tempfile::tempdir().unwrap();
    let (asked, syncs) = mpsc::channel();
    let (grant, granted) = mpsc::channel::<()>();
    let granted = Mutex::new(granted);
    let held = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&held);
    let sync_data = move |file: &std::fs::File| {
        if hold.load(Ordering::SeqCst) {
            asked.send(()).unwrap();
            locked(&granted).recv().unwrap();
        }
        file.sync_data()
    };
    let disk = Disk {
        sync_data: Arc::new(sync_data),
        ..Disk::real()
    };
    let spool = Spool::open_on(settings(folder.path()), disk).unwrap();
    held.store(true, Ordering::SeqCst);
    let append = spool.append(vec![queued(&logs("p"), "a")]);
    tokio::pin!(append);
    let pending = |answered: bool| assert!(answered, "answered before the sync returned");
    tokio::select! {
        biased;
        _ = &mut append => pending(false),
        synced = tokio::task::spawn_blocking(move || syncs.recv()) => synced.unwrap().unwrap(),
    }
    tokio::select! {
        biased;
        _ = &mut append => pending(false),
        () = std::future::ready(()) => {}
    }
    assert_eq!(spool.ledger().accepted, 0);
    held.store(false, Ordering::SeqCst);
    grant.send(()).unwrap();
    append.await.unwrap();
    assert_eq!(spool.ledger().accepted, 1);
}

#[tokio::test]
async fn a_failed_sync_acknowledges_nothing_and_the_spool_mends_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, failing) = failing_disk();
    let (spool, lane) = (Spool::open_on(settings(folder.path()), disk).unwrap(), logs("p"));
    spool
        .append(vec![queued(&lane, "before"), queued(&lane, "too")])
        .await
        .unwrap();
    let leased = spool.lease(&lane, &limits(1)).await;
    failing.store(true, Ordering::SeqCst);
    let refused = spool
        .append(vec![queued(&lane, "lost"), queued(&logs("new"), "lost")])
        .await;
    assert!(matches!(refused, Err(AppendError::Storage(_))), "{refused:?}");
    assert_eq!(spool.ledger().queued, 2);
    failing.store(false, Ordering::SeqCst);
    while spool.append(vec![queued(&lane, "after")]).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(spool.refusing(), None);
    spool.settle(&lane, leased).await;
    let rest = spool.lease(&lane, &limits(9)).await;
    assert_eq!(texts(&rest), ["too", "after"]);
    assert!(spool.lease(&logs("new"), &limits(9)).await.is_empty());
    commit(&spool).await;
    spool.close().await;
    let spool = open(folder.path());
    assert_eq!(texts(&spool.lease(&lane, &limits(9)).await), ["too", "after"]);
    assert!(spool.ledger().balances());
}

#[tokio::test]
async fn after_a_kill_only_what_was_not_durably_settled_is_given_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool
        .append((1..=20).map(|n| queued(&lane, n.to_string())).collect())
        .await
        .unwrap();
    let mut leased = spool.lease(&lane, &limits(12)).await;
    let settled: Vec<_> = leased
        .extract_if(.., |l| [2, 3, 7, 11].contains(&l.seq().0))
        .collect();
    spool.settle(&lane, settled).await;
    commit(&spool).await;
    let copy = killed(folder.path());
    let again = open(copy.path());
    let left = seqs(&again.lease(&lane, &limits(99)).await);
    assert_eq!(
        left,
        (1..=20)
            .filter(|seq| ![2, 3, 7, 11].contains(seq))
            .collect::<Vec<_>>()
    );
    assert_eq!(again.ledger(), spool.ledger());
}

#[tokio::test]
async fn a_settling_becomes_durable_without_an_append() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool.append(vec![queued(&lane, "a")]).await.unwrap();
    let leased = spool.lease(&lane, &limits(1)).await;
    spool.settle(&lane, leased).await;
    while spool.ledger().delivered == 0 {
        tokio::task::yield_now().await;
    }
    let copy = killed(folder.path());
    assert_eq!(
        open(copy.path()).ledger(),
        Ledger {
            accepted: 1,
            delivered: 1,
            ..Ledger::default()
        }
    );
}

#[tokio::test]
async fn a_buried_event_is_a_dead_letter_and_counts_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool
        .append(vec![queued(&lane, "good"), queued(&lane, "bad")])
        .await
        .unwrap();
    spool
        .append(vec![Entry::Refused {
            lane: lane.clone(),
            record: b"{".to_vec(),
            reason: "cut".into(),
        }])
        .await
        .unwrap();
    assert_eq!(
        spool.ledger(),
        Ledger {
            accepted: 3,
            dead: 1,
            queued: 2,
            ..Ledger::default()
        }
    );
    let mut leased = spool.lease(&lane, &limits(9)).await;
    let bad = leased.pop().unwrap();
    spool.bury(&lane, vec![(bad, burial("never stored"))]).await;
    spool.settle(&lane, leased).await;
    commit(&spool).await;
    spool.close().await;

    let spool = open(folder.path());
    assert_eq!(
        spool.ledger(),
        Ledger {
            accepted: 4,
            delivered: 1,
            dead: 2,
            queued: 1,
            dropped: 0
        }
    );
    let letters = letters(&spool).await;
    let told: Vec<_> = letters
        .iter()
        .map(|l| (l.seq.0, l.burial.reason.as_str(), l.record.as_slice()))
        .collect();
    assert_eq!(told, [(3, "cut", b"{".as_slice()), (2, "never stored", b"bad")]);
    assert_eq!(
        spool.dead_letters(Some(1), 10).await.unwrap().letters[0].number,
        2
    );
    assert!(spool.lease(&lane, &limits(9)).await.is_empty());
}

#[tokio::test]
async fn large_and_small_events_come_back_and_never_become_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    let mut random = fastrand::Rng::with_seed(3);
    let mut sent = Vec::new();
    // Incompressible bytes are the worst case: each chunk is as long on disk as in memory.
    for len in [3 << 20, 16 << 20, 0]
        .into_iter()
        .chain((0..1_200).map(|n| [100, 1_000, 30_000, 70_000][n % 4]))
    {
        sent.push((0..len).map(|_| random.u8(..)).collect::<Vec<u8>>());
    }
    for group in sent.chunks(150) {
        spool
            .append(group.iter().map(|record| queued(&lane, record.clone())).collect())
            .await
            .unwrap();
    }
    spool.close().await;
    assert_eq!(blobs(folder.path()), Vec::<PathBuf>::new());
    let spool = open(folder.path());
    let mut sent = sent.into_iter();
    loop {
        let leased = spool.lease(&lane, &limits(100)).await;
        if leased.is_empty() {
            break;
        }
        for event in &leased {
            assert!(
                sent.next().as_deref() == Some(event.record()),
                "event {} changed",
                event.seq()
            );
        }
        spool.settle(&lane, leased).await;
    }
    assert_eq!(sent.next(), None);
    assert_eq!(blobs(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_backlog_over_several_generations_comes_back_once_and_in_order_and_the_disk_comes_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    let generations = || std::fs::read_dir(folder.path().join("spool")).unwrap().count();
    let filler = "x".repeat(1_500);
    for start in (1..=100_000).step_by(2_000) {
        let entries = (start..start + 2_000).map(|n| queued(&lane, format!("{n} {filler}")));
        spool.append(entries.collect()).await.unwrap();
    }
    assert!(generations() >= 3, "{}", generations());
    spool.close().await;
    let spool = open(folder.path());
    assert_eq!(view(&spool, &lane).queued(), 100_000);
    let mut next = 1;
    loop {
        let leased = spool.lease(&lane, &limits(500)).await;
        if leased.is_empty() {
            break;
        }
        for event in &leased {
            assert_eq!(event.seq(), Seq(next));
            assert!(event.record().starts_with(format!("{next} ").as_bytes()));
            next += 1;
        }
        spool.settle(&lane, leased).await;
    }
    assert_eq!(next, 100_001);
    commit(&spool).await;
    assert_eq!((generations(), spool.live_bytes()), (1, 1));
}

#[tokio::test]
async fn what_a_failed_start_of_a_generation_left_behind_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool.append(vec![queued(&lane, "a")]).await.unwrap();
    spool.close().await;
    // Cut off before it was begun, in a state that sled does not open.
    let left = folder.path().join("spool/gen-00000002");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("conf"), "no configuration of sled").unwrap();
    let spool = open(folder.path());
    assert_eq!(texts(&spool.lease(&lane, &limits(9)).await), ["a"]);
    assert!(!left.exists());
}

#[tokio::test]
async fn a_burial_frees_the_feedback_behind_it_even_if_the_commit_after_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, failing) = disk_failing_in("/spool/gen-");
    let spool = Spool::open_on(settings(folder.path()), disk).unwrap();
    spool.append(vec![queued(&logs("p"), "log")]).await.unwrap();
    spool
        .append(vec![queued(&feedback("p"), "feedback")])
        .await
        .unwrap();
    let log = spool.lease(&logs("p"), &limits(1)).await.pop().unwrap();
    assert_eq!(view(&spool, &feedback("p")).ready().events, 0);
    failing.store(true, Ordering::SeqCst);
    spool.bury(&logs("p"), vec![(log, burial("no"))]).await;
    while spool.refusing().is_none() {
        tokio::task::yield_now().await;
    }
    failing.store(false, Ordering::SeqCst);
    while spool.append(vec![queued(&logs("other"), "x")]).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(view(&spool, &feedback("p")).ready().events, 1);
    assert!(spool.ledger().balances(), "{:?}", spool.ledger());
}

#[tokio::test]
async fn damage_in_an_older_generation_stops_its_lane_and_not_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, failing) = failing_disk();
    let (spool, lane) = (Spool::open_on(settings(folder.path()), disk).unwrap(), logs("p"));
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..50 {
        let noise: Vec<u8> = (0..20_000).map(|_| random.u8(..)).collect();
        spool.append(vec![queued(&lane, noise)]).await.unwrap();
    }
    // A failure is what begins a generation early.
    failing.store(true, Ordering::SeqCst);
    spool.append(vec![queued(&lane, "x")]).await.unwrap_err();
    failing.store(false, Ordering::SeqCst);
    while spool.append(vec![queued(&logs("good"), "x")]).await.is_err() {
        tokio::task::yield_now().await;
    }
    // It is open again when it is damaged, so that reading meets the damage and not opening.
    let first = spool.lease(&lane, &limits(1)).await;
    assert_eq!(first.len(), 1);
    let db = folder.path().join("spool/gen-00000001/db");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&db, bytes).unwrap();
    for _ in 0..50 {
        let _ = spool.lease(&lane, &limits(1)).await;
    }
    spool.append(vec![queued(&logs("good"), "y")]).await.unwrap();
    assert_eq!(texts(&spool.lease(&logs("good"), &limits(9)).await), ["x", "y"]);
}

#[tokio::test]
async fn a_generation_is_written_by_one_process_only() {
    let folder = tempfile::tempdir().unwrap();
    let generations = || std::fs::read_dir(folder.path().join("spool")).unwrap().count();
    for round in 1..=3 {
        let spool = open(folder.path());
        assert_eq!(
            generations(),
            if round == 1 { 1 } else { round - 1 },
            "none is begun without need"
        );
        spool
            .append(vec![queued(&logs("p"), format!("{round}"))])
            .await
            .unwrap();
        assert_eq!(generations(), round);
        spool.close().await;
    }
    let spool = open(folder.path());
    assert_eq!(
        texts(&spool.lease(&logs("p"), &limits(10)).await),
        ["1", "2", "3"]
    );
    spool.close().await;
}
