//! Feedback that races its log through kills, and an outage under load.

use crate::scale::{Dice, figure, rounds};
use crate::support::client::{self, batch};
use crate::support::{Pair, eventually, memory};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CLIENTS: usize = 8;
const PROJECTS: usize = 4;

/// Feedback that was sent: acknowledged, and without an answer.
#[derive(Default)]
struct Sent {
    acknowledged: Mutex<Vec<String>>,
    unanswered: Mutex<Vec<String>>,
    count: AtomicU64,
}

/// Logs a task, and right after its 200 sends feedback on it, until the daemon is gone or `goal` is reached.
async fn race(url: String, client: String, goal: u64, sent: Arc<Sent>) {
    let http = reqwest::Client::new();
    let post = async |path: String, body: String| {
        let request = http
            .post(format!("{url}{path}"))
            .header("content-type", "application/json");
        // The daemon may die at any moment.
        let reply = request.body(body).send().await.ok()?;
        let status = reply.status().as_u16();
        reply.bytes().await.ok().map(|_| status)
    };
    for n in 0.. {
        if sent.count.load(Ordering::Relaxed) >= goal {
            return;
        }
        let (id, project) = (format!("{client}-{n}"), format!("race-{}", n % PROJECTS));
        let log = batch(&[json!({"input": "x", "task_id": id}).to_string()]);
        match post(format!("/v2/log/{project}"), log).await {
            Some(200) => {}
            Some(status) => panic!("{status}"),
            None => return,
        }
        let feedback =
            json!({"task_id": id, "project_id": project, "flag": "success", "notes": id}).to_string();
        match post("/feedback".into(), feedback).await {
            Some(200) => {
                sent.acknowledged.lock().expect("no panic").push(id);
                sent.count.fetch_add(1, Ordering::Relaxed);
            }
            Some(status) => panic!("{status}"),
            None => {
                sent.unanswered.lock().expect("no panic").push(id);
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feedback_that_races_its_log_counts_once_through_two_kills() {
    let goal = rounds(1_000, 50_000) as u64;
    let mut dice = Dice::of("racing");
    let mut pair = Pair::start().await;
    // The API stores after its reply, so a log's 200 alone would not do.
    pair.upstream.switch(json!({"store_delay_ms": 50})).await;
    let sent = Arc::new(Sent::default());
    for (round, kills) in [(0, true), (1, true), (2, false)] {
        let mut clients = JoinSet::new();
        for n in 0..CLIENTS {
            clients.spawn(race(
                pair.daemon.url.clone(),
                format!("r{round}-{n}"),
                goal,
                sent.clone(),
            ));
        }
        if kills {
            let third = goal / 3;
            let enough = round * third + dice.random.u64(third / 2..third);
            eventually("some feedback", || async {
                (sent.count.load(Ordering::Relaxed) >= enough).then_some(())
            })
            .await;
            pair.daemon.kill_hard();
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("a client does not panic");
        }
        if kills {
            pair.daemon = pair.setup.start().await;
        }
    }
    pair.daemon.drained().await;
    let acknowledged = sent.acknowledged.lock().expect("no panic").clone();
    let unanswered = sent.unanswered.lock().expect("no panic").clone();
    for id in &acknowledged {
        assert_eq!(pair.upstream.evals(id).len(), 1, "{id}: acknowledged, so once");
    }
    for id in &unanswered {
        assert!(
            pair.upstream.evals(id).len() <= 1,
            "{id}: not acknowledged, so once at most"
        );
    }
    let state = pair.upstream.state();
    assert_eq!(
        state.early_evals, 0,
        "a 404 that waiting for the log would have avoided"
    );
    assert!(acknowledged.len() as u64 >= goal);
    figure(&format!(
        "feedback racing its log: {} acknowledged through 2 kills, 0 lost, 0 twice, 0 before their log; {} logs sent again \
         and absorbed; {} requests",
        acknowledged.len(),
        state.duplicates,
        state.requests
    ));
    assert_eq!(pair.finish().await.dead, 0);
}

/// Events a request of the outage, and requests a second: 2,000 events.
const A_REQUEST: u64 = 100;
const A_SECOND: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_at_2000_events_a_second_loses_and_doubles_nothing() {
    let seconds = rounds(5, 60) as u64;
    let pair = Pair::start_with(|setup| setup.with("retry.min", "500 ms").with("retry.max", "5 s")).await;
    pair.upstream.switch(json!({"down": true})).await;
    let memory_before = memory(&pair.daemon, "VmRSS");
    let mut tick = tokio::time::interval(Duration::from_secs(1) / A_SECOND as u32);
    let http = reqwest::Client::new();
    let start = Instant::now();
    for request in 0..seconds * A_SECOND {
        tick.tick().await;
        let events: Vec<String> = (0..A_REQUEST)
            .map(|n| json!({"input": "x", "task_id": format!("o{:07}", request * A_REQUEST + n)}).to_string())
            .collect();
        let reply = client::post(&http, &pair.at("/v2/log/outage"), batch(&events)).await;
        assert_eq!(reply.status, 200, "intake goes on");
    }
    let took = start.elapsed();
    let events = seconds * A_SECOND * A_REQUEST;
    let down = pair.upstream.state();
    let memory_down = memory(&pair.daemon, "VmHWM");
    assert_eq!(down.stored, 0, "it was down");
    assert!(down.while_down >= 2, "{down:?}");
    // Two at once for the first of them and each later one, whose waits double from 500 ms on and are drawn at random.
    assert!(
        down.while_down <= 20 + 10 * took.as_secs(),
        "a storm: {} requests",
        down.while_down
    );
    // What waits is on disk. A lane holds a few batches, the intake its requests, sled a generation at most.
    assert!(
        memory_down < memory_before + (128 << 20),
        "{memory_before} bytes at rest, {memory_down} while down"
    );
    pair.upstream.switch(json!({"down": false})).await;
    let back = Instant::now();
    pair.upstream.stored(events).await;
    let caught_up = back.elapsed();
    let counts = pair.daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (events, 0));
    let arrived: Vec<_> = pair
        .upstream
        .tasks("outage")
        .into_iter()
        .map(|row| row.task_id)
        .collect();
    assert_eq!(arrived.len() as u64, events);
    assert!(arrived.is_sorted(), "in order");
    let state = pair.upstream.state();
    assert_eq!((state.stored, state.duplicates, state.lost), (events, 0, 0));
    figure(&format!(
        "outage of {:.0} s at {:.0} events/s: {events} taken, 0 lost, 0 doubled; {} requests while down ({:.0} a minute), at most {} MiB of memory ({} at rest); caught up in {:.1} s",
        took.as_secs_f64(),
        events as f64 / took.as_secs_f64(),
        down.while_down,
        down.while_down as f64 * 60.0 / took.as_secs_f64(),
        memory_down >> 20,
        memory_before >> 20,
        caught_up.as_secs_f64()
    ));
    pair.finish().await;
}
