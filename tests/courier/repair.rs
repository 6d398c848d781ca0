//! What breaks the API's tokenizer, what may be too large for its database, and the search for the one event that makes it lose a batch.

use crate::bench::{Bench, LONG, event, events, task, tasks, until};
use phosphod::courier::TokenCounts;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Verdicts of log requests; here none is answered with a 503.
const POSTS: [&str; 5] = ["answered", "bisect", "split", "park", "unknown"];
/// Verdicts of read-backs.
const READS: [&str; 3] = ["stored", "missing", "unreadable"];

/// Events of a session.
const SESSION: usize = 8;

fn tool_call(id: &str) -> Value {
    json!({
        "input": "x", "task_id": id,
        "raw_input": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": null, "tool_calls": []}],
    })
}

/// Events in sessions, of which so many in a hundred are tool calls. Eight sessions at a time take turns.
fn mixed(count: usize, percent: usize) -> Vec<String> {
    let is_call = |n: usize| percent > 0 && n % (100 / percent) == 3;
    let one = |n: usize| {
        let mut event = if is_call(n) {
            tool_call(&task(n))
        } else {
            json!({"input": "x", "task_id": task(n)})
        };
        event["session_id"] = json!(format!("s{}", n / (SESSION * SESSION) * SESSION + n % SESSION));
        event.to_string()
    };
    (0..count).map(one).collect()
}

/// The tasks of each session, in the order of storing.
fn sessions(bench: &Bench) -> BTreeMap<String, Vec<String>> {
    let mut sessions = BTreeMap::<_, Vec<_>>::new();
    for row in bench.sandbox.tasks(Some("p")) {
        let raw: Value = serde_json::from_str(&row.raw).expect("JSON");
        let session = raw["session_id"].as_str().expect("a session").to_owned();
        sessions.entry(session).or_default().push(row.task_id);
    }
    sessions
}

async fn many() -> Bench {
    Bench::with(|settings| settings.concurrency = 4).await
}

fn raw(bench: &Bench, id: &str) -> Value {
    serde_json::from_str(&bench.sandbox.task(id).expect("stored").raw).expect("JSON")
}

#[tokio::test]
async fn tool_calls_cost_few_requests_more_and_every_session_keeps_its_order() {
    let mut without = 0;
    for percent in [0, 1, 10] {
        let bench = many().await;
        bench.log("p", mixed(10_000, percent)).await;
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (10_000, 0));
        let posts = bench.requests(&POSTS);
        println!(
            "{percent} %: {posts} log requests, {} read-backs",
            bench.requests(&READS)
        );
        if percent == 0 {
            without = posts;
        }
        assert!(
            posts <= without + 40,
            "{posts} requests at {percent} %, {without} without"
        );
        let sessions = sessions(&bench);
        assert_eq!(sessions.len(), 10_000_usize.div_ceil(SESSION * SESSION) * SESSION);
        assert!(sessions.values().all(|tasks| tasks.is_sorted()), "{percent} %");
        if percent > 0 {
            let counts = json!({"prompt_tokens": 0, "completion_tokens": 0});
            assert_eq!(raw(&bench, &task(3))["metadata"], counts);
            assert_eq!(bench.board.token_counts().map(|state| state.needed), Some(true));
            assert_eq!(
                bench.metrics.delivery_zero_counts_events.get(),
                100 * percent as u64
            );
        }
        assert_eq!(
            raw(&bench, &task(4)).get("metadata"),
            None,
            "others are left alone"
        );
        let state = bench.finish().await;
        assert_eq!((state.stored, state.duplicates), (10_000, 0));
        assert!(
            state.lost_batches <= 1,
            "{} batches were lost",
            state.lost_batches
        );
    }
}

#[tokio::test]
async fn one_unknown_event_among_500_costs_at_most_24_requests() {
    for bad in [0, 123, 256, 499] {
        let bench = many().await;
        bench.switch(json!({"lose_events": [task(bad)]})).await;
        bench.log("p", events(0..500)).await;
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (499, 1));
        let posts = bench.requests(&POSTS);
        println!(
            "{bad}: {posts} log requests, {} read-backs",
            bench.requests(&READS)
        );
        assert!(posts <= 24, "{posts} for {bad}");
        let dead = bench.dead().await;
        let reason = &dead[0].burial.reason;
        assert!(reason.contains("alone and with token counts"), "{reason}");
        assert_eq!(bench.metrics.delivery_unconfirmed_batches.get(), 1);
        assert_eq!(bench.finish().await.duplicates, 0);
    }
}

#[tokio::test]
async fn what_follows_a_lost_batch_in_its_session_waits_for_the_repair() {
    let bench = many().await;
    bench.switch(json!({"lose_events": [task(30)]})).await;
    let of = |n: usize| json!({"input": "x", "task_id": task(n), "session_id": "s"}).to_string();
    bench.log("p", (0..60).map(of)).await;
    until("the loss is known", || {
        bench.metrics.delivery_unconfirmed_batches.get() == 1
    })
    .await;
    bench.log("p", (60..80).map(of)).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (79, 1));
    assert!(sessions(&bench)["s"].is_sorted());
    assert_eq!(bench.finish().await.duplicates, 0);
}

#[tokio::test]
async fn an_unknown_event_in_a_session_does_not_turn_the_session_around() {
    let bench = many().await;
    bench
        .switch(json!({"lose_events": [task(77), task(78), task(300)]}))
        .await;
    let of =
        |n: usize| json!({"input": "x", "task_id": task(n), "session_id": format!("s{}", n % 2)}).to_string();
    bench.log("p", (0..500).map(of)).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (497, 3));
    let sessions = sessions(&bench);
    assert_eq!(sessions.len(), 2);
    assert!(sessions.values().all(|tasks| tasks.is_sorted()));
    assert_eq!(bench.finish().await.duplicates, 0);
}

#[tokio::test]
async fn an_upstream_that_stores_tool_calls_gets_them_as_they_are_until_it_loses_one() {
    let bench = many().await;
    bench.switch(json!({"tokenizer_mended": true})).await;
    bench.log("p", [event("a"), tool_call("b").to_string()]).await;
    bench.drained().await;
    assert_eq!(bench.board.token_counts().map(|state| state.needed), Some(false));
    bench
        .log(
            "p",
            [tool_call("c").to_string(), event("d"), tool_call("e").to_string()],
        )
        .await;
    bench.drained().await;
    for id in ["b", "c", "e"] {
        assert_eq!(raw(&bench, id), tool_call(id), "as it came");
    }
    assert_eq!(bench.metrics.delivery_zero_counts_events.get(), 0);
    assert_eq!(bench.sandbox.state().lost_batches, 0);
    // It is another version now.
    bench.switch(json!({"tokenizer_mended": null})).await;
    bench.log("p", [tool_call("f").to_string(), event("g")]).await;
    bench.drained().await;
    assert_eq!(raw(&bench, "f")["metadata"]["prompt_tokens"], 0);
    bench
        .log("p", [tool_call("h").to_string(), tool_call("i").to_string()])
        .await;
    bench.drained().await;
    assert_eq!(
        bench.board.token_counts().map(|state| state.needed),
        Some(true),
        "it was asked anew"
    );
    let lost = bench.sandbox.state().lost_batches;
    assert_eq!(lost, 2, "the batch with f, and the question");
    bench.log("p", [tool_call("j").to_string()]).await;
    bench.drained().await;
    assert_eq!(bench.finish().await.lost_batches, lost);
}

#[tokio::test]
async fn another_base_url_is_asked_anew() {
    let (bench, other) = (many().await, many().await);
    bench.log("p", [tool_call("a").to_string()]).await;
    bench.drained().await;
    assert_eq!(bench.board.token_counts().map(|state| state.needed), Some(true));
    let upstream = other.knobs.borrow().upstream.clone();
    other.switch(json!({"tokenizer_mended": true})).await;
    bench.change(|settings| settings.upstream = upstream);
    until("nothing is known of the other", || {
        bench.board.token_counts().is_none()
    })
    .await;
    bench.log("p", [tool_call("b").to_string()]).await;
    bench.drained().await;
    assert_eq!(bench.board.token_counts().map(|state| state.needed), Some(false));
    assert_eq!(raw(&other, "b"), tool_call("b"));
    bench.finish().await;
    other.finish().await;
}

#[tokio::test]
async fn never_leaves_every_event_as_it_is_and_always_asks_nothing() {
    let bench = Bench::with(|settings| settings.token_counts = TokenCounts::Never).await;
    bench
        .log("p", [event("a"), tool_call("b").to_string(), event("c")])
        .await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (2, 1));
    let dead = bench.dead().await;
    assert_eq!(dead[0].record, tool_call("b").to_string().into_bytes());
    assert_eq!(bench.metrics.delivery_zero_counts_events.get(), 0);
    assert_eq!(bench.stored("p"), ["a", "c"]);
    // A reload is enough to change that.
    bench.change(|settings| settings.token_counts = TokenCounts::Always);
    bench
        .log("p", [event("d"), tool_call("e").to_string(), event("f")])
        .await;
    bench.drained().await;
    assert_eq!(bench.stored("p"), ["a", "c", "d", "e", "f"]);
    assert_eq!(bench.metrics.delivery_zero_counts_events.get(), 1);
    assert_eq!(bench.board.token_counts(), None);
    bench.finish().await;
}

#[tokio::test]
async fn where_nothing_is_read_back_tool_calls_get_counts() {
    let bench = Bench::with(|settings| settings.confirm = false).await;
    bench
        .log("p", [event("a"), tool_call("b").to_string(), event("c")])
        .await;
    bench.drained().await;
    let state = bench.state(|state| state.stored == 3).await;
    assert_eq!(state.lost, 0);
    assert_eq!(bench.board.token_counts(), None);
    bench.finish().await;
}

/// An event with so many small integers.
fn numbers(id: &str, count: usize) -> String {
    format!(
        "{{\"input\":\"x\",\"task_id\":\"{id}\",\"metadata\":{{\"list\":[{}]}}}}",
        vec!["1"; count].join(",")
    )
}

#[tokio::test]
async fn what_may_be_too_large_goes_alone_and_last_and_is_given_up_at_once_if_it_is_lost() {
    let bench = Bench::with(|settings| {
        settings.concurrency = 4;
        settings.batch.max_bytes = 64 << 20;
    })
    .await;
    // Nothing leaves before all of it is queued.
    bench.switch(json!({"refuse": true})).await;
    let mut records: Vec<String> = events(0..6).collect();
    records[1] = numbers(&task(1), 1_200_000);
    records[3] = numbers(&task(3), 1_400_000);
    bench.log("p", records).await;
    bench.switch(json!({"refuse": false})).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (5, 1));
    let stored = bench.stored("p");
    assert_eq!(
        stored,
        [0, 2, 4, 5, 1].map(task),
        "what may be too large comes last"
    );
    let dead = bench.dead().await;
    let burial = &dead[0].burial;
    assert!(burial.reason.contains("over 16 MiB"), "{}", burial.reason);
    let state = bench.finish().await;
    assert_eq!(
        (state.lost, state.lost_batches, state.duplicates),
        (1, 1, 0),
        "it went once, and alone"
    );
}

#[tokio::test]
async fn what_a_passing_fault_lost_is_sent_in_two_halves() {
    let bench = Bench::with(|settings| {
        settings.concurrency = 4;
        settings.confirm_patience = LONG / 60;
    })
    .await;
    bench.switch(json!({"lose": 1})).await;
    bench.log("p", events(0..500)).await;
    assert_eq!(bench.drained().await.delivered, 500);
    assert_eq!(bench.requests(&POSTS), 3);
    let mut stored = bench.stored("p");
    stored.sort();
    assert_eq!(stored, tasks(0..500));
    let state = bench.finish().await;
    assert_eq!((state.duplicates, state.lost), (0, 500));
}
