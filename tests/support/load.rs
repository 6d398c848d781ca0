//! Load that remembers what was acknowledged.

use serde_json::{Value, json};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// What a load consists of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Start of the projects' names: `load` for `load-0` and so on.
    pub(crate) project: &'static str,
    /// Clients, each in a project of its own.
    pub(crate) clients: usize,
    /// Events a request.
    pub(crate) events: usize,
    /// Bytes in each event that do not compress.
    pub(crate) filler: usize,
}

/// The event of a task: always the same for the same id, so that it can be recognised on the other side.
pub(crate) fn event(id: &str, filler: usize) -> Value {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let mut random = fastrand::Rng::with_seed(hasher.finish());
    let noise: String = (0..filler).map(|_| random.alphanumeric()).collect();
    json!({"input": "under load", "output": format!("{id} {noise}"), "task_id": id})
}

/// Clients that log one request after another until told to stop or until the daemon is gone.
pub(crate) struct Load {
    clients: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    taken: Mutex<Vec<Vec<String>>>,
    count: AtomicU64,
    refusals: Mutex<Refusals>,
}

/// What was answered other than 200.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    /// How many requests.
    pub(crate) requests: u64,
    /// Each status and sentence once.
    pub(crate) answers: Vec<(u16, String)>,
}

impl Load {
    /// Starts `clients` of them with small events. Task ids start with `prefix`.
    pub(crate) fn start(url: &str, prefix: &str, clients: usize) -> Self {
        let shape = Shape {
            project: "load",
            clients,
            events: 3,
            filler: 0,
        };
        Self::shaped(url, prefix, shape)
    }

    /// Starts a load of another shape.
    pub(crate) fn shaped(url: &str, prefix: &str, shape: Shape) -> Self {
        let shared = Arc::new(Shared {
            taken: Mutex::new(vec![Vec::new(); shape.clients]),
            ..Shared::default()
        });
        let mut clients = JoinSet::new();
        for n in 0..shape.clients {
            let url = format!("{url}/v2/log/{}-{n}", shape.project);
            clients.spawn(log_on(n, url, prefix.to_owned(), shape, shared.clone()));
        }
        Self { clients, shared }
    }

    /// How many events were acknowledged so far.
    pub(crate) fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// The ids acknowledged so far, one list a client, in order.
    pub(crate) fn taken(&self) -> Vec<Vec<String>> {
        self.shared.taken.lock().expect("no panic in a client").clone()
    }

    /// What was answered other than 200 so far.
    pub(crate) fn refusals(&self) -> Refusals {
        self.shared.refusals.lock().expect("no panic in a client").clone()
    }

    /// Stops and gives the acknowledged ids, one list a client, in order.
    pub(crate) async fn stop(mut self) -> Vec<Vec<String>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        std::mem::take(&mut self.shared.taken.lock().expect("no panic in a client"))
    }
}

async fn log_on(n: usize, url: String, prefix: String, shape: Shape, shared: Arc<Shared>) {
    let client = reqwest::Client::new();
    let mut next = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let ids: Vec<String> = (next..next + shape.events)
            .map(|k| format!("{prefix}-{n}-{k}"))
            .collect();
        next += shape.events;
        let events: Vec<Value> = ids.iter().map(|id| event(id, shape.filler)).collect();
        let body = json!({"batched_log_events": events}).to_string();
        let request = client
            .post(&url)
            .header("content-type", "application/json")
            .body(body);
        // The daemon may die at any moment; what it did not acknowledge is not counted.
        let Ok(reply) = request.send().await else { break };
        let status = reply.status().as_u16();
        let Ok(body) = reply.bytes().await else { break };
        if status == 200 {
            shared.count.fetch_add(ids.len() as u64, Ordering::Relaxed);
            shared.taken.lock().expect("no panic in a client")[n].extend(ids);
        } else {
            shared.refused(status, &body);
            // As a client would that was told to come back, only sooner.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Shared {
    fn refused(&self, status: u16, body: &[u8]) {
        let detail = serde_json::from_slice::<Value>(body).unwrap_or_default()["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let mut refusals = self.refusals.lock().expect("no panic in a client");
        refusals.requests += 1;
        let answer = (status, detail);
        if !refusals.answers.contains(&answer) {
            refusals.answers.push(answer);
        }
    }
}
