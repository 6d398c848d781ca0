//! The API is down for the whole first minute.

use crate::support::Pair;
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};

/// Events per second and project while it is down.
const RATE: u32 = 200;
const PROJECTS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_without_the_api_leaves_intake_alone_and_loses_no_order() {
    let pair = Pair::start_with(|setup| {
        setup
            .with("retry.min", "100 ms")
            .with("retry.max", "2 s")
            .with("delivery.concurrency", "4")
    })
    .await;
    pair.upstream.switch(json!({"down": true})).await;
    let minute = Duration::from_secs(60);
    let start = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut sent = 0_u64;
    let mut slowest = Duration::ZERO;
    while start.elapsed() < minute {
        tick.tick().await;
        for project in 0..PROJECTS {
            let body = json!({"input": "x", "task_id": format!("o{project}-{sent}"), "session_id": "s"});
            let asked = Instant::now();
            let path = format!("/v2/log/outage-{project}");
            let reply = pair
                .post(&path, json!({"batched_log_events": [body]}).to_string())
                .await;
            assert_eq!(reply.status, 200, "intake goes on");
            slowest = slowest.max(asked.elapsed());
        }
        sent += 1;
    }
    let down = pair.upstream.state();
    assert_eq!(down.stored, 0, "it was down");
    let status = pair.daemon.status().await;
    let lane = status["lanes"].as_array().expect("a list")[0].clone();
    assert_eq!(lane["state"], "backing_off", "{lane}");
    pair.upstream.switch(json!({"down": false})).await;
    let back = Instant::now();
    pair.upstream.stored(sent * PROJECTS as u64).await;
    let _ = writeln!(
        std::io::stderr(),
        "outage of 60 s: {} events taken, slowest reply {slowest:?}, {} attempts while down, caught up in {:?}",
        sent * PROJECTS as u64,
        down.while_down,
        back.elapsed()
    );
    for project in 0..PROJECTS {
        let arrived: Vec<_> = pair
            .upstream
            .tasks(&format!("outage-{project}"))
            .into_iter()
            .map(|row| row.task_id)
            .collect();
        let expected: Vec<_> = (0..sent).map(|n| format!("o{project}-{n}")).collect();
        assert!(arrived == expected, "all, once, in order in project {project}");
    }
    assert_eq!(pair.finish().await.delivered, sent * PROJECTS as u64);
}
