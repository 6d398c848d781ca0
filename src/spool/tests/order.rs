//! Order within a lane, leases, and feedback after its logs.
use super::*;

#[tokio::test]
async fn what_is_appended_is_leased_in_order_settled_and_gone_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool
        .append((0..100).map(|n| queued(&lane, format!("event {n}"))).collect())
        .await
        .unwrap();
    let leased = spool.lease(&lane, &limits(60)).await;
    assert_eq!(
        texts(&leased),
        (0..60).map(|n| format!("event {n}")).collect::<Vec<_>>()
    );
    assert_eq!(view(&spool, &lane).ready().events, 40);
    assert_eq!(view(&spool, &lane).queued(), 100);
    spool.settle(&lane, leased).await;
    spool.close().await;

    let spool = open(folder.path());
    assert_eq!(
        spool.ledger(),
        Ledger {
            accepted: 100,
            delivered: 60,
            queued: 40,
            ..Ledger::default()
        }
    );
    let leased = spool.lease(&lane, &limits(100)).await;
    assert_eq!(seqs(&leased), (61..=100).collect::<Vec<_>>());
    assert_eq!(view(&spool, &lane).ready(), crate::batch::Ready::default());
    spool.settle(&lane, leased).await;
    spool.close().await;
    assert_eq!(open(folder.path()).ledger().queued, 0);
}

#[tokio::test]
async fn what_was_there_at_the_start_is_told_from_what_came_later() {
    let folder = tempfile::tempdir().unwrap();
    let lane = logs("p");
    let is_old = async |spool: &Spool| -> Vec<bool> {
        let leased = spool.lease(&lane, &limits(100)).await;
        let old = leased.iter().map(Leased::is_from_before_start).collect();
        spool.release(&lane, leased).await;
        old
    };
    let add = async |spool: &Spool| {
        spool
            .append(vec![queued(&lane, "x"), queued(&lane, "y")])
            .await
            .unwrap()
    };
    let spool = open(folder.path());
    add(&spool).await;
    assert_eq!(is_old(&spool).await, [false, false]);
    assert_eq!(is_old(&spool).await, [false, false], "after a release, too");
    let copy = killed(folder.path());
    for folder in [copy.path(), folder.path()] {
        if folder != copy.path() {
            spool.close().await;
        }
        let again = open(folder);
        add(&again).await;
        assert_eq!(is_old(&again).await, [true, true, false, false]);
        again.close().await;
    }
}

#[tokio::test]
async fn released_events_come_first_and_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool
        .append((1..=9).map(|n| queued(&lane, n.to_string())).collect())
        .await
        .unwrap();
    let first = spool.lease(&lane, &limits(3)).await;
    let second = spool.lease(&lane, &limits(3)).await;
    spool.release(&lane, second).await;
    spool.release(&lane, first).await;
    let again = spool.lease(&lane, &limits(8)).await;
    assert_eq!(seqs(&again), (1..=8).collect::<Vec<_>>());
    assert_eq!(texts(&again).concat(), "12345678");
}

#[tokio::test]
async fn a_dropped_lease_goes_back_to_its_lane() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool
        .append(vec![queued(&lane, "a"), queued(&lane, "b")])
        .await
        .unwrap();
    let leased = spool.lease(&lane, &limits(10)).await;
    let view = view(&spool, &lane);
    assert_eq!(view.ready().events, 0);
    drop(leased);
    while view.ready().events < 2 {
        view.changed().await;
    }
    assert_eq!(seqs(&spool.lease(&lane, &limits(10)).await), [1, 2]);
}

#[tokio::test]
async fn lanes_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let (a, b) = (logs("a"), logs("b"));
    let entries = (0..50).flat_map(|n| [queued(&a, format!("a{n}")), queued(&b, format!("b{n}"))]);
    spool.append(entries.collect()).await.unwrap();
    spool
        .append(vec![queued(&b, "b50"), queued(&a, "a50")])
        .await
        .unwrap();
    let from_b = spool.lease(&b, &limits(100)).await;
    assert_eq!(
        texts(&from_b),
        (0..=50).map(|n| format!("b{n}")).collect::<Vec<_>>()
    );
    let from_a = spool.lease(&a, &limits(100)).await;
    assert_eq!(
        texts(&from_a),
        (0..=50).map(|n| format!("a{n}")).collect::<Vec<_>>()
    );
    assert!(spool.lease(&logs("never used"), &limits(1)).await.is_empty());
}

#[tokio::test]
async fn feedback_waits_for_every_earlier_log_of_its_project_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let (log, fb) = (logs("p"), feedback("p"));
    // A log appended before a feedback holds it back, even within one commit.
    spool
        .append(vec![
            queued(&logs("other"), "o"),
            queued(&log, "l1"),
            queued(&fb, "f1"),
        ])
        .await
        .unwrap();
    spool.append(vec![queued(&log, "l2")]).await.unwrap();
    spool.append(vec![queued(&fb, "f2")]).await.unwrap();
    let view = view(&spool, &fb);
    assert_eq!((view.ready().events, view.queued()), (0, 2));
    assert!(spool.lease(&fb, &limits(9)).await.is_empty());

    let first = spool.lease(&log, &limits(1)).await;
    assert!(
        spool.lease(&fb, &limits(9)).await.is_empty(),
        "a leased log holds feedback back"
    );
    spool.settle(&log, first).await;
    view.changed().await;
    assert_eq!(view.ready().events, 1);
    let f1 = spool.lease(&fb, &limits(9)).await;
    assert_eq!(texts(&f1), ["f1"]);
    assert_eq!(view.ready().events, 0);

    let second = spool.lease(&log, &limits(1)).await;
    spool.release(&log, second).await;
    assert!(
        spool.lease(&fb, &limits(9)).await.is_empty(),
        "a released log holds feedback back"
    );
    let second = spool.lease(&log, &limits(1)).await;
    let buried = second.into_iter().map(|event| (event, burial("no"))).collect();
    spool.bury(&log, buried).await;
    assert_eq!(texts(&spool.lease(&fb, &limits(9)).await), ["f2"]);
}

#[tokio::test]
async fn a_waiter_learns_of_what_comes_between_reading_and_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    let mut lanes = spool.lanes();
    assert!(lanes.borrow_and_update().is_empty());
    spool.append(vec![queued(&lane, "a")]).await.unwrap();
    lanes.changed().await.unwrap();
    let view = view(&spool, &lane);
    view.changed().await;
    assert_eq!((view.ready().events, view.ready().bytes), (1, 1));
    assert!(view.ready().oldest.is_some());
    spool.append(vec![queued(&lane, "bc")]).await.unwrap();
    view.changed().await;
    assert_eq!((view.ready().events, view.ready().bytes), (2, 3));
    let waiting = view.changed();
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        () = &mut waiting => panic!("nothing grew"),
        () = std::future::ready(()) => {}
    }
    spool.append(vec![queued(&lane, "d")]).await.unwrap();
    waiting.await;
}

#[tokio::test]
async fn a_lease_stays_within_the_batch_limits() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool
        .append((0..50).map(|_| queued(&lane, vec![b'x'; 1000])).collect())
        .await
        .unwrap();
    let small = Limits {
        max_events: 100,
        max_bytes: 5_000,
        max_age: Duration::ZERO,
    };
    let mut taken = Vec::new();
    loop {
        let leased = spool.lease(&lane, &small).await;
        if leased.is_empty() {
            break;
        }
        assert_eq!(small.cut(leased.iter().map(|l| l.record().len())), leased.len());
        taken.extend(seqs(&leased));
        spool.settle(&lane, leased).await;
    }
    assert_eq!(taken, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lane_with_all_on_lease_that_it_may_have_tells_when_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    let most = super::super::queue::MAX_OPEN;
    spool
        .append((0..most + 9).map(|n| queued(&lane, n.to_string())).collect())
        .await
        .unwrap();
    let mut leased = spool.lease(&lane, &limits(most + 9)).await;
    assert_eq!(leased.len(), most);
    let view = view(&spool, &lane);
    assert_eq!(view.ready().events, 0);
    assert!(spool.lease(&lane, &limits(9)).await.is_empty());
    spool.settle(&lane, leased.split_off(most - 4)).await;
    tokio::select! {
        biased;
        () = view.changed() => {}
        () = std::future::ready(()) => panic!("nobody is told of the room"),
    }
    assert_eq!(view.ready().events, 4);
    assert_eq!(spool.lease(&lane, &limits(9)).await.len(), 4);
}

#[tokio::test]
async fn who_waits_for_lanes_is_told_when_the_spool_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let mut lanes = spool.lanes();
    spool.close().await;
    tokio::select! {
        biased;
        changed = lanes.changed() => assert!(changed.is_err()),
        () = std::future::ready(()) => panic!("it waits for ever"),
    }
}
