//! A real spool, couriers and the sandbox, in one process.

use crate::address::own_host;
use phosphod::backoff::Backoff;
use phosphod::batch::Limits;
use phosphod::board::{Board, LaneState};
use phosphod::courier;
use phosphod::feedback::Feedback;
use phosphod::ids::{Kind, Lane, ProjectId};
use phosphod::metrics::Metrics;
use phosphod::sandbox::{self, Sandbox, State};
use phosphod::secret::Secret;
use phosphod::spool::{self, DeadLetter, Entry, Spool};
use phosphod::upstream::{self, Upstream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Longest wait for what must happen.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A wait that no test lives to see the end of.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    pub(crate) spool: Spool,
    pub(crate) board: Board,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) knobs: watch::Sender<Arc<courier::Settings>>,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) couriers: JoinHandle<Result<(), courier::CourierError>>,
    _folder: tempfile::TempDir,
}

/// Where the port can be closed and opened again.
fn own_address() -> sandbox::Settings {
    sandbox::Settings {
        listen: (own_host(), 0).into(),
        ..sandbox::Settings::default()
    }
}

pub(crate) fn settings(sandbox: &Sandbox) -> courier::Settings {
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
        token_counts: courier::TokenCounts::Auto,
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
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut courier::Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = spool::Settings {
            path: folder.path().join("data"),
            max_bytes: 1 << 30,
            on_full: spool::OnFull::default(),
            min_free_bytes: 0,
            generation_bytes: 64 << 20,
            max_projects: 1_000,
            keep_room: Default::default(),
            dead_max_bytes: 1 << 30,
            dead_max_age: NEVER,
        };
        let spool = tokio::task::spawn_blocking(move || Spool::open(spool))
            .await
            .expect("no panic")
            .expect("it opens");
        let sandbox = sandbox::start(own_address()).await.expect("free ports");
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
            courier::pulse().1,
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

    pub(crate) fn change(&self, change: impl FnOnce(&mut courier::Settings)) {
        let mut settings = self.knobs.borrow().as_ref().clone();
        change(&mut settings);
        self.knobs.send_replace(Arc::new(settings));
    }

    pub(crate) async fn switch(&self, switches: Value) {
        self.sandbox.switch(switches).await.expect("good switches");
    }

    pub(crate) async fn log(&self, project: &str, records: impl IntoIterator<Item = String>) {
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

    pub(crate) async fn feedback(&self, project: &str, task: &str, flag: &str) {
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
    pub(crate) async fn drained(&self) -> phosphod::ledger::Ledger {
        until("nothing is queued", || self.spool.ledger().queued == 0).await;
        let ledger = self.spool.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        ledger
    }

    pub(crate) async fn state(&self, wish: impl Fn(&State) -> bool) -> State {
        self.sandbox
            .wait_for(LONG, wish)
            .await
            .unwrap_or_else(|state| panic!("never came about: {state:?}"))
    }

    pub(crate) async fn is_in(&self, project: &str, kind: Kind, name: &str) -> LaneState {
        let lane = lane(project, kind);
        until(name, || self.board.get(&lane).name() == name).await;
        self.board.get(&lane)
    }

    pub(crate) fn stored(&self, project: &str) -> Vec<String> {
        self.sandbox
            .tasks(Some(project))
            .into_iter()
            .map(|row| row.task_id)
            .collect()
    }

    pub(crate) async fn dead(&self) -> Vec<DeadLetter> {
        let page = self.spool.dead_letters(None, 1000).await.expect("a page");
        assert_eq!(page.next, None);
        let letters = page.letters.into_iter().map(|kept| kept.letter);
        letters.collect::<Result<_, _>>().expect("readable letters")
    }

    /// Stops everything, and gives the sandbox's last counts.
    pub(crate) async fn finish(self) -> State {
        let _ = self.stop.send(());
        self.couriers.await.expect("no panic").expect("couriers end well");
        self.spool.close().await;
        let state = self.sandbox.shutdown().await;
        assert_eq!(state.surprises, Vec::<String>::new());
        state
    }
}

pub(crate) fn lane(project: &str, kind: Kind) -> Lane {
    Lane {
        project: ProjectId::new(project).expect("an id"),
        kind,
    }
}

pub(crate) fn event(task: &str) -> String {
    json!({"input": "hello", "output": "world", "task_id": task}).to_string()
}

pub(crate) fn events(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|n| event(&task(n)))
}

pub(crate) fn task(n: usize) -> String {
    format!("t{n:05}")
}

pub(crate) fn tasks(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(task).collect()
}

/// Waits for a condition that nothing announces.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, poll)
        .await
        .unwrap_or_else(|_| panic!("never came about: {what}"));
}

/// An upstream that answers each request, given as text, as `answer` says: status and body. One request a connection.
pub(crate) async fn scripted<F>(answer: impl Fn(String) -> F + Clone + Send + 'static) -> Upstream
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
