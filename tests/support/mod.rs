//! What the black-box tests stand on: the real binary as a child, the sandbox in this process, plain clients.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod address;
pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod executable;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod notes;
pub(crate) mod skip;
pub(crate) mod upstream;

use std::future::Future;
use std::time::Duration;

/// Longest that a test waits for anything. Only a broken daemon ever takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again until `check` gives a value; fails with `what` when [`PATIENCE`] runs out.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
            if let Some(value) = check().await {
                return value;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for: {what}"),
    }
}

/// A sandbox and a daemon in front of it, in a folder that goes with them.
pub(crate) struct Pair {
    pub(crate) upstream: upstream::Upstream,
    pub(crate) daemon: daemon::Daemon,
    pub(crate) setup: daemon::Setup,
    pub(crate) client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Pair {
    /// Starts both, with further settings.
    pub(crate) async fn start_with(adjust: impl FnOnce(daemon::Setup) -> daemon::Setup) -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let upstream = upstream::Upstream::start().await;
        let setup = adjust(daemon::Setup::new(folder.path(), &upstream.url()));
        let daemon = setup.start().await;
        Self {
            upstream,
            daemon,
            setup,
            client: reqwest::Client::new(),
            _folder: folder,
        }
    }

    /// Starts both.
    pub(crate) async fn start() -> Self {
        Self::start_with(|setup| setup).await
    }

    /// Starts both, and waits until one event's request is in flight. Neither an answer nor a limit ends it for minutes.
    pub(crate) async fn start_in_flight() -> Self {
        let pair = Self::start_with(|setup| {
            setup
                .with("shutdown.grace", "5 min")
                .with("upstream.timeout", "5 min")
        })
        .await;
        pair.upstream
            .switch(serde_json::json!({"delay_ms": 300_000}))
            .await;
        assert_eq!(pair.post("/log", r#"{"input":"x"}"#).await.status, 200);
        pair.upstream.reached("requests", 1, |state| state.requests).await;
        pair
    }

    /// `{daemon}{path}`
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.daemon.url)
    }

    /// POSTs JSON to the daemon.
    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> client::Reply {
        client::post(&self.client, &self.at(path), body).await
    }

    /// Every dead letter, over the Unix socket.
    pub(crate) async fn dead_letters(&self) -> Vec<serde_json::Value> {
        dead_letters(&self.daemon).await
    }

    /// Waits for an empty queue, checks that nothing surprised the sandbox, ends both.
    pub(crate) async fn finish(self) -> ledger::Counts {
        let counts = self.daemon.drained().await;
        self.upstream.finish().await;
        counts
    }
}

/// Every dead letter of a daemon, over its Unix socket.
pub(crate) async fn dead_letters(daemon: &daemon::Daemon) -> Vec<serde_json::Value> {
    let text = dead_letters_text(daemon).await;
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

/// The same as text, for events that no ordinary parser takes.
pub(crate) async fn dead_letters_text(daemon: &daemon::Daemon) -> String {
    let unix = client::unix(&daemon.unix);
    let reply = client::send(unix.get("http://localhost/dead_letters?limit=1000")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    String::from_utf8(reply.body).expect("text")
}

/// A value of `/proc/PID/status`, in bytes.
pub(crate) fn memory(daemon: &daemon::Daemon, name: &str) -> usize {
    let path = format!("/proc/{}/status", daemon.pid());
    let text = std::fs::read_to_string(path).expect("our child has a status");
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .expect("it is there");
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<usize>().ok());
    kib.expect("a number") * 1024
}
