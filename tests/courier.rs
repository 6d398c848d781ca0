//! Couriers between a real spool and the sandbox, in one process.

#![allow(clippy::expect_used)]

use phosphod::backoff::Backoff;
use phosphod::batch::Limits;
use phosphod::board::{Board, LaneState};
use phosphod::courier;
use phosphod::feedback::Feedback;
use phosphod::ids::{Kind, Lane, ProjectId};
use phosphod::metrics::{AttemptLabels, Metrics};
use phosphod::sandbox::{self, Sandbox, State};
use phosphod::secret::Secret;
use phosphod::spool::{self, DeadLetter, Entry, Spool};
use phosphod::upstream::{self, Upstream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

/// Longest wait for what must happen.
const LONG: Duration = Duration::from_secs(60);
/// A wait that no test lives to see the end of.
const NEVER: Duration = Duration::from_secs(3600);

struct Bench {
    sandbox: Sandbox,
    spool: Spool,
    board: Board,
    metrics: Arc<Metrics>,
    knobs: watch::Sender<Arc<courier::Settings>>,
    stop: oneshot::Sender<()>,
    couriers: JoinHandle<Result<(), courier::CourierError>>,
    _folder: tempfile::TempDir,
}

fn settings(sandbox: &Sandbox) -> courier::Settings {
    let upstream = upstream::Settings {
        base_url: sandbox.base_url(),
        timeout: LONG,
        ca_file: None,
        proxy: None,
    };
    courier::Settings {
        batch: Limits {
            max_events: 500,
            max_bytes: 4 << 20,
            max_age: Duration::from_millis(20),
        },
        backoff: Backoff::new(Duration::from_millis(2), Duration::from_millis(40))
            .expect("bounds are in order"),
        confirm: true,
        confirm_patience: Duration::from_millis(200),
        concurrency: 1,
        max_in_flight: 64,
        rate_limit: courier::RateLimit::default(),
        feedback_wait_max: LONG,
        feedback_concurrency: 16,
        default_key: Secret::new("key"),
        project_keys: BTreeMap::new(),
        upstream: Upstream::new(&upstream).expect("a client"),
    }
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut courier::Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = spool::Settings {
            path: folder.path().join("data"),
            max_bytes: 1 << 30,
            on_full: spool::OnFull::default(),
            min_free_bytes: 0,
            generation_bytes: 64 << 20,
            dead_max_bytes: 1 << 30,
            dead_max_age: NEVER,
        };
        let spool = tokio::task::spawn_blocking(move || Spool::open(spool))
            .await
            .expect("no panic")
            .expect("it opens");
        let sandbox = sandbox::start(sandbox::Settings::default())
            .await
            .expect("free ports");
        let (board, metrics) = (Board::default(), Arc::new(Metrics::new()));
        let mut first = settings(&sandbox);
        change(&mut first);
        let (knobs, seen) = watch::channel(Arc::new(first));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let run = courier::run(
            spool.clone(),
            seen,
            board.clone(),
            metrics.clone(),
            shutdown,
            LONG,
        );
        let couriers = tokio::spawn(run);
        Self {
            sandbox,
            spool,
            board,
            metrics,
            knobs,
            stop,
            couriers,
            _folder: folder,
        }
    }

    fn change(&self, change: impl FnOnce(&mut courier::Settings)) {
        let mut settings = self.knobs.borrow().as_ref().clone();
        change(&mut settings);
        self.knobs.send_replace(Arc::new(settings));
    }

    async fn switch(&self, switches: Value) {
        self.sandbox.switch(switches).await.expect("good switches");
    }

    async fn log(&self, project: &str, records: impl IntoIterator<Item = String>) {
        let lane = lane(project, Kind::Log);
        let queued = |record: String| Entry::Queued {
            lane: lane.clone(),
            record: record.into_bytes(),
        };
        self.spool
            .append(records.into_iter().map(queued).collect())
            .await
            .expect("appended");
    }

    async fn feedback(&self, project: &str, task: &str, flag: &str) {
        let body =
            json!({"flag": flag, "source": "user", "notes": format!("about {task}"), "project_id": project});
        let feedback = Feedback::parse(body.to_string().as_bytes(), Some(task), None).expect("good feedback");
        let entry = Entry::Queued {
            lane: lane(project, Kind::Feedback),
            record: feedback.to_record(),
        };
        self.spool.append(vec![entry]).await.expect("appended");
    }

    /// Waits until nothing is queued; the ledger must add up then.
    async fn drained(&self) -> phosphod::ledger::Ledger {
        until("nothing is queued", || self.spool.ledger().queued == 0).await;
        let ledger = self.spool.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        ledger
    }

    async fn state(&self, wish: impl Fn(&State) -> bool) -> State {
        self.sandbox
            .wait_for(LONG, wish)
            .await
            .unwrap_or_else(|state| panic!("never came about: {state:?}"))
    }

    async fn is_in(&self, project: &str, kind: Kind, name: &str) -> LaneState {
        let lane = lane(project, kind);
        until(name, || self.board.get(&lane).name() == name).await;
        self.board.get(&lane)
    }

    fn stored(&self, project: &str) -> Vec<String> {
        self.sandbox
            .tasks(Some(project))
            .into_iter()
            .map(|row| row.task_id)
            .collect()
    }

    async fn dead(&self) -> Vec<DeadLetter> {
        let page = self.spool.dead_letters(None, 1000).await.expect("a page");
        assert_eq!(page.next, None);
        let letters = page.letters.into_iter().map(|kept| kept.letter);
        letters.collect::<Result<_, _>>().expect("readable letters")
    }

    /// Stops everything, and gives the sandbox's last counts.
    async fn finish(self) -> State {
        let _ = self.stop.send(());
        self.couriers.await.expect("no panic").expect("couriers end well");
        self.spool.close().await;
        let state = self.sandbox.shutdown().await;
        assert_eq!(state.surprises, Vec::<String>::new());
        state
    }
}

fn lane(project: &str, kind: Kind) -> Lane {
    Lane {
        project: ProjectId::new(project).expect("an id"),
        kind,
    }
}

fn event(task: &str) -> String {
    json!({"input": "hello", "output": "world", "task_id": task}).to_string()
}

fn events(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|n| event(&task(n)))
}

fn task(n: usize) -> String {
    format!("t{n:05}")
}

fn tasks(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(task).collect()
}

/// Waits for a condition that nothing announces.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, poll)
        .await
        .unwrap_or_else(|_| panic!("never came about: {what}"));
}

#[tokio::test]
async fn events_are_delivered_once_and_in_order() {
    let bench = Bench::new().await;
    for start in (0..2000).step_by(100) {
        bench.log("p", events(start..start + 100)).await;
    }
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (2000, 0));
    assert_eq!(bench.stored("p"), tasks(0..2000));
    let state = bench.finish().await;
    assert_eq!((state.duplicates, state.failed_requests), (0, 0));
}

#[tokio::test]
async fn several_batches_in_flight_lose_nothing_through_faults() {
    let bench = Bench::with(|settings| {
        settings.concurrency = 4;
        settings.batch.max_events = 10;
    })
    .await;
    let fault = json!({"status": 503, "times": 20});
    bench.switch(fault).await;
    for start in (0..1000).step_by(250) {
        bench.log("p", events(start..start + 250)).await;
    }
    assert_eq!(bench.drained().await.delivered, 1000);
    let mut stored = bench.stored("p");
    stored.sort_unstable();
    assert_eq!(stored, tasks(0..1000));
    assert_eq!(bench.finish().await.duplicates, 0);
}

#[tokio::test]
async fn an_outage_delays_events_and_changes_nothing_else() {
    let bench = Bench::new().await;
    bench.switch(json!({"refuse": true})).await;
    bench.log("p", events(0..50)).await;
    let LaneState::BackingOff { reason, .. } = bench.is_in("p", Kind::Log, "backing_off").await else {
        panic!("it backs off");
    };
    assert!(!reason.contains("key"), "{reason}");
    bench.log("p", events(50..1200)).await;
    bench.switch(json!({"refuse": false})).await;
    bench.drained().await;
    assert_eq!(bench.stored("p"), tasks(0..1200));
    assert_eq!(bench.board.get(&lane("p", Kind::Log)), LaneState::Flowing);
    assert_eq!(bench.finish().await.duplicates, 0);
}

/// What is logged in this process, as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_outage_is_one_line_at_its_start_and_one_at_its_end() {
    let lines = Lines::default();
    let writer = lines.clone();
    // For the whole process: a subscriber of one thread misses lines that other threads were the first to pass.
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let bench = Bench::new().await;
    bench.switch(json!({"status": 503, "times": 8})).await;
    bench.log("told", events(0..10)).await;
    bench.drained().await;
    assert_eq!(bench.finish().await.failed_requests, 8);
    let text = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("UTF-8");
    let about: Vec<&str> = text.lines().filter(|line| line.contains("told/log")).collect();
    assert_eq!(about.len(), 2, "{text}");
    assert!(
        about[0].contains("delivery is failing") && about[0].contains("503"),
        "{text}"
    );
    assert!(about[1].contains("works again after"), "{text}");
}

#[tokio::test]
async fn every_passing_answer_is_tried_again_until_it_passes() {
    for status in [408, 429, 500, 502, 503, 504] {
        let bench = Bench::new().await;
        let times = if status == 500 { 1 } else { 4 };
        bench
            .switch(json!({"status": status, "times": times, "only": ["log"]}))
            .await;
        bench.log("p", events(0..20)).await;
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (20, 0), "{status}");
        // What a gateway says leaves open whether the API took the batch, so it is looked for five times after each.
        let looks = if matches!(status, 502 | 504) { 5 } else { 0 };
        assert_eq!(
            bench.finish().await.failed_requests,
            times * (1 + looks),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_is_not_sent_again_if_it_was_stored() {
    for (fault, confirm, again) in [
        ("drop_reply", true, 0),
        ("truncate_reply", true, 0),
        ("drop_reply", false, 20),
    ] {
        let bench = Bench::with(|settings| settings.confirm = confirm).await;
        bench
            .switch(json!({fault: true, "times": 1, "only": ["log"]}))
            .await;
        bench.log("p", events(0..20)).await;
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (20, 0), "{fault}");
        let state = bench.finish().await;
        assert_eq!(
            (state.stored, state.duplicates),
            (20, again),
            "{fault}, confirm {confirm}"
        );
    }
}

#[tokio::test]
async fn of_a_batch_whose_answer_is_lost_only_what_is_not_stored_goes_again() {
    let bench = Bench::new().await;
    bench
        .switch(json!({"drop_reply": true, "times": 1, "only": ["log"], "refuse_events": {task(3): "no", task(7): "no"}}))
        .await;
    bench.log("p", events(0..20)).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (18, 2));
    let state = bench.finish().await;
    assert_eq!((state.stored, state.duplicates), (18, 0));
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    // Retry-After is capped by retry.max, which no test lives to see the end of: a second request would
    // come early only if Retry-After were not honoured.
    let bench = Bench::with(|settings| {
        settings.backoff = Backoff::new(Duration::from_millis(1), NEVER).expect("bounds are in order");
    })
    .await;
    bench.switch(json!({"status": 503, "retry_after": 3000})).await;
    bench.log("p", events(0..1)).await;
    bench.is_in("p", Kind::Log, "backing_off").await;
    // Another lane's failure, once more delivered, shows that time went by.
    bench.log("q", events(1..2)).await;
    bench.is_in("q", Kind::Log, "backing_off").await;
    assert_eq!(
        bench.sandbox.state().failed_requests,
        2,
        "one request a lane, and then patience"
    );
    bench.switch(json!({"status": null, "retry_after": null})).await;
    bench.change(|_| {});
    assert_eq!(
        bench.drained().await.delivered,
        2,
        "a change of the settings ends the wait"
    );
    bench.finish().await;
}

#[tokio::test]
async fn a_wrong_key_parks_its_project_alone_and_a_right_one_resumes_it_at_once() {
    let good = Secret::new("good").expect("not empty");
    let bench = Bench::with(|settings| {
        settings.default_key = Some(good.clone());
        settings.project_keys.insert(
            ProjectId::new("bad").expect("an id"),
            Secret::new("wrong").expect("a key"),
        );
        settings.backoff = Backoff::new(NEVER, NEVER).expect("bounds are in order");
    })
    .await;
    bench.switch(json!({"keys": ["good"]})).await;
    bench.log("bad", events(0..300)).await;
    let LaneState::Parked { reason } = bench.is_in("bad", Kind::Log, "parked").await else {
        panic!("it is parked");
    };
    assert!(reason.contains("401") && !reason.contains("wrong\""), "{reason}");
    bench.log("good", events(1000..1100)).await;
    until("the other project is delivered", || {
        bench.spool.ledger().delivered == 100
    })
    .await;
    assert_eq!(bench.spool.ledger().queued, 300);
    bench.change(|settings| settings.project_keys.clear());
    bench.drained().await;
    assert_eq!(bench.stored("bad"), tasks(0..300));
    bench.finish().await;
}

#[tokio::test]
async fn a_parked_project_probes_with_one_event_and_resumes_by_itself() {
    let bench = Bench::new().await;
    bench.switch(json!({"projects": {"p": 404}})).await;
    bench.log("p", events(0..40)).await;
    bench.is_in("p", Kind::Log, "parked").await;
    bench.state(|state| state.failed_requests >= 3).await;
    bench.switch(json!({"projects": {}})).await;
    bench.drained().await;
    assert_eq!(bench.stored("p"), tasks(0..40));
    bench.finish().await;
}

#[tokio::test]
async fn a_project_without_a_key_only_queues_until_there_is_one() {
    let bench = Bench::with(|settings| settings.default_key = None).await;
    bench.log("p", events(0..10)).await;
    bench.feedback("p", &task(3), "success").await;
    let LaneState::QueueingOnly { reason } = bench.is_in("p", Kind::Log, "queueing_only").await else {
        panic!("it queues only");
    };
    assert!(reason.contains("PHOSPHO_API_KEY"), "{reason}");
    assert_eq!(bench.sandbox.state().requests, 0);
    bench.change(|settings| settings.default_key = Secret::new("key"));
    assert_eq!(bench.drained().await.delivered, 11);
    bench.finish().await;
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

#[tokio::test]
async fn a_batch_that_was_lost_silently_is_stored_after_all_and_its_tool_call_with_null_counts() {
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
        json!({"prompt_tokens": null, "completion_tokens": null})
    );
    assert_eq!(raw["raw_input"], tool_call["raw_input"]);
    let dead = bench.dead().await;
    assert!(
        dead[0].burial.reason.starts_with("accepted but never stored"),
        "{:?}",
        dead[0].burial
    );
    assert_eq!(bench.metrics.delivery_unconfirmed_batches.get(), 1);
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
        3,
        "it is asked three times and not again"
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
async fn a_connection_that_closes_after_each_reply_is_no_outage() {
    let bench = Bench::new().await;
    bench.switch(json!({"close_after_reply": true})).await;
    for start in (0..500).step_by(50) {
        bench.log("p", events(start..start + 50)).await;
        bench.drained().await;
    }
    assert_eq!(bench.stored("p"), tasks(0..500));
    bench.finish().await;
}

#[tokio::test]
async fn lost_truncated_and_garbled_replies_store_every_task_once() {
    for fault in ["drop_reply", "truncate_reply", "garbage"] {
        let bench = Bench::new().await;
        bench
            .switch(json!({fault: true, "times": 3, "only": ["log"]}))
            .await;
        bench.log("p", events(0..30)).await;
        assert_eq!(bench.drained().await.delivered, 30, "{fault}");
        assert_eq!(bench.stored("p"), tasks(0..30), "{fault}");
        bench.finish().await;
    }
}

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
    bench.log("p", [event("later")]).await;
    assert_eq!(bench.drained().await.delivered, 3);
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
    let dead = bench.dead().await;
    assert_eq!(dead[0].burial.status, Some(404));
    assert!(dead[0].burial.reason.contains("never"), "{:?}", dead[0].burial);
    assert_eq!(dead[0].burial.attempts, 1, "posted once, then only looked for");
    bench.finish().await;
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
async fn shutdown_releases_what_could_not_be_sent_and_the_account_adds_up() {
    let bench = Bench::with(|settings| {
        settings.backoff = Backoff::new(NEVER, NEVER).expect("bounds are in order");
    })
    .await;
    bench.switch(json!({"refuse": true})).await;
    bench.log("p", events(0..20)).await;
    bench.feedback("p", &task(1), "success").await;
    bench.is_in("p", Kind::Log, "backing_off").await;
    let (spool, lane) = (bench.spool.clone(), lane("p", Kind::Log));
    let _ = bench.stop.send(());
    bench
        .couriers
        .await
        .expect("no panic")
        .expect("couriers end well");
    let limits = Limits {
        max_events: 100,
        max_bytes: 4 << 20,
        max_age: Duration::ZERO,
    };
    let again = spool.lease(&lane, &limits).await;
    let order: Vec<_> = again.iter().map(|leased| leased.seq()).collect();
    assert_eq!(order.len(), 20, "all of it was released");
    assert!(order.is_sorted());
    spool.release(&lane, again).await;
    let ledger = spool.ledger();
    assert_eq!((ledger.queued, ledger.balances()), (21, true));
    spool.close().await;
}

/// An upstream that answers each request, given as text, as `answer` says: status and body. One request a connection.
async fn scripted<F>(answer: impl Fn(String) -> F + Clone + Send + 'static) -> Upstream
where
    F: Future<Output = (u16, String)> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let (mut request, mut part) = (Vec::new(), [0; 4096]);
                // Every body here is JSON and ends in a brace; a GET has none.
                while !(request.ends_with(b"}")
                    || request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n"))
                {
                    match stream.read(&mut part).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => request.extend_from_slice(&part[..count]),
                    }
                }
                let (status, body) = answer(String::from_utf8_lossy(&request).into_owned()).await;
                let reply = format!(
                    "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(reply.as_bytes()).await;
            });
        }
    });
    let settings = upstream::Settings {
        base_url: format!("http://{address}"),
        timeout: LONG,
        ca_file: None,
        proxy: None,
    };
    Upstream::new(&settings).expect("a client")
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

#[tokio::test]
async fn a_key_that_changes_while_the_old_one_is_being_refused_is_used_at_once() {
    let (asked, reply) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (in_flight, go) = (asked.clone(), reply.clone());
    let upstream = scripted(move |request: String| {
        let (asked, reply) = (asked.clone(), reply.clone());
        async move {
            if request.contains("Bearer old") {
                asked.notify_one();
                reply.notified().await;
                return (401, "{}".into());
            }
            (200, r#"{"logged_events":[{"input":"hello"}]}"#.into())
        }
    })
    .await;
    let bench = Bench::with(|settings| {
        settings.upstream = upstream;
        settings.confirm = false;
        settings.default_key = Secret::new("old");
        settings.backoff = Backoff::new(NEVER, NEVER).expect("bounds are in order");
    })
    .await;
    bench.log("p", events(0..1)).await;
    in_flight.notified().await;
    bench.change(|settings| settings.default_key = Secret::new("new"));
    // The lane sees the change before the refusal: nothing is left that would wake it.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    assert_eq!(bench.drained().await.delivered, 1);
    bench.finish().await;
}

#[tokio::test]
async fn an_upstream_that_for_a_moment_does_not_tell_is_asked_again() {
    let bench = Bench::new().await;
    bench
        .switch(json!({"status": 404, "detail": "Not Found", "only": ["task"], "times": 2}))
        .await;
    bench.log("p", events(0..10)).await;
    bench.drained().await;
    // It is a proxy that is being restarted: now it has told once, more than that is borne.
    bench
        .switch(json!({"status": 404, "detail": "Not Found", "only": ["task"], "times": 6}))
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
    assert_eq!(end.expect("it ends before the grace does").requests, 2);
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
