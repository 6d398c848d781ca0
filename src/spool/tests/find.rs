//! What is queued of a task is found wherever it lies, with how many come before it.
use super::*;
use crate::ids::TaskId;

fn task(name: &str) -> TaskId {
    TaskId::new(name).unwrap()
}

fn record(name: &str, filler: usize) -> String {
    let mut random = fastrand::Rng::with_seed(filler as u64);
    let noise: String = (0..filler).map(|_| random.alphanumeric()).collect();
    format!(r#"{{"input":"{noise}","task_id":"{name}"}}"#)
}

/// Project, number of live events before it in its lane, and whether it is leased.
async fn found(spool: &Spool, name: &str) -> Vec<(String, u64, bool)> {
    let found = spool.find(&task(name)).await.unwrap();
    assert_eq!(found.unreadable, 0);
    let places = found.places.into_iter();
    places
        .map(|place| (place.lane.to_string(), place.ahead, place.leased))
        .collect()
}

#[tokio::test]
async fn an_event_is_found_in_any_generation_with_its_place_in_the_lane() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        generation_bytes: 1 << 20,
        ..settings(folder.path())
    };
    let spool = Spool::open(settings.clone()).unwrap();
    // Two lanes in turn, so that the sequences of each have gaps.
    for n in 0..120 {
        let entries =
            ["p", "q"].map(|project| queued(&logs(project), record(&format!("{project}-{n}"), 20_000)));
        spool.append(entries.into()).await.unwrap();
    }
    spool
        .append(vec![queued(
            &feedback("q"),
            r#"{"task_id":"q-7","flag":"success"}"#,
        )])
        .await
        .unwrap();
    for n in [0, 1, 31, 60, 119] {
        assert_eq!(
            found(&spool, &format!("p-{n}")).await,
            [("p/log".to_owned(), n, false)]
        );
    }
    let both = [
        ("q/log".to_owned(), 7, false),
        ("q/feedback".to_owned(), 0, false),
    ];
    assert_eq!(found(&spool, "q-7").await, both);
    let place = |name: &'static str| async { spool.find(&task(name)).await.unwrap().places.remove(0) };
    let (first, last) = (place("p-0").await, place("p-119").await);
    assert!(first.generation + 3 <= last.generation, "{first:?} {last:?}");
    assert!(first.accepted_at_ms > 0 && first.accepted_at_ms <= last.accepted_at_ms);

    // Some end, some are on lease, some come back.
    let mut leased = spool.lease(&logs("p"), &limits(50)).await;
    let back = leased.split_off(40);
    let on_lease = leased.split_off(30);
    spool.settle(&logs("p"), leased).await;
    spool.release(&logs("p"), back).await;
    assert_eq!(found(&spool, "p-29").await, []);
    assert_eq!(found(&spool, "p-30").await, [("p/log".to_owned(), 0, true)]);
    assert_eq!(found(&spool, "p-41").await, [("p/log".to_owned(), 11, false)]);
    assert_eq!(found(&spool, "p-50").await, [("p/log".to_owned(), 20, false)]);
    assert_eq!(found(&spool, "p-119").await, [("p/log".to_owned(), 89, false)]);
    drop(on_lease);
    spool.close().await;
    let spool = Spool::open(settings).unwrap();
    assert_eq!(found(&spool, "p-30").await, [("p/log".to_owned(), 0, false)]);
    assert_eq!(found(&spool, "p-90").await, [("p/log".to_owned(), 60, false)]);
    assert_eq!(found(&spool, "nobody").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_waits_is_found_at_every_look_while_all_around_it_comes_goes_and_is_moved() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(Settings {
        generation_bytes: 1 << 20,
        ..settings(folder.path())
    })
    .unwrap();
    spool
        .append(vec![queued(&logs("waits"), record("kept", 10))])
        .await
        .unwrap();
    let first = spool
        .find(&task("kept"))
        .await
        .unwrap()
        .places
        .remove(0)
        .generation;
    let traffic = spool.clone();
    let traffic = tokio::spawn(async move {
        for n in 0..200 {
            let entries = (0..4).map(|k| queued(&logs("p"), record(&format!("t-{n}-{k}"), 20_000 + k)));
            traffic.append(entries.collect()).await.unwrap();
            let leased = traffic.lease(&logs("p"), &limits(99)).await;
            traffic.settle(&logs("p"), leased).await;
        }
    });
    let mut generations = BTreeSet::from([first]);
    while !traffic.is_finished() {
        let found = spool.find(&task("kept")).await.unwrap();
        assert_eq!((found.places.len(), found.unreadable), (1, 0));
        generations.insert(found.places[0].generation);
    }
    traffic.await.unwrap();
    assert!(generations.len() > 1, "it was moved on: {generations:?}");
}

#[tokio::test]
async fn after_the_end_of_the_spool_nothing_is_found_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.close().await;
    assert!(matches!(spool.find(&task("t")).await, Err(FindError::Closed)));
}
