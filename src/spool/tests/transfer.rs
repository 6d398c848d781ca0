//! Events that change their lane: each is in exactly one of the two, whatever is cut off or fails, and in order.
use super::funeral::until_accepted;
use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The events with the records that they get in the other lane.
fn renamed(leased: Vec<Leased>) -> Vec<(Leased, Vec<u8>)> {
    let renamed = leased.into_iter().map(|event| {
        let record = [event.record().as_ref(), b" moved"].concat();
        (event, record)
    });
    renamed.collect()
}

async fn queued_in(spool: &Spool, lane: &Lane) -> Vec<String> {
    let leased = spool.lease(lane, &limits(9_999)).await;
    let found = texts(&leased);
    spool.release(lane, leased).await;
    found
}

/// What stands in the two lanes, by the first word of each event.
async fn both(spool: &Spool) -> (Vec<String>, Vec<String>) {
    let first = |texts: Vec<String>| {
        texts
            .into_iter()
            .map(|text| text.split(' ').next().unwrap().to_owned())
    };
    let (old, new) = (
        queued_in(spool, &logs("old")).await,
        queued_in(spool, &logs("new")).await,
    );
    (first(old).collect(), first(new).collect())
}

#[tokio::test]
async fn transferred_events_stand_in_order_behind_what_the_lane_has_and_the_ledger_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, old, new) = (open(folder.path()), logs("old"), logs("new"));
    let entries = (0..50).map(|n| queued(&old, format!("{n}")));
    spool.append(entries.collect()).await.unwrap();
    spool.append(vec![queued(&new, "first")]).await.unwrap();
    let before = spool.ledger();
    let leased = spool.lease(&old, &limits(40)).await;
    spool.transfer(renamed(leased), &new).await.unwrap();
    spool.append(vec![queued(&new, "last")]).await.unwrap();
    let mut expected = vec!["first".to_owned()];
    expected.extend((0..40).map(|n| format!("{n} moved")));
    expected.push("last".to_owned());
    let rest: Vec<String> = (40..50).map(|n| n.to_string()).collect();
    let ledger = spool.ledger();
    assert_eq!(ledger.accepted, before.accepted + 1, "only the one that came");
    assert_eq!((ledger.queued, ledger.delivered), (52, 0));
    for spool in [spool, open(killed(folder.path()).path())] {
        assert_eq!(spool.ledger(), ledger);
        assert_eq!(queued_in(&spool, &new).await, expected);
        assert_eq!(queued_in(&spool, &old).await, rest);
        assert_eq!(view(&spool, &old).queued(), 10);
        let leased = spool.lease(&new, &limits(99)).await;
        spool.settle(&new, leased).await;
        commit(&spool).await;
        assert_eq!(spool.ledger().delivered, 42);
        spool.close().await;
    }
}

#[tokio::test]
async fn a_kill_at_any_sync_leaves_each_event_in_one_lane() {
    let folder = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let (armed, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (from, to, flag, count) = (
        folder.path().to_owned(),
        copies.path().to_owned(),
        Arc::clone(&armed),
        Arc::clone(&made),
    );
    let copy = move || {
        if flag.load(Ordering::SeqCst) {
            let copy = to.join(count.fetch_add(1, Ordering::SeqCst).to_string());
            std::fs::create_dir(&copy).unwrap();
            copy_folder(&from, &copy).unwrap();
        }
    };
    let sync_data = move |file: &std::fs::File| {
        copy();
        file.sync_data()?;
        copy();
        Ok(())
    };
    let disk = Disk {
        sync_data: Arc::new(sync_data),
        ..Disk::real()
    };
    // Each transfer begins a generation, whose first commit must not tell of events that have gone nowhere yet.
    let small = Settings {
        generation_bytes: 1 << 20,
        ..settings(folder.path())
    };
    let spool = Spool::open_on(small, disk).unwrap();
    let (old, new) = (logs("old"), logs("new"));
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = || -> String {
        std::iter::repeat_with(|| random.alphanumeric())
            .take(20_000)
            .collect()
    };
    let entries = (0..60).map(|n| queued(&old, format!("{n} {}", noise())));
    spool.append(entries.collect()).await.unwrap();
    armed.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let leased = spool.lease(&old, &limits(20)).await;
        assert_eq!(leased.len(), 20);
        spool.transfer(renamed(leased), &new).await.unwrap();
    }
    armed.store(false, Ordering::SeqCst);
    let made = made.load(Ordering::SeqCst);
    assert!(made >= 6, "{made}");
    let all: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let mut seen = BTreeSet::new();
    for copy in 0..made {
        let spool = open(&copies.path().join(copy.to_string()));
        let (left, moved) = both(&spool).await;
        seen.insert(moved.len());
        assert_eq!([moved, left].concat(), all, "copy {copy}");
        let ledger = spool.ledger();
        assert_eq!((ledger.accepted, ledger.queued), (60, 60), "copy {copy}");
        spool.close().await;
    }
    assert!(seen.len() >= 4, "every step was seen: {seen:?}");
}

#[tokio::test]
async fn a_commit_that_fails_leaves_the_events_in_their_own_lane() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, failing) = disk_failing_in("/spool/gen-");
    let spool = Spool::open_on(settings(folder.path()), disk).unwrap();
    let (old, new) = (logs("old"), logs("new"));
    spool
        .append((0..5).map(|n| queued(&old, n.to_string())).collect())
        .await
        .unwrap();
    failing.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let leased = spool.lease(&old, &limits(3)).await;
        spool.transfer(renamed(leased), &new).await.unwrap_err();
    }
    let copy = killed(folder.path());
    failing.store(false, Ordering::SeqCst);
    until_accepted(&spool, || queued(&new, "x")).await;
    assert_eq!(queued_in(&spool, &old).await, ["0", "1", "2", "3", "4"]);
    assert_eq!(queued_in(&spool, &new).await, ["x"]);
    let leased = spool.lease(&old, &limits(3)).await;
    spool.transfer(renamed(leased), &new).await.unwrap();
    spool.close().await;
    let spool = open(folder.path());
    assert_eq!(queued_in(&spool, &old).await, ["3", "4"]);
    assert_eq!(
        queued_in(&spool, &new).await,
        ["x", "0 moved", "1 moved", "2 moved"]
    );
    assert_eq!((spool.ledger().accepted, spool.ledger().queued), (6, 6));

    // Whether a failed commit reached the disk is open, so after a kill it is the one or the other.
    let spool = open(copy.path());
    let (left, moved) = both(&spool).await;
    assert_eq!([moved, left].concat(), ["0", "1", "2", "3", "4"]);
    assert_eq!((spool.ledger().accepted, spool.ledger().queued), (5, 5));
}

#[tokio::test]
async fn a_full_spool_lets_events_change_their_lane_and_drops_none() {
    for on_full in [OnFull::Reject, OnFull::DropOldest] {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(Settings {
            max_bytes: 100,
            on_full,
            ..settings(folder.path())
        })
        .unwrap();
        let (old, new) = (logs("old"), logs("new"));
        spool
            .append((0..10).map(|n| queued(&old, format!("{n} 3456789"))).collect())
            .await
            .unwrap();
        let leased = spool.lease(&old, &limits(4)).await;
        spool.transfer(renamed(leased), &new).await.unwrap();
        let (left, moved) = both(&spool).await;
        assert_eq!((left.len(), moved.len()), (6, 4), "{on_full:?}");
        assert_eq!((spool.ledger().dropped, spool.ledger().queued), (0, 10));
        assert!(spool.ledger().balances());
    }
}

#[tokio::test]
async fn feedback_comes_after_the_logs_that_were_moved_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool
        .append(vec![
            queued(&logs("old"), "log"),
            queued(&feedback("old"), "feedback"),
        ])
        .await
        .unwrap();
    let leased = spool.lease(&logs("old"), &limits(9)).await;
    spool.transfer(renamed(leased), &logs("new")).await.unwrap();
    let leased = spool.lease(&feedback("old"), &limits(9)).await;
    assert_eq!(leased.len(), 1, "no log of its project is queued any more");
    spool.transfer(renamed(leased), &feedback("new")).await.unwrap();
    assert_eq!(queued_in(&spool, &feedback("new")).await, Vec::<String>::new());
    let leased = spool.lease(&logs("new"), &limits(9)).await;
    spool.settle(&logs("new"), leased).await;
    assert_eq!(queued_in(&spool, &feedback("new")).await, ["feedback moved"]);
}

#[tokio::test]
async fn while_a_project_is_claimed_nobody_else_gets_any_of_it_and_then_they_do() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let (logs, feedback, other) = (logs("old"), feedback("old"), logs("other"));
    let entries = [&logs, &logs, &feedback, &other].map(|lane| queued(lane, "x"));
    spool.append(entries.into()).await.unwrap();
    let first = spool.claim(&logs, &limits(1)).await;
    assert_eq!(first.len(), 1);
    assert_eq!(spool.lease(&logs, &limits(9)).await.len(), 0);
    let second = spool.claim(&logs, &limits(9)).await;
    assert_eq!(second.len(), 1, "but who claims goes on");
    spool
        .settle(&logs, first.into_iter().chain(second).collect())
        .await;
    assert_eq!(spool.lease(&feedback, &limits(9)).await.len(), 0);
    assert_eq!(view(&spool, &feedback).ready().events, 0);
    assert_eq!(spool.lease(&other, &limits(9)).await.len(), 1);
    // It ends by itself, and whoever waits learns it.
    let waiting = view(&spool, &feedback);
    waiting.ready();
    waiting.changed().await;
    assert_eq!(spool.lease(&feedback, &limits(9)).await.len(), 1);
    assert_eq!(spool.claim(&super::logs("never"), &limits(9)).await.len(), 0);
}
