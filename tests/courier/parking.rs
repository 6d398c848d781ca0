//! Keys and projects that the upstream refuses.

use crate::bench::{Bench, NEVER, events, scripted, task, tasks, until};
use phosphod::backoff::Backoff;
use phosphod::board::LaneState;
use phosphod::ids::{Kind, ProjectId};
use phosphod::secret::Secret;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;

#[tokio::test]
async fn a_wrong_key_parks_its_project_alone_and_a_right_one_resumes_it_at_once() {
    let good = Secret::new("good").expect("not empty");
    let bench = Bench::with(|settings| {
        settings.default_key = Some(good.clone());
        settings.project_keys.insert(
            ProjectId::new("bad").expect("an id"),
            Secret::new("wrong").expect("a key"),
        );
        settings.backoff = Backoff::new(NEVER, NEVER).expect("bounds are in order");
    })
    .await;
    bench.switch(json!({"keys": ["good"]})).await;
    bench.log("bad", events(0..300)).await;
    let LaneState::Parked { reason } = bench.is_in("bad", Kind::Log, "parked").await else {
        panic!("it is parked");
    };
    assert!(reason.contains("401") && !reason.contains("wrong\""), "{reason}");
    bench.log("good", events(1000..1100)).await;
    until("the other project is delivered", || {
        bench.spool.ledger().delivered == 100
    })
    .await;
    assert_eq!(bench.spool.ledger().queued, 300);
    bench.change(|settings| settings.project_keys.clear());
    bench.drained().await;
    assert_eq!(bench.stored("bad"), tasks(0..300));
    bench.finish().await;
}

#[tokio::test]
async fn a_parked_project_probes_with_one_event_and_resumes_by_itself() {
    let bench = Bench::new().await;
    bench.switch(json!({"projects": {"p": 404}})).await;
    bench.log("p", events(0..40)).await;
    bench.is_in("p", Kind::Log, "parked").await;
    bench.state(|state| state.failed_requests >= 3).await;
    bench.switch(json!({"projects": {}})).await;
    bench.drained().await;
    assert_eq!(bench.stored("p"), tasks(0..40));
    bench.finish().await;
}

#[tokio::test]
async fn a_project_without_a_key_only_queues_until_there_is_one() {
    let bench = Bench::with(|settings| settings.default_key = None).await;
    bench.log("p", events(0..10)).await;
    bench.feedback("p", &task(3), "success").await;
    let LaneState::QueueingOnly { reason } = bench.is_in("p", Kind::Log, "queueing_only").await else {
        panic!("it queues only");
    };
    assert!(reason.contains("PHOSPHO_API_KEY"), "{reason}");
    assert_eq!(bench.sandbox.state().requests, 0);
    bench.change(|settings| settings.default_key = Secret::new("key"));
    assert_eq!(bench.drained().await.delivered, 11);
    bench.finish().await;
}

#[tokio::test]
async fn a_key_that_changes_while_the_old_one_is_being_refused_is_used_at_once() {
    let (asked, reply) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (in_flight, go) = (asked.clone(), reply.clone());
    let upstream = scripted(move |request: String| {
        let (asked, reply) = (asked.clone(), reply.clone());
        async move {
            if request.contains("Bearer old") {
                asked.notify_one();
                reply.notified().await;
                return (401, "{}".into());
            }
            (200, r#"{"logged_events":[{"input":"hello"}]}"#.into())
        }
    })
    .await;
    let bench = Bench::with(|settings| {
        settings.upstream = upstream;
        settings.confirm = false;
        settings.default_key = Secret::new("old");
        settings.backoff = Backoff::new(NEVER, NEVER).expect("bounds are in order");
    })
    .await;
    bench.log("p", events(0..1)).await;
    in_flight.notified().await;
    bench.change(|settings| settings.default_key = Secret::new("new"));
    // The lane sees the change before the refusal: nothing is left that would wake it.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    assert_eq!(bench.drained().await.delivered, 1);
    bench.finish().await;
}
