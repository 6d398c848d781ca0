//! A way to the API on which a large request is never through: what is tried again becomes smaller.

use crate::bench::{Bench, task, tasks};
use crate::way::{Fate, Way};
use serde_json::json;
use std::time::{Duration, Instant};

/// What is over this does not get through.
const MOST: usize = 256 << 10;

/// How a large request ends.
const MODES: [&str; 5] = ["reset", "timeout", "504", "408", "413"];

fn large(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|n| json!({"input": "x".repeat(2000), "task_id": task(n)}).to_string())
}

async fn slow(bench: &Bench, mode: &'static str) -> Way {
    let judge = move |head: &str, body: &str| match mode {
        _ if !head.starts_with("POST") || body.len() < MOST => Fate::Pass,
        "reset" => Fate::Reset,
        "timeout" => Fate::Silence,
        status => Fate::Answer(
            status.parse().expect("a status"),
            r#"{"detail":"too slow"}"#.into(),
        ),
    };
    let way = Way::to(&bench.sandbox.base_url(), MOST, judge).await;
    bench.change(|settings| settings.upstream = way.upstream(Duration::from_secs(1)));
    way
}

#[tokio::test]
async fn a_batch_that_is_too_large_for_the_way_arrives_in_smaller_ones_and_the_size_is_remembered() {
    for mode in MODES {
        let bench = Bench::new().await;
        let way = slow(&bench, mode).await;
        bench.log("p", large(0..500)).await;
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (500, 0), "{mode}");
        assert_eq!(bench.stored("p"), tasks(0..500), "{mode}: in order");
        let lost = |posts: &[(usize, bool)]| posts.iter().filter(|(_, passed)| !passed).count();
        let first = way.posts();
        assert!(
            lost(&first) <= 8,
            "{mode}: {} of {first:?} were lost",
            lost(&first)
        );
        // Another project goes the same way.
        bench.log("q", large(500..1500)).await;
        assert_eq!(bench.drained().await.delivered, 1500, "{mode}");
        let second = way.posts().split_off(first.len());
        assert!(
            lost(&second) <= 3,
            "{mode}: {} of {second:?} were lost",
            lost(&second)
        );
        assert!(
            second.len() < 40,
            "{mode}: {} requests for 2 MB at 256 KiB",
            second.len()
        );
        assert_eq!(bench.finish().await.duplicates, 0, "{mode}");
    }
}

/// The figures of docs/performance.md on slow ways.
#[tokio::test]
#[ignore = "measures: cargo test --test courier slow -- --ignored --nocapture"]
async fn what_a_slow_way_costs() {
    for mode in MODES {
        let bench = Bench::with(|settings| settings.confirm_patience = Duration::from_millis(500)).await;
        let way = slow(&bench, mode).await;
        let began = Instant::now();
        bench.log("p", large(0..500)).await;
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (500, 0));
        let took = began.elapsed();
        let posts = way.posts();
        let lost = posts.iter().filter(|(_, passed)| !passed);
        let bytes: usize = posts.iter().map(|(bytes, _)| bytes).sum();
        println!(
            "{mode}: {} log requests, {} of them lost, {} KiB announced, {took:.1?}",
            posts.len(),
            lost.count(),
            bytes / 1024
        );
        bench.finish().await;
    }
}
