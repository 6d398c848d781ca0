//! Load that remembers what was acknowledged.

use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// Clients that log one event after another until told to stop, each in a project of its own.
pub(crate) struct Load {
    clients: JoinSet<()>,
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Vec<String>>>>,
    count: Arc<AtomicU64>,
}

impl Load {
    /// Starts `clients` of them. Task ids start with `prefix`.
    pub(crate) fn start(url: &str, prefix: &str, clients: usize) -> Self {
        let mut this = Self {
            clients: JoinSet::new(),
            stop: Arc::default(),
            taken: Arc::new(Mutex::new(vec![Vec::new(); clients])),
            count: Arc::default(),
        };
        for n in 0..clients {
            let (stop, taken, count) = (this.stop.clone(), this.taken.clone(), this.count.clone());
            let (url, prefix) = (format!("{url}/v2/log/load-{n}"), prefix.to_owned());
            this.clients.spawn(async move {
                let client = reqwest::Client::new();
                let mut next = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let ids: Vec<String> = (next..next + 3).map(|k| format!("{prefix}-{n}-{k}")).collect();
                    next += 3;
                    let events: Vec<_> = ids
                        .iter()
                        .map(|id| json!({"input": "under load", "output": id, "task_id": id}))
                        .collect();
                    let body = json!({"batched_log_events": events}).to_string();
                    let request = client
                        .post(&url)
                        .header("content-type", "application/json")
                        .body(body);
                    // The daemon may die at any moment; what it did not acknowledge is not counted.
                    let Ok(reply) = request.send().await else { break };
                    if reply.status() == 200 && reply.bytes().await.is_ok() {
                        count.fetch_add(3, Ordering::Relaxed);
                        taken.lock().expect("no panic in a client")[n].extend(ids);
                    }
                }
            });
        }
        this
    }

    /// How many events were acknowledged so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Stops and gives the acknowledged ids, one list a client (project `load-N`), in order.
    pub(crate) async fn stop(mut self) -> Vec<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        std::mem::take(&mut self.taken.lock().expect("no panic in a client"))
    }
}
