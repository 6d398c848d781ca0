//! The feedback lane.

use crate::bench::{Bench, event, events, lane, scripted, task, until};
use phosphod::feedback::Feedback;
use phosphod::ids::Kind;
use phosphod::metrics::AttemptLabels;
use phosphod::spool::Entry;
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn feedback_goes_after_its_log_and_in_order() {
    let bench = Bench::with(|settings| settings.batch.max_events = 7).await;
    for n in 0..60 {
        bench.log("p", events(n..n + 1)).await;
        bench.feedback("p", &task(n), "failure").await;
        bench.feedback("p", &task(n), "success").await;
    }
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (180, 0));
    for n in 0..60 {
        let flags: Vec<_> = bench
            .sandbox
            .evals(Some(&task(n)))
            .into_iter()
            .map(|row| row.flag)
            .collect();
        assert_eq!(flags, ["failure", "success"]);
    }
    let state = bench.finish().await;
    assert_eq!((state.early_evals, state.failed_requests), (0, 0));
}

#[tokio::test]
async fn feedback_waits_for_a_task_that_comes_later_from_elsewhere() {
    let bench = Bench::new().await;
    bench.switch(json!({"eval_wait_ms": 1})).await;
    bench.feedback("p", "later", "success").await;
    bench.feedback("p", "later", "failure").await;
    until("it was looked for", || bench.sandbox.state().requests >= 3).await;
    assert_eq!(bench.spool.ledger().queued, 2);
    // As the hints are once a minute has passed.
    let hints = || bench.board.waiting(Instant::now() + Duration::from_secs(90));
    until("it is noted as waiting", || {
        let hints = hints();
        hints.len() == 1 && hints[0].starts_with("1 feedback of project p waits")
    })
    .await;
    bench.log("p", [event("later")]).await;
    assert_eq!(bench.drained().await.delivered, 3);
    assert_eq!(hints(), [""; 0], "nothing waits any more");
    let flags: Vec<_> = bench
        .sandbox
        .evals(Some("later"))
        .into_iter()
        .map(|row| row.flag)
        .collect();
    assert_eq!(flags, ["success", "failure"]);
    bench.finish().await;
}

#[tokio::test]
async fn feedback_for_a_task_that_never_comes_is_buried_after_wait_max() {
    let bench = Bench::with(|settings| settings.feedback_wait_max = Duration::from_millis(50)).await;
    bench.switch(json!({"eval_wait_ms": 1})).await;
    bench.feedback("p", "never", "success").await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (0, 1));
    let waiting = bench.board.waiting(Instant::now() + Duration::from_secs(90));
    assert_eq!(waiting, [""; 0], "it has ended");
    let hint = bench.spool.letters_hint().expect("a hint");
    assert!(
        hint.contains("1 feedback of project p whose task the API does not have (404)"),
        "{hint}"
    );
    let dead = bench.dead().await;
    assert_eq!(dead[0].burial.status, Some(404));
    assert!(dead[0].burial.reason.contains("never"), "{:?}", dead[0].burial);
    assert_eq!(dead[0].burial.attempts, 1, "posted once, then only looked for");
    bench.finish().await;
}

#[tokio::test]
async fn feedback_outlasts_wait_max_while_its_log_is_still_queued_here() {
    let bench = Bench::with(|settings| settings.feedback_wait_max = Duration::from_millis(1)).await;
    bench.switch(json!({"eval_wait_ms": 1, "status": 503})).await;
    bench.feedback("p", "late", "success").await;
    bench.log("p", [event("late")]).await;
    // From now on the API says that it has no such task, and takes no log.
    bench.switch(json!({"only": ["log"]})).await;
    bench.state(|state| state.early_evals == 1).await;
    let requests = bench.sandbox.state().requests;
    bench.state(|state| state.requests >= requests + 40).await;
    let ledger = bench.spool.ledger();
    assert_eq!((ledger.queued, ledger.dead), (2, 0));
    bench.switch(json!({"status": null})).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (2, 0));
    assert_eq!(bench.finish().await.evals, 1);
}

#[tokio::test]
async fn feedback_that_waits_is_bounded_in_bytes_too() {
    let bench = Bench::new().await;
    bench.switch(json!({"eval_wait_ms": 0})).await;
    let notes = "n".repeat(3 << 20);
    for n in 0..5 {
        let body = json!({"task_id": task(n), "project_id": "p", "flag": "success", "notes": notes});
        let feedback = Feedback::parse(body.to_string().as_bytes(), None, None).expect("good feedback");
        let entry = Entry::Queued {
            lane: lane("p", Kind::Feedback),
            record: feedback.to_record(),
        };
        bench.spool.append(vec![entry]).await.expect("appended");
    }
    // Three of 3 MiB are over 8 MiB; the others stay in the spool, though none of the three comes to an end.
    bench.state(|state| state.early_evals == 3).await;
    bench.state(|state| state.requests > 12).await;
    let views = bench.spool.lanes().borrow().clone();
    assert_eq!(views[0].ready().events, 2);
    assert_eq!(bench.sandbox.state().early_evals, 3);
    bench.log("q", events(0..5)).await;
    assert_eq!(bench.drained().await.delivered, 10);
    assert_eq!(bench.finish().await.evals, 5);
}

#[tokio::test]
async fn feedback_whose_answer_was_lost_counts_once() {
    for fault in ["drop_reply", "truncate_reply"] {
        let bench = Bench::new().await;
        bench.log("p", events(0..5)).await;
        bench.drained().await;
        bench
            .switch(json!({fault: true, "times": 3, "only": ["feedback"]}))
            .await;
        for n in 0..5 {
            bench.feedback("p", &task(n), "success").await;
        }
        assert_eq!(bench.drained().await.delivered, 10, "{fault}");
        let read_back = bench.metrics.delivery_attempts.get_or_create(&AttemptLabels {
            kind: "feedback",
            verdict: "read_back",
        });
        assert_eq!(read_back.get(), 3, "{fault}: three answers were lost");
        drop(read_back);
        assert_eq!(bench.finish().await.evals, 5, "{fault}");
    }
}

#[tokio::test]
async fn one_feedback_that_always_fails_holds_up_no_other_and_is_buried_in_the_end() {
    let upstream = scripted(async |request: String| match request.contains("/broken") {
        true => (500, "{}".into()),
        false => (200, "{}".into()),
    })
    .await;
    let bench = Bench::with(|settings| {
        settings.upstream = upstream;
        settings.feedback_concurrency = 1;
        settings.feedback_wait_max = Duration::from_millis(50);
    })
    .await;
    bench.feedback("p", "broken", "success").await;
    bench.is_in("p", Kind::Feedback, "backing_off").await;
    let mut good = 0;
    while bench.spool.ledger().dead == 0 {
        bench.feedback("p", "fine", "success").await;
        good += 1;
        until("the others go on", || bench.spool.ledger().delivered == good).await;
    }
    let dead = bench.dead().await;
    assert_eq!(dead[0].burial.status, Some(500));
    assert!(
        dead[0].burial.reason.contains("feedback.wait_max"),
        "{:?}",
        dead[0].burial
    );
    bench.finish().await;
}

#[tokio::test]
async fn an_upstream_that_refuses_all_feedback_does_not_turn_it_into_dead_letters_at_once() {
    let bench = Bench::new().await;
    bench.log("p", events(0..100)).await;
    bench.drained().await;
    bench.switch(json!({"status": 400, "only": ["feedback"]})).await;
    for n in 0..100 {
        bench.feedback("p", &task(n), "success").await;
    }
    bench.state(|state| state.failed_requests >= 12).await;
    bench.switch(json!({"status": null})).await;
    let dead = bench.drained().await.dead;
    let failed = bench.finish().await.failed_requests;
    assert!(dead * 4 <= failed, "{dead} buried in {failed} refusals");
}

#[tokio::test]
async fn what_a_lost_answer_leaves_open_is_remembered_while_the_lane_is_parked() {
    let bench = Bench::with(|settings| settings.feedback_concurrency = 1).await;
    bench.log("p", events(0..2)).await;
    bench.drained().await;
    bench
        .switch(json!({"drop_reply": true, "only": ["feedback", "task"]}))
        .await;
    bench.feedback("p", &task(0), "success").await;
    bench.is_in("p", Kind::Feedback, "backing_off").await;
    bench.switch(json!({"drop_reply": false, "status": 403})).await;
    bench.feedback("p", &task(1), "success").await;
    bench.is_in("p", Kind::Feedback, "parked").await;
    let failed = bench.sandbox.state().failed_requests;
    bench.state(|state| state.failed_requests > failed + 2).await;
    bench.switch(json!({"status": null})).await;
    assert_eq!(bench.drained().await.delivered, 4);
    assert_eq!(bench.finish().await.evals, 2);
}
