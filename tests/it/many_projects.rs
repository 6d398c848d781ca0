//! Ten thousand projects that a client made up: what is shown stays small, and what rests costs next to nothing.

use crate::memory::{MIB, memory, metrics};
use crate::support::Pair;
use crate::support::client::{self, Lines};
use crate::support::daemon::Daemon;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const PROJECTS: usize = 10_000;
/// For how long it is looked at while it rests.
const REST: Duration = Duration::from_secs(6);
/// Most bytes of `/status`.
const PAGE: usize = 256 * 1024;

async fn log_to(daemon: &Daemon, projects: std::ops::Range<usize>) {
    let mut lines = Lines::connect(&daemon.unix).await;
    let projects: Vec<usize> = projects.collect();
    for some in projects.chunks(100) {
        let events: String = some
            .iter()
            .map(|n| {
                format!(
                    "{}\n",
                    json!({"input": "x", "project_id": format!("project-{n}")})
                )
            })
            .collect();
        lines.write(events.as_bytes()).await;
        for n in some {
            let answer = lines.answer().await;
            assert!(answer["task_id"].is_string(), "project {n}: {answer}");
        }
    }
}

/// Every series by its name and labels.
fn series(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

/// Seconds of processor time that it took so far.
fn processor(daemon: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("our child has it");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// Looks at a daemon with so many lanes: the page, and what resting costs.
async fn look(pair: &Pair, name: &str, before: usize) -> Value {
    let reply = client::send(pair.client.get(pair.at("/status"))).await;
    assert!(
        reply.body.len() < PAGE,
        "{name}: /status has {} bytes",
        reply.body.len()
    );
    let status = reply.json();
    let lanes = status["lanes"].as_array().expect("a list").len();
    assert_eq!(
        lanes + status["more_lanes"].as_u64().expect("a count") as usize,
        PROJECTS
    );
    let (rss, start) = (memory(&pair.daemon, "VmRSS"), processor(&pair.daemon));
    tokio::time::sleep(REST).await;
    let at_rest = processor(&pair.daemon) - start;
    eprintln!(
        "{PROJECTS} lanes, {name}: RSS {} MiB ({} MiB without them), {:.2} s of processor time in {REST:?} at rest, /status {} KiB",
        rss / MIB,
        before / MIB,
        at_rest,
        reply.body.len() / 1024
    );
    // Not wall time but work: lanes that are polled take far more.
    assert!(at_rest < 1.0, "{name}: {at_rest} s of processor time at rest");
    // 10 KB a lane, and room to breathe.
    assert!(rss < before + 256 * MIB, "{name}: RSS is {} MiB", rss / MIB);
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_and_the_status_stay_small_with_ten_thousand_projects() {
    let pair = Pair::start_with(|setup| setup.with("spool.max_projects", "20000")).await;
    log_to(&pair.daemon, 0..10).await;
    pair.daemon.drained().await;
    let (few, before) = (
        series(&metrics(&pair.daemon).await),
        memory(&pair.daemon, "VmRSS"),
    );
    log_to(&pair.daemon, 10..PROJECTS).await;
    pair.daemon.drained().await;
    let many = series(&metrics(&pair.daemon).await);
    let new: Vec<_> = many.difference(&few).collect();
    // A series appears when it is first counted, so an answer of another kind may have come by.
    assert!(new.len() < 10, "{} series are new: {new:?}", new.len());
    assert!(!many.iter().any(|name| name.contains("project-")), "{many:?}");
    eprintln!(
        "{} series with 10 projects, {} with {PROJECTS}",
        few.len(),
        many.len()
    );
    look(&pair, "all delivered", before).await;
    assert_eq!(pair.finish().await.delivered, PROJECTS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_projects_without_a_key_make_few_hints() {
    let pair = Pair::start_with(|setup| {
        let setup = setup.without("upstream.api_key");
        setup.with("spool.max_projects", "20000")
    })
    .await;
    let before = memory(&pair.daemon, "VmRSS");
    log_to(&pair.daemon, 0..PROJECTS).await;
    let status = look(&pair, "without a key", before).await;
    let hints = status["hints"].as_array().expect("a list");
    assert!((2..20).contains(&hints.len()), "{hints:?}");
    assert!(
        hints[0].as_str().is_some_and(|hint| hint.contains("no API key")),
        "{hints:?}"
    );
    assert!(
        hints
            .last()
            .is_some_and(|hint| hint.to_string().contains("further reasons")),
        "{hints:?}"
    );
}

fn event_of(project: &str) -> String {
    json!({"input": "x", "project_id": project}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_bound_new_projects_are_refused_and_all_others_are_taken() {
    let pair = Pair::start_with(|setup| {
        let setup = setup.without("upstream.api_key").with("spool.max_projects", "5");
        setup.with("upstream.project_id", "default")
    })
    .await;
    let events: Vec<String> = (0..8).map(|n| event_of(&format!("project-{n}"))).collect();
    let reply = pair.post("/log", client::batch(&events)).await;
    assert_eq!(reply.status, 200);
    let logged = reply.json()["logged_events"].as_array().expect("a list").clone();
    let taken = logged.iter().filter(|event| event["task_id"].is_string()).count();
    assert_eq!((taken, logged.len()), (5, 8), "{logged:?}");
    let why = logged[7]["error_in_log"].as_str().unwrap_or_default();
    assert!(why.contains("spool.max_projects = 5"), "{why}");

    let refused = pair.post("/log", event_of("project-7")).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.detail().contains("spool.max_projects"),
        "{}",
        refused.detail()
    );
    let refused = pair
        .post(
            "/feedback",
            r#"{"task_id": "t", "flag": "success", "project_id": "project-7"}"#,
        )
        .await;
    assert_eq!(refused.status, 503);
    let mut lines = Lines::connect(&pair.daemon.unix).await;
    let answer = lines.ask(&event_of("project-7")).await;
    assert!(answer.to_string().contains("spool.max_projects"), "{answer}");

    assert_eq!(
        pair.post("/log", event_of("project-1")).await.status,
        200,
        "it is known"
    );
    assert_eq!(
        pair.post("/log", r#"{"input": "x"}"#).await.status,
        200,
        "the default one"
    );
    assert_eq!(pair.daemon.ledger().await.queued, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_more_projects_than_the_bound_is_worked_off_a_few_at_a_time() {
    let mut pair = Pair::start_with(|setup| {
        let setup = setup.without("upstream.api_key");
        setup.with("spool.max_projects", "100")
    })
    .await;
    log_to(&pair.daemon, 0..24).await;
    pair.daemon.kill_hard();
    pair.daemon.exited().await;
    let setup = pair.setup.clone().with("upstream.api_key", "key");
    pair.daemon = setup.with("spool.max_projects", "1").start().await;
    assert_eq!(pair.daemon.drained().await.delivered, 24);
    // Their couriers have ended, and come back.
    log_to(&pair.daemon, 0..24).await;
    assert_eq!(pair.daemon.drained().await.delivered, 48);
}
