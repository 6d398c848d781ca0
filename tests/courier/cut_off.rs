//! Requests whose connection broke before their answer: the API may execute them all the same.

use crate::bench::{Bench, LONG, events, scripted, task, until};
use phosphod::metrics::AttemptLabels;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[tokio::test]
async fn a_request_that_was_cut_off_is_looked_for_until_the_api_has_executed_it() {
    // The API stores a while after the connection broke; a look at once comes too early.
    let bench = Bench::with(|settings| settings.confirm_patience = LONG / 12).await;
    bench
        .switch(json!({"drop_reply": true, "store_delay_ms": 60, "times": 1, "only": ["log"]}))
        .await;
    bench.log("p", events(0..5)).await;
    assert_eq!(bench.drained().await.delivered, 5);
    let state = bench.finish().await;
    assert_eq!((state.stored, state.duplicates), (5, 0));
}

#[tokio::test]
async fn a_feedback_is_looked_for_too() {
    let (posts, reads) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (posted, read) = (posts.clone(), reads.clone());
    let upstream = scripted(move |request: String| {
        let (posted, read) = (posted.clone(), read.clone());
        async move {
            if request.starts_with("POST") {
                posted.fetch_add(1, Ordering::SeqCst);
                return (502, "gone".to_owned());
            }
            // It shows with the second look.
            match read.fetch_add(1, Ordering::SeqCst) {
                0 => (200, r#"{"notes":null,"last_eval":null}"#.to_owned()),
                _ => (
                    200,
                    json!({"notes": "about t00000", "last_eval": {"value": "success", "source": "user", "notes": null}})
                        .to_string(),
                ),
            }
        }
    })
    .await;
    let bench = Bench::with(|settings| {
        settings.upstream = upstream;
        settings.confirm_patience = LONG / 12;
    })
    .await;
    bench.feedback("p", &task(0), "success").await;
    until("it is delivered", || bench.spool.ledger().delivered == 1).await;
    assert_eq!(
        posts.load(Ordering::SeqCst),
        1,
        "a second post would be a second row"
    );
    assert_eq!(reads.load(Ordering::SeqCst), 2);
    bench.finish().await;
}

#[tokio::test]
async fn what_is_sent_after_a_lost_batch_meets_no_connection_that_the_api_has_dropped() {
    let bench = Bench::new().await;
    // Each of these is lost alone, too, and the API drops the connection after it.
    let hopeless = |nr: usize| json!({"input": "x", "task_id": task(nr), "big": 1_u64 << 63}).to_string();
    bench.log("p", (0..4).map(hopeless).chain(events(4..8))).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (4, 4));
    let unknown = bench
        .metrics
        .delivery_attempts
        .get_or_create_owned(&AttemptLabels {
            kind: "log",
            verdict: "unknown",
        });
    assert_eq!(unknown.get(), 0, "no request is cut off");
    assert_eq!(bench.finish().await.duplicates, 0);
}
