//! Events that change their lane: each is in exactly one of the two, whatever is cut off or fails, and in order.
use super::funeral::until_accepted;
use super::*;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

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

fn project(id: &str) -> ProjectId {
    ProjectId::new(id).unwrap()
}

/// Takes up to so many logs of the old project, and the feedback that goes with them.
async fn claim(spool: &Spool, most: usize) -> Vec<Leased> {
    let all = Seq(u64::MAX);
    spool.claim(&project("old"), all, &limits(most)).await
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
    spool.transfer(renamed(leased), &project("new")).await.unwrap();
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
    let copies = Copies::of(folder.path());
    let at_sync = copies.clone();
    // What each file held when it was last synced.
    let synced: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::default();
    let root = folder.path().to_owned();
    let sync_data = move |file: &std::fs::File| {
        let path = PathBuf::from(path_of(file));
        let before = at_sync.take();
        if let (Some(before), Some(bytes)) = (before, synced.lock().unwrap().get(&path)) {
            // Before the sync nothing of what it syncs need be there.
            std::fs::write(before.join(path.strip_prefix(&root).unwrap()), bytes).unwrap();
        }
        file.sync_data()?;
        synced
            .lock()
            .unwrap()
            .insert(path.clone(), std::fs::read(&path).unwrap());
        at_sync.take();
        Ok(())
    };
    let disk = Disk {
        sync_data: Arc::new(sync_data),
        ..Disk::real()
    };
    // Each transfer begins a generation, whose first commit must not tell of events that have gone nowhere yet.
    let small = Settings {
        generation_bytes: 1 << 16,
        ..settings(folder.path())
    };
    let spool = Spool::open_on(small, disk).unwrap();
    let old = logs("old");
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = || -> String {
        std::iter::repeat_with(|| random.alphanumeric())
            .take(20_000)
            .collect()
    };
    // A feedback for each log, behind it and before the next.
    for n in 0..60 {
        let log = queued(&old, format!("{n} {}", noise()));
        let entries = vec![log, queued(&feedback("old"), n.to_string())];
        spool.append(entries).await.unwrap();
    }
    copies.begin();
    for _ in 0..3 {
        let leased = claim(&spool, 20).await;
        let moved = spool.transfer(renamed(leased), &project("new")).await.unwrap();
        assert_eq!((moved.logs, moved.feedback), (20, 20));
    }
    let made = copies.end(spool).await;
    assert!(made >= 6, "{made}");
    let all: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let mut seen = BTreeSet::new();
    for copy in 0..made {
        let spool = open(&copies.at(copy));
        let (left, moved) = both(&spool).await;
        seen.insert(moved.len());
        let (old, new) = (view(&spool, &feedback("old")), moved.len() as u64);
        assert_eq!(old.queued(), 60 - new, "copy {copy}: feedback goes with its logs");
        assert_eq!([moved, left].concat(), all, "copy {copy}");
        for project in ["old", "new"] {
            let early = queued_in(&spool, &feedback(project)).await;
            assert!(early.is_empty(), "copy {copy}: {early:?} overtakes its log");
        }
        let ledger = spool.ledger();
        assert_eq!((ledger.accepted, ledger.queued), (120, 120), "copy {copy}");
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
        spool
            .transfer(renamed(leased), &project("new"))
            .await
            .unwrap_err();
    }
    let copy = killed(folder.path());
    failing.store(false, Ordering::SeqCst);
    until_accepted(&spool, || queued(&new, "x")).await;
    assert_eq!(queued_in(&spool, &old).await, ["0", "1", "2", "3", "4"]);
    assert_eq!(queued_in(&spool, &new).await, ["x"]);
    let leased = spool.lease(&old, &limits(3)).await;
    spool.transfer(renamed(leased), &project("new")).await.unwrap();
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
        let old = logs("old");
        spool
            .append((0..10).map(|n| queued(&old, format!("{n} 3456789"))).collect())
            .await
            .unwrap();
        let leased = spool.lease(&old, &limits(4)).await;
        spool.transfer(renamed(leased), &project("new")).await.unwrap();
        let (left, moved) = both(&spool).await;
        assert_eq!((left.len(), moved.len()), (6, 4), "{on_full:?}");
        assert_eq!((spool.ledger().dropped, spool.ledger().queued), (0, 10));
        assert!(spool.ledger().balances());
    }
}

#[tokio::test]
async fn a_claim_is_the_next_logs_and_the_feedback_up_to_the_first_log_that_stays() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let (old, back) = (logs("old"), feedback("old"));
    for name in ["f", "0", "f0", "1", "f1", "2", "f2a", "f2b", "3", "f3"] {
        let lane = if name.starts_with('f') { &back } else { &old };
        spool.append(vec![queued(lane, name)]).await.unwrap();
    }
    let last = view(&spool, &back).pending().unwrap().1;
    // What comes later is not meant.
    spool
        .append(vec![queued(&old, "later"), queued(&back, "flater")])
        .await
        .unwrap();
    let old_project = project("old");
    let claim = async |most| spool.claim(&old_project, last, &limits(most)).await;
    let first = claim(2).await;
    assert_eq!(texts(&first), ["0", "1", "f", "f0", "f1"]);
    assert_eq!(
        claim(9).await.len(),
        0,
        "what is on lease may come back, before what comes next"
    );
    spool.transfer(renamed(first), &project("new")).await.unwrap();
    let second = claim(1).await;
    assert_eq!(texts(&second), ["2", "f2a", "f2b"]);
    drop(second);
    commit(&spool).await;
    let second = claim(9).await;
    assert_eq!(texts(&second), ["2", "3", "f2a", "f2b", "f3"]);
    let moved = spool.transfer(renamed(second), &project("new")).await.unwrap();
    assert_eq!((moved.logs, moved.feedback), (2, 3));
    assert_eq!(claim(9).await.len(), 0);
    assert_eq!(view(&spool, &old).queued() + view(&spool, &back).queued(), 2);

    let (new, its) = (logs("new"), feedback("new"));
    assert_eq!(queued_in(&spool, &its).await.len(), 0, "first its logs");
    let leased = spool.lease(&new, &limits(9)).await;
    assert_eq!(texts(&leased), ["0 moved", "1 moved", "2 moved", "3 moved"]);
    spool.settle(&new, leased).await;
    assert_eq!(
        queued_in(&spool, &its).await,
        ["f", "f0", "f1", "f2a", "f2b", "f3"].map(|name| format!("{name} moved"))
    );
}

#[tokio::test]
async fn nothing_is_claimed_before_what_others_have_on_lease_unless_that_is_deferred() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let (old, back) = (logs("old"), feedback("old"));
    spool.append(vec![queued(&back, "f")]).await.unwrap();
    let entries = ["0", "1", "2"].map(|text| queued(&old, text));
    spool.append(entries.into()).await.unwrap();

    let sent = spool.lease(&old, &limits(1)).await;
    assert_eq!(claim(&spool, 9).await.len(), 0);
    spool.release(&old, sent).await;
    let claimed = claim(&spool, 9).await;
    assert_eq!(texts(&claimed), ["0", "1", "2", "f"], "in order all the same");
    spool.release(&old, claimed).await;

    let sent = until_leased(&spool, &back).await;
    assert_eq!(
        claim(&spool, 9).await.len(),
        0,
        "nor before feedback that is being sent"
    );
    spool.settle(&back, sent).await;
    let sent = until_leased(&spool, &old).await;
    spool.defer(&sent).await;
    assert_eq!(texts(&claim(&spool, 9).await), ["1", "2"]);
    drop(sent);
}

/// Waits until a claim has ended and leases one event.
async fn until_leased(spool: &Spool, lane: &Lane) -> Vec<Leased> {
    let waiting = view(spool, lane);
    loop {
        waiting.ready();
        let leased = spool.lease(lane, &limits(1)).await;
        if !leased.is_empty() {
            return leased;
        }
        waiting.changed().await;
    }
}

#[tokio::test]
async fn while_a_project_is_claimed_nobody_else_gets_any_of_it_and_then_they_do() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let (old, back, other) = (logs("old"), feedback("old"), logs("other"));
    let entries = [&old, &back, &other].map(|lane| queued(lane, "x"));
    spool.append(entries.into()).await.unwrap();
    let claimed = claim(&spool, 9).await;
    assert_eq!(claimed.len(), 2);
    spool.release(&old, claimed).await;
    assert_eq!(spool.lease(&old, &limits(9)).await.len(), 0);
    assert_eq!(view(&spool, &old).ready().events, 0);
    let claimed = claim(&spool, 9).await;
    assert_eq!(claimed.len(), 2, "but who claims goes on");
    let (log, feedback) = {
        let mut claimed = claimed.into_iter();
        (claimed.next().unwrap(), claimed.collect::<Vec<_>>())
    };
    spool.settle(&old, vec![log]).await;
    spool.release(&back, feedback).await;
    assert_eq!(
        spool.lease(&back, &limits(9)).await.len(),
        0,
        "free as it would be to go"
    );
    assert_eq!(spool.lease(&other, &limits(9)).await.len(), 1);
    // It ends by itself, and whoever waits learns it.
    assert_eq!(until_leased(&spool, &back).await.len(), 1);
    let never = spool.claim(&project("never"), Seq(9), &limits(9)).await;
    assert_eq!(never.len(), 0);
}
