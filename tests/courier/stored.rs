//! Whether what was accepted was stored, and its repair.

use crate::bench::{Bench, LONG, events, tasks};
use serde_json::{Value, json};

#[tokio::test]
async fn a_batch_that_was_lost_silently_is_stored_after_all_and_its_tool_call_with_counts_of_zero() {
    let bench = Bench::new().await;
    let tool_call = json!({
        "input": "x", "task_id": "t00002",
        "raw_input": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": null, "tool_calls": []}],
    });
    let hopeless = json!({"input": "x", "task_id": "hopeless", "big": 1_u64 << 63});
    let mut records: Vec<String> = events(0..6).collect();
    records[2] = tool_call.to_string();
    records[4] = hopeless.to_string();
    bench.log("p", records).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (5, 1));
    let raw: Value = serde_json::from_str(&bench.sandbox.task("t00002").expect("stored").raw).expect("JSON");
    assert_eq!(
        raw["metadata"],
        json!({"prompt_tokens": 0, "completion_tokens": 0})
    );
    assert_eq!(raw["raw_input"], tool_call["raw_input"]);
    let dead = bench.dead().await;
    assert!(
        dead[0].burial.reason.starts_with("accepted but never stored"),
        "{:?}",
        dead[0].burial
    );
    assert_eq!(
        bench.metrics.delivery_unconfirmed_batches.get(),
        2,
        "the question with the tool call, and what was behind it"
    );
    // The hopeless one was tried with them, too.
    assert_eq!(bench.metrics.delivery_zero_counts_events.get(), 2);
    let state = bench.finish().await;
    assert_eq!((state.stored, state.duplicates), (5, 0));
}

#[tokio::test]
async fn storing_that_takes_a_while_is_waited_for() {
    let bench = Bench::with(|settings| settings.confirm_patience = LONG).await;
    bench.switch(json!({"store_delay_ms": 50})).await;
    bench.log("p", events(0..10)).await;
    bench.drained().await;
    assert_eq!(bench.finish().await.duplicates, 0);
}

#[tokio::test]
async fn an_upstream_that_does_not_tell_what_it_stored_is_believed() {
    let bench = Bench::new().await;
    bench
        .switch(json!({"status": 404, "detail": "Not Found", "only": ["task"]}))
        .await;
    bench.log("p", events(0..10)).await;
    bench.drained().await;
    bench.log("p", events(10..20)).await;
    assert_eq!(bench.drained().await.delivered, 20);
    assert_eq!(
        bench.finish().await.failed_requests,
        6,
        "it is asked three times, with another id each time, and not again"
    );
}

#[tokio::test]
async fn faults_while_reading_back_do_not_settle_and_do_not_send_again() {
    let bench = Bench::new().await;
    bench
        .switch(json!({"status": 503, "only": ["task"], "times": 6}))
        .await;
    bench.log("p", events(0..10)).await;
    assert_eq!(bench.drained().await.delivered, 10);
    let state = bench.finish().await;
    assert_eq!((state.failed_requests, state.duplicates), (6, 0));
}

#[tokio::test]
async fn an_upstream_that_for_a_moment_does_not_tell_is_asked_again() {
    let bench = Bench::new().await;
    bench
        .switch(json!({"status": 404, "detail": "Not Found", "only": ["task"], "times": 4}))
        .await;
    bench.log("p", events(0..10)).await;
    bench.drained().await;
    // It is a proxy that is being restarted: now it has told once, more than that is borne.
    bench
        .switch(json!({"status": 404, "detail": "Not Found", "only": ["task"], "times": 12}))
        .await;
    bench.log("p", events(10..20)).await;
    bench.drained().await;
    bench.switch(json!({"lose": 1})).await;
    bench.log("p", events(20..30)).await;
    assert_eq!(bench.drained().await.delivered, 30);
    assert_eq!(bench.stored("p"), tasks(0..30), "what was lost was noticed");
    assert_eq!(bench.metrics.delivery_unconfirmed_batches.get(), 1);
    bench.finish().await;
}
