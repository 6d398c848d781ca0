//! What events that the API loses cost: real spool and couriers, and the sandbox as an API that answers after 30 ms.
//!
//! `cargo bench --bench repair [EVENTS]`: a backlog of 10,000 events is drained, of which 0, 1 or 10 % are tool calls, once by an
//! upstream of which nothing is known yet, and once by one that is known; and one of 500 events in which one, of which nothing is
//! known, makes the API lose its batch.

mod common;

use common::Failure;
use phosphod::backoff::Backoff;
use phosphod::batch::Limits;
use phosphod::board::Board;
use phosphod::courier::{self, RateLimit, TokenCounts};
use phosphod::ids::{Kind, Lane, ProjectId};
use phosphod::metrics::{AttemptLabels, Metrics};
use phosphod::sandbox::{self, Sandbox};
use phosphod::secret::Secret;
use phosphod::spool::{self, Entry, Spool};
use phosphod::upstream::{self, Upstream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// The API's time for an answer.
const ANSWER: Duration = Duration::from_millis(30);
/// Events of a session.
const SESSION: usize = 8;
/// Verdicts of log requests that were answered or may have been.
const POSTS: [&str; 5] = ["answered", "bisect", "split", "park", "unknown"];
/// Verdicts of read-backs.
const READS: [&str; 3] = ["stored", "missing", "unreadable"];

fn main() -> Result<(), Failure> {
    let events = common::number_wanted(10_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    println!(
        "                                        events   drained s   to 0 %   log requests   read-backs   lost batches"
    );
    runtime.block_on(async {
        let mut base = None;
        for (name, setting) in [
            ("unknown at first", TokenCounts::Auto),
            ("counts always", TokenCounts::Always),
        ] {
            for percent in [0, 1, 10] {
                let bench = Bench::open(setting).await?;
                let records = (0..events).map(|n| record(n, percent));
                let drained = bench.drain(records.collect()).await?;
                let first = *base.get_or_insert(drained.took);
                drained.print(&format!("{percent:>2} % tool calls, {name}"), first);
            }
        }
        let first = base.unwrap_or_default();
        let bench = Bench::open(TokenCounts::Auto).await?;
        bench.sandbox.switch(json!({"lose_events": ["t123"]})).await?;
        let drained = bench.drain((0..500).map(|n| record(n, 0)).collect()).await?;
        drained.print("one unknown event in 500", first);
        Ok(())
    })
}

fn record(n: usize, percent: usize) -> String {
    let id = format!("t{n}");
    let session = n / (SESSION * SESSION) * SESSION + n % SESSION;
    let text = "some words of an app ".repeat(20);
    let mut event =
        json!({"input": text, "output": text, "task_id": id, "session_id": format!("s{session}")});
    if percent > 0 && n % (100 / percent) == 3 {
        event["raw_input"] = json!([{"role": "assistant", "content": null, "tool_calls": [{"id": "c1"}]}]);
    }
    event.to_string()
}

struct Bench {
    sandbox: Sandbox,
    spool: Spool,
    metrics: Arc<Metrics>,
    setting: TokenCounts,
    _folder: tempfile::TempDir,
}

struct Drained {
    events: usize,
    took: Duration,
    posts: u64,
    reads: u64,
    lost_batches: u64,
}

impl Drained {
    fn print(&self, name: &str, first: Duration) {
        println!(
            "{name:<38} {:>7}   {:>9.2}   {:>6.2}   {:>12}   {:>10}   {:>12}",
            self.events,
            self.took.as_secs_f64(),
            self.took.as_secs_f64() / first.as_secs_f64(),
            self.posts,
            self.reads,
            self.lost_batches,
        );
    }
}

impl Bench {
    async fn open(setting: TokenCounts) -> Result<Self, Failure> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let settings = spool::Settings {
            path: folder.path().join("data"),
            max_bytes: 1 << 30,
            on_full: spool::OnFull::default(),
            min_free_bytes: 0,
            generation_bytes: 64 << 20,
            max_projects: 1_000,
            keep_room: Default::default(),
            dead_max_bytes: 1 << 30,
            dead_max_age: Duration::from_secs(3600),
        };
        let spool = tokio::task::spawn_blocking(move || Spool::open(settings)).await??;
        let sandbox = sandbox::start(sandbox::Settings::default()).await?;
        let delay: Value = json!({"delay_ms": ANSWER.as_millis() as u64});
        sandbox.switch(delay).await?;
        Ok(Self {
            sandbox,
            spool,
            metrics: Arc::new(Metrics::new()),
            setting,
            _folder: folder,
        })
    }

    fn settings(&self) -> Result<courier::Settings, Failure> {
        let upstream = upstream::Settings {
            base_url: self.sandbox.base_url(),
            timeout: Duration::from_secs(30),
            ca_file: None,
            proxy: None,
        };
        Ok(courier::Settings {
            batch: Limits {
                max_events: 500,
                max_bytes: 4 << 20,
                max_age: Duration::from_millis(500),
            },
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(60))?,
            confirm: true,
            confirm_patience: Duration::from_millis(3_400),
            token_counts: self.setting,
            concurrency: 4,
            max_in_flight: 64,
            rate_limit: RateLimit::default(),
            feedback_wait_max: Duration::from_secs(3600),
            feedback_concurrency: 16,
            default_key: Secret::new("bench"),
            project_keys: BTreeMap::new(),
            upstream: Upstream::new(&upstream)?,
        })
    }

    /// Queues the events, then starts the couriers, and waits until nothing is queued.
    async fn drain(self, records: Vec<String>) -> Result<Drained, Failure> {
        let lane = Lane {
            project: ProjectId::new("p")?,
            kind: Kind::Log,
        };
        let events = records.len();
        let entries = records.into_iter().map(|record| Entry::Queued {
            lane: lane.clone(),
            record: record.into_bytes(),
        });
        self.spool.append(entries.collect()).await?;
        let (_knobs, seen) = watch::channel(Arc::new(self.settings()?));
        let (stop, stopped) = oneshot::channel::<()>();
        let began = Instant::now();
        let couriers = tokio::spawn(courier::run(
            self.spool.clone(),
            seen,
            Board::default(),
            self.metrics.clone(),
            courier::pulse().1,
            async { drop(stopped.await) },
            Duration::from_secs(10),
        ));
        while self.spool.ledger().queued > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let took = began.elapsed();
        let _ = stop.send(());
        couriers.await??;
        self.spool.close().await;
        let count = |verdicts: &[&'static str]| {
            let of = |verdict: &&'static str| {
                let labels = AttemptLabels { kind: "log", verdict };
                self.metrics.delivery_attempts.get_or_create(&labels).get()
            };
            verdicts.iter().map(of).sum()
        };
        let (posts, reads) = (count(&POSTS), count(&READS));
        let lost_batches = self.sandbox.shutdown().await.lost_batches;
        Ok(Drained {
            events,
            took,
            posts,
            reads,
            lost_batches,
        })
    }
}
