//! Events that the API refuses, and what is over quota.

use crate::bench::{Bench, events, task, tasks};
use phosphod::metrics::AttemptLabels;
use serde_json::{Map, json};
use std::collections::BTreeSet;

impl Bench {
    /// Log requests so far, or read-backs, by their verdicts.
    pub(crate) fn requests(&self, verdicts: &[&'static str]) -> u64 {
        let of = |verdict| {
            let labels = AttemptLabels { kind: "log", verdict };
            self.metrics.delivery_attempts.get_or_create(&labels).get()
        };
        verdicts.iter().copied().map(of).sum()
    }
}

/// The figures of docs/performance.md on poison.
#[tokio::test]
async fn poison_among_1000_events_costs_a_bounded_number_of_requests_and_nothing_else() {
    for (how, status) in [
        ("400", 400),
        ("422", 422),
        ("500", 500),
        ("lost after its 200", 200),
    ] {
        for bad in [1, 3, 10, 100] {
            let bench = Bench::with(|settings| settings.batch.max_events = 1000).await;
            let mut random = fastrand::Rng::with_seed(bad as u64);
            let evil: BTreeSet<String> = random
                .choose_multiple(0..1000, bad)
                .into_iter()
                .map(task)
                .collect();
            let fails: Map<_, _> = evil.iter().map(|id| (id.clone(), json!(status))).collect();
            bench
                .switch(match status {
                    200 => json!({"lose_events": evil}),
                    _ => json!({"fail_events": fails}),
                })
                .await;
            bench.log("p", events(0..1000)).await;
            let ledger = bench.drained().await;
            assert_eq!((ledger.delivered, ledger.dead), (1000 - bad as u64, bad as u64));
            let good: Vec<_> = tasks(0..1000)
                .into_iter()
                .filter(|id| !evil.contains(id))
                .collect();
            assert_eq!(bench.stored("p"), good, "{how}: once, in order");
            let posts = bench.requests(&["answered", "bisect", "split", "park", "retry", "unknown"]);
            let reads = bench.requests(&["stored", "missing", "unreadable"]);
            println!(
                "{how}, {bad} of 1000: {posts} log requests ({:.1} an event that is bad), {reads} read-backs",
                posts as f64 / bad as f64
            );
            let most = match (status, bad) {
                // Halves until each bad event is alone, and that once more with token counts.
                (200, 1) => 26,
                (200, _) => 23 * bad as u64,
                (_, 1) => 21,
                _ => 21 * bad as u64,
            };
            assert!(posts <= most, "{how}: {posts} requests for {bad}");
            assert_eq!(bench.finish().await.duplicates, 0, "{how}");
        }
    }
}

#[tokio::test]
async fn a_poison_event_alone_becomes_a_dead_letter() {
    let bench = Bench::new().await;
    let mut records: Vec<String> = events(0..1000).collect();
    records[321] = r#"{"input":5,"task_id":"poison"}"#.into();
    bench.change(|settings| settings.batch.max_events = 1000);
    bench.log("p", records).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (999, 1));
    let mut good = tasks(0..1000);
    good.remove(321);
    assert_eq!(bench.stored("p"), good);
    let dead = bench.dead().await;
    assert_eq!(dead[0].burial.status, Some(422));
    assert!(
        dead[0].burial.attempts > 1 && dead[0].burial.excerpt.is_some(),
        "{:?}",
        dead[0].burial
    );
    assert!(String::from_utf8_lossy(&dead[0].record).contains("poison"));
    assert_eq!(bench.finish().await.duplicates, 0);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_split_and_an_event_that_is_too_large_is_buried() {
    let bench = Bench::new().await;
    bench.switch(json!({"max_body_bytes": 2000})).await;
    let mut records: Vec<String> = events(0..200).collect();
    records[50] = json!({"input": "x".repeat(5000), "task_id": "large"}).to_string();
    bench.log("p", records).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (199, 1));
    assert_eq!(bench.dead().await[0].burial.status, Some(413));
    assert!(bench.stored("p").is_sorted());
    bench.finish().await;
}

#[tokio::test]
async fn an_event_that_the_api_refuses_is_buried_with_its_reason() {
    let bench = Bench::new().await;
    bench
        .switch(json!({"refuse_events": {"t00001": "no such flag"}}))
        .await;
    bench.log("p", events(0..3)).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (2, 1));
    let dead = bench.dead().await;
    assert!(
        dead[0].burial.reason.contains("no such flag"),
        "{:?}",
        dead[0].burial
    );
    assert_eq!(dead[0].burial.status, Some(200));
    bench.finish().await;
}

#[tokio::test]
async fn what_is_over_quota_counts_as_delivered() {
    let bench = Bench::new().await;
    bench.switch(json!({"quota": {"p": 4}})).await;
    bench.log("p", events(0..10)).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (10, 0));
    assert_eq!(bench.metrics.delivery_over_quota_events.get(), 6);
    let state = bench.finish().await;
    assert_eq!((state.stored, state.duplicates), (10, 0));
}
