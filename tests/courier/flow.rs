//! Several batches in flight: the order of sessions, the window, the slots and the rate limit.

use crate::bench::{Bench, LONG, event, events, lane, scripted, task, until};
use phosphod::board::LaneState;
use phosphod::ids::Kind;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

const SESSIONS: usize = 15;

/// An event of one of a few sessions, or of none.
fn event_of_session(n: usize) -> String {
    match n % (SESSIONS + 1) {
        SESSIONS => event(&task(n)),
        session => {
            json!({"input": "hello", "task_id": task(n), "session_id": format!("s{session}")}).to_string()
        }
    }
}

impl Bench {
    /// Waits until so many log requests may be in flight.
    async fn window(&self, streams: i64) {
        until("the window", || {
            self.metrics.delivery_window_requests.get() == streams
        })
        .await;
    }
}

/// Checks that each session's tasks stand in order.
fn check_sessions(stored: &[String]) {
    for session in 0..SESSIONS {
        let number = |task: &String| task[1..].parse::<usize>().expect("a number");
        let of_session: Vec<usize> = stored
            .iter()
            .map(number)
            .filter(|n| n % (SESSIONS + 1) == session)
            .collect();
        assert!(of_session.is_sorted(), "session {session}: {of_session:?}");
    }
}

#[tokio::test]
async fn sessions_keep_their_order_with_several_batches_in_flight_through_faults() {
    let bench = Bench::with(|settings| {
        settings.concurrency = 4;
        settings.batch.max_events = 10;
    })
    .await;
    bench.log("p", (0..1000).map(event_of_session)).await;
    bench.window(4).await;
    bench.drained().await;
    for round in 10..30 {
        // One of the requests that are in flight fails, and those beside it pass.
        bench
            .switch(json!({"status": 503, "times": 1, "only": ["log"]}))
            .await;
        let range = round * 100..round * 100 + 100;
        bench.log("p", range.map(event_of_session)).await;
        bench.drained().await;
    }
    let stored = bench.stored("p");
    assert_eq!(stored.len(), 3000);
    check_sessions(&stored);
    assert_eq!(bench.finish().await.duplicates, 0);
}

#[tokio::test]
async fn batches_that_go_back_to_their_lane_keep_the_order_of_its_sessions() {
    let (stored, count) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let into = stored.clone();
    let upstream = scripted(move |request: String| {
        let (stored, turn) = (into.clone(), count.fetch_add(1, Ordering::Relaxed));
        async move {
            // Answers overlap, as those of a server elsewhere do.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if turn % 9 == 8 {
                return (401, "{}".into());
            }
            let (status, reply) = echo(&request);
            let reply_json: Value = serde_json::from_str(&reply).expect("JSON");
            let sent = reply_json["logged_events"].as_array().expect("a list");
            let ids = sent
                .iter()
                .map(|event| event["task_id"].as_str().expect("an id").to_owned());
            stored.lock().expect("no panic").extend(ids);
            (status, reply)
        }
    })
    .await;
    let bench = Bench::with(|settings| {
        settings.upstream = upstream;
        settings.confirm = false;
        settings.concurrency = 4;
        settings.batch.max_events = 5;
    })
    .await;
    bench.log("p", (0..3000).map(event_of_session)).await;
    bench.drained().await;
    let stored = stored.lock().expect("no panic").clone();
    assert_eq!(stored.len(), 3000);
    check_sessions(&stored);
    bench.finish().await;
}

#[tokio::test]
async fn one_429_halves_the_window_and_two_in_a_row_close_it_to_one() {
    let bench = Bench::with(|settings| {
        settings.concurrency = 8;
        settings.batch.max_events = 10;
    })
    .await;
    bench.log("p", events(0..1000)).await;
    bench.window(8).await;
    bench.drained().await;
    // It may have been halved already, where the machine is slow.
    let before = bench.metrics.delivery_window_requests.get();
    assert!(before >= 2);
    bench
        .switch(json!({"status": 429, "times": 1, "only": ["log"]}))
        .await;
    bench.log("p", events(1000..1005)).await;
    bench.drained().await;
    bench.window(before / 2).await;
    bench
        .switch(json!({"status": 429, "times": 2, "only": ["log"]}))
        .await;
    bench.log("p", events(1005..1010)).await;
    bench.drained().await;
    bench.window(1).await;
    bench.finish().await;
}

#[tokio::test]
async fn never_more_requests_leave_than_the_rate_limit_allows_retries_and_read_backs_included() {
    let bench = Bench::with(|settings| {
        settings.concurrency = 4;
        settings.batch.max_events = 1;
        settings.rate_limit.requests_per_second = Some(40);
    })
    .await;
    bench.switch(json!({"status": 503, "times": 10})).await;
    let began = std::time::Instant::now();
    bench.log("p", events(0..30)).await;
    bench.log("q", events(30..40)).await;
    bench.drained().await;
    let (requests, come) = (
        bench.sandbox.state().requests,
        40.0 + 40.0 * began.elapsed().as_secs_f64(),
    );
    assert!(
        requests >= 90,
        "a post and a read-back each, and ten retries: {requests}"
    );
    assert!(requests as f64 <= come, "{requests} of {come}");
    bench.finish().await;
}

#[tokio::test]
async fn a_batch_larger_than_the_rate_limit_passes_once_so_much_may_go_and_shutdown_does_not_wait_for_that() {
    let bench = Bench::with(|settings| settings.rate_limit.events_per_second = Some(20)).await;
    let began = std::time::Instant::now();
    bench.log("p", events(0..45)).await;
    assert_eq!(bench.drained().await.delivered, 45);
    assert!(45.0 <= 20.0 + 20.0 * began.elapsed().as_secs_f64());
    assert_eq!(
        bench.board.get(&lane("p", Kind::Log)),
        LaneState::Flowing,
        "waiting is no fault"
    );
    bench.change(|settings| settings.rate_limit.events_per_second = Some(1));
    bench.log("p", events(45..500)).await;
    let spool = bench.spool.clone();
    let end = tokio::time::timeout(LONG / 2, bench.finish()).await;
    // A post, and the four tasks that are read back after a start.
    assert_eq!(end.expect("it ends before the grace does").requests, 5);
    assert_eq!(spool.ledger().queued, 455);
}

/// Counts requests that are being answered.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<(usize, usize)>>);

impl Crowd {
    fn enter(&self) {
        let mut crowd = self.0.lock().expect("no panic");
        crowd.0 += 1;
        crowd.1 = crowd.1.max(crowd.0);
    }
    fn leave(&self) {
        self.0.lock().expect("no panic").0 -= 1;
    }
    fn now(&self) -> usize {
        self.0.lock().expect("no panic").0
    }
    fn most(&self) -> usize {
        self.0.lock().expect("no panic").1
    }
}

/// What the API answers to a log request.
fn echo(request: &str) -> (u16, String) {
    let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let sent: Value = serde_json::from_str(body).expect("JSON");
    (
        200,
        json!({"logged_events": sent["batched_log_events"]}).to_string(),
    )
}

#[tokio::test]
async fn all_lanes_together_keep_to_the_cap_and_feedback_that_hangs_leaves_half_of_it_to_logs() {
    let (logs, feedback, release) = (Crowd::default(), Crowd::default(), Arc::new(Notify::new()));
    let (of_logs, of_feedback, released) = (logs.clone(), feedback.clone(), release.clone());
    let upstream = scripted(move |request: String| {
        let (logs, feedback, released) = (of_logs.clone(), of_feedback.clone(), released.clone());
        async move {
            if request.contains("/log/") {
                logs.enter();
                tokio::task::yield_now().await;
                logs.leave();
                return echo(&request);
            }
            feedback.enter();
            released.notified().await;
            feedback.leave();
            (200, "{}".into())
        }
    })
    .await;
    let bench = Bench::with(|settings| {
        settings.upstream = upstream;
        settings.confirm = false;
        settings.max_in_flight = 6;
    })
    .await;
    for n in 0..12 {
        bench.feedback("p", &task(n), "success").await;
    }
    until("feedback hangs", || feedback.now() == 3).await;
    for n in 0..40 {
        bench.log(&format!("q{}", n % 20), [event(&task(n))]).await;
    }
    until("logs go on", || bench.spool.ledger().delivered == 40).await;
    assert_eq!((feedback.now(), feedback.most()), (3, 3));
    assert!(logs.most() <= 3, "{}", logs.most());
    while bench.spool.ledger().delivered < 52 {
        release.notify_waiters();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(feedback.most(), 3);
    bench.finish().await;
}
